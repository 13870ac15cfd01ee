package listen

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/qpack"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/quic-go/quicvarint"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// raw is a request of HTTP/2 or 3 as its client writes it.
type raw struct {
	fields  []string // name, value, ...
	content string   // in DATA, if any
}

// request returns a whole head with some fields replaced, by name, and others
// added behind; an empty replacement leaves the field out.
func request(replace map[string]string, more ...string) raw {
	var r raw
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "a"}, {":path", "/p"}} {
		if v, ok := replace[f[0]]; ok && v == "" {
			continue
		} else if ok {
			f[1] = v
		}
		r.fields = append(r.fields, f[0], f[1])
	}
	r.fields = append(r.fields, more...)
	return r
}

func (r raw) with(content string) raw {
	r.content = content
	return r
}

const large = 6 << 10

// In want, what comes before "|" is what the handler saw; what follows is a
// status, or "reset" for a stream error. None of these ends the connection.
var pseudoProbes = []struct {
	name string
	raw  raw
	want string
	h3   string // what HTTP/3 does, where that differs
}{
	{"a plain request", request(nil), `GET a /p ""|200`, ""},
	{"an unknown method is a method", request(map[string]string{":method": "BREW"}), `BREW a /p ""|200`, ""},
	{"OPTIONS *", request(map[string]string{":method": "OPTIONS", ":path": "*"}), `OPTIONS a * ""|200`, ""},
	{"Host for :authority", request(map[string]string{":authority": ""}, "host", "b"), `GET b /p ""|200`, ""},
	{"Host like :authority", request(nil, "host", "a"), `GET a /p ""|200`, ""},
	{"Host unlike :authority", request(nil, "host", "b"), "|400", "|reset"},
	{"two Hosts", request(nil, "host", "a", "host", "b"), "|400", "|reset"},
	{"no authority at all", request(map[string]string{":authority": ""}), "|400", "|reset"},
	{"no :method", request(map[string]string{":method": ""}), "|reset", ""},
	{"no :scheme", request(map[string]string{":scheme": ""}), "|reset", `GET a /p ""|200`},
	{"no :path", request(map[string]string{":path": ""}), "|reset", ""},
	{"two :path", raw{fields: []string{":method", "GET", ":scheme", "https", ":authority", "a", ":path", "/p", ":path", "/q"}}, "|reset", ""},
	{"two :method", raw{fields: []string{":method", "GET", ":method", "POST", ":scheme", "https", ":authority", "a", ":path", "/p"}}, "|reset", ""},
	{"two :authority", raw{fields: []string{":method", "GET", ":scheme", "https", ":authority", "a", ":authority", "b", ":path", "/p"}}, "|reset", ""},
	{"two :scheme", raw{fields: []string{":method", "GET", ":scheme", "https", ":scheme", "http", ":authority", "a", ":path", "/p"}}, "|reset", ""},
	{"an unknown pseudo-field", raw{fields: []string{":method", "GET", ":scheme", "https", ":authority", "a", ":path", "/p", ":x", "y"}}, "|reset", ""},
	{"a response's pseudo-field", raw{fields: []string{":method", "GET", ":scheme", "https", ":authority", "a", ":path", "/p", ":status", "200"}}, "|reset", ""},
	{"a pseudo-field behind others", raw{fields: []string{":method", "GET", ":scheme", "https", ":authority", "a", "x", "y", ":path", "/p"}}, "|reset", ""},
	{"a name in upper case", request(nil, "X-Upper", "y"), "|reset", ""},
	{"a name with a space", request(nil, "x y", "z"), "|reset", ""},
	{"a name with a colon", request(nil, "x:y", "z"), "|reset", ""},
	{"a name with CRLF", request(nil, "x\r\ny", "z"), "|reset", ""},
	{"an empty name", request(nil, "", "z"), "|reset", ""},
	{"CRLF in a value", request(nil, "x", "y\r\nevil: z"), "|reset", ""},
	{"LF in a value", request(nil, "x", "y\nz"), "|reset", ""},
	{"NUL in a value", request(nil, "x", "y\x00z"), "|reset", ""},
	{"Connection", request(nil, "connection", "close"), "|400", "|reset"},
	{"Transfer-Encoding", request(nil, "transfer-encoding", "chunked"), "|400", "|reset"},
	{"Upgrade", request(nil, "upgrade", "websocket"), "|400", "|reset"},
	{"Keep-Alive", request(nil, "keep-alive", "5"), "|400", "|reset"},
	{"Proxy-Connection", request(nil, "proxy-connection", "close"), "|400", "|reset"},
	{"TE of more than trailers", request(nil, "te", "gzip"), "|400", "|reset"},
	{"a path without slash", request(map[string]string{":path": "p"}), "|reset", ""},
	{"a path with a space", request(map[string]string{":path": "/p HTTP/1.1"}), "|400", ""},
	{"a path with CRLF", request(map[string]string{":path": "/p\r\nx: y"}), "|reset", ""},
	{"a path that is a URL", request(map[string]string{":path": "http://b/p"}), "|400", "|reset"},
	{"asterisk for GET", request(map[string]string{":path": "*"}), "|400", "|reset"},
	{"a method with a space", request(map[string]string{":method": "GET /admin"}), "|400", "|reset"},
	{"an authority with a slash", request(map[string]string{":authority": "a/b"}), "|400", ""},
	{"an authority with a query", request(map[string]string{":authority": "a?b"}), "|400", ""},
	{"an authority with a user", request(map[string]string{":authority": "u@a"}), "|reset", ""},
	{"an authority with a space", request(map[string]string{":authority": "a b"}), "|400", ""},
	{"an authority with CRLF", request(map[string]string{":authority": "a\r\nx: y"}), "|reset", ""},
	{"an authority with a backslash", request(map[string]string{":authority": `a\b`}), "|400", ""},
	{"a length", request(map[string]string{":method": "POST"}, "content-length", "3").with("abc"), `POST a /p "abc"|200`, ""},
	{"a length and less", request(map[string]string{":method": "POST"}, "content-length", "5").with("abc"), `POST a /p "abc" broken|reset`, ""},
	{"a length and more", request(map[string]string{":method": "POST"}, "content-length", "2").with("abc"), `POST a /p "ab" broken|reset`, ""},
	{"a length and nothing", request(nil, "content-length", "5"), "|400", `GET a /p "" broken|reset`},
	{"lengths that differ", request(map[string]string{":method": "POST"}, "content-length", "3", "content-length", "4").with("abc"), "|400", "|reset"},
	{"a length that is none", request(map[string]string{":method": "POST"}, "content-length", "+3"), "|400", "|reset"},
	{"CONNECT with a path", request(map[string]string{":method": "CONNECT"}), "|reset", ""},
	{"a head too large", request(nil, "x", strings.Repeat("y", large), "z", strings.Repeat("y", large)), "|431", ""},
}

func TestAmbiguousHeads(t *testing.T) {
	for _, p := range protocols[2:] {
		t.Run(p.name, func(t *testing.T) {
			for _, c := range pseudoProbes {
				t.Run(c.name, func(t *testing.T) {
					v := new(witness)
					n := startFull(t, &Server{MaxHeaderBytes: 8 << 10, Handler: v})
					want := c.want
					var got string
					if p.name == "h3" {
						if c.h3 != "" {
							want = c.h3
						}
						got = askThird(t, n, c.raw)
					} else {
						got = askSecond(t, n, p, c.raw)
					}
					saw := v.told()
					if strings.Contains(want, "broken") {
						saw, want = clipBroken(saw), clipBroken(want) // how much came before the fault is a race
						if saw == "" && c.name == "a length and more" {
							saw, _, _ = strings.Cut(want, "|") // and so is whether the handler began
						}
					}
					if got := saw + "|" + got; got != want {
						t.Errorf("sent %.300q\n got %s\nwant %s", c.raw, got, want)
					}
				})
			}
		})
	}
}

// clipBroken cuts what was read of content that proved to be broken.
func clipBroken(s string) string {
	if saw, rest, ok := strings.Cut(s, " broken"); ok {
		return saw[:strings.Index(saw, `"`)] + "broken" + rest
	}
	return s
}

// askSecond sends r over HTTP/2 and then a request that must still be served
// on the same connection.
func askSecond(t *testing.T, n *fullNode, p protocol, r raw) string {
	t.Helper()
	fr := n.dialSecond(t, p)
	fr.send(1, r)
	got := fr.answer(1)
	return got
}

// framer speaks HTTP/2 by hand.
type framer struct {
	*http2.Framer
	net.Conn
	t   testing.TB
	buf bytes.Buffer
	enc *hpack.Encoder
}

func (n *fullNode) dialSecond(t testing.TB, p protocol, settings ...http2.Setting) *framer {
	t.Helper()
	var c net.Conn
	var err error
	if p.secure {
		c, err = tlsDial(n)
	} else {
		c, err = net.Dial("tcp", n.addr)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	fr := &framer{Framer: http2.NewFramer(c, c), Conn: c, t: t}
	fr.AllowIllegalWrites = true
	fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	fr.enc = hpack.NewEncoder(&fr.buf)
	io.WriteString(c, preface)
	fr.WriteSettings(settings...)
	return fr
}

func (f *framer) send(id uint32, r raw) {
	f.buf.Reset()
	for i := 0; i < len(r.fields); i += 2 {
		f.enc.WriteField(hpack.HeaderField{Name: r.fields[i], Value: r.fields[i+1]})
	}
	f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: f.buf.Bytes(), EndHeaders: true, EndStream: r.content == ""})
	if r.content != "" {
		f.WriteData(id, true, []byte(r.content))
	}
}

// answer returns the status of stream id, or how it ended without one.
func (f *framer) answer(id uint32) string {
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return "closed"
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				f.WriteSettingsAck()
			}
		case *http2.MetaHeadersFrame:
			if frame.StreamID == id {
				return frame.PseudoValue("status")
			}
		case *http2.RSTStreamFrame:
			if frame.StreamID == id {
				return "reset"
			}
		case *http2.GoAwayFrame:
			return "goaway"
		}
	}
}

// askThird sends r over HTTP/3.
func askThird(t *testing.T, n *fullNode, r raw) string {
	t.Helper()
	c := n.dialQUIC(t, nil)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	str, err := c.OpenStreamSync(ctx)
	if err != nil {
		t.Fatal(err)
	}
	str.SetDeadline(time.Now().Add(10 * time.Second))
	str.Write(thirdHead(r))
	if r.content != "" {
		str.Write(append(quicvarint.Append([]byte{0}, uint64(len(r.content))), r.content...))
	}
	str.Close()
	return thirdAnswer(str)
}

// thirdHead returns r's HEADERS frame.
func thirdHead(r raw) []byte {
	var block bytes.Buffer
	enc := qpack.NewEncoder(&block)
	for i := 0; i < len(r.fields); i += 2 {
		enc.WriteField(qpack.HeaderField{Name: r.fields[i], Value: r.fields[i+1]})
	}
	return append(quicvarint.Append([]byte{1}, uint64(block.Len())), block.Bytes()...)
}

func thirdAnswer(str *quic.Stream) string {
	in := quicvarint.NewReader(str)
	var reset *quic.StreamError
	kind, err := quicvarint.Read(in)
	if errors.As(err, &reset) {
		return "reset"
	}
	if err != nil || kind != 1 {
		return fmt.Sprint("frame ", kind, " ", err)
	}
	length, _ := quicvarint.Read(in)
	block := make([]byte, length)
	io.ReadFull(in, block)
	status, err := qpack.NewDecoder().Decode(block)()
	if err != nil {
		return err.Error()
	}
	if _, err := io.Copy(io.Discard, str); errors.As(err, &reset) && reset.ErrorCode != quic.StreamErrorCode(http3.ErrCodeNoError) {
		return "reset"
	}
	return status.Value
}

func hpackField(name, value string) hpack.HeaderField {
	return hpack.HeaderField{Name: name, Value: value}
}
