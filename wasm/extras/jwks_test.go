package extras

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// issuer answers for a page of keys.
type issuer struct {
	mu     sync.Mutex
	answer func(r *http.Request) (*http.Response, error)
	asked  []time.Duration // since the bubble began
	sent   []*http.Request
	began  time.Time
}

func newIssuer(page string) *issuer {
	i := &issuer{began: time.Now()}
	i.serves(page)
	return i
}

func (i *issuer) RoundTrip(r *http.Request) (*http.Response, error) {
	i.mu.Lock()
	i.asked = append(i.asked, time.Since(i.began))
	i.sent = append(i.sent, r)
	answer := i.answer
	i.mu.Unlock() // an answer may hang, and a bubble's time stands still while anybody waits for a lock
	return answer(r)
}

func (i *issuer) does(f func(r *http.Request) (*http.Response, error)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.answer = f
}

// serves makes it answer a page, with fields as "Name: value".
func (i *issuer) serves(page string, fields ...string) { i.status(http.StatusOK, page, fields...) }

func (i *issuer) status(code int, page string, fields ...string) {
	i.does(func(*http.Request) (*http.Response, error) { return response(code, page, fields...), nil })
}

func response(code int, page string, fields ...string) *http.Response {
	h := http.Header{}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		h.Add(name, value)
	}
	return &http.Response{StatusCode: code, Header: h, Body: io.NopCloser(strings.NewReader(page))}
}

// times returns how often it was asked, and when last.
func (i *issuer) times() (n int, last time.Duration) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if n = len(i.asked); n > 0 {
		last = i.asked[n-1]
	}
	return n, last
}

func (i *issuer) last() *http.Request {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.sent[len(i.sent)-1]
}

// login fetches one set from i. check judges a token by it, when all is quiet;
// storm does at any time.
func login(t *testing.T, i *issuer, log io.Writer, algorithms ...string) (check, storm func(token string) string, s *Services) {
	t.Helper()
	o := Options{Transport: i}
	if log != nil {
		o.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}}))
	}
	s = New(o)
	set, err := s.Open(Config{Keys: map[string]Key{"login": {JWKS: &JWKS{URL: "https://login.example/keys"}, Algorithms: algorithms}}})
	if err != nil {
		t.Fatal(err)
	}
	s.Use(set)
	t.Cleanup(set.Close)
	g := set.Grant("f", []string{"login"}, nil)
	storm = func(token string) string {
		return verdict(call(t, g, "seawall.jwt_verify", "token", token, "key", "login"))
	}
	check = func(token string) string {
		synctest.Wait()
		got := storm(token)
		synctest.Wait() // what it asked for is done
		return got
	}
	return check, storm, s
}

// expect fails unless got is want.
func expect[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// later is a claim of a token that does not expire in these tests.
func later() jwt.MapClaims { return jwt.MapClaims{"exp": time.Now().Add(1000 * time.Hour).Unix()} }

func TestSetsOfKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := someSigners(t)
		i := newIssuer(setOf(t,
			jwkOf(t, &s.rsa.PublicKey, map[string]any{"kid": "r"}),
			jwkOf(t, &s.p256.PublicKey, map[string]any{"kid": "e2", "use": "sig", "key_ops": []string{"verify"}}),
			jwkOf(t, &s.p384.PublicKey, map[string]any{"kid": "e3", "alg": "ES384"}),
			jwkOf(t, s.ed.Public(), map[string]any{"kid": "ed"}),
			jwkOf(t, s.secret, map[string]any{"kid": "o", "alg": "HS256"}),
		))
		check, _, _ := login(t, i, nil)
		kid := func(k string) map[string]any { return map[string]any{"kid": k} }
		confused, err := jwt.NewWithClaims(jwt.SigningMethodHS256, later()).SignedString([]byte(pemOf(t, &s.rsa.PublicKey)))
		if err != nil {
			t.Fatal(err)
		}
		for _, test := range []struct{ name, token, want string }{
			{"RS256", s.signed(t, "RS256", kid("r"), later()), "valid"},
			{"PS512", s.signed(t, "PS512", kid("r"), later()), "valid"},
			{"ES256", s.signed(t, "ES256", kid("e2"), later()), "valid"},
			{"ES384", s.signed(t, "ES384", kid("e3"), later()), "valid"},
			{"EdDSA", s.signed(t, "EdDSA", kid("ed"), later()), "valid"},
			{"without kid", s.signed(t, "ES256", nil, later()), "valid"},
			{"the kid of another key", s.signed(t, "ES256", kid("ed"), later()), "alg"},
			{"the algorithm of no key", confused, "alg"},
			{"a symmetric key that nobody allowed", s.signed(t, "HS256", kid("o"), later()), "key"},
		} {
			expect(t, test.name, check(test.token), test.want)
		}
		n, _ := i.times()
		expect(t, "fetches", n, 1)
	})
}

func TestSymmetricKeysOfASetAreForThoseWhoNameThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := someSigners(t)
		check, _, _ := login(t, newIssuer(setOf(t, jwkOf(t, s.secret, map[string]any{"kid": "o"}))), nil, "HS256")
		expect(t, "HS256", check(s.signed(t, "HS256", map[string]any{"kid": "o"}, later())), "valid")
		expect(t, "HS512", check(s.signed(t, "HS512", map[string]any{"kid": "o"}, later())), "alg")
	})
}

func TestUnknownKidsFetchAtABoundedRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := someSigners(t)
		old := jwkOf(t, &s.p256.PublicKey, map[string]any{"kid": "old"})
		i := newIssuer(setOf(t, old))
		check, storm, services := login(t, i, nil)
		next := s.signed(t, "EdDSA", map[string]any{"kid": "next"}, later())
		expect(t, "before its key is there", check(next), "key")
		n, _ := i.times()
		expect(t, "fetches within the interval", n, 1)

		i.serves(setOf(t, old, jwkOf(t, s.ed.Public(), map[string]any{"kid": "next"})))
		time.Sleep(30 * time.Second)
		expect(t, "the token that asks for it", check(next), "key")
		expect(t, "the one after", check(next), "valid")
		n, _ = i.times()
		expect(t, "fetches after the interval", n, 2)

		var wait sync.WaitGroup
		for range 50 { // a storm, a second between its gusts
			for range 20 {
				wait.Go(func() { storm(s.signed(t, "ES256", map[string]any{"kid": anyKid(t)}, later())) })
			}
			wait.Wait()
			time.Sleep(time.Second)
		}
		n, _ = i.times()
		expect(t, "fetches in 50 seconds of storm", n, 3)
		expect(t, "tokens of unknown keys", services.Figures().Keys["login"].Unknown, 1002)
	})
}

// anyKid is a kid that nobody has.
func anyKid(t *testing.T) string {
	t.Helper()
	return time.Now().String()
}

func TestTheLastKeysStayWhenThePageCannotBeHad(t *testing.T) {
	huge := strings.Repeat(" ", maxKeySet+1)
	faults := map[string]func(r *http.Request) (*http.Response, error){
		"refused": func(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") },
		"500":     func(*http.Request) (*http.Response, error) { return response(500, "oh"), nil },
		"redirect": func(*http.Request) (*http.Response, error) {
			return response(302, "", "Location: https://evil.example/"), nil
		},
		"no JSON": func(*http.Request) (*http.Response, error) { return response(200, "<html>"), nil },
		"no keys": func(*http.Request) (*http.Response, error) { return response(200, `{"keys":[]}`), nil },
		"huge":    func(*http.Request) (*http.Response, error) { return response(200, huge), nil },
		"cut short": func(*http.Request) (*http.Response, error) {
			r := response(200, "")
			r.Body = io.NopCloser(broken{})
			return r, nil
		},
		"304": func(*http.Request) (*http.Response, error) { return response(304, ""), nil },
		"hanging": func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		},
	}
	for name, fault := range faults {
		synctest.Test(t, func(t *testing.T) {
			s := someSigners(t)
			i := newIssuer("")
			i.does(fault)
			var log bytes.Buffer
			check, _, services := login(t, i, &log)
			token := s.signed(t, "ES256", map[string]any{"kid": "k"}, later())
			expect(t, name+": before the first load", check(token), "unavailable")
			time.Sleep(time.Hour)
			expect(t, name+": an hour later", check(token), "unavailable")
			n, _ := i.times()
			if n < 50 || n > 100 {
				t.Errorf("%s: %d tries in an hour; want about one a minute", name, n)
			}
			i.serves(setOf(t, jwkOf(t, &s.p256.PublicKey, map[string]any{"kid": "k"})))
			time.Sleep(2 * time.Minute)
			expect(t, name+": once it works", check(token), "valid")
			i.does(fault)
			time.Sleep(5 * time.Hour)
			expect(t, name+": hours after it broke again", check(token), "valid")
			f := services.Figures().Keys["login"]
			bad, others, said := f.Failed, f.Unusable, "cannot be fetched"
			if name == "no JSON" || name == "no keys" {
				bad, others, said = f.Unusable, f.Failed, "has no keys that can be used"
			}
			if f.Fetched == 0 || bad < 100 || others != 0 || f.Failing < 100 || f.Keys != 1 || time.Since(f.Good) < 4*time.Hour {
				t.Errorf("%s: figures %+v", name, f)
			}
			text := log.String()
			expect(t, name+": times said\n"+text, strings.Count(text, said), 2)
			expect(t, name+": when the last ones came\n"+text, strings.Count(text, "fetched="+f.Good.UTC().Format(time.RFC3339)), 1)
			expect(t, name+": times good again", strings.Count(text, "can be fetched again"), 1)
		})
	}
}

// Another reason is said even while it does not work: a page that stays away
// and then comes without keys, say.
func TestAnotherReasonIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := someSigners(t)
		good := setOf(t, jwkOf(t, &s.p256.PublicKey, map[string]any{"kid": "k"}))
		i := newIssuer(good)
		var log bytes.Buffer
		_, _, services := login(t, i, &log)
		for _, fault := range []func(){
			func() { i.status(500, "oh") }, func() { i.serves(`{"keys":[{"kty":"oct"}]}`) }, func() { i.status(500, "oh") }, func() { i.serves(good) },
		} {
			fault()
			time.Sleep(3 * time.Hour)
		}
		synctest.Wait()
		expect(t, "warnings\n"+log.String(), strings.Count(log.String(), "level=WARN"), 3)
		if f := services.Figures().Keys["login"]; f.Failing != 0 || f.Failed == 0 || f.Unusable == 0 {
			t.Errorf("once it works again: figures %+v, want some of both failures, and none in a row", f)
		}
	})
}

type broken struct{}

func (broken) Read(p []byte) (int, error) { return copy(p, "{"), io.ErrUnexpectedEOF }

func TestWhenAPageIsFetchedAnew(t *testing.T) {
	for _, test := range []struct {
		field       string
		least, most time.Duration
	}{
		{"X-Nothing: 1", 48 * time.Minute, time.Hour},
		{"Cache-Control: max-age=600", 8 * time.Minute, 10 * time.Minute},
		{"Cache-Control: public, Max-Age=\"600\"", 8 * time.Minute, 10 * time.Minute},
		{"Cache-Control: max-age=86400", 48 * time.Minute, time.Hour},
		{"Cache-Control: max-age=99999999999999999999", 48 * time.Minute, time.Hour},
		{"Cache-Control: max-age=1", 48 * time.Second, time.Minute},
		{"Cache-Control: max-age=-1", 48 * time.Second, time.Minute},
		{"Cache-Control: no-store", 48 * time.Second, time.Minute},
		{"Cache-Control: no-cache, max-age=600", 48 * time.Second, time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := someSigners(t)
			i := newIssuer("")
			i.serves(setOf(t, jwkOf(t, &s.p256.PublicKey, nil)), test.field)
			login(t, i, nil)
			time.Sleep(test.least - time.Second)
			synctest.Wait()
			n, _ := i.times()
			expect(t, test.field+": fetches before "+test.least.String(), n, 1)
			time.Sleep(test.most - test.least + time.Second)
			synctest.Wait()
			n, _ = i.times()
			expect(t, test.field+": fetches by "+test.most.String(), n, 2)
		})
	}
}

func TestAPageThatDidNotChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := someSigners(t)
		i := newIssuer("")
		i.serves(setOf(t, jwkOf(t, &s.p256.PublicKey, nil)), `ETag: "v1"`)
		var log bytes.Buffer
		check, _, _ := login(t, i, &log)
		token := s.signed(t, "ES256", nil, later())
		expect(t, "at first", check(token), "valid")
		expect(t, "the first validator", i.last().Header.Get("If-None-Match"), "")
		i.status(http.StatusNotModified, "")
		time.Sleep(10 * time.Hour)
		expect(t, "after ten hours of 304", check(token), "valid")
		expect(t, "the next validator", i.last().Header.Get("If-None-Match"), `"v1"`)
		expect(t, "words\n"+log.String(), strings.Count(log.String(), "level=WARN"), 0)
	})
}

func TestARevokedKeyGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := someSigners(t)
		i := newIssuer(setOf(t, jwkOf(t, &s.p256.PublicKey, map[string]any{"kid": "a"})))
		check, _, _ := login(t, i, nil)
		token := s.signed(t, "ES256", map[string]any{"kid": "a"}, later())
		expect(t, "while it is there", check(token), "valid")
		i.serves(setOf(t, jwkOf(t, s.ed.Public(), map[string]any{"kid": "b"})))
		time.Sleep(time.Hour)
		expect(t, "when it is gone", check(token), "key")
	})
}

func TestClosingEndsAFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer("")
		ended := make(chan struct{})
		i.does(func(r *http.Request) (*http.Response, error) {
			defer close(ended)
			<-r.Context().Done()
			return nil, context.Cause(r.Context())
		})
		set, err := New(Options{Transport: i}).Open(Config{Keys: map[string]Key{"login": {JWKS: &JWKS{URL: "https://login.example/keys"}}}})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		began := time.Now()
		set.Close()
		set.Close() // again is nothing
		<-ended
		expect(t, "time it took", time.Since(began), 0)
	})
}

func TestAnotherConfigurationKeepsWhatDidNotChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := someSigners(t)
		i := newIssuer(setOf(t, jwkOf(t, &s.p256.PublicKey, nil)))
		services := New(Options{Transport: i})
		config := func(login, secret string) Config {
			return Config{
				Keys: map[string]Key{"login": {JWKS: &JWKS{URL: login}}, "links": {Secret: []byte(secret)}},
				Maps: map[string]map[string]string{"m": {"a": "b"}},
			}
		}
		open := func(c Config) *Set {
			set, err := services.Open(c)
			if err != nil {
				t.Fatal(err)
			}
			return set
		}
		const page, secret = "https://login.example/keys", "sixteen bytes and"
		first := open(config(page, secret))
		synctest.Wait()
		i.does(func(*http.Request) (*http.Response, error) { return nil, errors.New("down") })
		second := open(config(page, secret+" more"))
		a, b := first.Grant("f", []string{"login"}, []string{"m"}), second.Grant("f", []string{"login"}, []string{"m"})
		expect(t, "grants of what did not change", a.Same(b), true)
		expect(t, "grants of another secret", first.Grant("f", []string{"links"}, nil).Same(second.Grant("f", []string{"links"}, nil)), false)
		expect(t, "grants of different maps", a.Same(second.Grant("f", []string{"login"}, nil)), false)
		first.Close()
		time.Sleep(time.Minute)
		token := s.signed(t, "ES256", nil, later())
		expect(t, "the fetched keys, after the first is closed", verdict(call(t, b, "seawall.jwt_verify", "token", token, "key", "login")), "valid")
		n, _ := i.times()
		expect(t, "fetches", n, 1)

		third := open(config(page+"2", secret+" more"))
		expect(t, "grants of another page", b.Same(third.Grant("f", []string{"login"}, []string{"m"})), false)
		second.Close()
		third.Close()
		expect(t, "a grant whose set is closed", verdict(call(t, b, "seawall.jwt_verify", "token", token, "key", "login")), "valid")
		if len(services.keys)+len(services.maps)+len(services.atlases) != 0 {
			t.Errorf("left open: %d keys, %d maps, %d atlases", len(services.keys), len(services.maps), len(services.atlases))
		}
	})
}
