package origin

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

const (
	// A QUIC connection without a packet for h3Idle is given up; h3Alive keeps one
	// that is well from it.
	h3Idle  = 12 * time.Second
	h3Alive = 4 * time.Second

	h3StreamWindow = 2 << 20
	h3ConnWindow   = 8 << 20
)

// h3 sends requests to one server over one connection of HTTP/3.
type h3 struct {
	*server

	mu      sync.Mutex // guards the fields below
	udp     *quic.Transport
	socket  net.PacketConn
	conn    *h3Conn // nil: none
	dialing *h2Dial // nil: none
	active  int     // streams of all connections
	closed  bool
}

// h3Conn is a connection. The server's mutex guards active and retired.
type h3Conn struct {
	*http3.ClientConn
	quic    *quic.Conn
	at      netip.AddrPort // zero when a name was dialled
	active  int            // streams
	retired bool           // takes no more requests; closed with its last stream
}

func newH3(s *server) *h3 { return &h3{server: s} }

// send sends the request on the server's connection, made for it if need be.
func (s *h3) send(x *exchange) (*http.Response, error) {
	c, reused, err := s.connection(x)
	if err != nil {
		x.leave()
		return nil, err
	}
	if reused {
		x.p.counts.reuses.Add(1)
	}
	resp, err := x.stream(s.server, c.RoundTrip, func() { s.streamEnded(c) })
	var e *Error
	if errors.As(err, &e) && e.unsent {
		s.mu.Lock()
		s.retireLocked(c)
		s.mu.Unlock()
	}
	return resp, err
}

// connection returns a connection on which the caller has a stream, until
// streamEnded. Requests that come while one is made wait for it.
func (s *h3) connection(x *exchange) (c *h3Conn, reused bool, err error) {
	ctx, done := x.within(0)
	defer done()
	for made := 0; ; made++ {
		s.mu.Lock()
		if c := s.conn; c != nil {
			if c.quic.Context().Err() == nil && !s.names.gone(c.at) {
				s.active++
				c.active++
				s.mu.Unlock()
				return c, made == 0, nil
			}
			s.retireLocked(c)
		}
		if s.closed {
			s.mu.Unlock()
			return nil, false, x.missed(s.server, stepConnect, &Error{Kind: unavailable, Step: stepConnect, Err: ErrClosed})
		}
		if made == maxBarren {
			s.mu.Unlock()
			return nil, false, x.missed(s.server, stepConnect, errNoRoom)
		}
		d := s.dialing
		if d == nil {
			d = &h2Dial{done: make(chan struct{})}
			if s.p.inBackground(func() { s.connectNew(d) }) {
				s.dialing = d // else nothing would end it, and close waits for it
			}
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
			return nil, false, x.missed(s.server, stepOf(d.err), d.ownError())
		}
	}
}

// retireLocked sends no more requests on c.
func (s *h3) retireLocked(c *h3Conn) {
	c.retired = true
	if s.conn == c {
		s.conn = nil
	}
	if c.active == 0 {
		_ = c.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
	}
}

// stepOf returns the step at which a QUIC handshake failed: what TLS objects to
// comes with its own code.
func stepOf(err error) string {
	var t *quic.TransportError
	if errors.As(err, &t) && t.ErrorCode.IsCryptoError() {
		return stepTLS
	}
	return stepConnect
}

func (s *h3) connectNew(d *h2Dial) {
	c, err := guarded(s.newConn)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dialing, d.err = nil, err
	if err == nil {
		s.p.counts.connects.Add(1)
		s.conn = c
	}
	close(d.done)
	s.endLocked()
}

// newConn tries the server's addresses one after another.
func (s *h3) newConn() (*h3Conn, error) {
	limit := s.p.cfg.Timeouts.Connect + s.p.cfg.Timeouts.TLS
	ctx, cancel := context.WithTimeout(s.p.ctx, max(limit, time.Second))
	defer cancel()
	udp, err := s.listen()
	if err != nil {
		return nil, err
	}
	addrs, err := s.udpAddrs(ctx)
	if err != nil {
		return nil, err
	}
	conf := &quic.Config{MaxIdleTimeout: h3Idle, KeepAlivePeriod: h3Alive, HandshakeIdleTimeout: max(limit/2, time.Second), MaxIncomingStreams: -1,
		MaxStreamReceiveWindow: h3StreamWindow, MaxConnectionReceiveWindow: h3ConnWindow}
	for _, a := range addrs {
		var conn *quic.Conn
		if conn, err = udp.Dial(ctx, a, s.tls, conf); err == nil {
			t := &http3.Transport{DisableCompression: true, MaxResponseHeaderBytes: s.p.cfg.MaxHeaderBytes}
			c := &h3Conn{ClientConn: t.NewClientConn(conn), quic: conn}
			if s.names != nil {
				c.at = a.AddrPort()
			}
			return c, nil
		}
	}
	return nil, err
}

func (s *h3) udpAddrs(ctx context.Context) ([]*net.UDPAddr, error) {
	if s.names == nil {
		a, err := net.ResolveUDPAddr("udp", s.addr)
		return []*net.UDPAddr{a}, err
	}
	addrs, err := s.names.addresses(ctx)
	var out []*net.UDPAddr
	for _, a := range addrs {
		out = append(out, net.UDPAddrFromAddrPort(a))
	}
	return out, err
}

// listen returns the socket that the server's connections share.
func (s *h3) listen() (*quic.Transport, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.udp == nil {
		socket, err := net.ListenUDP("udp", nil)
		if err != nil {
			return nil, err
		}
		s.socket, s.udp = socket, &quic.Transport{Conn: socket}
	}
	return s.udp, nil
}

func (s *h3) streamEnded(c *h3Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active--
	if c.active--; c.retired && c.active == 0 {
		s.retireLocked(c)
	}
	s.endLocked()
}

// endLocked closes everything once the pool is closed and nobody needs it.
func (s *h3) endLocked() {
	if !s.closed || s.active > 0 || s.dialing != nil || s.udp == nil {
		return
	}
	if s.conn != nil {
		s.retireLocked(s.conn)
	}
	s.udp.Close()
	s.socket.Close()
	s.udp = nil
}

func (s *h3) idleCount() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil && s.conn.quic.Context().Err() == nil && s.active == 0 {
		return 1
	}
	return 0
}

// close closes the connection when its last stream has ended.
func (s *h3) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.endLocked()
}
