package meter

import (
	"fmt"
	"unicode/utf8"
)

// reader walks a part of the source. The first fault sticks: later reads
// return zero and leave it in place, so that a loop needs to look at err only
// where it would otherwise go on for long.
type reader struct {
	src  []byte
	off  int    // next byte, counted from the beginning of the source
	end  int    // where this part ends
	part string // what is being read, for messages
	err  error
}

// sub returns a reader for the next n bytes and passes over them.
func (r *reader) sub(n uint32, part string) *reader {
	s := &reader{src: r.src, off: r.off, end: r.off, part: part}
	if uint64(n) > uint64(r.left()) {
		r.fail("the %s is said to have %d bytes, %d are left", part, n, r.left())
		s.err = r.err
		return s
	}
	s.end = r.off + int(n)
	r.off = s.end
	return s
}

func (r *reader) left() int { return r.end - r.off }

// fail records a fault at the present place.
func (r *reader) fail(format string, args ...any) { r.failAt(r.off, format, args...) }

func (r *reader) failAt(off int, format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("meter: %s, byte %#x: %s", r.part, off, fmt.Sprintf(format, args...))
	}
	r.off = r.end
}

func (r *reader) byte() byte {
	if r.off >= r.end {
		r.fail("cut short")
		return 0
	}
	b := r.src[r.off]
	r.off++
	return b
}

// skip passes over n bytes.
func (r *reader) skip(n int) {
	if n > r.left() {
		r.fail("cut short")
		return
	}
	r.off += n
}

// bytes returns the next n bytes of the source, not copied.
func (r *reader) bytes(n uint32) []byte {
	if uint64(n) > uint64(r.left()) {
		r.fail("cut short")
		return nil
	}
	b := r.src[r.off : r.off+int(n)]
	r.off += int(n)
	return b
}

// u32 reads an unsigned LEB128 number of at most 32 bits and five bytes.
func (r *reader) u32() uint32 {
	if r.off < r.end && r.src[r.off] < 0x80 {
		r.off++
		return uint32(r.src[r.off-1])
	}
	var v uint32
	for shift := 0; shift < 35; shift += 7 {
		b := r.byte()
		if r.err != nil {
			return 0
		}
		if shift == 28 && b > 0x0f {
			break
		}
		v |= uint32(b&0x7f) << shift
		if b < 0x80 {
			return v
		}
	}
	r.fail("a number of more than 32 bits")
	return 0
}

// signed reads a signed LEB128 number of at most bits bits. Bits past the
// last must repeat its sign, as the specification asks.
func (r *reader) signed(bits int) int64 {
	var v int64
	for shift := 0; ; shift += 7 {
		b := r.byte()
		if r.err != nil {
			return 0
		}
		v |= int64(b&0x7f) << shift
		rest := bits - shift
		if rest <= 7 {
			// The bits from the sign bit upwards are all alike in the last byte.
			top := int8(b<<1) >> rest
			if b >= 0x80 || top != 0 && top != -1 {
				r.fail("a number of more than %d bits", bits)
				return 0
			}
		}
		if b < 0x80 {
			if shift+7 < 64 && b&0x40 != 0 {
				v |= -1 << (shift + 7)
			}
			return v
		}
	}
}

// count reads the number of items that follow; each has at least size bytes,
// so that a count bigger than the rest could hold is refused before anything
// is allocated for it.
func (r *reader) count(size, limit int, what string) int {
	at := r.off
	n := r.u32()
	if uint64(n)*uint64(size) > uint64(r.left()) {
		r.failAt(at, "%d %s are said to follow, but %d bytes are left", n, what, r.left())
		return 0
	}
	if uint64(n) > uint64(limit) {
		r.failAt(at, "%d %s; at most %d are taken", n, what, limit)
		return 0
	}
	return int(n)
}

func (r *reader) name() string {
	at := r.off
	b := r.bytes(r.u32())
	if !utf8.Valid(b) {
		r.failAt(at, "a name that is not UTF-8")
		return ""
	}
	return string(b)
}

// appendU32 appends v in LEB128.
func appendU32(b []byte, v uint32) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

// appendS64 appends v in signed LEB128.
func appendS64(b []byte, v int64) []byte {
	for v < -64 || v > 63 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v)&0x7f)
}

func appendName(b []byte, s string) []byte {
	return append(appendU32(b, uint32(len(s))), s...)
}

// sized calls fill and puts the length of what it appended before it.
func sized(b []byte, fill func([]byte) []byte) []byte {
	const room = 5
	at := len(b)
	b = fill(append(b, make([]byte, room)...))
	n := len(b) - at - room
	var head [room]byte
	h := appendU32(head[:0], uint32(n))
	copy(b[at:], h)
	copy(b[at+len(h):], b[at+room:])
	return b[:at+len(h)+n]
}
