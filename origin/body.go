package origin

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"
)

// body is a response's content. Read belongs to one goroutine; Close may be
// called by another and ends a Read under way.
type body struct {
	c    *conn
	x    *exchange
	resp *http.Response
	src  io.Reader // net/http's, framing removed; never closed, as that would drain it
	err  error     // what Read returns from now on

	closed atomic.Bool
	once   sync.Once // guards the connection's finish
}

// Read returns io.EOF only at the end of a whole body.
func (b *body) Read(p []byte) (int, error) {
	if b.closed.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.src.Read(p)
	if err != nil {
		b.err = b.end(err)
	}
	return n, b.err
}

// Buffered returns how many bytes the next Reads give without waiting: those of
// a body of known length that came with the head. It belongs to whoever reads.
func (b *body) Buffered() int {
	if b.resp.ContentLength < 0 || b.err != nil || b.closed.Load() {
		return 0
	}
	return int(min(int64(b.c.br.Buffered()+len(b.c.feed.replay)), b.resp.ContentLength))
}

// end finishes the exchange and returns what the reader is told.
func (b *body) end(err error) error {
	if err == io.EOF {
		b.once.Do(func() { b.c.finish(true) })
		return io.EOF
	}
	c, lost, sender := b.c, b.c.feed.err, b.c.sender
	b.once.Do(func() { c.finish(false) })
	var e *Error
	switch {
	case b.closed.Load():
		return http.ErrBodyReadAfterClose
	case sender != nil && sender.failed() != nil:
		err = &Error{Kind: requestError, Step: stepRequest, Err: sender.failed()}
	case lost != nil:
		err = lost
	case !errors.As(err, &e):
		err = &Error{Kind: responseCoding, Err: err}
	}
	e = b.x.fault(c.s.server, stepBody, true, err)
	if e.Step == "" || e.Step == stepHead {
		e.Step = stepBody
	}
	return b.x.lost(c.s.server, e)
}

// Close ends the exchange. A body not read to its end costs the connection:
// nothing is drained.
func (b *body) Close() error {
	b.closed.Store(true)
	b.once.Do(func() { b.c.finish(false) })
	return nil
}

// maxTrailer bounds a trailer section. A line of it is bounded by the reader's
// buffer.
const maxTrailer = 4 << 10

// chunks is a chunked body with its trailer section, which net/http would read
// less strictly than a head.
type chunks struct {
	c    *conn
	r    io.Reader // the chunks' data
	resp *http.Response
}

func (k *chunks) Read(p []byte) (int, error) {
	n, err := k.r.Read(p)
	if err == io.EOF {
		err = k.trailer()
	}
	return n, err
}

// trailer reads the trailer section into the response (RFC 9112, 7.1.2) and
// returns io.EOF once it is whole.
func (k *chunks) trailer() error {
	for total := 0; ; {
		line, err := k.c.br.ReadSlice('\n')
		total += len(line)
		switch {
		case err == bufio.ErrBufferFull || total > maxTrailer:
			return &Error{Kind: responseCoding, Err: errors.New("trailer section is too long")}
		case err == io.EOF:
			return io.ErrUnexpectedEOF
		case err != nil:
			return err
		}
		line, ok := bytes.CutSuffix(line, []byte("\r\n"))
		if ok && len(line) == 0 {
			return io.EOF
		}
		name, value, found := bytes.Cut(line, []byte(":"))
		if !ok || !found || !validName(name) || !validValue(value) { // a folded line has no valid name
			return malformed("malformed trailer field")
		}
		if field := http.CanonicalHeaderKey(string(name)); mayTrail(field) {
			if k.resp.Trailer == nil {
				k.resp.Trailer = make(http.Header)
			}
			k.resp.Trailer.Add(field, string(bytes.Trim(value, " \t")))
		}
	}
}

// dropForbidden removes declared trailer fields that will not be passed on.
func dropForbidden(t http.Header) {
	for name := range t {
		if !mayTrail(name) {
			delete(t, name)
		}
	}
}

// mayTrail reports whether a field may be sent as a trailer: not what frames,
// routes, authenticates or controls the message (RFC 9110, 6.5.1), as whoever
// merges trailers into the header would be deceived. The name is canonical.
func mayTrail(name string) bool {
	switch name {
	case "Age", "Cookie", "Date", "Expires", "Forwarded", "Http2-Settings", "Location", "Proxy-Authentication-Info",
		"Retry-After", "Set-Cookie", "Upgrade", "Vary", "Via", "Warning":
		return false
	}
	return httpguts.ValidHeaderFieldName(name) && httpguts.ValidTrailerHeader(name) && !strings.HasSuffix(name, "-Control")
}

// tunnel is the connection after 101. Read, Write and Close may run at once.
type tunnel struct {
	c    *conn
	once sync.Once
}

// Read returns what the server sends, beginning with what came behind the head.
func (t *tunnel) Read(p []byte) (int, error) { return t.c.br.Read(p) }

// Write sends p to the server. Timeouts.WriteIdle bounds it.
func (t *tunnel) Write(p []byte) (int, error) {
	if d := t.c.s.p.cfg.Timeouts.WriteIdle; d > 0 {
		if err := t.c.rw.SetWriteDeadline(time.Now().Add(d)); err != nil {
			return 0, err
		}
	}
	return t.c.rw.Write(p)
}

// CloseWrite tells the server that nothing more will come, or returns
// errors.ErrUnsupported.
func (t *tunnel) CloseWrite() error { return closeWrite(t.c) }

// Close ends both directions.
func (t *tunnel) Close() error {
	t.once.Do(func() { t.c.finish(false) })
	return nil
}
