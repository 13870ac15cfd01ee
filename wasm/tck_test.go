package wasm

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"seawall/wasm/abi"

	"github.com/http-wasm/http-wasm-host-go/tck"
)

// TestHTTPWasmConformance runs the kit of the http-wasm project.
func TestHTTPWasmConformance(t *testing.T) {
	h := newHost(t, Options{})
	f := load(t, h, Spec{Name: "tck", Source: tck.GuestWASM, Limits: Limits{CPU: 50 * time.Millisecond, Wall: 30 * time.Second}})
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2"} {
		t.Run(protocol, func(t *testing.T) {
			s := httptest.NewUnstartedServer(&middleware{chain: chainOf(t, f), next: tck.BackendHandler()})
			s.EnableHTTP2 = protocol == "HTTP/2"
			s.StartTLS()
			t.Cleanup(s.Close)
			tck.Run(t, s.Client(), s.URL)
		})
	}
}

// middleware puts a chain in front of a handler, as the walk does.
type middleware struct {
	chain *Chain
	next  http.Handler
}

func (m *middleware) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	x := exchangeOf(q)
	r := m.chain.Begin(q.Context(), x)
	defer r.End()
	switch res := r.Request(); res.Verdict {
	case Failed:
		w.WriteHeader(res.Status)
		return
	case Continue:
		if !m.forward(q.Context(), w, r, x) {
			return
		}
	}
	if res := r.Response(); res.Verdict == Failed {
		w.WriteHeader(res.Status)
		return
	}
	for name, lines := range x.Response.Header {
		w.Header()[name] = lines
	}
	w.WriteHeader(x.Response.Status)
	if x.Response.Source == nil || q.Method == "HEAD" {
		return
	}
	if _, err := io.Copy(w, r.ResponseBody(x.Response.Source)); err != nil {
		panic(http.ErrAbortHandler)
	}
}

// forward asks the next handler what the functions made of the request.
func (m *middleware) forward(ctx context.Context, w http.ResponseWriter, r *Run, x *abi.Exchange) bool {
	next := httptest.NewRequestWithContext(ctx, x.Request.Method, x.Request.Target, nil)
	next.Header, next.Host = x.Request.Header, x.Request.Authority
	if x.Request.Source != nil {
		next.Body = r.RequestBody(io.NopCloser(x.Request.Source))
	}
	rec := httptest.NewRecorder()
	m.next.ServeHTTP(rec, next)
	x.Response = abi.Message{Status: rec.Code, Header: rec.Header(), Source: rec.Body}
	return true
}

// exchangeOf makes an exchange of a request to a server.
func exchangeOf(q *http.Request) *abi.Exchange {
	x := &abi.Exchange{
		Request: abi.Message{Method: q.Method, Scheme: "https", Authority: q.Host, Target: q.RequestURI, Header: q.Header.Clone()},
		Facts:   abi.Facts{ID: "1", Protocol: q.Proto, Source: q.RemoteAddr, Client: q.RemoteAddr},
		Cache:   abi.Cache{TTL: -1},
	}
	if q.Body != nil && q.Body != http.NoBody {
		x.Request.Source = q.Body
	}
	return x
}
