package wasm

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"seawall/wasm/abi"
)

// hw assembles guests that import every host call they name.
type hw struct {
	*guest
	calls map[string][]byte
	at    int32
}

// host are the calls of the ABI with their types.
var host = map[string][2]string{
	"enable_features": {"i", "i"}, "get_config": {"ii", "i"}, "log_enabled": {"i", "i"}, "log": {"iii", ""},
	"get_method": {"ii", "i"}, "set_method": {"ii", ""}, "get_uri": {"ii", "i"}, "set_uri": {"ii", ""},
	"get_protocol_version": {"ii", "i"}, "get_source_addr": {"ii", "i"},
	"get_header_names": {"iii", "I"}, "get_header_values": {"iiiii", "I"}, "set_header_value": {"iiiii", ""},
	"add_header_value": {"iiiii", ""}, "remove_header": {"iii", ""}, "read_body": {"iii", "I"}, "write_body": {"iii", ""},
	"get_status_code": {"", "i"}, "set_status_code": {"i", ""},
}

func newHW() *hw {
	h := &hw{guest: newGuest(), calls: map[string][]byte{}, at: 20000}
	for name, types := range host {
		h.calls[name] = h.http(name, types[0], types[1])
	}
	return h
}

// call pushes arguments and calls: numbers as i32, strings as pointer and
// length, []byte as code.
func (h *hw) call(name string, args ...any) []byte {
	var code []byte
	for _, a := range args {
		switch a := a.(type) {
		case int:
			code = append(code, i32c(int32(a))...)
		case string:
			code = append(code, h.text(h.at, a)...)
			h.at += int32(len(a)) + 8
		case []byte:
			code = append(code, a...)
		}
	}
	return append(code, h.calls[name]...)
}

// wrap makes an i32 of the i64 on the stack.
var wrap = []byte{0xa7}

// show sets request header (kind 0) or response header (1) name to the n
// bytes at 100, n being on the stack when code has run.
func (h *hw) show(kind int, name string, code []byte) []byte {
	return cat(h.call("set_header_value", kind, name, 100, code))
}

// TestHTTPWasmHostCalls runs each host call in handle_request and
// handle_response, and sees what became of the exchange, or the trap.
func TestHTTPWasmHostCalls(t *testing.T) {
	const all = 7
	for _, c := range []struct {
		name              string
		features          int
		request, response func(h *hw) []byte
		change            func(x *abi.Exchange)
		want              string // of describe
	}{
		{name: "method", request: func(h *hw) []byte {
			return cat(h.show(0, "x", cat(h.call("get_method", 100, 50), h.call("set_method", "PUT"))), nil)
		}, want: "PUT /a?b=c host=h x=GET -> 200"},
		{name: "method is no token", request: func(h *hw) []byte { return h.call("set_method", "P T") }, want: "503 argument"},
		{name: "empty method", request: func(h *hw) []byte { return h.call("set_method", "") }, want: "503 argument"},
		{name: "uri", request: func(h *hw) []byte {
			return h.show(0, "x", cat(h.call("get_uri", 100, 50), h.call("set_uri", "/z%7e?")))
		}, want: "GET /z%7e? host=h x=/a?b=c -> 200"},
		{name: "empty uri", request: func(h *hw) []byte { return h.call("set_uri", "") }, want: "GET / host=h x= -> 200"},
		{name: "uri of another site", request: func(h *hw) []byte { return h.call("set_uri", "http://other/") }, want: "503 argument"},
		{name: "longer than the limit: nothing is written, the length is told", request: func(h *hw) []byte {
			return cat(i32c(100), i32c('-'), []byte{0x3a, 0, 0}, h.show(0, "x", cat(h.call("get_uri", 100, 5), i32c(5), []byte{0x6b})))
		}, want: "GET /a?b=c host=h x=- -> 200"},
		{name: "protocol", request: func(h *hw) []byte { return h.show(0, "x", h.call("get_protocol_version", 100, 50)) },
			want: "GET /a?b=c host=h x=HTTP/2 -> 200"},
		{name: "source", request: func(h *hw) []byte { return h.show(0, "x", h.call("get_source_addr", 100, 50)) },
			want: "GET /a?b=c host=h x=[::1]:7 -> 200"},
		{name: "configuration", request: func(h *hw) []byte { return h.show(0, "x", h.call("get_config", 100, 50)) },
			want: "GET /a?b=c host=h x=config -> 200"},
		{name: "host", request: func(h *hw) []byte { return h.call("set_header_value", 0, "HOST", "other") },
			want: "GET /a?b=c host=other x= -> 200"},
		{name: "framing stays", request: func(h *hw) []byte {
			return cat(h.call("set_header_value", 0, "content-length", "5"), h.call("remove_header", 0, "Connection"), h.call("add_header_value", 0, "Transfer-Encoding", "x"))
		}, change: func(x *abi.Exchange) { x.Request.Header["Connection"] = []string{"X"} },
			want: "GET /a?b=c host=h x= -> 200"},
		{name: "headers", request: func(h *hw) []byte {
			return cat(h.call("add_header_value", 0, "X", "1"), h.call("add_header_value", 0, "x", "2"), h.call("remove_header", 0, "y"))
		}, change: func(x *abi.Exchange) { x.Request.Header["Y"] = []string{"y"} }, want: "GET /a?b=c host=h x=1,2 -> 200"},
		{name: "header names", request: func(h *hw) []byte {
			// The count comes in the upper half, shown as a digit: host,
			// x-case and y.
			return cat(i32c(100), h.call("get_header_names", 0, 200, 100), i64c(32), []byte{0x88}, wrap, i32c('0'), []byte{0x6a}, []byte{0x3a, 0, 0}, h.show(0, "x", i32c(1)))
		}, change: func(x *abi.Exchange) { x.Request.Header["Y"] = []string{"y", "z"} }, want: "GET /a?b=c host=h x=3 -> 200"},
		{name: "empty name", request: func(h *hw) []byte { return h.call("remove_header", 0, "") }, want: "503 argument"},
		{name: "no such kind", request: func(h *hw) []byte { return h.call("remove_header", 4, "a") }, want: "503 argument"},
		{name: "read_body without room", request: func(h *hw) []byte { return cat(h.call("read_body", 0, 100, 0), drop) }, want: "503 argument"},
		{name: "read_body in parts", request: func(h *hw) []byte {
			// "co", then "ntent" with end of content; 1 and 5 make x=15.
			return cat(h.call("read_body", 0, 110, 2), drop, i32c(100), h.call("read_body", 0, 112, 50),
				i64c(32), []byte{0x88}, wrap, i32c('0'), []byte{0x6a}, []byte{0x3a, 0, 0}, i32c(101), i32c(112), []byte{0x2d, 0, 0}, []byte{0x3a, 0, 0}, h.show(0, "x", i32c(2)))
		}, change: func(x *abi.Exchange) { x.Request.Source = strings.NewReader("content") }, want: "GET /a?b=c host=h x=1n -> 200"},
		{name: "early response header and status", request: func(h *hw) []byte {
			return cat(h.call("set_header_value", 1, "x", "early"), h.call("set_status_code", 201))
		}, want: "GET /a?b=c host=h x= -> 201 x=early"},
		{name: "status that is none", request: func(h *hw) []byte { return h.call("set_status_code", 99) }, want: "503 argument"},
		{name: "trailer without the feature", request: func(h *hw) []byte { return h.call("set_header_value", 2, "x", "y") }, want: "503 argument"},
		{name: "request after next: method", features: all, response: func(h *hw) []byte { return h.call("set_method", "PUT") }, want: "503 argument"},
		{name: "request after next: uri", features: all, response: func(h *hw) []byte { return h.call("set_uri", "/") }, want: "503 argument"},
		{name: "request after next: header", features: all, response: func(h *hw) []byte { return h.call("remove_header", 0, "a") }, want: "503 argument"},
		{name: "request after next: body", features: all, response: func(h *hw) []byte { return h.call("write_body", 0, "a") }, want: "503 argument"},
		{name: "response without the feature: status", response: func(h *hw) []byte { return h.call("set_status_code", 201) }, want: "503 argument"},
		{name: "response without the feature: header", response: func(h *hw) []byte { return h.call("add_header_value", 1, "x", "y") }, want: "503 argument"},
		{name: "response without the feature: body", response: func(h *hw) []byte { return h.call("write_body", 1, "y") }, want: "503 argument"},
		{name: "response without the feature: reading it", response: func(h *hw) []byte { return cat(h.call("read_body", 1, 100, 9), drop) }, want: "503 argument"},
		{name: "response read without the feature", response: func(h *hw) []byte {
			return cat(h.call("get_status_code"), drop, h.call("get_header_values", 1, "x", 100, 100), drop)
		}, want: "GET /a?b=c host=h x= -> 200"},
		{name: "response", features: all, response: func(h *hw) []byte {
			return cat(h.call("add_header_value", 1, "x", "y"), h.call("remove_header", 1, "Content-Type"), h.call("get_status_code"), i32c(4), []byte{0x6a}, h.calls["set_status_code"])
		}, want: "GET /a?b=c host=h x= -> 204 x=y"},
		{name: "response trailer", features: all, response: func(h *hw) []byte { return h.call("set_header_value", 3, "t", "u") },
			want: "GET /a?b=c host=h x= -> 200 trailer t=u"},
		{name: "features are told", features: 2, request: func(h *hw) []byte {
			return cat(i32c(100), h.call("enable_features", 1), i32c('0'), []byte{0x6a}, []byte{0x3a, 0, 0}, h.show(0, "x", i32c(1)))
		}, want: "GET /a?b=c host=h x=3 -> 200"},
		{name: "the request's context, and no error", features: all, response: func(h *hw) []byte {
			return cat(localGet(0), localGet(1), []byte{0x6a}, i32c(300), []byte{0x6a}, h.calls["set_status_code"])
		}, want: "GET /a?b=c host=h x= -> 342"},
		{name: "the request's context, and an error", features: all, response: func(h *hw) []byte {
			return cat(localGet(0), localGet(1), []byte{0x6a}, i32c(300), []byte{0x6a}, h.calls["set_status_code"])
		}, change: func(x *abi.Exchange) { x.Failed = true }, want: "GET /a?b=c host=h x= -> 343"},
		{name: "log", request: func(h *hw) []byte {
			return cat(h.call("log", -1, "debug"), h.call("log", 0, "in\nfo"), h.call("log", 2, "error"), h.call("log", 3, "none"))
		}, want: "GET /a?b=c host=h x= -> 200 log in fo,error"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := hostCall(t, c.features, c.request, c.response, c.change); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func hostCall(t *testing.T, features int, request, response func(h *hw) []byte, change func(x *abi.Exchange)) string {
	g := newHW()
	has := g.isSpecial()
	at := g.call("enable_features", features)
	code := func(make func(*hw) []byte) []byte {
		if make == nil {
			return nil
		}
		return when(has, make(g))
	}
	req, resp := code(request), code(response)
	g.fn("_initialize", "", "", 0, at, drop)
	g.fn("handle_request", "", "I", 0, req, i64c(42<<32|1))
	g.fn("handle_response", "ii", "", 0, resp)
	lines := &bytes.Buffer{}
	h := newHost(t, Options{Log: slog.New(slog.NewTextHandler(lines, nil))})
	c := chainOf(t, load(t, h, Spec{Source: g.bytes(), Config: []byte("config")}))
	x := &abi.Exchange{
		Request: abi.Message{Method: "GET", Target: "/a?b=c", Authority: "h", Header: http.Header{}},
		Facts:   abi.Facts{Protocol: "HTTP/2", Source: "[::1]:7"},
	}
	if change != nil {
		change(x)
	}
	// The mark is not among the fields that guests are shown: it is set last
	// and counted out.
	special(x)
	r := c.Begin(t.Context(), x)
	defer r.End()
	if res := r.Request(); res.Verdict == Failed {
		return fmt.Sprint(res.Status, " ", res.Reason)
	}
	got := fmt.Sprintf("%s %s host=%s x=%s", x.Request.Method, x.Request.Target, x.Request.Authority, strings.Join(x.Request.Header["X"], ","))
	x.Response = abi.Message{Status: 200, Header: http.Header{"Content-Type": {"text/plain"}}, Source: strings.NewReader("origin")}
	if res := r.Response(); res.Verdict == Failed {
		return fmt.Sprint(res.Status, " ", res.Reason)
	}
	got += fmt.Sprint(" -> ", x.Response.Status)
	if v := x.Response.Header.Get("X"); v != "" {
		got += " x=" + v
	}
	if v := x.Response.Trailer.Get("T"); v != "" {
		got += " trailer t=" + v
	}
	for _, field := range []string{"Content-Length", "Transfer-Encoding"} {
		if v := x.Request.Header.Get(field); v != "" {
			got += " " + field + "=" + v
		}
	}
	var texts []string
	for line := range strings.Lines(lines.String()) {
		if _, text, ok := strings.Cut(line, " text="); ok {
			texts = append(texts, strings.Trim(strings.TrimSpace(text), `"`))
		}
	}
	if texts != nil {
		got += " log " + strings.Join(texts, ",")
	}
	return got
}

// TestSharedSlicesAreNotChanged adds to a field whose lines are shared with a
// stored response and have room for more.
func TestSharedSlicesAreNotChanged(t *testing.T) {
	g := newHW()
	at := g.call("enable_features", 2)
	g.fn("_initialize", "", "", 0, at, drop)
	g.fn("handle_request", "", "I", 0, next)
	g.fn("handle_response", "ii", "", 0, g.call("add_header_value", 1, "x", "guest"))
	h := newHost(t, Options{})
	c := chainOf(t, load(t, h, Spec{Source: g.bytes()}))
	stored := append(make([]string, 0, 4), "stored")
	for range 2 {
		x := &abi.Exchange{Request: abi.Message{Method: "GET", Target: "/", Header: http.Header{}}}
		r := c.Begin(t.Context(), x)
		r.Request()
		x.Response = abi.Message{Status: 200, Header: http.Header{"X": stored}}
		r.Response()
		if got := strings.Join(x.Response.Header["X"], ","); got != "stored,guest" {
			t.Errorf("got %q, want \"stored,guest\"", got)
		}
		r.End()
	}
	if room := stored[:2]; room[1] != "" {
		t.Errorf("behind the stored lines there is %q now", room[1])
	}
}
