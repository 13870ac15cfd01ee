package listen

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// witness records each request as a handler sees it.
type witness struct {
	mu   sync.Mutex
	seen []string // guarded by mu
}

func (v *witness) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	line := fmt.Sprintf("%s %s %s %q", r.Method, r.Host, r.RequestURI, body)
	if err != nil {
		line += " broken"
	}
	v.mu.Lock()
	v.seen = append(v.seen, line)
	v.mu.Unlock()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	fmt.Fprint(w, "answered")
}

func (v *witness) told() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return strings.Join(v.seen, "; ")
}

// hidden is a request that must never be found in another's content.
const hidden = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"

// Each probe is refused, or read in the one way that every other reader of
// RFC 9112 would. In want, what comes before "|" is what the handler saw, and
// what comes behind are the statuses answered; the connection is closed.
func TestAmbiguousRequests(t *testing.T) {
	post := func(fields, body string) string {
		return "POST /p HTTP/1.1\r\nHost: a\r\n" + fields + "\r\n" + body
	}
	chunked := func(body string) string { return post("Transfer-Encoding: chunked\r\n", body) }
	get := func(fields string) string { return "GET /g HTTP/1.1\r\n" + fields + "\r\n" }
	const ok = `POST a /p "abc"|200`
	for _, c := range []struct{ name, send, want string }{
		{"CL and TE", post("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n"), ok},
		{"CL and TE, CL spans the next", post("Content-Length: 60\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), `POST a /p ""|200`},
		{"TE and CL", post("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", "3\r\nabc\r\n0\r\n\r\n"), ok},
		{"two CL that differ", post("Content-Length: 3\r\nContent-Length: 4\r\n", "abcd"), "|400"},
		{"CL list", post("Content-Length: 3, 3\r\n", "abc"), "|400"},
		{"CL list that differs", post("Content-Length: 3, 4\r\n", "abc"), "|400"},
		{"CL plus", post("Content-Length: +3\r\n", "abc"), "|400"},
		{"CL minus", post("Content-Length: -3\r\n", "abc"), "|400"},
		{"CL hex", post("Content-Length: 0x3\r\n", "abc"), "|400"},
		{"CL space inside", post("Content-Length: 1 3\r\n", "abc"), "|400"},
		{"CL empty", post("Content-Length: \r\n", "abc"), "|400"},
		{"CL underscore", post("Content-Length: 1_0\r\n", "abc"), "|400"},
		{"CL overflow", post("Content-Length: 99999999999999999999\r\n", "abc"), "|400"},
		{"CL space before colon", post("Content-Length : 3\r\n", "abc"), "|400"},
		{"CL tab before colon", post("Content-Length\t: 3\r\n", "abc"), "|400"},
		{"TE space before colon", post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"), "|400"},
		{"TE behind a bare CR", post("X: y\rTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), "|400"},
		{"TE behind a bare LF", post("X: y\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), "|400"},
		{"TE folded", post("Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n"), "|400"},
		{"first field folded", "GET /g HTTP/1.1\r\n Host: a\r\nHost: a\r\n\r\n", "|400"},
		{"TE identity", post("Transfer-Encoding: identity\r\nContent-Length: 3\r\n", "abc"), "|501"},
		{"TE xchunked", post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"), "|501"},
		{"TE chunked twice", post("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"), "|501"},
		{"TE in two lines", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), "|501"},
		{"TE gzip, chunked", post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"), "|501"},
		{"TE parameter", post("Transfer-Encoding: chunked;q=1\r\n", "0\r\n\r\n"), "|501"},
		{"TE quoted", post("Transfer-Encoding: \"chunked\"\r\n", "0\r\n\r\n"), "|501"},
		{"TE vertical tab", post("Transfer-Encoding: \x0bchunked\r\n", "0\r\n\r\n"), "|400"},
		{"TE empty", post("Transfer-Encoding:\r\nContent-Length: 3\r\n", "abc"), "|501"},
		{"TE upper case", post("Transfer-Encoding: CHUNKED\r\n", "3\r\nabc\r\n0\r\n\r\n"), ok},
		{"TE in HTTP/1.0", "POST /p HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", `POST a /p ""|200`},
		{"TE and CL in HTTP/1.0", "POST /p HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc", ok},
		{"chunk extension", chunked("3;name=value\r\nabc\r\n0\r\n\r\n"), ok},
		{"chunk extension with bare LF", chunked("3;a\nabc\r\n0\r\n\r\n"), `POST a /p "" broken|`},
		{"chunk size with 0x", chunked("0x3\r\nabc\r\n0\r\n\r\n"), `POST a /p "" broken|`},
		{"chunk size plus", chunked("+3\r\nabc\r\n0\r\n\r\n"), `POST a /p "" broken|`},
		{"chunk size minus", chunked("-3\r\nabc\r\n0\r\n\r\n"), `POST a /p "" broken|`},
		{"chunk size empty", chunked("\r\nabc\r\n0\r\n\r\n"), `POST a /p "" broken|`},
		{"chunk size overflow", chunked("10000000000000003\r\nabc\r\n0\r\n\r\n"), `POST a /p "" broken|`},
		{"chunk without CRLF behind", chunked("3\r\nabc0\r\n\r\n"), `POST a /p "abc" broken|`},
		{"chunk longer than its size", chunked("3\r\nabcdef\r\n0\r\n\r\n"), `POST a /p "abc" broken|`},
		{"chunk ended by bare LF", chunked("3\r\nabc\n0\r\n\r\n"), `POST a /p "abc" broken|`},
		{"chunk size ended by bare LF", chunked("3\nabc\r\n0\r\n\r\n"), `POST a /p "" broken|`},
		{"chunk trailers that frame", chunked("3\r\nabc\r\n0\r\nContent-Length: 99\r\nTransfer-Encoding: chunked\r\nHost: b\r\n\r\n"), ok},
		{"trailer announced that frames", post("Transfer-Encoding: chunked\r\nTrailer: Content-Length\r\n", "0\r\n\r\n"), "|400"},
		{"NUL in a name", get("Host: a\r\nX\x00: y\r\n"), "|400"},
		{"NUL in a value", get("Host: a\r\nX: y\x00z\r\n"), "|400"},
		{"NUL in the target", "GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n", "|400"},
		{"CR in the target", "GET /\rb HTTP/1.1\r\nHost: a\r\n\r\n", "|400"},
		{"space in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", "|400"},
		{"two spaces", "GET  /a HTTP/1.1\r\nHost: a\r\n\r\n", "|400"},
		{"tab for space", "GET\t/a HTTP/1.1\r\nHost: a\r\n\r\n", "|400"},
		{"target without slash", "GET a HTTP/1.1\r\nHost: a\r\n\r\n", "|400"},
		{"asterisk for GET", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", "|400"},
		{"method with a separator", "G(T /g HTTP/1.1\r\nHost: a\r\n\r\n", "|400"},
		{"no Host", get(""), "|400"},
		{"empty Host", get("Host:\r\n"), "|400"},
		{"two Hosts", get("Host: a\r\nHost: a\r\n"), "|400"},
		{"Host with a slash", get("Host: a/b\r\n"), "|400"},
		{"Host with a user", get("Host: u@a\r\n"), "|400"},
		{"Host with a space", get("Host: a b\r\n"), "|400"},
		{"absolute form, another Host", "GET http://b/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", `GET b http://b/x ""|200`},
		{"absolute form with a user", "GET http://u@b/x HTTP/1.1\r\nHost: b\r\n\r\n", "|400"},
		{"absolute form without host", "GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", "|400"},
		{"absolute form of another scheme", "GET ftp://b/x HTTP/1.1\r\nHost: a\r\n\r\n", "|400"},
		{"opaque target", "GET http:x HTTP/1.1\r\nHost: a\r\n\r\n", "|400"},
		{"line without colon", get("Host: a\r\nnonsense\r\n"), "|400"},
		{"nameless field", get("Host: a\r\n: x\r\n"), "|400"},
		{"name with a parenthesis", get("Host: a\r\nX(: y\r\n"), "|400"},
		{"name with a high byte", get("Host: a\r\nX\xff: y\r\n"), "|400"},
		{"large line", "GET /" + strings.Repeat("x", 20<<10) + " HTTP/1.1\r\nHost: a\r\n\r\n", "|431"},
		{"large field", get("Host: a\r\nX: " + strings.Repeat("x", 20<<10) + "\r\n"), "|431"},
		{"many fields", get("Host: a\r\n" + strings.Repeat("X: y\r\n", 4<<10)), "|431"},
		{"HTTP/0.9", "GET /g\r\n\r\n", "|400"},
		{"HTTP/2.0 in a line", "GET /g HTTP/2.0\r\nHost: a\r\n\r\n", "|505"},
		{"HTTP/3.0 in a line", "GET /g HTTP/3.0\r\nHost: a\r\n\r\n", "|505"},
		{"http in lower case", "GET /g http/1.1\r\nHost: a\r\n\r\n", "|400"},
		{"a version of three digits", "GET /g HTTP/1.10\r\nHost: a\r\n\r\n", "|400"},
		{"half a preface", "PRI * HTTP/2.0\r\n\r\n", "|400"},
		{"Upgrade: h2c is a plain request", get("Host: a\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"), `GET a /g ""|200`},
		{"content of a GET", get("Host: a\r\nContent-Length: 32\r\nConnection: close\r\n") + "GET /inner HTTP/1.1\r\nHost: a\r\n\r\n", `GET a /g "GET /inner HTTP/1.1\r\nHost: a\r\n\r\n"|200`},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := new(witness)
			n := start(t, &Server{MaxHeaderBytes: 8 << 10, Handler: v})
			statuses := probe(t, n.addr, c.send+hidden)
			if got := v.told() + "|" + statuses; got != c.want {
				t.Errorf("sent %.200q\n got %s\nwant %s", c.send, got, c.want)
			}
			refused := strings.HasPrefix(c.want, "|")
			if got := n.seen(Malformed); (got > 0) != refused {
				t.Errorf("sent %.200q\ncounted %d malformed, want some: %v", c.send, got, refused)
			}
		})
	}
}

// What follows a request that is framed alike by all readers is a request.
func TestPipelinedRequestsAreServed(t *testing.T) {
	for _, c := range []struct{ name, send, want string }{
		{"behind no content", "GET /g HTTP/1.1\r\nHost: a\r\n\r\n", `GET a /g ""; GET a /next ""|200 200`},
		{"behind content", "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", `POST a /p "abc"; GET a /next ""|200 200`},
		{"behind the same length twice", "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", `POST a /p "abc"; GET a /next ""|200 200`},
		{"behind empty lines", "\r\n\r\nGET /g HTTP/1.1\r\nHost: a\r\n\r\n", "|400"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := new(witness)
			n := start(t, &Server{Handler: v})
			statuses := probe(t, n.addr, c.send+"GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
			if got := v.told() + "|" + statuses; got != c.want {
				t.Errorf("sent %q\n got %s\nwant %s", c.send, got, c.want)
			}
		})
	}
}

// probe sends raw bytes and returns the statuses answered until the node
// closes.
func probe(t *testing.T, addr, send string) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	go io.WriteString(c, send)
	var statuses []string
	for in := bufio.NewReader(c); ; {
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			return strings.Join(statuses, " ")
		}
		io.Copy(io.Discard, res.Body)
		res.Body.Close()
		statuses = append(statuses, fmt.Sprint(res.StatusCode))
	}
}
