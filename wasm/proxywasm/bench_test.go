package proxywasm

import (
	"net/http"
	"strconv"
	"strings"
	"testing"

	"seawall/wasm/abi"
)

// BenchmarkWork measures what host calls cost beyond the bytes that they copy:
// countWork and its like come from it.
func BenchmarkWork(b *testing.B) {
	var many []pair
	for i := range maxFields {
		many = append(many, pair{"x-" + strconv.Itoa(i), "v"})
	}
	m := abi.Message{Header: make(http.Header)}
	v := newFields(&m, 0)
	v.set(many, 1<<20)
	text := appendPairs(nil, many)
	perField := func(b *testing.B) {
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/maxFields, "ns/field")
	}
	b.Run("size", func(b *testing.B) {
		for b.Loop() {
			v.sums()
		}
		perField(b)
	})
	b.Run("pairs", func(b *testing.B) {
		for b.Loop() {
			v.pairs()
		}
		perField(b)
	})
	b.Run("set", func(b *testing.B) {
		for b.Loop() {
			pairs, _ := parsePairs(text)
			v.set(pairs, 1<<20)
		}
		perField(b)
	})
	long := strings.Repeat("v", 1<<17)
	b.Run("long value", func(b *testing.B) {
		for b.Loop() {
			v.apply(replace, nameOf("x-1"), long, 1<<20)
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(long)), "ns/byte")
	})
	body := make([]byte, 1<<20)
	b.Run("body", func(b *testing.B) {
		for b.Loop() {
			_ = append(append([]byte(nil), body...), 1)
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(body)), "ns/byte")
	})
}

// BenchmarkRequest runs a request's callbacks with three host calls.
func BenchmarkRequest(b *testing.B) {
	h := newHost(b)
	g, _ := h.run(script{allocator: "malloc", allocated: new(uint32(0x10000)), callbacks: calls{"proxy_on_done": {
		call("get_header_map_value", 0, "accept"), call("get_property", "request\x00path"), call("get_header_map_value", 0, ":path"),
	}}}, newServices())
	x := exchange()
	h.mute = true
	b.ReportAllocs()
	for b.Loop() {
		s, err := g.Begin(x)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := s.RequestHeaders(); err != nil {
			b.Fatal(err)
		}
		if err := s.End(); err != nil {
			b.Fatal(err)
		}
	}
}
