package wasm

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/tetratelabs/wazero"
)

// Bounds of the compile cache.
const (
	cacheFiles = 256
	cacheBytes = 512 << 20
)

// compileCache checks wazero's cache of compiled code before it is used:
// wazero has a sum of the code alone, not of the numbers around it, and would
// jump where a broken entry says. A note of each file's hash, by the hash of
// the module it was made of, is kept beside; a file without a note, or another
// than noted, is removed before wazero sees it.
//
// Its methods are called with Host.compiling held.
type compileCache struct {
	wazero wazero.CompilationCache
	files  string // wazero's folder
	notes  string
	log    *slog.Logger
}

func openCompileCache(dir string, log *slog.Logger) (*compileCache, error) {
	c := &compileCache{notes: filepath.Join(dir, "notes-"+runtime.GOARCH+"-"+runtime.GOOS), log: log}
	if err := os.MkdirAll(c.notes, 0o700); err != nil {
		return nil, fmt.Errorf("wasm: compile cache: %w", err)
	}
	var err error
	if c.wazero, err = wazero.NewCompilationCacheWithDir(dir); err != nil {
		return nil, fmt.Errorf("wasm: compile cache %s: %w", dir, err)
	}
	found, err := filepath.Glob(filepath.Join(dir, "wazero-*"))
	if err != nil || len(found) == 0 {
		return nil, fmt.Errorf("wasm: compile cache %s: no folder of wazero's: %w", dir, err)
	}
	// Those of other versions of wazero are of no use any more.
	newest := slices.MaxFunc(found, func(a, b string) int { return cmp.Compare(changed(a), changed(b)) })
	for _, other := range found {
		if other != newest && changed(other) < time.Now().Add(-24*time.Hour).UnixNano() {
			_ = os.RemoveAll(other)
		}
	}
	c.files = newest
	// Opening may not have made the folder new: a probe tells whether it can
	// be written, since wazero fails to compile when it cannot.
	probe, err := os.CreateTemp(c.files, "probe.*.tmp")
	if err != nil {
		return nil, fmt.Errorf("wasm: compile cache: %w", err)
	}
	_ = probe.Close()
	_ = os.Remove(probe.Name())
	return c, nil
}

// changed is when a file was last written, in ns since 1970; 0 when unknown.
func changed(name string) int64 {
	info, err := os.Stat(name)
	if err != nil {
		return 0
	}
	return info.ModTime().UnixNano()
}

// note is what is known of a cached file.
type note struct{ file, sum string }

// prepare leaves in wazero's folder only files that are as they were written.
// Of those, only the one for this module is read: it alone is hashed.
func (c *compileCache) prepare(bin []byte) {
	key := sum(bin)
	noted := map[string]bool{}
	entries, _ := os.ReadDir(c.notes)
	for _, e := range entries {
		n, ok := c.read(e.Name())
		switch {
		case !ok:
		case e.Name() != key:
			noted[n.file] = true
			continue
		default:
			data, err := os.ReadFile(filepath.Join(c.files, n.file))
			if err == nil && sum(data) == n.sum {
				noted[n.file] = true
				now := time.Now()
				_ = os.Chtimes(filepath.Join(c.notes, key), now, now) // used: kept longer
				continue
			}
			if err == nil {
				c.log.Warn("wasm: a compile cache entry is damaged; it is made again", "file", n.file)
			}
		}
		_ = os.Remove(filepath.Join(c.notes, e.Name()))
	}
	files, _ := os.ReadDir(c.files)
	for _, f := range files {
		if !noted[f.Name()] {
			_ = os.Remove(filepath.Join(c.files, f.Name()))
		}
	}
}

// record notes the file that compiling has added.
func (c *compileCache) record(bin []byte) {
	key := sum(bin)
	if _, ok := c.read(key); ok {
		return
	}
	noted := map[string]bool{}
	entries, _ := os.ReadDir(c.notes)
	for _, e := range entries {
		if n, ok := c.read(e.Name()); ok {
			noted[n.file] = true
		}
	}
	files, _ := os.ReadDir(c.files)
	for _, f := range files {
		if noted[f.Name()] || strings.HasSuffix(f.Name(), ".tmp") {
			continue
		}
		if err := c.write(key, f.Name()); err != nil {
			c.log.Warn("wasm: compile cache", "error", err)
		}
	}
	c.trim(entries)
}

func (c *compileCache) read(key string) (note, bool) {
	data, err := os.ReadFile(filepath.Join(c.notes, key))
	if err != nil {
		return note{}, false
	}
	file, hash, ok := strings.Cut(strings.TrimSpace(string(data)), " ")
	return note{file, hash}, ok && file == filepath.Base(file)
}

func (c *compileCache) write(key, file string) error {
	data, err := os.ReadFile(filepath.Join(c.files, file))
	if err != nil {
		return err
	}
	tmp := filepath.Join(c.notes, key+".tmp")
	if err := os.WriteFile(tmp, []byte(file+" "+sum(data)+"\n"), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(c.notes, key))
}

// trim removes the entries not used for longest when there are too many.
func (c *compileCache) trim(entries []fs.DirEntry) {
	slices.SortFunc(entries, func(a, b fs.DirEntry) int {
		return cmp.Compare(changed(filepath.Join(c.notes, b.Name())), changed(filepath.Join(c.notes, a.Name())))
	})
	total := int64(0)
	for i, e := range entries {
		n, _ := c.read(e.Name())
		file := filepath.Join(c.files, n.file)
		if info, err := os.Stat(file); err == nil {
			total += info.Size()
		}
		if i >= cacheFiles || total > cacheBytes {
			_ = os.Remove(filepath.Join(c.notes, e.Name()))
			_ = os.Remove(file)
		}
	}
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}
