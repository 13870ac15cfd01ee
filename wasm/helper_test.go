package wasm

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"seawall/wasm/abi"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newHost(t testing.TB, o Options) *Host {
	t.Helper()
	h, err := NewHost(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

func load(t testing.TB, h *Host, s Spec) *Function {
	t.Helper()
	if s.Name == "" {
		s.Name = "f"
	}
	f, err := h.Load(context.Background(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

func chainOf(t testing.TB, fs ...*Function) *Chain {
	t.Helper()
	c := NewChain(fs)
	t.Cleanup(c.Close)
	return c
}

// beginner is a Chain or a Slot.
type beginner interface {
	Begin(context.Context, *abi.Exchange) *Run
}

// ask sends one request through a chain; the origin answers 200 "origin".
// It returns the status and content the client would get.
func ask(t testing.TB, c beginner, change func(*abi.Exchange)) (int, string) {
	t.Helper()
	x := &abi.Exchange{
		Request: abi.Message{Method: "GET", Scheme: "https", Authority: "site.example", Target: "/a?b=c", Header: http.Header{}},
		Facts:   abi.Facts{ID: "1", Begun: time.Now(), Protocol: "HTTP/1.1", Source: "192.0.2.7:1234"},
		Cache:   abi.Cache{TTL: -1},
	}
	if change != nil {
		change(x)
	}
	r := c.Begin(context.Background(), x)
	defer r.End()
	switch res := r.Request(); res.Verdict {
	case Failed:
		return res.Status, res.Reason
	case Continue:
		x.Response = abi.Message{Status: 200, Header: http.Header{"Content-Type": {"text/plain"}}, Source: strings.NewReader("origin")}
	}
	if res := r.Response(); res.Verdict == Failed {
		return res.Status, res.Reason
	}
	if x.Response.Source == nil {
		return x.Response.Status, ""
	}
	b, err := io.ReadAll(r.ResponseBody(x.Response.Source))
	if err != nil {
		return x.Response.Status, err.Error()
	}
	return x.Response.Status, string(b)
}

// special marks a request that a test's guest treats in its own way.
func special(x *abi.Exchange) { x.Request.Header["X-Case"] = []string{"1"} }

// isSpecial is code that tells it: true is left on the stack.
func (g *guest) isSpecial() []byte {
	values := g.http("get_header_values", "iiiii", "I")
	g.data = append(g.data, cat([]byte{0}, i32c(65000), []byte{0x0b}, str("x-case")))
	return cat(i32c(0), i32c(65000), i32c(6), i32c(65100), i32c(100), values, i64c(0), []byte{0x52})
}
