package origin

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

func TestTLSErrors(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.NotFoundHandler())
	srv.Config.ErrorLog = discardLog()
	srv.StartTLS()
	defer srv.Close()
	clear := loopback(t, func(p *peer) { p.send("HTTP/1.1 400 Bad Request\r\n\r\n"); p.drain() })
	hangsUp := loopback(t, func(*peer) {})
	trusting := clientTLS(srv)
	old := trusting.Clone()
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS10
	named := trusting.Clone()
	named.ServerName = "other.test"
	tests := []struct {
		name, server string
		cfg          *tls.Config
		want         string
	}{
		{"trusted", srv.URL, trusting, ""},
		{"unknown authority", srv.URL, nil, tlsCertificate},
		{"another name", srv.URL, named, tlsCertificate},
		{"server speaks in the clear", "https" + strings.TrimPrefix(clear, "http"), nil, tlsProtocol},
		{"server hangs up", "https" + strings.TrimPrefix(hangsUp, "http"), nil, connTerminated},
		{"server refuses", srv.URL, old, tlsAlert},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := mustNew(t, Config{Servers: []string{tt.server}, TLS: tt.cfg})
			defer p.Close()
			if r := get(t, p); kind(r.err) != tt.want {
				t.Errorf("got %v, want kind %q", r.err, tt.want)
			}
			if st := p.Stats(); st.InFlight != 0 {
				t.Errorf("afterwards: %+v", st)
			}
		})
	}
}

func TestNameInTLS(t *testing.T) {
	tests := []struct{ host, override, want string }{
		{"", "", "origin.test"},
		{"origin", "", "origin.test"},
		{"fixed.test", "", "fixed.test"},
		{"fixed.test:8443", "", "fixed.test"},
		{"fixed.test", "own.test", "own.test"},
	}
	for _, tt := range tests {
		t.Run(tt.host+" "+tt.override, func(t *testing.T) {
			var got, protos atomic.Value
			srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") }))
			srv.TLS = &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
				got.Store(h.ServerName)
				protos.Store(strings.Join(h.SupportedProtos, " "))
				return nil, nil
			}}
			srv.StartTLS()
			defer srv.Close()
			p := mustNew(t, Config{Servers: []string{"https://origin.test"}, Host: tt.host,
				TLS: &tls.Config{InsecureSkipVerify: true, ServerName: tt.override, NextProtos: []string{"h2"}},
				Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
					if addr != "origin.test:443" {
						t.Errorf("dialled %s", addr)
					}
					return new(net.Dialer).DialContext(ctx, network, srv.Listener.Addr().String())
				}})
			defer p.Close()
			if r := get(t, p); r.body != "hello" || got.Load() != tt.want || protos.Load() != "http/1.1" {
				t.Errorf("Host %q: asked for %v with %v, got %+v, want %s", tt.host, got.Load(), protos.Load(), r, tt.want)
			}
		})
	}
}

// TestTLSTruncation checks that a connection cut below TLS does not end a body
// that only closing delimits.
func TestTLSTruncation(t *testing.T) {
	cert := httptest.NewTLSServer(nil)
	cert.Close()
	for _, tt := range []struct {
		name   string
		notify bool
		want   string
	}{{"closed properly", true, ""}, {"cut", false, responseIncomplete}} {
		t.Run(tt.name, func(t *testing.T) {
			url := loopback(t, func(p *peer) {
				c := tls.Server(p.Conn, &tls.Config{Certificates: cert.TLS.Certificates})
				b := make([]byte, 1000)
				c.Read(b)
				io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\nhalf")
				if tt.notify {
					c.CloseWrite()
				}
				p.Conn.(*net.TCPConn).CloseWrite()
				io.Copy(io.Discard, p.Conn)
			})
			p := mustNew(t, Config{Servers: []string{"https" + strings.TrimPrefix(url, "http")}, TLS: &tls.Config{InsecureSkipVerify: true}})
			defer p.Close()
			if r := get(t, p); r.body != "half" || kind(r.err) != tt.want {
				t.Errorf("got %q, %v, want kind %q", r.body, r.err, tt.want)
			}
		})
	}
}

// TestPanicInATLSCallback checks that the connection is closed and the place
// given back.
func TestPanicInATLSCallback(t *testing.T) {
	srv := httptest.NewTLSServer(http.NotFoundHandler())
	defer srv.Close()
	srv.Config.ErrorLog = discardLog()
	var dialled *tracing
	cfg := &tls.Config{InsecureSkipVerify: true, VerifyConnection: func(tls.ConnectionState) error { panic("x") }}
	p := mustNew(t, Config{Servers: []string{srv.URL}, TLS: cfg, Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, addr)
		dialled = &tracing{Conn: c}
		return dialled, err
	}})
	defer p.Close()
	func() {
		defer func() { recover() }()
		get(t, p)
		t.Error("got an answer, want the panic")
	}()
	if st := p.Stats(); st.InFlight != 0 || !dialled.closed.Load() {
		t.Errorf("afterwards: %+v, connection closed %v", st, dialled.closed.Load())
	}
}

// tracing tells whether a connection was closed.
type tracing struct {
	net.Conn
	closed atomic.Bool
}

func (c *tracing) Close() error { c.closed.Store(true); return c.Conn.Close() }

func TestUpgradeOverTCP(t *testing.T) {
	url := loopback(t, func(p *peer) {
		p.head()
		p.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		io.Copy(p.Conn, p.r)
		p.send(" end")
	})
	p := mustNew(t, Config{Servers: []string{url}})
	defer p.Close()
	req := newRequest(t, "GET", "http://site.test/", nil)
	req.Header = http.Header{"Connection": {"upgrade"}, "Upgrade": {"echo"}}
	resp, err := p.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	stream := resp.Body.(interface {
		io.ReadWriteCloser
		CloseWrite() error
	})
	io.WriteString(stream, "hello")
	if err := stream.CloseWrite(); err != nil {
		t.Error(err)
	}
	if b, err := io.ReadAll(stream); string(b) != "hello end" || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
}
