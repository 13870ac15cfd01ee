package listen

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// listener wraps what it accepts and keeps to the connection limit.
type listener struct {
	net.Listener
	s      *Server
	tls    *tls.Config // nil in clear
	altSvc []string    // what answers say of HTTP/3; nil without
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil && l.s.ending.Load() {
			return nil, http.ErrServerClosed
		}
		if err != nil {
			return nil, err
		}
		who, ok := netip.Addr{}, false
		if !l.s.full() {
			who, ok = l.s.clients.enter(raw.RemoteAddr())
		}
		if !ok {
			l.s.Count(Refused)
			raw.Close()
			l.s.words.warn("connection refused: the limit is reached", "client", raw.RemoteAddr().String())
			continue
		}
		l.s.open[0].Add(1)
		if to, ok := raw.(transport); ok {
			below := newPatient(to)
			if l.tls != nil {
				// TLS writes within Read, too: its handshake, and a new key each
				// time the client asks for one. Who takes none of them would hold
				// up Read, and then Close, for ever.
				below.most = l.s.WriteTimeout
			}
			raw = below
		}
		c := &conn{Conn: raw, s: l.s, who: who, altSvc: l.altSvc}
		if l.tls != nil {
			// It shakes hands at its first Read, within ReadHeaderTimeout.
			// net/http does not see the TLS: it would take the connection for
			// its own, past what watches it here.
			c.tls = tls.Server(raw, l.tls)
			c.Conn = c.tls
		}
		c.head.begin()
		return c, nil
	}
}

// Close is called by net/http too, after Shutdown has closed the listener.
func (l *listener) Close() error {
	if err := l.Listener.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// conn is one accepted connection. net/http answers a malformed request by
// writing to it directly, without a word to anyone: conn recognises such an
// answer as one that is written while no exchange is under way.
type conn struct {
	net.Conn
	s      *Server
	who    netip.Addr // what it counts as, for clients
	tls    *tls.Conn  // Conn, when that is TLS
	altSvc []string   // what answers say of HTTP/3

	// busy is set from the moment a handler begins until net/http has flushed
	// its answer and calls the connection idle.
	busy    atomic.Bool
	closing atomic.Bool // it must not carry another request
	second  atomic.Bool // it speaks HTTP/2; written with mu held
	timed   atomic.Bool // the handler set a write deadline
	head    head
	frames  frames
	written atomic.Int64 // bytes, in HTTP/2
	running running      // exchanges of HTTP/2
	told    atomic.Int64 // answers

	unshaken atomic.Bool // its failed handshake is counted
	agreed   atomic.Pointer[tls.ConnectionState]

	mu     sync.Mutex
	closed bool // guarded by mu
}

// announceEvery is how many answers of a connection say that HTTP/3 is here, and
// of those behind them one in as many: its client, which has not taken the hint,
// may come to ask for another host, or forget after altSvcAge.
const announceEvery = 64

// announces counts an answer and reports whether it carries Alt-Svc.
func (c *conn) announces() bool {
	n := c.told.Add(1)
	return n <= announceEvery || n%announceEvery == 0
}

// index is where the connection counts in Server.open.
func (c *conn) index() int {
	if c.second.Load() {
		return 1
	}
	return 0
}

// speaksSecond moves the connection's count to HTTP/2, once.
func (c *conn) speaksSecond() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.second.Load() {
		return
	}
	c.s.open[0].Add(-1)
	c.s.open[1].Add(1)
	c.second.Store(true)
}

// Read lets no head through that others may read differently. net/http takes
// the error for a malformed request and answers 400.
func (c *conn) Read(b []byte) (int, error) {
	if c.head.err != nil {
		return 0, c.head.err
	}
	n, err := c.Conn.Read(b)
	if n == 0 {
		c.shook(err)
	}
	if c.second.Load() {
		if fault := c.watch(b[:n]); fault != nil {
			return 0, fault
		}
		return n, err
	}
	before := max(c.head.matched, 0)
	if fault := c.head.see(b[:n]); fault != nil {
		return 0, fault
	}
	if c.head.large() {
		time.Sleep(largePause)
	}
	if c.head.matched == len(preface) {
		c.speaksSecond()
		// What stands behind the preface are frames already.
		if fault := c.watch(b[min(n, len(preface)-before):n]); fault != nil {
			return 0, fault
		}
	}
	return n, err
}

// watch shows frames the next bytes of an HTTP/2 client, and ends the
// connection of one that floods.
func (c *conn) watch(b []byte) error {
	fault := c.frames.see(b, c.written.Load())
	if fault != nil {
		c.s.Count(Flooded)
		c.s.words.warn("connection closed: "+fault.Error(), "client", c.RemoteAddr().String())
		c.Close()
		return fault
	}
	if d := c.frames.pause(); d > 0 {
		time.Sleep(d)
	}
	return nil
}

// inClear answers, as net/http does, who speaks HTTP where TLS is expected.
const inClear = "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"

// shook counts a TLS handshake that failed. A client that only went away, or
// came to see whether the port is open, is no failure.
func (c *conn) shook(err error) {
	if c.tls == nil || err == nil || err == io.EOF || c.tls.ConnectionState().HandshakeComplete {
		return
	}
	var refused tls.RecordHeaderError
	var alert tls.AlertError
	if errors.As(err, &refused) && refused.Conn != nil && bytes.ContainsAny(refused.RecordHeader[:], "/ ") && !c.unshaken.Load() {
		_, _ = io.WriteString(refused.Conn, inClear) // it is closed next
	}
	if errors.As(err, &refused) || errors.As(err, &alert) || errors.Is(err, os.ErrDeadlineExceeded) || strings.Contains(err.Error(), "tls:") {
		if c.unshaken.CompareAndSwap(false, true) {
			c.s.Count(Handshake)
		}
	}
}

func (c *conn) Write(b []byte) (int, error) {
	if c.second.Load() { // net/http sets the deadline in HTTP/2
		n, err := c.Conn.Write(b)
		c.written.Add(int64(n))
		return n, c.stalled(err)
	}
	if !c.busy.Load() && !c.unshaken.Load() {
		c.judge(b)
	}
	if c.timed.Load() {
		return c.Conn.Write(b)
	}
	var all int
	for { // in pieces: a deadline is for a client that takes nothing
		piece := b[all:min(len(b), all+writePiece)]
		_ = c.Conn.SetWriteDeadline(time.Now().Add(c.s.WriteTimeout)) // a connection that has none fails at Write
		n, err := c.Conn.Write(piece)
		if all += n; err != nil || all == len(b) {
			return all, c.stalled(err)
		}
	}
}

// stalled counts a client that took nothing, and returns err.
func (c *conn) stalled(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.s.Count(Stalled)
	}
	return err
}

// writePiece is how much a client is to take within WriteTimeout.
const writePiece = 256 << 10

// SetWriteDeadline lets a handler time its own writes; the zero time hands
// them back. Outside of an exchange nothing is timed but single writes.
func (c *conn) SetWriteDeadline(t time.Time) error {
	if !c.busy.Load() && !c.second.Load() {
		return nil // net/http's, for all of an answer
	}
	c.timed.Store(!t.IsZero())
	return c.Conn.SetWriteDeadline(t)
}

// SetDeadline is for who hijacked the connection.
func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.Conn.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// judge counts b if it begins an error response.
func (c *conn) judge(b []byte) {
	line, found := bytes.CutPrefix(b, []byte("HTTP/1.1 "))
	if !found || len(line) < 3 || line[0] != '4' && line[0] != '5' {
		return
	}
	line, _, _ = bytes.Cut(line, []byte{'\r'})
	c.s.Count(Malformed)
	c.s.words.warn("malformed request", "client", c.RemoteAddr().String(), "answer", string(line[:min(len(line), 120)]))
}

// ReadFrom lets net/http copy from a file within the kernel, in pieces, as Write
// does. What is read elsewhere may have to be waited for, for longer than a client
// may take for a piece.
func (c *conn) ReadFrom(r io.Reader) (int64, error) {
	to, ok := c.Conn.(io.ReaderFrom)
	if ok && c.timed.Load() {
		return to.ReadFrom(r)
	}
	whole, limited := r.(*io.LimitedReader) // the kernel's copy sees through one of them, not two
	if !limited {
		whole = &io.LimitedReader{R: r, N: math.MaxInt64}
	}
	if _, file := whole.R.(*os.File); !file || !ok {
		return io.Copy(struct{ io.Writer }{c}, r)
	}
	var all int64
	for {
		piece := &io.LimitedReader{R: whole.R, N: min(whole.N, writePiece)}
		want := piece.N
		_ = c.Conn.SetWriteDeadline(time.Now().Add(c.s.WriteTimeout)) // a connection that has none fails at Write
		n, err := to.ReadFrom(piece)
		all += n
		if whole.N -= n; err != nil || n < want || whole.N == 0 {
			return all, c.stalled(err)
		}
	}
}

// CloseWrite lets net/http end its side first, so that a client still sending
// can read why it was refused.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

func (c *conn) Close() error {
	c.mu.Lock()
	if !c.closed {
		c.closed = true
		c.s.open[c.index()].Add(-1)
		c.s.clients.leave(c.who)
	}
	c.mu.Unlock()
	c.running.stop()
	c.s.release(c)
	return c.Conn.Close()
}

// release forgets an upgraded connection and tells a waiting Shutdown.
func (s *Server) release(c *conn) {
	s.mu.Lock()
	_, upgraded := s.taken[c]
	delete(s.taken, c)
	s.mu.Unlock()
	if !upgraded {
		return
	}
	select {
	case s.released <- struct{}{}:
	default:
	}
}

// changed follows net/http's view of a connection.
func (s *Server) changed(nc net.Conn, state http.ConnState) {
	c, ok := nc.(*conn)
	if !ok {
		return
	}
	switch state {
	case http.StateIdle:
		c.busy.Store(false)
		c.head.begin()
		if c.closing.Load() {
			c.Close() // should net/http mean to keep it all the same
		}
	case http.StateHijacked:
		s.mu.Lock()
		s.taken[c] = struct{}{}
		s.mu.Unlock()
	}
}

// connKey finds a connection in its context: net/http has no other way from a
// request to the connection it came by. It is set once a connection, and
// nothing of a request travels so.
type connKey struct{}

func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}
