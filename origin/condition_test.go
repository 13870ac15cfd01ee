package origin

import (
	"bytes"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// load asks p, n times in a second, for seconds, and returns what came of it by
// answering server or error kind.
func load(t *testing.T, p *Pool, rate, seconds int) map[string]int {
	t.Helper()
	var mu sync.Mutex
	got := map[string]int{}
	var wg sync.WaitGroup
	for range rate * seconds {
		wg.Go(func() {
			r := get(t, p)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case r.err != nil:
				got[kind(r.err)]++
			case r.status != 200:
				got[itoa(r.status)]++
			default:
				got[r.body]++
			}
		})
		time.Sleep(time.Second / time.Duration(rate))
	}
	wg.Wait()
	return got
}

// lines is a log that tests read.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), s)
}

func (l *lines) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// TestConsecutiveFailuresEject has one of three servers fail: after five
// failures it gets nothing for ten seconds, then for twenty.
func TestConsecutiveFailuresEject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lines
		f := newFleet("a", "b", "c")
		f.set("a", always(reply{raw: status(503)}))
		p, stop := f.pool(t, Config{Log: log.logger(), Breaker: Breaker{Share: -1}, SlowStart: -1}, "a", "b", "c")
		defer stop()
		for _, step := range []struct {
			seconds, failures int
			state             string
		}{
			{5, 5, "ejected"},
			{9, 5 + 5, "ejected"}, // back at 10s and something, then out for 20s
			{16, 5 + 5, "ejected"},
		} {
			load(t, p, 10, step.seconds)
			st := p.Stats().server("a")
			if st.State != step.state || int(st.Failures) != step.failures {
				t.Errorf("got %+v, want %s after %d failures", st, step.state, step.failures)
			}
		}
		f.set("a", always(reply{}))
		got := load(t, p, 10, 10)
		if st := p.Stats().server("a"); st.State != "healthy" || got["a"] < 10 {
			t.Errorf("well again: got %+v and answers %v", st, got)
		}
		if log.count("ejected: 5 failures in a row") != 2 || log.count("ejection over") != 2 {
			t.Errorf("log:\n%s", log.b.String())
		}
	})
}

// TestTheLastServerStaysIn has all servers fail: half may be ejected, the breaker
// spares one, and when another one goes too there is always one to ask.
func TestTheLastServerStaysIn(t *testing.T) {
	for _, names := range [][]string{{"a"}, {"a", "b"}, {"a", "b", "c", "d"}} {
		synctest.Test(t, func(t *testing.T) {
			f := newFleet(names...)
			for _, name := range names {
				f.set(name, always(reply{close: true}))
			}
			p, stop := f.pool(t, Config{}, names...)
			defer stop()
			for range 30 {
				load(t, p, 20, 1)
				p.mu.Lock()
				in := slices.ContainsFunc(p.servers, func(s *server) bool { return s.well() })
				p.mu.Unlock()
				if !in {
					t.Fatalf("%d servers: none is left in: %+v", len(names), p.Stats().Servers)
				}
			}
			for _, name := range names {
				f.set(name, always(reply{}))
			}
			load(t, p, 20, 20)
			if got := load(t, p, 20, 5); got[connTerminated] > 0 || len(got) != len(names) {
				t.Errorf("all well again: got %v, want answers by all of %v", got, names)
			}
		})
	}
}

// TestAllUnhealthyMeansTheBest: active checks may take all servers out.
func TestAllUnhealthyMeansTheBest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet("a", "b")
		notThere := func(req *http.Request) reply {
			if req.URL.Path == "/health" {
				return reply{raw: status(500)}
			}
			return reply{}
		}
		f.set("a", func(h *host) { h.reply = notThere })
		f.set("b", func(h *host) { h.reply = notThere })
		p, stop := f.pool(t, Config{Health: Health{Path: "/health"}}, "a", "b")
		defer stop()
		p.Start()
		time.Sleep(time.Minute)
		if r := get(t, p); r.status != 200 || p.Stats().server("a").State != "unhealthy" || p.Stats().server("b").State != "unhealthy" {
			t.Errorf("got %+v, %+v, want an answer though both are unhealthy", r, p.Stats().Servers)
		}
	})
}

// TestSlowDriftEjects has one server's latency drift from 50ms to 5s: it is taken
// out, and what it gets until then is little.
func TestSlowDriftEjects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lines
		f := newFleet("a", "b", "c")
		begun := time.Now()
		for _, name := range []string{"b", "c"} {
			f.set(name, always(reply{after: 50 * time.Millisecond}))
		}
		f.set("a", func(h *host) {
			h.reply = func(*http.Request) reply {
				return reply{after: 50*time.Millisecond + min(time.Since(begun)/20, 5*time.Second)}
			}
		})
		p, stop := f.pool(t, Config{Log: log.logger()}, "a", "b", "c")
		defer stop()
		load(t, p, 30, 40)
		st := p.Stats().server("a")
		if log.count("ejected: answers take") == 0 || st.Breaker != "closed" || st.Failures != 0 {
			t.Errorf("got %+v, log\n%s\nwant it ejected for its latency alone", st, log.b.String())
		}
		for _, name := range []string{"b", "c"} {
			if s := p.Stats().server(name); s.State != "healthy" {
				t.Errorf("got %+v, want it in", s)
			}
		}
	})
}

// TestAllSlowIsNoOutlier: when every server slows down, none is taken out.
func TestAllSlowIsNoOutlier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet("a", "b", "c")
		for i, name := range []string{"a", "b", "c"} {
			f.set(name, always(reply{after: time.Duration(2+i) * time.Second}))
		}
		p, stop := f.pool(t, Config{}, "a", "b", "c")
		defer stop()
		load(t, p, 30, 20)
		for _, s := range p.Stats().Servers {
			if s.State != "healthy" {
				t.Errorf("got %+v", s)
			}
		}
	})
}

// TestHalfOpenAfterCrash kills a server under load and starts it again: the
// breaker opens, tries one request at a time, and closes.
func TestHalfOpenAfterCrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lines
		f := newFleet("a", "b")
		p, stop := f.pool(t, Config{Log: log.logger(), Passive: Passive{Failures: -1}}, "a", "b")
		defer stop()
		load(t, p, 10, 1)
		f.kill("a")
		if got := load(t, p, 20, 12); got["b"] != 240 {
			t.Errorf("while a is down: got %v, want every answer from b", got)
		}
		dials := 0
		f.set("a", func(h *host) { dials, h.refuse = h.dials, false })
		if log.count("breaker open") < 2 || log.count("breaker half-open") < 1 || dials > 60 {
			t.Errorf("%d connections tried, log\n%s", dials, log.b.String())
		}
		load(t, p, 20, 20)
		if st := p.Stats().server("a"); st.Breaker != "closed" || log.count("breaker closed") != 1 {
			t.Errorf("well again: got %+v, log\n%s", st, log.b.String())
		}
		if got := load(t, p, 20, 10); got["a"] < 80 || got["a"]+got["b"] != 200 {
			t.Errorf("well again: got %v, want about half from a", got)
		}
	})
}

// TestFewProbes has a server that answers slowly when it comes back: while its
// breaker is half open only one request at a time goes there.
func TestFewProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet("a", "b")
		p, stop := f.pool(t, Config{Passive: Passive{Failures: -1}}, "a", "b")
		defer stop()
		f.set("a", func(h *host) { h.refuse = true })
		load(t, p, 50, 3)
		if st := p.Stats().server("a"); st.Breaker != "open" || st.BreakerOpenFor <= 0 {
			t.Fatalf("got %+v, want open", st)
		}
		f.set("a", func(h *host) { h.refuse = false; always(reply{after: time.Second})(h) })
		time.Sleep(5 * time.Second)
		asked := f.asked("a")
		go load(t, p, 50, 1)
		time.Sleep(900 * time.Millisecond)
		if n := f.asked("a") - asked; n != 1 || p.Stats().server("a").Breaker != "half-open" {
			t.Errorf("got %d requests, %+v, want one while it is half open", n, p.Stats().server("a"))
		}
		time.Sleep(time.Minute)
	})
}

// TestBurstsOf5xx: failures that are few among many do no harm.
func TestBurstsOf5xx(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lines
		f := newFleet("a", "b")
		n := 0
		f.set("a", func(h *host) {
			h.reply = func(*http.Request) reply {
				if n++; n%50 < 4 {
					return reply{raw: status(502)}
				}
				return reply{}
			}
		})
		p, stop := f.pool(t, Config{Log: log.logger(), Retry: Retry{On: []int{502}}}, "a", "b")
		defer stop()
		got := load(t, p, 100, 20)
		if got["502"] > 0 || log.count("ejected") > 0 || log.count("breaker") > 0 {
			t.Errorf("got %v, log\n%s\nwant every burst hidden and nothing opened", got, log.b.String())
		}
	})
}

func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet("a", "b")
		f.set("a", always(reply{after: time.Second}))
		f.set("b", always(reply{after: time.Second}))
		p, stop := f.pool(t, Config{}, "a", "b")
		defer stop()
		var wg sync.WaitGroup
		wg.Go(func() {
			if r := get(t, p); r.body != "a" {
				t.Errorf("under way: got %+v, want its answer", r)
			}
		})
		synctest.Wait()
		if err := p.Drain("a"); err != nil {
			t.Fatal(err)
		}
		if st := p.Stats().server("a"); st.State != "draining" || st.InFlight != 1 {
			t.Errorf("got %+v", st)
		}
		if err := p.Drain("b"); err == nil || !strings.Contains(err.Error(), "last server") {
			t.Errorf("the last server: got %v", err)
		}
		if err := p.Drain("c"); err == nil {
			t.Error("a server that is not there: got no error")
		}
		wg.Wait()
		if got := load(t, p, 10, 2); got["b"] != 20 || p.Stats().server("a").InFlight != 0 {
			t.Errorf("drained: got %v", got)
		}
		if err := p.Resume("http://a"); err != nil {
			t.Fatal(err)
		}
		if got := load(t, p, 10, 20); got["a"] < 50 {
			t.Errorf("resumed: got %v", got)
		}
	})
}

// TestEjectionsAreCapped has every server fail, and no breaker.
func TestEjectionsAreCapped(t *testing.T) {
	for _, tt := range []struct {
		servers int
		share   float64
		most    int
	}{{4, 0, 2}, {5, 0, 2}, {3, 0.1, 1}, {4, 1, 3}, {2, 0, 1}, {1, 1, 0}} {
		synctest.Test(t, func(t *testing.T) {
			names := []string{"a", "b", "c", "d", "e"}[:tt.servers]
			f := newFleet(names...)
			for _, name := range names {
				f.set(name, always(reply{close: true}))
			}
			p, stop := f.pool(t, Config{Breaker: Breaker{Share: -1}, Passive: Passive{MaxShare: tt.share}}, names...)
			defer stop()
			most := 0
			for range 20 {
				load(t, p, 20, 1)
				out := 0
				for _, s := range p.Stats().Servers {
					if s.State == "ejected" {
						out++
					}
				}
				most = max(most, out)
			}
			if most != tt.most {
				t.Errorf("%d servers, share %v: got %d out at once, want %d", tt.servers, tt.share, most, tt.most)
			}
		})
	}
}

// TestEjectionsGrowAndAreForgiven: each time longer than the last, unless the
// server was well for long.
func TestEjectionsGrowAndAreForgiven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, Config{Servers: []string{"http://a", "http://b"}, Dial: hang, Breaker: Breaker{Share: -1}})
		defer p.Close()
		s := p.servers[0]
		for i, step := range []struct{ well, out time.Duration }{
			{0, 10 * time.Second}, {time.Second, 20 * time.Second}, {time.Second, 30 * time.Second}, {31 * time.Second, 10 * time.Second},
		} {
			time.Sleep(step.well)
			for range 5 {
				p.report(s, saysBad, false, 0)
			}
			if st := p.Stats().Servers[0]; st.EjectedFor != step.out || st.Ejections != uint64(i+1) {
				t.Errorf("ejection %d: got the %d. for %v, want %v", i+1, st.Ejections, st.EjectedFor, step.out)
			}
			time.Sleep(step.out)
			if st := p.Stats().Servers[0]; st.State != "healthy" {
				t.Errorf("ejection %d: got %+v after it, want it back", i+1, st)
			}
		}
	})
}
