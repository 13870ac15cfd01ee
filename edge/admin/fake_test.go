package admin

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"seawall/edge"
	"seawall/purge"
)

// fakeNode is a node with the sites a and b, of the hosts a.example and
// b.example, and what it was asked to do. Validation is the real one.
type fakeNode struct {
	mu      sync.Mutex
	purged  []purge.Request    // guarded by mu
	keys    map[string]string  // ids by idempotency key; guarded by mu
	pushed  []edge.Push        // guarded by mu
	warmed  []string           // guarded by mu
	logged  bytes.Buffer       // guarded by mu
	only    []string           // the sites, if not both
	warming chan chan struct{} // told of each warm, which then waits; nil does not
	err     error              // of Apply
}

func (n *fakeNode) Write(b []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.logged.Write(b)
}

// did is how much was changed.
func (n *fakeNode) did() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.purged) + len(n.pushed) + len(n.warmed)
}

func (n *fakeNode) lines() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.logged.String()
}

func (n *fakeNode) sites() []string {
	if n.only != nil {
		return n.only
	}
	return []string{"a", "b"}
}

func (n *fakeNode) siteOf(host string) (string, bool) {
	if h, _, ok := strings.Cut(host, ":"); ok {
		host = h
	}
	for _, s := range n.sites() {
		if host == s+".example" {
			return s, true
		}
	}
	return "", false
}

func (n *fakeNode) normal(raw string) ([]purge.URL, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return nil, errors.New("is not absolute")
	}
	host := strings.ToLower(u.Host)
	if _, ok := n.siteOf(host); !ok {
		return nil, errors.New("has a host of no site")
	}
	return []purge.URL{{Scheme: u.Scheme, Host: host, Path: u.Path, Query: u.RawQuery}}, nil
}

func (n *fakeNode) apply(_ context.Context, r purge.Request, key string) (purge.Receipt, error) {
	if n.err != nil {
		return purge.Receipt{}, n.err
	}
	if _, errs := purge.Prepare(r, n.normal); len(errs) > 0 {
		return purge.Receipt{}, &purge.InvalidError{Fields: errs}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	said := fmt.Sprintf("%+v", r)
	if was, ok := n.keys[key]; ok && key != "" && was != said {
		return purge.Receipt{}, &purge.IdempotencyError{ID: "p1"}
	}
	if n.keys == nil {
		n.keys = make(map[string]string)
	}
	n.keys[key] = said
	n.purged = append(n.purged, r)
	return n.receipt(len(n.purged)), nil
}

func (n *fakeNode) receipt(i int) purge.Receipt {
	at := time.Unix(1e9, 0).UTC()
	return purge.Receipt{ID: fmt.Sprintf("p%d", i), Request: n.purged[i-1], AcceptedAt: at, AppliedAt: at.Add(time.Second), Node: "n1"}
}

func (n *fakeNode) find(id string) (purge.Receipt, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i := range n.purged {
		if r := n.receipt(i + 1); r.ID == id {
			return r, true
		}
	}
	return purge.Receipt{}, false
}

func (n *fakeNode) recent(most int) (all []purge.Receipt) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i := len(n.purged); i > 0 && len(all) < most; i-- {
		all = append(all, n.receipt(i))
	}
	return all
}

func (n *fakeNode) push(_ context.Context, p edge.Push) (edge.Pushed, error) {
	text, err := io.ReadAll(p.Body)
	if err != nil {
		return edge.Pushed{}, err
	}
	if p.Header.Get("Cache-Control") == "private" {
		return edge.Pushed{}, &edge.PushError{Field: "Cache-Control", Detail: "may not be stored: private", Status: 422}
	}
	p.Body = strings.NewReader(string(text))
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pushed = append(n.pushed, p)
	return edge.Pushed{Key: p.URL, Status: p.Status, Size: int64(len(text)), TTL: time.Minute}, nil
}

func (n *fakeNode) warm(ctx context.Context, raw string) (edge.Warmed, error) {
	if n.warming != nil {
		release := make(chan struct{})
		select {
		case n.warming <- release:
			<-release
		case <-ctx.Done():
			return edge.Warmed{}, ctx.Err()
		}
	}
	if strings.HasSuffix(raw, "/panic") {
		panic("as told")
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.warmed = append(n.warmed, raw)
	if strings.HasSuffix(raw, "/gone") {
		return edge.Warmed{URL: raw, Outcome: "miss", Status: 410}, nil
	}
	return edge.Warmed{URL: raw, Outcome: "miss", Status: 200, Bytes: 10, Stored: true}, nil
}

// handler returns the admin API over n, with these tokens.
func (n *fakeNode) handler(t *testing.T, a Access) *Handler {
	t.Helper()
	h := newHandler(t, Config{
		Log:    slog.New(slog.NewTextHandler(n, nil)),
		Purges: Purges{Apply: n.apply, Recent: n.recent, Find: n.find, Figures: func() PurgeFigures { return PurgeFigures{} }},
		Cache: Cache{
			Normal: n.normal, SiteOf: n.siteOf, Sites: n.sites, Push: n.push, Warm: n.warm, MaxObject: 1000,
			Stored: func(raw string) ([]edge.Stored, error) {
				return []edge.Stored{{URL: raw, Tags: []string{"t"}, Codings: []edge.StoredCoding{{Coding: "br", Size: 1}}, Tier: "memory"}}, nil
			},
			Match: func(_ context.Context, p *purge.Prepared) (edge.Match, error) {
				if p.Matches(&purge.Subject{Site: "a", Tags: []string{"known"}}) {
					return edge.Match{Objects: 2, Bytes: 30, Sample: []string{"http://a.example/1"}}, nil
				}
				return edge.Match{}, nil
			},
		},
	})
	h.Permit(a)
	t.Cleanup(h.Close)
	return h
}

// The tokens of the tests, by name: of sixteen characters, as they must be.
func testTokens() Access {
	token := func(name string, scopes Scope, sites ...string) Token {
		return Token{Name: name, Hash: sha256.Sum256([]byte(secretOf(name))), Scopes: scopes, Sites: sites}
	}
	return Access{Tokens: []Token{
		token("reader", ScopeRead), token("purger", ScopePurge), token("pusher", ScopePush), token("chief", ScopeAdmin),
		token("bound", ScopeRead|ScopePurge|ScopePush, "a"),
	}}
}

func secretOf(name string) string { return "secret-of-" + name + "-0123456789" }

// askBody asks h, as JSON from this machine unless change says otherwise.
func askBody(h http.Handler, method, path, body string, change func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.RemoteAddr, r.Host = "127.0.0.1:5000", "127.0.0.1:9090"
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// as carries a token by name in the field that is usual.
func as(name string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+secretOf(name)) }
}

// all changes by each.
func all(changes ...func(*http.Request)) func(*http.Request) {
	return func(r *http.Request) {
		for _, change := range changes {
			change(r)
		}
	}
}

func field(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Add(name, value) }
}
