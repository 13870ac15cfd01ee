package edge

import (
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestVaryNamesEveryFault(t *testing.T) {
	v := Vary{Languages: []string{"en", "*"}, Accept: []string{"image"}, Ignore: []string{"Cookie", "Proxy-Authorization", "*", "Origin"}}
	err := v.Check()
	if err == nil || strings.Count(err.Error(), "\n") != 4 {
		t.Errorf("%+v: got %v, want five faults", v, err)
	}
	if _, err := newSite(Site{Name: "a", Origin: answers{}, Cache: Cache{Vary: v}}, NewStats()); err == nil {
		t.Error("a site took it")
	}
	v = Vary{Languages: []string{"en"}, Accept: []string{"image/avif"}, Ignore: []string{"Origin"}}
	if err := v.Check(); err != nil {
		t.Errorf("%+v: %v", v, err)
	}
}

// The client's header is net/http's, and a fill may read it long after.
func TestReductionLeavesTheClientsHeaderAlone(t *testing.T) {
	v, err := newVariation(Vary{Languages: []string{"en"}, Accept: []string{"image/avif"}})
	if err != nil {
		t.Fatal(err)
	}
	h := http.Header{"Accept-Language": {"en-GB, en;q=0.9"}, "X": {"1"}}
	got := v.reduce("GET", h)
	if got.Get("Accept-Language") != "en" || got.Get("Accept") != "*/*" || got.Get("X") != "1" {
		t.Errorf("got %v, want en and */*", got)
	}
	if h.Get("Accept-Language") != "en-GB, en;q=0.9" || len(h) != 2 {
		t.Errorf("the client's header became %v", h)
	}
	if got := v.reduce("POST", h); got.Get("Accept-Language") != "en-GB, en;q=0.9" {
		t.Errorf("POST: got %v, want it as it was", got)
	}
}

func TestCrowdsNameTheWorst(t *testing.T) {
	var c crowds
	now := time.Now()
	if one, loud := c.count("http://a/often", []string{"accept-language", "user-agent"}, now); !loud || one.Hint != "cache.vary.languages, cache.vary.ignore" {
		t.Errorf("the first: got %+v, loud %v; want a line with both settings", one, loud)
	}
	for i := range 1000 {
		if _, loud := c.count("http://a/often", nil, now); loud {
			t.Fatal("a second line in the same minute")
		}
		c.count(fmt.Sprintf("http://a/%d", i), []string{"x"}, now)
		c.count("http://a/second", []string{strings.Repeat("x", 1000)}, now)
		c.count("http://a/second", nil, now)
	}
	if _, loud := c.count("http://a/often", []string{"cookie"}, now.Add(crowdPause)); !loud {
		t.Error("no line after a minute")
	}
	total, worst := c.all()
	if total != 4002 || len(worst) != crowdsKept {
		t.Errorf("got %d in all and %d URLs, want 4002 and %d", total, len(worst), crowdsKept)
	}
	if worst[0].URL != "http://a/second" || worst[0].Count != 2000 || worst[1].URL != "http://a/often" || worst[1].Count != 1002 {
		t.Errorf("got %+v, want second 2000 times and often 1002 times", worst[:2])
	}
	for _, one := range worst {
		if len(strings.Join(one.Vary, "")) > 40 || one.Vary == nil {
			t.Errorf("%s: names of %d bytes are kept (%v)", one.URL, len(strings.Join(one.Vary, "")), one.Vary == nil)
		}
	}
}

// What pushes out a variant counts for its site, and is named.
func TestTooManyVariantsAreReported(t *testing.T) {
	st, err := NewStore(StoreOptions{Memory: 16 << 20, Variants: 2})
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	h, err := New(Config{Store: st, Log: slog.New(slog.NewTextHandler(&log, nil)), Sites: []Site{{Name: "a", Origin: answers{
		header: http.Header{"Cache-Control": {"max-age=60"}, "Vary": {"X-Kind"}}, body: "b",
	}}}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		r := request(1)
		r.Header.Set("X-Kind", fmt.Sprint(i))
		w := &sink{h: http.Header{}}
		h.ServeHTTP(w, r)
	}
	h.Close()
	st.Close()
	for _, c := range h.Stats.Sites() {
		if c.Crowded != 3 || len(c.Crowds) != 1 || c.Crowds[0].Count != 3 || !slices.Equal(c.Crowds[0].Vary, []string{"x-kind"}) ||
			c.Crowds[0].URL != "http://www.example.com"+request(1).RequestURI {
			t.Errorf("got %d, %+v, want 3 for one URL by x-kind", c.Crowded, c.Crowds)
		}
	}
	if n := strings.Count(log.String(), "too many variants"); n != 1 || !strings.Contains(log.String(), "cache.vary.ignore") {
		t.Errorf("log: got %d lines, want one with a hint: %s", n, log.String())
	}
}
