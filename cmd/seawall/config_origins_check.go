package main

import (
	"cmp"
	"net/http"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"seawall/origin"
)

// maxRoutes bounds the routes of a site, which are looked through one by one.
const maxRoutes = 100

// routeList is read by readRoutes, once all else of the site is known.
func routeList() value[siteSettings] {
	return value[siteSettings]{kind: "a list of mappings", looks: listOf(shape{rows: rowsOf(routeKeys)}), set: func(*decoder, ast.Node, string, *siteSettings) {}}
}

// readRoutes reads the routes of a site, whose mapping n is. What a route does
// not say is as the site has it.
func readRoutes(d *decoder, n ast.Node, s *siteSettings) {
	at := child(n, "routes")
	if at == nil {
		return
	}
	list, ok := at.(*ast.SequenceNode)
	if !ok {
		d.fail(at, "routes: %s where a list is wanted; begin each entry with -", kindOf(at))
		return
	}
	if len(list.Values) > maxRoutes {
		d.fail(list, "%d routes; a site may have %d", len(list.Values), maxRoutes)
	}
	for _, item := range list.Values {
		if _, empty := item.(*ast.NullNode); empty {
			d.fail(item, "routes: an empty entry; leave it out")
			continue
		}
		r := routeSettings{originSettings: s.originSettings}
		r.Origins = nil
		pairsInto(d, item, routeKeys(), &r)
		same := func(o routeSettings) bool { return origin.SamePath(o.Prefix, r.Prefix) }
		if r.Prefix != "" && slices.ContainsFunc(s.Routes, same) {
			d.failAt(startOf(item), "another route has the prefix %q; give each its own", r.Prefix)
		}
		checkOrigins(d, item, &r.originSettings)
		s.Routes = append(s.Routes, r)
	}
}

// checkOrigins looks at the pool that the mapping n, of a site or a route, has.
func checkOrigins(d *decoder, n ast.Node, s *originSettings) {
	if list, ok := child(n, "origins").(*ast.SequenceNode); ok {
		if len(list.Values) == 0 {
			d.fail(list, "origins is empty; give at least one, as http://127.0.0.1:8000")
		}
		checkServers(d, list, s.Origins)
	}
	if h := child(n, "health"); h != nil {
		switch {
		case s.Health.TCP && s.Health.Path != "":
			d.fail(cmp.Or(child(h, "tcp"), h), "tcp and path both say what a check is; leave one of them out")
		case child(h, "path") == nil && (child(h, "status") != nil || child(h, "body") != nil || child(h, "host") != nil):
			d.failAt(startOf(h), "checks by nothing; give path, or leave out host, status and body")
		case s.Health.Method == http.MethodHead && s.Health.Body != "":
			d.fail(cmp.Or(child(h, "body"), h), "an answer to HEAD has no body; leave one of method and body out")
		}
	}
	checkSticky(d, child(child(n, "balance"), "sticky"), &s.Balance.Sticky)
	if t := child(n, "origin_tls"); t != nil && (s.TLS.Cert.path == "") != (s.TLS.Key.path == "") {
		d.failAt(startOf(t), "cert and key go together: one is of no use without the other; give both or neither")
	}
}

// checkSticky looks at a cookie, which n says, if it is there: clients drop one
// whose name promises what it is not (RFC 6265bis, 4.1.3).
func checkSticky(d *decoder, n ast.Node, s *origin.Sticky) {
	if n == nil || s.Secure {
		return
	}
	for _, prefix := range []string{"__Host-", "__Secure-"} {
		if len(s.Cookie) >= len(prefix) && strings.EqualFold(s.Cookie[:len(prefix)], prefix) {
			d.fail(cmp.Or(child(n, "cookie"), n), "cookie: clients drop a cookie called %s... that is not secure; add secure: true, or give it another name", prefix)
		}
	}
}

// checkServers looks for servers that cannot be told apart, or not be spoken to.
func checkServers(d *decoder, list *ast.SequenceNode, servers []serverSettings) {
	names := make(map[string]bool)
	backups := 0
	for i, s := range servers {
		if s.URL == "" {
			continue // it has a fault already
		}
		at := list.Values[i]
		if names[s.Name] {
			d.failAt(startOf(at), "another origin is called %q; give each a name of its own, or one of them a weight", s.Name)
		}
		names[s.Name] = true
		if s.Backup {
			backups++
		}
		secure := strings.HasPrefix(strings.TrimPrefix(s.URL, "srv+"), "https:")
		where := cmp.Or(child(at, "protocol"), at)
		switch {
		case s.Protocol == "h2c" && secure:
			d.fail(where, "protocol: h2c is HTTP/2 in clear, and the url is https; write h2")
		case s.Protocol == "auto" && !secure:
			d.fail(where, "protocol: auto needs an https url, where servers say what they speak; write h1, or h2c for HTTP/2 in clear")
		case (s.Protocol == "h2" || s.Protocol == "h3") && !secure:
			d.fail(where, "protocol: %s needs an https url; write h2c for HTTP/2 in clear", s.Protocol)
		}
	}
	if len(servers) > 0 && backups == len(servers) {
		d.fail(list, "every origin is a backup; leave backup out of one")
	}
}
