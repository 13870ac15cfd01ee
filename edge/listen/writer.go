package listen

import (
	"net/http"
	"time"
)

// timedWriter bounds how long one write to an HTTP/2 or HTTP/3 stream may take:
// a client that opens no window would hold its handler for ever. A handler
// that sets a deadline times its own writes.
type timedWriter struct {
	http.ResponseWriter
	rc    *http.ResponseController
	stall time.Duration
	timed bool // the handler's deadline is set
}

func newTimedWriter(w http.ResponseWriter, stall time.Duration) *timedWriter {
	return &timedWriter{ResponseWriter: w, rc: http.NewResponseController(w), stall: stall}
}

func (w *timedWriter) Write(p []byte) (int, error) {
	if w.timed {
		return w.ResponseWriter.Write(p)
	}
	w.arm()
	n, err := w.ResponseWriter.Write(p)
	w.disarm() // in HTTP/2 it is a timer that ends the stream
	return n, err
}

// FlushError is what http.ResponseController calls.
func (w *timedWriter) FlushError() error {
	if w.timed {
		return w.rc.Flush()
	}
	w.arm()
	defer w.disarm()
	return w.rc.Flush()
}

// Flush makes it an http.Flusher.
func (w *timedWriter) Flush() { _ = w.FlushError() }

// SetWriteDeadline lets a handler time its own writes.
func (w *timedWriter) SetWriteDeadline(t time.Time) error {
	w.timed = !t.IsZero()
	return w.rc.SetWriteDeadline(t)
}

// Unwrap gives http.ResponseController the rest.
func (w *timedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// arm and disarm ignore errors: a stream without deadlines fails at Write.
func (w *timedWriter) arm()    { _ = w.rc.SetWriteDeadline(time.Now().Add(w.stall)) }
func (w *timedWriter) disarm() { _ = w.rc.SetWriteDeadline(time.Time{}) }
