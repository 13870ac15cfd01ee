package store

import (
	"sync"
	"sync/atomic"
)

// Hash is the keyed 128-bit hash of a key. The seed keeps outsiders from
// making keys that collide; the full key is compared all the same.
type Hash struct{ Hi, Lo uint64 }

// shardCount spreads writers; readers take no lock, so it need not be large.
const shardCount = 256

// table finds an entry by the hash of its key. Look-ups take no lock: they
// walk chains of nodes through atomic pointers. Writers hold their shard's
// lock. A chain may hold different keys of one hash, which the caller tells
// apart by the key itself.
type table[M any] struct {
	shards [shardCount]shard[M]
}

type shard[M any] struct {
	mu      sync.Mutex // guards changes of buckets, chains and count
	buckets atomic.Pointer[[]atomic.Pointer[node[M]]]
	count   int
}

// node is a link of a chain. Its hash and entry never change; next changes
// only when the node behind it is added or removed.
type node[M any] struct {
	hash  Hash
	entry *entry[M]
	next  atomic.Pointer[node[M]]
}

const firstBuckets = 16

func (t *table[M]) shard(h Hash) *shard[M] { return &t.shards[h.Hi%shardCount] }

// find returns the entry of key, or nil. It takes no lock and allocates
// nothing.
func (t *table[M]) find(h Hash, key []byte) *entry[M] {
	buckets := t.shard(h).buckets.Load()
	if buckets == nil {
		return nil
	}
	b := *buckets
	for n := b[h.Lo&uint64(len(b)-1)].Load(); n != nil; n = n.next.Load() {
		if n.hash == h && n.entry.key == string(key) {
			return n.entry
		}
	}
	return nil
}

// findOrAdd returns the entry of key, adding the one that fresh makes when
// there is none.
func (t *table[M]) findOrAdd(h Hash, key []byte, fresh func() *entry[M]) *entry[M] {
	if e := t.find(h, key); e != nil {
		return e
	}
	s := t.shard(h)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := t.find(h, key); e != nil {
		return e
	}
	e := fresh()
	buckets := s.grownLocked()
	slot := &buckets[h.Lo&uint64(len(buckets)-1)]
	n := &node[M]{hash: h, entry: e}
	n.next.Store(slot.Load())
	slot.Store(n)
	s.count++
	return e
}

// remove takes e out of the table. Readers that stand on its node go on to
// the rest of the chain.
func (t *table[M]) remove(e *entry[M]) {
	s := t.shard(e.hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	buckets := s.buckets.Load()
	if buckets == nil {
		return
	}
	b := *buckets
	link := &b[e.hash.Lo&uint64(len(b)-1)]
	for n := link.Load(); n != nil; n = link.Load() {
		if n.entry == e {
			link.Store(n.next.Load())
			s.count--
			return
		}
		link = &n.next
	}
}

// grownLocked returns the buckets with room for one more. Growing copies the
// nodes, so that readers on the old chains still see every entry.
func (s *shard[M]) grownLocked() []atomic.Pointer[node[M]] {
	old := s.buckets.Load()
	if old == nil {
		fresh := make([]atomic.Pointer[node[M]], firstBuckets)
		s.buckets.Store(&fresh)
		return fresh
	}
	if s.count < len(*old) {
		return *old
	}
	fresh := make([]atomic.Pointer[node[M]], 2*len(*old))
	for i := range *old {
		for n := (*old)[i].Load(); n != nil; n = n.next.Load() {
			slot := &fresh[n.hash.Lo&uint64(len(fresh)-1)]
			again := &node[M]{hash: n.hash, entry: n.entry}
			again.next.Store(slot.Load())
			slot.Store(again)
		}
	}
	s.buckets.Store(&fresh)
	return fresh
}

// each calls f for every entry until it returns false. Entries added or
// removed meanwhile may be seen or not.
func (t *table[M]) each(f func(*entry[M]) bool) {
	for i := range t.shards {
		buckets := t.shards[i].buckets.Load()
		if buckets == nil {
			continue
		}
		for j := range *buckets {
			for n := (*buckets)[j].Load(); n != nil; n = n.next.Load() {
				if !f(n.entry) {
					return
				}
			}
		}
	}
}

// len returns how many entries the table holds.
func (t *table[M]) len() int {
	n := 0
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		n += s.count
		s.mu.Unlock()
	}
	return n
}
