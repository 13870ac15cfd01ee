package origin

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/textproto"
	"sync"
	"time"
)

const (
	headBuffer = 4 << 10
	// keptBuffer is the largest buffer a connection keeps for its next request.
	keptBuffer = 16 << 10
	// maxInterims bounds the 1xx before a final response.
	maxInterims = 16
)

var (
	errEarly  = errors.New("bytes came that cannot answer this request")
	errGaveUp = errors.New("the server had given up waiting")
)

// conn is one connection. It carries one exchange at a time, whose goroutine
// owns it; abort alone may be called by anybody.
type conn struct {
	s    *h1
	at   netip.AddrPort // the address dialled; zero when a name was
	wire *wire
	rw   net.Conn // wire, or TLS over it
	br   *bufio.Reader
	feed feed
	in   []byte // a response head and what came with it
	out  []byte // a request head

	probed [probed]byte // for probe

	reused   bool
	answered bool      // bytes of a response came
	keep     bool      // the exchange leaves the connection fit for another
	since    time.Time // idle since

	headStart, headEnd int64 // of the request, in bytes written to the wire

	x       *exchange
	sender  *sender // nil: no content
	unwatch func() bool

	mu      sync.Mutex // guards waiting, and the read deadline while it is set
	waiting bool       // for the final head
}

// feed is what the response is parsed from: the bytes read while looking for the
// head's end, then the connection.
type feed struct {
	c      *conn
	replay []byte
	err    error // what ended the connection
	tunnel bool  // after 101: silence is no fault
}

func (f *feed) Read(p []byte) (int, error) {
	if len(f.replay) > 0 {
		n := copy(p, f.replay)
		f.replay = f.replay[n:]
		return n, nil
	}
	if f.err != nil {
		return 0, f.err
	}
	if !f.tunnel {
		f.c.armRead(f.c.s.p.cfg.Timeouts.IdleBody)
	}
	n, err := f.c.rw.Read(p)
	if err == io.EOF && f.c.s.tls != nil && f.c.wire.ended && !f.tunnel {
		// crypto/tls takes a cut between records for an end. A body that only
		// closing delimits is whole only if the closing is signed (RFC 9112, 9.8).
		err = io.ErrUnexpectedEOF
	}
	f.err = err
	return n, err
}

// exchange sends the request and reads the final response's head. On error the
// connection is closed and the place in flight given up.
func (c *conn) exchange(x *exchange) (*http.Response, error) {
	c.begin(x)
	c.out = x.appendHead(c.out[:0], c.s)
	c.headStart = c.wire.sent.Load()
	writeErr := c.write(c.out)
	c.headEnd = c.wire.sent.Load()
	if writeErr != nil && (c.reused || isTimeout(writeErr)) {
		return nil, c.broke(stepWrite, writeErr)
	}
	c.keep = writeErr == nil // else look whether the server answered early and closed
	c.armHead(x.up == nil || x.expect || writeErr != nil)
	if x.up != nil && writeErr == nil {
		c.sender = x.up.start(c)
	}
	h, err := c.finalHead()
	if err != nil {
		if writeErr != nil && !c.answered {
			return nil, c.broke(stepWrite, writeErr)
		}
		return nil, c.broke(stepHead, err)
	}
	resp, err := c.respond(h)
	if err != nil {
		return nil, c.broke(stepHead, err)
	}
	return resp, nil
}

func (c *conn) begin(x *exchange) {
	c.x, c.sender, c.in = x, nil, c.in[:0]
	c.answered, c.waiting = false, true
	c.unwatch = func() bool { return true }
	if x.ctx.Done() != nil {
		c.unwatch = context.AfterFunc(x.ctx, c.abort)
	}
}

// broke ends an exchange that brought no response.
func (c *conn) broke(step string, err error) error {
	early := errors.Is(err, errEarly)
	stale := c.reused && (early || err == errGaveUp || !c.answered && isClosed(err))
	c.abort()
	if s := c.sender; s != nil {
		if s.failed() == nil {
			s.stop()
		}
		switch {
		case s.failed() != nil:
			err = &Error{Kind: requestError, Step: stepRequest, Err: s.failed()}
		case s.isDone() && isTimeout(s.writeErr):
			step, err = stepWrite, s.writeErr
		}
	}
	c.unwatch()
	c.x.leave()
	if early {
		err = &Error{Kind: protocolError, Step: step, Err: err, unanswered: true}
	}
	e := c.x.fault(c.s.server, step, c.answered, err)
	e.stale = stale && c.x.ctx.Err() == nil
	return e
}

// abort closes the connection at once, without a word: crypto/tls may wait for
// seconds to write one.
func (c *conn) abort() { c.wire.Close() }

// drop ends an exchange that a panic in the caller's code cut short.
func (c *conn) drop() {
	c.abort()
	if c.sender != nil {
		c.sender.halt()
	}
	if c.unwatch != nil {
		c.unwatch()
	}
}

func (c *conn) write(b []byte) error {
	if err := c.rw.SetWriteDeadline(c.x.bounded(c.s.p.cfg.Timeouts.WriteIdle)); err != nil {
		return err
	}
	_, err := c.rw.Write(b)
	return err
}

// armRead bounds the next reads. An error would show at the read.
func (c *conn) armRead(d time.Duration) { c.rw.SetReadDeadline(c.x.bounded(d)) }

// headCame reports whether the final head has come.
func (c *conn) headCame() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.waiting
}

// armHead sets whether the header timeout runs; it has no effect once the final
// head has come. The sender calls it too.
func (c *conn) armHead(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !c.waiting:
	case on:
		c.armRead(c.s.p.cfg.Timeouts.Header)
	default:
		c.armRead(0)
	}
}

// finalHead reads heads until one is final, or switches protocols, and relays
// the others. The final head begins c.in.
func (c *conn) finalHead() (*head, error) {
	limit, total := c.s.p.cfg.MaxHeaderBytes, 0
	for range maxInterims + 1 {
		h := new(head)
		if err := c.readHead(h); err != nil {
			return nil, err
		}
		if h.status >= 200 || h.status == http.StatusSwitchingProtocols {
			c.mu.Lock()
			c.waiting = false
			c.mu.Unlock()
			return h, nil
		}
		if total += h.end; total > limit {
			break
		}
		if err := c.relay(h); err != nil {
			return nil, err
		}
		c.in = append(c.in[:0], c.in[h.end:]...)
	}
	return nil, malformed("too many interim responses")
}

// readHead reads until c.in holds a whole head.
func (c *conn) readHead(h *head) error {
	limit := c.s.p.cfg.MaxHeaderBytes
	for {
		whole, err := h.scan(c.in)
		if err != nil {
			return err
		}
		if h.end > limit || !whole && len(c.in) >= limit {
			return &Error{Kind: responseHeadSize, Step: stepHead, Err: malformed("head is too long").Err}
		}
		if whole {
			return nil
		}
		if err := c.readMore(); err != nil {
			return err
		}
	}
}

// readMore appends what the server sends next to c.in.
func (c *conn) readMore() error {
	if len(c.in) == cap(c.in) {
		c.in = append(make([]byte, 0, max(headBuffer, 2*cap(c.in))), c.in...)
	}
	n, err := c.rw.Read(c.in[len(c.in):cap(c.in)])
	c.in = c.in[:len(c.in)+n]
	if n == 0 {
		return err // io.Reader allows neither; the deadline ends that
	}
	if !c.answered && c.reused && c.early() {
		return errEarly
	}
	c.answered = true
	return nil
}

// early reports whether the bytes just read on a reused connection were sent
// before the server's system had the whole of the request's head: a true
// answer's segments acknowledge it. They are surplus for certain only if none of
// the head had come: a server may refuse a head of which it has seen a part.
// Read the queue first, for the sender may be writing: then what is acknowledged
// is at most overstated.
func (c *conn) early() bool {
	waiting := int64(c.wire.unacked())
	acknowledged := c.wire.sent.Load() - waiting
	if acknowledged >= c.headEnd {
		return false
	}
	if acknowledged <= c.headStart && !saysTimeout(c.in) {
		c.s.sawSurplus()
	}
	return true
}

// relay hands an interim response to the caller's trace.
func (c *conn) relay(h *head) error {
	if h.status == http.StatusContinue {
		if c.sender != nil {
			c.sender.release()
		}
		if !c.x.expect {
			return nil
		}
	}
	t := c.x.trace
	if t == nil {
		return nil
	}
	if h.status == http.StatusContinue && t.Got100Continue != nil {
		t.Got100Continue()
	}
	if t.Got1xxResponse == nil {
		return nil
	}
	_, fields, _ := bytes.Cut(c.in[:h.end], []byte("\n"))
	header, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(fields))).ReadMIMEHeader()
	if err != nil {
		return malformed(err.Error())
	}
	c.x.relayed.Store(true)
	if err := t.Got1xxResponse(h.status, header); err != nil {
		return refuse("interim response refused: %w", err)
	}
	return nil
}

// respond makes the response whose head begins c.in, and ends the exchange if
// it has no body.
func (c *conn) respond(h *head) (*http.Response, error) {
	in := c.in
	if h.unknown {
		in = h.withoutCodings(in)
	}
	c.feed.replay, c.feed.err = in, nil
	c.br.Reset(&c.feed)
	resp, err := http.ReadResponse(c.br, c.x.req)
	if err != nil {
		return nil, malformed(err.Error())
	}
	if !h.cacheControl {
		resp.Header.Del("Cache-Control") // made up from Pragma
	}
	if h.connection != nil {
		resp.Header["Connection"] = h.connection // removed with "close", and so what it names
	}
	c.keep = c.keep && !resp.Close && !h.unknown && !c.x.close
	if h.status == http.StatusSwitchingProtocols {
		return c.switched(h, resp)
	}
	gaveUp := h.status == http.StatusRequestTimeout && c.reused && resp.Close
	unsent := c.sender == nil
	if c.sender != nil && c.x.expect {
		unsent = c.sender.refrain() // the server did not want the content
	}
	if gaveUp && unsent && !c.x.fresh && c.x.mayRepeat() { // after refrain: the body cannot be read any more
		return nil, errGaveUp
	}
	if unsent {
		c.x.up.close()
	}
	if resp.Body == http.NoBody {
		c.finish(true)
		return resp, nil
	}
	b := &body{c: c, x: c.x, resp: resp, src: resp.Body}
	if len(resp.TransferEncoding) > 0 {
		b.src = &chunks{c: c, r: httputil.NewChunkedReader(c.br), resp: resp}
	}
	dropForbidden(resp.Trailer)
	resp.Body = b
	return resp, nil
}

// switched completes an upgrade: the connection leaves the pool.
func (c *conn) switched(h *head, resp *http.Response) (*http.Response, error) {
	failed := func(why string) error {
		return &Error{Kind: upgradeFailed, Step: stepHead, Err: errors.New(why)}
	}
	switch {
	case !c.x.upgrade:
		return nil, failed("101 without being asked")
	case h.minor == 0:
		return nil, failed("101 in HTTP/1.0")
	case !offered(c.x.req.Header["Upgrade"], resp.Header["Upgrade"]):
		return nil, failed("101 to a protocol that was not asked for")
	case c.sender != nil && !c.sender.settled():
		return nil, failed("101 before the request's end")
	}
	if !c.x.dig() {
		return nil, &Error{Kind: connLimit, Step: stepHead, Err: errTunnels, overload: true}
	}
	c.keep, c.feed.tunnel = false, true
	c.x.up.close()
	c.rw.SetDeadline(time.Time{}) // an error would show at the next read
	resp.Body = &tunnel{c: c}
	return resp, nil
}

// finish ends an exchange whose response has come to its end (whole) or is
// given up, and keeps or closes the connection. It must be called once, and
// the caller not touch the connection after it.
func (c *conn) finish(whole bool) {
	s, x, sender := c.s, c.x, c.sender
	keep := whole && c.keep
	if whole && (c.br.Buffered() > 0 || len(c.feed.replay) > 0) {
		s.sawSurplus()
		keep = false
	}
	keep = (sender == nil || whole && sender.settled()) && keep
	keep = c.unwatch() && keep
	switch {
	case keep:
		c.sender, c.feed.replay = nil, nil
		c.br.Reset(nil)
		if cap(c.in) > keptBuffer {
			c.in = nil
		}
		if cap(c.out) > keptBuffer {
			c.out = nil
		}
		s.put(c)
	default:
		c.abort()
		if sender != nil {
			sender.halt()
		}
	}
	x.leave()
	x.up.close()
}
