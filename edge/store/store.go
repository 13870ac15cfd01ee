// Package store keeps responses in memory, and the fills under way.
//
// One look-up answers: have it, being fetched, or yours to fetch. The table
// is the truth; the keeper only decides what stays within the memory budget.
// What is kept beside a body is the caller's type M: the store knows nothing
// of HTTP.
package store

import (
	"context"
	"encoding/binary"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dchest/siphash"
)

// Verdict is what the purge rules say of an object.
type Verdict uint8

const (
	// Valid objects are used by their own terms.
	Valid Verdict = iota
	// Soft objects are stale since the time given with the verdict.
	Soft
	// Doubtful objects must be validated before any use.
	Doubtful
	// Gone objects must not be used in any way, nor their validators.
	Gone
)

// Options configure a Store; zero values have defaults.
type Options[M any] struct {
	// Memory is the budget in bytes for objects and fills. Required.
	Memory int64
	// MaxObject is the largest body kept, in bytes; 0 is an eighth of Memory.
	MaxObject int64
	// Variants is how many variants one key may have; 0 is 32.
	Variants int
	// Stall is how long one reader may hold up a fill that is not kept whole;
	// 0 is 10 seconds.
	Stall time.Duration
	// Abandoned is how many fills may go on after their last client left; 0
	// is 64.
	Abandoned int
	// Seed keys the hash of keys.
	Seed [16]byte
	// Epoch returns the purge epoch now; it never falls. nil is always 0.
	Epoch func() uint64
	// Judge returns what the purges later than since say of an object; nil
	// says Valid. It is asked once for each object found after a purge, and
	// must not call the store.
	Judge func(o *Object[M], since uint64) (Verdict, time.Time)
	// MayMatch reports whether a purge later than since may be meant for the
	// response to a request, of which only Asker.Subject is known yet; nil
	// says that any may.
	MayMatch func(subject any, since uint64) bool
}

// Asker is a request that looks for an object.
type Asker[M any] interface {
	// Accepts reports whether the object is a variant for this request.
	Accepts(o *Object[M]) bool
	// Joins reports whether the request may read the fill of o, which it
	// accepts, though it came after the fill's wait had ended.
	Joins(o *Object[M]) bool
	// Selector returns the normal form of the request's fields of these names.
	Selector(names []string) string
	// Subject returns what Options.MayMatch wants to know of the request. It
	// is asked when the request leads a fill, which keeps it.
	Subject() any
}

// Store keeps objects by key. All methods may run at once.
type Store[M any] struct {
	o      Options[M]
	k0, k1 uint64
	table  table[M]
	keeper *keeper

	ctx    context.Context // ends all fills
	cancel context.CancelCauseFunc
	wait   sync.WaitGroup // fills under way

	epochs epochs
	floor  atomic.Uint64 // see Floor

	fills     atomic.Int64
	taken     atomic.Int64 // bytes of the budget that fills and drafts hold
	abandoned atomic.Int64
	lingering atomic.Int64 // bytes of bodies that left the store but are still sent
	stalled   atomic.Uint64
}

// New returns an empty store, to be closed.
func New[M any](o Options[M]) *Store[M] {
	if o.MaxObject == 0 {
		o.MaxObject = o.Memory / 8
	}
	if o.Variants == 0 {
		o.Variants = 32
	}
	if o.Stall == 0 {
		o.Stall = 10 * time.Second
	}
	if o.Abandoned == 0 {
		o.Abandoned = 64
	}
	if o.Judge == nil {
		o.Judge = func(*Object[M], uint64) (Verdict, time.Time) { return Valid, time.Time{} }
	}
	if o.MayMatch == nil {
		o.MayMatch = func(any, uint64) bool { return true }
	}
	s := &Store[M]{
		o:  o,
		k0: binary.LittleEndian.Uint64(o.Seed[:8]),
		k1: binary.LittleEndian.Uint64(o.Seed[8:]),
	}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	s.keeper = newKeeper(o.Memory, s.evicted)
	return s
}

// Stop ends the fills under way; no new ones begin.
func (s *Store[M]) Stop() { s.cancel(errClosed) }

// Close stops the store, waits for its fills, and lets go of everything.
// Nobody may call the store any more.
func (s *Store[M]) Close() error {
	s.Stop()
	s.wait.Wait()
	s.keeper.close()
	return nil
}

// Hash returns the hash that the other methods take beside the key.
func (s *Store[M]) Hash(key []byte) Hash {
	hi, lo := siphash.Hash128(s.k0, s.k1, key)
	return Hash{hi, lo}
}

// Found is the answer to a look-up.
type Found[M any] struct {
	// Object answers the request by its variant; nil when none does.
	Object *Object[M]
	// Known is true when the key has variants, but none for this request.
	Known bool
	// Invalid is true when the object must be validated before any use.
	Invalid bool
	// Soft is true when a purge made the object stale, at Since.
	Soft  bool
	Since time.Time
}

// Find looks for the object of key that ask accepts. It takes no lock and
// allocates nothing when it finds one.
func (s *Store[M]) Find(h Hash, key []byte, ask Asker[M]) Found[M] {
	e := s.table.find(h, key)
	if e == nil {
		s.keeper.miss(residentKey(h))
		return Found[M]{}
	}
	found, at := s.match(e, ask)
	if at != nil {
		s.keeper.hit(&at.resident)
	} else if !found.Known {
		s.keeper.miss(residentKey(h))
	}
	return found
}

// Peek is Find without a trace: what it asks for does not count as traffic.
func (s *Store[M]) Peek(h Hash, key []byte, ask Asker[M]) Found[M] {
	e := s.table.find(h, key)
	if e == nil {
		return Found[M]{}
	}
	found, _ := s.match(e, ask)
	return found
}

// match returns the variant for ask, and its slot.
func (s *Store[M]) match(e *entry[M], ask Asker[M]) (Found[M], *slot[M]) {
	known := false
	epoch := s.epoch()
	for _, at := range e.variants() {
		o := at.object.Load()
		if o.judged.Load() < epoch {
			s.judge(o, epoch)
		}
		purged := o.purged.Load()
		if purged == purgedHard {
			continue
		}
		if ask.Accepts(o) {
			found := Found[M]{Object: o, Invalid: o.invalid.Load() || o.doubtful.Load()}
			if purged != 0 {
				found.Soft, found.Since = true, time.Unix(0, purged)
			}
			return found, at
		}
		known = true
	}
	return Found[M]{Known: known}, nil
}

func residentKey(h Hash) string {
	var k [16]byte
	binary.LittleEndian.PutUint64(k[:8], h.Hi)
	binary.LittleEndian.PutUint64(k[8:], h.Lo)
	return string(k[:])
}

// locked returns the living entry of key with its lock held.
func (s *Store[M]) locked(h Hash, key []byte) *entry[M] {
	for {
		e := s.table.findOrAdd(h, key, func() *entry[M] { return &entry[M]{key: string(key), hash: h} })
		e.mu.Lock()
		if !e.dead {
			return e
		}
		e.mu.Unlock()
	}
}

// unlock takes an entry that nothing needs out of the table, and unlocks it.
func (s *Store[M]) unlock(e *entry[M]) {
	if !e.dead && e.idleLocked() {
		e.dead = true
		s.table.remove(e)
	}
	e.mu.Unlock()
}

// Claim is the right to publish a response for a key, as it stood when the
// request to the origin began. It must be ended with Drop.
type Claim[M any] struct {
	entry      *entry[M]
	generation uint64
	begun      uint64
	epoch      uint64
}

// Claim returns the right to publish for key, before its origin is asked.
func (s *Store[M]) Claim(h Hash, key []byte) *Claim[M] {
	epoch := s.epochs.begin(s.epoch)
	e := s.locked(h, key)
	defer s.unlock(e)
	return e.claimLocked(epoch)
}

// Key returns the key that the claim is for.
func (c *Claim[M]) Key() string { return c.entry.key }

func (e *entry[M]) claimLocked(epoch uint64) *Claim[M] {
	e.claims++
	e.begun++
	return &Claim[M]{entry: e, generation: e.generation, begun: e.begun, epoch: epoch}
}

// Holds reports whether what is published by the claim now would be kept: no
// invalidation came since it was made.
func (s *Store[M]) Holds(c *Claim[M]) bool {
	c.entry.mu.Lock()
	defer c.entry.mu.Unlock()
	return c.entry.generation == c.generation
}

// Crowds reports whether publishing a variant with this selector would push
// out another, because the key has as many as it may.
func (s *Store[M]) Crowds(c *Claim[M], selector string) bool {
	slots := c.entry.variants()
	return len(slots) >= s.o.Variants && !slices.ContainsFunc(slots, func(at *slot[M]) bool {
		return at.object.Load().Selector == selector
	})
}

// Renew makes the claim as late as any for its key: what it publishes then
// replaces what requests brought that were made after it. Purges and
// invalidations since it was made still count.
func (s *Store[M]) Renew(c *Claim[M]) {
	c.entry.mu.Lock()
	defer c.entry.mu.Unlock()
	c.entry.begun++
	c.begun = c.entry.begun
}

// Drop ends the claim.
func (s *Store[M]) Drop(c *Claim[M]) {
	c.entry.mu.Lock()
	c.entry.claims--
	s.unlock(c.entry)
	s.epochs.end(c.epoch)
}

// Publish stores o, whose body is complete, in place of the same variant. It
// returns false when an invalidation or purge came since the claim was made,
// when a request made later has brought the variant already, or when the body
// is larger than objects may be.
func (s *Store[M]) Publish(c *Claim[M], o *Object[M]) bool {
	c.mark(o)
	if o.Body.Size() > s.o.MaxObject || o.cost() > s.o.Memory {
		return false
	}
	e := c.entry
	e.mu.Lock()
	if e.generation != c.generation || s.gone(o) || o.discarded.Load() {
		e.mu.Unlock()
		return false
	}
	for _, at := range e.variants() {
		old := at.object.Load()
		if old.Selector != o.Selector {
			continue
		}
		if old.begun > o.begun {
			e.mu.Unlock()
			return false
		}
		o.heat.Store(old.heat.Load() / 2)
		at.object.Store(o)
		e.setSlotsLocked(slices.Clone(e.variants()))
		e.mu.Unlock()
		s.resize(at)
		old.leave(s.linger)
		return true
	}
	s.addSlotUnlock(e, o)
	return true
}

// addSlotUnlock publishes o as a further variant of e, whose lock it gives
// up. Of too many variants, the least recent leaves.
func (s *Store[M]) addSlotUnlock(e *entry[M], o *Object[M]) {
	at := &slot[M]{entry: e}
	at.object.Store(o)
	at.resident.key = s.slotKey(e, o.Selector)
	at.resident.owner = at
	slots := append(slices.Clone(e.variants()), at)
	e.setSlotsLocked(slots)
	var left *slot[M]
	if len(slots) > s.o.Variants {
		left = slots[len(slots)-1]
		if left == at {
			left = slots[len(slots)-2]
		}
		e.dropSlotLocked(left)
	}
	mark := e.marked.Swap(nil)
	e.alone.Store(0)
	e.mu.Unlock()
	s.leave(left)
	s.leave(mark)
	s.settle(at)
}

func (s *Store[M]) slotKey(e *entry[M], selector string) string {
	if selector == "" {
		return residentKey(e.hash)
	}
	return residentKey(s.Hash([]byte(e.key + "\x00" + selector)))
}

// settle hands a slot to the keeper. The slot may have been dropped since it
// was published: then nobody else will take it out of the keeper.
func (s *Store[M]) settle(at *slot[M]) {
	cost := at.cost()
	s.keeper.add(&at.resident, cost)
	if at.cost() != cost { // a refresh came before it was in the keeper
		s.resize(at)
	}
	e := at.entry
	e.mu.Lock()
	here := slices.Contains(e.variants(), at) || e.marked.Load() == at
	e.mu.Unlock()
	if !here {
		s.keeper.remove(&at.resident)
	}
}

// resize tells the keeper what a slot costs now. Of two at once, the one that
// is last tells what the last object costs.
func (s *Store[M]) resize(at *slot[M]) {
	for {
		cost := at.cost()
		s.keeper.resize(&at.resident, cost)
		if at.cost() == cost {
			return
		}
	}
}

// leave takes a slot that was dropped out of the keeper. One that settle has
// yet to add is removed by settle.
func (s *Store[M]) leave(at *slot[M]) {
	if at == nil {
		return
	}
	s.keeper.remove(&at.resident)
	if o := at.object.Load(); o != nil {
		o.leave(s.linger)
	}
}

// take charges n bytes of a fill or draft to the budget. All of them together
// may take half of it, so that downloads cannot empty the cache.
func (s *Store[M]) take(n int64) bool {
	if s.taken.Add(n) > s.o.Memory/2 || !s.keeper.reserve(n) {
		s.taken.Add(-n)
		return false
	}
	return true
}

func (s *Store[M]) give(n int64) {
	s.taken.Add(-n)
	s.keeper.release(n)
}

// linger charges the bytes of bodies that left the store while they are still
// being sent.
func (s *Store[M]) linger(n int64) bool {
	if n < 0 {
		s.lingering.Add(n)
		s.keeper.release(-n)
		return true
	}
	if s.lingering.Add(n) > s.o.Memory/4 || !s.keeper.reserve(n) {
		s.lingering.Add(-n)
		return false
	}
	return true
}

// evicted is called by the keeper, without its locks.
func (s *Store[M]) evicted(r *resident) {
	at := r.owner.(*slot[M])
	e := at.entry
	e.mu.Lock()
	if !e.dropSlotLocked(at) && e.marked.CompareAndSwap(at, nil) {
		e.alone.Store(0)
	}
	s.unlock(e)
	if o := at.object.Load(); o != nil {
		o.leave(s.linger)
	}
}

// Refresh swaps fresh in for old, over the same body (a 304). It returns
// false, and changes nothing, when old is no longer the current object, or was
// purged or invalidated since the claim was made.
func (s *Store[M]) Refresh(c *Claim[M], old, fresh *Object[M]) bool {
	c.mark(fresh)
	fresh.Body, fresh.Selector = old.Body, old.Selector
	if old.Forms != nil {
		fresh.Forms = old.Forms
	}
	e := c.entry
	e.mu.Lock()
	if e.generation != c.generation || s.gone(old) {
		e.mu.Unlock()
		return false
	}
	fresh.heat.Store(old.heat.Load() / 2)
	for _, at := range e.variants() {
		if at.object.CompareAndSwap(old, fresh) {
			e.setSlotsLocked(slices.Clone(e.variants()))
			e.mu.Unlock()
			s.resize(at)
			return true
		}
	}
	e.mu.Unlock()
	return false
}

// Discard removes one object, if it is still the current one. One that is
// still arriving is not stored at its end.
func (s *Store[M]) Discard(o *Object[M]) {
	o.discarded.Store(true) // before the lock, under which Publish looks
	key := []byte(o.Key)
	e := s.table.find(s.Hash(key), key)
	if e == nil {
		return
	}
	e.mu.Lock()
	var left *slot[M]
	for _, at := range e.variants() {
		if at.object.Load() == o && e.dropSlotLocked(at) {
			left = at
			break
		}
	}
	s.unlock(e)
	s.leave(left)
}

// Invalidate marks all variants of key: they must be validated before any
// use. Fills under way will not be stored and are not joined any more. It
// reports whether there was anything (RFC 9111, 4.4). own, if not nil, is the
// claim of the request that invalidates: what it brings itself may be stored,
// unless another invalidation came in between.
func (s *Store[M]) Invalidate(h Hash, key []byte, own *Claim[M]) bool {
	e := s.table.find(h, key)
	if e == nil {
		return false
	}
	e.mu.Lock()
	defer s.unlock(e)
	e.generation++
	if own != nil && own.entry == e && own.generation == e.generation-1 {
		own.generation = e.generation
	}
	e.fills = nil
	for _, at := range e.variants() {
		at.object.Load().Invalidate()
	}
	return true
}

// Alone marks key so that, until the given time, requests for it do not wait
// for one another (hit-for-miss).
func (s *Store[M]) Alone(h Hash, key []byte, until time.Time) {
	e := s.locked(h, key)
	e.alone.Store(until.UnixNano())
	var mark *slot[M]
	if e.marked.Load() == nil {
		mark = &slot[M]{entry: e}
		mark.resident.key = s.slotKey(e, "\x00mark")
		mark.resident.owner = mark
		e.marked.Store(mark)
	}
	e.mu.Unlock()
	if mark != nil {
		s.settle(mark)
	}
}

// Each calls f for every object until it returns false.
func (s *Store[M]) Each(f func(*Object[M]) bool) {
	s.table.each(func(e *entry[M]) bool {
		for _, at := range e.variants() {
			if !f(at.object.Load()) {
				return false
			}
		}
		return true
	})
}

// Variants calls f for every object of key, also those that are purged. It
// leaves no trace.
func (s *Store[M]) Variants(h Hash, key []byte, f func(*Object[M])) {
	e := s.table.find(h, key)
	if e == nil {
		return
	}
	for _, at := range e.variants() {
		f(at.object.Load())
	}
}

// Usage is what the store holds.
type Usage struct {
	// Memory is the budget; Young and Main are the bytes of objects in the two
	// segments, Filling those of fills under way.
	Memory, Young, Main, Filling int64
	// Share is the part of the budget that the young segment may take.
	Share float64
	// Objects and Keys count what is stored, Fills what is on its way,
	// Abandoned those of them without a client.
	Objects, Keys, Fills, Abandoned int
	// Evictions count objects that left for want of room; Stalled counts
	// readers that were cut.
	Evictions, Stalled uint64
}

// Usage returns what the store holds now.
func (s *Store[M]) Usage() Usage {
	young, main, filling, objects, evictions, share := s.keeper.usage()
	return Usage{
		Memory: s.o.Memory, Young: young, Main: main, Filling: filling, Share: share,
		Objects: objects, Keys: s.table.len(), Fills: int(s.fills.Load()), Abandoned: int(s.abandoned.Load()),
		Evictions: evictions, Stalled: s.stalled.Load(),
	}
}

// MaxObject returns the largest body that is kept, in bytes.
func (s *Store[M]) MaxObject() int64 { return s.o.MaxObject }
