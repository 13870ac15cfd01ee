package meter

import (
	"strconv"
)

// writer makes the rewritten module.
type writer struct {
	*source
	limits Limits
	extra  []funcType        // types added behind the source's
	known  map[string]uint32 // index of each type by its form
	saved  []string
	void   uint32 // type of func()
	unary  uint32 // type of func(i32) i32
	out    []byte

	cut        cut
	pieces     map[bulk]uint32 // index of the function that stands for it
	pieceList  []bulk
	pieceTypes []uint32
}

// The functions added behind the source's.
const (
	addedSlow   = iota // entered out of fuel or too deep
	addedRefill        // (units) units: pays them
	addedBytes         // (bytes) bytes: pays for work on memory
	addedItems         // (elements) elements: pays for work on tables
	addedPages         // (pages) pages: pays for growth of memory
	addedFuncs
)

// Work by length, in units of fuel, as shifts.
const (
	bytesShift = 4  // sixteen bytes are a unit
	pagesShift = 12 // a page is zeroed
)

// yield is the function index of the import added.
func (w *writer) yield() uint32 { return uint32(w.hosts) }

// added is the function index of a function added.
func (w *writer) added(which int) uint32 { return uint32(len(w.funcs) + 1 + which) }

func (w *writer) fuel() uint32  { return uint32(len(w.globals)) }
func (w *writer) depth() uint32 { return uint32(len(w.globals)) + 1 }

func (w *writer) module() []byte {
	w.addTypes()
	w.out = make([]byte, 0, len(w.bin)+len(w.bin)/8+32*len(w.points)+1024)
	w.out = append(w.out, w.bin[:8]...)
	w.section(secType, w.typeSection)
	w.section(secImport, w.importSection)
	w.section(secFunction, w.functionSection)
	w.section(secTable, w.tableSection)
	w.section(secMemory, w.memorySection)
	w.section(secGlobal, w.globalSection)
	w.section(secExport, w.exportSection)
	w.section(secElement, w.elementSection)
	w.section(secDataCount, w.copied(secDataCount))
	w.section(secCode, w.codeSection)
	w.section(secData, w.copied(secData))
	w.section(secCustom, w.nameSection)
	return w.out
}

// section appends a section unless fill leaves it empty.
func (w *writer) section(id byte, fill func([]byte) []byte) {
	at := len(w.out)
	w.out = sized(append(w.out, id), fill)
	if len(w.out) == at+2 {
		w.out = w.out[:at]
	}
}

func (w *writer) copied(id byte) func([]byte) []byte {
	return func(b []byte) []byte {
		if r := w.at[id]; r != nil {
			b = append(b, w.bin[r.off:r.end]...)
		}
		return b
	}
}

// items returns what follows the count of a section's items.
func (w *writer) items(id byte) (n uint32, rest []byte) {
	if w.at[id] == nil {
		return 0, nil
	}
	r := *w.at[id]
	n = r.u32()
	return n, w.bin[r.off:r.end]
}

// addTypes finds or adds the types the result needs: those of the functions
// added and of the blocks around the bodies that count their depth.
func (w *writer) addTypes() {
	w.known = make(map[string]uint32, len(w.types))
	for i, t := range w.types {
		key := string(appendTypes(nil, t))
		if _, ok := w.known[key]; !ok {
			w.known[key] = uint32(i)
		}
	}
	w.void = w.typeOf(funcType{})
	w.unary = w.typeOf(funcType{params: []ValueType{I32}, results: []ValueType{I32}})
	w.addPieces()
	for i := range w.bodies {
		if t := w.types[w.funcs[w.hosts+i]]; w.bodies[i].counted && len(t.results) > 1 {
			w.typeOf(funcType{results: t.results})
		}
	}
}

func (w *writer) typeOf(t funcType) uint32 {
	key := appendTypes(nil, t)
	i, ok := w.known[string(key)]
	if !ok {
		i = uint32(len(w.types) + len(w.extra))
		w.known[string(key)] = i
		w.extra = append(w.extra, t)
	}
	return i
}

func (w *writer) typeSection(b []byte) []byte {
	n, rest := w.items(secType)
	b = append(appendU32(b, n+uint32(len(w.extra))), rest...)
	for _, t := range w.extra {
		b = appendTypes(b, t)
	}
	return b
}

func (w *writer) importSection(b []byte) []byte {
	b = appendU32(b, uint32(len(w.imports)+1))
	for _, i := range w.imports {
		b = append(appendName(appendName(b, i.module), i.name), i.kind)
		switch i.kind {
		case kindFunc:
			b = appendU32(b, i.typ)
		case kindTable:
			b = w.table(b, i.size)
		case kindMemory:
			b = clamped(b, i.size, w.limits.Memory)
		case kindGlobal:
			b = append(b, byte(i.global.typ), 0)
		}
	}
	b = append(appendName(appendName(b, ImportModule), Yield), kindFunc)
	return appendU32(b, w.void)
}

func (w *writer) table(b []byte, t resizable) []byte {
	return clamped(append(b, byte(t.elem)), t, w.limits.Table)
}

// clamped appends limits whose maximum is at most limit.
func clamped(b []byte, l resizable, limit uint32) []byte {
	most := uint64(limit)
	if l.bounded {
		most = min(most, l.max)
	}
	return appendU32(appendU32(append(b, 1), uint32(l.min)), uint32(most))
}

func (w *writer) functionSection(b []byte) []byte {
	n, rest := w.items(secFunction)
	b = append(appendU32(b, n+addedFuncs+uint32(len(w.pieceList))), rest...)
	b = appendU32(b, w.void)
	for range addedFuncs - 1 {
		b = appendU32(b, w.unary)
	}
	for _, t := range w.pieceTypes {
		b = appendU32(b, t)
	}
	return b
}

func (w *writer) tableSection(b []byte) []byte {
	own := w.tables[w.source.imported.tables:]
	if len(own) == 0 {
		return b
	}
	b = appendU32(b, uint32(len(own)))
	for _, t := range own {
		b = w.table(b, t)
	}
	return b
}

func (w *writer) memorySection(b []byte) []byte {
	own := w.memories[w.source.imported.memories:]
	if len(own) == 0 {
		return b
	}
	b = appendU32(b, uint32(len(own)))
	for _, m := range own {
		b = clamped(b, m, w.limits.Memory)
	}
	return b
}

func (w *writer) globalSection(b []byte) []byte {
	b = appendU32(b, uint32(len(w.globals)-w.source.imported.globals+2))
	b = append(b, w.globalInits...)
	for _, v := range []int64{0, int64(w.limits.Depth)} {
		b = append(b, byte(I64), 1, opI64Const)
		b = append(appendS64(b, v), opEnd)
	}
	return b
}

func (w *writer) exportSection(b []byte) []byte {
	var list []byte
	n := uint32(len(w.exports))
	for _, e := range w.exports {
		index := e.index
		if e.kind == kindFunc {
			index = w.moved(index)
		}
		list = appendU32(append(appendName(list, e.name), e.kind), index)
	}
	add := func(name string, kind byte, index uint32) {
		list = appendU32(append(appendName(list, name), kind), index)
		n++
	}
	add(FuelGlobal, kindGlobal, w.fuel())
	add(DepthGlobal, kindGlobal, w.depth())
	if w.start.set {
		add(StartExport, kindFunc, w.moved(w.start.index))
	}
	for i, g := range w.globals {
		switch {
		case !g.mutable:
		case !g.typ.number():
			w.mutates = true
		default:
			name := Reserved + "global_" + strconv.Itoa(i)
			add(name, kindGlobal, uint32(i))
			w.saved = append(w.saved, name)
		}
	}
	return append(appendU32(b, n), list...)
}

func (w *writer) elementSection(b []byte) []byte {
	n, _ := w.items(secElement)
	if n == 0 {
		return b
	}
	return append(appendU32(b, n), w.elements...)
}

// nameSection keeps the names of functions, for stack traces. A malformed one
// is dropped, as is all else of it.
func (w *writer) nameSection(b []byte) []byte {
	if w.names == nil {
		return b
	}
	r := *w.names
	for r.err == nil && r.left() > 0 {
		id := r.byte()
		sub := r.sub(r.u32(), "function names")
		if id != 1 || r.err != nil {
			continue
		}
		list, ok := w.functionNames(sub)
		if !ok {
			return b
		}
		b = append(appendName(b, "name"), 1)
		return sized(b, func(b []byte) []byte { return append(b, list...) })
	}
	return b
}

func (w *writer) functionNames(r *reader) (list []byte, ok bool) {
	n := r.count(2, len(w.funcs), "names")
	list = appendU32(make([]byte, 0, r.left()+r.left()/8), uint32(n))
	last := int64(-1)
	for range n {
		f := w.source.function(r)
		name := r.name()
		if r.err != nil || int64(f) <= last {
			return nil, false
		}
		last = int64(f)
		list = appendName(appendU32(list, w.moved(f)), name)
	}
	return list, r.left() == 0
}
