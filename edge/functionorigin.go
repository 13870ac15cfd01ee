package edge

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"seawall/edge/rfc9111"
	"seawall/wasm"
	"seawall/wasm/abi"
)

// functionError is a function of the origin's side that failed closed.
type functionError struct{ wasm.Result }

func (e *functionError) Error() string { return "function " + e.Function + ": " + e.Reason }

// ProxyStatus names the RFC 9209 error type.
func (e *functionError) ProxyStatus() string { return "proxy_internal_error" }

// roundTrip sends out to the site's origin, by way of its origin functions:
// they see the request before the origin does, and the response before it is
// judged and stored. out is left as it is: a retry goes through them again.
func (s *site) roundTrip(out *http.Request, hint Hint, facts *abi.Facts) (*http.Response, error) {
	if s.OriginFunctions == nil {
		return s.send(out, hint)
	}
	b := &originBody{}
	b.ex.Stage, b.ex.Facts = abi.OriginRequest, *facts
	b.ex.Cache.TTL = -1
	b.ex.Request = abi.Message{
		Method: out.Method, Scheme: out.URL.Scheme, Authority: out.Host, Target: out.RequestURI, Header: out.Header.Clone(),
	}
	if out.Body != nil {
		b.ex.Request.Source = out.Body
	}
	b.run = s.OriginFunctions.Begin(out.Context(), &b.ex)
	resp, err := s.throughOrigin(out, hint, b)
	if err != nil {
		b.run.End()
		return nil, err
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		b.run.End() // what follows is no HTTP
		return resp, nil
	}
	return resp, nil
}

func (s *site) throughOrigin(out *http.Request, hint Hint, b *originBody) (*http.Response, error) {
	result := b.run.Request()
	if result.Verdict != wasm.Continue && out.Body != nil {
		_ = out.Body.Close() // as a RoundTripper does; nobody reads it any more
	}
	var resp *http.Response
	switch result.Verdict {
	case wasm.Failed:
		return nil, &functionError{result}
	case wasm.Answered:
		resp = answerTo(out)
	default:
		sent, err := s.rewrittenOut(out, b)
		if err != nil {
			return nil, err
		}
		resp, err = s.send(sent, hint)
		stopped := b.run.Stopped()
		switch {
		case err == nil && resp.StatusCode == http.StatusSwitchingProtocols:
			return resp, nil
		case err == nil:
			b.run.Received(func(x *abi.Exchange) {
				x.Response = abi.Message{Status: resp.StatusCode, Header: resp.Header}
				if resp.ContentLength != 0 && bodyAllowed(resp.StatusCode) && sent.Method != http.MethodHead {
					x.Response.Source = b.watch(resp)
				}
			})
		case stopped == nil:
			return nil, err
		case stopped.Verdict != wasm.Answered:
			return nil, &functionError{stopped.Result}
		default: // a function did, when it saw the content
			resp = answerTo(out)
		}
	}
	b.run.Received(func(x *abi.Exchange) {
		x.Answered, x.Cache.Status, x.Cache.Tags = false, "miss", tagsOf(x.Response.Header)
	})
	b.body = resp.Body
	if result := b.run.Response(); result.Verdict == wasm.Failed {
		resp.Body.Close()
		return nil, &functionError{result}
	}
	return b.made(resp)
}

// answerTo returns a response that a function's answer is put into.
func answerTo(out *http.Request) *http.Response {
	return &http.Response{Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: make(http.Header), Body: http.NoBody, Request: out}
}

// rewrittenOut returns the request as the functions left it.
func (s *site) rewrittenOut(out *http.Request, b *originBody) (*http.Request, error) {
	q := &b.ex.Request
	sent := out.WithContext(out.Context())
	sent.Header = q.Header
	// No function may let requests go in circles.
	restore(sent.Header, "Via", out.Header["Via"])
	restore(sent.Header, "Cdn-Loop", out.Header["Cdn-Loop"])
	if q.Changed {
		path, query, ok := splitTarget(q.Target)
		if !ok && q.Target == out.RequestURI {
			path, ok = q.Target, true // as it was: "*"
		}
		if !ok || !plainTarget(q.Target) || !validHost(normalHost(out.URL.Scheme, q.Authority)) || q.Method == http.MethodConnect {
			if out.Body != nil {
				_ = out.Body.Close()
			}
			return nil, &functionError{wasm.Result{Function: strings.Join(s.OriginFunctions.Functions(), ", "), Reason: "rewrite"}}
		}
		sent.Method, sent.Host, sent.RequestURI = q.Method, q.Authority, normalPath(path)+query
		url := *out.URL
		url.Host, url.Path, url.RawQuery = q.Authority, normalPath(path), strings.TrimPrefix(query, "?")
		sent.URL = &url
	}
	if q.Source == nil {
		return sent, nil
	}
	closer := io.Closer(io.NopCloser(nil))
	if out.Body != nil {
		closer = out.Body
	}
	wants := b.run.WantsRequestBody()
	if wants || q.Replaced || q.Source != io.Reader(out.Body) {
		sent.Body = b.run.RequestBody(struct {
			io.Reader
			io.Closer
		}{q.Source, closer})
	}
	if wants || q.Replaced {
		sent.ContentLength = -1
		if n, err := strconv.ParseInt(q.Header.Get("Content-Length"), 10, 64); !wants && err == nil && n >= 0 {
			sent.ContentLength = n
		}
	}
	return sent, nil
}

// originBody is the content of an origin's response on its way through
// functions, and what they said of caching it.
type originBody struct {
	ex   abi.Exchange
	run  *wasm.Run
	once sync.Once // ends run
	body io.Closer
	from io.Reader
	resp *http.Response
}

// watch returns the origin's content; its end brings the trailers.
func (b *originBody) watch(resp *http.Response) io.Reader { return &trailed{resp.Body, resp, &b.ex} }

type trailed struct {
	body io.Reader // the origin's: the response's own becomes another
	resp *http.Response
	ex   *abi.Exchange
}

func (t *trailed) Read(p []byte) (int, error) {
	n, err := t.body.Read(p)
	if err == io.EOF && len(t.resp.Trailer) > 0 {
		t.ex.Response.Trailer = t.resp.Trailer
	}
	return n, err
}

// made makes the response what the functions made of it.
func (b *originBody) made(resp *http.Response) (*http.Response, error) {
	m := &b.ex.Response
	if m.Status < 200 || m.Status > 599 {
		resp.Body.Close()
		return nil, &functionError{wasm.Result{Function: "origin_response", Reason: "status"}}
	}
	if resp.StatusCode == http.StatusNotModified && !m.Replaced {
		// It confirms what is stored. With another status it would be a
		// response of its own, without content.
		m.Status = http.StatusNotModified
	}
	wants := b.run.WantsResponseBody()
	resp.StatusCode, resp.Status, resp.Header = m.Status, "", m.Header
	if resp.Header == nil {
		resp.Header = make(http.Header)
	}
	own, _ := m.Source.(*trailed)
	switch {
	case m.Source == nil:
		b.from = http.NoBody
	case !bodyAllowed(m.Status): // a function made it such a response
		b.from, resp.ContentLength = http.NoBody, 0
		delete(resp.Header, "Content-Length")
	case own != nil && !wants:
		b.from = own
	default:
		b.from = b.run.ResponseBody(m.Source)
		resp.ContentLength = -1
		if n, err := strconv.ParseInt(one(m.Header["Content-Length"]), 10, 64); !wants && err == nil && n >= 0 {
			resp.ContentLength = n
		}
		delete(resp.Header, "Content-Length")
	}
	if b.ex.Cache.TagsSet {
		for _, f := range tagFields {
			delete(resp.Header, f.name)
		}
		if len(b.ex.Cache.Tags) > 0 {
			resp.Header["Cache-Tag"] = []string{strings.Join(b.ex.Cache.Tags, ",")}
		}
	}
	b.resp = resp
	resp.Body = b
	return resp, nil
}

// Read gives what the functions made of the content.
func (b *originBody) Read(p []byte) (int, error) {
	n, err := b.from.Read(p)
	if err == io.EOF && len(b.ex.Response.Trailer) > 0 {
		b.resp.Trailer = b.ex.Response.Trailer
	}
	var stopped *wasm.BodyError
	if errors.As(err, &stopped) {
		return n, &functionError{stopped.Result}
	}
	return n, err
}

// Close gives up the content and lets the functions go. It may be called while
// a Read or another Close is under way: by the client's leaving.
func (b *originBody) Close() error {
	err := b.body.Close()
	b.once.Do(b.run.End)
	return err
}

// judgedBy returns the options by which a response is judged: a function may
// have set its lifetime, as an operator's rule does.
func judgedBy(resp *http.Response, options rfc9111.Options) *rfc9111.Options {
	body := resp.Body
	if owned, ok := body.(*ownedBody); ok {
		body = owned.ReadCloser
	}
	if b, ok := body.(*originBody); ok && b.ex.Cache.TTL >= 0 {
		options.TTL = b.ex.Cache.TTL
		if options.TTL == 0 {
			options.TTL = time.Nanosecond // zero would leave the origin's
		}
	}
	return &options
}
