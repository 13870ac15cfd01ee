package main

import (
	"context"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The requests of the tour do what it says of them.
func TestDemoFunctions(t *testing.T) {
	if raced {
		t.Skip("compiling a Go guest takes most of a minute under the race detector")
	}
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("it takes the go command to build the functions of the demo")
	}
	p := launch(t, "demo", "--http", "127.0.0.1:0", "--https", "off", "--admin", "127.0.0.1:0")
	p.addresses()
	expect(t, p.front+"/page", 200, "uri-miss", "made for the 1. time") // before they are built
	line := regexp.MustCompile(`(?m)^  (\S[^\n]*?) +curl -i((?: -H '[^']*')+) (http\S+)`)
	p.within(4*time.Minute, "the functions run, or why not", func() bool { // compilers are slow on a busy machine
		return strings.Contains(p.out.String(), "their figures") || strings.Contains(p.out.String(), "goes on without")
	})
	lines := line.FindAllStringSubmatch(p.out.String(), -1)
	want := map[string][]string{
		"members alone":     {"401", "detail=function", "A valid token is needed"},
		"with a token":      {"200", "uri-miss", "a page for members"},
		"A/B: one or other": {"200", "seawall", "offer "},
		"variant A":         {"200", "seawall", "offer A"},
		"variant B":         {"200", "seawall", "offer B"},
	}
	for _, l := range lines {
		w, ok := want[l[1]]
		if !ok {
			continue
		}
		delete(want, l[1])
		for i := range 2 {
			res, body := asCurl(t, l[2], l[3])
			if i == 1 && w[0] == "200" && l[1] != "A/B: one or other" {
				w[1] = "hit"
			}
			if !strings.HasPrefix(res.Status, w[0]) || !strings.Contains(res.Header.Get("Cache-Status"), w[1]) || !strings.Contains(body, w[2]) {
				t.Errorf("%s, %d: got %s %v %q, want %v", l[0], i, res.Status, res.Header, body, w)
			}
		}
	}
	if len(want) > 0 {
		t.Errorf("the tour has no line for %v:\n%s", want, p.out)
	}
	expect(t, p.front+"/greeting", 200, "uri-miss", "hello") // the other pages need no token
	p.signal(syscall.SIGINT)
	if code := p.exit(); code != 0 {
		t.Errorf("exit: got %d, want 0", code)
	}
}

// asCurl makes a request as a line of the tour says.
func asCurl(t *testing.T, fields, url string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequest("GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range regexp.MustCompile(`'([^']*)'`).FindAllStringSubmatch(fields, -1) {
		name, value, _ := strings.Cut(f[1], ": ")
		if r.Header.Set(name, value); name == "Host" {
			r.Host = value
		}
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

// Without the source or the go command, the reason is a sentence.
func TestDemoWithoutItsSource(t *testing.T) {
	file := filepath.Join(t.TempDir(), "jwt.wasm")
	t.Chdir(t.TempDir())
	if _, err := exec.LookPath("go"); err == nil {
		if err := buildSample(context.Background(), "jwt", file); err == nil || !strings.Contains(err.Error(), "their source is not here") {
			t.Errorf("elsewhere: got %v", err)
		}
	}
	t.Setenv("PATH", "")
	if err := buildSample(context.Background(), "jwt", file); err == nil || !strings.Contains(err.Error(), "there is no go command") {
		t.Errorf("without go: got %v", err)
	}
}
