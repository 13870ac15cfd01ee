package edge

import (
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"time"
)

// Hint says about a request to the origin what servers may be chosen by. The
// zero Hint is always right.
type Hint struct {
	// Key is the cache key of what is asked for.
	Key string
	// Client is the address of the client that it is asked for; the zero Addr
	// when the node asks by itself.
	Client netip.Addr
	// Uncached says that the response goes to this client alone and is never
	// stored with a Set-Cookie field, so that one may be added to it.
	Uncached bool
	// Cookie is for a response of which that shows only later: the origin puts
	// here, before it returns, the value of a Set-Cookie field for this client, ""
	// for none. Neither is stored. nil: not wanted.
	Cookie *string
}

// Hinted is a Site.Origin that takes a Hint.
type Hinted interface {
	http.RoundTripper
	// RoundTripHint is RoundTrip for a request of which this is known.
	RoundTripHint(*http.Request, Hint) (*http.Response, error)
}

// originHint returns what the origin may know of the request.
func (x *exchange) originHint(uncached bool) Hint {
	client, err := netip.ParseAddr(x.client())
	if err != nil {
		client = netip.Addr{}
	}
	return Hint{Key: string(x.key), Client: client.Unmap().WithZone(""), Uncached: uncached}
}

// private puts the cookie of the server that answered into a response that
// goes to this client alone after all.
func (x *exchange) private(h http.Header) {
	if x.cookie != nil && *x.cookie != "" {
		h["Set-Cookie"] = append(slices.Clip(h["Set-Cookie"]), *x.cookie)
	}
}

// send gives out to the origin.
func (s *site) send(out *http.Request, hint Hint) (*http.Response, error) {
	if to, ok := s.Origin.(Hinted); ok {
		return to.RoundTripHint(out, hint)
	}
	return s.Origin.RoundTrip(out)
}

// overloaded reports whether a request was not sent because too many are under
// way: the origin may be well, and a second later there is room.
func overloaded(err error) bool {
	var e interface{ Overload() bool }
	return errors.As(err, &e) && e.Overload()
}

// retryAfter returns the Retry-After field of an error, in whole seconds; ""
// when the error has nothing to say.
func retryAfter(err error) string {
	var e interface{ RetryAfter() time.Duration }
	if !errors.As(err, &e) || e.RetryAfter() <= 0 {
		return ""
	}
	return strconv.FormatInt(int64((e.RetryAfter()+time.Second-1)/time.Second), 10)
}
