package rfc9111

import (
	"math"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Part is what a 206 with a single range holds.
type Part struct {
	Range
	Size int64 // of the complete representation, -1 when unknown
}

// PartOf reads the head of a 206 (RFC 9110, 15.3.7). length is that of its body,
// below 0 when unknown. It is false when the response may not be stored: several
// ranges, a Content-Range that is missing, malformed or repeated, or a length that differs
// from it. A body of unknown length must be counted against Range.Length.
func PartOf(h http.Header, length int64) (p Part, ok bool) {
	lines := h["Content-Range"]
	if len(lines) != 1 || strings.HasPrefix(strings.ToLower(h.Get("Content-Type")), "multipart/byteranges") {
		return Part{}, false
	}
	start, end, size, ok := ParseContentRange(lines[0])
	if !ok || end == math.MaxInt64 || length >= 0 && length != end-start+1 { // the offset behind it must be a number too
		return Part{}, false
	}
	return Part{Range{start, end - start + 1}, size}, true
}

// SameRepresentation tells whether two responses carry one strong validator, so
// that their bytes may be combined (RFC 9111, 3.4): the same strong entity tag,
// or, where neither has a tag, the same Last-Modified, strong in both. got is
// when each was received.
func SameRepresentation(a, b http.Header, gotA, gotB time.Time) bool {
	if len(a["Etag"]) > 0 || len(b["Etag"]) > 0 {
		return strongEqual(etagOf(a), etagOf(b))
	}
	v, w := ValidatorsOf(a, gotA), ValidatorsOf(b, gotB)
	return v.strongDate() && w.strongDate() && v.LastModified.Equal(w.LastModified)
}

// CombinePartial returns the header of what is stored once a further 206 joined
// it (RFC 9111, 3.4): the new fields, and the stored ones that it lacks. Neither
// Content-Range nor Content-Length is among them, as both depend on what a later
// answer sends. It is false when the two may not be combined: no common strong
// validator, another coding, or another complete size. The sizes are Part.Size,
// or the length of a 200. The inputs are untouched.
func CombinePartial(stored, part http.Header, storedGot, partGot time.Time, storedSize, partSize int64) (http.Header, bool) {
	sameCoding := slices.Equal(Members(stored["Content-Encoding"]), Members(part["Content-Encoding"]))
	sameSize := storedSize == partSize || storedSize < 0 || partSize < 0
	if !sameCoding || !sameSize || !SameRepresentation(stored, part, storedGot, partGot) {
		return nil, false
	}
	combined := EndToEnd(stored)
	// They were of the stored response's own transmission; see Merge.
	delete(combined, "Age")
	delete(combined, "Date")
	for name, lines := range EndToEnd(part) {
		combined[name] = lines
	}
	delete(combined, "Content-Range")
	delete(combined, "Content-Length")
	return combined, true
}

// Union returns the ranges that have and r cover together: sorted, none empty,
// none touching another. have is such a result, or nil; it is not changed.
func Union(have []Range, r Range) []Range {
	all := slices.SortedFunc(slices.Values(append(slices.Clone(have), r)), func(a, b Range) int {
		return compareInt64(a.Start, b.Start)
	})
	var joined []Range
	for _, next := range all {
		last := len(joined) - 1
		switch {
		case next.Length <= 0:
		case last >= 0 && next.Start <= joined[last].end():
			joined[last].Length = max(joined[last].end(), next.end()) - joined[last].Start
		default:
			joined = append(joined, next)
		}
	}
	return joined
}

// Missing returns the parts of want that have, a result of Union, does not
// cover: what a follow-up request asks for. It is empty when want may be answered.
func Missing(have []Range, want Range) []Range {
	var gaps []Range
	at := want.Start
	for _, h := range have {
		if h.end() <= at {
			continue
		}
		if h.Start >= want.end() {
			break
		}
		if h.Start > at {
			gaps = append(gaps, Range{at, h.Start - at})
		}
		at = h.end()
	}
	if at < want.end() {
		gaps = append(gaps, Range{at, want.end() - at})
	}
	return gaps
}
