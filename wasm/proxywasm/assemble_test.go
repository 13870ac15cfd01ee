package proxywasm

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// A script makes a guest of WebAssembly: it says which host calls its
// callbacks make. Each callback first tells the host its arguments and gets
// from it what to return; then it makes the calls, of which status and outputs
// stay in its memory.
type script struct {
	// callbacks has the host calls of each exported callback; a name may have
	// a parameter count, as in "proxy_on_request_headers/2".
	callbacks map[string][]hostCall
	// allocator is "malloc", "proxy_on_memory_allocate" or "" for none.
	allocator string
	// allocate are host calls that the allocator makes; allocated, when not
	// nil, is what it returns whatever it is asked for.
	allocate  []hostCall
	allocated *uint32
	// imports are more imports, also of functions that nothing calls.
	imports []string
	// version is exported instead of that of 0.2.1.
	version string
	// void callbacks have no result.
	void bool
}

// hostCall is a call of an imported function. args has one for each argument
// that the guest passes: int, int64 or string. Places of outputs are chosen by
// the assembler, or given as place.
type hostCall struct {
	name string
	args []any
}

// place is the address of an output, or pointer and length of an input.
type place struct{ p, n uint32 }

// trap stands for an instruction that traps.
func trap() hostCall { return hostCall{name: "trap"} }

func call(name string, args ...any) hostCall { return hostCall{"proxy_" + name, args} }

// assembled is the module with what is needed to read its memory.
type assembled struct {
	wasm      []byte
	callbacks []string            // by the number that they tell the host
	records   map[string][]record // for each callback's calls
}

// record tells where status and outputs of a call are.
type record struct {
	shape  string
	status uint32
	out    []uint32
}

const (
	heapStart = 0x20000
	noted     = 6 // parameters of test.note: callback and five arguments
	i32, i64  = 0x7f, 0x7e
)

func callbackTypes() map[string]string {
	return map[string]string{
		"proxy_on_context_create": "2", "proxy_on_vm_start": "2r", "proxy_on_configure": "2r", "proxy_on_tick": "1",
		"proxy_on_request_headers": "3r", "proxy_on_request_body": "3r", "proxy_on_request_trailers": "2r",
		"proxy_on_response_headers": "3r", "proxy_on_response_body": "3r", "proxy_on_response_trailers": "2r",
		"proxy_on_http_call_response": "5", "proxy_on_foreign_function": "3",
		"proxy_on_done": "1r", "proxy_on_log": "1", "proxy_on_delete": "1",
		"_initialize": "0", "_start": "0", "main": "2r",
	}
}

// assembler builds a module section by section.
type assembler struct {
	types                         []string
	imports, funcs, exports, code []byte
	imported                      map[string]int
	nImports, nFuncs, nExports    int
	data                          []byte // at address dataStart
}

const dataStart = 0x100

func uleb(b []byte, v uint64) []byte { return binary.AppendUvarint(b, v) }

func sleb(b []byte, v int64) []byte {
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

func name(b []byte, s string) []byte { return append(uleb(b, uint64(len(s))), s...) }

func (a *assembler) typeOf(params, results []byte) uint64 {
	t := string(append(append(append(uleb([]byte{0x60}, uint64(len(params))), params...), byte(len(results))), results...))
	i := slices.Index(a.types, t)
	if i < 0 {
		i = len(a.types)
		a.types = append(a.types, t)
	}
	return uint64(i)
}

func (a *assembler) importFunc(module, fn string, params, results []byte) {
	if _, ok := a.imported[fn]; ok {
		return
	}
	a.imported[fn] = a.nImports
	a.nImports++
	a.imports = uleb(append(name(name(a.imports, module), fn), 0), a.typeOf(params, results))
}

// importHost imports a function of the ABI; "name/none" without a result,
// "name/10" with that many parameters.
func (a *assembler) importHost(spec string) {
	fn, variant, _ := strings.Cut(spec, "/")
	if fn == "trap" {
		return
	}
	h := hostFuncs()[fn]
	if h == nil {
		a.importFunc("env", fn, nil, []byte{i32})
		return
	}
	params, results := h.params(), []byte{i32}
	if h.results == returnsNothing || variant == "none" {
		results = nil
	}
	if n := 0; variant != "" && variant != "none" {
		fmt.Sscan(variant, &n)
		params = slices.Repeat([]byte{i32}, n)
	}
	a.importFunc("env", fn, params, results)
}

// put places bytes among the module's data.
func (a *assembler) put(s string) place {
	p := place{uint32(dataStart + len(a.data)), uint32(len(s))}
	a.data = append(a.data, s...)
	return p
}

func (a *assembler) room() uint32 {
	for len(a.data)%8 != 0 {
		a.data = append(a.data, 0)
	}
	return a.put(strings.Repeat("\xee", 8)).p
}

func i32const(b []byte, v uint32) []byte { return sleb(append(b, 0x41), int64(int32(v))) }

// emit adds the instructions of a host call.
func (a *assembler) emit(b []byte, c hostCall) ([]byte, record) {
	if c.name == "trap" {
		return append(b, 0), record{status: dataStart}
	}
	h := hostFuncs()[c.name]
	r := record{shape: h.shape, status: a.room()}
	b = i32const(b, r.status)
	args := c.args
	next := func() any {
		v := args[0]
		args = args[1:]
		return v
	}
	out := func() uint32 {
		if len(args) > 0 {
			if p, ok := args[0].(place); ok {
				args = args[1:]
				return p.p
			}
		}
		r.out = append(r.out, a.room())
		return r.out[len(r.out)-1]
	}
	for _, kind := range h.shape {
		switch kind {
		case 'i', '.':
			v := 0
			if kind == 'i' {
				v = next().(int)
			}
			b = i32const(b, uint32(v))
		case 'l':
			b = sleb(append(b, 0x42), next().(int64))
		case 'b':
			p, ok := args[0].(place)
			if ok {
				next()
			} else {
				p = a.put(next().(string))
			}
			b = i32const(i32const(b, p.p), p.n)
		case '4', '8':
			b = i32const(b, out())
		case 'd':
			b = i32const(b, out())
			b = i32const(b, out())
		}
	}
	b = uleb(append(b, 0x10), uint64(a.imported[c.name]))
	if h.results == returnsNothing {
		b = i32const(b, 0)
	}
	return append(b, 0x36, 2, 0), r // i32.store
}

func (a *assembler) function(export string, params, results, locals int, body []byte) {
	a.funcs = uleb(a.funcs, a.typeOf(slices.Repeat([]byte{i32}, params), slices.Repeat([]byte{i32}, results)))
	a.exports = uleb(append(name(a.exports, export), 0), uint64(a.nImports+a.nFuncs))
	a.nExports++
	a.nFuncs++
	code := []byte{0}
	if locals > 0 {
		code = append(uleb([]byte{1}, uint64(locals)), i32)
	}
	code = append(append(code, body...), 0x0b)
	a.code = append(uleb(a.code, uint64(len(code))), code...)
}

func section(b []byte, id byte, count int, content []byte) []byte {
	content = append(uleb(nil, uint64(count)), content...)
	return append(uleb(append(b, id), uint64(len(content))), content...)
}

// assemble makes the module. Memory is 4 MiB, its heap never freed.
func (s script) assemble() assembled {
	a := &assembler{imported: make(map[string]int)}
	a.importFunc("test", "note", slices.Repeat([]byte{i32}, noted), []byte{i32})
	for _, fn := range s.imports {
		a.importHost(fn)
	}
	names := make([]string, 0, len(s.callbacks))
	for cb, calls := range s.callbacks {
		names = append(names, cb)
		for _, c := range calls {
			a.importHost(c.name)
		}
	}
	slices.Sort(names)
	for _, c := range s.allocate {
		a.importHost(c.name)
	}
	m := assembled{records: make(map[string][]record)}
	for _, cb := range names {
		export, arity, _ := strings.Cut(cb, "/")
		typ := callbackTypes()[export]
		params := int(typ[0] - '0')
		if arity != "" {
			fmt.Sscan(arity, &params)
		}
		body := i32const(nil, uint32(len(m.callbacks)))
		for i := range noted - 1 {
			if i < params {
				body = append(body, 0x20, byte(i))
			} else {
				body = i32const(body, 0)
			}
		}
		body = append(body, 0x10, 0, 0x21, byte(params)) // call test.note; local.set
		for _, c := range s.callbacks[cb] {
			var r record
			body, r = a.emit(body, c)
			m.records[export] = append(m.records[export], r)
		}
		results := 0
		if strings.HasSuffix(typ, "r") && !s.void {
			results = 1
			body = append(body, 0x20, byte(params))
		}
		a.function(export, params, results, 1, body)
		m.callbacks = append(m.callbacks, export)
	}
	if s.allocator != "" {
		// The heap's end, rounded up, is global 0.
		var body []byte
		for _, c := range s.allocate {
			var r record
			body, r = a.emit(body, c)
			m.records[s.allocator] = append(m.records[s.allocator], r)
		}
		body = append(body, 0x23, 0, 0x23, 0, 0x20, 0, 0x6a) // old heap; heap + n
		body = append(i32const(append(i32const(body, 7), 0x6a), ^uint32(7)), 0x71, 0x24, 0)
		if s.allocated != nil {
			body = i32const(append(body, 0x1a), *s.allocated) // instead
		}
		a.function(s.allocator, 1, 1, 0, body)
	}
	version := s.version
	if version == "" {
		version = versions()[0]
	}
	a.function(version, 0, 0, 0, nil)
	m.wasm = a.module()
	return m
}

func (a *assembler) module() []byte {
	b := []byte("\x00asm\x01\x00\x00\x00")
	b = section(b, 1, len(a.types), []byte(strings.Join(a.types, "")))
	b = section(b, 2, a.nImports, a.imports)
	b = section(b, 3, a.nFuncs, a.funcs)
	b = section(b, 5, 1, []byte{1, 64, 64})
	b = section(b, 6, 1, append(i32const([]byte{i32, 1}, heapStart), 0x0b))
	b = section(b, 7, a.nExports+1, append(append(name(nil, "memory"), 2, 0), a.exports...))
	b = section(b, 10, a.nFuncs, a.code)
	data := append(i32const([]byte{0}, dataStart), 0x0b)
	return section(b, 11, 1, append(uleb(data, uint64(len(a.data))), a.data...))
}
