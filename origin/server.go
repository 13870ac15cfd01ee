package origin

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"
)

const (
	// A server is new until this many of its connections were found silent at
	// their next use. A new one's connections settle for longer: a server that
	// sends surplus mostly does so from its first answer on, and the longer the
	// pool looks the surer it sees it before anything has been reused.
	newServerReuses = 32
	newServerSettle = 4

	// Beyond MaxInFlight, this share of it may wait this long for a place.
	queueShare = 8
	queueWait  = time.Second

	// Only connections idle for this many times Settle, and this long, count
	// against MaxIdle. At steady load those that settle or have just settled are
	// the next ones in use: closing them would mean to connect anew all the time.
	spareSettles = 20
	spareTime    = 250 * time.Millisecond
)

var (
	errQueueFull = errors.New("too many requests in flight, and the queue is full")
	errQueueWait = errors.New("too many requests in flight")
	errTunnels   = errors.New("too many tunnels")
)

// server is one of a pool's servers with its idle connections.
type server struct {
	p    *Pool
	url  string // scheme and authority, for words
	addr string // host:port to dial
	name string // host, for SNI
	host string // authority without the scheme's own port, for the Host field
	tls  *tls.Config

	slots   chan struct{} // one a request in flight
	waiting atomic.Int64
	tunnels atomic.Int64
	surplus atomic.Bool  // it sent bytes nobody asked for
	silent  atomic.Int64 // reuses that found silence

	mu     sync.Mutex // guards the fields below
	idle   []*conn    // by since, oldest first
	reaper *time.Timer
}

// newServer parses and checks one of Config.Servers.
func newServer(p *Pool, raw string) (*server, error) {
	bad := func(why string) error {
		shown := raw
		if i := strings.LastIndexByte(raw, '@'); i >= 0 {
			shown = "…" + raw[i:] // never show a password
		}
		return fmt.Errorf("origin: server %q: %s (hint: http://host[:port] or https://host[:port])", shown, why)
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
	}
	port, own := u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme]
	if port == "" {
		port = own
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return nil, bad("port is not between 1 and 65535")
	}
	s := &server{p: p, url: u.Scheme + "://" + u.Host, name: u.Hostname(), addr: net.JoinHostPort(u.Hostname(), port)}
	s.host = s.addr
	if port == own {
		s.host = strings.TrimSuffix(s.addr, ":"+port)
	}
	if !validHost(s.host) {
		return nil, bad("host is not valid")
	}
	s.slots = make(chan struct{}, p.cfg.MaxInFlight)
	if u.Scheme == "https" {
		s.tls = tlsFor(p.cfg, s.name)
	}
	return s, nil
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
	t.NextProtos = []string{"http/1.1"}
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
func (s *server) hostFor(req *http.Request) string {
	switch s.p.cfg.Host {
	case "":
		return clientHost(req)
	case "origin":
		return s.host
	}
	return s.p.cfg.Host
}

// reusable reports whether connections of s may serve a second request.
func (s *server) reusable() bool {
	return !s.surplus.Load() && s.p.cfg.MaxIdle > 0 && !s.p.closed.Load()
}

// admit takes a place among the requests in flight if there is one.
func (s *server) admit() bool {
	select {
	case s.slots <- struct{}{}:
		s.p.counts.inFlight.Add(1)
		return true
	default:
		return false
	}
}

// wait queues for a place: few may, and not for long.
func (s *server) wait(x *exchange) error {
	defer s.waiting.Add(-1)
	if s.waiting.Add(1) > int64(max(1, s.p.cfg.MaxInFlight/queueShare)) {
		return s.limit(errQueueFull)
	}
	ctx, cancel := x.within(queueWait)
	defer cancel()
	select {
	case s.slots <- struct{}{}:
		s.p.counts.inFlight.Add(1)
		return nil
	case <-ctx.Done():
		return s.limit(errQueueWait)
	}
}

func (s *server) limit(err error) error {
	return &Error{Kind: connLimit, Step: stepQueue, Err: err, unanswered: true}
}

// leave gives the place back.
func (s *server) leave() {
	<-s.slots
	s.p.counts.inFlight.Add(-1)
}

// settle returns how long a connection rests before its next request.
func (s *server) settle() time.Duration {
	d := s.p.cfg.Timeouts.Settle
	if s.silent.Load() < newServerReuses {
		d *= newServerSettle
	}
	return d
}

// take returns the idle connection used last, of those that have settled and
// are silent, or nil. One that was idle for longer than oldest is left alone,
// unless oldest is 0.
func (s *server) take(oldest time.Duration) *conn {
	for {
		c := s.pop(oldest)
		if c == nil {
			return nil
		}
		switch c.probe() {
		case silent:
			s.silent.Add(1)
			return c
		case surplus:
			s.sawSurplus()
		}
		c.abort()
	}
}

func (s *server) pop(oldest time.Duration) *conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.restedLocked(s.settle()) - 1
	if i < 0 {
		return nil
	}
	c := s.idle[i]
	if oldest > 0 && time.Since(c.since) > oldest {
		return nil
	}
	s.idle = slices.Delete(s.idle, i, i+1)
	return c
}

// restedLocked returns how many idle connections, from the oldest, have been so
// for d.
func (s *server) restedLocked(d time.Duration) int {
	limit := time.Now().Add(-d)
	return sort.Search(len(s.idle), func(i int) bool { return s.idle[i].since.After(limit) })
}

// put keeps a connection whose answer has ended, or closes it.
func (s *server) put(c *conn) {
	if !s.reusable() {
		c.abort()
		return
	}
	switch c.probe() {
	case surplus:
		s.sawSurplus()
		fallthrough
	case closed:
		c.abort()
		return
	}
	c.wire.watch()
	for _, spare := range s.keep(c) {
		s.retire(spare)
	}
}

// retire closes a connection that was idle, and learns what it can from it:
// those used least may never be looked at otherwise.
func (s *server) retire(c *conn) {
	if c.probe() == surplus {
		s.sawSurplus()
	}
	c.abort()
}

// keep makes c idle and returns the connections for which there is no room any
// more.
func (s *server) keep(c *conn) []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.reusable() { // looked at under the lock, so that dropIdle sees c
		return []*conn{c}
	}
	c.since = time.Now()
	s.idle = append(s.idle, c)
	if s.reaper == nil && s.p.cfg.Timeouts.IdleConn > 0 {
		s.reaper = time.AfterFunc(s.p.cfg.Timeouts.IdleConn, s.reap)
	}
	if len(s.idle) <= s.p.cfg.MaxIdle {
		return nil
	}
	rested := s.restedLocked(max(spareSettles*s.settle(), spareTime))
	n := max(rested, len(s.idle)-s.p.cfg.MaxInFlight) - s.p.cfg.MaxIdle
	if n <= 0 {
		return nil
	}
	spare := slices.Clone(s.idle[:n])
	s.idle = slices.Delete(s.idle, 0, n)
	return spare
}

// reap closes the connections that were idle for too long.
func (s *server) reap() {
	s.mu.Lock()
	limit := time.Now().Add(-s.p.cfg.Timeouts.IdleConn)
	n := sort.Search(len(s.idle), func(i int) bool { return s.idle[i].since.After(limit) })
	expired := slices.Clone(s.idle[:n])
	s.idle = slices.Delete(s.idle, 0, n)
	s.reaper = nil
	if len(s.idle) > 0 {
		s.reaper = time.AfterFunc(s.idle[0].since.Sub(limit), s.reap)
	}
	s.mu.Unlock()
	for _, c := range expired {
		s.retire(c)
	}
}

// dropIdle closes all idle connections. The caller has made s not reusable.
func (s *server) dropIdle() {
	s.mu.Lock()
	dropped := s.idle
	s.idle = nil
	if s.reaper != nil {
		s.reaper.Stop()
		s.reaper = nil
	}
	s.mu.Unlock()
	for _, c := range dropped {
		c.abort()
	}
}

func (s *server) idleCount() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.idle)
}

// sawSurplus ends reuse for s, for good.
func (s *server) sawSurplus() {
	s.p.counts.surplus.Add(1)
	if s.surplus.Swap(true) {
		return
	}
	s.p.cfg.Log.Warn("origin sends bytes after its answers: its connections are no longer reused",
		"pool", s.p.cfg.Name, "server", s.url)
	s.dropIdle()
}
