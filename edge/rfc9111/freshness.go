package rfc9111

import (
	"math"
	"net/http"
	"time"
)

// chooseLifetime takes the first source of RFC 9111, 4.2.1 that is present,
// readable or not, and lets the operator's TTL replace it.
func (j *judgement) chooseLifetime() {
	c := &j.control
	switch {
	case c.sMaxAge.set:
		j.lifetime, j.source, j.stated = c.sMaxAge.value, SourceSMaxAge, true
	case c.maxAge.set:
		j.lifetime, j.source, j.stated = c.maxAge.value, SourceMaxAge, true
	case j.from == SourceNone && len(j.header["Expires"]) > 0:
		j.lifetime, j.source, j.stated = j.untilExpires(), SourceExpires, true
	}
	if j.stated && j.from != SourceNone {
		j.source = j.from
	}
	if j.ttlApplies() {
		j.lifetime, j.source = j.options.TTL, SourceTTL
		return
	}
	if !j.stated {
		if d := j.heuristic(); d > 0 {
			j.lifetime, j.source = d, SourceHeuristic
		}
	}
}

// untilExpires counts from Date, as Expires is in the origin's time. A repeated
// or unreadable field is in the past.
func (j *judgement) untilExpires() time.Duration {
	lines := j.header["Expires"]
	if len(lines) != 1 {
		return 0
	}
	t, ok := ParseDateAt(trimOWS(lines[0]), j.got)
	if !ok {
		return 0
	}
	return min(max(0, t.Sub(j.date)), verySeconds*time.Second)
}

func (j *judgement) ttlApplies() bool {
	if j.options.TTL <= 0 || j.control.noCache {
		return false
	}
	return j.stated && j.lifetime > 0 || j.options.TTLAnyStatus || heuristicStatus(j.status) ||
		j.status == http.StatusFound || j.status == http.StatusTemporaryRedirect
}

// heuristicStatus lists the statuses that caches may give a lifetime by guess.
func heuristicStatus(status int) bool {
	switch status {
	case 200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501:
		return true
	}
	return false
}

// heuristic returns a lifetime in proportion to how long the response had been
// unchanged (RFC 9111, 4.2.2), 0 if it may have none.
func (j *judgement) heuristic() time.Duration {
	fraction, limit := j.options.HeuristicFraction, j.options.HeuristicCap
	if fraction == 0 {
		fraction = 0.1
	}
	if limit == 0 {
		limit = 24 * time.Hour
	}
	if !(fraction > 0) || j.ask.Cookie || !j.control.public && !heuristicStatus(j.status) {
		return 0
	}
	modified := ValidatorsOf(j.header, j.got).LastModified
	// A Last-Modified ahead of this clock says nothing of how often it changes.
	if modified.IsZero() || modified.After(j.date) || modified.After(j.got) {
		return 0
	}
	guess := fraction * float64(j.date.Sub(modified))
	if guess >= math.MaxInt64 {
		return limit
	}
	return max(0, min(time.Duration(guess), limit)).Truncate(time.Second)
}

// windows returns the stale windows that hold. must-revalidate and its kin leave
// none; s-maxage implies as much, but an origin that adds a window beside it
// addresses shared caches and means it.
func (j *judgement) windows() (while, ifError time.Duration) {
	if j.control.mustRevalidate || j.control.noCache {
		return 0, 0
	}
	return j.control.whileRevalidate.value, j.control.ifError.value
}

// terms computes the conditions of use (RFC 9111, 4.2.3 and 4.2.4).
func (j *judgement) terms(asked time.Time) Terms {
	c := &j.control
	while, ifError := j.windows()
	silent := while == 0 && ifError == 0
	refused := c.ifError.set && ifError == 0 // stale-if-error=0: not even then
	return Terms{
		Born:                j.got.Add(-j.initialAge(asked)),
		Lifetime:            j.lifetime,
		WhileRevalidate:     while,
		IfError:             ifError,
		Validate:            c.noCache,
		MustRevalidate:      c.mustRevalidate || c.noCache || c.sMaxAge.set && silent,
		StaleIfDisconnected: !c.mustRevalidate && !c.noCache && !c.sMaxAge.set && !refused,
		Immutable:           c.immutable,
		Authorized:          j.authorized(),
		Source:              j.source,
	}
}

// initialAge is corrected_initial_age of RFC 9111, 4.2.3: the larger of how far
// Date lies back and of Age plus the time the response took.
func (j *judgement) initialAge(asked time.Time) time.Duration {
	const limit = verySeconds * time.Second
	apparent := max(0, j.got.Sub(j.date))
	age, _ := AgeField(j.header["Age"])
	delay := min(max(0, j.got.Sub(asked)), limit)
	return min(max(apparent, age+delay), limit)
}
