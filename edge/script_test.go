package edge_test

import (
	"flag"
	"path/filepath"
	"strings"
	"testing"

	"seawall/edge/edgetest"
)

// go test ./edge -rewrite runs the scripts and writes what they printed back.
var rewrite = flag.Bool("rewrite", false, "write what the scripts of testdata print into them")

// TestScripts runs each script of testdata in a bubble of its own.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	// Fewer scripts than behaviours (issue 2) means that they were not found.
	if len(files) < 80 {
		t.Fatalf("testdata/*.txt: got %d scripts, want at least 80", len(files))
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			edgetest.Run(t, file, *rewrite)
		})
	}
}
