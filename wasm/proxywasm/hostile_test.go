package proxywasm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"

	"seawall/wasm/abi"

	"github.com/tetratelabs/wazero/api"
	"golang.org/x/net/http/httpguts"
)

func TestAllocators(t *testing.T) {
	at := func(p uint32) *uint32 { return &p }
	get := []hostCall{call("get_property", "request\x00path")}
	for _, tc := range []struct {
		name   string
		script script
		want   string
	}{
		{"malloc", script{allocator: "malloc"}, `0 "/a?b=c"`},
		{"proxy_on_memory_allocate", script{allocator: "proxy_on_memory_allocate"}, `0 "/a?b=c"`},
		{"none", script{}, "6"},
		{"nothing left", script{allocator: "malloc", allocated: at(0)}, "6"},
		{"past the end", script{allocator: "malloc", allocated: at(4 << 20)}, "6"},
		{"across the end", script{allocator: "malloc", allocated: at(4<<20 - 5)}, "6"},
		{"the last bytes", script{allocator: "malloc", allocated: at(4<<20 - 6)}, `0 "/a?b=c"`},
		{"far out", script{allocator: "malloc", allocated: at(0xffffffff)}, "6"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := newHost(t)
			tc.script.callbacks = calls{"proxy_on_request_headers": get}
			g, m := h.run(tc.script, newServices())
			walk(t, must[abi.Stream](t)(g.Begin(exchange())), "request_headers")
			same(t, "call", h.results(m, "proxy_on_request_headers"), []string{tc.want})
		})
	}
}

func TestAllocatorThatNeedsMemory(t *testing.T) {
	// The allocator is not entered again by the host calls that it makes;
	// those that need no memory work.
	h := newHost(t)
	g, m := h.run(script{
		allocator: "malloc", allocate: []hostCall{call("get_property", "request\x00path"), call("get_log_level"), call("add_header_map_value", 0, "x", "y")},
		callbacks: calls{"proxy_on_request_headers": {call("get_property", "request\x00method")}},
	}, newServices())
	x := exchange()
	walk(t, must[abi.Stream](t)(g.Begin(x)), "request_headers")
	same(t, "outer", h.results(m, "proxy_on_request_headers"), []string{`0 "GET"`})
	same(t, "inner", h.results(m, "malloc"), []string{"6", "0 2", "0"})
	if g.depth != 0 {
		t.Errorf("depth %d after the callback", g.depth)
	}
}

func TestTrapsEndTheGuest(t *testing.T) {
	for name := range callbackTypes() {
		if !strings.HasPrefix(name, "proxy_on_") || name == "proxy_on_http_call_response" || name == "proxy_on_foreign_function" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.script = script{callbacks: calls{name: {trap()}}}.assemble()
			g, _, err := h.start(h.script.wasm, newServices())
			early := name == "proxy_on_vm_start" || name == "proxy_on_configure" || name == "proxy_on_context_create"
			if early {
				isTrap(t, "NewGuest", err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			s := must[abi.Stream](t)(g.Begin(exchange()))
			other := must[abi.Stream](t)(g.Begin(exchange()))
			first := func() error { return g.Tick() }
			if name != "proxy_on_tick" {
				first = func() error { return walkError(s) }
			}
			isTrap(t, "the callback", first())
			// Nothing of it runs again.
			h.called = nil
			isTrap(t, "another stream", walkError(other))
			isTrap(t, "its end", other.End())
			_, err = g.Begin(exchange())
			isTrap(t, "Begin", err)
			isTrap(t, "Tick", g.Tick())
			if len(h.called) != 0 {
				t.Errorf("callbacks after the trap: %v", h.called)
			}
		})
	}
}

// walkError runs all callbacks of s until one fails.
func walkError(s abi.Stream) error {
	for _, run := range []func() (abi.Action, error){
		s.RequestHeaders, s.RequestBody, s.RequestTrailers, s.ResponseHeaders, s.ResponseBody, s.ResponseTrailers,
	} {
		if _, err := run(); err != nil {
			return err
		}
	}
	return s.End()
}

func isTrap(t *testing.T, what string, err error) {
	t.Helper()
	if trap := (*abi.Trap)(nil); !errors.As(err, &trap) {
		t.Errorf("%s: got error %v, want a trap", what, err)
	}
}

func TestTrapInTheAllocator(t *testing.T) {
	h := newHost(t)
	g, _ := h.run(script{allocator: "malloc", allocate: []hostCall{trap()}, callbacks: calls{"proxy_on_request_headers": {call("get_property", "plugin_name")}}}, newServices())
	isTrap(t, "the callback", walkError(must[abi.Stream](t)(g.Begin(exchange()))))
	isTrap(t, "Tick", g.Tick())
}

func TestWokenThoughTheCallbackTrapped(t *testing.T) {
	// A stream that was resumed must not wait for ever because its rescuer
	// died after it.
	h, x := newHost(t), exchange()
	woken := 0
	x.Wake = func() { woken++ }
	h.answer = func(string, []uint32) uint32 { return 1 }
	g, _ := h.run(script{callbacks: calls{
		"proxy_on_request_headers": nil, "proxy_on_tick": {call("set_effective_context", 2), call("continue_stream", 0), trap()},
	}}, newServices())
	walk(t, must[abi.Stream](t)(g.Begin(x)), "request_headers")
	isTrap(t, "Tick", g.Tick())
	if woken != 1 {
		t.Errorf("woken %d times, want once", woken)
	}
}

func TestHostCallsAreCharged(t *testing.T) {
	h := newHost(t)
	g, m := h.run(script{allocator: "malloc", callbacks: calls{"proxy_on_request_headers": {
		call("get_header_map_value", 0, "accept"), call("get_log_level"), call("log", 2, strings.Repeat("x", 1000)), call("get_buffer_status", 7), call("grpc_cancel"),
		call("log", 2, nowhere()),
	}}}, newServices())
	m.calls, m.bytes = 0, 0
	g.debt = 1 << 20 // of another's callback
	walk(t, must[abi.Stream](t)(g.Begin(exchange())), "request_headers")
	if want := len("accept") + len("text/html") + 1000; m.calls != 6 || m.bytes != want {
		t.Errorf("charged %d calls and %d bytes, want 6 and %d", m.calls, m.bytes, want)
	}
}

func TestWorkOnLargeMapsIsCharged(t *testing.T) {
	// A clock is looked at after so many bytes: calls that work through many
	// fields must not pass for free.
	for _, c := range []hostCall{call("get_header_map_size", 0), call("add_header_map_value", 0, "a", "b"), call("set_header_map_pairs", 0, serialized(strings.Fields(strings.Repeat("a b ", 200))...))} {
		h, x := newHost(t), exchange()
		for i := range 500 {
			x.Request.Header[fmt.Sprintf("X-%d", i)] = []string{"v"}
		}
		s := newServices()
		s.fieldLimit = 1 << 20
		g, m := h.run(script{callbacks: calls{"proxy_on_request_headers": {c, call("get_log_level")}}}, s)
		m.bytes = 0
		walk(t, must[abi.Stream](t)(g.Begin(x)), "request_headers")
		if m.bytes < 50_000 {
			t.Errorf("%s: charged %d bytes, want 50000 or more", c.name, m.bytes)
		}
	}
}

func TestStormOfCallsEnds(t *testing.T) {
	h := newHost(t)
	g, m := h.run(script{callbacks: calls{"proxy_on_request_headers": {
		call("add_header_map_value", 0, "a", "1"), call("add_header_map_value", 0, "b", "2"), call("add_header_map_value", 0, "c", "3"),
	}}}, newServices())
	m.calls, m.budget = 0, 2
	x := exchange()
	_, err := must[abi.Stream](t)(g.Begin(x)).RequestHeaders()
	trap := new(abi.Trap)
	if !errors.As(err, &trap) || trap.Kind != "host-calls" {
		t.Errorf("got error %v, want a trap of host-calls", err)
	}
	if x.Request.Header.Get("B") != "2" || x.Request.Header.Get("C") != "" {
		t.Errorf("header %v, want the call over the budget not done", x.Request.Header)
	}
}

// inCallback makes a guest whose stream's callback phase seems to run, so that
// host functions can be called from Go.
func inCallback(t testing.TB, s *services, p phase) (*guest, *machine, *stream) {
	h := newHost(t)
	g, m := h.run(script{allocator: "malloc", callbacks: calls{"proxy_on_done": nil}}, s)
	begun, err := g.Begin(exchange())
	if err != nil {
		t.Fatal(err)
	}
	st := begun.(*stream)
	st.phase, g.effective, g.running, g.inCallback = p, st, st, true
	return g, m, st
}

func TestStormsLeaveLittle(t *testing.T) {
	s := newServices()
	g, m, st := inCallback(t, s, requestBody)
	mem := m.mod.Memory()
	// enter calls a function with strings at fixed places.
	enter := func(name string, stack ...uint64) uint32 {
		return hostFuncs()[name].enter(m.ctx, stack)
	}
	mem.WriteString(0x1000, "auth")
	header := serialized(":method", "GET", ":path", "/", ":authority", "a")
	mem.WriteString(0x2000, header)
	for i := range 5000 {
		name := fmt.Sprintf("x-%d", i)
		mem.WriteString(0x1100, name)
		enter("proxy_add_header_map_value", 0, 0x1100, uint64(len(name)), 0x1000, 4)
		enter("proxy_set_property", 0x1100, uint64(len(name)), 0x2000, 4000)
		enter("proxy_set_buffer_bytes", 0, 1<<31, 0, 0x4000, 4096)
		enter("proxy_http_call", 0x1000, 4, 0x2000, uint64(len(header)), 0, 0, 0, 0, 10, 0x3000)
		enter("proxy_continue_stream", 0)
		enter("proxy_done")
	}
	r := &st.x.Request
	if _, size := newFields(r, 0).sums(); size > s.fieldLimit {
		t.Errorf("header has %d bytes, want at most %d", size, s.fieldLimit)
	}
	if len(r.Body) > int(s.bodyLimit) {
		t.Errorf("content has %d bytes, want at most %d", len(r.Body), s.bodyLimit)
	}
	if len(s.sent) != 100 || len(g.calls) != 100 {
		t.Errorf("%d calls sent and %d waited for, want 100", len(s.sent), len(g.calls))
	}
	if len(g.woken)+len(g.waiting)+len(g.finished) != 0 {
		t.Error("streams are queued though none waits")
	}
}

func TestManyFieldsAreBounded(t *testing.T) {
	s := newServices()
	s.fieldLimit = 1 << 20
	_, m, st := inCallback(t, s, requestHeaders)
	add := hostFuncs()["proxy_add_header_map_value"]
	m.mod.Memory().WriteString(0x1000, "x")
	refused := 0
	for range 2 * maxFields {
		if add.enter(m.ctx, []uint64{0, 0x1000, 1, 0, 0}) == statusBadArgument {
			refused++
		}
	}
	if n := newFields(&st.x.Request, 0).count(); n != maxFields || refused == 0 {
		t.Errorf("%d fields, %d refused; want %d", n, refused, maxFields)
	}
	pairs := make([]pair, maxFields+1)
	for i := range pairs {
		pairs[i] = pair{"a", "b"}
	}
	b := appendPairs(nil, pairs)
	m.mod.Memory().Write(0x10000, b)
	if got := hostFuncs()["proxy_set_header_map_pairs"].enter(m.ctx, []uint64{0, 0x10000, uint64(len(b))}); got != statusBadArgument {
		t.Errorf("set %d pairs: status %d, want %d", len(pairs), got, statusBadArgument)
	}
}

// TestManyReplacedFieldsAreBounded has fields replaced that were not there.
func TestManyReplacedFieldsAreBounded(t *testing.T) {
	s := newServices()
	s.fieldLimit = 1 << 20
	_, m, st := inCallback(t, s, requestHeaders)
	replace := hostFuncs()["proxy_replace_header_map_value"]
	set := func(name, value string) uint32 {
		m.mod.Memory().WriteString(0x1000, name)
		m.mod.Memory().WriteString(0x2000, value)
		return replace.enter(m.ctx, []uint64{0, 0x1000, uint64(len(name)), 0x2000, uint64(len(value))})
	}
	refused := 0
	for i := range 2 * maxFields {
		if set(fmt.Sprint("x-", i), "") == statusBadArgument {
			refused++
		}
	}
	if n := newFields(&st.x.Request, 0).count(); n != maxFields || refused == 0 {
		t.Errorf("%d fields, %d refused; want %d", n, refused, maxFields)
	}
	for _, name := range []string{"x-0", "host", ":path"} {
		if got := set(name, "/other"[len("/")*int(flag(name == "host")):]); got != statusOK {
			t.Errorf("a field that is there, %s: status %d, want %d", name, got, statusOK)
		}
	}
}

func TestUpperHalvesAreIgnored(t *testing.T) {
	_, m, _ := inCallback(t, newServices(), requestHeaders)
	m.mod.Memory().WriteString(0x1000, "accept")
	const garbage = 0xdeadbeef << 32
	stack := []uint64{garbage, garbage | 0x1000, garbage | 6, garbage | 0x1100, garbage | 0x1104}
	if got := hostFuncs()["proxy_get_header_map_value"].enter(m.ctx, stack); got != statusOK {
		t.Fatalf("status %d, want OK", got)
	}
	p, _ := m.mod.Memory().ReadUint32Le(0x1100)
	if got, _ := m.mod.Memory().Read(p, 9); string(got) != "text/html" {
		t.Errorf("got %q, want text/html", got)
	}
}

func TestCallsBeforeThereIsAGuest(t *testing.T) {
	m := &machine{}
	c := &abi.Context{Machine: m}
	for name, f := range hostFuncs() {
		if got := f.enter(c, make([]uint64, 16)); got != statusInternalFailure {
			t.Errorf("%s: status %d, want %d", name, got, statusInternalFailure)
		}
	}
	if m.calls != len(hostFuncs()) {
		t.Errorf("%d calls charged, want %d", m.calls, len(hostFuncs()))
	}
}

// valid reports what is wrong with an exchange after a guest had it.
func valid(x *abi.Exchange, s *services) error {
	for _, m := range []*abi.Message{&x.Request, &x.Response} {
		for _, h := range []http.Header{m.Header, m.Trailer} {
			for name, values := range h {
				if !httpguts.ValidHeaderFieldName(name) || name != http.CanonicalHeaderKey(name) {
					return fmt.Errorf("field name %q", name)
				}
				for _, v := range values {
					if !httpguts.ValidHeaderFieldValue(v) {
						return fmt.Errorf("value %q of %s", v, name)
					}
				}
			}
		}
		if len(m.Body) > int(s.bodyLimit) {
			return fmt.Errorf("content of %d bytes", len(m.Body))
		}
	}
	r := &x.Request
	if !validTarget(r.Target) || !validAuthority(r.Authority) || r.Method == "" || r.Scheme != "http" && r.Scheme != "https" {
		return fmt.Errorf("request line %q %q %q %q", r.Method, r.Scheme, r.Authority, r.Target)
	}
	if !validStatus(uint64(x.Response.Status)) {
		return fmt.Errorf("status %d", x.Response.Status)
	}
	return nil
}

// garble makes host calls of random functions in all phases, with arguments
// taken from data; many of them are likely addresses.
func garble(t testing.TB, g *guest, m *machine, st *stream, data []byte) {
	names := make([]string, 0, len(hostFuncs()))
	for name := range hostFuncs() {
		names = append(names, name)
	}
	slices.Sort(names)
	funcs, stack := hostFuncs(), make([]uint64, 16)
	next := func() uint64 {
		if len(data) < 9 {
			data = nil
			return 0
		}
		v := binary.LittleEndian.Uint64(data[1:])
		switch data[0] % 4 {
		case 0:
			v %= 8 // numbers of maps and the like, short lengths
		case 1:
			v = v&^0xffffffff | v%(4<<20+16) // in or just out of memory
		case 2:
			v = v&^0xffffffff | 0x1000 + v%64
		}
		data = data[9:]
		return v
	}
	for len(data) > 0 {
		name := names[int(data[0])%len(names)]
		data = data[1:]
		st.phase = phase(next() % uint64(ending+1))
		if st.x == nil {
			t.Fatal("the stream ended in a host call")
		}
		g.effective, g.running, g.inCallback = st, st, true
		for i := range stack {
			stack[i] = next()
		}
		status := funcs[name].enter(m.ctx, stack)
		if g.depth != 0 || g.allocating {
			t.Fatalf("%s: depth %d, allocating %v", name, g.depth, g.allocating)
		}
		if status > statusUnimplemented {
			t.Fatalf("%s%v: status %d", name, stack, status)
		}
	}
}

func seedMemory(m api.Memory) {
	m.WriteString(0x1000, "accept:path/x\x00request\x00pathhost GETPOST\r\n\x00"+serialized("a", "b", ":path", "/y"))
}

func TestGarbageArguments(t *testing.T) {
	s := newServices()
	g, m, st := inCallback(t, s, requestHeaders)
	seedMemory(m.mod.Memory())
	rnd := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, 1<<20)
	for range 2 {
		for i := range data {
			data[i] = byte(rnd.Uint32())
		}
		garble(t, g, m, st, data)
		if err := valid(st.x, s); err != nil {
			t.Fatal(err)
		}
	}
}

func FuzzHostCalls(f *testing.F) {
	f.Add([]byte("\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09"))
	f.Add(slices.Repeat([]byte{7, 2, 0, 0, 0, 0, 0, 0, 0}, 40))
	s := newServices()
	g, m, st := inCallback(f, s, requestHeaders)
	f.Fuzz(func(t *testing.T, data []byte) {
		seedMemory(m.mod.Memory())
		st.x, st.stopped, st.answered, st.passed = exchange(), [2]bool{}, false, [2]bool{}
		clear(g.calls)
		s.sent, s.deliver, s.lines, s.metrics, s.kinds = nil, nil, nil, nil, nil
		g.woken, g.finished = nil, nil
		garble(t, g, m, st, data)
		if err := valid(st.x, s); err != nil {
			t.Fatal(err)
		}
	})
}
