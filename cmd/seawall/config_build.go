package main

import (
	"log/slog"
	"net/http"
	"strings"

	"seawall/edge"
	"seawall/edge/admin"
	"seawall/origin"
)

// place is a pool that a configuration has: a site's own, or a route's.
type place struct {
	name   string // the site's; of a route with its prefix
	site   string
	prefix string // "/", or a route's
	from   *originSettings
}

func (s *siteSettings) pools() []place {
	all := []place{{s.Name, s.Name, "/", &s.originSettings}}
	for i := range s.Routes {
		r := &s.Routes[i]
		all = append(all, place{s.Name + r.Prefix, s.Name, r.Prefix, &r.originSettings})
	}
	return all
}

func (s *settings) pools() (all []place) {
	for i := range s.Sites {
		all = append(all, s.Sites[i].pools()...)
	}
	return all
}

// config is the pool as origin takes it, without what is in files.
func (p *place) config(log *slog.Logger) origin.Config {
	s := p.from
	c := origin.Config{
		Name: p.name, Host: s.HostHeader, Timeouts: s.Timeouts,
		MaxIdle: s.Pool.Idle, MaxInFlight: s.Pool.InFlight, MaxPoolInFlight: s.Pool.PoolInFlight, MaxTunnels: s.Pool.Tunnels,
		MaxQueue: s.Pool.Queue, QueueWait: s.Pool.QueueWait, MaxHeaderBytes: int(s.Pool.Head), BufferSmall: int(s.Pool.Hold),
		Balance: s.Balance.Algorithm, Sticky: s.Balance.Sticky, Retry: s.Retry, Breaker: s.Breaker, Hedge: s.Hedge,
		Health: s.Health.Health, Passive: s.Health.Passive, SlowStart: s.Health.SlowStart, ResolveEvery: s.Resolve.Every, Log: log,
	}
	if c.MaxIdle == 0 {
		c.MaxIdle = -1 // origin's own zero is its default
	}
	c.Sticky.Path = p.prefix // else a site's cookie and its routes' would replace one another
	for _, one := range s.Origins {
		c.Backends = append(c.Backends, origin.Backend{URL: one.URL, Name: one.Name, Weight: one.Weight, Backup: one.Backup, Protocol: one.Protocol})
	}
	return c
}

// edge is the site as a Handler takes it, fetching by from.
func (s *siteSettings) edge(from http.RoundTripper) edge.Site {
	c := s.Cache
	site := edge.Site{
		Name: s.Name, Hosts: s.Hosts, Origin: from,
		Cache: edge.Cache{
			Bypass: c.Bypass, SetCookie: c.SetCookie, TTL: c.TTL,
			HeuristicFraction: c.HeuristicFraction, HeuristicMax: c.HeuristicMax,
			StaleIfUnreachable: c.StaleIfUnreachable, HitForMiss: c.HitForMiss,
			Targeted: c.Targeted, PassEncoding: c.AcceptEncoding == "client", HonourReload: c.HonourReload,
			Query:      edge.Query{Drop: c.Query.Drop, Keep: c.Query.Keep, Sort: c.Query.Sort},
			KeyHeaders: c.Key.Headers, KeyCookies: c.Key.Cookies,
			Vary: edge.Vary{Languages: c.Vary.Languages, Accept: c.Vary.Accept, Ignore: c.Vary.Ignore},
		},
		Encode:  s.Encode.edge(),
		Limits:  edge.Limits{URL: int(s.Limits.URL), Body: s.Limits.Body},
		Purgers: s.Access.Purge, Settings: s.facts(),
	}
	if c.HeuristicFraction == 0 { // in a file 0 is none, in edge.Cache the default
		site.Cache.HeuristicFraction = -1
	}
	for _, r := range c.Rules {
		site.Rules = append(site.Rules, edge.Rule{
			Path: r.Path, Status: r.Status, Cookie: r.Cookie, Header: r.Header, Value: r.Value,
			TTL: r.TTL, Bypass: r.Bypass, SetCookie: r.SetCookie,
			KeyHeaders: r.Key.Headers, KeyCookies: r.Key.Cookies,
		})
	}
	return site
}

// access is who may call the admin API.
func (s *adminSettings) access() admin.Access {
	a := admin.Access{Rate: s.Rate}
	for _, t := range s.Tokens {
		one := admin.Token{Name: t.Name, Hash: t.Hash, Sites: t.Sites}
		for _, scope := range t.Scopes {
			one.Scopes |= scope
		}
		a.Tokens = append(a.Tokens, one)
	}
	return a
}

// loneSite is what --origin alone means: one site that answers every host and
// sends each origin its own name, so that any public site works.
func loneSite(origins []string) siteSettings {
	var s siteSettings
	applyDefaults(new(decoder), siteKeys(), &s)
	s.Name, s.HostHeader = "default", "origin"
	for _, url := range origins {
		s.Origins = append(s.Origins, serverOf(url))
	}
	return s
}

// originURLs names the servers of all pools of the site, for words.
func (s *siteSettings) originURLs() string {
	var all []string
	for _, p := range s.pools() {
		for _, one := range p.from.Origins {
			all = append(all, one.URL)
		}
	}
	return strings.Join(all, " ")
}
