package rfc9111

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// noon is when the tests receive their responses.
var noon = time.Date(2026, time.March, 10, 12, 0, 0, 0, time.UTC)

// header makes a header of "Name: value" lines.
func header(lines ...string) http.Header {
	h := http.Header{}
	for _, l := range lines {
		name, value, ok := strings.Cut(l, ":")
		if !ok {
			panic("header line without a colon: " + l)
		}
		h.Add(name, strings.TrimPrefix(value, " "))
	}
	return h
}

// dated is an HTTP-date at noon plus d.
func dated(d time.Duration) string { return noon.Add(d).Format(http.TimeFormat) }

func noAllocs(t *testing.T, what string, f func()) {
	t.Helper()
	if n := testing.AllocsPerRun(100, f); n != 0 {
		t.Errorf("%s: got %v allocations, want 0", what, n)
	}
}

// splitLines makes field lines of a text with newlines between them.
func splitLines(text string) []string { return strings.Split(text, "\n") }
