package origin

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/net/http/httpguts"
)

var (
	errQueueFull = errors.New("too many requests in flight, and the queue is full")
	errQueueWait = errors.New("too many requests in flight")
	errTunnels   = errors.New("too many tunnels")
)

// transport carries requests to one server over one protocol.
type transport interface {
	// send sends x's request once, for which x has a place, and returns the final
	// response. With an error, an *Error, the place has been given up; else it is
	// when the response's body ends or is closed.
	send(x *exchange) (*http.Response, error)
	idleCount() int // kept connections that nobody uses
	close()         // what nobody uses; nothing is kept from now on
}

// server is one of a pool's servers: what it is called, how it is, and how to
// reach it.
type server struct {
	p      *Pool
	n      int    // its place in Pool.servers
	id     string // for people
	url    string // scheme and authority, for words
	addr   string // host:port to dial
	name   string // host, for SNI
	host   string // authority without the scheme's own port, for the Host field
	tls    *tls.Config
	names  *names // nil: addr is dialled as it is
	weight float64
	backup bool
	proto  string
	hash   uint64 // of id
	token  string // of id, for the sticky cookie

	transport transport
	condition // guarded by Pool.mu
}

// newServer checks one of a pool's servers and returns it, the n-th.
func newServer(p *Pool, n int, b Backend) (*server, error) {
	raw, srv := strings.CutPrefix(b.URL, "srv+")
	bad := func(why string) error {
		return fmt.Errorf("origin: server %q: %s (hint: http://host[:port] or https://host[:port])", shown(b.URL), why)
	}
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return nil, bad("not a URL")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, bad("scheme is neither http nor https")
	case u.User != nil:
		return nil, bad("user info is not allowed")
	case u.Hostname() == "":
		return nil, bad("no host")
	case u.Path != "" && u.Path != "/":
		return nil, bad("a path is not allowed")
	case u.RawQuery != "" || u.ForceQuery:
		return nil, bad("a query is not allowed")
	case strings.Contains(raw, "#"):
		return nil, bad("a fragment is not allowed")
	case srv && u.Port() != "":
		return nil, bad("a port is not allowed: the SRV record has it")
	}
	port, own := u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme]
	if port == "" {
		port = own
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return nil, bad("port is not between 1 and 65535")
	}
	s := &server{p: p, n: n, id: b.id(), url: u.Scheme + "://" + u.Host, name: u.Hostname(), addr: net.JoinHostPort(u.Hostname(), port),
		weight: float64(max(b.Weight, 1)), backup: b.Backup, proto: cmp.Or(b.Protocol, "h1")}
	s.host = s.addr
	if port == own {
		s.host = strings.TrimSuffix(s.addr, ":"+port)
	}
	if _, _, err := net.SplitHostPort(s.addr); err != nil || !validHost(s.host) {
		return nil, bad("host is not valid")
	}
	s.hash = xxhash.Sum64String(s.id)
	s.token = fmt.Sprintf("%016x", mix(s.hash))
	if u.Scheme == "https" {
		s.tls = tlsFor(p.cfg, s.name)
	}
	if srv && p.cfg.Resolver == nil {
		return nil, bad("srv+ needs Config.Resolver beside Config.Dial")
	}
	if p.cfg.Resolver != nil {
		s.names = newNames(p, s.name, u.Port() == "" && srv, port)
	}
	return s, s.speak()
}

// speak gives s the transport for its protocol.
func (s *server) speak() error {
	bad := func(hint string) error {
		return fmt.Errorf("origin: server %q: protocol %q (hint: %s)", s.url, s.proto, hint)
	}
	switch s.proto {
	case "h1":
		s.transport = &h1{server: s}
	case "h2":
		if s.tls == nil {
			return bad("h2 needs an https:// URL; h2c is HTTP/2 in the clear")
		}
		s.transport = newH2(s)
	case "auto":
		if s.tls == nil {
			return bad("auto needs an https:// URL, where servers say what they speak")
		}
		s.transport = newAuto(s)
	case "h2c":
		if s.tls != nil {
			return bad("h2c needs an http:// URL; h2 is HTTP/2 over TLS")
		}
		s.transport = newH2(s)
	case "h3":
		if s.tls == nil {
			return bad("h3 needs an https:// URL")
		}
		s.tls.NextProtos = []string{"h3"}
		s.transport = newH3(s)
	default:
		return bad("h1, h2, h2c, h3 or auto")
	}
	return nil
}

// tlsFor returns the client configuration for a server called name.
func tlsFor(cfg Config, name string) *tls.Config {
	t := cfg.TLS.Clone()
	if t == nil {
		t = new(tls.Config)
	}
	if t.ServerName == "" {
		t.ServerName = name
		if cfg.Host != "" && cfg.Host != "origin" {
			t.ServerName = strings.Trim(cfg.Host, "[]")
			if host, _, err := net.SplitHostPort(cfg.Host); err == nil {
				t.ServerName = host
			}
		}
	}
	if t.ClientSessionCache == nil {
		t.ClientSessionCache = tls.NewLRUClientSessionCache(16)
	}
	return t
}

func checkHost(host string) error {
	if host != "" && !validHost(host) {
		return fmt.Errorf("origin: Host %q is not a host name", host)
	}
	return nil
}

func validHost(host string) bool {
	return httpguts.ValidHostHeader(host) && !strings.ContainsAny(host, "/?#@\\ \t")
}

// clientHost returns the Host the request itself asks for.
func clientHost(req *http.Request) string {
	if req.Host == "" && req.URL != nil {
		return req.URL.Host
	}
	return req.Host
}

// hostFor returns the Host field's value.
func (s *server) hostFor(x *exchange) string {
	if x.host != "" {
		return x.host
	}
	switch s.p.cfg.Host {
	case "":
		return clientHost(x.req)
	case "origin":
		return s.host
	}
	return s.p.cfg.Host
}
