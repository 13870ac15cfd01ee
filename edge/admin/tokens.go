package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Scope is what a token lets its holder do; a set of bits.
type Scope uint8

// The scopes. ScopeAdmin includes every other.
const (
	ScopeRead Scope = 1 << iota
	ScopePurge
	ScopePush
	ScopeFunctions
	ScopeAdmin
)

// scopeNames are in the order of the bits.
var scopeNames = [...]string{"read", "purge", "push", "functions", "admin"}

// ParseScope returns the scope of this name.
func ParseScope(s string) (Scope, error) {
	if i := slices.Index(scopeNames[:], s); i >= 0 {
		return 1 << i, nil
	}
	return 0, fmt.Errorf("%q is no scope", clip(s))
}

// String names the scopes of the set.
func (s Scope) String() string {
	var names []string
	for i, name := range scopeNames {
		if s&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, " ")
}

// Token is one who may call. Its text is known by its hash alone.
type Token struct {
	Name string
	// Hash is the SHA-256 of the token's text.
	Hash [sha256.Size]byte
	// Scopes are what it may do.
	Scopes Scope
	// Sites are those it may purge, push to and read of; nil is every one.
	Sites []string
}

// Access says who may call, and how often.
type Access struct {
	// Tokens are those known. Without any, loopback alone is answered.
	Tokens []Token
	// Rate is how many calls a second each token may make; 0 is no limit.
	Rate int
}

// holder is a token in use. Its limiter outlives changes of the others.
type holder struct {
	Token
	limit *rate.Limiter // nil without a limit
}

func (t *holder) has(s Scope) bool { return t.Scopes&(s|ScopeAdmin) != 0 }

// may reports whether the token's sites include this one.
func (t *holder) may(site string) bool { return t.Sites == nil || slices.Contains(t.Sites, site) }

// Permit puts a in the place of who might call so far. A token that stays as it
// was keeps what it has used of its rate.
func (h *Handler) Permit(a Access) {
	old := h.holders.Load()
	next := make([]*holder, 0, len(a.Tokens))
	for _, t := range a.Tokens {
		made := &holder{Token: t}
		if a.Rate > 0 {
			made.limit = rate.NewLimiter(rate.Limit(a.Rate), a.Rate)
		}
		if old != nil {
			for _, was := range *old {
				if was.Hash == t.Hash && was.limit != nil && made.limit != nil && was.limit.Limit() == made.limit.Limit() {
					made.limit = was.limit
				}
			}
		}
		next = append(next, made)
	}
	h.holders.Store(&next)
}

// find returns the holder of a token with this hash. It looks at every one, so
// that the time it takes tells nothing.
func find(all []*holder, hash [sha256.Size]byte) *holder {
	var found *holder
	for _, t := range all {
		if subtle.ConstantTimeCompare(t.Hash[:], hash[:]) == 1 {
			found = t
		}
	}
	return found
}

// tokenFields are the fields that may carry a token: Fastly's and Cloudflare's
// clients have their own.
var tokenFields = [...]string{"Authorization", "Fastly-Key", "X-Auth-Key"}

// presented returns the one token that r carries, "" without one. Two that
// differ are none.
func presented(r *http.Request) (token string, one bool) {
	for _, name := range tokenFields {
		for _, value := range r.Header[name] {
			if name == "Authorization" {
				scheme, rest, _ := strings.Cut(value, " ")
				if !strings.EqualFold(scheme, "Bearer") {
					continue
				}
				value = strings.TrimSpace(rest)
			}
			if value == "" || value == token {
				continue
			}
			if token != "" {
				return "", false
			}
			token = value
		}
	}
	return token, true
}

// The bounds of guessing: an address may fail so often at once, and once more
// every failEvery.
const (
	failBurst = 20
	failEvery = time.Second
	maxPeers  = 4096 // addresses remembered
)

// failures limits wrong tokens by address. One of the last few wrong tokens
// again is no guess and does not count: programs with old tokens must not lock
// out others on their machine.
type failures struct {
	mu    sync.Mutex
	peers map[netip.Prefix]*failing // guarded by mu; at most maxPeers
}

type failing struct {
	limit *rate.Limiter
	last  [8][sha256.Size]byte // a ring, whose next place is next
	next  int
}

func (p *failing) again(hash [sha256.Size]byte) bool { return slices.Contains(p.last[:], hash) }

// blocked reports whether the address has failed too often for its next token
// to be looked at, unless that is one that failed lately.
func (f *failures) blocked(from netip.Addr, hash [sha256.Size]byte, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.peers[network(from)]
	return p != nil && !p.again(hash) && p.limit.TokensAt(now) < 1
}

// failed notes a wrong token.
func (f *failures) failed(from netip.Addr, hash [sha256.Size]byte, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := network(from)
	p := f.peers[key]
	if p == nil {
		f.makeRoom(now)
		p = &failing{limit: rate.NewLimiter(rate.Every(failEvery), failBurst)}
		if f.peers == nil {
			f.peers = make(map[netip.Prefix]*failing)
		}
		f.peers[key] = p
	}
	if !p.again(hash) {
		p.limit.AllowN(now, 1)
		p.last[p.next] = hash
		p.next = (p.next + 1) % len(p.last)
	}
}

// makeRoom forgets addresses that have not failed for a while, else any one.
func (f *failures) makeRoom(now time.Time) {
	if len(f.peers) < maxPeers {
		return
	}
	for key, p := range f.peers {
		if p.limit.TokensAt(now) >= failBurst {
			delete(f.peers, key)
		}
	}
	for key := range f.peers {
		if len(f.peers) < maxPeers {
			return
		}
		delete(f.peers, key)
	}
}

// network is what counts as one address: an IPv4 address, or a /64 of IPv6,
// of which one machine has as many as it likes.
func network(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, err := a.Prefix(bits)
	if err != nil { // no address at all: all such are one
		return netip.Prefix{}
	}
	return p
}
