package rfc9111

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// maxRanges bounds the parts of one answer (RFC 9110, 14.2 and 17.15).
const maxRanges = 16

// Range is a run of bytes of a representation.
type Range struct{ Start, Length int64 }

// end returns the offset behind the range.
func (r Range) end() int64 { return r.Start + r.Length }

// RangeAnswer says how to answer a request with regard to its Range field.
type RangeAnswer uint8

// The answers.
const (
	RangeIgnore        RangeAnswer = iota // 200, as if there were no Range
	RangePartial                          // 206 with these ranges
	RangeUnsatisfiable                    // 416
)

// Ranges reads the Range field of a request for a representation of size bytes
// (RFC 9110, 14.2). The ranges are within size, none empty, in the order asked.
// Anything but a GET, a unit other than bytes, bad syntax, more than 16 ranges,
// overlapping ones, and an unknown size (below 0) leave the field without effect.
func Ranges(method string, req http.Header, size int64) ([]Range, RangeAnswer) {
	lines := req["Range"]
	if method != http.MethodGet || len(lines) != 1 || size < 0 {
		return nil, RangeIgnore
	}
	unit, set, ok := strings.Cut(trimOWS(lines[0]), "=")
	if !ok || !asciiFold(unit, "bytes") {
		return nil, RangeIgnore
	}
	var ranges []Range
	asked := 0
	it := members{rest: set}
	for m, ok := it.next(); ok; m, ok = it.next() {
		r, ok := readRange(m, size)
		if asked++; !ok || asked > maxRanges {
			return nil, RangeIgnore
		}
		if r.Length > 0 {
			ranges = append(ranges, r)
		}
	}
	switch {
	case asked == 0 || overlapping(ranges):
		return nil, RangeIgnore
	case len(ranges) == 0:
		return nil, RangeUnsatisfiable
	}
	return ranges, RangePartial
}

// readRange reads `a-b`, `a-` or `-n`. A range that no byte satisfies is empty.
func readRange(s string, size int64) (r Range, ok bool) {
	from, to, ok := strings.Cut(s, "-")
	if !ok {
		return r, false
	}
	first, hasFirst := parseOffset(from)
	last, hasLast := parseOffset(to)
	if from != "" && !hasFirst || to != "" && !hasLast {
		return r, false
	}
	switch {
	case !hasFirst && !hasLast, hasFirst && hasLast && last < first:
		return r, false
	case !hasFirst && size == 0 && last > 0:
		// Satisfiable by definition, but no Content-Range can say it.
		return r, false
	case !hasFirst:
		n := min(last, size)
		return Range{size - n, n}, true
	case first >= size:
		return r, true
	case !hasLast || last >= size:
		last = size - 1
	}
	return Range{first, last - first + 1}, true
}

// parseOffset reads decimal digits, saturating at the largest int64.
func parseOffset(s string) (int64, bool) {
	if !isDigits(s) {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		n = 1<<63 - 1
	}
	return n, true
}

func overlapping(ranges []Range) bool {
	if len(ranges) < 2 {
		return false
	}
	sorted := slices.SortedFunc(slices.Values(ranges), func(a, b Range) int {
		return compareInt64(a.Start, b.Start)
	})
	for i := 1; i < len(sorted); i++ {
		if sorted[i].Start < sorted[i-1].end() {
			return true
		}
	}
	return false
}

func compareInt64(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// IfRange tells whether the Range field is to be honoured: If-Range is absent or
// names the stored response by strong comparison (RFC 9110, 13.1.5).
func IfRange(req http.Header, v Validators) bool {
	lines := req["If-Range"]
	if len(lines) == 0 {
		return true
	}
	value := trimOWS(lines[0])
	if len(lines) > 1 {
		return false
	}
	if isTag(value) {
		return strongEqual(v.ETag, value)
	}
	t, ok := ParseDateAt(value, v.Date)
	return ok && v.strongDate() && t.Equal(v.LastModified)
}

// ParseContentRange reads `bytes 0-4/10` (RFC 9110, 14.4): the first and last
// offset, and the complete size, -1 where it is `*`. The form of a 416,
// `bytes */10`, holds no range and is not ok.
func ParseContentRange(s string) (start, end, size int64, ok bool) {
	unit, rest, ok := strings.Cut(trimOWS(s), " ")
	if !ok || !asciiFold(unit, "bytes") {
		return 0, 0, 0, false
	}
	span, complete, ok := strings.Cut(rest, "/")
	if !ok {
		return 0, 0, 0, false
	}
	first, last, ok := strings.Cut(span, "-")
	if !ok || !exactOffset(first, &start) || !exactOffset(last, &end) || end < start {
		return 0, 0, 0, false
	}
	if complete == "*" {
		return start, end, -1, true
	}
	if !exactOffset(complete, &size) || end >= size {
		return 0, 0, 0, false
	}
	return start, end, size, true
}

// exactOffset reads an offset of a message's own framing: one too large to
// count is refused, as bytes may not be put where they do not belong.
func exactOffset(s string, to *int64) bool {
	n, err := strconv.ParseInt(s, 10, 64)
	*to = n
	return isDigits(s) && err == nil
}

// ContentRange returns the value for one part, with `*` for a size below 0.
func ContentRange(r Range, size int64) string {
	complete := "*"
	if size >= 0 {
		complete = strconv.FormatInt(size, 10)
	}
	return "bytes " + strconv.FormatInt(r.Start, 10) + "-" + strconv.FormatInt(r.end()-1, 10) + "/" + complete
}

// UnsatisfiedRange returns the Content-Range of a 416.
func UnsatisfiedRange(size int64) string {
	return "bytes */" + strconv.FormatInt(size, 10)
}
