package rfc9111

import (
	"math"
	"testing"
	"time"
)

func TestLifetime(t *testing.T) {
	const very = (1<<31 - 1) * time.Second
	date := "Date: " + dated(0)
	hour := "Expires: " + dated(time.Hour)
	for _, test := range []struct {
		name   string
		lines  []string
		want   time.Duration
		source Source
	}{
		{"§3 s-maxage first", []string{"Cache-Control: max-age=5", "Cache-Control: s-maxage=9", hour}, 9 * time.Second, SourceSMaxAge},
		{"§3 then max-age", []string{hour, "Cache-Control: max-age=5"}, 5 * time.Second, SourceMaxAge},
		{"§3 max-age wins over a past Expires", []string{"Expires: " + dated(-time.Hour), "Cache-Control: max-age=5"}, 5 * time.Second, SourceMaxAge},
		{"§3 max-age wins over an unreadable Expires", []string{"Expires: 0", "Cache-Control: max-age=5"}, 5 * time.Second, SourceMaxAge},
		{"§3 0 is stale, whatever follows", []string{"Cache-Control: s-maxage=0, max-age=5", hour}, 0, SourceSMaxAge},
		{"§1 invalid max-age does not fall through", []string{"Cache-Control: max-age=x", hour}, 0, SourceMaxAge},
		{"§1 saturates", []string{"Cache-Control: max-age=99999999999"}, very, SourceMaxAge},
		{"§3 then Expires minus Date", []string{date, hour}, time.Hour, SourceExpires},
		{"§3 the origin's clock counts", []string{"Date: " + dated(-30*time.Minute), hour}, 90 * time.Minute, SourceExpires},
		{"§3 also ahead", []string{"Date: " + dated(30*time.Minute), hour}, 30 * time.Minute, SourceExpires},
		{"§3 Expires equal to Date", []string{date, "Expires: " + dated(0)}, 0, SourceExpires},
		{"§3 Expires before Date", []string{date, "Expires: " + dated(-time.Hour)}, 0, SourceExpires},
		{"§3 Expires: 0", []string{date, "Expires: 0"}, 0, SourceExpires},
		{"§3 Expires repeated", []string{date, hour, hour}, 0, SourceExpires},
		{"§3 Expires with zone UTC", []string{date, "Expires: Tue, 10 Mar 2026 13:00:00 UTC"}, 0, SourceExpires},
		{"§3 Expires in RFC 850 form", []string{date, "Expires: Tuesday, 10-Mar-26 13:00:00 GMT"}, time.Hour, SourceExpires},
		{"§3 Expires far ahead", []string{date, "Expires: Thu, 31 Dec 9999 23:59:59 GMT"}, very + time.Second, SourceExpires},
		{"§3 Date missing", []string{hour}, time.Hour, SourceExpires},
		{"§3 Date unreadable", []string{"Date: x", hour}, time.Hour, SourceExpires},
		{"§3 Date repeated and different", []string{"Date: " + dated(-time.Hour), date, hour}, time.Hour, SourceExpires},
		{"§3 heuristic", []string{date, modified}, 144 * time.Minute, SourceHeuristic},
		{"§3 heuristic counts from Date", []string{"Date: " + dated(-24*time.Hour), modified, tagged}, 0, SourceNone},
		{"§3 heuristic cap", []string{date, "Last-Modified: Mon, 09 Mar 2020 12:00:00 GMT"}, 24 * time.Hour, SourceHeuristic},
		{"§3 Last-Modified ahead", []string{date, "Last-Modified: " + dated(time.Hour)}, 0, SourceNone},
		{"§3 Last-Modified and Date ahead", []string{"Date: " + dated(48*time.Hour), "Last-Modified: " + dated(time.Hour)}, 0, SourceNone},
		{"§3 no heuristic beside an unreadable Expires", []string{date, "Expires: 0", modified}, 0, SourceExpires},
		{"§10 replaces max-age, longer", []string{"CDN-Cache-Control: max-age=9", "Cache-Control: max-age=5"}, 9 * time.Second, SourceCDN},
		{"§10 replaces max-age, shorter", []string{"CDN-Cache-Control: max-age=2", "Cache-Control: s-maxage=5"}, 2 * time.Second, SourceCDN},
		{"§10 max-age=0 wins", []string{"CDN-Cache-Control: max-age=0", "Cache-Control: max-age=5", tagged}, 0, SourceCDN},
		{"§10 replaces Expires", []string{"CDN-Cache-Control: public", hour, tagged}, 0, SourceNone},
		{"§10 large values saturate", []string{"CDN-Cache-Control: max-age=999999999999999"}, very + time.Second, SourceCDN},
		{"§10 Surrogate-Control", []string{"Surrogate-Control: max-age=9", "Cache-Control: max-age=5"}, 9 * time.Second, SourceSurrogate},
	} {
		lines := append([]string{tagged}, test.lines...)
		got := judge(200, lines...)
		if !got.Store || got.Terms.Lifetime != test.want || got.Terms.Source != test.source {
			t.Errorf("%s: %q:\n got %v %v from %v\nwant %v from %v", test.name, lines,
				got.Why, got.Terms.Lifetime, got.Terms.Source, test.want, test.source)
		}
	}
}

func TestHeuristicsAreConfigurable(t *testing.T) {
	for _, test := range []struct {
		name    string
		options Options
		want    time.Duration
	}{
		{"§3 fraction", Options{HeuristicFraction: 0.5}, 12 * time.Hour},
		{"§3 cap", Options{HeuristicCap: time.Minute}, time.Minute},
		{"§3 negative: none", Options{HeuristicFraction: -1}, 0},
		{"§3 no number: none", Options{HeuristicFraction: math.NaN()}, 0},
		{"§3 infinite: the cap", Options{HeuristicFraction: math.Inf(1)}, 24 * time.Hour},
	} {
		got := Judge(Ask{Method: "GET"}, 200, header(modified), noon, noon, &test.options)
		if got.Terms.Lifetime != test.want {
			t.Errorf("%s: %+v: got %v, want %v", test.name, test.options, got.Terms.Lifetime, test.want)
		}
	}
}

func TestAge(t *testing.T) {
	for _, test := range []struct {
		name  string
		lines []string
		delay time.Duration // between asked and got
		want  time.Duration // ten seconds after
	}{
		{"§3 residence", nil, 0, 10 * time.Second},
		{"§3 response delay", nil, 2 * time.Second, 12 * time.Second},
		{"§3 Age", []string{"Age: 30"}, 0, 40 * time.Second},
		{"§3 Age and delay", []string{"Age: 30"}, 2 * time.Second, 42 * time.Second},
		{"§3 apparent age", []string{"Date: " + dated(-50*time.Second)}, 2 * time.Second, 60 * time.Second},
		{"§3 the larger of both", []string{"Date: " + dated(-5*time.Second), "Age: 30"}, 0, 40 * time.Second},
		{"§3 Date ahead", []string{"Date: " + dated(time.Hour)}, 0, 10 * time.Second},
		{"§3 unreadable Age", []string{"Age: x"}, 0, 10 * time.Second},
		{"§3 Age saturates", []string{"Age: 99999999999"}, 0, verySeconds*time.Second + 10*time.Second},
		{"§3 a clock that went back", nil, -time.Hour, 10 * time.Second},
		{"§10 Age counts with a targeted lifetime", []string{"CDN-Cache-Control: max-age=60", "Age: 30"}, 0, 40 * time.Second},
	} {
		lines := append([]string{"Cache-Control: max-age=60"}, test.lines...)
		d := Judge(Ask{Method: "GET"}, 200, header(lines...), noon.Add(-test.delay), noon, nil)
		now := noon.Add(10 * time.Second)
		if got := d.Terms.Age(now); !d.Store || got != test.want {
			t.Errorf("%s: %q: got %v, want %v", test.name, lines, got, test.want)
		}
		if got, want := d.Terms.TTL(now), time.Minute-test.want; got != want {
			t.Errorf("%s: %q: TTL: got %v, want %v", test.name, lines, got, want)
		}
	}
}

func TestFreshnessOverTime(t *testing.T) {
	plain := judge(200, "Cache-Control: max-age=60, must-revalidate", tagged).Terms
	for _, test := range []struct {
		name  string
		terms Terms
		after time.Duration
		want  bool
	}{
		{"§4 fresh, must-revalidate or not", plain, 59 * time.Second, true},
		{"§3 stale from its lifetime on", plain, time.Minute, false},
		{"§4 before it was born", plain, -time.Hour, true},
		{"§3 0 is stale at once", judge(200, "Cache-Control: max-age=0", tagged).Terms, 0, false},
		{"§4 no-cache is validated at each use", judge(200, "Cache-Control: no-cache, max-age=60", tagged).Terms, 0, false},
		{"§10 targeted no-cache too", judge(200, "CDN-Cache-Control: no-cache, max-age=60", tagged).Terms, 0, false},
		{"§3 saturated Age outlasts a saturated lifetime", judge(200, "Cache-Control: max-age=2147483648", "Age: 2147483648").Terms, 0, false},
		{"the zero value is never fresh", Terms{}, 0, false},
	} {
		if got := test.terms.Fresh(noon.Add(test.after)); got != test.want {
			t.Errorf("%s: %+v after %v: got %v, want %v", test.name, test.terms, test.after, got, test.want)
		}
	}
}

func TestServingStale(t *testing.T) {
	const never, day = time.Duration(-1), 24 * time.Hour
	for _, test := range []struct {
		name string
		line string
		// how long past its lifetime the response serves: while one refresh
		// runs, instead of a 503, and when the origin is gone for up to a day
		while, on503, gone time.Duration
	}{
		{"§4 plain: disconnection alone", "max-age=60", never, never, day},
		{"§4 stale-while-revalidate", "max-age=60, stale-while-revalidate=30", 30 * time.Second, never, day},
		{"§4 stale-if-error", "max-age=60, stale-if-error=40", never, 40 * time.Second, day},
		{"§4 a window longer than the disconnected maximum", "max-age=60, stale-if-error=864000", never, 10 * day, 10 * day},
		{"§4 no-cache", "no-cache, max-age=60, stale-while-revalidate=30, stale-if-error=40", never, never, never},
		{"§4 must-revalidate", "max-age=60, must-revalidate, stale-while-revalidate=30, stale-if-error=40", never, never, never},
		{"§4 proxy-revalidate", "max-age=60, proxy-revalidate, stale-while-revalidate=30, stale-if-error=40", never, never, never},
		{"§4 s-maxage", "s-maxage=60", never, never, never},
		{"§4 s-maxage with windows", "s-maxage=60, stale-while-revalidate=30, stale-if-error=40", 30 * time.Second, 40 * time.Second, 40 * time.Second},
		{"§4 s-maxage with one window", "s-maxage=60, stale-while-revalidate=30", 30 * time.Second, never, never},
		{"§4 s-maxage with a window and must-revalidate", "s-maxage=60, must-revalidate, stale-if-error=40", never, never, never},
		{"§4 an unreadable s-maxage is one", "s-maxage=x, max-age=60", never, never, never},
		{"§4 a window of 0 refuses", "max-age=60, stale-if-error=0", never, never, never},
		{"§1 an unreadable window is ignored alone", "max-age=60, stale-if-error=x, stale-while-revalidate=30", 30 * time.Second, never, day},
	} {
		terms := judge(200, "Cache-Control: "+test.line, tagged).Terms
		stale := noon.Add(terms.Lifetime)
		check := func(what string, want time.Duration, serves func(now time.Time) bool) {
			if want == never {
				if serves(stale) {
					t.Errorf("%s: %q: %s: serves once stale, want never", test.name, test.line, what)
				}
				return
			}
			if !serves(stale) || !serves(stale.Add(want-1)) || serves(stale.Add(want)) {
				t.Errorf("%s: %q: %s: at the edges 0, %v: got %v, %v, %v, want true, true, false", test.name, test.line,
					what, want, serves(stale), serves(stale.Add(want-1)), serves(stale.Add(want)))
			}
		}
		check("while revalidating", test.while, terms.MayServeStale)
		for _, status := range []int{500, 502, 503, 504} {
			check("on error", test.on503, func(now time.Time) bool { return terms.MayServeOnError(now, status, day) })
		}
		check("disconnected", test.gone, func(now time.Time) bool { return terms.MayServeOnError(now, 0, day) })
		check("on 501", never, func(now time.Time) bool { return terms.MayServeOnError(now, 501, day) })
		check("on 404", never, func(now time.Time) bool { return terms.MayServeOnError(now, 404, day) })
		if !terms.Validate && terms.MayServeStale(stale.Add(-1)) {
			t.Errorf("%s: %q: stale before its time", test.name, test.line)
		}
	}
}

func TestTheLongestWindowDoesNotOverflow(t *testing.T) {
	terms := judge(200, "Cache-Control: max-age=2147483648").Terms
	if now := noon.Add(terms.Lifetime + time.Hour); !terms.MayServeOnError(now, 0, math.MaxInt64) {
		t.Errorf("%+v an hour past its lifetime: want served without limit", terms)
	}
	if (Terms{}).MayServeOnError(noon, 0, math.MaxInt64) || (Terms{WhileRevalidate: math.MaxInt64}).MayServeStale(noon) {
		t.Error("terms without a birth are served")
	}
}

func TestFlagsOfTerms(t *testing.T) {
	for _, test := range []struct {
		line                  string
		immutable, authorized bool
	}{
		{"max-age=60", false, false},
		{"max-age=60, immutable", true, false},
		{"max-age=60, public", false, true},
		{"max-age=60, must-revalidate", false, true},
		{"max-age=60, proxy-revalidate", false, false},
		{`max-age=60, x;note="must-revalidate"`, false, false},
		{"s-maxage=60", false, true},
		{"s-maxage=60, s-maxage=x", false, false},
	} {
		got := judge(200, "Cache-Control: "+test.line, tagged).Terms
		if got.Immutable != test.immutable || got.Authorized != test.authorized {
			t.Errorf("§2 %q: got immutable %v, authorized %v, want %v, %v", test.line,
				got.Immutable, got.Authorized, test.immutable, test.authorized)
		}
	}
}

func TestFreshAndAgeDoNotAllocate(t *testing.T) {
	terms := judge(200, "Cache-Control: max-age=60").Terms
	noAllocs(t, "Fresh, Age, TTL", func() { terms.Fresh(noon); terms.Age(noon); terms.TTL(noon); terms.MayServeStale(noon) })
}

func TestSourceNames(t *testing.T) {
	for source, want := range map[Source]string{SourceNone: "none", SourceSMaxAge: "s-maxage", SourceMaxAge: "max-age",
		SourceExpires: "expires", SourceHeuristic: "heuristic", SourceCDN: "cdn-cache-control",
		SourceSurrogate: "surrogate-control", SourceTargeted: "targeted", SourceTTL: "ttl", SourceTTL + 1: "none"} {
		if got := source.String(); got != want {
			t.Errorf("%d: got %q, want %q", source, got, want)
		}
	}
}
