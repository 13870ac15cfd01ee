package wasm

import (
	"os"
	"slices"
	"sync"
	"testing"
	"time"
)

// TestNeighboursAreServed measures how long short callbacks of one function
// take while another's guests loop without end, in turns with and without.
// It needs a machine with nothing else to do, hence SEAWALL_LONG.
func TestNeighboursAreServed(t *testing.T) {
	if os.Getenv("SEAWALL_LONG") == "" {
		t.Skip("a measurement of seconds (hint: SEAWALL_LONG=1)")
	}
	h := newHost(t, Options{})
	good := chainOf(t, load(t, h, Spec{Name: "good", Source: small()}))
	measure := func(beside string) time.Duration {
		stop := make(chan struct{})
		var wait sync.WaitGroup
		if beside != "" {
			bad := chainOf(t, load(t, h, Spec{Name: "bad", Source: hostileGuest(hostile()[beside].code, false)}))
			for range 16 {
				wait.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
							// Good ones between keep the breaker closed, and the
							// pause is a client's: without it these loops would
							// be what others wait for.
							ask(t, bad, special)
							ask(t, bad, nil)
							ask(t, bad, nil)
							time.Sleep(time.Millisecond)
						}
					}
				})
			}
		}
		var took []time.Duration
		for range 1000 {
			time.Sleep(200 * time.Microsecond)
			began := time.Now()
			if status, reason := ask(t, good, nil); status != 200 {
				t.Errorf("got %d %q, want 200", status, reason)
			}
			took = append(took, time.Since(began))
		}
		close(stop)
		wait.Wait()
		slices.Sort(took)
		return took[len(took)*99/100]
	}
	for _, name := range []string{"infinite loop", "exponential calls", "bulk fill forever"} {
		var with, without []time.Duration
		for range 3 {
			without = append(without, measure(""))
			with = append(with, measure(name))
		}
		slices.Sort(with)
		slices.Sort(without)
		t.Logf("%s: p99 %v beside it, %v alone", name, with[1], without[1])
		if with[1] > 2*without[1]+2*time.Millisecond {
			t.Errorf("%s: p99 is %v beside it, %v alone; want at most twice that and a turn of 2ms", name, with[1], without[1])
		}
	}
}
