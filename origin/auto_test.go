package origin

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// chooserServer is an https server that says by what it was asked, of HTTP/2 and
// HTTP/1.1 or of one of them. upgrades to "echo" are made.
func chooserServer(t *testing.T, protocols ...string) *httptest.Server {
	t.Helper()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "echo" {
			nc, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Errorf("upgrade by %s: %v", r.Proto, err)
				return
			}
			defer nc.Close()
			io.WriteString(nc, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
			return
		}
		b, _ := io.ReadAll(r.Body)
		io.WriteString(w, r.Proto+string(b))
	}))
	srv.EnableHTTP2 = strings.HasPrefix(protocols[0], "h2")
	srv.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { // httptest adds to NextProtos
		return &tls.Config{Certificates: srv.TLS.Certificates, NextProtos: protocols}, nil
	}}
	srv.Config.ErrorLog = discardLog()
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv
}

// TestAutoProtocol checks that the server chooses, that its choice is
// remembered, and that upgrades go over HTTP/1.1 whatever it chose.
func TestAutoProtocol(t *testing.T) {
	for _, tt := range []struct {
		name      string
		protocols []string
		want      string
		connects  int64 // made for eight requests one by one, at most
	}{
		{"both", []string{"h2", "http/1.1"}, "HTTP/2.0", 1},
		{"HTTP/1.1 alone", []string{"http/1.1"}, "HTTP/1.1", 9}, // one was made to ask
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := chooserServer(t, tt.protocols...)
			var dials atomic.Int64
			p := mustNew(t, Config{Backends: []Backend{{URL: srv.URL, Protocol: "auto"}}, TLS: clientTLS(srv),
				Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
					dials.Add(1)
					return new(net.Dialer).DialContext(ctx, network, addr)
				}})
			defer p.Close()
			for i := range 8 {
				r := do(p, newRequest(t, "POST", "http://site.test/", strings.NewReader(" content")))
				if r.err != nil || r.body != tt.want+" content" {
					t.Errorf("request %d: got %q, %v, want %s", i, r.body, r.err, tt.want)
				}
			}
			if got := dials.Load(); got > tt.connects {
				t.Errorf("%d connections, want %d at most", got, tt.connects)
			}
			req := newRequest(t, "GET", "http://site.test/", nil)
			req.Header = http.Header{"Connection": {"upgrade"}, "Upgrade": {"echo"}}
			resp, err := p.RoundTrip(req)
			if err != nil || resp.StatusCode != 101 {
				t.Fatalf("upgrade: got %v, %v", resp, err)
			}
			resp.Body.Close()
			if st := p.Stats(); st.Retries != 0 || st.InFlight != 0 || st.Servers[0].Failures != 0 {
				t.Errorf("afterwards: %+v, want no retry and no failure", st)
			}
		})
	}
}

// TestAutoFollowsTheServer has a server that comes back with another choice, and
// requests at once.
func TestAutoFollowsTheServer(t *testing.T) {
	servers := []*httptest.Server{chooserServer(t, "h2", "http/1.1"), chooserServer(t, "http/1.1")}
	var now atomic.Int64
	p := mustNew(t, Config{Backends: []Backend{{URL: "https://example.com", Protocol: "auto"}}, TLS: clientTLS(servers[0]), Retry: Retry{Attempts: 2},
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, servers[now.Load()].Listener.Addr().String())
		}})
	defer p.Close()
	for i, want := range []string{"HTTP/2.0", "HTTP/1.1"} {
		now.Store(int64(i))
		if i > 0 {
			servers[i-1].CloseClientConnections()
			for range 4 { // until it is known
				do(p, newRequest(t, "GET", "http://site.test/", nil))
			}
		}
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				if r := do(p, newRequest(t, "GET", "http://site.test/", nil)); r.err != nil || r.body != want {
					t.Errorf("server %d: got %q, %v, want %s", i, r.body, r.err, want)
				}
			})
		}
		all.Wait()
	}
}
