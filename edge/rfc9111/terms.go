package rfc9111

import (
	"time"
)

// Source names what gave a response its lifetime.
type Source uint8

// The sources of a lifetime, as in explain and in logs.
const (
	SourceNone Source = iota
	SourceSMaxAge
	SourceMaxAge
	SourceExpires
	SourceHeuristic
	SourceCDN
	SourceSurrogate
	SourceTargeted // a targeted field of the operator's own list
	SourceTTL
)

// String returns the name of the field or directive.
func (s Source) String() string {
	names := [...]string{"none", "s-maxage", "max-age", "expires", "heuristic",
		"cdn-cache-control", "surrogate-control", "targeted", "ttl"}
	if int(s) >= len(names) {
		return "none"
	}
	return names[s]
}

// Terms are the conditions under which a stored response may be used. They are
// computed once, when it is stored, and copied by value. The zero value is never
// fresh and never served stale.
type Terms struct {
	Born     time.Time // the corrected initial age is already subtracted (RFC 9111, 4.2.3)
	Lifetime time.Duration

	WhileRevalidate time.Duration // stale-while-revalidate (RFC 5861, 3); 0: none
	IfError         time.Duration // stale-if-error (RFC 5861, 4); 0: none

	Validate            bool // no-cache: validate at each use
	MustRevalidate      bool // never stale without a successful validation
	StaleIfDisconnected bool // may be served stale when the origin cannot be reached
	Immutable           bool // RFC 8246
	Authorized          bool // may answer requests that carry Authorization (RFC 9111, 3.5)
	Source              Source
}

// Age returns how old the response is at now, never negative (RFC 9111, 4.2.3).
func (t Terms) Age(now time.Time) time.Duration {
	return max(0, now.Sub(t.Born))
}

// TTL returns how long the response stays fresh, negative once it is stale.
func (t Terms) TTL(now time.Time) time.Duration {
	return t.Lifetime - t.Age(now)
}

// Fresh tells whether the response may be used at now without asking the origin
// (RFC 9111, 4.2). It is never so when each use must be validated.
func (t Terms) Fresh(now time.Time) bool {
	return !t.Validate && t.Age(now) < t.Lifetime
}

// MayServeStale tells whether now is inside stale-while-revalidate: stale, and
// to be answered at once with one refresh behind (RFC 5861, 3).
func (t Terms) MayServeStale(now time.Time) bool {
	return t.Age(now) >= t.Lifetime && t.insideWindow(now, t.WhileRevalidate)
}

// MayServeOnError tells whether the response may replace what the origin gave:
// an error status, inside stale-if-error (RFC 5861, 4), or with status 0 no
// answer at all, which allows staleness up to maxDisconnected as well (RFC 9111,
// 4.2.4). A status that stale-if-error does not name passes through.
func (t Terms) MayServeOnError(now time.Time, status int, maxDisconnected time.Duration) bool {
	window := t.IfError
	switch status {
	case 0:
		if t.StaleIfDisconnected {
			window = max(window, maxDisconnected)
		}
	case 500, 502, 503, 504:
	default:
		return false
	}
	return t.insideWindow(now, window)
}

// insideWindow subtracts rather than adds: a window may be as long as a
// time.Duration gets.
func (t Terms) insideWindow(now time.Time, window time.Duration) bool {
	if t.Validate {
		return false
	}
	over := t.Age(now) - t.Lifetime
	return over < 0 || !t.MustRevalidate && over < window
}
