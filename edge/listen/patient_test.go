package listen

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// pipe is one end of a net.Pipe that counts how often its timers are set.
type pipe struct {
	net.Conn
	in, out atomic.Int32
}

func (p *pipe) SetReadDeadline(t time.Time) error  { p.in.Add(1); return p.Conn.SetReadDeadline(t) }
func (p *pipe) SetWriteDeadline(t time.Time) error { p.out.Add(1); return p.Conn.SetWriteDeadline(t) }
func (p *pipe) CloseWrite() error                  { return nil }
func (p *pipe) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{p.Conn}, r)
}

func withPatient(t *testing.T, f func(t *testing.T, c *patient, under *pipe, peer net.Conn)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		under := &pipe{Conn: near}
		defer near.Close()
		defer far.Close()
		f(t, newPatient(under), under, far)
	})
}

// TestDeadlineEndsACallAtItsTime has the deadlines before the call and while it
// waits, earlier and later than those before them. Time is virtual.
func TestDeadlineEndsACallAtItsTime(t *testing.T) {
	at := func(d time.Duration) func() time.Time { return func() time.Time { return time.Now().Add(d) } }
	long, nothing := at(-time.Hour*24*365*60), func() time.Time { return time.Time{} }
	for _, row := range []struct {
		name   string
		before []func() time.Time
		during []func() time.Time // one a second
		want   time.Duration      // 0: it waits until data comes, after ten minutes
	}{
		{"none", nil, nil, 0},
		{"one", []func() time.Time{at(10 * time.Second)}, nil, 10 * time.Second},
		{"a later one", []func() time.Time{at(10 * time.Second), at(75 * time.Second)}, nil, 75 * time.Second},
		{"an earlier one", []func() time.Time{at(75 * time.Second), at(10 * time.Second)}, nil, 10 * time.Second},
		{"taken back", []func() time.Time{at(10 * time.Second), nothing}, nil, 0},
		{"long past", []func() time.Time{at(10 * time.Second), long}, nil, time.Nanosecond},
		{"past, and taken back", []func() time.Time{at(10 * time.Second), long, nothing}, nil, 0},
		{"past, and one", []func() time.Time{long, at(10 * time.Second)}, nil, 10 * time.Second},
		{"while it waits", nil, []func() time.Time{at(4 * time.Second)}, 5 * time.Second},
		{"while it waits, later", []func() time.Time{at(10 * time.Second)}, []func() time.Time{at(29 * time.Second)}, 30 * time.Second},
		{"while it waits, twice", []func() time.Time{at(10 * time.Second)}, []func() time.Time{at(29 * time.Second), at(5 * time.Second)}, 7 * time.Second},
		{"while it waits, now", []func() time.Time{at(10 * time.Second)}, []func() time.Time{at(0)}, time.Second},
		{"while it waits, long past", []func() time.Time{at(10 * time.Second)}, []func() time.Time{long}, time.Second},
		{"while it waits, taken back", []func() time.Time{at(10 * time.Second)}, []func() time.Time{nothing}, 0},
	} {
		for _, way := range []string{"read", "write"} {
			t.Run(row.name+"/"+way, func(t *testing.T) {
				withPatient(t, func(t *testing.T, c *patient, _ *pipe, peer net.Conn) {
					set, call := c.SetReadDeadline, func() (int, error) { return c.Read(make([]byte, 8)) }
					other := func() { peer.Write([]byte("x")) }
					if way == "write" {
						set, call = c.SetWriteDeadline, func() (int, error) { return c.Write([]byte("x")) }
						other = func() { peer.Read(make([]byte, 8)) }
					}
					for _, when := range row.before {
						set(when())
					}
					began := time.Now()
					var wait sync.WaitGroup
					wait.Go(func() {
						for _, when := range row.during {
							time.Sleep(time.Second)
							set(when())
						}
						time.Sleep(10*time.Minute - time.Since(began))
						other()
					})
					n, err := call()
					took := time.Since(began)
					switch {
					case row.want == 0 && (n != 1 || err != nil || took != 10*time.Minute):
						t.Errorf("%d bytes, %v after %v; want 1, nil after ten minutes", n, err, took)
					case row.want > 0 && (n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) || took != row.want.Truncate(time.Second)):
						t.Errorf("%d bytes, %v after %v; want a deadline exceeded after %v", n, err, took, row.want)
					}
					var ne net.Error
					if err != nil && !(errors.As(err, &ne) && ne.Timeout()) {
						t.Errorf("%v is no timeout to net.Error", err)
					}
					peer.Close()
					wait.Wait()
				})
			})
		}
	}
}

// TestWriteGoesOnWhereATimerEndedItTooEarly loses and repeats nothing.
func TestWriteGoesOnWhereATimerEndedItTooEarly(t *testing.T) {
	for _, way := range []struct {
		name string
		call func(*patient) (int64, error)
	}{
		{"one slice", func(c *patient) (int64, error) { n, err := c.Write([]byte("0123456789")); return int64(n), err }},
		{"several", func(c *patient) (int64, error) {
			return c.ReadFrom(&net.Buffers{[]byte("0123"), []byte("4"), []byte("56789")})
		}},
	} {
		t.Run(way.name, func(t *testing.T) {
			withPatient(t, func(t *testing.T, c *patient, _ *pipe, peer net.Conn) {
				c.SetWriteDeadline(time.Now().Add(2 * time.Second))
				go c.Write([]byte("a"))
				peer.Read(make([]byte, 1)) // the timer is set
				synctest.Wait()
				c.SetWriteDeadline(time.Now().Add(time.Minute))
				go func() {
					if n, err := way.call(c); n != 10 || err != nil {
						t.Errorf("%d bytes, %v; want 10, nil", n, err)
					}
					c.Close()
				}()
				var got []byte
				for { // some is taken before the timer fires
					b := make([]byte, 3)
					n, err := peer.Read(b)
					if got = append(got, b[:n]...); err != nil {
						break
					}
					time.Sleep(3 * time.Second)
				}
				if string(got) != "0123456789" {
					t.Errorf("got %q, want 0123456789", got)
				}
			})
		})
	}
}

// TestWritesThatNobodyTimedEnd where there is a limit. A deadline that is set
// before or meanwhile is kept.
func TestWritesThatNobodyTimedEnd(t *testing.T) {
	for _, row := range []struct {
		name           string
		before, during time.Duration // of a deadline, from then; 0: none
		want           time.Duration
	}{
		{"none", 0, 0, time.Minute},
		{"later", time.Hour, 0, time.Hour},
		{"sooner", time.Second, 0, time.Second},
		{"later meanwhile", 0, time.Hour, time.Hour + time.Second},
		{"sooner meanwhile", 0, time.Second, 2 * time.Second},
	} {
		t.Run(row.name, func(t *testing.T) {
			withPatient(t, func(t *testing.T, c *patient, _ *pipe, peer net.Conn) {
				c.most = time.Minute
				set := func(d time.Duration) {
					if d > 0 {
						c.SetWriteDeadline(time.Now().Add(d))
					}
				}
				set(row.before)
				began := time.Now()
				go func() {
					time.Sleep(time.Second)
					set(row.during)
				}()
				_, err := c.Write([]byte("x"))
				if took := time.Since(began); took != row.want || !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("%v after %v, want a deadline exceeded after %v", err, took, row.want)
				}
				synctest.Wait()
				if left := c.out.wanted.Load(); (left == none) != (row.before+row.during == 0) {
					t.Errorf("%d is wanted then", left)
				}
			})
		})
	}
}

// TestBlocksEndAtTheirTime: what was not taken is left to be written later.
func TestBlocksEndAtTheirTime(t *testing.T) {
	withPatient(t, func(t *testing.T, c *patient, _ *pipe, peer net.Conn) {
		began := time.Now()
		c.SetWriteDeadline(began.Add(10 * time.Second))
		go io.ReadFull(peer, make([]byte, 3))
		blocks := net.Buffers{[]byte("01"), []byte("23"), []byte("45")}
		n, err := c.ReadFrom(&blocks)
		if n != 3 || !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != 10*time.Second {
			t.Errorf("%d bytes, %v after %v; want 3, a deadline exceeded after 10s", n, err, time.Since(began))
		}
		c.SetWriteDeadline(time.Unix(1, 0))
		if n, err := c.ReadFrom(&blocks); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("after a deadline: %d bytes, %v", n, err)
		}
		c.SetWriteDeadline(time.Now().Add(10 * time.Second))
		go c.ReadFrom(&blocks)
		rest := make([]byte, 3)
		if _, err := io.ReadFull(peer, rest); err != nil || string(rest) != "345" {
			t.Errorf("the rest is %q, %v; want 345", rest, err)
		}
	})
}

// TestReadFromHasTheTimerAsWanted: it cannot go on.
func TestReadFromHasTheTimerAsWanted(t *testing.T) {
	withPatient(t, func(t *testing.T, c *patient, under *pipe, peer net.Conn) {
		c.SetWriteDeadline(time.Now().Add(2 * time.Second))
		go c.Write([]byte("a"))
		peer.Read(make([]byte, 1))
		synctest.Wait()
		c.SetWriteDeadline(time.Now().Add(time.Minute))
		sets := under.out.Load()
		go func() {
			time.Sleep(10 * time.Second)
			peer.Read(make([]byte, 8))
		}()
		n, err := c.ReadFrom(io.LimitReader(neverEnding('x'), 8))
		if n != 8 || err != nil || under.out.Load() != sets+1 {
			t.Errorf("%d bytes, %v, timer set %d times more; want 8, nil, 1", n, err, under.out.Load()-sets)
		}
	})
}

type neverEnding byte

func (b neverEnding) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(b)
	}
	return len(p), nil
}

// TestTimersAreLeftAlone has what net/http does for each request, of which none
// needs a timer changed but one in ten seconds.
func TestTimersAreLeftAlone(t *testing.T) {
	withPatient(t, func(t *testing.T, c *patient, under *pipe, peer net.Conn) {
		const rounds = 1000
		go func() {
			for range rounds {
				peer.Write([]byte("a request"))
				peer.Read(make([]byte, 100))
			}
		}()
		for range rounds {
			c.SetReadDeadline(time.Now().Add(10 * time.Second))
			c.Read(make([]byte, 100))
			c.SetReadDeadline(time.Time{})
			c.SetWriteDeadline(time.Now().Add(time.Minute))
			c.Write([]byte("an answer"))
			c.SetReadDeadline(time.Unix(1, 0))
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("%v, want a deadline exceeded", err)
			}
			c.SetReadDeadline(time.Time{})
			c.SetReadDeadline(time.Now().Add(75 * time.Second))
		}
		if in, out := under.in.Load(), under.out.Load(); in != 1 || out != 1 {
			t.Errorf("timers set %d and %d times, want once each", in, out)
		}
	})
}

// TestDeadlinesLoseNothing sets deadlines of all kinds while bytes go around a
// socket: each comes once, in order, and no call is forgotten.
func TestDeadlinesLoseNothing(t *testing.T) {
	const total = 1 << 20
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	far, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	near, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c := newPatient(near.(transport))
	defer c.Close()
	go func() {
		defer far.Close()
		io.Copy(far, struct{ io.Reader }{far}) // it says again what it hears
	}()
	stop := make(chan struct{})
	var wait sync.WaitGroup
	for _, set := range []func(time.Time) error{c.SetReadDeadline, c.SetWriteDeadline, c.SetDeadline} {
		wait.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case <-time.After(rand.N(200 * time.Microsecond)):
				}
				kinds := []time.Time{{}, time.Unix(1, 0), time.Now(), time.Now().Add(rand.N(time.Millisecond)), time.Now().Add(time.Hour)}
				set(kinds[rand.IntN(len(kinds))])
			}
		})
	}
	at := func(i int) byte { return byte(i * 31 >> 3) }
	wait.Go(func() {
		for sent := 0; sent < total; {
			b := make([]byte, min(total-sent, 1+rand.IntN(5000)))
			for i := range b {
				b[i] = at(sent + i)
			}
			var n int64
			var err error
			if rand.IntN(2) == 0 {
				n, err = c.ReadFrom(&net.Buffers{b[:len(b)/3], b[len(b)/3:]})
			} else {
				var few int
				few, err = c.Write(b)
				n = int64(few)
			}
			if sent += int(n); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("written with %v", err)
				return
			}
		}
	})
	for heard, b := 0, make([]byte, 3000); heard < total; {
		n, err := c.Read(b)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("read with %v", err)
		}
		for i := range n {
			if b[i] != at(heard+i) {
				t.Fatalf("byte %d is %d, want %d", heard+i, b[i], at(heard+i))
			}
		}
		heard += n
	}
	close(stop)
	wait.Wait()
	c.SetReadDeadline(time.Time{})
	ended := make(chan error, 1)
	go func() { _, err := c.Read(make([]byte, 1)); ended <- err }()
	c.SetReadDeadline(time.Now().Add(time.Millisecond))
	if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("at the end read with %v, want a deadline exceeded", err)
	}
}
