package edge

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"seawall/edge/rfc9111"
)

// sticky is an origin that marks each answer that it may with a cookie, as a
// pool of servers does.
type sticky struct {
	answer rt
	hints  []Hint
}

func (o *sticky) RoundTrip(r *http.Request) (*http.Response, error) {
	return nil, errors.New("asked without a hint")
}

func (o *sticky) RoundTripHint(r *http.Request, h Hint) (*http.Response, error) {
	o.hints = append(o.hints, h)
	res, err := o.answer(r)
	switch {
	case err == nil && h.Uncached:
		res.Header.Add("Set-Cookie", "server=1")
	case err == nil && h.Cookie != nil:
		*h.Cookie = "server=1"
	}
	return res, err
}

func fromClient(method, target string, kv ...string) *http.Request {
	r := httptest.NewRequest(method, target, nil)
	r.RemoteAddr = "192.0.2.7:5000"
	for i := 0; i < len(kv); i += 2 {
		r.Header.Add(kv[i], kv[i+1])
	}
	return r
}

// The origin learns key and client of every request, and that an answer is for
// one client alone only where nothing of it is stored.
func TestHints(t *testing.T) {
	for _, c := range []struct {
		name     string
		r        *http.Request
		bypass   bool
		uncached bool
	}{
		{"a miss", fromClient("GET", "http://a.example/x?q=1"), false, false},
		{"a GET past the cache", fromClient("GET", "http://a.example/x?q=1"), true, true},
		{"a HEAD of nothing stored", fromClient("HEAD", "http://a.example/x?q=1"), false, true},
		{"a POST", fromClient("POST", "http://a.example/x?q=1"), false, true},
		{"a DELETE", fromClient("DELETE", "http://a.example/x?q=1"), false, true},
		{"with a precondition", fromClient("GET", "http://a.example/x?q=1", "If-Match", `"1"`), false, true},
		{"an upgrade", fromClient("GET", "http://a.example/x?q=1", "Connection", "Upgrade", "Upgrade", "websocket"), false, true},
		{"with Authorization", fromClient("GET", "http://a.example/x?q=1", "Authorization", "Basic x"), false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := &sticky{answer: func(r *http.Request) (*http.Response, error) {
				return resp(r, "body", "Cache-Control", "max-age=60"), nil
			}}
			h := walkHandler(t, nil, StoreOptions{}, func(s *Site) { s.Origin, s.Cache.Bypass = o, c.bypass })
			defer h.Store.Close()
			defer h.Close()
			w := httptest.NewRecorder()
			h.ServeHTTP(w, c.r)
			want := Hint{Key: "http://a.example/x?q=1", Client: netip.MustParseAddr("192.0.2.7"), Uncached: c.uncached}
			if len(o.hints) == 1 {
				if told := o.hints[0].Cookie != nil; told == c.uncached {
					t.Errorf("%s: a cookie is asked for: %v, and the answer is the client's alone: %v", c.r.Method, told, c.uncached)
				}
				o.hints[0].Cookie = nil
			}
			if len(o.hints) != 1 || o.hints[0] != want {
				t.Errorf("%s: got hints %+v, want %+v", c.r.Method, o.hints, want)
			}
			own := c.uncached || c.r.Header.Get("Authorization") != ""
			if got := w.Header().Get("Set-Cookie") != ""; got != own {
				t.Errorf("%s: the cookie reached the client: %v, want %v", c.r.Method, got, own)
			}
		})
	}
}

// The cookie of the server that answered goes with a response that turns out
// to be for one client, also with those that do not wait for one another after
// it, and with no other.
func TestServersCookieGoesWithPrivateAnswers(t *testing.T) {
	for _, c := range []struct {
		control string
		private bool
	}{{"private", true}, {"no-store", true}, {"max-age=60", false}, {"no-cache", true}} {
		t.Run(c.control, func(t *testing.T) {
			o := &sticky{answer: func(r *http.Request) (*http.Response, error) {
				return resp(r, "body", "Cache-Control", c.control, "Set-Cookie", "own=1"), nil
			}}
			h := walkHandler(t, nil, StoreOptions{}, func(s *Site) { s.Origin, s.Cache.SetCookie = o, rfc9111.CookieStore })
			defer h.Store.Close()
			defer h.Close()
			want := "[own=1]"
			if c.private {
				want = "[own=1 server=1]"
			}
			for i := range 3 {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, fromClient("GET", "http://a.example/"))
				if got := fmt.Sprint(w.Header()["Set-Cookie"]); got != want {
					t.Errorf("GET %d of what is %s: got %s, want %s (%s)", i, c.control, got, want, w.Header().Get("Cache-Status"))
				}
			}
		})
	}
}

// No server's cookie is ever stored, however freely the site stores cookies:
// with the answer to a POST that is a later GET's, or with one to a HEAD that
// refreshes what is stored.
func TestServersCookieIsNeverStored(t *testing.T) {
	for _, method := range []string{"POST", "HEAD"} {
		t.Run(method, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { cookieBehind(t, method) }) })
	}
}

func cookieBehind(t *testing.T, method string) {
	o := &sticky{answer: func(r *http.Request) (*http.Response, error) {
		kv := []string{"Cache-Control", "public, max-age=60", "ETag", `"1"`, "Date", time.Now().UTC().Format(http.TimeFormat)}
		if r.Method == "POST" {
			kv = append(kv, "Content-Location", "http://a.example/")
		}
		return resp(r, "body", kv...), nil
	}}
	h := walkHandler(t, nil, StoreOptions{}, func(s *Site) { s.Origin, s.Cache.SetCookie = o, rfc9111.CookieStore })
	defer h.Store.Close()
	defer h.Close()
	for i, m := range []string{method, "GET", method, "GET", method, "GET"} {
		if i == 2 || i == 4 {
			<-time.After(2 * time.Minute) // what is stored is stale now
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, fromClient(m, "http://a.example/"))
		if m == "GET" && (w.Code != 200 || w.Header().Get("Set-Cookie") != "") {
			t.Errorf("request %d, a GET behind a %s: got %d %v, want 200 without the cookie", i, method, w.Code, w.Header())
		}
	}
	if stored, err := h.Stored("http://a.example/"); err != nil || len(stored) != 1 {
		t.Errorf("stored %v, %v; want one response", stored, err)
	}
}

// tooMany is what a pool says when it holds a request back.
type tooMany struct{}

func (tooMany) Error() string             { return "too many" }
func (tooMany) ProxyStatus() string       { return "connection_limit_reached" }
func (tooMany) Unanswered() bool          { return true }
func (tooMany) Overload() bool            { return true }
func (tooMany) RetryAfter() time.Duration { return 1500 * time.Millisecond }

// Overload is answered from what is stored, where that may be used, and else
// by 503 with the time to stay away.
func TestOverload(t *testing.T) {
	for _, c := range []struct {
		name, method, control string
		stored                bool
		most                  time.Duration
		code                  int
		detail                string
	}{
		{"nothing stored", "GET", "max-age=1", false, 0, 503, "uri-miss"},
		{"not a GET", "POST", "max-age=1", true, 0, 503, "method"},
		{"stale", "GET", "max-age=1", true, 0, 200, "stale-if-error"},
		{"stale for HEAD", "HEAD", "max-age=1", true, 0, 200, "stale-if-error"},
		{"stale for too long", "GET", "max-age=1", true, time.Second, 503, "fwd=stale"},
		{"never stale", "GET", "max-age=1", true, -1, 503, "fwd=stale"},
		{"must be validated", "GET", "max-age=1, must-revalidate", true, 0, 503, "fwd=stale"},
		{"beyond its own stale-if-error, as when unreachable", "GET", "max-age=1, stale-if-error=2", true, 0, 200, "stale-if-error"},
		{"within its own stale-if-error", "GET", "max-age=1, stale-if-error=600", true, time.Second, 200, "stale-if-error"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				full := false
				h := walkHandler(t, func(r *http.Request) (*http.Response, error) {
					if full {
						return nil, tooMany{}
					}
					return resp(r, "body", "Cache-Control", c.control, "Date", time.Now().UTC().Format(http.TimeFormat)), nil
				}, StoreOptions{}, func(s *Site) { s.Cache.StaleIfUnreachable = c.most })
				defer h.Store.Close()
				defer h.Close()
				if c.stored {
					h.ServeHTTP(httptest.NewRecorder(), fromClient("GET", "http://a.example/"))
				}
				<-time.After(time.Minute)
				full = true
				w := httptest.NewRecorder()
				h.ServeHTTP(w, fromClient(c.method, "http://a.example/"))
				got := w.Header()
				if w.Code != c.code || !strings.Contains(got.Get("Cache-Status"), c.detail) {
					t.Errorf("got %d %q, want %d %q", w.Code, got.Get("Cache-Status"), c.code, c.detail)
				}
				wants := map[string]string{"Retry-After": "", "Proxy-Status": ""}
				if c.code == 503 {
					wants = map[string]string{"Retry-After": "2", "Proxy-Status": "seawall; error=connection_limit_reached", "Cache-Control": "no-store"}
				}
				for name, want := range wants {
					if got.Get(name) != want {
						t.Errorf("%s: got %q, want %q", name, got.Get(name), want)
					}
				}
			})
		})
	}
}

// A site whose origin hangs, with as many refreshes behind it as it may have,
// does not keep another site's objects from being refreshed.
func TestSlowSiteLeavesOthersTheirRefreshes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang, version := make(chan struct{}), "1"
		slow := false
		origin := rt(func(r *http.Request) (*http.Response, error) {
			if slow && r.Host == "slow.example" {
				<-hang
			}
			return resp(r, version, "Cache-Control", "max-age=1, stale-while-revalidate=600", "Date", time.Now().UTC().Format(http.TimeFormat)), nil
		})
		st, err := NewStore(StoreOptions{Memory: 64 << 20})
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
		h, err := New(Config{Store: st, Sites: []Site{
			{Name: "slow", Hosts: []string{"slow.example"}, Origin: origin}, {Name: "well", Hosts: []string{"well.example"}, Origin: origin},
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		get := func(host string, n int) string {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, fromClient("GET", fmt.Sprintf("http://%s/%d", host, n)))
			return w.Body.String()
		}
		const many = 2 * maxBehind
		for n := range many {
			get("slow.example", n)
		}
		get("well.example", 0)
		<-time.After(time.Minute)
		slow, version = true, "2"
		for n := range many {
			if got := get("slow.example", n); got != "1" {
				t.Fatalf("slow.example/%d: got %q, want the stale one", n, got)
			}
		}
		get("well.example", 0)
		synctest.Wait()
		if got := get("well.example", 0); got != "2" {
			t.Errorf("well.example: got %q, want it refreshed though the other site hangs", got)
		}
		close(hang)
		synctest.Wait()
	})
}
