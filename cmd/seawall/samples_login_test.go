package main

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// linkSecret signs the links of the sample signedurl.
const linkSecret = "a secret of more than 32 bytes, for tests"

func sampleLink(link string) string {
	m := hmac.New(sha256.New, []byte(linkSecret))
	m.Write([]byte(link)) // a hash takes all
	return link + "&sig=" + hex.EncodeToString(m.Sum(nil))
}

// sampleLogin issues tokens, and serves the page of its keys.
type sampleLogin struct {
	key    *rsa.PrivateKey
	server *httptest.Server
	asked  atomic.Int64 // for the page
	down   atomic.Bool
}

func newSampleLogin(t *testing.T) *sampleLogin {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	l := &sampleLogin{key: key}
	page, err := json.Marshal(map[string]any{"keys": []map[string]string{{
		"kty": "RSA", "kid": "one", "alg": "RS256", "use": "sig", "n": base64.RawURLEncoding.EncodeToString(key.N.Bytes()), "e": "AQAB",
	}}})
	if err != nil {
		t.Fatal(err)
	}
	l.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		l.asked.Add(1)
		if l.down.Load() {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		_, _ = w.Write(page) // the node asks again
	}))
	t.Cleanup(l.server.Close)
	return l
}

// ready waits until the node has the keys.
func (l *sampleLogin) ready(t *testing.T, s *sampled) {
	t.Helper()
	p := &program{t: t}
	p.until("the node has the keys", func() bool { return s.functions.extras.Figures().Keys["login"].Keys == 1 })
}

// token is what the login issues, as change has it; a claim that is nil is left
// out.
func (l *sampleLogin) token(t testing.TB, kid string, change jwt.MapClaims) string {
	t.Helper()
	token := jwt.NewWithClaims(jwt.SigningMethodRS256, sampleClaims(change))
	token.Header["kid"] = kid
	text, err := token.SignedString(l.key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func sampleClaims(change jwt.MapClaims) jwt.MapClaims {
	c := jwt.MapClaims{"iss": "https://login", "aud": "shop", "sub": "ann", "exp": time.Now().Add(time.Hour).Unix()}
	for name, v := range change {
		if c[name] = v; v == nil {
			delete(c, name)
		}
	}
	return c
}

// testSampleTokens holds jwt to its word: pages behind it are one cached
// object, for holders of a valid token alone.
func testSampleTokens(t *testing.T, s *sampled) {
	l := s.login
	good, other := l.token(t, "one", nil), l.token(t, "one", jwt.MapClaims{"sub": "bob"})
	signedAs := func(method jwt.SigningMethod, key any, kid string) string {
		token := jwt.NewWithClaims(method, sampleClaims(nil))
		token.Header["kid"] = kid
		text, err := token.SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	wrong, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	eachProtocol(t, func(t *testing.T, proto string, c *http.Client) {
		target := "/page-" + strings.ReplaceAll(proto, "/", "-")
		for _, row := range []struct{ name, fields, want string }{
			{"first", "Authorization: Bearer " + good, "200\n| X-User: ann\n| Authorization: \n| number 1"},
			{"the same object for another", "Authorization: Bearer " + other, "200\n| number 1\nCache-Control: private"},
			{"by cookie", "Cookie: session=" + good, "200\n| number 1"},
			{"no token", "", "401\nWWW-Authenticate: Bearer\nCache-Control: no-store"},
			{"none", "Authorization: Bearer " + signedAs(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, "one"), invalidToken},
			{"HS256 with the public key", "Authorization: Bearer " + signedAs(jwt.SigningMethodHS256, l.key.N.Bytes(), "one"), invalidToken},
			{"wrong key", "Authorization: Bearer " + signedAs(jwt.SigningMethodRS256, wrong, "one"), invalidToken},
			{"unknown kid", "Authorization: Bearer " + signedAs(jwt.SigningMethodRS256, wrong, "two"), invalidToken},
			{"expired", "Authorization: Bearer " + l.token(t, "one", jwt.MapClaims{"exp": time.Now().Unix() - 10}), "401\nWWW-Authenticate: Bearer error=\"invalid_token\", error_description=\"expired\""},
			{"not yet valid", "Authorization: Bearer " + l.token(t, "one", jwt.MapClaims{"nbf": time.Now().Unix() + 600}), invalidToken},
			{"wrong audience", "Authorization: Bearer " + l.token(t, "one", jwt.MapClaims{"aud": "mail"}), invalidToken},
			{"wrong issuer", "Authorization: Bearer " + l.token(t, "one", jwt.MapClaims{"iss": "https://evil"}), invalidToken},
			{"malformed", "Authorization: Bearer a.b.c", invalidToken},
			{"oversized", "Authorization: Bearer " + strings.Repeat("x", 20_000), invalidToken},
		} {
			res, body := s.send(t, c, "jwt", "GET "+target, row.fields)
			if fault := sampleFault(res, body, row.want); fault != "" {
				t.Errorf("%s: %s\ngot %d %v\n%s\nwant %s: %s", row.name, row.fields, res.StatusCode, res.Header, body, row.want, fault)
			}
		}
		if got := s.origin.times("jwt", target); got != 1 {
			t.Errorf("the origin was asked %d times, want once: a token is no part of what is cached", got)
		}
	})
	// A storm of unknown keys has the page fetched once at most in unknown_kid,
	// and while it cannot be had the last keys are good.
	l.down.Store(true)
	before := l.asked.Load()
	var tr http.Transport
	defer tr.CloseIdleConnections()
	c := staying(&http.Client{Transport: &tr})
	for i := range 300 {
		token := signedAs(jwt.SigningMethodRS256, wrong, fmt.Sprint("storm-", i))
		if res, _, err := s.ask(c, s.clearURL(), "jwt", "GET /p", "Authorization: Bearer "+token); err != nil || res.StatusCode != 401 {
			t.Fatalf("an unknown key: got %v %v, want 401", err, res)
		}
	}
	if asked := l.asked.Load() - before; asked > 1 {
		t.Errorf("300 tokens of unknown keys: the page was fetched %d times, want once at most", asked)
	}
	if res, _, err := s.ask(c, s.clearURL(), "jwt", "GET /p", "Authorization: Bearer "+good); err != nil || res.StatusCode != 200 {
		t.Errorf("a good token while the page cannot be had: got %v %v, want 200", err, res)
	}
}

const invalidToken = "401\nWWW-Authenticate: Bearer error=\"invalid_token\"\nCache-Control: no-store"

// testTwoUsers has two users with tokens and variants of their own ask at once
// for pages that they share and pages that are each one's own.
func testTwoUsers(t *testing.T, s *sampled) {
	users := []struct{ name, variant, prefix, token string }{
		{"ann", "a", "", s.login.token(t, "one", nil)},
		{"bob", "b", "/beta", s.login.token(t, "one", jwt.MapClaims{"sub": "bob"})},
	}
	const requests, at = 3_400, 8 // by each protocol
	eachProtocol(t, func(t *testing.T, _ string, c *http.Client) {
		var next, faults atomic.Int64
		var wait sync.WaitGroup
		for range at {
			wait.Go(func() {
				for n := next.Add(1); n <= requests && faults.Load() < 10; n = next.Add(1) {
					u := users[n%2]
					path := fmt.Sprintf("/shared/%d", n/2%7)
					want := "200\n-Set-Cookie\nVary: Cookie\nCache-Control: private\n| X-Ab: " + u.variant + "\n| Authorization: "
					if n/2%3 == 0 {
						path = fmt.Sprintf("/mine/%d", n/2%7)
						want += "\n| X-User: " + u.name
					}
					want += "\n| GET " + u.prefix + path
					res, body, err := s.ask(c, s.secureURL(), "both", "GET "+path, "Authorization: Bearer "+u.token+"\nCookie: ab="+u.variant)
					if err != nil || sampleFault(res, body, want) != "" {
						faults.Add(1)
						t.Errorf("request %d, %s of %s: got %v %v\n%s\nwant %s", n, path, u.name, err, res, body, want)
					}
				}
			})
		}
		wait.Wait()
	})
	for i := range 7 {
		for _, u := range users {
			if got := s.origin.times("both", fmt.Sprintf("%s/shared/%d", u.prefix, i)); got != 1 {
				t.Errorf("the origin was asked %d times for /shared/%d of variant %s, want once", got, i, u.variant)
			}
		}
	}
}
