package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// errSoak is a soak that found something.
var errSoak = errors.New("the soak is not clean")

const (
	soakObjects  = 800
	soakMemory   = 32 << 20 // less than the objects have, so that some leave
	soakFailures = 50       // the soak ends early with so many
)

// A soaker is a soak under way. Its fields are set before any goroutine starts,
// but for the counters and what mu guards.
type soaker struct {
	notes   io.Writer
	started time.Time
	server  *server
	origin  *originProcess
	noise   patterns
	rate    float64

	// For each object: the version that a response to a request begun now must
	// have at least, since an older one was purged; and the latest there is.
	floors, latest [soakObjects]atomic.Int64
	faulty         atomic.Bool  // the origin has a fault
	faultEnded     atomic.Int64 // when the last one ended, Unix nanoseconds

	mu      sync.Mutex
	summary soakSummary
	cancel  context.CancelFunc // ends the soak
}

// soakSummary is what a soak did and saw.
type soakSummary struct {
	Machine    string
	Seconds    float64
	Requests   map[protocol]int64
	Outcomes   map[string]int64 // the statuses, and hits
	Tolerated  int64            // errors while the origin had a fault
	Abandoned  int64            // responses left in the middle by the client
	Purges     int64
	Reloads    int64
	Swaps      int64 // of the function by the API
	Faults     int64
	Bytes      int64
	Function   bool
	Samples    []soakSample
	Failures   int64
	FirstWrong []string
}

// runSoak is `bench soak`.
func runSoak(ctx context.Context, args []string, out, notes io.Writer) error {
	f := flag.NewFlagSet("soak", flag.ContinueOnError)
	f.SetOutput(notes)
	length := f.Duration("for", 10*time.Minute, "how long")
	rate := f.Float64("rate", 400, "requests a second, over all protocols")
	built := f.String("node", "", "a built seawall, in place of building ./cmd/seawall")
	folder := f.String("out", filepath.Join("bench", "results"), "folder for soak.json and soak-memory.svg; \"\" for none")
	document := f.String("write", "", "also put the summary into this document, as bench/README.md, between its marks")
	if err := f.Parse(args); err != nil {
		return err
	}
	if *length < time.Second || *rate <= 0 {
		return errors.New("--for is at least 1s, --rate above 0")
	}
	if err := writable(*document, partSoak); err != nil {
		return err
	}
	r := &runner{options: options{built: *built}, notes: notes, started: time.Now(), noise: newPatterns()}
	if err := r.begin(ctx); err != nil {
		return err
	}
	defer r.end()
	s := &soaker{notes: notes, started: r.started, origin: r.origin, noise: r.noise, rate: *rate}
	s.summary = soakSummary{Machine: machine(), Requests: make(map[protocol]int64), Outcomes: make(map[string]int64)}
	if err := s.startSoaked(ctx, r); err != nil {
		return err
	}
	defer s.server.stop()
	s.run(ctx, *length)
	if err := s.write(out, *folder, *document); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.summary.Failures > 0 {
		return fmt.Errorf("%w: %d failures, the first: %s", errSoak, s.summary.Failures, s.summary.FirstWrong[0])
	}
	return nil
}

// startSoaked starts the node: with an edge function where it can be built.
func (s *soaker) startSoaked(ctx context.Context, r *runner) error {
	dir, err := os.MkdirTemp(r.dir, "soak-")
	if err != nil {
		return err
	}
	set := setting{dir: dir, origin: r.origin.addr, memory: soakMemory, certs: r.certs, cores: r.serverCores, binary: r.binary, variation: "-a"}
	if set.function, err = buildFunction(ctx, dir); err != nil {
		r.note("without an edge function: %v", err)
		set.function, set.variation = "", ""
	}
	s.server, err = startServer(ctx, set, peers()[0])
	s.summary.Function = set.function != ""
	return err
}

// note writes a line of progress.
func (s *soaker) note(format string, args ...any) {
	fmt.Fprintf(s.notes, "%6.1fs  %s\n", time.Since(s.started).Seconds(), fmt.Sprintf(format, args...))
}

// fail counts something wrong.
func (s *soaker) fail(format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.summary.Failures++
	if len(s.summary.FirstWrong) < soakFailures {
		s.summary.FirstWrong = append(s.summary.FirstWrong, what)
		s.note("WRONG: %s", what)
	} else {
		s.cancel()
	}
}

// count changes the summary.
func (s *soaker) count(change func(sum *soakSummary)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.summary)
}

// run does everything at once for length, then looks whether the node came to
// rest.
func (s *soaker) run(ctx context.Context, length time.Duration) {
	before, err := s.sample(ctx)
	if err != nil {
		s.fail("before the soak: %v", err)
		return
	}
	loadCtx, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	s.cancel = cancel
	var all sync.WaitGroup
	const each = 6
	for _, by := range []protocol{h1, h1s, h2, h3} {
		for i := range each {
			all.Go(func() { s.visit(loadCtx, by, uint64(i), s.rate/(4*each)) })
		}
	}
	all.Go(func() { s.purgeOften(loadCtx) })
	all.Go(func() { s.reloadOften(loadCtx) })
	if s.summary.Function {
		all.Go(func() { s.swapOften(loadCtx) })
	}
	all.Go(func() { s.breakOften(loadCtx) })
	all.Go(func() { s.watch(loadCtx) })
	all.Wait()
	s.summary.Seconds = time.Since(s.started).Seconds()
	if ctx.Err() == nil {
		s.atRest(ctx, before)
		s.judgeMemory(length)
		s.judgeWork(length)
	}
	s.server.stop()
	if s.server.err != nil && ctx.Err() == nil {
		s.fail("the node ended with %v: %s", s.server.err, s.server.said())
	}
	if said := s.server.said(); strings.Contains(said, "panic") {
		s.fail("the node's log tells of a panic: %s", said)
	}
}

// judgeWork makes sure that the soak did what it is for.
func (s *soaker) judgeWork(length time.Duration) {
	for _, by := range []protocol{h1, h1s, h2, h3} {
		if s.summary.Requests[by] == 0 {
			s.fail("no response by %s", by)
		}
	}
	if s.summary.Outcomes["hit"] == 0 || s.summary.Purges == 0 {
		s.fail("%d hits and %d purges: want some of each", s.summary.Outcomes["hit"], s.summary.Purges)
	}
	if length >= 8*time.Second && (s.summary.Reloads == 0 || s.summary.Faults == 0) {
		s.fail("%d reloads and %d faults: want some of each", s.summary.Reloads, s.summary.Faults)
	}
	if length >= 20*time.Second && s.summary.Function && s.summary.Swaps == 0 {
		s.fail("no swap of the function by the API")
	}
}

// every calls do again and again, with a pause of about d before each, until ctx
// ends.
func every(ctx context.Context, d time.Duration, do func(rng *rand.Rand)) {
	rng := rand.New(rand.NewPCG(uint64(d), 7))
	for {
		pause(ctx, d/2+time.Duration(rng.Int64N(int64(d))))
		if ctx.Err() != nil {
			return
		}
		do(rng)
	}
}

// soakObject returns an object of the soak, version 0.
func soakObject(id int) object {
	policy := "soak"
	if id%4 == 3 {
		policy = "brief"
	}
	return object{policy: policy, size: objectSize(id), id: id}
}

// purgeOften changes an object at the origin, purges it, and from then on demands
// the new version. A soft purge allows the old one, so demands nothing.
func (s *soaker) purgeOften(ctx context.Context) {
	every(ctx, 80*time.Millisecond, func(rng *rand.Rand) {
		id := rng.IntN(soakObjects)
		version := s.latest[id].Add(1) // before the origin knows: it is a bound
		if _, err := s.origin.ask(ctx, fmt.Sprintf("/-/bump?id=%d", id)); err != nil {
			if ctx.Err() == nil {
				s.fail("bump: %v", err)
			}
			return
		}
		path, soft := soakObject(id).path(), false
		var call map[string]any
		switch k := rng.IntN(100); {
		case k < 60:
			call = map[string]any{"urls": []string{s.server.url(h1) + path, s.server.url(h2) + path}}
		case k < 80:
			call = map[string]any{"tags": []string{fmt.Sprintf("object-%d", id)}}
		case k < 89:
			prefix := path[:strings.LastIndexByte(path, '/')]
			call = map[string]any{"prefixes": []string{s.server.clear + prefix, s.server.tls + prefix}}
		case k < 90:
			call = map[string]any{"everything": true}
		default:
			soft = true
			call = map[string]any{"tags": []string{fmt.Sprintf("object-%d", id)}, "soft": true}
		}
		if err := s.purge(ctx, call); err != nil {
			if ctx.Err() == nil {
				s.fail("purge %v: %v", call, err)
			}
			return
		}
		if !soft {
			s.floors[id].Store(version)
		}
		s.count(func(sum *soakSummary) { sum.Purges++ })
	})
}

func (s *soaker) purge(ctx context.Context, call map[string]any) error {
	text, err := json.Marshal(call)
	if err != nil {
		return err
	}
	_, err = fetch(ctx, http.MethodPost, "http://"+s.server.admin+"/v1/purges",
		http.Header{"Content-Type": {"application/json"}}, strings.NewReader(string(text)))
	return err
}

// reloadOften swaps the edge function's configuration by SIGHUP. Every third
// configuration is wrong and must change nothing.
func (s *soaker) reloadOften(ctx context.Context) {
	n := 0
	every(ctx, 3*time.Second, func(*rand.Rand) {
		n++
		set := *s.server.setting
		if set.function != "" {
			set.variation = []string{"-a", "-b"}[n%2]
		}
		text := set.configuration()
		if n%3 == 0 {
			text = strings.Replace(text, "sites:", "sights:", 1)
		}
		path := filepath.Join(set.dir, "seawall.yaml")
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			s.fail("write the configuration: %v", err)
			return
		}
		if err := errors.Join(os.Rename(path+".new", path), s.server.cmd.Process.Signal(syscall.SIGHUP)); err != nil {
			s.fail("reload: %v", err)
			return
		}
		s.count(func(sum *soakSummary) { sum.Reloads++ })
	})
}

// breakOften gives the origin a fault for a second.
func (s *soaker) breakOften(ctx context.Context) {
	kinds := []fault{faultError, faultCut, faultSlow, faultReset}
	n := 0
	every(ctx, 4*time.Second, func(*rand.Rand) {
		kind := kinds[n%len(kinds)]
		n++
		s.faulty.Store(true)
		_, err := s.origin.ask(ctx, "/-/fault?is="+string(kind))
		pause(ctx, time.Second)
		// Also when the soak is over: what follows needs a sound origin.
		_, healed := s.origin.ask(context.WithoutCancel(ctx), "/-/fault?is="+string(noFault))
		s.faultEnded.Store(time.Now().UnixNano())
		s.faulty.Store(false)
		if err = errors.Join(err, healed); err != nil && ctx.Err() == nil {
			s.fail("fault %s: %v", kind, err)
		}
		s.count(func(sum *soakSummary) { sum.Faults++ })
	})
}

// tolerates tells whether the origin's faults may be behind an error of a request
// that began at start. The node may take a moment to find the origin well.
func (s *soaker) tolerates(start time.Time) bool {
	const grace = 2 * time.Second
	return s.faulty.Load() || start.Before(time.Unix(0, s.faultEnded.Load()).Add(grace))
}

// write prints the summary and saves it, in a document too unless that is "".
func (s *soaker) write(out io.Writer, dir, document string) error {
	sum := &s.summary
	total := int64(0)
	for _, n := range sum.Requests {
		total += n
	}
	first, last := soakSample{}, soakSample{}
	if n := len(sum.Samples); n > 0 {
		first, last = sum.Samples[0], sum.Samples[n-1]
	}
	verdict := "clean"
	if sum.Failures > 0 {
		verdict = fmt.Sprintf("%d failures", sum.Failures)
	}
	var said strings.Builder
	fmt.Fprintf(&said, "%s: %.0f s, %d requests (%d hits, %.0f MB), %d purges, %d reloads, %d functions swapped, %d origin faults, %d errors during them, %d abandoned.\n",
		verdict, sum.Seconds, total, sum.Outcomes["hit"], float64(sum.Bytes)/1e6, sum.Purges, sum.Reloads, sum.Swaps, sum.Faults, sum.Tolerated, sum.Abandoned)
	fmt.Fprintf(&said, "Memory %.0f MiB after a second, %.0f at the end; descriptors %d, %d; goroutines %d, %d.\n",
		first.MiB, last.MiB, first.Descriptors, last.Descriptors, first.Goroutines, last.Goroutines)
	if _, err := io.WriteString(out, said.String()); err != nil {
		return err
	}
	if document != "" {
		text := fmt.Sprintf("%s. %.3g requests a second.\n\n    %s", sum.Machine, s.rate, strings.ReplaceAll(said.String(), "\n", "\n    "))
		if err := writePart(document, partSoak, text); err != nil {
			return err
		}
	}
	if dir == "" {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	text, err := json.MarshalIndent(sum, "", "  ")
	if err != nil {
		return err
	}
	var memory []float64
	for _, one := range sum.Samples {
		memory = append(memory, one.MiB)
	}
	plot := plotCurves("Soak: memory, MiB", "seconds, one sample each", []curve{{"node", memory}})
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "soak.json"), append(text, '\n'), 0o644),
		os.WriteFile(filepath.Join(dir, "soak-memory.svg"), []byte(plot), 0o644))
}
