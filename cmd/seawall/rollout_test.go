package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// post makes a call with JSON.
func post(t testing.TB, url, text string) (int, map[string]any) {
	t.Helper()
	res, err := http.Post(url, "application/json", strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	answer := map[string]any{}
	body, err := io.ReadAll(res.Body)
	if err == nil && len(body) > 0 {
		err = json.Unmarshal(body, &answer)
	}
	if err != nil {
		t.Fatalf("POST %s: %d %q: %v", url, res.StatusCode, body, err)
	}
	return res.StatusCode, answer
}

// having asks as a client with a cookie, and returns the version that it got.
func having(t testing.TB, url, id string) string {
	t.Helper()
	r, err := http.NewRequest("GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Cookie", "id="+id)
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != 200 {
		return fmt.Sprint(res.StatusCode, err)
	}
	return res.Header.Get("X-Version")
}

// shares are the clients, of n, that each version has.
func shares(t testing.TB, url string, n int) (who map[string][]int) {
	who = make(map[string][]int)
	for i := range n {
		v := having(t, url, fmt.Sprint("client", i))
		who[v] = append(who[v], i)
	}
	return who
}

// candidateOf is what the API tells of f's candidate.
func candidateOf(t testing.TB, base string) map[string]any {
	t.Helper()
	_, shown := call(t, "GET", base, nil)
	c, _ := shown["candidate"].(map[string]any)
	return c
}

// A candidate gets its part of the clients, the same ones at every request and
// after a restart, more as the percentage grows; it is promoted or taken away at
// once, and what the API said holds after a restart.
func TestRolloutByTheAPI(t *testing.T) {
	dir := t.TempDir()
	s := running(t, "  f: {}\n", "f")
	start := func() (front, base string, stop func()) {
		d, err := openData(dir)
		if err != nil {
			t.Fatal(err)
		}
		s.Listen.Admin = "127.0.0.1:0"
		n, err := newNode(s, d, &terminal{io.Discard, io.Discard})
		if err != nil {
			t.Fatal(err)
		}
		ends := n.serve()
		return n.clearURL(), "http://" + n.side.Addrs()[0].String() + "/v1/functions/f", func() { n.close(); <-ends; d.Close() }
	}
	front, base, stop := start()
	if code, answer := call(t, "PUT", base, setting("x-version", "1")); code != 201 || answer["percent"] != 100.0 {
		t.Fatalf("got %d %v", code, answer)
	}
	if code, answer := call(t, "PUT", base+"?rollout=30&by=cookie:id", setting("x-version", "2")); code != 201 || answer["percent"] != 70.0 {
		t.Fatalf("a candidate: got %d %v, want 201 and 70 %% for the function", code, answer)
	}
	first := shares(t, front, 60)
	if len(first["1"]) == 0 || len(first["2"]) == 0 || len(first) != 2 {
		t.Errorf("at 30 %%: %v, want two versions", first)
	}
	c := candidateOf(t, base)
	calls := c["stats"].(map[string]any)["stages"].(map[string]any)["viewer_request"].(map[string]any)["calls"]
	if c["percent"] != 30.0 || c["by"] != "cookie:id" || c["sha256"] != hashOf(setting("x-version", "2")) || calls != float64(len(first["2"])) {
		t.Errorf("the candidate is shown as %v, with %v calls; want 30 %%, by cookie:id, and %d calls", c, calls, len(first["2"]))
	}
	stop()
	front, base, stop = start()
	if again := shares(t, front, 60); !slices.Equal(again["2"], first["2"]) {
		t.Errorf("after a restart: %v, before it %v", again, first)
	}
	if code, answer := post(t, base+"/rollout", `{"percent":60}`); code != 200 || answer["percent"] != 40.0 {
		t.Errorf("more: got %d %v", code, answer)
	}
	more := shares(t, front, 60)
	for _, i := range first["2"] {
		if !slices.Contains(more["2"], i) {
			t.Errorf("client %d had the candidate at 30 %% and not at 60 %%", i)
		}
	}
	if len(more["2"]) <= len(first["2"]) {
		t.Errorf("at 60 %% %d of 60 clients, at 30 %% %d", len(more["2"]), len(first["2"]))
	}
	if code, answer := post(t, base+"/promote", ""); code != 200 || answer["candidate"] != nil || answer["percent"] != 100.0 {
		t.Errorf("promoted: got %d %v", code, answer)
	}
	if got := shares(t, front, 20); len(got["2"]) != 20 {
		t.Errorf("promoted: %v, want the candidate for all", got)
	}
	call(t, "PUT", base+"?rollout=100", setting("x-version", "3"))
	if got := having(t, front, "x"); got != "3" {
		t.Errorf("at 100 %%: %q", got)
	}
	stop()
	front, base, stop = start()
	if got := having(t, front, "x"); got != "3" {
		t.Errorf("at 100 %% after a restart: %q", got)
	}
	if code, answer := post(t, base+"/rollback", ""); code != 200 || answer["candidate"] != nil {
		t.Errorf("rolled back: got %d %v", code, answer)
	}
	if got := having(t, front, "x"); got != "2" {
		t.Errorf("rolled back: %q, want what ran before", got)
	}
	stop()
	front, _, stop = start()
	defer stop()
	if got := having(t, front, "x"); got != "2" {
		t.Errorf("rolled back, after a restart: %q", got)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "functions", "f*")); len(left) != 2 {
		t.Errorf("left on disk: %v, want the function alone", left)
	}
}

// Each error says what is at fault, and changes nothing.
func TestRolloutErrors(t *testing.T) {
	file, next := written(t, "file.wasm", setting("x-version", "file")), written(t, "next.wasm", setting("x-version", "next"))
	s := running(t, "  f: {}\n  later: {}\n  at: {}\n  byfile: {file: '"+file+"', candidate: {file: '"+next+"', percent: 0}}\n", "f")
	s.Sites[0].Functions.Origin = []string{"at"}
	_, front, admin := administered(t, t.TempDir(), s)
	base := "http://" + admin + "/v1/functions"
	for _, name := range []string{"f", "at"} {
		if code, answer := call(t, "PUT", base+"/"+name, setting("x-version", "1")); code != 201 {
			t.Fatalf("got %d %v", code, answer)
		}
	}
	for _, c := range []struct {
		name, path string
		body       any // a module to PUT, or JSON to POST
		code       int
		want       string
	}{
		{"no number", "/f?rollout=x", setting("a", "b"), 400, `"field":"rollout"`},
		{"more than all", "/f?rollout=100.5", setting("a", "b"), 400, "is not between 0 and 100"},
		{"not a number", "/f?rollout=NaN", setting("a", "b"), 400, "is not between 0 and 100"},
		{"twice", "/f?rollout=1&rollout=2", setting("a", "b"), 400, "is there 2 times"},
		{"by what", "/f?rollout=1&by=country", setting("a", "b"), 400, "address or cookie:NAME"},
		{"by no cookie", "/f?rollout=1&by=cookie:", setting("a", "b"), 400, `"field":"by"`},
		{"how many", "/f?by=address", setting("a", "b"), 400, "is missing; it is to be a number"},
		{"a shadow or not", "/f?rollout=1&shadow=maybe", setting("a", "b"), 400, `"field":"shadow"`},
		{"another setting", "/f?rollout=1&mode=both", setting("a", "b"), 400, `"field":"mode"`},
		{"no module", "/f?rollout=1", []byte("hello"), 422, `"field":"module"`},
		{"no function", "/nope?rollout=1", setting("a", "b"), 409, "no function of this name that it could be a candidate of"},
		{"none yet", "/later?rollout=1", setting("a", "b"), 409, "no function of this name that it could be a candidate of"},
		{"the same", "/f?rollout=1", setting("x-version", "1"), 409, "is this module with these settings already"},
		{"at the origin", "/at?rollout=1", setting("a", "b"), 409, "is run at the origin's side by default"},
		{"no candidate", "/f/rollout", `{"percent":1}`, 404, "has a candidate"},
		{"none to promote", "/f/promote", "", 404, "has a candidate"},
		{"none to roll back", "/nope/rollback", "", 404, "has a candidate"},
		{"the configuration's", "/byfile/rollback", "", 409, "is the configuration's"},
		{"nothing to change", "/f/rollout", `{}`, 400, "is missing; give one of percent"},
		{"an unknown field", "/f/rollout", `{"percents":1}`, 400, "is no field of this call; it has percent, by, shadow"},
		{"a text", "/f/rollout", `{"percent":"1"}`, 400, "is a string where a number is wanted"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := having(t, front, "x")
			var code int
			var answer map[string]any
			if module, ok := c.body.([]byte); ok {
				code, answer = call(t, "PUT", base+c.path, module)
			} else {
				code, answer = post(t, base+c.path, c.body.(string))
			}
			text := new(bytes.Buffer)
			encoder := json.NewEncoder(text)
			encoder.SetEscapeHTML(false)
			encoder.Encode(answer)
			if code != c.code || !strings.Contains(text.String(), c.want) || having(t, front, "x") != before {
				t.Errorf("%s: got %d %s, want %d and %s, and no change", c.path, code, text, c.code, c.want)
			}
		})
	}

	// What stands in another's way.
	if code, answer := call(t, "PUT", base+"/f?rollout=10", setting("x-version", "2")); code != 201 {
		t.Fatalf("got %d %v", code, answer)
	}
	for _, c := range []struct {
		method, path string
		code         int
	}{{"PUT", "/f", 409}, {"DELETE", "/f", 409}} {
		if code, answer := call(t, c.method, base+c.path, setting("x-version", "3")); code != c.code || !strings.Contains(fmt.Sprint(answer), "has an uploaded candidate") {
			t.Errorf("%s beneath a candidate: got %d %v, want %d", c.method, code, answer, c.code)
		}
	}
	if code, answer := call(t, "PUT", base+"/f", setting("x-version", "1")); code != 200 {
		t.Errorf("the same beneath a candidate: got %d %v, want 200", code, answer)
	}
	for _, c := range []struct{ body, want string }{
		{`{"percent":-1}`, "is not between 0 and 100"}, {`{"by":"x"}`, "is neither"},
	} {
		if code, answer := post(t, base+"/f/rollout", c.body); code != 400 || !strings.Contains(fmt.Sprint(answer), c.want) {
			t.Errorf("%s: got %d %v, want 400 and %q", c.body, code, answer, c.want)
		}
	}
	// A shadow may stand at the origin's side, and not come out of it.
	if code, answer := call(t, "PUT", base+"/at?shadow=true", setting("x-version", "2")); code != 201 {
		t.Errorf("a shadow at the origin's side: got %d %v", code, answer)
	}
	if code, answer := post(t, base+"/at/rollout", `{"shadow":false}`); code != 409 {
		t.Errorf("out of the shadow at the origin's side: got %d %v, want 409", code, answer)
	}
}

// Percentages, promotions and rollbacks change under traffic: no request fails,
// and none gets what was rolled back before it was sent.
func TestRolloutUnderTraffic(t *testing.T) {
	n, front, admin := administered(t, t.TempDir(), running(t, "  f: {}\n", "f"))
	base := "http://" + admin + "/v1/functions/f"
	call(t, "PUT", base, setting("x-version", "0"))
	var stop atomic.Bool
	var asked atomic.Int64
	var clients sync.WaitGroup
	for c := range 4 {
		clients.Go(func() {
			for i := 0; !stop.Load(); i++ {
				asked.Add(1)
				if got := having(t, fmt.Sprintf("%s/%d/%d", front, c, i%7), fmt.Sprint(c, i)); len(got) > 2 || got == "" {
					t.Errorf("got %q", got)
					return
				}
			}
		})
	}
	for i := 1; i <= 15 && !t.Failed(); i++ {
		current := having(t, front, "x")
		bad := fmt.Sprint(i + 50)
		steps := []struct {
			method, path string
			body         string
			want         string
		}{
			{"PUT", "?rollout=0&by=cookie:id", bad, current},
			{"POST", "/rollout", `{"percent":100}`, bad},
			{"POST", "/rollback", "", current},
			{"PUT", "?shadow=true", fmt.Sprint(i), current},
			{"POST", "/promote", "", fmt.Sprint(i)},
		}
		for _, s := range steps {
			var code int
			var answer map[string]any
			if s.method == "PUT" {
				code, answer = call(t, "PUT", base+s.path, setting("x-version", s.body))
			} else {
				code, answer = post(t, base+s.path, s.body)
			}
			if got := having(t, front, "x"); code/100 != 2 || got != s.want {
				t.Errorf("round %d, %s: got %d %v, and then version %q; want %q", i, s.path, code, answer, got, s.want)
			}
		}
	}
	stop.Store(true)
	clients.Wait()
	n.retired.Wait()
	// A shadow ends behind its last request.
	(&program{t: t}).until("one function is left", func() bool {
		n.functions.figures()
		n.functions.mu.Lock()
		defer n.functions.mu.Unlock()
		return len(n.functions.engines[0].loaded) == 1
	})
	t.Logf("%d requests", asked.Load())
}

// Wherever a crash ends a call, the next start has what was before it or what it
// made, whole.
func TestCandidateFolderAfterCrashes(t *testing.T) {
	one, two, three := []byte("one"), []byte("two"), []byte("three")
	record := func(name string, module []byte, r *rollout) []byte {
		text, _ := json.Marshal(&upload{Name: name, SHA256: hashOf(module), Size: len(module), Rollout: r})
		return text
	}
	of := func(module []byte) []byte { return record("f", module, nil) }
	cand := func(module []byte, percent float64) []byte {
		return record("f.candidate", module, &rollout{Percent: percent, By: "address"})
	}
	both := func(more map[string][]byte) map[string][]byte {
		files := map[string][]byte{"f.json": of(one), "f.wasm": one, "f.candidate.json": cand(two, 5), "f.candidate.wasm": two}
		for name, content := range more {
			if files[name] = content; content == nil {
				delete(files, name)
			}
		}
		return files
	}
	for _, c := range []struct {
		name  string
		files map[string][]byte
		want  string
	}{
		{"both", both(nil), "one; two 5"},
		{"a candidate's module was written", map[string][]byte{"f.json": of(one), "f.wasm": one, "f.candidate.new.wasm": two}, "one"},
		{"and its record", both(map[string][]byte{"f.candidate.wasm": nil, "f.candidate.new.wasm": two}), "one; two 5"},
		{"another candidate's module", both(map[string][]byte{"f.candidate.new.wasm": three}), "one; two 5"},
		{"and its record", both(map[string][]byte{"f.candidate.new.wasm": three, "f.candidate.json": cand(three, 1)}), "one; three 1"},
		{"a percentage", both(map[string][]byte{"f.candidate.json.123": cand(two, 50)}), "one; two 5"},
		{"a promotion's module", both(map[string][]byte{"f.new.wasm": two}), "one; two 5"},
		{"and its record", both(map[string][]byte{"f.new.wasm": two, "f.json": of(two)}), "two"},
		{"and its name", both(map[string][]byte{"f.wasm": two, "f.json": of(two)}), "two"},
		{"and the candidate's record", both(map[string][]byte{"f.wasm": two, "f.json": of(two), "f.candidate.json": nil}), "two"},
		{"a rollback's record", both(map[string][]byte{"f.candidate.json": nil}), "one"},
		{"a candidate of a file's", map[string][]byte{"f.candidate.json": cand(two, 5), "f.candidate.wasm": two}, "two 5"},
		{"a damaged candidate", both(map[string][]byte{"f.candidate.wasm": three}), "one; broken"},
		{"a candidate's record that is none", both(map[string][]byte{"f.candidate.json": record("f.candidate", two, nil)}), "one; broken"},
		{"a function's that is a candidate's", both(map[string][]byte{"f.json": record("f", one, &rollout{})}), "broken; two 5"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, content := range c.files {
				if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 { // the second start finds what the first left
				_, all, err := openUploads(dir, discard())
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				for _, name := range []string{"f", "f.candidate"} {
					u := all[name]
					if u == nil {
						continue
					}
					module, err := u.read()
					text := string(module)
					if u.Rollout != nil {
						text += fmt.Sprint(" ", u.Rollout.Percent)
					}
					if err != nil {
						text = "broken"
					}
					got = append(got, text)
				}
				if text := strings.Join(got, "; "); text != c.want {
					t.Errorf("got %q, want %q", text, c.want)
				}
			}
			left, _ := filepath.Glob(filepath.Join(dir, "*new*"))
			temp, _ := filepath.Glob(filepath.Join(dir, "*.[0-9]*"))
			if len(left)+len(temp) > 0 {
				t.Errorf("left: %v %v", left, temp)
			}
		})
	}
}

// A configuration has candidates too; what an upload has stands before them.
func TestCandidatesOfTheConfiguration(t *testing.T) {
	one, two := written(t, "one.wasm", setting("x-version", "1")), written(t, "two.wasm", setting("x-version", "2"))
	text := func(percent, more string) string {
		return "  f: {file: '" + one + "', limits: {cpu: 7ms}, candidate: {file: '" + two + "', percent: " + percent + ", by: 'cookie:id'" + more + "}}\n"
	}
	n, front, admin := administered(t, "", running(t, text("100", ""), "f"))
	base := "http://" + admin + "/v1/functions/f"
	if got := having(t, front, "x"); got != "2" {
		t.Errorf("at 100 %%: %q", got)
	}
	if got := n.current.Load().functions.members["f"].candidate.options.Limits.CPU.String(); got != "7ms" {
		t.Errorf("the candidate's limit: %s, want the function's", got)
	}
	candidate := n.current.Load().functions.members["f"].candidate.loaded
	if err := n.reload(running(t, text("0", ""), "f")); err != nil || having(t, front, "x") != "1" {
		t.Errorf("at 0 %%: %v", err)
	}
	if n.current.Load().functions.members["f"].candidate.loaded != candidate {
		t.Error("a reload with another percentage loaded the candidate anew")
	}
	if err := n.reload(running(t, text("100", ", shadow: true"), "f")); err != nil || having(t, front, "x") != "1" {
		t.Errorf("as a shadow: %v", err)
	}
	if c := candidateOf(t, base); c["shadow"] != true || c["source"] != "file" || c["file"] != two {
		t.Errorf("shown as %v", c)
	}
	if code, answer := call(t, "PUT", base+"?rollout=100", setting("x-version", "3")); code != 201 || having(t, front, "x") != "3" {
		t.Errorf("uploaded over it: got %d %v", code, answer)
	}
	if code, answer := post(t, base+"/rollback", ""); code != 200 || candidateOf(t, base)["file"] != two {
		t.Errorf("rolled back: got %d %v, want the file's candidate again", code, answer)
	}
	before := n.current.Load()
	s := running(t, "  f: {file: '"+one+"', candidate: {file: /nope.wasm, percent: 1}}\n", "f")
	if err := n.reload(s); err == nil || !strings.Contains(err.Error(), "f.yaml:2:3: the candidate of function f: stat /nope.wasm") || n.current.Load() != before {
		t.Errorf("a candidate that is not there: %v", err)
	}
}

func TestCandidateConfigurationErrors(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"functions: {f: {candidate: {file: x}}}", `f.yaml:1:29: percent is missing: the part of the requests that it gets`},
		{"functions: {f: {candidate: {percent: 1}}}", `f.yaml:1:29: file is missing: its module; an uploaded candidate stands before it`},
		{"functions: {f: {candidate: {file: x, percent: 101}}}", `f.yaml:1:47: percent: "101" is not between 0 and 100; write a number from 0 to 100, as 5 or 0.5`},
		{"functions: {f: {candidate: {file: x, percent: 5, by: id}}}", `f.yaml:1:54: by: "id" is neither; write address or cookie:NAME`},
		{"functions: {f: {candidate: {file: x, percent: 5, limits: {}}}}", `f.yaml:1:50: unknown key "limits"; known here: file, percent, by, shadow, config, vm_config`},
		{"functions: {f: {file: y, candidate: {file: x, percent: 5}}}\nsites: [{name: s, origins: ['http://x'], functions: {origin: [f]}}]",
			`f.yaml:1:37: s runs f at the origin's side, where what it makes for one client is stored for all; write shadow: true, or let viewer run it`},
		{"functions: {f: {file: y, candidate: {file: x, percent: 5, shadow: true}}}\nsites: [{name: s, origins: ['http://x'], functions: {origin: [f]}}]", ``},
	} {
		_, err := parse(c.text)
		if got := fmt.Sprint(err); got != c.want && (c.want != "" || err != nil) {
			t.Errorf("%s\ngot  %s\nwant %s", c.text, got, c.want)
		}
	}
}

// A shadow at a node changes no byte that a client gets, and its differences
// are told by the API and the metrics.
func TestShadowAtANode(t *testing.T) {
	_, front, admin := administered(t, "", running(t, "  f: {}\n", "f"))
	base := "http://" + admin + "/v1/functions/f"
	call(t, "PUT", base, setting("x-version", "1"))
	if code, answer := call(t, "PUT", base+"?shadow=true", setting("x-version", "2")); code != 201 || answer["percent"] != 100.0 {
		t.Fatalf("got %d %v", code, answer)
	}
	for i := range 20 {
		if got := having(t, front, fmt.Sprint(i)); got != "1" {
			t.Errorf("got version %q from the shadow", got)
		}
	}
	var seen float64
	(&program{t: t}).until("the shadow has seen, or dropped, every request, and all differed", func() bool {
		stats := candidateOf(t, base)["shadow_stats"].(map[string]any)
		seen = stats["requests"].(float64)
		return seen > 0 && seen == stats["different"] && seen+stats["dropped"].(float64) == 20
	})
	_, metrics := get("http://" + admin + "/metrics")
	for _, want := range []string{
		`seawall_function_candidate_percent{function="f"} 100`, `seawall_function_candidate_shadow{function="f"} 1`,
		fmt.Sprintf(`seawall_function_shadow_requests_total{function="f"} %v`, seen), fmt.Sprintf(`seawall_function_shadow_different_total{function="f"} %v`, seen),
		fmt.Sprintf(`seawall_function_shadow_differences_total{function="f",kind="response_fields"} %v`, seen),
		`seawall_function_calls_total{function="f",stage="viewer_request"} 20`,
		fmt.Sprintf(`seawall_function_candidate_calls_total{function="f",stage="viewer_request"} %v`, seen),
	} {
		if !strings.Contains(metrics, want+"\n") {
			t.Errorf("metrics have no %s", want)
		}
	}
}
