package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"seawall/edge/listen"
)

// What the benchmark starts beside the node, by SEAWALL_TEST_BESIDE: a handler
// behind net/http alone, or behind the node's listener.
const (
	besideBare     = "bare"
	besideListener = "listener"
)

// besides serves as a bare handler until standard input ends, and returns false
// where this process is none.
func besides() bool {
	kind := os.Getenv("SEAWALL_TEST_BESIDE")
	if kind == "" {
		return false
	}
	if err := serveBare(kind, os.Getenv("SEAWALL_TEST_BESIDE_PAIR")); err != nil {
		panic(err)
	}
	return true
}

// answerBare writes what a hit of the same content has.
func answerBare(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h["Content-Type"] = []string{"application/octet-stream"}
	h["Content-Length"] = []string{strconv.Itoa(len(besideBody))}
	h["Cache-Control"] = []string{"public, max-age=3600"}
	h["Etag"] = []string{`"v1"`}
	h["Last-Modified"] = []string{"Thu, 01 Jan 2026 00:00:00 GMT"}
	h["Age"] = []string{"1"}
	h["Cache-Status"] = []string{"bare; hit; ttl=3599"}
	h["Via"] = []string{"1.1 bare"}
	_, _ = io.WriteString(w, besideBody)
}

func serveBare(kind, pair string) error {
	cert, err := tls.LoadX509KeyPair(pair, pair)
	if err != nil {
		return err
	}
	conf := &tls.Config{Certificates: []tls.Certificate{cert}}
	if kind == besideListener {
		s := &listen.Server{Handler: http.HandlerFunc(answerBare)}
		if err := errorOf(s.Listen("127.0.0.1:0"), s.ListenTLS("127.0.0.1:0", conf)); err != nil {
			return err
		}
		go s.Serve()
		defer s.Close()
		fmt.Println(s.Addrs()[0], s.Addrs()[1])
	} else {
		clear, err1 := net.Listen("tcp", "127.0.0.1:0")
		secure, err2 := net.Listen("tcp", "127.0.0.1:0")
		if err := errorOf(err1, err2); err != nil {
			return err
		}
		s := &http.Server{Handler: http.HandlerFunc(answerBare), TLSConfig: conf}
		go s.Serve(clear)
		go s.ServeTLS(secure, "", "")
		defer s.Close()
		fmt.Println(clear.Addr(), secure.Addr())
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func errorOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// beside is a process that is asked, for the time it takes of its processor.
type beside struct {
	name          string
	pid           int
	clear, secure string // host:port
}

// startBeside starts the test binary as kind, "node" being the whole program
// with an access log in a file, metrics and the admin API.
func startBeside(b *testing.B, kind, pair, origin string) *beside {
	b.Helper()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "SEAWALL_TEST_BESIDE_PAIR="+pair)
	if kind == "node" {
		cmd.Args = append(cmd.Args, "serve", "--http", "127.0.0.1:0", "--https", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--cert", pair,
			"--key", pair, "--data", "", "--origin", origin, "--access-log", filepath.Join(b.TempDir(), "access.log"))
		cmd.Env = append(cmd.Env, "SEAWALL_TEST_AS_PROGRAM=1")
	} else {
		cmd.Env = append(cmd.Env, "SEAWALL_TEST_BESIDE="+kind)
	}
	in, err1 := cmd.StdinPipe()
	out, said := io.Pipe()
	cmd.Stdout, cmd.Stderr = said, said
	if err := errorOf(err1, cmd.Start()); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	p := &beside{name: kind, pid: cmd.Process.Pid}
	lines := bufio.NewScanner(out)
	urls := regexp.MustCompile(`(admin|listening) on (https?)://([0-9.:]+)`)
	for p.clear == "" && lines.Scan() {
		line := lines.Text()
		if kind != "node" {
			p.clear, p.secure, _ = strings.Cut(line, " ")
		} else if m := urls.FindStringSubmatch(line); m != nil && m[1] == "listening" && m[2] == "https" {
			p.secure = m[3]
		} else if m != nil && m[1] == "listening" {
			p.clear = m[3]
		}
	}
	if p.clear == "" || p.secure == "" {
		b.Fatalf("%s did not start", kind)
	}
	go io.Copy(io.Discard, out)
	return p
}

// processor is the user and system time that a process has used, to the
// nanosecond (clock_getcpuclockid(3)).
func (p *beside) processor(b *testing.B) time.Duration {
	b.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^p.pid<<3|2), &ts); err != nil {
		b.Fatal(err)
	}
	return time.Duration(ts.Nano())
}

// asker asks one process, by a number of clients at once.
type asker struct {
	of      *beside
	clients []func() error // each asks once
}

// each is the processor time that one of count requests takes.
func (a *asker) each(b *testing.B, count int) time.Duration {
	b.Helper()
	before := a.of.processor(b)
	faults := make(chan error, len(a.clients))
	var wait sync.WaitGroup
	for _, ask := range a.clients {
		wait.Go(func() {
			for range count / len(a.clients) {
				if err := ask(); err != nil {
					faults <- err
					return
				}
			}
		})
	}
	wait.Wait()
	select {
	case err := <-faults:
		b.Fatalf("%s: %v", a.of.name, err)
	default:
	}
	return (a.of.processor(b) - before) / time.Duration(count)
}

// askFirst returns a client of HTTP/1.1 that allocates nothing.
func askFirst(b *testing.B, p *beside) func() error {
	b.Helper()
	c, err := net.Dial("tcp", p.clear)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	request := []byte("GET /a HTTP/1.1\r\nHost: " + p.clear + "\r\n\r\n")
	in := bufio.NewReaderSize(c, 4<<10)
	return func() error { return askAgain(c, in, request) }
}

// askSecond returns a client of HTTP/2 by TLS with a connection of its own.
func askSecond(b *testing.B, p *beside) func() error {
	b.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	b.Cleanup(transport.CloseIdleConnections)
	request, err := http.NewRequest(http.MethodGet, "https://"+p.secure+"/a", nil)
	if err != nil {
		b.Fatal(err)
	}
	return func() error {
		answer, err := transport.RoundTrip(request)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if n, err := io.Copy(io.Discard, answer.Body); answer.ProtoMajor != 2 || n != int64(len(besideBody)) || err != nil {
			return fmt.Errorf("%s with %d bytes: %w", answer.Proto, n, err)
		}
		return nil
	}
}

// BenchmarkHitBesideBare compares the processor time of a hit of 1 KiB by the
// whole program with that of a bare handler, and of one behind the node's
// listener. An iteration is a round: each is asked as often, in turn. The
// figures are medians; ratios are of each round, with the smallest and largest.
// `-benchtime 30x` is 30 rounds.
func BenchmarkHitBesideBare(b *testing.B) {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Cache-Control", "public, max-age=3600")
		w.Header().Set("ETag", `"v1"`)
		io.WriteString(w, besideBody)
	}))
	b.Cleanup(origin.Close)
	text, err := makeOwn([]string{"127.0.0.1"}, time.Now())
	pair := filepath.Join(b.TempDir(), "pair.pem")
	if err := errorOf(err, os.WriteFile(pair, text, 0o600)); err != nil {
		b.Fatal(err)
	}
	var all []*beside
	for _, kind := range []string{besideBare, besideListener, "node"} {
		all = append(all, startBeside(b, kind, pair, origin.URL))
	}
	for _, way := range []struct {
		name string
		ask  func(*testing.B, *beside) func() error
	}{{"h1", askFirst}, {"h2", askSecond}} {
		b.Run(way.name, func(b *testing.B) { compareBesides(b, all, way.ask) })
	}
}

func compareBesides(b *testing.B, all []*beside, ask func(*testing.B, *beside) func() error) {
	const clients, count = 16, 3200
	askers := make([]*asker, len(all))
	for i, p := range all {
		askers[i] = &asker{of: p}
		for range clients {
			askers[i].clients = append(askers[i].clients, ask(b, p))
		}
		askers[i].each(b, 6*count) // until the heap has the size that it keeps
	}
	each := make([][]float64, len(all))
	ratios := make([][]float64, len(all))
	for round := 0; b.Loop(); round++ {
		took := make([]float64, len(all))
		for turn := range askers {
			i := (round + turn) % len(askers)
			took[i] = float64(askers[i].each(b, count)) / 1e3
			each[i] = append(each[i], took[i])
		}
		for i := range took {
			ratios[i] = append(ratios[i], took[i]/took[0])
		}
	}
	for i, p := range all {
		slices.Sort(each[i])
		slices.Sort(ratios[i])
		b.ReportMetric(each[i][len(each[i])/2], p.name+"-µs")
		if i > 0 {
			b.ReportMetric(ratios[i][len(ratios[i])/2], p.name+"-ratio")
			b.ReportMetric(ratios[i][0], p.name+"-ratio-min")
			b.ReportMetric(ratios[i][len(ratios[i])-1], p.name+"-ratio-max")
		}
	}
	b.ReportMetric(0, "ns/op") // a round's, of no meaning
}
