//go:build unix

package edge

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"sync"
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

// contender is a node with one function, or none.
type contender struct {
	name   string
	source []byte
	mode   wasm.Mode
	ask    func(n int) time.Duration // n hits; the processor time they took
	runs   []float64                 // of a hit, in ns
}

// contenders are the nodes that benchmarks compare: without a function (twice,
// which tells how far figures can be trusted), and with one that sets a field
// of the response.
func contenders(b *testing.B) []*contender {
	guest(b, false)
	return []*contender{
		{name: "none"}, {name: "none again"},
		{name: "tiny, shared", source: tiny(), mode: wasm.ModeShared}, {name: "tiny, reset", source: tiny(), mode: wasm.ModeReset},
		{name: "Go, shared", source: builtGuests.plain, mode: wasm.ModeShared}, {name: "Go, reset", source: builtGuests.plain, mode: wasm.ModeReset},
	}
}

// compare has the contenders serve hits in turns and prints what each takes of
// processor time, which other work on the machine changes less than the clock:
// the median of all turns, the least and the most, and the throughput relative
// to the first one's, as the median of each turn's ratio.
func compare(b *testing.B, all []*contender) {
	const turns, hits = 21, 1008
	for b.Loop() {
		for range turns {
			for _, c := range all {
				c.runs = append(c.runs, float64(c.ask(hits).Nanoseconds())/hits)
			}
		}
	}
	median := func(runs []float64) float64 { return slices.Sorted(slices.Values(runs))[len(runs)/2] }
	for _, c := range all {
		ratios := make([]float64, len(c.runs))
		for i := range ratios {
			ratios[i] = all[0].runs[i] / c.runs[i]
		}
		fmt.Fprintf(os.Stderr, "%-14s %8.2f µs a hit (%.2f to %.2f), throughput %.1f %%\n", c.name,
			median(c.runs)/1e3, slices.Min(c.runs)/1e3, slices.Max(c.runs)/1e3, 100*median(ratios))
	}
}

// BenchmarkHitFunctions prints what functions cost of a hit's walk alone.
func BenchmarkHitFunctions(b *testing.B) {
	all := contenders(b)
	for _, c := range all {
		w := single(b, c.source, c.mode)
		r := httptest.NewRequest("GET", "http://example.com/a", nil)
		r.RequestURI = "/a"
		out := &sink{h: http.Header{}}
		c.ask = func(n int) time.Duration {
			began := processor(b)
			for range n {
				clear(out.h)
				w.ServeHTTP(out, r)
			}
			return processor(b) - began
		}
		c.ask(1)
	}
	compare(b, all)
}

// BenchmarkHitsOverHTTP prints what functions cost of the throughput of cached
// hits over HTTP/1.1, on connections that stay: of the node and of a client
// that does as little as it can.
func BenchmarkHitsOverHTTP(b *testing.B) {
	all := contenders(b)
	for _, c := range all {
		c.ask = over(b, c.source, c.mode)
		c.ask(100)
	}
	compare(b, all)
}

// BenchmarkFunctions counts allocations of a hit's walk.
func BenchmarkFunctions(b *testing.B) {
	for _, c := range contenders(b) {
		b.Run(c.name, func(b *testing.B) {
			w := single(b, c.source, c.mode)
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
	question := []byte("GET /a HTTP/1.1\r\nHost: example.com\r\nUser-Agent: benchmark\r\nAccept: */*\r\n\r\n")
	var clients []func(n int)
	for range 16 { // enough that nobody is idle: threads that fall asleep and wake cost more than a hit
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
				if seen := answered(b, from); seen != (source != nil) {
					b.Errorf("x-seen: %v", seen)
					return
				}
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

// processor returns the processor time that this process has taken.
func processor(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Skip("no processor time here:", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// answered reads a response and tells whether the function has left its mark.
func answered(b *testing.B, from *bufio.Reader) (seen bool) {
	length := -1
	for first := true; ; first = false {
		line, err := from.ReadSlice('\n')
		if err != nil || first && !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")) {
			b.Errorf("got %q, %v", line, err)
			return !seen
		}
		if len(line) == 2 {
			break
		}
		seen = seen || bytes.Equal(line, []byte("X-Seen: yes\r\n"))
		if n, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			length, _ = strconv.Atoi(string(n[:len(n)-2]))
		}
	}
	if _, err := from.Discard(length); err != nil { // negative without a length
		b.Error(err)
	}
	return seen
}
