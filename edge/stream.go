package edge

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"seawall/edge/store"
)

const (
	// writeStall is how long a client may take for one write of a block, or for
	// a block's bytes of a longer write. One that takes nothing more is cut within
	// this time, or twice this of a longer write of which it took a block before:
	// nothing tells when it did.
	writeStall = 30 * time.Second
	// stallSlack is how much less it may be: a deadline costs as much as a small
	// write, so one holds for all writes that begin within this time.
	stallSlack = time.Second
	// stallBytes are the bytes of a block.
	stallBytes = 64 << 10
	// gathered is how many blocks go to a connection in one system call. Each
	// call of its own wakes the client and pushes a segment: a body of 1 MiB
	// costs a fifth more in 16 of them than in one.
	gathered = 16
)

// stream copies r to the client as it arrives. It reports false when the
// client is gone; a body that breaks breaks the client's connection too, so
// that nobody takes the part for the whole.
func (x *exchange) stream(r *store.Reader, to io.Writer) bool {
	s := &sending{to: to, rc: http.NewResponseController(x.w)}
	s.gather(x)
	defer func() {
		r.Close() // no cut after this, so none can end the next answer's write
		s.untimed()
	}()
	r.OnCut(s.cutOff)
	for {
		if r.Waiting() {
			s.timed()
			_ = s.rc.Flush() // a client that is gone shows at the next write
			s.untimed()      // in HTTP/2 it would end the stream while the body is waited for
		}
		blocks, err := r.NextBlocks(x.r.Context(), s.room)
		if err == io.EOF {
			return true
		}
		if err != nil {
			x.broken(err)
			return false
		}
		s.timed()
		if s.cut.Load() {
			x.broken(store.ErrStalled) // a deadline just set must not outlive the cut
		}
		n, err := s.write(blocks)
		x.bytes += n
		if err != nil {
			if s.cut.Load() {
				x.broken(store.ErrStalled)
			}
			if errors.Is(err, os.ErrDeadlineExceeded) {
				x.h.Stats.Fault(FaultStalledRead)
			}
			return false
		}
	}
}

// sending is how blocks go to one client. Only cutOff may be called by another
// goroutine.
type sending struct {
	to     io.Writer
	from   io.ReaderFrom // to, where it takes several blocks at once; else nil
	rc     *http.ResponseController
	cut    atomic.Bool
	since  time.Time // when the deadline was set; zero when there is none
	room   [][]byte  // of blocks
	blocks [gathered][]byte
	left   net.Buffers // of a write of several
}

// gather decides how many blocks one write takes. In HTTP/1 in clear net/http
// hands a net.Buffers down to the connection, where the kernel takes its slices
// in one call, unless it must frame the content itself. Elsewhere they are
// copied or encrypted piece by piece.
func (s *sending) gather(x *exchange) {
	s.room = s.blocks[:0:1]
	if x.r.ProtoMajor != 1 || x.r.TLS != nil || len(x.w.Header()["Content-Length"]) == 0 {
		return
	}
	if from, ok := s.to.(io.ReaderFrom); ok {
		s.from, s.room = from, s.blocks[:0]
	}
}

// timed gives the next write its time.
func (s *sending) timed() {
	if now := time.Now(); now.Sub(s.since) >= stallSlack {
		s.since = now
		_ = s.rc.SetWriteDeadline(now.Add(writeStall)) // not every writer has one
	}
}

// untimed hands the time of writes back to the server.
func (s *sending) untimed() {
	if !s.since.IsZero() || s.cut.Load() {
		s.since = time.Time{}
		_ = s.rc.SetWriteDeadline(time.Time{})
	}
}

// cutOff ends the write that is under way, and those that come.
func (s *sending) cutOff() {
	s.cut.Store(true)
	_ = s.rc.SetWriteDeadline(time.Now())
}

// write writes blocks and returns how many bytes the client, or its
// connection's buffer, took.
func (s *sending) write(blocks [][]byte) (all int64, err error) {
	if len(blocks) == 1 {
		n, err := s.to.Write(blocks[0])
		return int64(n), err
	}
	for s.left = blocks; ; {
		n, err := s.from.ReadFrom(&s.left)
		all += n
		if n < stallBytes || s.cut.Load() || !errors.Is(err, os.ErrDeadlineExceeded) {
			return all, err
		}
		s.since = time.Time{} // it is slow, and takes a block in its time
		s.timed()
		if s.cut.Load() {
			return all, err
		}
	}
}

// broken ends an answer whose content broke: the connection is closed, or the
// stream reset.
func (x *exchange) broken(err error) {
	switch {
	case errors.Is(err, store.ErrStalled):
		x.status.detail = "stalled-reader"
		x.h.Stats.Fault(FaultStalledRead)
	case x.r.Context().Err() != nil || errors.Is(err, context.Canceled):
		x.status.detail = "client-gone"
	default:
		x.status.detail = "incomplete"
		x.h.words.say(slog.LevelWarn, "response broken off", "site", x.site.Name, "url", clip(x.url()), "err", err)
	}
	// What is here goes out first, so that the client sees where it broke.
	_ = http.NewResponseController(x.w).Flush()
	panic(http.ErrAbortHandler)
}
