package edge

import (
	"iter"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Proto is the protocol a client speaks.
type Proto uint8

// The protocols, in the order that metrics list them.
const (
	H1 Proto = iota
	H2
	H3
	protos // how many
)

// String is the protocol's label in metrics.
func (p Proto) String() string {
	switch p {
	case H1:
		return "http/1.1"
	case H2:
		return "http/2"
	case H3:
		return "http/3"
	}
	return "unknown"
}

// FaultKind is something that went wrong and belongs to the node rather than
// to one site.
type FaultKind uint8

// The kinds of fault.
const (
	FaultMalformed    FaultKind = iota // a request that breaks HTTP: answered 4xx
	FaultLimit                         // a request over a limit: URL, header or body
	FaultConnection                    // a connection over the limit, closed at once
	FaultUnknownHost                   // a host that no site names: 421
	FaultLoop                          // a request that came round again: 502
	FaultPanic                         // a handler's panic, which ended its exchange
	FaultStalledRead                   // a client that stopped reading and was cut
	FaultStalledWrite                  // a client that stopped sending and was cut
	FaultFlood                         // a connection of control frames and little else, closed
	FaultHandshake                     // a TLS handshake that failed
	FaultAdmin                         // an admin call from where none is allowed: 403
	faultKinds                         // how many
)

// String is the kind's label in metrics.
func (k FaultKind) String() string {
	if k >= faultKinds {
		return "unknown"
	}
	return [faultKinds]string{
		"malformed_request", "limit_exceeded", "connection_refused", "unknown_host",
		"proxy_loop", "panic", "stalled_reader", "stalled_sender", "flooded_connection", "tls_handshake", "admin_refused",
	}[k]
}

// The sizes of the counters' arrays.
const (
	outcomes      = int(Fault) + 1
	statusClasses = 6  // 0 is what is no class of RFC 9110, 15
	buckets       = 18 // of a duration, the last without a bound
)

// DurationBounds are the upper bounds of the duration buckets, ascending. The
// last bucket, one more than these, has none. They are dense below a
// millisecond, where hits are, and reach to half a minute, where timeouts are.
func DurationBounds() []time.Duration {
	const us, ms = time.Microsecond, time.Millisecond
	return []time.Duration{
		50 * us, 100 * us, 250 * us, 500 * us, ms, 5 * ms / 2, 5 * ms, 10 * ms, 25 * ms,
		50 * ms, 100 * ms, 250 * ms, 500 * ms, time.Second, 5 * time.Second / 2,
		10 * time.Second, 30 * time.Second,
	}
}

// Stats are the counters of a node. They outlive configurations, so that a
// reload does not set a site's figures back. Every method may be called at
// once with any other.
type Stats struct {
	// Encode counts what codings are made of.
	Encode EncodeStats

	faults [faultKinds]atomic.Uint64

	mu    sync.RWMutex
	sites map[string]*SiteStats // guarded by mu
}

// EncodeStats count the work of coders since the start.
type EncodeStats struct {
	// Demands are forms of objects made because a client asked for them first,
	// Recodings those made again, better, behind.
	Demands, Recodings atomic.Uint64
	// In and Out are bytes before and after coding, recodings included.
	In, Out atomic.Uint64
	// DecodeRefused counts bodies that an origin coded and that could not be
	// undone, or not within bounds.
	DecodeRefused atomic.Uint64
}

// CodingFigures are the work of a node's coders so far.
type CodingFigures struct {
	Busy    int   // coders at work now
	Memory  int64 // bytes that all coders hold
	Refused uint64
	// As in EncodeStats.
	Demands, Recodings, In, Out, DecodeRefused uint64
}

// Coding returns the work of the coders.
func (h *Handler) Coding() CodingFigures {
	c, e := h.Coders.Stats(), &h.Stats.Encode
	return CodingFigures{
		Busy: c.Busy, Memory: c.Memory, Refused: c.Refused,
		Demands: e.Demands.Load(), Recodings: e.Recodings.Load(), In: e.In.Load(), Out: e.Out.Load(),
		DecodeRefused: e.DecodeRefused.Load(),
	}
}

// NewStats returns counters that stand at zero.
func NewStats() *Stats { return &Stats{sites: make(map[string]*SiteStats)} }

// Fault counts one fault of the node.
func (s *Stats) Fault(kind FaultKind) {
	if kind < faultKinds {
		s.faults[kind].Add(1)
	}
}

// Faults yields every kind of fault with its count.
func (s *Stats) Faults() iter.Seq2[FaultKind, uint64] {
	return func(yield func(FaultKind, uint64) bool) {
		for k := range faultKinds {
			if !yield(k, s.faults[k].Load()) {
				return
			}
		}
	}
}

// Site returns the counters of the site with this name, always the same ones.
// A Handler asks once for each of its sites.
func (s *Stats) Site(name string) *SiteStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	site := s.sites[name]
	if site == nil {
		site = newSiteStats()
		s.sites[name] = site
	}
	return site
}

// Sites yields a copy of every site's counters, by name. A site that is no
// longer configured keeps its counters.
func (s *Stats) Sites() iter.Seq2[string, *SiteCounts] {
	return func(yield func(string, *SiteCounts) bool) {
		s.mu.RLock()
		sites := maps.Clone(s.sites)
		s.mu.RUnlock()
		for _, name := range slices.Sorted(maps.Keys(sites)) {
			if !yield(name, sites[name].counts()) {
				return
			}
		}
	}
}

// SiteStats counts the requests of one site.
type SiteStats struct {
	// Shards keep cores from writing the same cache lines: a shared counter
	// costs about five times one's own (DEPENDENCIES.md, 10).
	shards []siteShard
	bounds []time.Duration
	crowds crowds
}

type siteShard struct {
	requests  [outcomes][protos][statusClasses]atomic.Uint64
	bytes     [outcomes]atomic.Uint64
	durations [outcomes][buckets]atomic.Uint64
	nanos     [outcomes]atomic.Uint64
	_         [64]byte // keeps the next shard off this one's last line
}

func newSiteStats() *SiteStats {
	n := 1
	for n < min(runtime.GOMAXPROCS(0), 16) {
		n <<= 1
	}
	return &SiteStats{shards: make([]siteShard, n), bounds: DurationBounds()}
}

// Count adds one finished request. bytes is the content sent and d how long it
// took; a negative one counts as 0. It allocates nothing.
func (s *SiteStats) Count(o Outcome, proto Proto, status int, bytes int64, d time.Duration) {
	o, proto = min(o, Fault), min(proto, H3)
	class := status / 100
	if class < 1 || class >= statusClasses {
		class = 0
	}
	d = max(d, 0)
	bucket := 0
	for bucket < len(s.bounds) && d > s.bounds[bucket] {
		bucket++
	}
	shard := &s.shards[rand.Uint32()&uint32(len(s.shards)-1)]
	shard.requests[o][proto][class].Add(1)
	shard.bytes[o].Add(uint64(max(bytes, 0)))
	shard.durations[o][bucket].Add(1)
	shard.nanos[o].Add(uint64(d))
}

// SiteCounts is a copy of one site's counters.
type SiteCounts struct {
	// Requests are by outcome, protocol and status class (index 1 is 1xx; 0 is
	// a status outside of 100 to 599).
	Requests [outcomes][protos][statusClasses]uint64
	Bytes    [outcomes]uint64
	// Durations are how many requests fell into each bucket of
	// DurationBounds, not cumulative; Total is their sum.
	Durations [outcomes][buckets]uint64
	Total     [outcomes]time.Duration
	// Crowded is how often a variant pushed out another because its URL had as
	// many as are kept; Crowds are the URLs where that happens most.
	Crowded uint64
	Crowds  []Crowd
}

// Count is how many requests had outcome o.
func (c *SiteCounts) Count(o Outcome) uint64 {
	var n uint64
	for _, v := range c.Durations[min(o, Fault)] {
		n += v
	}
	return n
}

// counts adds up the shards. A request counted meanwhile may be in some of the
// figures and not yet in others.
func (s *SiteStats) counts() *SiteCounts {
	c := new(SiteCounts)
	c.Crowded, c.Crowds = s.crowds.all()
	for i := range s.shards {
		shard := &s.shards[i]
		for o := range outcomes {
			for p := range shard.requests[o] {
				for class := range shard.requests[o][p] {
					c.Requests[o][p][class] += shard.requests[o][p][class].Load()
				}
			}
			for b := range shard.durations[o] {
				c.Durations[o][b] += shard.durations[o][b].Load()
			}
			c.Bytes[o] += shard.bytes[o].Load()
			c.Total[o] += time.Duration(shard.nanos[o].Load())
		}
	}
	return c
}
