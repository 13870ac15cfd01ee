package listen

import (
	"errors"
	"net/http"
	"sync/atomic"
	"time"
)

// errFlood ends an HTTP/2 connection whose client sends frames that cost the
// node work and carry nothing.
var errFlood = errors.New("too many control frames")

// errResets ends one whose client opens streams to reset them.
var errResets = errors.New("too many resets")

// The types of frames that frames charges for (RFC 9113, 6).
const (
	frameData         = 0x0
	frameHeaders      = 0x1
	framePriority     = 0x2
	frameReset        = 0x3
	frameSettings     = 0x4
	framePing         = 0x6
	frameGoAway       = 0x7
	frameWindowUpdate = 0x8
	frameContinuation = 0x9
)

const (
	// framesBurst and framesASecond are the allowance of one connection, resets
	// apart. Browsers stay far below: they ping now and then, and send settings
	// once.
	framesBurst   = 1000
	framesASecond = 100
	// A reset costs what two requests pay, the one that is reset among them. So
	// does a stream that a client breaks in a way that makes the node reset it.
	// Who resets more runs into debt, which time also pays. Up to calmDebt costs
	// nothing; beyond it, each reset holds up its own connection for resetPause,
	// and mostDebt ends it: rapid resets end after about 400. A browser that
	// gives up all 128 streams it may have open at once has a debt of 256, and
	// may do so again at once, or for ever every second and a half.
	calmDebt      = 64
	mostDebt      = 400
	debtASecond   = 100
	resetPause    = time.Millisecond
	frameHeader   = 9
	flagEndStream = 0x1
	// bytesAnUpdate is what a WINDOW_UPDATE must have been preceded by to be
	// free, far less than the 2 KiB of the busiest known client.
	bytesAnUpdate = 256
)

// frames watches what an HTTP/2 client sends, frame by frame, and tells when
// it floods: rapid reset, CONTINUATION, SETTINGS, PING, empty DATA. net/http
// bounds most of these too; here the end comes sooner, and is counted.
// Reads of one connection never overlap, so only cut is shared.
type frames struct {
	head  [frameHeader]byte
	got   int // bytes of head so far
	skip  int // bytes left of the frame's payload
	spent int
	last  time.Time // when spent was last brought up to date

	updates int64 // WINDOW_UPDATE frames

	debt   int           // of resets
	paid   time.Time     // when time last paid of it
	paused time.Duration // to be waited before more is read

	resets  int64        // RST_STREAM frames
	induced int64        // streams charged for that ended early without one
	cut     atomic.Int64 // exchanges whose stream ended before they did
}

// answered takes note of an exchange whose handler has returned. Its context
// tells whether the stream ended before: by a reset of the client, or by one
// that the client made the node send, as by DATA behind the end of content.
func (f *frames) answered(r *http.Request) {
	if r.ProtoMajor == 2 && r.Context().Err() != nil {
		f.cut.Add(1)
	}
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
	case frameHeaders:
		f.debt = max(0, f.debt-1)
		return f.chargeInduced()
	case frameReset:
		f.resets++
		if !f.mayReset(time.Now()) {
			return errResets
		}
	case frameSettings, framePing, frameContinuation, frameGoAway, framePriority:
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
	f.spent = max(0, f.spent-earned(&f.last, now, framesASecond))
	if f.spent += cost; f.spent > framesBurst {
		return errFlood
	}
	return nil
}

// chargeInduced charges for the exchanges that were cut short without a reset
// by the client.
func (f *frames) chargeInduced() error {
	for ; f.resets+f.induced < f.cut.Load(); f.induced++ {
		if !f.mayReset(time.Now()) {
			return errResets
		}
	}
	return nil
}

// mayReset charges for one more reset, and tells whether there was room
// for it.
func (f *frames) mayReset(now time.Time) bool {
	f.debt = max(0, f.debt-earned(&f.paid, now, debtASecond))
	if f.debt += 2; f.debt > calmDebt {
		f.paused += resetPause
	}
	return f.debt <= mostDebt
}

// pause returns how long the connection is to wait before it reads on.
func (f *frames) pause() time.Duration {
	d := f.paused
	f.paused = 0
	return d
}

// earned returns how many of so many a second the time since last is worth, at
// most a minute's, and moves last on by as much. The zero time begins it.
func earned(last *time.Time, now time.Time, aSecond int) int {
	each := time.Second / time.Duration(aSecond)
	if now.Sub(*last) > time.Minute {
		*last = now.Add(-time.Minute)
	}
	n := now.Sub(*last) / each
	*last = last.Add(n * each)
	return int(n)
}
