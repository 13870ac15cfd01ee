package listen

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/net/http2"
)

// Floods of HTTP/2 end their connection, are counted, and leave others alone.
func TestFloodsAreEnded(t *testing.T) {
	const frames = 20000
	for _, c := range []struct {
		name  string
		flood func(f *framer, i int) error
	}{
		{"rapid reset", func(f *framer, i int) error {
			f.send(uint32(2*i+1), request(nil))
			return f.WriteRSTStream(uint32(2*i+1), http2.ErrCodeCancel)
		}},
		{"CONTINUATION", func(f *framer, i int) error {
			if i == 0 {
				f.buf.Reset()
				f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82}})
			}
			return f.WriteContinuation(1, false, nil)
		}},
		{"SETTINGS", func(f *framer, _ int) error { return f.WriteSettings() }},
		{"PING", func(f *framer, _ int) error { return f.WritePing(false, [8]byte{}) }},
		{"PING acknowledgements", func(f *framer, _ int) error { return f.WritePing(true, [8]byte{}) }},
		{"empty DATA", func(f *framer, i int) error {
			if i == 0 {
				r := request(map[string]string{":method": "POST"})
				f.buf.Reset()
				for j := 0; j < len(r.fields); j += 2 {
					f.enc.WriteField(hpackField(r.fields[j], r.fields[j+1]))
				}
				f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: f.buf.Bytes(), EndHeaders: true})
			}
			return f.WriteData(1, false, nil)
		}},
		{"PRIORITY", func(f *framer, i int) error {
			return f.WritePriority(uint32(2*i+1), http2.PriorityParam{StreamDep: 0, Weight: 1})
		}},
		{"WINDOW_UPDATE", func(f *framer, _ int) error { return f.WriteWindowUpdate(0, 1) }},
		{"unknown frames", func(f *framer, _ int) error { return f.WriteRawFrame(0xbe, 0, 0, nil) }},
	} {
		for _, p := range protocols[2:4] {
			t.Run(c.name+" "+p.name, func(t *testing.T) {
				n := startFull(t, &Server{Handler: http.HandlerFunc(hello)})
				f := n.dialSecond(t, p)
				until(t, "the connection is accepted", func() bool { return !n.nobody() })
				go io.Copy(io.Discard, f.Conn)
				sent := 0
				for sent < frames && c.flood(f, sent) == nil {
					sent++
				}
				until(t, "the connection is ended", n.nobody)
				if got := n.seen(Flooded); got != 1 {
					t.Errorf("after %d frames counted %d floods, want 1; log:\n%s", sent, got, n.logged())
				}
				client, url := p.client(t, n)
				if got := told(client.Get(url)); !strings.HasPrefix(got, "200") {
					t.Errorf("another client: got %s, want 200", got)
				}
			})
		}
	}
}

// A client that makes the node reset its streams, each by DATA behind the end
// of its content, is ended as one that resets them itself.
func TestInducedResetsAreEnded(t *testing.T) {
	const most = 1000
	for _, p := range protocols[2:4] {
		t.Run(p.name, func(t *testing.T) {
			var cut atomic.Int64
			n := startFull(t, &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				<-r.Context().Done()
				cut.Add(1)
			})})
			f := n.dialSecond(t, p)
			until(t, "the connection is accepted", func() bool { return !n.nobody() })
			go io.Copy(io.Discard, f.Conn)
			sent := int64(0)
			for ended := false; sent < most && !ended; {
				for range 10 { // at once, and then no more before they are over
					f.send(uint32(2*sent+1), request(nil))
					f.WriteData(uint32(2*sent+1), false, []byte("x"))
					sent++
				}
				until(t, "the streams are reset", func() bool {
					ended = n.nobody()
					return ended || cut.Load() == sent
				})
			}
			if got := n.seen(Flooded); got != 1 || sent == most {
				t.Errorf("after %d streams counted %d floods, want 1 before %d; log:\n%s", sent, got, most, n.logged())
			}
		})
	}
}

// What a client reset is forgotten with its connection: nothing waits for a
// deadline that its handler set too late.
func TestResetStreamsAreForgotten(t *testing.T) {
	for _, p := range protocols[2:4] {
		t.Run(p.name, func(t *testing.T) {
			var began, forgotten atomic.Int64
			n := startFull(t, &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				// The stream holds its context.
				runtime.SetFinalizer(r.Context(), func(any) { forgotten.Add(1) })
				<-r.Context().Done()
				rc := http.NewResponseController(w)
				rc.SetReadDeadline(time.Now().Add(time.Minute))
				rc.SetReadDeadline(time.Time{})
				rc.SetReadDeadline(time.Now().Add(time.Minute))
				rc.SetWriteDeadline(time.Time{})
				began.Add(1)
			})})
			f := n.dialSecond(t, p)
			until(t, "the connection is accepted", func() bool { return !n.nobody() })
			go io.Copy(io.Discard, f.Conn)
			const streams = 50
			for i := range uint32(streams) {
				f.send(2*i+1, request(map[string]string{":method": "POST"}).with("abc"))
				f.WriteRSTStream(2*i+1, http2.ErrCodeCancel)
			}
			until(t, "all have been answered", func() bool { return began.Load() == streams })
			f.Conn.Close()
			until(t, "the connection is closed", n.nobody)
			until(t, "all are forgotten", func() bool {
				runtime.GC()
				return forgotten.Load() == streams
			})
		})
	}
}

// A client that asks for much, and gives up some of it, is none.
func TestBusyClientIsNoFlood(t *testing.T) {
	for _, p := range protocols[2:] {
		t.Run(p.name, func(t *testing.T) {
			n := startFull(t, &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/wait" {
					<-r.Context().Done()
					return
				}
				io.Copy(w, r.Body)
				w.Write(make([]byte, 8<<10))
			})})
			client, url := p.client(t, n)
			errs := make(chan error, 8)
			for worker := range cap(errs) {
				go func() { errs <- browse(client, url, worker) }()
			}
			for range cap(errs) {
				if err := <-errs; err != nil {
					t.Error(err)
				}
			}
			if got := n.seen(Flooded); got != 0 {
				t.Errorf("counted %d floods, want 0; log:\n%s", got, n.logged())
			}
			if h1, h2, h3 := n.Open(); h1+h2+h3 != 1 {
				t.Errorf("open: %d %d %d, want one connection for all", h1, h2, h3)
			}
		})
	}
}

// browse makes an eighth of 1,000 requests, a tenth of which it cancels and a
// tenth of which have content of unknown length.
func browse(client *http.Client, url string, worker int) error {
	for i := range 125 {
		if i%10 == 1 {
			ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
			r, _ := http.NewRequestWithContext(ctx, "GET", url+"/wait", nil)
			if res, err := client.Do(r); err == nil {
				res.Body.Close()
			}
			cancel()
			continue
		}
		var body io.Reader
		if i%10 == 2 {
			body = onlyReader{strings.NewReader(strings.Repeat("x", 1<<10))}
		}
		r, _ := http.NewRequest("POST", url, body)
		res, err := client.Do(r)
		if err != nil {
			return fmt.Errorf("request %d of %d: %v", i, worker, err)
		}
		_, err = io.Copy(io.Discard, res.Body)
		if res.Body.Close(); err != nil {
			return fmt.Errorf("content %d of %d: %v", i, worker, err)
		}
	}
	return nil
}

// A head that trickles in is cut at ReadHeaderTimeout, on every listener.
func TestSlowHeadsAreCut(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		dial func(n *fullNode) (net.Conn, error)
		send string
	}{
		{"http/1.1", func(n *fullNode) (net.Conn, error) { return net.Dial("tcp", n.addr) }, "GET / HTTP/1.1\r\nHost: a\r\nX: "},
		{"http/1.1 tls", tlsDial, "GET / HTTP/1.1\r\nHost: a\r\nX: "},
		{"half a preface", func(n *fullNode) (net.Conn, error) { return net.Dial("tcp", n.addr) }, preface[:20]},
		{"nothing", func(n *fullNode) (net.Conn, error) { return net.Dial("tcp", n.addr) }, ""},
		{"h2, a preface only", func(n *fullNode) (net.Conn, error) { return net.Dial("tcp", n.addr) }, preface},
		{"h2, half a HEADERS", tlsDial, preface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00" + "\x00\x00\x20\x01\x04\x00\x00\x00\x01\x82"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n := startFull(t, &Server{ReadHeaderTimeout: 200 * time.Millisecond, IdleTimeout: 300 * time.Millisecond, Handler: http.HandlerFunc(hello)})
			conn, err := c.dial(n)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			io.WriteString(conn, c.send)
			stop := make(chan struct{})
			defer close(stop)
			go trickle(conn, stop, c.name == "http/1.1" || c.name == "http/1.1 tls")
			until(t, "the connection is closed", n.nobody)
		})
	}
}

// trickle sends a byte now and then until it fails.
func trickle(conn net.Conn, stop chan struct{}, on bool) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for on {
		select {
		case <-stop:
			return
		case <-tick.C:
			if _, err := conn.Write([]byte("x")); err != nil {
				return
			}
		}
	}
}

// Garbage that looks like first packets of QUIC costs the node nothing that
// lasts, and other clients are answered meanwhile.
func TestFloodOfInitials(t *testing.T) {
	n := startFull(t, &Server{ReadHeaderTimeout: 3 * time.Second, Handler: http.HandlerFunc(hello)})
	packet := make([]byte, 1200)
	rand.Read(packet)
	packet[0] = 0xc3                            // a long header, Initial, four bytes of packet number
	copy(packet[1:5], []byte{0, 0, 0, 1})       // version 1
	packet[5], packet[14], packet[23] = 8, 8, 0 // connection IDs of eight bytes, no token
	copy(packet[24:26], []byte{0x44, 0x96})     // the length of the rest
	client, url := protocols[4].client(t, n)
	for round := range 20 {
		for range 5 { // from other ports
			c, err := net.Dial("udp", n.secure)
			if err != nil {
				t.Fatal(err)
			}
			for range 20 {
				rand.Read(packet[6:14])
				c.Write(packet)
			}
			c.Close()
		}
		if got := told(client.Get(url)); !strings.HasPrefix(got, "200") {
			t.Fatalf("round %d: another client got %s, want 200", round, got)
		}
	}
	fresh, _ := protocols[4].client(t, n)
	if got := told(fresh.Get(url)); !strings.HasPrefix(got, "200") {
		t.Errorf("a new client: got %s, want 200", got)
	}
	until(t, "no handshake is under way", func() bool { return n.handshaking() == 0 })
}

// A flood of connections that say nothing leaves those that are open alone.
func TestFloodOfConnections(t *testing.T) {
	n := startFull(t, &Server{MaxConns: 50, ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(hello)})
	first := n.dial(t)
	in := bufio.NewReader(first)
	var all []net.Conn
	for range 200 {
		c, err := net.Dial("tcp", n.addr)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	until(t, "the rest is refused", func() bool { return n.seen(Refused) >= 151 })
	for range 10 {
		fmt.Fprint(first, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatalf("a client of before: %v", err)
		}
		io.Copy(io.Discard, res.Body)
	}
	for _, c := range all {
		c.Close()
	}
	until(t, "one is left", func() bool { h1, _, _ := n.Open(); return h1 == 1 })
}

// deaf is a client's socket on which no answer is heard, as of one who writes
// another's address into its packets.
type deaf struct{ net.PacketConn }

func (d deaf) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		if _, from, err := d.PacketConn.ReadFrom(b); err != nil {
			return 0, from, err
		}
	}
}

// Handshakes that never end take half of what their client may have at most,
// for they may be another's doing.
func TestUnansweredHandshakesLeaveRoom(t *testing.T) {
	n := startFull(t, &Server{MaxConnsPerClient: 4, Handler: http.HandlerFunc(hello)})
	to, err := net.ResolveUDPAddr("udp", n.secure)
	if err != nil {
		t.Fatal(err)
	}
	trust := n.trust.Clone()
	trust.NextProtos = []string{"h3"}
	ctx, cancel := context.WithCancel(context.Background())
	var dials sync.WaitGroup
	defer dials.Wait()
	defer cancel()
	for range 20 {
		from, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer from.Close()
		dials.Go(func() { quic.Dial(ctx, deaf{from}, to, trust, nil) })
	}
	until(t, "two have begun", func() bool { return n.handshaking() >= 2 })
	for _, p := range protocols[3:] {
		client, url := p.client(t, n)
		if got := told(client.Get(url)); !strings.HasPrefix(got, "200") {
			t.Errorf("%s from the same address: got %s, want 200", p.name, got)
		}
	}
	if got := n.handshaking(); got != 2 {
		t.Errorf("%d handshakes without an answer, want 2", got)
	}
}

// One client's connections too many are refused at their first packet: a
// handshake would take the turn of another client's.
func TestOneClientsLimitOverQUICComesFirst(t *testing.T) {
	n := startFull(t, &Server{MaxConnsPerClient: 2, Handler: http.HandlerFunc(hello)})
	n.dialQUIC(t, nil)
	n.dialQUIC(t, nil)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	trust := n.trust.Clone()
	trust.NextProtos = []string{"h3"}
	c, err := quic.DialAddr(ctx, n.secure, trust, nil)
	if err == nil {
		c.CloseWithError(0, "")
	}
	var refused *quic.TransportError
	if !errors.As(err, &refused) || refused.ErrorCode != quic.ConnectionRefused {
		t.Errorf("a third connection: got %v, want CONNECTION_REFUSED", err)
	}
}
