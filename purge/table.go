package purge

import (
	"hash/maphash"
	"math/bits"
	"strings"
	"sync/atomic"
	"time"
)

// kind tells what an entry's key means.
type kind uint8

const (
	kindURL    kind = iota // scheme, host, path, query
	kindPath               // scheme, host, path: a URL with any query
	kindPrefix             // scheme, host, path without its last slash
	kindTag                // site, tag
	kindHost               // name, port ("" for every port)
	kindSite               // site: everything of it
	// What follows are sums over others: they answer "is there anything
	// newer?" for many rules at once, and take the doubt when a full table
	// gives those rules up.
	kindHostSum // host, port and all, of URL, path and prefix rules
	kindTagSum  // site, of tag rules
)

func (k kind) isSum() bool { return k >= kindHostSum }

// key is what an entry is found by: up to four words, by kind.
type key struct {
	kind       kind
	a, b, c, d string
}

// heavy is how many bytes of names weigh as much as a rule.
const heavy = 256

// weight returns how many rules of short names a rule counts for: what is kept
// is bounded in bytes as well.
func (k *key) weight() int {
	return 1 + (len(k.a)+len(k.b)+len(k.c)+len(k.d))/heavy
}

// mark is one soft purge.
type mark struct {
	epoch uint64
	at    time.Time
}

// softMarks bounds the marks of one entry. When there are more, the two oldest
// become one with the later epoch and the earlier time: what was fetched
// between the two is taken to be staler than it is, never fresher.
const softMarks = 8

// state is what an entry says; never changed once published.
type state struct {
	// newest is the latest epoch of anything here; of a sum, of any rule in it.
	newest uint64
	// hard is the latest hard purge, doubt the latest rule given up.
	hard, doubt uint64
	// soft is in the order of epochs.
	soft []mark
	// depth is, of a host's sum, the most segments that a prefix of it has.
	depth int
}

// with returns s and one more rule.
func (s state) with(epoch uint64, soft bool, at time.Time) state {
	s.newest = max(s.newest, epoch)
	if !soft {
		s.hard = max(s.hard, epoch)
		return s
	}
	marks := make([]mark, 0, min(len(s.soft)+1, softMarks))
	marks = append(marks, s.soft...)
	if len(marks) == softMarks {
		if marks[0].at.Before(marks[1].at) {
			marks[1].at = marks[0].at
		}
		marks = append(marks[:0], marks[1:]...)
	}
	s.soft = append(marks, mark{epoch, at})
	return s
}

// after returns what of s is newer than upTo.
func (s state) after(upTo uint64) state {
	if s.hard <= upTo {
		s.hard = 0
	}
	if s.doubt <= upTo {
		s.doubt = 0
	}
	for len(s.soft) > 0 && s.soft[0].epoch <= upTo {
		s.soft = s.soft[1:]
	}
	return s
}

// entry is one key in a table's chain.
type entry struct {
	hash  uint64
	key   key
	state atomic.Pointer[state]
	// next never changes once the entry is reachable.
	next *entry
}

// table is a hash table with one writer and readers that take no lock: an
// entry is put at the head of its chain when it is complete, and one that is
// there only ever changes its state's pointer. To grow, or to drop entries,
// the writer fills a new table. Go's maps would have to be copied for each
// rule, and sync.Map allocates for each look-up by a struct.
type table struct {
	buckets []atomic.Pointer[entry]
	// doubt: everything older must be validated. It is in the table so that
	// whoever sees the entries gone sees the doubt that stands for them.
	doubt uint64
}

func newTable(size int, doubt uint64) *table {
	n := 1 << bits.Len(uint(max(size, 15)))
	return &table{buckets: make([]atomic.Pointer[entry], n), doubt: doubt}
}

func (t *table) bucket(hash uint64) *atomic.Pointer[entry] {
	// The high bits are the best mixed.
	return &t.buckets[hash>>(64-uint(bits.TrailingZeros(uint(len(t.buckets)))))]
}

// find returns the state at a key, nil where there is none.
func (t *table) find(hash uint64, kind kind, a, b, c, d string) *state {
	for e := t.bucket(hash).Load(); e != nil; e = e.next {
		if e.hash == hash && e.key.kind == kind && e.key.c == c && e.key.b == b && e.key.a == a && e.key.d == d {
			return e.state.Load()
		}
	}
	return nil
}

// entryOf is find for the writer.
func (t *table) entryOf(hash uint64, k key) *entry {
	for e := t.bucket(hash).Load(); e != nil; e = e.next {
		if e.hash == hash && e.key == k {
			return e
		}
	}
	return nil
}

// insert adds a key that is not in the table.
func (t *table) insert(hash uint64, k key, s state) {
	head := t.bucket(hash)
	e := &entry{hash: hash, key: k, next: head.Load()}
	e.state.Store(&s)
	head.Store(e)
}

// each calls f with every entry.
func (t *table) each(f func(*entry)) {
	for i := range t.buckets {
		for e := t.buckets[i].Load(); e != nil; e = e.next {
			f(e)
		}
	}
}

// hasher makes the hashes of keys. They are seeded: tags and paths come from
// outside.
type hasher struct{ seed maphash.Seed }

func (h hasher) mix(sum uint64, s string) uint64 {
	sum = (sum ^ maphash.String(h.seed, s)) * 0x9E3779B97F4A7C15
	return sum ^ sum>>29
}

func (h hasher) start(k kind) uint64 { return (uint64(k) + 1) * 0xBF58476D1CE4E5B9 }

// words hashes a key of one to four words.
func (h hasher) words(k kind, words ...string) uint64 {
	sum := h.start(k)
	for _, w := range words {
		sum = h.mix(sum, w)
	}
	return h.end(sum)
}

// end spreads a sum to its high bits, which choose the bucket.
func (h hasher) end(sum uint64) uint64 { return sum * 0x94D049BB133111EB }

// key hashes any key as the look-ups do.
func (h hasher) key(k key) uint64 {
	switch k.kind {
	case kindURL:
		return h.words(k.kind, k.a, k.b, k.c, k.d)
	case kindPath:
		return h.words(k.kind, k.a, k.b, k.c)
	case kindPrefix:
		// Segment by segment, so that a walk over a path's prefixes reads
		// the path once.
		sum := h.mix(h.mix(h.start(k.kind), k.a), k.b)
		for rest, more := strings.CutPrefix(k.c, "/"); more; {
			var segment string
			segment, rest, more = strings.Cut(rest, "/")
			sum = h.mix(sum, segment)
		}
		return h.end(sum)
	case kindTag, kindHost:
		return h.words(k.kind, k.a, k.b)
	default:
		return h.words(k.kind, k.a)
	}
}
