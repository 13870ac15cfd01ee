package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"seawall/edge"
	"seawall/edge/admin"
	"seawall/purge"
)

// The bounds of what purges cost.
const (
	openWait      = 2 * time.Minute // for the log's replay
	maxRefreshing = 64              // purges whose refresh waits
)

// purges are the node's rules, the log that they come from, and what runs
// beside it. They outlive configurations.
type purges struct {
	n     *node
	rules *purge.Rules
	log   *purge.Log // nil until open
	sweep *edge.Sweep

	refresh chan *purge.Prepared // whose matches are to be fetched anew
	ctx     context.Context      // ends the sweep and the refresh
	cancel  context.CancelFunc
	wait    sync.WaitGroup

	passes  atomic.Uint64
	mu      sync.Mutex
	applied map[string]uint64 // by kind; guarded by mu
}

// newPurges returns the rules alone, for the store to be made with.
func newPurges(n *node) *purges {
	p := &purges{n: n, rules: purge.NewRules(0), applied: make(map[string]uint64), refresh: make(chan *purge.Prepared, maxRefreshing)}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// open replays the log and starts what runs beside it. There must be a
// generation: it knows what URLs are keyed by.
func (p *purges) open(d *data, node string, log *slog.Logger) error {
	dir := ""
	if d.path != "" {
		dir = filepath.Join(d.path, "purge")
	}
	p.sweep = edge.NewSweep(p.n.store, p.rules, p.swept)
	p.sweep.Log = log
	ctx, cancel := context.WithTimeout(p.ctx, openWait)
	defer cancel()
	opened, err := purge.Open(ctx, purge.Options{Dir: dir, Node: node, Rules: p.rules, Normal: p.n.normal, Log: log, Applied: p.took})
	if err != nil {
		return fmt.Errorf("purge log in %s: %w (hint: the folder must be the node's to write and have room; "+
			"--data DIR chooses another, --data \"\" keeps purges in memory)", dir, err)
	}
	p.log = opened
	p.wait.Go(func() { p.sweep.Run(p.ctx) })
	p.wait.Go(p.refreshAll)
	p.sweep.Wake() // for what was replayed
	return nil
}

// swept tells the log which rules no object needs any more.
func (p *purges) swept(low uint64) error {
	p.passes.Add(1)
	return p.log.Swept(low)
}

// took is told of each purge that was applied. It must not wait.
func (p *purges) took(_ purge.Receipt, prepared *purge.Prepared) {
	r := prepared.Request()
	p.mu.Lock()
	p.applied[admin.KindOf(&r)]++
	p.mu.Unlock()
	p.sweep.Wake()
	if !r.Refresh {
		return
	}
	select {
	case p.refresh <- prepared:
	default:
		p.n.log.Warn("a purge's refresh was left out: too many wait", "waiting", maxRefreshing)
	}
}

// refreshAll fetches anew what purges with refresh made stale, one purge after
// another.
func (p *purges) refreshAll() {
	for {
		select {
		case <-p.ctx.Done():
			return
		case prepared := <-p.refresh:
			p.n.within(func(h *edge.Handler) { h.RefreshMatches(p.ctx, prepared) })
		}
	}
}

// purgeURL takes a client's PURGE.
func (p *purges) purgeURL(ctx context.Context, url string, soft bool) error {
	if p.log == nil {
		return errors.New("the purge log is not open yet")
	}
	receipt, err := p.log.Purge(ctx, purge.Request{URLs: []string{url}, Soft: soft}, "")
	if err != nil {
		return err
	}
	p.n.log.Info("a client's PURGE", "audit", true, "url", show(url), "soft", soft, "id", receipt.ID)
	return nil
}

// figures are the counters of the metrics.
func (p *purges) figures() admin.PurgeFigures {
	f := admin.PurgeFigures{
		Rules: p.rules.Len(), Epoch: p.rules.Epoch(), Passes: p.passes.Load(), Applied: make(map[string]uint64),
		Position: p.log.Position(), Healthy: p.log.Healthy() == nil,
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for kind, n := range p.applied {
		f.Applied[kind] = n
	}
	return f
}

// end stops what runs beside the log, and waits for it. Purges go on.
func (p *purges) end() {
	p.cancel()
	p.wait.Wait()
}

// close closes the log.
func (p *purges) close() error {
	if p.log == nil {
		return nil
	}
	return p.log.Close()
}

// within lets the generation of the moment do something. A reload does not
// end it meanwhile.
func (n *node) within(f func(*edge.Handler)) {
	g, shard := n.current.enter()
	defer g.leave(shard)
	f(g.handler)
}

// normal is what a URL is keyed by, by the configuration of the moment.
func (n *node) normal(rawURL string) (all []purge.URL, err error) {
	n.within(func(h *edge.Handler) { all, err = h.Normal(rawURL) })
	return all, err
}

// cache is what the admin API sees of the cache.
func (n *node) cache() admin.Cache {
	return admin.Cache{
		Normal:    n.normal,
		MaxObject: n.store.MaxObject(),
		SiteOf: func(host string) (name string, ok bool) {
			n.within(func(h *edge.Handler) { name, ok = h.SiteOf(host) })
			return name, ok
		},
		Sites: func() (all []string) {
			n.within(func(h *edge.Handler) { all = h.Sites() })
			return all
		},
		Push: func(ctx context.Context, p edge.Push) (done edge.Pushed, err error) {
			n.within(func(h *edge.Handler) { done, err = h.Push(ctx, p) })
			return done, err
		},
		Stored: func(rawURL string) (all []edge.Stored, err error) {
			n.within(func(h *edge.Handler) { all, err = h.Stored(rawURL) })
			return all, err
		},
		Match: func(ctx context.Context, p *purge.Prepared) (m edge.Match, err error) {
			n.within(func(h *edge.Handler) { m, err = h.Match(ctx, p) })
			return m, err
		},
		Warm: func(ctx context.Context, rawURL string) (done edge.Warmed, err error) {
			n.within(func(h *edge.Handler) { done, err = h.Warm(ctx, rawURL) })
			return done, err
		},
	}
}
