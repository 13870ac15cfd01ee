package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"seawall/edge"
	"seawall/edge/admin"
	"seawall/edge/listen"
	"seawall/purge"
)

// node is a running node: what outlives configurations, and the generation
// that answers.
type node struct {
	t     *terminal
	log   *slog.Logger
	level *slog.LevelVar
	store *edge.Store
	stats *edge.Stats
	purge *purges

	functions *functions
	drains    *drains

	current current
	keys    *keyring // nil without HTTPS
	front   *listen.Server
	side    *listen.Server // the admin listener; nil when off
	admin   *admin.Handler // behind it
	state   atomic.Pointer[string]
	retired sync.WaitGroup // generations that wait for their last request

	changing sync.Mutex // held to replace the generation; before mu
	ended    bool       // no generation replaces the last; guarded by changing

	mu       sync.Mutex
	settings *settings                // of the current generation; guarded by mu
	logs     map[*edge.AccessLog]bool // not yet closed; guarded by mu
	dropped  uint64                   // by access logs that are closed; guarded by mu
}

// newNode makes a node, binds its listeners and replays its purges. It serves
// nothing before serve.
func newNode(s *settings, d *data, t *terminal) (*node, error) {
	n := &node{t: t, stats: edge.NewStats(), level: new(slog.LevelVar), logs: make(map[*edge.AccessLog]bool)}
	n.is("starting")
	n.level.Set(s.Log.Level)
	options := &slog.HandlerOptions{Level: n.level}
	if s.Log.Format == "json" {
		n.log = slog.New(slog.NewJSONHandler(t.err, options))
	} else {
		n.log = slog.New(slog.NewTextHandler(t.err, options))
	}
	slog.SetDefault(n.log) // for what libraries say by themselves, as quic-go of small UDP buffers
	var err error
	n.purge = newPurges(n)
	n.store, err = edge.NewStore(edge.WithRules(edge.StoreOptions{Memory: s.Cache.Memory, MaxObject: s.Cache.MaxObject, Seed: d.seed}, n.purge.rules))
	if err != nil {
		return nil, err
	}
	if n.functions, err = openFunctions(d, n.log); err != nil {
		return nil, errors.Join(err, n.store.Close())
	}
	n.drains = openDrains(d, n.log)
	g, err := n.build(s, nil, n.functions.uploads, true)
	if err != nil {
		return nil, errors.Join(err, n.functions.close(), n.store.Close())
	}
	n.settings = s
	n.put(g)
	if err := n.bind(s, d); err != nil {
		n.close()
		return nil, err
	}
	// Before anything is served: what was purged must not be.
	if err := n.purge.open(d, s.Node.Name, n.log); err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

// is sets the node's state: "starting", "" (ready) or "draining".
func (n *node) is(state string) { n.state.Store(&state) }

// build makes a generation for s with these uploaded functions, taking over
// the pools and functions of old that it has unchanged; reread looks into the
// functions' files for that. On an error nothing is left behind.
func (n *node) build(s *settings, old *generation, uploads map[string]*upload, reread bool) (g *generation, err error) {
	g = newGeneration()
	g.settings = s
	defer func() {
		if err != nil {
			err = errors.Join(err, n.discard(g))
		}
	}()
	var before *functionSet
	if old != nil {
		before = old.functions
	}
	if g.functions, err = n.functions.resolve(s, uploads, before, reread); err != nil {
		return g, err
	}
	config := edge.Config{
		Node: s.Node.Name, Store: n.store, Purge: n.purge.rules, PurgeURL: n.purge.purgeURL,
		Trusted: s.Trusted, Locate: g.functions.extras.Locate, Stats: n.stats, Log: n.log,
	}
	s.Encode.into(&config, old)
	for i := range s.Sites {
		site := &s.Sites[i]
		one, err := n.addSite(g, old, site, reread)
		if err != nil {
			return g, err
		}
		one.Viewer, one.OriginFunctions = g.chain(site.Functions.Viewer, false), g.chain(site.Functions.Origin, true)
		config.Sites = append(config.Sites, one)
	}
	if err := g.openAccess(s.Log, n.t); err != nil {
		return g, fmt.Errorf("access log: %w (hint: log.access takes a path that can be written, stdout, stderr or off)", err)
	}
	config.Access = g.access
	if g.handler, err = edge.New(config); err != nil {
		return g, err
	}
	if g.access != nil {
		n.mu.Lock()
		n.logs[g.access] = true
		n.mu.Unlock()
	}
	return g, nil
}

// discard ends what was built and not put to use.
func (n *node) discard(g *generation) error {
	g.closePools()
	if g.handler != nil {
		g.handler.Close()
	}
	g.closeFunctions()
	if g.access != nil {
		n.mu.Lock()
		delete(n.logs, g.access)
		n.mu.Unlock()
	}
	return g.closeAccess()
}

// put makes g the generation of the moment.
func (n *node) put(g *generation) {
	old := n.current.Swap(g)
	g.start()
	g.replaces(old)
	n.functions.use(g.functions)
}

// bind opens the listeners.
func (n *node) bind(s *settings, d *data) error {
	n.front = &listen.Server{
		Handler: &n.current, Log: n.log, Count: n.count,
		MaxConns: s.Listen.Connections, MaxConnsPerClient: s.Listen.PerClient, Exempt: func(ip netip.Addr) bool { return n.exempt(ip, s.Listen.PerClient) },
	}
	if err := n.front.Listen(s.Listen.HTTP); err != nil {
		return unbound(err, "another program has the port, or it takes a right that this one lacks", "--http ADDR chooses another")
	}
	if err := n.bindTLS(s, d); err != nil {
		return err
	}
	return n.bindAdmin(s)
}

// unbound is err, of a listener, with a hint: why it may be, unless the error
// is of the address itself, and what helps.
func unbound(err error, why, cure string) error {
	var lookup *net.DNSError
	if errors.Is(err, syscall.EADDRNOTAVAIL) || errors.As(err, &lookup) {
		why = "this machine has no such address"
	}
	return fmt.Errorf("%w (hint: %s: %s)", err, why, cure)
}

// bindAdmin opens the admin listener, if there is one.
func (n *node) bindAdmin(s *settings) error {
	if s.Listen.Admin == "" {
		return nil
	}
	var err error
	n.admin, err = admin.New(admin.Config{
		Stats: n.stats, Usage: n.store.Usage, Origins: n.origins, Connections: n.connections,
		Pools:   admin.Pools{List: n.listOrigins, Drain: n.drainOrigin},
		Dropped: n.droppedLines, Ready: n.ready, Version: readBuild().Version, Log: n.log,
		Cache: n.cache(), Coding: func() edge.CodingFigures { return n.current.Load().handler.Coding() },
		Purges: admin.Purges{
			Apply: func(ctx context.Context, r purge.Request, key string) (purge.Receipt, error) {
				return n.purge.log.Purge(ctx, r, key)
			},
			Recent:  func(count int) []purge.Receipt { return n.purge.log.Recent(count) },
			Find:    func(id string) (purge.Receipt, bool) { return n.purge.log.Get(id) },
			Figures: n.purge.figures,
		},
		Extras: n.functions.extraFigures,
		Functions: admin.Functions{
			List: n.listFunctions, Put: n.putFunction, Remove: n.removeFunction, Figures: n.functions.figures, MaxModule: maxModule,
			Roll: n.rollFunction, Promote: n.promoteFunction, Rollback: n.rollbackFunction,
		},
	})
	if err != nil {
		return err
	}
	n.admin.Permit(s.Admin.access())
	n.side = &listen.Server{Handler: n.admin, Log: n.log, Count: n.count, MaxConns: 256, MaxConnsPerClient: 64}
	if err := n.side.Listen(s.Listen.Admin); err != nil {
		return unbound(err, "another program has the port", "--admin ADDR chooses another, --admin off none")
	}
	return nil
}

// exempt reports whether the limit of one client is not for an address: a
// trusted proxy, by the configuration of the moment, brings many clients. So do
// programs of the machine itself, which the limit that nobody chose leaves alone.
func (n *node) exempt(ip netip.Addr, limit int) bool {
	return limit == defaultPerClient && ip.IsLoopback() || slices.ContainsFunc(n.current.Load().handler.Trusted, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// bindTLS opens the HTTPS listener, if there is one, with its certificates.
func (n *node) bindTLS(s *settings, d *data) error {
	if s.Listen.HTTPS == "" {
		return nil
	}
	n.keys = &keyring{data: d}
	certs, err := n.keys.read(s)
	if err != nil {
		return err
	}
	n.keys.now.Store(certs)
	err = n.front.ListenTLS(s.Listen.HTTPS, n.keys.config(s.TLS))
	if _, port, _ := net.SplitHostPort(s.Listen.HTTPS); port == "0" {
		// A free TCP port may be another program's UDP port: the next may not.
		for tries := 0; err != nil && tries < 8; tries++ {
			err = n.front.ListenTLS(s.Listen.HTTPS, n.keys.config(s.TLS))
		}
	}
	if err != nil {
		return unbound(err, "another program has the port, on TCP or UDP, or it takes a right that this one lacks", "--https ADDR chooses another, --https off none")
	}
	return nil
}

// count passes a listener's events on to the counters.
func (n *node) count(e listen.Event) {
	switch e {
	case listen.Malformed:
		n.stats.Fault(edge.FaultMalformed)
	case listen.Refused:
		n.stats.Fault(edge.FaultConnection)
	case listen.Panicked:
		n.stats.Fault(edge.FaultPanic)
	case listen.Stalled:
		n.stats.Fault(edge.FaultStalledRead)
	case listen.Flooded:
		n.stats.Fault(edge.FaultFlood)
	case listen.Handshake:
		n.stats.Fault(edge.FaultHandshake)
	}
}

func (n *node) ready() error {
	if state := *n.state.Load(); state != "" {
		return errors.New(state)
	}
	return nil
}

func (n *node) connections() map[string]int64 {
	h1, h2, h3 := n.front.Open()
	return map[string]int64{edge.H1.String(): h1, edge.H2.String(): h2, edge.H3.String(): h3}
}

func (n *node) droppedLines() uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	sum := n.dropped
	for l := range n.logs {
		sum += l.Dropped()
	}
	return sum
}

// serve answers until stop or a listener's failure, whose error it sends.
func (n *node) serve() <-chan error {
	ends := make(chan error, 2)
	for _, s := range []*listen.Server{n.front, n.side} {
		if s != nil {
			go func() { ends <- s.Serve() }()
		}
	}
	n.is("")
	return ends
}

// errEnded is for changes that come too late.
var errEnded = errors.New("the node is ending")

// reload puts s in the place of the current configuration, and reads its
// certificates and functions again. An error changes nothing.
func (n *node) reload(s *settings) error {
	n.changing.Lock()
	defer n.changing.Unlock()
	if n.ended {
		return errEnded
	}
	var certs *certificates
	if n.keys != nil {
		var err error
		if certs, err = n.keys.read(s); err != nil {
			return err
		}
	}
	old := n.current.Load()
	g, err := n.build(s, old, n.functions.uploads, true)
	if err != nil {
		return err
	}
	for _, name := range n.fixed(s) {
		n.log.Warn("this change needs a restart", "setting", name)
	}
	n.level.Set(s.Log.Level)
	n.put(g)
	n.keepDrains()
	if n.admin != nil {
		n.admin.Permit(s.Admin.access())
	}
	if certs != nil && !certs.same(n.keys.now.Swap(certs)) {
		certs.say(n.log, time.Now())
	}
	n.retired.Go(func() { n.end(old) })
	return nil
}

// fixed takes s as the new settings and names those that do not change while
// the node runs.
func (n *node) fixed(s *settings) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	was := n.settings
	var names []string
	for _, one := range []struct {
		name     string
		was, now any
	}{
		{"listen.http", was.Listen.HTTP, s.Listen.HTTP},
		{"listen.https", was.Listen.HTTPS, s.Listen.HTTPS},
		{"listen.admin", was.Listen.Admin, s.Listen.Admin},
		{"listen.max_connections", was.Listen.Connections, s.Listen.Connections},
		{"listen.max_connections_per_client", was.Listen.PerClient, s.Listen.PerClient},
		{"tls.min_version", was.TLS.MinVersion, s.TLS.MinVersion},
		{"cache.memory", was.Cache.Memory, s.Cache.Memory},
		{"cache.max_object", was.Cache.MaxObject, s.Cache.MaxObject},
		{"log.format", was.Log.Format, s.Log.Format},
	} {
		if one.was != one.now {
			names = append(names, one.name)
		}
	}
	kept := *s
	kept.Listen, kept.TLS.MinVersion, kept.Cache, kept.Log.Format = was.Listen, was.TLS.MinVersion, was.Cache, was.Log.Format
	n.settings = &kept
	return names
}

// end retires g once its last request has left.
func (n *node) end(g *generation) {
	if err := g.retire(); err != nil {
		n.log.Error("access log", "error", err)
	}
	if g.access == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.logs, g.access)
	n.dropped += g.access.Dropped()
}

// drain stops accepting, lets exchanges finish until ctx ends, and closes the
// rest. /readyz tells of it, and the admin listener goes last.
func (n *node) drain(ctx context.Context) {
	n.is("draining")
	if err := n.front.Shutdown(ctx); err != nil {
		n.log.Warn("drained in part: connections were closed with exchanges under way", "reason", err)
	}
	n.close()
}

// lastWait is how long close waits for requests whose connections are closed.
const lastWait = 5 * time.Second

// close ends everything at once. What does not end is left behind, and said.
func (n *node) close() {
	for _, s := range []*listen.Server{n.front, n.side} {
		if s != nil {
			s.Close()
		}
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if n.admin != nil {
			n.admin.Close()
		}
		n.changing.Lock()
		n.ended = true
		n.changing.Unlock()
		n.purge.end()
		n.store.Stop() // what no client waits for any more would hold up the end
		n.end(n.current.Load())
		n.retired.Wait()
		if err := errors.Join(n.store.Close(), n.functions.close(), n.purge.close()); err != nil {
			n.log.Error("not ended as it should", "error", err)
		}
	}()
	select {
	case <-ended:
	case <-time.After(lastWait):
		n.log.Warn("some requests did not end with their connections", "waited", lastWait.String())
	}
}
