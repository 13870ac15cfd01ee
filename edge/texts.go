package edge

import (
	"strconv"
	"sync/atomic"
)

// texts are the values of a field that ends in a number: an Age, or what is left
// of a lifetime. Hits of the same second share them, whatever they are hits of,
// so that a hit has none to make.
type texts struct {
	before string // what stands before the number
	slots  [4096]atomic.Pointer[text]
}

type text struct {
	n      int64
	values []string
}

// of returns the value for n as a field's only line, which is only to be read.
func (t *texts) of(n int64) []string {
	slot := &t.slots[uint64(n)%uint64(len(t.slots))]
	if kept := slot.Load(); kept != nil && kept.n == n {
		return kept.values
	}
	made := &text{n, []string{t.before + strconv.FormatInt(n, 10)}}
	slot.Store(made)
	return made.values
}
