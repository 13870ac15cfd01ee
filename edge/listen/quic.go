package listen

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

const (
	// freeHandshakes is how many QUIC handshakes may be under way before new
	// clients must show that they receive at their address (RFC 9000, 8.1).
	freeHandshakes = 64
	// streamWindow and connWindow bound what one client can make the node hold.
	streamWindow = 256 << 10
	connWindow   = 1 << 20
	// altSvcAge is how long clients remember that HTTP/3 is here.
	altSvcAge = 24 * time.Hour
	// drainLinger is how long, in a drain, a connection without an exchange is
	// kept: what was written last may be lost on its way and sent again, and
	// the client is to read the GOAWAY. Clients that heed it close sooner.
	drainLinger = 2 * time.Second
	drainTick   = 100 * time.Millisecond
)

// third is the HTTP/3 side of a Server: one UDP socket.
type third struct {
	s         *Server
	socket    net.PacketConn
	transport *quic.Transport
	listener  *quic.EarlyListener
	http      *http3.Server

	handshakes atomic.Int64
	conns      sync.Map // *quic.Conn -> *quicConn; those that are open
}

// quicConn is what is known of one QUIC connection.
type quicConn struct {
	*quic.Conn
	busy atomic.Int64 // exchanges under way
	last atomic.Int64 // when the last one ended, in Unix nanoseconds
	idle *time.Timer  // closes it when none was for too long
}

// listenUDP binds the UDP port beside a TCP one.
func (s *Server) listenUDP(addr string, config *tls.Config) (*third, error) {
	socket, err := net.ListenPacket("udp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	t := &third{s: s, socket: socket}
	t.transport = &quic.Transport{
		Conn:                socket,
		VerifySourceAddress: func(addr net.Addr) bool { return t.handshakes.Load() >= freeHandshakes || s.clients.crowded(addr) },
		ConnContext:         t.began,
	}
	t.listener, err = t.transport.ListenEarly(http3.ConfigureTLSConfig(config), &quic.Config{
		HandshakeIdleTimeout:           s.ReadHeaderTimeout / 2, // quic-go gives the whole handshake twice this
		MaxIdleTimeout:                 s.IdleTimeout,
		InitialStreamReceiveWindow:     64 << 10,
		MaxStreamReceiveWindow:         streamWindow,
		InitialConnectionReceiveWindow: 256 << 10,
		MaxConnectionReceiveWindow:     connWindow,
		MaxIncomingStreams:             maxStreams,
		MaxIncomingUniStreams:          8,
		Allow0RTT:                      true,
	})
	if err != nil {
		socket.Close()
		return nil, fmt.Errorf("listen: %w", err)
	}
	t.http = &http3.Server{
		Handler:        s.wrap(s.Handler),
		MaxHeaderBytes: s.http.MaxHeaderBytes,
		IdleTimeout:    s.IdleTimeout,
		ConnContext:    t.opened,
	}
	return t, nil
}

// began counts a handshake until it has ended, either way, and the connection
// for its client until that has: one client's must not take the turns of all.
func (t *third) began(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
	who, ok := netip.Addr{}, false
	if !t.s.full() && t.handshakes.Load() < int64(t.s.MaxConns) {
		who, ok = t.s.clients.enter(info.RemoteAddr)
	}
	if !ok {
		t.s.Count(Refused)
		t.s.words.warn("connection refused: the limit is reached", "client", info.RemoteAddr.String())
		return nil, errors.New("the connection limit is reached")
	}
	t.handshakes.Add(1)
	var ended atomic.Bool
	over := func() {
		if ended.CompareAndSwap(false, true) {
			t.handshakes.Add(-1)
		}
	}
	context.AfterFunc(ctx, func() {
		if !ended.Load() && failed(context.Cause(ctx)) {
			t.s.Count(Handshake)
		}
		over()
		t.s.clients.leave(who)
	})
	return context.WithValue(ctx, handshakeKey{}, over), nil
}

// failed reports whether a handshake ended so by its client's fault, or for
// want of an answer, and not because either side closed it.
func failed(cause error) bool {
	var transport *quic.TransportError
	var timeout *quic.HandshakeTimeoutError
	var idle *quic.IdleTimeoutError
	return errors.As(cause, &transport) || errors.As(cause, &timeout) || errors.As(cause, &idle)
}

// handshakeKey finds what counts the end of a connection's handshake.
type handshakeKey struct{}

// serve accepts until the listener closes.
func (t *third) serve() error {
	err := t.http.ServeListener(limited{t.listener, t})
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, quic.ErrServerClosed) || t.s.ending.Load() {
		return http.ErrServerClosed
	}
	return err
}

// limited keeps HTTP/3 to the limit of connections; began keeps it to that of
// one client.
type limited struct {
	*quic.EarlyListener
	t *third
}

func (l limited) Accept(ctx context.Context) (*quic.Conn, error) {
	for {
		c, err := l.EarlyListener.Accept(ctx)
		if err != nil {
			return nil, err
		}
		s := l.t.s
		if s.full() {
			s.Count(Refused)
			_ = c.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeExcessiveLoad), "too many connections") // it is lost anyway
			s.words.warn("connection refused: the limit is reached", "client", c.RemoteAddr().String())
			continue
		}
		s.open[2].Add(1)
		context.AfterFunc(c.Context(), func() { s.open[2].Add(-1) })
		return c, nil
	}
}

// opened is http3's ConnContext. A connection on which no exchange is under
// way for IdleTimeout is closed: one that sends half a head, or pings, would
// otherwise never be idle to QUIC.
func (t *third) opened(ctx context.Context, c *quic.Conn) context.Context {
	q := &quicConn{Conn: c}
	q.idle = time.AfterFunc(t.s.IdleTimeout, func() {
		if q.busy.Load() == 0 {
			_ = c.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "idle") // it may be closed already
		}
	})
	q.last.Store(time.Now().UnixNano())
	t.conns.Store(c, q)
	context.AfterFunc(c.Context(), func() {
		q.idle.Stop()
		t.conns.Delete(c)
	})
	go func() {
		select {
		case <-c.HandshakeComplete():
			if over, ok := c.Context().Value(handshakeKey{}).(func()); ok {
				over()
			}
		case <-c.Context().Done(): // began counts how it failed
		}
	}()
	return context.WithValue(ctx, connKey{}, q)
}

// enter and leave are called around each exchange.
func (q *quicConn) enter() {
	q.busy.Add(1)
	q.idle.Stop()
}

func (q *quicConn) leave(idle time.Duration) {
	q.last.Store(time.Now().UnixNano())
	if q.busy.Add(-1) == 0 {
		q.idle.Reset(idle)
	}
}

// shutdown sends GOAWAY, and waits for the exchanges under way. quic-go would
// wait until each client has closed its connection; here one without an
// exchange is closed after drainLinger.
func (t *third) shutdown(ctx context.Context) error {
	defer t.close()
	done := make(chan error, 1)
	go func() { done <- t.http.Shutdown(ctx) }()
	tick := time.NewTicker(drainTick)
	defer tick.Stop()
	for begun := time.Now(); ; {
		select {
		case err := <-done:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case now := <-tick.C:
			if quiet := now.Add(-drainLinger); quiet.After(begun) {
				t.closeQuiet(quiet)
			}
		}
	}
}

// closeQuiet closes the connections that have had no exchange since then.
func (t *third) closeQuiet(then time.Time) {
	for _, c := range t.conns.Range {
		if q := c.(*quicConn); q.busy.Load() == 0 && q.last.Load() < then.UnixNano() {
			_ = q.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "") // it may be closed already
		}
	}
}

// close tells every client, and waits for no handler: quic-go's would.
func (t *third) close() {
	_ = t.listener.Close() // of what is closed already there is nothing to tell
	for _, c := range t.conns.Range {
		_ = c.(*quicConn).CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "") // nor here
	}
	go func() { _ = t.http.Close() }()
	_ = t.transport.Close() // nor here
	_ = t.socket.Close()    // nor here
}

// earlyWriter answers a request that came in 0-RTT data, which may be a replay
// (RFC 8470). The handler may wait until it is known not to be.
type earlyWriter struct {
	*timedWriter
	conn *quic.Conn
}

// AwaitHandshake returns when the client's handshake is complete.
func (w earlyWriter) AwaitHandshake(ctx context.Context) error {
	select {
	case <-w.conn.HandshakeComplete():
		return nil
	case <-w.conn.Context().Done():
		return context.Cause(w.conn.Context())
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
