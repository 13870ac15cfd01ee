package edge

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"seawall/edge/encode"
	"seawall/edge/rfc9111"
)

// levelFault is the level of log lines about requests that were refused.
const levelFault = slog.LevelInfo

// outgoing returns the request to the origin: the client's end-to-end fields,
// and what this node says of itself and of the client. It has no content.
func (x *exchange) outgoing(ctx context.Context) *http.Request {
	h := roomy(x.header, told+2) // Accept-Encoding and a condition
	trailers := httpguts.HeaderValuesContainsToken(x.r.Header["Te"], "trailers")
	rfc9111.RemoveHopByHop(h)
	if trailers {
		h["Te"] = []string{"trailers"}
	}
	if tags := h["If-None-Match"]; len(tags) > 0 && x.site.encodes() != nil {
		h["If-None-Match"] = encode.StripTags(tags, encode.Accept(x.header["Accept-Encoding"])) // the origin knows none of ours
	}
	x.introduce(h)
	out := &http.Request{
		Method:     x.method,
		URL:        &url.URL{Scheme: x.scheme, Host: x.authority, Path: x.path, RawQuery: strings.TrimPrefix(x.query, "?")},
		RequestURI: x.target(),
		Host:       x.authority,
		Header:     h,
		Proto:      "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
	return out.WithContext(ctx)
}

// introduce adds Via, CDN-Loop and what is told of the client. Only trusted
// proxies' words about it are passed on.
func (x *exchange) introduce(h http.Header) {
	lines := new([told]string)
	set := func(i int, name, value string) {
		lines[i] = value
		h[name] = lines[i : i+1 : i+1]
	}
	// Connection cannot take away what keeps requests from going in circles.
	set(0, "Via", withMember(x.r.Header["Via"], viaOf(x.r.ProtoMajor, x.r.ProtoMinor)))
	set(1, "Cdn-Loop", withMember(x.r.Header["Cdn-Loop"], x.h.loop))
	from := peer(x.r)
	if !x.trusted() {
		delete(h, "X-Forwarded-For")
		delete(h, "X-Forwarded-Host")
		delete(h, "X-Forwarded-Proto")
		delete(h, "Forwarded")
	}
	if from != "" { // the node's own requests have no client
		set(2, "X-Forwarded-For", withMember(h["X-Forwarded-For"], from))
	}
	if h.Get("X-Forwarded-Host") == "" {
		set(3, "X-Forwarded-Host", x.r.Host)
	}
	set(4, "X-Forwarded-Proto", x.scheme)
	set(5, "Forwarded", withMember(h["Forwarded"], "for="+forwardedNode(from)+";host="+forwardedValue(x.r.Host)+";proto="+x.scheme))
}

// told is how many fields introduce sets.
const told = 6

// roomy is h.Clone with room for so many more fields: a map that grows is made
// twice.
func roomy(h http.Header, more int) http.Header {
	n := 0
	for _, values := range h {
		n += len(values)
	}
	clone, lines := make(http.Header, len(h)+more), make([]string, 0, n)
	for name, values := range h {
		from := len(lines)
		lines = append(lines, values...)
		clone[name] = lines[from:len(lines):len(lines)]
	}
	return clone
}

// withMember returns a list field's lines as one, with one member more.
func withMember(lines []string, member string) string {
	switch len(lines) {
	case 0:
		return member
	case 1:
		return lines[0] + ", " + member
	}
	return strings.Join(append(slices.Clone(lines), member), ", ")
}

// forwardedNode writes an address as RFC 7239, 6 wants it.
func forwardedNode(address string) string {
	if strings.Contains(address, ":") {
		return `"[` + address + `]"`
	}
	if address == "" {
		return "unknown"
	}
	return forwardedValue(address)
}

// forwardedValue writes a token as it is, anything else quoted.
func forwardedValue(s string) string {
	if httpguts.ValidHeaderFieldName(s) {
		return s
	}
	return `"` + quoted(s) + `"`
}

var quoter = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

func quoted(s string) string { return quoter.Replace(s) }

// shareable turns a request into one whose response may answer others: the
// whole representation, in a coding that all can take, without the client's
// own conditions.
func (x *exchange) shareable(out *http.Request) {
	out.Method = http.MethodGet
	rfc9111.DropConditions(out.Header)
	delete(out.Header, "Range")
	delete(out.Header, "If-Range")
	x.codings(out.Header)
}

// codings asks for identity, or for those codings of the client that the node
// tells apart.
func (x *exchange) codings(h http.Header) {
	class := ""
	if x.policy.PassEncoding {
		class = rfc9111.EncodingClass(x.header["Accept-Encoding"])
	}
	if class == "" {
		class = "identity"
	}
	h["Accept-Encoding"] = []string{class}
}
