package admin

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"seawall/origin"
)

// Pools are the pools of servers that sites are fetched from. Both or none is
// given.
type Pools struct {
	// List is every pool in use, by name.
	List func() []Origin
	// Drain lets no more requests go to a server of these pools, or lets them
	// again; all of the pools, or with an error none. A pool's last server that is
	// not drained stays.
	Drain func(server string, pools []string, on bool) error
}

// Origin is one pool: a site's own, or of one of its routes.
type Origin struct {
	// Name is the site's, and of a route the prefix behind it.
	Name string
	Site string
	// Prefix are the paths that it is for; "/" for all that no route has.
	Prefix string
	// Balance is how a server is chosen.
	Balance string
	origin.Stats
}

// The shapes of the answers.
type (
	poolBody struct {
		Name     string            `json:"name"`
		Site     string            `json:"site"`
		Prefix   string            `json:"prefix"`
		Balance  string            `json:"balance"`
		Requests uint64            `json:"requests"`
		Retries  uint64            `json:"retries"`
		Denied   uint64            `json:"retries_denied"`
		Hedges   uint64            `json:"hedges"`
		Errors   map[string]uint64 `json:"errors"`
		InFlight int               `json:"in_flight"`
		Queue    int               `json:"queue"`
		Tunnels  int               `json:"tunnels"`
		Idle     int               `json:"idle_connections"`
		Servers  []serverBody      `json:"servers"`
	}
	serverBody struct {
		Name      string   `json:"name"`
		URL       string   `json:"url"`
		Protocol  string   `json:"protocol"`
		State     string   `json:"state"`
		Breaker   string   `json:"breaker"`
		Weight    int      `json:"weight"`
		Share     float64  `json:"share"`
		Backup    bool     `json:"backup"`
		InFlight  int      `json:"in_flight"`
		Tunnels   int      `json:"tunnels"`
		Idle      int      `json:"idle_connections"`
		Latency   float64  `json:"latency_seconds"`
		Requests  uint64   `json:"requests"`
		Failures  uint64   `json:"failures"`
		Retries   uint64   `json:"retries"`
		Ejections uint64   `json:"ejections"`
		Addresses []string `json:"addresses"`
		Ejected   float64  `json:"ejected_for_seconds"`
		Open      float64  `json:"breaker_open_for_seconds"`
	}
)

// pools are those that the caller may see: a token bound to sites sees theirs.
func (c *call) pools() []Origin {
	if c.h.Pools.List == nil {
		return nil
	}
	return slices.DeleteFunc(c.h.Pools.List(), func(o Origin) bool { return c.token != nil && !c.token.may(o.Site) })
}

// listOrigins is GET /v1/origins.
func listOrigins(c *call) { c.showOrigins(c.pools()) }

func (c *call) showOrigins(all []Origin) {
	body := struct {
		Origins []poolBody `json:"origins"`
	}{[]poolBody{}}
	for i := range all {
		body.Origins = append(body.Origins, showPool(&all[i]))
	}
	c.ok(http.StatusOK, body)
}

func showPool(o *Origin) poolBody {
	b := poolBody{
		Name: o.Name, Site: o.Site, Prefix: o.Prefix, Balance: o.Balance, Requests: o.Requests, Retries: o.Stats.Retries, Denied: o.Denied, Hedges: o.Hedges,
		Errors: o.Errors, InFlight: o.InFlight, Queue: o.Queue, Tunnels: o.Tunnels, Idle: o.Idle, Servers: []serverBody{},
	}
	if b.Errors == nil {
		b.Errors = map[string]uint64{}
	}
	for _, s := range o.Servers {
		b.Servers = append(b.Servers, serverBody{
			Name: s.Name, URL: s.URL, Protocol: s.Protocol, State: s.State, Breaker: s.Breaker, Weight: s.Weight, Share: s.Share, Backup: s.Backup,
			InFlight: s.InFlight, Tunnels: s.Tunnels, Idle: s.Idle, Latency: s.Latency.Seconds(), Requests: s.Requests, Failures: s.Failures, Retries: s.Retries, Ejections: s.Ejections,
			Addresses: append([]string{}, s.Addresses...), Ejected: positive(s.EjectedFor), Open: positive(s.BreakerOpenFor),
		})
	}
	return b
}

func positive(d time.Duration) float64 { return max(d, 0).Seconds() }

// drainOrigin is POST /v1/origins/{name}/drain.
func drainOrigin(c *call) { c.setDraining(true) }

// resumeOrigin is POST /v1/origins/{name}/resume.
func resumeOrigin(c *call) { c.setDraining(false) }

// setDraining changes a server in every pool that has it, or in the one that
// the query names.
func (c *call) setDraining(on bool) {
	server, only := c.args["name"], c.r.URL.Query().Get("pool")
	has := func(o *Origin) bool {
		return (only == "" || o.Name == only) && slices.ContainsFunc(o.Servers, func(s origin.ServerStats) bool { return s.Name == server })
	}
	var names []string
	for _, o := range c.pools() {
		if !has(&o) {
			continue
		}
		names = append(names, o.Name)
		others := slices.ContainsFunc(o.Servers, func(s origin.ServerStats) bool { return s.Name != server && s.State != "draining" })
		if on && !others {
			c.what = "server=" + clip(server) + " pool=" + clip(o.Name)
			c.fail(http.StatusConflict, "The server is the last of "+o.Name+" that is not drained; resume another one first. Nothing was done.")
			return
		}
	}
	c.what = "server=" + clip(server) + " pools=" + clip(strings.Join(names, ","))
	if len(names) == 0 {
		place := ""
		if only != "" {
			place = " in that pool"
		}
		c.fail(http.StatusNotFound, "There is no server of this name"+place+"; GET /v1/origins tells which there are.")
		return
	}
	if err := c.h.Pools.Drain(server, names, on); err != nil {
		c.fail(http.StatusConflict, "The servers changed meanwhile; nothing was done: "+err.Error()+".")
		return
	}
	c.showOrigins(slices.DeleteFunc(c.pools(), func(o Origin) bool { return !slices.Contains(names, o.Name) }))
}

// servers sends what is known of each server. Pools and servers are named by
// the configuration; states are words of ours.
func (s *sink) servers(pool string, all []origin.ServerStats) {
	is := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	for _, one := range all {
		labels := func(more ...string) []string { return append([]string{"origin", pool, "server", one.Name}, more...) }
		for _, state := range []string{"healthy", "unhealthy", "ejected", "draining"} {
			s.gauge("origin_server_state", "1 for how the server is.", is(one.State == state), labels("state", state)...)
		}
		for _, state := range []string{"closed", "half-open", "open"} {
			s.gauge("origin_server_breaker", "1 for how its breaker is.", is(one.Breaker == state), labels("state", state)...)
		}
		s.gauge("origin_server_in_flight", "Requests under way at the server.", float64(one.InFlight), labels()...)
		s.gauge("origin_server_share", "The part of its weight that it gets: below 1 in a slow start.", one.Share, labels()...)
		s.gauge("origin_server_latency_seconds", "Until its answers begin, averaged over the last seconds.", one.Latency.Seconds(), labels()...)
		s.counter("origin_server_requests_total", "Attempts at the server.", one.Requests, labels()...)
		s.counter("origin_server_failures_total", "Those that failed.", one.Failures, labels()...)
		s.counter("origin_server_retries_total", "Those that were not their request's first.", one.Retries, labels()...)
		s.counter("origin_server_ejections_total", "Times that it was taken out for what it answered.", one.Ejections, labels()...)
	}
}
