package main

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// besideBody is a content of 1 KiB.
var besideBody = strings.Repeat("0123456789abcdef", 64)

// TestHitAllocatesWhatABareHandlerDoes asks, over a connection of HTTP/1.1, a
// whole node with its access log in a file and its metrics, and a handler behind
// net/http alone that sends the same fields without making any: a hit allocates
// nothing more.
func TestHitAllocatesWhatABareHandlerDoes(t *testing.T) {
	if raced {
		t.Skip("the race detector allocates")
	}
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=3600")
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("ETag", `"v1"`)
		io.WriteString(w, besideBody)
	}))
	defer origin.Close()
	s := siteOver(origin.URL)
	s.Log.Access = filepath.Join(t.TempDir(), "access.log")
	n, url := liveNodeOf(t, s)
	var fields http.Header
	for range 2 {
		resp, body := get(url + "/a")
		if body != besideBody {
			t.Fatalf("the node answered %q", body)
		}
		fields = resp.Header
	}
	if got := fields.Get("Cache-Status"); !strings.HasPrefix(got, "seawall; hit") || fields.Get("Age") == "" {
		t.Fatalf("Cache-Status %q, Age %q: want a hit's", got, fields.Get("Age"))
	}
	content := []byte(besideBody)
	bare := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		maps.Copy(w.Header(), fields)
		w.WriteHeader(http.StatusOK)
		w.Write(content)
	}))
	defer bare.Close()
	floor := allocationsOf(t, bare.Listener.Addr().String())
	hit := allocationsOf(t, n.front.Addrs()[0].String())
	t.Logf("allocations: a hit %.2f, a bare handler %.2f", hit, floor)
	const others = 0.5 // half of one: what is done by the clock, and once for many hits, as a slot of the log's ring
	if hit > floor+others {
		t.Errorf("a hit allocates %.2f times, a bare handler %.2f: want no more", hit, floor)
	}
}

// allocationsOf is how often the process allocates for a request of its own to
// one of its servers.
func allocationsOf(t *testing.T, addr string) float64 {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	request := fmt.Appendf(nil, "GET /a HTTP/1.1\r\nHost: %s\r\n\r\n", addr)
	in := bufio.NewReaderSize(c, 4<<10)
	const count = 2000
	best := -1.0
	for range 5 { // what others in the process do meanwhile only adds
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range count {
			if err := askAgain(c, in, request); err != nil {
				t.Fatal(err)
			}
		}
		runtime.ReadMemStats(&after)
		if each := float64(after.Mallocs-before.Mallocs) / count; best < 0 || each < best {
			best = each
		}
	}
	return best
}

// askAgain asks once and reads an answer of as many bytes as besideBody.
func askAgain(c net.Conn, in *bufio.Reader, request []byte) error {
	if _, err := c.Write(request); err != nil {
		return err
	}
	for first := true; ; first = false {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		if first && string(line) != "HTTP/1.1 200 OK\r\n" {
			return fmt.Errorf("it answered %q", line)
		}
		if len(line) == 2 {
			break
		}
	}
	_, err := in.Discard(len(besideBody))
	return err
}
