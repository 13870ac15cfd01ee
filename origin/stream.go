package origin

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go/http3"
	"golang.org/x/net/http2"
)

// errSlow ends a stream whose time is over, at a step if it is known.
type errSlow struct{ what, step string }

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

	upload   *streamUpload // nil: no content
	interims interims

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
		t := time.AfterFunc(time.Until(x.until), func() { st.cancel(errSlow{what: "the exchange took too long"}) })
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
	if x.up == nil || x.expect {
		st.awaitHead()
	} else {
		st.awaitWrite() // there may be no room for the head either
	}
	resp, err := rt(st.request())
	st.mu.Lock()
	st.came = true
	st.mu.Unlock()
	st.disarm()
	st.interims.end(err == nil)
	if err == nil {
		if err = malformedHead(resp); err != nil {
			st.cancel(err)
			resp.Body.Close()
		}
	}
	if err != nil {
		st.upload.abandon() // what it has read is known from now on
		return nil, st.fault(stepHead, st.interims.spoke(), err)
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
	trace := &httptrace.ClientTrace{Got1xxResponse: st.interim}
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
		st.upload = &streamUpload{st: st, u: x.up}
		r.Body, r.ContentLength = st.upload, x.up.length
		if len(x.up.trailer) > 0 {
			st.upload.trailer = make(http.Header, len(x.up.trailer))
			for _, name := range x.up.trailer {
				st.upload.trailer[name] = nil // declared; known once the content has ended
			}
			r.Trailer = st.upload.trailer
		}
	}
	return r.WithContext(httptrace.WithClientTrace(untraced{st.ctx}, trace))
}

// arm gives the stream d from now; 0 means without end.
func (st *stream) arm(d time.Duration, why errSlow) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.armLocked(d, why)
}

func (st *stream) armLocked(d time.Duration, why errSlow) {
	if st.timer != nil {
		st.timer.Stop()
		st.timer = nil
	}
	if d > 0 {
		st.timer = time.AfterFunc(d, func() { st.cancel(why) })
	}
}

func (st *stream) disarm() { st.arm(0, errSlow{}) }

// await is arm for what comes before the final head; after it there is no
// effect.
func (st *stream) await(d time.Duration, why errSlow) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if !st.came {
		st.armLocked(d, why)
	}
}

// awaitHead starts the header timeout, once the request has been sent.
func (st *stream) awaitHead() {
	st.await(st.s.p.cfg.Timeouts.Header, errSlow{what: "no answer came in time"})
}

// awaitWrite bounds how long the server may take no more of the request: the
// library waits without end for a window to open.
func (st *stream) awaitWrite() {
	st.await(st.s.p.cfg.Timeouts.WriteIdle, errSlow{"the server took nothing more in time", stepWrite})
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
	if why := reset.Cause; why != nil && why.Error() != fromPeer { // what the server sent was at fault
		var ours *Error
		switch refused = false; {
		case errors.As(why, &ours):
			err = ours
		case strings.HasSuffix(why.Error(), tooLongHead):
			err = &Error{Kind: responseHeadSize, Step: step, Err: why}
		default:
			err = malformed(why.Error())
		}
	}
	switch {
	case strings.HasSuffix(err.Error(), tooLongRequest) && !answered:
		return st.x.named(st.s, refuse("%w", err)) // no server's failure: it was not sent
	case errors.As(cause, &bad), errors.As(err, &bad):
		e := st.x.named(st.s, &Error{Kind: requestError, Step: stepRequest, Err: bad.error})
		return e
	case errors.As(cause, &slow):
		err, step = slow, cmp.Or(slow.step, step)
	}
	e := st.x.fault(st.s, step, answered, err)
	if !answered && st.x.ctx.Err() == nil {
		e.unreached = refused // or rejected unread (RFC 9113, 8.7; RFC 9114, 4.1.1)
		e.unsent = refused || unsent(err)
	}
	return e
}

// What the libraries say in words alone, which tests hold them to.
const (
	fromPeer       = "received from peer" // a stream was reset by the server, not by the library
	tooLongHead    = "header list larger than advertised limit"
	tooLongRequest = "request header list larger than peer's advertised limit"
)

// unsent reports whether the library says that a connection that was closing did
// not take the request. The whole of its words must match: further inside an
// error may stand what the server sent with GOAWAY.
func unsent(err error) bool {
	said := err.Error()
	switch said {
	case "http2: Transport received Server's graceful shutdown GOAWAY", "http2: client conn not usable", "http2: client conn is closed":
		return true
	}
	return strings.HasPrefix(said, "http3: conn unusable: ")
}

// malformedHead returns what is wrong with a head that a library has accepted,
// nil for nothing: what no server of ours could pass on, and what would frame
// the message differently for whoever reads it next (RFC 9110, 8.6 and 15).
func malformedHead(resp *http.Response) error {
	code := resp.StatusCode
	if code < 200 || code > 999 || !strings.HasPrefix(resp.Status, strconv.Itoa(code)+" ") {
		return malformed("malformed status")
	}
	lengths := resp.Header["Content-Length"]
	if len(lengths) > 1 || len(lengths) == 1 && (lengths[0] == "" || strings.Trim(lengths[0], "0123456789") != "") {
		return malformed("invalid or repeated Content-Length")
	}
	return nil
}

// Read returns io.EOF only at the end of a whole body.
func (st *stream) Read(p []byte) (int, error) {
	if st.closed.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	if st.err != nil {
		return 0, st.err
	}
	st.arm(st.s.p.cfg.Timeouts.IdleBody, errSlow{what: "no byte of the body came in time"})
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
