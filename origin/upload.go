package origin

import (
	"errors"
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
	// stopWait is how long the end of an exchange waits for a body's Read that
	// does not heed Close. That Read's goroutine ends with it.
	stopWait = 500 * time.Millisecond
)

var (
	errBodyShort = errors.New("body is shorter than its Content-Length")
	errBodyLong  = errors.New("body is longer than its Content-Length")
	errTrailer   = errors.New("malformed trailer field")
)

// upload is a request's content. It outlives an attempt that has not read it.
type upload struct {
	req     *http.Request
	body    io.ReadCloser
	length  int64 // -1: unknown
	chunked bool
	trailer []string // declared names, sorted

	read   atomic.Bool // Read was called
	closed atomic.Bool // Close was
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

// close closes the body, if nobody has begun to. A body may be closed while it
// is read, and some wait for that read.
func (u *upload) close() {
	if u != nil && u.body != nil && !u.closed.Swap(true) {
		u.body.Close() // an error would say nothing about the exchange
	}
}

// declareTrailer notes which trailer fields will be sent.
func (u *upload) declareTrailer(t http.Header) *Error {
	for name := range t {
		switch canonical := http.CanonicalHeaderKey(name); {
		case !httpguts.ValidTrailerHeader(canonical), !httpguts.ValidHeaderFieldName(name):
			return refuse("trailer field %q", name)
		default:
			u.trailer = append(u.trailer, canonical)
		}
	}
	slices.Sort(u.trailer)
	return nil
}

// sender writes an upload to a connection in a goroutine of its own.
type sender struct {
	c    *conn
	x    *exchange
	u    *upload
	goOn chan struct{} // closed when the content may be sent
	quit chan struct{} // closed when it must not be
	done chan struct{}

	last   atomic.Bool // the request's last bytes are being written
	fate   atomic.Int32
	onceGo sync.Once

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
	defer close(s.done)
	if !s.allowed() {
		return
	}
	s.u.read.Store(true)
	defer s.u.close()
	s.c.armHead(false) // it runs from the request's end
	buf := s.x.p.buffers.Get().(*[]byte)
	defer s.x.p.buffers.Put(buf)
	if s.u.chunked {
		s.sendChunks(*buf)
	} else {
		s.sendLength(*buf)
	}
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
		if n, err = s.u.body.Read(buf); n > 0 || err != nil {
			return n, err
		}
	}
	return 0, io.ErrNoProgress
}

// endOfBody returns io.EOF if the body has ended.
func (s *sender) endOfBody() error {
	var one [1]byte
	if n, err := s.fill(one[:]); n == 0 {
		return err
	}
	return errBodyLong
}

// holdsBack reports whether no content was sent.
func (s *sender) holdsBack() bool { return s.fate.Load() != sending }

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
	if s.isDone() {
		return s.bodyErr
	}
	return nil
}

// stop ends the sending on a connection that the caller has closed (or on which
// nothing was sent) and reports whether the goroutine has ended.
func (s *sender) stop() bool {
	if s.fate.CompareAndSwap(undecided, stopped) {
		close(s.quit)
		<-s.done // it has not touched the body, nor will it
	}
	if s.isDone() {
		return true
	}
	closed := make(chan struct{})
	go func() { // Close may wait for a Read; most Reads end by it
		defer close(closed)
		s.u.close()
	}()
	t := time.NewTimer(stopWait)
	defer t.Stop()
	for _, end := range []chan struct{}{s.done, closed} {
		select {
		case <-end:
		case <-t.C:
			return false
		}
	}
	return true
}
