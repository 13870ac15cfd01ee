package origin

import (
	"fmt"
	"log/slog"
	"math"
	"slices"
	"time"
)

// condition is how a server is: what it has to do, what its answers were, and
// whether requests may go to it. Pool.mu guards it.
type condition struct {
	inFlight, tunnels int
	current           float64 // for inTurn

	draining bool      // by Drain
	down     bool      // by active checks
	checks   int       // in a row: good ones above zero, bad ones below
	ejected  time.Time // taken out until then; zero: it is not
	ejection struct {
		times int           // of late
		last  time.Duration // how long
	}
	failures int // in a row
	breaker  breaker
	latency  latency
	back     time.Time // when its slow start began; zero: none

	requests, failed, retries, ejections uint64
}

// latency is a moving average over about the last five seconds, in seconds.
type latency struct {
	value float64
	n     int // samples, up to enough
	at    time.Time
}

const (
	latencySpan = 5 * time.Second
	enough      = 20 // samples to judge a server by
)

func (l *latency) add(d time.Duration, now time.Time) {
	v := d.Seconds()
	if l.n > 0 {
		// Samples at one moment weigh a hundredth at least: else a burst would say nothing.
		keep := min(math.Exp(-now.Sub(l.at).Seconds()/latencySpan.Seconds()), 0.99)
		v = keep*l.value + (1-keep)*v
	}
	l.value, l.n, l.at = v, min(l.n+1, enough), now
}

// share returns the server's weight, less in a slow start.
func (s *server) share(now time.Time) float64 {
	full := s.p.cfg.SlowStart
	if s.back.IsZero() || full <= 0 {
		return s.weight
	}
	if done := now.Sub(s.back); done < full {
		return s.weight * max(float64(done)/float64(full), 0.1)
	}
	return s.weight
}

// well reports whether nothing keeps requests away but perhaps the number of
// probes.
func (s *server) well() bool {
	return !s.draining && !s.down && s.ejected.IsZero() && s.breaker.state != breakerOpen
}

// badness orders servers of which none is well.
func (s *server) badness() int {
	switch {
	case s.down:
		return 3
	case s.breaker.state == breakerOpen:
		return 2
	case !s.ejected.IsZero():
		return 1
	}
	return 0
}

// othersWellLocked reports whether the pool can do without s.
func (p *Pool) othersWellLocked(s *server) bool {
	for _, o := range p.servers {
		if o != s && o.well() && o.breaker.state == breakerClosed {
			return true
		}
	}
	return false
}

// turnLocked makes the changes that time alone brings.
func (p *Pool) turnLocked(now time.Time) {
	for _, s := range p.servers {
		if s.breaker.rest(now) {
			p.noteLocked(slog.LevelInfo, s, "breaker half-open")
		}
		if !s.ejected.IsZero() && !now.Before(s.ejected) {
			s.ejected = time.Time{}
			p.returnsLocked(s, now, "ejection over")
		}
	}
}

// returnsLocked begins a server's slow start. What was measured before says
// nothing any more.
func (p *Pool) returnsLocked(s *server, now time.Time, why string) {
	s.back, s.latency, s.failures, s.current = now, latency{}, 0, 0
	p.noteLocked(slog.LevelInfo, s, why)
}

// verdict is what an attempt says about its server.
type verdict uint8

const (
	saysNothing verdict = iota // the client left, or its request was at fault
	saysGood                   // an answer began
	saysBad                    // none, or one that says that the server cannot
)

// report notes what an attempt at s came to, after took.
func (p *Pool) report(s *server, v verdict, probe bool, took time.Duration) {
	p.mu.Lock()
	defer p.unlock()
	now := time.Now()
	if probe {
		s.breaker.probes--
	}
	if v == saysNothing {
		return
	}
	good := v == saysGood
	if good {
		s.failures = 0
		s.latency.add(took, now)
		p.delays.add(took)
	} else {
		s.failed++
		s.failures++
		// Failing fast must not look fast.
		s.latency.add(max(took, min(time.Duration(2*s.latency.value*1e9), 10*time.Second)), now)
	}
	if s.breaker.add(&p.cfg.Breaker, now, good, probe, p.othersWellLocked(s)) {
		level := slog.LevelWarn
		if s.breaker.state == breakerClosed {
			level = slog.LevelInfo
			p.returnsLocked(s, now, "breaker closed")
		} else {
			p.noteLocked(level, s, "breaker "+s.breaker.state.String())
		}
	}
	p.ejectLocked(s, good, now)
}

// overtaken notes that s had not answered after took, when a hedge's other
// server had: else who is always cancelled would never seem slow.
func (p *Pool) overtaken(s *server, took time.Duration) {
	p.mu.Lock()
	defer p.unlock()
	now := time.Now()
	s.latency.add(max(took, time.Duration(s.latency.value*1e9)), now) // it would have taken longer
	p.ejectLocked(s, true, now)
}

// broke notes that the body of an answer broke, which until then was good.
func (p *Pool) broke(s *server) {
	p.mu.Lock()
	s.breaker.retract(&p.cfg.Breaker, time.Now())
	p.mu.Unlock()
	p.report(s, saysBad, false, 0)
}

// ejectLocked takes s out if what it answered is reason enough and the pool can
// do without it.
func (p *Pool) ejectLocked(s *server, good bool, now time.Time) {
	cfg := &p.cfg.Passive
	var why string
	switch {
	case !s.well():
		return
	case !good && cfg.Failures > 0 && s.failures >= cfg.Failures:
		why = fmt.Sprintf("ejected: %d failures in a row", s.failures)
	case good && p.slowLocked(s):
		why = fmt.Sprintf("ejected: answers take %v", time.Duration(s.latency.value*1e9).Round(time.Millisecond))
	default:
		return
	}
	out := 1
	for _, o := range p.servers {
		if !o.ejected.IsZero() {
			out++
		}
	}
	if float64(out) > max(1, cfg.MaxShare*float64(len(p.servers))) || !p.othersWellLocked(s) {
		return
	}
	if !s.back.IsZero() && now.Sub(s.back) > s.ejection.last {
		s.ejection.times = 0
	}
	s.ejection.times++
	s.ejection.last = min(cfg.Eject*time.Duration(s.ejection.times), cfg.MaxEject)
	s.ejected, s.failures = now.Add(s.ejection.last), 0
	s.ejections++
	p.noteLocked(slog.LevelWarn, s, why)
}

// slowLocked reports whether s is an outlier: far slower than the median of the
// others.
func (p *Pool) slowLocked(s *server) bool {
	cfg := &p.cfg.Passive
	if cfg.Latency <= 0 || s.latency.n < enough || s.latency.value < cfg.Slow.Seconds() {
		return false
	}
	var others []float64
	for _, o := range p.servers {
		if o != s && o.well() && o.latency.n >= enough {
			others = append(others, o.latency.value)
		}
	}
	if len(others) == 0 {
		return false
	}
	slices.Sort(others)
	return s.latency.value > cfg.Latency*others[len(others)/2]
}

// note is a line of log that waits until Pool.mu is free.
type note struct {
	level slog.Level
	what  string
	s     *server
	state string
}

func (p *Pool) noteLocked(level slog.Level, s *server, what string) {
	p.notes = append(p.notes, note{level, what, s, s.state()})
}

// unlock frees Pool.mu and writes the lines noted under it: a slow log must not
// hold the pool up.
func (p *Pool) unlock() {
	notes := p.notes
	p.notes = nil
	p.mu.Unlock()
	for _, n := range notes {
		p.cfg.Log.Log(p.ctx, n.level, "origin server: "+n.what, "pool", p.cfg.Name, "server", n.s.id, "state", n.state)
	}
}

// state returns how figures and log lines call the server's condition.
func (s *server) state() string {
	switch {
	case s.draining:
		return "draining"
	case s.down:
		return "unhealthy"
	case !s.ejected.IsZero():
		return "ejected"
	}
	return "healthy"
}

// errLastServer is why a drain is refused.
func errLastServer(id string) error {
	return fmt.Errorf("origin: %s is the last server that is not drained (hint: resume another one first)", id)
}

// Drain sends no new requests to a server, by Backend.Name or URL, until Resume.
// Those under way end by themselves: its InFlight in Stats says how many are
// left. The last server is not drained.
func (p *Pool) Drain(server string) error { return p.setDraining(server, true) }

// Resume ends Drain. The server's share grows over Config.SlowStart.
func (p *Pool) Resume(server string) error { return p.setDraining(server, false) }

func (p *Pool) setDraining(id string, on bool) error {
	p.mu.Lock()
	defer p.unlock()
	i := slices.IndexFunc(p.servers, func(s *server) bool { return s.id == id || s.url == id })
	if i < 0 {
		return fmt.Errorf("origin: no server %q in pool %q", id, p.cfg.Name)
	}
	s := p.servers[i]
	others := slices.ContainsFunc(p.servers, func(o *server) bool { return o != s && !o.draining })
	switch {
	case s.draining == on:
		return nil
	case on && !others:
		return errLastServer(id)
	}
	if s.draining = on; on {
		p.noteLocked(slog.LevelInfo, s, "draining")
	} else {
		p.returnsLocked(s, time.Now(), "resumed")
	}
	return nil
}
