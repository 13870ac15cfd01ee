//go:build wasip1

// Command signedurl is an edge function that serves pages only to those who
// hold a link to them that is signed and has not expired. Each line of its
// configuration is one of
//
//	key: NAME          the node's secret that links are signed with (keys in the
//	                   node's configuration; the function's own keys must name it)
//	path: /private/    only paths that begin so (all), in capitals, encoded or
//	                   otherwise disguised too; may be repeated
//	methods: GET HEAD  what a link may be used for (GET HEAD)
//
// for example
//
//	key: links
//	path: /downloads/
//
// A signed link ends in expires and sig, behind any query of its own:
//
//	/downloads/film.mp4?expires=1798761600&sig=5f3c...
//
// sig is HMAC-SHA256, in hexadecimal, of all before it:
//
//	link="/downloads/film.mp4?expires=$(($(date +%s) + 3600))"
//	echo "$link&sig=$(printf %s "$link" | openssl dgst -sha256 -hmac "$LINK_SECRET" -r | cut -d' ' -f1)"
//
// What the node caches, and the origin is asked for, is the page without the
// two: one object, whoever has signed what. Build it with
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o signedurl.wasm ./wasm/examples/signedurl
//
// Run it at the viewer's side. Keep on_error closed.
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
	key     string
	paths   []string
	methods = []string{"GET", "HEAD"}
)

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
	if _, ok := signedBy("", strings.Repeat("0", 64)); !ok {
		return guest.Refuse("the node has no secret " + key + " for this function; add it to keys, and to the function's keys")
	}
	return true
}

// rule takes one line of the configuration.
func rule(line string) error {
	name, value, _ := strings.Cut(line, ":")
	value = strings.TrimSpace(value)
	switch name {
	case "key":
		if value == "" || key != "" {
			return errors.New("not one name")
		}
		key = value
	case "path":
		if !strings.HasPrefix(value, "/") {
			return errors.New("not a path")
		}
		paths = append(paths, value)
	case "methods":
		if methods = strings.Fields(value); len(methods) == 0 {
			return errors.New("no method")
		}
	default:
		return errors.New("no such setting")
	}
	return nil
}

//go:wasmexport proxy_on_request_headers
func request(_, _, _ uint32) uint32 {
	path, query := guest.Target()
	if !guarded(path) {
		return guest.Continue
	}
	if !slices.Contains(methods, guest.Request.Value(":method")) {
		return refuse("This link is not for that.\n")
	}
	link, sig, expires, ok := taken(path, query)
	if !ok {
		return refuse("This page needs a signed link.\n")
	}
	// The signature comes first: who cannot sign learns nothing.
	equal, ok := signedBy(link, sig)
	switch {
	case !ok:
		guest.Log(guest.Error, "the node does not check signatures with key "+key)
		return guest.Respond(503, "", "cache-control", "no-store")
	case !equal:
		return refuse("This link is not as it was signed.\n")
	case expires <= guest.Now().Unix():
		return refuse("This link has expired.\n")
	}
	guest.Request.Set(":path", plain(link))
	return guest.Continue
}

// guarded reports whether a path needs a link. It does if any server may read
// it as such: the origin decodes "/%70rivate/".
func guarded(path string) bool {
	if len(paths) == 0 {
		return true
	}
	readings := guest.Readings(path)
	return slices.ContainsFunc(paths, readings.Maybe)
}

func refuse(text string) uint32 {
	return guest.Respond(403, text, "content-type", "text/plain; charset=utf-8", "cache-control", "no-store")
}

// taken takes a target apart: what is signed, the signature, and the time that
// stands in what is signed. The two parameters are the last and only ones of
// their names, so that no two readers can mean different ones.
func taken(path, query string) (link, sig string, expires int64, ok bool) {
	signed, sig, ok := strings.Cut(query, "&sig=")
	if !ok || len(sig) != 64 || strings.ContainsFunc(sig, func(r rune) bool { return (r < '0' || r > '9') && (r < 'a' || r > 'f') }) {
		return "", "", 0, false
	}
	i := strings.LastIndexAny(signed, "?&") // signed begins with one
	text, ok := strings.CutPrefix(signed[i+1:], "expires=")
	n, err := strconv.ParseUint(text, 10, 62)
	if !ok || err != nil || strings.Contains(signed[:i], "expires=") {
		return "", "", 0, false
	}
	return path + signed, sig, int64(n), true
}

// plain is a link without its time.
func plain(link string) string { return link[:strings.LastIndexAny(link, "?&")] }

// signedBy reports whether sig is that of link. The node compares, in a time
// that does not tell how much of it is right. It is not ok without the key.
func signedBy(link, sig string) (equal, ok bool) {
	result, ok := guest.Call("seawall.hmac_sha256", guest.Pairs("key", key, "data", link, "encoding", "hex", "equals", sig))
	return guest.Pick(result, "equal") == "true", ok
}
