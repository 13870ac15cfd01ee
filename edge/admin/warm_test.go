package admin

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
)

// warmed asks for a warm-up and returns how it ended.
func warmed(t *testing.T, h *Handler, body string, change func(*http.Request)) warmupBody {
	t.Helper()
	w := askBody(h, "POST", "/v1/warmups", body, change)
	var b warmupBody
	if err := json.Unmarshal(w.Body.Bytes(), &b); err != nil || w.Code != 202 || w.Header().Get("Location") != "/v1/warmups/"+b.ID {
		t.Fatalf("%s: got %d %s, %v", body, w.Code, w.Body, err)
	}
	return ended(t, h, b.ID, change)
}

// ended waits for the end of a warm-up.
func ended(t *testing.T, h *Handler, id string, change func(*http.Request)) warmupBody {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; <-time.After(time.Millisecond) {
		w := askBody(h, "GET", "/v1/warmups/"+id, "", change)
		var b warmupBody
		if err := json.Unmarshal(w.Body.Bytes(), &b); err != nil || w.Code != 200 {
			t.Fatalf("%s: got %d %s, %v", id, w.Code, w.Body, err)
		}
		if b.State != "running" {
			return b
		}
		if time.Now().After(deadline) {
			t.Fatalf("after 20 s: %+v", b)
		}
	}
}

func TestWarmupOfAList(t *testing.T) {
	n := new(fakeNode)
	h := n.handler(t, Access{})
	b := warmed(t, h, `{"urls":["http://a.example/1","http://b.example/gone","http://a.example/panic","http://a.example/2"],"concurrency":2}`, nil)
	if b.State != "done" || !b.Listed || b.Total != 4 || b.Done != 4 || b.Stored != 2 || b.Failed != 2 || b.Bytes != 20 || b.Outcomes["miss"] != 3 || b.Outcomes["error"] != 1 || b.EndedAt == nil {
		t.Errorf("got %+v", b)
	}
	slices.SortFunc(b.Failures, func(a, b warmupFailure) int { return strings.Compare(a.URL, b.URL) })
	if len(b.Failures) != 2 || !strings.Contains(b.Failures[0].Detail, "gave up") || b.Failures[1] != (warmupFailure{"http://b.example/gone", "status 410"}) {
		t.Errorf("failures: got %+v", b.Failures)
	}
	if w := askBody(h, "GET", "/v1/warmups", "", nil); !strings.Contains(w.Body.String(), `{"warmups":[{"id":"`+b.ID) {
		t.Errorf("the list: got %s", w.Body)
	}
}

func TestWarmupsThatAreNotRight(t *testing.T) {
	for _, c := range []struct {
		name, body string
		change     func(*http.Request)
		status     int
		fields     []string
	}{
		{"nothing", `{}`, nil, 400, []string{"urls: names nothing to warm"}},
		{"a URL of no site", `{"urls":["http://a.example/","http://c.example/"]}`, nil, 400, []string{"urls[1]: has a host of no site"}},
		{"a URL of another site", `{"urls":["http://b.example/"]}`, as("bound"), 400, []string{"urls[0]: is of a site that the token bound is not bound to"}},
		{"a long URL", `{"urls":["http://a.example/` + strings.Repeat("x", maxWarmURL) + `"]}`, nil, 400, []string{"urls[0]: is longer than"}},
		{"too many", `{"urls":` + list(maxWarm+1, "http://a.example/%d") + `}`, nil, 400, []string{"urls: has more than 10000 items"}},
		{"too many at once", `{"urls":["http://a.example/"],"concurrency":65}`, nil, 400, []string{"concurrency: is not a number from 1 to 64"}},
		{"half at once", `{"urls":["http://a.example/"],"concurrency":0.5}`, nil, 400, []string{"concurrency: is a number where a whole number"}},
		{"a sitemap that is none", `{"sitemap":"file:///etc/passwd"}`, nil, 400, []string{"sitemap: is not http"}},
		{"a sitemap with a password", `{"sitemap":"http://u:p@a.example/"}`, nil, 400, []string{"sitemap: is not http"}},
		{"a sitemap of another site", `{"sitemap":"http://127.0.0.1:1/"}`, as("bound"), 400, []string{"sitemap: is of no site that the token is bound to"}},
		{"an unknown field", `{"sitemaps":["http://a.example/"]}`, nil, 400, []string{"sitemaps: is no field"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := new(fakeNode)
			a := Access{}
			if c.change != nil {
				a = testTokens()
			}
			w := askBody(n.handler(t, a), "POST", "/v1/warmups", c.body, c.change)
			checkFields(t, w.Code, w.Body.String(), w.Header().Get("Content-Type"), c.status, c.fields)
			if n.did() != 0 {
				t.Errorf("it warmed %v", n.warmed)
			}
		})
	}
}

// Warm-ups are bounded in number, can be cancelled, and end with the node.
func TestWarmupsAreBounded(t *testing.T) {
	n := &fakeNode{warming: make(chan chan struct{})}
	h := n.handler(t, testTokens())
	var ids []string
	for range runningWarmups {
		w := askBody(h, "POST", "/v1/warmups", `{"urls":["http://a.example/1","http://a.example/2"],"concurrency":1}`, as("bound"))
		var b warmupBody
		if err := json.Unmarshal(w.Body.Bytes(), &b); err != nil || w.Code != 202 {
			t.Fatalf("got %d %s", w.Code, w.Body)
		}
		ids = append(ids, b.ID)
	}
	w := askBody(h, "POST", "/v1/warmups", `{"urls":["http://a.example/1"]}`, as("bound"))
	checkProblem(t, w, 503)
	if w.Header().Get("Retry-After") == "" {
		t.Error("503 without Retry-After")
	}
	if w := askBody(h, "DELETE", "/v1/warmups/"+ids[0], "", as("bound")); w.Code != 204 {
		t.Errorf("DELETE: got %d %s", w.Code, w.Body)
	}
	if b := ended(t, h, ids[0], as("bound")); b.State != "cancelled" {
		t.Errorf("after DELETE: got %+v", b)
	}
	other := testTokens()
	other.Tokens = append(other.Tokens, Token{Name: "other", Hash: testTokens().Tokens[0].Hash, Scopes: ScopeAdmin, Sites: []string{"b"}})
	h.Permit(Access{Tokens: other.Tokens[len(other.Tokens)-1:]})
	if w := askBody(h, "GET", "/v1/warmups/"+ids[1], "", as("reader")); w.Code != 404 {
		t.Errorf("another's warm-up: got %d, want 404", w.Code)
	}
	h.Close() // waits for the others
	h.Permit(Access{})
	if b := ended(t, h, ids[1], nil); b.State != "cancelled" || b.Done > 1 {
		t.Errorf("after the node's end: got %+v", b)
	}
	checkProblem(t, askBody(h, "POST", "/v1/warmups", `{"urls":["http://a.example/1"]}`, nil), 503)
}

func zipped(text string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	io.WriteString(z, text)
	z.Close()
	return b.String()
}

func TestWarmupOfASitemap(t *testing.T) {
	var mux http.ServeMux
	server := httptest.NewServer(&mux)
	defer server.Close()
	serve := func(path, text string) {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text) })
	}
	const set = `<?xml version="1.0" encoding="UTF-8"?><urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">`
	page := func(paths ...string) string {
		text := set
		for _, p := range paths {
			text += "<url>\n<loc> http://a.example" + p + " </loc><lastmod>2024-01-01</lastmod></url>"
		}
		return text + "</urlset>"
	}
	index := func(urls ...string) string {
		text := `<sitemapindex xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">`
		for _, u := range urls {
			text += "<sitemap><loc>" + u + "</loc></sitemap>"
		}
		return text + "</sitemapindex>"
	}
	serve("/plain.xml", page("/1", "/2?a=1&amp;b=2"))
	serve("/cdata.xml", set+`<url><loc><![CDATA[http://a.example/3]]></loc><image:image><image:loc>http://a.example/not</image:loc></image:image></url></urlset>`)
	serve("/zipped.xml.gz", zipped(page("/4")))
	serve("/twice.gz", zipped(zipped(page("/5"))))
	serve("/list.txt", "\ufeffhttp://a.example/6\r\n\nhttp://a.example/7")
	serve("/index.xml", index(server.URL+"/plain.xml", server.URL+"/zipped.xml.gz"))
	serve("/indexes.xml", index(server.URL+"/index.xml"))
	serve("/deep.xml", index(server.URL+"/indexes.xml"))
	serve("/loop.xml", index(server.URL+"/loop.xml"))
	serve("/elsewhere.xml", index("http://c.example/sitemap.xml"))
	serve("/foreign.xml", set+"<url><loc>http://c.example/1</loc></url><url><loc>http://a.example/1</loc></url></urlset>")
	serve("/open.xml", set+"<url><loc>http://a.example/1</loc></url>")
	serve("/nested.xml", strings.Repeat("<urlset>", 1000))
	serve("/crossed.xml", "<urlset><url></urlset></url>")
	serve("/long.xml", set+"<url><loc>"+strings.Repeat("x", maxToken))
	serve("/entities.xml", `<!DOCTYPE x [<!ENTITY a "http://a.example/1">]><urlset><url><loc>&a;</loc></url></urlset>`)
	serve("/page.html", "<!doctype html><html><body>no</body></html>")
	serve("/empty.xml", "")
	serve("/binary", "\x00\x01\x02")
	mux.HandleFunc("/moved.xml", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/plain.xml", http.StatusFound) })
	mux.HandleFunc("/away.xml", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://localhost/plain.xml", http.StatusFound)
	})

	for _, c := range []struct {
		path   string
		warmed []string
		state  string
		detail string
	}{
		{"/plain.xml", []string{"/1", "/2?a=1&b=2"}, "done", ""},
		{"/cdata.xml", []string{"/3"}, "done", ""},
		{"/zipped.xml.gz", []string{"/4"}, "done", ""},
		{"/twice.gz", []string{"/5"}, "done", ""},
		{"/list.txt", []string{"/6", "/7"}, "done", ""},
		{"/index.xml", []string{"/1", "/2?a=1&b=2", "/4"}, "done", ""},
		{"/indexes.xml", []string{"/1", "/2?a=1&b=2", "/4"}, "done", ""},
		{"/moved.xml", []string{"/1", "/2?a=1&b=2"}, "done", ""},
		{"/foreign.xml", []string{"/1"}, "done", ""}, // and one refused
		{"/open.xml", []string{"/1"}, "failed", "is not XML"},
		{"/deep.xml", nil, "failed", "too deep"},
		{"/loop.xml", nil, "failed", "too deep"},
		{"/elsewhere.xml", nil, "failed", "another host"},
		{"/away.xml", nil, "failed", "redirects to another host"},
		{"/nested.xml", nil, "failed", "too deep"},
		{"/crossed.xml", nil, "failed", "closes an element that is not open"},
		{"/long.xml", nil, "failed", "more than 65536 bytes"},
		{"/entities.xml", nil, "failed", "invalid character entity"},
		{"/page.html", nil, "failed", "begins with <html>"},
		{"/empty.xml", nil, "failed", "is empty"},
		{"/binary", nil, "failed", "neither XML nor a list"},
		{"/absent.xml", nil, "failed", "status 404"},
	} {
		t.Run(c.path, func(t *testing.T) {
			n := new(fakeNode)
			b := warmed(t, n.handler(t, Access{}), fmt.Sprintf(`{"sitemap":%q,"concurrency":1}`, server.URL+c.path), nil)
			var want []string
			for _, p := range c.warmed {
				want = append(want, "http://a.example"+p)
			}
			if b.State != c.state || !strings.Contains(b.Detail, c.detail) || !slices.Equal(n.warmed, want) {
				t.Errorf("got %s, %q, %v; want %s, %q, %v", b.State, b.Detail, n.warmed, c.state, c.detail, want)
			}
			if c.path == "/foreign.xml" && (b.Outcomes["refused"] != 1 || b.Failed != 1) {
				t.Errorf("a URL of no site: got %+v", b)
			}
		})
	}
}

// endless is what a hostile server sends.
type endless struct {
	text string
	at   int
}

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = e.text[e.at%len(e.text)]
		e.at++
	}
	return len(p), nil
}

// A sitemap without end is read to the bound, and no URL too many is taken.
func TestSitemapBounds(t *testing.T) {
	for _, c := range []struct {
		name, begins, again, says string
		most                      int // URLs
	}{
		{"too many URLs", "<urlset>", "<url><loc>a</loc></url>", "lists more than 50000", maxSitemapIn},
		{"too many bytes", "<urlset>", "<!-- " + strings.Repeat("x", 1000) + " -->", "larger than 1000000 bytes", 0},
		{"too many bytes of text", "", "http://a.example/" + strings.Repeat("x", 4000) + "\n", "larger than 1000000 bytes", 1000},
		{"a line without end", "http://", "x", "more than 65536 bytes", 0},
		{"a tag without end", "<urlset ", "a='b' ", "more than 65536 bytes", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			seen := 0
			most := 1_000_000
			if c.most == maxSitemapIn {
				most = maxSitemap
			}
			b := &bounded{most: most, in: bufio.NewReader(io.MultiReader(strings.NewReader(c.begins), &endless{text: c.again}))}
			err := readSitemap(b, func(bool, string) error { seen++; return nil })
			if err == nil || !strings.Contains(err.Error(), c.says) || seen > c.most {
				t.Errorf("got %v after %d URLs, want %q after at most %d", err, seen, c.says, c.most)
			}
		})
	}
}

// The addresses of the local link, where clouds keep credentials, are not asked.
func TestSitemapClientKeepsOffTheLocalLink(t *testing.T) {
	s := &sitemaps{client: newSitemapClient()}
	for _, host := range []string{"169.254.169.254", "[fe80::1]", "[::ffff:169.254.169.254]"} {
		err := s.follow(context.Background(), "http://"+host+"/latest", 0)
		if err == nil || !strings.Contains(err.Error(), "local link") {
			t.Errorf("%s: got %v, want a refusal", host, err)
		}
	}
}

// Any bytes are read or refused, within the bounds, without a panic.
func FuzzSitemap(f *testing.F) {
	f.Add("<urlset><url><loc>http://a.example/</loc></url></urlset>")
	f.Add("<sitemapindex><sitemap><loc><![CDATA[x]]></loc></sitemap></sitemapindex>")
	f.Add("http://a.example/\nhttp://b.example/")
	f.Add(zipped("<urlset/>"))
	f.Fuzz(func(t *testing.T, text string) {
		stop := errors.New("enough")
		seen := 0
		b, err := unzip(strings.NewReader(text))
		if err != nil {
			return
		}
		err = readSitemap(b, func(_ bool, loc string) error {
			if seen++; seen > 10 {
				return stop
			}
			if len(loc) > maxToken {
				t.Fatalf("a URL of %d bytes", len(loc))
			}
			return nil
		})
		if (seen > 10) != errors.Is(err, stop) {
			t.Fatalf("%q: %d URLs, and %v", text, seen, err)
		}
	})
}
