package wasm

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"

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
		if len(c) == 0 { // as a rule
			continue
		}
		select {
		case <-c:
		default:
		}
	}
	c.runs.Put(r)
}
