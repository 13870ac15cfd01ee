package main

import (
	"fmt"
	"io"
	"strings"

	"seawall/wasm"
)

// wasmCommand is `seawall wasm`.
type wasmCommand struct {
	Check wasmCheckCommand `cmd:"" help:"Tell what a module is, what it imports, and why it would be refused."`
	Test  wasmTestCommand  `cmd:"" help:"Run a module on a request and print what it changed."`
	Bench wasmBenchCommand `cmd:"" help:"Measure what a module costs for each request."`
}

// wasmCheckCommand is `seawall wasm check FILE`.
type wasmCheckCommand struct {
	File string `arg:"" help:"The WebAssembly module."`
	JSON bool   `name:"json" help:"Print JSON."`
}

// Help is shown under the command's flags.
func (*wasmCheckCommand) Help() string {
	return "The module is read and not run; seawall wasm test runs it. The exit code is 1 if a node would refuse it.\n\nExample:\n  seawall wasm check headers.wasm"
}

// The shape of --json.
type (
	checkBody struct {
		File       string       `json:"file"`
		SHA256     string       `json:"sha256"`
		ABI        string       `json:"abi"` // "" when it speaks none
		Refused    []string     `json:"refused"`
		Size       int          `json:"size"`
		Rewritten  int          `json:"rewritten"`
		Functions  int          `json:"functions"`
		Memory     memoryBody   `json:"memory"`
		Modes      []string     `json:"modes"`
		Imports    []importBody `json:"imports"`
		Exports    []string     `json:"exports"`
		Callbacks  []string     `json:"callbacks"`
		Resettable bool         `json:"resettable"`
	}
	memoryBody struct {
		First uint64 `json:"first_bytes"`
		Most  uint64 `json:"most_bytes"` // 0: as the limit allows
		Grows bool   `json:"grows"`
	}
	importBody struct {
		Module  string `json:"module"`
		Name    string `json:"name"`
		Refused string `json:"refused,omitempty"`
	}
)

// Run reports on the module.
func (c *wasmCheckCommand) Run(t *terminal) error {
	source, err := readModule(c.File)
	if err != nil {
		return fmt.Errorf("%w (hint: FILE is a WebAssembly module)", err)
	}
	r := wasm.Check(source)
	b := checkBody{
		File: c.File, SHA256: hashOf(source), ABI: r.ABI, Refused: append([]string{}, r.Refused...), Size: r.Size, Rewritten: r.Rewritten,
		Functions: r.Functions, Memory: memoryBody{r.MemoryMin, r.MemoryMax, r.Grows}, Modes: []string{}, Imports: []importBody{},
		Exports: append([]string{}, r.Exports...), Callbacks: append([]string{}, r.Callbacks...), Resettable: r.Resettable,
	}
	for _, i := range r.Imports {
		b.Imports = append(b.Imports, importBody{i.Module, i.Name, i.Why})
	}
	if len(r.Refused) == 0 {
		b.Modes = append(b.Modes, "shared")
		if r.Resettable {
			b.Modes = append(b.Modes, "reset")
		}
	}
	if c.JSON {
		if err := printJSON(t.out, b); err != nil {
			return err
		}
	} else {
		b.print(t.out)
	}
	if n := len(r.Refused); n > 0 {
		return fmt.Errorf("%s: refused for %s (hint: each line above that begins with refused says what to change)", c.File, plural(n, "reason"))
	}
	return nil
}

// print writes the report for people. Names are the module's own: nothing in
// them moves the cursor.
func (b *checkBody) print(w io.Writer) {
	abi := b.ABI
	if abi == "" {
		abi = "no ABI that is known"
	}
	fmt.Fprintf(w, "module     %s: %s, %s, %s\n", oneLine(b.File), abi, showBytes(int64(b.Size)), plural(b.Functions, "function"))
	fmt.Fprintf(w, "sha256     %s\n", b.SHA256)
	most := "as much as the limit allows"
	if b.Memory.Most > 0 {
		most = "at most " + showBytes(int64(b.Memory.Most))
	}
	if !b.Memory.Grows {
		most = "and does not grow"
	}
	fmt.Fprintf(w, "memory     %s at first, %s\n", showBytes(int64(b.Memory.First)), most)
	if len(b.Modes) > 0 {
		fmt.Fprintf(w, "modes      %s\n", strings.Join(b.Modes, ", "))
	}
	for _, i := range b.Imports {
		line := "imports    " + clipped(i.Module+"."+i.Name)
		if i.Refused != "" {
			line += " (refused)"
		}
		fmt.Fprintln(w, line)
	}
	fmt.Fprintf(w, "exports    %s\n", clipped(strings.Join(b.Exports, ", ")))
	for _, s := range b.Callbacks {
		fmt.Fprintln(w, "callback   "+s)
	}
	for _, s := range b.Refused {
		fmt.Fprintln(w, "refused    "+clipped(s))
	}
}

// clipped is a text of a module's, on one line and bounded.
func clipped(s string) string {
	if s = oneLine(s); len(s) > 1000 {
		s = s[:1000] + "..."
	}
	return s
}
