package listen

import (
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
)

// connectProtocol is where the handler finds the :protocol of an extended
// CONNECT, in HTTP/2 (RFC 8441) as in HTTP/3 (RFC 9220). A field cannot have
// that name.
const connectProtocol = ":protocol"

// unclear tells why a request that net/http or quic-go let through may be read
// in two ways, here and at the next hop; "" when it may not.
func unclear(r *http.Request) string {
	if !httpguts.ValidHeaderFieldName(r.Method) { // a token, as a field's name (RFC 9110, 9.1)
		return "the method is no token"
	}
	if why := unclearTarget(r); why != "" {
		return why
	}
	if r.Host == "" && r.ProtoAtLeast(1, 1) || !httpguts.ValidHostHeader(r.Host) {
		return "the host is none"
	}
	if r.ProtoMajor == 1 {
		return ""
	}
	return unclearFields(r)
}

// unclearTarget judges the request target (RFC 9112, 3.2; RFC 9113, 8.3.1).
func unclearTarget(r *http.Request) string {
	target := r.RequestURI
	for i := range len(target) {
		if target[i] <= ' ' || target[i] == 0x7f {
			return "the target has a space or control"
		}
	}
	switch {
	case r.Method == http.MethodConnect && !strings.HasPrefix(target, "/") && r.Header[connectProtocol] == nil:
		return "" // an authority
	case strings.HasPrefix(target, "/"), target == "*" && r.Method == http.MethodOptions:
		return ""
	case r.ProtoMajor > 1:
		return "the path begins with no slash"
	case r.URL.Scheme != "http" && r.URL.Scheme != "https" || r.URL.Host == "":
		return "the target has no form that is known"
	case r.URL.User != nil:
		return "the target names a user"
	}
	return ""
}

// unclearFields judges what HTTP/2 and 3 say twice: the authority, and where
// the content ends. HTTP/1.1 is judged by net/http.
func unclearFields(r *http.Request) string {
	if hosts, ok := r.Header["Host"]; ok {
		if len(hosts) != 1 || !strings.EqualFold(hosts[0], r.Host) {
			return "Host differs from :authority"
		}
		delete(r.Header, "Host") // as in HTTP/1.1
	}
	for _, v := range r.Header["Content-Length"] {
		// net/http takes the first of several, and none when the stream has
		// ended with the fields.
		if n, err := strconv.ParseUint(v, 10, 63); err != nil || int64(n) != r.ContentLength {
			return "Content-Length differs from the content"
		}
	}
	return ""
}

// refuse answers a request that is not clear.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, why string) {
	s.Count(Malformed)
	s.words.warn("malformed request", "client", r.RemoteAddr, "answer", "400 Bad Request", "why", why)
	if r.ProtoMajor == 1 {
		w.Header().Set("Connection", "close")
	}
	http.Error(w, "400 Bad Request", http.StatusBadRequest)
}

// settle finds out whether an HTTP/3 request without Content-Length has
// content, where methods seldom have: quic-go does not say that the stream has
// ended with the fields, and a GET that may have content is never a hit.
// A client that neither sends content nor ends its stream is waited for, as
// for the rest of a head.
func (s *Server) settle(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodConnect:
		return
	}
	if r.ContentLength >= 0 {
		return
	}
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(s.ReadHeaderTimeout)) // without one, Read waits as long as the connection
	var first [1]byte
	n, err := io.ReadFull(r.Body, first[:])
	switch {
	case n == 1:
		r.Body = &begunBody{ReadCloser: r.Body, first: first[:]}
	case err == io.EOF:
		r.ContentLength = 0
	case errors.Is(err, os.ErrDeadlineExceeded):
		s.Count(Stalled)
		panic(http.ErrAbortHandler)
	default:
		panic(http.ErrAbortHandler) // the client has gone
	}
	_ = rc.SetReadDeadline(time.Time{})
}

// begunBody is a body of which the first bytes were read already.
type begunBody struct {
	io.ReadCloser
	first []byte
}

func (b *begunBody) Read(p []byte) (int, error) {
	if len(b.first) == 0 {
		return b.ReadCloser.Read(p)
	}
	n := copy(p, b.first)
	b.first = b.first[n:]
	return n, nil
}

// erred is told by net/http of each error of an HTTP/2 peer, as
// "stream_PROTOCOL_ERROR_bad_path" or "frame_ping_length".
func (s *Server) erred(what string) {
	switch {
	case strings.HasSuffix(what, "_too_many_early_resets"):
		s.Count(Flooded)
	case strings.HasSuffix(what, "_closed"), strings.Contains(what, "read_frame"), strings.HasPrefix(what, "conn_close"):
		return // the client had not yet seen the stream's end, or went away
	default:
		s.Count(Malformed)
	}
	s.words.warn("malformed request", "protocol", "HTTP/2", "why", clip(what))
}
