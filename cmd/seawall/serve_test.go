package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// program is `seawall` run as a process of its own.
type program struct {
	*exec.Cmd
	t            *testing.T
	out, err     *output
	front, admin string // URLs
	secure       string // by TLS; "" without
	ended        chan struct{}
	code         int // once ended is closed
}

// output is what a process wrote so far.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// launch starts the program and does not wait for it to listen.
func launch(t *testing.T, args ...string) *program {
	t.Helper()
	return launchInto(t, nil, args...)
}

// launchInto is launch with standard output into a file, unless nil.
func launchInto(t *testing.T, out *os.File, args ...string) *program {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &program{Cmd: exec.Command(self, args...), t: t, out: new(output), err: new(output), ended: make(chan struct{})}
	p.Env = append(os.Environ(), "SEAWALL_TEST_AS_PROGRAM=1")
	p.Stdout, p.Stderr = p.out, p.err
	if out != nil {
		p.Stdout = out
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.Wait() // its error is the exit code, read below
		p.code = p.ProcessState.ExitCode()
		close(p.ended)
	}()
	t.Cleanup(func() {
		p.Process.Kill() // of no effect once ended
		<-p.ended
		if t.Failed() {
			t.Logf("standard error:\n%s", p.err)
		}
	})
	return p
}

// serve starts a node on free ports and waits until it listens. It has no
// HTTPS, unless args say so.
func serve(t *testing.T, args ...string) *program {
	t.Helper()
	p := launch(t, append([]string{"serve", "--http", "127.0.0.1:0", "--https", "off", "--admin", "127.0.0.1:0"}, args...)...)
	p.addresses()
	return p
}

func (p *program) addresses() {
	p.t.Helper()
	urls := regexp.MustCompile(`(?s)admin on (http://[^"]+).*listening on (http://[^"]+)`)
	tls := regexp.MustCompile(`listening on (https://[^"]+)`) // said before the other
	p.until("it listens", func() bool {
		found := urls.FindStringSubmatch(p.err.String())
		if found != nil {
			p.admin, p.front = found[1], found[2]
		}
		if found := tls.FindStringSubmatch(p.err.String()); found != nil {
			p.secure = found[1]
		}
		return found != nil
	})
}

// until polls a condition that the program brings about.
func (p *program) until(what string, ok func() bool) {
	p.t.Helper()
	p.within(20*time.Second, what, ok)
}

func (p *program) within(most time.Duration, what string, ok func() bool) {
	p.t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(most); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			p.t.Fatalf("after %s still not: %s", most, what)
		}
	}
}

func (p *program) signal(s os.Signal) {
	p.t.Helper()
	if runtime.GOOS == "windows" {
		p.t.Skip("Windows has no signals to send")
	}
	if err := p.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// exit waits for the end and returns the code.
func (p *program) exit() int {
	p.t.Helper()
	select {
	case <-p.ended:
		return p.code
	case <-time.After(30 * time.Second):
		p.t.Fatal("after 30 s it has not ended")
		return -1
	}
}

// get returns an answer with its body read, or nil.
func get(url string) (*http.Response, string) {
	tr := &http.Transport{DisableKeepAlives: true}
	res, err := (&http.Client{Transport: tr, Timeout: 20 * time.Second}).Get(url)
	if err != nil {
		return nil, err.Error()
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err.Error()
	}
	return res, string(body)
}

func expect(t *testing.T, url string, status int, cacheStatus, body string) {
	t.Helper()
	res, got := get(url)
	if res == nil {
		t.Fatalf("%s: %s", url, got)
	}
	if cs := res.Header.Get("Cache-Status"); res.StatusCode != status || !strings.Contains(cs, cacheStatus) || !strings.Contains(got, body) {
		t.Errorf("%s\ngot %d, %q, %q\nwant %d, %q, %q", url, res.StatusCode, cs, got, status, cacheStatus, body)
	}
}

// sampleServer serves what made returns, as fresh for a minute.
func sampleServer(t *testing.T, made func(r *http.Request) string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		io.WriteString(w, made(r))
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestServeAnswersFromItsCache(t *testing.T) {
	var asked atomic.Int64
	from := sampleServer(t, func(r *http.Request) string {
		return fmt.Sprintf("answer %d as %s for %s", asked.Add(1), r.Host, r.Header.Get("X-Forwarded-Host"))
	})
	p := serve(t, "--origin", from, "--data", t.TempDir())
	name := strings.TrimPrefix(from, "http://")
	want := "answer 1 as " + name + " for " + strings.TrimPrefix(p.front, "http://")
	expect(t, p.front+"/a", 200, "fwd=uri-miss", want)
	expect(t, p.front+"/a", 200, "hit", want)
	expect(t, p.admin+"/healthz", 200, "", "up")
	expect(t, p.admin+"/readyz", 200, "", "ready")
	p.until("both are counted", func() bool {
		_, metrics := get(p.admin + "/metrics")
		return strings.Contains(metrics, `seawall_requests_total{outcome="hit",protocol="http/1.1",site="default",status_class="2xx"} 1`) &&
			strings.Contains(metrics, `seawall_requests_total{outcome="miss",protocol="http/1.1",site="default",status_class="2xx"} 1`)
	})
	p.until("both are in the access log", func() bool {
		return strings.Contains(p.out.String(), "outcome=miss") && strings.Contains(p.out.String(), "outcome=hit")
	})
	p.signal(syscall.SIGTERM)
	if code := p.exit(); code != 0 {
		t.Errorf("exit: got %d, want 0", code)
	}
}

// held is an origin that answers only when told.
func held(t *testing.T) (url string, asked, answer chan struct{}) {
	asked, answer = make(chan struct{}, 16), make(chan struct{})
	url = sampleServer(t, func(*http.Request) string {
		asked <- struct{}{}
		<-answer
		return "at last"
	})
	return url, asked, answer
}

func TestTermDrains(t *testing.T) {
	from, asked, answer := held(t)
	p := serve(t, "--origin", from, "--data", "")
	got := make(chan string, 1)
	go func() {
		_, body := get(p.front + "/slow")
		got <- body
	}()
	<-asked
	p.signal(syscall.SIGTERM)
	p.until("readyz says so", func() bool {
		res, body := get(p.admin + "/readyz")
		return res != nil && res.StatusCode == 503 && strings.Contains(body, "draining")
	})
	p.until("new connections are refused", func() bool {
		c, err := net.Dial("tcp", strings.TrimPrefix(p.front, "http://"))
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	close(answer)
	if body := <-got; body != "at last" {
		t.Errorf("in flight: got %q, want the whole answer", body)
	}
	if code := p.exit(); code != 0 {
		t.Errorf("exit: got %d, want 0", code)
	}
}

// At the end of --drain, or at a second signal, the rest is closed.
func TestDrainEnds(t *testing.T) {
	for _, c := range []struct {
		name, drain string
		again       bool
	}{{"at its time", "20ms", false}, {"at a second signal", "1h", true}} {
		t.Run(c.name, func(t *testing.T) {
			from, asked, answer := held(t)
			defer close(answer)
			p := serve(t, "--origin", from, "--data", "", "--drain", c.drain)
			go get(p.front + "/slow")
			<-asked
			p.signal(syscall.SIGTERM)
			if c.again {
				p.until("it drains", func() bool { return strings.Contains(p.err.String(), "draining") })
				p.signal(syscall.SIGINT)
			}
			if code := p.exit(); code != 0 || !strings.Contains(p.err.String(), "drained in part") {
				t.Errorf("exit: got %d, want 0 and a line that it was cut short", code)
			}
		})
	}
}

func TestHangupReloads(t *testing.T) {
	from := sampleServer(t, func(r *http.Request) string { return "one" })
	other := sampleServer(t, func(r *http.Request) string { return "two" })
	file := filepath.Join(t.TempDir(), "seawall.yaml")
	access := filepath.Join(t.TempDir(), "access.log")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	good := "log: {access: '" + access + "'}\nsites:\n- name: one\n  hosts: [127.0.0.1]\n  origins: ['" + from + "']\n"
	write(good)
	p := serve(t, "--config", file, "--data", "")
	expect(t, p.front+"/a", 200, "uri-miss", "one")

	write("sites:\n- orgins: []\nlisten: {http: nowhere}\n")
	p.signal(syscall.SIGHUP)
	p.until("every error is told", func() bool {
		log := p.err.String()
		return strings.Contains(log, file+":2:3: unknown key") && strings.Contains(log, file+":3:16: http")
	})
	expect(t, p.front+"/a", 200, "hit", "one")

	if err := os.Rename(access, access+".1"); err != nil {
		t.Fatal(err)
	}
	write(good + "- name: two\n  origins: ['" + other + "']\ncache: {memory: 32MiB}\nlisten: {max_connections: 7}\n")
	p.signal(syscall.SIGHUP)
	p.until("it has reloaded", func() bool { return strings.Contains(p.err.String(), "msg=reloaded sites=2") })
	expect(t, p.front+"/a", 200, "hit", "one") // the cache survives
	expect(t, strings.Replace(p.front, "127.0.0.1", "localhost", 1)+"/b", 200, "uri-miss", "two")
	for _, name := range []string{"cache.memory", "listen.max_connections"} {
		if want := `"this change needs a restart" setting=` + name; !strings.Contains(p.err.String(), want) {
			t.Errorf("no line with %s", want)
		}
	}
	p.until("the access log is opened anew", func() bool {
		now, _ := os.ReadFile(access)
		return bytes.Contains(now, []byte("site=two"))
	})
	p.signal(syscall.SIGTERM)
	if code := p.exit(); code != 0 {
		t.Errorf("exit: got %d, want 0", code)
	}
}

// The reader of the access log may go away; the node goes on and counts.
func TestBrokenStandardOutput(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := launchInto(t, w, "serve", "--http", "127.0.0.1:0", "--https", "off", "--admin", "127.0.0.1:0", "--data", "",
		"--origin", sampleServer(t, func(*http.Request) string { return "still here" }))
	p.addresses()
	w.Close()
	r.Close()
	expect(t, p.front+"/", 200, "uri-miss", "still here")
	p.until("the line is counted as dropped", func() bool {
		_, metrics := get(p.admin + "/metrics")
		return strings.Contains(metrics, "seawall_access_log_dropped_total 1\n")
	})
	expect(t, p.front+"/", 200, "hit", "still here")
}

func TestOneNodeForEachDataFolder(t *testing.T) {
	data := t.TempDir()
	p := serve(t, "--origin", "http://127.0.0.1:1", "--data", data)
	second := launch(t, "serve", "--origin", "http://127.0.0.1:1", "--http", "127.0.0.1:0", "--https", "off", "--admin", "off", "--data", data)
	if code := second.exit(); code != 1 || !strings.Contains(second.err.String(), "--data") {
		t.Errorf("a second node: exit %d, %q; want 1 and a hint with --data", code, second.err)
	}
	p.signal(syscall.SIGTERM)
	if code := p.exit(); code != 0 {
		t.Errorf("the first: exit %d, want 0", code)
	}
	third := serve(t, "--origin", "http://127.0.0.1:1", "--data", data)
	third.signal(syscall.SIGINT)
	if code := third.exit(); code != 0 {
		t.Errorf("after the first has ended: exit %d, want 0", code)
	}
}

func TestPortInUse(t *testing.T) {
	p := serve(t, "--origin", "http://127.0.0.1:1", "--data", "")
	second := launch(t, "serve", "--origin", "http://127.0.0.1:1", "--admin", "off", "--https", "off", "--data", "", "--http", strings.TrimPrefix(p.front, "http://"))
	if code := second.exit(); code != 1 || !strings.Contains(second.err.String(), "--http") || strings.Count(second.err.String(), "\n") != 1 {
		t.Errorf("exit %d, %q; want 1 and one line with --http", code, second.err)
	}
}

func TestDataInMemoryIsSaid(t *testing.T) {
	p := serve(t, "--origin", "http://127.0.0.1:1", "--data", "", "--log-format", "json")
	for _, want := range []string{`"data":"kept in memory only: nothing outlives this run"`, `"memory":"256MiB"`, `"process_limit":`} {
		if !strings.Contains(p.err.String(), want) {
			t.Errorf("the first lines have no %s:\n%s", want, p.err)
		}
	}
}

func TestMalformedRequestsAreCounted(t *testing.T) {
	p := serve(t, "--origin", "http://127.0.0.1:1", "--data", "")
	c, err := net.Dial("tcp", strings.TrimPrefix(p.front, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET / HTTP/1.1\r\nno colon here at all\r\n\r\n")
	answer, _ := io.ReadAll(c)
	if !bytes.HasPrefix(answer, []byte("HTTP/1.1 400 ")) {
		t.Errorf("got %q, want 400", answer)
	}
	p.until("it is counted and logged", func() bool {
		_, metrics := get(p.admin + "/metrics")
		return strings.Contains(metrics, `seawall_faults_total{kind="malformed_request"} 1`) && strings.Contains(p.err.String(), "malformed request")
	})
}

func TestDemo(t *testing.T) {
	p := launch(t, "demo", "--no-functions", "--http", "127.0.0.1:0", "--https", "127.0.0.1:0", "--admin", "127.0.0.1:0")
	p.addresses()
	p.until("the tour is printed", func() bool { return strings.Contains(p.out.String(), "Ctrl-C ends it.") })
	expect(t, p.front+"/page", 200, "uri-miss", "made for the 1. time")
	expect(t, p.front+"/page", 200, "hit", "made for the 1. time")
	for _, want := range []string{"curl -ik --http2 " + p.secure, "curl -ik --http3-only " + p.secure} {
		if p.secure == "" || !strings.Contains(p.out.String(), want) {
			t.Errorf("the tour has no %q:\n%s", want, p.out)
		}
	}
	expect(t, p.front+"/file", 200, "uri-miss", "0123456789abcdef")
	r, _ := http.NewRequestWithContext(context.Background(), "GET", p.front+"/file", nil)
	r.Header.Set("Range", "bytes=100-119")
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if res.StatusCode != 206 || !strings.Contains(res.Header.Get("Cache-Status"), "hit") {
		t.Errorf("range: got %d, %q; want 206 and a hit", res.StatusCode, res.Header.Get("Cache-Status"))
	}
	p.signal(syscall.SIGINT)
	if code := p.exit(); code != 0 {
		t.Errorf("exit: got %d, want 0", code)
	}
}
