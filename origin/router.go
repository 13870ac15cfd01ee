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
	Prefix string // begins with a slash; matches whole segments: /a matches /a, /a/b and /a?c, not /ab
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
			if earlier.Prefix == route.Prefix {
				return nil, fmt.Errorf("origin: route %q: given twice", routes[i].Prefix)
			}
		}
	}
	slices.SortStableFunc(r.routes, func(a, b Route) int { return len(b.Prefix) - len(a.Prefix) })
	return r, nil
}

// Pool returns the pool for a request target in origin form, nil for none. The
// target is compared as the bytes it is.
func (r *Router) Pool(target string) *Pool {
	for _, route := range r.routes {
		rest, ok := strings.CutPrefix(target, route.Prefix)
		if ok && (rest == "" || rest[0] == '/' || rest[0] == '?') {
			return route.Pool
		}
	}
	return nil
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
