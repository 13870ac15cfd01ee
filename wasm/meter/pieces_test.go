package meter

import (
	"context"
	"fmt"
	"testing"
)

// bulks are modules whose function run does one instruction that works by
// length, with its parameters, and whose function look tells what the tables
// hold.
func bulks() map[string]*mod {
	made := map[string]*mod{}
	add := func(name string, instruction ...any) *mod {
		m := &mod{memory: []byte{0, 1}, counted: true}
		typ := m.typ(none, one)
		m.tables = [][]byte{{0x70, 0, 12}, {0x70, 0, 9}}
		pattern := make([]byte, 300)
		for i := range pattern {
			pattern[i] = byte(i*7 + i/256)
		}
		m.data = [][]byte{code(0, i32c(0), opEnd, u(300), pattern), code(1, u(100), pattern[:100])}
		m.elems = [][]byte{
			code(0, i32c(0), opEnd, 8, 2, 3, 4, 5, 2, 3, 4, 5),
			code(2, 1, i32c(1), opEnd, 0, 6, 5, 4, 3, 2, 5, 4),
			code(1, 0, 7, 3, 3, 4, 5, 2, 4, 4),
		}
		m.funcs = []fn{
			{name: "run", params: many(3, I32), code: code(get(0), get(1), get(2), code(instruction...))},
			{name: "look", locals: one, code: code(lookAt(0, 12, 1000, typ), lookAt(1, 9, 1020, typ))},
		}
		for i := range 4 {
			m.funcs = append(m.funcs, fn{results: one, code: i32c(10 + i)})
		}
		made[name] = m
		return m
	}
	add("memory.fill", opMisc, miscMemoryFill, 0)
	add("memory.copy", opMisc, miscMemoryCopy, 0, 0)
	add("memory.init", opMisc, miscMemoryInit, 1, 0)
	add("memory.init of a dropped segment", opMisc, miscDataDrop, 1, opMisc, miscMemoryInit, 1, 0)
	add("memory.init of an active segment", opMisc, miscMemoryInit, 0, 0)
	for table := range 2 {
		f := &add(fmt.Sprintf("table.fill of %d", table)).funcs[0]
		f.code = code(get(0), get(1), 0x25, 0, get(2), opMisc, miscTableFill, table) // with an element of the first
		add(fmt.Sprintf("table.init of %d", table), opMisc, miscTableInit, 2, table)
		for from := range 2 {
			add(fmt.Sprintf("table.copy of %d to %d", from, table), opMisc, miscTableCopy, table, from)
		}
	}
	add("table.init of a dropped segment", opMisc, miscElemDrop, 2, opMisc, miscTableInit, 2, 0)
	return made
}

// lookAt stores for each of n elements what its function returns, or 255.
func lookAt(table, n, at, typ int) []byte {
	return code(i32c(0), set(0), opLoop, emptyBlock,
		get(0), get(0), 0x25, table, 0xd1, opIf, I32, i32c(255), opElse, get(0), opCallIndirect, typ, table, opEnd,
		0x3a, 0, u(at), // i32.store8
		get(0), i32c(1), opI32Add, opLocalTee, 0, i32c(n), opI32LtU, opBrIf, 0, opEnd)
}

// tale is what a call of run, and of look behind it, leaves in an instance.
func (s *stage) tale(wasm []byte, args []uint64) string {
	s.used = 0
	m := s.mustInstance(wasm)
	defer m.Close(context.Background())
	first := outcome(m, "run", args...)
	return first + " look " + outcome(m, "look") + s.seen(wasm, m)
}

// TestPiecesAreTheWhole compares each instruction with what is done in pieces,
// for ranges that overlap, that end at a bound or past it, that have nothing,
// and for numbers that are large, or negative.
func TestPiecesAreTheWhole(t *testing.T) {
	for name, m := range bulks() {
		t.Run(name, func(t *testing.T) {
			source := m.bytes()
			r, err := rewrite(source, Limits{}, cut{bytes: 7, items: 2})
			if err != nil {
				t.Fatal(err)
			}
			s := newStage(t)
			places, lengths := []int{0, 3, 8, 95, 100, 65500, 65536, -1}, []int{0, 1, 7, 8, 36, 65536, -1}
			if name[0] == 't' {
				places, lengths = []int{0, 1, 4, 8, 9, 12, -1}, []int{0, 1, 2, 5, 8, 9, 12, -1}
			}
			compared, done := 0, 0
			for _, to := range places {
				for _, from := range places {
					for _, n := range lengths {
						args := []uint64{uint64(uint32(to)), uint64(uint32(from)), uint64(uint32(n))}
						want, got := s.tale(source, args), s.tale(r.Wasm, args)
						if got != want {
							t.Fatalf("%v (to, from, length): in pieces\n%s\nat once\n%s", args, got, want)
						}
						if compared++; want[0] == '[' {
							done++
						}
					}
				}
			}
			if done == 0 || done == compared {
				t.Errorf("%d of %d calls succeeded, want some but not all", done, compared)
			}
		})
	}
}

// TestPiecesAreShort looks at how far into debt each instruction goes before
// its host is asked: a piece's worth, and what is paid at a function's entry.
func TestPiecesAreShort(t *testing.T) {
	large := func(instruction ...any) *mod {
		m := single(code(instruction...))
		m.memory, m.counted = []byte{0, 0x80, 1}, true
		m.tables = [][]byte{code(0x70, 0, u(60000)), code(0x70, 0, u(60000))}
		m.data = [][]byte{code(1, u(1<<20), make([]byte, 1<<20))}
		m.elems = [][]byte{code(1, 0, u(60000), make([]byte, 60000))}
		return m
	}
	most := int64(standard().bytes>>bytesShift) + stride
	for _, c := range []struct {
		name   string
		mod    *mod
		yields int
	}{
		{"memory.fill", large(i32c(0), i32c(7), i32c(8<<20), opMisc, miscMemoryFill, 0), 128},
		{"memory.copy", large(i32c(0), i32c(1<<20), i32c(7<<20), opMisc, miscMemoryCopy, 0, 0), 112},
		{"memory.copy backwards", large(i32c(1<<20), i32c(0), i32c(7<<20), opMisc, miscMemoryCopy, 0, 0), 112},
		{"memory.init", large(i32c(0), i32c(0), i32c(1<<20), opMisc, miscMemoryInit, 0, 0), 16},
		{"table.fill", large(i32c(0), opRefNull, 0x70, i32c(60000), opMisc, miscTableFill, 0), 8},
		{"table.copy", large(i32c(0), i32c(0), i32c(60000), opMisc, miscTableCopy, 0, 1), 8},
		{"table.init", large(i32c(0), i32c(0), i32c(60000), opMisc, miscTableInit, 0, 0), 8},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStage(t)
			s.slice, s.slices = 10, 1_000_000
			i, _ := s.metered(c.mod.bytes(), Limits{})
			if got := outcome(i, "run"); got != "[]" {
				t.Fatalf("got %s, want []", got)
			}
			if s.yields < c.yields || s.lowest < -most {
				t.Errorf("%d yields, fuel down to %d; want %d and %d at least", s.yields, s.lowest, c.yields, -most)
			}
		})
	}
}
