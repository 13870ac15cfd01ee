package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestObjectsAreToldApart(t *testing.T) {
	noise := newPatterns()
	o := object{policy: "soak", size: 5000, id: 7, version: 3}
	back, err := parseObject(o.path())
	if err != nil || back.path() != o.path() {
		t.Fatalf("%s: got back %s, error %v", o.path(), back.path(), err)
	}
	if v, err := back.parseVersion(o.etag()); err != nil || v != 3 {
		t.Errorf("%s: got version %d, error %v; want 3", o.etag(), v, err)
	}
	other := o
	other.version++
	body := bytes.Clone(noise.body(o))
	if err := noise.verify(o, body, 0, o.size); err != nil {
		t.Error(err)
	}
	if noise.verify(other, body, 0, o.size) == nil {
		t.Error("the body of another version was taken for the right one")
	}
	if noise.verify(o, body[:4999], 0, o.size) == nil {
		t.Error("a short body was taken for the whole")
	}
	body[4321] ^= 1
	if err := noise.verify(o, body, 0, o.size); err == nil || !strings.Contains(err.Error(), "4321") {
		t.Errorf("a wrong byte at 4321: got error %v, want one that says where", err)
	}
	for _, path := range []string{"", "/", "/a/b", "/a/1/2/3", "a/1/2", "/a/-1/2", "/a/99999999/2", "/a/1/-2", "/a/x/2"} {
		if _, err := parseObject(path); err == nil {
			t.Errorf("path %q: got no error", path)
		}
	}
	if _, err := o.parseVersion(`"soak-5000-70-3"`); err == nil {
		t.Error("the ETag of another object: got no error")
	}
}

func TestOrigin(t *testing.T) {
	s := httptest.NewServer(newOrigin())
	defer s.Close()
	ask := func(path, etag string) (*http.Response, []byte, error) {
		req, err := http.NewRequest(http.MethodGet, s.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if etag != "" {
			req.Header.Set("If-None-Match", etag)
		}
		resp, err := s.Client().Do(req)
		if err != nil {
			return nil, nil, err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return resp, body, err
	}
	noise := newPatterns()
	o := object{policy: "soak", size: 40_000, id: 9}
	resp, body, err := ask(o.path(), "")
	if err != nil || noise.verify(o, body, 0, o.size) != nil || resp.Header.Get("Surrogate-Key") != "object-9" {
		t.Fatalf("%s: got %v, error %v", o.path(), resp, err)
	}
	if resp, _, err := ask(o.path(), o.etag()); err != nil || resp.StatusCode != http.StatusNotModified {
		t.Errorf("validation: got %v, error %v; want 304", resp, err)
	}
	if _, body, err := ask("/-/bump?id=9", ""); err != nil || string(body) != "1" {
		t.Errorf("bump: got %q, error %v; want 1", body, err)
	}
	o.version = 1
	if resp, body, err := ask(o.path(), `"soak-40000-9-0"`); err != nil || resp.StatusCode != 200 || noise.verify(o, body, 0, o.size) != nil {
		t.Errorf("after the bump: got %v, error %v; want version 1", resp, err)
	}
	for _, tt := range []struct {
		fault  fault
		status int // 0 for an error
	}{{faultError, 503}, {faultReset, 0}, {faultCut, 0}, {noFault, 200}} {
		if _, _, err := ask("/-/fault?is="+string(tt.fault), ""); err != nil {
			t.Fatal(err)
		}
		resp, _, err := ask(o.path(), "")
		if tt.status == 0 && err == nil || tt.status != 0 && (err != nil || resp.StatusCode != tt.status) {
			t.Errorf("fault %s: got %v, error %v; want status %d", tt.fault, resp, err, tt.status)
		}
	}
	if _, text, err := ask("/-/stats", ""); err != nil || !strings.Contains(string(text), `"not_modified":1`) {
		t.Errorf("stats: got %s, error %v; want one 304", text, err)
	}
}

// TestOpenLoadChargesAStallToAllWhoWait: a server that answers nothing for 300 ms
// makes a closed load of one connection wait once. Those who would have come in
// the meantime count too.
func TestOpenLoadChargesAStallToAllWhoWait(t *testing.T) {
	healed := make(chan struct{})
	var stalled atomic.Bool
	noise := newPatterns()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o, err := parseObject(r.URL.Path)
		if err != nil {
			t.Error(err)
			return
		}
		if o.size == 100 {
			if stalled.CompareAndSwap(false, true) {
				time.AfterFunc(300*time.Millisecond, func() { close(healed) })
			}
			<-healed
		}
		_, _ = w.Write(noise.body(o))
	}))
	defer s.Close()
	result, err := loadSteadily(t.Context(), loadSpec{Kind: "open", URL: s.URL, Protocol: h1, Connections: 1, Rate: 200,
		Length: 600 * time.Millisecond, Check: true, Keys: keySpec{Policy: "hour", Kind: "one", Size: 100}})
	if err != nil || result.Errors > 0 {
		t.Fatalf("got error %v, %d errors: %s", err, result.Errors, result.FirstError)
	}
	// About 60 of 120 came in the stall, and waited 150 ms in the mean. Counted
	// from when each was sent, one would have.
	if result.Requests < 60 || result.P99 < 200*time.Millisecond || result.P50 < time.Millisecond {
		t.Errorf("got %d requests, p50 %v, p99 %v; want about 120, p99 above 200 ms, p50 above 1 ms", result.Requests, result.P50, result.P99)
	}
}

func TestLoadFindsWrongBodies(t *testing.T) {
	noise := newPatterns()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o, _ := parseObject(r.URL.Path)
		o.id += o.id / 5 // 5 and above get another's
		_, _ = w.Write(noise.body(o))
	}))
	defer s.Close()
	result, err := loadSteadily(t.Context(), loadSpec{Kind: "closed", URL: s.URL, Protocol: h1, Connections: 2, Requests: 10, Check: true,
		Keys: keySpec{Policy: "hour", Kind: "unique", Size: 100}})
	if err != nil || result.Requests != 5 || result.Errors != 5 || !strings.Contains(result.FirstError, "wrong byte") {
		t.Errorf("got %+v, error %v; want 5 right and 5 with a wrong byte", result, err)
	}
}

// TestGeneratorIsAProcess runs the sub-command for each kind of load.
func TestGeneratorIsAProcess(t *testing.T) {
	s := httptest.NewServer(newOrigin())
	defer s.Close()
	keys := keySpec{Policy: "hour", Kind: "one", Size: 1000}
	for _, spec := range []loadSpec{
		{Kind: "closed", Connections: 2, Requests: 20, Keys: keys, Check: true},
		{Kind: "open", Connections: 2, Rate: 500, Length: 100 * time.Millisecond, Keys: keys},
		{Kind: "burst", Connections: 30, Keys: keys, Check: true},
	} {
		t.Run(spec.Kind, func(t *testing.T) {
			spec.URL, spec.Protocol = s.URL, h1
			result, err := load(t.Context(), t.TempDir(), helperCores(t), spec)
			if err != nil || result.Requests < 5 || result.Errors > 0 || result.P50 == 0 {
				t.Errorf("got %+v, error %v; want requests and no errors", result, err)
			}
		})
	}
	if _, err := load(t.Context(), t.TempDir(), helperCores(t), loadSpec{Kind: "nap"}); err == nil || !strings.Contains(err.Error(), "nap") {
		t.Errorf("kind nap: got error %v, want one that names it", err)
	}
}

func helperCores(t *testing.T) []int {
	t.Helper()
	if runtime.GOOS != "linux" {
		return nil
	}
	_, cores, err := serverAndLoad()
	if err != nil {
		t.Fatal(err)
	}
	return cores
}

func TestIdleConnectionsStayUntilTold(t *testing.T) {
	var open atomic.Int64
	s := httptest.NewUnstartedServer(newOrigin())
	s.Config.ConnState = countOpen(&open)
	s.Start()
	defer s.Close()
	in, tell := io.Pipe()
	read, out := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- runLoad(t.Context(), in, out) }()
	if err := json.NewEncoder(tell).Encode(loadSpec{Kind: "idle", URL: s.URL, Connections: 40}); err != nil {
		t.Fatal(err)
	}
	var result loadResult
	if err := json.NewDecoder(read).Decode(&result); err != nil || result.Requests != 40 {
		t.Fatalf("got %+v, error %v; want 40 requests", result, err)
	}
	if n := open.Load(); n != 40 {
		t.Errorf("while they rest: got %d connections, want 40", n)
	}
	tell.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func countOpen(open *atomic.Int64) func(c net.Conn, state http.ConnState) {
	return func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			open.Add(1)
		case http.StateClosed:
			open.Add(-1)
		}
	}
}

// TestProcessesEnd: what was started ends with stop, also when it will not.
func TestProcessesEnd(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("it reads /proc")
	}
	p, err := self("origin", t.TempDir(), helperCores(t), nil, "origin", "--addr", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := processorTime(p.pid); err != nil {
		t.Error(err)
	}
	if n, err := residentBytes(p.pid); err != nil || n < 1<<20 {
		t.Errorf("memory of a Go program: got %d bytes, error %v", n, err)
	}
	p.stop()
	if _, err := residentBytes(p.pid); err == nil {
		t.Error("it has memory after stop")
	}
	bad, err := self("origin", t.TempDir(), helperCores(t), nil, "origin", "--addr", "nowhere")
	if err != nil {
		t.Fatal(err)
	}
	defer bad.stop()
	err = bad.until(t.Context(), func() error { return io.EOF })
	if err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("a process that cannot start: got error %v, want what it said", err)
	}
}

func TestConfigurationNamesTheFunction(t *testing.T) {
	s := &setting{dir: "d", origin: "127.0.0.1:1", memory: 1 << 20, certs: &certificate{cert: "c", key: "k"}}
	if got := s.configuration(); strings.Contains(got, "functions:") || !strings.Contains(got, "memory: "+strconv.Itoa(1<<20)) {
		t.Errorf("without a function: got\n%s", got)
	}
	s.function, s.variation = "f.wasm", "-a"
	if got := s.configuration(); !strings.Contains(got, "X-Function: ran-a") || !strings.Contains(got, "viewer: [headers]") {
		t.Errorf("with a function: got\n%s", got)
	}
}

// TestFetchTellsOfFailure: a helper's answer that is no 2xx is an error.
func TestFetchTellsOfFailure(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no such tag", http.StatusBadRequest)
	}))
	defer s.Close()
	if _, err := fetch(context.Background(), http.MethodGet, s.URL, nil, nil); err == nil || !strings.Contains(err.Error(), "no such tag") {
		t.Errorf("got error %v, want one with what was said", err)
	}
}
