//go:build wasip1

// Command redirects is an edge function that sends clients elsewhere, by a
// list of up to some ten thousand lines. Each line of its configuration is
//
//	FROM TO [STATUS]     STATUS is 301 (if it is left out), 302, 307 or 308
//	cache: SECONDS       how long clients may remember the redirects behind it (3600)
//
// FROM is a path, or //host/path; with "/*" at its end it is every path that
// begins so, and a TO that ends in "/*" gets what stood for the star. Paths
// are matched as they are sent, exact ones first, then the longest. A query is
// carried over. For example:
//
//	/old                   /new
//	/blog/*                https://blog.example.com/*    308
//	//www.example.com/*    https://example.com/*
//	cache: 60
//	/sale                  /shop?list=sale               302
//
// Build it with
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o redirects.wasm ./wasm/examples/redirects
//
// Run it at the viewer's side: redirects come before the cache.
package main

import (
	"errors"
	"strconv"
	"strings"

	"seawall/wasm/examples/guest"
)

// target is where a rule leads.
type target struct {
	to     string
	rest   bool // what the star stood for comes behind it
	status int
	cache  string
}

// The configuration. It is read once, when a machine starts.
var (
	exact    = map[string]target{}
	prefixes = map[string]target{} // that end in "/"
	longest  int                   // of prefixes
	cache    = "3600"
)

// longestPrefix bounds what one request costs: a prefix may end at each slash
// of its path.
const longestPrefix = 512

// main is not run: the node calls what is exported.
func main() {}

//go:wasmexport proxy_on_configure
func configure(_, _ uint32) bool { return guest.Configure(rule) }

// rule takes one line of the configuration.
func rule(line string) error {
	if seconds, ok := strings.CutPrefix(line, "cache:"); ok {
		cache = strings.TrimSpace(seconds)
		if _, err := strconv.ParseUint(cache, 10, 31); err != nil {
			return errors.New("not a number of seconds")
		}
		return nil
	}
	words := strings.Fields(line)
	if len(words) < 2 || len(words) > 3 {
		return errors.New("not FROM TO [STATUS]")
	}
	from, t := words[0], target{to: words[1], status: 301, cache: cache}
	if len(words) == 3 {
		switch words[2] {
		case "301", "302", "307", "308":
			t.status, _ = strconv.Atoi(words[2])
		default:
			return errors.New("the status is none of 301, 302, 307, 308")
		}
	}
	if !strings.HasPrefix(from, "/") || strings.ContainsAny(from, "?#") {
		return errors.New("FROM is no path")
	}
	if !visible(t.to) || !strings.HasPrefix(t.to, "/") && !strings.HasPrefix(t.to, "http://") && !strings.HasPrefix(t.to, "https://") {
		return errors.New("TO is neither a path nor an http or https URL")
	}
	if from == t.to {
		return errors.New("it leads to itself")
	}
	return add(from, t)
}

func add(from string, t target) error {
	from = lowerHost(from)
	prefix, star := strings.CutSuffix(from, "/*")
	to, rest := strings.CutSuffix(t.to, "/*")
	switch {
	case strings.Contains(prefix, "*") && star, strings.Contains(from, "*") && !star:
		return errors.New("a star stands anywhere but behind the last slash")
	case rest && !star:
		return errors.New("TO has a star, FROM has none")
	case rest:
		t.to, t.rest = to+"/", true
	}
	list, key := exact, from
	if star {
		list, key = prefixes, prefix+"/"
		longest = max(longest, len(key))
		if len(key) > longestPrefix {
			return errors.New("FROM is longer than " + strconv.Itoa(longestPrefix) + " bytes")
		}
	}
	if _, twice := list[key]; twice {
		return errors.New("there is one from here already")
	}
	list[key] = t
	return nil
}

// lowerHost is from with its host, if it has one, in lower case.
func lowerHost(from string) string {
	if !strings.HasPrefix(from, "//") {
		return from
	}
	end := strings.IndexByte(from[2:], '/') + 2
	if end < 2 {
		end = len(from)
	}
	return strings.ToLower(from[:end]) + from[end:]
}

// visible reports whether all of s can stand in a URL.
func visible(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}

//go:wasmexport proxy_on_request_headers
func request(_, _, _ uint32) uint32 {
	path, query := guest.Target()
	t, rest, found := find(path)
	if !found {
		return guest.Continue
	}
	to := t.to
	if t.rest {
		// "/go//evil.example" must not lead to "//evil.example".
		to += strings.TrimLeft(rest, "/\\")
	}
	if query != "" {
		if strings.Contains(to, "?") {
			query = "&" + query[1:]
		}
		to += query
	}
	return guest.Respond(t.status, "", "location", to, "cache-control", "max-age="+t.cache)
}

// find returns the rule for a path, and what its star stands for.
func find(path string) (t target, rest string, found bool) {
	full := "//" + strings.ToLower(guest.Request.Value(":authority")) + path
	for _, p := range [...]string{full, path} {
		if t, found = exact[p]; found {
			return t, "", true
		}
	}
	if longest == 0 {
		return t, "", false
	}
	for _, p := range [...]string{full, path} {
		for end := min(len(p), longest); end > 0; {
			end = strings.LastIndexByte(p[:end], '/')
			if end < 0 {
				break
			}
			if t, found = prefixes[p[:end+1]]; found {
				return t, p[end+1:], true
			}
		}
	}
	return t, "", false
}
