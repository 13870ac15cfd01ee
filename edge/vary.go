package edge

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"seawall/edge/rfc9111"
	"seawall/edge/store"
)

// Vary is what a site says of the request fields that its origin's Vary names.
// The zero value lets every value of each of them have a response of its own.
type Vary struct {
	// Languages are those that the origin has. Accept-Language becomes the one
	// of them that the client is given, and goes away when it is none.
	Languages []string
	// Accept are the media types between which the origin chooses. Accept
	// becomes those of them that the client names, in its order.
	Accept []string
	// Ignore are fields that no response is told apart by. Cookie,
	// Authorization and Accept-Encoding cannot be.
	Ignore []string
}

// Check returns every fault of v.
func (v Vary) Check() error {
	_, err := newVariation(v)
	return err
}

// variation is Vary, ready for use.
type variation struct {
	languages *rfc9111.Languages // nil: as the client sent it
	types     *rfc9111.Types     // nil: as the client sent it
	ignore    []string           // lower case
}

func newVariation(v Vary) (*variation, error) {
	out := new(variation)
	var faults []error
	var err error
	if v.Languages != nil {
		out.languages, err = rfc9111.NewLanguages(v.Languages...)
		faults = append(faults, err)
	}
	if v.Accept != nil {
		out.types, err = rfc9111.NewTypes(v.Accept...)
		faults = append(faults, err)
	}
	for _, name := range v.Ignore {
		faults = append(faults, mayIgnore(name))
		out.ignore = append(out.ignore, strings.ToLower(name))
	}
	return out, errors.Join(faults...)
}

// mayIgnore says why responses must be told apart by a field. Who is logged in
// must not decide what others see, and codings are told apart by the node.
func mayIgnore(name string) error {
	name = http.CanonicalHeaderKey(name)
	switch name {
	case "Cookie", "Authorization", "Proxy-Authorization":
		return fmt.Errorf("%s cannot be ignored: one client's response would be another's", name)
	case "Accept-Encoding":
		return fmt.Errorf("%s needs no word: codings are told apart by the node", name)
	}
	if !httpguts.ValidHeaderFieldName(name) || name == "*" {
		return fmt.Errorf("%q is no field name", name)
	}
	return nil
}

// reduce returns the header by which the request is looked up and with which
// the origin is asked: what the site says is left of its preferences. h itself
// is never changed.
func (v *variation) reduce(method string, h http.Header) http.Header {
	if v.languages == nil && v.types == nil || method != http.MethodGet && method != http.MethodHead {
		return h
	}
	copied := false
	set := func(name string, lines []string) {
		if slices.Equal(h[name], lines) {
			return
		}
		if !copied {
			h, copied = maps.Clone(h), true
		}
		if h[name] = lines; lines == nil {
			delete(h, name)
		}
	}
	if v.languages != nil {
		set("Accept-Language", v.languages.Reduce(h["Accept-Language"]))
	}
	if v.types != nil {
		set("Accept", []string{v.types.Reduce(h["Accept"])})
	}
	return h
}

// variantOf returns what the response was selected by: of the fields that its
// Vary names, those that the site does not ignore. Where the origin is always
// asked for identity, the client's codings chose nothing; nor do they where it
// sends a coding in spite of that and the node can undo it.
func (f *flight) variantOf(h http.Header) (rfc9111.Variant, bool) {
	if len(h["Vary"]) == 0 {
		return rfc9111.VariantOf(f.ask.header, h)
	}
	plain := !f.policy.PassEncoding && (len(h["Content-Encoding"]) == 0 || f.site.encodes() != nil && readable(h))
	if !plain && len(f.site.vary.ignore) == 0 {
		return rfc9111.VariantOf(f.ask.header, h)
	}
	names := slices.DeleteFunc(rfc9111.Members(h["Vary"]), func(n string) bool {
		n = strings.ToLower(n)
		return plain && n == "accept-encoding" || slices.Contains(f.site.vary.ignore, n)
	})
	said := http.Header{"Vary": {strings.Join(names, ", ")}}
	for _, name := range [...]string{"Content-Encoding", "Content-Language", "Content-Type"} {
		if lines := h[name]; len(lines) > 0 && !(plain && name == "Content-Encoding") {
			said[name] = lines
		}
	}
	return rfc9111.VariantOf(f.ask.header, said)
}

// spoken looks for a response in the language that the origin is known to answer
// the request in, when none was chosen by the same preferences. Known is what
// the fresh variants of the URL tell; it goes with them.
func (x *exchange) spoken(found store.Found[Meta]) store.Found[Meta] {
	lines := x.header["Accept-Language"]
	if !found.Known || len(lines) == 0 || x.policy.HonourReload {
		return found
	}
	var known rfc9111.Tongues
	x.h.Store.Variants(x.hash, x.key, func(o *Object) {
		if o.Meta.Parts != x.parts || o.Meta.Subject.Site != x.zone || o.Invalid() || !o.Meta.Variant.MatchesBeside(x.header) {
			return
		}
		if t, verdict := x.h.softened(o); verdict == store.Valid && t.Fresh(x.now) {
			known.Learn(&o.Meta.Variant)
		}
	})
	if x.language = known.Choose(lines); x.language == "" {
		return found
	}
	other := x.h.Store.Find(x.hash, x.key, &x.ask)
	x.language = ""
	if o := other.Object; o == nil || other.Invalid || other.Soft || !o.Meta.Terms.Fresh(x.now) {
		return found
	}
	return other
}
