//go:build wasip1

// Command jwt is an edge function that lets only holders of a valid token (JWT,
// RFC 7519) at a site, and tells the origin who they are. The node verifies
// tokens: HS256, RS256, ES256, EdDSA and their like, by a secret, a public key
// or a set of keys that it fetches (JWKS). Each line of its configuration is
// one of
//
//	key: NAME               the node's key that tokens are signed with (keys in the
//	                        node's configuration; the function's own keys must name it)
//	issuer: TEXT            who issued it (iss): one of these lines; without one, anybody
//	audience: TEXT          for whom (aud): one of these lines; without one, anybody
//	leeway: SECONDS         how far clocks may differ, to 600 (0)
//	require: CLAIM          a claim that must be there; may be repeated
//	claim: CLAIM=VALUE      one that must have this value, or a list with it; of
//	                        several values of a claim, one
//	expiration: optional    tokens without exp are good for ever (required)
//	header: NAME CLAIM      a request field that tells the origin a claim
//	header: NAME CLAIM key  the same, and responses are cached apart by it
//	cookie: NAME            where the token is when there is no Authorization: Bearer
//	open: /PATH             paths that begin so, however they are read, need no token;
//	                        may be repeated
//
// for example
//
//	key: login
//	issuer: https://login.example.com
//	audience: shop
//	leeway: 30
//	header: X-User sub
//	header: X-Plan plan key
//	open: /public/
//
// All others are answered 401 with WWW-Authenticate (RFC 6750), or 503 while
// the node has no keys yet.
//
// The token is taken out of the request once it was found good: what the cache
// and the origin see is a request like any other's, so that pages which the
// origin lets caches share (Cache-Control: public, max-age) are one cached
// object behind the check. Fields that tell claims come from this function
// alone, on open paths there are none. The first holder's claims go to the
// origin with the request that fills the cache. An origin that answers by them
// must say so: by Vary with the fields' names, by Cache-Control: private, or
// here by "key". On their way to the client responses get Cache-Control:
// private, since caches behind the check know nothing of it. Where pages of
// other origins send tokens, list the function that answers preflight requests
// (headers) before this one.
//
// Build it with
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o jwt.wasm ./wasm/examples/jwt
//
// Run it at the viewer's side. Keep on_error closed. With -tags guestcrypto the
// function verifies tokens itself, by the one key that its line key holds as a
// JWK: for nodes that have no such service, at many times the cost.
package main

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"seawall/wasm/examples/guest"
)

// told is a claim that the origin gets; like are the names that CGI and WSGI
// do not tell from its header.
type told struct {
	header, claim string
	key           bool // it is part of the cache's key
	like          []string
}

// The configuration. It is read once, when a machine starts.
var (
	key     string
	asked   demands
	headers []told
	cookie  string
	open    []string
)

// demands are what a token must have besides its signature.
type demands struct {
	issuers, audiences, required []string
	claims                       [][2]string
	leeway                       int
	unending                     bool // exp may be missing
}

// checked are the streams whose request had a good token. They are forgotten
// when they end.
var checked = map[uint32]bool{}

// Faults that are answered otherwise than the token's.
const (
	faultNone        = ""
	faultExpired     = "expired"
	faultOversized   = "oversized"
	faultUnavailable = "unavailable"
)

// longest bounds a token, in bytes; the node takes no more either.
const longest = 8 << 10

// main is not run: the node calls what is exported.
func main() {}

//go:wasmexport proxy_on_configure
func configure(_, _ uint32) bool {
	if !guest.Configure(rule) {
		return false
	}
	if key == "" {
		return guest.Refuse("no key")
	}
	if err := prepare(); err != nil {
		return guest.Refuse(err.Error())
	}
	return true
}

// rule takes one line of the configuration.
func rule(line string) error {
	name, value, _ := strings.Cut(line, ":")
	value = strings.TrimSpace(value)
	if value == "" {
		return errors.New("not NAME: VALUE")
	}
	switch name {
	case "key":
		if key != "" {
			return errors.New("there is a key already; a JWKS has several")
		}
		key = value
	case "issuer":
		asked.issuers = append(asked.issuers, value)
	case "audience":
		asked.audiences = append(asked.audiences, value)
	case "leeway":
		n, err := strconv.ParseUint(value, 10, 16)
		if err != nil || n > 600 {
			return errors.New("not a number of seconds to 600")
		}
		asked.leeway = int(n)
	case "require":
		asked.required = append(asked.required, value)
	case "claim":
		claim, want, ok := strings.Cut(value, "=")
		if !ok || claim == "" {
			return errors.New("not CLAIM=VALUE")
		}
		asked.claims = append(asked.claims, [2]string{claim, want})
	case "expiration":
		if value != "optional" && value != "required" {
			return errors.New("neither optional nor required")
		}
		asked.unending = value == "optional"
	case "header":
		return addHeader(strings.Fields(value))
	case "cookie":
		cookie = value
	case "open":
		if !strings.HasPrefix(value, "/") {
			return errors.New("not a path")
		}
		open = append(open, value)
	default:
		return errors.New("no such setting")
	}
	return nil
}

func addHeader(words []string) error {
	if len(words) != 2 && (len(words) != 3 || words[2] != "key") {
		return errors.New("not NAME CLAIM [key]")
	}
	h := told{header: strings.ToLower(words[0]), claim: words[1], key: len(words) == 3}
	if strings.ContainsAny(h.header, ":,;()\"/") || h.header == "authorization" || h.header == "cookie" {
		return errors.New("not a field for a claim")
	}
	if strings.Count(h.header, "-") > 4 {
		return errors.New("a field of more than five words")
	}
	h.like = alike(h.header)
	headers = append(headers, h)
	return nil
}

// alike are a name and those that have "_" for any "-" of it.
func alike(name string) []string {
	before, after, found := strings.Cut(name, "-")
	if !found {
		return []string{name}
	}
	var all []string
	for _, rest := range alike(after) {
		all = append(all, before+"-"+rest, before+"_"+rest)
	}
	return all
}

//go:wasmexport proxy_on_request_headers
func request(id, _, _ uint32) uint32 {
	for _, h := range headers {
		for _, name := range h.like { // a client may not say it
			guest.Request.Remove(name)
		}
	}
	if isOpen() {
		return guest.Continue
	}
	text, found := token()
	if !found {
		return refuse("Bearer")
	}
	fault := faultOversized
	claims := ""
	if len(text) <= longest {
		claims, fault = verify(text)
	}
	switch fault {
	case faultNone:
	case faultUnavailable:
		return guest.Respond(503, "", "retry-after", "5", "cache-control", "no-store")
	case faultExpired:
		return refuse(`Bearer error="invalid_token", error_description="expired"`)
	default:
		return refuse(`Bearer error="invalid_token"`)
	}
	if !tell(claims) {
		return refuse(`Bearer error="invalid_token"`)
	}
	guest.Request.Remove("authorization")
	removeCookie()
	checked[id] = true
	return guest.Continue
}

// isOpen reports whether the path needs no token. It must be an open one for
// every server that reads it: "/public/..%2fmembers" is none.
func isOpen() bool {
	if len(open) == 0 {
		return false
	}
	path, _ := guest.Target()
	readings := guest.Readings(path)
	return slices.ContainsFunc(open, readings.Surely)
}

func refuse(challenge string) uint32 {
	return guest.Respond(401, "A valid token is needed.\n", "www-authenticate", challenge, "cache-control", "no-store", "content-type", "text/plain; charset=utf-8")
}

// token is the client's: of Authorization, else of the cookie.
func token() (text string, found bool) {
	scheme, text, found := strings.Cut(guest.Request.Value("authorization"), " ")
	if found && strings.EqualFold(scheme, "bearer") {
		return strings.TrimSpace(text), true
	}
	if cookie == "" {
		return "", false
	}
	return guest.Cookie(cookie)
}

// tell sets the fields that tell the claims. A claim that is missing has no
// field; it reports false for one that no field can hold.
func tell(claims string) bool {
	parts := ""
	for _, h := range headers {
		value := guest.Pick(claims, "claim."+h.claim)
		if value != "" && !guest.Request.Set(h.header, value) {
			return false
		}
		if h.key { // its length tells where it ends
			parts += " " + h.claim + "=" + strconv.Itoa(len(value)) + ":" + value
		}
	}
	return parts == "" || guest.SetProperty("seawall.cache.key", parts[1:])
}

// removeCookie takes the token's cookie out of the request, and leaves the
// others.
func removeCookie() {
	if cookie == "" {
		return
	}
	var others []string
	for pair := range strings.SplitSeq(guest.Request.Value("cookie"), ";") {
		pair = strings.TrimSpace(pair)
		if name, _, _ := strings.Cut(pair, "="); name != cookie && pair != "" {
			others = append(others, pair)
		}
	}
	if len(others) == 0 {
		guest.Request.Remove("cookie")
		return
	}
	guest.Request.Set("cookie", strings.Join(others, "; "))
}

//go:wasmexport proxy_on_response_headers
func response(id, _, _ uint32) uint32 {
	if checked[id] {
		guest.Response.Add("cache-control", "private")
		guest.Response.Remove("cdn-cache-control") // it would count for more (RFC 9213)
	}
	return guest.Continue
}

//go:wasmexport proxy_on_delete
func ended(id uint32) { delete(checked, id) }
