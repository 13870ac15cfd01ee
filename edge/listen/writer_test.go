package listen

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// stream answers over a net.Pipe, whose deadlines are as those of HTTP/3: one
// that has passed may be taken back.
type stream struct {
	net.Conn
	h http.Header
}

func (s stream) Header() http.Header { return s.h }
func (s stream) WriteHeader(int)     {}
func (s stream) FlushError() error   { return nil }

// TestWritesOfStreamsEndAtTheirTime sets deadlines before a write and while it
// waits. Time is virtual.
func TestWritesOfStreamsEndAtTheirTime(t *testing.T) {
	const ours, taken = 5 * time.Minute, 10 * time.Minute
	at := func(d time.Duration) func() time.Time { return func() time.Time { return time.Now().Add(d) } }
	nothing := func() time.Time { return time.Time{} }
	for _, row := range []struct {
		name   string
		before []func() time.Time
		rests  time.Duration      // before it writes
		during []func() time.Time // one a second
		want   time.Duration      // of the write; taken: it ends well
		ours   bool               // the end is one of WriteTimeout
	}{
		{"none", nil, 0, nil, ours, true},
		{"one", []func() time.Time{at(10 * time.Second)}, 0, nil, 10 * time.Second, false},
		{"a late one", []func() time.Time{at(time.Hour)}, 0, nil, taken, false},
		{"a later one", []func() time.Time{at(10 * time.Second), at(75 * time.Second)}, 0, nil, 75 * time.Second, false},
		{"taken back", []func() time.Time{at(10 * time.Second), nothing}, 0, nil, ours, true},
		{"passed", []func() time.Time{at(-time.Second)}, 0, nil, 0, false},
		{"passed meanwhile", []func() time.Time{at(10 * time.Second)}, 20 * time.Second, nil, 0, false},
		{"passed, and taken back", []func() time.Time{at(-time.Second), nothing}, 0, nil, ours, true},
		{"passed, and one", []func() time.Time{at(-time.Second), at(10 * time.Second)}, 0, nil, 10 * time.Second, false},
		{"passed, and a late one", []func() time.Time{at(-time.Second), at(time.Hour)}, 0, nil, taken, false},
		{"while it waits", nil, 0, []func() time.Time{at(4 * time.Second)}, 5 * time.Second, false},
		{"while it waits, later", []func() time.Time{at(10 * time.Second)}, 0, []func() time.Time{at(time.Hour)}, taken, false},
		{"while it waits, twice", []func() time.Time{at(10 * time.Second)}, 0, []func() time.Time{at(time.Hour), at(5 * time.Second)}, 7 * time.Second, false},
		{"while it waits, now", []func() time.Time{at(10 * time.Second)}, 0, []func() time.Time{at(0)}, time.Second, false},
		{"while it waits, taken back", []func() time.Time{at(10 * time.Second)}, 0, []func() time.Time{nothing}, ours + time.Second, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe()
				defer near.Close()
				defer far.Close()
				stalled := 0
				s := &Server{WriteTimeout: ours, Count: func(Event) { stalled++ }}
				w := &timedWriter{ResponseWriter: stream{near, http.Header{}}, s: s, request: &http.Request{ProtoMajor: 3}}
				for _, when := range row.before {
					w.SetWriteDeadline(when())
				}
				time.Sleep(row.rests)
				began := time.Now()
				var wait sync.WaitGroup
				wait.Go(func() {
					for _, when := range row.during {
						time.Sleep(time.Second)
						w.SetWriteDeadline(when())
					}
					time.Sleep(taken - time.Since(began))
					io.CopyN(io.Discard, far, 2*heldBytes)
				})
				_, err := w.Write(make([]byte, 2*heldBytes))
				if took := time.Since(began); took != row.want || errors.Is(err, os.ErrDeadlineExceeded) != (row.want < taken) {
					t.Errorf("the write ended after %v with %v, want after %v of %v", took, err, row.want, taken)
				}
				if (stalled == 1) != row.ours || stalled > 1 {
					t.Errorf("counted %d stalled; want one where the time is the server's: %v", stalled, row.ours)
				}
				near.Close()
				wait.Wait()
			})
		})
	}
}

// A handler that times its own writes is told what ended them, over each
// protocol, and counts that itself.
func TestHandlersAreToldThatTheirDeadlineEndedAWrite(t *testing.T) {
	for _, p := range protocols {
		t.Run(p.name, func(t *testing.T) {
			ended := make(chan error, 1)
			n := startFull(t, &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				rc := http.NewResponseController(w)
				err := rc.Flush()
				rc.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
				for piece := make([]byte, 1<<20); err == nil; {
					_, err = w.Write(piece)
				}
				ended <- err
			})})
			c, url := p.client(t, n)
			res, err := c.Get(url)
			if err == nil { // on a slow machine the stream is reset before
				defer res.Body.Close()
			}
			if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) || n.seen(Stalled) != 0 {
				t.Errorf("the handler got %v, and %d were counted as stalled; want a deadline exceeded, none", err, n.seen(Stalled))
			}
		})
	}
}
