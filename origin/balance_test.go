package origin

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// chooserPool returns a pool of n servers, named s0 and so on, that is only
// asked whom it would choose.
func chooserPool(t testing.TB, b Balance, weights ...int) *Pool {
	t.Helper()
	cfg := Config{Balance: b, Dial: hang, MaxInFlight: 1 << 30}
	for i, w := range weights {
		cfg.Backends = append(cfg.Backends, Backend{URL: fmt.Sprintf("http://s%d.test", i), Name: fmt.Sprintf("s%d", i), Weight: w})
	}
	p := mustNew(t, cfg)
	t.Cleanup(func() { p.Close() })
	return p
}

// choice returns whom p chooses for a hint, and takes a place there.
func (p *Pool) choice(h Hint) *exchange {
	p.mu.Lock()
	defer p.mu.Unlock()
	x := &exchange{p: p, hint: h, req: &http.Request{RequestURI: "/", Host: "h"}}
	s, _ := p.chooseLocked(x, time.Now())
	p.seatLocked(x, s)
	return x
}

// chiSquared returns how far counts are from shares.
func chiSquared(counts []int, shares []int) float64 {
	n, total := 0, 0
	for i := range counts {
		n, total = n+counts[i], total+shares[i]
	}
	x := 0.0
	for i, c := range counts {
		want := float64(n) * float64(shares[i]) / float64(total)
		x += (float64(c) - want) * (float64(c) - want) / want
	}
	return x
}

// chiLimit is the value that chance exceeds once in about 100,000 runs (Wilson
// and Hilferty's approximation).
func chiLimit(freedom int) float64 {
	k := float64(freedom)
	return k * math.Pow(1-2/(9*k)+4.26*math.Sqrt(2/(9*k)), 3)
}

func TestSharesFollowWeights(t *testing.T) {
	equal, uneven, canary := []int{1, 1, 1, 1, 1}, []int{5, 1, 3, 1}, []int{99, 1}
	key := func(i int) Hint { return Hint{Key: "http://site.test/page/" + itoa(i)} }
	client := func(i int) Hint {
		return Hint{Client: netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})}
	}
	none := func(int) Hint { return Hint{} }
	tests := []struct {
		balance Balance
		weights []int
		hint    func(int) Hint
		exact   bool // never more than one off
	}{
		{RoundRobin, equal, none, true}, {RoundRobin, uneven, none, true}, {RoundRobin, canary, none, true},
		{LeastConnections, equal, none, true}, {LeastConnections, uneven, none, true}, {LeastConnections, canary, none, true},
		{KeyHash, equal, key, false}, {KeyHash, uneven, key, false}, {KeyHash, canary, key, false},
		{ClientHash, equal, client, false}, {ClientHash, uneven, client, false},
		{ClientHash, uneven, none, true},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprint(tt.balance, tt.weights), func(t *testing.T) {
			p := chooserPool(t, tt.balance, tt.weights...)
			counts := make([]int, len(tt.weights))
			for i := range 20000 {
				x := p.choice(tt.hint(i))
				counts[x.at.n]++
				x.leave()
			}
			limit := chiLimit(len(counts) - 1)
			if tt.exact {
				limit = 0.01
			}
			if x := chiSquared(counts, tt.weights); x > limit {
				t.Errorf("weights %v: got %v, chi-squared %.1f, want at most %.1f", tt.weights, counts, x, limit)
			}
		})
	}
}

// TestRoundRobinIsSmooth: a heavy server's turns are spread among the others'.
func TestRoundRobinIsSmooth(t *testing.T) {
	p := chooserPool(t, RoundRobin, 5, 1, 1)
	var got strings.Builder
	for range 14 {
		x := p.choice(Hint{})
		got.WriteString(itoa(x.at.n))
		x.leave()
	}
	if want := "00102000010200"; got.String() != want {
		t.Errorf("weights 5, 1, 1: got %s, want %s", got.String(), want)
	}
}

func TestLeastConnectionsLevelsLoad(t *testing.T) {
	p := chooserPool(t, LeastConnections, 4, 2, 1)
	for range 70 {
		p.choice(Hint{})
	}
	for i, want := range []int{40, 20, 10} {
		if got := p.servers[i].inFlight; got != want {
			t.Errorf("server %d: got %d of 70 in flight, want %d", i, got, want)
		}
	}
}

// TestLeastTimeAvoidsTheSlow: with two choices the slowest of five gets only what
// meets itself, and a tie in latency is settled by what is in flight.
func TestLeastTimeAvoidsTheSlow(t *testing.T) {
	p := chooserPool(t, LeastTime, 1, 1, 1, 1, 1)
	now := time.Now()
	for i, s := range p.servers {
		s.latency.add(time.Duration(10+90*(i/4))*time.Millisecond, now)
	}
	counts := make([]int, 5)
	for range 20000 {
		x := p.choice(Hint{})
		counts[x.at.n]++
		x.leave()
	}
	if counts[4] > 20 || chiSquared(counts[:4], []int{1, 1, 1, 1}) > 2000 {
		t.Errorf("got %v, want none for the slow server", counts)
	}
	for range 400 { // none ends: load must level among the fast ones
		p.choice(Hint{})
	}
	for i, s := range p.servers[:4] {
		if s.inFlight < 80 || s.inFlight > 120 {
			t.Errorf("server %d: got %d of 400 in flight, want about 98", i, s.inFlight)
		}
	}
	if n := p.servers[4].inFlight; n > 30 {
		t.Errorf("slow server: got %d of 400 in flight, want about 9", n)
	}
}

func TestLeastTimeGivesTheUnknownAChance(t *testing.T) {
	p := chooserPool(t, LeastTime, 1, 1)
	p.servers[0].latency.add(time.Millisecond, time.Now())
	for range 100 {
		p.choice(Hint{})
	}
	if n := p.servers[1].inFlight; n < 40 || n > 60 {
		t.Errorf("server without a measure: got %d of 100 in flight, want about 50", n)
	}
}

// TestKeysMoveLittle adds and removes one of ten servers.
func TestKeysMoveLittle(t *testing.T) {
	const keys = 20000
	weights := make([]int, 10)
	place := func(p *Pool) []string {
		out := make([]string, keys)
		for i := range out {
			x := p.choice(Hint{Key: "key " + itoa(i)})
			out[i] = x.at.id
			x.leave()
		}
		return out
	}
	ten, nine := place(chooserPool(t, KeyHash, weights...)), place(chooserPool(t, KeyHash, weights[:9]...))
	moved, needless := 0, 0
	for i := range ten {
		if ten[i] != nine[i] {
			moved++
			if ten[i] != "s9" {
				needless++
			}
		}
	}
	if moved == 0 || float64(moved) > keys*0.15 || needless > 0 {
		t.Errorf("one of ten servers more or less: %d of %d keys moved, %d of them needlessly, want at most %d and 0", moved, keys, needless, keys*15/100)
	}
	p := chooserPool(t, KeyHash, weights...)
	p.servers[3].down = true
	for i, id := range place(p) {
		if ten[i] != "s3" && id != ten[i] {
			t.Fatalf("key %d moved from %s to %s though only s3 is down", i, ten[i], id)
		}
	}
}

// TestHotKeysSpread checks the bound: no server has more than 1.25 times its
// share in flight, however hot one key is.
func TestHotKeysSpread(t *testing.T) {
	p := chooserPool(t, KeyHash, 1, 1, 1, 2)
	rnd := rand.New(rand.NewPCG(1, 2))
	for n := 1; n <= 1000; n++ {
		h := Hint{Key: "hot"}
		if rnd.IntN(3) == 0 {
			h.Key = itoa(n)
		}
		p.choice(h)
		for i, s := range p.servers {
			if bound := max(math.Ceil(1.25*float64(n)*s.weight/5), boundedLoadLeast); float64(s.inFlight) > bound {
				t.Fatalf("after %d requests: server %d has %d in flight, want at most %v", n, i, s.inFlight, bound)
			}
		}
	}
}

func TestClientHashGroupsIPv6Networks(t *testing.T) {
	p := chooserPool(t, ClientHash, 1, 1, 1, 1, 1, 1, 1, 1)
	at := func(addr string) *server {
		x := p.choice(Hint{Client: netip.MustParseAddr(addr)})
		defer x.leave()
		return x.at
	}
	if at("2001:db8:1:2::1") != at("2001:db8:1:2:ffff::9") {
		t.Error("addresses of one /64 go to different servers")
	}
	if at("192.0.2.7") != at("::ffff:192.0.2.7") {
		t.Error("an IPv4 address and its mapped form go to different servers")
	}
	seen := map[*server]bool{}
	for i := range 64 {
		seen[at(fmt.Sprintf("2001:db8:1:%x::1", i))] = true
	}
	if len(seen) < 6 {
		t.Errorf("64 networks: got %d of 8 servers", len(seen))
	}
}

func TestBackupsWait(t *testing.T) {
	cfg := Config{Dial: hang, Backends: []Backend{{URL: "http://a"}, {URL: "http://b"}, {URL: "http://c", Backup: true}}}
	p := mustNew(t, cfg)
	defer p.Close()
	asked := func() (got string) {
		for range 4 {
			x := p.choice(Hint{})
			got += x.at.name
			x.leave()
		}
		return got
	}
	a, b, c := p.servers[0], p.servers[1], p.servers[2]
	for _, step := range []struct {
		why    string
		change func()
		want   string
	}{
		{"all well", func() {}, "abab"},
		{"a is down", func() { a.down = true }, "bbbb"},
		{"a and b are down", func() { b.down = true }, "cccc"},
		{"all are down, b has failed least", func() { c.down = true; a.failures, b.failures, c.failures = 3, 2, 3 }, "bbbb"},
		{"all but b are ejected, which is worse", func() {
			a.down, c.down = false, false
			a.ejected, c.ejected = time.Now().Add(time.Hour), time.Now().Add(time.Hour)
			c.failures = 4
		}, "aaaa"},
	} {
		step.change()
		if got := asked(); got != step.want {
			t.Errorf("%s: got %s, want %s", step.why, got, step.want)
		}
	}
}

func TestSlowStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, Config{Servers: []string{"http://a", "http://b"}, Dial: hang, SlowStart: 10 * time.Second})
		defer p.Close()
		if err := p.Drain("http://a"); err != nil {
			t.Fatal(err)
		}
		p.choice(Hint{})
		if err := p.Resume("http://a"); err != nil {
			t.Fatal(err)
		}
		for _, step := range []struct {
			after    time.Duration
			min, max int // of 110
		}{{0, 9, 11}, {5 * time.Second, 36, 37}, {5 * time.Second, 54, 56}} {
			time.Sleep(step.after)
			n := 0
			for range 110 {
				if x := p.choice(Hint{}); x.at.name == "a" {
					n++
				}
			}
			if n < step.min || n > step.max {
				t.Errorf("%v later: got %d of 110, want %d to %d", step.after, n, step.min, step.max)
			}
		}
	})
}

func TestSticky(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet("a", "b", "c")
		p, stop := f.pool(t, Config{Sticky: Sticky{Cookie: "route", MaxAge: time.Hour, Secure: true}}, "a", "b", "c")
		defer stop()
		ask := func(h Hint, cookie string) (string, []string) {
			req := newRequest(t, "GET", "http://site.test/", nil)
			if cookie != "" {
				req.Header.Set("Cookie", cookie)
			}
			resp, err := p.RoundTripHint(req, h)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			b := make([]byte, 1)
			resp.Body.Read(b)
			return string(b), resp.Header["Set-Cookie"]
		}
		own := Hint{Uncached: true}
		first, set := ask(own, "")
		if len(set) != 1 || !strings.HasSuffix(set[0], "; Path=/; HttpOnly; SameSite=Lax; Max-Age=3600; Secure") || strings.Contains(set[0], first+".") {
			t.Fatalf("got %q", set)
		}
		cookie, _, _ := strings.Cut(set[0], ";")
		for range 6 {
			if got, set := ask(own, "x=y; "+cookie); got != first || set != nil {
				t.Errorf("with %s: got %s, %q, want %s and no new cookie", cookie, got, set, first)
			}
		}
		maybe := Hint{Cookie: new(string)}
		if got, set := ask(maybe, cookie); got != first || set != nil || *maybe.Cookie != "" {
			t.Errorf("perhaps its own, with %s: got %s, %q, %q, want %s and no new cookie", cookie, got, set, *maybe.Cookie, first)
		}
		if got, set := ask(maybe, ""); set != nil || *maybe.Cookie == "" || (got == first) != strings.HasPrefix(*maybe.Cookie, cookie) {
			t.Errorf("perhaps its own: got %s, %q, %q, want no cookie in the answer but that of %s beside it", got, set, *maybe.Cookie, got)
		}
		shared := map[string]bool{}
		for range 3 {
			got, set := ask(Hint{}, cookie)
			if shared[got] = true; set != nil {
				t.Errorf("cached traffic: got %q", set)
			}
		}
		if len(shared) != 3 {
			t.Errorf("cached traffic with a cookie: got %v, want all three servers", shared)
		}
		f.kill(first)
		got, set := ask(own, cookie)
		if got == first || len(set) != 1 || strings.HasPrefix(set[0], cookie) {
			t.Errorf("its server is down: got %s, %q, want another one and its cookie", got, set)
		}
		if _, set := ask(own, "route=forged"); len(set) != 1 {
			t.Errorf("a cookie that names nobody: got %q, want a new one", set)
		}
	})
}

func TestStickyPath(t *testing.T) {
	for _, c := range []struct{ cookie, path, want string }{
		{"at", "", "/"}, {"at", "/", "/"}, {"at", "/api", "/api"}, {"at", "/a%20b/c,d", "/a%20b/c,d"},
		{"at", "/api; Domain=site.test", "/"}, {"at", "/a;v=1", "/"}, {"at", "/ü", "/"}, {"at", "api", "/"}, {"__host-at", "/api", "/"}, {"__Secure-at", "/api", "/api"},
	} {
		if got := (&Sticky{Cookie: c.cookie, Path: c.path}).path(); got != c.want {
			t.Errorf("cookie %s, path %q: got %q, want %q", c.cookie, c.path, got, c.want)
		}
	}
}

func BenchmarkChoose(b *testing.B) {
	for _, balance := range []Balance{RoundRobin, LeastConnections, LeastTime, ClientHash, KeyHash} {
		b.Run(string(balance), func(b *testing.B) {
			p := chooserPool(b, balance, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1)
			h := Hint{Key: "http://site.test/a/page", Client: netip.MustParseAddr("192.0.2.1")}
			x := &exchange{p: p, hint: h, req: &http.Request{RequestURI: "/", Host: "h"}}
			b.ReportAllocs()
			for b.Loop() {
				p.mu.Lock()
				x.counted = false
				s, _ := p.chooseLocked(x, time.Now())
				p.seatLocked(x, s)
				p.mu.Unlock()
				x.leave()
			}
		})
	}
}
