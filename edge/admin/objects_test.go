package admin

import (
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
)

func TestPush(t *testing.T) {
	n := new(fakeNode)
	h := n.handler(t, Access{})
	w := askBody(h, "PUT", "/v1/objects?url=http%3A%2F%2Fa.example%2F1%3Fx%3D1&header=Accept-Language:de&header=accept-language:%20en", "content", all(
		field("Cache-Control", "max-age=60"), field("Etag", `"1"`), field("Vary", "Accept-Language"), field("Surrogate-Key", "t u"), field("Set-Cookie", "a=b"),
		field("Content-Language", "de"), field("Seawall-Status", "404"), field("Seawall-Header", "x-own: 1: 2"), field("Seawall-Header", "X-Frame-Options:DENY"),
		field("User-Agent", "curl/8"), field("Accept", "*/*"), field("Authorization", "Bearer secret"), field("X-Forwarded-For", "192.0.2.1"), field("Traceparent", "00"), field("Cookie", "c=d"),
		func(r *http.Request) { r.RemoteAddr = "127.0.0.1:1"; r.Header.Del("X-Forwarded-For") },
	))
	const want = `{"url":"http://a.example/1?x=1","key":"http://a.example/1?x=1","variant":"","status":404,"size":7,"ttl":60}`
	if w.Code != 200 || strings.TrimSpace(w.Body.String()) != want {
		t.Fatalf("got %d %s, want %s", w.Code, w.Body, want)
	}
	p := n.pushed[0]
	text, _ := io.ReadAll(p.Body)
	if p.URL != "http://a.example/1?x=1" || p.Status != 404 || p.Size != 7 || string(text) != "content" {
		t.Errorf("got %+v with %q", p, text)
	}
	if want := (http.Header{"Accept-Language": {"de", "en"}}); !reflect.DeepEqual(p.Ask, want) {
		t.Errorf("the requests it is for: got %v, want %v", p.Ask, want)
	}
	if want := (http.Header{
		"Cache-Control": {"max-age=60"}, "Etag": {`"1"`}, "Vary": {"Accept-Language"}, "Surrogate-Key": {"t u"}, "Set-Cookie": {"a=b"},
		"Content-Language": {"de"}, "Content-Type": {"application/json"}, "X-Own": {"1: 2"}, "X-Frame-Options": {"DENY"},
	}); !reflect.DeepEqual(p.Header, want) {
		t.Errorf("the response's fields: got %v, want %v: what is the client's own stays out", p.Header, want)
	}
}

func TestPushesThatAreNotRight(t *testing.T) {
	for _, c := range []struct {
		name, query, body string
		change            func(*http.Request)
		status            int
		fields            []string
	}{
		{"no URL", "", "x", nil, 400, []string{"url: is needed once"}},
		{"two URLs", "url=http://a.example/1&url=http://a.example/2", "x", nil, 400, []string{"url: is needed once"}},
		{"not absolute", "url=/1", "x", nil, 400, []string{"url: is not absolute"}},
		{"a host of no site", "url=http://c.example/1", "x", nil, 400, []string{"url: has a host of no site"}},
		{"an unknown parameter", "url=http://a.example/1&headers=a:b", "x", nil, 400, []string{"headers: is no parameter"}},
		{"a status that is none", "url=http://a.example/1", "x", field("Seawall-Status", "100"), 400, []string{"Seawall-Status: is not one status from 200 to 599"}},
		{"a part", "url=http://a.example/1", "x", field("Content-Range", "bytes 0-0/2"), 400, []string{"Content-Range: is of a part"}},
		{"a field of framing", "url=http://a.example/1", "x", field("Seawall-Header", "Transfer-Encoding: chunked"), 400, []string{"Seawall-Header: is not Name: value"}},
		{"a field that is none", "url=http://a.example/1&header=nonsense&header=a%0d:b", "x", nil, 400, []string{"header: is not Name:value", "header: is not Name:value"}},
		{"a private response", "url=http://a.example/1", "x", field("Cache-Control", "private"), 422, []string{"Cache-Control: may not be stored: private"}},
		{"too large, and says so", "url=http://a.example/1", strings.Repeat("x", 1001), nil, 413, []string{"body: is larger than 1000 bytes"}},
		{"too large, and does not say", "url=http://a.example/1", strings.Repeat("x", 1001), func(r *http.Request) { r.ContentLength = -1 }, 413, []string{"body: is larger than 1000 bytes"}},
		{"ends early", "url=http://a.example/1", "x", func(r *http.Request) { r.Body = io.NopCloser(io.MultiReader(r.Body, brokenReader{})) }, 400, []string{"body: is shorter"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := new(fakeNode)
			w := askBody(n.handler(t, Access{}), "PUT", "/v1/objects?"+c.query, c.body, c.change)
			checkFields(t, w.Code, w.Body.String(), w.Header().Get("Content-Type"), c.status, c.fields)
			if n.did() != 0 {
				t.Errorf("it stored %+v", n.pushed)
			}
		})
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestStored(t *testing.T) {
	h := new(fakeNode).handler(t, Access{})
	if w := askBody(h, "GET", "/v1/objects?url=http://a.example/1", "", nil); w.Code != 200 || !strings.Contains(w.Body.String(), `"objects":[{"url":"http://a.example/1"`) {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	w := askBody(h, "GET", "/v1/objects?url=http://a.example/1&header=a:b", "", nil)
	checkFields(t, w.Code, w.Body.String(), w.Header().Get("Content-Type"), 400, []string{"header: is no parameter"})
}
