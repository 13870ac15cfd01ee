package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// lang is an asker that takes what was made for its language.
type lang string

func (l lang) Accepts(o *Object[string]) bool {
	return o.Selector == "" || o.Selector == "language="+string(l)
}

func (l lang) Joins(*Object[string]) bool { return true }

func (l lang) Subject() any { return l }

func (l lang) Selector(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return "language=" + string(l)
}

func open(t testing.TB, o Options[string]) *Store[string] {
	t.Helper()
	if o.Memory == 0 {
		o.Memory = 64 << 20
	}
	s := New(o)
	t.Cleanup(func() { s.Close() })
	return s
}

func put(s *Store[string], key, selector, body string) bool {
	c := s.Claim(s.Hash([]byte(key)), []byte(key))
	defer s.Drop(c)
	return s.Publish(c, &Object[string]{Meta: body, Selector: selector, Body: NewBody([]byte(body))})
}

func get(s *Store[string], key string, ask lang) (string, bool) {
	found := s.Find(s.Hash([]byte(key)), []byte(key), ask)
	if found.Object == nil {
		return "", found.Known
	}
	return readAll(found.Object.Body.Reader(0, -1))
}

func readAll(r *Reader) (string, bool) {
	defer r.Close()
	var b strings.Builder
	for {
		p, err := r.Next(context.Background())
		if err != nil {
			return b.String(), err == io.EOF
		}
		b.Write(p)
	}
}

func (s *Store[M]) want(key string, ask Asker[M], lead bool) Want[M] {
	return Want[M]{Hash: s.Hash([]byte(key)), Key: []byte(key), Ask: ask, MayLead: lead, Now: time.Now()}
}

func TestPublishedObjectIsFoundByItsKeyAndVariant(t *testing.T) {
	s := open(t, Options[string]{})
	put(s, "a", "", "one")
	put(s, "b", "language=en", "two")
	put(s, "b", "language=de", "zwei")
	for _, tt := range []struct {
		key  string
		ask  lang
		want string
	}{{"a", "en", "one"}, {"b", "en", "two"}, {"b", "de", "zwei"}, {"b", "fr", ""}, {"c", "en", ""}} {
		if got, _ := get(s, tt.key, tt.ask); got != tt.want {
			t.Errorf("get(%q, %q) = %q, want %q", tt.key, tt.ask, got, tt.want)
		}
	}
	if _, known := get(s, "b", "fr"); !known {
		t.Error("get(b, fr): not known, want known by other variants")
	}
	if u := s.Usage(); u.Objects != 3 || u.Keys != 2 {
		t.Errorf("usage = %d objects of %d keys, want 3 of 2", u.Objects, u.Keys)
	}
}

func TestHashCollisionIsToldApartByKey(t *testing.T) {
	s := open(t, Options[string]{})
	h := Hash{1, 1}
	for _, key := range []string{"x", "y"} {
		c := s.Claim(h, []byte(key))
		s.Publish(c, &Object[string]{Body: NewBody([]byte(key))})
		s.Drop(c)
	}
	for _, key := range []string{"x", "y"} {
		found := s.Find(h, []byte(key), lang(""))
		if found.Object == nil || found.Object.Key != key {
			t.Errorf("find(%q) = %v, want its own object", key, found.Object)
		}
	}
}

func TestVariantsOfOneKeyAreCapped(t *testing.T) {
	s := open(t, Options[string]{Variants: 4})
	for i := range 20 {
		put(s, "a", fmt.Sprintf("language=%d", i), "x")
	}
	if u := s.Usage(); u.Objects != 4 {
		t.Errorf("objects = %d, want the cap of 4", u.Objects)
	}
}

func TestInvalidateIsNotUndoneByEarlierClaim(t *testing.T) {
	s := open(t, Options[string]{})
	key := []byte("a")
	c := s.Claim(s.Hash(key), key)
	s.Invalidate(s.Hash(key), key, nil)
	if s.Publish(c, &Object[string]{Body: NewBody(nil)}) {
		t.Error("publish with a claim from before the invalidation succeeded")
	}
	s.Drop(c)
	put(s, "a", "", "new")
	if got, _ := get(s, "a", ""); got != "new" {
		t.Errorf("get = %q, want what was published after", got)
	}
	if !s.Invalidate(s.Hash(key), key, nil) {
		t.Error("invalidate = false, want true for a stored key")
	}
	if !s.Find(s.Hash(key), key, lang("")).Invalid {
		t.Error("the object is not marked after the invalidation")
	}
	put(s, "a", "", "newer")
	if s.Find(s.Hash(key), key, lang("")).Invalid {
		t.Error("what was published after the invalidation is marked")
	}
}

func TestEarlierFetchDoesNotReplaceALaterOne(t *testing.T) {
	s := open(t, Options[string]{})
	key := []byte("a")
	slow := s.Claim(s.Hash(key), key)
	put(s, "a", "", "new")
	if s.Publish(slow, &Object[string]{Body: NewBody([]byte("old"))}) {
		t.Error("what was asked for earlier replaced what was asked for later")
	}
	s.Drop(slow)
	if got, _ := get(s, "a", ""); got != "new" {
		t.Errorf("get = %q, want the later", got)
	}
}

func TestRefreshSwapsOnlyTheObjectItValidated(t *testing.T) {
	s := open(t, Options[string]{})
	put(s, "a", "", "body")
	key := []byte("a")
	h := s.Hash(key)
	old := s.Find(h, key, lang("")).Object
	c := s.Claim(h, key)
	defer s.Drop(c)
	fresh := &Object[string]{Meta: "confirmed"}
	if !s.Refresh(c, old, fresh) {
		t.Fatal("refresh of the current object failed")
	}
	if got, _ := get(s, "a", ""); got != "body" {
		t.Errorf("body after refresh = %q, want the same", got)
	}
	if s.Refresh(c, old, &Object[string]{}) {
		t.Error("refresh of a replaced object succeeded")
	}
}

func TestPurgedObjectIsNeverFound(t *testing.T) {
	var epoch atomic.Uint64
	s := open(t, Options[string]{Epoch: epoch.Load, Judge: func(*Object[string], uint64) (Verdict, time.Time) {
		return Gone, time.Time{}
	}})
	put(s, "a", "", "x")
	if got, _ := get(s, "a", ""); got != "x" {
		t.Fatalf("get before any purge = %q, want x", got)
	}
	epoch.Store(1)
	if got, known := get(s, "a", ""); got != "" || known {
		t.Errorf("get = %q, known %v; want nothing of a purged object", got, known)
	}
}

func TestFillIsSharedByThoseItSuits(t *testing.T) {
	s := open(t, Options[string]{})
	leader, role := s.Join(s.want("a", lang("en"), true))
	if role != Lead {
		t.Fatalf("first role = %v, want Lead", role)
	}
	follower, role := s.Join(s.want("a", lang("de"), true))
	if role != Follow {
		t.Fatalf("second role = %v, want Follow while Vary is not known", role)
	}
	o := &Object[string]{Selector: "language=en"}
	leader.Resolve(o, -1, []string{"accept-language"}, true)
	if lang("de").Accepts(follower.Object()) {
		t.Fatal("the follower takes the leader's language")
	}
	follower.Leave()
	other, role := s.Join(s.want("a", lang("de"), true))
	if role != Lead {
		t.Fatalf("role of another language = %v, want Lead", role)
	}
	same, role := s.Join(s.want("a", lang("de"), true))
	if role != Follow {
		t.Errorf("role of the same language = %v, want Follow", role)
	}
	same.Leave()
	other.Fail(errors.New("refused"))
	if other.Err() == nil {
		t.Error("the failed fill has no error")
	}
	other.Leave()
	if err := leader.Pump(strings.NewReader("hello"), nil); err != nil {
		t.Errorf("pump: %v", err)
	}
	leader.Leave()
	if got, _ := get(s, "a", "en"); got != "hello" {
		t.Errorf("get = %q, want what the fill brought", got)
	}
	if u := s.Usage(); u.Fills != 0 || u.Filling != 0 || u.Abandoned != 0 {
		t.Errorf("usage after the fills = %+v, want none under way", u)
	}
}

func TestFollowersReadWhileTheBodyArrives(t *testing.T) {
	for _, size := range []int{0, 1, 100, firstBlock, blockSize - 1, blockSize, blockSize + 1, 5*blockSize + 7} {
		for _, declared := range []bool{true, false} {
			t.Run(fmt.Sprint(size, declared), func(t *testing.T) {
				s := open(t, Options[string]{Memory: 64 << 20})
				body := pattern(size)
				seat, _ := s.Join(s.want("a", lang(""), true))
				length := int64(-1)
				if declared {
					length = int64(size)
				}
				seat.Resolve(&Object[string]{}, length, nil, true)
				var wait sync.WaitGroup
				for range 8 {
					follower, role := s.Join(s.want("a", lang(""), true))
					if role != Follow {
						t.Fatalf("role = %v, want Follow", role)
					}
					wait.Go(func() {
						defer follower.Leave()
						got, ok := readAll(follower.Reader(0, -1))
						if !ok || got != string(body) {
							t.Errorf("follower read %d bytes (ok %v), want %d", len(got), ok, len(body))
						}
					})
				}
				if err := seat.Pump(io.LimitReader(bytes.NewReader(body), 1<<30), nil); err != nil {
					t.Errorf("pump: %v", err)
				}
				seat.Leave()
				wait.Wait()
				if got, _ := get(s, "a", ""); got != string(body) {
					t.Errorf("stored %d bytes, want %d", len(got), len(body))
				}
			})
		}
	}
}

func pattern(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i*7 + i>>8)
	}
	return p
}

func TestNextBlocksGivesWhatNextGives(t *testing.T) {
	const size = 5*blockSize + 100
	whole := pattern(size)
	broken := newGrowing(size, nil)
	for n := 0; n < 2*blockSize; {
		space, _ := broken.space(t.Context(), 0)
		n += copy(space, whole[n:])
		broken.commit(len(space))
	}
	broken.finish(io.ErrUnexpectedEOF, nil)
	for _, tt := range []struct {
		name        string
		body        *Body
		off, length int64
		room        int
		first, all  int // slices of the first call, bytes of all
		err         error
	}{
		{"whole", NewBody(whole), 0, -1, 16, 6, size, io.EOF},
		{"little room", NewBody(whole), 0, -1, 4, 4, size, io.EOF},
		{"room for one", NewBody(whole), 0, -1, 1, 1, size, io.EOF},
		{"a range", NewBody(whole), blockSize - 1, blockSize + 2, 16, 3, blockSize + 2, io.EOF},
		{"a range within a block", NewBody(whole), 10, 20, 16, 1, 20, io.EOF},
		{"a range to a block's end", NewBody(whole), 1, blockSize - 1, 16, 1, blockSize - 1, io.EOF},
		{"an empty range", NewBody(whole), 10, 0, 16, 0, 0, io.EOF},
		{"one that broke", broken, 5, -1, 16, 2, 2*blockSize - 5, io.ErrUnexpectedEOF},
		{"a range before the break", broken, 5, blockSize, 16, 2, blockSize, io.EOF},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := tt.body.Reader(tt.off, tt.length)
			defer r.Close()
			var got []byte
			room, first := make([][]byte, 0, tt.room), -1
			for {
				blocks, err := r.NextBlocks(t.Context(), room)
				if first < 0 {
					first = len(blocks)
				}
				got = append(got, bytes.Join(blocks, nil)...)
				if err != nil {
					if err != tt.err {
						t.Errorf("ended with %v, want %v", err, tt.err)
					}
					break
				}
			}
			if first != tt.first || !bytes.Equal(got, whole[tt.off:][:tt.all]) {
				t.Errorf("%d slices first, %d bytes in all; want %d, %d", first, len(got), tt.first, tt.all)
			}
		})
	}
}

// A body that grows is given block by block: its fill waits for the slowest.
func TestNextBlocksOfAGrowingBodyIsOne(t *testing.T) {
	whole := pattern(3 * blockSize)
	b := newGrowing(int64(len(whole)), nil)
	r := b.Reader(0, -1)
	defer r.Close()
	for n := 0; n < len(whole); {
		space, _ := b.space(t.Context(), 0)
		n += copy(space, whole[n:])
		b.commit(len(space))
	}
	room := make([][]byte, 0, 16)
	one, err := r.NextBlocks(t.Context(), room)
	if err != nil || len(one) != 1 || !bytes.Equal(one[0], whole[:blockSize]) {
		t.Errorf("%d slices of a growing body, %v; want the first block", len(one), err)
	}
	b.finish(nil, nil)
	rest, err := r.NextBlocks(t.Context(), room)
	if err != nil || len(rest) != 2 || !bytes.Equal(bytes.Join(rest, nil), whole[blockSize:]) {
		t.Errorf("%d slices when it is whole, %v; want the two that are left", len(rest), err)
	}
}

func TestBodyThatLiesAboutItsLengthIsNeverStoredWrong(t *testing.T) {
	for _, tt := range []struct {
		name     string
		declared int64
		stored   string
	}{{"short", 10, ""}, {"surplus", 3, "fiv"}, {"exact", 5, "five."}} {
		s := open(t, Options[string]{})
		seat, _ := s.Join(s.want("a", lang(""), true))
		seat.Resolve(&Object[string]{}, tt.declared, nil, true)
		r := seat.Reader(0, -1)
		err := seat.Pump(strings.NewReader("five."), nil)
		if (err == nil) != (tt.stored != "") {
			t.Errorf("%s: pump: %v", tt.name, err)
		}
		if got, ok := readAll(r); ok != (tt.stored != "") {
			t.Errorf("%s: a follower read %q, whole %v", tt.name, got, ok)
		}
		seat.Leave()
		if got, _ := get(s, "a", ""); got != tt.stored {
			t.Errorf("%s: stored %q, want %q", tt.name, got, tt.stored)
		}
	}
}

func TestRefusedFillSendsEachOnAlone(t *testing.T) {
	s := open(t, Options[string]{})
	leader, _ := s.Join(s.want("a", lang(""), true))
	follower, _ := s.Join(s.want("a", lang(""), true))
	s.Alone(s.Hash([]byte("a")), []byte("a"), time.Now().Add(time.Minute))
	end := leader.Refuse()
	leader.Leave()
	<-follower.Ready()
	if !follower.Refused() {
		t.Error("the follower was not told that the response is not for it")
	}
	follower.Leave()
	if err := leader.Context().Err(); err != nil {
		t.Errorf("the response that the leader may have ended with its fill: %v", err)
	}
	if end(nil); leader.Context().Err() == nil {
		t.Error("the context did not end with the response")
	}
	if _, role := s.Join(s.want("a", lang(""), true)); role != Alone {
		t.Errorf("role under a hit-for-miss mark = %v, want Alone", role)
	}
	put(s, "a", "", "public again")
	w := s.want("a", lang("xx"), true)
	w.Seen = s.Find(w.Hash, w.Key, w.Ask).Object
	seat, role := s.Join(w)
	if role != Lead {
		t.Fatalf("role after a response was stored = %v, want Lead", role)
	}
	seat.Fail(io.EOF)
	seat.Leave()
}

func TestFillOutlivesItsLeaderWhenItWillBeStored(t *testing.T) {
	s := open(t, Options[string]{Abandoned: 1})
	seat, _ := s.Join(s.want("a", lang(""), true))
	seat.Resolve(&Object[string]{}, -1, nil, true)
	seat.Leave()
	if n := s.Usage().Abandoned; n != 1 {
		t.Errorf("abandoned = %d, want 1", n)
	}
	if err := seat.Pump(strings.NewReader("x"), nil); err != nil {
		t.Errorf("pump without clients: %v", err)
	}
	if got, _ := get(s, "a", ""); got != "x" {
		t.Errorf("get = %q, want what came after the client left", got)
	}

	one, _ := s.Join(s.want("b", lang(""), true))
	two, _ := s.Join(s.want("c", lang(""), true))
	one.Leave()
	two.Leave()
	if one.Context().Err() != nil || two.Context().Err() == nil {
		t.Errorf("contexts = %v, %v; want the second ended: one may be abandoned", one.Context().Err(), two.Context().Err())
	}
	one.Fail(io.EOF)
	two.Fail(io.EOF)
}

func TestDiscardedWhileItArrivesIsNotStored(t *testing.T) {
	s := open(t, Options[string]{})
	seat, _ := s.Join(s.want("a", lang(""), true))
	o := &Object[string]{}
	seat.Resolve(o, -1, nil, true)
	s.Discard(o)
	if err := seat.Pump(strings.NewReader("x"), nil); err != nil {
		t.Errorf("pump: %v", err)
	}
	seat.Leave()
	if got, ok := get(s, "a", ""); ok {
		t.Errorf("get = %q, want nothing", got)
	}
}

func TestFillLargerThanObjectsMayBeKeepsAWindow(t *testing.T) {
	s := open(t, Options[string]{Memory: 64 << 20, MaxObject: 1 << 20})
	const size = 40 << 20
	seat, _ := s.Join(s.want("a", lang(""), true))
	seat.Resolve(&Object[string]{}, size, nil, true)
	var most atomic.Int64
	body := seat.Object().Body
	done := make(chan bool)
	r := seat.Reader(0, -1)
	go func() {
		var got int64
		for {
			p, err := r.Next(t.Context())
			if err != nil {
				r.Close()
				done <- err == io.EOF && got == size
				return
			}
			for i := 0; i < len(p); i += 4096 {
				if p[i] != byte(got+int64(i)) {
					t.Errorf("byte %d = %d", got+int64(i), p[i])
				}
			}
			got += int64(len(p))
			body.mu.Lock()
			most.Store(max(most.Load(), body.have-body.first))
			body.mu.Unlock()
		}
	}()
	if err := seat.Pump(io.LimitReader(&counting{}, size), nil); err != nil {
		t.Errorf("pump: %v", err)
	}
	if !<-done {
		t.Error("the reader did not get the whole")
	}
	seat.Leave()
	if n := most.Load(); n > windowSize+2*blockSize {
		t.Errorf("held up to %d bytes, want a window of %d", n, windowSize)
	}
	if got, _ := get(s, "a", ""); got != "" {
		t.Error("a body over max_object was stored")
	}
	if _, role := s.Join(s.want("a", lang(""), false)); role != Alone {
		t.Errorf("role after the fill = %v, want Alone", role)
	}
}

// counting gives bytes that tell their own offset.
type counting struct{ at int64 }

func (c *counting) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(c.at)
		c.at++
	}
	return len(p), nil
}

func TestStalledReaderIsCutAndHarmsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Options[string]{Memory: 64 << 20, MaxObject: 1 << 20, Stall: 10 * time.Second})
		const size = 20 << 20
		seat, _ := s.Join(s.want("a", lang(""), true))
		other, _ := s.Join(s.want("a", lang(""), true))
		seat.Resolve(&Object[string]{}, size, nil, true)
		stalled := other.Reader(0, -1)
		healthy := seat.Reader(0, -1)
		go seat.Pump(io.LimitReader(&counting{}, size), nil)
		if p, err := stalled.Next(t.Context()); err != nil || len(p) == 0 {
			t.Errorf("first bytes: %d, %v", len(p), err)
		}
		began := time.Now()
		if got, ok := readAll(healthy); !ok || len(got) != size {
			t.Errorf("the other reader got %d bytes, ok %v; want all", len(got), ok)
		}
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("the other reader waited %v, want the stall of 10s", took)
		}
		for err := error(nil); err == nil; {
			if _, err = stalled.Next(t.Context()); err == io.EOF {
				t.Error("the stalled reader was told that it got everything")
			}
		}
		stalled.Close()
		seat.Leave()
		other.Leave()
		if n := s.Usage().Stalled; n != 1 {
			t.Errorf("stalled readers counted = %d, want 1", n)
		}
		s.Close()
	})
}

func TestFillsAreChargedToTheBudget(t *testing.T) {
	s := open(t, Options[string]{Memory: 4 << 20, MaxObject: 4 << 20})
	for i := range 30 {
		put(s, fmt.Sprint(i), "", string(pattern(100<<10)))
	}
	seat, _ := s.Join(s.want("a", lang(""), true))
	seat.Resolve(&Object[string]{}, 3<<20, nil, true)
	go seat.Pump(io.LimitReader(&counting{}, 3<<20), nil)
	if got, ok := readAll(seat.Reader(0, -1)); !ok || len(got) != 3<<20 {
		t.Errorf("read %d bytes, ok %v", len(got), ok)
	}
	seat.Leave()
	s.wait.Wait()
	if u := s.Usage(); u.Young+u.Main+u.Filling > u.Memory || u.Filling != 0 {
		t.Errorf("usage = %+v, want it within the budget", u)
	}
}

func TestConcurrentUseKeepsTheTableAndTheBudget(t *testing.T) {
	s := open(t, Options[string]{Memory: 2 << 20, Variants: 3})
	var wait sync.WaitGroup
	for w := range 8 {
		wait.Go(func() {
			for i := range 2000 {
				key := fmt.Sprint((i * (w + 1)) % 61)
				ask := lang(fmt.Sprint(i % 5))
				switch i % 7 {
				case 0:
					s.Invalidate(s.Hash([]byte(key)), []byte(key), nil)
				case 1:
					s.Alone(s.Hash([]byte(key)), []byte(key), time.Now())
				case 2, 3:
					fillOnce(s, key, ask)
				default:
					want := key + ":" + string(ask)
					put(s, key, "language="+string(ask), want)
					if got, _ := get(s, key, ask); got != "" && got != want {
						t.Errorf("get(%s, %s) = %q, want %q", key, ask, got, want)
					}
				}
			}
		})
	}
	wait.Wait()
	u := s.Usage()
	if u.Fills != 0 || u.Filling != 0 || u.Abandoned != 0 || u.Young+u.Main > u.Memory {
		t.Errorf("usage = %+v, want nothing under way and within the budget", u)
	}
	objects := 0
	s.Each(func(*Object[string]) bool { objects++; return true })
	if objects > u.Objects {
		t.Errorf("%d objects in the table, the keeper knows %d", objects, u.Objects)
	}
}

func fillOnce(s *Store[string], key string, ask lang) {
	w := s.want(key, ask, true)
	w.Seen = s.Find(w.Hash, w.Key, ask).Object
	seat, role := s.Join(w)
	switch role {
	case Lead:
		seat.Resolve(&Object[string]{Selector: "language=" + string(ask)}, -1, []string{"accept-language"}, true)
		seat.Pump(strings.NewReader(key+":"+string(ask)), nil)
		seat.Leave()
	case Follow:
		seat.Leave()
	}
}

func BenchmarkFind(b *testing.B) {
	s := open(b, Options[string]{Memory: 256 << 20})
	keys := make([][]byte, 10000)
	for i := range keys {
		keys[i] = fmt.Appendf(nil, "http://example.com/some/path/of/usual/length/%d", i)
		put(s, string(keys[i]), "", "body")
	}
	var ask Asker[string] = lang("")
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			key := keys[i%len(keys)]
			if s.Find(s.Hash(key), key, ask).Object == nil {
				b.Error("not found")
			}
		}
	})
}
