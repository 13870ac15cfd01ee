package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// key is one row of the configuration's table. T is what the row's section is
// decoded into.
type key[T any] struct {
	name    string
	takes   value[T]
	def     string // as it would be written in a file; "" for none
	meaning string
	must    bool // it has no default and must be given
	later   bool // known, and refused in this version
}

// value is what a key takes: its kind in words, and how a node becomes it.
type value[T any] struct {
	kind string
	set  func(d *decoder, n ast.Node, name string, into *T)
	// defaults fills what is below, for sections; nil for everything else.
	defaults func(d *decoder, into *T)
	looks    shape // in a file
}

// later is the row of a key that a coming version reads.
func later[T any](name, meaning string) key[T] {
	return key[T]{name: name, meaning: meaning, later: true}
}

// one takes a single value. kind completes "write ..."; parse's error says
// what is wrong with the text.
func one[T, V any](kind string, parse func(string) (V, error), field func(*T) *V) value[T] {
	return value[T]{kind: kind, looks: single(kind, parse), set: func(d *decoder, n ast.Node, name string, into *T) {
		if text, ok := d.text(n, kind); ok {
			if v, err := parse(text); err != nil {
				d.misfit(n, name, kind, err)
			} else {
				*field(into) = v
			}
		}
	}}
}

// many takes a list of single values.
func many[T, V any](kind string, parse func(string) (V, error), field func(*T) *[]V) value[T] {
	return value[T]{kind: "a list of " + kind, looks: listOf(single(kind, parse)), set: func(d *decoder, n ast.Node, name string, into *T) {
		list, ok := n.(*ast.SequenceNode)
		if !ok {
			d.fail(n, "%s: %s where a list is wanted; write [value, ...] or a line with - for each", name, kindOf(n))
			return
		}
		out := make([]V, 0, len(list.Values))
		for _, item := range list.Values {
			text, ok := d.text(item, kind)
			if !ok {
				continue
			}
			v, err := parse(text)
			if err != nil {
				d.misfit(item, name, kind, err)
				continue
			}
			out = append(out, v)
		}
		*field(into) = out
	}}
}

// section takes a mapping of its own.
func section[T, S any](keys func() []key[S], field func(*T) *S) value[T] {
	return value[T]{
		kind: "a mapping", looks: shape{rows: rowsOf(keys)},
		set: func(d *decoder, n ast.Node, _ string, into *T) {
			mappingInto(d, n, keys(), field(into))
		},
		defaults: func(d *decoder, into *T) { applyDefaults(d, keys(), field(into)) },
	}
}

// sections takes a list of mappings. check, if any, sees the list and what it
// became.
func sections[T, S any](keys func() []key[S], field func(*T) *[]S, check func(*decoder, *ast.SequenceNode, []S)) value[T] {
	return value[T]{kind: "a list of mappings", looks: listOf(shape{rows: rowsOf(keys)}), set: func(d *decoder, n ast.Node, name string, into *T) {
		list, ok := n.(*ast.SequenceNode)
		if !ok {
			d.fail(n, "%s: %s where a list is wanted; begin each entry with -", name, kindOf(n))
			return
		}
		out := make([]S, len(list.Values))
		for i, item := range list.Values {
			if _, empty := item.(*ast.NullNode); empty {
				d.fail(item, "%s: an empty entry; leave it out", name)
				continue
			}
			mappingInto(d, item, keys(), &out[i])
		}
		if check != nil {
			check(d, list, out)
		}
		*field(into) = out
	}}
}

// applyDefaults sets every key of a section to its default, by the same way
// that a file's values take.
func applyDefaults[T any](d *decoder, keys []key[T], into *T) {
	for _, k := range keys {
		switch {
		case k.later:
		case k.takes.defaults != nil:
			k.takes.defaults(d, into)
		case k.def != "":
			at := token.New(k.def, k.def, &token.Position{})
			k.takes.set(d, ast.String(at), k.name, into)
		}
	}
}

// suggest names the key that was probably meant, or all there are.
func suggest[T any](name string, keys []key[T]) string {
	best, least := "", 3
	var all []string
	for _, k := range keys {
		// Two letters apart is far for short words, but for those swapped.
		if n := distance(strings.ToLower(name), k.name); n < least && (n < 2 || name[:1] == k.name[:1]) {
			best, least = k.name, n
		}
		if !k.later {
			all = append(all, k.name)
		}
	}
	if best != "" {
		return fmt.Sprintf("did you mean %s?", best)
	}
	return "known here: " + strings.Join(all, ", ")
}

// distance is how many letters must change to make b of a. Names longer than
// any key are far from all.
func distance(a, b string) int {
	if len(a) > 40 {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}

// show quotes s for a fault, at a bounded length.
func show(s string) string {
	if len(s) > 60 {
		return fmt.Sprintf("%q...", s[:60])
	}
	return fmt.Sprintf("%q", s)
}

// readBounded reads all of r, or fails if that is more than limit bytes.
func readBounded(r io.Reader, limit int64) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = fmt.Errorf("larger than %d bytes", limit)
	}
	return text, err
}

// readSecret reads the file a file: value names.
func readSecret(path string) ([]byte, error) { return readRegular(path, maxSecret) }

// readRegular reads a regular file of at most limit bytes.
func readRegular(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() { // a pipe might never end
		return nil, errors.New(path + " is not a regular file")
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return readBounded(file, limit)
}
