package origin

import (
	"bufio"
	"net/http"
	"net/http/httptrace"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// A server is new until this many of its connections were found silent at
	// their next use. A new one's connections settle for longer: a server that
	// sends surplus mostly does so from its first answer on, and the longer the
	// pool looks the surer it sees it before anything has been reused.
	newServerReuses = 32
	newServerSettle = 4

	// Only connections idle for this many times Settle, and this long, count
	// against MaxIdle. At steady load those that settle or have just settled are
	// the next ones in use: closing them would mean to connect anew all the time.
	spareSettles = 20
	spareTime    = 250 * time.Millisecond
)

// h1 sends requests to one server over HTTP/1.1 connections of our own, and
// keeps those that may be used again.
type h1 struct {
	*server

	surplus atomic.Bool  // the server sent bytes nobody asked for
	silent  atomic.Int64 // reuses that found silence

	mu     sync.Mutex // guards the fields below
	idle   []*conn    // by since, oldest first
	reaper *time.Timer
}

// send sends the request once. The caller's Dial, trace and body may panic:
// then neither the place nor the connection is lost.
func (s *h1) send(x *exchange) (*http.Response, error) {
	var c *conn
	returned := false
	defer func() {
		if returned {
			return
		}
		if c != nil {
			c.drop()
		}
		x.leave()
	}()
	c, err := s.open(x)
	if err != nil {
		returned = true
		return nil, err
	}
	if x.trace != nil && x.trace.GotConn != nil {
		x.trace.GotConn(httptrace.GotConnInfo{Conn: c.rw, Reused: c.reused})
	}
	resp, err := c.exchange(x)
	returned = true
	return resp, err
}

func (s *h1) close() { s.dropIdle() }

// open returns a kept or new connection, on which the exchange has a place. On
// error it has given the place up.
func (s *h1) open(x *exchange) (*conn, error) {
	if !x.fresh && !x.large && s.reusable() {
		if c := s.take(x.patience()); c != nil {
			x.p.counts.reuses.Add(1)
			c.reused = true
			return c, nil
		}
	}
	c, err := s.dial(x)
	if err != nil {
		x.leave()
		return nil, err
	}
	x.p.counts.connects.Add(1)
	return c, nil
}

// dial makes a connection.
func (s *h1) dial(x *exchange) (*conn, error) {
	nc, at, err := s.connect(x)
	if err != nil {
		return nil, err
	}
	c := &conn{s: s, at: at, wire: newWire(nc, s.tls != nil)}
	c.rw = c.wire
	if s.tls != nil {
		if c.rw, err = s.secure(x, c.wire, "http/1.1"); err != nil {
			return nil, err
		}
	}
	c.br = bufio.NewReader(&c.feed)
	c.feed.c = c
	return c, nil
}

// reusable reports whether connections of s may serve a second request.
func (s *h1) reusable() bool {
	return !s.surplus.Load() && s.p.cfg.MaxIdle > 0 && !s.p.closed.Load()
}

// settle returns how long a connection rests before its next request.
func (s *h1) settle() time.Duration {
	d := s.p.cfg.Timeouts.Settle
	if s.silent.Load() < newServerReuses {
		d *= newServerSettle
	}
	return d
}

// take returns the idle connection used last, of those that have settled and
// are silent, or nil. One that was idle for longer than oldest is left alone,
// unless oldest is 0.
func (s *h1) take(oldest time.Duration) *conn {
	for {
		c := s.pop(oldest)
		if c == nil {
			return nil
		}
		switch c.probe() {
		case silent:
			if s.names.gone(c.at) {
				break
			}
			s.silent.Add(1)
			return c
		case surplus:
			s.sawSurplus()
		}
		c.abort()
	}
}

func (s *h1) pop(oldest time.Duration) *conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.restedLocked(s.settle()) - 1
	if i < 0 {
		return nil
	}
	c := s.idle[i]
	if oldest > 0 && time.Since(c.since) > oldest {
		return nil
	}
	s.idle = slices.Delete(s.idle, i, i+1)
	return c
}

// restedLocked returns how many idle connections, from the oldest, have been so
// for d.
func (s *h1) restedLocked(d time.Duration) int {
	limit := time.Now().Add(-d)
	return sort.Search(len(s.idle), func(i int) bool { return s.idle[i].since.After(limit) })
}

// put keeps a connection whose answer has ended, or closes it.
func (s *h1) put(c *conn) {
	if !s.reusable() {
		c.abort()
		return
	}
	switch c.probe() {
	case surplus:
		s.sawSurplus()
		fallthrough
	case closed:
		c.abort()
		return
	}
	c.wire.watch()
	for _, spare := range s.keep(c) {
		s.retire(spare)
	}
}

// retire closes a connection that was idle, and learns what it can from it:
// those used least may never be looked at otherwise.
func (s *h1) retire(c *conn) {
	if c.probe() == surplus {
		s.sawSurplus()
	}
	c.abort()
}

// keep makes c idle and returns the connections for which there is no room any
// more.
func (s *h1) keep(c *conn) []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.reusable() { // looked at under the lock, so that dropIdle sees c
		return []*conn{c}
	}
	c.since = time.Now()
	s.idle = append(s.idle, c)
	if s.reaper == nil && s.p.cfg.Timeouts.IdleConn > 0 {
		s.reaper = time.AfterFunc(s.p.cfg.Timeouts.IdleConn, s.reap)
	}
	if len(s.idle) <= s.p.cfg.MaxIdle {
		return nil
	}
	rested := s.restedLocked(max(spareSettles*s.settle(), spareTime))
	n := max(rested, len(s.idle)-s.p.cfg.MaxInFlight) - s.p.cfg.MaxIdle
	if n <= 0 {
		return nil
	}
	spare := slices.Clone(s.idle[:n])
	s.idle = slices.Delete(s.idle, 0, n)
	return spare
}

// reap closes the connections that were idle for too long.
func (s *h1) reap() {
	s.mu.Lock()
	limit := time.Now().Add(-s.p.cfg.Timeouts.IdleConn)
	n := sort.Search(len(s.idle), func(i int) bool { return s.idle[i].since.After(limit) })
	expired := slices.Clone(s.idle[:n])
	s.idle = slices.Delete(s.idle, 0, n)
	s.reaper = nil
	if len(s.idle) > 0 {
		s.reaper = time.AfterFunc(s.idle[0].since.Sub(limit), s.reap)
	}
	s.mu.Unlock()
	for _, c := range expired {
		s.retire(c)
	}
}

// dropIdle closes all idle connections. The caller has made s not reusable.
func (s *h1) dropIdle() {
	s.mu.Lock()
	dropped := s.idle
	s.idle = nil
	if s.reaper != nil {
		s.reaper.Stop()
		s.reaper = nil
	}
	s.mu.Unlock()
	for _, c := range dropped {
		c.abort()
	}
}

func (s *h1) idleCount() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.idle)
}

// sawSurplus ends reuse for s, for good.
func (s *h1) sawSurplus() {
	s.p.counts.surplus.Add(1)
	if s.surplus.Swap(true) {
		return
	}
	s.p.cfg.Log.Warn("origin sends bytes after its answers: its connections are no longer reused",
		"pool", s.p.cfg.Name, "server", s.url)
	s.dropIdle()
}
