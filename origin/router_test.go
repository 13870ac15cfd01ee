package origin

import (
	"net/http"
	"strings"
	"testing"
)

func TestRouter(t *testing.T) {
	f := newFleet("root", "api", "deep", "cafe", "bar")
	defer f.stop()
	pools := map[string]*Pool{}
	for name := range f.hosts {
		p, _ := f.pool(t, Config{}, name)
		defer p.Close()
		pools[name] = p
	}
	r, err := NewRouter([]Route{{"/api/", pools["api"]}, {"/", pools["root"]}, {"/api/deep", pools["deep"]}, {"/caf%c3%a9", pools["cafe"]}, {"/a%7Cb", pools["bar"]}})
	if err != nil {
		t.Fatal(err)
	}
	for target, want := range map[string]string{
		"/": "root", "/x": "root", "/?a=/api": "root", "/apix": "root", "/apix/deep": "root", "//api": "root", "/api%2Fdeep": "root", "/ap": "root", "/%2561pi": "root",
		"/%61pi": "api", "/a%70i/%64eeper?x": "api", "/api/de%65p%2fx": "api", "/%61p%69/%64eep/x": "deep",
		"/caf%c3%a9/x": "cafe", "/caf%C3%A9": "cafe", "/café": "cafe", "/caf%C3": "root", "/a%7cb": "bar", "/a|b/c": "bar",
		"/api": "api", "/api/": "api", "/api?x": "api", "/api/x": "api", "/api/deeper": "api",
		"/api/deep": "deep", "/api/deep/x": "deep", "/api/deep?": "deep", "*": "root",
	} {
		req := newRequest(t, "OPTIONS", "http://site.test/", nil)
		req.RequestURI = target
		resp, err := r.RoundTrip(req)
		if err != nil {
			t.Fatalf("%s: %v", target, err)
		}
		b := make([]byte, 8)
		n, _ := resp.Body.Read(b)
		resp.Body.Close()
		if string(b[:n]) != want {
			t.Errorf("%s: got %s, want %s", target, b[:n], want)
		}
	}
	some, _ := NewRouter([]Route{{"/api", pools["api"]}})
	body := &tracked{Reader: strings.NewReader("x")}
	if _, err := some.RoundTrip(newRequest(t, http.MethodPost, "http://site.test/x", body)); kind(err) != notFound {
		t.Errorf("no route: got %v", err)
	}
}

func TestRouterIsRefused(t *testing.T) {
	p := mustNew(t, Config{Servers: []string{"http://a"}})
	defer p.Close()
	for _, tt := range []struct {
		routes []Route
		want   string
	}{
		{[]Route{{"", p}}, "begin it with a slash"}, {[]Route{{"a", p}}, "begin it with a slash"}, {[]Route{{"/a?b", p}}, "not a path"},
		{[]Route{{"/a", nil}}, "no pool"}, {[]Route{{"/a", p}, {"/a/", p}}, "given twice"}, {[]Route{{"/%61", p}, {"/a", p}}, "given twice"},
	} {
		if _, err := NewRouter(tt.routes); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: got %v, want %q", tt.routes, err, tt.want)
		}
	}
}
