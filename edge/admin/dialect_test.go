package admin

import (
	"net/http"
	"reflect"
	"strings"
	"testing"

	"seawall/purge"
)

// What clients of the three dialects send, by their published descriptions,
// and what they read of the answer.
func TestDialects(t *testing.T) {
	at := func(host string) func(*http.Request) { return func(r *http.Request) { r.Host = host } }
	both := func(rest string) []string { return []string{"http://" + rest, "https://" + rest} }
	const cloudflareOK = `{"success":true,"errors":[],"messages":[],"result":{"id":"p1"}}`
	for _, c := range []struct {
		name, method, path string
		body               string
		change             func(*http.Request)
		status             int
		answer             string // whole, or its beginning with "..."
		want               *purge.Request
	}{
		{"Varnish: PURGE", "PURGE", "/one/two?x=1", "", at("a.example"), 200, "Purged", &purge.Request{URLs: both("a.example/one/two?x=1")}},
		{"Varnish: PURGE of the bytes sent", "PURGE", "/%7euser/a|b//c", "", at("a.example:8080"), 200, "Purged", &purge.Request{URLs: both("a.example:8080/%7euser/a|b//c")}},
		{"Varnish: PURGE of an API's path", "PURGE", "/v1/purges", "", at("a.example"), 200, "Purged", &purge.Request{URLs: both("a.example/v1/purges")}},
		{"Varnish: PURGE of a path that has health here", "PURGE", "/healthz", "", at("a.example"), 200, "Purged", &purge.Request{URLs: both("a.example/healthz")}},
		{"Varnish: PURGE of all below", "PURGE", "/blog/.*", "", all(at("a.example"), field("X-Purge-Method", "regex")), 200, "Purged", &purge.Request{Prefixes: []string{"a.example/blog/"}}},
		{"Varnish: PURGE of all", "PURGE", "/.*", "", all(at("a.example"), field("X-Purge-Method", "regex")), 200, "Purged", &purge.Request{Prefixes: []string{"a.example/"}}},
		{"Varnish: PURGE by another pattern", "PURGE", "/blog.*", "", all(at("a.example"), field("X-Purge-Method", "regex")), 400, "Bad Request: Of patterns...", nil},
		{"Varnish: PURGE of a host of no site", "PURGE", "/1", "", at("c.example"), 400, "Bad Request: Some fields are not right...", nil},
		{"xkey: PURGE", "PURGE", "/", "", all(at("a.example"), field("Xkey-Purge", "one two")), 200, "Purged", &purge.Request{Tags: []string{"one", "two"}, Site: "a"}},
		{"xkey: soft", "PURGEKEYS", "/", "", all(at("b.example"), field("xkey-softpurge", "one,two")), 200, "Purged", &purge.Request{Tags: []string{"one", "two"}, Site: "b", Soft: true}},
		{"xkey: no keys", "PURGEKEYS", "/", "", at("b.example"), 400, "Bad Request: PURGEKEYS has no...", nil},
		{"Varnish: BAN by xkey", "BAN", "/", "", all(at("a.example"), field("xkey", "one two")), 200, "Purged", &purge.Request{Tags: []string{"one", "two"}, Site: "a"}},
		{"Varnish: BAN by Surrogate-Key", "BAN", "/", "", all(at("a.example"), field("Surrogate-Key", "one")), 200, "Purged", &purge.Request{Tags: []string{"one"}, Site: "a"}},
		{"Varnish: BAN by Cache-Tag", "BAN", "/", "", all(at("a.example"), field("Cache-Tag", "one, two words")), 200, "Purged", &purge.Request{Tags: []string{"one", "two words"}, Site: "a"}},
		{"FOSHttpCache: BAN", "BAN", "/", "", all(at("a.example"), field("X-Cache-Tags", `(^|,)(post\-1|post\-2)(,|$)`), field("X-Host", ".*"), field("X-Url", ".*"), field("X-Content-Type", ".*")),
			200, "Purged", &purge.Request{Tags: []string{"post-1", "post-2"}, Site: "a"}},
		{"FOSHttpCache: BAN as of old", "BAN", "/", "", all(at("a.example"), field("X-Cache-Tags", `(one|two)(,.+)?$`)), 200, "Purged", &purge.Request{Tags: []string{"one", "two"}, Site: "a"}},
		{"Varnish: BAN by a pattern of tags", "BAN", "/", "", all(at("a.example"), field("X-Cache-Tags", `post-.*`)), 400, "Bad Request: A ban by pattern is not understood...", nil},
		{"Varnish: BAN by URL", "BAN", "/", "", all(at("a.example"), field("X-Ban-Url", "^/blog")), 400, "Bad Request: A ban by X-Ban-Url is not understood...", nil},
		{"Varnish: BAN by tag and host", "BAN", "/", "", all(at("a.example"), field("xkey", "t"), field("X-Host", "^a$")), 400, "Bad Request: A ban by X-Host...", nil},
		{"Varnish: BAN of nothing", "BAN", "/", "", at("a.example"), 400, "Bad Request: BAN names no tags...", nil},

		{"Fastly: a URL", "POST", "/purge/a.example/path/to?q=1", "", nil, 200, `{"status":"ok","id":"p1"}`, &purge.Request{URLs: both("a.example/path/to?q=1")}},
		{"Fastly: a URL, soft", "POST", "/purge/a.example/", "", field("Fastly-Soft-Purge", "1"), 200, `{"status":"ok","id":"p1"}`, &purge.Request{URLs: both("a.example/"), Soft: true}},
		{"Fastly: a URL by PURGE, soft", "PURGE", "/1", "", all(at("a.example"), field("Fastly-Soft-Purge", "1")), 200, "Purged", &purge.Request{URLs: both("a.example/1"), Soft: true}},
		{"Fastly: a tag", "POST", "/service/b/purge/key%2F1", "", nil, 200, `{"status":"ok","id":"p1"}`, &purge.Request{Tags: []string{"key/1"}, Site: "b"}},
		{"Fastly: a tag of a site's Host", "POST", "/service/SU1Z0isxPaozGVKXdv0eY/purge/key", "", at("b.example"), 200, `{"status":"ok","id":"p1"}`, &purge.Request{Tags: []string{"key"}, Site: "b"}},
		{"Fastly: a tag of a bound token", "POST", "/service/SU1Z0isxPaozGVKXdv0eY/purge/key", "", as("bound"), 200, `{"status":"ok","id":"p1"}`, &purge.Request{Tags: []string{"key"}, Site: "a"}},
		{"Fastly: a site that the token is not bound to", "POST", "/service/b/purge_all", "", as("bound"), 403, `{"type":"about:blank"...`, nil},
		{"Cloudflare: a site that the token is not bound to", "POST", "/client/v4/zones/b/purge_cache", `{"purge_everything":true}`, as("bound"), 403, `{"success":false...`, nil},
		{"Varnish: BAN within a site that the token is not bound to", "BAN", "/", "", all(as("bound"), at("b.example"), field("xkey", "t")), 403, "Forbidden: ...", nil},
		{"Varnish: BAN at the node's own name", "BAN", "/", "", all(as("bound"), at("cache.internal:9090"), field("xkey", "t")), 200, "Purged", &purge.Request{Tags: []string{"t"}, Site: "a"}},
		{"Fastly: a tag of an unclear site", "POST", "/service/SU1Z0isxPaozGVKXdv0eY/purge/key", "", nil, 400, `{"type":"about:blank","title":"Bad Request","status":400,"detail":"One field is not right; nothing was done.","errors":[{"field":"site"...`, nil},
		{"Fastly: tags by field", "POST", "/service/a/purge", "", field("Surrogate-Key", "one two"), 200, `{"one":"p1","two":"p1"}`, &purge.Request{Tags: []string{"one", "two"}, Site: "a"}},
		{"Fastly: tags by content", "POST", "/service/a/purge", `{"surrogate_keys":["one","two"]}`, field("Fastly-Soft-Purge", "1"), 200, `{"one":"p1","two":"p1"}`, &purge.Request{Tags: []string{"one", "two"}, Site: "a", Soft: true}},
		{"Fastly: no tags", "POST", "/service/a/purge", `{"surrogate_keys":[]}`, nil, 400, `{"type":"about:blank"...`, nil},
		{"Fastly: all", "POST", "/service/a/purge_all", "", nil, 200, `{"status":"ok","id":"p1"}`, &purge.Request{Everything: true, Site: "a"}},

		{"Cloudflare: files", "POST", "/client/v4/zones/023e105f4ecef8ad9ca31a8372d0c353/purge_cache",
			`{"files":["http://a.example/css/styles.css",{"url":"http://b.example/cat.jpg","headers":{"Origin":"https://www.cloudflare.com","CF-IPCountry":"US","CF-Device-Type":"desktop"}}]}`, nil,
			200, cloudflareOK, &purge.Request{URLs: []string{"http://a.example/css/styles.css", "http://b.example/cat.jpg"}}},
		{"Cloudflare: tags", "POST", "/client/v4/zones/b/purge_cache", `{"tags":["some-tag","another-tag"]}`, nil, 200, cloudflareOK, &purge.Request{Tags: []string{"some-tag", "another-tag"}, Site: "b"}},
		{"Cloudflare: hosts", "POST", "/client/v4/zones/z/purge_cache", `{"hosts":["a.example"]}`, nil, 200, cloudflareOK, &purge.Request{Hosts: []string{"a.example"}}},
		{"Cloudflare: prefixes", "POST", "/client/v4/zones/z/purge_cache", `{"prefixes":["a.example/foo","b.example/bar/baz"]}`, nil, 200, cloudflareOK, &purge.Request{Prefixes: []string{"a.example/foo", "b.example/bar/baz"}}},
		{"Cloudflare: everything", "POST", "/client/v4/zones/a/purge_cache", `{"purge_everything":true}`, nil, 200, cloudflareOK, &purge.Request{Everything: true, Site: "a"}},
		{"Cloudflare: nothing", "POST", "/client/v4/zones/a/purge_cache", `{}`, nil, 400, `{"success":false,"errors":[{"code":1012,"message":"urls: nothing is named...`, nil},
		{"Cloudflare: a file that is none", "POST", "/client/v4/zones/a/purge_cache", `{"files":[{"uri":"x"},1]}`, nil, 400,
			`{"success":false,"errors":[{"code":1012,"message":"files[0].url: is missing"},{"code":1012,"message":"files[0].uri: is no field of this call; it has url, headers"},{"code":1012,"message":"files[1]: is a number where a URL, or an object with url, is wanted"}],"messages":[],"result":null}`, nil},
		{"Cloudflare: an unclear zone", "POST", "/client/v4/zones/z/purge_cache", `{"purge_everything":true}`, nil, 400, `{"success":false,"errors":[{"code":1012,"message":"site: is not clear...`, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := new(fakeNode)
			h := n.handler(t, testTokens())
			change := as("chief")
			if c.change != nil {
				change = all(change, c.change)
			}
			w := askBody(h, c.method, c.path, c.body, change)
			got := strings.TrimSpace(w.Body.String())
			want, begins := strings.CutSuffix(c.answer, "...")
			if w.Code != c.status || !strings.HasPrefix(got, want) || !begins && got != want {
				t.Errorf("%s %s %s\ngot  %d %s\nwant %d %s", c.method, c.path, c.body, w.Code, got, c.status, c.answer)
			}
			switch {
			case c.want == nil && n.did() != 0:
				t.Errorf("refused, and yet it purged %+v", n.purged)
			case c.want != nil && (len(n.purged) != 1 || !reflect.DeepEqual(n.purged[0], *c.want)):
				t.Errorf("purged %+v, want %+v", n.purged, *c.want)
			}
		})
	}
}
