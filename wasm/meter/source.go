package meter

import (
	"bytes"
	"fmt"
	"strings"
)

// Section ids of the binary format; their order in a module is in rank.
const (
	secCustom = iota
	secType
	secImport
	secFunction
	secTable
	secMemory
	secGlobal
	secExport
	secStart
	secElement
	secCode
	secData
	secDataCount
	secTag
	sections
)

// What a source may have of each. Compilers stay far below; wazero takes up
// to some hundred bytes for each, before anything has run.
const (
	maxTypes   = 50_000
	maxArity   = 1000 // params and results of a type, as browsers have it
	maxImports = 10_000
	maxFuncs   = 200_000
	maxTables  = 32
	maxGlobals = 50_000
	maxExports = 100_000
	maxTags    = 10_000
	maxElems   = 10_000_000 // in all segments, and in one table
	maxLocals  = 50_000     // in one function
)

func sectionName(id byte) string {
	names := [sections]string{"custom section", "type section", "import section", "function section", "table section", "memory section",
		"global section", "export section", "start section", "element section", "code section", "data section", "data count section", "tag section"}
	return names[id]
}

// rank gives the order in which sections must come; 0 is for custom ones,
// which may come anywhere.
func rank(id byte) byte {
	ranks := [sections]byte{secType: 1, secImport: 2, secFunction: 3, secTable: 4, secMemory: 5, secTag: 6, secGlobal: 7,
		secExport: 8, secStart: 9, secElement: 10, secDataCount: 11, secCode: 12, secData: 13}
	return ranks[id]
}

// Kinds of imports and exports.
const (
	kindFunc = iota
	kindTable
	kindMemory
	kindGlobal
	kindTag
	kinds
)

// funcType is a function's type.
type funcType struct{ params, results []ValueType }

// resizable is a memory's or a table's type.
type resizable struct {
	elem     ValueType // of a table
	min, max uint64
	bounded  bool // max was given
	shared   bool
	wide     bool // 64-bit
	off      int
}

type global struct {
	typ     ValueType
	mutable bool
}

type imported struct {
	module, name string
	kind         byte
	typ          uint32 // of a function
	size         resizable
	global       global
	off          int
}

type exported struct {
	name  string
	kind  byte
	index uint32
	off   int
}

// source is what a module's sections say, with the indices of functions in
// globals and elements already moved to make room for the import added.
type source struct {
	bin      []byte
	at       [sections]*reader // each section's content; nil where it is missing
	customs  []string
	names    *reader // the content of the name section behind its name
	types    []funcType
	imports  []imported
	funcs    []uint32 // type of each function, imported ones first
	hosts    int      // how many of funcs are imported
	tables   []resizable
	memories []resizable
	globals  []global
	tags     int
	exports  []exported
	start    struct {
		set   bool
		index uint32
		off   int
	}
	taken       []bool                                  // by function: its reference may be in a table or a value
	globalInits []byte                                  // the global section's items
	elements    []byte                                  // the element section's items
	elems       int                                     // in all element segments
	imported    struct{ tables, memories, globals int } // how many of each come first

	dataSizes, elemSizes []uint32 // of the segments, in bytes and elements

	bodies  []body
	points  []point  // where fuel is paid, in the order of the code
	callees []uint32 // of calls, in the order of the code; see indirect
	bulks   []bulk   // that occur, each once
	mutates bool
	grows   bool
	work    uint64 // values the compiler will handle beyond instructions
}

// parse reads all sections; functions' code is only cut into bodies. Its
// errors are those of a binary that is no core module.
func parse(bin []byte) (*source, error) {
	s := &source{bin: bin}
	r := &reader{src: bin, end: len(bin), part: "header"}
	if magic := r.bytes(4); !bytes.Equal(magic, []byte("\x00asm")) {
		return nil, fmt.Errorf("meter: header, byte 0x0: not a WebAssembly binary, which begins with \\0asm")
	}
	version := r.bytes(4)
	switch {
	case r.err != nil:
		return nil, r.err
	case version[2] != 0 || version[3] != 0:
		return nil, errComponent
	case version[0] != 1 || version[1] != 0:
		return nil, fmt.Errorf("meter: header, byte 0x4: version %d of the binary format; Seawall runs version 1", int(version[0])|int(version[1])<<8)
	}
	last := byte(0)
	for r.err == nil && r.left() > 0 {
		at := r.off
		r.part = "module"
		id := r.byte()
		if id >= sections {
			r.failAt(at, "a section of the unknown kind %d", id)
			break
		}
		sec := r.sub(r.u32(), sectionName(id))
		if id != secCustom {
			if rank(id) <= last {
				r.failAt(at, "a %s out of order or twice", sectionName(id))
				break
			}
			last = rank(id)
			s.at[id] = &reader{src: bin, off: sec.off, end: sec.end, part: sec.part}
		}
		if r.err == nil {
			r.err = s.section(id, sec)
		}
	}
	if r.err == nil && len(s.bodies) != len(s.funcs)-s.hosts {
		r.fail("%d functions are declared, %d have code", len(s.funcs)-s.hosts, len(s.bodies))
	}
	return s, r.err
}

// section reads one section and looks that nothing is left of it.
func (s *source) section(id byte, r *reader) error {
	switch id {
	case secCustom:
		s.custom(r)
	case secType:
		s.readTypes(r)
	case secImport:
		s.readImports(r)
	case secFunction:
		for range r.count(1, maxFuncs, "functions") {
			s.funcs = append(s.funcs, s.typeIndex(r))
		}
		s.taken = make([]bool, len(s.funcs))
	case secTable:
		for range r.count(2, maxTables, "tables") {
			s.tables = append(s.tables, tableType(r))
		}
	case secMemory:
		for range r.count(2, 100, "memories") {
			s.memories = append(s.memories, limits(r))
		}
	case secTag:
		for range r.count(2, maxTags, "tags") {
			s.tagType(r)
			s.tags++
		}
	case secGlobal:
		s.readGlobals(r)
	case secExport:
		s.readExports(r)
	case secStart:
		s.start.set, s.start.off = true, r.off
		s.start.index = s.function(r)
	case secElement:
		s.readElements(r)
	case secDataCount:
		r.u32()
	case secCode:
		s.readCode(r)
	case secData:
		s.readData(r)
	}
	if r.err == nil && r.left() > 0 {
		r.fail("%d bytes too many", r.left())
	}
	return r.err
}

// custom notes a custom section's name; of their contents only function names
// are used, and a fault in them is none of the module's.
func (s *source) custom(r *reader) {
	name := r.name()
	if r.err != nil {
		return
	}
	if len(s.customs) < 1000 {
		s.customs = append(s.customs, name)
	}
	if name == "name" && s.names == nil {
		s.names = &reader{src: r.src, off: r.off, end: r.end, part: "name section"}
	}
	r.off = r.end
}

func (s *source) readTypes(r *reader) {
	n := r.count(3, maxTypes, "types")
	s.types = make([]funcType, 0, n)
	for range n {
		at := r.off
		switch form := r.byte(); {
		case r.err != nil:
			return
		case form == 0x4e || form == 0x4f || form == 0x50 || form == 0x5e || form == 0x5f:
			r.failAt(at, "a type of the garbage collection proposal (%#x), which is not supported; compile without it", form)
			return
		case form != 0x60:
			r.failAt(at, "a type of the unknown form %#x", form)
			return
		}
		s.types = append(s.types, funcType{params: valueTypes(r), results: valueTypes(r)})
	}
}

func valueTypes(r *reader) []ValueType {
	n := r.count(1, maxArity, "parameters or results")
	ts := make([]ValueType, n)
	for i := range ts {
		ts[i] = valueType(r)
	}
	return ts
}

// valueType reads a type of one byte. Types of several belong to proposals
// that are refused.
func valueType(r *reader) ValueType {
	at := r.off
	t := ValueType(r.byte())
	switch {
	case r.err != nil || t.known():
	case t == 0x69:
		r.failAt(at, "a reference to an exception%s", noExceptions)
	case t == 0x63 || t == 0x64:
		r.failAt(at, "a typed reference, which is not supported; compile without typed function references and garbage collection")
	default:
		r.failAt(at, "the unknown value type %#x", byte(t))
	}
	return t
}

func (s *source) typeIndex(r *reader) uint32 {
	at := r.off
	t := r.u32()
	if r.err == nil && uint64(t) >= uint64(len(s.types)) {
		r.failAt(at, "type %d of %d", t, len(s.types))
	}
	return t
}

// function reads a function's index in the source.
func (s *source) function(r *reader) uint32 {
	at := r.off
	f := r.u32()
	if r.err == nil && uint64(f) >= uint64(len(s.funcs)) {
		r.failAt(at, "function %d of %d", f, len(s.funcs))
	}
	if r.err != nil {
		return 0
	}
	return f
}

// moved is a function's index in the result: the import added comes behind
// those of the source.
func (s *source) moved(f uint32) uint32 {
	if f >= uint32(s.hosts) {
		return f + 1
	}
	return f
}

func (s *source) tagType(r *reader) {
	if a := r.byte(); a != 0 && r.err == nil {
		r.failAt(r.off-1, "a tag of the unknown attribute %d", a)
	}
	s.typeIndex(r)
}

func (s *source) readImports(r *reader) {
	n := r.count(4, maxImports, "imports")
	for range n {
		i := imported{off: r.off}
		i.module, i.name, i.kind = r.name(), r.name(), r.byte()
		switch i.kind {
		case kindFunc:
			i.typ = s.typeIndex(r)
			s.funcs = append(s.funcs, i.typ)
		case kindTable:
			i.size = tableType(r)
			s.tables = append(s.tables, i.size)
		case kindMemory:
			i.size = limits(r)
			s.memories = append(s.memories, i.size)
		case kindGlobal:
			i.global = globalType(r)
			s.globals = append(s.globals, i.global)
		case kindTag:
			s.tagType(r)
			s.tags++
		default:
			r.failAt(r.off-1, "an import of the unknown kind %d", i.kind)
		}
		if r.err != nil {
			return
		}
		s.imports = append(s.imports, i)
	}
	s.hosts = len(s.funcs)
	s.taken = make([]bool, len(s.funcs))
	s.imported.tables, s.imported.memories, s.imported.globals = len(s.tables), len(s.memories), len(s.globals)
}

// tableType reads a table's type. Only a host that sets each element can make
// use of a table with an initial expression, so it goes with the proposals.
func tableType(r *reader) resizable {
	at := r.off
	if at < r.end && r.src[at] == 0x40 {
		r.failAt(at, "a table with an initial value (typed function references), which is not supported")
	}
	t := valueType(r)
	if r.err == nil && t != FuncRef && t != ExternRef {
		r.failAt(at, "a table of %s", t)
	}
	l := limits(r)
	l.elem = t
	return l
}

func limits(r *reader) resizable {
	l := resizable{off: r.off}
	flags := r.byte()
	if flags > 7 {
		r.failAt(l.off, "limits with the unknown flags %#x", flags)
		return l
	}
	l.bounded, l.shared, l.wide = flags&1 != 0, flags&2 != 0, flags&4 != 0
	bound := func() uint64 {
		if l.wide {
			return uint64(r.signed(64))
		}
		return uint64(r.u32())
	}
	l.min = bound()
	if l.bounded {
		l.max = bound()
		if l.max < l.min {
			r.failAt(l.off, "a maximum of %d below the initial %d", l.max, l.min)
		}
	}
	return l
}

func globalType(r *reader) global {
	g := global{typ: valueType(r)}
	m := r.byte()
	if m > 1 {
		r.failAt(r.off-1, "a global that is neither constant nor mutable (%d)", m)
	}
	g.mutable = m == 1
	return g
}

func (s *source) readGlobals(r *reader) {
	n := r.count(4, maxGlobals, "globals")
	for range n {
		at := r.off
		g := globalType(r)
		s.globalInits = append(s.globalInits, r.src[at:r.off]...)
		s.globalInits = s.constant(r, s.globalInits)
		if r.err != nil {
			return
		}
		s.globals = append(s.globals, g)
	}
}

func (s *source) readExports(r *reader) {
	for range r.count(3, maxExports, "exports") {
		e := exported{off: r.off}
		e.name, e.kind = r.name(), r.byte()
		at := r.off
		e.index = r.u32()
		room := [kinds]int{len(s.funcs), len(s.tables), len(s.memories), len(s.globals), s.tags}
		switch {
		case r.err != nil:
			return
		case e.kind >= kinds:
			r.failAt(at-1, "an export of the unknown kind %d", e.kind)
			return
		case uint64(e.index) >= uint64(room[e.kind]):
			r.failAt(at, "%s %d of %d is exported as %q", kindName(e.kind), e.index, room[e.kind], clip(e.name))
			return
		}
		if e.kind == kindFunc {
			s.taken[e.index] = true // a host may pass it on
		}
		s.exports = append(s.exports, e)
	}
}

func (s *source) readCode(r *reader) {
	n := r.count(3, maxFuncs, "function bodies")
	s.bodies = make([]body, 0, n)
	for range n {
		b := r.sub(r.u32(), "code section")
		if r.err != nil {
			return
		}
		s.bodies = append(s.bodies, body{off: b.off, end: b.end})
	}
}

func (s *source) readData(r *reader) {
	for range r.count(2, len(s.bin), "data segments") {
		at := r.off
		switch mode := r.u32(); mode {
		case 2:
			if m := r.u32(); m != 0 && r.err == nil {
				r.failAt(at, "a data segment of memory %d; a module may have one memory", m)
			}
			s.constant(r, nil)
		case 0:
			s.constant(r, nil)
		case 1:
		default:
			r.failAt(at, "a data segment of the unknown mode %d", mode)
		}
		s.dataSizes = append(s.dataSizes, uint32(len(r.bytes(r.u32()))))
		if r.err != nil {
			return
		}
	}
}

// kindName names what an import or export is.
func kindName(k byte) string {
	names := [kinds]string{"function", "table", "memory", "global", "tag"}
	return names[k]
}

// clip shortens a name of the source for a message.
func clip(s string) string {
	if len(s) > 60 {
		s = strings.ToValidUTF8(s[:60], "") + "…"
	}
	return s
}
