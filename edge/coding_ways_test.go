package edge

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"seawall/edge/encode"
)

// way is one way to ask for one page.
type way struct {
	method, accept, span, ifRange, noneMatch string
	since                                    bool
}

func (w way) String() string { return fmt.Sprintf("%+v", struct{ way }{w}.way.fields(time.Time{})) }

func (w way) fields(modified time.Time) http.Header {
	h := http.Header{"Accept-Encoding": {w.accept}}
	for name, value := range map[string]string{"Range": w.span, "If-Range": w.ifRange, "If-None-Match": w.noneMatch} {
		if value != "" {
			h[name] = []string{value}
		}
	}
	if w.since {
		h["If-Modified-Since"] = []string{modified.UTC().Format(http.TimeFormat)}
	}
	return h
}

// ways are all of them.
func ways() (all []way) {
	for _, method := range []string{"GET", "HEAD"} {
		for _, accept := range []string{"br", "gzip;q=0.5, zstd;q=0.1", "", "br, identity;q=0", "identity;q=0", "*;q=0", "deflate"} {
			for _, span := range []string{"", "bytes=5-20", "bytes=-7", "bytes=0-1,9-12", "bytes=999999-", "lines=1-2"} {
				for _, ifRange := range []string{"", `"v1"`, `W/"v1~br"`, `"v0"`} {
					if span == "" && ifRange != "" {
						continue
					}
					for _, tags := range []string{"", `"v1"`, `W/"v1~br"`, `"v0", W/"v1~gz"`, `W/"v1~zst", "v1"`, "*", `"v0"`} {
						all = append(all, way{method, accept, span, ifRange, tags, false})
					}
					all = append(all, way{method, accept, span, ifRange, "", true})
				}
			}
		}
	}
	return all
}

// Method, condition, range and coding in every combination, of what is stored,
// what has just come and what passes through, over both protocols: the answer is
// always one that the client can use and believe.
func TestEveryWayToAskForCodings(t *testing.T) {
	body, modified := page(3000), time.Now().Add(-time.Hour).Truncate(time.Second)
	h := codingHandler(t, rt(func(r *http.Request) (*http.Response, error) {
		if r.Method != "GET" || !strings.HasPrefix(r.Header.Get("Range"), "bytes=") {
			r = r.Clone(r.Context())
			r.Header.Del("Range") // else ServeContent goes by it, or refuses other units
		}
		w := httptest.NewRecorder()
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("Etag", `"v1"`)
		w.Header().Set("Cache-Control", "max-age=3600")
		if strings.HasPrefix(r.URL.Path, "/pass") {
			w.Header().Set("Cache-Control", "no-store")
		}
		http.ServeContent(w, r, "", modified, strings.NewReader(body))
		q := w.Result()
		q.Request = r
		q.ContentLength, _ = strconv.ParseInt(cmp.Or(q.Header.Get("Content-Length"), "-1"), 10, 64)
		return q, nil
	}), nil)
	for _, h2 := range []bool{false, true} {
		server := httptest.NewUnstartedServer(h)
		server.EnableHTTP2 = h2
		server.StartTLS()
		transport := server.Client().Transport.(*http.Transport)
		transport.DisableCompression = true
		for i, w := range ways() {
			for _, path := range []string{"/kept", fmt.Sprint("/new", h2, i), "/pass"} {
				r, _ := http.NewRequest(w.method, server.URL+path, nil)
				r.Header = w.fields(modified)
				res, err := transport.RoundTrip(r)
				if err != nil {
					t.Fatalf("%s %s %v: %v", w.method, path, w, err)
				}
				content, err := io.ReadAll(res.Body)
				res.Body.Close()
				if fault := unusable(w, res, content, body); err != nil || fault != "" {
					t.Errorf("%s %s %s %v: %d %v, %d bytes, %v: %s", res.Proto, w.method, path, w, res.StatusCode, res.Header, len(content), err, fault)
				}
			}
		}
		server.Close()
	}
}

// unusable says what is wrong with an answer, "" if nothing is.
func unusable(w way, res *http.Response, content []byte, body string) string {
	accepted := encode.Accept([]string{w.accept})
	coding := res.Header.Get("Content-Encoding")
	c, known := encode.Parse(cmp.Or(coding, "identity"))
	tag := encode.Tag(`"v1"`, c)
	switch {
	case !known || coding != "" && !accepted.Takes(c):
		return "a coding that the client does not take"
	case w.method == "HEAD" && len(content) > 0:
		return "content for a HEAD"
	case !slices.Contains(strings.Split(res.Header.Get("Vary"), ", "), "Accept-Encoding") && varies(res):
		return "no Vary"
	}
	switch res.StatusCode {
	case http.StatusOK:
		return unusableWhole(w, res, content, body, coding, tag)
	case http.StatusNotModified:
		return unusableUnchanged(w, res, content, accepted)
	case http.StatusPartialContent:
		var first, last int
		_, err := fmt.Sscanf(res.Header.Get("Content-Range"), fmt.Sprintf("bytes %%d-%%d/%d", len(body)), &first, &last)
		single := err == nil && string(content) == body[first:last+1]
		several := strings.HasPrefix(res.Header.Get("Content-Type"), "multipart/byteranges") && bytes.Contains(content, []byte(body[9:13]))
		if w.method != "GET" || coding != "" || !single && !several || res.Header.Get("Etag") != `"v1"` || w.ifRange != "" && w.ifRange != `"v1"` {
			return "a wrong part"
		}
	case http.StatusRequestedRangeNotSatisfiable:
		if w.span != "bytes=999999-" {
			return "a range that can be satisfied"
		}
	default:
		return "a wrong status"
	}
	return ""
}

// varies tells whether an answer must say that the coding was chosen. What the
// origin said without a type could be anything.
func varies(res *http.Response) bool {
	return res.Request.URL.Path == "/kept" || strings.Contains(res.Header.Get("Etag"), "~") || res.Header.Get("Content-Type") == "text/html"
}

func unusableWhole(w way, res *http.Response, content []byte, body, coding, tag string) string {
	length := res.Header.Get("Content-Length")
	switch {
	case res.Header.Get("Etag") != tag:
		return "another coding's tag"
	case res.Header.Get("Content-Range") != "" || coding != "" && res.Header.Get("Accept-Ranges") != "":
		return "ranges of what is coded or whole"
	case w.method == "HEAD":
		if coding == "" && length != strconv.Itoa(len(body)) {
			return "another length than GET's"
		}
		return ""
	case length != "" && length != strconv.Itoa(len(content)):
		return "a wrong length"
	}
	var fault failure
	if got := undo(&fault, coding, content); got != body || fault.failed {
		return "other content"
	}
	return ""
}

func unusableUnchanged(w way, res *http.Response, content []byte, accepted encode.Accepted) string {
	tag := res.Header.Get("Etag")
	switch {
	case len(content) > 0 || res.Header.Get("Content-Encoding") != "" || w.noneMatch == "" && !w.since:
		return "a 304 that is none"
	case w.noneMatch != "" && w.noneMatch != "*" && !strings.Contains(w.noneMatch, strings.TrimPrefix(tag, "W/")):
		return "a tag that the client does not have"
	case tag == `"v1"`:
		return ""
	}
	for _, c := range []encode.Coding{encode.Gzip, encode.Brotli, encode.Zstd} {
		if tag == encode.Tag(`"v1"`, c) && accepted.Takes(c) {
			return ""
		}
	}
	return "the tag of a coding that the client does not take"
}

// failure takes what undo says.
type failure struct {
	testing.TB
	failed bool
}

func (f *failure) Helper()               {}
func (f *failure) Errorf(string, ...any) { f.failed = true }

// Those who hold coders for as long as they like leave some for what is here.
func TestSlowClientsLeaveCodersForWhatIsStored(t *testing.T) {
	body := page(20 << 10)
	coders := encode.NewCoders(4, 0)
	h := codingHandler(t, html(body), func(c *Config) { c.Coders = coders })
	askIn(h, "http://example.com/", "")
	for {
		slow, ok := coders.Acquire(encode.Gzip, encode.Unknown, io.Discard)
		if !ok {
			break
		}
		defer slow.Abort()
	}
	w := askIn(h, "http://example.com/", "br")
	if got := w.Header().Get("Content-Encoding"); got != "br" || undo(t, got, w.Body.Bytes()) != body {
		t.Errorf("Content-Encoding %q, %d bytes; want br", got, w.Body.Len())
	}
}

// A coding tried behind that is no smaller than identity is never sent, and not
// tried again.
func TestCodingTriedBehindThatIsNoSmaller(t *testing.T) {
	h := codingHandler(t, html("a text that is short, short, short"), func(c *Config) {
		c.Sites[0].Encode = &Encode{Policy: encode.Policy{MinSize: -1}, Prefer: []encode.Coding{encode.Gzip, encode.Brotli}}
	})
	askIn(h, "http://example.com/", "br")
	h.wait.Wait()
	var o *Object
	h.Store.Each(func(found *Object) bool { o = found; return false })
	tasks := h.recodable(o)
	r := &recoder{h: h, pace: encode.Share(1)}
	for _, task := range tasks {
		r.recode(t.Context(), task)
	}
	if f := o.Forms.At(int(encode.Gzip)); len(tasks) != 2 || f == nil || f.Body != nil {
		t.Errorf("%d tasks left gzip %+v; want two and a mark", len(tasks), f)
	}
	if again := h.recodable(o); len(again) != 0 {
		t.Errorf("%+v are to be made again", again)
	}
	if w := askIn(h, "http://example.com/", "gzip"); w.Header().Get("Content-Encoding") != "" {
		t.Errorf("sent %v", w.Header())
	}
}

// Functions may take away what tells one client from another, once they have
// read it: the page is that client's alone nevertheless.
func TestFunctionsDoNotMakeAResponseAnybodys(t *testing.T) {
	body := page(20 << 10)
	origin := html(body)
	origin.header.Set("Cache-Control", "no-store")
	w := withFunctions(t, origin, []program{{lines: "drop authorization\n"}}, nil, func(c *Config) { c.Sites[0].Encode = new(Encode) })
	for _, step := range []struct{ token, coding string }{{"Bearer a", ""}, {"", "zstd"}} {
		fields := []string{"Accept-Encoding", "zstd"}
		if step.token != "" {
			fields = append(fields, "Authorization", step.token)
		}
		if resp, _ := w.ask(t, "GET", "/a", fields...); resp.Header.Get("Content-Encoding") != step.coding {
			t.Errorf("token %q: Content-Encoding %q, want %q", step.token, resp.Header.Get("Content-Encoding"), step.coding)
		}
	}
}

// Trailers come behind a short coding also when all of it was here at once.
func TestTrailersBehindAShortCoding(t *testing.T) {
	h := codingHandler(t, rt(func(r *http.Request) (*http.Response, error) {
		q := resp(r, page(1000), "Cache-Control", "max-age=60", "Content-Type", "text/html")
		q.ContentLength, q.Trailer = -1, http.Header{"X-Sum": {"4"}}
		return q, nil
	}), nil)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(lateHead{w, h.wait.Wait}, r)
	}))
	defer server.Close()
	for i := range 4 {
		for range 2 {
			r, _ := http.NewRequest("GET", fmt.Sprint(server.URL, "/", i), nil)
			r.Header.Set("Accept-Encoding", []string{"br", "identity"}[i%2])
			res, err := server.Client().Transport.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			content, err := io.ReadAll(res.Body)
			res.Body.Close()
			if undo(t, res.Header.Get("Content-Encoding"), content) != page(1000) || err != nil || res.Trailer.Get("X-Sum") != "4" {
				t.Fatalf("%d: %v, %d bytes, %v, trailers %v; want X-Sum", i, res.Header, len(content), err, res.Trailer)
			}
		}
	}
}

// lateHead sends the header when all that was on its way has come.
type lateHead struct {
	http.ResponseWriter
	wait func()
}

func (w lateHead) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w lateHead) WriteHeader(status int) {
	w.wait()
	w.ResponseWriter.WriteHeader(status)
}
