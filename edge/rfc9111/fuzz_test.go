package rfc9111

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/cachecontrol/cacheobject"
)

func FuzzMembers(f *testing.F) {
	for _, s := range []string{"", ",", `a="x, y", b`, `a="x\", y`, "a\nb, c", `"`, `"\`, "Accept, *"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		lines := splitLines(text)
		all := Members(lines)
		for _, m := range all {
			if m == "" || m != trimOWS(m) || !strings.Contains(text, m) {
				t.Fatalf("%q: member %q", text, m)
			}
			if again := Members([]string{m}); !slices.Equal(again, []string{m}) && !strings.Contains(m, `"`) {
				t.Fatalf("%q: member %q has members %q", text, m, again)
			}
		}
		if !strings.Contains(text, `"`) {
			want := strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == '\n' })
			for i := range want {
				want[i] = trimOWS(want[i])
			}
			want = slices.DeleteFunc(want, func(s string) bool { return s == "" })
			if !slices.Equal(all, want) {
				t.Fatalf("%q: got %q, want %q", text, all, want)
			}
		}
		if joined := string(appendJoined(nil, lines)); string(appendJoined(nil, []string{joined})) != joined && !strings.Contains(text, `"`) {
			t.Fatalf("%q: joined %q is not its own normal form", text, joined)
		}
	})
}

func FuzzParseDate(f *testing.F) {
	for _, s := range []string{"Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994",
		"0", "Sun, 29 Feb 2023 08:49:60 gMT", "Sun, 06 Nov 1994 08:49:37 UTC"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, ok := ParseDate(s)
		at, okAt := ParseDateAt(s, noon)
		if ok != okAt && !strings.Contains(s, "-") {
			t.Fatalf("%q: ParseDate %v, ParseDateAt %v", s, ok, okAt)
		}
		if okAt && at.After(noon.AddDate(50, 0, 1)) && strings.Contains(s, "-") {
			t.Fatalf("%q: %v is more than 50 years ahead", s, at)
		}
		if !ok {
			return
		}
		if again, ok := ParseDate(got.Format(http.TimeFormat)); !ok || !again.Equal(got) {
			t.Fatalf("%q: %v does not survive its own form: %v, %v", s, got, again, ok)
		}
		if std, err := http.ParseTime(s); err == nil && !std.Equal(got) {
			t.Fatalf("%q: got %v, net/http %v", s, got, std)
		}
	})
}

// plain tells whether the library reads a Cache-Control field as RFC 9111 does:
// its known directives in lower case, each once, with the argument they take.
func plain(text string) bool {
	seen := map[string]bool{}
	for _, m := range Members([]string{text}) {
		name, arg, hasArg := strings.Cut(m, "=")
		if seen[name] || name != strings.ToLower(name) || !isToken(name) {
			return false
		}
		seen[name] = true
		switch name {
		case "max-age", "s-maxage", "stale-while-revalidate", "stale-if-error":
			if !isDigits(arg) {
				return false
			}
		case "must-understand":
			return false
		default:
			if hasArg {
				return false
			}
		}
	}
	return true
}

func FuzzResponseDirectives(f *testing.F) {
	for _, s := range []string{"", "max-age=60, no-store", `max-age="60"`, "public; max-age=60", `no-cache="Set-Cookie`,
		"private=Set-Cookie,no-store", "max-age=10, max-age=600", "s-maxage=10, s-maxage=abc", `foo="bar\aqux"`,
		"stale-while-revalidate=30\nmust-revalidate", "max-age=99999999999999999999", "no-cache=\"a, b\", must-understand, no-store"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		lines := splitLines(text)
		c := readControl(lines, false)
		s := summary(c)
		for _, n := range []int64{s.maxAge, s.sMaxAge, s.while, s.ifError} {
			if n < -1 || n > verySeconds {
				t.Fatalf("%q: a number of %d", text, n)
			}
		}
		// Whatever stands before, a restriction on a line of its own counts, and
		// an invalid lifetime makes the response stale.
		more := readControl(append(slices.Clone(lines), "no-store, private=x", "no-cache=\"", "max-age=x"), false)
		if !more.noStore || !more.private || !more.noCache || more.maxAge.value != 0 {
			t.Fatalf("%q: restrictions behind it are lost: %+v", text, more)
		}
		for _, m := range Members(lines) {
			if strings.EqualFold(m, "no-store") && !c.noStore {
				t.Fatalf("%q: no-store is lost", text)
			}
		}
		if c.permitsAuthorized && !slices.ContainsFunc(Members(lines), func(m string) bool { return strings.EqualFold(m, "must-revalidate") }) {
			t.Fatalf("%q: answers Authorization without must-revalidate", text)
		}
		if len(lines) > 1 || !plain(text) {
			return
		}
		lib, err := cacheobject.ParseResponseCacheControl(text)
		if err != nil {
			t.Fatalf("%q: the library refuses it: %v", text, err)
		}
		want := said{lib.NoStore, lib.PrivatePresent, lib.NoCachePresent, lib.MustRevalidate || lib.ProxyRevalidate,
			lib.Public, lib.Immutable, int64(lib.MaxAge), int64(lib.SMaxAge), int64(lib.StaleWhileRevalidate), int64(lib.StaleIfError)}
		if s != want {
			t.Fatalf("%q:\n got %+v\nlibrary %+v", text, s, want)
		}
	})
}

func FuzzTargetedFields(f *testing.F) {
	for _, s := range []string{"max-age=60", "max-age=-1, no-store=?0", "max-age=999999999999999", "Max-Age=60", "max-age=60;public",
		"max-age=60\nprivate=(a b)", `max-age="60"`, "max-age=600+30, content=\"ESI/1.0\"", "no-store-remote"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		lines := splitLines(text)
		for _, surrogate := range []bool{false, true} {
			read := readTargeted
			if surrogate {
				read = readSurrogate
			}
			c, ok := read(lines)
			if !ok && !surrogate && c != (control{}) {
				t.Fatalf("%q: ignored, but says %+v", text, c)
			}
			s := summary(c)
			if min(s.maxAge, s.sMaxAge, s.while, s.ifError) < -1 || max(s.maxAge, s.sMaxAge, s.while, s.ifError) > verySeconds {
				t.Fatalf("%q: a number out of range: %+v", text, s)
			}
			if with, ok := read(append([]string{"no-store=?1"}, lines...)); ok && !with.noStore && !strings.Contains(text, "no-store") {
				t.Fatalf("%q: no-store before it is lost: %+v", text, with)
			}
		}
	})
}

func FuzzRequestDirectives(f *testing.F) {
	f.Add("no-store, max-age=0", "")
	f.Add("max-stale, min-fresh=x", "no-cache")
	f.Add("", "no-cache, foo")
	f.Add(`foo="no-store`, "")
	f.Fuzz(func(t *testing.T, text, pragma string) {
		d := RequestDirectives(http.Header{"Cache-Control": splitLines(text), "Pragma": {pragma}})
		if d.PragmaNoCache || d.MaxAge < -1 || d.MinFresh < -1 || d.MaxStale < -1 {
			t.Fatalf("%q, %q: got %+v", text, pragma, d)
		}
		if more := RequestDirectives(http.Header{"Cache-Control": append(splitLines(text), "no-store")}); !more.NoStore {
			t.Fatalf("%q: no-store behind it is lost", text)
		}
	})
}

func FuzzJudge(f *testing.F) {
	f.Add(200, "max-age=60, stale-if-error=9", "", "Tue, 10 Mar 2026 11:00:00 GMT", "0", "30", "Accept", "a=1", true)
	f.Add(503, "s-maxage=5", "max-age=1", "", "Tue, 10 Mar 2026 13:00:00 GMT", "99999999999", "*", "", false)
	f.Add(404, "public, must-revalidate", "no-store", "Sun, 06 Nov 1994 08:49:37 GMT", "", "x", "", "", true)
	f.Fuzz(func(t *testing.T, status int, control, targeted, date, expires, age, vary, cookie string, authorization bool) {
		h := http.Header{"Cache-Control": {control}, "Date": {date}, "Expires": {expires}, "Age": {age}, "Etag": {`"a"`},
			"Last-Modified": {date}, "Vary": {vary}, "Set-Cookie": {cookie}, cdnCacheControl: {targeted}}
		before := h.Clone()
		a := Ask{Method: "GET", URL: "https://a.example/", Authorization: authorization}
		o := &Options{SetCookie: SetCookie(len(cookie) % 4)}
		d := Judge(a, status, h, noon.Add(-time.Second), noon, o)
		terms := d.Terms
		switch {
		case d.Store != (d.Why == ""), !d.Store && terms != (Terms{}):
			t.Fatalf("%v: %+v", h, d)
		case !d.Store:
		case terms.Lifetime < 0, terms.Lifetime > verySeconds*time.Second, terms.WhileRevalidate < 0, terms.IfError < 0,
			terms.Age(noon) < time.Second, terms.Age(noon) > verySeconds*time.Second:
			t.Fatalf("%v: out of range: %+v", h, terms)
		case authorization && !terms.Authorized, terms.Validate && terms.Fresh(noon),
			terms.MustRevalidate && terms.MayServeOnError(noon.Add(terms.Lifetime), 0, time.Hour),
			terms.MustRevalidate && terms.MayServeStale(noon.Add(terms.Lifetime)):
			t.Fatalf("%v: %+v", h, terms)
		}
		if again := Judge(a, status, h, noon.Add(-time.Second), noon, o); again != d {
			t.Fatalf("%v: %+v, then %+v", h, d, again)
		}
		for name, lines := range before {
			if !slices.Equal(h[name], lines) {
				t.Fatalf("%s changed from %q to %q", name, lines, h[name])
			}
		}
		// A restriction can only be added, on any line, in what governs.
		h[cdnCacheControl] = nil
		for _, line := range []string{"private", "no-cache=\"x"} {
			h["Cache-Control"] = []string{control, line}
			if d := Judge(a, status, h, noon, noon, o); d.Store && (line == "private" || d.Terms.Fresh(noon)) {
				t.Fatalf("%v: stored: %+v", h, d)
			}
		}
	})
}

func FuzzVary(f *testing.F) {
	f.Add("Accept-Encoding, Foo", "gzip;q=0.5, br", "x", "de, en;q=0.5", "br, gzip", " x", "EN;q=0.5,de", "gzip", "de")
	f.Add("*", "", "", "", "", "", "", "", "")
	f.Add("Accept-Language", "*", "a\nb", "de;q=1.001", "*;q=0", "a,b", "de", "deflate", "de, en")
	f.Fuzz(func(t *testing.T, vary, encoding, foo, language, encoding2, foo2, language2, coding, content string) {
		fields := func(encoding, foo, language string) http.Header {
			return http.Header{"Accept-Encoding": splitLines(encoding), "Foo": splitLines(foo), "Accept-Language": splitLines(language)}
		}
		req, next := fields(encoding, foo, language), fields(encoding2, foo2, language2)
		resp := http.Header{"Vary": splitLines(vary), "Content-Encoding": {coding}, "Content-Language": {content}}
		v, ok := VariantOf(req, resp)
		if ok && slices.Contains(Members(resp["Vary"]), "*") {
			t.Fatalf("%q: * makes a variant", vary)
		}
		if !ok {
			return
		}
		if !v.Matches(req) {
			t.Fatalf("Vary %q: %v does not match itself", vary, req)
		}
		selector := string(AppendSelector(nil, v.Names(), next))
		if selector == v.Selector() && !v.Matches(next) {
			t.Fatalf("Vary %q: %v and %v: selector %q is the same, but they do not match", vary, req, next, selector)
		}
		if v.Matches(next) && slices.Contains(v.Names(), "foo") &&
			string(appendJoined(nil, req["Foo"])) != string(appendJoined(nil, next["Foo"])) {
			t.Fatalf("Vary %q: Foo %q matches %q", vary, next["Foo"], req["Foo"])
		}
		class := EncodingClass(req["Accept-Encoding"])
		if EncodingClass([]string{class}) != class {
			t.Fatalf("%q: class %q is not its own class", encoding, class)
		}
	})
}

func FuzzConditions(f *testing.F) {
	f.Add(`"a", W/"b"`, `"b"`, "Mon, 09 Mar 2026 12:00:00 GMT", "bytes=0-4,-5", `"b"`)
	f.Add("*", "a", "0", "bytes=-0", `W/"a"`)
	f.Add("\"\\\", \"b\"", `"b"`, "", "bytes=0-0,1-1,5-", "Mon, 09 Mar 2026 12:00:00 GMT")
	f.Fuzz(func(t *testing.T, match, tag, since, ranges, ifRange string) {
		stored := http.Header{"Etag": {tag}, "Last-Modified": {since}}
		v := ValidatorsOf(stored, noon)
		if v.ETag != "" && (v.ETag != trimOWS(tag) || !isTag(v.ETag)) {
			t.Fatalf("tag %q: read as %q", tag, v.ETag)
		}
		if NotModified("GET", http.Header{"If-None-Match": {match}}, v) && trimOWS(match) != "*" {
			if bare := strings.TrimPrefix(v.ETag, "W/"); bare == "" || !strings.Contains(match, bare) {
				t.Fatalf("If-None-Match %q matches %q", match, tag)
			}
		}
		if v.ETag != "" && !NotModified("GET", http.Header{"If-None-Match": {`"zz"`, v.ETag, match}}, v) {
			t.Fatalf("If-None-Match with %q does not match it", v.ETag)
		}
		req := http.Header{}
		if SetConditions(req, stored) && !NotModified("GET", req, v) {
			t.Fatalf("%v: its own conditions %v do not hold", stored, req)
		}
		if !Confirms(stored, stored) {
			t.Fatalf("%v does not confirm itself", stored)
		}
		if IfRange(http.Header{"If-Range": {ifRange}}, v) && isWeak(trimOWS(ifRange)) {
			t.Fatalf("weak If-Range %q is honoured", ifRange)
		}
		const size = 1000
		all, answer := Ranges("GET", http.Header{"Range": {ranges}}, size)
		if (answer == RangePartial) != (len(all) > 0) || len(all) > maxRanges || overlapping(all) {
			t.Fatalf("%q: %v, %v", ranges, all, answer)
		}
		for _, r := range all {
			if r.Start < 0 || r.Length <= 0 || r.Start > size-r.Length {
				t.Fatalf("%q: %v of %d bytes", ranges, r, size)
			}
			start, end, whole, ok := ParseContentRange(ContentRange(r, size))
			if !ok || start != r.Start || end != r.end()-1 || whole != size {
				t.Fatalf("%v: Content-Range reads %d-%d/%d, %v", r, start, end, whole, ok)
			}
		}
	})
}

func FuzzContentRange(f *testing.F) {
	for _, s := range []string{"bytes 0-4/10", "bytes 5-9/*", "bytes */10", "bytes 0-9223372036854775807/*", "bytes 1-9223372036854775807/*", "bytes 9-5/20"} {
		f.Add(s, int64(5))
	}
	f.Fuzz(func(t *testing.T, s string, length int64) {
		start, end, size, ok := ParseContentRange(s)
		if ok && (start < 0 || end < start || size != -1 && end >= size) {
			t.Fatalf("%q: %d-%d/%d", s, start, end, size)
		}
		p, stored := PartOf(http.Header{"Content-Range": {s}}, length)
		if stored && (!ok || p.Length <= 0 || p.end() <= p.Start || length >= 0 && p.Length != length) {
			t.Fatalf("%q with %d bytes: %+v", s, length, p)
		}
	})
}

func FuzzResolve(f *testing.F) {
	for _, s := range []string{"https://a.example/z", "../z", "//b.example/", "?q", "http://a.example:80:80/", "a:b", `/|"%2f`, "https://[::1]:443/", "/..//.", "#f"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, reference string) {
		const base = "https://a.example/x/y?q=1"
		absolute, ok := resolve(base, reference)
		if !ok {
			return
		}
		again, ok := resolve(absolute, "")
		if !ok || again != absolute {
			t.Fatalf("%q: %q resolves to %q, %v", reference, absolute, again, ok)
		}
		for _, u := range AlsoInvalid(base, http.Header{"Location": {reference}}) {
			if !strings.HasPrefix(u, "https://a.example/") {
				t.Fatalf("%q: invalidates %q", reference, u)
			}
		}
	})
}

func FuzzNoVarySearch(f *testing.F) {
	f.Add(`params=("a" "%20"), key-order`, "b=1&a=2", "a=%zz&b=+")
	f.Add(`params, except=("q")`, "q=1", "q=2&&=")
	f.Add("key-order=?0\nparams=?0", "", "=")
	f.Fuzz(func(t *testing.T, field, a, b string) {
		n, ok := ParseNoVarySearch(splitLines(field))
		if !ok && (n.anyOrder || n.all) && len(n.names) > 0 {
			t.Fatalf("%q: refused, but says %+v", field, n)
		}
		canonical := n.Canonical(a)
		if again := n.Canonical(canonical); again != canonical {
			t.Fatalf("%q: %q becomes %q, then %q", field, a, canonical, again)
		}
		var all NoVarySearch // every parameter and their order select
		if all.Canonical(a) == all.Canonical(b) && canonical != n.Canonical(b) {
			t.Fatalf("%q: %q and %q are the same but become %q and %q", field, a, b, canonical, n.Canonical(b))
		}
	})
}
