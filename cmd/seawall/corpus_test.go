package main

import (
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
)

// TestCorpusBytes sends real files, as they stand in the Go installation, by
// each coding, and by a web server's gzip of its usual and of a careful level.
func TestCorpusBytes(t *testing.T) {
	files := realFiles(t)
	var pages []string
	for name := range files {
		pages = append(pages, strings.TrimPrefix(name, "www"))
	}
	slices.Sort(pages)
	gzip := `gzip on; gzip_types *; gzip_min_length 512; gzip_comp_level %d; location / { add_header Cache-Control "max-age=600"; }`
	usual, careful := startNginx(t, files, fmt.Sprintf(gzip, 1), pages[0]), startNginx(t, files, fmt.Sprintf(gzip, 6), pages[0])
	node := startLoaded(t, "--origin", startNginx(t, files, `location / { add_header Cache-Control "max-age=600"; }`, pages[0])).url
	columns := []struct{ name, from, accept string }{
		{"identity", node, "identity"}, {"nginx gzip 1", usual, "gzip"}, {"nginx gzip 6", careful, "gzip"},
		{"gzip", node, "gzip"}, {"zstd", node, "zstd"}, {"br", node, "br"},
	}
	totals := make(map[string]int64)
	for _, c := range columns {
		for _, page := range pages {
			totals[c.name] += bytesOf(t, c.from+page, c.accept)
		}
	}
	var out strings.Builder
	table := tabwriter.NewWriter(&out, 0, 8, 2, ' ', tabwriter.AlignRight)
	for _, c := range columns {
		fmt.Fprintf(table, "%s\t%d\t%.1f %%\t\n", c.name, totals[c.name], 100*float64(totals[c.name])/float64(totals["identity"]))
	}
	_ = table.Flush() // a string takes all
	t.Logf("%d files, bytes of content:\n%s", len(pages), &out)
	for _, mine := range []string{"gzip", "zstd", "br"} {
		if totals[mine] >= totals["nginx gzip 1"] || totals[mine] == 0 {
			t.Errorf("%s: %d bytes, want fewer than the %d of the web server's usual gzip", mine, totals[mine], totals["nginx gzip 1"])
		}
	}
	if totals["br"] >= totals["nginx gzip 6"] {
		t.Errorf("br: %d bytes, want fewer than the %d of gzip 6", totals["br"], totals["nginx gzip 6"])
	}
}

// bytesOf counts the content's bytes as they are sent in one coding.
func bytesOf(t *testing.T, url, accept string) int64 {
	t.Helper()
	req, err := http.NewRequest("GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept-Encoding", accept)
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Content-Encoding"); resp.StatusCode != 200 || accept != "identity" && got != accept {
		t.Fatalf("%s for %s: %d, Content-Encoding %q", url, accept, resp.StatusCode, got)
	}
	n, err := io.Copy(io.Discard, resp.Body)
	if err != nil {
		t.Fatalf("%s for %s: %v", url, accept, err)
	}
	return n
}

// realFiles are at most five of each kind from the Go installation, each under
// www/.
func realFiles(t *testing.T) map[string]string {
	t.Helper()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Skip("the files are those of a Go installation")
	}
	files, kinds := make(map[string]string), make(map[string]int)
	err = filepath.WalkDir(strings.TrimSpace(string(root)), func(name string, entry fs.DirEntry, err error) error {
		kind := filepath.Ext(name)
		if err != nil || !entry.Type().IsRegular() || kinds[kind] == 5 || !slices.Contains([]string{".html", ".css", ".js", ".json", ".svg", ".wasm"}, kind) {
			return nil
		}
		content, err := os.ReadFile(name)
		if err == nil && len(content) >= 2<<10 && len(content) <= 512<<10 {
			kinds[kind]++
			files[fmt.Sprintf("www/%d%s", kinds[kind], kind)] = string(content)
		}
		return nil
	})
	if err != nil || len(files) == 0 {
		t.Skip("no file of any kind in the Go installation")
	}
	return files
}
