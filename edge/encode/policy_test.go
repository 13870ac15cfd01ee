package encode

import (
	"net/http"
	"testing"
)

// html is the header of a page with these further fields, name and value in turn.
func html(fields ...string) http.Header {
	h := http.Header{"Content-Type": {"text/html; charset=utf-8"}}
	for i := 0; i < len(fields); i += 2 {
		h[fields[i]] = append(h[fields[i]], fields[i+1])
	}
	return h
}

func TestJudge(t *testing.T) {
	tests := []struct {
		name   string
		policy Policy
		r      Response
		want   Verdict
	}{
		{"a page", Policy{}, Response{200, html(), 5000, false}, Codable},
		{"of unknown length", Policy{}, Response{200, html(), Unknown, false}, Codable},
		{"an error page", Policy{}, Response{404, html(), 5000, false}, Codable},
		{"an unknown status", Policy{}, Response{299, html(), 5000, false}, Codable},
		{"no content", Policy{}, Response{204, html(), Unknown, false}, NoBody},
		{"reset", Policy{}, Response{205, html(), Unknown, false}, NoBody},
		{"a part", Policy{}, Response{206, html(), 5000, false}, NoBody},
		{"not modified", Policy{}, Response{304, html(), Unknown, false}, NoBody},
		{"interim", Policy{}, Response{103, html(), Unknown, false}, NoBody},
		{"Content-Range on a 200", Policy{}, Response{200, html("Content-Range", "bytes 0-1/2"), 5000, false}, NoBody},
		{"coded", Policy{}, Response{200, html("Content-Encoding", "gzip"), 5000, false}, Coded},
		{"coded by what we do not know", Policy{}, Response{200, html("Content-Encoding", "dcb"), 5000, false}, Coded},
		{"identity", Policy{}, Response{200, html("Content-Encoding", "Identity"), 5000, false}, Codable},
		{"a digest of its bytes", Policy{}, Response{200, html("Repr-Digest", "sha-256=:YQ==:"), 5000, false}, Coded},
		{"no-transform", Policy{}, Response{200, html("Cache-Control", "public, No-Transform"), 5000, false}, NoTransform},
		{"no-transform on a second line", Policy{}, Response{200, html("Cache-Control", "public", "Cache-Control", "no-transform=1"), 5000, false}, NoTransform},
		{"an image", Policy{}, Response{200, http.Header{"Content-Type": {"image/png"}}, 5000, false}, WrongType},
		{"no type", Policy{}, Response{200, http.Header{}, 5000, false}, WrongType},
		{"two types", Policy{}, Response{200, http.Header{"Content-Type": {"text/html", "text/css"}}, 5000, false}, WrongType},
		{"off", Policy{Off: true}, Response{200, html(), 5000, false}, WrongType},
		{"just the floor", Policy{}, Response{200, html(), 512, false}, Codable},
		{"below the floor", Policy{}, Response{200, html(), 511, false}, Small},
		{"own floor", Policy{MinSize: 2000}, Response{200, html(), 1999, false}, Small},
		{"no floor", Policy{MinSize: -1}, Response{200, html(), 0, false}, Codable},
		{"exposed", Policy{}, Response{200, html(), 5000, true}, Personal},
		{"exposed and allowed", Policy{Personal: true}, Response{200, html(), 5000, true}, Codable},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.policy.Judge(tt.r); got != tt.want {
				t.Errorf("%+v: got %v, want %v", tt.r, got, tt.want)
			}
		})
	}
}

func TestExposed(t *testing.T) {
	tests := []struct {
		name              string
		request, response http.Header
		target            string
		want              bool
	}{
		{"nobody's", nil, html(), "/search?q=x", false},
		{"authorization", http.Header{"Authorization": {"Basic eA=="}}, html(), "/", true},
		{"sets a cookie", nil, html("Set-Cookie", "s=1"), "/", true},
		{"private", nil, html("Cache-Control", "max-age=0, Private"), "/", true},
		{"qualified private", nil, html("Cache-Control", `private="set-cookie"`), "/", true},
		{"a cookie and a query", http.Header{"Cookie": {"s=1"}}, html(), "/search?q=x", true},
		{"a cookie without a query", http.Header{"Cookie": {"s=1"}}, html(), "/search", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Exposed(tt.request, tt.response, tt.target); got != tt.want {
				t.Errorf("%v of %q: got %v, want %v", tt.response, tt.target, got, tt.want)
			}
		})
	}
}

func TestNoTransformed(t *testing.T) {
	for line, want := range map[string]bool{
		"":                             false,
		"no-transform":                 true,
		"max-age=1,\tNO-TRANSFORM ":    true,
		`foo="a, no-transform, b"`:     true, // rather than the other way
		`foo="torn, no-transform`:      true,
		"no-transforms, xno-transform": false,
		"max-age=no-transform":         false,
	} {
		if got := NoTransformed([]string{"public", line}); got != want {
			t.Errorf("%q: got %v, want %v", line, got, want)
		}
	}
}

func TestDefaultTypes(t *testing.T) {
	for contentType, want := range map[string]bool{
		"text/html":                        true,
		"TEXT/Html ; charset=utf-8":        true,
		"text/event-stream":                true,
		"application/json":                 true,
		"application/problem+json":         true,
		"application/ld+json; profile=x":   true,
		"image/svg+xml":                    true,
		"application/wasm":                 true,
		"font/ttf":                         true,
		"application/javascript":           true,
		"image/png":                        false,
		"font/woff2":                       false,
		"application/zip":                  false,
		"application/octet-stream":         false,
		"video/mp4":                        false,
		"multipart/byteranges; boundary=x": false,
		"application/json+zip":             false,
		"json":                             false,
		"application/xjson":                false,
		"":                                 false,
		"text":                             false,
		";text/html":                       false,
		"application/grpc":                 false,
		"application/vnd.api+JSON":         true,
		"application/signed-exchange;v=b3": false,
	} {
		if got := (*Types)(nil).Match(contentType); got != want {
			t.Errorf("%q: got %v, want %v", contentType, got, want)
		}
	}
}

func TestNewTypes(t *testing.T) {
	types, err := NewTypes("Application/X-Own", "model/*", "*+CBOR")
	if err != nil {
		t.Fatal(err)
	}
	for contentType, want := range map[string]bool{
		"application/x-own": true, "model/stl": true, "a/b+cbor": true,
		"text/html": false, "application/cbor": false, "application/x-ownx": false,
	} {
		if got := types.Match(contentType); got != want {
			t.Errorf("%q: got %v, want %v", contentType, got, want)
		}
	}
	for _, bad := range []string{"", "text", "*/*", "*", "text/", "/html", "text/html; charset=utf-8", "*+", "te xt/html", "text/*ml"} {
		if _, err := NewTypes(bad); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
	if none, err := NewTypes(); err != nil || none.Match("text/html") {
		t.Errorf("an empty list: error %v, or it matches text/html", err)
	}
}

func TestStack(t *testing.T) {
	tests := []struct {
		lines []string
		want  []Coding
		known bool
	}{
		{nil, nil, true},
		{[]string{"", " , identity"}, nil, true},
		{[]string{"X-GZIP"}, []Coding{Gzip}, true},
		{[]string{"gzip, br", "zstd"}, []Coding{Gzip, Brotli, Zstd}, true},
		{[]string{"deflate"}, []Coding{Deflate}, true},
		{[]string{"gzip, gzip, gzip, identity"}, []Coding{Gzip, Gzip, Gzip}, true},
		{[]string{"gzip, gzip, gzip, gzip"}, nil, false},
		{[]string{"gzip, compress"}, nil, false},
		{[]string{"gzip;q=1"}, nil, false},
	}
	for _, tt := range tests {
		got, known := Stack(tt.lines)
		if known != tt.known || len(got) != len(tt.want) {
			t.Errorf("%q: got %v, %v, want %v, %v", tt.lines, got, known, tt.want, tt.known)
			continue
		}
		for i := range got {
			if got[i] != tt.want[i] {
				t.Errorf("%q: got %v, want %v", tt.lines, got, tt.want)
			}
		}
	}
}

func TestNamesRoundTrip(t *testing.T) {
	for c := range codings {
		if got, ok := Parse(c.String()); !ok || got != c {
			t.Errorf("%v: got %v, %v", c, got, ok)
		}
	}
	for _, bad := range []string{"", "unknown", "bR ", "zst", "compress", "ident\u0131ty"} {
		if c, ok := Parse(bad); ok {
			t.Errorf("%q is %v", bad, c)
		}
	}
	seen := make(map[string]bool)
	for v := range verdicts + 1 {
		if seen[v.String()] {
			t.Errorf("two verdicts are %q", v)
		}
		seen[v.String()] = true
	}
}
