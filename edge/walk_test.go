package edge

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

type rt func(*http.Request) (*http.Response, error)

func (f rt) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func resp(r *http.Request, body string, kv ...string) *http.Response {
	h := http.Header{}
	for i := 0; i < len(kv); i += 2 {
		h.Add(kv[i], kv[i+1])
	}
	return &http.Response{StatusCode: 200, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: h,
		Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)), Request: r}
}

func walkHandler(t *testing.T, o rt, so StoreOptions, change func(*Site)) *Handler {
	if so.Memory == 0 {
		so.Memory = 64 << 20
	}
	st, _ := NewStore(so)
	s := Site{Name: "s", Origin: o}
	if change != nil {
		change(&s)
	}
	h, err := New(Config{Store: st, Sites: []Site{s}})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

type slowBody struct {
	parts []string
	gap   time.Duration
}

func (b *slowBody) Read(p []byte) (int, error) {
	if len(b.parts) == 0 {
		return 0, io.EOF
	}
	n := copy(p, b.parts[0])
	b.parts = b.parts[1:]
	<-time.After(b.gap)
	return n, nil
}
func (b *slowBody) Close() error { return nil }

type oneConn struct {
	c    chan net.Conn
	done chan struct{}
}

func (l *oneConn) Accept() (net.Conn, error) {
	select {
	case c := <-l.c:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return &net.TCPAddr{} }

// Over HTTP/2 a write deadline is a timer that ends the stream: it must not run
// while the origin is waited for.
func TestPausesDoNotEndHTTP2Streams(t *testing.T) {
	for _, kind := range []string{"text/event-stream", "text/plain"} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := walkHandler(t, func(r *http.Request) (*http.Response, error) {
					q := resp(r, "", "Cache-Control", "max-age=60", "Content-Type", kind)
					q.ContentLength = -1
					q.Body = &slowBody{parts: []string{"data: 1\n\n", "data: 2\n\n", "data: 3\n\n"}, gap: 40 * time.Second}
					return q, nil
				}, StoreOptions{}, nil)
				p := new(http.Protocols)
				p.SetUnencryptedHTTP2(true)
				srv := &http.Server{Handler: h, Protocols: p}
				l := &oneConn{make(chan net.Conn, 1), make(chan struct{})}
				go srv.Serve(l)
				a, b := net.Pipe()
				l.c <- b
				tr := &http.Transport{Protocols: p, DialContext: func(context.Context, string, string) (net.Conn, error) { return a, nil }}
				req, _ := http.NewRequest("GET", "http://example.com/a", nil)
				res, err := tr.RoundTrip(req)
				if err != nil {
					t.Error(err)
				} else {
					body, err := io.ReadAll(res.Body)
					if want := "data: 1\n\ndata: 2\n\ndata: 3\n\n"; err != nil || string(body) != want {
						t.Errorf("%s with pauses of 40s: %q, %v; want %q", kind, body, err, want)
					}
				}
				<-time.After(10 * time.Minute)
				tr.CloseIdleConnections()
				a.Close()
				close(l.done)
				srv.Close()
				h.Close()
				h.Store.Close()
			})
		})
	}
}

// The limit is reached on the origin's goroutine, while the answer may be under
// way on another.
func TestContentOverTheLimitRacesNoAnswer(t *testing.T) {
	h := walkHandler(t, func(r *http.Request) (*http.Response, error) {
		go func() { io.Copy(io.Discard, r.Body) }() // an upload that goes on beside the answer
		return resp(r, "early", "X-1", "1", "X-2", "2", "X-3", "3"), nil
	}, StoreOptions{}, func(s *Site) { s.Limits.Body = 1000 })
	srv := httptest.NewServer(h)
	for range 50 {
		pr, pw := io.Pipe()
		go func() {
			for range 4 {
				if _, err := pw.Write(bytes.Repeat([]byte("x"), 400)); err != nil {
					return
				}
			}
			pw.Close()
		}()
		req, _ := http.NewRequest("POST", srv.URL+"/a", pr)
		res, err := http.DefaultClient.Do(req)
		if err == nil {
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
		}
	}
	srv.Close()
	h.Close()
	h.Store.Close()
	http.DefaultClient.CloseIdleConnections()
}

// HTTP/2 brings :authority unchecked; one with a slash must not make the key of
// another host's path.
func TestHostCannotReachIntoThePath(t *testing.T) {
	h := walkHandler(t, func(r *http.Request) (*http.Response, error) {
		return resp(r, "I am "+r.Host+" | "+r.RequestURI, "Cache-Control", "max-age=60"), nil
	}, StoreOptions{}, nil)
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	p.SetHTTP1(true)
	l, _ := net.Listen("tcp", "127.0.0.1:0")
	srv := &http.Server{Handler: h, Protocols: p}
	go srv.Serve(l)
	c, _ := net.Dial("tcp", l.Addr().String())
	c.Write([]byte(http2.ClientPreface))
	fr := http2.NewFramer(c, c)
	fr.WriteSettings()
	var hb bytes.Buffer
	enc := hpack.NewEncoder(&hb)
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "victim.com/account"}, {":path", "/evil"}} {
		enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: hb.Bytes(), EndStream: true, EndHeaders: true})
	for range 8 {
		f, err := fr.ReadFrame()
		if err != nil {
			break
		}
		if d, ok := f.(*http2.DataFrame); ok && d.StreamEnded() {
			break
		}
	}
	req, _ := http.NewRequest("GET", "http://"+l.Addr().String()+"/account/evil", nil)
	req.Host = "victim.com"
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(res.Body)
	res.Body.Close()
	if want := "I am victim.com | /account/evil"; string(b) != want {
		t.Errorf("victim.com/account/evil: %q, want %q", b, want)
	}
	c.Close()
	srv.Close()
	http.DefaultClient.CloseIdleConnections()
	h.Close()
	h.Store.Close()
}

func TestSeveralRangesOfAWindowedBodyHoldUpNobody(t *testing.T) {
	for _, ranges := range []string{"bytes=0-9,9000000-9000009", "bytes=8000000-9000000,0-9"} {
		t.Run(ranges, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				release := make(chan struct{})
				h := walkHandler(t, func(r *http.Request) (*http.Response, error) {
					q := resp(r, "", "Cache-Control", "max-age=60")
					q.ContentLength = 32 << 20
					q.Body = struct {
						io.Reader
						io.Closer
					}{io.MultiReader(io.LimitReader(gated{release}, 1<<20), io.LimitReader(zeros{}, 31<<20)), io.NopCloser(nil)}
					return q, nil
				}, StoreOptions{MaxObject: 1 << 20}, nil)
				begun := time.Now()
				done := make(chan struct{})
				go func() { // a plain, quick client
					h.ServeHTTP(&sink{h: http.Header{}}, request(1))
					if took := time.Since(begun); took > time.Second {
						t.Errorf("a plain client took %v beside one of %s", took, ranges)
					}
					close(done)
				}()
				synctest.Wait()
				w := &sink{h: http.Header{}}
				r := request(1)
				r.Header.Set("Range", ranges)
				go func() { synctest.Wait(); close(release) }()
				h.ServeHTTP(w, r)
				if w.status != http.StatusOK || w.n != 32<<20 {
					t.Errorf("%s: status %d with %d bytes, want the whole", ranges, w.status, w.n)
				}
				<-done
				h.Close()
				h.Store.Close()
			})
		})
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

type gated struct{ c chan struct{} }

func (z gated) Read(p []byte) (int, error) { <-z.c; return len(p), nil }

func TestPOSTBegunBeforeAnInvalidationIsNotStoredAfterIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		epoch := uint64(1)
		h := walkHandler(t, func(r *http.Request) (*http.Response, error) {
			if r.Method == "POST" && r.Header.Get("X-Slow") != "" {
				<-time.After(5 * time.Second)
				return resp(r, "old", "Cache-Control", "max-age=60", "Content-Location", r.URL.String()), nil
			}
			if r.Method == "GET" {
				return resp(r, "new", "Cache-Control", "max-age=60"), nil
			}
			return resp(r, "ok"), nil
		}, StoreOptions{Epoch: func() uint64 { return epoch }}, nil)
		go func() {
			r := request(1)
			r.Method = "POST"
			r.Header.Set("X-Slow", "1")
			h.ServeHTTP(&sink{h: http.Header{}}, r)
		}()
		<-time.After(time.Second)
		r := request(1)
		r.Method = "PUT"
		h.ServeHTTP(&sink{h: http.Header{}}, r) // invalidates
		epoch = 2
		<-time.After(5 * time.Second)
		w := &sink{h: http.Header{}}
		h.ServeHTTP(w, request(1))
		if got := fmt.Sprint(w.h["Cache-Status"]); strings.Contains(got, "hit") {
			t.Errorf("the answer to a POST begun before the PUT is used after it: %s", got)
		}
		h.Close()
		h.Store.Close()
	})
}

func TestAnswerToOneQueryIsNotStoredUnderAnEquivalentOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := walkHandler(t, func(r *http.Request) (*http.Response, error) {
			if strings.Contains(r.RequestURI, "utm=evil") {
				return resp(r, "content of evil, no rule", "Cache-Control", "max-age=60"), nil
			}
			return resp(r, "good", "Cache-Control", "max-age=10", "No-Vary-Search", `params=("utm")`), nil
		}, StoreOptions{}, nil)
		ask := func(target string) string {
			r := request(1)
			r.RequestURI = target
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, r)
			return fmt.Sprint(rec.Header()["Cache-Status"], rec.Body.String())
		}
		ask("/a?utm=x")
		<-time.After(11 * time.Second)
		ask("/a?utm=evil")
		if got := ask("/a?utm=x"); !strings.HasSuffix(got, "good") {
			t.Errorf("/a?utm=x got %q after the answer to utm=evil had no No-Vary-Search", got)
		}
		h.Close()
		h.Store.Close()
	})
}

// A fill led through a handler that a reload retired is followed through the new
// one: it must go on.
func TestReloadDoesNotEndWhatOthersFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, _ := NewStore(StoreOptions{Memory: 64 << 20})
		o := rt(func(r *http.Request) (*http.Response, error) {
			pr, pw := io.Pipe()
			go func() {
				for range 10 {
					<-time.After(time.Second)
					pw.Write([]byte("0123456789"))
				}
				pw.Close()
			}()
			context.AfterFunc(r.Context(), func() { pr.CloseWithError(r.Context().Err()) })
			q := resp(r, "", "Cache-Control", "max-age=60")
			q.Body, q.ContentLength = pr, 100
			return q, nil
		})
		h1, _ := New(Config{Store: st, Sites: []Site{{Name: "s", Origin: o}}})
		h2, _ := New(Config{Store: st, Sites: []Site{{Name: "s", Origin: o}}})
		ctx, cancel := context.WithCancel(t.Context())
		gone := make(chan bool)
		go func() {
			defer close(gone)
			defer func() { recover() }()
			h1.ServeHTTP(&sink{h: http.Header{}}, request(1).WithContext(ctx))
		}()
		<-time.After(1500 * time.Millisecond)
		end := make(chan bool)
		w := &sink{h: http.Header{}}
		go func() {
			defer close(end)
			defer func() {
				if p := recover(); p != nil {
					t.Errorf("new handler's client: %v after %d of 100 bytes %q", p, w.n, w.h["Cache-Status"])
				}
			}()
			h2.ServeHTTP(w, request(1))
		}()
		<-time.After(time.Second)
		cancel()
		<-gone
		retired := make(chan bool)
		go func() { h1.Close(); close(retired) }()
		<-end
		<-retired
		if w.n != 100 {
			t.Errorf("the new handler's client got %d bytes of 100", w.n)
		}
		h2.Close()
		st.Close()
	})
}

func TestFollowersOfARefusedResponseDoNotQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int64
		h := walkHandler(t, func(r *http.Request) (*http.Response, error) {
			if n.Add(1) == 1 {
				return resp(r, "x", "Cache-Control", "max-age=1", "Etag", `"1"`), nil
			}
			<-time.After(5 * time.Second)
			q := resp(r, "no")
			q.StatusCode = 503
			return q, nil
		}, StoreOptions{}, nil)
		h.ServeHTTP(&sink{h: http.Header{}}, request(1))
		<-time.After(2 * time.Second)
		begun := time.Now()
		done := make(chan time.Duration, 10)
		for range 10 {
			go func() {
				h.ServeHTTP(&sink{h: http.Header{}}, request(1))
				done <- time.Since(begun)
			}()
		}
		for range 10 {
			if took := <-done; took > 10*time.Second {
				t.Errorf("a client took %v, though the origin answers within 5s", took)
			}
		}
		h.Close()
		h.Store.Close()
	})
}

func TestLateFollowerIsToldTheAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := walkHandler(t, func(r *http.Request) (*http.Response, error) {
			q := resp(r, "", "Cache-Control", "max-age=60", "Etag", `"1"`)
			q.Body, q.ContentLength = &slowBody{parts: []string{"1", "2", "3"}, gap: 15 * time.Second}, 3
			if r.Method == "HEAD" {
				q.Body = http.NoBody
			}
			return q, nil
		}, StoreOptions{}, nil)
		go h.ServeHTTP(&sink{h: http.Header{}}, request(1))
		<-time.After(40 * time.Second)
		w := &sink{h: http.Header{}}
		h.ServeHTTP(w, request(1))
		if got := fmt.Sprint(w.h["Age"]); got != "[40]" {
			t.Errorf("Age of one who joined after 40s = %s, want [40]", got)
		}
		<-time.After(60 * time.Second)
		r := request(1)
		r.Method = "HEAD"
		r.Header.Set("Cache-Control", "no-store")
		h.ServeHTTP(&sink{h: http.Header{}}, r)
		if got := h.Store.Usage().Objects; got != 1 {
			t.Errorf("a HEAD that may store nothing left %d objects, want 1", got)
		}
		h.Close()
		h.Store.Close()
	})
}

// A client that sends part of its content and then nothing is told so in the
// end, and gives its handler back.
func TestStalledContentIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := walkHandler(t, func(r *http.Request) (*http.Response, error) {
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				return nil, err
			}
			return resp(r, "ok"), nil
		}, StoreOptions{}, nil)
		srv := &http.Server{Handler: h}
		l := &oneConn{make(chan net.Conn, 1), make(chan struct{})}
		go srv.Serve(l)
		client, server := net.Pipe()
		l.c <- server
		begun := time.Now()
		go fmt.Fprint(client, "POST /a HTTP/1.1\r\nHost: example.com\r\nContent-Length: 10\r\n\r\nhalf")
		got, err := http.ReadResponse(bufio.NewReader(client), nil)
		if err != nil || got.StatusCode != http.StatusRequestTimeout || time.Since(begun) != bodyStall {
			t.Errorf("after %v: %v, %v; want 408 after %v", time.Since(begun), got, err, bodyStall)
		}
		client.Close()
		close(l.done)
		srv.Close()
		h.Close()
		h.Store.Close()
	})
}

// handshaking is a ResponseWriter of a request in 0-RTT data.
type handshaking struct {
	sink
	waited int
}

func (w *handshaking) AwaitHandshake(context.Context) error { w.waited++; return nil }

// Only a hit answers a request that may be a replay (RFC 8470).
func TestEarlyDataIsAnsweredByHitsAlone(t *testing.T) {
	asked := 0
	h := walkHandler(t, func(r *http.Request) (*http.Response, error) {
		asked++
		return resp(r, "x", "Cache-Control", "max-age=60"), nil
	}, StoreOptions{}, nil)
	defer h.Store.Close()
	defer h.Close()
	early := func(method string) *http.Request {
		r := request(1)
		r.Method = method
		r.TLS = &tls.ConnectionState{}
		return r
	}
	w := &sink{h: http.Header{}}
	if h.ServeHTTP(w, early("GET")); w.status != http.StatusTooEarly || asked != 0 {
		t.Errorf("miss without a way to wait: status %d, origin asked %d times; want 425 and 0", w.status, asked)
	}
	waiting := &handshaking{sink: sink{h: http.Header{}}}
	if h.ServeHTTP(waiting, early("GET")); waiting.status != 200 || waiting.waited != 1 {
		t.Errorf("miss: status %d after waiting %d times; want 200 after 1", waiting.status, waiting.waited)
	}
	waiting = &handshaking{sink: sink{h: http.Header{}}}
	if h.ServeHTTP(waiting, early("GET")); waiting.status != 200 || waiting.waited != 0 {
		t.Errorf("hit: status %d after waiting %d times; want 200 at once", waiting.status, waiting.waited)
	}
	waiting = &handshaking{sink: sink{h: http.Header{}}}
	if h.ServeHTTP(waiting, early("POST")); waiting.waited != 1 {
		t.Errorf("POST: waited %d times, want 1", waiting.waited)
	}
}
