package wasm

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	"seawall/wasm/abi"
)

// shadowed is a guest that runs code for requests with X-Case, and behave for
// their responses.
func shadowed(make func(h *hw) (request, response []byte)) []byte {
	g := newHW()
	has := g.isSpecial()
	at := g.call("enable_features", 2)
	request, response := make(g)
	g.fn("_initialize", "", "", 0, at, drop)
	g.fn("handle_request", "", "I", 0, when(has, request), next)
	g.fn("handle_response", "ii", "", 0, when(has, response))
	return g.bytes()
}

// seen is all that a client and an origin get of one request.
func seen(t *testing.T, c *Chain) string {
	t.Helper()
	x := &abi.Exchange{
		Request: abi.Message{Method: "POST", Scheme: "http", Authority: "a", Target: "/a?b", Header: http.Header{"Cookie": {"secret=1"}}, Source: strings.NewReader("sent")},
		Facts:   abi.Facts{ID: "1", Site: "s", Client: "192.0.2.1"}, Cache: abi.Cache{TTL: -1},
	}
	special(x)
	r := c.Begin(t.Context(), x)
	defer r.End()
	out := fmt.Sprint(r.Request())
	q := &x.Request
	sent, err := io.ReadAll(q.Source)
	out += fmt.Sprint(q.Method, q.Scheme, q.Authority, q.Target, q.Header, string(sent), err, x.Cache)
	if !x.Answered {
		x.Response = abi.Message{Status: 200, Header: http.Header{"Content-Type": {"text/plain"}}, Source: strings.NewReader("origin")}
	}
	out += fmt.Sprint(r.Response())
	got, err := io.ReadAll(r.ResponseBody(x.Response.Source))
	return out + fmt.Sprint(x.Response.Status, x.Response.Header, string(got), err, x.Cache)
}

// Whatever a shadow does, clients and origins get the same bytes, the function
// in whose shadow it stands never fails, and what it made otherwise is counted.
func TestShadowsChangeNothing(t *testing.T) {
	type code = func(h *hw) (request, response []byte)
	current := func(h *hw) ([]byte, []byte) {
		return h.call("set_header_value", 0, "x-a", "1"), h.call("set_header_value", 1, "x-b", "1")
	}
	with := func(extra code) []byte {
		return shadowed(func(h *hw) ([]byte, []byte) {
			a, b := current(h)
			request, response := extra(h)
			return cat(a, request), cat(b, response)
		})
	}
	request := func(name string, args ...any) code {
		return func(h *hw) ([]byte, []byte) { return h.call(name, args...), nil }
	}
	response := func(name string, args ...any) code {
		return func(h *hw) ([]byte, []byte) { return nil, h.call(name, args...) }
	}
	for _, c := range []struct {
		name      string
		candidate []byte
		want      string
		trap      string
	}{
		{"the same", shadowed(current), "map[]", ""},
		{"a request field", with(request("set_header_value", 0, "x-a", "2")), "map[request_fields:20]", ""},
		{"one removed", with(request("remove_header", 0, "cookie")), "map[request_fields:20]", ""},
		{"the target", with(request("set_uri", "/z")), "map[target:20]", ""},
		{"the method", with(request("set_method", "PUT")), "map[method:20]", ""},
		{"the authority", with(request("set_header_value", 0, "host", "b")), "map[authority:20]", ""},
		{"a field set early", with(request("set_header_value", 1, "x-early", "2")), "map[response_fields:20]", ""},
		{"a status set early", with(request("set_status_code", 404)), "map[status:20]", ""},
		{"a response field", with(response("set_header_value", 1, "x-b", "2")), "map[response_fields:20]", ""},
		{"the status", with(response("set_status_code", 404)), "map[status:20]", ""},
		{"an answer", with(func(h *hw) ([]byte, []byte) {
			return cat(h.call("set_status_code", 403), answer, []byte{0x0f}), nil
		}), "map[verdict:20]", ""},
		{"a trap", with(func(*hw) ([]byte, []byte) { return unreachable, nil }), "map[failed:20]", "unreachable"},
		{"a trap at the response", with(func(*hw) ([]byte, []byte) { return nil, unreachable }), "map[failed:20]", "unreachable"},
		{"a loop", with(func(*hw) ([]byte, []byte) { return forever(), nil }), "map[failed:20]", "cpu"},
	} {
		for _, mode := range []Mode{ModeReset, ModeShared} {
			t.Run(fmt.Sprint(c.name, mode), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { shadowCase(t, mode, shadowed(current), c.candidate, c.want, c.trap) })
			})
		}
	}
}

func shadowCase(t *testing.T, mode Mode, source, other []byte, want, trap string) {
	lines := &bytes.Buffer{}
	h := newHost(t, Options{Log: slog.New(slog.NewTextHandler(lines, nil))})
	f := load(t, h, Spec{Source: source, Mode: mode})
	alone := chainOf(t, f)
	candidate := load(t, h, Spec{Source: other, Mode: mode, Shadow: true, Version: "next"})
	beside := NewRollout([]Attached{{Function: f, Candidate: candidate, Percent: 100}})
	for i := range 20 {
		if a, b := seen(t, alone), seen(t, beside); a != b {
			t.Errorf("request %d: without it\n%s\nand with it\n%s", i, a, b)
		}
		synctest.Wait()
	}
	s := f.Stats()
	if s.BreakerOpen != 0 || len(s.Stages[abi.ViewerRequest].Traps)+len(s.Stages[abi.ViewerResponse].Traps) != 0 {
		t.Errorf("the function in use: %+v, want no trap", s)
	}
	stats, ok := candidate.Shadow()
	if got := fmt.Sprint(stats.Kinds); !ok || got != want || stats.Runs+stats.Dropped != 20 || stats.Dropped != 0 {
		t.Errorf("got %+v, want 20 runs and %s", stats, want)
	}
	traps := map[string]int64{}
	for _, stage := range candidate.Stats().Stages {
		for kind, n := range stage.Traps {
			traps[kind] += n
		}
	}
	if (trap == "") != (len(traps) == 0) || trap != "" && traps[trap] == 0 {
		t.Errorf("traps of the shadow: %v, want %q", traps, trap)
	}
	beside.Close()
	candidate.Close()
	synctest.Wait()
	text := lines.String()
	if n := strings.Count(text, "a shadow differs"); (n > 0) != (want != "map[]") || n > 1 || strings.Contains(text, "secret") {
		t.Errorf("%d lines of the log tell of differences within a second: %s", n, text)
	}
	if trap != "" && !strings.Contains(text, "version=next") {
		t.Errorf("the log does not tell the version: %s", text)
	}
}

// A shadow that has no time drops requests, counts them, and holds none up.
func TestShadowQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, Options{})
		f := load(t, h, Spec{Source: passing()})
		candidate := load(t, h, Spec{Source: passing(), Shadow: true})
		c := NewRollout([]Attached{{Function: f, Candidate: candidate, Percent: 100}})
		h.shadowing <- struct{}{} // another one runs
		for range 3 * shadowQueue {
			if status, _ := ask(t, c, nil); status != 200 {
				t.Fatalf("got %d", status)
			}
			synctest.Wait()
		}
		<-h.shadowing
		synctest.Wait()
		// One more is in the worker's hands.
		if s, _ := candidate.Shadow(); s.Runs != shadowQueue+1 || s.Dropped != 2*shadowQueue-1 {
			t.Errorf("got %+v, want %d runs, and the others dropped", s, shadowQueue+1)
		}
		c.Close()
		candidate.Close()
		f.Close()
		// What comes after its end goes nowhere, and hurts nobody.
		candidate.shadow.trace().submit()
	})
}

// Calls of a shadow's own are refused and counted: the upstream sees one for
// each request.
func TestShadowsMakeNoCalls(t *testing.T) {
	asked := make(chan struct{}, 10)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked <- struct{}{}
		w.WriteHeader(204)
	}))
	defer s.Close()
	h := newHost(t, Options{Upstreams: map[string]Upstream{"auth": {URL: s.URL, AllowPrivate: true}}})
	spec := Spec{Source: calling("auth", 1000), Upstreams: []string{"auth"}}
	f := load(t, h, spec)
	spec.Shadow = true
	candidate := load(t, h, spec)
	candidate.shadow.stop() // the test takes the worker's place
	h.wait.Wait()
	c := NewRollout([]Attached{{Function: f, Candidate: candidate, Percent: 100}})
	if status, _ := ask(t, c, nil); status != 404 {
		t.Errorf("got %d, want 404: 200 and what the upstream said", status)
	}
	candidate.shadow.follow(chainOf(t, candidate), <-candidate.shadow.queue)
	if got, _ := candidate.Shadow(); got.Refused != 1 || got.Different != 1 {
		t.Errorf("got %+v, want one call refused, and so another answer", got)
	}
	c.Close()
	if len(asked) != 1 {
		t.Errorf("the upstream was asked %d times, want once", len(asked))
	}
	if _, ok := f.Shadow(); ok {
		t.Error("a function that is no shadow has figures of one")
	}
}
