package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestWhatServersSayTheyKeepIsRead(t *testing.T) {
	for _, tt := range []struct {
		name, text, prefix, word string
		must                     bool
		want                     int64 // -1 for an error
	}{
		{"a metric", "# HELP seawall_store_bytes x\nseawall_store_bytes{tier=\"memory\"} 2.8452827e+07\nseawall_store_bytes{tier=\"disk\"} 7\n",
			`seawall_store_bytes{tier="memory"}`, "", true, 28452827},
		{"varnishstat", "SMA.s0.g_bytes     67108000         .   Bytes outstanding\n", "SMA.s0.g_bytes", "", true, 67108000},
		{"entries", "0x7fd: objects (shctx:0x7f, available blocks:65536)\n" +
			"0x7f8 hash:563157216 vary:0x0 size:5363 (6 blocks), refcount:0, expire:3600\n" +
			"0x7e8 hash:2120848108 vary:0x0 size:100 (1 blocks), refcount:0, expire:3600\n\n", "0x", "size:", false, 5463},
		{"no entries", "0x7fd: objects (shctx:0x7f, available blocks:65536)\n\n", "0x", "size:", false, 0},
		{"quoted", "{ \"global\": {\n\"proxy.process.cache.bytes_used\": \"4096\",\n", `"proxy.process.cache.bytes_used"`, `: "`, true, 4096},
		{"nothing", "an error page\n", "SMA.s0.g_bytes", "", true, -1},
		{"no number", "SMA.s0.g_bytes ?\n", "SMA.s0.g_bytes", "", true, -1},
		{"half a number", "SMA.s0.g_bytes 1e+e\n", "SMA.s0.g_bytes", "", true, -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := sumLines(tt.text, tt.prefix, tt.word, tt.must)
			if (err != nil) != (tt.want < 0) || err == nil && got != tt.want {
				t.Errorf("%q: got %d, error %v; want %d", tt.text, got, err, tt.want)
			}
		})
	}
}

func TestFilesKeptAreAdded(t *testing.T) {
	dir := t.TempDir()
	for name, size := range map[string]int{"a/1": 100, "a/b/2": 20, "3": 3} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := keptInFiles(dir)(t.Context()); err != nil || got != 123 {
		t.Errorf("got %d, error %v; want 123", got, err)
	}
	if got, err := keptInFiles(filepath.Join(dir, "none"))(t.Context()); err != nil || got != 0 {
		t.Errorf("without the folder: got %d, error %v; want 0", got, err)
	}
}
