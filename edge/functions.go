package edge

import (
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"

	"golang.org/x/net/http/httpguts"

	"seawall/edge/encode"
	"seawall/edge/rfc9111"
	"seawall/purge"
	"seawall/wasm"
	"seawall/wasm/abi"
)

// Details of answers that functions made, or failed to make.
const (
	detailFunction       = "function"
	detailFunctionFailed = "function-failed"
)

// called is an exchange's way through its site's viewer functions. An exchange
// keeps it for the next.
type called struct {
	ex      abi.Exchange
	run     *wasm.Run
	wrapped bool // they want the response
	out     functionWriter
}

// facts sets what functions may know of the client and its connection. What
// few of them ask for is made when they do.
func (x *exchange) facts(f *abi.Facts) {
	f.Number, f.Begun, f.Site, f.Protocol = x.requestNumber(), x.now, x.site.Name, protocol(x.r).String()
	f.Source, f.Client, f.Context = x.r.RemoteAddr, x.client(), x.r.Context()
	f.Locate, f.Settings = x.h.Locate, x.site.Settings
	if t := x.r.TLS; t != nil {
		f.TLSVersion, f.ServerName, f.MTLS = t.Version, t.ServerName, len(t.VerifiedChains) > 0
		f.ALPN, f.Cipher = t.NegotiatedProtocol, t.CipherSuite
	}
}

// callViewer runs the site's functions on the request, before its key is made.
// query is as the client sent it. It reports false when the request has its
// answer. A request in 0-RTT data waits for the handshake: what a function does
// may not be done twice (RFC 8470).
func (x *exchange) callViewer(query string) bool {
	if !x.proven() {
		return false
	}
	c := x.spare
	if c == nil {
		c = new(called)
	}
	x.called, x.spare, x.ran = c, nil, true
	r := x.r
	x.authorized, x.cookied = len(x.header["Authorization"]) > 0, len(x.header["Cookie"]) > 0
	x.facts(&c.ex.Facts)
	c.ex.Cache.TTL = -1
	c.ex.Request = abi.Message{
		Method: x.method, Scheme: x.scheme, Authority: x.authority, Target: x.path + query, Header: x.header,
	}
	var content *patientBody
	if hasContent(r) && !x.socket {
		content = &patientBody{ReadCloser: r.Body, rc: http.NewResponseController(x.w)}
		c.ex.Request.Source = content
		content.limit = x.site.Limits.Body
	}
	// They share a map with the request's own fields, which keep requests from
	// going in circles: no function may take these away.
	via, loop := r.Header["Via"], r.Header["Cdn-Loop"]
	x.exposed = encode.Exposed(r.Header, nil, r.RequestURI)
	c.run = x.site.Viewer.Begin(r.Context(), &c.ex)
	result := c.run.Request()
	if c.ex.Request.Changed || result.Verdict != wasm.Continue {
		restore(r.Header, "Via", via)
		restore(r.Header, "Cdn-Loop", loop)
	}
	content.rest()
	switch result.Verdict {
	case wasm.Failed:
		if content != nil && content.err != nil {
			x.contentBroke(content.err)
			return false
		}
		x.functionFailed(result)
		return false
	case wasm.Answered:
		x.functionAnswered()
		return false
	}
	x.replaceContent(content)
	if !x.rewritten(query) {
		return false
	}
	x.wrapResponse()
	return true
}

// restore makes lines the field's again.
func restore(h http.Header, name string, lines []string) {
	if lines == nil {
		delete(h, name)
		return
	}
	h[name] = lines
}

// rewritten takes over what the functions made of the request. What they wrote
// is normalised and checked as a client's bytes are.
func (x *exchange) rewritten(query string) bool {
	q := &x.called.ex.Request
	x.partsAdded = x.called.ex.Cache.Key
	if !q.Changed {
		return true
	}
	before := purge.URL{Scheme: x.scheme, Host: x.host, Path: x.path, Query: x.site.query.apply(query)}
	host := normalHost(x.scheme, q.Authority)
	path, query, ok := splitTarget(q.Target)
	if !ok && q.Target == "*" && q.Method == http.MethodOptions {
		path, ok = "*", true
	}
	switch {
	case !ok, len(q.Target) > x.site.maxURL, !plainTarget(q.Target):
		return x.badRewrite("target")
	case !validHost(host), x.h.sites.of(host) != x.site:
		return x.badRewrite("authority")
	case !httpguts.ValidHeaderFieldName(q.Method), q.Method == http.MethodConnect:
		return x.badRewrite("method")
	}
	x.method, x.authority, x.host = q.Method, q.Authority, host
	x.path, x.query = normalPath(path), x.site.query.apply(query)
	x.header = q.Header
	if before.Host != x.host || before.Path != x.path || before.Query != x.query {
		x.viewer = before
	}
	return true
}

// plainTarget reports whether a target has no byte that would end the request
// line, or that the strict heads of clients may not have.
func plainTarget(target string) bool {
	for i := 0; i < len(target); i++ {
		if target[i] <= ' ' || target[i] == 0x7f {
			return false
		}
	}
	return target != ""
}

func (x *exchange) badRewrite(what string) bool {
	x.h.words.say(levelFault, "a function's rewrite is refused", "site", x.site.Name, "what", what, "target", clip(x.called.ex.Request.Target),
		"authority", clip(x.called.ex.Request.Authority), "hint", "a function may not leave its site, and must write a valid method, authority and target")
	x.status.detail = detailFunctionFailed
	x.fail(http.StatusServiceUnavailable, "proxy_internal_error")
	return false
}

// functionFailed answers for a function that failed closed. What the guest
// said stays in the log.
func (x *exchange) functionFailed(result wasm.Result) {
	switch result.Status {
	case http.StatusRequestEntityTooLarge:
		x.fault(FaultLimit)
		x.refuse(result.Status, "body-limit")
	case http.StatusBadRequest:
		x.fault(FaultMalformed)
		x.refuse(result.Status, "bad-content")
	default:
		x.h.words.say(levelFault, "function failed", "site", x.site.Name, "function", result.Function, "why", result.Reason)
		x.status.detail = detailFunctionFailed
		x.fail(http.StatusServiceUnavailable, "proxy_internal_error")
	}
}

// contentBroke answers when the client's content ended early while functions
// waited for it.
func (x *exchange) contentBroke(err error) {
	var tooLarge *http.MaxBytesError
	x.w.Header()["Connection"] = []string{"close"}
	switch {
	case errors.As(err, &tooLarge):
		x.fault(FaultLimit)
		x.refuse(http.StatusRequestEntityTooLarge, "body-limit")
	case stalled(err):
		x.fault(FaultStalledWrite)
		x.refuse(http.StatusRequestTimeout, "stalled-content")
	case x.r.Context().Err() != nil:
		x.gone()
	default:
		x.fault(FaultMalformed)
		x.refuse(http.StatusBadRequest, "bad-content")
	}
}

// functionStopped answers when a function stopped the content on its way to
// the origin. It reports false when none did.
func (x *exchange) functionStopped() bool {
	c := x.called
	if c == nil {
		return false
	}
	stopped := c.run.Stopped()
	if stopped == nil {
		return false
	}
	x.status = cacheStatus{}
	if stopped.Verdict != wasm.Answered {
		x.functionFailed(stopped.Result)
		return true
	}
	if c.wrapped { // functionAnswered calls them itself
		x.w, c.wrapped = c.out.ResponseWriter, false
	}
	x.functionAnswered()
	return true
}

// functionAnswered sends what a function answered instead of the node.
func (x *exchange) functionAnswered() {
	c := x.called
	x.outcome = Local
	x.status.detail = detailFunction
	c.ex.Cache.Status = x.outcome.String()
	if result := c.run.Response(); result.Verdict == wasm.Failed {
		x.functionFailed(result)
		return
	}
	m := &c.ex.Response
	if m.Status < 200 || m.Status > 599 {
		x.functionFailed(wasm.Result{Function: detailFunction, Reason: "status"})
		return
	}
	h := x.w.Header()
	for name, lines := range rfc9111.EndToEnd(m.Header) {
		h[name] = lines
	}
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // net/http would guess one
	}
	if !bodyAllowed(m.Status) {
		delete(h, "Content-Length")
	}
	body := c.run.ResponseBody(m.Source)
	x.leaveContent()
	x.head(m.Status)
	if x.method == http.MethodHead || body == nil || !bodyAllowed(m.Status) {
		return
	}
	if err := copyOut(x.w, body, &x.bytes); err != nil {
		panic(http.ErrAbortHandler)
	}
}

// copyOut sends content to the client, each piece as it comes and in its time,
// and counts it.
func copyOut(w http.ResponseWriter, from io.Reader, count *int64) error {
	rc := http.NewResponseController(w)
	buffer := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buffer)
	for {
		n, err := from.Read(*buffer)
		if n > 0 {
			_ = rc.SetWriteDeadline(time.Now().Add(writeStall)) // not every writer has one
			sent, err := w.Write((*buffer)[:n])
			*count += int64(sent)
			if err == nil {
				err = rc.Flush()
			}
			if err != nil && !errors.Is(err, http.ErrNotSupported) {
				return err
			}
			_ = rc.SetWriteDeadline(time.Time{})
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// replaceContent makes what the functions left of the content the request's.
func (x *exchange) replaceContent(content *patientBody) {
	c := x.called
	source := c.ex.Request.Source
	if source == nil {
		return
	}
	body := struct {
		io.Reader
		io.Closer
	}{source, x.r.Body}
	wants := c.run.WantsRequestBody()
	if !wants && !c.ex.Request.Replaced {
		if source != io.Reader(content) {
			x.r.Body = body
		}
		return
	}
	x.r.Body = c.run.RequestBody(body)
	x.r.ContentLength = -1
	if n, err := strconv.ParseInt(c.ex.Request.Header.Get("Content-Length"), 10, 64); !wants && err == nil && n >= 0 {
		x.r.ContentLength = n
	}
	delete(x.header, "Content-Length")
}

// patientBody gives the client's content its time while functions wait for it.
type patientBody struct {
	io.ReadCloser
	rc    *http.ResponseController
	limit int64
	read  int64
	later bool // somebody else times the reads now
	err   error
}

func (b *patientBody) Read(p []byte) (int, error) {
	if b.later {
		return b.ReadCloser.Read(p)
	}
	_ = b.rc.SetReadDeadline(time.Now().Add(bodyStall)) // not every connection has one
	n, err := b.ReadCloser.Read(p)
	b.read += int64(n)
	if b.limit > 0 && b.read > b.limit {
		err = &http.MaxBytesError{Limit: b.limit}
	}
	if err != nil && err != io.EOF {
		b.err = err
	}
	if err == io.EOF {
		_ = b.rc.SetReadDeadline(time.Time{})
	}
	return n, err
}

// rest lets others time the reads.
func (b *patientBody) rest() {
	if b != nil {
		b.later = true
		_ = b.rc.SetReadDeadline(time.Time{})
	}
}

// endCalled lets the functions go, after the answer was sent or given up.
func (x *exchange) endCalled() {
	c := x.called
	if c == nil {
		return
	}
	if c.wrapped {
		c.out.abandon()
	}
	if c.run != nil {
		c.run.End()
	}
	*c = called{}
	x.called, x.spare = nil, c
}

// functionNames are those that ran for the request, for the access log.
func (x *exchange) functionNames() string {
	viewer, origin := "", ""
	if x.ran {
		viewer = x.site.viewerNames
	}
	if x.origin != nil {
		origin = x.site.originNames
	}
	if viewer != "" && origin != "" {
		return viewer + "," + origin
	}
	return viewer + origin
}

// completeCalled ends a response that the walk has written whole. One that the
// client does not have whole is broken off, so that nobody takes it for whole.
func (x *exchange) completeCalled() {
	if x.called == nil || !x.called.wrapped {
		return
	}
	if x.called.out.complete() != nil {
		panic(http.ErrAbortHandler)
	}
}

// originFacts are what origin functions may know; nil when there are none.
func (x *exchange) originFacts() *abi.Facts {
	if x.site.OriginFunctions == nil {
		return nil
	}
	f := new(abi.Facts)
	x.facts(f)
	return f
}

// stalled reports whether a read ended because nothing came in time.
func stalled(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
