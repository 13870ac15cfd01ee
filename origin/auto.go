package origin

import (
	"errors"
	"net/http"
	"sync/atomic"
)

// auto sends requests to one https server over HTTP/2 if it speaks that, and
// else over HTTP/1.1: connections offer both (RFC 7301) until it chose
// HTTP/1.1, which is remembered for the life of the pool. Upgrades go over HTTP/1.1 always.
type auto struct {
	h1    *h1
	h2    *h2
	plain atomic.Bool // the server speaks HTTP/1.1 alone
}

func newAuto(s *server) *auto { return &auto{h1: &h1{server: s}, h2: newH2(s)} }

func (a *auto) send(x *exchange) (*http.Response, error) {
	if x.upgrade || a.plain.Load() {
		return a.h1.send(x)
	}
	c, reused, err := a.h2.reserve(x)
	switch {
	case err == nil:
		return a.h2.sendOn(c, reused, x)
	case errors.Is(err, errNoH2): // nothing was sent yet
		a.plain.Store(true)
		return a.h1.send(x)
	}
	x.leave()
	return nil, err
}

func (a *auto) idleCount() int { return a.h1.idleCount() + a.h2.idleCount() }

func (a *auto) close() {
	a.h1.close()
	a.h2.close()
}
