package purge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// open opens a log that the test closes; its words go to said.
func open(t testing.TB, dir string, change ...func(*Options)) (*Log, *Rules, *words) {
	t.Helper()
	said := &words{}
	o := Options{Dir: dir, Node: "n1", Rules: NewRules(0), Normal: plain, Log: slog.New(slog.NewTextHandler(said, nil))}
	for _, f := range change {
		f(&o)
	}
	l, err := Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, o.Rules, said
}

// words is what a log said.
type words struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (w *words) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func (w *words) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

func (w *words) has(s string) bool { return bytes.Contains([]byte(w.String()), []byte(s)) }

func mustPurge(t testing.TB, l *Log, r Request, key string) Receipt {
	t.Helper()
	receipt, err := l.Purge(context.Background(), r, key)
	if err != nil {
		t.Fatalf("Purge(%+v): %v", r, err)
	}
	return receipt
}

func tag(tags ...string) Request { return Request{Site: "s", Tags: tags} }

// eachBus runs a test on the bus in memory and on that on disk.
func eachBus(t *testing.T, f func(t *testing.T, dir string)) {
	t.Run("memory", func(t *testing.T) { f(t, "") })
	t.Run("disk", func(t *testing.T) { f(t, t.TempDir()) })
}

func TestPurgeIsAppliedWhenItReturns(t *testing.T) {
	eachBus(t, func(t *testing.T, dir string) {
		var told []Receipt
		l, rules, _ := open(t, dir, func(o *Options) {
			o.Applied = func(r Receipt, p *Prepared) {
				if p.Matches(subject(t, "http://a.example/", "x")) {
					told = append(told, r)
				}
			}
		})
		s := subject(t, "http://a.example/", "x")
		since := rules.Epoch()
		begin := time.Now()
		r := mustPurge(t, l, tag("x"), "")
		if got, _ := rules.Judge(since, s); got != Gone {
			t.Errorf("after the purge: %v, want Gone", got)
		}
		if r.Epoch != since+1 || r.Position != 1 || r.Node != "n1" || r.ID == "" || r.Repeated || !slices.Equal(r.Request.Tags, []string{"x"}) {
			t.Errorf("receipt %+v, want epoch %d, position 1", r, since+1)
		}
		if r.AcceptedAt.Before(begin.Add(-time.Second)) || r.AppliedAt.Before(r.AcceptedAt) {
			t.Errorf("accepted %v, applied %v, begun %v", r.AcceptedAt, r.AppliedAt, begin)
		}
		second := mustPurge(t, l, Request{URLs: []string{"http://b.example/"}}, "")
		if second.Epoch != r.Epoch+1 || second.Position != 2 || second.ID == r.ID {
			t.Errorf("second receipt %+v after %+v", second, r)
		}
		if len(told) != 1 || told[0].ID != r.ID {
			t.Errorf("Applied was told %+v, want one of %s", told, r.ID)
		}
		if got, ok := l.Get(r.ID); !ok || got.Epoch != r.Epoch {
			t.Errorf("Get(%s): %+v, %v", r.ID, got, ok)
		}
		if got := l.Recent(9); len(got) != 2 || got[0].ID != second.ID {
			t.Errorf("Recent: %+v, want the second, the first", got)
		}
		if l.Position() != 2 || l.Healthy() != nil {
			t.Errorf("position %d, healthy %v, want 2 and nil", l.Position(), l.Healthy())
		}
	})
}

func TestFirstEpochInMemoryIsOne(t *testing.T) {
	l, rules, _ := open(t, "")
	if r := mustPurge(t, l, tag("x"), ""); r.Epoch != 1 || rules.Epoch() != 1 {
		t.Errorf("first epoch %d, rules at %d, want 1", r.Epoch, rules.Epoch())
	}
	if got := rules.Doubt(time.Now()); got != 2 {
		t.Errorf("Doubt gave %d, want 2", got)
	}
	if r := mustPurge(t, l, tag("y"), ""); r.Epoch != 3 {
		t.Errorf("epoch %d after a doubt at 2, want 3", r.Epoch)
	}
}

func TestInvalidPurgeDoesNothing(t *testing.T) {
	eachBus(t, func(t *testing.T, dir string) {
		l, rules, _ := open(t, dir)
		before := rules.Epoch()
		_, err := l.Purge(context.Background(), Request{URLs: []string{"x"}, Tags: []string{"ok", ""}}, "key")
		var invalid *InvalidError
		if !errors.As(err, &invalid) || len(invalid.Fields) != 2 || invalid.Fields[1].Field != "tags[1]" {
			t.Fatalf("got %v, want two fields at fault", err)
		}
		if rules.Epoch() != before || l.Position() != 0 {
			t.Errorf("epoch %d, position %d after it, want %d and 0", rules.Epoch(), l.Position(), before)
		}
		mustPurge(t, l, tag("ok"), "key") // the key is not used up
	})
}

func TestSameKeyPurgesOnce(t *testing.T) {
	eachBus(t, func(t *testing.T, dir string) {
		l, rules, _ := open(t, dir)
		key := "a key\r\nwith: what no header may have"
		first := mustPurge(t, l, tag("x"), key)
		check := func(l *Log) {
			t.Helper()
			before := l.Position()
			again := mustPurge(t, l, tag("x"), key)
			if !again.Repeated || again.ID != first.ID || again.Epoch != first.Epoch || !again.AcceptedAt.Equal(first.AcceptedAt) || len(again.Request.Tags) != 1 {
				t.Errorf("repeated: %+v, first %+v", again, first)
			}
			var conflict *IdempotencyError
			if _, err := l.Purge(context.Background(), tag("y"), key); !errors.As(err, &conflict) || conflict.ID != first.ID {
				t.Errorf("the key for another request: %v, want a conflict with %s", err, first.ID)
			}
			if l.Position() != before {
				t.Errorf("position went from %d to %d", before, l.Position())
			}
		}
		check(l)
		if other := mustPurge(t, l, tag("x"), "other key"); other.Repeated || other.ID == first.ID {
			t.Errorf("another key: %+v", other)
		}
		if dir == "" {
			return
		}
		low := rules.Epoch()
		if err := l.Swept(low); err != nil {
			t.Fatal(err)
		}
		l.Close()
		l, _, _ = open(t, dir)
		check(l)
	})
}

// The stream tells the second of two at once that it is one; our own memory
// knows of neither yet.
func TestSameKeyAtOncePurgesOnce(t *testing.T) {
	eachBus(t, func(t *testing.T, dir string) {
		l, _, _ := open(t, dir)
		var all sync.WaitGroup
		receipts := make([]Receipt, 20)
		for i := range receipts {
			all.Go(func() {
				var err error
				if receipts[i], err = l.Purge(context.Background(), tag("x"), "key"); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		firsts := 0
		for _, r := range receipts {
			if r.ID != receipts[0].ID {
				t.Errorf("ids %s and %s under one key", r.ID, receipts[0].ID)
			}
			if !r.Repeated {
				firsts++
			}
		}
		if firsts != 1 || l.Position() != 1 {
			t.Errorf("%d not repeated, position %d, want 1 and 1", firsts, l.Position())
		}
	})
}

func TestKeyIsFreeAfterADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _, _ := open(t, "")
		first := mustPurge(t, l, tag("x"), "key")
		time.Sleep(23 * time.Hour)
		if r := mustPurge(t, l, tag("x"), "key"); r.ID != first.ID {
			t.Errorf("after 23 h: a new purge")
		}
		time.Sleep(time.Hour)
		if r := mustPurge(t, l, tag("y"), "key"); r.ID == first.ID {
			t.Errorf("after 24 h: still the first")
		}
		l.Close()
	})
}

func TestPurgesAtOnceAreAllApplied(t *testing.T) {
	eachBus(t, func(t *testing.T, dir string) {
		l, rules, _ := open(t, dir)
		var all sync.WaitGroup
		var mu sync.Mutex
		epochs := map[uint64]bool{}
		for i := range 100 {
			all.Go(func() {
				name := fmt.Sprint(i)
				r, err := l.Purge(context.Background(), tag(name), "")
				if err != nil {
					t.Error(err)
					return
				}
				if got, _ := rules.Judge(r.Epoch-1, subject(t, "http://a.example/", name)); got != Gone {
					t.Errorf("%s at %d: %v after its receipt", name, r.Epoch, got)
				}
				mu.Lock()
				defer mu.Unlock()
				epochs[r.Epoch] = true
			})
		}
		all.Wait()
		if len(epochs) != 100 {
			t.Errorf("%d epochs for 100 purges", len(epochs))
		}
	})
}

func TestClosedLogPurgesNothing(t *testing.T) {
	eachBus(t, func(t *testing.T, dir string) {
		l, _, _ := open(t, dir)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Purge(context.Background(), tag("x"), ""); !errors.Is(err, ErrClosed) {
			t.Errorf("Purge: %v, want ErrClosed", err)
		}
		if err := l.Healthy(); !errors.Is(err, ErrClosed) {
			t.Errorf("Healthy: %v, want ErrClosed", err)
		}
		if err := l.Close(); err != nil {
			t.Errorf("second Close: %v", err)
		}
	})
}

func TestCancelledPurgeReturns(t *testing.T) {
	eachBus(t, func(t *testing.T, dir string) {
		l, _, _ := open(t, dir)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_, err := l.Purge(ctx, tag("x"), "")
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want none or Canceled", err)
		}
		if l.Healthy() != nil {
			t.Errorf("a client that went away is no fault of the log: %v", l.Healthy())
		}
		mustPurge(t, l, tag("y"), "")
	})
}

func TestReceiptsAreBounded(t *testing.T) {
	l, _, _ := open(t, "")
	var first Receipt
	for i := range receiptsKept + 10 {
		r := mustPurge(t, l, tag("x"), "")
		if i == 0 {
			first = r
		}
	}
	if got := len(l.Recent(1 << 30)); got != receiptsKept {
		t.Errorf("%d receipts, want %d", got, receiptsKept)
	}
	if _, ok := l.Get(first.ID); ok {
		t.Error("the first is still there")
	}
	if got := len(l.Recent(-1)); got != 0 {
		t.Errorf("Recent(-1) has %d", got)
	}
	h := newHistory()
	big := Request{Tags: []string{string(make([]byte, receiptBytesKept/2))}}
	for i := range 5 {
		h.add(Receipt{ID: fmt.Sprint(i), Request: big}, nil, digest{})
	}
	if len(h.receipts) != 1 || len(h.byID) != 1 || h.bytes > receiptBytesKept {
		t.Errorf("%d big receipts of %d bytes are kept, want 1", len(h.receipts), h.bytes)
	}
}

func TestMemoryBusLetsGo(t *testing.T) {
	l, _, _ := open(t, "")
	for range 3 * memoryKept {
		mustPurge(t, l, tag("x"), "")
	}
	m := l.theBus().(*memory)
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.kept) > 2*memoryKept+1 || len(m.ids) != len(m.kept) {
		t.Errorf("%d messages and %d ids are kept", len(m.kept), len(m.ids))
	}
}

// A key that is used anew, after its day, is the newest: the purges of other
// keys must stay in the stream for as long as those count.
func TestKeyUsedAnewHidesNoOlderOne(t *testing.T) {
	h := newHistory()
	begin := time.Unix(1e9, 0)
	for i, u := range []struct {
		key  byte
		hour time.Duration
	}{{1, 0}, {2, 10}, {1, 25}} {
		at := begin.Add(u.hour * time.Hour)
		h.add(Receipt{ID: fmt.Sprint(i), AcceptedAt: at, Position: uint64(i + 1)}, &digest{u.key}, digest{})
	}
	h.receipts = nil // of many other purges since
	if got := h.oldest(100); got != 2 {
		t.Errorf("the stream is kept from place %d, want 2: the second key counts still", got)
	}
}

// Names within their bounds can make a message that no bus takes: that is the
// request's fault, and not the bus's.
func TestPurgeTooLongForTheLogIsInvalid(t *testing.T) {
	eachBus(t, func(t *testing.T, dir string) {
		l, rules, _ := open(t, dir)
		before := rules.Epoch()
		r := Request{Tags: []string{"x"}, Site: "s"}
		for i := range 127 { // two schemes each, and two bytes for each quotation mark
			r.Prefixes = append(r.Prefixes, fmt.Sprint("a.example/", i, strings.Repeat("\"", MaxURLBytes-20)))
		}
		_, err := l.Purge(context.Background(), r, "")
		var invalid *InvalidError
		if !errors.As(err, &invalid) || invalid.Fields[0].Field != "prefixes" {
			t.Errorf("got %v, want an error of prefixes", err)
		}
		if err := l.Healthy(); err != nil || rules.Epoch() != before {
			t.Errorf("healthy %v, epoch %d, want nil and %d", err, rules.Epoch(), before)
		}
		r.Prefixes = r.Prefixes[:60]
		mustPurge(t, l, r, "")
	})
}

// repeating is a bus that tells of a message written twice by itself.
type repeating struct{ bus }

func (r repeating) publish(ctx context.Context, id string, data []byte) (uint64, bool, error) {
	seq, _, err := r.bus.publish(ctx, id, data)
	return seq, true, err
}

func TestRepeatedMessageWithoutKeyIsItsOwn(t *testing.T) {
	l, rules, _ := open(t, "")
	l.mu.Lock()
	l.bus = repeating{l.bus}
	l.mu.Unlock()
	receipt := mustPurge(t, l, tag("x"), "")
	if got, _ := rules.Judge(receipt.Epoch-1, subject(t, "http://a.example/", "x")); got != Gone || receipt.Repeated {
		t.Errorf("%v, repeated %v, want Gone and false", got, receipt.Repeated)
	}
}
