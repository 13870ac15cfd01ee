package meter

// The credit: a function with several points keeps what it has paid ahead in
// a local, so that a loop's round is a subtraction and a test of a register.
// When the credit is used up, several rounds are paid at once.
const (
	creditMin  = 512 // what is paid at least
	creditMore = 4   // rounds paid at once by a dear loop
	aheadMin   = 64  // paid ahead at the entry
	aheadMax   = 1024
)

// emptyBlock is the type of a block without parameters and results.
const emptyBlock = 0x40

func (w *writer) codeSection(b []byte) []byte {
	b = appendU32(b, uint32(len(w.bodies)+addedFuncs+len(w.pieceList)))
	for i := range w.bodies {
		b = sized(b, func(b []byte) []byte { return w.function(i, b) })
	}
	for _, body := range [addedFuncs]func([]byte) []byte{w.slow, w.refill, w.bytes, w.elems, w.pages} {
		b = sized(b, func(b []byte) []byte { return append(body(append(b, 0)), opEnd) })
	}
	for _, k := range w.pieceList {
		b = sized(b, func(b []byte) []byte { return append(w.inPieces(k, append(b, 1, 1, byte(I32))), opEnd) })
	}
	return b
}

// editor copies one function and puts the metering between.
type editor struct {
	*writer
	b      *body
	points []point
	out    []byte
	from   int // what is copied next begins here
	opened int // blocks around the present place
	result funcType

	paid, level, credit uint32 // locals: fuel after the entry, depth, credit
}

func (w *writer) function(i int, out []byte) []byte {
	e := &editor{writer: w, b: &w.bodies[i], result: w.types[w.funcs[w.hosts+i]]}
	last, calls := len(w.source.points), len(w.callees)
	if i+1 < len(w.bodies) {
		last, calls = w.bodies[i+1].points, w.bodies[i+1].calls
	}
	e.points = w.source.points[e.b.points:last]
	leaf := len(e.points) == 1 && calls == e.b.calls && !e.b.bulk && !e.b.counted
	e.out, e.from = out, e.b.code
	if leaf && e.points[0].cost <= free {
		e.from = e.b.off
	} else {
		e.head()
	}
	e.copy()
	return e.out
}

func (e *editor) op(bytes ...byte) { e.out = append(e.out, bytes...) }

// with appends an instruction with an index.
func (e *editor) with(op byte, index uint32) { e.out = appendU32(append(e.out, op), index) }

func (e *editor) i32(v int64) { e.out = appendS64(append(e.out, opI32Const), v) }
func (e *editor) i64(v int64) { e.out = appendS64(append(e.out, opI64Const), v) }

// head writes the locals and what is done at the entry.
func (e *editor) head() {
	r := &reader{src: e.bin, off: e.b.off, end: e.b.code}
	groups := r.u32()
	added := uint32(1)
	e.paid, e.level, e.credit = e.b.locals, e.b.locals+1, e.b.locals+1
	if e.b.counted {
		added, e.credit = 2, e.b.locals+2
	}
	more := len(e.points) > 1
	if more {
		groups++
	}
	e.out = appendU32(e.out, groups+1)
	e.op(e.bin[r.off:e.b.code]...)
	e.op(byte(added), byte(I64))
	if more {
		e.op(1, byte(I32))
	}
	e.entry(more)
	if e.b.counted {
		e.op(opBlock)
		switch rs := e.result.results; len(rs) {
		case 0:
			e.op(emptyBlock)
		case 1:
			e.op(byte(rs[0]))
		default:
			e.out = appendS64(e.out, int64(e.typeOf(funcType{results: rs})))
		}
	}
}

// entry pays for the first point and, if there are more, some credit.
func (e *editor) entry(more bool) {
	cost, ahead := int64(e.points[0].cost), int64(0)
	if more {
		ahead = min(max(int64(e.points[1].cost), aheadMin), aheadMax)
	}
	e.with(opGlobalGet, e.fuel())
	e.i64(cost + ahead)
	e.op(opI64Sub)
	e.with(opLocalTee, e.paid)
	e.with(opGlobalSet, e.fuel())
	slow := e.yield()
	if e.b.counted {
		e.with(opGlobalGet, e.depth())
		e.i64(int64(e.b.weight))
		e.op(opI64Sub)
		e.with(opLocalTee, e.level)
		e.with(opGlobalSet, e.depth())
		e.with(opLocalGet, e.level)
		slow = e.added(addedSlow)
	}
	e.with(opLocalGet, e.paid)
	if e.b.counted {
		e.op(opI64Or)
	}
	e.i64(0)
	e.op(opI64LtS, opIf, emptyBlock)
	e.with(opCall, slow)
	e.op(opEnd)
	if more {
		e.i32(ahead)
		e.with(opLocalSet, e.credit)
	}
}

// pay writes a point other than the first.
func (e *editor) pay(cost int64) {
	if cost == 0 {
		return
	}
	e.with(opLocalGet, e.credit)
	e.i32(cost)
	e.op(opI32Sub)
	e.with(opLocalTee, e.credit)
	e.i32(0)
	e.op(opI32LtS, opIf, emptyBlock)
	e.i32(max(creditMin, creditMore*cost))
	e.with(opCall, e.added(addedRefill))
	e.with(opLocalGet, e.credit)
	e.op(opI32Add)
	e.with(opLocalSet, e.credit)
	e.op(opEnd)
}

// exit gives back the depth taken at the entry.
func (e *editor) exit() {
	e.with(opGlobalGet, e.depth())
	e.i64(int64(e.b.weight))
	e.op(opI64Add)
	e.with(opGlobalSet, e.depth())
}

// flush copies the source up to an offset.
func (e *editor) flush(to int) {
	e.out = append(e.out, e.bin[e.from:to]...)
	e.from = to
}

// copy writes the body from its first instruction to its end. scan has read
// it already, so nothing fails here.
func (e *editor) copy() {
	r := &reader{src: e.bin, off: e.b.code, end: e.b.end, part: "code section"}
	points := e.points[1:]
	var in instr
	for r.left() > 0 {
		if len(points) > 0 && int(points[0].off) == r.off {
			e.flush(r.off)
			e.pay(int64(points[0].cost))
			points = points[1:]
		}
		e.next(r, &in)
		e.edit(r, &in)
	}
	e.flush(e.b.end)
}

func (e *editor) edit(r *reader, in *instr) {
	switch in.op {
	case opBlock, opLoop, opIf:
		e.opened++
	case opEnd:
		if e.opened == 0 && e.b.counted {
			e.flush(in.at)
			e.op(opEnd)
			e.exit()
		}
		e.opened--
	case opBrTable:
		for range uint64(in.arg) + 1 {
			r.u32()
		}
	case opReturn:
		if e.b.counted {
			e.flush(in.at)
			e.with(opBr, uint32(e.opened))
			e.from = r.off
		}
	case opCall, opRefFunc, opReturnCall:
		if in.op == opReturnCall && e.b.counted {
			e.flush(in.at)
			e.exit()
		}
		if moved := e.moved(in.arg); moved != in.arg {
			e.flush(in.at)
			e.with(in.op, moved)
			e.from = r.off
		}
	case opReturnCallIndirect:
		if e.b.counted {
			e.flush(in.at)
			e.exit()
		}
	case opMemoryGrow:
		e.before(in, addedPages)
	case opMisc:
		e.byLength(r, in)
	}
}

// byLength has an instruction that works by length done in pieces, or pay,
// where it can do no more than one piece.
func (e *editor) byLength(r *reader, in *instr) {
	if f, ok := e.pieces[in.bulk()]; ok {
		e.flush(in.at)
		e.with(opCall, f)
		e.from = r.off
		return
	}
	switch in.sub {
	case miscMemoryInit, miscMemoryCopy, miscMemoryFill:
		e.before(in, addedBytes)
	case miscTableInit, miscTableCopy, miscTableGrow, miscTableFill:
		e.before(in, addedItems)
	}
}

// before has an instruction that works by length pay: its length is the
// topmost operand, and the function called returns it.
func (e *editor) before(in *instr, pay int) {
	e.flush(in.at)
	e.with(opCall, e.added(pay))
}

// slow is entered by functions that count their depth.
func (w *writer) slow(b []byte) []byte {
	e := &editor{writer: w, out: b}
	e.with(opGlobalGet, w.depth())
	e.i64(0)
	e.op(opI64LtS, opIf, emptyBlock, opUnreachable, opEnd)
	e.settle()
	return e.out
}

// settle calls yield if fuel is below zero.
func (e *editor) settle() {
	e.with(opGlobalGet, e.fuel())
	e.i64(0)
	e.op(opI64LtS, opIf, emptyBlock)
	e.with(opCall, e.yield())
	e.op(opEnd)
}

// spend writes a function's body that pays for its parameter, shifted, and
// returns it. A length beyond limit makes the instruction fail at once, so it
// costs nothing.
func (w *writer) spend(b []byte, limit uint32, op byte, shift int64) []byte {
	e := &editor{writer: w, out: b}
	if limit > 0 {
		e.with(opLocalGet, 0)
		e.i32(int64(int32(limit)))
		e.op(opI32LeU, opIf, emptyBlock)
	}
	e.charge(0, op, shift)
	e.settle()
	if limit > 0 {
		e.op(opEnd)
	}
	e.with(opLocalGet, 0)
	return e.out
}

// charge takes the number in a local, shifted by op, off the fuel.
func (e *editor) charge(local uint32, op byte, shift int64) {
	e.with(opGlobalGet, e.fuel())
	e.with(opLocalGet, local)
	e.op(opI64ExtendI32U)
	if shift > 0 {
		e.i64(shift)
		e.op(op)
	}
	e.op(opI64Sub)
	e.with(opGlobalSet, e.fuel())
}

func (w *writer) refill(b []byte) []byte { return w.spend(b, 0, 0, 0) }
func (w *writer) bytes(b []byte) []byte  { return w.spend(b, 0, opI64ShrU, bytesShift) }
func (w *writer) elems(b []byte) []byte  { return w.spend(b, w.limits.Table, 0, 0) }
func (w *writer) pages(b []byte) []byte {
	return w.spend(b, w.limits.Memory, opI64Shl, pagesShift)
}
