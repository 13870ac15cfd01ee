package origin

import "time"

// budgetSlots parts the second over which the retry budget is reckoned.
const budgetSlots = 10

// budget bounds retries and hedges to a share of the requests of the last
// second. A share, not a count for each request: when every request fails, a
// count multiplies the load of servers that already have too much of it. It is
// told the time and holds no lock.
type budget struct {
	slots [budgetSlots]struct{ at, requests, retries int64 }
}

func (b *budget) slot(now time.Time) *struct{ at, requests, retries int64 } {
	at := now.UnixNano() / int64(time.Second/budgetSlots)
	slot := &b.slots[at%budgetSlots]
	if slot.at != at {
		slot.at, slot.requests, slot.retries = at, 0, 0
	}
	return slot
}

// request counts a client's request.
func (b *budget) request(now time.Time) { b.slot(now).requests++ }

// take reports whether one more retry is allowed, and counts it.
func (b *budget) take(cfg *Retry, now time.Time) bool {
	slot := b.slot(now)
	at := slot.at
	var requests, retries int64
	for _, s := range b.slots {
		if at-s.at < budgetSlots {
			requests, retries = requests+s.requests, retries+s.retries
		}
	}
	if float64(retries+1) > max(float64(cfg.Floor), cfg.Share*float64(requests)) {
		return false
	}
	slot.retries++
	return true
}
