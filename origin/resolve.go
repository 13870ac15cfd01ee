package origin

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Resolver looks up names of servers. A lifetime of 0 means that it is not
// known: then Config.ResolveEvery holds. Implementations also of SRVResolver
// make "srv+" servers possible.
type Resolver interface {
	Lookup(ctx context.Context, host string) (addrs []netip.Addr, lifetime time.Duration, err error)
}

// SRVResolver looks up SRV records (RFC 2782).
type SRVResolver interface {
	LookupSRV(ctx context.Context, name string) (records []*net.SRV, lifetime time.Duration, err error)
}

// systemResolver asks as the system is configured to. It does not learn
// lifetimes: Go's resolver does not tell them.
type systemResolver struct{}

func (systemResolver) Lookup(ctx context.Context, host string) ([]netip.Addr, time.Duration, error) {
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	return addrs, 0, err
}

func (systemResolver) LookupSRV(ctx context.Context, name string) ([]*net.SRV, time.Duration, error) {
	_, records, err := net.DefaultResolver.LookupSRV(ctx, "", "", name)
	return records, 0, err
}

const (
	// maxAddresses bounds what one name may mean.
	maxAddresses = 64
	maxTargets   = 16
	// triedAddresses bounds how many are tried for one connection.
	triedAddresses = 8
	// failedLookupRest is how long a failed lookup is not repeated while an old
	// answer is at hand.
	failedLookupRest = 5 * time.Second
	lookupTime       = 10 * time.Second
	leastLifetime    = time.Second // also of an error
	// attemptDelay is between two connection attempts (RFC 8305, 5 and 8).
	attemptDelay = 250 * time.Millisecond
)

var errNoAddress = errors.New("the name has no address")

// names knows the addresses behind a server's name. An answer is used until a
// newer one is there: when its lifetime is over, one lookup runs behind, and when
// that fails the old answer stays.
type names struct {
	p    *Pool
	host string
	srv  bool
	port uint16

	mu     sync.Mutex         // guards the fields below
	groups [][]netip.AddrPort // by SRV priority and weight; else one
	expiry time.Time
	asking *lookup // nil: none
	failed error   // of the last lookup, while nothing is known
	turn   int
}

// lookup is one under way. err is valid when done is closed.
type lookup struct {
	done chan struct{}
	err  error
}

func newNames(p *Pool, host string, srv bool, port string) *names {
	n, _ := strconv.ParseUint(port, 10, 16) // checked before
	names := &names{p: p, host: host, srv: srv, port: uint16(n)}
	if a, err := netip.ParseAddr(host); err == nil && !srv {
		names.groups = [][]netip.AddrPort{{netip.AddrPortFrom(a, names.port)}}
		names.expiry = time.Unix(1<<40, 0)
	}
	return names
}

// addresses returns where to connect to, the best first, looking the name up if
// nothing is known of it yet.
func (n *names) addresses(ctx context.Context) ([]netip.AddrPort, error) {
	n.mu.Lock()
	if time.Now().After(n.expiry) && n.asking == nil {
		n.asking = &lookup{done: make(chan struct{})}
		asking := n.asking
		n.p.inBackground(func() { n.refresh(asking) })
	}
	asking, known, failed := n.asking, n.groups != nil, n.failed
	n.mu.Unlock()
	if asking == nil && !known {
		return nil, failed
	}
	if !known {
		select {
		case <-asking.done:
		case <-n.p.ctx.Done():
			return nil, ErrClosed
		case <-ctx.Done():
			return nil, &net.DNSError{Err: ctx.Err().Error(), Name: n.host, IsTimeout: errors.Is(ctx.Err(), context.DeadlineExceeded)}
		}
		if asking.err != nil {
			return nil, asking.err
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.turn++
	var out []netip.AddrPort
	for _, group := range n.groups {
		out = append(out, interleave(group, n.turn-1)...)
	}
	return out[:min(len(out), triedAddresses)], nil
}

// refresh looks the name up and notes the answer.
func (n *names) refresh(l *lookup) {
	ctx, cancel := context.WithTimeout(n.p.ctx, lookupTime)
	defer cancel()
	groups, lifetime, err := n.ask(ctx)
	if lifetime <= 0 {
		lifetime = n.p.cfg.ResolveEvery
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case err == nil:
		n.groups, n.expiry, n.failed = groups, time.Now().Add(max(lifetime, leastLifetime)), nil
	case n.groups == nil:
		n.failed, n.expiry = err, time.Now().Add(leastLifetime)
	default:
		n.expiry = time.Now().Add(failedLookupRest)
		n.p.cfg.Log.Warn("origin name: lookup failed, the old addresses stay", "pool", n.p.cfg.Name, "name", n.host, "err", err)
	}
	l.err, n.asking = err, nil
	close(l.done)
}

// ask returns the addresses behind the name, for SRV a group for each target.
func (n *names) ask(ctx context.Context) (_ [][]netip.AddrPort, _ time.Duration, err error) {
	defer func() { // Config.Resolver is the caller's, and here nobody could catch it
		if p := recover(); p != nil {
			err = &net.DNSError{Err: fmt.Sprintf("panic: %v", p), Name: n.host}
		}
	}()
	if !n.srv {
		group, lifetime, err := n.lookup(ctx, n.host, n.port)
		return [][]netip.AddrPort{group}, lifetime, err
	}
	r, ok := n.p.cfg.Resolver.(SRVResolver)
	if !ok {
		return nil, 0, errors.New("the resolver knows no SRV records")
	}
	records, lifetime, err := r.LookupSRV(ctx, n.host)
	if err != nil {
		return nil, 0, err
	}
	var groups [][]netip.AddrPort
	var failed error
	for _, rec := range inOrder(records) {
		group, life, err := n.lookup(ctx, rec.Target, rec.Port)
		if err != nil {
			failed = err
			continue
		}
		if life > 0 && (lifetime <= 0 || life < lifetime) {
			lifetime = life
		}
		groups = append(groups, group)
	}
	if len(groups) == 0 {
		return nil, 0, errors.Join(&net.DNSError{Err: errNoAddress.Error(), Name: n.host, IsNotFound: true}, failed)
	}
	return groups, lifetime, nil
}

func (n *names) lookup(ctx context.Context, host string, port uint16) ([]netip.AddrPort, time.Duration, error) {
	addrs, lifetime, err := n.p.cfg.Resolver.Lookup(ctx, host)
	if err == nil && len(addrs) == 0 {
		err = &net.DNSError{Err: errNoAddress.Error(), Name: host, IsNotFound: true}
	}
	if err != nil {
		if !isDNS(err) {
			err = &net.DNSError{UnwrapErr: err, Err: err.Error(), Name: host, IsTimeout: isTimeout(err)}
		}
		return nil, 0, err
	}
	var out []netip.AddrPort
	for _, a := range addrs[:min(len(addrs), maxAddresses)] {
		out = append(out, netip.AddrPortFrom(a.Unmap(), port))
	}
	return out, lifetime, nil
}

// inOrder returns records by priority, and at random by weight within one (RFC
// 2782). A target of "." offers nothing.
func inOrder(records []*net.SRV) []*net.SRV {
	left := slices.DeleteFunc(slices.Clone(records), func(r *net.SRV) bool { return r == nil || r.Target == "." || r.Target == "" })
	slices.SortStableFunc(left, func(a, b *net.SRV) int { return int(a.Priority) - int(b.Priority) })
	var out []*net.SRV
	for len(left) > 0 && len(out) < maxTargets {
		same, total := 0, 0
		for same < len(left) && left[same].Priority == left[0].Priority {
			total += int(left[same].Weight) + 1 // none is never chosen
			same++
		}
		i := 0
		for at := rand.IntN(total); at > int(left[i].Weight); i++ {
			at -= int(left[i].Weight) + 1
		}
		out = append(out, left[i])
		left = slices.Delete(left, i, i+1)
	}
	return out
}

// interleave orders the addresses of one host for connecting: families in turn,
// beginning with that of the first (RFC 8305, 4), and each begun at another
// address every time, so that connections spread over all.
func interleave(addrs []netip.AddrPort, turn int) []netip.AddrPort {
	var families [2][]netip.AddrPort
	first := 0
	for i, a := range addrs {
		f := 0
		if a.Addr().Is4() {
			f = 1
		}
		if i == 0 {
			first = f
		}
		families[f] = append(families[f], a)
	}
	for f, of := range families {
		if len(of) > 1 {
			at := turn % len(of)
			families[f] = slices.Concat(of[at:], of[:at])
		}
	}
	a, b := families[first], families[1-first]
	out := make([]netip.AddrPort, 0, len(addrs))
	for i := range max(len(a), len(b)) {
		if i < len(a) {
			out = append(out, a[i])
		}
		if i < len(b) {
			out = append(out, b[i])
		}
	}
	return out
}

// gone reports whether a is an address that the name does not have any more:
// connections to it are not used again. Asking also keeps the name fresh while
// no new connection is made.
func (n *names) gone(a netip.AddrPort) bool {
	if n == nil || !a.IsValid() {
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if time.Now().After(n.expiry) && n.asking == nil {
		n.asking = &lookup{done: make(chan struct{})}
		asking := n.asking
		n.p.inBackground(func() { n.refresh(asking) })
	}
	return !slices.ContainsFunc(n.groups, func(group []netip.AddrPort) bool { return slices.Contains(group, a) })
}

// known returns the addresses as they were looked up last.
func (n *names) known() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []string
	for _, group := range n.groups {
		for _, a := range group {
			out = append(out, a.String())
		}
	}
	return out
}

// dial connects to the first address that answers: each next one is tried when
// the one before has failed, or has said nothing for 250 ms (RFC 8305, 5).
func (n *names) dial(ctx context.Context) (net.Conn, netip.AddrPort, error) {
	addrs, err := n.addresses(ctx)
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	if len(addrs) == 1 {
		nc, err := n.p.cfg.Dial(ctx, "tcp", addrs[0].String())
		return nc, addrs[0], err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type dialled struct {
		nc  net.Conn
		at  netip.AddrPort
		err error
	}
	ended := make(chan dialled)
	var first error
	begun, running := 0, 0
	begin := func() {
		at := addrs[begun]
		begun++
		running++
		go func() {
			nc, err := guarded(func() (net.Conn, error) { return n.p.cfg.Dial(ctx, "tcp", at.String()) })
			select {
			case ended <- dialled{nc, at, err}:
			case <-ctx.Done(): // another one was quicker, or nobody waits
				if err == nil {
					nc.Close()
				}
			}
		}()
	}
	begin()
	next := time.NewTimer(attemptDelay)
	defer next.Stop()
	for {
		select {
		case d := <-ended:
			if d.err == nil {
				return d.nc, d.at, nil
			}
			if first == nil {
				first = d.err
			}
			if running--; begun < len(addrs) {
				begin()
				next.Reset(attemptDelay)
			} else if running == 0 {
				return nil, netip.AddrPort{}, first
			}
		case <-next.C:
			if begun < len(addrs) {
				begin()
				next.Reset(attemptDelay)
			}
		case <-ctx.Done():
			return nil, netip.AddrPort{}, ctx.Err()
		}
	}
}
