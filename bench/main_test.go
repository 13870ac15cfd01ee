package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestMain lets the test binary be its own helpers, as the program is.
func TestMain(m *testing.M) {
	if os.Getenv("SEAWALL_BENCH_HELPER") != "" {
		if err := run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func TestOptions(t *testing.T) {
	for _, tt := range []struct {
		name string
		args string
		want string // of the error; "" for none
		good func(o options) bool
	}{
		{"nothing", "", "", func(o options) bool { return o.rounds == 3 && o.length == time.Second }},
		{"quick", "--quick", "", func(o options) bool { return o.rounds == 1 && o.length == quickLength }},
		{"quick gives way", "--quick --rounds 2 --for 2s", "", func(o options) bool { return o.rounds == 2 && o.length == 2*time.Second }},
		{"lists", "--scenario hits,,zipf --peers nginx", "", func(o options) bool { return len(o.scenarios) == 2 && len(o.peers) == 1 }},
		{"no rounds", "--rounds 0", "--rounds", nil},
		{"too short", "--for 1ms", "--for", nil},
		{"a stranger", "brew", "sub-command", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var notes bytes.Buffer
			o, err := parseOptions(strings.Fields(tt.args), &notes)
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Fatalf("%q: got error %v, want one with %q", tt.args, err, tt.want)
				}
				return
			}
			if err != nil || !tt.good(o) {
				t.Fatalf("%q: got %+v, error %v", tt.args, o, err)
			}
		})
	}
}

func TestUnknownNamesAreTold(t *testing.T) {
	if _, err := chooseScenarios([]string{"hits-h1-1k", "naps"}, false); err == nil || !strings.Contains(err.Error(), `"naps"`) {
		t.Errorf(`scenario "naps": got error %v, want one that names it`, err)
	}
	chosen, err := chooseScenarios([]string{"hits-h2x10", "idle"}, true)
	if err != nil || len(chosen) != 5 {
		t.Errorf("hits-h2x10 and idle: got %d scenarios, error %v; want 4 and 1", len(chosen), err)
	}
	r := &runner{options: options{peers: []string{"squirrel"}}, notes: new(bytes.Buffer)}
	if _, err := r.choosePeers(t.Context()); err == nil || !strings.Contains(err.Error(), `"squirrel"`) {
		t.Errorf(`peer "squirrel": got error %v, want one that names it`, err)
	}
}

// TestScenariosThatShareServersStandTogether: servers are started anew for each
// setting, which takes time.
func TestScenariosThatShareServersStandTogether(t *testing.T) {
	seen := make(map[string]bool)
	for _, s := range scenarios() {
		if seen[s.name] {
			t.Errorf("%s is there twice", s.name)
		}
		seen[s.name] = true
	}
	if groups := bySetting(scenarios()); len(groups) != 4 {
		t.Errorf("got %d groups of servers, want 4: usual, fresh, small, with a function", len(groups))
	}
}

// TestSmoke runs one scenario for a second against a node that it builds, and
// looks at what is written. The scenario is of HTTP/3, whose load needs nothing
// but Go.
func TestSmoke(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds and loads a node")
	}
	if runtime.GOOS != "linux" {
		t.Skip("the comparison needs Linux")
	}
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	results := filepath.Join(t.TempDir(), "results")
	var out, notes bytes.Buffer
	err := run(t.Context(), strings.Fields("--scenario hits-h3-1k --peers seawall --rounds 1 --for 1s --out "+results), nil, &out, &notes)
	if err != nil {
		t.Fatalf("%v\n%s", err, notes.String())
	}
	if !strings.Contains(out.String(), "| hits-h3-1k | seawall |") || strings.Contains(out.String(), "| errors |") {
		t.Errorf("got the table\n%s\nwant a row of the scenario, and no errors\n%s", out.String(), notes.String())
	}
	for _, name := range []string{"results.json", "results.md", "hits-h3-cpu.svg", "hits-h3-rps.svg"} {
		if info, err := os.Stat(filepath.Join(results, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: got error %v, want a file with something in it", name, err)
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, "seawall-bench-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("the run left %q, error %v; want nothing", left, err)
	}
}

// TestBareHandlerWritesAsMuchAsAHit compares what both send on the wire.
func TestBareHandlerWritesAsMuchAsAHit(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds a node")
	}
	if runtime.GOOS != "linux" {
		t.Skip("the comparison needs Linux")
	}
	ctx, dir := t.Context(), t.TempDir()
	r := &runner{options: options{}, notes: io.Discard, started: time.Now(), noise: newPatterns()}
	t.Setenv("TMPDIR", dir)
	if err := r.begin(ctx); err != nil {
		t.Fatal(err)
	}
	defer r.end()
	o := object{policy: "hour", size: 1024, id: 7}
	var fields [2][]string
	var lengths [2]int
	for i, p := range peers()[:2] {
		s, err := startServer(ctx, setting{dir: dir, origin: r.origin.addr, memory: usualMemory, certs: r.certs, cores: r.serverCores, binary: r.binary}, p)
		if err != nil {
			t.Fatal(err)
		}
		defer s.stop()
		for range 2 { // the second is a hit
			if fields[i], lengths[i], err = wire(s.clear, o); err != nil {
				t.Fatalf("%s: %v", p.name, err)
			}
		}
	}
	if !slices.Equal(fields[0], fields[1]) {
		t.Errorf("fields: Seawall sends %q, the bare handler %q; want the same", fields[0], fields[1])
	}
	t.Logf("GET %s: Seawall sends %d bytes, the bare handler %d", o.path(), lengths[0], lengths[1])
	// ttl may have a digit less in one of them.
	if d := lengths[0] - lengths[1]; d < -4 || d > 4 {
		t.Errorf("GET %s: Seawall sends %d bytes, the bare handler %d; want the same within 4", o.path(), lengths[0], lengths[1])
	}
}

// wire returns the names of a response's fields, sorted, and how many bytes all
// of it has.
func wire(addr string, o object) ([]string, int, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, 0, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", o.path(), addr); err != nil {
		return nil, 0, err
	}
	var all bytes.Buffer
	buf := make([]byte, 64<<10)
	for {
		head, body, ok := strings.Cut(all.String(), "\r\n\r\n")
		if ok && len(body) >= o.size {
			var names []string
			for _, line := range strings.Split(head, "\r\n")[1:] {
				name, _, _ := strings.Cut(line, ":")
				names = append(names, name)
			}
			slices.Sort(names)
			return names, all.Len(), nil
		}
		n, err := conn.Read(buf)
		all.Write(buf[:n])
		if err != nil {
			return nil, 0, err
		}
	}
}

// TestInterruptCleansUp ends a run in the middle, which writes what it has.
func TestInterruptCleansUp(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the comparison needs Linux")
	}
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	ctx, cancel := context.WithCancel(t.Context())
	notes := &cancelling{cancel: cancel, at: "round 1"}
	var out bytes.Buffer
	args := append(strings.Fields("--scenario hits-h1-1k --peers net/http --rounds 50 --for 100ms --node unused --out"), "")
	err := run(ctx, args, nil, &out, notes)
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got error %v, want %v\n%s", err, context.Canceled, notes.String())
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "seawall-bench-*")); len(left) > 0 {
		t.Errorf("the run left %q; want nothing", left)
	}
	if !strings.Contains(out.String(), "| hits-h1-1k | net/http |") || !strings.Contains(out.String(), "1 round of 50") {
		t.Errorf("got the table\n%s\nwant in it what was measured before", out.String())
	}
}

// cancelling calls cancel when what it is told contains a word.
type cancelling struct {
	bytes.Buffer
	cancel func()
	at     string
}

func (c *cancelling) Write(p []byte) (int, error) {
	if strings.Contains(string(p), c.at) {
		c.cancel()
	}
	return c.Buffer.Write(p)
}

// TestSoak is the short soak.
func TestSoak(t *testing.T) {
	if os.Getenv("SEAWALL_LONG") == "" {
		t.Skip("SEAWALL_LONG is not set: it takes half a minute")
	}
	if runtime.GOOS != "linux" {
		t.Skip("it reads /proc")
	}
	var out, notes bytes.Buffer
	if err := run(t.Context(), []string{"soak", "--for", "10s", "--out", ""}, nil, &out, &notes); err != nil {
		t.Errorf("%v\n%s%s", err, notes.String(), out.String())
	}
}
