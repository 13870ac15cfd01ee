package proxywasm

import (
	"net/http"
	"time"

	"seawall/wasm/abi"
)

// stream is the context of one exchange.
type stream struct {
	g  *guest
	id uint32
	x  *abi.Exchange // nil after End

	phase phase
	// paused is set between a callback that returned PAUSE and what ends it.
	paused bool
	// resumed tells, of request and response, that the guest resumed it.
	resumed [2]bool
	// passed tells, of request and response, that its header was passed on
	// and cannot change any more.
	passed [2]bool
	// stopped tells, of request and response, that no more of its callbacks
	// run: the guest answered or closed the stream, which answered tells, too.
	stopped  [2]bool
	answered bool

	// ended is when the exchange did, while the guest delays its log.
	ended time.Time
	// doneEarly is set when proxy_done came before proxy_on_done returned.
	doneEarly bool
}

// phase is how far a stream has come.
type phase uint8

const (
	beginning phase = iota
	requestHeaders
	requestBody
	requestTrailers
	responseHeaders
	responseBody
	responseTrailers
	ending
)

// side is 0 for the request and 1 for the response.
func (p phase) side() int {
	if p >= responseHeaders {
		return 1
	}
	return 0
}

// open reports whether the guest may use the exchange now: in a callback of
// the stream, or in any while the stream waits for the guest.
func (s *stream) open() bool {
	return s != nil && s.x != nil && (s.g.running == s || s.paused)
}

// Wants tells which callbacks the guest exports.
func (s *stream) Wants() abi.Wants { return s.g.wants }

func (e *exports) wants() abi.Wants {
	return abi.Wants{
		RequestHeaders:   e.requestHeaders.some(),
		RequestBody:      e.requestBody.some(),
		RequestTrailers:  e.requestTrailers.some(),
		ResponseHeaders:  e.responseHeaders.some(),
		ResponseBody:     e.responseBody.some(),
		ResponseTrailers: e.responseTrailers.some(),
		Silent:           !e.done.some() && !e.log.some() && !e.delete.some(),
	}
}

func (s *stream) RequestHeaders() (abi.Action, error) {
	return s.header(requestHeaders, s.g.exports.requestHeaders, s.g.exports.requestTrailers)
}

func (s *stream) RequestBody() (abi.Action, error) {
	return s.body(requestBody, s.g.exports.requestBody, s.g.exports.requestTrailers)
}

func (s *stream) RequestTrailers() (abi.Action, error) {
	return s.trailer(requestTrailers, s.g.exports.requestTrailers)
}

func (s *stream) ResponseHeaders() (abi.Action, error) {
	return s.header(responseHeaders, s.g.exports.responseHeaders, s.g.exports.responseTrailers)
}

func (s *stream) ResponseBody() (abi.Action, error) {
	return s.body(responseBody, s.g.exports.responseBody, s.g.exports.responseTrailers)
}

func (s *stream) ResponseTrailers() (abi.Action, error) {
	return s.trailer(responseTrailers, s.g.exports.responseTrailers)
}

// message returns the request or the response.
func (s *stream) message(side int) *abi.Message {
	if side == 1 {
		return &s.x.Response
	}
	return &s.x.Request
}

func (s *stream) header(p phase, c, trailers callback) (abi.Action, error) {
	if s.x == nil {
		return abi.Stop, s.g.failed
	}
	m := s.message(p.side())
	n := s.g.count(newFields(m, p.side())).n
	args := [3]uint64{uint64(s.id), uint64(n), flag(lastPart(m, trailers) && len(m.Body) == 0)}
	act, err := s.callback(p, c, args[:min(c.params, 3)]...)
	s.g.uncount() // it may be that no callback ran
	return act, err
}

func (s *stream) body(p phase, c, trailers callback) (abi.Action, error) {
	if s.x == nil {
		return abi.Stop, s.g.failed
	}
	m := s.message(p.side())
	s.passed[p.side()] = true // also when the guest has no callback for it
	return s.callback(p, c, uint64(s.id), uint64(len(m.Body)), flag(lastPart(m, trailers)))
}

func (s *stream) trailer(p phase, c callback) (abi.Action, error) {
	if s.x == nil {
		return abi.Stop, s.g.failed
	}
	m := s.message(p.side())
	s.passed[p.side()] = true
	return s.callback(p, c, uint64(s.id), uint64(count(m.Trailer)))
}

// lastPart reports whether no other callback follows for m. Trailers count
// only for a guest with a callback for them; another would wait in vain.
func lastPart(m *abi.Message, trailers callback) bool {
	return m.Ended && (m.Trailer == nil || !trailers.some())
}

func flag(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

func count(h http.Header) int {
	n := 0
	for _, values := range h {
		n += len(values)
	}
	return n
}

// callback runs c in phase p and translates what it returns.
func (s *stream) callback(p phase, c callback, args ...uint64) (abi.Action, error) {
	side := p.side()
	if s.g.failed != nil || s.stopped[side] {
		return abi.Stop, s.g.failed
	}
	s.phase, s.paused = p, false
	s.resumed = [2]bool{}
	r, err := s.g.invoke(s, c, args...)
	if err != nil {
		return abi.Stop, err
	}
	if s.stopped[side] {
		return abi.Stop, nil
	}
	header := p == requestHeaders || p == responseHeaders
	// ContinueAndEnd is of the C++ SDK's header callbacks alone; what else is
	// not CONTINUE are ways to pause.
	pause := r != actionContinue && !(header && r == actionContinueAndEnd)
	if pause && !s.resumed[side] {
		s.paused = true
		return abi.Pause, nil
	}
	s.resumed[side] = false
	s.passed[side] = true
	return abi.Continue, nil
}

// Resumed reports and forgets that another context's callback let the stream
// go on. One that was answered or closed instead has Exchange.Answered set.
func (s *stream) Resumed(response bool) bool {
	side := 0
	if response {
		side = 1
	}
	r := s.resumed[side]
	s.resumed[side] = false
	return r
}

// End runs proxy_on_done, proxy_on_log and proxy_on_delete; the last two come
// later when the guest asks for time.
func (s *stream) End() error {
	g := s.g
	if s.x == nil {
		return nil
	}
	s.phase, s.paused = ending, false
	s.passed = [2]bool{true, true}
	s.stopped = [2]bool{true, true}
	done, err := g.ask(s, g.exports.done, uint64(s.id))
	over := done || s.doneEarly
	if err == nil && over {
		err = s.finish()
	} else if err == nil {
		s.ended = time.Now()
		g.waiting = append(g.waiting, s)
	}
	s.x = nil
	if err != nil {
		return err
	}
	if over {
		g.spare = s // its owner has let it go, and no list has it
	}
	return g.dismiss()
}

// finish ends the context in the guest.
func (s *stream) finish() error {
	_, err := s.g.invoke(s, s.g.exports.log, uint64(s.id))
	if err == nil {
		_, err = s.g.invoke(s, s.g.exports.delete, uint64(s.id))
	}
	// The context stays known until its last callback returned.
	s.g.streams.remove(s)
	s.x = nil
	return err
}

// resume lets one side go on. In the stream's own callback it undoes the
// PAUSE that is returned; otherwise its owner is woken after the callback.
// A stream that does not wait stays as it is.
func (s *stream) resume(side int) {
	if s.phase.side() != side || s.stopped[side] || s.resumed[side] {
		return
	}
	s.resumed[side] = true
	if s.g.running != s {
		s.wakeLater()
	}
}

// answer ends the exchange of which Response is the answer.
func (s *stream) answer() {
	s.answered = true
	s.x.Answered = true
	s.resumed = [2]bool{}
	if s.g.running != s {
		s.wakeLater()
	}
}

func (s *stream) wakeLater() {
	for _, w := range s.g.woken {
		if w == s {
			return
		}
	}
	s.g.woken = append(s.g.woken, s)
}
