package meter

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"hash/fnv"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero/api"
)

// corpus is where compiled modules come from. Their sums keep the test the
// same wherever it runs.
var corpus = map[string]string{
	"github.com/tetratelabs/wazero@v1.12.0":              "h1:DuWcpNu/FzgEXgGBDp8J1Spc+CWOvvtvVyjKlaZopYU=",
	"github.com/http-wasm/http-wasm-host-go@v0.7.0":      "h1:+1KrRyOO6tWiDB24QrtSYyDmzFLBBs3jioKaUT0mq1c=",
	"github.com/http-wasm/http-wasm-guest-tinygo@v0.4.0": "h1:sWd1hqOL8LF3DVRPXloVELTQItibKtDCtVSA4UfMf4Y=",
	"github.com/extism/go-sdk@v1.7.1":                    "h1:lWJos6uY+tRFdlIHR+SJjwFDApY7OypS/2nMhiVQ9Sw=",
	"mosn.io/proxy-wasm-go-host@v0.2.0":                  "h1:v76IiYnqEHBJdLw+vloM/vBHEKg5Z2f3ghTHKfDdECA=",
	"github.com/dapr/components-contrib@v1.14.0":         "h1:ic7JeOMfvbWS4a8ZhV8uZnnTCQVJAYIONWFUKDPgOcM=",
}

// whole has the corpus test read all of the eight thousand modules.
var whole = flag.Bool("corpus", false, "run the whole corpus, not each tenth of the specification's tests")

// download returns the folder of a module, or "" and a reason.
func download(t *testing.T, module, sum string) (dir, reason string) {
	cmd := exec.Command("go", "mod", "download", "-json", module)
	cmd.Dir = t.TempDir() // outside of any module: nothing is written to one
	out, err := cmd.Output()
	var got struct{ Dir, Sum, Error string }
	if e := json.Unmarshal(out, &got); e != nil || got.Dir == "" {
		return "", fmt.Sprintf("%s is not obtainable: %v %s", module, err, got.Error)
	}
	if got.Sum != sum {
		t.Fatalf("%s: sum %s, want %s", module, got.Sum, sum)
	}
	return got.Dir, ""
}

// TestCorpusRunsTheSame rewrites every module that others publish and calls
// what can be called, with and without.
func TestCorpusRunsTheSame(t *testing.T) {
	if raced {
		t.Skip("the rewriter has no goroutine, and compiling its output takes minutes under the race detector")
	}
	total, seen := tally{plain: newStage(t)}, 0
	for _, module := range slices.Sorted(maps.Keys(corpus)) {
		dir, reason := download(t, module, corpus[module])
		if dir == "" {
			t.Log(reason)
			continue
		}
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && strings.HasSuffix(path, ".wasm") && d.Type().IsRegular() {
				if seen++; !*whole && strings.Contains(path, "spectest") && seen%10 != 0 {
					return nil
				}
				name, _ := filepath.Rel(dir, path)
				t.Run(module+"/"+name, func(t *testing.T) { total.file(t, path) })
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	if total.files == 0 {
		t.Skip("no module of the corpus is obtainable")
	}
	t.Logf("%d files: %d rewritten, %d refused, %d that wazero refuses as they are; %d functions called, %d of them stopped for fuel or depth",
		total.files, total.rewritten, total.refused, total.invalid, total.calls, total.stops)
	if total.calls == 0 {
		t.Error("nothing was called")
	}
}

type tally struct {
	plain                                            *stage // for modules without imports
	files, rewritten, refused, invalid, calls, stops int
}

// known tells whether a module that wazero takes may be refused so.
func known(err error) bool {
	return slices.ContainsFunc([]string{"not supported", "64-bit", "shared memory", "memories", "component", "mutable global", "the limit is", "reserved for the rewriter"},
		func(s string) bool { return strings.Contains(err.Error(), s) })
}

func (n *tally) file(t *testing.T, path string) {
	source, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n.files++
	s := n.plain
	if i, err := Inspect(source); err == nil && len(i.Imports) > 0 {
		s = newStage(t)
	}
	_, invalid := s.rt.CompileModule(context.Background(), source)
	l := Limits{Memory: 1 << 14, Table: 10_000_000}
	r, err := Rewrite(source, l)
	switch {
	case err != nil && invalid != nil:
		n.invalid++
		return
	case err != nil:
		n.refused++
		t.Logf("refused: %v", err)
		if !known(err) {
			t.Errorf("refused without a good reason")
		}
		return
	}
	_, err = s.rt.CompileModule(context.Background(), r.Wasm)
	if err == nil && invalid != nil && strings.Contains(invalid.Error(), "undeclared function index") {
		return // the export of the start function declares it
	}
	if (err == nil) != (invalid == nil) {
		t.Fatalf("as it is: %v; rewritten: %v", invalid, err)
	}
	if err != nil {
		n.invalid++
		return
	}
	n.rewritten++
	info, err := Inspect(source)
	if err != nil {
		t.Fatal(err)
	}
	n.callAll(t, s, source, r, info)
}

// callAll calls up to 40 exports with numbers for arguments, each on fresh
// instances.
func (n *tally) callAll(t *testing.T, s *stage, source []byte, r *Module, info *Info) {
	for _, i := range info.Imports {
		if i.Kind != "function" {
			return // nobody provides them
		}
		s.define(i.Module, info.Imports)
	}
	called := 0
	for _, e := range info.Exports {
		if e.Kind != "function" || called == 40 || slices.ContainsFunc(e.Params, func(p ValueType) bool { return !p.number() }) {
			continue
		}
		called++
		n.calls++
		if !same(t, s, source, r, e) {
			n.stops++
		}
	}
}

// same calls one export in both forms; false: the metered one was stopped.
func same(t *testing.T, s *stage, source []byte, r *Module, e Export) bool {
	t.Helper()
	args := make([]uint64, len(e.Params))
	for i := range args {
		args[i] = uint64(3 + 5*i)
	}
	got, ok := s.story(r.Wasm, r.HasStart, e.Name, args)
	if !ok {
		return false
	}
	want, _ := s.story(source, false, e.Name, args)
	if got != want {
		t.Errorf("%s%v: metered\n%s\nas it is\n%s", e.Name, args, got, want)
	}
	return true
}

// story tells all that can be seen of a call on a fresh instance; ok is false
// when it was stopped for fuel or depth.
func (s *stage) story(wasm []byte, start bool, name string, args []uint64) (story string, ok bool) {
	s.used, s.calls = 0, 0
	m, err := s.instance(wasm)
	if err != nil {
		_, why, _ := strings.Cut(trap(err), "failed: ")
		return "start error: " + why, true
	}
	defer m.Close(context.Background())
	if start {
		if got := outcome(m, StartExport); stopped(got) {
			return "", false
		} else if got != "[]" {
			return "start " + got, true
		}
	}
	got := outcome(m, name, args...)
	if d := m.ExportedGlobal(DepthGlobal); stopped(got) || d != nil && int64(d.Get()) < 0 {
		return "", false
	}
	return got + s.seen(wasm, m), true
}

// seen is what else can be observed of an instance: memory, globals, calls of
// the host.
func (s *stage) seen(wasm []byte, m api.Module) string {
	h := fnv.New64a()
	size := uint32(0)
	info, err := Inspect(wasm)
	if err != nil {
		s.t.Fatal(err)
	}
	var globals []uint64
	for _, e := range info.Exports {
		if e.Kind == "global" && !strings.HasPrefix(e.Name, Reserved) {
			g := m.ExportedGlobal(e.Name)
			globals = append(globals, canonical(g.Type(), g.Get()))
		}
	}
	if info.Memories > 0 {
		mem := m.Memory()
		size = mem.Size()
		b, _ := mem.Read(0, size)
		h.Write(b)
	}
	return fmt.Sprintf(" memory %d %x, globals %d, host calls %x", size, h.Sum64(), globals, s.calls)
}
