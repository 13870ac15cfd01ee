package edge

import (
	"net/http"
	"strings"
	"testing"
)

func TestTargetIsNormalisedOnceAndKeptAsBytes(t *testing.T) {
	for _, tt := range []struct{ target, path, query string }{
		{"/", "/", ""},
		{"/a/b?c=d", "/a/b", "?c=d"},
		{"/a?", "/a", "?"},
		{"/a?b?c", "/a", "?b?c"},
		{"/a?x=/../y", "/a", "?x=/../y"},
		{"/a?x=%7e%2F", "/a", "?x=%7e%2F"},
		{"/./a", "/a", ""},
		{"/a/./b/", "/a/b/", ""},
		{"/a/../b", "/b", ""},
		{"/a/b/..", "/a/", ""},
		{"/a/b/.", "/a/b/", ""},
		{"/../../a", "/a", ""},
		{"/..", "/", ""},
		{"/a/%2e%2E/b", "/b", ""},
		{"/a/.%2e/b", "/b", ""},
		{"/a/%2e/b", "/a/b", ""},
		{"/a%2fb", "/a%2Fb", ""},
		{"/a/%2e%2e%2fb", "/a/%2E%2E%2Fb", ""},
		{"/%7euser", "/%7Euser", ""},
		{"/file%2etxt", "/file%2Etxt", ""},
		{"/a//b", "/a//b", ""},
		{"//x", "//x", ""},
		{"//x/../y", "//y", ""},
		{"/a//../b", "/a/b", ""},
		{"/...", "/...", ""},
		{"/.hidden/..b", "/.hidden/..b", ""},
		{"/%", "/%", ""},
		{"/%zz%a", "/%zz%a", ""},
		{"/a|b\"c", "/a|b\"c", ""},
		{"/é", "/é", ""},
		{`/a\..\b`, `/a\..\b`, ""},
		{"http://example.com/x/../y?z", "/y", "?z"},
		{"http://example.com", "/", ""},
		{"http://example.com?q", "/", "?q"},
	} {
		path, query, ok := splitTarget(tt.target)
		if got := normalPath(path); !ok || got != tt.path || query != tt.query {
			t.Errorf("%q = %q %q %v, want %q %q", tt.target, got, query, ok, tt.path, tt.query)
		}
	}
	for _, target := range []string{"", "*", "a", "example.com:443", "/a#b", "/a?b#c", "?s://", "ftp://a/"} {
		if _, _, ok := splitTarget(target); ok {
			t.Errorf("%q was accepted", target)
		}
	}
}

func FuzzTarget(f *testing.F) {
	for _, s := range []string{"/a/../b%2e?c", "http://h/%2E%2e/", "//", "/%2", "/.%2E./", "/a/%2e%2e"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, target string) {
		path, query, ok := splitTarget(target)
		if !ok {
			return
		}
		got := normalPath(path)
		if !strings.HasPrefix(got, "/") {
			t.Fatalf("%q: path %q does not begin with a slash", target, got)
		}
		if again := normalPath(got); again != got {
			t.Fatalf("%q: %q is normalised again to %q", target, got, again)
		}
		for segment := range strings.SplitSeq(got, "/") {
			if dots(segment) > 0 {
				t.Fatalf("%q: %q keeps a dot segment", target, got)
			}
		}
		if strings.Contains(target, "?") != (query != "") {
			t.Fatalf("%q: query %q", target, query)
		}
	})
}

func TestKeysDifferWhereResponsesMay(t *testing.T) {
	key := func(scheme, host, path, query string) string {
		return string(appendKey(nil, scheme, normalHost(scheme, host), path, query))
	}
	for _, tt := range []struct {
		name string
		a, b string
		same bool
	}{
		{"scheme", key("http", "a", "/", ""), key("https", "a", "/", ""), false},
		{"host", key("http", "a", "/", ""), key("http", "b", "/", ""), false},
		{"host's letter case", key("http", "A.Example", "/", ""), key("http", "a.example", "/", ""), true},
		{"default port", key("http", "a:80", "/", ""), key("http", "a", "/", ""), true},
		{"default port of TLS", key("https", "a:443", "/", ""), key("https", "a", "/", ""), true},
		{"other scheme's port", key("http", "a:443", "/", ""), key("http", "a", "/", ""), false},
		{"path's letter case", key("http", "a", "/X", ""), key("http", "a", "/x", ""), false},
		{"query", key("http", "a", "/", "?a=1&b=2"), key("http", "a", "/", "?b=2&a=1"), false},
		{"empty query", key("http", "a", "/", "?"), key("http", "a", "/", ""), false},
	} {
		if (tt.a == tt.b) != tt.same {
			t.Errorf("%s: keys %q and %q: same is %v, want %v", tt.name, tt.a, tt.b, tt.a == tt.b, tt.same)
		}
	}
}

func TestQueryPolicy(t *testing.T) {
	for _, tt := range []struct {
		policy      queryPolicy
		query, want string
	}{
		{queryPolicy{}, "?b=1&a=2", "?b=1&a=2"},
		{queryPolicy{drop: []string{"utm_*", "x"}}, "?utm_source=m&a=1&x&x=2&xy=3", "?a=1&xy=3"},
		{queryPolicy{keep: []string{"id"}}, "?utm=1&id=7&ids=8", "?id=7"},
		{queryPolicy{keep: []string{"id"}}, "?utm=1", ""},
		{queryPolicy{sort: true}, "?b=1&a=2&b=0", "?a=2&b=1&b=0"},
	} {
		if got := tt.policy.apply(tt.query); got != tt.want {
			t.Errorf("%+v on %q = %q, want %q", tt.policy, tt.query, got, tt.want)
		}
	}
}

func TestGlob(t *testing.T) {
	for _, tt := range []struct {
		pattern, name string
		want          bool
	}{
		{"/static/*", "/static/a/b", true},
		{"/static/*", "/stati", false},
		{"*.jpg", "/a/b.jpg", true},
		{"*.jpg", "/a/b.jpg/", false},
		{"/a*b*c", "/axxbxxbc", true},
		{"/a*b*c", "/axxc", false},
		{"*", "", true},
		{"/a", "/a", true},
		{"/a", "/ab", false},
	} {
		if got := glob(tt.pattern, tt.name); got != tt.want {
			t.Errorf("glob(%q, %q) = %v, want %v", tt.pattern, tt.name, got, tt.want)
		}
	}
}

func TestSiteOfHost(t *testing.T) {
	rt := http.NewFileTransport(http.Dir("."))
	var list []*site
	for _, s := range []Site{
		{Name: "a", Hosts: []string{"a.example", "*.a.example"}, Origin: rt},
		{Name: "deep", Hosts: []string{"x.y.a.example"}, Origin: rt},
		{Name: "rest", Origin: rt},
	} {
		made, err := newSite(s, NewStats())
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, made)
	}
	all, err := newSites(list)
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]string{
		"a.example": "a", "a.example:8080": "a", "a.example.": "a", "b.a.example": "a", "c.b.a.example": "a",
		"x.y.a.example": "deep", "xa.example": "rest", "[::1]:80": "rest", "": "rest",
	} {
		if got := all.of(host).Name; got != want {
			t.Errorf("site of %q = %q, want %q", host, got, want)
		}
	}
	if _, err := newSites([]*site{list[0], list[0], list[2], list[2]}); err == nil || strings.Count(err.Error(), "\n") != 4 {
		t.Errorf("doubled sites: %v; want every fault named", err)
	}
}
