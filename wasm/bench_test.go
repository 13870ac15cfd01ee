package wasm

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"seawall/wasm/abi"
)

// small is a guest that makes three host calls for a request and has a
// response callback.
func small() []byte {
	g := newGuest()
	uri := g.http("get_uri", "ii", "i")
	values := g.http("get_header_values", "iiiii", "I")
	set := g.http("set_header_value", "iiiii", "")
	g.fn("handle_request", "", "I", 0, i32c(0), i32c(256), uri, drop,
		i32c(0), g.text(1000, "user-agent"), i32c(512), i32c(256), values, drop,
		i32c(0), g.text(1100, "x-small"), g.text(1200, "1"), set, next)
	g.fn("handle_response", "ii", "", 0)
	return g.bytes()
}

// goGuest builds a guest in Go that does the same; "" with a notice when it
// cannot be built.
func goGuest(t testing.TB) []byte {
	dir := t.TempDir()
	files := map[string]string{"go.mod": "module guest\n\ngo 1.24\n", "main.go": goSource}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "build", "-buildmode=c-shared", "-ldflags=-s -w", "-o", "guest.wasm")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=-mod=mod", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("a Go guest cannot be built here: %v\n%s", err, out)
	}
	b, err := os.ReadFile(filepath.Join(dir, "guest.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const goSource = `package main

import "unsafe"

//go:wasmimport http_handler get_uri
func getURI(p unsafe.Pointer, n uint32) uint32

//go:wasmimport http_handler get_header_values
func getValues(kind uint32, name unsafe.Pointer, n uint32, p unsafe.Pointer, limit uint32) uint64

//go:wasmimport http_handler set_header_value
func setValue(kind uint32, name unsafe.Pointer, n uint32, value unsafe.Pointer, vn uint32)

var (
	room [512]byte
	agent, small, one = []byte("user-agent"), []byte("x-small"), []byte("1")
	count int
)

//go:wasmexport handle_request
func handleRequest() uint64 {
	getURI(unsafe.Pointer(&room[0]), 256)
	getValues(0, unsafe.Pointer(&agent[0]), 10, unsafe.Pointer(&room[256]), 256)
	count++
	one[0] = '0' + byte(count%10)
	setValue(0, unsafe.Pointer(&small[0]), 7, unsafe.Pointer(&one[0]), 1)
	return 1
}

//go:wasmexport handle_response
func handleResponse(ctx, failed uint32) {}

func main() {}
`

// TestGoGuest runs a guest of the standard Go tool chain in both modes: reset
// forgets its count.
func TestGoGuest(t *testing.T) {
	source := goGuest(t)
	h := newHost(t, Options{})
	for mode, want := range map[Mode]string{ModeReset: "222", ModeShared: "234"} {
		c := chainOf(t, load(t, h, Spec{Source: source, Mode: mode, Limits: Limits{CPU: 50e6}}))
		got := ""
		for range 3 {
			x := &abi.Exchange{Request: abi.Message{Method: "GET", Target: "/", Header: http.Header{}}}
			r := c.Begin(t.Context(), x)
			if res := r.Request(); res.Verdict != Continue {
				t.Fatalf("got %+v", res)
			}
			got += x.Request.Header.Get("X-Small")
			x.Response = abi.Message{Status: 200, Header: http.Header{}}
			r.Response()
			r.End()
		}
		if got != want {
			t.Errorf("mode %d: the counts are %s, want %s", mode, got, want)
		}
	}
	if f, err := h.Load(t.Context(), Spec{Name: "f", Source: source}); err == nil {
		f.Close()
		t.Error("by default the memory of a Go guest was restored for each request; want an error that asks for the choice")
	}
}

// BenchmarkExchange is a request and a response through one function, pooled
// (shared) and reset.
func BenchmarkExchange(b *testing.B) {
	for _, g := range []struct {
		name   string
		source func(testing.TB) []byte
	}{{"small", func(testing.TB) []byte { return small() }}, {"go", goGuest}} {
		for _, mode := range []Mode{ModeShared, ModeReset} {
			b.Run(fmt.Sprintf("%s/%s", g.name, map[Mode]string{ModeShared: "pooled", ModeReset: "reset"}[mode]), func(b *testing.B) {
				h := newHost(b, Options{})
				c := chainOf(b, load(b, h, Spec{Source: g.source(b), Mode: mode}))
				x := &abi.Exchange{}
				header := http.Header{"User-Agent": {"bench"}}
				answer := http.Header{}
				b.ReportAllocs()
				b.ResetTimer()
				for b.Loop() {
					*x = abi.Exchange{Request: abi.Message{Method: "GET", Target: "/", Header: header}}
					r := c.Begin(context.Background(), x)
					if res := r.Request(); res.Verdict != Continue {
						b.Fatalf("got %+v", res)
					}
					x.Response = abi.Message{Status: 200, Header: answer}
					r.Response()
					r.End()
				}
			})
		}
	}
}

// BenchmarkLoad loads a small module.
func BenchmarkLoad(b *testing.B) {
	h := newHost(b, Options{})
	source := small()
	for b.Loop() {
		f, err := h.Load(context.Background(), Spec{Name: "f", Source: source})
		if err != nil {
			b.Fatal(err)
		}
		f.Close()
	}
}
