package wasm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"seawall/wasm/abi"
	"seawall/wasm/httpwasm"
	"seawall/wasm/meter"
	"seawall/wasm/proxywasm"

	"github.com/tetratelabs/wazero"
)

const (
	// sourceLimit is the size of a module, and functionLimit how many
	// functions it may have, each costing more memory when compiled than
	// its bytes do.
	sourceLimit   = 8 << 20
	functionLimit = 50_000

	// resetSnapshot is how much memory a function of ModeDefault may have
	// when it is restored for each request; more is chosen explicitly.
	resetSnapshot = 1 << 20
)

// Load makes a function of a module: it is checked, rewritten, compiled,
// started, and asked a synthetic request. It takes from a millisecond to
// seconds, and is called off the request path; several modules are compiled
// one after the other. The caller closes the function. The error is a
// sentence for the operator, naming what was found and what to do.
func (h *Host) Load(ctx context.Context, s Spec) (*Function, error) {
	f, err := h.load(ctx, s)
	if err != nil {
		return nil, fmt.Errorf("wasm: function %s: %w", s.Name, err)
	}
	return f, nil
}

func (h *Host) load(ctx context.Context, s Spec) (*Function, error) {
	limits, err := s.Limits.filled()
	if err != nil {
		return nil, err
	}
	info, guest, err := inspect(s.Source)
	if err != nil {
		return nil, err
	}
	imports := imported(info)
	if faults := refusals(guest, info, imports); len(faults) > 0 {
		return nil, errors.New(strings.Join(faults, "; "))
	}
	f := &Function{host: h, log: h.log, name: s.Name, config: slices.Clone(s.Config), vmConfig: slices.Clone(s.VMConfig),
		mode: s.Mode, onError: s.OnError, limits: limits, abi: guest, machines: map[*machine]struct{}{},
		upstreams: map[string]*egress{}, foreign: s.Foreign}
	if f.mode == ModeDefault {
		f.mode = ModeShared
		if guest.Name() == "http-wasm" {
			f.mode = ModeReset
		}
	}
	for _, name := range s.Upstreams {
		u, ok := h.upstreams[name]
		if !ok {
			return nil, fmt.Errorf("upstream %q is not configured; add it to the upstreams that functions may call", name)
		}
		f.upstreams[name] = u
	}
	f.reads = slices.ContainsFunc(imports, func(i abi.Import) bool { return i.Name == "read_body" })
	if s.Version != "" {
		f.log = h.log.With("version", s.Version)
	}
	f.refs.Store(1)
	if s.Shadow {
		f.shadow = &shadow{f: f, queue: make(chan *trace, shadowQueue), quit: make(chan struct{})}
	}
	if err := f.make(ctx, s, imports); err != nil {
		f.Close()
		return nil, err
	}
	if f.shadow != nil {
		f.shadow.begin()
	}
	return f, nil
}

// make rewrites, compiles, links, starts and tries the module.
func (f *Function) make(ctx context.Context, s Spec, imports []abi.Import) error {
	l, began := f.limits, time.Now()
	m, err := meter.Rewrite(s.Source, meter.Limits{Memory: pages(l.Memory), Table: uint32(l.Table), Depth: uint32(l.Depth)})
	if err != nil {
		return err
	}
	if f.mode == ModeReset && m.Mutates {
		return errors.New("it changes its tables, drops segments or has globals that cannot be restored, so mode reset cannot undo a request; choose mode: shared if requests may see what others left")
	}
	f.took.Rewrite, began = time.Since(began), time.Now()
	if f.compiled, err = f.host.compile(ctx, m.Wasm); err != nil {
		return err
	}
	f.took.Compile = time.Since(began)
	m.Wasm = nil
	f.module = m
	if f.links, err = f.abi.Link(ctx, f.host.runtime, imports); err != nil {
		return err
	}
	first, err := f.tried(ctx)
	if err != nil {
		return err
	}
	if err := f.admit(first, s.Mode); err != nil {
		first.retire()
		return err
	}
	return nil
}

// tried makes a machine that serves a synthetic exchange: one without content
// or, for guests that cannot do without, one with.
func (f *Function) tried(ctx context.Context) (*machine, error) {
	var first error
	for _, body := range []string{"", "trial\n"} {
		began := time.Now()
		m, err := f.newMachine(ctx)
		if err != nil {
			return nil, err
		}
		f.took.Start = time.Since(began)
		if err = f.trial(m, body); err == nil {
			return m, nil
		}
		m.retire()
		if first == nil {
			first = err
		}
	}
	return nil, fmt.Errorf("it serves neither of two synthetic requests, GET / and POST /: %w", first)
}

// admit puts the first machine to work.
func (f *Function) admit(first *machine, asked Mode) error {
	if f.mode == ModeShared {
		f.vms = &vms{f: f}
		f.vms.list.Store(new([]*machine))
		f.vms.mu.Lock()
		defer f.vms.mu.Unlock()
		f.vms.addLocked(first)
		return nil
	}
	if asked == ModeDefault && first.size > resetSnapshot {
		return fmt.Errorf("its memory is %d KiB after start, of which each request would restore all; choose mode: reset to pay that (about 20 µs a MiB), or mode: shared if requests may see what others left", first.size>>10)
	}
	f.snapshot = first.snapshot()
	most := f.limits.Instances / max(first.size, page)
	if most < leastMachines {
		return fmt.Errorf("its memory is %d KiB after start, and limit instances (%d KiB) has room for %d machines; %d are needed so that slow requests do not stall others: raise instances, or compile for less memory",
			first.size>>10, f.limits.Instances>>10, most, leastMachines)
	}
	f.pool = &pool{f: f, most: int(most), count: 1}
	f.pool.put(first)
	return nil
}

// abis are those that guests may speak.
func abis() []abi.ABI { return []abi.ABI{httpwasm.ABI{}, proxywasm.New()} }

// inspect reads what the module says of itself and finds its ABI.
func inspect(source []byte) (*meter.Info, abi.ABI, error) {
	if len(source) > sourceLimit {
		return nil, nil, fmt.Errorf("the module has %d bytes; at most %d are taken: strip debug information, or split it", len(source), sourceLimit)
	}
	info, err := meter.Inspect(source)
	if err != nil {
		return nil, nil, err
	}
	if info.Component {
		return nil, nil, errors.New("it is a component (wasi:http or the like), not a core module; " + accepted)
	}
	exports := map[string]bool{}
	for _, e := range info.Exports {
		exports[e.Name] = e.Kind == "function"
	}
	var spoken []abi.ABI
	for _, a := range abis() {
		if a.Detect(exports) {
			spoken = append(spoken, a)
		}
	}
	switch {
	case len(spoken) == 1:
		return info, spoken[0], nil
	case len(spoken) > 1:
		return info, nil, errors.New("it exports both proxy-wasm's version and http-wasm's handle_request; build it for one of them")
	}
	return info, nil, errors.New(foreign(info, exports))
}

// accepted says what a module should be instead.
const accepted = "Seawall runs core modules that export proxy_abi_version_0_2_1, _0_2_0 or _0_1_0 (proxy-wasm), or handle_request (http-wasm)"

// foreign names what a module without a known ABI seems to be.
func foreign(info *meter.Info, exports map[string]bool) string {
	from := func(prefix string) bool {
		return slices.ContainsFunc(info.Imports, func(i meter.Import) bool { return strings.HasPrefix(i.Module, prefix) })
	}
	switch {
	case from("fastly_"):
		return "it is for Fastly Compute (it imports fastly_*); " + accepted
	case from("extism:"):
		return "it is an Extism plug-in (it imports extism:*); " + accepted
	case from("wasi:"):
		return "it imports interfaces of a component (wasi:*); " + accepted
	case from("env") && exports["proxy_on_request_headers"]:
		return "it looks like proxy-wasm of a version that is not known; " + accepted
	case exports["_start"] && (from(wasiModule) || from(wasiAlias)):
		return "it is a WASI command (WAGI, CGI or a program with main), which answers no requests; " + accepted
	}
	return "it exports neither proxy-wasm's version nor http-wasm's handle_request; " + accepted
}

// imported lists the functions a module imports.
func imported(info *meter.Info) []abi.Import {
	var list []abi.Import
	for _, i := range info.Imports {
		if i.Kind != "function" {
			continue
		}
		list = append(list, abi.Import{Module: i.Module, Name: i.Name, Params: valueTypes(i.Params), Results: valueTypes(i.Results)})
	}
	return list
}

func valueTypes(list []meter.ValueType) []byte {
	types := make([]byte, len(list))
	for i, t := range list {
		types[i] = byte(t)
	}
	return types
}

// refusals names everything for which a module is not taken.
func refusals(guest abi.ABI, info *meter.Info, imports []abi.Import) []string {
	var faults []string
	if info.Functions > functionLimit {
		faults = append(faults, fmt.Sprintf("it has %d functions; at most %d are compiled", info.Functions, functionLimit))
	}
	for _, i := range info.Imports {
		if i.Kind != "function" {
			faults = append(faults, fmt.Sprintf("it imports the %s %.64q.%.64q; only functions are offered: define it in the module", i.Kind, i.Module, i.Name))
		}
	}
	if !slices.ContainsFunc(info.Exports, func(e meter.Export) bool { return e.Kind == "memory" && e.Name == "memory" }) {
		faults = append(faults, "it exports no memory named memory, by which host and guest speak")
	}
	var theirs []abi.Import
	for _, i := range imports {
		if own, fault := core(i); !own {
			theirs = append(theirs, i)
		} else if fault != "" {
			faults = append(faults, fault)
		}
	}
	return append(faults, guest.Check(theirs)...)
}

// core judges an import of a module that the host offers to all ABIs.
func core(i abi.Import) (own bool, fault string) {
	var offered []abi.HostFunction
	switch i.Module {
	case wasiModule, wasiAlias:
		offered = wasi()
	case extensionModule:
		offered = extension()
	default:
		return false, ""
	}
	for _, f := range offered {
		if f.Name != i.Name {
			continue
		}
		if !slices.Equal(f.Params, i.Params) || !slices.Equal(f.Results, i.Results) {
			return true, fmt.Sprintf("it imports %s.%s with other types than it has", i.Module, i.Name)
		}
		return true, ""
	}
	hint := "build without what needs it"
	if i.Module != extensionModule {
		hint = "it has no files, sockets or processes: build without what needs them"
	}
	return true, fmt.Sprintf("it imports %s.%.64q, which is not offered; %s", i.Module, i.Name, hint)
}

// compile makes code of a rewritten module, from the cache if it is there.
func (h *Host) compile(ctx context.Context, bin []byte) (wazero.CompiledModule, error) {
	h.compiling.Lock()
	defer h.compiling.Unlock()
	if h.cache != nil {
		h.cache.prepare(bin)
	}
	c, err := h.runtime.CompileModule(ctx, bin)
	var unwritten *fs.PathError
	if err != nil && h.cache != nil && errors.As(err, &unwritten) {
		// The code could not be written to the cache, a full disk say. It is
		// in memory then, counted as used once: asking again finds it and
		// counts once more, which is taken back.
		h.log.Warn("wasm: compile cache", "error", err)
		if c, err = h.runtime.CompileModule(ctx, bin); err == nil {
			_ = c.Close(ctx)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("it is not valid: %w", err)
	}
	if h.cache != nil {
		h.cache.record(bin)
	}
	return c, nil
}
