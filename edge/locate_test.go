package edge

import (
	"net/http"
	"strings"
	"testing"

	"seawall/purge"
)

// FuzzPurgeNamesTheKeyOfARequest holds what a purge of a URL names to what a
// request for that URL is stored under: else a purge would say yes and the
// content stay.
func FuzzPurgeNamesTheKeyOfARequest(f *testing.F) {
	for _, url := range []string{
		"http://example.com", "http://example.com/", "HTTP://EXAMPLE.com:80/a/../b", "https://example.com:443/%2e%2E/%aa?utm_x=1&b&a#",
		"http://example.com?b=2&a=1", "http://[::1]:8080//a|b", "http://example.com./a", "http://example.com:443/", "http:///a",
		"http://example.com/ä?ö", "http://exa mple.com/", "http://example.com/a b", "ftp://example.com/", "http://example.com*", "//example.com/",
	} {
		f.Add(url)
	}
	st, err := NewStore(StoreOptions{Memory: 1 << 20})
	if err != nil {
		f.Fatal(err)
	}
	h, err := New(Config{Store: st, Sites: []Site{{
		Name: "s", Origin: answers{}, Cache: Cache{Query: Query{Drop: []string{"utm_*"}, Sort: true}},
	}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { h.Close(); st.Close() })
	f.Fuzz(func(t *testing.T, url string) {
		all, err := h.Normal(url)
		if err != nil {
			return
		}
		scheme, rest, _ := strings.Cut(url, "://")
		host := rest
		if i := strings.IndexAny(rest, "/?"); i >= 0 {
			host = rest[:i]
		}
		target := rest[len(host):]
		if !strings.HasPrefix(target, "/") {
			target = "/" + target // as clients write it
		}
		r := &http.Request{Method: http.MethodGet, Host: host, RequestURI: target, ProtoMajor: 1, ProtoMinor: 1}
		x := h.begin(&sink{h: http.Header{}}, r)
		defer x.end()
		if len(target) > defaultURL || !x.admit() {
			return // no request for it is answered
		}
		if strings.EqualFold(scheme, "https") {
			x.scheme, x.host = "https", normalHost("https", host)
		}
		if got, want := all[0], *x.place(); got != want {
			t.Errorf("%q is purged as %+v; a request for it is stored as %+v", url, got, want)
		}
		key := string(appendKey(nil, x.scheme, x.host, x.path, x.query))
		if got := cutURL(key); got != all[0] {
			t.Errorf("%q: the key %q is described as %+v, want %+v", url, key, got, all[0])
		}
		if _, faults := purge.Prepare(purge.Request{URLs: []string{url}}, h.Normal); faults == nil && all[0].Host == "" {
			t.Errorf("%q: a purge of no host", url)
		}
	})
}
