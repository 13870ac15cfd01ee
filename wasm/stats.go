package wasm

import (
	"sync/atomic"
	"time"

	"seawall/wasm/abi"
)

// The places a callback is counted at: the stages of a request, and the
// machine's own (ticks, answers to its calls).
const (
	stageOwn = int(abi.ViewerResponse) + 1
	stages   = stageOwn + 1
)

// StageNames are the names of the stages in metrics, logs and explain, by
// abi.Stage; the last is of callbacks outside any request.
func StageNames() [5]string {
	return [stages]string{"viewer_request", "origin_request", "origin_response", "viewer_response", "background"}
}

// kinds are the words of traps and of other reasons why a function did not
// run. They are the host's own, never a guest's, so that metrics stay few.
var kinds = [...]string{"cpu", "memory", "depth", "exit", "unreachable", "wall", "host-calls", "argument", "body", "panic",
	"busy", "closed", "breaker", "canceled", "other"}

// figures are counters of one stage.
type figures struct {
	calls, duration, fuel atomic.Int64
	traps                 [len(kinds)]atomic.Int64
}

func (c *figures) count(kind string) {
	for i, k := range kinds {
		if k == kind || i == len(kinds)-1 {
			c.traps[i].Add(1)
			return
		}
	}
}

func (c *figures) add(o *figures) {
	c.calls.Add(o.calls.Load())
	c.duration.Add(o.duration.Load())
	c.fuel.Add(o.fuel.Load())
	for i := range o.traps {
		c.traps[i].Add(o.traps[i].Load())
	}
}

// StageStats are figures of a function at one stage, since it was loaded.
type StageStats struct {
	Calls    int64         // callbacks
	Duration time.Duration // of all of them
	Fuel     int64         // about a third of a nanosecond each
	// Traps are callbacks that were stopped, and requests that the function
	// could not serve, by kind.
	Traps map[string]int64
}

// Stats are a function's figures.
type Stats struct {
	Stages      [stages]StageStats // see StageNames
	Machines    int
	Memory      int64  // bytes of their linear memories
	LogDropped  int64  // lines, and answers to calls, that were dropped
	Passed      int64  // responses too large to buffer, passed unseen
	Breaker     string // "closed", "open" or "half-open"
	BreakerOpen uint64 // how often it opened
	Metrics     map[string]uint64
}

// Stats returns the function's figures.
func (f *Function) Stats() Stats {
	var sum [stages]figures
	f.mu.Lock()
	for i := range sum {
		sum[i].add(&f.retired[i])
		for m := range f.machines {
			sum[i].add(&m.figures[i])
		}
	}
	s := Stats{Machines: len(f.machines)}
	f.mu.Unlock()
	for i := range sum {
		s.Stages[i] = sum[i].public()
	}
	s.Memory, s.LogDropped, s.Passed = f.bytes.Load(), f.dropped.Load(), f.passed.Load()
	s.Breaker = f.breaker.word()
	f.breaker.mu.Lock()
	s.BreakerOpen = f.breaker.opens
	f.breaker.mu.Unlock()
	f.shared.mu.Lock()
	defer f.shared.mu.Unlock()
	for _, m := range f.shared.metrics {
		if s.Metrics == nil {
			s.Metrics = map[string]uint64{}
		}
		s.Metrics[m.name] = m.value
	}
	return s
}

func (c *figures) public() StageStats {
	s := StageStats{Calls: c.calls.Load(), Duration: time.Duration(c.duration.Load()), Fuel: c.fuel.Load()}
	for i := range c.traps {
		if n := c.traps[i].Load(); n > 0 {
			if s.Traps == nil {
				s.Traps = map[string]int64{}
			}
			s.Traps[kinds[i]] = n
		}
	}
	return s
}
