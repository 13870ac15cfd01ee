//go:build !unix

package wasm

import "github.com/tetratelabs/wazero/experimental"

// linear is a guest's memory of Go's heap.
type linear struct{ b []byte }

func newLinear(capacity, _ uint64) experimental.LinearMemory {
	return &linear{make([]byte, 0, capacity)}
}

// Reallocate implements experimental.LinearMemory.
func (l *linear) Reallocate(size uint64) []byte {
	if size > uint64(len(l.b)) {
		l.b = append(l.b, make([]byte, size-uint64(len(l.b)))...)
	}
	return l.b[:size]
}

// Free implements experimental.LinearMemory.
func (l *linear) Free() { l.b = nil }
