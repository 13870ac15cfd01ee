package edge

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"seawall/edge/encode"
	"seawall/edge/rfc9111"
	"seawall/purge"
	"seawall/wasm"
	"seawall/wasm/abi"
)

// Config says what a Handler answers for. It is read once, by New; a changed
// configuration is a new Handler over the same Store and Stats.
type Config struct {
	// Node is this node's name in CDN-Loop and Via; "" is "seawall".
	Node string
	// Store keeps the responses. Required.
	Store *Store
	// Sites are the names answered for. A host that none of them has gets 421.
	Sites []Site
	// Purge is what must no longer be served; the Store was made WithRules of
	// the same. Nil: nothing is ever purged.
	Purge *purge.Rules
	// PurgeURL takes the PURGE requests of clients that their site allows. url
	// is absolute. It returns when the purge is in force on this node.
	PurgeURL func(ctx context.Context, url string, soft bool) error
	// Coders and Decoders are what codings are made and undone with, for all
	// handlers of a node; nil makes ones of the default size.
	Coders   *encode.Coders
	Decoders *encode.Decoders
	// Decode bounds what may come of a coded body.
	Decode encode.Limits
	// Recode is the share of one core that making the codings of hot objects
	// again, better, may take; 0 is none.
	Recode float64
	// Trusted are the peers whose X-Forwarded-* and Forwarded fields are
	// believed and extended; those of others are replaced.
	Trusted []netip.Prefix
	// Locate tells functions where a client's address is; nil knows no place.
	Locate func(client string) abi.Geo
	// Access receives one record a request; nil writes none.
	Access *AccessLog
	// Stats are kept across configurations; nil makes new ones.
	Stats *Stats
	// Log receives what an operator should know; nil discards it.
	Log *slog.Logger
}

// Site is a set of host names and the origin behind them.
type Site struct {
	// Name labels metrics and log lines; unique.
	Name string
	// Hosts are lower-case names without port, exact ("example.com") or for
	// one and more labels ("*.example.com"); none answers every host.
	Hosts []string
	// Origin fetches. The request it is given has RequestURI set to the
	// target's bytes and Host to the client's; errors may have a method
	// ProxyStatus() string that names an RFC 9209 error type, one
	// Unanswered() bool that tells whether no byte of a response came, one
	// Overload() bool that tells whether the request was held back because too
	// many are under way, and one RetryAfter() time.Duration for clients, 0 for
	// nothing. It may be Hinted.
	Origin http.RoundTripper
	// Cache is the policy of requests that no rule changes.
	Cache Cache
	// Rules refine Cache; the first that matches counts.
	Rules []Rule
	// Viewer are the functions that see every request before its key is made,
	// and every response on its way to the client; nil without any.
	Viewer *wasm.Chain
	// OriginFunctions see what goes to the origin, and its responses before
	// they are judged and stored; nil without any.
	OriginFunctions *wasm.Chain
	// Encode is the site's compression; nil sends what the origin sent.
	Encode *Encode
	// Settings are names and values that its functions may read.
	Settings [][2]string
	// Limits bound what a client may send.
	Limits Limits
	// Purgers are the clients that may purge a URL by the method PURGE; none by
	// default. PURGE never reaches the origin.
	Purgers []netip.Prefix
}

// Cache is a site's caching policy. The zero value follows RFC 9111 with the
// defaults of each field.
type Cache struct {
	// Bypass sends every request to the origin and stores nothing.
	Bypass bool
	// SetCookie says which responses with Set-Cookie may be stored.
	SetCookie rfc9111.SetCookie
	// TTL is the operator's lifetime for responses that do not forbid
	// storing; 0 leaves the origin's.
	TTL time.Duration
	// HeuristicFraction of Date minus Last-Modified is the lifetime of a
	// response without one; 0 is 0.1, negative none.
	HeuristicFraction float64
	// HeuristicMax caps a heuristic lifetime; 0 is 24 hours.
	HeuristicMax time.Duration
	// StaleIfUnreachable is how long past its lifetime a response may be used
	// while the origin cannot be reached; 0 is one hour, negative never.
	StaleIfUnreachable time.Duration
	// HitForMiss is how long a response that could not be shared keeps the
	// next requests from waiting for one another; 0 is 10 seconds.
	HitForMiss time.Duration
	// Targeted are the targeted fields honoured, by precedence (RFC 9213);
	// nil is CDN-Cache-Control, then Surrogate-Control.
	Targeted []string
	// PassEncoding asks the origin for the codings the client accepts
	// (reduced to zstd, br and gzip) instead of identity.
	PassEncoding bool
	// HonourReload lets a request's no-cache, max-age, min-fresh or Pragma:
	// no-cache cause one validation, at most one a second for each URL.
	HonourReload bool
	// Query says which parameters count.
	Query Query
	// KeyHeaders and KeyCookies are request fields and cookies whose values
	// are part of the key.
	KeyHeaders []string
	KeyCookies []string
	// Vary says which of the fields that the origin's Vary names count, and
	// what of them.
	Vary Vary
}

// Query is the policy for query parameters in the key and towards the origin.
type Query struct {
	// Drop removes the parameters of these names ("utm_*" is a prefix).
	Drop []string
	// Keep, when not empty, removes all but these.
	Keep []string
	// Sort orders them by name, keeping the order of equal names.
	Sort bool
}

// Rule changes the policy of what it matches: every condition given must hold.
type Rule struct {
	// Path is a pattern over the whole path: "*" matches any bytes.
	Path string
	// Status matches the response's status; such a rule changes only what is
	// decided when the response has arrived (TTL, SetCookie, Bypass).
	Status []int
	// Cookie names a cookie that the request has.
	Cookie string
	// Header names a request field that is present; with Value, the value it has.
	Header, Value string

	// What it changes; nil leaves the site's.
	TTL        *time.Duration
	Bypass     *bool
	SetCookie  *rfc9111.SetCookie
	KeyHeaders []string
	KeyCookies []string
}

// Limits bound what a client may send to a site; 0 is the default.
type Limits struct {
	// URL is the longest target accepted, in bytes; 0 is 8192.
	URL int
	// Body is the largest request content accepted, in bytes; 0 is no limit.
	Body int64
}
