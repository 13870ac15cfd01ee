package rfc9111

import (
	"math"
	"net/http"
	"time"

	"github.com/pquerna/cachecontrol/cacheobject"
)

// Directives is what a request asks of caches (RFC 9111, 5.2.1). All of it is
// advice. Durations are -1 when absent or unreadable.
type Directives struct {
	NoStore, NoCache, OnlyIfCached bool
	PragmaNoCache                  bool // Pragma: no-cache without Cache-Control (5.4)
	MaxAge, MinFresh               time.Duration
	MaxStale                       time.Duration // math.MaxInt64: any staleness
}

// RequestDirectives reads Cache-Control and Pragma of a request. It allocates
// nothing when both are absent.
func RequestDirectives(h http.Header) Directives {
	d := Directives{MaxAge: -1, MinFresh: -1, MaxStale: -1}
	lines := h["Cache-Control"]
	if len(lines) == 0 {
		d.PragmaNoCache = pragmaNoCache(h["Pragma"])
		return d
	}
	it := members{lines: lines}
	for m, ok := it.next(); ok; m, ok = it.next() {
		if one, wellFormed := splitDirective(m); wellFormed && !it.torn {
			d.add(one)
		} else if n := tokenLen(m); asciiFold(m[:n], "no-store") {
			d.NoStore = true // restrictive, so it survives whatever follows it
		}
	}
	return d
}

func pragmaNoCache(lines []string) bool {
	it := members{lines: lines}
	for m, ok := it.next(); ok; m, ok = it.next() {
		if asciiFold(m, "no-cache") {
			return true
		}
	}
	return false
}

// add counts one directive, read by the library in isolation. An argument where
// none belongs is ignored; a number that is none makes its directive count as
// absent.
func (d *Directives) add(one directive) {
	text := one.name
	switch one.name {
	case "no-store", "no-cache", "only-if-cached":
	case "max-age", "min-fresh", "max-stale":
		if !one.hasArg && one.name == "max-stale" {
			break
		}
		if !isDigits(one.arg) {
			return
		}
		text += "=" + one.arg
	default:
		return
	}
	read, err := cacheobject.ParseRequestCacheControl(text)
	if err != nil {
		return
	}
	d.NoStore = d.NoStore || read.NoStore
	d.NoCache = d.NoCache || read.NoCache
	d.OnlyIfCached = d.OnlyIfCached || read.OnlyIfCached
	strictest(&d.MaxAge, read.MaxAge, false)
	strictest(&d.MinFresh, read.MinFresh, true)
	strictest(&d.MaxStale, read.MaxStale, false)
	if read.MaxStaleSet && d.MaxStale < 0 {
		d.MaxStale = math.MaxInt64
	}
}

// strictest keeps the more demanding of two values of a repeated directive.
func strictest(have *time.Duration, seconds cacheobject.DeltaSeconds, larger bool) {
	if seconds < 0 {
		return
	}
	d := time.Duration(seconds) * time.Second
	if *have < 0 || (d > *have) == larger {
		*have = d
	}
}

// Satisfied tells whether a stored response is as fresh as the request asks. It is
// for routes that honour what clients ask; by default nodes ignore it. A fresh
// immutable response satisfies no-cache and max-age (RFC 8246, 2).
func (d Directives) Satisfied(t Terms, now time.Time) bool {
	if d.MinFresh >= 0 && t.TTL(now) < d.MinFresh {
		return false
	}
	if t.Immutable && t.Fresh(now) {
		return true
	}
	if d.NoCache || d.PragmaNoCache {
		return false
	}
	return d.MaxAge < 0 || t.Age(now) <= d.MaxAge
}
