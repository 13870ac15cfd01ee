package purge

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// naive is a list of what was applied, asked one by one.
type naive struct {
	rules []naiveRule
	doubt uint64
	epoch uint64
}

type naiveRule struct {
	Request
	epoch uint64
	at    time.Time
}

// matchesURL reads the rule's words anew. The words that the generators make
// are in normal form.
func (r *naiveRule) matchesURL(u URL) bool {
	whole := u.Scheme + "://" + u.Host + u.Path
	for _, raw := range r.URLs {
		path, _, _ := strings.Cut(raw, "?")
		if raw == whole+u.Query || r.AnyQuery && path == whole {
			return true
		}
	}
	for _, raw := range r.Prefixes {
		target := whole
		if !strings.Contains(raw, "://") {
			target = u.Host + u.Path
		}
		raw = strings.TrimSuffix(raw, "/")
		if target == raw || strings.HasPrefix(target, raw+"/") {
			return true
		}
	}
	for _, raw := range r.Hosts {
		host := u.Host
		if !strings.Contains(host, ":") {
			host += map[string]string{"http": ":80", "https": ":443"}[u.Scheme]
		}
		if raw == host || !strings.Contains(raw, ":") && strings.HasPrefix(host, raw+":") {
			return true
		}
	}
	return false
}

func (r *naiveRule) matches(s *Subject, tagsKnown bool) bool {
	if here := r.Site == "*" || r.Site == s.Site; here {
		if r.Everything || !tagsKnown && len(r.Tags) > 0 {
			return true
		}
		for _, tag := range s.Tags {
			if slices.Contains(r.Tags, tag) {
				return true
			}
		}
	}
	return r.matchesURL(s.URL) || s.Viewer != (URL{}) && r.matchesURL(s.Viewer)
}

func (n *naive) judge(since uint64, s *Subject, tagsKnown bool) (v Verdict, at time.Time, softs int) {
	if n.doubt > since {
		v = Doubtful
	}
	for i := range n.rules {
		r := &n.rules[i]
		if r.epoch <= since || !r.matches(s, tagsKnown) {
			continue
		}
		if !r.Soft {
			v = Gone
			continue
		}
		softs++
		if v == Valid {
			v = Soft
		}
		if at.IsZero() || r.at.Before(at) {
			at = r.at
		}
	}
	return v, at, softs
}

var (
	modelHosts = rapid.SampledFrom([]string{"a.example", "b.example", "a.example:81"})
	modelPaths = rapid.SampledFrom([]string{"/", "/t", "/t/", "/tea", "/t/3", "/t/3/x", "//", "/t//x"})
	modelURLs  = rapid.Custom(func(t *rapid.T) URL {
		return URL{
			Scheme: rapid.SampledFrom([]string{"http", "https"}).Draw(t, "scheme"),
			Host:   modelHosts.Draw(t, "host"),
			Path:   modelPaths.Draw(t, "path"),
			Query:  rapid.SampledFrom([]string{"", "?q", "?r"}).Draw(t, "query"),
		}
	})
	modelTags    = rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"x", "y", "z", "w"}), 0, 3, rapid.ID)
	modelSubject = rapid.Custom(func(t *rapid.T) *Subject {
		s := &Subject{
			Site: rapid.SampledFrom([]string{"s", "z", ""}).Draw(t, "site"),
			URL:  modelURLs.Draw(t, "url"),
			Tags: modelTags.Draw(t, "tags"),
		}
		if rapid.Bool().Draw(t, "rewritten") {
			s.Viewer = modelURLs.Draw(t, "viewer")
		}
		return s
	})
	modelRequest = rapid.Custom(func(t *rapid.T) Request {
		r := Request{
			Site: rapid.SampledFrom([]string{"s", "z", "", "*"}).Draw(t, "site"),
			Soft: rapid.Bool().Draw(t, "soft"),
		}
		for range rapid.IntRange(1, 3).Draw(t, "names") {
			u := modelURLs.Draw(t, "url")
			switch rapid.IntRange(0, 9).Draw(t, "kind") {
			case 0, 1, 2:
				r.URLs = append(r.URLs, u.Scheme+"://"+u.Host+u.Path+u.Query)
				r.AnyQuery = rapid.Bool().Draw(t, "any query")
			case 3:
				r.Prefixes = append(r.Prefixes, u.Host+u.Path)
			case 4:
				r.Prefixes = append(r.Prefixes, u.Scheme+"://"+u.Host+u.Path)
			case 5, 6:
				r.Tags = append(r.Tags, rapid.SampledFrom([]string{"x", "y", "z", "w"}).Draw(t, "tag"))
			case 7, 8:
				r.Hosts = append(r.Hosts, rapid.SampledFrom([]string{"a.example", "b.example:443", "b.example:80", "c.example"}).Draw(t, "host"))
			case 9:
				r.Everything = true
			}
		}
		return r
	})
)

func TestRulesAgreeWithTheModel(t *testing.T) {
	for _, limit := range []int{0, 6} {
		t.Run(fmt.Sprint("limit ", limit), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) { checkModel(t, limit) })
		})
	}
}

func checkModel(t *rapid.T, limit int) {
	rules, model, low := NewRules(limit), &naive{}, uint64(0)
	for range rapid.IntRange(1, 40).Draw(t, "steps") {
		switch rapid.IntRange(0, 9).Draw(t, "step") {
		case 0:
			model.epoch++
			model.doubt = model.epoch
			if got := rules.Doubt(time.Unix(int64(model.epoch), 0)); got != model.epoch {
				t.Fatalf("Doubt gave epoch %d, want %d", got, model.epoch)
			}
		case 1:
			low = rapid.Uint64Range(low, model.epoch).Draw(t, "low")
			rules.Forget(low)
		case 2, 3, 4, 5:
			r := modelRequest.Draw(t, "request")
			p, errs := Prepare(r, plain)
			if errs != nil {
				t.Fatalf("%+v: %v", r, &InvalidError{errs})
			}
			model.epoch++
			at := time.Unix(int64(model.epoch), 0)
			if got := rules.Apply(p, at); got != model.epoch {
				t.Fatalf("Apply gave epoch %d, want %d", got, model.epoch)
			}
			one := naiveRule{r, model.epoch, at}
			model.rules = append(model.rules, one)
			if s := modelSubject.Draw(t, "subject"); p.Matches(s) != one.matches(s, true) {
				t.Fatalf("%+v matches %+v: %v, want %v", r, s, p.Matches(s), one.matches(s, true))
			}
		default:
			s := modelSubject.Draw(t, "subject")
			since := rapid.Uint64Range(low, model.epoch).Draw(t, "since")
			compareWithModel(t, rules, model, since, s, limit > 0)
		}
	}
}

func compareWithModel(t *rapid.T, rules *Rules, model *naive, since uint64, s *Subject, coarse bool) {
	want, wantAt, softs := model.judge(since, s, true)
	got, gotAt := rules.Judge(since, s)
	switch {
	case coarse && got >= want:
		// Doubtful for Gone is what a full table may say.
	case coarse && got == Doubtful && want == Gone:
	case got != want:
		t.Fatalf("since %d, %+v: judged %v, want %v", since, s, got, want)
	case want == Soft && (gotAt.After(wantAt) || softs <= softMarks && !gotAt.Equal(wantAt)):
		t.Fatalf("since %d, %+v: soft at %v, want %v", since, s, gotAt, wantAt)
	}
	blind := *s
	blind.Tags = nil
	verdict, _, _ := model.judge(since, &blind, false)
	if may := rules.MayMatch(since, s); may != (verdict != Valid) && !(coarse && may) {
		t.Fatalf("since %d, %+v: MayMatch %v, want %v", since, s, may, verdict != Valid)
	}
	only := &naive{doubt: model.doubt}
	for _, r := range model.rules {
		r.Tags = nil
		only.rules = append(only.rules, r)
	}
	plainWant, _, _ := only.judge(since, &Subject{Site: s.Site, URL: s.URL}, true)
	if touched, _ := rules.Touches(since, &s.URL, s.Site); touched != plainWant && !(coarse && touched >= min(plainWant, Doubtful)) {
		t.Fatalf("since %d, %+v: Touches %v, want %v", since, s, touched, plainWant)
	}
}
