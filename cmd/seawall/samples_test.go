package main

import (
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"seawall/wasm/examples/exampletest"
)

// sampleUse is a sample function on a site of its own, NAME.example.
type sampleUse struct {
	name, config string
	keys         []string
}

var sampleUses = []sampleUse{
	{name: "headers", config: "X-Frame-Options: DENY\n-X-Powered-By\ncors: https://app.example\ncors-headers: Authorization\n"},
	{name: "redirects", config: "/old /new\n/blog/* https://blog.example/* 308\n"},
	{name: "abtest", config: "variant: a 50\nvariant: b 50 /beta\n"},
	{name: "bots", config: "block ua=badbot\nchallenge path=/login ua=curl/\nblock asn=64501\nblock net=203.0.113.0/24\n"},
	{name: "geo", config: "languages: en de\nblock: 451 KP\nredirect: FR /fr/*\n"},
	{name: "signedurl", config: "key: links\npath: /private/\n", keys: []string{"links"}},
	{name: "jwt", config: "key: login\nissuer: https://login\naudience: shop\nheader: X-User sub\ncookie: session\nopen: /public/\n", keys: []string{"login"}},
}

// sampleStep is one exchange with a site: a request line, its fields, and what
// must come back: the status, then lines "Name: value" that are among the
// response's, "-Name" that is not, and "| text" that the content has.
type sampleStep struct{ sample, name, line, fields, want string }

var sampleSteps = []sampleStep{
	{"headers", "a page", "GET /p", "Origin: https://app.example",
		"200\nX-Frame-Options: DENY\n-X-Powered-By\nAccess-Control-Allow-Origin: https://app.example\n| GET /p"},
	{"headers", "the same, cached", "GET /p", "", "200\nX-Frame-Options: DENY\n-X-Powered-By\n-Access-Control-Allow-Origin\n| GET /p"},
	{"headers", "a preflight request", "OPTIONS /p", "Origin: https://app.example\nAccess-Control-Request-Method: GET",
		"204\nAccess-Control-Allow-Headers: Authorization\nAccess-Control-Allow-Methods: GET, HEAD, POST\nX-Frame-Options: DENY"},
	{"headers", "one from elsewhere", "OPTIONS /p", "Origin: https://evil.example\nAccess-Control-Request-Method: GET", "204\n-Access-Control-Allow-Origin"},
	{"redirects", "a page", "GET /p", "", "200\n| GET /p"},
	{"redirects", "an old one", "GET /old?x=1", "", "301\nLocation: /new?x=1\nCache-Control: max-age=3600"},
	{"redirects", "many", "GET /blog/a/b", "", "308\nLocation: https://blog.example/a/b"},
	{"abtest", "one variant", "GET /p", "Cookie: ab=a", "200\nVary: Cookie\n-Set-Cookie\n| GET /p\n| X-Ab: a"},
	{"abtest", "the other", "GET /p", "Cookie: ab=b", "200\nVary: Cookie\n-Set-Cookie\n| GET /beta/p\n| X-Ab: b"},
	{"abtest", "a client's own word", "GET /p", "Cookie: ab=b\nX-Ab: a", "200\n| GET /beta/p\n| X-Ab: b"},
	{"bots", "a browser", "GET /p", "User-Agent: Mozilla/5.0", "200\n| GET /p"},
	{"bots", "a robot", "GET /p", "User-Agent: BadBot/1.0", "403\nCache-Control: no-store"},
	{"bots", "a challenge", "GET /login", "User-Agent: curl/8", "200\n| X-Bot-Challenge: 1"},
	{"bots", "a network", "GET /p", "X-Forwarded-For: 192.0.2.1", "403"},
	{"bots", "an address", "GET /p", "X-Forwarded-For: 203.0.113.7", "403"},
	{"geo", "a country", "GET /p", "X-Forwarded-For: 10.0.0.1\nX-Country: KP", "200\n| X-Country: AT\n| X-Language: en"},
	{"geo", "a language", "GET /l", "X-Forwarded-For: 10.0.0.1\nAccept-Language: de-AT", "200\n| X-Country: AT\n| X-Language: de"},
	{"geo", "sent elsewhere", "GET /p?q", "X-Forwarded-For: 100.0.0.1", "302\nLocation: /fr/p?q"},
	{"geo", "kept out", "GET /p", "X-Forwarded-For: 150.0.0.1", "451\nCache-Control: no-store"},
	{"signedurl", "a page for all", "GET /p", "", "200\n| GET /p"},
	{"signedurl", "no link", "GET /private/p", "", "403\nCache-Control: no-store"},
	{"signedurl", "a link", "GET " + sampleLink("/private/p?expires=4000000000"), "", "200\n| GET /private/p\n| number 1"},
	{"signedurl", "another link to it", "GET " + sampleLink("/private/p?expires=4000000001"), "", "200\n| GET /private/p\n| number 1"},
	{"signedurl", "an old one", "GET " + sampleLink("/private/p?expires=1700000000"), "", "403\n| This link has expired."},
	{"signedurl", "a wrong one", "GET " + sampleLink("/private/p?expires=4000000000") + "0", "", "403"},
	{"jwt", "a page for all", "GET /public/p", "X-User: eve", "200\n| X-User: "},
	{"jwt", "no token", "GET /p", "", "401\nWWW-Authenticate: Bearer\nCache-Control: no-store"},
	{"bots", "none for others", "GET /login", "User-Agent: Mozilla/5.0\nX-Bot-Challenge: 1", "200\n| GET /login\n| X-Bot-Challenge: \n"},
}

// sampleModules are the samples, built once.
func sampleModules(t *testing.T) map[string][]byte {
	t.Helper()
	if raced {
		t.Skip("compiling a Go guest takes most of a minute under the race detector; other tests have small guests")
	}
	modules := make(map[string][]byte)
	for _, s := range sampleUses {
		modules[s.name] = exampletest.Go(t, s.name)
	}
	return modules
}

// TestSamples runs the sample functions in nodes, over each protocol.
func TestSamples(t *testing.T) {
	modules := sampleModules(t)
	dir := t.TempDir() // of both: what was compiled is there
	t.Run("by the API", func(t *testing.T) { runSampleSteps(t, sampleNode(t, dir, modules, false)) })
	for name := range modules {
		if err := os.Remove(filepath.Join(dir, "functions", name+".json")); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("by configuration", func(t *testing.T) {
		s := sampleNode(t, dir, modules, true)
		runSampleSteps(t, s)
		t.Run("variants", func(t *testing.T) { testVariants(t, s) })
		t.Run("tokens", func(t *testing.T) { testSampleTokens(t, s) })
		t.Run("two users", func(t *testing.T) { testTwoUsers(t, s) })
	})
}

// sampled is a node with the samples.
type sampled struct {
	*node
	admin  string
	origin *echoOrigin
	login  *sampleLogin
}

// echoOrigin answers with what it was asked, for caches to share, and counts.
type echoOrigin struct {
	mu    sync.Mutex
	asked map[string]int // by host and target, guarded by mu
}

func (o *echoOrigin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	o.asked[r.Host+r.RequestURI]++
	n := o.asked[r.Host+r.RequestURI]
	o.mu.Unlock()
	w.Header().Set("Cache-Control", "public, max-age=600")
	w.Header().Set("X-Powered-By", "a test")
	if strings.Contains(r.URL.Path, "/mine/") {
		w.Header().Set("Vary", "X-User")
	}
	fmt.Fprintf(w, "%s %s\nnumber %d\n", r.Method, r.RequestURI, n)
	for _, name := range []string{"Authorization", "Cookie", "X-Ab", "X-Bot-Challenge", "X-User", "X-Country", "X-Language"} {
		fmt.Fprintf(w, "%s: %s\n", name, r.Header.Get(name))
	}
}

// times is how often the origin was asked for a target of a sample's site.
func (o *echoOrigin) times(sample, target string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.asked[sample+".example"+target]
}

// sampleLimits are what functions may take on a busy machine.
const sampleLimits = "cpu: 50ms, start: 10s, wall: 30s, queue_wait: 1s"

// sampleNode starts a node with a site for each sample: from files, or with
// what is uploaded to it.
func sampleNode(t *testing.T, dir string, modules map[string][]byte, files bool) *sampled {
	t.Helper()
	s := &sampled{origin: &echoOrigin{asked: make(map[string]int)}, login: newSampleLogin(t)}
	origin := httptest.NewServer(s.origin)
	t.Cleanup(origin.Close)
	text := "functions:\n"
	for _, u := range sampleUses {
		text += "  " + u.name + ":\n    limits: {" + sampleLimits + "}\n"
		if !files {
			continue
		}
		file := filepath.Join(dir, u.name+".wasm")
		if err := os.WriteFile(file, modules[u.name], 0o600); err != nil {
			t.Fatal(err)
		}
		text += "    file: '" + file + "'\n    config: |\n      " + strings.ReplaceAll(strings.TrimSpace(u.config), "\n", "\n      ") + "\n"
		if len(u.keys) > 0 {
			text += "    keys: [" + strings.Join(u.keys, ", ") + "]\n"
		}
	}
	text += "geo: {database: '" + placesFile(t) + "', asn: '" + placesFile(t) + "'}\n" +
		"keys:\n  links: {secret: '" + linkSecret + "'}\n  login: {jwks: {url: '" + s.login.server.URL + "', unknown_kid: 1h}}\n" +
		"trusted_proxies: [127.0.0.0/8]\nsites:\n" +
		"  - {hosts: [both.example], origins: ['" + origin.URL + "'], host_header: client, functions: {viewer: [jwt, abtest]}}\n"
	for _, u := range sampleUses {
		text += "  - {hosts: [" + u.name + ".example], origins: ['" + origin.URL + "'], host_header: client, functions: {viewer: [" + u.name + "]}}\n"
	}
	made, err := parse(text)
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	made.Listen.HTTP, made.Listen.HTTPS, made.Log.Access, made.Cache.Memory = "127.0.0.1:0", "127.0.0.1:0", "off", 8*mib
	s.node, _, s.admin = administered(t, dir, made)
	s.login.ready(t, s)
	for _, u := range sampleUses {
		if files {
			continue
		}
		query := url.Values{"config": {u.config}, "keys": u.keys}
		if code, answer := call(t, "PUT", "http://"+s.admin+"/v1/functions/"+u.name+"?"+query.Encode(), modules[u.name]); code != 201 {
			t.Fatalf("upload of %s: got %d %v, want 201", u.name, code, answer)
		}
	}
	return s
}

// send makes one request of a sample's site, by TLS, and returns the answer
// with its content.
func (s *sampled) send(t testing.TB, c *http.Client, sample, line, fields string) (*http.Response, string) {
	t.Helper()
	res, body, err := s.ask(c, s.secureURL(), sample, line, fields)
	if err != nil {
		t.Fatalf("%s %s %s: %v after %q", sample, line, fields, err, body)
	}
	return res, body
}

func (s *sampled) ask(c *http.Client, base, sample, line, fields string) (*http.Response, string, error) {
	method, target, _ := strings.Cut(line, " ")
	r, err := http.NewRequest(method, base+target, nil)
	if err != nil {
		return nil, "", err
	}
	r.Host = sample + ".example"
	r.Header.Set("User-Agent", "test")
	for l := range strings.Lines(fields) {
		name, value, _ := strings.Cut(strings.TrimSpace(l), ": ")
		r.Header.Set(name, value)
	}
	res, err := c.Do(r)
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return res, string(body), err
}

// staying is a client that does not follow redirects.
func staying(c *http.Client) *http.Client {
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c
}

func runSampleSteps(t *testing.T, s *sampled) {
	eachProtocol(t, func(t *testing.T, proto string, c *http.Client) {
		staying(c)
		for _, step := range sampleSteps {
			res, body := s.send(t, c, step.sample, step.line, step.fields)
			if fault := sampleFault(res, body, step.want); fault != "" || res.Proto != proto {
				t.Errorf("%s, %s: %s %q by %s\ngot %d %v\n%s\nwant %s: %s", step.sample, step.name, step.line, step.fields, res.Proto,
					res.StatusCode, res.Header, body, step.want, fault)
			}
		}
	})
}

// sampleFault is the first line of want that does not hold, "" if all do.
func sampleFault(res *http.Response, body, want string) string {
	for i, l := range strings.Split(want, "\n") {
		holds := false
		text, content := strings.CutPrefix(l, "| ")
		without, gone := strings.CutPrefix(l, "-")
		switch name, value, _ := strings.Cut(l, ": "); {
		case i == 0:
			holds = fmt.Sprint(res.StatusCode) == l
		case l == "":
			holds = true
		case content:
			holds = strings.Contains("\n"+body, "\n"+text+"\n")
		case gone:
			holds = len(res.Header.Values(without)) == 0
		default:
			holds = slices.Contains(res.Header.Values(name), value)
		}
		if !holds {
			return l
		}
	}
	return ""
}

// testVariants holds abtest to its word: visitors keep their variant, chance
// parts them as the weights say, variants are cached apart, and a purge of the
// URL that visitors see takes all of them.
func testVariants(t *testing.T, s *sampled) {
	eachProtocol(t, func(t *testing.T, proto string, c *http.Client) {
		target := "/page-" + strings.ReplaceAll(proto, "/", "-") + "?q=1"
		const visitors = 400
		drawn := make(map[string]int)
		for range visitors {
			res, body := s.send(t, c, "abtest", "GET "+target, "")
			set, err := http.ParseSetCookie(res.Header.Get("Set-Cookie"))
			if err != nil || !set.Secure || set.SameSite != http.SameSiteLaxMode || set.Path != "/" || !slices.Contains(res.Header.Values("Cache-Control"), "private") {
				t.Fatalf("a new visitor: got %v %v, want a cookie that is Secure, SameSite=Lax, of all paths, and private", res.Header, err)
			}
			if shown := "\nX-Ab: " + set.Value + "\n"; !strings.Contains(body, shown) {
				t.Fatalf("a new visitor of variant %s sees\n%s", set.Value, body)
			}
			drawn[set.Value]++
		}
		if off := math.Abs(float64(drawn["a"]) - visitors/2); len(drawn) != 2 || off > 6*math.Sqrt(visitors/4) {
			t.Errorf("%d new visitors: got %v, want halves within the bound of chance", visitors, drawn)
		}
		shows := func(number int) {
			t.Helper()
			for variant, path := range map[string]string{"a": target, "b": "/beta" + target} {
				for range 3 {
					res, body := s.send(t, c, "abtest", "GET "+target, "Cookie: ab="+variant)
					want := fmt.Sprintf("GET %s\nnumber %d\n", path, number)
					if !strings.HasPrefix(body, want) || !strings.Contains(body, "X-Ab: "+variant) || len(res.Header.Values("Set-Cookie")) > 0 {
						t.Errorf("a visitor of %s: got %v\n%s\nwant %q and no cookie", variant, res.Header, body, want)
					}
				}
				if got := s.origin.times("abtest", path); got != number {
					t.Errorf("the origin was asked %d times for %s, want %d", got, path, number)
				}
			}
		}
		shows(1)
		// The variants are objects of one viewer's URL.
		done(t, "purge", "--node", s.admin, "https://abtest.example"+target)
		shows(2)
	})
}
