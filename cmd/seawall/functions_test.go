package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// call makes one call of the API and returns its status and JSON.
func call(t testing.TB, method, url string, body []byte) (int, map[string]any) {
	t.Helper()
	r, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	answer := map[string]any{}
	if len(text) > 0 {
		err = json.Unmarshal(text, &answer)
	}
	if err != nil {
		t.Fatalf("%s %s: %d %q: %v", method, url, res.StatusCode, text, err)
	}
	return res.StatusCode, answer
}

// field is a field of what a URL answers, and the status.
func field(t testing.TB, url, name string) string {
	t.Helper()
	res, body := get(url)
	if res == nil {
		t.Fatalf("%s: no answer", url)
	}
	if res.StatusCode != 200 {
		return fmt.Sprintf("%d %s", res.StatusCode, strings.TrimSpace(body))
	}
	return res.Header.Get(name)
}

// running is a site over an origin with these functions at the viewer's side.
func running(t *testing.T, functions string, viewer ...string) *settings {
	t.Helper()
	s := siteOver(sampleServer(t, func(r *http.Request) string { return r.URL.Path }))
	if functions != "" {
		made, err := parse("functions:\n" + functions)
		if err != nil {
			t.Fatal(err)
		}
		s.Functions, s.Upstreams, s.path = made.Functions, made.Upstreams, made.path
		s.Keys, s.Maps = made.Keys, made.Maps
	}
	s.Sites[0].Functions.Viewer = viewer
	return s
}

// Uploads come, are judged, swapped, shown and removed, by the rules of each.
func TestFunctionsByTheAPI(t *testing.T) {
	dir := t.TempDir()
	file := written(t, "file.wasm", setting("x-version", "file"))
	s := running(t, "  both: {file: '"+file+"', limits: {cpu: 7ms}}\n  later: {on_error: open}\n", "both", "later")
	n, front, admin := administered(t, dir, s)
	base := "http://" + admin + "/v1/functions"

	// What has no module fails closed, even if it were to fail open.
	if got := field(t, front+"/1", "X-Version"); !strings.HasPrefix(got, "503") {
		t.Errorf("with a function that is not uploaded yet: got %q, want 503", got)
	}
	_, shown := call(t, "GET", base+"/later", nil)
	if shown["state"] != "absent" || shown["detail"] == nil || !reflect.DeepEqual(shown["sites"], []any{"default"}) {
		t.Errorf("not uploaded yet: got %v, want it absent, with the reason and the site", shown)
	}
	if code, _ := call(t, "PUT", base+"/later", setting("x-later", "1")); code != 201 {
		t.Errorf("the first upload: got %d, want 201", code)
	}
	if got := field(t, front+"/1", "X-Later") + field(t, front+"/1", "X-Version"); got != "1file" {
		t.Errorf("both run: got %q, want 1file", got)
	}

	for _, c := range []struct {
		name, method, path string
		body               []byte
		code               int
		want               string // in the answer
	}{
		{"a list", "GET", "", nil, 200, `"sha256":"` + hashOf(setting("x-version", "file"))},
		{"an unknown one", "GET", "/nope", nil, 404, "no function"},
		{"a name that is none", "PUT", "/Nope", setting("a", "b"), 400, "is not a name of 1 to 64 small letters"},
		{"a name with a path", "PUT", "/..%2f..%2fx", setting("a", "b"), 400, "is not a name"},
		{"an empty module", "PUT", "/both", []byte{}, 400, "is empty"},
		{"no module", "PUT", "/both", []byte("hello"), 422, "module"},
		{"a component", "PUT", "/both", []byte("\x00asm\x0d\x00\x01\x00"), 422, "component"},
		{"forbidden imports, each named", "PUT", "/both", forbidden(), 422, `open_file`},
		{"and the other", "PUT", "/both", forbidden(), 422, `fork`},
		{"too large", "PUT", "/both", make([]byte, maxModule+1), 413, "larger than the 8388608 bytes"},
		{"an unknown setting", "PUT", "/both?speed=1", setting("a", "b"), 400, "speed"},
		{"a limit out of bounds", "PUT", "/both?limits.cpu=51ms", setting("a", "b"), 400, "is not between 100µs and 50ms"},
		{"a setting that a record cannot hold", "PUT", "/both?config=%ff", setting("a", "b"), 400, "is not UTF-8"},
		{"a setting twice", "PUT", "/both?mode=shared&mode=reset", setting("a", "b"), 400, "is there 2 times"},
		{"an unknown upstream", "PUT", "/both?upstreams=x", setting("a", "b"), 400, "no upstream of that name"},
		{"a file's path is not read", "PUT", "/both?config=file:/etc/passwd&mode=${HOME}", setting("a", "b"), 400, "is none of the choices"},
		{"the configuration's is not removed", "DELETE", "/both", nil, 409, "is the configuration's"},
		{"nothing to remove", "DELETE", "/nope", nil, 404, "no function"},
		{"one that a site runs is not removed", "DELETE", "/later", nil, 409, "is run by default"},
		{"no such method", "POST", "/both", setting("a", "b"), 405, "GET, HEAD, PUT, HEAD, DELETE"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, answer := call(t, c.method, base+c.path, c.body)
			text, _ := json.Marshal(answer)
			if c.name == "no such method" {
				c.want = "answers"
			}
			if code != c.code || !strings.Contains(string(text), c.want) {
				t.Errorf("%s %s: got %d %s, want %d and %q", c.method, c.path, code, text, c.code, c.want)
			}
			if got := field(t, front+"/1", "X-Version"); got != "file" {
				t.Errorf("after it: got %q, want the function to go on", got)
			}
		})
	}

	// An upload stands before the file of its name, with the file's settings
	// where it has none of its own.
	code, answer := call(t, "PUT", base+"/both?mode=shared", setting("x-version", "api"))
	if code != 201 || answer["source"] != "api" || answer["mode"] != "shared" || answer["abi"] != "http-wasm" || answer["on_error"] != "closed" {
		t.Errorf("over a file: got %d %v", code, answer)
	}
	if got := n.current.Load().functions.members["both"].options.Limits.CPU; got != 7*time.Millisecond {
		t.Errorf("the upload's cpu limit: got %s, want the file's 7ms", got)
	}
	if got := field(t, front+"/1", "X-Version"); got != "api" {
		t.Errorf("after an upload: got %q, want api", got)
	}
	_, shown = call(t, "GET", base+"/both", nil)
	if stats, _ := shown["stats"].(map[string]any); stats == nil || stats["stages"].(map[string]any)["viewer_request"].(map[string]any)["calls"].(float64) < 1 {
		t.Errorf("figures: got %v, want calls at viewer_request", shown["stats"])
	}
	// The same again changes nothing.
	before := n.current.Load()
	if code, _ := call(t, "PUT", base+"/both?mode=shared", setting("x-version", "api")); code != 200 || n.current.Load() != before {
		t.Errorf("the same upload again: got %d, new generation %v; want 200 and none", code, n.current.Load() != before)
	}
	if code, _ := call(t, "DELETE", base+"/both", nil); code != 204 {
		t.Errorf("removed: got %d, want 204", code)
	}
	if got := field(t, front+"/1", "X-Version"); got != "file" {
		t.Errorf("after its removal: got %q, want file", got)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "functions", "both*")); len(left) > 0 {
		t.Errorf("left on disk: %v", left)
	}
}

// A reload keeps what did not change, swaps what did, and leaves all alone
// when a module is bad.
func TestReloadOfFunctions(t *testing.T) {
	one, two := written(t, "one.wasm", setting("x-one", "1")), written(t, "two.wasm", setting("x-two", "1"))
	text := "  one: {file: '" + one + "'}\n  two: {file: '" + two + "'}\n"
	n, front, _ := administered(t, t.TempDir(), running(t, text, "one", "two"))
	of := func(name string) *loaded { return n.current.Load().functions.members[name].loaded }
	first, second := of("one"), of("two")
	reload := func(text string) error { return n.reload(running(t, text, "one", "two")) }

	if err := reload(text); err != nil || of("one") != first || of("two") != second {
		t.Errorf("nothing changed: %v, kept %v and %v; want both kept", err, of("one") == first, of("two") == second)
	}
	if err := os.WriteFile(two, setting("x-two", "2"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := reload(text); err != nil || of("one") != first || of("two") == second {
		t.Errorf("a file changed: %v, kept %v and %v; want the first alone", err, of("one") == first, of("two") == second)
	}
	if got := field(t, front+"/a", "X-Two"); got != "2" {
		t.Errorf("the changed one answers %q, want 2", got)
	}
	if err := reload("  one: {file: '" + one + "', limits: {cpu: 3ms}}\n  two: {file: '" + two + "'}\n"); err != nil || of("one") == first {
		t.Errorf("a limit changed: %v, kept %v; want a new one", err, of("one") == first)
	}
	before := n.current.Load()
	if err := os.WriteFile(two, forbidden(), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ text, want string }{
		{text, "f.yaml:3:3: function two: "},
		{"  one: {file: /nope.wasm}\n  two: {file: '" + one + "'}\n", "f.yaml:2:3: function one: stat /nope.wasm"},
		{"  one: {file: '" + one + "'}\n", ""},
	} {
		s := running(t, c.text, "one", "two")
		s.unresolved = nil
		if c.want == "" { // the site names what is not there
			s.unresolved = []unresolved{{"two", "default", fault{9, 9, "no function is named two"}}}
			c.want = "f.yaml:9:9: no function is named two"
		}
		if err := n.reload(s); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %s", c.text, err, c.want)
		}
	}
	if n.current.Load() != before || field(t, front+"/b", "X-Two") != "2" {
		t.Error("a bad module changed what runs")
	}
	n.retired.Wait()
	if n.functions.mu.Lock(); len(n.functions.engines) != 1 {
		t.Errorf("%d hosts, want 1", len(n.functions.engines))
	}
	n.functions.mu.Unlock()

	// Other upstreams take another host; the one before ends with its
	// functions.
	s := running(t, "  one: {file: '"+one+"', upstreams: [u]}\n  two: {}\nupstreams: {u: {url: 'http://127.0.0.1:1'}}\n", "one", "two")
	if err := n.reload(s); err != nil {
		t.Fatal(err)
	}
	n.retired.Wait()
	n.functions.figures()
	n.functions.mu.Lock()
	defer n.functions.mu.Unlock()
	if len(n.functions.engines) != 1 || len(n.functions.engines[0].loaded) != 2 {
		t.Errorf("%d hosts after other upstreams, want 1 with two functions", len(n.functions.engines))
	}
}

// What was uploaded is there after a restart; what cannot be read then is
// said, and its sites answer 503.
func TestUploadsSurviveRestarts(t *testing.T) {
	dir := t.TempDir()
	origin := sampleServer(t, func(r *http.Request) string { return r.URL.Path })
	start := func(t *testing.T, use func(n *node, front, base string)) string {
		d, err := openData(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		s := siteOver(origin)
		s.Listen.Admin = "127.0.0.1:0"
		s.Sites[0].Functions.Viewer = []string{"a"}
		s.unresolved = []unresolved{{"a", "default", fault{1, 1, "no function is named a"}}}
		errs := new(output)
		n, err := newNode(s, d, &terminal{io.Discard, errs})
		if err != nil {
			return err.Error()
		}
		ends := n.serve()
		defer func() { n.close(); <-ends }()
		use(n, n.clearURL(), "http://"+n.side.Addrs()[0].String()+"/v1/functions")
		return errs.String()
	}
	serve := func(want string) func(*node, string, string) {
		return func(n *node, front, base string) {
			t.Helper()
			if got := field(t, front+"/x", "X-A"); !strings.HasPrefix(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		}
	}
	if got := start(t, nil); !strings.Contains(got, "no function is named a") {
		t.Fatalf("with nothing uploaded: got %q, want a refusal", got)
	}
	// Uploaded to a node whose sites do not need it yet.
	func() {
		s := siteOver(origin)
		_, _, admin := administered(t, dir+"/other", s)
		call(t, "PUT", "http://"+admin+"/v1/functions/a?config=%7B%7D&limits.cpu=9ms", setting("x-a", "1"))
	}()
	for _, name := range []string{"a.json", "a.wasm"} {
		content, err := os.ReadFile(filepath.Join(dir, "other", "functions", name))
		if err != nil {
			t.Fatal(err)
		}
		if info, _ := os.Stat(filepath.Join(dir, "other", "functions", name)); runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has the mode %v, want 0600", name, info.Mode())
		}
		if err := os.MkdirAll(filepath.Join(dir, "functions"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "functions", name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	start(t, func(n *node, front, base string) {
		serve("1")(n, front, base)
		if got := n.current.Load().functions.members["a"].options; got.Config != "{}" || got.Limits.CPU != 9*time.Millisecond {
			t.Errorf("its settings: got %+v", got)
		}
		if code, _ := call(t, "PUT", base+"/a", setting("x-a", "2")); code != 200 {
			t.Errorf("a second upload: got %d, want 200", code)
		}
	})
	start(t, serve("2"))

	path := filepath.Join(dir, "functions", "a.wasm")
	if err := os.WriteFile(path, []byte("\x00asm broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	said := start(t, func(n *node, front, base string) {
		serve("503")(n, front, base)
		if _, shown := call(t, "GET", base+"/a", nil); shown["state"] != "absent" || !strings.Contains(fmt.Sprint(shown["detail"]), "damaged") {
			t.Errorf("a damaged module is shown as %v", shown)
		}
		// Another function's upload does not touch it; its own mends it.
		if code, _ := call(t, "PUT", base+"/b", setting("x-b", "1")); code != 201 {
			t.Errorf("another's upload: got %d", code)
		}
		serve("503")(n, front, base)
		if code, _ := call(t, "PUT", base+"/a", setting("x-a", "3")); code != 200 {
			t.Errorf("a new upload: got %d", code)
		}
		serve("3")(n, front, base)
	})
	if !strings.Contains(said, "level=ERROR") || !strings.Contains(said, "function=a") {
		t.Errorf("the log says %q, want an error line of the function", said)
	}
}

// Wherever a crash ends an upload or a removal, the next start has the old
// function or the new one, whole.
func TestUploadFolderAfterCrashes(t *testing.T) {
	quiet := func(t *testing.T, dir string) map[string]*upload {
		t.Helper()
		_, all, err := openUploads(dir, discard())
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	old, next := []byte("the old module"), []byte("the new one")
	record := func(module []byte) []byte {
		text, _ := json.Marshal(&upload{Name: "f", SHA256: hashOf(module), Size: len(module)})
		return text
	}
	for _, c := range []struct {
		name  string
		files map[string][]byte
		want  string // the module, "" for none
		left  []string
	}{
		{"whole", map[string][]byte{"f.json": record(old), "f.wasm": old}, "the old module", []string{"f.json", "f.wasm"}},
		{"the new module was written", map[string][]byte{"f.json": record(old), "f.wasm": old, "f.new.wasm": next}, "the old module", []string{"f.json", "f.wasm"}},
		{"and its record", map[string][]byte{"f.json": record(next), "f.wasm": old, "f.new.wasm": next}, "the new one", []string{"f.json", "f.wasm"}},
		{"a first one's module", map[string][]byte{"f.new.wasm": next}, "", nil},
		{"a first one's record", map[string][]byte{"f.json": record(next), "f.new.wasm": next}, "the new one", []string{"f.json", "f.wasm"}},
		{"a removal's record", map[string][]byte{"f.wasm": old}, "", nil},
		{"temporary files", map[string][]byte{"f.json.123": next, "f.new.wasm.77": next, "f.json": record(old), "f.wasm": old}, "the old module", []string{"f.json", "f.wasm"}},
		{"what is not the node's stays", map[string][]byte{"README.txt": old, "F.json": old}, "", []string{"F.json", "README.txt"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, content := range c.files {
				if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			all := quiet(t, dir)
			got := ""
			if u := all["f"]; u != nil {
				module, err := u.read()
				if err != nil {
					t.Errorf("unreadable: %v", err)
				}
				got = string(module)
			}
			var left []string
			entries, _ := os.ReadDir(dir)
			for _, e := range entries {
				left = append(left, e.Name())
			}
			if got != c.want || !slices.Equal(left, c.left) {
				t.Errorf("%v: got %q and files %v, want %q and %v", slices.Sorted(maps.Keys(c.files)), got, left, c.want, c.left)
			}
		})
	}
	for _, c := range []struct{ name, text string }{
		{"no JSON", "hello"}, {"another's record", `{"name":"g","sha256":"` + hashOf(old) + `"}`}, {"no hash", `{"name":"f"}`},
		{"an unknown field", `{"name":"f","sha256":"` + hashOf(old) + `","owner":1}`},
	} {
		dir := t.TempDir()
		os.WriteFile(filepath.Join(dir, "f.json"), []byte(c.text), 0o600)
		os.WriteFile(filepath.Join(dir, "f.wasm"), old, 0o600)
		if u := quiet(t, dir)["f"]; u == nil || u.broken == nil {
			t.Errorf("%s: got %+v, want a function that is broken", c.name, u)
		}
	}
}

// The same upload again mends what the folder has lost, and a removal is done
// once the record is gone: what the API said holds after a restart.
func TestUploadsAreKeptAsTheAPISaid(t *testing.T) {
	dir := t.TempDir()
	_, _, admin := administered(t, dir, running(t, ""))
	base, folder := "http://"+admin+"/v1/functions/f", filepath.Join(dir, "functions")
	record, module := filepath.Join(folder, "f.json"), filepath.Join(folder, "f.wasm")
	if code, answer := call(t, "PUT", base+"?config=a", setting("x-a", "1")); code != 201 {
		t.Fatalf("got %d %v, want 201", code, answer)
	}
	for name, lose := range map[string]func() error{
		"nothing":         func() error { return nil },
		"a module":        func() error { return os.Remove(module) },
		"a module's part": func() error { return os.WriteFile(module, []byte("\x00asm"), 0o600) },
		"a record":        func() error { return os.Remove(record) },
	} {
		if err := lose(); err != nil {
			t.Fatal(err)
		}
		code, answer := call(t, "PUT", base+"?config=a", setting("x-a", "1"))
		_, all, err := openUploads(folder, discard())
		if code != 200 || err != nil || all["f"] == nil || all["f"].broken != nil {
			t.Errorf("%s lost and uploaded again: got %d %v, kept is %+v %v", name, code, answer, all["f"], err)
		}
	}
	// A module that cannot be removed: here it is a folder that is not empty.
	if err := errors.Join(os.Remove(module), os.MkdirAll(filepath.Join(module, "x"), 0o700)); err != nil {
		t.Fatal(err)
	}
	if code, answer := call(t, "DELETE", base, nil); code != 204 {
		t.Errorf("removal: got %d %v, want 204", code, answer)
	}
	if code, answer := call(t, "GET", base, nil); code != 404 {
		t.Errorf("removed: got %d %v, want 404", code, answer)
	}
	if _, all, err := openUploads(folder, discard()); err != nil || len(all) != 0 {
		t.Errorf("after a restart: %v, %v; want none", all, err)
	}
}

// Uploads swap a function under traffic: no request fails, a client never sees
// an older version after a newer one, and what is gone is freed.
func TestSwapsUnderTraffic(t *testing.T) {
	swaps := 200
	long := os.Getenv("SEAWALL_LONG") != ""
	if long {
		swaps = 10_000
	}
	s := running(t, "  f: {}\n", "f")
	s.Log.Level, s.Cache.Memory = slog.LevelError, mib // what grows by itself, grows before the first measurement
	n, front, admin := administered(t, "", s)
	base, done := "http://"+admin+"/v1/functions/f", 0
	var asked atomic.Int64
	under := func(count int) (memory uint64) {
		var stop atomic.Bool
		var clients sync.WaitGroup
		for c := range 4 {
			clients.Go(func() { swapClient(t, front, c, &stop, &asked) })
		}
		for last := done + count; done < last && !t.Failed(); done++ {
			if code, answer := call(t, "PUT", base, setting("x-version", strconv.Itoa(done))); code != 200 {
				t.Errorf("swap %d: got %d %v", done, code, answer)
			}
		}
		stop.Store(true)
		clients.Wait()
		n.retired.Wait()
		n.functions.figures()
		memory = ^uint64(0)
		for range 5 {
			debug.FreeOSMemory()
			memory = min(memory, resident(t))
		}
		return memory
	}
	call(t, "PUT", base, setting("x-version", "0"))
	before := under(swaps / 10)
	after := under(swaps - swaps/10)
	t.Logf("%d swaps, %d requests; resident %d KiB after a tenth of them, %d KiB at the end", done, asked.Load(), before>>10, after>>10)
	n.functions.mu.Lock()
	left := len(n.functions.engines[0].loaded)
	n.functions.mu.Unlock()
	if left != 1 {
		t.Errorf("%d functions are left, want 1", left)
	}
	if long && after > before+before/20 {
		t.Errorf("resident memory grew from %d KiB to %d KiB, more than 5 %%", before>>10, after>>10)
	}
	if got := n.functions.figures()["f"]; got.Stages[0].Calls < asked.Load() || len(got.Stages[0].Traps) > 0 {
		t.Errorf("figures of all versions: got %+v, want %d calls at viewer_request and no trap", got.Stages[0], asked.Load())
	}
}

// swapClient asks for hits and misses until stop.
func swapClient(t *testing.T, front string, c int, stop *atomic.Bool, asked *atomic.Int64) {
	last := 0
	for !stop.Load() {
		path := "/hit"
		if n := asked.Add(1); n%2 == 0 {
			path = fmt.Sprintf("/miss/%d/%d", c, n)
		}
		res, body := get(front + path)
		if res == nil || res.StatusCode != 200 || body != path {
			t.Errorf("%s: got %+v %q, want 200", path, res, body)
			return
		}
		version, err := strconv.Atoi(res.Header.Get("X-Version"))
		if err != nil || version < last {
			t.Errorf("%s: ran version %q after %d", path, res.Header.Get("X-Version"), last)
			return
		}
		last = version
	}
}

// resident is the memory of the process, in bytes; 0 where it is not told.
func resident(t *testing.T) uint64 {
	t.Helper()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	pages, err := strconv.ParseUint(strings.Fields(string(text))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * uint64(os.Getpagesize())
}

// Uploads, removals and reloads at once leave what the last of each said.
func TestChangesAtOnce(t *testing.T) {
	n, front, admin := administered(t, t.TempDir(), running(t, "  f: {}\n", "f"))
	base := "http://" + admin + "/v1/functions/"
	text := "  f: {}\n"
	s := running(t, text, "f")
	call(t, "PUT", base+"f", setting("x-version", "0"))
	var all sync.WaitGroup
	for c := range 4 {
		all.Go(func() {
			for i := range 5 {
				if code, answer := call(t, "PUT", base+"f", setting("x-version", fmt.Sprint(c, i))); code != 200 {
					t.Errorf("PUT: got %d %v", code, answer)
				}
				name := fmt.Sprintf("extra-%d", c)
				if code, answer := call(t, "PUT", base+name, setting("x-extra", "1")); code != 201 {
					t.Errorf("PUT %s: got %d %v", name, code, answer)
				}
				if code, answer := call(t, "DELETE", base+name, nil); code != 204 {
					t.Errorf("DELETE %s: got %d %v", name, code, answer)
				}
			}
		})
	}
	for range 10 {
		if err := n.reload(s); err != nil {
			t.Error(err)
		}
	}
	all.Wait()
	if got := field(t, front+"/", "X-Version"); !regexp.MustCompile(`^\d 4$`).MatchString(got) {
		t.Errorf("after all: got %q, want the last of one client", got)
	}
	_, list := call(t, "GET", strings.TrimSuffix(base, "/"), nil)
	if fs, _ := list["functions"].([]any); len(fs) != 1 {
		t.Errorf("left: %v, want f alone", list)
	}
}

// The headers sample, attached to a site, does its work on misses and hits
// over every protocol, and its figures are told.
func TestHeadersSampleOverEveryProtocol(t *testing.T) {
	module := written(t, "headers.wasm", sample(t))
	origin := sampleServer(t, func(r *http.Request) string { return r.URL.Path })
	config := written(t, "c.yaml", []byte(`
functions:
  headers:
    file: '`+module+`'
    config: |
      X-Frame-Options: DENY
      cors: https://app.example
sites: [{name: site, origins: ['`+origin+`'], functions: {viewer: [headers]}}]
`))
	if code, out, errs := command("check", config); code != 0 {
		t.Fatalf("check: %d %s %s", code, out, errs)
	}
	p := secureNode(t, "--config", config, "--data", "")
	eachProtocol(t, func(t *testing.T, proto string, c *http.Client) {
		target := p.secure + "/by/" + url.PathEscape(proto)
		for _, outcome := range []string{"fwd=uri-miss", "hit"} {
			r, err := http.NewRequest("GET", target, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Origin", "https://app.example")
			res, err := c.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(res.Body)
			res.Body.Close()
			h := res.Header
			if res.StatusCode != 200 || !strings.Contains(h.Get("Cache-Status"), outcome) || h.Get("X-Frame-Options") != "DENY" ||
				h.Get("Access-Control-Allow-Origin") != "https://app.example" || len(body) == 0 {
				t.Errorf("%s, %s: got %d %v %q", proto, outcome, res.StatusCode, h, body)
			}
		}
	})
	_, metrics := get(p.admin + "/metrics")
	for _, want := range []string{
		`seawall_function_calls_total{function="headers",stage="viewer_response"} `,
		`seawall_function_fuel_total{function="headers",stage="viewer_response"} `,
		`seawall_function_traps_total{function="headers",stage="viewer_response"} 0`,
		`seawall_function_duration_seconds_count{function="headers",stage="viewer_response"} `,
		`seawall_function_instances{function="headers"} `,
		`seawall_function_breaker_open{function="headers"} 0`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("metrics have no %s", want)
		}
	}
}

// What a function at the origin's side does is stored: a swap shows on misses
// alone, and one that fails closed there leaves hits alone.
func TestFunctionsAtTheOrigin(t *testing.T) {
	s := running(t, "  f: {}\n")
	s.Sites[0].Functions.Origin = []string{"f"}
	_, front, admin := administered(t, "", s)
	base := "http://" + admin + "/v1/functions/f"
	if got := field(t, front+"/absent", "X-Version"); !strings.HasPrefix(got, "50") {
		t.Errorf("without a module: got %q, want an error", got)
	}
	for i, want := range []string{"1", "2"} {
		if code, answer := call(t, "PUT", base, setting("x-version", want)); code/100 != 2 {
			t.Fatalf("got %d %v", code, answer)
		}
		cached(t, front, "/"+want)
		if got := field(t, front+"/"+want, "X-Version"); got != want {
			t.Errorf("what version %s stored: got %q", want, got)
		}
		if got := field(t, front+"/1", "X-Version"); got != "1" {
			t.Errorf("after version %d: what the first stored has %q, want 1", i+1, got)
		}
	}
}

// check loads the modules that are there, and knows what was uploaded.
func TestCheckOfFunctions(t *testing.T) {
	good, bad := written(t, "good.wasm", setting("a", "b")), written(t, "bad.wasm", forbidden())
	const site = "sites: [{origins: ['http://a'], functions: {viewer: [f]}}]\n"
	data := t.TempDir()
	if err := os.MkdirAll(filepath.Join(data, "functions"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "functions", "f.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, text string
		args       []string
		code       int
		want       string
	}{
		{"good", "functions: {f: {file: '" + good + "'}}\n" + site, nil, 0, "OK, 1 site"},
		{"refused", "functions:\n  f: {file: '" + bad + "'}\n" + site, nil, 1, "c.yaml:2:3: function f: it imports"},
		{"a candidate refused", "functions:\n  f: {file: '" + good + "', candidate: {file: '" + bad + "', percent: 1}}\n" + site, nil, 1, "c.yaml:2:3: the candidate of function f: it imports"},
		{"a candidate not there", "functions: {f: {file: '" + good + "', candidate: {file: /nope.wasm, percent: 1}}}\n" + site, nil, 0, "a function was not looked at"},
		{"not there", "functions: {f: {file: /nope.wasm}}\n" + site, nil, 0, "a function was not looked at"},
		{"a folder", "functions: {f: {file: /}}\n" + site, nil, 1, "is not a regular file"},
		{"to be uploaded", "functions: {f: {}}\n" + site, nil, 0, "OK, 1 site"},
		{"unknown", site, nil, 1, `c.yaml:1:54: no function is named "f"; add it`},
		{"uploaded", site, []string{"--data", data}, 0, "OK, 1 site"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out, errs := command(append([]string{"check", written(t, "c.yaml", []byte(c.text))}, c.args...)...)
			if code != c.code || !strings.Contains(out+errs, c.want) {
				t.Errorf("%s: got %d %q %q, want %d and %q", c.text, code, out, errs, c.code, c.want)
			}
		})
	}
}
