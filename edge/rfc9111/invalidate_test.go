package rfc9111

import (
	"slices"
	"testing"
)

func TestUnsafeMethods(t *testing.T) {
	for method, want := range map[string]bool{
		"GET": false, "HEAD": false, "OPTIONS": false, "TRACE": false,
		"POST": true, "PUT": true, "DELETE": true, "PATCH": true, "FOO": true, "get": true, "": true,
	} {
		if got := Unsafe(method); got != want {
			t.Errorf("§9 %q: got %v, want %v", method, got, want)
		}
	}
}

func TestInvalidates(t *testing.T) {
	for _, test := range []struct {
		name, method string
		status       int
		want         bool
	}{
		{"§9 2xx", "POST", 200, true},
		{"§9 2xx, last", "PUT", 299, true},
		{"§9 3xx", "DELETE", 303, true},
		{"§9 3xx, last", "PATCH", 399, true},
		{"§9 unknown method", "FOO", 204, true},
		{"§9 4xx", "POST", 400, false},
		{"§9 5xx", "POST", 500, false},
		{"§9 1xx", "POST", 103, false},
		{"§9 safe", "GET", 200, false},
	} {
		if got := Invalidates(test.method, test.status); got != test.want {
			t.Errorf("%s: %s %d: got %v, want %v", test.name, test.method, test.status, got, test.want)
		}
	}
}

func TestAlsoInvalid(t *testing.T) {
	const own = "https://a.example/x/y?q=1"
	for _, test := range []struct {
		name  string
		lines []string
		want  []string
	}{
		{"§9 none", nil, nil},
		{"§9 Location", []string{"Location: https://a.example/z"}, []string{"https://a.example/z"}},
		{"§9 Content-Location", []string{"Content-Location: /z?a=b"}, []string{"https://a.example/z?a=b"}},
		{"§9 both, each once", []string{"Location: /z", "Content-Location: https://a.example/z"}, []string{"https://a.example/z"}},
		{"§9 several", []string{"Location: /z", "Content-Location: /w"}, []string{"https://a.example/z", "https://a.example/w"}},
		{"§9 relative path", []string{"Location: z"}, []string{"https://a.example/x/z"}},
		{"§9 relative to the parent", []string{"Location: ../z/./w"}, []string{"https://a.example/z/w"}},
		{"§9 above the root", []string{"Location: ../../../z"}, []string{"https://a.example/z"}},
		{"§9 ends in a dot segment", []string{"Location: ."}, []string{"https://a.example/x/"}},
		{"§9 relative query", []string{"Location: ?q=2"}, []string{"https://a.example/x/y?q=2"}},
		{"§9 dots in a query stay", []string{"Location: /z?a=/../b"}, []string{"https://a.example/z?a=/../b"}},
		{"§9 the fragment goes", []string{"Location: /z#f"}, []string{"https://a.example/z"}},
		{"§9 other spelling of the origin", []string{"Location: HTTPS://A.EXAMPLE:443/Z"}, []string{"https://a.example/Z"}},
		{"§9 no path", []string{"Location: https://a.example"}, []string{"https://a.example/"}},
		{"§9 no path but a query", []string{"Location: https://a.example?z"}, []string{"https://a.example/?z"}},
		{"§9 without scheme", []string{"Location: //a.example/z"}, []string{"https://a.example/z"}},
		{"§9 bytes of the path stay", []string{`Location: /a|b"%2f%c3`}, []string{`https://a.example/a|b"%2f%c3`}},
		{"§9 a colon in a later segment", []string{"Location: ./a:b"}, []string{"https://a.example/x/a:b"}},
		{"§9 itself", []string{"Location: https://a.example/x/y?q=1", "Content-Location: "}, nil},
		{"§9 another host", []string{"Location: https://b.example/z"}, nil},
		{"§9 another host without scheme", []string{"Location: //b.example/z"}, nil},
		{"§9 another scheme", []string{"Location: http://a.example/z"}, nil},
		{"§9 another port", []string{"Location: https://a.example:8443/z"}, nil},
		{"§9 the other scheme's port", []string{"Location: https://a.example:80/z"}, nil},
		{"§9 user information", []string{"Location: https://a.example@b.example/z", "Content-Location: https://u@a.example/"}, nil},
		{"§9 backslash in the authority", []string{`Location: https://a.example\@b.example/z`}, nil},
		{"§9 two ports", []string{"Location: https://a.example:443:443/z"}, nil},
		{"§9 another scheme altogether", []string{"Location: javascript:alert(1)", "Content-Location: mailto:a"}, nil},
		{"§9 spaces and controls", []string{"Location: /a b", "Content-Location: /a\x01"}, nil},
	} {
		if got := AlsoInvalid(own, header(test.lines...)); !slices.Equal(got, test.want) {
			t.Errorf("%s: %q: got %q, want %q", test.name, test.lines, got, test.want)
		}
	}
	if got := AlsoInvalid("no URL", header("Location: https://a.example/")); got != nil {
		t.Errorf("§9 no origin of its own: got %q, want none", got)
	}
	if got := AlsoInvalid("http://[::1]:8080/a", header("Location: http://[::1]:8080/b", "Content-Location: http://[::1]/b")); !slices.Equal(got, []string{"http://[::1]:8080/b"}) {
		t.Errorf("§9 IPv6: got %q", got)
	}
}

func TestWhatIsNoURLResolvesToNothing(t *testing.T) {
	for _, reference := range []string{"https://:443/z", "https:///z", "https://?q", "https://u@a.example/", `https://a.example\b/`,
		"https://a:b:1/", "https://[::1/", "https://::1]/", "https://a.example:x/", "ftp://a.example/", "//", "a:b", "/a\x7f"} {
		if got, ok := resolve("https://a.example/x", reference); ok {
			t.Errorf("§9 %q: got %q, want none", reference, got)
		}
	}
}
