package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"seawall/edge/admin"
	"seawall/wasm/extras"
)

// namedKeySettings are a key that functions may use.
type namedKeySettings struct {
	Name             string
	Secret, Encoding string // as it is written, and how
	Public           string // PEM
	JWKS             extras.JWKS
	Algorithms       []string
	line, column     int // of the name
}

// mapSettings are a look-up table that functions may read.
type mapSettings struct {
	Name   string
	Values map[string]string
}

// Bounds of maps.
const (
	maxMapFile    = 16 << 20 // bytes
	maxMapEntries = 200_000
)

func geoKeys() []key[extras.Geo] {
	const kind = "the path of a file in the MaxMind format (.mmdb)"
	return []key[extras.Geo]{
		{name: "database", takes: one(kind, parseFile, func(s *extras.Geo) *string { return &s.Database }),
			meaning: "countries, and maybe regions and cities; read anew when it changes"},
		{name: "asn", takes: one(kind, parseFile, func(s *extras.Geo) *string { return &s.ASN }),
			meaning: "autonomous systems; it may be the same file"},
	}
}

func namedKeyKeys() []key[namedKeySettings] {
	type s = namedKeySettings
	names := extras.AlgorithmNames()
	algorithms := strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
	return []key[s]{
		{name: "secret", takes: one("16 bytes or more, by ${NAME} or file:PATH", parseSecret, func(s *s) *string { return &s.Secret }),
			meaning: "shared with whoever signs (HMAC)"},
		{name: "encoding", def: "text", takes: one("text, base64 or hex", words("text", "base64", "hex"), func(s *s) *string { return &s.Encoding }),
			meaning: "how secret is written"},
		{name: "public", takes: one("public keys or certificates in PEM, as file:PATH: RSA of 2048 bits or more, EC P-256 or P-384, Ed25519", parsePublicKey, func(s *s) *string { return &s.Public }),
			meaning: "of whoever signs; several are all good"},
		{name: "jwks", takes: section(jwksKeys, func(s *s) *extras.JWKS { return &s.JWKS }),
			meaning: "a page of public keys that the node fetches (RFC 7517)"},
		{name: "algorithms", takes: many(algorithms, parseAlgorithm, func(s *s) *[]string { return &s.Algorithms }),
			meaning: "what it may be used for; without it, HS256 for a secret, RS256 for RSA, else what its type has"},
	}
}

func jwksKeys() []key[extras.JWKS] {
	type s = extras.JWKS
	return []key[s]{
		{name: "url", must: true, takes: one("an http or https URL", parsePage, func(s *s) *string { return &s.URL }),
			meaning: "where the page is"},
		{name: "refresh", def: "1h", takes: one("a duration from 1m to 168h, as 1h", spans(time.Minute, 168*time.Hour), func(s *s) *time.Duration { return &s.Refresh }),
			meaning: "the longest time between fetches; the page's own lifetime may shorten it, to 1m"},
		{name: "unknown_kid", def: "30s", takes: one("a duration from 1s to 1h, as 30s", spans(time.Second, time.Hour), func(s *s) *time.Duration { return &s.UnknownKid }),
			meaning: "the shortest time between fetches that keys of unknown id cause"},
		{name: "timeout", def: "5s", takes: one("a duration from 100ms to 30s, as 5s", spans(100*time.Millisecond, 30*time.Second), func(s *s) *time.Duration { return &s.Timeout }),
			meaning: "how long a fetch may take"},
	}
}

func parseSecret(s string) (string, error) {
	if s == "" {
		return "", errors.New("it is empty")
	}
	return s, nil
}

func parsePublicKey(s string) (string, error) { return s, (&extras.Key{Public: s}).Check() }

func parseAlgorithm(s string) (string, error) {
	if !slices.Contains(extras.AlgorithmNames(), s) {
		return "", fmt.Errorf("%s is no algorithm", show(s))
	}
	return s, nil
}

// parsePage reads the URL of a page.
func parsePage(s string) (string, error) {
	u, err := url.Parse(s)
	switch {
	case strings.Contains(s, "@") && (err != nil || u.User != nil):
		return "", errors.New("a URL with a user name or password") // and never shown
	case err != nil || u.Host == "" || !validHost(u.Hostname()):
		return "", fmt.Errorf("%s is not the URL of a page", show(s))
	case u.Scheme != "http" && u.Scheme != "https":
		return "", fmt.Errorf("%s has a scheme that is neither http nor https", show(s))
	case strings.Contains(s, "#"):
		return "", fmt.Errorf("%s has a fragment", show(s))
	}
	return s, nil
}

// namedMaps takes a mapping of names, each with a mapping of texts or a file
// of JSON that has one.
func namedMaps() value[settings] {
	return value[settings]{kind: "a mapping of names", set: func(d *decoder, n ast.Node, _ string, into *settings) {
		pairs, ok := d.pairs(n)
		if !ok {
			return
		}
		for _, pair := range pairs {
			name, ok := d.name(pair.Key)
			if !ok {
				continue
			}
			if _, err := parseFunctionName(name); err != nil {
				d.fail(pair.Key, "%v; choose another", err)
				continue
			}
			if into.table(name) {
				d.fail(pair.Key, "%s is already set; leave one of them", name)
				continue
			}
			into.Maps = append(into.Maps, mapSettings{name, d.table(pair.Value)})
		}
	}}
}

// table reads one map; it notes what is wrong with it.
func (d *decoder) table(n ast.Node) map[string]string {
	if s, ok := n.(*ast.StringNode); ok {
		path, ok := strings.CutPrefix(s.Value, "file:")
		if !ok {
			d.fail(n, "a single value where a mapping is wanted; write key: value pairs, or file:PATH of a JSON object")
			return nil
		}
		text, err := readRegular(path, maxMapFile)
		if err != nil {
			d.fail(n, "cannot read this map: %v; give a file that exists", err)
			return nil
		}
		values, err := parseTable(text)
		if err != nil {
			d.fail(n, "%s: %v; write a JSON object whose values are texts", path, err)
		}
		return values
	}
	pairs, _ := d.pairs(n)
	values := make(map[string]string, len(pairs))
	for _, pair := range pairs {
		name, ok := d.entry(pair.Key)
		if !ok {
			continue
		}
		if _, twice := values[name]; twice {
			d.fail(pair.Key, "%s is there twice; leave one of them", show(name))
			continue
		}
		values[name], _ = d.text(pair.Value, "a text")
	}
	return values
}

// entry is the key of a map's entry: numbers and such stand for their text.
func (d *decoder) entry(n ast.Node) (string, bool) {
	switch n.(type) {
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value, true
	}
	return d.name(n)
}

// parseTable reads a JSON object of texts.
func parseTable(text []byte) (map[string]string, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("it is no JSON object")
	}
	values := make(map[string]string)
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return nil, fmt.Errorf("it is not JSON at byte %d", dec.InputOffset())
		}
		name, _ := t.(string) // a key is one
		var v *string
		if err := dec.Decode(&v); err != nil || v == nil {
			return nil, fmt.Errorf("the value of %s is no text", show(name))
		}
		if _, twice := values[name]; twice {
			return nil, fmt.Errorf("%s is there twice", show(name))
		}
		if values[name] = *v; len(values) > maxMapEntries {
			return nil, fmt.Errorf("more than %d entries", maxMapEntries)
		}
	}
	if _, err := dec.Token(); err != nil {
		return nil, errors.New("it ends early")
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("something stands behind the object")
	}
	return values, nil
}

// checkKeys looks for keys that are not one thing, or cannot be what they are
// said to be.
func checkKeys(d *decoder, root ast.Node, s *settings) {
	for i := range s.Keys {
		k := &s.Keys[i]
		at := child(child(root, "keys"), k.Name)
		given := 0
		for _, name := range []string{"secret", "public", "jwks"} {
			if child(at, name) != nil { // its value may be at fault already
				given++
			}
		}
		text := "give one of secret, public and jwks"
		if given == 1 {
			of, err := k.key()
			if err == nil && (of.Secret != nil || of.Public != "" || of.JWKS != nil) {
				err = of.Check()
			}
			if err == nil {
				continue
			}
			text = err.Error()
		}
		d.faults = append(d.faults, fault{k.line, k.column, fmt.Sprintf("key %s: %s", k.Name, text)})
	}
}

// key is the key as functions' services take it.
func (k *namedKeySettings) key() (out extras.Key, err error) {
	out = extras.Key{Public: k.Public, Algorithms: k.Algorithms}
	if k.JWKS.URL != "" {
		jwks := k.JWKS
		out.JWKS = &jwks
	}
	if k.Secret != "" {
		out.Secret = []byte(k.Secret)
		switch k.Encoding {
		case "base64":
			out.Secret, err = base64.StdEncoding.DecodeString(k.Secret)
		case "hex":
			out.Secret, err = hex.DecodeString(k.Secret)
		}
		if err != nil {
			err = fmt.Errorf("its secret is not %s; write it so, or change encoding", k.Encoding) // and never shown
		}
	}
	return out, err
}

// extras is what functions may ask of the node by this configuration.
func (s *settings) extras() extras.Config {
	c := extras.Config{Geo: s.Geo, Keys: make(map[string]extras.Key), Maps: make(map[string]map[string]string)}
	for i := range s.Keys {
		c.Keys[s.Keys[i].Name], _ = s.Keys[i].key() // checked
	}
	for _, m := range s.Maps {
		c.Maps[m.Name] = m.Values
	}
	return c
}

// granted is a list of names that a function is given, and what may be in it.
type granted struct {
	key, what, hint string
	names           *[]string
	known           func(name string) bool
}

// granted are the lists of o.
func (s *settings) granted(o *functionOptions) []granted {
	return []granted{
		{"upstreams", "upstream", "add it to upstreams, with its url", &o.Upstreams, s.upstream},
		{"keys", "key", "add it to keys, with its secret, public or jwks", &o.Keys, s.hasKey},
		{"maps", "map", "add it to maps, with its entries", &o.Maps, s.table},
	}
}

// hasKey reports whether there is a key of the name.
func (s *settings) hasKey(name string) bool {
	return slices.ContainsFunc(s.Keys, func(k namedKeySettings) bool { return k.Name == name })
}

// table reports whether there is a map of the name.
func (s *settings) table(name string) bool {
	return slices.ContainsFunc(s.Maps, func(m mapSettings) bool { return m.Name == name })
}

// facts are what a site's functions may read of its settings.
func (s *siteSettings) facts() (list [][2]string) {
	add := func(name, value string) { list = append(list, [2]string{name, value}) }
	if len(s.Hosts) > 0 {
		add("hosts", strings.Join(s.Hosts, ","))
	}
	add("cache.bypass", strconv.FormatBool(s.Cache.Bypass))
	if s.Cache.TTL > 0 {
		add("cache.ttl", strconv.FormatInt(int64(s.Cache.TTL/time.Second), 10))
	}
	add("limits.url", strconv.FormatInt(s.Limits.URL, 10))
	if s.Limits.Body > 0 {
		add("limits.body", strconv.FormatInt(s.Limits.Body, 10))
	}
	return list
}

// offline fetches nothing.
type offline struct{}

// RoundTrip implements http.RoundTripper.
func (offline) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("nothing is fetched here")
}

// extraFigures are the figures of what the node does for functions.
func (fs *functions) extraFigures() admin.ExtrasFigures {
	f := fs.extras.Figures()
	out := admin.ExtrasFigures{KeySets: make(map[string]admin.KeySetFigures), Databases: make(map[string]admin.DatabaseFigures)}
	for name, k := range f.Keys {
		out.KeySets[name] = admin.KeySetFigures(k)
	}
	for name, d := range f.Geo {
		out.Databases[name] = admin.DatabaseFigures{Built: d.Built, Read: d.Loaded, Failed: d.Failed, Size: d.Size}
	}
	return out
}
