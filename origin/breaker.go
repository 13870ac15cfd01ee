package origin

import "time"

// breakerState is closed (requests pass), open (none does) or half open (a few
// try whether the server is well again).
type breakerState uint8

const (
	breakerClosed breakerState = iota
	breakerOpen
	breakerHalfOpen
)

// String returns the state as figures and log lines name it.
func (s breakerState) String() string {
	return [...]string{"closed", "open", "half-open"}[s]
}

// breakerEvent is what moves a breaker.
type breakerEvent uint8

const (
	breakerTripped breakerEvent = iota // too large a share of requests failed
	breakerRested                      // it was open for long enough
	breakerProved                      // enough probes went well
	breakerFailed                      // a probe failed
)

// after returns the state that e leads to. The package comment draws it.
func (s breakerState) after(e breakerEvent) breakerState {
	return [...][4]breakerState{
		//                 tripped       rested           proved          failed
		breakerClosed:   {breakerOpen, breakerClosed, breakerClosed, breakerClosed},
		breakerOpen:     {breakerOpen, breakerHalfOpen, breakerOpen, breakerOpen},
		breakerHalfOpen: {breakerHalfOpen, breakerHalfOpen, breakerClosed, breakerOpen},
	}[s][e]
}

const breakerSlots = 10 // of Breaker.Window

// breaker stops requests to a server that fails. It does no I/O, holds no lock
// and is told the time.
type breaker struct {
	state  breakerState
	until  time.Time // open until
	probes int       // under way
	passed int       // good probes in a row

	slots [breakerSlots]struct{ at, good, bad int64 } // at: which slot of time
}

// rest moves an open breaker on once its time is over, and reports whether it
// did.
func (b *breaker) rest(now time.Time) bool {
	if b.state != breakerOpen || now.Before(b.until) {
		return false
	}
	b.state = b.state.after(breakerRested)
	b.passed = 0
	return true
}

// passes reports whether one more request may go to the server.
func (b *breaker) passes(cfg *Breaker) bool {
	return b.state == breakerClosed || b.state == breakerHalfOpen && b.probes < cfg.Probes
}

// add counts an attempt's end and reports whether the breaker changed its
// state. A request that began in another state than the present one, as probe
// says, is only counted. mayOpen says that another server is usable.
func (b *breaker) add(cfg *Breaker, now time.Time, good, probe, mayOpen bool) bool {
	if cfg.Share <= 0 {
		return false
	}
	was := b.state
	switch {
	case probe != (b.state == breakerHalfOpen):
	case probe && good:
		if b.passed++; b.passed >= cfg.Success {
			b.state = b.state.after(breakerProved)
			b.slots = [breakerSlots]struct{ at, good, bad int64 }{}
		}
	case probe:
		b.passed = 0
		if mayOpen {
			b.open(cfg, now, breakerFailed)
		}
	case b.state == breakerClosed:
		if b.count(cfg, now, good); mayOpen && !good && b.tripped(cfg, now) {
			b.open(cfg, now, breakerTripped)
		}
	}
	return b.state != was
}

func (b *breaker) open(cfg *Breaker, now time.Time, e breakerEvent) {
	b.state = b.state.after(e)
	b.until = now.Add(cfg.Open)
}

func (b *breaker) slotAt(cfg *Breaker, now time.Time) int64 {
	return now.UnixNano() / max(1, int64(cfg.Window)/breakerSlots)
}

func (b *breaker) count(cfg *Breaker, now time.Time, good bool) {
	at := b.slotAt(cfg, now)
	slot := &b.slots[at%breakerSlots]
	if slot.at != at {
		slot.at, slot.good, slot.bad = at, 0, 0
	}
	if good {
		slot.good++
	} else {
		slot.bad++
	}
}

// retract takes back that an attempt went well, if that was lately.
func (b *breaker) retract(cfg *Breaker, now time.Time) {
	at := b.slotAt(cfg, now)
	for i := range int64(breakerSlots) {
		if slot := &b.slots[(at-i)%breakerSlots]; slot.at == at-i && slot.good > 0 {
			slot.good--
			return
		}
	}
}

// tripped reports whether failures have reached their share of the window.
func (b *breaker) tripped(cfg *Breaker, now time.Time) bool {
	at := b.slotAt(cfg, now)
	var good, bad int64
	for _, slot := range b.slots {
		if at-slot.at < breakerSlots {
			good, bad = good+slot.good, bad+slot.bad
		}
	}
	return good+bad >= int64(cfg.Least) && float64(bad) >= cfg.Share*float64(good+bad)
}
