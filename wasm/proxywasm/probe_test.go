package proxywasm

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero/api"
)

// buildGuest builds a guest of Go in dir, for tests that can do without the go
// command.
func buildGuest(t *testing.T, dir string, env ...string) []byte {
	t.Helper()
	if testing.Short() {
		t.Skip("builds a guest: not in short mode")
	}
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skipf("no go command to build a guest with: %v", err)
	}
	file := filepath.Join(t.TempDir(), "guest.wasm")
	build := exec.CommandContext(t.Context(), goTool, "build", "-buildmode=c-shared", "-o", file, ".")
	build.Dir = dir
	build.Env = append(append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOPROXY=off"), env...)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", dir, err, out)
	}
	wasm, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}

// passScript and takeResult are what the probe imports beside note.
func (h *host) passScript(_ context.Context, m api.Module, stack []uint64) {
	p, room := uint32(stack[0]), uint32(stack[1])
	if int(room) >= len(h.lines) {
		m.Memory().WriteString(p, h.lines)
	}
	stack[0] = uint64(len(h.lines))
}

func (h *host) takeResult(_ context.Context, m api.Module, stack []uint64) {
	b, _ := m.Memory().Read(uint32(stack[0]), uint32(stack[1]))
	h.outcomes = append(h.outcomes, string(b))
}

// line writes a call for the probe.
func (c hostCall) line(callback string) string {
	words := []string{callback, c.name}
	for _, arg := range c.args {
		switch v := arg.(type) {
		case int:
			words = append(words, fmt.Sprintf("i%d", v))
		case int64:
			words = append(words, fmt.Sprintf("l%d", v))
		case string:
			words = append(words, fmt.Sprintf("s%x", v))
		case place:
			words = append(words, fmt.Sprintf("p%d,%d", v.p, v.n))
		}
	}
	return strings.Join(words, "\t")
}

// TestConformanceOfGoGuest plays the scenes with a guest in Go.
func TestConformanceOfGoGuest(t *testing.T) {
	wasm := buildGuest(t, filepath.Join("testdata", "probe"))
	h := newHost(t)
	for name := range callbackTypes() {
		if strings.HasPrefix(name, "proxy_on_") {
			h.script.callbacks = append(h.script.callbacks, name)
		}
	}
	slices.Sort(h.script.callbacks)
	start := func(t *testing.T, sc scene, s *services) (*guest, func() []string) {
		h.lines, h.outcomes = "", nil
		for _, c := range sc.calls {
			h.lines += c.line("proxy_on_"+sc.in) + "\n"
		}
		g, m, err := h.start(wasm, s)
		if err != nil {
			t.Fatalf("start: %v", err)
		}
		t.Cleanup(func() { m.mod.Close(t.Context()) })
		return g, func() []string { return h.outcomes }
	}
	for group, scenes := range allScenes() {
		for _, sc := range scenes {
			t.Run(group+"/"+sc.name, func(t *testing.T) { sc.run(t, start) })
		}
	}
}
