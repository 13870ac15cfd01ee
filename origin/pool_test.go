package origin

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// answersOnce answers a request, reads more without answering, and closes
// later.
func answersOnce(more int, after time.Duration) func(*peer) {
	return func(p *peer) {
		p.request()
		p.send(hello)
		for range more {
			p.request()
		}
		time.Sleep(after)
	}
}

func TestIdleConnectionThatClosedIsNotUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, o, stop := pipePool(t, Config{}, answersOnce(0, time.Second))
		defer stop()
		get(t, p)
		time.Sleep(2 * time.Second)
		r := do(p, newRequest(t, "POST", "http://site.test/", strings.NewReader("x")))
		if st := p.Stats(); r.err != nil || o.dialled() != 2 || st.Retries != 0 || st.Surplus != 0 {
			t.Errorf("got %v, %d connections, %+v, want a second connection without a retry", r.err, o.dialled(), st)
		}
	})
}

// closesOnReuse answers once, reads what comes next and closes.
func closesOnReuse(p *peer) {
	p.request()
	p.send(hello)
	p.head()
}

func TestRetry(t *testing.T) {
	partly := func(p *peer) { p.request(); p.send(hello); p.head(); p.send("HTTP/1.1") }
	tests := []struct {
		name, method string
		origins      []func(*peer)
		body         io.Reader
		expect       bool
		kind         string
		retries      uint64
		dials        int
	}{
		{"GET", "GET", []func(*peer){closesOnReuse, answers(hello)}, nil, false, "", 1, 2},
		{"no method", "", []func(*peer){closesOnReuse, answers(hello)}, nil, false, "", 1, 2},
		{"DELETE", "DELETE", []func(*peer){closesOnReuse, answers(hello)}, nil, false, "", 1, 2},
		{"408 on a kept connection", "GET", []func(*peer){
			func(p *peer) {
				p.request()
				p.send(hello)
				p.head()
				p.send("HTTP/1.1 408 T\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
			}, answers(hello)},
			nil, false, "", 1, 2},
		{"POST", "POST", []func(*peer){closesOnReuse, answers(hello)}, nil, false, connTerminated, 0, 1},
		{"unknown method", "PURGE", []func(*peer){closesOnReuse, answers(hello)}, nil, false, connTerminated, 0, 1},
		{"PUT with a body that was read", "PUT", []func(*peer){answersOnce(1, 0), answers(hello)}, strings.NewReader("x"), false, connTerminated, 0, 1},
		{"PUT with a body that was not", "PUT", []func(*peer){closesOnReuse, answers(hello)}, strings.NewReader("x"), true, "", 1, 2},
		{"a byte of the response came", "GET", []func(*peer){partly, answers(hello)}, nil, false, responseIncomplete, 0, 1},
		{"the new connection fails too", "GET", []func(*peer){closesOnReuse, func(p *peer) { p.head() }}, nil, false, connTerminated, 1, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, o, stop := pipePool(t, Config{}, tt.origins...)
				defer stop()
				get(t, p)
				time.Sleep(settled)
				req := newRequest(t, tt.method, "http://site.test/", tt.body)
				req.Method = tt.method
				if tt.expect {
					req.Header.Set("Expect", "100-continue")
				}
				r := do(p, req)
				if st := p.Stats(); kind(r.err) != tt.kind || st.Retries != tt.retries || o.dialled() != tt.dials || st.InFlight != 0 {
					t.Errorf("got %v, %d connections, %+v, want %+v", r.err, o.dialled(), st, tt)
				}
			})
		})
	}
}

func TestNoRetryOnANewConnection(t *testing.T) {
	p, o, stop := pipePool(t, Config{}, func(p *peer) { p.head() })
	defer stop()
	r := get(t, p)
	var e *Error
	if !errors.As(r.err, &e) || e.Kind != connTerminated || !e.Unanswered() || o.dialled() != 1 {
		t.Errorf("got %v after %d connections", r.err, o.dialled())
	}
}

func TestSurplusOnAnIdleConnection(t *testing.T) {
	tests := []struct {
		name, late string
		surplus    uint64
	}{
		{"nothing", "", 0},
		{"one byte", "x", 1},
		{"an answer", hello, 1},
		{"408", "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				p, o, stop := pipePool(t, Config{Log: slog.New(slog.NewTextHandler(&log, nil))}, func(p *peer) {
					p.request()
					p.send(hello)
					time.Sleep(50 * time.Microsecond)
					p.send(tt.late)
					answers(hello)(p)
				})
				defer stop()
				get(t, p)
				time.Sleep(settled)
				for range 3 {
					if r := get(t, p); r.body != "hello" || r.err != nil {
						t.Errorf("got %q, %v", r.body, r.err)
					}
				}
				if st := p.Stats(); st.Surplus != tt.surplus {
					t.Errorf("late %q: %+v, want surplus %d", tt.late, st, tt.surplus)
				}
				if tt.surplus > 0 && (o.dialled() != 4 || p.Stats().Idle != 0 || strings.Count(log.String(), "no longer reused") != 1) {
					t.Errorf("late %q: %d connections, %d idle, log %q, want 4, 0 and one line", tt.late, o.dialled(), p.Stats().Idle, log.String())
				}
			})
		})
	}
}

// TestSurplusIsSeenWhenAConnectionExpires: one that is never used again.
func TestSurplusIsSeenWhenAConnectionExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _, stop := pipePool(t, Config{}, func(p *peer) {
			p.request()
			p.send(hello)
			time.Sleep(time.Second)
			p.send("x")
		})
		defer stop()
		get(t, p)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if st := p.Stats(); st.Surplus != 1 || st.Idle != 0 {
			t.Errorf("got %+v, want surplus seen and no idle connection", st)
		}
	})
}

// serversOf returns three servers' dial function and the order they were
// dialled in; those in down refuse.
func serversOf(down ...string) (Config, func() string) {
	var mu sync.Mutex
	var order []string
	cfg := Config{
		Servers:  []string{"http://a.test", "http://b.test", "http://c.test"},
		Timeouts: Timeouts{Connect: time.Second},
	}
	cfg.Dial = func(_ context.Context, _, addr string) (net.Conn, error) {
		name, _, _ := strings.Cut(addr, ".")
		mu.Lock()
		order = append(order, name)
		mu.Unlock()
		if slices.Contains(down, name) {
			return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
		}
		client, server := net.Pipe()
		go func() {
			defer server.Close()
			b := make([]byte, 4096)
			server.Read(b)
			io.WriteString(server, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\n"+name)
		}()
		return client, nil
	}
	return cfg, func() string { mu.Lock(); defer mu.Unlock(); return strings.Join(order, "") }
}

func TestRoundRobinAndFailover(t *testing.T) {
	tests := []struct {
		name, down, got, dialled, kind string
	}{
		{"all up", "", "abca", "abca", ""},
		{"one down", "b", "acca", "abcca", ""},
		{"two down", "a c", "bbbb", "abbcaba" + "b", ""},
		{"all down", "a b c", "", "abcbcacababc", connRefused},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg, order := serversOf(strings.Fields(tt.down)...)
			p := mustNew(t, cfg)
			defer p.Close()
			var got string
			for range 4 {
				r := do(p, newRequest(t, "POST", "http://site.test/", strings.NewReader("x")))
				got += r.body
				if kind(r.err) != tt.kind {
					t.Errorf("got %v, want %q", r.err, tt.kind)
				}
			}
			if got != tt.got || order() != tt.dialled {
				t.Errorf("down %q: answered by %q after dialling %q, want %q and %q", tt.down, got, order(), tt.got, tt.dialled)
			}
		})
	}
}

func TestConnectErrors(t *testing.T) {
	tests := []struct {
		name string
		err  error
		want string
	}{
		{"refused", &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, connRefused},
		{"no such name", &net.DNSError{IsNotFound: true}, dnsError},
		{"name server is slow", &net.DNSError{IsTimeout: true}, dnsTimeout},
		{"no route", &net.OpError{Op: "dial", Err: syscall.EHOSTUNREACH}, unroutable},
		{"timeout", &net.OpError{Op: "dial", Err: context.DeadlineExceeded}, connTimeout},
		{"other", errors.New("x"), unavailable},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := mustNew(t, Config{Name: "site", Servers: []string{"http://a.test"},
				Dial: func(context.Context, string, string) (net.Conn, error) { return nil, tt.err }})
			defer p.Close()
			r := get(t, p)
			var e *Error
			if !errors.As(r.err, &e) || e.Kind != tt.want || !e.Unanswered() || !errors.Is(r.err, tt.err) || e.Pool != "site" || e.Server != "http://a.test" {
				t.Errorf("%v: got %#v, want kind %s", tt.err, r.err, tt.want)
			}
		})
	}
}

func TestInFlightLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, o, stop := pipePool(t, Config{MaxInFlight: 8, Timeouts: Timeouts{Settle: -1}}, func(p *peer) {
			for {
				if _, _, ok := p.request(); !ok {
					return
				}
				time.Sleep(900 * time.Millisecond)
				p.send(hello)
			}
		})
		defer stop()
		var mu sync.Mutex
		kinds := map[string]int{}
		var wg sync.WaitGroup
		ask := func() {
			r := get(t, p)
			mu.Lock()
			defer mu.Unlock()
			kinds[kind(r.err)]++
		}
		for range 8 {
			wg.Go(ask)
		}
		synctest.Wait()
		start := time.Now()
		wg.Go(ask) // waits
		synctest.Wait()
		ask() // finds the queue full
		if d := time.Since(start); d != 0 {
			t.Errorf("tenth request: answered after %v, want at once", d)
		}
		wg.Wait()
		if kinds[connLimit] != 1 {
			t.Errorf("got %v, want %s once", kinds, connLimit)
		}
		if st := p.Stats(); kinds[""] != 9 || o.dialled() != 8 || st.InFlight != 0 || st.Idle != 8 {
			t.Errorf("got %v, %d connections, %+v, want 9 answers over 8 connections", kinds, o.dialled(), st)
		}
	})
}

func TestQueueDoesNotWaitLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _, stop := pipePool(t, Config{MaxInFlight: 1}, stall(""))
		defer stop()
		go get(t, p)
		synctest.Wait()
		start := time.Now()
		r := get(t, p)
		if d := time.Since(start); kind(r.err) != connLimit || d != queueWait {
			t.Errorf("got %v after %v, want %s after %v", r.err, d, connLimit, queueWait)
		}
		time.Sleep(time.Minute)
	})
}

// TestMaxIdle has eight connections used at once, then rarely.
func TestMaxIdle(t *testing.T) {
	for _, tt := range []struct{ maxIdle, burst, later int }{{0, 8, 8}, {3, 8, 4}, {-1, 0, 0}} { // 4: the one just used does not count
		synctest.Test(t, func(t *testing.T) {
			p, _, stop := pipePool(t, Config{MaxIdle: tt.maxIdle, Timeouts: Timeouts{Settle: -1}}, func(p *peer) {
				for {
					if _, _, ok := p.request(); !ok {
						return
					}
					time.Sleep(100 * time.Millisecond)
					p.send(hello)
				}
			})
			defer stop()
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() { get(t, p) })
			}
			wg.Wait()
			if got := p.Stats().Idle; got != tt.burst {
				t.Errorf("MaxIdle %d: got %d idle connections after a burst, want %d", tt.maxIdle, got, tt.burst)
			}
			time.Sleep(spareTime)
			get(t, p)
			if got := p.Stats().Idle; got != tt.later {
				t.Errorf("MaxIdle %d: got %d idle connections after a rest, want %d", tt.maxIdle, got, tt.later)
			}
		})
	}
}

// TestSteadyLoadKeepsItsConnections has more connections in use than MaxIdle,
// each resting between its requests.
func TestSteadyLoadKeepsItsConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, o, stop := pipePool(t, Config{MaxIdle: 4}, answers(hello))
		defer stop()
		load := func(rounds int) {
			var wg sync.WaitGroup
			for range 16 {
				wg.Go(func() {
					for range rounds {
						if r := get(t, p); r.err != nil {
							t.Error(r.err)
						}
						time.Sleep(time.Millisecond)
					}
				})
			}
			wg.Wait()
		}
		load(200)
		warm := o.dialled()
		load(1000)
		if n := o.dialled() - warm; n > 0 {
			t.Errorf("16 workers, MaxIdle 4: %d more connections over 16000 requests, after %d, want none", n, warm)
		}
	})
}

// TestKeptConnectionsAreBounded checks the bound that holds however young the
// connections are.
func TestKeptConnectionsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _, stop := pipePool(t, Config{MaxIdle: 2, MaxInFlight: 3}, answers(hello))
		defer stop()
		for range 20 { // none has settled when the next one asks
			get(t, p)
		}
		if got := p.Stats().Idle; got != 5 {
			t.Errorf("MaxIdle 2, MaxInFlight 3: got %d idle connections, want 5", got)
		}
	})
}

// TestNonIdempotentRequestsAvoidOldConnections: its server may be closing it,
// and such a request is not sent twice.
func TestNonIdempotentRequestsAvoidOldConnections(t *testing.T) {
	for _, tt := range []struct {
		method string
		rest   time.Duration
		dials  int
	}{
		{"POST", 2 * time.Second, 1}, {"POST", 2*time.Second + 1, 2}, {"PATCH", 3 * time.Second, 2}, {"GET", 3 * time.Second, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			p, o, stop := pipePool(t, Config{}, answers(hello))
			defer stop()
			get(t, p)
			time.Sleep(tt.rest)
			r := do(p, newRequest(t, tt.method, "http://site.test/", nil))
			if r.err != nil || o.dialled() != tt.dials {
				t.Errorf("%s after %v: got %v over %d connections, want %d", tt.method, tt.rest, r.err, o.dialled(), tt.dials)
			}
		})
	}
}

func TestMostRecentlyUsedConnectionIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		serve := func(name string, wait time.Duration) func(*peer) {
			return func(p *peer) {
				for {
					if _, _, ok := p.request(); !ok {
						return
					}
					time.Sleep(wait)
					p.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n" + name)
				}
			}
		}
		p, _, stop := pipePool(t, Config{}, serve("1", time.Millisecond), serve("2", 2*time.Millisecond))
		defer stop()
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() { get(t, p) })
			synctest.Wait()
		}
		wg.Wait()
		for range 3 {
			time.Sleep(settled)
			if r := get(t, p); r.body != "2" {
				t.Errorf("got connection %s, want 2, the one used last", r.body)
			}
		}
	})
}

func TestCloseOfThePool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		p, _, stop := pipePool(t, Config{}, answers(hello), func(p *peer) {
			p.request()
			<-release
			p.send(hello)
			p.drain()
		})
		defer stop()
		get(t, p)
		var inFlight result
		var wg sync.WaitGroup
		wg.Go(func() { inFlight = get(t, p) })
		synctest.Wait()
		p.Close()
		body := &tracked{Reader: strings.NewReader("x")}
		r := do(p, newRequest(t, "POST", "http://site.test/", body))
		synctest.Wait()
		if !errors.Is(r.err, ErrClosed) || kind(r.err) != unavailable || !body.closed.Load() {
			t.Errorf("after Close: got %v, body closed %v", r.err, body.closed.Load())
		}
		close(release)
		wg.Wait()
		if st := p.Stats(); inFlight.body != "hello" || st.Idle != 0 {
			t.Errorf("in flight at Close: got %+v, %+v, want an answer and no idle connection", inFlight, st)
		}
	})
}

func TestErrorText(t *testing.T) {
	p, _, stop := pipePool(t, Config{Name: "site"}, once(timing+"half"))
	defer stop()
	r := get(t, p)
	if got, want := r.err.Error(), "origin: site: read body from http://origin.test: http_response_incomplete: unexpected EOF"; got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestConcurrentRequestsGetTheirOwnAnswers(t *testing.T) {
	p, _, stop := pipePool(t, Config{Timeouts: Timeouts{Settle: -1}}, func(p *peer) {
		for {
			req, body, ok := p.request()
			if !ok {
				return
			}
			p.send(chunkedHead + "6\r\nhello \r\n" + chunkOf(req.URL.Path+body) + "0\r\n\r\n")
		}
	})
	defer stop()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 200 {
				path, body := "/"+string(rune('a'+i)), strings.Repeat("x", j+1)
				r := do(p, newRequest(t, http.MethodPut, "http://site.test"+path, strings.NewReader(body)))
				if want := "hello " + path + body; r.body != want || r.err != nil {
					t.Errorf("got %q, %v, want %q", r.body, r.err, want)
					return
				}
			}
		})
	}
	wg.Wait()
	if st := p.Stats(); st.Reuses == 0 || st.InFlight != 0 {
		t.Errorf("afterwards: %+v", st)
	}
}
