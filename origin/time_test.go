package origin

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// endless is a request body that never yields a byte and never ends, until it
// is closed.
func endless() io.ReadCloser { r, _ := io.Pipe(); return r }

// bytesForever is a body without end.
type bytesForever struct{}

func (bytesForever) Read(p []byte) (int, error) { return len(p), nil }

func hang(ctx context.Context, _, _ string) (net.Conn, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestTimeouts(t *testing.T) {
	const s = time.Second
	slow := func(step time.Duration, parts ...string) func(*peer) {
		return func(p *peer) {
			p.request()
			for _, part := range parts {
				time.Sleep(step)
				p.send(part)
			}
		}
	}
	tests := []struct {
		name   string
		cfg    Config
		origin func(*peer)
		body   io.Reader
		kind   string
		after  time.Duration
	}{
		{"connect", Config{Dial: hang}, nil, nil, connTimeout, 5 * s},
		{"connect, set", Config{Dial: hang, Timeouts: Timeouts{Connect: s}}, nil, nil, connTimeout, s},
		{"TLS", Config{Servers: []string{"https://origin.test"}}, (*peer).drain, nil, connTimeout, 5 * s},
		{"head", Config{}, stall(""), nil, responseTimeout, 30 * s},
		{"head, set", Config{Timeouts: Timeouts{Header: 2 * s}}, stall("HTTP/1.1 200"), nil, responseTimeout, 2 * s},
		{"interims do not extend", Config{Timeouts: Timeouts{Header: 5 * s}},
			slow(2*s, "HTTP/1.1 102 P\r\n\r\n", "HTTP/1.1 102 P\r\n\r\n", "HTTP/1.1 102 P\r\n\r\n"), nil, responseTimeout, 5 * s},
		{"body", Config{}, stall(timing + "half"), nil, responseTimeout, 30 * s},
		{"slow body is no fault", Config{}, slow(20*s, timing, "01", "23456", "789"), nil, "", 80 * s},
		{"total", Config{Timeouts: Timeouts{Total: 50 * s}}, slow(20*s, timing, "01", "23456", "789"), nil, responseTimeout, 50 * s},
		{"total bounds the head", Config{Timeouts: Timeouts{Total: s}}, stall(""), nil, responseTimeout, s},
		{"total bounds the connect", Config{Dial: hang, Timeouts: Timeouts{Total: s}}, nil, nil, connTimeout, s},
		{"write", Config{}, func(p *peer) { p.head(); time.Sleep(time.Hour) }, bytesForever{}, connWriteTimeout, 30 * s},
		{"head is timed from the request's end", Config{},
			func(p *peer) { p.request(); time.Sleep(29 * s); p.send(hello) }, slowBody(50 * s), "", 79 * s},
		{"head after a body", Config{}, stall(""), slowBody(50 * s), responseTimeout, 80 * s},
		{"request's body", Config{}, stall(""), slowBody(62 * s), requestError, 30 * s},
		{"request's body, later", Config{Timeouts: Timeouts{RequestIdle: 4 * s}}, stall(""), io.MultiReader(slowBody(6*s), slowBody(10*s)), requestError, 7 * s},
		{"request's body, off", Config{Timeouts: Timeouts{RequestIdle: -1}}, once(hello), slowBody(time.Hour), "", time.Hour},
		{"off", Config{Timeouts: Timeouts{Header: -1, IdleBody: -1}}, slow(time.Hour, timing, "0123456789"), nil, "", 2 * time.Hour},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tt.cfg.TLS = &tls.Config{InsecureSkipVerify: true}
				p, _, stop := pipePool(t, tt.cfg, tt.origin)
				start := time.Now()
				r := do(p, newRequest(t, "POST", "http://site.test/", tt.body))
				if got := time.Since(start); kind(r.err) != tt.kind || got != tt.after {
					t.Errorf("got %v (%s) after %v, want %q after %v", r.err, kind(r.err), got, tt.kind, tt.after)
				}
				if st := p.Stats(); st.InFlight != 0 || st.Retries != 0 {
					t.Errorf("afterwards: %+v, want none in flight and no retry", st)
				}
				stop()
				time.Sleep(time.Hour) // a Read that heeds no Close ends by itself
			})
		})
	}
}

// slowBody yields a byte and ends, each after half of d.
func slowBody(d time.Duration) io.Reader {
	return &slowReader{d: d / 2}
}

type slowReader struct {
	d    time.Duration
	done bool
}

func (r *slowReader) Read(p []byte) (int, error) {
	time.Sleep(r.d)
	if r.done {
		return 0, io.EOF
	}
	r.done = true
	return copy(p, "x"), nil
}

func TestCancellationEndsEveryStage(t *testing.T) {
	tests := []struct {
		name   string
		cfg    Config
		origin func(*peer)
		body   io.Reader
	}{
		{"connecting", Config{Dial: hang}, nil, nil},
		{"TLS", Config{Servers: []string{"https://origin.test"}}, (*peer).drain, nil},
		{"writing the head", Config{}, func(*peer) { time.Sleep(time.Hour) }, nil},
		{"writing the body", Config{}, func(p *peer) { p.head(); time.Sleep(time.Hour) }, bytesForever{}},
		{"reading the request's body", Config{}, func(p *peer) { p.head(); p.drain() }, endless()},
		{"waiting for 100", Config{Timeouts: Timeouts{ExpectContinue: -1}}, func(p *peer) { p.head(); p.drain() }, strings.NewReader("x")},
		{"waiting for the head", Config{}, stall(""), nil},
		{"in the head", Config{}, stall("HTTP/1.1 200 OK\r\n"), nil},
		{"in the body", Config{}, stall(timing + "half"), nil},
		{"in an endless body", Config{}, stall("HTTP/1.1 200 OK\r\n\r\nhalf"), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, _, stop := pipePool(t, tt.cfg, tt.origin)
				ctx, cancel := context.WithCancelCause(t.Context())
				cause := errors.New("client left")
				time.AfterFunc(time.Second, func() { cancel(cause) })
				req := newRequest(t, "POST", "http://site.test/", tt.body).WithContext(ctx)
				if tt.name == "waiting for 100" {
					req.Header.Set("Expect", "100-continue")
				}
				if tt.name == "reading the request's body" {
					req.Body = endless() // made in this bubble
				}
				start := time.Now()
				r := do(p, req)
				if got := time.Since(start); !errors.Is(r.err, context.Canceled) || !errors.Is(r.err, cause) || got != time.Second {
					t.Errorf("got %v after %v, want context.Canceled for %q after 1s", r.err, got, cause)
				}
				synctest.Wait()
				if st := p.Stats(); st.InFlight != 0 || st.Idle != 0 {
					t.Errorf("afterwards: %+v", st)
				}
				stop()
			})
		})
	}
}

func TestDeadlineOfTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _, stop := pipePool(t, Config{}, stall(""))
		defer stop()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		r := do(p, newRequest(t, "GET", "http://site.test/", nil).WithContext(ctx))
		var e *Error
		if !errors.Is(r.err, context.DeadlineExceeded) || !errors.As(r.err, &e) || e.Kind != responseTimeout || !e.Unanswered() {
			t.Errorf("got %v", r.err)
		}
	})
}

func TestIdleConnectionsExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, o, stop := pipePool(t, Config{}, answers(hello))
		defer stop()
		get(t, p)
		time.Sleep(2 * time.Second)
		get(t, p) // the first connection again: used at 2s, so it expires at 6s
		for _, step := range []struct {
			sleep time.Duration
			idle  int
		}{{3999 * time.Millisecond, 1}, {2 * time.Millisecond, 0}} {
			time.Sleep(step.sleep)
			synctest.Wait()
			if got := p.Stats().Idle; got != step.idle {
				t.Errorf("%v later: got %d idle connections, want %d", step.sleep, got, step.idle)
			}
		}
		if o.dialled() != 1 {
			t.Errorf("got %d connections, want 1", o.dialled())
		}
		synctest.Wait()
		if get(t, p); o.dialled() != 2 {
			t.Errorf("after expiry: got %d connections, want 2", o.dialled())
		}
	})
}

// TestConnectionsRestBeforeReuse checks how long: four times Settle until the
// server has proved itself, then Settle.
func TestConnectionsRestBeforeReuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, o, stop := pipePool(t, Config{}, answers(hello))
		defer stop()
		get(t, p)
		time.Sleep(newServerSettle*settle - 1)
		if get(t, p); o.dialled() != 2 {
			t.Fatalf("before a new server's connection settled: got %d connections, want 2", o.dialled())
		}
		for range newServerReuses {
			time.Sleep(newServerSettle * settle)
			get(t, p)
		}
		time.Sleep(settle)
		if get(t, p); o.dialled() != 2 {
			t.Fatalf("known server, settled: got %d connections, want 2", o.dialled())
		}
		// At once: of the two, the one used last is resting and the other is taken.
		if get(t, p); o.dialled() != 2 {
			t.Fatalf("known server, other connection: got %d connections, want 2", o.dialled())
		}
		if get(t, p); o.dialled() != 3 {
			t.Errorf("known server, none settled: got %d connections, want 3", o.dialled())
		}
	})
}

func TestExpectContinue(t *testing.T) {
	content := "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
	tests := []struct {
		name   string
		origin func(p *peer, body *string)
		after  time.Duration
		status int
		body   string // what the server gets
		read   bool
		dials  int // for it and a second request
	}{
		{"100 at once", func(p *peer, body *string) {
			p.head()
			p.send("HTTP/1.1 100 Continue\r\n\r\n")
			*body = p.read(5)
			p.send(content)
			answers(hello)(p)
		}, 0, 200, "hello", true, 1},
		{"silence", func(p *peer, body *string) { p.head(); *body = p.read(5); p.send(content); answers(hello)(p) },
			time.Second, 200, "hello", true, 1},
		{"final status", func(p *peer, body *string) {
			p.head()
			p.send("HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n")
			*body = p.read(1)
		}, 0, 417, "", false, 2},
		{"final status after 103", func(p *peer, body *string) {
			p.head()
			p.send("HTTP/1.1 103 Hints\r\n\r\n")
			p.send("HTTP/1.1 417 No\r\nContent-Length: 2\r\n\r\nno")
			*body = p.read(1)
		}, 0, 417, "", false, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var got string
				p, o, stop := pipePool(t, Config{}, func(p *peer) { tt.origin(p, &got) }, answers(hello))
				body := &tracked{Reader: strings.NewReader("hello")}
				req := newRequest(t, "POST", "http://site.test/", body)
				req.ContentLength = 5
				req.Header.Set("Expect", "100-continue")
				start := time.Now()
				r := do(p, req)
				d := time.Since(start)
				synctest.Wait()
				if reads := body.reads.Load(); r.status != tt.status || r.err != nil || d != tt.after || reads > 0 != tt.read || !body.closed.Load() {
					t.Errorf("got %d, %v after %v, body read %d times, closed %v; want %+v", r.status, r.err, d, reads, body.closed.Load(), tt)
				}
				time.Sleep(settled)
				if r := get(t, p); r.err != nil || o.dialled() != tt.dials {
					t.Errorf("second request: %v, %d connections, want %d", r.err, o.dialled(), tt.dials)
				}
				stop()
				if got != tt.body {
					t.Errorf("server got body %q, want %q", got, tt.body)
				}
			})
		})
	}
}

// read reads n bytes, or what there is.
func (p *peer) read(n int) string {
	b := make([]byte, n)
	n, _ = io.ReadFull(p.r, b)
	return string(b[:n])
}

// tracked counts the reads of a body.
type tracked struct {
	io.Reader
	reads  atomic.Int64
	closed atomic.Bool
}

func (b *tracked) Read(p []byte) (int, error) { b.reads.Add(1); return b.Reader.Read(p) }
func (b *tracked) Close() error               { b.closed.Store(true); return nil }

var _ http.RoundTripper = (*Pool)(nil)
