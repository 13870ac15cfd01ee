package admin

import (
	"encoding/json"
	"maps"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"seawall/edge"
)

// collector turns the node's counters into metrics when asked. No label takes
// its value from a request: sites and origins are configuration, all else is a
// word of ours.
type collector struct{ h *Handler }

// Describe sends nothing: which sites and origins there are changes with the
// configuration.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// Collect sends every figure as it stands.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	s := &sink{out}
	s.gauge("build_info", "Always 1.", 1, "version", c.h.Version, "goversion", runtime.Version())
	for name, counts := range c.h.Stats.Sites() {
		s.site(name, counts)
	}
	for kind, n := range c.h.Stats.Faults() {
		s.counter("faults_total", "What went wrong and belongs to no site.", n, "kind", kind.String())
	}
	if c.h.Connections != nil {
		for protocol, n := range c.h.Connections() {
			s.gauge("connections", "Connections open.", float64(n), "protocol", protocol)
		}
	}
	if c.h.Dropped != nil {
		s.counter("access_log_dropped_total", "Access-log lines that were not written.", c.h.Dropped())
	}
	s.store(c.h)
	s.coding(c.h)
	s.origins(c.h)
	s.purges(c.h)
	s.functions(c.h)
	s.extras(c.h)
}

// sink makes metrics of pairs of label and value.
type sink struct{ out chan<- prometheus.Metric }

func desc(name, help string, labels []string) (*prometheus.Desc, []string) {
	var names, values []string
	for i := 0; i < len(labels); i += 2 {
		names, values = append(names, labels[i]), append(values, labels[i+1])
	}
	return prometheus.NewDesc("seawall_"+name, help, names, nil), values
}

func (s *sink) gauge(name, help string, v float64, labels ...string) {
	d, values := desc(name, help, labels)
	s.out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, values...)
}

func (s *sink) counter(name, help string, v uint64, labels ...string) {
	d, values := desc(name, help, labels)
	s.out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), values...)
}

// summary sends a count and a sum; there are no quantiles.
func (s *sink) summary(name, help string, count uint64, sum float64, labels ...string) {
	d, values := desc(name, help, labels)
	s.out <- prometheus.MustNewConstSummary(d, count, sum, nil, values...)
}

// site sends one site's figures, leaving out what never happened.
func (s *sink) site(name string, c *edge.SiteCounts) {
	if c.Crowded > 0 {
		s.counter("variants_crowded_total", "Variants that pushed out another because their URL had as many as are kept.", c.Crowded, "site", name)
	}
	bounds := edge.DurationBounds()
	for o := edge.Hit; o <= edge.Fault; o++ {
		n := c.Count(o)
		if n == 0 {
			continue
		}
		for p := range c.Requests[o] {
			for class, n := range c.Requests[o][p] {
				if n > 0 {
					s.counter("requests_total", "Requests answered.", n, "site", name, "outcome", o.String(),
						"protocol", edge.Proto(p).String(), "status_class", statusClass(class))
				}
			}
		}
		s.counter("response_bytes_total", "Content sent to clients.", c.Bytes[o], "site", name, "outcome", o.String())
		buckets, sum := make(map[float64]uint64), uint64(0)
		for i, bound := range bounds {
			sum += c.Durations[o][i]
			buckets[bound.Seconds()] = sum
		}
		d, values := desc("request_duration_seconds", "From a request's head to its response's end.", []string{"site", name, "outcome", o.String()})
		s.out <- prometheus.MustNewConstHistogram(d, n, c.Total[o].Seconds(), buckets, values...)
	}
}

// crowd is a URL with more variants than are kept.
type crowd struct {
	URL   string   `json:"url"`
	Vary  []string `json:"vary"`
	Count uint64   `json:"count"`
	Hint  string   `json:"hint"`
}

func statusClass(class int) string {
	if class == 0 {
		return "other"
	}
	return strconv.Itoa(class) + "xx"
}

func (s *sink) store(h *Handler) {
	if h.Usage == nil {
		return
	}
	u := h.Usage()
	s.gauge("store_bytes", "What the stored responses take.", float64(u.Young+u.Main), "tier", "memory")
	s.gauge("store_budget_bytes", "What they may take.", float64(u.Memory), "tier", "memory")
	s.gauge("store_objects", "Responses stored.", float64(u.Objects), "tier", "memory")
	s.counter("store_evictions_total", "Responses that left for want of room.", u.Evictions, "tier", "memory")
	s.gauge("store_young_share", "The part of the budget that new responses may take.", u.Share)
	s.gauge("store_fills", "Responses on their way.", float64(u.Fills))
	s.gauge("store_fills_abandoned", "Those of them that no client waits for.", float64(u.Abandoned))
	s.gauge("store_fill_bytes", "What the responses on their way take.", float64(u.Filling))
	s.counter("store_stalled_total", "Readers that were cut because they stood still.", u.Stalled)
}

func (s *sink) coding(h *Handler) {
	if h.Coding == nil {
		return
	}
	c := h.Coding()
	s.gauge("encode_coders_busy", "Coders at work.", float64(c.Busy))
	s.gauge("encode_coders_bytes", "What all coders hold.", float64(c.Memory))
	s.counter("encode_refused_total", "Responses sent as identity because no coder was free.", c.Refused)
	s.counter("encode_first_demands_total", "Codings of stored responses made because a client asked first.", c.Demands)
	s.counter("encode_recodings_total", "Codings of hot responses made again, better.", c.Recodings)
	s.counter("encode_in_bytes_total", "Content before coding.", c.In)
	s.counter("encode_out_bytes_total", "Content after coding.", c.Out)
	s.counter("encode_decode_refused_total", "Contents that an origin coded and that could not be undone within bounds.", c.DecodeRefused)
}

func (s *sink) origins(h *Handler) {
	if h.Origins == nil {
		return
	}
	for name, o := range h.Origins() {
		s.counter("origin_requests_total", "Requests sent to the origin.", o.Requests, "origin", name)
		s.counter("origin_connections_total", "Connections made to it.", o.Connects, "origin", name)
		s.counter("origin_reuses_total", "Requests that found a connection.", o.Reuses, "origin", name)
		s.counter("origin_retries_total", "Requests sent again.", o.Retries, "origin", name)
		s.counter("origin_surplus_total", "Connections on which it said more than it was asked.", o.Surplus, "origin", name)
		s.counter("origin_hedges_total", "Second requests sent because the first was slow.", o.Hedges, "origin", name)
		s.counter("origin_retries_denied_total", "Retries and hedges that the budget did not allow.", o.Denied, "origin", name)
		s.gauge("origin_in_flight", "Requests under way.", float64(o.InFlight), "origin", name)
		s.gauge("origin_queue", "Requests that wait for a place.", float64(o.Queue), "origin", name)
		s.gauge("origin_tunnels", "Upgraded connections under way.", float64(o.Tunnels), "origin", name)
		s.gauge("origin_idle_connections", "Connections kept.", float64(o.Idle), "origin", name)
		for kind, n := range o.Errors {
			s.counter("origin_errors_total", "Failed exchanges, by Proxy-Status error type.", n, "origin", name, "error", kind)
		}
		s.servers(name, o.Servers)
	}
}

func (s *sink) purges(h *Handler) {
	if h.Purges.Figures == nil {
		return
	}
	f := h.Purges.Figures()
	s.gauge("purge_rules", "Purge rules in force.", float64(f.Rules))
	s.gauge("purge_epoch", "The epoch of the last purge applied here.", float64(f.Epoch))
	s.gauge("purge_log_position", "How far the purge log is applied here.", float64(f.Position))
	healthy := 0.0
	if f.Healthy {
		healthy = 1
	}
	s.gauge("purge_log_healthy", "1 while purges can be accepted and kept.", healthy)
	for kind, n := range f.Applied {
		s.counter("purge_applied_total", "Purges applied since the start, by what they name.", n, "kind", kind)
	}
	s.counter("purge_sweep_passes_total", "Times that the sweep looked at all that is stored and dropped rules.", f.Passes)
}

// metrics is GET /metrics: the whole node's, so not for a token bound to sites.
func metrics(c *call) {
	if c.token != nil && c.token.Sites != nil {
		c.refuse(http.StatusForbidden, "The metrics are of the whole node; the token "+c.token.Name+" is bound to sites.")
		return
	}
	c.h.metrics.ServeHTTP(c.w, c.r)
}

// The shape of /v1/stats.
type (
	statsBody struct {
		Version     string                `json:"version"`
		Uptime      float64               `json:"uptime_seconds"`
		Sites       map[string]siteBody   `json:"sites"`
		Faults      map[string]uint64     `json:"faults"`
		Store       *storeBody            `json:"store,omitempty"`
		Purges      *purgesBody           `json:"purges,omitempty"`
		Origins     map[string]originBody `json:"origins"`
		Connections map[string]int64      `json:"connections"`
		Dropped     uint64                `json:"access_log_dropped"`
	}
	// siteBody is by outcome; only those that happened.
	siteBody struct {
		Requests map[string]uint64            `json:"requests"`
		Bytes    map[string]uint64            `json:"bytes"`
		Seconds  map[string]float64           `json:"seconds"`
		Statuses map[string]map[string]uint64 `json:"statuses"`
		Protocol map[string]uint64            `json:"protocols"`
		Crowded  uint64                       `json:"variants_crowded"`
		Crowds   []crowd                      `json:"crowded_urls"`
	}
	storeBody struct {
		Bytes     int64   `json:"bytes"`
		Budget    int64   `json:"budget_bytes"`
		Objects   int     `json:"objects"`
		Evictions uint64  `json:"evictions"`
		Share     float64 `json:"young_share"`
		Fills     int     `json:"fills"`
		Abandoned int     `json:"fills_abandoned"`
		Filling   int64   `json:"fill_bytes"`
		Stalled   uint64  `json:"stalled"`
	}
	purgesBody struct {
		Rules    int               `json:"rules"`
		Epoch    uint64            `json:"epoch"`
		Position uint64            `json:"log_position"`
		Applied  map[string]uint64 `json:"applied"`
		Passes   uint64            `json:"sweep_passes"`
		Healthy  bool              `json:"log_healthy"`
	}
	originBody struct {
		Requests    uint64            `json:"requests"`
		Connections uint64            `json:"connections"`
		Reuses      uint64            `json:"reuses"`
		Retries     uint64            `json:"retries"`
		Surplus     uint64            `json:"surplus"`
		InFlight    int               `json:"in_flight"`
		Idle        int               `json:"idle_connections"`
		Errors      map[string]uint64 `json:"errors"`
	}
)

// counts is m, and an empty object where there is none.
func counts(m map[string]uint64) map[string]uint64 {
	if m == nil {
		return map[string]uint64{}
	}
	return m
}

// stats is GET /v1/stats: what of /metrics a person looks at, as JSON. A token
// bound to sites sees theirs alone.
func stats(c *call) {
	h := c.h
	body := statsBody{
		Version: h.Version, Uptime: time.Since(h.began).Seconds(),
		Sites: make(map[string]siteBody), Faults: make(map[string]uint64), Origins: make(map[string]originBody),
		Connections: make(map[string]int64),
	}
	mine := func(site string) bool { return c.token == nil || c.token.may(site) }
	for name, counts := range h.Stats.Sites() {
		if mine(name) {
			body.Sites[name] = siteFigures(counts)
		}
	}
	for kind, n := range h.Stats.Faults() {
		body.Faults[kind.String()] = n
	}
	if h.Usage != nil {
		u := h.Usage()
		body.Store = &storeBody{u.Young + u.Main, u.Memory, u.Objects, u.Evictions, u.Share, u.Fills, u.Abandoned, u.Filling, u.Stalled}
	}
	if h.Purges.Figures != nil {
		f := h.Purges.Figures()
		body.Purges = &purgesBody{f.Rules, f.Epoch, f.Position, counts(f.Applied), f.Passes, f.Healthy}
	}
	if h.Origins != nil {
		for name, o := range h.Origins() {
			// A pool has its site's name; a route's has the prefix behind it.
			if site, _, _ := strings.Cut(name, "/"); mine(site) {
				body.Origins[name] = originBody{o.Requests, o.Connects, o.Reuses, o.Retries, o.Surplus, o.InFlight, o.Idle, counts(o.Errors)}
			}
		}
	}
	if h.Connections != nil {
		maps.Copy(body.Connections, h.Connections())
	}
	if h.Dropped != nil {
		body.Dropped = h.Dropped()
	}
	c.w.Header().Set("Content-Type", "application/json")
	e := json.NewEncoder(c.w)
	e.SetIndent("", "  ")
	e.Encode(body) // a client that has gone needs no answer
}

func siteFigures(c *edge.SiteCounts) siteBody {
	b := siteBody{
		Requests: make(map[string]uint64), Bytes: make(map[string]uint64), Seconds: make(map[string]float64),
		Statuses: make(map[string]map[string]uint64), Protocol: make(map[string]uint64),
	}
	b.Crowded, b.Crowds = c.Crowded, []crowd{}
	for _, one := range c.Crowds {
		b.Crowds = append(b.Crowds, crowd(one))
	}
	for o := edge.Hit; o <= edge.Fault; o++ {
		n := c.Count(o)
		if n == 0 {
			continue
		}
		b.Requests[o.String()], b.Bytes[o.String()], b.Seconds[o.String()] = n, c.Bytes[o], c.Total[o].Seconds()
		classes := make(map[string]uint64)
		for p := range c.Requests[o] {
			for class, n := range c.Requests[o][p] {
				if n > 0 {
					classes[statusClass(class)] += n
					b.Protocol[edge.Proto(p).String()] += n
				}
			}
		}
		b.Statuses[o.String()] = classes
	}
	return b
}
