package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"seawall/edge"
	"seawall/origin"
	"seawall/purge"
	"seawall/wasm"
	"seawall/wasm/extras"
)

// checkCommand is `seawall check FILE`.
type checkCommand struct {
	File   string  `arg:"" optional:"" help:"The configuration to validate."`
	Schema bool    `help:"Print the JSON Schema of configurations, for editors, and nothing else."`
	Data   *string `placeholder:"DIR" help:"The node's state, to know which functions were uploaded to it. It is only read."`
}

// Help is shown under the command's flags.
func (*checkCommand) Help() string {
	return "Every error is a line: file:line:column: what, and what to write instead. Certificates and functions are looked into where their files " +
		"are here. A site's function that the configuration does not have is an error, unless --data has it.\n\nExamples:\n  seawall check deploy/config/complete.yaml\n  seawall check --schema > seawall.schema.json"
}

// Run prints every error, or that there is none.
func (c *checkCommand) Run(t *terminal) error {
	switch {
	case c.Schema:
		text, err := schema()
		if err == nil {
			_, err = t.out.Write(text)
		}
		return err
	case c.File == "":
		return &usageError{"check takes a <file> (hint: seawall check --help)"}
	}
	s, err := loadSettings(c.File)
	if err != nil {
		return err
	}
	if len(s.Sites) == 0 {
		return &faults{c.File, []fault{{text: "no sites; list at least one with its origins"}}}
	}
	if err := s.tryOut(); err != nil {
		return &faults{c.File, []fault{{text: err.Error()}}}
	}
	absent, err := s.tryCertificates()
	if err != nil {
		return &faults{c.File, []fault{{text: err.Error()}}}
	}
	strange, err := s.tryOriginTLS()
	if err != nil {
		return err
	}
	if err := s.resolve(c.uploaded); err != nil {
		return err
	}
	unseen, err := s.tryFunctions()
	if err != nil {
		return err
	}
	fmt.Fprintf(t.out, "%s: OK, %s\n", c.File, plural(len(s.Sites), "site"))
	for _, why := range absent {
		fmt.Fprintf(t.out, "%s: a certificate was not looked at (%v); the node must be able to read it\n", c.File, why)
	}
	for _, why := range strange {
		fmt.Fprintf(t.out, "%s: a file of origin_tls was not looked at (%v); the node must be able to read it\n", c.File, why)
	}
	for _, why := range unseen {
		fmt.Fprintf(t.out, "%s: a function was not looked at (%v); the node must be able to read it\n", c.File, why)
	}
	return nil
}

// uploaded reports whether the node's state has a function of this name.
func (c *checkCommand) uploaded(name string) bool {
	if c.Data == nil {
		return false
	}
	_, err := os.Stat(filepath.Join(*c.Data, "functions", name+".json"))
	return err == nil
}

// tryFunctions loads every function whose file is here, as a node would; the
// error is *faults. Those that are not here are returned.
func (s *settings) tryFunctions() (absent []error, err error) {
	if len(s.Functions) == 0 {
		return nil, nil
	}
	host, err := newHost(s.Upstreams, "", nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, host.Close()) }()
	// Nothing is fetched, and databases may be elsewhere.
	own, err := extras.New(extras.Options{Transport: offline{}}).Open(extras.Config{Keys: s.extras().Keys, Maps: s.extras().Maps})
	if err != nil {
		return nil, err
	}
	defer own.Close()
	list := &faults{file: s.path}
	for i := range s.Functions {
		f := &s.Functions[i]
		try := func(file, of string, o functionOptions) {
			switch err := tryFunction(host, own, f.Name, file, o); {
			case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
				absent = append(absent, err)
			case err != nil:
				list.list = append(list.list, fault{f.line, f.column, of + strings.TrimPrefix(err.Error(), "wasm: ")})
			}
		}
		if f.File != "" {
			try(f.File, "", f.functionOptions)
		}
		if w, _, ok := f.wanted(nil); ok {
			try(w.file, "the candidate of ", w.options)
		}
	}
	if len(list.list) > 0 {
		return absent, list
	}
	return absent, nil
}

// tryFunction loads a module.
func tryFunction(host *wasm.Host, own *extras.Set, name, file string, o functionOptions) error {
	source, err := readModule(file)
	if err != nil {
		return err
	}
	spec := o.spec(name, source)
	spec.Foreign = own.Grant(name, o.Keys, o.Maps).Functions()
	made, err := host.Load(context.Background(), spec)
	if err != nil {
		return err
	}
	made.Close()
	return nil
}

// tryCertificates reads every certificate that is here. Those that are not, or
// that only the node may read, are returned: a configuration is often checked
// elsewhere than where it is used.
func (s *settings) tryCertificates() (absent []error, err error) {
	for _, from := range s.TLS.Certificates {
		_, err := from.load()
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
			absent = append(absent, err)
		case err != nil:
			return absent, fmt.Errorf("tls.certificates: %w; give PEM files of one certificate and of its key", err)
		}
	}
	return absent, nil
}

// tryOut makes all that a node would make of s, as far as that binds nothing
// and connects to nothing.
func (s *settings) tryOut() (err error) {
	rules := purge.NewRules(0)
	store, err := edge.NewStore(edge.WithRules(edge.StoreOptions{Memory: s.Cache.Memory, MaxObject: s.Cache.MaxObject}, rules))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	config := edge.Config{Store: store, Purge: rules, Node: s.Node.Name, Trusted: s.Trusted}
	pools := make(map[string]*origin.Pool)
	for _, p := range s.pools() {
		made, err := origin.New(p.config(slog.New(slog.DiscardHandler)))
		if err != nil {
			return err
		}
		defer made.Close()
		pools[p.name] = made
	}
	for _, site := range s.Sites {
		from, err := site.upstream(func(name string) *origin.Pool { return pools[name] })
		if err != nil {
			return err
		}
		config.Sites = append(config.Sites, site.edge(from))
	}
	h, err := edge.New(config)
	if err == nil {
		h.Close()
	}
	return err
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
