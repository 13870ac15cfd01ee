package listen

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"testing"
	"time"
)

// slowWords gives a word each time it was waited for.
type slowWords struct {
	every time.Duration
	left  int
}

func (s *slowWords) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	s.left--
	<-time.After(s.every)
	return copy(p, "word."), nil
}

// What a handler copies to an upgraded connection may be long in coming: the
// time of a write begins when there is something to write.
func TestUpgradedConnectionsMayBeSilent(t *testing.T) {
	for _, p := range protocols[:2] {
		t.Run(p.name, func(t *testing.T) {
			n := startFull(t, &Server{WriteTimeout: 100 * time.Millisecond, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				rc := http.NewResponseController(w)
				rc.SetWriteDeadline(time.Now().Add(200 * time.Millisecond)) // hijacking takes it back
				c, _, err := rc.Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				if copied, err := io.Copy(c, &slowWords{300 * time.Millisecond, 2}); copied != 10 || err != nil {
					t.Errorf("%d bytes copied, %v; want 10, nil", copied, err)
				}
			})})
			c := n.dial(t)
			if p.secure {
				c.Close()
				var err error
				if c, err = tlsDial(n); err != nil {
					t.Fatal(err)
				}
				defer c.Close()
			}
			fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			if got, err := io.ReadAll(c); string(got) != "word.word." {
				t.Errorf("got %q, %v; want both words", got, err)
			}
		})
	}
}

// A deadline that is set for both ways is one of writes too.
func TestDeadlineOfAnUpgradedConnection(t *testing.T) {
	ended := make(chan error, 1)
	n := start(t, &Server{WriteTimeout: time.Hour, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			c.SetDeadline(time.Now().Add(50 * time.Millisecond))
		}
		for piece := make([]byte, 1<<20); err == nil; {
			_, err = c.Write(piece)
		}
		ended <- err
		c.Close()
	})})
	c := n.dial(t)
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	select {
	case err := <-ended:
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the write ended with %v, want a deadline exceeded", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("a write goes on behind its deadline")
		c.Close()
	}
}
