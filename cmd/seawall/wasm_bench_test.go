package main

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"seawall/wasm"
	"seawall/wasm/examples/exampletest"
	"seawall/wasm/extras"
)

func TestWasmBench(t *testing.T) {
	file := written(t, "f.wasm", setting("x-version", "1"))
	request := written(t, "req.http", []byte("POST /a HTTP/1.1\nHost: a.example\n\ncontent"))
	code, out, errs := command("wasm", "bench", file, "--for", "10ms", "--request", request, "--json")
	var got benchBody
	if err := json.Unmarshal([]byte(out), &got); code != 0 || err != nil {
		t.Fatalf("got %d %v %s %s", code, err, out, errs)
	}
	if got.ABI != "http-wasm" || got.Size != len(setting("x-version", "1")) || len(got.Modes) != 2 {
		t.Errorf("got %+v", got)
	}
	for _, m := range got.Modes {
		if m.Result != "continue" || m.Requests < 1 || m.Micros <= 0 || m.Fastest > m.Micros || m.Slowest < m.Micros || m.Fuel <= 0 ||
			m.Memory != 64<<10 || m.Compile <= 0 || m.Start <= 0 || len(m.Stages) != 1 || m.Stages[0].Stage != "viewer_request" || m.Stages[0].Calls != 1 {
			t.Errorf("mode %s: got %+v", m.Mode, m)
		}
	}
	code, out, errs = command("wasm", "bench", file, "--for", "1ms", "--origin")
	for _, want := range []string{"µs a request", "origin_request, mean", "memory of a machine  64.0 KiB  64.0 KiB", "pooled", "reset"} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("got %d %s %s, want %q", code, out, errs, want)
		}
	}
	for _, c := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"it fails", []string{written(t, "loop.wasm", looping()), "--for", "1ms"}, 1, "the function failed in mode shared, at viewer_request: cpu"},
		{"it is refused", []string{written(t, "bad.wasm", forbidden())}, 1, "open_file"},
		{"no module", []string{"/nope.wasm"}, 1, "FILE is a WebAssembly module"},
		{"no request", []string{file, "--request", "/nope.http"}, 1, "/nope.http"},
		{"too short", []string{file, "--for", "0s"}, 2, "from 1ms to 1h"},
		{"no limit", []string{file, "--limit", "speed=1"}, 2, "no limit is named"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out, errs := command(append([]string{"wasm", "bench"}, c.args...)...)
			if code != c.code || !strings.Contains(errs, c.want) {
				t.Errorf("%v: got %d %q %q, want %d and %q", c.args, code, out, errs, c.code, c.want)
			}
		})
	}
}

// benchedSample is a sample and an exchange that shows what it costs.
type benchedSample struct {
	name, folder, tag, config, fields string
	target                            string                // / if it is empty
	keys                              map[string]extras.Key // that the node has for it
}

// benchedSamples are those that need a configuration; of others the folder
// alone counts.
func benchedSamples(b *testing.B) []benchedSample {
	return append([]benchedSample{
		{name: "headers", config: "X-Frame-Options: DENY\n-X-Powered-By\ncors: https://app.example\n", fields: "Origin: https://app.example"},
		{name: "redirects", config: "/old /new\n/blog/* https://blog.example/* 308\n"},
		{name: "abtest", config: "variant: a 50\nvariant: b 50 /beta\n", fields: "Cookie: ab=b"},
		{name: "bots", config: "block ua=badbot\nchallenge path=/login ua=curl/\n"},
		benchedLink(),
	}, benchedTokens(b)...)
}

// BenchmarkSamples prints µs for a request of each sample in wasm/examples,
// pooled and reset; of tokens, with the node's cryptography and the guest's.
// Those that cannot be measured are named, with the reason.
func BenchmarkSamples(b *testing.B) {
	list := benchedSamples(b)
	known := make(map[string]bool)
	for _, s := range list {
		known[s.name], known[s.folder] = true, true
	}
	folders, err := filepath.Glob("../../wasm/examples/*/main.go")
	if err != nil || len(folders) == 0 {
		b.Fatalf("no samples: %v", err)
	}
	for _, f := range folders {
		if name := filepath.Base(filepath.Dir(f)); !known[name] {
			list = append(list, benchedSample{name: name})
		}
	}
	for b.Loop() {
		fmt.Fprintf(os.Stderr, "%-28s %12s %12s %10s\n", "µs a request", "pooled", "reset", "fuel")
		for _, s := range list {
			fmt.Fprintf(os.Stderr, "%-28s %s\n", s.name, s.measured(b))
		}
	}
}

func (s *benchedSample) measured(b *testing.B) string {
	folder := s.folder
	if folder == "" {
		folder = s.name
	}
	if _, err := os.Stat("../../wasm/examples/" + folder); err != nil {
		return "is not there"
	}
	spec := wasm.Spec{Name: "bench", Source: exampletest.Go(b, folder, s.tag), Config: []byte(s.config)}
	spec.Limits.CPU, spec.Limits.Start = 50*time.Millisecond, 10*time.Second
	services := extras.New(extras.Options{})
	set, err := services.Open(extras.Config{Keys: s.keys})
	if err != nil {
		b.Fatal(err)
	}
	defer set.Close()
	spec.Foreign = set.Grant("bench", slices.Collect(maps.Keys(s.keys)), nil).Functions()
	m := &bench{spec: spec, length: 2 * time.Second, lines: new(logLines)}
	if err := m.messages("", ""); err != nil {
		b.Fatal(err)
	}
	if s.target != "" {
		m.request.Target = s.target
	}
	for l := range strings.Lines(s.fields) {
		name, value, _ := strings.Cut(strings.TrimSpace(l), ": ")
		m.request.Header.Set(name, value)
	}
	err = m.run(s.name)
	for range 2 { // a machine that others use may stop it once
		if err != nil {
			err = m.run(s.name)
		}
	}
	if err != nil {
		return fmt.Sprintf("cannot run: %v %v", err, m.lines.all())
	}
	cell := func(i int) string {
		if m.out.Modes[i].Refused != "" {
			return "refused"
		}
		return fmt.Sprintf("%.2f", m.out.Modes[i].Micros)
	}
	return fmt.Sprintf("%12s %12s %10.0f  (%s)", cell(0), cell(1), m.out.Modes[0].Fuel, m.out.Modes[0].Result)
}

// benchedSecret signs what the samples judge.
const benchedSecret = "a secret of thirty-two bytes ..."

func benchedLink() benchedSample {
	link := "/film.mp4?expires=4102444800"
	mac := hmac.New(sha256.New, []byte(benchedSecret))
	mac.Write([]byte(link))
	return benchedSample{name: "signedurl", config: "key: links\n", target: link + "&sig=" + hex.EncodeToString(mac.Sum(nil)),
		keys: map[string]extras.Key{"links": {Secret: []byte(benchedSecret)}}}
}

// benchedTokens are the check of a token by each algorithm, by the node and by
// the guest.
func benchedTokens(b *testing.B) (list []benchedSample) {
	b.Helper()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		b.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	point, err := ecKey.PublicKey.Bytes() // 4, x, y
	if err != nil {
		b.Fatal(err)
	}
	text := base64.RawURLEncoding.EncodeToString
	for _, c := range []struct {
		method jwt.SigningMethod
		key    any
		public any               // nil for a secret
		jwk    map[string]string // for the guest
	}{
		{jwt.SigningMethodHS256, []byte(benchedSecret), nil, map[string]string{"kty": "oct", "k": text([]byte(benchedSecret))}},
		{jwt.SigningMethodRS256, rsaKey, &rsaKey.PublicKey, map[string]string{"kty": "RSA", "n": text(rsaKey.N.Bytes()), "e": "AQAB"}},
		{jwt.SigningMethodES256, ecKey, &ecKey.PublicKey, map[string]string{"kty": "EC", "crv": "P-256", "x": text(point[1:33]), "y": text(point[33:])}},
		{jwt.SigningMethodEdDSA, private, public, map[string]string{"kty": "OKP", "crv": "Ed25519", "x": text(public)}},
	} {
		token, err := jwt.NewWithClaims(c.method, jwt.MapClaims{"iss": "login", "sub": "ada", "exp": 4102444800}).SignedString(c.key)
		if err != nil {
			b.Fatal(err)
		}
		name, key := c.method.Alg(), extras.Key{Secret: []byte(benchedSecret)}
		if c.public != nil {
			bytes, err := x509.MarshalPKIXPublicKey(c.public)
			if err != nil {
				b.Fatal(err)
			}
			key = extras.Key{Public: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: bytes}))}
		}
		jwk, err := json.Marshal(c.jwk)
		if err != nil {
			b.Fatal(err)
		}
		const claims = "issuer: login\nheader: X-User sub\n"
		list = append(list,
			benchedSample{name: "jwt " + name + ", host crypto", folder: "jwt", config: "key: login\n" + claims,
				fields: "Authorization: Bearer " + token, keys: map[string]extras.Key{"login": key}},
			benchedSample{name: "jwt " + name + ", guest crypto", folder: "jwt", tag: "guestcrypto",
				config: "key: " + string(jwk) + "\n" + claims, fields: "Authorization: Bearer " + token})
	}
	return list
}
