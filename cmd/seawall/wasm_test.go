package main

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"

	"seawall/wasm/abi"
)

func TestWasmCheck(t *testing.T) {
	good, bad := written(t, "good.wasm", setting("x-a", "b")), written(t, "bad.wasm", forbidden())
	for _, c := range []struct {
		name, file string
		code       int
		want       []string
	}{
		{"good", good, 0, []string{"module     " + good + ": http-wasm, ", "1 function\n", "sha256     " + hashOf(setting("x-a", "b")), "memory     64.0 KiB at first",
			"modes      shared, reset\n", "imports    http_handler.set_header_value\n", "exports    handle_request\n", "callback   handle_request runs for each request"}},
		{"refused", bad, 1, []string{"imports    http_handler.open_file (refused)\n", "imports    http_handler.fork (refused)\n", "refused    ", "refused for 2 reasons"}},
		{"a component", written(t, "c.wasm", []byte("\x00asm\x0d\x00\x01\x00")), 1, []string{"component", "refused for 1 reason"}},
		{"control characters", written(t, "x.wasm", []byte("\x1b[2J")), 1, []string{"refused"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out, errs := command("wasm", "check", c.file)
			for _, want := range c.want {
				if code != c.code || !strings.Contains(out+errs, want) || strings.Contains(out, "\x1b") {
					t.Errorf("got %d\n%s%s\nwant %d and %q", code, out, errs, c.code, want)
				}
			}
			code, out, _ = command("wasm", "check", "--json", c.file)
			var b checkBody
			if err := json.Unmarshal([]byte(out), &b); err != nil || code != c.code || (len(b.Refused) > 0) != (c.code != 0) || b.SHA256 == "" {
				t.Errorf("--json: got %d %q, %v", code, out, err)
			}
		})
	}
}

func TestWasmTest(t *testing.T) {
	request := written(t, "req.http", []byte("GET /a?b=c HTTP/1.1\r\nHost: shop.example\r\nAccept: text/html\r\n\r\n"))
	response := written(t, "resp.http", []byte("HTTP/1.1 404 Not Found\nContent-Type: text/plain\nX-Old: 1\n\nnot here\n"))
	setter := written(t, "set.wasm", setting("x-new", "1"))
	loops := written(t, "loop.wasm", looping())
	for _, c := range []struct {
		name string
		args []string
		code int
		want []string // patterns
	}{
		{"a field", []string{setter, "--request", request}, 0, []string{`loaded     http-wasm in mode reset, in \d`, `request    GET http://shop\.example/a\?b=c: unchanged`,
			`response   200 OK\n`, `\+        X-New: 1\n`, `cost       viewer_request: 1 call, .*s, \d+ fuel`, `memory     64\.0 KiB`}},
		{"another answer", []string{"--request", request, "--response", response, setter, "--mode", "shared"}, 0, []string{`mode shared`, `response   404 Not Found\n`}},
		{"the origin's side", []string{setter, "--request", request, "--origin"}, 0, []string{`cost       origin_request: 1 call`}},
		{"a limit and lines", []string{loops, "--request", request, "--mode", "shared", "--limit", "cpu=1ms"}, 0, []string{`log        info: hello from the guest\n`}},
		{"a limit that is none", []string{loops, "--request", request, "--limit", "cpu=1h"}, 2, []string{`--limit cpu: "1h" is not between 100µs and 50ms`}},
		{"no configuration", []string{setter, "--request", request, "--config", "@/nope"}, 1, []string{`--config: .*/nope`}},
		{"no request", []string{setter, "--request", "/nope.http"}, 1, []string{`/nope\.http.*hint`}},
		{"a request that is none", []string{setter, "--request", response}, 1, []string{`resp\.http:1: "HTTP/1.1 404 Not Found" is no request line`}},
		{"a refused module", []string{written(t, "bad.wasm", forbidden()), "--request", request}, 1, []string{`open_file`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out, errs := command(append([]string{"wasm", "test"}, c.args...)...)
			for _, want := range c.want {
				if code != c.code || !regexp.MustCompile(want).MatchString(out+errs) {
					t.Errorf("got %d\n%s%s\nwant %d and %s", code, out, errs, c.code, want)
				}
			}
		})
	}
	code, out, _ := command("wasm", "test", setter, "--request", request, "--json")
	var b trialBody
	if err := json.Unmarshal([]byte(out), &b); err != nil || code != 0 || b.Result != "continue" || !slices.Equal(b.Got.Added, []string{"X-New: 1"}) ||
		len(b.Sent.Added)+len(b.Sent.Removed) != 0 || b.Stages["viewer_request"].Calls != 1 {
		t.Errorf("--json: got %d %s, %v", code, out, err)
	}
}

// A function that answers, changes content, or fails is shown as such.
func TestWasmTestShowsAnswersAndFailures(t *testing.T) {
	request := written(t, "req.http", []byte("POST http://shop.example/ HTTP/1.1\n\nhello"))
	answering := new(module)
	write := answering.imported("write_body", 2)
	answering.code = slices.Concat(i32(1), answering.text("no entry"), write, []byte{0x42, 0, 0x0f}) // return 0: no next
	// It serves the machine's first requests, GET / and POST /, as it is tried.
	late := new(module)
	late.imported("log", 2)
	late.text("x")
	late.code = slices.Concat(i32(0), i32(0), []byte{0x28, 2, 0}, i32(1), []byte{0x6a, 0x36, 2, 0},
		i32(0), []byte{0x28, 2, 0}, i32(1), []byte{0x4a, 0x04, 0x40, 0x03, 0x40, 0x0c, 0, 0x0b, 0x0b})
	for _, c := range []struct {
		name   string
		module []byte
		code   int
		want   []string
	}{
		{"an answer", answering.bytes(), 0, []string{"answered   the function answered", "response   200 OK", "8 bytes: \"no entry\""}},
		{"a loop", late.bytes(), 1, []string{"1 trap by cpu", "failed at viewer_request: cpu", "log        warn: wasm: trap"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out, errs := command("wasm", "test", written(t, "m.wasm", c.module), "--request", request, "--mode", "shared")
			for _, want := range c.want {
				if code != c.code || !strings.Contains(out+errs, want) {
					t.Errorf("got %d\n%s%s\nwant %d and %q", code, out, errs, c.code, want)
				}
			}
		})
	}
}

func TestMessages(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       string // start line as a URL, fields in order, content; or the error
	}{
		{"a request", "GET /a%20b?c HTTP/1.1\nHost: h\nB: 1\nA:  2 \n\n", "GET http://h/a%20b?c|A: 2|B: 1|"},
		{"CRLF and content", "POST / HTTP/1.1\r\nHost: h:80\r\nContent-Length: 3\r\n\r\nx\r\n", "POST http://h:80/|Content-Length: 3|x\r\n"},
		{"a URL", "GET https://h/a HTTP/2\nAccept: b", "GET https://h/a|Accept: b|"},
		{"a URL without a path", "GET https://h?q HTTP/1.1\n\n", "GET https://h/?q|"},
		{"a repeated field", "GET / HTTP/1.1\nHost: h\nA: 1\na: 2\n\n", "GET http://h/|A: 1, 2|"},
		{"nothing", "", `1: "" is no request line; write METHOD /path HTTP/1.1`},
		{"three words", "GET /a b HTTP/1.1\nHost: h\n\n", `1: "GET /a b HTTP/1.1" is no request line; write METHOD /path HTTP/1.1`},
		{"no version", "GET /a HTTP/9\nHost: h\n\n", `1: "GET /a HTTP/9" is no request line; write METHOD /path HTTP/1.1`},
		{"no host", "GET / HTTP/1.1\n\n", `2: there is no Host; add one, or give an absolute URL`},
		{"two hosts", "GET / HTTP/1.1\nHost: a\nHost: b\n\n", `2: Host is not one name`},
		{"no target", "GET a HTTP/1.1\nHost: h\n\n", `1: "a" is neither a path nor an absolute URL`},
		{"a target's bytes", "GET /\x7f HTTP/1.1\nHost: h\n\n", "1: \"/\\x7f\" has what a target does not have; percent-encode it"},
		{"a folded line", "GET / HTTP/1.1\nHost: h\n  more\n\n", `3: "  more" is not a field; write Name: value, and an empty line behind the last`},
		{"no field", "GET / HTTP/1.1\nHost : h\n\n", `2: "Host : h" is not a field; write Name: value, and an empty line behind the last`},
		{"another length", "GET / HTTP/1.1\nHost: h\nContent-Length: 4\n\nabc", `1: Content-Length is "4", and 3 bytes follow the empty line; leave it out`},
		{"chunks", "GET / HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\n\n0\n\n", "1: Transfer-Encoding is not read here; the content is what follows the empty line, as it is"},
		{"no end", "GET / HTTP/1.1\n" + strings.Repeat("A: b\n", 300), `201: the head is too large; an empty line ends it`},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, content, err := parseRequest([]byte(c.text))
			if got := said(m, content, err); got != c.want {
				t.Errorf("%q\ngot  %q\nwant %q", c.text, got, c.want)
			}
		})
	}
	for _, c := range []struct{ name, text, want string }{
		{"a response", "HTTP/1.1 200 OK\nA: b\n\nx", "200 OK|A: b|x"},
		{"without a reason", "HTTP/2 404\n\n", "404 Not Found|"},
		{"an interim one", "HTTP/1.1 100 Continue\n\n", `1: "HTTP/1.1 100 Continue" is no status line; write HTTP/1.1 200 OK`},
		{"a number of another length", "HTTP/1.1 0200\n\n", `1: "HTTP/1.1 0200" is no status line; write HTTP/1.1 200 OK`},
		{"a request", "GET / HTTP/1.1\n\n", `1: "GET / HTTP/1.1" is no status line; write HTTP/1.1 200 OK`},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, content, err := parseResponse([]byte(c.text))
			if got := said(m, content, err); got != c.want {
				t.Errorf("%q\ngot  %q\nwant %q", c.text, got, c.want)
			}
		})
	}
}

func said(m *abi.Message, content []byte, err error) string {
	if err != nil {
		return err.Error()
	}
	parts := []string{line(m)}
	for _, l := range fieldLines(m.Header, nil) {
		name, value, _ := strings.Cut(l, ": ")
		if last := parts[len(parts)-1]; strings.HasPrefix(last, name+": ") {
			parts[len(parts)-1] = last + ", " + value
			continue
		}
		parts = append(parts, l)
	}
	if v := m.Header.Get("Content-Length"); v != "" { // which fieldLines leaves out
		parts = append(parts, "Content-Length: "+v)
	}
	return strings.Join(append(parts, string(content)), "|")
}

// Any bytes are a message or an error, and a message's parts fit a head.
func FuzzMessage(f *testing.F) {
	f.Add("GET / HTTP/1.1\nHost: a\n\nx")
	f.Add("HTTP/1.1 200 OK\r\nA: b\r\n\r\n")
	f.Add("GET http://a:b@c HTTP/1.1\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		if m, _, err := parseRequest([]byte(text)); err == nil {
			if m.Authority == "" || !strings.HasPrefix(m.Target, "/") || strings.ContainsAny(m.Target+m.Authority+m.Method, " \r\n") {
				t.Errorf("%q: got %q %q %q", text, m.Method, m.Authority, m.Target)
			}
		}
		if m, _, err := parseResponse([]byte(text)); err == nil && (m.Status < 200 || m.Status > 599) {
			t.Errorf("%q: got status %d", text, m.Status)
		}
	})
}
