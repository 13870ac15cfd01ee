package listen

import (
	"net/http"
	"sync"
	"time"
)

// timedWriter bounds how long one write to an HTTP/2 or HTTP/3 stream may take:
// a client that opens no window would hold its handler for ever. A handler
// that sets a deadline times its own writes.
//
// It keeps timers of its own, which run while something is waited for: a
// deadline of HTTP/2 is a message to the connection's goroutine.
type timedWriter struct {
	http.ResponseWriter
	s       *Server
	request *http.Request
	sent    bool // the final head is
	held    int  // bytes written while nothing went out; over heldBytes when something may have
	timer   *time.Timer
	reading *time.Timer

	of         *running // the connection's, in HTTP/2
	prev, next *timedWriter
	ticks      int  // of the connection's clock that it has seen; guarded by of.mu
	moved      bool // net/http's own deadline of the stream is; guarded by of.mu

	mu    sync.Mutex
	timed time.Time // the handler's deadline; zero is none; guarded by mu
	cut   bool      // the stream's own write deadline is one that has passed; guarded by mu
	due   time.Time // when the write under way is to end; zero while there is none; guarded by mu
	read  time.Time // when reads are to end; zero is never; guarded by mu
}

// heldBytes of content, and the head before them, are kept by net/http and
// quic-go (4 KiB) until the handler ends or flushes: writing them cannot block.
const heldBytes = 2 << 10

// holds counts n bytes more and reports whether all are only held.
func (w *timedWriter) holds(n int) bool {
	if w.held <= heldBytes {
		w.held += n
	}
	return w.held <= heldBytes
}

// rc reaches the stream's deadlines.
func (w *timedWriter) rc() *http.ResponseController {
	return http.NewResponseController(w.ResponseWriter)
}

// WriteHeader sends an interim response at once, which may block.
func (w *timedWriter) WriteHeader(status int) {
	w.clean()
	if status >= 200 {
		w.sent = true
		w.ResponseWriter.WriteHeader(status) // held with what follows
		return
	}
	w.held = heldBytes + 1
	w.arm()
	defer w.disarm()
	w.ResponseWriter.WriteHeader(status)
}

func (w *timedWriter) Write(p []byte) (int, error) {
	w.clean()
	w.sent = true
	if w.holds(len(p)) {
		return w.ResponseWriter.Write(p)
	}
	var all int
	for { // in pieces: the time is for a client that takes nothing
		n, err := w.writePiece(p[all:min(len(p), all+writePiece)])
		if all += n; err != nil || all == len(p) {
			return all, err
		}
	}
}

func (w *timedWriter) writePiece(p []byte) (int, error) {
	w.arm()
	defer w.disarm()
	return w.ResponseWriter.Write(p)
}

// FlushError is what http.ResponseController calls.
func (w *timedWriter) FlushError() error {
	w.clean()
	w.sent = true
	w.held = heldBytes + 1
	w.arm()
	defer w.disarm()
	return w.rc().Flush()
}

// Flush makes it an http.Flusher.
func (w *timedWriter) Flush() { _ = w.FlushError() }

// SetWriteDeadline lets a handler time its own writes. One that has passed ends
// the write under way, in HTTP/2 the stream.
func (w *timedWriter) SetWriteDeadline(t time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timed = t
	if !t.IsZero() && time.Until(t) <= 0 {
		return w.cutLocked()
	}
	if w.cut && w.request.ProtoMajor == 3 { // one that has passed may be taken back
		w.cut = false
		if err := w.setWriteDeadline(time.Time{}); err != nil {
			return err
		}
	}
	if !w.due.IsZero() {
		w.startLocked()
	}
	return nil
}

// longAgo is a deadline that has passed.
func longAgo() time.Time { return time.Unix(1, 0) }

// setWriteDeadline is the stream's own, without a controller for each answer.
func (w *timedWriter) setWriteDeadline(t time.Time) error {
	if to, ok := w.ResponseWriter.(interface{ SetWriteDeadline(time.Time) error }); ok {
		return to.SetWriteDeadline(t)
	}
	return w.rc().SetWriteDeadline(t)
}

// SetReadDeadline bounds how long content is waited for. In HTTP/2 content that
// was not there in time does not come any more.
func (w *timedWriter) SetReadDeadline(t time.Time) error {
	if w.request.ProtoMajor == 3 {
		return w.rc().SetReadDeadline(t)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.read = t
	left := time.Until(t)
	switch {
	case t.IsZero() && w.reading != nil:
		w.reading.Stop()
	case t.IsZero():
	case left <= 0:
		return w.rc().SetReadDeadline(longAgo())
	case w.reading == nil:
		w.reading = time.AfterFunc(left, w.unread)
	default:
		w.reading.Reset(left)
	}
	return nil
}

// unread ends reads, unless the timer that called it was set again meanwhile.
func (w *timedWriter) unread() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.read.IsZero() && time.Until(w.read) <= 0 {
		_ = w.rc().SetReadDeadline(longAgo()) // it does not fail in HTTP/2
	}
}

// Unwrap gives http.ResponseController the rest.
func (w *timedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *timedWriter) arm() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.startLocked()
}

// startLocked gives the write under way its time.
func (w *timedWriter) startLocked() {
	if w.due = w.timed; w.due.IsZero() {
		w.due = time.Now().Add(w.s.WriteTimeout)
	}
	switch left := time.Until(w.due); {
	case left <= 0:
		_ = w.cutLocked() // a stream without deadlines fails at Write
	case w.timer == nil:
		w.timer = time.AfterFunc(left, w.expired)
	default:
		w.timer.Reset(left)
	}
}

// cutLocked ends the write under way and those that come, in HTTP/2 the stream.
func (w *timedWriter) cutLocked() error {
	w.cut = true
	return w.setWriteDeadline(longAgo())
}

// disarm returns when expired is not running and will do nothing any more: the
// stream is not to be touched when its handler has returned.
func (w *timedWriter) disarm() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.timer.Stop()
	}
	w.due = time.Time{}
}

// expired ends the write that is under way, unless its time was set again. A
// handler that times its own writes is told, and counts them.
func (w *timedWriter) expired() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.due.IsZero() || time.Until(w.due) > 0 {
		return
	}
	_ = w.cutLocked() // a stream without deadlines fails at Write
	if w.timed.IsZero() {
		w.s.Count(Stalled)
	}
}

// begin is for before the handler.
func (w *timedWriter) begin() {
	if w.of != nil {
		w.of.enter(w)
	}
}

// end must be deferred: nothing may touch the stream when its handler has
// returned, or panicked. What is written then has a deadline of net/http's or
// quic-go's.
func (w *timedWriter) end() {
	w.mu.Lock()
	w.read = time.Time{}
	if w.reading != nil {
		w.reading.Stop()
	}
	w.mu.Unlock()
	if w.of == nil || w.of.leave(w) {
		_ = w.setWriteDeadline(time.Now().Add(w.s.WriteTimeout)) // a stream without deadlines fails at Write
	}
}

// ofConnections are the fields that HTTP/2 and 3 have not (RFC 9113, 8.2.2;
// RFC 9114, 4.2). net/http takes out Connection, and closes if that says so.
var ofConnections = [...]string{"Keep-Alive", "Proxy-Connection", "Transfer-Encoding", "Upgrade"}

// clean keeps off the wire what the libraries let through: fields of the
// connection, and in HTTP/3 the word that the representation is empty where a
// HEAD was answered without its length (RFC 9110, 8.6).
func (w *timedWriter) clean() {
	if w.sent {
		return
	}
	h := w.Header()
	for _, name := range ofConnections {
		delete(h, name)
	}
	if w.request.ProtoMajor < 3 {
		return
	}
	delete(h, "Connection")
	if _, known := h["Content-Length"]; !known && w.request.Method == http.MethodHead {
		h["Content-Length"] = nil // present, so none is made up
	}
}
