package listen

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strconv"
	"sync"
	"time"
)

// ListenTLS binds addr for HTTP/1.1 and 2 over TLS on TCP, and for HTTP/3 on
// the UDP port of the same number, to which answers over TCP point with
// Alt-Svc (RFC 7838). config needs a certificate; its protocols are set here.
// It may be called for several addresses, before Serve.
func (s *Server) ListenTLS(addr string, config *tls.Config) error {
	s.once.Do(s.prepare)
	third := config.Clone()
	third.GetConfigForClient = s.paced(config.GetConfigForClient)
	l, t, err := s.bothPorts(addr, third)
	if err != nil {
		return err
	}
	port := l.Addr().(*net.TCPAddr).Port
	config = config.Clone()
	config.MinVersion = max(config.MinVersion, tls.VersionTLS12)
	config.NextProtos = []string{"h2", "http/1.1"}
	config.GetConfigForClient = s.paced(config.GetConfigForClient)

	s.mu.Lock()
	defer s.mu.Unlock()
	altSvc := []string{fmt.Sprintf(`h3=":%d"; ma=%d`, port, int(altSvcAge.Seconds()))}
	s.listeners = append(s.listeners, &listener{Listener: l, s: s, tls: config, altSvc: altSvc})
	s.thirds = append(s.thirds, t)
	return nil
}

// bothPorts binds a TCP port and the UDP port of the same number. One that was
// chosen as free for TCP may be taken for UDP: then another is tried.
func (s *Server) bothPorts(addr string, config *tls.Config) (net.Listener, *third, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, nil, fmt.Errorf("listen: %w", err)
	}
	for tries := 10; ; tries-- {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return nil, nil, fmt.Errorf("listen: %w", err)
		}
		t, err := s.listenUDP(net.JoinHostPort(host, strconv.Itoa(l.Addr().(*net.TCPAddr).Port)), config)
		if err == nil {
			return l, t, nil
		}
		l.Close()
		if port != "0" || tries <= 1 {
			return nil, nil, err
		}
	}
}

// state returns what the connection's TLS agreed on, nil in clear.
func (c *conn) state() *tls.ConnectionState {
	if c.tls == nil {
		return nil
	}
	if s := c.agreed.Load(); s != nil {
		return s
	}
	s := c.tls.ConnectionState()
	c.agreed.Store(&s)
	return &s
}

// handshakeGap is what lies between the beginnings of two handshakes, over TCP
// and QUIC together, for each core: about what one costs. So a flood of them
// takes a part of the cores only, and not all at once.
const handshakeGap = time.Millisecond

// paced returns a GetConfigForClient, called when a ClientHello is complete and
// before anything costly, that waits for its turn. One that would wait for
// longer than a client may take to send a head is refused.
func (s *Server) paced(then func(*tls.ClientHelloInfo) (*tls.Config, error)) func(*tls.ClientHelloInfo) (*tls.Config, error) {
	return func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		wait, ok := s.turns.take(time.Now(), handshakeGap/time.Duration(runtime.GOMAXPROCS(0)), s.ReadHeaderTimeout/2)
		if !ok {
			s.words.warn("handshake refused: too many at once", "client", hello.Conn.RemoteAddr().String())
			return nil, errHandshakes // counted as a handshake that failed
		}
		if wait > 0 {
			time.Sleep(wait)
		}
		if then == nil {
			return nil, nil
		}
		return then(hello)
	}
}

var errHandshakes = errors.New("tls: too many handshakes at once")

// turns spaces out what would come in bursts.
type turns struct {
	mu   sync.Mutex
	next time.Time // the first that is free; guarded by mu
}

// take takes the next turn and returns how long it is until then; false when
// that is longer than most.
func (q *turns) take(now time.Time, gap, most time.Duration) (time.Duration, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	wait := max(0, q.next.Sub(now))
	if wait > most {
		return 0, false
	}
	q.next = now.Add(wait + gap)
	return wait, true
}
