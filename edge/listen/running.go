package listen

import (
	"sync"
	"sync/atomic"
	"time"
)

// running are the exchanges under way on one HTTP/2 connection.
//
// What a handler leaves to be written when it returns needs a deadline, since
// its client may take nothing. net/http sets one when a stream begins, of
// streamTime times WriteTimeout, and that is enough for all that end soon. Who
// takes longer has it taken away by a clock that ticks while there are any: a
// timer for each, or a message to the connection's goroutine as setting a
// deadline is, would cost what a small answer costs. A deadline that is first
// set when the client has reset the stream would be stopped by nobody, and hold
// the stream and its connection until it is over; one from the stream's
// beginning is stopped with it.
type running struct {
	clock atomic.Pointer[time.Timer]
	mu    sync.Mutex
	first *timedWriter // guarded by mu, as the list it begins
	going bool         // the clock will tick; guarded by mu
}

// A stream's deadline is moved at the second tick it sees, half of WriteTimeout
// apart: when the exchange has taken between half and all of WriteTimeout. An
// answer that waits for its client when it did not see two has WriteTimeout at
// least until net/http's deadline, and streamTime times that at most.
const (
	streamTime = 2
	movedAt    = 2
)

// noDeadline is one that is as good as none. It replaces another: net/http stops
// a timer that is there when the stream ends.
const noDeadline = 10 * 365 * 24 * time.Hour

func (s *running) enter(w *timedWriter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.next = s.first; w.next != nil {
		w.next.prev = w
	}
	s.first = w
	if s.going {
		return
	}
	s.going = true
	if clock := s.clock.Load(); clock != nil {
		clock.Reset(w.s.WriteTimeout / 2)
	} else {
		s.clock.Store(time.AfterFunc(w.s.WriteTimeout/2, s.tick))
	}
}

// leave reports whether the stream's own deadline was moved.
func (s *running) leave(w *timedWriter) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		s.first = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	}
	w.prev, w.next = nil, nil
	return w.moved
}

// tick moves the deadlines of those that take long. It holds mu, so that none of
// them ends meanwhile.
func (s *running) tick() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for w := s.first; w != nil; w = w.next {
		if w.ticks++; w.ticks == movedAt {
			w.moved = true
			_ = w.setWriteDeadline(time.Now().Add(noDeadline)) // it does not fail in HTTP/2
		}
	}
	if s.going = s.first != nil; s.going {
		s.clock.Load().Reset(s.first.s.WriteTimeout / 2)
	}
}

// stop is for when the connection is closed: its exchanges end by that.
func (s *running) stop() {
	if clock := s.clock.Load(); clock != nil {
		clock.Stop()
	}
}
