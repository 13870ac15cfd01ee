package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// These tests load the real binary from outside, for what it takes of memory
// counts too. A slice of each always runs; SEAWALL_LONG=1 runs them whole.

func long() bool { return os.Getenv("SEAWALL_LONG") != "" }

// built is the path of the binary, built without the race detector, which
// would take a multiple of the memory.
var built = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "seawall-load")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "seawall")
	out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %v\n%s", err, out)
	}
	return path, nil
})

// loadedNode is a node in a process of its own.
type loadedNode struct {
	url, tls, admin string
	pid             int
}

var listening = regexp.MustCompile(`(listening|admin) on (https?://[0-9.:]+)`)

// startLoaded runs `seawall serve` until the test ends.
func startLoaded(t *testing.T, args ...string) *loadedNode {
	t.Helper()
	return startLoadedBy(t, (*exec.Cmd).Start, args...)
}

// startLoadedBy is startLoaded with another way to start a process.
func startLoadedBy(t *testing.T, start func(*exec.Cmd) error, args ...string) *loadedNode {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc")
	}
	path, err := built()
	if err != nil {
		t.Fatal(err)
	}
	args = append([]string{"serve", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--https", "off", "--data", "", "--access-log", "off"}, args...)
	cmd := exec.Command(path, args...)
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = cmd.Stderr
	if err := start(cmd); err != nil {
		t.Fatal(err)
	}
	n := &loadedNode{pid: cmd.Process.Pid}
	lines := bufio.NewScanner(out)
	var said strings.Builder
	for (n.url == "" || n.admin == "") && lines.Scan() {
		said.WriteString(lines.Text() + "\n")
		if m := listening.FindStringSubmatch(lines.Text()); m != nil && m[1] == "admin" {
			n.admin = m[2]
		} else if m != nil && strings.HasPrefix(m[2], "https") {
			n.tls = m[2]
		} else if m != nil {
			n.url = m[2]
		}
	}
	if n.url == "" || n.admin == "" {
		t.Fatalf("the node did not start:\n%s", said.String())
	}
	go io.Copy(io.Discard, out)
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the node ended with %v", err)
		}
	})
	return n
}

// memory returns a figure of /proc/PID/status in bytes: VmHWM or VmRSS.
func (n *loadedNode) memory(t *testing.T, field string) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			kib, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kib << 10
		}
	}
	t.Fatalf("no %s in /proc/%d/status", field, n.pid)
	return 0
}

// metric returns the sum of a metric's samples.
func (n *loadedNode) metric(t *testing.T, name string) float64 {
	t.Helper()
	resp, err := http.Get(n.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	sum, seen := 0.0, false
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), name)
		if !ok || !strings.HasPrefix(rest, " ") && !strings.HasPrefix(rest, "{") {
			continue
		}
		v, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
		if err != nil {
			t.Fatal(err)
		}
		sum, seen = sum+v, true
	}
	if !seen {
		t.Fatalf("no metric %s", name)
	}
	return sum
}

// download asks for path on a connection of its own, calls first when content
// begins, and returns the digest and length of the content. rate, if not 0,
// is how many bytes a second it takes.
func (n *loadedNode) download(path, header string, first func(), rate int) (sum [32]byte, size int64, err error) {
	conn, err := net.Dial("tcp", strings.TrimPrefix(n.url, "http://"))
	if err != nil {
		return sum, 0, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Minute))
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: load.example\r\nConnection: close\r\n%s\r\n", path, header); err != nil {
		return sum, 0, err
	}
	in := bufio.NewReaderSize(conn, 16<<10)
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		return sum, 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return sum, 0, fmt.Errorf("status %d", resp.StatusCode)
	}
	hash := sha256.New()
	buffer := make([]byte, 8<<10)
	began := time.Now()
	for {
		got, err := resp.Body.Read(buffer)
		if got > 0 && size == 0 && first != nil {
			first()
		}
		size += int64(got)
		hash.Write(buffer[:got])
		if err == io.EOF {
			return [32]byte(hash.Sum(nil)), size, nil
		}
		if err != nil {
			return sum, size, err
		}
		if rate > 0 {
			<-time.After(time.Until(began.Add(time.Duration(size) * time.Second / time.Duration(rate))))
		}
	}
}

// slowlySentBody answers with body: its first half at once, the second when
// everybody has seen something of the first.
func slowlySentBody(body []byte, requests *atomic.Int64, everybody <-chan struct{}) *httptest.Server {
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		w.Header().Set("Cache-Control", "max-age=600")
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write(body[:len(body)/2])
		w.(http.Flusher).Flush()
		select {
		case <-everybody:
		case <-r.Context().Done():
		}
		_, _ = w.Write(body[len(body)/2:])
	}))
}

func TestManyClientsOfOneColdURLShareOneFetch(t *testing.T) {
	clients, size := 100, 4<<20
	if long() {
		clients, size = 1000, 16<<20
	}
	body := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(body)
	want := sha256.Sum256(body)

	var requests, begun atomic.Int64
	everybody := make(chan struct{})
	origin := slowlySentBody(body, &requests, everybody)
	defer origin.Close()
	n := startLoaded(t, "--origin", origin.URL, "--memory", "256MiB")
	idle := n.memory(t, "VmRSS")

	var wait sync.WaitGroup
	for range clients {
		wait.Go(func() {
			sum, got, err := n.download("/cold", "", func() {
				if begun.Add(1) == int64(clients) {
					close(everybody)
				}
			}, 0)
			if err != nil || sum != want {
				t.Errorf("a client got %d bytes of %d, right %v, error %v", got, size, sum == want, err)
			}
		})
	}
	wait.Wait()
	if got := requests.Load(); got != 1 {
		t.Errorf("%d clients caused %d requests to the origin, want 1", clients, got)
	}
	peak := n.memory(t, "VmHWM")
	t.Logf("%d clients of %d MiB: idle %d MiB, peak %d MiB", clients, size>>20, idle>>20, peak>>20)
	if limit := int64(size) + 64<<20; peak > limit {
		t.Errorf("peak %d MiB, want at most the body and 64 MiB: %d MiB", peak>>20, limit>>20)
	}
}

func TestFollowersThatLearnOfVaryCollapseForEachVariant(t *testing.T) {
	clients := 200
	if long() {
		clients = 1000
	}
	languages := []string{"de", "en", "fr", "it"}
	var requests atomic.Int64
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		w.Header().Set("Cache-Control", "max-age=600")
		w.Header().Set("Vary", "Accept-Language")
		<-time.After(100 * time.Millisecond) // as a dynamic page would take
		_, _ = io.WriteString(w, "in "+r.Header.Get("Accept-Language"))
	}))
	defer origin.Close()
	n := startLoaded(t, "--origin", origin.URL)
	var wait sync.WaitGroup
	for i := range clients {
		wait.Go(func() {
			language := languages[i%len(languages)]
			sum, _, err := n.download("/page", "Accept-Language: "+language+"\r\n", nil, 0)
			if err != nil || sum != sha256.Sum256([]byte("in "+language)) {
				t.Errorf("a client of %s got another page, error %v", language, err)
			}
		})
	}
	wait.Wait()
	if got := requests.Load(); got > int64(len(languages)+1) {
		t.Errorf("%d clients in %d languages caused %d requests to the origin, want at most %d", clients, len(languages), got, len(languages)+1)
	}
}

// TestDownloadOverMaxObjectKeepsAWindow is for what is never stored: it must
// stream to fast and slow clients at once, in a bounded window. The long run
// has a client that stops reading, too.
func TestDownloadOverMaxObjectKeepsAWindow(t *testing.T) {
	size := int64(128 << 20)
	if long() {
		size = 4 << 30
	}
	block := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{2}).Read(block)
	hash := sha256.New()
	for range size >> 20 {
		hash.Write(block)
	}
	want := [32]byte(hash.Sum(nil))
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=600")
		w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
		for range size >> 20 {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	}))
	defer origin.Close()
	n := startLoaded(t, "--origin", origin.URL, "--memory", "128MiB")
	idle := n.memory(t, "VmRSS")

	var wait sync.WaitGroup
	for i := range 6 {
		wait.Go(func() {
			rate := 0
			if i%2 == 1 {
				rate = int(size / 3) // three seconds, a minute in the long run
				if long() {
					rate = int(size / 60)
				}
			}
			sum, got, err := n.download("/large", "", nil, rate)
			if err != nil || sum != want {
				t.Errorf("client %d got %d bytes of %d, right %v, error %v", i, got, size, sum == want, err)
			}
		})
	}
	if long() {
		wait.Go(func() { stall(t, n) })
	}
	wait.Wait()
	peak := n.memory(t, "VmHWM")
	t.Logf("%d MiB to 6 clients: idle %d MiB, peak %d MiB", size>>20, idle>>20, peak>>20)
	if peak > idle+64<<20 {
		t.Errorf("peak %d MiB, want at most 64 MiB above idle, %d MiB", peak>>20, idle>>20)
	}
}

// stall asks and never reads, until the node cuts the connection.
func stall(t *testing.T, n *loadedNode) {
	conn, err := net.Dial("tcp", strings.TrimPrefix(n.url, "http://"))
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	_ = conn.(*net.TCPConn).SetReadBuffer(4 << 10)
	fmt.Fprint(conn, "GET /large HTTP/1.1\r\nHost: load.example\r\n\r\n")
	deadline := time.Now().Add(2 * time.Minute)
	for n.metric(t, "seawall_store_stalled_total") == 0 {
		if time.Now().After(deadline) {
			t.Error("a reader that took nothing was not cut within two minutes")
			return
		}
		<-time.After(time.Second)
	}
}

func TestChurnStaysWithinTheMemoryBudget(t *testing.T) {
	const budget = 64 << 20
	total := int64(512 << 20)
	if long() {
		total = 4 << 30
	}
	block := make([]byte, 512<<10)
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		size, _ := strconv.Atoi(r.URL.Query().Get("size"))
		w.Header().Set("Cache-Control", "max-age=600")
		w.Header().Set("Content-Length", strconv.Itoa(size))
		_, _ = w.Write(block[:size])
	}))
	defer origin.Close()
	n := startLoaded(t, "--origin", origin.URL, "--memory", "64MiB")
	var sent, id atomic.Int64
	var wait sync.WaitGroup
	for worker := range 8 {
		wait.Go(func() {
			sizes := rand.New(rand.NewPCG(uint64(worker), 7))
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for sent.Load() < total {
				size := 1<<10 + sizes.IntN(511<<10)
				got, err := fetch(client, fmt.Sprintf("%s/object/%d?size=%d", n.url, id.Add(1), size))
				if err != nil || got != int64(size) {
					t.Errorf("got %d bytes of %d, error %v", got, size, err)
					return
				}
				sent.Add(got)
			}
		})
	}
	wait.Wait()
	live := n.metric(t, "seawall_store_bytes")
	peak := n.memory(t, "VmHWM")
	t.Logf("%d objects, %d MiB: live %.1f MiB of 64, peak %d MiB", id.Load(), sent.Load()>>20, live/(1<<20), peak>>20)
	if peak > budget+96<<20 {
		t.Errorf("peak %d MiB, want at most %d MiB", peak>>20, (budget+96<<20)>>20)
	}
	if live < 0.9*budget || live > budget {
		t.Errorf("live %.1f MiB, want 90 to 100 %% of %d MiB", live/(1<<20), budget>>20)
	}
}

func fetch(client *http.Client, url string) (int64, error) {
	resp, err := client.Get(url)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	return io.Copy(io.Discard, resp.Body)
}

// TestInFrontOfNginx serves a real web server's files.
func TestInFrontOfNginx(t *testing.T) {
	files := map[string]string{"www/a.txt": "hello\n", "www/checked/b.txt": "checked\n"}
	origin := startNginx(t, files, `location / { add_header Cache-Control "max-age=1, stale-while-revalidate=60"; }
location /checked/ { add_header Cache-Control "no-cache"; }`, "/a.txt")
	n := startLoaded(t, "--origin", origin)

	expect := func(path, want string) {
		t.Helper()
		resp, err := http.Get(n.url + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		if got := resp.Header.Get("Cache-Status"); !regexp.MustCompile("^"+want+"$").MatchString(got) || resp.StatusCode != 200 {
			t.Errorf("GET %s: %d, Cache-Status %q, want %q", path, resp.StatusCode, got, want)
		}
		if name := filepath.Join("www", path); string(body) != files[name] {
			t.Errorf("GET %s: %q, want %q", path, body, files[name])
		}
	}
	expect("/a.txt", "seawall; fwd=uri-miss; stored")
	expect("/a.txt", `seawall; hit; ttl=-?\d+`)
	expect("/checked/b.txt", "seawall; fwd=uri-miss; stored")
	expect("/checked/b.txt", "seawall; fwd=stale; fwd-status=304")
	stale := false
	for deadline := time.Now().Add(10 * time.Second); !stale && time.Now().Before(deadline); <-time.After(50 * time.Millisecond) {
		resp, err := http.Get(n.url + "/a.txt")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		stale = strings.Contains(resp.Header.Get("Cache-Status"), "hit; ttl=-")
	}
	if !stale {
		t.Error("no stale answer in ten seconds, though max-age is 1")
	}
}

// startNginx runs the web server until the test ends, with these files and this
// part of a server's configuration, and returns its URL once it has the path.
func startNginx(t *testing.T, files map[string]string, locations, path string) string {
	t.Helper()
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		t.Skip("nginx is not installed")
	}
	dir := t.TempDir()
	port := freePort(t)
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;" // else its worker could not read the files
	}
	conf := fmt.Sprintf(`%[3]s worker_processes 1; pid %[1]s/pid; error_log %[1]s/error.log; daemon off;
events { worker_connections 64; }
http { access_log %[1]s/access.log combined;
types { text/html html; text/css css; text/javascript js; application/json json; image/svg+xml svg; application/wasm wasm; }
client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;
server { listen 127.0.0.1:%[2]d; root %[1]s/www; %[4]s } }
`, dir, port, user, locations)
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "nginx.conf"), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var said bytes.Buffer
	server := exec.CommandContext(ctx, nginx, "-c", filepath.Join(dir, "nginx.conf"))
	server.Stderr = &said
	server.Cancel = func() error { return server.Process.Signal(syscall.SIGTERM) }
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); _ = server.Wait() }) // it ends by the signal
	origin := fmt.Sprintf("http://127.0.0.1:%d", port)
	awaitAnswer(t, origin+path, &said)
	return origin
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func awaitAnswer(t *testing.T, url string, said fmt.Stringer) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; <-time.After(20 * time.Millisecond) {
		resp, err := http.Get(url)
		if err == nil {
			resp.Body.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not answer: %v\n%s", url, err, said)
		}
	}
}
