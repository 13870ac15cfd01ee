package wasm

import (
	"bytes"
	"os"
	"runtime/debug"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMachineIsGivenUpWhenItsMemoryIsLost has the mapping of the snapshot fail,
// after which nobody knows what the memory is.
func TestMachineIsGivenUpWhenItsMemoryIsLost(t *testing.T) {
	h := newHost(t, Options{})
	if h.pages == nil {
		t.Skip("this kernel does not tell which pages were written")
	}
	f := load(t, h, Spec{Source: roomy(), Mode: ModeReset})
	if err := unix.Close(f.snapshot.image.fd); err != nil {
		t.Fatal(err)
	}
	f.snapshot.image.fd = -1
	first := f.pool.dirty[0]
	for i := range 3 {
		m, trap := f.pool.take(t.Context())
		if trap != nil {
			t.Fatalf("take %d: %v; want a machine whose whole memory is copied", i, trap)
		}
		if m == first || m.tracker != nil {
			t.Errorf("take %d: the machine whose mapping failed: %v; tracked: %v; want neither", i, m == first, m.tracker != nil)
		}
		if now, _ := m.mod.Memory().Read(0, m.mod.Memory().Size()); !bytes.Equal(now, f.snapshot.memory) {
			t.Errorf("take %d: the memory is not the snapshot's", i)
		}
		f.pool.put(m)
	}
	if got := f.Stats().Machines; got != 1 {
		t.Errorf("%d machines are left, want 1", got)
	}
}

// TestRestoreWithoutThePagemap loses the kernel's word after memories were
// mapped: all is copied.
func TestRestoreWithoutThePagemap(t *testing.T) {
	h := newHost(t, Options{})
	if h.pages == nil {
		t.Skip("this kernel does not tell which pages were written")
	}
	f := load(t, h, Spec{Source: roomy(), Mode: ModeReset})
	m, trap := f.pool.take(t.Context())
	if trap != nil {
		t.Fatal(trap)
	}
	if m.tracker == nil {
		t.Fatal("the memory is not tracked")
	}
	h.pages.close()
	scribble(t, m, f.snapshot, 1)
	f.pool.put(m)
}

// TestPagesAreReadAnewAfterAFault has pages written after the kernel was asked:
// what is remembered of a memory ends with the next fault, and only then.
func TestPagesAreReadAnewAfterAFault(t *testing.T) {
	h := newHost(t, Options{})
	if h.pages == nil {
		t.Skip("this kernel does not tell which pages were written")
	}
	f := load(t, h, Spec{Source: roomy(), Mode: ModeReset})
	m, trap := f.pool.take(t.Context())
	if trap != nil {
		t.Fatal(trap)
	}
	defer f.pool.put(m)
	memory, size := m.mod.Memory(), uint32(os.Getpagesize())
	for page := uint32(0); page*size < memory.Size(); page++ {
		if !m.restore(f.snapshot) { // asks, or knows
			t.Fatal("not restored")
		}
		memory.Write(page*size, []byte("left behind"))
		if now, _ := faults(); now == m.tracker.faults && !m.tracker.owns(int(page*size)) {
			t.Fatalf("page %d: it was written, and no fault was counted", page)
		}
		if !m.restore(f.snapshot) {
			t.Fatal("not restored")
		}
		if now, _ := memory.Read(0, memory.Size()); !bytes.Equal(now, f.snapshot.memory) {
			t.Fatalf("page %d: the memory is not the snapshot's", page)
		}
	}
}

// owns reports whether a byte is in what was written, as far as remembered.
func (t *tracker) owns(at int) bool {
	return slices.ContainsFunc(t.own, func(s stretch) bool { return s.from <= at && at < s.to })
}

// TestHostsThatCannotBeMadeLeaveNothingOpen counts files.
func TestHostsThatCannotBeMadeLeaveNothingOpen(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // it would close them
	count := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip(err)
		}
		return len(list)
	}
	before := count()
	for range 20 {
		if _, err := NewHost(Options{Upstreams: map[string]Upstream{"u": {URL: "no URL"}}}); err == nil {
			t.Fatal("no error")
		}
	}
	if after := count(); after >= before+20 {
		t.Errorf("%d files are open, and %d were before", after, before)
	}
}
