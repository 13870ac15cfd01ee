package listen

import (
	"errors"
	"io"
	"math"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// patient keeps a connection's deadlines as net.Conn has them, and changes the
// runtime's timers only where it must. net/http sets six deadlines for each
// request that are almost never reached, and a timer changed costs more than
// looking at the time once it fired: a call begins with whatever timer is set, as
// long as that is not too late, and when it fires too early the call goes on.
type patient struct {
	transport
	since time.Time     // what deadlines are counted from
	most  time.Duration // how long a Write without a deadline may take; 0 is no limit
	in    deadline
	out   deadline
}

// transport is what a *net.TCPConn has and is used here.
type transport interface {
	net.Conn
	io.ReaderFrom
	CloseWrite() error
}

func newPatient(of transport) *patient {
	c := &patient{transport: of, since: time.Now()}
	c.in.set, c.out.set = of.SetReadDeadline, of.SetWriteDeadline
	for _, d := range []*deadline{&c.in, &c.out} {
		d.wanted.Store(none)
		d.armed.Store(none)
	}
	return c
}

func (c *patient) Read(b []byte) (int, error) {
	c.in.enter()
	defer c.in.leave()
	for {
		if c.in.wanted.Load() == past {
			return 0, os.ErrDeadlineExceeded
		}
		c.in.prepare(c.since)
		n, err := c.transport.Read(b)
		if err == nil || n > 0 || !c.in.early(err, c.since) {
			return n, err
		}
	}
}

func (c *patient) Write(b []byte) (int, error) {
	c.out.enter()
	defer c.out.leave()
	if c.most > 0 && c.out.wanted.Load() == none {
		if at := int64(time.Since(c.since) + c.most); c.out.wanted.CompareAndSwap(none, at) {
			defer c.out.wanted.CompareAndSwap(at, none) // unless another was set meanwhile
		}
	}
	var all int
	for {
		if c.out.wanted.Load() == past {
			return all, os.ErrDeadlineExceeded
		}
		c.out.prepare(c.since)
		n, err := c.transport.Write(b[all:])
		all += n
		if err == nil || !c.out.early(err, c.since) {
			return all, err
		}
	}
}

// ReadFrom cannot go on where it was ended too early, what it has read and not
// written would be lost, but for a net.Buffers, which keeps what was not written.
func (c *patient) ReadFrom(r io.Reader) (int64, error) {
	if blocks, ok := r.(*net.Buffers); ok {
		return c.writeBlocks(blocks)
	}
	c.out.enter()
	defer c.out.leave()
	c.out.arm(c.since)
	return c.transport.ReadFrom(r)
}

// writeBlocks is Write for several slices, which go in one system call.
func (c *patient) writeBlocks(blocks *net.Buffers) (int64, error) {
	c.out.enter()
	defer c.out.leave()
	var all int64
	for {
		if c.out.wanted.Load() == past {
			return all, os.ErrDeadlineExceeded
		}
		c.out.prepare(c.since)
		n, err := blocks.WriteTo(c.transport)
		all += n
		if err == nil || !c.out.early(err, c.since) {
			return all, err
		}
	}
}

func (c *patient) SetReadDeadline(t time.Time) error {
	c.in.want(c.since, t)
	return nil
}

func (c *patient) SetWriteDeadline(t time.Time) error {
	c.out.want(c.since, t)
	return nil
}

func (c *patient) SetDeadline(t time.Time) error {
	c.in.want(c.since, t)
	c.out.want(c.since, t)
	return nil
}

// Deadlines are nanoseconds since a connection began.
const (
	none = math.MaxInt64
	past = math.MinInt64 // before the connection: what calls under way are ended with
)

// deadline is that of one direction. While no call is under way only wanted
// changes; while one is, the timer follows every change.
type deadline struct {
	set    func(time.Time) error // the runtime's
	wanted atomic.Int64
	armed  atomic.Int64 // what the timer is set to; written with mu held
	under  atomic.Int32 // calls under way
	mu     sync.Mutex
}

// want is told before it looks whether a call is under way, and a call says that
// it is before it looks what is wanted: one of them sees the other.
func (d *deadline) want(since, t time.Time) {
	at := int64(none)
	if !t.IsZero() {
		if at = int64(t.Sub(since)); at <= 0 {
			at = past
		}
	}
	d.wanted.Store(at)
	if d.under.Load() > 0 {
		d.arm(since)
	}
}

func (d *deadline) enter() { d.under.Add(1) }
func (d *deadline) leave() { d.under.Add(-1) }

// prepare lets a call begin with the timer as it is if that does not fire after
// what is wanted, and has not been used to end calls.
func (d *deadline) prepare(since time.Time) {
	if armed := d.armed.Load(); armed == past || d.wanted.Load() < armed {
		d.arm(since)
	}
}

// early reports whether a call that ended with err is to go on, since the timer
// fired before its time. It is set to fire at its time then.
func (d *deadline) early(err error, since time.Time) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) || int64(time.Since(since)) >= d.wanted.Load() {
		return false
	}
	d.arm(since)
	return true
}

// arm sets the timer to what is wanted.
func (d *deadline) arm(since time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	at := d.wanted.Load()
	if at == d.armed.Load() {
		return
	}
	d.armed.Store(at)
	switch at {
	case none:
		_ = d.set(time.Time{}) // it fails where the connection is closed: the call that follows says so
	case past:
		_ = d.set(time.Unix(1, 0)) // as above
	default:
		_ = d.set(since.Add(time.Duration(at))) // as above
	}
}
