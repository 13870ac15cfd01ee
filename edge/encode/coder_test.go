package encode

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
)

var made = []Coding{Gzip, Brotli, Zstd}

// coded returns the coding of content by a pooled encoder.
func coded(t testing.TB, cs *Coders, c Coding, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	e, ok := cs.Acquire(c, int64(len(content)), &b)
	if !ok {
		t.Fatalf("Acquire(%v): none free", c)
	}
	defer e.Abort()
	if _, err := e.Write(content); err != nil {
		t.Fatalf("%v: Write: %v", c, err)
	}
	if err := e.Close(); err != nil {
		t.Fatalf("%v: Close: %v", c, err)
	}
	if got := e.Written(); got != int64(b.Len()) {
		t.Errorf("%v: Written %d, want %d", c, got, b.Len())
	}
	return b.Bytes()
}

// decoded undoes stack without bounds.
func decoded(stack []Coding, src io.Reader) ([]byte, error) {
	return decodedWithin(stack, src, Limits{Ratio: -1})
}

func decodedWithin(stack []Coding, src io.Reader, l Limits) ([]byte, error) {
	d, err := NewDecoders(0).NewReader(stack, src, l)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return io.ReadAll(d)
}

func TestCorpusRoundTrips(t *testing.T) {
	cs := NewCoders(2, 0)
	for _, f := range corpus(t) {
		for _, c := range made {
			out := coded(t, cs, c, f.content)
			back, err := decoded([]Coding{c}, bytes.NewReader(out))
			if err != nil || !bytes.Equal(back, f.content) {
				t.Errorf("%s, %v: %d bytes, got %d, error %v", f.name, c, len(f.content), len(back), err)
			}
			if len(out) >= len(f.content) {
				t.Errorf("%s, %v: %d bytes became %d", f.name, c, len(f.content), len(out))
			}
		}
	}
	if s := cs.Stats(); s.Busy != 0 {
		t.Errorf("busy %d after all, want 0", s.Busy)
	}
}

func TestToolsOfOthersDecodeTheCorpus(t *testing.T) {
	tools := map[Coding][]string{
		Gzip:   {"gzip", "-dc"},
		Brotli: {"brotli", "-dc"},
		Zstd:   {"zstd", "-dcq"},
	}
	cs := NewCoders(1, 0)
	for _, c := range made {
		t.Run(c.String(), func(t *testing.T) {
			tool := tools[c]
			if _, err := exec.LookPath(tool[0]); err != nil {
				t.Skipf("%s is not installed", tool[0])
			}
			for _, f := range corpus(t) {
				cmd := exec.Command(tool[0], tool[1:]...)
				cmd.Stdin = bytes.NewReader(coded(t, cs, c, f.content))
				back, err := cmd.Output()
				if err != nil || !bytes.Equal(back, f.content) {
					t.Errorf("%s: %d bytes, got %d, error %v", f.name, len(f.content), len(back), err)
				}
			}
		})
	}
}

// page is text that compresses as pages do.
func page(size int) []byte {
	var b bytes.Buffer
	r := rand.New(rand.NewPCG(1, 2))
	for b.Len() < size {
		fmt.Fprintf(&b, "<li class=\"item-%d\"><a href=\"/p/%d\">%x</a></li>\n", r.IntN(9), r.IntN(1e6), r.Uint32())
	}
	return b.Bytes()[:size]
}

func TestSizesRoundTripThroughReusedCoders(t *testing.T) {
	cs := NewCoders(1, 0)
	content := page(700_000)
	for _, size := range []int{0, 1, 511, 64 << 10, 64<<10 + 1, 128 << 10, 256 << 10, 700_000, 3} {
		for _, c := range made {
			out := coded(t, cs, c, content[:size])
			back, err := decoded([]Coding{c}, bytes.NewReader(out))
			if err != nil || !bytes.Equal(back, content[:size]) {
				t.Errorf("%v of %d bytes: got %d, error %v", c, size, len(back), err)
			}
		}
	}
}

func TestEqualContentGivesEqualBytes(t *testing.T) {
	content := page(100_000)
	for _, c := range made {
		used := NewCoders(1, 0)
		coded(t, used, c, page(90_000)[5:])
		first, second := coded(t, NewCoders(1, 0), c, content), coded(t, used, c, content)
		if !bytes.Equal(first, second) {
			t.Errorf("%v: a used coder gives other bytes than a new one", c)
		}
	}
}

// pieces is a destination that others may read while it grows.
type pieces struct{ bytes.Buffer }

func TestWhatIsFlushedDecodesAtOnce(t *testing.T) {
	events := []string{"data: one\n\n", "data: two\n\n", strings.Repeat("data: more\n", 5000) + "\n", ": \n\n"}
	for _, c := range made {
		t.Run(c.String(), func(t *testing.T) {
			cs := NewCoders(2, 0)
			var line pieces
			e, ok := cs.Acquire(c, Endless, &line)
			if !ok {
				t.Fatal("none free")
			}
			defer e.Abort()
			d, err := NewDecoders(0).NewReader([]Coding{c}, &line, Limits{})
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			for _, event := range events {
				_, werr := io.WriteString(e, event)
				if err := errors.Join(werr, e.Flush()); err != nil {
					t.Fatalf("%q: %v", event, err)
				}
				got := make([]byte, len(event))
				if n, err := io.ReadFull(d, got); err != nil || string(got) != event {
					t.Fatalf("%.20q: %d bytes arrived, error %v", event, n, err)
				}
			}
		})
	}
}

func TestCodersStayWithinTheirBounds(t *testing.T) {
	t.Run("number", func(t *testing.T) {
		cs := NewCoders(2, 0)
		a, _ := cs.Acquire(Gzip, Unknown, io.Discard)
		b, _ := cs.Acquire(Brotli, Unknown, io.Discard)
		if e, ok := cs.Acquire(Gzip, Unknown, io.Discard); ok {
			t.Errorf("a third of two: %v", e)
		}
		a.Abort()
		a.Abort()
		c, ok := cs.Acquire(Zstd, Unknown, io.Discard)
		if !ok {
			t.Fatal("none free after one was given back")
		}
		_, _ = b.Close(), c.Close()
		if s := cs.Stats(); s.Busy != 0 || s.Refused != 1 {
			t.Errorf("got %+v, want none busy and one refused", s)
		}
	})
	t.Run("memory", func(t *testing.T) {
		budget := brotli256K.cost() + gzipAny.cost() - 1
		cs := NewCoders(9, budget)
		a, ok := cs.Acquire(Brotli, Unknown, io.Discard)
		if !ok {
			t.Fatal("the first does not fit")
		}
		if _, ok := cs.Acquire(Gzip, Unknown, io.Discard); ok {
			t.Error("one past the budget")
		}
		_ = a.Close()
		// The idle brotli coder makes room.
		b, ok := cs.Acquire(Gzip, Unknown, io.Discard)
		if !ok {
			t.Fatal("an idle coder keeps others out")
		}
		if s := cs.Stats(); s.Memory != gzipAny.cost() {
			t.Errorf("holds %d bytes, want %d", s.Memory, gzipAny.cost())
		}
		b.Abort()
	})
	t.Run("endless", func(t *testing.T) {
		cs := NewCoders(4, 0)
		for i := range 2 {
			if _, ok := cs.Acquire(Zstd, Endless, io.Discard); !ok {
				t.Fatalf("stream %d of 2 refused", i+1)
			}
		}
		if _, ok := cs.Acquire(Zstd, Endless, io.Discard); ok {
			t.Error("streams take more than half")
		}
		if _, ok := cs.Acquire(Zstd, Unknown, io.Discard); !ok {
			t.Error("streams keep others out")
		}
	})
	t.Run("lasting", func(t *testing.T) {
		cs := NewCoders(8, 0)
		var held []*Encoder
		for {
			e, ok := cs.Acquire(Brotli, Unknown, io.Discard)
			if !ok {
				break
			}
			held = append(held, e)
		}
		if len(held) != 6 {
			t.Errorf("those who wait for others have %d of 8 coders, want 6", len(held))
		}
		for i := range 2 {
			if e, ok := cs.AcquireWhole(Brotli, 1<<20, io.Discard); !ok {
				t.Errorf("whole content %d of 2 refused", i+1)
			} else {
				held = append(held, e)
			}
		}
		for _, e := range held {
			e.Abort()
		}
		if _, ok := cs.Acquire(Zstd, Unknown, io.Discard); !ok || cs.lasting != (share{1, zstd256K.cost()}) {
			t.Errorf("after all were given back: %v, %+v in use", ok, cs.lasting)
		}
	})
	t.Run("not made", func(t *testing.T) {
		for _, c := range []Coding{Identity, Deflate, codings} {
			if _, ok := NewCoders(1, 0).Acquire(c, Unknown, io.Discard); ok {
				t.Errorf("%v was made", c)
			}
		}
	})
}

type failing struct {
	after int
	err   error
}

func (f *failing) Write(p []byte) (int, error) {
	if f.after -= len(p); f.after < 0 {
		if f.err == nil {
			panic("destination")
		}
		return 0, f.err
	}
	return len(p), nil
}

func TestCodersComeBackAfterErrors(t *testing.T) {
	broken := errors.New("connection reset")
	content := page(600_000)
	for _, c := range made {
		for _, after := range []int{0, 5, 50_000} {
			cs := NewCoders(1, 0)
			e, ok := cs.Acquire(c, Unknown, &failing{after, broken})
			if !ok {
				t.Fatal("none free")
			}
			_, werr := e.Write(content)
			cerr := e.Close()
			if !errors.Is(cerr, broken) || werr != nil && !errors.Is(werr, broken) {
				t.Errorf("%v after %d: Write %v, Close %v, want %v", c, after, werr, cerr, broken)
			}
			if _, err := e.Write(content); !errors.Is(err, broken) {
				t.Errorf("%v: a write after the error: %v", c, err)
			}
			back, err := decoded([]Coding{c}, bytes.NewReader(coded(t, cs, c, content)))
			if err != nil || !bytes.Equal(back, content) {
				t.Errorf("%v: reused after an error: %d bytes, %v", c, len(back), err)
			}
			if s := cs.Stats(); s.Busy != 0 || s.Broken != 0 {
				t.Errorf("%v: %+v, want none busy nor broken", c, s)
			}
		}
	}
}

func TestPanicsBelowAnEncoderAreErrors(t *testing.T) {
	for _, c := range made {
		cs := NewCoders(1, 0)
		e, _ := cs.Acquire(c, Unknown, &failing{after: -1})
		_, werr := e.Write(page(600_000))
		if err := errors.Join(werr, e.Flush(), e.Close()); err == nil || !strings.Contains(err.Error(), "panic") {
			t.Errorf("%v: error %v, want one about a panic", c, err)
		}
		if s := cs.Stats(); s.Busy != 0 || s.Broken != 1 || s.Memory != 0 {
			t.Errorf("%v: %+v, want one broken and nothing held", c, s)
		}
		coded(t, cs, c, page(1000)) // the slot is free
	}
}

func TestEncoderAfterClose(t *testing.T) {
	cs := NewCoders(1, 0)
	e, _ := cs.Acquire(Gzip, 10, io.Discard)
	if err := errors.Join(e.Close(), e.Close()); err != nil {
		t.Errorf("Close twice: %v", err)
	}
	_, err := e.Write([]byte("x"))
	if !errors.Is(err, ErrClosed) || !errors.Is(e.Flush(), ErrClosed) {
		t.Errorf("Write after Close: %v, want %v", err, ErrClosed)
	}
	f, _ := cs.Acquire(Gzip, 10, io.Discard)
	f.Abort()
	if err := f.Close(); !errors.Is(err, ErrClosed) {
		t.Errorf("Close after Abort: %v, want %v: the content has no end", err, ErrClosed)
	}
}
