package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// killed is what a load of GETs and POSTs through a node came to, of whose
// servers one after the other was killed and started again. Each POST carries
// what it is called.
type killed struct {
	mu       sync.Mutex // guards the rest
	gets     int
	posts    int
	failures []string          // of GETs
	lost     map[string]moment // POSTs that failed: from when to when they took
	whys     map[string]string // and how
	kills    []moment          // from when to when a server was killed
	seen     map[string]int    // POSTs that came to a server whole, how often
}

type moment struct{ from, to time.Time }

func (a moment) overlaps(b moment) bool { return !a.from.After(b.to) && !b.from.After(a.to) }

// mortal is an origin over TCP that can be killed and started again.
type mortal struct {
	of    *killed
	addr  string
	mu    sync.Mutex // guards the rest
	srv   *http.Server
	conns map[net.Conn]bool
	ended chan struct{}
}

func newMortal(t *testing.T, of *killed) *mortal {
	m := &mortal{of: of, addr: "127.0.0.1:0"}
	m.start(t)
	if m.srv == nil {
		t.FailNow()
	}
	t.Cleanup(m.kill)
	return m
}

func (m *mortal) start(t *testing.T) {
	l, err := net.Listen("tcp", m.addr)
	if err != nil {
		t.Logf("a server stays dead: %v", err) // another program may have the port now
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.addr, m.conns, m.ended = l.Addr().String(), make(map[net.Conn]bool), make(chan struct{})
	m.srv = &http.Server{Handler: m, ErrorLog: log.New(io.Discard, "", 0), ConnState: func(c net.Conn, s http.ConnState) {
		m.mu.Lock()
		defer m.mu.Unlock()
		switch s {
		case http.StateNew:
			m.conns[c] = true
		case http.StateClosed:
			delete(m.conns, c)
		}
	}}
	srv, ended := m.srv, m.ended
	go func() { defer close(ended); _ = srv.Serve(l) }()
}

// kill resets all connections, in the middle of what they carry.
func (m *mortal) kill() {
	m.mu.Lock()
	srv, ended := m.srv, m.ended
	m.srv = nil
	for c := range m.conns {
		_ = c.(*net.TCPConn).SetLinger(0)
	}
	m.mu.Unlock()
	if srv == nil {
		return
	}
	from := time.Now()
	srv.Close()
	<-ended
	m.of.mu.Lock()
	defer m.of.mu.Unlock()
	m.of.kills = append(m.of.kills, moment{from, time.Now()})
}

// ServeHTTP answers a GET in two parts, and notes a POST.
func (m *mortal) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	if r.Method == http.MethodPost && err == nil {
		m.of.mu.Lock()
		m.of.seen[string(b)]++
		m.of.mu.Unlock()
	}
	var n, size int
	fmt.Sscanf(r.URL.Path, "/%d/%d", &n, &size)
	text := strings.Repeat("x", size)
	w.Header().Set("Content-Length", fmt.Sprint(size))
	io.WriteString(w, text[:size/2])
	_ = http.NewResponseController(w).Flush()
	wait := time.NewTimer(time.Duration(n%10) * time.Millisecond)
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-r.Context().Done():
	}
	io.WriteString(w, text[size/2:])
}

// ask sends request n through the node.
func (k *killed) ask(c *http.Client, front string, n int, post bool) {
	size := []int{100, 5 << 10, 64 << 10}[n/4%3]
	r, id := request("GET", fmt.Sprintf("%s/%d/%d", front, n, size)), ""
	if post {
		id = fmt.Sprint("post ", n)
		r = request("POST", fmt.Sprintf("%s/%d/2", front, n))
		size, r.Body, r.ContentLength = 2, io.NopCloser(strings.NewReader(id)), int64(len(id))
	}
	from, why := time.Now(), ""
	res, err := c.Do(r)
	if err != nil {
		why = err.Error()
	} else {
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != 200 || len(b) != size {
			why = fmt.Sprintf("%d, %d bytes of %d, %v, %s", res.StatusCode, len(b), size, err, res.Header.Get("Proxy-Status"))
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case post:
		if k.posts++; why != "" {
			k.lost[id], k.whys[id] = moment{from, time.Now()}, why
		}
	default:
		if k.gets++; why != "" {
			k.failures = append(k.failures, r.URL.Path+": "+why)
		}
	}
}

// No GET fails while one of three servers after the other is killed and started
// again, and of the POSTs only those fail that a killed server may have had; none
// comes twice. A slice of it always runs, paced by what is answered;
// SEAWALL_LONG=1 makes it 2,000 requests a second for two minutes, with a kill
// every ten seconds, of GETs alone and then with POSTs.
func TestOriginsAreKilledUnderLoad(t *testing.T) {
	for _, posts := range []bool{false, true} {
		t.Run(map[bool]string{false: "GETs", true: "GETs and POSTs"}[posts], func(t *testing.T) {
			k := &killed{lost: make(map[string]moment), whys: make(map[string]string), seen: make(map[string]int)}
			servers := []*mortal{newMortal(t, k), newMortal(t, k), newMortal(t, k)}
			n, front, _ := nodeOf(t, configured(t, "sites: [{origins: ['http://%s', 'http://%s', 'http://%s'], cache: {bypass: true}}]",
				servers[0].addr, servers[1].addr, servers[2].addr))
			k.load(t, front, servers, posts)
			k.check(t)
			st := n.origins()["default"]
			t.Logf("%d GETs, %d POSTs of which %d were lost with a killed server; %d kills, %d retries", k.gets, k.posts, len(k.lost), len(k.kills), st.Retries)
		})
	}
}

func (k *killed) load(t *testing.T, front string, servers []*mortal, posts bool) {
	all, every := 1800, 300 // requests, and from one kill to the next
	var pace <-chan time.Time
	if long() {
		const rate, seconds = 2000, 120
		all, every = rate*seconds, rate*10
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		pace = tick.C
	}
	tr := &http.Transport{MaxIdleConnsPerHost: 1024}
	defer tr.CloseIdleConnections()
	c := &http.Client{Transport: tr, Timeout: time.Minute}
	var clients, killers sync.WaitGroup
	most := make(chan struct{}, map[bool]int{false: 16, true: 4096}[long()])
	for i := range all {
		if pace != nil && i%20 == 0 {
			<-pace
		}
		most <- struct{}{}
		clients.Go(func() {
			defer func() { <-most }()
			k.ask(c, front, i, posts && i%4 == 0)
		})
		m := servers[i/every%3]
		switch i % every {
		case every / 2:
			killers.Go(m.kill)
		case every - 1:
			killers.Wait()
			m.start(t)
		}
	}
	clients.Wait()
	killers.Wait()
}

func (k *killed) check(t *testing.T) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.failures) > 0 {
		t.Errorf("%d of %d GETs failed, the first: %s", len(k.failures), k.gets, k.failures[0])
	}
	for id, n := range k.seen {
		if n > 1 {
			t.Errorf("%s came %d times", id, n)
		}
	}
	for id, took := range k.lost {
		during := false
		for _, one := range k.kills {
			during = during || took.overlaps(one)
		}
		if !during {
			t.Errorf("%s failed, and no server was killed meanwhile: %s", id, k.whys[id])
		}
	}
	if len(k.kills) < 5 {
		t.Errorf("only %d kills", len(k.kills))
	}
}
