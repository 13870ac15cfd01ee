package origin

import (
	"bufio"
	"crypto/tls"
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
	if !x.fresh && s.reusable() {
		if c := s.take(); c != nil {
			x.p.counts.reuses.Add(1)
			c.reused = true
			return c, nil
		}
	}
	c, err := x.dial(s)
	if err != nil {
		s.leave()
		return nil, err
	}
	x.p.counts.connects.Add(1)
	return c, nil
}

// dial makes a connection to s.
func (x *exchange) dial(s *server) (*conn, error) {
	ctx, cancel := x.within(x.p.cfg.Timeouts.Connect)
	defer cancel()
	nc, err := x.p.cfg.Dial(ctx, "tcp", s.addr)
	if err != nil {
		return nil, x.fault(s, stepConnect, false, err)
	}
	c := &conn{s: s, wire: newWire(nc)}
	c.rw = c.wire
	if s.tls != nil {
		shake, done := x.within(x.p.cfg.Timeouts.TLS)
		defer done()
		t := tls.Client(c.wire, s.tls)
		if err := t.HandshakeContext(shake); err != nil {
			nc.Close()
			return nil, x.fault(s, stepTLS, false, err)
		}
		c.rw = t
	}
	c.br = bufio.NewReader(&c.feed)
	c.feed.c = c
	return c, nil
}
