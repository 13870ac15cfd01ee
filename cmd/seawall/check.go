package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"seawall/edge"
	"seawall/origin"
	"seawall/purge"
)

// checkCommand is `seawall check FILE`.
type checkCommand struct {
	File string `arg:"" help:"The configuration to validate."`
}

// Help is shown under the command's flags.
func (*checkCommand) Help() string {
	return "Every error is a line: file:line:column: what, and what to write instead.\n\nExample:\n  seawall check deploy/config/complete.yaml"
}

// Run prints every error, or that there is none.
func (c *checkCommand) Run(t *terminal) error {
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
	fmt.Fprintf(t.out, "%s: OK, %s\n", c.File, plural(len(s.Sites), "site"))
	for _, why := range absent {
		fmt.Fprintf(t.out, "%s: a certificate was not looked at (%v); the node must be able to read it\n", c.File, why)
	}
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
	for _, site := range s.Sites {
		pool, err := origin.New(site.pool(slog.New(slog.DiscardHandler)))
		if err != nil {
			return err
		}
		defer pool.Close()
		config.Sites = append(config.Sites, site.edge(pool))
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
