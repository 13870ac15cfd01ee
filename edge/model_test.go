package edge

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"seawall/purge"
)

// The model below says what a client gets, one step after another, with
// purges, pushes and time in between: nothing that was purged, and whatever was
// not purged from the cache still.

const (
	modelLifetime = 60 * time.Second
	modelWindow   = 30 * time.Second // stale-while-revalidate
)

// modelURLs are what is asked for: paths, with a query or none.
func modelURLs() []string { return []string{"/a", "/a/b", "/a/b?q=1", "/ab", "/c", "/c?q=1"} }

// modelTags are the tags of a URL's responses.
func modelTags(url string) []string {
	return []string{"all", "len" + strconv.Itoa(len(url)%3)}
}

// counting is an origin with one version of everything.
type counting struct{ version int }

func (c *counting) RoundTrip(r *http.Request) (*http.Response, error) {
	header := modelHeader(r.RequestURI, c.version)
	status, content := http.StatusOK, strconv.Itoa(c.version)
	if r.Header.Get("If-None-Match") == header.Get("ETag") {
		status, content = http.StatusNotModified, ""
	}
	return &http.Response{
		StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: header,
		Body: io.NopCloser(strings.NewReader(content)), ContentLength: int64(len(content)), Request: r,
	}, nil
}

func modelHeader(url string, version int) http.Header {
	return http.Header{
		"Cache-Control": {"max-age=60, stale-while-revalidate=30"}, "Etag": {fmt.Sprintf(`"%d"`, version)},
		"Surrogate-Key": {strings.Join(modelTags(url), " ")},
	}
}

// kept is what the model says is stored for a URL.
type kept struct {
	version int
	until   time.Time // stale from then
	doubt   bool
}

// model runs the node beside what it should be.
type model struct {
	h      *Handler
	rules  *purge.Rules
	sweep  *Sweep
	origin *counting
	kept   map[string]*kept
}

func (m *model) fetched(url string) {
	m.kept[url] = &kept{version: m.origin.version, until: time.Now().Add(modelLifetime)}
}

// get asks for a URL and holds the answer to the model.
func (m *model) get(rt *rapid.T, url string) {
	now, k := time.Now(), m.kept[url]
	want, word := m.origin.version, "miss"
	switch {
	case k == nil:
		m.fetched(url)
	case !k.doubt && now.Before(k.until):
		want, word = k.version, "hit"
	case !k.doubt && now.Before(k.until.Add(modelWindow)):
		want, word = k.version, "stale"
		m.fetched(url) // behind
	default:
		word = "validated"
		m.fetched(url)
	}
	req := httptest.NewRequest(http.MethodGet, "http://example.com"+url, nil)
	req.RequestURI = url
	w := httptest.NewRecorder()
	m.h.ServeHTTP(w, req)
	synctest.Wait()
	if got := w.Body.String(); w.Code != http.StatusOK || got != strconv.Itoa(want) {
		rt.Fatalf("get %s: %d %q (%s); want %d (%s)", url, w.Code, got, w.Header().Get("Cache-Status"), want, word)
	}
	hit := strings.HasPrefix(w.Header().Get("Cache-Status"), "seawall; hit")
	if want := word == "hit" || word == "stale"; hit != want {
		rt.Fatalf("get %s: %s; want it to be a %s", url, w.Header().Get("Cache-Status"), word)
	}
}

// purge draws a purge, applies it, and changes what is kept by it.
func (m *model) purge(rt *rapid.T) {
	r := purge.Request{Site: "s", Soft: rapid.Bool().Draw(rt, "soft")}
	url := rapid.SampledFrom(modelURLs()).Draw(rt, "url")
	path, _, _ := strings.Cut(url, "?")
	var matches func(string) bool
	switch rapid.SampledFrom([]string{"url", "path", "prefix", "tag", "everything", "host", "nothing"}).Draw(rt, "kind") {
	case "url":
		r.URLs = []string{"http://example.com" + url}
		matches = func(u string) bool { return u == url }
	case "path":
		r.URLs, r.AnyQuery = []string{"http://example.com" + url}, true
		matches = func(u string) bool { p, _, _ := strings.Cut(u, "?"); return p == path }
	case "prefix":
		r.Prefixes = []string{"example.com" + path}
		matches = func(u string) bool {
			p, _, _ := strings.Cut(u, "?")
			return p == path || strings.HasPrefix(p, path+"/")
		}
	case "tag":
		r.Tags = []string{"len" + strconv.Itoa(len(url)%3)}
		matches = func(u string) bool { return len(u)%3 == len(url)%3 }
	case "everything":
		r.Everything = true
		matches = func(string) bool { return true }
	case "host":
		r.Hosts = []string{"example.com:80"}
		matches = func(string) bool { return true }
	case "nothing":
		r.Tags, r.Prefixes, r.Hosts = []string{"none"}, []string{"https://example.com/"}, []string{"example.net"}
		matches = func(string) bool { return false }
	}
	p, faults := purge.Prepare(r, m.h.Normal)
	if faults != nil {
		rt.Fatalf("prepare %+v: %v", r, faults[0])
	}
	count := 0
	for u := range m.kept {
		if matches(u) {
			count++
		}
	}
	if got, err := m.h.Match(context.Background(), p); err != nil || got.Objects != count {
		rt.Fatalf("match %+v: %d objects, %v; want %d", r, got.Objects, err, count)
	}
	m.rules.Apply(p, time.Now())
	for u, k := range m.kept {
		switch {
		case !matches(u):
		case !r.Soft:
			delete(m.kept, u)
		case time.Now().Before(k.until):
			k.until = time.Now()
		}
	}
}

// push brings the present version, or the one before.
func (m *model) push(rt *rapid.T) {
	url := rapid.SampledFrom(modelURLs()).Draw(rt, "url")
	version := m.origin.version + 1000
	body := strconv.Itoa(version)
	_, err := m.h.Push(context.Background(), Push{
		URL: "http://example.com" + url, Header: modelHeader(url, version), Body: strings.NewReader(body), Size: int64(len(body)),
	})
	if err != nil {
		rt.Fatalf("push %s: %v", url, err)
	}
	m.kept[url] = &kept{version: version, until: time.Now().Add(modelLifetime)}
}

func (m *model) steps() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"get":   func(rt *rapid.T) { m.get(rt, rapid.SampledFrom(modelURLs()).Draw(rt, "url")) },
		"again": func(rt *rapid.T) { m.get(rt, rapid.SampledFrom(modelURLs()).Draw(rt, "url")) },
		"write": func(*rapid.T) { m.origin.version++ },
		"purge": m.purge,
		"push":  m.push,
		"sleep": func(rt *rapid.T) { time.Sleep(time.Duration(rapid.IntRange(1, 50).Draw(rt, "seconds")) * time.Second) },
		"sweep": func(*rapid.T) { m.sweep.Pass(context.Background()) },
		"doubt": func(*rapid.T) {
			m.rules.Doubt(time.Now())
			for _, k := range m.kept {
				k.doubt = true
			}
		},
		"evict": func(rt *rapid.T) {
			url := rapid.SampledFrom(modelURLs()).Draw(rt, "url")
			m.h.Store.Each(func(o *Object) bool {
				if o.Key == "http://example.com"+url {
					m.h.Store.Discard(o)
				}
				return true
			})
			delete(m.kept, url)
		},
	}
}

func TestPurgesTakeWhatTheyNameAndNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// Without T's Deadline, which may not be called in a bubble.
		rapid.Check(struct{ rapid.TB }{t}, func(rt *rapid.T) {
			m := &model{origin: &counting{}, rules: purge.NewRules(0), kept: map[string]*kept{}}
			m.h = purgeable(t, m.rules, m.origin, nil)
			m.sweep = NewSweep(m.h.Store, m.rules, nil)
			defer m.h.Store.Close()
			defer m.h.Close()
			rt.Repeat(m.steps())
		})
	})
}
