package origin

import (
	"context"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// TestHealthChecks has a server answer checks in one way: it is down after three
// of them, or it stays.
func TestHealthChecks(t *testing.T) {
	check := Health{Path: "/health", Interval: time.Second, Timeout: 500 * time.Millisecond}
	with := func(change func(*Health)) Health {
		h := check
		change(&h)
		return h
	}
	tests := []struct {
		name   string
		health Health
		host   func(*host)
		down   bool
	}{
		{"well", check, always(reply{}), false},
		{"404", check, always(reply{raw: status(404)}), true},
		{"301", check, always(reply{raw: status(301)}), false},
		{"404, expected", with(func(h *Health) { h.Status = []int{200, 404} }), always(reply{raw: status(404)}), false},
		{"301, not expected", with(func(h *Health) { h.Status = []int{200, 404} }), always(reply{raw: status(301)}), true},
		{"slow", check, always(reply{after: 600 * time.Millisecond}), true},
		{"slow body, not read", check, always(reply{raw: torn, gap: 10 * time.Second, rest: "-whole"}), false},
		{"body", with(func(h *Health) { h.Body = "whole" }), always(reply{raw: torn, gap: time.Millisecond, rest: "-whole"}), false},
		{"slow body", with(func(h *Health) { h.Body = "whole" }), always(reply{raw: torn, gap: 10 * time.Second, rest: "-whole"}), true},
		{"another body", with(func(h *Health) { h.Body = "fine" }), always(reply{}), true},
		{"refused", check, func(h *host) { h.refuse = true }, true},
		{"closes", check, always(reply{close: true}), true},
		{"method", with(func(h *Health) { h.Method = "HEAD" }), func(h *host) {
			h.reply = func(r *http.Request) reply {
				return reply{raw: status(map[bool]int{true: 200, false: 500}[r.Method == "HEAD"])}
			}
		}, false},
		{"host", with(func(h *Health) { h.Host = "checked.test" }), func(h *host) {
			h.reply = func(r *http.Request) reply {
				return reply{raw: status(map[bool]int{true: 200, false: 500}[r.Host == "checked.test"])}
			}
		}, false},
		{"TCP, refused", Health{TCP: true, Interval: time.Second}, func(h *host) { h.refuse = true }, true},
		{"TCP, never answers", Health{TCP: true, Interval: time.Second}, always(reply{stall: true}), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet("a", "b")
				f.set("a", tt.host)
				p, stop := f.pool(t, Config{Health: tt.health}, "a", "b")
				defer stop()
				p.Start()
				time.Sleep(1700 * time.Millisecond)
				if st := p.Stats().server("a"); st.State != "healthy" {
					t.Errorf("after 1.7s: got %+v, want it in: two checks at most", st)
				}
				time.Sleep(10 * time.Second)
				st := p.Stats().server("a")
				if (st.State == "unhealthy") != tt.down || st.InFlight != 0 || st.Requests != 0 {
					t.Errorf("got %+v, want down %v, and checks not counted as requests", st, tt.down)
				}
			})
		})
	}
}

// TestFlappingHealth: one bad check between good ones changes nothing, and back
// it takes two good ones.
func TestFlappingHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lines
		f := newFleet("a", "b")
		const script = "ggbgbbgbbgggbbbgbgbgg"
		n := 0 // guarded by the fleet
		asked := func() int { return f.asked("a") }
		f.set("a", func(h *host) {
			h.reply = func(*http.Request) reply {
				n++
				if script[min(n, len(script))-1] == 'b' {
					return reply{raw: status(500)}
				}
				return reply{}
			}
		})
		p, stop := f.pool(t, Config{Log: log.logger(), Health: Health{Path: "/", Interval: time.Second}}, "a", "b")
		defer stop()
		p.Start()
		for asked() < 15 {
			if log.count("unhealthy") > 0 {
				t.Fatalf("down after %d of %s", asked(), script)
			}
			time.Sleep(50 * time.Millisecond)
		}
		time.Sleep(time.Millisecond)
		if log.count("unhealthy: status 500") != 1 {
			t.Errorf("not down after %d of %s", asked(), script)
		}
		for asked() < len(script) {
			if log.count("state=healthy") > 0 {
				t.Fatalf("back after %d of %s", asked(), script)
			}
			time.Sleep(50 * time.Millisecond)
		}
		time.Sleep(time.Millisecond)
		if st := p.Stats().server("a"); st.State != "healthy" || st.Share > 0.5 {
			t.Errorf("got %+v, want it back with a small share", st)
		}
	})
}

// TestChecksAreSpread: a fleet of nodes must not ask all at one moment.
func TestChecksAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet("a")
		p, stop := f.pool(t, Config{Health: Health{Path: "/", Interval: 10 * time.Second}}, "a")
		p.Start()
		time.Sleep(1000 * time.Second)
		stop()
		var least, most time.Duration = time.Hour, 0
		asked := f.hosts["a"].asked
		for i, at := range asked[1:] {
			d := at.Sub(asked[i])
			least, most = min(least, d), max(most, d)
		}
		if n := len(asked); n < 90 || n > 112 || least < 9*time.Second || most > 11*time.Second || most-least < time.Second {
			t.Errorf("got %d checks, %v to %v apart, want about 100, 9s to 11s", n, least, most)
		}
	})
}

// TestCloseWaitsForChecks has one under way that takes a while to end.
func TestCloseWaitsForChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := false
		p := mustNew(t, Config{Servers: []string{"http://a"}, Health: Health{TCP: true},
			Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
				<-ctx.Done()
				time.Sleep(100 * time.Millisecond)
				ended = true
				return nil, ctx.Err()
			}})
		p.Start()
		time.Sleep(time.Second)
		if p.Close(); !ended {
			t.Error("Close returned while a check was under way")
		}
	})
}
