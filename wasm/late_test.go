package wasm

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"seawall/wasm/abi"
)

// reading is a guest that may read the request's content, and goes on without.
func reading() []byte {
	g := newGuest()
	g.http("read_body", "iii", "I")
	g.fn("handle_request", "", "I", 0, next)
	return g.bytes()
}

// TestContentReadLate reads a request's content when its run has ended and
// serves another: an origin's client may still send it after the answer.
func TestContentReadLate(t *testing.T) {
	h := newHost(t, Options{})
	c := chainOf(t, load(t, h, Spec{Source: reading()}))
	begin := func(content string) (*Run, io.Reader) {
		x := &abi.Exchange{Request: abi.Message{Method: "POST", Target: "/", Header: http.Header{}, Source: strings.NewReader(content)}}
		r := c.Begin(t.Context(), x)
		if res := r.Request(); res.Verdict != Continue {
			t.Fatalf("got %+v", res)
		}
		return r, x.Request.Source
	}
	first, late := begin("the first one's")
	first.End()
	second, own := begin("another's secret")
	defer second.End()
	if got, err := io.ReadAll(late); err == nil && string(got) != "the first one's" {
		t.Errorf("a reader kept after its run's end: got %q, %v, want the first one's content or an error", got, err)
	}
	if got, err := io.ReadAll(own); string(got) != "another's secret" {
		t.Errorf("the second one's content: got %q, %v", got, err)
	}
}

// TestEndWhileContentWaits ends a run while a reader of its content waits for
// a guest that has paused.
func TestEndWhileContentWaits(t *testing.T) {
	g := proxy()
	g.fn("proxy_on_request_body", "iii", "i", 0, pause)
	source := g.finish()
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, Options{})
		c := chainOf(t, load(t, h, Spec{Source: source}))
		x := &abi.Exchange{Request: abi.Message{Method: "POST", Target: "/", Header: http.Header{}, Source: strings.NewReader("content")}}
		r := c.Begin(t.Context(), x)
		if res := r.Request(); res.Verdict != Continue {
			t.Fatalf("got %+v", res)
		}
		body := r.RequestBody(io.NopCloser(x.Request.Source))
		got := make(chan error, 1)
		began := time.Now()
		go func() {
			_, err := io.ReadAll(body)
			got <- err
		}()
		synctest.Wait()
		r.End()
		err := <-got
		if took := time.Since(began); !errors.Is(err, errEnded) || took != 0 {
			t.Errorf("got %v after %v, want %v at once", err, took, errEnded)
		}
	})
}

// TestStoppedBetweenRequests has a tick stop a machine that waits in the pool:
// it counts as gone once.
func TestStoppedBetweenRequests(t *testing.T) {
	g := proxy()
	period := g.env("proxy_set_tick_period_milliseconds", "i")
	g.fn("proxy_on_request_headers", "iii", "i", 0, i32c(100), period, drop, goOn)
	g.fn("proxy_on_tick", "i", "", 0, unreachable)
	source := g.finish()
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, Options{})
		f := load(t, h, Spec{Source: source, Mode: ModeReset})
		c := chainOf(t, f)
		for range 5 {
			ask(t, c, nil)
			time.Sleep(time.Second)
			synctest.Wait()
			f.pool.mu.Lock()
			count, listed := f.pool.count, len(f.pool.clean)+len(f.pool.dirty)
			f.pool.mu.Unlock()
			if machines := f.Stats().Machines; count != int(machines) || count < 0 {
				t.Fatalf("the pool counts %d machines (%d idle), there are %d", count, listed, machines)
			}
		}
	})
}

// keyed is a guest that adds a part to the key.
func keyed(part string) []byte {
	g := newGuest()
	set := g.imp(extensionModule, "set_property", "iiii", "i")
	g.fn("handle_request", "", "I", 0, g.text(0, "seawall.cache.key"), g.text(100, part), set, drop, next)
	return g.bytes()
}

// TestKeyPartsOfAllFunctions: what one function tells apart another does not
// join again.
func TestKeyPartsOfAllFunctions(t *testing.T) {
	h := newHost(t, Options{})
	seen := map[string]string{}
	for _, parts := range [][]string{{"alice", "a"}, {"bob", "a"}, {"alice", "b"}, {"a"}, {"alice"}, {"alicea"}, {"5:alice", "a"}} {
		var fs []*Function
		for _, p := range parts {
			fs = append(fs, load(t, h, Spec{Source: keyed(p)}))
		}
		x := &abi.Exchange{Request: abi.Message{Method: "GET", Target: "/", Header: http.Header{}}}
		r := chainOf(t, fs...).Begin(t.Context(), x)
		r.Request()
		r.End()
		name := strings.Join(parts, " and ")
		if other, ok := seen[x.Cache.Key]; ok {
			t.Errorf("%s: key %q, as of %s", name, x.Cache.Key, other)
		}
		seen[x.Cache.Key] = name
	}
}

// TestOpenLeavesNothingHalfDone: a function that breaks down after it changed
// some fields is as if it had not been there.
func TestOpenLeavesNothingHalfDone(t *testing.T) {
	g := newGuest()
	set := g.http("set_header_value", "iiiii", "")
	change := func(kind, at int32) []byte {
		return cat(i32c(kind), g.text(at, "x-half"), g.text(at+50, "done"), set)
	}
	marked := g.isSpecial()
	g.fn("handle_request", "", "I", 0, when(marked, change(0, 0), unreachable), next)
	h := newHost(t, Options{})
	c := chainOf(t, load(t, h, Spec{Source: g.bytes(), OnError: Open}))
	var x *abi.Exchange
	if status, _ := ask(t, c, func(y *abi.Exchange) { special(y); x = y }); status != 200 {
		t.Fatalf("got status %d, want 200", status)
	}
	if got := x.Request.Header.Get("X-Half"); got != "" {
		t.Errorf("the request has x-half %q of a function that is skipped", got)
	}
}

// TestTicksLeaveNothing: what a machine of reset mode does between requests is
// not seen by one either, and the period that one set ends with it.
func TestTicksLeaveNothing(t *testing.T) {
	g := proxy()
	period := g.env("proxy_set_tick_period_milliseconds", "i")
	local := g.env("proxy_send_local_response", "iiiiiiii")
	count := cat(i32c(500), []byte{0x28, 2, 0})
	g.fn("proxy_on_request_headers", "iii", "i", 0, i32c(1000), period, drop,
		i32c(200), count, []byte{0x6a}, i32c(0), i32c(0), i32c(0), i32c(0), i32c(0), i32c(0), i32c(-1), local, drop, pause)
	g.fn("proxy_on_tick", "i", "", 0, i32c(500), count, i32c(1), []byte{0x6a, 0x36, 2, 0})
	source := g.finish()
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, Options{})
		f := load(t, h, Spec{Source: source, Mode: ModeReset})
		c := chainOf(t, f)
		for range 3 {
			if status, _ := ask(t, c, nil); status != 200 {
				t.Errorf("got status %d, want 200: something is left of ticks", status)
			}
			time.Sleep(3500 * time.Millisecond)
			synctest.Wait()
		}
		if n := f.Stats().Stages[stageOwn].Calls; n != 0 {
			t.Errorf("%d ticks ran after the requests that asked for them", n)
		}
	})
}

// TestRestartsAreBounded: a machine that cannot be started again is not
// started by all who wait for it, one after the other.
func TestRestartsAreBounded(t *testing.T) {
	g := proxy()
	get, set := g.env("proxy_get_shared_data", "iiiii"), g.env("proxy_set_shared_data", "iii"+"ii")
	key := g.text(0, "k")
	g.fn("proxy_on_vm_start", "ii", "i", 0, key, i32c(300), i32c(304), i32c(308), get, []byte{0x45, 0x04, 0x40}, unreachable, end, i32c(1))
	g.fn("proxy_on_request_headers", "iii", "i", 0, key, g.text(50, "v"), i32c(0), set, drop, goOn)
	h := newHost(t, Options{})
	f := load(t, h, Spec{Source: g.finish(), Mode: ModeShared})
	if status, reason := ask(t, chainOf(t, f), nil); status != 200 {
		t.Fatalf("got %d %q, want 200", status, reason)
	}
	m := (*f.vms.list.Load())[0]
	f.vms.drop(m)
	tried := 0
	for range 100 {
		_, trap := f.vms.rebuild() // as by those who were let in before the first failed
		if trap == nil {
			t.Fatal("it started again, which this guest cannot")
		}
		if trap != errBreaker {
			tried++
		}
	}
	if tried < 1 || tried > breakerTraps {
		t.Errorf("it was started %d times for 100 who waited, want at most %d", tried, breakerTraps)
	}
}

// TestBufferingLetsContentThrough: an origin that ends its response when it
// has the request is not waited for with the request's content held up.
func TestBufferingLetsContentThrough(t *testing.T) {
	passes := proxy()
	passes.fn("proxy_on_request_body", "iii", "i", 0, goOn)
	first, second := passes.finish(), upper()
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, Options{})
		c := chainOf(t, load(t, h, Spec{Source: second}), load(t, h, Spec{Source: first}))
		x := &abi.Exchange{Request: abi.Message{Method: "POST", Target: "/", Header: http.Header{}, Source: strings.NewReader("abc")}}
		r := c.Begin(t.Context(), x)
		defer r.End()
		if res := r.Request(); res.Verdict != Continue {
			t.Fatalf("got %+v", res)
		}
		body := r.RequestBody(io.NopCloser(x.Request.Source))
		in, out := io.Pipe()
		r.Received(func(x *abi.Exchange) {
			x.Response = abi.Message{Status: 200, Header: http.Header{}, Source: in}
		})
		go func() { // the origin
			time.Sleep(time.Second)
			b, _ := io.ReadAll(body)
			out.Write(b)
			out.Close()
		}()
		if res := r.Response(); res.Verdict != Continue {
			t.Fatalf("got %+v", res)
		}
		if b, err := io.ReadAll(r.ResponseBody(x.Response.Source)); string(b) != "Xbc" || err != nil {
			t.Errorf("got %q, %v, want what the origin echoed, changed", b, err)
		}
	})
}

// TestCallsStayBelowTheirPath: what an upstream's URL has of a path is not
// left by a guest's.
func TestCallsStayBelowTheirPath(t *testing.T) {
	for _, c := range []struct {
		base, path string
		ok         bool
	}{
		{"https://auth.example/api", "/check?a=..", true},
		{"https://auth.example/api", "/a..b/c", true},
		{"https://auth.example/api", "/../admin", false},
		{"https://auth.example/api", "/x/%2e%2E/../admin", false},
		{"https://auth.example/api", "/x%2f..%2f..%2fadmin", false},
		{"https://auth.example", "/../admin", true}, // all of it is open
	} {
		e, err := newEgress(Upstream{URL: c.base})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.request(&abi.HTTPCall{Method: "GET", Target: c.path, Authority: "auth.example"}); (err == nil) != c.ok {
			t.Errorf("%s to %s: got error %v, want it allowed: %v", c.path, c.base, err, c.ok)
		}
	}
}

// TestTagsAreFieldValues: they are kept as a field's.
func TestTagsAreFieldValues(t *testing.T) {
	for list, ok := range map[string]bool{"a, b c,d": true, "a\r\nSet-Cookie: b": false, "a\x00": false} {
		x := &abi.Exchange{Stage: abi.OriginResponse}
		if err := x.SetProperty("seawall.cache.tags", []byte(list)); (err == nil) != ok || x.Cache.TagsSet != ok {
			t.Errorf("tags %q: got error %v and set %v, want %v", list, err, x.Cache.TagsSet, ok)
		}
	}
}
