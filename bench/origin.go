package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// The origin that all caches stand before. /POLICY/SIZE/ID is an object; the
// policy is one of
//
//	hour     fresh for an hour
//	second   fresh for a second, then a 304 confirms it
//	slow     fresh for an hour, and 200 ms until the response begins
//	soak     fresh for an hour, with a tag; its version changes by /-/bump
//	brief    as soak, but fresh for a second
//
// and /-/ is for this program alone: stats, bump, fault.

// originStats are what an origin was asked for since it started.
type originStats struct {
	Requests    int64 `json:"requests"`
	NotModified int64 `json:"not_modified"`
	Bytes       int64 `json:"bytes"`
}

func (s originStats) minus(t originStats) originStats {
	return originStats{s.Requests - t.Requests, s.NotModified - t.NotModified, s.Bytes - t.Bytes}
}

// A fault is what an origin does wrong for a while.
type fault string

const (
	noFault    fault = "none"
	faultError fault = "error" // 503 at once
	faultSlow  fault = "slow"  // 300 ms more until the response begins
	faultCut   fault = "cut"   // half the body, then the connection ends
	faultReset fault = "reset" // the connection ends before a response
)

// origin is the handler. All of it may be used at once.
type origin struct {
	noise                        patterns
	requests, notModified, bytes atomic.Int64
	fault                        atomic.Pointer[fault]
	mu                           sync.Mutex
	versions                     map[int]int // by object, guarded by mu
}

func newOrigin() *origin {
	o := &origin{noise: newPatterns(), versions: make(map[int]int)}
	none := noFault
	o.fault.Store(&none)
	return o
}

// runOrigin serves an origin until in ends.
func runOrigin(ctx context.Context, args []string, in io.Reader) error {
	f := flag.NewFlagSet("origin", flag.ContinueOnError)
	addr := f.String("addr", "127.0.0.1:0", "where to listen")
	if err := f.Parse(args); err != nil {
		return err
	}
	ctx, cancel := untilEOF(ctx, in)
	defer cancel()
	return serveUntil(ctx, &http.Server{Handler: newOrigin(), IdleTimeout: time.Hour}, *addr)
}

// serveUntil listens for clear HTTP/1.1 at addr until ctx ends.
func serveUntil(ctx context.Context, s *http.Server, addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/-/stats":
		_ = json.NewEncoder(w).Encode(originStats{o.requests.Load(), o.notModified.Load(), o.bytes.Load()})
		return
	case "/-/bump":
		o.bump(w, r)
		return
	case "/-/fault":
		f := fault(r.URL.Query().Get("is"))
		o.fault.Store(&f)
		return
	}
	o.requests.Add(1)
	obj, err := parseObject(r.URL.Path)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	now := *o.fault.Load()
	if o.refuse(w, r, now) {
		return
	}
	o.serve(w, r, obj, now == faultCut)
}

// refuse makes the faults that leave no response worth having, and waits for the
// slow one.
func (o *origin) refuse(w http.ResponseWriter, r *http.Request, now fault) bool {
	switch now {
	case faultError:
		http.Error(w, "a fault by intent", http.StatusServiceUnavailable)
		return true
	case faultReset:
		panic(http.ErrAbortHandler)
	case faultSlow:
		pause(r.Context(), 300*time.Millisecond)
	}
	return false
}

func (o *origin) serve(w http.ResponseWriter, r *http.Request, obj object, cut bool) {
	h := w.Header()
	age := "3600"
	switch obj.policy {
	case "second":
		age = "1"
	case "slow":
		pause(r.Context(), 200*time.Millisecond)
	case "soak", "brief":
		o.mu.Lock()
		obj.version = o.versions[obj.id]
		o.mu.Unlock()
		h.Set("Surrogate-Key", "object-"+strconv.Itoa(obj.id))
		h.Set("X-Object", obj.path())
		if obj.policy == "brief" {
			age = "1, stale-while-revalidate=1"
		}
	}
	h.Set("Cache-Control", "public, max-age="+age)
	h.Set("ETag", obj.etag())
	h.Set("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
	if r.Header.Get("If-None-Match") == obj.etag() {
		o.notModified.Add(1)
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Length", strconv.Itoa(obj.size))
	if r.Method == http.MethodHead {
		return
	}
	body := o.noise.body(obj)
	if cut && len(body) > 1 {
		_, _ = w.Write(body[:len(body)/2])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	n, _ := w.Write(body)
	o.bytes.Add(int64(n))
}

// bump gives an object its next version and answers with the version's number.
func (o *origin) bump(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.Atoi(r.URL.Query().Get("id"))
	if err != nil {
		http.Error(w, "id is no number", http.StatusBadRequest)
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.versions[id]++
	fmt.Fprint(w, o.versions[id])
}

// pause returns after d, or when ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// An originProcess is an origin that runs as a process.
type originProcess struct {
	*process
	addr string
}

// startOrigin starts one and returns when it answers.
func startOrigin(ctx context.Context, dir string, cores []int) (*originProcess, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	o := &originProcess{addr: fmt.Sprintf("127.0.0.1:%d", port)}
	if o.process, err = self("origin", dir, cores, nil, "origin", "--addr", o.addr); err != nil {
		return nil, err
	}
	if err := o.until(ctx, func() error { _, err := o.stats(ctx); return err }); err != nil {
		o.stop()
		return nil, err
	}
	return o, nil
}

// ask calls one of the origin's own paths and returns what it says.
func (o *originProcess) ask(ctx context.Context, path string) ([]byte, error) {
	return fetch(ctx, http.MethodGet, "http://"+o.addr+path, nil, nil)
}

func (o *originProcess) stats(ctx context.Context) (originStats, error) {
	var s originStats
	text, err := o.ask(ctx, "/-/stats")
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(text, &s)
}

// fetch makes a request of a helper or an API and returns the body of a 2xx.
func fetch(ctx context.Context, method, url string, header http.Header, body io.Reader) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return nil, err
	}
	for name, values := range header {
		req.Header[name] = values
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 != 2 {
		return nil, fmt.Errorf("%s %s: %s: %.200s", method, url, resp.Status, text)
	}
	return text, nil
}
