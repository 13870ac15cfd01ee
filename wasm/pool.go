package wasm

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"time"

	"seawall/wasm/abi"
)

// Reasons of the host's own, beside guests' traps.
var (
	errBusy     = &abi.Trap{Kind: "busy", Err: errors.New("all machines are busy")}
	errGone     = &abi.Trap{Kind: "exit", Err: errors.New("another request's callback stopped the machine")}
	errClosed   = &abi.Trap{Kind: "closed", Err: errors.New("the function is closed")}
	errBreaker  = &abi.Trap{Kind: "breaker", Err: errors.New("it has failed too often")}
	errCanceled = &abi.Trap{Kind: "canceled", Err: errors.New("the request was given up")}
	errPaused   = &abi.Trap{Kind: "wall", Err: errors.New("the stream was paused for too long")}
)

// leastMachines is how many machines of a reset function there must be room
// for: with fewer, a slow origin fetch or two would stall hits.
const leastMachines = 4

// pool holds the machines of a function in reset mode. Each serves one
// exchange at a time.
type pool struct {
	f *Function

	mu       sync.Mutex
	clean    []*machine // as they were at the snapshot
	dirty    []*machine // to be restored by who takes them
	count    int        // machines there are or are being made
	most     int        // as memory allows
	building int
	waiting  []*waiter // in the order of their coming
	closed   bool
}

// waiter gets a machine, or nil when there is room to make one.
type waiter struct{ c chan *machine }

// take returns a machine that is as at the snapshot, for the caller alone.
func (p *pool) take(ctx context.Context) (*machine, *abi.Trap) {
	var clock *time.Timer
	var late <-chan time.Time
	for {
		m, w, t := p.next()
		switch {
		case t != nil:
			return nil, t
		case m == nil && w == nil:
			return p.build()
		case m != nil:
			if m = p.ready(m); m != nil {
				return m, nil
			}
			continue
		}
		if clock == nil {
			clock = time.NewTimer(p.f.limits.QueueWait)
			defer clock.Stop()
			late = clock.C
		}
		select {
		case m = <-w.c:
		case <-late:
			if m = p.giveUp(w); m == nil {
				return nil, errBusy
			}
		case <-ctx.Done():
			if m = p.giveUp(w); m != nil {
				p.put(m)
			}
			return nil, errCanceled
		}
		if m != nil {
			if m = p.ready(m); m != nil {
				return m, nil
			}
		}
	}
}

// next finds a machine, or room to make one (neither machine nor waiter), or
// a place in the queue.
func (p *pool) next() (*machine, *waiter, *abi.Trap) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, nil, errClosed
	}
	for _, list := range []*[]*machine{&p.clean, &p.dirty} {
		if n := len(*list); n > 0 {
			m := (*list)[n-1]
			(*list)[n-1] = nil
			*list = (*list)[:n-1]
			return m, nil, nil
		}
	}
	if p.count < p.most && p.building < runtime.GOMAXPROCS(0) {
		p.count++
		p.building++
		return nil, nil, nil
	}
	if len(p.waiting) >= p.f.limits.Queue {
		return nil, nil, errBusy
	}
	w := &waiter{make(chan *machine, 1)}
	p.waiting = append(p.waiting, w)
	return nil, w, nil
}

// giveUp leaves the queue; a machine that was handed over meanwhile is
// returned.
func (p *pool) giveUp(w *waiter) *machine {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, other := range p.waiting {
		if other == w {
			p.waiting = append(p.waiting[:i], p.waiting[i+1:]...)
			return nil
		}
	}
	select {
	case m := <-w.c:
		if m == nil {
			p.wakeLocked(nil) // the room is for the next one
		}
		return m
	default:
		return nil
	}
}

// ready restores a machine unless it is clean; nil when it is of no use.
func (p *pool) ready(m *machine) *machine {
	clean := m.clean
	m.clean = false
	if clean && !m.stirred() {
		return m
	}
	if m.restore(p.f.snapshot) {
		return m
	}
	p.drop(m)
	return nil
}

// build makes a machine for the caller; next has counted it.
func (p *pool) build() (*machine, *abi.Trap) {
	m, err := p.f.newMachine(context.Background())
	p.mu.Lock()
	p.building--
	closed := p.closed
	if err != nil {
		p.count--
	}
	p.wakeLocked(nil)
	p.mu.Unlock()
	if err != nil {
		return nil, p.f.unbuilt(err)
	}
	if closed {
		m.retire()
		return nil, errClosed
	}
	// Its memory is made that of the first machine, so that all begin alike.
	if !m.restore(p.f.snapshot) {
		p.drop(m)
		return nil, p.f.unbuilt(errors.New("a machine's memory is not as large after its start as the first one's"))
	}
	return m, nil
}

// put gives a machine back after an exchange, to be restored later.
func (p *pool) put(m *machine) {
	m.clean = false
	if !p.store(m, &p.dirty) {
		m.retire()
	}
}

// store hands a machine to who waits longest, or puts it on a list. False: it
// is forgotten, because the pool is closed.
func (p *pool) store(m *machine, list *[]*machine) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		p.count--
		return false
	}
	if !p.wakeLocked(m) {
		*list = append(*list, m)
	}
	return true
}

// tidy restores a machine that was put back, if nobody has taken it since.
func (p *pool) tidy(m *machine) {
	if !p.fetch(m) {
		return
	}
	if !m.restore(p.f.snapshot) {
		p.drop(m)
		return
	}
	m.clean = true
	if !p.store(m, &p.clean) {
		m.retire()
	}
}

// fetch takes m off the dirty list; false when it is not there.
func (p *pool) fetch(m *machine) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, other := range slices.Backward(p.dirty) {
		if other == m {
			p.dirty = slices.Delete(p.dirty, i, i+1)
			return true
		}
	}
	return false
}

// drop forgets a machine that is of no use: one that the caller holds, or one
// that a callback of its own has stopped, also while it is on a list.
func (p *pool) drop(m *machine) {
	if !m.retire() {
		return // counted before
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count--
	p.wakeLocked(nil)
}

// wakeLocked hands m, or room for another machine, to who waits longest.
func (p *pool) wakeLocked(m *machine) bool {
	if len(p.waiting) == 0 {
		return false
	}
	w := p.waiting[0]
	p.waiting = append(p.waiting[:0], p.waiting[1:]...)
	w.c <- m
	return true
}

// close retires the machines that nobody holds; others follow when they are
// put back.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	idle := append(p.clean, p.dirty...)
	p.clean, p.dirty = nil, nil
	p.count -= len(idle)
	for p.wakeLocked(nil) {
	}
	p.mu.Unlock()
	for _, m := range idle {
		m.retire()
	}
}
