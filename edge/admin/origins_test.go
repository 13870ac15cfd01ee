package admin

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"seawall/origin"
)

// fakeOrigins are the sites a, of the servers one and two, with a route of one
// and three, and b, of four alone; and what was drained or resumed.
type fakeOrigins struct {
	pools []Origin
	did   []string
	err   error
}

func newFakeOrigins() *fakeOrigins {
	pool := func(name, prefix string, servers ...string) Origin {
		o := Origin{Name: name, Site: name[:1], Prefix: prefix, Balance: "round_robin"}
		for _, s := range servers {
			o.Servers = append(o.Servers, origin.ServerStats{Name: s, URL: "http://" + s, Protocol: "h1", State: "healthy", Breaker: "closed", Weight: 1, Share: 1})
		}
		return o
	}
	f := &fakeOrigins{pools: []Origin{pool("a", "/", "one:80", "two:80"), pool("a/x", "/x", "one:80", "three"), pool("b", "/", "four")}}
	f.pools[0].Errors = map[string]uint64{"connection_refused": 2}
	f.pools[0].Requests, f.pools[0].Queue, f.pools[0].Denied, f.pools[0].Hedges, f.pools[0].Stats.Tunnels = 9, 1, 4, 5, 6
	f.pools[0].Servers[1].State, f.pools[0].Servers[1].EjectedFor = "ejected", 1500*time.Millisecond
	f.pools[0].Servers[1].Breaker, f.pools[0].Servers[1].BreakerOpenFor = "open", -time.Second
	s := &f.pools[0].Servers[0]
	s.InFlight, s.Latency, s.Requests, s.Failures, s.Retries, s.Ejections, s.Share, s.Addresses = 3, 20*time.Millisecond, 8, 7, 2, 6, 0.5, []string{"192.0.2.1"}
	return f
}

func (f *fakeOrigins) list() []Origin { return slices.Clone(f.pools) }

func (f *fakeOrigins) drain(server string, pools []string, on bool) error {
	if f.err != nil {
		return f.err
	}
	state := map[bool]string{true: "draining", false: "healthy"}[on]
	for i := range f.pools {
		for j := range f.pools[i].Servers {
			if s := &f.pools[i].Servers[j]; s.Name == server && slices.Contains(pools, f.pools[i].Name) {
				s.State = state
				f.did = append(f.did, state+" "+f.pools[i].Name)
			}
		}
	}
	return nil
}

func (f *fakeOrigins) handler(t *testing.T, log *bytes.Buffer) *Handler {
	t.Helper()
	h := newHandler(t, Config{
		Log: slog.New(slog.NewTextHandler(log, nil)), Pools: Pools{List: f.list, Drain: f.drain},
		Origins: func() map[string]origin.Stats {
			all := make(map[string]origin.Stats)
			for _, o := range f.pools {
				all[o.Name] = o.Stats
			}
			return all
		},
	})
	a := testTokens()
	a.Tokens = append(a.Tokens, Token{Name: "owner", Hash: sha256.Sum256([]byte(secretOf("owner"))), Scopes: ScopeAdmin, Sites: []string{"a"}})
	h.Permit(a)
	t.Cleanup(h.Close)
	return h
}

func TestOriginCalls(t *testing.T) {
	for _, c := range []struct {
		name, method, path, who string
		drained                 string // before
		err                     error
		code                    int
		want                    string // in the answer
		did                     string
	}{
		{"a list", "GET", "", "reader", "", nil, 200, `"name":"a/x","site":"a","prefix":"/x"`, ""},
		{"a server's figures", "GET", "", "reader", "", nil, 200, `"in_flight":3,"tunnels":0,"idle_connections":0,"latency_seconds":0.02,"requests":8,"failures":7,"retries":2,"ejections":6,"addresses":["192.0.2.1"],"ejected_for_seconds":0,`, ""},
		{"what is out", "GET", "", "reader", "", nil, 200, `"ejected_for_seconds":1.5,"breaker_open_for_seconds":0}`, ""},
		{"its own sites' for a bound token", "GET", "", "bound", "", nil, 200, `"name":"a"`, ""},
		{"none without the scope", "GET", "", "purger", "", nil, 403, "scope read", ""},
		{"drain", "POST", "/one:80/drain", "chief", "", nil, 200, `"state":"draining"`, "draining a, draining a/x"},
		{"drain by an encoded name", "POST", "/one%3A80/drain", "chief", "", nil, 200, `"state":"draining"`, "draining a, draining a/x"},
		{"drain in one pool", "POST", "/one:80/drain?pool=a%2Fx", "chief", "", nil, 200, `"name":"a/x"`, "draining a/x"},
		{"drain with a site's token", "POST", "/three/drain", "owner", "", nil, 200, `"state":"draining"`, "draining a/x"},
		{"resume", "POST", "/one:80/resume", "chief", "one:80", nil, 200, `"state":"healthy"`, "healthy a, healthy a/x"},
		{"no such server", "POST", "/five/drain", "chief", "", nil, 404, "no server", ""},
		{"not in that pool", "POST", "/two:80/drain?pool=b", "chief", "", nil, 404, "in that pool", ""},
		{"a parameter mistyped", "POST", "/one:80/drain?poo=a", "chief", "", nil, 400, `"field":"poo"`, ""},
		{"another's", "POST", "/four/drain", "owner", "", nil, 404, "no server", ""},
		{"the only one", "POST", "/four/drain", "chief", "", nil, 409, "last of b", ""},
		{"the last of one of two pools", "POST", "/one:80/drain", "chief", "three", nil, 409, "last of a/x", ""},
		{"a reload in between", "POST", "/two:80/drain", "chief", "", errors.New("the pool a is gone"), 409, "the pool a is gone", ""},
		{"without the scope", "POST", "/two:80/drain", "reader", "", nil, 403, "scope admin", ""},
		{"by GET", "GET", "/two:80/drain", "chief", "", nil, 405, "POST only", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, log := newFakeOrigins(), new(bytes.Buffer)
			if c.drained != "" {
				f.drain(c.drained, []string{"a", "a/x", "b"}, true)
				f.did = nil
			}
			f.err = c.err
			w := askBody(f.handler(t, log), c.method, "/v1/origins"+c.path, "", as(c.who))
			if w.Code != c.code || !strings.Contains(w.Body.String(), c.want) {
				t.Errorf("%s %s: got %d %s\nwant %d with %s", c.method, c.path, w.Code, w.Body, c.code, c.want)
			}
			if got := strings.Join(f.did, ", "); got != c.did {
				t.Errorf("%s %s: did %q, want %q", c.method, c.path, got, c.did)
			}
			if c.who == "bound" && strings.Contains(w.Body.String(), `"name":"b"`) {
				t.Errorf("a token of a sees b: %s", w.Body)
			}
			if c.code >= 400 {
				checkProblem(t, w, c.code)
			}
			line := log.String()
			if audited := strings.Contains(line, "audit=true") && (strings.Contains(line, "server=") || strings.Contains(line, "parameter=poo")); audited != (c.method == "POST" && c.code != 403) {
				t.Errorf("%s %s: audit %q", c.method, c.path, line)
			}
		})
	}
}

func TestOriginMetrics(t *testing.T) {
	h := newFakeOrigins().handler(t, new(bytes.Buffer))
	text := askBody(h, "GET", "/metrics", "", as("chief")).Body.String()
	for _, want := range []string{
		`seawall_origin_requests_total{origin="a"} 9`,
		`seawall_origin_queue{origin="a"} 1`,
		`seawall_origin_retries_denied_total{origin="a"} 4`,
		`seawall_origin_hedges_total{origin="a"} 5`,
		`seawall_origin_tunnels{origin="a"} 6`,
		`seawall_origin_server_state{origin="a",server="two:80",state="ejected"} 1`,
		`seawall_origin_server_state{origin="a",server="two:80",state="healthy"} 0`,
		`seawall_origin_server_state{origin="a/x",server="three",state="healthy"} 1`,
		`seawall_origin_server_breaker{origin="a",server="two:80",state="open"} 1`,
		`seawall_origin_server_in_flight{origin="a",server="one:80"} 3`,
		`seawall_origin_server_share{origin="a",server="one:80"} 0.5`,
		`seawall_origin_server_latency_seconds{origin="a",server="one:80"} 0.02`,
		`seawall_origin_server_requests_total{origin="a",server="one:80"} 8`,
		`seawall_origin_server_failures_total{origin="a",server="one:80"} 7`,
		`seawall_origin_server_retries_total{origin="a",server="one:80"} 2`,
		`seawall_origin_server_ejections_total{origin="a",server="one:80"} 6`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no %s", want)
		}
	}
	// A route's figures are its site's, for those who may see them.
	var body struct{ Origins map[string]any }
	if err := json.Unmarshal(askBody(h, "GET", "/v1/stats", "", as("bound")).Body.Bytes(), &body); err != nil {
		t.Fatal(err)
	}
	if len(body.Origins) != 2 || body.Origins["a"] == nil || body.Origins["a/x"] == nil {
		t.Errorf("a token of a sees %v, want a and a/x", body.Origins)
	}
}
