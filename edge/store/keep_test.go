package store

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

// keepTable stands for the table: it knows what is kept, by resident.
type keepTable struct {
	mu    sync.Mutex
	costs map[*resident]int64
	told  map[*resident]int // evict calls
}

func newKeepTable(t testing.TB, budget int64) (*keepTable, *keeper) {
	table := &keepTable{costs: make(map[*resident]int64), told: make(map[*resident]int)}
	k := newKeeper(budget, table.evict)
	t.Cleanup(k.close)
	return table, k
}

func (table *keepTable) evict(r *resident) {
	table.mu.Lock()
	defer table.mu.Unlock()
	delete(table.costs, r)
	table.told[r]++
}

func (table *keepTable) set(r *resident, cost int64) {
	table.mu.Lock()
	defer table.mu.Unlock()
	table.costs[r] = cost
}

func (table *keepTable) has(r *resident) bool {
	table.mu.Lock()
	defer table.mu.Unlock()
	_, ok := table.costs[r]
	return ok
}

// add tells the table before the keeper, which may evict r at once.
func (table *keepTable) add(k *keeper, r *resident, cost int64) *resident {
	table.set(r, cost)
	k.add(r, cost)
	return r
}

func keepResident(id uint64) *resident { return &resident{key: keepKey(id)} }

// keepAudit returns what is wrong with k at rest, or "". costs is what the
// table believes is kept.
func keepAudit(k *keeper, costs map[*resident]int64) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := 0
	for _, l := range []*keepList{&k.young, &k.main} {
		var bytes int64
		entries := 0
		for r := l.root.next; r != &l.root; r = r.next {
			bytes += r.cost
			entries++
			if r.home != l || r.stay.Load() != keepIn {
				return fmt.Sprintf("a listed entry has home %p (want %p) and stay %d", r.home, l, r.stay.Load())
			}
			if cost, ok := costs[r]; !ok || cost != r.cost {
				return fmt.Sprintf("the table gives cost %d (present: %t) to an entry kept at %d", cost, ok, r.cost)
			}
		}
		if bytes != l.bytes || entries != l.n {
			return fmt.Sprintf("a segment counts %d bytes in %d entries, holds %d in %d", l.bytes, l.n, bytes, entries)
		}
		n += entries
	}
	if n != len(costs) {
		return fmt.Sprintf("%d entries kept, the table has %d", n, len(costs))
	}
	if over := k.overLocked(); over > 0 {
		return fmt.Sprintf("%d bytes over the budget", over)
	}
	k.waitLocked()
	if used := k.judge.MaxCost() - k.judge.RemainingCost(); used != k.main.bytes {
		return fmt.Sprintf("ristretto holds %d bytes, main %d", used, k.main.bytes)
	}
	return ""
}

// TestKeeperMatchesModel drives one keeper with every call in any order. After
// each, the sums agree, the budget holds, and whoever is neither evicted nor
// removed is kept.
func TestKeeperMatchesModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		const budget = 10_000
		table, k := newKeepTable(t, budget)
		defer k.close()
		var all []*resident
		var reserved int64
		stays := make(map[*resident]int)
		kept := rapid.Custom(func(rt *rapid.T) *resident { return rapid.SampledFrom(all).Draw(rt, "resident") })
		cost := rapid.Int64Range(1, budget+budget/10)
		small := rapid.Int64Range(1, budget/8)
		rt.Repeat(map[string]func(*rapid.T){
			"add": func(rt *rapid.T) {
				r := keepResident(uint64(len(all)))
				all = append(all, r)
				stays[r]++
				table.add(k, r, rapid.OneOf(small, small, small, cost).Draw(rt, "cost"))
			},
			"return": func(rt *rapid.T) {
				if len(all) == 0 {
					rt.Skip()
				}
				r := kept.Draw(rt, "who")
				k.miss(r.key)
				if !table.has(r) {
					stays[r]++
					table.add(k, r, small.Draw(rt, "cost"))
				}
			},
			"hit": func(rt *rapid.T) {
				if len(all) == 0 {
					rt.Skip()
				}
				k.hit(kept.Draw(rt, "who"))
			},
			"resize": func(rt *rapid.T) {
				if len(all) == 0 {
					rt.Skip()
				}
				r, c := kept.Draw(rt, "who"), rapid.OneOf(small, cost).Draw(rt, "cost")
				if table.has(r) {
					table.set(r, c)
				}
				k.resize(r, c)
			},
			"remove": func(rt *rapid.T) {
				if len(all) == 0 {
					rt.Skip()
				}
				r := kept.Draw(rt, "who")
				k.remove(r)
				if table.has(r) {
					delete(table.costs, r)
					stays[r]--
				}
			},
			"reserve": func(rt *rapid.T) {
				n := cost.Draw(rt, "bytes")
				if got, want := k.reserve(n), n <= budget-reserved; got != want {
					rt.Fatalf("reserve(%d) beside %d: got %t, want %t", n, reserved, got, want)
				} else if got {
					reserved += n
				}
			},
			"release": func(rt *rapid.T) {
				n := rapid.Int64Range(0, reserved).Draw(rt, "bytes")
				k.release(n)
				reserved -= n
			},
			"": func(rt *rapid.T) {
				if fault := keepAudit(k, table.costs); fault != "" {
					rt.Fatal(fault)
				}
				for r, n := range table.told {
					if ended := stays[r] - keepCount(table.has(r)); n != ended {
						rt.Fatalf("evict calls: got %d, want %d", n, ended)
					}
				}
				if _, _, got, _, _, _ := k.usage(); got != reserved {
					rt.Fatalf("reserved: got %d, want %d", got, reserved)
				}
			},
		})
	})
}

func keepCount(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestKeeperHoldsItsBudgetUnderConcurrency runs every call from several
// goroutines; a watcher checks the budget meanwhile.
func TestKeeperHoldsItsBudgetUnderConcurrency(t *testing.T) {
	const budget, workers, rounds = 4 << 20, 8, 3000
	table, k := newKeepTable(t, budget)
	var evictions, removed atomic.Int64
	k.evict = func(r *resident) { evictions.Add(1); table.evict(r) }
	done := make(chan struct{})
	watched := make(chan int64)
	go func() {
		var worst int64
		for {
			young, main, reserved, _, _, _ := k.usage()
			worst = max(worst, young+main+reserved)
			select {
			case <-done:
				watched <- worst
				return
			default:
			}
		}
	}()
	var shared [64]atomic.Pointer[resident]
	var adds atomic.Int64
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 1))
			for i := range rounds {
				slot := &shared[r.IntN(len(shared))]
				switch old := slot.Load(); {
				case i%10 == 9 && old != nil && slot.CompareAndSwap(old, nil):
					// The table's side of a purge: take it out, then tell.
					table.mu.Lock()
					_, live := table.costs[old]
					delete(table.costs, old)
					table.mu.Unlock()
					k.remove(old)
					if live {
						removed.Add(1)
					}
				case i%7 == 3 && old != nil:
					k.hit(old)
					k.hit(old)
				case i%25 == 4 && old != nil:
					k.resize(old, 1+r.Int64N(64<<10))
				case i%50 == 5:
					if n := r.Int64N(1 << 20); k.reserve(n) {
						k.release(n)
					}
				default:
					id := uint64(w)<<32 | uint64(i)
					k.miss(keepKey(id))
					fresh := table.add(k, keepResident(id), 1+r.Int64N(64<<10))
					adds.Add(1)
					slot.Store(fresh)
				}
			}
		})
	}
	wg.Wait()
	close(done)
	if worst := <-watched; worst > budget {
		t.Errorf("budget %d: saw %d bytes", budget, worst)
	}
	// Sizes change concurrently with evictions, so take them from the entries.
	for r := range table.costs {
		table.costs[r] = r.cost
	}
	if fault := keepAudit(k, table.costs); fault != "" {
		t.Error(fault)
	}
	for r, n := range table.told {
		if n != 1 {
			t.Fatalf("evict calls for one stay: got %d, want 1 (home %p)", n, r.home)
		}
	}
	// A removal may win after the eviction was decided: it is told once at most.
	ended := adds.Load() - int64(len(table.costs))
	if got := evictions.Load(); got > ended || got < ended-removed.Load() {
		t.Errorf("evict calls: got %d, want %d less at most %d removals", got, ended, removed.Load())
	}
	if !k.reserve(budget) || len(table.costs) != 0 {
		t.Errorf("after the whole budget was reserved %d entries stay; each must be evictable", len(table.costs))
	}
}

// TestKeeperFillsItsBudgetAfterChurn passes 4 GiB through 64 MiB.
func TestKeeperFillsItsBudgetAfterChurn(t *testing.T) {
	const budget = 64 << 20
	for name, rehit := range map[string]int{"never hit": 0, "a third hit": 3} {
		t.Run(name, func(t *testing.T) {
			table, k := newKeepTable(t, budget)
			r := rand.New(rand.NewPCG(3, 4))
			var passed int64
			for id := uint64(0); passed < 4<<30; id++ {
				cost := 1<<10 + r.Int64N(511<<10)
				passed += cost
				k.miss(keepKey(id))
				x := table.add(k, keepResident(id), cost)
				if rehit > 0 && id%3 == 0 {
					k.hit(x)
					k.hit(x)
				}
			}
			young, main, _, objects, evictions, share := k.usage()
			if live := young + main; live < budget*9/10 || live > budget {
				t.Errorf("live: got %d of %d bytes (young %d, main %d, share %.2f)", live, budget, young, main, share)
			}
			if objects != len(table.costs) || evictions == 0 {
				t.Errorf("objects: got %d, the table has %d; %d evictions", objects, len(table.costs), evictions)
			}
		})
	}
}

// TestKeeperRemoveWinsOverPendingEvict ends many stays in one call; the first
// evict call removes all the others, which must then not be told.
func TestKeeperRemoveWinsOverPendingEvict(t *testing.T) {
	var all []*resident
	var calls int
	var k *keeper
	k = newKeeper(1000, func(told *resident) {
		calls++
		for _, r := range all {
			if r != told {
				k.remove(r)
			}
		}
	})
	defer k.close()
	for id := range uint64(10) {
		all = append(all, keepResident(id))
		k.add(all[id], 50)
	}
	if k.reserve(1000); calls != 1 {
		t.Errorf("evict calls: got %d, want 1", calls)
	}
}

func TestKeeperPromotesWhatWasHitTwice(t *testing.T) {
	table, k := newKeepTable(t, 100_000)
	hot := table.add(k, keepResident(1), 1000)
	k.hit(hot)
	k.hit(hot)
	cold := table.add(k, keepResident(2), 1000)
	for id := uint64(10); id < 200; id++ {
		table.add(k, keepResident(id), 1000)
	}
	if !table.has(hot) || hot.home != &k.main {
		t.Errorf("the entry hit twice: kept %t, in main %t, want both", table.has(hot), hot.home == &k.main)
	}
	for id := uint64(1000); id < 1300; id++ { // ristretto may keep some; cold has no better claim
		x := table.add(k, keepResident(id), 1000)
		k.hit(x)
		k.hit(x)
		k.hit(hot)
	}
	if !table.has(hot) || table.has(cold) {
		t.Errorf("after a flood: hot kept %t, never hit kept %t, want true, false", table.has(hot), table.has(cold))
	}
}

func TestKeeperTakesBackWhatItDroppedTooSoon(t *testing.T) {
	table, k := newKeepTable(t, 100_000)
	var dropped *resident
	for id := uint64(0); dropped == nil; id++ {
		r := table.add(k, keepResident(id), 1000)
		for x := range table.told {
			dropped = x
		}
		if id > 1000 {
			t.Fatalf("nothing evicted by %v", r.key)
		}
	}
	table.add(k, dropped, 1000)
	if dropped.home != &k.main {
		t.Errorf("an entry that came back at once is in young %t, want main", dropped.home == &k.young)
	}
}

// TestKeeperSweepReachesAllOfMain hits every entry of a main that the clock
// leaves alone, as nothing must go: only the sweep can pass the hits on.
func TestKeeperSweepReachesAllOfMain(t *testing.T) {
	table, k := newKeepTable(t, 1_000_000)
	for id := range uint64(300) {
		table.add(k, keepResident(id), 1000)
	}
	swept := k.sweep
	if k.remove(swept); k.sweep == swept {
		t.Error("the sweep goes on from an entry that was removed")
	}
	for r := range table.costs {
		k.hit(r)
	}
	hit := k.main.n
	for id := range uint64(2 * hit / keepSweep) {
		table.add(k, keepResident(1000+id), 1000)
	}
	waiting := 0
	for r := k.main.root.next; r != &k.main.root; r = r.next {
		waiting += int(r.fresh.Load())
	}
	if hit < 100 || len(table.told) > 0 || waiting > 0 {
		t.Errorf("%d entries of main hit, %d evicted, %d hits not passed on; want over 100, 0, 0", hit, len(table.told), waiting)
	}
}

func TestKeeperResize(t *testing.T) {
	tests := []struct {
		name       string
		main       bool
		cost       int64
		keeps      bool
		wantOthers bool // all of them
	}{
		{"smaller in young", false, 10, true, true},
		{"larger in young", false, 5000, true, false},
		{"larger in main", true, 5000, true, false},
		{"most of the budget", true, 8_500, true, false},
		{"over the budget", true, 10_001, false, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			table, k := newKeepTable(t, 10_000)
			r := table.add(k, keepResident(0), 100)
			if test.main {
				// Fill young past its share so that r moves on.
				for id := uint64(1); r.home == &k.young; id++ {
					table.add(k, keepResident(id), 100)
				}
			}
			for id := uint64(1000); k.young.bytes+k.main.bytes < 10_000; id++ {
				table.add(k, keepResident(id), 100)
			}
			if !test.main { // the oldest of young has left meanwhile
				r = table.add(k, keepResident(1_000_000), 100)
			}
			k.hit(r)
			before := len(table.told)
			table.set(r, test.cost)
			k.resize(r, test.cost)
			if !test.keeps {
				before++ // r itself
			}
			if got := table.has(r); got != test.keeps {
				t.Errorf("kept: got %t, want %t", got, test.keeps)
			}
			if got := len(table.told) == before; got != test.wantOthers {
				t.Errorf("others all kept: got %t, want %t", got, test.wantOthers)
			}
			if fault := keepAudit(k, table.costs); fault != "" {
				t.Error(fault)
			}
		})
	}
}

// TestKeeperEvictsBothOfOneKey adds two residents with one key, as a removal
// overtaken by a fill does for a moment. Neither may become unevictable.
func TestKeeperEvictsBothOfOneKey(t *testing.T) {
	table, k := newKeepTable(t, 10_000)
	for range 2 {
		table.add(k, keepResident(7), 100)
	}
	for id := uint64(10); id < 60; id++ {
		table.add(k, keepResident(id), 100)
	}
	if k.main.n < 2 {
		t.Fatalf("main holds %d entries, want both of key 7 among them", k.main.n)
	}
	k.reserve(10_000)
	if len(table.costs) != 0 || k.young.n+k.main.n != 0 {
		t.Errorf("kept: %d in the table, %d in the keeper, want none", len(table.costs), k.young.n+k.main.n)
	}
}

// TestKeeperShareFollowsTraffic replays traffic that young serves badly and
// traffic that needs it.
func TestKeeperShareFollowsTraffic(t *testing.T) {
	tests := []struct {
		kind     string
		min, max float64
	}{
		{"zipf", keepShareMin, 0.07},
		{"burst", 0.3, keepShareMax},
	}
	for _, test := range tests {
		t.Run(test.kind, func(t *testing.T) {
			trace := keepRow{test.kind, 128}.generate(200_000, 0.05)
			got := keepFinalShare(trace)
			if got < test.min || got > test.max {
				t.Errorf("share: got %.3f, want %.3f to %.3f", got, test.min, test.max)
			}
		})
	}
}

func keepFinalShare(trace *keepTrace) float64 {
	table := make([]*resident, len(trace.sizes))
	k := newKeeper(trace.capacity, func(r *resident) { table[r.owner.(uint32)] = nil })
	defer k.close()
	for _, id := range trace.ids {
		if r := table[id]; r != nil {
			k.hit(r)
			continue
		}
		table[id] = &resident{key: keepKey(uint64(id)), owner: id}
		k.miss(table[id].key)
		k.add(table[id], trace.cost(id))
	}
	_, _, _, _, _, share := k.usage()
	return share
}

// TestKeeperCloseLeavesNothingRunning also makes each call once after close.
func TestKeeperCloseLeavesNothingRunning(t *testing.T) {
	before := goleak.IgnoreCurrent()
	evicted := 0
	k := newKeeper(1000, func(*resident) { evicted++ })
	kept := keepResident(1)
	k.add(kept, 10)
	k.close()
	goleak.VerifyNone(t, before)
	if evicted != 0 {
		t.Errorf("close evicted %d entries, want none", evicted)
	}
	k.hit(kept)
	k.miss(kept.key)
	k.add(keepResident(2), 10)
	if evicted != 1 {
		t.Errorf("an add after close evicted %d entries, want its own", evicted)
	}
	if k.reserve(1) {
		t.Error("reserve after close: got true, want false")
	}
	k.remove(kept)
	k.close()
	if young, main, _, objects, _, _ := k.usage(); young+main != 0 || objects != 0 {
		t.Errorf("after the last was removed: %d bytes in %d entries", young+main, objects)
	}
}

// TestKeeperLivesInABubble fails if a goroutine of the keeper outlives close:
// synctest then reports a deadlock.
func TestKeeperLivesInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		evicted := 0
		k := newKeeper(100_000, func(*resident) { evicted++ })
		for id := range uint64(1000) {
			k.add(keepResident(id), 1000)
		}
		synctest.Wait()
		if _, _, _, objects, _, _ := k.usage(); objects+evicted != 1000 || objects < 90 {
			t.Errorf("kept %d, evicted %d of 1000", objects, evicted)
		}
		k.close()
	})
}

// BenchmarkKeeperHit is the hot path: hits spread over many keys.
func BenchmarkKeeperHit(b *testing.B) {
	k := newKeeper(1<<30, func(*resident) {})
	defer k.close()
	all := make([]*resident, 1<<16)
	for id := range all {
		all[id] = keepResident(uint64(id))
		k.add(all[id], 1000)
	}
	b.ReportAllocs()
	var lane atomic.Uint64
	b.RunParallel(func(pb *testing.PB) {
		at := lane.Add(1) * 7919
		for pb.Next() {
			k.hit(all[at%uint64(len(all))])
			at++
		}
	})
}

// BenchmarkKeeperAdd is a miss and its fill with a full budget.
func BenchmarkKeeperAdd(b *testing.B) {
	k := newKeeper(64<<20, func(*resident) {})
	defer k.close()
	id := uint64(0)
	next := func() {
		r := keepResident(id)
		id++
		k.miss(r.key)
		k.add(r, 16<<10)
		if id%3 == 0 {
			k.hit(r)
			k.hit(r)
		}
	}
	for range 10_000 {
		next()
	}
	b.ReportAllocs()
	for b.Loop() {
		next()
	}
}
