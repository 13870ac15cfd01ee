package main

import (
	"log/slog"
	"net/http"

	"seawall/edge"
	"seawall/edge/admin"
	"seawall/origin"
)

// pool is what the site's origins are fetched with.
func (s *siteSettings) pool(log *slog.Logger) origin.Config {
	t := s.Timeouts
	idle := s.Pool.Idle
	if idle == 0 {
		idle = -1 // origin's own zero is its default
	}
	return origin.Config{
		Name: s.Name, Servers: s.Origins, Host: s.HostHeader,
		Timeouts: origin.Timeouts{
			Connect: t.Connect, TLS: t.TLS, Header: t.Header, IdleBody: t.IdleBody, Total: t.Total, IdleConn: t.IdleConn,
		},
		MaxIdle: idle, MaxInFlight: s.Pool.InFlight, Log: log,
	}
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
		},
		Limits:  edge.Limits{URL: int(s.Limits.URL), Body: s.Limits.Body},
		Purgers: s.Access.Purge,
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
	s.Name, s.Origins, s.HostHeader = "default", origins, "origin"
	return s
}
