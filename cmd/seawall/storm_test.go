package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"seawall/edge"
	"seawall/origin"
	"seawall/purge"
)

// The storm of the field, in seconds, and what clients ask for in each.
const (
	stormBefore, stormLasts, stormAfter = 10, 60, 20

	stormPages = 100 // each another page, which nothing is stored of
	stormOld   = 20  // pages whose stored answers last for two seconds
	stormKept  = 80  // pages that are stored for good
)

// stormSecond is a line of the timeline.
type stormSecond struct {
	demand, asked                    int // of what the origin is needed for, and of it
	answered, stale, refused, failed int
	kept                             int // stored pages answered
	took                             []time.Duration
	goroutines                       int
	memory                           uint64
}

// stormServers are servers over pipes, each of which does ten things at once, and
// goes on with what nobody waits for any more.
type stormServers struct {
	work  atomic.Int64 // how long each takes
	asked atomic.Int64
	open  atomic.Int64 // connections
	mu    sync.Mutex
	slots map[string]chan struct{} // by address; guarded by mu
	wait  sync.WaitGroup
}

func (o *stormServers) dial(_ context.Context, _, addr string) (net.Conn, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.slots[addr] == nil {
		o.slots[addr] = make(chan struct{}, 10)
	}
	slots := o.slots[addr]
	here, there := net.Pipe()
	o.open.Add(1)
	o.wait.Go(func() {
		defer o.open.Add(-1)
		defer there.Close()
		in := bufio.NewReader(there)
		for {
			r, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			o.asked.Add(1)
			slots <- struct{}{}
			<-time.After(time.Duration(o.work.Load()))
			<-slots
			if _, err := io.WriteString(there, stormAnswer(r.URL.Path)); err != nil {
				return
			}
		}
	})
	return here, nil
}

func stormAnswer(path string) string {
	control := map[string]string{"page": "no-store", "old": "max-age=2", "kept": "max-age=86400"}[strings.Split(path, "/")[1]]
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nDate: %s\r\nCache-Control: %s\r\nContent-Length: %d\r\n\r\n%s",
		time.Now().UTC().Format(http.TimeFormat), control, len(path), path)
}

// stormNode is a node's handler for a configuration, as far as it binds nothing,
// over these servers. end ends both.
func stormNode(t *testing.T, text string, o *stormServers) (h *edge.Handler, pool *origin.Pool, end func()) {
	t.Helper()
	s := configured(t, "%s", text)
	rules := purge.NewRules(0)
	store, err := edge.NewStore(edge.WithRules(edge.StoreOptions{Memory: s.Cache.Memory}, rules))
	if err != nil {
		t.Fatal(err)
	}
	c := s.Sites[0].pools()[0].config(slog.New(slog.DiscardHandler))
	c.Dial = o.dial
	if pool, err = origin.New(c); err != nil {
		t.Fatal(err)
	}
	if h, err = edge.New(edge.Config{Store: store, Purge: rules, Sites: []edge.Site{s.Sites[0].edge(upstream{pool})}}); err != nil {
		t.Fatal(err)
	}
	return h, pool, func() {
		h.Close()
		pool.Close()
		o.wait.Wait()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}
}

// storm has the origin's latency rise tenfold for a minute under steady load: at
// 50ms its servers can do five times what they are asked, at 500ms half of it.
func storm(t *testing.T, text string) (line []stormSecond, denied uint64) {
	o := &stormServers{slots: make(map[string]chan struct{})}
	o.work.Store(int64(50 * time.Millisecond))
	h, pool, end := stormNode(t, text, o)
	line = make([]stormSecond, stormBefore+stormLasts+stormAfter)
	var mu sync.Mutex // guards line's counts of answers
	var clients sync.WaitGroup
	ask := func(s int, path string) {
		begun, w := time.Now(), httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "http://shop.example"+path, nil))
		mu.Lock()
		defer mu.Unlock()
		now := &line[s]
		kept := strings.HasPrefix(path, "/kept")
		switch {
		case w.Code == 503:
			now.refused++
		case w.Code != 200 || w.Body.String() != path:
			now.failed++
		case kept:
			now.kept++
		case strings.Contains(w.Header().Get("Cache-Status"), "stale-if-error"):
			now.stale++
		default:
			now.answered++
		}
		if !kept {
			now.took = append(now.took, time.Since(begun))
		}
	}
	for i := range stormOld + stormKept { // everything that is stored, is
		ask(0, stormPath(i))
	}
	line[0] = stormSecond{}
	for s := range line {
		switch s {
		case stormBefore:
			o.work.Store(int64(500 * time.Millisecond))
		case stormBefore + stormLasts:
			o.work.Store(int64(50 * time.Millisecond))
		}
		o.asked.Store(0)
		const all = stormPages + stormOld + stormKept
		for i := range all {
			path := stormPath(i * 7 % all)
			if strings.HasPrefix(path, "/page") {
				path += fmt.Sprint("-", s)
			}
			clients.Go(func() { ask(s, path) })
			<-time.After(time.Second / all)
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		mu.Lock()
		line[s].demand, line[s].asked = stormPages+stormOld, int(o.asked.Load())
		line[s].goroutines, line[s].memory = runtime.NumGoroutine()-int(o.open.Load()), m.HeapAlloc
		mu.Unlock()
	}
	clients.Wait()
	<-time.After(time.Minute)
	denied = pool.Stats().Denied
	if st := pool.Stats(); st.InFlight != 0 || st.Queue != 0 {
		t.Errorf("afterwards %d requests are in flight and %d wait", st.InFlight, st.Queue)
	}
	end()
	return line, denied
}

func stormPath(i int) string {
	switch {
	case i < stormOld:
		return fmt.Sprint("/old/", i)
	case i < stormOld+stormKept:
		return fmt.Sprint("/kept/", i)
	}
	return fmt.Sprint("/page/", i)
}

// recovery is how many seconds after the storm all is answered by the origin
// again; -1 is never.
func recovery(line []stormSecond) int {
	well := -1
	for s := len(line) - 1; s >= stormBefore+stormLasts && line[s].answered == line[s].demand; s-- {
		well = s - stormBefore - stormLasts
	}
	return well
}

func showStorm(line []stormSecond, denied uint64) string {
	var b strings.Builder
	fmt.Fprintf(&b, "well again %d s after the storm; %d retries denied\n%6s %7s %10s %9s %6s %5s %7s %7s %8s %11s %9s\n", recovery(line), denied,
		"second", "demand", "to origin", "answered", "stale", "503", "failed", "stored", "p50", "goroutines", "heap MiB")
	for s, now := range line {
		slices.Sort(now.took)
		p50 := now.took[len(now.took)/2]
		fmt.Fprintf(&b, "%6d %7d %10d %9d %6d %5d %7d %7d %8s %11d %9.1f\n", s-stormBefore,
			now.demand, now.asked, now.answered, now.stale, now.refused, now.failed, now.kept, p50.Round(time.Millisecond), now.goroutines, float64(now.memory)/(1<<20))
	}
	return b.String()
}

func checkStorm(t *testing.T, line []stormSecond, denied uint64) {
	for s, now := range line {
		if most := 1.2*float64(now.demand) + 1; float64(now.asked) > most {
			t.Errorf("second %d: %d requests to the origin, for %d of clients", s-stormBefore, now.asked, now.demand)
		}
		if now.kept != stormKept {
			t.Errorf("second %d: %d of %d stored pages were answered", s-stormBefore, now.kept, stormKept)
		}
		if now.goroutines > 1000 || now.memory > 256<<20 {
			t.Errorf("second %d: %d goroutines and %d MiB", s-stormBefore, now.goroutines, now.memory>>20)
		}
		if s < stormBefore && now.answered != now.demand {
			t.Errorf("second %d: %d of %d answered before the storm", s-stormBefore, now.answered, now.demand)
		}
	}
	refused, stale := 0, 0
	for _, now := range line[stormBefore : stormBefore+stormLasts] {
		refused, stale = refused+now.refused, stale+now.stale
	}
	if refused == 0 || stale == 0 {
		t.Errorf("%d requests were refused and %d answered with stale content: it was no storm", refused, stale)
	}
	if well := recovery(line); well < 0 || well >= 5 {
		t.Errorf("well again %d s after the storm, want within 5", well)
	}
	if t.Failed() {
		t.Log(showStorm(line, denied))
	}
}

// stormSites are configurations that the storm is tried with.
func stormSites() map[string]string {
	const text = "sites: [{origins: ['http://a', 'http://b', 'http://c'], pool: {max_in_flight: 30}, timeouts: {header: %s}, retry: {on: [503]}}]"
	return map[string]string{
		"timeouts shorter than the latency": fmt.Sprintf(text, "400ms"),
		"timeouts longer than the latency":  fmt.Sprintf(text, "2s"),
	}
}

// A whole walk, from client to origin and back, holds a storm off the origin,
// serves what it has, and is well soon after.
func TestRetryStorm(t *testing.T) {
	for name, text := range stormSites() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				line, denied := storm(t, text)
				checkStorm(t, line, denied)
			})
		})
	}
}

// BenchmarkRetryStorm prints the storm second by second, in virtual time.
func BenchmarkRetryStorm(b *testing.B) {
	for name, text := range stormSites() {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				stormShown(b, text)
			}
		})
	}
}

// stormShown is the test from within a benchmark, which has no virtual time.
func stormShown(b *testing.B, text string) {
	var shown string
	test := testing.InternalTest{Name: "storm", F: func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			line, denied := storm(t, text)
			shown = showStorm(line, denied)
			checkStorm(t, line, denied)
		})
	}}
	if !testing.RunTests(func(string, string) (bool, error) { return true, nil }, []testing.InternalTest{test}) {
		b.Error("the storm was not held off")
	}
	fmt.Println("\n" + shown) // a log of this length would be cut
}
