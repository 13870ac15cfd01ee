package edge

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"seawall/edge/rfc9111"
)

// answers is an origin that answers every request with the same.
type answers struct {
	header http.Header
	body   string
}

func (a answers) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: 200, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: a.header.Clone(),
		Body: io.NopCloser(strings.NewReader(a.body)), ContentLength: int64(len(a.body)), Request: r,
	}, nil
}

// sink is a ResponseWriter that keeps nothing but the header map, as net/http
// hands a new one to every request.
type sink struct {
	h      http.Header
	status int
	n      int
}

func (s *sink) Header() http.Header         { return s.h }
func (s *sink) WriteHeader(status int)      { s.status = status }
func (s *sink) Write(p []byte) (int, error) { s.n += len(p); return len(p), nil }

func benchHandler(b testing.TB) *Handler {
	b.Helper()
	st, err := NewStore(StoreOptions{Memory: 256 << 20})
	if err != nil {
		b.Fatal(err)
	}
	h, err := New(Config{Store: st, Sites: []Site{{Name: "bench", Origin: answers{
		header: http.Header{
			"Cache-Control": {"max-age=3600"}, "Content-Type": {"text/html"}, "Etag": {`"v1"`},
			"Date": {time.Now().UTC().Format(http.TimeFormat)}, "Vary": {"Accept-Encoding"},
			"Last-Modified": {"Mon, 02 Jan 2006 15:04:05 GMT"},
		},
		body: strings.Repeat("x", 1024),
	}}}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { h.Close(); st.Close() })
	return h
}

func request(i int) *http.Request {
	target := fmt.Sprintf("/some/path/of/usual/length/%d.html?version=3", i)
	r, _ := http.NewRequest("GET", "http://www.example.com"+target, nil)
	r.RequestURI = target
	r.RemoteAddr = "127.0.0.1:50000"
	r.Header = http.Header{
		"User-Agent": {"Mozilla/5.0 (X11; Linux x86_64)"}, "Accept": {"*/*"},
		"Accept-Encoding": {"gzip, br"}, "Accept-Language": {"en"},
	}
	return r
}

// BenchmarkHit is a whole hit through ServeHTTP. The header map is emptied,
// not made anew: what is left are the allocations of the node's own.
func BenchmarkHit(b *testing.B) {
	for _, keys := range []int{1, 10000} {
		b.Run(fmt.Sprintf("keys=%d", keys), func(b *testing.B) {
			h := benchHandler(b)
			requests := make([]*http.Request, keys)
			for i := range requests {
				requests[i] = request(i)
				h.ServeHTTP(&sink{h: http.Header{}}, requests[i])
			}
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				w := &sink{h: http.Header{}}
				for i := 0; pb.Next(); i++ {
					clear(w.h)
					h.ServeHTTP(w, requests[i%keys])
					if cs := w.h["Cache-Status"]; w.status != 200 || !strings.HasPrefix(cs[0], "seawall; hit") {
						b.Fatalf("status %d, Cache-Status %v", w.status, cs)
					}
				}
			})
		})
	}
}

func BenchmarkKey(b *testing.B) {
	b.ReportAllocs()
	var key []byte
	for b.Loop() {
		path, query, _ := splitTarget("/some/path/of/usual/length/7.html?version=3")
		key = appendKey(key[:0], "http", normalHost("http", "www.example.com"), normalPath(path), query)
	}
}

func BenchmarkLookup(b *testing.B) {
	h := benchHandler(b)
	r := request(1)
	h.ServeHTTP(&sink{h: http.Header{}}, r)
	x := h.begin(&sink{h: http.Header{}}, r)
	if !x.admit() {
		b.Fatal("refused")
	}
	b.ReportAllocs()
	for b.Loop() {
		if got := x.lookup(); got != Hit {
			b.Fatal(got)
		}
	}
}

func BenchmarkFreshness(b *testing.B) {
	now := time.Now()
	t := rfc9111.Terms{Born: now.Add(-time.Second), Lifetime: time.Minute}
	b.ReportAllocs()
	for b.Loop() {
		if !t.Fresh(now) || t.MayServeStale(now) {
			b.Fatal("not fresh")
		}
	}
}

// TestHitAllocatesNothingOfItsOwn holds the figure that the benchmarks show.
func TestHitAllocatesNothingOfItsOwn(t *testing.T) {
	if raced {
		t.Skip("the race detector takes pooled exchanges away")
	}
	h := benchHandler(t)
	r := request(1)
	h.ServeHTTP(&sink{h: http.Header{}}, r)
	w := &sink{h: http.Header{}}
	if n := testing.AllocsPerRun(1000, func() {
		clear(w.h)
		h.ServeHTTP(w, r)
	}); n > 0 {
		t.Errorf("a hit allocates %v times, want none", n)
	}
}

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if builtGuests.cache != "" {
			os.RemoveAll(builtGuests.cache)
		}
		os.Exit(code)
	}))
}

// BenchmarkHitWithVary is a hit on one of four variants, with the preferences as
// the origin's answer had them, in another order, and as the site reduces them.
func BenchmarkHitWithVary(b *testing.B) {
	for _, test := range []struct {
		name, next string
		vary       Vary
	}{
		{"same", "en-GB,en;q=0.9,fr;q=0.8", Vary{}},
		{"reordered", "fr;q=0.8, en;q=0.9, en-gb", Vary{}},
		{"reduced", "en-GB,en;q=0.9,fr;q=0.8", Vary{Languages: []string{"en", "de"}}},
	} {
		b.Run(test.name, func(b *testing.B) {
			st, err := NewStore(StoreOptions{Memory: 16 << 20})
			if err != nil {
				b.Fatal(err)
			}
			h, err := New(Config{Store: st, Sites: []Site{{Name: "bench", Cache: Cache{Vary: test.vary}, Origin: answers{
				header: http.Header{"Cache-Control": {"max-age=3600"}, "Vary": {"Accept-Language, Accept"}}, body: "b",
			}}}})
			if err != nil {
				b.Fatal(err)
			}
			defer st.Close()
			defer h.Close()
			r := request(1)
			for _, field := range []string{"en-GB,en;q=0.9,fr;q=0.8", "de", "ja", ""} {
				r.Header["Accept-Language"] = []string{field}
				h.ServeHTTP(&sink{h: http.Header{}}, r)
			}
			r.Header["Accept-Language"] = []string{test.next}
			w := &sink{h: http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				clear(w.h)
				h.ServeHTTP(w, r)
			}
			if cs := w.h["Cache-Status"]; !strings.HasPrefix(cs[0], "seawall; hit") {
				b.Fatalf("Cache-Status %v, want a hit", cs)
			}
		})
	}
}
