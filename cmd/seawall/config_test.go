package main

import (
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"seawall/edge/admin"
)

// parse reads text with one environment variable and one readable file.
func parse(text string) (*settings, error) {
	return parseSettings("f.yaml", []byte(text),
		func(name string) (string, bool) {
			text, ok := map[string]string{"ORIGIN": "http://from-env", "MULTI": "a secret\nof two lines"}[name]
			return text, ok
		},
		func(path string) ([]byte, error) {
			if path == "/secret" {
				return []byte("http://from-file\n"), nil
			}
			return nil, fs.ErrNotExist
		})
}

func TestConfigurationErrors(t *testing.T) {
	const site = "sites: [{origins: ['http://a']}]\n"
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"unknown key", "chache: {}\n", []string{`f.yaml:1:1: unknown key "chache"; did you mean cache?`}},
		{"unknown key far from all", "\nfoo: 1\n", []string{`f.yaml:2:1: unknown key "foo"; known here: listen, admin, tls, cache, encode, sites, trusted_proxies, nodes, log, functions, upstreams, geo, keys, maps`}},
		{"unknown key below", "cache:\n  memry: 1MiB\n", []string{`f.yaml:2:3: unknown key "memry"; did you mean memory?`}},
		{"duplicate key", "log: {}\ncache: {}\nlog: {}\n", []string{`f.yaml:3:1: log is already set at line 1; leave one of them`}},
		{"later keys", "trace: {}\ntls: {acme: {}, client_ca: x}\n", []string{
			`f.yaml:1:1: trace is not in this version: tracing comes later; leave it out`,
			`f.yaml:2:7: acme is not in this version: certificates that renew themselves come later; leave it out`,
			`f.yaml:2:17: client_ca is not in this version: clients known by their certificates come later; leave it out`}},
		{"tls", "tls:\n  min_version: 1.1\n  certificates:\n  - cert: a\n  - {cert: '', key: k, names: [A]}\n", []string{
			`f.yaml:2:16: min_version: "1.1" is none of the choices; write 1.2 or 1.3`,
			`f.yaml:4:5: key is missing: the file with its key`,
			`f.yaml:5:12: cert: "" is not a path; write the path of a PEM file`,
			`f.yaml:5:32: names: "A" has capitals; host names are written small: "a"; write a lower-case name, as example.com or "*.example.com"`}},
		{"tokens", "sites: [{name: a, origins: ['http://a']}]\nadmin:\n  rate: 0\n  tokens:\n  - {name: n, token: short, scopes: [read, write]}\n" +
			"  - {name: n, token: 0123456789abcdef, scopes: [], sites: [b, a]}\n  - {name: m, token: 0123456789abcdef, scopes: [read], sites: []}\n  - {name: '', token: 'sha256:00', scopes: [admin]}\n", []string{
			`f.yaml:3:9: rate: 0 is not between 1 and 100000; write a number from 1 to 100000, or off`,
			`f.yaml:5:22: token: a token of 5 characters is too short or too long; write 16 to 512 visible characters, by ${NAME} or file:PATH, or sha256: and the token's hash in hexadecimal`,
			`f.yaml:5:44: scopes: "write" is no scope; write read, purge, push, functions or admin`,
			`f.yaml:6:6: another token is named "n"; give each a name of its own`,
			`f.yaml:6:48: scopes is empty; give at least one of read, purge, push, functions and admin`,
			`f.yaml:6:60: no site is named "b"; a token is bound to sites by their names`,
			`f.yaml:7:6: another entry has the same token; give each a secret of its own`,
			`f.yaml:7:63: sites is empty; name a site, or leave sites out for every one`,
			`f.yaml:8:12: name: "" is not a name of 1 to 64 letters, digits, dots and dashes; write a name of letters, digits, dots and dashes`,
			`f.yaml:8:23: token: sha256: is not followed by 64 hexadecimal digits; write 16 to 512 visible characters, by ${NAME} or file:PATH, or sha256: and the token's hash in hexadecimal`}},
		{"a token that is no token is not repeated", "admin: {tokens: [{name: n, token: '${MULTI}', scopes: [read]}]}\n", []string{
			`f.yaml:1:35: token: what ${} or file: puts in does not fit; it must be 16 to 512 visible characters, by ${NAME} or file:PATH, or sha256: and the token's hash in hexadecimal`}},
		{"access", "sites: [{origins: ['http://a'], access: {purge: [10.0.0.1/8]}}]\n", []string{
			`f.yaml:1:50: purge: "10.0.0.1/8" has bits behind its length; 10.0.0.0/8 is the range; write an address range, as 10.0.0.0/8`}},
		{"a key's content for its path", "tls: {certificates: [{cert: c, key: '${MULTI}'}]}\n", []string{
			`f.yaml:1:37: key: what ${} or file: puts in does not fit; it must be the path of a PEM file`}},
		{"connections of one client", "listen: {max_connections_per_client: 0, https: 8443}\n", []string{
			`f.yaml:1:38: max_connections_per_client: 0 is not between 1 and 1048576; write a number from 1 to 1048576, or off`,
			`f.yaml:1:48: https: "8443" is not an address; write host:port, or off`}},
		{"size", "cache: {memory: lots}\n", []string{`f.yaml:1:17: memory: "lots" is not a size; write a size from 1MiB to 16TiB, as 256MiB`}},
		{"size out of bounds", "cache: {memory: 5}\n", []string{`f.yaml:1:17: memory: "5" is not between 1MiB and 16TiB; write a size from 1MiB to 16TiB, as 256MiB`}},
		{"size too large to count", "cache: {memory: 99999999999TiB}\n", []string{`f.yaml:1:17: memory: "99999999999TiB" is too large; write a size from 1MiB to 16TiB, as 256MiB`}},
		{"mapping for a value", "cache:\n  memory:\n    a: b\n", []string{`f.yaml:3:6: a mapping where one value is wanted; write a size from 1MiB to 16TiB, as 256MiB`}},
		{"value for a mapping", "cache: 256MiB\n", []string{`f.yaml:1:8: a single value where a mapping is wanted; write key: value pairs`}},
		{"value for a list", "trusted_proxies: 10.0.0.1\n", []string{`f.yaml:1:18: trusted_proxies: a single value where a list is wanted; write [value, ...] or a line with - for each`}},
		{"no value", "cache:\n  memory:\n", []string{`f.yaml:2:11: no value; write a size from 1MiB to 16TiB, as 256MiB`}},
		{"list at the top", "- a\n", []string{`f.yaml:1:1: a list where a mapping is wanted; write key: value pairs`}},
		{"duration", "sites:\n- origins: [http://a]\n  timeouts: {connect: 5}\n", []string{`f.yaml:3:23: connect: "5" is not a duration; write a duration from 1ms to 24h, as 5s, or off`}},
		{"origin missing", "sites:\n- hosts: [a]\n", []string{`f.yaml:2:3: origins is missing: the servers that have the site, asked in turn`}},
		{"origin with a path", "sites:\n- origins: ['http://a/b']\n", []string{`f.yaml:2:13: origins: "http://a/b" has more than scheme, host and port; write http://host[:port] or https://host[:port]`}},
		{"origin with a password is not repeated", "sites:\n- origins: ['http://u:secret@a']\n", []string{`f.yaml:2:13: origins: a URL with a user name or password; write http://host[:port] or https://host[:port]`}},
		{"origin without host", "sites:\n- origins: ['http://', 'a', 'ftp://a', 'http://a:0']\n", []string{
			`f.yaml:2:13: origins: "http://" is not the URL of an origin; write http://host[:port] or https://host[:port]`,
			`f.yaml:2:24: origins: "a" is not the URL of an origin; write http://host[:port] or https://host[:port]`,
			`f.yaml:2:29: origins: "ftp://a" has a scheme that is neither http nor https; write http://host[:port] or https://host[:port]`,
			`f.yaml:2:40: origins: "http://a:0" has a port that is not between 1 and 65535; write http://host[:port] or https://host[:port]`}},
		{"origins empty", "sites:\n- origins: []\n", []string{`f.yaml:2:12: origins is empty; give at least one, as http://127.0.0.1:8000`}},
		{"hosts", "sites:\n- origins: [http://a]\n  hosts: [Example.com, 'a.*.b', 'a:80', 'a b']\n", []string{
			`f.yaml:3:11: hosts: "Example.com" has capitals; host names are written small: "example.com"; write a lower-case name without port, as example.com or "*.example.com"`,
			`f.yaml:3:24: hosts: "a.*.b" has a * that is not its whole first label; write a lower-case name without port, as example.com or "*.example.com"`,
			`f.yaml:3:33: hosts: "a:80" has a port; a site answers its names on every port; write a lower-case name without port, as example.com or "*.example.com"`,
			`f.yaml:3:41: hosts: "a b" is not a host name; write a lower-case name without port, as example.com or "*.example.com"`}},
		{"wildcard without quotes", "sites:\n- origins: [http://a]\n  hosts:\n  - *.example.com\n", []string{`f.yaml:4:5: an alias (*) is not read here; write a lower-case name without port, as example.com or "*.example.com", in quotes if it begins with *`}},
		{"two sites with one host", "sites:\n- {hosts: [a], origins: [http://a]}\n- {name: b, hosts: [a], origins: [http://a]}\n", []string{`f.yaml:3:4: "a" is named twice; one site can have it once`}},
		{"two sites with one name", "sites:\n- {hosts: [a], origins: [http://a]}\n- {name: a, hosts: [b], origins: [http://a]}\n", []string{`f.yaml:3:4: another site is named "a"; give each a name of its own`}},
		{"two sites for all hosts", "sites:\n- {name: a, origins: [http://a]}\n- {name: b, origins: [http://a]}\n", []string{`f.yaml:3:4: another site already answers every host; give one of them hosts`}},
		{"rules", "sites:\n- origins: [http://a]\n  cache:\n    rules:\n    - ttl: 5m\n    - path: '/a?b'\n      ttl: 1s\n    - {path: /x}\n    - {path: /x, value: 1, ttl: 1s}\n    - {status: [99], ttl: 1s}\n    - {status: [404], key: {headers: [X]}}\n    -\n", []string{
			`f.yaml:5:7: a rule without a condition; give path, status, cookie or header, or change the site's cache itself`,
			`f.yaml:6:13: path: "/a?b" has a ? or #; patterns are of the path alone; write a pattern, as /images/*`,
			`f.yaml:8:8: a rule that changes nothing; give ttl, bypass, set_cookie or key`,
			`f.yaml:9:8: a rule with value and no header; name the field that has it`,
			`f.yaml:10:17: status: 99 is not between 200 and 599; write a status from 200 to 599`,
			`f.yaml:11:8: a rule by status cannot change the key, which is made before there is a response; leave one of them out`,
			`f.yaml:12:7: rules: an empty entry; leave it out`}},
		{"vary", "sites:\n- origins: [http://a]\n  cache:\n    vary: {languages: [en, d_e], accept: ['image/*'], ignore: [cookie, Authorization, accept-encoding, a b]}\n", []string{
			`f.yaml:4:28: languages: "d_e" is no language tag; write a language tag, as en or pt-BR`,
			`f.yaml:4:43: accept: "image/*" is no media type; write a media type, as image/avif`,
			`f.yaml:4:64: ignore: Cookie cannot be ignored: one client's response would be another's; write a field name, as User-Agent`,
			`f.yaml:4:72: ignore: Authorization cannot be ignored: one client's response would be another's; write a field name, as User-Agent`,
			`f.yaml:4:87: ignore: Accept-Encoding needs no word: codings are told apart by the node; write a field name, as User-Agent`,
			`f.yaml:4:104: ignore: "a b" is no field name; write a field name, as User-Agent`,
		}},
		{"choices", "log: {level: loud, format: xml}\nsites:\n- origins: [http://a]\n  cache: {set_cookie: yes, bypass: yes, accept_encoding: gzip, heuristic_fraction: 2}\n", []string{
			`f.yaml:1:14: level: "loud" is none of the choices; write debug, info, warn or error`,
			`f.yaml:1:28: format: "xml" is none of the choices; write text or json`,
			`f.yaml:4:23: set_cookie: "yes" is none of the choices; write shared, pass, strip or store`,
			`f.yaml:4:36: bypass: "yes" is neither true nor false; write true or false`,
			`f.yaml:4:58: accept_encoding: "gzip" is none of the choices; write identity or client`,
			`f.yaml:4:84: heuristic_fraction: "2" is not between 0 and 1; write a number from 0 to 1; 0 is no heuristics`}},
		{"addresses", "listen: {http: 8080, admin: 'a:b'}\ntrusted_proxies: [10.0.0.1/8, x]\n", []string{
			`f.yaml:1:16: http: "8080" is not an address; write host:port, as :8080`,
			`f.yaml:1:29: admin: port "b" is not between 0 and 65535; write host:port, or off`,
			`f.yaml:2:19: trusted_proxies: "10.0.0.1/8" has bits behind its length; 10.0.0.0/8 is the range; write an address range, as 10.0.0.0/8`,
			`f.yaml:2:31: trusted_proxies: "x" is not an address range; write an address range, as 10.0.0.0/8`}},
		{"more than memory holds", "cache: {memory: 10MiB, max_object: 1GiB}\n", []string{
			`f.yaml:1:36: max_object is more than memory, so that nothing of that size could be kept; write a smaller one, as 1280KiB, or a larger memory`}},
		{"fixed young share", "cache: {young: 10%}\n", []string{`f.yaml:1:16: young: a fixed share ("10%") is not in this version; write adaptive`}},
		{"environment", "nodes: {name: '${NOPE}'}\nlog: {access: '${'}\n", []string{
			`f.yaml:1:15: the environment has no NOPE; set it or write the value`,
			`f.yaml:2:15: ${ without a name and }; write ${NAME}`}},
		{"what the environment or a file gives is not repeated", "cache: {memory: '${ORIGIN}', max_object: 'file:/secret'}\n", []string{
			`f.yaml:1:17: memory: what ${} or file: puts in does not fit; it must be a size from 1MiB to 16TiB, as 256MiB`,
			`f.yaml:1:42: max_object: what ${} or file: puts in does not fit; it must be a size from 1KiB to 1TiB, as 32MiB`}},
		{"secret file missing", "log: {access: 'file:/nope'}\n", []string{`f.yaml:1:15: cannot read this value: file does not exist; give a file that exists`}},
		{"anchor", "log: {level: &a info}\n", []string{`f.yaml:1:14: an anchor (&) is not read here; write debug, info, warn or error, in quotes if it begins with &`}},
		{"tag", "log: {level: !!str info}\n", []string{`f.yaml:1:14: a tag (!) where one value is wanted; write debug, info, warn or error`}},
		{"merge key", "log:\n  <<: {level: info}\n", []string{`f.yaml:2:3: merge keys (<<) are not read here; write the keys out`}},
		{"key that is no word", "5: a\n", []string{`f.yaml:1:1: "5" is no key; keys are plain words`}},
		{"two documents", "log: {}\n---\nlog: {}\n", []string{`f.yaml:3:1: a second document; a configuration is one: leave out the --- line or split the file`}},
		{"not YAML", "log: {level: info\n", []string{`f.yaml:1:6: not YAML: could not find flow mapping end token '}'`}},
		{"tab", "log:\n\tlevel: info\n", []string{`f.yaml:2:1: not YAML: found character '	' that cannot start any token`}},
		{"too deep", "log: " + strings.Repeat("[", 50), []string{`f.yaml:1:37: nested deeper than a configuration is; write it in fewer levels`}},
		{"too large", strings.Repeat("#", maxFile+1), []string{`f.yaml: larger than 1048576 bytes; a configuration must fit in that`}},
		{"all at once", site + "cache: {memory: x, max_object: y}\nlog: {level: z}\n", []string{
			`f.yaml:2:17: memory: "x" is not a size; write a size from 1MiB to 16TiB, as 256MiB`,
			`f.yaml:2:32: max_object: "y" is not a size; write a size from 1KiB to 1TiB, as 32MiB`,
			`f.yaml:3:14: level: "z" is none of the choices; write debug, info, warn or error`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := parse(c.text)
			var all *faults
			if !errors.As(err, &all) {
				t.Fatalf("input:\n%s\ngot %v, want faults", c.text, err)
			}
			if got, want := strings.Join(all.lines(), "\n"), strings.Join(c.want, "\n"); got != want {
				t.Errorf("input:\n%.500s\ngot\n%s\nwant\n%s", c.text, got, want)
			}
		})
	}
}

func TestConfigurationValues(t *testing.T) {
	five := 5 * time.Second
	for _, c := range []struct {
		name, text string
		get        func(*settings) any
		want       any
	}{
		{"empty file", "", func(s *settings) any { return s.Cache }, storeSettings{256 * mib, 0, "adaptive"}},
		{"comments only", "# nothing\n", func(s *settings) any { return s.Listen }, listenSettings{":8080", ":8443", "127.0.0.1:9090", 16384, 1024}},
		{"byte order mark", "\ufefflisten: {admin: off}", func(s *settings) any { return s.Listen.Admin }, ""},
		{"empty section", "cache:\nlisten: {}\n", func(s *settings) any { return s.Cache.Memory }, 256 * mib},
		{"sizes", "cache: {memory: 1GiB, max_object: 5MB}", func(s *settings) any { return s.Cache }, storeSettings{gib, 5e6, "adaptive"}},
		{"bare bytes", "cache: {memory: 1048576}", func(s *settings) any { return s.Cache.Memory }, mib},
		{"admin off", "listen: {admin: off}", func(s *settings) any { return s.Listen.Admin }, ""},
		{"https off", "listen: {https: off, max_connections_per_client: 9}", func(s *settings) any { return s.Listen }, listenSettings{":8080", "", "127.0.0.1:9090", 16384, 9}},
		{"no tls", "", func(s *settings) any { return s.TLS }, tlsSettings{MinVersion: tls.VersionTLS12}},
		{"tls", "tls: {min_version: 1.3, certificates: [{cert: a.pem, key: a.key}, {cert: b, key: c, names: ['*.d']}]}", func(s *settings) any { return s.TLS },
			tlsSettings{[]certificateSettings{{"a.pem", "a.key", nil}, {"b", "c", []string{"*.d"}}}, tls.VersionTLS13}},
		{"a token, of which the hash is kept", "admin: {tokens: [{name: n, token: 'file:/secret', scopes: [read, purge], sites: [a]}]}", func(s *settings) any { return s.Admin },
			adminSettings{[]tokenSettings{{"n", sha256.Sum256([]byte("http://from-file")), []admin.Scope{admin.ScopeRead, admin.ScopePurge}, []string{"a"}}}, 100}},
		{"a token's hash", "admin: {rate: off, tokens: [{name: n, token: 'sha256:9F86D081884C7D659A2FEAA0C55AD015A3BF4F1B2B0B822CD15D6C15B0F00A08', scopes: [admin]}]}", func(s *settings) any { return s.Admin },
			adminSettings{[]tokenSettings{{"n", sha256.Sum256([]byte("test")), []admin.Scope{admin.ScopeAdmin}, nil}}, 0}},
		{"who may purge", "sites: [{origins: ['http://x'], access: {purge: ['::1']}}]", func(s *settings) any { return s.Sites[0].edge(nil).Purgers[0].String() }, "::1/128"},
		{"environment", "sites: [{origins: ['${ORIGIN}:80']}]", func(s *settings) any { return s.Sites[0].Origins[0].URL }, "http://from-env:80"},
		{"file", "sites: [{origins: ['file:/secret']}]", func(s *settings) any { return s.Sites[0].Origins[0].URL }, "http://from-file"},
		{"site named for its host", "sites: [{hosts: [a.b, c], origins: ['http://x']}]", func(s *settings) any { return s.Sites[0].Name }, "a.b"},
		{"site without host", "sites: [{origins: ['http://x']}]", func(s *settings) any { return s.Sites[0].Name }, "default"},
		{"timeouts", "sites: [{origins: ['http://x'], timeouts: {header: 5s, idle_body: off}}]", func(s *settings) any {
			t := s.Sites[0].Timeouts
			return []time.Duration{t.Connect, t.Header, t.IdleBody, t.Total, t.IdleConn}
		}, []time.Duration{5 * time.Second, 5 * time.Second, -1, -1, 4 * time.Second}},
		{"a rule's ttl", "sites: [{origins: ['http://x'], cache: {rules: [{path: '/*', ttl: 5s}]}}]", func(s *settings) any { return s.Sites[0].Cache.Rules[0].TTL }, &five},
		{"folded text", "nodes:\n  name: |\n    pop-1\n", func(s *settings) any { return s.Node.Name }, "pop-1"},
		{"a lone address", "trusted_proxies: ['::1', 10.1.0.0/16]", func(s *settings) any { return s.Trusted[0].String() + " " + s.Trusted[1].String() }, "::1/128 10.1.0.0/16"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := parse(c.text)
			if err != nil {
				t.Fatalf("%s\n%v", c.text, err)
			}
			if got := c.get(s); !reflect.DeepEqual(got, c.want) {
				t.Errorf("%s\ngot %+v, want %+v", c.text, got, c.want)
			}
		})
	}
}

// The table's own defaults must be what the table accepts.
func TestDefaultsAreValid(t *testing.T) {
	d := new(decoder)
	var s settings
	applyDefaults(d, settingsKeys(), &s)
	var site siteSettings
	applyDefaults(d, siteKeys(), &site)
	for _, f := range d.faults {
		t.Error(f.text)
	}
	if s.Cache.Memory != 256*mib || site.Cache.StaleIfUnreachable != time.Hour || site.Timeouts.Total != -1 {
		t.Errorf("defaults not applied: %+v %+v", s, site)
	}
}

func TestSizes(t *testing.T) {
	for _, c := range []struct {
		text string
		want int64
		bad  bool
	}{
		{"0", 0, false}, {"512", 512, false}, {"512B", 512, false}, {"1KiB", 1024, false}, {"64 MiB", 64 << 20, false},
		{"2gib", 2 << 30, false}, {"3KB", 3000, false}, {"3MB", 3e6, false}, {"3GB", 3e9, false}, {"1TB", 1e12, false},
		{"", 0, true}, {"MiB", 0, true}, {"-1", 0, true}, {"1.5GiB", 0, true}, {"1K", 0, true}, {"1 Mi B", 0, true},
		{"9223372036854775807KiB", 0, true}, {"0x10", 0, true}, {"1_000", 0, true},
	} {
		got, err := parseSize(c.text)
		if (err != nil) != c.bad || !c.bad && got != c.want {
			t.Errorf("%q: got %d, %v; want %d, error: %v", c.text, got, err, c.want, c.bad)
		}
		if err == nil {
			if again, err := parseSize(showSize(got)); err != nil || again != got {
				t.Errorf("%q shown as %s reads as %d, %v", c.text, showSize(got), again, err)
			}
		}
	}
}

// Any bytes give settings or faults, each fault with a place within the file.
func FuzzConfiguration(f *testing.F) {
	paths, _ := filepath.Glob("../../deploy/config/*.yaml")
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Add("a: [{b: &x *x, <<: !t {? c : d}}]\n--- |\n  x\n")
	f.Add("sites:\n- - -\n  ? a\n\"\\u0000\": '${X}file:'\n")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parse(text)
		var all *faults
		switch {
		case err == nil && s.Cache.Memory < mib:
			t.Fatalf("%q: settings without defaults: %+v", text, s)
		case err != nil && !errors.As(err, &all):
			t.Fatalf("%q: not faults: %v", text, err)
		case err != nil:
			for _, one := range all.list {
				if lines := strings.Count(text, "\n") + strings.Count(text, "\r") + 1; one.line > lines+1 || one.text == "" {
					t.Fatalf("%q (%d lines): a fault at %d:%d: %q", text, lines, one.line, one.column, one.text)
				}
			}
		}
	})
}
