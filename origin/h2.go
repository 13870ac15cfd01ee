package origin

import (
	"context"
	"errors"
	"fmt"
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

var (
	errNoH2   = errors.New("the server does not speak HTTP/2 (hint: protocol h1)")
	errNoRoom = errors.New("the server takes connections, and no requests on them")
)

// maxBarren is how many connections that take no request at all one request has
// made: a server that goes away at once, or allows no streams.
const maxBarren = 3

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

// h2Dial is a connection being made. conn and err are valid when done is closed.
type h2Dial struct {
	done chan struct{}
	conn *h2Conn // of HTTP/2
	err  error
}

// ownError returns the error for one of those who waited: each adds to it.
func (d *h2Dial) ownError() error {
	var shared *Error
	if errors.As(d.err, &shared) {
		own := *shared
		return &own
	}
	return d.err
}

// guarded is f, with a panic made an error: Config.Dial and callbacks of
// Config.TLS are the caller's, and here nobody could catch it.
func guarded[T any](f func() (T, error)) (v T, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return f()
}

func newH2(s *server) *h2 { return &h2{server: s} }

// send sends the request on a connection that has room.
func (s *h2) send(x *exchange) (*http.Response, error) {
	c, reused, err := s.reserve(x)
	if err != nil {
		x.leave()
		return nil, err
	}
	return s.sendOn(c, reused, x)
}

// sendOn sends the request on c, where it has room.
func (s *h2) sendOn(c *h2Conn, reused bool, x *exchange) (*http.Response, error) {
	if reused {
		x.p.counts.reuses.Add(1)
	}
	return x.stream(s.server, func(req *http.Request) (*http.Response, error) {
		if x.trace != nil && x.trace.GotConn != nil {
			told := false
			defer func() {
				if !told {
					c.Release()
				}
			}()
			x.trace.GotConn(httptrace.GotConnInfo{Conn: c.nc, Reused: reused})
			told = true
		}
		return c.RoundTrip(req)
	}, nil)
}

// reserve returns a connection with room for a request, made for it if need be.
// Requests that come meanwhile wait for the same one.
func (s *h2) reserve(x *exchange) (c *h2Conn, reused bool, err error) {
	ctx, done := x.within(0)
	defer done()
	barren := 0
	var d *h2Dial
	for {
		s.mu.Lock()
		if c := s.roomLocked(); c != nil {
			s.mu.Unlock()
			return c, d == nil, nil
		}
		if d != nil && (d.conn.Err() != nil || d.conn.InFlight() == 0) {
			barren++ // else others were quicker
		}
		if barren == maxBarren {
			s.mu.Unlock()
			return nil, false, x.missed(s.server, stepConnect, errNoRoom)
		}
		if s.closed {
			s.mu.Unlock()
			return nil, false, x.missed(s.server, stepConnect, &Error{Kind: unavailable, Step: stepConnect, Err: ErrClosed})
		}
		if d = s.dialing; d == nil {
			d = &h2Dial{done: make(chan struct{})}
			s.dialing = d
			s.p.inBackground(func() { s.connectNew(d) })
		}
		s.mu.Unlock()
		select {
		case <-d.done:
		case <-s.p.ctx.Done():
			return nil, false, x.missed(s.server, stepConnect, ErrClosed)
		case <-ctx.Done():
			return nil, false, x.missed(s.server, stepConnect, ctx.Err())
		}
		if d.err != nil {
			return nil, false, x.missed(s.server, stepConnect, d.ownError())
		}
	}
}

// roomLocked reserves a place on a connection, or returns nil. Broken ones are
// dropped, as are those that have nothing to do and yet no room: their server
// said that it goes away, or allows no streams.
func (s *h2) roomLocked() *h2Conn {
	var found *h2Conn
	s.conns = slices.DeleteFunc(s.conns, func(c *h2Conn) bool {
		switch {
		case s.names.gone(c.at):
			c.closeWhenIdle()
			return true
		case c.Err() != nil:
			return true
		case found != nil:
			return false
		case c.Reserve() == nil:
			found = c
			return false
		case c.InFlight() == 0 && c.Available() == 0:
			c.closeWhenIdle()
			return true
		}
		return false
	})
	return found
}

// connectNew makes a connection for whoever waits for d.
func (s *h2) connectNew(d *h2Dial) {
	c, err := guarded(s.newConn)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dialing, d.conn, d.err = nil, c, err
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
		t, err := s.secure(x, nc, s.offers()...)
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

// offers are the protocols for the server to choose from.
func (s *h2) offers() []string {
	if s.proto == "auto" {
		return []string{"h2", "http/1.1"}
	}
	return []string{"h2"}
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
