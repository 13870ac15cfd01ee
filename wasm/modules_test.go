package wasm

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"seawall/wasm/abi"
)

// A C++ module of ABI 0.1.0, compiled by others, is loaded and runs.
func TestKnownProxyGuest(t *testing.T) {
	dir := moduleDir(t, "mosn.io/proxy-wasm-go-host@v0.2.0", "h1:v76IiYnqEHBJdLw+vloM/vBHEKg5Z2f3ghTHKfDdECA=")
	source, err := os.ReadFile(filepath.Join(dir, "example/data/http.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	h := newHost(t, Options{})
	f, err := h.Load(t.Context(), Spec{Name: "f", Source: source, Limits: Limits{CPU: 50 * time.Millisecond, Wall: 30 * time.Second}})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c := NewChain([]*Function{f})
	defer c.Close()
	x := &abi.Exchange{Cache: abi.Cache{TTL: -1}, Request: abi.Message{Method: "GET", Scheme: "http", Authority: "a", Target: "/", Header: http.Header{}}}
	r := c.Begin(t.Context(), x)
	defer r.End()
	if got := r.Request(); got.Verdict != Continue {
		t.Errorf("request: %+v, want continue", got)
	}
	x.Response = abi.Message{Status: 200, Header: http.Header{}}
	if got := r.Response(); got.Verdict != Continue {
		t.Errorf("response: %+v, want continue", got)
	}
	if s := f.Stats(); s.Stages[abi.ViewerRequest].Calls == 0 {
		t.Errorf("stats %+v: the guest was not called", s)
	}
}

// The cache of compiled modules is only a cache: without it functions run.
func TestCacheThatCannotBeOpened(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h, err := NewHost(Options{CacheDir: filepath.Join(file, "cache")})
	if err != nil {
		t.Fatalf("%v, want a host without a cache", err)
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
}
