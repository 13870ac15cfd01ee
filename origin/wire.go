package origin

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"time"
)

// wire is a connection below TLS that can say, without waiting, whether the
// server has sent anything. Where the socket can be asked (unix) nothing runs
// while it is idle; elsewhere, and on pipes, a read is pending then.
type wire struct {
	net.Conn
	raw  syscall.RawConn // nil: the socket cannot be asked
	sent atomic.Int64    // bytes given to Write so far, counted before they are

	// While asking, Read never waits. Owned by whoever owns the connection.
	asking bool
	ask    asked

	pending chan watched // result of the read that waits while idle; nil: none
	early   []byte       // what it read
	readErr error        // what it met

	ended bool // the other side sent its last byte; under TLS it should say so first

	// records follows the TLS records in what was read; nil without TLS.
	records *records
}

// records knows whether a stream of TLS records stands between two of them (RFC
// 8446, 5.1). crypto/tls keeps part of a record to itself and does not tell.
type records struct {
	head [5]byte // type, version, length
	have int     // bytes of head
	left int     // bytes of the record behind its head
}

func (r *records) follow(b []byte) {
	for len(b) > 0 {
		if r.have < len(r.head) {
			n := copy(r.head[r.have:], b)
			r.have, b = r.have+n, b[n:]
			r.left = int(r.head[3])<<8 | int(r.head[4])
		} else {
			n := min(len(b), r.left)
			r.left, b = r.left-n, b[n:]
		}
		if r.have == len(r.head) && r.left == 0 {
			r.have = 0
		}
	}
}

// inside reports whether a record has begun and not ended.
func (r *records) inside() bool { return r != nil && r.have > 0 }

// probed is how much is read to tell what came: a status line's start.
const probed = 16

type watched struct {
	b   []byte
	err error
}

// errSilent is returned by a Read that would have to wait. crypto/tls takes
// it for an expired deadline, after which a connection stays usable.
type errSilent struct{}

func (errSilent) Error() string   { return "nothing to read" }
func (errSilent) Timeout() bool   { return true }
func (errSilent) Temporary() bool { return true }

func newWire(nc net.Conn, secure bool) *wire {
	w := &wire{Conn: nc}
	if secure {
		w.records = new(records)
	}
	if sc, ok := nc.(syscall.Conn); ok && canAsk {
		if raw, err := sc.SyscallConn(); err == nil {
			w.raw = raw
			w.ask.prepare()
		}
	}
	return w
}

func (w *wire) Write(p []byte) (int, error) {
	w.sent.Add(int64(len(p)))
	return w.Conn.Write(p)
}

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.read(p)
	if w.records != nil {
		w.records.follow(p[:n])
	}
	return n, err
}

func (w *wire) read(p []byte) (int, error) {
	if w.asking && w.pending != nil {
		w.collect()
	}
	switch {
	case len(w.early) > 0:
		n := copy(p, w.early)
		w.early = w.early[n:]
		return n, nil
	case w.readErr != nil:
		return 0, w.readErr
	case !w.asking:
		n, err := w.Conn.Read(p)
		w.ended = err == io.EOF
		return n, err
	case w.raw == nil:
		return 0, errSilent{}
	}
	return w.ask.read(w.raw, p)
}

// watch makes what the server sends from now on noticeable where the socket
// cannot be asked later.
func (w *wire) watch() {
	if w.raw != nil {
		return
	}
	w.pending = make(chan watched, 1)
	if err := w.Conn.SetReadDeadline(time.Time{}); err != nil {
		w.pending <- watched{err: err}
		return
	}
	go func(nc net.Conn, done chan<- watched) {
		b := make([]byte, probed)
		n, err := nc.Read(b)
		done <- watched{b[:n], err}
	}(w.Conn, w.pending)
}

// collect ends the pending read and takes what it got.
func (w *wire) collect() {
	if err := w.Conn.SetReadDeadline(time.Unix(1, 0)); err != nil {
		w.Conn.Close()
	}
	got := <-w.pending
	w.pending, w.early = nil, got.b
	if got.err != nil && !isTimeout(got.err) {
		w.readErr = got.err
	}
}

// state is what a connection says while no answer is expected.
type state int

const (
	silent state = iota
	closed
	surplus // it sent bytes that nobody asked for
)

// probe says, without waiting, what came on a connection after its last
// answer. TLS records that carry no content (tickets, key updates) are silence;
// a record of which only a part came may carry anything, and counts as closing.
// Some servers say 408 before they close an idle connection; that counts as
// closing.
func (c *conn) probe() state {
	b := c.probed[:]
	c.wire.asking = true
	n, err := c.rw.Read(b)
	c.wire.asking = false
	switch {
	case n > 0 && saysTimeout(b[:n]):
		return closed
	case n > 0:
		return surplus
	case c.wire.records.inside():
		return closed
	case err == nil || err == errSilent{} || errors.As(err, &errSilent{}): // as it is without TLS
		return silent
	}
	return closed
}

// saysTimeout reports whether b begins with a status line of 408.
func saysTimeout(b []byte) bool {
	const line = "HTTP/1.1 408"
	return len(b) >= len(line) && (string(b[:len(line)]) == line || string(b[:len(line)]) == "HTTP/1.0 408")
}

// closeWrite ends the sending side, if the connection has two.
func closeWrite(c *conn) error {
	var w any = c.rw
	if c.rw == net.Conn(c.wire) {
		w = c.wire.Conn
	}
	if half, ok := w.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

var _ io.ReadWriteCloser = (*wire)(nil)
