package origin

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// serveH3 runs handler behind HTTP/3 on loopback and returns its URL, a
// configuration that trusts it, and what stops it.
func serveH3(t *testing.T, handler http.HandlerFunc) (url string, trusting *tls.Config, stop func()) {
	t.Helper()
	cert := httptest.NewUnstartedServer(nil)
	cert.StartTLS()
	defer cert.Close()
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http3.Server{Handler: handler, TLSConfig: http3.ConfigureTLSConfig(&tls.Config{Certificates: cert.TLS.Certificates})}
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(socket) })
	return "https://" + socket.LocalAddr().String(), clientTLS(cert), sync.OnceFunc(func() {
		srv.Close()
		socket.Close()
		wg.Wait()
	})
}

func TestH3SendsWhatItIsGiven(t *testing.T) {
	url, trusting, stop := serveH3(t, echoes)
	defer stop()
	p := mustNew(t, Config{Backends: []Backend{{URL: url, Protocol: "h3"}}, TLS: trusting})
	defer p.Close()
	for _, target := range []string{"/", "//x/y", "/a%2fb/../c|d?e=%zz&\"'", "/http://site.test/", "/?"} {
		req := newRequest(t, "PUT", "http://site.test/", strings.NewReader("content"))
		req.RequestURI = target
		req.Header = http.Header{"X-A": {"b"}, "Connection": {"x-hop"}, "Te": {"trailers"}}
		r := do(p, req)
		if r.err != nil || r.body != "content" || r.header.Get("Got") != "HTTP/3.0 PUT site.test "+target || !strings.HasPrefix(r.header.Get("Fields"), "||b|trailers|") {
			t.Errorf("%q: got %d %q %v, %v", target, r.status, r.body, r.header, r.err)
		}
	}
	if st := p.Stats(); st.Connects != 1 || st.Reuses != 4 || st.InFlight != 0 || st.Idle != 1 {
		t.Errorf("got %+v, want one connection for all", st)
	}
}

func TestH3Trailers(t *testing.T) {
	url, trusting, stop := serveH3(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "Grpc-Status")
		io.Copy(w, r.Body)
		w.Header().Set("Grpc-Status", "0")
	})
	defer stop()
	p := mustNew(t, Config{Backends: []Backend{{URL: url, Protocol: "h3"}}, TLS: trusting})
	defer p.Close()
	r := do(p, newRequest(t, "POST", "http://site.test/", io.MultiReader(strings.NewReader("con"), strings.NewReader("tent"))))
	if r.body != "content" || r.err != nil || r.trailer.Get("Grpc-Status") != "0" {
		t.Errorf("got %+v", r)
	}
}

func TestH3Faults(t *testing.T) {
	abort := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	wait := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	half := func(w http.ResponseWriter) {
		w.Header().Set("Content-Length", "10")
		io.WriteString(w, "half")
		w.(http.Flusher).Flush()
	}
	tests := []struct {
		name    string
		handler http.HandlerFunc
		kind    string
		got     string
	}{
		{"resets the stream", abort, connTerminated, ""},
		{"stalls before the head", wait, responseTimeout, ""},
		{"stalls in the body", func(w http.ResponseWriter, r *http.Request) { half(w); wait(w, r) }, responseTimeout, "half"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			url, trusting, stop := serveH3(t, tt.handler)
			defer stop()
			p := mustNew(t, Config{Backends: []Backend{{URL: url, Protocol: "h3"}}, TLS: trusting,
				Timeouts: Timeouts{Header: time.Second, IdleBody: time.Second}})
			defer p.Close()
			r := do(p, newRequest(t, "POST", "http://site.test/", nil))
			if kind(r.err) != tt.kind || r.body != tt.got {
				t.Errorf("got %q, %v, want %q, kind %s", r.body, r.err, tt.got, tt.kind)
			}
			if st := p.Stats(); st.InFlight != 0 {
				t.Errorf("afterwards: %+v", st)
			}
		})
	}
}

func TestH3ConnectFaults(t *testing.T) {
	url, _, stop := serveH3(t, echoes)
	defer stop()
	nobody, err := net.ListenPacket("udp", "127.0.0.1:0") // takes packets and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer nobody.Close()
	for _, tt := range []struct {
		name, url, kind string
		limit           time.Duration
	}{
		{"not trusted", url, tlsCertificate, 5 * time.Second},
		{"silent", "https://" + nobody.LocalAddr().String(), connTimeout, 500 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := mustNew(t, Config{Backends: []Backend{{URL: tt.url, Protocol: "h3"}}, Timeouts: Timeouts{Connect: tt.limit, TLS: tt.limit}})
			defer p.Close()
			r := do(p, newRequest(t, "POST", "http://site.test/", strings.NewReader("x")))
			var e *Error
			if kind(r.err) != tt.kind || !errors.As(r.err, &e) || !e.Unanswered() {
				t.Errorf("got %v, want kind %s", r.err, tt.kind)
			}
		})
	}
}

// TestH3FailsOver has a POST whose first server is not there.
func TestH3FailsOver(t *testing.T) {
	url, trusting, stop := serveH3(t, echoes)
	defer stop()
	p := mustNew(t, Config{Backends: []Backend{{URL: "https://127.0.0.1:1", Protocol: "h3"}, {URL: url, Protocol: "h3"}}, TLS: trusting,
		Timeouts: Timeouts{Connect: 500 * time.Millisecond, TLS: 500 * time.Millisecond}})
	defer p.Close()
	if r := do(p, newRequest(t, "POST", "http://site.test/", strings.NewReader("x"))); r.body != "x" || r.err != nil {
		t.Errorf("got %+v", r)
	}
}

// TestCloseLetsH3Finish: a request under way at Close gets its answer.
func TestCloseLetsH3Finish(t *testing.T) {
	came, release := make(chan struct{}), make(chan struct{})
	url, trusting, stop := serveH3(t, func(w http.ResponseWriter, r *http.Request) {
		close(came)
		<-release
		echoes(w, r)
	})
	defer stop()
	p := mustNew(t, Config{Backends: []Backend{{URL: url, Protocol: "h3"}}, TLS: trusting})
	done := make(chan result)
	go func() { done <- do(p, newRequest(t, "POST", "http://site.test/", strings.NewReader("x"))) }()
	<-came
	p.Close()
	close(release)
	if r := <-done; r.body != "x" || r.err != nil {
		t.Errorf("got %+v", r)
	}
	if r := do(p, newRequest(t, "GET", "http://site.test/", nil).WithContext(context.Background())); !errors.Is(r.err, ErrClosed) {
		t.Errorf("after Close: got %v", r.err)
	}
}

// TestH3ResetInTheBody resets once the client has what came: a reset overtakes
// what is on its way.
func TestH3ResetInTheBody(t *testing.T) {
	url, trusting, stop := serveH3(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "half")
		w.(http.Flusher).Flush()
		io.ReadFull(r.Body, make([]byte, 1))
		panic(http.ErrAbortHandler)
	})
	defer stop()
	p := mustNew(t, Config{Backends: []Backend{{URL: url, Protocol: "h3"}}, TLS: trusting})
	defer p.Close()
	content, feed := io.Pipe()
	defer feed.Close()
	resp, err := p.RoundTrip(newRequest(t, "POST", "http://site.test/", content))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b := make([]byte, 4)
	if _, err := io.ReadFull(resp.Body, b); err != nil || string(b) != "half" {
		t.Fatalf("got %q, %v", b, err)
	}
	io.WriteString(feed, "x")
	if _, err := resp.Body.Read(b); kind(err) != responseIncomplete || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v, want %s", err, responseIncomplete)
	}
	if st := p.Stats(); st.InFlight != 0 || st.Errors[responseIncomplete] != 1 {
		t.Errorf("afterwards: %+v", st)
	}
}

// TestH3GracefulShutdown has a server that says goodbye while a request is under
// way: that one is finished, and the next, a POST, goes to a new connection.
func TestH3GracefulShutdown(t *testing.T) {
	came, release := make(chan struct{}, 1), make(chan struct{})
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			came <- struct{}{}
			<-release
		}
		echoes(w, r)
	})
	cert := httptest.NewUnstartedServer(nil)
	cert.StartTLS()
	defer cert.Close()
	l, err := quic.ListenAddrEarly("127.0.0.1:0", http3.ConfigureTLSConfig(&tls.Config{Certificates: cert.TLS.Certificates}), nil)
	if err != nil {
		t.Fatal(err)
	}
	first, others := &http3.Server{Handler: handler}, &http3.Server{Handler: handler}
	var wg sync.WaitGroup
	wg.Go(func() {
		for srv := first; ; srv = others { // the first connection is the first server's
			conn, err := l.Accept(context.Background())
			if err != nil {
				return
			}
			wg.Go(func() { _ = srv.ServeQUICConn(conn) })
		}
	})
	p := mustNew(t, Config{Backends: []Backend{{URL: "https://" + l.Addr().String(), Protocol: "h3"}}, TLS: clientTLS(cert)})
	slow := make(chan result)
	go func() { slow <- do(p, newRequest(t, "GET", "http://site.test/slow", nil)) }()
	<-came
	down := make(chan error)
	go func() { down <- first.Shutdown(context.Background()) }()
	for p.Stats().Connects == 1 { // until GOAWAY has come; no request may be lost meanwhile
		if r := do(p, newRequest(t, "GET", "http://site.test/", nil)); r.err != nil {
			t.Fatal(r.err)
		}
	}
	if r := do(p, newRequest(t, "POST", "http://site.test/", strings.NewReader("x"))); r.body != "x" || r.err != nil {
		t.Errorf("on the new connection: got %+v", r)
	}
	close(release)
	if r := <-slow; r.status != 200 || r.err != nil {
		t.Errorf("under way: got %+v", r)
	}
	if err := <-down; err != nil {
		t.Error(err)
	}
	if st := p.Stats(); st.Connects != 2 || st.Servers[0].Failures != 0 {
		t.Errorf("afterwards: %+v, want two connections and no failure", st)
	}
	p.Close()
	others.Close()
	l.Close()
	wg.Wait()
}
