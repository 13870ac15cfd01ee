package main

import (
	"math/bits"
	"time"
)

// A histogram counts durations in buckets that are exact up to 127 ns and less
// than 0.8 % wide above. It is of one goroutine; histograms are merged after.
type histogram struct {
	counts [buckets]uint64
	n      uint64
	max    time.Duration
}

const (
	subBits = 7                                  // 128 buckets for each power of two
	topBits = 42                                 // durations above 73 minutes share the last bucket
	buckets = (topBits - subBits + 1) << subBits // those below 2^subBits are one group more
)

// bucket returns the index that v, not negative, is counted at.
func bucket(v uint64) int {
	if v >= 1<<topBits {
		return buckets - 1
	}
	shift := max(bits.Len64(v)-subBits-1, 0)
	return shift<<subBits + int(v>>shift)
}

// highest returns the largest value that is counted at i.
func highest(i int) uint64 {
	shift := max(i>>subBits-1, 0)
	return uint64(i-shift<<subBits+1)<<shift - 1
}

// add counts d; one below zero counts as zero.
func (h *histogram) add(d time.Duration) {
	d = max(d, 0)
	h.counts[bucket(uint64(d))]++
	h.n++
	h.max = max(h.max, d)
}

// merge adds what other has counted.
func (h *histogram) merge(other *histogram) {
	for i, n := range other.counts {
		h.counts[i] += n
	}
	h.n += other.n
	h.max = max(h.max, other.max)
}

// quantile returns a duration that at least the share q (0 to 1) of those counted
// do not exceed, at most 0.8 % above the smallest such; zero of none.
func (h *histogram) quantile(q float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	want := uint64(q * float64(h.n))
	if float64(want) < q*float64(h.n) || want == 0 {
		want++
	}
	seen := uint64(0)
	for i, n := range h.counts {
		if seen += n; seen >= want {
			return min(time.Duration(highest(i)), h.max)
		}
	}
	return h.max
}
