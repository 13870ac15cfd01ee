//go:build !unix

package origin

import "syscall"

// canAsk is false: there is no read that neither waits nor misses a close.
const canAsk = false

// How Windows says what the others spell alike (WSAECONNREFUSED and so on).
const (
	errnoRefused = syscall.Errno(10061)
	errnoReset   = syscall.Errno(10054)
	errnoAborted = syscall.Errno(10053)
)

type asked struct{}

func (*asked) prepare() {}

func (*asked) read(syscall.RawConn, []byte) (int, error) { return 0, errSilent{} }
