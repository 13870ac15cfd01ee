// Package admin is the operator's side of a node: health, metrics and figures,
// answered to this machine alone.
package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"seawall/edge"
	"seawall/edge/store"
	"seawall/origin"
)

// Config says where the figures come from. The functions may be called by any
// number of goroutines at once; a nil one has nothing to tell.
type Config struct {
	// Stats are the node's counters. Required.
	Stats *edge.Stats
	// Usage is what the memory tier holds.
	Usage func() store.Usage
	// Origins are the counters of each pool in use, by name.
	Origins func() map[string]origin.Stats
	// Connections are those open now, by protocol.
	Connections func() map[string]int64
	// Dropped is how many access-log lines were not written.
	Dropped func() uint64
	// Ready returns nil while the node should be given traffic, else why not.
	Ready func() error
	// Version is told as a metric and in /v1/stats.
	Version string
	// Log receives refused calls; nil discards them.
	Log *slog.Logger
}

// Handler answers the admin listener.
type Handler struct {
	Config
	metrics http.Handler
	began   time.Time
	refused logged
}

// New returns the handler of the admin listener.
func New(c Config) (*Handler, error) {
	if c.Stats == nil {
		return nil, errors.New("admin: no stats")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	h := &Handler{Config: c, began: time.Now()}
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

// ServeHTTP answers health to all and everything else to those whom the guard
// lets through.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	switch r.URL.Path {
	case "/healthz":
		h.only(w, r, h.healthz)
		return
	case "/readyz":
		h.only(w, r, h.readyz)
		return
	}
	if why := foreign(r); why != "" {
		h.Stats.Fault(edge.FaultAdmin)
		if before, ok := h.refused.may(time.Now()); ok {
			h.Log.Warn("admin call refused", "reason", why, "peer", r.RemoteAddr, "host", clip(r.Host),
				"method", clip(r.Method), "path", clip(r.URL.Path), "lines_left_out", before)
		}
		problem(w, http.StatusForbidden, why)
		return
	}
	switch r.URL.Path {
	case "/metrics":
		h.only(w, r, h.metrics.ServeHTTP)
	case "/v1/stats":
		h.only(w, r, h.stats)
	default:
		h.other(w, r)
	}
}

// only lets GET and HEAD through to f.
func (h *Handler) only(w http.ResponseWriter, r *http.Request, f http.HandlerFunc) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		problem(w, http.StatusMethodNotAllowed, r.URL.Path+" answers GET and HEAD only.")
		return
	}
	f(w, r)
}

func (h *Handler) healthz(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintln(w, "up")
}

func (h *Handler) readyz(w http.ResponseWriter, _ *http.Request) {
	if h.Ready != nil {
		if err := h.Ready(); err != nil {
			problem(w, http.StatusServiceUnavailable, "Not ready: "+err.Error()+".")
			return
		}
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintln(w, "ready")
}

// other tells what is to come from what will never be.
func (h *Handler) other(w http.ResponseWriter, r *http.Request) {
	coming := []string{
		"/v1/purges", "/v1/objects", "/v1/warmups", "/v1/explain", "/v1/functions", "/v1/origins", "/v1/reload",
		"/v1/events", "/openapi.yaml", "/purge", "/service", "/client/v4/zones",
	}
	later := r.URL.Path == "/" || r.Method == "PURGE" || r.Method == "BAN" ||
		slices.ContainsFunc(coming, func(p string) bool {
			rest, ok := strings.CutPrefix(r.URL.Path, p)
			return ok && (rest == "" || rest[0] == '/')
		})
	if later {
		problem(w, http.StatusNotImplemented, "This version of Seawall does not answer this call yet; it has /healthz, /readyz, /metrics and /v1/stats.")
		return
	}
	problem(w, http.StatusNotFound, "There is no such call; this version has /healthz, /readyz, /metrics and /v1/stats.")
}

// problem answers with a problem document (RFC 9457).
func problem(w http.ResponseWriter, status int, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(struct { // a client that has gone needs no answer
		Type   string `json:"type"`
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail"`
	}{"about:blank", http.StatusText(status), status, detail})
}

// clip bounds what a log line takes from a request.
func clip(s string) string { return s[:min(len(s), 200)] }
