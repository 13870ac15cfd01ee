package main

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"
)

// secureNode starts a node with HTTPS on a free port.
func secureNode(t *testing.T, args ...string) *program {
	t.Helper()
	p := serve(t, append([]string{"--https", "127.0.0.1:0"}, args...)...)
	if p.secure == "" {
		t.Fatalf("the node does not say where it listens for HTTPS:\n%s", p.err)
	}
	return p
}

// eachProtocol runs test with a client of each protocol over TLS. The clients
// trust any certificate.
func eachProtocol(t *testing.T, test func(t *testing.T, proto string, c *http.Client)) {
	trusting := &tls.Config{InsecureSkipVerify: true}
	for _, proto := range []string{"HTTP/1.1", "HTTP/2.0", "HTTP/3.0"} {
		t.Run(strings.ReplaceAll(proto, "/", "-"), func(t *testing.T) {
			var via http.RoundTripper
			if proto == "HTTP/3.0" {
				third := &http3.Transport{TLSClientConfig: trusting.Clone()}
				t.Cleanup(func() { third.Close() })
				via = third
			} else {
				speaks := new(http.Protocols)
				speaks.SetHTTP1(proto == "HTTP/1.1")
				speaks.SetHTTP2(proto == "HTTP/2.0")
				tr := &http.Transport{Protocols: speaks, TLSClientConfig: trusting.Clone()}
				t.Cleanup(tr.CloseIdleConnections)
				via = tr
			}
			test(t, proto, &http.Client{Transport: via, Timeout: 20 * time.Second})
		})
	}
}

// ask returns an answer with its body read.
func ask(t *testing.T, c *http.Client, url string) (*http.Response, string) {
	t.Helper()
	res, err := c.Get(url)
	if err != nil {
		t.Fatalf("%s: %v", url, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s: %v after %q", url, err, body)
	}
	return res, string(body)
}

func TestEveryProtocolMissesThenHits(t *testing.T) {
	var asked atomic.Int64
	from := sampleServer(t, func(r *http.Request) string {
		return fmt.Sprintf("answer %d to %s", asked.Add(1), r.Header.Get("X-Forwarded-Proto"))
	})
	p := secureNode(t, "--origin", from, "--data", "")
	port := p.secure[strings.LastIndex(p.secure, ":")+1:]
	var before int64
	eachProtocol(t, func(t *testing.T, proto string, c *http.Client) {
		url := p.secure + "/by/" + proto
		before = asked.Load()
		want := fmt.Sprintf("answer %d to https", before+1)
		for _, outcome := range []string{"fwd=uri-miss", "hit"} {
			res, body := ask(t, c, url)
			if cs := res.Header.Get("Cache-Status"); res.Proto != proto || res.StatusCode != 200 || !strings.Contains(cs, outcome) || body != want {
				t.Errorf("%s by %s: got %s %d, %q, %q; want 200, %s, %q", url, proto, res.Proto, res.StatusCode, cs, body, outcome, want)
			}
			alt := res.Header.Get("Alt-Svc")
			if led := strings.Contains(alt, `h3=":`+port+`"`); led != (proto != "HTTP/3.0") {
				t.Errorf("%s: Alt-Svc is %q; want it to lead to port %s over TCP alone", proto, alt, port)
			}
		}
		// What one protocol stored, every other is served.
		if res, _ := ask(t, c, p.secure+"/by/HTTP/1.1"); !strings.Contains(res.Header.Get("Cache-Status"), "hit") {
			t.Errorf("%s: stored by HTTP/1.1: got %q, want a hit", proto, res.Header.Get("Cache-Status"))
		}
		label := strings.TrimSuffix(strings.ToLower(proto), ".0")
		p.until("its connection and requests are counted", func() bool {
			_, metrics := get(p.admin + "/metrics")
			return strings.Contains(metrics, `seawall_connections{protocol="`+label+`"} 1`) &&
				strings.Contains(metrics, `seawall_requests_total{outcome="hit",protocol="`+label+`",site="default",status_class="2xx"} 2`)
		})
	})
	if res, _ := get(p.front + "/clear"); res == nil || res.Header.Get("Alt-Svc") != "" {
		t.Errorf("in clear: got %+v, want an answer without Alt-Svc", res)
	}
}

// What the access log says of a miss and a hit, by every protocol and in clear.
func TestAccessLogTellsOfEveryProtocol(t *testing.T) {
	from := sampleServer(t, func(r *http.Request) string { return "twelve bytes" })
	file := filepath.Join(t.TempDir(), "access.log")
	p := secureNode(t, "--origin", from, "--data", "", "--access-log", file, "--log-format", "json")
	lines := 0
	check := func(t *testing.T, url, proto, version string) {
		lines += 2
		var log []byte
		p.until("both lines are there", func() bool {
			log, _ = os.ReadFile(file)
			return bytes.Count(log, []byte{'\n'}) == lines
		})
		for i, line := range bytes.Split(log, []byte{'\n'})[lines-2 : lines] {
			outcome, origin := "miss", strings.TrimPrefix(from, "http://")
			if i == 1 {
				outcome, origin = "hit", ""
			}
			want := map[string]any{
				"site": "default", "client": "127.0.0.1", "method": "GET", "url": url, "protocol": proto, "status": 200.0,
				"bytes": 12.0, "outcome": outcome, "user_agent": "log/1",
			}
			for name, value := range map[string]string{"tls": version, "origin": origin} {
				if value != "" {
					want[name] = value
				}
			}
			var got map[string]any
			if err := json.Unmarshal(line, &got); err != nil {
				t.Fatalf("%v: %s", err, line)
			}
			for _, name := range []string{"time", "id", "duration", "first_byte"} {
				if got[name] == nil {
					t.Errorf("no %s: %s", name, line)
				}
				delete(got, name)
			}
			if delete(got, "origin_duration"); !maps.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		}
	}
	twice := func(t *testing.T, c *http.Client, url string) {
		for range 2 {
			req, _ := http.NewRequest(http.MethodGet, url, nil)
			req.Header.Set("User-Agent", "log/1")
			res, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
		}
	}
	eachProtocol(t, func(t *testing.T, proto string, c *http.Client) {
		url := p.secure + "/by/" + proto
		twice(t, c, url)
		check(t, url, proto, "1.3")
	})
	twice(t, http.DefaultClient, p.front+"/clear")
	check(t, p.front+"/clear", "HTTP/1.1", "")
}

func TestTermDrainsEveryProtocol(t *testing.T) {
	eachProtocol(t, func(t *testing.T, proto string, c *http.Client) {
		from, asked, answer := held(t)
		p := secureNode(t, "--origin", from, "--data", "")
		type result struct {
			proto, body string
			err         error
		}
		got := make(chan result, 1)
		go func() {
			res, err := c.Get(p.secure + "/slow")
			if err != nil {
				got <- result{err: err}
				return
			}
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			got <- result{res.Proto, string(body), err}
		}()
		<-asked
		p.signal(syscall.SIGTERM)
		p.until("new connections are refused", func() bool {
			c, err := net.Dial("tcp", strings.TrimPrefix(p.secure, "https://"))
			if err == nil {
				c.Close()
			}
			return err != nil
		})
		if res, _ := get(p.admin + "/readyz"); res == nil || res.StatusCode != 503 {
			t.Errorf("readyz: got %+v, want 503", res)
		}
		close(answer)
		if r := <-got; r.err != nil || r.body != "at last" || r.proto != proto {
			t.Errorf("in flight: got %+v, want the whole answer by %s", r, proto)
		}
		if code := p.exit(); code != 0 || strings.Contains(p.err.String(), "in part") {
			t.Errorf("exit: got %d, want 0 and nothing cut", code)
		}
	})
}

// writePair makes a certificate for a name and writes it and its key.
func writePair(t *testing.T, dir, name string) (cert, key string) {
	t.Helper()
	text, err := makeOwn([]string{name}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for _, path := range []string{cert, key} { // each has both; each is read for its own
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// shown is the fingerprint of the certificate that a new connection is shown.
func shown(t *testing.T, p *program, server string) (sha256 string, names []string) {
	t.Helper()
	c, err := tls.Dial("tcp", strings.TrimPrefix(p.secure, "https://"), &tls.Config{InsecureSkipVerify: true, ServerName: server})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	leaf := c.ConnectionState().PeerCertificates[0]
	return fingerprint(leaf), issuedFor(leaf)
}

func TestHangupSwapsCertificates(t *testing.T) {
	dir := t.TempDir()
	cert, key := writePair(t, dir, "one.example")
	from := sampleServer(t, func(*http.Request) string { return "kept" })
	p := secureNode(t, "--origin", from, "--data", "", "--cert", cert, "--key", key)
	first, names := shown(t, p, "")
	if len(names) != 1 || names[0] != "one.example" || !strings.Contains(p.err.String(), first) {
		t.Fatalf("shown: got %v, %s; want one.example, and the fingerprint in the log", names, first)
	}
	expect(t, p.front+"/a", 200, "uri-miss", "kept")

	writePair(t, dir, "two.example")
	p.signal(syscall.SIGHUP)
	p.until("the new one is shown", func() bool {
		_, names := shown(t, p, "")
		return names[0] == "two.example"
	})
	p.until("it is in the log", func() bool { return strings.Contains(p.err.String(), "names=two.example") })
	second, _ := shown(t, p, "")
	third := &http3.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer third.Close()
	res, _ := ask(t, &http.Client{Transport: third}, p.secure+"/a")
	if got := fingerprint(res.TLS.PeerCertificates[0]); got != second {
		t.Errorf("over HTTP/3: got %s, want the new one, %s", got, second)
	}

	other, err := makeOwn([]string{"three.example"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for i, bad := range [][]byte{other, []byte("no PEM at all")} { // a key of another certificate; none
		if err := os.WriteFile(key, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		p.signal(syscall.SIGHUP)
		p.until("it says why not", func() bool {
			return strings.Count(p.err.String(), "not reloaded") == i+1 && strings.Contains(p.err.String(), cert+" with "+key)
		})
		if got, names := shown(t, p, ""); got != second {
			t.Errorf("after a bad pair: shown %v, want two.example still", names)
		}
	}
	expect(t, p.front+"/a", 200, "hit", "kept")
}

func TestSelfSignedSurvivesRestarts(t *testing.T) {
	data := t.TempDir()
	end := func(p *program) {
		p.signal(syscall.SIGTERM)
		if code := p.exit(); code != 0 {
			t.Errorf("exit: got %d, want 0", code)
		}
	}
	p := secureNode(t, "--origin", "http://127.0.0.1:1", "--data", data)
	first, names := shown(t, p, "")
	for _, want := range []string{"127.0.0.1", "::1", "localhost"} {
		if !strings.Contains(" "+strings.Join(names, " ")+" ", " "+want+" ") {
			t.Errorf("issued for %v, want %s among them", names, want)
		}
	}
	if said := regexp.MustCompile(`self-signed .*sha256=(\S+)`).FindStringSubmatch(p.err.String()); said == nil || said[1] != first {
		t.Errorf("the log says %v, want the fingerprint %s", said, first)
	}
	if info, err := os.Stat(filepath.Join(data, ownFile)); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("its file: got %v, %v; want mode 0600", info, err)
	}
	end(p)
	p = secureNode(t, "--origin", "http://127.0.0.1:1", "--data", data)
	if again, _ := shown(t, p, "any.example"); again != first {
		t.Errorf("after a restart: got %s, want %s", again, first)
	}
	end(p)

	// Another host in the configuration makes it anew, at a start or a reload.
	file := filepath.Join(t.TempDir(), "seawall.yaml")
	write := func(hosts string) {
		text := "sites: [{hosts: [" + hosts + "], origins: ['http://127.0.0.1:1']}]\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("shop.example, '*.shop.example'")
	p = secureNode(t, "--config", file, "--data", data)
	second, names := shown(t, p, "")
	if second == first || !strings.Contains(strings.Join(names, " "), "shop.example") || strings.Contains(strings.Join(names, " "), "*") {
		t.Errorf("with a host: issued for %v, want shop.example and no wildcard", names)
	}
	write("shop.example, new_one.example")
	p.signal(syscall.SIGHUP)
	p.until("it is for the new host too", func() bool {
		_, names := shown(t, p, "")
		return strings.Contains(strings.Join(names, " "), "new_one.example")
	})
	end(p)
}

func TestSecurePortInUse(t *testing.T) {
	for _, network := range []string{"tcp", "udp"} {
		t.Run(network, func(t *testing.T) {
			var addr string
			if network == "tcp" {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				addr = l.Addr().String()
			} else {
				l, err := net.ListenPacket("udp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				addr = l.LocalAddr().String()
			}
			p := launch(t, "serve", "--origin", "http://127.0.0.1:1", "--http", "127.0.0.1:0", "--admin", "off", "--data", "", "--https", addr)
			if code := p.exit(); code != 1 || !strings.Contains(p.err.String(), "--https") || strings.Count(p.err.String(), "\n") != 1 {
				t.Errorf("exit %d, %q; want 1 and one line with --https", code, p.err)
			}
		})
	}
}

// A handshake that fails is counted, and harms no other.
func TestFailedHandshakesAreCounted(t *testing.T) {
	p := secureNode(t, "--origin", sampleServer(t, func(*http.Request) string { return "x" }), "--data", "")
	_, err := tls.Dial("tcp", strings.TrimPrefix(p.secure, "https://"), &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})
	if err == nil {
		t.Fatal("TLS 1.1 was spoken")
	}
	p.until("it is counted", func() bool {
		_, metrics := get(p.admin + "/metrics")
		return strings.Contains(metrics, `seawall_faults_total{kind="tls_handshake"} 1`)
	})
	eachProtocol(t, func(t *testing.T, _ string, c *http.Client) {
		if res, body := ask(t, c, p.secure+"/"); res.StatusCode != 200 || body != "x" {
			t.Errorf("got %d %q, want 200 x", res.StatusCode, body)
		}
	})
}

// What the configuration says of TLS holds at the socket; what needs a restart
// is said.
func TestConfiguredTLSTakesEffect(t *testing.T) {
	one, two := t.TempDir(), t.TempDir()
	file := filepath.Join(t.TempDir(), "seawall.yaml")
	write := func(least, most string) {
		text := "listen: {max_connections_per_client: " + most + "}\ntls:\n  min_version: " + least + "\n  certificates:\n"
		for dir, name := range map[string]string{one: "one.example", two: "two.example"} {
			cert, key := writePair(t, dir, name)
			text += "  - {cert: '" + cert + "', key: '" + key + "'}\n"
		}
		if err := os.WriteFile(file, []byte(text+"sites: [{origins: ['http://127.0.0.1:1']}]\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("1.3", "2")
	p := secureNode(t, "--config", file, "--data", "")
	for _, name := range []string{"one.example", "two.example"} {
		if _, names := shown(t, p, name); names[0] != name {
			t.Errorf("%s: shown the certificate of %v", name, names)
		}
	}
	addr := strings.TrimPrefix(p.secure, "https://")
	old := &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}
	if c, err := tls.Dial("tcp", addr, old); err == nil {
		c.Close()
		t.Error("TLS 1.2 was spoken, below min_version")
	}
	none := func() bool {
		_, figures := get(p.admin + "/metrics")
		return strings.Contains(figures, `seawall_connections{protocol="http/1.1"} 0`)
	}
	p.until("those connections are gone", none)
	anyone := &tls.Config{InsecureSkipVerify: true}
	for i := range 3 {
		c, err := tls.Dial("tcp", addr, anyone)
		if err == nil {
			defer c.Close()
		}
		if want := i < 2; (err == nil) != want {
			t.Errorf("connection %d of one client: got %v, want it accepted: %v", i+1, err, want)
		}
	}
	write("1.2", "off")
	p.signal(syscall.SIGHUP)
	p.until("it has reloaded", func() bool { return strings.Contains(p.err.String(), "msg=reloaded") })
	for _, name := range []string{"listen.max_connections_per_client", "tls.min_version"} {
		if want := `"this change needs a restart" setting=` + name; !strings.Contains(p.err.String(), want) {
			t.Errorf("no line with %s", want)
		}
	}
}
