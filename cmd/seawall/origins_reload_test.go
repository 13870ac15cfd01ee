package main

import (
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// countedServer is an origin that counts its open connections.
func countedServer(t *testing.T, open *atomic.Int64, secure bool) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		io.WriteString(w, "x")
	}))
	s.Config.Protocols = inClear()
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			open.Add(1)
		case http.StateClosed, http.StateHijacked:
			open.Add(-1)
		}
	}
	if secure {
		s.EnableHTTP2 = true
		s.Config.Protocols = nil
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s
}

// Two hundred reloads under traffic, each with other servers, protocols, routes
// and checks, fail no request, and leave no goroutine and no connection behind.
func TestReloadsOfOriginsLeaveNothing(t *testing.T) {
	var open atomic.Int64
	plain, second, secure := countedServer(t, &open, false), countedServer(t, &open, false), countedServer(t, &open, true)
	ca := t.TempDir() + "/ca.pem"
	writePEM(t, ca, secure)
	texts := []string{
		fmt.Sprintf("origins: [%q, %q], health: {path: /up, interval: 100ms}", plain.URL, second.URL),
		fmt.Sprintf("origins: [{url: %q, protocol: h2c, name: one}, {url: %q, name: two}], balance: {sticky: {cookie: at}}, hedge: {delay: 1ms}", plain.URL, second.URL),
		fmt.Sprintf("origins: [{url: %q, protocol: h2}], origin_tls: {ca: %q, server_name: example.com}, routes: [{prefix: /b, origins: [%q]}]", secure.URL, ca, plain.URL),
		fmt.Sprintf("origins: [%q], routes: [{prefix: /a, origins: [%q, {url: %q, name: spare, backup: true}]}]", strings.Replace(plain.URL, "127.0.0.1", "localhost", 1), second.URL, plain.URL),
	}
	load := func(i int) *settings {
		return configured(t, "sites: [{%s, timeouts: {idle_conn: 1h}, cache: {bypass: true}}]", texts[i%len(texts)])
	}
	n, _, _ := nodeOf(t, load(0))
	goroutines := runtime.NumGoroutine()
	var stop atomic.Bool
	var served atomic.Int64
	var clients sync.WaitGroup
	for i := range 3 {
		clients.Go(func() {
			for !stop.Load() && !t.Failed() {
				method, content := "GET", io.Reader(nil)
				if i == 0 {
					method, content = "POST", strings.NewReader("content")
				}
				r := httptest.NewRequest(method, fmt.Sprintf("http://a.example/%c/%d", 'a'+served.Add(1)%3, i), content)
				w := httptest.NewRecorder()
				n.current.ServeHTTP(w, r)
				if w.Code != 200 || w.Body.String() != "x" {
					t.Errorf("%s %s: got %d %q, want 200 x (%v)", r.Method, r.URL, w.Code, w.Body, w.Header())
				}
			}
		})
	}
	for i := range 200 {
		if err := n.reload(load(i + 1)); err != nil {
			t.Error(err)
		}
		for before := served.Load(); served.Load() < before+4 && !t.Failed(); {
			runtime.Gosched()
		}
	}
	stop.Store(true)
	clients.Wait()
	n.retired.Wait()
	last := n.current.Load().pools["default"]
	// What was closed ends a little later, at both ends.
	until := time.NewTimer(20 * time.Second)
	defer until.Stop()
	for {
		kept := int64(last.Stats().Idle)
		now, most := runtime.NumGoroutine(), goroutines+4*int(kept)+8 // a few for each connection, at both ends
		if open.Load() <= kept && now <= most {
			return
		}
		select {
		case <-until.C:
			t.Fatalf("%d connections, of which the pool keeps %d; %d goroutines, of %d at first, at most %d", open.Load(), kept, now, goroutines, most)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// writePEM writes the certificate of s to a file.
func writePEM(t *testing.T, path string, s *httptest.Server) {
	t.Helper()
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}
