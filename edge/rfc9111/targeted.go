package rfc9111

import (
	"net/http"
	"strings"
	"time"

	"github.com/dunglas/httpsfv"
)

const (
	cdnCacheControl  = "Cdn-Cache-Control" // as net/http writes it: other spellings cost an allocation each time
	surrogateControl = "Surrogate-Control"
)

// governing returns the directives that rule this response: those of the first
// valid targeted field (RFC 9213, 2.2), else of Cache-Control.
func governing(h http.Header, targets []string) (c control, from Source) {
	if targets == nil {
		targets = []string{cdnCacheControl, surrogateControl}
	}
	for _, name := range targets {
		lines := h[http.CanonicalHeaderKey(name)]
		if len(lines) == 0 {
			continue
		}
		if strings.EqualFold(name, surrogateControl) {
			if c, ok := readSurrogate(lines); ok {
				return c, SourceSurrogate
			}
			continue
		}
		if c, ok := readTargeted(lines); ok {
			if strings.EqualFold(name, cdnCacheControl) {
				return c, SourceCDN
			}
			return c, SourceTargeted
		}
	}
	return readControl(h["Cache-Control"], false), SourceNone
}

// readTargeted reads a targeted field, a Structured Field dictionary over all
// lines (RFC 9213, 2.1). It is false, and the field to be ignored whole, when
// it is empty, has a syntax error, or a lifetime of the wrong type.
func readTargeted(lines []string) (c control, ok bool) {
	d, err := httpsfv.UnmarshalDictionary(lines)
	if err != nil || len(d.Names()) == 0 {
		return control{}, false
	}
	for _, name := range d.Names() {
		member, _ := d.Get(name)
		var value any // nil for an inner list
		if item, isItem := member.(httpsfv.Item); isItem {
			value = item.Value
		}
		if !c.addMember(name, value) {
			return control{}, false
		}
	}
	return c, true
}

// addMember counts one dictionary member. It is false when the type of a
// lifetime is wrong.
func (c *control) addMember(name string, value any) bool {
	seconds, isInteger := value.(int64)
	span := time.Duration(min(max(seconds, 0), verySeconds)) * time.Second
	switch name {
	case "max-age":
		c.maxAge.add(span, isInteger)
		return isInteger
	case "s-maxage":
		c.sMaxAge.add(span, isInteger)
		return isInteger
	case "stale-while-revalidate":
		if isInteger {
			c.whileRevalidate.add(span, true)
		}
	case "stale-if-error":
		if isInteger {
			c.ifError.add(span, true)
		}
	case "public":
		c.public = value == true
	case "immutable":
		c.immutable = value == true
	case "must-understand":
		c.mustUnderstand = value != false
		c.overridesNoStore = value == true
	case "must-revalidate":
		c.mustRevalidate = c.mustRevalidate || value != false
		c.permitsAuthorized = value == true
	default:
		// Restrictive directives count whatever they carry; ?0 unsets them.
		if value != false {
			c.invalid(name)
		}
	}
	return true
}

// readSurrogate reads Surrogate-Control, which came before Structured Fields:
// Cache-Control's syntax, with `max-age=600+30` for a lifetime and a stale
// window. It is false when nothing in it speaks of caching, as in
// `content="ESI/1.0"`: Cache-Control then rules.
func readSurrogate(lines []string) (c control, ok bool) {
	c = readControl(lines, true)
	ok = c.noStore || c.private || c.noCache || c.maxAge.set || c.sMaxAge.set
	return c, ok
}

func (c *control) addSurrogate(d directive) {
	if d.name == "no-store-remote" {
		c.noStore = true // a node cannot tell whether it is remote
		return
	}
	fresh, stale, extended := strings.Cut(d.arg, "+")
	if d.name == "max-age" && extended && isDigits(fresh) && isDigits(stale) {
		d.arg = fresh
		window, _ := parseSeconds(stale)
		c.whileRevalidate.add(window, true)
		c.ifError.add(window, true)
	}
	c.add(d)
}
