package listen

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// selfSigned returns a certificate for loopback and what trusts it.
func selfSigned(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, &tls.Config{RootCAs: pool}
}

// fullNode is a node that listens in clear, over TLS and over QUIC.
type fullNode struct {
	*node
	secure string      // its address for TLS and QUIC
	trust  *tls.Config // for clients
	leaf   []byte      // its certificate
}

func startFull(t testing.TB, s *Server) *fullNode {
	t.Helper()
	n := &fullNode{node: &node{Server: s, ends: make(chan error, 1), events: make(map[Event]int)}}
	s.Log = slog.New(slog.NewTextHandler(n, nil))
	s.Count = func(e Event) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.events[e]++
	}
	var config *tls.Config
	config, n.trust = selfSigned(t)
	n.leaf = config.Certificates[0].Certificate[0]
	if err := s.Listen("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if err := s.ListenTLS("127.0.0.1:0", config); err != nil {
		t.Fatal(err)
	}
	n.addr, n.secure = s.Addrs()[0].String(), s.Addrs()[1].String()
	go func() { n.ends <- s.Serve() }()
	t.Cleanup(func() {
		s.Close()
		if err := <-n.ends; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return n
}

// protocol is one way to speak to a fullNode.
type protocol struct {
	name, proto string
	index       int // in Server.open
	secure      bool
	transport   func(t testing.TB, n *fullNode) http.RoundTripper
}

var protocols = []protocol{
	{"http/1.1", "HTTP/1.1", 0, false, tcpTransport((*http.Protocols).SetHTTP1)},
	{"http/1.1 tls", "HTTP/1.1", 0, true, tcpTransport((*http.Protocols).SetHTTP1)},
	{"h2c", "HTTP/2.0", 1, false, tcpTransport((*http.Protocols).SetUnencryptedHTTP2)},
	{"h2", "HTTP/2.0", 1, true, tcpTransport((*http.Protocols).SetHTTP2)},
	{"h3", "HTTP/3.0", 2, true, quicTransport},
}

func tcpTransport(set func(*http.Protocols, bool)) func(testing.TB, *fullNode) http.RoundTripper {
	return func(t testing.TB, n *fullNode) http.RoundTripper {
		p := new(http.Protocols)
		set(p, true)
		tr := &http.Transport{Protocols: p, TLSClientConfig: n.trust.Clone(), ExpectContinueTimeout: 10 * time.Second, DisableCompression: true}
		t.Cleanup(tr.CloseIdleConnections)
		return tr
	}
}

func quicTransport(t testing.TB, n *fullNode) http.RoundTripper {
	tr := &http3.Transport{TLSClientConfig: n.trust.Clone(), DisableCompression: true}
	t.Cleanup(func() { tr.Close() })
	return tr
}

// client returns a new client and where it finds the node.
func (p protocol) client(t testing.TB, n *fullNode) (*http.Client, string) {
	c := &http.Client{Transport: p.transport(t, n), Timeout: 20 * time.Second}
	if p.secure {
		return c, "https://" + n.secure
	}
	return c, "http://" + n.addr
}

// dialQUIC opens a QUIC connection that speaks HTTP/3 by hand.
func (n *fullNode) dialQUIC(t testing.TB, config *quic.Config) *quic.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	trust := n.trust.Clone()
	trust.NextProtos = []string{http3.NextProtoH3}
	c, err := quic.DialAddr(ctx, n.secure, trust, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.CloseWithError(0, "") })
	control, err := c.OpenUniStream()
	if err != nil {
		t.Fatal(err)
	}
	control.Write([]byte{0x00, 0x04, 0x00}) // a control stream, with empty SETTINGS
	return c
}

func tlsDial(n *fullNode) (net.Conn, error) {
	trust := n.trust.Clone()
	trust.NextProtos = []string{"h2"}
	return tls.Dial("tcp", n.secure, trust)
}
