package admin

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"seawall/purge"
)

// The bounds of warm-ups.
const (
	runningWarmups  = 4       // at once
	keptWarmups     = 64      // known, with those that have ended
	mostWarmed      = 100_000 // URLs of one
	mostAtOnce      = 64      // fetches of one
	usualAtOnce     = 4
	shownFailures   = 20
	fetchWait       = 5 * time.Minute // for one URL
	warmupIDLetters = 12
)

// warmups are those under way and the last that ended.
type warmups struct {
	cache  Cache
	client *http.Client
	ctx    context.Context // ends all
	cancel context.CancelFunc
	wait   sync.WaitGroup

	mu     sync.Mutex
	closed bool      // guarded by mu
	all    []*warmup // the oldest first; guarded by mu
}

// warmup is one list of URLs on its way into the cache.
type warmup struct {
	from   warmupRequest
	token  *holder
	cancel context.CancelFunc

	mu   sync.Mutex
	told warmupBody // guarded by mu
}

type warmupRequest struct {
	urls       []string
	sitemap    string
	concurrent int
}

// warmupBody is what is told of one.
type warmupBody struct {
	ID       string          `json:"id"`
	State    string          `json:"state"`    // running, done, failed or cancelled
	Listed   bool            `json:"listed"`   // total will not grow any more
	Total    int             `json:"total"`    // URLs found so far
	Done     int             `json:"done"`     // of them, whatever came of it
	Stored   int             `json:"stored"`   // of them, in the cache now
	Failed   int             `json:"failed"`   // of them, not fetched, or with an error
	Bytes    int64           `json:"bytes"`    // of content
	Outcomes map[string]int  `json:"outcomes"` // by what became of them
	Failures []warmupFailure `json:"failures"` // the first of them
	Detail   string          `json:"detail,omitempty"`
	BeganAt  time.Time       `json:"began_at"`
	EndedAt  *time.Time      `json:"ended_at"`
}

type warmupFailure struct {
	URL    string `json:"url"`
	Detail string `json:"detail"`
}

func (w *warmups) open(cache Cache) {
	w.cache, w.client = cache, newSitemapClient()
	w.ctx, w.cancel = context.WithCancel(context.Background())
}

// close cancels all and waits for them.
func (w *warmups) close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.cancel()
	w.wait.Wait()
	w.client.CloseIdleConnections()
}

// begin starts one, or says why there can be none now.
func (w *warmups) begin(from warmupRequest, token *holder) (*warmup, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil, errors.New("the node is ending")
	}
	running := 0
	for _, one := range w.all {
		if one.running() {
			running++
		}
	}
	if running >= runningWarmups {
		return nil, fmt.Errorf("%d warm-ups are under way, the most at once", running)
	}
	for len(w.all) >= keptWarmups {
		i := slices.IndexFunc(w.all, func(one *warmup) bool { return !one.running() })
		w.all = slices.Delete(w.all, i, i+1) // most of them have ended
	}
	ctx, cancel := context.WithCancel(w.ctx)
	one := &warmup{from: from, token: token, cancel: cancel}
	one.told = warmupBody{ID: rand.Text()[:warmupIDLetters], State: "running", Outcomes: map[string]int{}, BeganAt: time.Now().UTC()}
	w.all = append(w.all, one)
	w.wait.Go(func() {
		defer cancel()
		w.run(ctx, one)
	})
	return one, nil
}

// find returns the one of this id.
func (w *warmups) find(id string) *warmup {
	w.mu.Lock()
	defer w.mu.Unlock()
	if i := slices.IndexFunc(w.all, func(one *warmup) bool { return one.told.ID == id }); i >= 0 { // an id never changes
		return w.all[i]
	}
	return nil
}

// run fetches all URLs of one, and tells its end.
func (w *warmups) run(ctx context.Context, one *warmup) {
	urls := make(chan string)
	var workers sync.WaitGroup
	for range one.from.concurrent {
		workers.Go(func() {
			for u := range urls {
				w.fetch(ctx, one, u)
			}
		})
	}
	err := w.list(ctx, one, func(u string) error {
		if !one.add() {
			return fmt.Errorf("more than %d URLs; the rest was left out", mostWarmed)
		}
		select {
		case urls <- u:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	close(urls)
	one.listed()
	workers.Wait()
	one.end(ctx, err)
}

// list passes on every URL of one, in its order.
func (w *warmups) list(ctx context.Context, one *warmup, pass func(string) error) error {
	urls := one.from.urls
	one.from.urls = nil // what is told of it later needs no list
	for _, u := range urls {
		if err := pass(u); err != nil {
			return err
		}
	}
	if one.from.sitemap == "" {
		return nil
	}
	s := &sitemaps{client: w.client, found: pass}
	return s.follow(ctx, one.from.sitemap, 0)
}

// fetch warms one URL.
func (w *warmups) fetch(ctx context.Context, one *warmup, u string) {
	if ctx.Err() != nil {
		return
	}
	if why := w.foreign(one.token, u); why != "" {
		one.failed(u, "refused", why)
		return
	}
	defer func() {
		if v := recover(); v != nil { // one URL must not end the node
			one.failed(u, "error", fmt.Sprintf("the fetch gave up: %v", v))
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, fetchWait)
	defer cancel()
	got, err := w.cache.Warm(ctx, u)
	switch {
	case err != nil:
		one.failed(u, "error", err.Error())
	case got.Status >= 400:
		one.count(got.Outcome, got.Stored, got.Bytes, &warmupFailure{u, fmt.Sprintf("status %d", got.Status)})
	default:
		one.count(got.Outcome, got.Stored, got.Bytes, nil)
	}
}

// foreign says why a URL may not be warmed, or nothing: it must be of a site
// here, and of one that the token may push to.
func (w *warmups) foreign(token *holder, raw string) string {
	if len(raw) > maxWarmURL {
		return fmt.Sprintf("is longer than %d bytes", maxWarmURL)
	}
	normal, err := w.cache.Normal(raw)
	if err != nil {
		return err.Error()
	}
	for _, n := range normal {
		site, ok := w.cache.SiteOf(n.Host)
		if !ok {
			return "is of no site here"
		}
		if token != nil && !token.may(site) {
			return "is of a site that the token " + token.Name + " is not bound to"
		}
	}
	return ""
}

func (one *warmup) running() bool {
	one.mu.Lock()
	defer one.mu.Unlock()
	return one.told.State == "running"
}

// add counts a URL that was found; it reports whether there is room for it.
func (one *warmup) add() bool {
	one.mu.Lock()
	defer one.mu.Unlock()
	if one.told.Total >= mostWarmed {
		return false
	}
	one.told.Total++
	return true
}

func (one *warmup) listed() {
	one.mu.Lock()
	defer one.mu.Unlock()
	one.told.Listed = true
}

// count notes what became of a URL.
func (one *warmup) count(outcome string, stored bool, bytes int64, failure *warmupFailure) {
	one.mu.Lock()
	defer one.mu.Unlock()
	t := &one.told
	t.Done++
	t.Bytes += bytes
	t.Outcomes[outcome]++
	if stored {
		t.Stored++
	}
	if failure == nil {
		return
	}
	if t.Failed++; len(t.Failures) < shownFailures {
		t.Failures = append(t.Failures, warmupFailure{shorten(failure.URL), shorten(failure.Detail)})
	}
}

func (one *warmup) failed(u, outcome, why string) {
	one.count(outcome, false, 0, &warmupFailure{u, why})
}

// end notes how it ended.
func (one *warmup) end(ctx context.Context, err error) {
	one.mu.Lock()
	defer one.mu.Unlock()
	t := &one.told
	now := time.Now().UTC()
	t.EndedAt, t.State = &now, "done"
	switch {
	case ctx.Err() != nil:
		t.State = "cancelled"
	case err != nil:
		t.State, t.Detail = "failed", shorten(err.Error())
	}
}

// body is what is told of it now.
func (one *warmup) body() warmupBody {
	one.mu.Lock()
	defer one.mu.Unlock()
	b := one.told
	b.Outcomes = maps.Clone(b.Outcomes)
	b.Failures = append([]warmupFailure{}, b.Failures...)
	return b
}

// postWarmup is POST /v1/warmups.
func postWarmup(c *call) {
	f := c.readFields(maxWarmBody)
	if f == nil {
		return
	}
	from := warmupRequest{concurrent: usualAtOnce}
	f.list("urls", &from.urls)
	f.text("sitemap", &from.sitemap)
	f.number("concurrency", &from.concurrent)
	c.what = fmt.Sprintf("urls=%d sitemap=%v", len(from.urls), from.sitemap != "")
	errs := f.done()
	fault := func(field, detail string) { errs = append(errs, &purge.FieldError{Field: field, Detail: detail}) }
	if from.concurrent < 1 || from.concurrent > mostAtOnce {
		fault("concurrency", fmt.Sprintf("is not a number from 1 to %d", mostAtOnce))
	}
	if len(from.urls) == 0 && from.sitemap == "" && len(errs) == 0 {
		fault("urls", "names nothing to warm, nor does sitemap")
	}
	if len(errs) == 0 {
		errs = c.checkWarmup(&from)
	}
	if len(errs) > 0 {
		c.invalid(errs[:min(len(errs), maxFaults)]...)
		return
	}
	one, err := c.h.warmups.begin(from, c.token)
	if err != nil {
		c.w.Header().Set("Retry-After", "5")
		c.fail(http.StatusServiceUnavailable, "No warm-up can begin now: "+err.Error()+".")
		return
	}
	body := one.body()
	c.id = body.ID
	c.w.Header().Set("Location", "/v1/warmups/"+body.ID)
	c.ok(http.StatusAccepted, body)
}

// checkWarmup looks at what was named in the call itself. What a sitemap lists
// is looked at when it is read.
func (c *call) checkWarmup(from *warmupRequest) (errs []*purge.FieldError) {
	for i, u := range from.urls {
		if why := c.h.warmups.foreign(c.token, u); why != "" {
			errs = append(errs, &purge.FieldError{Field: fmt.Sprintf("urls[%d]", i), Detail: why})
		}
	}
	if from.sitemap == "" {
		return errs
	}
	at, err := url.Parse(from.sitemap)
	switch {
	case err != nil || at.Scheme != "http" && at.Scheme != "https" || at.Host == "" || at.User != nil:
		errs = append(errs, &purge.FieldError{Field: "sitemap", Detail: "is not http://host/path or https://host/path"})
	case c.outsideHost(at.Host) != "":
		// A token for some sites must not make the node ask other servers.
		errs = append(errs, &purge.FieldError{Field: "sitemap", Detail: "is of no site that the token is bound to"})
	}
	return errs
}

// listWarmups is GET /v1/warmups.
func listWarmups(c *call) {
	w := &c.h.warmups
	w.mu.Lock()
	all := slices.Clone(w.all)
	w.mu.Unlock()
	body := struct {
		Warmups []warmupBody `json:"warmups"`
	}{[]warmupBody{}}
	for _, one := range slices.Backward(all) {
		if c.owns(one) {
			body.Warmups = append(body.Warmups, one.body())
		}
	}
	c.ok(http.StatusOK, body)
}

// owns reports whether the caller may see and cancel one: a token bound to
// sites, only its own.
func (c *call) owns(one *warmup) bool {
	return c.token == nil || c.token.Sites == nil || one.token != nil && one.token.Name == c.token.Name
}

// getWarmup is GET /v1/warmups/{id}.
func getWarmup(c *call) {
	if one := c.warmup(); one != nil {
		c.ok(http.StatusOK, one.body())
	}
}

// deleteWarmup is DELETE /v1/warmups/{id}: it ends one that is under way.
func deleteWarmup(c *call) {
	if one := c.warmup(); one != nil {
		c.id = one.body().ID
		one.cancel()
		c.status = http.StatusNoContent
		c.w.WriteHeader(http.StatusNoContent)
	}
}

// warmup is the one that the path names; if there is none, the call has been
// answered.
func (c *call) warmup() *warmup {
	one := c.h.warmups.find(strings.TrimSpace(c.args["id"]))
	if one == nil || !c.owns(one) {
		c.fail(http.StatusNotFound, "No warm-up of this id is known; old ones are forgotten.")
		return nil
	}
	return one
}
