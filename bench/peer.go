package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// A protocol is how a client speaks to a server.
type protocol string

const (
	h1  protocol = "h1"  // HTTP/1.1 in clear
	h1s protocol = "h1s" // HTTP/1.1 by TLS
	h2  protocol = "h2"  // HTTP/2 by TLS
	h3  protocol = "h3"  // HTTP/3
)

// A peer is a server that the harness knows how to run.
type peer struct {
	name    string
	program string // looked for in PATH; "" is built or is this program
	version []string
	speaks  string // protocols, parted by spaces
	caches  bool
	purges  bool
	note    string // what to know when reading its figures
	start   func(ctx context.Context, s *setting) (*server, error)
}

func (p *peer) speaksTo(by protocol) bool {
	for word := range strings.FieldsSeq(p.speaks) {
		if word == string(by) {
			return true
		}
	}
	return false
}

// node is the name of Seawall among the peers.
const (
	node = "seawall"
	bare = "net/http"
)

// peers returns all that are known, the node first.
func peers() []*peer {
	return []*peer{
		{name: node, speaks: "h1 h1s h2 h3", caches: true, purges: true, start: startNode,
			note: "access log to a file, metrics, admin API and purge log on"},
		{name: bare, speaks: "h1 h1s h2 h3", start: startBare,
			note: "a bare handler that writes the same bytes: no cache, no log"},
		{name: "nginx", program: "nginx", version: []string{"-v"}, speaks: "h1 h1s h2", caches: true, start: startNginx,
			note: "proxy_cache in files (in the page cache), access log on; no purge in the open version; its files run past their limit between the turns of its cache manager"},
		{name: "varnish", program: "varnishd", version: []string{"-V"}, speaks: "h1", caches: true, purges: true, start: startVarnish,
			note: "memory storage, log in shared memory without varnishncsa; it does not speak TLS"},
		{name: "haproxy", program: "haproxy", version: []string{"-v"}, speaks: "h1 h1s h2", caches: true, start: startHAProxy,
			note: "cache in memory, access log to a file; it does not collapse, revalidate or purge"},
		{name: "trafficserver", program: "traffic_server", version: []string{"--version"}, speaks: "h1 h1s h2", caches: true, purges: true, start: startTrafficServer,
			note: "RAM cache of the budget before a cache file of 128 MiB at least, access log on"},
	}
}

func peerNames() []string {
	var names []string
	for _, p := range peers() {
		names = append(names, p.name)
	}
	return names
}

// missing tells why a peer cannot run here, "" if it can. Servers are often
// installed where only root's PATH looks.
func (p *peer) missing() string {
	if p.program == "" {
		return ""
	}
	if _, err := p.path(); err != nil {
		return fmt.Sprintf("%s is not installed", p.program)
	}
	return ""
}

func (p *peer) path() (string, error) {
	path, err := exec.LookPath(p.program)
	if err == nil {
		return path, nil
	}
	return exec.LookPath(filepath.Join("/usr/sbin", p.program))
}

// versionLine returns what the peer calls its version.
func (p *peer) versionLine(ctx context.Context) string {
	path, err := p.path()
	if err != nil {
		return ""
	}
	return versionOf(ctx, append([]string{path}, p.version...)...)
}

// A setting is what a server is started with.
type setting struct {
	dir       string // an empty folder of its own
	origin    string // host:port
	memory    int64  // bytes for cached responses
	function  string // a WebAssembly module to run on every request, "" for none
	certs     *certificate
	cores     []int
	binary    string   // the node's
	env       []string // more of the node's
	tls       int      // ports
	clear     int
	admin     int
	peer      *peer
	variation string // written into the function's configuration
}

// A server is a peer that runs.
type server struct {
	*process
	peer    *peer
	setting *setting
	clear   string // host:port
	tls     string
	admin   string // the node's admin listener
	purge   func(path string) (method, url, contentType, body string)
	kept    func(ctx context.Context) (int64, error) // see bytesKept
}

// url returns what a client of the protocol asks.
func (s *server) url(by protocol) string {
	if by == h1 {
		return "http://" + s.clear
	}
	return "https://" + s.tls
}

// startServer runs a peer in dir and returns when it has answered a request from
// the origin.
func startServer(ctx context.Context, s setting, p *peer) (*server, error) {
	var err error
	for _, port := range []*int{&s.clear, &s.tls, &s.admin} {
		if *port, err = freePort(); err != nil {
			return nil, err
		}
	}
	s.peer = p
	s.dir = filepath.Join(s.dir, strings.ReplaceAll(p.name, "/", "-"))
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		return nil, err
	}
	srv, err := p.start(ctx, &s)
	if err != nil {
		return nil, err
	}
	srv.peer, srv.setting = p, &s
	srv.clear = fmt.Sprintf("127.0.0.1:%d", s.clear)
	srv.tls = fmt.Sprintf("127.0.0.1:%d", s.tls)
	srv.admin = fmt.Sprintf("127.0.0.1:%d", s.admin)
	err = srv.until(ctx, func() error {
		if p.speaksTo(h1s) {
			conn, err := net.DialTimeout("tcp", srv.tls, time.Second)
			if err != nil {
				return err
			}
			conn.Close()
		}
		_, err := fetch(ctx, http.MethodGet, srv.url(h1)+"/hour/1024/0", nil, nil)
		return err
	})
	if err != nil {
		srv.stop()
		return nil, err
	}
	return srv, nil
}

// A certificate is a self-signed one for the length of a run, as the files that
// servers want.
type certificate struct {
	cert, key, both string // paths
}

// newCertificate makes one for localhost, ECDSA on P-256, in dir.
func newCertificate(dir string) (*certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: "localhost"},
		DNSNames:     []string{"localhost"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(48 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	c := &certificate{cert: filepath.Join(dir, "cert.pem"), key: filepath.Join(dir, "key.pem"), both: filepath.Join(dir, "both.pem")}
	for path, text := range map[string][]byte{c.cert: certPEM, c.key: keyPEM, c.both: append(certPEM, keyPEM...)} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return nil, err
		}
	}
	return c, nil
}
