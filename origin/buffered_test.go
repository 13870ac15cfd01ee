package origin

import (
	"io"
	"testing"
	"testing/synctest"
	"time"
)

// TestHowMuchOfABodyIsHere has servers send a head with some of the body, and the
// rest later.
func TestHowMuchOfABodyIsHere(t *testing.T) {
	for _, test := range []struct {
		name      string
		raw, rest string
		servers   []string
		want      int
	}{
		{"none", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", "0123456789", []string{"a"}, 0},
		{"some", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123", "456789", []string{"a"}, 4},
		{"all", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789", "", []string{"a"}, 10},
		{"more than all", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789surplus", "", []string{"a"}, 10},
		{"held back until all came", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123", "456789", []string{"a", "b"}, 10},
		{"chunks, whose heads are no content", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\n", "0123456789\r\n0\r\n\r\n", []string{"a"}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet("a", "b")
				f.set("a", always(reply{raw: test.raw, rest: test.rest, gap: 300 * time.Millisecond}))
				p, stop := f.pool(t, Config{}, test.servers...)
				defer stop()
				resp, err := p.RoundTrip(newRequest(t, "GET", "http://site.test/", nil))
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				b, ok := resp.Body.(interface{ Buffered() int })
				if !ok || b.Buffered() != test.want {
					t.Fatalf("%T says %v, want %d", resp.Body, b, test.want)
				}
				begun := time.Now()
				here := make([]byte, test.want)
				if _, err := io.ReadFull(resp.Body, here); err != nil || time.Since(begun) != 0 {
					t.Errorf("read %q, %v after %v, want %d bytes at once", here, err, time.Since(begun), test.want)
				}
				rest, err := io.ReadAll(resp.Body)
				if got := string(here) + string(rest); got != "0123456789" || err != nil {
					t.Errorf("read %q, %v", got, err)
				}
				if n := b.Buffered(); n != 0 {
					t.Errorf("%d bytes here at the end, want none", n)
				}
			})
		})
	}
}
