package encode

import (
	"maps"
	"net/http"
	"slices"
	"testing"
)

func TestTag(t *testing.T) {
	tests := []struct {
		etag string
		c    Coding
		want string
	}{
		{`"a"`, Brotli, `W/"a~br"`},
		{`W/"a"`, Gzip, `W/"a~gz"`},
		{`""`, Zstd, `W/"~zst"`},
		{`"a-gzip"`, Gzip, `W/"a-gzip~gz"`},
		{"\"\xff\"", Gzip, "W/\"\xff~gz\""},
		{`"a"`, Identity, `"a"`},
		{`a`, Gzip, ``},
		{`"a`, Gzip, ``},
		{`"`, Gzip, ``},
		{`w/"a"`, Gzip, ``},
		{`"a"b"`, Gzip, ``},
		{``, Gzip, ``},
	}
	for _, tt := range tests {
		if got := Tag(tt.etag, tt.c); got != tt.want {
			t.Errorf("%q, %v: got %q, want %q", tt.etag, tt.c, got, tt.want)
		}
	}
}

func TestStripTags(t *testing.T) {
	tests := []struct {
		name       string
		line, want string
	}{
		{"ours", `W/"a~br"`, `W/"a"`},
		{"ours among others", `"x", W/"a~zst" ,W/"b~gz", W/"c"`, `"x", W/"a" ,W/"b", W/"c"`},
		{"once only", `W/"a~br~gz"`, `W/"a~br"`},
		{"a comma inside", `W/"a,~br"`, `W/"a,"`},
		{"nothing but the mark", `W/"~br"`, `W/""`},
		{"strong", `"a~br"`, `"a~br"`},
		{"lower case", `w/"a~br"`, `w/"a~br"`},
		{"another mark", `W/"a~xx", W/"~", W/"a-br"`, `W/"a~xx", W/"~", W/"a-br"`},
		{"never closes", `W/"a~br`, `W/"a~br`},
		{"ours, then torn", `W/"a~br", W/"b~br`, `W/"a", W/"b~br`},
		{"star", `*`, `*`},
		{"no quotes", `~br`, `~br`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := []string{`"first"`, tt.line}
			got := StripTags(in, Accept(nil))
			if want := []string{`"first"`, tt.want}; !slices.Equal(got, want) {
				t.Errorf("%q: got %q, want %q", tt.line, got, want)
			}
			if in[1] != tt.line {
				t.Errorf("%q: the argument was changed to %q", tt.line, in[1])
			}
		})
	}
	refused := []string{`W/"a~gz", W/"b~br"`}
	if got := StripTags(refused, Accept([]string{"br"})); got[0] != `W/"a~gz", W/"b"` {
		t.Errorf("%s of a client that takes br: %s", refused[0], got[0])
	}
	plain := []string{`"a", W/"b"`}
	if n := testing.AllocsPerRun(100, func() { StripTags(plain, Accept(nil)) }); n != 0 {
		t.Errorf("%v allocations without a tag of ours, want none", n)
	}
}

func FuzzTagsRoundTrip(f *testing.F) {
	f.Add(`"a"`, `"b", W/"c~br"`)
	f.Add(`W/"~gz"`, `"`)
	f.Fuzz(func(t *testing.T, etag, others string) {
		for _, c := range made {
			tag := Tag(etag, c)
			if tag == "" {
				continue
			}
			want := etag
			if etag[0] != 'W' {
				want = "W/" + etag
			}
			if got := StripTags([]string{tag}, Accept(nil)); got[0] != want {
				t.Errorf("%q, %v: tag %q, stripped %q, want %q", etag, c, tag, got[0], want)
			}
		}
		once := StripTags([]string{others}, Accept(nil))
		if len(once[0]) > len(others) {
			t.Errorf("%q grew to %q", others, once[0])
		}
	})
}

func TestMergeVary(t *testing.T) {
	tests := []struct {
		name        string
		lines, want []string
	}{
		{"none", nil, []string{"Accept-Encoding"}},
		{"empty", []string{""}, []string{"Accept-Encoding"}},
		{"others", []string{"Origin", "Accept, Cookie"}, []string{"Origin", "Accept, Cookie, Accept-Encoding"}},
		{"there", []string{"Origin, accept-encoding", "Cookie"}, []string{"Origin, accept-encoding", "Cookie"}},
		{"star", []string{"Origin", " * "}, []string{"Origin", " * "}},
		{"almost", []string{"X-Accept-Encoding"}, []string{"X-Accept-Encoding, Accept-Encoding"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := append(slices.Clone(tt.lines), "beyond")[:len(tt.lines)]
			if got := MergeVary(in); !slices.Equal(got, tt.want) {
				t.Errorf("%q: got %q, want %q", tt.lines, got, tt.want)
			}
			if beyond := in[:len(in)+1][len(in)]; !slices.Equal(in, tt.lines) || beyond != "beyond" {
				t.Errorf("%q: the argument was changed: %q and %q", tt.lines, in, beyond)
			}
		})
	}
}

func TestSetCoded(t *testing.T) {
	original := http.Header{
		"Content-Type": {"text/html"}, "Content-Length": {"10"}, "Etag": {`"a"`},
		"Vary": {"Origin"}, "Accept-Ranges": {"bytes"}, "Last-Modified": {"x"},
	}
	tests := []struct {
		c    Coding
		want http.Header
	}{
		{Brotli, http.Header{
			"Content-Type": {"text/html"}, "Content-Encoding": {"br"}, "Etag": {`W/"a~br"`},
			"Vary": {"Origin, Accept-Encoding"}, "Last-Modified": {"x"},
		}},
		{Identity, http.Header{
			"Content-Type": {"text/html"}, "Content-Length": {"10"}, "Etag": {`"a"`},
			"Vary": {"Origin, Accept-Encoding"}, "Accept-Ranges": {"bytes"}, "Last-Modified": {"x"},
		}},
	}
	for _, tt := range tests {
		h := maps.Clone(original)
		SetCoded(h, tt.c)
		if !maps.EqualFunc(h, tt.want, slices.Equal) {
			t.Errorf("%v: got %v, want %v", tt.c, h, tt.want)
		}
	}
	if original["Vary"][0] != "Origin" || original["Etag"][0] != `"a"` {
		t.Errorf("shared slices were changed: %v", original)
	}
	for _, tags := range [][]string{nil, {"malformed"}, {`"a"`, `"b"`}} {
		h := http.Header{"Etag": tags}
		SetCoded(h, Gzip)
		if got, ok := h["Etag"]; ok {
			t.Errorf("ETag %q became %q, want none", tags, got)
		}
	}
}
