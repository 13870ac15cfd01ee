package store

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Object is one stored response. It is immutable once published, but for
// marks: that it is being refreshed, that it is invalid, what is known of
// purges, and how often it was used.
type Object[M any] struct {
	// Key is the full key that the object answers.
	Key string
	// Meta is what the edge keeps beside the body.
	Meta M
	// Body is the content; it may still grow while a fill is under way.
	Body *Body
	// Forms are the further bodies that may be made of Body; nil when none may.
	Forms *Forms
	// Selector is the normal form of the request fields that chose this
	// variant, "" when the response has no Vary.
	Selector string
	// Recent orders matching variants: the larger counts (RFC 9111, 4.1).
	Recent int64
	// Overhead is what Meta takes, in bytes.
	Overhead int64
	// Epoch is the purge epoch when the request to the origin began.
	Epoch uint64

	// begun orders the requests to the origin for one key: what an earlier one
	// brought never replaces what a later one did.
	begun uint64
	// renewing is when a background refresh may next begin, in Unix
	// nanoseconds; math.MaxInt64 while one runs.
	renewing atomic.Int64
	// invalid is set when the object must be validated before any use.
	invalid atomic.Bool
	// discarded is set when the object must not be published any more.
	discarded atomic.Bool

	// doubtful is invalid, by the purges.
	doubtful atomic.Bool
	// heat counts hits by sample; half of it passes on to a successor.
	heat atomic.Uint32
	// judged is the purge epoch up to which doubtful and purged are known. It
	// is raised after they are set.
	judged atomic.Uint64
	// purged is 0, purgedHard, or since when a purge made the object stale, in
	// Unix nanoseconds.
	purged atomic.Int64
}

// purgedHard is before any soft purge, so that the earliest counts.
const purgedHard = math.MinInt64

// Used counts one hit in a few, by the time of the request: a random number
// that costs nothing.
func (o *Object[M]) Used(now time.Time) {
	if now.Nanosecond()>>4&15 == 0 {
		o.heat.Add(1)
	}
}

// Heat returns how often the object was used, in no unit.
func (o *Object[M]) Heat() uint32 { return o.heat.Load() }

// Invalidate marks the object: it must be validated before any further use.
func (o *Object[M]) Invalidate() { o.invalid.Store(true) }

// entryOverhead is the memory of an object that Overhead, key and body leave
// out: object, slot, entry, table node, the policy's own records.
const entryOverhead = 800

func (o *Object[M]) cost() int64 {
	return entryOverhead + o.Overhead + 2*int64(len(o.Key)) + int64(len(o.Selector)) + o.Body.held() + o.Forms.held()
}

// TryRenew reports whether the caller may refresh the object behind, and
// holds that right until Renewed.
func (o *Object[M]) TryRenew(now time.Time) bool {
	at := o.renewing.Load()
	return now.UnixNano() >= at && o.renewing.CompareAndSwap(at, int64(^uint64(0)>>1))
}

// Renewed gives the right back; the next refresh may begin at next.
func (o *Object[M]) Renewed(next time.Time) { o.renewing.Store(next.UnixNano()) }

// slot is the place of one variant, whose object refreshes swap. It is what
// the keeper keeps or evicts.
type slot[M any] struct {
	resident
	entry  *entry[M]
	object atomic.Pointer[Object[M]]
}

// cost is what the slot takes of the budget, in bytes.
func (at *slot[M]) cost() int64 {
	if o := at.object.Load(); o != nil {
		return o.cost()
	}
	return entryOverhead + 2*int64(len(at.entry.key)) // a mark
}

// entry is all that is known of one key: its variants, the fills under way,
// and the mark that responses to it could not be shared.
//
// Lock order: entry.mu, then a shard's mu. The keeper calls back without its
// locks, and no lock is held while calling the keeper's add, resize or
// reserve, which may evict from any entry.
type entry[M any] struct {
	key  string
	hash Hash

	// slots are the variants, the most recent first; never nil pointers.
	slots atomic.Pointer[[]*slot[M]]
	// alone is until when requests do not wait for one another, in Unix
	// nanoseconds (hit-for-miss).
	alone atomic.Int64
	// marked is the keeper's handle on an entry that holds only a mark.
	marked atomic.Pointer[slot[M]]

	// drafting is set while one response is stored beside its way to a client.
	drafting atomic.Bool

	mu         sync.Mutex
	fills      []*Fill[M] // those that may be joined
	claims     int        // rights to publish that are outstanding
	generation uint64     // counts invalidations
	begun      uint64     // counts claims
	names      []string   // the Vary names learned last
	dead       bool       // taken out of the table; start over
}

func (e *entry[M]) variants() []*slot[M] {
	if p := e.slots.Load(); p != nil {
		return *p
	}
	return nil
}

// setSlotsLocked publishes the variants, the most recent first.
func (e *entry[M]) setSlotsLocked(slots []*slot[M]) {
	slices.SortStableFunc(slots, func(a, b *slot[M]) int {
		return compareRecent(a.object.Load(), b.object.Load())
	})
	e.slots.Store(&slots)
}

func compareRecent[M any](a, b *Object[M]) int {
	switch {
	case a.Recent > b.Recent:
		return -1
	case a.Recent < b.Recent:
		return 1
	case a.begun > b.begun: // a Date has no more than seconds
		return -1
	case a.begun < b.begun:
		return 1
	}
	return 0
}

// dropSlotLocked removes one variant and reports whether it was there.
func (e *entry[M]) dropSlotLocked(s *slot[M]) bool {
	old := e.variants()
	i := slices.Index(old, s)
	if i < 0 {
		return false
	}
	rest := slices.Delete(slices.Clone(old), i, i+1)
	e.slots.Store(&rest)
	return true
}

// idleLocked reports whether nothing is left that needs the entry.
func (e *entry[M]) idleLocked() bool {
	return len(e.variants()) == 0 && len(e.fills) == 0 && e.claims == 0 && e.marked.Load() == nil
}
