package admin

import (
	"errors"
	"io"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"seawall/edge"
	"seawall/purge"
)

// The fields of a push beside the representation's own.
const (
	statusField = "Seawall-Status"
	extraField  = "Seawall-Header" // carries any other field, as "Name: value"
)

// pushed are the fields of a push that become the stored response's, beside
// all that begin with Content-. Others are the client's own: User-Agent, say, or
// what a proxy added. Set-Cookie is among them so that it is judged, not lost.
var pushed = [...]string{
	"Cache-Control", "Cdn-Cache-Control", "Surrogate-Control", "Expires", "Date", "Age", "Etag", "Last-Modified", "Vary", "No-Vary-Search",
	"Surrogate-Key", "Xkey", "Cache-Tag", "Edge-Cache-Tag", "X-Cache-Tags", "Cache-Groups",
	"Location", "Link", "Set-Cookie", "Repr-Digest", "Digest", "Accept-Ranges",
	"Access-Control-Allow-Origin", "Access-Control-Allow-Methods", "Access-Control-Allow-Headers", "Access-Control-Expose-Headers",
}

// Pushed reports whether a field of a push becomes the stored response's as it
// is; any other goes into Seawall-Header. name is canonical.
func Pushed(name string) bool {
	return strings.HasPrefix(name, "Content-") && !framing(name) || slices.Contains(pushed[:], name)
}

// framing reports whether a field is of the message, not of what it carries.
func framing(name string) bool {
	switch name {
	case "Content-Length", "Content-Range", "Transfer-Encoding", "Trailer", "Connection", "Keep-Alive", "Te", "Upgrade", "Proxy-Connection", "Proxy-Authenticate":
		return true
	}
	return false
}

// objectAnswer is the answer to a push.
type objectAnswer struct {
	URL     string  `json:"url"`
	Key     string  `json:"key"`
	Variant string  `json:"variant"`
	Status  int     `json:"status"`
	Size    int64   `json:"size"`
	TTL     float64 `json:"ttl"` // seconds
}

// putObject is PUT /v1/objects?url=U: it stores a response.
func putObject(c *call) {
	raw, ok := c.oneURL("url", "header")
	if !ok {
		return
	}
	p := edge.Push{URL: raw, Ask: make(http.Header), Status: http.StatusOK, Header: make(http.Header), Size: c.r.ContentLength}
	if bad := c.representation(&p); len(bad) > 0 {
		c.invalid(bad...)
		return
	}
	limit := c.h.Cache.MaxObject
	if limit > 0 && p.Size > limit {
		c.tooLarge(limit)
		return
	}
	body := c.r.Body
	if limit > 0 {
		body = http.MaxBytesReader(c.w, body, limit)
	}
	p.Body = &awaited{c, body}
	done, err := c.h.Cache.Push(c.r.Context(), p)
	var large *http.MaxBytesError
	var refused *edge.PushError
	switch {
	case err == nil:
		c.ok(http.StatusOK, objectAnswer{raw, done.Key, done.Variant, done.Status, done.Size, done.TTL.Seconds()})
	case errors.As(err, &large):
		c.tooLarge(limit)
	case errors.As(err, &refused):
		c.fail(refused.Status, "The response was not stored.", &purge.FieldError{Field: refused.Field, Detail: refused.Detail})
	case errors.Is(err, io.ErrUnexpectedEOF) || c.r.Context().Err() != nil:
		c.fail(http.StatusBadRequest, "The content ended early; nothing was stored.", &purge.FieldError{Field: "body", Detail: "is shorter than it should be"})
	default:
		c.h.Log.Error("push", "error", err)
		c.fail(http.StatusServiceUnavailable, "The response was not stored.")
	}
}

func (c *call) tooLarge(limit int64) {
	c.fail(http.StatusRequestEntityTooLarge, "The content is larger than what is kept of one response; nothing was stored.",
		&purge.FieldError{Field: "body", Detail: "is larger than " + strconv.FormatInt(limit, 10) + " bytes, the most that one response may have (cache.max_object)"})
}

// awaited bounds how long each part of the content may take to come.
type awaited struct {
	c    *call
	body io.Reader
}

func (a *awaited) Read(b []byte) (int, error) {
	a.c.awaitBody()
	n, err := a.body.Read(b)
	if err == io.EOF {
		a.c.bodyRead()
	}
	return n, err
}

// oneURL reads the query, which must have url once and else only the fields
// named, and sees that the caller may act on it. If not, the call has been
// answered.
func (c *call) oneURL(fields ...string) (raw string, ok bool) {
	query := c.r.URL.Query()
	c.what = "url=" + clip(query.Get("url"))
	var bad []*purge.FieldError
	for name := range query {
		if !slices.Contains(fields, name) {
			bad = append(bad, &purge.FieldError{Field: name, Detail: "is no parameter of this call; it has " + strings.Join(fields, ", ")})
		}
	}
	var normal []purge.URL
	if len(query["url"]) != 1 {
		bad = append(bad, &purge.FieldError{Field: "url", Detail: "is needed once in the query, percent-encoded, as ?url=http%3A%2F%2Fexample.com%2Fa"})
	} else {
		raw = query.Get("url")
		var err error
		if normal, err = c.h.Cache.Normal(raw); err != nil {
			bad = append(bad, &purge.FieldError{Field: "url", Detail: err.Error()})
		}
	}
	if len(bad) > 0 {
		slices.SortFunc(bad, func(a, b *purge.FieldError) int { return strings.Compare(a.Field, b.Field) })
		c.invalid(bad...)
		return "", false
	}
	for _, n := range normal {
		if why := c.outsideHost(n.Host); why != "" {
			return "", c.refuse(http.StatusForbidden, why)
		}
	}
	return raw, true
}

// representation reads what the response is to be: fields, status, and the
// request's fields that choose it.
func (c *call) representation(p *edge.Push) (bad []*purge.FieldError) {
	fault := func(field, detail string) { bad = append(bad, &purge.FieldError{Field: field, Detail: detail}) }
	for name, values := range c.r.Header {
		if Pushed(name) {
			p.Header[name] = slices.Clone(values)
		}
	}
	if c.r.Header["Content-Range"] != nil {
		fault("Content-Range", "is of a part; only a whole response can be pushed")
	}
	for _, line := range c.r.Header[extraField] {
		name, value, ok := splitField(line)
		if !ok || framing(name) {
			fault(extraField, "is not Name: value of a field that a response can have")
			continue
		}
		p.Header.Add(name, value)
	}
	for _, line := range c.r.URL.Query()["header"] {
		name, value, ok := splitField(line)
		if !ok || framing(name) {
			fault("header", "is not Name:value of a field that a request can have")
			continue
		}
		p.Ask.Add(name, value)
	}
	if status := c.r.Header[statusField]; len(status) > 0 {
		n, err := strconv.Atoi(status[0])
		if err != nil || n < 200 || n > 599 || len(status) > 1 {
			fault(statusField, "is not one status from 200 to 599")
		}
		p.Status = n
	}
	return bad
}

// splitField parts Name: value, with a canonical name.
func splitField(line string) (name, value string, ok bool) {
	name, value, ok = strings.Cut(line, ":")
	value = strings.TrimSpace(value)
	ok = ok && httpguts.ValidHeaderFieldName(name) && httpguts.ValidHeaderFieldValue(value)
	return textproto.CanonicalMIMEHeaderKey(name), value, ok
}

// getObjects is GET /v1/objects?url=U.
func getObjects(c *call) {
	raw, ok := c.oneURL("url")
	if !ok {
		return
	}
	stored, err := c.h.Cache.Stored(raw)
	if err != nil {
		c.invalid(&purge.FieldError{Field: "url", Detail: err.Error()})
		return
	}
	if stored == nil {
		stored = []edge.Stored{}
	}
	c.ok(http.StatusOK, struct {
		URL     string        `json:"url"`
		At      time.Time     `json:"at"`
		Objects []edge.Stored `json:"objects"`
	}{raw, time.Now().UTC(), stored})
}
