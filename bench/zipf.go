package main

import (
	"context"
	"maps"
	"slices"
)

// zipfCold is how many parts of a round's trace fill the caches before the part
// that counts.
const zipfCold = 2

// runZipf plays a trace, its first parts before anything counts. Each round has a
// trace of its own.
func runZipf(ctx context.Context, r *runner, s *server, round int) (sample, error) {
	for part := range zipfCold {
		if _, err := load(ctx, r.dir, r.loadCores, r.zipfPart(s, round, part)); err != nil {
			return nil, err
		}
	}
	kept, err := s.bytesKept(ctx)
	if err != nil {
		return nil, err
	}
	before, err := r.origin.stats(ctx)
	if err != nil {
		return nil, err
	}
	var seen loadResult
	m, err := r.measured(ctx, s, func() (loadResult, error) {
		var err error
		seen, err = load(ctx, r.dir, r.loadCores, r.zipfPart(s, round, zipfCold))
		return seen, err
	})
	if err != nil {
		return nil, err
	}
	after, err := r.origin.stats(ctx)
	if err != nil {
		return nil, err
	}
	asked := after.minus(before)
	m["hit"] = 100 * (1 - float64(asked.Requests)/float64(max(seen.Requests, 1)))
	m["byteHit"] = 100 * (1 - float64(asked.Bytes)/float64(max(seen.Bytes, 1)))
	keptAfter, err := s.bytesKept(ctx)
	if err != nil {
		return nil, err
	}
	if mean := (kept + keptAfter) / 2; mean > 0 {
		m["kept"] = float64(mean) / (1 << 20)
		m["lru"] = 100 * simulateLRU(r.zipfTrace(round), zipfCold*r.zipfRequests(), mean).Requests
	}
	return m, nil
}

// zipfRequests is how many requests a part of the trace has.
func (r *runner) zipfRequests() int {
	return int(min(max(6000*r.length.Seconds(), 2000), 20_000))
}

func (r *runner) zipfPart(s *server, round, part int) loadSpec {
	return loadSpec{Kind: "closed", URL: s.url(h1), Protocol: h1, Connections: 8, Requests: r.zipfRequests(), Check: part == zipfCold,
		Keys: zipfKeys(round, part)}
}

func zipfKeys(round, part int) keySpec {
	return keySpec{Policy: "hour", Kind: "zipf", Count: 20_000, Skew: 0.9, Seed: uint64(round*(zipfCold+1) + part)}
}

// zipfTrace returns all parts of a round's trace.
func (r *runner) zipfTrace(round int) []int {
	var trace []int
	for part := range zipfCold + 1 {
		trace = append(trace, zipfTrace(zipfKeys(round, part), r.zipfRequests())...)
	}
	return trace
}

// simulate adds what known algorithms make of a round's trace.
func (r *runner) simulate(sc scenario, round int) {
	trace, from := r.zipfTrace(round), zipfCold*r.zipfRequests()
	results := map[string]ratio{
		"(LRU)":     simulateLRU(trace, from, smallMemory),
		"(S3-FIFO)": simulateS3FIFO(trace, from, smallMemory),
		"(Belady)":  simulateBelady(trace, from, smallMemory),
	}
	for _, name := range slices.Sorted(maps.Keys(results)) {
		r.report.add(sc, name, round, sample{"hit": 100 * results[name].Requests, "byteHit": 100 * results[name].Bytes,
			"kept": smallMemory >> 20})
	}
}
