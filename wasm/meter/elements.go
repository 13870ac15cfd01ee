package meter

// constant copies a constant expression to out, functions moved, up to and
// with its end.
func (s *source) constant(r *reader, out []byte) []byte {
	for r.err == nil {
		at := r.off
		switch op := r.byte(); op {
		case opEnd:
			return append(out, op)
		case opI32Const:
			r.signed(32)
		case opI64Const:
			r.signed(64)
		case opF32Const:
			r.skip(4)
		case opF64Const:
			r.skip(8)
		case opI32Add, opI32Sub, opI32Mul, opI64Add, opI64Sub, opI64Mul: // extended constants
		case opGlobalGet:
			s.globalIndex(r)
		case opRefNull:
			heapType(r)
		case opRefFunc:
			f := s.function(r)
			if r.err == nil {
				s.taken[f] = true
				out = appendU32(append(out, op), s.moved(f))
			}
			continue
		case opVector:
			if b := r.byte(); b != 0x0c && r.err == nil {
				r.failAt(at, "vector instruction %#x in a constant", b)
			}
			r.skip(16)
		default:
			r.failAt(at, "instruction %#x in a constant", op)
		}
		if r.err == nil {
			out = append(out, r.src[at:r.off]...)
		}
	}
	return out
}

// globalIndex reads an index of the source's globals, so that those added stay
// out of its reach.
func (s *source) globalIndex(r *reader) uint32 {
	at := r.off
	g := r.u32()
	if r.err == nil && uint64(g) >= uint64(len(s.globals)) {
		r.failAt(at, "global %d of %d", g, len(s.globals))
	}
	return g
}

// heapType reads the kind of a null reference.
func heapType(r *reader) {
	at := r.off
	switch b := r.byte(); ValueType(b) {
	case FuncRef, ExternRef:
	default:
		r.failAt(at, "a reference of type %#x, which is not supported; compile without typed function references and garbage collection", b)
	}
}

// readElements copies the element segments with functions moved. A segment's
// first number has three bits (WebAssembly 2.0, 5.5.12): it is not active;
// it names a table, or is only declared; it has expressions, not indices.
func (s *source) readElements(r *reader) {
	n := r.count(2, maxElems, "element segments")
	for range n {
		at := r.off
		mode := r.u32()
		if r.err == nil && mode > 7 {
			r.failAt(at, "an element segment of the unknown mode %d", mode)
		}
		out := appendU32(s.elements, mode)
		passive, explicit, exprs := mode&1 != 0, mode&2 != 0, mode&4 != 0
		if !passive {
			if explicit {
				out = appendU32(out, r.u32())
			}
			out = s.constant(r, out)
		}
		if passive || explicit {
			out = append(out, elementType(r, exprs))
		}
		s.elements = s.members(r, out, exprs)
		if r.err != nil {
			return
		}
	}
}

func elementType(r *reader, exprs bool) byte {
	at := r.off
	t := r.byte()
	ok := t == 0
	if exprs {
		ok = ValueType(t) == FuncRef || ValueType(t) == ExternRef
	}
	if !ok {
		r.failAt(at, "element segment of type %#x; which is not supported; compile without typed function references and garbage collection", t)
	}
	return t
}

// members copies what a segment holds.
func (s *source) members(r *reader, out []byte, exprs bool) []byte {
	n := r.count(1, maxElems, "elements")
	s.elems += n
	if s.elems > maxElems {
		r.fail("more than %d elements", maxElems)
	}
	s.elemSizes = append(s.elemSizes, uint32(n))
	out = appendU32(out, uint32(n))
	for range n {
		if exprs {
			out = s.constant(r, out)
		} else {
			f := s.function(r)
			if r.err == nil {
				s.taken[f] = true
				out = appendU32(out, s.moved(f))
			}
		}
		if r.err != nil {
			break
		}
	}
	return out
}
