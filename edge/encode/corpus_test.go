package encode

import (
	"bytes"
	"cmp"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// kinds are the kinds of file that the corpus has one or a few of.
var kinds = []string{".html", ".css", ".js", ".json", ".svg", ".wasm"}

// file is a real file of the corpus.
type file struct {
	name    string
	content []byte
}

// corpus returns up to three real files of each kind, of 1 to 512 KiB, out of
// the Go installation and the module cache. A kind that is not found is named in
// the test's log.
func corpus(t testing.TB) []file {
	t.Helper()
	files, missing := findCorpus()
	if len(missing) > 0 {
		t.Logf("not found on this machine, so not tested: %v", missing)
	}
	if len(files) == 0 {
		t.Skip("no file of any kind found on this machine")
	}
	return files
}

var findCorpus = sync.OnceValues(func() (files []file, missing []string) {
	found := make(map[string][]string)
	for _, root := range roots() {
		_ = filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || !entry.Type().IsRegular() {
				return nil
			}
			kind := filepath.Ext(name)
			if !slices.Contains(kinds, kind) {
				return nil
			}
			if info, err := entry.Info(); err == nil && info.Size() >= 1<<10 && info.Size() <= 1<<19 {
				found[kind] = append(found[kind], name)
			}
			return nil
		})
	}
	for _, kind := range kinds {
		picked := pick(found[kind])
		if len(picked) == 0 {
			missing = append(missing, kind)
		}
		files = append(files, picked...)
	}
	return files, missing
})

// roots are where real files may be found.
func roots() []string {
	out, err := exec.Command("go", "env", "GOROOT", "GOMODCACHE").Output()
	if err != nil {
		return nil
	}
	return strings.Fields(string(out))
}

// pick returns a large, a middling and a small one of the files. Test vectors are
// left out where there are others: they are hardly what a site serves.
func pick(names []string) []file {
	plain := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return strings.Contains(n, "testdata") })
	if len(plain) > 0 {
		names = plain
	}
	var all []file
	for _, name := range names {
		if content, err := os.ReadFile(name); err == nil {
			all = append(all, file{filepath.Base(name), content})
		}
	}
	slices.SortFunc(all, func(a, b file) int {
		return cmp.Or(cmp.Compare(len(b.content), len(a.content)), bytes.Compare(a.content, b.content))
	})
	all = slices.CompactFunc(all, func(a, b file) bool { return bytes.Equal(a.content, b.content) })
	if len(all) <= 3 {
		return all
	}
	return []file{all[0], all[len(all)/2], all[len(all)-1]}
}
