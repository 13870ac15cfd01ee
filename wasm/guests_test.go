package wasm

import (
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// moduleDir returns the folder of a Go module that has compiled guests, which
// are not ours to copy. The test is skipped when it cannot be had; a module
// of another sum fails it.
func moduleDir(t testing.TB, module, sum string) string {
	t.Helper()
	cmd := exec.Command("go", "mod", "download", "-json", module)
	cmd.Dir = t.TempDir()
	out, err := cmd.Output()
	var m struct{ Dir, Sum, Error string }
	if e := json.Unmarshal(out, &m); e != nil || m.Dir == "" {
		t.Skipf("%s cannot be had here: %v %s (hint: it needs the go command, and the network once)", module, err, m.Error)
	}
	if m.Sum != sum {
		t.Fatalf("%s: got sum %s, want %s", module, m.Sum, sum)
	}
	return m.Dir
}

// guestModules are Go modules with http-wasm guests, and what each guest makes
// of a POST of "hello world" to /v1.0/hi?name=panda: status, content and a
// header of the answer, or a part of the sentence that refuses it. The origin
// answers with what it was asked.
var guestModules = []struct {
	module, sum string
	guests      map[string]string
}{
	{"github.com/http-wasm/http-wasm-host-go@v0.7.0", "h1:+1KrRyOO6tWiDB24QrtSYyDmzFLBBs3jioKaUT0mq1c=", map[string]string{
		"examples/auth.wasm":   "401 \"\" map[Www-Authenticate:[Basic realm=\"test\"]]",
		"examples/config.wasm": "200 \"POST /v1.0/hi?name=panda hello world\"",
		"examples/log.wasm":    "200 \"POST /v1.0/hi?name=panda hello world\"",
		"examples/redact.wasm": "200 \"POST /v1.0/hi?name=##### hello world\"",
		"examples/router.wasm": "200 \"hello world\"",
		"examples/wasi.wasm":   "200 \"POST /v1.0/hi?name=panda hello world\"",
		"internal/test/testdata/bench/add_header_value.wasm":              "200 \"\" map[Set-Cookie:[a=b]]",
		"internal/test/testdata/bench/get_header_names.wasm":              "200 \"\"",
		"internal/test/testdata/bench/get_header_values.wasm":             "200 \"\"",
		"internal/test/testdata/bench/get_uri.wasm":                       "200 \"\"",
		"internal/test/testdata/bench/log.wasm":                           "200 \"\"",
		"internal/test/testdata/bench/read_body.wasm":                     "200 \"\"",
		"internal/test/testdata/bench/read_body_stream.wasm":              "200 \"\"",
		"internal/test/testdata/bench/remove_header.wasm":                 "200 \"\"",
		"internal/test/testdata/bench/set_header_value.wasm":              "200 \"\"",
		"internal/test/testdata/bench/set_status_code.wasm":               "404 \"\"",
		"internal/test/testdata/bench/set_uri.wasm":                       "200 \"\"",
		"internal/test/testdata/bench/write_body.wasm":                    "200 \"\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\"",
		"internal/test/testdata/e2e/handle_response.wasm":                 "200 \"POST /v1.0/hi?name=panda hello world\"",
		"internal/test/testdata/e2e/header_names.wasm":                    "200 \"POST /v1.0/hi?name=panda hello world\"",
		"internal/test/testdata/e2e/header_value.wasm":                    "200 \"POST /v1.0/hi?name=panda hello world\"",
		"internal/test/testdata/e2e/method.wasm":                          "200 \"POST /v1.0/hi?name=panda POST\"",
		"internal/test/testdata/e2e/protocol_version.wasm":                "200 \"HTTP/1.1\"",
		"internal/test/testdata/e2e/uri.wasm":                             "200 \"POST /v1.0/hello?name=teddy /v1.0/hi?name=panda\"",
		"internal/test/testdata/error/panic_on_handle_request.wasm":       "it serves neither of two synthetic requests",
		"internal/test/testdata/error/panic_on_handle_response.wasm":      "it serves neither of two synthetic requests",
		"internal/test/testdata/error/panic_on_start.wasm":                "start: _start: unreachable",
		"internal/test/testdata/error/set_request_header_after_next.wasm": "a request header cannot be changed after next",
		"tck/tck.wasm": "500 \"missing x-httpwasm-tck-testid header\"",
	}},
	{"github.com/http-wasm/http-wasm-guest-tinygo@v0.4.0", "h1:sWd1hqOL8LF3DVRPXloVELTQItibKtDCtVSA4UfMf4Y=", map[string]string{
		"examples/router/main.wasm":                                       "200 \"hello\"",
		"examples/wasi/main.wasm":                                         "200 \"POST /v1.0/hi?name=panda hello world\"",
		"internal/test/testdata/bench/tinygo/add_header_value/main.wasm":  "200 \"\" map[Set-Cookie:[a=b]]",
		"internal/test/testdata/bench/tinygo/get_header_names/main.wasm":  "200 \"\"",
		"internal/test/testdata/bench/tinygo/get_header_values/main.wasm": "200 \"\"",
		"internal/test/testdata/bench/tinygo/get_uri/main.wasm":           "200 \"\"",
		"internal/test/testdata/bench/tinygo/log/main.wasm":               "200 \"\"",
		"internal/test/testdata/bench/tinygo/read_body/main.wasm":         "200 \"\"",
		"internal/test/testdata/bench/tinygo/read_body_stream/main.wasm":  "200 \"\"",
		"internal/test/testdata/bench/tinygo/remove_header/main.wasm":     "200 \"\"",
		"internal/test/testdata/bench/tinygo/set_header_value/main.wasm":  "200 \"\"",
		"internal/test/testdata/bench/tinygo/set_status_code/main.wasm":   "404 \"\"",
		"internal/test/testdata/bench/tinygo/set_uri/main.wasm":           "200 \"\"",
		"internal/test/testdata/bench/tinygo/stream_body/main.wasm":       "200 \"\"",
		"internal/test/testdata/bench/tinygo/write_body/main.wasm":        "200 \"hello world\"",
		"internal/test/testdata/bench/wat/add_header_value.wasm":          "200 \"\" map[Set-Cookie:[a=b]]",
		"internal/test/testdata/bench/wat/get_header_names.wasm":          "200 \"\"",
		"internal/test/testdata/bench/wat/get_header_values.wasm":         "200 \"\"",
		"internal/test/testdata/bench/wat/get_uri.wasm":                   "200 \"\"",
		"internal/test/testdata/bench/wat/log.wasm":                       "200 \"\"",
		"internal/test/testdata/bench/wat/read_body.wasm":                 "200 \"\"",
		"internal/test/testdata/bench/wat/read_body_stream.wasm":          "200 \"\"",
		"internal/test/testdata/bench/wat/remove_header.wasm":             "200 \"\"",
		"internal/test/testdata/bench/wat/set_header_value.wasm":          "200 \"\"",
		"internal/test/testdata/bench/wat/set_status_code.wasm":           "404 \"\"",
		"internal/test/testdata/bench/wat/set_uri.wasm":                   "200 \"\"",
		"internal/test/testdata/bench/wat/write_body.wasm":                "200 \"\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\"",
		"internal/test/testdata/e2e/tinygo/features/main.wasm":            "200 \"buffer_request|buffer_response\"",
		"internal/test/testdata/e2e/tinygo/handle_response/main.wasm":     "200 \"43\"",
		"internal/test/testdata/e2e/tinygo/log/main.wasm":                 "200 \"POST /v1.0/hi?name=panda hello world\"",
		"internal/test/testdata/e2e/wat/router.wasm":                      "200 \"hello world\"",
		"internal/test/testdata/e2e/wat/wasi.wasm":                        "200 \"POST /v1.0/hi?name=panda hello world\"",
	}},
	{"github.com/dapr/components-contrib@v1.14.0", "h1:ic7JeOMfvbWS4a8ZhV8uZnnTCQVJAYIONWFUKDPgOcM=", map[string]string{
		"common/wasm/testdata/args/main.wasm":                 "it is a WASI command",
		"common/wasm/testdata/strict/main.wasm":               "it is a WASI command",
		"middleware/http/wasm/internal/testdata/rewrite.wasm": "200 \"POST /v1.0/hello?name=teddy hello world\"",
	}},
}

// configs are configurations that guests cannot do without.
var configs = map[string]string{
	"examples/config.wasm": "\x01\x00\x00\x00\x00\x00\x00\x00",
	"examples/redact.wasm": "panda",
}

// TestKnownGuests loads and runs every compiled guest that can be had.
func TestKnownGuests(t *testing.T) {
	for _, m := range guestModules {
		t.Run(m.module, func(t *testing.T) {
			dir := moduleDir(t, m.module, m.sum)
			seen := 0
			err := filepath.WalkDir(dir, func(file string, _ fs.DirEntry, err error) error {
				name, _ := filepath.Rel(dir, file)
				name = filepath.ToSlash(name)
				if err != nil || !strings.HasSuffix(name, ".wasm") {
					return err
				}
				seen++
				source, err := os.ReadFile(file)
				if err != nil {
					return err
				}
				got := serve(t, source, configs[name])
				want, ok := m.guests[name]
				if !ok || got != want && (strings.HasPrefix(want, "200") || !strings.Contains(got, want)) {
					t.Errorf("%s: got %q, want %q", name, got, want)
				}
				return nil
			})
			if err != nil || seen != len(m.guests) {
				t.Errorf("%d guests seen, %v, want %d", seen, err, len(m.guests))
			}
		})
	}
}

// serve runs a guest between a client and an origin.
func serve(t *testing.T, source []byte, config string) string {
	h := newHost(t, Options{})
	f, err := h.Load(t.Context(), Spec{Name: "f", Source: source, Config: []byte(config), Limits: Limits{CPU: 50 * time.Millisecond, Wall: 30 * time.Second}})
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	c := NewChain([]*Function{f})
	defer c.Close()
	s := httptest.NewServer(&middleware{chain: c, next: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		b, _ := io.ReadAll(q.Body)
		fmt.Fprintf(w, "%s %s %s", q.Method, q.RequestURI, b)
	})})
	defer s.Close()
	resp, err := s.Client().Post(s.URL+"/v1.0/hi?name=panda", "text/plain", strings.NewReader("hello world"))
	if err != nil {
		return err.Error()
	}
	b, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	for _, name := range []string{"Content-Length", "Date", "Content-Type"} {
		resp.Header.Del(name)
	}
	got := fmt.Sprintf("%d %q", resp.StatusCode, b)
	if len(resp.Header) > 0 {
		got += fmt.Sprint(" ", resp.Header)
	}
	if err != nil {
		got += " " + err.Error()
	}
	return got
}
