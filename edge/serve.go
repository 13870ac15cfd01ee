package edge

import (
	"math"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"time"

	"seawall/edge/rfc9111"
	"seawall/edge/store"
)

// readFrom gives readers of the object being served: the seat of a fill, or
// the object's body.
type readFrom interface {
	Reader(off, length int64) *store.Reader
}

// serveHit answers from the stored object, fresh or stale.
func (x *exchange) serveHit() {
	o := x.object
	o.Used(x.now)
	ttl := seconds(x.terms.TTL(x.now))
	s := o.Meta.stampFor(ttl, o.Body.Size())
	h := x.w.Header()
	h["Age"] = x.h.age(&x.terms, x.now)
	if h["Cache-Status"] = s.status; s.status == nil {
		h["Cache-Status"] = x.h.hits.of(ttl)
	}
	x.send(o, o.Body, s.length)
}

// age returns the Age of what has these terms (RFC 9111, 5.1).
func (h *Handler) age(terms *rfc9111.Terms, now time.Time) []string {
	return h.ages.of(min(seconds(terms.Age(now)), math.MaxInt32))
}

// send answers with o: a 304 where the client's condition allows, the ranges
// it asked for, or everything. length is the prepared Content-Length of the
// whole, nil when there is none yet. Age and Cache-Status are the caller's;
// x.status is used when the latter was not set.
func (x *exchange) send(o *Object, from readFrom, length []string) {
	m := &o.Meta
	if m.faces != nil && x.sendForm(o, from) {
		return
	}
	if m.Status == http.StatusOK {
		if rfc9111.NotModified(x.method, x.header, m.Validators) {
			x.notModified(m, nil)
			return
		}
		if len(x.header["Range"]) > 0 && x.sendRanges(o, from) {
			return
		}
	}
	h := x.w.Header()
	x.fields(m)
	size := o.Body.Size()
	p, whole := o.Body.Whole()
	trailer, _ := o.Body.Trailer().(http.Header)
	switch {
	case m.Status == http.StatusNoContent || trailer != nil && x.method == http.MethodGet:
	case whole && x.counted(size):
	case length != nil:
		h["Content-Length"] = length
	case size >= 0:
		h["Content-Length"] = []string{strconv.FormatInt(size, 10)}
	}
	if x.method == http.MethodHead {
		x.head(m.Status)
		return
	}
	if whole {
		x.head(m.Status)
		if trailer != nil {
			_ = http.NewResponseController(x.w).Flush() // else net/http sends a length, and no trailers
		}
		if len(p) > 0 {
			x.write(p)
		}
		x.held = x.counted(size) // looking at the time once more would tell nothing
	} else {
		r := from.Reader(0, -1)
		defer r.Close()
		x.head(m.Status)
		x.stream(r, x.w)
		trailer, _ = o.Body.Trailer().(http.Header)
	}
	x.trailers(trailer)
}

// counted reports whether net/http writes the Content-Length of a whole body of
// this size by itself, as it does in HTTP/1.1 and 2 for what it still holds when
// the handler ends (2,048 bytes at least). A ninth field costs the header's map a
// table, twice.
func (x *exchange) counted(size int64) bool {
	return size > 0 && size < 2<<10 && x.r.ProtoMajor < 3 && x.method == http.MethodGet && x.called == nil
}

// fields sets the stored fields. Their slices are shared: net/http only reads
// them.
func (x *exchange) fields(m *Meta) {
	h := x.w.Header()
	for i := range m.Fields {
		h[m.Fields[i].Name] = m.Fields[i].Values
	}
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // net/http would guess one
	}
}

// notModified sends the 304 of a stored response (RFC 9110, 15.4.5), with the
// ETag of one of its forms unless tag is nil.
func (x *exchange) notModified(m *Meta, tag []string) {
	h := x.w.Header()
	for name, values := range rfc9111.NotModifiedHeader(m.header()) {
		h[name] = values
	}
	for _, f := range m.Fields {
		if f.Name == "Via" || f.Name == "Vary" {
			h[f.Name] = f.Values
		}
	}
	if tag != nil {
		h["Etag"] = tag
	}
	x.head(http.StatusNotModified)
}

// sendRanges answers a Range request (RFC 9110, 14). It returns false when the
// whole must be sent.
func (x *exchange) sendRanges(o *Object, from readFrom) bool {
	size := o.Body.Size()
	if size < 0 || !rfc9111.IfRange(x.header, o.Meta.Validators) {
		return false
	}
	ranges, answer := rfc9111.Ranges(x.method, x.header, size)
	switch answer {
	case rfc9111.RangeUnsatisfiable:
		h := x.w.Header()
		x.fields(&o.Meta)
		delete(h, "Content-Encoding")
		h["Content-Type"] = nil
		h["Content-Range"] = []string{rfc9111.UnsatisfiedRange(size)}
		h["Content-Length"] = []string{"0"}
		x.head(http.StatusRequestedRangeNotSatisfiable)
		return true
	case rfc9111.RangePartial:
		switch {
		case len(ranges) == 1:
			x.sendRange(o, from, ranges[0], size)
		case !o.Body.Complete():
			// One that grows is read forward only: readers that wait for their
			// turn would hold up the others.
			return false
		default:
			x.sendMultipart(o, from, ranges, size)
		}
		return true
	}
	return false
}

func (x *exchange) sendRange(o *Object, from readFrom, part rfc9111.Range, size int64) {
	r := from.Reader(part.Start, part.Length)
	defer r.Close()
	x.fields(&o.Meta)
	h := x.w.Header()
	h["Content-Range"] = []string{rfc9111.ContentRange(part, size)}
	h["Content-Length"] = []string{strconv.FormatInt(part.Length, 10)}
	x.head(http.StatusPartialContent)
	x.stream(r, x.w)
}

// sendMultipart sends several ranges as multipart/byteranges (RFC 9110, 14.6).
func (x *exchange) sendMultipart(o *Object, from readFrom, ranges []rfc9111.Range, size int64) {
	readers := make([]*store.Reader, len(ranges))
	for i, part := range ranges {
		readers[i] = from.Reader(part.Start, part.Length)
		defer readers[i].Close()
	}
	var head counter
	mw := multipart.NewWriter(&head)
	partHead := func(part rfc9111.Range) textproto.MIMEHeader {
		h := textproto.MIMEHeader{"Content-Range": {rfc9111.ContentRange(part, size)}}
		for _, f := range o.Meta.Fields {
			if f.Name == "Content-Type" {
				h["Content-Type"] = f.Values
			}
		}
		return h
	}
	for _, part := range ranges {
		_, _ = mw.CreatePart(partHead(part)) // a counter does not fail
		head += counter(part.Length)
	}
	_ = mw.Close() // nor here

	x.fields(&o.Meta)
	h := x.w.Header()
	h["Content-Type"] = []string{"multipart/byteranges; boundary=" + mw.Boundary()}
	h["Content-Length"] = []string{strconv.FormatInt(int64(head), 10)}
	x.head(http.StatusPartialContent)
	out := multipart.NewWriter(countedWriter{x})
	_ = out.SetBoundary(mw.Boundary()) // it was one before
	for i, part := range ranges {
		to, err := out.CreatePart(partHead(part))
		if err != nil || !x.stream(readers[i], to) {
			return
		}
	}
	_ = out.Close() // the client is gone
}

// counter counts what is written.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// countedWriter writes to the client. Content counts once: stream counts what
// it writes itself.
type countedWriter struct{ x *exchange }

func (w countedWriter) Write(p []byte) (int, error) { return w.x.w.Write(p) }

// head writes the status line and header.
func (x *exchange) head(status int) {
	h := x.w.Header()
	if x.outcome != Hit && x.outcome != Stale || x.status.fwd != "" {
		if x.fwdKnown != status {
			x.status.fwdStatus = x.fwdKnown
		}
		upstream := h["Cache-Status"]
		h["Cache-Status"] = append(slices.Clip(upstream), string(x.status.append(make([]byte, 0, 80))))
	}
	if x.r.ProtoMajor == 1 && x.content.unread() {
		h["Connection"] = []string{"close"} // what is left of the content is no request
	}
	x.sent = status
	x.firstByte = time.Since(x.now)
	x.w.WriteHeader(status)
}

// write sends content. It reports false when the client is gone.
func (x *exchange) write(p []byte) bool {
	n, err := x.w.Write(p)
	x.bytes += int64(n)
	return err == nil
}

// trailers sends trailer fields behind the content.
func (x *exchange) trailers(t http.Header) {
	if x.coding() {
		t = undigested(t)
	}
	if len(t) == 0 || x.method == http.MethodHead {
		return
	}
	_ = http.NewResponseController(x.w).Flush() // else net/http may send a length, and no trailers
	h := x.w.Header()
	for name, values := range t {
		h[http.TrailerPrefix+name] = values
	}
}

// refuse answers with an error of the node's own, not of the origin's making.
func (x *exchange) refuse(status int, detail string) {
	if x.outcome != Local {
		x.outcome = Fault
	}
	x.status.detail = detail
	kind := "http_request_error"
	if status >= 500 {
		kind = "proxy_internal_response"
	}
	x.w.Header()["Proxy-Status"] = []string{"seawall; error=" + kind}
	x.page(status)
}

// fail answers with an error on the way to the origin, of an RFC 9209 type.
func (x *exchange) fail(status int, kind string) {
	x.outcome = Fault
	x.w.Header()["Proxy-Status"] = []string{"seawall; error=" + kind}
	x.page(status)
}

// page writes a short error page. Errors are never stored on the way.
func (x *exchange) page(status int) {
	h := x.w.Header()
	text := strconv.Itoa(status) + " " + http.StatusText(status) + "\n"
	h["Content-Type"] = []string{"text/plain; charset=utf-8"}
	h["Cache-Control"] = []string{"no-store"}
	h["Content-Length"] = []string{strconv.Itoa(len(text))}
	x.fwdKnown = 0
	x.leaveContent()
	x.head(status)
	if x.method != http.MethodHead {
		x.write([]byte(text))
	}
}

// leaveContent is for answers to requests whose content nobody has read. In
// HTTP/1 net/http reads some of it before it answers, and would wait for ever
// for what the client announced and does not send.
func (x *exchange) leaveContent() {
	if x.r.ProtoMajor == 1 && x.content == nil && hasContent(x.r) {
		_ = http.NewResponseController(x.w).SetReadDeadline(time.Now().Add(time.Second)) // not every connection has one
	}
}
