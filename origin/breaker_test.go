package origin

import (
	"strings"
	"testing"
	"time"
)

// TestBreakerTransitions checks the whole table.
func TestBreakerTransitions(t *testing.T) {
	want := map[breakerState][4]string{
		//               tripped      rested       proved    failed
		breakerClosed:   {"open", "closed", "closed", "closed"},
		breakerOpen:     {"open", "half-open", "open", "open"},
		breakerHalfOpen: {"half-open", "half-open", "closed", "open"},
	}
	for state, row := range want {
		for event, want := range row {
			if got := state.after(breakerEvent(event)).String(); got != want {
				t.Errorf("%v after event %d: got %s, want %s", state, event, got, want)
			}
		}
	}
}

// TestBreaker runs scripts: g and b are good and bad answers, capital ones of
// probes, digits seconds that pass, ! that no other server is usable from here on.
func TestBreaker(t *testing.T) {
	tests := []struct{ name, script, want string }{
		{"half of twenty", strings.Repeat("gb", 9) + "g", "closed"},
		{"half of twenty failed", strings.Repeat("gb", 10), "open"},
		{"too few failed", strings.Repeat("ggb", 20), "closed"},
		{"too few at all", strings.Repeat("b", 19), "closed"},
		{"all failed", strings.Repeat("b", 20), "open"},
		{"the window forgets", strings.Repeat("b", 19) + "99" + "gggb", "closed"},
		{"the window remembers", strings.Repeat("b", 19) + "8" + "b", "open"},
		{"the last server", "!" + strings.Repeat("b", 40), "closed"},
		{"rests", strings.Repeat("b", 20) + "1", "open"},
		{"has rested", strings.Repeat("b", 20) + "2", "half-open"},
		{"proves itself", strings.Repeat("b", 20) + "2GGG", "closed"},
		{"forgets what was", strings.Repeat("b", 20) + "2GGGb", "closed"},
		{"not yet", strings.Repeat("b", 20) + "2GG", "half-open"},
		{"fails again", strings.Repeat("b", 20) + "2GGB", "open"},
		{"rests again", strings.Repeat("b", 20) + "2B1", "open"},
		{"has rested again", strings.Repeat("b", 20) + "2B2", "half-open"},
		{"fails as the last", strings.Repeat("b", 20) + "2!B", "half-open"},
		{"late answers while open", strings.Repeat("b", 20) + "gggbbb", "open"},
		{"late answers while half open", strings.Repeat("b", 20) + "2gggbbb", "half-open"},
	}
	cfg := Config{}.withDefaults(1).Breaker
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var b breaker
			now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			others := true
			for _, c := range tt.script {
				switch c {
				case 'g', 'b', 'G', 'B':
					was := b.state
					if changed := b.add(&cfg, now, c == 'g' || c == 'G', c < 'a', others); changed != (b.state != was) {
						t.Errorf("%q: says changed %v from %v to %v", tt.script, changed, was, b.state)
					}
				case '!':
					others = false
				default:
					now = now.Add(time.Duration(c-'0') * time.Second)
					b.rest(now)
				}
			}
			if b.state.String() != tt.want {
				t.Errorf("%s: got %v, want %s", tt.script, b.state, tt.want)
			}
		})
	}
}

func TestBreakerOff(t *testing.T) {
	cfg := Config{Breaker: Breaker{Share: -1}}.withDefaults(1).Breaker
	var b breaker
	for range 100 {
		b.add(&cfg, time.Now(), false, false, true)
	}
	if b.state != breakerClosed {
		t.Errorf("got %v", b.state)
	}
}

// TestBudget checks the bound over every second, not only on the whole.
func TestBudget(t *testing.T) {
	cfg := Config{}.withDefaults(1).Retry
	var b budget
	now := time.Unix(1<<30, 0)
	type event struct {
		at    time.Time
		retry bool
	}
	var log []event
	for i := range 20000 {
		b.request(now)
		log = append(log, event{now, false})
		for range 3 {
			if b.take(&cfg, now) {
				log = append(log, event{now, true})
			}
		}
		now = now.Add(time.Millisecond * time.Duration(1+9*(i/5000%2))) // 1000 a second, then 100
	}
	requests, retries, from, all := 0, 0, 0, 0
	for _, e := range log {
		if e.retry {
			retries, all = retries+1, all+1
		} else {
			requests++
		}
		for log[from].at.Before(e.at.Add(-900 * time.Millisecond)) {
			if log[from].retry {
				retries--
			} else {
				requests--
			}
			from++
		}
		// The slots are tenths: a second of ours has a tenth of another slot.
		if float64(retries) > max(10, 0.2*float64(requests)*10/9+1) {
			t.Fatalf("at %v: %d retries beside %d requests", e.at, retries, requests)
		}
	}
	if all < 3900 || all > 4000 {
		t.Errorf("20000 requests: got %d retries, want a fifth", all)
	}
}
