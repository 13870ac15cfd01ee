package encode

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os/exec"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

func TestBestIsSmallerAndDecodes(t *testing.T) {
	cs := NewCoders(1, 0)
	for _, f := range corpus(t) {
		for _, c := range made {
			if len(f.content) > 150_000 || c == Brotli && len(f.content) > 20_000 {
				continue // seconds each
			}
			var b bytes.Buffer
			n, err := Best(t.Context(), c, &b, bytes.NewReader(f.content), int64(len(f.content)), nil)
			if err != nil || n != int64(b.Len()) {
				t.Fatalf("%s, %v: %d bytes said, %d written, error %v", f.name, c, n, b.Len(), err)
			}
			quick := len(coded(t, cs, c, f.content))
			// Tables that pay over a large file may cost a small one a few bytes.
			if b.Len() > quick+quick/50 {
				t.Errorf("%s, %v: %d bytes, best has %d", f.name, c, quick, b.Len())
			}
			back, err := decoded([]Coding{c}, &b)
			if err != nil || !bytes.Equal(back, f.content) {
				t.Errorf("%s, %v: %d bytes, got %d, error %v", f.name, c, len(f.content), len(back), err)
			}
		}
	}
}

func TestToolsOfOthersDecodeTheBest(t *testing.T) {
	content := page(40_000)
	for _, tt := range []struct {
		c    Coding
		tool string
	}{{Gzip, "gzip"}, {Brotli, "brotli"}, {Zstd, "zstd"}} {
		t.Run(tt.tool, func(t *testing.T) {
			if _, err := exec.LookPath(tt.tool); err != nil {
				t.Skipf("%s is not installed", tt.tool)
			}
			var b bytes.Buffer
			if _, err := Best(t.Context(), tt.c, &b, bytes.NewReader(content), Unknown, nil); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(tt.tool, "-dc")
			cmd.Stdin = &b
			if back, err := cmd.Output(); err != nil || !bytes.Equal(back, content) {
				t.Errorf("%d bytes, got %d, error %v", len(content), len(back), err)
			}
		})
	}
}

func TestBestStopsBetweenSteps(t *testing.T) {
	stop := errors.New("stop")
	content := page(300_000)
	for _, c := range made {
		steps := 0
		_, err := Best(t.Context(), c, io.Discard, bytes.NewReader(content), Unknown,
			func(context.Context, time.Duration) error {
				if steps++; steps == 3 {
					return stop
				}
				return nil
			})
		if !errors.Is(err, stop) || steps != 3 {
			t.Errorf("%v: %d steps, error %v, want 3 and %v", c, steps, err, stop)
		}
		ctx, cancel := context.WithCancel(t.Context())
		src := io.MultiReader(bytes.NewReader(content[:1000]), readerFunc(func([]byte) (int, error) {
			cancel()
			return 0, nil
		}))
		if _, err := Best(ctx, c, io.Discard, src, Unknown, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("%v: cancelled: error %v", c, err)
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestBestReturnsWhatFailed(t *testing.T) {
	reset := errors.New("reset")
	content := page(2000)
	for _, c := range made {
		src := io.MultiReader(bytes.NewReader(content), iotest.ErrReader(reset))
		if _, err := Best(t.Context(), c, io.Discard, src, Unknown, nil); !errors.Is(err, reset) {
			t.Errorf("%v: source: error %v, want %v", c, err, reset)
		}
		if _, err := Best(t.Context(), c, &failing{0, reset}, bytes.NewReader(content), 2000, nil); !errors.Is(err, reset) {
			t.Errorf("%v: destination: error %v, want %v", c, err, reset)
		}
		if _, err := Best(t.Context(), c, &failing{after: -1}, bytes.NewReader(content), 2000, nil); err == nil {
			t.Errorf("%v: a panic below is no error", c)
		}
		for _, size := range []int64{1999, 2001, 0} {
			if _, err := Best(t.Context(), c, io.Discard, bytes.NewReader(content), size, nil); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%v: 2000 bytes said to be %d: error %v", c, size, err)
			}
		}
	}
	for _, c := range []Coding{Identity, Deflate} {
		if _, err := Best(t.Context(), c, io.Discard, bytes.NewReader(nil), 0, nil); !errors.Is(err, ErrUnknown) {
			t.Errorf("%v: error %v, want %v", c, err, ErrUnknown)
		}
	}
}

func TestShareWaits(t *testing.T) {
	tests := []struct {
		share float64
		took  time.Duration
		want  time.Duration
	}{
		{1, time.Second, 0},
		{0.5, time.Second, time.Second},
		{0.1, 100 * time.Millisecond, 900 * time.Millisecond},
		{0, time.Second, time.Hour},
		{0.001, time.Hour, time.Hour},
	}
	for _, tt := range tests {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			err := Share(tt.share)(t.Context(), tt.took)
			if waited := time.Since(start).Round(time.Millisecond); err != nil || waited != tt.want {
				t.Errorf("share %v after %v: waited %v, error %v, want %v", tt.share, tt.took, waited, err, tt.want)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := Share(0.01)(ctx, time.Second); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want %v", err, context.DeadlineExceeded)
		}
	})
}

func TestWindowOf(t *testing.T) {
	for _, tt := range []struct {
		size int64
		want int
	}{{0, 16}, {1, 16}, {1<<16 - 1, 16}, {1 << 16, 17}, {1 << 17, 18}, {1 << 40, 20}, {Unknown, 20}} {
		if got := windowOf(tt.size, 20); got != tt.want {
			t.Errorf("%d bytes: window 2^%d, want 2^%d", tt.size, got, tt.want)
		}
	}
}
