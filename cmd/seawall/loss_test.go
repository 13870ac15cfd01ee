package main

import (
	"crypto/sha256"
	"crypto/tls"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"
)

// lossy forwards UDP to addr and loses one packet in a hundred each way, until
// the test ends.
func lossy(t *testing.T, addr string) string {
	t.Helper()
	front, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	behind := map[string]net.Conn{} // by client
	lost := func() bool { return rand.IntN(100) == 0 }
	back := func(c net.Conn, client net.Addr) {
		buffer := make([]byte, 2048)
		for {
			n, err := c.Read(buffer)
			if err != nil {
				return
			}
			if !lost() {
				_, _ = front.WriteTo(buffer[:n], client) // one lost is as good
			}
		}
	}
	go func() {
		buffer := make([]byte, 2048)
		for {
			n, client, err := front.ReadFrom(buffer)
			if err != nil {
				return
			}
			mu.Lock()
			c := behind[client.String()]
			if c == nil {
				if c, err = net.Dial("udp", addr); err != nil {
					mu.Unlock()
					return
				}
				behind[client.String()] = c
				go back(c, client)
			}
			mu.Unlock()
			if !lost() {
				_, _ = c.Write(buffer[:n]) // one lost is as good
			}
		}
	}()
	t.Cleanup(func() {
		front.Close()
		mu.Lock()
		defer mu.Unlock()
		for _, c := range behind {
			c.Close()
		}
	})
	return front.LocalAddr().String()
}

// TestDownloadIsExactOverEveryProtocol fetches one large body over HTTP/1.1,
// HTTP/2 and an HTTP/3 that loses packets.
func TestDownloadIsExactOverEveryProtocol(t *testing.T) {
	size := 8 << 20
	if long() {
		size = 100 << 20
	}
	body := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{3}).Read(body)
	want := sha256.Sum256(body)
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=600")
		w.Header().Set("Content-Length", strconv.Itoa(size))
		_, _ = w.Write(body)
	}))
	defer origin.Close()
	n := startLoaded(t, "--origin", origin.URL, "--https", "127.0.0.1:0", "--memory", "1GiB")

	insecure := &tls.Config{InsecureSkipVerify: true}
	first := &http.Transport{TLSClientConfig: insecure.Clone(), TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{}}
	second := &http.Transport{TLSClientConfig: insecure.Clone(), ForceAttemptHTTP2: true}
	third := &http3.Transport{TLSClientConfig: insecure.Clone()}
	defer third.Close()
	defer first.CloseIdleConnections()
	defer second.CloseIdleConnections()
	for i, c := range []struct {
		proto string
		rt    http.RoundTripper
		url   string
	}{
		{"HTTP/1.1", first, n.tls},
		{"HTTP/2.0", second, n.tls},
		{"HTTP/3.0", third, "https://" + lossy(t, strings.TrimPrefix(n.tls, "https://"))},
	} {
		client := &http.Client{Transport: c.rt, Timeout: 10 * time.Minute}
		req, err := http.NewRequest("GET", c.url+"/large", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "load.example"
		began := time.Now()
		resp, err := client.Do(req)
		if err != nil {
			t.Fatalf("%s: %v", c.proto, err)
		}
		hash := sha256.New()
		got, err := io.Copy(hash, resp.Body)
		resp.Body.Close()
		if err != nil || [32]byte(hash.Sum(nil)) != want || resp.Proto != c.proto {
			t.Errorf("%s: %s, %d bytes of %d, error %v", c.proto, resp.Proto, got, size, err)
		}
		if hit := strings.Contains(resp.Header.Get("Cache-Status"), "; hit"); hit != (i > 0) {
			t.Errorf("%s: Cache-Status %q", c.proto, resp.Header.Get("Cache-Status"))
		}
		if alt := resp.Header.Get("Alt-Svc"); i < 2 && !strings.HasPrefix(alt, `h3=":`) {
			t.Errorf("%s: Alt-Svc %q", c.proto, alt)
		}
		t.Logf("%s: %d MiB in %v", c.proto, got>>20, time.Since(began).Round(time.Millisecond))
	}
}
