package origin

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// sent returns the head (and n more bytes) that a request puts on the wire.
func sent(t *testing.T, cfg Config, req *http.Request, more int) (string, error) {
	t.Helper()
	var got string
	p, _, stop := pipePool(t, cfg, func(p *peer) {
		got = p.head()
		b := make([]byte, more)
		io.ReadFull(p.r, b)
		got += string(b)
		p.send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
	})
	r := do(p, req)
	stop()
	return got, r.err
}

func TestTargetIsSentByteForByte(t *testing.T) {
	for _, target := range []string{
		"/", "/a|b", `/"quoted"`, "/stra\xc3\x9fe", "/\xff\xfe", "/%2e%2E/x", "/a%2fb|c", "//double", "//host.test/x", "///",
		"/a/../b//c", "/?a=b|c&d=\"e\"", "/[x]{y}^`\\", "*", "/%zz", "/;a=1?b%23c",
	} {
		t.Run(target, func(t *testing.T) {
			req := newRequest(t, "OPTIONS", "http://site.test/other", nil)
			req.RequestURI = target
			got, err := sent(t, Config{}, req, 0)
			line, _, _ := strings.Cut(got, "\r\n")
			if want := "OPTIONS " + target + " HTTP/1.1"; line != want || err != nil {
				t.Errorf("target %q: got %q, %v, want %q", target, line, err, want)
			}
		})
	}
}

func TestTargetFromURL(t *testing.T) {
	got, err := sent(t, Config{}, newRequest(t, "GET", "http://site.test/a%2Fb?c=d", nil), 0)
	if line, _, _ := strings.Cut(got, "\r\n"); line != "GET /a%2Fb?c=d HTTP/1.1" || err != nil {
		t.Errorf("got %q, %v", line, err)
	}
}

func TestRequestsThatAreRefused(t *testing.T) {
	tests := []struct {
		name string
		edit func(*http.Request)
	}{
		{"CR in target", func(r *http.Request) { r.RequestURI = "/a\rb" }},
		{"LF in target", func(r *http.Request) { r.RequestURI = "/a\nb" }},
		{"NUL in target", func(r *http.Request) { r.RequestURI = "/a\x00b" }},
		{"space in target", func(r *http.Request) { r.RequestURI = "/a b" }},
		{"tab in target", func(r *http.Request) { r.RequestURI = "/a\tb" }},
		{"DEL in target", func(r *http.Request) { r.RequestURI = "/a\x7fb" }},
		{"fragment in target", func(r *http.Request) { r.RequestURI = "/a#b" }},
		{"asterisk without OPTIONS", func(r *http.Request) { r.RequestURI = "*" }},
		{"absolute form", func(r *http.Request) { r.RequestURI = "http://evil.test/" }},
		{"authority form", func(r *http.Request) { r.RequestURI = "evil.test:80" }},
		{"no target", func(r *http.Request) { r.URL = nil }},
		{"CONNECT", func(r *http.Request) { r.Method = "CONNECT" }},
		{"space in method", func(r *http.Request) { r.Method = "GET /x" }},
		{"LF in value", func(r *http.Request) { r.Header.Set("X", "a\nb: c") }},
		{"CR in value", func(r *http.Request) { r.Header.Set("X", "a\rb") }},
		{"space in name", func(r *http.Request) { r.Header["X y"] = []string{"1"} }},
		{"empty name", func(r *http.Request) { r.Header[""] = []string{"1"} }},
		{"LF in upgrade", func(r *http.Request) {
			r.Header = http.Header{"Connection": {"upgrade"}, "Upgrade": {"a\r\nX: y"}}
		}},
		{"no host", func(r *http.Request) { r.Host, r.URL = "", &url.URL{Path: "/"} }},
		{"LF in host", func(r *http.Request) { r.Host = "a\r\nX: y" }},
		{"path in host", func(r *http.Request) { r.Host = "a/b" }},
		{"user in host", func(r *http.Request) { r.Host = "a@b" }},
		{"length without a body", func(r *http.Request) { r.ContentLength = 5 }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, o, stop := pipePool(t, Config{}, answers(hello))
			defer stop()
			req := newRequest(t, "GET", "http://site.test/", nil)
			tt.edit(req)
			r := do(p, req)
			if kind(r.err) != requestError || o.dialled() != 0 {
				t.Errorf("got %v after %d dials, want %s and no dial", r.err, o.dialled(), requestError)
			}
		})
	}
}

func TestRequestHead(t *testing.T) {
	type edit = func(*http.Request)
	tests := []struct {
		name, method, body string
		edit               edit
		want               string // after the request line
	}{
		{"plain", "GET", "", nil, "Host: site.test\r\n\r\n"},
		{"sorted and canonical", "GET", "", func(r *http.Request) {
			r.Header = http.Header{"x-b": {"1", " 2 "}, "X-A": {"\xc3\xa9"}}
		}, "Host: site.test\r\nX-A: \xc3\xa9\r\nX-B: 1\r\nX-B: 2\r\n\r\n"},
		{"framing is ours", "GET", "", func(r *http.Request) {
			r.Header = http.Header{"Host": {"evil"}, "content-length": {"9"}, "Transfer-Encoding": {"chunked"}, "Trailer": {"X"},
				"Connection": {"keep-alive, x-y"}, "Keep-Alive": {"1"}, "Proxy-Connection": {"1"}, "Upgrade": {"h2c"}, "Http2-Settings": {"AA"},
				"Te": {"gzip"}, "Expect": {"100-continue"}}
		}, "Host: site.test\r\n\r\n"},
		{"empty POST", "POST", "", nil, "Host: site.test\r\nContent-Length: 0\r\n\r\n"},
		{"length", "PUT", "hello", nil, "Host: site.test\r\nContent-Length: 5\r\n\r\nhello"},
		{"chunked", "POST", "hello", func(r *http.Request) { r.ContentLength = -1 },
			"Host: site.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"},
		{"GET with a body", "GET", "hello", func(r *http.Request) { r.ContentLength = 0 },
			"Host: site.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"},
		{"trailer", "POST", "hello", func(r *http.Request) { r.Trailer = http.Header{"x-sum": {"1", "2"}, "Y": {"3"}} },
			"Host: site.test\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, Y\r\n\r\n5\r\nhello\r\n0\r\nY: 3\r\n\r\n"},
		{"trailers that may not be sent", "POST", "hello", func(r *http.Request) {
			r.Trailer = http.Header{"X-Sum": {"1"}, "A b": {"2"}, "Content-Length": {"3"}, "If-Match": {"4"}, "": {"5"}, "Cookie": {"6"}}
		}, "Host: site.test\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"},
		{"TE", "GET", "", func(r *http.Request) { r.Header.Set("TE", "gzip, trailers") },
			"Host: site.test\r\nTe: trailers\r\nConnection: TE\r\n\r\n"},
		{"upgrade", "GET", "", func(r *http.Request) {
			r.Header.Set("Connection", "keep-alive, Upgrade")
			r.Header.Set("Upgrade", "websocket")
		}, "Host: site.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"},
		{"close", "GET", "", func(r *http.Request) { r.Close = true }, "Host: site.test\r\nConnection: close\r\n\r\n"},
		{"other expectation", "GET", "", func(r *http.Request) { r.Header.Set("Expect", "x") }, "Host: site.test\r\nExpect: x\r\n\r\n"},
		{"own host", "GET", "", func(r *http.Request) { r.Host = "other.test:81" }, "Host: other.test:81\r\n\r\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var body io.Reader
			if tt.body != "" {
				body = strings.NewReader(tt.body)
			}
			req := newRequest(t, tt.method, "http://site.test/", body)
			if tt.edit != nil {
				tt.edit(req)
			}
			_, content, _ := strings.Cut(tt.want, "\r\n\r\n")
			got, err := sent(t, Config{}, req, len(content))
			_, got, _ = strings.Cut(got, "\r\n")
			if got != tt.want || err != nil {
				t.Errorf("got  %q, %v\nwant %q", got, err, tt.want)
			}
		})
	}
}

func TestHostModes(t *testing.T) {
	tests := []struct{ host, server, want string }{
		{"", "http://origin.test", "client.test"},
		{"client", "http://origin.test", "client.test"},
		{"origin", "http://origin.test", "origin.test"},
		{"origin", "http://origin.test:80", "origin.test"},
		{"origin", "http://origin.test:8080", "origin.test:8080"},
		{"origin", "http://[::1]:8080", "[::1]:8080"},
		{"origin", "http://[::1]", "[::1]"},
		{"fixed.test", "http://origin.test", "fixed.test"},
	}
	for _, tt := range tests {
		t.Run(tt.host+" "+tt.server, func(t *testing.T) {
			req := newRequest(t, "GET", "http://client.test/", nil)
			got, err := sent(t, Config{Host: tt.host, Servers: []string{tt.server}}, req, 0)
			if want := "\r\nHost: " + tt.want + "\r\n"; !strings.Contains(got, want) || err != nil {
				t.Errorf("Host %q of %s: got %q, %v, want %q", tt.host, tt.server, got, err, want)
			}
		})
	}
}

func TestConfigErrorsNameTheServer(t *testing.T) {
	for _, server := range []string{
		"", "origin.test", "ftp://origin.test", "http://", "http://origin.test/path", "http://origin.test?q", "http://origin.test?",
		"http://origin.test#f", "http://origin.test#", "http://user:secret@origin.test", "http://origin.test:0", "http://origin.test:99999",
		"http://origin.test:x", "http://a b", "http://or\x00igin", "//origin.test", "http://:80",
	} {
		_, err := New(Config{Servers: []string{"http://good.test", server}})
		if err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "server ") {
			t.Errorf("server %q: got error %v, want one that names it and no password", server, err)
		}
	}
	if _, err := New(Config{}); err == nil {
		t.Error("no servers: got no error")
	}
	if _, err := New(Config{Servers: []string{"http://a.test/"}, Host: "a/b"}); err == nil {
		t.Error("Host a/b: got no error")
	}
}
