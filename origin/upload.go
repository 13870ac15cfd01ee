package origin

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"
)

const (
	uploadBuffer = 32 << 10
	sizeRoom     = 8 // for a chunk's size in hex and CRLF

	// lastWriteWait is how long the end of an answer waits for the goroutine
	// that has just handed the request's last bytes to the kernel.
	lastWriteWait = 50 * time.Millisecond
	// stopWait is how long a failed exchange waits for a body's Read to tell why
	// it failed. One that does not heed Close ends later, with its goroutine.
	stopWait = 500 * time.Millisecond
)

var (
	errBodyShort = errors.New("body is shorter than its Content-Length")
	errBodyLong  = errors.New("body is longer than its Content-Length")
	errBodyIdle  = errors.New("no byte of the body came for too long")
	errBodyEnded = errors.New("the body is no longer wanted")
	errTrailer   = errors.New("malformed trailer field")
)

// upload is a request's content. It outlives an attempt that has not read it.
type upload struct {
	req     *http.Request
	body    io.ReadCloser
	length  int64 // -1: unknown
	chunked bool
	trailer []string // declared names, sorted

	read atomic.Bool // Read was called

	mu     sync.Mutex // guards closed
	closed bool       // Close was called, or is about to be
}

// newUpload returns nil when req has no content. As for net/http's transport,
// a length of 0 beside a body means unknown.
func newUpload(req *http.Request) *upload {
	if req.Body == http.NoBody || req.Body == nil && req.ContentLength <= 0 {
		return nil
	}
	u := &upload{req: req, body: req.Body, length: req.ContentLength}
	if u.length <= 0 {
		u.length = -1
	}
	u.chunked = u.length < 0 || len(req.Trailer) > 0
	return u
}

// touched reports whether content may have been lost to an attempt.
func (u *upload) touched() bool { return u != nil && u.read.Load() }

// close has the body closed, if nobody has begun to, without waiting for it: a
// Close may wait for a Read under way, or for the rest of what a client sends,
// as that of net/http's server does. No Read begins after it.
func (u *upload) close() {
	if u.take() {
		go u.closeBody()
	}
}

// take reports whether the body is the caller's to close.
func (u *upload) take() bool {
	if u == nil || u.body == nil {
		return false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	taken := !u.closed
	u.closed = true
	return taken
}

// closeBody calls Close. An error or a panic in it would say nothing about the
// exchange.
func (u *upload) closeBody() {
	defer func() { _ = recover() }()
	u.body.Close()
}

// mayRead reports whether a Read may begin.
func (u *upload) mayRead() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return !u.closed
}

// declareTrailer notes which trailer fields will be sent: those that may be
// (RFC 9110, 6.5.1). The others are dropped, as any recipient may.
func (u *upload) declareTrailer(t http.Header) {
	for name := range t {
		if canonical := http.CanonicalHeaderKey(name); mayTrail(canonical) {
			u.trailer = append(u.trailer, canonical)
		}
	}
	slices.Sort(u.trailer)
}

// sender writes an upload to a connection in a goroutine of its own.
type sender struct {
	c    *conn
	x    *exchange
	u    *upload
	goOn chan struct{} // closed when the content may be sent
	quit chan struct{} // closed when it must not be
	done chan struct{}

	last   atomic.Bool           // the request's last bytes are being written
	reads  atomic.Int64          // the Read under way, counted from 1; 0: none; -1: it took too long
	fault  atomic.Pointer[error] // what ended the body, known before the connection closes for it
	fate   atomic.Int32
	onceGo sync.Once

	turn int64 // the last Read's number; the goroutine's own

	// Valid when done is closed.
	bodyErr  error // from the body
	writeErr error // from the connection
	whole    bool  // all was sent
}

// A sender's fate: decided once, by itself or by stop.
const (
	undecided = iota
	sending
	stopped
)

// start sends u after the head, at once or when the server says so.
func (u *upload) start(c *conn) *sender {
	s := &sender{c: c, x: c.x, u: u, goOn: make(chan struct{}), quit: make(chan struct{}), done: make(chan struct{})}
	if !c.x.expect {
		s.release()
	}
	go s.run()
	return s
}

func (s *sender) release() { s.onceGo.Do(func() { close(s.goOn) }) }

func (s *sender) run() {
	if !s.allowed() {
		close(s.done)
		return
	}
	s.u.read.Store(true)
	s.send()
	close(s.done) // first: the connection need not wait for the body's Close
	if s.u.take() {
		s.u.closeBody()
	}
}

func (s *sender) send() {
	s.c.armHead(false) // it runs from the request's end
	buf := s.x.p.buffers.Get().(*[]byte)
	defer s.x.p.buffers.Put(buf)
	if s.u.chunked {
		s.sendChunks(*buf)
	} else {
		s.sendLength(*buf)
	}
	s.blame(s.bodyErr)
	if s.bodyErr != nil || isTimeout(s.writeErr) && !s.c.headCame() {
		s.c.abort() // the server must not take what it got for all
	}
	s.whole = s.bodyErr == nil && s.writeErr == nil
	s.c.armHead(true)
}

// allowed waits for 100, or for the server's silence, and reports whether to
// send.
func (s *sender) allowed() bool {
	var silence <-chan time.Time
	if d := s.x.p.cfg.Timeouts.ExpectContinue; d > 0 && s.x.expect {
		t := time.NewTimer(d)
		defer t.Stop()
		silence = t.C
	}
	select {
	case <-s.quit:
		return false
	case <-s.goOn:
	case <-silence:
	}
	s.release()
	return s.fate.CompareAndSwap(undecided, sending)
}

// sendLength sends a body of known length. The last bytes wait until the body
// has ended, so that a server never takes a body of another length for whole.
func (s *sender) sendLength(buf []byte) {
	left := s.u.length
	for {
		n, err := s.fill(buf)
		if left -= int64(n); left == 0 && err == nil {
			err = s.endOfBody()
		}
		switch {
		case left < 0:
			s.bodyErr = errBodyLong
		case err == io.EOF && left > 0:
			s.bodyErr = errBodyShort
		case err != nil && err != io.EOF:
			s.bodyErr = err
		}
		if s.bodyErr != nil {
			return
		}
		s.last.Store(err == io.EOF)
		if s.writeErr = s.c.write(buf[:n]); s.writeErr != nil || err == io.EOF {
			return
		}
	}
}

// sendChunks sends a body in chunks, then the trailer section (RFC 9112, 7.1).
func (s *sender) sendChunks(buf []byte) {
	sent := int64(0)
	for {
		n, err := s.fill(buf[sizeRoom : len(buf)-2])
		sent += int64(n)
		switch {
		case s.u.length >= 0 && sent > s.u.length:
			s.bodyErr = errBodyLong
		case s.u.length >= 0 && err == io.EOF && sent < s.u.length:
			s.bodyErr = errBodyShort
		case err != nil && err != io.EOF:
			s.bodyErr = err
		}
		if s.bodyErr != nil {
			return
		}
		out := chunk(buf, n)
		if err == io.EOF {
			if out, s.bodyErr = s.appendEnd(out); s.bodyErr != nil {
				return
			}
			s.last.Store(true)
		}
		if s.writeErr = s.c.write(out); s.writeErr != nil || err == io.EOF {
			return
		}
	}
}

// chunk frames the n bytes at sizeRoom in place; nothing for none.
func chunk(buf []byte, n int) []byte {
	if n == 0 {
		return buf[:0]
	}
	var size [sizeRoom]byte
	head := append(strconv.AppendInt(size[:0], int64(n), 16), "\r\n"...)
	from := sizeRoom - len(head)
	copy(buf[from:], head)
	return append(buf[from:sizeRoom+n], "\r\n"...)
}

// appendEnd appends the last chunk and the declared trailer fields.
func (s *sender) appendEnd(b []byte) ([]byte, error) {
	b = append(b, "0\r\n"...)
	for _, name := range s.u.trailer {
		for _, v := range s.u.req.Trailer.Values(name) {
			if !httpguts.ValidHeaderFieldValue(v) {
				return nil, errTrailer
			}
			b = append(append(append(append(b, name...), ": "...), strings.Trim(v, " \t")...), "\r\n"...)
		}
	}
	return append(b, "\r\n"...), nil
}

// fill reads some of the body; nothing without an error only if the body
// insists.
func (s *sender) fill(buf []byte) (n int, err error) {
	for range 100 {
		if n, err = s.readBody(buf); n > 0 || err != nil {
			return n, err
		}
	}
	return 0, io.ErrNoProgress
}

// readOnce calls Read. A panic in it is an error of the body: it has no caller
// here who could catch it.
func (u *upload) readOnce(buf []byte) (n int, err error) {
	defer func() {
		if p := recover(); p != nil {
			n, err = 0, fmt.Errorf("panic in the body's Read: %v", p)
		}
	}()
	return u.body.Read(buf)
}

// readBody is readOnce, for which RequestIdle is time.
func (s *sender) readBody(buf []byte) (n int, err error) {
	if !s.u.mayRead() {
		return 0, errBodyEnded
	}
	limit := s.x.p.cfg.Timeouts.RequestIdle
	if limit <= 0 {
		return s.u.readOnce(buf)
	}
	s.turn++
	turn := s.turn
	s.reads.Store(turn)
	t := time.AfterFunc(limit, func() { s.starve(turn) })
	defer t.Stop()
	n, err = s.u.readOnce(buf)
	if !s.reads.CompareAndSwap(turn, 0) {
		return 0, errBodyIdle
	}
	return n, err
}

// starve ends the exchange whose body has brought nothing for too long. Once the
// answer has begun the body may rest: then the answer's own timeouts hold.
func (s *sender) starve(turn int64) {
	if s.c.headCame() || !s.reads.CompareAndSwap(turn, -1) {
		return
	}
	s.blame(errBodyIdle)
	s.c.abort()
	s.u.close()
}

// blame notes the body's error, if it is the first and not the work of our own
// Close.
func (s *sender) blame(err error) {
	if err != nil && s.u.mayRead() {
		s.fault.CompareAndSwap(nil, &err)
	}
}

// endOfBody returns io.EOF if the body has ended.
func (s *sender) endOfBody() error {
	var one [1]byte
	if n, err := s.fill(one[:]); n == 0 {
		return err
	}
	return errBodyLong
}

// settled reports whether the whole request was sent, waiting a moment if its
// last bytes are on their way.
func (s *sender) settled() bool {
	if s.last.Load() {
		t := time.NewTimer(lastWriteWait)
		defer t.Stop()
		select {
		case <-s.done:
		case <-t.C:
		}
	}
	return s.isDone() && s.whole
}

func (s *sender) isDone() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// failed returns the body's error, if that is what ended the sending.
func (s *sender) failed() error {
	if err := s.fault.Load(); err != nil {
		return *err
	}
	return nil
}

// refrain keeps the sending from beginning and reports whether none of the body
// was read or will be: only then the body stays open.
func (s *sender) refrain() bool {
	if s.fate.CompareAndSwap(undecided, stopped) {
		close(s.quit)
	}
	return s.fate.Load() == stopped
}

// halt ends the sending on a connection that the caller has closed, without
// waiting for the body.
func (s *sender) halt() {
	if !s.refrain() {
		s.u.close()
	}
}

// stop is halt, and waits a while for the sending's end.
func (s *sender) stop() {
	s.halt()
	t := time.NewTimer(stopWait)
	defer t.Stop()
	select {
	case <-s.done:
	case <-t.C:
	}
}
