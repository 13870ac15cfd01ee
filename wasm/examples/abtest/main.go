//go:build wasip1

// Command abtest is an edge function that shows visitors one of several
// variants of a site, and always the same one: a cookie remembers which. The
// variants are cached apart, and purging a URL purges them all. Each line of
// its configuration is one of
//
//	variant: NAME WEIGHT [/PREFIX]   a variant; requests of its visitors are sent to /PREFIX and their path
//	path: /shop/                     only requests whose path begins so (all); may be repeated
//	cookie: NAME                     the cookie that remembers (ab)
//	header: NAME                     the field that tells the origin the variant (X-Ab)
//	max-age: SECONDS                 how long the cookie lasts (2592000, 30 days)
//
// For example, to show one visitor in ten the pages below /beta:
//
//	variant: a 90
//	variant: b 10 /beta
//	path: /shop/
//
// Build it with
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o abtest.wasm ./wasm/examples/abtest
//
// Run it at the viewer's side. The cookie is set on the way to the client, so
// what is cached has none; clients and caches between are told that the
// response depends on the cookie. Whoever wants can choose a variant by
// sending its cookie: variants are no secrets. c/abtest.c is the same function
// in C.
package main

import (
	"errors"
	"math/bits"
	"slices"
	"strconv"
	"strings"

	"seawall/wasm/examples/guest"
)

type variant struct {
	name, prefix string
	weight       uint64
}

// The configuration. It is read once, when a machine starts.
var (
	variants []variant
	total    uint64 // of the weights
	paths    []string
	cookie   = "ab"
	header   = "x-ab"
	maxAge   = "2592000"
)

// main is not run: the node calls what is exported.
func main() {}

//go:wasmexport proxy_on_configure
func configure(_, _ uint32) bool {
	if !guest.Configure(rule) {
		return false
	}
	if total == 0 {
		return guest.Refuse("no variant has a weight")
	}
	return true
}

// rule takes one line of the configuration.
func rule(line string) error {
	name, value, ok := strings.Cut(line, ":")
	value = strings.TrimSpace(value)
	if !ok {
		return errors.New("not NAME: VALUE")
	}
	switch name {
	case "variant":
		return addVariant(strings.Fields(value))
	case "path":
		if !strings.HasPrefix(value, "/") {
			return errors.New("not a path")
		}
		paths = append(paths, value)
	case "cookie", "header":
		if !word(value) {
			return errors.New("not a name of letters, digits, - and _")
		}
		if name == "cookie" {
			cookie = value
		} else {
			header = strings.ToLower(value)
		}
	case "max-age":
		if _, err := strconv.ParseUint(value, 10, 31); err != nil {
			return errors.New("not a number of seconds")
		}
		maxAge = value
	default:
		return errors.New("no such setting")
	}
	return nil
}

func addVariant(words []string) error {
	if len(words) < 2 || len(words) > 3 {
		return errors.New("not NAME WEIGHT [/PREFIX]")
	}
	v := variant{name: words[0]}
	if !word(v.name) {
		return errors.New("not a name of letters, digits, - and _")
	}
	if slices.ContainsFunc(variants, func(o variant) bool { return o.name == v.name }) {
		return errors.New("there is one of the name already")
	}
	n, err := strconv.ParseUint(words[1], 10, 16)
	if err != nil {
		return errors.New("the weight is not a number from 0 to 65535")
	}
	v.weight = n
	if len(words) == 3 {
		v.prefix = words[2]
		if !strings.HasPrefix(v.prefix, "/") || strings.HasSuffix(v.prefix, "/") || strings.ContainsAny(v.prefix, "?#") {
			return errors.New("the prefix is no path, or ends in a slash")
		}
	}
	variants, total = append(variants, v), total+n
	return nil
}

func word(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i] | 0x20
		if (c < 'a' || c > 'z') && (s[i] < '0' || s[i] > '9') && s[i] != '-' && s[i] != '_' {
			return false
		}
	}
	return s != "" && len(s) <= 64
}

// request chooses the variant.
//
//go:wasmexport proxy_on_request_headers
func request(_, _, _ uint32) uint32 {
	path, query := guest.Target()
	guest.Request.Remove(header) // only this function says it
	if !tested(path) {
		return guest.Continue
	}
	v := remembered()
	if v == nil {
		v = drawn()
	}
	guest.Request.Set(header, v.name)
	if v.prefix != "" {
		guest.Request.Set(":path", v.prefix+path+query)
	}
	guest.SetProperty("seawall.cache.key", "ab="+v.name)
	return guest.Continue
}

func tested(path string) bool {
	return len(paths) == 0 || slices.ContainsFunc(paths, func(p string) bool { return strings.HasPrefix(path, p) })
}

// remembered is the variant that the visitor's cookie names, or nil.
func remembered() *variant {
	name, _ := guest.Cookie(cookie)
	for i := range variants {
		if variants[i].name == name {
			return &variants[i]
		}
	}
	return nil
}

// drawn is a variant by chance, as the weights have it.
func drawn() *variant {
	n, _ := bits.Mul64(guest.Random(), total) // from 0 to total, the latter without
	for i := range variants {
		if n < variants[i].weight {
			return &variants[i]
		}
		n -= variants[i].weight
	}
	return &variants[0]
}

// response has a new visitor's client remember what was drawn: the request
// still has the field that request set.
//
//go:wasmexport proxy_on_response_headers
func response(_, _, _ uint32) uint32 {
	name := guest.Request.Value(header)
	if name == "" {
		return guest.Continue
	}
	guest.Response.Add("vary", "Cookie")
	if remembered() != nil {
		return guest.Continue
	}
	line := cookie + "=" + name + "; Path=/; Max-Age=" + maxAge + "; SameSite=Lax"
	if guest.Request.Value(":scheme") == "https" {
		line += "; Secure"
	}
	guest.Response.Add("set-cookie", line)
	guest.Response.Add("cache-control", "private") // no cache between may give the cookie to others
	guest.Response.Remove("cdn-cache-control")     // which would count for more (RFC 9213)
	return guest.Continue
}
