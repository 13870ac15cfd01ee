package encode

import "strings"

// Coding is a content coding (RFC 9110, 8.4.1). The zero value is Identity.
type Coding uint8

const (
	Identity Coding = iota
	Gzip
	Brotli
	Zstd
	// Deflate is only ever read: its two meanings in the wild (zlib, as
	// RFC 9110 says, and bare deflate) make it a poor thing to send.
	Deflate
	codings
)

// String returns the name as in Content-Encoding.
func (c Coding) String() string {
	return [...]string{"identity", "gzip", "br", "zstd", "deflate", "unknown"}[min(c, codings)]
}

// Parse returns the coding of this name in any letter case, without white space
// around it. "x-gzip" is gzip (RFC 9110, 8.4.1.3).
func Parse(name string) (Coding, bool) {
	// The lengths part the names before letters are folded.
	switch len(name) {
	case 2:
		return Brotli, fold(name, "br")
	case 4:
		if fold(name, "gzip") {
			return Gzip, true
		}
		return Zstd, fold(name, "zstd")
	case 6:
		return Gzip, fold(name, "x-gzip")
	case 7:
		return Deflate, fold(name, "deflate")
	case 8:
		return Identity, fold(name, "identity")
	}
	return Identity, false
}

// fold tells whether s is lower, apart from the case of ASCII letters.
// strings.EqualFold also folds letters outside ASCII onto those inside.
func fold(s, lower string) bool {
	if len(s) != len(lower) {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// Set is a set of codings.
type Set uint8

// SetOf returns the set of these codings.
func SetOf(cs ...Coding) Set {
	var s Set
	for _, c := range cs {
		s = s.With(c)
	}
	return s
}

// Has tells whether c is in the set.
func (s Set) Has(c Coding) bool { return s&(1<<c) != 0 }

// With returns the set with c in it.
func (s Set) With(c Coding) Set { return s | 1<<c }

// Without returns the set without c.
func (s Set) Without(c Coding) Set { return s &^ (1 << c) }

// Stack reads Content-Encoding: the codings in the order in which they were
// applied, identity left out, so nil means that the content is not coded. It is
// false when one is unknown or there are more than three: such content can be
// passed on, not read.
func Stack(lines []string) (stack []Coding, known bool) {
	for _, line := range lines {
		for line != "" {
			var name string
			name, line, _ = strings.Cut(line, ",")
			if name = trim(name); name == "" {
				continue
			}
			c, ok := Parse(name)
			switch {
			case !ok:
				return nil, false
			case c == Identity:
			case len(stack) == maxStack:
				return nil, false
			default:
				stack = append(stack, c)
			}
		}
	}
	return stack, true
}

// maxStack is how many codings may lie on one another. Two are seen where a
// proxy compresses what its origin compressed already.
const maxStack = 3

// trim removes spaces and tabs from both ends (RFC 9110, 5.6.3).
func trim(s string) string { return strings.Trim(s, " \t") }
