package store

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"
)

type zero struct{}

func (zero) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// A fill that was cancelled because its last client left is still joined.
func TestCancelledFillIsNotJoined(t *testing.T) {
	s := open(t, Options[string]{MaxObject: 1000})
	seat, role := s.Join(s.want("a", lang("en"), true))
	if role != Lead {
		t.Fatal(role)
	}
	f := seat.Fill
	f.Resolve(&Object[string]{}, 1<<20, nil, true) // larger than MaxObject
	seat.Leave()
	next, role := s.Join(s.want("a", lang("en"), true))
	if role != Lead {
		t.Fatalf("a new client has role %v in a fill that was cancelled, want Lead of its own", role)
	}
	next.Fail(io.EOF)
	next.Leave()
	f.Fail(io.EOF)
}

func TestCancelledFillIsNotJoinedBeforeItsHead(t *testing.T) {
	s := open(t, Options[string]{Abandoned: -1})
	seat, _ := s.Join(s.want("a", lang("en"), true))
	f := seat.Fill
	seat.Leave()
	next, role := s.Join(s.want("a", lang("en"), true))
	if role != Lead {
		t.Fatalf("a new client has role %v in a fill that was cancelled, want Lead of its own", role)
	}
	next.Fail(io.EOF)
	next.Leave()
	f.Fail(io.EOF)
}

// One reader that takes nothing; newcomers arrive every 5 s: it is never cut.
func TestStalledReaderIsCutThoughOthersComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Options[string]{Memory: 64 << 20, MaxObject: 1000})
		defer s.Close()
		seat, _ := s.Join(s.want("a", lang("en"), true))
		f := seat.Fill
		f.Resolve(&Object[string]{}, 100<<20, nil, true)
		stalled := seat.Reader(0, -1)
		go f.Pump(zero{}, nil)
		begun := time.Now()
		for range 200 {
			<-time.After(5 * time.Second)
			next, role := s.Join(s.want("a", lang("en"), true))
			if role != Follow {
				// It was cut, and with it the fill that nobody else read.
				if role == Lead {
					next.Fail(io.EOF)
					next.Leave()
				}
				stalled.Close()
				seat.Leave()
				return
			}
			r := next.Reader(0, -1)
			r.Close()
			next.Leave()
		}
		t.Errorf("the stalled reader was not cut in %v; Stall is 10s; have %d", time.Since(begun), f.Object().Body.Have())
		stalled.Close()
		seat.Leave()
	})
}

// A slow second reader inside the window resets the first one's stall.
func TestStalledReaderIsCutThoughAnotherMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Options[string]{Memory: 64 << 20, MaxObject: 1000})
		defer s.Close()
		seat, _ := s.Join(s.want("a", lang("en"), true))
		f := seat.Fill
		f.Resolve(&Object[string]{}, 100<<20, nil, true)
		seat2, _ := s.Join(s.want("a", lang("en"), true))
		stalled := seat.Reader(0, -1)
		slow := seat2.Reader(0, -1)
		go f.Pump(zero{}, nil)
		begun := time.Now()
		for time.Since(begun) < 20*time.Minute {
			if _, err := slow.Next(t.Context()); err != nil {
				t.Fatal(err)
			}
			<-time.After(9 * time.Second)
			f.object.Body.mu.Lock()
			cut := stalled.cut
			f.object.Body.mu.Unlock()
			if cut {
				break
			}
		}
		if took := time.Since(begun); took > time.Minute {
			t.Errorf("cut after %v, want soon after the stall of 10s", took)
		}
		stalled.Close()
		slow.Close()
		seat.Leave()
		seat2.Leave()
	})
}

// Windows of 8 MiB beyond the budget are not charged.
func TestWindowsOfManyFillsStayWithinTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Options[string]{Memory: 16 << 20, MaxObject: 1 << 20, Stall: time.Hour})
		defer s.Close()
		var fills []*Fill[string]
		for i := range 20 {
			seat, _ := s.Join(s.want(fmt.Sprint("a", i), lang("en"), true))
			seat.Fill.Resolve(&Object[string]{}, 100<<20, nil, true)
			r := seat.Reader(0, -1)
			defer seat.Leave()
			defer r.Close()
			fills = append(fills, seat.Fill)
			go seat.Fill.Pump(zero{}, nil)
		}
		synctest.Wait()
		var held int64
		for _, f := range fills {
			f.object.Body.mu.Lock()
			held += f.object.Body.held()
			f.object.Body.mu.Unlock()
		}
		u := s.Usage()
		if held > u.Memory {
			t.Errorf("20 fills hold %d bytes, %d of them charged; the budget is %d", held, u.Filling, u.Memory)
		}
	})
}

// A body that went narrow keeps its reservation although it gave its blocks up.
func TestNarrowBodyGivesItsReservationBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Options[string]{Memory: 8 << 20, MaxObject: 8 << 20, Stall: time.Hour})
		defer s.Close()
		seat, _ := s.Join(s.want("a", lang("en"), true))
		f := seat.Fill
		f.Resolve(&Object[string]{}, -1, nil, true)
		r := seat.Reader(0, -1)
		defer seat.Leave()
		defer r.Close()
		go f.Pump(zero{}, nil)
		for range 500 {
			if _, err := r.Next(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		f.object.Body.mu.Lock()
		held := f.object.Body.held()
		f.object.Body.mu.Unlock()
		if got := s.Usage().Filling; got > held {
			t.Errorf("charged %d bytes for %d held", got, held)
		}
	})
}

// Bodies that left the store while they are sent are charged, and their readers
// are cut when there would be too many.
func TestBodiesStillSentAreBounded(t *testing.T) {
	s := open(t, Options[string]{Memory: 4 << 20, MaxObject: 1 << 20})
	var readers []*Reader
	for i := range 100 {
		key := fmt.Sprint("k", i)
		c := s.Claim(s.Hash([]byte(key)), []byte(key))
		o := &Object[string]{Body: NewBody(make([]byte, 512<<10))}
		s.Publish(c, o)
		s.Drop(c)
		r := o.Body.Reader(0, -1)
		if _, err := r.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
		readers = append(readers, r)
	}
	alive := 0
	for _, r := range readers {
		if _, err := r.Next(t.Context()); err == nil {
			alive++
		}
	}
	u := s.Usage()
	if held := int64(alive) * 512 << 10; held > u.Memory {
		t.Errorf("%d readers go on, with bodies of %d bytes; the budget is %d", alive, held, u.Memory)
	}
	if total := u.Young + u.Main + u.Filling; total > u.Memory {
		t.Errorf("charged %d bytes, the budget is %d", total, u.Memory)
	}
	for _, r := range readers {
		r.Close()
	}
	if got := s.Usage().Filling; got != 0 {
		t.Errorf("%d bytes are charged after the last reader closed", got)
	}
}

// After a purge, a request joins a fill begun before it.
func TestFillBegunBeforeAPurgeIsNotJoinedAfterIt(t *testing.T) {
	epoch := uint64(1)
	s := open(t, Options[string]{
		Epoch: func() uint64 { return epoch },
		Judge: func(o *Object[string], _ uint64) (Verdict, time.Time) {
			if o.Epoch < epoch {
				return Gone, time.Time{}
			}
			return Valid, time.Time{}
		},
	})
	seat, _ := s.Join(s.want("a", lang("en"), true))
	epoch = 2 // everything is purged
	own, role := s.Join(s.want("a", lang("en"), true))
	if role != Lead {
		t.Fatalf("head not known: role %v in a fill of before the purge, want Lead of its own", role)
	}
	own.Fail(io.EOF)
	own.Leave()
	seat.Fill.Resolve(&Object[string]{}, 10, nil, true)
	other, role := s.Join(s.want("a", lang("en"), true))
	if role != Lead {
		t.Fatalf("head known: role %v in a fill of before the purge, want Lead of its own", role)
	}
	other.Fail(io.EOF)
	other.Leave()
	seat.Fail(io.EOF)
	seat.Leave()
}

// The cost of an object published again before its slot is settled is lost.
func TestCostOfAnObjectReplacedWhileItSettlesIsRight(t *testing.T) {
	s := open(t, Options[string]{})
	k := []byte("a")
	c1 := s.Claim(s.Hash(k), k)
	e := c1.entry
	// Publish of a small object, stopped between unlock and settle:
	o := &Object[string]{Body: NewBody([]byte("x"))}
	o.Key, o.begun = "a", c1.begun
	at := &slot[string]{entry: e}
	at.object.Store(o)
	at.resident.key = s.slotKey(e, "")
	at.resident.owner = at
	e.mu.Lock()
	e.setSlotsLocked([]*slot[string]{at})
	e.mu.Unlock()

	c2 := s.Claim(s.Hash(k), k)
	s.Publish(c2, &Object[string]{Body: NewBody(make([]byte, 1<<20))})
	s.settle(at)
	if got, want := s.Usage().Young+s.Usage().Main, at.cost(); got != want {
		t.Errorf("charged %d bytes, the object costs %d", got, want)
	}
	s.Drop(c1)
	s.Drop(c2)
}

// Slow downloads of large bodies take the whole budget: nothing can be stored.
func TestDownloadsDoNotEmptyTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Options[string]{Memory: 256 << 20, Stall: time.Hour})
		defer s.Close()
		for i := range 2000 {
			put(s, fmt.Sprint("o", i), "", string(make([]byte, 10<<10)))
		}
		for i := range 32 {
			seat, _ := s.Join(s.want(fmt.Sprint("a", i), lang("en"), true))
			seat.Fill.Resolve(&Object[string]{}, 1<<30, nil, true)
			r := seat.Reader(0, -1)
			defer seat.Leave()
			defer r.Close()
			go seat.Fill.Pump(zero{}, nil)
		}
		synctest.Wait()
		put(s, "new", "", "x")
		if body, _ := get(s, "new", "en"); body != "x" {
			t.Error("beside 32 slow downloads a new object is not kept")
		}
		if got := s.Usage().Objects; got < 1000 {
			t.Errorf("32 slow downloads left %d of 2001 objects", got)
		}
	})
}

// A stored body must not hold on to those who read it while it grew.
func TestClosedReaderIsForgotten(t *testing.T) {
	s := open(t, Options[string]{})
	seat, _ := s.Join(s.want("a", lang("en"), true))
	seat.Resolve(&Object[string]{}, 3, nil, true)
	r := seat.Reader(0, -1)
	if err := seat.Pump(bytes.NewReader([]byte("abc")), nil); err != nil {
		t.Fatal(err)
	}
	readAll(r)
	seat.Leave()
	if n := len(seat.Object().Body.readers); n != 0 {
		t.Errorf("%d readers are held by a stored body after Close", n)
	}
}

// A user who has yet to take its reader holds up the fill, but nothing spins:
// in virtual time a spinning fill would let no time pass.
func TestPendingUserDoesNotMakeTheFillSpin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Options[string]{Memory: 64 << 20, MaxObject: 1000})
		defer s.Close()
		seat, _ := s.Join(s.want("a", lang("en"), true))
		seat.Resolve(&Object[string]{}, 100<<20, nil, true)
		go seat.Pump(zero{}, nil)
		<-time.After(time.Minute)
		if have := seat.Object().Body.Have(); have < windowSize || have > windowSize+blockSize {
			t.Errorf("the fill went to %d, want a window of %d", have, windowSize)
		}
		seat.Leave()
	})
}

// The keeper may evict a slot that is being dropped: its body leaves only once.
func TestBodyLeavesTheStoreOnce(t *testing.T) {
	s := open(t, Options[string]{})
	put(s, "a", "", string(make([]byte, 512<<10)))
	k := []byte("a")
	e := s.table.find(s.Hash(k), k)
	at := e.variants()[0]
	o := at.object.Load()
	r := o.Body.Reader(0, -1)
	// The order of Discard and evicted when the keeper has just doomed the slot:
	c := s.Claim(s.Hash(k), k)
	e.mu.Lock()
	e.dropSlotLocked(at)
	e.mu.Unlock()
	s.keeper.remove(&at.resident)
	s.evicted(&at.resident) // doomed before, told now
	s.leave(at)
	r.Close()
	s.Drop(c)
	if got := s.Usage().Filling; got != 0 || s.lingering.Load() != 0 {
		t.Errorf("%d bytes charged, %d lingering, after the last reader closed", got, s.lingering.Load())
	}
}

// Those who read a body when it leaves may be cut; who comes after is not.
func TestReaderTakenAfterABodyLeftGoesOn(t *testing.T) {
	s := open(t, Options[string]{Memory: 4 << 20, MaxObject: 2 << 20})
	put(s, "a", "", string(make([]byte, 1500<<10)))
	o := s.Find(s.Hash([]byte("a")), []byte("a"), lang("")).Object
	other := o.Body.Reader(0, -1) // a client under way
	s.Discard(o)
	r := o.Body.Reader(0, -1) // reuseOnce
	if _, err := r.Next(t.Context()); err != nil {
		t.Errorf("a reader taken after: %v", err)
	}
	r.Close()
	other.Close()
}

// A stored body does not keep the fill that brought it, with the request, the
// handler and all that they hold.
func TestStoredBodyKeepsNoFill(t *testing.T) {
	s := open(t, Options[string]{})
	lead := func() weak.Pointer[Fill[string]] {
		seat, _ := s.Join(s.want("a", lang("en"), true))
		defer seat.Leave()
		seat.Resolve(&Object[string]{}, -1, nil, true)
		if err := seat.Pump(bytes.NewReader(pattern(3*blockSize)), nil); err != nil {
			t.Fatal(err)
		}
		return weak.Make(seat.Fill)
	}
	fill := lead()
	if _, ok := get(s, "a", "en"); !ok {
		t.Fatal("nothing was stored")
	}
	for range 10 {
		runtime.GC()
		if fill.Value() == nil {
			return
		}
	}
	t.Error("the fill is held by what it brought")
}

// A reader is in the list from when it is taken on, and may be cut before, or
// while, its user says what that is to do.
func TestReadersAreCutWhileTheyBegin(t *testing.T) {
	for _, how := range []string{"dropped", "stalled"} {
		t.Run(how, func(t *testing.T) {
			b := NewBody(make([]byte, 2*blockSize))
			cut := func() { b.leave(func(int64) bool { return false }) }
			if how == "stalled" {
				b = newGrowing(-1, nil)
				cut = nil
			}
			r := b.Reader(0, -1)
			defer r.Close()
			if cut == nil {
				cut = func() { b.cutOff(r, 0) }
			}
			var told atomic.Int32
			var wait sync.WaitGroup
			wait.Go(cut)
			r.OnCut(func() { told.Add(1) })
			wait.Wait()
			if _, err := r.Next(t.Context()); err != ErrStalled || told.Load() > 1 {
				t.Errorf("the reader got %v and was told %d times, want %v and once at most", err, told.Load(), ErrStalled)
			}
		})
	}
}
