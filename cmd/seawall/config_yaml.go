package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// The bounds of a configuration file. The YAML parser calls itself for each
// level and takes time with the square of the depth, so depth is bounded
// before it sees the file.
const (
	maxFile   = 1 << 20 // bytes
	maxDepth  = 32      // levels
	maxMarks  = 100     // anchors, aliases, tags and "?" keys, all refused later
	maxFaults = 100     // errors told at once
	maxSecret = 1 << 20 // of a file: value, as a list of redirects
)

// fault is one error of a configuration: where, what, and what to write instead.
type fault struct {
	line, column int // from 1; 0 when it is of the file as a whole
	text         string
}

// faults are all errors of one file, in the file's order.
type faults struct {
	file string
	list []fault
}

// Error gives one line a fault, as file:line:column: text.
func (f *faults) Error() string { return strings.Join(f.lines(), "\n") }

func (f *faults) lines() []string {
	var lines []string
	for _, one := range f.list[:min(len(f.list), maxFaults)] {
		if one.line == 0 {
			lines = append(lines, fmt.Sprintf("%s: %s", f.file, one.text))
		} else {
			lines = append(lines, fmt.Sprintf("%s:%d:%d: %s", f.file, one.line, one.column, one.text))
		}
	}
	if more := len(f.list) - maxFaults; more > 0 {
		lines = append(lines, fmt.Sprintf("%s: and %d more errors", f.file, more))
	}
	return lines
}

// decoder walks a syntax tree and collects faults.
type decoder struct {
	faults []fault
	hidden bool // the last text came from the environment or a file
	// Where ${NAME} and file:PATH values come from.
	env  func(string) (string, bool)
	read func(string) ([]byte, error)
}

// loadSettings reads the configuration in path. An error about its content is
// a *faults with every error of it.
func loadSettings(path string) (*settings, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%w (hint: give the path of a configuration that can be read; the least one names sites with their origins)", err)
	}
	defer file.Close()
	text, err := readBounded(file, maxFile)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return parseSettings(path, text, os.LookupEnv, readSecret)
}

// parseSettings decodes text, naming it file in errors.
func parseSettings(file string, text []byte, env func(string) (string, bool), read func(string) ([]byte, error)) (*settings, error) {
	d := &decoder{env: env, read: read}
	s := &settings{path: file}
	if body, ok := d.parse(text); ok {
		mappingInto(d, body, settingsKeys(), s)
		checkStore(d, body, &s.Cache)
		checkTokenSites(d, body, s)
		checkFunctions(d, body, s)
		checkKeys(d, body, s)
	}
	if len(d.faults) == 0 {
		return s, nil
	}
	slices.SortStableFunc(d.faults, func(a, b fault) int {
		return cmp.Or(cmp.Compare(a.line, b.line), cmp.Compare(a.column, b.column))
	})
	return nil, &faults{file, slices.Compact(d.faults)}
}

// defaultSettings is what an empty configuration says.
func defaultSettings() *settings {
	s := new(settings)
	d := new(decoder)
	applyDefaults(d, settingsKeys(), s)
	if len(d.faults) > 0 {
		panic(fmt.Sprintf("the table's own defaults: %+v", d.faults)) // a test reads them all
	}
	return s
}

// fail notes a fault at n.
func (d *decoder) fail(n ast.Node, format string, args ...any) {
	d.failAt(n.GetToken(), format, args...)
}

func (d *decoder) failAt(t *token.Token, format string, args ...any) {
	f := fault{text: fmt.Sprintf(format, args...)}
	if t != nil && t.Position != nil {
		f.line, f.column = max(t.Position.Line, 1), max(t.Position.Column, 1)
	}
	d.faults = append(d.faults, f)
}

// parse turns text into the one mapping that a configuration is. It reports
// false if there is none to walk; an empty file has a nil one and is walked.
func (d *decoder) parse(text []byte) (ast.Node, bool) {
	if len(text) > maxFile {
		d.failAt(nil, "larger than %d bytes; a configuration must fit in that", maxFile)
		return nil, false
	}
	tokens := lexer.Tokenize(strings.TrimPrefix(string(text), "\ufeff")) // some editors begin files so
	if !d.bounded(tokens) {
		return nil, false
	}
	file, err := parseTokens(tokens)
	if err != nil {
		var syntax yaml.Error
		if errors.As(err, &syntax) {
			d.failAt(syntax.GetToken(), "not YAML: %s", syntax.GetMessage())
		} else {
			d.failAt(nil, "not YAML: %v", err)
		}
		return nil, false
	}
	var body ast.Node
	for _, doc := range file.Docs {
		switch {
		case doc.Body == nil || doc.Body.Type() == ast.CommentType:
		case doc.Body.Type() == ast.DirectiveType:
			d.fail(doc.Body, "a %% directive is not read here; leave it out")
		case body != nil:
			d.failAt(startOf(doc.Body), "a second document; a configuration is one: leave out the --- line or split the file")
		default:
			body = doc.Body
		}
	}
	return body, true
}

// parseTokens is parser.Parse with a panic of that made an error: a bad file
// must not end a running node.
func parseTokens(tokens token.Tokens) (file *ast.File, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("the parser gave up: %v", v)
		}
	}()
	return parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
}

// bounded refuses what the parser must not be given.
func (d *decoder) bounded(tokens token.Tokens) bool {
	var flow, dashes, marks, line int
	indents := []int{}
	for _, t := range tokens {
		if t.Position == nil {
			continue
		}
		if t.Position.Line != line {
			line, dashes = t.Position.Line, 0
			for len(indents) > 0 && indents[len(indents)-1] >= t.Position.Column {
				indents = indents[:len(indents)-1]
			}
			indents = append(indents, t.Position.Column)
		}
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			flow++
		case token.SequenceEndType, token.MappingEndType:
			flow--
		case token.SequenceEntryType:
			dashes++
		case token.MappingKeyType, token.AnchorType, token.AliasType, token.TagType:
			marks++
		}
		if flow+dashes+len(indents) > maxDepth || marks > maxMarks {
			d.failAt(t, "nested deeper than a configuration is; write it in fewer levels")
			return false
		}
	}
	return true
}

// mappingInto decodes n, a mapping with these keys, into into. A nil n is empty.
func mappingInto[T any](d *decoder, n ast.Node, keys []key[T], into *T) {
	applyDefaults(d, keys, into)
	pairsInto(d, n, keys, into)
}

// pairsInto is mappingInto over what into has already.
func pairsInto[T any](d *decoder, n ast.Node, keys []key[T], into *T) {
	pairs, ok := d.pairs(n)
	if !ok {
		return
	}
	seen := make(map[string]*token.Position)
	for _, pair := range pairs {
		name, ok := d.name(pair.Key)
		if !ok {
			continue
		}
		at := pair.Key.GetToken().Position
		if first := seen[name]; first != nil {
			d.fail(pair.Key, "%s is already set at line %d; leave one of them", name, first.Line)
			continue
		}
		seen[name] = at
		i := slices.IndexFunc(keys, func(k key[T]) bool { return k.name == name })
		switch {
		case i < 0:
			d.fail(pair.Key, "unknown key %s; %s", show(name), suggest(name, keys))
		case keys[i].later:
			d.fail(pair.Key, "%s is not in this version: %s; leave it out", name, keys[i].meaning)
		default:
			keys[i].takes.set(d, pair.Value, name, into)
		}
	}
	for _, k := range keys {
		if k.must && seen[k.name] == nil {
			d.failAt(startOf(n), "%s is missing: %s", k.name, k.meaning)
		}
	}
}

// pairs returns a mapping's pairs.
func (d *decoder) pairs(n ast.Node) ([]*ast.MappingValueNode, bool) {
	switch n := n.(type) {
	case nil, *ast.NullNode:
		return nil, true
	case *ast.MappingNode:
		return n.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}, true
	}
	d.fail(n, "%s where a mapping is wanted; write key: value pairs", kindOf(n))
	return nil, false
}

// name returns a key's text.
func (d *decoder) name(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.MergeKeyNode:
		d.fail(n, "merge keys (<<) are not read here; write the keys out")
	default:
		if t := n.GetToken(); t != nil && t.Type != token.MappingKeyType && len(t.Value) < 40 {
			d.fail(n, "%q is no key; keys are plain words", t.Value)
		} else {
			d.fail(n, "this is no key; keys are plain words")
		}
	}
	return "", false
}

// text returns a scalar's text with ${NAME} and file:PATH put in. wants names
// what should stand there, for the fault if it is no scalar.
func (d *decoder) text(n ast.Node, wants string) (string, bool) {
	var s string
	switch n := n.(type) {
	case *ast.StringNode:
		s = n.Value
	case *ast.LiteralNode:
		s = strings.TrimSuffix(n.Value.Value, "\n")
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		s = n.GetToken().Value
	case *ast.AliasNode:
		d.fail(n, "an alias (*) is not read here; write %s, in quotes if it begins with *", wants)
		return "", false
	case *ast.AnchorNode:
		d.fail(n, "an anchor (&) is not read here; write %s, in quotes if it begins with &", wants)
		return "", false
	case *ast.NullNode:
		d.fail(n, "no value; write %s", wants)
		return "", false
	default:
		d.fail(n, "%s where one value is wanted; write %s", kindOf(n), wants)
		return "", false
	}
	return d.expand(n, s)
}

// expand puts in what ${NAME} and file:PATH stand for.
func (d *decoder) expand(n ast.Node, s string) (string, bool) {
	path, fromFile := strings.CutPrefix(s, "file:")
	d.hidden = fromFile || strings.Contains(s, "${")
	if fromFile {
		text, err := d.read(path)
		if err != nil {
			d.fail(n, "cannot read this value: %v; give a file that exists", err)
			return "", false
		}
		return strings.TrimRight(string(text), "\r\n"), true
	}
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(s, "${")
		out.WriteString(before)
		if !found {
			return out.String(), true
		}
		name, after, closed := strings.Cut(rest, "}")
		if !closed || !envName(name) {
			d.fail(n, "${ without a name and }; write ${NAME}")
			return "", false
		}
		value, set := d.env(name)
		if !set {
			d.fail(n, "the environment has no %s; set it or write the value", name)
			return "", false
		}
		out.WriteString(value)
		s = after
	}
}

func envName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c != '_' && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

// misfit notes that a text is not what name takes. A text from the
// environment or a file may be a secret, so then err, which shows it, is left
// out.
func (d *decoder) misfit(n ast.Node, name, kind string, err error) {
	if d.hidden {
		d.fail(n, "%s: what ${} or file: puts in does not fit; it must be %s", name, kind)
		return
	}
	d.fail(n, "%s: %v; write %s", name, err, kind)
}

// startOf is where n begins, or nothing.
func startOf(n ast.Node) *token.Token {
	switch n := n.(type) {
	case nil:
		return nil
	case *ast.MappingNode:
		if len(n.Values) > 0 && n.Values[0].Key != nil {
			return n.Values[0].Key.GetToken()
		}
	}
	return n.GetToken()
}

// kindOf says what a node is, for a fault.
func kindOf(n ast.Node) string {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.TagNode:
		return "a tag (!)"
	case *ast.AliasNode:
		return "an alias (*)"
	case *ast.AnchorNode:
		return "an anchor (&)"
	case *ast.NullNode:
		return "nothing"
	}
	return "a single value"
}
