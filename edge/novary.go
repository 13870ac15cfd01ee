package edge

import (
	"bytes"
	"net/http"
	"slices"
	"strings"

	"seawall/edge/rfc9111"
	"seawall/edge/store"
	"seawall/purge"
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
func (anyone) Subject() any             { return nil }

// learn remembers what a response stored for key says of its query.
func (h *Handler) learn(key []byte, header http.Header) {
	lines := header["No-Vary-Search"]
	if len(lines) == 0 {
		return
	}
	rule, ok := rfc9111.ParseNoVarySearch(lines)
	if !ok {
		return
	}
	place, query := splitKey(key)
	h.note(ruleKey(place), strings.Join(lines, ", "))
	h.note(aliasKey(place, rule, query), string(key))
}

// splitKey parts a key into what stands before the query, and the query.
func splitKey(key []byte) (place []byte, query string) {
	if i := bytes.IndexByte(key, '?'); i >= 0 {
		return key[:i], string(key[i+1:])
	}
	return key, ""
}

func ruleKey(place []byte) []byte { return append(slices.Clone(place), ruleMark...) }

func aliasKey(place []byte, rule rfc9111.NoVarySearch, query string) []byte {
	place = append(slices.Clone(place), '?')
	place = append(place, rule.Canonical(query)...)
	return append(place, aliasMark...)
}

// note stores a text under a key of its own.
func (h *Handler) note(key []byte, text string) {
	claim := h.Store.Claim(h.Store.Hash(key), key)
	defer h.Store.Drop(claim)
	h.Store.Publish(claim, &Object{Body: store.NewBody([]byte(text))})
}

func (h *Handler) noted(key []byte) (string, bool) {
	o := h.Store.Peek(h.Store.Hash(key), key, anyone{}).Object
	if o == nil {
		return "", false
	}
	text, _ := o.Body.Whole()
	return string(text), true
}

// original returns the key under which a response to an equivalent query was
// stored.
func (h *Handler) original(key []byte) ([]byte, bool) {
	place := key
	if i := bytes.IndexByte(key, '?'); i >= 0 {
		place = key[:i]
	}
	var room [256]byte // every miss comes here, and few paths have a rule
	lines, ok := h.noted(append(append(room[:0], place...), ruleMark...))
	if !ok {
		return nil, false
	}
	rule, ok := rfc9111.ParseNoVarySearch([]string{lines})
	if !ok {
		return nil, false
	}
	_, query := splitKey(key)
	text, ok := h.noted(aliasKey(place, rule, query))
	return []byte(text), ok && text != string(key)
}

// equivalent looks for a response to an equivalent query when the request's
// own has none. It counts only while it may be used without asking the origin:
// what the origin answers to one query is never stored under another.
func (x *exchange) equivalent(found store.Found[Meta]) store.Found[Meta] {
	key, ok := x.h.original(x.key)
	if !ok {
		return found
	}
	hash := x.h.Store.Hash(key)
	other := x.h.Store.Find(hash, key, &x.ask)
	o := other.Object
	if o == nil || other.Invalid || other.Soft || !agree(o, x.key) {
		return found
	}
	if verdict, _ := x.h.touched(o, x.place(), x.zone); verdict != purge.Valid {
		return found // what was purged by this URL is stored under another
	}
	if t := o.Meta.Terms; !t.Fresh(x.now) && !t.MayServeStale(x.now) {
		return found
	}
	// A refresh behind asks for the stored response's own target.
	_, query := splitKey(key)
	x.key, x.hash, x.query = append(x.key[:0], key...), hash, ""
	if query != "" {
		x.query = "?" + query
	}
	return other
}

// agree reports whether the object's own No-Vary-Search makes the query of key
// equivalent to its own: the rule known for the path may be another response's.
func agree(o *Object, key []byte) bool {
	for _, f := range o.Meta.Fields {
		if f.Name != "No-Vary-Search" {
			continue
		}
		rule, ok := rfc9111.ParseNoVarySearch(f.Values)
		_, own := splitKey([]byte(o.Key))
		_, query := splitKey(key)
		return ok && rule.Canonical(own) == rule.Canonical(query)
	}
	return false
}

// invalidate marks what is stored for key, and for an equivalent query. own is
// the claim of the request that invalidates, or nil.
func (h *Handler) invalidate(key []byte, own *store.Claim[Meta]) {
	h.Store.Invalidate(h.Store.Hash(key), key, own)
	if other, ok := h.original(key); ok {
		h.Store.Invalidate(h.Store.Hash(other), other, nil)
	}
}
