package edge

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// The origin may answer a POST before its content has come: what comes of it
// then must not be taken for a request.
func TestRestOfContentIsNoRequest(t *testing.T) {
	h := walkHandler(t, func(r *http.Request) (*http.Response, error) {
		if r.Method == http.MethodGet {
			return resp(r, "stored for "+r.RequestURI, "Cache-Control", "max-age=60"), nil
		}
		return resp(r, "early"), nil
	}, StoreOptions{}, nil)
	defer h.Store.Close()
	defer h.Close()
	srv := httptest.NewServer(h)
	defer srv.Close()
	c, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	const smuggled = "GET /private HTTP/1.1\r\nHost: example.com\r\n\r\n"
	fmt.Fprintf(c, "POST /x HTTP/1.1\r\nHost: example.com\r\nContent-Length: %d\r\n\r\n", len(smuggled))
	in := bufio.NewReader(c)
	first, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(first.Body)
	if err != nil || string(body) != "early" || !first.Close {
		t.Errorf("early answer %q, %v, announces the end %v; want it whole, and the end", body, err, first.Close)
	}
	_, _ = io.WriteString(c, smuggled) // the connection may be closed already
	if second, err := http.ReadResponse(in, nil); err == nil {
		body, _ := io.ReadAll(second.Body)
		t.Errorf("the content of the POST was answered as a request: %d %q", second.StatusCode, body)
	}
}

// An answer that comes early reaches a client that goes on sending.
func TestEarlyAnswerIsWhole(t *testing.T) {
	h := walkHandler(t, func(r *http.Request) (*http.Response, error) {
		return resp(r, strings.Repeat("x", 1<<20)), nil
	}, StoreOptions{}, nil)
	defer h.Store.Close()
	defer h.Close()
	srv := httptest.NewServer(h)
	defer srv.Close()
	c, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprint(c, "POST /x HTTP/1.1\r\nHost: example.com\r\nContent-Length: 100000\r\n\r\n")
	_, _ = c.Write(make([]byte, 100000)) // it may be refused half-way
	got, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(got.Body); err != nil || len(body) != 1<<20 {
		t.Errorf("early answer: %d bytes, %v; want 1 MiB", len(body), err)
	}
}

// A client may rest in its content while the answer streams: the two may be a
// conversation.
func TestRestingContentDoesNotEndTheAnswer(t *testing.T) {
	for _, second := range []bool{false, true} {
		t.Run(fmt.Sprint("h2=", second), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bodyErr := make(chan error, 1)
				h := walkHandler(t, func(r *http.Request) (*http.Response, error) {
					go func() {
						_, err := io.Copy(io.Discard, r.Body)
						bodyErr <- err
						r.Body.Close()
					}()
					q := resp(r, "", "Content-Type", "application/grpc")
					q.ContentLength = -1
					pr, pw := io.Pipe()
					go func() {
						defer pw.Close()
						for range 5 {
							if _, err := pw.Write([]byte("tick\n")); err != nil {
								return
							}
							<-time.After(20 * time.Second)
						}
					}()
					context.AfterFunc(r.Context(), func() { pr.CloseWithError(r.Context().Err()) })
					q.Body = pr
					return q, nil
				}, StoreOptions{}, nil)
				p := new(http.Protocols)
				p.SetUnencryptedHTTP2(second)
				p.SetHTTP1(!second)
				srv := &http.Server{Handler: h, Protocols: p}
				l := &oneConn{make(chan net.Conn, 1), make(chan struct{})}
				go srv.Serve(l)
				a, b := net.Pipe()
				l.c <- b
				tr := &http.Transport{Protocols: p, DialContext: func(context.Context, string, string) (net.Conn, error) { return a, nil }}
				pr, pw := io.Pipe()
				req, _ := http.NewRequest("POST", "http://example.com/a", pr)
				go pw.Write([]byte("hello"))
				res, err := tr.RoundTrip(req)
				if err != nil {
					t.Error(err)
				} else {
					got, err := io.ReadAll(res.Body)
					if err != nil || len(got) != 25 {
						t.Errorf("client that rests got %q, %v; want 5 ticks", got, err)
					}
				}
				pw.Close()
				<-bodyErr // the content is ended with the answer
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

// heavy is a ResponseWriter whose life is watched.
type heavy struct {
	sink
}

// What was read while it was fetched must not hold on to who read it.
func TestStoredObjectHoldsNoWriter(t *testing.T) {
	h := walkHandler(t, func(r *http.Request) (*http.Response, error) {
		q := resp(r, "", "Cache-Control", "max-age=60")
		q.Body, q.ContentLength = &slowBody{parts: []string{"1", "2"}, gap: time.Millisecond}, 2
		return q, nil
	}, StoreOptions{}, nil)
	freed := make(chan bool, 1000)
	const n = 50
	for i := range n {
		func() {
			w := &heavy{sink: sink{h: http.Header{}}}
			runtime.SetFinalizer(w, func(*heavy) { freed <- true })
			r := request(1)
			r.RequestURI = fmt.Sprint("/o", i)
			h.ServeHTTP(w, r)
			if w.n != 2 {
				t.Fatal(w.n, w.status)
			}
		}()
	}
	for range 100 { // finalizers run a while after the collection
		if runtime.GC(); len(freed) >= n-2 {
			break
		}
		<-time.After(10 * time.Millisecond)
	}
	if got := len(freed); got < n-2 {
		t.Errorf("%d of %d ResponseWriters are still held after their exchanges ended (objects stored: %d)", n-got, n, h.Store.Usage().Objects)
	}
	h.Close()
	h.Store.Close()
}

// deadlines counts the read deadlines that are set.
type deadlines struct {
	sink
	set int
}

func (w *deadlines) SetReadDeadline(time.Time) error { w.set++; return nil }

// The origin may close the content after the handler has returned: by then the
// connection is another request's.
func TestLateCloseOfContentTouchesNothing(t *testing.T) {
	w := &deadlines{sink: sink{h: http.Header{}}}
	b := &clientBody{ReadCloser: io.NopCloser(strings.NewReader("never read")), rc: http.NewResponseController(w)}
	b.end()
	before := w.set
	if err := b.Close(); err != nil || w.set != before {
		t.Errorf("close after the end: %v, %d deadlines set", err, w.set-before)
	}
	if n, err := b.Read(make([]byte, 1)); n != 0 || err != http.ErrBodyReadAfterClose {
		t.Errorf("read after the end: %d, %v", n, err)
	}
}

// An answer that the node makes by itself does not wait for content that its
// client announced and never sends.
func TestAnswersDoNotWaitForContent(t *testing.T) {
	h := walkHandler(t, func(r *http.Request) (*http.Response, error) { return resp(r, "x"), nil }, StoreOptions{}, func(s *Site) {
		s.Hosts = []string{"example.com"}
	})
	defer h.Store.Close()
	defer h.Close()
	server := httptest.NewServer(h)
	defer server.Close()
	for _, c := range []struct{ name, head, want string }{
		{"PURGE", "PURGE /a HTTP/1.1\r\nHost: example.com\r\n", "405"},
		{"a loop", "POST /a HTTP/1.1\r\nHost: example.com\r\nCDN-Loop: seawall\r\n", "502"},
		{"another host", "POST /a HTTP/1.1\r\nHost: other.example\r\n", "421"},
		{"CONNECT", "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n", "400"},
	} {
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.WriteString(conn, c.head+"Content-Length: 100\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil || !strings.Contains(line, c.want) {
			t.Errorf("%s: got %q, %v; want %s", c.name, line, err, c.want)
		}
	}
}

// A body that breaks off before its answer has begun must not be given the
// length of what came of it, and end cleanly.
func TestBodyThatBreaksEarlyDoesNotEndCleanly(t *testing.T) {
	h := walkHandler(t, func(r *http.Request) (*http.Response, error) {
		q := resp(r, "part", "Cache-Control", "max-age=60")
		q.ContentLength = 100
		q.Body = io.NopCloser(io.MultiReader(strings.NewReader("part"), failing{}))
		return q, nil
	}, StoreOptions{}, nil)
	defer h.Store.Close()
	defer h.Close()
	server := httptest.NewServer(h)
	defer server.Close()
	client := server.Client()
	defer client.CloseIdleConnections()
	for i := range 200 {
		resp, err := client.Get(fmt.Sprintf("%s/%d", server.URL, i))
		if err != nil {
			continue // broken before its head was read
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err == nil {
			t.Fatalf("%d: %d %q of length %d ended cleanly, want it broken off", i, resp.StatusCode, body, resp.ContentLength)
		}
	}
}
