package encode

import (
	"errors"
	"fmt"
	"io"
)

// Limits bound what a Decoder may make of what it is given. The zero value has
// the defaults.
type Limits struct {
	// Ratio is how many bytes may come of each byte read; 0 is 100, negative no
	// bound. Text compresses 3 to 30 times, a generated page or a log perhaps 60.
	Ratio int64
	// Grace is how many bytes may come whatever the ratio, as a short file of
	// one character is no attack; 0 is 1 MiB, negative none.
	Grace int64
	// Size is how many bytes may come in all; 0 is no bound.
	Size int64
}

const (
	defaultRatio = 100
	defaultGrace = 1 << 20
)

// allowed returns how many bytes may have been decoded after in bytes were read.
func (l Limits) allowed(in int64) int64 {
	const most = int64(^uint64(0) >> 1)
	ratio, grace, size := l.Ratio, l.Grace, l.Size
	if ratio == 0 {
		ratio = defaultRatio
	}
	if grace == 0 {
		grace = defaultGrace
	}
	if size <= 0 {
		size = most
	}
	if ratio < 0 || in > (most-max(0, grace))/ratio {
		return size
	}
	return min(size, max(0, grace)+in*ratio)
}

// Errors of a Decoder besides io.ErrUnexpectedEOF, which is content that ends
// too early, and the errors of its source, which it returns as they are.
var (
	// ErrMalformed is content that is not of its coding, or has more behind it.
	ErrMalformed = errors.New("encode: malformed content")
	// ErrBomb is content that grew past its Limits, or asks for more memory
	// than a decoder may have.
	ErrBomb = errors.New("encode: content grows past its limit")
	// ErrUnknown is a coding that cannot be decoded.
	ErrUnknown = errors.New("encode: unknown coding")
	// ErrBusy says that as many decoders are in use as there may be.
	ErrBusy = errors.New("encode: too many decoders in use")
)

// Decoder is the content under one or more codings. It is for one goroutine at a
// time. After an error all further calls return it.
type Decoder struct {
	from   *Decoders
	src    source
	limits Limits
	stages []stage // the first reads src, the last gives what Read returns
	err    error
}

// NewReader returns a reader of what was coded by stack, in the order of
// Content-Encoding: the last was applied last. It starts to read with the first
// Read. It fails with ErrUnknown for a stack that is empty or too deep, and with
// ErrBusy at once when none is free. The caller must Close it; that does not
// close src.
//
// Read returns io.EOF only where the coding has ended, with its checksums right,
// and src with it: what is cut is io.ErrUnexpectedEOF, what has more behind it
// ErrMalformed. What grows past l is ErrBomb; no more than l allows has then been
// returned.
func (ds *Decoders) NewReader(stack []Coding, src io.Reader, l Limits) (*Decoder, error) {
	if len(stack) == 0 || len(stack) > maxStack {
		return nil, fmt.Errorf("%w: %d on one another", ErrUnknown, len(stack))
	}
	d := &Decoder{from: ds, limits: l, src: source{r: src}}
	for i := len(stack) - 1; i >= 0; i-- {
		if stack[i] == Identity || stack[i] >= codings {
			return nil, fmt.Errorf("%w: %v", ErrUnknown, stack[i])
		}
		d.stages = append(d.stages, stage{coding: stack[i], owner: d})
	}
	if !ds.reserve(len(stack)) {
		return nil, ErrBusy
	}
	var under io.Reader = &d.src
	for i := range d.stages {
		d.stages[i].in.r = under
		under = &d.stages[i]
	}
	return d, nil
}

// Read implements io.Reader.
func (d *Decoder) Read(p []byte) (n int, err error) {
	if d.err != nil {
		return 0, d.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, d.err = d.stages[len(d.stages)-1].Read(p)
	return n, d.err
}

// Consumed returns how many coded bytes were read from the source.
func (d *Decoder) Consumed() int64 { return d.src.n }

// Close gives the decoder's buffers back. Further reads return ErrClosed.
func (d *Decoder) Close() error {
	for i := range d.stages {
		d.stages[i].release()
	}
	d.from.busy.Add(-int64(len(d.stages)))
	d.stages = nil
	if d.err == nil || d.err == io.EOF {
		d.err = ErrClosed
	}
	return nil
}

// source is what a stage reads. It counts, and remembers how the reader below
// ended, so that a stage can tell its own end from one that was forced on it.
type source struct {
	r   io.Reader
	n   int64
	err error
}

func (s *source) Read(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	n, err := s.r.Read(p)
	s.n, s.err = s.n+int64(n), err
	if n > 0 {
		return n, nil // the error comes with the next call
	}
	return 0, err
}

// stage decodes one coding.
type stage struct {
	owner  *Decoder
	coding Coding
	in     source
	lib    *library // nil before the first Read and after release
	out    int64
	err    error
	broken bool // the library panicked: it is not used again
}

// Read returns decoded bytes, or the stage's end.
func (s *stage) Read(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	n, err := s.decode(p)
	if err != nil {
		err = s.explain(err)
	}
	s.out += int64(n)
	if allowed := s.owner.limits.allowed(s.owner.src.n); s.out > allowed {
		n -= int(min(int64(n), s.out-allowed))
		err = ErrBomb
	}
	s.err = err
	return n, err
}

// decode calls the library and turns a panic in it into an error.
func (s *stage) decode(p []byte) (n int, err error) {
	defer func() {
		if v := recover(); v != nil {
			s.broken = true
			n, err = 0, fmt.Errorf("%w: %v: panic: %v", ErrMalformed, s.coding, v)
		}
	}()
	if s.lib == nil {
		if s.lib, err = s.owner.from.open(s.coding, &s.in); err != nil {
			return 0, err
		}
	}
	return s.lib.r.Read(p)
}

// explain maps the library's error.
func (s *stage) explain(err error) error {
	switch {
	case s.in.err != nil && s.in.err != io.EOF:
		return s.in.err // the error below caused the one here
	case s.broken:
		return err
	case err == io.EOF:
		return s.ended()
	case errors.Is(err, io.ErrUnexpectedEOF):
		return io.ErrUnexpectedEOF
	case tooLarge(err):
		return fmt.Errorf("%w: %v: %v", ErrBomb, s.coding, err)
	}
	return fmt.Errorf("%w: %v: %v", ErrMalformed, s.coding, err)
}

// ended checks that nothing comes after the coding's end, and that the reader
// below ended well.
func (s *stage) ended() error {
	if s.in.n == 0 {
		return io.ErrUnexpectedEOF // no coding is empty
	}
	more, err := s.lib.unread(&s.in)
	switch {
	case more:
		return fmt.Errorf("%w: %v: more bytes after its end", ErrMalformed, s.coding)
	case err == nil || err == io.EOF:
		return io.EOF
	}
	return err
}

func (s *stage) release() {
	if s.lib != nil && !s.broken {
		s.owner.from.release(s.lib)
	}
	s.lib = nil
}
