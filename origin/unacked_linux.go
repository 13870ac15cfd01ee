package origin

import (
	"net"

	"golang.org/x/sys/unix"
)

// unacked returns how many written bytes the other side's TCP has not
// acknowledged, 0 when that is not known. On other sockets than TCP's the number
// means something else.
func (w *wire) unacked() int {
	if _, tcp := w.LocalAddr().(*net.TCPAddr); w.raw == nil || !tcp {
		return 0
	}
	n := 0
	err := w.raw.Control(func(fd uintptr) {
		if got, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ); err == nil {
			n = got
		}
	})
	if err != nil {
		return 0
	}
	return n
}
