package wasm

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"

	"seawall/wasm/abi"
)

// vms are the machines of a function in shared mode: many exchanges have
// their contexts in each. The first is made at load; others, up to
// GOMAXPROCS, when all are busy; a lost one when it is missed.
type vms struct {
	f    *Function
	list atomic.Pointer[[]*machine] // replaced, never changed
	turn atomic.Uint32

	mu      sync.Mutex // guards building and replacing
	growing atomic.Bool
	closed  bool
}

// take returns the machine that least others want.
func (v *vms) take() (*machine, *abi.Trap) {
	list := *v.list.Load()
	if len(list) == 0 {
		return v.rebuild()
	}
	start := int(v.turn.Add(1))
	var best *machine
	var least int32
	for i := range list {
		m := list[(start+i)%len(list)]
		if n := m.waiting.Load(); best == nil || n < least {
			best, least = m, n
		}
		if least == 0 {
			break
		}
	}
	if least > 0 && len(list) < runtime.GOMAXPROCS(0) && v.growing.CompareAndSwap(false, true) {
		v.grow()
	}
	return best, nil
}

// rebuild makes the first machine anew; callers wait for one another.
func (v *vms) rebuild() (*machine, *abi.Trap) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return nil, errClosed
	}
	if list := *v.list.Load(); len(list) > 0 {
		return list[0], nil
	}
	if v.f.breaker.state.Load() == breakerOpen {
		return nil, errBreaker // since it was asked: those before have all failed
	}
	m, err := v.f.newMachine(context.Background())
	if err != nil {
		return nil, v.f.unbuilt(err)
	}
	v.addLocked(m)
	return m, nil
}

func (v *vms) addLocked(m *machine) {
	m.mu.Lock() // nobody else knows it yet
	m.tick.adjust(m)
	m.mu.Unlock()
	old := *v.list.Load()
	list := append(append(make([]*machine, 0, len(old)+1), old...), m)
	v.list.Store(&list)
}

// grow makes one more machine behind, if there is memory for it.
func (v *vms) grow() {
	size := v.f.bytes.Load() / int64(max(1, len(*v.list.Load())))
	if v.f.bytes.Load()+size > v.f.limits.Instances/2 {
		return // growing stays true: there will be no room later
	}
	v.f.host.wait.Add(1)
	go func() {
		defer v.f.host.wait.Done()
		defer v.growing.Store(false)
		v.mu.Lock()
		defer v.mu.Unlock()
		if v.closed {
			return
		}
		m, err := v.f.newMachine(context.Background())
		if err != nil {
			v.f.host.log.Warn("wasm: another machine", "function", v.f.name, "error", clean(err.Error()))
			return
		}
		v.addLocked(m)
	}()
}

// drop forgets a machine that has stopped.
func (v *vms) drop(m *machine) {
	v.mu.Lock()
	old := *v.list.Load()
	list := make([]*machine, 0, len(old))
	for _, other := range old {
		if other != m {
			list = append(list, other)
		}
	}
	v.list.Store(&list)
	v.mu.Unlock()
	m.retire()
}

func (v *vms) close() {
	v.mu.Lock()
	v.closed = true
	list := *v.list.Load()
	v.list.Store(new([]*machine))
	v.mu.Unlock()
	for _, m := range list {
		m.retire()
	}
}
