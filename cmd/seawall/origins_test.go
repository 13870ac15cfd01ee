package main

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"seawall/origin"
)

// configured is a configuration with free ports and no access log.
func configured(t *testing.T, text string, args ...any) *settings {
	t.Helper()
	s, err := parse(fmt.Sprintf(text, args...))
	if err != nil {
		t.Fatalf("%s\n%v", text, err)
	}
	s.Listen.HTTP, s.Listen.HTTPS, s.Listen.Admin, s.Log.Access = "127.0.0.1:0", "", "127.0.0.1:0", "off"
	s.Cache.Memory = 8 * mib
	return s
}

// nodeOf runs a node within the test. front and side are the URLs of what it
// serves and of its admin API.
func nodeOf(t *testing.T, s *settings) (n *node, front, side string) {
	t.Helper()
	d, err := openData("")
	if err != nil {
		t.Fatal(err)
	}
	if n, err = newNode(s, d, &terminal{io.Discard, new(output)}); err != nil {
		t.Fatal(err)
	}
	ends := n.serve()
	t.Cleanup(func() {
		n.close()
		for range 2 {
			if err := <-ends; err != nil {
				t.Errorf("serve: %v", err)
			}
		}
	})
	return n, n.clearURL(), shownURL("http", n.side.Addrs()[0])
}

// originServer is an origin that says its name, and the request's protocol.
func originServer(t *testing.T, name string, protocols *http.Protocols) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		if strings.HasPrefix(r.URL.Path, "/private/") {
			w.Header().Set("Cache-Control", "private")
		}
		w.Header().Set("Server-Name", name)
		fmt.Fprintf(w, "%s %s %s", name, r.Proto, r.Host)
	}))
	s.Config.Protocols = protocols
	s.Start()
	t.Cleanup(s.Close)
	return s
}

func inClear() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetUnencryptedHTTP2(true)
	return p
}

// exchanged sends a request by c, or fails the test.
func exchanged(t *testing.T, c *http.Client, r *http.Request) (*http.Response, string) {
	t.Helper()
	res, err := c.Do(r)
	if err != nil {
		t.Fatalf("%s %s: %v", r.Method, r.URL, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", r.Method, r.URL, err)
	}
	return res, string(body)
}

func request(method, url string, kv ...string) *http.Request {
	r := httptest.NewRequest(method, url, nil)
	r.RequestURI = ""
	for i := 0; i < len(kv); i += 2 {
		r.Header.Set(kv[i], kv[i+1])
	}
	return r
}

func newClient(t *testing.T) *http.Client {
	tr := &http.Transport{MaxIdleConnsPerHost: 32}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second}
}

// No client sees an error of a GET while one of two origins ends in the middle
// of its answers.
func TestKilledOriginIsNotSeen(t *testing.T) {
	a, b := originServer(t, "a", nil), originServer(t, "b", nil)
	n, front, _ := nodeOf(t, configured(t, "sites: [{origins: [%q, %q], cache: {bypass: true}}]", a.URL, b.URL))
	c := newClient(t)
	var served [2]atomic.Int64 // by a, by b
	var clients sync.WaitGroup
	const all = 800
	var begun atomic.Int64
	for range 8 {
		clients.Go(func() {
			for {
				i := begun.Add(1)
				if i > all {
					return
				}
				if i == all/4 {
					a.Listener.Close()
					a.CloseClientConnections()
				}
				res, err := c.Do(request("GET", fmt.Sprintf("%s/%d", front, i)))
				if err != nil {
					t.Errorf("request %d: %v", i, err)
					return
				}
				body, err := io.ReadAll(res.Body)
				res.Body.Close()
				if err != nil || res.StatusCode != 200 {
					t.Errorf("request %d: got %d %q %v (%v), want 200", i, res.StatusCode, body, err, res.Header)
					return
				}
				served[strings.Index("ab", string(body[:1]))].Add(1)
			}
		})
	}
	clients.Wait()
	if served[0].Load() == 0 || served[1].Load() < all/2 {
		t.Errorf("a served %d and b %d; want some by a, and all after its end by b", served[0].Load(), served[1].Load())
	}
	for _, s := range n.origins()["default"].Servers {
		if down := s.State != "healthy" || s.Breaker != "closed"; down != (s.URL == a.URL) {
			t.Errorf("%s is %s with its breaker %s", s.URL, s.State, s.Breaker)
		}
	}
}

// The API takes a server out and puts it back, also across reloads that make
// the pool anew; never the last one.
func TestDrainByAPI(t *testing.T) {
	a, b := originServer(t, "a", nil), originServer(t, "b", nil)
	const text = "sites:\n- origins: [{url: %q, name: one}, {url: %q, name: two}]\n  cache: {bypass: true}\n  health: {slow_start: off}\n  timeouts: {header: %s}\n"
	n, front, side := nodeOf(t, configured(t, text, a.URL, b.URL, "5s"))
	c := newClient(t)
	used := func() string {
		seen := map[string]bool{}
		for range 8 {
			res, _ := exchanged(t, c, request("GET", front+"/"))
			seen[res.Header.Get("Server-Name")] = true
		}
		return fmt.Sprint(seen)
	}
	call := func(method, path string, code int, want string) {
		t.Helper()
		res, body := exchanged(t, c, request(method, side+path))
		if res.StatusCode != code || !strings.Contains(body, want) {
			t.Errorf("%s %s: got %d %s, want %d with %s", method, path, res.StatusCode, body, code, want)
		}
	}
	both := "map[a:true b:true]"
	if got := used(); got != both {
		t.Errorf("at first: used %s, want %s", got, both)
	}
	call("POST", "/v1/origins/one/drain", 200, `"state":"draining"`)
	call("POST", "/v1/origins/one/drain", 200, `"state":"draining"`)
	if got := used(); got != "map[b:true]" {
		t.Errorf("with one drained: used %s, want b alone", got)
	}
	call("POST", "/v1/origins/two/drain", 409, "last of default")
	call("POST", "/v1/origins/three/drain", 404, "no server")
	before := n.current.Load().pools["default"]
	if err := n.reload(configured(t, text, a.URL, b.URL, "6s")); err != nil {
		t.Fatal(err)
	}
	if n.current.Load().pools["default"] == before {
		t.Error("the pool was not made anew")
	}
	if got := used(); got != "map[b:true]" {
		t.Errorf("after a reload: used %s, want b alone", got)
	}
	call("GET", "/v1/origins", 200, `"name":"one","url":"`+a.URL+`","protocol":"h1","state":"draining"`)
	call("POST", "/v1/origins/one/resume", 200, `"state":"healthy"`)
	if got := used(); got != both {
		t.Errorf("resumed: used %s, want %s", got, both)
	}
	call("GET", "/metrics", 200, `seawall_origin_server_state{origin="default",server="two",state="healthy"} 1`)
}

// A server that is drained wherever it was is drained where a reload brings it;
// what one pool alone has drained is not.
func TestDrainReachesPoolsOfAReload(t *testing.T) {
	const text = "sites: [{origins: ['http://a', 'http://b'], routes: [{prefix: /x, origins: ['http://a', 'http://b', 'http://c']}%s]}]"
	n, _, _ := nodeOf(t, configured(t, text, ""))
	for server, pools := range map[string][]string{"a": {"default", "default/x"}, "b": {"default/x"}} {
		if err := n.drainOrigin(server, pools, true); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.reload(configured(t, text, ", {prefix: /y, origins: ['http://a', 'http://b', 'http://d']}")); err != nil {
		t.Fatal(err)
	}
	for _, s := range n.current.Load().pools["default/y"].Stats().Servers {
		if want := s.Name == "a"; (s.State == "draining") != want {
			t.Errorf("%s in the pool that is new: %s, want it drained: %v", s.Name, s.State, want)
		}
	}
}

// A drain of several pools is done in all of them or in none.
func TestDrainIsWholeOrNot(t *testing.T) {
	n, _, _ := nodeOf(t, configured(t, "sites: [{origins: ['http://a', 'http://b'], routes: [{prefix: /x, origins: ['http://a', 'http://b']}]}]"))
	state := func() (all string) {
		for _, o := range n.listOrigins() {
			for _, s := range o.Servers {
				all += o.Name + " " + s.Name + " " + s.State + ", "
			}
		}
		return all
	}
	before := state()
	for _, names := range [][]string{{"default", "gone"}, {"default", "default/x"}} {
		if names[1] == "default/x" {
			if err := n.drainOrigin("b", names[1:], true); err != nil {
				t.Fatal(err)
			}
			before = state()
		}
		if err := n.drainOrigin("a", names, true); err == nil {
			t.Errorf("drain in %v: no error", names)
		}
		if got := state(); got != before {
			t.Errorf("drain in %v failed\ngot  %s\nwant %s", names, got, before)
		}
	}
}

// More than an origin may have at once is refused with the time to stay away.
func TestFullPoolAnswers503(t *testing.T) {
	from, asked, answer := held(t)
	_, front, _ := nodeOf(t, configured(t, "sites: [{origins: [%q], pool: {max_in_flight: 1, queue: 1, queue_wait: 1ms}}]", from))
	first := make(chan string, 1)
	go func() {
		_, body := get(front + "/held")
		first <- body
	}()
	<-asked
	for _, method := range []string{"GET", "POST"} {
		res, body := exchanged(t, newClient(t), request(method, front+"/other"))
		if res.StatusCode != 503 || res.Header.Get("Retry-After") != "2" || res.Header.Get("Proxy-Status") != "seawall; error=connection_limit_reached" {
			t.Errorf("%s: got %d %q %v, want 503 with Retry-After", method, res.StatusCode, body, res.Header)
		}
	}
	close(answer)
	if body := <-first; body != "at last" {
		t.Errorf("the request that had the place: got %q", body)
	}
}

func TestRoutesByPrefix(t *testing.T) {
	a, b, c := originServer(t, "a", nil), originServer(t, "b", nil), originServer(t, "c", inClear())
	_, front, side := nodeOf(t, configured(t, `
sites:
- name: shop
  origins: [%q]
  host_header: origin
  routes:
  - {prefix: /api, origins: [%q]}
  - {prefix: /api/v2/, origins: [{url: %q, protocol: h2c}], host_header: v2.example}
`, a.URL, b.URL, c.URL))
	for path, want := range map[string]string{
		"/": "a HTTP/1.1 127.0.0.1", "/apis": "a ", "/x/api": "a ", "/api": "b HTTP/1.1 127.0.0.1", "/api?q": "b ", "/api/x": "b ", "/x/../api/y": "b ", "/api/v2x": "b ",
		"/api/v2": "c HTTP/2.0 v2.example", "/api/v2/x": "c ", "/%61pi/x": "b ",
	} {
		expect(t, front+path, 200, "fwd=uri-miss", want)
	}
	res, body := exchanged(t, newClient(t), request("GET", side+"/v1/origins"))
	var list struct {
		Origins []struct {
			Name, Site, Prefix string
			Requests           int
		}
	}
	if err := json.Unmarshal([]byte(body), &list); err != nil || res.StatusCode != 200 {
		t.Fatalf("%d %s: %v", res.StatusCode, body, err)
	}
	if got, want := fmt.Sprint(list.Origins), "[{shop shop / 3} {shop/api shop /api 6} {shop/api/v2 shop /api/v2 2}]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// A call in the manner of gRPC: HTTP/2 in clear from the client and to the
// origin, content both ways at once, trailers behind.
func TestTrailersThroughHTTP2(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		w.WriteHeader(200)
		http.NewResponseController(w).Flush()
		part := make([]byte, 4)
		for {
			if _, err := io.ReadFull(r.Body, part); err != nil {
				break
			}
			fmt.Fprintf(w, "%s %s %s;", r.Proto, r.Header.Get("Te"), part)
			http.NewResponseController(w).Flush()
		}
		w.Header().Set("Grpc-Status", "0")
		w.Header().Set(http.TrailerPrefix+"Grpc-Message", "done")
	}))
	s.Config.Protocols = inClear()
	s.Start()
	t.Cleanup(s.Close)
	_, front, _ := nodeOf(t, configured(t, "sites: [{origins: [{url: %q, protocol: h2c}]}]", s.URL))
	only := new(http.Protocols)
	only.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: only}
	defer tr.CloseIdleConnections()
	read, write := io.Pipe()
	r := request("POST", front+"/svc/Call", "Content-Type", "application/grpc", "Te", "trailers")
	r.Body = read
	res, err := (&http.Client{Transport: tr, Timeout: 20 * time.Second}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	for _, part := range []string{"ping", "pong"} {
		if _, err := io.WriteString(write, part); err != nil {
			t.Fatal(err)
		}
		want := "HTTP/2.0 trailers " + part + ";"
		got := make([]byte, len(want))
		if _, err := io.ReadFull(res.Body, got); err != nil || string(got) != want {
			t.Fatalf("after %s: got %q, %v; want %q", part, got, err, want)
		}
	}
	write.Close()
	if rest, err := io.ReadAll(res.Body); err != nil || len(rest) > 0 {
		t.Errorf("at the end: got %q, %v", rest, err)
	}
	if res.ProtoMajor != 2 || res.Trailer.Get("Grpc-Status") != "0" || res.Trailer.Get("Grpc-Message") != "done" {
		t.Errorf("got %s with trailers %v, want HTTP/2.0 with Grpc-Status 0 and Grpc-Message done", res.Proto, res.Trailer)
	}
}

// The cookie keeps a client at one server for what is not stored, and is never
// in what is.
func TestStickyClients(t *testing.T) {
	a, b := originServer(t, "a", nil), originServer(t, "b", nil)
	_, front, _ := nodeOf(t, configured(t, `
sites:
- origins: [%q, %q]
  balance: {sticky: {cookie: server}}
  cache: {set_cookie: store, rules: [{path: "/account/*", bypass: true}]}
`, a.URL, b.URL))
	seen := map[string]bool{}
	for range 4 {
		jar, err := cookiejar.New(nil)
		if err != nil {
			t.Fatal(err)
		}
		c := newClient(t)
		c.Jar = jar
		var had string
		for i, method := range []string{"GET", "GET", "POST", "GET", "POST"} {
			res, _ := exchanged(t, c, request(method, front+"/account/x"))
			if set := res.Header.Get("Set-Cookie") != ""; set != (i == 0) {
				t.Errorf("request %d: Set-Cookie %q", i, res.Header["Set-Cookie"])
			}
			if at := res.Header.Get("Server-Name"); i > 0 && at != had {
				t.Errorf("request %d, a %s: went from %s to %s", i, method, had, at)
			}
			had = res.Header.Get("Server-Name")
		}
		seen[had] = true
		if jar, err = cookiejar.New(nil); err != nil { // private pages, which a fill brings first
			t.Fatal(err)
		}
		c.Jar = jar
		for i := range 4 {
			res, _ := exchanged(t, c, request("GET", front+"/private/x"))
			if at := res.Header.Get("Server-Name"); (res.Header.Get("Set-Cookie") != "") != (i == 0) || i > 0 && at != had {
				t.Errorf("private request %d: at %s after %s, Set-Cookie %q", i, at, had, res.Header["Set-Cookie"])
			}
			had = res.Header.Get("Server-Name")
		}
		for range 2 {
			if res, _ := exchanged(t, newClient(t), request("GET", front+"/page")); res.Header.Get("Set-Cookie") != "" {
				t.Errorf("what is stored has %q", res.Header["Set-Cookie"])
			}
		}
	}
	if len(seen) != 2 {
		t.Errorf("four clients went to %v, want both", seen)
	}
}

// A site and its routes, whose cookie has one name, do not make a client forget
// the server that it has at the other.
func TestStickyClientsOfRoutes(t *testing.T) {
	a, b, c, d := originServer(t, "a", nil), originServer(t, "b", nil), originServer(t, "c", nil), originServer(t, "d", nil)
	_, front, _ := nodeOf(t, configured(t, `
sites:
- origins: [%q, %q]
  balance: {sticky: {cookie: server}}
  cache: {bypass: true}
  routes: [{prefix: /api, origins: [%q, %q]}]
`, a.URL, b.URL, c.URL, d.URL))
	for client := range 3 {
		jar, err := cookiejar.New(nil)
		if err != nil {
			t.Fatal(err)
		}
		cl := newClient(t)
		cl.Jar = jar
		had := map[string]string{}
		for i, path := range []string{"/", "/api/x", "/", "/api", "/y", "/api/x", "/api/z"} {
			pool := path[:min(len(path), 2)] == "/a"
			res, _ := exchanged(t, cl, request("GET", front+path))
			at, key := res.Header.Get("Server-Name"), fmt.Sprint(pool)
			if was := had[key]; was != "" && was != at {
				t.Errorf("client %d, request %d, %s: went from %s to %s", client, i, path, was, at)
			}
			had[key] = at
		}
	}
}

// The cache key and the client's address reach the balancing.
func TestBalanceByKeyAndClient(t *testing.T) {
	a, b := originServer(t, "a", nil), originServer(t, "b", nil)
	const text = "trusted_proxies: [127.0.0.0/8]\nsites: [{origins: [%q, %q], balance: %s, cache: {bypass: true, query: {drop: [utm_x]}}}]"
	c := newClient(t)
	for _, by := range []string{"key_hash", "client_hash"} {
		_, front, _ := nodeOf(t, configured(t, text, a.URL, b.URL, by))
		seen := map[string]bool{}
		for i := range 24 {
			var had string
			for j := range 4 {
				r := request("GET", fmt.Sprintf("%s/?n=%d&utm_x=%d", front, i, j), "X-Forwarded-For", fmt.Sprintf("192.0.2.%d", j))
				r.Host = []string{"a.example", "A.example", "a.EXAMPLE", "A.Example"}[j] // one name, and one key
				if by == "client_hash" {
					r = request("GET", fmt.Sprintf("%s/%d", front, j), "X-Forwarded-For", fmt.Sprintf("192.0.2.%d", i))
				}
				res, _ := exchanged(t, c, r)
				at := res.Header.Get("Server-Name")
				if seen[at] = true; j > 0 && at != had {
					t.Errorf("%s: %s went to %s, and what is the same to %s", by, r.URL, at, had)
				}
				had = at
			}
		}
		if len(seen) != 2 {
			t.Errorf("%s: went to %v, want both", by, seen)
		}
	}
}

// Checks begin with the node, go on over reloads that leave the pool, and end
// with it.
func TestHealthChecksFollowTheConfiguration(t *testing.T) {
	checked := func() (url string, count *atomic.Int64, told chan struct{}) {
		count, told = new(atomic.Int64), make(chan struct{}, 1)
		s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/up" {
				count.Add(1)
				select {
				case told <- struct{}{}:
				default:
				}
			}
		}))
		t.Cleanup(s.Close)
		return s.URL, count, told
	}
	one, counted, told := checked()
	two, _, toldTwo := checked()
	const text = "%ssites: [{origins: [%q], health: {path: /up, interval: 100ms}}]"
	n, _, _ := nodeOf(t, configured(t, text, "", one))
	<-told
	<-told
	pool := n.current.Load().pools["default"]
	if err := n.reload(configured(t, text, "# moved\n\n", one)); err != nil {
		t.Fatal(err)
	}
	if n.current.Load().pools["default"] != pool {
		t.Error("a comment made a new pool")
	}
	n.retired.Wait()
	<-told
	<-told
	oldest, shard := n.current.enter() // as a request that lasts for days
	if err := n.reload(configured(t, text, "", two)); err != nil {
		t.Fatal(err)
	}
	<-toldTwo // checks of one that were under way have had their time
	at := counted.Load()
	for range 3 {
		<-toldTwo
	}
	if got := counted.Load(); got != at {
		t.Errorf("%d checks of a server that is no origin any more, though a request may last", got-at)
	}
	oldest.leave(shard)
	n.retired.Wait()
}

// A reload notices an authority that is another one under the same name.
func TestReloadReadsOriginAuthoritiesAgain(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "secure") }))
	t.Cleanup(s.Close)
	path := filepath.Join(t.TempDir(), "ca.pem")
	write := func(text []byte) {
		t.Helper()
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	moved := ""
	load := func() *settings {
		moved += "# one line down\n"
		return configured(t, "%ssites: [{origins: [%q], origin_tls: {ca: %q, server_name: example.com}}]", moved, s.URL, path)
	}
	cert, err := makeOwn([]string{"other.example"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	write(cert)
	n, front, _ := nodeOf(t, load())
	expect(t, front+"/", 502, "", "502")
	write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	if err := n.reload(load()); err != nil {
		t.Fatal(err)
	}
	expect(t, front+"/", 200, "", "secure")
	pool := n.current.Load().pools["default"]
	if err := n.reload(load()); err != nil {
		t.Fatal(err)
	}
	if n.current.Load().pools["default"] != pool {
		t.Error("the same files made a new pool")
	}
	write([]byte("nothing"))
	var bad *faults
	if err := n.reload(load()); !errors.As(err, &bad) || !strings.HasPrefix(bad.Error(), "f.yaml:5:") {
		t.Errorf("a file without a certificate: got %v, want its place", err)
	}
	expect(t, front+"/", 200, "", "secure")
}

// A pool that goes on over a reload, and is replaced by the next, is there for
// requests that began before both.
func TestPoolOutlivesGenerationsBetween(t *testing.T) {
	a := originServer(t, "a", nil)
	const text = "sites: [{origins: [%q], timeouts: {header: %s}}]"
	n, _, _ := nodeOf(t, configured(t, text, a.URL, "5s"))
	oldest, shard := n.current.enter() // as a request that is slow
	pool := oldest.pools["default"]
	for _, header := range []string{"5s", "6s"} {
		if err := n.reload(configured(t, text, a.URL, header)); err != nil {
			t.Fatal(err)
		}
	}
	for pool.users.Load() > 1 { // until the one between has ended
		runtime.Gosched()
	}
	w := httptest.NewRecorder()
	oldest.handler.ServeHTTP(w, httptest.NewRequest("GET", "http://shop.example/", nil))
	if w.Code != 200 {
		t.Errorf("a request of the oldest configuration: got %d %s, want 200", w.Code, w.Header().Get("Proxy-Status"))
	}
	oldest.leave(shard)
	n.retired.Wait()
	if res, err := pool.RoundTrip(request("GET", a.URL)); !errors.Is(err, origin.ErrClosed) {
		t.Errorf("with all that had it ended, the pool answers %v, %v; want it closed", res, err)
	}
}
