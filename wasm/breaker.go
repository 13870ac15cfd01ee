package wasm

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// A breaker opens when in its window at least breakerTraps callbacks have
	// trapped and they are at least one in breakerShare: a few poisonous
	// requests among many good ones must not switch a function off.
	breakerWindow = 5 * time.Second
	breakerTraps  = 8
	breakerShare  = 2

	breakerFirst = 500 * time.Millisecond // open for so long; then one probe
	breakerMost  = 30 * time.Second       // doubled at each failed probe up to this
)

// States of a breaker.
const (
	breakerClosed int32 = iota
	breakerOpen
	breakerProbing
)

// breaker keeps a function that fails again and again from being tried.
type breaker struct {
	state atomic.Int32
	good  atomic.Int64 // callbacks that ended well since the window began

	mu     sync.Mutex
	traps  int64
	window time.Time // when it began
	opened time.Time
	pause  time.Duration
	opens  uint64
}

// allow tells whether a request may be tried. When the breaker has been open
// long enough, one caller in a pause is told so: the probe.
func (b *breaker) allow() bool {
	if b.state.Load() == breakerClosed {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state.Load() == breakerClosed {
		return true
	}
	// A probe that never came to a callback must not close the door for good.
	if time.Since(b.opened) < b.pause {
		return false
	}
	b.opened = time.Now()
	b.state.Store(breakerProbing)
	return true
}

func (b *breaker) succeeded() {
	if b.state.Load() == breakerClosed {
		b.good.Add(1)
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state.Load() == breakerProbing {
		b.reset()
		b.pause = 0
		b.state.Store(breakerClosed)
	}
}

func (b *breaker) trapped() {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	switch b.state.Load() {
	case breakerOpen:
		return // a callback that had begun before
	case breakerProbing:
		b.open(now)
		return
	}
	if now.Sub(b.window) > breakerWindow {
		b.reset()
		b.window = now
	}
	b.traps++
	if b.traps >= breakerTraps && b.traps*breakerShare >= b.traps+b.good.Load() {
		b.open(now)
	}
}

func (b *breaker) open(now time.Time) {
	b.reset()
	b.opened = now
	b.pause = min(max(2*b.pause, breakerFirst), breakerMost)
	b.opens++
	b.state.Store(breakerOpen)
}

func (b *breaker) reset() {
	b.traps, b.window = 0, time.Time{}
	b.good.Store(0)
}

// word names the state.
func (b *breaker) word() string {
	switch b.state.Load() {
	case breakerOpen:
		return "open"
	case breakerProbing:
		return "half-open"
	}
	return "closed"
}
