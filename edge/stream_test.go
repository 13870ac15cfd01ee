package edge

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// counted is content in which each 8 bytes say where they are.
func counted(size int) string {
	p := make([]byte, 0, size+8)
	for i := uint64(0); len(p) < size; i++ {
		p = binary.BigEndian.AppendUint64(p, i<<32|^i&(1<<32-1))
	}
	return string(p[:size])
}

// ofPath answers with as many bytes as the path says, at "/un" without a length.
func ofPath(r *http.Request) (*http.Response, error) {
	digits := strings.TrimLeft(r.URL.Path, "/un")
	size, err := strconv.Atoi(digits)
	if err != nil {
		return nil, err
	}
	q := resp(r, counted(size), "Cache-Control", "max-age=60", "Content-Type", "image/png", "Etag", `"1"`)
	if strings.HasPrefix(r.URL.Path, "/un") {
		q.ContentLength = -1
	}
	return q, nil
}

// TestLargeBodiesAreExact asks over sockets for bodies of many blocks, first
// while they arrive, then stored.
func TestLargeBodiesAreExact(t *testing.T) {
	const block = 64 << 10
	for _, proto := range []string{"HTTP/1.1", "HTTP/1.1 TLS", "HTTP/2.0 TLS"} {
		t.Run(proto, func(t *testing.T) {
			h := walkHandler(t, ofPath, StoreOptions{}, nil)
			defer h.Store.Close()
			defer h.Close()
			server := httptest.NewUnstartedServer(h)
			if server.EnableHTTP2 = strings.HasPrefix(proto, "HTTP/2"); strings.HasSuffix(proto, "TLS") {
				server.StartTLS()
			} else {
				server.Start()
			}
			defer server.Close()
			for _, size := range []int{block - 1, block, block + 1, 2 * block, 3*block + 7, gathered * block, gathered*block + 1, 40*block - 5} {
				for _, ask := range []struct{ method, path, ranges string }{
					{"GET", "/", ""}, {"GET", "/", ""}, {"GET", "/un", ""}, {"GET", "/un", ""}, {"HEAD", "/", ""},
					{"GET", "/", "0-0"}, {"GET", "/", "1-"}, {"GET", "/", "-" + fmt.Sprint(block+1)},
					{"GET", "/", fmt.Sprint("100-", size-2)}, {"GET", "/", fmt.Sprint(block-3, "-", block+2)},
				} {
					checkExact(t, server, proto, ask.method, ask.path, ask.ranges, size)
				}
			}
		})
	}
}

func checkExact(t *testing.T, server *httptest.Server, proto, method, path, ranges string, size int) {
	t.Helper()
	req, err := http.NewRequest(method, server.URL+path+fmt.Sprint(size), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := httptest.NewRecorder() // what net/http says of such a request
	if ranges != "" {
		req.Header.Set("Range", "bytes="+ranges)
	}
	http.ServeContent(want, req, "a.png", time.Time{}, strings.NewReader(counted(size)))
	res, err := server.Client().Do(req)
	if err != nil {
		t.Fatalf("%s %s bytes %s: %v", method, req.URL, ranges, err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	body := want.Body.Bytes()
	if err != nil || res.StatusCode != want.Code || !bytes.Equal(got, body) || !strings.HasPrefix(proto, res.Proto) || res.Close ||
		res.ContentLength >= 0 && method == "GET" && res.ContentLength != int64(len(body)) {
		t.Errorf("%s %s bytes %s by %s: %s, status %d, length %d, %d bytes of sum %x, %v; want %d, %d bytes of sum %x", method, req.URL, ranges, proto,
			res.Proto, res.StatusCode, res.ContentLength, len(got), sha256.Sum256(got), err, want.Code, len(body), sha256.Sum256(body))
	}
}

// connection is a client's connection that takes a net.Buffers, at most takes
// bytes of it before the deadline, when takes is not negative, and in so many
// writes, when that is not 0; nothing after.
type connection struct {
	sink
	takes, writes int

	mu       sync.Mutex
	deadline time.Time
	moved    chan struct{} // closed when the deadline changes
	got      bytes.Buffer
	calls    []int // bytes of each write of several blocks
}

func newConnection(takes int) *connection {
	return &connection{sink: sink{h: http.Header{}}, takes: takes, moved: make(chan struct{})}
}

func (c *connection) SetWriteDeadline(at time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = at
	close(c.moved)
	c.moved = make(chan struct{})
	return nil
}

func (c *connection) Write(p []byte) (int, error) { return c.got.Write(p) }

func (c *connection) ReadFrom(r io.Reader) (int64, error) {
	blocks, ok := r.(*net.Buffers)
	if !ok {
		return 0, errors.New("not a net.Buffers")
	}
	most := int64(1 << 62)
	if c.takes >= 0 {
		most = int64(c.takes)
	}
	if c.writes > 0 && len(c.calls) >= c.writes {
		most = 0
	}
	n, err := io.Copy(&c.got, io.LimitReader(blocks, most))
	c.calls = append(c.calls, int(n))
	if err != nil || len(*blocks) == 0 {
		return n, err
	}
	for { // it is full until the deadline
		c.mu.Lock()
		at, moved := c.deadline, c.moved
		c.mu.Unlock()
		var end <-chan time.Time
		if !at.IsZero() {
			end = time.After(time.Until(at))
		}
		select {
		case <-end:
			return n, os.ErrDeadlineExceeded
		case <-moved:
		}
	}
}

func TestStoredBlocksGoTogether(t *testing.T) {
	const block = 64 << 10
	for _, tt := range []struct {
		name  string
		size  int
		proto int
		ask   string
		want  []int
	}{
		{"one block", block, 1, "", nil},
		{"two blocks", 2 * block, 1, "", []int{2 * block}},
		{"as many as go together", gathered * block, 1, "", []int{gathered * block}},
		{"one is left", gathered*block + 5, 1, "", []int{gathered * block}},
		{"more", 2*gathered*block - 1, 1, "", []int{gathered * block, gathered*block - 1}},
		{"a range", 4 * block, 1, "bytes=10-200000", []int{200000 - 9}},
		{"several ranges", 4 * block, 1, "bytes=10-200000,5-7", nil},
		{"HTTP/2", 4 * block, 2, "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := walkHandler(t, func(r *http.Request) (*http.Response, error) {
				return resp(r, counted(tt.size), "Cache-Control", "max-age=60"), nil
			}, StoreOptions{}, nil)
			defer h.Store.Close()
			defer h.Close()
			for i := range 2 {
				c := newConnection(-1)
				r := request(1)
				r.ProtoMajor, r.ProtoMinor = tt.proto, 1%tt.proto
				if tt.ask != "" && i == 1 { // a range is stored of a whole alone
					r.Header.Set("Range", tt.ask)
				}
				h.ServeHTTP(c, r)
				h.wait.Wait() // the fill settles the body
				if (tt.ask == "" || i == 0) && c.got.String() != counted(tt.size) {
					t.Fatalf("%d bytes of sum %x, want %d of %x", c.got.Len(), sha256.Sum256(c.got.Bytes()), tt.size, sha256.Sum256([]byte(counted(tt.size))))
				}
				hit := strings.Contains(c.h.Get("Cache-Status"), "; hit;")
				if hit != (i == 1) || hit && !slices.Equal(c.calls, tt.want) {
					t.Errorf("request %d, %s: blocks went in writes of %v bytes, want %v", i, c.h.Get("Cache-Status"), c.calls, tt.want)
				}
			}
		})
	}
}

// A client is cut when it takes nothing, not when a write of many blocks takes
// longer than one of a block may.
func TestSlowClientsOfStoredBodiesAreNotCut(t *testing.T) {
	const block, size = 64 << 10, 1 << 20
	for _, tt := range []struct {
		name   string
		takes  int
		writes int
		want   int
		cut    time.Duration // 0: it is not
	}{
		{"a block at a time", block, 0, size, 0},
		{"less than a block", block - 1, 0, block - 1, writeStall},
		{"nothing", 0, 0, 0, writeStall},
		{"a block, and nothing more", block, 1, block, 2 * writeStall},
		{"half of it, and nothing more", block, 8, size / 2, 9 * writeStall},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := walkHandler(t, func(r *http.Request) (*http.Response, error) {
					return resp(r, counted(size), "Cache-Control", "max-age=36000"), nil
				}, StoreOptions{}, nil)
				h.ServeHTTP(&sink{h: http.Header{}}, request(1))
				synctest.Wait()
				c := newConnection(tt.takes)
				c.writes = tt.writes
				begun := time.Now()
				h.ServeHTTP(c, request(1))
				if got := c.got.String(); got != counted(size)[:tt.want] {
					t.Errorf("it got %d bytes of %v, want %d", len(got), c.calls, tt.want)
				}
				if cut := h.Stats.faults[FaultStalledRead].Load() == 1; cut != (tt.cut > 0) || cut && time.Since(begun) != tt.cut {
					t.Errorf("cut %t after %v, want %t (after %v)", cut, time.Since(begun), tt.cut > 0, tt.cut)
				}
				if !c.deadline.IsZero() {
					t.Errorf("the deadline %v is left on the connection", c.deadline)
				}
				h.Close()
				h.Store.Close()
			})
		})
	}
}

// Those who hold bodies that the store has let go of are cut at once where the
// budget says so, in the middle of a write of many blocks too.
func TestReadersOfDroppedBodiesAreCutInTheirWrites(t *testing.T) {
	const clients = 20
	synctest.Test(t, func(t *testing.T) {
		h := walkHandler(t, func(r *http.Request) (*http.Response, error) {
			return resp(r, counted(1<<20), "Cache-Control", "max-age=36000"), nil
		}, StoreOptions{Memory: 8 << 20, MaxObject: 2 << 20}, nil)
		begun := time.Now()
		ended := make(chan any, clients)
		for i := range clients {
			h.ServeHTTP(&sink{h: http.Header{}}, request(i))
			synctest.Wait()
			go func() {
				defer func() { ended <- recover() }()
				h.ServeHTTP(newConnection(0), request(i))
			}()
			synctest.Wait()
		}
		cut := len(ended)
		if cut == 0 || time.Since(begun) != 0 {
			t.Errorf("%d of %d stalled readers were cut in %v; the store has room for 8 bodies", cut, clients, time.Since(begun))
		}
		for i := range clients {
			if how := <-ended; (how != nil) != (i < cut) || how != nil && how != http.ErrAbortHandler {
				t.Errorf("client %d of %d cut ended with %v", i, cut, how)
			}
		}
		h.Close()
		h.Store.Close()
	})
}
