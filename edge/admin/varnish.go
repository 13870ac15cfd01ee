package admin

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"seawall/purge"
)

// What Varnish's users send is whatever their VCL reads. Understood here is
// what the VCL of its documentation, of xkey and of the common plugins reads:
// PURGE of a URL, BAN and PURGEKEYS with tags. A ban by pattern would be a
// search, which a purge here is not.

// varnishMethod reports whether the call has one of the methods that every path
// of a site has.
func (c *call) varnishMethod() bool {
	return c.r.Method == "PURGE" || c.r.Method == "PURGEKEYS" || c.r.Method == "BAN"
}

// varnishPurge is PURGE of the URL that the request names, in both schemes,
// since a Varnish is not told which.
func varnishPurge(c *call) {
	if tags, soft := xkeys(c.r.Header); len(tags) > 0 {
		c.varnish(purge.Request{Tags: tags, Soft: soft})
		return
	}
	at := c.r.Host + target(c.r)
	r := purge.Request{Soft: softPurge(c.r.Header)}
	switch method := c.r.Header.Get("X-Purge-Method"); strings.ToLower(method) {
	case "", "default", "exact", "get":
		r.URLs = []string{"http://" + at, "https://" + at}
	case "regex":
		prefix, ok := strings.CutSuffix(at, ".*")
		if !ok || !strings.HasSuffix(prefix, "/") || strings.ContainsAny(prefix, `*+?()[]{}|^$\`) {
			c.fail(http.StatusBadRequest, "Of patterns, only a path that ends with /.* is understood: it purges all below.")
			return
		}
		r.Prefixes = []string{prefix}
	default:
		c.fail(http.StatusBadRequest, "X-Purge-Method is neither default, exact nor regex.")
		return
	}
	c.varnish(r)
}

// varnishKeys is PURGEKEYS with xkey's fields.
func varnishKeys(c *call) {
	tags, soft := xkeys(c.r.Header)
	if len(tags) == 0 {
		c.fail(http.StatusBadRequest, "PURGEKEYS has no Xkey-Purge or Xkey-Softpurge field with tags.")
		return
	}
	c.varnish(purge.Request{Tags: tags, Soft: soft})
}

// xkeys are the tags of xkey's own fields.
func xkeys(h http.Header) (tags []string, soft bool) {
	tags = words(h["Xkey-Purge"], " ,")
	if len(tags) == 0 {
		tags, soft = words(h["Xkey-Softpurge"], " ,"), true
	}
	return tags, soft && len(tags) > 0
}

// banTags are the fields that name the tags of a BAN, with what parts them.
var banTags = [...]struct{ name, between string }{
	{"Xkey", " "}, {"Surrogate-Key", " "}, {"Cache-Tag", ","}, {"X-Cache-Tags", ","},
}

// varnishBan is BAN with tags. Other conditions are refused, but those that
// match everything.
func varnishBan(c *call) {
	var tags []string
	for _, f := range banTags {
		for _, value := range c.r.Header[f.name] {
			if plain, ok := unpattern(value); ok {
				tags = append(tags, plain...)
				continue
			}
			for _, tag := range words([]string{value}, f.between) {
				if strings.ContainsAny(tag, `*+?()[]{}|^$\`) {
					c.fail(http.StatusBadRequest, fmt.Sprintf("A ban by pattern is not understood: %s has %q. Name the tags, or purge by prefix with POST /v1/purges.", f.name, clip(tag)))
					return
				}
				tags = append(tags, tag)
			}
		}
	}
	for _, name := range []string{"X-Ban-Url", "X-Ban-Host", "X-Ban-Regex", "X-Url", "X-Host", "X-Content-Type", "X-Ban"} {
		for _, value := range c.r.Header[name] {
			if value != ".*" && value != "^.*$" {
				c.fail(http.StatusBadRequest, "A ban by "+name+" is not understood: it would be a search. Name tags, or purge by prefix or host with POST /v1/purges.")
				return
			}
		}
	}
	if len(tags) == 0 {
		c.fail(http.StatusBadRequest, "BAN names no tags: give Xkey, Surrogate-Key, Cache-Tag or X-Cache-Tags. All of a site is purged by POST /v1/purges with everything.")
		return
	}
	c.varnish(purge.Request{Tags: tags, Soft: softPurge(c.r.Header)})
}

// unpattern reads the patterns that FOSHttpCache makes of a list of tags:
// (^|,)(one|two)(,|$) and (one|two)(,.+)?$, with other bytes escaped.
func unpattern(value string) (tags []string, ok bool) {
	inner, a := strings.CutPrefix(value, "(^|,)(")
	if a {
		inner, ok = strings.CutSuffix(inner, ")(,|$)")
	} else if inner, a = strings.CutPrefix(value, "("); a {
		inner, ok = strings.CutSuffix(inner, ")(,.+)?$")
	}
	if !ok {
		return nil, false
	}
	var tag []byte
	for i := 0; i < len(inner); i++ {
		switch b := inner[i]; {
		case b == '\\' && i+1 < len(inner):
			i++
			tag = append(tag, inner[i])
		case b == '|':
			tags, tag = append(tags, string(tag)), nil
		case strings.IndexByte(`*+?()[]{}^$\.`, b) >= 0:
			return nil, false
		default:
			tag = append(tag, b)
		}
	}
	return append(tags, string(tag)), true
}

// words are the parts of field values that any byte of between parts.
func words(values []string, between string) []string {
	var out []string
	for _, value := range values {
		for _, part := range strings.FieldsFunc(value, func(r rune) bool { return strings.ContainsRune(between, r) }) {
			if part = strings.TrimSpace(part); part != "" {
				out = append(out, part)
			}
		}
	}
	return out
}

// softPurge reads the field by which Fastly's clients ask for a soft purge.
func softPurge(h http.Header) bool { return h.Get("Fastly-Soft-Purge") == "1" }

// varnish purges and answers as Varnish's example VCL does.
func (c *call) varnish(r purge.Request) {
	if receipt, ok := c.dialect(r, ""); ok {
		c.status = http.StatusOK
		c.w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		c.w.Header().Set("Seawall-Purge", receipt.ID)
		fmt.Fprintln(c.w, "Purged")
	}
}

// dialect purges for one of the dialects. name is what stands where Fastly has
// a service and Cloudflare a zone: it names the site if a site has that name.
func (c *call) dialect(r purge.Request, name string) (purge.Receipt, bool) {
	c.what = sayPurge(&r, false)
	if len(r.Tags) > 0 || r.Everything {
		r.Site = c.meant(name)
		if r.Site == "" && len(c.sites()) != 1 {
			c.invalid(&purge.FieldError{Field: "site", Detail: "is not clear: there are several; use a token bound to one, " +
				"a Host of it, or its name where Fastly has the service and Cloudflare the zone"})
			return purge.Receipt{}, false
		}
	}
	if !c.placed(&r) {
		return purge.Receipt{}, false
	}
	c.what = sayPurge(&r, false)
	return c.purge(r, "")
}

// meant is the site that a dialect's call is about, "" if none is named and
// several can be. One that is named counts even where the token may not act on
// it: to purge the token's own instead would acknowledge what was not done.
func (c *call) meant(name string) string {
	if slices.Contains(c.h.Cache.Sites(), name) {
		return name
	}
	// A site's own host; this machine's names are how the node is reached.
	site, ok := c.h.Cache.SiteOf(strings.ToLower(c.r.Host))
	ok = ok && !loopback(c.r.Host)
	every, _ := c.h.Cache.SiteOf("") // answers any host, also the node's own
	mine := c.sites()
	switch {
	case ok && site != every && c.route.style == varnish: // whose clients name a site by Host alone
		return site
	case len(mine) == 1:
		return mine[0]
	case ok:
		return site
	}
	return ""
}
