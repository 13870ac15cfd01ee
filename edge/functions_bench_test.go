//go:build unix

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
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"seawall/wasm"
)

// tiny assembles a module of some 300 bytes that does what the larger guests
// of these benchmarks do: it sets one field of the response.
func tiny() []byte {
	section := func(id byte, items ...[]byte) []byte {
		body := []byte{byte(len(items))}
		for _, item := range items {
			body = append(body, item...)
		}
		return append([]byte{id, byte(len(body))}, body...)
	}
	name := func(s string) []byte { return append([]byte{byte(len(s))}, s...) }
	export := func(s string, kind, index byte) []byte { return append(name(s), kind, index) }
	code := func(body ...byte) []byte { return append([]byte{byte(len(body) + 2), 0}, append(body, 0x0b)...) }
	const i32 = 0x7f
	field, value := "x-seen", "yes"
	out := []byte{0, 'a', 's', 'm', 1, 0, 0, 0}
	out = append(out, section(1,
		[]byte{0x60, 0, 0},
		[]byte{0x60, 1, i32, 1, i32},
		[]byte{0x60, 3, i32, i32, i32, 1, i32},
		[]byte{0x60, 5, i32, i32, i32, i32, i32, 1, i32})...)
	out = append(out, section(2, append(append(name("env"), name("proxy_replace_header_map_value")...), 0, 3))...)
	out = append(out, section(3, []byte{0}, []byte{1}, []byte{2})...)
	out = append(out, section(5, []byte{0, 1})...)
	out = append(out, section(7,
		export("memory", 2, 0),
		export("proxy_abi_version_0_2_1", 0, 1),
		export("proxy_on_memory_allocate", 0, 2),
		export("proxy_on_response_headers", 0, 3))...)
	out = append(out, section(10,
		code(),
		code(0x41, 0x80, 0x08), // i32.const 1024
		// replace_header_map_value(2, field, 6, value, 3); 0
		code(0x41, 2, 0x41, 16, 0x41, byte(len(field)), 0x41, 32, 0x41, byte(len(value)), 0x10, 0, 0x1a, 0x41, 0))...)
	out = append(out, section(11,
		append([]byte{0, 0x41, 16, 0x0b}, name(field)...),
		append([]byte{0, 0x41, 32, 0x0b}, name(value)...))...)
	return out
}

// BenchmarkHitFunctions is a hit's walk alone.
func BenchmarkHitFunctions(b *testing.B) {
	guest(b, false)
	for _, c := range []struct {
		name   string
		source []byte
	}{{"none", nil}, {"tiny", tiny()}, {"go", builtGuests.plain}} {
		b.Run(c.name, func(b *testing.B) {
			w := single(b, c.source, wasm.ModeShared)
			r := httptest.NewRequest("GET", "http://example.com/a", nil)
			r.RequestURI = "/a"
			out := &sink{h: http.Header{}}
			w.ServeHTTP(out, r)
			b.ReportAllocs()
			for b.Loop() {
				clear(out.h)
				w.ServeHTTP(out, r)
			}
		})
	}
}

// BenchmarkHitsOverHTTP prints what functions cost of the throughput of cached
// hits over HTTP/1.1, on connections that stay: processor time, which other work
// on the machine changes less than the clock, of the node and its client
// together. Medians of interleaved rounds, with the least and the most.
func BenchmarkHitsOverHTTP(b *testing.B) {
	guest(b, false)
	type contender struct {
		name string
		ask  func(n int) time.Duration
		runs []float64
	}
	var all []*contender
	for _, c := range []struct {
		name   string
		source []byte
		mode   wasm.Mode
	}{
		{"none", nil, 0}, {"none again", nil, 0},
		{"tiny, shared", tiny(), wasm.ModeShared}, {"tiny, reset", tiny(), wasm.ModeReset},
		{"Go, shared", builtGuests.plain, wasm.ModeShared}, {"Go, reset", builtGuests.plain, wasm.ModeReset},
	} {
		all = append(all, &contender{name: c.name, ask: over(b, c.source, c.mode)})
	}
	const round = 4000
	for b.Loop() {
		for _, c := range all {
			c.runs = append(c.runs, float64(c.ask(round).Nanoseconds())/round)
		}
	}
	median := func(runs []float64) float64 { return slices.Sorted(slices.Values(runs))[len(runs)/2] }
	base := median(all[0].runs)
	for _, c := range all {
		fmt.Fprintf(os.Stderr, "%-14s %8.2f µs a hit (%.2f to %.2f), throughput %.1f %%\n", c.name,
			median(c.runs)/1e3, slices.Min(c.runs)/1e3, slices.Max(c.runs)/1e3, 100*base/median(c.runs))
	}
}

// single returns a node with one function, or none.
func single(b *testing.B, source []byte, mode wasm.Mode) *workbench {
	return withFunctions(b, &echo{}, nil, nil, func(c *Config) {
		if source == nil {
			return
		}
		host, err := wasm.NewHost(wasm.Options{CacheDir: builtGuests.cache})
		if err != nil {
			b.Fatal(err)
		}
		spec := wasm.Spec{Name: "f", Source: source, Config: []byte("response x-seen yes\n"), Mode: mode}
		spec.Limits.CPU = 50 * time.Millisecond
		f, err := host.Load(context.Background(), spec)
		if err != nil {
			b.Fatal(err)
		}
		chain := wasm.NewChain([]*wasm.Function{f})
		f.Close()
		c.Sites[0].Viewer = chain
		b.Cleanup(func() {
			chain.Close()
			host.Close()
		})
	})
}

// over returns what asks a node with a function for one hit n times.
func over(b *testing.B, source []byte, mode wasm.Mode) func(n int) time.Duration {
	w := single(b, source, mode)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := &http.Server{Handler: w.Handler}
	go server.Serve(l)
	b.Cleanup(func() { server.Close() })
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	from := bufio.NewReaderSize(conn, 64<<10)
	question := []byte("GET /a HTTP/1.1\r\nHost: example.com\r\nUser-Agent: benchmark\r\nAccept: */*\r\n\r\n")
	return func(n int) time.Duration {
		began := processor(b)
		for range n {
			if _, err := conn.Write(question); err != nil {
				b.Fatal(err)
			}
			resp, err := http.ReadResponse(from, nil)
			if err != nil {
				b.Fatal(err)
			}
			if seen := resp.Header.Get("X-Seen"); (seen == "yes") != (source != nil) {
				b.Fatalf("x-seen %q", seen)
			}
			if _, err := io.Copy(io.Discard, resp.Body); err != nil {
				b.Fatal(err)
			}
			resp.Body.Close()
		}
		return processor(b) - began
	}
}

// processor returns the processor time that this process has taken.
func processor(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Skip("no processor time here:", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
