package origin

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestWhatIsHeldBack sends a head at once and the body after 300ms: the response
// is returned with the one or with the other.
func TestWhatIsHeldBack(t *testing.T) {
	body := strings.Repeat("x", 1000)
	head := func(lines ...string) string {
		return "HTTP/1.1 200 OK\r\n" + strings.Join(append(lines, "", ""), "\r\n")
	}
	sized := head("Content-Length: 1000")
	tests := []struct {
		name, method string
		size         int // Config.BufferSmall
		servers      string
		reply        reply
		held         bool
	}{
		{"small", "GET", 0, "a b", reply{raw: sized, rest: body}, true},
		{"as large as may be", "GET", 1000, "a b", reply{raw: sized, rest: body}, true},
		{"too large", "GET", 999, "a b", reply{raw: sized, rest: body}, false},
		{"off", "GET", -1, "a b", reply{raw: sized, rest: body}, false},
		{"no other server", "GET", 0, "a", reply{raw: sized, rest: body}, false},
		{"POST", "POST", 0, "a b", reply{raw: sized, rest: body}, false},
		{"DELETE", "DELETE", 0, "a b", reply{raw: sized, rest: body}, false},
		{"event stream", "GET", 0, "a b", reply{raw: head("Content-Length: 1000", "Content-Type: text/event-stream"), rest: body}, false},
		{"unknown length", "GET", 0, "a b", reply{raw: head("Transfer-Encoding: chunked"), rest: "3e8\r\n" + body + "\r\n0\r\n\r\n"}, false},
		{"until it closes", "GET", 0, "a b", reply{raw: head("Connection: close"), rest: body, close: true}, false},
		{"after an interim", "GET", 0, "a b", reply{raw: "HTTP/1.1 103 Hints\r\n\r\n" + sized, rest: body}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet("a", "b")
				tt.reply.gap = 300 * time.Millisecond
				f.set("a", always(tt.reply))
				p, stop := f.pool(t, Config{BufferSmall: tt.size}, strings.Fields(tt.servers)...)
				defer stop()
				begun := time.Now()
				resp, err := p.RoundTrip(newRequest(t, tt.method, "http://site.test/", nil))
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				if d := time.Since(begun); d > 0 != tt.held {
					t.Errorf("got the response after %v, want held back %v", d, tt.held)
				}
				if b, err := io.ReadAll(resp.Body); string(b) != body || err != nil || time.Since(begun) != 300*time.Millisecond {
					t.Errorf("got %d bytes, %v after %v", len(b), err, time.Since(begun))
				}
				if st := p.Stats(); st.InFlight != 0 {
					t.Errorf("afterwards: %+v", st)
				}
			})
		})
	}
}

// TestHeldForASecondAtMost has a body come in pieces: after a second the reader
// follows it.
func TestHeldForASecondAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet("a", "b")
		f.set("a", always(reply{raw: timing + "01234", gap: 3 * time.Second, rest: "56789"}))
		p, stop := f.pool(t, Config{}, "a", "b")
		defer stop()
		begun := time.Now()
		resp, err := p.RoundTrip(newRequest(t, "GET", "http://site.test/", nil))
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 10)
		n, err := resp.Body.Read(b)
		if d := time.Since(begun); string(b[:n]) != "01234" || err != nil || d != time.Second {
			t.Errorf("got %q, %v after %v, want the first half after 1s", b[:n], err, d)
		}
		n, err = resp.Body.Read(b)
		if d := time.Since(begun); string(b[:n]) != "56789" || err != nil || d != 3*time.Second {
			t.Errorf("got %q, %v after %v, want the second half after 3s", b[:n], err, d)
		}
		if n, err := resp.Body.Read(b); n != 0 || err != io.EOF {
			t.Errorf("got %d, %v, want the end", n, err)
		}
		resp.Body.Close()
		synctest.Wait()

		f.set("b", always(reply{raw: timing + "01234", stall: true}))
		if resp, err = p.RoundTrip(newRequest(t, "GET", "http://site.test/", nil)); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Second, func() { resp.Body.Close() })
		if b, err := io.ReadAll(resp.Body); string(b) != "01234" || !errors.Is(err, http.ErrBodyReadAfterClose) {
			t.Errorf("closed while it is read: got %q, %v", b, err)
		}
		synctest.Wait()
		if st := p.Stats(); st.InFlight != 0 || len(st.Errors) != 0 {
			t.Errorf("afterwards: %+v", st)
		}
	})
}

// TestHeldBodyThatBreaksEverywhere: the last attempt's answer is passed on as it
// comes, and its error is the client's.
func TestHeldBodyThatBreaksEverywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet("a", "b")
		f.set("a", always(reply{raw: torn, close: true}))
		f.set("b", always(reply{raw: torn, close: true}))
		p, stop := f.pool(t, Config{}, "a", "b")
		defer stop()
		r := get(t, p)
		if st := p.Stats(); r.status != 200 || r.body != "half" || kind(r.err) != responseIncomplete || st.Errors[responseIncomplete] != 1 || st.Retries != 1 {
			t.Errorf("got %+v, %+v, want half of the second answer and one error", r, st)
		}
	})
}
