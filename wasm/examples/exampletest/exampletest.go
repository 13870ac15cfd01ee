// Package exampletest builds sample functions and writes down what one makes
// of a request and its response (tests only).
package exampletest

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"seawall/wasm"
	"seawall/wasm/abi"
)

// Go builds a function of wasm/examples by its name, with build tags or none.
func Go(t testing.TB, name string, tags ...string) []byte {
	t.Helper()
	need(t, "go")
	file := filepath.Join(t.TempDir(), name+".wasm")
	cmd := exec.Command("go", "build", "-buildmode=c-shared", "-ldflags=-s -w", "-tags", strings.Join(tags, ","), "-o", file, "seawall/wasm/examples/"+name)
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=")
	return built(t, cmd, file)
}

// C builds a function from its one file, a path, by the command that its
// first lines give. Without clang, wasm-ld and wasi-libc the test is skipped.
func C(t testing.TB, source string) []byte {
	t.Helper()
	need(t, "clang")
	need(t, "wasm-ld")
	file := filepath.Join(t.TempDir(), "c.wasm")
	args := []string{"--target=wasm32-wasi", "-O2", "-mexec-model=reactor", "-Wl,-s", "-Wall", "-Wextra", "-Werror", "-o"}
	probe := exec.Command("clang", append(args, file, "-x", "c", "-")...)
	probe.Stdin = strings.NewReader("#include <stdlib.h>\nvoid *used(size_t n) { return malloc(n); }\n")
	if out, err := probe.CombinedOutput(); err != nil {
		t.Skipf("it takes wasi-libc and clang's runtime for wasm32 to build a function in C: %v\n%s", err, out)
	}
	return built(t, exec.Command("clang", append(args, file, source)...), file)
}

func need(t testing.TB, tool string) {
	t.Helper()
	if _, err := exec.LookPath(tool); err != nil {
		t.Skipf("it takes %s to build this function: %v", tool, err)
	}
}

func built(t testing.TB, cmd *exec.Cmd, file string) []byte {
	t.Helper()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	source, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return source
}

// Foreign is what the node does for functions, by name.
type Foreign = map[string]func(x *abi.Exchange, args []byte) ([]byte, error)

// Bench loads one module with any number of configurations.
type Bench struct {
	host    *wasm.Host
	module  []byte
	foreign Foreign
	log     *lines
}

// NewBench returns a bench for the module; it ends with the test.
func NewBench(t testing.TB, module []byte, foreign Foreign) *Bench {
	t.Helper()
	b := &Bench{module: module, foreign: foreign, log: new(lines)}
	var err error
	b.host, err = wasm.NewHost(wasm.Options{CacheDir: t.TempDir(), Log: slog.New(b.log)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.host.Close(); err != nil {
			t.Error(err)
		}
	})
	if r := wasm.Check(module); r.ABI != "proxy-wasm" || len(r.Refused) > 0 {
		t.Fatalf("check: got ABI %q, refused %q; want proxy-wasm and nothing", r.ABI, r.Refused)
	}
	return b
}

// Load returns the function with a configuration; it ends with the test.
func (b *Bench) Load(t testing.TB, config string) *Function {
	t.Helper()
	f, err := b.load(config)
	if err != nil {
		t.Fatalf("configuration %q: %v; logged %q", config, err, b.log.taken())
	}
	chain := wasm.NewChain([]*wasm.Function{f})
	t.Cleanup(func() {
		chain.Close()
		f.Close()
	})
	return &Function{chain, b.log}
}

// load gives the processor time of a slow and busy machine.
func (b *Bench) load(config string) (*wasm.Function, error) {
	spec := wasm.Spec{Name: "sample", Source: b.module, Config: []byte(config), Foreign: b.foreign}
	spec.Limits.CPU, spec.Limits.Start = 50*time.Millisecond, 10*time.Second
	b.log.taken()
	return b.host.Load(context.Background(), spec)
}

// Refused returns what the function logs when it refuses a configuration; the
// test fails if it does not.
func (b *Bench) Refused(t testing.TB, config string) string {
	t.Helper()
	f, err := b.load(config)
	if err == nil {
		f.Close()
		t.Errorf("configuration %q: it is accepted, want a refusal", config)
	}
	return strings.Join(b.log.taken(), "\n")
}

// Case is one exchange: a name, the configuration, request and response as
// Function.Run takes them, and what it returns.
type Case [5]string

// Table runs exchanges. Those of one configuration run on one machine, in
// order, and again after all others.
func (b *Bench) Table(t *testing.T, table []Case) {
	t.Helper()
	functions := map[string]*Function{}
	for _, again := range []string{"", ", again"} {
		for _, c := range table {
			name, config, request, response, want := c[0], c[1], c[2], c[3], strings.TrimSpace(c[4])
			f := functions[config]
			if f == nil {
				f = b.Load(t, config)
				functions[config] = f
			}
			t.Run(name+again, func(t *testing.T) {
				if got := f.Run(request, response); got != want {
					t.Errorf("configuration\n%s\nrequest\n%s\nresponse\n%s\ngot\n%s\nwant\n%s", config, request, response, got, want)
				}
			})
		}
	}
}

// Refusals holds the reasons, of which each has to be part of what is logged,
// to the configurations that are refused for them.
func (b *Bench) Refusals(t *testing.T, table map[string]string) {
	t.Helper()
	for config, want := range table {
		if got := b.Refused(t, config); !strings.Contains(got, want) {
			t.Errorf("configuration %q: logged %q, want %q", config, got, want)
		}
	}
}

// lines keeps what is logged. It is a slog.Handler of every level.
type lines struct {
	mu   sync.Mutex
	list []string // guarded by mu
}

// taken returns the lines since the last call.
func (l *lines) taken() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := l.list
	l.list = nil
	return list
}

// Enabled implements slog.Handler.
func (l *lines) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements slog.Handler.
func (l *lines) Handle(_ context.Context, r slog.Record) error {
	text := r.Message
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "text" {
			text = a.Value.String()
		}
		return true
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, text)
	l.list = slices.Delete(l.list, 0, max(0, len(l.list)-100))
	return nil
}

// WithAttrs implements slog.Handler; the host adds none.
func (l *lines) WithAttrs([]slog.Attr) slog.Handler { return l }

// WithGroup implements slog.Handler; the host makes none.
func (l *lines) WithGroup(string) slog.Handler { return l }
