package main

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// The README's table has every flag of serve that this version takes, and no
// other.
func TestReadmeHasEveryFlag(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "\n| flag | default | |\n")
	table, _, _ = strings.Cut(table, "\n\n")
	told := make(map[string]bool)
	for _, name := range regexp.MustCompile("(?m)^\\| `([^`]*)`").FindAllStringSubmatch(table, -1) {
		for _, flag := range regexp.MustCompile(`--[a-z-]+`).FindAllString(name[1], -1) {
			told[flag] = true
		}
	}
	has := make(map[string]bool)
	parser, err := kong.New(new(serveCommand))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range parser.Model.Flags {
		if f.Name != "help" && !strings.Contains(f.Help, "later version") {
			has["--"+f.Name] = true
		}
	}
	if len(has) < 10 || !maps.Equal(told, has) {
		t.Errorf("the README tells of the flags\n%v\nand serve has\n%v", slices.Sorted(maps.Keys(told)), slices.Sorted(maps.Keys(has)))
	}
}

// The README tells of every metric, and of no other.
func TestReadmeHasEveryMetric(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	told, has := make(map[string]bool), make(map[string]bool)
	for _, m := range regexp.MustCompile(`\bseawall_([a-z_]*)(?:{([a-z_,]+)}([a-z_]*))?`).FindAllStringSubmatch(string(text), -1) {
		if !strings.HasSuffix(m[1], "_") { // what is in braces are labels
			told[m[1]] = true
			continue
		}
		if m[2] == "" { // the beginning of some
			continue
		}
		for _, part := range strings.Split(m[2], ",") {
			told[m[1]+part+m[3]] = true
		}
	}
	files, err := filepath.Glob("../../edge/admin/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		code, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?:s\.gauge|s\.counter|s\.summary|desc)\("([a-z_]+)"`).FindAllStringSubmatch(string(code), -1) {
			has[m[1]] = true
		}
	}
	if len(has) < 50 {
		t.Fatalf("only %d metrics were found: %v", len(has), has)
	}
	for name := range has {
		if !told[name] {
			t.Errorf("the README does not tell of seawall_%s", name)
		}
	}
	for name := range told {
		if !has[name] {
			t.Errorf("the README tells of seawall_%s, which there is not", name)
		}
	}
}
