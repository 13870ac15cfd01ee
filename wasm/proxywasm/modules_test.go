package proxywasm

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"seawall/wasm/abi"
)

// download returns the folder of a module version, whose content is pinned by
// its sum. Tests that cannot get it are skipped: they need a network once.
func download(t *testing.T, module, version, sum string) string {
	t.Helper()
	if testing.Short() {
		t.Skip("may download a module: not in short mode")
	}
	out, err := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", module+"@"+version).Output()
	var got struct{ Dir, Sum, Error string }
	if jsonErr := json.Unmarshal(out, &got); err != nil || jsonErr != nil || got.Error != "" {
		t.Skipf("%s@%s cannot be obtained: %v %s", module, version, err, got.Error)
	}
	if got.Sum != sum {
		t.Fatalf("%s@%s: sum %s, want %s", module, version, got.Sum, sum)
	}
	return got.Dir
}

// TestCompiledModuleOf010 runs a C++ module as it was published: ABI 0.1.0 on
// emscripten, with _start, malloc and wasi_unstable. It logs request headers.
func TestCompiledModuleOf010(t *testing.T) {
	dir := download(t, "mosn.io/proxy-wasm-go-host", "v0.2.0", "h1:v76IiYnqEHBJdLw+vloM/vBHEKg5Z2f3ghTHKfDdECA=")
	wasm, err := os.ReadFile(filepath.Join(dir, "example", "data", "http.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	h, s, x := newHost(t), newServices(), exchange()
	g, _, err := h.start(wasm, s)
	if err != nil {
		t.Fatal(err)
	}
	// Two streams at once, as one VM has them.
	first, second := must[abi.Stream](t)(g.Begin(x)), must[abi.Stream](t)(g.Begin(exchange()))
	for _, stream := range []abi.Stream{second, first} {
		if action := walk(t, stream, "log"); action != abi.Continue {
			t.Errorf("action %d, want Continue", action)
		}
	}
	same(t, "exchange", x, exchange())
	lines := strings.Join(s.lines, "\n")
	for _, want := range []string{":path -> /a?b=c", "accept -> text/html", "x-two -> 2"} {
		if strings.Count(lines, want) != 2 {
			t.Errorf("log\n%s\nmust have twice: %s", lines, want)
		}
	}
	if g.streams.len() != 0 {
		t.Errorf("%d contexts are left", g.streams.len())
	}
}

// sdkGuest builds the guest on the published Go SDK, out of the module cache.
func sdkGuest(t *testing.T) []byte {
	t.Helper()
	const module, version = "github.com/proxy-wasm/proxy-wasm-go-sdk", "v0.0.0-20250212164326-ab4161dcf924"
	sdk := download(t, module, version, "h1:wTcK6gcyTKJMeDka69AMjZYvisdI8CBXzTEfZ+2pOxI=")
	dir := t.TempDir()
	source, err := os.ReadFile(filepath.Join("testdata", "sdk", "main.go"))
	if err != nil {
		t.Fatal(err)
	}
	mod := fmt.Sprintf("module guest\n\ngo 1.24\n\nrequire %s %s\n\nreplace %s => %s\n", module, version, module, sdk)
	for name, content := range map[string][]byte{"main.go": source, "go.mod": []byte(mod)} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return buildGuest(t, dir, "GOFLAGS=-mod=mod", "GOWORK=off")
}

func TestGuestOnGoSDK(t *testing.T) {
	wasm := sdkGuest(t)
	h, s := newHost(t), newServices()
	g, _, err := h.start(wasm, s)
	if err != nil {
		t.Fatal(err)
	}
	begin := func(path string) (abi.Stream, *abi.Exchange, *int) {
		x, woken := exchange(), new(int)
		x.Request.Target, x.Wake = path, func() { *woken++ }
		return must[abi.Stream](t)(g.Begin(x)), x, woken
	}

	open, x, _ := begin("/open")
	x.Response.Header.Set("Content-Length", "6")
	if action := walk(t, open, "response_headers"); action != abi.Continue {
		t.Fatalf("open: action %d, want Continue", action)
	}
	x.Response.Body, x.Response.Ended = []byte("ans"), false
	if action := must[abi.Action](t)(open.ResponseBody()); action != abi.Pause {
		t.Fatalf("half the content: action %d, want Pause", action)
	}
	x.Response.Body, x.Response.Ended = []byte("answer"), true
	if action := must[abi.Action](t)(open.ResponseBody()); action != abi.Continue {
		t.Fatalf("all content: action %d, want Continue", action)
	}
	if got := string(x.Response.Body); got != "ANSWER" || x.Response.Header.Get("X-Config") != "plugin config" || x.Response.Header.Get("Content-Length") != "" {
		t.Errorf("response %q %v, want ANSWER without a length", got, x.Response.Header)
	}

	known, x, woken := begin("/known")
	refused, y, turned := begin("/refused")
	gone, _, _ := begin("/gone")
	for _, stream := range []abi.Stream{known, refused, gone} {
		if action := must[abi.Action](t)(stream.RequestHeaders()); action != abi.Pause {
			t.Fatalf("action %d, want Pause", action)
		}
	}
	if err := gone.End(); err != nil {
		t.Fatal(err)
	}
	for i, status := range []int{200, 401, 200} {
		if err := s.deliver[i](&abi.HTTPReply{Status: status}); err != nil {
			t.Fatal(err)
		}
	}
	if *woken != 1 || !known.Resumed(false) || x.Request.Header.Get("X-User") != "known" {
		t.Errorf("known: woken %d, header %v; want resumed with x-user", *woken, x.Request.Header)
	}
	if *turned != 1 || !y.Answered || y.Response.Status != 403 || string(y.Response.Body) != "no" || y.Response.Header.Get("X-Why") != "auth" {
		t.Errorf("refused: woken %d, answer %+v; want 403", *turned, y.Response)
	}
	for _, stream := range []abi.Stream{open, known, refused} {
		if err := stream.End(); err != nil {
			t.Fatal(err)
		}
	}
	same(t, "metrics", s.metrics, []uint64{4})
	same(t, "log", s.lines, []string{"2 done", "2 done", "2 done", "2 done"})
	if g.streams.len()+len(g.calls) != 0 {
		t.Errorf("%d contexts and %d calls are left", g.streams.len(), len(g.calls))
	}

	s.config = []byte("refuse")
	if _, _, err := h.start(wasm, s); err == nil || !strings.Contains(err.Error(), "refused its configuration") {
		t.Errorf("got error %v, want a refused configuration", err)
	}
}
