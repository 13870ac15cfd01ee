package origin

import (
	"io"
	"net/http"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"
)

// errBody is an error of the request's content, or of who sends it.
type errBody struct{ error }

// streamUpload gives a request's content to a library.
type streamUpload struct {
	st      *stream
	u       *upload
	sent    int64
	trailer http.Header // the library's; filled at the content's end

	mu     sync.Mutex // guards closed, and that no Read begins after it
	closed bool
}

func (b *streamUpload) Read(p []byte) (int, error) {
	if !b.begin() {
		return 0, errBodyEnded
	}
	b.st.await(0, errSlow{}) // the server has taken what there was
	n, err := b.readOnce(p)
	b.sent += int64(n)
	switch {
	case err == nil && (b.u.length < 0 || b.sent <= b.u.length):
		b.st.awaitWrite()
		return n, nil
	case err == io.EOF && (b.u.length < 0 || b.sent == b.u.length):
		if err = b.endTrailer(); err == nil {
			b.st.awaitHead()
			return n, io.EOF
		}
	case err == io.EOF && b.sent < b.u.length:
		err = errBodyShort
	case err == nil || err == io.EOF:
		err = errBodyLong
	}
	b.st.cancel(errBody{err}) // the server must not take what it got for all
	return 0, errBody{err}
}

// readOnce reads from the content, which before the answer may not rest for too
// long.
func (b *streamUpload) readOnce(p []byte) (int, error) {
	b.st.mu.Lock()
	came := b.st.came
	b.st.mu.Unlock()
	if d := b.st.s.p.cfg.Timeouts.RequestIdle; d > 0 && !came {
		t := time.AfterFunc(d, func() { b.st.cancel(errBody{errBodyIdle}); b.u.close() })
		defer t.Stop()
	}
	return b.u.readOnce(p)
}

// endTrailer fills in the declared trailer fields, known now.
func (b *streamUpload) endTrailer() error {
	for name := range b.trailer {
		for _, v := range b.u.req.Trailer.Values(name) {
			if !httpguts.ValidHeaderFieldValue(v) {
				return errTrailer
			}
			b.trailer[name] = append(b.trailer[name], v)
		}
	}
	return nil
}

// begin reports whether a Read may begin. From then on the content is spent.
func (b *streamUpload) begin() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || !b.u.mayRead() {
		return false
	}
	b.u.read.Store(true)
	return true
}

// abandon keeps the library from reading on, also a goroutine of it that has
// not yet begun: another attempt may have the content then.
func (b *streamUpload) abandon() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
}

// Close keeps the library from reading on. Content that was not read yet stays
// open for another attempt.
func (b *streamUpload) Close() error {
	b.abandon()
	if b.u.touched() {
		b.u.close()
	}
	return nil
}
