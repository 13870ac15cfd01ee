// Package purge keeps what must no longer be served, and tells every node.
//
// A purge is a rule with an epoch, not a search: an object whose request to
// the origin began at an earlier epoch, and which the rule matches, is gone
// (hard) or stale (soft) from the moment the rule is applied. The log keeps
// the purges of all nodes in one order; each node applies it to its own
// rules.
package purge

import "time"

// Subject is what rules look at of a stored response. Its strings are made
// when the response is stored, and never change.
type Subject struct {
	// Site is the name of the site that the response is of.
	Site string
	// URL is what the response is keyed by.
	URL URL
	// Viewer is the URL that the client asked for, where a function rewrote
	// it; the zero value where none did. Rules match either.
	Viewer URL
	// Tags are the response's tags, each once.
	Tags []string
}

// URL is an absolute URL in the normal form that keys are made of.
type URL struct {
	// Scheme is "http" or "https".
	Scheme string
	// Host is in lower case, without the scheme's default port.
	Host string
	// Path begins with a slash ("*" for the server itself).
	Path string
	// Query is what counts of it, with its "?"; "" without one.
	Query string
}

// Verdict is what the rules say of a response.
type Verdict uint8

const (
	// Valid responses are used by their own terms.
	Valid Verdict = iota
	// Soft responses are stale since the time given beside the verdict.
	Soft
	// Doubtful responses must be validated before any use: what was purged
	// meanwhile is not known.
	Doubtful
	// Gone responses must not be used in any way, nor their validators.
	Gone
)

// Request is one purge: everything it names is purged at one epoch. It is
// what the log carries.
type Request struct {
	// URLs are absolute; all variants of each.
	URLs []string `json:"urls,omitempty"`
	// Prefixes are "http://host/path" for one scheme, "host/path" for both,
	// and match whole path segments.
	Prefixes []string `json:"prefixes,omitempty"`
	// Tags count within Site.
	Tags []string `json:"tags,omitempty"`
	// Hosts are names, without port for every port.
	Hosts []string `json:"hosts,omitempty"`
	// Everything purges all that Site has.
	Everything bool `json:"everything,omitempty"`
	// Site is the site whose tags, or everything, are meant; "*" is every one.
	Site string `json:"site,omitempty"`
	// AnyQuery extends URLs to all queries of their paths.
	AnyQuery bool `json:"any_query,omitempty"`
	// Soft makes stale instead of gone.
	Soft bool `json:"soft,omitempty"`
	// Refresh re-fetches the hottest matches behind; it implies Soft.
	Refresh bool `json:"refresh,omitempty"`
}

// Receipt tells of one purge that was accepted.
type Receipt struct {
	// ID names the purge on every node.
	ID string `json:"id"`
	// Request is what was asked.
	Request Request `json:"request"`
	// Epoch is this node's epoch of it.
	Epoch uint64 `json:"-"`
	// Position is its place in the log.
	Position uint64 `json:"-"`
	// AcceptedAt is when the log took it, AppliedAt when this node applied it.
	AcceptedAt time.Time `json:"accepted_at"`
	AppliedAt  time.Time `json:"applied_at"`
	// Node is the name of the node that accepted it.
	Node string `json:"node"`
	// Repeated is true when the idempotency key was known: nothing new was
	// done.
	Repeated bool `json:"-"`
}

// FieldError names the field at fault and what is wrong with it.
type FieldError struct {
	Field  string `json:"field"`
	Detail string `json:"detail"`
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Detail }
