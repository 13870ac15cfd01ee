package proxywasm

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"seawall/wasm/abi"

	"github.com/tetratelabs/wazero/api"
)

// rootID is the context of the plugin itself; streams have later ones.
const rootID = 1

// Bounds of what guests leave behind.
const (
	// maxWaiting is how many ended streams of a guest may wait for
	// proxy_done, maxWait how long: then they are told to go.
	maxWaiting = 256
	maxWait    = 30 * time.Second
	// maxCalls is how many HTTP calls of a guest are remembered until their
	// reply comes.
	maxCalls = 1024
)

// guest is one machine that speaks proxy-wasm. It is used with the machine's
// lock held.
type guest struct {
	machine  abi.Machine
	services abi.Services
	memory   api.Memory
	exports  exports
	wants    abi.Wants // of each stream
	tick     time.Duration
	period   time.Duration // tick after the start

	lastID  uint32
	streams streams
	spare   *stream // one that has ended

	// effective is the context that host calls act for, nil is the root's;
	// running has the one whose callback runs.
	effective, running *stream
	inCallback         bool
	starting           bool // proxy_on_vm_start runs
	// failed is why the machine must not be used again.
	failed error

	// waiting have ended but not yet been let go by proxy_done, the oldest
	// first; finished have, in the callback that runs.
	waiting, finished []*stream
	// woken were resumed or stopped by the callback that runs, which is not
	// their own.
	woken []*stream

	calls    map[uint32]bool
	lastCall uint32
	reply    *abi.HTTPReply // while proxy_on_http_call_response runs
	foreign  []byte         // arguments, while proxy_on_foreign_function runs

	// Scratch space, so that calls do not allocate. A guest's allocator may
	// itself make a host call: that is the second frame.
	stack      [5]uint64
	one        [1]uint64
	frames     [3]frame
	depth      int
	allocating bool
	// debt has bytes copied to the guest, and other work, that the next call
	// is charged for.
	debt int

	names map[string]*known
	sum   sum
}

// exports are the functions of a guest. They are resolved once: looking one up
// costs more than calling it.
type exports struct {
	allocate callback

	contextCreate, vmStart, configure, tick, done, log, delete callback

	requestHeaders, requestBody, requestTrailers    callback
	responseHeaders, responseBody, responseTrailers callback

	httpCallResponse, foreignFunction callback
}

// callback is an exported function; without f there is none.
type callback struct {
	f      api.Function
	params int
	result bool
}

// some reports whether the guest has it.
func (c callback) some() bool { return c.f != nil }

// NewGuest starts and configures the machine. An error that is no *abi.Trap
// says what the module lacks or that it refused its configuration.
func (p *proxyABI) NewGuest(m abi.Machine, s abi.Services) (abi.Guest, error) {
	g := &guest{
		machine: m, services: s,
		memory: m.Module().Memory(),
		calls:  make(map[uint32]bool),
		lastID: rootID,
	}
	if g.memory == nil {
		return nil, errors.New("proxywasm: the module has no memory")
	}
	if err := g.resolve(m.Module()); err != nil {
		return nil, err
	}
	if h, ok := m.(abi.Holder); ok {
		h.SetGuest(g)
	}
	if err := g.start(m.Module()); err != nil {
		return nil, err
	}
	g.period = g.tick
	return g, nil
}

// resolve looks the exports up and checks their parameters. A result of i32
// may be there or not: not is CONTINUE, or true.
func (g *guest) resolve(m api.Module) error {
	e := &g.exports
	for _, x := range []struct {
		name   string
		params []int // how many, all i32
		c      *callback
	}{
		{"malloc", []int{1}, &e.allocate},
		{"proxy_on_memory_allocate", []int{1}, &e.allocate},
		{"proxy_on_context_create", []int{2}, &e.contextCreate},
		{"proxy_on_vm_start", []int{2}, &e.vmStart},
		{"proxy_on_configure", []int{2}, &e.configure},
		{"proxy_on_tick", []int{1}, &e.tick},
		{"proxy_on_done", []int{1}, &e.done},
		{"proxy_on_log", []int{1}, &e.log},
		{"proxy_on_delete", []int{1}, &e.delete},
		// 0.1.0 has no end of stream.
		{"proxy_on_request_headers", []int{2, 3}, &e.requestHeaders},
		{"proxy_on_request_body", []int{3}, &e.requestBody},
		{"proxy_on_request_trailers", []int{2}, &e.requestTrailers},
		{"proxy_on_response_headers", []int{2, 3}, &e.responseHeaders},
		{"proxy_on_response_body", []int{3}, &e.responseBody},
		{"proxy_on_response_trailers", []int{2}, &e.responseTrailers},
		{"proxy_on_http_call_response", []int{5}, &e.httpCallResponse},
		{"proxy_on_foreign_function", []int{3}, &e.foreignFunction},
	} {
		c, err := export(m, x.name, x.params)
		if err != nil {
			return err
		}
		if c.some() {
			*x.c = c
		}
	}
	g.wants = e.wants()
	if a := e.allocate; a.some() && !a.result {
		return errors.New("proxywasm: the module's allocator has no result")
	}
	return nil
}

// export returns the function of that name, which must have one of params
// parameters, all i32, and no result but an i32.
func export(m api.Module, name string, params []int) (callback, error) {
	f := m.ExportedFunction(name)
	if f == nil {
		return callback{}, nil
	}
	d := f.Definition()
	c := callback{f, len(d.ParamTypes()), len(d.ResultTypes()) > 0}
	notI32 := func(t api.ValueType) bool { return t != api.ValueTypeI32 }
	if !slices.Contains(params, c.params) || len(d.ResultTypes()) > 1 ||
		slices.ContainsFunc(d.ParamTypes(), notI32) || slices.ContainsFunc(d.ResultTypes(), notI32) {
		return callback{}, fmt.Errorf("proxywasm: the module exports %s as %s, which the ABI calls with %v parameters of i32",
			name, signature(d.ParamTypes(), d.ResultTypes()), params)
	}
	return c, nil
}

// start initializes the module's language runtime, then makes and configures
// the root context.
func (g *guest) start(m api.Module) error {
	if err := g.initialize(m); err != nil {
		return err
	}
	if _, err := g.invoke(nil, g.exports.contextCreate, rootID, 0); err != nil {
		return err
	}
	g.starting = true
	ok, err := g.ask(nil, g.exports.vmStart, rootID, uint64(len(g.services.VMConfig())))
	g.starting = false
	if err != nil {
		return err
	}
	if !ok {
		return errors.New("proxywasm: the module refused to start (proxy_on_vm_start returned false)")
	}
	ok, err = g.ask(nil, g.exports.configure, rootID, uint64(len(g.services.Config())))
	if err != nil {
		return err
	}
	if !ok {
		return errors.New("proxywasm: the module refused its configuration (proxy_on_configure returned false)")
	}
	return nil
}

// initialize runs a reactor's _initialize, then its main if it has one; or a
// command's _start, which older SDKs return from with their state kept.
func (g *guest) initialize(m api.Module) error {
	if m.ExportedFunction("_initialize") == nil {
		return g.runStart(m, "_start", 0)
	}
	if err := g.runStart(m, "_initialize", 0); err != nil {
		return err
	}
	return g.runStart(m, "main", 2)
}

func (g *guest) runStart(m api.Module, name string, params int) error {
	c, err := export(m, name, []int{params})
	if err != nil {
		return err
	}
	_, err = g.invoke(nil, c, make([]uint64, params)...)
	return err
}

// ask is invoke for callbacks that answer yes or no; yes when there is none.
func (g *guest) ask(s *stream, c callback, args ...uint64) (bool, error) {
	r, err := g.invoke(s, c, args...)
	return r != 0 || !c.result, err
}

// invoke runs a callback for s, nil the root, and returns its result: 0 when
// it has none or there is no such callback. Then it does what host calls of
// the callback have put off.
func (g *guest) invoke(s *stream, c callback, args ...uint64) (uint32, error) {
	if g.failed != nil {
		return 0, g.failed
	}
	if !c.some() {
		return 0, nil
	}
	if g.inCallback {
		// A service delivered from within a host call; the guest is not
		// reentrant.
		return 0, &abi.Trap{Kind: "panic", Err: errors.New("proxywasm: callback within a callback")}
	}
	copy(g.stack[:], args)
	g.inCallback, g.effective, g.running, g.debt = true, s, s, 0
	err := g.machine.Call(c.f, g.stack[:max(len(args), 1)])
	g.inCallback, g.effective, g.running, g.sum = false, nil, nil, sum{}
	var result uint32
	if err != nil {
		g.failed = err
	} else if c.result {
		result = uint32(g.stack[0])
	}
	g.wake()
	if err == nil {
		err = g.letGo()
	}
	return result, err
}

// wake tells the owners of streams that another context's callback resumed,
// answered or closed. After it nobody but they touches the exchange.
func (g *guest) wake() {
	woken := g.woken
	g.woken = nil
	for _, s := range woken {
		s.paused = false
		for side, resumed := range s.resumed {
			s.passed[side] = s.passed[side] || resumed
		}
		if s.x != nil && s.x.Wake != nil {
			s.x.Wake()
		}
	}
}

// letGo runs the final callbacks of streams that proxy_done released.
func (g *guest) letGo() error {
	for len(g.finished) > 0 {
		s := g.finished[0]
		g.finished = g.finished[1:]
		if err := s.finish(); err != nil {
			return err
		}
	}
	return nil
}

// dismiss lets the streams go that have waited for proxy_done too long, or
// too many.
func (g *guest) dismiss() error {
	for len(g.waiting) > 0 && (len(g.waiting) > maxWaiting || time.Since(g.waiting[0].ended) > maxWait) {
		s := g.waiting[0]
		g.waiting = g.waiting[1:]
		if err := s.finish(); err != nil {
			return err
		}
	}
	return nil
}

// allocate asks the guest for n bytes of its memory; 0 is none. An allocator
// that makes a host call in need of memory gets none: its function cannot be
// entered twice.
func (g *guest) allocate(n int) uint32 {
	if !g.exports.allocate.some() || g.allocating {
		return 0
	}
	g.allocating = true
	g.one[0] = uint64(uint32(n))
	if err := g.machine.Call(g.exports.allocate.f, g.one[:]); err != nil {
		panic(err) // unwinds the guest's callback, too
	}
	g.allocating = false
	return uint32(g.one[0])
}

// Begin makes a context for x. The guest's maps, buffers and properties of
// this context are those of x until the stream's End; x is touched only while
// one of the stream's callbacks runs or the stream is paused.
func (g *guest) Begin(x *abi.Exchange) (abi.Stream, error) {
	if err := g.dismiss(); err != nil {
		return nil, err
	}
	for {
		g.lastID++
		if g.lastID > rootID && g.streams.of(g.lastID) == nil {
			break
		}
	}
	s := g.spare
	if s == nil {
		s = new(stream)
	}
	g.spare = nil
	*s = stream{g: g, id: g.lastID, x: x}
	g.streams.add(s)
	if _, err := g.invoke(s, g.exports.contextCreate, uint64(s.id), rootID); err != nil {
		return nil, err
	}
	return s, nil
}

// Idle reports whether streams begin, and their requests pass, without any of
// the guest's code.
func (g *guest) Idle() bool {
	e := &g.exports
	return !e.contextCreate.some() && !e.requestHeaders.some() && !e.requestBody.some() && !e.requestTrailers.some() && !e.done.some()
}

// Tick runs proxy_on_tick.
func (g *guest) Tick() error {
	if err := g.dismiss(); err != nil {
		return err
	}
	_, err := g.invoke(nil, g.exports.tick, rootID)
	return err
}

func (g *guest) TickPeriod() time.Duration {
	if !g.exports.tick.some() {
		return 0
	}
	return g.tick
}

// Reset forgets all streams and calls under way: for owners that put the
// guest's memory back to what it was after NewGuest. Replies to the forgotten
// calls are dropped.
func (g *guest) Reset() {
	g.streams.forget()
	clear(g.calls)
	g.waiting, g.finished, g.woken = nil, nil, nil
	g.tick = g.period
}

// ForeignFunction runs proxy_on_foreign_function, for functions of the node
// that call back; args are in buffer 8 meanwhile.
func (g *guest) ForeignFunction(function uint32, args []byte) error {
	g.foreign = args
	_, err := g.invoke(nil, g.exports.foreignFunction, rootID, uint64(function), uint64(len(args)))
	g.foreign = nil
	return err
}
