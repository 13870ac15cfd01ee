//go:build unix

package origin

import (
	"io"
	"syscall"
)

const canAsk = true

// How this system says what the others spell alike.
const (
	errnoRefused = syscall.ECONNREFUSED
	errnoReset   = syscall.ECONNRESET
	errnoAborted = syscall.ECONNABORTED
)

// asked reads a socket once without waiting. It holds its own arguments so that
// asking allocates nothing.
type asked struct {
	fn  func(fd uintptr)
	p   []byte
	n   int
	err error
}

func (a *asked) prepare() {
	a.fn = func(fd uintptr) {
		for {
			// The runtime keeps sockets in non-blocking mode.
			a.n, a.err = syscall.Read(int(fd), a.p)
			if a.err != syscall.EINTR {
				return
			}
		}
	}
}

func (a *asked) read(raw syscall.RawConn, p []byte) (int, error) {
	a.p = p
	// Control, not Read: it does not look at deadlines.
	err := raw.Control(a.fn)
	a.p = nil
	switch {
	case err != nil:
		return 0, err
	case a.err == syscall.EAGAIN:
		return 0, errSilent{}
	case a.err != nil:
		return 0, a.err
	case a.n <= 0:
		return 0, io.EOF
	}
	return a.n, nil
}
