package purge

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// Apply gives p the next epoch and puts its rules into force: when it returns,
// every look-up that starts sees them. at is when the purge was accepted: soft
// purges make stale from then. The rules are visible before the epoch is, for
// a reader that finds no newer epoch looks no further.
func (r *Rules) Apply(p *Prepared, at time.Time) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	epoch := r.epoch.Load() + 1
	if r.keep != nil {
		r.keep(epoch, false)
	}
	r.applyLocked(p, at, epoch)
	return epoch
}

// Doubt says that purges may have been missed until now: everything older than
// the epoch that it returns must be validated before use.
// at is when that was found.
func (r *Rules) Doubt(at time.Time) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	epoch := r.epoch.Load() + 1
	if r.keep != nil {
		r.keep(epoch, true)
	}
	r.doubtLocked(epoch)
	return epoch
}

// applyAt applies a purge of the log, or a doubt where p is nil, at the epoch
// that the log gives it. A purge that is applied for the first time gets a
// later one where that was given to something else; its epoch is returned.
func (r *Rules) applyAt(p *Prepared, at time.Time, epoch uint64, replayed bool) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !replayed {
		epoch = max(epoch, r.epoch.Load()+1)
	}
	if p == nil {
		r.doubtLocked(epoch)
	} else {
		r.applyLocked(p, at, epoch)
	}
	return epoch
}

func (r *Rules) setKeep(keep func(epoch uint64, doubt bool)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keep = keep
}

// advance raises the epoch without a rule.
func (r *Rules) advance(epoch uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.epoch.Store(max(r.epoch.Load(), epoch))
}

func (r *Rules) doubtLocked(epoch uint64) {
	old := r.table.Load()
	r.table.Store(&table{buckets: old.buckets, doubt: max(old.doubt, epoch)})
	r.epoch.Store(max(r.epoch.Load(), epoch))
}

func (r *Rules) applyLocked(p *Prepared, at time.Time, epoch uint64) {
	for _, k := range p.keys {
		r.put(k, epoch, p.request.Soft, at)
	}
	if r.weight > r.limit {
		r.coarsen()
	}
	r.epoch.Store(max(r.epoch.Load(), epoch))
}

// put adds one rule, after the sum that leads look-ups to it.
func (r *Rules) put(k key, epoch uint64, soft bool, at time.Time) {
	switch k.kind {
	case kindURL, kindPath:
		r.sum(key{kind: kindHostSum, a: k.b}, epoch, -1)
	case kindPrefix:
		r.sum(key{kind: kindHostSum, a: k.b}, epoch, strings.Count(k.c, "/"))
	case kindTag:
		r.sum(key{kind: kindTagSum, a: k.a}, epoch, -1)
	}
	hash := r.hasher.key(k)
	if e := r.table.Load().entryOf(hash, k); e != nil {
		s := e.state.Load().with(epoch, soft, at)
		e.state.Store(&s)
		return
	}
	r.rules++
	r.weight += k.weight()
	r.insert(hash, k, state{depth: -1}.with(epoch, soft, at))
}

// sum raises what a sum says.
func (r *Rules) sum(k key, epoch uint64, depth int) {
	hash := r.hasher.key(k)
	e := r.table.Load().entryOf(hash, k)
	if e == nil {
		r.insert(hash, k, state{newest: epoch, depth: depth})
		return
	}
	s := *e.state.Load()
	s.newest, s.depth = max(s.newest, epoch), max(s.depth, depth)
	e.state.Store(&s)
}

func (r *Rules) insert(hash uint64, k key, s state) {
	t := r.table.Load()
	if r.entries >= len(t.buckets) {
		t = newTable(2*r.entries, t.doubt)
		r.table.Load().each(func(e *entry) { t.insert(e.hash, e.key, *e.state.Load()) })
		r.table.Store(t)
	}
	t.insert(hash, k, s)
	r.entries++
}

// Forget drops the rules with epochs up to upTo: the sweep has found that no
// stored response and no fill under way is older. What is newer stays.
func (r *Rules) Forget(upTo uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	doubt := r.table.Load().doubt
	if doubt <= upTo {
		doubt = 0
	}
	r.rebuild(doubt, func(e *entry) (state, bool) {
		s := *e.state.Load()
		return s.after(upTo), s.newest > upTo
	})
}

// rebuild replaces the table by what keep returns of each entry. The sums keep
// their newest epoch and depth: too late an epoch costs a look-up, too early a
// one would hide a rule.
func (r *Rules) rebuild(doubt uint64, keep func(*entry) (state, bool)) {
	type kept struct {
		*entry
		state state
	}
	var all []kept
	r.table.Load().each(func(e *entry) {
		if s, ok := keep(e); ok {
			all = append(all, kept{e, s})
		}
	})
	t := newTable(len(all), doubt)
	r.entries, r.rules, r.weight = len(all), 0, 0
	for _, k := range all {
		t.insert(k.hash, k.key, k.state)
		if !k.key.kind.isSum() || k.state.doubt > 0 {
			r.rules++
			r.weight += k.key.weight()
		}
	}
	r.table.Store(t)
}

// group is rules that one sum stands for.
type group struct {
	sum    key
	weight int
	// newest is the latest epoch in it.
	newest uint64
}

// coarsen makes room in a full table: the hosts and sites with the most rules
// lose them, and must validate all that is older than the latest. A quarter
// goes at once, so that this is rare. Where every host has just one short rule,
// that would gain nothing, and all becomes doubtful.
func (r *Rules) coarsen() {
	target := r.limit - r.limit/4
	give := map[key]group{}
	left := r.weight
	for _, g := range r.groups() {
		if left <= target || g.weight <= g.sum.weight() {
			break
		}
		give[g.sum] = g
		left -= g.weight - g.sum.weight()
	}
	if left > target {
		r.giveUp()
		return
	}
	r.rebuild(r.table.Load().doubt, func(e *entry) (state, bool) {
		s := *e.state.Load()
		if sum, ok := sumOf(e.key); ok {
			_, gone := give[sum]
			return s, !gone
		}
		if g, ok := give[e.key]; ok {
			s.doubt, s.depth = max(s.doubt, g.newest), -1
		}
		return s, true
	})
}

// giveUp drops all rules, and puts everything older in doubt.
func (r *Rules) giveUp() {
	doubt := r.table.Load().doubt
	r.table.Load().each(func(e *entry) { doubt = max(doubt, e.state.Load().newest) })
	r.rebuild(doubt, func(*entry) (state, bool) { return state{}, false })
}

// groups returns the groups of rules, the heaviest first.
func (r *Rules) groups() []group {
	byKey := map[key]*group{}
	r.table.Load().each(func(e *entry) {
		k, ok := sumOf(e.key)
		if !ok {
			return
		}
		g := byKey[k]
		if g == nil {
			g = &group{sum: k}
			byKey[k] = g
		}
		g.weight += e.key.weight()
		g.newest = max(g.newest, e.state.Load().newest)
	})
	all := make([]group, 0, len(byKey))
	for _, g := range byKey {
		all = append(all, *g)
	}
	slices.SortFunc(all, func(a, b group) int { return cmp.Compare(b.weight, a.weight) })
	return all
}

// sumOf returns the key of the sum that stands for a rule.
func sumOf(k key) (key, bool) {
	switch k.kind {
	case kindURL, kindPath, kindPrefix:
		return key{kind: kindHostSum, a: k.b}, true
	case kindTag:
		return key{kind: kindTagSum, a: k.a}, true
	}
	return key{}, false
}
