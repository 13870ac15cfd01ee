// Package admin is the operator's side of a node: health, metrics and figures,
// purges, pushes and warm-ups, for those who may.
package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"seawall/edge"
	"seawall/edge/store"
	"seawall/origin"
	"seawall/purge"
)

// Config says where the figures come from. The functions may be called by any
// number of goroutines at once; a nil one has nothing to tell.
type Config struct {
	// Stats are the node's counters. Required.
	Stats *edge.Stats
	// Usage is what the memory tier holds.
	Usage func() store.Usage
	// Coding is the work of coders.
	Coding func() edge.CodingFigures
	// Origins are the counters of each pool in use, by name.
	Origins func() map[string]origin.Stats
	// Pools are the same pools, with their servers; the zero value has none.
	Pools Pools
	// Connections are those open now, by protocol.
	Connections func() map[string]int64
	// Dropped is how many access-log lines were not written.
	Dropped func() uint64
	// Ready returns nil while the node should be given traffic, else why not.
	Ready func() error
	// Version is told as a metric and in /v1/stats.
	Version string
	// Purges is the log of purges; its zero value keeps none.
	Purges Purges
	// Cache is what the node has stored; its zero value has nothing.
	Cache Cache
	// Functions are the edge functions; the zero value has none.
	Functions Functions
	// Extras is what the node does for them.
	Extras func() ExtrasFigures
	// Log receives refused calls and the audit; nil discards them.
	Log *slog.Logger
}

// Purges is the log of purges. All of it or none is given.
type Purges struct {
	// Apply purges, durably, and returns once this node has applied it. Errors
	// may be *purge.InvalidError and *purge.IdempotencyError.
	Apply func(ctx context.Context, r purge.Request, idempotencyKey string) (purge.Receipt, error)
	// Recent are the last n, the newest first.
	Recent func(n int) []purge.Receipt
	// Find is the purge of this id, if it is still known.
	Find func(id string) (purge.Receipt, bool)
	// Figures are the counters.
	Figures func() PurgeFigures
}

// PurgeFigures are counters of the purge log and its rules.
type PurgeFigures struct {
	Rules    int               // in force
	Epoch    uint64            // of the last purge applied
	Position uint64            // in the log, applied
	Applied  map[string]uint64 // purges applied since the start, by kind
	Passes   uint64            // of the sweep, that dropped rules
	Healthy  bool              // purges can be accepted and kept
}

// Cache is what the node has stored, by the configuration of the moment. All
// of it or none is given.
type Cache struct {
	// Normal returns what a URL is keyed by; the error says what is wrong
	// with it.
	Normal func(rawURL string) ([]purge.URL, error)
	// SiteOf is the site that answers for a host.
	SiteOf func(host string) (name string, ok bool)
	// Sites are the names of all.
	Sites func() []string
	// Push stores a response. Errors may be *edge.PushError.
	Push func(ctx context.Context, p edge.Push) (edge.Pushed, error)
	// Stored lists what is stored of a URL.
	Stored func(rawURL string) ([]edge.Stored, error)
	// Match counts what a purge would reach.
	Match func(ctx context.Context, p *purge.Prepared) (edge.Match, error)
	// Warm fetches a URL into the cache.
	Warm func(ctx context.Context, rawURL string) (edge.Warmed, error)
	// MaxObject is the largest content that a push may have, in bytes.
	MaxObject int64
}

// Handler answers the admin listener.
type Handler struct {
	Config
	metrics   http.Handler
	began     time.Time
	routes    []route
	holders   atomic.Pointer[[]*holder]
	failures  failures
	strangers logged // refused calls of nobody known
	warmups   warmups
	uploads   chan struct{} // a place for each that is read or judged
}

// New returns the handler of the admin listener, to be closed. Until Permit
// names tokens, it answers this machine alone.
func New(c Config) (*Handler, error) {
	if c.Stats == nil {
		return nil, errors.New("admin: no stats")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	h := &Handler{Config: c, began: time.Now(), routes: routes(), uploads: make(chan struct{}, maxUploads)}
	h.Permit(Access{})
	h.warmups.open(h.Cache)
	registry := prometheus.NewRegistry()
	for _, one := range []prometheus.Collector{
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		&collector{h},
	} {
		if err := registry.Register(one); err != nil {
			return nil, fmt.Errorf("admin: metrics: %w", err)
		}
	}
	h.metrics = promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		MaxRequestsInFlight: 4,
		ErrorLog:            slog.NewLogLogger(c.Log.Handler(), slog.LevelWarn),
	})
	return h, nil
}

// Close ends the warm-ups under way and waits for them. No more are taken.
func (h *Handler) Close() { h.warmups.close() }

// ServeHTTP answers health to all and everything else to those who may.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	c := &call{h: h, w: w, r: r}
	c.giveUpBody() // until something wants it
	switch {
	case c.varnishMethod(): // a site may have such a path too
	case r.URL.Path == "/healthz":
		c.only(healthz)
		return
	case r.URL.Path == "/readyz":
		c.only(readyz)
		return
	}
	defer c.note()
	allowed := c.find()
	if !c.admit() {
		return
	}
	switch {
	case c.route == nil && allowed != "":
		w.Header().Set("Allow", allowed)
		c.fail(http.StatusMethodNotAllowed, clip(r.URL.Path)+" answers "+allowed+" only.")
	case c.route == nil:
		c.other()
	case c.route.stored && h.Cache.Normal == nil:
		c.fail(http.StatusNotImplemented, "This node has neither a cache nor a purge log to answer this call with.")
	default:
		if c.asked() {
			c.route.serve(c)
		}
	}
}

// only lets GET and HEAD through to f.
func (c *call) only(f func(*call)) {
	if c.r.Method != http.MethodGet && c.r.Method != http.MethodHead {
		c.w.Header().Set("Allow", "GET, HEAD")
		c.fail(http.StatusMethodNotAllowed, c.r.URL.Path+" answers GET and HEAD only.")
		return
	}
	f(c)
}

func healthz(c *call) {
	c.w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintln(c.w, "up")
}

func readyz(c *call) {
	if c.h.Ready != nil {
		if err := c.h.Ready(); err != nil {
			c.fail(http.StatusServiceUnavailable, "Not ready: "+err.Error()+".")
			return
		}
	}
	c.w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintln(c.w, "ready")
}

// other tells what is to come from what will never be.
func (c *call) other() {
	for _, p := range []string{"/v1/explain", "/v1/reload", "/v1/events"} {
		if rest, ok := strings.CutPrefix(c.r.URL.Path, p); ok && (rest == "" || rest[0] == '/') {
			c.fail(http.StatusNotImplemented, "This version of Seawall does not answer this call yet; GET /openapi.yaml tells what it has.")
			return
		}
	}
	if c.r.URL.Path == "/" {
		c.fail(http.StatusNotImplemented, "This version of Seawall has no dashboard yet; GET /openapi.yaml tells what it has.")
		return
	}
	c.fail(http.StatusNotFound, "There is no such call; GET /openapi.yaml tells what there is.")
}

// clip bounds what a log line takes from a request.
func clip(s string) string { return s[:min(len(s), 200)] }
