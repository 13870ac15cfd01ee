package main

import (
	"io"
	"os"
	"path/filepath"
	"testing"
)

// What a promotion could not remove is no candidate of what is uploaded later,
// and brings back nothing that was removed.
func TestFilesThatAPromotionLeft(t *testing.T) {
	dir := t.TempDir()
	s := running(t, "  f: {}\n", "f")
	start := func() (base string, stop func()) {
		d, err := openData(dir)
		if err != nil {
			t.Fatal(err)
		}
		s.Listen.Admin = "127.0.0.1:0"
		n, err := newNode(s, d, &terminal{io.Discard, io.Discard})
		if err != nil {
			t.Fatal(err)
		}
		ends := n.serve()
		return "http://" + n.side.Addrs()[0].String() + "/v1/functions/", func() { n.close(); <-ends; d.Close() }
	}
	base, stop := start()
	for _, name := range []string{"f", "g"} {
		call(t, "PUT", base+name, setting("x-version", "1"))
		call(t, "PUT", base+name+"?rollout=100", setting("x-version", "2"))
		left := map[string][]byte{}
		for _, kind := range []string{"json", "wasm"} {
			file := filepath.Join(dir, "functions", name+".candidate."+kind)
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			left[file] = content
		}
		if code, answer := post(t, base+name+"/promote", ""); code != 200 {
			t.Fatalf("promote %s: got %d %v", name, code, answer)
		}
		for file, content := range left {
			if err := os.WriteFile(file, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if code, answer := call(t, "PUT", base+"f", setting("x-version", "3")); code != 200 {
		t.Errorf("another upload: got %d %v", code, answer)
	}
	if code, answer := call(t, "DELETE", base+"g", nil); code != 204 {
		t.Errorf("a removal: got %d %v", code, answer)
	}
	stop()
	base, stop = start()
	defer stop()
	if _, f := call(t, "GET", base+"f", nil); f["candidate"] != nil || f["sha256"] != hashOf(setting("x-version", "3")) {
		t.Errorf("after a restart f is %v, want the last upload alone", f)
	}
	if code, g := call(t, "GET", base+"g", nil); code != 404 {
		t.Errorf("after a restart g is %d %v, want none", code, g)
	}
}
