package edge

import (
	"net/http"
	"slices"
	"strings"
)

// The target is kept as bytes and normalised once: what goes to the origin is
// what is in the key, byte for byte. Otherwise the two could disagree about
// which resource is meant, and one response be stored for another.

// splitTarget returns path and query (with its "?") of a request target, in
// origin or absolute form. It is false for any other form, and for a target
// with a fragment, on which servers disagree.
func splitTarget(target string) (path, query string, ok bool) {
	if !strings.HasPrefix(target, "/") {
		scheme, rest, found := strings.Cut(target, "://")
		if !found || !strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https") {
			return "", "", false
		}
		i := strings.IndexAny(rest, "/?")
		switch {
		case i < 0:
			return "/", "", true
		case rest[i] == '?':
			path, query = "/", rest[i:]
		default:
			target = rest[i:]
		}
	}
	if path == "" {
		path = target
		if i := strings.IndexByte(target, '?'); i >= 0 {
			path, query = target[:i], target[i:]
		}
	}
	return path, query, strings.IndexByte(target, '#') < 0
}

// normalPath returns path without dot segments (also those written with %2e)
// and with the hexadecimal digits of percent-encodings in upper case. It
// decodes nothing else and merges no slashes. A path that is normal already is
// returned as it is, without allocation.
func normalPath(path string) string {
	if plainPath(path) {
		return path
	}
	out := make([]byte, 0, len(path))
	rest := path
	for len(rest) > 0 {
		// rest begins with a slash: take it and the segment behind it.
		end := strings.IndexByte(rest[1:], '/') + 1
		if end == 0 {
			end = len(rest)
		}
		segment := rest[1:end]
		rest = rest[end:]
		switch dots(segment) {
		case 1:
		case 2:
			out = out[:max(0, lastSlash(out))]
		default:
			out = appendUpperHex(append(out, '/'), segment)
			continue
		}
		if rest == "" {
			out = append(out, '/')
		}
	}
	return string(out)
}

// plainPath reports whether there is nothing to normalise.
func plainPath(path string) bool {
	for i := 0; i < len(path); i++ {
		switch path[i] {
		case '%':
			return false
		case '.':
			if i > 0 && path[i-1] == '/' {
				return false
			}
		}
	}
	return true
}

// dots returns 1 for a segment "." and 2 for "..", with any dot written as
// %2e, else 0.
func dots(segment string) int {
	n := 0
	for segment != "" {
		switch {
		case segment[0] == '.':
			segment = segment[1:]
		case len(segment) >= 3 && segment[0] == '%' && segment[1] == '2' && segment[2]|0x20 == 'e':
			segment = segment[3:]
		default:
			return 0
		}
		if n++; n > 2 {
			return 0
		}
	}
	return n
}

func lastSlash(p []byte) int {
	for i := len(p) - 1; i >= 0; i-- {
		if p[i] == '/' {
			return i
		}
	}
	return -1
}

func appendUpperHex(dst []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]) {
			dst = append(dst, '%', upper(s[i+1]), upper(s[i+2]))
			i += 2
			continue
		}
		dst = append(dst, s[i])
	}
	return dst
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f'
}

func upper(c byte) byte {
	if 'a' <= c && c <= 'f' {
		return c - ('a' - 'A')
	}
	return c
}

// normalHost returns a Host in lower case without the scheme's default port.
// A host that is normal already is returned without allocation.
func normalHost(scheme, host string) string {
	host = strings.ToLower(host)
	if scheme == "http" {
		return strings.TrimSuffix(host, ":80")
	}
	return strings.TrimSuffix(host, ":443")
}

// validHost reports whether a normalised host can be told apart from what
// follows it in a key: a name, an IPv4 address or an IPv6 address in brackets,
// with or without a port (RFC 3986, 3.2.2). HTTP/2 brings it unchecked.
func validHost(host string) bool {
	for i := 0; i < len(host); i++ {
		c := host[i]
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		case strings.IndexByte("-._~%!$&'()*+,;=:[]", c) >= 0:
		default:
			return false
		}
	}
	return true
}

// appendKey appends the key of a response: the one place where keys are made.
// GET and HEAD share it. All of its parts are normal already.
func appendKey(dst []byte, scheme, host, path, query string) []byte {
	dst = append(dst, scheme...)
	dst = append(dst, "://"...)
	dst = append(dst, host...)
	dst = append(dst, path...)
	return append(dst, query...)
}

// keyOf returns the key of an absolute URL, as appendKey makes it for a
// request of that URL; false when it is not one.
func (s *site) keyOf(url string) ([]byte, bool) {
	scheme, rest, ok := strings.Cut(url, "://")
	if !ok {
		return nil, false
	}
	host := rest
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		host = rest[:i]
	}
	path, query, ok := splitTarget(url)
	if !ok {
		return nil, false
	}
	scheme = strings.ToLower(scheme)
	return appendKey(nil, scheme, normalHost(scheme, host), normalPath(path), s.query.apply(query)), true
}

// queryPolicy is Query, ready for use.
type queryPolicy struct {
	drop, keep []string
	sort       bool
}

// apply returns the query (with its "?") that counts. Without a policy it is
// returned as it is.
func (p *queryPolicy) apply(query string) string {
	if query == "" || len(p.drop) == 0 && len(p.keep) == 0 && !p.sort {
		return query
	}
	var kept []string
	for param := range strings.SplitSeq(query[1:], "&") {
		name, _, _ := strings.Cut(param, "=")
		if matchesAny(p.drop, name) || len(p.keep) > 0 && !matchesAny(p.keep, name) {
			continue
		}
		kept = append(kept, param)
	}
	if p.sort {
		slices.SortStableFunc(kept, func(a, b string) int {
			a, _, _ = strings.Cut(a, "=")
			b, _, _ = strings.Cut(b, "=")
			return strings.Compare(a, b)
		})
	}
	if len(kept) == 0 {
		return ""
	}
	return "?" + strings.Join(kept, "&")
}

// matchesAny reports whether name is one of the patterns, of which those that
// end in "*" are prefixes.
func matchesAny(patterns []string, name string) bool {
	for _, p := range patterns {
		if prefix, ok := strings.CutSuffix(p, "*"); ok && strings.HasPrefix(name, prefix) || p == name {
			return true
		}
	}
	return false
}

// keyParts returns the request fields and cookies that a policy makes part of
// a variant's key, "" when there are none.
func (p *policy) keyParts(h http.Header) string {
	if len(p.KeyHeaders) == 0 && len(p.KeyCookies) == 0 {
		return ""
	}
	var b strings.Builder
	for _, name := range p.KeyHeaders {
		b.WriteString(name)
		b.WriteByte('=')
		b.WriteString(strings.Join(h.Values(name), ","))
		b.WriteByte('\n')
	}
	for _, name := range p.KeyCookies {
		value, _ := cookie(h, name)
		b.WriteString("cookie ")
		b.WriteString(name)
		b.WriteByte('=')
		b.WriteString(value)
		b.WriteByte('\n')
	}
	return b.String()
}

// cookie returns the first cookie of this name.
func cookie(h http.Header, name string) (string, bool) {
	for _, line := range h["Cookie"] {
		for pair := range strings.SplitSeq(line, ";") {
			n, value, _ := strings.Cut(strings.TrimSpace(pair), "=")
			if n == name {
				return value, true
			}
		}
	}
	return "", false
}
