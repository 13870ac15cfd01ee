package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A loadSpec is the work of the generator, which runs as a process of its own and
// is told it as JSON.
type loadSpec struct {
	Kind        string // open, closed, burst or idle
	URL         string // scheme and host
	Protocol    protocol
	Connections int
	Streams     int     // requests at once on each connection; 1 for HTTP/1.1
	Rate        float64 // arrivals a second, for open
	Length      time.Duration
	Requests    int // for closed: this many in place of Length
	Keys        keySpec
	Check       bool // compare every body with the object's, byte by byte
	Purge       *purgeSpec
	Seed        uint64
}

// A purgeSpec is a request repeated while the load runs.
type purgeSpec struct {
	Method, URL, ContentType, Body string
	Every                          time.Duration
}

// A loadResult is what the generator saw. Latencies of an open load count from
// the moment a request was due, whether or not it could be sent then: a server
// that stalls is charged for all who would have come (no coordinated omission).
type loadResult struct {
	Requests, Errors    int64
	FirstError          string
	Bytes               int64 // of bodies
	Elapsed             time.Duration
	P50, P99, P999, Max time.Duration
	Late99              time.Duration // how late the generator itself began
	Purges              int64
	PurgeP50, PurgeP99  time.Duration
}

// errLoad is a load that met nothing but errors.
var errLoad = errors.New("no request succeeded")

// runLoad reads a loadSpec, does it, and writes a loadResult. An idle load keeps
// its connections until in ends.
func runLoad(ctx context.Context, in io.Reader, out io.Writer) error {
	var spec loadSpec
	dec := json.NewDecoder(in)
	if err := dec.Decode(&spec); err != nil {
		return fmt.Errorf("read the load: %w", err)
	}
	ctx, cancel := untilEOF(ctx, io.MultiReader(dec.Buffered(), in))
	defer cancel()
	var result loadResult
	var err error
	switch spec.Kind {
	case "open", "closed":
		result, err = loadSteadily(ctx, spec)
	case "burst":
		result, err = loadAtOnce(ctx, spec)
	case "idle":
		return holdIdle(ctx, spec, out)
	default:
		err = fmt.Errorf("no such load: %q", spec.Kind)
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(result)
}

// loadGrace is how much longer than its length a load may take, which is also
// all of one that has a number of requests.
const loadGrace = 2 * time.Minute

// load runs the generator on cores and returns what it saw.
func load(ctx context.Context, dir string, cores []int, spec loadSpec) (loadResult, error) {
	var result loadResult
	var out bytes.Buffer
	p, err := self("load", dir, cores, &out, "load")
	if err != nil {
		return result, err
	}
	defer p.stop()
	ctx, cancel := context.WithTimeoutCause(ctx, spec.Length+loadGrace, errors.New("the load did not end"))
	defer cancel()
	// Its input stays open: the generator ends early when that does.
	if err := json.NewEncoder(p.in).Encode(spec); err != nil {
		return result, err
	}
	if err := p.wait(ctx); err != nil && ctx.Err() != nil {
		return result, context.Cause(ctx)
	} else if err != nil {
		return result, err
	}
	if err := json.Unmarshal(out.Bytes(), &result); err != nil {
		return result, fmt.Errorf("read what the load saw: %w", err)
	}
	if result.Requests == 0 {
		return result, fmt.Errorf("%w: %s", errLoad, result.FirstError)
	}
	return result, nil
}

// A generator is a steady load under way.
type generator struct {
	spec    loadSpec
	object  func(i int) object
	noise   patterns
	due     chan time.Time // when requests are due; each worker takes one
	begun   atomic.Int64
	workers []*worker
}

// A worker makes one request at a time. All is its goroutine's until it ended.
type worker struct {
	client    *http.Client
	buf       []byte
	seen      histogram
	late      histogram
	requests  int64
	errors    int64
	bytes     int64
	firstFail error
}

// loadSteadily does an open or closed load.
func loadSteadily(ctx context.Context, spec loadSpec) (loadResult, error) {
	spec.Connections, spec.Streams = max(spec.Connections, 1), max(spec.Streams, 1)
	length := spec.Requests
	if length == 0 {
		length = 1 << 20
	}
	object, err := spec.Keys.keys(length)
	if err != nil {
		return loadResult{}, err
	}
	g := &generator{spec: spec, object: object, due: make(chan time.Time, 1<<16)}
	if spec.Check {
		g.noise = newPatterns()
	}
	clients := make([]*http.Client, spec.Connections)
	for i := range clients {
		var end func()
		clients[i], end = newClient(spec.Protocol)
		defer end()
		for range spec.Streams {
			g.workers = append(g.workers, &worker{client: clients[i], buf: make([]byte, 64<<10)})
		}
	}
	// Connections are made before anything counts.
	var warm sync.WaitGroup
	for _, c := range clients {
		warm.Go(func() { _, _ = fetchBy(ctx, c, spec.URL+object1K.path()) })
	}
	warm.Wait()
	return g.run(ctx), nil
}

// object1K is what connections are warmed with.
var object1K = object{policy: "hour", size: 1024}

// run paces the workers and puts together what they saw.
func (g *generator) run(ctx context.Context) loadResult {
	start := time.Now()
	ends := start.Add(g.spec.Length)
	if g.spec.Requests > 0 {
		ends = start.Add(time.Hour)
	}
	purges := g.purging(ctx)
	var working sync.WaitGroup
	for _, w := range g.workers {
		working.Go(func() { g.work(ctx, w, ends) })
	}
	if g.spec.Kind == "open" {
		g.pace(ctx, start, ends)
	}
	working.Wait()
	result := loadResult{Elapsed: time.Since(start)}
	var seen, late histogram
	for _, w := range g.workers {
		seen.merge(&w.seen)
		late.merge(&w.late)
		result.Requests += w.requests
		result.Errors += w.errors
		result.Bytes += w.bytes
		if w.firstFail != nil && result.FirstError == "" {
			result.FirstError = w.firstFail.Error()
		}
	}
	result.P50, result.P99, result.P999, result.Max = seen.quantile(0.5), seen.quantile(0.99), seen.quantile(0.999), seen.max
	result.Late99 = late.quantile(0.99)
	p := purges()
	result.Purges, result.PurgeP50, result.PurgeP99 = int64(p.n), p.quantile(0.5), p.quantile(0.99)
	return result
}

// pace tells the workers of arrivals that are independent of one another, as
// those of many clients are (a Poisson process), and of what they do: when all
// workers are busy, what is due waits and grows old. It holds one thread.
func (g *generator) pace(ctx context.Context, start, ends time.Time) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(g.due)
	rng := rand.New(rand.NewPCG(g.spec.Seed, 0xa441))
	for at := start; ctx.Err() == nil; {
		at = at.Add(time.Duration(rng.ExpFloat64() / g.spec.Rate * float64(time.Second)))
		if at.After(ends) {
			return
		}
		sleepUntil(at)
		select {
		case g.due <- at:
		case <-ctx.Done():
		}
	}
}

// work makes requests until the load ends.
func (g *generator) work(ctx context.Context, w *worker, ends time.Time) {
	for ctx.Err() == nil {
		due := time.Now()
		if g.spec.Kind == "open" {
			at, more := <-g.due
			if !more {
				return
			}
			due = at
			w.late.add(time.Since(due))
		} else if due.After(ends) {
			return
		}
		i := int(g.begun.Add(1)) - 1
		if g.spec.Requests > 0 && i >= g.spec.Requests {
			return
		}
		n, err := g.request(ctx, w, g.object(i))
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			w.errors++
			if w.firstFail == nil {
				w.firstFail = err
			}
			continue
		}
		w.requests++
		w.bytes += n
		w.seen.add(time.Since(due))
	}
}

// request asks for o and reads all of it.
func (g *generator) request(ctx context.Context, w *worker, o object) (int64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.spec.URL+o.path(), nil)
	if err != nil {
		return 0, err
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("GET %s: %s", o.path(), resp.Status)
	}
	if g.spec.Check {
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return 0, err
		}
		return int64(len(body)), g.noise.verify(o, body, 0, o.size)
	}
	n := int64(0)
	for {
		k, err := resp.Body.Read(w.buf)
		n += int64(k)
		if err == io.EOF {
			break
		}
		if err != nil {
			return n, err
		}
	}
	if n != int64(o.size) {
		return n, fmt.Errorf("GET %s: got %d bytes, want %d", o.path(), n, o.size)
	}
	return n, nil
}

// purging repeats the load's purge, if it has one. What it returns ends that and
// has the latencies.
func (g *generator) purging(ctx context.Context) func() *histogram {
	took := new(histogram)
	p := g.spec.Purge
	if p == nil {
		return func() *histogram { return took }
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		client, end := newClient(h1)
		defer end()
		tick := time.NewTicker(p.Every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			start := time.Now()
			if p.send(ctx, client) == nil {
				took.add(time.Since(start))
			}
		}
	}()
	return func() *histogram {
		cancel()
		<-done
		return took
	}
}

// send makes one purge.
func (p *purgeSpec) send(ctx context.Context, client *http.Client) error {
	req, err := http.NewRequestWithContext(ctx, p.Method, p.URL, strings.NewReader(p.Body))
	if err != nil {
		return err
	}
	if p.ContentType != "" {
		req.Header.Set("Content-Type", p.ContentType)
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	if err == nil && resp.StatusCode/100 != 2 {
		return fmt.Errorf("purge: %s", resp.Status)
	}
	return err
}
