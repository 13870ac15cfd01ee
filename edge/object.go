package edge

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/dunglas/httpsfv"

	"seawall/edge/rfc9111"
	"seawall/edge/store"
	"seawall/purge"
)

// Store keeps the responses of a node.
type Store = store.Store[Meta]

// Object is one stored response.
type Object = store.Object[Meta]

// StoreOptions configure a Store.
type StoreOptions = store.Options[Meta]

// NewStore returns an empty store, to be closed.
func NewStore(o StoreOptions) (*Store, error) {
	return store.New(o), nil
}

// Meta is what is kept of a response beside its body. It never changes.
type Meta struct {
	// Status is the response's status code.
	Status int
	// Fields are what a hit sends, but for Age and Cache-Status: canonical
	// names in order, nothing hop-by-hop.
	Fields []Field
	// Terms say until when the response may be used.
	Terms rfc9111.Terms
	// Variant is what the response was selected by.
	Variant rfc9111.Variant
	// Validators are compared with a client's conditions.
	Validators rfc9111.Validators
	// Parts are the policy's key parts of the request, "" without any.
	Parts string
	// Subject is what purges look at.
	Subject purge.Subject
	// Checked is when the origin sent or confirmed the response.
	Checked time.Time

	upstream []string               // Cache-Status members of caches before this one
	hidden   []Field                // what the origin told surrogates: not sent, but it decides
	age      []string               // Age as received, for the clients of the fetch itself
	stamp    *atomic.Pointer[stamp] // what hits share
	faces    *faces                 // how it looks in its codings; nil where it has one alone
}

// Field is a header field with all its lines.
type Field struct {
	Name   string
	Values []string
}

// stamp holds fields that hits make, for others to share.
type stamp struct {
	ttl, size int64
	length    []string // Content-Length
	status    []string // Cache-Status, where caches before this one had members; of ttl
}

// Fields that responses do not carry to clients: they address surrogates.
var surrogateFields = [...]string{"Surrogate-Control", "Surrogate-Key", "Xkey", "Cache-Tag", "Edge-Cache-Tag"}

// tagFields are where tags are read from, with what separates them.
var tagFields = [...]struct{ name, separators string }{
	{"Surrogate-Key", " \t"}, {"Xkey", " \t"},
	{"Cache-Tag", ","}, {"Edge-Cache-Tag", ","}, {"X-Cache-Tags", ","},
}

// maxTags bounds the tags of one response. One with more is not stored: a
// purge by a tag that was left out would miss it.
const maxTags = 1000

// tagsOf returns the tags of a response, each once.
func tagsOf(h http.Header) []string {
	var tags []string
	for _, f := range tagFields {
		for _, line := range h[f.name] {
			for tag := range strings.FieldsFuncSeq(line, func(r rune) bool { return strings.ContainsRune(f.separators, r) }) {
				if tag = strings.TrimSpace(tag); tag != "" {
					tags = append(tags, strings.Clone(tag))
				}
			}
		}
	}
	if groups, err := httpsfv.UnmarshalList(h["Cache-Groups"]); err == nil {
		for _, group := range groups {
			if item, ok := group.(httpsfv.Item); ok {
				if name, ok := item.Value.(string); ok && name != "" {
					tags = append(tags, name)
				}
			}
		}
	}
	slices.Sort(tags)
	return slices.Compact(tags)
}

// clean prepares an origin's header for clients: end-to-end fields only, the
// surrogates' own removed, Date and Via added.
func clean(h http.Header, major, minor int, got time.Time) http.Header {
	out := rfc9111.EndToEnd(h)
	for _, name := range surrogateFields {
		delete(out, name)
	}
	if len(out["Date"]) == 0 {
		out["Date"] = []string{got.UTC().Format(http.TimeFormat)}
	}
	out["Via"] = []string{withMember(out["Via"], viaOf(major, minor))}
	return out
}

func viaOf(major, minor int) string {
	switch {
	case major == 1 && minor == 0:
		return "1.0 seawall"
	case major == 2:
		return "2 seawall"
	case major == 3:
		return "3 seawall"
	}
	return "1.1 seawall"
}

// newObject makes an object of a response whose header clean prepared.
func newObject(status int, h http.Header, d rfc9111.Decision, v rfc9111.Variant, a *ask, got time.Time) *Object {
	o := &Object{Meta: Meta{
		Status:     status,
		Terms:      d.Terms,
		Variant:    v,
		Validators: rfc9111.ValidatorsOf(h, got),
		Parts:      a.parts,
		Checked:    got,
		upstream:   h["Cache-Status"],
		age:        h["Age"],
		stamp:      new(atomic.Pointer[stamp]),
	}}
	o.Overhead = int64(v.Size()) + 256 + int64(unsafe.Sizeof(purge.Subject{})) // whose strings are the key's
	o.Meta.Fields = make([]Field, 0, len(h))
	for name, values := range h {
		if name == "Age" || name == "Cache-Status" || name == "Content-Length" || name == "Set-Cookie" && d.StripSetCookie {
			continue
		}
		o.Meta.Fields = append(o.Meta.Fields, Field{name, values})
		o.Overhead += int64(len(name)) + 40
		for _, v := range values {
			o.Overhead += int64(len(v)) + 16
		}
	}
	slices.SortFunc(o.Meta.Fields, func(a, b Field) int { return strings.Compare(a.Name, b.Name) })
	o.Selector = selector(a.parts, v.Selector())
	o.Recent = o.Meta.Validators.Date.Unix()
	return o
}

// hiddenOf returns the fields that address surrogates; those that h lacks are
// as before.
func hiddenOf(h http.Header, before []Field) []Field {
	var hidden []Field
	for _, name := range surrogateFields {
		if lines := h[name]; len(lines) > 0 {
			hidden = append(hidden, Field{name, slices.Clone(lines)})
			continue
		}
		for _, f := range before {
			if f.Name == name {
				hidden = append(hidden, f)
			}
		}
	}
	return hidden
}

// withHidden returns the header by which a response is judged.
func withHidden(h http.Header, hidden []Field) http.Header {
	if len(hidden) == 0 {
		return h
	}
	h = h.Clone()
	for _, f := range hidden {
		h[f.Name] = f.Values
	}
	return h
}

// describe adds what clients do not see: the fields that address surrogates,
// and what purges name the response by. key is the object's.
func (m *Meta) describe(o *Object, key string, a *ask, hidden []Field, tags []string) {
	m.hidden = hidden
	m.Subject = purge.Subject{Site: a.zone, URL: cutURL(key), Viewer: a.viewer, Tags: tags}
	o.Overhead += int64(len(a.viewer.Host) + len(a.viewer.Path) + len(a.viewer.Query))
	for _, f := range hidden {
		o.Overhead += int64(len(f.Name)) + 40
		for _, v := range f.Values {
			o.Overhead += int64(len(v)) + 16
		}
	}
	for _, t := range tags {
		o.Overhead += int64(len(t)) + 16
	}
}

func selector(parts, vary string) string {
	if parts == "" && vary == "" {
		return ""
	}
	return parts + "\x00" + vary
}

// header returns the stored fields as a map of its own, with the length that
// the stored bytes have.
func (m *Meta) header() http.Header {
	h := make(http.Header, len(m.Fields)+2)
	for _, f := range m.Fields {
		h[f.Name] = slices.Clone(f.Values)
	}
	if len(m.upstream) > 0 {
		h["Cache-Status"] = slices.Clone(m.upstream)
	}
	if m.faces != nil { // Vary is the origin's, here
		delete(h, "Vary")
		if len(m.faces.vary) > 0 {
			h["Vary"] = slices.Clone(m.faces.vary)
		}
	}
	return h
}

// seconds returns d in whole seconds, rounded down: a response that is stale
// by half a second has a ttl of -1.
func seconds(d time.Duration) int64 {
	s := int64(d / time.Second)
	if d < 0 && d%time.Second != 0 {
		s--
	}
	return s
}

// stampFor returns what a hit sends of a body of this size, with a lifetime of
// ttl seconds left.
func (m *Meta) stampFor(ttl, size int64) *stamp {
	upstream := len(m.upstream) > 0
	s := m.stamp.Load()
	if s != nil && s.size == size && (!upstream || s.ttl == ttl) {
		return s
	}
	s = &stamp{ttl: ttl, size: size, length: []string{strconv.FormatInt(size, 10)}}
	if upstream {
		hit := cacheStatus{hit: true, ttl: ttl}
		s.status = append(slices.Clone(m.upstream), string(hit.append(nil)))
	}
	m.stamp.Store(s)
	return s
}
