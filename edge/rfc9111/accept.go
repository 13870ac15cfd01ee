package rfc9111

import (
	"slices"
	"strings"
)

// appendRanges reads Accept. It is false when a member is not a media range with
// plain parameters and an optional weight behind them.
func appendRanges(to []preference, lines []string) ([]preference, bool) {
	it := members{lines: lines}
	for m, ok := it.next(); ok; m, ok = it.next() {
		q := 1000
		if i := strings.LastIndexByte(m, ';'); i >= 0 && isWeight(m[i+1:]) {
			var readable bool
			if q, readable = weightOf(m[i:]); !readable {
				return to, false
			}
			m = trimOWS(m[:i])
		}
		if !isRange(m) {
			return to, false
		}
		to = append(to, preference{m, q})
	}
	return to, true
}

// isWeight tells whether a parameter is q.
func isWeight(param string) bool {
	param = trimOWS(param)
	return len(param) > 1 && param[0]|0x20 == 'q' && param[1] == '='
}

// isRange tells whether s is a media range, with no parameters but tokens, and
// none of them a weight.
func isRange(s string) bool {
	media, params, more := strings.Cut(s, ";")
	if !isMediaType(trimOWS(media)) {
		return false
	}
	for more {
		var one string
		one, params, more = strings.Cut(params, ";")
		name, value, ok := strings.Cut(trimOWS(one), "=")
		if !ok || !isToken(name) || !isToken(value) || isWeight(one) {
			return false
		}
	}
	return true
}

// appendTypes appends the normal form of Accept: the ranges by falling weight
// and then by name, types in lower case, each with its weight.
func appendTypes(dst []byte, lines []string) ([]byte, bool) {
	var room [16]preference
	all, ok := appendRanges(room[:0], lines)
	if !ok {
		return dst, false
	}
	slices.SortStableFunc(all, byWeight)
	for i, p := range all {
		if i > 0 {
			dst = append(dst, ',')
		}
		media, params, more := strings.Cut(p.tag, ";")
		media = trimOWS(media)
		for j := 0; j < len(media); j++ {
			dst = append(dst, lowerByte(media[j]))
		}
		for more {
			var one string
			one, params, more = strings.Cut(params, ";")
			dst = append(append(dst, ';'), trimOWS(one)...)
		}
		dst = appendWeight(dst, p.q)
	}
	return dst, true
}

// prefersType tells whether the lower-case media type is the one top preference
// of an Accept field.
func prefersType(lines []string, media string) bool {
	var room [16]preference
	all, ok := appendRanges(room[:0], lines)
	if !ok {
		return false
	}
	top, one := topOf(all)
	return one && asciiFold(top.tag, media)
}

// preferredType returns the media type of a response in lower case, where it is
// what the request prefers to all others; else it is empty. A type with
// parameters beside charset is another than its name says.
func preferredType(lines, content []string) string {
	if len(content) != 1 {
		return ""
	}
	media, params, more := strings.Cut(content[0], ";")
	if name, _, _ := strings.Cut(trimOWS(params), "="); more && (!asciiFold(name, "charset") || strings.Contains(params, ";")) {
		return ""
	}
	media = strings.ToLower(trimOWS(media))
	if !isMediaType(media) || strings.Contains(media, "*") || !prefersType(lines, media) {
		return ""
	}
	return media
}
