package origin

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// fleet is several servers over net.Pipe, each of which fails as it is told.
type fleet struct {
	mu    sync.Mutex // guards the rest
	hosts map[string]*host
	wg    sync.WaitGroup
}

// host is one of them.
type host struct {
	refuse bool                          // connections are refused
	raw    bool                          // connections are read and never answered
	slow   time.Duration                 // before a connection is made; a day means never
	reply  func(req *http.Request) reply // called under the lock
	conns  map[net.Conn]bool
	dials  int
	asked  []time.Time
	bodies []string // of requests with content
}

// reply is what a host does with a request.
type reply struct {
	after time.Duration
	raw   string // sent as it is; "" for hello with the host's name
	gap   time.Duration
	rest  string      // sent after gap
	close bool        // then the connection is closed
	stall bool        // then nothing is sent any more
	done  func()      // called when all is sent
	work  func() bool // done first; false: 503 is the answer
}

// newFleet returns hosts with the names, all well.
func newFleet(names ...string) *fleet {
	f := &fleet{hosts: make(map[string]*host)}
	for _, name := range names {
		f.hosts[name] = &host{conns: make(map[net.Conn]bool)}
	}
	return f
}

// pool returns a pool over all hosts named, and a function that ends both.
func (f *fleet) pool(t testing.TB, cfg Config, names ...string) (*Pool, func()) {
	t.Helper()
	if cfg.Servers == nil && cfg.Backends == nil {
		for _, name := range names {
			cfg.Backends = append(cfg.Backends, Backend{URL: "http://" + name, Name: name})
		}
	}
	cfg.Dial = f.dial
	p := mustNew(t, cfg)
	return p, func() { p.Close(); f.stop() }
}

// set changes a host under the lock.
func (f *fleet) set(name string, change func(*host)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f.hosts[name])
}

// kill closes a host's connections and refuses new ones.
func (f *fleet) kill(name string) {
	f.set(name, func(h *host) {
		h.refuse = true
		for c := range h.conns {
			c.Close()
		}
	})
}

func (f *fleet) stop() {
	for name := range f.hosts {
		f.kill(name)
	}
	f.wg.Wait()
}

// asked returns how many requests a host has had.
func (f *fleet) asked(name string) (n int) {
	f.set(name, func(h *host) { n = len(h.asked) })
	return n
}

func (f *fleet) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	name, _, _ := strings.Cut(addr, ":")
	f.mu.Lock()
	h := f.hosts[name]
	if h == nil {
		f.mu.Unlock()
		return nil, &net.DNSError{Name: name, IsNotFound: true}
	}
	h.dials++
	slow := h.slow
	f.mu.Unlock()
	if slow > 0 {
		t := time.NewTimer(slow)
		defer t.Stop()
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-t.C:
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if h.refuse {
		return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	}
	client, server := net.Pipe()
	h.conns[server] = true
	f.wg.Go(func() {
		f.serve(name, h, &peer{server, bufio.NewReader(server)})
		server.Close()
		f.mu.Lock()
		delete(h.conns, server)
		f.mu.Unlock()
	})
	return client, nil
}

func (f *fleet) serve(name string, h *host, p *peer) {
	for {
		f.mu.Lock()
		raw := h.raw
		f.mu.Unlock()
		if raw {
			p.drain()
			return
		}
		req, body, ok := p.request()
		if !ok {
			return
		}
		f.mu.Lock()
		h.asked = append(h.asked, time.Now())
		if body != "" {
			h.bodies = append(h.bodies, body)
		}
		answer := h.reply
		req.Body = io.NopCloser(strings.NewReader(body)) // again, for the reply
		var r reply
		if answer != nil {
			r = answer(req)
		}
		f.mu.Unlock()
		if r.raw == "" && !r.close && !r.stall {
			r.raw = okay(name)
		}
		if r.work != nil && !r.work() {
			r.raw = status(503)
		}
		time.Sleep(r.after)
		p.send(r.raw)
		if r.rest != "" {
			time.Sleep(r.gap)
			p.send(r.rest)
		}
		if r.done != nil {
			r.done()
		}
		if r.stall {
			p.drain()
		}
		if r.stall || r.close {
			return
		}
	}
}

// okay is an answer of 200 with a body.
func okay(body string) string {
	return "HTTP/1.1 200 OK\r\nContent-Length: " + itoa(len(body)) + "\r\n\r\n" + body
}

// status is an answer without a body.
func status(code int, fields ...string) string {
	return "HTTP/1.1 " + itoa(code) + " X\r\nContent-Length: 0\r\n" + strings.Join(append(fields, ""), "\r\n") + "\r\n"
}

// always makes a host answer so every time.
func always(r reply) func(*host) {
	return func(h *host) { h.reply = func(*http.Request) reply { return r } }
}

// server returns how one of the pool's servers is.
func (st Stats) server(name string) ServerStats {
	for _, s := range st.Servers {
		if s.Name == name {
			return s
		}
	}
	return ServerStats{}
}
