package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// What is measured is what an attack costs the node, so attackers have the other
// core. The measuring client is with the node, in calm as under attack: beside
// attackers it waits for the kernel to take their core from them, up to a tick
// of 4 ms, which is none of the node's doing. Each is a process.
const (
	nodesCore   = 0
	othersCore  = 1
	helperJob   = "SEAWALL_TEST_HELPER" // a helper, as JSON
	longRounds  = 8
	mostOfCalm  = 3   // times calm, that an attack may make of the 99th percentile
	noisy       = 1.5 // times the lower quartile of calm, that the upper may be where times are judged
	peersReturn = 30 * time.Second
)

// helper is what a process beside the node does.
type helper struct {
	Attack string // "": it measures
	URL    string
	TLS    string
	Span   time.Duration // how long it measures
}

// figures are what a helper prints in the end.
type figures struct {
	P50, P99 time.Duration
	Rounds   int64
	Err      string
}

// helped does a helper's work, and returns false where this process is none.
func helped() bool {
	var job helper
	if json.Unmarshal([]byte(os.Getenv(helperJob)), &job) != nil {
		return false
	}
	n := &loadedNode{url: job.URL, tls: job.TLS}
	var f figures
	if job.Attack == "" {
		f = n.measure(job.Span)
	} else {
		f = n.attack(job.Attack)
	}
	text, err := json.Marshal(f)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(text))
	return true
}

// attack attacks until standard input ends.
func (n *loadedNode) attack(name string) figures {
	i := slices.IndexFunc(attacks, func(a attack) bool { return a.name == name })
	if i < 0 {
		return figures{Err: "no attack " + name}
	}
	a := attacks[i]
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	var rounds atomic.Int64
	for range a.workers {
		wait.Go(func() {
			for ctx.Err() == nil {
				a.once(ctx, n)
				rounds.Add(1)
				select {
				case <-time.After(a.every):
				case <-ctx.Done():
				}
			}
		})
	}
	fmt.Println("{}") // begun
	_, _ = io.Copy(io.Discard, os.Stdin)
	cancel()
	wait.Wait()
	return figures{Rounds: rounds.Load()}
}

// measure asks for one hit after another for so long, and returns the median
// and the 99th percentile of the times they took.
func (n *loadedNode) measure(span time.Duration) (f figures) {
	client := &http.Client{Transport: &http.Transport{}, Timeout: 30 * time.Second}
	defer client.CloseIdleConnections()
	var took []time.Duration
	for end := time.Now().Add(span); time.Now().Before(end); {
		began := time.Now()
		resp, err := client.Get(n.url + "/")
		if err != nil {
			return figures{Err: err.Error()}
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		took = append(took, time.Since(began))
		if err != nil || string(body) != "as ever" {
			return figures{Err: fmt.Sprintf("got %q, %v", body, err)}
		}
	}
	slices.Sort(took)
	return figures{P50: took[len(took)/2], P99: took[len(took)*99/100], Rounds: int64(len(took))}
}

// helping is a helper under way.
type helping struct {
	t    *testing.T
	cmd  *exec.Cmd
	stop io.Closer
	out  *bufio.Scanner
	what string
}

// help starts a helper. apart says that cores are shared out.
func (n *loadedNode) help(t *testing.T, attack string, span time.Duration, apart bool) *helping {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	job, err := json.Marshal(helper{attack, n.url, n.tls, span})
	if err != nil {
		t.Fatal(err)
	}
	h := &helping{t: t, cmd: exec.Command(self), what: attack}
	h.cmd.Env = append(os.Environ(), helperJob+"="+string(job))
	h.cmd.Stderr = os.Stderr
	in, err := h.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	h.stop, h.out = in, bufio.NewScanner(out)
	start := h.cmd.Start
	if apart {
		start = func() error {
			if attack == "" {
				return startOn(h.cmd, nodesCore, false)
			}
			return startOn(h.cmd, othersCore, true)
		}
	}
	if err := start(); err != nil {
		t.Fatal(err)
	}
	if attack != "" && !h.out.Scan() {
		t.Fatalf("%s: it did not begin", attack)
	}
	return h
}

// end stops the helper, and returns its figures.
func (h *helping) end() (f figures) {
	h.t.Helper()
	if h.what != "" {
		h.stop.Close()
	}
	if !h.out.Scan() || json.Unmarshal(h.out.Bytes(), &f) != nil {
		f.Err = fmt.Sprintf("it ended with %q", h.out.Text())
	}
	if err := h.cmd.Wait(); err != nil && f.Err == "" {
		f.Err = err.Error()
	}
	if f.Err != "" && h.what == "" {
		h.t.Fatalf("a well-behaved client: %s", f.Err)
	} else if f.Err != "" {
		h.t.Fatalf("%s: %s", h.what, f.Err)
	}
	return f
}

// TestAttacksHarmOnlyThemselves runs each attack beside a well-behaved client:
// its answers must all be right, memory must stay within the limit, and what
// the attack held must be given back. SEAWALL_LONG=1 runs longer, and holds the
// 99th percentile of the client's times against what it is in calm: the lower
// quartile of several rounds each, since what else the machine does only adds.
func TestAttacksHarmOnlyThemselves(t *testing.T) {
	large := make([]byte, 4<<20)
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=600")
		if r.URL.Path == "/large" {
			_, _ = w.Write(large)
			return
		}
		_, _ = io.WriteString(w, "as ever")
	}))
	defer origin.Close()
	start, apart := (*exec.Cmd).Start, true
	if err := mayStartOn(nodesCore, othersCore); err != nil {
		t.Logf("node and attackers share their cores, so the times say little of the node: %v", err)
		apart = false
	} else {
		start = func(cmd *exec.Cmd) error { return startOn(cmd, nodesCore, false) }
	}
	n := startLoadedBy(t, start, "--origin", origin.URL, "--memory", "64MiB", "--https", "127.0.0.1:0")
	span, rounds := 300*time.Millisecond, 1
	if long() {
		span, rounds = time.Second, longRounds
	}
	only := os.Getenv("SEAWALL_ATTACK")
	for _, a := range attacks {
		if strings.Contains(a.name, only) {
			n.withstands(t, a, span, rounds, apart)
		}
	}
}

// withstands measures in calm and under an attack, in turn.
func (n *loadedNode) withstands(t *testing.T, a attack, span time.Duration, rounds int, apart bool) {
	t.Helper()
	var calm, got []float64
	var attacked int64
	for range rounds {
		before := n.help(t, "", span, apart).end()
		under := n.help(t, a.name, 0, apart)
		during := n.help(t, "", span, apart).end()
		attacked += under.end().Rounds
		n.settles(t, a.name)
		calm, got = append(calm, float64(before.P99)), append(got, float64(during.P99))
	}
	peak := n.memory(t, "VmHWM")
	usual, worse := quartile(calm, 1), quartile(got, 1)
	t.Logf("%-18s p99 in calm %7v, attacked %8v: %4.1f times  %d rounds, peak %d MiB", a.name,
		time.Duration(usual).Round(time.Microsecond), time.Duration(worse).Round(time.Microsecond), worse/usual, attacked, peak>>20)
	switch {
	case !long() || !apart || worse <= mostOfCalm*usual:
	case quartile(calm, 3) > noisy*usual:
		t.Logf("%s: not judged: in calm, p99 was between %v and %v by what else the machine did", a.name, time.Duration(usual), time.Duration(quartile(calm, 3)))
	default:
		t.Errorf("%s: p99 is %.1f times that in calm, want at most %d", a.name, worse/usual, mostOfCalm)
	}
	if peak > (64+128)<<20 {
		t.Errorf("%s: peak %d MiB with a budget of 64 MiB", a.name, peak>>20)
	}
}

// quartile is the lower one, or another.
func quartile(all []float64, which int) float64 {
	all = slices.Sorted(slices.Values(all))
	return all[len(all)*which/4]
}

// settles waits until the node has given back what the attack held.
func (n *loadedNode) settles(t *testing.T, attack string) {
	t.Helper()
	var open float64
	for end := time.Now().Add(peersReturn); time.Now().Before(end); <-time.After(50 * time.Millisecond) {
		if open = n.metric(t, "seawall_connections"); open <= 8 {
			return
		}
	}
	t.Errorf("%s: %v connections are still open %s after it", attack, open, peersReturn)
}
