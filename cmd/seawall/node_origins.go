package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"sync/atomic"

	"seawall/edge"
	"seawall/edge/admin"
	"seawall/origin"
)

// pool is an origin pool and what it was made of, to tell if a new
// configuration wants the same.
type pool struct {
	*origin.Pool
	place place // its from is this pool's own copy
	files [sha256.Size]byte
	users atomic.Int32 // generations that have it: any of them may be the last to end
}

// upstream fetches for edge by a pool or a router.
type upstream struct {
	to interface {
		RoundTripHint(*http.Request, origin.Hint) (*http.Response, error)
	}
}

// RoundTrip is RoundTripHint of a request of which nothing is known.
func (u upstream) RoundTrip(r *http.Request) (*http.Response, error) {
	return u.to.RoundTripHint(r, origin.Hint{})
}

// RoundTripHint passes on what edge knows of the request.
func (u upstream) RoundTripHint(r *http.Request, h edge.Hint) (*http.Response, error) {
	return u.to.RoundTripHint(r, origin.Hint(h))
}

// upstream is what fetches for the site, by pools of their names.
func (s *siteSettings) upstream(pools func(name string) *origin.Pool) (upstream, error) {
	if len(s.Routes) == 0 {
		return upstream{pools(s.Name)}, nil
	}
	var routes []origin.Route
	for _, p := range s.pools() {
		routes = append(routes, origin.Route{Prefix: p.prefix, Pool: pools(p.name)})
	}
	router, err := origin.NewRouter(routes)
	return upstream{router}, err
}

// addSite makes the site's pools, or takes over those of old that are unchanged,
// and returns the site as a Handler takes it.
func (n *node) addSite(g, old *generation, site *siteSettings, reread bool) (edge.Site, error) {
	for _, at := range site.pools() {
		p, err := n.pool(at, old, reread)
		if err != nil {
			return edge.Site{}, g.settings.located(err)
		}
		g.pools[at.name] = p
	}
	from, err := site.upstream(func(name string) *origin.Pool { return g.pools[name].Pool })
	return site.edge(from), err
}

// located gives an error about a file its place in the configuration.
func (s *settings) located(err error) error {
	var bad *fileFault
	if errors.As(err, &bad) && s.path != "" {
		return &faults{s.path, []fault{{bad.at.line, bad.at.column, bad.Error()}}}
	}
	return err
}

// pool returns old's pool for the place if it is made of the same, else a new
// one, in which the servers that were drained still are.
func (n *node) pool(at place, old *generation, reread bool) (*pool, error) {
	from := *at.from
	from.TLS = from.TLS.bare()
	var was *pool
	if old != nil {
		was = old.pools[at.name]
	}
	var files [sha256.Size]byte
	if reread && !from.TLS.none() {
		files = from.TLS.digest()
	}
	if was != nil && reflect.DeepEqual(*was.place.from, from) && (!reread || files == was.files) {
		was.users.Add(1) // old has it, so that it is not closed meanwhile
		return was, nil
	}
	c := at.config(n.log)
	var err error
	if c.TLS, err = at.from.TLS.load(); err != nil {
		return nil, err
	}
	made, err := origin.New(c)
	if err != nil {
		return nil, err
	}
	for _, s := range made.Stats().Servers {
		if old == nil && n.drains.drained(at.name, s.Name) || old != nil && drained(old, at.name, s.Name) {
			_ = made.Drain(s.Name) // unless it is all that is left
		}
	}
	at.from = &from
	p := &pool{Pool: made, place: at, files: files}
	p.users.Add(1)
	return p, nil
}

// drained reports whether a server of this pool was drained: in the pool before,
// or where that did not have it, in every one that did.
func drained(old *generation, pool, server string) bool {
	if on, had := old.pools[pool].draining(server); had {
		return on
	}
	everywhere := false
	for _, p := range old.pools {
		on, had := p.draining(server)
		if had && !on {
			return false
		}
		everywhere = everywhere || had
	}
	return everywhere
}

// draining reports whether the pool, which may be nil, has the server, and
// whether it is drained.
func (p *pool) draining(server string) (on, had bool) {
	if p == nil || !slices.ContainsFunc(p.place.from.Origins, func(s serverSettings) bool { return s.Name == server }) {
		return false, false // most have not, and Stats takes a while
	}
	return slices.ContainsFunc(p.Stats().Servers, func(s origin.ServerStats) bool { return s.Name == server && s.State == "draining" }), true
}

// closePools gives up the generation's part in its pools.
func (g *generation) closePools() {
	for _, p := range g.pools {
		if p.users.Add(-1) == 0 {
			p.Close() // its idle connections; it returns no error
		}
	}
}

// start begins the health checks of g's pools, where they do not run yet.
func (g *generation) start() {
	for _, p := range g.pools {
		p.Start()
	}
}

// replaces ends the health checks of old's pools that g has not: a request to
// them may last for days, and what was an origin is not asked for so long.
func (g *generation) replaces(old *generation) {
	if old == nil {
		return
	}
	for name, p := range old.pools {
		if g.pools[name] != p {
			p.StopChecks()
		}
	}
}

// origins are the counters of each pool of the generation of the moment.
func (n *node) origins() map[string]origin.Stats {
	out := make(map[string]origin.Stats)
	for name, p := range n.current.Load().pools {
		out[name] = p.Stats()
	}
	return out
}

// listOrigins is every pool of the generation of the moment, by name.
func (n *node) listOrigins() []admin.Origin {
	pools := n.current.Load().pools
	var all []admin.Origin
	for _, name := range slices.Sorted(maps.Keys(pools)) {
		p := pools[name]
		all = append(all, admin.Origin{
			Name: name, Site: p.place.site, Prefix: p.place.prefix, Balance: string(p.place.from.Balance.Algorithm), Stats: p.Stats(),
		})
	}
	return all
}

// drainOrigin takes a server out of these pools, or puts it back, also for the
// node's next run; an error leaves all as it was. No generation is made meanwhile, which might miss it.
func (n *node) drainOrigin(server string, names []string, on bool) error {
	n.changing.Lock()
	defer n.changing.Unlock()
	pools := n.current.Load().pools
	var done []*pool
	for _, name := range names {
		p := pools[name]
		err := fmt.Errorf("the pool %s is gone", name)
		if p != nil {
			err = p.drain(server, on, &done)
		}
		if err != nil {
			for _, p := range done {
				_ = p.drain(server, !on, new([]*pool)) // it was so a moment ago
			}
			return err
		}
	}
	n.keepDrains()
	return nil
}

// drain changes a server's state, and notes in done that it did.
func (p *pool) drain(server string, on bool, done *[]*pool) error {
	for _, s := range p.Stats().Servers {
		if s.Name == server && (s.State == "draining") == on {
			return nil
		}
	}
	change := p.Resume
	if on {
		change = p.Drain
	}
	if err := change(server); err != nil {
		return err
	}
	*done = append(*done, p)
	return nil
}
