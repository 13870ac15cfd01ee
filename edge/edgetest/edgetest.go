// Package edgetest runs scripts of behaviour against an edge.Handler in
// virtual time: raw bytes over in-memory pipes in front, a scripted origin
// behind.
//
// A script is paragraphs parted by an empty line. A paragraph is comments
// ("#"), a command, its input, then "----" and what the command must print;
// without "----" it must print nothing. Body lines start with "| ". A body is
// its lines joined by a line feed, without one at the end.
//
//	site KEY=VALUE...             the site's policy (node.go); before the first request
//	  rule KEY=VALUE...           one rule of the site, as an input line
//	origin [METHOD] PATH ...      sets what the origin answers (origin.go)
//	next [METHOD] PATH ...        adds an answer for the requests after; the last repeats
//	get|head|post PATH ...        asks and prints the answer (client.go)
//	request METHOD PATH ...       the same with any method
//	raw [wait=1s] [head] [nobody] writes the body lines as they are (\r \n \t \\ \xHH), prints the answers
//	start NAME [METHOD] PATH ...  asks and goes on; "stalled=N" stops reading after N bytes of the body
//	send NAME                     writes body lines to a started exchange that was upgraded
//	read NAME                     prints what has come since the last read
//	await NAME                    reads on to the end and prints the answer
//	leave NAME                    breaks the connection off
//	many N [METHOD] PATH ...      N clients at once; prints each distinct answer with its count
//	sleep DURATION                passes time
//	asked [show=NAME,...]         prints what the origin saw since the last asked
//	purge [PATH...] ...           puts a purge into force: tag= prefix= host= site= soft
//	                              any_query everything refresh (purge.go)
//	match ...                     prints what such a purge would be of
//	doubt                         says that purges may have been missed
//	sweep                         runs one pass of the sweep, prints what is left
//	push PATH ...                 stores a response: status= ask="Name: value" size= slow= as=NAME
//	pushed NAME                   waits for a push begun with as=NAME
//	stored PATH                   prints what is kept for a URL
//	warm PATH                     lets the node ask itself
//
// An answer is printed as "STATUS after DURATION" (until its head came), the
// fields Cache-Status and Proxy-Status where present, those that "show" names
// ("Age: -" when absent), the body and the trailers. What came later than the
// line above it follows a line "DURATION later". The text of an error that the
// node made itself (its Proxy-Status says so) is for people and not printed.
package edgetest

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// node is what a script runs against.
type node struct {
	handler http.Handler
	cache   *cache // nil without one
	close   func() error
}

// setting is one KEY=VALUE of a site command, or of a rule of it.
type setting struct {
	key, value string
	rule       int // number of the rule, from 1; 0 for the site itself
}

// opener makes the node that a script asks for.
type opener func(settings []setting, origin http.RoundTripper) (*node, error)

// Run runs the script in file as the test t, in a bubble of its own. With
// rewrite it writes what each command printed back into the file instead of
// comparing; an error of the script itself still fails the test.
func Run(t *testing.T, file string, rewrite bool) {
	run(t, file, rewrite, openEdge)
}

func run(t *testing.T, file string, rewrite bool, open opener) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	all, err := parseScript(file, string(text))
	if err != nil {
		t.Fatal(err)
	}
	var printed [][]string
	synctest.Test(t, func(t *testing.T) {
		printed, err = play(all, open, t.Errorf)
	})
	if !rewrite || err != nil {
		for _, d := range differences(all[:len(printed)], printed) {
			t.Errorf("%s:%s", file, d)
		}
	}
	if err != nil {
		t.Fatalf("%s:%v", file, err)
	}
	if !rewrite {
		return
	}
	if t.Failed() {
		return
	}
	if err := os.WriteFile(file, []byte(format(all, printed)), 0o644); err != nil {
		t.Error(err)
	}
}

// play runs the paragraphs in the caller's bubble and gives what each printed,
// up to the first that could not be run. Its error starts with its line.
func play(all []paragraph, open opener, report func(string, ...any)) ([][]string, error) {
	s := newStage(open, report)
	defer s.close()
	var printed [][]string
	for _, p := range all {
		got, err := s.step(p)
		if err != nil {
			return printed, fmt.Errorf("%d: %w", p.line, err)
		}
		printed = append(printed, got)
	}
	return printed, nil
}

// differences are the commands that did not print what they had to, each
// with its line, what it printed and what it had to print.
func differences(all []paragraph, printed [][]string) []string {
	var out []string
	for i, p := range all {
		if !slices.Equal(printed[i], p.want) {
			out = append(out, fmt.Sprintf("%d: %s\ngot:\n%s\nwant:\n%s", p.line, p.command, indent(printed[i]), indent(p.want)))
		}
	}
	return out
}

func indent(lines []string) string {
	if len(lines) == 0 {
		return "    (nothing)"
	}
	return "    " + strings.Join(lines, "\n    ")
}

// stage is one script's run: owned by the goroutine of the test.
type stage struct {
	open     opener
	report   func(format string, args ...any)
	settings []setting
	rules    int
	origin   *origin
	front    *front // nil until the first request
	node     *node
	began    time.Time
	named    map[string]*exchange
	pushes   map[string]chan []string // under way, by name
}

func newStage(open opener, report func(string, ...any)) *stage {
	now := time.Now()
	return &stage{open: open, report: report, origin: newOrigin(now), began: now, named: map[string]*exchange{}, pushes: map[string]chan []string{}}
}

// step runs one paragraph and gives what it printed.
func (s *stage) step(p paragraph) ([]string, error) {
	if p.command == "" {
		return nil, nil
	}
	a, err := parseArgs(p.command)
	if err != nil {
		return nil, err
	}
	verb, ok := s.verbs()[a.verb]
	if !ok {
		return nil, fmt.Errorf("there is no command %s", a.verb)
	}
	s.origin.next()
	got, err := verb(a, p.input)
	if err != nil {
		return nil, err
	}
	// What the command set off settles before the next one sees it.
	synctest.Wait()
	return got, s.origin.complaint()
}

// ready makes the node and the server in front of it, once.
func (s *stage) ready() error {
	if s.front != nil {
		return nil
	}
	n, err := s.open(s.settings, s.origin)
	if err != nil {
		return err
	}
	s.node, s.front = n, newFront(n.handler, s.report)
	return nil
}

// close ends every exchange, the server and the node, in this order, as a
// process that stops would. The bubble then reports goroutines left behind.
func (s *stage) close() {
	for _, x := range s.named {
		x.leave()
	}
	for _, done := range s.pushes {
		<-done
	}
	if s.front == nil {
		return
	}
	s.front.close()
	// net/http lingers half a second on a connection whose content it left
	// unread; the bubble's clock jumps over it.
	time.Sleep(time.Second)
	synctest.Wait()
	if err := s.node.close(); err != nil {
		s.report("closing the node: %v", err)
	}
}
