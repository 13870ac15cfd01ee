// Package listen accepts connections for one http.Handler and drains them.
//
// It speaks HTTP/1.1 and, by prior knowledge, HTTP/2 on clear TCP; both over
// TLS; and HTTP/3 on the UDP port of the same number. What net/http decides by
// itself before a handler runs is made visible: the requests it refuses, the
// panics it would print, the connections it holds.
package listen

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Event is something that happened to a connection and that an operator counts.
type Event uint8

// The events.
const (
	Malformed Event = iota // a request refused before the handler saw it, or a fault of HTTP/2
	Refused                // a connection over a limit, closed at once
	Panicked               // a handler's panic, which ended its exchange only
	Stalled                // a client that took nothing for WriteTimeout and was cut
	Flooded                // an HTTP/2 client that sent too many frames that carry nothing
	Handshake              // a TLS or QUIC handshake that failed
)

// The defaults of a Server's fields.
const (
	defaultConns       = 16384
	defaultHeaderBytes = 64 << 10
	defaultReadHeader  = 10 * time.Second
	defaultIdle        = 75 * time.Second
	defaultWrite       = 60 * time.Second
)

// maxStreams is how many exchanges one HTTP/2 or HTTP/3 connection may have at
// once.
const maxStreams = 128

// Server answers connections with one handler. Its fields are read when Listen
// is first called. There is no limit on how long a response takes, only on how
// long its client may take nothing.
type Server struct {
	// Handler answers. Required.
	Handler http.Handler
	// Log receives what an operator should know, at a bounded rate; nil
	// discards it.
	Log *slog.Logger
	// Count is told of each event; nil ignores them. It must not block.
	Count func(Event)
	// MaxConns is how many connections may be open at once; one more is closed
	// as soon as it is accepted. 0 is 16384.
	MaxConns int
	// MaxConnsPerClient is how many of them one client may have: one IPv4
	// address, or one IPv6 /64; 0 is no limit.
	MaxConnsPerClient int
	// Exempt tells of a peer's address whether MaxConnsPerClient leaves it
	// alone, as one that many clients come through; nil exempts nobody. It is
	// asked once a connection, from ListenTLS on, and must not block.
	Exempt func(netip.Addr) bool
	// MaxHeaderBytes bounds a request's line and fields; 0 is 64 KiB.
	MaxHeaderBytes int
	// ReadHeaderTimeout is how long a client may take to send a request's
	// head; 0 is 10 seconds.
	ReadHeaderTimeout time.Duration
	// IdleTimeout is how long a connection may wait for its next request;
	// 0 is 75 seconds.
	IdleTimeout time.Duration
	// WriteTimeout is how long one write may take, unless the handler set a
	// deadline of its own; 0 is a minute. It bounds a client
	// that takes nothing, not how long a response takes.
	WriteTimeout time.Duration

	once   sync.Once
	http   *http.Server
	words  *words
	open   [3]atomic.Int64 // connections by protocol
	ending atomic.Bool

	clients clients
	turns   turns    // of handshakes
	thirds  []*third // set by ListenTLS, before Serve

	mu        sync.Mutex
	listeners []*listener        // guarded by mu
	taken     map[*conn]struct{} // hijacked and not closed; guarded by mu
	released  chan struct{}      // told, without blocking, when one of taken closes
}

// Listen binds addr ("host:port"; port 0 is any free one) for clear HTTP. It
// may be called for several addresses, before Serve. Until Serve is called,
// connections queue.
func (s *Server) Listen(addr string) error {
	s.once.Do(s.prepare)
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listeners = append(s.listeners, &listener{Listener: l, s: s})
	return nil
}

// Addrs are the addresses bound, in the order of the calls to Listen.
func (s *Server) Addrs() []net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	var addrs []net.Addr
	for _, l := range s.listeners {
		addrs = append(addrs, l.Addr())
	}
	return addrs
}

// Open is how many connections are open now, by protocol. A TCP connection
// counts as HTTP/1.1 until its first bytes tell otherwise.
func (s *Server) Open() (h1, h2, h3 int64) {
	return s.open[0].Load(), s.open[1].Load(), s.open[2].Load()
}

// full reports whether as many connections are open as may be.
func (s *Server) full() bool {
	h1, h2, h3 := s.Open()
	return h1+h2+h3 >= int64(s.MaxConns)
}

// Serve answers connections until Shutdown or Close, and then returns nil. If
// one listener fails it closes all and returns that error.
func (s *Server) Serve() error {
	s.once.Do(s.prepare)
	s.mu.Lock()
	listeners := s.listeners
	s.mu.Unlock()
	ends := make(chan error, len(listeners)+len(s.thirds))
	for _, l := range listeners {
		go func() { ends <- s.http.Serve(l) }()
	}
	for _, t := range s.thirds {
		go func() { ends <- t.serve() }()
	}
	var first error
	for range cap(ends) {
		if err := <-ends; !errors.Is(err, http.ErrServerClosed) && first == nil {
			first = fmt.Errorf("listen: %w", err)
			s.Close()
		}
	}
	return first
}

// Shutdown stops accepting and waits for exchanges in flight, upgraded
// connections included. When ctx ends first, it closes what is left and
// returns ctx's error.
func (s *Server) Shutdown(ctx context.Context) error {
	s.once.Do(s.prepare)
	s.ending.Store(true)
	s.closeListeners()
	thirds := make(chan error, len(s.thirds))
	for _, t := range s.thirds {
		go func() { thirds <- t.shutdown(ctx) }()
	}
	err := s.http.Shutdown(ctx)
	for range s.thirds {
		err = errors.Join(err, <-thirds)
	}
	for err == nil && s.upgraded() > 0 {
		select {
		case <-s.released:
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	if err != nil {
		s.Close()
	}
	return err
}

// Close closes the listeners and every connection at once.
func (s *Server) Close() {
	s.once.Do(s.prepare)
	s.ending.Store(true)
	s.closeListeners()
	s.http.Close()
	for _, t := range s.thirds {
		t.close()
	}
	s.mu.Lock()
	taken := make([]*conn, 0, len(s.taken))
	for c := range s.taken {
		taken = append(taken, c)
	}
	s.mu.Unlock()
	for _, c := range taken { // without mu: closing one takes it
		c.Close()
	}
}

func (s *Server) closeListeners() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.listeners { // also those that Serve was never called for
		l.Close()
	}
}

func (s *Server) upgraded() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.taken)
}

// prepare applies the defaults and builds the net/http server behind it all.
func (s *Server) prepare() {
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	if s.Count == nil {
		s.Count = func(Event) {}
	}
	s.MaxConns = or(s.MaxConns, defaultConns)
	s.WriteTimeout = or(s.WriteTimeout, defaultWrite)
	s.ReadHeaderTimeout = or(s.ReadHeaderTimeout, defaultReadHeader)
	s.IdleTimeout = or(s.IdleTimeout, defaultIdle)
	s.clients = clients{most: s.MaxConnsPerClient, exempt: s.Exempt, open: make(map[netip.Addr]int)}
	s.taken = make(map[*conn]struct{})
	s.released = make(chan struct{}, 1)
	s.words = &words{log: s.Log}

	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	s.http = &http.Server{
		Handler:           s.wrap(s.Handler),
		Protocols:         protocols,
		MaxHeaderBytes:    or(s.MaxHeaderBytes, defaultHeaderBytes),
		ReadHeaderTimeout: s.ReadHeaderTimeout,
		IdleTimeout:       s.IdleTimeout,
		WriteTimeout:      streamTime * s.WriteTimeout, // of streams of HTTP/2: see running
		ConnState:         s.changed,
		ConnContext:       withConn,
		// OPTIONS * is the handler's, as any other request.
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(s.words, slog.LevelWarn),
		// A connection's receive window bounds what its client can make the
		// node hold; the write timeout is for a peer that acknowledges nothing.
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          maxStreams,
			MaxReadFrameSize:              16 << 10, // what a frame may be must fit a stream's window
			MaxReceiveBufferPerConnection: 1 << 20,
			MaxReceiveBufferPerStream:     256 << 10,
			SendPingTimeout:               30 * time.Second,
			PingTimeout:                   15 * time.Second,
			WriteByteTimeout:              s.WriteTimeout,
			CountError:                    s.erred,
		},
	}
}

// or returns v, or else when v is zero.
func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}
