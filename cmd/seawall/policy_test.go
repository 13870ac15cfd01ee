package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
)

// uses lists the Seawall packages each folder may use. A folder without a row
// may use none. Widening a row is a design change, not a way to a green build.
var uses = map[string]string{
	"cmd/seawall":   "edge edge/admin edge/encode edge/listen edge/rfc9111 edge/store origin purge wasm wasm/abi wasm/extras",
	"edge/admin":    "edge edge/store origin purge wasm",
	"edge":          "edge/encode edge/rfc9111 edge/store purge wasm wasm/abi",
	"edge/edgetest": "edge edge/store purge",
	"wasm":          "wasm/abi wasm/httpwasm wasm/meter wasm/proxywasm",

	"wasm/extras":    "wasm/abi",
	"wasm/httpwasm":  "wasm/abi",
	"wasm/proxywasm": "wasm/abi",

	"wasm/examples/exampletest": "wasm wasm/abi",
	"wasm/examples/abtest":      "wasm/examples/guest",
	"wasm/examples/bots":        "wasm/examples/guest",
	"wasm/examples/geo":         "wasm/examples/guest",
	"wasm/examples/jwt":         "wasm/examples/guest",
	"wasm/examples/signedurl":   "wasm/examples/guest",
	"wasm/examples/headers":     "wasm/examples/guest",
	"wasm/examples/redirects":   "wasm/examples/guest",
}

// eachFile parses every Go file of the module but tests.
func eachFile(t *testing.T, visit func(file string, fset *token.FileSet, f *ast.File)) {
	t.Helper()
	root := os.DirFS("../..")
	err := fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if entry.Name() == "testdata" || strings.HasPrefix(entry.Name(), ".") && name != "." {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		text, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, name, text, parser.ParseComments)
		if err != nil {
			return err
		}
		visit(name, fset, f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestImportPolicy(t *testing.T) {
	seen := 0
	eachFile(t, func(file string, _ *token.FileSet, f *ast.File) {
		seen++
		dir := path.Dir(file)
		for _, spec := range f.Imports {
			name, local := strings.CutPrefix(strings.Trim(spec.Path.Value, `"`), "seawall/")
			if local && !slices.Contains(strings.Fields(uses[dir]), name) {
				t.Errorf("%s: %s may not use %s", file, dir, name)
			}
		}
	})
	if seen < 20 {
		t.Errorf("saw %d files; the walk does not reach the module", seen)
	}
}

func TestPackageShape(t *testing.T) {
	comments := make(map[string]int)
	eachFile(t, func(file string, fset *token.FileSet, f *ast.File) {
		comments[path.Dir(file)] += min(1, len(f.Doc.Text()))
		if n := fset.File(f.Package).LineCount(); n > 800 {
			t.Errorf("%s: %d lines; cut it by idea", file, n)
		}
		for _, decl := range f.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s: func init; let cmd/seawall wire it", file)
			}
			if n := fset.Position(fn.End()).Line - fset.Position(fn.Pos()).Line + 1; n > 100 {
				t.Errorf("%s: %s has %d lines; name its steps", file, fn.Name.Name, n)
			}
		}
	})
	for dir, n := range comments {
		if n != 1 {
			t.Errorf("%s: %d package comments; say the package's duty once", dir, n)
		}
	}
}
