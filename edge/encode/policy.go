package encode

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
)

// Verdict says whether a response may be coded by the node, or else why not.
type Verdict uint8

const (
	Codable     Verdict = iota
	NoBody              // a status without content, or with a part of it
	Coded               // the origin coded it, or says what its bytes hash to
	NoTransform         // Cache-Control: no-transform
	WrongType           // not a type that compresses
	Small               // below the floor
	Personal            // made for one client: BREACH
	verdicts
)

// String returns a name for logs and metrics.
func (v Verdict) String() string {
	return [...]string{
		"codable", "no-body", "coded", "no-transform", "type", "small", "personal", "unknown",
	}[min(v, verdicts)]
}

// Floor is the size below which nothing is compressed, in bytes, unless a policy
// says otherwise. Such a response fits one packet with its header in either form;
// what compression would save is about what Content-Encoding and Vary add.
const Floor = 512

// Policy is a site's choice of what to code. The zero value is the default. It
// is read only, so that requests may share it.
type Policy struct {
	// Off codes nothing.
	Off bool
	// Types are the media types that compress; nil is DefaultTypes.
	Types *Types
	// MinSize is the floor in bytes; 0 is Floor, negative none.
	MinSize int64
	// Personal also codes what is made for a single client. It is for sites
	// whose pages do not reflect what a request says (see BREACH above).
	Personal bool
}

// Response is what Judge needs to know of a response.
type Response struct {
	Status int
	Header http.Header
	// Size is the length of the content; negative when it is not known.
	Size int64
	// Exposed is what the function of that name says where the response is
	// made for one client; false for what a shared cache may keep.
	Exposed bool
}

// Judge says whether the node may code r. The request's own no-transform is for
// the caller to ask of NoTransformed: it holds for one request, this verdict for
// all.
func (p *Policy) Judge(r Response) Verdict {
	types, floor := p.Types, p.MinSize
	if floor == 0 {
		floor = Floor
	}
	switch {
	case !hasContent(r.Status) || len(r.Header["Content-Range"]) > 0:
		return NoBody
	case isCoded(r.Header) || isDigested(r.Header):
		return Coded
	case NoTransformed(r.Header["Cache-Control"]):
		return NoTransform
	case p.Off || len(r.Header["Content-Type"]) != 1 || !types.Match(r.Header["Content-Type"][0]):
		return WrongType
	case r.Size >= 0 && r.Size < floor:
		return Small
	case r.Exposed && !p.Personal:
		return Personal
	}
	return Codable
}

// hasContent tells whether a response of this status carries a whole
// representation (RFC 9110, 6.4.1 and 15.3.7).
func hasContent(status int) bool {
	switch status {
	case http.StatusNoContent, http.StatusResetContent, http.StatusPartialContent, http.StatusNotModified:
		return false
	}
	return status >= 200
}

func isCoded(h http.Header) bool {
	stack, known := Stack(h["Content-Encoding"])
	return !known || len(stack) > 0
}

// isDigested tells whether the header speaks of the exact bytes of the content
// (RFC 9530, 2 and 3; RFC 1864; RFC 3230): they would no longer be true of it.
func isDigested(h http.Header) bool {
	return len(h["Content-Digest"]) > 0 || len(h["Repr-Digest"]) > 0 ||
		len(h["Digest"]) > 0 || len(h["Content-Md5"]) > 0
}

// NoTransformed tells whether Cache-Control, of a request or a response, has
// no-transform (RFC 9111, 5.2.1.6 and 5.2.2.6). Where a line is malformed it
// rather says so: commas part members inside quotes as well.
func NoTransformed(cacheControl []string) bool {
	return listed(cacheControl, "no-transform")
}

// listed tells whether a member of the list begins with this lower-case
// directive. An argument changes nothing.
func listed(lines []string, directive string) bool {
	for _, line := range lines {
		for line != "" {
			var member string
			member, line, _ = strings.Cut(line, ",")
			member, _, _ = strings.Cut(member, "=")
			if fold(trim(member), directive) {
				return true
			}
		}
	}
	return false
}

// Exposed tells whether compressing a response that is made for one client could
// give away a secret of that client (see BREACH above). target is what the
// client asked for, with its query. It holds where
//
//   - the request has Authorization, or the response Set-Cookie or private;
//   - the request has Cookie and a query, which is what a page reflects most
//     often: with a cookie alone nearly every response of most sites would be
//     meant, as analytics set one on every visitor.
//
// It says nothing of responses that a shared cache keeps: they are the same for
// the attacker.
func Exposed(request, response http.Header, target string) bool {
	switch {
	case len(request["Authorization"]) > 0, len(response["Set-Cookie"]) > 0:
		return true
	case listed(response["Cache-Control"], "private"):
		return true
	}
	return len(request["Cookie"]) > 0 && strings.Contains(target, "?")
}

// Types is a set of media types. It does not change once made.
type Types struct {
	exact    map[string]bool // "application/json"
	families map[string]bool // "text" of "text/*"
	suffixes map[string]bool // "json" of "*+json"
}

// NewTypes reads media types: "application/json", "text/*" or "*+json", in any
// letter case, without parameters.
func NewTypes(list ...string) (*Types, error) {
	t := &Types{exact: map[string]bool{}, families: map[string]bool{}, suffixes: map[string]bool{}}
	for _, name := range list {
		lower := strings.ToLower(name)
		if suffix, ok := strings.CutPrefix(lower, "*+"); ok && isType(suffix) {
			t.suffixes[suffix] = true
			continue
		}
		family, sub, ok := strings.Cut(lower, "/")
		switch {
		case !ok || !isType(family) || sub != "*" && !isType(sub):
			return nil, fmt.Errorf("encode: %q is no media type (hint: text/html, text/* or *+json)", name)
		case sub == "*":
			t.families[family] = true
		default:
			t.exact[lower] = true
		}
	}
	return t, nil
}

// isType tells whether s may stand on one side of a media type's slash
// (RFC 6838, 4.2).
func isType(s string) bool {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', strings.IndexByte("!#$&-^_.+", c) >= 0:
		default:
			return false
		}
	}
	return s != "" && len(s) <= 127
}

// Match tells whether the media type of a Content-Type is in the set, whatever
// its parameters and letter case. The nil set is that of DefaultTypes.
func (t *Types) Match(contentType string) bool {
	media, _, _ := strings.Cut(contentType, ";")
	media = trim(media)
	if len(media) > 255 {
		return false
	}
	media = strings.ToLower(media)
	if t == nil {
		t = defaultTypes()
	}
	family, sub, ok := strings.Cut(media, "/")
	if !ok {
		return false
	}
	suffix := sub[strings.LastIndexByte(sub, '+')+1:]
	return t.exact[media] || t.families[family] || suffix != sub && t.suffixes[suffix]
}

// defaultTypes is the set of DefaultTypes, made when it is first asked for.
var defaultTypes = sync.OnceValue(func() *Types {
	t, err := NewTypes(DefaultTypes()...)
	if err != nil {
		panic(err) // the list is a constant
	}
	return t
})

// DefaultTypes lists what a nil Types matches: text of every kind, event streams
// with it as each event is flushed through the coder, and the formats of the web
// that are text, tables or code inside. Fonts are those without compression of
// their own: not woff, not woff2.
func DefaultTypes() []string {
	return []string{
		"text/*", "*+json", "*+xml", "*+text", "*+yaml", "*+json-seq",
		"application/json", "application/json5", "application/json-seq", "application/jsonl",
		"application/x-ndjson", "application/graphql", "application/xml", "application/xml-dtd",
		"application/javascript", "application/x-javascript", "application/ecmascript",
		"application/wasm", "application/manifest", "application/yaml", "application/toml",
		"application/sql", "application/rtf", "application/postscript",
		"application/vnd.apple.mpegurl", "application/x-mpegurl",
		"font/otf", "font/ttf", "font/sfnt", "font/collection", "application/vnd.ms-fontobject",
		"application/font-sfnt", "application/x-font-ttf", "application/x-font-otf",
		"image/bmp", "image/x-icon", "image/vnd.microsoft.icon",
		"model/gltf-binary", "model/obj", "model/stl",
	}
}
