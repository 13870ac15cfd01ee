package wasm

import (
	"bytes"
	"math/rand"
	"sync"
	"testing"
)

// roomy is a guest with a memory that is large enough to be tracked.
func roomy() []byte {
	g := newGuest()
	g.pages = 2 * max(trackedPages, 2)                                                  // it writes beyond the first
	g.fn("handle_request", "", "I", 0, i32c(70_000), i32c(7), []byte{0x36, 2, 0}, next) // writes, also at the trial
	return g.bytes()
}

// trackedPages are those of the smallest snapshot that is tracked on Linux.
const trackedPages = 2

// TestRestoreTakesBackAllThatWasWritten writes anywhere in machines' memories,
// in several at a time, and compares the whole with the snapshot. Restored
// memory is compared also where the kernel does not tell what was written.
func TestRestoreTakesBackAllThatWasWritten(t *testing.T) {
	for _, tracked := range []bool{true, false} {
		h := newHost(t, Options{})
		if !tracked {
			h.pages.close()
			h.pages = nil
		} else if h.pages == nil {
			t.Log("this kernel does not tell which pages were written: all is copied")
		}
		f := load(t, h, Spec{Source: roomy(), Mode: ModeReset})
		var wait sync.WaitGroup
		for seed := range 4 {
			m, trap := f.pool.take(t.Context())
			if trap != nil {
				t.Fatal(trap)
			}
			wait.Go(func() {
				scribble(t, m, f.snapshot, int64(seed))
				f.pool.put(m)
			})
		}
		wait.Wait()
	}
}

// scribble writes to a machine's memory and has it restored, again and again.
func scribble(t *testing.T, m *machine, s *snapshot, seed int64) {
	random := rand.New(rand.NewSource(seed))
	size := m.mod.Memory().Size()
	for round := range 50 {
		for range random.Intn(40) {
			text := make([]byte, 1+random.Intn(9000))
			random.Read(text)
			m.mod.Memory().Write(uint32(random.Intn(int(size)-len(text))), text)
		}
		if !m.restore(s) {
			t.Errorf("seed %d, round %d: not restored", seed, round)
			return
		}
		if now, _ := m.mod.Memory().Read(0, size); !bytes.Equal(now, s.memory) {
			t.Errorf("seed %d, round %d: the memory is not the snapshot's", seed, round)
			return
		}
		if tracked := m.f.host.pages != nil; tracked != (m.tracker != nil) {
			t.Errorf("tracked %v, want %v", m.tracker != nil, tracked)
			return
		}
	}
}
