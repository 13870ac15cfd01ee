package meter

// Opcodes the rewriter looks at; the others are told by range in operands.
const (
	opUnreachable        = 0x00
	opBlock              = 0x02
	opLoop               = 0x03
	opIf                 = 0x04
	opElse               = 0x05
	opEnd                = 0x0b
	opBr                 = 0x0c
	opBrIf               = 0x0d
	opBrTable            = 0x0e
	opReturn             = 0x0f
	opCall               = 0x10
	opCallIndirect       = 0x11
	opReturnCall         = 0x12
	opReturnCallIndirect = 0x13
	opSelect             = 0x1b
	opLocalGet           = 0x20
	opLocalSet           = 0x21
	opLocalTee           = 0x22
	opGlobalGet          = 0x23
	opGlobalSet          = 0x24
	opTableSet           = 0x26
	opMemoryGrow         = 0x40
	opMemorySize         = 0x3f
	opI32Const           = 0x41
	opI64Const           = 0x42
	opF32Const           = 0x43
	opF64Const           = 0x44
	opI32LtS             = 0x48
	opI32LtU             = 0x49
	opI32GtU             = 0x4b
	opI32LeU             = 0x4d
	opI64LtS             = 0x53
	opI64LeU             = 0x58
	opI32Add             = 0x6a
	opI32Sub             = 0x6b
	opI32Mul             = 0x6c
	opI32And             = 0x71
	opI64Add             = 0x7c
	opI64Sub             = 0x7d
	opI64Mul             = 0x7e
	opI64Or              = 0x84
	opI64Shl             = 0x86
	opI64ShrU            = 0x88
	opI64ExtendI32U      = 0xad
	opRefNull            = 0xd0
	opRefFunc            = 0xd2
	opMisc               = 0xfc
	opVector             = 0xfd
	opAtomic             = 0xfe
)

// Opcodes behind opMisc.
const (
	miscMemoryInit = 0x08
	miscDataDrop   = 0x09
	miscMemoryCopy = 0x0a
	miscMemoryFill = 0x0b
	miscTableInit  = 0x0c
	miscElemDrop   = 0x0d
	miscTableCopy  = 0x0e
	miscTableGrow  = 0x0f
	miscTableSize  = 0x10
	miscTableFill  = 0x11
)

// noType is the type index of a block without parameters and of at most one
// result.
const noType = ^uint32(0)

// instr is one instruction.
type instr struct {
	at  int // where it begins
	op  byte
	sub byte   // behind a prefix
	arg uint32 // index or label; of br_table, how many labels follow before the last
	two uint32 // the second index behind opMisc
}

// next reads an instruction. The labels of br_table, arg and one more, are
// left to the caller.
func (s *source) next(r *reader, in *instr) {
	in.at = r.off
	in.op = r.byte()
	switch op := in.op; {
	case op >= 0x45 && op <= 0xc4: // numbers: no operands
	case op >= 0x28 && op <= 0x3e:
		memoryOperand(r)
	case op >= opLocalGet && op <= opLocalTee, op == opBr, op == opBrIf, op == opBrTable, op == 0x25, op == opTableSet:
		in.arg = r.u32()
	case op == opGlobalGet, op == opGlobalSet:
		in.arg = s.globalIndex(r)
	case op == opI32Const:
		r.signed(32)
	case op == opI64Const:
		r.signed(64)
	case op == opF32Const:
		r.skip(4)
	case op == opF64Const:
		r.skip(8)
	case op == opCall, op == opReturnCall, op == opRefFunc:
		in.arg = s.function(r)
	case op == opCallIndirect, op == opReturnCallIndirect:
		in.arg = s.typeIndex(r)
		r.u32()
	case op >= opBlock && op <= opIf:
		in.arg = s.blockType(r)
	case op <= 0x01, op == opElse, op == opEnd, op == opReturn, op == 0x1a, op == 0x1b, op == 0xd1:
	default:
		s.rare(r, in)
	}
}

// rare reads what next leaves: prefixed instructions and what is refused.
func (s *source) rare(r *reader, in *instr) {
	switch op := in.op; op {
	case opMisc:
		in.sub = r.byte()
		if in.sub >= 0x80 {
			r.failAt(in.at, "an instruction whose number is not in its shortest form, which is not supported")
			return
		}
		miscOperands(r, in)
	case opVector:
		in.sub = r.byte()
		vectorOperands(r, in)
	case opAtomic:
		in.sub = r.byte()
		switch {
		case in.sub == 3:
			r.byte()
		case in.sub <= 2, in.sub >= 0x10 && in.sub <= 0x4e:
			memoryOperand(r)
		default:
			r.failAt(in.at, "the unknown atomic instruction %#x", in.sub)
		}
	case 0x1c: // select with its type
		if n := r.u32(); n != 1 && r.err == nil {
			r.failAt(in.at, "a select of %d types", n)
		}
		valueType(r)
	case 0x3f, opMemoryGrow:
		reserved(r)
	case opRefNull:
		heapType(r)
	case 0x06, 0x07, 0x08, 0x09, 0x0a, 0x18, 0x19, 0x1f:
		r.failAt(in.at, "an instruction of exception handling (%#x)%s", op, noExceptions)
	case 0x14, 0x15, 0xd4, 0xd5, 0xd6:
		r.failAt(in.at, "an instruction of typed function references (%#x), which is not supported; compile without them", op)
	case 0xfb:
		r.failAt(in.at, "an instruction of garbage collection, which is not supported; compile without it")
	default:
		r.failAt(in.at, "the unknown instruction %#x", op)
	}
}

func memoryOperand(r *reader) {
	at := r.off
	if align := r.u32(); align > 31 && r.err == nil {
		r.failAt(at, "an access that names a memory or is aligned to 2^%d; a module may have one memory", align)
	}
	r.u32()
}

// reserved reads the index of the one memory.
func reserved(r *reader) {
	at := r.off
	if r.byte() != 0 && r.err == nil {
		r.failAt(at, "an instruction on another memory; a module may have one memory")
	}
}

func miscOperands(r *reader, in *instr) {
	switch sub := in.sub; {
	case sub <= 0x07: // saturating conversions
	case sub == miscMemoryInit:
		in.arg = r.u32()
		reserved(r)
	case sub == miscMemoryCopy:
		reserved(r)
		reserved(r)
	case sub == miscMemoryFill:
		reserved(r)
	case sub == miscTableInit, sub == miscTableCopy:
		in.arg, in.two = r.u32(), r.u32()
	case sub <= miscTableFill:
		in.arg = r.u32()
	default:
		r.failAt(in.at, "the unknown instruction 0xfc %#x", sub)
	}
}

// vectorOperands reads what follows a vector opcode. wazero takes opcodes for
// single bytes and the second byte of those from 0x80 for a nop of its own, so
// nothing but that byte may stand there: otherwise it would see other
// instructions than the rewriter did.
func vectorOperands(r *reader, in *instr) {
	switch sub := in.sub; {
	case sub >= 0x80:
		if b := r.byte(); b != 1 && r.err == nil {
			r.failAt(in.at, "the vector instruction %#x of a proposal (relaxed SIMD), which is not supported; compile without it", uint32(sub&0x7f)|uint32(b)<<7)
		}
	case sub <= 0x0b, sub == 0x5c, sub == 0x5d:
		memoryOperand(r)
	case sub == 0x0c, sub == 0x0d:
		r.skip(16)
	case sub >= 0x15 && sub <= 0x22:
		r.byte()
	case sub >= 0x54 && sub <= 0x5b:
		memoryOperand(r)
		r.byte()
	}
}

// blockType reads a block's type and returns its index, or noType.
func (s *source) blockType(r *reader) uint32 {
	if r.off < r.end {
		switch b := r.src[r.off]; {
		case b == 0x40 || ValueType(b).known():
			r.off++
			return noType
		case b == 0x63 || b == 0x64:
			valueType(r)
			return noType
		}
	}
	at := r.off
	t := r.signed(33)
	if r.err == nil && (t < 0 || t >= int64(len(s.types))) {
		r.failAt(at, "block type %d of %d", t, len(s.types))
		return noType
	}
	return uint32(t)
}

// noExceptions ends the refusal of exceptions. wazero 1.12 copies the whole
// stack at each try_table and keeps it until its end, so that time and memory
// go with the square of the depth: 8,192 nested calls took 1.8 GB.
const noExceptions = ", which is not supported; compile without exceptions (for C++ -fno-exceptions)"

// The host call, and the call of a function without loops and calls that is
// too cheap to pay for itself: its callers pay for it with the call.
const (
	weightHost = 64
	weightCall = 16
	weightGrow = 400
)

// weight is what an instruction pays, in units of about a third of a
// nanosecond.
func (s *source) weight(in *instr) int32 {
	switch op := in.op; {
	case op == opCall, op == opReturnCall:
		if in.arg < uint32(s.hosts) {
			return weightHost
		}
		return weightCall
	case op == opCallIndirect, op == opReturnCallIndirect:
		return weightHost // the table may hold a host function
	case op == opMemoryGrow:
		return weightGrow
	case op >= 0x6d && op <= 0x70, op >= 0x7f && op <= 0x82: // division of integers
		return 8
	case op == 0x91, op == 0x95, op == 0x9f, op == 0xa3: // square root, division
		return 6
	case op >= 0x8d && op <= 0x90, op >= 0x9b && op <= 0x9e, op >= 0xa8 && op <= 0xb1: // rounding, truncation
		return 4
	case op >= 0x28 && op <= 0x3e, op == 0x25, op == opTableSet:
		return 2
	case op == opVector:
		return 4
	case op == opAtomic:
		if in.sub <= 2 {
			return weightGrow // notify and wait leave the compiled code
		}
		return 20
	case op == opMisc && in.sub == miscTableGrow:
		return weightGrow
	case op == opMisc && in.sub >= miscMemoryInit:
		return 40
	case op == opMisc:
		return 4
	}
	return 1
}
