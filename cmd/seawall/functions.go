package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"

	"seawall/wasm"
	"seawall/wasm/extras"
)

// maxModule is the largest module, in bytes.
const maxModule = 8 << 20

// functions are the node's edge functions: what is uploaded, and what is
// loaded. They outlive configurations. All but the figures is for the holder
// of node.changing.
type functions struct {
	log     *slog.Logger
	cache   string // of compiled modules; "" is none
	kept    *uploadFolder
	extras  *extras.Services // what they may ask of the node
	uploads map[string]*upload

	mu      sync.Mutex
	engines []*engine         // the last is for what is loaded next; guarded by mu
	past    map[string]*tally // of functions that are no more, by name; guarded by mu
	set     *functionSet      // of the generation of the moment; guarded by mu
}

// engine is a host with the upstreams that it was made with. A configuration
// with other ones needs another; it ends after its last function.
type engine struct {
	host      *wasm.Host
	upstreams []upstreamSettings
	loaded    []*loaded // not known to have ended
}

// loaded is a function and what it was made of, to tell if a new configuration
// wants the same.
type loaded struct {
	*wasm.Function
	name    string
	sum     string // SHA-256 of the module
	size    int
	options functionOptions
	grant   *extras.Grant
	engine  *engine
	users   int // sets that have it; guarded by functions.mu
}

// functionSet is the functions of one generation, by name.
type functionSet struct {
	of      *functions
	extras  *extras.Set // of its configuration
	members map[string]*member
}

// member is a function in a set, and where it came from.
type member struct {
	*loaded
	why       string  // it cannot run; it is closed then, so that its sites fail closed
	upload    *upload // nil when it is the configuration's
	file      string
	candidate *member // another version, for some requests; nil is none
	rollout   rollout // of a candidate
}

// wanted is what a member is to be made of.
type wanted struct {
	name      string
	file      string  // the configuration's; "" is none
	upload    *upload // nil when none was uploaded
	options   functionOptions
	candidate bool
}

// openFunctions reads what was uploaded before. d may keep nothing.
func openFunctions(d *data, log *slog.Logger) (*functions, error) {
	fs := &functions{log: log, extras: extras.New(extras.Options{Log: log}), past: make(map[string]*tally)}
	dir := ""
	if d.path != "" {
		dir = filepath.Join(d.path, "functions")
		fs.cache = filepath.Join(dir, "cache")
	}
	var err error
	if fs.kept, fs.uploads, err = openUploads(dir, log); err != nil {
		return nil, fmt.Errorf("functions in %s: %w (hint: the folder must be the node's to read and write)", dir, err)
	}
	return fs, nil
}

// resolve returns the functions of s with these uploads, to be closed. What
// old has unchanged is taken over; reread looks into the configuration's files
// for that. On an error nothing is left behind.
func (fs *functions) resolve(s *settings, uploads map[string]*upload, old *functionSet, reread bool) (*functionSet, error) {
	known := func(name string) bool { return uploads[name] != nil }
	if err := s.resolve(known); err != nil {
		return nil, err
	}
	own, err := fs.extras.Open(s.extras())
	if err != nil {
		return nil, err
	}
	set := &functionSet{of: fs, extras: own, members: make(map[string]*member)}
	var list []fault
	for i := range s.Functions {
		f := &s.Functions[i]
		if err := fs.add(set, s, f, uploads, old, reread); err != nil {
			list = append(list, fault{f.line, f.column, err.Error()})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(uploads)) {
		name, _ = strings.CutSuffix(name, candidateSuffix)
		if s.function(name) != nil || set.members[name] != nil {
			continue
		}
		if err := fs.add(set, s, &functionSettings{Name: name}, uploads, old, reread); err != nil {
			list = append(list, fault{text: err.Error()})
		}
	}
	if len(list) > 0 {
		set.close()
		return nil, &faults{s.path, list}
	}
	return set, nil
}

// add makes a member of set, with its candidate.
func (fs *functions) add(set *functionSet, s *settings, f *functionSettings, uploads map[string]*upload, old *functionSet, reread bool) error {
	var before, tried *member
	if old != nil {
		if before = old.members[f.Name]; before != nil {
			tried = before.candidate
		}
	}
	w := wanted{name: f.Name, file: f.File, upload: uploads[f.Name], options: f.functionOptions}
	if w.upload != nil && tried != nil && tried.why == "" && before.sum != w.upload.SHA256 && tried.sum == w.upload.SHA256 {
		before = tried // it is promoted, and runs on
	}
	m, err := fs.proven(set, s, w, before, reread)
	if err != nil {
		return err
	}
	set.members[f.Name] = m
	if w, by, ok := f.wanted(uploads[f.Name+candidateSuffix]); ok {
		if m.candidate, err = fs.proven(set, s, w, tried, reread); err != nil {
			return err
		}
		m.candidate.rollout = by
	}
	return nil
}

// proven is member, but for uploads that worked once.
func (fs *functions) proven(set *functionSet, s *settings, w wanted, before *member, reread bool) (*member, error) {
	m, err := fs.member(set, s, w, before, reread)
	if err == nil {
		return m, nil
	}
	// What was uploaded and does not work any more must not keep the node
	// from starting. Once it worked, it must not be lost to a reload.
	if w.candidate {
		err = fmt.Errorf("the candidate of %w", err)
	}
	if w.upload == nil || w.upload.unproven || before != nil && before.why == "" {
		return nil, err
	}
	what := "an uploaded function cannot run: its sites answer 503 until it is uploaded again or removed"
	if w.candidate {
		what = "an uploaded candidate cannot run: no request is its"
	}
	fs.log.Error(what, "function", w.name, "error", err)
	return fs.absent(s, w, err.Error())
}

// member takes over before, if it is made of the same, or loads a function.
// Without reread, a file of the configuration is taken to be as it was.
func (fs *functions) member(set *functionSet, s *settings, w wanted, before *member, reread bool) (*member, error) {
	m := &member{upload: w.upload, file: w.file}
	if before != nil && before.why != "" && before.upload == w.upload && before.file == m.file && !reread {
		m.why = before.why
		return fs.share(m, before), nil
	}
	if w.upload == nil && m.file == "" {
		fs.log.Warn("a function has no module yet: its sites answer 503 until PUT /v1/functions uploads one", "function", w.name)
		return fs.absent(s, w, "the configuration names no file, and nothing was uploaded")
	}
	if w.upload != nil {
		if bad := w.upload.apply(s, &w.options); len(bad) > 0 {
			return nil, fmt.Errorf("function %s: %w", w.name, bad[0])
		}
	}
	for _, list := range []*[]string{&w.options.Upstreams, &w.options.Keys, &w.options.Maps} {
		if len(*list) == 0 {
			*list = nil
		}
	}
	grant := set.extras.Grant(w.name, w.options.Keys, w.options.Maps)
	on, err := fs.engine(s.Upstreams)
	if err != nil {
		return nil, err
	}
	alike := before != nil && before.why == "" && before.engine == on && before.grant.Same(grant) && reflect.DeepEqual(before.options, w.options)
	if alike && w.upload != nil && before.sum == w.upload.SHA256 ||
		alike && w.upload == nil && before.upload == nil && before.file == m.file && !reread {
		return fs.share(m, before), nil
	}
	source, err := w.module()
	if err != nil {
		return nil, fmt.Errorf("function %s: %w", w.name, err)
	}
	sum := hashOf(source)
	if alike && before.sum == sum {
		return fs.share(m, before), nil
	}
	spec := w.options.spec(w.name, source)
	spec.Foreign = grant.Functions()
	if w.candidate {
		spec.Version = sum[:8]
	}
	m.loaded, err = fs.load(on, spec, sum, w.options, grant)
	return m, err
}

// share makes m of what before is made of.
func (fs *functions) share(m, before *member) *member {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	m.loaded = before.loaded
	m.users++
	return m
}

// module returns the bytes of w.
func (w *wanted) module() ([]byte, error) {
	if w.upload != nil {
		return w.upload.read()
	}
	return readModule(w.file)
}

// readModule reads a module's file. It must be a regular one: a pipe might
// never end.
func readModule(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file; give a WebAssembly module", path)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	source, err := readBounded(file, maxModule)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; a module has at most 8MiB", path, err)
	}
	return source, nil
}

func hashOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// engine returns the host with these upstreams.
func (fs *functions) engine(upstreams []upstreamSettings) (*engine, error) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.pruneLocked()
	for i, e := range fs.engines {
		if reflect.DeepEqual(e.upstreams, upstreams) || len(e.upstreams)+len(upstreams) == 0 {
			fs.engines = append(slices.Delete(fs.engines, i, i+1), e)
			return e, nil
		}
	}
	host, err := newHost(upstreams, fs.cache, fs.log)
	if err != nil {
		return nil, err
	}
	e := &engine{host: host, upstreams: upstreams}
	fs.engines = append(fs.engines, e)
	return e, nil
}

// newHost makes a host of the configuration's upstreams.
func newHost(upstreams []upstreamSettings, cache string, log *slog.Logger) (*wasm.Host, error) {
	o := wasm.Options{CacheDir: cache, Log: log, Upstreams: make(map[string]wasm.Upstream)}
	for _, u := range upstreams {
		o.Upstreams[u.Name] = wasm.Upstream{URL: u.URL, Timeout: u.Timeout, MaxInFlight: u.InFlight, AllowPrivate: u.AllowPrivate}
	}
	return wasm.NewHost(o)
}

// load makes a function for one set.
func (fs *functions) load(on *engine, spec wasm.Spec, sum string, o functionOptions, grant *extras.Grant) (*loaded, error) {
	f, err := on.host.Load(context.Background(), spec)
	if err != nil {
		return nil, errors.New(strings.TrimPrefix(err.Error(), "wasm: "))
	}
	l := &loaded{Function: f, name: spec.Name, sum: sum, size: len(spec.Source), options: o, grant: grant, engine: on, users: 1}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	on.loaded = append(on.loaded, l)
	return l, nil
}

func (o *functionOptions) spec(name string, source []byte) wasm.Spec {
	return wasm.Spec{
		Name: name, Source: source, Config: []byte(o.Config), VMConfig: []byte(o.VMConfig), Mode: o.Mode, OnError: o.OnError,
		Limits: o.Limits, Upstreams: o.Upstreams, Shadow: o.shadow,
	}
}

// absent is the member of a name that has nothing to run. Its function is
// closed already, so that sites which name it fail closed.
func (fs *functions) absent(s *settings, w wanted, why string) (*member, error) {
	on, err := fs.engine(s.Upstreams)
	if err != nil {
		return nil, err
	}
	var none functionOptions
	l, err := fs.load(on, none.spec(w.name, idleModule()), "", none, nil)
	if err != nil {
		return nil, err
	}
	l.Close()
	return &member{loaded: l, why: why, upload: w.upload, file: w.file}, nil
}

// idleModule is an http-wasm guest that lets every request pass:
//
//	(module (memory (export "memory") 1) (func (export "handle_request") (result i64) i64.const 1))
func idleModule() []byte {
	return []byte("\x00asm\x01\x00\x00\x00" +
		"\x01\x05\x01\x60\x00\x01\x7e" + // one type: () -> i64
		"\x03\x02\x01\x00" + // one function
		"\x05\x03\x01\x00\x01" + // a page of memory
		"\x07\x1b\x02\x06memory\x02\x00\x0ehandle_request\x00\x00" +
		"\x0a\x06\x01\x04\x00\x42\x01\x0b")
}

// chain is the functions of these names, nil for none; to be closed. A name
// that the set does not have cannot be: resolve has seen it. At the origin's
// side candidates run in the shadow alone: what one made for one client would
// be stored for all.
func (set *functionSet) chain(names []string, origin bool) *wasm.Chain {
	if len(names) == 0 {
		return nil
	}
	list := make([]wasm.Attached, 0, len(names))
	for _, name := range names {
		m := set.members[name]
		a := wasm.Attached{Function: m.Function}
		if c := m.candidate; c != nil && (c.rollout.Shadow || !origin) {
			a.Candidate, a.Percent, a.Cookie = c.Function, c.rollout.Percent, c.rollout.cookie()
		}
		list = append(list, a)
	}
	return wasm.NewRollout(list)
}

// close gives up the set's part in its functions.
func (set *functionSet) close() {
	if set == nil {
		return
	}
	set.extras.Close()
	set.of.mu.Lock()
	defer set.of.mu.Unlock()
	leave := func(m *member) {
		if m.users--; m.users == 0 {
			m.Close()
		}
	}
	for _, m := range set.members {
		if leave(m); m.candidate != nil {
			leave(m.candidate)
		}
	}
	set.of.pruneLocked()
}

// use makes set the one that figures are of.
func (fs *functions) use(set *functionSet) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.set = set
	fs.extras.Use(set.extras)
	for name := range fs.past {
		if set.members[name] == nil {
			delete(fs.past, name)
		}
	}
}

// pruneLocked forgets functions that have ended, but for what they counted, and
// ends the hosts, but the last, that have none any more. A function that
// nothing has may still be in a request's way: then it has machines.
func (fs *functions) pruneLocked() {
	kept := fs.engines[:0]
	for i, e := range fs.engines {
		e.loaded = slices.DeleteFunc(e.loaded, func(l *loaded) bool {
			if l.users > 0 {
				return false
			}
			s := l.Stats()
			if s.Machines > 0 {
				return false
			}
			if fs.set != nil && fs.set.members[l.name] != nil && !l.options.shadow {
				if fs.past[l.name] == nil {
					fs.past[l.name] = new(tally)
				}
				fs.past[l.name].add(&s)
			}
			return true
		})
		if len(e.loaded) > 0 || i == len(fs.engines)-1 {
			kept = append(kept, e)
			continue
		}
		if err := e.host.Close(); err != nil {
			fs.log.Error("functions", "error", err)
		}
	}
	clear(fs.engines[len(kept):])
	fs.engines = kept
}

// close ends everything. No generation may be left.
func (fs *functions) close() error {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	var errs []error
	for _, e := range fs.engines {
		errs = append(errs, e.host.Close())
	}
	fs.engines = nil
	return errors.Join(errs...)
}

// tally sums what functions of one name counted.
type tally struct{ wasm.Stats }

func (t *tally) add(s *wasm.Stats) {
	for i := range s.Stages {
		from, to := &s.Stages[i], &t.Stages[i]
		to.Calls += from.Calls
		to.Duration += from.Duration
		to.Fuel += from.Fuel
		for kind, n := range from.Traps {
			if to.Traps == nil {
				to.Traps = make(map[string]int64)
			}
			to.Traps[kind] += n
		}
	}
	t.Machines += s.Machines
	t.Memory += s.Memory
	t.LogDropped += s.LogDropped
	t.Passed += s.Passed
	t.BreakerOpen += s.BreakerOpen
}

// figures are the counters of every name in use, of all functions that had it,
// candidates too; not of shadows, which serve no requests.
func (fs *functions) figures() map[string]wasm.Stats {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.pruneLocked()
	sums := make(map[string]*tally)
	if fs.set != nil {
		for name := range fs.set.members {
			sums[name] = &tally{wasm.Stats{Breaker: "closed"}}
			if past := fs.past[name]; past != nil {
				sums[name].add(&past.Stats)
			}
		}
	}
	for _, e := range fs.engines {
		for _, l := range e.loaded {
			sum := sums[l.name]
			if sum == nil || l.options.shadow {
				continue
			}
			s := l.Stats()
			sum.add(&s)
			if m := fs.set.members[l.name]; m.loaded == l {
				sum.Breaker = s.Breaker
			}
		}
	}
	out := make(map[string]wasm.Stats, len(sums))
	for name, sum := range sums {
		out[name] = sum.Stats
	}
	return out
}
