package httpwasm

import (
	"net/http"
	"slices"
	"strings"

	"seawall/wasm/abi"

	"golang.org/x/net/http/httpguts"
)

func token(s string) bool { return httpguts.ValidHeaderFieldName(s) }

// fields returns the lines of a kind as a guest sees them now, to read.
func (c call) fields(kind uint32) http.Header {
	s := c.now()
	switch kind {
	case ofRequest:
		return s.x.Request.Header
	case ofResponse:
		if s.asked {
			return s.x.Response.Header
		}
		return s.x.Early
	case ofRequestTrailers:
		return s.x.Request.Trailer
	case ofResponseTrailers:
		return s.x.Response.Trailer
	}
	fail("no kind of header: %d", kind)
	return nil
}

// mutable returns them to change.
func (c call) mutable(kind uint32) http.Header {
	s := c.now()
	where := &s.x.Early
	switch kind {
	case ofRequest:
		c.beforeNext("a request header")
		where, s.x.Request.Changed = &s.x.Request.Header, true
	case ofResponse:
		c.mayAnswer("a response header")
		if s.asked {
			where, s.x.Response.Changed = &s.x.Response.Header, true
		}
	case ofRequestTrailers:
		c.beforeNext("a request trailer")
		where, s.x.Request.Changed = &s.x.Request.Trailer, true
	case ofResponseTrailers:
		c.mayAnswer("a response trailer")
		where, s.x.Response.Changed = &s.x.Response.Trailer, true
	default:
		fail("no kind of header: %d", kind)
	}
	if kind >= ofRequestTrailers && s.features&trailers == 0 {
		fail("trailers cannot be changed without the feature trailers")
	}
	if *where == nil {
		*where = http.Header{}
	}
	return *where
}

func (c call) headerNames() {
	kind := c.i32(0)
	h := c.fields(kind)
	names := make([]string, 0, len(h)+1)
	size := 0
	for name := range h {
		size += len(name)
		names = append(names, strings.ToLower(name))
	}
	if kind == ofRequest && c.exchange().Request.Authority != "" {
		names = append(names, "host")
	}
	c.spend(size)
	slices.Sort(names)
	c.giveList(1, names)
}

func (c call) headerValues() {
	kind, name := c.i32(0), c.name(1)
	if kind == ofRequest && name == "Host" {
		c.giveList(3, []string{c.exchange().Request.Authority})
		return
	}
	c.giveList(3, c.fields(kind)[name])
}

// name reads a field's name into its canonical form.
func (c call) name(i int) string {
	b := c.bytes(i)
	if name, ok := c.names[string(b)]; ok {
		return name
	}
	if len(b) == 0 {
		fail("an empty field name")
	}
	name := string(b)
	if !token(name) {
		fail("field name %.64q is no token", name)
	}
	key := http.CanonicalHeaderKey(name)
	if len(c.names) < mostNames && len(name) <= 64 {
		c.names[name] = key
	}
	return key
}

// mostNames bounds the names whose canonical form a guest's side remembers:
// guests ask for the same few again and again.
const mostNames = 64

// framing names the fields that say how a message is cut from its connection.
// They are the node's: a guest's change of them has no effect, for a wrong
// one would let one message's end begin another.
func framing(name string) bool {
	switch name {
	case "Connection", "Content-Length", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Proxy-Connection":
		return true
	}
	return false
}

func (c call) changeField(add bool) {
	kind, name := c.i32(0), c.name(1)
	h := c.mutable(kind)
	value := c.text(3)
	if !httpguts.ValidHeaderFieldValue(value) {
		fail("the value of field %.64q has characters it may not have", name)
	}
	if framing(name) {
		return
	}
	if kind == ofRequest && name == "Host" {
		if !httpguts.ValidHostHeader(value) {
			fail("host %.64q", value)
		}
		c.exchange().Request.Authority = value
		return
	}
	// The slices may be shared with a stored response: a new one each time.
	if add {
		h[name] = append(slices.Clip(slices.Clone(h[name])), value)
		return
	}
	h[name] = []string{value}
}

func (c call) removeField() {
	kind, name := c.i32(0), c.name(1)
	h := c.mutable(kind)
	if framing(name) {
		return
	}
	delete(h, name)
}

var _ abi.ABI = ABI{}
