package edge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"time"

	"seawall/edge/rfc9111"
	"seawall/edge/store"
	"seawall/wasm/abi"
)

const (
	// maxRounds is how often a request looks again because what it waited for
	// was not for it. Then it goes alone.
	maxRounds = 4
	// maxBehind bounds the refreshes of a site under way behind clients' backs: of
	// each site, so that a slow origin does not keep those of others waiting.
	maxBehind = 256
	// renewPause is the least time between two refreshes of one object.
	renewPause = time.Second
	// rangeAhead is how far ahead of a fill a range may begin and still wait
	// for it.
	rangeAhead = 8 << 20
	// maxHints bounds the interim responses kept for a leader.
	maxHints = 16
)

// errClientGone ends the wait of a client that left.
var errClientGone = errors.New("edge: client gone")

// fetch answers an expired or missing object: it joins the fill that will
// bring it, or leads one.
func (x *exchange) fetch() {
	for range maxRounds {
		if x.directives.NoStore {
			// A stored response might have answered; nothing may be left behind.
			x.status.detail = string(rfc9111.ReasonRequestNoStore)
			x.pass(nil)
			return
		}
		if x.method == http.MethodHead {
			x.pass(nil)
			return
		}
		seat, role := x.h.Store.Join(store.Want[Meta]{
			Hash: x.hash, Key: x.key, Ask: &x.ask, Seen: x.object,
			MayLead: x.mayLead(), Now: x.now,
		})
		switch role {
		case store.Alone:
			x.alone()
			return
		case store.Lead:
			x.late = false
			f := x.newFlight(seat)
			x.h.wait.Go(f.run)
			if x.await(seat, f, true) {
				return
			}
		case store.Follow:
			x.late = isReady(seat)
			if x.await(seat, nil, false) {
				return
			}
		}
		if x.again() {
			return
		}
	}
	x.alone()
}

// again looks a further time; it reports true when that answered.
func (x *exchange) again() bool {
	x.now = time.Now()
	switch x.judge(x.h.Store.Find(x.hash, x.key, &x.ask)) {
	case Stale:
		x.renewBehind()
		fallthrough
	case Hit:
		x.status.fwd = ""
		x.serveHit()
		return true
	case Local:
		x.refuse(http.StatusGatewayTimeout, detailOnlyIfCached)
		return true
	}
	return false
}

// mayLead reports whether the request may begin a fill. One that asks for a
// part does not pull the whole of what is not stored yet.
func (x *exchange) mayLead() bool {
	return x.object != nil || len(x.header["Range"]) == 0
}

// alone goes to the origin for this client, though the response may be stored.
func (x *exchange) alone() {
	if len(x.header["Range"]) > 0 && x.object == nil {
		x.pass(nil)
		return
	}
	if rfc9111.Conditional(x.header) {
		x.pass(nil)
		return
	}
	claim := x.h.Store.Claim(x.hash, x.key)
	defer x.h.Store.Drop(claim)
	x.pass(claim)
}

// await waits for a fill and answers with what it brings. It returns false
// when that was not for this request.
func (x *exchange) await(seat *store.Seat[Meta], f *flight, leads bool) bool {
	defer seat.Leave()
	taken := false
	defer func() {
		if f != nil && !taken {
			close(f.left)
		}
	}()
	if err := x.wait(seat, f); err != nil {
		x.gone()
		return true
	}
	note, ok := seat.Note.(*flight)
	if !ok { // its leader broke down before it could say more
		note = &flight{}
	}
	x.origin = &note.origin
	x.status.collapsed = !leads
	switch {
	case seat.Err() != nil:
		x.failOrigin(seat.Err())
		return true
	case seat.Refused():
		x.status.collapsed = false
		if !leads {
			seat.Leave()
			x.alone()
			return true
		}
		x.originTime = f.took
		x.fwdKnown = f.status
		x.cookie = f.hint.Cookie
		resp := <-f.handoff
		taken = true
		x.relay(resp, nil, f.why)
		return true
	}
	o := seat.Object()
	if !leads && !x.Accepts(o) {
		x.known = true
		x.status.collapsed = false
		return false
	}
	if note.status == http.StatusOK && x.tooFarAhead(o) {
		seat.Leave()
		x.status.collapsed = false
		x.pass(nil)
		return true
	}
	x.deliver(seat, note)
	if x.renew { // it is told what became of it
		select {
		case <-seat.Context().Done():
		case <-x.r.Context().Done():
		}
	}
	return true
}

func isReady(seat *store.Seat[Meta]) bool {
	select {
	case <-seat.Ready():
		return true
	default:
		return false
	}
}

// tooFarAhead reports whether the client wants a range that a fill reaches
// much later.
func (x *exchange) tooFarAhead(o *Object) bool {
	size := o.Body.Size()
	if len(x.header["Range"]) == 0 || o.Body.Complete() || x.object != nil {
		return false
	}
	if size < 0 {
		return false
	}
	ranges, answer := rfc9111.Ranges(x.method, x.header, size)
	return answer == rfc9111.RangePartial && ranges[0].Start > o.Body.Have()+rangeAhead
}

// wait returns when the fill is ready, relaying interim responses to its
// leader. It fails when the client has left.
func (x *exchange) wait(seat *store.Seat[Meta], f *flight) error {
	var hints chan hint
	if f != nil {
		hints = f.hints
	}
	for {
		select {
		case h := <-hints:
			x.hint(h)
		case <-seat.Ready():
			for {
				select {
				case h := <-hints:
					x.hint(h)
					continue
				default:
				}
				return nil
			}
		case <-x.r.Context().Done():
			return errClientGone
		}
	}
}

// gone ends an exchange whose client left before an answer.
func (x *exchange) gone() {
	x.outcome = Fault
	x.status.detail = "client-gone"
	panic(http.ErrAbortHandler)
}

// deliver answers with the object of a fill.
func (x *exchange) deliver(seat *store.Seat[Meta], f *flight) {
	o := seat.Object()
	h := x.w.Header()
	x.fwdKnown = f.status
	x.status.detail = f.detail
	x.originTime = f.took
	x.status.stored = f.stored && !x.status.collapsed
	if f.reused {
		h["Age"] = x.h.age(&o.Meta.Terms, time.Now())
		if f.detail != "" {
			x.outcome = Stale
		}
	} else if x.late {
		// It is not the answer to a request made meanwhile (RFC 9111, 4).
		h["Age"] = x.h.age(&o.Meta.Terms, time.Now())
	} else if len(o.Meta.age) > 0 {
		h["Age"] = o.Meta.age
	}
	if len(o.Meta.upstream) > 0 {
		h["Cache-Status"] = o.Meta.upstream
	}
	x.send(o, seat, nil)
}

// hint is an interim response.
type hint struct {
	code   int
	header http.Header
}

// hint relays an interim response, to HTTP/1.1 and later only (RFC 9110,
// 15.2). Its fields do not stay for the final response.
func (x *exchange) hint(i hint) {
	if !x.r.ProtoAtLeast(1, 1) || i.code <= http.StatusSwitchingProtocols {
		return
	}
	h := x.w.Header()
	fields := rfc9111.EndToEnd(i.header)
	for name, values := range fields {
		h[name] = values
	}
	rc := http.NewResponseController(x.w)
	_ = rc.SetWriteDeadline(time.Now().Add(writeStall)) // not every writer has one
	x.w.WriteHeader(i.code)
	_ = rc.SetWriteDeadline(time.Time{})
	for name := range fields {
		delete(h, name)
	}
}

// flight is one fetch for a fill. Its goroutine writes the fields before the
// fill is ready, and they are only read after.
type flight struct {
	h      *Handler
	site   *site
	policy *policy
	ask    ask
	fill   *store.Fill[Meta]
	out    *http.Request
	hint   Hint
	seen   *Object       // what is stored, nil if none
	terms  rfc9111.Terms // seen's
	asks   bool          // the request has seen's conditions
	key    []byte
	hash   store.Hash

	hints   chan hint
	handoff chan *http.Response // gives a refused response to the leader
	left    chan struct{}       // closed when the leader leaves before that

	status int            // the origin's, 0 without an answer
	why    rfc9111.Reason // why it is not stored
	detail string
	stored bool
	reused bool // the object is the one stored before, confirmed or stale
	took   time.Duration
	origin server
	facts  *abi.Facts // for functions; nil without any
}

// newFlight prepares the fetch that seat leads.
func (x *exchange) newFlight(seat *store.Seat[Meta]) *flight {
	ready := false
	defer func() {
		if !ready { // a panic: those who wait must not wait for ever
			seat.Fail(store.ErrPanic)
		}
	}()
	f := &flight{
		h: x.h, site: x.site, policy: x.policy, ask: x.ask, fill: seat.Fill,
		key: slices.Clone(x.key), hash: x.hash,
		hints: make(chan hint, maxHints), handoff: make(chan *http.Response), left: make(chan struct{}),
	}
	// A reload must not end what the next handler's clients follow: only the
	// fill's own end does.
	ctx := httptrace.WithClientTrace(seat.Context(), &httptrace.ClientTrace{
		GotConn: f.origin.got,
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			select {
			case f.hints <- hint{code, http.Header(h).Clone()}:
			default: // no leader takes them: they are only hints
			}
			return nil
		},
	})
	f.out = x.outgoing(ctx)
	x.shareable(f.out)
	f.hint = x.originHint(false)
	f.hint.Cookie = new(string)
	seat.Note = f
	f.facts = x.originFacts()
	// What was purged since the look-up is not even asked about.
	if f.seen, f.terms = x.object, x.terms; f.seen != nil && !x.h.purged(f.seen) {
		f.asks = rfc9111.SetConditions(f.out.Header, f.seen.Meta.header())
	}
	ready = true
	return f
}

// renewBehind begins a refresh of a stale object, unless one runs already.
// The client does not wait for it.
func (x *exchange) renewBehind() {
	o := x.object
	if x.directives.NoStore || !o.TryRenew(x.now) {
		return
	}
	if x.site.behind.Add(1) > maxBehind {
		x.site.behind.Add(-1)
		o.Renewed(x.now)
		return
	}
	seat, role := x.h.Store.Join(store.Want[Meta]{
		Hash: x.hash, Key: x.key, Ask: &x.ask, Seen: o, MayLead: true, Behind: true, Now: x.now,
	})
	if role != store.Lead {
		if seat != nil {
			seat.Leave()
		}
		x.site.behind.Add(-1)
		o.Renewed(x.now)
		return
	}
	started := false
	defer func() {
		if !started { // a panic
			seat.Leave()
			x.site.behind.Add(-1)
			o.Renewed(x.now)
		}
	}()
	f := x.newFlight(seat)
	started = true
	close(f.left)
	seat.Leave()
	site := x.site // the exchange is another's by the time the refresh ends
	x.h.wait.Go(func() {
		defer site.behind.Add(-1)
		defer func() { o.Renewed(time.Now().Add(renewPause)) }()
		f.run()
	})
}

// room is what a fetch needs of its goroutine's stack, as a rule.
const room = 12 << 10

// deepen makes room on the stack while little is on it. Grown step by step in
// the depths of the origin's code it is copied frame by frame, three times: 4 %
// of a miss's samples in a profile, and 1 % with this.
//
//go:noinline
func deepen() byte {
	var deep [room]byte
	return deep[time.Now().Nanosecond()%room]
}

// run fetches, and ends the fill whatever happens.
func (f *flight) run() {
	deepen()
	defer func() {
		if p := recover(); p != nil {
			f.h.Stats.Fault(FaultPanic)
			f.h.words.say(slog.LevelError, "fetch panicked", "site", f.site.Name, "url", clip(f.ask.url()), "panic", fmt.Sprint(p))
			f.fill.Fail(store.ErrPanic)
		}
	}()
	asked := time.Now()
	resp, err := f.site.roundTrip(f.out, f.hint, f.facts)
	if err == nil && resp.StatusCode == http.StatusNotModified && f.asks {
		if f.confirmed(resp, asked) {
			return
		}
		asked = time.Now()
		resp, err = f.refetch()
	}
	got := time.Now()
	f.took = got.Sub(asked)
	if err != nil {
		f.failed(err, got)
		return
	}
	f.status = resp.StatusCode
	if f.stale(resp.StatusCode, got) {
		resp.Body.Close()
		return
	}
	f.received(resp, asked, got)
}

// refetch asks again without conditions, because a 304 did not match what is
// stored.
func (f *flight) refetch() (*http.Response, error) {
	f.out = f.out.Clone(f.out.Context())
	delete(f.out.Header, "If-None-Match")
	delete(f.out.Header, "If-Modified-Since")
	f.seen.Invalidate()
	f.asks = false
	return f.site.roundTrip(f.out, f.hint, f.facts)
}

// failed ends the fill when no answer came.
func (f *flight) failed(err error, now time.Time) {
	if f.stale(0, now) {
		return
	}
	f.fill.Fail(err)
}

// stale answers with what is stored when the origin gave an error, or, with
// status 0, no answer (RFC 5861, 4; RFC 9111, 4.2.4).
func (f *flight) stale(status int, now time.Time) bool {
	o := f.seen
	if o == nil || !f.h.mayServeOnError(o, f.terms, &f.ask, now, status, f.policy.StaleIfUnreachable) {
		return false
	}
	f.reused = true
	f.detail = detailStaleIfError
	f.fill.Settle(o)
	return true
}

// confirmed publishes what a 304 makes of the stored response (RFC 9111,
// 4.3.4). It returns false when the 304 is not about that response.
func (f *flight) confirmed(resp *http.Response, asked time.Time) bool {
	defer resp.Body.Close()
	got := time.Now()
	stored := f.seen.Meta.header()
	fresh := clean(resp.Header, resp.ProtoMajor, resp.ProtoMinor, got)
	if !rfc9111.Confirms(stored, fresh) || f.h.purged(f.seen) {
		return false
	}
	f.took, f.status, f.reused = got.Sub(asked), http.StatusNotModified, true
	delete(fresh, "Via")
	if f.policy.SetCookie == rfc9111.CookieStrip {
		delete(fresh, "Set-Cookie")
	}
	merged := rfc9111.Merge(stored, fresh)
	hidden := hiddenOf(resp.Header, f.seen.Meta.hidden)
	policy := f.site.policyFor(f.ask.path, f.ask.header, f.seen.Meta.Status)
	d := rfc9111.Judge(f.asked(), f.seen.Meta.Status, withHidden(merged, hidden), asked, got, judgedBy(resp, policy.options))
	v, ok := f.variantOf(merged)
	tags := renewedTags(resp.Header, f.seen)
	o := newObject(f.seen.Meta.Status, merged, d, v, &f.ask, got)
	o.Meta.describe(o, f.fill.Key(), &f.ask, hidden, tags)
	f.site.face(o, merged, f.seen.Body.Size())
	if !d.Store || !ok || len(tags) > maxTags {
		f.h.Store.Discard(f.seen)
		o.Key, o.Body = f.seen.Key, f.seen.Body
		f.why = d.Why
		f.detail = string(d.Why)
		f.reuseOnce(o)
		return true
	}
	if !f.h.Store.Refresh(f.fill.Claim, f.seen, o) && f.h.purged(f.seen) {
		f.reused = false
		return false // purged since it was asked about
	}
	f.fill.Settle(o)
	return true
}

// reuseOnce answers the leader alone with a confirmed response that may no
// longer be stored.
func (f *flight) reuseOnce(o *Object) {
	body := &settledBody{r: o.Body.Reader(0, -1)}
	h := o.Meta.header()
	if via := h.Get("Via"); via != "" { // relay adds this node again
		h["Via"] = slices.DeleteFunc([]string{via[:max(0, strings.LastIndex(via, ", "))]}, func(s string) bool { return s == "" })
	}
	resp := &http.Response{
		StatusCode: o.Meta.Status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: h, Body: body, ContentLength: o.Body.Size(), Request: f.out,
	}
	f.refuse(resp)
}

// endOf reads the content of resp. Where it ends by its length, as in HTTP/1, the
// end comes with the last bytes: a client that has them all may ask again before
// the next Read says so, and is to find the object stored.
func endOf(resp *http.Response) io.Reader {
	if resp.ProtoMajor != 1 || resp.ContentLength <= 0 {
		return resp.Body
	}
	return &lengthReader{resp.Body, resp.ContentLength}
}

type lengthReader struct {
	io.Reader
	left int64
}

func (r *lengthReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if r.left -= int64(n); r.left > 0 || err != nil {
		return n, err
	}
	var surplus [1]byte
	_, _ = r.Reader.Read(surplus[:]) // so that the body sees its end; what is behind is nobody's
	return n, io.EOF
}

// ownedBody ends the request to the origin when it is closed.
type ownedBody struct {
	io.ReadCloser
	end context.CancelCauseFunc
}

// Buffered is the body's own.
func (b *ownedBody) Buffered() int { return int(arrived(b.ReadCloser)) }

func (b *ownedBody) Close() error {
	defer b.end(nil)
	return b.ReadCloser.Close()
}

// settledBody reads a complete body as an io.ReadCloser, which may be closed
// from more than one goroutine.
type settledBody struct {
	r    *store.Reader
	rest []byte
	once sync.Once
}

func (b *settledBody) Read(p []byte) (int, error) {
	if len(b.rest) == 0 {
		var err error
		if b.rest, err = b.r.Next(context.Background()); err != nil {
			return 0, err
		}
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

func (b *settledBody) Close() error {
	b.once.Do(b.r.Close)
	return nil
}

// asked returns what rfc9111 judges the response by.
func (f *flight) asked() rfc9111.Ask {
	return f.ask.forJudge(http.MethodGet)
}

// received handles a full response: to be shared and stored, or for the
// leader alone.
func (f *flight) received(resp *http.Response, asked, got time.Time) {
	policy := f.site.policyFor(f.ask.path, f.ask.header, resp.StatusCode)
	d := rfc9111.Judge(f.asked(), resp.StatusCode, resp.Header, asked, got, judgedBy(resp, policy.options))
	if policy.Bypass {
		d.Store, d.Why = false, "bypass"
	}
	if d.Store && endless(resp.Header) {
		d.Store, d.Why = false, "stream"
	}
	header := clean(resp.Header, resp.ProtoMajor, resp.ProtoMinor, got)
	v, ok := f.variantOf(header)
	if !ok {
		d.Store, d.Why = false, rfc9111.ReasonVaryAny
	}
	tags := tagsOf(resp.Header)
	if d.Store && len(tags) > maxTags {
		d.Store, d.Why = false, "too-many-tags"
	}
	if !d.Store || resp.StatusCode == http.StatusSwitchingProtocols {
		f.why, f.detail = d.Why, string(d.Why)
		personal := d.Why == rfc9111.ReasonAuthorization || d.Why == rfc9111.ReasonCookie // others' may be kept
		if (f.seen == nil || resp.StatusCode < 500) && !personal {
			f.h.Store.Alone(f.hash, f.key, got.Add(policy.HitForMiss))
		}
		if f.seen != nil && resp.StatusCode < 500 {
			// The origin replaced the stored response by one that is not kept.
			f.h.Store.Discard(f.seen)
		}
		f.refuse(resp)
		return
	}
	defer resp.Body.Close()
	o := newObject(resp.StatusCode, header, d, v, &f.ask, got)
	o.Meta.describe(o, f.fill.Key(), &f.ask, hiddenOf(resp.Header, nil), tags)
	f.site.face(o, header, resp.ContentLength)
	switch {
	case resp.ContentLength > f.h.Store.MaxObject():
		f.detail = detailTooLarge
	case !f.h.Store.Holds(f.fill.Claim):
		f.detail = detailInvalidated
	case f.h.Store.Outdated(f.fill.Claim, o):
		f.detail = detailPurged
	default:
		f.stored = true
		if f.h.Store.Crowds(f.fill.Claim, o.Selector) {
			f.detail = detailManyVariants
			f.h.crowded(f.site, f.ask.url(), v.Names())
		}
	}
	if f.stored {
		f.h.learn(f.key, header)
	}
	f.fill.Resolve(o, resp.ContentLength, v.Names(), true)
	err := f.fill.Pump(endOf(resp), func() any {
		if len(resp.Trailer) > 0 {
			return resp.Trailer
		}
		return nil
	})
	if err != nil {
		f.h.words.say(slog.LevelDebug, "fill ended short", "site", f.site.Name, "url", clip(f.ask.url()), "err", err)
	}
}

// endless reports whether a response is a conversation rather than a
// representation: it ends with its client.
func endless(h http.Header) bool {
	media := mediaOf(h)
	return media == "text/event-stream" || media == "application/grpc" || strings.HasPrefix(media, "application/grpc+")
}

// mediaOf returns the media type of a message in lower case.
func mediaOf(h http.Header) string {
	media, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	return strings.ToLower(strings.TrimSpace(media))
}

// refuse gives a response that may not be shared to the leader, if it is
// still there. The others go on alone.
func (f *flight) refuse(resp *http.Response) {
	resp.Body = &ownedBody{resp.Body, f.fill.Refuse()}
	select {
	case f.handoff <- resp:
	case <-f.left:
		resp.Body.Close()
	}
}
