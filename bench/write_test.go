package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestWritePart(t *testing.T) {
	for _, tt := range []struct {
		name, before, want string
		err                bool
	}{
		{"replaced", "a\n<!-- begin results: by the program -->\nold\n<!-- end results -->\nb\n",
			"a\n<!-- begin results: by the program -->\n\nnew | table\n\n<!-- end results -->\nb\n", false},
		{"empty", "<!-- begin results -->\n<!-- end results -->\n", "<!-- begin results -->\n\nnew | table\n\n<!-- end results -->\n", false},
		{"another part", "<!-- begin soak -->\nold\n<!-- end soak -->\n", "", true},
		{"no end", "<!-- begin results -->\nold\n", "", true},
		{"the wrong way round", "<!-- end results -->\nold\n<!-- begin results -->\n", "", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "README.md")
			if err := os.WriteFile(path, []byte(tt.before), 0o644); err != nil {
				t.Fatal(err)
			}
			if before, err := writable(path, partResults), writePart(path, partResults, "new | table\n"); (err != nil) != tt.err || (before != nil) != tt.err {
				t.Fatalf("got errors %v before and %v, want some: %v", before, err, tt.err)
			}
			want := tt.want
			if tt.err {
				want = tt.before
			}
			if got, err := os.ReadFile(path); err != nil || string(got) != want {
				t.Errorf("got %q, error %v; want %q", got, err, want)
			}
		})
	}
}

// TestREADMEHasTheMarks: else a whole run would find no place for its table.
func TestREADMEHasTheMarks(t *testing.T) {
	for _, part := range []string{partResults, partSoak} {
		if err := writable("README.md", part); err != nil {
			t.Error(err)
		}
	}
}
