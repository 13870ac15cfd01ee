package encode

import (
	"context"
	"fmt"
	"io"
	"math/bits"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Pace is called between the steps of Best with the time that the last one took.
// It may wait. Its error ends the work.
type Pace func(ctx context.Context, took time.Duration) error

// Share returns a Pace that leaves Best this share of one processor, above 0 and
// up to 1, by waiting after each step. Time counts as it passes, not as the
// processor spends it: on a busy machine the worker so yields all the more.
func Share(share float64) Pace {
	return func(ctx context.Context, took time.Duration) error {
		if share >= 1 {
			return ctx.Err()
		}
		// No step waits more than an hour, whatever the share.
		wait := min(float64(took)*(1/max(share, 1e-6)-1), float64(time.Hour))
		timer := time.NewTimer(time.Duration(wait))
		defer timer.Stop()
		select {
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Best compresses src to dst as densely as c allows, for a worker that has time:
// brotli 11, zstd's best level, gzip 9. It returns the bytes written. size is the
// length of src in bytes or Unknown; it decides the window.
//
// It works in its caller's goroutine, in steps, and between two of them looks at
// ctx and calls pace, which may be nil. A step is at most 20 ms for gzip and zstd;
// brotli gathers 256 KiB for one, which is about a second of work. An error is
// that of src, dst, ctx or pace, as it is, or io.ErrUnexpectedEOF where src has
// another length than size; dst then holds no whole coding.
//
// It holds up to 24 MiB for brotli (6 MiB for content of 128 KiB), 41 MiB for
// zstd and 2 MiB for gzip, so a node should run one at a time. Speed beside the
// encoders of Coders: a fiftieth, a fifteenth, a quarter.
func Best(ctx context.Context, c Coding, dst io.Writer, src io.Reader, size int64, pace Pace) (written int64, err error) {
	out := &sink{dst: dst}
	defer func() {
		written = out.n
		if v := recover(); v != nil {
			err = fmt.Errorf("encode: panic: %v", v)
		}
		if out.err != nil {
			err = out.err
		}
	}()
	w, err := bestWriter(c, out, size)
	if err != nil {
		return 0, err
	}
	read, piece := int64(0), make([]byte, 32<<10)
	for {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		n, rerr := src.Read(piece)
		start := time.Now()
		if _, err := w.Write(piece[:n]); err != nil {
			return 0, err
		}
		read += int64(n)
		if rerr == io.EOF {
			if size >= 0 && read != size {
				return 0, io.ErrUnexpectedEOF // a whole coding of a part would look whole
			}
			return 0, w.Close()
		}
		if rerr == nil && pace != nil {
			rerr = pace(ctx, time.Since(start))
		}
		if rerr != nil {
			return 0, rerr
		}
	}
}

// Windows of Best, as powers of two. Beyond them memory grows faster than the
// ratio: brotli holds 49 MiB for 0.8 % with a window of 4 MiB.
const (
	bestBrotliWindow = 20
	bestZstdWindow   = 22
)

func bestWriter(c Coding, dst io.Writer, size int64) (io.WriteCloser, error) {
	switch c {
	case Gzip:
		return gzip.NewWriterLevel(dst, gzip.BestCompression)
	case Brotli:
		return brotli.NewWriterOptions(dst, brotli.WriterOptions{
			Quality: brotli.BestCompression, LGWin: windowOf(size, bestBrotliWindow),
		}), nil
	case Zstd:
		w := newZstd(zstd.SpeedBestCompression, 1<<windowOf(size, bestZstdWindow))
		// The length in the frame's header lets decoders allocate once.
		w.ResetContentSize(dst, max(0, size))
		return w, nil
	}
	return nil, fmt.Errorf("%w: %v", ErrUnknown, c)
}

// windowOf returns the power of two that covers size, from 16 up to most.
func windowOf(size int64, most int) int {
	if size < 0 {
		return most
	}
	return min(max(16, bits.Len64(uint64(size))), most)
}
