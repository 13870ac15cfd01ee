package origin

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestHedge(t *testing.T) {
	const ms = time.Millisecond
	fixed := Hedge{On: true, Delay: 100 * ms}
	fails := reply{after: 150 * ms, close: true}
	tests := []struct {
		name   string
		hedge  Hedge
		retry  Retry
		method string
		a, b   reply
		got    string
		after  time.Duration
		hedges uint64
	}{
		{"off", Hedge{}, Retry{}, "GET", reply{after: 500 * ms}, reply{}, "a", 500 * ms, 0},
		{"quick enough", fixed, Retry{}, "GET", reply{after: 99 * ms}, reply{}, "a", 99 * ms, 0},
		{"second wins", fixed, Retry{}, "GET", reply{after: 500 * ms}, reply{after: 50 * ms}, "b", 150 * ms, 1},
		{"first wins yet", fixed, Retry{}, "GET", reply{after: 500 * ms}, reply{after: 450 * ms}, "a", 500 * ms, 1},
		{"POST", fixed, Retry{}, "POST", reply{after: 500 * ms}, reply{}, "a", 500 * ms, 0},
		{"HEAD", fixed, Retry{}, "HEAD", reply{after: 500 * ms, raw: timing}, reply{}, "", 500 * ms, 0},
		{"no budget", fixed, Retry{Share: -1, Floor: -1}, "GET", reply{after: 500 * ms}, reply{}, "a", 500 * ms, 0},
		{"first fails, second wins", fixed, Retry{Attempts: 1}, "GET", fails, reply{after: 200 * ms}, "b", 300 * ms, 1},
		{"second fails, first wins", fixed, Retry{Attempts: 1}, "GET", reply{after: 500 * ms}, fails, "a", 500 * ms, 1},
		{"both fail", fixed, Retry{Attempts: 1}, "GET", fails, fails, "", 250 * ms, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet("a", "b")
				f.set("a", always(tt.a))
				f.set("b", always(tt.b))
				p, stop := f.pool(t, Config{Hedge: tt.hedge, Retry: tt.retry}, "a", "b")
				defer stop()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				begun := time.Now()
				r := do(p, newRequest(t, tt.method, "http://site.test/", nil).WithContext(ctx))
				if d := time.Since(begun); r.body != tt.got || d != tt.after || p.Stats().Hedges != tt.hedges {
					t.Errorf("got %+v after %v, %d hedges, want %q after %v, %d", r, d, p.Stats().Hedges, tt.got, tt.after, tt.hedges)
				}
				synctest.Wait()
				time.Sleep(time.Second)
				st := p.Stats()
				if st.InFlight != 0 || tt.got != "" && len(st.Errors) != 0 {
					t.Errorf("afterwards: %+v, want the loser gone without an error", st)
				}
				for _, s := range st.Servers {
					if bad := s.Name == "a" && tt.a.close || s.Name == "b" && tt.b.close; s.Failures > 0 != bad {
						t.Errorf("afterwards: %+v, want failures %v", s, bad)
					}
				}
			})
		})
	}
}

// TestHedgeAfterWhatIsUsual has answers of 10ms and a few of 1s: those are
// hedged once enough is known.
func TestHedgeAfterWhatIsUsual(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet("a", "b")
		n := 0
		slowly := func(h *host) {
			h.reply = func(*http.Request) reply {
				if n++; n > 100 && n%10 == 0 {
					return reply{after: time.Second}
				}
				return reply{after: 10 * time.Millisecond}
			}
		}
		f.set("a", slowly)
		f.set("b", slowly)
		p, stop := f.pool(t, Config{Hedge: Hedge{On: true, Least: time.Millisecond}}, "a", "b")
		defer stop()
		worst := time.Duration(0)
		for range 200 {
			begun := time.Now()
			if r := get(t, p); r.err != nil {
				t.Fatal(r.err)
			}
			worst = max(worst, time.Since(begun))
		}
		if h := p.Stats().Hedges; worst > 40*time.Millisecond || h < 8 || h > 12 {
			t.Errorf("worst %v with %d hedges, want below 40ms with about 10", worst, h)
		}
	})
}

// TestHedgedBodyEndsWithItsClient checks that the winner's context lives as long
// as its body, and that a client that leaves ends both.
func TestHedgedBodyEndsWithItsClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet("a", "b")
		f.set("a", always(reply{stall: true}))
		f.set("b", always(reply{raw: timing, gap: 5 * time.Second, rest: "0123456789"}))
		p, stop := f.pool(t, Config{Hedge: Hedge{On: true, Delay: time.Second}}, "a", "b")
		defer stop()
		resp, err := p.RoundTrip(newRequest(t, "GET", "http://site.test/", nil))
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(resp.Body); string(b) != "0123456789" || err != nil {
			t.Errorf("got %q, %v", b, err)
		}
		resp.Body.Close()
		f.set("b", always(reply{stall: true}))
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(3*time.Second, func() { cancel(errors.New("client left")) })
		r := do(p, newRequest(t, "GET", "http://site.test/", nil).WithContext(ctx))
		synctest.Wait()
		if st := p.Stats(); !errors.Is(r.err, context.Canceled) || st.InFlight != 0 || st.Hedges != 2 {
			t.Errorf("got %v, %+v, want both ended", r.err, st)
		}
	})
}

func TestDelays(t *testing.T) {
	var d delays
	if _, ok := d.quantile(0.5); ok {
		t.Error("nothing known: got a quantile")
	}
	for i := range 1000 {
		d.add(time.Duration(i+1) * time.Millisecond)
	}
	for _, q := range []float64{0.05, 0.5, 0.95, 1} {
		got, ok := d.quantile(q)
		if want := time.Duration(q*1000) * time.Millisecond; !ok || got < want || float64(got) > 1.2*float64(want) {
			t.Errorf("quantile %v of 1ms to 1s: got %v, want %v to a fifth more", q, got, want)
		}
	}
	for range 20000 {
		d.add(time.Millisecond)
	}
	if got, _ := d.quantile(0.95); got > 2*time.Millisecond {
		t.Errorf("after 20000 of 1ms: got %v, want old ones faded", got)
	}
}

// A client that a cookie keeps at a server is not hedged: the other one does not
// know it. What may be anybody's is.
func TestHedgeLeavesStickyClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet("a", "b")
		f.set("a", always(reply{after: 150 * time.Millisecond}))
		p, stop := f.pool(t, Config{Hedge: Hedge{On: true, Delay: 10 * time.Millisecond}, Sticky: Sticky{Cookie: "at"}}, "a", "b")
		defer stop()
		for _, c := range []struct {
			name string
			hint Hint
			want string
		}{{"its own", Hint{Uncached: true}, "a"}, {"perhaps its own", Hint{Cookie: new(string)}, "b"}} {
			req := newRequest(t, "GET", "http://site.test/", nil)
			req.Header.Set("Cookie", "at="+p.servers[0].token)
			resp, err := p.RoundTripHint(req, c.hint)
			if err != nil {
				t.Fatal(err)
			}
			got, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if string(got) != c.want {
				t.Errorf("%s: answered by %s, want %s", c.name, got, c.want)
			}
		}
	})
}

// TestHedgedCookie has two servers race: the cookie told is that of the one
// whose answer it is.
func TestHedgedCookie(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet("a", "b")
		f.set("a", always(reply{after: 150 * time.Millisecond}))
		f.set("b", always(reply{after: 50 * time.Millisecond}))
		p, stop := f.pool(t, Config{Hedge: Hedge{On: true, Delay: 100 * time.Millisecond}, Sticky: Sticky{Cookie: "at"}}, "a", "b")
		defer stop()
		tokens := map[string]string{}
		for _, s := range p.servers {
			tokens[s.id] = s.token
		}
		for range 4 {
			var cookie string
			resp, err := p.RoundTripHint(newRequest(t, "GET", "http://site.test/", nil), Hint{Cookie: &cookie})
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if want := "at=" + tokens[string(b)] + "; "; !strings.HasPrefix(cookie, want) {
				t.Errorf("answered by %s: got the cookie %q, want %q", b, cookie, want)
			}
			time.Sleep(time.Second)
		}
	})
}
