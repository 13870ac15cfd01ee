package edge

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"seawall/edge/store"
	"seawall/purge"
)

// TestPurgeOfAMillionObjects measures how long it takes until a tag on a million
// cached objects is purged, and that each of them is gone.
func TestPurgeOfAMillionObjects(t *testing.T) {
	if os.Getenv("SEAWALL_LONG") == "" {
		t.Skip("takes some 2 GB; SEAWALL_LONG=1 runs it")
	}
	const objects = 1_000_000
	origin, _ := tagged("max-age=60")
	h := purgeable(t, purge.NewRules(0), origin, func(c *Config) {
		c.Store.Close()
		c.Store, _ = NewStore(WithRules(StoreOptions{Memory: 4 << 30}, c.Purge))
	})
	defer h.Store.Close()
	defer h.Close()
	body := store.NewBody([]byte("x"))
	tags := []string{"tag"}
	for i := range objects {
		key := []byte("http://www.example.com/" + strconv.Itoa(i))
		claim := h.Store.Claim(h.Store.Hash(key), key)
		o := &Object{Body: body, Meta: Meta{Status: 200}}
		o.Meta.describe(o, claim.Key(), &ask{zone: "s"}, nil, tags)
		h.Store.Publish(claim, o)
		h.Store.Drop(claim)
	}
	if n := h.Store.Usage().Objects; n != objects {
		t.Fatalf("%d objects are stored, want %d", n, objects)
	}
	began := time.Now()
	p, _ := purge.Prepare(purge.Request{Site: "s", Tags: tags}, h.Normal)
	h.Purge.Apply(p, time.Now())
	took := time.Since(began)
	t.Logf("a tag on %d objects was purged in %v", objects, took)
	if took > 5*time.Millisecond {
		t.Errorf("a tag on %d objects took %v to purge, want at most 5ms", objects, took)
	}
	for _, i := range []int{0, objects / 2, objects - 1} {
		key := []byte("http://www.example.com/" + strconv.Itoa(i))
		if found := h.Store.Find(h.Store.Hash(key), key, anyone{}); found.Object != nil {
			t.Errorf("object %d is found after the purge", i)
		}
	}
	began = time.Now()
	s := NewSweep(h.Store, h.Purge, nil)
	s.Rate = 1 << 40
	s.Pass(t.Context())
	t.Logf("the sweep of them took %v without its pauses", time.Since(began))
	if n := h.Store.Usage().Objects; n != 0 {
		t.Errorf("%d objects are left after the sweep", n)
	}
}

// mixed applies n rules of every kind that are of none of the objects.
func mixed(tb testing.TB, h *Handler, n int) {
	for i := range n {
		r := purge.Request{Soft: i%7 == 0}
		switch i % 4 {
		case 0:
			r.URLs = []string{fmt.Sprintf("http://www.example.com/some/path/of/usual/length/%d.html", i)}
		case 1:
			r.Prefixes = []string{fmt.Sprintf("www.example.com/some/path/of/%d", i)}
		case 2:
			r.Tags = []string{"other-" + strconv.Itoa(i)}
		case 3:
			r.Hosts = []string{fmt.Sprintf("h%d.example.com", i)}
		}
		apply(tb, h, r)
	}
}

// BenchmarkRules compares hits on unaffected objects without any rule and with
// 10,000 live ones, in interleaved rounds, and what a hit costs that is the
// first after a purge of something else.
func BenchmarkRules(b *testing.B) {
	const keys, rounds = 1000, 200
	plain, ruled := ruledHandler(b), ruledHandler(b)
	mixed(b, ruled, 10_000)
	nanos := map[string][]float64{}
	var asked [keys][]byte
	for i := range asked {
		asked[i] = []byte("http://www.example.com" + request(i).RequestURI)
	}
	round := func(name string, h *Handler) {
		began := time.Now()
		for _, key := range asked {
			if found := h.Store.Find(h.Store.Hash(key), key, anyone{}); found.Object == nil {
				b.Fatalf("%s: %s is not found", name, key)
			}
		}
		nanos[name] = append(nanos[name], float64(time.Since(began).Nanoseconds())/keys)
	}
	walk := func(name string, h *Handler, requests int) {
		w := &sink{h: map[string][]string{}}
		r := request(0)
		began := time.Now()
		for range requests {
			clear(w.h)
			h.ServeHTTP(w, r)
		}
		nanos[name] = append(nanos[name], float64(time.Since(began).Nanoseconds())/float64(requests))
	}
	for b.Loop() {
		for range rounds {
			round("find", plain)
			round("find-ruled", ruled)
			walk("hit", plain, keys)
			walk("hit-ruled", ruled, keys)
			apply(b, ruled, purge.Request{Tags: []string{"other-0"}})
			round("find-judging", ruled)
		}
	}
	for name, all := range nanos {
		slices.Sort(all)
		b.ReportMetric(all[len(all)/2], name+"-ns")
	}
	b.ReportMetric(0, "ns/op")
}

func ruledHandler(b *testing.B) *Handler {
	origin, _ := tagged("max-age=3600")
	h := purgeable(b, purge.NewRules(0), origin, func(c *Config) {
		c.Store.Close()
		c.Store, _ = NewStore(WithRules(StoreOptions{Memory: 256 << 20}, c.Purge))
	})
	fetchAll(h, 1000)
	b.Cleanup(func() { h.Close(); h.Store.Close() })
	return h
}
