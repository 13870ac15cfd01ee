package origin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

// The Proxy-Status error types in use (RFC 9209, 2.3).
const (
	dnsTimeout         = "dns_timeout"
	dnsError           = "dns_error"
	unavailable        = "destination_unavailable"
	notFound           = "destination_not_found"
	unroutable         = "destination_ip_unroutable"
	connRefused        = "connection_refused"
	connTerminated     = "connection_terminated"
	connTimeout        = "connection_timeout"
	connWriteTimeout   = "connection_write_timeout"
	connLimit          = "connection_limit_reached"
	tlsProtocol        = "tls_protocol_error"
	tlsCertificate     = "tls_certificate_error"
	tlsAlert           = "tls_alert_received"
	requestError       = "http_request_error"
	responseIncomplete = "http_response_incomplete"
	responseHeadSize   = "http_response_header_section_size"
	responseCoding     = "http_response_transfer_coding"
	responseTimeout    = "http_response_timeout"
	upgradeFailed      = "http_upgrade_failed"
	protocolError      = "http_protocol_error"
)

// The steps of an exchange, as errors name them.
const (
	stepRequest = "request"
	stepQueue   = "wait for a place at"
	stepConnect = "connect to"
	stepTLS     = "TLS handshake with"
	stepWrite   = "write to"
	stepHead    = "read head from"
	stepBody    = "read body from"
)

// Error says why an exchange failed. The response's Body.Read returns it too.
type Error struct {
	Kind   string // a Proxy-Status error type (RFC 9209, 2.3)
	Pool   string // Config.Name
	Server string // scheme and authority; "" when none was chosen
	Step   string // what was being done
	Err    error  // the cause; the context's error when that ended the exchange

	unanswered bool
	unreached  bool // the request was never sent
	unsent     bool // a connection that was closing did not take it
	overload   bool
	stale      bool // a reused connection closed before it brought an answer
}

// Error returns pool, step, server, kind and cause.
func (e *Error) Error() string {
	s := "origin: "
	if e.Pool != "" {
		s += e.Pool + ": "
	}
	s += e.Step
	if e.Server != "" {
		s += " " + e.Server
	}
	s += ": " + e.Kind
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// ProxyStatus returns Kind.
func (e *Error) ProxyStatus() string { return e.Kind }

// Unanswered reports whether the server could not be reached, or closed or stayed
// silent, without a byte of a response. It is false for a request that was
// refused here or cancelled.
func (e *Error) Unanswered() bool { return e.unanswered }

// Overload reports whether the request was refused here because too many are
// under way: an answer from what is stored is better than another attempt.
func (e *Error) Overload() bool { return e.overload }

// RetryAfter returns when a client may try again, in whole seconds, for a
// Retry-After field; 0 when nothing is known.
func (e *Error) RetryAfter() time.Duration {
	if e.overload {
		return overloadRest
	}
	return 0
}

// overloadRest is how long clients are asked to stay away: about as long as the
// queue takes to empty.
const overloadRest = 2 * time.Second

// refuse returns the error for a request that is not sent.
func refuse(format string, args ...any) *Error {
	return &Error{Kind: requestError, Step: stepRequest, Err: fmt.Errorf(format, args...)}
}

// malformed returns the error for a response that breaks HTTP/1.1.
func malformed(text string) *Error {
	return &Error{Kind: protocolError, Step: stepHead, Err: errors.New(text)}
}

// contextError returns ctx's error, with its cause where that says more.
func contextError(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if cause == nil || errors.Is(err, cause) {
		return err
	}
	return fmt.Errorf("%w: %w", err, cause)
}

// place fills in where e happened.
func (x *exchange) named(s *server, e *Error) *Error {
	e.Pool = x.p.cfg.Name
	if s != nil {
		e.Server = s.url
	}
	return e
}

// fault makes an *Error of what stopped the exchange at a step. answered says
// that bytes of a response had come.
func (x *exchange) fault(s *server, step string, answered bool, err error) *Error {
	if ctxErr := x.ctx.Err(); ctxErr != nil {
		e := &Error{Kind: connTerminated, Step: step, Err: contextError(x.ctx)}
		if errors.Is(ctxErr, context.DeadlineExceeded) {
			e.Kind, e.unanswered = timeoutKind(step), !answered
		}
		return x.named(s, e)
	}
	var e *Error
	if !errors.As(err, &e) {
		e = &Error{Kind: kindOf(step, answered, err), Step: step, Err: err}
		if e.Kind == responseIncomplete && !errors.Is(err, io.ErrUnexpectedEOF) {
			e.Err = incomplete(err)
		}
		e.unanswered = !answered
	}
	return x.named(s, e)
}

// incomplete wraps the end of a connection so that no reader takes it for the
// end of a body.
func incomplete(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return fmt.Errorf("%w: %w", io.ErrUnexpectedEOF, err)
}

// kindOf maps an error of net, crypto/tls or io to its Proxy-Status type.
func kindOf(step string, answered bool, err error) string {
	switch {
	case isTimeout(err) && !isDNS(err):
		return timeoutKind(step)
	case step == stepConnect:
		return connectKind(err)
	case step == stepTLS:
		return tlsKind(err)
	case answered:
		return responseIncomplete
	}
	return connTerminated
}

func timeoutKind(step string) string {
	switch step {
	case stepQueue:
		return connLimit
	case stepConnect, stepTLS:
		return connTimeout
	case stepWrite:
		return connWriteTimeout
	}
	return responseTimeout
}

func connectKind(err error) string {
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns) && dns.IsTimeout:
		return dnsTimeout
	case dns != nil:
		return dnsError
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, errnoRefused):
		return connRefused
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return unroutable
	}
	return unavailable
}

func tlsKind(err error) string {
	var cert *tls.CertificateVerificationError
	var op *net.OpError
	switch {
	case errors.As(err, &cert), strings.HasPrefix(err.Error(), "x509: "):
		return tlsCertificate
	case errors.As(err, &op) && op.Op == "remote error":
		return tlsAlert
	case isClosed(err):
		return connTerminated
	}
	return tlsProtocol
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &t) && t.Timeout()
}

func isDNS(err error) bool {
	var dns *net.DNSError
	return errors.As(err, &dns)
}

// isClosed reports whether err says that the other side closed the connection.
func isClosed(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.ErrClosedPipe) ||
		errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		errors.Is(err, errnoReset) || errors.Is(err, errnoAborted)
}
