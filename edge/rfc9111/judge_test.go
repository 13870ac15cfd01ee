package rfc9111

import (
	"net/http"
	"reflect"
	"strconv"
	"testing"
	"time"
)

// heads of responses that many rows share
const (
	modified = "Last-Modified: Mon, 09 Mar 2026 12:00:00 GMT" // a day before noon
	tagged   = `ETag: "a"`
)

// judge judges the response of a plain GET, received at noon at once.
func judge(status int, lines ...string) Decision {
	return Judge(Ask{Method: "GET", URL: "https://a.example/x"}, status, header(lines...), noon, noon, nil)
}

func TestStoring(t *testing.T) {
	get := Ask{Method: "GET", URL: "https://a.example/x"}
	with := func(f func(*Ask)) Ask { a := get; f(&a); return a }
	authorized := with(func(a *Ask) { a.Authorization = true })
	cookie := with(func(a *Ask) { a.Cookie = true })
	for _, test := range []struct {
		name   string
		ask    Ask
		status int
		lines  []string
		want   Reason
	}{
		{"§2 explicit freshness", get, 200, []string{"Cache-Control: max-age=60"}, ""},
		{"§2 no-store", get, 200, []string{"Cache-Control: max-age=60", "Cache-Control: No-STORE", tagged}, ReasonNoStore},
		{"§2 no-store despite Expires", get, 200, []string{"Cache-Control: no-store", "Expires: " + dated(time.Hour)}, ReasonNoStore},
		{"§2 private", get, 200, []string{"Cache-Control: max-age=60, PRIVATE", tagged}, ReasonPrivate},
		{"§1 qualified private", get, 200, []string{`Cache-Control: max-age=60, private="x"`}, ReasonPrivate},
		{"§1 Pragma of a response means nothing", get, 200, []string{"Cache-Control: max-age=60", "Pragma: no-cache"}, ""},
		{"§2 neither freshness nor validator", get, 200, nil, ReasonNoFreshness},
		{"§2 lifetime 0 without validator", get, 200, []string{"Cache-Control: max-age=0"}, ReasonNoFreshness},
		{"§2 lifetime 0 with tag", get, 200, []string{"Cache-Control: max-age=0", tagged}, ""},
		{"§2 lifetime 0 with Last-Modified", get, 200, []string{"Cache-Control: max-age=0", modified}, ""},
		{"§2 a malformed tag is no validator", get, 200, []string{"Cache-Control: max-age=0", "ETag: a"}, ReasonNoFreshness},
		{"§2 lifetime 0 with a stale window", get, 200, []string{"Cache-Control: max-age=0, stale-while-revalidate=9"}, ""},
		{"§2 a silent response with validator", get, 200, []string{tagged}, ""},
		{"§2 any status: 299", get, 299, []string{"Cache-Control: max-age=60"}, ""},
		{"§2 any status: 404", get, 404, []string{"Cache-Control: max-age=60"}, ""},
		{"§2 any status: 499", get, 499, []string{"Cache-Control: max-age=60"}, ""},
		{"§2 any status: 503", get, 503, []string{"Cache-Control: max-age=60"}, ""},
		{"§2 any status: 599", get, 599, []string{"Cache-Control: max-age=60"}, ""},
		{"§2 304 is no response", get, 304, []string{"Cache-Control: max-age=60", tagged}, ReasonStatus},
		{"§2 nor is 103", get, 103, []string{"Cache-Control: max-age=60"}, ReasonStatus},
		{"§11 nor is 101", get, 101, []string{"Cache-Control: max-age=60"}, ReasonStatus},
		{"§2 206 is a part", get, 206, []string{"Cache-Control: max-age=60", tagged, "Content-Range: bytes 0-1/3"}, ReasonPartial},
		{"§2 Content-Range on a 200 is nothing", get, 200, []string{"Cache-Control: max-age=60", "Content-Range: bytes 0-1/3"}, ""},
		{"§8 416 answers the request's range only", get, 416, []string{"Cache-Control: max-age=60"}, ReasonStatus},
		{"§7 412 answers the request's condition only", get, 412, []string{"Cache-Control: max-age=60"}, ReasonStatus},
		{"§2 a silent 503 with tag", get, 503, []string{tagged}, ReasonStatus},
		{"§2 a silent 302 with tag", get, 302, []string{tagged}, ReasonStatus},
		{"§2 a public 302 with tag", get, 302, []string{tagged, "Cache-Control: public"}, ""},
		{"§2 must-understand overrides no-store", get, 200, []string{"Cache-Control: max-age=60, no-store, must-understand"}, ""},
		{"§2 but not private", get, 200, []string{"Cache-Control: max-age=60, private, must-understand"}, ReasonPrivate},
		{"§2 must-understand of an unknown status", get, 299, []string{"Cache-Control: max-age=60, must-understand"}, ReasonNotUnderstood},
		{"§2 must-understand with argument overrides nothing", get, 200, []string{"Cache-Control: max-age=60, no-store, must-understand=1"}, ReasonNoStore},
		{"§2 must-understand with argument restricts", get, 599, []string{"Cache-Control: max-age=60, must-understand=1"}, ReasonNotUnderstood},
		{"§2 no-cache is stored", get, 200, []string{"Cache-Control: no-cache", tagged}, ""},
		{"§2 no-cache without validator", get, 200, []string{"Cache-Control: no-cache, max-age=60"}, ReasonNoFreshness},
		{"§2 Authorization", authorized, 200, []string{"Cache-Control: max-age=60"}, ReasonAuthorization},
		{"§2 Authorization and public", authorized, 200, []string{"Cache-Control: max-age=60, public"}, ""},
		{"§2 Authorization and must-revalidate", authorized, 200, []string{"Cache-Control: max-age=60, must-revalidate"}, ""},
		{"§2 Authorization and s-maxage", authorized, 200, []string{"Cache-Control: s-maxage=60"}, ""},
		{"§2 Authorization and an unreadable s-maxage", authorized, 200, []string{"Cache-Control: s-maxage=x", tagged}, ReasonAuthorization},
		{"§2 Authorization and a targeted lifetime", authorized, 200, []string{"CDN-Cache-Control: max-age=60"}, ReasonAuthorization},
		{"§2 Authorization and proxy-revalidate", authorized, 200, []string{"Cache-Control: max-age=60, proxy-revalidate"}, ReasonAuthorization},
		{"§2 Authorization and must-revalidate with argument", authorized, 200, []string{"Cache-Control: max-age=60, must-revalidate=x"}, ReasonAuthorization},
		{"§2 Authorization and must-revalidate in malformed text", authorized, 200, []string{`Cache-Control: max-age=60, foo="bar must-revalidate" x`}, ReasonAuthorization},
		{"§2 Authorization and must-revalidate in a parameter", authorized, 200, []string{`Cache-Control: max-age=60, x;note="must-revalidate"`}, ReasonAuthorization},
		{"§2 Authorization and must-revalidate behind a torn quote", authorized, 200, []string{`Cache-Control: max-age=60, x="y, must-revalidate`}, ReasonAuthorization},
		{"§2 Authorization and s-maxage in a parameter", authorized, 200, []string{"Cache-Control: x;s-maxage=60", tagged}, ReasonAuthorization},
		{"§2 Authorization and a targeted must-revalidate", authorized, 200, []string{"CDN-Cache-Control: max-age=60, must-revalidate"}, ""},
		{"§2 Authorization and a targeted proxy-revalidate", authorized, 200, []string{"CDN-Cache-Control: max-age=60, proxy-revalidate"}, ReasonAuthorization},
		{"§2 Authorization and a targeted must-revalidate with argument", authorized, 200, []string{`CDN-Cache-Control: max-age=60, must-revalidate="x"`}, ReasonAuthorization},
		{"§2 Authorization and a targeted must-revalidate of ?0", authorized, 200, []string{"CDN-Cache-Control: max-age=60, must-revalidate=?0"}, ReasonAuthorization},
		{"§2 Authorization and a targeted public", authorized, 200, []string{"CDN-Cache-Control: max-age=60, public"}, ""},
		{"§2 Cookie and explicit freshness", cookie, 200, []string{"Cache-Control: max-age=60"}, ""},
		{"§2 Cookie and heuristics", cookie, 200, []string{modified}, ReasonCookie},
		{"§2 Cookie and a tag alone", cookie, 200, []string{tagged}, ReasonCookie},
		{"§2 Cookie and no-cache", cookie, 200, []string{tagged, "Cache-Control: no-cache"}, ""},
		{"§2 Content-Disposition does not matter", get, 200, []string{"Cache-Control: max-age=60", "Content-Disposition: attachment"}, ""},
		{"§2 GET with content", with(func(a *Ask) { a.Content = true }), 200, []string{"Cache-Control: max-age=60"}, ReasonContent},
		{"§5 request no-store", with(func(a *Ask) { a.NoStore = true }), 200, []string{"Cache-Control: max-age=60"}, ReasonRequestNoStore},
		{"§2 HEAD has no body to keep", with(func(a *Ask) { a.Method = "HEAD" }), 200, []string{"Cache-Control: max-age=60"}, ReasonMethod},
		{"§2 PUT", with(func(a *Ask) { a.Method = "PUT" }), 200, []string{"Cache-Control: max-age=60"}, ReasonMethod},
		{"§2 lower-case get is another method", with(func(a *Ask) { a.Method = "get" }), 200, []string{"Cache-Control: max-age=60"}, ReasonMethod},
		{"§6 Vary: *", get, 200, []string{"Cache-Control: max-age=60", "Vary: *"}, ReasonVaryAny},
		{"§6 * on a second line of Vary", get, 200, []string{"Cache-Control: max-age=60", "Vary: Accept", "Vary: , *"}, ReasonVaryAny},
		{"§10 stores over no-store", get, 200, []string{"CDN-Cache-Control: max-age=60", "Cache-Control: no-store"}, ""},
		{"§10 must-understand overrides no-store", get, 200, []string{"CDN-Cache-Control: max-age=60, no-store, must-understand"}, ""},
		{"§10 must-understand of an unknown status", get, 299, []string{"CDN-Cache-Control: max-age=60, must-understand"}, ReasonNotUnderstood},
		{"§10 unset must-understand does neither", get, 299, []string{"CDN-Cache-Control: max-age=60, must-understand=?0"}, ""},
		{"§10 unset must-understand leaves no-store", get, 200, []string{"CDN-Cache-Control: max-age=60, no-store, must-understand=?0"}, ReasonNoStore},
		{"§10 must-understand with argument restricts", get, 299, []string{"CDN-Cache-Control: max-age=60, must-understand=1"}, ReasonNotUnderstood},
		{"§10 its no-store wins", get, 200, []string{"CDN-Cache-Control: no-store, max-age=60", "Cache-Control: max-age=60"}, ReasonNoStore},
		{"§10 its private wins", get, 200, []string{"CDN-Cache-Control: private, max-age=60", "Cache-Control: max-age=60"}, ReasonPrivate},
		{"§10 max-age=0 wins over Expires", get, 200, []string{"CDN-Cache-Control: max-age=0", "Expires: " + dated(time.Hour)}, ReasonNoFreshness},
		{"§10 replaces even when it says nothing known", get, 200, []string{"CDN-Cache-Control: foo", "Cache-Control: max-age=60"}, ReasonNoFreshness},
		{"§10 an invalid one lets Cache-Control rule", get, 200, []string{"CDN-Cache-Control: max-age=6 0", "Cache-Control: no-store"}, ReasonNoStore},
	} {
		got := Judge(test.ask, test.status, header(test.lines...), noon, noon, nil)
		if got.Why != test.want || got.Store != (test.want == "") {
			t.Errorf("%s: %d %q:\n got store %v, %q\nwant store %v, %q", test.name, test.status, test.lines,
				got.Store, got.Why, test.want == "", test.want)
		}
		if !got.Store && got.Terms != (Terms{}) {
			t.Errorf("%s: terms without storing: %+v", test.name, got.Terms)
		}
	}
}

func TestSetCookiePolicy(t *testing.T) {
	for _, test := range []struct {
		name   string
		policy SetCookie
		line   string
		want   Reason
		strip  bool
	}{
		{"§2 shared: max-age alone", CookieShared, "Cache-Control: max-age=60", ReasonSetCookie, false},
		{"§2 shared: public", CookieShared, "Cache-Control: public, max-age=60", "", false},
		{"§2 shared: s-maxage", CookieShared, "Cache-Control: s-maxage=60", "", false},
		{"§2 shared: unreadable s-maxage", CookieShared, "Cache-Control: s-maxage=x, max-age=9", ReasonSetCookie, false},
		{"§2 shared: targeted field", CookieShared, "CDN-Cache-Control: max-age=60", "", false},
		{"§2 shared: Surrogate-Control", CookieShared, "Surrogate-Control: max-age=60", "", false},
		{"§2 shared: public on heuristics", CookieShared, "Cache-Control: public", ReasonSetCookie, false},
		{"§2 shared: silent", CookieShared, "X: y", ReasonSetCookie, false},
		{"§2 pass", CookiePass, "Cache-Control: public, s-maxage=60", ReasonSetCookie, false},
		{"§2 strip", CookieStrip, "Cache-Control: max-age=60", "", true},
		{"§2 strip on heuristics", CookieStrip, "X: y", ReasonSetCookie, false},
		{"§2 store", CookieStore, "Cache-Control: max-age=60", "", false},
		{"§2 store: Expires", CookieStore, "Expires: " + dated(time.Hour), "", false},
		{"§2 store on heuristics", CookieStore, "Cache-Control: public", ReasonSetCookie, false},
		{"§2 store: no-store still wins", CookieStore, "Cache-Control: no-store", ReasonNoStore, false},
	} {
		h := header(test.line, modified, tagged, "Set-Cookie: id=1")
		got := Judge(Ask{Method: "GET", URL: "https://a.example/"}, 200, h, noon, noon, &Options{SetCookie: test.policy})
		if got.Why != test.want || got.Store != (test.want == "") || got.StripSetCookie != test.strip {
			t.Errorf("%s: %s: got %+v, want why %q, strip %v", test.name, test.line, got, test.want, test.strip)
		}
	}
	plain := Judge(Ask{Method: "GET"}, 200, header("Cache-Control: max-age=60"), noon, noon, &Options{SetCookie: CookieStrip})
	if !plain.Store || plain.StripSetCookie {
		t.Errorf("§2 strip without Set-Cookie: got %+v, want stored as it is", plain)
	}
}

func TestSetCookieWords(t *testing.T) {
	for c, word := range map[SetCookie]string{CookieShared: "shared", CookiePass: "pass", CookieStrip: "strip", CookieStore: "store"} {
		if got, err := ParseSetCookie(word); got != c || err != nil || c.String() != word {
			t.Errorf("%q: got %v, %v, want %v", word, got, err, c)
		}
	}
	if got, want := (CookieStore + 1).String(), "SetCookie(4)"; got != want {
		t.Errorf("beyond the last: got %q, want %q", got, want)
	}
	if got, err := ParseSetCookie("Shared"); err == nil {
		t.Errorf(`"Shared": got %v, want an error`, got)
	}
}

func TestPostAnswersLaterGets(t *testing.T) {
	const own = "https://a.example/x/y?q=1"
	for _, test := range []struct {
		name     string
		status   int
		location string
		control  string
		want     Reason
	}{
		{"§2 its own URL", 200, own, "max-age=60", ""},
		{"§2 its own URL, relative", 200, "y?q=1", "max-age=60", ""},
		{"§2 its own URL, other spelling of the host", 200, "HTTPS://A.example:443/x/y?q=1", "max-age=60", ""},
		{"§2 another query", 200, "y?q=2", "max-age=60", ReasonMethod},
		{"§2 another origin", 200, "https://b.example/x/y?q=1", "max-age=60", ReasonMethod},
		{"§2 no Content-Location", 200, "", "max-age=60", ReasonMethod},
		{"§2 no explicit freshness", 200, own, "public", ReasonMethod},
		{"§2 an error is not the resource", 404, own, "max-age=60", ReasonMethod},
		{"§2 no-store", 200, own, "no-store, max-age=60", ReasonNoStore},
	} {
		h := header("Cache-Control: "+test.control, tagged, modified)
		if test.location != "" {
			h.Set("Content-Location", test.location)
		}
		got := Judge(Ask{Method: "POST", URL: own, Content: true}, test.status, h, noon, noon, &Options{TTL: time.Hour})
		if got.Why != test.want || got.Store != (test.want == "") {
			t.Errorf("%s: %q: got %+v, want why %q", test.name, test.location, got, test.want)
		}
	}
}

func TestOperatorTTL(t *testing.T) {
	const ttl = 5 * time.Minute
	cookie := Ask{Method: "GET", URL: "https://a.example/", Cookie: true}
	for _, test := range []struct {
		name    string
		status  int
		line    string
		options Options
		want    time.Duration // -1: not stored
		source  Source
	}{
		{"ttl of a silent response", 200, "X: y", Options{TTL: ttl}, ttl, SourceTTL},
		{"ttl replaces max-age", 200, "Cache-Control: max-age=0", Options{TTL: ttl}, ttl, SourceTTL},
		{"ttl replaces a targeted lifetime", 200, "CDN-Cache-Control: max-age=3600", Options{TTL: ttl}, ttl, SourceTTL},
		{"ttl of a silent redirection", 302, "X: y", Options{TTL: ttl}, ttl, SourceTTL},
		{"ttl loses to no-store", 200, "Cache-Control: no-store", Options{TTL: ttl}, -1, 0},
		{"ttl loses to private", 200, "Cache-Control: private", Options{TTL: ttl}, -1, 0},
		{"ttl loses to no-cache", 200, "Cache-Control: no-cache, max-age=9", Options{TTL: ttl}, -1, 0},
		{"ttl loses to Vary: *", 200, "Vary: *", Options{TTL: ttl}, -1, 0},
		{"ttl of a silent 503", 503, "X: y", Options{TTL: ttl}, -1, 0},
		{"ttl of a 503 with a past Expires", 503, "Expires: 0", Options{TTL: ttl}, -1, 0},
		{"ttl of a 503 with max-age", 503, "Cache-Control: max-age=9", Options{TTL: ttl}, ttl, SourceTTL},
		{"ttl of a silent 503 by a rule for it", 503, "X: y", Options{TTL: ttl, TTLAnyStatus: true}, ttl, SourceTTL},
		{"ttl of a 206", 206, "X: y", Options{TTL: ttl, TTLAnyStatus: true}, -1, 0},
		{"no ttl", 200, "X: y", Options{}, -1, 0},
		{"negative ttl", 200, "X: y", Options{TTL: -1}, -1, 0},
		{"ttl with Set-Cookie and store", 200, "Set-Cookie: a=1", Options{TTL: ttl, SetCookie: CookieStore}, ttl, SourceTTL},
		{"ttl with Set-Cookie and shared", 200, "Set-Cookie: a=1", Options{TTL: ttl}, -1, 0},
	} {
		got := Judge(cookie, test.status, header(test.line), noon, noon, &test.options)
		if got.Store != (test.want >= 0) || got.Store && (got.Terms.Lifetime != test.want || got.Terms.Source != test.source) {
			t.Errorf("%s: %d %s: got %+v, want %v from %v", test.name, test.status, test.line, got, test.want, test.source)
		}
	}
}

func TestUnderstoodIsConfigurable(t *testing.T) {
	h := header("Cache-Control: max-age=60, no-store, must-understand")
	only := &Options{Understood: func(status int) bool { return status == 299 }}
	for status, want := range map[int]bool{299: true, 200: false} {
		if got := Judge(Ask{Method: "GET"}, status, h, noon, noon, only); got.Store != want {
			t.Errorf("§2 %d: got %+v, want store %v", status, got, want)
		}
	}
}

func TestAskOf(t *testing.T) {
	plain := Ask{Method: "GET", URL: "http://a/"}
	for _, test := range []struct {
		line string
		want func(*Ask)
	}{
		{"X: y", func(*Ask) {}},
		{"Cache-Control: no-store", func(a *Ask) { a.NoStore = true }},
		{"Authorization: Basic eA==", func(a *Ask) { a.Authorization = true }},
		{"Cookie: a=1", func(a *Ask) { a.Cookie = true }},
		{"Content-Length: 5", func(a *Ask) { a.Content = true }},
		{"Content-Length: 0", func(*Ask) {}},
		{"Transfer-Encoding: chunked", func(a *Ask) { a.Content = true }},
	} {
		want := plain
		test.want(&want)
		if got := AskOf("GET", "http://a/", header(test.line)); got != want {
			t.Errorf("%s: got %+v, want %+v", test.line, got, want)
		}
	}
}

func TestHeuristicStatuses(t *testing.T) {
	may := map[int]bool{200: true, 203: true, 204: true, 300: true, 301: true, 308: true, 404: true, 405: true, 410: true, 414: true, 501: true}
	for status := 200; status < 600; status++ {
		if status == 206 || status == 304 || status == 412 || status == 416 {
			continue
		}
		name := "§3 " + strconv.Itoa(status) + " " + http.StatusText(status)
		if got := judge(status, modified, tagged); got.Store != may[status] || got.Store && got.Terms.Lifetime != 144*time.Minute {
			t.Errorf("%s: got %+v, want heuristics %v", name, got, may[status])
		}
		if got := judge(status, modified, "Cache-Control: public"); !got.Store || got.Terms.Source != SourceHeuristic {
			t.Errorf("%s, public: got %+v, want heuristics", name, got)
		}
	}
}

func TestJudgingChangesNoField(t *testing.T) {
	h := header("Date: "+dated(-time.Minute), "Expires: "+dated(-time.Second), "Age: 5", "CDN-Cache-Control: max-age=600",
		"Set-Cookie: a=1", "Connection: X", "X: y")
	before := h.Clone()
	if d := Judge(Ask{Method: "GET"}, 200, h, noon, noon, &Options{SetCookie: CookieStrip}); !d.Store || !d.StripSetCookie {
		t.Fatalf("§3 %v: got %+v, want it stored without Set-Cookie", h, d)
	}
	if !reflect.DeepEqual(h, before) {
		t.Errorf("§3 a longer lifetime leaves Date and Expires: got %v, want %v", h, before)
	}
}

func TestUnderstoodStatuses(t *testing.T) {
	known := map[int]bool{305: true, 307: true, 308: true, 421: true, 422: true, 426: true}
	for _, span := range [][2]int{{200, 205}, {300, 303}, {400, 417}, {500, 505}} {
		for s := span[0]; s <= span[1]; s++ {
			known[s] = true
		}
	}
	for status := 200; status < 600; status++ {
		if status == 206 || status == 304 || status == 412 || status == 416 {
			continue // never stored
		}
		if got := judge(status, "Cache-Control: max-age=60, must-understand"); got.Store != known[status] {
			t.Errorf("§2 %d: got %+v, want store %v", status, got, known[status])
		}
	}
}
