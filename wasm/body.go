package wasm

import (
	"errors"
	"io"
	"net/http"

	"seawall/wasm/abi"
)

// content is a message's content with what of it was read ahead.
type content struct {
	src     io.Reader // nil when all is in buf
	buf     []byte
	off     int // of buf, what was read
	eof     bool
	err     error
	machine *machine // whose callback reads; nil outside any
}

// load reads until limit bytes are there, or all.
func (c *content) load(limit int64) {
	for !c.eof && c.err == nil && int64(len(c.buf)-c.off) <= limit {
		if len(c.buf) == cap(c.buf) {
			grown := make([]byte, len(c.buf), max(4096, min(2*cap(c.buf), cap(c.buf)+(1<<20))))
			copy(grown, c.buf)
			c.buf = grown
		}
		n, err := c.src.Read(c.buf[len(c.buf):cap(c.buf)])
		c.buf = c.buf[:len(c.buf)+n]
		c.note(err)
	}
}

func (c *content) note(err error) {
	if err == io.EOF {
		c.eof = true
	} else if err != nil {
		c.err = err
	}
}

// whole reports whether rest is all that follows.
func (c *content) whole() bool { return c.eof && c.err == nil }

func (c *content) rest() []byte { return c.buf[c.off:] }

// Read implements io.Reader. A guest that reads waits for the sender without
// paying for it.
func (c *content) Read(p []byte) (n int, err error) {
	if c.off < len(c.buf) {
		n = copy(p, c.buf[c.off:])
		c.off += n
		return n, nil
	}
	switch {
	case c.err != nil:
		return 0, c.err
	case c.eof:
		return 0, io.EOF
	}
	if c.machine == nil {
		n, err = c.src.Read(p)
	} else {
		c.machine.idle(func() { n, err = c.src.Read(p) })
		if b := &c.machine.budget; c.machine.f.host.now()-b.began > b.wall {
			return n, &abi.Trap{Kind: "wall", Err: errors.New("the content came too slowly")}
		}
	}
	c.note(err)
	return n, err
}

// errEnded is what a reader that is used too long gets.
var errEnded = errors.New("wasm: the exchange has ended")

// BodyError is why a reader of content stops.
type BodyError struct {
	Result
}

func (e *BodyError) Error() string { return "wasm: function " + e.Function + ": " + e.Reason }

// WantsRequestBody tells whether RequestBody would be more than its argument.
func (r *Run) WantsRequestBody() bool { return r.wantsBody(0) }

// WantsResponseBody tells it of ResponseBody.
func (r *Run) WantsResponseBody() bool { return r.wantsBody(1) }

func (r *Run) wantsBody(which int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.entries[:r.reached] {
		if r.entries[i].wantsContent(which) {
			return true
		}
	}
	return false
}

func (e *entry) wantsContent(which int) bool {
	if e.s == nil || e.sides[which].bypass {
		return false
	}
	if which == 0 {
		return e.wants.RequestBody || e.wants.RequestTrailers
	}
	return e.wants.ResponseBody || e.wants.ResponseTrailers
}

// RequestBody passes the request's content, x.Request.Source, through the
// functions that want it, as it is read; src is closed with it. At its end
// x.Request.Trailer has the trailers, as functions left them. An error of the
// host's is a *BodyError: its Verdict is Answered when a function answered
// instead, which x.Response then holds.
func (r *Run) RequestBody(src io.ReadCloser) io.ReadCloser {
	if src == nil || !r.WantsRequestBody() {
		return src
	}
	return &flow{run: r.lend(), src: src, close: src.Close, which: 0}
}

// Stopped tells why a reader of RequestBody has stopped: clients of an origin
// may hide it among errors of their own. It is nil when none has.
func (r *Run) Stopped() *BodyError {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stopped
}

// Received runs set, which gives x the response, before Response where a
// reader of RequestBody may be in use: an answer that a function gives to what
// it reads comes too late then.
func (r *Run) Received(set func(x *abi.Exchange)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.responded = true
	set(r.x)
}

// Respond is Received for a response that is all there is to set; cache is the
// outcome of the look-up, failed tells the node's own error.
func (r *Run) Respond(m abi.Message, cache string, failed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.responded = true
	r.x.Response, r.x.Cache.Status, r.x.Failed = m, cache, failed
}

// ResponseBody does so for the response's. A read gives out what is ready: it
// waits for more only when it has nothing.
func (r *Run) ResponseBody(src io.Reader) io.Reader {
	if src == nil || !r.WantsResponseBody() {
		return src
	}
	return &flow{run: r.lend(), src: src, which: 1}
}

func (r *Run) lend() *Run {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lent = true
	if r.over == nil {
		r.over = make(chan struct{})
	}
	return r
}

// ResponseTrailers runs the trailer callbacks, unless ResponseBody has, and
// returns the trailers to send. It is called once after the content, and only
// if there are trailers.
func (r *Run) ResponseTrailers(h http.Header) http.Header {
	r.mu.Lock()
	defer r.mu.Unlock()
	x := r.x
	if x == nil {
		return h
	}
	if x.Response.Trailer == nil {
		x.Response.Trailer = h
	}
	for i := r.reached - 1; i >= 0; i-- {
		// Content that a function still holds has nowhere to go now.
		_, _ = r.entries[i].trailers(1, nil)
	}
	return x.Response.Trailer
}

// chunk is how much content is read at once.
const chunk = 32 << 10

// flow is content on its way through the functions.
type flow struct {
	run   *Run
	src   io.Reader
	close func() error
	which int // 0: request, 1: response
	room  []byte
	ready []byte
	err   error
}

// Close implements io.Closer.
func (w *flow) Close() error {
	if w.close == nil {
		return nil
	}
	return w.close()
}

// Read implements io.Reader.
func (w *flow) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(w.ready) == 0 {
		if w.err != nil {
			return 0, w.err
		}
		w.fill()
	}
	n := copy(p, w.ready)
	w.ready = w.ready[n:]
	return n, nil
}

// fill reads a chunk and passes it through the functions.
func (w *flow) fill() {
	if w.room == nil {
		w.room = make([]byte, chunk)
	}
	n, err := w.src.Read(w.room)
	if n == 0 && err == nil {
		return
	}
	if err != nil && err != io.EOF {
		w.err = err // what functions hold back is not whole
		return
	}
	r := w.run
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		w.err = errEnded
		return
	}
	var fault error
	// Guests and the code that reads may keep what they get for a while.
	w.ready, fault = r.pass(w.which, append([]byte(nil), w.room[:n]...), err == io.EOF)
	var stopped *BodyError
	if w.which == 0 && errors.As(fault, &stopped) {
		r.stopped = stopped
	}
	switch {
	case r.ended: // while a function waited
		w.ready, w.err = nil, errEnded
	case fault != nil:
		w.ready, w.err = nil, fault
	case err == io.EOF:
		w.err = io.EOF
	}
}

// pass gives content to the functions one after the other, and returns what
// comes out in the end.
func (r *Run) pass(which int, data []byte, ended bool) ([]byte, error) {
	message := r.message(which)
	for i := range r.reached {
		if which == 1 {
			i = r.reached - 1 - i
		}
		e := &r.entries[i]
		trailers := ended && len(message.Trailer) > 0
		var err error
		data, err = e.pass(which, data, ended && !trailers)
		if err == nil && trailers {
			data, err = e.trailers(which, data)
		}
		if err != nil {
			return nil, err
		}
	}
	return data, nil
}

func (r *Run) message(which int) *abi.Message {
	if which == 1 {
		return &r.x.Response
	}
	return &r.x.Request
}

func (x *entry) own(which int) *abi.Message {
	if which == 1 {
		return &x.x.Response
	}
	return &x.x.Request
}

// pass gives content to one function. What it holds back comes with the next
// piece, or at the end.
func (e *entry) pass(which int, data []byte, ended bool) ([]byte, error) {
	s := &e.sides[which]
	wants := e.wants.RequestBody
	if which == 1 {
		wants = e.wants.ResponseBody
	}
	if e.s == nil || s.bypass || !wants {
		return s.release(data), nil
	}
	if len(data) == 0 && !ended {
		return nil, nil
	}
	held := data
	if s.paused {
		var err error
		if held, err = e.unpause(which, data); err != nil {
			return nil, err
		}
		if e.s == nil {
			return held, nil
		}
	}
	if int64(len(held)) > e.f.limits.Body {
		if which == 0 {
			e.finish()
			return nil, &BodyError{Result{Failed, http.StatusRequestEntityTooLarge, e.f.name, "body"}}
		}
		e.f.passed.Add(1)
		s.bypass, s.paused, s.pending = true, false, nil
		return held, nil
	}
	return e.call(which, held, ended, false)
}

// release gives up what a side holds.
func (s *side) release(data []byte) []byte {
	if len(s.pending) > 0 {
		data = append(s.pending, data...)
	}
	s.pending, s.paused = nil, false
	return data
}

// unpause takes what the stream has held back, as its guest left it, with
// what came now behind it.
func (e *entry) unpause(which int, data []byte) ([]byte, error) {
	s := &e.sides[which]
	e.m.mu.Lock()
	dead := e.m.dead
	held := s.pending
	answered := false
	if !dead {
		held, answered = e.own(which).Body, e.x.Answered
	}
	e.m.mu.Unlock()
	s.pending, s.paused = nil, false
	switch {
	case dead:
		e.f.retired[e.run.stage(which == 1)].count(errGone.Kind)
		e.lost()
		return e.broken(errGone, append(held[:len(held):len(held)], data...))
	case answered:
		return nil, e.answered(which)
	}
	return append(held[:len(held):len(held)], data...), nil
}

// broken applies the policy to content: it goes on as it was, or ends.
func (e *entry) broken(t *abi.Trap, data []byte) ([]byte, error) {
	if res := e.fault(t); res.Verdict == Failed {
		return nil, &BodyError{res}
	}
	return data, nil
}

// answered reports a local answer given while content was passed.
func (e *entry) answered(which int) error {
	if which == 0 && !e.run.responded {
		e.run.x.Response = e.x.Response
		e.run.answered()
	}
	return &BodyError{Result{Verdict: Answered, Function: e.f.name, Reason: "answered"}}
}

// call runs a body or trailer callback, and waits for the stream to go on
// when nothing else can come.
func (e *entry) call(which int, held []byte, ended, trailers bool) ([]byte, error) {
	stage := e.run.stage(which == 1)
	if t := e.m.enter(e, stage, false); t != nil {
		e.f.retired[stage].count(t.Kind)
		if t == errGone {
			e.lost()
		} else {
			e.finish()
		}
		return e.broken(t, held)
	}
	own, theirs := e.own(which), e.run.message(which)
	own.Body, own.Ended, own.Trailer, own.Replaced = held, ended, theirs.Trailer, false
	e.x.Stage, e.x.Function, e.x.Wake = stage, e.f.name, e.run.wakeUp
	act, err := e.callback(which, trailers)
	if err == nil && act != abi.Pause {
		held = own.Body
	}
	if t := e.m.leave(int(stage), err); t != nil {
		e.lost()
		return e.broken(t, held)
	}
	s := &e.sides[which]
	switch {
	case act == abi.Stop:
		return nil, e.answered(which)
	case act != abi.Pause:
	case !ended && !trailers:
		// The buffer is the guest's until the next callback.
		s.paused, s.pending = true, held
		return nil, nil
	default:
		if t := e.wait(which == 1, true); t != nil {
			return e.broken(t, held)
		}
		if e.x.Answered {
			return nil, e.answered(which)
		}
		held = own.Body
	}
	theirs.Replaced = theirs.Replaced || own.Replaced
	theirs.Trailer = own.Trailer
	s.ended = s.ended || ended || trailers
	return held, nil
}

func (e *entry) callback(which int, trailers bool) (abi.Action, error) {
	switch {
	case which == 0 && trailers:
		return e.s.RequestTrailers()
	case which == 0:
		return e.s.RequestBody()
	case trailers:
		return e.s.ResponseTrailers()
	}
	return e.s.ResponseBody()
}

// trailers runs a trailer callback once; content held back until now goes on.
func (e *entry) trailers(which int, data []byte) ([]byte, error) {
	s := &e.sides[which]
	wants := e.wants.RequestTrailers
	if which == 1 {
		wants = e.wants.ResponseTrailers
	}
	if s.paused {
		held, err := e.unpause(which, data)
		if err != nil {
			return nil, err
		}
		data = held
	}
	if e.s == nil || s.ended || !wants {
		return s.release(data), nil
	}
	return e.call(which, data, true, true)
}
