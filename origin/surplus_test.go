package origin

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// loopback listens and serves each connection with serve until the test ends.
func loopback(t testing.TB, serve func(*peer)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[c] = true
			mu.Unlock()
			wg.Go(func() {
				serve(&peer{c, bufio.NewReader(c)})
				c.Close()
				mu.Lock()
				delete(open, c)
				mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return "http://" + l.Addr().String()
}

// spin waits for d without leaving it to the scheduler.
func spin(d time.Duration) {
	for start := time.Now(); time.Since(start) < d; {
	}
}

// TestSurplusNeverAnswersAnotherRequest has a server follow each answer, or one
// in so many, with a whole second answer that nobody asked for.
func TestSurplusNeverAnswersAnotherRequest(t *testing.T) {
	requests, workers := 1000, 8
	if long() {
		requests = 32_000
	}
	tests := []struct {
		name  string
		every int64 // how many answers there are to one surplus
		late  time.Duration
		each  int // requests before a new pool, which knows nothing, takes over
	}{
		{"same segment", 1, 0, requests},
		{"50 µs later", 1, 50 * time.Microsecond, requests},
		{"same segment, now and then", 100, 0, requests},
		{"same segment, new pools", 1, 0, 250},
		{"50 µs later, new pools", 1, 50 * time.Microsecond, 250},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var served atomic.Int64
			url := loopback(t, func(p *peer) {
				for {
					req, _, ok := p.request()
					if !ok {
						return
					}
					answer := func(id string) string {
						return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(id), id)
					}
					surplus := ""
					if served.Add(1)%tt.every == 0 {
						surplus = answer("surplus")
					}
					if tt.late == 0 {
						p.send(answer(req.URL.Path) + surplus)
						continue
					}
					p.send(answer(req.URL.Path))
					spin(tt.late)
					p.send(surplus)
				}
			})
			var wrong int64
			var reuses, seen uint64
			for range requests / tt.each {
				p := mustNew(t, Config{Servers: []string{url}})
				wrong += askMany(t, p, tt.each, workers)
				p.Close()
				reuses += p.Stats().Reuses
				seen += p.Stats().Surplus
			}
			t.Logf("%d requests, %d on a reused connection: %d wrong answers, surplus seen %d times", requests, reuses, wrong, seen)
			if wrong > 0 || tt.every == 1 && seen == 0 {
				t.Errorf("%d of %d requests got a wrong answer; surplus seen %d times", wrong, requests, seen)
			}
		})
	}
}

// askMany sends n requests, each with an id of its own, and returns how many
// were answered with another.
func askMany(t *testing.T, p *Pool, n, workers int) int64 {
	var next, wrong atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				path := fmt.Sprintf("/%d", i)
				r := do(p, newRequest(t, "GET", "http://site.test"+path, nil))
				if r.err != nil {
					t.Errorf("request %s: %v", path, r.err)
					return
				}
				if r.body != path {
					wrong.Add(1)
				}
			}
		})
	}
	wg.Wait()
	return wrong.Load()
}

// TestKeptConnectionsAreReused is the other side: an honest server's are, also
// where the socket cannot be asked.
func TestKeptConnectionsAreReused(t *testing.T) {
	for _, scheme := range []string{"http", "https"} {
		for _, opaque := range []bool{false, true} {
			t.Run(fmt.Sprint(scheme, " opaque ", opaque), func(t *testing.T) {
				srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.URL.Path) }))
				if scheme == "https" {
					srv.StartTLS()
				} else {
					srv.Start()
				}
				defer srv.Close()
				cfg := Config{Servers: []string{srv.URL}, Host: "origin", TLS: clientTLS(srv), Timeouts: Timeouts{Settle: -1}}
				if opaque {
					cfg.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
						c, err := new(net.Dialer).DialContext(ctx, network, addr)
						return struct{ net.Conn }{c}, err
					}
				}
				p := mustNew(t, cfg)
				defer p.Close()
				if wrong := askMany(t, p, 1000, 4); wrong > 0 {
					t.Errorf("%d wrong answers", wrong)
				}
				if st := p.Stats(); st.Connects > 4 || st.Reuses < 990 || st.Surplus != 0 {
					t.Errorf("1000 requests of 4 workers: %+v, want at most 4 connections", st)
				}
			})
		}
	}
}

func clientTLS(srv *httptest.Server) *tls.Config {
	if srv.TLS == nil {
		return nil
	}
	return srv.Client().Transport.(*http.Transport).TLSClientConfig
}

// probeAfter returns what a kept connection says after wait, and the counters
// before it was asked.
func probeAfter(t *testing.T, url string, cfg *tls.Config, wait func()) (state, Stats) {
	t.Helper()
	p := mustNew(t, Config{Servers: []string{url}, TLS: cfg, Timeouts: Timeouts{Settle: -1}})
	defer p.Close()
	if r := get(t, p); r.err != nil {
		t.Fatal(r.err)
	}
	wait()
	c := p.servers[0].transport.(*h1).pop(0)
	if c == nil {
		return surplus, p.Stats()
	}
	defer c.abort()
	return c.probe(), p.Stats()
}

// TestProbe asks real sockets, in the clear and under TLS.
func TestProbe(t *testing.T) {
	tests := []struct {
		name string
		then func(c net.Conn) // after an answer
		want state
	}{
		{"silent", func(net.Conn) {}, silent},
		{"closed", func(c net.Conn) { c.Close() }, closed},
		{"surplus", func(c net.Conn) { io.WriteString(c, "x") }, surplus},
		{"408", func(c net.Conn) { io.WriteString(c, "HTTP/1.1 408 Request Timeout\r\n\r\n"); c.Close() }, closed},
	}
	cert := httptest.NewTLSServer(nil)
	cert.Close()
	for _, tt := range tests {
		for _, secure := range []bool{false, true} {
			t.Run(fmt.Sprint(tt.name, " TLS ", secure), func(t *testing.T) {
				answered, done := make(chan struct{}), make(chan struct{})
				url := loopback(t, func(p *peer) {
					var c net.Conn = p.Conn
					if secure {
						c = tls.Server(c, &tls.Config{Certificates: cert.TLS.Certificates})
					}
					q := &peer{c, bufio.NewReader(c)}
					q.request()
					q.send(hello)
					<-answered
					tt.then(c)
					close(done)
					q.drain()
				})
				cfg := (*tls.Config)(nil)
				if secure {
					url = "https" + url[len("http"):]
					cfg = &tls.Config{InsecureSkipVerify: true}
				}
				got, st := probeAfter(t, url, cfg, func() {
					close(answered)
					<-done
				})
				if got != tt.want || st.Surplus != 0 {
					t.Errorf("%s: got state %d, %+v, want %d", tt.name, got, st, tt.want)
				}
			})
		}
	}
}

// TestSurplusInTheSameTLSRecord has bytes left inside the TLS layer, where the
// socket does not show them.
func TestSurplusInTheSameTLSRecord(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		body := make([]byte, 8000) // more than the reader's buffer
		rw.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 8000\r\n\r\n" + string(body) + "x")
		rw.Flush()
		io.Copy(io.Discard, rw)
	}))
	srv.StartTLS()
	defer srv.Close()
	p := mustNew(t, Config{Servers: []string{srv.URL}, TLS: clientTLS(srv), Host: "origin"})
	defer p.Close()
	if r := get(t, p); len(r.body) != 8000 || r.err != nil {
		t.Fatalf("got %d bytes, %v", len(r.body), r.err)
	}
	if st := p.Stats(); st.Surplus != 1 || st.Idle != 0 {
		t.Errorf("got %+v, want surplus seen", st)
	}
}

// noticed closes done after a Write, once armed.
type noticed struct {
	*net.TCPConn
	armed *atomic.Bool
	done  chan struct{}
}

func (n noticed) Write(p []byte) (int, error) {
	defer func() {
		if n.armed.Swap(false) {
			close(n.done)
		}
	}()
	return n.TCPConn.Write(p)
}

// notify is a body that tells when it is closed, here once it was sent.
type notify struct {
	io.Reader
	closed chan struct{}
}

func (n notify) Close() error { close(n.closed); return nil }

// TestAnswerBeforeTheRequestArrived has a request wait behind content that the
// server never reads; the server answers all the same.
func TestAnswerBeforeTheRequestArrived(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux is asked what has been acknowledged")
	}
	for _, tt := range []struct {
		name, early, method, kind string
		surplus                   uint64
	}{
		{"surplus, idempotent", hello, "GET", "", 1},
		{"surplus, not idempotent", hello, "POST", protocolError, 1},
		{"408, idempotent", "HTTP/1.1 408 T\r\nConnection: close\r\n\r\n", "GET", "", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var conns atomic.Int64
			var armed atomic.Bool
			written, uploaded := make(chan struct{}), make(chan struct{})
			url := loopback(t, func(p *peer) {
				if conns.Add(1) > 1 {
					answers("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue")(p)
					return
				}
				p.Conn.(*net.TCPConn).SetReadBuffer(4 << 10)
				p.head()
				<-uploaded // to this system
				p.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				<-written
				p.send(tt.early)
				<-t.Context().Done()
			})
			p := mustNew(t, Config{Servers: []string{url}, Timeouts: Timeouts{Settle: -1},
				Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
					c, err := new(net.Dialer).DialContext(ctx, network, addr)
					if err != nil {
						return nil, err
					}
					c.(*net.TCPConn).SetWriteBuffer(4 << 20)
					return noticed{c.(*net.TCPConn), &armed, written}, nil
				}})
			defer p.Close()
			do(p, newRequest(t, "POST", "http://site.test/", notify{strings.NewReader(strings.Repeat("x", 300<<10)), uploaded}))
			armed.Store(true)
			r := do(p, newRequest(t, tt.method, "http://site.test/", nil))
			if st := p.Stats(); kind(r.err) != tt.kind || tt.kind == "" && r.body != "true" || st.Surplus != tt.surplus {
				t.Errorf("got %q, %v, %+v, want the true answer or %q, surplus %d", r.body, r.err, st, tt.kind, tt.surplus)
			}
		})
	}
}

// TestWhatIsAcknowledgedOfAHead asks a socket whose other side reads nothing.
func TestWhatIsAcknowledgedOfAHead(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux is asked what has been acknowledged")
	}
	url := loopback(t, func(p *peer) {
		p.Conn.(*net.TCPConn).SetReadBuffer(4 << 10)
		<-t.Context().Done()
	})
	nc, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	nc.(*net.TCPConn).SetWriteBuffer(4 << 20)
	w := newWire(nc, false)
	if _, err := w.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	for w.unacked() == 0 {
		runtime.Gosched()
	}
	const all = 1 << 20
	for _, tt := range []struct {
		name           string
		start, end     int64
		in             string
		early, surplus bool
	}{
		{"nothing of the head", all - 100, all, "HTTP/1.1 200 OK", true, true},
		{"nothing of the head, 408", all - 100, all, "HTTP/1.1 408 T", true, false},
		{"a part of the head", 10, all, "HTTP/1.1 431 Large", true, false},
		{"the whole head", 0, 10, "HTTP/1.1 200 OK", false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := mustNew(t, Config{Servers: []string{url}})
			defer p.Close()
			c := &conn{s: p.servers[0].transport.(*h1), wire: w, headStart: tt.start, headEnd: tt.end, in: []byte(tt.in)}
			if got := c.early(); got != tt.early || p.servers[0].transport.(*h1).surplus.Load() != tt.surplus {
				t.Errorf("head in bytes %d to %d of %d, %d not acknowledged, answer %q: got early %v, surplus %v, want %v, %v",
					tt.start, tt.end, all, w.unacked(), tt.in, got, p.servers[0].transport.(*h1).surplus.Load(), tt.early, tt.surplus)
			}
		})
	}
}

// TestUnixSocketsAreNotAskedForAcknowledgements: what waits in one is what its
// other side has not read.
func TestUnixSocketsAreNotAskedForAcknowledgements(t *testing.T) {
	name := t.TempDir() + "/s"
	l, err := net.Listen("unix", name)
	if err != nil {
		t.Skip(err)
	}
	defer l.Close()
	nc, err := net.Dial("unix", name)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	w := newWire(nc, false)
	w.Write([]byte("hello"))
	if got := w.unacked(); got != 0 {
		t.Errorf("got %d bytes not acknowledged, want 0", got)
	}
}

// TestRefusalOfALongHeadCostsNoReuse has a server answer 431 after part of the
// head, as it may: no client can take reuse away from it.
func TestRefusalOfALongHeadCostsNoReuse(t *testing.T) {
	url := loopback(t, func(p *peer) {
		p.Conn.(*net.TCPConn).SetReadBuffer(4 << 10)
		for {
			b := make([]byte, 8<<10)
			n, err := p.Conn.Read(b)
			if err != nil {
				return
			}
			if !strings.HasSuffix(string(b[:n]), "\r\n\r\n") {
				p.send("HTTP/1.1 431 Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
				return
			}
			p.send(hello)
		}
	})
	p := mustNew(t, Config{Servers: []string{url}, Timeouts: Timeouts{Settle: -1}})
	defer p.Close()
	for range 3 {
		if r := get(t, p); r.err != nil {
			t.Fatal(r.err)
		}
		req := newRequest(t, "POST", "http://site.test/", nil)
		req.Header.Set("X", strings.Repeat("x", 150<<10))
		r := do(p, req) // 431, or a broken connection, as the server closes with bytes unread
		if r.err == nil && r.status != 431 {
			t.Errorf("long head: got %+v, want 431", r)
		}
	}
	if st := p.Stats(); st.Surplus != 0 || st.Reuses != 2 || st.Connects != 4 {
		t.Errorf("got %+v, want no surplus, short heads on one connection, long ones on their own", st)
	}
}

// TestPartOfATLSRecordCostsTheConnection has a server send a record that is cut
// short: crypto/tls keeps such bytes to itself.
func TestPartOfATLSRecordCostsTheConnection(t *testing.T) {
	cert := httptest.NewTLSServer(nil)
	cert.Close()
	for _, tt := range []struct {
		name  string
		late  bool // in a segment of its own
		bytes int
		want  state
	}{
		{"nothing", false, 0, silent}, {"nothing, late", true, 0, silent},
		{"a record's first byte", false, 1, closed}, {"a record's first byte, late", true, 1, closed},
		{"half a record", false, 30, closed}, {"half a record, late", true, 30, closed},
		{"whole record, late", true, 1 << 10, surplus},
	} {
		t.Run(tt.name, func(t *testing.T) {
			answered, done := make(chan struct{}), make(chan struct{})
			url := loopback(t, func(p *peer) {
				held := &held{Conn: p.Conn}
				c := tls.Server(held, &tls.Config{Certificates: cert.TLS.Certificates})
				q := &peer{c, bufio.NewReader(c)}
				q.request()
				held.hold = true
				q.send(hello)
				answer := len(held.b)
				q.send(hello)
				part := held.b[:min(len(held.b), answer+tt.bytes)]
				if tt.late {
					p.Conn.Write(part[:answer])
					<-answered
					p.Conn.Write(part[answer:])
				} else {
					p.Conn.Write(part)
					<-answered
				}
				close(done)
				p.drain()
			})
			got, _ := probeAfter(t, "https"+strings.TrimPrefix(url, "http"), &tls.Config{InsecureSkipVerify: true}, func() {
				close(answered)
				<-done
			})
			if tt.want == closed && got == surplus { // already gone: nothing was kept
				got = closed
			}
			if got != tt.want {
				t.Errorf("%d bytes of a record: got state %d, want %d", tt.bytes, got, tt.want)
			}
		})
	}
}

// held keeps what is written once hold is set.
type held struct {
	net.Conn
	hold bool
	b    []byte
}

func (h *held) Write(p []byte) (int, error) {
	if !h.hold {
		return h.Conn.Write(p)
	}
	h.b = append(h.b, p...)
	return len(p), nil
}
