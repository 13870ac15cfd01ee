package proxywasm

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"seawall/wasm/abi"
)

func quoted(s string) string { return strconv.Quote(s) }
func decimal(n int) string   { return strconv.Itoa(n) }

func bufferScenes() []scene {
	body := func(want string) func(*abi.Exchange, *services) {
		return func(x *abi.Exchange, _ *services) {
			x.Request.Body, x.Request.Replaced = slices.Concat([]byte(want)), true
		}
	}
	set := func(start, size int, v any) []hostCall {
		return []hostCall{call("set_buffer_bytes", 0, start, size, v)}
	}
	const most = 1<<31 - 1
	return []scene{
		{
			name: "read", in: "request_body", calls: []hostCall{
				call("get_buffer_bytes", 0, 0, most), call("get_buffer_bytes", 0, 2, 3), call("get_buffer_bytes", 0, 8, 1), call("get_buffer_bytes", 0, -1, -1),
				call("get_buffer_bytes", 0, 6, -1), call("get_buffer_status", 0), call("get_buffer_bytes", 1, 0, most), call("get_buffer_bytes", 2, 0, 1), call("get_buffer_bytes", 3, 0, 1),
				call("get_buffer_bytes", 4, 0, 1), call("get_buffer_bytes", 5, 0, 1), call("get_buffer_bytes", 8, 0, 1), call("get_buffer_bytes", 9, 0, 1), call("get_buffer_status", 1),
				call("get_buffer_status", 10), call("get_buffer_bytes", 0, 0, most, nowhere()), call("get_buffer_status", 0, nowhere()),
			},
			want: []string{`0 "question"`, `0 "est"`, `0 ""`, `0 ""`, `0 "on"`, "0 8 0", "1", "1", "1", "1", "1", "1", "2", "1", "2", "6", "6"},
		},
		{name: "replace", in: "request_body", calls: set(0, most, "new"), want: []string{"0"}, change: body("new")},
		{name: "prepend", in: "request_body", calls: set(0, 0, "a "), want: []string{"0"}, change: body("a question")},
		{name: "append", in: "request_body", calls: set(most, 0, "?"), want: []string{"0"}, change: body("question?")},
		{name: "cut the front", in: "request_body", calls: set(0, 5, ""), want: []string{"0"}, change: body("ion")},
		{name: "replace a middle", in: "request_body", calls: set(1, 2, "UE"), want: []string{"0"}, change: body("qUEstion")},
		{name: "empty", in: "request_body", calls: set(0, -1, ""), want: []string{"0"}, change: body("")},
		{
			name: "set what cannot be", in: "request_body", calls: []hostCall{
				call("set_buffer_bytes", 1, 0, 0, "x"), call("set_buffer_bytes", 6, 0, 0, "x"), call("set_buffer_bytes", 2, 0, 0, "x"), call("set_buffer_bytes", 77, 0, 0, "x"),
				call("set_buffer_bytes", 0, 0, 0, strings.Repeat("x", 4097)), call("set_buffer_bytes", 0, 0, 0, nowhere()),
			},
			want: []string{"1", "2", "1", "2", "2", "6"},
		},
		{
			name: "over the body limit", in: "request_body", setup: func(_ *abi.Exchange, s *services) { s.bodyLimit = 10 },
			calls: []hostCall{call("set_buffer_bytes", 0, 0, 0, "xy"), call("set_buffer_bytes", 0, 0, 0, "z")}, want: []string{"0", "2"}, change: body("xyquestion"),
		},
		{
			name: "response", in: "response_body", calls: []hostCall{call("get_buffer_bytes", 1, 0, most), call("set_buffer_bytes", 1, 0, most, "other"), call("get_buffer_bytes", 0, 0, 1)},
			want:   []string{`0 "answer"`, "0", "1"},
			change: func(x *abi.Exchange, _ *services) { x.Response.Body, x.Response.Replaced = []byte("other"), true },
		},
		{
			name: "not outside its callback", calls: []hostCall{call("get_buffer_bytes", 0, 0, most), call("set_buffer_bytes", 0, 0, most, "x")}, want: []string{"1", "1"},
		},
		{
			name: "configurations", in: "configure", calls: []hostCall{
				call("get_buffer_bytes", 7, 0, most), call("get_buffer_bytes", 6, 0, most), call("get_buffer_status", 7), call("get_configuration"),
				call("get_configuration", nowhere()),
			},
			want: []string{`0 "plugin config"`, `0 "vm"`, "0 13 0", `0 "plugin config"`, "6"},
		},
		{name: "configuration of the VM in 0.1.0", in: "vm_start", calls: []hostCall{call("get_configuration")}, want: []string{`0 "vm"`}},
		{
			name: "arguments of foreign functions", in: "foreign_function",
			calls: []hostCall{call("get_buffer_bytes", 8, 0, 4), call("set_buffer_bytes", 8, 0, 0, "x")}, want: []string{`0 "argu"`, "2"},
		},
	}
}

func streamScenes() []scene {
	answer := func(status int, h http.Header, body string) func(*abi.Exchange, *services) {
		return func(x *abi.Exchange, _ *services) {
			x.Answered = true
			x.Response = abi.Message{Status: status, Header: h, Ended: true, Replaced: true, Changed: true}
			if body != "" {
				x.Response.Body = []byte(body)
			}
		}
	}
	pairs := serialized("X-A", "1", "x-a", "2", "connection", "close", "content-length", "5")
	return []scene{
		{
			name: "local response", action: abi.Stop, calls: []hostCall{
				call("send_local_response", 403, "details", "no", pairs, -1), call("send_local_response", 404, "", "", "", 0), call("continue_stream", 0),
			},
			want: []string{"0", "2", "0"}, change: answer(403, http.Header{"X-A": {"1", "2"}}, "no"),
		},
		{
			name: "local response instead of another", in: "response_headers", action: abi.Stop, calls: []hostCall{call("send_local_response", 204, "", "", "", 0)},
			want: []string{"0"}, change: answer(204, http.Header{}, ""),
		},
		{
			name: "local response from a body", in: "request_body", action: abi.Stop, calls: []hostCall{call("send_local_response", 413, "", "big", "", 0)},
			want: []string{"0"}, change: answer(413, http.Header{}, "big"),
		},
		{
			name: "local response refused", calls: []hostCall{
				call("send_local_response", 100, "", "", "", 0), call("send_local_response", 600, "", "", "", 0), call("send_local_response", 200, "", "", serialized("a", "b\nc"), 0),
				call("send_local_response", 200, "", "", serialized(":status", "204"), 0), call("send_local_response", 200, "", "", "xx", 0),
				call("send_local_response", 200, "", strings.Repeat("x", 1<<16+1), "", 0), call("send_local_response", 200, nowhere(), "", "", 0),
			},
			want: []string{"2", "2", "2", "2", "4", "2", "6"},
		},
		{name: "local response too late", in: "response_body", calls: []hostCall{call("send_local_response", 500, "", "", "", 0)}, want: []string{"2"}},
		{name: "local response for nobody", in: "tick", calls: []hostCall{call("send_local_response", 500, "", "", "", 0)}, want: []string{"2"}},
		{name: "local response in the log", in: "log", calls: []hostCall{call("send_local_response", 500, "", "", "", 0), call("close_stream", 0)}, want: []string{"2", "0"}},
		{
			name: "continue", calls: []hostCall{
				call("continue_stream", 0), call("continue_stream", 1), call("continue_stream", 2), call("continue_stream", 3), call("continue_stream", 4),
				call("continue_request"), call("continue_response"), call("clear_route_cache"),
			},
			want: []string{"0", "0", "12", "12", "2", "0", "0", "0"},
		},
		{name: "continue nothing", in: "tick", calls: []hostCall{call("continue_stream", 0), call("close_stream", 1), call("continue_request")}, want: []string{"2", "2", "2"}},
		{
			name: "close", action: abi.Stop, calls: []hostCall{call("close_stream", 2), call("close_stream", 9), call("close_stream", 0), call("close_stream", 1)},
			want: []string{"12", "2", "0", "0"}, change: answer(503, http.Header{}, ""),
		},
		{
			name: "close a response that has begun", in: "response_body", action: abi.Stop, calls: []hostCall{call("close_stream", 1)},
			want: []string{"0"}, change: func(x *abi.Exchange, _ *services) { x.Answered = true },
		},
		{
			name: "effective context", calls: []hostCall{
				call("set_effective_context", 1), call("get_header_map_value", 0, "accept"), call("set_effective_context", 2), call("get_header_map_value", 0, "accept"),
				call("set_effective_context", 3), call("set_effective_context", 0), call("set_effective_context", -1),
			},
			want: []string{"0", "2", "0", `0 "text/html"`, "2", "2", "2"},
		},
		{name: "done when nothing ends", calls: []hostCall{call("done")}, want: []string{"1"}},
		{name: "done of the root", in: "tick", calls: []hostCall{call("done")}, want: []string{"1"}},
		{name: "done while asked", in: "done", calls: []hostCall{call("done")}, want: []string{"0"}},
	}
}

func propertyScenes() []scene {
	return []scene{
		{
			name: "get", calls: []hostCall{
				call("get_property", "request\x00path"), call("get_property", "request\x00method\x00"), call("get_property", "request\x00headers\x00accept"),
				call("get_property", "source\x00address"), call("get_property", "plugin_name"), call("get_property", "plugin_root_id"), call("get_property", "plugin_vm_id"),
				call("get_property", "response\x00nothing"), call("get_property", ""), call("get_property", strings.Repeat("a\x00", 3000)),
				call("get_property", nowhere()), call("get_property", "plugin_name", nowhere()),
			},
			want: []string{`0 "/a?b=c"`, `0 "GET"`, `0 "text/html"`, `0 "192.0.2.1:1234"`, `0 "probe"`, `0 ""`, `0 ""`, "1", "1", "1", "6", "6"},
		},
		{
			name: "set", calls: []hostCall{
				call("set_property", "seawall\x00cache\x00key", "v1"), call("get_property", "seawall\x00cache\x00key"), call("set_property", "request\x00path", "/x"),
				call("set_property", "unknown", "x"), call("set_property", "seawall\x00cache\x00key", strings.Repeat("k", 5000)), call("set_property", nowhere(), ""),
			},
			want: []string{"0", `0 "v1"`, "2", "1", "2", "6"}, change: func(x *abi.Exchange, _ *services) { x.Cache.Key, x.Cache.KeySet = "v1", true },
		},
		{
			name: "of the root", in: "configure", calls: []hostCall{call("get_property", "plugin_root_id\x00"), call("get_property", "request\x00path"), call("set_property", "seawall\x00cache\x00key", "v")},
			want: []string{`0 ""`, "1", "1"},
		},
		{
			name: "foreign functions", calls: []hostCall{
				call("call_foreign_function", "echo", "x"), call("call_foreign_function", "method", ""), call("call_foreign_function", "none", ""),
				call("call_foreign_function", "broken", ""), call("call_foreign_function", strings.Repeat("n", 5000), ""), call("call_foreign_function", "echo", nowhere()),
			},
			want: []string{`0 "echo x"`, `0 "GET"`, "1", "10", "2", "6"},
		},
		{name: "foreign functions of the root", in: "tick", calls: []hostCall{call("call_foreign_function", "method", "")}, want: []string{"2"}},
	}
}

func callScenes() []scene {
	header := serialized(":method", "POST", ":path", "/v", ":authority", "auth.internal", "content-length", "9", "x", "y")
	send := func(args ...any) hostCall { return call("http_call", args...) }
	return []scene{
		{
			name: "call", calls: []hostCall{send("auth", header, "body", serialized("t", "1"), 250), send("auth", header, "", "", 0)}, want: []string{"0 1", "0 2"},
			change: func(_ *abi.Exchange, s *services) {
				c := abi.HTTPCall{
					Upstream: "auth", Method: "POST", Target: "/v", Authority: "auth.internal", Header: http.Header{"X": {"y"}},
					Trailer: http.Header{"T": {"1"}}, Body: []byte("body"), Timeout: 250 * time.Millisecond,
				}
				d := c
				d.Trailer, d.Body, d.Timeout = http.Header{}, nil, 0
				s.sent = []*abi.HTTPCall{&c, &d}
			},
		},
		{
			name: "refused", calls: []hostCall{
				send("other", header, "", "", 0), send("auth", "", "", "", 0), send("auth", serialized(":method", "GET", ":path", "/"), "", "", 0), send("auth", serialized(":authority", "a", ":path", "/"), "", "", 0),
				send("auth", "xx", "", "", 0), send("auth", header, "", "xx", 0), send("auth", header, strings.Repeat("b", 1<<16+1), "", 0),
				send("auth", header, "", serialized(":path", "/"), 0), send("auth", header, nowhere(), "", 0), send("auth", header, "", "", 0, nowhere()),
			},
			want: []string{"2", "2", "2", "2", "4", "4", "2", "2", "6", "6"},
		},
		{
			name: "too many", setup: func(_ *abi.Exchange, s *services) { s.sent = make([]*abi.HTTPCall, 100) },
			calls: []hostCall{send("auth", header, "", "", 0)}, want: []string{"10"},
		},
		{name: "status without a reply", calls: []hostCall{call("get_status"), call("get_status", nowhere())}, want: []string{`0 0 ""`, "6"}},
	}
}

func dataScenes() []scene {
	return []scene{
		{
			name: "shared data", setup: func(_ *abi.Exchange, s *services) { s.shared["old"] = sharedValue{[]byte("o"), 4} },
			calls: []hostCall{
				call("get_shared_data", "k"), call("set_shared_data", "k", "v", 0), call("get_shared_data", "k"), call("set_shared_data", "k", "w", 7),
				call("set_shared_data", "k", "w", 1), call("set_shared_data", "old", "p", 0), call("get_shared_data", "old"),
				call("get_shared_data", nowhere()), call("set_shared_data", "k", nowhere(), 0), call("set_shared_data", "k", strings.Repeat("v", 5000), 0),
			},
			want: []string{"1", "0", `0 "v" 1`, "8", "0", "0", `0 "p" 5`, "6", "6", "2"},
			change: func(_ *abi.Exchange, s *services) {
				s.shared["k"], s.shared["old"] = sharedValue{[]byte("w"), 2}, sharedValue{[]byte("p"), 5}
			},
		},
		{
			name: "metrics", calls: []hostCall{
				call("define_metric", 0, "requests"), call("define_metric", 1, "gauge"), call("define_metric", 2, "times"), call("define_metric", 3, "x"), call("define_metric", 0, ""),
				call("define_metric", 0, "a b"), call("increment_metric", 1, int64(5)), call("increment_metric", 2, int64(-1)), call("increment_metric", 3, int64(1)),
				call("increment_metric", 9, int64(1)), call("record_metric", 2, int64(-2)), call("record_metric", 9, int64(1)), call("get_metric", 1), call("get_metric", 2),
				call("get_metric", 9), call("get_metric", 1, nowhere()), call("define_metric", 0, nowhere()),
			},
			want:   []string{"0 1", "0 2", "0 3", "2", "2", "2", "0", "0", "2", "1", "0", "1", "0 5", "0 18446744073709551614", "1", "6", "6"},
			change: func(_ *abi.Exchange, s *services) { s.metrics = []uint64{5, 1<<64 - 2, 0} },
		},
	}
}

func outsideScenes() []scene {
	var sc scene
	sc.name = "unimplemented"
	for name, h := range hostFuncs() {
		if strings.Contains(h.shape, ".") {
			sc.calls, sc.want = append(sc.calls, hostCall{name: name}), append(sc.want, "12")
		}
	}
	return []scene{sc}
}

func TestTimeIsReal(t *testing.T) {
	h := newHost(t)
	before := time.Now().UnixNano()
	_, m := h.run(script{callbacks: map[string][]hostCall{"proxy_on_configure": {call("get_current_time_nanoseconds")}}}, newServices())
	text := strings.TrimPrefix(h.results(m, "proxy_on_configure")[0], "0 ")
	if got, err := strconv.ParseInt(text, 10, 64); err != nil || got < before || got > time.Now().UnixNano() {
		t.Errorf("got %q, want nanoseconds between %d and now", text, before)
	}
}

func TestTickPeriodIsTheGuests(t *testing.T) {
	h := newHost(t)
	calls := []hostCall{call("set_tick_period_milliseconds", 1500)}
	g, _ := h.run(script{callbacks: map[string][]hostCall{"proxy_on_configure": calls, "proxy_on_tick": nil}}, newServices())
	same(t, "period", g.TickPeriod(), 1500*time.Millisecond)
	g, _ = h.run(script{callbacks: map[string][]hostCall{"proxy_on_configure": calls}}, newServices())
	same(t, "period without a callback", g.TickPeriod(), time.Duration(0))
}
