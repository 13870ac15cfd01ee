package wasm

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"seawall/wasm/abi"
)

const (
	// sliceTime is how long guest code may run before its host looks at the
	// clock. Compiled code is not preemptible, so this is also how long a
	// garbage collection or another goroutine on this processor waits.
	// It is about what a hit takes: among requests that wait for a processor,
	// a guest that never ends is one more of them. A look at the clocks and a
	// turn for others cost half a microsecond.
	sliceTime = 40 * time.Microsecond

	// fuelRate is fuel a microsecond: wasm/meter weighs by thirds of a
	// nanosecond. Code that misses caches, or touches fresh memory, runs up to
	// a hundred times longer for the same fuel: so a callback begins with a
	// short slice, later ones are sized by how long the last one took, and
	// none is larger than what then still is a few milliseconds.
	fuelRate   = 3000
	leastSlice = 1 * fuelRate
	firstSlice = 8 * fuelRate
	mostSlice  = 25 * fuelRate

	// fuelSlack is by how much fuel may exceed what the processor time limit
	// stands for. Fuel is an upper bound and may be far above the truth for
	// branchy code; it ends what a clock does not: one that stands still, as
	// in tests in virtual time.
	fuelSlack = 8

	// callFuel is what a host call costs in fuel beside its bytes: about
	// 100 ns, and byteFuel of them a byte.
	callFuel = 300

	// copyFloor is how many bytes host calls may copy in a callback, plus
	// four times the body limit: what a guest stores in headers stays in the
	// host's memory.
	copyFloor = 16 << 20
)

// budget is what one callback may still spend. It belongs to its machine and
// is guarded by its lock.
type budget struct {
	cpu, wall time.Duration
	calls     int           // host calls left
	copies    int64         // bytes they may still copy
	slice     int64         // fuel granted at once
	granted   int64         // since the callback began
	owed      int64         // fuel that host calls used since the last look
	began     time.Duration // by Host.now, as the next two
	last      time.Duration // the last look
	mark      time.Duration // when others last had a turn
	used      time.Duration // until mark
	read      bool          // thread was read at mark
	thread    threadTime
	token     bool // holds one of the host's places for long callbacks
}

// arm sets a budget for one callback.
func (m *machine) arm(cpu, wall time.Duration) {
	b := &m.budget
	l := &m.f.limits
	now := m.f.host.now()
	*b = budget{cpu: cpu, wall: wall, calls: l.HostCalls, copies: copyFloor + 4*l.Body,
		slice: firstSlice, granted: firstSlice, began: now, last: now, mark: now}
	m.fuel.Set(firstSlice)
}

// disarm ends it and returns how long the callback took and what it burnt.
func (m *machine) disarm() (took time.Duration, fuel int64) {
	b := &m.budget
	if b.token {
		m.f.host.long.leave()
		b.token = false
	}
	fuel = b.granted - int64(m.fuel.Get())
	return m.f.host.now() - b.began, fuel
}

// yield is what rewritten code calls when its fuel is below zero.
func (m *machine) yield() {
	if t := m.look(true); t != nil {
		panic(t)
	}
	b := &m.budget
	b.granted += b.slice
	m.fuel.Set(m.fuel.Get() + uint64(b.slice))
	if b.granted > b.cpu.Microseconds()*fuelRate*fuelSlack+mostSlice {
		panic(&abi.Trap{Kind: "cpu", Err: errors.New("it used up its fuel")})
	}
}

// Spend implements abi.Machine.
func (m *machine) Spend(n int) error {
	b := &m.budget
	b.calls--
	b.copies -= int64(n)
	if b.calls < 0 {
		return &abi.Trap{Kind: "host-calls", Err: fmt.Errorf("more than %d host calls", m.f.limits.HostCalls)}
	}
	if b.copies < 0 {
		return &abi.Trap{Kind: "host-calls", Err: fmt.Errorf("host calls copied more than %d bytes", copyFloor+4*m.f.limits.Body)}
	}
	b.owed += callFuel + int64(n)
	if b.owed < b.slice {
		return nil
	}
	if t := m.look(false); t != nil {
		return t
	}
	return nil
}

// look measures what was run, ends the callback when it is over a limit, and
// lets others run when it has run for long enough. sliced tells that a slice
// of fuel was burnt since the last look and nothing else, so that its time is
// a measure for it.
func (m *machine) look(sliced bool) *abi.Trap {
	b := &m.budget
	now := m.f.host.now()
	if sliced && b.owed == 0 {
		b.adapt(now - b.last)
	}
	b.owed, b.last = 0, now
	ran := now - b.mark
	if ran < sliceTime/2 && b.used+ran <= b.cpu {
		return nil
	}
	if b.read {
		// A thread that the kernel kept waiting has not run.
		if t, ok := b.thread.since(); ok {
			ran = min(ran, t)
		}
	} else {
		// No reading was taken at first, to keep short callbacks cheap: half
		// a limit at most is believed.
		ran = min(ran, b.cpu/2)
	}
	b.used += ran
	if b.used > b.cpu {
		return &abi.Trap{Kind: "cpu", Err: fmt.Errorf("it ran for %v; the limit is %v", b.used, b.cpu)}
	}
	if t := m.grown(); t != nil {
		return t
	}
	if !b.token {
		b.token = m.f.host.long.enter(b.wall - (now - b.began))
	}
	runtime.Gosched()
	b.resume(m.f.host.now())
	if wall := b.mark - b.began; !b.token || wall > b.wall {
		return &abi.Trap{Kind: "wall", Err: fmt.Errorf("it took %v with its waits; the limit is %v", wall, b.wall)}
	}
	return nil
}

// resume begins to measure anew.
func (b *budget) resume(now time.Duration) {
	b.mark, b.last = now, now
	b.thread.read()
	b.read = true
}

// adapt brings the next slice nearer to half of sliceTime.
func (b *budget) adapt(ran time.Duration) {
	switch {
	case ran > sliceTime:
		b.slice = max(b.slice/2, leastSlice)
	case ran < sliceTime/4:
		b.slice = min(b.slice*2, mostSlice)
	}
}

// idle runs what waits for others (a read of content) without charging the
// wait as processor time and without keeping a place for long callbacks.
func (m *machine) idle(wait func()) {
	b := &m.budget
	b.used += m.f.host.now() - b.mark
	if b.token {
		m.f.host.long.leave()
		b.token = false
	}
	wait()
	b.resume(m.f.host.now())
}

// places bounds how many callbacks that outlive their first slice run at
// once: so many long ones at a time leave the other processors to short ones
// and to the node.
type places chan struct{}

func newPlaces() places { return make(places, max(1, runtime.GOMAXPROCS(0)/2)) }

func (p places) enter(wait time.Duration) bool {
	select {
	case p <- struct{}{}:
		return true
	default:
	}
	t := time.NewTimer(max(wait, 0))
	defer t.Stop()
	select {
	case p <- struct{}{}:
		return true
	case <-t.C:
		return false
	}
}

func (p places) leave() { <-p }
