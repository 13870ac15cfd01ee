package edge

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"

	"seawall/edge/rfc9111"
)

// The defaults of Cache and Limits.
const (
	defaultStaleIfUnreachable = time.Hour
	defaultHitForMiss         = 10 * time.Second
	defaultURL                = 8192
)

// site is Site, checked and made ready for requests.
type site struct {
	Site
	stats  *SiteStats
	base   *policy
	rules  []rule
	query  queryPolicy
	vary   *variation
	maxURL int
	behind atomic.Int64 // refreshes under way
	// The names of its functions, for the access log.
	viewerNames, originNames string
}

// policy is what holds for one request: the site's Cache as its rules change
// it.
type policy struct {
	Cache
	options rfc9111.Options
}

type rule struct {
	Rule
	policy *policy
}

// newSite checks s; the error names every fault of it.
func newSite(s Site, stats *Stats) (*site, error) {
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("edge: site %q: "+format, append([]any{s.Name}, args...)...))
	}
	if s.Name == "" {
		fault("no name")
	}
	if s.Origin == nil {
		fault("no origin")
	}
	for _, h := range s.Hosts {
		if h != strings.ToLower(h) || h == "" || strings.Contains(strings.TrimPrefix(h, "*."), "*") {
			fault("host %q (hint: a lower-case name, or *.example.com)", h)
		}
	}
	out := &site{Site: s, stats: stats.Site(s.Name), base: newPolicy(s.Cache), maxURL: s.Limits.URL}
	if out.maxURL == 0 {
		out.maxURL = defaultURL
	}
	if s.Viewer != nil {
		out.viewerNames = strings.Join(s.Viewer.Functions(), ",")
	}
	if s.OriginFunctions != nil {
		out.originNames = strings.Join(s.OriginFunctions.Functions(), ",")
	}
	out.query = queryPolicy{drop: s.Cache.Query.Drop, keep: s.Cache.Query.Keep, sort: s.Cache.Query.Sort}
	var err error
	if out.vary, err = newVariation(s.Cache.Vary); err != nil {
		fault("vary: %w", err)
	}
	for i, r := range s.Rules {
		if r.Path == "" && len(r.Status) == 0 && r.Cookie == "" && r.Header == "" {
			fault("rule %d has no condition (hint: give path, status, cookie or header)", i+1)
		}
		if r.Header != "" && !httpguts.ValidHeaderFieldName(r.Header) {
			fault("rule %d: header %q is not a field name", i+1, r.Header)
		}
		r.Header = http.CanonicalHeaderKey(r.Header)
		one := rule{r, newPolicy(r.change(s.Cache))}
		one.Path = decodedPath(r.Path)
		out.rules = append(out.rules, one)
	}
	return out, errors.Join(faults...)
}

// change returns c as the rule changes it.
func (r *Rule) change(c Cache) Cache {
	if r.TTL != nil {
		c.TTL = *r.TTL
	}
	if r.Bypass != nil {
		c.Bypass = *r.Bypass
	}
	if r.SetCookie != nil {
		c.SetCookie = *r.SetCookie
	}
	if r.KeyHeaders != nil {
		c.KeyHeaders = r.KeyHeaders
	}
	if r.KeyCookies != nil {
		c.KeyCookies = r.KeyCookies
	}
	return c
}

func newPolicy(c Cache) *policy {
	if c.StaleIfUnreachable == 0 {
		c.StaleIfUnreachable = defaultStaleIfUnreachable
	}
	if c.HitForMiss == 0 {
		c.HitForMiss = defaultHitForMiss
	}
	return &policy{Cache: c, options: rfc9111.Options{
		Targeted:          c.Targeted,
		SetCookie:         c.SetCookie,
		HeuristicFraction: c.HeuristicFraction,
		HeuristicCap:      c.HeuristicMax,
		TTL:               c.TTL,
	}}
}

// policyFor returns the policy of a request, and, when status is not 0, of its
// response.
func (s *site) policyFor(path string, h http.Header, status int) *policy {
	for i := range s.rules {
		if r := &s.rules[i]; r.matches(path, h, status) {
			return r.policy
		}
	}
	return s.base
}

func (r *rule) matches(path string, h http.Header, status int) bool {
	if len(r.Status) > 0 && !slices.Contains(r.Status, status) {
		return false
	}
	if r.Path != "" && !glob(r.Path, decodedPath(path)) {
		return false
	}
	if r.Cookie != "" {
		if _, ok := cookie(h, r.Cookie); !ok {
			return false
		}
	}
	if r.Header != "" {
		values := h[r.Header]
		if len(values) == 0 || r.Value != "" && !slices.Contains(values, r.Value) {
			return false
		}
	}
	return true
}

// decodedPath is path for rules: with the octets that are percent-encoded put
// in, but the slash and those of ASCII that are no part of a plain path. Origins
// decode before they look, and /%61ccount must not evade the rule of /account
// (RFC 3986, 6.2.2.2).
func decodedPath(path string) string {
	if strings.IndexByte(path, '%') < 0 {
		return path
	}
	out := make([]byte, 0, len(path))
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c == '%' && i+2 < len(path) {
			if o, err := strconv.ParseUint(path[i+1:i+3], 16, 8); err == nil && o > ' ' && o != 0x7f && !strings.ContainsRune("/%?#", rune(o)) {
				c, i = byte(o), i+2
			}
		}
		out = append(out, c)
	}
	return string(out)
}

// glob reports whether name matches pattern, in which "*" stands for any
// bytes. Its time is bounded by the product of the lengths.
func glob(pattern, name string) bool {
	star, from := -1, 0
	p, n := 0, 0
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, n
			p++
		case p < len(pattern) && pattern[p] == name[n]:
			p++
			n++
		case star >= 0:
			from++
			p, n = star+1, from
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// sites finds the site of a host.
type sites struct {
	exact map[string]*site
	below map[string]*site // by the part behind "*"
	any   *site
}

func newSites(list []*site) (sites, error) {
	out := sites{exact: map[string]*site{}, below: map[string]*site{}}
	names := map[string]bool{}
	var faults []error
	claim := func(m map[string]*site, host string, s *site) {
		if other := m[host]; other != nil {
			faults = append(faults, fmt.Errorf("edge: sites %q and %q both answer %q", other.Name, s.Name, host))
		}
		m[host] = s
	}
	for _, s := range list {
		if names[s.Name] {
			faults = append(faults, fmt.Errorf("edge: two sites are named %q", s.Name))
		}
		names[s.Name] = true
		if len(s.Hosts) == 0 {
			if out.any != nil {
				faults = append(faults, fmt.Errorf("edge: sites %q and %q both answer every host (hint: give one of them hosts)", out.any.Name, s.Name))
			}
			out.any = s
		}
		for _, h := range s.Hosts {
			if below, ok := strings.CutPrefix(h, "*"); ok {
				claim(out.below, below, s)
			} else {
				claim(out.exact, h, s)
			}
		}
	}
	return out, errors.Join(faults...)
}

// of returns the site of a host in lower case, nil when there is none.
func (s *sites) of(host string) *site {
	if len(s.exact) > 0 || len(s.below) > 0 {
		name := hostName(host)
		if found := s.exact[name]; found != nil {
			return found
		}
		for i := strings.IndexByte(name, '.'); i >= 0; {
			if found := s.below[name[i:]]; found != nil {
				return found
			}
			next := strings.IndexByte(name[i+1:], '.')
			if next < 0 {
				break
			}
			i += 1 + next
		}
	}
	return s.any
}

// hostName returns host without port and trailing dot.
func hostName(host string) string {
	if i := strings.LastIndexByte(host, ':'); i >= 0 && strings.IndexByte(host[i:], ']') < 0 {
		host = host[:i]
	}
	return strings.TrimSuffix(host, ".")
}
