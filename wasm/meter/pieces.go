package meter

// cut is the length of the pieces in which long work is done.
type cut struct {
	bytes uint32 // of memory
	items uint32 // of tables
}

// standard is the cut of every module but tests'. A piece takes some
// microseconds, and ten times that on memory that was never touched.
func standard() cut { return cut{bytes: 64 << 10, items: 8192} }

// bulk is an instruction that works by length, with its operands: those that
// occur are done by a function of their own, which the writer adds.
type bulk struct {
	sub  byte
	a, b uint32
}

// long tells whether the instruction can work on more than a piece at once.
// Segments and tables bound it; what bounds memory is not looked at.
func (w *writer) long(k bulk) bool {
	segment := func(sizes []uint32, i, piece uint32) bool {
		return int64(i) < int64(len(sizes)) && sizes[i] > piece
	}
	table := func(i uint32) bool {
		return int64(i) < int64(len(w.tables)) && w.most(w.tables[i]) > uint64(w.cut.items)
	}
	switch k.sub {
	case miscMemoryCopy, miscMemoryFill:
		return len(w.memories) > 0
	case miscMemoryInit:
		return len(w.memories) > 0 && segment(w.dataSizes, k.a, w.cut.bytes)
	case miscTableInit:
		return segment(w.elemSizes, k.a, w.cut.items) && table(k.b)
	case miscTableCopy:
		return table(k.a) && table(k.b)
	case miscTableFill:
		return table(k.a)
	}
	return false
}

// most is how many elements a table may reach.
func (w *writer) most(t resizable) uint64 {
	if t.bounded {
		return min(t.max, uint64(w.limits.Table))
	}
	return uint64(w.limits.Table)
}

// addPieces finds the instructions that are replaced and the types of the
// functions that stand for them.
func (w *writer) addPieces() {
	w.pieces = make(map[bulk]uint32, len(w.bulks))
	for _, k := range w.bulks {
		if !w.long(k) {
			continue
		}
		value := I32
		if k.sub == miscTableFill {
			value = w.tables[k.a].elem
		}
		w.pieces[k] = w.added(addedFuncs + len(w.pieceTypes))
		w.pieceTypes = append(w.pieceTypes, w.typeOf(funcType{params: []ValueType{I32, value, I32}}))
		w.pieceList = append(w.pieceList, k)
	}
}

// Locals of the functions that work by pieces.
const (
	pieceTo    = iota // where to
	pieceFrom         // from where, or what
	pieceLeft         // how much is left
	pieceCount        // the length of this piece
)

// piecer writes one of them.
type piecer struct {
	*editor
	k     bulk
	piece uint32
}

// inPieces writes the function that stands for k: the whole is tried for its
// bounds first, since an instruction that does not fit changes nothing.
//
//	if left > piece:
//		if it fits:
//			do it in pieces, backwards where it could overwrite its source
//			return
//		it fails below
//	else:
//		pay
//	do it
func (w *writer) inPieces(k bulk, b []byte) []byte {
	p := &piecer{editor: &editor{writer: w, out: b}, k: k, piece: w.cut.items}
	if k.onMemory() {
		p.piece = w.cut.bytes
	}
	p.with(opLocalGet, pieceLeft)
	p.i32(int64(int32(p.piece)))
	p.op(opI32GtU, opIf, emptyBlock)
	p.fits()
	p.op(opIf, emptyBlock)
	if k.sub == miscMemoryCopy || k.sub == miscTableCopy {
		p.with(opLocalGet, pieceFrom)
		p.with(opLocalGet, pieceTo)
		p.op(opI32LtU, opIf, emptyBlock)
		p.rounds(true)
		p.op(opReturn, opEnd)
	}
	p.rounds(false)
	p.op(opReturn, opEnd, opElse)
	p.payFor(pieceLeft)
	p.op(opEnd)
	p.operands(pieceLeft)
	return p.out
}

func (k bulk) onMemory() bool {
	return k.sub == miscMemoryCopy || k.sub == miscMemoryFill || k.sub == miscMemoryInit
}

// fits leaves whether both ranges are within their bounds.
func (p *piecer) fits() {
	k := p.k
	p.end(pieceTo)
	switch {
	case k.onMemory():
		p.memorySize()
	case k.sub == miscTableInit:
		p.tableSize(k.b)
	default:
		p.tableSize(k.a)
	}
	p.op(opI64LeU)
	switch k.sub {
	case miscMemoryFill, miscTableFill:
		return
	case miscMemoryCopy:
		p.end(pieceFrom)
		p.memorySize()
	case miscTableCopy:
		p.end(pieceFrom)
		p.tableSize(k.b)
	case miscMemoryInit: // one that was dropped fails at its first piece
		p.end(pieceFrom)
		p.i64(int64(p.dataSizes[k.a]))
	case miscTableInit:
		p.end(pieceFrom)
		p.i64(int64(p.elemSizes[k.a]))
	}
	p.op(opI64LeU, opI32And)
}

// end leaves where a range ends.
func (p *piecer) end(start uint32) {
	p.with(opLocalGet, start)
	p.op(opI64ExtendI32U)
	p.with(opLocalGet, pieceLeft)
	p.op(opI64ExtendI32U, opI64Add)
}

func (p *piecer) memorySize() {
	p.op(opMemorySize, 0, opI64ExtendI32U)
	p.i64(16)
	p.op(opI64Shl)
}

func (p *piecer) tableSize(table uint32) {
	p.op(opMisc, miscTableSize)
	p.out = appendU32(p.out, table)
	p.op(opI64ExtendI32U)
}

// rounds writes the loop over the pieces, of which there is one at least.
func (p *piecer) rounds(backwards bool) {
	p.op(opLoop, emptyBlock)
	p.with(opLocalGet, pieceLeft)
	p.i32(int64(int32(p.piece)))
	p.with(opLocalGet, pieceLeft)
	p.i32(int64(int32(p.piece)))
	p.op(opI32LtU, opSelect)
	p.with(opLocalSet, pieceCount)
	p.payFor(pieceCount)
	p.move(pieceLeft, opI32Sub)
	if backwards {
		p.at(pieceTo, pieceLeft)
		p.at(pieceFrom, pieceLeft)
		p.with(opLocalGet, pieceCount)
		p.instruction()
	} else {
		p.operands(pieceCount)
		p.move(pieceTo, opI32Add)
		if p.k.sub != miscMemoryFill && p.k.sub != miscTableFill {
			p.move(pieceFrom, opI32Add)
		}
	}
	p.with(opLocalGet, pieceLeft)
	p.op(opBrIf, 0, opEnd)
}

// move changes a local by the length of the piece.
func (p *piecer) move(local uint32, op byte) {
	p.with(opLocalGet, local)
	p.with(opLocalGet, pieceCount)
	p.op(op)
	p.with(opLocalSet, local)
}

// at leaves the sum of two locals.
func (p *piecer) at(a, b uint32) {
	p.with(opLocalGet, a)
	p.with(opLocalGet, b)
	p.op(opI32Add)
}

// operands does the instruction on the length in a local.
func (p *piecer) operands(length uint32) {
	p.with(opLocalGet, pieceTo)
	p.with(opLocalGet, pieceFrom)
	p.with(opLocalGet, length)
	p.instruction()
}

func (p *piecer) instruction() {
	p.op(opMisc, p.k.sub)
	switch p.k.sub {
	case miscMemoryFill:
		p.op(0)
	case miscMemoryCopy:
		p.op(0, 0)
	case miscMemoryInit:
		p.out = append(appendU32(p.out, p.k.a), 0)
	case miscTableFill:
		p.out = appendU32(p.out, p.k.a)
	case miscTableInit, miscTableCopy:
		p.out = appendU32(appendU32(p.out, p.k.a), p.k.b)
	}
}

// payFor charges the length in a local.
func (p *piecer) payFor(local uint32) {
	shift := int64(0)
	if p.k.onMemory() {
		shift = bytesShift
	}
	p.charge(local, opI64ShrU, shift)
	p.settle()
}

// bulk is the instruction as pieces know it; indices it does not have are
// those of an earlier one.
func (in *instr) bulk() bulk {
	switch in.sub {
	case miscTableInit, miscTableCopy:
		return bulk{in.sub, in.arg, in.two}
	case miscMemoryInit, miscTableFill:
		return bulk{in.sub, in.arg, 0}
	}
	return bulk{sub: in.sub}
}
