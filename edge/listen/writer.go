package listen

import (
	"net/http"
	"sync"
	"time"
)

// never is a deadline that is none. In HTTP/2 a deadline is a timer that the end
// of its stream stops. One that is first set when the client has reset the
// stream already would be stopped by nobody, and hold the stream and all of its
// connection until it is over; where there is one from the stream's beginning,
// net/http sees that it was stopped and sets none.
const never = 10 * 365 * 24 * time.Hour

// noneIs returns the deadline that stands for none on the stream of r.
func noneIs(r *http.Request) time.Time {
	if r.ProtoMajor == 2 {
		return time.Now().Add(never)
	}
	return time.Time{}
}

// timedWriter bounds how long one write to an HTTP/2 or HTTP/3 stream may take:
// a client that opens no window would hold its handler for ever. A handler
// that sets a deadline times its own writes.
//
// It keeps its own timer: a deadline of HTTP/2 is a message to the connection's
// goroutine, twice a write.
type timedWriter struct {
	http.ResponseWriter
	s       *Server
	request *http.Request
	timed   bool // the handler's deadline is set
	sent    bool // the final head is
	held    int  // bytes written while nothing went out; over heldBytes when something may have
	timer   *time.Timer

	mu    sync.Mutex
	armed bool // a write is under way; guarded by mu
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

// SetWriteDeadline lets a handler time its own writes.
func (w *timedWriter) SetWriteDeadline(t time.Time) error {
	if w.timed = !t.IsZero(); !w.timed {
		t = noneIs(w.request)
	}
	return w.setWriteDeadline(t)
}

// setWriteDeadline is the stream's own, without a controller for each answer.
func (w *timedWriter) setWriteDeadline(t time.Time) error {
	if to, ok := w.ResponseWriter.(interface{ SetWriteDeadline(time.Time) error }); ok {
		return to.SetWriteDeadline(t)
	}
	return w.rc().SetWriteDeadline(t)
}

// SetReadDeadline bounds how long content is waited for.
func (w *timedWriter) SetReadDeadline(t time.Time) error {
	if t.IsZero() {
		t = noneIs(w.request)
	}
	return w.rc().SetReadDeadline(t)
}

// Unwrap gives http.ResponseController the rest.
func (w *timedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *timedWriter) arm() {
	if w.timed {
		return
	}
	w.mu.Lock()
	w.armed = true
	w.mu.Unlock()
	if w.timer == nil {
		w.timer = time.AfterFunc(w.s.WriteTimeout, w.expired)
	} else {
		w.timer.Reset(w.s.WriteTimeout)
	}
}

// disarm returns when expired is not running and will do nothing any more: the
// stream is not to be touched when its handler has returned.
func (w *timedWriter) disarm() {
	if w.timer != nil {
		w.timer.Stop()
	}
	w.mu.Lock()
	w.armed = false
	w.mu.Unlock()
}

// expired ends the write that is under way.
func (w *timedWriter) expired() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.armed {
		w.armed = false
		_ = w.setWriteDeadline(time.Unix(1, 0)) // ends the stream in HTTP/2, the write in HTTP/3
		w.s.Count(Stalled)
	}
}

// finish is for what is written when the handler has returned.
func (w *timedWriter) finish() {
	w.clean()
	if !w.timed {
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
