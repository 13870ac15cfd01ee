package origin

import (
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// FuzzRetryAfter: whatever a server says, the wish is bounded and never in the
// past, and what digits say is what is meant.
func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"", "0", "120", " 7\t", "-1", "+5", "1e9", "99999999999999999999999", "Fri, 02 Jan 2026 03:04:15 GMT", "Friday, 02-Jan-26 03:04:15 GMT", "Fri Jan  2 03:04:15 2026"} {
		f.Add(s)
	}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	f.Fuzz(func(t *testing.T, s string) {
		d, ok := retryAfter(s, now)
		if d < 0 || !ok && d != 0 {
			t.Errorf("%q: got %v, %v", s, d, ok)
		}
		digits := strings.Trim(s, " \t")
		if only := digits != "" && strings.Trim(digits, "0123456789") == ""; only && (!ok || d%time.Second != 0) {
			t.Errorf("%q: got %v, %v, want whole seconds", s, d, ok)
		}
	})
}

// FuzzRoutes holds the router to what a prefix means: whole segments, and none
// that matches is longer.
func FuzzRoutes(f *testing.F) {
	for _, s := range []string{"/", "/a", "/a/", "/a/b", "/a/b/c?d", "/ab", "/a?b", "//a", "/%61", "*"} {
		f.Add(s)
	}
	p := mustNew(f, Config{Servers: []string{"http://a"}})
	f.Cleanup(func() { p.Close() })
	prefixes := []string{"/a", "/a/b", "/ab", "/"}
	var routes []Route
	pools := map[*Pool]string{}
	for _, prefix := range prefixes {
		own := mustNew(f, Config{Servers: []string{"http://a"}})
		f.Cleanup(func() { own.Close() })
		routes, pools[own] = append(routes, Route{prefix, own}), prefix
	}
	r, err := NewRouter(routes)
	if err != nil {
		f.Fatal(err)
	}
	encodings := regexp.MustCompile("%[0-9a-fA-F]{2}")
	f.Fuzz(func(t *testing.T, target string) {
		if !strings.HasPrefix(target, "/") {
			return
		}
		path, _, _ := strings.Cut(target, "?")
		path = encodings.ReplaceAllStringFunc(path, func(e string) string {
			if o, _ := strconv.ParseUint(e[1:], 16, 8); o != '/' {
				return string([]byte{byte(o)})
			}
			return e
		})
		want := "/"
		for _, prefix := range prefixes[:3] {
			if strings.HasPrefix(path+"/", prefix+"/") && len(prefix) > len(want) {
				want = prefix
			}
		}
		if got := pools[r.Pool(target)]; got != want {
			t.Errorf("%q: got %q, want %q", target, got, want)
		}
	})
}

// FuzzBackend: no URL makes a server whose Host field or address could be read as
// something else.
func FuzzBackend(f *testing.F) {
	for _, s := range []string{"http://a", "https://a:8443/", "srv+http://_http._tcp.a", "http://[::1]:80", "http://[fe80::1%25eth0]", "http://a b", "http://a\r\nX: y", "ftp://a", "http://]", "http://u:p@a", "http://a#"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, url string) {
		p, err := New(Config{Backends: []Backend{{URL: url}}, Resolver: new(zone)})
		if err != nil {
			return
		}
		defer p.Close()
		s := p.servers[0]
		if strings.ContainsAny(s.host+s.addr, "\r\n\t /?#@\\") {
			t.Errorf("%q: host %q, address %q", url, s.host, s.addr)
		}
		if _, _, err := net.SplitHostPort(s.addr); err != nil {
			t.Errorf("%q: address %q: %v", url, s.addr, err)
		}
	})
}

// FuzzInterleave: every address once, none made up.
func FuzzInterleave(f *testing.F) {
	f.Add([]byte{1, 2, 3, 200, 201}, 3)
	f.Fuzz(func(t *testing.T, b []byte, turn int) {
		var in []netip.AddrPort
		seen := map[netip.AddrPort]int{}
		for i, c := range b {
			a := netip.AddrFrom4([4]byte{10, 0, byte(i), c})
			if c > 127 {
				a = netip.AddrFrom16([16]byte{0x20, 1, 15: c, 14: byte(i), 13: byte(i >> 8)})
			}
			in = append(in, netip.AddrPortFrom(a, 80))
			seen[in[i]]++
		}
		for _, a := range interleave(in, turn&0xffff) {
			seen[a]--
		}
		for a, n := range seen {
			if n != 0 {
				t.Errorf("%v: %v is there %d times too few", in, a, n)
			}
		}
	})
}

var _ http.RoundTripper = (*Router)(nil)
