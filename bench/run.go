package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
	rested                 map[*server]int64   // memory before the first idle connection
	report                 *report
	ends                   time.Time // when the rounds should
	left                   int       // scenarios that have not ended
}

// note writes a line of progress.
func (r *runner) note(format string, args ...any) {
	fmt.Fprintf(r.notes, "%6.1fs  %s\n", time.Since(r.started).Seconds(), fmt.Sprintf(format, args...))
}

// compare runs what is asked for and writes the results. When ctx ends early, what
// was measured until then is written too.
func compare(ctx context.Context, o options, out, notes io.Writer) error {
	r := &runner{options: o, notes: notes, started: time.Now(), noise: newPatterns(), tools: make(map[protocol]string), rested: make(map[*server]int64)}
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
	r.ends, r.left = r.started.Add(o.within), len(chosen)
	for _, group := range bySetting(chosen) {
		if err = r.runGroup(ctx, group, rivals); err != nil {
			break
		}
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

// runGroup starts the servers that a group of scenarios needs, runs it, and ends
// them.
func (r *runner) runGroup(ctx context.Context, group []scenario, rivals []*peer) error {
	dir, err := os.MkdirTemp(r.dir, "servers-")
	if err != nil {
		return err
	}
	set := setting{dir: dir, origin: r.origin.addr, memory: usualMemory, certs: r.certs, cores: r.serverCores, binary: r.binary}
	if group[0].small {
		set.memory = smallMemory
	}
	if group[0].wasm {
		if set.function, err = buildFunction(ctx, dir); err != nil {
			r.note("%s is skipped: %v", group[0].name, err)
			return ctx.Err()
		}
	}
	var servers []*server
	defer func() {
		for _, s := range servers {
			s.stop()
		}
		_ = os.RemoveAll(dir)
	}()
	for _, p := range rivals {
		if !slices.ContainsFunc(group, func(s scenario) bool { return s.refuses(p) == "" }) {
			continue
		}
		started, err := r.startAll(ctx, set, p)
		servers = append(servers, started...)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			r.note("%s is skipped: %v", p.name, err)
			r.report.skip(group[0].group, p.name, "did not start")
		}
	}
	for _, sc := range group {
		if err := r.runScenario(ctx, sc, servers); err != nil {
			return err
		}
	}
	return nil
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

// runScenario runs one in rounds; in each, every server has its turn, and the
// first turn goes round.
func (r *runner) runScenario(ctx context.Context, sc scenario, servers []*server) error {
	able := slices.DeleteFunc(slices.Clone(servers), func(s *server) bool { return sc.refuses(s.peer) != "" })
	for _, s := range servers {
		if why := sc.refuses(s.peer); why != "" {
			r.report.skip(sc.group, s.peer.name, why)
		}
	}
	failed := make(map[*server]bool)
	share := r.share(time.Now())
	defer func() { r.left-- }()
	for round := range r.rounds {
		began := time.Now()
		for turn := range able {
			s := able[(round+turn)%len(able)]
			if failed[s] {
				continue
			}
			m, err := sc.run(ctx, r, s, round)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				r.note("%s, %s: %v", sc.name, s.peer.name, err)
				r.report.skip(sc.group, s.peer.name, "failed in "+sc.name)
				failed[s] = true
				continue
			}
			r.report.add(sc, s.peer.name, m)
			r.note("%-14s round %d  %-13s %s", sc.name, round+1, s.peer.name, m)
		}
		if now := time.Now(); round+1 < r.rounds && !r.fits(now, share, now.Sub(began)) {
			r.report.skip(sc.group, sc.name, fmt.Sprintf("has %d of %d rounds: for more there was no time", round+1, r.rounds))
			break
		}
	}
	if sc.group == "zipf" {
		r.simulate(sc)
	}
	return nil
}

// share is when the scenario that begins now should end, so that those behind it
// have as much time each.
func (r *runner) share(now time.Time) time.Time {
	return now.Add(r.ends.Sub(now) / time.Duration(max(r.left, 1)))
}

// fits tells whether one more round, as long as the one before, ends by then.
func (r *runner) fits(now, by time.Time, round time.Duration) bool {
	return !now.Add(round).After(by)
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

// runZipf plays a trace, its first part before anything counts. Each round is the
// next part: what a cache learned stays.
func runZipf(ctx context.Context, r *runner, s *server, round int) (sample, error) {
	if round == 0 {
		if _, err := load(ctx, r.dir, r.loadCores, r.zipfPart(s, 0)); err != nil {
			return nil, err
		}
	}
	before, err := r.origin.stats(ctx)
	if err != nil {
		return nil, err
	}
	var seen loadResult
	m, err := r.measured(ctx, s, func() (loadResult, error) {
		var err error
		seen, err = load(ctx, r.dir, r.loadCores, r.zipfPart(s, round+1))
		return seen, err
	})
	if err != nil {
		return nil, err
	}
	after, err := r.origin.stats(ctx)
	asked := after.minus(before)
	m["hit"] = 100 * (1 - float64(asked.Requests)/float64(max(seen.Requests, 1)))
	m["byteHit"] = 100 * (1 - float64(asked.Bytes)/float64(max(seen.Bytes, 1)))
	return m, err
}

// zipfRequests is how many requests a part of the trace has.
func (r *runner) zipfRequests() int {
	return int(min(max(6000*r.length.Seconds(), 2000), 20_000))
}

func (r *runner) zipfPart(s *server, part int) loadSpec {
	return loadSpec{Kind: "closed", URL: s.url(h1), Protocol: h1, Connections: 8, Requests: r.zipfRequests(), Check: true,
		Keys: zipfKeys(part)}
}

func zipfKeys(part int) keySpec {
	return keySpec{Policy: "hour", Kind: "zipf", Count: 20_000, Skew: 0.9, Seed: uint64(part)}
}

// simulate adds what known algorithms make of the same trace.
func (r *runner) simulate(sc scenario) {
	var trace []int
	for part := range r.rounds + 1 {
		trace = append(trace, zipfTrace(zipfKeys(part), r.zipfRequests())...)
	}
	from := r.zipfRequests()
	results := map[string]ratio{
		"(LRU)":     simulateLRU(trace, from, smallMemory),
		"(S3-FIFO)": simulateS3FIFO(trace, from, smallMemory),
		"(Belady)":  simulateBelady(trace, from, smallMemory),
	}
	for _, name := range slices.Sorted(maps.Keys(results)) {
		r.report.add(sc, name, sample{"hit": 100 * results[name].Requests, "byteHit": 100 * results[name].Bytes})
	}
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
