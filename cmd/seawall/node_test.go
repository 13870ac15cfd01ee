package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"seawall/edge"
)

// liveNode runs a node within the test, over one site with these origins.
func liveNode(t *testing.T, origins ...string) (n *node, url string) {
	t.Helper()
	return liveNodeOf(t, siteOver(origins...))
}

// liveNodeOf is liveNode with these settings.
func liveNodeOf(t *testing.T, s *settings) (n *node, url string) {
	t.Helper()
	d, err := openData("")
	if err != nil {
		t.Fatal(err)
	}
	n, err = newNode(s, d, &terminal{io.Discard, new(output)})
	if err != nil {
		t.Fatal(err)
	}
	ends := n.serve()
	t.Cleanup(func() {
		n.close()
		if err := <-ends; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return n, n.clearURL()
}

func siteOver(origins ...string) *settings {
	s := defaultSettings()
	s.Listen.HTTP, s.Listen.HTTPS, s.Listen.Admin, s.Log.Access = "127.0.0.1:0", "", "", "off"
	s.Cache.Memory = 8 * mib
	s.Sites = []siteSettings{loneSite(origins)}
	return s
}

// A request that began under one configuration ends under it, however many
// come after; what only that one used ends then.
func TestReloadLetsRequestsFinish(t *testing.T) {
	from, asked, answer := held(t)
	n, url := liveNode(t, from)
	old := n.current.Load()
	got := make(chan string, 1)
	go func() {
		_, body := get(url + "/slow")
		got <- body
	}()
	<-asked
	other := sampleServer(t, func(*http.Request) string { return "other" })
	for range 3 {
		if err := n.reload(siteOver(other)); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, url+"/new", 200, "uri-miss", "other")
	close(answer)
	if body := <-got; body != "at last" {
		t.Errorf("a request across the reload: got %q, want its answer", body)
	}
	n.retired.Wait()
	if n.current.Load() == old {
		t.Error("the old generation still answers")
	}
}

func TestReloadKeepsUnchangedPools(t *testing.T) {
	n, _ := liveNode(t, "http://127.0.0.1:1")
	first := n.current.Load().pools["default"]
	changed := siteOver("http://127.0.0.1:1")
	changed.Sites[0].Cache.TTL = time.Minute // nothing of the pool's
	if err := n.reload(changed); err != nil {
		t.Fatal(err)
	}
	if n.current.Load().pools["default"] != first {
		t.Error("a change of the policy made a new pool")
	}
	changed = siteOver("http://127.0.0.1:1")
	changed.Sites[0].Timeouts.Header = time.Second
	if err := n.reload(changed); err != nil {
		t.Fatal(err)
	}
	if n.current.Load().pools["default"] == first {
		t.Error("a change of the timeouts kept the pool")
	}
}

// What edge or the file system refuses changes nothing either.
func TestReloadThatFailsChangesNothing(t *testing.T) {
	n, url := liveNode(t, sampleServer(t, func(*http.Request) string { return "one" }))
	before := n.current.Load()
	twice := siteOver("http://127.0.0.1:1")
	twice.Sites = append(twice.Sites, twice.Sites[0])
	unwritable := siteOver("http://127.0.0.1:1")
	unwritable.Log.Access = t.TempDir() // a folder
	for _, s := range []*settings{twice, unwritable} {
		if err := n.reload(s); err == nil {
			t.Errorf("reload of %+v: no error", s)
		}
	}
	if n.current.Load() != before {
		t.Error("the generation changed")
	}
	expect(t, url+"/", 200, "", "one")
}

// Requests and reloads at once: none is lost or answered by a closed handler.
func TestReloadUnderTraffic(t *testing.T) {
	url1 := sampleServer(t, func(*http.Request) string { return "x" })
	url2 := sampleServer(t, func(*http.Request) string { return "x" })
	n, _ := liveNode(t, url1)
	var stop atomic.Bool
	var all sync.WaitGroup
	var count atomic.Int64
	for i := range 4 {
		all.Go(func() {
			for !stop.Load() {
				r := httptest.NewRequest("GET", "http://a/"+string(rune('a'+count.Add(1)%26)), nil)
				if i%2 == 0 {
					r.Header.Set("Cookie", "a=b")
				}
				w := httptest.NewRecorder()
				n.current.ServeHTTP(w, r)
				if w.Code != 200 || w.Body.String() != "x" {
					t.Errorf("got %d %q, want 200 x (%v)", w.Code, w.Body, w.Header())
					return
				}
			}
		})
	}
	for i := range 40 {
		if err := n.reload(siteOver([]string{url1, url2}[i%2])); err != nil {
			t.Error(err)
		}
		for before := count.Load(); count.Load() < before+8 && !t.Failed(); {
			r := httptest.NewRequest("GET", "http://a/again", nil)
			n.current.ServeHTTP(httptest.NewRecorder(), r)
		}
	}
	stop.Store(true)
	all.Wait()
	n.retired.Wait()
}

// Lines that an access log dropped are still counted when it is gone.
func TestDroppedLinesOutliveReloads(t *testing.T) {
	n, _ := liveNode(t, "http://127.0.0.1:1")
	s := siteOver("http://127.0.0.1:1")
	s.Log.Access = "stdout"
	n.t = &terminal{brokenWriter{}, io.Discard}
	if err := n.reload(s); err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest("GET", "http://a/", nil)
	n.current.ServeHTTP(httptest.NewRecorder(), r)
	if err := n.reload(siteOver("http://127.0.0.1:1")); err != nil {
		t.Fatal(err)
	}
	n.retired.Wait()
	if got := n.droppedLines(); got != 1 {
		t.Errorf("dropped: got %d, want 1", got)
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// The margin for the collector is the operator's to set.
func TestMemoryLimitIsTheOperators(t *testing.T) {
	t.Setenv("GOMEMLIMIT", "1GiB")
	if got := limitMemory(gib); got != 0 {
		t.Errorf("with GOMEMLIMIT: got %d, want the limit left alone", got)
	}
	var errs bytes.Buffer
	if fail(&terminal{io.Discard, &errs}, io.ErrUnexpectedEOF) != exitFailed || !strings.HasPrefix(errs.String(), "seawall: ") {
		t.Errorf("a failure reads %q", errs.String())
	}
}

// The floor is counted where the collector's next run is planned, and is the
// operator's to leave out.
func TestFloorPutsOffTheCollector(t *testing.T) {
	goal := func() uint64 {
		runtime.GC()
		sample := []metrics.Sample{{Name: "/gc/heap/goal:bytes"}}
		metrics.Read(sample)
		return sample[0].Value.Uint64()
	}
	t.Setenv("GOMEMLIMIT", "")
	t.Setenv("GOGC", "")
	before := goal()
	kept := floor()
	if after := goal(); after < before+uint64(heapFloor) {
		t.Errorf("the collector's goal went from %d to %d, want %d more at least", before, after, heapFloor)
	}
	runtime.KeepAlive(kept)
	for _, name := range []string{"GOMEMLIMIT", "GOGC"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, "100")
			if got := floor(); got != nil {
				t.Errorf("%d bytes with %s, want none", len(got), name)
			}
		})
	}
}

// How much a request pays for the right to reload under it.
func BenchmarkGenerationEnter(b *testing.B) {
	g := newGeneration()
	var c current
	c.Store(g)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			g, shard := c.enter()
			g.leave(shard)
		}
	})
}

func TestWhoIsExemptFromTheLimitOfOneClient(t *testing.T) {
	s := siteOver("http://127.0.0.1:1")
	s.Trusted = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")}
	n := &node{}
	h, err := edge.New(edge.Config{Store: newStore(t), Trusted: s.Trusted, Sites: []edge.Site{{Name: "a", Origin: http.DefaultTransport}}})
	if err != nil {
		t.Fatal(err)
	}
	n.current.Store(&generation{handler: h})
	for _, c := range []struct {
		ip    string
		limit int
		want  bool
	}{
		{"10.1.2.3", 1024, true},
		{"10.1.2.3", 5, true},
		{"2001:db8::1", 5, true},
		{"192.0.2.1", 1024, false},
		{"127.0.0.1", 1024, true},
		{"::1", 1024, true},
		{"127.0.0.1", 5, false},
		{"::1", 1025, false},
	} {
		if got := n.exempt(netip.MustParseAddr(c.ip), c.limit); got != c.want {
			t.Errorf("%s with a limit of %d: got exempt %v, want %v", c.ip, c.limit, got, c.want)
		}
	}
	if got := defaultSettings().Listen.PerClient; got != 1024 {
		t.Errorf("the default limit is %d, want 1024", got)
	}
}

func newStore(t *testing.T) *edge.Store {
	t.Helper()
	store, err := edge.NewStore(edge.StoreOptions{Memory: 8 * mib})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return store
}
