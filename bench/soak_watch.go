package main

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// A soakSample is what the node holds at a moment.
type soakSample struct {
	MiB         float64
	Descriptors int
	Goroutines  int
}

// sample measures the node.
func (s *soaker) sample(ctx context.Context) (soakSample, error) {
	resident, err := residentBytes(s.server.pid)
	if err != nil {
		return soakSample{}, err
	}
	open, err := descriptors(s.server.pid)
	if err != nil {
		return soakSample{}, err
	}
	text, err := fetch(ctx, http.MethodGet, "http://"+s.server.admin+"/metrics", nil, nil)
	if err != nil {
		return soakSample{}, err
	}
	goroutines, err := metric(string(text), "go_goroutines")
	return soakSample{MiB: float64(resident) / (1 << 20), Descriptors: open, Goroutines: int(goroutines)}, err
}

// metric returns the value of a metric without labels.
func metric(text, name string) (float64, error) {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(rest), 64)
		}
	}
	return 0, fmt.Errorf("no metric %s", name)
}

// watch samples the node each second until ctx ends, and tells of it every ten.
func (s *soaker) watch(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-tick.C:
		case <-s.server.ended:
			s.fail("the node ended: %v", s.server.err)
			s.cancel()
			return
		case <-ctx.Done():
			return
		}
		one, err := s.sample(ctx)
		if err != nil {
			if ctx.Err() == nil {
				s.fail("sample: %v", err)
			}
			continue
		}
		s.count(func(sum *soakSummary) {
			sum.Samples = append(sum.Samples, one)
			if n%10 != 0 {
				return
			}
			total := int64(0)
			for _, n := range sum.Requests {
				total += n
			}
			s.note("%d requests, %d hits, %d purges, %d reloads, %d swaps, %d faults, %d failures; %.0f MiB, %d descriptors, %d goroutines",
				total, sum.Outcomes["hit"], sum.Purges, sum.Reloads, sum.Swaps, sum.Faults, sum.Failures, one.MiB, one.Descriptors, one.Goroutines)
		})
	}
}

// atRest waits for the node to let go of what the load's connections took. Its
// idle connections to the origin end after some seconds.
func (s *soaker) atRest(ctx context.Context, before soakSample) {
	const moreDescriptors, moreGoroutines = 12, 24
	var last soakSample
	for range 60 {
		one, err := s.sample(ctx)
		if err != nil {
			s.fail("after the soak: %v", err)
			return
		}
		last = one
		if one.Descriptors <= before.Descriptors+moreDescriptors && one.Goroutines <= before.Goroutines+moreGoroutines {
			s.summary.Samples = append(s.summary.Samples, one)
			return
		}
		pause(ctx, 500*time.Millisecond)
	}
	s.fail("half a minute after the last request: %d descriptors and %d goroutines; before the first %d and %d",
		last.Descriptors, last.Goroutines, before.Descriptors, before.Goroutines)
}

// judgeMemory holds the process to the margin that is promised over its budget,
// and, in a soak of a minute and more, to not growing.
func (s *soaker) judgeMemory(length time.Duration) {
	bound := float64(soakMemory>>20) + 96
	if s.summary.Function {
		bound += 64 // what the function's machines may have
	}
	const slack = 16 // connections, and pages that the collector has not given back yet
	samples := s.summary.Samples
	for _, one := range samples {
		if one.MiB > bound+slack {
			s.fail("memory was %.0f MiB; want %.0f at most", one.MiB, bound+slack)
			return
		}
	}
	if length < time.Minute || len(samples) < 40 {
		return
	}
	quarter := len(samples) / 4
	early, late := meanMiB(samples[quarter:2*quarter]), meanMiB(samples[3*quarter:])
	if late > early*1.1+8 {
		s.fail("memory grew from %.0f MiB in the second quarter to %.0f in the last", early, late)
	}
}

func meanMiB(samples []soakSample) float64 {
	sum := 0.0
	for _, one := range samples {
		sum += one.MiB
	}
	return sum / float64(max(len(samples), 1))
}
