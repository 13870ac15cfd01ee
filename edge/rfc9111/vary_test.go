package rfc9111

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

func variantOf(t *testing.T, req, resp http.Header) *Variant {
	t.Helper()
	v, ok := VariantOf(req, resp)
	if !ok {
		t.Fatalf("VariantOf(%v, %v): refused", req, resp)
	}
	return &v
}

func TestVaryAnyNeverMatches(t *testing.T) {
	for name, lines := range map[string][]string{
		"§6 alone":                    {"*"},
		"§6 in a list":                {"Accept, *"},
		"§6 first":                    {"*, Accept"},
		"§6 repeated":                 {"*, *"},
		"§6 after an empty member":    {", *"},
		"§6 on a second line":         {"Accept", "*"},
		"§6 behind an unclosed quote": {`"x, *`},
		"§6 what names no field":      {"Accept Encoding"},
		"§6 quoted":                   {`"*"`},
	} {
		if _, ok := VariantOf(http.Header{}, http.Header{"Vary": lines}); ok {
			t.Errorf("%s: %q: got a variant, want none", name, lines)
		}
	}
}

func TestVariantNames(t *testing.T) {
	v := variantOf(t, header(), header("Vary: X-B, accept", "Vary: ,x-b, ACCEPT"))
	if want := []string{"accept", "x-b"}; !slices.Equal(v.Names(), want) {
		t.Errorf("got %q, want %q", v.Names(), want)
	}
}

func TestVariantMatches(t *testing.T) {
	for _, test := range []struct {
		name, vary   string
		stored, next []string // request fields
		want         bool
	}{
		{"§6 no Vary", "", []string{"Accept: a"}, []string{"Accept: b"}, true},
		{"§6 unlisted fields are not compared", "Accept", []string{"Accept: a", "X: 1"}, []string{"Accept: a", "X: 2"}, true},
		{"§6 same value", "Accept", []string{"Accept: a"}, []string{"Accept: a"}, true},
		{"§6 other value", "Accept", []string{"Accept: a"}, []string{"Accept: b"}, false},
		{"§6 values are case-sensitive", "Foo", []string{"Foo: a"}, []string{"Foo: A"}, false},
		{"§6 absent and present", "Foo", nil, []string{"Foo: a"}, false},
		{"§6 present and absent", "Foo", []string{"Foo: a"}, nil, false},
		{"§6 absent and empty", "Foo", nil, []string{"Foo: "}, false},
		{"§6 absent and absent", "Foo", nil, nil, true},
		{"§6 every named field", "Foo, Bar", []string{"Foo: a", "Bar: b"}, []string{"Foo: a", "Bar: c"}, false},
		{"§6 order of names", "Bar, foo", []string{"Foo: a", "Bar: b"}, []string{"Bar: b", "Foo: a"}, true},
		{"§6 lines are joined", "Foo", []string{"Foo: a", "Foo: b"}, []string{"Foo: a, b"}, true},
		{"§6 optional white space", "Foo", []string{"Foo: a,b"}, []string{"Foo:  a ,\tb "}, true},
		{"§6 white space in a quoted string", "Foo", []string{`Foo: "a,b"`}, []string{`Foo: "a, b"`}, false},
		{"§6 order of lines", "Foo", []string{"Foo: a", "Foo: b"}, []string{"Foo: b", "Foo: a"}, false},
		{"§6 language: letter case", "Accept-Language", []string{"Accept-Language: en-GB"}, []string{"Accept-Language: EN-gb"}, true},
		{"§6 language: order of equals", "Accept-Language", []string{"Accept-Language: en, de"}, []string{"Accept-Language: de, en"}, true},
		{"§6 language: order by weight", "Accept-Language", []string{"Accept-Language: de;q=0.5, en"}, []string{"Accept-Language: en;q=1.000,de; Q=0.50"}, true},
		{"§6 language: other weights", "Accept-Language", []string{"Accept-Language: en, de;q=0.5"}, []string{"Accept-Language: de, en;q=0.5"}, false},
		{"§6 language: refused is not unnamed", "Accept-Language", []string{"Accept-Language: en, de;q=0"}, []string{"Accept-Language: en"}, false},
		{"§6 language: malformed as it is", "Accept-Language", []string{"Accept-Language: en;q=2"}, []string{"Accept-Language: en;q=2"}, true},
		{"§6 language: malformed is not repaired", "Accept-Language", []string{"Accept-Language: en;q=2"}, []string{"Accept-Language: EN;q=2"}, false},
		{"§6 language: malformed weight is not repaired", "Accept-Language", []string{"Accept-Language: en;q=1x"}, []string{"Accept-Language: EN;q=1x"}, false},
		{"§6 language: no range", "Accept-Language", []string{"Accept-Language: d_e"}, []string{"Accept-Language: D_E"}, false},
		{"§6 language: first letters", "Accept-Language", []string{"Accept-Language: de, fr;q=0.1"}, []string{"Accept-Language: fe, fr;q=0.1"}, false},
		{"§6 language: all letters and digits", "Accept-Language", []string{"Accept-Language: az-AZ-019"}, []string{"Accept-Language: AZ-az-019"}, true},
		{"§6 codings served", "Accept-Encoding", []string{"Accept-Encoding: gzip, deflate, br"}, []string{"Accept-Encoding: br;q=0.1,gzip"}, true},
		{"§6 other codings", "Accept-Encoding", []string{"Accept-Encoding: gzip"}, []string{"Accept-Encoding: br"}, false},
		{"§6 no coding and identity", "Accept-Encoding", nil, []string{"Accept-Encoding: identity"}, true},
		{"§6 no coding and gzip", "Accept-Encoding", nil, []string{"Accept-Encoding: gzip"}, false},
	} {
		v := variantOf(t, header(test.stored...), header("Vary: "+test.vary))
		next := header(test.next...)
		if got := v.Matches(next); got != test.want {
			t.Errorf("%s: Vary: %s, %q then %q: got %v, want %v", test.name, test.vary, test.stored, test.next, got, test.want)
		}
		if got := string(AppendSelector(nil, v.Names(), next)) == v.Selector(); got != test.want {
			t.Errorf("%s: Vary: %s, %q then %q: equal selectors: got %v, want %v", test.name, test.vary, test.stored, test.next, got, test.want)
		}
	}
}

func TestLanguageIsChosenByTopPreference(t *testing.T) {
	for _, test := range []struct {
		name, stored, content, next string
		want                        bool
	}{
		{"§6 the top preference is stored", "de-DE, de;q=0.9", "de", "fr;q=0.5, DE", true},
		{"§6 it is stored for a client that asked for more", "fr", "de", "de", true},
		{"§6 a lower preference is stored", "de", "de", "en, de;q=0.9", false},
		{"§6 two at the top", "de", "de", "en, de", false},
		{"§6 two at the top that differ in one letter", "me", "me", "me, de", false},
		{"§6 the same one twice at the top", "de, fr;q=0.1", "de", "de, DE", true},
		{"§6 no prefix matching", "en", "en", "en-GB, fr;q=0.1", false},
		{"§6 a wildcard at the top", "de", "de", "*, fr;q=0.1", false},
		{"§6 a wildcard stored", "de", "*", "*, fr;q=0.1", false},
		{"§6 several stored languages", "de", "de, en", "de, fr;q=0.1", false},
		{"§6 none stated", "de", "", "de, fr;q=0.1", false},
		{"§6 nothing wanted", "de", "de", "de;q=0", false},
		{"§6 malformed", "de", "de", "de, fr;q=x", false},
	} {
		resp := header("Vary: Accept-Language")
		if test.content != "" {
			resp.Set("Content-Language", test.content)
		}
		v := variantOf(t, header("Accept-Language: "+test.stored), resp)
		if got := v.Matches(header("Accept-Language: " + test.next)); got != test.want {
			t.Errorf("%s: stored %q for %q, then %q: got %v, want %v", test.name, test.content, test.stored, test.next, got, test.want)
		}
		if v.Matches(header()) {
			t.Errorf("%s: a client without preference: got true, want false", test.name)
		}
	}
}

func TestLanguageDoesNotExcuseOtherFields(t *testing.T) {
	v := variantOf(t, header("Accept-Language: fr", "X: 1"), header("Vary: Accept-Language, X", "Content-Language: de"))
	if !v.Matches(header("Accept-Language: de", "X: 1")) || v.Matches(header("Accept-Language: de", "X: 2")) {
		t.Error("§6 want a match with X: 1 and none with X: 2")
	}
}

func TestACodingOutsideItsClassMatchesByValueOnly(t *testing.T) {
	for _, test := range []struct {
		name, stored, coding, next string
		want                       bool
	}{
		{"§6 deflate, to who asked so", "deflate", "deflate", "deflate", true},
		{"§6 deflate, to another of no class", "deflate", "deflate", "", false},
		{"§6 deflate, to a wider list of the same class", "deflate, gzip", "deflate", "gzip", false},
		{"§6 gzip in class", "gzip", "gzip", "gzip;q=0.5", true},
		{"§6 x-gzip in class", "gzip", "X-Gzip", "x-gzip", true},
		{"§6 gzip without being asked", "", "gzip", "identity", false},
		{"§6 identity by name", "gzip", "identity", "gzip, deflate", true},
	} {
		req := func(s string) http.Header {
			if s == "" {
				return header()
			}
			return header("Accept-Encoding: " + s)
		}
		v := variantOf(t, req(test.stored), header("Vary: Accept-Encoding", "Content-Encoding: "+test.coding))
		if got := v.Matches(req(test.next)); got != test.want {
			t.Errorf("%s: %s for %q, then %q: got %v, want %v", test.name, test.coding, test.stored, test.next, got, test.want)
		}
	}
}

func TestEncodingClass(t *testing.T) {
	for _, test := range []struct {
		name  string
		lines []string
		want  string
	}{
		{"§6 absent", nil, ""},
		{"§6 empty", []string{""}, ""},
		{"§6 fixed order", []string{"gzip, br, zstd"}, "zstd, br, gzip"},
		{"§6 letter case, several lines", []string{"GZIP", "Br"}, "br, gzip"},
		{"§6 not served", []string{"deflate, compress, dcb"}, ""},
		{"§6 identity", []string{"identity"}, ""},
		{"§6 x-gzip", []string{"x-gzip"}, "gzip"},
		{"§6 weights", []string{"gzip;q=0.1, br ; q=1.000, zstd;q=0"}, "br, gzip"},
		{"§6 refused", []string{"gzip;q=0.000"}, ""},
		{"§6 unreadable weight", []string{"gzip;q=x, br;q=1.1, zstd;q=0.0001"}, ""},
		{"§6 too many decimals", []string{"gzip;q=0.5000"}, ""},
		{"§6 parameters that are no weight", []string{"gzip;, br;q=, zstd;p=1"}, ""},
		{"§6 any", []string{"*"}, "zstd, br, gzip"},
		{"§6 any but the refused", []string{"*;q=0.5, br;q=0"}, "zstd, gzip"},
		{"§6 none but the named", []string{"*;q=0, br"}, "br"},
	} {
		if got := EncodingClass(test.lines); got != test.want {
			t.Errorf("%s: %q: got %q, want %q", test.name, test.lines, got, test.want)
		}
	}
}

func TestSelectorsAreUnambiguous(t *testing.T) {
	seen := map[string]string{}
	for _, test := range []struct{ vary, lines string }{
		{"A", ""}, {"A", "A: "}, {"A", "A: -"}, {"B", "B: -"}, {"A, B", "A: 1b 3:=2"}, {"A, B", "A: 1\nB: 2"}, {"A, B", "B: 1"},
		{"Accept-Language", "Accept-Language: de"}, {"Accept-Language", "Accept-Language: de;1000"},
		{"Accept-Encoding", "Accept-Encoding: gzip"}, {"A", "A: gzip"},
	} {
		v := variantOf(t, header(strings.FieldsFunc(test.lines, func(r rune) bool { return r == '\n' })...), header("Vary: "+test.vary))
		here := test.vary + " with " + test.lines
		if other, again := seen[v.Selector()]; again {
			t.Errorf("§6 %q and %q: both have selector %q", here, other, v.Selector())
		}
		seen[v.Selector()] = here
	}
}

func TestVariantKeepsNothingOfItsArguments(t *testing.T) {
	req := header("Foo: a")
	v := variantOf(t, req, header("Vary: Foo"))
	req["Foo"][0] = "b"
	if v.Matches(req) || !v.Matches(header("Foo: a")) {
		t.Error("changing the request's slice changed the variant")
	}
}

func TestVariantSizeGrowsWithItsValues(t *testing.T) {
	small := variantOf(t, header("Foo: a"), header("Vary: Foo"))
	large := variantOf(t, header("Foo: "+strings.Repeat("a", 1000)), header("Vary: Foo"))
	if d := large.Size() - small.Size(); d < 1000 || d > 4000 || small.Size() < 50 {
		t.Errorf("got sizes %d and %d for 1 and 1,000 bytes", small.Size(), large.Size())
	}
}

func TestMatchesDoesNotAllocate(t *testing.T) {
	stored := header("Accept-Encoding: gzip, br", "Accept-Language: de, en;q=0.5", "X-Device: phone")
	resp := header("Vary: Accept-Encoding, Accept-Language, X-Device")
	v, none := variantOf(t, stored, resp), variantOf(t, stored, header())
	next := header("Accept-Encoding: br, gzip, deflate", "Accept-Language: EN;q=0.5,de", "X-Device:  phone")
	if !v.Matches(next) {
		t.Fatal("want a match")
	}
	noAllocs(t, "no Vary", func() { none.Matches(next) })
	noAllocs(t, "identical values", func() { v.Matches(stored) })
	noAllocs(t, "normalised values", func() { v.Matches(next) })
}

func TestTypeIsChosenWhereBothPreferItMost(t *testing.T) {
	const html, json = "text/html, application/json;q=0.9", "application/json"
	for _, test := range []struct {
		name, stored, content, next string
		want                        bool
	}{
		{"letter case, order and weights written otherwise", html, "", "Application/JSON;Q=0.90,TEXT/html;q=1.0", true},
		{"other weights", html, "", "text/html, application/json;q=0.8", false},
		{"parameters count", "a/b;v=1, c/d;q=0.1", "", "c/d;q=0.1,a/b ; v=1", true},
		{"other parameters", "a/b;v=1", "", "a/b;v=2", false},
		{"malformed as it is", "a/b;q=2, c/d", "", "a/b;q=2,c/d", true},
		{"malformed is not repaired", "a/b;q=2, c/d", "", "c/d, a/b;q=2", false},
		{"a quoted parameter is not read", `a/b;v="1", c/d`, "", `c/d, a/b;v="1"`, false},
		{"both prefer it", html, "text/html; charset=utf-8", "text/html, text/plain;q=0.5", true},
		{"the next prefers another", html, "text/html", json, false},
		{"the next has two at the top", html, "text/html", "text/html, text/plain", false},
		{"the stored one was asked for as another", "application/vnd.x+json", json, json, false},
		{"the stored one was one of two", "application/json, text/html", json, json, false},
		{"the stored one has parameters", json, "application/json; profile=x", "application/json, a/b;q=0.1", false},
		{"the stored one has more than charset", json, "application/json; charset=x; profile=x", "application/json, a/b;q=0.1", false},
		{"the next wants parameters", json, json, "application/json;profile=x", false},
		{"any", "*/*", "text/html", "text/html", false},
		{"no preference", html, "text/html", "*/*", false},
		{"none stated", html, "", "text/html, text/plain;q=0.5", false},
	} {
		resp := header("Vary: Accept")
		if test.content != "" {
			resp.Set("Content-Type", test.content)
		}
		v := variantOf(t, header("Accept: "+test.stored), resp)
		if got := v.Matches(header("Accept: " + test.next)); got != test.want {
			t.Errorf("%s: stored %q for %q, then %q: got %v, want %v", test.name, test.content, test.stored, test.next, got, test.want)
		}
		if v.Matches(header()) {
			t.Errorf("%s: a client without the field: got true, want false", test.name)
		}
	}
}
