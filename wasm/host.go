package wasm

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"seawall/wasm/abi"
	"seawall/wasm/meter"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
)

// features are what modules may use; wasm/meter knows the same.
const features = api.CoreFeaturesV2 | experimental.CoreFeaturesTailCall | experimental.CoreFeaturesExtendedConst | experimental.CoreFeaturesThreads

// Options configure a Host.
type Options struct {
	// CacheDir is where compiled modules are kept between starts; "": nowhere.
	CacheDir string
	// Log takes the node's and the guests' lines; nil: none.
	Log *slog.Logger
	// Upstreams are the targets of guests' calls, by name.
	Upstreams map[string]Upstream
	// Foreign are functions of the node that guests may call by name. They
	// get the exchange (nil outside a request), the name of the edge function
	// and the arguments. The error may wrap abi.ErrNotFound or abi.ErrArgument.
	Foreign map[string]func(x *abi.Exchange, function string, args []byte) ([]byte, error)
}

// Host runs functions; a process needs one.
type Host struct {
	runtime   wazero.Runtime
	cache     *compileCache
	log       *slog.Logger
	links     map[string]api.Module // offered to modules of every ABI
	upstreams map[string]*egress
	foreign   map[string]func(*abi.Exchange, string, []byte) ([]byte, error)
	long      places
	pages     *pagemap       // nil where there is none
	born      time.Time      // the origin of guests' monotonic clock
	wait      sync.WaitGroup // goroutines of machines
	compiling sync.Mutex     // one module at a time: it takes a processor and much memory
	shadowing chan struct{}  // taken by the shadow that runs
}

// NewHost returns a host, to be closed after its functions.
func NewHost(o Options) (*Host, error) {
	h := &Host{log: o.Log, upstreams: map[string]*egress{}, foreign: o.Foreign, long: newPlaces(), pages: openPagemap(), born: time.Now(), shadowing: make(chan struct{}, 1)}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	if err := h.setUpstreams(o.Upstreams); err != nil {
		h.pages.close()
		return nil, err
	}
	// Nothing here follows the deadline of a context: fuel ends what runs too
	// long, also where no loop is.
	c := wazero.NewRuntimeConfig().WithCoreFeatures(features).WithDebugInfoEnabled(false)
	if o.CacheDir != "" {
		cache, err := openCompileCache(o.CacheDir, h.log)
		if err != nil {
			h.log.Warn("wasm: compiled modules are not kept, each start compiles them anew", "error", err)
		} else {
			h.cache = cache
			c = c.WithCompilationCache(cache.wazero)
		}
	}
	ctx := context.Background()
	if !compiles(ctx) {
		h.log.Warn("wasm: functions are interpreted, some two hundred times slower than compiled",
			"hint", "amd64 and arm64 have a compiler, unless the system forbids memory that is written and run (systemd: MemoryDenyWriteExecute)")
	}
	h.runtime = wazero.NewRuntimeWithConfig(ctx, c)
	if err := h.link(ctx); err != nil {
		_ = h.Close()
		return nil, err
	}
	return h, nil
}

// now is the time since the host was made: one reading of the monotonic clock,
// where time.Now makes two readings.
func (h *Host) now() time.Duration { return time.Since(h.born) }

// compiles reports whether there is a compiler for this machine: wazero falls
// back to its interpreter without a word, and breaks down when it may not.
func compiles(ctx context.Context) (ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler().WithCoreFeatures(features))
	defer r.Close(ctx)
	empty := []byte{0, 'a', 's', 'm', 1, 0, 0, 0}
	_, err := r.CompileModule(ctx, empty)
	return err == nil
}

// link makes the modules that any guest may import.
func (h *Host) link(ctx context.Context) error {
	yield := abi.HostFunction{Name: meter.Yield, Call: func(c *abi.Context, _ api.Module, _ []uint64) {
		c.Machine.(*machine).yield()
	}}
	h.links = map[string]api.Module{}
	for name, functions := range map[string][]abi.HostFunction{
		meter.ImportModule: {yield},
		wasiModule:         wasi(),
		extensionModule:    extension(),
	} {
		m, err := abi.HostModule(ctx, h.runtime, name, functions)
		if err != nil {
			return err
		}
		h.links[name] = m
	}
	h.links[wasiAlias] = h.links[wasiModule]
	return nil
}

// Close ends what is left of the functions' machines and frees everything.
// The functions must have been closed, and no Run be under way.
func (h *Host) Close() error {
	h.wait.Wait()
	for _, u := range h.upstreams {
		u.rt.CloseIdleConnections()
	}
	ctx := context.Background()
	h.pages.close()
	err := h.runtime.Close(ctx)
	if h.cache != nil {
		if e := h.cache.wazero.Close(ctx); err == nil {
			err = e
		}
	}
	if err != nil {
		return fmt.Errorf("wasm: close: %w", err)
	}
	return nil
}
