package main

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// sampleReport has two rounds of two peers.
func sampleReport() *report {
	r := &report{Machine: "2 cores", Rounds: 2, Seconds: 1}
	sc := scenario{name: "hits-h1-1k", group: "hits-h1", about: "hits"}
	r.add(sc, node, 0, sample{"rps": 1000, "cpu": 50, "p50": 1})
	r.add(sc, node, 1, sample{"rps": 1200, "cpu": 40, "p50": 1})
	r.add(sc, "nginx", 0, sample{"rps": 2200, "cpu": 20, "p50": 2})
	r.add(sc, "nginx", 1, sample{"rps": 2200, "cpu": 25, "p50": 2})
	r.skip("hits-h1", "varnish", "is not here")
	r.skip("hits-h1", "varnish", "is not here")
	return r
}

func TestTableTellsMediansRatiosAndWhoIsAhead(t *testing.T) {
	got := sampleReport().markdown()
	for _, want := range []string{
		"| scenario | peer | requests/s | × | CPU µs/request | × | p50 ms |\n|---|---|---:|---:|---:|---:|---:|\n",
		"| hits-h1-1k | seawall | 1100 (1000–1200) | 1.00 | 45.0 (40.0–50.0) | 1.00 | 1.00 |\n",
		"| hits-h1-1k | nginx | 2200 | 2.02 | 22.5 (20.0–25.0) | 0.51 | 2.00 |\n",
		"Ahead of Seawall: nginx in hits-h1-1k (requests/s 2.02×, CPU µs/request 0.51×).\n",
		"Left out: hits-h1: varnish is not here.\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("got\n%s\nwant in it\n%s", got, want)
		}
	}
}

// TestRatiosAreOfNeighbours: a machine that is twice as slow in one round doubles
// the figures of all in that round, and no ratio.
func TestRatiosAreOfNeighbours(t *testing.T) {
	sc := scenario{name: "hits-h1-1k", group: "hits-h1"}
	r := &report{Rounds: 4}
	for number, slow := range []float64{1, 2, 1, 2} {
		r.add(sc, node, number, sample{"cpu": 30 * slow, "p50": 0})
		if number != 1 { // missing from one: the medians are of unlike rounds
			r.add(sc, bare, number, sample{"cpu": (20 + float64(number)) * slow, "p50": 1})
		}
	}
	r.add(scenario{name: "hits-h2-1k", group: "hits-h2"}, node, 0, sample{"cpu": 7}) // without a bare handler
	own, floor := r.find(sc.name, node), r.find(sc.name, bare)
	got := own.over(floor)["cpu"]
	if want := (spread{30. / 22, 30. / 23, 30. / 20}); got != want {
		t.Errorf("Seawall over the bare handler: got %+v, want %+v", got, want)
	}
	if got, want := floor.Beside["cpu"], (spread{22. / 30, 20. / 30, 23. / 30}); got != want {
		t.Errorf("the bare handler beside Seawall: got %+v, want %+v", got, want)
	}
	if got := floor.Beside["p50"]; got != (spread{}) {
		t.Errorf("over nothing: got %+v, want no ratio", got)
	}
	if got, want := r.besideBare(), "beside the bare handler's: 1.36× (1.30–1.50) in hits-h1-1k.\n"; !strings.HasSuffix(got, want) {
		t.Errorf("got %q, want at its end %q", got, want)
	}
}

func TestMoreBytesKeptAreSaid(t *testing.T) {
	sc := scenario{name: "zipf", group: "zipf"}
	r := &report{Rounds: 1}
	r.add(sc, node, 0, sample{"hit": 60, "kept": 64, "cpu": 2})
	r.add(sc, "nginx", 0, sample{"hit": 66, "kept": 128, "cpu": 1})
	r.add(sc, "haproxy", 0, sample{"hit": 63, "kept": 64, "cpu": 3})
	got := r.markdown()
	for _, want := range []string{"hit ratio % 1.10× with 2.00× the bytes kept)", "CPU µs/request 0.50×, ", "haproxy in zipf (hit ratio % 1.05×)"} {
		if !strings.Contains(got, want) {
			t.Errorf("got\n%s\nwant in it\n%s", got, want)
		}
	}
}

func TestRoundsThatWereHeldAreSaid(t *testing.T) {
	for _, tt := range []struct {
		name string
		held []int // by scenario
		want string
	}{
		{"all", []int{3, 3}, "3 rounds, interleaved"},
		{"fewer", []int{2, 2}, "2 rounds of 3, interleaved: for more there was no time"},
		{"uneven", []int{1, 2, 1}, "1 round, interleaved (2 of b: for more there was no time)"},
		{"none", nil, "0 rounds of 3, interleaved: for more there was no time"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := &report{Rounds: 3}
			for i, n := range tt.held {
				for number := range n {
					r.add(scenario{name: string(rune('a' + i))}, node, number, sample{"cpu": 1})
				}
			}
			if got := r.roundsHeld(); got != tt.want {
				t.Errorf("rounds %v: got %q, want %q", tt.held, got, tt.want)
			}
		})
	}
}

func TestErrorsHaveAColumnWhenThereAreSome(t *testing.T) {
	sc := scenario{name: "misses", group: "misses"}
	r := &report{}
	r.add(sc, node, 0, sample{"cpu": 1, "errors": 0})
	if got := r.markdown(); strings.Contains(got, "errors") {
		t.Errorf("without errors: got\n%s\nwant no column for them", got)
	}
	r.add(sc, "nginx", 0, sample{"cpu": 1, "errors": 3})
	if got := r.markdown(); !strings.Contains(got, "| errors |") {
		t.Errorf("with errors: got\n%s\nwant a column for them", got)
	}
}

func TestSavedReportIsRead(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	r := sampleReport()
	if err := r.save(dir); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "results.json"))
	if err != nil {
		t.Fatal(err)
	}
	var back report
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if got := back.Rows[1].Figures["cpu"]; got != (spread{22.5, 20, 25}) {
		t.Errorf("nginx's cpu: got %+v, want 22.5 from 20 to 25", got)
	}
	plot, err := os.ReadFile(filepath.Join(dir, "hits-h1-cpu.svg"))
	if err != nil {
		t.Fatal(err)
	}
	wellFormed(t, string(plot))
}

// wellFormed fails unless text is XML, and returns how often each element is
// there.
func wellFormed(t *testing.T, text string) map[string]int {
	t.Helper()
	count := make(map[string]int)
	for d := xml.NewDecoder(strings.NewReader(text)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return count
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		if e, ok := token.(xml.StartElement); ok {
			count[e.Name.Local]++
			for _, a := range e.Attr {
				if strings.Contains(a.Value, "NaN") || strings.Contains(a.Value, "Inf") {
					t.Errorf("%s has %s=%q", e.Name.Local, a.Name.Local, a.Value)
				}
			}
		}
	}
}

func TestPlots(t *testing.T) {
	bars := []bar{
		{group: "a", label: `<&"`, value: 3, low: 2, high: 4, own: true},
		{group: "a", label: "b", value: math.NaN()},
		{group: "b", label: "c", value: math.Inf(1)},
		{group: "b", label: "d", value: -1},
	}
	if got := wellFormed(t, plotBars("<title>", bars, 1)); got["rect"] != 4 || got["line"] != 1 {
		t.Errorf("4 bars, 1 with bounds: got %v", got)
	}
	wellFormed(t, plotBars("none", nil, 0))
	curves := []curve{{"a", []float64{1, 2, math.NaN()}}, {"b", nil}, {"c", []float64{5}}}
	if got := wellFormed(t, plotCurves("t", "x", curves)); got["polyline"] != 3 {
		t.Errorf("3 curves: got %v", got)
	}
}

func TestToolsAreRead(t *testing.T) {
	const wrk = `Running 1s test @ http://127.0.0.1:1/
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.71ms    1.20ms  11.07ms   78.66%
  12000 requests in 1.50s, 12.99MB read
  Socket errors: connect 1, read 2, write 0, timeout 3
  Non-2xx or 3xx responses: 4
Requests/sec:   8000.00
Transfer/sec:      8.66MB
`
	r, err := parseWrk(wrk)
	if err != nil || r.Requests != 11990 || r.Errors != 10 || r.Elapsed.Seconds() != 1.5 {
		t.Errorf("wrk: got %+v, error %v; want 11990 requests, 10 errors, 1.5 s", r, err)
	}
	const h2load = `finished in 505.04ms, 2000.00 req/s, 1.20MB/s
requests: 1000 total, 1000 started, 1000 done, 990 succeeded, 10 failed, 4 errored, 0 timeout
status codes: 990 2xx, 0 3xx, 6 4xx, 0 5xx
`
	r, err = parseH2load(h2load)
	if err != nil || r.Requests != 990 || r.Errors != 10 || r.Elapsed.Milliseconds() != 495 {
		t.Errorf("h2load: got %+v, error %v; want 990 requests, 10 errors, 495 ms", r, err)
	}
	for name, parse := range map[string]func(string) (loadResult, error){"wrk": parseWrk, "h2load": parseH2load} {
		if _, err := parse("unable to connect"); err == nil {
			t.Errorf("%s: no figures gave no error", name)
		}
	}
	if _, err := parseWrk(strings.Replace(wrk, "8000.00", "0.00", 1)); !errors.Is(err, errLoad) {
		t.Errorf("wrk without a request: got error %v, want %v", err, errLoad)
	}
}

func TestToolsForPieces(t *testing.T) {
	for _, tt := range []struct {
		by     protocol
		length time.Duration
		want   string
	}{
		{h1, time.Second, "wrk -t 1 -c 3 -d 1s"},
		{h1s, 5 * time.Second, "wrk -t 1 -c 3 -d 5s"},
		{h1s, 200 * time.Millisecond, "h2load -t 1 -c 3 -m 1 -D 200ms --warm-up-time=0ms --h1"},
		{h1, 1500 * time.Millisecond, "h2load -t 1 -c 3 -m 1 -D 1500ms --warm-up-time=0ms --h1"},
		{h2, time.Second, "h2load -t 1 -c 3 -m 1 -D 1000ms --warm-up-time=0ms"},
		{h3, time.Second, ""},
	} {
		name, args, _ := floodTool(loadSpec{Protocol: tt.by, Length: tt.length, Connections: 3, Streams: 1})
		if got := strings.Join(append([]string{name}, args...), " "); got != tt.want {
			t.Errorf("%s for %v: got %q, want %q", tt.by, tt.length, got, tt.want)
		}
	}
}

func TestToolsThatDoNotEndAreEnded(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the comparison needs Linux")
	}
	_, cores, err := serverAndLoad()
	if err != nil {
		t.Fatal(err)
	}
	path, err := exec.LookPath("sleep")
	if err != nil {
		t.Skip("there is no sleep to run")
	}
	if _, err := runTool(t.Context(), time.Millisecond, t.TempDir(), cores, path, "300"); err == nil || !strings.Contains(err.Error(), "did not end") {
		t.Errorf("sleep 300: got error %v, want one that it did not end", err)
	}
	if _, err := runTool(t.Context(), time.Minute, t.TempDir(), cores, path, "0"); err != nil {
		t.Errorf("sleep 0: got error %v, want none", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := runTool(ctx, time.Minute, t.TempDir(), cores, path, "300"); !errors.Is(err, context.Canceled) {
		t.Errorf("sleep 300 without leave to run: got error %v, want %v", err, context.Canceled)
	}
}

func TestVersionsEndWithTheirNumber(t *testing.T) {
	for line, want := range map[string]string{
		"nginx version: nginx/1.22.1":                   "nginx version: nginx/1.22.1",
		"varnishd (varnish-7.1.1 revision 7cee1c5)":     "varnishd (varnish-7.1.1)",
		"HAProxy version 2.6.12-1 2026/10/17 - a place": "HAProxy version 2.6.12-1",
		"wrk debian/4.1.0-3+b2 [epoll] Somebody":        "wrk debian/4.1.0-3+b2",
		"none at all":                                   "none at all",
		"":                                              "",
	} {
		if got := untilNumber(line); got != want {
			t.Errorf("%q: got %q, want %q", line, got, want)
		}
	}
}
