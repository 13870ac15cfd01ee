package edge

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
	"sync"

	"seawall/edge/encode"
	"seawall/edge/rfc9111"
)

// codedWriter codes a response on its way to one client, if it is worth that:
// what is not stored, what is too large to be, and what functions made. It
// decides where the header is written.
type codedWriter struct {
	http.ResponseWriter
	x        *exchange
	personal bool // the response is for this client alone
	began    bool
	held     bool // the coder has bytes that the client did not get
	coder    *encode.Encoder
	read     uint64 // bytes of the content before coding
}

// codeOnTheWay puts a codedWriter between the response and the client. It is
// behind the functions: theirs is coded like any other.
func (x *exchange) codeOnTheWay(personal bool) {
	if x.site.encodes() == nil || x.coded != nil || x.socket {
		return
	}
	w := &codedWriter{x: x, personal: personal}
	x.coded = w
	if x.called != nil && x.called.wrapped {
		w.ResponseWriter, x.called.out.ResponseWriter = x.called.out.ResponseWriter, w
		return
	}
	w.ResponseWriter, x.w = x.w, w
}

// Unwrap gives http.ResponseController the rest.
func (w *codedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader decides, and makes the header that of the coding.
func (w *codedWriter) WriteHeader(status int) {
	if status >= 200 && !w.began {
		w.began = true
		w.decide(status)
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *codedWriter) decide(status int) {
	x, h := w.x, w.Header()
	e := x.site.encodes()
	if status == http.StatusPartialContent {
		w.partly(e)
		return
	}
	size := int64(encode.Unknown)
	if n, err := strconv.ParseInt(one(h["Content-Length"]), 10, 64); err == nil {
		size = n
	}
	if endless(h) {
		if size = encode.Endless; !e.Events || mediaOf(h) != "text/event-stream" {
			return
		}
	}
	if len(h["Proxy-Status"]) > 0 || size == 0 || e.Judge(encode.Response{
		Status: status, Header: h, Size: size,
		Exposed: w.personal && (x.exposed || encode.Exposed(x.header, h, x.r.RequestURI) || x.reflects()),
	}) != encode.Codable {
		return
	}
	c := encode.Identity
	if !encode.NoTransformed(x.header["Cache-Control"]) {
		c, _ = encode.Accept(x.header["Accept-Encoding"]).Choose(e.streams(), encode.SetOf(encode.Identity), e.makes())
	}
	if c != encode.Identity && x.method != http.MethodHead {
		coder, ok := x.h.Coders.Acquire(c, size, w.ResponseWriter)
		if !ok {
			c = encode.Identity
		}
		w.coder = coder
	}
	encode.SetCoded(h, c)
}

// partly adds to a part what the whole would say (RFC 9110, 15.3.7).
func (w *codedWriter) partly(e *Encode) {
	h := w.Header()
	whole := maps.Clone(h)
	delete(whole, "Content-Range")
	if e.Judge(encode.Response{Status: http.StatusOK, Header: whole, Size: encode.Unknown}) == encode.Codable {
		encode.SetCoded(h, encode.Identity)
	}
}

// reflects reports whether the request has content, which the answer may show,
// of a client that the origin may know.
func (x *exchange) reflects() bool {
	return x.method != http.MethodGet && x.method != http.MethodHead && len(x.header["Cookie"]) > 0
}

// Write codes content, or sends it as it is.
func (w *codedWriter) Write(p []byte) (int, error) {
	if w.coder == nil {
		return w.ResponseWriter.Write(p)
	}
	w.held = true
	w.read += uint64(len(p))
	return w.coder.Write(p)
}

// FlushError sends what is here, so that the client can decode it at once.
func (w *codedWriter) FlushError() error {
	if w.coder != nil && w.held {
		w.held = false
		if err := w.coder.Flush(); err != nil {
			return err
		}
	}
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// completeCoded ends the coding of a response that was written whole.
func (x *exchange) completeCoded() {
	if x.coded == nil || x.coded.coder == nil {
		return
	}
	if x.coded.coder.Close() != nil {
		panic(http.ErrAbortHandler) // the client must not take it for whole
	}
}

// endCoded gives the coder back, and counts what the client got.
func (x *exchange) endCoded() {
	w := x.coded
	if w == nil || w.coder == nil {
		return
	}
	w.coder.Abort()
	x.bytes = w.coder.Written()
	x.h.Stats.Encode.In.Add(w.read)
	x.h.Stats.Encode.Out.Add(uint64(x.bytes))
}

// retag gives the 304 of an origin that was asked by StripTags the entity tag
// that the client has.
func (x *exchange) retag(h http.Header) {
	v := rfc9111.Validators{ETag: one(h["Etag"])}
	if x.site.encodes() == nil || v.ETag == "" || rfc9111.NotModified(http.MethodGet, x.header, v) {
		return
	}
	accepted := encode.Accept(x.header["Accept-Encoding"])
	for i := identityForm + 1; i < forms; i++ {
		if !accepted.Takes(encode.Coding(i)) {
			continue
		}
		v.ETag = encode.Tag(one(h["Etag"]), encode.Coding(i))
		if rfc9111.NotModified(http.MethodGet, x.header, v) {
			h["Etag"] = []string{v.ETag}
			h["Vary"] = encode.MergeVary(h["Vary"])
			return
		}
	}
}

// coding reports whether what the walk writes goes through a coder in its own
// goroutine.
func (x *exchange) coding() bool {
	if x.coded == nil || x.called != nil && x.called.wrapped && x.called.out.pipe != nil {
		return false
	}
	return x.coded.coder != nil
}

// ahead reads content one piece before it is asked for, so that it is known
// whether more is here: only a wait is worth a flush through the coder.
type ahead struct {
	from   io.Reader
	full   chan piece
	free   chan []byte
	quit   chan struct{}
	wait   sync.WaitGroup
	now    piece
	rest   []byte
	closer func()
}

type piece struct {
	buffer []byte
	n      int
	err    error
}

func readAhead(from io.ReadCloser) *ahead {
	a := &ahead{from: from, full: make(chan piece, 1), free: make(chan []byte, 2), quit: make(chan struct{}), closer: func() { from.Close() }}
	for range cap(a.free) {
		a.free <- make([]byte, 32<<10)
	}
	a.wait.Go(a.run)
	return a
}

func (a *ahead) run() {
	for {
		var buffer []byte
		select {
		case buffer = <-a.free:
		case <-a.quit:
			return
		}
		n, err := a.read(buffer)
		select {
		case a.full <- piece{buffer, n, err}:
		case <-a.quit:
			return
		}
		if err != nil {
			return
		}
	}
}

// read contains a panic of what is read, which net/http would have contained
// in the walk's own goroutine.
func (a *ahead) read(p []byte) (n int, err error) {
	defer func() {
		if v := recover(); v != nil {
			n, err = 0, fmt.Errorf("edge: reading panicked: %v", v)
		}
	}()
	return a.from.Read(p)
}

// waits reports whether the next Read would wait.
func (a *ahead) waits() bool { return len(a.rest) == 0 && a.now.err == nil && len(a.full) == 0 }

func (a *ahead) Read(p []byte) (int, error) {
	if len(a.rest) == 0 {
		if a.now.err != nil {
			return 0, a.now.err
		}
		if a.now.buffer != nil {
			a.free <- a.now.buffer
		}
		a.now = <-a.full
		a.rest = a.now.buffer[:a.now.n]
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	if len(a.rest) == 0 {
		return n, a.now.err
	}
	return n, nil
}

// stop ends the reading; what it was reading is closed.
func (a *ahead) stop() {
	close(a.quit)
	a.closer()
	a.wait.Wait()
}
