package admin

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"seawall/edge"
)

const onePurge = `{"urls":["http://a.example/1"]}`

// Who may do what. Whatever is refused does nothing, is counted, and leaves an
// audit line without the token.
func TestAuthority(t *testing.T) {
	host := func(name string) func(*http.Request) { return func(r *http.Request) { r.Host = name } }
	from := func(peer string) func(*http.Request) { return func(r *http.Request) { r.RemoteAddr = peer } }
	tokens := testTokens()
	for _, c := range []struct {
		name         string
		access       Access
		method, path string
		body         string
		change       func(*http.Request)
		want         int
		says         string
	}{
		{"no tokens, this machine", Access{}, "POST", "/v1/purges", onePurge, nil, 200, ""},
		{"no tokens, another machine", Access{}, "POST", "/v1/purges", onePurge, from("192.0.2.1:1"), 403, "admin.tokens"},
		{"no tokens, DNS rebinding", Access{}, "POST", "/v1/purges", onePurge, host("evil.example:9090"), 403, "loopback Host"},
		{"no tokens, a site's Host", Access{}, "PURGE", "/1", "", host("a.example"), 403, "loopback Host"},
		{"no tokens, a cross-site page", Access{}, "POST", "/v1/purges", onePurge, field("Origin", "http://evil.example"), 403, "Origin"},
		{"no token", tokens, "POST", "/v1/purges", onePurge, nil, 401, "needs a token"},
		{"no token from another machine", tokens, "GET", "/v1/purges", "", from("192.0.2.1:1"), 401, "needs a token"},
		{"no token, DNS rebinding", tokens, "POST", "/v1/purges", onePurge, host("evil.example:9090"), 401, "needs a token"},
		{"no token for metrics", tokens, "GET", "/metrics", "", nil, 401, "needs a token"},
		{"no token for what is no call", tokens, "GET", "/nothing", "", nil, 401, "needs a token"},
		{"no token for an unknown method", tokens, "DELETE", "/v1/purges", "", nil, 401, "needs a token"},
		{"no token, PURGE", tokens, "PURGE", "/1", "", host("a.example"), 401, "needs a token"},
		{"no token, Cloudflare", tokens, "POST", "/client/v4/zones/a/purge_cache", `{"tags":["x"]}`, nil, 401, `"code":10000`},
		{"no token, Fastly", tokens, "POST", "/service/a/purge_all", "", nil, 401, `"msg":`},
		{"an unknown token", tokens, "POST", "/v1/purges", onePurge, field("Authorization", "Bearer secret-of-nobody-0123456789"), 401, "not known"},
		{"half a token", tokens, "POST", "/v1/purges", onePurge, field("Authorization", "Bearer secret-of-purger"), 401, "not known"},
		{"another scheme", tokens, "POST", "/v1/purges", onePurge, field("Authorization", "Basic "+secretOf("purger")), 401, "needs a token"},
		{"two tokens", tokens, "POST", "/v1/purges", onePurge, all(as("purger"), field("Fastly-Key", secretOf("reader"))), 401, "two tokens"},
		{"one token twice", tokens, "POST", "/v1/purges", onePurge, all(as("purger"), field("Fastly-Key", secretOf("purger"))), 200, ""},
		{"a token from another machine", tokens, "POST", "/v1/purges", onePurge, all(as("purger"), from("192.0.2.1:1")), 200, ""},
		{"a token by a name of its own", tokens, "POST", "/v1/purges", onePurge, all(as("purger"), host("cache.internal")), 200, ""},
		{"Fastly-Key", tokens, "POST", "/v1/purges", onePurge, field("Fastly-Key", secretOf("purger")), 200, ""},
		{"X-Auth-Key", tokens, "POST", "/v1/purges", onePurge, field("X-Auth-Key", secretOf("purger")), 200, ""},
		{"bearer in capitals", tokens, "POST", "/v1/purges", onePurge, field("Authorization", "BEARER "+secretOf("purger")), 200, ""},
		{"the scope admin", tokens, "POST", "/v1/purges", onePurge, as("chief"), 200, ""},
		{"a wrong scope", tokens, "POST", "/v1/purges", onePurge, as("reader"), 403, "scope purge"},
		{"a wrong scope to read", tokens, "GET", "/v1/purges", "", as("purger"), 403, "scope read"},
		{"a wrong scope for one purge", tokens, "GET", "/v1/purges/p1", "", as("pusher"), 403, "scope read or purge"},
		{"a wrong scope to push", tokens, "PUT", "/v1/objects?url=http://a.example/1", "x", as("purger"), 403, "scope push"},
		{"a wrong scope to warm", tokens, "POST", "/v1/warmups", onePurge, as("purger"), 403, "scope push"},
		{"a wrong scope for metrics", tokens, "GET", "/metrics", "", as("pusher"), 403, "scope read"},
		{"a wrong scope by dialect", tokens, "POST", "/service/a/purge_all", "", as("reader"), 403, "scope purge"},
		{"a cross-site page with a token", tokens, "POST", "/v1/purges", onePurge, all(as("purger"), field("Origin", "https://evil.example")), 403, "Origin"},
		{"a cross-site fetch with a token", tokens, "POST", "/v1/purges", onePurge, all(as("purger"), field("Sec-Fetch-Site", "cross-site")), 403, "Sec-Fetch-Site"},
		{"its own site", tokens, "POST", "/v1/purges", onePurge, as("bound"), 200, ""},
		{"its own site's tags, by itself", tokens, "POST", "/v1/purges", `{"tags":["x"]}`, as("bound"), 200, ""},
		{"its own site by a prefix without scheme", tokens, "POST", "/v1/purges", `{"prefixes":["A.example/x"]}`, as("bound"), 200, ""},
		{"another site's URL", tokens, "POST", "/v1/purges", `{"urls":["http://a.example/","http://b.example/"]}`, as("bound"), 403, "b.example"},
		{"another site's prefix", tokens, "POST", "/v1/purges", `{"prefixes":["https://b.example/"]}`, as("bound"), 403, "b.example"},
		{"another site's prefix in disguise", tokens, "POST", "/v1/purges", `{"prefixes":["b.example/x://a.example/"]}`, as("bound"), 403, "b.example"},
		{"another site's host", tokens, "POST", "/v1/purges", `{"hosts":["b.example:8080"]}`, as("bound"), 403, "b.example"},
		{"another site's tags", tokens, "POST", "/v1/purges", `{"tags":["x"],"site":"b"}`, as("bound"), 403, "the site b"},
		{"every site's tags", tokens, "POST", "/v1/purges", `{"tags":["x"],"site":"*"}`, as("bound"), 403, "the site *"},
		{"every site", tokens, "POST", "/v1/purges", `{"everything":true,"site":"*"}`, as("bound"), 403, "the site *"},
		{"a host of no site", tokens, "POST", "/v1/purges", `{"hosts":["c.example"]}`, as("bound"), 403, "c.example"},
		{"another site's dry run", tokens, "POST", "/v1/purges", `{"hosts":["b.example"],"dry_run":true}`, as("bound"), 403, "b.example"},
		{"another site's push", tokens, "PUT", "/v1/objects?url=http://b.example/1", "x", as("bound"), 403, "b.example"},
		{"another site's objects", tokens, "GET", "/v1/objects?url=http://b.example/1", "", as("bound"), 403, "b.example"},
		{"another site by PURGE", tokens, "PURGE", "/1", "", all(as("bound"), host("b.example")), 403, "b.example"},
		{"another site by Fastly", tokens, "POST", "/purge/b.example/1", "", as("bound"), 403, "b.example"},
		{"another site by Cloudflare", tokens, "POST", "/client/v4/zones/z/purge_cache", `{"hosts":["b.example"]}`, as("bound"), 403, "b.example"},
		{"the whole node's metrics", tokens, "GET", "/metrics", "", as("bound"), 403, "whole node"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := new(fakeNode)
			h := n.handler(t, c.access)
			w := askBody(h, c.method, c.path, c.body, c.change)
			if w.Code != c.want || !strings.Contains(w.Body.String(), c.says) {
				t.Fatalf("%s %s %s: got %d %s, want %d with %q", c.method, c.path, c.body, w.Code, w.Body, c.want, c.says)
			}
			if c.want == 401 && w.Header().Get("WWW-Authenticate") == "" {
				t.Error("401 without WWW-Authenticate")
			}
			log := n.lines()
			if refused := c.want != 200; refused != (strings.Contains(log, "audit=true") && strings.Contains(log, "result=refused")) {
				t.Errorf("refused %v, and the audit says %q", refused, log)
			}
			if c.want != 200 && n.did() != 0 {
				t.Errorf("refused, and yet it did %d things", n.did())
			}
			if strings.Contains(log, "secret-of") || strings.Contains(w.Body.String(), "secret-of") {
				t.Errorf("a token is told: %s %s", log, w.Body)
			}
		})
	}
}

func TestHealthNeedsNoToken(t *testing.T) {
	h := new(fakeNode).handler(t, testTokens())
	for _, path := range []string{"/healthz", "/readyz"} {
		if w := askBody(h, "GET", path, "", func(r *http.Request) { r.RemoteAddr = "192.0.2.1:1" }); w.Code != 200 {
			t.Errorf("%s: got %d, want 200", path, w.Code)
		}
	}
}

// Each change leaves one line that says who, what and with which result.
func TestAudit(t *testing.T) {
	n := new(fakeNode)
	h := n.handler(t, testTokens())
	for _, c := range []struct {
		name, method, path, body, token string
		want                            []string
	}{
		{"a purge", "POST", "/v1/purges", `{"tags":["x","y"],"site":"a","soft":true}`, "purger",
			[]string{"audit=true", "token=purger", "client=127.0.0.1", "method=POST", "path=/v1/purges", `what="tags=2 soft site=a"`, "result=done", "id=p1"}},
		{"a purge that is wrong", "POST", "/v1/purges", `{"urls":["x"]}`, "chief", []string{"token=chief", "result=failed", "status=400", `what="urls=1"`}},
		{"a push", "PUT", "/v1/objects?url=http://a.example/1", "text", "pusher", []string{"token=pusher", "method=PUT", "path=/v1/objects", `what="url=http://a.example/1"`, "result=done"}},
		{"a warm-up", "POST", "/v1/warmups", `{"urls":["http://a.example/1"]}`, "pusher", []string{"path=/v1/warmups", `what="urls=1 sitemap=false"`, "result=done", "id="}},
		{"a dialect", "POST", "/service/b/purge/t", "", "purger", []string{"path=/service/b/purge/t", `what="tags=1 site=b"`, "id=p2"}},
		{"a call that is refused", "POST", "/v1/purges", onePurge, "reader", []string{"token=reader", "result=refused", "status=403"}},
		{"a call that changes nothing", "GET", "/v1/purges", "", "reader", nil},
	} {
		before := n.lines()
		askBody(h, c.method, c.path, c.body, as(c.token))
		line := strings.TrimPrefix(n.lines(), before)
		if want := min(1, len(c.want)); strings.Count(line, "\n") != want {
			t.Errorf("%s: %d lines, want %d:\n%s", c.name, strings.Count(line, "\n"), want, line)
		}
		for _, want := range c.want {
			if !strings.Contains(line, want) {
				t.Errorf("%s: the line has no %s:\n%s", c.name, want, line)
			}
		}
	}
}

// A call that breaks down has not done what it was to, as far as is known.
func TestAuditOfABreakdown(t *testing.T) {
	n := new(fakeNode)
	h := n.handler(t, Access{})
	h.Cache.Push = func(context.Context, edge.Push) (edge.Pushed, error) { panic("as told") }
	func() {
		defer func() { recover() }() // as net/http does
		askBody(h, "PUT", "/v1/objects?url=http://a.example/1", "text", nil)
	}()
	if line := n.lines(); !strings.Contains(line, "result=failed") {
		t.Errorf("the audit says %q, want result=failed", line)
	}
}

func TestRateOfEachToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := testTokens()
		a.Rate = 3
		h := new(fakeNode).handler(t, a)
		get := func(name string) int { return askBody(h, "GET", "/v1/purges", "", as(name)).Code }
		for i := range 3 {
			if code := get("reader"); code != 200 {
				t.Fatalf("call %d of 3: got %d", i+1, code)
			}
		}
		w := askBody(h, "GET", "/v1/purges", "", as("reader"))
		if w.Code != 429 || w.Header().Get("Retry-After") != "1" {
			t.Errorf("call 4: got %d, Retry-After %q; want 429 and 1", w.Code, w.Header().Get("Retry-After"))
		}
		if code := get("chief"); code != 200 {
			t.Errorf("another token: got %d, want 200", code)
		}
		h.Permit(a) // a reload gives nobody a new allowance
		if code := get("reader"); code != 429 {
			t.Errorf("after a reload: got %d, want 429", code)
		}
		time.Sleep(time.Second)
		if code := get("reader"); code != 200 {
			t.Errorf("a second later: got %d, want 200", code)
		}
	})
}

// Guessing is limited by address. One wrong token again and again is no guess,
// and must not lock out others behind the same address.
func TestGuessingIsLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := new(fakeNode).handler(t, testTokens())
		try := func(peer, token string) int {
			return askBody(h, "GET", "/v1/purges", "", func(r *http.Request) {
				r.RemoteAddr = peer
				r.Header.Set("Authorization", "Bearer "+token)
			}).Code
		}
		for i := range 10 * failBurst {
			if code := try("192.0.2.9:1", fmt.Sprintf("an-old-token-of-program-%d", i%3)); code != 401 {
				t.Fatalf("old tokens again and again, call %d: got %d, want 401", i, code)
			}
		}
		if code := try("192.0.2.9:1", secretOf("reader")); code != 200 {
			t.Errorf("a good token beside three old ones: got %d, want 200", code)
		}
		for i := range failBurst {
			if code := try("[2001:db8::1]:1", fmt.Sprintf("guess-number-%08d", i)); code != 401 {
				t.Fatalf("guess %d: got %d, want 401", i, code)
			}
		}
		for _, c := range []struct {
			name, peer, token string
			want              int
		}{
			{"the next guess", "[2001:db8::1]:1", "one-guess-more-than", 429},
			{"from the same network", "[2001:db8::ffff]:1", "one-guess-more-than", 429},
			{"a good token from there", "[2001:db8::1]:1", secretOf("reader"), 429},
			{"from elsewhere", "[2001:db8:1::1]:1", secretOf("reader"), 200},
		} {
			if code := try(c.peer, c.token); code != c.want {
				t.Errorf("%s: got %d, want %d", c.name, code, c.want)
			}
		}
		time.Sleep(failEvery)
		if code := try("[2001:db8::1]:1", secretOf("reader")); code != 200 {
			t.Errorf("after a while: got %d, want 200", code)
		}
		for i := range maxPeers + 200 {
			h.failures.failed(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), [32]byte{1}, time.Now())
		}
		if n := len(h.failures.peers); n > maxPeers {
			t.Errorf("%d addresses are remembered, want at most %d", n, maxPeers)
		}
	})
}

func TestScopes(t *testing.T) {
	for _, name := range scopeNames {
		s, err := ParseScope(name)
		if err != nil || s.String() != name {
			t.Errorf("%s: got %v, %v", name, s, err)
		}
	}
	if _, err := ParseScope("write"); err == nil {
		t.Error("write: no error")
	}
	if got := (ScopeRead | ScopePush).String(); got != "read push" {
		t.Errorf("read and push: got %q", got)
	}
}

// net/http reads on for content that a call leaves unread, before it sends the
// answer: whoever announces content and sends none must not keep its
// connection, which needs no token, for ever.
func TestContentThatNeverComes(t *testing.T) {
	for _, c := range []struct {
		name, head string
		want       string
		most       time.Duration
	}{
		{"refused", "POST /v1/purges HTTP/1.1\r\n", "401", unreadWait},
		{"health", "GET /healthz HTTP/1.1\r\n", "200", unreadWait},
		{"figures", "GET /metrics HTTP/1.1\r\nFastly-Key: " + secretOf("reader") + "\r\n", "200", unreadWait},
		{"JSON", "POST /v1/purges HTTP/1.1\r\nContent-Type: application/json\r\nFastly-Key: " + secretOf("purger") + "\r\n", "400", bodyWait + unreadWait},
		{"a push that is not right", "PUT /v1/objects HTTP/1.1\r\nFastly-Key: " + secretOf("pusher") + "\r\n", "400", unreadWait},
		{"a push", "PUT /v1/objects?url=http://a.example/1 HTTP/1.1\r\nFastly-Key: " + secretOf("pusher") + "\r\n", "400", bodyWait + unreadWait},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server, client := net.Pipe()
				s := &http.Server{Handler: new(fakeNode).handler(t, testTokens())}
				go s.Serve(&oneConn{conn: server, done: make(chan struct{})})
				defer s.Close()
				defer client.Close()
				began := time.Now()
				go client.Write([]byte(c.head + "Host: 127.0.0.1:9090\r\nContent-Length: 100\r\n\r\n"))
				client.SetReadDeadline(began.Add(time.Hour))
				answer := make([]byte, 12)
				if _, err := io.ReadFull(client, answer); err != nil || !strings.HasSuffix(string(answer), c.want) {
					t.Errorf("got %q, %v; want %s", answer, err, c.want)
				}
				if took := time.Since(began); took > c.most {
					t.Errorf("took %v, want at most %v", took, c.most)
				}
			})
		})
	}
}

// oneConn is a listener with one connection.
type oneConn struct {
	conn net.Conn
	once sync.Once
	done chan struct{}
}

func (l *oneConn) Accept() (net.Conn, error) {
	var conn net.Conn
	l.once.Do(func() { conn = l.conn })
	if conn != nil {
		return conn, nil
	}
	<-l.done
	return nil, net.ErrClosed
}

func (l *oneConn) Close() error   { close(l.done); return nil }
func (l *oneConn) Addr() net.Addr { return l.conn.LocalAddr() }
