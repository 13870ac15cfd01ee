package origin

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// BenchmarkRoundTrip asks a server on loopback, beside net/http's transport.
// The server's own work is part of both.
func BenchmarkRoundTrip(b *testing.B) {
	for _, size := range []int{1 << 10, 100 << 10} {
		answer := "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nDate: Mon, 02 Jan 2006 15:04:05 GMT\r\nContent-Length: " +
			itoa(size) + "\r\n\r\n" + strings.Repeat("x", size)
		url := loopback(b, func(p *peer) {
			for {
				if p.head() == "" {
					return
				}
				p.send(answer)
			}
		})
		pool := mustNew(b, Config{Servers: []string{url}})
		std := &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}
		for _, rt := range []struct {
			name string
			http.RoundTripper
		}{{"origin", pool}, {"net-http", std}} {
			ask := func(b *testing.B) {
				req, err := http.NewRequestWithContext(b.Context(), "GET", url+"/", nil)
				if err != nil {
					b.Fatal(err)
				}
				resp, err := rt.RoundTrip(req)
				if err != nil {
					b.Error(err)
					return
				}
				n, err := io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if n != int64(size) || err != nil {
					b.Errorf("got %d bytes, %v, want %d", n, err, size)
				}
			}
			b.Run(itoa(size>>10)+"KiB/serial/"+rt.name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					ask(b)
				}
			})
			b.Run(itoa(size>>10)+"KiB/parallel/"+rt.name, func(b *testing.B) {
				b.ReportAllocs()
				b.SetParallelism(16)
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						ask(b)
					}
				})
			})
		}
		b.Logf("%+v", pool.Stats())
		pool.Close()
		std.CloseIdleConnections()
	}
}

// BenchmarkHead inspects a usual response head.
func BenchmarkHead(b *testing.B) {
	in := []byte("HTTP/1.1 200 OK\r\nDate: Mon, 02 Jan 2006 15:04:05 GMT\r\nContent-Type: text/html\r\nContent-Length: 1234\r\n" +
		"Cache-Control: max-age=60\r\nETag: \"abc\"\r\nVary: Accept-Encoding\r\n\r\n")
	b.ReportAllocs()
	for b.Loop() {
		var h head
		if whole, err := h.scan(in); !whole || err != nil {
			b.Fatal(whole, err)
		}
	}
}
