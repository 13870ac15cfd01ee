package origin

import (
	"errors"
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// Stats are counts since the pool was made, and gauges.
type Stats struct {
	Requests, Connects, Reuses, Retries uint64
	Hedges                              uint64            // second requests sent because the first was slow
	Denied                              uint64            // retries and hedges that the budget did not allow
	Surplus                             uint64            // connections on which a server said more than it was asked
	Errors                              map[string]uint64 // by Proxy-Status type, one a failed exchange
	InFlight, Idle, Tunnels             int
	Queue                               int // requests that wait for a place
	Servers                             []ServerStats
}

// ServerStats say how one server is.
type ServerStats struct {
	Name     string
	URL      string
	Protocol string // h1, h2, h2c, h3 or auto
	State    string // healthy, unhealthy (active checks), ejected (passive ones) or draining
	Breaker  string // closed, open or half-open
	Weight   int
	Share    float64 // of its weight that it gets at present: below 1 in a slow start
	Backup   bool

	InFlight, Tunnels, Idle    int
	Latency                    time.Duration // to the answer's head, averaged over the last seconds; 0: not known
	Requests, Failures         uint64        // attempts, and those that failed
	Retries                    uint64        // attempts that were not their request's first
	Ejections                  uint64        // how often passive checks took it out
	Addresses                  []string      // as looked up last; none when its URL holds one
	EjectedFor, BreakerOpenFor time.Duration // from now; 0: it is not
}

type counters struct {
	requests, connects, reuses, retries, hedges, denied, surplus atomic.Uint64

	mu     sync.Mutex // guards errors
	errors map[string]uint64
}

// Stats returns the pool's counters. The caller owns what it holds.
func (p *Pool) Stats() Stats {
	st := Stats{
		Requests: p.counts.requests.Load(),
		Connects: p.counts.connects.Load(),
		Reuses:   p.counts.reuses.Load(),
		Retries:  p.counts.retries.Load(),
		Hedges:   p.counts.hedges.Load(),
		Denied:   p.counts.denied.Load(),
		Surplus:  p.counts.surplus.Load(),
		Errors:   make(map[string]uint64),
	}
	p.counts.mu.Lock()
	maps.Copy(st.Errors, p.counts.errors)
	p.counts.mu.Unlock()

	p.mu.Lock()
	now := time.Now()
	p.turnLocked(now)
	st.InFlight, st.Tunnels, st.Queue = p.inFlight, p.tunnels, len(p.queue)
	for _, s := range p.servers {
		st.Servers = append(st.Servers, s.statsLocked(now))
	}
	p.unlock()

	for i, s := range p.servers {
		st.Servers[i].Idle = s.transport.idleCount()
		st.Idle += st.Servers[i].Idle
		if s.names != nil {
			st.Servers[i].Addresses = s.names.known()
		}
	}
	return st
}

func (s *server) statsLocked(now time.Time) ServerStats {
	st := ServerStats{
		Name: s.id, URL: s.url, Protocol: s.proto, State: s.state(), Breaker: s.breaker.state.String(),
		Weight: int(s.weight), Share: s.share(now) / s.weight, Backup: s.backup,
		InFlight: s.inFlight, Tunnels: s.tunnels, Latency: time.Duration(s.latency.value * float64(time.Second)),
		Requests: s.requests, Failures: s.failed, Retries: s.retries, Ejections: s.ejections,
	}
	if !s.ejected.IsZero() {
		st.EjectedFor = s.ejected.Sub(now)
	}
	if s.breaker.state == breakerOpen {
		st.BreakerOpenFor = s.breaker.until.Sub(now)
	}
	return st
}

// count notes a failed exchange and returns its error.
func (p *Pool) count(err error) error {
	var e *Error
	if errors.As(err, &e) {
		p.counts.mu.Lock()
		defer p.counts.mu.Unlock()
		if p.counts.errors == nil {
			p.counts.errors = make(map[string]uint64)
		}
		p.counts.errors[e.Kind]++
	}
	return err
}
