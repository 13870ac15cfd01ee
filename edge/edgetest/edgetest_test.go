package edgetest

import (
	"io"
	"maps"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
)

// openPassing makes a node that stores nothing: what the engine needs of one.
func openPassing(_ []setting, origin http.RoundTripper) (*node, error) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { pass(w, r, origin) })
	return &node{handler: h, close: func() error { return nil }}, nil
}

func pass(w http.ResponseWriter, r *http.Request, origin http.RoundTripper) {
	ctx := httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			maps.Copy(w.Header(), http.Header(h))
			w.WriteHeader(code)
			clear(w.Header())
			return nil
		},
	})
	out := r.Clone(ctx)
	out.URL = &url.URL{Scheme: "http", Host: r.Host, Path: "/"}
	resp, err := origin.RoundTrip(out)
	if err != nil {
		w.Header().Set("Proxy-Status", "seawall; error="+err.(*fault).ProxyStatus())
		http.Error(w, "for people", http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	maps.Copy(w.Header(), resp.Header)
	for name := range resp.Trailer {
		w.Header().Add("Trailer", name)
	}
	w.WriteHeader(resp.StatusCode)
	var in io.Reader = resp.Body
	if resp.ContentLength >= 0 {
		in = io.LimitReader(in, resp.ContentLength)
	}
	buf := make([]byte, 4096)
	for err == nil {
		var n int
		n, err = in.Read(buf)
		_, _ = w.Write(buf[:n]) // fails when the client has left
		_ = http.NewResponseController(w).Flush()
	}
	if err != io.EOF {
		panic(http.ErrAbortHandler)
	}
	maps.Copy(w.Header(), resp.Trailer)
}

// TestScriptsPrintWhatTheyShould runs the engine's own scripts against the
// node that stores nothing, and rewrites them: the file must stay as it is.
func TestScriptsPrintWhatTheyShould(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("testdata/*.txt: %v, %d files", err, len(files))
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			run(t, file, false, openPassing)
			before, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			copied := filepath.Join(t.TempDir(), "copy.txt")
			if err := os.WriteFile(copied, before, 0o644); err != nil {
				t.Fatal(err)
			}
			run(t, copied, true, openPassing)
			after, err := os.ReadFile(copied)
			if err != nil {
				t.Fatal(err)
			}
			if string(after) != string(before) {
				t.Errorf("rewrite of %s\ngot:\n%s\nwant:\n%s", file, after, before)
			}
		})
	}
}

func TestRewriteReplacesOnlyWhatWasPrinted(t *testing.T) {
	const script = "# Why.\norigin /a\n| v1\n\n# Ask.\n\n\n# Twice.\nget /a\n----\nold\nlines\n\nsleep 1s\n----\nnothing\n"
	const want = "# Why.\norigin /a\n| v1\n\n# Ask.\n\n\n# Twice.\nget /a\n----\n200 after 0s\n| v1\n\nsleep 1s\n"
	file := filepath.Join(t.TempDir(), "a.txt")
	if err := os.WriteFile(file, []byte(script), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 { // a second time changes nothing
		run(t, file, true, openPassing)
		got, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want {
			t.Errorf("rewriting\n%s\ngot:\n%s\nwant:\n%s", script, got, want)
		}
	}
}

func TestDifferencesAreReported(t *testing.T) {
	all, err := parseScript("a.txt", "# Why.\norigin /a\n| v1\n\nget /a\n----\n200 after 0s\n| v2\n\nget /a\n----\n200 after 0s\n| v1\n")
	if err != nil {
		t.Fatal(err)
	}
	var printed [][]string
	synctest.Test(t, func(t *testing.T) { printed, err = play(all, openPassing, t.Errorf) })
	if err != nil {
		t.Fatal(err)
	}
	got := differences(all, printed)
	want := []string{"5: get /a\ngot:\n    200 after 0s\n    | v1\nwant:\n    200 after 0s\n    | v2"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestErrorsOfAScriptNameTheirLine(t *testing.T) {
	for _, c := range []struct{ name, script, want string }{
		{"no comment", "get /a\n", "a.txt:1: a script opens with a comment that says the behaviour"},
		{"stray rule", "# Why.\n\n----\n", "a.txt:3: ---- without a command above it"},
		{"unknown command", "# Why.\n\nfetch /a\n", "a.txt:3: there is no command fetch"},
		{"unknown option", "# Why.\nget /a color=red\n", "a.txt:2: get has no option color"},
		{"option of another command", "# Why.\nget /a delay=1s\n", "a.txt:2: get has no option delay"},
		{"too many words", "# Why.\nget /a /b /c\n", `a.txt:2: get takes 1 words, has ["/a" "/b" "/c"]`},
		{"unknown fault", "# Why.\norigin /a fault=rain\n", "a.txt:2: there is no fault rain"},
		{"bad duration", "# Why.\norigin /a delay=soon\n", `a.txt:2: option delay: time: invalid duration "soon"`},
		{"neither field nor body", "# Why.\norigin /a\nhello\n", `a.txt:2: "hello" is neither a field nor a body line`},
		{"open quote", "# Why.\norigin /a when=\"a\n", "a.txt:2: quote left open"},
		{"option twice", "# Why.\norigin /a delay=1s delay=2s\n", "a.txt:2: option delay is given twice"},
		{"site too late", "# Why.\norigin /a\n\nget /a\n\nsite ttl=1s\n", "a.txt:6: site must stand before the first request"},
		{"no origin", "# Why.\nget /a\n", "a.txt:2: no origin is set for GET /a"},
		{"not started", "# Why.\nawait x\n", "a.txt:2: x was not started"},
	} {
		t.Run(c.name, func(t *testing.T) {
			all, err := parseScript("a.txt", c.script)
			if err == nil {
				synctest.Test(t, func(t *testing.T) { _, err = play(all, openQuiet, t.Errorf) })
				if err != nil {
					err = &prefixed{"a.txt:", err}
				}
			}
			if err == nil || err.Error() != c.want {
				t.Errorf("%q\ngot:  %v\nwant: %s", c.script, err, c.want)
			}
		})
	}
}

type prefixed struct {
	prefix string
	err    error
}

func (p *prefixed) Error() string { return p.prefix + p.err.Error() }

// openQuiet is openPassing for scripts whose origin has no answer.
func openQuiet(settings []setting, origin http.RoundTripper) (*node, error) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		resp, err := origin.RoundTrip(r)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		resp.Body.Close()
	})
	return &node{handler: h, close: func() error { return nil }}, nil
}

func TestAPanicOfTheHandlerFailsTheScript(t *testing.T) {
	all, err := parseScript("a.txt", "# Why.\nget /a\n")
	if err != nil {
		t.Fatal(err)
	}
	open := func([]setting, http.RoundTripper) (*node, error) {
		return &node{handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("boom") }), close: func() error { return nil }}, nil
	}
	var reports []string
	var printed [][]string
	synctest.Test(t, func(*testing.T) {
		printed, err = play(all, open, func(format string, _ ...any) { reports = append(reports, format) })
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(reports) != 1 {
		t.Errorf("panicking handler: got %d reports, want 1", len(reports))
	}
	if want := []string{"broken: closed without an answer"}; !slices.Equal(printed[0], want) {
		t.Errorf("panicking handler: got %q, want %q", printed[0], want)
	}
}

func TestWords(t *testing.T) {
	for _, c := range []struct {
		in   string
		want []string
	}{
		{"get /a", []string{"get", "/a"}},
		{"  get   /a  ", []string{"get", "/a"}},
		{`origin /a when="Accept: a b"`, []string{"origin", "/a", "when=Accept: a b"}},
		{`get ""`, []string{"get", ""}},
		{`get /a\"b`, []string{"get", `/a"b`}},
		{`get "a \" b"`, []string{"get", `a " b`}},
	} {
		got, err := splitWords(c.in)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("splitWords(%q): got %q, %v; want %q", c.in, got, err, c.want)
		}
	}
}

func TestLongBodiesTellTheirPlace(t *testing.T) {
	all := pattern(100_000)
	other := slices.Clone(all)
	other[50_000] ^= 1
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"whole", all, "| (100000 bytes of the pattern from 0)"},
		{"aligned part", all[8000:20_000], "| (12000 bytes of the pattern from 8000)"},
		{"odd part", all[8003:20_001], "| (11998 bytes of the pattern from 8003)"},
		{"one bit off", other, "| (100000 bytes, not of the pattern)"},
		{"two parts swapped", slices.Concat(all[50_000:], all[:50_000]), "| (100000 bytes, not of the pattern)"},
	} {
		if got := describe(c.data); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}
