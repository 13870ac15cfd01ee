package wasm

import (
	"errors"
	"io"
	"net/http"
	"time"

	"seawall/wasm/abi"
)

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
