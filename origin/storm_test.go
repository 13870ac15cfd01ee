package origin

import (
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// second is a line of the timeline.
type second struct{ demand, asked, answered, refused, failed, inFlight, goroutines int }

// TestRetryStorm has the latency of three servers rise tenfold for a minute under
// steady load. Each can do ten things at once: at 50ms that is six times the
// demand, at 500ms three fifths of it, and they go on with requests whose client
// has left. Requests to them must stay below 1.2 times the clients' in every
// second, what runs here must be bounded (the servers' own work is left out), and all must be well within 5s after.
func TestRetryStorm(t *testing.T) {
	for _, tt := range []struct {
		name   string
		header time.Duration
		retry  Retry
	}{
		{"timeouts shorter than the latency", 400 * time.Millisecond, Retry{}},
		{"timeouts longer than the latency", 2 * time.Second, Retry{}},
		{"overload is answered by 503 and retried", 2 * time.Second, Retry{On: []int{503}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { retryStorm(t, tt.header, tt.retry) })
		})
	}
}

func retryStorm(t *testing.T, header time.Duration, retry Retry) {
	const (
		rate, before, storm, after = 100, 10, 60, 20
		workers                    = 10
	)
	names := []string{"a", "b", "c"}
	f := newFleet(names...)
	var work, askedNow, theirs atomic.Int64
	work.Store(int64(50 * time.Millisecond))
	for _, name := range names {
		busy, queued := make(chan struct{}, workers), new(atomic.Int64)
		f.set(name, func(h *host) {
			h.reply = func(*http.Request) reply { // under the fleet's lock: it must not wait
				askedNow.Add(1)
				return reply{work: func() bool {
					theirs.Add(1)
					defer theirs.Add(-1)
					if retry.On != nil && queued.Add(1) > 5*workers {
						queued.Add(-1)
						return false
					}
					busy <- struct{}{}
					time.Sleep(time.Duration(work.Load()))
					<-busy
					queued.Add(-1)
					return true
				}}
			}
		})
	}
	p, stop := f.pool(t, Config{Retry: retry, MaxInFlight: 30, Timeouts: Timeouts{Header: header}}, names...)
	defer stop()

	line := make([]second, before+storm+after)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for s := range before + storm + after {
		switch s {
		case before:
			work.Store(int64(500 * time.Millisecond))
		case before + storm:
			work.Store(int64(50 * time.Millisecond))
		}
		askedNow.Store(0)
		mu.Lock()
		line[s].demand = rate
		mu.Unlock()
		for range rate {
			wg.Go(func() {
				r := get(t, p)
				var e *Error
				mu.Lock()
				defer mu.Unlock()
				switch {
				case r.err == nil && r.status == 200:
					line[s].answered++
				case errors.As(r.err, &e) && e.Overload():
					line[s].refused++
				default:
					line[s].failed++
				}
			})
			time.Sleep(time.Second / rate)
		}
		st := p.Stats()
		mu.Lock()
		line[s].asked, line[s].inFlight, line[s].goroutines = int(askedNow.Load()), st.InFlight+st.Queue, runtime.NumGoroutine()-int(theirs.Load())
		mu.Unlock()
	}
	wg.Wait()
	time.Sleep(time.Minute)

	well := -1 // seconds after the storm until every request is answered
	for s := len(line) - 1; s >= before+storm && line[s].answered == rate; s-- {
		well = s - before - storm
	}
	var shown strings.Builder
	fmt.Fprintf(&shown, "%6s %7s %6s %9s %8s %7s %10s %11s\n", "second", "demand", "asked", "answered", "refused", "failed", "in flight", "goroutines")
	for s, now := range line {
		fmt.Fprintf(&shown, "%6d %7d %6d %9d %8d %7d %10d %11d\n", s-before, now.demand, now.asked, now.answered, now.refused, now.failed, now.inFlight, now.goroutines)
		if float64(now.asked) > 1.2*rate+1 {
			t.Errorf("second %d: %d requests to the servers for %d of clients", s-before, now.asked, rate)
		}
		if now.inFlight > 3*30*9/8+1 || now.goroutines > 600 {
			t.Errorf("second %d: %d in flight, %d goroutines", s-before, now.inFlight, now.goroutines)
		}
		if s < before && now.answered != rate {
			t.Errorf("second %d: %d of %d answered before the storm", s-before, now.answered, rate)
		}
	}
	if well < 0 || well >= 5 {
		t.Errorf("all was well %d s after the storm, want within 5", well)
	}
	if st := p.Stats(); st.InFlight != 0 || st.Queue != 0 {
		t.Errorf("afterwards: %+v", st)
	}
	if long() || t.Failed() {
		t.Logf("well after %d s; budget said no %d times\n%s", well, p.Stats().Denied, shown.String())
	}
}
