//go:build unix

package edge

import (
	"bufio"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// codedRequest asks for one page of 100 KiB in a coding, or for identity.
func codedRequest(accept string) *http.Request {
	r := request(1)
	r.Header["Accept-Encoding"] = []string{accept}
	return r
}

// codedHandler has a page stored in every coding.
func codedHandler(b testing.TB, body string) *Handler {
	b.Helper()
	h := codingHandler(b, html(body), nil)
	for _, accept := range [...]string{"br", "gzip", "zstd", "identity"} {
		h.ServeHTTP(&sink{h: http.Header{}}, codedRequest(accept))
	}
	h.wait.Wait() // the codings end behind their clients
	return h
}

// sameBytes is a node that has the bytes of a coding as identity, with as many
// fields.
func sameBytes(b testing.TB, coded *Handler, coding string) *Handler {
	b.Helper()
	rec := httptest.NewRecorder()
	coded.ServeHTTP(rec, codedRequest(coding))
	same := html(rec.Body.String())
	same.header["Vary"], same.header["X-Coding"] = []string{"Accept-Encoding"}, []string{coding}
	h := codingHandler(b, same, func(c *Config) { c.Sites[0].Encode = nil })
	h.ServeHTTP(&sink{h: http.Header{}}, codedRequest(coding))
	return h
}

// BenchmarkHitCoded counts allocations of a hit on 100 KiB of HTML in each
// coding, and on the very bytes of each coding stored as identity.
func BenchmarkHitCoded(b *testing.B) {
	coded := codedHandler(b, page(100<<10))
	hits := func(h *Handler, r *http.Request) func(b *testing.B) {
		return func(b *testing.B) {
			w := &sink{h: http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				clear(w.h)
				h.ServeHTTP(w, r)
			}
		}
	}
	for _, coding := range [...]string{"br", "gzip", "zstd"} {
		b.Run(coding, hits(coded, codedRequest(coding)))
		b.Run(coding+"-bytes-as-identity", hits(sameBytes(b, coded, coding), codedRequest(coding)))
	}
}

// BenchmarkCodedHitsOverHTTP prints what hits on 100 KiB of HTML in each coding
// take over HTTP/1.1, beside hits on the same bytes stored as identity.
func BenchmarkCodedHitsOverHTTP(b *testing.B) {
	coded := codedHandler(b, page(100<<10))
	for _, coding := range [...]string{"br", "gzip", "zstd"} {
		b.Run(coding, func(b *testing.B) {
			plain := sameBytes(b, coded, coding)
			all := []*contender{
				{name: "as identity", ask: conversation(b, plain, coding)},
				{name: "the same again", ask: conversation(b, plain, coding)},
				{name: coding, ask: conversation(b, coded, coding)},
			}
			for _, c := range all {
				c.ask(100)
			}
			compare(b, all)
		})
	}
}

// conversation returns what asks h for the page in a coding n times, on
// connections that stay.
func conversation(b *testing.B, h http.Handler, coding string) func(n int) time.Duration {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := &http.Server{Handler: h}
	go server.Serve(l)
	b.Cleanup(func() { server.Close() })
	asked := codedRequest(coding)
	question := []byte("GET " + asked.RequestURI + " HTTP/1.1\r\nHost: www.example.com\r\nAccept-Encoding: " + coding + "\r\n\r\n")
	var clients []func(n int)
	for range 16 { // enough that nobody is idle
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { conn.Close() })
		from := bufio.NewReaderSize(conn, 64<<10)
		clients = append(clients, func(n int) {
			for range n {
				if _, err := conn.Write(question); err != nil {
					b.Error(err)
					return
				}
				answered(b, from)
			}
		})
	}
	return func(n int) time.Duration {
		began := processor(b)
		var wait sync.WaitGroup
		for _, client := range clients {
			wait.Go(func() { client((n + len(clients) - 1) / len(clients)) })
		}
		wait.Wait()
		return processor(b) - began
	}
}

// clock is a ResponseWriter that takes the time of the first byte.
type clock struct {
	sink
	first time.Time
}

func (c *clock) Write(p []byte) (int, error) {
	if c.first.IsZero() {
		c.first = time.Now()
	}
	return len(p), nil
}

// BenchmarkFirstDemand is the time until the first byte of a stored page that
// is not there in the coding asked for, beside identity.
func BenchmarkFirstDemand(b *testing.B) {
	for _, accept := range [...]string{"identity", "br", "gzip", "zstd"} {
		b.Run(accept, func(b *testing.B) {
			h := codingHandler(b, html(page(100<<10)), nil)
			var took time.Duration
			for i := 0; b.Loop(); i++ {
				r := request(i)
				r.Header["Accept-Encoding"] = []string{"identity"}
				h.ServeHTTP(&sink{h: http.Header{}}, r)
				r.Header["Accept-Encoding"] = []string{accept}
				w := &clock{sink: sink{h: http.Header{}}}
				begun := time.Now()
				h.ServeHTTP(w, r)
				took += w.first.Sub(begun)
			}
			b.ReportMetric(float64(took.Nanoseconds())/float64(b.N), "ns/first-byte")
		})
	}
}
