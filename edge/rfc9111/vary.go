package rfc9111

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// variesOnAny tells whether Vary rules out every later request: `*` anywhere
// (RFC 9111, 4.1), or a member that cannot name a field and so cannot be matched.
func variesOnAny(lines []string) bool {
	it := members{lines: lines}
	for m, ok := it.next(); ok; m, ok = it.next() {
		if m == "*" || !isToken(m) {
			return true
		}
	}
	return false
}

// Variant is what a stored response was selected by: the fields its Vary names,
// as the request that caused it had them. It does not change once made; the zero
// value answers any request.
type Variant struct {
	fields   []selecting
	names    []string
	selector string
	language string // lower-case Content-Language, where it may be chosen by it
	media    string // its type, where that is what the request preferred to all others
}

// selecting is one field that Vary names.
type selecting struct {
	key   string   // canonical
	lines []string // as received, for the quick comparison
	form  string   // normal form
	how   comparison
}

// comparison says how values of a field are reduced before they are compared.
type comparison uint8

const (
	byValue comparison = iota
	byCodings
	byLanguages
	byTypes
)

func comparisonOf(name string) comparison {
	switch name {
	case "accept-encoding":
		return byCodings
	case "accept-language":
		return byLanguages
	case "accept":
		return byTypes
	}
	return byValue
}

// VariantOf returns what a response to req with this header was selected by.
// Both headers are as the origin saw and sent them. It is false when no later
// request may match (Vary: *). Nothing of the arguments is kept.
func VariantOf(req, resp http.Header) (v Variant, ok bool) {
	vary := resp["Vary"]
	if variesOnAny(vary) {
		return Variant{}, false
	}
	names := Members(vary)
	for i, n := range names {
		names[i] = strings.ToLower(n)
	}
	slices.Sort(names)
	v.names = slices.Compact(names)
	selector := make([]byte, 0, 64)
	for _, name := range v.names {
		f := selecting{key: http.CanonicalHeaderKey(name), how: comparisonOf(name)}
		lines := req[f.key]
		if f.how == byCodings && !coded(EncodingClass(lines), resp["Content-Encoding"]) {
			// The origin chose a coding that the class does not stand for, so
			// the class may not choose the response either.
			f.how = byValue
		}
		if f.how == byLanguages {
			v.language = onlyLanguage(resp["Content-Language"])
		}
		if f.how == byTypes {
			v.media = preferredType(lines, resp["Content-Type"])
		}
		for _, l := range lines {
			f.lines = append(f.lines, strings.Clone(l))
		}
		f.form = string(appendForm(nil, f.how, lines))
		v.fields = append(v.fields, f)
		selector = appendSelected(selector, name, f.form)
	}
	v.selector = string(selector)
	return v, true
}

// Names returns the fields that Vary names: lower case, sorted, each once. The
// caller must not change the slice.
func (v *Variant) Names() []string { return v.names }

// Selector returns the names and normalised values as one string: equal
// selectors mean the same variant. It equals what AppendSelector makes of the
// request that caused the response, unless the origin chose a coding outside the
// request's EncodingClass: then no request has this selector.
func (v *Variant) Selector() string { return v.selector }

// AppendSelector appends to dst the selector of a request under these names,
// which are as Names returns them.
func AppendSelector(dst []byte, names []string, req http.Header) []byte {
	var scratch [256]byte
	for _, name := range names {
		form := appendForm(scratch[:0], comparisonOf(name), req[http.CanonicalHeaderKey(name)])
		dst = appendSelected(dst, name, string(form))
	}
	return dst
}

// appendSelected writes name and form so that no value can pass for two.
func appendSelected(dst []byte, name, form string) []byte {
	dst = append(dst, name...)
	dst = append(dst, ' ')
	dst = strconv.AppendInt(dst, int64(len(form)), 10)
	dst = append(dst, ':')
	return append(dst, form...)
}

// Matches tells whether the stored response may answer a request with this
// header (RFC 9111, 4.1), which is as it would be sent to the origin. Where it was selected by Accept-Language it may also
// be chosen as the client's one top preference by its Content-Language; where by
// Accept, by its Content-Type, if both clients prefer that to all others.
func (v *Variant) Matches(req http.Header) bool {
	for i := range v.fields {
		f := &v.fields[i]
		lines := req[f.key]
		if slices.Equal(f.lines, lines) {
			continue
		}
		if f.same(lines) {
			continue
		}
		switch {
		case f.how == byLanguages && v.language != "" && prefers(lines, v.language):
		case f.how == byTypes && v.media != "" && prefersType(lines, v.media):
		default:
			return false
		}
	}
	return true
}

// same compares normal forms, on the stack for values of common length.
func (f *selecting) same(lines []string) bool {
	var scratch [256]byte
	return string(appendForm(scratch[:0], f.how, lines)) == f.form
}

// Size returns about how many bytes v occupies.
func (v *Variant) Size() int {
	const header, slot = 16, 88 // of a string; of a selecting
	size := header*len(v.names) + len(v.selector) + len(v.language) + len(v.media)
	for i := range v.fields {
		f := &v.fields[i]
		size += slot + len(f.key) + len(f.form) + len(v.names[i])
		for _, l := range f.lines {
			size += header + len(l)
		}
	}
	return size
}

// The first byte of a form says how the rest is to be read, so that forms of
// different kinds are never equal.
const (
	formAbsent    = '-'
	formValue     = '='
	formCodings   = 'c'
	formLanguages = 'l'
	formTypes     = 't'
)

// appendForm appends the normal form of a field's lines.
func appendForm(dst []byte, how comparison, lines []string) []byte {
	switch {
	case how == byCodings:
		return append(append(dst, formCodings), EncodingClass(lines)...)
	case len(lines) == 0:
		return append(dst, formAbsent)
	case how == byLanguages:
		from := len(dst)
		dst = append(dst, formLanguages)
		if with, ok := appendLanguages(dst, lines); ok {
			return with
		}
		dst = dst[:from]
	case how == byTypes:
		from := len(dst)
		dst = append(dst, formTypes)
		if with, ok := appendTypes(dst, lines); ok {
			return with
		}
		dst = dst[:from]
	}
	return appendJoined(append(dst, formValue), lines)
}

// appendJoined joins lines with commas and drops optional white space beside
// commas outside quoted strings, as a field's meaning does not depend on either
// (RFC 9110, 5.3 and 5.6.1).
func appendJoined(dst []byte, lines []string) []byte {
	for i, line := range lines {
		if i > 0 {
			dst = append(dst, ',')
		}
		it := members{rest: line}
		for comma := true; comma; {
			var part string
			part, comma = it.cut()
			dst = append(dst, trimOWS(part)...)
			if comma {
				dst = append(dst, ',')
			}
		}
	}
	return dst
}
