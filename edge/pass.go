package edge

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"seawall/edge/rfc9111"
	"seawall/edge/store"
)

// bodyStall is how long a client may send nothing of its content.
const bodyStall = 30 * time.Second

// copyBuffers are what passing answers are copied with.
var copyBuffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// pass goes to the origin for this client alone, and streams both ways. With
// a claim the response may be stored beside.
func (x *exchange) pass(claim *store.Claim[Meta]) {
	ctx, cancel := context.WithCancel(x.r.Context())
	defer cancel()
	gate := &hintGate{x: x}
	defer gate.close()
	x.origin = new(server)
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got1xxResponse: gate.relay, GotConn: x.origin.got})
	out := x.outgoing(ctx)
	x.prepare(out, claim)
	hint := x.originHint(claim == nil && !x.mayUpdate())
	x.uncached = hint.Uncached
	if claim != nil {
		hint.Cookie = new(string)
		x.cookie = hint.Cookie
	}
	if claim == nil && (x.mayStoreForGet() || x.mayUpdate()) {
		claim = x.h.Store.Claim(x.hash, x.key)
		defer x.h.Store.Drop(claim)
	}
	defer func() { x.content.end() }()
	asked := time.Now()
	resp, err := x.site.roundTrip(out, hint, x.originFacts())
	gate.close()
	x.originTime = time.Since(asked)
	if err != nil {
		x.failPass(err)
		return
	}
	x.content.rest()
	x.asked = asked
	if x.socket {
		x.relaySocket(resp)
		return
	}
	if x.answeredStale(resp) {
		return
	}
	x.relay(resp, claim, "")
}

// mayStoreForGet reports whether the answer to a POST might be stored for
// later GETs (RFC 9110, 9.3.3).
func (x *exchange) mayStoreForGet() bool {
	return x.method == http.MethodPost && !x.policy.Bypass && !x.directives.NoStore
}

// mayUpdate reports whether the answer to a HEAD might refresh what is stored.
// What was purged since it was asked must not come back by it.
func (x *exchange) mayUpdate() bool { return x.method == http.MethodHead && x.object != nil }

// prepare gives the outgoing request its content, and what the way it goes
// asks for.
func (x *exchange) prepare(out *http.Request, claim *store.Claim[Meta]) {
	if claim != nil {
		x.shareable(out)
		return
	}
	if x.socket {
		x.prepareSocket(out)
		return
	}
	if upgrades(x.r) {
		out.Header["Connection"] = []string{"Upgrade"}
		out.Header["Upgrade"] = x.r.Header["Upgrade"]
	}
	if x.method == http.MethodHead && !x.policy.Bypass {
		x.codings(out.Header)
	}
	if !hasContent(x.r) {
		return
	}
	out.ContentLength = x.r.ContentLength
	out.Trailer = x.r.Trailer
	var content io.ReadCloser = x.r.Body
	if limit := x.site.Limits.Body; limit > 0 {
		// Without the ResponseWriter: this is read on the origin's goroutine.
		content = http.MaxBytesReader(nil, content, limit)
	}
	rc := http.NewResponseController(x.w)
	x.content = &clientBody{ReadCloser: content, rc: rc}
	out.Body = x.content
	if x.r.ProtoMajor == 1 {
		_ = rc.EnableFullDuplex() // only HTTP/1 needs it
	}
}

// clientBody remembers that the client's content broke: that is the client's
// fault, not the origin's.
type clientBody struct {
	io.ReadCloser
	rc    *http.ResponseController
	broke atomic.Bool
	slow  atomic.Bool // it broke because nothing came for bodyStall

	reading sync.Mutex // held by a Read under way; before mu
	mu      sync.Mutex
	closed  bool // guarded by mu, as is the connection's read deadline
	begun   bool // guarded by mu: the answer has
	whole   bool // guarded by mu
}

// Close ends a Read that waits for the client. It reads nothing more: what is
// left of the content may never come.
func (b *clientBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil
	}
	b.closed = true
	if b.whole {
		return nil // net/http watches the connection now: it must not be told to stop
	}
	_ = b.rc.SetReadDeadline(time.Now()) // not every connection has one; then it is net/http's to end
	return nil
}

// end returns when no Read is under way, and lets none begin: net/http must
// have the connection for itself when the handler returns.
func (b *clientBody) end() {
	if b == nil {
		return
	}
	_ = b.Close()    // it does not fail
	b.reading.Lock() // a Read that begins after this finds it closed
	defer b.reading.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.whole {
		// net/http drains some of it, so that a client still sending can read
		// the answer, and closes the connection, as head said.
		_ = b.rc.SetReadDeadline(time.Now().Add(time.Second))
	}
}

// arm gives the next Read its time; false when there must be none.
func (b *clientBody) arm() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false
	}
	if !b.begun {
		_ = b.rc.SetReadDeadline(time.Now().Add(bodyStall)) // not every connection has one
	}
	return true
}

// rest lets the client send at its own pace, once the answer has begun: the
// two may be a conversation.
func (b *clientBody) rest() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.begun = true
	if !b.closed {
		_ = b.rc.SetReadDeadline(time.Time{})
	}
}

// unread reports whether some of the content has not been read.
func (b *clientBody) unread() bool {
	if b == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.whole
}

// complete notes the end: net/http goes on to watch the connection for its
// client's leaving, without a deadline.
func (b *clientBody) complete() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.whole = true
	_ = b.rc.SetReadDeadline(time.Time{})
}

func (b *clientBody) Read(p []byte) (int, error) {
	b.reading.Lock()
	defer b.reading.Unlock()
	if !b.arm() {
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		b.complete()
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		b.slow.Store(true)
	}
	if err != nil && err != io.EOF {
		b.broke.Store(true)
	}
	return n, err
}

// failPass answers when no response came.
func (x *exchange) failPass(err error) {
	if x.functionStopped() {
		return
	}
	var tooLarge *http.MaxBytesError
	var stopped *functionError
	switch {
	case errors.As(err, &stopped) && stopped.Status == http.StatusRequestEntityTooLarge:
		x.functionFailed(stopped.Result)
	case errors.As(err, &tooLarge):
		x.fault(FaultLimit)
		if x.r.ProtoMajor == 1 {
			x.w.Header()["Connection"] = []string{"close"} // what is left of the content is not read
		}
		x.refuse(http.StatusRequestEntityTooLarge, "body-limit")
	case x.content != nil && x.content.slow.Load():
		// Before the context: net/http ends it with the connection's reads.
		x.fault(FaultStalledWrite)
		x.refuse(http.StatusRequestTimeout, "stalled-content")
	case x.r.Context().Err() != nil:
		x.gone()
	case x.content != nil && x.content.broke.Load():
		x.fault(FaultMalformed)
		x.refuse(http.StatusBadRequest, "bad-content")
	case x.object != nil && x.h.mayServeOnError(x.object, x.terms, &x.ask, time.Now(), 0, x.policy.StaleIfUnreachable):
		x.serveStaleOnError(0)
	default:
		x.failOrigin(err)
	}
}

// failOrigin answers with the error that kept the origin's response away.
func (x *exchange) failOrigin(err error) {
	kind := "destination_unavailable"
	var named interface{ ProxyStatus() string }
	if errors.As(err, &named) {
		kind = named.ProxyStatus()
	}
	status := http.StatusBadGateway
	if errors.Is(err, store.ErrPanic) {
		status, kind = http.StatusInternalServerError, "proxy_internal_error"
	}
	switch kind {
	case "connection_timeout", "dns_timeout", "http_response_timeout":
		status = http.StatusGatewayTimeout
	case "connection_limit_reached", "proxy_internal_error":
		status = http.StatusServiceUnavailable
	}
	if x.object != nil && (x.terms.Validate || x.terms.MustRevalidate) && unanswered(err) && !overloaded(err) {
		status = http.StatusGatewayTimeout // RFC 9111, 5.2.2.2
	}
	if after := retryAfter(err); after != "" {
		x.w.Header()["Retry-After"] = []string{after}
	}
	x.h.words.say(slog.LevelWarn, "origin failed", "site", x.site.Name, "url", clip(x.url()), "err", err)
	x.fail(status, kind)
}

// unanswered reports whether no byte of a response came.
func unanswered(err error) bool {
	var e interface{ Unanswered() bool }
	return errors.As(err, &e) && e.Unanswered()
}

// answeredStale answers a HEAD from the store when the origin gave an error
// that the stored response's terms cover.
func (x *exchange) answeredStale(resp *http.Response) bool {
	now := time.Now()
	if x.object == nil || x.terms.Fresh(now) || !x.h.mayServeOnError(x.object, x.terms, &x.ask, now, resp.StatusCode, 0) {
		return false
	}
	resp.Body.Close()
	x.serveStaleOnError(resp.StatusCode)
	return true
}

func (x *exchange) serveStaleOnError(status int) {
	x.outcome = Stale
	x.fwdKnown = status
	x.status.detail = detailStaleIfError
	o := x.object
	h := x.w.Header()
	h["Age"] = x.h.age(&x.terms, time.Now())
	if len(o.Meta.upstream) > 0 {
		h["Cache-Status"] = o.Meta.upstream
	}
	x.send(o, o.Body, nil)
}

// relay sends an origin's response to this client alone. why tells why it is
// not shared, "" when that is still to be judged.
func (x *exchange) relay(resp *http.Response, claim *store.Claim[Meta], why rfc9111.Reason) {
	defer resp.Body.Close()
	got := time.Now()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		x.switchProtocols(resp)
		return
	}
	x.effects(resp, claim, got)
	draft := x.draft(resp, claim, got)
	defer draft.drop() // it may be published before
	if why != "" {
		x.status.detail = string(why)
	}
	x.codeOnTheWay(true)
	h := x.w.Header()
	for name, values := range clean(resp.Header, resp.ProtoMajor, resp.ProtoMinor, got) {
		h[name] = values
	}
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // net/http would guess one
	}
	if draft == nil {
		x.private(h)
	}
	announced := slices.Sorted(maps.Keys(resp.Trailer))
	if len(announced) > 0 {
		h["Trailer"] = announced
	}
	if resp.ContentLength >= 0 && len(resp.Trailer) == 0 && bodyAllowed(resp.StatusCode) {
		h["Content-Length"] = []string{strconv.FormatInt(resp.ContentLength, 10)}
	}
	if x.fwdKnown == 0 {
		x.fwdKnown = resp.StatusCode
	}
	if resp.StatusCode == http.StatusPartialContent && x.status.detail == "" {
		x.status.detail = string(rfc9111.ReasonPartial)
	}
	if resp.StatusCode == http.StatusNotModified {
		x.retag(h)
	}
	x.head(resp.StatusCode)
	if x.method != http.MethodHead {
		x.copy(resp, draft)
	}
	trailer := resp.Trailer
	if x.coding() {
		trailer = undigested(trailer)
	}
	for name, values := range trailer {
		if !slices.Contains(announced, name) {
			name = http.TrailerPrefix + name
		}
		h[name] = values
	}
	if draft != nil {
		draft.publish()
	}
}

func bodyAllowed(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}

// copy streams the response's content, flushing what has arrived.
func (x *exchange) copy(resp *http.Response, d *draft) {
	rc := http.NewResponseController(x.w)
	defer rc.SetWriteDeadline(time.Time{})
	buffer := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buffer)
	here := arrived(resp.Body)
	if resp.ContentLength < 0 || here < resp.ContentLength { // else nothing waits for the origin
		stop := context.AfterFunc(x.r.Context(), func() { resp.Body.Close() })
		defer stop()
	}
	if resp.ContentLength != 0 && here == 0 {
		_ = rc.Flush() // the header must not wait for slow content
	}
	body, waits := io.Reader(resp.Body), func() bool { return true }
	if x.coding() {
		a := readAhead(resp.Body)
		defer a.stop()
		body, waits = a, a.waits
	}
	for {
		n, err := body.Read(*buffer)
		if n > 0 {
			_ = rc.SetWriteDeadline(time.Now().Add(writeStall)) // not every writer has one
			if d != nil {
				d.write((*buffer)[:n])
			}
			if !x.write((*buffer)[:n]) {
				d.drop()
				return
			}
			if waits() {
				_ = rc.Flush() // a client that is gone shows at the next write
			}
			_ = rc.SetWriteDeadline(time.Time{}) // in HTTP/2 it would end the stream while the origin is waited for
		}
		if err == io.EOF {
			return
		}
		if err != nil {
			d.drop()
			x.broken(err)
		}
	}
}

// arrived returns how many bytes of a response's body have come with its head,
// and can be read without waiting; 0 when that is not known.
func arrived(body io.Reader) int64 {
	if b, ok := body.(interface{ Buffered() int }); ok {
		return int64(b.Buffered())
	}
	return 0
}

// effects does to the store what an answer to a method other than GET means:
// unsafe methods invalidate (RFC 9111, 4.4), HEAD updates (4.3.5).
func (x *exchange) effects(resp *http.Response, claim *store.Claim[Meta], got time.Time) {
	if rfc9111.Invalidates(x.method, resp.StatusCode) {
		x.h.invalidate(x.key, claim)
		for _, url := range rfc9111.AlsoInvalid(x.url(), resp.Header) {
			if key, ok := x.site.keyOf(url); ok {
				x.h.invalidate(key, nil)
			}
		}
	}
	if x.method == http.MethodHead && x.object != nil {
		x.headEffect(resp, claim, got)
	}
}

func (x *exchange) headEffect(resp *http.Response, claim *store.Claim[Meta], got time.Time) {
	o := x.object
	stored := o.Meta.header()
	stored["Content-Length"] = []string{strconv.FormatInt(o.Body.Size(), 10)}
	switch rfc9111.HeadUpdate(stored, resp.Header, resp.StatusCode) {
	case rfc9111.HeadInvalidates:
		o.Invalidate()
	case rfc9111.HeadRefreshes:
		f := &flight{h: x.h, site: x.site, policy: x.policy, ask: x.ask}
		fresh := clean(resp.Header, resp.ProtoMajor, resp.ProtoMinor, got)
		delete(fresh, "Via")
		merged := rfc9111.Merge(o.Meta.header(), fresh)
		hidden := hiddenOf(resp.Header, o.Meta.hidden)
		policy := x.site.policyFor(x.path, x.header, o.Meta.Status)
		d := rfc9111.Judge(f.asked(), o.Meta.Status, withHidden(merged, hidden), x.asked, got, judgedBy(resp, policy.options))
		v, ok := f.variantOf(merged)
		if x.directives.NoStore || d.Why == rfc9111.ReasonCookie || d.Why == rfc9111.ReasonAuthorization {
			return // what the request may not store says nothing of the object
		}
		tags := renewedTags(resp.Header, o)
		if !d.Store || !ok || len(tags) > maxTags {
			x.h.Store.Discard(o)
			return
		}
		renewed := newObject(o.Meta.Status, merged, d, v, &f.ask, got)
		renewed.Meta.describe(renewed, claim.Key(), &f.ask, hidden, tags)
		x.site.face(renewed, merged, o.Body.Size())
		x.h.Store.Refresh(claim, o, renewed)
	}
}

// draft is a response being stored beside its way to the client.
type draft struct {
	x      *exchange
	claim  *store.Claim[Meta]
	object *Object
	body   *store.Draft[Meta]
}

// draft judges a response for which there is a claim; nil when it is not to
// be stored.
func (x *exchange) draft(resp *http.Response, claim *store.Claim[Meta], got time.Time) *draft {
	if claim == nil {
		return nil
	}
	if x.uncached && len(resp.Header["Set-Cookie"]) > 0 {
		return nil // the origin was told that it may add a cookie for this client alone
	}
	policy := x.site.policyFor(x.path, x.header, resp.StatusCode)
	f := &flight{h: x.h, site: x.site, policy: x.policy, ask: x.ask}
	d := rfc9111.Judge(x.forJudge(x.method), resp.StatusCode, resp.Header, x.asked, got, judgedBy(resp, policy.options))
	header := clean(resp.Header, resp.ProtoMajor, resp.ProtoMinor, got)
	v, ok := f.variantOf(header)
	if !ok && d.Store {
		d.Store, d.Why = false, rfc9111.ReasonVaryAny
	}
	if d.Store && endless(resp.Header) {
		d.Store, d.Why = false, "stream"
	}
	if policy.Bypass || !d.Store {
		if x.method == http.MethodGet {
			x.status.detail = string(d.Why)
		}
		return nil
	}
	tags := tagsOf(resp.Header)
	if len(tags) > maxTags || !x.h.Store.Holds(claim) {
		return nil
	}
	body := x.h.Store.Draft(claim, resp.ContentLength)
	if body == nil {
		if resp.ContentLength > x.h.Store.MaxObject() {
			x.status.detail = detailTooLarge
		}
		return nil
	}
	o := newObject(resp.StatusCode, header, d, v, &x.ask, got)
	o.Meta.describe(o, claim.Key(), &x.ask, hiddenOf(resp.Header, nil), tags)
	x.site.face(o, header, resp.ContentLength)
	if x.h.Store.Outdated(claim, o) {
		body.Drop()
		x.status.detail = detailPurged
		return nil
	}
	x.status.stored = true
	if x.h.Store.Crowds(claim, o.Selector) {
		x.status.detail = detailManyVariants
		x.h.crowded(x.site, x.url(), v.Names())
	}
	return &draft{x: x, claim: claim, body: body, object: o}
}

func (d *draft) write(p []byte) {
	if !d.body.Write(p) {
		d.body.Drop()
	}
}

func (d *draft) drop() {
	if d != nil {
		d.body.Drop()
	}
}

func (d *draft) publish() {
	if d.object.Body = d.body.Body(); d.object.Body != nil {
		if d.x.h.Store.Publish(d.claim, d.object) {
			for _, f := range d.object.Meta.Fields {
				if f.Name == "No-Vary-Search" {
					d.x.h.learn(d.x.key, http.Header{f.Name: f.Values})
				}
			}
		}
	}
}

// hintGate relays interim responses while the origin is waited for. They come
// on the origin's goroutine: none may touch the answer once it has begun.
type hintGate struct {
	mu     sync.Mutex
	closed bool
	x      *exchange
}

func (g *hintGate) relay(code int, h textproto.MIMEHeader) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed && code != http.StatusContinue {
		g.x.hint(hint{code, http.Header(h)})
	}
	return nil
}

func (g *hintGate) close() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
}

// switchProtocols joins the client's connection to the origin's after a 101
// (RFC 9110, 7.8), until either ends.
func (x *exchange) switchProtocols(resp *http.Response) {
	origin, ok := resp.Body.(io.ReadWriteCloser)
	if !upgrades(x.r) {
		x.fail(http.StatusBadGateway, "http_protocol_error") // nobody asked for it
		return
	}
	if !ok {
		x.fail(http.StatusBadGateway, "http_upgrade_failed")
		return
	}
	h := x.w.Header()
	for name, values := range clean(resp.Header, resp.ProtoMajor, resp.ProtoMinor, time.Now()) {
		h[name] = values
	}
	h["Connection"] = []string{"Upgrade"}
	h["Upgrade"] = slices.Clone(resp.Header["Upgrade"])
	x.fwdKnown = resp.StatusCode
	x.head(http.StatusSwitchingProtocols)
	conn, buffered, err := http.NewResponseController(x.w).Hijack()
	if err != nil {
		x.status.detail = "no-upgrade"
		return
	}
	defer conn.Close()
	x.h.wait.Add(1)
	defer x.h.wait.Done()
	stop := context.AfterFunc(x.h.ctx, func() { conn.Close(); origin.Close() })
	defer stop()
	var wait sync.WaitGroup
	wait.Go(func() {
		_, _ = io.Copy(origin, buffered) // an end in either way is the end
		if half, ok := origin.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		} else {
			origin.Close()
		}
	})
	x.bytes, _ = io.Copy(conn, origin)
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	} else {
		conn.Close()
	}
	origin.Close()
	conn.Close()
	wait.Wait()
}
