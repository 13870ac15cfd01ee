package edgetest

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"seawall/edge"
)

// openEdge makes a handler over a store of its own for one site, as the
// script's settings say:
//
//	hosts=NAME,...  node=NAME  trusted=PREFIX,...  url_limit=N  body_limit=N
//	memory=N  max_object=N  bypass=true  set_cookie=shared|pass|strip|store
//	ttl=D  heuristic_fraction=F  heuristic_max=D  stale_if_unreachable=D
//	hit_for_miss=D  targeted=NAME,...  pass_encoding=true  honour_reload=true
//	query_drop=NAME,...  query_keep=NAME,...  query_sort=true
//	key_header=NAME,...  key_cookie=NAME,...  purgers=PREFIX,...  purge_rules=N
//	vary_languages=TAG,...  vary_accept=TYPE,...  vary_ignore=NAME,...
//	encode=true  encode_min=N  encode_events=true  encode_personal=true
//	decode_ratio=N
//
// and for a rule:
//
//	path=PATTERN status=N,... cookie=NAME header=NAME value=TEXT
//	ttl=D bypass=true set_cookie=... key_header=... key_cookie=...
func openEdge(settings []setting, origin http.RoundTripper) (*node, error) {
	c := config{store: edge.StoreOptions{Memory: 64 << 20}, site: edge.Site{Name: "test", Origin: origin}}
	for _, s := range settings {
		var err error
		if s.rule > 0 {
			err = c.setRule(s)
		} else {
			err = c.set(s)
		}
		if err != nil {
			return nil, fmt.Errorf("%s=%s: %w", s.key, s.value, err)
		}
	}
	return openCache(&c)
}

// config is what the settings of a script make.
type config struct {
	edge  edge.Config
	store edge.StoreOptions
	site  edge.Site
	rules int // how many purge rules are kept one by one
}

// errUnknown is returned for a key or a word that no setting has.
var errUnknown = errors.New("there is no such setting")

func (c *config) set(s setting) error {
	cache, query := &c.site.Cache, &c.site.Cache.Query
	if strings.HasPrefix(s.key, "encode") && c.site.Encode == nil {
		c.site.Encode = new(edge.Encode)
	}
	coding := c.site.Encode
	if coding == nil {
		coding = new(edge.Encode)
	}
	on := true
	into := map[string]func(string) error{
		"hosts":                words(&c.site.Hosts),
		"node":                 text(&c.edge.Node),
		"trusted":              prefixes(&c.edge.Trusted),
		"purgers":              prefixes(&c.site.Purgers),
		"purge_rules":          number(&c.rules),
		"url_limit":            number(&c.site.Limits.URL),
		"body_limit":           number(&c.site.Limits.Body),
		"memory":               number(&c.store.Memory),
		"max_object":           number(&c.store.MaxObject),
		"bypass":               truth(&cache.Bypass),
		"set_cookie":           choice(&cache.SetCookie),
		"ttl":                  span(&cache.TTL),
		"heuristic_fraction":   fraction(&cache.HeuristicFraction),
		"heuristic_max":        span(&cache.HeuristicMax),
		"stale_if_unreachable": span(&cache.StaleIfUnreachable),
		"hit_for_miss":         span(&cache.HitForMiss),
		"targeted":             words(&cache.Targeted),
		"pass_encoding":        truth(&cache.PassEncoding),
		"honour_reload":        truth(&cache.HonourReload),
		"query_drop":           words(&query.Drop),
		"query_keep":           words(&query.Keep),
		"query_sort":           truth(&query.Sort),
		"key_header":           words(&cache.KeyHeaders),
		"key_cookie":           words(&cache.KeyCookies),
		"vary_languages":       words(&cache.Vary.Languages),
		"vary_accept":          words(&cache.Vary.Accept),
		"vary_ignore":          words(&cache.Vary.Ignore),
		"encode":               truth(&on),
		"encode_min":           number(&coding.MinSize),
		"encode_events":        truth(&coding.Events),
		"encode_personal":      truth(&coding.Personal),
		"decode_ratio":         number(&c.edge.Decode.Ratio),
	}
	read, ok := into[s.key]
	if !ok {
		return errUnknown
	}
	return read(s.value)
}

func (c *config) setRule(s setting) error {
	for len(c.site.Rules) < s.rule {
		c.site.Rules = append(c.site.Rules, edge.Rule{})
	}
	r := &c.site.Rules[s.rule-1]
	into := map[string]func(string) error{
		"path":       text(&r.Path),
		"status":     statuses(&r.Status),
		"cookie":     text(&r.Cookie),
		"header":     text(&r.Header),
		"value":      text(&r.Value),
		"ttl":        optional(&r.TTL, span),
		"bypass":     optional(&r.Bypass, truth),
		"set_cookie": optional(&r.SetCookie, choice),
		"key_header": words(&r.KeyHeaders),
		"key_cookie": words(&r.KeyCookies),
	}
	read, ok := into[s.key]
	if !ok {
		return errUnknown
	}
	return read(s.value)
}

func prefixes(to *[]netip.Prefix) func(string) error {
	return func(list string) error {
		for _, s := range strings.Split(list, ",") {
			p, err := netip.ParsePrefix(s)
			if err != nil {
				return err
			}
			*to = append(*to, p)
		}
		return nil
	}
}

// The functions below read a setting's text into a field.

func text(to *string) func(string) error {
	return func(s string) error { *to = s; return nil }
}

func words(to *[]string) func(string) error {
	return func(s string) error { *to = strings.Split(s, ","); return nil }
}

func truth(to *bool) func(string) error {
	return func(s string) (err error) { *to, err = strconv.ParseBool(s); return err }
}

func span(to *time.Duration) func(string) error {
	return func(s string) (err error) { *to, err = time.ParseDuration(s); return err }
}

func fraction(to *float64) func(string) error {
	return func(s string) (err error) { *to, err = strconv.ParseFloat(s, 64); return err }
}

// choice reads the word of a numbered choice.
func choice[C interface {
	~uint8
	fmt.Stringer
}](to *C) func(string) error {
	return func(s string) error {
		for c := range C(8) {
			if c.String() == s {
				*to = c
				return nil
			}
		}
		return errUnknown
	}
}

func number[N int | int64](to *N) func(string) error {
	return func(s string) error {
		n, err := strconv.ParseInt(s, 10, 64)
		*to = N(n)
		return err
	}
}

func statuses(to *[]int) func(string) error {
	return func(s string) error {
		for _, w := range strings.Split(s, ",") {
			n, err := strconv.Atoi(w)
			if err != nil {
				return err
			}
			*to = append(*to, n)
		}
		return nil
	}
}

// optional reads into a field that is nil while nothing is given.
func optional[V any](to **V, read func(*V) func(string) error) func(string) error {
	return func(s string) error {
		*to = new(V)
		return read(*to)(s)
	}
}
