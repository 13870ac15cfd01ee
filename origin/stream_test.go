package origin

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/textproto"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

// TestPanicsOfTheCallerBehindALibrary: the caller's code runs on goroutines of
// the library there, where a panic would end the node.
func TestPanicsOfTheCallerBehindALibrary(t *testing.T) {
	early := func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		io.Copy(io.Discard, r.Body)
	}
	tests := []struct {
		name  string
		body  io.Reader
		trace *httptrace.ClientTrace
		kind  string // "" for a panic of RoundTrip's
	}{
		{"Read", panics{read: true}, nil, requestError},
		{"GotConn", nil, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { panic("x") }}, ""},
		{"Got1xxResponse", nil, &httptrace.ClientTrace{Got1xxResponse: func(int, textproto.MIMEHeader) error { panic("x") }}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, _, _, stop := serveH2C(t, Config{}, early)
				defer stop()
				req := newRequest(t, "POST", "http://site.test/", tt.body)
				if tt.trace != nil {
					req = req.WithContext(httptrace.WithClientTrace(t.Context(), tt.trace))
				}
				func() {
					defer func() {
						if got := recover(); (got == "x") != (tt.kind == "") {
							t.Errorf("panic of %v", got)
						}
					}()
					if r := do(p, req); kind(r.err) != tt.kind {
						t.Errorf("got %v, want kind %q", r.err, tt.kind)
					}
				}()
				if r := get(t, p); r.status != 200 {
					t.Errorf("afterwards: %v", r.err)
				}
				synctest.Wait()
				if st := p.Stats(); st.InFlight != 0 || st.Connects != 1 || st.Idle != 1 {
					t.Errorf("afterwards: %+v", st)
				}
			})
		})
	}
	t.Run("Dial", func(t *testing.T) {
		for _, protocol := range []string{"h2c", "h2"} {
			p := mustNew(t, Config{
				Backends: []Backend{{URL: map[string]string{"h2c": "http", "h2": "https"}[protocol] + "://origin.test", Protocol: protocol}},
				Dial:     func(context.Context, string, string) (net.Conn, error) { panic("x") }, TLS: &tls.Config{}})
			if r := get(t, p); kind(r.err) != unavailable {
				t.Errorf("%s: got %v", protocol, r.err)
			}
			p.Close()
		}
	})
}

// TestAStalledClientHoldsNobodyUp has a client that does not take an interim
// response, while another one's request is on the same connection.
func TestAStalledClientHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _, l, stop := serveH2C(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Early") != "" {
				w.WriteHeader(http.StatusEarlyHints)
			}
			io.WriteString(w, "hello")
		})
		defer stop()
		stalled := make(chan struct{})
		ended := make(chan result)
		req := newRequest(t, "GET", "http://site.test/", nil)
		req.Header.Set("Early", "1")
		go func() {
			trace := &httptrace.ClientTrace{Got1xxResponse: func(int, textproto.MIMEHeader) error { <-stalled; return nil }}
			ended <- do(p, req.WithContext(httptrace.WithClientTrace(t.Context(), trace)))
		}()
		synctest.Wait()
		begun := time.Now()
		if r := get(t, p); r.body != "hello" || time.Since(begun) != 0 || l.dials.Load() != 1 {
			t.Errorf("got %+v after %v on %d connections", r, time.Since(begun), l.dials.Load())
		}
		close(stalled)
		if r := <-ended; r.body != "hello" {
			t.Errorf("the stalled one got %+v", r)
		}
	})
}

// TestContentIsReadByOneAttempt has a library whose goroutine comes to read only
// after its stream was rejected.
func TestContentIsReadByOneAttempt(t *testing.T) {
	p := mustNew(t, Config{Backends: []Backend{{URL: "http://origin.test", Protocol: "h2c"}}})
	defer p.Close()
	x, err := p.newExchange(newRequest(t, "POST", "http://site.test/", io.NopCloser(strings.NewReader("content"))), Hint{})
	if err != nil {
		t.Fatal(err)
	}
	defer x.putScratch()
	var late io.Reader
	_, err = x.stream(p.servers[0], func(r *http.Request) (*http.Response, error) {
		late = r.Body
		return nil, http2.StreamError{StreamID: 1, Code: http2.ErrCodeRefusedStream}
	}, nil)
	if !p.mayGoOnAfter(x, err) {
		t.Fatalf("no other attempt after %v", err)
	}
	if n, err := late.Read(make([]byte, 10)); n != 0 || err == nil || x.up.touched() {
		t.Errorf("the first attempt still reads %d bytes, %v", n, err)
	}
}

// mayGoOnAfter reports whether x goes on after err.
func (p *Pool) mayGoOnAfter(x *exchange, err error) bool { return x.mayGoOn(p.servers[0], err) }

// TestTrailersThatMayNotBeSentByH2 has declared trailer fields of which one
// would deceive whoever merges them into the header.
func TestTrailersThatMayNotBeSentByH2(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got := make(chan http.Header, 1)
		p, _, _, stop := serveH2C(t, Config{}, func(_ http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			got <- r.Trailer
		})
		defer stop()
		req := newRequest(t, "POST", "http://site.test/", io.MultiReader(strings.NewReader("x")))
		req.Trailer = http.Header{"X-Sum": {"1"}, "Set-Cookie": {"a=b"}}
		if r := do(p, req); r.status != 200 {
			t.Fatal(r.err)
		}
		if tr := <-got; len(tr) != 1 || tr.Get("X-Sum") != "1" {
			t.Errorf("sent trailers %v, want X-Sum alone", tr)
		}
	})
}

// TestRefusedStreamsCostTheBudget has a server that refuses all it is asked.
func TestRefusedStreamsCostTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var heads atomic.Int64
		o := &frames{script: func(f *framed) {
			for id := f.request(); id != 0; id = f.request() {
				heads.Add(1)
				_ = f.WriteRSTStream(id, http2.ErrCodeRefusedStream)
			}
		}}
		p, stop := framePool(t, Config{}, o)
		defer stop()
		const n = 100
		for range n {
			if r := do(p, newRequest(t, "POST", "http://site.test/", nil)); r.err == nil {
				t.Fatal("an answer")
			}
			time.Sleep(10 * time.Millisecond)
		}
		if got := heads.Load(); got <= n || got > n*12/10 {
			t.Errorf("%d requests became %d, want a fifth more at most", n, got)
		}
	})
}

// TestTotalBlamesNobodyElse has a server that takes all of a request's time.
func TestTotalBlamesNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet("a", "b")
		f.set("a", func(h *host) { h.slow = 24 * time.Hour })
		p, stop := f.pool(t, Config{Timeouts: Timeouts{Total: time.Second}}, "a", "b")
		defer stop()
		if r := get(t, p); kind(r.err) != connTimeout {
			t.Fatalf("got %+v", r)
		}
		if st := p.Stats(); st.server("a").Failures != 1 || st.server("b").Failures != 0 || st.server("b").Requests != 0 {
			t.Errorf("got %+v", st.Servers)
		}
	})
}

// TestAnswersThatBreakOpenTheBreaker has a server whose heads are well and whose
// bodies break, with many under way at once.
func TestAnswersThatBreakOpenTheBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet("a", "b")
		f.set("a", always(reply{raw: "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", rest: "half", gap: time.Second, close: true}))
		p, stop := f.pool(t, Config{BufferSmall: -1, Breaker: Breaker{Open: time.Minute}}, "a", "b")
		defer stop()
		load(t, p, 50, 5)
		if got := f.asked("a"); got > 60 { // half of the requests until the first 25 have broken, after 2s
			t.Errorf("asked %d times", got)
		}
	})
}

// TestOvertakenServersAreSlow has a server whose answers a hedge never waits for.
func TestOvertakenServersAreSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet("a", "b")
		f.set("a", always(reply{after: time.Minute}))
		p, stop := f.pool(t, Config{Hedge: Hedge{On: true, Delay: 700 * time.Millisecond}}, "a", "b")
		defer stop()
		load(t, p, 20, 5)
		if st := p.Stats().server("a"); st.Latency < 700*time.Millisecond || st.State != "ejected" || st.Failures != 0 {
			t.Errorf("got %+v", st)
		}
	})
}

// TestPanicOfAResolver is an error of the name.
func TestPanicOfAResolver(t *testing.T) {
	p := mustNew(t, Config{Servers: []string{"http://origin.test"}, Resolver: panicResolver{}})
	defer p.Close()
	if r := get(t, p); kind(r.err) != dnsError {
		t.Errorf("got %v, want %s", r.err, dnsError)
	}
}

type panicResolver struct{}

func (panicResolver) Lookup(context.Context, string) ([]netip.Addr, time.Duration, error) {
	panic("x")
}

// TestH3CloseRacesARequest has a request that comes to connect while the pool is
// closed: its socket must not stay.
func TestH3CloseRacesARequest(t *testing.T) {
	p := mustNew(t, Config{Backends: []Backend{{URL: "https://127.0.0.1:1", Protocol: "h3"}}})
	s := p.servers[0].transport.(*h3)
	if _, err := s.listen(); err != nil {
		t.Fatal(err)
	}
	x, err := p.newExchange(newRequest(t, "GET", "http://site.test/", nil), Hint{})
	if err != nil {
		t.Fatal(err)
	}
	defer x.putScratch()
	p.closed.Store(true) // as far as Close has come
	p.cancel()
	if _, _, err := s.connection(x); err == nil {
		t.Fatal("connected")
	}
	p.Close()
	if s.udp != nil {
		t.Error("the socket is open")
		s.udp.Close()
		s.socket.Close()
	}
}
