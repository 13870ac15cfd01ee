//go:build linux

package wasm

import (
	"bytes"
	"math/rand"
	"os"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// kernelsHand is advice by which the kernel makes pages present, the memory's
// own, huge, old or absent, all at once and without an instruction that writes.
func kernelsHand() []int {
	return []int{unix.MADV_COLD, unix.MADV_PAGEOUT, unix.MADV_HUGEPAGE, unix.MADV_COLLAPSE, unix.MADV_NOHUGEPAGE,
		unix.MADV_MERGEABLE, unix.MADV_WILLNEED, unix.MADV_DONTNEED, unix.MADV_POPULATE_READ, unix.MADV_POPULATE_WRITE}
}

// TestRestoreWhateverTheKernelDoes has several machines at a time written to, by
// code and by system calls, while the kernel does with their pages what it may,
// threads begin, fault and end, and processes are made.
func TestRestoreWhateverTheKernelDoes(t *testing.T) {
	h := newHost(t, Options{})
	if h.pages == nil {
		t.Skip("this kernel does not tell which pages were written")
	}
	g := newGuest()
	g.pages = 80 // 5 MiB: there is a huge page within, wherever it begins
	g.fn("handle_request", "", "I", 0, i32c(70_000), i32c(7), []byte{0x36, 2, 0}, next)
	f := load(t, h, Spec{Source: g.bytes(), Mode: ModeReset, Limits: Limits{Memory: 6 << 20, Instances: 64 << 20}})
	zero, err := os.Open("/dev/zero")
	if err != nil {
		t.Skip(err)
	}
	defer zero.Close()
	stop := make(chan struct{})
	var noise, wait sync.WaitGroup
	noise.Go(func() { disturb(t, stop) })
	for seed := range int64(3) {
		m, trap := f.pool.take(t.Context())
		if trap != nil {
			t.Fatal(trap)
		}
		defer f.pool.put(m)
		wait.Go(func() { harass(t, m, f.snapshot, int(zero.Fd()), seed) })
	}
	wait.Wait()
	close(stop)
	noise.Wait()
}

// harass writes to a machine's memory in several ways and has it restored.
func harass(t *testing.T, m *machine, s *snapshot, zero int, seed int64) {
	random := rand.New(rand.NewSource(seed))
	memory, _ := m.mod.Memory().Read(0, m.mod.Memory().Size())
	size := os.Getpagesize()
	pages := len(memory) / size
	ways := []func(at []byte){
		func(at []byte) { at[random.Intn(len(at))] ^= byte(1 + random.Intn(255)) },
		func(at []byte) { random.Read(at) },
		func(at []byte) { // the kernel writes; zeros where the snapshot may have others, and a mark
			_, _ = unix.Read(zero, at) // a short read is one more case
			at[len(at)-1] = 0xa5
		},
		func(at []byte) {
			all := kernelsHand()
			_ = unix.Madvise(at, all[random.Intn(len(all))]) // what this kernel does not know, it does not do
			at[0]++
		},
	}
	for round := range 120 {
		for range random.Intn(12) {
			from := random.Intn(pages)
			to := min(pages, from+1+random.Intn(1+random.Intn(pages)))
			ways[random.Intn(len(ways))](memory[from*size : to*size])
		}
		if !m.restore(s) {
			t.Errorf("seed %d, round %d: not restored", seed, round)
			return
		}
		if !bytes.Equal(memory, s.memory) {
			at := 0
			for memory[at] == s.memory[at] {
				at++
			}
			t.Errorf("seed %d, round %d: byte %d of page %d is %#x, want %#x", seed, round, at%size, at/size, memory[at], s.memory[at])
			return
		}
	}
}

// disturb has threads that fault and end, and processes, until stop.
func disturb(t *testing.T, stop chan struct{}) {
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		default:
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread() // and never unlocks: the thread ends, and its faults count on
			b, err := unix.Mmap(-1, 0, 64<<10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
			if err != nil {
				return
			}
			for at := 0; at < len(b); at += 4096 {
				b[at] = 1
			}
			_ = unix.Munmap(b)
		}()
		<-done
		if i%64 != 0 {
			continue
		}
		p, err := os.StartProcess(os.Args[0], []string{os.Args[0], "-test.run=^$"}, &os.ProcAttr{})
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = p.Wait() // how it ends is of no matter
	}
}
