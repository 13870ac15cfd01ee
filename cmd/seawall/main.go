// Command seawall is the caching node: configuration, wiring, signals and
// sub-commands. It alone reads flags, files and the environment.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// The exit codes, the same for every command.
const (
	exitDone   = 0
	exitFailed = 1 // a one-line reason and a hint are on standard error
	exitUsage  = 2
)

// usageError is a command line that cannot be followed.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

// terminal is where a command writes: figures and lists on out, words on err.
type terminal struct{ out, err io.Writer }

// commands is the whole command line. Those of a later version are names only.
type commands struct {
	Serve   serveCommand   `cmd:"" help:"Run a caching node in front of an origin."`
	Demo    demoCommand    `cmd:"" help:"Run a sample origin and a node in front of it, to try things out."`
	Check   checkCommand   `cmd:"" help:"Validate a configuration and print every error of it."`
	Purge   purgeCommand   `cmd:"" help:"Remove responses from the cache, at once."`
	Push    pushCommand    `cmd:"" help:"Store a response."`
	Warm    warmCommand    `cmd:"" help:"Fetch URLs into the cache."`
	Wasm    wasmCommand    `cmd:"" help:"Check and test edge functions."`
	Version versionCommand `cmd:"" help:"Print the version, commit, Go version and modules of note."`

	Explain laterCommand `cmd:"" passthrough:"" help:"Say why a URL is or is not served from the cache. (In a later version.)"`
	Top     laterCommand `cmd:"" passthrough:"" help:"Watch a node in the terminal. (In a later version.)"`
}

// laterCommand is known and not there yet.
type laterCommand struct {
	Args []string `arg:"" optional:"" hidden:""`
}

// Run refuses.
func (*laterCommand) Run(k *kong.Context) error {
	return &usageError{fmt.Sprintf("%s is not in this version; it comes in a later one (hint: seawall --help lists what is there)", k.Selected().Name)}
}

func main() { os.Exit(run(os.Args[1:], &terminal{os.Stdout, os.Stderr})) }

// run follows one command line and returns the exit code.
func run(args []string, t *terminal) int {
	var c commands
	helped := false
	parser, err := kong.New(&c, kong.Name("seawall"),
		kong.Description("A caching node: point it at an origin and it answers for it.\n\n"+
			"  seawall serve --origin http://127.0.0.1:8000"),
		kong.Writers(t.out, t.err),
		kong.Exit(func(int) { helped = true }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}))
	if err != nil {
		return fail(t, err)
	}
	k, err := parser.Parse(together(parser.Model, args))
	if helped { // --help has printed it; what else is on the line does not matter
		return exitDone
	}
	if err != nil {
		return fail(t, &usageError{err.Error() + " (hint: " + strings.Join(append([]string{"seawall"}, helpFor(args)...), " ") + " --help)"})
	}
	return fail(t, k.Run(t))
}

// together puts a command's flags before its arguments, which the parser takes
// only in one piece.
func together(app *kong.Application, args []string) []string {
	var command *kong.Node
	words := 0
	for nodes := app.Children; words < len(args); words++ {
		i := slices.IndexFunc(nodes, func(n *kong.Node) bool { return n.Name == args[words] && !n.Passthrough })
		if i < 0 {
			break
		}
		command, nodes = nodes[i], nodes[i].Children
	}
	if command == nil || len(command.Children) > 0 {
		return args
	}
	takesValue := make(map[string]bool)
	for _, group := range command.AllFlags(false) {
		for _, f := range group {
			takesValue["--"+f.Name] = !f.IsBool()
			if f.Short != 0 {
				takesValue["-"+string(f.Short)] = !f.IsBool()
			}
		}
	}
	flags, rest := slices.Clone(args[:words]), []string{}
	for i := words; i < len(args); i++ {
		switch a := args[i]; {
		case a == "--": // nothing behind it is a flag
			return slices.Concat(flags, args[i:i+1], rest, args[i+1:])
		case len(a) < 2 || a[0] != '-':
			rest = append(rest, a)
		case takesValue[a] && i+1 < len(args):
			flags = append(flags, a, args[i+1])
			i++
		default:
			flags = append(flags, a)
		}
	}
	return append(flags, rest...)
}

// helpFor names the command whose help explains args.
func helpFor(args []string) []string {
	for _, name := range []string{"serve", "demo", "check", "purge", "push", "warm", "wasm", "version"} {
		if len(args) > 0 && args[0] == name {
			if name == "wasm" && len(args) > 1 && slices.Contains([]string{"check", "test", "bench"}, args[1]) {
				return args[:2]
			}
			return args[:1]
		}
	}
	return nil
}

// fail prints err, if any, and returns the exit code it means.
func fail(t *terminal, err error) int {
	var usage *usageError
	var list *faults
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &list): // lines that editors and people jump by: nothing before the file's name
		for _, line := range list.lines() {
			fmt.Fprintln(t.err, line)
		}
		return exitFailed
	case errors.As(err, &usage):
		fmt.Fprintln(t.err, "seawall:", err)
		return exitUsage
	}
	fmt.Fprintln(t.err, "seawall:", err)
	return exitFailed
}
