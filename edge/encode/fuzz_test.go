package encode

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"testing"
)

func FuzzDecoders(f *testing.F) {
	stacks := [][]Coding{{Gzip}, {Brotli}, {Zstd}, {Deflate}, {Gzip, Brotli}, {Zstd, Gzip}, {Deflate, Deflate, Deflate}}
	for _, form := range forms() {
		whole := form.of(f, page(300))
		for i := range stacks {
			f.Add(uint8(i), whole)
			f.Add(uint8(i), whole[:len(whole)/2])
		}
	}
	ds := NewDecoders(1 << 10)
	f.Fuzz(func(t *testing.T, which uint8, content []byte) {
		stack := stacks[int(which)%len(stacks)]
		limits := Limits{Ratio: 50, Grace: 1000}
		d, err := ds.NewReader(stack, bytes.NewReader(content), limits)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		out, err := io.ReadAll(d)
		switch {
		case err == nil, errors.Is(err, ErrMalformed), errors.Is(err, ErrBomb), errors.Is(err, io.ErrUnexpectedEOF):
		default:
			t.Errorf("%v: error %v", stack, err)
		}
		if most := limits.allowed(d.Consumed()); int64(len(out)) > most {
			t.Errorf("%v: %d bytes of %d, want at most %d", stack, len(out), d.Consumed(), most)
		}
		if len(stack) == 1 && stack[0] == Gzip && !errors.Is(err, ErrBomb) {
			compareGzip(t, content, out, err)
		}
	})
}

// compareGzip holds the decoder against the standard library's. That one takes
// no member at all for an empty content.
func compareGzip(t *testing.T, content, out []byte, err error) {
	t.Helper()
	r, stdErr := gzip.NewReader(bytes.NewReader(content))
	var want []byte
	if stdErr == nil {
		want, stdErr = io.ReadAll(r)
	}
	if (err == nil) != (stdErr == nil) || err == nil && !bytes.Equal(out, want) {
		t.Errorf("gzip of %x: %d bytes and %v; the standard library has %d and %v", content, len(out), err, len(want), stdErr)
	}
}

func FuzzRoundTrip(f *testing.F) {
	f.Add(page(3000), uint16(100), uint16(7))
	f.Add([]byte{}, uint16(0), uint16(0))
	f.Add(make([]byte, 20_000), uint16(9000), uint16(2))
	cs := NewCoders(2, 0)
	f.Fuzz(func(t *testing.T, content []byte, piece, flush uint16) {
		for _, c := range made {
			var b bytes.Buffer
			size := []int64{int64(len(content)), Unknown, Endless}[int(flush)%3]
			e, ok := cs.Acquire(c, size, &b)
			if !ok {
				t.Fatal("none free")
			}
			for i, rest := 0, content; len(rest) > 0; i++ {
				n := min(len(rest), int(piece)+1)
				_, err := e.Write(rest[:n])
				if rest = rest[n:]; flush > 0 && i%int(flush) == 0 {
					err = errors.Join(err, e.Flush())
				}
				if err != nil {
					t.Fatal(err)
				}
				if i > 100 {
					piece = 0xffff
				}
			}
			if err := e.Close(); err != nil {
				t.Fatal(err)
			}
			if back, err := decoded([]Coding{c}, &b); err != nil || !bytes.Equal(back, content) {
				t.Errorf("%v of %d bytes in %d: got %d, error %v", c, len(content), piece, len(back), err)
			}
		}
	})
}
