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
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		l.Close()
		return fmt.Errorf("listen: %w", err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	t, err := s.listenUDP(net.JoinHostPort(host, strconv.Itoa(port)), config)
	if err != nil {
		l.Close()
		return err
	}
	config = config.Clone()
	config.MinVersion = max(config.MinVersion, tls.VersionTLS12)
	config.NextProtos = []string{"h2", "http/1.1"}

	s.mu.Lock()
	defer s.mu.Unlock()
	s.listeners = append(s.listeners, &listener{Listener: l, s: s, tls: config})
	s.thirds = append(s.thirds, t)
	if s.altSvc == nil {
		s.altSvc = []string{fmt.Sprintf(`h3=":%d"; ma=%d`, port, int(altSvcAge.Seconds()))}
	}
	return nil
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
