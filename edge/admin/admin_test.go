package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"seawall/edge"
	"seawall/edge/store"
	"seawall/origin"
)

func newHandler(t *testing.T, c Config) *Handler {
	t.Helper()
	if c.Stats == nil {
		c.Stats = edge.NewStats()
	}
	h, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// ask asks h from a loopback peer with a loopback Host, changed by fields.
func ask(h http.Handler, method, path string, change func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	r.RemoteAddr, r.Host = "127.0.0.1:5000", "127.0.0.1:9090"
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestGuard(t *testing.T) {
	peer := func(addr string) func(*http.Request) { return func(r *http.Request) { r.RemoteAddr = addr } }
	host := func(name string) func(*http.Request) { return func(r *http.Request) { r.Host = name } }
	field := func(pairs ...string) func(*http.Request) {
		return func(r *http.Request) {
			for i := 0; i < len(pairs); i += 2 {
				r.Header.Add(pairs[i], pairs[i+1])
			}
		}
	}
	for _, c := range []struct {
		name   string
		change func(*http.Request)
		want   int
	}{
		{"loopback", nil, 200},
		{"another loopback address", peer("127.8.9.10:1"), 200},
		{"IPv6 loopback", peer("[::1]:1"), 200},
		{"IPv4 in IPv6 loopback", peer("[::ffff:127.0.0.1]:1"), 200},
		{"another machine", peer("192.0.2.1:1"), 403},
		{"another machine by IPv6", peer("[2001:db8::1]:1"), 403},
		{"an unreadable peer", peer("@"), 403},
		{"localhost", host("localhost:9090"), 200},
		{"localhost without port", host("LocalHost"), 200},
		{"127.0.0.2", host("127.0.0.2:1"), 200},
		{"[::1]", host("[::1]:9090"), 200},
		{"[::1] without port", host("[::1]"), 200},
		{"DNS rebinding", host("evil.example:9090"), 403},
		{"a name that begins like loopback", host("127.0.0.1.evil.example"), 403},
		{"a name below localhost", host("evil.localhost"), 403},
		{"localhost with a dot", host("localhost."), 403},
		{"user info", host("localhost@evil.example"), 403},
		{"a port that is none", host("localhost:evil"), 403},
		{"no host", host(""), 403},
		{"every address", host("0.0.0.0:9090"), 403},
		{"this machine's other address", host("192.0.2.7:9090"), 403},
		{"decimal 127.0.0.1", host("2130706433"), 403},
		{"a zone", host("[::1%25eth0]:9090"), 403},
		{"half a bracket", host("[::1"), 403},
		{"own origin", field("Origin", "http://127.0.0.1:9090"), 200},
		{"a foreign origin", field("Origin", "http://evil.example"), 403},
		{"another port's page", field("Origin", "http://127.0.0.1:3000"), 403},
		{"an opaque origin", field("Origin", "null"), 403},
		{"another scheme", field("Origin", "file://127.0.0.1:9090"), 403},
		{"own origin and a foreign one", field("Origin", "http://127.0.0.1:9090", "Origin", "http://evil.example"), 403},
		{"typed by a person", field("Sec-Fetch-Site", "none"), 200},
		{"own page", field("Sec-Fetch-Site", "same-origin"), 200},
		{"across sites", field("Sec-Fetch-Site", "cross-site"), 403},
		{"another port of this site", field("Sec-Fetch-Site", "same-site"), 403},
		{"through a proxy on this machine", field("X-Forwarded-For", "203.0.113.9"), 403},
		{"through a proxy that says Forwarded", field("Forwarded", "for=203.0.113.9"), 403},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log bytes.Buffer
			stats := edge.NewStats()
			h := newHandler(t, Config{Stats: stats, Log: slog.New(slog.NewTextHandler(&log, nil))})
			for _, path := range []string{"/v1/stats", "/metrics"} {
				w := ask(h, "GET", path, c.change)
				if w.Code != c.want {
					t.Errorf("%s: got %d, want %d: %s", path, w.Code, c.want, w.Body)
				}
				if w.Code == 403 {
					checkProblem(t, w, 403)
				}
			}
			var counted uint64
			for kind, n := range stats.Faults() {
				if kind == edge.FaultAdmin {
					counted = n
				}
			}
			if refused := c.want == 403; (counted == 2) != refused || strings.Contains(log.String(), "admin call refused") != refused {
				t.Errorf("refused %v: counted %d, logged %q", refused, counted, log.String())
			}
			// An unknown call is refused like any other, so that nothing is learnt.
			if w := ask(h, "DELETE", "/nothing", c.change); c.want == 403 && w.Code != 403 {
				t.Errorf("unknown call: got %d, want 403", w.Code)
			}
			for _, path := range []string{"/healthz", "/readyz"} {
				if w := ask(h, "GET", path, c.change); w.Code != 200 {
					t.Errorf("%s: got %d, want 200 for all", path, w.Code)
				}
			}
		})
	}
}

func checkProblem(t *testing.T, w *httptest.ResponseRecorder, status int) {
	t.Helper()
	var p struct {
		Title, Detail string
		Status        int
	}
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.Status != status || p.Title != http.StatusText(status) || len(p.Detail) < 20 {
		t.Errorf("not a problem document of status %d: %s (%v)", status, w.Body, err)
	}
	if got := w.Header().Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("content type: got %q", got)
	}
}

func TestCallsThatAreNot(t *testing.T) {
	h := newHandler(t, Config{})
	for _, c := range []struct {
		method, path string
		want         int
	}{
		{"POST", "/v1/purges", 501}, {"GET", "/v1/purges/1", 501}, // this handler has no log
		{"GET", "/v1/explain?url=x", 501}, {"PUT", "/v1/functions/a", 501}, {"GET", "/", 501},
		{"GET", "/v1/purgesx", 404}, {"GET", "/nothing", 404}, {"GET", "/v1/stats/x", 404}, {"POST", "/service/a/b", 404},
		{"GET", "/v1/purges/", 404}, {"GET", "/v1/purges/a/b", 404},
		{"PUT", "/v1/purges", 405}, {"GET", "/purge/host/path", 405}, {"GET", "/service/a/purge_all", 405},
		{"POST", "/v1/stats", 405}, {"DELETE", "/metrics", 405}, {"POST", "/healthz", 405}, {"PUT", "/readyz", 405},
	} {
		w := ask(h, c.method, c.path, nil)
		if w.Code != c.want {
			t.Errorf("%s %s: got %d, want %d", c.method, c.path, w.Code, c.want)
			continue
		}
		checkProblem(t, w, c.want)
		if allow := w.Header().Get("Allow"); (allow != "") != (c.want == 405) {
			t.Errorf("%s %s: Allow is %q", c.method, c.path, allow)
		}
	}
}

func TestReadiness(t *testing.T) {
	var why error
	h := newHandler(t, Config{Ready: func() error { return why }})
	if w := ask(h, "GET", "/readyz", nil); w.Code != 200 || w.Body.String() != "ready\n" {
		t.Errorf("got %d %q, want 200 ready", w.Code, w.Body)
	}
	why = errors.New("draining")
	w := ask(h, "GET", "/readyz", nil)
	if w.Code != 503 || !strings.Contains(w.Body.String(), "draining") {
		t.Errorf("got %d %q, want 503 with the reason", w.Code, w.Body)
	}
	if w := ask(h, "GET", "/healthz", nil); w.Code != 200 {
		t.Errorf("healthz while not ready: got %d, want 200", w.Code)
	}
}

// figures are those of a node that did a bit of everything.
func figures() Config {
	stats := edge.NewStats()
	site := stats.Site("main")
	site.Count(edge.Hit, edge.H1, 200, 100, 70*time.Microsecond)
	site.Count(edge.Hit, edge.H2, 304, 0, 70*time.Microsecond)
	site.Count(edge.Fault, edge.H1, 502, 10, time.Minute)
	stats.Fault(edge.FaultLoop)
	stats.Fault(edge.FaultFlood)
	stats.Fault(edge.FaultHandshake)
	return Config{
		Stats: stats,
		Usage: func() store.Usage { return store.Usage{Memory: 1 << 20, Young: 30, Main: 12, Objects: 3, Evictions: 5} },
		Origins: func() map[string]origin.Stats {
			return map[string]origin.Stats{"main": {Requests: 7, Errors: map[string]uint64{"connection_refused": 2}}}
		},
		Connections: func() map[string]int64 { return map[string]int64{"http/1.1": 4, "http/2": 1, "http/3": 3} },
		Dropped:     func() uint64 { return 9 },
		Version:     "v9",
		Extras: func() ExtrasFigures {
			return ExtrasFigures{
				KeySets:   map[string]KeySetFigures{"login": {Keys: 2, Fetched: 3, Failed: 4, Unusable: 6, Failing: 7, Unknown: 5, Good: time.Unix(1e9, 0)}, "new": {}},
				Databases: map[string]DatabaseFigures{"city": {Built: time.Unix(17e8, 0), Read: 6, Failed: 7, Size: 8}},
			}
		},
	}
}

func TestMetrics(t *testing.T) {
	w := ask(newHandler(t, figures()), "GET", "/metrics", nil)
	if w.Code != 200 {
		t.Fatalf("got %d: %s", w.Code, w.Body)
	}
	for _, want := range []string{
		`seawall_requests_total{outcome="hit",protocol="http/1.1",site="main",status_class="2xx"} 1`,
		`seawall_requests_total{outcome="hit",protocol="http/2",site="main",status_class="3xx"} 1`,
		`seawall_requests_total{outcome="error",protocol="http/1.1",site="main",status_class="5xx"} 1`,
		`seawall_response_bytes_total{outcome="hit",site="main"} 100`,
		`seawall_request_duration_seconds_bucket{outcome="hit",site="main",le="5e-05"} 0`,
		`seawall_request_duration_seconds_bucket{outcome="hit",site="main",le="0.0001"} 2`,
		`seawall_request_duration_seconds_bucket{outcome="error",site="main",le="30"} 0`,
		`seawall_request_duration_seconds_bucket{outcome="error",site="main",le="+Inf"} 1`,
		`seawall_request_duration_seconds_sum{outcome="error",site="main"} 60`,
		`seawall_faults_total{kind="proxy_loop"} 1`,
		`seawall_connections{protocol="http/1.1"} 4`,
		`seawall_connections{protocol="http/3"} 3`,
		`seawall_faults_total{kind="flooded_connection"} 1`,
		`seawall_faults_total{kind="tls_handshake"} 1`,
		`seawall_store_bytes{tier="memory"} 42`,
		`seawall_store_objects{tier="memory"} 3`,
		`seawall_store_evictions_total{tier="memory"} 5`,
		`seawall_origin_requests_total{origin="main"} 7`,
		`seawall_origin_errors_total{error="connection_refused",origin="main"} 2`,
		`seawall_access_log_dropped_total 9`,
		`seawall_jwks_keys{set="login"} 2`,
		`seawall_jwks_keys{set="new"} 0`,
		`seawall_jwks_fetches_total{result="good",set="login"} 3`,
		`seawall_jwks_fetches_total{result="failed",set="login"} 4`,
		`seawall_jwks_fetches_total{result="unusable",set="login"} 6`,
		`seawall_jwks_failing{set="login"} 7`,
		`seawall_jwks_unknown_total{set="login"} 5`,
		`seawall_jwks_fetched_timestamp_seconds{set="login"} 1e+09`,
		`seawall_geo_build_timestamp_seconds{database="city"} 1.7e+09`,
		`seawall_geo_bytes{database="city"} 8`,
		`seawall_geo_reads_total{database="city",result="good"} 6`,
		`seawall_geo_reads_total{database="city",result="failed"} 7`,
		"go_goroutines ",
	} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("metrics have no %s", want)
		}
	}
}

func TestStats(t *testing.T) {
	w := ask(newHandler(t, figures()), "GET", "/v1/stats", nil)
	var got statsBody
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatalf("%v: %s", err, w.Body)
	}
	site := got.Sites["main"]
	if site.Requests["hit"] != 2 || site.Bytes["error"] != 10 || site.Statuses["hit"]["3xx"] != 1 || site.Protocol["http/2"] != 1 ||
		site.Seconds["error"] != 60 || got.Faults["proxy_loop"] != 1 || got.Store.Bytes != 42 || got.Origins["main"].Errors["connection_refused"] != 2 ||
		got.Connections["http/2"] != 1 || got.Dropped != 9 || got.Version != "v9" {
		t.Errorf("got %s", w.Body)
	}
}

func TestStrangersCannotFillTheLog(t *testing.T) {
	var l logged
	now := time.Unix(1e9, 0)
	for i := range 1000 {
		if _, ok := l.may(now); ok != (i < lineBurst) {
			t.Fatalf("call %d at one moment: logged %v", i, ok)
		}
	}
	if before, ok := l.may(now.Add(lineEvery)); !ok || before != 1000-lineBurst {
		t.Errorf("a little later: got %v with %d left out, want true with %d", ok, before, 1000-lineBurst)
	}
}
