package origin

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"

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

// end finishes the exchange and returns what the reader is told.
func (b *body) end(err error) error {
	if err == io.EOF && !validTrailer(b.resp.Trailer) {
		err = malformed("malformed trailer field")
	}
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
	e = b.x.fault(c.s, stepBody, true, err)
	if e.Step == "" || e.Step == stepHead {
		e.Step = stepBody
	}
	return b.x.p.count(e)
}

// Close ends the exchange. A body not read to its end costs the connection:
// nothing is drained.
func (b *body) Close() error {
	b.closed.Store(true)
	b.once.Do(func() { b.c.finish(false) })
	return nil
}

// validTrailer reports whether trailer fields may be passed on; net/http reads
// them less strictly than heads.
func validTrailer(t http.Header) bool {
	for name, values := range t {
		for _, v := range values {
			if !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(v) {
				return false
			}
		}
	}
	return true
}

// tunnel is the connection after 101. Read, Write and Close may run at once.
type tunnel struct {
	c    *conn
	once sync.Once
}

// Read returns what the server sends, beginning with what came behind the head.
func (t *tunnel) Read(p []byte) (int, error) { return t.c.br.Read(p) }

// Write sends p to the server.
func (t *tunnel) Write(p []byte) (int, error) { return t.c.rw.Write(p) }

// CloseWrite tells the server that nothing more will come, or returns
// errors.ErrUnsupported.
func (t *tunnel) CloseWrite() error { return closeWrite(t.c) }

// Close ends both directions.
func (t *tunnel) Close() error {
	t.once.Do(func() { t.c.finish(false) })
	return nil
}
