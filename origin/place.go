package origin

import (
	"slices"
	"time"
)

const (
	// Beyond the places in flight, this share of them may wait this long for one.
	queueShare = 8
	queueWait  = time.Second
)

// A server's mark in an exchange.
const (
	untried     uint8 = iota
	tried             // it had the request, and the answer did not do
	unreachable       // it never got it
)

// waiter is an exchange in the pool's queue.
type waiter struct {
	x    *exchange
	seat chan struct{} // closed when x.at is set
}

// seat takes a place in flight at the server that suits best, x.at, waiting in
// the queue if all have theirs taken: few may, and not for long. The error is
// errNoServer when no server is left for x.
func (x *exchange) seat() error {
	p := x.p
	p.mu.Lock()
	s, full := p.chooseLocked(x, time.Now())
	switch {
	case s != nil:
		p.seatLocked(x, s)
		p.unlock()
		return nil
	case !full:
		p.unlock()
		return errNoServer
	case len(p.queue) >= p.cfg.MaxQueue:
		p.unlock()
		return x.fault(nil, stepQueue, false, overload(errQueueFull))
	}
	w := &waiter{x: x, seat: make(chan struct{})}
	p.queue = append(p.queue, w)
	p.unlock()
	ctx, cancel := x.within(p.cfg.QueueWait)
	defer cancel()
	select {
	case <-w.seat:
		return nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	i := slices.Index(p.queue, w)
	if i >= 0 {
		p.queue = slices.Delete(p.queue, i, i+1)
	}
	p.unlock()
	if i < 0 { // it was given a place at the same moment
		return nil
	}
	return x.fault(nil, stepQueue, false, overload(errQueueWait))
}

func overload(err error) *Error {
	return &Error{Kind: connLimit, Step: stepQueue, Err: err, unanswered: true, overload: true}
}

func (p *Pool) seatLocked(x *exchange, s *server) {
	s.inFlight++
	s.requests++
	p.inFlight++
	x.at = s
	if x.probe = s.breaker.state == breakerHalfOpen; x.probe {
		s.breaker.probes++
	}
	if x.sends > 0 {
		s.retries++
	}
	x.sends++
}

// freeLocked gives a place at s up, to the first in the queue that can use it.
func (p *Pool) freeLocked(s *server) {
	s.inFlight--
	p.inFlight--
	for i, w := range p.queue {
		if s, _ := p.chooseLocked(w.x, time.Now()); s != nil {
			p.seatLocked(w.x, s)
			p.queue = slices.Delete(p.queue, i, i+1)
			close(w.seat)
			return
		}
	}
}

// leave gives the exchange's place up, if it has one.
func (x *exchange) leave() {
	s := x.at
	if s == nil {
		return
	}
	x.p.mu.Lock()
	defer x.p.unlock()
	x.at = nil
	if x.tunnel {
		s.tunnels--
		x.p.tunnels--
		return
	}
	x.p.freeLocked(s)
}

// dig changes the exchange's place in flight for one of a tunnel, if there is
// one: what may last for days must not take ordinary requests' places.
func (x *exchange) dig() bool {
	s := x.at
	x.p.mu.Lock()
	defer x.p.unlock()
	if s.tunnels >= x.p.cfg.MaxTunnels {
		return false
	}
	s.tunnels++
	x.p.tunnels++
	x.tunnel = true
	x.p.freeLocked(s)
	return true
}

// The servers that may be asked, in the order they are preferred. A backup is
// no help against too many requests: it is asked only while none before it is
// well. When none is well at all, the best of the others is tried.
const (
	wellTier = iota
	backupTier
	wellAgainTier // asked before
	worstTier
	worstAgainTier
	tiers
)

// in reports whether s is in a tier for x.
func (x *exchange) in(tier int, s *server) bool {
	mark := x.mark(s)
	switch {
	case s.draining || x.upgrade && s.proto != "h1" && s.proto != "auto":
		return false
	case tier == wellTier:
		return mark == untried && !s.backup && s.well() && s.breaker.passes(&x.p.cfg.Breaker)
	case tier == backupTier:
		return mark == untried && s.backup && s.well() && s.breaker.passes(&x.p.cfg.Breaker)
	case tier == wellAgainTier:
		return x.again && mark == tried && s.well() && s.breaker.passes(&x.p.cfg.Breaker)
	case tier == worstTier:
		return mark == untried
	}
	return x.again && mark == tried
}

// chooseLocked returns the server for x's next attempt, or nil: full says that
// it was for want of a place.
func (p *Pool) chooseLocked(x *exchange, now time.Time) (s *server, full bool) {
	p.turnLocked(now)
	for tier := range tiers {
		any := false
		from := p.candidates[:0]
		for _, s := range p.servers {
			if !x.in(tier, s) {
				continue
			}
			any = true
			if s.inFlight < p.cfg.MaxInFlight {
				from = append(from, s)
			}
		}
		p.candidates = from
		if len(from) > 0 && p.inFlight < p.cfg.MaxPoolInFlight {
			return p.oneOfLocked(x, tier, from, now), false
		}
		if any {
			return nil, true
		}
	}
	return nil, false
}

func (p *Pool) oneOfLocked(x *exchange, tier int, from []*server, now time.Time) *server {
	if tier >= worstTier {
		return slices.MinFunc(from, func(a, b *server) int {
			if d := a.badness() - b.badness(); d != 0 {
				return d
			}
			return a.failures - b.failures
		})
	}
	if x.prefer != nil && slices.Contains(from, x.prefer) {
		return x.prefer
	}
	return p.choose(x, from, now)
}

// mark says whether s was tried for x.
func (x *exchange) mark(s *server) uint8 {
	if x.marks == nil {
		return untried
	}
	return x.marks[s.n]
}

func (x *exchange) setMark(s *server, m uint8) {
	if x.marks == nil {
		x.marks = make([]uint8, len(x.p.servers))
	}
	x.marks[s.n] = m
}
