package edge

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"seawall/purge"
	"seawall/wasm"
)

// guests are the functions that tests load, built once.
type guests struct {
	once          sync.Once
	plain, bodies []byte
	cache         string // of compiled modules; TestMain removes it
	err           error
}

var builtGuests guests

// guest returns the function of testdata/guest; with content also its callback
// for the response's content.
func guest(t testing.TB, content bool) []byte {
	t.Helper()
	builtGuests.once.Do(func() {
		dir, err := os.MkdirTemp("", "guest")
		if err != nil {
			builtGuests.err = err
			return
		}
		defer os.RemoveAll(dir)
		build := func(tags string) []byte {
			out := filepath.Join(dir, "guest.wasm")
			c := exec.Command("go", "build", "-tags", tags, "-buildmode=c-shared", "-o", out, ".")
			c.Dir, c.Env = "testdata/guest", append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=")
			if text, err := c.CombinedOutput(); err != nil {
				builtGuests.err = fmt.Errorf("%w: %s", err, text)
				return nil
			}
			module, err := os.ReadFile(out)
			if err != nil {
				builtGuests.err = err
			}
			return module
		}
		builtGuests.plain, builtGuests.bodies = build(""), build("content")
		if builtGuests.err == nil {
			builtGuests.cache, builtGuests.err = os.MkdirTemp("", "guests")
		}
	})
	if builtGuests.err != nil {
		t.Fatal(builtGuests.err)
	}
	if content {
		return builtGuests.bodies
	}
	return builtGuests.plain
}

// bench is a handler whose site has functions.
type workbench struct {
	*Handler
	host  *wasm.Host
	chain []*wasm.Chain
}

// program is a function and how it is loaded.
type program struct {
	lines   string
	content bool
	open    bool
}

// withFunctions returns a handler with functions at a site's two places.
func withFunctions(t testing.TB, origin http.RoundTripper, viewer, atOrigin []program, change func(*Config)) *workbench {
	t.Helper()
	guest(t, false)
	host, err := wasm.NewHost(wasm.Options{CacheDir: builtGuests.cache})
	if err != nil {
		t.Fatal(err)
	}
	w := &workbench{host: host}
	chain := func(place string, list []program) *wasm.Chain {
		if list == nil {
			return nil
		}
		var fs []*wasm.Function
		for i, p := range list {
			spec := wasm.Spec{Name: fmt.Sprint(place, i), Source: guest(t, p.content), Config: []byte(p.lines)}
			// Machines are shared and slow.
			spec.Limits.CPU, spec.Limits.Wall, spec.Limits.QueueWait = 50*time.Millisecond, 30*time.Second, time.Second
			if p.open {
				spec.OnError = wasm.Open
			}
			f, err := host.Load(context.Background(), spec)
			if err != nil {
				t.Fatal(err)
			}
			fs = append(fs, f)
		}
		c := wasm.NewChain(fs)
		for _, f := range fs {
			f.Close()
		}
		w.chain = append(w.chain, c)
		return c
	}
	v, o := chain("viewer", viewer), chain("origin", atOrigin)
	w.Handler = purgeable(t, purge.NewRules(0), origin, func(c *Config) {
		c.Sites[0].Viewer, c.Sites[0].OriginFunctions = v, o
		if change != nil {
			change(c)
		}
	})
	t.Cleanup(func() {
		w.Handler.Close()
		for _, c := range w.chain {
			c.Close()
		}
		w.Handler.Store.Close()
		if err := host.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// ask sends a request through a real server.
func (w *workbench) ask(t testing.TB, method, target string, fields ...string) (*http.Response, string) {
	t.Helper()
	return w.send(t, method, target, "", fields...)
}

func (w *workbench) send(t testing.TB, method, target, content string, fields ...string) (*http.Response, string) {
	t.Helper()
	server := httptest.NewServer(w.Handler)
	defer server.Close()
	r, err := http.NewRequest(method, server.URL+target, strings.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "example.com"
	for i := 0; i+1 < len(fields); i += 2 {
		r.Header.Set(fields[i], fields[i+1])
	}
	resp, err := server.Client().Transport.RoundTrip(r)
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: content: %v", method, target, err)
	}
	return resp, string(body)
}

// echo is an origin that answers with what it was asked, and counts.
type echo struct {
	mu    sync.Mutex
	asked []string
	terms string
	more  []string
}

func (e *echo) RoundTrip(r *http.Request) (*http.Response, error) {
	var content []byte
	if r.Body != nil {
		content, _ = io.ReadAll(r.Body)
		r.Body.Close()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	text := fmt.Sprintf("%s %s x=%s %s", r.Method, r.RequestURI, r.Header.Get("X-Function"), content)
	e.asked = append(e.asked, text)
	terms := e.terms
	if terms == "" {
		terms = "max-age=60"
	}
	out := resp(r, fmt.Sprintf("%d %s", len(e.asked), text), append([]string{"Cache-Control", terms}, e.more...)...)
	if r.Method == http.MethodHead {
		out.Body = http.NoBody
	}
	return out, nil
}

func (e *echo) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.asked)
}

// A function that rewrites the path makes the key: variants are cached apart,
// and a purge of the URL that clients ask for is of all of them.
func TestFunctionsRewriteBeforeTheKey(t *testing.T) {
	o := &echo{}
	w := withFunctions(t, o, []program{{lines: "query b=1 :path /b\n"}}, nil, nil)
	for i, step := range []struct{ target, want, status string }{
		{"/page?a=1", "1 GET /page?a=1 x= ", "fwd=uri-miss; stored"},
		{"/page?b=1", "2 GET /b x= ", "fwd=uri-miss; stored"},
		{"/page?a=1", "1 GET /page?a=1 x= ", "hit"},
		{"/page?b=1", "2 GET /b x= ", "hit"},
		{"/b", "2 GET /b x= ", "hit"},
	} {
		resp, body := w.ask(t, "GET", step.target)
		if body != step.want || !strings.Contains(resp.Header.Get("Cache-Status"), step.status) {
			t.Errorf("step %d: GET %s: got %q, %q; want %q, %q", i, step.target, body, resp.Header.Get("Cache-Status"), step.want, step.status)
		}
	}
	apply(t, w.Handler, purge.Request{URLs: []string{"http://example.com/page?b=1"}})
	if _, body := w.ask(t, "GET", "/page?b=1"); body != "3 GET /b x= " {
		t.Errorf("after a purge of the viewer's URL: got %q, want what the origin says now", body)
	}
	if resp, body := w.ask(t, "GET", "/page?a=1"); body != "1 GET /page?a=1 x= " {
		t.Errorf("a purge of another URL: got %q, %s; want the stored one", body, resp.Header.Get("Cache-Status"))
	}
}

func TestFunctionsAddToTheKey(t *testing.T) {
	o := &echo{}
	w := withFunctions(t, o, []program{{lines: "query mark property nothing\nproperty seawall.cache.key one\n"}}, nil, nil)
	if _, body := w.ask(t, "GET", "/a"); body != "1 GET /a x= " {
		t.Errorf("got %q", body)
	}
	stored, err := w.Stored("http://example.com/a")
	if err != nil || len(stored) != 1 || !strings.Contains(stored[0].Variant, "one") {
		t.Errorf("stored: %+v, %v; want one variant of the part %q", stored, err, "one")
	}
	apply(t, w.Handler, purge.Request{URLs: []string{"http://example.com/a"}})
	if _, body := w.ask(t, "GET", "/a"); body != "2 GET /a x= " {
		t.Errorf("after a purge: got %q", body)
	}
}

func TestFunctionsAnswer(t *testing.T) {
	o := &echo{}
	w := withFunctions(t, o, []program{{lines: "need authorization\nresponse x-seen yes\n"}}, nil, nil)
	o.terms = "public, max-age=60"
	for i, step := range []struct {
		method, token, want, status string
		code                        int
	}{
		{"GET", "", "who are you?\n", "seawall; detail=function", 401},
		{"HEAD", "", "", "seawall; detail=function", 401},
		{"GET", "Bearer a", "1 GET /a x= ", "seawall; fwd=uri-miss; stored", 200},
		{"GET", "Bearer b", "1 GET /a x= ", "seawall; hit; ttl=", 200},
		{"GET", "", "who are you?\n", "seawall; detail=function", 401},
	} {
		var fields []string
		if step.token != "" {
			fields = []string{"Authorization", step.token}
		}
		resp, body := w.ask(t, step.method, "/a", fields...)
		if resp.StatusCode != step.code || body != step.want || !strings.HasPrefix(resp.Header.Get("Cache-Status"), step.status) {
			t.Errorf("step %d: got %d %q %q; want %d %q %q", i, resp.StatusCode, body, resp.Header.Get("Cache-Status"), step.code, step.want, step.status)
		}
		if step.code == 200 && resp.Header.Get("X-Seen") != "yes" {
			t.Errorf("step %d: the response passed by the function unseen: %v", i, resp.Header)
		}
	}
	if n := o.count(); n != 1 {
		t.Errorf("the origin was asked %d times, want 1", n)
	}
}

// Credentials that a function took away, as jwt does, still ask the origin's
// permission before one person's response is everybody's (RFC 9111, 3.5).
func TestFunctionsTakeCredentialsAway(t *testing.T) {
	for _, test := range []struct{ field, terms, modified, want string }{
		{"Authorization", "max-age=60", "", "seawall; fwd="},
		{"Authorization", "no-transform", "Sat, 01 Jan 2000 00:00:00 GMT", "seawall; fwd="},
		{"Authorization", "public, max-age=60", "", "seawall; hit"},
		{"Cookie", "no-transform", "Sat, 01 Jan 2000 00:00:00 GMT", "seawall; fwd="},
		{"Cookie", "max-age=60", "", "seawall; hit"},
		{"X-Token", "no-transform", "Sat, 01 Jan 2000 00:00:00 GMT", "seawall; hit"},
	} {
		t.Run(test.field+" "+test.terms, func(t *testing.T) {
			o := &echo{}
			if o.terms = test.terms; test.modified != "" {
				o.more = []string{"Last-Modified", test.modified}
			}
			w := withFunctions(t, o, []program{{lines: "need " + test.field + "\ndrop " + test.field + "\n"}}, nil, nil)
			for i, want := range []string{"seawall; fwd=", test.want} {
				resp, body := w.ask(t, "GET", "/a", test.field, "a=b")
				if got := resp.Header.Get("Cache-Status"); resp.StatusCode != 200 || !strings.HasPrefix(got, want) {
					t.Errorf("request %d: got %d %q %q, want 200 %q", i, resp.StatusCode, body, got, want)
				}
			}
		})
	}
}

func TestFunctionsSeeEveryResponse(t *testing.T) {
	o := &echo{more: []string{"Etag", `"one"`}}
	w := withFunctions(t, o, []program{{lines: "response x-seen yes\nresponse connection x-seen\nresponse via nobody\n"}}, nil, nil)
	for i, step := range []struct {
		method, target string
		fields         []string
		code           int
		content        string
	}{
		{"GET", "/a", nil, 200, "1 GET /a x= "},
		{"GET", "/a", nil, 200, "1 GET /a x= "},
		{"HEAD", "/a", nil, 200, ""},
		{"GET", "/a", []string{"If-None-Match", `"one"`}, 304, ""},
		{"GET", "/a", []string{"Range", "bytes=2-4"}, 206, "GET"},
		{"POST", "/a", nil, 200, "2 POST /a x= "},
		{"GET", "/" + strings.Repeat("x", 9000), nil, 414, "414 Request URI Too Long\n"},
	} {
		resp, body := w.ask(t, step.method, step.target, step.fields...)
		seen := resp.Header.Get("X-Seen") == "yes"
		if step.code == 414 {
			seen = true // refused before any function
		}
		if resp.StatusCode != step.code || body != step.content || !seen {
			t.Errorf("step %d: %s %.20s: got %d %q, seen %v; want %d %q", i, step.method, step.target, resp.StatusCode, body, seen, step.code, step.content)
		}
	}
}

func TestFunctionsChangeContent(t *testing.T) {
	long := strings.Repeat("a line of text\n", 20_000)
	o := rt(func(r *http.Request) (*http.Response, error) {
		switch r.RequestURI {
		case "/long":
			return resp(r, long, "Cache-Control", "max-age=60", "Etag", `"long"`), nil
		case "/trailer":
			q := resp(r, "body", "Cache-Control", "max-age=60")
			q.ContentLength, q.Trailer = -1, http.Header{"X-Sum": {"4"}}
			return q, nil
		case "/broken":
			q := resp(r, "part", "Cache-Control", "no-store")
			q.ContentLength = 100
			q.Body = io.NopCloser(io.MultiReader(strings.NewReader("part"), failing{}))
			return q, nil
		}
		return resp(r, "short", "Cache-Control", "no-store"), nil
	})
	w := withFunctions(t, o, []program{{lines: "upper\nresponse x-seen yes\n", content: true}}, nil, nil)
	for i, step := range []struct {
		method, target string
		fields         []string
		code           int
		content, tag   string
	}{
		{"GET", "/long", nil, 200, strings.ToUpper(long), `W/"long"`},
		{"GET", "/long", nil, 200, strings.ToUpper(long), `W/"long"`},
		{"GET", "/long", []string{"Range", "bytes=0-9"}, 200, strings.ToUpper(long), `W/"long"`},
		{"GET", "/long", []string{"If-None-Match", `W/"long"`}, 304, "", `W/"long"`},
		{"HEAD", "/long", nil, 200, "", `W/"long"`},
		{"GET", "/short", nil, 200, "SHORT", ""},
		{"GET", "/trailer", nil, 200, "BODY", ""},
		{"GET", "/trailer", nil, 200, "BODY", ""},
	} {
		resp, body := w.ask(t, step.method, step.target, step.fields...)
		if resp.StatusCode != step.code || body != step.content || resp.Header.Get("Etag") != step.tag || resp.Header.Get("X-Seen") != "yes" {
			t.Errorf("step %d: %s %s %v: got %d, %d bytes, %v; want %d, %d bytes, %s", i, step.method, step.target, step.fields,
				resp.StatusCode, len(body), resp.Header, step.code, len(step.content), step.tag)
		}
		if step.target == "/trailer" && resp.Trailer.Get("X-Sum") != "4" {
			t.Errorf("step %d: trailers %v, want X-Sum", i, resp.Trailer)
		}
	}
	server := httptest.NewServer(w.Handler)
	defer server.Close()
	resp, err := http.Get(server.URL + "/broken")
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	if err == nil {
		t.Error("a response that broke off at the origin ended cleanly at the client")
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// What functions of the origin's side make of a response is what is stored.
func TestOriginFunctionsBeforeStoring(t *testing.T) {
	for _, c := range []struct {
		name, lines, terms string
		first, second      string // the start of Cache-Status
		body               string
	}{
		{"request", "request x-function added\nrequest :path /other?q\n", "max-age=60", "seawall; fwd=uri-miss; stored", "seawall; hit", "1 GET /other?q x=added "},
		{"response", "response x-made here\n", "max-age=60", "seawall; fwd=uri-miss; stored", "seawall; hit", "1 GET /a x= "},
		{"ttl", "seconds seawall.cache.ttl 30\n", "", "seawall; fwd=uri-miss; stored", "seawall; hit; ttl=", "1 GET /a x= "},
		{"ttl never", "seconds seawall.cache.ttl 30\n", "no-store", "seawall; fwd=uri-miss", "seawall; fwd=uri-miss", "2 GET /a x= "},
		{"tags", "origin seawall.cache.tags blue,red\n", "max-age=60", "seawall; fwd=uri-miss; stored", "seawall; hit", "1 GET /a x= "},
		{"answer", "answer 404 nothing\nresponse cache-control max-age=60\n", "max-age=60", "seawall; fwd=uri-miss; stored", "seawall; hit", "nothing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := &echo{terms: c.terms}
			w := withFunctions(t, o, nil, []program{{lines: c.lines}}, nil)
			resp1, _ := w.ask(t, "GET", "/a")
			resp2, body := w.ask(t, "GET", "/a")
			for range 100 { // the fetch may end a little after its answer has
				if !strings.Contains(resp2.Header.Get("Cache-Status"), "collapsed") {
					break
				}
				resp2, body = w.ask(t, "GET", "/a")
			}
			if !strings.HasPrefix(resp1.Header.Get("Cache-Status"), c.first) || !strings.HasPrefix(resp2.Header.Get("Cache-Status"), c.second) || body != c.body {
				t.Errorf("got %q, then %q %q; want %q, then %q %q", resp1.Header.Get("Cache-Status"), resp2.Header.Get("Cache-Status"), body, c.first, c.second, c.body)
			}
			if c.name == "response" && (resp1.Header.Get("X-Made") != "here" || resp2.Header.Get("X-Made") != "here") {
				t.Errorf("x-made: %q, then %q", resp1.Header.Get("X-Made"), resp2.Header.Get("X-Made"))
			}
			if _, left, _ := strings.Cut(resp2.Header.Get("Cache-Status"), "ttl="); c.name == "ttl" {
				if ttl, err := strconv.Atoi(left); err != nil || ttl > 30 {
					t.Errorf("ttl %q, want at most 30", left)
				}
			}
			if c.name == "tags" {
				apply(t, w.Handler, purge.Request{Tags: []string{"red"}})
				if _, body := w.ask(t, "GET", "/a"); body != "2 GET /a x= " {
					t.Errorf("after a purge of a tag that a function gave: %q", body)
				}
			}
		})
	}
}

func TestOriginFunctionsChangeContent(t *testing.T) {
	o := &echo{}
	w := withFunctions(t, o, nil, []program{{lines: "upper\n", content: true}}, nil)
	for i, want := range []string{"1 GET /A X= ", "1 GET /A X= "} {
		if _, body := w.ask(t, "GET", "/a"); body != want {
			t.Errorf("%d: got %q, want %q", i, body, want)
		}
	}
	if resp, body := w.ask(t, "GET", "/a", "Range", "bytes=2-4"); resp.StatusCode != 206 || body != "GET" {
		t.Errorf("a range of what was stored: %d %q", resp.StatusCode, body)
	}
	if _, body := w.send(t, "POST", "/a", "some content"); body != "2 POST /A X= SOME CONTENT" {
		t.Errorf("POST: got %q", body)
	}
}

func TestFunctionsThatFail(t *testing.T) {
	for _, c := range []struct {
		name           string
		viewer, origin []program
		code           int
		want           string
	}{
		{"request, closed", []program{{lines: "trap request /a\n"}}, nil, 503, "503 Service Unavailable\n"},
		{"request, open", []program{{lines: "trap request /a\n", open: true}}, nil, 200, "1 GET /a x= "},
		{"response, closed", []program{{lines: "trap response /a\n"}}, nil, 503, "503 Service Unavailable\n"},
		{"response, open", []program{{lines: "trap response /a\n", open: true}}, nil, 200, "1 GET /a x= "},
		{"origin request, closed", nil, []program{{lines: "trap request /a\n"}}, 503, "503 Service Unavailable\n"},
		{"origin response, closed", nil, []program{{lines: "trap response /a\n"}}, 503, "503 Service Unavailable\n"},
		{"origin response, open", nil, []program{{lines: "trap response /a\n", open: true}}, 200, "1 GET /a x= "},
		{"leaves its site", []program{{lines: "request :authority other.example\n"}}, nil, 503, "503 Service Unavailable\n"},
		{"path without a slash", []program{{lines: "request :path nothing\n"}}, nil, 200, "1 GET /a x= "},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := &echo{}
			w := withFunctions(t, o, c.viewer, c.origin, func(c *Config) { c.Sites[0].Hosts = []string{"example.com"} })
			resp, body := w.ask(t, "GET", "/a")
			if resp.StatusCode != c.code || body != c.want {
				t.Errorf("got %d %q, want %d %q", resp.StatusCode, body, c.code, c.want)
			}
			if c.code == 503 && !strings.Contains(resp.Header.Get("Proxy-Status"), "proxy_internal_error") {
				t.Errorf("Proxy-Status %q", resp.Header.Get("Proxy-Status"))
			}
		})
	}
}

// Content goes through to the origin, whatever functions look at.
func TestFunctionsLetContentThrough(t *testing.T) {
	o := &echo{}
	w := withFunctions(t, o, []program{{lines: "request x-function yes\n", content: true}}, []program{{lines: ""}}, nil)
	content := strings.Repeat("content ", 50_000)
	if _, body := w.send(t, "POST", "/a", content); body != strings.ToUpper("1 POST /a x=yes "+content) && body != "1 POST /a x=yes "+content {
		t.Errorf("got %d bytes, %.40q", len(body), body)
	}
}

// No function can let a request go in circles.
func TestFunctionsCannotHideLoops(t *testing.T) {
	var got http.Header
	o := rt(func(r *http.Request) (*http.Response, error) {
		got = r.Header.Clone()
		return resp(r, "x"), nil
	})
	const hides = "request cdn-loop nobody\nrequest via nobody\n"
	for name, list := range map[string][]program{
		"one":                      {{lines: hides}},
		"the first of two":         {{lines: hides}, {lines: ""}},
		"the second of two":        {{lines: ""}, {lines: hides}},
		"on a copy":                {{lines: hides, open: true}},
		"on a copy, then in place": {{lines: hides, open: true}, {lines: hides}},
		"nobody changes anything":  {{lines: ""}, {lines: "", open: true}},
		"in place, then on a copy": {{lines: hides}, {lines: hides, open: true}},
	} {
		got = nil
		w := withFunctions(t, o, list, nil, nil)
		w.ask(t, "GET", "/a", "CDN-Loop", "other", "Via", "1.1 other")
		if loop, via := got.Get("Cdn-Loop"), got.Get("Via"); loop != "other, seawall; node=seawall" || via != "1.1 other, 1.1 seawall" {
			t.Errorf("%s: CDN-Loop %q, Via %q", name, loop, via)
		}
	}
}

// A function's answer does not wait for content that never comes.
func TestFunctionsAnswerWithoutContent(t *testing.T) {
	w := withFunctions(t, &echo{}, []program{{lines: "need authorization\n"}}, nil, nil)
	server := httptest.NewServer(w.Handler)
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, "POST /a HTTP/1.1\r\nHost: example.com\r\nContent-Length: 100\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || !strings.Contains(line, "401") {
		t.Errorf("got %q, %v; want 401", line, err)
	}
}

// A function at the origin's response cannot make an empty response of a
// confirmation.
func TestOriginFunctionsLeaveConfirmations(t *testing.T) {
	asked := 0
	o := rt(func(r *http.Request) (*http.Response, error) {
		asked++
		q := resp(r, "stored", "Cache-Control", "max-age=0", "Etag", `"one"`)
		if r.Header.Get("If-None-Match") != "" {
			q.StatusCode, q.Body, q.ContentLength = 304, http.NoBody, 0
		}
		return q, nil
	})
	w := withFunctions(t, o, nil, []program{{lines: "response :status 200\n"}}, nil)
	for i := range 3 {
		if resp, body := w.ask(t, "GET", "/a"); resp.StatusCode != 200 || body != "stored" {
			t.Errorf("%d: got %d %q, want 200 %q", i, resp.StatusCode, body, "stored")
		}
	}
	if asked != 3 {
		t.Errorf("the origin was asked %d times, want 3", asked)
	}
}
