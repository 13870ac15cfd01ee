package origin

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// pipeListener hands the server's ends of pipes to an http.Server.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
	dials atomic.Int64
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

func (l *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	l.dials.Add(1)
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-l.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// serveH2C runs handler behind HTTP/2 in the clear and returns a pool to it.
func serveH2C(t *testing.T, cfg Config, handler http.HandlerFunc) (*Pool, *http.Server, *pipeListener, func()) {
	t.Helper()
	l := &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
	over := new(http.Protocols)
	over.SetUnencryptedHTTP2(true)
	srv := &http.Server{Handler: handler, Protocols: over, ErrorLog: discardLog()}
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(l) })
	cfg.Dial = l.dial
	cfg.Backends = append(cfg.Backends, Backend{URL: "http://origin.test", Protocol: "h2c"})
	p := mustNew(t, cfg)
	return p, srv, l, func() { p.Close(); srv.Close(); wg.Wait() }
}

// echoes tells what it was asked, in fields, and returns the content.
func echoes(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Got", r.Proto+" "+r.Method+" "+r.Host+" "+r.RequestURI)
	w.Header().Set("Fields", strings.Join([]string{r.Header.Get("User-Agent"), r.Header.Get("Connection"), r.Header.Get("X-A"), r.Header.Get("Te"), r.Header.Get("Accept-Encoding")}, "|"))
	io.Copy(w, r.Body)
}

func TestH2CSendsWhatItIsGiven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _, l, stop := serveH2C(t, Config{}, echoes)
		defer stop()
		for _, target := range []string{"/", "//x/y", "/a%2fb/../c|d?e=%zz&\"'", "/http://site.test/", "/?"} {
			req := newRequest(t, "PUT", "http://site.test/", strings.NewReader("content"))
			req.RequestURI = target
			req.Header = http.Header{"X-A": {"b"}, "Connection": {"x-hop"}, "Te": {"trailers, deflate"}, "Upgrade": {"h2c"}}
			r := do(p, req)
			want := "HTTP/2.0 PUT site.test " + target
			if r.err != nil || r.body != "content" || r.header.Get("Got") != want || r.header.Get("Fields") != "||b|trailers|" {
				t.Errorf("%q: got %d %q %v, %v", target, r.status, r.body, r.header, r.err)
			}
		}
		if st := p.Stats(); l.dials.Load() != 1 || st.Connects != 1 || st.Reuses != 4 || st.InFlight != 0 || st.Idle != 1 {
			t.Errorf("got %d connections, %+v, want one for all", l.dials.Load(), st)
		}
	})
}

// TestH2Trailers is a gRPC call's shape: both sides stream at once, and the
// outcome comes in the trailers.
func TestH2Trailers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _, _, stop := serveH2C(t, Config{BufferSmall: 1 << 20}, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Trailer", "Grpc-Status")
			w.Header().Set("Content-Type", "application/grpc")
			rc := http.NewResponseController(w)
			rc.Flush()
			b := make([]byte, 4)
			for {
				if _, err := io.ReadFull(r.Body, b); err != nil {
					break
				}
				w.Write([]byte(strings.ToUpper(string(b))))
				rc.Flush()
			}
			w.Header().Set("Grpc-Status", "0")
			w.Header().Set(http.TrailerPrefix+"Set-Cookie", "no")
		})
		defer stop()
		body, feed := io.Pipe()
		req := newRequest(t, "POST", "http://site.test/service/Method", body)
		req.Header.Set("Te", "trailers")
		resp, err := p.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b := make([]byte, 4)
		for range 3 {
			io.WriteString(feed, "ping")
			if _, err := io.ReadFull(resp.Body, b); err != nil || string(b) != "PING" {
				t.Fatalf("got %q, %v", b, err)
			}
		}
		feed.Close()
		if n, err := resp.Body.Read(b); n != 0 || err != io.EOF {
			t.Errorf("got %d, %v, want the end", n, err)
		}
		if resp.Trailer.Get("Grpc-Status") != "0" || resp.Trailer.Get("Set-Cookie") != "" {
			t.Errorf("got trailers %v", resp.Trailer)
		}
		if st := p.Stats(); st.InFlight != 0 {
			t.Errorf("afterwards: %+v", st)
		}
	})
}

func TestH2Faults(t *testing.T) {
	const s = time.Second
	abort := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	wait := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	half := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "10")
		io.WriteString(w, "half")
		w.(http.Flusher).Flush()
	}
	tests := []struct {
		name       string
		timeouts   Timeouts
		handler    http.HandlerFunc
		body       io.Reader
		kind       string
		unanswered bool
		got        string
		after      time.Duration
	}{
		{"resets the stream", Timeouts{}, abort, nil, connTerminated, true, "", 0},
		{"resets in the body", Timeouts{}, func(w http.ResponseWriter, r *http.Request) { half(w, r); abort(w, r) }, nil, responseIncomplete, false, "half", 0},
		{"ends short", Timeouts{}, func(w http.ResponseWriter, r *http.Request) { half(w, r) }, nil, responseIncomplete, false, "half", 0},
		{"stalls before the head", Timeouts{Header: 2 * s}, wait, nil, responseTimeout, true, "", 2 * s},
		{"stalls in the body", Timeouts{IdleBody: 3 * s}, func(w http.ResponseWriter, r *http.Request) { half(w, r); wait(w, r) }, nil, responseTimeout, false, "half", 3 * s},
		{"takes too long in all", Timeouts{Total: 4 * s}, func(w http.ResponseWriter, r *http.Request) { half(w, r); wait(w, r) }, nil, responseTimeout, false, "half", 4 * s},
		{"content never comes", Timeouts{RequestIdle: 5 * s}, wait, slowReaderForever{}, requestError, false, "", 5 * s},
		{"content is short", Timeouts{}, wait, shortBody{}, requestError, false, "", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, _, _, stop := serveH2C(t, Config{Timeouts: tt.timeouts}, tt.handler)
				defer stop()
				req := newRequest(t, "POST", "http://site.test/", nil)
				if tt.body != nil {
					r, w := io.Pipe()
					defer w.Close()
					req.Body = r
					if _, short := tt.body.(shortBody); short {
						req.Body, req.ContentLength = io.NopCloser(strings.NewReader("x")), 5
					}
				}
				begun := time.Now()
				r := do(p, req)
				var e *Error
				if !errors.As(r.err, &e) || e.Kind != tt.kind || e.Unanswered() != tt.unanswered || r.body != tt.got || time.Since(begun) != tt.after {
					t.Errorf("got %q, %v after %v, want %q, kind %s after %v", r.body, r.err, time.Since(begun), tt.got, tt.kind, tt.after)
				}
				synctest.Wait()
				if st := p.Stats(); st.InFlight != 0 || st.Errors[tt.kind] != 1 {
					t.Errorf("afterwards: %+v", st)
				}
			})
		})
	}
}

type slowReaderForever struct{ io.Reader }
type shortBody struct{ io.Reader }

func TestH2Cancellation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan struct{}, 2)
		p, _, l, stop := serveH2C(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/body" {
				w.(http.Flusher).Flush()
			}
			<-r.Context().Done()
			ended <- struct{}{}
		})
		defer stop()
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		r := do(p, newRequest(t, "GET", "http://site.test/", nil).WithContext(ctx))
		if !errors.Is(r.err, context.Canceled) {
			t.Errorf("got %v", r.err)
		}
		<-ended // the server was told
		resp, err := p.RoundTrip(newRequest(t, "GET", "http://site.test/body", nil))
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Second, func() { resp.Body.Close() })
		if _, err := resp.Body.Read(make([]byte, 1)); err == nil || err == io.EOF {
			t.Errorf("a read under way at Close: got %v", err)
		}
		<-ended
		if st := p.Stats(); st.InFlight != 0 || l.dials.Load() != 1 || st.Servers[0].Failures != 0 {
			t.Errorf("afterwards: %+v over %d connections", st, l.dials.Load())
		}
	})
}

// TestH2GracefulShutdown has a server that says goodbye between requests: POSTs
// too go to a new connection.
func TestH2GracefulShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _, l, stop := serveH2C(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/last" {
				w.Header().Set("Connection", "close") // becomes GOAWAY
			}
			echoes(w, r)
		})
		defer stop()
		for _, path := range []string{"/", "/last", "/", "/last", "/"} {
			if r := do(p, newRequest(t, "POST", "http://site.test"+path, strings.NewReader("x"))); r.body != "x" {
				t.Errorf("%s: got %+v", path, r)
			}
		}
		if n := l.dials.Load(); n != 3 {
			t.Errorf("got %d connections, want 3", n)
		}
	})
}

// TestH2ConnectionLimit has more requests at once than one connection takes.
func TestH2ConnectionLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, srv, l, stop := serveH2C(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Second)
			echoes(w, r)
		})
		defer stop()
		srv.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: 10}
		if r := get(t, p); r.err != nil { // so that the limit is known
			t.Fatal(r.err)
		}
		begun := time.Now()
		got := load(t, p, 1000, 1)
		if got[""] != 1000 || time.Since(begun) > 4*time.Second || l.dials.Load() > 150 {
			t.Errorf("got %v after %v over %d connections", got, time.Since(begun), l.dials.Load())
		}
	})
}

func TestH2Interims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _, _, stop := serveH2C(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "</a>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusNoContent)
		})
		defer stop()
		var got []int
		var conns int
		req := newRequest(t, "GET", "http://site.test/", nil)
		req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, _ textproto.MIMEHeader) error { got = append(got, code); return nil },
			GotConn:        func(httptrace.GotConnInfo) { conns++ },
		}))
		if r := do(p, req); r.status != 204 || len(got) != 1 || got[0] != 103 || conns != 1 {
			t.Errorf("got %+v, interims %v, %d connections told", r, got, conns)
		}
	})
}

// TestCloseLetsH2Finish: a request under way at Close gets its answer, and the
// connection is closed after it.
func TestCloseLetsH2Finish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, srv, _, stop := serveH2C(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Second)
			echoes(w, r)
		})
		defer stop()
		closed := make(chan struct{})
		srv.ConnState = func(_ net.Conn, s http.ConnState) {
			if s == http.StateClosed {
				close(closed)
			}
		}
		done := make(chan result)
		go func() { done <- get(t, p) }()
		synctest.Wait()
		p.Close()
		if r := <-done; r.status != 200 || r.err != nil {
			t.Errorf("got %+v", r)
		}
		begun := time.Now()
		if <-closed; time.Since(begun) > 0 {
			t.Errorf("the connection was closed %v after its last answer, want at once", time.Since(begun))
		}
		if r := get(t, p); !errors.Is(r.err, ErrClosed) {
			t.Errorf("after Close: got %v", r.err)
		}
	})
}

func TestH2OverTLS(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(echoes))
	srv.EnableHTTP2 = true
	srv.Config.ErrorLog = discardLog()
	srv.StartTLS()
	defer srv.Close()
	old := httptest.NewTLSServer(http.HandlerFunc(echoes))
	defer old.Close()
	old.Config.ErrorLog = discardLog()
	tests := []struct {
		name, url string
		tls       *tls.Config
		kind      string
	}{
		{"h2", srv.URL, clientTLS(srv), ""},
		{"not trusted", srv.URL, nil, tlsCertificate},
		{"a server without h2", old.URL, clientTLS(old), tlsAlert},
		{"refused", "https://127.0.0.1:1", nil, connRefused},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := mustNew(t, Config{Backends: []Backend{{URL: tt.url, Protocol: "h2"}}, TLS: tt.tls})
			defer p.Close()
			r := do(p, newRequest(t, "POST", "http://site.test/x", strings.NewReader("content")))
			if kind(r.err) != tt.kind || r.err == nil && (r.body != "content" || r.header.Get("Got") != "HTTP/2.0 POST site.test /x") {
				t.Errorf("got %+v, want kind %q", r, tt.kind)
			}
			if tt.kind == tlsAlert && !strings.Contains(r.err.Error(), "does not speak the protocol h2 (hint: protocol h1)") {
				t.Errorf("got %v, want it to name the fix", r.err)
			}
		})
	}
}

// TestUpgradesGoToHTTP1 has a pool of both kinds.
func TestUpgradesGoToHTTP1(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
		p := mustNew(t, Config{Dial: l.dial, Backends: []Backend{{URL: "http://a", Protocol: "h2c"}}})
		defer p.Close()
		req := newRequest(t, "GET", "http://site.test/", nil)
		req.Header = http.Header{"Connection": {"upgrade"}, "Upgrade": {"websocket"}}
		if r := do(p, req); kind(r.err) != unavailable || l.dials.Load() != 0 {
			t.Errorf("no server speaks HTTP/1.1: got %v", r.err)
		}
	})
}
