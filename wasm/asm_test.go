package wasm

import "slices"

// guest assembles a module for tests. Imports are declared before functions.
type guest struct {
	types            [][]byte
	imports, exports [][]byte
	functions        [][]byte // type indices
	bodies           [][]byte
	globals          [][]byte
	data             [][]byte
	table            []byte
	pages, most      uint32 // of memory; most 0: none
	count            uint32 // functions there are
	start            int    // of the start function, -1 none
}

func newGuest() *guest { return &guest{pages: 1, start: -1} }

// uleb and sleb are LEB128.
func uleb(n uint64) []byte {
	var b []byte
	for n >= 0x80 {
		b = append(b, byte(n)|0x80)
		n >>= 7
	}
	return append(b, byte(n))
}

func sleb(n int64) []byte {
	var b []byte
	for {
		c := byte(n) & 0x7f
		n >>= 7
		if n == 0 && c&0x40 == 0 || n == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

func cat(parts ...[]byte) []byte { return slices.Concat(parts...) }

func vec(list [][]byte) []byte { return cat(uleb(uint64(len(list))), cat(list...)) }

func str(s string) []byte { return cat(uleb(uint64(len(s))), []byte(s)) }

func valueType(s string) []byte {
	b := uleb(uint64(len(s)))
	for _, c := range s {
		switch c {
		case 'i':
			b = append(b, 0x7f)
		case 'I':
			b = append(b, 0x7e)
		case 'D':
			b = append(b, 0x7c)
		}
	}
	return b
}

func (g *guest) typ(params, results string) []byte {
	t := cat([]byte{0x60}, valueType(params), valueType(results))
	for i, o := range g.types {
		if slices.Equal(o, t) {
			return uleb(uint64(i))
		}
	}
	g.types = append(g.types, t)
	return uleb(uint64(len(g.types) - 1))
}

// imp imports a function and returns an instruction that calls it.
func (g *guest) imp(module, name, params, results string) []byte {
	g.imports = append(g.imports, cat(str(module), str(name), []byte{0}, g.typ(params, results)))
	g.count++
	return call(g.count - 1)
}

// http imports from http_handler.
func (g *guest) http(name, params, results string) []byte {
	return g.imp("http_handler", name, params, results)
}

func call(index uint32) []byte { return cat([]byte{0x10}, uleb(uint64(index))) }

// fn adds a function and returns its index; export "" is none. locals are i32.
func (g *guest) fn(export, params, results string, locals int, code ...[]byte) uint32 {
	g.functions = append(g.functions, g.typ(params, results))
	decl := []byte{0}
	if locals > 0 {
		decl = cat([]byte{1}, uleb(uint64(locals)), []byte{0x7f})
	}
	body := cat(decl, cat(code...), []byte{0x0b})
	g.bodies = append(g.bodies, cat(uleb(uint64(len(body))), body))
	if export != "" {
		g.exports = append(g.exports, cat(str(export), []byte{0}, uleb(uint64(g.count))))
	}
	g.count++
	return g.count - 1
}

// text puts a string into memory and returns instructions that push pointer
// and length.
func (g *guest) text(at int32, s string) []byte {
	g.data = append(g.data, cat([]byte{0}, i32c(at), []byte{0x0b}, str(s)))
	return cat(i32c(at), i32c(int32(len(s))))
}

// global adds a mutable i32 and returns its index.
func (g *guest) global(v int32) []byte {
	g.globals = append(g.globals, cat([]byte{0x7f, 1}, i32c(v), []byte{0x0b}))
	return uleb(uint64(len(g.globals) - 1))
}

func section(id byte, b []byte) []byte {
	return cat([]byte{id}, uleb(uint64(len(b))), b)
}

func (g *guest) bytes() []byte {
	memory := cat([]byte{1, 0}, uleb(uint64(g.pages)))
	if g.most > 0 {
		memory = cat([]byte{1, 1}, uleb(uint64(g.pages)), uleb(uint64(g.most)))
	}
	exports := append(slices.Clone(g.exports), cat(str("memory"), []byte{2, 0}))
	out := cat([]byte("\x00asm\x01\x00\x00\x00"), section(1, vec(g.types)))
	if len(g.imports) > 0 {
		out = cat(out, section(2, vec(g.imports)))
	}
	out = cat(out, section(3, vec(g.functions)))
	if g.table != nil {
		out = cat(out, section(4, g.table))
	}
	out = cat(out, section(5, memory))
	if len(g.globals) > 0 {
		out = cat(out, section(6, vec(g.globals)))
	}
	out = cat(out, section(7, vec(exports)))
	if g.start >= 0 {
		out = cat(out, section(8, uleb(uint64(g.start))))
	}
	out = cat(out, section(10, vec(g.bodies)))
	if len(g.data) > 0 {
		out = cat(out, section(11, vec(g.data)))
	}
	return out
}

func i32c(n int32) []byte { return cat([]byte{0x41}, sleb(int64(n))) }
func i64c(n int64) []byte { return cat([]byte{0x42}, sleb(n)) }

// Instructions used in tests.
var (
	unreachable = []byte{0x00}
	drop        = []byte{0x1a}
	next        = i64c(1)
	answer      = i64c(0)
	end         = []byte{0x0b}
)

func localGet(i byte) []byte { return []byte{0x20, i} }
func localSet(i byte) []byte { return []byte{0x21, i} }
func localTee(i byte) []byte { return []byte{0x22, i} }

// forever repeats code without end.
func forever(code ...[]byte) []byte {
	return cat([]byte{0x03, 0x40}, cat(code...), []byte{0x0c, 0}, end)
}

// times repeats code n times, counting in a local.
func times(n int32, local byte, code ...[]byte) []byte {
	return cat(i32c(n), localSet(local), []byte{0x03, 0x40}, cat(code...),
		localGet(local), i32c(1), []byte{0x6b}, localTee(local), []byte{0x0d, 0}, end)
}

// when runs code if the request's header x-case has any value.
func when(has []byte, code ...[]byte) []byte {
	return cat(has, []byte{0x04, 0x40}, cat(code...), end)
}
