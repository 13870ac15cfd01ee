package store

import (
	"sync"
	"time"
)

// Purges are not searches: an object carries the epoch that stood when its
// request to the origin began, and is judged by the later purges when it is
// found. What they say is marked in the object, so that each purge is asked
// about once; with nothing newer, a look-up compares two numbers.
//
// Purges may be forgotten up to an epoch when no object can ask about them any
// more. The invariant that allows it: every object in the store has been judged
// up to that epoch, and every claim under way (of a fill, refresh, draft or
// push) is at that epoch or later, so that what it will publish asks only for
// later ones. A pass that reads Low first, then judges every object that Each
// gives, may therefore forget up to Low: an object that Each did not give was
// published after the pass began, by a claim that was under way then, or by a
// later one.

// epochs counts the claims under way by their epoch.
type epochs struct {
	mu     sync.Mutex
	counts map[uint64]int // guarded by mu
}

// begin counts one claim at the epoch that now returns. Reading and counting
// are one step for low: a claim is never at an earlier epoch than low returned.
func (c *epochs) begin(now func() uint64) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	epoch := now()
	if c.counts == nil {
		c.counts = make(map[uint64]int)
	}
	c.counts[epoch]++
	return epoch
}

func (c *epochs) end(epoch uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts[epoch]--; c.counts[epoch] <= 0 {
		delete(c.counts, epoch)
	}
}

func (c *epochs) low(now func() uint64) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	low := now()
	for epoch := range c.counts {
		low = min(low, epoch)
	}
	return low
}

func (s *Store[M]) epoch() uint64 {
	if s.o.Epoch == nil {
		return 0
	}
	return s.o.Epoch()
}

// Low returns the oldest epoch of what is under way: of claims, and so of
// fills, refreshes, drafts and pushes; the present one when nothing is older.
func (s *Store[M]) Low() uint64 { return s.epochs.low(s.epoch) }

// Floor returns the epoch up to which purges may have been forgotten.
func (s *Store[M]) Floor() uint64 { return s.floor.Load() }

// Raise sets Floor; called before purges are forgotten.
func (s *Store[M]) Raise(floor uint64) {
	for {
		old := s.floor.Load()
		if old >= floor || s.floor.CompareAndSwap(old, floor) {
			return
		}
	}
}

// Purges reports whether the store was given purges to judge by.
func (s *Store[M]) Purges() bool { return s.o.Epoch != nil }

// mark gives an object what it has of its claim. It has been judged by the
// purges up to the claim's epoch, since these came before its request.
func (c *Claim[M]) mark(o *Object[M]) {
	if o.begun != c.begun || o.Key == "" { // else it was marked when its fill resolved, and others read it since
		o.Key, o.Epoch, o.begun = c.entry.key, c.epoch, c.begun
	}
	o.judgedTo(c.epoch)
}

// Judge returns what the purges so far say of o: the hardest, and with Soft
// since when it is stale.
func (s *Store[M]) Judge(o *Object[M]) (Verdict, time.Time) {
	if epoch := s.epoch(); o.judged.Load() < epoch {
		s.judge(o, epoch)
	}
	purged := o.purged.Load()
	switch {
	case purged == purgedHard:
		return Gone, time.Time{}
	case o.doubtful.Load():
		return Doubtful, time.Time{}
	case purged != 0:
		return Soft, time.Unix(0, purged)
	}
	return Valid, time.Time{}
}

// Invalid reports whether o must be validated before any use.
func (o *Object[M]) Invalid() bool { return o.invalid.Load() || o.doubtful.Load() }

// judge marks what the purges up to epoch, which is the present one or was a
// moment ago, say of o. Several may do so at once: marks only become harder,
// and judged is raised after they are set.
func (s *Store[M]) judge(o *Object[M], epoch uint64) {
	judged := o.judged.Load()
	verdict, since := s.o.Judge(o, judged)
	// Only what left the store meanwhile can have been judged last before purges
	// that are forgotten: what they said of it is not known. Floor is raised first.
	if verdict < Doubtful && judged < s.floor.Load() {
		verdict = Doubtful
	}
	switch verdict {
	case Gone:
		o.purged.Store(purgedHard)
	case Doubtful:
		o.doubtful.Store(true)
	case Soft:
		o.soften(since)
	}
	o.judgedTo(epoch)
}

func (o *Object[M]) judgedTo(epoch uint64) {
	for {
		old := o.judged.Load()
		if old >= epoch || o.judged.CompareAndSwap(old, epoch) {
			return
		}
	}
}

// soften marks that o is stale since a time, the earliest of all.
func (o *Object[M]) soften(since time.Time) {
	at := since.UnixNano()
	if at == 0 || at == purgedHard { // neither is a time of ours
		at = 1
	}
	for {
		old := o.purged.Load()
		if old != 0 && old <= at || o.purged.CompareAndSwap(old, at) {
			return
		}
	}
}

// gone reports whether o is purged hard.
func (s *Store[M]) gone(o *Object[M]) bool {
	verdict, _ := s.Judge(o)
	return verdict == Gone
}

// Outdated reports whether a purge since the claim was made is meant for o,
// which it is about to bring: it will not be kept.
func (s *Store[M]) Outdated(c *Claim[M], o *Object[M]) bool {
	o.judgedTo(c.epoch)
	return s.gone(o)
}
