package origin

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
)

// largeHead is the longest head sent on a kept connection. A server may refuse a
// longer one before all of it has come, which on a kept connection could not be
// told from surplus (see conn.early). Servers' own limits begin here.
const largeHead = 4 << 10

// exchange is one request's state across its attempts. The goroutine in
// RoundTrip owns it, then whoever reads the response's body.
type exchange struct {
	p     *Pool
	req   *http.Request
	ctx   context.Context
	trace *httptrace.ClientTrace // nil: nobody listens
	until time.Time              // end of Timeouts.Total; zero: none

	up       *upload // nil: no content
	expect   bool    // waits for 100 before its content
	upgrade  bool
	trailers bool // TE: trailers
	close    bool // the caller wants the connection closed
	fresh    bool // no reused connection any more: this is the retry
	start    int  // first server in turn
	failed   []bool

	at     *server // where it has a place in flight, or of a tunnel; nil: none
	tunnel bool    // it switched protocols
	large  bool    // its head is too long to share a connection

	scratch *scratch
}

// scratch holds a request's laid out lines while it is being sent.
type scratch struct {
	line   []byte // request line
	fields []byte // fields but Host and Connection
	keys   []string
}

// newExchange checks req and lays it out. The exchange is never nil, so that
// its body can be closed; only after a nil error can it run.
func (p *Pool) newExchange(req *http.Request) (*exchange, error) {
	x := &exchange{p: p, req: req, ctx: req.Context(), up: newUpload(req)}
	if p.cfg.Timeouts.Total > 0 {
		x.until = time.Now().Add(p.cfg.Timeouts.Total)
	}
	if p.closed.Load() {
		return x, x.place(nil, &Error{Kind: unavailable, Step: stepRequest, Err: ErrClosed})
	}
	x.trace = httptrace.ContextClientTrace(x.ctx)
	x.scratch = p.scratch.Get().(*scratch)
	if err := x.layOut(); err != nil {
		x.putScratch()
		return x, x.place(nil, err)
	}
	x.start = int((p.next.Add(1) - 1) % uint32(len(p.servers)))
	return x, nil
}

func (x *exchange) putScratch() {
	const tooBig = 16 << 10 // do not keep what one odd request needed
	if cap(x.scratch.fields) <= tooBig {
		clear(x.scratch.keys) // drop the strings
		x.p.scratch.Put(x.scratch)
	}
	x.scratch = nil
}

// layOut writes the request line and all fields that do not depend on the
// server.
func (x *exchange) layOut() *Error {
	target, err := targetOf(x.req)
	if err != nil {
		return err
	}
	method := x.req.Method
	if method == "" {
		method = http.MethodGet
	}
	if !validName([]byte(method)) || method == http.MethodConnect {
		return refuse("method %q", method)
	}
	if x.p.cfg.Host == "" && clientHost(x.req) == "" {
		return refuse("no Host")
	}
	if x.p.cfg.Host == "" && !validHost(clientHost(x.req)) {
		return refuse("Host %q", clientHost(x.req))
	}
	if x.up != nil && x.up.length > 0 && x.up.body == nil {
		return refuse("Content-Length %d without a body", x.up.length)
	}
	b := append(x.scratch.line[:0], method...)
	b = append(append(append(b, ' '), target...), " HTTP/1.1\r\nHost: "...)
	x.scratch.line = b
	if err := x.layOutFields(); err != nil {
		return err
	}
	return x.layOutFraming(method)
}

// targetOf returns the request target as it is sent. Only origin form and, for
// OPTIONS, the asterisk go to an origin: with an absolute form there would be two
// hosts, and what follows a # is no part of a target (RFC 9112, 3.2).
func targetOf(req *http.Request) (string, *Error) {
	target := req.RequestURI
	if target == "" && req.URL != nil {
		target = req.URL.RequestURI()
	}
	if target == "" || target[0] != '/' && (target != "*" || req.Method != http.MethodOptions) {
		return "", refuse("target %q is not in origin form", target)
	}
	for i := range len(target) {
		if c := target[i]; c <= ' ' || c == 0x7f || c == '#' {
			return "", refuse("target %q holds a space, a control or a fragment", target)
		}
	}
	return target, nil
}

// layOutFields writes the caller's fields, sorted by name, without those that
// speak of this connection or of framing.
func (x *exchange) layOutFields() *Error {
	s := x.scratch
	s.fields, s.keys = s.fields[:0], s.keys[:0]
	for name := range x.req.Header {
		s.keys = append(s.keys, name)
	}
	slices.Sort(s.keys)
	for _, key := range s.keys {
		if !httpguts.ValidHeaderFieldName(key) {
			return refuse("field name %q", key)
		}
		name, values := textproto.CanonicalMIMEHeaderKey(key), x.req.Header[key]
		if x.ours(name, values) {
			continue
		}
		for _, v := range values {
			if !httpguts.ValidHeaderFieldValue(v) {
				return refuse("value of field %s", name)
			}
			s.fields = appendField(s.fields, name, v)
		}
	}
	return nil
}

// ours reports whether a field is not copied, and notes what it asks for.
func (x *exchange) ours(name string, values []string) bool {
	switch name {
	case "Connection":
		x.close = x.close || httpguts.HeaderValuesContainsToken(values, "close")
		x.upgrade = httpguts.HeaderValuesContainsToken(values, "upgrade") && x.req.Header.Get("Upgrade") != ""
	case "Te":
		x.trailers = httpguts.HeaderValuesContainsToken(values, "trailers")
	case "Expect":
		if len(values) == 1 && !strings.EqualFold(values[0], "100-continue") {
			return false
		}
		x.expect = x.up != nil
	case "Host", "Content-Length", "Transfer-Encoding", "Trailer", "Upgrade", "Keep-Alive",
		"Proxy-Connection", "Http2-Settings":
	default:
		return false
	}
	return true
}

// layOutFraming writes the fields that are ours.
func (x *exchange) layOutFraming(method string) *Error {
	b := x.scratch.fields
	x.close = x.close || x.req.Close
	switch {
	case x.up != nil && x.up.chunked:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
		x.up.declareTrailer(x.req.Trailer)
		if len(x.up.trailer) > 0 {
			b = appendField(b, "Trailer", strings.Join(x.up.trailer, ", "))
		}
	case x.up != nil:
		b = append(strconv.AppendInt(append(b, "Content-Length: "...), x.up.length, 10), "\r\n"...)
	case method == http.MethodPost || method == http.MethodPut || method == http.MethodPatch:
		b = append(b, "Content-Length: 0\r\n"...)
	}
	if x.expect {
		b = append(b, "Expect: 100-continue\r\n"...)
	}
	if x.trailers {
		b = append(b, "Te: trailers\r\n"...)
	}
	if x.upgrade {
		for _, v := range x.req.Header["Upgrade"] {
			if !httpguts.ValidHeaderFieldValue(v) {
				return refuse("value of field Upgrade")
			}
			b = appendField(b, "Upgrade", v)
		}
	}
	x.scratch.fields = b
	x.large = len(x.scratch.line)+len(b) > largeHead
	return nil
}

// appendHead appends the request's head as it goes to s.
func (x *exchange) appendHead(b []byte, s *server) []byte {
	b = append(b, x.scratch.line...)
	b = append(append(b, s.hostFor(x.req)...), "\r\n"...)
	b = append(b, x.scratch.fields...)
	var tokens []string
	if x.upgrade {
		tokens = append(tokens, "Upgrade")
	}
	if x.trailers {
		tokens = append(tokens, "TE") // RFC 9110, 10.1.4
	}
	if !x.upgrade && (x.close || !s.reusable()) { // some servers upgrade only if it stands alone
		tokens = append(tokens, "close")
	}
	if tokens != nil {
		b = appendField(b, "Connection", strings.Join(tokens, ", "))
	}
	return append(b, "\r\n"...)
}

func appendField(b []byte, name, value string) []byte {
	b = append(append(b, name...), ": "...)
	return append(append(b, strings.Trim(value, " \t")...), "\r\n"...)
}

// idempotent reports whether sending the request twice does what sending it
// once does (RFC 9110, 9.2.2).
func (x *exchange) idempotent() bool {
	switch x.req.Method {
	case "", "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return true
	}
	return false
}

// mayRetry reports whether the request may be sent once more after a reused
// connection brought nothing.
func (x *exchange) mayRetry() bool {
	return !x.fresh && x.idempotent() && !x.up.touched() && x.ctx.Err() == nil
}

// run sends the request until a server answers.
func (x *exchange) run() (*http.Response, error) {
	defer x.putScratch()
	for {
		resp, err := x.attempt()
		if err == nil {
			return resp, nil
		}
		var e *Error
		if !errors.As(err, &e) || !e.stale || !x.mayRetry() {
			return nil, err
		}
		x.fresh = true
		x.p.counts.retries.Add(1)
	}
}

// attempt sends the request once. The caller's Dial, trace and body may panic:
// then neither the place nor the connection is lost.
func (x *exchange) attempt() (*http.Response, error) {
	var c *conn
	returned := false
	defer func() {
		if returned {
			return
		}
		if c != nil {
			c.drop()
		}
		x.leave()
	}()
	c, err := x.connect()
	if err != nil {
		returned = true
		return nil, err
	}
	if x.trace != nil && x.trace.GotConn != nil {
		x.trace.GotConn(httptrace.GotConnInfo{Conn: c.rw, Reused: c.reused})
	}
	resp, err := c.exchange(x)
	returned = true
	return resp, err
}

// leave gives the exchange's place back, if it has one.
func (x *exchange) leave() {
	s := x.at
	x.at = nil
	switch {
	case s == nil:
	case x.tunnel:
		s.tunnels.Add(-1)
		x.p.counts.tunnels.Add(-1)
	default:
		s.leave()
	}
}

// dig changes the exchange's place in flight for one of a tunnel, if there is
// one: what may last for days must not take ordinary requests' places.
func (x *exchange) dig() bool {
	s := x.at
	if s.tunnels.Add(1) > int64(x.p.cfg.MaxTunnels) {
		s.tunnels.Add(-1)
		return false
	}
	x.tunnel = true
	x.p.counts.tunnels.Add(1)
	s.leave()
	return true
}

// offered reports whether said, a 101's Upgrade, names protocols and only such
// as the request asked for (RFC 9110, 7.8).
func offered(wanted, said []string) bool {
	protocols := strings.FieldsFunc(strings.Join(said, ","), func(c rune) bool { return c == ',' || c == ' ' || c == '\t' })
	for _, protocol := range protocols {
		if !httpguts.HeaderValuesContainsToken(wanted, protocol) {
			return false
		}
	}
	return len(protocols) > 0
}

// bounded returns the time d from now, no later than Total allows; zero when
// neither bounds it.
func (x *exchange) bounded(d time.Duration) time.Time {
	if d <= 0 {
		return x.until
	}
	t := time.Now().Add(d)
	if !x.until.IsZero() && x.until.Before(t) {
		return x.until
	}
	return t
}

// within returns a context for one step of at most d, bounded by Total.
func (x *exchange) within(d time.Duration) (context.Context, context.CancelFunc) {
	if t := x.bounded(d); !t.IsZero() {
		return context.WithDeadline(x.ctx, t)
	}
	return x.ctx, func() {}
}
