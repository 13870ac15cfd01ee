package wasm

import (
	"os"
	"slices"
	"sync"
	"testing"
	"time"
)

// TestNeighboursAreServed measures how long short callbacks of one function
// take while 16 clients ask another's guests, which work without end, in turns
// with and without these. It compares medians of p99: twice the one without is
// allowed, and no more. It needs a machine with nothing else to do, hence
// SEAWALL_LONG.
func TestNeighboursAreServed(t *testing.T) {
	if os.Getenv("SEAWALL_LONG") == "" {
		t.Skip("a measurement of a minute (hint: SEAWALL_LONG=1)")
	}
	h := newHost(t, Options{})
	good := chainOf(t, load(t, h, Spec{Name: "good", Source: small()}))
	for _, name := range []string{"infinite loop", "exponential calls", "bulk fill forever", "large fills forever"} {
		t.Run(name, func(t *testing.T) {
			bad := chainOf(t, load(t, h, Spec{Name: "bad", Source: hostileGuest(hostile()[name].code, false)}))
			var with, without []time.Duration
			for range 7 {
				without = append(without, p99(t, good))
				done := make(chan struct{})
				wait := besiege(t, bad, done)
				with = append(with, p99(t, good))
				close(done)
				wait.Wait()
			}
			slices.Sort(with)
			slices.Sort(without)
			middle, last := len(with)/2, len(with)-1
			t.Logf("p99 %v beside it (%v to %v), %v alone (%v to %v): %.1f times", with[middle], with[0], with[last],
				without[middle], without[0], without[last], float64(with[middle])/float64(without[middle]))
			if with[middle] > 2*without[middle] {
				t.Errorf("p99 is %v beside it, %v alone; want at most twice that", with[middle], without[middle])
			}
		})
	}
}

// besiege has clients ask for what harms until done. Good requests between
// keep the breaker closed, and the pause is a client's: without it these loops
// would be what others wait for.
func besiege(t *testing.T, bad *Chain, done chan struct{}) *sync.WaitGroup {
	wait := &sync.WaitGroup{}
	for range 16 {
		wait.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					ask(t, bad, special)
					ask(t, bad, nil)
					ask(t, bad, nil)
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	return wait
}

// p99 is of a thousand requests, one after the other.
func p99(t *testing.T, good *Chain) time.Duration {
	t.Helper()
	var took []time.Duration
	for range 1000 {
		time.Sleep(200 * time.Microsecond)
		began := time.Now()
		if status, reason := ask(t, good, nil); status != 200 {
			t.Errorf("got %d %q, want 200", status, reason)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took[len(took)*99/100]
}
