package wasm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"seawall/wasm/abi"
)

// Verdict is what becomes of a message after a chain's callbacks.
type Verdict uint8

const (
	// Continue goes on with the exchange as the functions left it.
	Continue Verdict = iota
	// Answered means that a function answered: Exchange.Response holds it.
	Answered
	// Failed means that a function that fails closed did, or that content
	// was too long.
	Failed
)

// Result is the outcome of a phase. Of Failed, Status is the response's (503,
// 413 or 400), Function the one that failed, and Reason a word of the host's
// own.
type Result struct {
	Verdict          Verdict
	Status           int
	Function, Reason string
}

// Chain is the functions attached at one place of a site, in order.
type Chain struct {
	functions []*Function
	retained  []*Function // but those that were closed already, which fail
	versions  []version   // of each function; nil when none has a candidate
	runs      sync.Pool
	refs      atomic.Int64 // runs, and one until Close
	once      sync.Once
}

// NewChain makes a chain, to be closed, and retains its functions.
func NewChain(fs []*Function) *Chain {
	c := &Chain{functions: slices.Clone(fs)}
	c.refs.Store(1)
	for _, f := range fs {
		if f.Retain() {
			c.retained = append(c.retained, f)
		}
	}
	return c
}

// Close releases the functions when the last run has ended. A run begun after
// it finds all of them closed; a Slot begins none such.
func (c *Chain) Close() { c.once.Do(c.release) }

// retain is for a run; false when the functions may be gone.
func (c *Chain) retain() bool {
	for {
		n := c.refs.Load()
		if n <= 0 {
			return false
		}
		if c.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (c *Chain) release() {
	if c.refs.Add(-1) > 0 {
		return
	}
	for _, f := range c.retained {
		f.Release()
	}
}

// Slot holds the chain of one place of a site, which may be replaced while
// requests run. The zero Slot has an empty chain.
type Slot struct{ chain atomic.Pointer[Chain] }

// Swap makes c, which may be nil, the chain of later runs, and closes the one
// before.
func (s *Slot) Swap(c *Chain) {
	if old := s.chain.Swap(c); old != nil {
		old.Close()
	}
}

// Begin is Chain.Begin of the chain of the moment. It returns nil when there
// are no functions.
func (s *Slot) Begin(ctx context.Context, x *abi.Exchange) *Run {
	for {
		c := s.chain.Load()
		if c == nil || len(c.functions) == 0 {
			return nil
		}
		if c.retain() {
			return c.begin(ctx, x, true)
		}
	}
}

// Functions returns the names of the chain's functions, in order.
func (c *Chain) Functions() []string {
	names := make([]string, len(c.functions))
	for i, f := range c.functions {
		names[i] = f.name
	}
	return names
}

// Run is the way of one exchange through a chain. Its methods are called by
// one goroutine, except for the readers it gives out: each of them may be
// used by another.
type Run struct {
	chain   *Chain
	ctx     context.Context
	wake    [2]chan struct{} // for who waits on the request's side, and the response's
	wakeUp  func()
	entries []entry
	open    bool     // the chain was not closed when it began
	origin  bool     // its stages are those of the origin's side
	reached int      // entries whose request callbacks ran
	source  *content // of the request; readers may keep it for longer than the run is

	mu        sync.Mutex // guards what follows, and entries, once readers are given out
	x         *abi.Exchange
	lent      bool          // a reader was given out: the run is not used again
	over      chan struct{} // closed when it has ended; nil unless lent
	ended     bool
	responded bool       // there is a response: no answer takes its place
	stopped   *BodyError // why a reader of the request's content stopped
}

// entry is one function's part in a run.
type entry struct {
	run    *Run
	f      *Function
	m      *machine
	s      abi.Stream
	x      abi.Exchange // what the function sees
	wants  abi.Wants
	ledger *ledger
	key    *string  // the part of the cache's key that it set
	trace  *trace   // for the shadow of its function; nil without one
	sides  [2]side  // its content under way, of request and response
	back   *machine // given back, to be restored when all is done
}

// side is the content of one message at one function.
type side struct {
	pending []byte // came, and was not passed on
	paused  bool
	bypass  bool // no more callbacks: passed on unseen
	ended   bool // its last callback was made
}

// Begin starts a run. x belongs to the run until End, but for the time
// between its calls. x.Stage, viewer_request or origin_request, says where.
// End must be called.
func (c *Chain) Begin(ctx context.Context, x *abi.Exchange) *Run {
	return c.begin(ctx, x, c.retain())
}

func (c *Chain) begin(ctx context.Context, x *abi.Exchange, open bool) *Run {
	r, _ := c.runs.Get().(*Run)
	if r == nil {
		r = &Run{chain: c, entries: make([]entry, len(c.functions))}
		for i := range r.wake {
			r.wake[i] = make(chan struct{}, 1)
		}
		r.wakeUp = func() {
			for _, c := range r.wake {
				select {
				case c <- struct{}{}:
				default:
				}
			}
		}
		for i := range r.entries {
			r.entries[i].run, r.entries[i].f = r, c.functions[i]
		}
	}
	r.open = open
	r.ctx, r.x, r.reached, r.origin = ctx, x, 0, x.Stage == abi.OriginRequest || x.Stage == abi.OriginResponse
	if c.versions != nil {
		r.choose()
	}
	return r
}

// stage is the point of the walk that one side's callbacks run at.
func (r *Run) stage(response bool) abi.Stage {
	switch {
	case r.origin && response:
		return abi.OriginResponse
	case r.origin:
		return abi.OriginRequest
	case response:
		return abi.ViewerResponse
	}
	return abi.ViewerRequest
}

// Request runs the request callbacks, in order, until one answers. Content of
// the request is read only for functions that want it whole; after Continue
// x.Request.Source has it all.
func (r *Run) Request() Result {
	r.x.Stage, r.x.Answered = r.stage(false), false
	for i := range r.entries {
		e := &r.entries[i]
		r.reached = i + 1
		e.trace.asks(r.x)
		res := e.request()
		if res.Verdict == Answered {
			r.answered()
		}
		e.trace.asked(r.x, res)
		if res.Verdict != Continue {
			return res
		}
	}
	r.joinKeys()
	return Result{}
}

// joinKeys makes one part of the key of those that the functions of a list
// set: what one of them tells apart, another must not join again.
func (r *Run) joinKeys() {
	if len(r.entries) == 1 {
		return
	}
	var parts []byte
	for i := range r.entries {
		if key := r.entries[i].key; key != nil {
			parts = fmt.Appendf(parts, "%d:%d:%s ", i, len(*key), *key)
		}
	}
	if parts != nil {
		r.x.Cache.Key = string(parts)
	}
}

// answered makes x.Response of an answer complete: its content is in Body and
// in Source.
func (r *Run) answered() {
	m := &r.x.Response
	if m.Header == nil {
		m.Header = http.Header{}
	}
	r.x.Answered = true
	r.own(m)
}

// own makes m's Body, written by a guest, its content.
func (r *Run) own(m *abi.Message) {
	if m.Header == nil {
		m.Header = http.Header{}
	}
	m.Header["Content-Length"] = []string{strconv.Itoa(len(m.Body))}
	m.Source = &content{buf: m.Body, eof: true}
	m.Ended, m.Replaced, m.Changed = true, true, true
}

// keepLength undoes what a guest made of the length: content that it writes is
// counted by its host, and a wrong one would cut or hold up the message.
func keepLength(h http.Header, length []string) {
	now, ok := h["Content-Length"]
	switch {
	case length == nil && ok:
		delete(h, "Content-Length")
	case length != nil && (!ok || !slices.Equal(now, length)):
		h["Content-Length"] = length
	}
}

// request runs one function's request callback.
func (e *entry) request() Result {
	r, f := e.run, e.f
	stage := r.stage(false)
	if !r.open {
		return e.fail(stage, errClosed)
	}
	if f.reads {
		// It holds its machine while it reads: what fits the limit is there
		// before, so that a slow sender holds none.
		r.preload(f.limits.Body)
	}
	m, t := f.take(r.ctx)
	if t != nil {
		return e.fail(stage, t)
	}
	e.m = m
	if e.ledger == nil {
		e.ledger = &ledger{}
	}
	if m.passive {
		return e.beginIdle(stage)
	}
	if t := m.enter(e, stage, false); t != nil {
		e.drop()
		return e.fail(stage, t)
	}
	source, _ := r.x.Request.Source.(*content)
	if source != nil {
		source.machine = m
	}
	e.syncIn(false)
	length := e.x.Request.Header["Content-Length"]
	act, err := e.begin()
	if source != nil {
		source.machine = nil
	}
	if err == errLong {
		m.leave(int(stage), nil)
		status := http.StatusRequestEntityTooLarge
		if r.source.err != nil {
			status = http.StatusBadRequest // it broke off
		}
		return Result{Failed, status, f.name, "body"}
	}
	if t := m.leave(int(stage), err); t != nil {
		e.lost()
		return e.fault(t)
	}
	if act == abi.Pause {
		if t := e.wait(false, false); t != nil {
			return e.fault(t)
		}
	}
	replaced := r.x.Request.Replaced
	e.syncOut(false)
	if r.x.Cache.KeySet {
		key := r.x.Cache.Key
		e.key = &key
	}
	if r.x.Answered {
		e.settle(false)
		return Result{Verdict: Answered, Function: f.name}
	}
	q := &r.x.Request
	keepLength(q.Header, length)
	if q.Replaced {
		r.own(q)
		r.source = q.Source.(*content)
	}
	q.Body, q.Ended, q.Replaced = nil, q.Source == nil, q.Replaced || replaced
	if e.wants.RequestBody && q.Source != nil {
		delete(q.Header, "Content-Length")
	}
	e.settle(false)
	return Result{}
}

// beginIdle is request for a guest that looks at responses alone: no code of
// its runs, so nothing is charged or counted.
func (e *entry) beginIdle(stage abi.Stage) Result {
	m := e.m
	m.mu.Lock()
	dead := m.dead
	var err error
	if !dead {
		e.s, err = m.guest.Begin(&e.x)
	}
	m.mu.Unlock()
	if dead || err != nil {
		e.drop()
		return e.fail(stage, errGone)
	}
	e.wants = e.s.Wants()
	if !e.wants.Silent || !e.wants.ResponseHeaders {
		e.syncIn(false) // callbacks before or without that for the response's header ask for it
	}
	q := &e.run.x.Request
	q.Body, q.Ended = nil, q.Source == nil
	e.settle(false)
	return Result{}
}

var errLong = errors.New("content over the body limit")

// begin makes the stream and runs its first callback; the machine is entered.
func (e *entry) begin() (abi.Action, error) {
	r := e.run
	s, err := e.m.guest.Begin(&e.x)
	if err != nil {
		return abi.Stop, err
	}
	e.s = s
	e.wants = s.Wants()
	q := &e.x.Request
	if e.wants.BufferRequest && e.f.reads && q.Source != nil {
		if q.Source != io.Reader(r.source) || !r.source.whole() {
			return abi.Stop, errLong
		}
		q.Body, q.Ended = r.source.rest(), true
	}
	if !e.wants.RequestHeaders {
		return abi.Continue, nil
	}
	act, err := s.RequestHeaders()
	if err != nil {
		return act, err
	}
	e.wants = s.Wants()
	return act, nil
}

// preload reads the request's content as far as limit without holding a
// machine: its sender may be slow.
func (r *Run) preload(limit int64) {
	q := &r.x.Request
	if q.Source == nil {
		return
	}
	if r.source == nil || q.Source != io.Reader(r.source) {
		r.source = &content{src: q.Source}
		q.Source = r.source
	}
	r.source.load(limit)
}

// syncIn gives the function the exchange as it is now. A copy: a paused
// stream's is its guest's, also while others have callbacks.
func (e *entry) syncIn(response bool) {
	x := e.run.x
	request, paused := e.x.Request, e.sides[0].paused
	e.x = *x
	if response && paused {
		e.x.Request = request
	}
	e.x.Stage, e.x.Function, e.x.Wake, e.x.Cache.KeySet = e.run.stage(response), e.f.name, e.run.wakeUp, false
	if e.f.onError == Open {
		// What it changes before it breaks down is not seen.
		if response {
			e.x.Response.Header, e.x.Response.Trailer = e.x.Response.Header.Clone(), e.x.Response.Trailer.Clone()
		} else {
			e.x.Request.Header, e.x.Early = e.x.Request.Header.Clone(), e.x.Early.Clone()
		}
	}
	if !response {
		e.x.Request.Ended, e.x.Request.Replaced = e.x.Request.Source == nil, false
	}
}

// syncOut takes over what the function changed; with the response on its way
// the request cannot change any more, and its content may still be read.
func (e *entry) syncOut(response bool) {
	x := e.run.x
	wake, request := x.Wake, x.Request
	*x = e.x
	x.Wake = wake
	if response {
		x.Request = request
	}
}

// wait waits until a paused stream goes on. Its exchange is its guest's
// meanwhile. A locked run is unlocked meanwhile, for the other side's reader;
// it may end, and the other side's callback may stop the machine.
func (e *entry) wait(response, locked bool) *abi.Trap {
	r, m := e.run, e.m
	ctx, wake, over := r.ctx, r.wake[0], r.over
	if response {
		wake = r.wake[1]
	}
	clock := time.NewTimer(e.f.limits.Wait)
	defer clock.Stop()
	for {
		if locked {
			r.mu.Unlock()
		}
		t := errPaused
		select {
		case <-wake:
			t = nil
		case <-over:
			t = errCanceled
		case <-m.life.Done():
			t = errGone
		case <-ctx.Done():
			t = errCanceled
		case <-clock.C:
		}
		if locked {
			r.mu.Lock()
		}
		if r.ended {
			return errCanceled
		}
		if e.m != m {
			return errGone
		}
		m.mu.Lock()
		dead := m.dead
		on := !dead && (e.s.Resumed(response) || e.x.Answered)
		m.mu.Unlock()
		switch {
		case on:
			return nil
		case dead:
			e.f.retired[e.run.stage(response)].count(errGone.Kind)
			e.lost()
			return errGone
		case t != nil:
			e.f.retired[e.run.stage(response)].count(t.Kind)
			e.finish()
			return t
		}
	}
}

// fail counts a failure that no machine counted, and applies the policy.
func (e *entry) fail(stage abi.Stage, t *abi.Trap) Result {
	e.f.retired[stage].count(t.Kind)
	return e.fault(t)
}

// fault applies the function's policy.
func (e *entry) fault(t *abi.Trap) Result {
	if t.Kind == "body" {
		status := http.StatusBadRequest
		if errors.Is(t, abi.ErrBody) {
			status = http.StatusRequestEntityTooLarge
		}
		return Result{Failed, status, e.f.name, t.Kind}
	}
	if e.f.onError == Open && t != errCanceled {
		return Result{}
	}
	return Result{Failed, http.StatusServiceUnavailable, e.f.name, t.Kind}
}

// lost forgets a machine that has stopped.
func (e *entry) lost() { e.m, e.s = nil, nil }

// drop gives back a machine in which no stream was begun.
func (e *entry) drop() {
	if e.f.mode == ModeReset && e.m != nil {
		e.f.pool.put(e.m)
	}
	e.lost()
}

// settle gives an exclusive machine back when no more callbacks are wanted.
func (e *entry) settle(response bool) {
	if e.s == nil || e.f.mode != ModeReset {
		return
	}
	w, x := &e.wants, e.run.x
	more := x.Response.Source != nil && (w.ResponseBody || w.ResponseTrailers)
	if !response {
		more = w.ResponseHeaders || w.ResponseBody || w.ResponseTrailers ||
			x.Request.Source != nil && (w.RequestBody || w.RequestTrailers)
	}
	if !more {
		e.finish()
	}
}

// finish ends the stream and gives the machine back.
func (e *entry) finish() {
	m := e.m
	if m == nil {
		return
	}
	s := e.s
	e.lost()
	if !e.end(m, s) {
		return // stopped, by this callback or another's; the pool knows
	}
	if e.f.mode == ModeReset {
		e.back = m
		e.f.pool.put(m)
	}
}

// end ends a stream in its machine; false when that has stopped.
func (e *entry) end(m *machine, s abi.Stream) bool {
	if s == nil {
		return true
	}
	if e.wants.Silent {
		m.mu.Lock()
		defer m.mu.Unlock()
		return !m.dead && s.End() == nil
	}
	stage := e.run.stage(e.run.x.Response.Status != 0)
	if t := m.enter(e, stage, true); t != nil {
		return false
	}
	e.x.Function = e.f.name
	return m.leave(int(stage), s.End()) == nil
}

// Response runs the response callbacks in reverse order, those of the
// functions whose request callbacks ran. So do the filters of Envoy after a
// local answer: the function that answered and those before it see it,
// others know nothing of the exchange. (An http-wasm guest that answered
// does not.) Status and header are in x.Response, content in its Source; the
// content to send on is that of ResponseBody.
//
// Content is read for functions that want it whole. When it is over the
// function's limit the response passes by it unseen.
func (r *Run) Response() Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.merge()
	r.x.Stage, r.x.Answered = r.stage(true), false
	for i := r.reached - 1; i >= 0; i-- {
		e := &r.entries[i]
		e.trace.gets(r.x)
		var res Result
		if e.s != nil {
			res = e.response()
		}
		if res.Verdict == Answered {
			r.answered()
		}
		e.trace.got(r.x, res)
		if res.Verdict != Continue {
			return res
		}
	}
	return Result{}
}

// merge adds what guests set of a response before there was one.
func (r *Run) merge() {
	x, m := r.x, &r.x.Response
	if m.Header == nil {
		m.Header = http.Header{}
	}
	for name, lines := range x.Early {
		if _, ok := m.Header[name]; !ok {
			m.Header[name], m.Changed = slices.Clone(lines), true
		}
	}
	if x.EarlyStatus != 0 {
		m.Status, m.Changed = x.EarlyStatus, true
	}
	if len(x.EarlyBody) > 0 {
		src := m.Source
		if src == nil {
			src = eof{}
		}
		m.Source = &content{buf: x.EarlyBody, src: src}
		m.Header.Del("Content-Length")
		m.Ended, m.Replaced, m.Changed = false, true, true
	}
	x.Early, x.EarlyStatus, x.EarlyBody = nil, 0, nil
}

// eof is no content.
type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }

// response runs one function's response callback.
func (e *entry) response() Result {
	r := e.run
	m := &r.x.Response
	if e.wants.ResponseBody && m.Source != nil {
		delete(m.Header, "Content-Length") // it may become longer or shorter
	}
	if !e.wants.ResponseHeaders {
		e.settle(true)
		return Result{}
	}
	var whole []byte
	if e.wants.BufferResponse && m.Source != nil {
		var ok bool
		if whole, ok = r.buffer(m, e.f.limits.Body); !ok {
			e.f.passed.Add(1)
			e.finish()
			return Result{}
		}
		if e.s == nil { // the request's side has stopped it meanwhile
			return e.fail(r.stage(true), errGone)
		}
	}
	stage := r.stage(true)
	if t := e.m.enter(e, stage, false); t != nil {
		if t == errGone {
			e.lost()
		} else {
			e.finish()
		}
		return e.fail(stage, t)
	}
	e.syncIn(true)
	e.x.Response.Body, e.x.Response.Ended = whole, e.wants.BufferResponse || m.Source == nil
	e.x.Response.Replaced = false
	length := m.Header["Content-Length"]
	act, err := e.s.ResponseHeaders()
	if err == nil {
		e.wants = e.s.Wants()
	}
	if t := e.m.leave(int(stage), err); t != nil {
		e.lost()
		return e.fault(t)
	}
	if act == abi.Pause {
		if t := e.wait(true, true); t != nil {
			return e.fault(t)
		}
	}
	replaced := r.x.Response.Replaced
	e.syncOut(true)
	if r.x.Answered {
		e.settle(true)
		return Result{Verdict: Answered, Function: e.f.name}
	}
	keepLength(m.Header, length)
	if m.Replaced {
		r.own(m)
	}
	m.Body, m.Ended, m.Replaced = nil, m.Source == nil, m.Replaced || replaced
	e.settle(true)
	return Result{}
}

// buffer reads all content, up to limit. False: there is more, or it broke
// off; Source then gives what came and what follows.
func (r *Run) buffer(m *abi.Message, limit int64) ([]byte, bool) {
	c, ok := m.Source.(*content)
	if !ok {
		c = &content{src: m.Source}
		m.Source = c
	}
	// The request's side goes on: without its content the origin may not
	// end the response's.
	r.mu.Unlock()
	c.load(limit)
	r.mu.Lock()
	if !c.whole() || int64(len(c.buf)-c.off) > limit {
		return nil, false
	}
	return c.rest(), true
}

// End runs the final callbacks and gives machines back: what is restored, is
// so now. It is always called, after the response was sent, and after the
// readers of content are not used any more; one that is gets an error.
func (r *Run) End() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return
	}
	for i := range r.entries {
		e := &r.entries[i]
		e.trace.submit()
		e.finish()
		if e.back != nil {
			e.f.pool.tidy(e.back)
		}
		l := e.ledger
		if l != nil && l.shared {
			l = nil
		} else if l != nil {
			*l = ledger{}
		}
		*e = entry{run: r, f: e.f, ledger: l}
	}
	c := r.chain
	if r.open {
		c.release()
	}
	r.ctx, r.x, r.source, r.responded = nil, nil, nil, false
	if r.lent {
		r.ended = true
		close(r.over)
		return
	}
	for _, c := range r.wake {
		select {
		case <-c:
		default:
		}
	}
	c.runs.Put(r)
}
