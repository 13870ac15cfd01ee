package main

import (
	"context"
	"strings"
	"time"
)

// A sample is what one round of a scenario measured of one peer, by the names in
// figures.
type sample map[string]float64

// A figure is something measured. Higher is better, or lower, or neither.
type figure struct {
	name   string
	title  string
	better int // 1 higher, -1 lower, 0 neither
	digits int
}

// figures are all there are, in the order of the table's columns.
func figures() []figure {
	return []figure{
		{"rps", "requests/s", 1, 0},
		{"cpu", "CPU µs/request", -1, 1},
		{"p50", "p50 ms", -1, 2},
		{"p99", "p99 ms", -1, 2},
		{"p999", "p99.9 ms", -1, 2},
		{"added50", "added p50 ms", -1, 2},
		{"hit", "hit ratio %", 1, 1},
		{"byteHit", "byte hit ratio %", 1, 1},
		{"kept", "kept MiB", 0, 0},
		{"lru", "LRU with as much %", 0, 1},
		{"asked", "origin requests", -1, 0},
		{"confirmed", "of them 304", 0, 0},
		{"connections", "connections", 0, 0},
		{"each", "KiB each", -1, 1},
		{"purges", "purges", 0, 0},
		{"purge50", "purge p50 ms", -1, 2},
		{"purge99", "purge p99 ms", -1, 2},
		{"rss", "memory MiB", 0, 0},
		{"mb", "MB/s", 0, 0},
		{"errors", "errors", -1, 0},
	}
}

// A scenario is work that is given to every peer that can do it.
type scenario struct {
	name  string
	about string
	group string // scenarios of a group share a table
	small bool   // a cache of smallMemory
	wasm  bool   // an edge function on every request
	fresh bool   // servers that have done nothing yet
	more  bool   // left out of a quick run, unless it is named
	by    protocol
	pure  bool // a server that does not cache can take part
	run   func(ctx context.Context, r *runner, s *server, round int) (sample, error)
}

const (
	usualMemory = 256 << 20
	smallMemory = 64 << 20
)

// refuses tells why a peer does not take part, "" if it does.
func (s scenario) refuses(p *peer) string {
	switch {
	case s.wasm && !strings.HasPrefix(p.name, node):
		return "only Seawall's own edge functions are run"
	case !p.speaksTo(s.by):
		return "does not speak it"
	case !p.caches && !s.pure:
		return "is no cache"
	case s.group == "purge" && !p.purges:
		return "cannot purge"
	}
	return ""
}

// scenarios returns all, in the order they run in. Those that share a setting of
// the servers stand together.
func scenarios() []scenario {
	var all []scenario
	sizes := []struct {
		name string
		size int
		rate float64 // of the latency's open load, far below what any peer can do
		more bool
	}{{"1k", 1 << 10, 1000, false}, {"16k", 16 << 10, 1000, true}, {"128k", 128 << 10, 400, false}, {"1m", 1 << 20, 60, true}}
	ways := []struct {
		name, about          string
		by                   protocol
		connections, streams int
	}{
		{"h1", "HTTP/1.1 in clear, 16 connections", h1, 16, 1},
		{"h1s", "HTTP/1.1 by TLS, 16 connections", h1s, 16, 1},
		{"h2", "HTTP/2 by TLS, 16 connections of 1 stream", h2, 16, 1},
		{"h2x10", "HTTP/2 by TLS, 4 connections of 10 streams", h2, 4, 10},
		{"h3", "HTTP/3, 4 connections of 4 streams", h3, 4, 4},
	}
	for _, w := range ways {
		for _, z := range sizes {
			spec := loadSpec{Protocol: w.by, Connections: w.connections, Streams: w.streams, Rate: z.rate,
				Keys: keySpec{Policy: "hour", Kind: "one", Size: z.size, First: 7}}
			all = append(all, scenario{name: "hits-" + w.name + "-" + z.name, about: "hits, " + w.about,
				group: "hits-" + w.name, by: w.by, pure: true, more: z.more, run: hits(spec)})
		}
	}
	return append(all,
		scenario{name: "misses", about: "every request is for something new, 16 KiB, 500 a second", group: "misses", by: h1, run: runMisses},
		scenario{name: "revalidation", about: "every request finds something stale that the origin confirms", group: "revalidation", by: h1, run: runRevalidation},
		scenario{name: "collapse", about: "1,000 clients ask for one cold key of a slow origin at once", group: "collapse", by: h1, run: runCollapse},
		scenario{name: "purge", about: "hits of 1 KiB while 50 purges a second arrive", group: "purge", by: h1, run: runPurge},
		scenario{name: "idle", about: "10,000 connections (2,000 in pieces below a second) that made one request and rest", group: "idle", by: h1, pure: true, fresh: true, run: runIdle},
		scenario{name: "zipf", about: "Zipf choice of 20,000 objects of mixed sizes over 64 MiB of memory", group: "zipf", by: h1, small: true, run: runZipf},
		scenario{name: "function", about: "hits of 1 KiB with an edge function on each, beside the same without", group: "function", by: h1, wasm: true,
			run: hits(loadSpec{Protocol: h1, Connections: 16, Streams: 1, Rate: 1000, Keys: keySpec{Policy: "hour", Kind: "one", Size: 1 << 10, First: 7}})},
	)
}

// measured does work and returns a sample with what the server and the origin
// took for it.
func (r *runner) measured(ctx context.Context, s *server, work func() (loadResult, error)) (sample, error) {
	asked, err := r.origin.stats(ctx)
	if err != nil {
		return nil, err
	}
	before, err := processorTime(s.pid)
	if err != nil {
		return nil, err
	}
	result, err := work()
	if err != nil {
		return nil, err
	}
	after, err := processorTime(s.pid)
	if err != nil {
		return nil, err
	}
	if result.Errors > 0 {
		r.note("%s: %d of %d requests failed: %s", s.peer.name, result.Errors, result.Errors+result.Requests, result.FirstError)
	}
	now, err := r.origin.stats(ctx)
	if err != nil {
		return nil, err
	}
	resident, err := residentBytes(s.pid)
	if err != nil {
		return nil, err
	}
	m := sample{
		"cpu":    float64(after-before) / float64(time.Microsecond) / float64(max(result.Requests, 1)),
		"rss":    float64(resident) / (1 << 20),
		"errors": float64(result.Errors),
		"asked":  float64(now.minus(asked).Requests),
	}
	m.latencies(result)
	if result.Elapsed > 0 {
		m["rps"] = float64(result.Requests) / result.Elapsed.Seconds()
	}
	return m, nil
}

func (m sample) latencies(result loadResult) {
	m["p50"], m["p99"], m["p999"] = milliseconds(result.P50), milliseconds(result.P99), milliseconds(result.P999)
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// hits floods one object, which gives throughput and the processor time of a
// request, then asks for it at a rate that every peer can hold, which gives
// latencies: those under a flood say how long the queue was.
func hits(spec loadSpec) func(ctx context.Context, r *runner, s *server, round int) (sample, error) {
	return func(ctx context.Context, r *runner, s *server, round int) (sample, error) {
		spec := spec
		spec.URL, spec.Length, spec.Seed = s.url(spec.Protocol), r.length, uint64(round)
		if err := r.checkHit(ctx, s, spec); err != nil {
			return nil, err
		}
		// A server's memory takes its size: not what one more hit costs. wrk
		// cannot be this short.
		first := spec
		first.Kind, first.Length = "closed", r.length/5
		if _, err := load(ctx, r.dir, r.loadCores, first); err != nil {
			return nil, err
		}
		flooded := func() (sample, error) {
			return r.measured(ctx, s, func() (loadResult, error) {
				result, tool, err := flood(ctx, r.dir, r.loadCores, spec)
				r.tools[spec.Protocol] = tool
				return result, err
			})
		}
		m, err := flooded()
		if err != nil && ctx.Err() == nil {
			// What a tool meets once on a busy machine leaves no hole in the table.
			r.note("%s: %v: once more", s.peer.name, err)
			m, err = flooded()
		}
		if err != nil {
			return nil, err
		}
		m["mb"] = m["rps"] * float64(spec.Keys.Size) / 1e6
		delete(m, "asked")
		spec.Kind, spec.Length = "open", r.length/2
		result, err := load(ctx, r.dir, r.loadCores, spec)
		if err != nil {
			return nil, err
		}
		m.latencies(result)
		m["errors"] += float64(result.Errors)
		return m, nil
	}
}

// checkHit asks twice, and compares every byte, before a load that does not.
func (r *runner) checkHit(ctx context.Context, s *server, spec loadSpec) error {
	object, err := spec.Keys.keys(1)
	if err != nil {
		return err
	}
	client, end := newClient(spec.Protocol)
	defer end()
	for range 2 {
		body, err := fetchBy(ctx, client, spec.URL+object(0).path())
		if err != nil {
			return err
		}
		if err := r.noise.verify(object(0), body, 0, object(0).size); err != nil {
			return err
		}
	}
	return nil
}

// runMisses also asks the origin alone, at the same rate.
func runMisses(ctx context.Context, r *runner, s *server, round int) (sample, error) {
	spec := loadSpec{Kind: "open", URL: s.url(h1), Protocol: h1, Connections: 32, Rate: 500, Length: r.length, Seed: uint64(round),
		Keys: keySpec{Policy: "hour", Kind: "unique", Size: 16 << 10, First: (round + 1) * 1_000_000}}
	m, err := r.measured(ctx, s, func() (loadResult, error) { return load(ctx, r.dir, r.loadCores, spec) })
	if err != nil {
		return nil, err
	}
	spec.URL = "http://" + r.origin.addr
	alone, err := load(ctx, r.dir, r.loadCores, spec)
	if err != nil {
		return nil, err
	}
	m["added50"] = max(m["p50"]-milliseconds(alone.P50), 0)
	delete(m, "rps") // it is the rate
	return m, nil
}

// runRevalidation asks for objects that were stored and are no longer fresh, each
// once.
func runRevalidation(ctx context.Context, r *runner, s *server, round int) (sample, error) {
	const rate = 400
	count := max(int(rate*r.length.Seconds()), 10)
	keys := keySpec{Policy: "second", Kind: "unique", Size: 16 << 10, First: 100_000_000}
	fill := loadSpec{Kind: "closed", URL: s.url(h1), Protocol: h1, Connections: 8, Requests: count, Keys: keys}
	if _, err := load(ctx, r.dir, r.loadCores, fill); err != nil {
		return nil, err
	}
	pause(ctx, 2100*time.Millisecond) // ages are whole seconds
	spec := loadSpec{Kind: "open", URL: s.url(h1), Protocol: h1, Connections: 32, Rate: rate, Length: r.length * 9 / 10, Seed: uint64(round), Keys: keys, Check: true}
	before, err := r.origin.stats(ctx)
	if err != nil {
		return nil, err
	}
	m, err := r.measured(ctx, s, func() (loadResult, error) { return load(ctx, r.dir, r.loadCores, spec) })
	if err != nil {
		return nil, err
	}
	after, err := r.origin.stats(ctx)
	m["confirmed"] = float64(after.minus(before).NotModified)
	delete(m, "rps")
	return m, err
}

// runCollapse is one burst; 1 origin request is perfect.
func runCollapse(ctx context.Context, r *runner, s *server, round int) (sample, error) {
	spec := loadSpec{Kind: "burst", URL: s.url(h1), Protocol: h1, Connections: 1000, Check: true,
		Keys: keySpec{Policy: "slow", Kind: "one", Size: 64 << 10, First: 200_000_000 + round}}
	m, err := r.measured(ctx, s, func() (loadResult, error) { return load(ctx, r.dir, r.loadCores, spec) })
	delete(m, "rps")
	return m, err
}

// runPurge floods one object at a fixed rate while it is purged again and again.
func runPurge(ctx context.Context, r *runner, s *server, round int) (sample, error) {
	spec := loadSpec{Kind: "open", URL: s.url(h1), Protocol: h1, Connections: 32, Rate: 2000, Length: r.length, Seed: uint64(round),
		Keys: keySpec{Policy: "hour", Kind: "one", Size: 1 << 10, First: 8}}
	object, err := spec.Keys.keys(1)
	if err != nil {
		return nil, err
	}
	method, url, contentType, body := s.purge(object(0).path())
	spec.Purge = &purgeSpec{Method: method, URL: url, ContentType: contentType, Body: body, Every: 20 * time.Millisecond}
	var seen loadResult
	m, err := r.measured(ctx, s, func() (loadResult, error) {
		var err error
		seen, err = load(ctx, r.dir, r.loadCores, spec)
		return seen, err
	})
	if err != nil {
		return nil, err
	}
	m["purges"], m["purge50"], m["purge99"] = float64(seen.Purges), milliseconds(seen.PurgeP50), milliseconds(seen.PurgeP99)
	delete(m, "rps")
	return m, nil
}

// runIdle measures memory before and while connections rest.
func runIdle(ctx context.Context, r *runner, s *server, _ int) (sample, error) {
	count := min(10_000, maxDescriptors()/2-200)
	if r.length < time.Second {
		count = min(count, 2000)
	}
	before, err := residentBytes(s.pid)
	if err != nil {
		return nil, err
	}
	during, err := r.whileIdle(ctx, s, count)
	if err != nil {
		return nil, err
	}
	return sample{"connections": float64(count), "each": float64(during-before) / 1024 / float64(count), "rss": float64(during) / (1 << 20)}, nil
}
