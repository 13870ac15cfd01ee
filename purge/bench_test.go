package purge

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// mixedRules returns n live rules of all kinds over 100 hosts.
func mixedRules(t testing.TB, n int) *Rules {
	rules := NewRules(0)
	for i := range n {
		host := fmt.Sprintf("h%d.example", i%100)
		r := Request{Site: "s"}
		switch i % 10 {
		case 0, 1, 2:
			r.URLs = []string{fmt.Sprintf("http://%s/p/%d", host, i)}
		case 3, 4:
			r.Prefixes = []string{fmt.Sprintf("http://%s/one/two/%d/", host, i)}
		case 5, 6, 7:
			r.Tags = []string{fmt.Sprintf("tag-%d", i)}
		case 8:
			r.URLs, r.AnyQuery = []string{fmt.Sprintf("http://%s/q/%d", host, i)}, true
		case 9:
			r.Hosts = []string{fmt.Sprintf("gone%d.example", i)}
		}
		rules.Apply(mustPrepare(t, r), time.Unix(1, 0))
	}
	return rules
}

func BenchmarkEpoch(b *testing.B) {
	rules := mixedRules(b, 10_000)
	s := subject(b, "http://h1.example/one/two/three/four", "news", "sport", "front")
	since := rules.Epoch()
	b.ReportAllocs()
	for b.Loop() {
		if v, _ := rules.Judge(since, s); v != Valid {
			b.Fatal(v)
		}
	}
}

func BenchmarkJudgeFirst(b *testing.B) {
	rules := mixedRules(b, 10_000)
	for _, c := range []struct{ name, url string }{
		{"HostWithRules", "http://h1.example/one/two/three/four"},
		{"HostWithout", "http://quiet.example/one/two/three/four"},
	} {
		b.Run(c.name, func(b *testing.B) {
			s := subject(b, c.url, "news", "sport", "front")
			b.ReportAllocs()
			for b.Loop() {
				if v, _ := rules.Judge(0, s); v != Valid {
					b.Fatal(v)
				}
			}
		})
	}
}

func BenchmarkApply(b *testing.B) {
	for _, live := range []int{0, 10_000, 90_000} {
		b.Run(fmt.Sprint(live), func(b *testing.B) {
			rules := mixedRules(b, live)
			p := mustPrepare(b, Request{Site: "s", Tags: []string{"one"}})
			b.ReportAllocs()
			for b.Loop() {
				rules.Apply(p, time.Unix(2, 0))
			}
		})
	}
}

// Every rule is new, so that the table is full all the time and coarsens.
func BenchmarkApplyAtTheLimit(b *testing.B) {
	rules := mixedRules(b, 90_000)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		rules.Apply(mustPrepare(b, Request{Site: "s", Tags: []string{fmt.Sprint(i)}}), time.Unix(2, 0))
	}
}

func BenchmarkPurgeOnDisk(b *testing.B) {
	l, err := Open(context.Background(), Options{Dir: b.TempDir(), Rules: mixedRules(b, 10_000), Normal: plain})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := l.Purge(context.Background(), Request{Site: "s", Tags: []string{"one"}}, ""); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReplay(b *testing.B) {
	dir := b.TempDir()
	o := Options{Dir: dir, Rules: NewRules(0), Normal: plain}
	l, err := Open(context.Background(), o)
	if err != nil {
		b.Fatal(err)
	}
	for i := range 1000 {
		if _, err := l.Purge(context.Background(), Request{Site: "s", Tags: []string{fmt.Sprint(i)}}, ""); err != nil {
			b.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		o.Rules = NewRules(0)
		if l, err = Open(context.Background(), o); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := l.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
