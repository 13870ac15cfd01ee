package extras

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
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"seawall/wasm/abi"
)

// signers are one private key of each type, made once: RSA ones take long.
type signers struct {
	secret []byte
	rsa    *rsa.PrivateKey
	p256   *ecdsa.PrivateKey
	p384   *ecdsa.PrivateKey
	ed     ed25519.PrivateKey
}

func someSigners(t testing.TB) *signers {
	t.Helper()
	s, err := madeSigners()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var madeSigners = sync.OnceValues(func() (*signers, error) {
	s := &signers{secret: []byte("a secret of more than 32 bytes, for tests")}
	var errs [4]error
	s.rsa, errs[0] = rsa.GenerateKey(rand.Reader, 2048)
	s.p256, errs[1] = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	s.p384, errs[2] = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	_, s.ed, errs[3] = ed25519.GenerateKey(rand.Reader)
	return s, errors.Join(errs[:]...)
})

// key is the private key for an algorithm.
func (s *signers) key(algorithm string) any {
	switch kindOf(algorithm) {
	case kindSecret:
		return s.secret
	case kindRSA:
		return s.rsa
	case kindP256:
		return s.p256
	case kindP384:
		return s.p384
	}
	return s.ed
}

// public is the configuration of the key that verifies an algorithm.
func (s *signers) public(t testing.TB, algorithm string) Key {
	t.Helper()
	if kindOf(algorithm) == kindSecret {
		return Key{Secret: s.secret, Algorithms: []string{algorithm}}
	}
	private := s.key(algorithm).(crypto.Signer)
	return Key{Public: pemOf(t, private.Public()), Algorithms: []string{algorithm}}
}

func pemOf(t testing.TB, public any) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// signed is a token of a header and claims.
func (s *signers) signed(t testing.TB, algorithm string, header map[string]any, claims jwt.MapClaims) string {
	t.Helper()
	token := jwt.NewWithClaims(jwt.GetSigningMethod(algorithm), claims)
	for name, v := range header {
		token.Header[name] = v
	}
	text, err := token.SignedString(s.key(algorithm))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// signedText is a token of parts that are taken as they are, signed by HS256.
func (s *signers) signedText(t testing.TB, header, payload string) string {
	t.Helper()
	text := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(payload))
	sig, err := jwt.SigningMethodHS256.Sign(text, s.secret)
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(sig)
}

// jwkOf is a public key, or a secret, as a JSON Web Key.
func jwkOf(t testing.TB, key any, members map[string]any) map[string]any {
	t.Helper()
	text := func(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
	out := map[string]any{}
	switch k := key.(type) {
	case []byte:
		out["kty"], out["k"] = "oct", text(k)
	case *rsa.PublicKey:
		out["kty"], out["n"], out["e"] = "RSA", text(k.N.Bytes()), "AQAB"
	case *ecdsa.PublicKey:
		point, err := k.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		half := len(point) / 2
		out["kty"], out["crv"], out["x"], out["y"] = "EC", k.Params().Name, text(point[1:1+half]), text(point[1+half:])
	case ed25519.PublicKey:
		out["kty"], out["crv"], out["x"] = "OKP", "Ed25519", text(k)
	}
	for name, v := range members {
		out[name] = v
	}
	return out
}

func setOf(t testing.TB, keys ...map[string]any) string {
	t.Helper()
	text, err := json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// granted opens a configuration and grants all of it.
func granted(t testing.TB, c Config, o Options) *Grant {
	t.Helper()
	set, err := New(o).Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(set.Close)
	var keys, lists []string
	for name := range c.Keys {
		keys = append(keys, name)
	}
	for name := range c.Maps {
		lists = append(lists, name)
	}
	return set.Grant("f", keys, lists)
}

// call calls a function of a grant with names and values in turn, and writes
// its result as "name=value" in lines, or the error's kind.
func call(t testing.TB, g *Grant, name string, namesAndValues ...string) string {
	t.Helper()
	return callFor(t, nil, g, name, namesAndValues...)
}

func callFor(t testing.TB, x *abi.Exchange, g *Grant, name string, namesAndValues ...string) string {
	t.Helper()
	var args []pair
	for i := 0; i < len(namesAndValues); i += 2 {
		args = append(args, pair{namesAndValues[i], namesAndValues[i+1]})
	}
	f := g.Functions()[name]
	if f == nil {
		t.Fatalf("no function %s", name)
	}
	out, err := f(x, serialized(args))
	switch {
	case errors.Is(err, abi.ErrArgument):
		return "bad argument"
	case errors.Is(err, abi.ErrNotFound):
		return "not found"
	case err != nil:
		return err.Error()
	}
	pairs, err := parsePairs(out)
	if err != nil {
		t.Fatalf("%s: the result %q: %v", name, out, err)
	}
	var lines []string
	for _, p := range pairs {
		lines = append(lines, p.name+"="+p.value)
	}
	return strings.Join(lines, "\n")
}
