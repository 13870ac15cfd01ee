// Package origin fetches from the servers behind one site: an
// [http.RoundTripper] with HTTP/1.1 connections of its own. It knows nothing of
// caching.
//
// net/http's transport cannot send a request target as the bytes it is given,
// fails on unknown transfer codings, and lets bytes that a server sends after
// its answer become the answer to somebody else's request. Here the request
// line is written as it is, and a connection is used again only when
//
//   - its last answer ended cleanly, and nothing was buffered behind it;
//   - the socket was silent when the answer ended, has rested since then
//     ([Timeouts.Settle], four times that for a server not yet known), and is
//     silent now, asked without blocking, and stands between two TLS records;
//   - the next request's head is not longer than 4 KiB: a server may refuse a
//     longer one before all of it came;
//   - its server has never sent surplus bytes: one that did loses reuse for the
//     life of the pool.
//
// On Linux the first bytes read on a reused connection are also refused when the
// server's TCP has not acknowledged the request's head: they were sent before it
// came, so they cannot answer it. On every system an answer is read only after
// the head has been written whole.
//
// What cannot be excluded: HTTP/1.1 does not say which request an answer
// belongs to. Bytes that a server, silent until then, starts to send after its
// system has received the next request (elsewhere than on Linux: after our
// silence check) and before the true answer look like that answer. It takes a
// server that has never been seen to send surplus, and surplus that comes later
// than the time to settle, or segments lost and sent again. Where that is not
// good enough, MaxIdle below zero gives every request a connection of its own.
//
// Response heads are read strictly: line ends are CRLF (a bare LF is refused, as
// are bare CR, obs-fold, NUL and other controls, a space before the colon,
// differing lengths, and Content-Length beside Transfer-Encoding). A transfer
// coding other than chunked is not decoded: the field is dropped and the body
// read until the connection closes.
package origin

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// ErrClosed is wrapped by what RoundTrip returns after Close.
var ErrClosed = errors.New("pool closed")

// Config describes a pool. Servers is required; all else has defaults.
type Config struct {
	Name    string   // for errors and metrics
	Servers []string // "http://host[:port]" or "https://host[:port]", tried in turn

	// Host is the Host field sent: "" or "client" for the request's own,
	// "origin" for the server's name, else this name. TLS asks for (SNI) and
	// verifies the server's name, or this name when Host is a fixed one: with
	// the clients' own hosts a kept connection serves many of them, so there the
	// certificate vouches for the server. TLS.ServerName overrides both.
	Host string

	Timeouts       Timeouts
	MaxIdle        int // kept connections per server beside those used a moment ago; 0: 64; below zero: none is kept
	MaxInFlight    int // per server, until the answer's body ends or protocols are switched; 0: 1024
	MaxTunnels     int // per server, after 101; 0: 1024
	MaxHeaderBytes int // of a response's head; 0: 256 KiB

	TLS *tls.Config // copied; ALPN is always HTTP/1.1
	// Dial makes connections; nil means a net.Dialer. It must heed ctx. What it
	// returns may be used by one reader, one writer and one closer at once.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	Log  *slog.Logger // nil: silent
}

// Timeouts bound each wait for a server. Zero means the default, below zero
// means off.
type Timeouts struct {
	Connect        time.Duration // name lookup and TCP; 5s
	TLS            time.Duration // handshake; 5s
	Header         time.Duration // from the end of the request to the final head; 30s
	IdleBody       time.Duration // no byte of the response's body; 30s
	WriteIdle      time.Duration // no progress in a write; 30s
	RequestIdle    time.Duration // no byte of the request's body, before the answer; 30s
	Total          time.Duration // the whole exchange, body included; off
	IdleConn       time.Duration // an unused connection; 4s, as servers often close after 5s
	ExpectContinue time.Duration // how long a 100 is waited for; 1s
	// Settle is how long a connection rests before its next request; 5ms. Less
	// risks that late surplus passes for an answer, more costs connections: as
	// many as there are requests in that time.
	Settle time.Duration
}

func (t Timeouts) withDefaults() Timeouts {
	set := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
		*d = max(*d, 0)
	}
	set(&t.Connect, 5*time.Second)
	set(&t.TLS, 5*time.Second)
	set(&t.Header, 30*time.Second)
	set(&t.IdleBody, 30*time.Second)
	set(&t.WriteIdle, 30*time.Second)
	set(&t.RequestIdle, 30*time.Second)
	set(&t.Total, 0)
	set(&t.IdleConn, 4*time.Second)
	set(&t.ExpectContinue, time.Second)
	set(&t.Settle, 5*time.Millisecond)
	return t
}

// Pool sends requests to its servers in turn. All methods may run at once.
type Pool struct {
	cfg     Config // defaults filled in, durations that are off are 0
	servers []*server
	next    atomic.Uint32 // round robin
	closed  atomic.Bool
	scratch sync.Pool // *scratch, for laying out requests
	buffers sync.Pool // *[]byte of uploadBuffer bytes
	counts  counters
}

// New returns a pool for cfg, or an error that names the setting at fault. It
// connects to nothing yet.
func New(cfg Config) (*Pool, error) {
	if len(cfg.Servers) == 0 {
		return nil, errors.New("origin: no servers (hint: give at least one http:// or https:// URL)")
	}
	cfg.Timeouts = cfg.Timeouts.withDefaults()
	if cfg.MaxIdle == 0 {
		cfg.MaxIdle = 64
	}
	if cfg.MaxInFlight <= 0 {
		cfg.MaxInFlight = 1024
	}
	if cfg.MaxTunnels <= 0 {
		cfg.MaxTunnels = 1024
	}
	if cfg.MaxHeaderBytes <= 0 {
		cfg.MaxHeaderBytes = 256 << 10
	}
	if cfg.Dial == nil {
		cfg.Dial = (&net.Dialer{}).DialContext
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Host == "client" {
		cfg.Host = ""
	}
	if err := checkHost(cfg.Host); err != nil {
		return nil, err
	}
	p := &Pool{cfg: cfg}
	p.scratch.New = func() any { return new(scratch) }
	p.buffers.New = func() any { b := make([]byte, uploadBuffer); return &b }
	for _, raw := range cfg.Servers {
		s, err := newServer(p, raw)
		if err != nil {
			return nil, err
		}
		p.servers = append(p.servers, s)
	}
	return p, nil
}

// RoundTrip sends req to a server and returns its final response. req.URL's
// scheme and host do not choose the server. The request target is
// req.RequestURI as it is, when set, else req.URL.RequestURI().
//
// Errors are of type *Error. The request's body is closed in every case, but
// nothing waits for its Close, which may still be under way, or about to begin,
// when RoundTrip returns an error or the response's body has ended or was closed.
// From then on no Read begins; one under way then lasts until it returns by
// itself or Close ends it. A body that must not be touched after that needs a
// Close that ends its Read. Interim responses go to the request's
// httptrace.ClientTrace.Got1xxResponse, 100 only if the request expects it;
// GotConn is told of each connection that the request goes to.
// After 101 the response's Body is an io.ReadWriteCloser with CloseWrite.
//
// The response's body must be closed. It ends with io.EOF only if it is whole;
// cancelling the request's context ends it too. Trailers are in resp.Trailer
// after io.EOF.
func (p *Pool) RoundTrip(req *http.Request) (*http.Response, error) {
	p.counts.requests.Add(1)
	x, err := p.newExchange(req)
	answered := false
	defer func() { // also after a panic
		if !answered {
			x.up.close()
		}
	}()
	if err == nil {
		var resp *http.Response
		if resp, err = x.run(); err == nil {
			answered = true
			return resp, nil
		}
	}
	return nil, p.count(err)
}

// Close closes idle connections and refuses new requests. Exchanges under way
// end by themselves, and their connections are then closed. It returns nil.
func (p *Pool) Close() error {
	p.closed.Store(true)
	for _, s := range p.servers {
		s.dropIdle()
	}
	return nil
}

// Stats are counts since the pool was made, and three gauges.
type Stats struct {
	Requests, Connects, Reuses, Retries uint64
	Surplus                             uint64            // connections on which a server said more than it was asked
	Errors                              map[string]uint64 // by Proxy-Status type, one a failed exchange
	InFlight, Idle, Tunnels             int
}

type counters struct {
	requests, connects, reuses, retries, surplus atomic.Uint64
	inFlight, tunnels                            atomic.Int64

	mu     sync.Mutex // guards errors
	errors map[string]uint64
}

// Stats returns the pool's counters. The caller owns the map.
func (p *Pool) Stats() Stats {
	st := Stats{
		Requests: p.counts.requests.Load(),
		Connects: p.counts.connects.Load(),
		Reuses:   p.counts.reuses.Load(),
		Retries:  p.counts.retries.Load(),
		Surplus:  p.counts.surplus.Load(),
		InFlight: int(p.counts.inFlight.Load()),
		Tunnels:  int(p.counts.tunnels.Load()),
		Errors:   make(map[string]uint64),
	}
	for _, s := range p.servers {
		st.Idle += s.idleCount()
	}
	p.counts.mu.Lock()
	defer p.counts.mu.Unlock()
	for kind, n := range p.counts.errors {
		st.Errors[kind] = n
	}
	return st
}

// count notes a failed exchange and returns its error.
func (p *Pool) count(err error) error {
	var e *Error
	if errors.As(err, &e) {
		p.counts.mu.Lock()
		defer p.counts.mu.Unlock()
		if p.counts.errors == nil {
			p.counts.errors = make(map[string]uint64)
		}
		p.counts.errors[e.Kind]++
	}
	return err
}
