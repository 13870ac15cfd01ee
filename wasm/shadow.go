package wasm

import (
	"bytes"
	"context"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"seawall/wasm/abi"
)

// The bounds of shadows.
const (
	shadowQueue = 32                     // requests that wait for a function's shadow
	shadowTime  = 250 * time.Millisecond // for one, with the pauses that a guest asks for
	shadowRest  = 3                      // times as long as they run they rest: a quarter of a processor is theirs
	shadowShift = time.Millisecond       // of rest that is due before it is taken
	shadowLong  = 100 * time.Millisecond // the longest rest
	shadowBody  = 64 << 10               // of content that a function answered with is compared
	shadowLog   = time.Second            // between two log lines
)

// differences are the words for what a shadow made otherwise.
var differences = [...]string{"verdict", "failed", "method", "authority", "target", "request_fields", "key",
	"status", "response_fields", "content", "ttl", "tags"}

const (
	diffVerdict = 1 << iota
	diffFailed
	diffMethod
	diffAuthority
	diffTarget
	diffRequest
	diffKey
	diffStatus
	diffResponse
	diffContent
	diffTTL
	diffTags
)

// shadow runs a function behind requests that another version of it serves, on
// copies, and counts what it makes otherwise. Nothing that it makes is used.
type shadow struct {
	f       *Function
	queue   chan *trace
	quit    chan struct{}
	once    sync.Once
	runs    atomic.Int64
	differ  atomic.Int64
	dropped atomic.Int64
	refused atomic.Int64 // calls of the guest's own
	kinds   [len(differences)]atomic.Int64
	lastLog time.Time // the worker's
}

// ShadowStats are what a shadow did since it was loaded.
type ShadowStats struct {
	Runs      int64 // requests that it saw
	Different int64 // of them, those that it made something otherwise of
	Dropped   int64 // requests that it had no time for
	Refused   int64 // calls to upstreams, of which a shadow makes none
	Kinds     map[string]int64
}

// Shadow returns the figures of a function that was loaded as one; else false.
func (f *Function) Shadow() (ShadowStats, bool) {
	s := f.shadow
	if s == nil {
		return ShadowStats{}, false
	}
	out := ShadowStats{Runs: s.runs.Load(), Different: s.differ.Load(), Dropped: s.dropped.Load(), Refused: s.refused.Load(), Kinds: map[string]int64{}}
	for i, kind := range differences {
		if n := s.kinds[i].Load(); n > 0 {
			out.Kinds[kind] = n
		}
	}
	return out, true
}

// begin starts the worker. It holds the function until stop.
func (s *shadow) begin() {
	if !s.f.Retain() {
		return
	}
	s.f.host.wait.Add(1)
	go s.work()
}

// stop ends the worker after what it runs now.
func (s *shadow) stop() { s.once.Do(func() { close(s.quit) }) }

func (s *shadow) work() {
	h := s.f.host
	defer h.wait.Done()
	defer s.f.Release()
	chain := NewChain([]*Function{s.f})
	defer chain.Close()
	var due time.Duration
	for {
		var t *trace
		select {
		case <-s.quit:
			return
		case t = <-s.queue:
		}
		select { // one at a time: the share is of all shadows together
		case <-s.quit:
			return
		case h.shadowing <- struct{}{}:
		}
		began := time.Now()
		s.follow(chain, t)
		if due += shadowRest * time.Since(began); due >= shadowShift {
			s.rest(min(due, shadowLong))
			due = 0
		}
		<-h.shadowing
	}
}

func (s *shadow) rest(d time.Duration) {
	clock := time.NewTimer(d)
	defer clock.Stop()
	select {
	case <-clock.C:
	case <-s.quit:
	}
}

// trace is what a shadow is told of one request: what the function was given,
// and what it made of it.
type trace struct {
	of            *shadow
	request       bool // it has had its request callback
	response      bool // and its response callback
	given, made   abi.Exchange
	result        Result
	answer, final abi.Exchange // of the response callback: given and made
	settled       Result
	void          bool // it says nothing of what a function makes
}

// trace begins one, unless there are too many already.
func (s *shadow) trace() *trace {
	if len(s.queue) == cap(s.queue) {
		s.dropped.Add(1)
		return nil
	}
	return &trace{of: s}
}

// asks and asked stand around the request callback, gets and got around the
// response callback. All do nothing on nil.
func (t *trace) asks(x *abi.Exchange) {
	if t != nil {
		t.given = copyOf(x)
	}
}

func (t *trace) asked(x *abi.Exchange, r Result) {
	if t != nil {
		t.request, t.made, t.result = true, copyOf(x), r
		t.judge(r)
	}
}

func (t *trace) gets(x *abi.Exchange) {
	if t != nil {
		t.answer = copyOf(x)
	}
}

func (t *trace) got(x *abi.Exchange, r Result) {
	if t != nil {
		t.response, t.final, t.settled = true, copyOf(x), r
		t.judge(r)
	}
}

// judge sees failures that are of the load or the client, not of the request.
func (t *trace) judge(r Result) {
	if r.Verdict == Failed && slices.Contains([]string{"busy", "closed", "breaker", "canceled", "body"}, r.Reason) {
		t.void = true
	}
}

// submit gives the trace to the worker, or drops it.
func (t *trace) submit() {
	if t == nil || t.void || !t.request {
		return
	}
	select {
	case t.of.queue <- t:
	default:
		t.of.dropped.Add(1)
	}
}

// copyOf is x for another to change, without content: where there is some, a
// guest is told so and finds none.
func copyOf(x *abi.Exchange) abi.Exchange {
	c := *x
	for _, m := range []*abi.Message{&c.Request, &c.Response} {
		m.Header, m.Trailer = m.Header.Clone(), m.Trailer.Clone()
		if m.Source != nil {
			m.Source = eof{}
		}
	}
	if c.Response.Body = nil; x.Answered && len(x.Response.Body) <= shadowBody {
		c.Response.Body = x.Response.Body
	}
	c.Request.Body = nil
	c.Early, c.EarlyBody = c.Early.Clone(), nil
	c.Cache.Tags = slices.Clone(c.Cache.Tags)
	c.Wake = nil
	return c
}

// follow runs the shadow on one request, and counts.
func (s *shadow) follow(chain *Chain, t *trace) {
	defer func() {
		// What only a shadow can break must not end the node.
		if p := recover(); p != nil {
			s.f.log.Error("wasm: shadow panicked", "function", s.f.name, "panic", p)
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), shadowTime)
	defer cancel()
	x := copyOf(&t.given)
	r := chain.Begin(ctx, &x)
	defer r.End()
	s.runs.Add(1)
	result := r.Request()
	d := compareVerdict(t.result, result)
	var names []string
	switch {
	case d != 0 || result.Verdict == Failed:
	case result.Verdict == Answered:
		d |= compareResponse(&t.made, &x, &names)
		if !bytes.Equal(t.made.Response.Body, x.Response.Body) && len(x.Response.Body) <= shadowBody {
			d |= diffContent
		}
	default:
		d |= compareRequest(&t.made, &x, &names)
		d |= s.respond(r, &x, t, &names)
	}
	s.count(d, t, names)
}

// respond runs the response callback, if the request came so far.
func (s *shadow) respond(r *Run, x *abi.Exchange, t *trace, names *[]string) int {
	if !t.response {
		return 0
	}
	x.Response, x.Failed = t.answer.Response, t.answer.Failed
	x.Cache = t.answer.Cache
	result := r.Response()
	d := compareVerdict(t.settled, result)
	if d != 0 || result.Verdict == Failed {
		return d
	}
	return compareResponse(&t.final, x, names)
}

// compareVerdict tells whether a function answered, failed or let pass.
func compareVerdict(was, is Result) int {
	switch {
	case was.Verdict == is.Verdict:
		return 0
	case is.Verdict == Failed:
		return diffFailed
	}
	return diffVerdict
}

func compareRequest(was, is *abi.Exchange, names *[]string) (d int) {
	a, b := &was.Request, &is.Request
	if a.Method != b.Method {
		d |= diffMethod
	}
	if a.Authority != b.Authority {
		d |= diffAuthority
	}
	if a.Target != b.Target {
		d |= diffTarget
	}
	if otherFields(a.Header, b.Header, names) {
		d |= diffRequest
	}
	if was.Cache.Key != is.Cache.Key {
		d |= diffKey
	}
	if otherFields(was.Early, is.Early, names) {
		d |= diffResponse
	}
	if was.EarlyStatus != is.EarlyStatus {
		d |= diffStatus
	}
	return d | compareCache(&was.Cache, &is.Cache)
}

func compareResponse(was, is *abi.Exchange, names *[]string) (d int) {
	if was.Response.Status != is.Response.Status {
		d |= diffStatus
	}
	if otherFields(was.Response.Header, is.Response.Header, names) {
		d |= diffResponse
	}
	return d | compareCache(&was.Cache, &is.Cache)
}

func compareCache(was, is *abi.Cache) (d int) {
	if was.TTL != is.TTL {
		d |= diffTTL
	}
	if was.TagsSet != is.TagsSet || !slices.Equal(was.Tags, is.Tags) {
		d |= diffTags
	}
	return d
}

// otherFields adds the names of fields that are not alike. The length of
// content is the host's.
func otherFields(a, b http.Header, names *[]string) bool {
	before := len(*names)
	for name, lines := range a {
		if name != "Content-Length" && !slices.Equal(lines, b[name]) {
			*names = append(*names, name)
		}
	}
	for name, lines := range b {
		if _, both := a[name]; !both && name != "Content-Length" && len(lines) > 0 {
			*names = append(*names, name)
		}
	}
	return len(*names) > before
}

// loggedNames is how many fields a log line names.
const loggedNames = 8

// count counts what was otherwise, and tells of it once in a while: fields by
// name alone, as values may be secrets.
func (s *shadow) count(d int, t *trace, names []string) {
	if d == 0 {
		return
	}
	s.differ.Add(1)
	var kinds []string
	for i, kind := range differences {
		if d&(1<<i) != 0 {
			s.kinds[i].Add(1)
			kinds = append(kinds, kind)
		}
	}
	now := time.Now()
	if now.Sub(s.lastLog) < shadowLog {
		return
	}
	s.lastLog = now
	slices.Sort(names)
	names = slices.Compact(names)
	for i := range names {
		names[i] = clean(names[i])
	}
	q := &t.given.Request
	target := q.Target
	if len(target) > 256 {
		target = target[:256]
	}
	s.f.log.Info("a shadow differs", "function", s.f.name, "kinds", kinds, "fields", names[:min(len(names), loggedNames)],
		"id", t.given.Facts.RequestID(), "site", t.given.Facts.Site, "method", clean(q.Method), "target", clean(target))
}
