package encode

import (
	"bufio"
	"errors"
	"io"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

// maxWindow is the widest zstd window that a response may ask for, in bytes
// (RFC 9659, 3).
const maxWindow = 8 << 20

// library is a decoder of one of the libraries, with the buffer that it reads
// through where it needs one.
type library struct {
	kind libraryKind
	r    io.Reader
	buf  *bufio.Reader // gzip, zlib and bare deflate
}

// libraryKind is what a library can be used again for.
type libraryKind uint8

const (
	gzipReader libraryKind = iota
	zlibReader
	flateReader
	brotliReader
	zstdReader
	libraryKinds
)

// Decoders hands out decoders within a number. It has no goroutines. Its methods
// may be called at once.
type Decoders struct {
	max  int64
	busy atomic.Int64
	// free are decoders that wait for use. The garbage collector may have them:
	// none needs a close.
	free [libraryKinds]sync.Pool
}

// NewDecoders returns Decoders of at most max at once, counting one for each
// coding of a stack; 0 is four for each processor. One holds up to 9 MiB (zstd),
// 17 MiB (br) or 0.1 MiB (gzip, deflate), by what its content asks for.
func NewDecoders(max int) *Decoders {
	if max <= 0 {
		max = 4 * runtime.GOMAXPROCS(0)
	}
	return &Decoders{max: int64(max)}
}

// Busy returns how many are in use.
func (ds *Decoders) Busy() int { return int(ds.busy.Load()) }

// reserve takes n at once, or none.
func (ds *Decoders) reserve(n int) bool {
	if ds.busy.Add(int64(n)) > ds.max {
		ds.busy.Add(-int64(n))
		return false
	}
	return true
}

// open returns a decoder that reads from src. It may read from it already.
func (ds *Decoders) open(c Coding, src io.Reader) (*library, error) {
	switch c {
	case Gzip:
		return ds.openGzip(src)
	case Deflate:
		return ds.openDeflate(src)
	case Brotli:
		return ds.openBrotli(src)
	}
	return ds.openZstd(src)
}

// reuse returns one that waited, or nil.
func (ds *Decoders) reuse(kind libraryKind) *library {
	l, _ := ds.free[kind].Get().(*library)
	return l
}

// release makes the library ready for the next, without a hold on its source.
func (ds *Decoders) release(l *library) {
	if l.buf != nil {
		l.buf.Reset(nothing{})
	}
	switch r := l.r.(type) {
	case *brotli.Reader:
		_ = r.Reset(nothing{}) // never fails
	case *zstd.Decoder:
		if r.Reset(nil) != nil {
			return
		}
	}
	ds.free[l.kind].Put(l)
}

type nothing struct{}

func (nothing) Read([]byte) (int, error) { return 0, io.EOF }

func (ds *Decoders) openGzip(src io.Reader) (*library, error) {
	l := ds.reuse(gzipReader)
	if l == nil {
		l = &library{kind: gzipReader, r: new(members), buf: bufio.NewReader(nil)}
	}
	l.buf.Reset(src)
	return l, l.r.(*members).reset(l.buf)
}

// members reads the members of a gzip content one after another (RFC 1952, 2.2).
// The library can do so too, but takes one that is cut within the name in its
// header for the content's end.
type members struct {
	gzip.Reader
	buf *bufio.Reader
}

func (m *members) reset(buf *bufio.Reader) error {
	m.buf = buf
	err := m.Reader.Reset(buf)
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	m.Multistream(false)
	return err
}

func (m *members) Read(p []byte) (int, error) {
	for {
		n, err := m.Reader.Read(p)
		if err != io.EOF {
			return n, err
		}
		if n > 0 {
			return n, nil // the end comes with the next call
		}
		if _, err := m.buf.Peek(1); err != nil {
			return 0, err
		}
		if err := m.reset(m.buf); err != nil {
			return 0, err
		}
	}
}

// openDeflate tells the zlib form from the bare one by its two bytes of header.
// Bare deflate that begins alike is a stored block whose padding is not zero,
// which no encoder writes.
func (ds *Decoders) openDeflate(src io.Reader) (*library, error) {
	buf := bufio.NewReader(src)
	head, err := buf.Peek(2)
	if err != nil && err != io.EOF {
		return nil, err
	}
	if len(head) == 2 && head[0]&0x0f == 8 && head[0]>>4 <= 7 && (uint(head[0])<<8|uint(head[1]))%31 == 0 {
		return ds.openZlib(buf)
	}
	l := ds.reuse(flateReader)
	if l == nil {
		l = &library{kind: flateReader, r: flate.NewReader(nothing{})}
	}
	l.buf = buf
	return l, l.r.(flate.Resetter).Reset(l.buf, nil)
}

func (ds *Decoders) openZlib(buf *bufio.Reader) (*library, error) {
	l := ds.reuse(zlibReader)
	if l == nil {
		r, err := zlib.NewReader(buf)
		if err != nil {
			return nil, err
		}
		return &library{kind: zlibReader, r: r, buf: buf}, nil
	}
	l.buf = buf
	return l, l.r.(zlib.Resetter).Reset(buf, nil)
}

func (ds *Decoders) openBrotli(src io.Reader) (*library, error) {
	l := ds.reuse(brotliReader)
	if l == nil {
		l = &library{kind: brotliReader, r: new(brotli.Reader)}
	}
	return l, l.r.(*brotli.Reader).Reset(src)
}

func (ds *Decoders) openZstd(src io.Reader) (*library, error) {
	l := ds.reuse(zstdReader)
	if l == nil {
		l = &library{kind: zstdReader, r: must(zstd.NewReader(nil,
			zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true)))}
	}
	return l, l.r.(*zstd.Decoder).Reset(src)
}

// unread tells whether there are bytes after those that the coding took.
func (l *library) unread(src io.Reader) (more bool, err error) {
	if l.buf != nil {
		src = l.buf
	}
	var one [1]byte
	n, err := io.ReadFull(src, one[:])
	return n > 0, err
}

// tooLarge tells whether the library refuses the memory that the content asks for.
func tooLarge(err error) bool {
	return errors.Is(err, zstd.ErrWindowSizeExceeded) || errors.Is(err, zstd.ErrDecoderSizeExceeded)
}
