//lint:file-ignore SA1019 http.Transport refuses to send :protocol; that of x/net sends it.

package listen

import (
	"bufio"
	"context"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"seawall/edge"
	upstream "seawall/origin"
)

// offered tells whether this process was started with what makes net/http
// offer extended CONNECT in HTTP/2. It is read when the process starts.
func offered() bool { return strings.Contains(os.Getenv("GODEBUG"), "http2xconnect=1") }

// withConnect runs the calling test in a process where HTTP/2 has extended
// CONNECT, and reports whether this is that process.
func withConnect(t *testing.T) bool {
	t.Helper()
	if offered() {
		return true
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run", "^"+t.Name()+"$", "-test.timeout", "90s", "-test.v")
	cmd.Env = append(os.Environ(), "GODEBUG=http2xconnect=1")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("in a process of its own: %v\n%s", err, out)
	}
	return false
}

// echoes is an origin that speaks WebSocket as its path says.
func echoes(t *testing.T, saw chan<- string) *httptest.Server {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key := r.Header.Get("Sec-WebSocket-Key")
		nonce, _ := base64.StdEncoding.DecodeString(key)
		said := fmt.Sprint(r.Method, " ", r.RequestURI, " ", r.Header["Connection"], r.Header["Upgrade"], r.Header["Sec-Websocket-Version"],
			len(nonce), r.Header["Sec-Websocket-Protocol"], r.Header["Sec-Websocket-Extensions"], r.Header["Origin"], r.Header["Cookie"], r.ContentLength)
		select {
		case saw <- said:
		default:
		}
		switch r.URL.Path {
		case "/forbidden":
			http.Error(w, "not you", http.StatusForbidden)
			return
		case "/page":
			io.WriteString(w, "a page")
			return
		case "/wrong":
			key = "another"
		}
		conn, in, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
			"Sec-WebSocket-Accept: %s\r\nSec-WebSocket-Protocol: chat\r\nX-Kept: yes\r\n\r\n", base64.StdEncoding.EncodeToString(sum[:]))
		echoFrames(conn, in.Reader, r.URL.Path)
	}))
	t.Cleanup(s.Close)
	return s
}

// echoFrames sends each frame back, the client's mask removed.
func echoFrames(conn net.Conn, in *bufio.Reader, path string) {
	for {
		kind, payload, err := readFrame(in)
		if err == io.EOF {
			_ = writeFrame(conn, 1, []byte("you ended"), false) // the client may be gone
			return
		}
		if err != nil || writeFrame(conn, kind, payload, false) != nil {
			return
		}
		switch {
		case kind == 8:
			return
		case path == "/dies":
			conn.(*net.TCPConn).SetLinger(0)
			return
		}
	}
}

// writeFrame writes one frame (RFC 6455, 5.2), masked as a client must.
func writeFrame(w io.Writer, kind byte, payload []byte, masked bool) error {
	b := []byte{0x80 | kind}
	var mask byte
	if masked {
		mask = 0x80
	}
	switch n := len(payload); {
	case n < 126:
		b = append(b, mask|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, mask|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, mask|127), uint64(n))
	}
	if masked {
		key := [4]byte{1, 2, 3, 4}
		b = append(b, key[:]...)
		payload = slices.Clone(payload)
		for i := range payload {
			payload[i] ^= key[i%4]
		}
	}
	_, err := w.Write(append(b, payload...))
	return err
}

func readFrame(r io.Reader) (kind byte, payload []byte, err error) {
	var head [14]byte
	if _, err := io.ReadFull(r, head[:2]); err != nil {
		return 0, nil, err
	}
	n := uint64(head[1] & 0x7f)
	wide := map[uint64]int{126: 2, 127: 8}[n]
	if _, err := io.ReadFull(r, head[2:2+wide]); err != nil {
		return 0, nil, err
	}
	switch wide {
	case 2:
		n = uint64(binary.BigEndian.Uint16(head[2:]))
	case 8:
		n = binary.BigEndian.Uint64(head[2:])
	}
	var key [4]byte
	if head[1]&0x80 != 0 {
		if _, err := io.ReadFull(r, key[:]); err != nil {
			return 0, nil, err
		}
	}
	payload = make([]byte, min(n, 1<<20))
	_, err = io.ReadFull(r, payload)
	for i := range payload {
		payload[i] ^= key[i%4]
	}
	return head[0] & 0xf, payload, err
}

// socket is a client's end of a WebSocket.
type socket struct {
	io.Reader
	io.Writer
	end   func() // ends the client's side
	reset func() // breaks it off
	res   *http.Response
}

// opener opens a WebSocket the way of one protocol.
func (p protocol) opener(t *testing.T, n *fullNode) func(path string, set http.Header) (*socket, error) {
	if p.index == 0 {
		return func(path string, set http.Header) (*socket, error) { return p.openFirst(t, n, path, set) }
	}
	var via http.RoundTripper
	if p.index == 2 {
		via = quicTransport(t, n)
	} else {
		second := &http2.Transport{TLSClientConfig: n.trust.Clone(), DisableCompression: true}
		if !p.secure {
			second.AllowHTTP = true
			second.DialTLSContext = func(ctx context.Context, network, addr string, _ *tls.Config) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, network, addr)
			}
		}
		t.Cleanup(second.CloseIdleConnections)
		via = second
	}
	return func(path string, set http.Header) (*socket, error) { return p.connect(t, n, via, path, set) }
}

// openFirst opens one by HTTP/1.1 Upgrade.
func (p protocol) openFirst(t *testing.T, n *fullNode, path string, set http.Header) (*socket, error) {
	var conn interface {
		net.Conn
		CloseWrite() error
	}
	if p.secure {
		c, err := tls.Dial("tcp", n.secure, n.trust.Clone())
		if err != nil {
			return nil, err
		}
		conn = c
	} else {
		conn = n.dial(t).(*net.TCPConn)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	r, _ := http.NewRequest("GET", "http://a"+path, nil)
	maps.Copy(r.Header, set)
	r.Header["Connection"], r.Header["Upgrade"] = []string{"Upgrade"}, []string{"websocket"}
	r.Header["Sec-Websocket-Key"] = []string{"dGhlIHNhbXBsZSBub25jZQ=="}
	r.Write(conn)
	in := bufio.NewReader(conn)
	res, err := http.ReadResponse(in, r)
	if err != nil {
		return nil, err
	}
	s := &socket{Reader: in, Writer: conn, res: res, end: func() { conn.CloseWrite() }, reset: func() { conn.Close() }}
	if res.StatusCode != http.StatusSwitchingProtocols {
		s.Reader = res.Body
	}
	return s, nil
}

// connect opens one by extended CONNECT.
func (p protocol) connect(t *testing.T, n *fullNode, via http.RoundTripper, path string, set http.Header) (*socket, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	up, end := io.Pipe()
	url := "https://" + n.secure
	if !p.secure {
		url = "http://" + n.addr
	}
	r, err := http.NewRequestWithContext(ctx, "CONNECT", url+path, up)
	if err != nil {
		return nil, err
	}
	r.Host = "a"
	maps.Copy(r.Header, set)
	protocol := r.Header.Get("Test-Protocol")
	r.Header.Del("Test-Protocol")
	if _, set := r.Header["Content-Length"]; set {
		r.ContentLength = 5
	}
	if protocol == "" {
		protocol = "websocket"
	}
	if p.index == 2 {
		r.Proto = protocol
	} else {
		r.Header[":protocol"] = []string{protocol}
	}
	res, err := via.RoundTrip(r)
	if err != nil {
		cancel()
		end.Close()
		return nil, err
	}
	t.Cleanup(func() { end.Close(); res.Body.Close() })
	reset := func() {
		cancel()
		end.CloseWithError(context.Canceled) // this client waits for content before it looks
	}
	return &socket{Reader: res.Body, Writer: end, res: res, end: func() { end.Close() }, reset: reset}, nil
}

// socketNode is a node in front of echoes.
func socketNode(t *testing.T, saw chan<- string) (n *fullNode, pool *upstream.Pool) {
	pool, err := upstream.New(upstream.Config{Servers: []string{echoes(t, saw).URL}})
	if err != nil {
		t.Fatal(err)
	}
	store, err := edge.NewStore(edge.StoreOptions{Memory: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	h, err := edge.New(edge.Config{Store: store, Sites: []edge.Site{{Name: "s", Origin: pool}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close(); pool.Close(); store.Close() })
	return startFull(t, &Server{Handler: h}), pool
}

// say sends a frame and renders the one that comes back.
func (s *socket) say(kind byte, payload string) string {
	if err := writeFrame(s, kind, []byte(payload), true); err != nil {
		return "cannot be sent"
	}
	return s.hear()
}

func (s *socket) hear() string {
	kind, got, err := readFrame(s)
	switch {
	case err == io.EOF:
		return "end"
	case err != nil:
		return "broken"
	case len(got) > 100:
		return fmt.Sprintf("%d:%d bytes of %.1q", kind, len(got), got)
	}
	return fmt.Sprintf("%d:%s", kind, got)
}

// dialogues are what clients and origin say to one another; each must sound the
// same over every protocol.
var dialogues = []struct {
	name, path string
	set        http.Header
	talk       func(s *socket) []string
	want       []string
	status     int // of an answer that opens nothing; 0: it opens
	saw        string
}{
	{"echo", "/echo?a=%2f", http.Header{
		"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Protocol": {"chat, talk"}, "Sec-Websocket-Extensions": {"permessage-deflate"},
		"Origin": {"https://page.example"}, "Cookie": {"a=1; b=2"},
	}, func(s *socket) []string {
		return []string{s.say(1, "hello"), s.say(2, strings.Repeat("x", 300<<10)), s.say(9, "still there"), s.say(1, ""), s.say(8, "\x03\xe8"), s.hear()}
	}, []string{"1:hello", `2:307200 bytes of "x"`, "9:still there", "1:", "8:\x03\xe8", "end"}, 0,
		"GET /echo?a=%2f [Upgrade] [websocket] [13] 16 [chat, talk] [permessage-deflate] [https://page.example] [a=1; b=2] 0"},
	// In HTTP/1.1 the end of the client's side is its leaving: nothing tells
	// the two apart.
	{onStreams, "/echo", nil, func(s *socket) []string {
		first := s.say(1, "hello")
		s.end()
		return []string{first, s.hear(), s.hear()}
	}, []string{"1:hello", "1:you ended", "end"}, 0, ""},
	{"the origin forbids it", "/forbidden", nil, func(s *socket) []string {
		body, err := io.ReadAll(s)
		return []string{string(body), fmt.Sprint(err)}
	}, []string{"not you\n", "<nil>"}, 403, ""},
}

const onStreams = "the client ends its side"

func TestWebSocketOverEveryProtocol(t *testing.T) {
	if !withConnect(t) {
		return
	}
	saw := make(chan string, 1)
	n, pool := socketNode(t, saw)
	for _, p := range protocols {
		open := p.opener(t, n)
		for _, d := range dialogues {
			if d.name == onStreams && p.index == 0 {
				continue
			}
			s, err := open(d.path, d.set)
			if err != nil {
				t.Fatalf("%s: %s: %v", p.name, d.name, err)
			}
			want := d.status
			if want == 0 && p.index == 0 {
				want = 101
			} else if want == 0 {
				want = 200
			}
			if s.res.StatusCode != want {
				t.Errorf("%s: %s: got status %d, want %d", p.name, d.name, s.res.StatusCode, want)
			}
			if said := <-saw; d.saw != "" && said != d.saw {
				t.Errorf("%s: %s: the origin saw\n%s, want\n%s", p.name, d.name, said, d.saw)
			}
			if p.index > 0 {
				s.agreed(t, p.name+": "+d.name, want)
			}
			if got := d.talk(s); !slices.Equal(got, d.want) {
				t.Errorf("%s: %s: got %.200q, want %q", p.name, d.name, got, d.want)
			}
			s.reset()
			until(t, "the tunnel is closed", func() bool { st := pool.Stats(); return st.Tunnels == 0 && st.InFlight == 0 })
		}
	}
}

// agreed checks the fields of an answer to an extended CONNECT.
func (s *socket) agreed(t *testing.T, name string, status int) {
	t.Helper()
	h := s.res.Header
	for _, of := range []string{"Connection", "Upgrade", "Sec-Websocket-Accept", "Transfer-Encoding"} {
		if h[of] != nil {
			t.Errorf("%s: the answer has %s: %q", name, of, h[of])
		}
	}
	if status == 200 && (h.Get("Sec-Websocket-Protocol") != "chat" || h.Get("X-Kept") != "yes" || h["Content-Length"] != nil || h["Content-Type"] != nil) {
		t.Errorf("%s: the answer's fields are %v; want chat and yes, no length and no type", name, h)
	}
	if cs := h.Get("Cache-Status"); !strings.Contains(cs, "fwd=bypass") {
		t.Errorf("%s: Cache-Status %q", name, cs)
	}
}

func TestExtendedConnectThatFails(t *testing.T) {
	if !withConnect(t) {
		return
	}
	n, pool := socketNode(t, nil)
	for _, p := range protocols[2:] {
		open := p.opener(t, n)
		for _, c := range []struct {
			name, path string
			set        http.Header
			status     int
			detail     string
			talk       func(s *socket) string
			want       string
		}{
			{"another protocol", "/echo", http.Header{"Test-Protocol": {"connect-udp"}}, 501, "connect-protocol", nil, ""},
			{"with a length", "/echo", http.Header{"Content-Length": {"5"}}, 400, "", nil, ""},
			{"the origin agrees to another key", "/wrong", nil, 502, "bad-accept", nil, ""},
			{"the origin answers with a page", "/page", nil, 502, "no-upgrade", nil, ""},
			{"only what is stored", "/echo", http.Header{"Cache-Control": {"only-if-cached"}}, 504, "only-if-cached", nil, ""},
			{"the origin dies", "/dies", nil, 200, "", func(s *socket) string {
				s.say(1, "a") // a reset of QUIC may overtake the answer
				return s.hear()
			}, "broken"},
			{"the client breaks off", "/echo", nil, 200, "", func(s *socket) string {
				got := s.say(1, "a")
				s.reset()
				return got
			}, "1:a"},
			{"the client ends and breaks off", "/echo", nil, 200, "", func(s *socket) string {
				got := s.say(1, "a")
				s.end()
				s.reset()
				return got
			}, "1:a"},
		} {
			s, err := open(c.path, c.set)
			if err != nil {
				t.Errorf("%s: %s: %v", p.name, c.name, err)
				continue
			}
			if cs := s.res.Header.Get("Cache-Status"); s.res.StatusCode != c.status || !strings.Contains(cs, c.detail) {
				t.Errorf("%s: %s: got %d, %q; want %d, %q", p.name, c.name, s.res.StatusCode, cs, c.status, c.detail)
			}
			if c.talk != nil {
				if got := c.talk(s); got != c.want {
					t.Errorf("%s: %s: got %q, want %q", p.name, c.name, got, c.want)
				}
			}
			until(t, "nothing is left of it at the origin: "+p.name+": "+c.name, func() bool { st := pool.Stats(); return st.Tunnels == 0 && st.InFlight == 0 })
			s.reset()
		}
	}
}

// A drain waits for a tunnel, as it does for a connection upgraded by HTTP/1.1,
// and cuts it when the time is over.
func TestDrainWaitsForWebSockets(t *testing.T) {
	if !withConnect(t) {
		return
	}
	for _, p := range protocols {
		for _, cut := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s cut=%v", p.name, cut), func(t *testing.T) {
				n, pool := socketNode(t, nil)
				s, err := p.opener(t, n)("/echo", nil)
				if err != nil {
					t.Fatal(err)
				}
				s.say(1, "before")
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				ended := make(chan error, 1)
				go func() { ended <- n.Shutdown(ctx) }()
				until(t, "the drain has begun", n.ending.Load)
				if got := s.say(1, "during"); got != "1:during" {
					t.Errorf("while draining: got %q, want an echo", got)
				}
				if cut {
					cancel()
				} else if got := s.say(8, "") + " " + s.hear(); got != "8: end" {
					t.Errorf("at the end: got %q, want a close and the end", got)
				}
				if err := <-ended; (err != nil) != cut {
					t.Errorf("shutdown: got %v, want an error: %v", err, cut)
				}
				s.reset()
				until(t, "the tunnel is closed", func() bool { return pool.Stats().Tunnels == 0 })
			})
		}
	}
}

// A plain CONNECT is refused over every protocol. An extended one is refused
// where HTTP/2 was not offered it, and harms nothing else of its connection.
func TestConnectIsRefused(t *testing.T) {
	n, _ := socketNode(t, nil)
	plain := raw{fields: []string{":method", "CONNECT", ":authority", "a:443"}}
	extended := raw{fields: []string{":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":authority", "a", ":path", "/forbidden"}}
	want := []string{"400", "reset", "403"}
	if offered() {
		want[1] = "403"
	}
	for _, p := range protocols[2:] {
		var got []string
		if p.index == 2 {
			got = []string{askThird(t, n, plain), want[1], askThird(t, n, extended)}
		} else {
			f := n.dialSecond(t, p)
			f.send(1, plain)
			got = append(got, f.answer(1))
			f.send(3, extended)
			got = append(got, f.answer(3))
			f.send(5, request(map[string]string{":path": "/forbidden"}))
			got = append(got, f.answer(5))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: plain, extended, and a GET: got %q, want %q", p.name, got, want)
		}
	}
	conn := n.dial(t)
	io.WriteString(conn, "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n")
	if res, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || res.StatusCode != 400 {
		t.Errorf("http/1.1: plain CONNECT: got %v, %v, want 400", res, err)
	}
}
