package proxywasm

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"seawall/wasm/abi"
)

type calls = map[string][]hostCall

// all has every callback, without host calls.
func all() calls {
	c := make(calls)
	for name := range callbackTypes() {
		if strings.HasPrefix(name, "proxy_on_") {
			c[name] = nil
		}
	}
	return c
}

func TestStartOrder(t *testing.T) {
	for _, tc := range []struct {
		name    string
		exports []string
		want    string
	}{
		{"reactor with main", []string{"_initialize", "main", "_start"}, "_initialize[] main[0,0] context_create[1,0] vm_start[1,2] configure[1,13]"},
		{"reactor", []string{"_initialize"}, "_initialize[] context_create[1,0] vm_start[1,2] configure[1,13]"},
		{"command", []string{"_start", "main"}, "_start[] context_create[1,0] vm_start[1,2] configure[1,13]"},
		{"neither", nil, "context_create[1,0] vm_start[1,2] configure[1,13]"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h, c := newHost(t), all()
			for _, e := range tc.exports {
				c[e] = nil
			}
			h.run(script{callbacks: c}, newServices())
			same(t, "callbacks", strings.Join(h.called, " "), tc.want)
		})
	}
}

func TestWholeWalk(t *testing.T) {
	for _, tc := range []struct {
		name   string
		script script
		change func(*abi.Exchange)
		want   string
	}{
		{
			"with trailers", script{callbacks: all()},
			func(x *abi.Exchange) {
				x.Request.Trailer, x.Response.Trailer = http.Header{"A": {"1", "2"}}, http.Header{"B": {"1"}}
			},
			"context_create[2,1] request_headers[2,7,0] request_body[2,8,0] request_trailers[2,2] " +
				"response_headers[2,3,0] response_body[2,6,0] response_trailers[2,1] done[2] log[2] delete[2]",
		},
		{
			"without content", script{callbacks: all()},
			func(x *abi.Exchange) { x.Request.Body, x.Response.Body = nil, nil },
			"context_create[2,1] request_headers[2,7,1] request_body[2,0,1] request_trailers[2,0] " +
				"response_headers[2,3,1] response_body[2,0,1] response_trailers[2,0] done[2] log[2] delete[2]",
		},
		{
			"trailers that nobody sees", script{callbacks: calls{"proxy_on_request_body": nil, "proxy_on_done": nil}},
			func(x *abi.Exchange) { x.Request.Trailer = http.Header{"A": {"1"}} },
			"request_body[2,8,1] done[2]",
		},
		{
			"0.1.0", script{version: versions()[2], callbacks: calls{"proxy_on_request_headers/2": nil, "proxy_on_response_headers/2": nil}},
			func(*abi.Exchange) {},
			"request_headers[2,7,0] response_headers[2,3,0]",
		},
		{
			"callbacks without results", script{void: true, callbacks: all()},
			func(x *abi.Exchange) { x.Request.Ended, x.Response.Ended = false, false },
			"context_create[2,1] request_headers[2,7,0] request_body[2,8,0] request_trailers[2,0] " +
				"response_headers[2,3,0] response_body[2,6,0] response_trailers[2,0] done[2] log[2] delete[2]",
		},
		{"no callbacks", script{}, func(*abi.Exchange) {}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h, x := newHost(t), exchange()
			g, _ := h.run(tc.script, newServices())
			h.called = nil
			tc.change(x)
			s := must[abi.Stream](t)(g.Begin(x))
			if action := walk(t, s, "log"); action != abi.Continue {
				t.Errorf("action %d, want Continue", action)
			}
			same(t, "callbacks", strings.Join(h.called, " "), tc.want)
			if g.streams.len() != 0 {
				t.Errorf("%d contexts are left", g.streams.len())
			}
		})
	}
}

func TestWantsAreTheExports(t *testing.T) {
	h := newHost(t)
	g, _ := h.run(script{callbacks: calls{"proxy_on_request_headers": nil, "proxy_on_response_body": nil}}, newServices())
	s := must[abi.Stream](t)(g.Begin(exchange()))
	same(t, "wants", s.Wants(), abi.Wants{RequestHeaders: true, ResponseBody: true, Silent: true})
	for _, last := range []string{"proxy_on_done", "proxy_on_log", "proxy_on_delete"} {
		g, _ := h.run(script{callbacks: calls{last: nil}}, newServices())
		if s := must[abi.Stream](t)(g.Begin(exchange())); s.Wants().Silent {
			t.Errorf("a guest with %s is said to have no callback at the end", last)
		}
	}
}

func TestRefusedStart(t *testing.T) {
	for _, tc := range []struct{ callback, want string }{
		{"proxy_on_vm_start", "refused to start"}, {"proxy_on_configure", "refused its configuration"},
	} {
		h := newHost(t)
		h.answer = func(name string, _ []uint32) uint32 { return flag32(name != tc.callback) }
		h.script = script{callbacks: all()}.assemble()
		_, _, err := h.start(h.script.wasm, newServices())
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got error %v, want one with %q", tc.callback, err, tc.want)
		}
	}
}

func flag32(b bool) uint32 { return uint32(flag(b)) }

func TestExportsOfAnotherType(t *testing.T) {
	for _, name := range []string{"proxy_on_request_headers/4", "proxy_on_done/2", "_initialize/1", "proxy_on_http_call_response/2"} {
		h := newHost(t)
		h.script = script{callbacks: calls{name: nil}}.assemble()
		export, _, _ := strings.Cut(name, "/")
		if _, _, err := h.start(h.script.wasm, newServices()); err == nil || !strings.Contains(err.Error(), export) {
			t.Errorf("%s: got error %v, want one that names it", name, err)
		}
	}
}

func TestPauseAndResume(t *testing.T) {
	const continueValue, pause, continueAndEnd = 0, 1, 2
	for _, tc := range []struct {
		name, in string
		result   uint32
		calls    []hostCall
		want     abi.Action
	}{
		{"continue", "request_headers", continueValue, nil, abi.Continue},
		{"pause", "request_headers", pause, nil, abi.Pause},
		{"stop all iteration", "response_headers", 4, nil, abi.Pause},
		{"continue and end", "request_headers", continueAndEnd, nil, abi.Continue},
		{"stop and watermark", "request_body", 2, nil, abi.Pause},
		{"garbage", "request_trailers", 0xfffffff0, nil, abi.Pause},
		{"resumed in the callback", "request_headers", pause, []hostCall{call("continue_stream", 0)}, abi.Continue},
		{"the other side resumed", "request_headers", pause, []hostCall{call("continue_stream", 1)}, abi.Pause},
		{"response resumed", "response_body", pause, []hostCall{call("continue_response")}, abi.Continue},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h, x := newHost(t), exchange()
			woken := 0
			x.Wake = func() { woken++ }
			h.answer = func(name string, _ []uint32) uint32 {
				if name == "proxy_on_"+tc.in {
					return tc.result
				}
				return 0
			}
			g, _ := h.run(script{callbacks: calls{"proxy_on_" + tc.in: tc.calls}}, newServices())
			s := must[abi.Stream](t)(g.Begin(x))
			if got := walk(t, s, tc.in); got != tc.want {
				t.Errorf("got action %d, want %d", got, tc.want)
			}
			if woken != 0 || s.Resumed(false) || s.Resumed(true) {
				t.Errorf("woken %d times by its own callback, want none", woken)
			}
		})
	}
}

// pausedBy runs a stream until its request header callback paused, then a tick
// of the root with these calls for the stream.
func pausedBy(t *testing.T, sc script, tick ...hostCall) (h *host, g *guest, m *machine, x *abi.Exchange, s abi.Stream, woken *int) {
	t.Helper()
	h, x = newHost(t), exchange()
	woken = new(int)
	x.Wake = func() { *woken++ }
	h.answer = func(name string, _ []uint32) uint32 {
		return flag32(name == "proxy_on_request_headers" || name == "proxy_on_configure" || name == "proxy_on_vm_start")
	}
	sc.callbacks["proxy_on_request_headers"] = nil
	sc.callbacks["proxy_on_tick"] = append([]hostCall{call("set_effective_context", 2)}, tick...)
	sc.allocator = "malloc"
	g, m = h.run(sc, newServices())
	s = must[abi.Stream](t)(g.Begin(x))
	if action := must[abi.Action](t)(s.RequestHeaders()); action != abi.Pause {
		t.Fatalf("action %d, want Pause", action)
	}
	if err := g.Tick(); err != nil {
		t.Fatal(err)
	}
	return h, g, m, x, s, woken
}

func TestAnotherContextResumes(t *testing.T) {
	h, g, m, x, s, woken := pausedBy(t, script{callbacks: calls{}},
		call("replace_header_map_value", 0, ":path", "/one"), call("continue_stream", 0), call("continue_stream", 0), call("add_header_map_value", 0, "x", "y"),
		call("get_header_map_value", 0, "x"))
	same(t, "calls", h.results(m, "proxy_on_tick"), []string{"0", "0", "0", "0", "0", `0 "y"`})
	if *woken != 1 || x.Request.Target != "/one" || x.Request.Header.Get("X") != "y" {
		t.Errorf("woken %d times, request %+v; want once, with the changes", *woken, x.Request)
	}
	// The owner may use the exchange from now on: the guest must not.
	x.Request.Target = "/owner"
	if err := g.Tick(); err != nil {
		t.Fatal(err)
	}
	same(t, "calls after it was resumed", h.results(m, "proxy_on_tick"), []string{"0", "2", "0", "0", "2", "2"})
	if x.Request.Target != "/owner" || *woken != 1 {
		t.Errorf("target %q, woken %d times; want it untouched", x.Request.Target, *woken)
	}
	if s.Resumed(true) || !s.Resumed(false) || s.Resumed(false) {
		t.Error("Resumed must report the request's side once")
	}
}

func TestAnotherContextAnswers(t *testing.T) {
	_, _, _, x, s, woken := pausedBy(t, script{callbacks: calls{}}, call("send_local_response", 401, "", "no", "", 0))
	if *woken != 1 || !x.Answered || x.Response.Status != 401 || s.Resumed(false) {
		t.Errorf("woken %d times, answered %v with %d; want once, with 401, not resumed", *woken, x.Answered, x.Response.Status)
	}
	if action := must[abi.Action](t)(s.RequestBody()); action != abi.Stop {
		t.Errorf("action %d after an answer, want Stop", action)
	}
}

func TestAnAnswerTakesResumingBack(t *testing.T) {
	_, _, _, x, s, woken := pausedBy(t, script{callbacks: calls{}}, call("continue_stream", 0), call("send_local_response", 401, "", "no", "", 0))
	if *woken != 1 || !x.Answered || s.Resumed(false) {
		t.Errorf("woken %d times, answered %v; want once, answered, not resumed", *woken, x.Answered)
	}
}

func TestAnotherContextCloses(t *testing.T) {
	_, _, _, x, s, woken := pausedBy(t, script{callbacks: calls{}}, call("close_stream", 0))
	if *woken != 1 || !x.Answered || x.Response.Status != 503 {
		t.Errorf("woken %d times, answered %v with %d; want once, with 503", *woken, x.Answered, x.Response.Status)
	}
	if action := must[abi.Action](t)(s.RequestBody()); action != abi.Stop {
		t.Errorf("action %d after it was closed, want Stop", action)
	}
}

func TestOtherStreamsAreOutOfReach(t *testing.T) {
	// The first stream went on, its exchange is its owner's: the second must
	// neither see nor change it.
	h := newHost(t)
	g, m := h.run(script{allocator: "malloc", callbacks: calls{"proxy_on_request_body": {
		call("set_effective_context", 2), call("get_header_map_value", 0, "accept"), call("replace_header_map_value", 0, "accept", "x"),
		call("get_property", "request\x00path"), call("get_buffer_bytes", 0, 0, 10), call("send_local_response", 500, "", "", "", 0), call("close_stream", 0),
	}}}, newServices())
	first, second := exchange(), exchange()
	s := must[abi.Stream](t)(g.Begin(first))
	must[abi.Action](t)(s.RequestHeaders())
	walk(t, must[abi.Stream](t)(g.Begin(second)), "request_body")
	same(t, "calls", h.results(m, "proxy_on_request_body"), []string{"0", "2", "2", "1", "1", "2", "0"})
	same(t, "first request", first, exchange())
}

// TestHeaderIsPassedWithoutItsCallback has a guest change headers when the
// content comes: they are their owners' then, also when it was never asked.
func TestHeaderIsPassedWithoutItsCallback(t *testing.T) {
	for _, in := range []string{"request_body", "request_trailers", "response_body", "response_trailers"} {
		side, mine := 0, "request"
		if strings.HasPrefix(in, "response") {
			side, mine = 1, "response"
		}
		h := newHost(t)
		g, m := h.run(script{allocator: "malloc", callbacks: calls{"proxy_on_" + in: {
			call("add_header_map_value", 2*side, "x-a", "b"), call("remove_header_map_value", 2*side, "accept"), call("set_header_map_pairs", 2*side, ""),
		}}}, newServices())
		x := exchange()
		x.Request.Trailer, x.Response.Trailer = http.Header{"T": {"v"}}, http.Header{"T": {"v"}}
		s := must[abi.Stream](t)(g.Begin(x))
		run := map[string]func() (abi.Action, error){
			"request_body": s.RequestBody, "request_trailers": s.RequestTrailers, "response_body": s.ResponseBody, "response_trailers": s.ResponseTrailers,
		}[in]
		must[abi.Action](t)(run())
		same(t, in, h.results(m, "proxy_on_"+in), []string{"2", "2", "2"})
		same(t, mine+" header", [...]http.Header{x.Request.Header, x.Response.Header}[side], [...]http.Header{exchange().Request.Header, exchange().Response.Header}[side])
	}
}

func TestStopEndsTheCallbacks(t *testing.T) {
	h := newHost(t)
	c := all()
	c["proxy_on_request_headers"] = []hostCall{call("send_local_response", 403, "", "", "", 0)}
	g, _ := h.run(script{callbacks: c}, newServices())
	s := must[abi.Stream](t)(g.Begin(exchange()))
	h.called = nil
	for name, run := range map[string]func() (abi.Action, error){"headers": s.RequestHeaders, "body": s.RequestBody, "trailers": s.RequestTrailers} {
		if name == "headers" {
			continue
		}
		must[abi.Action](t)(s.RequestHeaders())
		if action := must[abi.Action](t)(run()); action != abi.Stop {
			t.Errorf("%s: action %d, want Stop", name, action)
		}
	}
	// The answer is a response like others.
	if action := must[abi.Action](t)(s.ResponseHeaders()); action != abi.Continue {
		t.Errorf("action %d for the answer's header, want Continue", action)
	}
	if err := s.End(); err != nil {
		t.Fatal(err)
	}
	same(t, "callbacks", strings.Join(h.called, " "), "request_headers[2,7,0] response_headers[2,1,1] done[2] log[2] delete[2]")
	if action, err := s.ResponseBody(); action != abi.Stop || err != nil {
		t.Errorf("after End: got %d, %v, want Stop", action, err)
	}
	if err := s.End(); err != nil {
		t.Errorf("a second End: %v", err)
	}
}

// delaying starts a guest that answers proxy_on_done with no, and lets streams
// go in its tick.
func delaying(t *testing.T, tick ...hostCall) (*host, *guest) {
	h := newHost(t)
	h.answer = func(name string, _ []uint32) uint32 { return flag32(name != "proxy_on_done") }
	c := all()
	for _, name := range []string{"request_headers", "context_create"} {
		delete(c, "proxy_on_"+name)
	}
	c["proxy_on_log"] = []hostCall{call("get_header_map_value", 0, "accept"), call("done")}
	c["proxy_on_tick"] = tick
	g, _ := h.run(script{allocator: "malloc", callbacks: c}, newServices())
	h.called = nil
	return h, g
}

func TestDoneDelaysLogAndDelete(t *testing.T) {
	h, g := delaying(t, call("set_effective_context", 2), call("done"), call("done"))
	x := exchange()
	s := must[abi.Stream](t)(g.Begin(x))
	if err := s.End(); err != nil {
		t.Fatal(err)
	}
	same(t, "callbacks", strings.Join(h.called, " "), "done[2]")
	if err := g.Tick(); err != nil {
		t.Fatal(err)
	}
	same(t, "callbacks", strings.Join(h.called, " "), "done[2] tick[1] log[2] delete[2]")
	m := g.machine.(*machine)
	same(t, "tick", h.results(m, "proxy_on_tick"), []string{"0", "0", "1"})
	// The exchange is gone: the log reads nothing.
	same(t, "log", h.results(m, "proxy_on_log"), []string{"1", "1"})
	if g.streams.len()+len(g.waiting) != 0 {
		t.Errorf("%d contexts are left, %d wait", g.streams.len(), len(g.waiting))
	}
}

func TestDelayedContextsAreBounded(t *testing.T) {
	h, g := delaying(t)
	for range maxWaiting + 3 {
		if err := must[abi.Stream](t)(g.Begin(exchange())).End(); err != nil {
			t.Fatal(err)
		}
	}
	if len(g.waiting) != maxWaiting || g.streams.len() != maxWaiting {
		t.Errorf("%d wait, %d contexts; want %d", len(g.waiting), g.streams.len(), maxWaiting)
	}
	if !slices.Contains(h.called, "delete[4]") || slices.Contains(h.called, "delete[5]") {
		t.Error("the three oldest must go")
	}
}

func TestDelayedContextsGoInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, g := delaying(t)
		if err := must[abi.Stream](t)(g.Begin(exchange())).End(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(maxWait)
		if err := g.Tick(); err != nil {
			t.Fatal(err)
		}
		same(t, "after the time", strings.Join(h.called, " "), "done[2] tick[1]")
		time.Sleep(time.Nanosecond)
		if err := g.Tick(); err != nil {
			t.Fatal(err)
		}
		same(t, "past the time", strings.Join(h.called, " "), "done[2] tick[1] log[2] delete[2] tick[1]")
	})
}

// replied starts a guest whose request pauses with a call under way.
func replied(t *testing.T) (*host, *guest, *services, abi.Stream, *abi.Exchange) {
	h, x, sv := newHost(t), exchange(), newServices()
	x.Wake = func() {}
	h.answer = func(name string, _ []uint32) uint32 { return flag32(name != "proxy_on_response_headers") }
	read := []hostCall{
		call("get_header_map_value", 6, ":status"), call("get_header_map_pairs", 6), call("get_header_map_value", 7, "t"), call("get_buffer_bytes", 4, 0, 100),
		call("get_status"), call("add_header_map_value", 6, "a", "b"), call("set_buffer_bytes", 4, 0, 0, "x"),
		call("set_effective_context", 2), call("add_header_map_value", 0, "x-user", "u"), call("continue_stream", 0),
	}
	g, _ := h.run(script{allocator: "malloc", callbacks: calls{
		"proxy_on_request_headers":    {call("http_call", "auth", serialized(":method", "GET", ":path", "/", ":authority", "a"), "", "", 100)},
		"proxy_on_http_call_response": read,
		"proxy_on_tick":               read,
	}}, sv)
	s := must[abi.Stream](t)(g.Begin(x))
	if action := must[abi.Action](t)(s.RequestHeaders()); action != abi.Pause || len(sv.deliver) != 1 {
		t.Fatalf("action %d with %d calls, want Pause with one", action, len(sv.deliver))
	}
	h.called = nil
	return h, g, sv, s, x
}

func TestHTTPCallReply(t *testing.T) {
	h, g, sv, s, x := replied(t)
	m := g.machine.(*machine)
	reply := &abi.HTTPReply{Status: 401, Header: http.Header{"B": {"2"}, "A": {"1"}}, Trailer: http.Header{"T": {"3"}}, Body: []byte("reply")}
	if err := sv.deliver[0](reply); err != nil {
		t.Fatal(err)
	}
	same(t, "callback", strings.Join(h.called, " "), "http_call_response[1,1,3,5,1]")
	same(t, "calls", h.results(m, "proxy_on_http_call_response"), []string{
		`0 "401"`, "0 " + quoted(serialized(":status", "401", "a", "1", "b", "2")), `0 "3"`, `0 "reply"`, `0 401 "Unauthorized"`, "2", "2", "0", "0", "0",
	})
	if !s.Resumed(false) || x.Request.Header.Get("X-User") != "u" {
		t.Errorf("the stream must be resumed, with the change; header %v", x.Request.Header)
	}
	// Neither a second reply nor what is left of the first.
	if err := sv.deliver[0](reply); err != nil || len(h.called) != 1 {
		t.Errorf("a reply delivered twice: error %v, callbacks %v", err, h.called)
	}
	if err := g.Tick(); err != nil {
		t.Fatal(err)
	}
	same(t, "after the callback", h.results(m, "proxy_on_tick")[:5], []string{"2", "2", "2", "1", `0 0 ""`})
}

func TestHTTPCallFails(t *testing.T) {
	for name, reply := range map[string]*abi.HTTPReply{"nil": nil, "empty": {}} {
		h, g, sv, _, _ := replied(t)
		if err := sv.deliver[0](reply); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		same(t, name, strings.Join(h.called, " "), "http_call_response[1,1,0,0,0]")
		same(t, name, h.results(g.machine.(*machine), "proxy_on_http_call_response")[:5], []string{"2", "2", "2", "1", `0 0 ""`})
	}
}

func TestLostRepliesAreForgotten(t *testing.T) {
	h, g, sv, _, _ := replied(t)
	header := serialized(":method", "GET", ":path", "/", ":authority", "a")
	m := g.machine.(*machine)
	m.mod.Memory().WriteString(0x30000, "auth"+header)
	for range maxCalls + 10 {
		sv.sent = nil
		stack := []uint64{0x30000, 4, 0x30004, uint64(len(header)), 0, 0, 0, 0, 10, 0x31000}
		if got := hostFuncs()["proxy_http_call"].enter(m.ctx, stack); got != statusOK {
			t.Fatalf("status %d, want OK", got)
		}
	}
	if len(g.calls) != maxCalls {
		t.Errorf("%d calls are remembered, want %d", len(g.calls), maxCalls)
	}
	for _, i := range []int{0, 10, 11, maxCalls + 10} {
		if g.calls[uint32(i+1)] != (i > 10) {
			t.Errorf("call %d: remembered %v, want %v", i+1, g.calls[uint32(i+1)], i > 10)
		}
	}
	if err := sv.deliver[0](&abi.HTTPReply{Status: 200}); err != nil || len(h.called) != 0 {
		t.Errorf("a forgotten call: error %v, callbacks %v", err, h.called)
	}
}

func TestReplyAfterTheStream(t *testing.T) {
	h, g, sv, s, _ := replied(t)
	if err := s.End(); err != nil {
		t.Fatal(err)
	}
	if err := sv.deliver[0](&abi.HTTPReply{Status: 200}); err != nil {
		t.Fatal(err)
	}
	got := h.results(g.machine.(*machine), "proxy_on_http_call_response")
	same(t, "context of the stream", got[7:], []string{"2", "2", "2"})
}

func TestResetForgets(t *testing.T) {
	h, g, sv, s, _ := replied(t)
	g.Reset()
	if err := sv.deliver[0](&abi.HTTPReply{Status: 200}); err != nil {
		t.Fatal(err)
	}
	if err := s.End(); err != nil {
		t.Fatal(err)
	}
	if len(h.called) != 0 {
		t.Errorf("callbacks %v after a reset, want none", h.called)
	}
}

func TestTwoStreamsInterleave(t *testing.T) {
	h := newHost(t)
	g, _ := h.run(script{allocator: "malloc", callbacks: calls{"proxy_on_request_headers": {call("replace_header_map_value", 0, ":path", "/mine")}, "proxy_on_request_body": nil}}, newServices())
	a, b := exchange(), exchange()
	sa := must[abi.Stream](t)(g.Begin(a))
	sb := must[abi.Stream](t)(g.Begin(b))
	must[abi.Action](t)(sb.RequestHeaders())
	if a.Request.Target != "/a?b=c" || b.Request.Target != "/mine" {
		t.Errorf("targets %q and %q, want only the second changed", a.Request.Target, b.Request.Target)
	}
	must[abi.Action](t)(sa.RequestBody())
	same(t, "callbacks", h.called, []string{"request_headers[3,7,0]", "request_body[2,8,1]"})
}
