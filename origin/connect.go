package origin

import (
	"bufio"
	"crypto/tls"
	"time"
)

// connect returns a connection on which the exchange has a place in flight:
// the first server in turn that has room and can be reached, else the first
// that gets room. A server is dialled at most once for a request.
func (x *exchange) connect() (*conn, error) {
	var full []*server
	var lastErr error
	for i := range x.p.servers {
		n := (x.start + i) % len(x.p.servers)
		s := x.p.servers[n]
		if x.failed != nil && x.failed[n] {
			continue
		}
		if !s.admit() {
			full = append(full, s)
			continue
		}
		x.at = s
		c, err := x.open(s)
		if err == nil {
			return c, nil
		}
		lastErr = err
		x.fail(n)
		if x.ctx.Err() != nil {
			return nil, err
		}
	}
	if len(full) == 0 {
		return nil, lastErr
	}
	s := full[0]
	if err := s.wait(x); err != nil {
		return nil, x.fault(s, stepQueue, false, err)
	}
	x.at = s
	return x.open(s)
}

func (x *exchange) fail(n int) {
	if x.failed == nil {
		x.failed = make([]bool, len(x.p.servers))
	}
	x.failed[n] = true
}

// open returns a kept or new connection to s, on which the exchange has a
// place. On error it has given the place up.
func (x *exchange) open(s *server) (*conn, error) {
	if !x.fresh && !x.large && s.reusable() {
		if c := s.take(x.patience()); c != nil {
			x.p.counts.reuses.Add(1)
			c.reused = true
			return c, nil
		}
	}
	c, err := x.dial(s)
	if err != nil {
		x.leave()
		return nil, err
	}
	x.p.counts.connects.Add(1)
	return c, nil
}

// patience returns how long a connection may have been idle, 0 for any time: the
// longer it was, the likelier its server is closing it, and a request that may
// not be sent twice would be lost with it.
func (x *exchange) patience() time.Duration {
	if x.idempotent() {
		return 0
	}
	return x.p.cfg.Timeouts.IdleConn / 2
}

// dial makes a connection to s.
func (x *exchange) dial(s *server) (*conn, error) {
	ctx, cancel := x.within(x.p.cfg.Timeouts.Connect)
	defer cancel()
	nc, err := x.p.cfg.Dial(ctx, "tcp", s.addr)
	if err != nil {
		return nil, x.fault(s, stepConnect, false, err)
	}
	c := &conn{s: s, wire: newWire(nc, s.tls != nil)}
	c.rw = c.wire
	if s.tls != nil {
		t := tls.Client(c.wire, s.tls)
		if err := x.shake(t); err != nil {
			return nil, x.fault(s, stepTLS, false, err)
		}
		c.rw = t
	}
	c.br = bufio.NewReader(&c.feed)
	c.feed.c = c
	return c, nil
}

// shake does the TLS handshake. If it fails, or a callback of Config.TLS panics,
// the connection is closed.
func (x *exchange) shake(t *tls.Conn) error {
	ctx, done := x.within(x.p.cfg.Timeouts.TLS)
	defer done()
	shaken := false
	defer func() {
		if !shaken {
			t.NetConn().Close()
		}
	}()
	err := t.HandshakeContext(ctx)
	shaken = err == nil
	return err
}
