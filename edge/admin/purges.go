package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"seawall/purge"
)

// The shapes of the answers.
type (
	purgeAnswer struct {
		ID        *string    `json:"id"` // null for a dry run
		AppliedAt *time.Time `json:"applied_at"`
		Matched   *matched   `json:"matched"` // of a dry run
	}
	matched struct {
		Objects int      `json:"objects"`
		Bytes   int64    `json:"bytes"`
		Sample  []string `json:"sample"`
	}
	purgeBody struct {
		ID         string         `json:"id"`
		Kind       string         `json:"kind"`
		Request    *purge.Request `json:"request"`
		AcceptedAt time.Time      `json:"accepted_at"`
		Nodes      []appliedBody  `json:"nodes"`
	}
	appliedBody struct {
		Node      string    `json:"node"`
		AppliedAt time.Time `json:"applied_at"`
	}
)

// KindOf names what a purge is by: "url", "prefix", "tag", "host",
// "everything", or "mixed".
func KindOf(r *purge.Request) string {
	kind := ""
	for _, k := range []struct {
		name string
		has  bool
	}{
		{"url", len(r.URLs) > 0}, {"prefix", len(r.Prefixes) > 0}, {"tag", len(r.Tags) > 0},
		{"host", len(r.Hosts) > 0}, {"everything", r.Everything},
	} {
		if k.has && kind != "" {
			return "mixed"
		}
		if k.has {
			kind = k.name
		}
	}
	return kind
}

// postPurge is POST /v1/purges.
func postPurge(c *call) {
	f := c.readFields(maxBody)
	if f == nil {
		return
	}
	var r purge.Request
	dry := false
	f.list("urls", &r.URLs)
	f.list("prefixes", &r.Prefixes)
	f.list("tags", &r.Tags)
	f.list("hosts", &r.Hosts)
	f.flag("everything", &r.Everything)
	f.text("site", &r.Site)
	f.flag("soft", &r.Soft)
	f.flag("refresh", &r.Refresh)
	f.flag("any_query", &r.AnyQuery)
	f.flag("dry_run", &dry)
	c.what = sayPurge(&r, dry)
	if errs := f.done(); len(errs) > 0 {
		c.invalid(errs...)
		return
	}
	if !c.placed(&r) {
		return
	}
	if dry {
		c.dryRun(r)
		return
	}
	key, ok := c.idempotencyKey()
	if !ok {
		return
	}
	if receipt, ok := c.purge(r, key); ok {
		c.ok(http.StatusOK, purgeAnswer{ID: &receipt.ID, AppliedAt: &receipt.AppliedAt})
	}
}

// sayPurge is a purge in counts.
func sayPurge(r *purge.Request, dry bool) string {
	var words []string
	for _, l := range []struct {
		name string
		n    int
	}{{"urls", len(r.URLs)}, {"prefixes", len(r.Prefixes)}, {"tags", len(r.Tags)}, {"hosts", len(r.Hosts)}} {
		if l.n > 0 {
			words = append(words, fmt.Sprintf("%s=%d", l.name, l.n))
		}
	}
	for _, l := range []struct {
		name string
		is   bool
	}{{"everything", r.Everything}, {"soft", r.Soft}, {"refresh", r.Refresh}, {"any_query", r.AnyQuery}, {"dry_run", dry}} {
		if l.is {
			words = append(words, l.name)
		}
	}
	if r.Site != "" {
		words = append(words, "site="+clip(r.Site))
	}
	return strings.Join(words, " ")
}

// purgeWait is how long the log may take: it writes to the disk.
const purgeWait = 30 * time.Second

// purge hands r, which is placed, to the log. If that fails, the call has been
// answered.
func (c *call) purge(r purge.Request, key string) (purge.Receipt, bool) {
	ctx, cancel := context.WithTimeout(c.r.Context(), purgeWait)
	defer cancel()
	receipt, err := c.h.Purges.Apply(ctx, r, key)
	if err != nil {
		c.purgeFailed(err)
		return receipt, false
	}
	c.id = receipt.ID
	return receipt, true
}

func (c *call) purgeFailed(err error) {
	var invalid *purge.InvalidError
	var repeated *purge.IdempotencyError
	switch {
	case errors.As(err, &invalid):
		c.invalid(invalid.Fields...)
	case errors.As(err, &repeated):
		c.fail(http.StatusConflict, "This Idempotency-Key was used for another purge; nothing was done.",
			&purge.FieldError{Field: "Idempotency-Key", Detail: "was used for another purge"})
	case errors.Is(err, context.Canceled) && c.r.Context().Err() != nil:
		c.fail(http.StatusServiceUnavailable, "The caller left before the purge was acknowledged; it may have been applied.")
	default:
		c.h.Log.Error("purge", "error", err)
		c.w.Header().Set("Retry-After", "1")
		c.fail(http.StatusServiceUnavailable, "The purge log did not acknowledge this purge, and it may not have been applied; repeat it.")
	}
}

// placed gives r the site that it means, and sees that the caller may purge
// what it names. If not, the call has been answered.
func (c *call) placed(r *purge.Request) bool {
	if bad := c.settle(r); bad != nil {
		c.invalid(bad)
		return false
	}
	if why := c.outside(r); why != "" {
		return c.refuse(http.StatusForbidden, why)
	}
	return true
}

// sites are those of the configuration that the caller may act on.
func (c *call) sites() []string {
	all := c.h.Cache.Sites()
	if c.token == nil || c.token.Sites == nil {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return !c.token.may(s) })
}

// settle fills in the site where only one can be meant.
func (c *call) settle(r *purge.Request) *purge.FieldError {
	switch {
	case r.Site == "*":
	case r.Site != "":
		if all := c.h.Cache.Sites(); !slices.Contains(all, r.Site) {
			return &purge.FieldError{Field: "site", Detail: fmt.Sprintf("is %q, and no site has that name", clip(r.Site))}
		}
	case len(r.Tags) > 0 || r.Everything:
		mine := c.sites()
		if len(mine) != 1 {
			return &purge.FieldError{Field: "site", Detail: `is missing: tags and everything are of one site, and there are several; name one, or "*" for all`}
		}
		r.Site = mine[0]
	}
	return nil
}

// outside says which of what r names is not of the token's sites, or nothing.
func (c *call) outside(r *purge.Request) string {
	if c.token == nil || c.token.Sites == nil {
		return ""
	}
	if (len(r.Tags) > 0 || r.Everything || r.Site != "") && !c.token.may(r.Site) {
		return "The token " + c.token.Name + " may not act on the site " + clip(r.Site) + "."
	}
	hosts := slices.Clone(r.Hosts)
	for _, u := range r.URLs {
		// A URL that is none is told of by the purge itself.
		if normal, err := c.h.Cache.Normal(u); err == nil {
			for _, n := range normal {
				hosts = append(hosts, n.Host)
			}
		}
	}
	for _, p := range r.Prefixes {
		// As purge reads it: what stands before :// is a scheme only if it
		// can be one.
		if scheme, rest, ok := strings.Cut(p, "://"); ok && !strings.ContainsAny(scheme, "/?#") {
			p = rest
		}
		if i := strings.IndexAny(p, "/?#"); i >= 0 {
			p = p[:i]
		}
		hosts = append(hosts, p)
	}
	for _, host := range hosts {
		if why := c.outsideHost(host); why != "" {
			return why
		}
	}
	return ""
}

// outsideHost says that a host is of none of the token's sites, or nothing.
func (c *call) outsideHost(host string) string {
	if c.token == nil || c.token.Sites == nil {
		return ""
	}
	if site, ok := c.h.Cache.SiteOf(strings.ToLower(host)); ok && c.token.may(site) {
		return ""
	}
	return "The token " + c.token.Name + " may not act on " + clip(host) + ": it is bound to the sites " + clip(strings.Join(c.token.Sites, ", ")) + "."
}

// idempotencyKey reads the field of that name, which counts for each token by
// itself.
func (c *call) idempotencyKey() (string, bool) {
	values := c.r.Header["Idempotency-Key"]
	if len(values) == 0 {
		return "", true
	}
	key := values[0]
	strange := strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' })
	if len(values) > 1 || key == "" || len(key) > 128 || strange {
		c.invalid(&purge.FieldError{Field: "Idempotency-Key", Detail: "is not one value of 1 to 128 visible ASCII characters"})
		return "", false
	}
	if c.token != nil {
		key = c.token.Name + "/" + key
	}
	return key, true
}

// dryRun counts what r would reach, and changes nothing.
func (c *call) dryRun(r purge.Request) {
	p, errs := purge.Prepare(r, c.h.Cache.Normal)
	if len(errs) > 0 {
		c.invalid(errs...)
		return
	}
	m, err := c.h.Cache.Match(c.r.Context(), p)
	if err != nil {
		c.fail(http.StatusServiceUnavailable, "The count did not come to its end.")
		return
	}
	if m.Sample == nil {
		m.Sample = []string{}
	}
	c.ok(http.StatusOK, purgeAnswer{Matched: &matched{m.Objects, m.Bytes, m.Sample}})
}

// The lengths of GET /v1/purges.
const (
	shownPurges = 50
	mostPurges  = 1000
)

// listPurges is GET /v1/purges.
func listPurges(c *call) {
	n := shownPurges
	if text := c.r.URL.Query().Get("limit"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil || n < 1 || n > mostPurges {
			c.invalid(&purge.FieldError{Field: "limit", Detail: fmt.Sprintf("is not a number from 1 to %d", mostPurges)})
			return
		}
	}
	body := struct {
		Purges []purgeBody `json:"purges"`
	}{[]purgeBody{}}
	for _, receipt := range c.h.Purges.Recent(n) {
		if c.outside(&receipt.Request) == "" {
			body.Purges = append(body.Purges, showPurge(receipt))
		}
	}
	c.ok(http.StatusOK, body)
}

// getPurge is GET /v1/purges/{id}.
func getPurge(c *call) {
	receipt, ok := c.h.Purges.Find(c.args["id"])
	if !ok || c.outside(&receipt.Request) != "" {
		c.fail(http.StatusNotFound, "No purge of this id is known; old ones are forgotten.")
		return
	}
	c.ok(http.StatusOK, showPurge(receipt))
}

func showPurge(r purge.Receipt) purgeBody {
	return purgeBody{
		ID: r.ID, Kind: KindOf(&r.Request), Request: &r.Request, AcceptedAt: r.AcceptedAt,
		Nodes: []appliedBody{{cmp.Or(r.Node, "seawall"), r.AppliedAt}},
	}
}
