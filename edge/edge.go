// Package edge answers requests: from the store where it may, from the origin
// where it must. ServeHTTP is one request's whole walk; each step has a file.
package edge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"sync"

	"golang.org/x/net/http/httpguts"

	"seawall/edge/encode"
)

// Handler answers for the sites of one configuration.
type Handler struct {
	Config
	sites sites
	pool  sync.Pool // of *exchange
	words words
	ages  texts  // values of Age
	hits  texts  // of Cache-Status
	loop  string // this node in CDN-Loop

	ctx    context.Context // ends upgrades and refreshes when the handler closes
	cancel context.CancelFunc
	wait   sync.WaitGroup

	recoder *recoder // nil when nothing is coded again
	pace    pace     // of refreshes that purges asked for
}

// New returns a handler, to be closed. The error names every fault of the
// configuration.
func New(c Config) (*Handler, error) {
	if c.Node == "" {
		c.Node = "seawall"
	}
	if c.Stats == nil {
		c.Stats = NewStats()
	}
	if c.Log == nil {
		c.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	var faults []error
	if c.Store == nil {
		faults = append(faults, errors.New("edge: no store"))
	}
	if c.Store != nil && c.Purge != nil && !c.Store.Purges() {
		faults = append(faults, errors.New("edge: the store does not know the purges (hint: make it WithRules)"))
	}
	if !httpguts.ValidHeaderFieldName(c.Node) {
		faults = append(faults, fmt.Errorf("edge: node %q (hint: letters, digits, dots and dashes)", c.Node))
	}
	if len(c.Sites) == 0 {
		faults = append(faults, errors.New("edge: no site"))
	}
	h := &Handler{Config: c, words: words{log: c.Log}, hits: texts{before: hitStatus}, loop: "seawall; node=" + c.Node}
	var list []*site
	for _, s := range c.Sites {
		made, err := newSite(s, c.Stats)
		faults = append(faults, err)
		list = append(list, made)
	}
	var err error
	h.sites, err = newSites(list)
	if err := errors.Join(append(faults, err)...); err != nil {
		return nil, err
	}
	if h.Coders == nil {
		h.Coders = encode.NewCoders(0, 0)
	}
	if h.Decoders == nil {
		h.Decoders = encode.NewDecoders(0)
	}
	h.pool.New = func() any { return &exchange{h: h} }
	h.ctx, h.cancel = context.WithCancel(context.Background())
	if h.Recode > 0 && slices.ContainsFunc(list, func(s *site) bool { return s.encodes() != nil }) {
		h.recoder = newRecoder(h)
		h.wait.Go(h.recoder.run)
	}
	return h, nil
}

// Close ends the upgraded connections and the refreshes that this handler
// began, and waits for them. Requests must have ended before.
func (h *Handler) Close() {
	h.pace.mu.Lock()
	h.pace.closed = true
	h.pace.mu.Unlock()
	h.cancel()
	h.wait.Wait()
}

// ServeHTTP answers one request: the whole walk.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := h.begin(w, r)
	defer x.end()
	x.walk()
	x.complete()
}

// complete ends a response that the walk has written whole.
func (x *exchange) complete() {
	x.completeCalled()
	x.completeCoded()
}

func (x *exchange) walk() {
	if !x.admit() {
		return
	}
	outcome := x.lookup()
	if outcome != Hit && !x.proven() {
		return
	}
	switch outcome {
	case Hit:
		x.serveHit()
	case Stale:
		x.renewBehind()
		x.serveHit()
	case Expired, Miss:
		x.fetch()
	case Local:
		x.answerLocal()
	default:
		x.pass(nil)
	}
}
