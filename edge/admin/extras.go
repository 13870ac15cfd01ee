package admin

import "time"

// ExtrasFigures are of what the node does for functions.
type ExtrasFigures struct {
	KeySets   map[string]KeySetFigures   // fetched sets of keys, by name
	Databases map[string]DatabaseFigures // of addresses, by kind
}

// KeySetFigures are of one fetched set.
type KeySetFigures struct {
	Keys            int       // in use
	Fetched, Failed uint64    // fetches that worked, and that brought no page
	Unusable        uint64    // fetches of a page without keys that can be used
	Failing         int64     // fetches in a row without keys
	Unknown         uint64    // tokens with a kid that it does not have
	Good            time.Time // of the last fetch that worked; zero: none
}

// DatabaseFigures are of one database.
type DatabaseFigures struct {
	Built        time.Time // by its own word
	Read, Failed uint64    // readings of its file
	Size         int64     // bytes
}

// extras sends what the node does for functions. Names are the operator's.
func (s *sink) extras(h *Handler) {
	if h.Extras == nil {
		return
	}
	f := h.Extras()
	for name, k := range f.KeySets {
		s.gauge("jwks_keys", "Keys of the set in use.", float64(k.Keys), "set", name)
		s.counter("jwks_fetches_total", "Fetches of the set.", k.Fetched, "set", name, "result", "good")
		s.counter("jwks_fetches_total", "Fetches of the set.", k.Failed, "set", name, "result", "failed")
		s.counter("jwks_fetches_total", "Fetches of the set.", k.Unusable, "set", name, "result", "unusable")
		s.gauge("jwks_failing", "Fetches in a row that brought no keys; 0 when the last one did.", float64(k.Failing), "set", name)
		s.counter("jwks_unknown_total", "Tokens whose key id the set does not have.", k.Unknown, "set", name)
		if !k.Good.IsZero() {
			s.gauge("jwks_fetched_timestamp_seconds", "When the set was last fetched.", float64(k.Good.Unix()), "set", name)
		}
	}
	for name, d := range f.Databases {
		s.gauge("geo_build_timestamp_seconds", "When the database of addresses was built.", float64(d.Built.Unix()), "database", name)
		s.gauge("geo_bytes", "What it takes in memory.", float64(d.Size), "database", name)
		s.counter("geo_reads_total", "Readings of its file.", d.Read, "database", name, "result", "good")
		s.counter("geo_reads_total", "Readings of its file.", d.Failed, "database", name, "result", "failed")
	}
}
