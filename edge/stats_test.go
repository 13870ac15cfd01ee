package edge

import (
	"sync"
	"testing"
	"time"
)

func TestStatsAddUpOverShards(t *testing.T) {
	const writers, each = 8, 1000
	s := NewStats()
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			site := s.Site("a")
			for range each {
				site.Count(Hit, H2, 206, 10, 70*time.Microsecond)
			}
		})
	}
	all.Wait()
	for name, c := range s.Sites() {
		if name != "a" {
			t.Errorf("site: got %q, want a", name)
		}
		const want = writers * each
		if got := c.Requests[Hit][H2][2]; got != want {
			t.Errorf("requests: got %d, want %d", got, want)
		}
		if got := c.Count(Hit); got != want {
			t.Errorf("count: got %d, want %d", got, want)
		}
		if got := c.Bytes[Hit]; got != 10*want {
			t.Errorf("bytes: got %d, want %d", got, 10*want)
		}
		if got := c.Total[Hit]; got != want*70*time.Microsecond {
			t.Errorf("total: got %s, want %s", got, want*70*time.Microsecond)
		}
	}
}

func TestStatsBuckets(t *testing.T) {
	for _, c := range []struct {
		name   string
		d      time.Duration
		bucket int
	}{
		{"negative", -time.Second, 0},
		{"zero", 0, 0},
		{"on the bound", 50 * time.Microsecond, 0},
		{"past the bound", 50*time.Microsecond + 1, 1},
		{"last bound", 30 * time.Second, buckets - 2},
		{"beyond", time.Hour, buckets - 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSiteStats()
			s.Count(Miss, H1, 200, 0, c.d)
			if got := s.counts().Durations[Miss]; got[c.bucket] != 1 {
				t.Errorf("%s: got %v, want it in bucket %d", c.d, got, c.bucket)
			}
		})
	}
}

// A status or protocol out of range must not end the request that has it.
func TestStatsTakeAnyValue(t *testing.T) {
	s := newSiteStats()
	s.Count(Outcome(200), Proto(9), 999, -5, 0)
	s.Count(Local, H1, -1, 3, 0)
	c := s.counts()
	if c.Requests[Fault][H3][0] != 1 || c.Requests[Local][H1][0] != 1 || c.Bytes[Fault] != 0 {
		t.Errorf("got %+v, want one fault, one local, no bytes below zero", c)
	}
}

func TestStatsFaults(t *testing.T) {
	s := NewStats()
	s.Fault(FaultPanic)
	s.Fault(FaultPanic)
	s.Fault(FaultKind(250))
	seen := make(map[string]bool)
	for kind, n := range s.Faults() {
		if want := map[bool]uint64{true: 2}[kind == FaultPanic]; n != want {
			t.Errorf("%s: got %d, want %d", kind, n, want)
		}
		if kind.String() == "" || kind.String() == "unknown" || seen[kind.String()] {
			t.Errorf("kind %d has no label of its own: %q", kind, kind)
		}
		seen[kind.String()] = true
	}
}

func TestStatsSiteIsKeptByName(t *testing.T) {
	s := NewStats()
	a, again, b := s.Site("a"), s.Site("a"), s.Site("b")
	if a != again || a == b {
		t.Error("want the same counters for the same name only")
	}
	if got, want := buckets, len(DurationBounds())+1; got != want {
		t.Errorf("buckets: got %d, want %d", got, want)
	}
}

func TestStatsCountAllocatesNothing(t *testing.T) {
	site := NewStats().Site("a")
	if got := testing.AllocsPerRun(1000, func() { site.Count(Hit, H1, 200, 1, time.Millisecond) }); got != 0 {
		t.Errorf("allocations: got %v, want 0", got)
	}
}

func BenchmarkStatsCount(b *testing.B) {
	site := NewStats().Site("a")
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			site.Count(Hit, H1, 200, 1024, 80*time.Microsecond)
		}
	})
}
