package rfc9111

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestRanges(t *testing.T) {
	many := func(n int) string {
		var parts []string
		for i := range n {
			at := string(rune('0'+i/10)) + string(rune('0'+i%10))
			parts = append(parts, at+"-"+at)
		}
		return "Range: bytes=" + strings.Join(parts, ",")
	}
	for _, test := range []struct {
		name   string
		method string
		line   string
		size   int64
		want   []Range
		answer RangeAnswer
	}{
		{"§8 none", "GET", "X: y", 100, nil, RangeIgnore},
		{"§8 a-b", "GET", "Range: bytes=0-4", 100, []Range{{0, 5}}, RangePartial},
		{"§8 one byte", "GET", "Range: bytes=99-99", 100, []Range{{99, 1}}, RangePartial},
		{"§8 b beyond the end", "GET", "Range: bytes=90-200", 100, []Range{{90, 10}}, RangePartial},
		{"§8 a-", "GET", "Range: bytes=40-", 100, []Range{{40, 60}}, RangePartial},
		{"§8 suffix", "GET", "Range: bytes=-10", 100, []Range{{90, 10}}, RangePartial},
		{"§8 suffix longer than all", "GET", "Range: bytes=-200", 100, []Range{{0, 100}}, RangePartial},
		{"§8 several, in the order asked", "GET", "Range: bytes=50-59, 0-9 ,-10", 100, []Range{{50, 10}, {0, 10}, {90, 10}}, RangePartial},
		{"§8 unit in any letter case", "GET", "Range: Bytes=0-4", 100, []Range{{0, 5}}, RangePartial},
		{"§8 unsatisfiable ones are left out", "GET", "Range: bytes=0-4,200-300", 100, []Range{{0, 5}}, RangePartial},
		{"§8 unsatisfiable", "GET", "Range: bytes=100-", 100, nil, RangeUnsatisfiable},
		{"§8 unsatisfiable: the last 0", "GET", "Range: bytes=-0", 100, nil, RangeUnsatisfiable},
		{"§8 unsatisfiable: nothing there", "GET", "Range: bytes=0-", 0, nil, RangeUnsatisfiable},
		{"§8 unsatisfiable: the last 0 of nothing", "GET", "Range: bytes=-0", 0, nil, RangeUnsatisfiable},
		{"§8 the end of nothing", "GET", "Range: bytes=-5", 0, nil, RangeIgnore},
		{"§8 saturates", "GET", "Range: bytes=5-99999999999999999999", 100, []Range{{5, 95}}, RangePartial},
		{"§8 saturates, suffix", "GET", "Range: bytes=-99999999999999999999", 100, []Range{{0, 100}}, RangePartial},
		{"§8 saturates, first", "GET", "Range: bytes=99999999999999999999-", 100, nil, RangeUnsatisfiable},
		{"§8 HEAD", "HEAD", "Range: bytes=0-4", 100, nil, RangeIgnore},
		{"§8 POST", "POST", "Range: bytes=0-4", 100, nil, RangeIgnore},
		{"§8 unknown unit", "GET", "Range: lines=0-4", 100, nil, RangeIgnore},
		{"§8 no unit", "GET", "Range: 0-4", 100, nil, RangeIgnore},
		{"§8 space before =", "GET", "Range: bytes =0-4", 100, nil, RangeIgnore},
		{"§8 b before a", "GET", "Range: bytes=4-0", 100, nil, RangeIgnore},
		{"§8 no number", "GET", "Range: bytes=-", 100, nil, RangeIgnore},
		{"§8 no dash", "GET", "Range: bytes=5", 100, nil, RangeIgnore},
		{"§8 empty", "GET", "Range: bytes=", 100, nil, RangeIgnore},
		{"§8 letters", "GET", "Range: bytes=a-b", 100, nil, RangeIgnore},
		{"§8 sign", "GET", "Range: bytes=+1-4", 100, nil, RangeIgnore},
		{"§8 space in it", "GET", "Range: bytes=1 -4", 100, nil, RangeIgnore},
		{"§8 one bad among good", "GET", "Range: bytes=0-4,x", 100, nil, RangeIgnore},
		{"§8 quotes", "GET", `Range: bytes="0-4"`, 100, nil, RangeIgnore},
		{"§8 16", "GET", many(16), 100, seventeen()[:16], RangePartial},
		{"§8 17", "GET", many(17), 100, nil, RangeIgnore},
		{"§8 17 with one unsatisfiable", "GET", many(16) + ",200-", 100, nil, RangeIgnore},
		{"§8 overlapping", "GET", "Range: bytes=0-9,9-20", 100, nil, RangeIgnore},
		{"§8 overlapping, in disorder", "GET", "Range: bytes=50-,0-9,-10", 100, nil, RangeIgnore},
		{"§8 touching", "GET", "Range: bytes=0-9,10-20", 100, []Range{{0, 10}, {10, 11}}, RangePartial},
		{"§8 size unknown", "GET", "Range: bytes=0-4", -1, nil, RangeIgnore},
	} {
		got, answer := Ranges(test.method, header(test.line), test.size)
		if answer != test.answer || !slices.Equal(got, test.want) {
			t.Errorf("%s: %s %s of %d: got %v, %v, want %v, %v", test.name, test.method, test.line, test.size, got, answer, test.want, test.answer)
		}
	}
	if got, answer := Ranges("GET", header("Range: bytes=0-4", "Range: bytes=0-4"), 100); answer != RangeIgnore {
		t.Errorf("§8 two lines: got %v, %v, want it ignored", got, answer)
	}
}

// seventeen are the single bytes 0 to 16.
func seventeen() []Range {
	var all []Range
	for i := range int64(17) {
		all = append(all, Range{i, 1})
	}
	return all
}

func TestIfRange(t *testing.T) {
	second := "Last-Modified: " + dated(-time.Second)
	for _, test := range []struct {
		name   string
		stored []string
		req    []string
		want   bool
	}{
		{"§8 none", []string{tagged}, nil, true},
		{"§8 strong tag", []string{tagged}, []string{`If-Range: "a"`}, true},
		{"§8 another tag", []string{tagged}, []string{`If-Range: "b"`}, false},
		{"§8 weak tag of the client", []string{tagged}, []string{`If-Range: W/"a"`}, false},
		{"§8 weak tags on both sides", []string{`ETag: W/"a"`}, []string{`If-Range: W/"a"`}, false},
		{"§8 weak tag stored", []string{`ETag: W/"a"`}, []string{`If-Range: "a"`}, false},
		{"§8 no tag stored", []string{modified}, []string{`If-Range: "a"`}, false},
		{"§8 malformed", []string{tagged}, []string{"If-Range: a"}, false},
		{"§8 a list", []string{tagged}, []string{`If-Range: "a", "b"`}, false},
		{"§8 two lines", []string{tagged}, []string{`If-Range: "a"`, `If-Range: "a"`}, false},
		{"§8 the same date", []string{modified}, []string{"If-Range: Mon, 09 Mar 2026 12:00:00 GMT"}, true},
		{"§8 a later date", []string{modified}, []string{"If-Range: " + dated(0)}, false},
		{"§8 a date a second before it was sent", []string{second}, []string{"If-Range: " + dated(-time.Second)}, true},
		{"§8 a date of the second it was sent", []string{"Last-Modified: " + dated(0)}, []string{"If-Range: " + dated(0)}, false},
		{"§8 a date where none is stored", []string{tagged}, []string{"If-Range: " + dated(0)}, false},
	} {
		v := ValidatorsOf(header(append(test.stored, "Date: "+dated(0))...), noon)
		if got := IfRange(header(test.req...), v); got != test.want {
			t.Errorf("%s: %q against %+v: got %v, want %v", test.name, test.req, v, got, test.want)
		}
	}
}

func TestContentRange(t *testing.T) {
	for _, test := range []struct {
		name, in         string
		start, end, size int64
		ok               bool
	}{
		{"§8 plain", "bytes 0-4/10", 0, 4, 10, true},
		{"§8 whole", "bytes 0-9/10", 0, 9, 10, true},
		{"§8 unknown size", "bytes 5-9/*", 5, 9, -1, true},
		{"§8 unit in any letter case", "Bytes 0-4/10", 0, 4, 10, true},
		{"§8 unsatisfied", "bytes */10", 0, 0, 0, false},
		{"§8 beyond the size", "bytes 0-10/10", 0, 0, 0, false},
		{"§8 backwards", "bytes 4-0/10", 0, 0, 0, false},
		{"§8 other unit", "lines 0-4/10", 0, 0, 0, false},
		{"§8 two spaces", "bytes  0-4/10", 0, 0, 0, false},
		{"§8 =", "bytes=0-4/10", 0, 0, 0, false},
		{"§8 no size", "bytes 0-4", 0, 0, 0, false},
		{"§8 empty size", "bytes 0-4/", 0, 0, 0, false},
		{"§8 sign", "bytes +0-4/10", 0, 0, 0, false},
		{"§8 too large to count", "bytes 0-99999999999999999999/*", 0, 0, 0, false},
		{"§8 two", "bytes 0-4/10, 5-6/10", 0, 0, 0, false},
		{"§8 empty", "", 0, 0, 0, false},
	} {
		start, end, size, ok := ParseContentRange(test.in)
		if start != test.start || end != test.end || size != test.size || ok != test.ok {
			t.Errorf("%s: %q: got %d-%d/%d, %v, want %d-%d/%d, %v", test.name, test.in, start, end, size, ok,
				test.start, test.end, test.size, test.ok)
		}
	}
	for want, got := range map[string]string{
		"bytes 5-9/20": ContentRange(Range{5, 5}, 20), "bytes 5-9/*": ContentRange(Range{5, 5}, -1), "bytes */20": UnsatisfiedRange(20),
	} {
		if got != want {
			t.Errorf("§8 got %q, want %q", got, want)
		}
	}
}

func TestPartOf(t *testing.T) {
	for _, test := range []struct {
		name   string
		lines  []string
		length int64
		want   Part
		ok     bool
	}{
		{"§8 agrees", []string{"Content-Range: bytes 5-9/20"}, 5, Part{Range{5, 5}, 20}, true},
		{"§8 length unknown", []string{"Content-Range: bytes 5-9/*"}, -1, Part{Range{5, 5}, -1}, true},
		{"§8 too short", []string{"Content-Range: bytes 5-9/20"}, 4, Part{}, false},
		{"§8 too long", []string{"Content-Range: bytes 5-9/20"}, 6, Part{}, false},
		{"§8 none", nil, 5, Part{}, false},
		{"§8 two", []string{"Content-Range: bytes 5-9/20", "Content-Range: bytes 5-9/20"}, 5, Part{}, false},
		{"§8 malformed", []string{"Content-Range: bytes 5-9"}, 5, Part{}, false},
		{"§8 multipart", []string{"Content-Range: bytes 5-9/20", "Content-Type: Multipart/Byteranges; boundary=x"}, 5, Part{}, false},
		{"§8 an end that overflows", []string{"Content-Range: bytes 1-9223372036854775807/*"}, -1, Part{}, false},
		{"§8 an end that overflows, of known length", []string{"Content-Range: bytes 9223372036854775807-9223372036854775807/*"}, 1, Part{}, false},
		{"§8 the largest end", []string{"Content-Range: bytes 1-9223372036854775806/*"}, -1, Part{Range{1, 1<<63 - 2}, -1}, true},
		{"§8 longer than a length can be", []string{"Content-Range: bytes 0-9223372036854775807/*"}, -1, Part{}, false},
	} {
		if got, ok := PartOf(header(test.lines...), test.length); got != test.want || ok != test.ok {
			t.Errorf("%s: %q with %d bytes: got %v, %v, want %v, %v", test.name, test.lines, test.length, got, ok, test.want, test.ok)
		}
	}
}

func TestCombinePartial(t *testing.T) {
	date := "Date: " + dated(0)
	for _, test := range []struct {
		name         string
		stored, part []string
		sizes        [2]int64
		want         bool
	}{
		{"§8 one strong tag", []string{tagged}, []string{tagged}, [2]int64{20, 20}, true},
		{"§8 another tag", []string{tagged}, []string{`ETag: "b"`}, [2]int64{20, 20}, false},
		{"§8 weak tags", []string{`ETag: W/"a"`}, []string{`ETag: W/"a"`}, [2]int64{20, 20}, false},
		{"§8 a tag on one side, dates on both", []string{modified, date}, []string{tagged, modified, date}, [2]int64{20, 20}, false},
		{"§8 strong dates", []string{modified, date}, []string{modified, date}, [2]int64{20, 20}, true},
		{"§8 other dates", []string{modified, date}, []string{"Last-Modified: " + dated(-time.Hour), date}, [2]int64{20, 20}, false},
		{"§8 weak dates", []string{"Last-Modified: " + dated(0), date}, []string{"Last-Modified: " + dated(0), date}, [2]int64{20, 20}, false},
		{"§8 no validator", nil, nil, [2]int64{20, 20}, false},
		{"§8 another size", []string{tagged}, []string{tagged}, [2]int64{20, 21}, false},
		{"§8 size unknown on one side", []string{tagged}, []string{tagged}, [2]int64{-1, 21}, true},
		{"§8 another coding", []string{tagged, "Content-Encoding: gzip"}, []string{tagged}, [2]int64{20, 20}, false},
	} {
		_, ok := CombinePartial(header(test.stored...), header(test.part...), noon, noon, test.sizes[0], test.sizes[1])
		if ok != test.want {
			t.Errorf("%s: %q and %q of %v: got %v, want %v", test.name, test.stored, test.part, test.sizes, ok, test.want)
		}
	}
}

func TestCombinedFields(t *testing.T) {
	stored := header(tagged, "X-Stored: 1", "X-Both: 1", "Content-Range: bytes 0-4/20", "Content-Length: 5", "Age: 9", "Date: x")
	part := header(tagged, "X-Part: 2", "X-Both: 2", "Content-Range: bytes 5-9/20", "Content-Length: 5", "Connection: X-Hop", "X-Hop: 1")
	got, ok := CombinePartial(stored, part, noon, noon, 20, 20)
	want := header(tagged, "X-Stored: 1", "X-Both: 2", "X-Part: 2")
	if !ok || len(got) != len(want) {
		t.Fatalf("§8 got %v, %v, want %v", got, ok, want)
	}
	for name := range want {
		if !slices.Equal(got[name], want[name]) {
			t.Errorf("§8 %s: got %q, want %q", name, got[name], want[name])
		}
	}
	got["X-Stored"][0] = "changed"
	if stored.Get("X-Stored") != "1" || http.Header(part).Get("X-Hop") != "1" {
		t.Error("§8 the inputs changed")
	}
}

func TestUnionAndMissing(t *testing.T) {
	for _, test := range []struct {
		name    string
		have    []Range
		add     Range
		union   []Range
		want    Range
		missing []Range
	}{
		{"§8 first", nil, Range{5, 5}, []Range{{5, 5}}, Range{0, 20}, []Range{{0, 5}, {10, 10}}},
		{"§8 touching joins", []Range{{0, 5}}, Range{5, 5}, []Range{{0, 10}}, Range{2, 3}, nil},
		{"§8 joined away from the start", []Range{{5, 5}}, Range{10, 5}, []Range{{5, 10}}, Range{5, 11}, []Range{{15, 1}}},
		{"§8 a hole stays", []Range{{0, 5}}, Range{10, 5}, []Range{{0, 5}, {10, 5}}, Range{3, 9}, []Range{{5, 5}}},
		{"§8 bridging", []Range{{0, 5}, {10, 5}}, Range{4, 7}, []Range{{0, 15}}, Range{0, 16}, []Range{{15, 1}}},
		{"§8 one byte", []Range{{0, 1}}, Range{2, 1}, []Range{{0, 1}, {2, 1}}, Range{0, 3}, []Range{{1, 1}}},
		{"§8 inside", []Range{{0, 20}}, Range{5, 5}, []Range{{0, 20}}, Range{0, 20}, nil},
		{"§8 before", []Range{{10, 5}}, Range{0, 5}, []Range{{0, 5}, {10, 5}}, Range{20, 5}, []Range{{20, 5}}},
		{"§8 nothing", []Range{{10, 5}}, Range{0, 0}, []Range{{10, 5}}, Range{0, 0}, nil},
	} {
		before := slices.Clone(test.have)
		got := Union(test.have, test.add)
		if !slices.Equal(got, test.union) || !slices.Equal(test.have, before) {
			t.Errorf("%s: Union(%v, %v): got %v, want %v", test.name, before, test.add, got, test.union)
		}
		if gaps := Missing(got, test.want); !slices.Equal(gaps, test.missing) {
			t.Errorf("%s: Missing(%v, %v): got %v, want %v", test.name, got, test.want, gaps, test.missing)
		}
	}
}
