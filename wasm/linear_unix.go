//go:build unix

package wasm

import (
	"github.com/tetratelabs/wazero/experimental"
	"golang.org/x/sys/unix"
)

// linear is a guest's memory outside Go's heap: it grows without being
// copied or zeroed at once (a guest could make one instruction of that last
// many times its limit), gives the garbage collector nothing to do, and is
// free as soon as its machine is closed.
type linear struct {
	space []byte // reserved; what is not used cannot be touched
	size  uint64 // used
	heap  []byte // where nothing could be reserved
}

// newLinear reserves max bytes of address space; on failure memory is of Go's
// heap.
func newLinear(_, max uint64) experimental.LinearMemory {
	l := &linear{}
	if max > 0 {
		if b, err := unix.Mmap(-1, 0, int(max), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON); err == nil {
			l.space = b
		}
	}
	return l
}

// Reallocate implements experimental.LinearMemory.
func (l *linear) Reallocate(size uint64) []byte {
	if l.space == nil {
		l.heap = append(l.heap, make([]byte, size-uint64(len(l.heap)))...)
		return l.heap
	}
	if size > uint64(len(l.space)) {
		return nil
	}
	if size > l.size {
		if err := unix.Mprotect(l.space[:size], unix.PROT_READ|unix.PROT_WRITE); err != nil {
			return nil
		}
		l.size = size
	}
	return l.space[:size:size]
}

// Free implements experimental.LinearMemory. It may be called twice.
func (l *linear) Free() {
	if l.space != nil {
		_ = unix.Munmap(l.space)
		l.space, l.size = nil, 0
	}
}
