package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// drainRun is one run of a node over a data folder: which servers were drained
// when it began, and its words.
func drainRun(t *testing.T, dir, text string, during func(*node)) (states, errs string) {
	t.Helper()
	d, err := openData(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	words := new(output)
	n, err := newNode(configured(t, "%s", text), d, &terminal{io.Discard, words})
	if err != nil {
		t.Fatal(err)
	}
	defer n.close()
	for _, o := range n.listOrigins() {
		for _, s := range o.Servers {
			if s.State == "draining" {
				states += o.Name + " " + s.Name + ", "
			}
		}
	}
	if during != nil {
		during(n)
	}
	return states, words.String()
}

// A drained server is drained after a restart, until it is resumed, also where
// the configuration has changed meanwhile.
func TestDrainsOutliveTheNode(t *testing.T) {
	const (
		one = "sites: [{origins: ['http://a', 'http://b', 'http://c'], routes: [{prefix: /x, origins: ['http://a', 'http://b']}]}]"
		two = "sites: [{origins: ['http://a', 'http://b', 'http://d'], routes: [{prefix: /y, origins: ['http://a', 'http://b', 'http://c']}]}]"
	)
	dir := t.TempDir()
	drain := func(on bool, server string, pools ...string) func(*node) {
		return func(n *node) {
			t.Helper()
			if err := n.drainOrigin(server, pools, on); err != nil {
				t.Fatal(err)
			}
		}
	}
	file := filepath.Join(dir, "drains.json")
	for _, run := range []struct {
		name, text, want string
		during           func(*node)
	}{
		{"at first", one, "", func(n *node) {
			if err := n.reload(n.current.Load().settings); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(file); err == nil {
				t.Error("a file of drains, and there are none")
			}
			drain(true, "a", "default", "default/x")(n)
			drain(true, "c", "default")(n)
		}},
		{"started anew", one, "default a, default c, default/x a, ", drain(false, "a", "default/x")},
		{"with one resumed in one pool", one, "default a, default c, ", nil},
		{"with other pools", two, "default a, default/y c, ", func(n *node) {
			if err := n.reload(configured(t, one)); err != nil {
				t.Fatal(err)
			}
			drain(false, "a", "default")(n)
			drain(false, "c", "default")(n)
		}},
		{"with all resumed", one, "", drain(true, "b", "default")},
		{"with another one drained", one, "default b, ", nil},
	} {
		if got, errs := drainRun(t, dir, run.text, run.during); got != run.want || strings.Contains(errs, "level=ERROR") {
			t.Errorf("%s: drained are %q, want %q\n%s", run.name, got, run.want, errs)
		}
	}
	if err := os.WriteFile(file, []byte(`{"default":`), 0o600); err != nil {
		t.Fatal(err)
	}
	got, errs := drainRun(t, dir, one, drain(true, "b", "default"))
	if got != "" || !strings.Contains(errs, "level=ERROR") || !strings.Contains(errs, "drains.json") {
		t.Errorf("a file that is cut off: drained are %q, want none and a word about it\n%s", got, errs)
	}
	if got, errs := drainRun(t, dir, one, nil); got != "default b, " {
		t.Errorf("behind it: drained are %q, want b\n%s", got, errs)
	}
}
