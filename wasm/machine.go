package wasm

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"seawall/wasm/abi"
	"seawall/wasm/meter"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/sys"
)

// nesting bounds calls into a guest from host calls of the same guest: a
// callback may make the host allocate in it, and that is all. wazero's
// functions cannot be entered twice.
const nesting = 2

// machine is one instance of a module.
type machine struct {
	f   *Function
	mod api.Module
	ctx *abi.Context // that of every call into it

	linear  experimental.LinearMemory
	tracker *tracker // of its memory, once it was restored; nil: all is copied

	fuel, depth api.MutableGlobal
	globals     []api.MutableGlobal

	life    context.Context // done when it must not be used again
	end     context.CancelFunc
	passive bool         // its guest looks at responses alone
	waiting atomic.Int32 // goroutines that hold or want mu
	clean   bool         // it is as at the snapshot; its holder's, or the pool's
	figures [stages]figures

	mu     sync.Mutex // held while guest code runs; guards what follows
	guest  abi.Guest
	dead   bool
	budget budget
	level  int          // of nested calls
	first  api.Function // the start function, until it was run
	now    *entry       // whose callback runs; nil for the machine's own
	ledger *ledger
	quiet  bool  // a trial: what it asks of the node is not done
	size   int64 // of its memory, as charged to the function
	tick   ticker
	stir   bool // a callback of its own ran since it was restored
}

// ledger counts what a request may do in all: also the calls that its calls'
// answers cause, when it is long over.
type ledger struct {
	httpCalls, logBytes int
	shared              bool // a call under way counts in it
}

// Module implements abi.Machine.
func (m *machine) Module() api.Module { return m.mod }

// SetGuest implements abi.Holder.
func (m *machine) SetGuest(g abi.Guest) { m.guest, m.ctx.Guest = g, g }

// newMachine instantiates the module, starts and configures it. The machine
// is locked by nobody and belongs to the caller.
func (f *Function) newMachine(ctx context.Context) (*machine, error) {
	ctx = experimental.WithImportResolver(ctx, f.resolve)
	var memory experimental.LinearMemory
	ctx = experimental.WithMemoryAllocator(ctx, experimental.MemoryAllocatorFunc(func(capacity, most uint64) experimental.LinearMemory {
		memory = newLinear(capacity, most)
		return memory
	}))
	mod, err := f.host.runtime.InstantiateModule(ctx, f.compiled, wazero.NewModuleConfig().WithName("").WithStartFunctions())
	if err != nil {
		if memory != nil {
			memory.Free()
		}
		return nil, fmt.Errorf("instantiate: %w", err)
	}
	m := &machine{f: f, mod: mod, linear: memory}
	m.life, m.end = context.WithCancel(context.Background())
	f.remember(m)
	m.ctx = &abi.Context{Context: context.Background(), Machine: m, Services: services{m}}
	if err := m.start(); err != nil {
		m.retire()
		return nil, fmt.Errorf("start: %w", err)
	}
	return m, nil
}

// resolve finds the host's modules for an instance.
func (f *Function) resolve(name string) api.Module {
	if m, ok := f.links[name]; ok {
		return m
	}
	if m, ok := f.host.links[name]; ok {
		return m
	}
	return nil
}

func (m *machine) start() (err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.exports(); err != nil {
		return err
	}
	if t := m.grown(); t != nil {
		return t
	}
	m.arm(m.f.limits.Start, m.f.limits.Start+m.f.limits.Wall)
	m.ledger = &ledger{}
	defer func() {
		m.disarm()
		m.ledger = nil
	}()
	// The start function runs before any other, but not before there is a
	// guest: it may make host calls.
	if m.f.module.HasStart {
		m.first = m.mod.ExportedFunction(meter.StartExport)
	}
	g, err := m.f.abi.NewGuest(m, m.ctx.Services)
	if err != nil {
		return err
	}
	m.SetGuest(g)
	if i, ok := g.(interface{ Idle() bool }); ok {
		m.passive = i.Idle()
	}
	if err := m.begin(); err != nil {
		return err
	}
	if t := m.grown(); t != nil {
		return t
	}
	return nil
}

// exports finds the globals that the rewriter added.
func (m *machine) exports() error {
	global := func(name string) (api.MutableGlobal, error) {
		g, ok := m.mod.ExportedGlobal(name).(api.MutableGlobal)
		if !ok {
			return nil, fmt.Errorf("the rewritten module lacks %s", name)
		}
		return g, nil
	}
	var err error
	if m.fuel, err = global(meter.FuelGlobal); err != nil {
		return err
	}
	// Modules that cannot recurse have none.
	m.depth, _ = m.mod.ExportedGlobal(meter.DepthGlobal).(api.MutableGlobal)
	if m.f.mode != ModeReset {
		return nil
	}
	for _, name := range m.f.module.Globals {
		g, err := global(name)
		if err != nil {
			return err
		}
		m.globals = append(m.globals, g)
	}
	return nil
}

// Call implements abi.Machine.
func (m *machine) Call(f api.Function, stack []uint64) error {
	if m.dead {
		return &abi.Trap{Kind: "exit", Err: errors.New("the machine has stopped")}
	}
	if m.level == nesting {
		return &abi.Trap{Kind: "depth", Err: errors.New("the guest's allocator calls a host function that needs it")}
	}
	if err := m.begin(); err != nil {
		return err
	}
	m.level++
	err := f.CallWithStack(m.ctx, stack)
	m.level--
	if err == nil {
		return nil
	}
	m.dead = true
	return m.trap(err)
}

// begin runs the module's start function, once.
func (m *machine) begin() error {
	f := m.first
	if f == nil {
		return nil
	}
	m.first = nil
	return m.Call(f, nil)
}

// trap says in one word why a call failed.
func (m *machine) trap(err error) *abi.Trap {
	var t *abi.Trap
	var exit *sys.ExitError
	var fault runtime.Error
	switch {
	case errors.As(err, &t):
		return t
	case errors.As(err, &exit):
		return &abi.Trap{Kind: "exit", Err: err}
	case errors.As(err, &fault):
		return &abi.Trap{Kind: "panic", Err: err}
	case m.depth != nil && int64(m.depth.Get()) < 0, strings.Contains(err.Error(), "stack overflow"):
		return &abi.Trap{Kind: "depth", Err: errors.New("calls are nested too deeply")}
	}
	return &abi.Trap{Kind: "unreachable", Err: err}
}

// enter takes the machine for one callback: of an exchange, or with nil of
// its own. Nil means that it was taken and leave must follow. When too many
// wait for it already the answer is errBusy, unless the callback is a must.
func (m *machine) enter(e *entry, stage abi.Stage, must bool) *abi.Trap {
	if int(m.waiting.Add(1)) > m.f.limits.Queue && !must {
		m.waiting.Add(-1)
		return errBusy
	}
	m.mu.Lock()
	if m.dead {
		m.mu.Unlock()
		m.waiting.Add(-1)
		return errGone
	}
	m.now = e
	m.stir = m.stir || e == nil
	if e != nil {
		m.ledger = e.ledger
		e.x.Stage = stage
	}
	m.arm(m.f.limits.CPU, m.f.limits.Wall)
	return nil
}

// leave ends what enter began: it counts the callback and gives the machine
// back. An error makes it unusable; the trap is returned.
func (m *machine) leave(stage int, err error) *abi.Trap {
	var t *abi.Trap
	if err == nil {
		if grown := m.grown(); grown != nil {
			err = grown
		}
	}
	took, fuel := m.disarm()
	c := &m.figures[stage]
	c.calls.Add(1)
	c.duration.Add(int64(took))
	c.fuel.Add(max(fuel, 0))
	if err != nil {
		t = trapOf(err)
		m.dead = true
		c.count(t.Kind)
	}
	m.now, m.ledger = nil, nil
	if t == nil {
		m.tick.adjust(m)
	}
	m.mu.Unlock()
	m.waiting.Add(-1)
	if t != nil {
		m.f.trapped(m, t)
	} else {
		m.f.breaker.succeeded()
	}
	return t
}

// trapOf returns the trap that err is or wraps.
func trapOf(err error) *abi.Trap {
	var t *abi.Trap
	if !errors.As(err, &t) {
		t = &abi.Trap{Kind: "panic", Err: err}
	}
	return t
}

// grown charges what the memory has grown by, and reports that the function's
// machines are too large together.
func (m *machine) grown() *abi.Trap {
	mem := m.mod.Memory()
	if mem == nil {
		return nil
	}
	size := int64(mem.Size())
	if size == m.size {
		return nil
	}
	total := m.f.bytes.Add(size - m.size)
	m.size = size
	if total > m.f.limits.Instances {
		return &abi.Trap{Kind: "memory", Err: fmt.Errorf("the function's machines have %d bytes together; the limit instances is %d", total, m.f.limits.Instances)}
	}
	return nil
}

// retire closes the machine after its last callback. Its figures go to the
// function. It reports false when that was done before.
func (m *machine) retire() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.life.Err() != nil {
		return false
	}
	m.dead = true
	m.end()
	m.tick.stop()
	m.f.bytes.Add(-m.size)
	m.size = 0
	m.f.forget(m)
	// Its memory is free now, tables and stacks when nobody refers to them.
	_ = m.mod.Close(context.Background())
	m.guest, m.ctx.Guest = nil, nil
	return true
}

// stirred reports whether a callback of the machine's own, a tick say, has run
// since it was restored.
func (m *machine) stirred() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stir || m.dead
}

// snapshot is memory and globals after start and the trial.
type snapshot struct {
	memory  []byte
	image   *image // what machines' memories are mappings of; nil: all is copied
	globals []uint64
}

func (m *machine) snapshot() *snapshot {
	s := &snapshot{}
	if mem := m.mod.Memory(); mem != nil {
		view, _ := mem.Read(0, mem.Size())
		s.memory = append([]byte(nil), view...)
	}
	if int64(len(s.memory)) >= trackedSnapshot {
		s.image = newImage(m.f.host.pages, s.memory)
	}
	for _, g := range m.globals {
		s.globals = append(s.globals, g.Get())
	}
	return s
}

// restore makes the machine what it was at the snapshot. It fails when the
// memory has grown: it cannot shrink again.
func (m *machine) restore(s *snapshot) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		return false
	}
	if mem := m.mod.Memory(); mem != nil {
		view, ok := mem.Read(0, mem.Size())
		if !ok || len(view) != len(s.memory) {
			return false
		}
		if !m.rewind(view, s) {
			return false
		}
	}
	for i, g := range m.globals {
		g.Set(s.globals[i])
	}
	// An ABI may keep what belongs to the memory that was overwritten.
	if g, ok := m.guest.(interface{ Reset() }); ok {
		g.Reset()
	}
	m.tick.adjust(m)
	m.stir = false
	if m.depth != nil {
		m.depth.Set(uint64(m.f.module.Depth))
	}
	return true
}

// rewind makes the memory what it was at the snapshot. The first time makes it
// a mapping of the image, if there is one.
func (m *machine) rewind(view []byte, s *snapshot) bool {
	if m.tracker.restore(view, s.memory) {
		return true
	}
	if m.tracker == nil {
		t, err := s.image.attach(m.linear)
		if err != nil {
			return false
		}
		if m.tracker = t; t != nil {
			return true
		}
	}
	copy(view, s.memory)
	return true
}

// ticker runs the periodic callback of a machine.
type ticker struct {
	period time.Duration
	quit   chan struct{}
}

// leastTick bounds how often a machine may ask to be called.
const leastTick = 10 * time.Millisecond

// adjust starts, changes or ends the goroutine after the guest has set a
// period. The machine is locked.
func (t *ticker) adjust(m *machine) {
	if m.guest == nil || m.quiet {
		return
	}
	period := m.guest.TickPeriod()
	if period > 0 {
		period = max(period, leastTick)
	}
	if period == t.period {
		return
	}
	t.stop()
	t.period = period
	if period <= 0 {
		return
	}
	quit := make(chan struct{})
	t.quit = quit
	m.f.host.wait.Add(1)
	go m.ticks(period, quit)
}

func (t *ticker) stop() {
	if t.quit != nil {
		close(t.quit)
		t.quit = nil
	}
	t.period = 0
}

func (m *machine) ticks(period time.Duration, quit chan struct{}) {
	defer m.f.host.wait.Done()
	clock := time.NewTicker(period)
	defer clock.Stop()
	for {
		select {
		case <-quit:
			return
		case <-m.life.Done():
			return
		case <-clock.C:
		}
		if t := m.enter(nil, 0, false); t != nil {
			continue // busy, or gone: quit or gone says so
		}
		m.ledger = &ledger{}
		m.leave(stageOwn, m.guest.Tick())
	}
}
