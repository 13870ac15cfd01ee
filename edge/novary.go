package edge

import (
	"net/http"
	"slices"
	"strings"

	"seawall/edge/rfc9111"
	"seawall/edge/store"
)

// No-Vary-Search tells which parameters do not tell responses apart. A
// response that has it leaves two further entries in the store: the rule,
// under its path, and its key, under the canonical form of its query. They
// are small, and evicted like any other.

const (
	ruleMark  = "\x00rule"
	aliasMark = "\x00alias"
)

// anyone accepts every object: rules and aliases have no variants.
type anyone struct{}

func (anyone) Accepts(*Object) bool     { return true }
func (anyone) Joins(*Object) bool       { return false }
func (anyone) Selector([]string) string { return "" }

// learn remembers what a stored response says of its query.
func (h *Handler) learn(a *ask, key []byte, header http.Header) {
	lines := header["No-Vary-Search"]
	if len(lines) == 0 {
		return
	}
	rule, ok := rfc9111.ParseNoVarySearch(lines)
	if !ok {
		return
	}
	h.equivalents.Store(true)
	place := appendKey(nil, a.scheme, a.host, a.path, "")
	h.note(append(slices.Clone(place), ruleMark...), strings.Join(lines, ", "))
	h.note(aliasKey(place, rule, a.query), string(key))
}

func aliasKey(place []byte, rule rfc9111.NoVarySearch, query string) []byte {
	place = append(slices.Clone(place), '?')
	place = append(place, rule.Canonical(strings.TrimPrefix(query, "?"))...)
	return append(place, aliasMark...)
}

// note stores a text under a key of its own.
func (h *Handler) note(key []byte, text string) {
	claim := h.Store.Claim(h.Store.Hash(key), key)
	defer h.Store.Drop(claim)
	h.Store.Publish(claim, &Object{Body: store.NewBody([]byte(text))})
}

func (h *Handler) noted(key []byte) (string, bool) {
	o := h.Store.Find(h.Store.Hash(key), key, anyone{}).Object
	if o == nil {
		return "", false
	}
	text, _ := o.Body.Whole()
	return string(text), true
}

// original returns the key of a stored response whose query is equivalent.
func (h *Handler) original(a *ask) (key []byte, ok bool) {
	if !h.equivalents.Load() {
		return nil, false
	}
	place := appendKey(nil, a.scheme, a.host, a.path, "")
	lines, ok := h.noted(append(slices.Clone(place), ruleMark...))
	if !ok {
		return nil, false
	}
	rule, ok := rfc9111.ParseNoVarySearch([]string{lines})
	if !ok {
		return nil, false
	}
	text, ok := h.noted(aliasKey(place, rule, a.query))
	return []byte(text), ok
}

// equivalent looks for a response to an equivalent query when the request's
// own has none. From then on the exchange goes by that response's key.
func (x *exchange) equivalent(found store.Found[Meta]) store.Found[Meta] {
	key, ok := x.h.original(&x.ask)
	if !ok {
		return found
	}
	hash := x.h.Store.Hash(key)
	other := x.h.Store.Find(hash, key, &x.ask)
	if other.Object == nil || !x.agrees(other.Object) {
		return found
	}
	x.key, x.hash = append(x.key[:0], key...), hash
	return other
}

// agrees reports whether the object's own No-Vary-Search still makes the
// request's query equivalent to its own: the rule known for the path may be
// another response's.
func (x *exchange) agrees(o *Object) bool {
	for _, f := range o.Meta.Fields {
		if f.Name != "No-Vary-Search" {
			continue
		}
		rule, ok := rfc9111.ParseNoVarySearch(f.Values)
		_, own, _ := strings.Cut(o.Key, "?")
		return ok && rule.Canonical(own) == rule.Canonical(strings.TrimPrefix(x.query, "?"))
	}
	return false
}

// invalidate marks what is stored for key, and for a query equivalent to the
// request's.
func (x *exchange) invalidate(key []byte) {
	x.h.Store.Invalidate(x.h.Store.Hash(key), key)
	if other, ok := x.h.original(&x.ask); ok {
		x.h.Store.Invalidate(x.h.Store.Hash(other), other)
	}
}
