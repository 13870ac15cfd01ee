package proxywasm

import (
	"slices"

	"seawall/wasm/abi"

	"github.com/tetratelabs/wazero/api"
)

// hostFunc is a function that guests import.
//
// shape has a letter for each argument, of one or two parameters:
//
//	i  an i32        l  an i64
//	b  pointer and length of bytes that the guest passes
//	4  pointer to where a u32 is put        8  to where a u64 is put
//	d  pointers to where address and length of bytes are put, for which the
//	   guest allocates memory
//	.  an i32 that is not read; then all are
type hostFunc struct {
	shape   string
	results resultKind
	// older are parameter counts that former versions of the ABI had, all of
	// i32; only for functions that read no argument.
	older []int
	run   func(*guest, *frame) uint32
	// counts is set where the sums of fields stay true.
	counts bool
}

type resultKind uint8

const (
	returnsStatus resultKind = iota
	returnsNothing
	returnsEither // as the importing module declares it
)

// params returns the parameter types.
func (h *hostFunc) params() []api.ValueType {
	var types []api.ValueType
	for _, c := range h.shape {
		switch c {
		case 'l':
			types = append(types, api.ValueTypeI64)
		case 'b', 'd':
			types = append(types, api.ValueTypeI32, api.ValueTypeI32)
		default:
			types = append(types, api.ValueTypeI32)
		}
	}
	return types
}

// fits reports whether the function can be linked to an import of that type.
func (h *hostFunc) fits(params, results []api.ValueType) bool {
	switch len(results) {
	case 0:
		if h.results == returnsStatus {
			return false
		}
	case 1:
		if h.results == returnsNothing || results[0] != api.ValueTypeI32 {
			return false
		}
	default:
		return false
	}
	if slices.Contains(h.older, len(params)) {
		return !slices.ContainsFunc(params, func(t api.ValueType) bool { return t != api.ValueTypeI32 })
	}
	return slices.Equal(params, h.params())
}

// signature prints the function's type as Check tells it.
func (h *hostFunc) signature() string {
	switch h.results {
	case returnsNothing:
		return signature(h.params(), nil)
	case returnsEither:
		return signature(h.params(), nil) + ", with or without a result i32"
	default:
		return signature(h.params(), []api.ValueType{api.ValueTypeI32})
	}
}

// bind returns what is linked.
func (h *hostFunc) bind(result bool) func(*abi.Context, api.Module, []uint64) {
	return func(c *abi.Context, _ api.Module, stack []uint64) {
		status := h.enter(c, stack)
		if result {
			stack[0] = uint64(status)
		}
	}
}

// enter charges a call, checks its arguments and runs it. It panics with a
// *abi.Trap when the budget is spent: that unwinds the guest.
func (h *hostFunc) enter(c *abi.Context, stack []uint64) uint32 {
	g, ok := c.Guest.(*guest)
	if !ok {
		// The module's start section runs before there is a guest.
		if c.Machine != nil {
			spend(c.Machine, 0)
		}
		return statusInternalFailure
	}
	if g.depth == len(g.frames) {
		return statusInternalFailure
	}
	f := &g.frames[g.depth]
	bytes, ok := f.read(g.memory, h.shape, stack)
	spend(g.machine, bytes+g.debt)
	g.debt = 0
	if !ok {
		return statusInvalidMemory
	}
	if !h.counts {
		g.sum = sum{}
	}
	g.depth++
	status := h.run(g, f)
	g.depth--
	return status
}

func spend(m abi.Machine, n int) {
	if err := m.Spend(n); err != nil {
		panic(err)
	}
}

// frame has the arguments of one host call, by kind in order of their
// appearance. The bytes of in lie in the guest's memory: they change, or are
// no longer its memory, once the guest runs.
type frame struct {
	num [4]uint64
	in  [4][]byte
	out [4]uint32
}

// read takes the arguments from stack, of which i32 have garbage in their
// upper halves. It returns how many bytes the guest passes; not ok when any
// pointer leads out of memory.
func (f *frame) read(m api.Memory, shape string, stack []uint64) (bytes int, ok bool) {
	*f = frame{}
	num, in, out := 0, 0, 0
	ok = true
	for _, c := range []byte(shape) {
		switch c {
		case '.':
			return 0, true
		case 'i':
			f.num[num] = uint64(uint32(stack[0]))
			num++
		case 'l':
			f.num[num] = stack[0]
			num++
		case 'b':
			p, n := uint32(stack[0]), uint32(stack[1])
			// Nothing may be anywhere: languages point to nowhere then.
			if n > 0 {
				b, inside := m.Read(p, n)
				f.in[in] = b
				bytes += len(b)
				ok = ok && inside
			}
			in++
			stack = stack[1:]
		case '4', '8':
			f.out[out] = uint32(stack[0])
			ok = ok && within(m, f.out[out], uint32(c-'0'))
			out++
		case 'd':
			f.out[out], f.out[out+1] = uint32(stack[0]), uint32(stack[1])
			ok = ok && within(m, f.out[out], 4) && within(m, f.out[out+1], 4)
			out += 2
			stack = stack[1:]
		}
		stack = stack[1:]
	}
	return bytes, ok
}

func within(m api.Memory, p, n uint32) bool {
	_, ok := m.Read(p, n)
	return ok
}

// put32 puts v where output i points to, put64 likewise. Both were checked
// when the call was read, and memory does not shrink.
func (g *guest) put32(f *frame, i int, v uint32) uint32 {
	if !g.memory.WriteUint32Le(f.out[i], v) {
		return statusInvalidMemory
	}
	return statusOK
}

func (g *guest) put64(f *frame, i int, v uint64) uint32 {
	if !g.memory.WriteUint64Le(f.out[i], v) {
		return statusInvalidMemory
	}
	return statusOK
}

// give copies v into memory that the guest allocates for it, and puts address
// and length where outputs i and i+1 point to. Nothing is allocated for
// nothing: guests' allocators may fail on it.
func give[T string | []byte](g *guest, f *frame, i int, v T) uint32 {
	var p uint32
	if len(v) > 0 {
		p = g.allocate(len(v))
		room, ok := g.memory.Read(p, uint32(len(v)))
		if p == 0 || !ok {
			return statusInvalidMemory
		}
		g.debt += copy(room, v)
	}
	if s := g.put32(f, i, p); s != statusOK {
		return s
	}
	return g.put32(f, i+1, uint32(len(v)))
}
