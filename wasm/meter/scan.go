package meter

// body is a function's code.
type body struct {
	off, end int    // in the source, locals included
	code     int    // the first instruction
	locals   uint32 // with parameters
	points   int    // its first in source.points; the next body's is the end
	calls    int    // its first in source.callees
	counted  bool   // its depth is counted
	bulk     bool   // it has instructions that pay by length
	weight   uint32 // units of depth
}

// point is a place where fuel is paid for what may run until the next one is
// met. The first of a function is its entry.
type point struct {
	off  uint32 // of the instruction before which it is paid
	cost uint32
}

const (
	// stride bounds what one point pays for; longer straight code is cut. It
	// is small against a slice of fuel, so that little is left to run when a
	// function that is out of fuel asks for more.
	stride = 8192
	// free is the cost up to which a function without loops and calls pays
	// nothing, as each call pays weightCall.
	free = weightCall
	// nesting bounds blocks in blocks, and bodyMax the bytes of a function:
	// wazero's time goes with the square of the one, its memory is 650 times
	// the other. A large Go program has 550 blocks and 30 kB.
	nesting = 6000
	bodyMax = 1 << 20
)

// indirect marks a callee that is a type, not a function.
const indirect = 1 << 31

// state is a position's point and the cost of the dearest path from there.
type state struct{ point, cost int32 }

// dead is the state of a place that is never reached.
func dead() state { return state{point: -1} }

// frame is an open block.
type frame struct {
	op     byte  // opBlock for the function's own
	fresh  bool  // its end is reached from several points: a new one pays behind it
	region int32 // index of the loop that its end belongs to
	start  state // at its beginning
	end    state // of branches to its end
}

// scanner walks the function bodies and finds what each point pays: the
// longest path through the blocks, in one pass, as all branches but those to
// loops go forward. Each open loop is a region with a state of its own; that
// of an outer one rests while an inner one is walked.
type scanner struct {
	*source
	r       *reader
	b       *body
	frames  []frame
	regions []state
	noted   map[bulk]bool
}

// scanAll fills bodies, points and callees, and refuses code that could not
// be followed.
func (s *source) scanAll() error {
	sc := &scanner{source: s}
	for i := range s.bodies {
		sc.b = &s.bodies[i]
		if err := sc.function(s.types[s.funcs[s.hosts+i]]); err != nil {
			return err
		}
	}
	return nil
}

func (sc *scanner) function(t funcType) error {
	b := sc.b
	r := &reader{src: sc.bin, off: b.off, end: b.end, part: "code section"}
	if b.end-b.off > bodyMax {
		r.fail("a function of %d bytes; at most %d are taken", b.end-b.off, bodyMax)
		return r.err
	}
	sc.r = r
	sc.locals(uint32(len(t.params)))
	b.code, b.points, b.calls = r.off, len(sc.points), len(sc.callees)
	b.weight = 1 + (uint32(b.end-b.off)+8*b.locals)/1024
	sc.regions = append(sc.regions[:0], sc.pay())
	sc.frames = append(sc.frames[:0], frame{op: opBlock, end: dead()})
	var in instr
	for r.err == nil && len(sc.frames) > 0 {
		if cur := sc.now(); cur.point >= 0 && cur.cost >= stride {
			sc.close(*cur)
			*cur = sc.pay()
		}
		sc.next(r, &in)
		if r.err == nil {
			sc.step(&in)
		}
	}
	if r.err == nil && r.left() > 0 {
		r.fail("%d bytes behind the end of a function", r.left())
	}
	sc.work += uint64(len(sc.points)-b.points) * uint64(b.locals)
	if r.err == nil && sc.work > maxWork(len(sc.bin)) {
		r.failAt(b.off, "too many locals at loops, arguments of calls or labels for the size of the module; it would take too long to compile")
	}
	return r.err
}

// maxWork bounds what the compiler has to handle for a source of n bytes
// beyond its instructions: locals at loops, arguments of calls and blocks,
// labels of branch tables. Each takes some microseconds and a kilobyte. Real
// modules, of which none of the corpus exceeds an eighth of it, have few; a
// module of 11 kB can have millions.
func maxWork(n int) uint64 { return 250_000 + uint64(n)/4 }

func (sc *scanner) locals(params uint32) {
	r, total := sc.r, uint64(params)
	for range r.count(2, maxLocals, "groups of locals") {
		at := r.off
		total += uint64(r.u32())
		valueType(r)
		if total > maxLocals {
			r.failAt(at, "more than %d locals in a function", maxLocals)
		}
	}
	sc.b.locals = uint32(total)
	sc.work += total / 8
}

// now returns the state of the present place.
func (sc *scanner) now() *state { return &sc.regions[len(sc.regions)-1] }

// pay opens a point at the present place.
func (sc *scanner) pay() state {
	sc.points = append(sc.points, point{off: uint32(sc.r.off)})
	return state{point: int32(len(sc.points) - 1)}
}

// close has a state's point pay for its path.
func (sc *scanner) close(st state) {
	if st.point >= 0 {
		p := &sc.points[st.point]
		p.cost = max(p.cost, uint32(st.cost))
	}
}

// stop ends the present path.
func (sc *scanner) stop() {
	sc.close(*sc.now())
	*sc.now() = dead()
}

// branch carries the present path to a label.
func (sc *scanner) branch(label uint32) {
	if uint64(label) >= uint64(len(sc.frames)) {
		sc.r.fail("a branch out of %d blocks where %d are open", label, len(sc.frames))
		return
	}
	f := &sc.frames[len(sc.frames)-1-int(label)]
	sc.close(*sc.now())
	if sc.now().point < 0 || f.op == opLoop {
		return
	}
	// From within a loop, the outer path goes on from where it entered it.
	from := sc.regions[f.region]
	f.end = sc.meet(f.end, from, f)
}

func (sc *scanner) step(in *instr) {
	if cur := sc.now(); cur.point >= 0 {
		cur.cost += sc.weight(in)
	}
	switch in.op {
	case opUnreachable, opReturn:
		sc.stop()
	case opBlock, opIf, opLoop:
		sc.open(in)
	case opElse:
		f := &sc.frames[len(sc.frames)-1]
		if f.op != opIf {
			sc.r.failAt(in.at, "an else without its if")
			return
		}
		sc.branch(0)
		f.op = opElse
		*sc.now() = f.start
	case opEnd:
		sc.leave()
	case opBr:
		sc.branch(in.arg)
		sc.stop()
	case opBrIf:
		sc.branch(in.arg)
	case opBrTable:
		sc.work += uint64(in.arg)
		for i := uint32(0); i <= in.arg && sc.r.err == nil; i++ {
			sc.branch(sc.r.u32())
		}
		sc.stop()
	case opCall, opReturnCall, opCallIndirect, opReturnCallIndirect:
		sc.call(in)
	case opLocalGet, opLocalSet, opLocalTee:
		if in.arg >= sc.b.locals {
			sc.r.failAt(in.at, "local %d of %d", in.arg, sc.b.locals)
		}
	case opRefFunc:
		sc.taken[in.arg] = true
	case opTableSet:
		sc.mutates = true
	case opMemoryGrow:
		sc.grows, sc.b.bulk = true, true
	case opMisc:
		sc.misc(in)
	}
}

func (sc *scanner) misc(in *instr) {
	switch in.sub {
	case miscDataDrop, miscElemDrop:
		sc.mutates = true
	case miscTableGrow:
		sc.mutates, sc.b.bulk = true, true
	case miscTableInit, miscTableCopy, miscTableFill:
		sc.mutates, sc.b.bulk = true, true
		sc.note(in.bulk())
	case miscMemoryInit, miscMemoryCopy, miscMemoryFill:
		sc.b.bulk = true
		sc.note(in.bulk())
	}
}

// note keeps each instruction that works by length once.
func (sc *scanner) note(k bulk) {
	if sc.noted == nil {
		sc.noted = map[bulk]bool{}
	}
	if !sc.noted[k] {
		sc.noted[k] = true
		sc.bulks = append(sc.bulks, k)
	}
}

func (sc *scanner) call(in *instr) {
	callee, typ := in.arg, in.arg
	if in.op == opCall || in.op == opReturnCall {
		typ = sc.funcs[in.arg]
	} else {
		callee |= indirect
	}
	sc.callees = append(sc.callees, callee)
	sc.work += uint64(len(sc.types[typ].params) + len(sc.types[typ].results))
	if in.op == opReturnCall || in.op == opReturnCallIndirect {
		sc.stop()
	}
}

// open enters a block.
func (sc *scanner) open(in *instr) {
	if len(sc.frames) >= nesting {
		sc.r.failAt(in.at, "more than %d blocks within blocks", nesting)
		return
	}
	if in.arg != noType {
		sc.work += uint64(len(sc.types[in.arg].params) + len(sc.types[in.arg].results))
	}
	f := frame{op: in.op, region: int32(len(sc.regions) - 1), start: *sc.now(), end: dead()}
	if in.op == opLoop {
		sc.close(*sc.now())
		sc.regions = append(sc.regions, sc.pay())
	}
	sc.frames = append(sc.frames, f)
}

// leave ends a block.
func (sc *scanner) leave() {
	f := sc.frames[len(sc.frames)-1]
	sc.frames = sc.frames[:len(sc.frames)-1]
	if f.op == opLoop {
		through := sc.now().point >= 0
		sc.stop()
		sc.regions = sc.regions[:len(sc.regions)-1]
		if !through {
			*sc.now() = dead()
		}
		return
	}
	if len(sc.frames) == 0 {
		sc.stop()
		return
	}
	st := f.end
	if f.op == opIf { // without else
		st = sc.meet(f.start, st, &f)
	}
	st = sc.meet(*sc.now(), st, &f)
	if f.fresh {
		sc.close(st)
		st = sc.pay()
	}
	*sc.now() = st
}

// meet joins two paths at the end of f. Paths from different points both end
// there, and a new point pays for what follows.
func (sc *scanner) meet(a, b state, f *frame) state {
	switch {
	case a.point < 0:
		return b
	case b.point < 0:
		return a
	case a.point == b.point:
		a.cost = max(a.cost, b.cost)
		return a
	}
	sc.close(a)
	sc.close(b)
	f.fresh = true
	return dead()
}
