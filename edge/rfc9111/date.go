package rfc9111

import (
	"strings"
	"time"
)

// verySeconds is what a number of seconds too large to count stands for (RFC
// 9111, 1.2.2). Twice as much still fits in a time.Duration.
const verySeconds = 1 << 31

// parseSeconds reads a non-negative integer of decimal digits and nothing else,
// saturating at verySeconds.
func parseSeconds(s string) (time.Duration, bool) {
	if !isDigits(s) {
		return 0, false
	}
	n := int64(0)
	for i := 0; i < len(s) && n < verySeconds; i++ {
		n = n*10 + int64(s[i]-'0')
	}
	return time.Duration(min(n, verySeconds)) * time.Second, true
}

// AgeField returns the value of an Age field, saturated at 2^31 seconds: its
// first member over all lines. Anything but decimal digits there makes the
// field count as absent (RFC 9111, 5.1).
func AgeField(lines []string) (time.Duration, bool) {
	it := members{lines: lines}
	first, ok := it.next()
	if !ok {
		return 0, false
	}
	return parseSeconds(first)
}

// ParseDate reads an HTTP-date in any of its three forms and any letter case
// (RFC 9110, 5.6.7). Nothing else is repaired. Two-digit years from 69 on are of
// the 20th century; use ParseDateAt where the time is known.
func ParseDate(s string) (time.Time, bool) {
	d, ok := readDate(s)
	if d.short && d.year < 69 {
		d.year += 100
	}
	if d.short {
		d.year += 1900
	}
	if !ok || !d.valid() {
		return time.Time{}, false
	}
	return d.time(), true
}

// ParseDateAt is ParseDate with the two-digit years of the RFC 850 form read as
// seen from now: the year with these digits that is at most 50 years ahead.
func ParseDateAt(s string, now time.Time) (time.Time, bool) {
	d, ok := readDate(s)
	if d.short {
		limit := now.UTC().AddDate(50, 0, 0)
		d.year += limit.Year() / 100 * 100
		if d.time().After(limit) {
			d.year -= 100
		}
	}
	if !ok || !d.valid() {
		return time.Time{}, false
	}
	return d.time(), true
}

// date is an HTTP-date as written.
type date struct {
	year, month, day     int
	hour, minute, second int
	short                bool // the year has two digits
}

func (d date) time() time.Time {
	return time.Date(d.year, time.Month(d.month), d.day, d.hour, d.minute, d.second, 0, time.UTC)
}

// valid refuses days that the month lacks. A second of 60 is a leap second.
func (d date) valid() bool {
	if d.day < 1 || d.hour > 23 || d.minute > 59 || d.second > 60 {
		return false
	}
	return d.day <= time.Date(d.year, time.Month(d.month)+1, 0, 0, 0, 0, 0, time.UTC).Day()
}

// readDate tells the three forms apart by what follows the weekday.
func readDate(s string) (d date, ok bool) {
	switch comma := strings.IndexByte(s, ','); {
	case comma == 3:
		ok = len(s) == len("Sun, 06 Nov 1994 08:49:37 GMT") && isWeekday(s[:3], false) &&
			s[4] == ' ' && s[7] == ' ' && s[11] == ' ' && s[16] == ' ' &&
			number(s[5:7], &d.day) && month(s[8:11], &d.month) && number(s[12:16], &d.year) &&
			d.clock(s[17:25]) && strings.EqualFold(s[25:], " GMT")
	case comma > 3:
		d.short = true
		weekday, rest := s[:comma], s[comma+1:]
		ok = len(rest) == len(" 06-Nov-94 08:49:37 GMT") && isWeekday(weekday, true) &&
			rest[0] == ' ' && rest[3] == '-' && rest[7] == '-' && rest[10] == ' ' &&
			number(rest[1:3], &d.day) && month(rest[4:7], &d.month) && number(rest[8:10], &d.year) &&
			d.clock(rest[11:19]) && strings.EqualFold(rest[19:], " GMT")
	case len(s) == len("Sun Nov  6 08:49:37 1994"):
		day := s[8:10]
		if day[0] == ' ' {
			day = day[1:]
		}
		ok = isWeekday(s[:3], false) && s[3] == ' ' && s[7] == ' ' && s[10] == ' ' && s[19] == ' ' &&
			month(s[4:7], &d.month) && number(day, &d.day) &&
			d.clock(s[11:19]) && number(s[20:], &d.year)
	}
	return d, ok
}

// clock reads "08:49:37".
func (d *date) clock(s string) bool {
	return s[2] == ':' && s[5] == ':' &&
		number(s[:2], &d.hour) && number(s[3:5], &d.minute) && number(s[6:], &d.second)
}

// number reads up to four decimal digits.
func number(s string, to *int) bool {
	if !isDigits(s) {
		return false
	}
	for i := 0; i < len(s); i++ {
		*to = *to*10 + int(s[i]-'0')
	}
	return true
}

func month(s string, to *int) bool {
	const names = "janfebmaraprmayjunjulaugsepoctnovdec"
	for i := 0; i < len(names); i += 3 {
		if asciiFold(s, names[i:i+3]) {
			*to = i/3 + 1
			return true
		}
	}
	return false
}

func isWeekday(s string, long bool) bool {
	for _, day := range [...]string{"sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"} {
		if long && asciiFold(s, day) || !long && asciiFold(s, day[:3]) {
			return true
		}
	}
	return false
}

// asciiFold compares s with a lower-case word. strings.EqualFold would also let
// U+017F pass for an s.
func asciiFold(s, lower string) bool {
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
