package listen

import (
	"bytes"
	"errors"
	"sync/atomic"
	"time"
)

// preface is how a client begins HTTP/2 by prior knowledge (RFC 9113, 3.4).
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

var (
	errBareLF = errors.New("a line of the request's head ends without CR")
	errFolded = errors.New("a line of the request's head is folded")
)

// head watches the bytes of HTTP/1.1 requests as they come in, for what
// net/http takes and others read differently: a line that ends in a bare LF,
// and a field folded over two lines (RFC 9112, 2.2 and 5.2). A request that
// arrives while another is being answered is not watched: where it begins is
// known to net/http alone.
//
// Reads of one connection never overlap, and net/http ends a read under way
// before it calls the connection idle, so only inside is shared: a handler's
// begin says that its head is over.
type head struct {
	inside  atomic.Bool // a head is under way, or the next byte begins one
	started bool        // its first line has begun: empty lines before it are allowed
	inLine  int         // bytes of the line so far, without its end
	last    byte        // the byte before this one, of whatever it was part of
	size    int         // bytes read while it was under way
	matched int         // bytes of the preface seen, -1 when it is none
	err     error
}

// begin expects a head from the next byte on.
func (h *head) begin() {
	if h.matched < len(preface) {
		h.started, h.inLine, h.size = false, 0, 0
		h.inside.Store(true)
	}
}

// over expects no head: a handler has begun, also for one that was never seen.
func (h *head) over() { h.inside.Store(false) }

// A head beyond largeHead is read with a pause of largePause before each next
// piece (net/http reads 4 KiB at once): many such heads would otherwise keep a
// core from looking at what others sent. Few have so much, and wait for 12 ms
// at most.
const (
	largeHead  = 16 << 10
	largePause = time.Millisecond
)

// large reports whether the head under way is large.
func (h *head) large() bool { return h.size > largeHead && h.inside.Load() }

// see takes the next bytes and returns the fault found in them or before.
func (h *head) see(b []byte) error {
	if len(b) == 0 || h.err != nil || h.second(b) {
		return h.err
	}
	if h.inside.Load() {
		h.size += len(b)
	}
	for i := 0; h.inside.Load() && i < len(b) && h.err == nil; {
		i += h.line(b[i:])
	}
	h.last = b[len(b)-1]
	return h.err
}

// line takes bytes up to the end of a line, or all there are, and returns how
// many those are.
func (h *head) line(b []byte) int {
	if h.inLine == 0 && h.started && (b[0] == ' ' || b[0] == '\t') {
		h.err = errFolded
		return len(b)
	}
	end := bytes.IndexByte(b, '\n')
	if end < 0 {
		h.inLine += len(b)
		h.started = h.started || h.inLine > 1 || b[0] != '\r'
		h.last = b[len(b)-1]
		return len(b)
	}
	if end > 0 {
		h.last = b[end-1]
	}
	length := h.inLine + end - 1 // without its CR
	switch {
	case h.last != '\r':
		h.err = errBareLF
	case length > 0:
		h.started = true
	case h.started:
		h.inside.Store(false)
	}
	h.inLine, h.last = 0, '\n'
	return end + 1
}

// second reports whether the connection speaks HTTP/2, as far as can be told.
func (h *head) second(b []byte) bool {
	for _, c := range b {
		if h.matched < 0 || h.matched == len(preface) {
			break
		}
		if c == preface[h.matched] {
			h.matched++
		} else {
			h.matched = -1
		}
	}
	return h.matched == len(preface)
}
