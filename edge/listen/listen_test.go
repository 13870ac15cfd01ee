package listen

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// net/http lingers for half a second on a connection whose client may still be
// sending, so that the client can read the refusal.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

// node is a Server on a loopback port with its events counted.
type node struct {
	*Server
	addr string
	ends chan error

	mu     sync.Mutex
	events map[Event]int // guarded by mu
	log    bytes.Buffer  // guarded by mu
}

func (n *node) Write(b []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.log.Write(b)
}

func (n *node) seen(e Event) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.events[e]
}

func (n *node) logged() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.log.String()
}

func start(t *testing.T, s *Server) *node {
	t.Helper()
	n := &node{Server: s, ends: make(chan error, 1), events: make(map[Event]int)}
	s.Log = slog.New(slog.NewTextHandler(n, nil))
	s.Count = func(e Event) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.events[e]++
	}
	if err := s.Listen("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	n.addr = s.Addrs()[0].String()
	go func() { n.ends <- s.Serve() }()
	t.Cleanup(func() {
		s.Close()
		if err := <-n.ends; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return n
}

// until polls a condition that another goroutine brings about.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("after 10 s still not: %s", what)
		}
	}
}

func (n *node) dial(t *testing.T) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", n.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

func hello(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	fmt.Fprintf(w, "%s %s", r.Proto, r.URL.Path)
}

func TestBothProtocolsOnOnePort(t *testing.T) {
	n := start(t, &Server{Handler: http.HandlerFunc(hello)})
	for _, c := range []struct {
		name, want string
		set        func(*http.Protocols, bool)
		h1, h2     int64
	}{
		{"http/1.1", "HTTP/1.1 /x", (*http.Protocols).SetHTTP1, 1, 0},
		{"h2c", "HTTP/2.0 /x", (*http.Protocols).SetUnencryptedHTTP2, 0, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := new(http.Protocols)
			c.set(p, true)
			tr := &http.Transport{Protocols: p}
			defer tr.CloseIdleConnections()
			res, err := (&http.Client{Transport: tr}).Get("http://" + n.addr + "/x")
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(res.Body)
			res.Body.Close()
			if string(body) != c.want {
				t.Errorf("got %q, want %q", body, c.want)
			}
			if h1, h2, _ := n.Open(); h1 != c.h1 || h2 != c.h2 {
				t.Errorf("open: got %d and %d, want %d and %d", h1, h2, c.h1, c.h2)
			}
			tr.CloseIdleConnections()
			until(t, "all closed", func() bool { h1, h2, _ := n.Open(); return h1 == 0 && h2 == 0 })
		})
	}
}

// What net/http answers by itself is counted; what a handler answers is not.
func TestMalformedRequestsAreCounted(t *testing.T) {
	const good = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	for _, c := range []struct {
		name, send, last string
		want             int
	}{
		{"no host", "GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400 Bad Request", 1},
		{"two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "HTTP/1.1 400 Bad Request", 1},
		{"not http", "\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03xxxxxxxx\r\n\r\n", "HTTP/1.1 400 Bad Request", 1},
		{"space before colon", "GET / HTTP/1.1\r\nHost : a\r\n\r\n", "HTTP/1.1 400 Bad Request", 1},
		{"unknown coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", "HTTP/1.1 501 Not Implemented", 1},
		{"header too large", "GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 20<<10) + "\r\n\r\n", "HTTP/1.1 431 Request Header Fields Too Large", 1},
		{"unknown expectation", "GET / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n", "HTTP/1.1 417 Expectation Failed", 1},
		{"malformed after a good one", good + "nonsense\r\n\r\n", "HTTP/1.1 400 Bad Request", 1},
		{"bare LF", "GET / HTTP/1.1\nHost: a\r\n\r\n", "HTTP/1.1 400 Bad Request", 1},
		{"bare LF between fields", "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", "HTTP/1.1 400 Bad Request", 1},
		{"bare LF at the end", "GET / HTTP/1.1\r\nHost: a\r\n\n", "HTTP/1.1 400 Bad Request", 1},
		{"a folded field", "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n", "HTTP/1.1 400 Bad Request", 1},
		{"a handler's own 400", "GET /bad HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "HTTP/1.1 400 Bad Request", 0},
		{"a handler's 400, then a good one", "GET /bad HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "HTTP/1.1 200 OK", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := start(t, &Server{MaxHeaderBytes: 8 << 10, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/bad" {
					w.WriteHeader(400)
				}
			})})
			conn := n.dial(t)
			io.WriteString(conn, c.send)
			all, _ := io.ReadAll(conn)
			var last string
			for line := range strings.Lines(string(all)) {
				if strings.HasPrefix(line, "HTTP/") {
					last = strings.TrimSpace(line)
				}
			}
			if !strings.HasPrefix(last, c.last) {
				t.Errorf("sent %q\ngot %q, want %q", c.send, last, c.last)
			}
			if got := n.seen(Malformed); got != c.want {
				t.Errorf("counted %d, want %d", got, c.want)
			}
			if got := strings.Count(n.logged(), "malformed request"); got != c.want {
				t.Errorf("logged %d lines, want %d:\n%s", got, c.want, n.logged())
			}
		})
	}
}

// Content may hold what a head may not, also behind a head that came early.
func TestContentIsNotTakenForAHead(t *testing.T) {
	const body = "a\n b\n\n c\n"
	post := fmt.Sprintf("POST /post HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", len(body))
	handled := make(chan string)
	n := start(t, &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/get" {
			<-handled
		} else {
			handled <- "begun"
			all, _ := io.ReadAll(r.Body)
			handled <- string(all)
		}
	})})
	conn := n.dial(t)
	answers := bufio.NewReader(conn)
	for range 3 {
		io.WriteString(conn, "GET /get HTTP/1.1\r\nHost: a\r\n\r\n"+post) // in one segment
		handled <- "go on"
		<-handled
		io.WriteString(conn, body)
		if got := <-handled; got != body {
			t.Fatalf("content: got %q, want %q", got, body)
		}
		for range 2 {
			res, err := http.ReadResponse(answers, nil)
			if err != nil || res.StatusCode != 200 {
				t.Fatalf("got %v, %v; want 200", res, err)
			}
			res.Body.Close()
		}
	}
	if got := n.seen(Malformed); got != 0 {
		t.Errorf("counted %d malformed, want 0", got)
	}
}

// A flood of malformed requests is counted in full and logged in part.
func TestLogIsBounded(t *testing.T) {
	q := &words{log: slog.New(slog.DiscardHandler)}
	now := time.Unix(1e9, 0)
	var lines int
	for range 1000 {
		if _, ok := q.may(now); ok {
			lines++
		}
	}
	if lines != wordsBurst {
		t.Errorf("logged %d of 1000 at once, want %d", lines, wordsBurst)
	}
	before, ok := q.may(now.Add(wordsEvery))
	if !ok || before != 1000-wordsBurst {
		t.Errorf("a second later: got %v with %d left out, want true with %d", ok, before, 1000-wordsBurst)
	}
	if _, ok := q.may(now.Add(wordsEvery)); ok {
		t.Error("a second line in that second, want one only")
	}
}

// A Content-Length beside a Transfer-Encoding must not let a hidden request
// through (HTTP.md, 13).
func TestChunkedRequestEndsItsConnection(t *testing.T) {
	var paths []string
	n := start(t, &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		paths = append(paths, r.URL.Path)
		w.Header().Del("Connection") // a handler that knows nothing of it
		hello(w, r)
	})})
	conn := n.dial(t)
	io.WriteString(conn, "POST /first HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"+
		"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n")
	all, _ := io.ReadAll(conn)
	if got := strings.Join(paths, " "); got != "/first" {
		t.Errorf("handled %q, want only /first; answers:\n%s", got, all)
	}
}

func TestPanicEndsItsExchangeOnly(t *testing.T) {
	n := start(t, &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/panic":
			panic("boom")
		case "/abort":
			panic(http.ErrAbortHandler)
		}
	})})
	for _, c := range []struct {
		path   string
		broken bool
		counts int
	}{{"/panic", true, 1}, {"/abort", true, 1}, {"/fine", false, 1}} {
		tr := &http.Transport{DisableKeepAlives: true}
		res, err := (&http.Client{Transport: tr}).Get("http://" + n.addr + c.path)
		if err == nil {
			res.Body.Close()
		}
		if (err != nil) != c.broken {
			t.Errorf("%s: got error %v, want one: %v", c.path, err, c.broken)
		}
		if got := n.seen(Panicked); got != c.counts {
			t.Errorf("%s: counted %d panics, want %d", c.path, got, c.counts)
		}
	}
	if log := n.logged(); strings.Count(log, "boom") != 1 || !strings.Contains(log, "listen_test.go") {
		t.Errorf("log has not one line with the panic and its place:\n%s", log)
	}
}

func TestConnectionsOverTheLimitAreClosed(t *testing.T) {
	n := start(t, &Server{MaxConns: 1, Handler: http.HandlerFunc(hello)})
	first := n.dial(t)
	io.WriteString(first, "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n")
	in := bufio.NewReader(first)
	if res, err := http.ReadResponse(in, nil); err != nil || res.StatusCode != 200 {
		t.Fatalf("first: %v %v", res, err)
	}
	second := n.dial(t)
	if b, err := io.ReadAll(second); len(b) != 0 {
		t.Errorf("second: got %q %v, want a closed connection", b, err)
	}
	if got := n.seen(Refused); got != 1 {
		t.Errorf("counted %d, want 1", got)
	}
	first.Close()
	until(t, "the first is gone", func() bool { h1, _, _ := n.Open(); return h1 == 0 })
	third := n.dial(t)
	io.WriteString(third, "GET /3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	if b, _ := io.ReadAll(third); !bytes.Contains(b, []byte("/3")) {
		t.Errorf("third: got %q, want an answer", b)
	}
}

func TestShutdownLetsExchangesFinish(t *testing.T) {
	begun, finish := make(chan struct{}), make(chan struct{})
	n := start(t, &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(begun)
		<-finish
		io.WriteString(w, "done")
	})})
	conn := n.dial(t)
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	<-begun
	down := make(chan error, 1)
	go func() { down <- n.Shutdown(context.Background()) }()
	until(t, "new connections are refused", func() bool {
		c, err := net.Dial("tcp", n.addr)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	select {
	case err := <-down:
		t.Fatalf("shutdown returned %v with an exchange in flight", err)
	default:
	}
	close(finish)
	if b, _ := io.ReadAll(conn); !bytes.HasSuffix(b, []byte("done")) {
		t.Errorf("in flight: got %q, want the whole answer", b)
	}
	if err := <-down; err != nil {
		t.Errorf("shutdown: %v", err)
	}
}

// At its deadline Shutdown closes what is left, upgraded connections included.
func TestShutdownEndsAtItsDeadline(t *testing.T) {
	for _, path := range []string{"/slow", "/upgraded"} {
		t.Run(path, func(t *testing.T) {
			begun := make(chan struct{})
			n := start(t, &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/upgraded" {
					c, _, err := http.NewResponseController(w).Hijack()
					if err != nil {
						t.Error(err)
						return
					}
					go func() { io.Copy(io.Discard, c); c.Close() }()
				}
				close(begun)
				if r.URL.Path == "/slow" {
					<-r.Context().Done()
				}
			})})
			conn := n.dial(t)
			io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: a\r\n\r\n")
			<-begun
			until(t, "the connection is known as upgraded", func() bool { return path == "/slow" || n.upgraded() == 1 })
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
			defer cancel()
			if err := n.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("shutdown: got %v, want the deadline", err)
			}
			if b, _ := io.ReadAll(conn); len(b) != 0 {
				t.Errorf("got %q, want a closed connection", b)
			}
			until(t, "all closed", func() bool { h1, _, _ := n.Open(); return h1 == 0 })
		})
	}
}

func TestShutdownWaitsForUpgradedConnections(t *testing.T) {
	end := make(chan struct{})
	n := start(t, &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		go func() { <-end; c.Close() }()
	})})
	conn := n.dial(t)
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	until(t, "the connection is known as upgraded", func() bool { return n.upgraded() == 1 })
	down := make(chan error, 1)
	go func() { down <- n.Shutdown(context.Background()) }()
	select {
	case err := <-down:
		t.Fatalf("shutdown returned %v with an upgraded connection open", err)
	case <-time.After(5 * time.Millisecond):
	}
	close(end)
	if err := <-down; err != nil {
		t.Errorf("shutdown: %v", err)
	}
}

func TestListenSaysWhyItCannot(t *testing.T) {
	n := start(t, &Server{Handler: http.HandlerFunc(hello)})
	other := &Server{Handler: http.HandlerFunc(hello)}
	if err := other.Listen(n.addr); err == nil || !strings.Contains(err.Error(), n.addr) {
		t.Errorf("a second listener on %s: got %v, want an error with the address", n.addr, err)
	}
	other.Close()
}

func TestClientThatTakesNothingIsCut(t *testing.T) {
	n := start(t, &Server{
		WriteTimeout: 50 * time.Millisecond,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for range 1024 { // more than the sockets' buffers hold
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		}),
	})
	c := n.dial(t)
	_ = c.(*net.TCPConn).SetReadBuffer(4 << 10) // the smaller, the sooner
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	until(t, "the client is cut", func() bool {
		h1, _, _ := n.Open()
		return n.seen(Stalled) > 0 && h1 == 0
	})
}
