package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestDataKeepsItsSeed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b")
	first, err := openData(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openData(path); !errors.Is(err, errLocked) || !strings.Contains(err.Error(), "--data") {
		t.Errorf("a second node: got %v, want %v and a hint with --data", err, errLocked)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := openData(path)
	if err != nil {
		t.Fatalf("after the first has ended: %v", err)
	}
	defer again.Close()
	if again.seed != first.seed || first.seed == [16]byte{} {
		t.Errorf("seed: got %x, then %x; want the same, not zero", first.seed, again.seed)
	}
	if runtime.GOOS == "windows" {
		return
	}
	for name, want := range map[string]os.FileMode{path: 0o700, filepath.Join(path, "seed"): 0o600} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: got mode %v, %v; want %v", name, info.Mode().Perm(), err, want)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(path, "seed.*")); len(left) > 0 {
		t.Errorf("temporary files were left: %v", left)
	}
}

func TestDataInMemory(t *testing.T) {
	a, err := openData("")
	if err != nil {
		t.Fatal(err)
	}
	b, _ := openData("")
	if a.seed == b.seed {
		t.Errorf("two runs have one seed: %x", a.seed)
	}
	if err := errors.Join(a.Close(), b.Close()); err != nil {
		t.Error(err)
	}
}

func TestDataSaysWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	damaged := filepath.Join(dir, "damaged")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Mkdir(damaged, 0o700),
		os.WriteFile(filepath.Join(damaged, "seed"), []byte("short"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, path, want string }{
		{"a file in its place", file, "--data"},
		{"below a file", filepath.Join(file, "x"), "--data"},
		{"a damaged seed", damaged, "5 bytes instead of 16"},
	} {
		if _, err := openData(c.path); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
	}
	// A failed start must not keep the folder.
	if err := os.Remove(filepath.Join(damaged, "seed")); err != nil {
		t.Fatal(err)
	}
	d, err := openData(damaged)
	if err != nil {
		t.Fatalf("after the hint was followed: %v", err)
	}
	d.Close()
}

func TestWriteWholeReplaces(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	for _, content := range []string{"one", "two, longer", ""} {
		if err := writeWhole(name, []byte(content)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, []byte(content)) {
			t.Errorf("got %q, %v; want %q", got, err, content)
		}
	}
}

func TestDefaultData(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("HOME is not where Windows keeps state")
	}
	t.Setenv("HOME", "/home/u")
	for state, want := range map[string]string{
		"":         "/home/u/.local/state/seawall",
		"relative": "/home/u/.local/state/seawall", // the XDG specification: ignored
		"/s":       "/s/seawall",
	} {
		t.Setenv("XDG_STATE_HOME", state)
		if got, err := defaultData(); err != nil || got != want {
			t.Errorf("XDG_STATE_HOME=%q: got %q, %v; want %q", state, got, err, want)
		}
	}
}
