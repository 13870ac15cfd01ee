package main

import (
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
)

// shape is what a value looks like in a file. The zero shape is anything.
type shape struct {
	kind  string             // in words, as errors say it
	reads func(string) error // a single value: whether it takes this text
	items *shape             // a list of these
	rows  func() []row       // a mapping with these keys
	names bool               // a mapping of the operator's own names, each to such a mapping
	or    *shape             // something else that it may be as well
}

// row is a key of the table without what it is decoded into.
type row struct {
	name, def, meaning string
	must, later        bool
	looks              shape
}

// rowsOf are the rows of a section.
func rowsOf[T any](keys func() []key[T]) func() []row {
	return func() (rows []row) {
		for _, k := range keys() {
			rows = append(rows, row{k.name, k.def, k.meaning, k.must, k.later, k.takes.looks})
		}
		return rows
	}
}

// single is the shape of a value that parse reads.
func single[V any](kind string, parse func(string) (V, error)) shape {
	return shape{kind: kind, reads: func(text string) error { _, err := parse(text); return err }}
}

// listOf is the shape of a list of one shape.
func listOf(one shape) shape { return shape{items: &one} }

// either is the shape of what may be one of two.
func either(a, b shape) shape {
	a.or = &b
	return a
}

// offWord is the shape of the word off.
func offWord() shape { return single("off", words("off")) }

// elsewhere is a value that the environment or a file has.
const elsewhere = "#/definitions/elsewhere"

// schema is the table as a JSON Schema (draft 7), for editors: what a
// configuration may say, with each key's meaning and default. It ends in a line
// break.
func schema() ([]byte, error) {
	root := mappingSchema(rowsOf(settingsKeys)())
	root["$schema"] = "http://json-schema.org/draft-07/schema#"
	root["title"] = "Seawall's configuration"
	root["definitions"] = map[string]any{"elsewhere": map[string]any{
		"type": "string", "pattern": `\$\{[A-Za-z_][A-Za-z0-9_]*\}|^file:.`,
		"description": "a value from the environment (${NAME}) or from a file (file:PATH)",
	}}
	text, err := json.MarshalIndent(root, "", " ")
	return append(text, '\n'), err
}

// mappingSchema describes a mapping that has these keys and no others.
func mappingSchema(rows []row) map[string]any {
	properties, must := make(map[string]any), []string{}
	for _, r := range rows {
		if r.later {
			continue
		}
		s := r.looks.schema()
		words := r.meaning
		if kind := r.looks.words(); kind != "" {
			words += ": " + kind
		}
		s["description"] = words
		if r.def != "" {
			s["default"] = plainValue(r.def)
		}
		properties[r.name] = s
		if r.must {
			must = append(must, r.name)
		}
	}
	s := map[string]any{"type": []string{"object", "null"}, "properties": properties, "additionalProperties": false}
	if len(must) > 0 {
		s["type"], s["required"] = "object", must
	}
	return s
}

// words say what a single value is, or the single values of a list.
func (s *shape) words() string {
	switch {
	case s.items != nil && s.items.reads != nil:
		return "a list of " + s.items.words()
	case s.reads != nil && s.or == nil:
		return s.kind
	}
	return ""
}

func (s *shape) schema() map[string]any {
	if s.or != nil {
		one := *s
		one.or = nil
		return map[string]any{"anyOf": []any{one.schema(), s.or.schema()}}
	}
	switch {
	case s.reads != nil:
		return singleSchema(s.kind, s.reads)
	case s.items != nil:
		return map[string]any{"type": "array", "items": s.items.schema()}
	case s.names:
		return map[string]any{"type": []string{"object", "null"}, "additionalProperties": mappingSchema(s.rows())}
	case s.rows != nil:
		return mappingSchema(s.rows())
	}
	return map[string]any{}
}

// The kinds of single values that can be told from their words. What else a
// value may be stands behind a comma.
const (
	kindOfNumber   = `^(?:(\d+) or )?a (?:number|status) from ([\d.]+) to ([\d.]+)(?:, or (\w+))?(?:;.*)?$`
	kindOfSpan     = `^a duration from \S+ to [^\s,]+(?:, as [^\s,]+)?(?:, or (\w+))?$`
	kindOfSize     = `^a size from \S+ to [^\s,]+(?:, as [^\s,]+)?(?:, or (\w+))?$`
	kindOfWords    = `^[\w.]+(?:(?:, [\w.]+)* or [\w.]+)?$`
	patternOfSpan  = `^([0-9]+(\.[0-9]*)?(ns|us|µs|ms|s|m|h))+$|^0$`
	patternOfSize  = `^[0-9]+ ?([KMGTkmgt][Ii]?[Bb]|[Bb])?$`
	unlikelyChoice = "\x00"
)

// singleSchema describes a value of this kind; reads has the last word of what
// is taken, where the words leave that open.
func singleSchema(kind string, reads func(string) error) map[string]any {
	var all []any
	other := ""
	if m := regexp.MustCompile(kindOfNumber).FindStringSubmatch(kind); m != nil {
		least, _ := strconv.ParseFloat(m[2], 64)
		most, _ := strconv.ParseFloat(m[3], 64)
		number := map[string]any{"type": "integer", "minimum": least, "maximum": most}
		if reads(strconv.FormatFloat(least+(most-least)/2+0.25, 'f', -1, 64)) == nil {
			number["type"] = "number"
		}
		all, other = append(all, number), m[4]
		if m[1] != "" {
			all = append(all, map[string]any{"enum": []any{plainValue(m[1])}})
		}
	} else if m := regexp.MustCompile(kindOfSpan).FindStringSubmatch(kind); m != nil {
		all, other = append(all, map[string]any{"type": "string", "pattern": patternOfSpan}), m[1]
	} else if m := regexp.MustCompile(kindOfSize).FindStringSubmatch(kind); m != nil {
		all, other = append(all, map[string]any{"type": "string", "pattern": patternOfSize}, map[string]any{"type": "integer", "minimum": 0}), m[1]
	} else if choices, ok := choicesOf(kind, reads); ok {
		all = append(all, map[string]any{"enum": choices})
	} else {
		return map[string]any{"type": []string{"string", "number", "boolean"}}
	}
	if other != "" {
		all = append(all, map[string]any{"enum": []any{other}})
	}
	return map[string]any{"anyOf": append(all, map[string]any{"$ref": elsewhere})}
}

// choicesOf are the values of a kind that lists them all.
func choicesOf(kind string, reads func(string) error) (choices []any, ok bool) {
	if !regexp.MustCompile(kindOfWords).MatchString(kind) || reads(unlikelyChoice) == nil {
		return nil, false
	}
	for _, word := range strings.FieldsFunc(strings.Replace(kind, " or ", ",", 1), func(r rune) bool { return r == ',' || r == ' ' }) {
		if reads(word) != nil {
			return nil, false
		}
		choices = append(choices, plainValue(word))
		if plainValue(word) != any(word) {
			choices = append(choices, word) // in quotes it is the same
		}
	}
	return choices, true
}

// plainValue is a text as YAML would read it without quotes.
func plainValue(text string) any {
	if b, err := strconv.ParseBool(text); err == nil && len(text) > 1 {
		return b
	}
	if f, err := strconv.ParseFloat(text, 64); err == nil {
		return f
	}
	return text
}
