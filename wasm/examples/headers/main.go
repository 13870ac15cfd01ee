//go:build wasip1

// Command headers is an edge function that sets and removes response fields,
// and answers for which origins pages may read responses (CORS), preflight
// requests included. Each line of its configuration is one of
//
//	Name: value                    a field that every response is to have
//	-Name                          a field that none is to have
//	cors: https://a https://b      origins that may read responses; * is every one
//	cors-methods: GET, PUT         methods that they may use (GET, HEAD, POST)
//	cors-headers: Authorization    request fields that they may send (none but the usual)
//	cors-expose: ETag              response fields that they may see (none but the usual)
//	cors-max-age: 3600             seconds that a browser may remember it (600)
//	cors-credentials: true         whether they may send cookies (false)
//
// and empty lines and those that begin with # count for nothing. For example:
//
//	Strict-Transport-Security: max-age=31536000
//	X-Content-Type-Options: nosniff
//	Content-Security-Policy: frame-ancestors 'none'
//	-X-Powered-By
//	cors: https://app.example.com
//	cors-headers: Authorization, Content-Type
//
// Build it with
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o headers.wasm ./wasm/examples/headers
//
// Run it at the viewer's side. c/headers.c is the same function in C.
package main

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"seawall/wasm/examples/guest"
)

// The configuration. It is read once, when a machine starts.
var (
	fields   [][2]string // name and value
	removed  []string
	origins  []string // who may read responses
	everyone bool     // everybody may
	methods  = "GET, HEAD, POST"
	headers  string
	expose   string
	maxAge   = "600"
	cookies  bool
)

// main is not run: the node calls what is exported.
func main() {}

//go:wasmexport proxy_on_configure
func configure(_, _ uint32) bool {
	if !guest.Configure(rule) {
		return false
	}
	if everyone && cookies {
		return guest.Refuse("cors-credentials with cors: * would let every site act for a visitor; name the origins")
	}
	return true
}

// rule takes one line of the configuration.
func rule(line string) error {
	if name, ok := strings.CutPrefix(line, "-"); ok {
		if !token(name) {
			return errors.New("not -Name")
		}
		removed = append(removed, strings.ToLower(name))
		return nil
	}
	name, value, ok := strings.Cut(line, ":")
	name, value = strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)
	if !ok || !token(name) {
		return errors.New("not Name: value")
	}
	switch name {
	case "cors":
		origins = append(origins, strings.Fields(value)...)
		everyone = slices.Contains(origins, "*")
	case "cors-methods":
		methods = value
	case "cors-headers":
		headers = value
	case "cors-expose":
		expose = value
	case "cors-max-age":
		if _, err := strconv.ParseUint(value, 10, 31); err != nil {
			return errors.New("not a number of seconds")
		}
		maxAge = value
	case "cors-credentials":
		if value != "true" && value != "false" {
			return errors.New("neither true nor false")
		}
		cookies = value == "true"
	default:
		if strings.HasPrefix(name, "cors-") {
			return errors.New("no such setting")
		}
		fields = append(fields, [2]string{name, value})
	}
	return nil
}

// token reports whether s can be a field's name (RFC 9110, 5.6.2).
func token(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i] | 0x20
		if (c < 'a' || c > 'z') && (s[i] < '0' || s[i] > '9') && strings.IndexByte("!#$%&'*+-.^_`|~", s[i]) < 0 {
			return false
		}
	}
	return s != ""
}

// request answers preflight requests; all others go on. The origin is not
// asked: it need not know of CORS. The answer goes through response too.
//
//go:wasmexport proxy_on_request_headers
func request(_, _, _ uint32) uint32 {
	if len(origins) == 0 || guest.Request.Value(":method") != "OPTIONS" ||
		!guest.Request.Has("origin") || !guest.Request.Has("access-control-request-method") {
		return guest.Continue
	}
	answer := []string{"vary", "Access-Control-Request-Method, Access-Control-Request-Headers"}
	if allow(guest.Request.Value("origin")) != "" {
		answer = append(answer, "access-control-allow-methods", methods, "access-control-max-age", maxAge)
		if headers != "" {
			answer = append(answer, "access-control-allow-headers", headers)
		}
	}
	return guest.Respond(204, "", answer...)
}

// allow is what a response says of who may read it; "" if this origin may not.
func allow(origin string) string {
	switch {
	case everyone:
		return "*"
	case slices.Contains(origins, origin):
		return origin
	}
	return ""
}

// response runs for every response, hits and misses alike.
//
//go:wasmexport proxy_on_response_headers
func response(_, _, _ uint32) uint32 {
	for _, name := range removed {
		guest.Response.Remove(name)
	}
	for _, f := range fields {
		guest.Response.Set(f[0], f[1])
	}
	if len(origins) == 0 {
		return guest.Continue
	}
	// What the origin says of it is replaced: two answers are none.
	for _, name := range [...]string{"access-control-allow-origin", "access-control-allow-credentials", "access-control-expose-headers"} {
		guest.Response.Remove(name)
	}
	if !everyone {
		guest.Response.Add("vary", "Origin") // what is answered depends on it
	}
	allowed := allow(guest.Request.Value("origin"))
	if allowed == "" {
		return guest.Continue
	}
	guest.Response.Set("access-control-allow-origin", allowed)
	if cookies {
		guest.Response.Set("access-control-allow-credentials", "true")
	}
	if expose != "" {
		guest.Response.Set("access-control-expose-headers", expose)
	}
	return guest.Continue
}
