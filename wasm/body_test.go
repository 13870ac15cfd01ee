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

// through sends content through a chain as request and response, with
// trailers behind when there are any, and returns what comes out.
func through(t *testing.T, c *Chain, content string, trailer http.Header) (request, response string, x *abi.Exchange, faults [2]error) {
	t.Helper()
	x = &abi.Exchange{Request: abi.Message{Method: "POST", Target: "/", Header: http.Header{}, Trailer: trailer, Source: strings.NewReader(content)}}
	r := c.Begin(t.Context(), x)
	defer r.End()
	if res := r.Request(); res.Verdict != Continue {
		t.Fatalf("the request's header: got %+v", res)
	}
	in := r.RequestBody(io.NopCloser(x.Request.Source))
	b, err := io.ReadAll(in)
	in.Close()
	request, faults[0] = string(b), err
	if err != nil {
		return request, "", x, faults
	}
	x.Response = abi.Message{Status: 200, Header: http.Header{}, Source: strings.NewReader(content)}
	if res := r.Response(); res.Verdict != Continue {
		t.Fatalf("the response's header: got %+v", res)
	}
	b, err = io.ReadAll(r.ResponseBody(x.Response.Source))
	if trailer != nil {
		x.Response.Trailer = r.ResponseTrailers(trailer)
	}
	response, faults[1] = string(b), err
	return request, response, x, faults
}

// TestTrapInBodyCallback ends the content, or lets it go on as it was.
func TestTrapInBodyCallback(t *testing.T) {
	for _, side := range []string{"request", "response"} {
		g := proxy()
		// The trial has no request content, and one piece of a response's,
		// of six bytes.
		g.fn("proxy_on_"+side+"_body", "iii", "i", 0, localGet(1), i32c(7), []byte{0x46, 0x04, 0x40}, unreachable, end, goOn)
		for _, mode := range []OnError{Closed, Open} {
			h := newHost(t, Options{})
			c := chainOf(t, load(t, h, Spec{Source: g.finishOnce(), OnError: mode}))
			request, response, _, faults := through(t, c, "content", nil)
			err := faults[0]
			if side == "response" {
				err = faults[1]
			}
			var fault *BodyError
			if mode == Closed && (!errors.As(err, &fault) || fault.Reason != "unreachable" || fault.Status != 503) {
				t.Errorf("%s, closed: got error %v, want a BodyError of unreachable", side, err)
			}
			if mode == Open && (err != nil || request != "content" || response != "content") {
				t.Errorf("%s, open: got %q, %q, %v, want the content as it was", side, request, response, faults)
			}
		}
	}
}

// finishOnce is finish for guests that are loaded more than once.
func (g *guest) finishOnce() []byte {
	again := *g
	return again.finish()
}

// TestAnswerWhileContentPasses is of a request's body callback.
func TestAnswerWhileContentPasses(t *testing.T) {
	g := proxy()
	local := g.env("proxy_send_local_response", "iiiiiiii")
	g.fn("proxy_on_request_body", "iii", "i", 0, i32c(418), i32c(0), i32c(0), g.text(0, "no"), i32c(0), i32c(0), i32c(-1), local, drop, goOn)
	h := newHost(t, Options{})
	c := chainOf(t, load(t, h, Spec{Name: "no", Source: g.finish()}))
	_, _, x, faults := through(t, c, "content", nil)
	var fault *BodyError
	if !errors.As(faults[0], &fault) || fault.Verdict != Answered || fault.Function != "no" || x.Response.Status != 418 {
		t.Errorf("got error %v and status %d, want a BodyError of an answer, and 418", faults[0], x.Response.Status)
	}
}

// TestTrailers runs the callbacks for both messages: each adds a trailer.
func TestTrailers(t *testing.T) {
	g := proxy()
	add := g.env("proxy_add_header_map_value", "iiiii")
	name, value := g.text(0, "x-t"), g.text(50, "added")
	g.fn("proxy_on_request_trailers", "ii", "i", 0, i32c(1), name, value, add, drop, goOn)
	g.fn("proxy_on_response_trailers", "ii", "i", 0, i32c(3), name, value, add, drop, goOn)
	h := newHost(t, Options{})
	c := chainOf(t, load(t, h, Spec{Source: g.finish()}))
	request, response, x, faults := through(t, c, "content", http.Header{"X-O": {"o"}})
	if request != "content" || response != "content" || faults != [2]error{} {
		t.Errorf("got %q, %q, %v", request, response, faults)
	}
	if x.Request.Trailer.Get("X-T") != "added" || x.Response.Trailer.Get("X-O") != "o" {
		t.Errorf("got trailers %v and %v", x.Request.Trailer, x.Response.Trailer)
	}
}

// TestPausedContentGoesOn pauses at the end of content until a tick lets it
// go, in the context of the stream.
func TestPausedContentGoesOn(t *testing.T) {
	g := proxy()
	period := g.env("proxy_set_tick_period_milliseconds", "i")
	effective := g.env("proxy_set_effective_context", "i")
	resume := g.env("proxy_continue_stream", "i")
	g.fn("proxy_on_vm_start", "ii", "i", 0, i32c(1000), period, drop, i32c(1))
	g.fn("proxy_on_request_body", "iii", "i", 0, i32c(500), localGet(0), []byte{0x36, 2, 0}, pause)
	g.fn("proxy_on_tick", "i", "", 0, i32c(500), []byte{0x28, 2, 0}, effective, drop, i32c(0), resume, drop)
	source := g.finish()
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, Options{})
		f, err := h.Load(t.Context(), Spec{Name: "f", Source: source})
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		c := chainOf(t, f)
		began := time.Now()
		request, _, _, faults := through(t, c, "content", nil)
		if took := time.Since(began); request != "content" || faults[0] != nil || took != time.Second {
			t.Errorf("got %q, %v after %v, want the content after 1s", request, faults[0], took)
		}
	})
}

// TestSlowContentIsNotCharged has an http-wasm guest read more than is read
// ahead for it: the wait is not its processor time.
func TestSlowContentIsNotCharged(t *testing.T) {
	g := newGuest()
	read := g.http("read_body", "iii", "I")
	// Reads until the end.
	g.fn("handle_request", "", "I", 0, []byte{0x03, 0x40}, i32c(0), i32c(0), i32c(1000), read, i64c(32), []byte{0x88, 0x50, 0x0d, 0}, end, next)
	source := g.bytes()
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, Options{})
		c := chainOf(t, load(t, h, Spec{Source: source, Limits: Limits{Body: 100}}))
		for wait, want := range map[time.Duration]Verdict{100 * time.Millisecond: Continue, 2 * time.Second: Failed} {
			x := &abi.Exchange{Request: abi.Message{Method: "POST", Target: "/", Header: http.Header{},
				Source: io.MultiReader(strings.NewReader(strings.Repeat("a", 200)), &slow{wait: wait})}}
			r := c.Begin(t.Context(), x)
			if res := r.Request(); res.Verdict != want {
				t.Errorf("content that waits %v: got %+v, want verdict %d", wait, res, want)
			}
			r.End()
		}
	})
}

// slow gives one byte after a while.
type slow struct {
	wait time.Duration
	done bool
}

func (s *slow) Read(p []byte) (int, error) {
	if s.done {
		return 0, io.EOF
	}
	s.done = true
	time.Sleep(s.wait)
	return copy(p, "b"), nil
}

// TestServices holds shared data and metrics to their limits.
func TestServices(t *testing.T) {
	f := &Function{limits: Limits{SharedData: 1000, Metrics: 2}}
	s := services{&machine{f: f}}
	if err := s.SharedSet("k", []byte("one"), 0); err != nil {
		t.Fatal(err)
	}
	v, cas, ok := s.SharedGet("k")
	if string(v) != "one" || !ok {
		t.Errorf("got %q, %v, want \"one\"", v, ok)
	}
	v[0] = 'X' // the caller's own
	if err := s.SharedSet("k", []byte("two"), cas); err != nil {
		t.Errorf("with the right cas: got %v", err)
	}
	if err := s.SharedSet("k", []byte("three"), cas); err != abi.ErrCASMismatch {
		t.Errorf("with an old cas: got %v, want %v", err, abi.ErrCASMismatch)
	}
	if err := s.SharedSet("absent", nil, 5); err != abi.ErrCASMismatch {
		t.Errorf("of an absent key: got %v, want %v", err, abi.ErrCASMismatch)
	}
	if v, _, _ := s.SharedGet("k"); string(v) != "two" {
		t.Errorf("got %q, want \"two\"", v)
	}
	if err := s.SharedSet("long", make([]byte, 1000), 0); err != abi.ErrLimit {
		t.Errorf("over the limit: got %v, want %v", err, abi.ErrLimit)
	}
	counter, err := s.MetricDefine(abi.Counter, "c")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := s.MetricDefine(abi.Counter, "c"); again != counter || err != nil {
		t.Errorf("defined again: got %d, %v, want %d", again, err, counter)
	}
	if _, err := s.MetricDefine(abi.Gauge, "c"); err != abi.ErrArgument {
		t.Errorf("as another kind: got %v, want %v", err, abi.ErrArgument)
	}
	gauge, _ := s.MetricDefine(abi.Gauge, "g")
	if _, err := s.MetricDefine(abi.Gauge, "more"); err != abi.ErrLimit {
		t.Errorf("over the limit: got %v, want %v", err, abi.ErrLimit)
	}
	for _, err := range []error{s.MetricAdd(counter, 3), s.MetricAdd(counter, 4), s.MetricSet(gauge, 9), s.MetricAdd(gauge, -2)} {
		if err != nil {
			t.Error(err)
		}
	}
	if err := s.MetricAdd(counter, -1); err != abi.ErrArgument {
		t.Errorf("a counter that falls: got %v, want %v", err, abi.ErrArgument)
	}
	if err := s.MetricAdd(7, 1); err != abi.ErrNotFound {
		t.Errorf("an unknown one: got %v, want %v", err, abi.ErrNotFound)
	}
	if got := f.Stats().Metrics; got["c"] != 7 || got["g"] != 7 {
		t.Errorf("got %v, want c 7 and g 7", got)
	}
	for in, want := range map[string]string{"a\x1b[31mb\x00\r\n": "a [31mb ", "ok": "ok", "\xff\u2028": "  ", strings.Repeat("a", 3000): strings.Repeat("a", logLine)} {
		if got := clean(in); got != want {
			t.Errorf("clean(%.20q): got %.40q, want %.40q", in, got, want)
		}
	}
}
