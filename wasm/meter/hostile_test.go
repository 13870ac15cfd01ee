package meter

import (
	"runtime"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero/api"
)

var (
	none = []ValueType(nil)
	one  = []ValueType{I32}
)

// chain is the module that no check at loops ends: each function calls the
// next twice, n deep (wazero issue 2533).
func chain(n int) *mod {
	m := &mod{}
	for i := range n {
		f := fn{}
		if i == 0 {
			f.name = "run"
		}
		if i < n-1 {
			f.code = code(callTo(i+1), callTo(i+1))
		}
		m.funcs = append(m.funcs, f)
	}
	return m
}

// single is a module of one exported function run with a memory of one page.
func single(body []byte, locals ...ValueType) *mod {
	return &mod{memory: []byte{0, 1}, funcs: []fn{{name: "run", code: body, locals: locals}}}
}

func loop(body ...any) []byte { return code(opLoop, emptyBlock, code(body...), opBr, 0, opEnd) }

// TestFuelStopsWhatRunsOn runs programs without end. Each must be stopped, and
// after the number of yields that its slices give.
func TestFuelStopsWhatRunsOn(t *testing.T) {
	gib := single(loop(i32c(0), i32c(7), i32c(1<<30), opMisc, 0x0b, 0))
	gib.memory = []byte{0, 0x80, 0x80, 1} // 1 GiB
	gibCopy := single(loop(i32c(0), i32c(0), i32c(1<<30), opMisc, 0x0a, 0, 0))
	gibCopy.memory = gib.memory
	table := single(loop(i32c(0), opRefNull, 0x70, i32c(60000), opMisc, 0x11, 0))
	table.tables = [][]byte{{0x70, 0, 0x80, 0x80, 4}}
	mutual := &mod{funcs: []fn{
		{name: "run", code: loop(callTo(1))},
		{code: code(loop(callTo(2)))},
		{code: code(i32c(1), 0x1a)},
	}}
	tail := &mod{funcs: []fn{{name: "run", code: code(opReturnCall, 1)}, {code: code(opReturnCall, 0)}}}
	for _, c := range []struct {
		name string
		mod  *mod
	}{
		{"infinite loop", single(loop())},
		{"exponential calls", chain(46)},
		{"loop in a called function", mutual},
		{"tail calls", tail},
		{"fill of 1 GiB", gib},
		{"copy of 1 GiB", gibCopy},
		{"fill of a table", table},
		{"growth of nothing", single(loop(i32c(0), opMemoryGrow, 0, 0x1a))},
		{"growth past the limit", single(loop(i32c(1<<15), opMemoryGrow, 0, 0x1a))},
		{"branch table", single(loop(opBlock, emptyBlock, get(0), opBrTable, 1, 0, 1, opEnd), I32)},
		{"two loops that feed each other", single(loop(loop(i32c(1), opBrIf, 1)))},
		{"long straight code in a loop", single(loop(repeat(50_000, code(i32c(1), 0x1a))))},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := Limits{Memory: 1 << 14}
			var yields [2]int
			for i := range yields {
				s := newStage(t)
				m, _ := s.metered(c.mod.bytes(), l)
				s.slices = 20
				if got := outcome(m, "run"); !stopped(got) {
					t.Fatalf("got %s, want it out of fuel", got)
				}
				yields[i] = s.yields
			}
			if yields[0] != yields[1] || yields[0] > 21 {
				t.Errorf("stopped at yield %d and %d, want one number of at most 21", yields[0], yields[1])
			}
		})
	}
}

// recursions are modules that call themselves without end.
func recursions() map[string]*mod {
	anyTable := func(m *mod, funcs ...int) *mod {
		var refs [][]byte
		for _, f := range funcs {
			refs = append(refs, u(f))
		}
		m.tables = [][]byte{{0x70, 0, byte(len(funcs))}}
		m.elems = [][]byte{code(0, i32c(0), opEnd, items(refs))}
		return m
	}
	typ := (&mod{}).typ(none, none)
	fat := code(repeat(400, code(i32c(0), 0x28, 2, 0)), callTo(0), repeat(400, code(0x1a)))
	return map[string]*mod{
		"direct":   {funcs: []fn{{name: "run", code: code(callTo(0))}}},
		"mutual":   {funcs: []fn{{name: "run", code: callTo(1)}, {code: callTo(2)}, {code: code(callTo(0), callTo(1))}}},
		"indirect": anyTable(&mod{funcs: []fn{{name: "run", code: code(i32c(0), opCallIndirect, typ, 0)}}}, 0),
		"indirect mutual": anyTable(&mod{funcs: []fn{
			{name: "run", code: code(i32c(0), opCallIndirect, typ, 0)},
			{code: code(i32c(1), opCallIndirect, typ, 0)},
			{code: callTo(0)},
		}}, 1, 2),
		"in a branch": {funcs: []fn{{name: "run", code: code(i32c(1), opIf, emptyBlock, callTo(0), opReturn, opEnd)}}},
		"large frame": {memory: []byte{0, 1}, funcs: []fn{{name: "run", code: fat}}},
	}
}

// TestRecursionEndsAtDepth also looks at what the stack took.
func TestRecursionEndsAtDepth(t *testing.T) {
	for name, m := range recursions() {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			s.slices = 1000
			i, r := s.metered(m.bytes(), Limits{})
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			got := outcome(i, "run")
			runtime.ReadMemStats(&after)
			if !strings.Contains(got, "unreachable") {
				t.Errorf("got %s, want the trap unreachable", got)
			}
			depth := i.ExportedGlobal(DepthGlobal)
			if d := int64(depth.Get()); d >= 0 {
				t.Errorf("depth is %d behind the trap, want it below zero", d)
			}
			if grown := after.TotalAlloc - before.TotalAlloc; grown > 48<<20 {
				t.Errorf("the stack took %d MiB in all its sizes, want at most 48", grown>>20)
			}
			depth.(api.MutableGlobal).Set(uint64(r.Depth))
			if again := outcome(i, "run"); again != got {
				t.Errorf("with the depth set back got %s, want %s as before", again, got)
			}
		})
	}
}

// TestDepthIsGivenBack calls functions with every kind of exit, many more
// times than the depth allows at once.
func TestDepthIsGivenBack(t *testing.T) {
	two := []ValueType{I32, I64}
	// Each function begins with a call of itself that is never made, so that it counts.
	never := func(self int, args ...any) []byte {
		return code(i32c(0), opIf, emptyBlock, code(args...), callTo(self), opUnreachable, opEnd)
	}
	for _, c := range []struct {
		name string
		f    fn
	}{
		{"falls through", fn{code: never(1)}},
		{"return", fn{code: code(never(1), opReturn)}},
		{"return in blocks", fn{code: code(never(1), opBlock, emptyBlock, opLoop, emptyBlock, opReturn, opEnd, opEnd)}},
		{"branch to the function", fn{code: code(never(1), opBlock, emptyBlock, i32c(1), opBrIf, 1, opUnreachable, opEnd)}},
		{"branch table to the function", fn{code: code(never(1), opBlock, emptyBlock, i32c(5), opBrTable, 1, 0, 1, opEnd, opUnreachable)}},
		{"two results", fn{results: two, code: code(never(1), i32c(1), i64c(2), opReturn)}},
		{"two results by branch", fn{results: two, code: code(never(1), i32c(1), i64c(2), i32c(1), opBrIf, 0)}},
		{"tail call", fn{code: code(never(1), opReturnCall, 2)}},
		{"indirect tail call", fn{code: code(never(1), i32c(0), opReturnCallIndirect, (&mod{}).typ(none, none), 0)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			drops := repeat(len(c.f.results), []byte{0x1a})
			run := code(opLoop, emptyBlock, callTo(1), drops, get(0), i32c(1), opI32Sub, opLocalTee, 0, opBrIf, 0, opEnd)
			m := &mod{tables: [][]byte{{0x70, 0, 1}}, elems: [][]byte{code(0, i32c(0), opEnd, 1, 2)}}
			m.typ(none, none)
			m.funcs = []fn{
				{name: "run", params: one, code: run}, c.f,
				{code: never(2)},
			}
			s := newStage(t)
			i, r := s.metered(m.bytes(), Limits{Depth: 100})
			if got := outcome(i, "run", 10_000); got != "[]" {
				t.Errorf("got %s, want it to end", got)
			}
			if d := int64(i.ExportedGlobal(DepthGlobal).Get()); d != r.Depth {
				t.Errorf("depth %d at the end, want %d", d, r.Depth)
			}
		})
	}
}

// TestGrowthStopsAtTheLimits grows memory and table one by one.
func TestGrowthStopsAtTheLimits(t *testing.T) {
	grow := code(opLoop, emptyBlock, i32c(1), opMemoryGrow, 0, i32c(-1), 0x47, opBrIf, 0, opEnd,
		opLoop, emptyBlock, opRefNull, 0x70, i32c(1), opMisc, 0x0f, 0, i32c(-1), 0x47, opBrIf, 0, opEnd,
		0x3f, 0, opMisc, 0x10, 0)
	for _, c := range []struct {
		name          string
		memory, table []byte
		want          string
	}{
		{"no maximum", []byte{0, 1}, []byte{0x70, 0, 1}, "[9 20]"},
		{"a maximum above", []byte{1, 1, 100}, []byte{0x70, 1, 1, 100}, "[9 20]"},
		{"a maximum below", []byte{1, 1, 3}, []byte{0x70, 1, 1, 5}, "[3 5]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStage(t)
			m := &mod{memory: c.memory, tables: [][]byte{c.table}, funcs: []fn{{name: "run", results: []ValueType{I32, I32}, code: grow}}}
			i, r := s.metered(m.bytes(), Limits{Memory: 9, Table: 20})
			if got := outcome(i, "run"); got != c.want || !r.Grows || !r.Mutates {
				t.Errorf("got %s, grows %v, mutates %v; want %s, true, true", got, r.Grows, r.Mutates, c.want)
			}
		})
	}
}

// TestLengthIsPaid compares what instructions cost with little and much to do.
func TestLengthIsPaid(t *testing.T) {
	for _, c := range []struct {
		name string
		code []byte // works by local 0
		more int    // what it takes beyond one of length zero
		want int64
	}{
		{"memory.fill", code(i32c(0), i32c(1), get(0), opMisc, miscMemoryFill, 0), 32000, 2000},
		{"memory.copy", code(i32c(0), i32c(1), get(0), opMisc, miscMemoryCopy, 0, 0), 32000, 2000},
		{"memory.init", code(i32c(0), i32c(0), get(0), opMisc, miscMemoryInit, 0, 0), 320, 20},
		{"memory.grow", code(get(0), opMemoryGrow, 0, 0x1a), 3, 3 * 4096},
		{"memory.grow past the limit", code(get(0), opMemoryGrow, 0, 0x1a), -1, 0},
		{"table.fill", code(i32c(0), opRefNull, 0x70, get(0), opMisc, miscTableFill, 0), 900, 900},
		{"table.copy", code(i32c(0), i32c(0), get(0), opMisc, miscTableCopy, 0, 0), 900, 900},
		{"table.init", code(i32c(0), i32c(0), get(0), opMisc, miscTableInit, 0, 0), 1, 1},
		{"table.grow", code(opRefNull, 0x70, get(0), opMisc, miscTableGrow, 0, 0x1a), 500, 500},
		{"table.grow past the limit", code(opRefNull, 0x70, get(0), opMisc, miscTableGrow, 0, 0x1a), -1, 0},
	} {
		m := single(c.code)
		m.funcs[0].params = one
		m.tables, m.elems = [][]byte{code(0x70, 0, u(1000))}, [][]byte{code(1, 0, 1, 0)}
		m.counted, m.data = true, [][]byte{code(1, u(400), make([]byte, 400))}
		i, _ := newStage(t).metered(m.bytes(), Limits{})
		fuel := i.ExportedGlobal(FuelGlobal).(api.MutableGlobal)
		var paid [2]int64
		for n, arg := range []int{0, c.more} {
			fuel.Set(1 << 40)
			if got := outcome(i, "run", uint64(uint32(arg))); got != "[]" {
				t.Fatalf("%s of %d: %s", c.name, arg, got)
			}
			paid[n] = 1<<40 - int64(fuel.Get())
		}
		if more := paid[1] - paid[0]; more != c.want {
			t.Errorf("%s of %d costs %d more than of 0, want %d", c.name, c.more, more, c.want)
		}
	}
}
