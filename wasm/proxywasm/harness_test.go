package proxywasm

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"seawall/wasm/abi"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
)

// machine is an abi.Machine without a budget, except where a test gives one.
type machine struct {
	mod    api.Module
	ctx    *abi.Context
	calls  int // host calls made
	bytes  int // that they copied
	budget int // host calls allowed; 0 is any
}

func (m *machine) Module() api.Module   { return m.mod }
func (m *machine) SetGuest(g abi.Guest) { m.ctx.Guest = g }
func (m *machine) Call(f api.Function, stack []uint64) error {
	err := f.CallWithStack(m.ctx, stack)
	if err == nil {
		return nil
	}
	if t := (*abi.Trap)(nil); errors.As(err, &t) {
		return t
	}
	return &abi.Trap{Kind: "unreachable", Err: err}
}

func (m *machine) Spend(n int) error {
	m.calls++
	m.bytes += n
	if m.budget > 0 && m.calls > m.budget {
		return &abi.Trap{Kind: "host-calls"}
	}
	return nil
}

// services are those of one function, in memory.
type services struct {
	config, vmConfig []byte
	level            abi.Level
	lines            []string
	shared           map[string]sharedValue
	metrics          []uint64
	kinds            []abi.MetricKind
	sent             []*abi.HTTPCall
	deliver          []func(*abi.HTTPReply) error
	bodyLimit        int64
	fieldLimit       int
}

type sharedValue struct {
	value []byte
	cas   uint32
}

func newServices() *services {
	return &services{
		config: []byte("plugin config"), vmConfig: []byte("vm"), level: abi.Info,
		shared: make(map[string]sharedValue), bodyLimit: 1 << 16, fieldLimit: 4096,
	}
}

func (s *services) Name() string              { return "probe" }
func (s *services) Config() []byte            { return s.config }
func (s *services) VMConfig() []byte          { return s.vmConfig }
func (s *services) LogLevel() abi.Level       { return s.level }
func (s *services) BodyLimit() int64          { return s.bodyLimit }
func (s *services) FieldLimit() int           { return s.fieldLimit }
func (s *services) Log(l abi.Level, t string) { s.lines = append(s.lines, fmt.Sprintf("%d %s", l, t)) }

func (s *services) HTTPCall(_ abi.Machine, c *abi.HTTPCall, deliver func(*abi.HTTPReply) error) error {
	switch {
	case c.Upstream != "auth":
		return abi.ErrArgument
	case len(s.sent) >= 100:
		return abi.ErrLimit
	}
	s.sent = append(s.sent, c)
	s.deliver = append(s.deliver, deliver)
	return nil
}

func (s *services) Foreign(x *abi.Exchange, name string, args []byte) ([]byte, error) {
	switch name {
	case "echo":
		return append([]byte("echo "), args...), nil
	case "method":
		if x == nil {
			return nil, abi.ErrArgument
		}
		return []byte(x.Request.Method), nil
	case "broken":
		return nil, errors.New("secret of the node")
	}
	return nil, abi.ErrNotFound
}

func (s *services) SharedGet(key string) ([]byte, uint32, bool) {
	v, ok := s.shared[key]
	return v.value, v.cas, ok
}

func (s *services) SharedSet(key string, value []byte, cas uint32) error {
	old := s.shared[key]
	if cas != 0 && cas != old.cas {
		return abi.ErrCASMismatch
	}
	if len(s.shared) > 10 {
		return abi.ErrLimit
	}
	s.shared[key] = sharedValue{value, old.cas + 1}
	return nil
}

func (s *services) MetricDefine(kind abi.MetricKind, name string) (uint32, error) {
	if strings.Contains(name, " ") {
		return 0, abi.ErrArgument
	}
	s.metrics, s.kinds = append(s.metrics, 0), append(s.kinds, kind)
	return uint32(len(s.metrics)), nil
}

func (s *services) metric(id uint32) (*uint64, error) {
	if id == 0 || int(id) > len(s.metrics) {
		return nil, abi.ErrNotFound
	}
	return &s.metrics[id-1], nil
}

func (s *services) MetricAdd(id uint32, delta int64) error {
	m, err := s.metric(id)
	if err != nil {
		return err
	}
	if s.kinds[id-1] == abi.Histogram {
		return abi.ErrArgument
	}
	*m += uint64(delta)
	return nil
}

func (s *services) MetricSet(id uint32, value uint64) error {
	m, err := s.metric(id)
	if err == nil {
		*m = value
	}
	return err
}

func (s *services) MetricGet(id uint32) (uint64, error) {
	m, err := s.metric(id)
	if err != nil {
		return 0, err
	}
	return *m, nil
}

// host runs guests of one test.
type host struct {
	t       testing.TB
	runtime wazero.Runtime
	abi     abi.ABI
	// compiled has modules by their first byte.
	compiled map[*byte]wazero.CompiledModule
	// answer gives what a callback of a script returns; nil is success.
	answer func(callback string, args []uint32) uint32
	// called has the callbacks of scripts as they came, unless mute.
	called []string
	mute   bool
	script assembled
	// lines and outcomes are the probe's script and what it made of it.
	lines    string
	outcomes []string
}

func newHost(t testing.TB) *host {
	ctx := context.Background()
	h := &host{t: t, runtime: wazero.NewRuntime(ctx), abi: New(), compiled: make(map[*byte]wazero.CompiledModule)}
	t.Cleanup(func() { h.runtime.Close(ctx) })
	for _, name := range []string{"wasi_snapshot_preview1", "wasi_unstable"} {
		b := h.runtime.NewHostModuleBuilder(name)
		wasi_snapshot_preview1.NewFunctionExporter().ExportFunctions(b)
		if _, err := b.Instantiate(ctx); err != nil {
			t.Fatal(err)
		}
	}
	two := make32(2)
	_, err := h.runtime.NewHostModuleBuilder("test").
		NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(h.note), make32(noted), make32(1)).Export("note").
		NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(h.passScript), two, make32(1)).Export("script").
		NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(h.takeResult), two, nil).Export("result").
		Instantiate(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// note records a script's callback and says what it returns.
func (h *host) note(_ context.Context, _ api.Module, stack []uint64) {
	name := h.script.callbacks[uint32(stack[0])]
	if h.mute {
		stack[0] = 1
		return
	}
	args := make([]uint32, callbackTypes()[name][0]-'0')
	for i := range args {
		args[i] = uint32(stack[i+1])
	}
	h.called = append(h.called, strings.TrimPrefix(name, "proxy_on_")+strings.ReplaceAll(fmt.Sprint(args), " ", ","))
	stack[0] = 0
	switch {
	case h.answer != nil:
		stack[0] = uint64(h.answer(name, args))
	case name == "proxy_on_vm_start" || name == "proxy_on_configure" || name == "proxy_on_done":
		stack[0] = 1
	}
}

// instantiate links and instantiates a module as package wasm does.
func (h *host) instantiate(wasm []byte) (*machine, error) {
	ctx := context.Background()
	compiled := h.compiled[&wasm[0]]
	if compiled == nil {
		var err error
		if compiled, err = h.runtime.CompileModule(ctx, wasm); err != nil {
			h.t.Fatal(err)
		}
		h.compiled[&wasm[0]] = compiled
	}
	var imports []abi.Import
	for _, f := range compiled.ImportedFunctions() {
		module, name, _ := f.Import()
		if module != "test" {
			imports = append(imports, abi.Import{Module: module, Name: name, Params: f.ParamTypes(), Results: f.ResultTypes()})
		}
	}
	exports := make(map[string]bool)
	for name := range compiled.ExportedFunctions() {
		exports[name] = true
	}
	if !h.abi.Detect(exports) {
		return nil, errors.New("not detected")
	}
	if refused := h.abi.Check(imports); refused != nil {
		return nil, errors.New(strings.Join(refused, "\n"))
	}
	links, err := h.abi.Link(ctx, h.runtime, imports)
	if err != nil {
		return nil, err
	}
	ctx = experimental.WithImportResolver(ctx, func(name string) api.Module { return links[name] })
	mod, err := h.runtime.InstantiateModule(ctx, compiled, wazero.NewModuleConfig().WithName("").WithStartFunctions().WithSysWalltime())
	if err != nil {
		return nil, err
	}
	h.t.Cleanup(func() { mod.Close(ctx) })
	m := &machine{mod: mod}
	m.ctx = &abi.Context{Context: context.Background(), Machine: m}
	return m, nil
}

// start makes a guest of a module.
func (h *host) start(wasm []byte, s *services) (*guest, *machine, error) {
	m, err := h.instantiate(wasm)
	if err != nil {
		return nil, nil, err
	}
	m.ctx.Services = s
	g, err := h.abi.NewGuest(m, s)
	if err != nil {
		return nil, m, err
	}
	return g.(*guest), m, nil
}

// run makes a guest of a script; it must start.
func (h *host) run(sc script, s *services) (*guest, *machine) {
	h.t.Helper()
	h.script = sc.assemble()
	g, m, err := h.start(h.script.wasm, s)
	if err != nil {
		h.t.Fatalf("start: %v", err)
	}
	return g, m
}

// results reads what the host calls of a callback returned, each as its status
// and, when that is OK, its outputs.
func (h *host) results(m *machine, callback string) []string {
	var all []string
	for _, r := range h.script.records[callback] {
		all = append(all, r.read(m.mod.Memory()))
	}
	return all
}

func (r record) read(m api.Memory) string {
	u32 := func(p uint32) uint32 {
		v, ok := m.ReadUint32Le(p)
		if !ok {
			panic("the script's memory ended")
		}
		return v
	}
	status := u32(r.status)
	text, out := fmt.Sprint(status), r.out
	for _, kind := range r.shape {
		if status != statusOK || len(out) == 0 {
			break
		}
		switch kind {
		case '4':
			text += fmt.Sprintf(" %d", u32(out[0]))
			out = out[1:]
		case '8':
			v, _ := m.ReadUint64Le(out[0])
			text += fmt.Sprintf(" %d", v)
			out = out[1:]
		case 'd':
			b, ok := m.Read(u32(out[0]), u32(out[1]))
			if !ok {
				panic("bytes given out of memory")
			}
			text += fmt.Sprintf(" %q", b)
			out = out[2:]
		}
	}
	return text
}

// exchange is a request with a response as the tests begin with.
func exchange() *abi.Exchange {
	return &abi.Exchange{
		Request: abi.Message{
			Method: "GET", Scheme: "https", Authority: "example.org", Target: "/a?b=c",
			Header: http.Header{"Accept": {"text/html"}, "X-Two": append(make([]string, 0, 4), "1", "2")},
			Body:   []byte("question"), Ended: true,
		},
		Response: abi.Message{
			Status: 200, Header: http.Header{"Content-Type": {"text/plain"}, "Set-Cookie": {"a=1"}},
			Body: []byte("answer"), Ended: true,
		},
		Facts: abi.Facts{ID: "r1", Source: "192.0.2.1:1234", Protocol: "HTTP/2"},
	}
}

// must returns v of a stream's callback that is not to fail.
func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatalf("callback: %v", err)
		}
		return v
	}
}

func same(t testing.TB, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: got\n\t%v\nwant\n\t%v", what, got, want)
	}
}

// serialized is a map as guests pass it.
func serialized(namesAndValues ...string) string {
	var pairs []pair
	for i := 0; i < len(namesAndValues); i += 2 {
		pairs = append(pairs, pair{namesAndValues[i], namesAndValues[i+1]})
	}
	return string(appendPairs(nil, pairs))
}
