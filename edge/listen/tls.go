package listen

import (
	"crypto/tls"
	"fmt"
	"net"
	"strconv"
)

// ListenTLS binds addr for HTTP/1.1 and 2 over TLS on TCP, and for HTTP/3 on
// the UDP port of the same number, to which answers over TCP point with
// Alt-Svc (RFC 7838). config needs a certificate; its protocols are set here.
// It may be called for several addresses, before Serve.
func (s *Server) ListenTLS(addr string, config *tls.Config) error {
	s.once.Do(s.prepare)
	l, t, err := s.bothPorts(addr, config)
	if err != nil {
		return err
	}
	port := l.Addr().(*net.TCPAddr).Port
	config = config.Clone()
	config.MinVersion = max(config.MinVersion, tls.VersionTLS12)
	config.NextProtos = []string{"h2", "http/1.1"}

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
