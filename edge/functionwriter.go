package edge

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"reflect"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"seawall/edge/rfc9111"
	"seawall/wasm"
	"seawall/wasm/abi"
)

// functionWriter lets functions see and change every response on its way to
// the client. When they only look at headers they are called where the header
// is written. Those that want content get it through a pipe, whose other end
// writes to the client: one goroutine more, for such responses only.
type functionWriter struct {
	http.ResponseWriter
	x       *exchange
	header  http.Header // the walk's, when there is a pipe; else the client's
	content bool        // functions want content
	status  int         // what the client got; 0 before
	done    bool        // the rest of the walk's content has no place
	failed  bool        // the client got the node's own error
	bytes   int64       // of content that the client got otherwise than by the walk

	// What the walk said of the connection and of trailers: no guest's to say.
	closing, trailer []string

	pipe *io.PipeWriter
	end  chan struct{} // closed when the other end is done
	err  error         // why it is, after end
}

// errReplaced tells the walk that its content is not wanted.
var errReplaced = errors.New("edge: a function replaced the response")

// wrapResponse puts the functions in the response's way, if they want it.
func (x *exchange) wrapResponse() {
	c := x.called
	header, content := c.run.WantsResponse()
	if !header && !content {
		return
	}
	c.wrapped = true
	c.out = functionWriter{ResponseWriter: x.w, x: x, header: x.w.Header(), content: content}
	if content {
		c.out.header = make(http.Header)
		// A part of what is stored is no part of what functions make of it.
		delete(x.header, "Range")
		delete(x.header, "If-Range")
	}
	x.w = &c.out
	if content {
		x.codeOnTheWay(true) // what functions make of what they read as it is
	}
}

// Header is what the walk writes.
func (w *functionWriter) Header() http.Header { return w.header }

// Unwrap gives http.ResponseController the rest.
func (w *functionWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader runs the functions on the response's header.
func (w *functionWriter) WriteHeader(status int) {
	if status < 200 {
		w.copyHeader(w.header)
		w.ResponseWriter.WriteHeader(status)
		if w.content {
			clear(w.ResponseWriter.Header())
		}
		return
	}
	if w.pipe != nil || w.status != 0 || w.done {
		return
	}
	x := w.x
	ex := &x.called.ex
	w.closing, w.trailer = w.header["Connection"], w.header["Trailer"]
	if w.content {
		weaken(w.header)
	}
	x.called.run.Respond(abi.Message{Status: status, Header: w.header}, x.outcome.String(), x.outcome == Fault)
	empty := x.method == http.MethodHead || !bodyAllowed(status) || one(w.header["Content-Length"]) == "0"
	switch {
	case empty:
		if w.content {
			delete(w.header, "Content-Length") // it is not what functions would make of it
		}
		w.finish(x.called.run.Response(), nil)
	case !w.content, x.socket && status == http.StatusOK: // what follows the latter is no content
		mark := &marker{}
		ex.Response.Source = mark
		w.finish(x.called.run.Response(), mark)
	default:
		w.header = w.header.Clone() // the walk's may get trailers meanwhile
		ex.Response.Header, w.header = w.header, ex.Response.Header
		in, out := io.Pipe()
		ex.Response.Source = in
		w.pipe, w.end = out, make(chan struct{})
		go w.transform(in)
	}
}

func one(lines []string) string {
	if len(lines) == 1 {
		return lines[0]
	}
	return ""
}

// weaken makes a strong entity tag weak: the bytes are others.
func weaken(h http.Header) {
	if tag := one(h["Etag"]); tag != "" && !strings.HasPrefix(tag, "W/") {
		h["Etag"] = []string{"W/" + tag}
	}
	delete(h, "Accept-Ranges")
}

// marker stands for content that no function wants.
type marker struct{}

func (*marker) Read([]byte) (int, error) { return 0, io.EOF }

// finish writes the header as the functions left it, and content of theirs.
// mark is the Source that stands for the walk's content.
func (w *functionWriter) finish(result wasm.Result, mark *marker) {
	m := &w.x.called.ex.Response
	own := m.Source != nil && m.Source != io.Reader(mark)
	if !w.settled(result, m) {
		return
	}
	if !own {
		w.writeHead(m)
		return
	}
	w.done = true
	if w.x.formed { // what described the form that the client would have got
		delete(m.Header, "Content-Encoding")
		delete(m.Header, "Etag")
	}
	w.writeHead(m)
	if w.x.method != http.MethodHead && bodyAllowed(m.Status) {
		w.err = copyOut(w.ResponseWriter, m.Source, &w.bytes)
	}
}

// settled reports whether there is a response to send; else it has sent the
// node's own error.
func (w *functionWriter) settled(result wasm.Result, m *abi.Message) bool {
	if result.Verdict != wasm.Failed && m.Status >= 200 && m.Status <= 599 {
		return true
	}
	x := w.x
	x.h.words.say(levelFault, "function failed", "site", x.site.Name, "function", result.Function, "why", result.Reason)
	w.failed, w.done = true, true
	clear(w.ResponseWriter.Header())
	const text = "503 Service Unavailable\n"
	h := w.ResponseWriter.Header()
	h["Content-Type"] = []string{"text/plain; charset=utf-8"}
	h["Cache-Control"] = []string{"no-store"}
	h["Proxy-Status"] = []string{"seawall; error=proxy_internal_error"}
	h["Cache-Status"] = []string{"seawall; detail=" + detailFunctionFailed}
	restore(h, "Connection", w.closing)
	w.status = http.StatusServiceUnavailable
	w.ResponseWriter.WriteHeader(w.status)
	if x.method != http.MethodHead {
		n, _ := io.WriteString(w.ResponseWriter, text) // the client may be gone
		w.bytes += int64(n)
	}
	return false
}

// writeHead writes status and header as the functions left them.
func (w *functionWriter) writeHead(m *abi.Message) {
	w.status = m.Status
	if m.Changed && (w.closing != nil || w.trailer != nil || ofConnection(m.Header)) {
		dropConnection(m.Header)
		restore(m.Header, "Connection", w.closing)
		restore(m.Header, "Trailer", w.trailer)
	}
	if !bodyAllowed(m.Status) && m.Status != http.StatusNotModified {
		delete(m.Header, "Content-Length")
	}
	w.copyHeader(m.Header)
	to := w.ResponseWriter.Header()
	if _, ok := to["Content-Type"]; !ok {
		to["Content-Type"] = nil // net/http would guess one
	}
	w.ResponseWriter.WriteHeader(m.Status)
}

// ofConnection reports whether there is anything for dropConnection: one pass
// over a small map costs less than to look for each name.
func ofConnection(h http.Header) bool {
	for name := range h {
		switch name {
		case "Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade":
			return true
		}
	}
	return false
}

// dropConnection removes what a guest may have said of the connection. Names
// are canonical here.
func dropConnection(h http.Header) {
	if len(h["Connection"]) > 0 {
		rfc9111.RemoveHopByHop(h)
		return
	}
	for _, name := range [...]string{"Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade"} {
		delete(h, name)
	}
}

// copyHeader puts h where net/http looks for it, if it is not there already.
func (w *functionWriter) copyHeader(h http.Header) {
	to := w.ResponseWriter.Header()
	if reflect.ValueOf(h).Pointer() == reflect.ValueOf(to).Pointer() {
		return // as a rule, when no function wants content
	}
	clear(to)
	for name, lines := range h {
		to[name] = lines
	}
}

// transform sends the response as functions make it of what the pipe brings.
func (w *functionWriter) transform(in *io.PipeReader) {
	defer close(w.end)
	x := w.x
	defer func() {
		if p := recover(); p != nil { // net/http would end the request, not the node
			x.h.Stats.Fault(FaultPanic)
			x.h.words.say(slog.LevelError, "functions panicked", "site", x.site.Name, "panic", fmt.Sprint(p))
			w.err = errReplaced
			_ = in.CloseWithError(w.err) // it returns nil
		}
	}()
	m := &x.called.ex.Response
	result := x.called.run.Response()
	if !w.settled(result, m) {
		in.CloseWithError(errReplaced)
		return
	}
	body := x.called.run.ResponseBody(m.Source)
	w.writeHead(m)
	if body != nil && bodyAllowed(m.Status) {
		w.err = copyOut(w.ResponseWriter, body, &w.bytes)
	}
	if w.err == nil {
		w.err = errReplaced // for a walk that has more than functions took
		_ = in.CloseWithError(w.err)
		w.err = nil
		return
	}
	_ = in.CloseWithError(w.err) // it returns nil
}

// Write sends content, or gives it to the functions.
func (w *functionWriter) Write(p []byte) (int, error) {
	switch {
	case w.pipe != nil: // all else is its other end's
		return w.pipe.Write(p)
	case w.done:
		return 0, errReplaced
	}
	return w.ResponseWriter.Write(p)
}

// FlushError sends what is buffered. The pipe's other end flushes by itself.
func (w *functionWriter) FlushError() error {
	if w.pipe != nil || w.done || w.status == 0 {
		return nil
	}
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// SetWriteDeadline times the walk's writes. The pipe's other end times its
// own: of the walk's deadlines only one that has passed counts, which cuts.
func (w *functionWriter) SetWriteDeadline(t time.Time) error {
	if w.pipe == nil {
		return http.NewResponseController(w.ResponseWriter).SetWriteDeadline(t)
	}
	if !t.IsZero() && !t.After(time.Now()) {
		_ = w.pipe.CloseWithError(os.ErrDeadlineExceeded) // it returns nil
	}
	return nil
}

// complete ends a response that the walk has written whole. It returns an
// error when the client does not have it whole.
func (w *functionWriter) complete() error {
	if w.pipe == nil {
		return w.err
	}
	_ = w.pipe.Close() // it returns nil
	<-w.end
	if w.err != nil {
		return w.err
	}
	to := w.ResponseWriter.Header()
	trailers := w.x.called.run.ResponseTrailers(trailersOf(w.header))
	for name, lines := range trailers {
		if httpguts.ValidTrailerHeader(name) {
			to[http.TrailerPrefix+name] = lines
		}
	}
	return nil
}

// trailersOf returns the trailer fields that the walk has set.
func trailersOf(h http.Header) http.Header {
	var t http.Header
	set := func(name string, lines []string) {
		if t == nil {
			t = make(http.Header)
		}
		t[name] = lines
	}
	for name, lines := range h {
		if plain, ok := strings.CutPrefix(name, http.TrailerPrefix); ok {
			set(plain, lines)
		}
	}
	for _, name := range rfc9111.Members(h["Trailer"]) {
		if lines, ok := h[http.CanonicalHeaderKey(name)]; ok {
			set(http.CanonicalHeaderKey(name), lines)
		}
	}
	return t
}

// abandon ends a response that the walk gave up.
func (w *functionWriter) abandon() {
	if w.pipe != nil {
		_ = w.pipe.CloseWithError(http.ErrAbortHandler) // of no effect after complete
		<-w.end
	}
	if w.status != 0 {
		w.x.sent = w.status
	}
	if w.failed {
		w.x.outcome, w.x.status.detail = Fault, detailFunctionFailed
	}
	if w.pipe != nil || w.done {
		w.x.bytes = w.bytes
	}
}
