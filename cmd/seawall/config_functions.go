package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"seawall/wasm"
)

// functionSettings are a named edge function. Without File the API uploads its
// module.
type functionSettings struct {
	Name, File string
	functionOptions
	Candidate    candidateSettings
	line, column int // of the name
}

// functionOptions are what a function is made with beside its module.
type functionOptions struct {
	Config, VMConfig string
	Mode             wasm.Mode
	OnError          wasm.OnError
	Limits           wasm.Limits // 0 is wasm's own default
	shadow           bool        // it runs behind requests
	Upstreams        []string    // nil is none, as of the next two
	Keys, Maps       []string
}

// upstreamSettings are a target of functions' own calls.
type upstreamSettings struct {
	Name, URL    string
	Timeout      time.Duration
	InFlight     int
	AllowPrivate bool
}

// attachSettings are the functions of a site, by place and in order.
type attachSettings struct{ Viewer, Origin []string }

// unresolved is a site's function that the file does not have: it must have
// been uploaded.
type unresolved struct {
	name, site string
	fault      fault
}

// maxAttached bounds the functions at one place of a site.
const maxAttached = 16

func functionKeys() []key[functionSettings] {
	type s = functionSettings
	keys := []key[s]{
		{name: "file", takes: one("the path of a WebAssembly module", parseFile, func(s *s) *string { return &s.File }),
			meaning: "the module; without it, PUT /v1/functions uploads it, and until then its sites answer 503"},
		{name: "config", takes: document(func(s *s) *string { return &s.Config }),
			meaning: "given to the guest: text as it is, a mapping or list as JSON"},
		{name: "vm_config", takes: document(func(s *s) *string { return &s.VMConfig }),
			meaning: "the same for the machine as a whole (proxy-wasm)"},
		{name: "limits", takes: section(functionLimitKeys, func(s *s) *wasm.Limits { return &s.Limits }),
			meaning: "what it is held to"},
		{name: "upstreams", takes: many("a name of upstreams", parseFunctionName, func(s *s) *[]string { return &s.Upstreams }),
			meaning: "the upstreams that it may call; without it, none"},
		{name: "candidate", takes: section(candidateKeys, func(s *s) *candidateSettings { return &s.Candidate }),
			meaning: "another version of it, for some of the requests or in the shadow of them"},
		{name: "keys", takes: many("a name of keys", parseFunctionName, func(s *s) *[]string { return &s.Keys }),
			meaning: "the keys that it may use; without it, none"},
		{name: "maps", takes: many("a name of maps", parseFunctionName, func(s *s) *[]string { return &s.Maps }),
			meaning: "the maps that it may read; without it, none"},
	}
	for _, o := range functionWords() {
		keys = append(keys, key[s]{name: o.name, def: o.def, meaning: o.meaning,
			takes: read(o.kind, func(text string, into *s) error { return o.set(text, &into.functionOptions) })})
	}
	return keys
}

// option is one of a function's options that a single text gives, in a file or
// in the query of an upload.
type option[T any] struct {
	name, kind, def, meaning string
	set                      func(text string, into *T) error
}

// functionWords are the options with a few words to choose from.
func functionWords() []option[functionOptions] {
	return []option[functionOptions]{
		{"mode", "default, shared or reset", "default", "whether requests share the guest's state; by default proxy-wasm shares and http-wasm does not",
			func(text string, o *functionOptions) error {
				mode := slices.Index([]string{"default", "shared", "reset"}, text)
				if mode < 0 {
					return fmt.Errorf("%s is none of the choices", show(text))
				}
				o.Mode = wasm.Mode(mode)
				return nil
			}},
		{"on_error", "closed or open", "closed", "what becomes of a request that it fails for: 503, or on without it",
			func(text string, o *functionOptions) error {
				onError := slices.Index([]string{"closed", "open"}, text)
				if onError < 0 {
					return fmt.Errorf("%s is none of the choices", show(text))
				}
				o.OnError = wasm.OnError(onError)
				return nil
			}},
	}
}

// functionLimits are the rows of limits. Bounds are wasm's, and a test compares
// them.
func functionLimits() []option[wasm.Limits] {
	type l = wasm.Limits
	span := func(name string, least, most time.Duration, field func(*l) *time.Duration, meaning string) option[l] {
		return option[l]{name, "a duration from " + showSpan(least) + " to " + showSpan(most), "", meaning, parsed(spans(least, most), field)}
	}
	size := func(name string, least, most int64, field func(*l) *int64, meaning string) option[l] {
		return option[l]{name, "a size from " + showSize(least) + " to " + showSize(most), "", meaning, parsed(sizes(least, most), field)}
	}
	short := func(name string, least, most int64, field func(*l) *int, meaning string) option[l] {
		return option[l]{name, "a size from " + showSize(least) + " to " + showSize(most), "", meaning, func(text string, into *l) error {
			n, err := sizes(least, most)(text)
			if err == nil {
				*field(into) = int(n)
			}
			return err
		}}
	}
	count := func(name string, most int, field func(*l) *int, meaning string) option[l] {
		return option[l]{name, fmt.Sprintf("a number from 1 to %d", most), "", meaning, parsed(numbers(1, most), field)}
	}
	const us, ms, s = time.Microsecond, time.Millisecond, time.Second
	return []option[l]{
		span("cpu", 100*us, 50*ms, func(l *l) *time.Duration { return &l.CPU }, "processor time of a callback (2ms)"),
		span("start", ms, 10*s, func(l *l) *time.Duration { return &l.Start }, "of starting a machine (1s)"),
		span("wall", ms, 30*s, func(l *l) *time.Duration { return &l.Wall }, "of a callback with its waits (1s)"),
		span("wait", ms, 60*s, func(l *l) *time.Duration { return &l.Wait }, "how long a request may be paused (5s)"),
		size("memory", 64*kib, 128*mib, func(l *l) *int64 { return &l.Memory }, "of one machine (16MiB)"),
		count("table", 1<<20, func(l *l) *int { return &l.Table }, "elements of each table (65536)"),
		count("depth", 1<<16, func(l *l) *int { return &l.Depth }, "nested calls (8192)"),
		short("field", 1, mib, func(l *l) *int { return &l.Field }, "of one change of a field or of content (128KiB)"),
		size("body", 1, 64*mib, func(l *l) *int64 { return &l.Body }, "of content that is buffered (1MiB)"),
		count("host_calls", 1_000_000, func(l *l) *int { return &l.HostCalls }, "of a callback (10000)"),
		count("http_calls", 100, func(l *l) *int { return &l.HTTPCalls }, "to upstreams, of a request (8)"),
		short("log_bytes", 1, mib, func(l *l) *int { return &l.LogBytes }, "logged for a request (16KiB)"),
		size("instances", 64*kib, 4*gib, func(l *l) *int64 { return &l.Instances }, "all machines together (64MiB)"),
		count("queue", 4096, func(l *l) *int { return &l.Queue }, "requests that wait for a machine (128)"),
		span("queue_wait", ms, s, func(l *l) *time.Duration { return &l.QueueWait }, "how long they do (50ms)"),
		size("shared_data", 1, 64*mib, func(l *l) *int64 { return &l.SharedData }, "that guests keep together (1MiB)"),
		count("metrics", 1024, func(l *l) *int { return &l.Metrics }, "that guests may define (64)"),
	}
}

func functionLimitKeys() (keys []key[wasm.Limits]) {
	for _, o := range functionLimits() {
		keys = append(keys, key[wasm.Limits]{name: o.name, meaning: o.meaning, takes: read(o.kind, o.set)})
	}
	return keys
}

func upstreamKeys() []key[upstreamSettings] {
	type s = upstreamSettings
	return []key[s]{
		{name: "url", must: true, takes: one("http://host[:port][/path] or https://host[:port][/path]", parseUpstream, func(s *s) *string { return &s.URL }),
			meaning: "where its calls go; a path is put before theirs"},
		{name: "timeout", def: "5s", takes: one("a duration from 1ms to 1m, as 5s", spans(time.Millisecond, time.Minute), func(s *s) *time.Duration { return &s.Timeout }),
			meaning: "the longest that a call may take"},
		{name: "max_in_flight", def: "64", takes: one("a number from 1 to 4096", numbers(1, 4096), func(s *s) *int { return &s.InFlight }),
			meaning: "calls at once"},
		{name: "allow_private", def: "false", takes: one("true or false", parseBool, func(s *s) *bool { return &s.AllowPrivate }),
			meaning: "whether it may have a loopback, link-local or private address"},
	}
}

func attachKeys() []key[attachSettings] {
	return []key[attachSettings]{
		{name: "viewer", takes: many("a function's name", parseFunctionName, func(s *attachSettings) *[]string { return &s.Viewer }),
			meaning: "run for every request before the key is made, and for every response, hits too, in reverse"},
		{name: "origin", takes: many("a function's name", parseFunctionName, func(s *attachSettings) *[]string { return &s.Origin }),
			meaning: "run when the origin is asked, and for its response before it is stored, in reverse"},
	}
}

// parsed makes a setter of a parser and a field.
func parsed[T, V any](parse func(string) (V, error), field func(*T) *V) func(string, *T) error {
	return func(text string, into *T) error {
		v, err := parse(text)
		if err == nil {
			*field(into) = v
		}
		return err
	}
}

// read takes a single value that set reads.
func read[T any](kind string, set func(text string, into *T) error) value[T] {
	looks := shape{kind: kind, reads: func(text string) error { return set(text, new(T)) }}
	return value[T]{kind: kind, looks: looks, set: func(d *decoder, n ast.Node, name string, into *T) {
		if text, ok := d.text(n, kind); ok {
			if err := set(text, into); err != nil {
				d.misfit(n, name, kind, err)
			}
		}
	}}
}

// named takes a mapping whose keys are names of the operator's, each with a
// mapping of its own; begin is told each name and where it stands.
func named[T, S any](keys func() []key[S], begin func(s *S, name string, line, column int), field func(*T) *[]S) value[T] {
	return value[T]{kind: "a mapping of names", looks: shape{rows: rowsOf(keys), names: true}, set: func(d *decoder, n ast.Node, _ string, into *T) {
		pairs, ok := d.pairs(n)
		if !ok {
			return
		}
		seen := make(map[string]bool)
		out := make([]S, 0, len(pairs))
		for _, pair := range pairs {
			name, ok := d.name(pair.Key)
			if !ok {
				continue
			}
			if _, err := parseFunctionName(name); err != nil {
				d.fail(pair.Key, "%v; choose another", err)
				continue
			}
			if seen[name] {
				d.fail(pair.Key, "%s is already set; leave one of them", name)
				continue
			}
			seen[name] = true
			var s S
			at := pair.Key.GetToken().Position
			begin(&s, name, at.Line, at.Column)
			mappingInto(d, pair.Value, keys(), &s)
			out = append(out, s)
		}
		*field(into) = out
	}}
}

// document takes any value: a single one as its text, a mapping or a list as
// JSON, with ${NAME} put in everywhere.
func document[T any](field func(*T) *string) value[T] {
	const kind = "text, a mapping or a list"
	return value[T]{kind: kind, set: func(d *decoder, n ast.Node, _ string, into *T) {
		switch n.(type) {
		case *ast.MappingNode, *ast.MappingValueNode, *ast.SequenceNode:
			if text, ok := d.appendJSON(nil, n); ok {
				*field(into) = string(text)
			}
		default:
			if text, ok := d.text(n, kind); ok {
				*field(into) = text
			}
		}
	}}
}

// appendJSON writes n as JSON, keys in the file's order. The depth of n is
// bounded already.
func (d *decoder) appendJSON(out []byte, n ast.Node) ([]byte, bool) {
	var v any
	switch n := n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return d.appendObject(out, n)
	case *ast.SequenceNode:
		whole := true
		out = append(out, '[')
		for i, item := range n.Values {
			if i > 0 {
				out = append(out, ',')
			}
			var ok bool
			out, ok = d.appendJSON(out, item)
			whole = whole && ok
		}
		return append(out, ']'), whole
	case *ast.NullNode:
		v = nil
	case *ast.BoolNode:
		v = n.Value
	case *ast.IntegerNode:
		v = n.Value
	case *ast.FloatNode:
		v = n.Value
	default:
		if _, ok := n.(ast.ScalarNode); ok && (n.Type() == ast.InfinityType || n.Type() == ast.NanType) {
			d.fail(n, "JSON has no such number; write it in quotes")
			return out, false
		}
		text, ok := d.text(n, "a value that JSON has")
		if !ok {
			return out, false
		}
		v = text
	}
	text, err := json.Marshal(v)
	if err != nil {
		d.fail(n, "JSON has no such value; write it in quotes")
		return out, false
	}
	return append(out, text...), true
}

func (d *decoder) appendObject(out []byte, n ast.Node) ([]byte, bool) {
	pairs, whole := d.pairs(n)
	seen := make(map[string]bool)
	out = append(out, '{')
	for _, pair := range pairs {
		name, ok := d.name(pair.Key)
		if ok && seen[name] {
			d.fail(pair.Key, "%s is there twice; leave one of them", show(name))
			ok = false
		}
		if !ok {
			whole = false
			continue
		}
		if len(seen) > 0 {
			out = append(out, ',')
		}
		seen[name] = true
		text, _ := json.Marshal(name) // a string always can be
		out = append(append(out, text...), ':')
		out, ok = d.appendJSON(out, pair.Value)
		whole = whole && ok
	}
	return append(out, '}'), whole
}

// parseFunctionName reads the name of a function or an upstream. It is part of
// file names and labels: dots part a file's kinds, and not every file system
// tells capitals apart.
func parseFunctionName(s string) (string, error) {
	strange := func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_' }
	if s == "" || len(s) > 64 || s[0] == '-' || s[0] == '_' || strings.ContainsFunc(s, strange) {
		return "", fmt.Errorf("%s is not a name of 1 to 64 small letters, digits, dashes and underscores that begins with a letter or digit", show(s))
	}
	return s, nil
}

// parseUpstream reads the URL of an upstream.
func parseUpstream(s string) (string, error) {
	if _, rest, found := strings.Cut(s, "://"); found && strings.Contains(rest, "@") {
		return "", errors.New("a URL with a user name or password") // and never shown
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || !validHost(u.Hostname()):
		return "", fmt.Errorf("%s is not the URL of a server", show(s))
	case u.Scheme != "http" && u.Scheme != "https":
		return "", fmt.Errorf("%s has a scheme that is neither http nor https", show(s))
	case u.RawQuery != "", u.ForceQuery, strings.Contains(s, "#"):
		return "", fmt.Errorf("%s has a query or fragment", show(s))
	}
	return s, nil
}

// checkFunctions looks for names that nothing has. A site's function that the
// file does not have may have been uploaded: it is noted.
func checkFunctions(d *decoder, root ast.Node, s *settings) {
	for i := range s.Functions {
		f := &s.Functions[i]
		at := child(child(root, "functions"), f.Name)
		for _, g := range s.granted(&f.functionOptions) {
			list, _ := child(at, g.key).(*ast.SequenceNode)
			for j, name := range *g.names {
				if g.known(name) || list == nil || j >= len(list.Values) {
					continue
				}
				d.fail(list.Values[j], "no %s is named %q; %s", g.what, name, g.hint)
			}
		}
		f.checkCandidate(d, root, s)
	}
	sites, _ := child(root, "sites").(*ast.SequenceNode)
	if sites == nil {
		return
	}
	for i := range min(len(s.Sites), len(sites.Values)) {
		at := child(sites.Values[i], "functions")
		for place, names := range map[string][]string{"viewer": s.Sites[i].Functions.Viewer, "origin": s.Sites[i].Functions.Origin} {
			if list, ok := child(at, place).(*ast.SequenceNode); ok && len(list.Values) == len(names) {
				s.attached(d, s.Sites[i].Name, list, names)
			}
		}
	}
	slices.SortStableFunc(s.unresolved, func(a, b unresolved) int {
		return (a.fault.line-b.fault.line)*maxFile + a.fault.column - b.fault.column
	})
}

// attached looks at the functions of one place of a site.
func (s *settings) attached(d *decoder, site string, list *ast.SequenceNode, names []string) {
	if len(names) > maxAttached {
		d.fail(list, "%d functions at one place; there may be %d", len(names), maxAttached)
	}
	for i, name := range names {
		n := list.Values[i]
		if slices.Contains(names[:i], name) {
			d.fail(n, "%s is there twice; a function runs once at a place", name)
			continue
		}
		if s.function(name) != nil {
			continue
		}
		one := unresolved{name: name, site: site}
		one.fault.text = fmt.Sprintf("no function is named %q; %s", name, s.meant(name))
		if t := n.GetToken(); t != nil && t.Position != nil {
			one.fault.line, one.fault.column = max(t.Position.Line, 1), max(t.Position.Column, 1)
		}
		s.unresolved = append(s.unresolved, one)
	}
}

// meant is the hint for an unknown function's name.
func (s *settings) meant(name string) string {
	for _, f := range s.Functions {
		if distance(name, f.Name) < 3 {
			return "did you mean " + f.Name + "?"
		}
	}
	return "add it to functions (without file if PUT /v1/functions/" + name + " uploads it later), or upload it first"
}

// function returns the file's function of a name, or nil.
func (s *settings) function(name string) *functionSettings {
	for i := range s.Functions {
		if s.Functions[i].Name == name {
			return &s.Functions[i]
		}
	}
	return nil
}

// upstream reports whether there is one of the name.
func (s *settings) upstream(name string) bool {
	return slices.ContainsFunc(s.Upstreams, func(u upstreamSettings) bool { return u.Name == name })
}

// resolve returns *faults for the sites' functions that neither the file nor
// known has.
func (s *settings) resolve(known func(name string) bool) error {
	var list []fault
	for _, one := range s.unresolved {
		if !known(one.name) {
			list = append(list, one.fault)
		}
	}
	if len(list) == 0 {
		return nil
	}
	return &faults{s.path, list}
}
