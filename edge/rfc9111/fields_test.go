package rfc9111

import (
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMembersKnowQuotedStringsAndRepeatedLines(t *testing.T) {
	for _, test := range []struct {
		name  string
		lines []string
		want  []string
	}{
		{"§1 none", nil, nil},
		{"§1 several lines are one list", []string{"a, b", "c"}, []string{"a", "b", "c"}},
		{"§1 empty members are skipped", []string{", a,, ,b,", "", " \t "}, []string{"a", "b"}},
		{"§1 a comma in a quoted string parts nothing", []string{`a="x, y", b`}, []string{`a="x, y"`, "b"}},
		{"§1 an escaped quote does not close", []string{`a="x\", y", b`}, []string{`a="x\", y"`, "b"}},
		{"§1 an escaped backslash does", []string{`a="x\\", y`}, []string{`a="x\\"`, "y"}},
		{"§1 an unclosed quote hides nothing", []string{`a="x, y`}, []string{`a="x`, "y"}},
		{"§1 a quote does not reach the next line", []string{`a="x`, `y, b="`}, []string{`a="x`, "y", `b="`}},
		{"§1 white space is spaces and tabs", []string{"\t a b \t,\u00a0c"}, []string{"a b", "\u00a0c"}},
	} {
		if got := Members(test.lines); !slices.Equal(got, test.want) {
			t.Errorf("%s: %q: got %q, want %q", test.name, test.lines, got, test.want)
		}
	}
}

func TestHopByHopFieldsAreRemoved(t *testing.T) {
	all := []string{"Connection: X-One, close", "Connection: x-two", "Keep-Alive: 5", "Proxy-Connection: x",
		"Proxy-Authenticate: x", "Proxy-Authentication-Info: x", "Proxy-Authorization: x", "TE: trailers",
		"Trailer: X", "Transfer-Encoding: chunked", "Upgrade: h2c", "X-One: 1", "X-Two: 2", "Close: 3"}
	kept := []string{"Cache-Control: no-store", "Set-Cookie: a=1", "Set-Cookie: b=2", "Content-Range: bytes 0-1/2",
		"Content-Security-Policy: x", "X-Unknown: y", "Age: 5",
		"CDN-Cache-Control: max-age=1", "Expires: 0", "Date: x"}
	want := header(kept...)

	t.Run("§2 EndToEnd keeps every other field unchanged", func(t *testing.T) {
		in := header(append(slices.Clone(all), kept...)...)
		got := EndToEnd(in)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		if len(in) != 13+9 {
			t.Errorf("the input has %d fields left: %v", len(in), in)
		}
		got["Set-Cookie"][0] = "changed"
		if in["Set-Cookie"][0] != "a=1" {
			t.Error("the copy shares its values with the input")
		}
	})
	t.Run("§2 RemoveHopByHop in place", func(t *testing.T) {
		h := header(append(slices.Clone(all), kept...)...)
		h["x-two"] = []string{"in lower case"}
		RemoveHopByHop(h)
		if !reflect.DeepEqual(h, want) {
			t.Errorf("got %v, want %v", h, want)
		}
	})
	t.Run("§2 appending to one value does not reach the next", func(t *testing.T) {
		h := EndToEnd(header("A: 1", "B: 2"))
		h.Add("A", "3")
		if h.Get("B") != "2" {
			t.Errorf("got B: %q, want 2", h.Get("B"))
		}
	})
	t.Run("§2 names become canonical and join", func(t *testing.T) {
		got := EndToEnd(http.Header{"X-A": {"1"}, "x-a": {"2"}, "x-b": {"3"}})
		want := http.Header{"X-A": {"1", "2"}, "X-B": {"3"}}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
	t.Run("§2 trailers and pseudo fields are no header fields", func(t *testing.T) {
		got := EndToEnd(http.Header{http.TrailerPrefix + "X": {"1"}, ":status": {"200"}, "A b": {"1"}})
		if len(got) != 0 {
			t.Errorf("got %v, want none", got)
		}
	})
}

func TestDates(t *testing.T) {
	want := time.Date(1994, time.November, 6, 8, 49, 37, 0, time.UTC)
	for _, test := range []struct {
		name, in string
		want     time.Time // zero: refused
	}{
		{"§3 IMF-fixdate", "Sun, 06 Nov 1994 08:49:37 GMT", want},
		{"§3 RFC 850", "Sunday, 06-Nov-94 08:49:37 GMT", want},
		{"§3 asctime", "Sun Nov  6 08:49:37 1994", want},
		{"§3 asctime with two digits", "Wed Nov 16 08:49:37 1994", want.AddDate(0, 0, 10)},
		{"§3 after 2038", "Sun, 06 Nov 2286 08:49:37 GMT", time.Date(2286, 11, 6, 8, 49, 37, 0, time.UTC)},
		{"§3 any letter case: weekday", "SUN, 06 Nov 1994 08:49:37 GMT", want},
		{"§3 any letter case: month", "Sun, 06 nOV 1994 08:49:37 GMT", want},
		{"§3 any letter case: zone", "Sun, 06 Nov 1994 08:49:37 gMT", want},
		{"§3 any letter case: RFC 850", "sUNDAY, 06-nov-94 08:49:37 gmt", want},
		{"§3 leap second", "Sun, 06 Nov 1994 08:49:60 GMT", want.Add(23 * time.Second)},
		{"§3 leap day", "Thu, 29 Feb 2024 08:49:37 GMT", time.Date(2024, 2, 29, 8, 49, 37, 0, time.UTC)},
		{"§3 zone UTC", "Sun, 06 Nov 1994 08:49:37 UTC", time.Time{}},
		{"§3 zone AEST", "Sun, 06 Nov 1994 08:49:37 AEST", time.Time{}},
		{"§3 numeric zone", "Sun, 06 Nov 1994 08:49:37 +0000", time.Time{}},
		{"§3 no zone", "Sun, 06 Nov 1994 08:49:37", time.Time{}},
		{"§3 two-digit year in IMF form", "Sun, 06 Nov 94 08:49:37 GMT", time.Time{}},
		{"§3 missing comma", "Sun 06 Nov 1994 08:49:37 GMT", time.Time{}},
		{"§3 doubled spaces", "Sun, 06  Nov 1994 08:49:37 GMT", time.Time{}},
		{"§3 doubled space with the same length", "Sun,  6 Nov 1994 08:49:37 GMT", time.Time{}},
		{"§3 dashes", "Sun, 06-Nov-1994 08:49:37 GMT", time.Time{}},
		{"§3 dots in the time", "Sun, 06 Nov 1994 08.49.37 GMT", time.Time{}},
		{"§3 one-digit hour", "Sun, 06 Nov 1994 8:49:37 GMT", time.Time{}},
		{"§3 space for an hour digit", "Sun, 06 Nov 1994  8:49:37 GMT", time.Time{}},
		{"§3 four-digit year in RFC 850 form", "Sunday, 06-Nov-1994 08:49:37 GMT", time.Time{}},
		{"§3 hour 24", "Sun, 06 Nov 1994 24:00:00 GMT", time.Time{}},
		{"§3 minute 60", "Sun, 06 Nov 1994 08:60:37 GMT", time.Time{}},
		{"§3 second 61", "Sun, 06 Nov 1994 08:49:61 GMT", time.Time{}},
		{"§3 day 0", "Sun, 00 Nov 1994 08:49:37 GMT", time.Time{}},
		{"§3 31 November", "Sun, 31 Nov 1994 08:49:37 GMT", time.Time{}},
		{"§3 29 February of a common year", "Sun, 29 Feb 2023 08:49:37 GMT", time.Time{}},
		{"§3 no such weekday", "Sum, 06 Nov 1994 08:49:37 GMT", time.Time{}},
		{"§3 letters that fold to ASCII", "\u017fun, 06 Nov 1994 08:49:37 GMT", time.Time{}},
		{"§3 zero", "0", time.Time{}},
		{"§3 empty", "", time.Time{}},
		{"§3 text behind", "Sun, 06 Nov 1994 08:49:37 GMT;", time.Time{}},
	} {
		got, ok := ParseDateAt(test.in, noon)
		if ok == test.want.IsZero() || !got.Equal(test.want) {
			t.Errorf("%s: ParseDateAt(%q): got %v, %v, want %v", test.name, test.in, got, ok, test.want)
		}
		if plain, plainOK := ParseDate(test.in); plainOK != ok || !plain.Equal(got) {
			t.Errorf("%s: ParseDate(%q): got %v, %v, want %v, %v", test.name, test.in, plain, plainOK, got, ok)
		}
	}
}

func TestTwoDigitYearsPivotFiftyYearsAhead(t *testing.T) {
	for _, test := range []struct {
		now      string
		in       string
		wantYear int
	}{
		{"2026-03-10", "Sunday, 06-Nov-94 08:49:37 GMT", 1994},
		{"2026-03-10", "Sunday, 06-Nov-75 08:49:37 GMT", 2075},
		{"2026-03-10", "Sunday, 01-Mar-76 08:49:37 GMT", 2076},
		{"2026-03-10", "Sunday, 06-Nov-76 08:49:37 GMT", 1976},
		{"2026-03-10", "Sunday, 06-Nov-00 08:49:37 GMT", 2000},
		{"2060-03-10", "Sunday, 06-Nov-05 08:49:37 GMT", 2105},
		{"2060-03-10", "Sunday, 06-Nov-11 08:49:37 GMT", 2011},
	} {
		now, err := time.Parse(time.DateOnly, test.now)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := ParseDateAt(test.in, now); !ok || got.Year() != test.wantYear {
			t.Errorf("§3 %q at %s: got %v, %v, want year %d", test.in, test.now, got, ok, test.wantYear)
		}
	}
}

func TestAgeField(t *testing.T) {
	const very = verySeconds * time.Second
	for _, test := range []struct {
		name  string
		lines []string
		want  time.Duration // below 0: ignored
	}{
		{"§3 absent", nil, -1},
		{"§3 integer", []string{"7200"}, 2 * time.Hour},
		{"§3 zero", []string{"0"}, 0},
		{"§1 leading zeros", []string{"007"}, 7 * time.Second},
		{"§3 letters", []string{"abc"}, -1},
		{"§3 letters behind", []string{"7200a"}, -1},
		{"§3 sign", []string{"-1"}, -1},
		{"§3 plus", []string{"+1"}, -1},
		{"§3 decimals", []string{"1.5"}, -1},
		{"§3 parameters", []string{"7200;a=b"}, -1},
		{"§3 quoted", []string{`"7200"`}, -1},
		{"§3 first of a list", []string{"7200, 0"}, 2 * time.Hour},
		{"§3 first of repeated lines", []string{"0", "7200"}, 0},
		{"§3 first that is not empty", []string{"", ", 5"}, 5 * time.Second},
		{"§3 an unreadable first member is not passed over", []string{"x, 5"}, -1},
		{"§1 saturates at 2^31-1", []string{"2147483647"}, very - time.Second},
		{"§1 saturates at 2^31", []string{"2147483648"}, very},
		{"§1 saturates at 2^31+1", []string{"2147483649"}, very},
		{"§1 saturates beyond 64 bits", []string{strings.Repeat("9", 100)}, very},
	} {
		got, ok := AgeField(test.lines)
		if ok != (test.want >= 0) || ok && got != test.want {
			t.Errorf("%s: %q: got %v, %v, want %v", test.name, test.lines, got, ok, test.want)
		}
	}
}

func TestTokenBytes(t *testing.T) {
	const all = "!#$%&'*+-.0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ^_`abcdefghijklmnopqrstuvwxyz|~" // RFC 9110, 5.6.2
	for c := range 256 {
		if got, want := isTokenByte(byte(c)), strings.IndexByte(all, byte(c)) >= 0; got != want {
			t.Errorf("§1 %#x: got %v, want %v", c, got, want)
		}
	}
}

func TestTwoDigitYearsWithoutATime(t *testing.T) {
	for in, want := range map[string]int{"Sunday, 06-Nov-69 08:49:37 GMT": 1969, "Sunday, 06-Nov-68 08:49:37 GMT": 2068} {
		if got, ok := ParseDate(in); !ok || got.Year() != want {
			t.Errorf("§3 %q: got %v, %v, want year %d", in, got, ok, want)
		}
	}
}
