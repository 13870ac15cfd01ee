// Package rfc9111 says what HTTP says of a message: may a response be kept, how
// long, for whom, and how it answers later requests. All of it is pure: no I/O,
// no lock, no clock; the time is an argument. Functions may run at once and
// never keep or change what they are given unless they say so.
package rfc9111

import (
	"net/http"
	"slices"
	"strings"
)

// members walks the list members of a field, line after line. It is the one
// tokenizer of this package (RFC 9110, 5.6.1): commas inside a quoted string
// part nothing, empty members are skipped.
type members struct {
	lines []string
	rest  string
	tags  bool // members are entity tags: a backslash there is an ordinary byte

	// torn is set once a quote of the line at hand never closes. From there to
	// the line's end quotes part nothing, so that a directive cannot hide behind
	// a stray quote; it also keeps the walk linear.
	torn bool
}

// next returns the next member without the white space around it.
func (m *members) next() (string, bool) {
	for m.rest != "" || len(m.lines) > 0 {
		if m.rest == "" {
			m.rest, m.lines, m.torn = m.lines[0], m.lines[1:], false
			continue
		}
		part, _ := m.cut()
		if part = trimOWS(part); part != "" {
			return part, true
		}
	}
	return "", false
}

// cut takes the bytes of the line up to the next parting comma and tells
// whether there was one.
func (m *members) cut() (part string, comma bool) {
	for i := 0; i < len(m.rest); i++ {
		switch c := m.rest[i]; {
		case c == ',':
			part, m.rest = m.rest[:i], m.rest[i+1:]
			return part, true
		case c == '"' && !m.torn:
			n := quotedLen(m.rest[i:], m.tags)
			if n == 0 {
				m.torn = true
				continue
			}
			i += n - 1
		}
	}
	part, m.rest = m.rest, ""
	return part, false
}

// quotedLen returns the length of the quoted string that s begins with, both
// quotes included, or 0 if it never closes.
func quotedLen(s string, tags bool) int {
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return i + 1
		case s[i] == '\\' && !tags:
			i++
		}
	}
	return 0
}

// Members returns the list members of a field over all its lines, in order,
// without the white space around them and without empty ones. A comma inside a
// quoted string does not part members (RFC 9110, 5.6.1 and 5.6.4). A quote that
// never closes on its line is an ordinary byte.
func Members(lines []string) []string {
	var all []string
	it := members{lines: lines}
	for m, ok := it.next(); ok; m, ok = it.next() {
		all = append(all, m)
	}
	return all
}

// trimOWS removes spaces and tabs from both ends (RFC 9110, 5.6.3).
func trimOWS(s string) string {
	for s != "" && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for s != "" && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}

// isTokenByte tells whether c may stand in a token (RFC 9110, 5.6.2).
func isTokenByte(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// tokenLen returns how many bytes at the start of s are token bytes.
func tokenLen(s string) int {
	n := 0
	for n < len(s) && isTokenByte(s[n]) {
		n++
	}
	return n
}

func isToken(s string) bool { return s != "" && tokenLen(s) == len(s) }

// isDigits tells whether s is one or more decimal digits.
func isDigits(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// single returns the value of a field that may be sent once. Repeated lines
// that agree count as one; lines that differ give false, as does none.
func single(lines []string) (string, bool) {
	if len(lines) == 0 {
		return "", false
	}
	first := trimOWS(lines[0])
	for _, l := range lines[1:] {
		if trimOWS(l) != first {
			return "", false
		}
	}
	return first, true
}

// isHopByHop tells whether the field belongs to one connection and is never
// stored or forwarded (RFC 9111, 3.1; RFC 9110, 7.6.1). The name is canonical.
func isHopByHop(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate",
		"Proxy-Authentication-Info", "Proxy-Authorization", "Te", "Trailer",
		"Transfer-Encoding", "Upgrade":
		return true
	}
	return false
}

// connectionNames are the canonical names that Connection lists, sorted, as a
// hostile message may list thousands.
type connectionNames []string

func connectionNamed(h http.Header) connectionNames {
	named := Members(h["Connection"])
	for i, n := range named {
		named[i] = http.CanonicalHeaderKey(n)
	}
	slices.Sort(named)
	return named
}

func (named connectionNames) include(canonical string) bool {
	_, found := slices.BinarySearch(named, canonical)
	return found
}

// RemoveHopByHop removes from h, in place, the fields of one connection: those
// that Connection names, Connection itself, and the fixed list of RFC 9110,
// 7.6.1, Upgrade and TE included. A request must pass here before its fields
// are compared or keyed, or a client could select a variant by a field that the
// origin never saw.
func RemoveHopByHop(h http.Header) {
	named := connectionNamed(h)
	for name := range h {
		canonical := http.CanonicalHeaderKey(name)
		if isHopByHop(canonical) || named.include(canonical) {
			delete(h, name)
		}
	}
}

// usualFields is how many fields are sorted without an allocation.
const usualFields = 32

// EndToEnd returns a deep copy of h with canonical names and without the fields
// that RemoveHopByHop removes, nor any whose name is not a token (pseudo fields
// and net/http's "Trailer:" keys, which are not header fields). The values have
// their exact capacity: appending to one does not reach another.
func EndToEnd(h http.Header) http.Header {
	named := connectionNamed(h)
	count, names := 0, make([]string, 0, usualFields)
	for name, lines := range h {
		canonical := http.CanonicalHeaderKey(name)
		if isHopByHop(canonical) || named.include(canonical) || !isToken(name) {
			continue
		}
		count += len(lines)
		names = append(names, name)
	}
	// Names that differ only in case are joined; sorting makes the order of
	// their lines the same each time.
	slices.Sort(names)
	kept := make(http.Header, len(names)+2) // callers add Date and Via: a map that grows is made twice
	backing := make([]string, 0, count)
	for _, name := range names {
		canonical := http.CanonicalHeaderKey(name)
		if have, again := kept[canonical]; again {
			kept[canonical] = slices.Concat(have, h[name])
			continue
		}
		from := len(backing)
		backing = append(backing, h[name]...)
		kept[canonical] = backing[from:len(backing):len(backing)]
	}
	return kept
}
