package wasm

import (
	"crypto/sha256"
	"encoding/binary"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"seawall/wasm/abi"
)

// Attached is a function at its place in a chain, with the version of it that
// some requests try.
type Attached struct {
	*Function
	// Candidate is the other version; nil is none. Loaded with Spec.Shadow, it
	// runs behind requests; else in the place of Function.
	Candidate *Function
	// Percent of the requests are the candidate's, from 0 to 100.
	Percent float64
	// Cookie is whose value chooses; without it, or for "", the client's address
	// does.
	Cookie string
}

// version is a candidate as a chain needs it.
type version struct {
	candidate *Function // nil: none
	name      string
	cookie    string
	all       bool
	below     uint64 // hashes that are the candidate's
}

// NewRollout is NewChain with candidates, which are retained too. One that is
// closed already gets no requests.
func NewRollout(list []Attached) *Chain {
	fs := make([]*Function, len(list))
	for i, a := range list {
		fs[i] = a.Function
	}
	c := NewChain(fs)
	for i, a := range list {
		if a.Candidate == nil || !(a.Percent > 0) || !a.Candidate.Retain() {
			continue
		}
		c.retained = append(c.retained, a.Candidate)
		if c.versions == nil {
			c.versions = make([]version, len(list))
		}
		v := version{candidate: a.Candidate, name: a.name, cookie: a.Cookie, all: a.Percent >= 100}
		if !v.all {
			v.below = uint64(a.Percent / 100 * (1 << 64))
		}
		c.versions[i] = v
	}
	return c
}

// choose gives each function of the run the version that it has to the end.
func (r *Run) choose() {
	for i := range r.entries {
		e, v := &r.entries[i], &r.chain.versions[i]
		e.f = r.chain.functions[i]
		switch {
		case v.candidate == nil || !v.has(r.x):
		case v.candidate.shadow != nil:
			e.trace = v.candidate.shadow.trace()
		default:
			e.f = v.candidate
		}
	}
}

// has reports whether a request is the candidate's. The same name, cookie or
// address, and percentage have the same answer on every node, and who is the
// candidate's at some percentage is so at every larger one.
func (v *version) has(x *abi.Exchange) bool {
	if v.all {
		return true
	}
	// A name has no colon, so that no two inputs are the same bytes.
	room := make([]byte, 0, 160)
	room = append(append(room, v.name...), ':')
	if value := cookie(x.Request.Header, v.cookie); value != "" {
		room = append(append(room, 'c'), value...)
	} else {
		room = appendClient(append(room, 'a'), x)
	}
	sum := sha256.Sum256(room)
	return binary.BigEndian.Uint64(sum[:8]) < v.below
}

// appendClient writes the client's address; of IPv6 the first 64 bits, as a
// client changes the others from hour to hour (RFC 8981).
func appendClient(to []byte, x *abi.Exchange) []byte {
	client := x.Facts.Client
	if client == "" {
		client, _, _ = net.SplitHostPort(x.Facts.Source)
	}
	ip, err := netip.ParseAddr(client)
	if err != nil {
		return append(to, client...)
	}
	ip = ip.Unmap().WithZone("")
	whole := ip.As16()
	if ip.Is6() {
		return append(to, whole[:8]...)
	}
	return append(to, whole[:]...)
}

// cookie returns the value of the first cookie of a name; "" is none.
func cookie(h http.Header, name string) string {
	if name == "" {
		return ""
	}
	for _, line := range h["Cookie"] {
		for pair := range strings.SplitSeq(line, ";") {
			if got, value, ok := strings.Cut(strings.TrimSpace(pair), "="); ok && got == name && value != "" {
				return value
			}
		}
	}
	return ""
}
