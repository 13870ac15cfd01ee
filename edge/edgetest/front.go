package edgetest

import (
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
)

// front is a real HTTP/1.1 server over in-memory pipes.
type front struct {
	server *http.Server
	conns  chan net.Conn
	gone   chan struct{} // closed by Close of the listener
	once   sync.Once
	served chan struct{} // closed when Serve has returned
}

func newFront(h http.Handler, report func(string, ...any)) *front {
	f := &front{conns: make(chan net.Conn), gone: make(chan struct{}), served: make(chan struct{})}
	f.server = &http.Server{Handler: h, ErrorLog: log.New(panicReporter{report}, "", 0), DisableGeneralOptionsHandler: true}
	go func() {
		defer close(f.served)
		// The error is always ErrServerClosed: Accept fails for no other reason.
		_ = f.server.Serve(f)
	}()
	return f
}

// panicReporter makes a panic that net/http recovered fail the script; the
// server's other remarks (a client that left) are part of many behaviours.
type panicReporter struct {
	report func(string, ...any)
}

func (p panicReporter) Write(line []byte) (int, error) {
	if strings.Contains(string(line), "panic") {
		p.report("server: %s", line)
	}
	return len(line), nil
}

// Accept, Close and Addr make front the server's listener.
func (f *front) Accept() (net.Conn, error) {
	select {
	case c := <-f.conns:
		return c, nil
	case <-f.gone:
		return nil, net.ErrClosed
	}
}

// Close stops Accept.
func (f *front) Close() error {
	f.once.Do(func() { close(f.gone) })
	return nil
}

// Addr is the server's own address (RFC 5737).
func (f *front) Addr() net.Addr { return address("192.0.2.80") }

func (f *front) close() {
	// Only an error of the listener's Close could come back; it has none.
	_ = f.server.Close()
	<-f.served
}

// dial is the client's end of a new connection from an address.
func (f *front) dial(from string) net.Conn {
	client, server := net.Pipe()
	f.conns <- addressed{server, address(from)}
	return client
}

// addressed is a pipe's end that knows who is at the other end.
type addressed struct {
	net.Conn
	remote net.Addr
}

func (a addressed) RemoteAddr() net.Addr { return a.remote }

func (a addressed) LocalAddr() net.Addr { return address("192.0.2.80") }

func address(ip string) net.Addr {
	return &net.TCPAddr{IP: net.ParseIP(ip), Port: 50000}
}

// begin sends q on a connection of its own and reads the answer behind; with
// stall not negative, only that many bytes of the body until wait is called.
func (f *front) begin(q question, stall int) *exchange {
	x := newExchange(f.dial(q.from), q, stall)
	go func() {
		if x.write(q.head()) != nil || !q.hasBody {
			return
		}
		if q.expectsContinue() {
			<-x.mayContinue
		}
		_ = x.write(q.content()) // a server may answer and close without reading it
	}()
	go x.receive(1)
	return x
}

// beginRaw writes bytes and reads answers until the connection ends.
func (f *front) beginRaw(bytes []byte, head bool, from string) *exchange {
	q := question{method: "GET"}
	if head {
		q.method = "HEAD"
	}
	x := newExchange(f.dial(from), q, -1)
	go func() { _ = x.write(bytes) }() // as above
	go x.receive(1 << 20)
	return x
}

func (q question) expectsContinue() bool {
	for _, f := range q.fields {
		if strings.EqualFold(f.name, "Expect") {
			return true
		}
	}
	return false
}
