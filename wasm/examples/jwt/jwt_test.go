package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"seawall/wasm/examples/exampletest"
	"seawall/wasm/extras"
)

// signer signs tokens of one algorithm.
type signer struct {
	algorithm string
	private   any
	public    []byte // DER, or the secret
}

func newSigners(t *testing.T) map[string]*signer {
	t.Helper()
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	e, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, d, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	secret := []byte("a secret of more than 32 bytes, for tests")
	all := map[string]*signer{"HS256": {"HS256", secret, secret}}
	for algorithm, private := range map[string]crypto.Signer{"RS256": r, "ES256": e, "EdDSA": d} {
		der, err := x509.MarshalPKIXPublicKey(private.Public())
		if err != nil {
			t.Fatal(err)
		}
		all[algorithm] = &signer{algorithm, private, der}
	}
	return all
}

func (s *signer) sign(claims jwt.MapClaims) string {
	text, err := jwt.NewWithClaims(jwt.GetSigningMethod(s.algorithm), claims).SignedString(s.private)
	if err != nil {
		panic(err) // of a test's own key
	}
	return text
}

// pem is the public key as text.
func (s *signer) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: s.public}))
}

// TestHostCrypto is the function as it is: the node verifies.
func TestHostCrypto(t *testing.T) {
	all := newSigners(t)
	keys := map[string]extras.Key{}
	for name, s := range all {
		if keys[name] = (extras.Key{Public: s.pem()}); name == "HS256" {
			keys[name] = extras.Key{Secret: s.public}
		}
	}
	set, err := extras.New(extras.Options{}).Open(extras.Config{Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	grant := set.Grant("jwt", []string{"HS256", "RS256", "ES256", "EdDSA"}, nil)
	b := exampletest.NewBench(t, exampletest.Go(t, "jwt"), grant.Functions())
	tokens(t, b, all, func(algorithm string) string { return "key: " + algorithm + "\n" })
	refusals(t, b, "key: HS256\n")
	b.Refusals(t, map[string]string{"key: other": "the node has no key other for this function"})
}

// TestGuestCrypto is the function that verifies by itself.
func TestGuestCrypto(t *testing.T) {
	all := newSigners(t)
	line := func(algorithm string) string { return "key: " + all[algorithm].jwk(t) + "\n" }
	b := exampletest.NewBench(t, exampletest.Go(t, "jwt", "guestcrypto"), nil)
	tokens(t, b, all, line)
	refusals(t, b, line("HS256"))
	b.Refusals(t, map[string]string{
		"key: HS256":                                        "not a JWK",
		`key: {"kty":"oct","k":"c2hvcnQ"}`:                  "k has less than 16 bytes",
		`key: {"kty":"RSA","n":"wQ","e":"AQAB"}`:            "no public key of 2048 to 8192 bits",
		`key: {"kty":"EC","crv":"P-256","x":"AA","y":"AA"}`: "no point of the curve",
		`key: {"kty":"EC","crv":"P-521","x":"AA","y":"AA"}`: "none of oct, RSA",
		`key: {"kty":"OKP","crv":"Ed25519","x":"AA"}`:       "x is no public key",
		`key: {"kty":"none"}`:                               "none of oct, RSA",
	})
}

// jwk is the key that verifies, as a JWK.
func (s *signer) jwk(t *testing.T) string {
	t.Helper()
	text := base64.RawURLEncoding.EncodeToString
	var k any
	switch private := s.private.(type) {
	case []byte:
		k = map[string]string{"kty": "oct", "k": text(private)}
	case *rsa.PrivateKey:
		k = map[string]string{"kty": "RSA", "n": text(private.N.Bytes()), "e": "AQAB"}
	case *ecdsa.PrivateKey:
		point, err := private.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		k = map[string]string{"kty": "EC", "crv": "P-256", "x": text(point[1:33]), "y": text(point[33:])}
	case ed25519.PrivateKey:
		k = map[string]string{"kty": "OKP", "crv": "Ed25519", "x": text(private.Public().(ed25519.PublicKey))}
	}
	b, err := json.Marshal(k)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

const (
	page    = "GET https://site.example/p?q=1"
	refused = "answer 401\nCache-Control: no-store\nContent-Type: text/plain; charset=utf-8\nWww-Authenticate: "
	needed  = "\n| A valid token is needed."
	absent  = refused + "Bearer" + needed
	invalid = refused + `Bearer error="invalid_token"` + needed
	expired = refused + `Bearer error="invalid_token", error_description="expired"` + needed
)

// demanding is a configuration that uses all there is.
const demanding = `issuer: https://login
issuer: https://other
audience: shop
leeway: 30
require: sub
claim: role=admin
claim: role=editor
header: X-User sub
header: X-Plan plan key
header: X-Age age
cookie: session
open: /public/
`

// tokens are what must happen with tokens, whoever verifies.
func tokens(t *testing.T, b *exampletest.Bench, all map[string]*signer, line func(algorithm string) string) {
	now := time.Now()
	claims := func(change jwt.MapClaims) jwt.MapClaims {
		c := jwt.MapClaims{"sub": "ann", "iss": "https://login", "aud": []string{"shop", "x"}, "role": []string{"reader", "admin"}, "plan": "gold", "age": 7,
			"exp": now.Add(time.Hour).Unix(), "nbf": now.Add(-time.Hour).Unix()}
		for name, v := range change {
			if c[name] = v; v == nil {
				delete(c, name)
			}
		}
		return c
	}
	rs, hs := all["RS256"], all["HS256"]
	config := line("RS256") + demanding
	bearer := func(token string) string { return page + "\nAuthorization: Bearer " + token }
	won := func(token string) string {
		return "> -Authorization: Bearer " + token + "\n> +X-Age: 7\n> +X-Plan: gold\n> +X-User: ann\nkey plan=4:gold\n< +Cache-Control: private"
	}
	// with is a row for claims that differ in some.
	with := func(name string, change jwt.MapClaims, want string) exampletest.Case {
		return exampletest.Case{name, config, bearer(rs.sign(claims(change))), "", want}
	}
	good := rs.sign(claims(nil))
	unsigned, err := jwt.NewWithClaims(jwt.SigningMethodNone, claims(nil)).SignedString(jwt.UnsafeAllowNoneSignatureType)
	if err != nil {
		t.Fatal(err)
	}
	// What is public must not serve as a secret.
	confused := (&signer{"HS256", []byte(rs.pem()), nil}).sign(claims(nil))
	confusedDER := (&signer{"HS256", rs.public, nil}).sign(claims(nil))
	critical := jwt.NewWithClaims(jwt.SigningMethodRS256, claims(nil))
	critical.Header["crit"] = []string{"exp"}
	extended, err := critical.SignedString(rs.private)
	if err != nil {
		t.Fatal(err)
	}
	other := newSigners(t)["RS256"]
	parts := strings.Split(good, ".")
	table := []exampletest.Case{
		{"good", config, bearer(good), "200\nCache-Control: public, max-age=60", won(good)},
		{"a cache in between", config, bearer(good), "200\nCDN-Cache-Control: max-age=60", won(good)[:strings.Index(won(good), "\n<")] + "\n< -Cdn-Cache-Control: max-age=60\n< +Cache-Control: private"},
		{"a scheme in small letters", config, page + "\nAuthorization: bearer " + good, "", strings.Replace(won(good), "Bearer", "bearer", 1)},
		{"a client's own claims", config, bearer(good) + "\nX-User: bob\nX-Plan: free", "",
			"> -Authorization: Bearer " + good + "\n> -X-Plan: free\n> -X-User: bob\n> +X-Age: 7\n> +X-Plan: gold\n> +X-User: ann\nkey plan=4:gold\n< +Cache-Control: private"},
		{"a client's own claims for an origin by CGI", config, "GET https://site.example/public/x\nX_User: bob\nX_Plan: free", "", "> -X_plan: free\n> -X_user: bob"},
		{"by cookie", config, page + "\nCookie: a=b; session=" + good + "; c", "",
			"> -Cookie: a=b; session=" + good + "; c\n> +Cookie: a=b; c\n> +X-Age: 7\n> +X-Plan: gold\n> +X-User: ann\nkey plan=4:gold\n< +Cache-Control: private"},
		{"by cookie alone, beside another scheme", line("RS256") + "cookie: session", page + "\nAuthorization: Basic YTpi\nCookie: session=" + good, "",
			"> -Authorization: Basic YTpi\n> -Cookie: session=" + good + "\n< +Cache-Control: private"},
		{"an open path", config, "GET https://site.example/public/x\nX-User: bob", "", "> -X-User: bob"},
		{"one that begins alike and leads out, once decoded", config, "GET https://site.example/public/..%2Fmembers", "", absent},
		{"decoded twice", config, "GET https://site.example/public/%252e%252e/members", "", absent},
		{"decoded without end", config, "GET https://site.example/public/%2525252525252e", "", absent},
		{"with backslashes", config, `GET https://site.example/public/..\members`, "", absent},
		{"with a parameter", config, "GET https://site.example/public/..;a=b/members", "", absent},
		{"over an empty segment", config, "GET https://site.example/public//..%2f..%2fmembers", "", absent},
		{"one of capitals", config, "GET https://site.example/Public/x", "", absent},
		{"an open path with encodings", config, "GET https://site.example/public/a%20b/%C3%A4;v=1//x", "", ""},
		{"an open path that stays", config, "GET https://site.example/public/a/..%2Fb", "", ""},
		{"an open path, encoded, without end", config, "GET https://site.example/public/%20" + strings.Repeat("x", 2000), "", absent},
		{"one that begins alike", config, "GET https://site.example/publicity", "", absent},
		{"no token", config, page, "", absent},
		{"another scheme", config, page + "\nAuthorization: Basic YTpi", "", absent},
		{"another cookie", config, page + "\nCookie: sessions=" + good, "", absent},
		{"two tokens", config, bearer(good) + "\nAuthorization: Bearer " + good, "", invalid},
		{"none", config, bearer(unsigned), "", invalid},
		{"HS256 with the public key", config, bearer(confused), "", invalid},
		{"HS256 with the public key's bytes", config, bearer(confusedDER), "", invalid},
		{"another algorithm's key", config, bearer(hs.sign(claims(nil))), "", invalid},
		{"wrong key", config, bearer(other.sign(claims(nil))), "", invalid},
		{"changed claims", config, bearer(parts[0] + "." + strings.Split(rs.sign(claims(jwt.MapClaims{"sub": "eve"})), ".")[1] + "." + parts[2]), "", invalid},
		{"no signature", config, bearer(parts[0] + "." + parts[1] + "."), "", invalid},
		{"malformed", config, bearer("a.b"), "", invalid},
		{"text", config, bearer("\"><script>"), "", invalid},
		{"nothing behind the scheme", config, page + "\nAuthorization: Bearer ", "", absent},
		{"oversized", config, bearer(rs.sign(claims(jwt.MapClaims{"pad": strings.Repeat("x", 9000)}))), "", invalid},
		{"far oversized", config, bearer(strings.Repeat("x", 200_000)), "", invalid},
		{"an extension", config, bearer(extended), "", invalid},
		with("expired", jwt.MapClaims{"exp": now.Add(-time.Minute).Unix()}, expired),
		with("not yet valid", jwt.MapClaims{"nbf": now.Add(10 * time.Minute).Unix()}, invalid),
		with("wrong audience", jwt.MapClaims{"aud": "mail"}, invalid),
		with("wrong issuer", jwt.MapClaims{"iss": "https://evil"}, invalid),
		with("no expiration", jwt.MapClaims{"exp": nil}, invalid),
		with("a missing claim", jwt.MapClaims{"sub": nil}, invalid),
		with("another role", jwt.MapClaims{"role": "reader"}, invalid),
		with("a claim that ends a line", jwt.MapClaims{"sub": "ann\r\nX-Plan: platinum"}, invalid),
	}
	for _, pass := range []jwt.MapClaims{{"iss": "https://other"}, {"aud": "shop"}, {"role": "editor"}, {"exp": now.Unix() - 5}, {"nbf": now.Unix() + 15}} {
		token := rs.sign(claims(pass))
		table = append(table, exampletest.Case{"good with " + names(pass), config, bearer(token), "", won(token)})
	}
	for _, algorithm := range []string{"HS256", "ES256", "EdDSA"} {
		token := all[algorithm].sign(claims(nil))
		table = append(table,
			exampletest.Case{algorithm, line(algorithm), bearer(token), "", "> -Authorization: Bearer " + token + "\n< +Cache-Control: private"},
			exampletest.Case{algorithm + " with another's token", line(algorithm), bearer(good), "", invalid})
	}
	unending := hs.sign(claims(jwt.MapClaims{"exp": nil}))
	table = append(table, exampletest.Case{"for ever", line("HS256") + "expiration: optional", bearer(unending), "",
		"> -Authorization: Bearer " + unending + "\n< +Cache-Control: private"})
	b.Table(t, table)
}

func names(c jwt.MapClaims) string { return strings.Join(slices.Sorted(maps.Keys(c)), ", ") }

func refusals(t *testing.T, b *exampletest.Bench, key string) {
	b.Refusals(t, map[string]string{
		"":                            "no key",
		"issuer: a":                   "no key",
		key + key:                     "line 2: there is a key already",
		key + "leeway: 601":           "line 2: not a number of seconds to 600: leeway: 601",
		key + "claim: role":           "line 2: not CLAIM=VALUE",
		key + "header: X-User":        "line 2: not NAME CLAIM [key]",
		key + "header: X-User sub k":  "line 2: not NAME CLAIM [key]",
		key + "header: A-b-c-d-e-f s": "line 2: a field of more than five words",
		key + "header: Cookie sub":    "line 2: not a field for a claim",
		key + "header: :path sub":     "line 2: not a field for a claim",
		key + "open: public":          "line 2: not a path",
		key + "expiration: never":     "line 2: neither optional nor required",
		key + "audiance: shop":        "line 2: no such setting",
		key + "# all\nissuer:":        "line 3: not NAME: VALUE",
	})
}
