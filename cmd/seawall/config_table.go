package main

import (
	"crypto/sha256"
	"log/slog"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"seawall/edge"
	"seawall/edge/admin"
	"seawall/edge/rfc9111"
	"seawall/wasm/extras"
)

// settings are a whole configuration, every default filled in.
type settings struct {
	Listen  listenSettings
	Admin   adminSettings
	TLS     tlsSettings
	Cache   storeSettings
	Encode  coderSettings
	Sites   []siteSettings
	Trusted []netip.Prefix
	Node    nodeSettings
	Log     logSettings

	Functions []functionSettings // in the file's order
	Upstreams []upstreamSettings
	Geo       extras.Geo
	Keys      []namedKeySettings
	Maps      []mapSettings

	path       string       // of the file; "" when there is none
	unresolved []unresolved // in the file's order
}

type listenSettings struct {
	HTTP, HTTPS, Admin string // HTTPS and Admin are "" when off
	Connections        int
	PerClient          int // 0 is no limit
}

type tlsSettings struct {
	Certificates []certificateSettings
	MinVersion   uint16
}

// certificateSettings name the files of one certificate and its key. Without
// Names it is shown for those it was issued for.
type certificateSettings struct {
	Cert, Key string
	Names     []string
}

type adminSettings struct {
	Tokens []tokenSettings
	Rate   int // calls a second for each; 0 is no limit
}

// tokenSettings are one who may call the admin API. The token itself is not
// kept.
type tokenSettings struct {
	Name   string
	Hash   [sha256.Size]byte
	Scopes []admin.Scope
	Sites  []string // nil is every one
}

type accessSettings struct{ Purge []netip.Prefix }

type storeSettings struct {
	Memory, MaxObject int64 // MaxObject 0 is the store's own default
	Young             string
}

type nodeSettings struct{ Name string }

type logSettings struct {
	Level  slog.Level
	Format string // "text" or "json"
	Access string // a path, "stdout", "stderr" or "off"
}

type siteSettings struct {
	Name  string
	Hosts []string
	originSettings
	Routes    []routeSettings
	Cache     policySettings
	Encode    encodeSettings
	Limits    limitSettings
	Access    accessSettings
	Functions attachSettings
}

type policySettings struct {
	Bypass             bool
	SetCookie          rfc9111.SetCookie
	TTL                time.Duration
	HeuristicFraction  float64
	HeuristicMax       time.Duration
	StaleIfUnreachable time.Duration // negative is never
	HitForMiss         time.Duration
	Targeted           []string
	AcceptEncoding     string // "identity" or "client"
	HonourReload       bool
	Query              querySettings
	Key                keySettings
	Vary               varySettings
	Rules              []ruleSettings
}

type querySettings struct {
	Drop, Keep []string
	Sort       bool
}

type keySettings struct{ Headers, Cookies []string }

type varySettings struct{ Languages, Accept, Ignore []string }

type ruleSettings struct {
	Path          string
	Status        []int
	Cookie        string
	Header, Value string
	TTL           *time.Duration
	Bypass        *bool
	SetCookie     *rfc9111.SetCookie
	Key           keySettings
}

type limitSettings struct {
	URL  int64
	Body int64
}

// settingsKeys is the top of the table. Sections follow in the order of the
// file that complete.yaml shows.
func settingsKeys() []key[settings] {
	return []key[settings]{
		{name: "listen", takes: section(listenKeys, func(s *settings) *listenSettings { return &s.Listen }),
			meaning: "where connections are accepted"},
		{name: "admin", takes: section(adminKeys, func(s *settings) *adminSettings { return &s.Admin }),
			meaning: "who may call the admin API"},
		{name: "tls", takes: section(tlsKeys, func(s *settings) *tlsSettings { return &s.TLS }),
			meaning: "what HTTPS clients are shown"},
		{name: "cache", takes: section(storeKeys, func(s *settings) *storeSettings { return &s.Cache }),
			meaning: "how much is kept"},
		{name: "encode", takes: section(coderKeys, func(s *settings) *coderSettings { return &s.Encode }),
			meaning: "what compressing may take"},
		{name: "sites", takes: sections(siteKeys, func(s *settings) *[]siteSettings { return &s.Sites }, checkSites),
			meaning: "what is answered for, and from where"},
		{name: "trusted_proxies", takes: many("an address range, as 10.0.0.0/8", parsePrefix, func(s *settings) *[]netip.Prefix { return &s.Trusted }),
			meaning: "peers whose X-Forwarded-* and Forwarded fields are believed"},
		{name: "nodes", takes: section(nodeKeys, func(s *settings) *nodeSettings { return &s.Node }),
			meaning: "this node among others"},
		{name: "log", takes: section(logKeys, func(s *settings) *logSettings { return &s.Log }),
			meaning: "what is written down"},
		{name: "functions", takes: named(functionKeys, func(f *functionSettings, name string, line, column int) {
			f.Name, f.line, f.column = name, line, column
		},
			func(s *settings) *[]functionSettings { return &s.Functions }),
			meaning: "edge functions by name, for sites to run"},
		{name: "upstreams", takes: named(upstreamKeys, func(u *upstreamSettings, name string, _, _ int) { u.Name = name },
			func(s *settings) *[]upstreamSettings { return &s.Upstreams }),
			meaning: "servers by name that functions may call"},
		{name: "geo", takes: section(geoKeys, func(s *settings) *extras.Geo { return &s.Geo }),
			meaning: "where clients' addresses are, for functions"},
		{name: "keys", takes: named(namedKeyKeys, func(k *namedKeySettings, name string, line, column int) {
			k.Name, k.line, k.column = name, line, column
		}, func(s *settings) *[]namedKeySettings { return &s.Keys }),
			meaning: "secrets and public keys by name that functions may use, never see"},
		{name: "maps", takes: namedMaps(),
			meaning: "look-up tables by name that functions may read"},
		later[settings]("trace", "tracing comes later"),
	}
}

// defaultPerClient is one client's connections, unless configured: more than
// any browser opens, and enough for a few hundred of them behind one address.
const defaultPerClient = 1024

func listenKeys() []key[listenSettings] {
	return []key[listenSettings]{
		{name: "http", def: ":8080", takes: one("host:port, as :8080", parseAddr, func(s *listenSettings) *string { return &s.HTTP }),
			meaning: "clear HTTP/1.1, and HTTP/2 by prior knowledge"},
		{name: "https", def: ":8443", takes: one("host:port, or off", parseAddrOrOff, func(s *listenSettings) *string { return &s.HTTPS }),
			meaning: "HTTP/1.1 and 2 over TLS on TCP, and HTTP/3 on the UDP port of the same number"},
		{name: "admin", def: "127.0.0.1:9090", takes: one("host:port, or off", parseAddrOrOff, func(s *listenSettings) *string { return &s.Admin }),
			meaning: "health, metrics and the admin API"},
		{name: "max_connections", def: "16384", takes: one("a number from 1 to 1048576", numbers(1, 1<<20), func(s *listenSettings) *int { return &s.Connections }),
			meaning: "open at once; one more is closed"},
		{name: "max_connections_per_client", def: strconv.Itoa(defaultPerClient), takes: one("a number from 1 to 1048576, or off", numbersOrOff(1, 1<<20), func(s *listenSettings) *int { return &s.PerClient }),
			meaning: "of them from one IPv4 address or one IPv6 /64; trusted_proxies may have more, and so may loopback while it is 1024"},
	}
}

func adminKeys() []key[adminSettings] {
	return []key[adminSettings]{
		{name: "tokens", takes: sections(tokenKeys, func(s *adminSettings) *[]tokenSettings { return &s.Tokens }, checkTokens),
			meaning: "who may call; without any, this machine alone"},
		{name: "rate", def: "100", takes: one("a number from 1 to 100000, or off", numbersOrOff(1, 100_000), func(s *adminSettings) *int { return &s.Rate }),
			meaning: "calls a second that each token may make"},
	}
}

func tokenKeys() []key[tokenSettings] {
	type s = tokenSettings
	return []key[s]{
		{name: "name", must: true, takes: one("a name of letters, digits, dots and dashes", parseName, func(s *s) *string { return &s.Name }),
			meaning: "what the audit calls it"},
		{name: "token", must: true, takes: one("16 to 512 visible characters, by ${NAME} or file:PATH, or sha256: and the token's hash in hexadecimal", parseToken, func(s *s) *[sha256.Size]byte { return &s.Hash }),
			meaning: "the secret itself, or its hash"},
		{name: "scopes", must: true, takes: many("read, purge, push, functions or admin", admin.ParseScope, func(s *s) *[]admin.Scope { return &s.Scopes }),
			meaning: "what it may do; admin is everything"},
		{name: "sites", takes: many("a site's name", parseName, func(s *s) *[]string { return &s.Sites }),
			meaning: "the sites it is bound to; without it, every one"},
	}
}

func tlsKeys() []key[tlsSettings] {
	return []key[tlsSettings]{
		{name: "certificates", takes: sections(certificateKeys, func(s *tlsSettings) *[]certificateSettings { return &s.Certificates }, nil),
			meaning: "chosen by the name that a client asks for, else the first; without any, a self-signed one"},
		{name: "min_version", def: "1.2", takes: one("1.2 or 1.3", parseVersion, func(s *tlsSettings) *uint16 { return &s.MinVersion }),
			meaning: "the oldest TLS spoken; HTTP/3 has 1.3 always"},
		later[tlsSettings]("acme", "certificates that renew themselves come later"),
		later[tlsSettings]("client_ca", "clients known by their certificates come later"),
	}
}

func certificateKeys() []key[certificateSettings] {
	type s = certificateSettings
	return []key[s]{
		{name: "cert", must: true, takes: one("the path of a PEM file", parseFile, func(s *s) *string { return &s.Cert }),
			meaning: "the file with the certificate, and its issuers behind it"},
		{name: "key", must: true, takes: one("the path of a PEM file", parseFile, func(s *s) *string { return &s.Key }),
			meaning: "the file with its key"},
		{name: "names", takes: many(`a lower-case name, as example.com or "*.example.com"`, parseHost, func(s *s) *[]string { return &s.Names }),
			meaning: "the names it is shown for; without it, those it was issued for"},
	}
}

func storeKeys() []key[storeSettings] {
	return []key[storeSettings]{
		{name: "memory", def: "256MiB", takes: one("a size from 1MiB to 16TiB, as 256MiB", sizes(mib, 16*tib), func(s *storeSettings) *int64 { return &s.Memory }),
			meaning: "what responses may take, headers and bookkeeping included"},
		{name: "max_object", takes: one("a size from 1KiB to 1TiB, as 32MiB", sizes(kib, tib), func(s *storeSettings) *int64 { return &s.MaxObject }),
			meaning: "the largest response kept; without it, an eighth of memory"},
		{name: "young", def: "adaptive", takes: one("adaptive", parseYoung, func(s *storeSettings) *string { return &s.Young }),
			meaning: "the share of memory that new responses have before frequency decides"},
		later[storeSettings]("disk", "the disk tier comes later"),
	}
}

func siteKeys() []key[siteSettings] {
	type s = siteSettings
	rows := []key[s]{
		{name: "name", takes: one("a name of letters, digits, dots and dashes", parseName, func(s *s) *string { return &s.Name }),
			meaning: "labels metrics and log lines; without it, the first host"},
		{name: "hosts", takes: many(`a lower-case name without port, as example.com or "*.example.com"`, parseHost, func(s *s) *[]string { return &s.Hosts }),
			meaning: "the names answered for; without it, every name no other site has"},
		{name: "routes", takes: routeList(),
			meaning: "paths that have origins of their own; what one of them does not say is as the site has it"},
		{name: "cache", takes: section(policyKeys, func(s *s) *policySettings { return &s.Cache }),
			meaning: "what may be kept, and for how long"},
		{name: "encode", takes: section(encodeKeys, func(s *s) *encodeSettings { return &s.Encode }),
			meaning: "what is compressed for clients"},
		{name: "limits", takes: section(limitKeys, func(s *s) *limitSettings { return &s.Limits }),
			meaning: "what a client may send"},
		{name: "access", takes: section(accessKeys, func(s *s) *accessSettings { return &s.Access }),
			meaning: "which clients may do what others may not"},
		{name: "functions", takes: section(attachKeys, func(s *s) *attachSettings { return &s.Functions }),
			meaning: "the edge functions that run for it"},
		later[s]("errors", "error pages come later"),
	}
	return slices.Insert(rows, 2, lift(originKeys(), func(s *s) *originSettings { return &s.originSettings })...)
}

func policyKeys() []key[policySettings] {
	type s = policySettings
	const day, year = 24 * time.Hour, 8760 * time.Hour
	return []key[s]{
		{name: "bypass", def: "false", takes: one("true or false", parseBool, func(s *s) *bool { return &s.Bypass }),
			meaning: "ask the origin for every request and store nothing"},
		{name: "set_cookie", def: "shared", takes: one("shared, pass, strip or store", parseSetCookie, func(s *s) *rfc9111.SetCookie { return &s.SetCookie }),
			meaning: "which responses with Set-Cookie may be stored"},
		{name: "ttl", takes: one("a duration from 0s to 8760h, as 10m", spans(0, year), func(s *s) *time.Duration { return &s.TTL }),
			meaning: "a lifetime of yours for what the origin does not forbid to store; without it, the origin's"},
		{name: "heuristic_fraction", def: "0.1", takes: one("a number from 0 to 1; 0 is no heuristics", parseFraction, func(s *s) *float64 { return &s.HeuristicFraction }),
			meaning: "the part of its age a response without lifetime stays fresh"},
		{name: "heuristic_max", def: "24h", takes: one("a duration from 1s to 720h, as 24h", spans(time.Second, 30*day), func(s *s) *time.Duration { return &s.HeuristicMax }),
			meaning: "the longest such lifetime"},
		{name: "stale_if_unreachable", def: "1h", takes: one("a duration from 1s to 8760h, as 1h, or never", spansOr("never", time.Second, year), func(s *s) *time.Duration { return &s.StaleIfUnreachable }),
			meaning: "how long past its lifetime a response serves while the origin cannot be reached"},
		{name: "hit_for_miss", def: "10s", takes: one("a duration from 100ms to 1h, as 10s", spans(100*time.Millisecond, time.Hour), func(s *s) *time.Duration { return &s.HitForMiss }),
			meaning: "how long requests for what could not be shared do not wait for one another"},
		{name: "targeted", takes: many("a field name, as CDN-Cache-Control", parseField, func(s *s) *[]string { return &s.Targeted }),
			meaning: "targeted fields by precedence; without it, CDN-Cache-Control and Surrogate-Control"},
		{name: "accept_encoding", def: "identity", takes: one("identity or client", words("identity", "client"), func(s *s) *string { return &s.AcceptEncoding }),
			meaning: "the codings asked of the origin"},
		{name: "honour_reload", def: "false", takes: one("true or false", parseBool, func(s *s) *bool { return &s.HonourReload }),
			meaning: "let a client's reload cause one validation a second for each URL"},
		{name: "query", takes: section(queryKeys, func(s *s) *querySettings { return &s.Query }),
			meaning: "which query parameters count"},
		{name: "key", takes: section(keyKeys, func(s *s) *keySettings { return &s.Key }),
			meaning: "what else of a request tells responses apart"},
		{name: "vary", takes: section(varyKeys, func(s *s) *varySettings { return &s.Vary }),
			meaning: "what counts of the request fields that the origin's Vary names"},
		{name: "rules", takes: sections(ruleKeys, func(s *s) *[]ruleSettings { return &s.Rules }, checkRules),
			meaning: "changes for some requests and responses; the first that matches counts"},
	}
}

func queryKeys() []key[querySettings] {
	type s = querySettings
	const kind = "a parameter name, as utm_source or utm_*"
	return []key[s]{
		{name: "drop", takes: many(kind, parseParameter, func(s *s) *[]string { return &s.Drop }), meaning: "parameters to remove"},
		{name: "keep", takes: many(kind, parseParameter, func(s *s) *[]string { return &s.Keep }), meaning: "parameters to keep; all others are removed"},
		{name: "sort", def: "false", takes: one("true or false", parseBool, func(s *s) *bool { return &s.Sort }), meaning: "order them by name"},
	}
}

func keyKeys() []key[keySettings] {
	type s = keySettings
	return []key[s]{
		{name: "headers", takes: many("a field name, as X-Country", parseField, func(s *s) *[]string { return &s.Headers }), meaning: "request fields whose values are part of the key"},
		{name: "cookies", takes: many("a cookie's name", parseField, func(s *s) *[]string { return &s.Cookies }), meaning: "cookies whose values are part of the key"},
	}
}

func varyKeys() []key[varySettings] {
	type s = varySettings
	return []key[s]{
		{name: "languages", takes: many("a language tag, as en or pt-BR", parseVary(func(v *edge.Vary) *[]string { return &v.Languages }), func(s *s) *[]string { return &s.Languages }),
			meaning: "those that the origin has: Accept-Language becomes the one of them that the client likes best, also towards the origin; without it, the client's"},
		{name: "accept", takes: many("a media type, as image/avif", parseVary(func(v *edge.Vary) *[]string { return &v.Accept }), func(s *s) *[]string { return &s.Accept }),
			meaning: "the types between which the origin chooses, at most 8: Accept becomes those of them that the client names, also towards the origin; without it, the client's"},
		{name: "ignore", takes: many("a field name, as User-Agent", parseVary(func(v *edge.Vary) *[]string { return &v.Ignore }), func(s *s) *[]string { return &s.Ignore }),
			meaning: "fields by which no response is told apart, whatever Vary says; not Cookie nor Authorization"},
	}
}

// parseVary takes what edge does for one entry of a list of Vary.
func parseVary(list func(*edge.Vary) *[]string) func(string) (string, error) {
	return func(text string) (string, error) {
		var v edge.Vary
		*list(&v) = []string{text}
		return text, v.Check()
	}
}

func ruleKeys() []key[ruleSettings] {
	type s = ruleSettings
	return []key[s]{
		{name: "path", takes: one("a pattern, as /images/*", parsePath, func(s *s) *string { return &s.Path }), meaning: "matches the whole path"},
		{name: "status", takes: many("a status from 200 to 599", numbers(200, 599), func(s *s) *[]int { return &s.Status }), meaning: "matches the response"},
		{name: "cookie", takes: one("a cookie's name", parseField, func(s *s) *string { return &s.Cookie }), meaning: "matches requests that have it"},
		{name: "header", takes: one("a field name", parseField, func(s *s) *string { return &s.Header }), meaning: "matches requests that have it"},
		{name: "value", takes: one("a field's value", parseFieldValue, func(s *s) *string { return &s.Value }), meaning: "with header: the value it must have"},
		{name: "ttl", takes: one("a duration from 0s to 8760h, as 10m", pointer(spans(0, 8760*time.Hour)), func(s *s) **time.Duration { return &s.TTL }), meaning: "as in cache"},
		{name: "bypass", takes: one("true or false", pointer(parseBool), func(s *s) **bool { return &s.Bypass }), meaning: "as in cache"},
		{name: "set_cookie", takes: one("shared, pass, strip or store", pointer(parseSetCookie), func(s *s) **rfc9111.SetCookie { return &s.SetCookie }), meaning: "as in cache"},
		{name: "key", takes: section(keyKeys, func(s *s) *keySettings { return &s.Key }), meaning: "as in cache; replaces it"},
	}
}

func limitKeys() []key[limitSettings] {
	return []key[limitSettings]{
		{name: "url", def: "8KiB", takes: one("a size from 64B to 64KiB", sizes(64, 64*kib), func(s *limitSettings) *int64 { return &s.URL }),
			meaning: "the longest target; a longer one gets 414"},
		{name: "body", takes: one("a size from 1B to 1TiB", sizes(1, tib), func(s *limitSettings) *int64 { return &s.Body }),
			meaning: "the largest request content; a larger one gets 413; without it, any"},
	}
}

func accessKeys() []key[accessSettings] {
	return []key[accessSettings]{
		{name: "purge", takes: many("an address range, as 10.0.0.0/8", parsePrefix, func(s *accessSettings) *[]netip.Prefix { return &s.Purge }),
			meaning: "clients that may purge a URL by the method PURGE; without it, none"},
	}
}

func nodeKeys() []key[nodeSettings] {
	return []key[nodeSettings]{
		{name: "name", def: "seawall", takes: one("a name of letters, digits, dots and dashes", parseName, func(s *nodeSettings) *string { return &s.Name }),
			meaning: "this node in Via and CDN-Loop"},
		later[nodeSettings]("bus", "nodes that purge together come later"),
	}
}

func logKeys() []key[logSettings] {
	return []key[logSettings]{
		{name: "level", def: "info", takes: one("debug, info, warn or error", parseLevel, func(s *logSettings) *slog.Level { return &s.Level }),
			meaning: "what is worth a line on standard error"},
		{name: "format", def: "text", takes: one("text or json", words("text", "json"), func(s *logSettings) *string { return &s.Format }),
			meaning: "of these lines and of the access log"},
		{name: "access", def: "stdout", takes: one("a path, stdout, stderr or off", parseLogPath, func(s *logSettings) *string { return &s.Access }),
			meaning: "one line a request; reloading opens a path anew"},
	}
}
