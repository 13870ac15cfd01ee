package meter

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero/api"
)

func many(n int, t ValueType) []ValueType { return slices.Repeat([]ValueType{t}, n) }

// nest is loops within loops and, in the innermost, all locals.
func nest(loops, locals int) *mod {
	b := repeat(loops, code(opLoop, emptyBlock))
	for i := range locals {
		b = code(b, get(i), i32c(1), opI32Add, set(i))
	}
	b = code(b, repeat(loops, code(get(0), opBrIf, 0, opEnd)))
	return single(b, many(locals, I32)...)
}

// TestRefusals also looks that each error names section and byte.
func TestRefusals(t *testing.T) {
	ok := single(code()).bytes()
	header := []byte("\x00asm\x01\x00\x00\x00")
	with := func(change func(*mod)) []byte {
		m := single(code())
		change(m)
		return m.bytes()
	}
	body := func(parts ...any) []byte { return single(code(parts...)).bytes() }
	export := func(name string) []byte {
		return with(func(m *mod) { m.exports = [][]byte{code(appendName(nil, name), 0, 0)} })
	}
	imp := func(module string, kind ...any) []byte {
		return with(func(m *mod) { m.imports = [][]byte{code(appendName(nil, module), appendName(nil, "x"), code(kind...))} })
	}
	for _, c := range []struct {
		name   string
		source []byte
		want   string
	}{
		{"nothing", nil, "header, byte 0x0: not a WebAssembly binary"},
		{"text", []byte("(module)"), "header, byte 0x0: not a WebAssembly binary"},
		{"component", []byte("\x00asm\x0d\x00\x01\x00"), "a component (wasi:http or the like); Seawall runs core modules with the proxy-wasm or http-wasm ABI"},
		{"version 2", []byte("\x00asm\x02\x00\x00\x00"), "version 2"},
		{"cut in a section", ok[:len(ok)-3], "code section"},
		{"section too long", code(header, 1, 100, 0), "module, byte 0xa: the type section is said to have 100 bytes"},
		{"section twice", code(header, 1, 1, 0, 1, 1, 0), "module, byte 0xb: a type section out of order or twice"},
		{"unknown section", code(header, 50, 0), "module, byte 0x8: a section of the unknown kind 50"},
		{"bytes left in a section", code(header, 1, 2, 0, 0), "type section, byte 0xb: 1 bytes too many"},
		{"number too long", code(header, 1, 6, 0x80, 0x80, 0x80, 0x80, 0x80, 0), "more than 32 bits"},
		{"number too large", code(header, 1, 5, 0xff, 0xff, 0xff, 0xff, 0x1f), "more than 32 bits"},
		{"huge count", code(header, 1, 5, 0xff, 0xff, 0xff, 0xff, 0x0f), "type section, byte 0xa: 4294967295 types are said to follow, but 0 bytes are left"},
		{"functions without code", code(header, 1, 4, 1, 0x60, 0, 0, 3, 2, 1, 0), "1 functions are declared, 0 have code"},
		{"garbage collection", code(header, 1, 4, 1, 0x5f, 0, 0), "type section, byte 0xb: a type of the garbage collection proposal"},
		{"typed reference", with(func(m *mod) { m.funcs[0].params = []ValueType{0x64} }), "a typed reference, which is not supported"},
		{"two memories", code(header, 5, 5, 2, 0, 1, 0, 1), "memory section, byte 0xd: 2 memories; compile for one"},
		{"64-bit memory", with(func(m *mod) { m.memory = []byte{4, 1} }), "a 64-bit memory; compile for wasm32"},
		{"shared memory", with(func(m *mod) { m.memory = []byte{3, 1, 2} }), "a shared memory; compile without threads"},
		{"large memory", with(func(m *mod) { m.memory = []byte{0, 0x81, 2} }), "the memory begins with 257 pages (16.06 MiB); the limit is 256 (16 MiB)"},
		{"large table", with(func(m *mod) { m.tables = [][]byte{code(0x70, 0, u(70000))} }), "a table begins with 70000 elements; the limit is 65536"},
		{"mutable global imported", imp("env", kindGlobal, I32, 1), "the mutable global env.x is imported"},
		{"exception imported", imp("env", kindTag, 0, 0), "an exception is imported, which is not supported"},
		{"exceptions declared", with(func(m *mod) { m.typ(none, none); m.tags = [][]byte{{0, 0}} }), "exceptions are declared, which is not supported"},
		{"reserved import", imp(ImportModule, kindFunc, 0), "reserved for the rewriter"},
		{"reserved export", export("__seawall_x"), "reserved for the rewriter"},
		{"start with parameters", with(func(m *mod) { m.funcs[0].params, m.start = one, 1 }), "a start function with parameters"},
		{"no such function", body(callTo(9)), "code section, byte 0x2f: function 9 of 1"},
		{"the yield function", body(callTo(1)), "function 1 of 1"},
		{"no such local", body(get(0), 0x1a), "local 0 of 0"},
		{"the fuel global", body(i64c(99), opGlobalSet, 0), "global 0 of 0"},
		{"the fuel global exported", with(func(m *mod) { m.exports = [][]byte{code(appendName(nil, "g"), kindGlobal, 0)} }), `global 0 of 0 is exported as "g"`},
		{"the fuel global in an offset", with(func(m *mod) { m.data = [][]byte{code(0, opGlobalGet, 0, opEnd, 0)} }), "data section"},
		{"an added type", body(opBlock, 5, opEnd), "block type 5 of 1"},
		{"branch out of the function", body(opBr, 1), "a branch out of 1 blocks where 1 are open"},
		{"end missing", body(opBlock, emptyBlock), "cut short"},
		{"else without if", body(opElse), "an else without its if"},
		{"code behind the end", body(opEnd, 0x01), "behind the end of a function"},
		{"try_table", body(0x1f, emptyBlock, 0, opEnd), "an instruction of exception handling (0x1f), which is not supported"},
		{"legacy try", body(0x06, emptyBlock, opEnd), "an instruction of exception handling (0x6)"},
		{"call_ref", body(0x14, 0), "typed function references"},
		{"relaxed vectors", body(opVector, 0x80, 0x02), "the vector instruction 0x100 of a proposal"},
		{"other memory", body(i32c(0), 0x28, 0x42, 1, 0, 0x1a), "a module may have one memory"},
		{"unknown instruction", body(0xff), "the unknown instruction 0xff"},
		{"too many locals", code(header, 1, 4, 1, 0x60, 0, 0, 3, 2, 1, 0, 10, 8, 1, 6, 1, u(60000), 0x7f, opEnd), "more than 50000 locals"},
		{"locals beyond 32 bits", code(header, 1, 4, 1, 0x60, 0, 0, 3, 2, 1, 0, 10, 10, 1, 8, 1, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x7f, opEnd), "more than 50000 locals"},
		{"deep blocks", body(repeat(7000, code(opBlock, emptyBlock)), repeat(7000, code(opEnd))), "more than 6000 blocks within blocks"},
		{"loops with locals", nest(1000, 1000).bytes(), "too long to compile"},
		{"large branch table", body(i32c(0), opBrTable, u(400_000), make([]byte, 400_001)), "too long to compile"},
		{"large function", body(make([]byte, 0), repeat(1<<20, []byte{1})), "a function of 1048578 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Rewrite(c.source, Limits{})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want it to say %q", err, c.want)
			}
			if !strings.HasPrefix(err.Error(), "meter: ") || !strings.Contains(err.Error(), ", byte 0x") {
				t.Errorf("%q names no section and byte", err)
			}
		})
	}
}

// TestEveryPrefixIsRefused cuts a module that has each section everywhere.
func TestEveryPrefixIsRefused(t *testing.T) {
	source := generate([]byte("a module that has most of the sections, made of these bytes as if they were random"))
	sections := 0
	for n := range source {
		_, err := Rewrite(source[:n], Limits{})
		if err == nil {
			sections++ // a cut between sections may leave a module
		}
	}
	if sections > 12 {
		t.Errorf("%d of %d prefixes are taken, want at most one for each section", sections, len(source))
	}
}

// TestStartAndGlobals has a start function that would run at instantiation.
func TestStartAndGlobals(t *testing.T) {
	m := &mod{start: 1, globals: [][]byte{
		code(I32, 0, i32c(1), opEnd), code(I32, 1, i32c(2), opEnd), code(V128, 1, opVector, 0x0c, make([]byte, 16), opEnd), code(I64, 1, i64c(3), opEnd),
	}, funcs: []fn{
		{code: code(i32c(50), opGlobalSet, 1, loop())},
		{name: "read", results: one, code: code(opGlobalGet, 1)},
	}}
	s := newStage(t)
	s.slices = 5
	i, r := s.metered(m.bytes(), Limits{})
	if want := []string{"__seawall_global_1", "__seawall_global_3"}; !slices.Equal(r.Globals, want) || !r.HasStart || !r.Mutates {
		t.Errorf("globals %v, start %v, mutates %v; want %v, true, true (for the vector)", r.Globals, r.HasStart, r.Mutates, want)
	}
	if got := outcome(i, "read"); got != "[2]" {
		t.Errorf("before the start function: %s, want [2]", got)
	}
	if got := outcome(i, StartExport); !stopped(got) {
		t.Errorf("start: %s, want it stopped", got)
	}
	if got := outcome(i, "read"); got != "[50]" {
		t.Errorf("after the start function: %s, want [50]", got)
	}
	i.ExportedGlobal(r.Globals[0]).(api.MutableGlobal).Set(2)
	if got := outcome(i, "read"); got != "[2]" {
		t.Errorf("after the global was restored: %s, want [2]", got)
	}
}

// TestElementsOfEachForm has a segment of each kind; each entry is called.
func TestElementsOfEachForm(t *testing.T) {
	at := func(n int) []byte { return code(i32c(n), opEnd) }
	ref := code(opRefFunc, 2, opEnd)
	m := &mod{hosts: []fn{{name: "h"}}, tables: [][]byte{{0x70, 0, 10}, {0x70, 0, 10}}, elems: [][]byte{
		code(0, at(0), 1, 2),
		code(1, 0, 1, 2),
		code(2, 1, at(1), 0, 1, 2),
		code(3, 0, 1, 2),
		code(4, at(3), 1, ref),
		code(5, 0x70, 1, ref),
		code(6, 1, at(4), 0x70, 1, ref),
		code(7, 0x70, 1, ref),
	}}
	typ := m.typ(none, one)
	calls := code(i32c(5), i32c(0), i32c(1), opMisc, miscTableInit, 1, 0, i32c(6), i32c(0), i32c(1), opMisc, miscTableInit, 5, 0)
	for _, c := range [][2]int{{0, 0}, {1, 1}, {3, 0}, {4, 1}, {5, 0}, {6, 0}} {
		calls = code(calls, i32c(c[0]), opCallIndirect, typ, c[1])
	}
	m.funcs = []fn{{name: "run", results: one, code: code(calls, repeat(5, code(opI32Add)))}, {results: one, code: code(i32c(7))}}
	s := newStage(t)
	info, err := Inspect(m.bytes())
	if err != nil {
		t.Fatal(err)
	}
	s.define("env", info.Imports)
	i, _ := s.metered(m.bytes(), Limits{})
	if got := outcome(i, "run"); got != "[42]" {
		t.Errorf("got %s, want [42]", got)
	}
}

// TestCheapFunctionsAreFree holds the cost of metering to where it is needed.
func TestCheapFunctionsAreFree(t *testing.T) {
	for _, c := range []struct {
		name string
		f    fn
		more bool
	}{
		{"leaf", fn{params: one, results: one, code: code(get(0), i32c(1), opI32Add)}, false},
		{"longer leaf", fn{code: repeat(20, []byte{1})}, true},
		{"loop", fn{code: code(opLoop, emptyBlock, opEnd)}, true},
		{"caller", fn{code: callTo(0)}, true},
	} {
		m := &mod{funcs: []fn{{name: "x"}, c.f}}
		size := func(m *mod) int {
			r, err := Rewrite(m.bytes(), Limits{})
			if err != nil {
				t.Fatal(err)
			}
			return len(r.Wasm) - len(m.bytes())
		}
		with := size(m)
		m.funcs[1].code, m.funcs[1].locals = code(), nil
		if m.funcs[1].results != nil {
			m.funcs[1].code = i32c(0)
		}
		if more := with > size(m); more != c.more {
			t.Errorf("%s: grows by metering: %v, want %v", c.name, more, c.more)
		}
	}
}

// TestNamesFollowTheirFunctions looks at a trap's stack.
func TestNamesFollowTheirFunctions(t *testing.T) {
	names := code(2, u(0), appendName(nil, "first"), u(1), appendName(nil, "second"))
	m := &mod{funcs: []fn{{name: "run", code: callTo(1)}, {code: code(opUnreachable)}}}
	m.custom = code(appendName(nil, "name"), 1, u(len(names)), names)
	i, _ := newStage(t).metered(m.bytes(), Limits{})
	_, err := i.ExportedFunction("run").Call(context.Background())
	if err == nil || !strings.Contains(err.Error(), ".second()\n") || !strings.Contains(err.Error(), ".first()") {
		t.Errorf("got %v, want the names first and second in the stack", err)
	}
	m.custom = code(appendName(nil, "name"), 1, 100, names)
	if _, err := Rewrite(m.bytes(), Limits{}); err != nil {
		t.Errorf("a broken name section is refused: %v", err)
	}
}

func TestInspect(t *testing.T) {
	m := &mod{hosts: []fn{{name: "h", params: []ValueType{I32, F64}, results: []ValueType{I64}}}, memory: []byte{1, 2, 9},
		funcs: []fn{{name: "handle_request", results: []ValueType{I64}, code: i64c(0)}}, custom: appendName(nil, "producers")}
	i, err := Inspect(m.bytes())
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprintf("%v %v %v %d %d %d", i.Imports, i.Exports, i.Customs, i.Functions, i.MemoryMin, i.MemoryMax)
	want := "[{env h function [i32 f64] [i64]}] [{handle_request function [] [i64]} {memory memory [] []}] [producers] 1 2 9"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if i, err := Inspect([]byte("\x00asm\x0d\x00\x01\x00")); err != nil || !i.Component {
		t.Errorf("component: %+v, %v; want it told", i, err)
	}
}

// TestLimitsAreChecked has limits that cannot be kept.
func TestLimitsAreChecked(t *testing.T) {
	for _, l := range []Limits{{Memory: 1<<16 + 1}, {Table: 1<<24 + 1}} {
		if _, err := Rewrite(single(nil).bytes(), l); err == nil {
			t.Errorf("%+v is taken", l)
		}
	}
}

// TestVectorsAndAtomics runs instructions with prefixes.
func TestVectorsAndAtomics(t *testing.T) {
	m := single(nil)
	m.funcs[0].results = []ValueType{I32, I32}
	m.funcs[0].code = code(loop2(),
		i32c(0), i32c(0), i32c(5), opAtomic, 0x1e, 2, 0, opI32Add, opAtomic, 3, 0, // i32.atomic.rmw.add, fence
		i32c(-7), opVector, 0x11, opVector, 0xa0, 1, opVector, 0x1b, 2) // splat, i32x4.abs, extract_lane
	s := newStage(t)
	i, _ := s.metered(m.bytes(), Limits{})
	if got := outcome(i, "run"); got != "[0 7]" {
		t.Errorf("got %s, want [0 7]", got)
	}
}

// loop2 is a loop that ends at once.
func loop2() []byte { return code(opLoop, emptyBlock, opEnd) }
