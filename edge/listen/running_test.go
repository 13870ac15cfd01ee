package listen

import (
	"bufio"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// An answer so small that its handler has returned before it is written has a
// deadline all the same, however long the handler took.
func TestSmallAnswersThatNobodyTakesAreReset(t *testing.T) {
	for _, p := range protocols[2:4] {
		for name, takes := range map[string]time.Duration{"soon": 0, "late": 500 * time.Millisecond} {
			t.Run(p.name+"/"+name, func(t *testing.T) {
				t.Parallel()
				n := startFull(t, &Server{WriteTimeout: 200 * time.Millisecond, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					<-time.After(takes)
					io.WriteString(w, "ten bytes.")
				})})
				f := n.dialSecond(t, p, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
				f.send(1, request(nil))
				headed := false
				for {
					frame, err := f.ReadFrame()
					if err != nil {
						t.Fatalf("%v, want the stream reset", err)
					}
					switch frame := frame.(type) {
					case *http2.HeadersFrame:
						headed = true
					case *http2.MetaHeadersFrame:
						headed = true
					case *http2.RSTStreamFrame:
						if frame.StreamID != 1 || frame.ErrCode != http2.ErrCodeInternal || !headed {
							t.Errorf("stream %d reset with %v, its head sent: %v; want 1, INTERNAL_ERROR, true", frame.StreamID, frame.ErrCode, headed)
						}
						return
					case *http2.DataFrame:
						t.Fatal("content was sent without a window for it")
					}
				}
			})
		}
	}
}

// A handler may take as long as it likes while it writes nothing, on a
// connection that carries others.
func TestHandlersThatTakeLongAreNotReset(t *testing.T) {
	for _, p := range protocols[2:] {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			n := startFull(t, &Server{WriteTimeout: 400 * time.Millisecond, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/long" {
					<-time.After(time.Second) // more than net/http's deadline of a stream
				}
				io.WriteString(w, r.URL.Path)
			})})
			c, url := p.client(t, n)
			ask := func(path string) error {
				res, err := c.Get(url + path)
				if err != nil {
					return err
				}
				defer res.Body.Close()
				if got, err := io.ReadAll(res.Body); err != nil || string(got) != path {
					return errors.Join(err, errors.New("got "+string(got)+", want "+path))
				}
				return nil
			}
			ends := make(chan error, 3)
			for range cap(ends) {
				go func() { ends <- ask("/long") }()
			}
			for waiting := cap(ends); waiting > 0; {
				select {
				case err := <-ends:
					if waiting--; err != nil {
						t.Error(err)
					}
				default:
					if err := ask("/short"); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
}

// A handler's deadline for content ends the read under way; one taken back does
// not, nor one that was set again.
func TestDeadlinesOfContent(t *testing.T) {
	now := func(d time.Duration) time.Time { return time.Now().Add(d) }
	for _, row := range []struct {
		name string
		set  func(rc *http.ResponseController)
		ends bool
	}{
		{"one", func(rc *http.ResponseController) { rc.SetReadDeadline(now(50 * time.Millisecond)) }, true},
		{"passed", func(rc *http.ResponseController) { rc.SetReadDeadline(now(-time.Second)) }, true},
		{"taken back", func(rc *http.ResponseController) {
			rc.SetReadDeadline(now(50 * time.Millisecond))
			rc.SetReadDeadline(time.Time{})
		}, false},
		{"set again", func(rc *http.ResponseController) {
			rc.SetReadDeadline(now(50 * time.Millisecond))
			rc.SetReadDeadline(now(time.Hour))
		}, false},
		{"set sooner", func(rc *http.ResponseController) {
			rc.SetReadDeadline(now(time.Hour))
			rc.SetReadDeadline(now(50 * time.Millisecond))
		}, true},
	} {
		for _, p := range protocols {
			t.Run(row.name+"/"+p.name, func(t *testing.T) {
				t.Parallel()
				ended := make(chan error, 1)
				n := startFull(t, &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					row.set(http.NewResponseController(w))
					_, err := io.ReadAll(r.Body)
					ended <- err
				})})
				c, url := p.client(t, n)
				content, more := io.Pipe()
				go func() {
					more.Write([]byte("some"))
					if !row.ends {
						<-time.After(300 * time.Millisecond)
						more.Close()
					}
				}()
				go func() {
					if res, err := c.Post(url, "text/plain", content); err == nil {
						res.Body.Close()
					}
				}()
				err := <-ended
				more.Close()
				if row.ends != errors.Is(err, os.ErrDeadlineExceeded) || !row.ends && err != nil {
					t.Errorf("content ended with %v; want a deadline exceeded: %v", err, row.ends)
				}
			})
		}
	}
}

// The clock of a connection that was closed does not hold it.
func TestClockLetsGoOfItsConnection(t *testing.T) {
	var forgotten atomic.Bool
	n := startFull(t, &Server{WriteTimeout: time.Hour, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := r.Context().Value(connKey{}).(*conn)
		runtime.AddCleanup(c, func(int) { forgotten.Store(true) }, 0)
	})})
	f := n.dialSecond(t, protocols[2])
	f.send(1, request(nil))
	f.answer(1)
	f.Conn.Close()
	until(t, "the connection is closed", n.nobody)
	until(t, "it is forgotten", func() bool {
		runtime.GC()
		return forgotten.Load()
	})
}

// A client that takes nothing of its connection holds no handler, with as many as
// it may have, whatever they do when their deadlines are moved.
func TestConnectionsThatTakeNothingHoldNoHandler(t *testing.T) {
	for _, row := range []struct {
		name   string
		window uint32
		waits  time.Duration
	}{
		{"connection full", 1 << 30, 0},
		{"connection full when all take long", 1 << 30, 500 * time.Millisecond},
		{"no window", 0, 0},
		{"no window when all take long", 0, 500 * time.Millisecond},
	} {
		for _, p := range protocols[2:4] {
			t.Run(row.name+"/"+p.name, func(t *testing.T) {
				t.Parallel()
				var begun, ended atomic.Int64
				n := startFull(t, &Server{WriteTimeout: 150 * time.Millisecond, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					begun.Add(1)
					defer ended.Add(1)
					<-time.After(row.waits)
					for range 1000 {
						if _, err := w.Write(make([]byte, 64<<10)); err != nil {
							return
						}
					}
					t.Error("all was written, want an error")
				})})
				f := n.dialSecond(t, p, http2.Setting{ID: http2.SettingInitialWindowSize, Val: row.window})
				f.WriteWindowUpdate(0, 1<<30)
				for i := range uint32(maxStreams) {
					f.send(2*i+1, request(nil))
				}
				until(t, "all have begun and ended", func() bool { return begun.Load() == maxStreams && ended.Load() == maxStreams })
			})
		}
	}
}

// Nothing touches a stream when its handler has returned or panicked: net/http
// gives its state to another. The race detector sees what does.
func TestNothingTouchesStreamsThatAreOver(t *testing.T) {
	const most = 8 * time.Millisecond
	for _, p := range protocols[2:] {
		t.Run(p.name, func(t *testing.T) {
			n := startFull(t, &Server{WriteTimeout: most, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				rc := http.NewResponseController(w)
				if rand.IntN(3) == 0 {
					rc.SetReadDeadline(time.Now().Add(rand.N(2 * most)))
				}
				if rand.IntN(3) == 0 {
					rc.SetWriteDeadline(time.Now().Add(rand.N(2 * most)))
				}
				<-time.After(rand.N(most * 3 / 2))
				switch rand.IntN(5) {
				case 0:
					panic(http.ErrAbortHandler)
				case 1:
					rc.Flush()
				case 2:
					w.Write(make([]byte, 2*heldBytes))
				default:
					w.Write([]byte("ten bytes."))
				}
			})})
			c, url := p.client(t, n)
			c.Timeout = 2 * time.Second
			var wait sync.WaitGroup
			var answers atomic.Int64
			for range 20 {
				wait.Go(func() {
					for range 20 {
						if res, err := c.Get(url); err == nil {
							answers.Add(1)
							io.Copy(io.Discard, res.Body)
							res.Body.Close()
						}
					}
				})
			}
			wait.Wait()
			if answers.Load() == 0 {
				t.Error("no request was answered")
			}
		})
	}
}

// A stream that is used now and then may last, as a tunnel does, whatever
// net/http's deadline of it was at first.
func TestStreamsMayLast(t *testing.T) {
	for _, p := range protocols[2:] {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			n := startFull(t, &Server{WriteTimeout: 500 * time.Millisecond, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				rc := http.NewResponseController(w)
				rc.Flush()
				for b := make([]byte, 64); ; {
					n, err := r.Body.Read(b)
					if _, err := w.Write(b[:n]); err != nil || rc.Flush() != nil {
						t.Errorf("written with %v", err)
						return
					}
					if err != nil {
						if err != io.EOF {
							t.Errorf("read with %v", err)
						}
						return
					}
				}
			})})
			c, url := p.client(t, n)
			said, say := io.Pipe()
			defer say.Close()
			res, err := c.Post(url, "", said)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			in := bufio.NewReader(res.Body)
			for range 2 {
				<-time.After(700 * time.Millisecond)
				io.WriteString(say, "a line\n")
				if got, err := in.ReadString('\n'); got != "a line\n" {
					t.Fatalf("heard %q, %v; want a line", got, err)
				}
			}
			say.Close()
			if rest, err := io.ReadAll(res.Body); len(rest) > 0 || err != nil {
				t.Errorf("at the end %q, %v; want nothing", rest, err)
			}
		})
	}
}
