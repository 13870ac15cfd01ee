package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"seawall/wasm/examples/exampletest"
)

// module assembles an http-wasm guest for tests: functions of two imports that
// run their code for each request.
type module struct {
	imports []string // of http_handler, of five i32 and no result, or two i32 and no result
	types   []byte   // of each import: 1 or 2
	data    [][]byte
	code    []byte
}

func leb(n uint64) []byte {
	var b []byte
	for ; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}

func lebString(s string) []byte { return append(leb(uint64(len(s))), s...) }

// i32 is an instruction that pushes n, which is not negative.
func i32(n int) []byte {
	b := []byte{0x41}
	for ; n >= 0x40; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n&0x7f))
}

// text puts s into memory and returns instructions that push where.
func (m *module) text(s string) []byte {
	at := 1024 * (len(m.data) + 1)
	m.data = append(m.data, slices.Concat([]byte{0}, i32(at), []byte{0x0b}, lebString(s)))
	return slices.Concat(i32(at), i32(len(s)))
}

// imported returns an instruction that calls a function of http_handler.
func (m *module) imported(name string, kind byte) []byte {
	m.imports, m.types = append(m.imports, name), append(m.types, kind)
	return []byte{0x10, byte(len(m.imports) - 1)}
}

func (m *module) bytes() []byte {
	section := func(id byte, parts ...[]byte) []byte {
		body := slices.Concat(parts...)
		return slices.Concat([]byte{id}, leb(uint64(len(body))), body)
	}
	imports := leb(uint64(len(m.imports)))
	for i, name := range m.imports {
		imports = slices.Concat(imports, lebString("http_handler"), lebString(name), []byte{0, m.types[i]})
	}
	body := slices.Concat([]byte{0}, m.code, []byte{0x42, 1, 0x0b}) // next
	return slices.Concat([]byte("\x00asm\x01\x00\x00\x00"),
		section(1, []byte{3, 0x60, 0, 1, 0x7e, 0x60, 5, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0, 0x60, 3, 0x7f, 0x7f, 0x7f, 0}),
		section(2, imports),
		section(3, []byte{1, 0}),
		section(5, []byte{1, 0, 1}),
		section(7, []byte{2}, lebString("memory"), []byte{2, 0}, lebString("handle_request"), []byte{0, byte(len(m.imports))}),
		section(10, []byte{1}, leb(uint64(len(body))), body),
		section(11, leb(uint64(len(m.data))), slices.Concat(m.data...)))
}

// setting is a module that sets a field of every response.
func setting(name, value string) []byte {
	m := new(module)
	set := m.imported("set_header_value", 1)
	m.code = slices.Concat(i32(1), m.text(name), m.text(value), set)
	return m.bytes()
}

// trapping is a module that stops at the fifth request of a machine in shared
// mode: it serves those that it is tried with.
func looping() []byte {
	m := new(module)
	log := m.imported("log", 2)
	// if (memory[0] += 1) > 4 then loop without end
	m.code = slices.Concat(i32(0), m.text("hello\nfrom the guest"), log,
		i32(0), i32(0), []byte{0x28, 2, 0}, i32(1), []byte{0x6a, 0x36, 2, 0},
		i32(0), []byte{0x28, 2, 0}, i32(4), []byte{0x4a, 0x04, 0x40, 0x03, 0x40, 0x0c, 0, 0x0b, 0x0b})
	return m.bytes()
}

// forbidden is a module that imports what is not offered, twice.
func forbidden() []byte {
	m := new(module)
	m.imported("open_file", 1)
	m.imported("fork", 2)
	m.text("x")
	return m.bytes()
}

// written puts a file into a folder of the test's.
func written(t testing.TB, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// sample builds the headers sample.
func sample(t testing.TB) []byte {
	t.Helper()
	if raced {
		t.Skip("compiling a Go guest takes most of a minute under the race detector; other tests have small guests")
	}
	return exampletest.Go(t, "headers")
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
