package edge

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// BenchmarkMiss is a whole walk through ServeHTTP that asks the origin: for
// something new that is stored, something new that may not be shared, something
// stale that the origin confirms, and what is never looked up. The origin's own
// allocations, six of them, are counted.
func BenchmarkMiss(b *testing.B) {
	for _, test := range []struct {
		name, method, control, status string
		size                          int
		same                          bool // every request is for one key
	}{
		{"stored-1k", "GET", "max-age=3600", "fwd=uri-miss; stored", 1 << 10, false},
		{"stored-16k", "GET", "max-age=3600", "fwd=uri-miss; stored", 16 << 10, false},
		{"private", "GET", "private", "fwd=uri-miss", 1 << 10, false},
		{"private-again", "GET", "private", "fwd=uri-miss", 1 << 10, true},
		{"confirmed", "GET", "max-age=0", "fwd=stale", 1 << 10, true},
		{"pass", "OPTIONS", "max-age=3600", "fwd=method", 1 << 10, true},
	} {
		b.Run(test.name, func(b *testing.B) {
			h := missHandler(b, answers{header: http.Header{
				"Cache-Control": {test.control}, "Content-Type": {"text/html"}, "Etag": {`"v1"`},
				"Date": {"Thu, 01 Jan 2026 00:00:00 GMT"}, "Last-Modified": {"Thu, 01 Jan 2026 00:00:00 GMT"},
			}, body: strings.Repeat("x", test.size)})
			r := request(0)
			r.Method = test.method
			w := &sink{h: http.Header{}}
			if test.same {
				h.ServeHTTP(w, r)
			}
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				if n++; !test.same {
					r.RequestURI = fmt.Sprintf("/some/path/of/usual/length/%d.html?version=3", n)
				}
				clear(w.h)
				h.ServeHTTP(w, r)
			}
			if got := w.h["Cache-Status"]; w.status != 200 || len(got) != 1 || !strings.Contains(got[0], test.status) {
				b.Fatalf("status %d, Cache-Status %v, want 200 and %s", w.status, got, test.status)
			}
		})
	}
}

// confirming answers as answers does, and conditional requests with 304.
type confirming struct{ answers }

func (c confirming) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := c.answers.RoundTrip(r)
	if len(r.Header["If-None-Match"]) > 0 {
		resp.StatusCode, resp.Body, resp.ContentLength = http.StatusNotModified, http.NoBody, 0
	}
	return resp, err
}

func missHandler(b *testing.B, a answers) *Handler {
	b.Helper()
	st, err := NewStore(StoreOptions{Memory: 64 << 20})
	if err != nil {
		b.Fatal(err)
	}
	h, err := New(Config{Store: st, Sites: []Site{{Name: "bench", Origin: confirming{a}}}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { h.Close(); st.Close() })
	return h
}
