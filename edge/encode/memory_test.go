package encode

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

// live returns the bytes on the heap that are in use.
func live() int64 {
	for range 3 { // what a sync.Pool holds goes with the second
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestCodersHoldNoMoreThanTheyCount(t *testing.T) {
	noise := make([]byte, 1<<20)
	r := rand.NewChaCha8([32]byte{})
	_, _ = r.Read(noise)
	contents := map[string][]byte{"text": page(1 << 20), "noise": noise, "zeros": make([]byte, 1<<20)}
	for s := range shapes {
		for name, content := range contents {
			before := live()
			k := newCoder(s)
			for range 2 {
				k.w.Reset(io.Discard)
				_, _ = k.w.Write(content[:300_000])
				_ = k.w.Flush()
				_, _ = k.w.Write(content[300_000:])
				_ = k.w.Close()
			}
			held := live() - before
			if held > s.cost() {
				t.Errorf("shape %d after %s holds %d KiB, counted as %d", s, name, held>>10, s.cost()>>10)
			}
			t.Logf("shape %d after %s: %d KiB of %d", s, name, held>>10, s.cost()>>10)
			runtime.KeepAlive(k)
		}
	}
	runtime.KeepAlive(contents)
}

// holder is a destination that measures the heap at the first write and each
// tenth one after it.
type holder struct {
	before, most int64
	writes       int
}

func (h *holder) Write(p []byte) (int, error) {
	if h.writes%10 == 0 && h.writes < 100 {
		h.most = max(h.most, live()-h.before)
	}
	h.writes++
	return len(p), nil
}

func TestBestHoldsNoMoreThanItSays(t *testing.T) {
	for _, tt := range []struct {
		c    Coding
		size int
		most int64
	}{
		{Gzip, 500_000, 2 << 20},
		{Zstd, 2 << 20, 41 << 20},
		{Brotli, 128 << 10, 6 << 20},
	} {
		content := page(tt.size)
		h := &holder{before: live()}
		if _, err := Best(t.Context(), tt.c, h, bytes.NewReader(content), int64(tt.size), nil); err != nil {
			t.Fatal(err)
		}
		if h.most > tt.most {
			t.Errorf("%v of %d KiB holds %d KiB, want at most %d", tt.c, tt.size>>10, h.most>>10, tt.most>>10)
		}
		t.Logf("%v of %d KiB: %d KiB", tt.c, tt.size>>10, h.most>>10)
		runtime.KeepAlive(content)
	}
}

func TestReusedCodersHardlyAllocate(t *testing.T) {
	if raced {
		t.Skip("the race detector has pools forget what they hold")
	}
	content := page(50_000)
	// The encoder, and room for what a library makes anew for each content.
	const most = 4
	for _, c := range made {
		cs := NewCoders(1, 0)
		n := testing.AllocsPerRun(20, func() {
			e, ok := cs.Acquire(c, int64(len(content)), io.Discard)
			if !ok {
				t.Fatal("none free")
			}
			_, _ = e.Write(content)
			_ = e.Flush()
			_, _ = e.Write(content)
			if err := e.Close(); err != nil {
				t.Fatal(err)
			}
		})
		if n > most {
			t.Errorf("%v: %v allocations for each use, want at most %d", c, n, most)
		}
		t.Logf("%v: %v", c, n)
	}
}

func TestDecodersHoldNoMoreThanTheySay(t *testing.T) {
	// The widest windows that each takes, filled.
	block := page(1 << 20)
	write := func(w io.WriteCloser, err error) {
		for range 18 {
			_, werr := w.Write(block)
			err = errors.Join(err, werr)
		}
		if err = errors.Join(err, w.Close()); err != nil {
			t.Fatal(err)
		}
	}
	var bodies [Deflate]bytes.Buffer
	write(gzip.NewWriter(&bodies[Gzip]), nil)
	write(brotli.NewWriterOptions(&bodies[Brotli], brotli.WriterOptions{Quality: 2, LGWin: 24}), nil)
	write(zstd.NewWriter(&bodies[Zstd], zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(maxWindow)))
	for c, most := range map[Coding]int64{Gzip: 100 << 10, Brotli: 17 << 20, Zstd: 9 << 20} {
		before := live()
		d, err := NewDecoders(0).NewReader([]Coding{c}, bytes.NewReader(bodies[c].Bytes()), Limits{Ratio: -1})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(io.Discard, d, 17<<20); err != nil {
			t.Fatal(err)
		}
		if held := live() - before; held > most {
			t.Errorf("%v holds %d KiB, want at most %d", c, held>>10, most>>10)
		} else {
			t.Logf("%v: %d KiB", c, held>>10)
		}
		_ = d.Close()
	}
	runtime.KeepAlive(&bodies)
}
