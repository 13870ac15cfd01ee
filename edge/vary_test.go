package edge

import (
	"net/http"
	"strings"
	"testing"
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
