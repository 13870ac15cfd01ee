package extras

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// verdict is what a result of jwt_verify comes to: its word, or "valid".
func verdict(result string) string {
	if strings.HasPrefix(result, "valid=true\n") {
		return "valid"
	}
	return strings.TrimPrefix(result, "valid=false\nerror=")
}

func TestTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := someSigners(t)
		now := time.Now()
		at := func(d time.Duration) int64 { return now.Add(d).Unix() }
		good := func() jwt.MapClaims {
			return jwt.MapClaims{"iss": "https://login.example.com", "aud": "shop", "sub": "ada", "exp": at(time.Minute), "nbf": at(-time.Minute),
				"roles": []string{"admin", "dev"}, "level": 3}
		}
		with := func(name string, v any) jwt.MapClaims {
			c := good()
			if c[name] = v; v == nil {
				delete(c, name)
			}
			return c
		}
		c := Config{Keys: map[string]Key{}}
		for _, a := range AlgorithmNames() {
			c.Keys[strings.ToLower(a)] = s.public(t, a)
		}
		c.Keys["rsa-any"] = Key{Public: pemOf(t, s.rsa.Public()), Algorithms: []string{"RS256", "PS256"}}
		g := granted(t, c, Options{})
		hs := func(claims jwt.MapClaims) string { return s.signed(t, "HS256", nil, claims) }
		asked := []string{"issuer", "https://login.example.com", "audience", "shop"}
		publicPEM := []byte(c.Keys["rs256"].Public)
		confused, err := jwt.NewWithClaims(jwt.SigningMethodHS256, good()).SignedString(publicPEM)
		if err != nil {
			t.Fatal(err)
		}
		unsigned, err := jwt.NewWithClaims(jwt.SigningMethodNone, good()).SignedString(jwt.UnsafeAllowNoneSignatureType)
		if err != nil {
			t.Fatal(err)
		}
		other, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		foreign, err := jwt.NewWithClaims(jwt.SigningMethodRS256, good()).SignedString(other)
		if err != nil {
			t.Fatal(err)
		}
		ok := hs(good())
		parts := strings.Split(ok, ".")
		cut := func(n int) string { return ok[:len(ok)-n] }
		text := func(header, payload string) string { return s.signedText(t, header, payload) }
		const plain = `{"alg":"HS256"}`
		exp := fmt.Sprintf(`{"exp":%d}`, at(time.Minute))
		none := []string{}

		tests := []struct {
			name, key, token string
			args             []string // nil: asked
			want             string
		}{
			{"good", "hs256", ok, nil, "valid"},
			{"alg none", "hs256", unsigned, nil, "alg"},
			{"alg none, to an RSA key", "rs256", unsigned, nil, "alg"},
			{"alg None", "hs256", text(`{"alg":"None"}`, exp), none, "alg"},
			{"alg none with a signature", "hs256", text(`{"alg":"none"}`, exp), none, "alg"},
			{"alg unknown", "hs256", text(`{"alg":"HS1"}`, exp), none, "alg"},
			{"alg missing", "hs256", text(`{"typ":"JWT"}`, exp), none, "malformed"},
			{"alg a number", "hs256", text(`{"alg":5}`, exp), none, "malformed"},
			{"HS256 with the public RSA key", "rs256", confused, nil, "alg"},
			{"HS384 to an HS256 key", "hs256", s.signed(t, "HS384", nil, good()), nil, "alg"},
			{"RS384 to an RS256 key", "rs256", s.signed(t, "RS384", nil, good()), nil, "alg"},
			{"PS256 to an RS256 key", "rs256", s.signed(t, "PS256", nil, good()), nil, "alg"},
			{"PS256 to a key for both", "rsa-any", s.signed(t, "PS256", nil, good()), nil, "valid"},
			{"ES256 to an ES384 key", "es384", s.signed(t, "ES256", nil, good()), nil, "alg"},
			{"another RSA key", "rs256", foreign, nil, "signature"},
			{"another RSA key in the header", "rs256", withHeader(t, other, jwkOf(t, &other.PublicKey, nil), good()), nil, "signature"},
			{"jku and x5u are not asked", "hs256", s.signed(t, "HS256", map[string]any{"jku": "https://evil.example/", "x5u": "https://evil.example/"}, good()), nil, "valid"},
			{"kid of a key without one", "hs256", s.signed(t, "HS256", map[string]any{"kid": "../../dev/null"}, good()), nil, "valid"},
			{"kid a number", "hs256", text(`{"alg":"HS256","kid":1}`, exp), none, "malformed"},
			{"an extension that must be understood", "hs256", text(`{"alg":"HS256","crit":["b64"],"b64":false}`, exp), none, "malformed"},
			{"a changed signature", "hs256", cut(2) + "AA", nil, "signature"},
			{"no signature", "hs256", parts[0] + "." + parts[1] + ".", nil, "signature"},
			{"another payload", "hs256", parts[0] + "." + strings.Split(hs(with("sub", "eve")), ".")[1] + "." + parts[2], nil, "signature"},
			{"expired", "hs256", hs(with("exp", at(-time.Second))), nil, "expired"},
			{"expires now", "hs256", hs(with("exp", at(0))), nil, "expired"},
			{"expired within leeway", "hs256", hs(with("exp", at(-time.Second))), append([]string{"leeway", "2"}, asked...), "valid"},
			{"expired past leeway", "hs256", hs(with("exp", at(-3*time.Second))), append([]string{"leeway", "2"}, asked...), "expired"},
			{"no expiration", "hs256", hs(with("exp", nil)), nil, "claims"},
			{"no expiration, optional", "hs256", hs(with("exp", nil)), append([]string{"expiration", "optional"}, asked...), "valid"},
			{"expired, optional", "hs256", hs(with("exp", at(-time.Second))), append([]string{"expiration", "optional"}, asked...), "expired"},
			{"expiration a text", "hs256", hs(with("exp", "tomorrow")), nil, "claims"},
			{"expiration past all dates", "hs256", hs(with("exp", 1e300)), nil, "claims"},
			{"not yet", "hs256", hs(with("nbf", at(time.Second))), nil, "not_yet"},
			{"not yet within leeway", "hs256", hs(with("nbf", at(time.Second))), append([]string{"leeway", "1"}, asked...), "valid"},
			{"not before past all dates", "hs256", hs(with("nbf", 1e300)), nil, "claims"},
			{"another issuer", "hs256", hs(with("iss", "https://evil.example")), nil, "issuer"},
			{"no issuer", "hs256", hs(with("iss", nil)), nil, "issuer"},
			{"issuer a list", "hs256", hs(with("iss", []string{"https://login.example.com"})), nil, "issuer"},
			{"issuer of two", "hs256", ok, []string{"issuer", "a", "issuer", "https://login.example.com"}, "valid"},
			{"another audience", "hs256", hs(with("aud", "blog")), nil, "audience"},
			{"no audience", "hs256", hs(with("aud", nil)), nil, "audience"},
			{"audience empty", "hs256", hs(with("aud", []string{})), nil, "audience"},
			{"audience a number", "hs256", hs(with("aud", 7)), nil, "audience"},
			{"audience in a list", "hs256", hs(with("aud", []string{"blog", "shop"})), nil, "valid"},
			{"audience of two", "hs256", ok, []string{"audience", "blog", "audience", "shop"}, "valid"},
			{"audience not asked for", "hs256", hs(with("aud", "blog")), none, "valid"},
			{"a claim that must be there", "hs256", ok, []string{"require", "sub"}, "valid"},
			{"a claim that is not", "hs256", ok, []string{"require", "sub", "require", "email"}, "claims"},
			{"a claim that is null", "hs256", text(plain, `{"email":null,`+exp[1:]), []string{"require", "email"}, "claims"},
			{"a claim of a value", "hs256", ok, []string{"claim.sub", "ada"}, "valid"},
			{"a claim of another value", "hs256", ok, []string{"claim.sub", "eve"}, "claims"},
			{"a claim of two values", "hs256", ok, []string{"claim.sub", "eve", "claim.sub", "ada"}, "valid"},
			{"a list that has a value", "hs256", ok, []string{"claim.roles", "dev"}, "valid"},
			{"a list that has not", "hs256", ok, []string{"claim.roles", "root"}, "claims"},
			{"a number is no text", "hs256", ok, []string{"claim.level", "3"}, "claims"},
			{"empty", "hs256", "", nil, "malformed"},
			{"one part", "hs256", parts[0], nil, "malformed"},
			{"two parts", "hs256", parts[0] + "." + parts[1], nil, "malformed"},
			{"four parts", "hs256", ok + ".AAAA", nil, "malformed"},
			{"a line break inside", "hs256", parts[0] + "." + parts[1] + ".\n" + parts[2], nil, "malformed"},
			{"a space before", "hs256", " " + ok, nil, "malformed"},
			{"padding", "hs256", ok + "=", nil, "malformed"},
			{"header no JSON", "hs256", text(`{"alg":`, exp), none, "malformed"},
			{"header null", "hs256", text(`null`, exp), none, "malformed"},
			{"payload a list", "hs256", text(plain, `[1]`), none, "malformed"},
			{"payload null", "hs256", text(plain, `null`), none, "malformed"},
			{"payload with more behind it", "hs256", text(plain, exp+`{"exp":1}`), none, "malformed"},
			{"8 KiB", "hs256", sized(t, s, now, maxToken), none, "valid"},
			{"larger than 8 KiB", "hs256", sized(t, s, now, maxToken+4), none, "oversized"},
			{"megabytes of dots", "hs256", strings.Repeat(".", 1<<20), none, "oversized"},
		}
		for _, a := range AlgorithmNames() {
			tests = append(tests, struct {
				name, key, token string
				args             []string
				want             string
			}{"good " + a, strings.ToLower(a), s.signed(t, a, nil, good()), nil, "valid"})
		}
		for _, test := range tests {
			args := test.args
			if args == nil {
				args = asked
			}
			result := call(t, g, "seawall.jwt_verify", append([]string{"token", test.token, "key", test.key}, args...)...)
			if got := verdict(result); got != test.want {
				t.Errorf("%s: %.200s\ngot  %s\nwant %s", test.name, test.token, result, test.want)
			}
		}
	})
}

// withHeader is a token whose header brings its own key.
func withHeader(t *testing.T, by *rsa.PrivateKey, jwk map[string]any, claims jwt.MapClaims) string {
	t.Helper()
	token := jwt.NewWithClaims(jwt.SigningMethodRS256, claims)
	token.Header["jwk"] = jwk
	text, err := token.SignedString(by)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// sized is a good token of about n bytes, not fewer.
func sized(t *testing.T, s *signers, now time.Time, n int) string {
	t.Helper()
	bare := fmt.Sprintf(`{"exp":%d,"pad":""}`, now.Add(time.Minute).Unix())
	for pad := n * 3 / 4; ; pad-- {
		token := s.signedText(t, `{"alg":"HS256"}`, bare[:len(bare)-2]+strings.Repeat("x", pad)+`"}`)
		if len(token) <= n {
			if n > maxToken && len(token) <= maxToken {
				t.Fatalf("no token of %d bytes", n)
			}
			return token
		}
	}
}

func TestWhatATokenSays(t *testing.T) {
	s := someSigners(t)
	g := granted(t, Config{Keys: map[string]Key{"k": s.public(t, "HS256")}}, Options{})
	payload := `{"exp":9999999999,"sub":"ada \"q\"","n":12345678901234567890,"admin":true,"list":["a",1],"deep":{"b":null}}`
	token := s.signedText(t, `{"alg":"HS256","kid":"k1"}`, payload)
	got := call(t, g, "seawall.jwt_verify", "token", token, "key", "k")
	want := "valid=true\njson=" + payload + "\nalg=HS256\nkid=k1\nclaim.admin=true\nclaim.deep={\"b\":null}\nclaim.exp=9999999999\n" +
		"claim.list=[\"a\",1]\nclaim.n=12345678901234567890\nclaim.sub=ada \"q\""
	if got != want {
		t.Errorf("token %s\ngot  %s\nwant %s", token, got, want)
	}
}

// The tokens of RFC 7515, A.1 to A.3. They expired in 2011.
func TestTokensOfTheStandard(t *testing.T) {
	const payload = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
	secret, err := base64.RawURLEncoding.DecodeString("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
	if err != nil {
		t.Fatal(err)
	}
	keys, _, err := parseKeySet([]byte(`{"keys":[
		{"kty":"EC","crv":"P-256","kid":"es","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}`), nil)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, token string
		key         namedKey
	}{
		{"A.1, HMAC", "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9." + payload + ".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
			namedKey{verifiers: []verifier{{algorithms: []string{"HS256"}, key: secret}}}},
		{"A.3, ECDSA", "eyJhbGciOiJFUzI1NiJ9." + payload + ".DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
			namedKey{verifiers: keys}},
	}
	for _, test := range tests {
		synctest.Test(t, func(t *testing.T) { // a bubble begins in 2000, when they were good
			d := demand{key: &test.key, issuers: []string{"joe"}}
			if out, err := d.verify(test.token); err != nil {
				t.Errorf("%s: got %q, %v; want it to hold", test.name, out, err)
			}
			time.Sleep(time.Until(time.Unix(1300819380, 0)))
			if out, err := d.verify(test.token); err != faultExpired {
				t.Errorf("%s, at its end: got %q, %v; want %v", test.name, out, err, faultExpired)
			}
		})
	}
}

func TestDemandsThatMakeNoSense(t *testing.T) {
	s := someSigners(t)
	g := granted(t, Config{Keys: map[string]Key{"k": s.public(t, "HS256")}}, Options{})
	token := s.signed(t, "HS256", nil, jwt.MapClaims{"exp": 9999999999})
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"token", token}, "bad argument"},
		{[]string{"key", "k"}, "bad argument"},
		{[]string{"token", token, "key", "other"}, "not found"},
		{[]string{"token", token, "key", "k", "audiance", "shop"}, "bad argument"},
		{[]string{"token", token, "token", token, "key", "k"}, "bad argument"},
		{[]string{"token", token, "key", "k", "leeway", "-1"}, "bad argument"},
		{[]string{"token", token, "key", "k", "leeway", "601"}, "bad argument"},
		{[]string{"token", token, "key", "k", "leeway", "1", "leeway", "1"}, "bad argument"},
		{[]string{"token", token, "key", "k", "issuer", ""}, "bad argument"},
		{[]string{"token", token, "key", "k", "audience", ""}, "bad argument"},
		{[]string{"token", token, "key", "k", "expiration", "never"}, "bad argument"},
		{[]string{"token", token, "key", "k", "claims.a", "b"}, "bad argument"},
	} {
		if got := call(t, g, "seawall.jwt_verify", test.args...); got != test.want {
			t.Errorf("%q\ngot  %s\nwant %s", test.args, got, test.want)
		}
	}
}
