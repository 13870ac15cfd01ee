package encode

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
)

// BenchmarkEncode compresses the corpus by pooled encoders and prints the ratio
// of each file.
func BenchmarkEncode(b *testing.B) {
	files := corpus(b)
	cs := NewCoders(4, 0)
	total := 0
	for _, f := range files {
		total += len(f.content)
	}
	for _, c := range made {
		b.Run(c.String(), func(b *testing.B) {
			b.SetBytes(int64(total))
			b.ReportAllocs()
			var out int64
			for b.Loop() {
				out = 0
				for _, f := range files {
					out += encodeTo(b, cs, c, f.content, io.Discard)
				}
			}
			b.ReportMetric(float64(total)/float64(out), "ratio")
		})
	}
	b.Log(ratios(b, cs, files))
}

func encodeTo(b testing.TB, cs *Coders, c Coding, content []byte, dst io.Writer) int64 {
	e, ok := cs.Acquire(c, int64(len(content)), dst)
	if !ok {
		b.Fatal("none free")
	}
	if _, err := e.Write(content); err != nil {
		b.Fatal(err)
	}
	if err := e.Close(); err != nil {
		b.Fatal(err)
	}
	return e.Written()
}

// ratios is a table of the corpus: what each coding makes of each file.
func ratios(b testing.TB, cs *Coders, files []file) string {
	var t strings.Builder
	fmt.Fprintf(&t, "\n%-32s %9s %6s %6s %6s\n", "file", "bytes", made[0], made[1], made[2])
	for _, f := range files {
		fmt.Fprintf(&t, "%-32.32s %9d", f.name, len(f.content))
		for _, c := range made {
			n := encodeTo(b, cs, c, f.content, io.Discard)
			fmt.Fprintf(&t, " %6.2f", float64(len(f.content))/float64(n))
		}
		t.WriteByte('\n')
	}
	return t.String()
}

// BenchmarkBest compresses a middling file as the background worker does.
func BenchmarkBest(b *testing.B) {
	content := page(60_000)
	for _, c := range made {
		b.Run(c.String(), func(b *testing.B) {
			b.SetBytes(int64(len(content)))
			b.ReportAllocs()
			var out int64
			for b.Loop() {
				var err error
				if out, err = Best(b.Context(), c, io.Discard, bytes.NewReader(content), int64(len(content)), nil); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(len(content))/float64(out), "ratio")
		})
	}
}

// BenchmarkFlush is what an event costs on its way through a coder: the delay
// that coding adds to it.
func BenchmarkFlush(b *testing.B) {
	event := []byte("event: update\ndata: {\"id\":1234,\"text\":\"something happened\"}\n\n")
	for _, c := range made {
		b.Run(c.String(), func(b *testing.B) {
			e, ok := NewCoders(2, 0).Acquire(c, Endless, io.Discard)
			if !ok {
				b.Fatal("none free")
			}
			defer e.Abort()
			b.ReportAllocs()
			for b.Loop() {
				_, _ = e.Write(event)
				if err := e.Flush(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkFirstBytes is the delay that coding adds to the first 8 KiB of a page
// that are flushed, with the reset of a used coder.
func BenchmarkFirstBytes(b *testing.B) {
	content := page(8 << 10)
	for _, c := range made {
		b.Run(c.String(), func(b *testing.B) {
			cs := NewCoders(1, 0)
			for b.Loop() {
				e, ok := cs.Acquire(c, 100_000, io.Discard)
				if !ok {
					b.Fatal("none free")
				}
				_, _ = e.Write(content)
				if err := e.Flush(); err != nil {
					b.Fatal(err)
				}
				e.Abort()
			}
		})
	}
}

// BenchmarkDecode reads what the encoders made of a page of 100 KiB.
func BenchmarkDecode(b *testing.B) {
	content := page(100 << 10)
	ds := NewDecoders(1)
	for _, c := range made {
		b.Run(c.String(), func(b *testing.B) {
			whole := coded(b, NewCoders(1, 0), c, content)
			b.SetBytes(int64(len(content)))
			b.ReportAllocs()
			for b.Loop() {
				d, err := ds.NewReader([]Coding{c}, bytes.NewReader(whole), Limits{})
				if err != nil {
					b.Fatal(err)
				}
				n, err := io.Copy(io.Discard, d)
				if err != nil || n != int64(len(content)) {
					b.Fatalf("%d bytes, error %v", n, err)
				}
				_ = d.Close()
			}
		})
	}
}
