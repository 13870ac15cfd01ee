package origin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// tally is what a load of GETs and POSTs came to. POSTs carry a number each.
type tally struct {
	mu       sync.Mutex // guards the rest
	gets     int
	posts    int
	failures []error         // of GETs
	lost     map[string]loss // POSTs that failed
	kills    []loss          // when which server was killed
	seen     map[string]int  // POSTs that came to a server whole, how often
	spare    map[string]bool // POSTs that a server had when it was killed
}

// loss is what failed, and when.
type loss struct {
	at  time.Time
	err error
}

func newTally() *tally {
	return &tally{lost: map[string]loss{}, seen: map[string]int{}, spare: map[string]bool{}}
}

// ask sends request n: every fourth is a POST, the others are GETs of up to 64 KiB.
func (y *tally) ask(t testing.TB, p *Pool, n int) {
	size := []int{100, 5 << 10, 64 << 10}[n/4%3]
	if n%4 == 0 {
		id := "post-" + itoa(n)
		r := do(p, newRequest(t, "POST", "http://site.test/", strings.NewReader(id)))
		y.mu.Lock()
		defer y.mu.Unlock()
		y.posts++
		if r.err != nil {
			y.lost[id] = loss{time.Now(), r.err}
		}
		return
	}
	r := do(p, newRequest(t, "GET", "http://site.test/"+itoa(size), nil))
	if r.err == nil && (r.status != 200 || len(r.body) != size) {
		r.err = fmt.Errorf("status %d, %d bytes of %d", r.status, len(r.body), size)
	}
	y.mu.Lock()
	defer y.mu.Unlock()
	y.gets++
	if r.err != nil {
		y.failures = append(y.failures, r.err)
	}
}

// check fails the test unless every GET was answered, no POST was sent twice,
// and none failed but those that a killed server had.
func (y *tally) check(t *testing.T, st Stats) {
	t.Helper()
	y.mu.Lock()
	defer y.mu.Unlock()
	if len(y.failures) > 0 {
		t.Errorf("%d of %d GETs failed, the first with %v", len(y.failures), y.gets, y.failures[0])
	}
	for id, n := range y.seen {
		if n > 1 {
			t.Errorf("%s came to the servers %d times", id, n)
		}
	}
	for id, l := range y.lost {
		// Over TCP one may be on its way, and not yet read, when the server dies.
		dead := slices.ContainsFunc(y.kills, func(k loss) bool {
			return strings.Contains(l.err.Error(), k.err.Error()) && l.at.Sub(k.at).Abs() < 500*time.Millisecond
		})
		if !y.spare[id] && !dead {
			t.Errorf("%s failed, and no killed server had it: %v", id, l.err)
		}
	}
	t.Logf("%d GETs, %d POSTs of which %d were lost in flight; %d retries, %d connections", y.gets, y.posts, len(y.lost), st.Retries, st.Connects)
}

// TestServersAreKilledUnderLoad kills one of three servers every ten seconds, in
// the middle of what it does, and starts it again five seconds later.
func TestServersAreKilledUnderLoad(t *testing.T) {
	rate, seconds := 150, 120
	if long() {
		rate = 1000
	}
	synctest.Test(t, func(t *testing.T) {
		names := []string{"a", "b", "c"}
		f, y := newFleet(names...), newTally()
		working := map[string]map[string]bool{}
		for _, name := range names {
			working[name] = map[string]bool{}
			f.set(name, func(h *host) { h.reply = func(req *http.Request) reply { return y.serve(working[name], req) } })
		}
		p, stop := f.pool(t, Config{Timeouts: Timeouts{Settle: -1}}, names...)
		defer stop()
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			for n := 0; ; n++ {
				name := names[n%3]
				if !pause(ctx, 5*time.Second+6137*time.Microsecond) { // at no moment at which anything else happens
					return
				}
				y.mu.Lock()
				for id := range working[name] {
					y.spare[id] = true
				}
				y.mu.Unlock()
				f.kill(name)
				if !pause(ctx, 5*time.Second) {
					return
				}
				f.set(name, func(h *host) { h.refuse = false })
			}
		})
		for n := range rate * seconds {
			wg.Go(func() { y.ask(t, p, n) })
			time.Sleep(time.Second / time.Duration(rate))
		}
		cancel()
		wg.Wait()
		y.check(t, p.Stats())
		if len(y.lost) == 0 || p.Stats().Retries < 8 {
			t.Errorf("%d POSTs lost, %d retries: the servers were killed at idle moments", len(y.lost), p.Stats().Retries)
		}
	})
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// serve answers a request in two parts with rests before and between. working
// holds the POSTs under way.
func (y *tally) serve(working map[string]bool, req *http.Request) reply {
	rest := time.Duration(1+rand.IntN(30)) * time.Millisecond
	if req.Method == "POST" {
		b, _ := io.ReadAll(req.Body) // read already, and kept for this
		id := string(b)
		y.mu.Lock()
		defer y.mu.Unlock()
		y.seen[id]++
		working[id] = true
		return reply{after: rest, raw: okay("done"), done: func() {
			y.mu.Lock()
			defer y.mu.Unlock()
			delete(working, id)
		}}
	}
	var size int
	fmt.Sscanf(req.URL.Path, "/%d", &size)
	whole := okay(strings.Repeat("x", size))
	return reply{after: rest, raw: whole[:len(whole)/2], gap: rest, rest: whole[len(whole)/2:]}
}

// TestServersAreKilledOverTCP is the same over real sockets, and with every
// moment possible.
func TestServersAreKilledOverTCP(t *testing.T) {
	if !long() {
		t.Skip("takes two minutes and both processors: set SEAWALL_LONG=1")
	}
	const rate, seconds = 2000, 120
	y := newTally()
	var mortals []*mortal
	cfg := Config{}
	for range 3 {
		m := newMortal(t, y)
		mortals = append(mortals, m)
		cfg.Servers = append(cfg.Servers, "http://"+m.addr)
	}
	p := mustNew(t, cfg)
	defer p.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 0; pause(ctx, 5*time.Second); n++ {
			mortals[n%3].kill()
			pause(ctx, 5*time.Second)
			mortals[n%3].start()
		}
	})
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for n := 0; n < rate*seconds; {
		<-tick.C
		for range rate / 100 {
			at := n // n moves on
			wg.Go(func() { y.ask(t, p, at) })
			n++
		}
	}
	cancel()
	wg.Wait()
	y.check(t, p.Stats())
	for _, m := range mortals {
		m.kill()
	}
}

// mortal is a server over TCP that can be killed and started again.
type mortal struct {
	t    *testing.T
	y    *tally
	addr string

	mu      sync.Mutex // guards the rest
	srv     *http.Server
	conns   map[net.Conn]bool
	working map[string]bool
	ended   chan struct{}
}

func newMortal(t *testing.T, y *tally) *mortal {
	m := &mortal{t: t, y: y, addr: "127.0.0.1:0"}
	m.start()
	return m
}

func (m *mortal) start() {
	l, err := net.Listen("tcp", m.addr)
	if err != nil {
		m.t.Error(err)
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.addr = l.Addr().String()
	m.conns, m.working, m.ended = map[net.Conn]bool{}, map[string]bool{}, make(chan struct{})
	ended := m.ended
	m.srv = &http.Server{Handler: m, ErrorLog: discardLog(), ConnState: func(c net.Conn, s http.ConnState) {
		m.mu.Lock()
		defer m.mu.Unlock()
		if s == http.StateNew {
			m.conns[c] = true
		} else if s == http.StateClosed {
			delete(m.conns, c)
		}
	}}
	srv := m.srv
	go func() { defer close(ended); _ = srv.Serve(l) }()
}

// kill resets all connections.
func (m *mortal) kill() {
	m.mu.Lock()
	m.y.mu.Lock()
	m.y.kills = append(m.y.kills, loss{time.Now(), errors.New(m.addr)})
	for id := range m.working {
		m.y.spare[id] = true
	}
	m.y.mu.Unlock()
	for c := range m.conns {
		_ = c.(*net.TCPConn).SetLinger(0)
	}
	srv, ended := m.srv, m.ended
	m.mu.Unlock()
	srv.Close()
	<-ended
}

func (m *mortal) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	if id := string(b); r.Method == "POST" {
		if err == nil && id != "" {
			m.y.mu.Lock()
			m.y.seen[id]++
			m.y.mu.Unlock()
			m.mu.Lock()
			m.working[id] = true
			m.mu.Unlock()
			defer func() { m.mu.Lock(); delete(m.working, id); m.mu.Unlock() }()
		}
	}
	pause(r.Context(), time.Duration(1+rand.IntN(10))*time.Millisecond)
	if errors.Is(r.Context().Err(), context.Canceled) {
		return
	}
	var size int
	fmt.Sscanf(r.URL.Path, "/%d", &size)
	w.Header().Set("Content-Length", itoa(size))
	io.WriteString(w, strings.Repeat("x", size))
}
