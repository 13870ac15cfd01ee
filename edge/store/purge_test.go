package store

import (
	"io"
	"testing"
	"time"
)

// rules are purges of a test: each has an epoch, and is of some keys.
type rules struct {
	epoch   uint64
	purges  []rule
	asked   int
	mayBeOf string // what MayMatch says yes to
}

type rule struct {
	epoch   uint64
	key     string
	verdict Verdict
	at      time.Time
}

func (r *rules) apply(key string, v Verdict, at time.Time) {
	r.epoch++
	r.purges = append(r.purges, rule{r.epoch, key, v, at})
}

func (r *rules) options() Options[string] {
	return Options[string]{
		Epoch: func() uint64 { return r.epoch },
		Judge: func(o *Object[string], since uint64) (worst Verdict, at time.Time) {
			r.asked++
			for _, p := range r.purges {
				if p.epoch > since && p.key == o.Key && p.verdict >= worst {
					worst, at = p.verdict, p.at
				}
			}
			return worst, at
		},
		MayMatch: func(subject any, since uint64) bool { return string(subject.(lang)) == r.mayBeOf },
	}
}

func find(s *Store[string], key string) Found[string] {
	k := []byte(key)
	return s.Find(s.Hash(k), k, lang("en"))
}

func TestEachPurgeIsAskedAboutOnce(t *testing.T) {
	r := &rules{}
	s := open(t, r.options())
	put(s, "a", "", "x")
	for range 3 {
		find(s, "a")
	}
	if r.asked != 0 {
		t.Errorf("with no purge, asked %d times, want 0", r.asked)
	}
	r.apply("b", Gone, time.Time{})
	for range 3 {
		if found := find(s, "a"); found.Object == nil || found.Soft || found.Invalid {
			t.Fatalf("after a purge of b: %+v, want a as it was", found)
		}
	}
	if r.asked != 1 {
		t.Errorf("after one purge, asked %d times in 3 look-ups, want 1", r.asked)
	}
}

func TestWhatPurgesSaidOutlivesThem(t *testing.T) {
	early, late := time.Unix(1000, 0), time.Unix(2000, 0)
	for _, c := range []struct {
		name    string
		purges  []rule
		verdict Verdict
		since   time.Time
	}{
		{"soft", []rule{{0, "a", Soft, late}}, Soft, late},
		{"the earliest of two", []rule{{0, "a", Soft, late}, {0, "a", Soft, early}}, Soft, early},
		{"a later one does not lengthen", []rule{{0, "a", Soft, early}, {0, "a", Soft, late}}, Soft, early},
		{"doubt beside soft", []rule{{0, "a", Soft, early}, {0, "a", Doubtful, late}}, Doubtful, time.Time{}},
		{"hard after soft", []rule{{0, "a", Soft, early}, {0, "a", Gone, late}}, Gone, time.Time{}},
		{"soft after hard", []rule{{0, "a", Gone, early}, {0, "a", Soft, late}}, Gone, time.Time{}},
		{"another key's", []rule{{0, "b", Gone, early}}, Valid, time.Time{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &rules{}
			s := open(t, r.options())
			put(s, "a", "", "x")
			o := find(s, "a").Object
			for _, p := range c.purges {
				r.apply(p.key, p.verdict, p.at)
				find(s, "a") // each is judged by itself
			}
			r.purges = nil // forgotten
			if v, since := s.Judge(o); v != c.verdict || !since.Equal(c.since) {
				t.Errorf("%v: got %v since %v, want %v since %v", c.purges, v, since, c.verdict, c.since)
			}
			found := find(s, "a")
			if gone := found.Object == nil; gone != (c.verdict == Gone) {
				t.Errorf("found %v, want gone: %v", found.Object, c.verdict == Gone)
			}
			if found.Invalid != (c.verdict == Doubtful) {
				t.Errorf("invalid: %v, want %v", found.Invalid, c.verdict == Doubtful)
			}
		})
	}
}

// A request may hold an object that has left the store, and was not judged
// before the purges were forgotten.
func TestWhatLeftTheStoreIsDoubtfulOncePurgesAreForgotten(t *testing.T) {
	r := &rules{}
	s := open(t, r.options())
	put(s, "a", "", "x")
	put(s, "b", "", "x")
	left, stays := find(s, "a").Object, find(s, "b").Object
	s.Discard(left)
	r.apply("a", Gone, time.Time{})
	low := s.Low()
	s.Each(func(o *Object[string]) bool { s.Judge(o); return true })
	s.Raise(low)
	r.purges = nil
	r.apply("c", Gone, time.Time{})
	for _, c := range []struct {
		name string
		o    *Object[string]
		want Verdict
	}{{"what left", left, Doubtful}, {"what stays", stays, Valid}} {
		if v, _ := s.Judge(c.o); v != c.want {
			t.Errorf("%s: got %v, want %v", c.name, v, c.want)
		}
	}
}

func TestFillIsJoinedWhenThePurgeIsOfAnother(t *testing.T) {
	r := &rules{}
	s := open(t, r.options())
	leader, _ := s.Join(s.want("a", lang("en"), true))
	r.apply("b", Gone, time.Time{})
	follower, role := s.Join(s.want("a", lang("en"), true))
	if role != Follow {
		t.Fatalf("role after a purge of another = %v, want Follow", role)
	}
	follower.Leave()
	r.apply("a", Gone, time.Time{})
	r.mayBeOf = "en"
	own, role := s.Join(s.want("a", lang("en"), true))
	if role != Lead {
		t.Fatalf("role after a purge that may be of it = %v, want Lead", role)
	}
	for _, seat := range []*Seat[string]{leader, own} {
		seat.Fail(io.EOF)
		seat.Leave()
	}
}

func TestLowIsTheOldestUnderWay(t *testing.T) {
	r := &rules{}
	s := open(t, r.options())
	k := []byte("a")
	low := func(want uint64, when string) {
		t.Helper()
		if got := s.Low(); got != want {
			t.Errorf("%s: low = %d, want %d", when, got, want)
		}
	}
	r.apply("x", Gone, time.Time{})
	low(1, "nothing under way")
	claim := s.Claim(s.Hash(k), k)
	r.apply("x", Gone, time.Time{})
	low(1, "a claim of epoch 1")
	leader, _ := s.Join(s.want("b", lang("en"), true))
	follower, _ := s.Join(s.want("b", lang("en"), true))
	s.Drop(claim)
	r.apply("x", Gone, time.Time{})
	low(2, "a fill of epoch 2")
	follower.Leave()
	low(2, "its follower left")
	leader.Resolve(&Object[string]{}, 1, nil, true)
	low(2, "its head is known")
	if err := leader.Pump(&endless{n: 1}, nil); err != nil {
		t.Fatal(err)
	}
	low(3, "all ended")
	leader.Leave()
	if _, role := s.Join(Want[string]{Hash: s.Hash(k), Key: k, Ask: lang("en"), Now: time.Now()}); role != Alone {
		t.Fatalf("role = %v, want Alone", role)
	}
	r.apply("x", Gone, time.Time{})
	low(4, "who goes alone without a claim")
}

// endless gives n bytes.
type endless struct{ n int }

func (e *endless) Read(p []byte) (int, error) {
	if e.n == 0 {
		return 0, io.EOF
	}
	n := min(e.n, len(p))
	e.n -= n
	return n, nil
}

func TestRefreshOfWhatWasPurgedMeanwhile(t *testing.T) {
	r := &rules{}
	s := open(t, r.options())
	put(s, "a", "", "x")
	old := find(s, "a").Object
	k := []byte("a")
	c := s.Claim(s.Hash(k), k)
	defer s.Drop(c)
	r.apply("a", Soft, time.Unix(1000, 0))
	if !s.Refresh(c, old, &Object[string]{}) {
		t.Fatal("refresh of a soft-purged object failed")
	}
	found := find(s, "a")
	if !found.Soft {
		t.Error("what was asked for before a soft purge is fresh after it")
	}
	r.apply("a", Gone, time.Time{})
	if s.Refresh(c, found.Object, &Object[string]{}) {
		t.Error("refresh of a purged object succeeded")
	}
}

func TestRenewedClaimReplacesWhatCameMeanwhile(t *testing.T) {
	s := open(t, Options[string]{})
	k := []byte("a")
	push, fetch := s.Claim(s.Hash(k), k), s.Claim(s.Hash(k), k)
	defer s.Drop(push)
	defer s.Drop(fetch)
	if !s.Publish(fetch, &Object[string]{Body: NewBody([]byte("fetched"))}) {
		t.Fatal("publish failed")
	}
	if s.Publish(push, &Object[string]{Body: NewBody([]byte("pushed"))}) {
		t.Error("an earlier claim replaced what a later one brought")
	}
	s.Renew(push)
	if !s.Publish(push, &Object[string]{Body: NewBody([]byte("pushed"))}) {
		t.Error("the renewed claim replaced nothing")
	}
	if got, _ := get(s, "a", ""); got != "pushed" {
		t.Errorf("get = %q, want pushed", got)
	}
}

func TestHeatPassesOnByHalf(t *testing.T) {
	s := open(t, Options[string]{})
	put(s, "a", "", "x")
	old := find(s, "a").Object
	for range 10 {
		old.Used(time.Unix(0, 0)) // a time that is counted
	}
	old.Used(time.Unix(0, 16)) // one that is not
	if got := old.Heat(); got != 10 {
		t.Fatalf("heat = %d, want 10", got)
	}
	put(s, "a", "", "y")
	if got := find(s, "a").Object.Heat(); got != 5 {
		t.Errorf("heat of the successor = %d, want 5", got)
	}
}
