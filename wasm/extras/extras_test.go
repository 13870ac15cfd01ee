package extras

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"maps"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/goleak"

	"seawall/wasm/abi"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAFunctionReachesWhatItWasGrantedAlone(t *testing.T) {
	s := someSigners(t)
	set, err := New(Options{}).Open(Config{
		Keys: map[string]Key{"mine": {Secret: s.secret}, "theirs": {Secret: s.secret}},
		Maps: map[string]map[string]string{"mine": {"a": "b", "": "empty", "none": ""}, "theirs": {"a": "secret"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	g := set.Grant("f", []string{"mine", "missing"}, []string{"mine", "missing"})
	token := s.signed(t, "HS256", nil, jwt.MapClaims{"exp": 9999999999})
	for _, test := range []struct {
		call string
		args []string
		want string
	}{
		{"kv_get", []string{"map", "mine", "key", "a"}, "found=true\nvalue=b"},
		{"kv_get", []string{"map", "mine", "key", ""}, "found=true\nvalue=empty"},
		{"kv_get", []string{"map", "mine", "key", "none"}, "found=true\nvalue="},
		{"kv_get", []string{"map", "mine", "key", "A"}, "found=false"},
		{"kv_get", []string{"map", "theirs", "key", "a"}, "not found"},
		{"kv_get", []string{"map", "missing", "key", "a"}, "not found"},
		{"kv_get", []string{"map", "nobody", "key", "a"}, "not found"},
		{"kv_get", []string{"map", "mine"}, "bad argument"},
		{"kv_get", []string{"key", "a"}, "bad argument"},
		{"jwt_verify", []string{"key", "theirs", "token", token}, "not found"},
		{"verify", []string{"key", "theirs", "data", "d", "signature", "s"}, "not found"},
		{"hmac_sha256", []string{"key", "theirs", "data", "d"}, "not found"},
		{"hmac_sha256", []string{"key", "missing", "data", "d"}, "not found"},
		{"site", nil, "not found"},
		{"site", []string{"name", "x"}, "bad argument"},
	} {
		if got := call(t, g, "seawall."+test.call, test.args...); got != test.want {
			t.Errorf("%s %q: got %q, want %q", test.call, test.args, got, test.want)
		}
	}
	x := &abi.Exchange{Facts: abi.Facts{Site: "shop", Settings: [][2]string{{"hosts", "a.example,b.example"}}}}
	if got, want := callFor(t, x, g, "seawall.site"), "name=shop\nhosts=a.example,b.example"; got != want {
		t.Errorf("site: got %q, want %q", got, want)
	}
}

func TestKeysThatAreRefused(t *testing.T) {
	s := someSigners(t)
	small, err := rsa.GenerateKey(crand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	p521, err := ecdsa.GenerateKey(elliptic.P521(), crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		key  Key
		want string
	}{
		"nothing":              {Key{}, "one of secret, public and jwks"},
		"two":                  {Key{Secret: s.secret, JWKS: &JWKS{}}, "one of secret, public and jwks"},
		"short secret":         {Key{Secret: []byte("fifteen letters")}, "a secret of 15 bytes"},
		"empty secret":         {Key{Secret: []byte{}}, "a secret of 0 bytes"},
		"no PEM":               {Key{Public: "AAAA"}, "no PEM block"},
		"small RSA":            {Key{Public: pemOf(t, &small.PublicKey)}, "1024 bits"},
		"P-521":                {Key{Public: pemOf(t, &p521.PublicKey)}, "P-521"},
		"private key":          {Key{Public: "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n"}, "private key"},
		"another block":        {Key{Public: "-----BEGIN THING-----\nAAAA\n-----END THING-----\n"}, "THING"},
		"damaged block":        {Key{Public: "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"}, "cannot be read"},
		"unknown algorithm":    {Key{Secret: s.secret, Algorithms: []string{"none"}}, "no algorithm"},
		"HS256 for RSA":        {Key{Public: pemOf(t, s.rsa.Public()), Algorithms: []string{"HS256"}}, "none of the algorithms"},
		"RS256 for a secret":   {Key{Secret: s.secret, Algorithms: []string{"RS256"}}, "none of the algorithms"},
		"ES256 for P-384":      {Key{Public: pemOf(t, s.p384.Public()), Algorithms: []string{"ES256"}}, "none of the algorithms"},
		"one of two is no key": {Key{Public: pemOf(t, s.p256.Public()) + pemOf(t, &small.PublicKey)}, "1024 bits"},
	} {
		set, err := New(Options{}).Open(Config{Keys: map[string]Key{"k": test.key}})
		if err == nil {
			set.Close()
		}
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), string(s.secret)) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}
}

func TestKeysOfASetThatAreSkipped(t *testing.T) {
	s := someSigners(t)
	ec := func(members map[string]any) map[string]any { return jwkOf(t, &s.p256.PublicKey, members) }
	other, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	y := jwkOf(t, &other.PublicKey, nil)["y"]
	small, err := rsa.GenerateKey(crand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	good := ec(map[string]any{"kid": "good"})
	for name, bad := range map[string]any{
		"a text": "key", "a number": 5, "null": nil, "nothing": map[string]any{}, "unknown type": map[string]any{"kty": "XYZ"},
		"a kid that is no text": ec(map[string]any{"kid": 5}), "a long kid": ec(map[string]any{"kid": strings.Repeat("k", 300)}),
		"for encryption": ec(map[string]any{"use": "enc"}), "for signing": ec(map[string]any{"key_ops": []string{"sign"}}), "for nothing": ec(map[string]any{"key_ops": []string{}}),
		"another algorithm": ec(map[string]any{"alg": "ES384"}), "algorithm none": ec(map[string]any{"alg": "none"}), "an HMAC algorithm": ec(map[string]any{"alg": "HS256"}),
		"off the curve": ec(map[string]any{"y": y}), "no coordinate": ec(map[string]any{"y": ""}), "a long coordinate": ec(map[string]any{"x": "AAAA" + good["x"].(string)}),
		"another curve": ec(map[string]any{"crv": "P-384"}), "an unknown curve": ec(map[string]any{"crv": "secp256k1"}), "the point at infinity": ec(map[string]any{"x": strings.Repeat("A", 43), "y": strings.Repeat("A", 43)}),
		"no base64": ec(map[string]any{"x": "!"}), "small RSA": jwkOf(t, &small.PublicKey, nil), "exponent 1": jwkOf(t, &s.rsa.PublicKey, map[string]any{"e": "AQ"}),
		"an even exponent": jwkOf(t, &s.rsa.PublicKey, map[string]any{"e": "AQAA"}), "a huge exponent": jwkOf(t, &s.rsa.PublicKey, map[string]any{"e": "_____w"}),
		"no modulus": jwkOf(t, &s.rsa.PublicKey, map[string]any{"n": ""}), "a huge modulus": jwkOf(t, &s.rsa.PublicKey, map[string]any{"n": strings.Repeat("_", 20000)}),
		"X25519": map[string]any{"kty": "OKP", "crv": "X25519", "x": strings.Repeat("A", 43)}, "short Ed25519": map[string]any{"kty": "OKP", "crv": "Ed25519", "x": "AAAA"},
		"a secret": jwkOf(t, s.secret, map[string]any{"alg": "HS256"}),
	} {
		page, err := json.Marshal(map[string]any{"keys": []any{bad, good}})
		if err != nil {
			t.Fatal(err)
		}
		keys, skipped, err := parseKeySet(page, nil)
		if err != nil || len(keys) != 1 || keys[0].kid != "good" || len(skipped) != 1 {
			t.Errorf("%s: %s\ngot %d keys, skipped %q, %v; want the good one alone", name, page, len(keys), skipped, err)
		}
	}
	short, _, err := parseKeySet([]byte(setOf(t, jwkOf(t, []byte("short"), map[string]any{"alg": "HS256"}))), []string{"HS256"})
	if err == nil {
		t.Errorf("a short secret of a set: got %v, want an error", short)
	}
	many := make([]map[string]any, maxKeys+5)
	for i := range many {
		many[i] = good
	}
	keys, skipped, err := parseKeySet([]byte(setOf(t, many...)), nil)
	if err != nil || len(keys) != maxKeys || len(skipped) != 5 {
		t.Errorf("%d keys: got %d, skipped %d, %v; want %d and 5", len(many), len(keys), len(skipped), err, maxKeys)
	}
}

func TestMapsAreReadAsTheyAreWritten(t *testing.T) {
	for _, test := range []struct {
		name  string
		pairs []pair
	}{
		{"none", nil}, {"empty ones", []pair{{"", ""}}}, {"repeated", []pair{{"a", "1"}, {"a", "2"}}}, {"NULs", []pair{{"a\x00b", "\x00\x00"}, {"c", ""}}},
	} {
		got, err := parsePairs(serialized(test.pairs))
		if err != nil || len(got) != len(test.pairs) {
			t.Errorf("%s: got %q, %v, want %q", test.name, got, err, test.pairs)
			continue
		}
		for i := range got {
			if got[i] != test.pairs[i] {
				t.Errorf("%s: got %q, want %q", test.name, got, test.pairs)
			}
		}
	}
	good := string(serialized([]pair{{"ab", "cd"}}))
	for name, text := range map[string]string{
		"short": good[:3], "cut": good[:len(good)-1], "longer": good + "\x00", "no NUL": strings.Replace(good, "ab\x00", "abX", 1),
		"a count past the end": "\xff\x00\x00\x00", "a huge count": "\xff\xff\xff\xff", "a huge length": "\x01\x00\x00\x00\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00",
		"too many": string(serialized(make([]pair, maxPairs+1))), "a long name": string(serialized([]pair{{strings.Repeat("n", maxName+1), ""}})),
	} {
		if got, err := parsePairs([]byte(text)); err == nil {
			t.Errorf("%s: %.60q: got %q, want an error", name, text, got)
		}
	}
	for _, empty := range []string{"", "\x00", "\x00\x00\x00\x00"} {
		if got, err := parsePairs([]byte(empty)); err != nil || len(got) != 0 {
			t.Errorf("%q: got %q, %v, want the empty map", empty, got, err)
		}
	}
}

// FuzzArguments gives every function what a hostile guest may.
func FuzzArguments(f *testing.F) {
	s := someSigners(f)
	g := granted(f, Config{Keys: map[string]Key{"k": {Secret: s.secret}, "e": s.public(f, "ES256")}, Maps: map[string]map[string]string{"m": {"a": "b"}}}, Options{})
	token := s.signed(f, "HS256", nil, jwt.MapClaims{"exp": 9999999999, "aud": []string{"a"}, "x": map[string]any{"y": 1}})
	for _, args := range [][]pair{
		{{"token", token}, {"key", "k"}, {"audience", "a"}, {"claim.x", "y"}}, {{"map", "m"}, {"key", "a"}}, {{"address", "192.0.2.1"}},
		{{"key", "e"}, {"data", "d"}, {"signature", "00"}, {"encoding", "hex"}, {"format", "der"}}, {{"secret", "s"}, {"data", "d"}, {"equals", "=="}, {"encoding", "base64"}}, nil,
	} {
		f.Add(serialized(args))
	}
	calls := g.Functions()
	f.Fuzz(func(t *testing.T, in []byte) {
		pairs, err := parsePairs(in)
		if err == nil && len(in) > 1 && string(serialized(pairs)) != string(in) {
			t.Errorf("%q reads as %q, which is written otherwise", in, pairs)
		}
		for name := range maps.Keys(calls) {
			if out, err := calls[name](nil, in); err == nil {
				if _, err := parsePairs(out); err != nil {
					t.Errorf("%s(%q): the result %q: %v", name, in, out, err)
				}
			}
		}
	})
}

// FuzzKeySet reads what an issuer may serve.
func FuzzKeySet(f *testing.F) {
	s := someSigners(f)
	f.Add([]byte(setOf(f, jwkOf(f, &s.rsa.PublicKey, nil), jwkOf(f, &s.p384.PublicKey, nil), jwkOf(f, s.ed.Public(), nil), jwkOf(f, s.secret, nil))))
	f.Fuzz(func(t *testing.T, in []byte) {
		keys, _, err := parseKeySet(in, nil)
		if (err == nil) != (len(keys) > 0) {
			t.Errorf("%q: got %d keys and %v", in, len(keys), err)
		}
		for _, k := range keys {
			if kind, err := kind(k.key); err != nil || len(k.algorithms) == 0 || kindOf(k.algorithms[0]) != kind || kind == kindSecret {
				t.Errorf("%q: a key %T for %v, %v", in, k.key, k.algorithms, err)
			}
		}
	})
}

// BenchmarkJWT is what the verification of a token costs on the host.
func BenchmarkJWT(b *testing.B) {
	s := someSigners(b)
	for _, a := range []string{"HS256", "RS256", "ES256", "EdDSA"} {
		b.Run(a, func(b *testing.B) {
			g := granted(b, Config{Keys: map[string]Key{"k": s.public(b, a)}}, Options{})
			token := s.signed(b, a, nil, jwt.MapClaims{"iss": "https://login.example.com", "aud": "shop", "sub": "ada", "exp": 9999999999})
			args := serialized([]pair{{"token", token}, {"key", "k"}, {"issuer", "https://login.example.com"}, {"audience", "shop"}})
			verify := g.Functions()["seawall.jwt_verify"]
			b.ReportAllocs()
			for b.Loop() {
				out, err := verify(nil, args)
				if err != nil || len(out) < 100 {
					b.Fatalf("got %q, %v", out, err)
				}
			}
		})
	}
}
