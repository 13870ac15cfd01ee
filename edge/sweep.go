package edge

import (
	"context"
	"log/slog"
	"time"

	"seawall/edge/store"
	"seawall/purge"
)

// Sweep frees the memory of purged responses, and the rules that no response
// needs any more. It runs beside the requests at a bounded rate, after a purge
// was applied, and idles otherwise. Nothing waits for it: what is purged is
// judged at every look-up.
//
// One pass reads the lowest epoch under way, judges every object, which marks
// in the object what the rules say of it, and then drops the rules up to that
// epoch: whatever is stored later asks only for newer ones (see package store).
type Sweep struct {
	// Store and Rules belong together (WithRules). Required.
	Store *Store
	Rules *purge.Rules
	// Rate is how many objects are looked at in a second; 0 is 20,000.
	Rate int
	// Swept is told the epoch up to which rules were dropped: none of these
	// needs to outlive a restart. Nil is allowed.
	Swept func(low uint64) error
	// Log receives Swept's errors; nil discards them.
	Log *slog.Logger

	wake chan struct{}
}

const (
	defaultSweepRate = 20_000
	// sweepSlices is how often in a second a pass pauses.
	sweepSlices = 20
	// sweepPause is the least time between two passes.
	sweepPause = time.Second
	// sweepAgain is when a pass is repeated that could not drop all rules,
	// because something older was under way.
	sweepAgain = time.Minute
)

// NewSweep returns a sweep, to be run.
func NewSweep(s *Store, r *purge.Rules, swept func(low uint64) error) *Sweep {
	return &Sweep{Store: s, Rules: r, Swept: swept, wake: make(chan struct{}, 1)}
}

// Wake tells that a rule was applied. It never waits.
func (s *Sweep) Wake() {
	select {
	case s.wake <- struct{}{}:
	default: // a pass is due already
	}
}

// Run sweeps until ctx ends.
func (s *Sweep) Run(ctx context.Context) {
	var again <-chan time.Time
	if s.Rules.Epoch() > s.Store.Floor() {
		s.Wake() // rules that were replayed
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-again:
		}
		again = nil
		if whole := s.Pass(ctx); !whole {
			again = time.After(sweepAgain)
		}
		if !pause(ctx, sweepPause) {
			return
		}
	}
}

// Pass looks at every object once. It reports whether all rules that were
// there when it began are dropped.
func (s *Sweep) Pass(ctx context.Context) (whole bool) {
	epoch := s.Rules.Epoch()
	low := s.Store.Low() // before the first object, and at epoch at most, or a later one
	if !s.walk(ctx) {
		return false
	}
	low = min(low, epoch)
	if low <= s.Store.Floor() {
		return low >= epoch
	}
	s.Store.Raise(low)
	s.Rules.Forget(low)
	if s.Swept == nil {
		return low >= epoch
	}
	if err := s.Swept(low); err != nil && s.Log != nil {
		s.Log.Warn("purge log not shortened", "epoch", low, "err", err)
	}
	return low >= epoch
}

// walk judges every object and lets go of those that are gone. It is false
// when ctx ended it.
func (s *Sweep) walk(ctx context.Context) bool {
	rate := s.Rate
	if rate <= 0 {
		rate = defaultSweepRate
	}
	slice := max(1, rate/sweepSlices)
	seen, whole := 0, true
	s.Store.Each(func(o *Object) bool {
		if verdict, _ := s.Store.Judge(o); verdict == store.Gone {
			s.Store.Discard(o)
		}
		if seen++; seen%slice == 0 {
			whole = pause(ctx, time.Second/sweepSlices)
		}
		return whole
	})
	return whole && ctx.Err() == nil
}

// pause waits for d; false when ctx ends before.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
