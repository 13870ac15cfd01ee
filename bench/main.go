// Package main loads a Seawall node, and the caches that people use instead,
// with the same work in the same run, and writes one table of what each took.
// It imports nothing of Seawall: it builds the node, starts it as a process and
// speaks to it as any client would.
//
//	go run ./bench                    every scenario, every peer that is installed
//	go run ./bench --quick            one short round of each
//	go run ./bench soak --for 10m     mixed traffic whose every byte is checked
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run is the program. The sub-commands origin, bare and load are started by the
// program itself, as processes that can be pinned and measured.
func run(ctx context.Context, args []string, in io.Reader, out, notes io.Writer) error {
	if len(args) > 0 {
		switch args[0] {
		case "origin":
			return runOrigin(ctx, args[1:], in)
		case "bare":
			return runBare(ctx, args[1:], in)
		case "load":
			return runLoad(ctx, in, out)
		case "soak":
			return runSoak(ctx, args[1:], out, notes)
		}
	}
	o, err := parseOptions(args, notes)
	if err != nil {
		return err
	}
	if o.list {
		for _, s := range scenarios() {
			fmt.Fprintf(out, "%-18s %s\n", s.name, s.about)
		}
		return nil
	}
	return compare(ctx, o, out, notes)
}

// options are what a comparison is asked for.
type options struct {
	scenarios []string // names or beginnings of names; empty is all
	peers     []string // names; empty is all
	rounds    int
	length    time.Duration // of one measured piece of load
	out       string        // folder of results; "" writes no files
	json      bool          // JSON on standard output in place of the table
	profile   bool
	quick     bool
	list      bool
	built     string        // a binary to use in place of building one
	within    time.Duration // rounds are left out that would not end by then
	document  string        // whose part the table replaces; "" for none
}

func parseOptions(args []string, notes io.Writer) (options, error) {
	var o options
	var names, peers string
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(notes)
	f.Usage = func() {
		fmt.Fprintln(notes, "go run ./bench [flags]           load a node and its peers, print one table")
		fmt.Fprintln(notes, "go run ./bench soak --for 10m    mixed traffic over all protocols, every body checked")
		fmt.Fprintln(notes, "\nFlags:")
		f.PrintDefaults()
	}
	f.StringVar(&names, "scenario", "", "scenarios, by name or beginning, parted by commas (all)")
	f.StringVar(&peers, "peers", "", "peers, parted by commas: "+strings.Join(peerNames(), ", ")+" (all that are installed)")
	f.IntVar(&o.rounds, "rounds", 3, "interleaved rounds; figures are their medians")
	f.DurationVar(&o.length, "for", time.Second, "how long each piece of load lasts")
	f.StringVar(&o.out, "out", filepath.Join("bench", "results"), "folder for results.json, results.md, *.svg and profiles; \"\" for none")
	f.BoolVar(&o.json, "json", false, "print JSON in place of the table")
	f.BoolVar(&o.profile, "profile", false, "save CPU and allocation profiles of the node for each scenario, in place of figures")
	f.BoolVar(&o.quick, "quick", false, "one round of pieces of 200ms, with fewer sizes of hits")
	f.DurationVar(&o.within, "within", 13*time.Minute, "leave out what would not end by then; every scenario has one round")
	f.StringVar(&o.document, "write", "", "also put the table into this document, as bench/README.md, between its marks")
	f.BoolVar(&o.list, "list", false, "list the scenarios")
	f.StringVar(&o.built, "node", "", "a built seawall to load, in place of building ./cmd/seawall")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("%q is no sub-command (hint: soak, or flags alone)", f.Arg(0))
	}
	o.scenarios, o.peers = splitList(names), splitList(peers)
	given := make(map[string]bool)
	f.Visit(func(fl *flag.Flag) { given[fl.Name] = true })
	if o.quick && !given["rounds"] {
		o.rounds = 1
	}
	if o.quick && !given["for"] {
		o.length = quickLength
	}
	if o.rounds < 1 || o.rounds > 100 {
		return o, errors.New("--rounds is from 1 to 100")
	}
	if o.length < 100*time.Millisecond || o.length > time.Hour {
		return o, errors.New("--for is from 100ms to 1h")
	}
	return o, writable(o.document, partResults)
}

// quickLength is a piece of load of a quick run, which is to end within two
// minutes.
const quickLength = 200 * time.Millisecond

// splitList returns the names of a list parted by commas, nil of an empty one.
func splitList(s string) []string {
	var names []string
	for name := range strings.SplitSeq(s, ",") {
		if name = strings.TrimSpace(name); name != "" {
			names = append(names, name)
		}
	}
	return names
}
