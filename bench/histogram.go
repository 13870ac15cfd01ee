package main

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// A histogram counts durations, each within 1 % of what it was. It is of one
// goroutine; histograms are merged after. The zero value is empty.
type histogram struct {
	counts *hdrhistogram.Histogram // nil while empty
	n      uint64
	max    time.Duration
}

const (
	longest = 73 * time.Minute // what is longer counts as this
	digits  = 2                // that a bucket tells apart: 1 to 1.01
)

// add counts d; one below zero counts as zero.
func (h *histogram) add(d time.Duration) {
	d = max(d, 0)
	_ = h.buckets().RecordValue(int64(min(d, longest))) // within its range
	h.n++
	h.max = max(h.max, d)
}

func (h *histogram) buckets() *hdrhistogram.Histogram {
	if h.counts == nil {
		h.counts = hdrhistogram.New(1, int64(longest), digits)
	}
	return h.counts
}

// merge adds what other has counted.
func (h *histogram) merge(other *histogram) {
	if other.n == 0 {
		return
	}
	h.buckets().Merge(other.counts) // drops nothing: both have the same range
	h.n += other.n
	h.max = max(h.max, other.max)
}

// quantile returns a duration that at least the share q (0 to 1) of those counted
// do not exceed, at most 1 % above the smallest such; zero of none.
func (h *histogram) quantile(q float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	return min(time.Duration(h.counts.ValueAtPercentile(100*q)), h.max)
}
