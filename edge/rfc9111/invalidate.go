package rfc9111

import (
	"net/http"
	"slices"
	"strings"
)

// Unsafe tells whether a method may change state: every one but GET, HEAD,
// OPTIONS and TRACE, unknown ones included (RFC 9110, 9.2.1).
func Unsafe(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return false
	}
	return true
}

// Invalidates tells whether a response to this method makes what is stored for
// its URL invalid: success or redirection to an unsafe method (RFC 9111, 4.4).
func Invalidates(method string, status int) bool {
	return Unsafe(method) && status >= 200 && status < 400
}

// AlsoInvalid returns the absolute URLs of Location and Content-Location in such
// a response that have the origin of url, each once and without url itself.
// Another origin's are never among them. The path is as sent but for dot
// segments; the caller makes its key of it as of a request's.
func AlsoInvalid(url string, h http.Header) []string {
	own, ok := resolve(url, "")
	if !ok {
		return nil
	}
	var also []string
	for _, name := range [...]string{"Location", "Content-Location"} {
		for _, reference := range h[name] {
			absolute, ok := resolve(own, trimOWS(reference))
			if ok && absolute != own && sameOrigin(absolute, own) && !slices.Contains(also, absolute) {
				also = append(also, absolute)
			}
		}
	}
	return also
}

// resolve makes a reference absolute (RFC 3986, 5.2) on bytes: net/url would
// rewrite what the cache key keeps. Scheme and host become lower case, the
// default port and the fragment go. It is false for what is not http or https,
// has user information, or has bytes that no URL has.
func resolve(base, reference string) (string, bool) {
	reference, _, _ = strings.Cut(reference, "#")
	if !isURLBytes(reference) {
		return "", false
	}
	scheme, authority, path, ok := splitURL(base)
	if !ok {
		return "", false
	}
	switch {
	case reference == "":
		reference = path
	case hasScheme(reference):
		if scheme, authority, reference, ok = splitURL(reference); !ok {
			return "", false
		}
	case strings.HasPrefix(reference, "//"):
		if _, authority, reference, ok = splitURL(scheme + ":" + reference); !ok {
			return "", false
		}
	case reference[0] == '?':
		own, _, _ := strings.Cut(path, "?")
		reference = own + reference
	case reference[0] != '/':
		own, _, _ := strings.Cut(path, "?")
		reference = own[:strings.LastIndexByte(own, '/')+1] + reference
	}
	return scheme + "://" + authority + removeDots(reference), true
}

func isURLBytes(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] <= ' ' || s[i] == 0x7f {
			return false
		}
	}
	return true
}

// hasScheme tells an absolute reference from a relative one with a colon in a
// later segment.
func hasScheme(s string) bool {
	n := strings.IndexAny(s, ":/?")
	return n > 0 && s[n] == ':'
}

// splitURL parts an absolute URL without fragment. The path begins with a slash
// and has the query behind it.
func splitURL(s string) (scheme, authority, path string, ok bool) {
	s, _, _ = strings.Cut(s, "#")
	scheme, rest, ok := strings.Cut(s, "://")
	scheme = strings.ToLower(scheme)
	if !ok || scheme != "http" && scheme != "https" {
		return "", "", "", false
	}
	n := strings.IndexAny(rest, "/?")
	if n < 0 {
		n = len(rest)
	}
	authority, ok = readAuthority(scheme, strings.ToLower(rest[:n]))
	path = rest[n:]
	if path == "" || path[0] != '/' {
		path = "/" + path
	}
	return scheme, authority, path, ok
}

// readAuthority checks a lower-case authority and drops an empty or default port.
func readAuthority(scheme, authority string) (string, bool) {
	host, port := authority, ""
	if n := strings.LastIndexByte(authority, ':'); n > strings.LastIndexByte(authority, ']') {
		host, port = authority[:n], authority[n+1:]
	}
	bracketed := strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]")
	if host == "" || strings.ContainsAny(host, "@\\") || !bracketed && strings.ContainsAny(host, ":[]") {
		return "", false
	}
	switch {
	case port == "", scheme == "http" && port == "80", scheme == "https" && port == "443":
		return host, true
	}
	return host + ":" + port, isDigits(port)
}

// sameOrigin compares two results of resolve (RFC 9110, 4.3.1).
func sameOrigin(a, b string) bool {
	schemeA, hostA, _, _ := splitURL(a)
	schemeB, hostB, _, _ := splitURL(b)
	return schemeA == schemeB && hostA == hostB
}

// removeDots removes dot segments from a path with its query (RFC 3986, 5.2.4).
func removeDots(target string) string {
	path, query, hasQuery := strings.Cut(target, "?")
	if strings.Contains(path, "/.") {
		path = removeDotSegments(path)
	}
	if hasQuery {
		return path + "?" + query
	}
	return path
}

func removeDotSegments(path string) string {
	var kept []string
	segments := strings.Split(path[1:], "/")
	for i, segment := range segments {
		if segment != "." && segment != ".." {
			kept = append(kept, segment)
			continue
		}
		if segment == ".." && len(kept) > 0 {
			kept = kept[:len(kept)-1]
		}
		if i == len(segments)-1 {
			kept = append(kept, "") // "/a/." is "/a/"
		}
	}
	return "/" + strings.Join(kept, "/")
}
