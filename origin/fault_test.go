package origin

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// outcome is what a faulty origin's answer must come to.
type outcome struct {
	kind       string // "": none
	unanswered bool
	body       string // what was read before the error
	cut        bool   // the error wraps io.ErrUnexpectedEOF
	status     int    // of a response, before any error in its body
}

const timing = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"

// TestFaultyOrigins runs each origin in virtual time: one that made the client
// hang would stop the test as a deadlock.
func TestFaultyOrigins(t *testing.T) {
	ok := outcome{status: 200, body: "hello"}
	tests := []struct {
		name   string
		origin func(*peer)
		want   outcome
	}{
		{"answers", once(hello), ok},
		{"closes without an answer", func(p *peer) { p.request() }, outcome{kind: connTerminated, unanswered: true}},
		{"closes before the request", func(*peer) {}, outcome{kind: connTerminated, unanswered: true}},
		{"dies in the head", once("HTTP/1.1 200 OK\r\nConte"), outcome{kind: responseIncomplete, cut: true}},
		{"dies in the body", once(timing + "half"), outcome{kind: responseIncomplete, status: 200, body: "half", cut: true}},
		{"dies before the body", once(timing), outcome{kind: responseIncomplete, status: 200, cut: true}},
		{"dies in a chunk", once(chunkedHead + "5\r\nhel"), outcome{kind: responseIncomplete, status: 200, body: "hel", cut: true}},
		{"dies between chunks", once(chunkedHead + "5\r\nhello\r\n"), outcome{kind: responseIncomplete, status: 200, body: "hello", cut: true}},
		{"dies in a chunk's size", once(chunkedHead + "5\r\nhello\r\n1"), outcome{kind: responseIncomplete, status: 200, body: "hello", cut: true}},
		{"dies before the trailer", once(chunkedHead + "5\r\nhello\r\n0\r\n"), outcome{kind: responseIncomplete, status: 200, body: "hello", cut: true}},
		{"dies in the trailer", once(chunkedHead + "0\r\nA: b\r\n"), outcome{kind: responseIncomplete, status: 200, cut: true}},
		{"stalls before the head", stall(""), outcome{kind: responseTimeout, unanswered: true}},
		{"stalls in the head", stall("HTTP/1.1 200 OK\r\n"), outcome{kind: responseTimeout}},
		{"stalls after an interim", stall("HTTP/1.1 103 Hints\r\n\r\n"), outcome{kind: responseTimeout}},
		{"stalls before the body", stall(timing), outcome{kind: responseTimeout, status: 200}},
		{"stalls in the body", stall(timing + "half"), outcome{kind: responseTimeout, status: 200, body: "half"}},
		{"stalls in a chunk", stall(chunkedHead + "5\r\nhel"), outcome{kind: responseTimeout, status: 200, body: "hel"}},
		{"stalls before the last chunk", stall(chunkedHead + "5\r\nhello\r\n"), outcome{kind: responseTimeout, status: 200, body: "hello"}},
		{"stalls in the trailer", stall(chunkedHead + "0\r\nA: b\r\n"), outcome{kind: responseTimeout, status: 200}},
		{"stalls before closing", stall("HTTP/1.1 200 OK\r\n\r\nhello"), outcome{kind: responseTimeout, status: 200, body: "hello"}},
		{"sends more than its length", once(timing + "0123456789surplus"), outcome{status: 200, body: "0123456789"}},
		{"sends a body with 204", once("HTTP/1.1 204 No Content\r\n\r\nhello"), outcome{status: 204}},
		{"sends a body with 304", once("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello"), outcome{status: 304}},
		{"HTTP/1.0", once("HTTP/1.0 200 OK\r\n\r\nhello"), ok},
		{"HTTP/1.0 with a length", once("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello"), ok},
		{"HTTP/1.0 cut", once("HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\nhello"),
			outcome{kind: responseIncomplete, status: 200, body: "hello", cut: true}},
		{"keep-alive without a length", once("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\nhello"), ok},
		{"unknown transfer coding", once("HTTP/1.1 200 OK\r\nTransfer-Encoding: foo\r\n\r\nhello"), ok},
		{"identity", once("HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nhello"), ok},
		{"chunks under a coding", once("HTTP/1.1 200 OK\r\nTransfer-Encoding: foo, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), outcome{kind: responseCoding}},
		{"garbage chunk size", once(chunkedHead + "xyz\r\nhello\r\n0\r\n\r\n"), outcome{kind: responseCoding, status: 200}},
		{"huge chunk size", once(chunkedHead + "fffffffffffffffff\r\nhello"), outcome{kind: responseCoding, status: 200}},
		{"negative chunk size", once(chunkedHead + "-5\r\nhello\r\n0\r\n\r\n"), outcome{kind: responseCoding, status: 200}},
		{"empty chunk size", once(chunkedHead + "\r\nhello\r\n0\r\n\r\n"), outcome{kind: responseCoding, status: 200}},
		{"bare LF after a chunk size", once(chunkedHead + "5\nhello\r\n0\r\n\r\n"), outcome{kind: responseCoding, status: 200}},
		{"chunk longer than its size", once(chunkedHead + "4\r\nhello\r\n0\r\n\r\n"), outcome{kind: responseCoding, status: 200, body: "hell"}},
		{"endless chunk size", func(p *peer) { p.request(); p.send(chunkedHead); p.flood("1") }, outcome{kind: responseCoding, status: 200}},
		{"endless trailer", func(p *peer) { p.request(); p.send(chunkedHead + "0\r\n"); p.flood("A: b\r\n") }, outcome{kind: responseCoding, status: 200}},
		{"malformed trailer", once(chunkedHead + "0\r\nA : b\r\n\r\n"), outcome{kind: protocolError, status: 200}},
		{"bare CR in the trailer", once(chunkedHead + "0\r\nA: b\rC\r\n\r\n"), outcome{kind: protocolError, status: 200}},
		{"bare LF in the trailer", once(chunkedHead + "0\r\nA: b\nC: d\r\n\r\n"), outcome{kind: protocolError, status: 200}},
		{"folded line in the trailer", once(chunkedHead + "0\r\nA: b\r\n c\r\n\r\n"), outcome{kind: protocolError, status: 200}},
		{"folded first line of the trailer", once(chunkedHead + "0\r\n A: b\r\n\r\n"), outcome{kind: protocolError, status: 200}},
		{"endless interims", func(p *peer) { p.request(); p.flood("HTTP/1.1 103 Hints\r\n\r\n") }, outcome{kind: protocolError}},
		{"endless head", func(p *peer) { p.request(); p.send("HTTP/1.1 200 OK\r\n"); p.flood("A: b\r\n") }, outcome{kind: responseHeadSize}},
		{"endless field", func(p *peer) { p.request(); p.send("HTTP/1.1 200 OK\r\nA: "); p.flood("b") }, outcome{kind: responseHeadSize}},
		{"endless status line", func(p *peer) { p.request(); p.flood("H") }, outcome{kind: responseHeadSize}},
		{"garbage", once("\x16\x03\x01\x00\n"), outcome{kind: protocolError}},
		{"malformed head", once("HTTP/1.1 200 OK\r\nA : b\r\n\r\n"), outcome{kind: protocolError}},
		{"length beside chunks", once("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), outcome{kind: protocolError}},
		{"huge length", once("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n"), outcome{kind: protocolError}},
		{"bad trailer declared", once("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Content-Length\r\n\r\n0\r\n\r\n"), outcome{kind: protocolError}},
		{"unasked upgrade", once("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"), outcome{kind: upgradeFailed}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, _, stop := pipePool(t, Config{}, tt.origin)
				defer stop()
				checkOutcome(t, get(t, p), tt.want)
				if st := p.Stats(); st.InFlight != 0 || tt.want.kind != "" && (st.Errors[tt.want.kind] != 1 || st.Idle != 0) {
					t.Errorf("afterwards: %+v", st)
				}
			})
		})
	}
}

const chunkedHead = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

// flood sends s until the client closes.
func (p *peer) flood(s string) {
	s = strings.Repeat(s, 1000)
	for {
		if _, err := io.WriteString(p.Conn, s); err != nil {
			return
		}
	}
}

func checkOutcome(t *testing.T, got result, want outcome) {
	t.Helper()
	var e *Error
	unanswered := errors.As(got.err, &e) && e.Unanswered()
	if kind(got.err) != want.kind || unanswered != want.unanswered || got.body != want.body || got.status != want.status {
		t.Errorf("got %d %q, %v (kind %q, unanswered %v), want %+v", got.status, got.body, got.err, kind(got.err), unanswered, want)
	}
	if errors.Is(got.err, io.ErrUnexpectedEOF) != want.cut || got.err == io.EOF {
		t.Errorf("error %v: wraps io.ErrUnexpectedEOF %v, want %v", got.err, !want.cut, want.cut)
	}
	if got.header.Get("Transfer-Encoding") != "" {
		t.Errorf("Transfer-Encoding was left in %v", got.header)
	}
}

// TestNoReuseAfterOddAnswers checks that an answer whose end or framing is not
// certain costs the connection.
func TestNoReuseAfterOddAnswers(t *testing.T) {
	tests := []struct {
		name, method, answer string
		surplus              bool
		dials                int
	}{
		{"clean", "GET", hello, false, 1},
		{"clean chunks", "GET", chunkedHead + "5\r\nhello\r\n0\r\nX: y\r\n\r\n", false, 1},
		{"clean HEAD", "HEAD", timing, false, 1},
		{"clean HEAD without a length", "HEAD", "HTTP/1.1 200 OK\r\n\r\n", false, 1},
		{"HTTP/1.0 kept alive", "GET", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello", false, 1},
		{"HTTP/1.0", "GET", "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", false, 2},
		{"close", "GET", "HTTP/1.1 200 OK\r\nConnection: x, close\r\nContent-Length: 5\r\n\r\nhello", false, 2},
		{"more than the length", "GET", hello + "x", true, 2},
		{"a second answer", "GET", hello + hello, true, 2},
		{"HEAD with a body", "HEAD", hello, true, 2},
		{"204 with a body", "GET", "HTTP/1.1 204 No Content\r\n\r\nx", true, 2},
		{"304 with a body", "GET", "HTTP/1.1 304 Not Modified\r\n\r\nx", true, 2},
		{"more than the last chunk", "GET", chunkedHead + "0\r\n\r\nx", true, 2},
		{"HEAD with an unknown coding", "HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: foo\r\n\r\n", false, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, o, stop := pipePool(t, Config{}, answers(tt.answer))
				defer stop()
				for range 2 {
					if r := do(p, newRequest(t, tt.method, "http://site.test/", nil)); r.err != nil {
						t.Fatal(r.err)
					}
					time.Sleep(settled)
				}
				if st := p.Stats(); o.dialled() != tt.dials || (st.Surplus > 0) != tt.surplus {
					t.Errorf("%s %q twice: %d connections, %d with surplus, want %d and surplus %v",
						tt.method, tt.answer, o.dialled(), st.Surplus, tt.dials, tt.surplus)
				}
			})
		})
	}
}

func TestResponseHeaderIsTheServersOwn(t *testing.T) {
	p, _, stop := pipePool(t, Config{}, answers("HTTP/1.1 200 OK\r\nPragma: no-cache\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nContent-Length: 0\r\n\r\n"))
	defer stop()
	r := get(t, p)
	if _, made := r.header["Cache-Control"]; made || r.err != nil {
		t.Errorf("got %v, %v, want no Cache-Control", r.header, r.err)
	}
	if got := r.header.Get("Connection"); got != "close, X-Hop" {
		t.Errorf("Connection: got %q, want what the server sent", got)
	}
}

func TestTrailers(t *testing.T) {
	p, _, stop := pipePool(t, Config{}, answers("HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n"+
		"5\r\nhello\r\n0\r\nX-Sum: 1\r\nX-Other: 2\r\n\r\n"))
	defer stop()
	resp, err := p.RoundTrip(newRequest(t, "GET", "http://site.test/", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, declared := resp.Trailer["X-Sum"]; !declared {
		t.Errorf("before the end: got %v, want X-Sum declared", resp.Trailer)
	}
	if b, err := io.ReadAll(resp.Body); string(b) != "hello" || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
	if resp.Trailer.Get("X-Sum") != "1" || resp.Trailer.Get("X-Other") != "2" {
		t.Errorf("after the end: got %v", resp.Trailer)
	}
}

// TestForbiddenTrailersAreDropped checks fields that would change the message if
// somebody merged them into its header.
func TestForbiddenTrailersAreDropped(t *testing.T) {
	names := []string{"Age", "Authorization", "Cache-Control", "Cdn-Cache-Control", "Content-Encoding", "Content-Length", "Content-Range",
		"Content-Type", "Cookie", "Expires", "Host", "If-Match", "Location", "Set-Cookie", "Surrogate-Control", "Transfer-Encoding",
		"Vary", "Www-Authenticate"}
	p, _, stop := pipePool(t, Config{}, answers("HTTP/1.1 200 OK\r\nTrailer: X-Sum, Set-Cookie\r\nTransfer-Encoding: chunked\r\n\r\n"+
		"5\r\nhello\r\n0\r\n"+strings.Join(names, ": 1\r\n")+": 1\r\nx-sum: 1\r\nEtag: \"a\"\r\n\r\n"))
	defer stop()
	resp, err := p.RoundTrip(newRequest(t, "GET", "http://site.test/", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, declared := resp.Trailer["Set-Cookie"]; declared || len(resp.Trailer) != 1 {
		t.Errorf("declared: got %v, want X-Sum alone", resp.Trailer)
	}
	if b, err := io.ReadAll(resp.Body); string(b) != "hello" || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
	if len(resp.Trailer) != 2 || resp.Trailer.Get("X-Sum") != "1" || resp.Trailer.Get("Etag") != `"a"` {
		t.Errorf("got %v, want X-Sum and Etag", resp.Trailer)
	}
}

func TestReadAfterClose(t *testing.T) {
	p, _, stop := pipePool(t, Config{}, answers(hello))
	defer stop()
	resp, err := p.RoundTrip(newRequest(t, "GET", "http://site.test/", nil))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if _, err := resp.Body.Read(make([]byte, 1)); err != http.ErrBodyReadAfterClose {
		t.Errorf("got %v", err)
	}
	if st := p.Stats(); st.Idle != 0 || st.InFlight != 0 || len(st.Errors) != 0 {
		t.Errorf("after an early Close: %+v, want no connection kept, none in flight, no error", st)
	}
}
