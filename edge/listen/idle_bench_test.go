package listen

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// idleChild names the environment variable by which the benchmark's clients
// know that they are another process: only the node's memory is measured.
const idleChild = "SEAWALL_IDLE_CLIENTS"

// BenchmarkIdleConnections prints what an idle connection of each kind costs,
// in bytes of heap and stacks, after one exchange on it: 1,000 of each, or
// 10,000 where SEAWALL_LONG is set. Its clients are another process.
func BenchmarkIdleConnections(b *testing.B) {
	count := 1000
	if os.Getenv("SEAWALL_LONG") != "" {
		count = 10000
	}
	for _, p := range protocols {
		b.Run(p.name, func(b *testing.B) {
			for b.Loop() {
				b.ReportMetric(float64(idleBytes(b, p, count)), "B/conn")
			}
		})
	}
}

func idleBytes(b *testing.B, p protocol, count int) int64 {
	n := startFull(b, &Server{MaxConns: count + 10, IdleTimeout: 10 * time.Minute, Handler: http.HandlerFunc(hello)})
	defer n.Close()
	addr := n.addr
	if p.secure {
		addr = n.secure
	}
	before := memory()
	clients := exec.Command(os.Args[0], "-test.run", "^TestIdleClients$")
	clients.Env = append(os.Environ(), idleChild+"="+strings.Join([]string{p.name, addr, strconv.Itoa(count), base64.StdEncoding.EncodeToString(n.leaf)}, ","))
	clients.Stderr = os.Stderr
	said, err := clients.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	stop, err := clients.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := clients.Start(); err != nil {
		b.Fatal(err)
	}
	defer clients.Wait()
	defer stop.Close()
	ready := make([]byte, 5)
	if _, err := io.ReadFull(said, ready); err != nil || !bytes.Equal(ready, []byte("ready")) {
		b.Fatalf("the clients said %q, %v; are enough files allowed (ulimit -n)?", ready, err)
	}
	h1, h2, h3 := n.Open()
	if open := []int64{h1, h2, h3}[p.index]; open < int64(count) {
		b.Fatalf("%d connections are open, want %d", open, count)
	}
	return (memory() - before) / int64(count)
}

// memory is what heap and stacks hold.
func memory() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what a finalizer or pool still held
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// TestIdleClients is the clients' process of BenchmarkIdleConnections.
func TestIdleClients(t *testing.T) {
	args := strings.Split(os.Getenv(idleChild), ",")
	if len(args) != 4 {
		t.Skip("it is part of BenchmarkIdleConnections")
	}
	count, err := strconv.Atoi(args[2])
	if err != nil {
		t.Fatal(err)
	}
	der, err := base64.StdEncoding.DecodeString(args[3])
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	n := &fullNode{node: &node{addr: args[1]}, secure: args[1], trust: &tls.Config{RootCAs: pool}}
	for _, p := range protocols {
		if p.name == args[0] {
			open(t, n, p, count)
		}
	}
	os.Stdout.WriteString("ready")
	io.Copy(io.Discard, os.Stdin)
}

// open makes count connections, with one exchange on each.
func open(t *testing.T, n *fullNode, p protocol, count int) {
	t.Helper()
	var shared *quic.Transport
	if p.name == "h3" { // one socket for all of them
		socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		shared = &quic.Transport{Conn: socket}
		t.Cleanup(func() { shared.Close(); socket.Close() })
	}
	for i := range count {
		c, url := p.client(t, n)
		if tr, ok := c.Transport.(*http3.Transport); ok {
			tr.QUICConfig = &quic.Config{MaxIdleTimeout: 10 * time.Minute}
			tr.Dial = func(ctx context.Context, addr string, tc *tls.Config, qc *quic.Config) (*quic.Conn, error) {
				to, err := net.ResolveUDPAddr("udp", addr)
				if err != nil {
					return nil, err
				}
				return shared.DialEarly(ctx, to, tc, qc)
			}
		}
		if got := told(c.Get(url)); !strings.HasPrefix(got, "200") {
			t.Fatalf("client %d of %d: %s", i, count, got)
		}
	}
}
