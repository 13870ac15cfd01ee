package origin

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go/http3"
	"golang.org/x/net/http2"
)

// errSlow ends a stream whose time is over.
type errSlow struct{ what string }

func (e errSlow) Error() string { return e.what }
func (e errSlow) Timeout() bool { return true }

// stream is one attempt on a connection that a library shares among many. The
// library's reads know no deadlines: a timer cancels what takes too long.
type stream struct {
	x      *exchange
	s      *server
	ctx    context.Context
	cancel context.CancelCauseFunc
	after  func() // when the stream has ended; nil: nothing

	mu    sync.Mutex // guards timer and came
	timer *time.Timer
	came  bool // the final head

	resp   *http.Response
	src    io.ReadCloser
	err    error // what Read returns from now on; the reader's own
	closed atomic.Bool
	once   sync.Once // guards leave
}

// stream sends x's request to s by rt and returns its response. On error the
// place was given up.
func (x *exchange) stream(s *server, rt func(*http.Request) (*http.Response, error), after func()) (*http.Response, error) {
	st := &stream{x: x, s: s, after: after}
	st.ctx, st.cancel = context.WithCancelCause(x.ctx)
	sent := false
	defer func() { // also after a panic
		if !sent {
			st.leave()
		}
	}()
	var unbound func() bool
	if !x.until.IsZero() {
		t := time.AfterFunc(time.Until(x.until), func() { st.cancel(errSlow{"the exchange took too long"}) })
		unbound = t.Stop
	}
	st.after = func() {
		if unbound != nil {
			unbound()
		}
		if after != nil {
			after()
		}
	}
	if x.up == nil {
		st.awaitHead()
	}
	resp, err := rt(st.request())
	st.mu.Lock()
	st.came = true
	st.mu.Unlock()
	st.disarm()
	if err != nil {
		return nil, st.fault(stepHead, false, err)
	}
	dropForbidden(resp.Trailer)
	resp.Request = x.req
	sent = true
	st.resp, st.src = resp, resp.Body
	if resp.Body == nil || resp.Body == http.NoBody {
		st.leave()
		resp.Body = http.NoBody
		return resp, nil
	}
	resp.Body = st
	return resp, nil
}

// request returns x's request as the library takes it. The target goes out as
// the bytes it is: from Opaque the libraries cut scheme and authority.
func (st *stream) request() *http.Request {
	x, host := st.x, st.s.hostFor(st.x)
	target, _ := targetOf(x.req) // checked before
	u := &url.URL{Scheme: "http", Host: st.s.addr, Opaque: target}
	if st.s.tls != nil {
		u.Scheme = "https"
	}
	if target[0] == '/' {
		u.Opaque = "//" + host + target
	}
	trace := &httptrace.ClientTrace{Got1xxResponse: func(int, textproto.MIMEHeader) error {
		x.relayed.Store(true)
		return nil
	}}
	r := &http.Request{Method: x.req.Method, URL: u, Host: host, Header: make(http.Header, len(x.req.Header)+1), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
	if r.Method == "" {
		r.Method = http.MethodGet
	}
	for key, values := range x.req.Header {
		if name := textproto.CanonicalMIMEHeaderKey(key); !x.ours(name, values) {
			r.Header[name] = values
		}
	}
	if x.trailers {
		r.Header["Te"] = []string{"trailers"}
	}
	if x.expect && st.s.proto != "h3" { // that library does not wait for 100
		r.Header["Expect"] = []string{"100-continue"}
	}
	if r.Header["User-Agent"] == nil {
		r.Header["User-Agent"] = []string{""} // else the library names itself
	}
	if x.up != nil {
		r.Body, r.ContentLength = &streamUpload{st: st, u: x.up}, x.up.length
		r.Trailer = x.req.Trailer
	}
	return r.WithContext(httptrace.WithClientTrace(st.ctx, trace))
}

// arm gives the stream d from now; 0 means without end.
func (st *stream) arm(d time.Duration, what string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.timer != nil {
		st.timer.Stop()
		st.timer = nil
	}
	if d > 0 {
		st.timer = time.AfterFunc(d, func() { st.cancel(errSlow{what}) })
	}
}

func (st *stream) disarm() { st.arm(0, "") }

// awaitHead starts the header timeout, once the request has been sent.
func (st *stream) awaitHead() {
	st.mu.Lock()
	came := st.came
	st.mu.Unlock()
	if !came {
		st.arm(st.s.p.cfg.Timeouts.Header, "no answer came in time")
	}
}

// leave ends the stream and gives its place up.
func (st *stream) leave() {
	st.once.Do(func() {
		st.disarm()
		st.after()
		st.cancel(nil)
		st.x.leave()
		if st.resp != nil {
			st.x.up.close()
		}
	})
}

// fault makes an *Error of what the library said. The library's own words for a
// cancelled stream hide why it was.
func (st *stream) fault(step string, answered bool, err error) *Error {
	var slow errSlow
	var bad errBody
	cause := context.Cause(st.ctx)
	var reset http2.StreamError
	var rejected *http3.Error
	refused := errors.As(err, &reset) && reset.Code == http2.ErrCodeRefusedStream ||
		errors.As(err, &rejected) && rejected.ErrorCode == http3.ErrCodeRequestRejected
	switch {
	case errors.As(cause, &bad), errors.As(err, &bad):
		e := st.x.named(st.s, &Error{Kind: requestError, Step: stepRequest, Err: bad.error})
		return e
	case errors.As(cause, &slow):
		err = slow
	}
	e := st.x.fault(st.s, step, answered, err)
	if !answered && st.x.ctx.Err() == nil {
		e.unreached = refused // or rejected unread (RFC 9113, 8.7; RFC 9114, 4.1.1)
		e.unsent = refused || unsent(err)
	}
	return e
}

// unsent reports whether the library says that a connection that was closing did
// not take the request. They say it in words alone, which tests hold them to.
func unsent(err error) bool {
	return slices.ContainsFunc([]string{"graceful shutdown", "conn unusable", "client conn not usable", "http2: client conn is closed"},
		func(words string) bool { return strings.Contains(err.Error(), words) })
}

// Read returns io.EOF only at the end of a whole body.
func (st *stream) Read(p []byte) (int, error) {
	if st.closed.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	if st.err != nil {
		return 0, st.err
	}
	st.arm(st.s.p.cfg.Timeouts.IdleBody, "no byte of the body came in time")
	n, err := st.src.Read(p)
	st.disarm()
	if err != nil {
		st.err = st.end(err)
	}
	return n, st.err
}

// end finishes the exchange and returns what the reader is told.
func (st *stream) end(err error) error {
	if err == io.EOF {
		dropForbidden(st.resp.Trailer)
		st.src.Close()
		st.leave()
		return io.EOF
	}
	e := st.fault(stepBody, true, err)
	st.src.Close()
	st.leave()
	if st.closed.Load() {
		return http.ErrBodyReadAfterClose
	}
	return st.x.lost(st.s, e)
}

// Close ends the exchange.
func (st *stream) Close() error {
	st.closed.Store(true)
	st.cancel(http.ErrBodyReadAfterClose)
	st.src.Close()
	st.leave()
	return nil
}

// errBody is an error of the request's content.
type errBody struct{ error }

// streamUpload gives a request's content to a library.
type streamUpload struct {
	st     *stream
	u      *upload
	closed atomic.Bool
	sent   int64
}

func (b *streamUpload) Read(p []byte) (int, error) {
	if b.closed.Load() || !b.u.mayRead() {
		return 0, errBodyEnded
	}
	b.u.read.Store(true)
	b.st.mu.Lock()
	came := b.st.came
	b.st.mu.Unlock()
	if d := b.st.s.p.cfg.Timeouts.RequestIdle; d > 0 && !came {
		t := time.AfterFunc(d, func() { b.st.cancel(errBody{errBodyIdle}); b.u.close() })
		defer t.Stop()
	}
	n, err := b.u.body.Read(p)
	b.sent += int64(n)
	switch {
	case err == nil && (b.u.length < 0 || b.sent <= b.u.length):
		return n, nil
	case err == io.EOF && (b.u.length < 0 || b.sent == b.u.length):
		b.st.awaitHead()
		return n, io.EOF
	case err == io.EOF && b.sent < b.u.length:
		err = errBodyShort
	case err == nil || err == io.EOF:
		err = errBodyLong
	}
	b.st.cancel(errBody{err}) // the server must not take what it got for all
	return 0, errBody{err}
}

// Close keeps the library from reading on. Content that was not read yet stays
// open for another attempt.
func (b *streamUpload) Close() error {
	b.closed.Store(true)
	if b.u.touched() {
		b.u.close()
	}
	return nil
}
