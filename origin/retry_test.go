package origin

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const torn = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"

// TestFaultsAndRetries has server a fail in one way while b is well: each row is
// one request whose turn is a's.
func TestFaultsAndRetries(t *testing.T) {
	timeouts := Timeouts{Connect: time.Second, TLS: time.Second, Header: 2 * time.Second, IdleBody: 2 * time.Second}
	tests := []struct {
		name   string
		fault  func(*host)
		method string
		retry  Retry
		kind   string        // "" for an answer
		body   string        // of the answer
		status int           // of the answer; 0: 200
		after  time.Duration // at least
		budget uint64        // retries
	}{
		{"refused, GET", func(h *host) { h.refuse = true }, "GET", Retry{}, "", "b", 0, 0, 0},
		{"refused, POST", func(h *host) { h.refuse = true }, "POST", Retry{}, "", "b", 0, 0, 0},
		{"refused, no retries allowed", func(h *host) { h.refuse = true }, "POST", Retry{Attempts: 1, Share: -1, Floor: -1}, "", "b", 0, 0, 0},
		{"slow connect", func(h *host) { h.slow = 24 * time.Hour }, "POST", Retry{}, "", "b", 0, time.Second, 0},
		{"slow header, GET", always(reply{stall: true}), "GET", Retry{}, "", "b", 0, 2 * time.Second, 1},
		{"slow header, POST", always(reply{stall: true}), "POST", Retry{}, responseTimeout, "", 0, 2 * time.Second, 0},
		{"slow header, too late", always(reply{stall: true}), "GET", Retry{Within: time.Second}, responseTimeout, "", 0, 2 * time.Second, 0},
		{"reset before the answer, GET", always(reply{close: true}), "GET", Retry{}, "", "b", 0, 0, 1},
		{"reset before the answer, DELETE", always(reply{close: true}), "DELETE", Retry{}, "", "b", 0, 0, 1},
		{"reset before the answer, POST", always(reply{close: true}), "POST", Retry{}, connTerminated, "", 0, 0, 0},
		{"reset before the answer, one attempt", always(reply{close: true}), "GET", Retry{Attempts: 1}, connTerminated, "", 0, 0, 0},
		{"reset before the answer, no budget", always(reply{close: true}), "GET", Retry{Share: -1, Floor: -1}, connTerminated, "", 0, 0, 0},
		{"reset in the head, GET", always(reply{raw: "HTTP/1.1 2", close: true}), "GET", Retry{}, "", "b", 0, 0, 1},
		{"reset in the head, DELETE", always(reply{raw: "HTTP/1.1 2", close: true}), "DELETE", Retry{}, responseIncomplete, "", 0, 0, 0},
		{"malformed", always(reply{raw: "nonsense\r\n\r\n", close: true}), "GET", Retry{}, protocolError, "", 0, 0, 0},
		{"reset in a small body, GET", always(reply{raw: torn, close: true}), "GET", Retry{}, "", "b", 0, 0, 1},
		{"reset in a small body, DELETE", always(reply{raw: torn, close: true}), "DELETE", Retry{}, responseIncomplete, "half", 0, 0, 0},
		{"small body stalls", always(reply{raw: torn, stall: true}), "GET", Retry{}, responseTimeout, "half", 0, 2 * time.Second, 0},
		{"small body is slow", always(reply{raw: torn, gap: 1900 * time.Millisecond, rest: "-whole"}), "GET", Retry{}, "", "half-whole", 0, 1900 * time.Millisecond, 0},
		{"503 is passed on", always(reply{raw: status(503)}), "GET", Retry{}, "", "", 503, 0, 0},
		{"503, by option", always(reply{raw: status(503)}), "GET", Retry{On: []int{503}}, "", "b", 0, 0, 1},
		{"503, by option, POST", always(reply{raw: status(503)}), "POST", Retry{On: []int{503}}, "", "", 503, 0, 0},
		{"502, another option", always(reply{raw: status(502)}), "GET", Retry{On: []int{503}}, "", "", 502, 0, 0},
		{"503 with a wish that another server need not heed", always(reply{raw: status(503, "Retry-After: 2")}), "GET", Retry{On: []int{503}}, "", "b", 0, 0, 1},
		{"503 with too long a wish", always(reply{raw: status(503, "Retry-After: 3600")}), "GET", Retry{On: []int{503}}, "", "", 503, 0, 0},
		{"404", always(reply{raw: status(404)}), "GET", Retry{On: []int{503}}, "", "", 404, 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet("a", "b")
				f.set("a", tt.fault)
				p, stop := f.pool(t, Config{Timeouts: timeouts, Retry: tt.retry}, "a", "b")
				defer stop()
				var req *http.Request
				if tt.method == "POST" {
					req = newRequest(t, tt.method, "http://site.test/", strings.NewReader("content"))
				} else {
					req = newRequest(t, tt.method, "http://site.test/", nil)
				}
				begun := time.Now()
				r := do(p, req)
				took := time.Since(begun)
				if tt.status == 0 && (tt.kind == "" || tt.body != "") {
					tt.status = 200
				}
				if kind(r.err) != tt.kind || r.body != tt.body || r.status != tt.status {
					t.Errorf("got %d %q, %v, want %d %q, kind %q", r.status, r.body, r.err, tt.status, tt.body, tt.kind)
				}
				if took < tt.after || took > tt.after+25*time.Millisecond {
					t.Errorf("took %v, want %v and at most a first backoff", took, tt.after)
				}
				synctest.Wait()
				if st := p.Stats(); st.Retries != tt.budget || st.InFlight != 0 || st.Queue != 0 {
					t.Errorf("afterwards: %+v, want %d retries and nothing in flight", st, tt.budget)
				}
				var sent int
				f.set("a", func(h *host) { sent += len(h.bodies) })
				f.set("b", func(h *host) { sent += len(h.bodies) })
				if sent > 1 {
					t.Errorf("the content was sent %d times", sent)
				}
			})
		})
	}
}

// TestRetryAfterIsWaitedFor has a lone server, to which there is no other way.
func TestRetryAfterIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet("a")
		first := true
		f.set("a", func(h *host) {
			h.reply = func(*http.Request) reply {
				if first {
					first = false
					return reply{raw: status(429, "Retry-After: 2")}
				}
				return reply{}
			}
		})
		p, stop := f.pool(t, Config{Retry: Retry{Attempts: 2, On: []int{429}}}, "a")
		defer stop()
		begun := time.Now()
		r := get(t, p)
		if d := time.Since(begun); r.body != "a" || d < 2*time.Second || d > 2*time.Second+25*time.Millisecond {
			t.Errorf("got %+v after %v, want an answer after 2s and a backoff", r, d)
		}
	})
}

func TestRetryAfterField(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	tests := []struct {
		in   string
		want time.Duration
		ok   bool
	}{
		{"", 0, false}, {"x", 0, false}, {"-1", 0, false}, {"1.5", 0, false}, {"0", 0, true}, {" 7 ", 7 * time.Second, true},
		{"99999999999999999999", 1 << 30 * time.Second, true},
		{"Fri, 02 Jan 2026 03:04:15 GMT", 10 * time.Second, true}, {"Fri, 02 Jan 2026 03:00:00 GMT", 0, true},
	}
	for _, tt := range tests {
		if got, ok := retryAfter(tt.in, now); got != tt.want || ok != tt.ok {
			t.Errorf("%q: got %v, %v, want %v, %v", tt.in, got, ok, tt.want, tt.ok)
		}
	}
}

// TestBackoffGrows checks the bounds of full jitter: never more than doubles each
// time, and not always the same.
func TestBackoffGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet("a")
		f.set("a", always(reply{close: true}))
		p, stop := f.pool(t, Config{Retry: Retry{Attempts: 8, Floor: 1000, MaxBackoff: 200 * time.Millisecond}, Breaker: Breaker{Share: -1}}, "a")
		defer stop()
		var sums [7]time.Duration
		for range 20 {
			f.set("a", func(h *host) { h.asked = nil })
			get(t, p)
			f.set("a", func(h *host) {
				if len(h.asked) != 8 {
					t.Fatalf("got %d attempts, want 8", len(h.asked))
				}
				for i := range sums {
					d := h.asked[i+1].Sub(h.asked[i])
					if most := min(25*time.Millisecond<<i, 200*time.Millisecond); d >= most {
						t.Errorf("wait %d: %v, want less than %v", i+1, d, most)
					}
					sums[i] += d
				}
			})
		}
		if sums[0] == 0 || sums[0] > 20*20*time.Millisecond || sums[3] < 2*sums[0] {
			t.Errorf("waits in 20 runs: got %v, want them spread and growing", sums)
		}
	})
}

func TestTotalBoundsAllAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet("a", "b", "c")
		for _, name := range []string{"a", "b", "c"} {
			f.set(name, always(reply{stall: true}))
		}
		p, stop := f.pool(t, Config{Timeouts: Timeouts{Header: 2 * time.Second, Total: 3 * time.Second}}, "a", "b", "c")
		defer stop()
		begun := time.Now()
		r := get(t, p)
		if d := time.Since(begun); kind(r.err) != responseTimeout || d > 3*time.Second {
			t.Errorf("got %v after %v, want %s within 3s", r.err, d, responseTimeout)
		}
	})
}

// TestBudgetStopsRetries asks two servers that always fail: requests to them may
// exceed the clients' by a fifth.
func TestBudgetStopsRetries(t *testing.T) {
	for _, tt := range []struct {
		name          string
		rate, seconds int
		retry         Retry
		least, atMost int
	}{
		{"a share of many", 200, 5, Retry{}, 1150, 1200},
		{"ten a second of few", 4, 5, Retry{}, 40, 40},
		{"none", 50, 2, Retry{Share: -1, Floor: -1}, 100, 100},
		{"own figures", 100, 5, Retry{Share: 0.5, Floor: 1}, 700, 750},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet("a", "b")
				f.set("a", always(reply{close: true}))
				f.set("b", always(reply{close: true}))
				p, stop := f.pool(t, Config{Retry: tt.retry}, "a", "b")
				defer stop()
				for range tt.rate * tt.seconds {
					go get(t, p)
					time.Sleep(time.Second / time.Duration(tt.rate))
				}
				time.Sleep(time.Second)
				if got := f.asked("a") + f.asked("b"); got < tt.least || got > tt.atMost {
					t.Errorf("%d requests: got %d to the servers, want %d to %d", tt.rate*tt.seconds, got, tt.least, tt.atMost)
				}
			})
		})
	}
}

// TestCancelledRequestsAreNoFailures has clients that leave a slow server.
func TestCancelledRequestsAreNoFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet("a", "b")
		f.set("a", always(reply{after: time.Minute}))
		f.set("b", always(reply{after: time.Minute}))
		p, stop := f.pool(t, Config{}, "a", "b")
		defer stop()
		for range 40 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			r := do(p, newRequest(t, "GET", "http://site.test/", nil).WithContext(ctx))
			cancel()
			if !errors.Is(r.err, context.DeadlineExceeded) {
				t.Fatalf("got %v", r.err)
			}
		}
		for _, s := range p.Stats().Servers {
			if s.State != "healthy" || s.Breaker != "closed" || s.Failures != 0 || s.Retries != 0 {
				t.Errorf("got %+v, want no failure", s)
			}
		}
	})
}

// TestOverload has all places taken: what is refused says so, and when to come
// again.
func TestOverload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet("a", "b")
		f.set("a", always(reply{after: 5 * time.Second}))
		f.set("b", always(reply{after: 5 * time.Second}))
		p, stop := f.pool(t, Config{MaxInFlight: 100, MaxPoolInFlight: 3, MaxQueue: 2, QueueWait: time.Second}, "a", "b")
		defer stop()
		errs := make(chan error, 10)
		for range 10 {
			go func() { errs <- get(t, p).err }()
		}
		synctest.Wait()
		if st := p.Stats(); st.InFlight != 3 || st.Queue != 2 || len(errs) != 5 {
			t.Errorf("got %d in flight, %d queued, %d refused, want 3, 2 and 5", st.InFlight, st.Queue, len(errs))
		}
		time.Sleep(time.Second)
		synctest.Wait()
		for range 7 {
			var e *Error
			if err := <-errs; !errors.As(err, &e) || !e.Overload() || e.RetryAfter() < time.Second || e.Kind != connLimit {
				t.Errorf("got %v, want an overload with a time to come again", err)
			}
		}
		time.Sleep(time.Minute)
		for _, s := range p.Stats().Servers {
			if s.Failures != 0 || s.InFlight != 0 {
				t.Errorf("afterwards: %+v, want no failure of a server", s)
			}
		}
	})
}

// TestQueueGoesToWhicheverServerIsFree, not only to the one whose turn it was.
func TestQueueGoesToWhicheverServerIsFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet("a", "b")
		f.set("a", always(reply{after: 10 * time.Second}))
		f.set("b", always(reply{after: 500 * time.Millisecond}))
		p, stop := f.pool(t, Config{MaxInFlight: 1}, "a", "b")
		defer stop()
		go get(t, p)
		synctest.Wait()
		go get(t, p)
		synctest.Wait()
		begun := time.Now()
		if r := get(t, p); r.body != "b" || time.Since(begun) != time.Second {
			t.Errorf("got %+v after %v, want b after 1s", r, time.Since(begun))
		}
		time.Sleep(time.Minute)
	})
}

// TestTLSFailureFailsOver has a server whose TLS fails, in two ways: nothing was
// sent, so a POST goes to the other one at once.
func TestTLSFailureFailsOver(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fault reply
		after time.Duration
	}{
		{"speaks in the clear", reply{}, 0}, {"never answers", reply{stall: true}, time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet("a", "b")
				f.set("a", func(h *host) { h.raw = tt.fault.stall })
				p, stop := f.pool(t, Config{Timeouts: Timeouts{TLS: time.Second}, Backends: []Backend{{URL: "https://a"}, {URL: "http://b"}}})
				defer stop()
				begun := time.Now()
				r := do(p, newRequest(t, "POST", "http://site.test/", strings.NewReader("content")))
				st := p.Stats()
				if d := time.Since(begun); r.body != "b" || d != tt.after || st.Retries != 0 || st.Servers[0].Failures != 1 {
					t.Errorf("got %+v after %v, %+v, want b after %v outside the budget", r, d, st, tt.after)
				}
			})
		})
	}
}

// TestRetriesPreferAnotherServer though the request's key belongs to the one
// that failed.
func TestRetriesPreferAnotherServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet("a", "b")
		f.set("a", always(reply{close: true}))
		f.set("b", always(reply{close: true}))
		p, stop := f.pool(t, Config{Balance: KeyHash, Breaker: Breaker{Share: -1}, Passive: Passive{Failures: -1}}, "a", "b")
		defer stop()
		for i := range 10 { // of which some belong to either
			_, err := p.RoundTripHint(newRequest(t, "GET", "http://site.test/", nil), Hint{Key: itoa(i)})
			if kind(err) != connTerminated || f.asked("a") != i+1 || f.asked("b") != i+1 {
				t.Fatalf("key %d: got %v, a asked %d times, b %d, want each once a request", i, err, f.asked("a"), f.asked("b"))
			}
		}
	})
}

// TestClosedIdleConnectionsAreNoFailures: servers close them as they like.
func TestClosedIdleConnectionsAreNoFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _, stop := pipePool(t, Config{}, closesOnReuse, answers(hello))
		defer stop()
		get(t, p)
		time.Sleep(settled)
		if r := get(t, p); r.err != nil || p.Stats().Retries != 1 || p.Stats().Servers[0].Failures != 0 {
			t.Errorf("got %v, %+v, want one retry and no failure", r.err, p.Stats())
		}
	})
}
