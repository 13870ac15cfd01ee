package meter

import "fmt"

// generator makes a valid module from any bytes: blocks, loops, branches,
// calls of all kinds, arithmetic, memory and tables. Floats are not stored to
// memory, as the bits of a NaN are the compiler's choice.
type generator struct {
	in     []byte
	mod    *mod
	self   *fn
	labels [][]ValueType // what a branch to each open block carries
	out    []byte
	budget int
}

func generate(in []byte) []byte {
	g := &generator{in: in, mod: &mod{memory: []byte{1, 1, 4}, counted: true}}
	m := g.mod
	m.hosts = []fn{{name: "h", params: []ValueType{I32}, results: []ValueType{I64}}}
	m.data = [][]byte{code(0, i32c(16), opEnd, 5, 1, 2, 3, 4, 5), code(1, 4, 9, 8, 7, 6)}
	for i, t := range numbers() {
		init := [][]byte{i32c(7), i64c(-9), {opF32Const, 0, 0, 0x80, 0x3f}, {opF64Const, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f}}[i]
		m.globals = append(m.globals, code(t, 1, init, opEnd))
		m.exports = append(m.exports, code(appendName(nil, fmt.Sprintf("g%d", i)), kindGlobal, i))
	}
	n := 2 + g.pick(5)
	refs := [][]byte{u(0)}
	for i := range n {
		f := fn{name: fmt.Sprintf("f%d", i), params: g.types(3), results: g.types(2), locals: g.types(3)}
		m.funcs = append(m.funcs, f)
		m.typ(f.params, f.results)
		refs = append(refs, u(i+1))
	}
	m.tables = [][]byte{{0x70, 1, byte(len(refs)), 50}}
	m.elems = [][]byte{code(0, i32c(0), opEnd, items(refs)), code(1, 0, items(refs))}
	for i := range m.funcs {
		g.self = &m.funcs[i]
		g.labels = append(g.labels[:0], g.self.results)
		g.out, g.budget = nil, 60
		g.stmts(4)
		g.values(g.self.results, 3)
		g.self.code = g.out
	}
	return m.bytes()
}

func numbers() []ValueType { return []ValueType{I32, I64, F32, F64} }

func (g *generator) pick(n int) int {
	if len(g.in) == 0 {
		return 0
	}
	b := g.in[0]
	g.in = g.in[1:]
	return int(b) % n
}

func (g *generator) typ() ValueType { return numbers()[g.pick(4)] }

func (g *generator) types(most int) []ValueType {
	var ts []ValueType
	for range g.pick(most + 1) {
		ts = append(ts, g.typ())
	}
	return ts
}

func (g *generator) op(parts ...any) { g.out = append(g.out, code(parts...)...) }

// stmts appends instructions that leave the stack as it is.
func (g *generator) stmts(depth int) {
	for range 1 + g.pick(4) {
		if g.budget--; g.budget < 0 {
			return
		}
		g.stmt(depth)
	}
}

func (g *generator) values(ts []ValueType, depth int) {
	for _, t := range ts {
		g.value(t, depth)
	}
}

// local picks a local of type t, or -1.
func (g *generator) local(t ValueType) int {
	all := append(append([]ValueType(nil), g.self.params...), g.self.locals...)
	at := g.pick(8)
	for i := range all {
		if n := (i + at) % len(all); all[n] == t {
			return n
		}
	}
	return -1
}

func (g *generator) stmt(depth int) {
	kind := g.pick(20)
	if depth <= 0 && kind < 6 {
		kind += 6
	}
	switch kind {
	case 0, 1:
		g.block(opBlock, nil, func() { g.stmts(depth - 1) })
	case 2:
		g.rounds(depth)
	case 3, 4:
		g.value(I32, 2)
		g.block(opIf, nil, func() {
			g.stmts(depth - 1)
			if g.pick(2) == 0 {
				g.op(opElse)
				g.stmts(depth - 1)
			}
		})
	case 5:
		g.results(depth)
	case 6, 7:
		g.branch(opBrIf)
	case 8:
		g.table()
	case 9:
		g.leave()
	case 10, 11:
		g.call()
	case 12:
		g.bulk()
	case 13, 14:
		g.store()
	default:
		g.assign()
	}
}

// block opens a block that carries ts.
func (g *generator) block(op int, ts []ValueType, fill func()) {
	switch {
	case len(ts) == 0:
		g.op(op, emptyBlock)
	case len(ts) == 1:
		g.op(op, ts[0])
	default:
		g.op(op, appendS64(nil, int64(g.mod.typ(nil, ts))))
	}
	carried := ts
	if op == opLoop {
		carried = nil
	}
	g.labels = append(g.labels, carried)
	fill()
	g.labels = g.labels[:len(g.labels)-1]
	g.op(opEnd)
}

// rounds makes a loop that counts down if it finds a local for it, and one
// without end otherwise, by chance.
func (g *generator) rounds(depth int) {
	n := g.local(I32)
	if n >= 0 {
		g.op(i32c(g.pick(200)), opLocalSet, n)
	}
	g.block(opLoop, nil, func() {
		g.stmts(depth - 1)
		switch {
		case n >= 0:
			g.op(get(n), i32c(1), opI32Sub, opLocalTee, n, i32c(0), 0x4a, opBrIf, 0)
		case g.pick(4) == 0:
			g.op(opBr, 0)
		}
	})
}

// results is a block with several results, dropped.
func (g *generator) results(depth int) {
	ts := g.types(3)
	g.block(opBlock, ts, func() {
		g.stmts(depth - 1)
		g.values(ts, 2)
	})
	g.drop(len(ts))
}

func (g *generator) drop(n int) { g.op(repeat(n, []byte{0x1a})) }

// branch leaves for a label, with what it carries.
func (g *generator) branch(op int) {
	n := g.pick(len(g.labels))
	ts := g.labels[len(g.labels)-1-n]
	g.values(ts, 1)
	if op == opBrIf {
		g.value(I32, 1)
	}
	g.op(op, n)
	if op == opBrIf {
		g.drop(len(ts))
	}
}

// table is a br_table among labels that carry the same.
func (g *generator) table() {
	first := g.pick(len(g.labels))
	ts := g.labels[len(g.labels)-1-first]
	fits := [][]byte{u(first)}
	for n := range g.labels {
		if fmt.Sprint(g.labels[len(g.labels)-1-n]) == fmt.Sprint(ts) {
			fits = append(fits, u(n))
		}
	}
	g.value(I32, 1)
	g.block(opIf, nil, func() {
		for i, f := range fits {
			fits[i] = u(int(f[0]) + 1)
		}
		g.values(ts, 1)
		g.value(I32, 1)
		g.op(opBrTable, items(fits[1:]), fits[0])
	})
}

// leave ends the function, at times.
func (g *generator) leave() {
	g.value(I32, 1)
	g.block(opIf, nil, func() {
		switch g.pick(6) {
		case 0:
			g.op(opUnreachable)
		case 1:
			g.tail()
		default:
			g.values(g.self.results, 1)
			g.op(opReturn)
		}
	})
}

// tail calls a function with the same results, if there is one.
func (g *generator) tail() {
	at := g.pick(len(g.mod.funcs))
	f := g.mod.funcs[at]
	if fmt.Sprint(f.results) != fmt.Sprint(g.self.results) {
		g.op(opUnreachable)
		return
	}
	g.values(f.params, 1)
	if g.pick(2) == 0 {
		g.op(opReturnCall, at+1)
		return
	}
	g.value(I32, 1)
	g.op(opReturnCallIndirect, g.mod.typ(f.params, f.results), 0)
}

func (g *generator) call() {
	at := g.pick(len(g.mod.funcs))
	f := g.mod.funcs[at]
	g.values(f.params, 1)
	if g.pick(3) == 0 {
		g.op(i32c(at+1), opCallIndirect, g.mod.typ(f.params, f.results), 0)
	} else {
		g.op(callTo(at + 1))
	}
	g.drop(len(f.results))
}

func (g *generator) bulk() {
	small := func() { g.op(i32c(g.pick(256))) }
	small()
	switch g.pick(9) {
	case 0:
		small()
		g.value(I32, 1)
		g.op(opMisc, miscMemoryFill, 0)
	case 1:
		small()
		small()
		g.op(opMisc, miscMemoryCopy, 0, 0)
	case 2:
		g.op(i32c(g.pick(5)), i32c(g.pick(5)), opMisc, miscMemoryInit, 1, 0)
	case 3:
		g.op(0x1a, opMisc, miscDataDrop, 1)
	case 4:
		g.op(0x1a, opRefFunc, 1+g.pick(2), i32c(g.pick(9)), opMisc, miscTableGrow, 0, 0x1a)
	case 5:
		g.op(0x1a, i32c(g.pick(4)), opRefNull, 0x70, i32c(g.pick(4)), opMisc, miscTableFill, 0)
	case 6:
		g.op(0x1a, i32c(g.pick(4)), i32c(g.pick(4)), i32c(g.pick(4)), opMisc, miscTableCopy, 0, 0)
	case 7:
		g.op(0x1a, i32c(g.pick(4)), i32c(g.pick(4)), i32c(g.pick(4)), opMisc, miscTableInit, 1, 0)
	default:
		g.op(0x1a, i32c(g.pick(3)), opMemoryGrow, 0, 0x1a)
	}
}

func (g *generator) store() {
	g.address()
	if g.pick(2) == 0 {
		g.value(I32, 2)
		g.op([]int{0x36, 0x3a, 0x3b}[g.pick(3)], 0, u(g.pick(200)))
	} else {
		g.value(I64, 2)
		g.op([]int{0x37, 0x3c, 0x3d, 0x3e}[g.pick(4)], 0, u(g.pick(200)))
	}
}

// address is mostly within memory.
func (g *generator) address() {
	g.value(I32, 1)
	if g.pick(8) != 0 {
		g.op(i32c(0x7fff), 0x71)
	}
}

func (g *generator) assign() {
	t := g.typ()
	g.value(t, 3)
	if l := g.local(t); l >= 0 && g.pick(3) != 0 {
		g.op(set(l))
		return
	}
	for i, n := range numbers() {
		if n == t {
			g.op(opGlobalSet, i)
		}
	}
}

// value appends instructions that leave one value of type t.
func (g *generator) value(t ValueType, depth int) {
	kind := g.pick(12)
	if depth <= 0 && kind > 4 {
		kind %= 5
	}
	switch kind {
	case 0, 1, 2:
		if l := g.local(t); l >= 0 {
			g.op(get(l))
			return
		}
		g.constant(t)
	case 3:
		g.constant(t)
	case 4:
		for i, n := range numbers() {
			if n == t {
				g.op(opGlobalGet, i)
			}
		}
	case 5:
		g.block(opBlock, []ValueType{t}, func() {
			g.stmts(depth - 1)
			g.value(t, depth-1)
		})
	case 6:
		g.value(I32, depth-1)
		g.block(opIf, []ValueType{t}, func() {
			g.value(t, depth-1)
			g.op(opElse)
			g.value(t, depth-1)
		})
	case 7:
		g.value(t, depth-1)
		g.value(t, depth-1)
		g.value(I32, depth-1)
		g.op(0x1b)
	default:
		g.arithmetic(t, depth)
	}
}

func (g *generator) constant(t ValueType) {
	switch t {
	case I32:
		g.op(i32c(g.pick(256) - 100))
	case I64:
		g.op(i64c(int64(g.pick(256)-100) << (8 * g.pick(8))))
	case F32:
		g.op(opF32Const, 0, 0, g.pick(256), 0x40+g.pick(3))
	default:
		g.op(opF64Const, 0, 0, 0, 0, 0, 0, g.pick(256), 0x40)
	}
}

func (g *generator) arithmetic(t ValueType, depth int) {
	two := func(from, n int) {
		g.value(t, depth-1)
		g.value(t, depth-1)
		g.op(from + g.pick(n))
	}
	switch g.pick(4) {
	case 0: // of one operand, or from another type
		g.convert(t, depth)
	case 1:
		switch t {
		case I32:
			g.address()
			g.op(0x2c+g.pick(4), 0, u(g.pick(100)))
		case I64:
			g.address()
			g.op(0x30+g.pick(6), 0, u(g.pick(100)))
		default:
			g.convert(t, depth)
		}
	default:
		switch t {
		case I32:
			two(0x6a, 15)
		case I64:
			two(0x7c, 15)
		case F32:
			two(0x92, 6)
		default:
			two(0xa0, 6)
		}
	}
}

func (g *generator) convert(t ValueType, depth int) {
	from := map[ValueType][][2]int{
		I32: {{0x45, int(I32)}, {0x67, int(I32)}, {0xa7, int(I64)}, {0x50, int(I64)}, {0xa9, int(F32)}, {0xaa, int(F64)}, {0x5d, 0}, {0xc0, int(I32)}},
		I64: {{0x7b, int(I64)}, {0xac, int(I32)}, {0xad, int(I32)}, {0xb0, int(F64)}, {0xc4, int(I64)}},
		F32: {{0xb2, int(I32)}, {0xb5, int(I64)}, {0xb6, int(F64)}, {0x91, int(F32)}, {0x8d, int(F32)}},
		F64: {{0xb7, int(I32)}, {0xba, int(I64)}, {0xbb, int(F32)}, {0x9f, int(F64)}, {0x9c, int(F64)}},
	}[t]
	how := from[g.pick(len(from))]
	if how[1] == 0 { // a comparison
		g.value(F32, depth-1)
		g.value(F32, depth-1)
		g.op(how[0])
		return
	}
	g.value(ValueType(how[1]), depth-1)
	g.op(how[0])
}
