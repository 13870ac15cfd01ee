package meter

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
)

// goGuest is a program that keeps Go's runtime busy: maps, strings, garbage,
// panics recovered, recursion, goroutines.
const goGuest = `package main

import (
	"encoding/json"
	"fmt"
	"hash/crc32"
	"sort"
	"strings"
)

func main() {}

type tree struct {
	L, R *tree
	N    int
}

func grow(n int) *tree {
	if n == 0 {
		return nil
	}
	return &tree{grow(n - 1), grow(n - 1), n}
}

func (t *tree) sum() int {
	if t == nil {
		return 0
	}
	return t.N + t.L.sum() + t.R.sum()
}

//go:wasmexport work
func work(n int32) int64 {
	counts := map[string]int{}
	for i := range n {
		counts[fmt.Sprint("k", i%17)] += int(i)
	}
	var keys []string
	for k, v := range counts {
		keys = append(keys, fmt.Sprint(k, "=", v))
	}
	sort.Strings(keys)
	b, _ := json.Marshal(map[string]any{"keys": keys, "tree": grow(8)})
	answers := make(chan int)
	go func() {
		defer func() { recover(); answers <- grow(10).sum() }()
		var none []int
		_ = none[n]
	}()
	return int64(crc32.ChecksumIEEE([]byte(strings.Repeat(string(b), 3)))) + int64(<-answers)
}

//go:wasmexport spin
func spin(n int32) int64 {
	x := uint32(1)
	for i := range n {
		x ^= x << 13
		x ^= x >> 17
		x ^= x<<5 + uint32(i)
	}
	return int64(x)
}
`

// buildGo compiles the Go guest.
func buildGo(t testing.TB) []byte {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"main.go": goGuest, "go.mod": "module guest\n\ngo 1.24\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "build", "-buildmode=c-shared", "-o", "guest.wasm", ".")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("the Go toolchain does not build for wasip1: %v\n%s", err, out)
	}
	b, err := os.ReadFile(filepath.Join(dir, "guest.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// started returns an instance with _initialize run, with wazero's WASI, whose
// clock and random numbers are always the same.
func (s *stage) started(wasm []byte) api.Module {
	s.t.Helper()
	if !s.defined[wasi_snapshot_preview1.ModuleName] {
		s.defined[wasi_snapshot_preview1.ModuleName] = true
		wasi_snapshot_preview1.MustInstantiate(context.Background(), s.rt)
	}
	m := s.mustInstance(wasm)
	if m.ExportedFunction("_initialize") != nil {
		if got := outcome(m, "_initialize"); got != "[]" {
			s.t.Fatalf("_initialize: %s", got)
		}
	}
	return m
}

func TestGoGuestRunsTheSame(t *testing.T) {
	if raced {
		t.Skip("the rewriter has no goroutine, and compiling its output takes minutes under the race detector")
	}
	source := buildGo(t)
	s := newStage(t)
	s.slices = 1 << 40
	r, err := Rewrite(source, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	plain, metered := s.started(source), s.started(r.Wasm)
	for _, n := range []uint64{1, 10, 500} {
		if got, want := outcome(metered, "work", n), outcome(plain, "work", n); got != want {
			t.Errorf("work(%d): metered %s, as it is %s", n, got, want)
		}
	}
	if got, want := s.seen(r.Wasm, metered), s.seen(source, plain); got != want {
		t.Errorf("afterwards: metered%s, as it is%s", got, want)
	}
	if s.yields == 0 {
		t.Error("yield was never called")
	}
	s.used, s.slices = 0, 5
	if got := outcome(metered, "spin", 1<<31-1); !stopped(got) {
		t.Errorf("a long loop: %s, want it stopped", got)
	}
	t.Logf("size %d, rewritten %d (+%.1f %%), %d globals", len(source), len(r.Wasm), 100*float64(len(r.Wasm)-len(source))/float64(len(source)), len(r.Globals))
}

func BenchmarkRewrite(b *testing.B) {
	source := buildGo(b)
	b.SetBytes(int64(len(source)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Rewrite(source, Limits{}); err != nil {
			b.Fatal(err)
		}
	}
}

// spinner is a loop as a C compiler writes it: a mix of arithmetic and memory.
func spinner() *mod {
	step := code(get(0), get(1), i32c(0xfff), 0x71, 0x28, 2, 64, opI32Add, opLocalTee, 2, i32c(13), 0x74, get(2), 0x73, opLocalTee, 2,
		i32c(17), 0x76, get(2), 0x73, set(2), get(1), i32c(0xffc), 0x71, get(2), 0x36, 2, 64, get(2), set(0))
	return &mod{memory: []byte{0, 1}, funcs: []fn{
		{name: "spin", params: one, results: one, locals: []ValueType{I32, I32}, code: code(opLoop, emptyBlock, step,
			get(1), i32c(1), opI32Add, opLocalTee, 1, i32c(1_000_000), 0x48, opBrIf, 0, opEnd, get(0))},
		{name: "calls", params: one, results: one, code: code(get(0), i32c(2), 0x48, opIf, I32, get(0), 0x05,
			get(0), i32c(1), opI32Sub, callTo(1), get(0), i32c(2), opI32Sub, callTo(1), opI32Add, opEnd)},
		{name: "nested", params: one, results: one, locals: []ValueType{I32, I32}, code: code(opLoop, emptyBlock, i32c(8), set(1),
			opLoop, emptyBlock, step, get(1), i32c(1), opI32Sub, opLocalTee, 1, opBrIf, 0, opEnd,
			get(0), i32c(1), opI32Sub, opLocalTee, 0, i32c(20), 0x76, opBrIf, 0, opEnd, get(0))},
	}}
}

// BenchmarkCost gives the time of guests with metering as a factor of that
// without, in turns.
func BenchmarkCost(b *testing.B) {
	goSource := buildGo(b)
	for _, c := range []struct {
		name   string
		source []byte
		call   string
		arg    uint64
	}{
		{"small loop", spinner().bytes(), "spin", 1},
		{"recursion", spinner().bytes(), "calls", 24},
		{"Go loop", goSource, "spin", 1_000_000},
		{"Go mixed", goSource, "work", 2000},
	} {
		b.Run(c.name, func(b *testing.B) {
			s := newStage(b)
			s.slices, s.slice = 1<<40, 300_000
			r, err := Rewrite(c.source, Limits{})
			if err != nil {
				b.Fatal(err)
			}
			forms := [2]api.Function{s.started(c.source).ExportedFunction(c.call), s.started(r.Wasm).ExportedFunction(c.call)}
			best := [2]time.Duration{time.Hour, time.Hour}
			for b.Loop() {
				for i, f := range forms {
					at := time.Now()
					if _, err := f.Call(context.Background(), c.arg); err != nil {
						b.Fatal(err)
					}
					best[i] = min(best[i], time.Since(at))
				}
			}
			b.ReportMetric(float64(best[1])/float64(best[0]), "x")
			b.ReportMetric(float64(best[0].Microseconds()), "µs-plain")
			b.ReportMetric(float64(s.yields)/float64(b.N), "yields/op")
		})
	}
}
