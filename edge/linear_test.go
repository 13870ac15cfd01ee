package edge

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"

	"seawall/purge"
)

// The histories below are of clients at once: gets, purges, pushes, unsafe
// requests, evictions, sweeps, and an origin whose content has a growing
// version. What must hold: no get that begins after a purge was acknowledged
// returns a version older than the origin's when the purge was asked for.

const linearPaths = 3

// growing is an origin that answers with the version of its content, slowly.
type growing struct {
	versions [linearPaths]atomic.Int64
	mu       sync.Mutex
	rand     *rand.Rand // guarded by mu
}

func (g *growing) intn(n int) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.rand.IntN(n)
}

// pace lets up to n steps of time pass.
func (g *growing) pace(n int) { time.Sleep(time.Duration(g.intn(n)) * time.Millisecond) }

func (g *growing) RoundTrip(r *http.Request) (*http.Response, error) {
	g.pace(3)
	path, _, _ := strings.Cut(r.RequestURI, "?")
	i, err := strconv.Atoi(strings.TrimPrefix(path, "/t/"))
	if err != nil {
		return nil, err
	}
	v := g.versions[i].Load()
	header := linearHeader(i, v)
	if g.intn(8) == 0 {
		header.Set("Cache-Control", "private")
	}
	status := http.StatusOK
	content := strconv.FormatInt(v, 10)
	switch {
	case g.intn(10) == 0:
		status, content, header = http.StatusServiceUnavailable, "down", http.Header{}
	case r.Header.Get("If-None-Match") == header.Get("ETag") && g.intn(5) > 0:
		status, content = http.StatusNotModified, ""
	case r.Method == http.MethodPost:
		header.Set("Content-Location", r.RequestURI)
	}
	g.pace(8)
	resp := &http.Response{
		StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: header, ContentLength: int64(len(content)), Request: r,
		Body: io.NopCloser(&trickle{rest: content, pace: func() { g.pace(3) }}),
	}
	if r.Method == http.MethodHead {
		resp.Body = http.NoBody
	}
	return resp, nil
}

// linearHeader is the header of a version: each path has its own terms, and a
// tag of its own beside one of all.
func linearHeader(i int, v int64) http.Header {
	terms := [linearPaths]string{
		"max-age=1000, stale-if-error=1000",
		"max-age=0, stale-while-revalidate=1000, stale-if-error=1000",
		"max-age=0, stale-if-error=1000",
	}[i]
	return http.Header{
		"Cache-Control": {terms}, "Etag": {fmt.Sprintf(`"%d"`, v)}, "No-Vary-Search": {`params=("utm")`},
		"Surrogate-Key": {"all t" + strconv.Itoa(i)}, "Vary": {"X-Kind"},
	}
}

// trickle gives a byte at a time.
type trickle struct {
	rest string
	pace func()
}

func (r *trickle) Read(p []byte) (int, error) {
	r.pace()
	if r.rest == "" {
		return 0, io.EOF
	}
	n := copy(p[:1], r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// history is one run: its operations, and what they are done to.
type history struct {
	h      *Handler
	rules  *purge.Rules
	sweep  *Sweep
	origin *growing
	clock  atomic.Int64 // orders calls and returns strictly, which time does not

	mu  sync.Mutex
	ops []porcupine.Operation // guarded by mu
}

// linearInput is a get of a URL, or a purge of it at an origin's version.
type linearInput struct {
	url   string
	purge bool
	least int64
}

// linearModel has as its state the least version that a get may return.
func linearModel() porcupine.Model {
	return porcupine.Model{
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			byURL := map[string][]porcupine.Operation{}
			for _, op := range history {
				url := op.Input.(linearInput).url
				byURL[url] = append(byURL[url], op)
			}
			var all [][]porcupine.Operation
			for _, ops := range byURL {
				all = append(all, ops)
			}
			return all
		},
		Init: func() any { return int64(0) },
		Step: func(state, in, out any) (bool, any) {
			op, least := in.(linearInput), state.(int64)
			if op.purge {
				return true, max(least, op.least)
			}
			return out.(int64) >= least, least
		},
		DescribeOperation: func(in, out any) string {
			if op := in.(linearInput); op.purge {
				return fmt.Sprintf("purge(%s) at %d", op.url, op.least)
			}
			return fmt.Sprintf("get(%s) = %d", in.(linearInput).url, out)
		},
	}
}

func (y *history) record(client int, call int64, out int64, inputs ...linearInput) {
	end := y.clock.Add(1)
	y.mu.Lock()
	defer y.mu.Unlock()
	for _, in := range inputs {
		y.ops = append(y.ops, porcupine.Operation{ClientId: client, Input: in, Output: out, Call: call, Return: end})
	}
}

const linearQueries = 2

func linearURL(i, q int) string {
	if q == 0 {
		return fmt.Sprintf("/t/%d", i)
	}
	return fmt.Sprintf("/t/%d?utm=%d", i, q)
}

// get asks the node; what is no version (an error of the origin, a broken
// body) is not recorded.
func (y *history) get(client int, method, url string, r *rand.Rand) {
	req := httptest.NewRequest(method, "http://example.com"+url, nil)
	req.RequestURI = url
	if r.IntN(5) == 0 {
		req.Header.Set("X-Kind", "other")
	}
	w := httptest.NewRecorder()
	call := y.clock.Add(1)
	if !serves(y.h, w, req) || w.Code != http.StatusOK {
		return
	}
	if v, err := strconv.ParseInt(strings.Trim(w.Header().Get("ETag"), `"`), 10, 64); err == nil {
		y.record(client, call, v, linearInput{url: url})
	}
}

// serves reports whether the answer ended as it should.
func serves(h http.Handler, w http.ResponseWriter, r *http.Request) (whole bool) {
	defer func() {
		if p := recover(); p != nil && p != http.ErrAbortHandler {
			panic(p)
		}
	}()
	h.ServeHTTP(w, r)
	return true
}

// purge names one URL, a path with all queries, a prefix, a tag or everything.
func (y *history) purge(t *testing.T, client, i int, r *rand.Rand) {
	q := r.IntN(linearQueries)
	req := purge.Request{Site: "s", Soft: r.IntN(5) == 0}
	if r.IntN(2) == 0 { // as editors do: first the content, then the purge
		y.origin.versions[i].Add(1)
	}
	paths, queries := []int{i}, []int{0, 1}
	switch r.IntN(6) {
	case 0:
		req.URLs, queries = []string{"http://example.com" + linearURL(i, q)}, []int{q}
	case 1:
		req.URLs, req.AnyQuery = []string{"http://example.com" + linearURL(i, q)}, true
	case 2:
		req.Prefixes = []string{fmt.Sprintf("example.com/t/%d", i)}
	case 3:
		req.Tags = []string{"t" + strconv.Itoa(i)}
	case 4:
		req.Tags, paths = []string{"all"}, []int{0, 1, 2}
	case 5:
		req.Everything, paths = true, []int{0, 1, 2}
	}
	call := y.clock.Add(1)
	var inputs []linearInput
	for _, i := range paths {
		least := y.origin.versions[i].Load()
		for _, q := range queries {
			inputs = append(inputs, linearInput{url: linearURL(i, q), purge: true, least: least})
		}
	}
	p, faults := purge.Prepare(req, y.h.Normal)
	if faults != nil {
		t.Errorf("prepare %+v: %v", req, faults)
		return
	}
	y.rules.Apply(p, time.Now())
	if !req.Soft {
		y.record(client, call, 0, inputs...)
	}
	y.sweep.Wake()
}

// push brings the version that the origin has when the body is first read: it
// is no older than any purge that the push does not count as later.
func (y *history) push(i int) {
	var once sync.Once
	body := &trickle{pace: func() { y.origin.pace(3) }}
	header := linearHeader(i, 0)
	read := reads(func(p []byte) (int, error) {
		once.Do(func() { body.rest = strconv.FormatInt(y.origin.versions[i].Load(), 10) })
		return body.Read(p)
	})
	// The version is in the ETag too, so it must be known before: it is read
	// again inside, and the push given up when it has changed.
	v := y.origin.versions[i].Load()
	header.Set("ETag", fmt.Sprintf(`"%d"`, v))
	same := reads(func(p []byte) (int, error) {
		if y.origin.versions[i].Load() != v {
			return 0, io.ErrUnexpectedEOF
		}
		return read(p)
	})
	_, _ = y.h.Push(context.Background(), Push{
		URL: "http://example.com" + linearURL(i, 0), Header: header, Ask: http.Header{"X-Kind": {""}}, Body: same, Size: -1,
	}) // refusals are part of the history
}

type reads func([]byte) (int, error)

func (f reads) Read(p []byte) (int, error) { return f(p) }

// client does ops operations, with pauses.
func (y *history) client(t *testing.T, id, ops int, seed uint64) {
	r := rand.New(rand.NewPCG(seed, uint64(id)))
	hot := int(seed % linearPaths) // most of what happens is to one path
	for range ops {
		time.Sleep(time.Duration(r.IntN(5)) * time.Millisecond)
		i := hot
		if r.IntN(4) == 0 {
			i = r.IntN(linearPaths)
		}
		switch n := r.IntN(20); {
		case n < 10:
			y.get(id, http.MethodGet, linearURL(i, r.IntN(linearQueries)), r)
		case n == 10:
			y.get(id, http.MethodHead, linearURL(i, r.IntN(linearQueries)), r)
		case n < 14:
			y.purge(t, id, i, r)
		case n < 16:
			y.origin.versions[i].Add(1)
		case n == 16:
			y.push(i)
		case n == 17:
			y.get(id, http.MethodPost, linearURL(i, r.IntN(linearQueries)), r)
		case n == 18:
			y.h.Store.Each(func(o *Object) bool { y.h.Store.Discard(o); return r.IntN(2) == 0 })
		case n == 19:
			y.sweep.Pass(context.Background())
		}
	}
}

// play runs one history, in a bubble.
func (y *history) play(t *testing.T, seed uint64) {
	y.origin = &growing{rand: rand.New(rand.NewPCG(seed, 99))}
	y.rules = purge.NewRules(0)
	y.h = purgeable(t, y.rules, y.origin, nil)
	y.sweep = NewSweep(y.h.Store, y.rules, nil)
	ctx, stop := context.WithCancel(context.Background())
	var clients, sweeper sync.WaitGroup
	sweeper.Go(func() { y.sweep.Run(ctx) })
	for id := range 6 {
		clients.Go(func() { y.client(t, id, 10, seed) })
	}
	clients.Wait()
	stop()
	sweeper.Wait()
	time.Sleep(time.Minute) // what goes on behind ends
	y.h.Close()
	y.h.Store.Close()
}

// purgeable returns a handler of one site whose store is judged by rules. The
// caller closes it.
func purgeable(t testing.TB, rules *purge.Rules, origin http.RoundTripper, change func(*Config)) *Handler {
	t.Helper()
	st, err := NewStore(WithRules(StoreOptions{Memory: 1 << 20}, rules))
	if err != nil {
		t.Fatal(err)
	}
	c := Config{Store: st, Purge: rules, Sites: []Site{{Name: "s", Origin: origin, Cache: Cache{HitForMiss: time.Millisecond}}}}
	if change != nil {
		change(&c)
	}
	h, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestNoGetAfterAPurgeIsOlderThanIt(t *testing.T) {
	histories := 300
	if os.Getenv("SEAWALL_LONG") != "" {
		histories = 10_000
	}
	base := rand.Uint64()
	if s := os.Getenv("SEAWALL_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		base, histories = n, 1
	}
	gets, purges := 0, 0
	for n := range histories {
		seed := base + uint64(n)
		y := &history{}
		synctest.Test(t, func(t *testing.T) { y.play(t, seed) })
		for _, op := range y.ops {
			if op.Input.(linearInput).purge {
				purges++
			} else {
				gets++
			}
		}
		if model := linearModel(); !porcupine.CheckOperations(model, y.ops) {
			for _, op := range y.ops {
				t.Logf("%d..%d client %d: %s", op.Call, op.Return, op.ClientId, model.DescribeOperation(op.Input, op.Output))
			}
			t.Fatalf("SEAWALL_SEED=%d: a get returned what had been purged before it began", seed)
		}
	}
	t.Logf("%d histories, %d gets, %d purges", histories, gets, purges)
	if gets < histories || purges < histories {
		t.Errorf("%d gets and %d purges in %d histories: too few to show anything", gets, purges, histories)
	}
}
