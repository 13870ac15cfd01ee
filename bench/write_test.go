package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
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

func TestRoundsFitTheTime(t *testing.T) {
	now := time.Now()
	for _, tt := range []struct {
		name        string
		left        int
		ends, round time.Duration // from now
		want        bool
	}{
		{"time for all", 4, 40 * time.Second, 5 * time.Second, true},
		{"the others need it", 4, 40 * time.Second, 11 * time.Second, false},
		{"the last scenario has what is left", 1, 40 * time.Second, 11 * time.Second, true},
		{"past the end", 1, -time.Second, time.Millisecond, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := &runner{left: tt.left, ends: now.Add(tt.ends)}
			if got := r.fits(now, r.share(now), tt.round); got != tt.want {
				t.Errorf("%d scenarios, %v left, rounds of %v: got another round %v, want %v", tt.left, tt.ends, tt.round, got, tt.want)
			}
		})
	}
}

func TestBesideBareIsSaid(t *testing.T) {
	r := &report{}
	for peer, cpu := range map[string]float64{node: 30, bare: 20} {
		r.add(scenario{name: "hits-h1-1k", group: "hits-h1"}, peer, sample{"cpu": cpu})
	}
	r.add(scenario{name: "hits-h2-1k", group: "hits-h2"}, node, sample{"cpu": 7})
	if got := r.besideBare(); !strings.Contains(got, "1.50× in hits-h1-1k") || strings.Contains(got, "h2") {
		t.Errorf("got %q, want 1.50× in hits-h1-1k alone", got)
	}
}
