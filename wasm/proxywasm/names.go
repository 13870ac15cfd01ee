package proxywasm

import (
	"net/http"
	"slices"
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

// Bounds of the names and values a guest's host remembers: guests have a few,
// and one that makes up many has each made anew.
const (
	maxNames      = 64
	maxNameLength = 64
)

// known is a name with the value that a field of it was last given.
type known struct {
	fieldName
	lines []string // a valid one alone, which messages share: it is never changed
}

// known is nameOf, remembered: most guests use the same few names for every
// request.
func (g *guest) known(b []byte) *known {
	if k, ok := g.names[string(b)]; ok {
		return k
	}
	text := string(b)
	k := &known{fieldName: nameOf(text)}
	if len(b) <= maxNameLength && len(g.names) < maxNames {
		if g.names == nil {
			g.names = make(map[string]*known)
		}
		g.names[text] = k
	}
	return k
}

// name is the name alone.
func (g *guest) name(b []byte) fieldName { return g.known(b).fieldName }

// is reports whether the value is the one last given.
func (k *known) is(value []byte) bool { return len(k.lines) == 1 && k.lines[0] == string(value) }

// learn remembers what was set, if it is short.
func (k *known) learn(lines []string) {
	if len(lines) == 1 && len(lines[0]) <= maxNameLength {
		k.lines = slices.Clip(lines)
	}
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
func (g *guest) changing(v fields, c change, name, value []byte, room int) (changed, ok bool) {
	var e effect
	k := g.known(name)
	if c != remove && k.is(value) {
		e, ok = v.put(c, k.fieldName, k.lines[0], k.lines, room)
	} else if e, ok = v.apply(c, k.fieldName, string(value), room); e.changed && !e.pseudo && c != remove {
		k.learn((*v.header)[k.key])
	}
	switch {
	case !e.changed:
	case g.sum.of != v.header, e.pseudo:
		g.sum = sum{}
	default:
		g.sum.n += e.n
		g.sum.size += e.size
	}
	return e.changed, ok
}
