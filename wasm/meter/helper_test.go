package meter

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
)

// features are what a host enables for rewritten modules.
const features = api.CoreFeaturesV2 | experimental.CoreFeaturesTailCall | experimental.CoreFeaturesExtendedConst | experimental.CoreFeaturesThreads

// code joins opcodes and operands: an int is a byte, a []byte stands as it is.
func code(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch p := p.(type) {
		case int:
			b = append(b, byte(p))
		case []byte:
			b = append(b, p...)
		case ValueType:
			b = append(b, byte(p))
		default:
			panic(fmt.Sprintf("%T in code", p))
		}
	}
	return b
}

func u(v int) []byte      { return appendU32(nil, uint32(v)) }
func i32c(v int) []byte   { return appendS64([]byte{opI32Const}, int64(int32(v))) }
func i64c(v int64) []byte { return appendS64([]byte{opI64Const}, v) }
func get(l int) []byte    { return append([]byte{opLocalGet}, u(l)...) }
func set(l int) []byte    { return append([]byte{opLocalSet}, u(l)...) }
func callTo(f int) []byte { return append([]byte{opCall}, u(f)...) }
func repeat(n int, b []byte) []byte {
	return []byte(strings.Repeat(string(b), n))
}

// fn is a function of a module under test; a named one is exported.
type fn struct {
	name    string
	params  []ValueType
	results []ValueType
	locals  []ValueType
	code    []byte // without its end
}

// mod is a module under test.
type mod struct {
	imports [][]byte // whole items behind functions
	hosts   []fn     // imported functions: env.name
	types   []funcType
	funcs   []fn
	tables  [][]byte
	memory  []byte // limits
	tags    [][]byte
	globals [][]byte
	exports [][]byte
	start   int // function index and one
	elems   [][]byte
	data    [][]byte
	counted bool // a data count section
	custom  []byte
}

// typ returns the index of a type, added if need be.
func (m *mod) typ(params, results []ValueType) int {
	key := string(appendTypes(nil, funcType{params, results}))
	for i, t := range m.types {
		if string(appendTypes(nil, t)) == key {
			return i
		}
	}
	m.types = append(m.types, funcType{params, results})
	return len(m.types) - 1
}

func items(list [][]byte) []byte {
	b := u(len(list))
	for _, l := range list {
		b = append(b, l...)
	}
	return b
}

func (m *mod) bytes() []byte {
	var imports, funcs, exports, bodies, types [][]byte
	for _, h := range m.hosts {
		imports = append(imports, code(appendName(nil, "env"), appendName(nil, h.name), 0, u(m.typ(h.params, h.results))))
	}
	imports = append(imports, m.imports...)
	for i, f := range m.funcs {
		funcs = append(funcs, u(m.typ(f.params, f.results)))
		if f.name != "" {
			exports = append(exports, code(appendName(nil, f.name), 0, u(len(m.hosts)+i)))
		}
		var locals [][]byte
		for _, l := range f.locals {
			locals = append(locals, []byte{1, byte(l)})
		}
		bodies = append(bodies, sized(nil, func(b []byte) []byte { return append(append(append(b, items(locals)...), f.code...), opEnd) }))
	}
	if m.memory != nil {
		exports = append(exports, code(appendName(nil, "memory"), 2, 0))
	}
	for _, t := range m.types {
		types = append(types, appendTypes(nil, t))
	}
	b := []byte("\x00asm\x01\x00\x00\x00")
	add := func(id int, content []byte, used bool) {
		if used {
			b = sized(append(b, byte(id)), func(b []byte) []byte { return append(b, content...) })
		}
	}
	add(secType, items(types), len(types) > 0)
	add(secImport, items(imports), len(imports) > 0)
	add(secFunction, items(funcs), len(funcs) > 0)
	add(secTable, items(m.tables), len(m.tables) > 0)
	add(secMemory, code(1, m.memory), m.memory != nil)
	add(secTag, items(m.tags), len(m.tags) > 0)
	add(secGlobal, items(m.globals), len(m.globals) > 0)
	add(secExport, items(append(exports, m.exports...)), len(exports)+len(m.exports) > 0)
	add(secStart, u(m.start-1), m.start > 0)
	add(secElement, items(m.elems), len(m.elems) > 0)
	add(secDataCount, u(len(m.data)), m.counted)
	add(secCode, items(bodies), len(bodies) > 0)
	add(secData, items(m.data), len(m.data) > 0)
	add(secCustom, m.custom, m.custom != nil)
	return b
}

// errStopped is what the test's host panics with when fuel runs out.
var errStopped = errors.New("out of fuel")

// stage runs modules, metered or not, with stubs for what they import.
type stage struct {
	t       testing.TB
	rt      wazero.Runtime
	slices  int   // how often fuel is added before the guest is stopped
	used    int   // how often it was
	slice   int64 // what it adds
	yields  int
	lowest  int64  // the deepest debt seen
	calls   uint64 // hash of the calls of imported functions
	defined map[string]bool
}

func newStage(t testing.TB) *stage {
	s := &stage{t: t, slice: 100_000, slices: 100, defined: map[string]bool{}}
	s.rt = wazero.NewRuntimeWithConfig(context.Background(), wazero.NewRuntimeConfig().WithCoreFeatures(features).WithMemoryLimitPages(1<<14))
	t.Cleanup(func() { s.rt.Close(context.Background()) })
	s.define(ImportModule, []Import{{Module: ImportModule, Name: Yield}})
	return s
}

func (s *stage) define(module string, imports []Import) {
	if s.defined[module] {
		return
	}
	s.defined[module] = true
	b, done := s.rt.NewHostModuleBuilder(module), map[string]bool{}
	for _, i := range imports {
		if i.Module != module || done[i.Name] {
			continue
		}
		done[i.Name] = true
		f := s.stub(i)
		if module == ImportModule {
			f = s.yield
		}
		b.NewFunctionBuilder().WithGoModuleFunction(f, valueKinds(i.Params), valueKinds(i.Results)).Export(i.Name)
	}
	if _, err := b.Instantiate(context.Background()); err != nil {
		s.t.Fatalf("host module %q: %v", module, err)
	}
}

func valueKinds(ts []ValueType) []api.ValueType {
	var out []api.ValueType
	for _, t := range ts {
		out = append(out, api.ValueType(t))
	}
	return out
}

// stub notes the call and its arguments and returns zeros.
func (s *stage) stub(i Import) api.GoModuleFunc {
	return func(_ context.Context, _ api.Module, stack []uint64) {
		h := fnv.New64a()
		fmt.Fprint(h, s.calls, i.Module, i.Name)
		for n, p := range i.Params {
			if p == I32 || p == F32 {
				fmt.Fprint(h, uint32(stack[n]))
			} else if p.number() {
				fmt.Fprint(h, stack[n])
			}
		}
		s.calls = h.Sum64()
		clear(stack[:len(i.Results)])
	}
}

func (s *stage) yield(_ context.Context, m api.Module, _ []uint64) {
	s.yields++
	g := m.ExportedGlobal(FuelGlobal).(api.MutableGlobal)
	s.lowest = min(s.lowest, int64(g.Get()))
	for fuel := int64(g.Get()); fuel < 0; fuel += s.slice {
		if s.used++; s.used > s.slices {
			panic(errStopped)
		}
		g.Set(uint64(fuel + s.slice))
	}
}

// instance returns a module instance, its start function not run.
func (s *stage) instance(wasm []byte) (api.Module, error) {
	ctx := context.Background()
	c, err := s.rt.CompileModule(ctx, wasm)
	if err != nil {
		return nil, err
	}
	return s.rt.InstantiateModule(ctx, c, wazero.NewModuleConfig().WithName("").WithStartFunctions().WithStderr(os.Stderr))
}

func (s *stage) mustInstance(wasm []byte) api.Module {
	s.t.Helper()
	m, err := s.instance(wasm)
	if err != nil {
		s.t.Fatalf("instantiate: %v", err)
	}
	s.t.Cleanup(func() { m.Close(context.Background()) })
	return m
}

// metered rewrites a module and returns an instance of it.
func (s *stage) metered(source []byte, l Limits) (api.Module, *Module) {
	s.t.Helper()
	r, err := Rewrite(source, l)
	if err != nil {
		s.t.Fatalf("rewrite: %v", err)
	}
	return s.mustInstance(r.Wasm), r
}

// outcome is what a call did, in a form that can be compared.
func outcome(m api.Module, name string, args ...uint64) string {
	f := m.ExportedFunction(name)
	if f == nil {
		return "no function " + name
	}
	results, err := f.Call(context.Background(), args...)
	if err != nil {
		return "error: " + trap(err)
	}
	for i, t := range f.Definition().ResultTypes() {
		results[i] = canonical(t, results[i])
	}
	return fmt.Sprint(results)
}

// canonical makes all NaN one, as their bits are free, and cuts off what is
// not of the type. References are opaque.
func canonical(t api.ValueType, v uint64) uint64 {
	switch {
	case t == api.ValueTypeI32:
		return uint64(uint32(v))
	case t == api.ValueTypeF32 && math.IsNaN(float64(api.DecodeF32(v))):
		return math.MaxUint64
	case t == api.ValueTypeF64 && math.IsNaN(api.DecodeF64(v)):
		return math.MaxUint64
	case t == api.ValueTypeExternref || !ValueType(t).number():
		return min(v, 1)
	}
	return v
}

// trap is an error's first line.
func trap(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

func stopped(outcome string) bool { return strings.Contains(outcome, errStopped.Error()) }
