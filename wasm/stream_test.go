package wasm

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"seawall/wasm/abi"
)

// proxy begins a proxy-wasm guest: its version and an allocator that gives
// the same place each time.
func proxy() *guest {
	g := newGuest()
	g.pages = 2
	return g
}

func (g *guest) finish() []byte {
	g.fn("proxy_abi_version_0_2_1", "", "", 0)
	g.fn("malloc", "i", "i", 0, i32c(80000))
	return g.bytes()
}

func (g *guest) env(name, params string) []byte { return g.imp("env", name, params, "i") }

var (
	goOn  = i32c(0)
	pause = i32c(1)
)

// TestResponseBodyStreams sees each piece of content go on as it comes.
func TestResponseBodyStreams(t *testing.T) {
	g := proxy()
	set := g.env("proxy_set_buffer_bytes", "iiiii")
	// Appends "!" to each piece.
	g.fn("proxy_on_response_body", "iii", "i", 0, i32c(1), i32c(1<<30), i32c(0), g.text(0, "!"), set, drop, goOn)
	h := newHost(t, Options{})
	f := load(t, h, Spec{Source: g.finish()})
	c := chainOf(t, f, f)
	x := &abi.Exchange{Request: abi.Message{Method: "GET", Target: "/", Header: http.Header{}}}
	r := c.Begin(t.Context(), x)
	defer r.End()
	if res := r.Request(); res.Verdict != Continue {
		t.Fatalf("got %+v", res)
	}
	read, write := io.Pipe()
	x.Response = abi.Message{Status: 200, Header: http.Header{"Content-Length": {"6"}}, Source: read}
	if res := r.Response(); res.Verdict != Continue {
		t.Fatalf("got %+v", res)
	}
	if x.Response.Header.Get("Content-Length") != "" {
		t.Error("the length is kept though the content may change")
	}
	body := r.ResponseBody(x.Response.Source)
	for _, piece := range []string{"one", "two"} {
		go write.Write([]byte(piece))
		b := make([]byte, 100)
		n, err := body.Read(b)
		if got := string(b[:n]); got != piece+"!!" || err != nil {
			t.Errorf("after %q came: got %q, %v, want %q", piece, got, err, piece+"!!")
		}
	}
	write.Close()
	// The end is a piece of its own, empty.
	if rest, err := io.ReadAll(body); string(rest) != "!!" || err != nil {
		t.Errorf("at the end: got %q, %v, want \"!!\"", rest, err)
	}
}

// holding is a guest that pauses until all has come, and then puts a bracket
// in front.
func holding(side string, buffer int32) []byte {
	g := proxy()
	set := g.env("proxy_set_buffer_bytes", "iiiii")
	g.fn("proxy_on_"+side+"_body", "iii", "i", 0,
		localGet(2), []byte{0x04, 0x7f}, i32c(buffer), i32c(0), i32c(0), g.text(0, "["), set, drop, goOn,
		[]byte{0x05}, pause, end)
	return g.finish()
}

// pieces gives content in many reads.
type pieces struct{ list []string }

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.list) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.list[0])
	p.list = p.list[1:]
	return n, nil
}

func TestResponseBodyIsHeldBack(t *testing.T) {
	h := newHost(t, Options{})
	f := load(t, h, Spec{Source: holding("response", 1), Limits: Limits{Body: 1000}})
	c := chainOf(t, f)
	for _, q := range []struct {
		name   string
		origin []string
		want   string
		passed int64
	}{
		{"short", []string{"a", "b", "c"}, "[abc", 0},
		{"empty", nil, "[", 0},
		{"over the limit: passed unseen", []string{strings.Repeat("a", 600), strings.Repeat("b", 600), "c"}, strings.Repeat("a", 600) + strings.Repeat("b", 600) + "c", 1},
	} {
		before := f.Stats().Passed
		x := &abi.Exchange{Request: abi.Message{Method: "GET", Target: "/", Header: http.Header{}}}
		r := c.Begin(t.Context(), x)
		r.Request()
		x.Response = abi.Message{Status: 200, Header: http.Header{}, Source: &pieces{q.origin}}
		r.Response()
		got, err := io.ReadAll(r.ResponseBody(x.Response.Source))
		if string(got) != q.want || err != nil {
			t.Errorf("%s: got %q, %v, want %q", q.name, got, err, q.want)
		}
		if n := f.Stats().Passed - before; n != q.passed {
			t.Errorf("%s: %d responses are counted as passed, want %d", q.name, n, q.passed)
		}
		r.End()
	}
}

func TestRequestBodyOverLimit(t *testing.T) {
	h := newHost(t, Options{})
	c := chainOf(t, load(t, h, Spec{Source: holding("request", 0), Limits: Limits{Body: 1000}}))
	send := func(content string) (string, error) {
		x := &abi.Exchange{Request: abi.Message{Method: "POST", Target: "/", Header: http.Header{}, Source: strings.NewReader(content)}}
		r := c.Begin(t.Context(), x)
		defer r.End()
		if res := r.Request(); res.Verdict != Continue {
			t.Fatalf("got %+v", res)
		}
		body := r.RequestBody(io.NopCloser(x.Request.Source))
		b, err := io.ReadAll(body)
		return string(b), err
	}
	if got, err := send("abc"); got != "[abc" || err != nil {
		t.Errorf("got %q, %v, want \"[abc\"", got, err)
	}
	_, err := send(strings.Repeat("a", 1001))
	var fault *BodyError
	if !errors.As(err, &fault) || fault.Status != 413 || fault.Verdict != Failed {
		t.Errorf("1001 bytes with a limit of 1000: got error %v, want a BodyError of 413", err)
	}
}

// TestReaderAfterEnd holds a reader longer than its run.
func TestReaderAfterEnd(t *testing.T) {
	h := newHost(t, Options{})
	c := chainOf(t, load(t, h, Spec{Source: holding("request", 0)}))
	x := &abi.Exchange{Request: abi.Message{Method: "POST", Target: "/", Header: http.Header{}, Source: strings.NewReader("abc")}}
	r := c.Begin(t.Context(), x)
	r.Request()
	body := r.RequestBody(io.NopCloser(x.Request.Source))
	r.End()
	if b, err := io.ReadAll(body); err != errEnded {
		t.Errorf("got %q, %v, want error %v", b, err, errEnded)
	}
}

// upper is an http-wasm guest that asks for buffering of both messages, turns
// the first byte of each content to "X", and adds a header to the response.
func upper() []byte {
	g := newGuest()
	features := g.http("enable_features", "i", "i")
	read := g.http("read_body", "iii", "I")
	write := g.http("write_body", "iii", "")
	set := g.http("set_header_value", "iiiii", "")
	name := g.text(5000, "x-guest")
	change := func(kind int32) []byte {
		// One local of i32 counts.
		return cat(i32c(kind), i32c(0), i32c(4096), read, []byte{0xa7}, localSet(2), i32c(0), i32c('X'), []byte{0x3a, 0, 0},
			localGet(2), []byte{0x04, 0x40}, i32c(kind), i32c(0), localGet(2), write, end)
	}
	g.start = int(g.fn("", "", "", 0, i32c(3), features, drop))
	g.fn("handle_request", "", "I", 3, change(0), next)
	g.fn("handle_response", "ii", "", 1, change(1), i32c(1), name, g.text(5100, "yes"), set)
	return g.bytes()
}

func TestBufferedContentIsChanged(t *testing.T) {
	h := newHost(t, Options{})
	f := load(t, h, Spec{Source: upper(), Limits: Limits{Body: 4000}})
	c := chainOf(t, f)
	var asked string
	s := httptest.NewServer(&middleware{chain: c, next: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		b, _ := io.ReadAll(q.Body)
		asked = string(b)
		w.Header().Set("Content-Length", q.Header.Get("X-Length"))
		fmt.Fprint(w, q.Header.Get("X-Body"))
	})})
	defer s.Close()
	long := strings.Repeat("l", 5000)
	for _, q := range []struct {
		name, request, response string
		status                  int
		asked, answered, header string
	}{
		{"both", "request", "response", 200, "Xequest", "Xesponse", "yes"},
		{"none", "", "", 200, "", "", "yes"},
		{"response over the limit passes", "r", long, 200, "X", long, ""},
		{"request over the limit", long, "r", 413, "", "", ""},
	} {
		asked = ""
		req, err := http.NewRequest("POST", s.URL, strings.NewReader(q.request))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Body", q.response)
		resp, err := s.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != q.status || asked != q.asked || string(b) != q.answered || resp.Header.Get("X-Guest") != q.header {
			t.Errorf("%s: got %d, the origin %.20q, the client %.20q, header %q, %v; want %d, %.20q, %.20q, %q",
				q.name, resp.StatusCode, asked, b, resp.Header.Get("X-Guest"), err, q.status, q.asked, q.answered, q.header)
		}
	}
}

// marking is a guest that adds its name to x-seen of each response, and
// answers requests that have the header x-NAME.
func marking(name string) []byte {
	g := proxy()
	add := g.env("proxy_add_header_map_value", "iiiii")
	get := g.env("proxy_get_header_map_value", "iiiii")
	local := g.env("proxy_send_local_response", "iiiiiiii")
	field, own, asks := g.text(0, "x-seen"), g.text(100, name), g.text(200, "x-"+name)
	g.fn("proxy_on_request_headers", "iii", "i", 0, i32c(0), asks, i32c(300), i32c(304), get,
		[]byte{0x04, 0x7f}, goOn, []byte{0x05},
		i32c(403), i32c(0), i32c(0), own, i32c(0), i32c(0), i32c(-1), local, drop, pause, end)
	g.fn("proxy_on_response_headers", "iii", "i", 0, i32c(2), field, own, add, drop, goOn)
	return g.finish()
}

// TestOrderAndLocalAnswer runs three functions: requests in order, responses
// in reverse, and after an answer only those that saw the request.
func TestOrderAndLocalAnswer(t *testing.T) {
	h := newHost(t, Options{})
	var fs []*Function
	for _, name := range []string{"a", "b", "c"} {
		fs = append(fs, load(t, h, Spec{Name: name, Source: marking(name)}))
	}
	c := chainOf(t, fs...)
	for asks, want := range map[string]string{"": "200 c b a origin", "X-A": "403 a a", "X-B": "403 b a b", "X-C": "403 c b a c"} {
		x := &abi.Exchange{Request: abi.Message{Method: "GET", Target: "/", Header: http.Header{"X": {"y"}}}}
		if asks != "" {
			x.Request.Header[asks] = []string{"1"}
		}
		r := c.Begin(t.Context(), x)
		if r.Request().Verdict == Continue {
			x.Response = abi.Message{Status: 200, Header: http.Header{}, Source: strings.NewReader("origin")}
		}
		r.Response()
		b, err := io.ReadAll(r.ResponseBody(x.Response.Source))
		got := fmt.Sprintf("%d %s %s", x.Response.Status, strings.Join(x.Response.Header["X-Seen"], " "), b)
		if got != want || err != nil {
			t.Errorf("asking %q: got %q, %v, want %q", asks, got, err, want)
		}
		r.End()
	}
}

// calling is a guest that asks an upstream for each request, and answers with
// the status of the answer plus 200 (0: none), or 299 when it may not ask.
func calling(upstream string, timeout int32) []byte {
	g := proxy()
	httpCall := g.env("proxy_http_call", "iiiiiiiiii")
	local := g.env("proxy_send_local_response", "iiiiiiii")
	effective := g.env("proxy_set_effective_context", "i")
	value := g.env("proxy_get_header_map_value", "iiiii")
	up := g.text(0, upstream)
	headers := func() []byte {
		list := []string{":method", "GET", ":path", "/check?q=1", ":authority", "auth.example"}
		var b []byte
		b = binary.LittleEndian.AppendUint32(b, uint32(len(list)/2))
		for _, s := range list {
			b = binary.LittleEndian.AppendUint32(b, uint32(len(s)))
		}
		for _, s := range list {
			b = append(append(b, s...), 0)
		}
		return b
	}()
	hd := g.text(1000, string(headers))
	answerWith := func(status ...[]byte) []byte {
		return cat(cat(status...), i32c(0), i32c(0), i32c(0), i32c(0), i32c(0), i32c(0), i32c(-1), local, drop)
	}
	// The context that asked is kept in memory: one at a time in this test.
	g.fn("proxy_on_request_headers", "iii", "i", 0, i32c(500), localGet(0), []byte{0x36, 2, 0},
		up, hd, i32c(0), i32c(0), i32c(0), i32c(0), i32c(timeout), i32c(504), httpCall,
		[]byte{0x04, 0x40}, answerWith(i32c(299)), end, pause)
	// The status is three digits at what get_header_map_value points to.
	digit := func(at byte, times int32) []byte {
		return cat(i32c(600), []byte{0x28, 2, 0, 0x2d, 0, at}, i32c('0'), []byte{0x6b}, i32c(times), []byte{0x6c})
	}
	g.fn("proxy_on_http_call_response", "iiiii", "", 0, i32c(500), []byte{0x28, 2, 0}, effective, drop,
		localGet(2), []byte{0x45, 0x04, 0x40}, answerWith(i32c(200)), []byte{0x05},
		i32c(6), g.text(700, ":status"), i32c(600), i32c(604), value, drop,
		answerWith(digit(0, 100), digit(1, 10), []byte{0x6a}, digit(2, 1), []byte{0x6a}, i32c(200), []byte{0x6a}), end)
	return g.finish()
}

func TestHTTPCalls(t *testing.T) {
	asked := make(chan string, 10)
	hang := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		switch q.URL.Path {
		case "/redirect/check":
			http.Redirect(w, q, "/elsewhere", http.StatusMovedPermanently)
		case "/slow/check":
			select {
			case <-hang:
			case <-q.Context().Done():
			}
		case "/long/check":
			w.Write(make([]byte, 3000))
		default:
			asked <- q.Method + " " + q.Host + " " + q.RequestURI
			w.WriteHeader(204)
		}
	}))
	defer s.Close()
	defer close(hang)
	h := newHost(t, Options{Upstreams: map[string]Upstream{
		"auth":     {URL: s.URL + "/v1/", AllowPrivate: true},
		"redirect": {URL: s.URL + "/redirect", AllowPrivate: true},
		"slow":     {URL: s.URL + "/slow", AllowPrivate: true, Timeout: 50 * time.Millisecond},
		"long":     {URL: s.URL + "/long", AllowPrivate: true},
		"private":  {URL: s.URL},
		"named":    {URL: strings.Replace(s.URL, "127.0.0.1", "localhost", 1)},
	}})
	for _, q := range []struct {
		upstream string
		want     int
	}{
		{"auth", 404}, {"redirect", 501}, {"slow", 200}, {"long", 200}, {"private", 200}, {"named", 200}, {"unknown", 299},
	} {
		t.Run(q.upstream, func(t *testing.T) {
			f := load(t, h, Spec{Source: calling(q.upstream, 1000), Limits: Limits{Body: 2000},
				Upstreams: []string{"auth", "redirect", "slow", "long", "private", "named"}})
			if got, reason := ask(t, chainOf(t, f), nil); got != q.want {
				t.Errorf("got %d %q, want %d", got, reason, q.want)
			}
		})
	}
	if got := <-asked; got != "GET auth.example /v1/check?q=1" {
		t.Errorf("the upstream was asked %q", got)
	}
	t.Run("not allowed to this function", func(t *testing.T) {
		f := load(t, h, Spec{Source: calling("auth", 1000)})
		if got, _ := ask(t, chainOf(t, f), nil); got != 299 {
			t.Errorf("got %d, want 299", got)
		}
	})
}

// TestEgressAddresses lists what is not of the Internet.
func TestEgressAddresses(t *testing.T) {
	for address, want := range map[string]bool{
		"1.1.1.1": true, "2606:4700::1111": true,
		"127.0.0.1": false, "10.1.2.3": false, "172.16.0.1": false, "192.168.1.1": false, "169.254.169.254": false, "100.64.0.1": false,
		"0.0.0.0": false, "255.255.255.255": false, "224.0.0.1": false, "192.0.0.8": false, "198.18.0.1": false, "240.0.0.1": false,
		"::1": false, "::": false, "fe80::1": false, "fc00::1": false, "fd12::1": false, "ff02::1": false,
		"::ffff:127.0.0.1": false, "64:ff9b::7f00:1": false, "2002:7f00:1::": false, "::7f00:1": false, "fec0::1": false,
	} {
		if got := reachable(netip.MustParseAddr(address).Unmap()); got != want {
			t.Errorf("%s: got %v, want %v", address, got, want)
		}
	}
}

// TestPauseIsBounded waits for guests that never go on.
func TestPauseIsBounded(t *testing.T) {
	g := proxy()
	g.fn("proxy_on_request_headers", "iii", "i", 0, pause)
	source := g.finish()
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, Options{})
		for _, mode := range []Mode{ModeShared, ModeReset} {
			f := load(t, h, Spec{Source: source, Mode: mode, Limits: Limits{Wait: 3 * time.Second}})
			c := chainOf(t, f)
			var wait sync.WaitGroup
			for range 20 {
				wait.Go(func() {
					began := time.Now()
					status, reason := ask(t, c, nil)
					if took := time.Since(began); status != 503 || reason != "wall" || took != 3*time.Second {
						t.Errorf("mode %d: got %d %q after %v, want 503 wall after 3s", mode, status, reason, took)
					}
				})
			}
			wait.Wait()
			ctx, cancel := context.WithCancel(t.Context())
			r := c.Begin(ctx, &abi.Exchange{Request: abi.Message{Header: http.Header{}}})
			time.AfterFunc(time.Second, cancel)
			if res := r.Request(); res.Reason != "canceled" {
				t.Errorf("mode %d: the client goes away: got %+v, want canceled", mode, res)
			}
			r.End()
		}
	})
}

// TestTicks runs a guest's periodic callback, and ends with the function.
func TestTicks(t *testing.T) {
	g := proxy()
	period := g.env("proxy_set_tick_period_milliseconds", "i")
	logs := g.env("proxy_log", "iii")
	g.fn("proxy_on_vm_start", "ii", "i", 0, i32c(1000), period, drop, i32c(1))
	g.fn("proxy_on_tick", "i", "", 0, i32c(4), g.text(0, "tick"), logs, drop)
	source := g.finish()
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, Options{})
		f, err := h.Load(t.Context(), Spec{Name: "f", Source: source})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(3500 * time.Millisecond)
		synctest.Wait()
		if n := f.Stats().Stages[stageOwn].Calls; n != 3 {
			t.Errorf("after 3.5s there were %d ticks, want 3", n)
		}
		f.Close()
		synctest.Wait()
	})
}

// TestProperties reads and sets them from an http-wasm guest.
func TestProperties(t *testing.T) {
	g := newGuest()
	get := g.imp(extensionModule, "get_property", "iiii", "I")
	set := g.imp(extensionModule, "set_property", "iiii", "i")
	foreign := g.imp(extensionModule, "call", "iiiiii", "I")
	header := g.http("set_header_value", "iiiii", "")
	status := g.http("set_status_code", "i", "")
	// The path of the request goes to x-path, the plug-in's name to x-name.
	show := func(at int32, path, name string) []byte {
		return cat(i32c(0), g.text(at, name), i32c(at+100), g.text(at+50, path), i32c(at+100), i32c(100), get, []byte{0xa7}, header)
	}
	setting := func(at int32, path, value string) []byte {
		return cat(g.text(at, path), g.text(at+50, value), set)
	}
	g.fn("handle_request", "", "I", 0,
		show(0, "request.url_path", "x-path"), show(300, "plugin_name", "x-name"), show(600, "source.address", "x-source"),
		show(900, "unknown", "x-unknown"), show(1200, "request\x00headers\x00x-in", "x-out"),
		setting(1500, "seawall.cache.key", "part"), setting(1800, "request.path", "/no"), []byte{0x6a}, setting(2100, "what", ""), []byte{0x6a},
		setting(2400, "seawall.cache.ttl", "12345678"), []byte{0x6a},
		i32c(200), []byte{0x6a}, status,
		i32c(0), g.text(2700, "x-foreign"), i32c(2900), g.text(2750, "seawall.test"), g.text(2800, "args"), i32c(2900), i32c(100), foreign, []byte{0xa7}, header,
		answer)
	h := newHost(t, Options{Foreign: map[string]func(*abi.Exchange, string, []byte) ([]byte, error){
		"seawall.test": func(x *abi.Exchange, function string, args []byte) ([]byte, error) {
			return bytes.ToUpper(append([]byte(function+" "), args...)), nil
		},
	}})
	c := chainOf(t, load(t, h, Spec{Name: "props", Source: g.bytes()}))
	x := &abi.Exchange{
		Request: abi.Message{Method: "GET", Target: "/p?q", Header: http.Header{"X-In": {"in"}}},
		Facts:   abi.Facts{Source: "192.0.2.7:99"},
		Cache:   abi.Cache{TTL: -1},
	}
	r := c.Begin(t.Context(), x)
	defer r.End()
	if res := r.Request(); res.Verdict != Answered {
		t.Fatalf("got %+v, want an answer", res)
	}
	for name, want := range map[string]string{"X-Path": "/p", "X-Name": "props", "X-Source": "192.0.2.7:99", "X-Unknown": "", "X-Out": "in", "X-Foreign": "PROPS ARGS"} {
		if got := x.Request.Header.Get(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	// 0 for the key, 2 for a read-only one, 1 for an unknown one, 2 for the
	// lifetime, which is the origin side's.
	if x.Response.Status != 200+0+2+1+2 {
		t.Errorf("the statuses of set_property: got a sum of %d, want 5", x.Response.Status-200)
	}
	if x.Cache.Key != "part" || x.Cache.TTL != -1 {
		t.Errorf("got key %q and ttl %v, want \"part\" and none", x.Cache.Key, x.Cache.TTL)
	}
}
