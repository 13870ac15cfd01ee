package listen

import (
	"strings"
	"testing"
)

// heads are requests with the fault they have.
func heads() map[string]error {
	return map[string]error{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n":                      nil,
		"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n":              nil,
		"GET / HTTP/1.1\r\nHost: a\r\n\r\nbody\n with\n\n lines": nil,
		"GET / HTTP/1.1\r\nX:\r\n\r\n":                           nil,
		preface + "\x00\x00\n\x04 \n":                            nil,
		"PRI * HTTP/2.0\r\n\r\nGET\n":                            nil, // behind the head
		"GET / HTTP/1.1\n\n":                                     errBareLF,
		"\nGET / HTTP/1.1\r\n\r\n":                               errBareLF,
		"GET / HTTP/1.1\r\nHost: a\n\r\n":                        errBareLF,
		"GET / HTTP/1.1\r\nHost: a\r\n\n":                        errBareLF,
		"GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n":                errFolded,
		"GET / HTTP/1.1\r\nHost: a\r\n\tb\r\n\r\n":               errFolded,
		"GET / HTTP/1.1\r\n Host: a\r\n\r\n":                     errFolded,
		"GET / HTTP/1.1\r\n \r\n\r\n":                            errFolded,
	}
}

func verdict(parts ...string) error {
	var h head
	h.begin()
	for _, p := range parts {
		h.see([]byte(p))
	}
	return h.err
}

func TestHeadsInEveryTwoParts(t *testing.T) {
	for text, want := range heads() {
		for i := range len(text) + 1 {
			if got := verdict(text[:i], text[i:]); got != want {
				t.Errorf("%q and %q: got %v, want %v", text[:i], text[i:], got, want)
			}
		}
		if got := verdict(strings.Split(text, "")...); got != want {
			t.Errorf("%q byte by byte: got %v, want %v", text, got, want)
		}
	}
}

// However bytes are cut, the verdict is that of a plain reading by lines.
func FuzzHead(f *testing.F) {
	for text := range heads() {
		f.Add(text, uint16(3), uint16(9))
	}
	f.Fuzz(func(t *testing.T, text string, a, b uint16) {
		i := int(a) % (len(text) + 1)
		j := i + int(b)%(len(text)-i+1)
		if got, want := verdict(text[:i], text[i:j], text[j:]), plainly(text); got != want {
			t.Fatalf("%q %q %q: got %v, want %v", text[:i], text[i:j], text[j:], got, want)
		}
	})
}

func plainly(text string) error {
	if strings.HasPrefix(text, preface) {
		return nil
	}
	started := false
	for line := range strings.Lines(text) {
		switch {
		case started && strings.Trim(line[:1], " \t") == "":
			return errFolded
		case !strings.HasSuffix(line, "\n"):
			return nil
		case !strings.HasSuffix(line, "\r\n"):
			return errBareLF
		case line != "\r\n":
			started = true
		case started:
			return nil
		}
	}
	return nil
}
