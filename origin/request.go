package origin

import (
	"context"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
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
	trailers bool        // TE: trailers
	close    bool        // the caller wants the connection closed
	fresh    bool        // no reused connection any more: this is the retry
	large    bool        // its head is too long to share a connection
	relayed  atomic.Bool // the caller has seen an interim response

	begun   time.Time
	hint    Hint
	counted bool        // its turn among the servers was taken
	prefer  *server     // asked before others if it is well; nil: none
	marks   []uint8     // by server; nil: none was asked yet
	again   bool        // servers that were asked may be asked again
	sends   int         // attempts begun
	retries int         // of the budget
	held    atomic.Bool // its answer is being held back
	stuck   *server     // named by the client's cookie; nil: none
	cookie  string      // what names the server that answered, for Hint.Cookie

	at     *server // where it has a place in flight, or of a tunnel; nil: none
	probe  bool    // this attempt tries a server whose breaker is half open
	tunnel bool    // it switched protocols

	host    string      // instead of what Config.Host says
	unlink  func() bool // of a hedge: from the context of the request it is for
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
func (p *Pool) newExchange(req *http.Request, hint Hint) (*exchange, error) {
	x := &exchange{p: p, req: req, ctx: req.Context(), up: newUpload(req), begun: time.Now(), hint: hint}
	if p.cfg.Timeouts.Total > 0 {
		x.until = x.begun.Add(p.cfg.Timeouts.Total)
	}
	if p.closed.Load() {
		return x, x.named(nil, &Error{Kind: unavailable, Step: stepRequest, Err: ErrClosed})
	}
	x.trace = httptrace.ContextClientTrace(x.ctx)
	x.scratch = p.scratch.Get().(*scratch)
	if err := x.layOut(); err != nil {
		x.putScratch()
		return x, x.named(nil, err)
	}
	x.stick()
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
func (x *exchange) appendHead(b []byte, s *h1) []byte {
	b = append(b, x.scratch.line...)
	b = append(append(b, s.hostFor(x)...), "\r\n"...)
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
