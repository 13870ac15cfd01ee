package proxywasm

import (
	"net/http"
	"strings"
	"testing"

	"seawall/wasm/abi"
)

// scene is one row of the conformance suite: host calls that a guest makes in
// one of its callbacks, what they return, and what they change.
type scene struct {
	name  string
	in    string // the callback, without proxy_on_; request_headers if empty
	setup func(*abi.Exchange, *services)
	calls []hostCall
	// want is status and outputs of each call.
	want []string
	// change makes of the exchange and services before what they are after.
	change func(*abi.Exchange, *services)
	action abi.Action
}

// walk runs a stream's callbacks in the order of the walk, up to one.
func walk(t *testing.T, s abi.Stream, last string) abi.Action {
	t.Helper()
	for _, step := range []struct {
		name string
		run  func() (abi.Action, error)
	}{
		{"context_create", func() (abi.Action, error) { return abi.Continue, nil }},
		{"request_headers", s.RequestHeaders}, {"request_body", s.RequestBody}, {"request_trailers", s.RequestTrailers},
		{"response_headers", s.ResponseHeaders}, {"response_body", s.ResponseBody}, {"response_trailers", s.ResponseTrailers},
		{"done", func() (abi.Action, error) { return abi.Continue, s.End() }},
	} {
		action, err := step.run()
		if err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if step.name == last || last == "log" && step.name == "done" {
			return action
		}
	}
	t.Fatalf("no callback %s", last)
	return 0
}

// run plays the scene with a guest that start makes of it, which gives the
// outcomes of the calls, too.
func (sc scene) run(t *testing.T, start func(*testing.T, scene, *services) (*guest, func() []string)) {
	if sc.in == "" {
		sc.in = "request_headers"
	}
	x, s := exchange(), newServices()
	wantX, wantS := exchange(), newServices()
	if sc.setup != nil {
		sc.setup(x, s)
		sc.setup(wantX, wantS)
	}
	if sc.change != nil {
		sc.change(wantX, wantS)
	}
	// Values of a header may be shared: what they were, they stay.
	shared := x.Request.Header["X-Two"]

	g, outcomes := start(t, sc, s)
	var action abi.Action
	switch sc.in {
	case "vm_start", "configure":
	case "tick":
		if err := g.Tick(); err != nil {
			t.Fatal(err)
		}
	case "foreign_function":
		if err := g.ForeignFunction(7, []byte("arguments")); err != nil {
			t.Fatal(err)
		}
	default:
		stream := must[abi.Stream](t)(g.Begin(x))
		action = walk(t, stream, sc.in)
	}
	same(t, "calls", outcomes(), sc.want)
	same(t, "action", action, sc.action)
	same(t, "request", x.Request, wantX.Request)
	same(t, "response", x.Response, wantX.Response)
	same(t, "cache", x.Cache, wantX.Cache)
	same(t, "answered", x.Answered, wantX.Answered)
	same(t, "log", s.lines, wantS.lines)
	same(t, "shared data", s.shared, wantS.shared)
	same(t, "metrics", s.metrics, wantS.metrics)
	same(t, "calls sent", s.sent, wantS.sent)
	if shared != nil {
		same(t, "shared values", shared[:cap(shared)], []string{"1", "2", "", ""})
	}
}

// scripted makes a guest of assembled WebAssembly.
func scripted(t *testing.T, sc scene, s *services) (*guest, func() []string) {
	h := newHost(t)
	g, m := h.run(script{allocator: "malloc", callbacks: calls{"proxy_on_" + sc.in: sc.calls}}, s)
	return g, func() []string { return h.results(m, "proxy_on_"+sc.in) }
}

func allScenes() map[string][]scene {
	return map[string][]scene{
		"log and time": logScenes(), "fields": fieldScenes(), "pairs": pairScenes(), "trailers": trailerScenes(),
		"pseudo-fields": pseudoScenes(), "buffers": bufferScenes(), "stream": streamScenes(), "properties": propertyScenes(),
		"http calls": callScenes(), "data": dataScenes(), "outside": outsideScenes(),
	}
}

func TestConformance(t *testing.T) {
	tables := allScenes()
	for group, scenes := range tables {
		for _, sc := range scenes {
			t.Run(group+"/"+sc.name, func(t *testing.T) { sc.run(t, scripted) })
		}
	}
	t.Run("covers each function", func(t *testing.T) {
		seen, failed := make(map[string]bool), make(map[string]bool)
		for _, scenes := range tables {
			for _, sc := range scenes {
				for i, c := range sc.calls {
					ok := strings.HasPrefix(sc.want[i], "0") || sc.want[i] == "12"
					seen[c.name] = seen[c.name] || ok
					failed[c.name] = failed[c.name] || !ok
				}
			}
		}
		for name, f := range hostFuncs() {
			if name == "proxy_get_current_time_nanoseconds" {
				continue // its output differs: TestTimeIsReal
			}
			if !seen[name] {
				t.Errorf("no scene in which %s succeeds", name)
			}
			mayFail := f.shape != "" && f.shape[0] != '.' && name != "emscripten_notify_memory_growth" && name != "proxy_set_tick_period_milliseconds"
			if !failed[name] && mayFail {
				t.Errorf("no scene in which %s fails", name)
			}
		}
	})
}

// nowhere is an address past the memory's end.
func nowhere() place { return place{0xfffffff0, 100} }

func logScenes() []scene {
	return []scene{
		{
			name: "log", calls: []hostCall{call("log", 0, "a"), call("log", 5, ""), call("log", 6, "x"), call("log", 2, nowhere())},
			want:   []string{"0", "0", "2", "6"},
			change: func(_ *abi.Exchange, s *services) { s.lines = []string{"0 a", "5 "} },
		},
		{
			name: "a long line is cut", calls: []hostCall{call("log", 2, strings.Repeat("y", 5000))}, want: []string{"0"},
			change: func(_ *abi.Exchange, s *services) { s.lines = []string{"2 " + strings.Repeat("y", 4096)} },
		},
		{
			name: "level", calls: []hostCall{call("get_log_level"), call("get_log_level", nowhere())}, want: []string{"0 2", "6"},
		},
		{
			name: "time needs a place", calls: []hostCall{call("get_current_time_nanoseconds", nowhere())}, want: []string{"6"},
		},
		{
			name: "tick", in: "configure", calls: []hostCall{call("set_tick_period_milliseconds", 100)}, want: []string{"0"},
		},
		{
			name: "what compilers need", calls: []hostCall{
				{"emscripten_notify_memory_growth", []any{0}}, {"pthread_equal", []any{7, 7}}, {"pthread_equal", []any{7, 8}},
			},
			want: []string{"0", "1", "0"},
		},
	}
}

func fieldScenes() []scene {
	return []scene{
		{
			name: "values", calls: []hostCall{
				call("get_header_map_value", 0, "accept"), call("get_header_map_value", 0, "ACCEPT"),
				call("get_header_map_value", 0, "x-two"), call("get_header_map_value", 0, "absent"),
				call("get_header_map_value", 0, ""), call("get_header_map_value", 9, "accept"),
				call("get_header_map_value", 2, "content-type"), call("get_header_map_value", 4, "a"), call("get_header_map_value", 6, ":status"),
				call("get_header_map_value", 0, nowhere()), call("get_header_map_value", 0, "accept", nowhere()),
			},
			want: []string{`0 "text/html"`, `0 "text/html"`, `0 "1, 2"`, "1", "1", "2", "2", "2", "2", "6", "6"},
		},
		{
			name: "an empty value", setup: func(x *abi.Exchange, _ *services) { x.Request.Header["X-Empty"] = []string{""} },
			calls: []hostCall{call("get_header_map_value", 0, "x-empty")}, want: []string{`0 ""`},
		},
		{
			name: "add", calls: []hostCall{call("add_header_map_value", 0, "x-two", "3"), call("add_header_map_value", 0, "X-NEW", " v ")},
			want: []string{"0", "0"},
			change: func(x *abi.Exchange, _ *services) {
				x.Request.Header["X-Two"] = []string{"1", "2", "3"}
				x.Request.Header["X-New"] = []string{"v"}
				x.Request.Changed = true
			},
		},
		{
			name: "replace", calls: []hostCall{call("replace_header_map_value", 0, "x-two", "3"), call("replace_header_map_value", 0, "x-new", "")},
			want: []string{"0", "0"},
			change: func(x *abi.Exchange, _ *services) {
				x.Request.Header["X-Two"] = []string{"3"}
				x.Request.Header["X-New"] = []string{""}
				x.Request.Changed = true
			},
		},
		{
			name: "remove", calls: []hostCall{
				call("remove_header_map_value", 0, "X-tWo"), call("remove_header_map_value", 0, "absent"),
				call("remove_header_map_value", 0, "a b"), call("remove_header_map_value", 1, "a"), call("remove_header_map_value", 0, nowhere()),
			},
			want: []string{"0", "0", "2", "2", "6"},
			change: func(x *abi.Exchange, _ *services) {
				delete(x.Request.Header, "X-Two")
				x.Request.Changed = true
			},
		},
		{
			name: "removing what is not there changes nothing", calls: []hostCall{call("remove_header_map_value", 0, "absent")}, want: []string{"0"},
		},
		{
			name: "nothing invalid gets in", calls: []hostCall{
				call("add_header_map_value", 0, "x", "a\r\nb: c"), call("add_header_map_value", 0, "x", "a\x00b"), call("replace_header_map_value", 0, "x", "a\nb"),
				call("add_header_map_value", 0, "x y", "a"), call("add_header_map_value", 0, "", "a"), call("replace_header_map_value", 0, "x\r\ny", "a"),
				call("add_header_map_value", 0, ":other", "a"), call("add_header_map_value", 0, "content-length", "many"),
				call("add_header_map_value", 0, "x", strings.Repeat("v", 4100)), call("add_header_map_value", 2, "x", "v"), call("replace_header_map_value", 8, "x", "v"),
				call("add_header_map_value", 0, nowhere(), "v"), call("replace_header_map_value", 0, "x", nowhere()),
			},
			want: []string{"2", "2", "2", "2", "2", "2", "2", "2", "2", "2", "2", "6", "6"},
		},
		{
			name: "fields of the connection stay", setup: func(x *abi.Exchange, _ *services) { x.Request.Header["Upgrade"] = []string{"websocket"} },
			calls: []hostCall{
				call("add_header_map_value", 0, "transfer-encoding", "chunked"), call("replace_header_map_value", 0, "Connection", "x"),
				call("remove_header_map_value", 0, "upgrade"),
			},
			want: []string{"0", "0", "0"},
		},
		{
			name: "the whole is bounded", setup: func(_ *abi.Exchange, s *services) { s.fieldLimit = 200 },
			calls: []hostCall{call("add_header_map_value", 0, "x", strings.Repeat("v", 80)), call("add_header_map_value", 0, "x", strings.Repeat("v", 80))},
			want:  []string{"0", "2"},
			change: func(x *abi.Exchange, _ *services) {
				x.Request.Header["X"], x.Request.Changed = []string{strings.Repeat("v", 80)}, true
			},
		},
		{
			name: "a header is made where there is none", setup: func(x *abi.Exchange, _ *services) { x.Request.Header = nil },
			calls: []hostCall{call("add_header_map_value", 0, "x", "v")},
			want:  []string{"0"},
			change: func(x *abi.Exchange, _ *services) {
				x.Request.Header, x.Request.Changed = http.Header{"X": {"v"}}, true
			},
		},
		{
			name: "response", in: "response_headers", calls: []hostCall{
				call("get_header_map_value", 2, "content-type"), call("replace_header_map_value", 2, "content-type", "text/html"),
				call("remove_header_map_value", 2, "set-cookie"), call("get_header_map_value", 0, "accept"), call("add_header_map_value", 0, "late", "v"),
			},
			want: []string{`0 "text/plain"`, "0", "0", `0 "text/html"`, "2"},
			change: func(x *abi.Exchange, _ *services) {
				x.Response.Header = http.Header{"Content-Type": {"text/html"}}
				x.Response.Changed = true
			},
		},
		{
			name: "a header that was passed on stays", in: "response_body", calls: []hostCall{
				call("get_header_map_value", 2, "content-type"), call("add_header_map_value", 2, "x", "v"), call("remove_header_map_value", 2, "content-type"),
				call("set_header_map_pairs", 2, ""),
			},
			want: []string{`0 "text/plain"`, "2", "2", "2"},
		},
		{
			name: "a log reads all and changes nothing", in: "log", calls: []hostCall{
				call("get_header_map_value", 0, ":path"), call("get_header_map_value", 2, ":status"), call("get_header_map_value", 3, "x"),
				call("replace_header_map_value", 2, ":status", "201"),
			},
			want: []string{`0 "/a?b=c"`, `0 "200"`, "1", "2"},
		},
		{
			name: "the root has no fields", in: "tick", calls: []hostCall{call("get_header_map_value", 0, "accept"), call("add_header_map_value", 0, "x", "v")},
			want: []string{"2", "2"},
		},
	}
}

func pairScenes() []scene {
	all := serialized(":method", "GET", ":path", "/a?b=c", ":authority", "example.org", ":scheme", "https", "accept", "text/html", "x-two", "1", "x-two", "2")
	replaced := func(want http.Header) func(*abi.Exchange, *services) {
		return func(x *abi.Exchange, _ *services) { x.Request.Header, x.Request.Changed = want, true }
	}
	return []scene{
		{
			name: "get", calls: []hostCall{
				call("get_header_map_pairs", 0), call("get_header_map_size", 0), call("get_header_map_pairs", 1), call("get_header_map_size", 99),
				call("get_header_map_pairs", 0, nowhere()), call("get_header_map_size", 0, nowhere()),
			},
			want: []string{"0 " + quoted(all), "0 " + decimal(len(all)), "2", "2", "6", "6"},
		},
		{
			name: "set", calls: []hostCall{call("set_header_map_pairs", 0, serialized(":path", "/new", "X-A", "1", "x-a", "2")), call("get_header_map_value", 0, ":method")},
			want: []string{"0", `0 "GET"`},
			change: func(x *abi.Exchange, _ *services) {
				x.Request.Header, x.Request.Target, x.Request.Changed = http.Header{"X-A": {"1", "2"}}, "/new", true
			},
		},
		{name: "set what was got", calls: []hostCall{call("set_header_map_pairs", 0, all)}, want: []string{"0"}, change: replaced(exchange().Request.Header)},
		{name: "set nothing", calls: []hostCall{call("set_header_map_pairs", 0, "")}, want: []string{"0"}, change: replaced(http.Header{})},
		{name: "set a zero byte", calls: []hostCall{call("set_header_map_pairs", 0, "\x00")}, want: []string{"0"}, change: replaced(http.Header{})},
		{
			name: "set with a host", calls: []hostCall{call("set_header_map_pairs", 0, serialized("Host", "other.org", "a", "b"))}, want: []string{"0"},
			change: func(x *abi.Exchange, _ *services) {
				x.Request.Header, x.Request.Authority, x.Request.Changed = http.Header{"A": {"b"}}, "other.org", true
			},
		},
		{
			name: "set keeps fields of the connection", setup: func(x *abi.Exchange, _ *services) { x.Request.Header["Te"] = []string{"trailers"} },
			calls: []hostCall{call("set_header_map_pairs", 0, serialized("connection", "close", "a", "b"))}, want: []string{"0"},
			change: replaced(http.Header{"A": {"b"}, "Te": {"trailers"}}),
		},
		{
			name: "set all or nothing", calls: []hostCall{
				call("set_header_map_pairs", 0, serialized("a", "b", "c", "d\r\ne")), call("set_header_map_pairs", 0, serialized(":path", "/x", ":path", "/y")),
				call("set_header_map_pairs", 0, serialized(":path", "/x", ":status", "200")), call("set_header_map_pairs", 0, serialized("a b", "c")),
				call("set_header_map_pairs", 0, serialized(":authority", "a", "host", "b", "host", "c")),
				call("set_header_map_pairs", 0, strings.Repeat("x", 5000)), call("set_header_map_pairs", 0, "\x01\x00\x00\x00"),
				call("set_header_map_pairs", 0, serialized("a", "b")+"x"), call("set_header_map_pairs", 7, ""), call("set_header_map_pairs", 0, nowhere()),
			},
			want: []string{"2", "2", "2", "2", "2", "2", "4", "4", "2", "6"},
		},
	}
}

func trailerScenes() []scene {
	with := func(x *abi.Exchange, _ *services) {
		x.Request.Trailer = http.Header{"Sum": {"1"}}
		x.Response.Trailer = http.Header{"Sum": {"2"}}
	}
	return []scene{
		{
			name: "request", in: "request_trailers", setup: with,
			calls: []hostCall{call("get_header_map_pairs", 1), call("add_header_map_value", 1, "more", "v"), call("add_header_map_value", 1, ":path", "/"), call("get_header_map_size", 1)},
			want:  []string{"0 " + quoted(serialized("sum", "1")), "0", "2", "0 " + decimal(len(serialized("sum", "1", "more", "v")))},
			change: func(x *abi.Exchange, _ *services) {
				x.Request.Trailer = http.Header{"Sum": {"1"}, "More": {"v"}}
				x.Request.Changed = true
			},
		},
		{
			name: "response", in: "response_trailers", setup: with,
			calls: []hostCall{call("replace_header_map_value", 3, "sum", "3"), call("get_header_map_value", 1, "sum"), call("remove_header_map_value", 1, "sum")},
			want:  []string{"0", `0 "1"`, "2"},
			change: func(x *abi.Exchange, _ *services) {
				x.Response.Trailer = http.Header{"Sum": {"3"}}
				x.Response.Changed = true
			},
		},
		{
			name: "made after the last content", in: "response_body", calls: []hostCall{call("get_header_map_value", 3, "sum"), call("add_header_map_value", 3, "sum", "3")},
			want: []string{"2", "0"},
			change: func(x *abi.Exchange, _ *services) {
				x.Response.Trailer = http.Header{"Sum": {"3"}}
				x.Response.Changed = true
			},
		},
		{
			name: "not made before", in: "response_body", setup: func(x *abi.Exchange, _ *services) { x.Response.Ended = false },
			calls: []hostCall{call("add_header_map_value", 3, "sum", "3")}, want: []string{"2"},
		},
	}
}

func pseudoScenes() []scene {
	return []scene{
		{
			name: "get", calls: []hostCall{
				call("get_header_map_value", 0, ":method"), call("get_header_map_value", 0, ":path"), call("get_header_map_value", 0, ":authority"),
				call("get_header_map_value", 0, "host"), call("get_header_map_value", 0, ":scheme"), call("get_header_map_value", 0, ":status"), call("get_header_map_value", 0, ":x"),
			},
			want: []string{`0 "GET"`, `0 "/a?b=c"`, `0 "example.org"`, `0 "example.org"`, `0 "https"`, "1", "1"},
		},
		{
			name: "replace", calls: []hostCall{
				call("replace_header_map_value", 0, ":method", "POST"), call("replace_header_map_value", 0, ":path", "/n?%2f|x"),
				call("replace_header_map_value", 0, "HOST", "[::1]:80"), call("replace_header_map_value", 0, ":scheme", "HTTP"),
			},
			want: []string{"0", "0", "0", "0"},
			change: func(x *abi.Exchange, _ *services) {
				r := &x.Request
				r.Method, r.Target, r.Authority, r.Scheme, r.Changed = "POST", "/n?%2f|x", "[::1]:80", "http", true
			},
		},
		{
			name: "refused", calls: []hostCall{
				call("replace_header_map_value", 0, ":method", "GE T"), call("replace_header_map_value", 0, ":method", ""), call("replace_header_map_value", 0, ":method", "connect"),
				call("replace_header_map_value", 0, ":path", "a"), call("replace_header_map_value", 0, ":path", "/a b"), call("replace_header_map_value", 0, ":path", "/a\r\nb"),
				call("replace_header_map_value", 0, ":path", "/\xff"), call("replace_header_map_value", 0, ":path", "/a#b"), call("replace_header_map_value", 0, ":path", ""),
				call("replace_header_map_value", 0, ":authority", "a@b"), call("replace_header_map_value", 0, ":authority", "a/b"), call("replace_header_map_value", 0, ":authority", ":80"),
				call("replace_header_map_value", 0, ":scheme", "ftp"), call("replace_header_map_value", 0, ":status", "200"),
				call("remove_header_map_value", 0, ":path"), call("remove_header_map_value", 0, "host"), call("add_header_map_value", 0, ":path", "/x"),
			},
			want: strings.Fields(strings.Repeat("2 ", 17)),
		},
		{
			name: "what came may be sent on", setup: func(x *abi.Exchange, _ *services) { x.Request.Target = "/\xff" },
			calls: []hostCall{call("replace_header_map_value", 0, ":path", "/\xff"), call("set_header_map_pairs", 0, serialized(":path", "/\xff", "a", "b"))}, want: []string{"0", "0"},
			change: func(x *abi.Exchange, _ *services) {
				x.Request.Header, x.Request.Changed = http.Header{"A": {"b"}}, true
			},
		},
		{
			name: "add where there is none", setup: func(x *abi.Exchange, _ *services) { x.Request.Scheme = "" },
			calls:  []hostCall{call("get_header_map_value", 0, ":scheme"), call("add_header_map_value", 0, ":scheme", "http")},
			want:   []string{"1", "0"},
			change: func(x *abi.Exchange, _ *services) { x.Request.Scheme, x.Request.Changed = "http", true },
		},
		{
			name: "status", in: "response_headers", calls: []hostCall{
				call("get_header_map_value", 2, ":status"), call("get_header_map_value", 2, ":path"), call("replace_header_map_value", 2, ":status", "404"),
				call("replace_header_map_value", 2, ":status", "099"), call("replace_header_map_value", 2, ":status", "101"), call("replace_header_map_value", 2, ":status", "+20"),
				call("replace_header_map_value", 2, ":status", "2000"), call("remove_header_map_value", 2, ":status"), call("get_header_map_value", 2, "host"),
			},
			want:   []string{`0 "200"`, "1", "0", "2", "2", "2", "2", "2", "1"},
			change: func(x *abi.Exchange, _ *services) { x.Response.Status, x.Response.Changed = 404, true },
		},
	}
}
