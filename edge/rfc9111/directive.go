package rfc9111

import (
	"strings"
	"time"

	"github.com/pquerna/cachecontrol/cacheobject"
)

// directive is one isolated member of a Cache-Control field.
type directive struct {
	name   string // lower case
	arg    string // without quotes and escapes
	hasArg bool   // an equals sign follows the name, maybe with nothing behind it
}

// splitDirective reads `name`, `name=token` or `name="quoted"` and nothing else
// (RFC 9111, 5.2). An empty argument is let through, as it is an invalid value
// of a known directive and not an unknown shape.
func splitDirective(member string) (d directive, ok bool) {
	n := tokenLen(member)
	if n == 0 {
		return d, false
	}
	d.name = strings.ToLower(member[:n])
	rest := member[n:]
	if rest == "" {
		return d, true
	}
	if rest[0] != '=' {
		return d, false
	}
	d.hasArg, rest = true, rest[1:]
	if rest != "" && rest[0] == '"' {
		d.arg = unquote(rest)
		return d, quotedLen(rest, false) == len(rest)
	}
	d.arg = rest
	return d, tokenLen(rest) == len(rest)
}

// unquote returns what a quoted string stands for (RFC 9110, 5.6.4): `\a` is
// `a`, not a control character.
func unquote(s string) string {
	s = strings.TrimSuffix(s[1:], `"`)
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b = append(b, s[i])
	}
	return string(b)
}

// lifetime gathers the values of a repeated freshness directive: the smallest
// counts, and an invalid one is 0.
type lifetime struct {
	set, bad bool
	value    time.Duration
}

func (l *lifetime) add(d time.Duration, ok bool) {
	if !ok {
		l.bad, d = true, 0
	}
	if !l.set || d < l.value {
		l.value = d
	}
	l.set = true
}

// valid tells whether every value was readable.
func (l *lifetime) valid() bool { return l.set && !l.bad }

// control is what a response says to caches, from Cache-Control or from the
// targeted field that replaces it.
type control struct {
	noStore, private, noCache bool
	mustRevalidate            bool // or proxy-revalidate, however written: only restricts
	permitsAuthorized         bool // must-revalidate in its exact form (RFC 9111, 3.5)
	public, immutable         bool
	mustUnderstand            bool // its restriction holds
	overridesNoStore          bool // must-understand in its exact form
	maxAge, sMaxAge           lifetime
	whileRevalidate, ifError  lifetime
}

// readControl reads a Cache-Control field. Whatever cannot be read loosens
// nothing: restrictive names found in it count, freshness named in it is 0.
func readControl(lines []string, surrogate bool) control {
	var c control
	it := members{lines: lines}
	for m, ok := it.next(); ok; m, ok = it.next() {
		d, wellFormed := splitDirective(m)
		switch {
		case it.torn || !wellFormed:
			c.suspect(m)
		case surrogate:
			c.addSurrogate(d)
		default:
			c.add(d)
		}
	}
	return c
}

// add counts one well-formed directive, read by the library in isolation: with
// its digits where it has a number, bare otherwise, as the library refuses
// arguments that a restrictive directive must survive.
func (c *control) add(d directive) {
	text := d.name
	switch d.name {
	case "max-age", "s-maxage", "stale-while-revalidate", "stale-if-error":
		if !isDigits(d.arg) {
			c.invalid(d.name)
			return
		}
		text += "=" + d.arg
	case "immutable":
		if d.hasArg {
			return // loosens, so nothing about it is guessed
		}
	case "must-understand":
		c.mustUnderstand = true
		c.overridesNoStore = c.overridesNoStore || !d.hasArg
		return
	case "must-revalidate":
		c.permitsAuthorized = c.permitsAuthorized || !d.hasArg
	case "no-store", "private", "no-cache", "proxy-revalidate", "public":
	default:
		return
	}
	read, err := cacheobject.ParseResponseCacheControl(text)
	if err != nil {
		c.invalid(d.name)
		return
	}
	c.fold(read)
}

// fold adds what the library read from one directive.
func (c *control) fold(read *cacheobject.ResponseCacheDirectives) {
	c.noStore = c.noStore || read.NoStore
	c.private = c.private || read.PrivatePresent
	c.noCache = c.noCache || read.NoCachePresent
	c.mustRevalidate = c.mustRevalidate || read.MustRevalidate || read.ProxyRevalidate
	c.public = c.public || read.Public
	c.immutable = c.immutable || read.Immutable
	for _, n := range [...]struct {
		seconds cacheobject.DeltaSeconds
		to      *lifetime
	}{
		{read.MaxAge, &c.maxAge},
		{read.SMaxAge, &c.sMaxAge},
		{read.StaleWhileRevalidate, &c.whileRevalidate},
		{read.StaleIfError, &c.ifError},
	} {
		if n.seconds >= 0 {
			n.to.add(time.Duration(n.seconds)*time.Second, true)
		}
	}
}

// invalid counts a directive by its name when its value cannot be read. An
// unreadable stale window is ignored alone.
func (c *control) invalid(name string) {
	switch name {
	case "no-store":
		c.noStore = true
	case "private":
		c.private = true
	case "no-cache":
		c.noCache = true
	case "must-revalidate", "proxy-revalidate":
		c.mustRevalidate = true
	case "must-understand":
		c.mustUnderstand = true
	case "max-age":
		c.maxAge.add(0, false)
	case "s-maxage":
		c.sMaxAge.add(0, false)
	}
}

// suspect looks for directive names in a member of no known shape, such as
// `public; max-age=60` or `no-store max-age=60`.
func (c *control) suspect(member string) {
	for member != "" {
		n := tokenLen(member)
		if n == 0 {
			member = member[1:]
			continue
		}
		c.invalid(strings.ToLower(member[:n]))
		member = member[n:]
	}
}
