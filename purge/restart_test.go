package purge

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestRestartReplaysFromTheLowWaterMark(t *testing.T) {
	dir := t.TempDir()
	l, _, _ := open(t, dir)
	var receipts []Receipt
	for i := range 10 {
		receipts = append(receipts, mustPurge(t, l, tag(fmt.Sprint(i)), ""))
	}
	low := receipts[4].Epoch
	if err := l.Swept(low); err != nil {
		t.Fatal(err)
	}
	l.Close()
	called := false
	l, rules, said := open(t, dir, func(o *Options) { o.Applied = func(Receipt, *Prepared) { called = true } })
	if called {
		t.Error("Applied was called for what was replayed")
	}
	if said.String() != "" {
		t.Errorf("an orderly restart said: %s", said)
	}
	for i, r := range receipts {
		s := subject(t, "http://a.example/", fmt.Sprint(i))
		want := Gone
		if r.Epoch <= low {
			want = Valid
		}
		if got, _ := rules.Judge(max(low, r.Epoch-1), s); got != want {
			t.Errorf("purge at %d, low %d: %v after the restart, want %v", r.Epoch, low, got, want)
		}
		if got, _ := rules.Judge(r.Epoch, s); got == Gone {
			t.Errorf("purge at %d has a later epoch after the restart", r.Epoch)
		}
		if got, ok := l.Get(r.ID); !ok || got.Epoch != r.Epoch || got.Position != r.Position {
			t.Errorf("receipt after the restart %+v, want %+v", got, r)
		}
	}
	if rules.Len() != 5 || rules.Epoch() != receipts[9].Epoch || l.Position() != 10 {
		t.Errorf("%d rules at epoch %d, position %d, want 5, %d, 10", rules.Len(), rules.Epoch(), l.Position(), receipts[9].Epoch)
	}
	if next := mustPurge(t, l, tag("x"), ""); next.Epoch != receipts[9].Epoch+1 {
		t.Errorf("next epoch %d, want %d", next.Epoch, receipts[9].Epoch+1)
	}
}

func TestLocalEpochsAreNotGivenAgain(t *testing.T) {
	dir := t.TempDir()
	l, rules, _ := open(t, dir)
	first := mustPurge(t, l, tag("x"), "")
	doubt := rules.Doubt(time.Now())
	local := rules.Apply(mustPrepare(t, tag("local")), time.Now())
	l.Close()
	l, rules, _ = open(t, dir)
	if rules.Epoch() != local {
		t.Errorf("epoch %d after the restart, want %d", rules.Epoch(), local)
	}
	second := mustPurge(t, l, tag("x"), "")
	if !(first.Epoch < doubt && doubt < local && local < second.Epoch) {
		t.Errorf("epochs %d, %d, %d, %d, want growing ones", first.Epoch, doubt, local, second.Epoch)
	}
	l.Close()
	l, rules, _ = open(t, dir)
	s := subject(t, "http://a.example/", "x")
	for since, want := range map[uint64]Verdict{first.Epoch - 1: Gone, local: Gone, second.Epoch: Valid} {
		if got, _ := rules.Judge(since, s); got != want {
			t.Errorf("since %d: %v, want %v", since, got, want)
		}
	}
	if got, _ := rules.Judge(first.Epoch, subject(t, "http://a.example/")); got != Doubtful {
		t.Errorf("before the doubt: %v, want Doubtful also after two restarts", got)
	}
	if err := l.Swept(doubt); err != nil {
		t.Fatal(err)
	}
	l.Close()
	_, rules, _ = open(t, dir)
	if got, _ := rules.Judge(doubt, subject(t, "http://a.example/")); got != Valid {
		t.Errorf("after the sweep passed the doubt: %v, want Valid", got)
	}
}

// The place that comes next has an epoch coming that was given to a doubt
// meanwhile: a sweep past that must not hide the purge.
func TestPurgeAfterASweptDoubtIsApplied(t *testing.T) {
	dir := t.TempDir()
	l, rules, _ := open(t, dir)
	mustPurge(t, l, tag("x"), "")
	doubt := rules.Doubt(time.Now())
	if err := l.Swept(doubt); err != nil {
		t.Fatal(err)
	}
	r := mustPurge(t, l, tag("y"), "")
	s := subject(t, "http://a.example/", "y")
	if got, _ := rules.Judge(doubt, s); got != Gone || r.Epoch <= doubt {
		t.Errorf("%v at epoch %d, want Gone, later than %d", got, r.Epoch, doubt)
	}
	l.Close()
	_, rules, _ = open(t, dir)
	if got, _ := rules.Judge(doubt, s); got != Gone {
		t.Errorf("after a restart: %v, want Gone", got)
	}
}

func TestNormalFormsOutliveTheConfiguration(t *testing.T) {
	dir := t.TempDir()
	l, _, _ := open(t, dir)
	r := mustPurge(t, l, Request{URLs: []string{"http://a.example/x"}, Prefixes: []string{"a.example/p"}}, "")
	l.Close()
	other := func(o *Options) {
		o.Normal = func(raw string) ([]URL, error) {
			if strings.HasPrefix(raw, "https") {
				return nil, errors.New("is of no site now")
			}
			u, err := plain(raw)
			u[0].Host = "new.example"
			return u, err
		}
	}
	_, rules, said := open(t, dir, other)
	for _, url := range []string{"http://a.example/x", "http://new.example/x", "https://a.example/p/1", "http://new.example/p"} {
		if got, _ := rules.Judge(r.Epoch-1, subject(t, url)); got != Gone {
			t.Errorf("%s: %v, want Gone", url, got)
		}
	}
	if said.String() != "" {
		t.Errorf("said: %s", said)
	}
}

func TestSweptTrimsButKeepsWhatAnswersNeed(t *testing.T) {
	dir := t.TempDir()
	l, rules, _ := open(t, dir)
	for i := range receiptsKept + 50 {
		mustPurge(t, l, tag(fmt.Sprint(i)), "")
	}
	if err := l.Swept(rules.Epoch() + 1000); err != nil {
		t.Fatal(err)
	}
	s, err := l.theBus().state(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if s.first != 51 || s.last != receiptsKept+50 {
		t.Errorf("the stream has %d to %d, want 51 to %d", s.first, s.last, receiptsKept+50)
	}
	l.Close()
	l, again, said := open(t, dir)
	if n := len(l.Recent(1 << 20)); n != receiptsKept || again.Len() != 0 || again.Epoch() != rules.Epoch() {
		t.Errorf("%d receipts, %d rules, epoch %d, want %d, 0, %d", n, again.Len(), again.Epoch(), receiptsKept, rules.Epoch())
	}
	if said.String() != "" {
		t.Errorf("said: %s", said)
	}
}

// damage is what befalls a folder between two runs.
type damage struct {
	name string
	do   func(t *testing.T, dir string)
	says string
}

func overwrite(t *testing.T, pattern string, change func([]byte) []byte) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no file is %s (%v)", pattern, err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f, change(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func remove(t *testing.T, paths ...string) {
	t.Helper()
	for _, p := range paths {
		if err := os.RemoveAll(p); err != nil {
			t.Fatal(err)
		}
	}
}

func damages() []damage {
	half := func(b []byte) []byte { return b[:len(b)/2] }
	garbage := func(b []byte) []byte {
		for i := range b {
			b[i] = byte(i*7 + 1)
		}
		return b
	}
	block := func(change func([]byte) []byte) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			overwrite(t, filepath.Join(dir, streamFiles, "msgs", "*.blk"), change)
			remove(t, filepath.Join(dir, streamFiles, "msgs", "index.db"))
		}
	}
	return []damage{
		{"stream removed", func(t *testing.T, dir string) { remove(t, filepath.Join(dir, streamFolder)) }, "not the one of before"},
		{"folder removed", func(t *testing.T, dir string) {
			remove(t, filepath.Join(dir, streamFolder), filepath.Join(dir, stateName))
		}, ""},
		{"state removed", func(t *testing.T, dir string) { remove(t, filepath.Join(dir, stateName)) }, "not the one of before"},
		{"state cut", func(t *testing.T, dir string) { overwrite(t, filepath.Join(dir, stateName), half) }, "state is damaged"},
		{"state changed", func(t *testing.T, dir string) {
			overwrite(t, filepath.Join(dir, stateName), func(b []byte) []byte {
				return []byte(strings.Replace(string(b), `"applied":`, `"applied":1`, 1))
			})
		}, "state is damaged"},
		{"state empty", func(t *testing.T, dir string) {
			overwrite(t, filepath.Join(dir, stateName), func([]byte) []byte { return nil })
		}, "state is damaged"},
		{"messages cut", block(half), "lost messages"},
		{"messages garbage", block(garbage), "lost messages"},
		{"messages empty", block(func([]byte) []byte { return nil }), "lost messages"},
		{"messages and index garbage", func(t *testing.T, dir string) {
			overwrite(t, filepath.Join(dir, streamFiles, "msgs", "*"), garbage)
		}, "lost messages"},
		{"stream's description garbage", func(t *testing.T, dir string) {
			overwrite(t, filepath.Join(dir, streamFiles, "meta.*"), garbage)
		}, "validated before use"},
		{"stream's description cut", func(t *testing.T, dir string) {
			overwrite(t, filepath.Join(dir, streamFiles, "meta.inf"), half)
		}, "validated before use"},
		{"stream is a file", func(t *testing.T, dir string) {
			remove(t, filepath.Join(dir, streamFolder))
			if err := os.WriteFile(filepath.Join(dir, streamFolder), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "a new one begins"},
	}
}

func TestDamagePutsEverythingOlderInDoubt(t *testing.T) {
	for _, d := range damages() {
		t.Run(d.name, func(t *testing.T) {
			dir := t.TempDir()
			l, _, _ := open(t, dir)
			var last Receipt
			for i := range 20 {
				last = mustPurge(t, l, tag(fmt.Sprint("tag-", i)), "")
			}
			l.Close()
			d.do(t, dir)
			l, rules, said := open(t, dir)
			if !said.has(d.says) || d.says != "" && !said.has("level=ERROR") {
				t.Errorf("said %q, want an error with %q", said, d.says)
			}
			old := subject(t, "http://a.example/", "never purged")
			if got, _ := rules.Judge(last.Epoch, old); got != Doubtful {
				t.Errorf("stored at %d before the damage: %v, want Doubtful", last.Epoch, got)
			}
			if got, _ := rules.Judge(rules.Epoch(), old); got != Valid {
				t.Errorf("stored after it: %v, want Valid", got)
			}
			next := mustPurge(t, l, tag("next"), "")
			if next.Epoch <= last.Epoch {
				t.Errorf("epoch %d after %d", next.Epoch, last.Epoch)
			}
			l.Close()
			_, again, _ := open(t, dir)
			if got, _ := again.Judge(last.Epoch, old); got != Doubtful {
				t.Errorf("after one more restart: %v, want Doubtful", got)
			}
			if got, _ := again.Judge(next.Epoch-1, subject(t, "http://a.example/", "next")); got != Gone {
				t.Errorf("the purge after the damage: %v after one more restart, want Gone", got)
			}
			if got, _ := again.Judge(next.Epoch, old); got != Valid {
				t.Errorf("stored after that purge: %v, want Valid", got)
			}
		})
	}
}

func TestGapsPutEverythingOlderInDoubt(t *testing.T) {
	ctx := context.Background()
	tests := []struct {
		name string
		do   func(t *testing.T, l *Log, e *embedded)
		says string
		// before is how many of ten purges the doubt is later than.
		before int
	}{
		{"the first discarded", func(t *testing.T, l *Log, e *embedded) {
			if err := e.trim(ctx, 5); err != nil {
				t.Fatal(err)
			}
		}, "begins too late", 4},
		{"all discarded", func(t *testing.T, l *Log, e *embedded) {
			if err := e.trim(ctx, 11); err != nil {
				t.Fatal(err)
			}
		}, "begins too late", 10},
		{"one in the middle deleted", func(t *testing.T, l *Log, e *embedded) {
			if err := e.stream.DeleteMsg(ctx, 4); err != nil {
				t.Fatal(err)
			}
		}, "are missing", 4},
		{"one that cannot be read", func(t *testing.T, l *Log, e *embedded) {
			if _, _, err := e.publish(ctx, "x", []byte("{")); err != nil {
				t.Fatal(err)
			}
		}, "cannot be read", 10},
		{"one of a later version", func(t *testing.T, l *Log, e *embedded) {
			if _, _, err := e.publish(ctx, "x", []byte(`{"v":2,"id":"x","request":{"tags":["a"]}}`)); err != nil {
				t.Fatal(err)
			}
		}, "cannot be read", 10},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			l, _, _ := open(t, dir)
			var receipts []Receipt
			for i := range 10 {
				receipts = append(receipts, mustPurge(t, l, tag(fmt.Sprint(i)), ""))
			}
			test.do(t, l, l.theBus().(*embedded))
			l.Close()
			l, rules, said := open(t, dir)
			if !said.has(test.says) {
				t.Errorf("said %q, want %q", said, test.says)
			}
			for i, r := range receipts {
				want := Valid
				if i < test.before {
					want = Doubtful
				}
				if got, _ := rules.Judge(r.Epoch-1, subject(t, "http://a.example/", "never purged")); got != want {
					t.Errorf("stored before purge %d: %v, want %v", i, got, want)
				}
			}
			if next := mustPurge(t, l, tag("x"), ""); next.Epoch <= receipts[9].Epoch {
				t.Errorf("next epoch %d after %d", next.Epoch, receipts[9].Epoch)
			}
		})
	}
}

func TestBookFindsEpochsAndPlaces(t *testing.T) {
	b := book{Spans: []span{{1, 101}, {11, 201}, {21, 301}}}
	for seq, want := range map[uint64]uint64{0: 0, 1: 101, 10: 110, 11: 201, 20: 210, 21: 301, 1000: 1280} {
		if got := b.epoch(seq); got != want {
			t.Errorf("epoch(%d) = %d, want %d", seq, got, want)
		}
	}
	for low, want := range map[uint64]uint64{0: 0, 100: 0, 101: 1, 110: 10, 150: 10, 201: 11, 300: 20, 301: 21, 400: 120} {
		b.Low = low
		if got := b.lowSeq(); got != want {
			t.Errorf("lowSeq at %d = %d, want %d", low, got, want)
		}
	}
	b.prune(11)
	if len(b.Spans) != 2 || b.epoch(11) != 201 {
		t.Errorf("after prune(11): %+v", b.Spans)
	}
	b.begin(15, 500)
	if b.epoch(14) != 204 || b.epoch(15) != 500 || b.epoch(30) != 515 {
		t.Errorf("after begin(15, 500): %+v", b.Spans)
	}
}

// A crash right after the receipt finds the epoch that the receipt has.
func TestMovedEpochIsDurableBeforeTheReceipt(t *testing.T) {
	dir := t.TempDir()
	l, rules, _ := open(t, dir)
	for range 20 {
		rules.Doubt(time.Now())
		r := mustPurge(t, l, tag("x"), "")
		b, err := readBook(dir)
		if err != nil {
			t.Fatal(err)
		}
		if got := b.epoch(r.Position); got != r.Epoch {
			t.Fatalf("place %d has epoch %d on disk, %d in the receipt", r.Position, got, r.Epoch)
		}
	}
}
