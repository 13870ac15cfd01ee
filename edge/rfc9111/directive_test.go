package rfc9111

import (
	"math"
	"net/http"
	"strings"
	"testing"
	"time"
)

// said is what a response's Cache-Control comes to, in a form tables can hold.
// Lifetimes are in seconds, -1 when absent.
type said struct {
	noStore, private, noCache, mustRevalidate, public, immutable bool

	maxAge, sMaxAge, while, ifError int64
}

func summary(c control) said {
	seconds := func(l lifetime) int64 {
		if !l.set {
			return -1
		}
		return int64(l.value / time.Second)
	}
	return said{c.noStore, c.private, c.noCache, c.mustRevalidate, c.public, c.immutable,
		seconds(c.maxAge), seconds(c.sMaxAge), seconds(c.whileRevalidate), seconds(c.ifError)}
}

// saying is said with nothing in it but what f sets.
func saying(f func(*said)) said {
	s := said{maxAge: -1, sMaxAge: -1, while: -1, ifError: -1}
	if f != nil {
		f(&s)
	}
	return s
}

func maxAge(n int64) said { return saying(func(s *said) { s.maxAge = n }) }

func TestResponseDirectives(t *testing.T) {
	const very = 1<<31 - 1
	for _, test := range []struct {
		name  string
		lines string // parted by newlines
		want  said
	}{
		{"§1 names in any letter case", "Max-AGE=60, PUBLIC", saying(func(s *said) { s.maxAge, s.public = 60, true })},
		{"§1 unknown ones are skipped", `x, y=1, z="2", max-age=60`, maxAge(60)},
		{"§1 all lines", "foo\nno-store\nmax-age=60", saying(func(s *said) { s.maxAge, s.noStore = 60, true })},
		{"§1 a directive inside a quoted value is none", `foo="no-store, max-age=5", max-age=60`, maxAge(60)},
		{"§1 nor behind an escaped quote", `foo="\", no-store", max-age=60`, maxAge(60)},
		{"§1 an unclosed quote hides no restriction", `max-age=60, foo="x, no-store`, saying(func(s *said) { s.maxAge, s.noStore = 60, true })},
		{"§1 nor does it let freshness pass", `foo="x, max-age=60`, maxAge(0)},
		{"§1 nor any permission", `foo="x, public, immutable`, saying(nil)},
		{"§1 leading zeros", "max-age=0060", maxAge(60)},
		{"§1 quoted number", `max-age="60"`, maxAge(60)},
		{"§1 2^31-1", "max-age=2147483647", maxAge(very)},
		{"§1 2^31", "max-age=2147483648", maxAge(very)},
		{"§1 2^31+1", "max-age=2147483649", maxAge(very)},
		{"§1 longer than 64 bits", "max-age=" + strings.Repeat("9", 80), maxAge(very)},
		{"§1 repeated: the smallest", "max-age=10, max-age=600", maxAge(10)},
		{"§1 repeated: the smallest, behind", "max-age=600\nmax-age=10", maxAge(10)},
		{"§1 repeated: invalid is 0", "s-maxage=10, s-maxage=abc", saying(func(s *said) { s.sMaxAge = 0 })},
		{"§1 repeated: invalid is 0, before", "max-age=abc, max-age=10", maxAge(0)},
		{"§1 no-store with argument", "no-store=1", saying(func(s *said) { s.noStore = true })},
		{"§1 no-store beside an invalid lifetime", "no-store, max-age=abc", saying(func(s *said) { s.noStore, s.maxAge = true, 0 })},
		{"§1 qualified private", `private="X-A", max-age=60`, saying(func(s *said) { s.private, s.maxAge = true, 60 })},
		{"§1 private with a token swallows nothing", "private=Set-Cookie,no-store", saying(func(s *said) { s.private, s.noStore = true, true })},
		{"§1 no-cache with a token swallows nothing", "no-cache=Set-Cookie,max-age=60", saying(func(s *said) { s.noCache, s.maxAge = true, 60 })},
		{"§1 no-cache with two names in a quote", `no-cache="a, b", max-age=60`, saying(func(s *said) { s.noCache, s.maxAge = true, 60 })},
		{"§1 no-cache with an empty argument", `no-cache=""`, saying(func(s *said) { s.noCache = true })},
		{"§1 no-cache with an unclosed argument", `no-cache="Set-Cookie`, saying(func(s *said) { s.noCache = true })},
		{"§1 must-revalidate with argument", "must-revalidate=x", saying(func(s *said) { s.mustRevalidate = true })},
		{"§1 public with argument", `public="x", max-age=5`, saying(func(s *said) { s.public, s.maxAge = true, 5 })},
		{"§1 public; max-age is malformed", "public; max-age=60", maxAge(0)},
		{"§1 max-age=60;public is malformed", "max-age=60;public", maxAge(0)},
		{"§1 a restriction in a malformed member", "max-age=60 no-store", saying(func(s *said) { s.noStore, s.maxAge = true, 0 })},
		{"§1 immutable with argument is ignored", "immutable=1, max-age=60", maxAge(60)},
		{"§1 a window without value is ignored alone", "stale-while-revalidate, max-age=1", maxAge(1)},
		{"§1 a window with sign is ignored alone", "stale-while-revalidate=-1, stale-if-error=x, max-age=1", maxAge(1)},
		{"§1 windows", "stale-while-revalidate=30, stale-if-error=\"40\"", saying(func(s *said) { s.while, s.ifError = 30, 40 })},
		{"§1 repeated windows: the smallest", "stale-if-error=30, stale-if-error=20", saying(func(s *said) { s.ifError = 20 })},
		{"§1 invalid: single quotes", "max-age='60'", maxAge(0)},
		{"§1 invalid: minus", "max-age=-1", maxAge(0)},
		{"§1 invalid: plus", "max-age=+60", maxAge(0)},
		{"§1 invalid: decimals", "max-age=1.5", maxAge(0)},
		{"§1 invalid: unit", "max-age=60s", maxAge(0)},
		{"§1 invalid: letters", "max-age=abc", maxAge(0)},
		{"§1 invalid: empty", "max-age=", maxAge(0)},
		{"§1 invalid: bare", "max-age", maxAge(0)},
		{"§1 invalid: empty quotes", `max-age=""`, maxAge(0)},
		{"§1 invalid: space in quotes", `max-age="60 "`, maxAge(0)},
		{"§1 invalid: space before =", "max-age =60", maxAge(0)},
		{"§1 invalid: space after =", "max-age= 60", maxAge(0)},
		{"§1 invalid: two values", "max-age=60 70", maxAge(0)},
		{"§1 invalid: digits of another script", "max-age=\u0666", maxAge(0)},
		{"§1 invalid s-maxage does not fall through", "s-maxage=abc, max-age=60", saying(func(s *said) { s.sMaxAge, s.maxAge = 0, 60 })},
		{"§1 proxy-revalidate", "proxy-revalidate", saying(func(s *said) { s.mustRevalidate = true })},
		{"§1 a name that merely begins so", "no-store-x, private_, max-ages=5", saying(nil)},
		{"§1 no name", "=60, \"no-cache\"x", saying(func(s *said) { s.noCache = true })},
	} {
		got := summary(readControl(splitLines(test.lines), false))
		if got != test.want {
			t.Errorf("%s: %q:\n got %+v\nwant %+v", test.name, test.lines, got, test.want)
		}
	}
}

func TestQuotedPairsStandForTheirByte(t *testing.T) {
	for in, want := range map[string]string{
		`foo="bar\aqux"`: "baraqux", `foo="\"\\"`: `"\`, `foo=""`: "", `foo=a`: "a", `foo`: "",
	} {
		if d, ok := splitDirective(in); !ok || d.arg != want {
			t.Errorf("§1 %s: got %q, %v, want %q", in, d.arg, ok, want)
		}
	}
}

func TestTargetedFields(t *testing.T) {
	for _, test := range []struct {
		name  string
		lines string
		want  *said // nil: the field is ignored
	}{
		{"§10 integer", "max-age=60", new(maxAge(60))},
		{"§10 over all lines", "max-age=60\nno-store", new(saying(func(s *said) { s.maxAge, s.noStore = 60, true }))},
		{"§10 negative is 0", "max-age=-1", new(maxAge(0))},
		{"§10 ?0 is unset", "no-store=?0, private=?0, no-cache=?0, must-revalidate=?0, public=?0, max-age=60", new(maxAge(60))},
		{"§10 ?1 is set", "no-store=?1", new(saying(func(s *said) { s.noStore = true }))},
		{"§10 a restriction with argument counts", `private="a", no-cache=(a b), no-store=1`, new(saying(func(s *said) { s.private, s.noCache, s.noStore = true, true, true }))},
		{"§10 a permission with argument does not", `public=1, immutable="x", max-age=60`, new(maxAge(60))},
		{"§10 unknown members are skipped", "foo, bar=1.5, max-age=60", new(maxAge(60))},
		{"§10 parameters are none of it", "max-age=60;public", new(maxAge(60))},
		{"§10 large values saturate", "max-age=999999999999999", new(maxAge(1 << 31))},
		{"§10 last duplicate", "max-age=60, max-age=70", new(maxAge(70))},
		{"§10 only unknown members still replace", "foo", new(saying(nil))},
		{"§10 windows", "max-age=1, stale-while-revalidate=2, stale-if-error=3", new(saying(func(s *said) { s.maxAge, s.while, s.ifError = 1, 2, 3 }))},
		{"§10 a window of the wrong type is ignored alone", `max-age=1, stale-if-error="3"`, new(maxAge(1))},
		{"§10 over 15 digits", "max-age=1000000000000000", nil},
		{"§10 upper-case key", "Max-Age=60", nil},
		{"§10 upper-case key beside a good one", "max-age=60, X=1", nil},
		{"§10 space before =", "max-age =60", nil},
		{"§10 space after =", "max-age= 60", nil},
		{"§10 trailing comma", "max-age=60,", nil},
		{"§10 string", `max-age="60"`, nil},
		{"§10 decimal", "max-age=60.0", nil},
		{"§10 token", "max-age=abc", nil},
		{"§10 boolean", "max-age", nil},
		{"§10 inner list", "max-age=(60)", nil},
		{"§10 s-maxage of the wrong type", "max-age=60, s-maxage=abc", nil},
		{"§10 a wrong type ignores even no-store", "no-store, max-age=abc", nil},
		{"§10 empty", "", nil},
		{"§10 obs-text", "max-age=60, a=\"\x80\"", nil},
	} {
		c, ok := readTargeted(splitLines(test.lines))
		if ok != (test.want != nil) {
			t.Errorf("%s: %q: got valid %v, want %v", test.name, test.lines, ok, test.want != nil)
		} else if ok && summary(c) != *test.want {
			t.Errorf("%s: %q:\n got %+v\nwant %+v", test.name, test.lines, summary(c), *test.want)
		}
	}
}

func TestSurrogateControl(t *testing.T) {
	for _, test := range []struct {
		name, line string
		want       *said // nil: Cache-Control rules
	}{
		{"§10 lifetime", `content="ESI/1.0", max-age=60`, new(maxAge(60))},
		{"§10 lifetime and window", "max-age=60+30", new(saying(func(s *said) { s.maxAge, s.while, s.ifError = 60, 30, 30 }))},
		{"§10 malformed window", "max-age=60+x", new(maxAge(0))},
		{"§10 fails closed where structured fields are ignored", "max-age = 60, no-store", new(saying(func(s *said) { s.maxAge, s.noStore = 0, true }))},
		{"§10 no-store-remote", "no-store-remote, max-age=60", new(saying(func(s *said) { s.maxAge, s.noStore = 60, true }))},
		{"§10 nothing of caching", `content="ESI/1.0"`, nil},
	} {
		c, ok := readSurrogate([]string{test.line})
		if ok != (test.want != nil) {
			t.Errorf("%s: %q: got %v, want %v", test.name, test.line, ok, test.want != nil)
		} else if ok && summary(c) != *test.want {
			t.Errorf("%s: %q:\n got %+v\nwant %+v", test.name, test.line, summary(c), *test.want)
		}
	}
}

func TestGoverningField(t *testing.T) {
	all := header("CDN-Cache-Control: max-age=1", "Surrogate-Control: max-age=2", "X-Own: max-age=3", "Cache-Control: max-age=4")
	without := func(names ...string) http.Header {
		h := all.Clone()
		for _, n := range names {
			h.Del(n)
		}
		return h
	}
	broken := all.Clone()
	broken.Set("CDN-Cache-Control", "max-age=x")
	for _, test := range []struct {
		name    string
		h       http.Header
		targets []string
		want    int64
		from    Source
	}{
		{"§10 CDN-Cache-Control first", all, nil, 1, SourceCDN},
		{"§10 then Surrogate-Control", without("CDN-Cache-Control"), nil, 2, SourceSurrogate},
		{"§10 an invalid one is passed over", broken, nil, 2, SourceSurrogate},
		{"§10 then Cache-Control", without("CDN-Cache-Control", "Surrogate-Control"), nil, 4, SourceNone},
		{"§10 the list is configurable", all, []string{"x-own", "cdn-cache-control"}, 3, SourceTargeted},
		{"§10 an empty list targets nothing", all, []string{}, 4, SourceNone},
	} {
		c, from := governing(test.h, test.targets)
		if from != test.from || summary(c) != maxAge(test.want) {
			t.Errorf("%s: got %v %+v, want %v max-age %d", test.name, from, summary(c), test.from, test.want)
		}
	}
}

func TestRequestDirectives(t *testing.T) {
	none := Directives{MaxAge: -1, MinFresh: -1, MaxStale: -1}
	with := func(f func(*Directives)) Directives {
		d := none
		f(&d)
		return d
	}
	noStore := with(func(d *Directives) { d.NoStore = true })
	noCache := with(func(d *Directives) { d.NoCache = true })
	for _, test := range []struct {
		name string
		h    http.Header
		want Directives
	}{
		{"§5 none", header(), none},
		{"§5 no-store", header("Cache-Control: No-Store"), noStore},
		{"§5 no-store with argument", header("Cache-Control: no-store=1"), noStore},
		{"§5 no-store in a malformed member", header("Cache-Control: no-store; x"), noStore},
		{"§5 no-store beside an invalid number", header("Cache-Control: min-fresh=abc, no-store"), noStore},
		{"§5 no-cache with argument", header("Cache-Control: no-cache=x"), noCache},
		{"§5 only-if-cached with argument", header("Cache-Control: only-if-cached=1"), with(func(d *Directives) { d.OnlyIfCached = true })},
		{"§5 max-age", header("Cache-Control: max-age=0"), with(func(d *Directives) { d.MaxAge = 0 })},
		{"§5 repeated: the strictest", header("Cache-Control: max-age=9, max-age=5, min-fresh=1", "Cache-Control: min-fresh=2"),
			with(func(d *Directives) { d.MaxAge, d.MinFresh = 5*time.Second, 2*time.Second })},
		{"§5 max-stale with value", header("Cache-Control: max-stale=10"), with(func(d *Directives) { d.MaxStale = 10 * time.Second })},
		{"§5 max-stale without value is any", header("Cache-Control: max-stale"), with(func(d *Directives) { d.MaxStale = math.MaxInt64 })},
		{"§5 max-stale with an unreadable value is none", header("Cache-Control: max-stale=x"), none},
		{"§5 max-stale bare and with value: the strictest", header("Cache-Control: max-stale, max-stale=10"), with(func(d *Directives) { d.MaxStale = 10 * time.Second })},
		{"§1 numbers saturate", header("Cache-Control: max-age=99999999999999999999"), with(func(d *Directives) { d.MaxAge = (1<<31 - 1) * time.Second })},
		{"§5 unknown and response directives", header("Cache-Control: foo, private, stale-if-error=5"), none},
		{"§5 Pragma: no-cache", header("Pragma: x, No-Cache"), with(func(d *Directives) { d.PragmaNoCache = true })},
		{"§5 Pragma beside Cache-Control", header("Pragma: no-cache", "Cache-Control: max-age=5"), with(func(d *Directives) { d.MaxAge = 5 * time.Second })},
		{"§5 unknown Pragma", header("Pragma: foo, no-cache=x"), none},
	} {
		if got := RequestDirectives(test.h); got != test.want {
			t.Errorf("%s: %v:\n got %+v\nwant %+v", test.name, test.h, got, test.want)
		}
	}
	plain := header("Accept: */*", "User-Agent: x")
	noAllocs(t, "RequestDirectives without fields", func() { RequestDirectives(plain) })
}

func TestWhatARequestAsksIsMeasuredAgainstTheTerms(t *testing.T) {
	terms := Terms{Born: noon, Lifetime: time.Minute}
	immutable := terms
	immutable.Immutable = true
	for _, test := range []struct {
		name  string
		line  string
		terms Terms
		after time.Duration
		want  bool
	}{
		{"§5 nothing asked", "Accept: x", terms, 10 * time.Second, true},
		{"§5 no-cache", "Cache-Control: no-cache", terms, 0, false},
		{"§5 Pragma", "Pragma: no-cache", terms, 0, false},
		{"§5 young enough", "Cache-Control: max-age=10", terms, 10 * time.Second, true},
		{"§5 too old", "Cache-Control: max-age=10", terms, 11 * time.Second, false},
		{"§5 fresh long enough", "Cache-Control: min-fresh=50", terms, 10 * time.Second, true},
		{"§5 not fresh long enough", "Cache-Control: min-fresh=51", terms, 10 * time.Second, false},
		{"§3 immutable answers a forced revalidation while fresh", "Cache-Control: no-cache", immutable, 10 * time.Second, true},
		{"§3 immutable has no effect once stale", "Cache-Control: max-age=0", immutable, time.Minute, false},
	} {
		d := RequestDirectives(header(test.line))
		if got := d.Satisfied(test.terms, noon.Add(test.after)); got != test.want {
			t.Errorf("%s: %q after %v: got %v, want %v", test.name, test.line, test.after, got, test.want)
		}
	}
}
