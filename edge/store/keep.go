package store

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/ristretto/v2"
)

// resident is the keeper's part of a table entry, embedded there by value. The
// table sets key and owner before add and never changes them after.
//
// The table removes a resident before it adds another with the same key. If
// two meet all the same (a removal overtaken by a new fill), ristretto knows
// one of them; the other stays in main's own list, where the clock finds it.
type resident struct {
	key   string // 16 bytes of a keyed 128-bit hash; other lengths are hashed as they are
	owner any    // the entry, for the evict call; the keeper does not read it

	// fresh counts hits since the keeper last looked, up to keepHitsMax. It is
	// written without a lock: two hits at once may count as one, which costs
	// less than a locked instruction on every hit and changes no decision.
	fresh atomic.Uint32
	stay  atomic.Uint32 // keepOut, keepIn or keepDoomed

	// The rest belongs to the keeper's mutex.
	cost       int64
	home       *keepList // the segment it is in; nil outside
	prev, next *resident
	clock      uint8 // turns of the main clock it survives without another hit
}

// A resident's stay, from add to the evict call or remove. The three values
// let a remove win against an eviction that was decided but not yet told.
const (
	keepOut    = iota
	keepIn     // in a segment
	keepDoomed // out of the segments, evict not yet called
)

const (
	// keepHitsMax is where a resident stops counting hits until looked at: a
	// hot entry is then only read, so its cache line stays shared by all
	// cores. The sketch counts to 15 in any case.
	keepHitsMax = 7
	// keepMeanCost is the object size assumed for the number of counters.
	keepMeanCost = 16 << 10
	// keepCountersMin and keepCountersMax bound the sketch: 60 KiB to 48 MiB.
	keepCountersMin = 10_000
	keepCountersMax = 10_000_000
	// keepQueueMax bounds the deletions queued in ristretto before they are
	// waited for; its queue holds 32768 and drops updates when full.
	keepQueueMax = 1024
)

// keeper decides which entries stay in memory. It holds a budget of bytes and
// calls evict for the entries that must go; it never holds the truth about
// what is cached (the table does) nor any body.
//
// New entries enter young, a FIFO segment. From there they are promoted to
// main when hit twice or more, offered to ristretto when hit once, and dropped
// when not hit at all; an entry that comes back soon after it was dropped goes
// to main at once. ristretto holds exactly main's entries: it admits by
// frequency and picks victims by frequency. Room that must be made without
// asking (promotion, a smaller main, fills, a refresh that grew) is made by
// hand with a clock over main's own list, since ristretto cannot evict by
// request (updates never evict).
//
// Lock order: mu is the only lock and is a leaf for callers: evict is called
// without it, so a caller may hold its own locks around any method only if
// evict does not take them. ristretto's callbacks run on its goroutine while
// some caller holds mu and waits; they take no lock and only append to
// verdict, which that caller reads after Wait (the close of Wait's channel
// orders the two).
type keeper struct {
	evict  func(*resident)
	budget int64

	mu        sync.Mutex
	judge     *ristretto.Cache[string, *resident]
	verdict   keepVerdict
	queued    int // deletions queued in judge since the last Wait
	young     keepList
	main      keepList
	sweep     *resident // next in main whose hits are passed on
	reserved  int64
	evictions uint64
	doomed    []*resident // stays ended by the method that holds mu
	ghost     keepGhosts
	share     keepShare
	closed    bool
}

// keepVerdict is what ristretto said about one Set.
type keepVerdict struct {
	refused bool
	victims []*resident
	mute    bool // closing: evictions are not verdicts
}

// newKeeper returns a keeper of budget bytes (at least 1). evict is called
// once for each stay that the keeper ends, without locks held, from the
// goroutine whose call made it necessary; never after remove returned, except
// that a call already begun may still run.
func newKeeper(budget int64, evict func(*resident)) *keeper {
	budget = max(budget, 1)
	k := &keeper{evict: evict, budget: budget}
	counters := min(max(budget/keepMeanCost*10, keepCountersMin), keepCountersMax)
	k.young.init()
	k.main.init()
	k.ghost.init(budget, int(counters/2))
	k.share.init()
	judge, err := ristretto.NewCache(&ristretto.Config[string, *resident]{
		NumCounters:        counters,
		MaxCost:            budget,
		BufferItems:        keepBatch,
		IgnoreInternalCost: true, // costs include the overhead
		KeyToHash:          keepHash,
		OnEvict: func(i *ristretto.Item[*resident]) {
			if i.Value != nil && !k.verdict.mute {
				k.verdict.victims = append(k.verdict.victims, i.Value)
			}
		},
		OnReject: func(*ristretto.Item[*resident]) { k.verdict.refused = !k.verdict.mute },
		// No entry has a TTL: the cleaner has nothing to do.
		TtlTickerDurationInSec: int64(24 * time.Hour / time.Second),
	})
	if err != nil {
		panic("store: ristretto: " + err.Error()) // only for sizes below 1, excluded above
	}
	k.judge = judge
	return k
}

// keepBatch is how many recorded hits ristretto gathers before it applies
// them.
const keepBatch = 32

// keepHash splits a key into ristretto's two hashes. The second is 1 rather
// than 0, which would mean "do not compare".
func keepHash(key string) (uint64, uint64) {
	var b [16]byte
	copy(b[:], key)
	return binary.LittleEndian.Uint64(b[:8]), max(binary.LittleEndian.Uint64(b[8:]), 1)
}

// hit records that r answered a request. It takes no lock, allocates nothing
// and may be called at any time, also after r was evicted or k closed.
func (k *keeper) hit(r *resident) {
	if n := r.fresh.Load(); n < keepHitsMax {
		r.fresh.Store(n + 1)
	}
}

// miss records a lookup of key that found nothing, so that frequent absent
// keys are admitted. It never waits: while another call holds mu it is not
// recorded, as ristretto's own recording is lossy under load.
func (k *keeper) miss(key string) {
	if !k.mu.TryLock() {
		return
	}
	defer k.mu.Unlock()
	if !k.closed {
		k.judge.Get(key)
	}
}

// add begins a stay of r at cost bytes. When it returns r is in a segment and
// the total is within the budget, unless cost exceeds what reservations leave
// of the budget: then r itself is evicted. An r that is in already is resized.
func (k *keeper) add(r *resident, cost int64) {
	k.mu.Lock()
	if r.home == nil {
		k.addLocked(r, cost)
	} else {
		k.resizeLocked(r, cost)
	}
	k.unlockAndTell()
}

func (k *keeper) addLocked(r *resident, cost int64) {
	r.stay.Store(keepIn)
	r.cost = max(cost, 1)
	r.clock = 0
	r.fresh.Store(0)
	if k.closed || r.cost > k.budget-k.reserved {
		k.doomLocked(r)
		return
	}
	k.admitLocked(r)
	k.settleLocked()
}

// resize changes r's cost after a refresh, without asking whether r may stay.
// If the total then exceeds the budget, entries are evicted in the usual order,
// which may come to r; if r alone exceeds it, r is.
func (k *keeper) resize(r *resident, cost int64) {
	k.mu.Lock()
	if r.home != nil {
		k.resizeLocked(r, cost)
	}
	k.unlockAndTell()
}

func (k *keeper) resizeLocked(r *resident, cost int64) {
	cost = max(cost, 1)
	if k.closed || cost > k.budget-k.reserved {
		k.dropLocked(r)
		return
	}
	r.home.bytes += cost - r.cost
	r.cost = cost
	if r.home == &k.main {
		// An update is recorded but never evicts; settle evicts by hand.
		k.setLocked(r)
	}
	k.settleLocked()
}

// remove ends r's stay at the table's wish; no evict call begins after it
// returned. A resident that is out already is left alone.
func (k *keeper) remove(r *resident) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if r.home != nil {
		k.unlinkLocked(r)
	}
	r.stay.Store(keepOut)
}

// reserve charges n bytes of fills under way to the budget and evicts as
// needed. It reports false, and charges nothing, if they do not fit beside
// the other reservations even with no entry left.
func (k *keeper) reserve(n int64) bool {
	k.mu.Lock()
	if k.closed || n < 0 || n > k.budget-k.reserved {
		k.mu.Unlock()
		return false
	}
	k.reserved += n
	k.settleLocked()
	k.unlockAndTell()
	return true
}

// release gives back n reserved bytes.
func (k *keeper) release(n int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.reserved = max(0, k.reserved-n)
}

// usage returns the bytes of both segments and of reservations, the number of
// entries kept, the evictions so far and young's share of the budget.
func (k *keeper) usage() (youngBytes, mainBytes, reserved int64, objects int, evictions uint64, share float64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.young.bytes, k.main.bytes, k.reserved, k.young.n + k.main.n, k.evictions, k.share.now
}

// close ends ristretto's goroutines. It evicts nobody; a later add evicts its
// own entry and a later reserve fails.
func (k *keeper) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return
	}
	k.closed = true
	k.waitLocked()
	k.verdict.mute = true
	k.judge.Close()
}

// unlockAndTell releases mu, then calls evict for the stays that the caller
// ended.
func (k *keeper) unlockAndTell() {
	doomed := k.doomed
	k.doomed = nil
	k.mu.Unlock()
	for _, r := range doomed {
		if r.stay.CompareAndSwap(keepDoomed, keepOut) {
			k.evict(r)
		}
	}
}
