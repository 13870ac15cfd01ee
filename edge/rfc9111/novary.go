package rfc9111

import (
	"net/url"
	"slices"
	"strings"

	"github.com/dunglas/httpsfv"
)

// NoVarySearch says which query parameters do not select a representation
// (draft-ietf-httpbis-no-vary-search). The zero value lets all and their order
// select. It does not change once parsed.
type NoVarySearch struct {
	anyOrder bool                // key-order
	all      bool                // params: every name is ignored but those in names
	names    map[string]struct{} // else the ignored ones
}

// ParseNoVarySearch reads a No-Vary-Search field, a Structured Field dictionary
// over all lines. It is false when the field is absent, invalid, or without
// effect: then only equal queries are equivalent.
func ParseNoVarySearch(lines []string) (n NoVarySearch, ok bool) {
	if len(lines) == 0 {
		return n, false
	}
	d, err := httpsfv.UnmarshalDictionary(lines)
	if err != nil {
		return n, false
	}
	if m, has := d.Get("key-order"); has {
		if n.anyOrder, ok = booleanOf(m); !ok {
			return NoVarySearch{}, false
		}
	}
	if m, has := d.Get("params"); has {
		if n.all, ok = booleanOf(m); !ok {
			if n.names, ok = stringsOf(m); !ok {
				return NoVarySearch{}, false
			}
		}
	}
	if m, has := d.Get("except"); has {
		if n.names, ok = stringsOf(m); !ok || !n.all {
			return NoVarySearch{}, false
		}
	}
	return n, n.anyOrder || n.all || len(n.names) > 0
}

func booleanOf(m httpsfv.Member) (value, ok bool) {
	item, _ := m.(httpsfv.Item)
	value, ok = item.Value.(bool)
	return value, ok
}

// stringsOf reads an inner list of strings, each a parameter name in the form it
// has in a query.
func stringsOf(m httpsfv.Member) (map[string]struct{}, bool) {
	list, ok := m.(httpsfv.InnerList)
	if !ok {
		return nil, false
	}
	names := make(map[string]struct{}, len(list.Items))
	for _, item := range list.Items {
		name, ok := item.Value.(string)
		if !ok {
			return nil, false
		}
		names[decodeForm(name)] = struct{}{}
	}
	return names, true
}

// selects tells whether a parameter of this name selects a representation.
func (n NoVarySearch) selects(name string) bool {
	_, listed := n.names[name]
	return listed == n.all
}

// Canonical returns a query, without its question mark, reduced to what selects a
// representation: equal results mean equivalent queries. It is itself a query and
// its own canonical form.
func (n NoVarySearch) Canonical(query string) string {
	type parameter struct{ name, value string }
	var kept []parameter
	for query != "" {
		var one string
		one, query, _ = strings.Cut(query, "&")
		if one == "" {
			continue
		}
		name, value, _ := strings.Cut(one, "=")
		if name = decodeForm(name); n.selects(name) {
			kept = append(kept, parameter{name, decodeForm(value)})
		}
	}
	if n.anyOrder {
		slices.SortStableFunc(kept, func(a, b parameter) int { return strings.Compare(a.name, b.name) })
	}
	var b strings.Builder
	for i, p := range kept {
		if i > 0 {
			b.WriteByte('&')
		}
		b.WriteString(url.QueryEscape(p.name))
		b.WriteByte('=')
		b.WriteString(url.QueryEscape(p.value))
	}
	return b.String()
}

// decodeForm undoes application/x-www-form-urlencoded: plus is a space, an
// escape that is none stays as it is. Bytes that are not UTF-8 stay too, which
// tells more queries apart than the draft's replacement character would.
func decodeForm(s string) string {
	if strings.IndexByte(s, '%') < 0 && strings.IndexByte(s, '+') < 0 {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '+':
			b = append(b, ' ')
		case s[i] == '%' && i+2 < len(s) && hexDigit(s[i+1]) >= 0 && hexDigit(s[i+2]) >= 0:
			b = append(b, byte(hexDigit(s[i+1])<<4|hexDigit(s[i+2])))
			i += 2
		default:
			b = append(b, s[i])
		}
	}
	return string(b)
}

func hexDigit(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}
