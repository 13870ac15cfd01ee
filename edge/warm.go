package edge

import (
	"cmp"
	"container/heap"
	"context"
	"crypto/tls"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"seawall/purge"
)

// Warmed tells what became of one URL.
type Warmed struct {
	URL string `json:"url"`
	// Outcome is the request's: "hit" where it was stored and fresh already.
	Outcome string `json:"outcome"`
	Status  int    `json:"status"`
	// Bytes of content that were read.
	Bytes int64 `json:"bytes"`
	// Stored is true when requests find it now.
	Stored bool `json:"stored"`
	// Detail says why it is not, as in Cache-Status or Proxy-Status.
	Detail string `json:"detail,omitempty"`
}

// warmAgent is what the origin is told of who asks.
const warmAgent = "seawall-warm"

// Warm asks this node for an absolute URL as a client without any preference
// would, and reads the answer to its end. A stale object is fetched anew. It is
// a request like any other, counted and logged as such, with no client address.
// It ends early with ctx, whose error it then returns; other errors say what is
// wrong with the URL.
func (h *Handler) Warm(ctx context.Context, rawURL string) (Warmed, error) {
	u, err := h.locate(rawURL)
	if err != nil {
		return Warmed{URL: rawURL}, err
	}
	ctx, leave, ok := h.enter(ctx)
	if !ok {
		return Warmed{URL: rawURL}, context.Canceled
	}
	defer leave()
	w := h.visit(ctx, u.URL, http.Header{"User-Agent": {warmAgent}})
	w.URL = rawURL
	if w.Status == 0 && ctx.Err() != nil {
		return w, context.Cause(ctx)
	}
	return w, nil
}

// visit sends the node a GET of its own.
func (h *Handler) visit(ctx context.Context, u purge.URL, header http.Header) (done Warmed) {
	done.URL = string(appendKey(nil, u.Scheme, u.Host, u.Path, u.Query))
	r := &http.Request{
		Method: http.MethodGet, Host: u.Host, RequestURI: u.Path + u.Query,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: header, Body: http.NoBody,
	}
	if u.Scheme == "https" {
		r.TLS = &tls.ConnectionState{HandshakeComplete: true}
	}
	w := &nowhere{header: http.Header{}}
	x := h.begin(w, r.WithContext(ctx))
	x.renew = true
	defer func() {
		if p := recover(); p != nil && p != http.ErrAbortHandler {
			panic(p)
		}
	}()
	defer x.end()
	defer func() {
		done.Outcome, done.Status, done.Bytes = x.outcome.String(), x.sent, x.bytes
		done.Detail = x.status.detail
		if proxy := w.header.Get("Proxy-Status"); done.Detail == "" && proxy != "" {
			done.Detail = strings.TrimPrefix(proxy, "seawall; error=")
		}
		found := len(x.key) > 0 && h.Store.Peek(x.hash, x.key, &x.ask).Object != nil
		done.Stored = found && x.outcome != Fault
	}()
	x.walk()
	x.complete()
	return done
}

// nowhere is a ResponseWriter whose client takes everything and keeps nothing.
type nowhere struct{ header http.Header }

func (w *nowhere) Header() http.Header         { return w.header }
func (w *nowhere) WriteHeader(int)             {}
func (w *nowhere) Write(p []byte) (int, error) { return len(p), nil }

const (
	// refreshMost is how many objects one purge with refresh re-fetches.
	refreshMost = 1000
	// refreshAtOnce and refreshPause bound what refreshes ask of origins: so
	// many at once, and one begun in each pause at most, all purges together.
	refreshAtOnce = 4
	refreshPause  = time.Second / 50
	// refreshWait is for one of them: an origin that never ends must not keep
	// its place for ever.
	refreshWait = 5 * time.Minute
)

// RefreshMatches re-fetches the hottest of the stored responses that p is of,
// behind their clients, who get what is stale meanwhile where its terms allow.
// It returns when that is done, or with ctx, or when the handler closes.
func (h *Handler) RefreshMatches(ctx context.Context, p *purge.Prepared) {
	ctx, leave, ok := h.enter(ctx)
	if !ok {
		return
	}
	defer leave()
	hot := h.hottest(ctx, p)
	todo := make(chan errand)
	var workers sync.WaitGroup
	for range min(refreshAtOnce, len(hot)) {
		workers.Go(func() {
			for e := range todo {
				if ctx.Err() == nil {
					h.refresh(ctx, e)
				}
			}
		})
	}
	for _, e := range hot {
		if !h.turn(ctx) {
			break
		}
		todo <- e
	}
	close(todo)
	workers.Wait()
}

// enter counts work of the node's own, which Close ends and waits for. It is
// false once the handler closes.
func (h *Handler) enter(ctx context.Context) (inner context.Context, leave func(), ok bool) {
	h.pace.mu.Lock()
	defer h.pace.mu.Unlock()
	if h.pace.closed {
		return nil, nil, false
	}
	h.wait.Add(1)
	inner, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(h.ctx, cancel)
	return inner, func() { stop(); cancel(); h.wait.Done() }, true
}

// turn waits until one more refresh may begin.
func (h *Handler) turn(ctx context.Context) bool {
	h.pace.mu.Lock()
	at := h.pace.next
	if now := time.Now(); at.Before(now) {
		at = now
	}
	h.pace.next = at.Add(refreshPause)
	h.pace.mu.Unlock()
	return pause(ctx, time.Until(at))
}

// pace spreads refreshes over time.
type pace struct {
	mu     sync.Mutex
	next   time.Time // guarded by mu
	closed bool      // guarded by mu: no more work of the node's own begins
}

// errand is a request that selects one stored response. It does not keep the
// response: one that leaves the store while others are fetched is to be freed.
type errand struct {
	at     purge.URL
	header http.Header
}

func errandFor(o *Object) errand {
	e := errand{o.Meta.Subject.URL, headerFor(o)}
	if o.Meta.Subject.Viewer.Host != "" {
		e.at = o.Meta.Subject.Viewer
	}
	e.header.Set("User-Agent", warmAgent)
	return e
}

// refresh fetches one object anew, through the walk that its clients go.
func (h *Handler) refresh(ctx context.Context, e errand) {
	defer func() {
		if p := recover(); p != nil { // as net/http does for one request
			h.Stats.Fault(FaultPanic)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, refreshWait)
	defer cancel()
	h.visit(ctx, e.at, e.header)
}

// hottest returns requests for the stored responses that p is of, up to
// refreshMost, those used most first.
func (h *Handler) hottest(ctx context.Context, p *purge.Prepared) []errand {
	var top coolest
	err := h.scan(ctx, p, func(o *Object) {
		switch {
		case len(top) < refreshMost:
			heap.Push(&top, o)
		case o.Heat() > top[0].Heat():
			top[0] = o
			heap.Fix(&top, 0)
		}
	})
	if err != nil {
		return nil
	}
	slices.SortFunc(top, func(a, b *Object) int {
		return cmp.Or(cmp.Compare(b.Heat(), a.Heat()), strings.Compare(a.Key, b.Key))
	})
	hot := make([]errand, len(top))
	for i, o := range top {
		hot[i] = errandFor(o)
	}
	return hot
}

// coolest is a heap with the least used on top.
type coolest []*Object

func (c coolest) Len() int           { return len(c) }
func (c coolest) Less(i, j int) bool { return c[i].Heat() < c[j].Heat() }
func (c coolest) Swap(i, j int)      { c[i], c[j] = c[j], c[i] }
func (c *coolest) Push(x any)        { *c = append(*c, x.(*Object)) }
func (c *coolest) Pop() any {
	last := len(*c) - 1
	o := (*c)[last]
	*c = (*c)[:last]
	return o
}
