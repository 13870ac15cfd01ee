package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// A runner is one comparison under way. It is of one goroutine.
type runner struct {
	options
	notes                  io.Writer
	started                time.Time
	dir                    string // temporary; gone at the end
	origin                 *originProcess
	certs                  *certificate
	binary                 string // the node's
	serverCores, loadCores []int
	noise                  patterns
	tools                  map[protocol]string // what loaded it
	report                 *report
	plan                   *plan
	failed                 map[string]bool // a scenario and a peer that failed in it, by failure
	function               string          // the edge function's module, once it is built
}

// note writes a line of progress.
func (r *runner) note(format string, args ...any) {
	fmt.Fprintf(r.notes, "%6.1fs  %s\n", time.Since(r.started).Seconds(), fmt.Sprintf(format, args...))
}

// compare runs what is asked for and writes the results. When ctx ends early, what
// was measured until then is written too.
func compare(ctx context.Context, o options, out, notes io.Writer) error {
	r := &runner{options: o, notes: notes, started: time.Now(), noise: newPatterns(), tools: make(map[protocol]string), failed: make(map[string]bool)}
	chosen, err := chooseScenarios(o.scenarios, o.quick)
	if err != nil {
		return err
	}
	rivals, err := r.choosePeers(ctx)
	if err != nil {
		return err
	}
	if err := r.begin(ctx); err != nil {
		return err
	}
	defer r.end()
	if o.profile {
		return r.profileAll(ctx, chosen)
	}
	r.report = newReport(ctx, o, rivals)
	r.plan = newPlan(o.rounds, r.started.Add(o.within))
	for round := 0; err == nil && r.plan.more(round); round++ {
		err = r.runRound(ctx, round, bySetting(chosen), rivals)
	}
	r.report.Tools = r.tools
	return errors.Join(err, r.write(out))
}

// chooseScenarios returns those that are named, or whose names begin so. Without
// names it is all, or those of a quick run.
func chooseScenarios(names []string, quick bool) ([]scenario, error) {
	all := scenarios()
	if len(names) == 0 {
		return slices.DeleteFunc(all, func(s scenario) bool { return quick && s.more }), nil
	}
	for _, name := range names {
		if !slices.ContainsFunc(all, func(s scenario) bool { return strings.HasPrefix(s.name, name) }) {
			return nil, fmt.Errorf("no scenario begins with %q (hint: --list names them)", name)
		}
	}
	return slices.DeleteFunc(all, func(s scenario) bool {
		return !slices.ContainsFunc(names, func(name string) bool { return strings.HasPrefix(s.name, name) })
	}), nil
}

// choosePeers returns those that are asked for and can run here.
func (r *runner) choosePeers(context.Context) ([]*peer, error) {
	for _, name := range r.peers {
		if !slices.Contains(peerNames(), name) {
			return nil, fmt.Errorf("no peer is called %q (hint: %s)", name, strings.Join(peerNames(), ", "))
		}
	}
	var rivals []*peer
	for _, p := range peers() {
		if len(r.peers) > 0 && !slices.Contains(r.peers, p.name) {
			continue
		}
		if why := p.missing(); why != "" {
			r.note("%s is skipped: %s", p.name, why)
			continue
		}
		rivals = append(rivals, p)
	}
	if len(rivals) == 0 {
		return nil, errors.New("no peer is left to load")
	}
	return rivals, nil
}

// bySetting parts scenarios into runs of those that servers are started alike for.
func bySetting(all []scenario) [][]scenario {
	var groups [][]scenario
	for i, s := range all {
		if i == 0 || s.small != all[i-1].small || s.wasm != all[i-1].wasm || s.fresh {
			groups = append(groups, nil)
		}
		last := len(groups) - 1
		groups[last] = append(groups[last], s)
	}
	return groups
}

// begin makes what all scenarios share. What it started, end ends.
func (r *runner) begin(ctx context.Context) error {
	raiseDescriptors()
	var err error
	if r.serverCores, r.loadCores, err = serverAndLoad(); err != nil {
		return err
	}
	if r.dir, err = os.MkdirTemp("", "seawall-bench-"); err != nil {
		return err
	}
	if r.certs, err = newCertificate(r.dir); err != nil {
		return errors.Join(err, os.RemoveAll(r.dir))
	}
	if r.binary = r.built; r.binary == "" && !r.profile {
		r.note("building ./cmd/seawall")
		r.binary, err = buildNode(ctx, r.dir)
	}
	if err == nil {
		r.origin, err = startOrigin(ctx, r.dir, r.loadCores)
	}
	if err != nil {
		r.end()
	}
	return err
}

func (r *runner) end() {
	if r.origin != nil {
		r.origin.stop()
	}
	_ = os.RemoveAll(r.dir)
}

// runRound runs every scenario once, as far as there is time.
func (r *runner) runRound(ctx context.Context, round int, groups [][]scenario, rivals []*peer) error {
	for _, group := range groups {
		fit := r.plan.fits(time.Now(), round, group)
		if len(fit) == 0 {
			continue
		}
		began := time.Now()
		took, err := r.runGroup(ctx, round, fit, rivals)
		if err != nil {
			return err
		}
		r.plan.measured(startOf(group), time.Since(began)-took)
	}
	return nil
}

// runGroup starts the servers that a group of scenarios needs, runs it, and ends
// them. It returns how long the scenarios took.
func (r *runner) runGroup(ctx context.Context, round int, group []scenario, rivals []*peer) (time.Duration, error) {
	dir, err := os.MkdirTemp(r.dir, "servers-")
	if err != nil {
		return 0, err
	}
	set := setting{dir: dir, origin: r.origin.addr, memory: usualMemory, certs: r.certs, cores: r.serverCores, binary: r.binary}
	if group[0].small {
		set.memory = smallMemory
	}
	if group[0].wasm {
		if set.function, err = r.builtFunction(ctx); err != nil {
			r.note("%s is skipped: %v", group[0].name, err)
			r.report.skip(group[0].group, "the edge function", "could not be built")
			return 0, ctx.Err()
		}
	}
	var servers []*server
	defer func() {
		var ending sync.WaitGroup
		for _, s := range servers {
			ending.Go(s.stop)
		}
		ending.Wait()
		_ = os.RemoveAll(dir)
	}()
	for _, p := range rivals {
		if !slices.ContainsFunc(group, func(s scenario) bool { return s.refuses(p) == "" }) {
			continue
		}
		started, err := r.startAll(ctx, set, p)
		servers = append(servers, started...)
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		if err != nil {
			r.note("%s is skipped: %v", p.name, err)
			r.report.skip(group[0].group, p.name, "did not start")
		}
	}
	began := time.Now()
	for _, sc := range group {
		from := time.Now()
		if !r.plan.stillFits(from, round, sc) {
			continue
		}
		if err := r.runScenario(ctx, round, sc, servers); err != nil {
			return 0, err
		}
		r.plan.measured(sc.name, time.Since(from))
	}
	return time.Since(began), nil
}

// builtFunction returns the module of the edge function, built once.
func (r *runner) builtFunction(ctx context.Context) (string, error) {
	var err error
	if r.function == "" {
		r.function, err = buildFunction(ctx, r.dir)
	}
	return r.function, err
}

// startAll starts a peer; when there is a function, once without it and, under
// another name, once with it.
func (r *runner) startAll(ctx context.Context, set setting, p *peer) ([]*server, error) {
	function := set.function
	set.function = ""
	without, err := startServer(ctx, set, p)
	if err != nil || function == "" {
		return slices.DeleteFunc([]*server{without}, func(s *server) bool { return s == nil }), err
	}
	named := *p
	named.name += " + function"
	set.function = function
	with, err := startServer(ctx, set, &named)
	if err != nil {
		return []*server{without}, err
	}
	return []*server{without, with}, nil
}

// runScenario runs a round of one, in which every server has its turn.
func (r *runner) runScenario(ctx context.Context, round int, sc scenario, servers []*server) error {
	able := slices.DeleteFunc(slices.Clone(servers), func(s *server) bool { return sc.refuses(s.peer) != "" })
	for _, s := range servers {
		if why := sc.refuses(s.peer); why != "" {
			r.report.skip(sc.group, s.peer.name, why)
		}
	}
	for number := range able {
		s := able[turn(round, number, len(able))]
		failure := sc.name + " by " + s.peer.name
		if r.failed[failure] {
			continue
		}
		m, err := sc.run(ctx, r, s, round)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			r.note("%s, %s: %v", sc.name, s.peer.name, err)
			r.report.skip(sc.group, s.peer.name, "failed in "+sc.name)
			r.failed[failure] = true
			continue
		}
		r.report.add(sc, s.peer.name, round, m)
		r.note("%-14s round %d  %-13s %s", sc.name, round+1, s.peer.name, m)
	}
	if sc.group == "zipf" {
		r.simulate(sc, round)
	}
	return nil
}

// String has the figures that a line of progress has room for.
func (m sample) String() string {
	var parts []string
	for _, f := range figures() {
		if v, ok := m[f.name]; ok && len(parts) < 6 {
			parts = append(parts, fmt.Sprintf("%s %.*f", f.title, f.digits, v))
		}
	}
	return strings.Join(parts, ", ")
}

// whileIdle returns the memory of s while count connections rest.
func (r *runner) whileIdle(ctx context.Context, s *server, count int) (int64, error) {
	pipe, out := io.Pipe()
	p, err := self("load", r.dir, r.loadCores, out, "load")
	if err != nil {
		return 0, err
	}
	defer p.stop()
	defer pipe.Close()
	if err := json.NewEncoder(p.in).Encode(loadSpec{Kind: "idle", URL: s.url(h1), Connections: count}); err != nil {
		return 0, err
	}
	type opened struct {
		result loadResult
		err    error
	}
	answer := make(chan opened, 1)
	go func() {
		var o opened
		text, err := bufio.NewReader(pipe).ReadBytes('\n')
		if o.err = err; err == nil {
			o.err = json.Unmarshal(text, &o.result)
		}
		answer <- o
	}()
	select {
	case o := <-answer:
		if o.err != nil || o.result.Errors > 0 {
			return 0, fmt.Errorf("open %d connections: %w %s", count, errors.Join(o.err), o.result.FirstError)
		}
	case <-p.ended:
		return 0, fmt.Errorf("open %d connections: %w\n%s", count, p.err, p.said())
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	pause(ctx, time.Second) // what the requests needed is given back
	return residentBytes(s.pid)
}

// write prints the report and saves its files.
func (r *runner) write(out io.Writer) error {
	text := r.report.markdown()
	if r.json {
		encoded, err := json.MarshalIndent(r.report, "", "  ")
		if err != nil {
			return err
		}
		text = string(encoded) + "\n"
	}
	if _, err := io.WriteString(out, text); err != nil {
		return err
	}
	if r.document != "" {
		if err := writePart(r.document, partResults, r.report.markdown()); err != nil {
			return err
		}
	}
	if r.out == "" {
		return nil
	}
	if err := r.report.save(r.out); err != nil {
		return err
	}
	r.note("results are in %s", filepath.ToSlash(r.out))
	return nil
}
