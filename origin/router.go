package origin

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// Route sends the paths under a prefix to a pool.
type Route struct {
	// Prefix begins with a slash and matches whole segments: /a matches /a, /a/b
	// and /a?c, not /ab.
	Prefix string
	Pool   *Pool
}

// Router chooses a pool by the request's path: that of the longest prefix. It
// does not own the pools.
type Router struct {
	routes []Route // longest prefix first
}

// NewRouter returns a Router for routes, or an error that names the one at
// fault.
func NewRouter(routes []Route) (*Router, error) {
	r := &Router{routes: slices.Clone(routes)}
	for i := range r.routes {
		route := &r.routes[i]
		switch {
		case !strings.HasPrefix(route.Prefix, "/") || strings.ContainsAny(route.Prefix, "?# "):
			return nil, fmt.Errorf("origin: route %q: not a path (hint: begin it with a slash, without a query)", route.Prefix)
		case route.Pool == nil:
			return nil, fmt.Errorf("origin: route %q: no pool", route.Prefix)
		}
		route.Prefix = strings.TrimSuffix(route.Prefix, "/")
		for _, earlier := range r.routes[:i] {
			if SamePath(earlier.Prefix, route.Prefix) {
				return nil, fmt.Errorf("origin: route %q: given twice", routes[i].Prefix)
			}
		}
	}
	slices.SortStableFunc(r.routes, func(a, b Route) int { return pathLength(b.Prefix) - pathLength(a.Prefix) })
	return r, nil
}

// Pool returns the pool for a request target in origin form, nil for none. An
// octet and its percent-encoding are the same here (RFC 3986, 6.2.2.2), except
// for the slash: servers decode before they look, and /%61pi must not evade the
// route of /api. What is sent stays as it is.
func (r *Router) Pool(target string) *Pool {
	for _, route := range r.routes {
		rest, ok := cutPath(target, route.Prefix)
		if ok && (rest == "" || rest[0] == '/' || rest[0] == '?') {
			return route.Pool
		}
	}
	return nil
}

// SamePath reports whether a router takes two prefixes for one.
func SamePath(a, b string) bool {
	rest, ok := cutPath(a, b)
	return ok && rest == ""
}

// cutPath is strings.CutPrefix by octets.
func cutPath(target, prefix string) (rest string, ok bool) {
	for prefix != "" {
		if target == "" {
			return "", false
		}
		a, n := octet(target)
		b, m := octet(prefix)
		if a != b {
			return "", false
		}
		target, prefix = target[n:], prefix[m:]
	}
	return target, true
}

func pathLength(path string) (octets int) {
	for ; path != ""; octets++ {
		_, n := octet(path)
		path = path[n:]
	}
	return octets
}

// encodedSlash is no octet: what is behind it is of the same segment.
const encodedSlash = 256 + '/'

// octet returns the first octet of a path and how many bytes it takes there. A
// % that begins no encoding is itself.
func octet(path string) (o int, n int) {
	if path[0] != '%' || len(path) < 3 {
		return int(path[0]), 1
	}
	high, low := hexDigit(path[1]), hexDigit(path[2])
	switch o = high<<4 | low; {
	case high < 0 || low < 0:
		return '%', 1
	case o == '/':
		return encodedSlash, 3
	}
	return o, 3
}

func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}

// RoundTrip is RoundTripHint with the zero Hint.
func (r *Router) RoundTrip(req *http.Request) (*http.Response, error) {
	return r.RoundTripHint(req, Hint{})
}

// RoundTripHint sends req by the pool for its target.
func (r *Router) RoundTripHint(req *http.Request, hint Hint) (*http.Response, error) {
	target, _ := targetOf(req) // the pool says what is wrong with it
	if target == "*" {
		target = "/"
	}
	p := r.Pool(target)
	if p == nil {
		newUpload(req).close()
		return nil, &Error{Kind: notFound, Step: stepRequest, Err: errors.New("no route for the path")}
	}
	return p.RoundTripHint(req, hint)
}
