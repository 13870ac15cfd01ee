package encode

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestAccept(t *testing.T) {
	type q [codings]uint16 // identity, gzip, br, zstd, deflate
	tests := []struct {
		name  string
		lines []string
		want  q
	}{
		{"absent", nil, q{1000, 1, 1, 1, 1}},
		{"empty", []string{""}, q{1, 0, 0, 0, 0}},
		{"only commas", []string{" ,, ", ","}, q{1, 0, 0, 0, 0}},
		{"a browser", []string{"gzip, deflate, br, zstd"}, q{1, 1000, 1000, 1000, 1000}},
		{"lines", []string{"gzip", "br;q=0.5"}, q{1, 1000, 500, 0, 0}},
		{"letter case", []string{"GZIP, Br;Q=0.7, X-Gzip;q=0.2"}, q{1, 200, 700, 0, 0}},
		{"x-gzip", []string{"x-gzip"}, q{1, 1000, 0, 0, 0}},
		{"star", []string{"*"}, q{1000, 1000, 1000, 1000, 1000}},
		{"star for the rest", []string{"*;q=0.3, br;q=0.9, gzip;q=0"}, q{300, 0, 900, 300, 300}},
		{"no identity", []string{"identity;q=0"}, q{}},
		{"nothing else", []string{"gzip, *;q=0"}, q{0, 1000, 0, 0, 0}},
		{"identity before a closed star", []string{"*;q=0, identity;q=0.1"}, q{100, 0, 0, 0, 0}},
		{"three digits", []string{"br;q=0.001, gzip;q=1.000, zstd;q=0."}, q{1, 1000, 1, 0, 0}},
		{"space", []string{"\tgzip ; q=0.5 ,br;\tq=0.25"}, q{1, 500, 250, 0, 0}},
		{"named twice", []string{"gzip, gzip;q=0.2, gzip;q=0.4"}, q{1, 200, 0, 0, 0}},
		{"above one", []string{"gzip;q=1.001, br;q=2"}, q{1, 0, 0, 0, 0}},
		{"four digits", []string{"gzip;q=0.5000"}, q{1, 0, 0, 0, 0}},
		{"no digit", []string{"gzip;q=, br;q=.5, zstd;q=x, deflate;q=-1"}, q{1, 0, 0, 0, 0}},
		{"a parameter", []string{"gzip;level=9, br;q=0.5;x=1"}, q{1, 0, 0, 0, 0}},
		{"empty parameter", []string{"gzip;"}, q{1, 0, 0, 0, 0}},
		{"unreadable is not taken through star", []string{"gzip;q=x, *"}, q{1000, 0, 1000, 1000, 1000}},
		{"unreadable identity and star", []string{"gzip, identity;q=x, *;q=x"}, q{1, 1000, 0, 0, 0}},
		{"unknown names", []string{"compress, gzipp, g, \x00, br\u017f"}, q{1, 0, 0, 0, 0}},
		{"1 KiB", []string{strings.Repeat(" ", maxField-5) + "gzip"}, q{1, 1000, 0, 0, 0}},
		{"past 1 KiB", []string{strings.Repeat(" ", maxField-4) + "gzip"}, q{1000, 0, 0, 0, 0}},
		{"many empty lines", append(make([]string, maxField), "gzip"), q{1000, 0, 0, 0, 0}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Accept(tt.lines); q(got.q) != tt.want {
				t.Errorf("%.80q: got %v, want %v", tt.lines, got.q, tt.want)
			}
		})
	}
}

func TestChoose(t *testing.T) {
	all := SetOf(Identity, Gzip, Brotli, Zstd)
	id := SetOf(Identity)
	tests := []struct {
		name             string
		accept           string
		prefer           []Coding
		stored, makeable Set
		want             Coding
		ok               bool
	}{
		{"the site's order", "gzip, br, zstd", nil, id, all, Brotli, true},
		{"another order", "gzip, br, zstd", PreferStream(), id, all, Zstd, true},
		{"left out of the order", "gzip, br, zstd", []Coding{Gzip}, id, all, Gzip, true},
		{"an order of none", "gzip, br, zstd", []Coding{}, id, all, Identity, true},
		{"what is stored", "gzip, br, zstd", nil, SetOf(Identity, Gzip), all, Gzip, true},
		{"the site's order of what is stored", "gzip, br, zstd", nil, SetOf(Identity, Gzip, Zstd), all, Zstd, true},
		{"weights before what is stored", "gzip;q=0.5, br", nil, SetOf(Identity, Gzip), all, Brotli, true},
		{"weights before the order", "gzip, br;q=0.9", nil, id, all, Gzip, true},
		{"identity that is named", "identity, gzip;q=0.5", nil, id, all, Identity, true},
		{"identity as good as gzip", "identity, gzip", nil, id, all, Gzip, true},
		{"identity below the least weight", "gzip;q=0.001", nil, id, all, Gzip, true},
		{"cannot be made", "br", nil, id, SetOf(Gzip), Identity, true},
		{"nothing made", "gzip, br", nil, id, 0, Identity, true},
		{"only coded, not taken", "identity", nil, SetOf(Gzip), 0, Identity, false},
		{"only coded, taken", "br, gzip;q=0.1", nil, SetOf(Gzip), 0, Gzip, true},
		{"identity forbidden", "br, identity;q=0", nil, id, all, Brotli, true},
		{"all forbidden", "*;q=0", nil, id, all, Identity, false},
		{"nobody asked", "identity;q=0", nil, id, all, Identity, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := Accept([]string{tt.accept}).Choose(tt.prefer, tt.stored, tt.makeable)
			if got != tt.want || ok != tt.ok {
				t.Errorf("%q: got %v, %v, want %v, %v", tt.accept, got, ok, tt.want, tt.ok)
			}
		})
	}
	t.Run("absent", func(t *testing.T) {
		if got, ok := Accept(nil).Choose(nil, id, all); got != Identity || !ok {
			t.Errorf("got %v, %v, want identity", got, ok)
		}
		if got, ok := Accept(nil).Choose(nil, SetOf(Gzip), 0); got != Gzip || !ok {
			t.Errorf("only gzip stored: got %v, %v, want gzip", got, ok)
		}
	})
}

// clients are what real clients send as Accept-Encoding.
var clients = map[string][]string{
	"Chrome":            {"gzip, deflate, br, zstd"},
	"Chrome, clear":     {"gzip, deflate"},
	"Firefox":           {"gzip, deflate, br, zstd"},
	"Firefox, older":    {"gzip, deflate, br"},
	"Safari":            {"gzip, deflate, br"},
	"curl":              nil,
	"curl --compressed": {"deflate, gzip, br, zstd"},
}

func TestClientsShareFewRepresentations(t *testing.T) {
	classes := make(map[Accepted]bool)
	stored := SetOf(Identity)
	for _, name := range slices.Sorted(maps.Keys(clients)) {
		a := Accept(clients[name])
		classes[a] = true
		c, ok := a.Choose(nil, stored, SetOf(Gzip, Brotli, Zstd))
		if !ok {
			t.Errorf("%s: nothing acceptable", name)
		}
		stored = stored.With(c)
	}
	if want := SetOf(Identity, Gzip, Brotli); stored != want {
		t.Errorf("stored %b, want %b: identity, gzip and br", stored, want)
	}
	if len(classes) > 4 {
		t.Errorf("%d classes of clients, want at most 4", len(classes))
	}
}

func TestTakes(t *testing.T) {
	a := Accept([]string{"gzip, br;q=0.1, identity;q=0"})
	for _, tt := range []struct {
		stack []Coding
		want  bool
	}{
		{nil, false}, {[]Coding{Gzip}, true}, {[]Coding{Gzip, Brotli}, true},
		{[]Coding{Gzip, Zstd}, false}, {[]Coding{codings}, false},
	} {
		if got := a.Takes(tt.stack...); got != tt.want {
			t.Errorf("Takes(%v): got %v, want %v", tt.stack, got, tt.want)
		}
	}
}

func TestNegotiationDoesNotAllocate(t *testing.T) {
	lines := []string{"gzip, deflate, br;q=0.9, zstd, *;q=0.1"}
	n := testing.AllocsPerRun(100, func() {
		c, _ := Accept(lines).Choose(nil, SetOf(Identity, Gzip), SetOf(Brotli, Zstd))
		if c != Gzip {
			t.Fatalf("got %v", c)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

// plainAccept is Accept written down from RFC 9110, 12.5.3 without a thought for
// speed.
func plainAccept(lines []string) [codings]uint16 {
	names := [codings][]string{{"identity"}, {"gzip", "x-gzip"}, {"br"}, {"zstd"}, {"deflate"}}
	type said struct {
		q  float64
		ok bool
	}
	members := make(map[string][]said)
	for _, m := range strings.Split(strings.Join(lines, ","), ",") {
		parts := strings.SplitN(m, ";", 2)
		name := asciiLower(strings.Trim(parts[0], " \t"))
		s := said{1, true}
		if len(parts) == 2 {
			s.q, s.ok = plainWeight(strings.Trim(parts[1], " \t"))
		}
		members[name] = append(members[name], s)
	}
	star := -1.0
	for _, s := range members["*"] {
		if s.ok && (star < 0 || s.q < star) {
			star = s.q
		}
	}
	var out [codings]uint16
	for c := range out {
		q := -1.0
		for _, name := range names[c] {
			for _, s := range members[name] {
				switch {
				case s.ok && (q < 0 || s.q < q):
					q = s.q
				case !s.ok && Coding(c) != Identity:
					q = 0
				}
			}
		}
		if q < 0 {
			q = star
		}
		if q < 0 && Coding(c) == Identity {
			q = 0.001
		}
		out[c] = uint16(max(q, 0)*1000 + 0.5)
	}
	return out
}

func plainWeight(s string) (float64, bool) {
	number, ok := strings.CutPrefix(asciiLower(s), "q=")
	digits := strings.Replace(number, ".", "", 1)
	if !ok || len(number) > 5 || digits == "" || strings.Trim(digits, "0123456789") != "" || number[0] == '.' ||
		len(number) > 1 && number[1] != '.' {
		return 0, false
	}
	q, err := strconv.ParseFloat(strings.TrimSuffix(number, "."), 64)
	return q, err == nil && q <= 1
}

func asciiLower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// plainChoose sorts all that may be sent by what Choose's comment says.
func plainChoose(a Accepted, stored, makeable Set) (Coding, bool) {
	order := append(PreferStored(), Identity)
	open := slices.DeleteFunc(slices.Clone(order), func(c Coding) bool {
		return !stored.Has(c) && !makeable.Has(c) || a.q[c] == 0
	})
	first := func(yes bool) int {
		if yes {
			return 0
		}
		return 1
	}
	slices.SortFunc(open, func(x, y Coding) int {
		return cmp.Or(
			cmp.Compare(a.q[y], a.q[x]),
			cmp.Compare(first(x != Identity), first(y != Identity)),
			cmp.Compare(first(stored.Has(x)), first(stored.Has(y))),
			cmp.Compare(slices.Index(order, x), slices.Index(order, y)),
		)
	})
	if len(open) == 0 {
		return Identity, false
	}
	return open[0], true
}

func FuzzAccept(f *testing.F) {
	for _, lines := range clients {
		f.Add(strings.Join(lines, "\n"))
	}
	for _, s := range []string{
		"", "*", "*;q=0", "identity;q=0", "gzip;q=0.5,\tBR ;Q=1.0\nx-gzip;q=1.001", "gzip;q=0.0000;,,zstd;;q=1",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, field string) {
		lines := strings.Split(field, "\n")
		if len(field) >= maxField {
			if got := Accept(lines); got.q != [codings]uint16{Identity: 1000} {
				t.Errorf("%d bytes: got %v, want identity alone", len(field), got.q)
			}
			return
		}
		a := Accept(lines)
		if want := plainAccept(lines); a.q != want {
			t.Errorf("%q: got %v, want %v", lines, a.q, want)
		}
		for stored := range Set(1 << codings) {
			made := stored*7 + Set(len(field)) // some of the others
			c, ok := a.Choose(nil, stored, made)
			if want, wantOK := plainChoose(a, stored, made); c != want || ok != wantOK {
				t.Errorf("%q, stored %b, makeable %b: chose %v, %v, want %v, %v", lines, stored, made, c, ok, want, wantOK)
			}
		}
	})
}

func ExampleAccepted_Choose() {
	a := Accept([]string{"gzip, deflate, br, zstd"})
	makeable := SetOf(Gzip, Brotli, Zstd)
	fmt.Println(a.Choose(nil, SetOf(Identity), makeable))
	fmt.Println(a.Choose(nil, SetOf(Identity, Zstd), makeable))
	// Output:
	// br true
	// zstd true
}

func BenchmarkAccept(b *testing.B) {
	lines := []string{"gzip, deflate, br, zstd"}
	b.ReportAllocs()
	for b.Loop() {
		c, _ := Accept(lines).Choose(nil, SetOf(Identity, Brotli), SetOf(Gzip, Zstd))
		if c != Brotli {
			b.Fatal(c)
		}
	}
}
