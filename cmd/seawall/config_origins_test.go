package main

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"seawall/origin"
)

func TestOriginConfigurationErrors(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"no servers", "sites:\n- origins: []\n", []string{`f.yaml:2:12: origins is empty; give at least one, as http://127.0.0.1:8000`}},
		{"a server without a URL", "sites:\n- origins: [{name: a}]\n", []string{`f.yaml:2:14: url is missing: where it is; srv+http://NAME asks DNS for the SRV records of NAME`}},
		{"the same server twice", "sites:\n- origins: ['http://a', 'http://a/']\n", []string{`f.yaml:2:25: another origin is called "a"; give each a name of its own, or one of them a weight`}},
		{"duplicate names", "sites:\n- origins:\n  - {url: 'http://a', name: x}\n  - url: http://b\n    name: x\n", []string{
			`f.yaml:4:5: another origin is called "x"; give each a name of its own, or one of them a weight`}},
		{"negative and no weight", "sites:\n- origins: [{url: 'http://a', weight: -1}, {url: 'http://b', weight: 0}]\n", []string{
			`f.yaml:2:39: weight: -1 is not between 1 and 1000; write a number from 1 to 1000`,
			`f.yaml:2:70: weight: 0 is not between 1 and 1000; write a number from 1 to 1000`}},
		{"unknown protocol", "sites:\n- origins: [{url: 'http://a', protocol: spdy}]\n", []string{`f.yaml:2:41: protocol: "spdy" is none of the choices; write h1, h2, h2c, h3 or auto`}},
		{"protocols and schemes", "sites:\n- origins: [{url: 'http://a', protocol: h3}, {url: 'https://b', protocol: h2c}, {url: 'srv+http://c', protocol: h2}]\n", []string{
			`f.yaml:2:41: protocol: h3 needs an https url; write h2c for HTTP/2 in clear`,
			`f.yaml:2:75: protocol: h2c is HTTP/2 in clear, and the url is https; write h2`,
			`f.yaml:2:113: protocol: h2 needs an https url; write h2c for HTTP/2 in clear`}},
		{"no choice in clear", "sites:\n- origins: [{url: 'http://a', protocol: auto}]\n", []string{`f.yaml:2:41: protocol: auto needs an https url, where servers say what they speak; write h1, or h2c for HTTP/2 in clear`}},
		{"backups alone", "sites:\n- origins: [{url: 'http://a', backup: true}]\n", []string{`f.yaml:2:12: every origin is a backup; leave backup out of one`}},
		{"SRV with a port", "sites:\n- origins: ['srv+http://a:80']\n", []string{`f.yaml:2:13: origins: "srv+http://a:80" has a port, which is for the SRV records to say; write http://host[:port] or https://host[:port]`}},
		{"a password is not repeated", "sites:\n- origins: [{url: 'http://u:secret@a'}]\n", []string{`f.yaml:2:19: url: a URL with a user name or password; write http://host[:port] or https://host[:port]`}},
		{"unknown algorithm", "sites:\n- {origins: ['http://a'], balance: fastest}\n", []string{
			`f.yaml:2:36: balance: "fastest" is none of the choices; write round_robin, least_connections, least_time, client_hash or key_hash`}},
		{"unknown algorithm in a mapping", "sites:\n- origins: ['http://a']\n  balance: {algorithm: random, sticky: {max_age: 0s}}\n", []string{
			`f.yaml:3:24: algorithm: "random" is none of the choices; write round_robin, least_connections, least_time, client_hash or key_hash`,
			`f.yaml:3:41: cookie is missing: the name of the cookie`,
			`f.yaml:3:50: max_age: "0s" is not between 1s and 8760h; write a duration from 1s to 8760h, as 24h`}},
		{"health", "sites:\n- origins: ['http://a']\n  health: {path: healthz, method: CONNECT, host: client, status: [99], body: '', interval: 1ms, rise: 0, passive: {failures: 0, latency: 1, max_share: 0}}\n", []string{
			`f.yaml:3:18: path: "healthz" does not begin with /; write a path, as /healthz`,
			`f.yaml:3:35: method: "CONNECT" is none of the choices; write GET, HEAD or OPTIONS`,
			`f.yaml:3:50: host: "client" is not a host name here; write a host name`,
			`f.yaml:3:67: status: 99 is not between 200 and 599; write a status from 200 to 599`,
			`f.yaml:3:78: body: a text of 0 bytes; write text of 1 to 1024 bytes`,
			`f.yaml:3:92: interval: "1ms" is not between 100ms and 1h; write a duration from 100ms to 1h, as 5s`,
			`f.yaml:3:103: rise: 0 is not between 1 and 100; write a number from 1 to 100`,
			`f.yaml:3:126: failures: 0 is not between 1 and 1000; write a number from 1 to 1000, or off`,
			`f.yaml:3:138: latency: "1" is not between 1.5 and 100; write a number from 1.5 to 100, or off`,
			`f.yaml:3:152: max_share: "0" is not between 0.01 and 1; write a number from 0.01 to 1`}},
		{"two kinds of check", "sites:\n- origins: ['http://a']\n  health: {path: /, tcp: true}\n", []string{`f.yaml:3:26: tcp and path both say what a check is; leave one of them out`}},
		{"checks by nothing", "sites:\n- origins: ['http://a']\n  health: {status: [200]}\n", []string{`f.yaml:3:12: checks by nothing; give path, or leave out host, status and body`}},
		{"a body for HEAD", "sites:\n- origins: ['http://a']\n  health: {path: /, method: HEAD, body: ok}\n", []string{`f.yaml:3:41: an answer to HEAD has no body; leave one of method and body out`}},
		{"retry", "sites:\n- origins: ['http://a']\n  retry: {attempts: 0, share: 2, on: [404, x]}\n", []string{
			`f.yaml:3:21: attempts: 0 is not between 1 and 10; write a number from 1 to 10, or auto`,
			`f.yaml:3:31: share: "2" is not between 0 and 1; write a number from 0 to 1; 0 is no share`,
			`f.yaml:3:39: on: "404" is no status that another attempt may help; write 429 or a status from 500 to 599`,
			`f.yaml:3:44: on: "x" is no status that another attempt may help; write 429 or a status from 500 to 599`}},
		{"breaker and hedge", "sites:\n- origins: ['http://a']\n  breaker: on\n  hedge: {delay: 0s}\n", []string{
			`f.yaml:3:12: a single value where a mapping is wanted; write key: value pairs`,
			`f.yaml:4:18: delay: "0s" is not between 1ms and 1m; write a duration from 1ms to 1m, as 50ms, or auto`}},
		{"pool", "sites:\n- origins: ['http://a']\n  pool: {queue: 0, max_pool_in_flight: -5, hold: 2MiB}\n", []string{
			`f.yaml:3:17: queue: 0 is not between 1 and 65536; write a number from 1 to 65536, or auto`,
			`f.yaml:3:40: max_pool_in_flight: -5 is not between 1 and 65536; write a number from 1 to 65536, or all`,
			`f.yaml:3:50: hold: "2MiB" is not between 1B and 1MiB; write a size from 1B to 1MiB, or off`}},
		{"half a client certificate", "sites:\n- origins: ['https://a']\n  origin_tls: {cert: c.pem, ca: ''}\n", []string{
			`f.yaml:3:16: cert and key go together: one is of no use without the other; give both or neither`,
			`f.yaml:3:33: ca: "" is not a path; write the path of a PEM file`}},
		{"routes", "sites:\n- origins: ['http://a']\n  routes:\n  - {prefix: api, origins: ['http://b']}\n  - {prefix: /, origins: ['http://b']}\n  - {prefix: /x/, origins: []}\n  - {prefix: /x, origins: ['http://b', 'http://b']}\n  - {prefix: /../y, hosts: [a]}\n  - {prefix: /%2e/y, origins: ['http://b']}\n  - {prefix: /%7, origins: ['http://b']}\n  - {prefix: /%78, origins: ['http://b']}\n  -\n", []string{
			`f.yaml:4:14: prefix: "api" does not begin with /; write a path, as /api`,
			`f.yaml:5:14: prefix: every path is the site's own; name a part of them; write a path, as /api`,
			`f.yaml:6:28: origins is empty; give at least one, as http://127.0.0.1:8000`,
			`f.yaml:7:6: another route has the prefix "/x"; give each its own`,
			`f.yaml:7:40: another origin is called "b"; give each a name of its own, or one of them a weight`,
			`f.yaml:8:6: origins is missing: the servers that have the site, asked in turn`,
			`f.yaml:8:14: prefix: "/../y" has dot segments, which no request has; write a path, as /api`,
			`f.yaml:8:21: unknown key "hosts"; known here: prefix, origins, host_header, balance, health, timeouts, retry, breaker, hedge, pool, origin_tls, resolve`,
			`f.yaml:9:14: prefix: "/%2e/y" has dot segments, which no request has; write a path, as /api`,
			`f.yaml:10:14: prefix: "/%7" has a % that begins no encoding; write a path, as /api`,
			`f.yaml:11:6: another route has the prefix "/%78"; give each its own`,
			`f.yaml:12:5: routes: an empty entry; leave it out`}},
		{"prefixes that end in several slashes", "sites:\n- origins: ['http://a']\n  routes:\n  - {prefix: //, origins: ['http://b']}\n  - {prefix: /x//, origins: ['http://b']}\n", []string{
			`f.yaml:4:14: prefix: "//" ends in more than one slash; the paths under a prefix are its own without any; write a path, as /api`,
			`f.yaml:5:14: prefix: "/x//" ends in more than one slash; the paths under a prefix are its own without any; write a path, as /api`}},
		{"cookies that clients drop", "sites:\n- origins: ['http://a']\n  balance:\n    sticky:\n      cookie: __Host-at\n  routes:\n  - {prefix: /x, origins: ['http://b'], balance: {sticky: {cookie: __secure-at}}}\n  - {prefix: /y, origins: ['http://b'], balance: {sticky: {cookie: __Secure-at, secure: true}}}\n", []string{
			`f.yaml:5:15: cookie: clients drop a cookie called __Host-... that is not secure; add secure: true, or give it another name`,
			`f.yaml:7:68: cookie: clients drop a cookie called __Secure-... that is not secure; add secure: true, or give it another name`}},
		{"routes that are no list", "sites:\n- origins: ['http://a']\n  routes: {/a: b}\n", []string{`f.yaml:3:11: routes: a mapping where a list is wanted; begin each entry with -`}},
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

func TestOriginConfigurationValues(t *testing.T) {
	const s = time.Second
	pool := func(i int) func(*settings) origin.Config {
		return func(s *settings) origin.Config { return s.pools()[i].config(nil) }
	}
	for _, c := range []struct {
		name, keys string
		pool       int
		get        func(origin.Config) any
		want       any
	}{
		{"a URL alone", "", 0, func(c origin.Config) any { return c.Backends }, []origin.Backend{{URL: "http://x:81", Name: "x:81", Weight: 1, Protocol: "h1"}}},
		{"servers", "origins: [{url: 'https://Y', name: y, weight: 9, backup: true, protocol: h3}, 'srv+https://z']", 0, func(c origin.Config) any { return c.Backends },
			[]origin.Backend{{URL: "https://y", Name: "y", Weight: 9, Backup: true, Protocol: "h3"}, {URL: "srv+https://z", Name: "z", Weight: 1, Protocol: "h1"}}},
		{"an algorithm alone", "balance: key_hash", 0, func(c origin.Config) any { return c.Balance }, origin.KeyHash},
		{"balance", "balance: {algorithm: least_time, sticky: {cookie: c, max_age: 1m, secure: true}}", 0, func(c origin.Config) any { return []any{c.Balance, c.Sticky} },
			[]any{origin.LeastTime, origin.Sticky{Cookie: "c", Path: "/", MaxAge: time.Minute, Secure: true}}},
		{"health", "health: {path: /up, interval: 1s, status: [204], slow_start: off, passive: {failures: off, latency: off, eject: 1s}}", 0,
			func(c origin.Config) any { return []any{c.Health, c.Passive, c.SlowStart} },
			[]any{origin.Health{Path: "/up", Method: "GET", Status: []int{204}, Interval: s, Timeout: 2 * s, Rise: 2, Fall: 3},
				origin.Passive{Failures: -1, Latency: -1, Slow: s / 2, Eject: s, MaxEject: 300 * s, MaxShare: 0.5}, time.Duration(-1)}},
		{"retry", "retry: {attempts: 2, share: 0, floor: 0, backoff: off, within: off, on: [503, 429]}", 0, func(c origin.Config) any { return c.Retry },
			origin.Retry{Attempts: 2, Share: -1, Floor: -1, Backoff: -1, MaxBackoff: s, Within: -1, On: []int{503, 429}, MaxRetryAfter: 2 * s}},
		{"breaker by default", "", 0, func(c origin.Config) any { return c.Breaker },
			origin.Breaker{Share: 0.5, Least: 20, Window: 10 * s, Open: 2 * s, Probes: 1, Success: 3}},
		{"breaker", "breaker: {least: 5}", 0, func(c origin.Config) any { return c.Breaker },
			origin.Breaker{Share: 0.5, Least: 5, Window: 10 * s, Open: 2 * s, Probes: 1, Success: 3}},
		{"breaker off", "breaker: off", 0, func(c origin.Config) any { return c.Breaker }, origin.Breaker{Share: -1}},
		{"hedge by default", "", 0, func(c origin.Config) any { return c.Hedge }, origin.Hedge{}},
		{"hedge", "hedge: {}", 0, func(c origin.Config) any { return c.Hedge }, origin.Hedge{On: true, Least: 10 * time.Millisecond}},
		{"pool", "pool: {max_idle: 0, max_in_flight: 2, max_pool_in_flight: 3, max_tunnels: 4, queue: 5, queue_wait: 6s, hold: off, max_head: 8KiB}", 0,
			func(c origin.Config) any {
				return []any{c.MaxIdle, c.MaxInFlight, c.MaxPoolInFlight, c.MaxTunnels, c.MaxQueue, c.QueueWait, c.BufferSmall, c.MaxHeaderBytes}
			}, []any{-1, 2, 3, 4, 5, 6 * s, -1, 8192}},
		{"timeouts", "timeouts: {idle_write: 1s, idle_request: 2s, expect: 3s, settle: 4s}", 0, func(c origin.Config) any {
			return []time.Duration{c.Timeouts.WriteIdle, c.Timeouts.RequestIdle, c.Timeouts.ExpectContinue, c.Timeouts.Settle}
		}, []time.Duration{s, 2 * s, 3 * s, 4 * s}},
		{"resolve", "resolve: {every: 7s}", 0, func(c origin.Config) any { return c.ResolveEvery }, 7 * s},
		{"a route has what its site has", "routes: [{prefix: /a/, origins: ['http://y']}]\n  host_header: origin\n  breaker: off", 1,
			func(c origin.Config) any { return []any{c.Name, c.Host, c.Breaker, c.Backends[0].URL} }, []any{"default/a", "origin", origin.Breaker{Share: -1}, "http://y"}},
		{"a route says otherwise", "routes: [{prefix: /a, origins: ['http://y'], breaker: {}, timeouts: {header: 1s}}]\n  breaker: off\n  timeouts: {connect: 1s}", 1,
			func(c origin.Config) any { return []any{c.Breaker.Share, c.Timeouts.Header, c.Timeouts.Connect} }, []any{0.5, s, 5 * s}},
		{"and its site stays as it is", "routes: [{prefix: /a, origins: ['http://y'], retry: {on: [500]}}]\n  retry: {on: [503]}", 0,
			func(c origin.Config) any { return []any{c.Name, c.Retry.On, c.Backends[0].URL} }, []any{"default", []int{503}, "http://x:81"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := "sites:\n- " + c.keys + "\n"
			if !strings.HasPrefix(c.keys, "origins") {
				text = "sites:\n- origins: ['http://x:81/']\n  " + c.keys + "\n"
			}
			s, err := parse(text)
			if err != nil {
				t.Fatalf("%s\n%v", text, err)
			}
			if got := c.get(pool(c.pool)(s)); !reflect.DeepEqual(got, c.want) {
				t.Errorf("%s\ngot  %+v\nwant %+v", text, got, c.want)
			}
		})
	}
}

// A file of origin_tls that cannot be used is told with its place, by check and
// by a node; one that is not here only by a node.
func TestOriginTLSFilesThatCannotBeUsed(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(path("no.pem"), []byte("no PEM"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, keys, place, want string
		checked                 bool
	}{
		{"not a certificate", "{ca: " + path("no.pem") + "}", ":3:20: ", path("no.pem") + " cannot be used: no certificate in it; give the certificates of the authorities as PEM (-----BEGIN CERTIFICATE-----)", true},
		{"not a pair", "{cert: " + path("no.pem") + ", key: " + path("no.pem") + "}", ":3:22: ", path("no.pem") + " cannot be used: ", true},
		{"a folder", "{ca: " + dir + "}", ":3:20: ", dir + " cannot be used: ", true},
		{"absent", "{ca: " + path("absent") + "}", ":3:20: ", path("absent") + " cannot be used: no such file or directory; give a PEM file that the node may read", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := path("f.yaml")
			text := "sites:\n- origins: ['https://a']\n  origin_tls: " + c.keys + "\n"
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			want := file + c.place + c.want
			code, out, errs := command("check", file)
			if refused := code == exitFailed && strings.Contains(errs, want); refused != c.checked {
				t.Errorf("check of\n%s\ngot %d %q %q, want it refused with %q: %v", text, code, out, errs, want, c.checked)
			}
			if !c.checked && (code != exitDone || !strings.Contains(out, "a file of origin_tls was not looked at (stat "+path("absent"))) {
				t.Errorf("check: got %d %q %q, want a word about the file", code, out, errs)
			}
			code, _, errs = command("serve", "--config", file, "--http", "127.0.0.1:0", "--https", "off", "--admin", "off", "--data", "")
			if code != exitFailed || !strings.Contains(errs, want) {
				t.Errorf("serve of\n%s\ngot %d %q, want %q", text, code, errs, want)
			}
		})
	}
}
