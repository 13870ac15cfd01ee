package wasm

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"seawall/wasm/abi"
)

// counting is a guest that keeps a count in memory and one in a global, adds
// one to each at a request, and answers with both as the status' offset: 200
// plus four times the memory's plus the global's.
func counting() []byte {
	g := newGuest()
	status := g.http("set_status_code", "i", "")
	count := g.global(0)
	inc := cat([]byte{0x23}, count, i32c(1), []byte{0x6a, 0x24}, count,
		i32c(64), i32c(64), []byte{0x28, 2, 0}, i32c(1), []byte{0x6a, 0x36, 2, 0})
	sum := cat(i32c(64), []byte{0x28, 2, 0}, i32c(4), []byte{0x6c}, []byte{0x23}, count, []byte{0x6a}, i32c(200), []byte{0x6a})
	g.fn("handle_request", "", "I", 0, inc, sum, status, answer)
	return g.bytes()
}

// TestResetLeavesNothing has every request see the machine as it was after
// the trial, which is the first count of both.
func TestResetLeavesNothing(t *testing.T) {
	h := newHost(t, Options{})
	c := chainOf(t, load(t, h, Spec{Source: counting()}))
	const want = 200 + 2*4 + 2
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			for range 200 {
				if status, _ := ask(t, c, nil); status != want {
					t.Errorf("got status %d, want %d: something of another request is left", status, want)
					return
				}
			}
		})
	}
	wait.Wait()
}

// TestSharedKeepsState is what mode shared means.
func TestSharedKeepsState(t *testing.T) {
	h := newHost(t, Options{})
	c := chainOf(t, load(t, h, Spec{Source: counting(), Mode: ModeShared}))
	for i := range 5 {
		if status, _ := ask(t, c, nil); status != 200+(i+2)*5 {
			t.Errorf("request %d: got status %d, want %d", i, status, 200+(i+2)*5)
		}
	}
}

// TestGrowthDiscardsMachine sees that memory does not stay grown.
func TestGrowthDiscardsMachine(t *testing.T) {
	g := newGuest()
	has := g.isSpecial()
	status := g.http("set_status_code", "i", "")
	g.fn("handle_request", "", "I", 0, when(has, i32c(1), []byte{0x40, 0}, drop),
		[]byte{0x3f, 0}, i32c(200), []byte{0x6a}, status, answer)
	h := newHost(t, Options{})
	f := load(t, h, Spec{Source: g.bytes()})
	c := chainOf(t, f)
	for _, q := range []struct {
		change func(*abi.Exchange)
		want   int
	}{{nil, 201}, {special, 202}, {nil, 201}, {special, 202}, {nil, 201}} {
		if status, _ := ask(t, c, q.change); status != q.want {
			t.Errorf("got %d pages, want %d", status-200, q.want-200)
		}
	}
	if m := f.Stats().Memory; m != page {
		t.Errorf("the machines have %d bytes of memory, want %d", m, page)
	}
}

// passing is a guest with both callbacks that does nothing.
func passing() []byte {
	g := newGuest()
	g.fn("handle_request", "", "I", 0, next)
	g.fn("handle_response", "ii", "", 0)
	return g.bytes()
}

// TestSlowOriginsDoNotStallHits holds machines through slow fetches while
// others are served.
func TestSlowOriginsDoNotStallHits(t *testing.T) {
	h := newHost(t, Options{})
	// Room for the least number of machines.
	f := load(t, h, Spec{Source: passing(), Limits: Limits{Instances: leastMachines * page}})
	c := chainOf(t, f)
	var slow []*Run
	for range 2 {
		x := &abi.Exchange{Request: abi.Message{Method: "GET", Target: "/", Header: http.Header{}}}
		r := c.Begin(t.Context(), x)
		if res := r.Request(); res.Verdict != Continue {
			t.Fatalf("got %+v", res)
		}
		slow = append(slow, r)
	}
	for range 100 {
		if status, body := ask(t, c, nil); status != 200 {
			t.Fatalf("a hit beside two slow fetches: got %d %q, want 200", status, body)
		}
	}
	if n := f.Stats().Machines; n > leastMachines {
		t.Errorf("there are %d machines, want at most %d", n, leastMachines)
	}
	for _, r := range slow {
		r.End()
	}
}

// TestQueueIsShortAndBounded takes all machines, and sees who waits how long.
func TestQueueIsShortAndBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, Options{})
		f := load(t, h, Spec{Source: passing(), Limits: Limits{Instances: leastMachines * page, Queue: 3, QueueWait: 100 * time.Millisecond}})
		c := chainOf(t, f)
		var held []*Run
		for range leastMachines {
			r := c.Begin(t.Context(), &abi.Exchange{Request: abi.Message{Header: http.Header{}}})
			if res := r.Request(); res.Verdict != Continue {
				t.Fatalf("got %+v", res)
			}
			held = append(held, r)
		}
		type outcome struct {
			status int
			after  time.Duration
		}
		began := time.Now()
		results := make(chan outcome, 5)
		for range 5 {
			go func() {
				status, _ := ask(t, c, nil)
				results <- outcome{status, time.Since(began)}
			}()
			synctest.Wait()
		}
		// Two find the queue full; one waiting gets what is given back; two
		// give up.
		for range 2 {
			if got := <-results; got != (outcome{503, 0}) {
				t.Errorf("with a full queue: got %+v, want 503 at once", got)
			}
		}
		time.Sleep(40 * time.Millisecond)
		held[0].End()
		synctest.Wait()
		// The one that was served gave its machine to the next.
		for range 3 {
			if got := <-results; got != (outcome{200, 40 * time.Millisecond}) {
				t.Errorf("waiting: got %+v, want 200 after 40ms", got)
			}
		}
		late := c.Begin(t.Context(), &abi.Exchange{Request: abi.Message{Header: http.Header{}}})
		late.Request()
		began = time.Now()
		status, _ := ask(t, c, nil)
		if got := time.Since(began); status != 503 || got != 100*time.Millisecond {
			t.Errorf("nobody gives one back: got %d after %v, want 503 after 100ms", status, got)
		}
		late.End()
		for _, r := range held[1:] {
			r.End()
		}
	})
}

// TestBreaker opens after repeated traps, applies the policy at once, and
// closes after a probe that went well.
func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, Options{})
		f := load(t, h, Spec{Source: hostileGuest(hostile()["trap"].code, false)})
		c := chainOf(t, f)
		for range breakerTraps {
			if _, reason := ask(t, c, special); reason != "unreachable" {
				t.Fatalf("got %q, want unreachable", reason)
			}
		}
		if status, reason := ask(t, c, nil); status != 503 || reason != "breaker" {
			t.Errorf("after %d traps: got %d %q, want 503 breaker", breakerTraps, status, reason)
		}
		time.Sleep(breakerFirst)
		if _, reason := ask(t, c, special); reason != "unreachable" {
			t.Errorf("the probe: got %q, want unreachable", reason)
		}
		time.Sleep(2*breakerFirst - 1)
		if _, reason := ask(t, c, nil); reason != "breaker" {
			t.Errorf("before the second probe: got %q, want breaker", reason)
		}
		time.Sleep(time.Nanosecond)
		for range 10 {
			if status, _ := ask(t, c, nil); status != 200 {
				t.Errorf("after a good probe: got %d, want 200", status)
			}
		}
		if s := f.Stats(); s.Breaker != "closed" || s.BreakerOpen != 2 {
			t.Errorf("got breaker %s, opened %d times, want closed and 2", s.Breaker, s.BreakerOpen)
		}
	})
}

// TestPoisonDoesNotOpenBreaker mixes few traps with many good requests.
func TestPoisonDoesNotOpenBreaker(t *testing.T) {
	h := newHost(t, Options{})
	f := load(t, h, Spec{Source: hostileGuest(hostile()["trap"].code, false)})
	c := chainOf(t, f)
	for i := range 200 {
		if i%5 == 0 {
			ask(t, c, special)
			continue
		}
		if status, reason := ask(t, c, nil); status != 200 {
			t.Fatalf("good request %d: got %d %q, want 200", i, status, reason)
		}
	}
}

// TestSwapUnderLoad replaces a function again and again while requests run:
// none may fail, and memory must come back.
func TestSwapUnderLoad(t *testing.T) {
	swaps := 300
	if os.Getenv("SEAWALL_LONG") != "" {
		swaps = 10_000
	}
	h := newHost(t, Options{})
	source := passing()
	var current Slot
	swap := func(i int) {
		f, err := h.Load(context.Background(), Spec{Name: fmt.Sprint("f", i), Source: source})
		if err != nil {
			t.Error(err)
			return
		}
		current.Swap(NewChain([]*Function{f}))
		f.Close() // the chain has it
	}
	swap(0)
	stop := make(chan struct{})
	var wait sync.WaitGroup
	var served atomic.Int64
	for range 2 {
		wait.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if status, reason := ask(t, &current, nil); status != 200 {
					t.Errorf("got %d %q, want 200", status, reason)
					return
				}
				served.Add(1)
				runtime.Gosched()
			}
		})
	}
	for i := range swaps / 3 {
		swap(i)
	}
	before := inUse()
	for i := range swaps - swaps/3 {
		swap(i)
	}
	close(stop)
	wait.Wait()
	after := inUse()
	current.Swap(nil)
	t.Logf("%d swaps, %d requests served; in use: %d KiB before, %d after", swaps, served.Load(), before>>10, after>>10)
	if after > before+before/20+(1<<20) {
		t.Errorf("memory in use grew from %d to %d bytes", before, after)
	}
}

// inUse is the process' heap after collection, and with it code that is not
// used any more.
func inUse() uint64 {
	for range 3 {
		runtime.GC()
	}
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc + mapped()
}

// mapped is what the process has in memory beside Go's heap, as far as known.
func mapped() uint64 {
	b, err := os.ReadFile("/proc/self/smaps_rollup")
	if err != nil {
		return 0
	}
	var anonymous uint64
	for line := range strings.Lines(string(b)) {
		if _, err := fmt.Sscanf(line, "Anonymous: %d kB", &anonymous); err == nil {
			break
		}
	}
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	goes := s.Sys - s.HeapReleased
	return max(anonymous<<10, goes) - goes
}

// TestCompileCache loads from it, and does not trust it.
func TestCompileCache(t *testing.T) {
	dir := t.TempDir()
	source := counting()
	run := func(t *testing.T) {
		h := newHost(t, Options{CacheDir: dir})
		c := chainOf(t, load(t, h, Spec{Source: source}))
		if status, _ := ask(t, c, nil); status != 210 {
			t.Errorf("got %d, want 210", status)
		}
	}
	t.Run("empty", run)
	found, err := filepath.Glob(filepath.Join(dir, "wazero-*", "*"))
	if err != nil || len(found) != 1 {
		t.Fatalf("got files %q, %v, want one", found, err)
	}
	good, err := os.ReadFile(found[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Run("filled", run)
	// Each number that wazero would believe is damaged: the count of
	// functions (a gigantic allocation), an offset (a jump to nowhere), the
	// length of the code, the code.
	version := int(good[6])
	for name, damage := range map[string]func(b []byte) []byte{
		"magic":     func(b []byte) []byte { b[0] ^= 1; return b },
		"functions": func(b []byte) []byte { binary.LittleEndian.PutUint32(b[7+version:], 1<<31); return b },
		"offset":    func(b []byte) []byte { binary.LittleEndian.PutUint64(b[11+version:], 1<<20); return b },
		"code":      func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"short":     func(b []byte) []byte { return b[:len(b)/2] },
		"empty":     func([]byte) []byte { return nil },
		"long":      func(b []byte) []byte { return append(b, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(found[0], damage(append([]byte(nil), good...)), 0o600); err != nil {
				t.Fatal(err)
			}
			run(t)
			if got, err := os.ReadFile(found[0]); err != nil || string(got) != string(good) {
				t.Errorf("the entry was not made again: %d bytes, %v, want %d", len(got), err, len(good))
			}
		})
	}
	t.Run("a file without a note", func(t *testing.T) {
		notes, _ := filepath.Glob(filepath.Join(dir, "notes-*", "*"))
		for _, n := range notes {
			if err := os.Remove(n); err != nil {
				t.Fatal(err)
			}
		}
		bad := append([]byte(nil), good...)
		binary.LittleEndian.PutUint32(bad[7+version:], 1<<31)
		if err := os.WriteFile(found[0], bad, 0o600); err != nil {
			t.Fatal(err)
		}
		run(t)
	})
}

// TestClosedFunction fails as its policy says, also when a chain is made of
// it later.
func TestClosedFunction(t *testing.T) {
	h := newHost(t, Options{})
	f, err := h.Load(t.Context(), Spec{Name: "f", Source: passing()})
	if err != nil {
		t.Fatal(err)
	}
	c := chainOf(t, f)
	r := c.Begin(t.Context(), &abi.Exchange{Request: abi.Message{Header: http.Header{}}})
	if res := r.Request(); res.Verdict != Continue {
		t.Fatalf("got %+v", res)
	}
	f.Close()
	f.Close()
	c.Close()
	if n := f.Stats().Machines; n != 1 {
		t.Errorf("with a run under way there are %d machines, want 1", n)
	}
	r.End()
	if n := f.Stats().Machines; n != 0 {
		t.Errorf("after its last user there are %d machines, want 0", n)
	}
	if status, reason := ask(t, c, nil); status != 503 || reason != "closed" {
		t.Errorf("got %d %q, want 503 closed", status, reason)
	}
}

// TestFuelEndsWithoutClock runs an endless loop where time stands still.
func TestFuelEndsWithoutClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, Options{})
		c := chainOf(t, load(t, h, Spec{Source: hostileGuest(hostile()["infinite loop"].code, false)}))
		if status, reason := ask(t, c, special); status != 503 || reason != "cpu" {
			t.Errorf("got %d %q, want 503 cpu", status, reason)
		}
	})
}
