package proxywasm

import (
	"net/http"
	"testing"

	"seawall/wasm/abi"
)

// TestSumsOfAnotherExchange has an exchange end at a callback that does not
// run, and another stand where it stood, as they do for a host that uses its
// memory again.
func TestSumsOfAnotherExchange(t *testing.T) {
	for _, reset := range []bool{false, true} {
		h := newHost(t)
		g, _ := h.run(script{callbacks: calls{
			"proxy_on_request_body":     {call("close_stream", 0)},
			"proxy_on_response_headers": nil,
		}}, newServices())
		x := exchange()
		first := must[abi.Stream](t)(g.Begin(x))
		first.RequestBody()
		first.ResponseHeaders()
		if err := first.End(); err != nil {
			t.Fatal(err)
		}
		if reset {
			g.Reset()
		}
		h.called = nil
		*x = *exchange()
		x.Response.Header = http.Header{"A": {"1"}, "B": {"1"}, "C": {"1"}, "D": {"1"}}
		second := must[abi.Stream](t)(g.Begin(x))
		second.ResponseHeaders()
		same(t, "callbacks", h.called, []string{"response_headers[3,5,0]"})
	}
}
