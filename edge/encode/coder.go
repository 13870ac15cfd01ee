package encode

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// shape is a kind of coder that can stand in for another of its kind: a coding
// and the size of its window.
type shape uint8

const (
	gzipAny   shape = iota
	brotli64K       // window of 64 KiB
	brotli256K
	zstd64K
	zstd256K
	shapes
)

// The qualities are those at which the ratio begins to cost more time than it
// saves bytes. Measured over HTML, CSS, JS, JSON, SVG and WASM of 3.6 MB, ratio
// and speed relative to brotli 5: brotli 4 3.85, 2.2; brotli 5 4.11, 1; brotli 6
// 4.16, 0.8; gzip 6 3.76, 4; zstd default 3.69, 6; zstd better 3.87, 3.5 with
// twice the memory. A window of 1 MiB instead of 256 KiB gains brotli 1 % on a
// file of 2.6 MB and costs 6 MiB. What is worth more is made again by Best.
const (
	brotliQuality = 5
	gzipLevel     = 6
	zstdLevel     = zstd.SpeedDefault
)

// cost is the memory that a coder of this shape holds, in bytes, rounded up from
// what was measured. A test holds it.
func (s shape) cost() int64 {
	return [shapes]int64{
		gzipAny:    1280 << 10,
		brotli64K:  2048 << 10,
		brotli256K: 4352 << 10,
		zstd64K:    2048 << 10,
		zstd256K:   2560 << 10,
	}[s]
}

// shapeOf returns the shape for a coding and the size of what is to be coded. A
// window wider than the content only costs memory.
func shapeOf(c Coding, size int64) (shape, bool) {
	small := size == Endless || size >= 0 && size <= 64<<10
	switch {
	case c == Gzip:
		return gzipAny, true
	case c == Brotli && small:
		return brotli64K, true
	case c == Brotli:
		return brotli256K, true
	case c == Zstd && small:
		return zstd64K, true
	case c == Zstd:
		return zstd256K, true
	}
	return 0, false
}

// Sizes that Acquire takes besides a number of bytes.
const (
	// Unknown is content whose length is not known.
	Unknown int64 = -1
	// Endless is a stream that may last for hours, as event streams do. It gets
	// the smallest window, and all of them together at most half of the coders
	// and of the memory, so that they cannot starve the rest.
	Endless int64 = -2
)

// Coders hands out encoders within a number and a memory budget. It has no
// goroutines. Its methods may be called at once.
type Coders struct {
	max    int
	memory int64

	mu    sync.Mutex
	idle  [shapes][]*coder // guarded by mu, as are the fields below
	stats CodersStats
	// in use by what may take as long as others like, and of that by streams
	lasting, endless share
}

// share is how many coders are in use for one purpose, and their memory.
type share struct {
	n      int
	memory int64
}

func (s *share) add(n int, memory int64) {
	s.n += n
	s.memory += int64(n) * memory
}

// CodersStats are figures of Coders at one moment.
type CodersStats struct {
	Busy    int    // encoders in use
	Memory  int64  // bytes held, in use and idle
	Refused uint64 // calls of Acquire that got none, since the start
	Broken  uint64 // coders thrown away after a panic, since the start
}

// NewCoders returns Coders of at most max encoders at once that hold at most
// memory bytes, in use and idle. 0 is the default: eight for each processor, and
// what they need up to 64 MiB. A coder holds 1.3 MiB (gzip), 2 or 4.3 MiB (br), 2
// or 2.5 MiB (zstd); the smaller ones are for content of up to 64 KiB.
func NewCoders(max int, memory int64) *Coders {
	if max <= 0 {
		max = 8 * runtime.GOMAXPROCS(0)
	}
	if memory <= 0 {
		memory = min(int64(max)*brotli256K.cost(), 64<<20)
	}
	return &Coders{max: max, memory: memory}
}

// Stats returns the figures of this moment.
func (cs *Coders) Stats() CodersStats {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return cs.stats
}

// Acquire returns an encoder that writes the coding of what it is given to dst,
// or false at once when none is free or c cannot be made: the caller sends
// identity. size is the length of the content in bytes, Unknown or Endless. The
// caller must Close or Abort the encoder, best by a deferred Abort.
//
// It is for content that comes, or goes, as slowly as an origin or a client
// likes: a quarter of the coders and of the memory is not for it.
func (cs *Coders) Acquire(c Coding, size int64, dst io.Writer) (*Encoder, bool) {
	return cs.acquire(c, size, dst, use{lasting: true, endless: size == Endless})
}

// AcquireWhole is Acquire for content that is here to its end and a destination
// that does not wait: nobody can hold the encoder for longer than it works. All
// coders are for it.
func (cs *Coders) AcquireWhole(c Coding, size int64, dst io.Writer) (*Encoder, bool) {
	return cs.acquire(c, size, dst, use{})
}

// use is what an encoder is for.
type use struct{ lasting, endless bool }

func (cs *Coders) acquire(c Coding, size int64, dst io.Writer, u use) (*Encoder, bool) {
	s, ok := shapeOf(c, size)
	if !ok {
		return nil, false
	}
	e := &Encoder{coders: cs, use: u}
	k, ok := cs.take(s, u)
	if !ok {
		return nil, false
	}
	if k == nil {
		k = newCoder(s)
	}
	k.sink = sink{dst: dst}
	e.coder = k
	defer e.contain(&e.err)
	k.w.Reset(&k.sink)
	return e, true
}

// take reserves a coder. It is nil when one must be made.
func (cs *Coders) take(s shape, u use) (*coder, bool) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.stats.Busy >= cs.max || u.lasting && !cs.roomForLastingLocked(s) || u.endless && !cs.roomForEndlessLocked(s) {
		cs.stats.Refused++
		return nil, false
	}
	var k *coder
	if n := len(cs.idle[s]); n > 0 {
		// The last one given back: its tables are still in the processor's cache.
		k = cs.idle[s][n-1]
		cs.idle[s][n-1] = nil
		cs.idle[s] = cs.idle[s][:n-1]
	} else {
		if !cs.makeRoomLocked(s.cost()) {
			cs.stats.Refused++
			return nil, false
		}
		cs.stats.Memory += s.cost()
	}
	cs.stats.Busy++
	cs.countLocked(u, 1, s)
	return k, true
}

func (cs *Coders) countLocked(u use, n int, s shape) {
	if u.lasting {
		cs.lasting.add(n, s.cost())
	}
	if u.endless {
		cs.endless.add(n, s.cost())
	}
}

// roomForLastingLocked is true for the first one, however little there is.
func (cs *Coders) roomForLastingLocked(s shape) bool {
	left := cs.max / 4
	memory := min(int64(left)*brotli256K.cost(), cs.memory/4)
	return cs.lasting.n == 0 || cs.lasting.n < cs.max-left && cs.lasting.memory+s.cost() <= cs.memory-memory
}

func (cs *Coders) roomForEndlessLocked(s shape) bool {
	return cs.endless.n < cs.max/2 && cs.endless.memory+s.cost() <= cs.memory/2
}

// makeRoomLocked drops idle coders until need bytes fit the budget.
func (cs *Coders) makeRoomLocked(need int64) bool {
	for s := range cs.idle {
		for len(cs.idle[s]) > 0 && cs.stats.Memory+need > cs.memory {
			last := len(cs.idle[s]) - 1
			cs.idle[s][last] = nil
			cs.idle[s] = cs.idle[s][:last]
			cs.stats.Memory -= shape(s).cost()
		}
	}
	return cs.stats.Memory+need <= cs.memory
}

// give takes a coder back.
func (cs *Coders) give(k *coder, u use) {
	k.sink = sink{}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.stats.Busy--
	cs.countLocked(u, -1, k.shape)
	if k.broken {
		cs.stats.Broken++
		cs.stats.Memory -= k.shape.cost()
		return
	}
	cs.idle[k.shape] = append(cs.idle[k.shape], k)
}

// coder is a library's encoder that is used again and again.
type coder struct {
	shape  shape
	w      compressor
	sink   sink
	broken bool // it panicked; nothing is known of its state
}

// compressor is what the three libraries have in common.
type compressor interface {
	io.WriteCloser
	Flush() error
	Reset(io.Writer)
}

func newCoder(s shape) *coder {
	k := &coder{shape: s}
	switch s {
	case gzipAny:
		// The header has neither name nor time, so equal content gives equal bytes.
		k.w = must(gzip.NewWriterLevel(io.Discard, gzipLevel))
	case brotli64K:
		k.w = brotli.NewWriterOptions(io.Discard, brotli.WriterOptions{Quality: brotliQuality, LGWin: 16})
	case brotli256K:
		k.w = brotli.NewWriterOptions(io.Discard, brotli.WriterOptions{Quality: brotliQuality, LGWin: 18})
	case zstd64K:
		k.w = newZstd(zstdLevel, 64<<10)
	case zstd256K:
		k.w = newZstd(zstdLevel, 256<<10)
	}
	return k
}

// newZstd returns an encoder that works in its caller's goroutine. It adds no
// checksum: the connection below has one.
func newZstd(level zstd.EncoderLevel, window int) *zstd.Encoder {
	return must(zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithWindowSize(window),
		zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true)))
}

// must is for constructors that fail only on options out of range.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// sink is where a coder writes. It keeps the coder from holding on to the
// destination, and the destination's error from being replaced by the library's.
type sink struct {
	dst io.Writer
	n   int64
	err error
}

func (s *sink) Write(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	if s.dst == nil {
		return 0, ErrClosed
	}
	n, err := s.dst.Write(p)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	s.n, s.err = s.n+int64(n), err
	return n, err
}

// ErrClosed is returned by an Encoder or Decoder that was closed.
var ErrClosed = errors.New("encode: already closed")

// Encoder compresses one content. It is for one goroutine at a time. After an
// error all further calls return it.
type Encoder struct {
	coders  *Coders
	coder   *coder // nil once given back
	use     use
	written int64
	err     error
}

// Write compresses p. What comes out of it may reach the destination only with
// later calls: a coder gathers up to 128 KiB before it writes. A caller that has
// nothing more for now should Flush, or its client waits for bytes that are here.
func (e *Encoder) Write(p []byte) (n int, err error) {
	if e.err != nil || e.coder == nil {
		return 0, e.failed()
	}
	defer e.contain(&err)
	return e.coder.w.Write(p)
}

// Flush writes all that was given so far, so that it can be decoded at once. It
// costs a few bytes and some of the ratio.
func (e *Encoder) Flush() (err error) {
	if e.err != nil || e.coder == nil {
		return e.failed()
	}
	defer e.contain(&err)
	return e.coder.w.Flush()
}

// Close writes what is left and the coding's end, and gives the coder back. Its
// error says that the destination has not all of it. Calls after the first
// return the same.
func (e *Encoder) Close() error {
	if e.coder != nil {
		if e.err == nil {
			e.finish()
		}
		e.release()
	}
	return e.err
}

func (e *Encoder) finish() {
	var err error
	defer e.contain(&err)
	err = e.coder.w.Close()
}

// Abort gives the coder back without ending the coding: what the destination has
// does not decode. It does nothing after Close.
func (e *Encoder) Abort() {
	if e.coder != nil {
		if e.err == nil {
			e.err = ErrClosed
		}
		e.release()
	}
}

// Written returns how many bytes the destination has taken.
func (e *Encoder) Written() int64 {
	if e.coder != nil {
		return e.coder.sink.n
	}
	return e.written
}

func (e *Encoder) release() {
	e.written = e.coder.sink.n
	e.coders.give(e.coder, e.use)
	e.coder = nil
}

func (e *Encoder) failed() error {
	if e.err == nil {
		return ErrClosed
	}
	return e.err
}

// contain turns a panic below into an error and remembers the first error. The
// destination's own error comes first: a caller may act on it.
func (e *Encoder) contain(err *error) {
	if v := recover(); v != nil {
		e.coder.broken = true
		*err = fmt.Errorf("encode: panic: %v", v)
	}
	if e.coder.sink.err != nil {
		*err = e.coder.sink.err
	}
	if *err != nil {
		e.err = *err
	}
}
