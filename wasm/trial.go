package wasm

import (
	"io"
	"net/http"
	"strings"
	"time"

	"seawall/wasm/abi"
)

// trial has a new machine serve a synthetic exchange, so that what cannot
// work is known before it is attached, and memory that is taken at first use
// is in the snapshot. What the guest asks of the node meanwhile (calls, shared
// data, log lines) has no effect.
func (f *Function) trial(m *machine, body string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := &entry{f: f, m: m, run: &Run{}}
	m.quiet, m.now, m.ledger = true, e, &ledger{}
	defer func() { m.quiet, m.now, m.ledger = false, nil, nil }()
	e.x = abi.Exchange{
		Request: abi.Message{Method: "GET", Scheme: "http", Authority: "seawall.invalid", Target: "/", Ended: true,
			Header: http.Header{"User-Agent": {"seawall"}, "Accept": {"*/*"}}},
		Facts: abi.Facts{ID: "trial", Begun: time.Now(), Site: "trial", Protocol: "HTTP/1.1", Source: "192.0.2.1:1", Destination: "192.0.2.2:80",
			Client: "192.0.2.1"},
		Cache:    abi.Cache{TTL: -1},
		Function: f.name,
		Wake:     func() {},
	}
	if body != "" {
		q := &e.x.Request
		q.Method, q.Source, q.Ended = "POST", strings.NewReader(body), false
		q.Header["Content-Type"] = []string{"text/plain"}
	}
	if err := e.try(); err != nil {
		return err
	}
	if t := m.grown(); t != nil {
		return t
	}
	return nil
}

// try runs the callbacks of one exchange with the machine locked. A stream
// that pauses is not waited for.
func (e *entry) try() error {
	m, l := e.m, &e.f.limits
	// The first calls run cold code: they have the time of a start.
	step := func(run func() error) error {
		m.arm(l.Start, l.Start+l.Wall)
		defer m.disarm()
		return run()
	}
	x := &e.x
	err := step(func() (err error) {
		if e.s, err = m.guest.Begin(x); err != nil {
			return err
		}
		w := e.s.Wants()
		if w.RequestHeaders {
			_, err = e.s.RequestHeaders()
		}
		if err == nil && w.RequestBody && x.Request.Source != nil && !x.Answered {
			x.Request.Body, _ = io.ReadAll(x.Request.Source)
			x.Request.Ended = true
			_, err = e.s.RequestBody()
		}
		return err
	})
	if err != nil {
		return err
	}
	if !x.Answered {
		if err := e.tryResponse(step); err != nil {
			return err
		}
	}
	return step(e.s.End)
}

func (e *entry) tryResponse(step func(func() error) error) error {
	x, w := &e.x, e.s.Wants()
	x.Stage, x.Cache.Status = abi.ViewerResponse, "miss"
	body := []byte("trial\n")
	x.Response = abi.Message{Status: http.StatusOK, Header: http.Header{"Content-Type": {"text/plain"}}}
	if w.BufferResponse {
		x.Response.Body, x.Response.Ended = body, true
	}
	if w.ResponseHeaders {
		err := step(func() error { _, err := e.s.ResponseHeaders(); return err })
		if err != nil {
			return err
		}
	}
	if w.ResponseBody && !x.Answered {
		x.Response.Body, x.Response.Ended = body, true
		return step(func() error { _, err := e.s.ResponseBody(); return err })
	}
	return nil
}
