package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// putForms stores an object that may have forms.
func putForms(t testing.TB, s *Store[string], key, body string) *Object[string] {
	t.Helper()
	c := s.Claim(s.Hash([]byte(key)), []byte(key))
	defer s.Drop(c)
	o := &Object[string]{Meta: body, Body: NewBody([]byte(body)), Forms: new(Forms)}
	if !s.Publish(c, o) {
		t.Fatalf("%q was not stored", key)
	}
	return o
}

// charged fails where the budget is not what the stored objects cost.
func charged(t testing.TB, s *Store[string]) {
	t.Helper()
	var want int64
	s.table.each(func(e *entry[string]) bool {
		for _, at := range e.variants() {
			want += at.cost()
		}
		return true
	})
	if u := s.Usage(); u.Young+u.Main != want || u.Filling != 0 || s.taken.Load() != 0 || s.lingering.Load() != 0 {
		t.Errorf("charged %d for objects, %d for what is under way (taken %d, lingering %d); want %d and nothing",
			u.Young+u.Main, u.Filling, s.taken.Load(), s.lingering.Load(), want)
	}
}

func write(t testing.TB, m *Making[string], text string) {
	t.Helper()
	if n, err := m.Write([]byte(text)); n != len(text) || err != nil {
		t.Fatalf("Write of %d bytes: %d, %v", len(text), n, err)
	}
}

func TestFormIsFollowedThenKeptAndCharged(t *testing.T) {
	s := open(t, Options[string]{})
	o := putForms(t, s, "a", "plain")
	m, first := s.Make(o, 2, 1)
	write(t, m, strings.Repeat("x", 100<<10))
	second := o.Forms.At(2).Join()
	if u := s.Usage(); u.Filling < 100<<10 {
		t.Errorf("while it is made %d bytes are charged, want at least its %d", u.Filling, 100<<10)
	}
	if again, r := s.Make(o, 2, 1); again != nil || r != nil {
		t.Error("a form under way was begun again")
	}
	write(t, m, "end")
	m.Done(nil, true, "trailer")
	want := strings.Repeat("x", 100<<10) + "end"
	for name, r := range map[string]*Reader{"first": first, "second": second, "later": o.Forms.At(2).Join()} {
		if got, ok := readAll(r); got != want || !ok {
			t.Errorf("%s reader got %d bytes, whole %v; want %d", name, len(got), ok, len(want))
		}
	}
	form := o.Forms.At(2)
	if !form.Kept() || form.Level != 1 || form.Body.Trailer() != "trailer" {
		t.Errorf("kept %v, level %d, trailer %v", form.Kept(), form.Level, form.Body.Trailer())
	}
	charged(t, s)
	s.Discard(o)
	charged(t, s)
}

func TestFormThatIsNotWorthItIsRemembered(t *testing.T) {
	s := open(t, Options[string]{})
	o := putForms(t, s, "a", "plain")
	m, r := s.Make(o, 1, 1)
	write(t, m, "coded")
	m.Done(nil, false, nil)
	if got, ok := readAll(r); got != "coded" || !ok {
		t.Errorf("who followed got %q, whole %v", got, ok)
	}
	if f := o.Forms.At(1); f == nil || f.Body != nil || f.Kept() {
		t.Errorf("left %+v, want a mark without a body", f)
	}
	if m, _ := s.Make(o, 1, 1); m != nil {
		t.Error("it is made again")
	}
	charged(t, s)
}

func TestBrokenFormBreaksItsReadersAndMayBeMadeAgain(t *testing.T) {
	s := open(t, Options[string]{})
	o := putForms(t, s, "a", "plain")
	m, r := s.Make(o, 1, 1)
	write(t, m, "co")
	m.Done(errors.New("broke"), true, nil)
	if got, whole := readAll(r); got != "co" || whole {
		t.Errorf("who followed got %q, whole %v", got, whole)
	}
	m, r = s.Make(o, 1, 1)
	if m == nil {
		t.Fatal("it cannot be made again")
	}
	r.Close()
	m.Done(nil, true, nil)
	charged(t, s)
}

func TestRefreshKeepsForms(t *testing.T) {
	s := open(t, Options[string]{})
	o := putForms(t, s, "a", "plain")
	one, r1 := s.Make(o, 1, 1)
	two, r2 := s.Make(o, 2, 1) // still under way when the 304 comes
	defer r1.Close()
	defer r2.Close()
	write(t, one, "coded")
	one.Done(nil, true, nil)
	c := s.Claim(s.Hash([]byte("a")), []byte("a"))
	fresh := &Object[string]{Meta: "fresh", Forms: new(Forms)}
	if !s.Refresh(c, o, fresh) {
		t.Fatal("not refreshed")
	}
	s.Drop(c)
	write(t, two, "other")
	two.Done(nil, true, nil)
	for i, want := range map[int]string{1: "coded", 2: "other"} {
		if f := fresh.Forms.At(i); f == nil || !f.Kept() {
			t.Errorf("form %d is %+v after the refresh", i, f)
		} else if got, _ := readAll(f.Join()); got != want {
			t.Errorf("form %d has %q, want %q", i, got, want)
		}
	}
	charged(t, s)
}

func TestFormOfAnObjectThatLeftIsNotKept(t *testing.T) {
	purged := false
	judge := func(*Object[string], uint64) (Verdict, time.Time) {
		if purged {
			return Gone, time.Time{}
		}
		return Valid, time.Time{}
	}
	var epoch uint64 = 1
	for name, leave := range map[string]func(s *Store[string], o *Object[string]){
		"discarded": func(s *Store[string], o *Object[string]) { s.Discard(o) },
		"replaced":  func(s *Store[string], o *Object[string]) { putForms(t, s, "a", "other") },
		"purged":    func(s *Store[string], o *Object[string]) { purged, epoch = true, 2 },
	} {
		t.Run(name, func(t *testing.T) {
			purged, epoch = false, 1
			s := open(t, Options[string]{Judge: judge, Epoch: func() uint64 { return epoch }})
			o := putForms(t, s, "a", "plain")
			m, r := s.Make(o, 1, 1)
			text := strings.Repeat("x", 200<<10)
			write(t, m, text)
			leave(s, o)
			m.Done(nil, true, nil)
			if f := o.Forms.At(1); f != nil && f.Kept() {
				t.Error("the form is kept")
			}
			if got, ok := readAll(r); got != text || !ok {
				t.Errorf("who followed got %d bytes, whole %v", len(got), ok)
			}
			if name != "purged" {
				if again, _ := s.Make(o, 2, 1); again != nil {
					t.Error("a form of what left the store was begun")
				}
			}
			charged(t, s)
		})
	}
}

func TestReplacedFormServesItsReadersToTheEnd(t *testing.T) {
	s := open(t, Options[string]{})
	o := putForms(t, s, "a", "plain")
	m, r := s.Make(o, 1, 1)
	old := strings.Repeat("o", 300<<10)
	growing := o.Forms.At(1)
	if s.Replace(o, 1, growing, NewBody(nil), 2) {
		t.Error("a form under way was replaced")
	}
	write(t, m, old)
	m.Done(nil, true, nil)
	form := o.Forms.At(1)
	if _, err := r.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !s.Replace(o, 1, form, NewBody([]byte("better")), 2) {
		t.Fatal("not replaced")
	}
	if s.Replace(o, 1, form, NewBody([]byte("late")), 2) {
		t.Error("replaced what was not there any more")
	}
	if got, ok := readAll(r); !ok || !strings.HasSuffix(old, got) {
		t.Errorf("the old form's reader got %d bytes more, whole %v", len(got), ok)
	}
	if got, _ := readAll(o.Forms.At(1).Join()); got != "better" || o.Forms.At(1).Level != 2 {
		t.Errorf("the form is %q", got)
	}
	charged(t, s)
}

func TestFormIsPutWhereNoneWas(t *testing.T) {
	s := open(t, Options[string]{Memory: 1 << 20})
	o := putForms(t, s, "a", "plain")
	if !s.Replace(o, 1, nil, NewBody([]byte("coded")), 2) || !s.Replace(o, 2, nil, nil, 2) {
		t.Fatal("not put")
	}
	if f := o.Forms.At(1); !f.Kept() || f.Level != 2 {
		t.Errorf("put %+v", f)
	}
	if f := o.Forms.At(2); f == nil || f.Body != nil || f.Kept() {
		t.Errorf("left %+v, want a mark without a body", f)
	}
	if s.Replace(o, 1, nil, NewBody([]byte("late")), 2) {
		t.Error("put over one that is there")
	}
	if s.Replace(o, 3, nil, NewBody(make([]byte, 600<<10)), 2) {
		t.Error("put one that takes more than half of the budget")
	}
	charged(t, s)
	s.Discard(o)
	if s.Replace(o, 3, nil, NewBody([]byte("late")), 2) {
		t.Error("put a form of what left the store")
	}
	charged(t, s)
}

// The budget is used up: the form goes on for those who read it, and no more.
func TestFormWithoutBudgetPassesThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Options[string]{Memory: 1 << 20, MaxObject: 256 << 10})
		defer s.Close()
		o := putForms(t, s, "a", "plain")
		m, r := s.Make(o, 1, 1)
		text := strings.Repeat("x", 2<<20)
		go func() {
			write(t, m, text)
			m.Done(nil, true, nil)
		}()
		synctest.Wait()
		if f := o.Forms.At(1); f != nil {
			t.Errorf("the form may be joined: %+v", f)
		}
		if got, ok := readAll(r); got != text || !ok {
			t.Errorf("its reader got %d bytes, whole %v; want %d", len(got), ok, len(text))
		}
		synctest.Wait()
		charged(t, s)
	})
}

func TestFormWithoutReadersOrBudgetEnds(t *testing.T) {
	s := open(t, Options[string]{Memory: 1 << 20, MaxObject: 256 << 10})
	o := putForms(t, s, "a", "plain")
	m, r := s.Make(o, 1, 1)
	r.Close()
	_, err := m.Write(bytes.Repeat([]byte("x"), 2<<20))
	if err == nil {
		t.Error("a form that nobody reads and that will not be kept goes on")
	}
	m.Done(err, true, nil)
	charged(t, s)
}

// A fill that is not kept whole waits for its readers, but not for those who
// follow a form of what it brings.
func TestSeatThatFollowsAFormDoesNotHoldTheFill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Options[string]{Memory: 64 << 20, MaxObject: 1000})
		defer s.Close()
		lead, _ := s.Join(s.want("a", lang("en"), true))
		follow, role := s.Join(s.want("a", lang("en"), true))
		if role != Follow {
			t.Fatal(role)
		}
		lead.Resolve(&Object[string]{Forms: new(Forms)}, 32<<20, nil, true)
		r := lead.Reader(0, -1)
		follow.Stand()
		done := make(chan error)
		go func() { done <- lead.Pump(&limited{32 << 20}, nil) }()
		got, ok := readAll(r)
		if err := <-done; err != nil || len(got) != 32<<20 || !ok {
			t.Errorf("the fill ended with %v, its reader has %d bytes", err, len(got))
		}
		follow.Leave()
		lead.Leave()
	})
}

// limited reads that many zeros.
type limited struct{ n int }

func (l *limited) Read(p []byte) (int, error) {
	n := min(len(p), l.n)
	clear(p[:n])
	if l.n -= n; l.n == 0 && n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// Forms are made, replaced and read while objects come, are refreshed and go:
// what is charged in the end is what is there.
func TestFormsAreChargedWhateverHappens(t *testing.T) {
	s := open(t, Options[string]{Memory: 4 << 20, MaxObject: 512 << 10})
	var wait sync.WaitGroup
	for worker := range 8 {
		wait.Go(func() {
			rnd := rand.New(rand.NewPCG(1, uint64(worker)))
			for range 300 {
				churn(t, s, rnd)
			}
		})
	}
	wait.Wait()
	charged(t, s)
}

func churn(t *testing.T, s *Store[string], rnd *rand.Rand) {
	key := fmt.Sprint("k", rnd.IntN(8))
	found := s.Find(s.Hash([]byte(key)), []byte(key), lang("")).Object
	if found == nil || found.Forms == nil {
		c := s.Claim(s.Hash([]byte(key)), []byte(key))
		s.Publish(c, &Object[string]{Body: NewBody(make([]byte, rnd.IntN(200<<10))), Forms: new(Forms)})
		s.Drop(c)
		return
	}
	number := rnd.IntN(MaxForms)
	switch rnd.IntN(7) {
	case 3:
		s.Replace(found, number, nil, NewBody(make([]byte, rnd.IntN(100<<10))), 2)
	case 0:
		s.Discard(found)
	case 1:
		c := s.Claim(s.Hash([]byte(key)), []byte(key))
		s.Refresh(c, found, &Object[string]{Forms: new(Forms)})
		s.Drop(c)
	case 2:
		if f := found.Forms.At(number); f != nil {
			s.Replace(found, number, f, NewBody(make([]byte, rnd.IntN(100<<10))), 2)
		}
	default:
		m, r := s.Make(found, number, 1)
		if m == nil {
			return
		}
		_, err := m.Write(make([]byte, rnd.IntN(300<<10)))
		m.Done(err, rnd.IntN(4) > 0, nil)
		defer r.Close()
		for {
			// What left the store may be cut, for want of memory for its readers.
			if _, end := r.Next(t.Context()); end != nil {
				if end != io.EOF && !errors.Is(end, ErrStalled) && err == nil {
					t.Errorf("the reader of a whole form got %v", end)
				}
				return
			}
		}
	}
}
