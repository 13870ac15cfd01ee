package listen

import (
	"errors"
	"time"
)

// errFlood ends an HTTP/2 connection whose client sends frames that cost the
// node work and carry nothing.
var errFlood = errors.New("too many control frames")

// The types of frames that frames charges for (RFC 9113, 6).
const (
	frameData         = 0x0
	framePriority     = 0x2
	frameReset        = 0x3
	frameSettings     = 0x4
	framePing         = 0x6
	frameGoAway       = 0x7
	frameWindowUpdate = 0x8
	frameContinuation = 0x9
)

const (
	// framesBurst and framesASecond are the allowance of one connection.
	// Browsers stay far below: they cancel some streams when a page is left,
	// ping now and then, and send settings once.
	framesBurst   = 1000
	framesASecond = 100
	frameHeader   = 9
	flagEndStream = 0x1
	// bytesAnUpdate is what a WINDOW_UPDATE must have been preceded by to be
	// free, far less than the 2 KiB of the busiest known client.
	bytesAnUpdate = 256
)

// frames watches what an HTTP/2 client sends, frame by frame, and tells when
// it floods: rapid reset, CONTINUATION, SETTINGS, PING, empty DATA. net/http
// bounds most of these too; here the end comes sooner, and is counted.
// Reads of one connection never overlap.
type frames struct {
	head  [frameHeader]byte
	got   int // bytes of head so far
	skip  int // bytes left of the frame's payload
	spent int
	last  time.Time // when spent was last brought up to date

	updates int64 // WINDOW_UPDATE frames
}

// see takes the next bytes behind the preface. written is how many bytes the
// client was sent so far.
func (f *frames) see(b []byte, written int64) error {
	for len(b) > 0 {
		if f.skip > 0 {
			n := min(f.skip, len(b))
			f.skip -= n
			b = b[n:]
			continue
		}
		n := copy(f.head[f.got:], b)
		f.got += n
		b = b[n:]
		if f.got < frameHeader {
			return nil
		}
		f.got = 0
		f.skip = int(f.head[0])<<16 | int(f.head[1])<<8 | int(f.head[2])
		if err := f.charge(f.head[3], f.head[4], f.skip, written); err != nil {
			return err
		}
	}
	return nil
}

// charge takes what a frame costs from the allowance.
func (f *frames) charge(kind, flags byte, length int, written int64) error {
	cost := 0
	switch kind {
	case frameReset, frameSettings, framePing, frameContinuation, frameGoAway, framePriority:
		cost = 1
	case frameData:
		// One that ends a stream is how many clients end their content; of
		// others a few are noise, and many a flood.
		if length == 0 && flags&flagEndStream == 0 {
			cost = 1
		}
	case frameWindowUpdate:
		// Clients send two for each few KiB that they take; those cost nothing.
		if f.updates++; f.updates*bytesAnUpdate > written {
			cost = 1
		}
	default:
		if kind > frameContinuation { // extensions, which are skipped
			cost = 1
		}
	}
	if cost == 0 {
		return nil
	}
	now := time.Now()
	if back := int(now.Sub(f.last) * framesASecond / time.Second); back > 0 {
		f.spent = max(0, f.spent-back)
		f.last = now
	}
	if f.spent += cost; f.spent > framesBurst {
		return errFlood
	}
	return nil
}
