package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// attack does something hostile to the node, over and over, until ctx ends.
type attack struct {
	name    string
	workers int
	every   time.Duration // a worker's pause: attackers share the node's cores here
	once    func(ctx context.Context, n *loadedNode)
}

var attacks = []attack{
	{"slowloris", 300, 0, func(ctx context.Context, n *loadedNode) {
		c := n.connect()
		if c == nil {
			return
		}
		defer c.Close()
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: a\r\n")
		for i := 0; ctx.Err() == nil; i++ {
			select {
			case <-time.After(200 * time.Millisecond):
			case <-ctx.Done():
			}
			if _, err := fmt.Fprintf(c, "X-%d: a\r\n", i); err != nil {
				return
			}
		}
	}},
	{"slow read", 100, 0, func(ctx context.Context, n *loadedNode) {
		c := n.connect()
		if c == nil {
			return
		}
		defer c.Close()
		_ = c.(*net.TCPConn).SetReadBuffer(4 << 10)
		fmt.Fprint(c, "GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
		<-ctx.Done()
	}},
	{"connections", 16, 20 * time.Millisecond, func(_ context.Context, n *loadedNode) {
		if c := n.connect(); c != nil {
			c.Close()
		}
	}},
	{"header flood", 8, 50 * time.Millisecond, func(_ context.Context, n *loadedNode) {
		c := n.connect()
		if c == nil {
			return
		}
		defer c.Close()
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: a\r\n")
		line := "X-Filler: " + strings.Repeat("a", 1000) + "\r\n"
		for range 200 { // three times what is allowed
			if _, err := io.WriteString(c, line); err != nil {
				return
			}
		}
	}},
	{"rapid reset", 4, 250 * time.Millisecond, func(ctx context.Context, n *loadedNode) {
		n.frames(ctx, func(f *http2.Framer, stream uint32, block []byte) error {
			if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block, EndStream: true, EndHeaders: true}); err != nil {
				return err
			}
			return f.WriteRSTStream(stream, http2.ErrCodeCancel)
		})
	}},
	{"continuation", 4, 250 * time.Millisecond, func(ctx context.Context, n *loadedNode) {
		first := true
		n.frames(ctx, func(f *http2.Framer, _ uint32, block []byte) error {
			if first {
				first = false
				return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block})
			}
			return f.WriteContinuation(1, false, nil)
		})
	}},
	{"ping and settings", 4, 250 * time.Millisecond, func(ctx context.Context, n *loadedNode) {
		n.frames(ctx, func(f *http2.Framer, stream uint32, _ []byte) error {
			if stream%4 == 1 {
				return f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: stream})
			}
			return f.WritePing(false, [8]byte{byte(stream)})
		})
	}},
	{"QUIC handshakes", 8, 50 * time.Millisecond, func(ctx context.Context, n *loadedNode) {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Millisecond) // gone before the handshake is over
		defer cancel()
		conf := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h3"}}
		if c, err := quic.DialAddr(ctx, strings.TrimPrefix(n.tls, "https://"), conf, nil); err == nil {
			_ = c.CloseWithError(0, "")
		}
	}},
	{"QUIC garbage", 2, 20 * time.Millisecond, func(_ context.Context, n *loadedNode) {
		c, err := net.Dial("udp", strings.TrimPrefix(n.tls, "https://"))
		if err != nil {
			return
		}
		defer c.Close()
		packet := make([]byte, 1200)
		for range 100 {
			for i := range packet {
				packet[i] = byte(rand.Uint32())
			}
			copy(packet, []byte{0xc3, 0, 0, 0, 1, 8}) // an Initial of version 1
			_, _ = c.Write(packet)                    // one lost is as good
		}
	}},
}

func (n *loadedNode) connect() net.Conn {
	c, err := net.DialTimeout("tcp", strings.TrimPrefix(n.url, "http://"), time.Second)
	if err != nil {
		return nil
	}
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	return c
}

// frames speaks HTTP/2 by prior knowledge and calls send with a new stream's
// number, again and again, until the node or ctx ends it.
func (n *loadedNode) frames(ctx context.Context, send func(f *http2.Framer, stream uint32, block []byte) error) {
	c := n.connect()
	if c == nil {
		return
	}
	defer c.Close()
	go io.Copy(io.Discard, c)
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "a"}, {":path", "/"}} {
		_ = enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}) // a buffer takes all
	}
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		return
	}
	f := http2.NewFramer(c, c)
	if f.WriteSettings() != nil {
		return
	}
	for stream := uint32(1); ctx.Err() == nil; stream += 2 {
		if send(f, stream, block.Bytes()) != nil {
			return
		}
	}
}

// TestAttacksHarmOnlyThemselves runs each attack beside a well-behaved client:
// its answers must all be right, memory must stay within the limit, and what
// the attack held must be given back. How long the client's answers take is
// logged; SEAWALL_LONG=1 runs longer and compares.
func TestAttacksHarmOnlyThemselves(t *testing.T) {
	large := make([]byte, 4<<20)
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=600")
		if r.URL.Path == "/large" {
			_, _ = w.Write(large)
			return
		}
		_, _ = io.WriteString(w, "as ever")
	}))
	defer origin.Close()
	n := startLoaded(t, "--origin", origin.URL, "--memory", "64MiB", "--https", "127.0.0.1:0")
	span := 500 * time.Millisecond
	if long() {
		span = 5 * time.Second
	}
	calm := n.measure(t, span)
	t.Logf("%-20s p50 %8v  p99 %8v", "calm", calm[0], calm[1])
	for _, a := range attacks {
		ctx, cancel := context.WithTimeout(t.Context(), span+span/5)
		var wait sync.WaitGroup
		var rounds atomic.Int64
		for range a.workers {
			wait.Go(func() {
				for ctx.Err() == nil {
					a.once(ctx, n)
					rounds.Add(1)
					select {
					case <-time.After(a.every):
					case <-ctx.Done():
					}
				}
			})
		}
		got := n.measure(t, span)
		cancel()
		wait.Wait()
		peak := n.memory(t, "VmHWM")
		t.Logf("%-20s p50 %8v  p99 %8v  (%.1f times calm)  %d rounds, peak %d MiB", a.name, got[0], got[1],
			float64(got[1])/float64(calm[1]), rounds.Load(), peak>>20)
		if peak > (64+128)<<20 {
			t.Errorf("%s: peak %d MiB with a budget of 64 MiB", a.name, peak>>20)
		}
		n.settles(t, a.name)
	}
}

// measure asks for one hit after another for so long, and returns the median
// and the 99th percentile of the times they took.
func (n *loadedNode) measure(t *testing.T, span time.Duration) [2]time.Duration {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{}, Timeout: 30 * time.Second}
	defer client.CloseIdleConnections()
	var took []time.Duration
	for end := time.Now().Add(span); time.Now().Before(end); {
		began := time.Now()
		resp, err := client.Get(n.url + "/")
		if err != nil {
			t.Fatalf("a well-behaved client: %v", err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		took = append(took, time.Since(began))
		if err != nil || string(body) != "as ever" {
			t.Fatalf("a well-behaved client got %q, %v", body, err)
		}
	}
	slices.Sort(took)
	return [2]time.Duration{took[len(took)/2], took[len(took)*99/100]}
}

// settles waits until the node has given back what the attack held.
func (n *loadedNode) settles(t *testing.T, attack string) {
	t.Helper()
	var open float64
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); <-time.After(50 * time.Millisecond) {
		if open = n.metric(t, "seawall_connections"); open <= 8 {
			return
		}
	}
	t.Errorf("%s: %v connections are still open 30 seconds after it", attack, open)
}
