package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"seawall/purge"
)

// The bounds of a call's JSON.
const (
	maxBody     = 1 << 20 // bytes
	maxWarmBody = 4 << 20 // of a warm-up
	maxWarm     = 10_000  // URLs of a warm-up's list
	maxItems    = maxWarm // of any list
	maxFields   = 50      // names of an object
)

// fields reads a JSON object strictly: an unknown or repeated name, another
// type, or anything behind the object is an error that names the field.
type fields struct {
	raw  map[string]json.RawMessage
	seen []string
	errs []*purge.FieldError
}

// readFields reads the call's content; if it is no JSON object at all, the call
// has been answered and it returns nil.
func (c *call) readFields(limit int64) *fields {
	kind, _, err := mime.ParseMediaType(c.r.Header.Get("Content-Type"))
	if err != nil || kind != "application/json" || len(c.r.Header["Content-Type"]) > 1 {
		c.invalid(&purge.FieldError{Field: "Content-Type", Detail: "is not application/json"})
		return nil
	}
	c.awaitBody()
	text, err := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, limit))
	if err == nil {
		c.bodyRead()
	}
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		c.fail(http.StatusRequestEntityTooLarge, "The content is too large; nothing was done.", &purge.FieldError{
			Field: "body", Detail: fmt.Sprintf("is larger than the %d bytes that a call takes; a purge takes %d items, a warm-up %d", limit, purge.MaxNames, maxWarm)})
		return nil
	case err != nil:
		c.fail(http.StatusBadRequest, "The content could not be read; nothing was done.", &purge.FieldError{Field: "body", Detail: "ended early or came too slowly"})
		return nil
	}
	f, bad := parseFields(text)
	if bad != nil {
		c.invalid(bad)
		return nil
	}
	return f
}

// parseFields takes an object apart.
func parseFields(text []byte) (*fields, *purge.FieldError) {
	bad := func(format string, args ...any) (*fields, *purge.FieldError) {
		return nil, &purge.FieldError{Field: "body", Detail: fmt.Sprintf(format, args...)}
	}
	if !utf8.Valid(text) {
		return bad("is not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(text))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		if err != nil && !errors.Is(err, io.EOF) {
			return bad("is not JSON: %v", err)
		}
		return bad("is not a JSON object")
	}
	f := &fields{raw: make(map[string]json.RawMessage)}
	for d.More() {
		if len(f.raw) == maxFields {
			return bad("has more than %d fields", maxFields)
		}
		t, err := d.Token()
		if err != nil {
			return bad("is not JSON at byte %d: %v", d.InputOffset(), err)
		}
		name, _ := t.(string) // the decoder takes nothing else for a name
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return bad("is not JSON at byte %d: %v", d.InputOffset(), err)
		}
		if _, twice := f.raw[name]; twice {
			f.fault(name, "is there twice")
		}
		f.raw[name] = value
	}
	if _, err := d.Token(); err != nil {
		return bad("is not JSON at byte %d: %v", d.InputOffset(), err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return bad("has something behind its object, at byte %d", d.InputOffset())
	}
	return f, nil
}

// fault notes one error; those past maxFaults are left out, for each costs more
// than the few bytes that it is about.
func (f *fields) fault(field, format string, args ...any) {
	if len(f.errs) == maxFaults {
		return
	}
	f.errs = append(f.errs, &purge.FieldError{Field: field, Detail: fmt.Sprintf(format, args...)})
}

// take returns a field's value and notes that its name is known.
func (f *fields) take(name string) (json.RawMessage, bool) {
	f.seen = append(f.seen, name)
	value, ok := f.raw[name]
	return value, ok
}

// list reads a list of strings.
func (f *fields) list(name string, into *[]string) {
	f.each(name, "strings", func(at string, item json.RawMessage) {
		var s string
		if item[0] != '"' || json.Unmarshal(item, &s) != nil {
			f.fault(at, "is %s where a string is wanted", kindOf(item))
			return
		}
		*into = append(*into, s)
	})
}

// each calls visit with every item of a list and its place.
func (f *fields) each(name, what string, visit func(at string, item json.RawMessage)) {
	value, ok := f.take(name)
	if !ok {
		return
	}
	d := json.NewDecoder(bytes.NewReader(value))
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		f.fault(name, "is %s where a list of %s is wanted", kindOf(value), what)
		return
	}
	for i := 0; d.More(); i++ {
		if i == maxItems {
			f.fault(name, "has more than %d items", maxItems)
			return
		}
		var item json.RawMessage
		if err := d.Decode(&item); err != nil { // it was found to be JSON before
			f.fault(name, "is not JSON: %v", err)
			return
		}
		visit(fmt.Sprintf("%s[%d]", name, i), item)
	}
}

// flag reads true or false.
func (f *fields) flag(name string, into *bool) { scalar(f, name, "true or false", "tf", into) }

// text reads a string.
func (f *fields) text(name string, into *string) { scalar(f, name, "a string", `"`, into) }

// number reads a whole number.
func (f *fields) number(name string, into *int) {
	scalar(f, name, "a whole number", "-0123456789", into)
}

// scalar reads a value whose text begins with one of the bytes of begins.
func scalar[V any](f *fields, name, what, begins string, into *V) {
	value, ok := f.take(name)
	if ok && (strings.IndexByte(begins, value[0]) < 0 || json.Unmarshal(value, into) != nil) {
		f.fault(name, "is %s where %s is wanted", kindOf(value), what)
	}
}

// maxFaults are told at once.
const maxFaults = 50

// done returns all faults: those noted, and the names that none of the calls
// before took.
func (f *fields) done() []*purge.FieldError {
	var unknown []string
	for name := range f.raw {
		if !slices.Contains(f.seen, name) {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	for _, name := range unknown {
		f.fault(name, "is no field of this call; it has %s", strings.Join(f.seen, ", "))
	}
	return f.errs
}

// kindOf says what a JSON value is.
func kindOf(value json.RawMessage) string {
	switch value[0] {
	case '{':
		return "an object"
	case '[':
		return "a list"
	case '"':
		return "a string"
	case 't', 'f':
		return "true or false"
	case 'n':
		return "null"
	}
	return "a number"
}
