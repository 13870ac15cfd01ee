package edge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"
	"weak"

	"seawall/edge/store"
	"seawall/purge"
)

// apply puts a purge into force.
func apply(t testing.TB, h *Handler, r purge.Request) *purge.Prepared {
	t.Helper()
	if r.Site == "" {
		r.Site = "s"
	}
	p, faults := purge.Prepare(r, h.Normal)
	if faults != nil {
		t.Fatalf("prepare %+v: %v", r, faults[0])
	}
	h.Purge.Apply(p, time.Now())
	return p
}

// tagged is an origin whose responses have a tag, and count.
func tagged(terms string) (http.RoundTripper, *atomic.Int64) {
	asked := new(atomic.Int64)
	return rt(func(r *http.Request) (*http.Response, error) {
		return resp(r, strconv.FormatInt(asked.Add(1), 10), "Cache-Control", terms, "Surrogate-Key", "tag"), nil
	}), asked
}

// stored fetches in a bubble, and returns when all of it is stored: an answer
// may be read whole before.
func stored(h *Handler, n int) {
	fetchAll(h, n)
	synctest.Wait()
}

func fetchAll(h *Handler, n int) {
	for i := range n {
		h.ServeHTTP(&sink{h: http.Header{}}, request(i))
	}
}

// bubble runs f on a handler in virtual time.
func bubble(t *testing.T, terms string, f func(t *testing.T, h *Handler, asked *atomic.Int64)) {
	synctest.Test(t, func(t *testing.T) {
		origin, asked := tagged(terms)
		h := purgeable(t, purge.NewRules(0), origin, nil)
		f(t, h, asked)
		h.Close()
		h.Store.Close()
	})
}

func TestHandlerWantsAStoreThatKnowsItsPurges(t *testing.T) {
	st, _ := NewStore(StoreOptions{Memory: 1 << 20})
	defer st.Close()
	_, err := New(Config{Store: st, Purge: purge.NewRules(0), Sites: []Site{{Name: "s", Origin: answers{}}}})
	if err == nil || !strings.Contains(err.Error(), "WithRules") {
		t.Errorf("got %v, want an error with the remedy", err)
	}
}

func TestSweepRunsAfterPurgesOnly(t *testing.T) {
	bubble(t, "max-age=60", func(t *testing.T, h *Handler, _ *atomic.Int64) {
		var swept []string
		began := time.Now()
		s := NewSweep(h.Store, h.Purge, func(low uint64) error {
			swept = append(swept, fmt.Sprintf("%d after %v", low, time.Since(began)))
			return errors.New("no disk") // it goes on all the same
		})
		s.Rate = 20 // an object in each slice
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { s.Run(ctx) })
		stored(h, 20)
		time.Sleep(time.Hour)
		began = time.Now()
		apply(t, h, purge.Request{Tags: []string{"tag"}})
		s.Wake()
		s.Wake() // of two at once, one pass is left
		time.Sleep(time.Hour)
		synctest.Wait()
		if got, want := fmt.Sprint(swept), "[1 after 1s]"; got != want {
			t.Errorf("20 objects at 20 a second: swept %s, want %s", got, want)
		}
		if n := h.Store.Usage().Objects; n != 0 {
			t.Errorf("%d objects are left of 20 purged", n)
		}
		if n := h.Purge.Len(); n != 0 {
			t.Errorf("%d rules are left", n)
		}
		stop()
		running.Wait()
	})
}

// A rule that something under way still needs is dropped by a later pass.
func TestSweepComesBackForRulesThatWereNeeded(t *testing.T) {
	bubble(t, "max-age=60", func(t *testing.T, h *Handler, _ *atomic.Int64) {
		s := NewSweep(h.Store, h.Purge, nil)
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		key := []byte("http://www.example.com/")
		claim := h.Store.Claim(h.Store.Hash(key), key)
		apply(t, h, purge.Request{Tags: []string{"tag"}})
		running.Go(func() { s.Run(ctx) }) // it begins by itself with what was there
		time.Sleep(10 * time.Second)
		if n := h.Purge.Len(); n != 1 {
			t.Errorf("%d rules while a claim from before is held, want 1", n)
		}
		h.Store.Drop(claim)
		time.Sleep(2 * time.Minute)
		if n := h.Purge.Len(); n != 0 {
			t.Errorf("%d rules when nothing needs them, want 0", n)
		}
		stop()
		running.Wait()
	})
}

func TestObjectsShareTheirKeysMemory(t *testing.T) {
	bubble(t, "max-age=60", func(t *testing.T, h *Handler, _ *atomic.Int64) {
		stored(h, 1)
		h.Store.Each(func(o *Object) bool {
			u := o.Meta.Subject.URL
			if got := u.Scheme + "://" + u.Host + u.Path + u.Query; got != o.Key {
				t.Errorf("%q is described as %q", o.Key, got)
			}
			for _, s := range []string{u.Scheme, u.Host, u.Path, u.Query} {
				from, to := uintptr(unsafe.Pointer(unsafe.StringData(o.Key))), uintptr(len(o.Key))
				if at := uintptr(unsafe.Pointer(unsafe.StringData(s))) - from; at >= to {
					t.Errorf("%q is no part of the key's memory", s)
				}
			}
			return true
		})
	})
}

// What a function made of a URL is purged by the URL that the client asked for,
// whoever's request it was that stored it.
func TestPurgeByTheViewersURL(t *testing.T) {
	v := purge.URL{Scheme: "http", Host: "www.example.com", Path: "/seen", Query: ""}
	for _, c := range []struct {
		name  string
		purge purge.Request
		want  string
	}{
		{"hard", purge.Request{URLs: []string{"http://www.example.com/seen"}}, "miss"},
		{"soft", purge.Request{URLs: []string{"http://www.example.com/seen"}, Soft: true}, "stale"},
		{"another", purge.Request{URLs: []string{"http://www.example.com/other"}}, "hit"},
	} {
		for _, swept := range []bool{false, true} {
			name, want := c.name, c.want
			if swept {
				name += ", swept" // what rules said is not known any more: it is validated
				want = "expired"
			}
			t.Run(name, func(t *testing.T) {
				bubble(t, "max-age=60, stale-while-revalidate=60", func(t *testing.T, h *Handler, _ *atomic.Int64) {
					stored(h, 1)
					apply(t, h, c.purge)
					if swept {
						NewSweep(h.Store, h.Purge, nil).Pass(t.Context())
					}
					x := h.begin(&sink{h: http.Header{}}, request(0))
					defer x.end()
					if !x.admit() {
						t.Fatal("refused")
					}
					x.viewer = v
					if got := x.lookup(); got.String() != want {
						t.Errorf("after a purge of %v: %v, want %s", c.purge.URLs, got, want)
					}
				})
			})
		}
	}
}

func TestRefreshKeepsWithinItsBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked, now, most atomic.Int64
		slow := false
		origin := rt(func(r *http.Request) (*http.Response, error) {
			asked.Add(1)
			if n := now.Add(1); n > most.Load() {
				most.Store(n)
			}
			defer now.Add(-1)
			if slow {
				time.Sleep(time.Second)
			}
			return resp(r, "x", "Cache-Control", "max-age=600", "Surrogate-Key", "tag"), nil
		})
		h := purgeable(t, purge.NewRules(0), origin, func(c *Config) {
			st, _ := NewStore(WithRules(StoreOptions{Memory: 64 << 20}, c.Purge))
			c.Store.Close()
			c.Store = st
		})
		stored(h, refreshMost+100)
		for range 20 {
			h.ServeHTTP(&sink{h: http.Header{}}, request(7)) // the hottest
		}
		hot := request(7)
		p := apply(t, h, purge.Request{Tags: []string{"tag"}, Refresh: true})
		if top := h.hottest(t.Context(), p); len(top) != refreshMost || top[0].at.Path+top[0].at.Query != hot.RequestURI {
			t.Errorf("%d objects, first %v; want %d, first %s", len(top), top[0].at, refreshMost, hot.RequestURI)
		}
		asked.Store(0)
		began := time.Now()
		h.RefreshMatches(t.Context(), p)
		if n := asked.Load(); n != refreshMost {
			t.Errorf("asked %d times, want %d", n, refreshMost)
		}
		if took, least := time.Since(began), (refreshMost-1)*refreshPause; took < least {
			t.Errorf("%d refreshes took %v, want at least %v", refreshMost, took, least)
		}
		// A slow origin is asked by so many at once; the handler's end is theirs.
		slow = true
		asked.Store(0)
		most.Store(0)
		p = apply(t, h, purge.Request{Tags: []string{"tag"}, Refresh: true})
		go h.RefreshMatches(context.Background(), p)
		time.Sleep(10500 * time.Millisecond)
		synctest.Wait()
		if n := most.Load(); n != refreshAtOnce {
			t.Errorf("%d at once, want %d", n, refreshAtOnce)
		}
		h.Close()
		if n := asked.Load(); n > 11*refreshAtOnce {
			t.Errorf("asked %d times in 10.5 s, want at most %d", n, 11*refreshAtOnce)
		}
		h.RefreshMatches(context.Background(), p) // after the end: nothing
		h.Store.Close()
	})
}

// An origin that never ends an answer must not keep the others from being
// refreshed, nor a configuration from being retired.
func TestRefreshGivesUpWhatDoesNotEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		origin := rt(func(r *http.Request) (*http.Response, error) {
			n := asked.Add(1)
			answer := resp(r, "x", "Cache-Control", "max-age=600", "Surrogate-Key", "tag")
			if 20 < n && n <= 20+refreshAtOnce {
				answer.ContentLength = 1 << 20
				answer.Body = io.NopCloser(reads(func(b []byte) (int, error) {
					select {
					case <-time.After(time.Second):
						return copy(b, "x"), nil
					case <-r.Context().Done():
						return 0, r.Context().Err()
					}
				}))
			}
			return answer, nil
		})
		h := purgeable(t, purge.NewRules(0), origin, nil)
		stored(h, 20)
		p := apply(t, h, purge.Request{Tags: []string{"tag"}, Refresh: true})
		began := time.Now()
		h.RefreshMatches(t.Context(), p)
		if took, most := time.Since(began), refreshWait+time.Second; took > most || asked.Load() != 40 {
			t.Errorf("took %v and asked %d times, want at most %v and 40 times", took, asked.Load(), most)
		}
		h.Store.Stop()
		h.Close()
		h.Store.Close()
	})
}

// What leaves the store while others are refreshed is outside the memory
// budget: nothing may keep it.
func TestRefreshKeepsNoObjects(t *testing.T) {
	origin, _ := tagged("max-age=60")
	h := purgeable(t, purge.NewRules(0), origin, nil)
	defer h.Store.Close()
	defer h.Close()
	fetchAll(h, 3)
	for deadline := time.Now().Add(10 * time.Second); h.Store.Usage().Fills > 0 && time.Now().Before(deadline); {
		runtime.Gosched()
	}
	var seen []weak.Pointer[Object]
	h.Store.Each(func(o *Object) bool { seen = append(seen, weak.Make(o)); return true })
	hot := h.hottest(t.Context(), apply(t, h, purge.Request{Everything: true, Site: "*", Refresh: true}))
	h.Store.Each(func(o *Object) bool { h.Store.Discard(o); return true })
	runtime.GC()
	runtime.GC()
	for i, o := range seen {
		if o.Value() != nil {
			t.Errorf("object %d of %d is still kept, with %d refreshes to come", i, len(seen), len(hot))
		}
	}
	runtime.KeepAlive(hot)
	if len(seen) != 3 || len(hot) != 3 {
		t.Errorf("%d objects, %d refreshes; want 3 of each", len(seen), len(hot))
	}
}

func TestWarmEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := purgeable(t, purge.NewRules(0), rt(func(r *http.Request) (*http.Response, error) {
			select {
			case <-time.After(time.Minute):
				return resp(r, "x", "Cache-Control", "max-age=600"), nil
			case <-r.Context().Done():
				return nil, r.Context().Err()
			}
		}), nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		w, err := h.Warm(ctx, "http://example.com/a")
		if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took != time.Second {
			t.Errorf("got %+v, %v after %v; want the context's error after 1s", w, err, took)
		}
		h.Store.Stop()
		h.Close()
		if _, err := h.Warm(t.Context(), "http://example.com/a"); err == nil {
			t.Error("warmed by a handler that is closed")
		}
		h.Store.Close()
	})
}

func TestPushRespectsTheMemoryBudget(t *testing.T) {
	origin, _ := tagged("max-age=60")
	h := purgeable(t, purge.NewRules(0), origin, func(c *Config) {
		c.Store.Close()
		c.Store, _ = NewStore(WithRules(StoreOptions{Memory: 1 << 20, MaxObject: 1 << 20}, c.Purge))
	})
	defer h.Store.Close()
	defer h.Close()
	push := func(size int, body io.Reader) int {
		_, err := h.Push(t.Context(), Push{
			URL: "http://example.com/a", Header: http.Header{"Cache-Control": {"max-age=60"}}, Body: body, Size: int64(size),
		})
		var refused *PushError
		if errors.As(err, &refused) {
			return refused.Status
		}
		if err != nil {
			t.Fatal(err)
		}
		return 200
	}
	for _, c := range []struct{ size, want int }{
		{100 << 10, 200},
		{800 << 10, 503}, // more than what fills may take of the budget
		{2 << 20, 413},
	} {
		if got := push(c.size, bytes.NewReader(make([]byte, c.size))); got != c.want {
			t.Errorf("push of %d bytes: %d, want %d", c.size, got, c.want)
		}
		if u := h.Store.Usage(); u.Filling != 0 || u.Young+u.Main > u.Memory {
			t.Errorf("after a push of %d bytes: %+v", c.size, u)
		}
	}
	if got := push(-1, reads(func([]byte) (int, error) { return 0, io.ErrClosedPipe })); got != 400 {
		t.Errorf("push that broke off: %d, want 400", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.Push(ctx, Push{URL: "http://example.com/a", Header: http.Header{"Cache-Control": {"max-age=60"}}}); !errors.Is(err, context.Canceled) {
		t.Errorf("push of a caller that left: %v, want its context's error", err)
	}
}

// Tags count within a site: what another site stored, when a configuration gave
// it the host, would escape the purges of the one that has it now.
func TestHostThatMovedToAnotherSiteStartsAnew(t *testing.T) {
	origin, asked := tagged("max-age=60")
	before := purgeable(t, purge.NewRules(0), origin, nil)
	defer before.Store.Close()
	defer before.Close()
	fetchAll(before, 1)
	after, err := New(Config{Store: before.Store, Purge: before.Purge, Sites: []Site{{Name: "other", Origin: origin}}})
	if err != nil {
		t.Fatal(err)
	}
	defer after.Close()
	for _, want := range []int64{2, 2} { // it has its own from then on
		fetchAll(after, 1)
		if got := asked.Load(); got != want {
			t.Errorf("the origin was asked %d times, want %d", got, want)
		}
	}
	apply(t, after, purge.Request{Site: "other", Tags: []string{"tag"}})
	fetchAll(after, 1)
	if got := asked.Load(); got != 3 {
		t.Errorf("after a purge in its own site, the origin was asked %d times, want 3", got)
	}
}

func TestSitesAreNamed(t *testing.T) {
	st, _ := NewStore(StoreOptions{Memory: 1 << 20})
	defer st.Close()
	h, err := New(Config{Store: st, Sites: []Site{
		{Name: "www", Hosts: []string{"www.example.com", "*.example.net"}, Origin: answers{}},
		{Name: "api", Hosts: []string{"api.example.com"}, Origin: answers{}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if got := fmt.Sprint(h.Sites()); got != "[api www]" {
		t.Errorf("sites = %s, want [api www]", got)
	}
	for host, want := range map[string]string{
		"www.example.com": "www", "WWW.example.com:8080": "www", "a.b.example.net": "www", "api.example.com": "api", "example.org": "",
	} {
		if got, ok := h.SiteOf(host); got != want || ok != (want != "") {
			t.Errorf("site of %s = %q, %v; want %q", host, got, ok, want)
		}
	}
}

// Every word of Verdict has its own in the store.
func TestVerdictsCorrespond(t *testing.T) {
	for from, want := range map[purge.Verdict]store.Verdict{
		purge.Valid: store.Valid, purge.Soft: store.Soft, purge.Doubtful: store.Doubtful, purge.Gone: store.Gone, 99: store.Gone,
	} {
		if got := verdictOf(from); got != want {
			t.Errorf("verdict %d: %d, want %d", from, got, want)
		}
	}
}
