package origin

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	// muxIdle is how long a connection of HTTP/2 stays open unused: servers keep
	// them for minutes, and say so before they close one.
	muxIdle = 30 * time.Second
	// A connection that says nothing for muxQuiet while requests are under way is
	// asked, and given up after muxPing.
	muxQuiet = 10 * time.Second
	muxPing  = 5 * time.Second
)

var errNoH2 = errors.New("the server does not speak HTTP/2 (hint: protocol h1)")

// h2 sends requests to one server over HTTP/2, in net/http's implementation of a
// connection. Which there are and who uses them is ours, so that what never
// reached the server is known as such.
type h2 struct {
	*server

	mu      sync.Mutex // guards the fields below
	conns   []*h2Conn
	dialing *h2Dial // nil: none
	closed  bool
}

type h2Conn struct {
	*http.ClientConn
	nc net.Conn
	at netip.AddrPort // the address dialled; zero when a name was
}

// h2Dial is a connection being made. err is valid when done is closed.
type h2Dial struct {
	done chan struct{}
	err  error
}

func newH2(s *server) *h2 { return &h2{server: s} }

// send sends the request on a connection that has room.
func (s *h2) send(x *exchange) (*http.Response, error) {
	c, reused, err := s.reserve(x)
	if err != nil {
		x.leave()
		return nil, err
	}
	if reused {
		x.p.counts.reuses.Add(1)
	}
	if x.trace != nil && x.trace.GotConn != nil {
		x.trace.GotConn(httptrace.GotConnInfo{Conn: c.nc, Reused: reused})
	}
	return x.stream(s.server, c.RoundTrip, nil)
}

// reserve returns a connection with room for a request, made for it if need be.
// Requests that come meanwhile wait for the same one.
func (s *h2) reserve(x *exchange) (c *h2Conn, reused bool, err error) {
	for reused = true; ; reused = false {
		s.mu.Lock()
		if c := s.roomLocked(); c != nil {
			s.mu.Unlock()
			return c, reused, nil
		}
		if s.closed {
			s.mu.Unlock()
			return nil, false, x.missed(s.server, stepConnect, &Error{Kind: unavailable, Step: stepConnect, Err: ErrClosed})
		}
		d := s.dialing
		if d == nil {
			d = &h2Dial{done: make(chan struct{})}
			s.dialing = d
			s.p.inBackground(func() { s.connectNew(d) })
		}
		s.mu.Unlock()
		select {
		case <-d.done:
		case <-s.p.ctx.Done():
			return nil, false, x.missed(s.server, stepConnect, ErrClosed)
		case <-x.ctx.Done():
			return nil, false, x.missed(s.server, stepConnect, x.ctx.Err())
		}
		if d.err != nil {
			return nil, false, x.missed(s.server, stepConnect, d.err)
		}
	}
}

// roomLocked reserves a place on a connection, or returns nil. Broken ones are
// dropped.
func (s *h2) roomLocked() *h2Conn {
	s.conns = slices.DeleteFunc(s.conns, func(c *h2Conn) bool {
		gone := s.names.gone(c.at)
		if gone {
			c.closeWhenIdle()
		}
		return gone || c.Err() != nil
	})
	for _, c := range s.conns {
		if c.Reserve() == nil {
			return c
		}
	}
	return nil
}

// connectNew makes a connection for whoever waits for d.
func (s *h2) connectNew(d *h2Dial) {
	c, err := s.newConn()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dialing, d.err = nil, err
	switch {
	case err != nil:
	case s.closed:
		c.Close()
	default:
		s.conns = append(s.conns, c)
	}
	close(d.done)
}

func (s *h2) newConn() (*h2Conn, error) {
	x := &exchange{p: s.p, ctx: s.p.ctx} // nobody's request alone
	nc, at, err := s.connect(x)
	if err != nil {
		return nil, err
	}
	if s.tls != nil {
		t, err := s.secure(x, nc)
		if err != nil {
			return nil, err
		}
		if t.ConnectionState().NegotiatedProtocol != "h2" {
			nc.Close()
			return nil, &Error{Kind: tlsProtocol, Step: stepTLS, Err: errNoH2}
		}
		nc = t
	}
	cc, err := s.clientConn(nc)
	if err != nil {
		nc.Close()
		return nil, x.missed(s.server, stepConnect, err)
	}
	s.p.counts.connects.Add(1)
	return &h2Conn{cc, nc, at}, nil
}

// clientConn makes net/http speak HTTP/2 on nc.
func (s *h2) clientConn(nc net.Conn) (*http.ClientConn, error) {
	scheme, over := "http", new(http.Protocols)
	over.SetUnencryptedHTTP2(true)
	dial := func(context.Context, string, string) (net.Conn, error) { return nc, nil }
	t := &http.Transport{
		DialContext: dial, DialTLSContext: dial, Protocols: over, DisableCompression: true,
		MaxResponseHeaderBytes: int64(s.p.cfg.MaxHeaderBytes), IdleConnTimeout: muxIdle,
		ExpectContinueTimeout: s.p.cfg.Timeouts.ExpectContinue,
		HTTP2:                 &http.HTTP2Config{SendPingTimeout: muxQuiet, PingTimeout: muxPing, WriteByteTimeout: s.p.cfg.Timeouts.WriteIdle},
	}
	if s.tls != nil {
		scheme = "https"
		over.SetUnencryptedHTTP2(false)
		over.SetHTTP2(true)
	}
	ctx, cancel := context.WithTimeout(s.p.ctx, max(s.p.cfg.Timeouts.TLS, time.Second))
	defer cancel()
	return t.NewClientConn(ctx, scheme, s.addr)
}

func (s *h2) idleCount() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, c := range s.conns {
		if c.Err() == nil && c.InFlight() == 0 {
			n++
		}
	}
	return n
}

// close closes the connections, each when its last request has ended.
func (s *h2) close() {
	s.mu.Lock()
	s.closed = true
	conns := s.conns
	s.conns = nil
	s.mu.Unlock()
	for _, c := range conns {
		c.closeWhenIdle()
	}
}

// closeWhenIdle closes the connection when its last request has ended. No new
// one may be begun.
func (c *h2Conn) closeWhenIdle() {
	c.SetStateHook(func(cc *http.ClientConn) {
		if cc.InFlight() == 0 {
			go cc.Close() // not from within the library's own locks
		}
	})
	if c.InFlight() == 0 {
		c.Close()
	}
}
