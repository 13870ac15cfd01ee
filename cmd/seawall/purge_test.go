package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// versioned is an origin whose answers tell how often it was asked, each with
// the tags all and that of its path's first segment.
func versioned(t *testing.T) string {
	t.Helper()
	var mu sync.Mutex
	asked := make(map[string]int)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked[r.RequestURI]++
		n := asked[r.RequestURI]
		mu.Unlock()
		w.Header().Set("Cache-Control", "max-age=600")
		w.Header().Set("Surrogate-Key", "all "+strings.Split(r.URL.Path, "/")[1])
		fmt.Fprintf(w, "%s v%d", r.RequestURI, n)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// administered is a node within the test with its admin API, as change makes
// its settings.
func administered(t *testing.T, dir string, s *settings) (n *node, front, admin string) {
	t.Helper()
	d, err := openData(dir)
	if err != nil {
		t.Fatal(err)
	}
	s.Listen.Admin = "127.0.0.1:0"
	n, err = newNode(s, d, &terminal{io.Discard, new(output)})
	if err != nil {
		t.Fatal(err)
	}
	ends := n.serve()
	t.Cleanup(func() {
		n.close()
		if err := <-ends; err != nil {
			t.Errorf("serve: %v", err)
		}
		d.Close()
	})
	return n, n.clearURL(), n.side.Addrs()[0].String()
}

// cached puts paths into the cache, and makes sure that they are there: an
// answer may be whole a moment before it is stored.
func cached(t *testing.T, front string, paths ...string) {
	t.Helper()
	p := &program{t: t}
	for _, path := range paths {
		p.until(path+" is a hit", func() bool {
			res, _ := get(front + path)
			return res != nil && res.StatusCode == 200 && strings.Contains(res.Header.Get("Cache-Status"), "hit")
		})
	}
}

// done runs a command that must succeed, and returns what it prints.
func done(t *testing.T, args ...string) string {
	t.Helper()
	code, out, errs := command(args...)
	if code != exitDone {
		t.Fatalf("seawall %q: exit %d, %q", args, code, errs)
	}
	return out
}

func TestPurgeReachesWhatItNames(t *testing.T) {
	from := versioned(t)
	for _, c := range []struct {
		name  string
		args  []string // FRONT stands for the node's URL, HOST for its host and port
		gone  []string // of the paths below
		stays []string
	}{
		{"a URL", []string{"FRONT/a/1"}, []string{"/a/1"}, []string{"/a/1?x=1", "/a/2", "/b/1"}},
		{"URLs before flags and behind", []string{"FRONT/a/1", "--any-query", "FRONT/b/1"}, []string{"/a/1", "/a/1?x=1", "/b/1"}, []string{"/a/2", "/ab/1"}},
		{"a prefix", []string{"--prefix", "HOST/a"}, []string{"/a/1", "/a/1?x=1", "/a/2"}, []string{"/ab/1", "/b/1"}},
		{"a prefix of a scheme", []string{"--prefix", "FRONT/a/"}, []string{"/a/1", "/a/2"}, []string{"/ab/1"}},
		{"a prefix of the other scheme", []string{"--prefix", "https://HOST/a/"}, nil, []string{"/a/1", "/a/2"}},
		{"a tag", []string{"--tag", "b"}, []string{"/b/1"}, []string{"/a/1", "/ab/1"}},
		{"a tag of a site", []string{"--tag", "all", "--site", "default"}, []string{"/a/1", "/b/1", "/ab/1"}, nil},
		{"a tag of every site", []string{"--tag", "ab", "--tag", "b", "--site", "*"}, []string{"/b/1", "/ab/1"}, []string{"/a/1"}},
		{"a host", []string{"--host", "127.0.0.1"}, []string{"/a/1", "/b/1"}, nil},
		{"another host", []string{"--host", "localhost"}, nil, []string{"/a/1", "/b/1"}},
		{"everything", []string{"--everything"}, []string{"/a/1", "/a/2", "/b/1", "/ab/1"}, nil},
		{"everything, and waiting", []string{"--everything", "--wait"}, []string{"/a/1"}, nil},
		{"nothing at all: a dry run", []string{"--everything", "--dry-run"}, nil, []string{"/a/1", "/b/1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, front, admin := administered(t, "", siteOver(from))
			cached(t, front, "/a/1", "/a/1?x=1", "/a/2", "/b/1", "/ab/1")
			args := []string{"purge", "--node", admin}
			for _, a := range c.args {
				args = append(args, strings.NewReplacer("FRONT", front, "HOST", strings.TrimPrefix(front, "http://")).Replace(a))
			}
			done(t, args...)
			for _, p := range c.gone {
				expect(t, front+p, 200, "fwd=", p)
			}
			for _, p := range c.stays {
				expect(t, front+p, 200, "hit", p)
			}
		})
	}
}

// Soft makes stale, and refresh fetches anew behind.
func TestSoftPurges(t *testing.T) {
	_, front, admin := administered(t, "", siteOver(versioned(t)))
	cached(t, front, "/a/1", "/b/1")
	if out := done(t, "purge", "--node", admin, "--tag", "a", "--soft"); !strings.HasPrefix(out, "made stale: ") {
		t.Errorf("it says %q", out)
	}
	expect(t, front+"/a/1", 200, "fwd=stale", "v2") // without a stale window
	done(t, "purge", "--node", admin, "--tag", "b", "--refresh")
	p := &program{t: t}
	p.until("it is fetched anew behind", func() bool {
		var s struct{ Objects []struct{ Fresh bool } }
		_, text := get("http://" + admin + "/v1/objects?url=" + front + "/b/1")
		return json.Unmarshal([]byte(text), &s) == nil && len(s.Objects) == 1 && s.Objects[0].Fresh
	})
	expect(t, front+"/b/1", 200, "hit", "v2")
}

func TestPurgeCommandSays(t *testing.T) {
	n, front, admin := administered(t, "", siteOver(versioned(t)))
	cached(t, front, "/a/1", "/a/2")
	var answer purgeAnswer
	if err := json.Unmarshal([]byte(done(t, "purge", front+"/a/1", "--json", "--node", "http://"+admin)), &answer); err != nil || answer.ID == nil || answer.AppliedAt == nil || answer.Matched != nil {
		t.Errorf("--json: got %+v, %v", answer, err)
	}
	if out := done(t, "purge", "--tag", "all", "--dry-run", "--node", admin); !strings.HasPrefix(out, "1 object would be reached") || !strings.Contains(out, "  "+front+"/a/2\n") {
		t.Errorf("--dry-run: got %q", out)
	}
	if out := done(t, "purge", "--tag", "nothing", "--dry-run", "--node", admin); out != "nothing that is stored would be reached\n" {
		t.Errorf("--dry-run of nothing: got %q", out)
	}
	code, out, errs := command("purge", "--tag", "all", "--wait", "--node", admin)
	if code != 0 || !strings.HasSuffix(out, " on 1 node\n") || errs != "applied by 1 of 1 node\n" {
		t.Errorf("--wait: exit %d, %q, %q", code, out, errs)
	}
	for _, c := range []struct {
		name, says string
		args       []string
	}{
		{"not absolute", "urls[0]: is not absolute", []string{"/a"}},
		{"a prefix without host", "prefixes[0]: has no host", []string{"--prefix", "/a"}},
		{"a site that is none", `site: is "x", and no site has that name`, []string{"--tag", "a", "--site", "x"}},
	} {
		code, _, errs := command(append([]string{"purge", "--node", admin}, c.args...)...)
		if code != exitFailed || !strings.Contains(errs, c.says) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%s: exit %d, %q; want 1 and one line with %q", c.name, code, errs, c.says)
		}
	}
	_, metrics := get("http://" + admin + "/metrics")
	for _, want := range []string{`seawall_purge_applied_total{kind="url"} 1`, `seawall_purge_applied_total{kind="tag"} 1`, "seawall_purge_log_healthy 1", "seawall_purge_epoch 2", "seawall_purge_log_position 2"} {
		if !strings.Contains(metrics, want+"\n") {
			t.Errorf("the metrics have no %s", want)
		}
	}
	if log := n.t.err.(*output).String(); !strings.Contains(log, `audit=true token="(this machine)"`) || !strings.Contains(log, `what="urls=1"`) {
		t.Errorf("the audit is not in the log:\n%s", log)
	}
}

// One client cannot take all connections of the admin listener, which answers
// for the node's health.
func TestOneClientCannotHoldTheAdminListener(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs a second loopback address")
	}
	_, _, admin := administered(t, "", siteOver(versioned(t)))
	for range 300 {
		c, err := net.Dial("tcp", admin)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	another := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	from := &http.Transport{DialContext: another.DialContext}
	defer from.CloseIdleConnections()
	res, err := (&http.Client{Transport: from, Timeout: 5 * time.Second}).Get("http://" + admin + "/healthz")
	if err != nil {
		t.Fatalf("health, with 300 connections of another client: %v", err)
	}
	res.Body.Close()
	if res.StatusCode != 200 {
		t.Errorf("health, with 300 connections of another client: got %d, want 200", res.StatusCode)
	}
}

// Whoever names the wrong port must not be told that all is well, whatever
// answers there.
func TestCommandsKnowANode(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, `{}`)
	}))
	defer other.Close()
	for _, args := range [][]string{
		{"purge", "http://a.example/"}, {"purge", "http://a.example/", "--json"}, {"purge", "http://a.example/", "--wait"},
		{"purge", "http://a.example/", "--dry-run"}, {"purge", "http://a.example/", "--dry-run", "--json"},
		{"push", "http://a.example/", os.DevNull}, {"warm", "http://a.example/"}, {"warm", "http://a.example/", "--json"},
	} {
		code, out, errs := command(append(args, "--node", other.URL)...)
		if code != exitFailed || out != "" || !strings.Contains(errs, "does not answer as a node does") {
			t.Errorf("%q: exit %d, %q, %q; want 1, nothing, and that it is no node", args, code, out, errs)
		}
	}
}

// A reload keeps the purges, and reads the tokens again.
func TestTokensOfTheConfiguration(t *testing.T) {
	from := versioned(t)
	file := filepath.Join(t.TempDir(), "seawall.yaml")
	write := func(tokens string) *settings {
		text := "listen: {http: '127.0.0.1:0', https: off}\nlog: {access: off}\nsites:\n- {name: one, hosts: [127.0.0.1], origins: ['" + from + "'], access: {purge: [127.0.0.1]}}\n- {name: two, hosts: [localhost], origins: ['" + from + "']}\n"
		if err := os.WriteFile(file, []byte(text+"admin:\n  tokens:\n"+tokens), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := loadSettings(file)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	t.Setenv("ONE_TOKEN", "token-of-site-one-")
	t.Setenv("ALL_TOKEN", "token-of-them-all-")
	const both = "  - {name: first, token: '${ONE_TOKEN}', scopes: [purge, push], sites: [one]}\n  - {name: every, token: '${ALL_TOKEN}', scopes: [admin]}\n"
	n, front, admin := administered(t, "", write(both))
	two := strings.Replace(front, "127.0.0.1", "localhost", 1)
	cached(t, front, "/a/1")
	cached(t, two, "/a/1")
	for _, c := range []struct {
		name, token string
		args        []string
		code        int
		says        string
	}{
		{"no token", "", []string{"--tag", "a"}, 1, "401: This call needs a token"},
		{"a wrong token", "token-of-nobody---", []string{"--tag", "a"}, 1, "401: This token is not known (hint: the node does not know the token of SEAWALL_TOKEN"},
		{"a token that is none", "a token", []string{"--tag", "a"}, 2, "SEAWALL_TOKEN has characters"},
		{"another site", "token-of-site-one-", []string{two + "/a/1"}, 1, "403: The token first may not act on localhost"},
		{"a tag of its site", "token-of-site-one-", []string{"--tag", "a"}, 0, ""},
		{"a tag of two sites", "token-of-them-all-", []string{"--tag", "a"}, 1, "site: is missing"},
	} {
		t.Setenv("SEAWALL_TOKEN", c.token)
		code, _, errs := command(append([]string{"purge", "--node", admin}, c.args...)...)
		if code != c.code || !strings.Contains(errs, c.says) || strings.Contains(errs, "token-of") {
			t.Errorf("%s: exit %d, %q; want %d with %q", c.name, code, errs, c.code, c.says)
		}
	}
	expect(t, front+"/a/1", 200, "fwd=uri-miss", "")
	expect(t, two+"/a/1", 200, "hit", "")

	// PURGE to the data listener, where the site allows it.
	r, _ := http.NewRequest("PURGE", front+"/a/1", nil)
	for url, want := range map[string]int{front + "/a/1": 200, two + "/a/1": 405} {
		r.URL, _ = r.URL.Parse(url)
		r.Host = ""
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("PURGE %s: got %d, want %d", url, res.StatusCode, want)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	expect(t, front+"/a/1", 200, "fwd=uri-miss", "")
	expect(t, two+"/a/1", 200, "hit", "")

	if err := n.reload(write("  - {name: first, token: '${ONE_TOKEN}', scopes: [read]}\n")); err != nil {
		t.Fatal(err)
	}
	expect(t, two+"/a/1", 200, "hit", "")
	t.Setenv("SEAWALL_TOKEN", "token-of-site-one-")
	if code, _, errs := command("purge", "--node", admin, "--tag", "a", "--site", "one"); code != 1 || !strings.Contains(errs, "403: This call needs a token with the scope purge") {
		t.Errorf("after the reload: exit %d, %q", code, errs)
	}
}

func TestPushThenServe(t *testing.T) {
	_, front, admin := administered(t, "", siteOver(versioned(t)))
	file := filepath.Join(t.TempDir(), "page.html")
	if err := os.WriteFile(file, []byte("<p>pushed"), 0o600); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(t.TempDir(), "empty.txt")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	out := done(t, "push", front+"/new", file, "-H", "Cache-Control: max-age=60", "--node", admin, "-H", "Surrogate-Key: news", "-H", "X-Own: 1")
	if want := "stored " + front + "/new: status 200, 9 B, fresh for 1m\n"; out != want {
		t.Errorf("it says %q, want %q", out, want)
	}
	expect(t, front+"/new", 200, "hit", "<p>pushed")
	res, _ := get(front + "/new")
	if res.Header.Get("Content-Type") != "text/html; charset=utf-8" || res.Header.Get("X-Own") != "1" || res.Header.Get("Expect") != "" || res.Header.Get("User-Agent") != "" {
		t.Errorf("what is served: %v", res.Header)
	}
	done(t, "push", "--status", "404", front+"/none", empty, "-H", "Cache-Control: max-age=60", "--node", admin)
	expect(t, front+"/none", 404, "hit", "")
	done(t, "purge", "--tag", "news", "--node", admin)
	expect(t, front+"/new", 200, "fwd=uri-miss", "/new v1")

	for _, c := range []struct {
		name, says string
		args       []string
	}{
		{"no lifetime", "422: The response was not stored; Cache-Control", nil},
		{"private", "422", []string{"-H", "Cache-Control: private, max-age=60"}},
		{"Set-Cookie", "422", []string{"-H", "Cache-Control: max-age=60", "-H", "Set-Cookie: a=b"}},
		{"Vary, and no field", "422", []string{"-H", "Cache-Control: max-age=60", "-H", "Vary: Accept-Language"}},
		{"a status that is none", "Seawall-Status", []string{"-H", "Cache-Control: max-age=60", "--status", "700"}},
	} {
		code, _, errs := command(append([]string{"push", front + "/bad", file, "--node", admin}, c.args...)...)
		if code != exitFailed || !strings.Contains(errs, c.says) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%s: exit %d, %q; want 1 and one line with %q", c.name, code, errs, c.says)
		}
	}
	expect(t, front+"/bad", 200, "fwd=uri-miss", "/bad v1")
	done(t, "push", front+"/langs", file, "-H", "Cache-Control: max-age=60", "-H", "Vary: X-Lang", "--vary-header", "X-Lang: de", "--node", admin)
	r, _ := http.NewRequest("GET", front+"/langs", nil)
	r.Header.Set("X-Lang", "de")
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer res.Body.Close()
	if text, _ := io.ReadAll(res.Body); string(text) != "<p>pushed" {
		t.Errorf("the variant pushed: got %q", text)
	}
}

func TestWarm(t *testing.T) {
	from := versioned(t)
	_, front, admin := administered(t, "", siteOver(from))
	out := done(t, "warm", front+"/w/1", "--node", admin, front+"/w/2")
	if !strings.HasPrefix(out, "2 URLs in ") || !strings.Contains(out, ": 2 in the cache now, 0 failed, ") {
		t.Errorf("it says %q", out)
	}
	expect(t, front+"/w/1", 200, "hit", "v1")

	sitemap := sampleServer(t, func(*http.Request) string {
		return "<urlset><url><loc>" + front + "/s/1</loc></url><url><loc>" + front + "/s/2</loc></url></urlset>"
	})
	done(t, "warm", "--sitemap", sitemap+"/sitemap.xml", "--concurrency", "2", "--node", admin)
	expect(t, front+"/s/2", 200, "hit", "v1")

	log := filepath.Join(t.TempDir(), "access.log")
	text := "time=2024-01-01T00:00:00.000Z id=00 site=default client=127.0.0.1 method=GET url=\"" + front + "/l/\\xc3\\xa9\" status=200 bytes=1\n" +
		`{"method":"GET","url":"` + front + `/l/2","status":304}` + "\n" + `{"method":"GET","url":"` + front + `/l/2","status":200}` + "\n" +
		`{"method":"POST","url":"` + front + `/l/3","status":200}` + "\n" + `{"method":"GET","url":"` + front + `/l/4","status":502}` + "\nnonsense\n"
	if err := os.WriteFile(log, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if top, err := topOfLog(log, 5); err != nil || len(top) != 2 || top[0] != front+"/l/2" || top[1] != front+"/l/é" {
		t.Errorf("the log's top: got %q, %v", top, err)
	}
	done(t, "warm", "--from-log", log, "--top", "1", "--node", admin)
	expect(t, front+"/l/2", 200, "hit", "v1")

	code, out, errs := command("warm", sitemap, "--sitemap", sitemap+"/"+strings.Repeat("x", 10), "--json", "--node", admin)
	var s warmState
	if err := json.Unmarshal([]byte(out), &s); code != exitDone || err != nil || s.State != "done" || s.Total != 3 {
		t.Errorf("--json: exit %d, %q, %q", code, out, errs)
	}
	for _, c := range []struct {
		name, says string
		args       []string
	}{
		{"a URL that is none", "urls[0]: is not absolute", []string{"/x"}},
		{"a sitemap that is none", "the list was not read to its end", []string{"--sitemap", sampleServer(t, func(*http.Request) string { return "<html>" })}},
	} {
		code, _, errs := command(append([]string{"warm", "--node", admin}, c.args...)...)
		if code != exitFailed || !strings.Contains(errs, c.says) {
			t.Errorf("%s: exit %d, %q; want 1 with %q", c.name, code, errs, c.says)
		}
	}
}

// What warm prints on a terminal.
func TestWarmProgress(t *testing.T) {
	for _, c := range []struct {
		state warmState
		want  string
	}{
		{warmState{}, "[..............................] 0 of 0+ URLs, 0 B"},
		{warmState{Total: 4, Done: 1, Bytes: 1536}, "[#######.......................] 1 of 4+ URLs, 1.5 KiB"},
		{warmState{Total: 2, Done: 2, Listed: true, Failed: 1, Bytes: 3 << 20}, "[##############################] 2 of 2 URLs, 3.0 MiB, 1 failed"},
	} {
		if got := c.state.bar(); got != c.want {
			t.Errorf("%+v\ngot  %s\nwant %s", c.state, got, c.want)
		}
	}
}

// A log of more URLs than are remembered still tells the most frequent.
func TestLogOfManyURLs(t *testing.T) {
	var text strings.Builder
	for i := range maxCounted + 1000 {
		fmt.Fprintf(&text, "{\"method\":\"GET\",\"url\":\"http://a/%d\",\"status\":200}\n", i)
		if i%100 == 0 {
			text.WriteString("method=GET url=\"http://a/often\" status=200\n")
		}
	}
	text.WriteString("method=GET url=\"" + strings.Repeat("x", 2*maxLogLine) + "\" status=200\n")
	counts, err := countURLs(strings.NewReader(text.String()))
	if err != nil || len(counts) > maxCounted || counts["http://a/often"] != maxCounted/100+10 {
		t.Errorf("got %d URLs, %d of the one, %v", len(counts), counts["http://a/often"], err)
	}
}

// A node that cannot keep its purges does not serve.
func TestPurgeLogThatCannotBeOpened(t *testing.T) {
	data := t.TempDir()
	if err := os.WriteFile(filepath.Join(data, "purge"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p := launch(t, "serve", "--origin", "http://127.0.0.1:1", "--http", "127.0.0.1:0", "--https", "off", "--admin", "off", "--data", data)
	if code := p.exit(); code != exitFailed || !strings.Contains(p.err.String(), "purge log in") || !strings.Contains(p.err.String(), "(hint:") {
		t.Errorf("exit %d, %q; want 1 and a hint", code, p.err)
	}
}

// rounds is how often a test that kills repeats.
func rounds() int {
	if long() {
		return 200
	}
	return 5
}

// A purge that was acknowledged holds after kill -9, wherever between asking
// and answering the node was when it ended: it is known after the restart, no
// epoch is given twice, and what was stored before it is not served.
func TestPurgesOutliveKill(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no kill -9")
	}
	var version atomic.Int64
	from := sampleServer(t, func(*http.Request) string { return fmt.Sprintf("v%d.", version.Load()) })
	data, front := t.TempDir(), freeAddr(t)
	acknowledged, epoch, spread := 0, 0.0, 16*time.Millisecond
	for round := range rounds() {
		p := serve(t, "--origin", from, "--data", data, "--http", front)
		old := fmt.Sprintf("v%d.", version.Load())
		expect(t, p.front+"/a", 200, "fwd=uri-miss", old)
		cached(t, p.front, "/a")
		version.Add(1)
		// The first round waits for the answer.
		id := p.purgeAndKill(rand.N(spread), round == 0)

		p = serve(t, "--origin", from, "--data", data, "--http", front)
		now := p.metric("seawall_purge_epoch")
		if id != "" {
			acknowledged++
			var state purgeState
			res, text := get(p.admin + "/v1/purges/" + id)
			if res == nil || res.StatusCode != 200 || json.Unmarshal([]byte(text), &state) != nil || len(state.Nodes) != 1 || state.Nodes[0].AppliedAt == nil || state.Kind != "url" {
				t.Fatalf("round %d: purge %s was acknowledged, and after the restart: %v %s", round, id, res, text)
			}
			if now <= epoch {
				t.Errorf("round %d: the epoch is %v after the restart, and was %v before the purge", round, now, epoch)
			}
		}
		epoch = now
		expect(t, p.front+"/a", 200, "fwd=uri-miss", fmt.Sprintf("v%d.", version.Load()))
		p.signal(syscall.SIGKILL)
		p.exit()
	}
	if t.Logf("%d of %d purges were acknowledged", acknowledged, rounds()); acknowledged == 0 {
		t.Error("no purge was acknowledged")
	}
}

// metric is a figure of the node's metrics.
func (p *program) metric(name string) (v float64) {
	p.t.Helper()
	_, text := get(p.admin + "/metrics")
	_, after, ok := strings.Cut(text, "\n"+name+" ")
	if _, err := fmt.Sscan(after, &v); !ok || err != nil {
		p.t.Fatalf("no metric %s: %v", name, err)
	}
	return v
}

// freeAddr is an address of this machine that nothing listens on now.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// purgeAndKill purges /a and kills the node so long after it has asked, or
// after its answer. It returns the purge's id if the node acknowledged it.
func (p *program) purgeAndKill(after time.Duration, answer bool) (id string) {
	p.t.Helper()
	answered := make(chan string, 1)
	go func() {
		var answer purgeAnswer
		body := fmt.Sprintf(`{"urls":["%s/a"]}`, p.front)
		res, err := http.Post(p.admin+"/v1/purges", "application/json", strings.NewReader(body))
		if err != nil {
			answered <- ""
			return
		}
		defer res.Body.Close()
		if json.NewDecoder(res.Body).Decode(&answer) != nil || answer.ID == nil {
			answered <- ""
			return
		}
		answered <- *answer.ID
	}()
	if answer {
		id = <-answered
		answered <- id
	}
	<-time.After(after)
	p.signal(syscall.SIGKILL)
	p.exit()
	return <-answered
}
