package proxywasm

import (
	"net/http"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// fieldName is a field's name with what is asked of it at each change.
type fieldName struct {
	lower, key        string // in lower case, as in http.Header
	valid, connection bool
}

func nameOf(name string) fieldName {
	lower := strings.ToLower(name)
	return fieldName{lower, http.CanonicalHeaderKey(lower), httpguts.ValidHeaderFieldName(lower), ofConnection(lower)}
}

// Bounds of the names a guest's host remembers: guests have a few, and one
// that makes up many has each made anew.
const (
	maxNames      = 64
	maxNameLength = 64
)

// name is nameOf, remembered: most guests use the same few names for every
// request.
func (g *guest) name(b []byte) fieldName {
	if n, ok := g.names[string(b)]; ok {
		return n
	}
	text := string(b)
	n := nameOf(text)
	if len(b) <= maxNameLength && len(g.names) < maxNames {
		if g.names == nil {
			g.names = make(map[string]fieldName)
		}
		g.names[text] = n
	}
	return n
}

// sum is what one map of fields has, while the callback runs that it was
// counted in: a guest that makes many changes does not have all counted for
// each. Calls that may change a map otherwise forget it.
type sum struct {
	of      *http.Header // nil: nothing is known
	n, size int
}

// count returns the sums of v.
func (g *guest) count(v fields) sum {
	if g.sum.of != v.header {
		n, size := v.sums()
		g.sum = sum{v.header, n, size}
	}
	return g.sum
}

// uncount forgets the sums: another exchange's fields may stand where these do.
func (g *guest) uncount() { g.sum = sum{} }

// changing applies a change to one field and keeps the sums true.
func (g *guest) changing(v fields, c change, name fieldName, value string, room int) (changed, ok bool) {
	name = v.canonical(name)
	before := (*v.header)[name.key]
	if changed, ok = v.apply(c, name, value, room); !changed {
		return changed, ok
	}
	if g.sum.of != v.header || strings.HasPrefix(name.lower, ":") {
		g.sum = sum{}
		return changed, ok
	}
	after := (*v.header)[name.key]
	g.sum.n += len(after) - len(before)
	g.sum.size += bytesIn(name.key, after) - bytesIn(name.key, before)
	return changed, ok
}
