package origin

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"
)

// patience returns how long a connection may have been idle, 0 for any time: the
// longer it was, the likelier its server is closing it, and a request that may
// not be sent twice would be lost with it.
func (x *exchange) patience() time.Duration {
	if x.idempotent() {
		return 0
	}
	return x.p.cfg.Timeouts.IdleConn / 2
}

// connect makes a TCP connection to s. at is where to, if addresses were looked
// up here. The *Error says that s was not reached.
func (s *server) connect(x *exchange) (nc net.Conn, at netip.AddrPort, err error) {
	ctx, cancel := x.within(s.p.cfg.Timeouts.Connect)
	defer cancel()
	if s.names == nil {
		nc, err = s.p.cfg.Dial(ctx, "tcp", s.addr)
	} else {
		nc, at, err = s.names.dial(ctx)
	}
	if err != nil {
		return nil, at, x.missed(s, stepConnect, err)
	}
	return nc, at, nil
}

// secure does the TLS handshake on nc, offering protocols. If it fails, or a
// callback of Config.TLS panics, the connection is closed. The *Error says that
// s was not reached.
func (s *server) secure(x *exchange, nc net.Conn, protocols ...string) (*tls.Conn, error) {
	ctx, done := x.within(s.p.cfg.Timeouts.TLS)
	defer done()
	cfg := s.tls.Clone()
	cfg.NextProtos = protocols
	t, shaken := tls.Client(nc, cfg), false
	defer func() {
		if !shaken {
			nc.Close()
		}
	}()
	if err := t.HandshakeContext(ctx); err != nil {
		if strings.HasSuffix(err.Error(), "no application protocol") { // the alert of RFC 7301, 3.2
			err = fmt.Errorf("%w: the server does not speak the protocol %s (hint: protocol %s)", err, s.proto, s.otherProtocol())
		}
		return nil, x.missed(s, stepTLS, err)
	}
	shaken = true
	return t, nil
}

// otherProtocol is what a server over TLS may speak that does not speak its own.
func (s *server) otherProtocol() string {
	if s.proto == "h1" {
		return "h2"
	}
	return "h1"
}

// missed is fault for a request that never reached s.
func (x *exchange) missed(s *server, step string, err error) *Error {
	e := x.fault(s, step, false, err)
	e.unreached = true
	return e
}
