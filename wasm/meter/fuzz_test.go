package meter

import (
	"bytes"
	"context"
	"math/rand"
	"slices"
	"strings"
	"testing"
)

// checkGenerated compares a generated module with its metered form and tells
// how many calls were compared.
func checkGenerated(t *testing.T, s *stage, in []byte) (compared int) {
	t.Helper()
	source := generate(in)
	if _, err := s.rt.CompileModule(context.Background(), source); err != nil {
		t.Fatalf("the generator made an invalid module: %v\n%x", err, source)
	}
	info, err := Inspect(source)
	if err != nil {
		t.Fatal(err)
	}
	s.define("env", info.Imports)
	for _, c := range []cut{standard(), {bytes: 1 + uint32(len(in)%30), items: 1}} {
		r, err := rewrite(source, Limits{}, c)
		if err != nil {
			t.Fatalf("rewrite: %v\n%x", err, source)
		}
		for _, e := range info.Exports {
			if e.Kind == "function" && same(t, s, source, r, e) {
				compared++
			}
		}
	}
	if t.Failed() {
		t.Logf("source %x", source)
	}
	return compared
}

// TestGeneratedModulesRunTheSame is a fixed share of FuzzSame.
func TestGeneratedModulesRunTheSame(t *testing.T) {
	s := newStage(t)
	s.slices = 20
	random := rand.New(rand.NewSource(5))
	compared := 0
	for range 300 {
		in := make([]byte, 50+random.Intn(1500))
		random.Read(in)
		compared += checkGenerated(t, s, in)
		if t.Failed() {
			return
		}
	}
	if compared < 300 {
		t.Errorf("%d calls compared, want at least 300", compared)
	}
	t.Logf("%d calls compared", compared)
}

func FuzzSame(f *testing.F) {
	for i := range 8 {
		in := make([]byte, 600)
		rand.New(rand.NewSource(int64(i))).Read(in)
		f.Add(in)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) > 5000 {
			return
		}
		s := newStage(t)
		s.slices = 20
		checkGenerated(t, s, in)
	})
}

// FuzzRewrite feeds any bytes: no panic, no great output, and what wazero
// takes is still taken after rewriting, unless it is refused for a known
// reason. What it refuses is not made valid either.
func FuzzRewrite(f *testing.F) {
	for i := range 8 {
		in := make([]byte, 300)
		rand.New(rand.NewSource(int64(i))).Read(in)
		f.Add(generate(in))
	}
	for _, m := range recursions() {
		f.Add(m.bytes())
	}
	f.Add(chain(5).bytes())
	f.Add([]byte("\x00asm\x01\x00\x00\x00\x00\x04\x03\x01\x00\x00")) // an empty custom section
	f.Fuzz(func(t *testing.T, source []byte) {
		if len(source) > 1<<16 {
			return
		}
		before := bytes.Clone(source)
		r, err := Rewrite(source, Limits{})
		_, unreadable := Inspect(source)
		if unreadable != nil && err == nil {
			t.Fatalf("rewritten but not readable: %v", unreadable)
		}
		if !bytes.Equal(source, before) {
			t.Fatal("the source was changed")
		}
		if err == nil && len(r.Wasm) > 2000+20*len(source) {
			t.Fatalf("%d bytes became %d", len(source), len(r.Wasm))
		}
		if unreadable != nil || err != nil && (known(err) || bomb(err)) {
			return // wazero may allocate any amount for it
		}
		s := newStage(t)
		_, invalid := s.rt.CompileModule(context.Background(), source)
		if err != nil {
			if invalid == nil {
				t.Fatalf("refused what wazero takes: %v", err)
			}
			return
		}
		_, err = s.rt.CompileModule(context.Background(), r.Wasm)
		if invalid == nil && err != nil {
			t.Fatalf("wazero takes it, but not rewritten: %v", err)
		}
		if invalid != nil && err == nil && !repaired(invalid) {
			t.Fatalf("wazero does not take it (%v), but takes it rewritten", invalid)
		}
	})
}

// repaired tells whether what wazero does not like of a source is mended by
// rewriting: functions are declared, and custom sections, which wazero refuses
// when they are empty, are left out.
func repaired(invalid error) bool {
	return strings.Contains(invalid.Error(), "undeclared function index") || strings.Contains(invalid.Error(), "custom section")
}

// bomb tells whether a source was refused for what wazero would make room for
// before it looks further, be it hundreds of gigabytes.
func bomb(err error) bool {
	return slices.ContainsFunc([]string{"more than", "it would take too long"},
		func(s string) bool { return strings.Contains(err.Error(), s) })
}
