package main

import (
	"crypto/sha256"
	"slices"

	"github.com/goccy/go-yaml/ast"
)

// pointer makes a parser say that there was a value at all.
func pointer[V any](parse func(string) (V, error)) func(string) (*V, error) {
	return func(s string) (*V, error) {
		v, err := parse(s)
		return &v, err
	}
}

// checkRules looks for rules that can never do anything.
func checkRules(d *decoder, list *ast.SequenceNode, rules []ruleSettings) {
	for i := range rules {
		n := list.Values[i]
		if _, empty := n.(*ast.NullNode); empty {
			continue
		}
		// By the keys that are there: a value may be at fault already.
		has := func(names ...string) bool {
			return slices.ContainsFunc(names, func(name string) bool { return child(n, name) != nil })
		}
		if !has("path", "status", "cookie", "header") {
			d.failAt(startOf(n), "a rule without a condition; give path, status, cookie or header, or change the site's cache itself")
		}
		if has("value") && !has("header") {
			d.failAt(startOf(n), "a rule with value and no header; name the field that has it")
		}
		if !has("ttl", "bypass", "set_cookie", "key") {
			d.failAt(startOf(n), "a rule that changes nothing; give ttl, bypass, set_cookie or key")
		}
		if has("status") && has("key") {
			d.failAt(startOf(n), "a rule by status cannot change the key, which is made before there is a response; leave one of them out")
		}
	}
}

// checkSites names sites and looks for two that claim the same.
func checkSites(d *decoder, list *ast.SequenceNode, sites []siteSettings) {
	names, hosts, catchall := map[string]bool{}, map[string]bool{}, 0
	for i := range sites {
		s, n := &sites[i], list.Values[i]
		if s.Name == "" {
			s.Name = "default"
			if len(s.Hosts) > 0 {
				s.Name = s.Hosts[0]
			}
		}
		if names[s.Name] {
			d.failAt(startOf(n), "another site is named %q; give each a name of its own", s.Name)
		}
		names[s.Name] = true
		for _, host := range s.Hosts {
			if hosts[host] {
				d.failAt(startOf(n), "%q is named twice; one site can have it once", host)
			}
			hosts[host] = true
		}
		if value := child(n, "hosts"); value == nil {
			if catchall++; catchall == 2 {
				d.failAt(startOf(n), "another site already answers every host; give one of them hosts")
			}
		} else if seq, ok := value.(*ast.SequenceNode); ok && len(seq.Values) == 0 {
			d.fail(value, "hosts is empty; name a host, or leave hosts out to answer every one")
		}
		checkOrigins(d, n, &s.originSettings)
		readRoutes(d, n, s)
	}
}

// checkStore looks for an object that memory cannot hold. Where the memory is
// not written here, a flag may say it.
func checkStore(d *decoder, body ast.Node, s *storeSettings) {
	cache := child(body, "cache")
	if at := child(cache, "max_object"); at != nil && child(cache, "memory") != nil && s.MaxObject > s.Memory {
		d.fail(at, "max_object is more than memory, so that nothing of that size could be kept; write a smaller one, as %s, or a larger memory", showSize(s.Memory/8))
	}
}

// child is the value of a mapping's key, nil if it has none.
func child(n ast.Node, name string) ast.Node {
	m, _ := n.(*ast.MappingNode)
	if m == nil {
		return nil
	}
	for _, pair := range m.Values {
		if k, ok := pair.Key.(*ast.StringNode); ok && k.Value == name {
			return pair.Value
		}
	}
	return nil
}

// checkTokens looks for tokens that cannot be told apart or can do nothing.
func checkTokens(d *decoder, list *ast.SequenceNode, tokens []tokenSettings) {
	names, hashes := map[string]bool{}, map[[sha256.Size]byte]bool{}
	for i, t := range tokens {
		n := list.Values[i]
		if t.Name != "" && names[t.Name] {
			d.failAt(startOf(n), "another token is named %q; give each a name of its own", t.Name)
		}
		names[t.Name] = true
		if t.Hash != [sha256.Size]byte{} && hashes[t.Hash] {
			d.failAt(startOf(n), "another entry has the same token; give each a secret of its own")
		}
		hashes[t.Hash] = true
		for name, what := range map[string]string{
			"scopes": "scopes is empty; give at least one of read, purge, push, functions and admin",
			"sites":  "sites is empty; name a site, or leave sites out for every one",
		} {
			if seq, ok := child(n, name).(*ast.SequenceNode); ok && len(seq.Values) == 0 {
				d.fail(seq, "%s", what)
			}
		}
	}
}

// checkTokenSites looks for tokens bound to sites that are not there. A file
// without sites leaves them to the command line.
func checkTokenSites(d *decoder, root ast.Node, s *settings) {
	tokens, _ := child(child(root, "admin"), "tokens").(*ast.SequenceNode)
	if tokens == nil || len(s.Sites) == 0 {
		return
	}
	for i, t := range s.Admin.Tokens {
		sites, _ := child(tokens.Values[i], "sites").(*ast.SequenceNode)
		for j, name := range t.Sites {
			if slices.ContainsFunc(s.Sites, func(site siteSettings) bool { return site.Name == name }) || sites == nil || j >= len(sites.Values) {
				continue
			}
			d.fail(sites.Values[j], "no site is named %q; a token is bound to sites by their names", name)
		}
	}
}
