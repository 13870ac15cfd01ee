package main

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"seawall/wasm/extras"
)

// publicPEM is a public key in PEM, with this indent.
func publicPEM(t testing.TB, indent string) string {
	t.Helper()
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.TrimSpace(string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
	return indent + strings.ReplaceAll(text, "\n", "\n"+indent)
}

func TestExtrasConfigurationErrors(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	twice, number, more := file("twice", `{"a":"1","a":"2"}`), file("number", `{"a":1}`), file("more", `{}{}`)
	list, null, cut := file("list", `["a"]`), file("null", `{"a":null}`), file("cut", `{"a":"b"`)
	public := "file:PATH: RSA of 2048 bits or more, EC P-256 or P-384, Ed25519"
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"geo", "geo: {database: '', asm: x}\n", []string{
			`f.yaml:1:17: database: "" is not a path; write the path of a file in the MaxMind format (.mmdb)`,
			`f.yaml:1:21: unknown key "asm"; did you mean asn?`}},
		{"not one thing", "keys:\n  a: {}\n  b: {secret: sixteen bytes and, jwks: {url: 'http://x/'}}\n", []string{
			`f.yaml:2:3: key a: give one of secret, public and jwks`,
			`f.yaml:3:3: key b: give one of secret, public and jwks`}},
		{"secrets", "keys:\n  a: {secret: too short}\n  b: {secret: ''}\n  c: {secret: not hexadecimal!, encoding: hex}\n  d: {secret: '${MULTI}', encoding: base32}\n  e: {secret: '${NOT_SET}'}\n", []string{
			`f.yaml:2:3: key a: a secret of 9 bytes; it must have 16`,
			"f.yaml:3:15: secret: it is empty; write 16 bytes or more, by ${NAME} or file:PATH",
			`f.yaml:4:3: key c: its secret is not hex; write it so, or change encoding`,
			`f.yaml:5:37: encoding: "base32" is none of the choices; write text, base64 or hex`,
			`f.yaml:6:15: the environment has no NOT_SET; set it or write the value`}},
		{"public keys", "keys:\n  a: {public: AAAA}\n  b: {public: 'file:/secret'}\n  c:\n    public: |\n" + publicPEM(t, "      ") + "\n    algorithms: [ES256, none]\n", []string{
			`f.yaml:2:15: public: no PEM block; it begins with -----BEGIN PUBLIC KEY-----; write public keys or certificates in PEM, as ` + public,
			`f.yaml:3:15: public: what ${} or file: puts in does not fit; it must be public keys or certificates in PEM, as ` + public,
			`f.yaml:4:3: key c: none of the algorithms is one of a key of type Ed25519; its own are EdDSA`,
			`f.yaml:9:25: algorithms: "none" is no algorithm; write HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA`}},
		{"pages", "keys:\n  a: {jwks: {}}\n  b: {jwks: {url: 'ftp://x/'}}\n  c: {jwks: {url: 'https://u:p@x/'}}\n  d: {jwks: {url: 'https://x/', refresh: 1s, unknown_kid: 0s, timeout: 1m}}\n", []string{
			`f.yaml:2:13: url is missing: where the page is`,
			`f.yaml:3:19: url: "ftp://x/" has a scheme that is neither http nor https; write an http or https URL`,
			`f.yaml:4:19: url: a URL with a user name or password; write an http or https URL`,
			`f.yaml:5:42: refresh: "1s" is not between 1m and 168h; write a duration from 1m to 168h, as 1h`,
			`f.yaml:5:59: unknown_kid: "0s" is not between 1s and 1h; write a duration from 1s to 1h, as 30s`,
			`f.yaml:5:72: timeout: "1m" is not between 100ms and 30s; write a duration from 100ms to 30s, as 5s`}},
		{"maps", "maps:\n  A: {}\n  b: {x: 1, x: 2}\n  c: text\n  d: [a]\n  e: {x: [y]}\n  f: file:/nope\n  f: {}\n", []string{
			`f.yaml:2:3: "A" is not a name of 1 to 64 small letters, digits, dashes and underscores that begins with a letter or digit; choose another`,
			`f.yaml:3:13: "x" is there twice; leave one of them`,
			`f.yaml:4:6: a single value where a mapping is wanted; write key: value pairs, or file:PATH of a JSON object`,
			`f.yaml:5:6: a list where a mapping is wanted; write key: value pairs`,
			`f.yaml:6:10: a list where one value is wanted; write a text`,
			`f.yaml:7:6: cannot read this map: stat /nope: no such file or directory; give a file that exists`,
			`f.yaml:8:3: f is already set; leave one of them`}},
		{"maps in files", fmt.Sprintf("maps:\n  a: file:%s\n  b: file:%s\n  c: file:%s\n  d: file:%s\n  e: file:%s\n  f: file:%s\n", twice, number, more, list, null, cut), []string{
			"f.yaml:2:6: " + twice + `: "a" is there twice; write a JSON object whose values are texts`,
			"f.yaml:3:6: " + number + `: the value of "a" is no text; write a JSON object whose values are texts`,
			"f.yaml:4:6: " + more + `: something stands behind the object; write a JSON object whose values are texts`,
			"f.yaml:5:6: " + list + `: it is no JSON object; write a JSON object whose values are texts`,
			"f.yaml:6:6: " + null + `: the value of "a" is no text; write a JSON object whose values are texts`,
			"f.yaml:7:6: " + cut + `: it ends early; write a JSON object whose values are texts`}},
		{"grants", "functions: {f: {file: a, keys: [k, l], maps: [m]}}\nkeys: {k: {secret: sixteen bytes and}}\n", []string{
			`f.yaml:1:36: no key is named "l"; add it to keys, with its secret, public or jwks`,
			`f.yaml:1:47: no map is named "m"; add it to maps, with its entries`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := parse(c.text)
			if err == nil || err.Error() != strings.Join(c.want, "\n") {
				t.Errorf("%s\ngot\n%v\nwant\n%s", c.text, err, strings.Join(c.want, "\n"))
			}
		})
	}
}

func TestExtrasConfigurationValues(t *testing.T) {
	table := filepath.Join(t.TempDir(), "table.json")
	if err := os.WriteFile(table, []byte(` {"/a": "/b", "": "ü"} `), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := parse(`
geo: {database: /city.mmdb, asn: /asn.mmdb}
keys:
  text: {secret: '${MULTI}', algorithms: [HS512]}
  base: {secret: c2l4dGVlbiBieXRlcyBhbmQ=, encoding: base64}
  page: {jwks: {url: 'https://x/?a=b', refresh: 2h}}
maps:
  inline: {/old: /new, 404: 5, yes: true}
  file: file:` + table + `
  none: {}
functions:
  f: {file: a, keys: [page, text], maps: [file]}
`)
	if err != nil {
		t.Fatal(err)
	}
	got := s.extras()
	want := extras.Config{
		Geo: extras.Geo{Database: "/city.mmdb", ASN: "/asn.mmdb"},
		Keys: map[string]extras.Key{
			"text": {Secret: []byte("a secret\nof two lines"), Algorithms: []string{"HS512"}},
			"base": {Secret: []byte("sixteen bytes and")},
			"page": {JWKS: &extras.JWKS{URL: "https://x/?a=b", Refresh: 2 * time.Hour, UnknownKid: 30 * time.Second, Timeout: 5 * time.Second}},
		},
		Maps: map[string]map[string]string{"inline": {"/old": "/new", "404": "5", "yes": "true"}, "file": {"/a": "/b", "": "ü"}, "none": {}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if o := s.Functions[0]; !reflect.DeepEqual(o.Keys, []string{"page", "text"}) || !reflect.DeepEqual(o.Maps, []string{"file"}) {
		t.Errorf("granted: got %v and %v, want page, text and file", o.Keys, o.Maps)
	}
}

// A reload loads those functions anew that were granted what changed, an upload
// is granted what its call says, and what is not there is refused.
func TestGrantsOfFunctions(t *testing.T) {
	file := written(t, "file.wasm", setting("x-a", "1"))
	config := func(secret, value string) *settings {
		s := running(t, "  keyed: {file: '"+file+"', keys: [k]}\n  mapped: {file: '"+file+"', maps: [m]}\n  plain: {file: '"+file+"'}\n"+
			"keys: {k: {secret: "+secret+"}}\nmaps: {m: {a: "+value+"}}\n", "keyed", "mapped", "plain")
		return s
	}
	n, front, admin := administered(t, t.TempDir(), config("sixteen bytes and", "b"))
	members := func() map[string]*loaded {
		out := make(map[string]*loaded)
		for name, m := range n.current.Load().functions.members {
			out[name] = m.loaded
		}
		return out
	}
	changed := func(what string, s *settings, want string) {
		t.Helper()
		before, got := members(), ""
		if err := n.reload(s); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		after := members()
		for _, name := range []string{"keyed", "mapped", "plain"} {
			if after[name] != before[name] {
				got += name + " "
			}
		}
		if got != want {
			t.Errorf("%s: got %q loaded anew, want %q", what, got, want)
		}
		if got := field(t, front+"/1", "X-A"); got != "1" {
			t.Errorf("%s: got %q, want the functions to run", what, got)
		}
	}
	changed("nothing", config("sixteen bytes and", "b"), "")
	changed("a secret", config("sixteen bytes and more", "b"), "keyed ")
	changed("a map", config("sixteen bytes and more", "c"), "mapped ")

	base := "http://" + admin + "/v1/functions/plain"
	for query, want := range map[string]int{"?keys=other": 400, "?maps=other": 400, "?keys=k&maps=m": 201} {
		if code, answer := call(t, http.MethodPut, base+query, setting("x-a", "1")); code != want {
			t.Errorf("%s: got %d %v, want %d", query, code, answer, want)
		}
	}
	if code, answer := call(t, http.MethodPut, base+"?keys=", setting("x-a", "1")); code != 200 {
		t.Errorf("keys=: got %d %v, want 200", code, answer)
	}
	changed("a secret that no upload has", config("sixteen bytes and again", "c"), "keyed ")
	if code, answer := call(t, http.MethodPut, base+"?keys=k", setting("x-a", "1")); code != 200 {
		t.Errorf("keys=k: got %d %v, want 200", code, answer)
	}
	if _, answer := call(t, http.MethodGet, base, nil); fmt.Sprint(answer["keys"], answer["maps"]) != "[k] []" || strings.Contains(fmt.Sprint(answer), "sixteen") {
		t.Errorf("what it was given: got %v, want the key k by its name alone, and no map", answer)
	}
	changed("a secret that an upload has", config("sixteen bytes and", "c"), "keyed plain ")
}
