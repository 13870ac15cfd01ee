package rfc9111

import (
	"slices"
	"strings"
)

// weightOf reads the parameters of a member of Accept-Encoding or
// Accept-Language, `;q=0.8` or none, in thousandths (RFC 9110, 12.4.2).
func weightOf(params string) (q int, ok bool) {
	params = trimOWS(params)
	if params == "" {
		return 1000, true
	}
	params = trimOWS(params[1:]) // the semicolon
	if len(params) < 3 || params[0]|0x20 != 'q' || params[1] != '=' {
		return 0, false
	}
	number := params[2:]
	if len(number) > 5 || number[0] != '0' && number[0] != '1' {
		return 0, false
	}
	q = int(number[0]-'0') * 1000
	if len(number) > 1 && number[1] != '.' {
		return 0, false
	}
	for i, unit := 2, 100; i < len(number); i, unit = i+1, unit/10 {
		if number[i] < '0' || number[i] > '9' {
			return 0, false
		}
		q += int(number[i]-'0') * unit
	}
	return q, q <= 1000
}

// cutWeight parts a member into its name and its weight.
func cutWeight(member string) (name string, q int, ok bool) {
	n := strings.IndexByte(member, ';')
	if n < 0 {
		return member, 1000, true
	}
	q, ok = weightOf(member[n:])
	return trimOWS(member[:n]), q, ok
}

// EncodingClass reduces Accept-Encoding to the codings that are served: those of
// zstd, br and gzip that the client takes, in this order, parted by ", " as in a
// field. It is empty when only identity may be sent, also without the field,
// and a coding with an unreadable weight is not taken (RFC 9110, 12.5.3). It
// does not allocate.
func EncodingClass(lines []string) string {
	const zstd, br, gzip = 1, 2, 4
	classes := [...]string{"", "zstd", "br", "zstd, br", "gzip", "zstd, gzip", "br, gzip", "zstd, br, gzip"}
	var named, taken int
	any := false
	it := members{lines: lines}
	for m, ok := it.next(); ok; m, ok = it.next() {
		name, q, readable := cutWeight(m)
		bit := 0
		switch {
		case asciiFold(name, "zstd"):
			bit = zstd
		case asciiFold(name, "br"):
			bit = br
		case asciiFold(name, "gzip"), asciiFold(name, "x-gzip"):
			bit = gzip
		case name == "*":
			any = readable && q > 0
		}
		named |= bit
		if readable && q > 0 {
			taken |= bit
		}
	}
	if any {
		taken |= (zstd | br | gzip) &^ named
	}
	return classes[taken]
}

// coded tells whether a response with these Content-Encoding lines is one that
// any request of the class may get.
func coded(class string, lines []string) bool {
	it := members{lines: lines}
	for m, ok := it.next(); ok; m, ok = it.next() {
		m = strings.ToLower(m)
		if m == "x-gzip" {
			m = "gzip"
		}
		if m != "identity" && !slices.Contains(strings.Split(class, ", "), m) {
			return false
		}
	}
	return true
}

// preference is one member of Accept-Language.
type preference struct {
	tag string // as written
	q   int    // thousandths
}

// appendPreferences reads Accept-Language. It is false when a member is not a
// language range with an optional weight.
func appendPreferences(to []preference, lines []string) ([]preference, bool) {
	it := members{lines: lines}
	for m, ok := it.next(); ok; m, ok = it.next() {
		tag, q, readable := cutWeight(m)
		if !readable || !isLanguageRange(tag) {
			return to, false
		}
		to = append(to, preference{tag, q})
	}
	return to, true
}

func isLanguageRange(s string) bool {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case 'a' <= c|0x20 && c|0x20 <= 'z', '0' <= c && c <= '9', c == '-', c == '*':
		default:
			return false
		}
	}
	return s != ""
}

// byWeight orders preferences by falling weight and then by name.
func byWeight(a, b preference) int {
	if a.q != b.q {
		return b.q - a.q
	}
	return compareFold(a.tag, b.tag)
}

// appendLanguages appends the normal form of Accept-Language: the ranges in
// lower case, by falling weight and then by name, each with its weight.
func appendLanguages(dst []byte, lines []string) ([]byte, bool) {
	var room [16]preference
	all, ok := appendPreferences(room[:0], lines)
	if !ok {
		return dst, false
	}
	slices.SortFunc(all, byWeight)
	for i, p := range all {
		if i > 0 {
			dst = append(dst, ',')
		}
		for j := 0; j < len(p.tag); j++ {
			dst = append(dst, lowerByte(p.tag[j]))
		}
		dst = appendWeight(dst, p.q)
	}
	return dst, true
}

func appendWeight(dst []byte, q int) []byte {
	return append(dst, ';', byte('0'+q/1000), byte('0'+q/100%10), byte('0'+q/10%10), byte('0'+q%10))
}

// prefers tells whether the language is the one top preference of an
// Accept-Language field. Two at the top leave the choice to the origin.
func prefers(lines []string, language string) bool {
	var room [16]preference
	all, ok := appendPreferences(room[:0], lines)
	if !ok {
		return false
	}
	top, one := topOf(all)
	return one && asciiFold(top.tag, language) && !refused(all, language)
}

// topOf returns what is preferred to all else, and whether there is such a thing.
func topOf(all []preference) (top preference, one bool) {
	ties := 0
	for _, p := range all {
		switch {
		case p.q > top.q:
			top, ties = p, 0
		case p.q == top.q && compareFold(p.tag, top.tag) != 0:
			ties++
		}
	}
	return top, top.q > 0 && ties == 0
}

// onlyLanguage returns the one language of Content-Language in lower case, empty
// when there is none or more than one.
func onlyLanguage(lines []string) string {
	all := Members(lines)
	if len(all) != 1 || !isLanguageRange(all[0]) || strings.Contains(all[0], "*") {
		return ""
	}
	return strings.ToLower(all[0])
}

func lowerByte(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// compareFold orders ASCII strings without regard to case.
func compareFold(a, b string) int {
	for i := 0; i < len(a) && i < len(b); i++ {
		if d := int(lowerByte(a[i])) - int(lowerByte(b[i])); d != 0 {
			return d
		}
	}
	return len(a) - len(b)
}
