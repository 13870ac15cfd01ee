package store

const (
	// keepPromote is how many hits in young make an entry sure of its place
	// in main; with one it must convince ristretto.
	keepPromote = 2
	// keepClockMax is how many turns of the clock an entry can earn.
	keepClockMax = 3
	// keepSweep is how many entries of main pass their hits to ristretto for
	// each entry added.
	keepSweep = 8
	// keepLeaveMax bounds how many entries leave young in one call while the
	// budget is kept: a smaller share is reached over several calls.
	keepLeaveMax = 32
)

// admitLocked puts a new r into main if it was dropped from young a short time
// ago, else into young.
func (k *keeper) admitLocked(r *resident) {
	from, recent := k.ghost.take(r.key)
	if recent {
		k.share.learn(from, r.cost, k.meanLocked())
	}
	if from == keepFromYoung {
		limit := k.mainLimitLocked()
		if r.cost <= limit {
			k.makeRoomLocked(limit - r.cost)
			if k.offerLocked(r, limit) {
				return
			}
		}
	}
	k.young.push(r)
}

// settleLocked brings young to its share and the total within the budget.
func (k *keeper) settleLocked() {
	if k.closed {
		return
	}
	k.sweepLocked(keepSweep)
	// The newest entry stays however small young's share: it has just been
	// fetched for somebody.
	for i := 0; k.young.n > 1 && k.young.bytes > k.youngLimitLocked(); i++ {
		if i >= keepLeaveMax && k.overLocked() <= 0 {
			break
		}
		k.leaveLocked(k.young.last())
	}
	for k.overLocked() > 0 && k.main.n > 0 {
		k.turnLocked()
	}
	for k.overLocked() > 0 && k.young.n > 0 {
		k.dropLocked(k.young.last())
	}
}

// overLocked returns by how many bytes the total exceeds the budget.
func (k *keeper) overLocked() int64 {
	return k.young.bytes + k.main.bytes + k.reserved - k.budget
}

// youngLimitLocked is young's share of what reservations leave.
func (k *keeper) youngLimitLocked() int64 {
	return int64(k.share.now * float64(k.budget-k.reserved))
}

// mainLimitLocked is what main may hold. Young's share is set aside also while
// young is below it: otherwise each entry that leaves young would find the
// room it has just left, and nothing would ever be judged (measured: zipf
// 128M .575 instead of .602).
func (k *keeper) mainLimitLocked() int64 {
	return k.budget - k.reserved - max(k.young.bytes, k.youngLimitLocked())
}

// meanLocked returns the mean cost of the entries kept.
func (k *keeper) meanLocked() float64 {
	return float64(k.young.bytes+k.main.bytes+1) / float64(k.young.n+k.main.n+1)
}

// leaveLocked takes r, the oldest of young, out of it: to main or away.
func (k *keeper) leaveLocked(r *resident) {
	hits := k.passLocked(r)
	k.young.unlink(r)
	limit := k.mainLimitLocked()
	if hits >= keepPromote && r.cost <= limit {
		k.makeRoomLocked(limit - r.cost)
	}
	asks := hits > 0 || k.main.bytes+r.cost <= limit
	if asks && k.offerLocked(r, limit) {
		return
	}
	k.ghost.put(r.key, r.cost, keepFromYoung)
	k.doomLocked(r)
}

// offerLocked asks ristretto to take r, which is in no segment, with main
// limited to limit bytes, and reports whether r is in main now. Victims are
// evicted either way: ristretto gives them up before it refuses.
func (k *keeper) offerLocked(r *resident, limit int64) bool {
	k.judge.UpdateMaxCost(max(limit, 1))
	if !k.setLocked(r) {
		return false
	}
	r.clock = 0
	k.main.push(r)
	return true
}

// setLocked gives r and its cost to ristretto, evicts the victims it names and
// reports whether it took r. There is one Set at a time, and each is waited
// for: a second one before the first is applied would be lost, or lose the
// first, and an update is dropped when the queue is full.
func (k *keeper) setLocked(r *resident) bool {
	k.verdict.refused = false
	if !k.judge.Set(r.key, r, r.cost) {
		return false // the queue is full: cannot happen with keepQueueMax
	}
	k.waitLocked()
	for i, v := range k.verdict.victims {
		if v.home == &k.main {
			k.forgetLocked(v)
			k.ghost.put(v.key, v.cost, keepFromMain)
			k.doomLocked(v)
		}
		k.verdict.victims[i] = nil
	}
	k.verdict.victims = k.verdict.victims[:0]
	return !k.verdict.refused
}

// makeRoomLocked evicts from main by hand until it holds at most limit bytes.
func (k *keeper) makeRoomLocked(limit int64) {
	for k.main.bytes > limit && k.main.n > 0 {
		k.turnLocked()
	}
}

// turnLocked evicts one entry of main by hand: the oldest that was not hit
// since the clock passed it. Each hit, up to keepClockMax, earns a turn. Hits
// that keep arriving cannot hold it up: after four rounds the oldest goes.
func (k *keeper) turnLocked() {
	for left := (keepClockMax + 1) * k.main.n; ; left-- {
		r := k.main.last()
		k.passLocked(r)
		if r.clock == 0 || left <= 0 {
			k.dropLocked(r)
			return
		}
		r.clock--
		if k.sweep == r {
			k.sweep = k.main.before(r)
		}
		k.main.unlink(r)
		k.main.push(r)
	}
}

// passLocked passes the hits that r gathered to ristretto's sketch and to the
// clock, and returns their number.
func (k *keeper) passLocked(r *resident) int {
	n := r.fresh.Load()
	if n == 0 {
		return 0
	}
	r.fresh.Store(0)
	for range n {
		k.judge.Get(r.key)
	}
	r.clock = uint8(min(uint32(r.clock)+n, keepClockMax))
	return int(n)
}

// sweepLocked passes on the hits of the next n entries of main. Entries not
// looked at by the clock would else never tell ristretto that they are used.
func (k *keeper) sweepLocked(n int) {
	for range min(n, k.main.n) {
		if k.sweep == nil {
			k.sweep = k.main.last()
		}
		k.passLocked(k.sweep)
		k.sweep = k.main.before(k.sweep)
	}
}

// dropLocked evicts r from where it is.
func (k *keeper) dropLocked(r *resident) {
	from := keepFromYoung
	if r.home == &k.main {
		from = keepFromMain
	}
	k.unlinkLocked(r)
	k.ghost.put(r.key, r.cost, from)
	k.doomLocked(r)
}

// unlinkLocked takes r out of its segment, and out of ristretto.
func (k *keeper) unlinkLocked(r *resident) {
	if r.home != &k.main {
		r.home.unlink(r)
		return
	}
	k.forgetLocked(r)
	if k.closed {
		return
	}
	k.judge.Del(r.key)
	if k.queued++; k.queued >= keepQueueMax {
		k.waitLocked()
	}
}

// forgetLocked takes r out of main's own list.
func (k *keeper) forgetLocked(r *resident) {
	if k.sweep == r {
		k.sweep = k.main.before(r)
	}
	k.main.unlink(r)
}

// doomLocked ends r's stay; tell calls evict.
func (k *keeper) doomLocked(r *resident) {
	r.stay.Store(keepDoomed)
	k.doomed = append(k.doomed, r)
	k.evictions++
}

// waitLocked returns when ristretto has applied all that was queued.
func (k *keeper) waitLocked() {
	k.judge.Wait()
	k.queued = 0
}

// keepList is a list of residents, newest first, with its bytes.
type keepList struct {
	root  resident
	bytes int64
	n     int
}

func (l *keepList) init() { l.root.prev, l.root.next = &l.root, &l.root }

func (l *keepList) push(r *resident) {
	r.home = l
	r.prev, r.next = &l.root, l.root.next
	r.prev.next, r.next.prev = r, r
	l.bytes += r.cost
	l.n++
}

func (l *keepList) unlink(r *resident) {
	r.prev.next, r.next.prev = r.next, r.prev
	r.prev, r.next, r.home = nil, nil, nil
	l.bytes -= r.cost
	l.n--
}

// last returns the oldest resident of a list that is not empty.
func (l *keepList) last() *resident { return l.root.prev }

// before returns the next newer resident, nil after the newest.
func (l *keepList) before(r *resident) *resident {
	if r.prev == &l.root {
		return nil
	}
	return r.prev
}
