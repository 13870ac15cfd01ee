package origin

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// framed is the server's end of a connection of HTTP/2, frame by frame.
type framed struct {
	*http2.Framer
	net.Conn
}

// request reads until a request's head has come and returns its stream; 0 at the
// connection's end.
func (f *framed) request() uint32 {
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return 0
		}
		switch frame := frame.(type) {
		case *http2.HeadersFrame:
			return frame.StreamID
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				_ = f.WriteSettingsAck()
			}
		}
	}
}

// idle reads for d and answers pings.
func (f *framed) idle(d time.Duration) {
	_ = f.SetReadDeadline(time.Now().Add(d))
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return
		}
		if ping, is := frame.(*http2.PingFrame); is && !ping.IsAck() {
			_ = f.WritePing(true, ping.Data)
		}
	}
}

// drain reads until the client closes.
func (f *framed) drain() { io.Copy(io.Discard, f.Conn) }

// answer writes a head of name and value pairs.
func (f *framed) answer(stream uint32, end bool, fields ...string) {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for i := 0; i < len(fields); i += 2 {
		_ = e.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: b.Bytes(), EndHeaders: true, EndStream: end})
}

// queued is a writer that does not wait for a reader, as a socket would not.
type queued struct {
	to   net.Conn
	more chan []byte
	done chan struct{}
}

func newQueued(to net.Conn) *queued {
	q := &queued{to, make(chan []byte, 64), make(chan struct{})}
	go func() {
		defer close(q.done)
		for b := range q.more {
			if _, err := to.Write(b); err != nil {
				to.Close()
			}
		}
	}()
	return q
}

func (q *queued) Write(b []byte) (int, error) {
	q.more <- bytes.Clone(b)
	return len(b), nil
}

// flush ends the writer when all has been written.
func (q *queued) flush() { close(q.more); <-q.done }

// frames is an origin that speaks HTTP/2 in the clear by a script.
type frames struct {
	settings []http2.Setting
	script   func(*framed)
	dials    atomic.Int64
	open     atomic.Int64
	wg       sync.WaitGroup
}

func (o *frames) dial(context.Context, string, string) (net.Conn, error) {
	o.dials.Add(1)
	o.open.Add(1)
	client, server := net.Pipe()
	o.wg.Go(func() {
		defer o.open.Add(-1)
		defer server.Close()
		if _, err := io.ReadFull(server, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		q := newQueued(server)
		defer q.flush()
		f := &framed{Framer: http2.NewFramer(q, server), Conn: server}
		_ = f.WriteSettings(o.settings...)
		o.script(f)
	})
	return client, nil
}

// framePool returns a pool over scripts and a function that ends both.
func framePool(t *testing.T, cfg Config, o *frames) (*Pool, func()) {
	t.Helper()
	cfg.Dial = o.dial
	if cfg.Backends == nil {
		cfg.Backends = []Backend{{URL: "http://origin.test", Protocol: "h2c"}}
	}
	p := mustNew(t, cfg)
	return p, func() { p.Close(); o.wg.Wait() }
}

// TestWordsOfAServerProveNothing has a server that takes a request and ends the
// connection with words that the library has for requests not taken.
func TestWordsOfAServerProveNothing(t *testing.T) {
	for _, words := range []string{"graceful shutdown", "http2: client conn is closed", "client conn not usable"} {
		t.Run(words, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var heads atomic.Int64
				o := &frames{script: func(f *framed) {
					id := f.request()
					heads.Add(1)
					_ = f.WriteGoAway(id, http2.ErrCodeNo, []byte(words))
					f.idle(time.Second)
				}}
				p, stop := framePool(t, Config{}, o)
				defer stop()
				r := do(p, newRequest(t, "POST", "http://site.test/", nil))
				if r.err == nil || heads.Load() != 1 {
					t.Errorf("sent %d times (%v), want once", heads.Load(), r.err)
				}
			})
		})
	}
}

// TestManyWaitForOneConnection has requests that share a connection which fails.
func TestManyWaitForOneConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, Config{
			Backends: []Backend{{URL: "http://origin.test", Protocol: "h2c"}},
			Dial: func(context.Context, string, string) (net.Conn, error) {
				time.Sleep(time.Second)
				return nil, io.ErrClosedPipe
			}})
		defer p.Close()
		var wg sync.WaitGroup
		errs := make([]error, 10)
		for i := range errs {
			wg.Go(func() { errs[i] = get(t, p).err })
		}
		wg.Wait()
		for i, err := range errs[1:] {
			var a, b *Error
			if !errors.As(err, &a) || !errors.As(errs[0], &b) || a == b || a.Kind != unavailable {
				t.Fatalf("request %d: got %v, want an error of its own", i+1, err)
			}
		}
	})
}

// TestAServerWithoutRoom has servers that give connections and take no request.
func TestAServerWithoutRoom(t *testing.T) {
	tests := []struct {
		name     string
		settings []http2.Setting
		script   func(*framed)
	}{
		{"allows no streams", []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: 0}}, func(f *framed) { f.idle(time.Hour) }},
		{"goes away at once", nil, func(f *framed) { _ = f.WriteGoAway(0, http2.ErrCodeNo, nil); f.idle(time.Hour) }},
		{"closes soon", nil, func(f *framed) { f.idle(time.Second) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := &frames{settings: tt.settings, script: tt.script}
				p, stop := framePool(t, Config{Timeouts: Timeouts{Header: 3 * time.Second}}, o)
				defer stop()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				begun := time.Now()
				for range 5 {
					if r := do(p, newRequest(t, "GET", "http://site.test/", nil).WithContext(ctx)); r.err == nil || o.dials.Load() > 100 {
						t.Fatalf("%v after %d connections", r.err, o.dials.Load())
					}
				}
				if n, open := o.dials.Load(), o.open.Load(); n > 20 || open > 3 || time.Since(begun) > 20*time.Second {
					t.Errorf("%d connections, %d of them open, in %v", n, open, time.Since(begun))
				}
			})
		})
	}
}

// TestH2UploadThatStalls has a server that never opens its window.
func TestH2UploadThatStalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &frames{settings: []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 0}},
			script: func(f *framed) { f.request(); f.drain() }}
		p, stop := framePool(t, Config{Timeouts: Timeouts{WriteIdle: 4 * time.Second}}, o)
		defer stop()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		begun := time.Now()
		r := do(p, newRequest(t, "POST", "http://site.test/", strings.NewReader(strings.Repeat("x", 100<<10))).WithContext(ctx))
		if kind(r.err) != connWriteTimeout || time.Since(begun) != 4*time.Second {
			t.Errorf("got %v after %v, want %s after 4s", r.err, time.Since(begun), connWriteTimeout)
		}
	})
}

// TestAClientsRequestIsNoFailure has requests that the library does not send.
func TestAClientsRequestIsNoFailure(t *testing.T) {
	tests := []struct {
		name string
		with func(*http.Request)
		ok   bool // it is sent
	}{
		{"host without its port", func(r *http.Request) { r.Host = "site.test:" }, true},
		{"host that is an address", func(r *http.Request) { r.Host = "[::1]:" }, true},
		{"target of two slashes", func(r *http.Request) { r.Host, r.RequestURI = "site.test:", "//x/y" }, true},
		{"head longer than the server allows", func(r *http.Request) { r.Header.Set("X", strings.Repeat("x", 2000)) }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := &frames{settings: []http2.Setting{{ID: http2.SettingMaxHeaderListSize, Val: 1000}}, script: func(f *framed) {
					for id := f.request(); id != 0; id = f.request() {
						f.answer(id, true, ":status", "204")
					}
				}}
				p, stop := framePool(t, Config{Host: "client"}, o)
				defer stop()
				if r := get(t, p); r.status != 204 {
					t.Fatal(r.err)
				}
				for range 3 {
					req := newRequest(t, "GET", "http://site.test/", nil)
					tt.with(req)
					if r := do(p, req); (r.err == nil) != tt.ok || !tt.ok && kind(r.err) != requestError {
						t.Errorf("got %d, %v", r.status, r.err)
					}
				}
				if st := p.Stats().Servers[0]; st.Failures != 0 {
					t.Errorf("%d failures of the server", st.Failures)
				}
			})
		})
	}
}

// TestH2HeadsThatAreNone has heads that would deceive whoever passes them on.
func TestH2HeadsThatAreNone(t *testing.T) {
	tests := []struct {
		name   string
		fields []string
		kind   string
	}{
		{"status of two digits", []string{":status", "42"}, protocolError},
		{"negative status", []string{":status", "-200"}, protocolError},
		{"status of five digits", []string{":status", "20000"}, protocolError},
		{"signed status", []string{":status", "+200"}, protocolError},
		{"switches protocols", []string{":status", "101"}, protocolError},
		{"two lengths", []string{":status", "200", "content-length", "5", "content-length", "7"}, protocolError},
		{"length that is none", []string{":status", "200", "content-length", "+5"}, protocolError},
		{"too long", []string{":status", "200", "x", strings.Repeat("x", 900), "x", strings.Repeat("y", 900), "x", strings.Repeat("z", 900)}, responseHeadSize},
		{"the same length twice", []string{":status", "200", "content-length", "0", "content-length", "0"}, protocolError},
		{"one length", []string{":status", "200", "content-length", "0"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := &frames{script: func(f *framed) {
					f.answer(f.request(), true, tt.fields...)
					f.drain()
				}}
				p, stop := framePool(t, Config{MaxHeaderBytes: 2000, Timeouts: Timeouts{Header: 3 * time.Second}}, o)
				defer stop()
				r := do(p, newRequest(t, "POST", "http://site.test/", nil))
				var e *Error
				if kind(r.err) != tt.kind || errors.As(r.err, &e) && e.Unanswered() {
					t.Errorf("got %d, %v, want %q, answered", r.status, r.err, tt.kind)
				}
				if st := p.Stats(); st.InFlight != 0 {
					t.Errorf("afterwards: %+v", st)
				}
			})
		})
	}
}

// TestH2InterimsAreBounded has a server that sends interim responses for ever,
// and one that breaks off after one.
func TestH2InterimsAreBounded(t *testing.T) {
	for _, tt := range []struct {
		name, status string
		n, want      int
	}{
		{"for ever", "103", 1 << 20, maxInterims},
		{"one", "103", 1, 1},
		{"100 unasked", "100", 1, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := &frames{script: func(f *framed) {
					id := f.request()
					go f.drain()
					for range tt.n {
						var b bytes.Buffer
						_ = hpack.NewEncoder(&b).WriteField(hpack.HeaderField{Name: ":status", Value: tt.status})
						if f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: b.Bytes(), EndHeaders: true}) != nil {
							return
						}
						if tt.n > 1000 {
							time.Sleep(time.Millisecond)
						}
					}
				}}
				p, stop := framePool(t, Config{}, o)
				defer stop()
				got := 0
				trace := &httptrace.ClientTrace{Got1xxResponse: func(int, textproto.MIMEHeader) error { got++; return nil }}
				req := newRequest(t, "GET", "http://site.test/", nil)
				_, err := p.RoundTrip(req.WithContext(httptrace.WithClientTrace(req.Context(), trace)))
				var e *Error
				if !errors.As(err, &e) || e.Unanswered() || got != tt.want {
					t.Errorf("got %d interim responses and %v, want %d and an answer broken off", got, err, tt.want)
				}
			})
		})
	}
}

// TestTotalBoundsConnecting has a server whose connection never comes.
func TestTotalBoundsConnecting(t *testing.T) {
	for _, protocol := range []string{"h1", "h2c"} {
		t.Run(protocol, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := mustNew(t, Config{
					Backends: []Backend{{URL: "http://origin.test", Protocol: protocol}},
					Timeouts: Timeouts{Total: time.Second},
					Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
						<-ctx.Done()
						return nil, ctx.Err()
					}})
				defer p.Close()
				begun := time.Now()
				if r := get(t, p); kind(r.err) != connTimeout || time.Since(begun) != time.Second {
					t.Errorf("got %v after %v, want %s after 1s", r.err, time.Since(begun), connTimeout)
				}
			})
		})
	}
}
