package edge

import (
	"net/http"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"seawall/edge/rfc9111"
	"seawall/edge/store"
)

// reloadPause is the least time between two validations of an object that
// clients ask for with no-cache.
const reloadPause = time.Second

// lookup decides what the request gets: the outcome, and for hit, stale and
// expired the object.
func (x *exchange) lookup() Outcome {
	switch {
	case x.method == methodPurge:
		x.outcome = Local // never the origin's
		return Local
	case x.method != http.MethodGet && x.method != http.MethodHead:
		return x.passing(fwdMethod, "")
	case x.directives.OnlyIfCached && (x.policy.Bypass || x.socket || hasContent(x.r) || upgrades(x.r) || rfc9111.HasPreconditions(x.header)):
		x.outcome = Local // nothing stored may answer
		return Local
	case x.socket:
		return x.passing(fwdBypass, "upgrade")
	case x.policy.Bypass:
		return x.passing(fwdBypass, "")
	case hasContent(x.r):
		return x.passing(fwdBypass, string(rfc9111.ReasonContent))
	case upgrades(x.r):
		return x.passing(fwdBypass, "upgrade")
	case rfc9111.HasPreconditions(x.header):
		return x.passing(fwdBypass, "precondition")
	}
	return x.judge(x.h.Store.Find(x.hash, x.key, &x.ask))
}

// judge decides by what the store has.
func (x *exchange) judge(found store.Found[Meta]) Outcome {
	if found.Object == nil {
		found = x.spoken(found)
	}
	if found.Object == nil {
		found = x.equivalent(found)
	}
	if x.viewer.Host != "" && found.Object != nil {
		x.h.judgeViewer(&found, &x.ask)
	}
	x.object = found.Object
	x.outcome = x.judged(found)
	if x.directives.OnlyIfCached && x.outcome != Hit && x.outcome != Stale {
		x.outcome = Local
		x.status = cacheStatus{}
		return Local
	}
	return x.outcome
}

func (x *exchange) judged(found store.Found[Meta]) Outcome {
	if found.Object == nil {
		switch {
		case x.barred:
			x.status.fwd = fwdRequest
		case (found.Known || x.known) && x.sameParts:
			x.status.fwd = fwdVary
		default:
			x.status.fwd = fwdURI
		}
		return Miss
	}
	x.terms = found.Object.Meta.Terms
	if found.Soft {
		soften(&x.terms, found.Since)
	}
	if found.Invalid {
		x.terms.Validate = true
	}
	switch {
	case x.terms.Fresh(x.now):
		if !x.mustReload() {
			return Hit
		}
		x.status.fwd = fwdRequest
		return Expired
	case x.terms.MayServeStale(x.now) && x.method == http.MethodGet && !x.renew:
		return Stale
	}
	x.status.fwd = fwdStale
	return Expired
}

// mustReload reports whether the client's wish for a validation is granted:
// where the site allows it, not for fresh immutable responses (RFC 8246), and
// once a second for each object.
func (x *exchange) mustReload() bool {
	return x.policy.HonourReload && !x.terms.Immutable && !x.directives.Satisfied(x.terms, x.now) &&
		x.now.Sub(x.object.Meta.Checked) >= reloadPause
}

func (x *exchange) passing(why forward, detail string) Outcome {
	x.outcome = Pass
	x.status = cacheStatus{fwd: why, detail: detail}
	return Pass
}

// hasContent reports whether a request has content, or may have.
func hasContent(r *http.Request) bool {
	return r.ContentLength != 0 || len(r.TransferEncoding) > 0
}

// upgrades reports whether the client wants to change to a protocol that the
// node may pass blindly. Another HTTP is none of them: behind an upgrade to
// h2c, requests would reach the origin past every rule of the node. HTTP/1.0
// has no upgrades (RFC 9110, 7.8).
func upgrades(r *http.Request) bool {
	h := r.Header
	if len(h["Upgrade"]) == 0 || r.Method != http.MethodGet || !r.ProtoAtLeast(1, 1) || !httpguts.HeaderValuesContainsToken(h["Connection"], "upgrade") {
		return false
	}
	for _, protocol := range rfc9111.Members(h["Upgrade"]) {
		name, _, _ := strings.Cut(strings.ToLower(protocol), "/")
		if name == "h2c" || name == "h2" || name == "http" || name == "tls" {
			return false
		}
	}
	return true
}
