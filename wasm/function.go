package wasm

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"seawall/wasm/abi"
	"seawall/wasm/meter"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// Mode says how requests share machines.
type Mode uint8

const (
	// ModeDefault is ModeShared for proxy-wasm and ModeReset for http-wasm.
	ModeDefault Mode = iota
	// ModeShared lets many requests have contexts in one machine, whose state
	// persists.
	ModeShared
	// ModeReset gives a request a machine of its own, whose memory and
	// globals are restored after it.
	ModeReset
)

// OnError says what becomes of a request that a function fails for.
type OnError uint8

const (
	// Closed answers 503.
	Closed OnError = iota
	// Open goes on without the function.
	Open
)

// Spec is what Load makes a function of.
type Spec struct {
	// Name is the operator's name of the function, for logs and metrics.
	Name string
	// Source is the module. It is not kept.
	Source []byte
	// Config and VMConfig are given to the guest.
	Config, VMConfig []byte
	Mode             Mode
	OnError          OnError
	Limits           Limits
	// Upstreams are those of the host's that it may call.
	Upstreams []string
	// Version is put beside the name in log lines, unless it is empty.
	Version string
	// Shadow makes a candidate that runs behind requests: see Attached.
	Shadow bool
	// Foreign are functions of the node that it may call by name, before those
	// of the host: what this function was granted.
	Foreign map[string]func(x *abi.Exchange, args []byte) ([]byte, error)
}

// Function is a loaded module. It lives until Close was called and the last
// chain and run that use it have ended.
type Function struct {
	host      *Host
	log       *slog.Logger
	name      string
	config    []byte
	vmConfig  []byte
	mode      Mode
	onError   OnError
	limits    Limits
	abi       abi.ABI
	module    *meter.Module // without its binary
	compiled  wazero.CompiledModule
	links     map[string]api.Module
	upstreams map[string]*egress
	foreign   map[string]func(*abi.Exchange, []byte) ([]byte, error)
	reads     bool // it may read the request's content when asked for its header
	snapshot  *snapshot
	pool      *pool // in ModeReset
	vms       *vms  // in ModeShared
	breaker   breaker
	shared    shared
	shadow    *shadow // nil unless it was loaded as one
	took      LoadTimes
	bytes     atomic.Int64 // of machines' memories
	dropped   atomic.Int64 // log lines and answers
	passed    atomic.Int64 // responses too large to buffer
	lastLog   atomic.Int64 // when a trap was logged, in ns
	refs      atomic.Int64
	closed    sync.Once

	mu       sync.Mutex
	machines map[*machine]struct{}
	retired  [stages]figures // of machines gone; and what no machine counted
}

// LoadTimes are what loading a function took: rewriting the module, compiling
// it (or finding it compiled), and starting a machine, as each new one is.
type LoadTimes struct{ Rewrite, Compile, Start time.Duration }

// Took returns what loading the function took.
func (f *Function) Took() LoadTimes { return f.took }

// Name returns the function's name.
func (f *Function) Name() string { return f.name }

// Mode returns ModeShared or ModeReset.
func (f *Function) Mode() Mode { return f.mode }

// ABI returns "proxy-wasm" or "http-wasm".
func (f *Function) ABI() string { return f.abi.Name() }

// Retain keeps the function alive until Release. It reports false when it is
// closed already.
func (f *Function) Retain() bool {
	for {
		n := f.refs.Load()
		if n <= 0 {
			return false
		}
		if f.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// Release ends what Retain began.
func (f *Function) Release() {
	if f.refs.Add(-1) == 0 {
		f.destroy()
	}
}

// Close gives up the loader's hold. Machines end with the last user.
func (f *Function) Close() {
	f.closed.Do(func() {
		if f.shadow != nil {
			f.shadow.stop()
		}
		f.Release()
	})
}

// destroy frees what the function holds.
func (f *Function) destroy() {
	if f.pool != nil {
		f.pool.close()
	}
	if f.vms != nil {
		f.vms.close()
	}
	ctx := context.Background()
	for _, m := range f.links {
		_ = m.Close(ctx)
	}
	if f.compiled != nil {
		_ = f.compiled.Close(ctx)
	}
	if f.snapshot != nil {
		f.snapshot.image.close()
		f.snapshot = nil
	}
}

// take returns a machine for a request.
func (f *Function) take(ctx context.Context) (*machine, *abi.Trap) {
	if !f.breaker.allow() {
		return nil, errBreaker
	}
	if f.mode == ModeReset {
		return f.pool.take(ctx)
	}
	return f.vms.take()
}

// forget counts a machine's figures as the function's own.
func (f *Function) forget(m *machine) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.machines[m]; !ok {
		return
	}
	delete(f.machines, m)
	for i := range m.figures {
		f.retired[i].add(&m.figures[i])
	}
}

func (f *Function) remember(m *machine) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.machines[m] = struct{}{}
}

// trapped is told that a callback has made a machine unusable.
func (f *Function) trapped(m *machine, t *abi.Trap) {
	f.failed(t)
	switch {
	case f.pool != nil && f.mode == ModeReset:
		f.pool.drop(m)
	case f.vms != nil:
		f.vms.drop(m)
	default:
		m.retire()
	}
}

// failed tells breaker and log.
func (f *Function) failed(t *abi.Trap) {
	if t.Kind != "body" {
		f.breaker.trapped()
	}
	// One line for many: a client may cause as many as it likes.
	now := time.Now().UnixNano()
	if last := f.lastLog.Load(); now-last < int64(100*time.Millisecond) || !f.lastLog.CompareAndSwap(last, now) {
		return
	}
	f.log.Warn("wasm: trap", "function", f.name, "kind", t.Kind, "error", clean(t.Error()))
}

// unbuilt turns the error of a machine that could not be made into a trap.
func (f *Function) unbuilt(err error) *abi.Trap {
	t := &abi.Trap{}
	if !errors.As(err, &t) {
		t = &abi.Trap{Kind: "other", Err: err}
	}
	f.retired[stageOwn].count(t.Kind)
	f.failed(t)
	return t
}
