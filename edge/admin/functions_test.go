package admin

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"seawall/purge"
	"seawall/wasm"
)

// fakeFunctions are the functions one, of the site a, and two, of none, and
// what was put or removed.
type fakeFunctions struct {
	mu      sync.Mutex
	put     []FunctionUpload // guarded by mu
	removed []string         // guarded by mu
	rolled  []rolled         // guarded by mu
	other   *Function        // the candidate of one
	logged  bytes.Buffer     // guarded by mu
	err     error
}

func (n *fakeFunctions) Write(b []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.logged.Write(b)
}

func (n *fakeFunctions) handler(t *testing.T, a Access) *Handler {
	t.Helper()
	one := Function{Name: "one", SHA256: "abc", Size: 7, ABI: "http-wasm", Mode: "reset", OnError: "open", Uploaded: true, At: time.Unix(1e9, 0).UTC(), Sites: []string{"a", "b"}}
	one.Upstreams, one.Keys, one.Maps = []string{"u"}, []string{"k"}, []string{"m"}
	one.Stats.Breaker, one.Stats.Machines = "open", 2
	one.Stats.Stages[0] = wasm.StageStats{Calls: 5, Duration: time.Second, Fuel: 9, Traps: map[string]int64{"cpu": 2, "busy": 1}}
	one.Percent, one.Candidate = 100, n.other
	h := newHandler(t, Config{
		Log: slog.New(slog.NewTextHandler(n, nil)),
		Functions: Functions{
			List: func() []Function { return []Function{one, {Name: "two", Why: "no module", File: "/x"}} },
			Put: func(_ context.Context, u FunctionUpload) (Function, bool, error) {
				n.mu.Lock()
				defer n.mu.Unlock()
				n.put = append(n.put, u)
				f := one
				f.Name = u.Name
				return f, u.Name != "one", n.err
			},
			Remove: func(_ context.Context, name string) error {
				n.mu.Lock()
				defer n.mu.Unlock()
				n.removed = append(n.removed, name)
				return n.err
			},
			Roll: func(_ context.Context, name string, r Rollout) (Function, error) {
				n.mu.Lock()
				defer n.mu.Unlock()
				n.rolled = append(n.rolled, rolled{name, "roll", r})
				return one, n.err
			},
			Promote: func(_ context.Context, name string) (Function, error) {
				n.mu.Lock()
				defer n.mu.Unlock()
				n.rolled = append(n.rolled, rolled{name, "promote", Rollout{}})
				return one, n.err
			},
			Rollback: func(_ context.Context, name string) (Function, error) {
				n.mu.Lock()
				defer n.mu.Unlock()
				n.rolled = append(n.rolled, rolled{name, "rollback", Rollout{}})
				return one, n.err
			},
			Figures:   func() map[string]wasm.Stats { return map[string]wasm.Stats{"one": one.Stats} },
			MaxModule: 100,
		},
	})
	h.Permit(a)
	t.Cleanup(h.Close)
	return h
}

func functionTokens() Access {
	a := testTokens()
	for name, sites := range map[string][]string{"deployer": nil, "tenant": {"a"}} {
		a.Tokens = append(a.Tokens, Token{Name: name, Hash: sha256.Sum256([]byte(secretOf(name))), Scopes: ScopeFunctions, Sites: sites})
	}
	return a
}

func TestFunctionCalls(t *testing.T) {
	sized := func(n int64) func(*http.Request) { return func(r *http.Request) { r.ContentLength = n } }
	refusal := &FunctionError{Status: 422, Detail: "Not taken.", Fields: []*purge.FieldError{{Field: "module", Detail: "it imports env.secret"}}}
	for _, c := range []struct {
		name, method, path, body string
		change                   func(*http.Request)
		err                      error
		code                     int
		want                     string
		did                      int // puts and removals
	}{
		{"a list", "GET", "", "", as("reader"), nil, 200, `"name":"two","state":"absent","detail":"no module","source":"file","file":"/x"`, 0},
		{"its figures", "GET", "/one", "", as("deployer"), nil, 200, `"viewer_request":{"calls":5,"seconds":1,"fuel":9,"traps":{"busy":1,"cpu":2}}`, 0},
		{"what it was given, by name", "GET", "/one", "", as("deployer"), nil, 200, `"upstreams":["u"],"keys":["k"],"maps":["m"]`, 0},
		{"an unknown one", "GET", "/three", "", as("reader"), nil, 404, "no function", 0},
		{"of a bound token, its sites alone", "GET", "/one", "", as("tenant"), nil, 200, `"sites":["a"]`, 0},
		{"not of others", "GET", "/two", "", as("tenant"), nil, 404, "no function", 0},
		{"without a token", "PUT", "/one", "m", nil, nil, 401, "needs a token", 0},
		{"without the scope", "PUT", "/one", "m", as("pusher"), nil, 403, "the scope functions", 0},
		{"read is not enough", "DELETE", "/one", "", as("reader"), nil, 403, "the scope functions", 0},
		{"bound to sites", "PUT", "/one", "m", as("tenant"), nil, 403, "of the whole node", 0},
		{"bound to sites, to remove", "DELETE", "/one", "", as("tenant"), nil, 403, "of the whole node", 0},
		{"a swap", "PUT", "/one?mode=reset&limits.cpu=5ms", "module", as("deployer"), nil, 200, `"sha256":"abc"`, 1},
		{"a new one", "PUT", "/new", "module", as("chief"), nil, 201, `"name":"new"`, 1},
		{"too large by its length", "PUT", "/one", "m", all(as("deployer"), sized(101)), nil, 413, "100 bytes", 0},
		{"too large by its content", "PUT", "/one", strings.Repeat("m", 101), all(as("deployer"), sized(-1)), nil, 413, "100 bytes", 0},
		{"as large as may be", "PUT", "/one", strings.Repeat("m", 100), as("deployer"), nil, 200, "abc", 1},
		{"empty", "PUT", "/one", "", as("deployer"), nil, 400, "is empty", 0},
		{"coded", "PUT", "/one", "m", all(as("deployer"), field("Content-Encoding", "gzip")), nil, 415, "identity", 0},
		{"a query that is none", "PUT", "/one?a=%zz", "m", as("deployer"), nil, 400, "percent-encoded", 0},
		{"refused", "PUT", "/one", "m", as("deployer"), refusal, 422, `{"field":"module","detail":"it imports env.secret"}`, 1},
		{"not kept", "PUT", "/one", "m", as("deployer"), errors.New("disk full at /secret"), 500, "log says why", 1},
		{"removed", "DELETE", "/one", "", as("deployer"), nil, 204, "", 1},
		{"not removed", "DELETE", "/one", "", as("deployer"), &FunctionError{Status: 409, Detail: "A site runs it."}, 409, "A site runs it.", 1},
		{"while ending", "DELETE", "/one", "", as("deployer"), &FunctionError{Status: 503, Detail: "Ending."}, 503, "Ending.", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := &fakeFunctions{err: c.err}
			h := n.handler(t, functionTokens())
			w := askBody(h, c.method, "/v1/functions"+c.path, c.body, c.change)
			if w.Code != c.code || !strings.Contains(w.Body.String(), c.want) || strings.Contains(w.Body.String(), "/secret") {
				t.Errorf("%s %s: got %d %s, want %d and %s", c.method, c.path, w.Code, w.Body, c.code, c.want)
			}
			if got := len(n.put) + len(n.removed); got != c.did {
				t.Errorf("%d changes, want %d", got, c.did)
			}
			if audited := strings.Contains(n.logged.String(), "audit=true"); audited != (c.method != "GET") {
				t.Errorf("an audit line: %v (%s)", audited, n.logged.String())
			}
		})
	}
}

// The module and the settings arrive as they were sent; the audit names
// settings and not their values.
func TestFunctionUploadIsAsSent(t *testing.T) {
	n := new(fakeFunctions)
	w := askBody(n.handler(t, Access{}), "PUT", "/v1/functions/one?config=top-secret&upstreams=a&upstreams=b", "\x00asm", nil)
	want := FunctionUpload{"one", []byte("\x00asm"), map[string][]string{"config": {"top-secret"}, "upstreams": {"a", "b"}}}
	if w.Code != 200 || len(n.put) != 1 || !reflect.DeepEqual(n.put[0], want) {
		t.Errorf("got %d %+v, want %+v", w.Code, n.put, want)
	}
	if text := n.logged.String(); !strings.Contains(text, "settings=config,upstreams sha256=abc") || strings.Contains(text, "top-secret") {
		t.Errorf("the audit says %s", text)
	}
}

// A node without functions says so.
func TestNoFunctions(t *testing.T) {
	h := newHandler(t, Config{})
	for _, c := range [][2]string{{"GET", ""}, {"GET", "/a"}, {"PUT", "/a"}, {"DELETE", "/a"}, {"POST", "/a/rollout"}, {"POST", "/a/promote"}, {"POST", "/a/rollback"}} {
		if w := askBody(h, c[0], "/v1/functions"+c[1], "m", nil); w.Code != 501 {
			t.Errorf("%s %s: got %d, want 501", c[0], c[1], w.Code)
		}
	}
}

// slowModule is content that comes when it is let.
type slowModule struct{ came, may chan struct{} }

func (s *slowModule) Read([]byte) (int, error) {
	s.came <- struct{}{}
	<-s.may
	return 0, io.ErrUnexpectedEOF
}

// Uploads that are being read are few; others wait, and leave with their
// callers.
func TestUploadsAreBounded(t *testing.T) {
	n := new(fakeFunctions)
	h := n.handler(t, Access{})
	slow := &slowModule{make(chan struct{}), make(chan struct{})}
	put := func(ctx context.Context) int {
		r := httptest.NewRequestWithContext(ctx, "PUT", "/v1/functions/one", slow)
		r.RemoteAddr, r.Host = "127.0.0.1:5000", "127.0.0.1:9090"
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code
	}
	var wait sync.WaitGroup
	for range maxUploads {
		wait.Go(func() {
			if code := put(context.Background()); code != 400 {
				t.Errorf("content that broke off: got %d, want 400", code)
			}
		})
		<-slow.came
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if code := put(ctx); code != 503 {
		t.Errorf("one more, whose caller left: got %d, want 503", code)
	}
	close(slow.may)
	wait.Wait()
	if len(n.put) != 0 {
		t.Errorf("%d were taken", len(n.put))
	}
}

// timed notes how long content may be awaited.
type timed struct {
	*httptest.ResponseRecorder
	until time.Time
}

func (b *timed) SetReadDeadline(t time.Time) error {
	b.until = t
	return nil
}

// An upload that waits for its place has no bound meanwhile: HTTP/2 ends
// content for good when one passes.
func TestUploadThatWaitsHasTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := new(fakeFunctions).handler(t, Access{})
		for range maxUploads {
			h.uploads <- struct{}{}
		}
		r := httptest.NewRequest("PUT", "/v1/functions/one", strings.NewReader("module"))
		r.RemoteAddr, r.Host = "127.0.0.1:5000", "127.0.0.1:9090"
		w := &timed{ResponseRecorder: httptest.NewRecorder()}
		go h.ServeHTTP(w, r)
		synctest.Wait()
		if !w.until.IsZero() {
			t.Errorf("while it waits: content is bound to come within %v", time.Until(w.until))
		}
		<-h.uploads
		synctest.Wait()
		if w.Code != 200 {
			t.Errorf("with a place: got %d %s, want 200", w.Code, w.Body)
		}
	})
}

// trickle is content that comes byte by byte, each well within bodyWait.
type trickle struct{}

func (trickle) Read(b []byte) (int, error) {
	<-time.After(bodyWait - time.Second)
	return copy(b[:1], "x"), nil
}

// Content that comes too slowly gives its place back.
func TestSlowUploadEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(fakeFunctions)
		h, began := n.handler(t, Access{}), time.Now()
		r := httptest.NewRequest("PUT", "/v1/functions/one", trickle{})
		r.RemoteAddr, r.Host = "127.0.0.1:5000", "127.0.0.1:9090"
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if took := time.Since(began); w.Code != 400 || !strings.Contains(w.Body.String(), "too slowly") || took > uploadWait+bodyWait || len(n.put) != 0 {
			t.Errorf("got %d %s after %v, want 400 within %v", w.Code, w.Body, took, uploadWait+bodyWait)
		}
	})
}

func TestFunctionMetrics(t *testing.T) {
	w := askBody(new(fakeFunctions).handler(t, Access{}), "GET", "/metrics", "", nil)
	for _, want := range []string{
		`seawall_function_calls_total{function="one",stage="viewer_request"} 5`,
		`seawall_function_traps_total{function="one",stage="viewer_request"} 3`,
		`seawall_function_failures_total{function="one",kind="cpu",stage="viewer_request"} 2`,
		`seawall_function_duration_seconds_sum{function="one",stage="viewer_request"} 1`,
		`seawall_function_duration_seconds_count{function="one",stage="viewer_request"} 5`,
		`seawall_function_fuel_total{function="one",stage="viewer_request"} 9`,
		`seawall_function_instances{function="one"} 2`,
		`seawall_function_breaker_open{function="one"} 1`,
	} {
		if !strings.Contains(w.Body.String(), want+"\n") {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(w.Body.String(), `stage="origin_request"`) {
		t.Error("a stage that the function never ran at has figures")
	}
}
