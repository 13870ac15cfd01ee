package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Programs of others that load a server harder than Go can.

// flood loads one URL as hard as it goes on cores: with wrk for HTTP/1.1, h2load
// for HTTP/2 and for what is shorter than the whole seconds that wrk takes, and
// the generator where they are not installed or cannot (HTTP/3). The second result
// is the tool's name.
func flood(ctx context.Context, dir string, cores []int, spec loadSpec) (loadResult, string, error) {
	object, err := spec.Keys.keys(1)
	if err != nil {
		return loadResult{}, "", err
	}
	name, args, parse := floodTool(spec)
	if path, err := exec.LookPath(name); err == nil && name != "" {
		argv := append([]string{path}, append(args, spec.URL+object(0).path())...)
		out, err := runTool(ctx, spec.Length+toolGrace, dir, cores, argv...)
		if err != nil {
			return loadResult{}, name, err
		}
		r, err := parse(out)
		return r, name, err
	}
	spec.Kind = "closed"
	r, err := load(ctx, dir, cores, spec)
	return r, "own", err
}

// floodTool returns the tool that floods as spec says, "" for none, its arguments
// but the URL, and what reads its output.
func floodTool(spec loadSpec) (name string, args []string, parse func(string) (loadResult, error)) {
	connections, streams := strconv.Itoa(spec.Connections), strconv.Itoa(spec.Streams)
	old := spec.Protocol == h1 || spec.Protocol == h1s
	switch {
	case old && spec.Length%time.Second == 0:
		return "wrk", []string{"-t", "1", "-c", connections, "-d", strconv.Itoa(int(spec.Length.Seconds())) + "s"}, parseWrk
	case old || spec.Protocol == h2:
		args = []string{"-t", "1", "-c", connections, "-m", streams,
			"-D", fmt.Sprintf("%dms", spec.Length.Milliseconds()), "--warm-up-time=0ms"}
		if old {
			args = append(args, "--h1")
		}
		return "h2load", args, parseH2load
	}
	return "", nil, nil
}

// toolGrace is how much longer than its load a tool may take. h2load waits for
// ever when one of its connections is lost before all are made.
const toolGrace = 15 * time.Second

// runTool runs a program on cores and returns what it printed. It is ended, which
// is an error, when it has not by itself after limit.
func runTool(ctx context.Context, limit time.Duration, dir string, cores []int, argv ...string) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("%s did not end", argv[0]))
	defer cancel()
	var out bytes.Buffer
	p, err := startProcess("tool", dir, cores, nil, &out, argv...)
	if err != nil {
		return "", err
	}
	defer p.stop()
	if err = p.wait(ctx); err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return out.String(), err
}

// errTool is output of a tool that is not understood.
var errTool = errors.New("the tool's output is not understood")

// number returns what the first group of a pattern matches in text, 0 without a
// match when optional.
func number(text, pattern string, optional bool) (float64, error) {
	m := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if m == nil && optional {
		return 0, nil
	}
	if m == nil {
		return 0, fmt.Errorf("%w: no %s in\n%s", errTool, pattern, text)
	}
	return strconv.ParseFloat(m[1], 64)
}

// parseWrk reads what wrk 4 prints. Requests that failed are errors.
func parseWrk(text string) (loadResult, error) {
	var r loadResult
	requests, err := number(text, `(\d+) requests in `, false)
	if err != nil {
		return r, err
	}
	rate, err := number(text, `Requests/sec:\s+([0-9.]+)`, false)
	if err != nil || rate == 0 {
		return r, errors.Join(err, errLoad)
	}
	failed, err := number(text, `Non-2xx or 3xx responses: (\d+)`, true)
	if err != nil {
		return r, err
	}
	if m := regexp.MustCompile(`Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)`).FindStringSubmatch(text); m != nil {
		for _, n := range m[1:] {
			count, _ := strconv.ParseFloat(n, 64)
			failed += count
		}
		r.FirstError = m[0]
	}
	r.Requests, r.Errors = int64(requests-min(failed, requests)), int64(failed)
	r.Elapsed = time.Duration(requests / rate * float64(time.Second))
	return r, nil
}

// parseH2load reads what h2load 1 prints.
func parseH2load(text string) (loadResult, error) {
	var r loadResult
	if !strings.Contains(text, "finished in") {
		return r, fmt.Errorf("%w:\n%s", errTool, text)
	}
	done, err := number(text, `, (\d+) succeeded`, false)
	if err != nil {
		return r, err
	}
	failed, err := number(text, `succeeded, (\d+) failed`, false)
	if err != nil {
		return r, err
	}
	rate, err := number(text, `finished in [^,]+, ([0-9.]+) req/s`, false)
	if err != nil || rate == 0 {
		return r, errors.Join(err, errLoad)
	}
	r.Requests, r.Errors = int64(done), int64(failed)
	r.Elapsed = time.Duration(done / rate * float64(time.Second))
	return r, nil
}
