package purge

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestRulesMatchWhatTheyName(t *testing.T) {
	tests := []struct {
		name string
		r    Request
		yes  []string
		no   []string
	}{
		{"url", Request{URLs: []string{"https://a.example/x?q=1"}},
			[]string{"https://a.example/x?q=1", "https://a.example:443/x?q=1"},
			[]string{"http://a.example/x?q=1", "https://a.example/x", "https://a.example/x?q=2", "https://a.example/x/y?q=1", "https://a.example:8443/x?q=1", "https://b.example/x?q=1"}},
		{"url of any query", Request{URLs: []string{"https://a.example/x?q=1"}, AnyQuery: true},
			[]string{"https://a.example/x?q=1", "https://a.example/x", "https://a.example/x?z"},
			[]string{"http://a.example/x", "https://a.example/x/", "https://a.example/"}},
		{"prefix of both schemes", Request{Prefixes: []string{"a.example/t"}},
			[]string{"http://a.example/t", "https://a.example/t/3", "http://a.example/t/3/4?q", "http://a.example/t/"},
			[]string{"http://a.example/tea", "http://a.example/", "http://b.example/t", "http://a.example:81/t", "http://a.example/a/t", "http://a.example//t"}},
		{"prefix with a slash behind", Request{Prefixes: []string{"a.example/t/"}},
			[]string{"http://a.example/t", "https://a.example/t/3"},
			[]string{"http://a.example/tea"}},
		{"prefix of one scheme", Request{Prefixes: []string{"https://a.example/t/u"}},
			[]string{"https://a.example/t/u", "https://a.example/t/u/v"},
			[]string{"http://a.example/t/u", "https://a.example/t", "https://a.example/t/uv"}},
		{"prefix that is a host", Request{Prefixes: []string{"a.example"}},
			[]string{"http://a.example/", "https://a.example/t/3", "https://a.example//"},
			[]string{"http://a.example:81/", "http://www.a.example/"}},
		{"prefix with an empty segment", Request{Prefixes: []string{"http://a.example/t//"}},
			[]string{"http://a.example/t//", "http://a.example/t//x", "http://a.example/t/"},
			[]string{"http://a.example/t", "http://a.example/t/x"}},
		{"prefix with a port", Request{Prefixes: []string{"a.example:443/t"}},
			[]string{"https://a.example/t", "http://a.example:443/t/1"},
			[]string{"http://a.example/t"}},
		{"host", Request{Hosts: []string{"A.example"}},
			[]string{"http://a.example/", "https://a.example/x", "http://a.example:8080/x", "http://a.example./"},
			[]string{"http://www.a.example/", "http://b.example/"}},
		{"host with port", Request{Hosts: []string{"a.example:80"}},
			[]string{"http://a.example/", "https://a.example:80/"},
			[]string{"https://a.example/", "http://a.example:8080/"}},
		{"host that is an address", Request{Hosts: []string{"[::1]"}},
			[]string{"http://[::1]/", "http://[::1]:8080/"},
			[]string{"http://[::2]/"}},
		{"everything", Request{Everything: true, Site: "s"}, []string{"http://a.example/"}, nil},
		{"everything of all", Request{Everything: true, Site: "*"}, []string{"http://a.example/"}, nil},
		{"everything of another", Request{Everything: true, Site: "z"}, nil, []string{"http://a.example/"}},
		{"tag", Request{Tags: []string{"red"}, Site: "s"}, []string{"http://a.example/"}, nil},
		{"tag with space around", Request{Tags: []string{" red "}, Site: "s"}, []string{"http://a.example/"}, nil},
		{"tag everywhere", Request{Tags: []string{"green"}, Site: "*"}, []string{"http://a.example/"}, nil},
		{"tag of another site", Request{Tags: []string{"red"}, Site: "z"}, nil, []string{"http://a.example/"}},
		{"tag of another case", Request{Tags: []string{"Red"}, Site: "s"}, nil, []string{"http://a.example/"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for _, soft := range []bool{false, true} {
				test.r.Soft = soft
				p := mustPrepare(t, test.r)
				rules := NewRules(0)
				when := time.Unix(100, 0)
				epoch := rules.Apply(p, when)
				check := func(url string, match bool) {
					s := subject(t, url, "red", "green")
					byViewer := subject(t, "https://other.example/", "red", "green")
					byViewer.Viewer = s.URL
					for _, s := range []*Subject{s, byViewer} {
						want, wantAt := Valid, time.Time{}
						if match && soft {
							want, wantAt = Soft, when
						} else if match {
							want = Gone
						}
						if got, at := rules.Judge(epoch-1, s); got != want || !at.Equal(wantAt) {
							t.Errorf("%s, soft %v: judged %v at %v, want %v at %v", url, soft, got, at, want, wantAt)
						}
						if got, _ := rules.Judge(epoch, s); got != Valid {
							t.Errorf("%s: judged %v at its own epoch, want Valid", url, got)
						}
						if got := p.Matches(s); got != match {
							t.Errorf("%s: Matches is %v, want %v", url, got, match)
						}
						if match && !rules.MayMatch(epoch-1, s) {
							t.Errorf("%s: MayMatch is false for what matches", url)
						}
					}
				}
				for _, url := range test.yes {
					check(url, true)
				}
				for _, url := range test.no {
					check(url, false)
				}
			}
		})
	}
}

func TestUntaggedFillIsTakenToMatchTagRules(t *testing.T) {
	tests := []struct {
		name string
		r    Request
		want bool
	}{
		{"tag of the site", Request{Tags: []string{"x"}, Site: "s"}, true},
		{"soft tag", Request{Tags: []string{"x"}, Site: "s", Soft: true}, true},
		{"tag of all", Request{Tags: []string{"x"}, Site: "*"}, true},
		{"tag of another site", Request{Tags: []string{"x"}, Site: "z"}, false},
		{"soft url", Request{URLs: []string{"http://a.example/x"}, Soft: true}, true},
		{"other url", Request{URLs: []string{"http://a.example/y"}}, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			rules := NewRules(0)
			epoch := rules.Apply(mustPrepare(t, test.r), time.Unix(1, 0))
			s := subject(t, "http://a.example/x")
			if got := rules.MayMatch(epoch-1, s); got != test.want {
				t.Errorf("%+v: MayMatch is %v, want %v", test.r, got, test.want)
			}
			if rules.MayMatch(epoch, s) {
				t.Errorf("%+v: MayMatch at its own epoch", test.r)
			}
		})
	}
}

func TestTouchesLooksAtTheURLAlone(t *testing.T) {
	rules := NewRules(0)
	rules.Apply(mustPrepare(t, Request{Tags: []string{"x"}, Site: "s"}), time.Unix(1, 0))
	u := subject(t, "http://a.example/x/y").URL
	if got, _ := rules.Touches(0, &u, "s"); got != Valid {
		t.Errorf("after a tag: %v, want Valid", got)
	}
	rules.Apply(mustPrepare(t, Request{Prefixes: []string{"a.example/x"}, Soft: true}), time.Unix(2, 0))
	if got, at := rules.Touches(0, &u, "s"); got != Soft || !at.Equal(time.Unix(2, 0)) {
		t.Errorf("after a soft prefix: %v at %v, want Soft at 2", got, at)
	}
	rules.Apply(mustPrepare(t, Request{Hosts: []string{"a.example"}}), time.Unix(3, 0))
	if got, _ := rules.Touches(0, &u, "s"); got != Gone {
		t.Errorf("after its host: %v, want Gone", got)
	}
	if got, _ := rules.Touches(3, &u, "s"); got != Valid {
		t.Errorf("at the last epoch: %v, want Valid", got)
	}
}

func TestEarliestSoftPurgeCounts(t *testing.T) {
	rules := NewRules(0)
	p := mustPrepare(t, Request{Tags: []string{"x"}, Site: "s", Soft: true})
	for i := range 3 * softMarks {
		rules.Apply(p, time.Unix(int64(i+1), 0))
	}
	s := subject(t, "http://a.example/", "x")
	for since := range uint64(3 * softMarks) {
		exact := time.Unix(int64(since+1), 0)
		got, at := rules.Judge(since, s)
		switch {
		case got != Soft, at.After(exact):
			t.Errorf("since %d: %v at %v, want Soft at or before %v", since, got, at, exact)
		case (since == 0 || since > 2*softMarks) && !at.Equal(exact):
			t.Errorf("since %d: at %v, want %v", since, at, exact)
		}
	}
}

func TestHardCountsMoreThanDoubtAndSoft(t *testing.T) {
	rules := NewRules(0)
	s := subject(t, "http://a.example/x", "x")
	steps := []struct {
		do   func()
		want Verdict
	}{
		{func() {
			rules.Apply(mustPrepare(t, Request{Tags: []string{"x"}, Site: "s", Soft: true}), time.Unix(1, 0))
		}, Soft},
		{func() { rules.Doubt(time.Unix(2, 0)) }, Doubtful},
		{func() { rules.Apply(mustPrepare(t, Request{URLs: []string{"http://a.example/x"}}), time.Unix(3, 0)) }, Gone},
		{func() {
			rules.Apply(mustPrepare(t, Request{URLs: []string{"http://a.example/x"}, Soft: true}), time.Unix(4, 0))
		}, Gone},
	}
	for i, step := range steps {
		step.do()
		if got, _ := rules.Judge(0, s); got != step.want {
			t.Errorf("step %d: %v, want %v", i, got, step.want)
		}
	}
	for since, want := range map[uint64]Verdict{1: Gone, 2: Gone, 3: Soft, 4: Valid} {
		if got, _ := rules.Judge(since, s); got != want {
			t.Errorf("since %d: %v, want %v", since, got, want)
		}
	}
}

func TestFullTableDoubtsAndNeverForgets(t *testing.T) {
	hosts := func(i int) string { return fmt.Sprintf("http://h%d.example/x", i) }
	paths := func(i int) string { return fmt.Sprintf("http://a.example/%d", i) }
	for name, url := range map[string]func(int) string{"one host": paths, "a host each": hosts} {
		t.Run(name, func(t *testing.T) {
			rules := NewRules(100)
			for i := range 1000 {
				rules.Apply(mustPrepare(t, Request{URLs: []string{url(i)}}), time.Unix(1, 0))
			}
			if n := rules.Len(); n > 100 {
				t.Errorf("%d rules are kept, limit 100", n)
			}
			for i := range 1000 {
				if got, _ := rules.Judge(uint64(i), subject(t, url(i))); got < Doubtful {
					t.Errorf("%s, purged at %d: %v", url(i), i+1, got)
				}
			}
			if got, _ := rules.Judge(999, subject(t, url(5))); got != Valid {
				t.Errorf("fetched before the last purge, of another URL: %v, want Valid", got)
			}
		})
	}
	t.Run("tags", func(t *testing.T) {
		rules := NewRules(100)
		rules.Apply(mustPrepare(t, Request{Hosts: []string{"z.example"}}), time.Unix(1, 0))
		for i := range 101 {
			rules.Apply(mustPrepare(t, Request{Tags: []string{fmt.Sprint(i)}, Site: "s"}), time.Unix(1, 0))
		}
		if got, _ := rules.Judge(1, subject(t, "http://a.example/", "never purged")); got != Doubtful {
			t.Errorf("tagged: %v, want Doubtful", got)
		}
		if got, _ := rules.Judge(1, subject(t, "http://a.example/")); got != Valid {
			t.Errorf("untagged: %v, want Valid: no tag rule can match it", got)
		}
		if got, _ := rules.Judge(0, subject(t, "http://z.example/")); got != Gone {
			t.Errorf("purged by host: %v, want Gone", got)
		}
	})
}

func TestForgetKeepsWhatIsNewer(t *testing.T) {
	rules := NewRules(0)
	p := mustPrepare(t, Request{URLs: []string{"http://a.example/x"}})
	rules.Apply(p, time.Unix(1, 0))
	rules.Apply(mustPrepare(t, Request{Tags: []string{"x"}, Site: "s"}), time.Unix(2, 0))
	rules.Doubt(time.Unix(3, 0))
	rules.Forget(1)
	if got := rules.Len(); got != 1 {
		t.Errorf("%d rules after Forget(1), want 1", got)
	}
	if got, _ := rules.Judge(1, subject(t, "http://a.example/y", "x")); got != Gone {
		t.Errorf("tagged: %v, want Gone", got)
	}
	if got, _ := rules.Judge(2, subject(t, "http://a.example/y")); got != Doubtful {
		t.Errorf("older than the doubt: %v, want Doubtful", got)
	}
	rules.Forget(3)
	if got := rules.Len(); got != 0 || rules.Epoch() != 3 {
		t.Errorf("after Forget(3): %d rules, epoch %d, want 0 and 3", got, rules.Epoch())
	}
	if got := rules.Apply(p, time.Unix(4, 0)); got != 4 {
		t.Errorf("next epoch %d, want 4", got)
	}
}

// Each reader must see every rule whose Apply returned before it started,
// while the table grows, coarsens and forgets.
func TestReadersSeeWhatWasAppliedBefore(t *testing.T) {
	const n = 3000
	for _, limit := range []int{0, 200} {
		rules := NewRules(limit)
		var applied atomic.Int64
		var subjects []*Subject
		for i := range n {
			subjects = append(subjects, subject(t, fmt.Sprintf("http://h%d.example/a/%d", i%50, i), fmt.Sprint(i)))
		}
		var readers sync.WaitGroup
		for range 3 {
			readers.Go(func() {
				for x := 1; applied.Load() < n; x = x*31 + 7 {
					upTo := applied.Load()
					if upTo == 0 {
						continue
					}
					i := int64(uint(x) % uint(upTo))
					if got, _ := rules.Judge(uint64(i), subjects[i]); got < Doubtful {
						t.Errorf("limit %d: rule %d of %d applied is not seen: %v", limit, i, upTo, got)
						return
					}
				}
			})
		}
		for i := range n {
			r := Request{Site: "s", Tags: []string{fmt.Sprint(i)}}
			switch i % 3 {
			case 1:
				r = Request{URLs: []string{fmt.Sprintf("http://h%d.example/a/%d", i%50, i)}}
			case 2:
				r = Request{Prefixes: []string{fmt.Sprintf("h%d.example/a/%d/", i%50, i)}}
			}
			rules.Apply(mustPrepare(t, r), time.Unix(1, 0))
			applied.Store(int64(i + 1))
			if i%500 == 499 {
				rules.Forget(0)
			}
		}
		readers.Wait()
	}
}

func TestJudgeAllocatesNothing(t *testing.T) {
	rules := mixedRules(t, 1000)
	s := subject(t, "http://h1.example/one/two/three/four", "t1", "t2", "t3")
	s.Viewer = subject(t, "http://h2.example/one/two").URL
	if n := testing.AllocsPerRun(100, func() { rules.Judge(0, s); rules.MayMatch(0, s) }); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

// A path of slashes alone must not cost a look-up for each where no rule is so
// deep.
func TestPrefixesAreWalkedAsDeepAsRulesGo(t *testing.T) {
	rules := NewRules(0)
	rules.Apply(mustPrepare(t, Request{Prefixes: []string{"a.example/x/y"}}), time.Unix(1, 0))
	s := rules.table.Load().find(rules.hasher.words(kindHostSum, "a.example"), kindHostSum, "a.example", "", "", "")
	if s == nil || s.depth != 2 {
		t.Errorf("sum of the host: %+v, want depth 2", s)
	}
}

// Long names weigh more: the limit is of memory too.
func TestLongNamesFillTheTableSooner(t *testing.T) {
	long := strings.Repeat("x", 10*heavy)
	url := func(i int) string { return fmt.Sprintf("http://a.example/%d%s", i, long) }
	rules := NewRules(100)
	for i := range 50 {
		rules.Apply(mustPrepare(t, Request{URLs: []string{url(i)}}), time.Unix(1, 0))
		if n := rules.Len(); n > 100/10 {
			t.Fatalf("%d rules of %d bytes each are kept, limit 100 of %d", n, len(url(0)), heavy)
		}
	}
	for i := range 50 {
		if got, _ := rules.Judge(uint64(i), subject(t, url(i))); got < Doubtful {
			t.Errorf("%d, purged at %d: %v, want Doubtful at least", i, i+1, got)
		}
	}
	p := mustPrepare(t, Request{URLs: []string{url(1), url(2)}})
	if !p.Matches(subject(t, url(2))) || p.Matches(subject(t, url(3))) {
		t.Error("Matches tells long URLs of one host not apart")
	}
	rules.Forget(50)
	if rules.Len() != 0 || rules.weight != 0 {
		t.Errorf("%d rules of weight %d after all are forgotten, want 0 and 0", rules.Len(), rules.weight)
	}
}
