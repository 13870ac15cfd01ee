package edge

import (
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"

	"seawall/edge/encode"
	"seawall/edge/rfc9111"
	"seawall/edge/store"
)

// Encode is a site's compression. What is stored is identity; the codings of it
// are further bodies of the same object, made when a client first wants one.
type Encode struct {
	// Policy says what is worth coding.
	encode.Policy
	// Prefer are the codings made, the most liked first; nil is br, zstd, gzip
	// for what is kept and zstd, gzip, br for what is coded for one client.
	Prefer []encode.Coding
	// Events also codes event streams.
	Events bool
}

// makes returns the codings that the site sends.
func (e *Encode) makes() encode.Set {
	if e.Prefer == nil {
		return encode.SetOf(encode.Brotli, encode.Zstd, encode.Gzip)
	}
	return encode.SetOf(e.Prefer...)
}

// streams is the order for what is coded for one client.
func (e *Encode) streams() []encode.Coding {
	if e.Prefer == nil {
		return encode.PreferStream()
	}
	return e.Prefer
}

// encodes returns the site's compression, nil when it has none.
func (s *site) encodes() *Encode {
	if s.Encode == nil || s.Encode.Off {
		return nil
	}
	return s.Encode
}

// Codings have their numbers as forms.
const (
	identityForm = int(encode.Identity) // of what the origin coded
	forms        = int(encode.Zstd) + 1
)

// faces are what clients see of an object that comes in several codings.
type faces struct {
	// stack are the codings that the origin applied; nil for identity.
	stack  []encode.Coding
	vary   []string           // as the origin sent it
	tag    [forms][]string    // ETag of each form, nil without one
	length [forms]lengthLines // Content-Length of each form
	fields [forms]fieldList   // what a hit on each form sends, once one was sent
}

// fieldList are fields laid out for a hit.
type fieldList struct{ p atomic.Pointer[[]Field] }

// fieldsOf returns the fields of an object in one coding: ETag is the form's own,
// and there are no ranges.
func (m *Meta) fieldsOf(c encode.Coding) []Field {
	f := m.faces
	if have := f.fields[c].p.Load(); have != nil {
		return *have
	}
	list := make([]Field, 0, len(m.Fields)+2)
	for _, field := range m.Fields {
		switch field.Name {
		case "Content-Encoding", "Etag", "Accept-Ranges":
		default:
			list = append(list, field)
		}
	}
	if c != encode.Identity {
		list = append(list, Field{"Content-Encoding", []string{c.String()}})
	}
	if f.tag[c] != nil {
		list = append(list, Field{"Etag", f.tag[c]})
	}
	f.fields[c].p.Store(&list)
	return list
}

// lengthLines are a prepared Content-Length, for as long as it is right.
type lengthLines struct{ p atomic.Pointer[sized] }

type sized struct {
	size  int64
	lines []string
}

func (l *lengthLines) of(size int64) []string {
	s := l.p.Load()
	if s == nil || s.size != size {
		s = &sized{size, []string{strconv.FormatInt(size, 10)}}
		l.p.Store(s)
	}
	return s.lines
}

// facesOverhead is the memory of faces beside the lists of fields.
const facesOverhead = 700

// face gives o its faces, if it may come in several codings. h is what was
// judged, with the origin's Vary; size is the body's, -1 when unknown.
func (s *site) face(o *Object, h http.Header, size int64) {
	e := s.encodes()
	if e == nil {
		return
	}
	f := &faces{vary: h["Vary"]}
	switch e.Judge(encode.Response{Status: o.Meta.Status, Header: h, Size: size}) {
	case encode.Codable:
	case encode.Coded:
		if !readable(h) {
			return
		}
		f.stack, _ = encode.Stack(h["Content-Encoding"])
	default:
		return
	}
	if tag := o.Meta.Validators.ETag; tag != "" {
		f.tags(tag)
	}
	o.Meta.faces, o.Forms = f, new(store.Forms)
	o.Meta.setField("Vary", encode.MergeVary(h["Vary"]))
	o.Overhead += facesOverhead + int64(forms)*int64(len(o.Meta.Fields)+2)*40
}

// readable reports whether a response is coded in a way that the node may undo.
func readable(h http.Header) bool {
	stack, known := encode.Stack(h["Content-Encoding"])
	return known && len(stack) > 0 && !encode.NoTransformed(h["Cache-Control"]) && !digested(h)
}

// digests are the fields that speak of the exact bytes of the content.
var digests = [...]string{"Content-Digest", "Repr-Digest", "Digest", "Content-Md5"}

func digested(h http.Header) bool {
	for _, name := range digests {
		if len(h[name]) > 0 {
			return true
		}
	}
	return false
}

// undigested returns the trailer fields that are true of content in another
// coding as well; nil when there are none.
func undigested(t http.Header) http.Header {
	if !digested(t) {
		return t
	}
	t = maps.Clone(t)
	for _, name := range digests {
		delete(t, name)
	}
	if len(t) == 0 {
		return nil
	}
	return t
}

// codedTrailer is what comes behind the forms of o, as store.Body has it.
func codedTrailer(o *Object) any {
	t, _ := o.Body.Trailer().(http.Header)
	if t = undigested(t); t == nil {
		return nil
	}
	return t
}

func (f *faces) tags(tag string) {
	if f.stack != nil {
		f.tag[identityForm] = []string{decodedTag(tag)}
		return
	}
	for i := identityForm + 1; i < forms; i++ {
		if t := encode.Tag(tag, encode.Coding(i)); t != "" {
			f.tag[i] = []string{t}
		}
	}
}

// decodedTag is the entity tag of what the node decoded: weak, and another than
// that of the origin's own bytes (RFC 9110, 8.8.3.3). tag is well-formed.
func decodedTag(tag string) string {
	return `W/` + strings.TrimSuffix(strings.TrimPrefix(tag, "W/"), `"`) + `~id"`
}

// setField sets a field among those that a hit sends.
func (m *Meta) setField(name string, lines []string) {
	for i := range m.Fields {
		if m.Fields[i].Name == name {
			m.Fields[i].Values = lines
			return
		}
	}
	m.Fields = append(m.Fields, Field{name, lines})
}

// choose returns the coding in which the client gets o, and whether it is that
// of o's own body.
func (x *exchange) choose(e *Encode, o *Object, accepted encode.Accepted) (c encode.Coding, own bool) {
	f := o.Meta.faces
	readable := x.called != nil && x.called.wrapped && x.called.out.content // functions read it; theirs is coded behind them
	switch {
	case f.stack != nil:
		form := o.Forms.At(identityForm)
		impossible := form == nil && o.Body.Passing() || form != nil && form.Body == nil
		asIs := encode.NoTransformed(x.header["Cache-Control"]) || f.takenBy(x.header, accepted)
		return encode.Identity, impossible || !readable && asIs
	case readable, encode.NoTransformed(x.header["Cache-Control"]):
		return encode.Identity, true
	case len(x.header["Range"]) > 0 && accepted.Takes():
		// What the node coded has no ranges: its bytes may become others.
		return encode.Identity, true
	}
	stored, makes := x.made(e, o)
	c, _ = accepted.Choose(e.Prefer, stored, makes)
	return c, c == encode.Identity
}

// takenBy reports whether a client gets what the origin coded as it is: it takes
// that no less than identity. Those who do not say what they take often cannot
// decode.
func (f *faces) takenBy(h http.Header, accepted encode.Accepted) bool {
	if len(f.stack) == 1 {
		c, ok := accepted.Choose(f.stack, encode.SetOf(f.stack[0]), encode.SetOf(encode.Identity))
		return ok && c == f.stack[0]
	}
	return len(h["Accept-Encoding"]) > 0 && accepted.Takes(f.stack...)
}

// made returns the codings in which o is here, or on its way, and those that
// may be made of it now.
func (x *exchange) made(e *Encode, o *Object) (stored, makes encode.Set) {
	stored, makes = encode.SetOf(encode.Identity), e.makes()
	for i := identityForm + 1; i < forms; i++ {
		form := o.Forms.At(i)
		switch {
		case form == nil:
		case form.Body == nil:
			makes = makes.Without(encode.Coding(i))
		default:
			stored = stored.With(encode.Coding(i))
		}
	}
	if o.Body.Passing() {
		makes = 0 // it is coded for each client by itself, on its way
	}
	return stored, makes
}

// unchanged sends a 304 when the client has any form of o that it still takes,
// the chosen one before others: none is made for that.
func (x *exchange) unchanged(o *Object, accepted encode.Accepted, c encode.Coding, own bool) bool {
	m := &o.Meta
	try := func(tag []string, own bool) bool {
		v := m.Validators
		if !own {
			v.ETag = one(tag)
		}
		if !rfc9111.NotModified(x.method, x.header, v) {
			return false
		}
		x.notModified(m, tag)
		return true
	}
	switch {
	case !rfc9111.Conditional(x.header):
		return false
	case own && try(nil, true), !own && try(m.faces.tag[c], false):
		return true
	case len(x.header["If-None-Match"]) == 0:
		return false
	case accepted.Takes(m.faces.stack...) && try(nil, true):
		return true
	}
	for i, tag := range m.faces.tag {
		if tag != nil && accepted.Takes(encode.Coding(i)) && try(tag, false) {
			return true
		}
	}
	return false
}
