package rfc9111

import (
	"net/http"
	"slices"
	"strings"
	"time"
)

// Validators are what a stored response is compared by, parsed once from its
// header.
type Validators struct {
	ETag         string    // as sent; empty when absent or malformed
	LastModified time.Time // zero when absent or unreadable
	Date         time.Time // the time of reception when absent or unreadable
}

// ValidatorsOf reads the validators of a response received at got.
func ValidatorsOf(h http.Header, got time.Time) Validators {
	v := Validators{ETag: etagOf(h), Date: got}
	if s, ok := single(h["Date"]); ok {
		if d, ok := ParseDateAt(s, got); ok {
			v.Date = d
		}
	}
	if s, ok := single(h["Last-Modified"]); ok {
		v.LastModified, _ = ParseDateAt(s, got)
	}
	return v
}

// Newer tells whether v is of the more recent response: of several that match a
// request, the most recent answers it (RFC 9111, 4).
func (v Validators) Newer(w Validators) bool { return v.Date.After(w.Date) }

// strongDate tells whether Last-Modified may stand for the bytes: the resource
// did not change in the second it was sent in (RFC 9110, 8.8.2.2).
func (v Validators) strongDate() bool {
	return !v.LastModified.IsZero() && v.Date.Sub(v.LastModified) >= time.Second
}

// etagOf returns a response's entity tag, empty unless it is well-formed.
func etagOf(h http.Header) string {
	if tag, ok := single(h["Etag"]); ok && isTag(tag) {
		return tag
	}
	return ""
}

// isTag tells whether s is an entity tag, byte for byte (RFC 9110, 8.8.3).
func isTag(s string) bool {
	s = strings.TrimPrefix(s, "W/")
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return false
	}
	for i := 1; i < len(s)-1; i++ {
		if c := s[i]; c < 0x21 || c == '"' || c == 0x7f {
			return false
		}
	}
	return true
}

func isWeak(tag string) bool { return strings.HasPrefix(tag, "W/") }

// weakEqual and strongEqual compare well-formed tags (RFC 9110, 8.8.3.2). An
// empty one, standing for none, equals nothing.
func weakEqual(a, b string) bool {
	return a != "" && strings.TrimPrefix(a, "W/") == strings.TrimPrefix(b, "W/")
}

func strongEqual(a, b string) bool { return a != "" && a == b && !isWeak(a) }

// Conditional tells whether the request has a condition that a cache evaluates:
// If-None-Match or If-Modified-Since.
func Conditional(h http.Header) bool {
	return len(h["If-None-Match"]) > 0 || len(h["If-Modified-Since"]) > 0
}

// HasPreconditions tells whether the request has a condition that only the
// origin may evaluate: If-Match or If-Unmodified-Since (RFC 9111, 4.3.2).
func HasPreconditions(h http.Header) bool {
	return len(h["If-Match"]) > 0 || len(h["If-Unmodified-Since"]) > 0
}

// DropConditions removes If-None-Match and If-Modified-Since from h, in place.
func DropConditions(h http.Header) {
	delete(h, "If-None-Match")
	delete(h, "If-Modified-Since")
}

// NotModified tells whether a stored 200 with these validators answers the
// request's own condition with 304 (RFC 9110, 13.1.2, 13.1.3, 13.2.2): GET and
// HEAD only, weak comparison, If-None-Match before If-Modified-Since. It does
// not allocate when there is no condition.
func NotModified(method string, req http.Header, v Validators) bool {
	if method != http.MethodGet && method != http.MethodHead {
		return false
	}
	if tags := req["If-None-Match"]; len(tags) > 0 {
		return matchesTag(tags, v.ETag)
	}
	since := req["If-Modified-Since"]
	if len(since) != 1 {
		return false
	}
	t, ok := ParseDateAt(trimOWS(since[0]), v.Date)
	modified := v.LastModified
	if modified.IsZero() {
		modified = v.Date.Truncate(time.Second) // HTTP-dates have no fractions
	}
	return ok && !modified.IsZero() && !modified.After(t)
}

// matchesTag reads If-None-Match. A malformed member matches nothing; `*`, alone,
// matches whatever is stored.
func matchesTag(lines []string, tag string) bool {
	if value, ok := single(lines); ok && value == "*" {
		return true
	}
	it := members{lines: lines, tags: true}
	for m, ok := it.next(); ok; m, ok = it.next() {
		if isTag(m) && weakEqual(tag, m) {
			return true
		}
	}
	return false
}

// SetConditions replaces the conditions of req, in place, by those that validate
// a stored response (RFC 9111, 4.3.1): its entity tag as sent, weak ones too, and
// its Last-Modified. It is false, and req left without conditions, when the
// stored response has no valid one.
func SetConditions(req http.Header, stored http.Header) bool {
	DropConditions(req)
	tag := etagOf(stored)
	if tag != "" {
		req["If-None-Match"] = []string{tag}
	}
	modified, ok := single(stored["Last-Modified"])
	if ok {
		_, ok = ParseDate(modified)
	}
	if ok {
		req["If-Modified-Since"] = []string{modified}
	}
	return ok || tag != ""
}

// Confirms tells whether a 304 speaks of the stored response (RFC 9111, 4.3.4).
// If not, it must update nothing and the response is to be fetched without
// conditions.
//
// A validator that is malformed or sent twice differently names nothing: it
// speaks of the stored response only if that came with the very same lines.
func Confirms(stored, notModified http.Header) bool {
	switch tag := etagOf(notModified); {
	case tag != "" && isWeak(tag):
		return weakEqual(tag, etagOf(stored))
	case tag != "":
		return strongEqual(tag, etagOf(stored))
	case !slices.Equal(notModified["Etag"], stored["Etag"]) && len(notModified["Etag"]) > 0:
		return false
	}
	lines := notModified["Last-Modified"]
	if said := modifiedOf(notModified); !said.IsZero() {
		return said.Equal(modifiedOf(stored))
	}
	return len(lines) == 0 || slices.Equal(lines, stored["Last-Modified"])
}

func modifiedOf(h http.Header) time.Time {
	s, _ := single(h["Last-Modified"])
	t, _ := ParseDate(s)
	return t
}

// Merge returns the stored header updated by that of a 304, or of a HEAD that
// refreshes it (RFC 9111, 3.2 and 4.3.4): its fields replace the stored ones,
// except what describes the stored bytes (Content-Length, Content-Encoding,
// Content-Range) and what belongs to the connection. The inputs are untouched and
// share nothing with the result.
//
// Age and Date of the stored response end with it: they were of its own
// transmission, and would make the merged one look old from the start. A weak
// tag does not replace a strong one of the same opaque part, as the bytes are
// the same ones. Whoever keeps the result makes its Variant anew: Vary may have changed.
func Merge(stored, notModified http.Header) http.Header {
	merged := EndToEnd(stored)
	delete(merged, "Age")
	delete(merged, "Date")
	tag := etagOf(stored)
	for name, lines := range EndToEnd(notModified) {
		switch name {
		case "Content-Length", "Content-Encoding", "Content-Range":
			continue
		case "Etag":
			said := etagOf(notModified)
			if said == "" || isWeak(said) && weakEqual(said, tag) {
				continue
			}
		}
		merged[name] = lines
	}
	return merged
}

// HeadEffect is what a HEAD response does to a stored GET response.
type HeadEffect uint8

// The effects of a HEAD response.
const (
	HeadNothing     HeadEffect = iota
	HeadRefreshes              // Merge it
	HeadInvalidates            // the stored response is stale
)

// HeadUpdate compares a HEAD response with a stored GET response (RFC 9111,
// 4.3.5). A 200 refreshes it if it carries a validator and all that both carry
// agree, Content-Length included; a 200 that differs, or 404 or 410, makes it
// stale; anything else says nothing.
func HeadUpdate(stored, head http.Header, status int) HeadEffect {
	switch status {
	case http.StatusNotFound, http.StatusGone:
		return HeadInvalidates
	case http.StatusOK:
	default:
		return HeadNothing
	}
	length, sent := single(head["Content-Length"])
	have, known := single(stored["Content-Length"])
	tag, modified := etagOf(head), modifiedOf(head)
	switch {
	case sent && known && length != have,
		tag != "" && !weakEqual(tag, etagOf(stored)),
		tag != "" && !isWeak(tag) && isWeak(etagOf(stored)),
		!modified.IsZero() && !modified.Equal(modifiedOf(stored)):
		return HeadInvalidates
	case tag == "" && modified.IsZero():
		return HeadNothing
	}
	return HeadRefreshes
}

// NotModifiedHeader returns the fields that a 304 for the stored response
// carries (RFC 9110, 15.4.5). Last-Modified is among them only without an entity
// tag. The values are those of stored and must not be changed.
func NotModifiedHeader(stored http.Header) http.Header {
	h := make(http.Header, 6)
	for _, name := range [...]string{"Etag", "Date", "Cache-Control", "Expires", "Vary", "Content-Location"} {
		if lines := stored[name]; len(lines) > 0 {
			h[name] = lines[:len(lines):len(lines)]
		}
	}
	if lines := stored["Last-Modified"]; len(lines) > 0 && len(h["Etag"]) == 0 {
		h["Last-Modified"] = lines[:len(lines):len(lines)]
	}
	return h
}
