package origin

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"time"

	"github.com/cespare/xxhash/v2"
)

// Balance names how a pool chooses among its usable servers. All of them heed
// weights, and give a server that has just returned less at first.
type Balance string

const (
	// RoundRobin takes turns, spread evenly by weight. It is the default.
	RoundRobin Balance = "round_robin"
	// LeastConnections takes the server with the fewest requests in flight for its
	// weight.
	LeastConnections Balance = "least_connections"
	// LeastTime takes the better of two servers drawn by weight: the one whose
	// recent latency times requests in flight is less for its weight.
	LeastTime Balance = "least_time"
	// ClientHash keeps a client's address (of IPv6 its /64) at one server.
	ClientHash Balance = "client_hash"
	// KeyHash keeps a cache key at one server, the next one in the key's own order
	// when that has more than 1.25 times its share in flight (rendezvous hashing
	// with bounded load).
	KeyHash Balance = "key_hash"
)

// Hint says about a request what a pool may balance by. The zero Hint is always
// right.
type Hint struct {
	// Key is the cache key for KeyHash; "" means Host and target.
	Key string
	// Client is the client's address for ClientHash; without one requests take turns.
	Client netip.Addr
	// Uncached says that the response goes to this client alone. Then the pool
	// heeds and sets the sticky cookie: it adds a Set-Cookie line to the
	// response's header, which must reach the client and never a cache.
	Uncached bool
	// Cookie is for a response of which that is not known yet: the pool heeds the
	// sticky cookie, and puts here, before RoundTripHint returns, the value of the
	// Set-Cookie line that it would add; "" for none. nil: not wanted.
	Cookie *string
}

const (
	boundedLoad      = 1.25
	boundedLoadLeast = 4 // so many in flight are never too many
)

// chooser returns one of from, which is not empty. The caller holds Pool.mu.
type chooser func(x *exchange, from []*server, now time.Time) *server

func (b Balance) choice() (chooser, error) {
	switch b {
	case "", RoundRobin:
		return inTurn, nil
	case LeastConnections:
		return leastConnections, nil
	case LeastTime:
		return leastTime, nil
	case ClientHash:
		return byClient, nil
	case KeyHash:
		return byKey, nil
	}
	return nil, fmt.Errorf("origin: balance %q (hint: %s, %s, %s, %s or %s)", b, RoundRobin, LeastConnections, LeastTime, ClientHash, KeyHash)
}

// inTurn is smooth weighted round robin: every server gains its weight, the
// richest is taken and pays what all gained. An exchange's later attempts take
// the richest without payment, so that failures leave the order alone.
func inTurn(x *exchange, from []*server, now time.Time) *server {
	var best *server
	total := 0.0
	for _, s := range from {
		if !x.counted {
			w := s.share(now)
			s.current += w
			total += w
		}
		if best == nil || s.current > best.current+1e-9 {
			best = s
		}
	}
	best.current -= total
	x.counted = true
	return best
}

func leastConnections(x *exchange, from []*server, now time.Time) *server {
	least := math.Inf(1)
	var ties []*server
	for _, s := range from {
		load := float64(s.inFlight) / s.share(now) // nothing at all is the same for light and heavy
		if load < least {
			least, ties = load, ties[:0]
		}
		if load == least {
			ties = append(ties, s)
		}
	}
	if len(ties) == 1 {
		return ties[0]
	}
	return inTurn(x, ties, now)
}

func leastTime(_ *exchange, from []*server, now time.Time) *server {
	a := draw(from, nil, now)
	if len(from) == 1 {
		return a
	}
	b := draw(from, a, now)
	// A server not measured yet counts as the other one: what is in flight decides.
	la, lb := a.latency.value, b.latency.value
	switch {
	case a.latency.n == 0 && b.latency.n == 0:
		la, lb = 1, 1
	case a.latency.n == 0:
		la = lb
	case b.latency.n == 0:
		lb = la
	}
	if lb*float64(b.inFlight+1)/b.share(now) < la*float64(a.inFlight+1)/a.share(now) {
		return b
	}
	return a
}

// draw returns one of from at random, by weight, and not but.
func draw(from []*server, but *server, now time.Time) *server {
	total := 0.0
	for _, s := range from {
		if s != but {
			total += s.share(now)
		}
	}
	at := rand.Float64() * total
	var last *server
	for _, s := range from {
		if s == but {
			continue
		}
		if last = s; at < s.share(now) {
			return s
		}
		at -= s.share(now)
	}
	return last
}

func byClient(x *exchange, from []*server, now time.Time) *server {
	a := x.hint.Client.Unmap().WithZone("")
	if !a.IsValid() {
		return inTurn(x, from, now)
	}
	b := a.As16()
	if a.Is6() {
		clear(b[8:])
	}
	return rendezvous(xxhash.Sum64(b[:]), from, now, func(*server) bool { return true })
}

func byKey(x *exchange, from []*server, now time.Time) *server {
	inFlight, weights := 1, 0.0
	for _, s := range from {
		inFlight += s.inFlight
		weights += s.share(now)
	}
	return rendezvous(x.hint.hash(x.req), from, now, func(s *server) bool {
		bound := math.Ceil(boundedLoad * float64(inFlight) * s.share(now) / weights)
		return float64(s.inFlight+1) <= max(bound, boundedLoadLeast)
	})
}

// hash returns the key's hash. It is not keyed: all nodes of a place must
// agree, and whoever crafts keys for one server meets the bound.
func (h *Hint) hash(req *http.Request) uint64 {
	if h.Key != "" {
		return xxhash.Sum64String(h.Key)
	}
	var d xxhash.Digest
	d.Reset()
	_, _ = d.WriteString(clientHost(req))
	_, _ = d.WriteString("\x00")
	target, _ := targetOf(req) // checked before
	_, _ = d.WriteString(target)
	return d.Sum64()
}

// rendezvous returns the server with the highest score for a hash among those
// that have room, or else among all. The score -w/ln(u) makes the shares
// proportional to the weights, and moves only the keys of a server that comes
// or goes.
func rendezvous(hash uint64, from []*server, now time.Time, room func(*server) bool) *server {
	var best, any *server
	top, anyTop := math.Inf(-1), math.Inf(-1)
	for _, s := range from {
		u := (float64(mix(hash^s.hash)>>11) + 0.5) / (1 << 53)
		score := -s.share(now) / math.Log(u)
		if score > anyTop {
			any, anyTop = s, score
		}
		if score > top && room(s) {
			best, top = s, score
		}
	}
	if best == nil {
		return any
	}
	return best
}

// mix spreads a number over all 64 bits.
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}
