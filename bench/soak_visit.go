package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A visitor asks, one request at a time, and judges every answer.
type visitor struct {
	*soaker
	by     protocol
	client *http.Client
	rng    *rand.Rand
	etags  map[int]string // of what it saw, by object
	fresh  int            // how many objects it asked for that nobody else does
	number uint64
}

// An errand is one request and what its answer may be.
type errand struct {
	object object
	method string
	etag   string // for If-None-Match
	from   int    // of the range; to is below 0 for none
	to     int
	floor  int64 // the least version
	leaves bool  // the client goes in the middle
	start  time.Time
}

// visit asks at about rate a second until ctx ends.
func (s *soaker) visit(ctx context.Context, by protocol, number uint64, rate float64) {
	v := &visitor{soaker: s, by: by, etags: make(map[int]string), number: number,
		rng: rand.New(rand.NewPCG(number, uint64(len(by))*31+uint64(by[1])))}
	client, end := newClient(by)
	v.client = client
	defer func() { end() }()
	chosen := newZipf(soakObjects, 0.8, number)
	for n := 1; ctx.Err() == nil; n++ {
		if n%500 == 0 { // also connections come and go
			end()
			v.client, end = newClient(by)
		}
		v.run(ctx, v.errand(chosen.next()))
		pause(ctx, time.Duration(v.rng.ExpFloat64()/rate*float64(time.Second)))
	}
}

// errand decides what is asked of an object.
func (v *visitor) errand(id int) errand {
	e := errand{object: soakObject(id), method: http.MethodGet, to: -1}
	e.floor = v.floors[id].Load() // before the request begins
	switch k := v.rng.IntN(100); {
	case k < 8:
		e.method = http.MethodHead
	case k < 16:
		e.etag = v.etags[id]
	case k < 24:
		e.from = v.rng.IntN(e.object.size)
		e.to = min(e.from+v.rng.IntN(100_000), e.object.size-1)
	case k < 27:
		e.leaves = true
	case k < 31:
		v.fresh++
		number := 1_000_000 + (int(v.number)*4+len(v.by)+int(v.by[1]))*1_000_000 + v.fresh
		e.object, e.floor = object{policy: "hour", size: objectSize(number), id: number}, 0
	}
	return e
}

// run does an errand.
func (v *visitor) run(ctx context.Context, e errand) {
	e.start = time.Now()
	resp, body, err := v.ask(ctx, e)
	if ctx.Err() != nil {
		return // the soak ended in the middle
	}
	if errors.Is(err, errLeft) {
		v.count(func(sum *soakSummary) { sum.Abandoned++ })
		return
	}
	if err == nil && resp.StatusCode >= 500 {
		if err = v.judgeError(resp); err == nil {
			err = fmt.Errorf("%s (%s) %.80q", resp.Status, resp.Header.Get("Cache-Status"), body)
		} else {
			v.fail("%s %s by %s: %v", e.method, e.object.path(), v.by, err)
			return
		}
	}
	if err != nil {
		if !v.tolerates(e.start) {
			v.fail("%s %s by %s, origin sound: %v", e.method, e.object.path(), v.by, err)
		}
		v.count(func(sum *soakSummary) { sum.Tolerated++ })
		return
	}
	if err := errors.Join(v.judge(e, resp, body), v.judgeHeader(e, resp)); err != nil {
		v.fail("%s %s by %s: %v (Cache-Status: %s)", e.method, e.object.path(), v.by, err, resp.Header.Get("Cache-Status"))
		return
	}
	v.count(func(sum *soakSummary) {
		sum.Requests[v.by]++
		sum.Outcomes[strconv.Itoa(resp.StatusCode)]++
		if strings.Contains(resp.Header.Get("Cache-Status"), "; hit") {
			sum.Outcomes["hit"]++
		}
		sum.Bytes += int64(len(body))
	})
}

// errLeft is a response that the client did not wait for.
var errLeft = errors.New("left")

// ask makes the request and returns the response with its whole body, read.
func (v *visitor) ask(ctx context.Context, e errand) (*http.Response, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, e.method, v.server.url(v.by)+e.object.path(), nil)
	if err != nil {
		return nil, nil, err
	}
	if e.etag != "" {
		req.Header.Set("If-None-Match", e.etag)
	}
	if e.to >= 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", e.from, e.to))
	}
	resp, err := v.client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	if e.leaves && e.object.size > 1 {
		_, _ = io.CopyN(io.Discard, resp.Body, int64(e.object.size/2))
		return nil, nil, errLeft
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	return resp, body, err
}

// judge compares an answer with what the object is.
func (v *visitor) judge(e errand, resp *http.Response, body []byte) error {
	o := e.object
	etag := resp.Header.Get("ETag")
	version, err := o.parseVersion(etag)
	if err != nil {
		return err
	}
	if o.policy != "hour" {
		if int64(version) < e.floor {
			return fmt.Errorf("version %d was purged; want %d or later", version, e.floor)
		}
		if latest := v.latest[o.id].Load(); int64(version) > latest {
			return fmt.Errorf("version %d was never made, the latest is %d", version, latest)
		}
		v.etags[o.id] = etag
	}
	o.version = version
	switch resp.StatusCode {
	case http.StatusNotModified:
		if e.etag == "" || etag != e.etag || len(body) > 0 {
			return fmt.Errorf("304 with ETag %s and %d bytes for If-None-Match %q", etag, len(body), e.etag)
		}
		return nil
	case http.StatusPartialContent:
		if want := fmt.Sprintf("bytes %d-%d/%d", e.from, e.to, o.size); e.to < 0 || resp.Header.Get("Content-Range") != want {
			return fmt.Errorf("got Content-Range %q, want %q", resp.Header.Get("Content-Range"), want)
		}
		return v.noise.verify(o, body, e.from, e.to-e.from+1)
	case http.StatusOK:
		if got := resp.Header.Get("Content-Length"); got != "" && got != strconv.Itoa(o.size) {
			return fmt.Errorf("got Content-Length %s, want %d", got, o.size)
		}
		if e.method == http.MethodHead {
			return nil
		}
		return v.noise.verify(o, body, 0, o.size)
	}
	return fmt.Errorf("got %s", resp.Status)
}

// judgeHeader holds the fields of an answer to the rules for all.
func (v *visitor) judgeHeader(e errand, resp *http.Response) error {
	h := resp.Header
	status := h.Get("Cache-Status")
	if !strings.HasPrefix(status, node+";") {
		return fmt.Errorf("got Cache-Status %q", status)
	}
	for _, name := range []string{"Surrogate-Key", "Surrogate-Control", "Keep-Alive", "Proxy-Connection"} {
		if h.Get(name) != "" {
			return fmt.Errorf("%s: %s was sent to a client", name, h.Get(name))
		}
	}
	if v.by == h2 || v.by == h3 {
		if h.Get("Connection") != "" || h.Get("Transfer-Encoding") != "" {
			return fmt.Errorf("a field of HTTP/1.1 was sent by %s", v.by)
		}
	}
	if strings.Contains(status, "; hit") && h.Get("Age") == "" {
		return errors.New("a hit without Age")
	}
	if age := h.Get("Age"); age != "" {
		if n, err := strconv.Atoi(age); err != nil || n < 0 {
			return fmt.Errorf("got Age %q", age)
		}
	}
	for _, name := range []string{"ETag", "Cache-Status", "Age", "Content-Length", "Cache-Control", "Date"} {
		if n := len(h.Values(name)); n > 1 {
			return fmt.Errorf("%s is there %d times", name, n)
		}
	}
	if h.Get("Via") == "" || h.Get("Date") == "" || !strings.Contains(h.Get("Cache-Control"), "max-age=") {
		return fmt.Errorf("got Via %q, Date %q, Cache-Control %q; want all", h.Get("Via"), h.Get("Date"), h.Get("Cache-Control"))
	}
	if e.object.policy != "hour" && resp.StatusCode != http.StatusNotModified && h.Get("X-Object") != e.object.path() {
		return fmt.Errorf("got X-Object %q", h.Get("X-Object"))
	}
	if got := h.Get("X-Function"); v.summary.Function && !slices.Contains(functionSaid(), got) {
		return fmt.Errorf("got X-Function %q; want one of %q", got, functionSaid())
	}
	return nil
}

// judgeError holds an answer of the node's own, while the origin has a fault, to
// the rules for those.
func (v *visitor) judgeError(resp *http.Response) error {
	if s := resp.StatusCode; s != http.StatusBadGateway && s != http.StatusGatewayTimeout {
		return nil
	}
	if !strings.HasPrefix(resp.Header.Get("Proxy-Status"), node) {
		return fmt.Errorf("%s with Proxy-Status %q", resp.Status, resp.Header.Get("Proxy-Status"))
	}
	return nil
}
