package edge

import "strconv"

// Outcome is what became of a request: one word, used alike in code, logs,
// metrics and documents.
type Outcome uint8

// The outcomes.
const (
	// Hit was answered from the store, fresh.
	Hit Outcome = iota
	// Stale was answered from the store past its lifetime, as its terms allow.
	Stale
	// Expired had a stored response that had to be validated first.
	Expired
	// Miss had no stored response; the origin's may be shared.
	Miss
	// Pass went to the origin for this client alone.
	Pass
	// Local was answered by the node itself, without need of the origin.
	Local
	// Fault ended in an error that the node made.
	Fault
)

// String returns the outcome's word.
func (o Outcome) String() string {
	words := [...]string{"hit", "stale", "expired", "miss", "pass", "local", "error"}
	if int(o) < len(words) {
		return words[o]
	}
	return "outcome-" + strconv.Itoa(int(o))
}

// forward says why a request went to the origin (RFC 9211, 2.2); empty when it
// did not.
type forward string

const (
	fwdBypass  forward = "bypass"
	fwdMethod  forward = "method"
	fwdURI     forward = "uri-miss"
	fwdVary    forward = "vary-miss"
	fwdRequest forward = "request"
	fwdStale   forward = "stale"
	fwdPartial forward = "partial"
)

// Details of Cache-Status that rfc9111's reasons do not name.
const (
	detailTooLarge     = "too-large"
	detailStaleIfError = "stale-if-error"
	detailOnlyIfCached = "only-if-cached"
	detailManyVariants = "too-many-variants"
	detailInvalidated  = "invalidated"
	detailPurged       = "purged"
	detailPurge        = "purge"
)

// cacheStatus is what the node's member of Cache-Status tells (RFC 9211).
type cacheStatus struct {
	hit       bool
	ttl       int64 // seconds, for a hit
	fwd       forward
	fwdStatus int // the origin's status, 0 when it is the one sent
	stored    bool
	collapsed bool
	detail    string
}

// hitStatus is a hit's member up to the seconds that are left.
const hitStatus = "seawall; hit; ttl="

// append writes the member after dst.
func (c *cacheStatus) append(dst []byte) []byte {
	if c.hit {
		dst = append(dst, hitStatus...)
		dst = strconv.AppendInt(dst, c.ttl, 10)
	} else {
		dst = append(dst, "seawall"...)
	}
	if !c.hit && c.fwd != "" {
		dst = append(dst, "; fwd="...)
		dst = append(dst, c.fwd...)
	}
	if c.fwdStatus != 0 {
		dst = append(dst, "; fwd-status="...)
		dst = strconv.AppendInt(dst, int64(c.fwdStatus), 10)
	}
	if c.stored {
		dst = append(dst, "; stored"...)
	}
	if c.collapsed {
		dst = append(dst, "; collapsed"...)
	}
	if c.detail != "" {
		dst = append(dst, "; detail="...)
		dst = append(dst, c.detail...)
	}
	return dst
}
