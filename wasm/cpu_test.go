//go:build unix

package wasm

import (
	"runtime"
	"runtime/debug"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestCPULimitHolds measures the processor time of the process until a guest
// is stopped: the median of several tries.
func TestCPULimitHolds(t *testing.T) {
	if raced {
		t.Skip("the race detector's work would be counted")
	}
	// Garbage, other tests' too, is no guest's work: one is collected before, none meanwhile.
	runtime.GC()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	h := newHost(t, Options{})
	for _, limit := range []time.Duration{2 * time.Millisecond, 20 * time.Millisecond} {
		for _, name := range []string{"infinite loop", "exponential calls", "bulk fill forever", "large fills forever", "loop of stores",
			"cache misses", "table growth", "memory growth to the limit"} {
			f := load(t, h, Spec{Source: hostileGuest(hostile()[name].code, false), Mode: ModeShared, Limits: Limits{CPU: limit}})
			c := chainOf(t, f)
			var tries []time.Duration
			for range 9 {
				began := processor(t)
				ask(t, c, special)
				tries = append(tries, processor(t)-began)
			}
			slices.Sort(tries)
			t.Logf("%s, limit %v: %v", name, limit, tries)
			if median := tries[len(tries)/2]; median > 2*limit || median < limit/4 && name != "memory growth to the limit" {
				t.Errorf("%s with a limit of %v: stopped after %v, want within twice the limit and not much before; all: %v", name, limit, median, tries)
			}
		}
	}
}

// processor is the processor time that this process has taken.
func processor(t *testing.T) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Skip("no processor time here:", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
