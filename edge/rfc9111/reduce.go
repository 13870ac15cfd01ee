package rfc9111

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Where a site says what its origin can choose from, a request's preferences
// are reduced to what is left to choose, before they are compared and before
// the origin sees them: its answer then depends on nothing that was dropped.

// Languages are the languages that an origin has, ready for use. They do not
// change.
type Languages struct {
	tags  []string
	lines [][]string // each tag as a field
}

// NewLanguages returns the languages of these tags, as "en" or "pt-BR" (RFC
// 5646). The error names what is none.
func NewLanguages(tags ...string) (*Languages, error) {
	l := new(Languages)
	var faults []error
	for _, tag := range tags {
		if !isLanguageRange(tag) || strings.Contains(tag, "*") || len(tag) > 35 {
			faults = append(faults, fmt.Errorf("%q is no language tag", tag))
		}
		l.tags = append(l.tags, tag)
		l.lines = append(l.lines, []string{tag})
	}
	return l, errors.Join(faults...)
}

// Reduce returns the field lines that say what is left of Accept-Language: the
// one language that the client is given, nil when it likes none of them and the
// origin's own choice counts. Each range is looked up in falling order of
// weight, then as written (RFC 4647, 3.4); one that names a language with more
// subtags is taken for the first of these (3.3.1). Ranges that cannot be read
// do not count. The result is shared, and its own reduction. It allocates only
// for more than 16 ranges.
func (l *Languages) Reduce(lines []string) []string {
	var room [16]preference
	all := room[:0]
	it := members{lines: lines}
	for m, ok := it.next(); ok; m, ok = it.next() {
		if tag, q, readable := cutWeight(m); readable && isLanguageRange(tag) {
			all = append(all, preference{tag, q})
		}
	}
	slices.SortStableFunc(all, func(a, b preference) int { return b.q - a.q })
	refused := all
	for len(refused) > 0 && refused[0].q > 0 {
		refused = refused[1:]
	}
	for _, p := range all[:len(all)-len(refused)] {
		if i := l.lookup(p.tag, refused); i >= 0 {
			return l.lines[i]
		}
	}
	return nil
}

// lookup returns which language a range stands for, -1 for none.
func (l *Languages) lookup(tag string, refused []preference) int {
	if strings.Contains(tag, "*") {
		return -1
	}
	for cut := tag; cut != ""; cut = shorter(cut) {
		if i := slices.IndexFunc(l.tags, func(t string) bool { return compareFold(t, cut) == 0 && !named(refused, t) }); i >= 0 {
			return i
		}
	}
	return slices.IndexFunc(l.tags, func(t string) bool { return within(t, tag) && !named(refused, t) })
}

// shorter returns a language range without its last subtag, nor a single letter
// before that (RFC 4647, 3.4).
func shorter(tag string) string {
	i := strings.LastIndexByte(tag, '-')
	if i >= 2 && tag[i-2] == '-' {
		i -= 2
	}
	return tag[:max(i, 0)]
}

// within tells whether tag is more special than the range.
func within(tag, of string) bool {
	return len(tag) > len(of) && tag[len(of)] == '-' && compareFold(tag[:len(of)], of) == 0
}

func named(all []preference, tag string) bool {
	return slices.ContainsFunc(all, func(p preference) bool { return compareFold(p.tag, tag) == 0 })
}

// MaxTypes is how many media types a reduction may be to.
const MaxTypes = 8

// Types are the media types between which an origin chooses, ready for use.
// They do not change.
type Types struct{ names []string }

// NewTypes returns the types of these names, as "image/avif"; at most MaxTypes.
// The error names what is none.
func NewTypes(names ...string) (*Types, error) {
	t := new(Types)
	var faults []error
	for _, name := range names {
		if !isMediaType(name) || strings.Contains(name, "*") {
			faults = append(faults, fmt.Errorf("%q is no media type", name))
		}
		t.names = append(t.names, strings.ToLower(name))
	}
	if len(names) > MaxTypes {
		faults = append(faults, fmt.Errorf("%d media types (hint: at most %d)", len(names), MaxTypes))
	}
	return t, errors.Join(faults...)
}

func isMediaType(s string) bool {
	major, minor, ok := strings.Cut(s, "/")
	return ok && isToken(major) && isToken(minor)
}

// anyType stands for all types without a name.
const anyType = "*/*"

// Reduce returns the one field line that is left of Accept: those of the types
// that the client names, in its order of weights, and then any other. A wildcard
// names no type: browsers send it, and mean no format that is younger than they
// are. Weights are the client's in order, not in size; members that cannot be
// read do not count. The result is its own reduction.
func (t *Types) Reduce(lines []string) string {
	var room [MaxTypes + 1]preference
	all, refused := room[:0], 0 // those by bit
	for i, name := range t.names[:min(len(t.names), MaxTypes)] {
		switch q := weightFor(name, lines); {
		case q > 0:
			all = append(all, preference{name, q})
		case q == 0:
			refused |= 1 << i
		}
	}
	// Clients that name no wildcard get something all the same.
	all = append(all, preference{anyType, max(weightFor(anyType, lines), 0)})
	slices.SortStableFunc(all, func(a, b preference) int { return b.q - a.q })
	out := make([]byte, 0, 128)
	tenths := 10
	for i, p := range all {
		if i > 0 {
			out = append(out, ", "...)
			if p.q != all[i-1].q {
				tenths--
			}
		}
		if out = append(out, p.tag...); tenths < 10 {
			out = append(out, ";q=0."...)
			out = append(out, byte('0'+tenths))
		}
	}
	for i, name := range t.names {
		if refused&(1<<i) != 0 {
			out = append(append(append(out, ", "...), name...), ";q=0"...)
		}
	}
	return string(out)
}

// weightFor returns the highest weight that a member of exactly this lower-case
// name has, in thousandths; -1 when there is none.
func weightFor(name string, lines []string) int {
	best := -1
	it := members{lines: lines}
	for m, ok := it.next(); ok; m, ok = it.next() {
		if n, q, readable := cutWeight(m); readable && asciiFold(n, name) {
			best = max(best, q)
		}
	}
	return best
}
