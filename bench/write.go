package main

import (
	"fmt"
	"os"
	"strings"
)

// The parts of a document that the program writes.
const (
	partResults = "results"
	partSoak    = "soak"
)

// writePart replaces what stands between the marks of a part in the document at
// path, two lines that begin with `<!-- begin NAME` and `<!-- end NAME`.
func writePart(path, name, text string) error {
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	document, err := replacePart(string(old), name, text)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	// Beside it first: a run of a quarter of an hour must not end in half a document.
	if err := os.WriteFile(path+".new", []byte(document), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func replacePart(document, name, text string) (string, error) {
	begin, end := strings.Index(document, "<!-- begin "+name), strings.Index(document, "<!-- end "+name)
	if begin < 0 || end < begin {
		return "", fmt.Errorf("no lines <!-- begin %s --> and <!-- end %s --> (hint: add them where the text is to stand)", name, name)
	}
	line := strings.IndexByte(document[begin:], '\n') + 1
	return document[:begin+line] + "\n" + strings.TrimSpace(text) + "\n\n" + document[end:], nil
}

// writable tells, before anything is measured, whether writePart will find its
// marks.
func writable(path, name string) error {
	if path == "" {
		return nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if _, err := replacePart(string(text), name, ""); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
