package origin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// zone is a resolver that answers what it is told.
type zone struct {
	mu       sync.Mutex // guards the rest
	addrs    map[string][]netip.Addr
	records  []*net.SRV
	lifetime time.Duration
	err      error
	delay    time.Duration
	asked    int
}

func (z *zone) Lookup(ctx context.Context, host string) ([]netip.Addr, time.Duration, error) {
	z.mu.Lock()
	z.asked++
	addrs, lifetime, err, delay := z.addrs[host], z.lifetime, z.err, z.delay
	z.mu.Unlock()
	select {
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	case <-time.After(delay):
	}
	return addrs, lifetime, err
}

func (z *zone) LookupSRV(context.Context, string) ([]*net.SRV, time.Duration, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.records, z.lifetime, z.err
}

func (z *zone) lookups() int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.asked
}

func (z *zone) set(host string, addrs ...string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.addrs == nil {
		z.addrs = make(map[string][]netip.Addr)
	}
	z.addrs[host] = nil
	for _, a := range addrs {
		z.addrs[host] = append(z.addrs[host], netip.MustParseAddr(a))
	}
}

// zonePool returns a pool whose one server is a name in z. Addresses are hosts of
// f; each answers with its address.
func zonePool(t *testing.T, f *fleet, z *zone, cfg Config) (*Pool, func()) {
	t.Helper()
	if cfg.Servers == nil {
		cfg.Servers = []string{"http://name.test"}
	}
	cfg.Resolver = z
	cfg.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		return f.dial(ctx, network, strings.NewReplacer("[", "", "]", "", "::", "v6-").Replace(addr))
	}
	p := mustNew(t, cfg)
	return p, func() { p.Close(); f.stop() }
}

// TestNamesAreLookedUpAgain changes a name's address under a load that would keep
// its connections for ever.
func TestNamesAreLookedUpAgain(t *testing.T) {
	for _, tt := range []struct{ lifetime, moved time.Duration }{{0, 30 * time.Second}, {7 * time.Second, 7 * time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			f, z := newFleet("192.0.2.1", "192.0.2.2"), &zone{lifetime: tt.lifetime}
			z.set("name.test", "192.0.2.1")
			p, stop := zonePool(t, f, z, Config{})
			defer stop()
			begun := time.Now()
			get(t, p)
			z.set("name.test", "192.0.2.2")
			for {
				time.Sleep(100 * time.Millisecond)
				r := get(t, p)
				if r.err != nil {
					t.Fatal(r.err)
				}
				if r.body == "192.0.2.2" {
					break
				}
			}
			if d := time.Since(begun); d < tt.moved || d > tt.moved+300*time.Millisecond {
				t.Errorf("lifetime %v: the new address was used after %v, want %v", tt.lifetime, d, tt.moved)
			}
			for range 10 {
				time.Sleep(time.Second)
				if r := get(t, p); r.body != "192.0.2.2" {
					t.Errorf("later: got %+v", r)
				}
			}
			if got := p.Stats().Servers[0].Addresses; !slices.Equal(got, []string{"192.0.2.2:80"}) {
				t.Errorf("got addresses %v", got)
			}
		})
	}
}

func TestOldAddressesStayWhenLookupsFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, z := newFleet("192.0.2.1"), &zone{}
		z.set("name.test", "192.0.2.1")
		p, stop := zonePool(t, f, z, Config{})
		defer stop()
		get(t, p)
		z.mu.Lock()
		z.err, z.delay = errors.New("server misbehaving"), 3*time.Second
		z.mu.Unlock()
		for range 100 {
			begun := time.Now()
			if r := get(t, p); r.body != "192.0.2.1" || time.Since(begun) > 0 {
				t.Fatalf("got %+v after %v, want an answer at once", r, time.Since(begun))
			}
			time.Sleep(time.Second)
		}
		if n := z.lookups(); n < 8 || n > 12 {
			t.Errorf("in 100s: %d lookups, want one each 8s since the 30th", n)
		}
	})
}

func TestFailedLookups(t *testing.T) {
	tests := []struct {
		name  string
		zone  *zone
		kind  string
		after time.Duration
	}{
		{"error", &zone{err: errors.New("x")}, dnsError, 0},
		{"no such name", &zone{err: &net.DNSError{IsNotFound: true}}, dnsError, 0},
		{"no address", &zone{}, dnsError, 0},
		{"timeout of the resolver", &zone{err: context.DeadlineExceeded}, dnsTimeout, 0},
		{"never answers", &zone{delay: time.Hour}, dnsTimeout, 5 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet("192.0.2.1")
				f.set("192.0.2.1", func(h *host) { h.refuse = true })
				p, stop := zonePool(t, f, tt.zone, Config{})
				defer stop()
				begun := time.Now()
				var wg sync.WaitGroup
				for range 10 {
					wg.Go(func() {
						r := get(t, p)
						var e *Error
						if kind(r.err) != tt.kind || time.Since(begun) != tt.after || !errors.As(r.err, &e) || !e.Unanswered() {
							t.Errorf("got %v after %v, want %s after %v", r.err, time.Since(begun), tt.kind, tt.after)
						}
					})
				}
				wg.Wait()
				if n := tt.zone.lookups(); n != 1 {
					t.Errorf("%d lookups for ten requests at once", n)
				}
				tt.zone.mu.Lock()
				tt.zone.err, tt.zone.delay = nil, 0
				tt.zone.mu.Unlock()
				tt.zone.set("name.test", "192.0.2.1")
				time.Sleep(lookupTime + leastLifetime)
				if r := get(t, p); kind(r.err) != connRefused {
					t.Errorf("the name is there now: got %v, want its address asked", r.err)
				}
			})
		})
	}
}

func TestHappyEyeballs(t *testing.T) {
	const ms = time.Millisecond
	refused := &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	type way struct {
		takes time.Duration
		err   error
	}
	tests := []struct {
		name  string
		addrs []string
		ways  map[string]way
		got   string // "": none
		after time.Duration
		tries int
	}{
		{"first family answers", []string{"2001:db8::1", "192.0.2.1"}, map[string]way{"2001:db8::1": {100 * ms, nil}, "192.0.2.1": {0, nil}}, "2001:db8::1", 100 * ms, 1},
		{"first family is dead", []string{"2001:db8::1", "2001:db8::2", "192.0.2.1"}, map[string]way{"2001:db8::1": {time.Hour, nil}, "2001:db8::2": {time.Hour, nil}, "192.0.2.1": {10 * ms, nil}}, "192.0.2.1", 260 * ms, 2},
		{"first family refuses", []string{"2001:db8::1", "192.0.2.1"}, map[string]way{"2001:db8::1": {5 * ms, refused}, "192.0.2.1": {10 * ms, nil}}, "192.0.2.1", 15 * ms, 2},
		{"first is slow and wins", []string{"2001:db8::1", "192.0.2.1"}, map[string]way{"2001:db8::1": {300 * ms, nil}, "192.0.2.1": {100 * ms, nil}}, "2001:db8::1", 300 * ms, 2},
		{"all refuse", []string{"2001:db8::1", "192.0.2.1"}, map[string]way{"2001:db8::1": {0, refused}, "192.0.2.1": {0, refused}}, "", 0, 2},
		{"all are dead", []string{"2001:db8::1", "192.0.2.1"}, map[string]way{"2001:db8::1": {time.Hour, nil}, "192.0.2.1": {time.Hour, nil}}, "", 5 * time.Second, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				z := new(zone)
				z.set("name.test", tt.addrs...)
				var mu sync.Mutex
				tries, open := 0, 0
				cfg := Config{Servers: []string{"http://name.test:8080"}, Resolver: z}
				cfg.Dial = func(ctx context.Context, _, addr string) (net.Conn, error) {
					at := netip.MustParseAddrPort(addr)
					mu.Lock()
					tries++
					mu.Unlock()
					w := tt.ways[at.Addr().String()]
					if at.Port() != 8080 {
						t.Errorf("port %d", at.Port())
					}
					time.Sleep(w.takes) // heedless of ctx: a late connection must be closed
					if w.err != nil {
						return nil, w.err
					}
					client, server := net.Pipe()
					mu.Lock()
					open++
					mu.Unlock()
					go func() {
						p := &peer{server, nil}
						b := make([]byte, 1000)
						if n, _ := server.Read(b); n > 0 {
							p.send(okay(at.Addr().String()))
							server.Read(b)
						}
						server.Close()
						mu.Lock()
						open--
						mu.Unlock()
					}()
					return client, nil
				}
				p := mustNew(t, cfg)
				begun := time.Now()
				r := get(t, p)
				mu.Lock()
				if d := time.Since(begun); r.body != tt.got || d != tt.after || (r.err != nil) != (tt.got == "") || tries != tt.tries {
					t.Errorf("got %q, %v after %v and %d tries, want %q after %v and %d", r.body, r.err, d, tries, tt.got, tt.after, tt.tries)
				}
				mu.Unlock()
				p.Close()
				time.Sleep(2 * time.Hour)
				synctest.Wait()
				mu.Lock()
				defer mu.Unlock()
				if open != 0 {
					t.Errorf("%d connections were left open", open)
				}
			})
		})
	}
}

func TestAddressesTakeTurns(t *testing.T) {
	var in []netip.AddrPort
	for _, a := range []string{"2001:db8::1", "2001:db8::2", "192.0.2.1", "192.0.2.2", "192.0.2.3"} {
		in = append(in, netip.AddrPortFrom(netip.MustParseAddr(a), 80))
	}
	for turn, want := range []string{"1a2bc", "2b1ca", "1c2ab"} {
		got := ""
		for _, a := range interleave(in, turn) {
			b := a.Addr().AsSlice()
			last := string(rune('0' + b[len(b)-1]))
			if a.Addr().Is4() {
				last = string(rune('a' - 1 + b[3]))
			}
			got += last
		}
		if got != want {
			t.Errorf("turn %d: got %s, want %s", turn, got, want)
		}
	}
}

func TestSRV(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, z := newFleet("192.0.2.1", "192.0.2.2"), new(zone)
		z.set("one.test.", "192.0.2.1")
		z.set("two.test.", "192.0.2.2")
		z.records = []*net.SRV{{Target: "two.test.", Port: 81, Priority: 2}, {Target: "one.test.", Port: 8081, Priority: 1}, {Target: "gone.test.", Port: 1, Priority: 0}}
		p, stop := zonePool(t, f, z, Config{Servers: []string{"srv+http://_http._tcp.name.test"}, MaxIdle: -1, Host: "origin"})
		defer stop()
		if r := get(t, p); r.body != "192.0.2.1" {
			t.Errorf("got %+v, want the target of least priority that exists", r)
		}
		f.set("192.0.2.1", func(h *host) { h.refuse = true })
		if r := get(t, p); r.body != "192.0.2.2" {
			t.Errorf("got %+v, want the next target", r)
		}
		if got := p.Stats().Servers[0].Addresses; !slices.Equal(got, []string{"192.0.2.1:8081", "192.0.2.2:81"}) {
			t.Errorf("got %v", got)
		}
	})
}

func TestSRVOrder(t *testing.T) {
	records := []*net.SRV{nil, {Target: "c", Priority: 2}, {Target: "a", Priority: 1, Weight: 299}, {Target: "b", Priority: 1, Weight: 99}, {Target: "."}}
	first := map[string]int{}
	for range 4000 {
		got := inOrder(records)
		if len(got) != 3 || got[2].Target != "c" {
			t.Fatalf("got %v", fmt.Sprint(got))
		}
		first[got[0].Target]++
	}
	if x := chiSquared([]int{first["a"], first["b"]}, []int{3, 1}); x > chiLimit(1) {
		t.Errorf("got %v, want 3 to 1", first)
	}
}

func TestResolverIsNotAskedForAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, z := newFleet("192.0.2.1"), new(zone)
		p, stop := zonePool(t, f, z, Config{Servers: []string{"http://192.0.2.1"}})
		defer stop()
		if r := get(t, p); r.err != nil || z.lookups() != 0 {
			t.Errorf("got %v and %d lookups", r.err, z.lookups())
		}
	})
}
