package listen

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"sync"
	"time"
)

// wrap puts around h what every exchange needs: its connection marked busy,
// chunked HTTP/1.1 requests made the last of their connection, writes timed,
// HTTP/3 announced, and panics kept to the exchange they end.
func (s *Server) wrap(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer s.recovered(r)
		var of *running
		var q *quicConn
		switch c := r.Context().Value(connKey{}).(type) {
		case *conn:
			if c.closing.Load() { // already read when its connection was closed
				panic(http.ErrAbortHandler)
			}
			c.busy.Store(true)
			c.head.over()
			if r.TLS = c.state(); r.TLS != nil && c.altSvc != nil && c.announces() {
				w.Header()["Alt-Svc"] = c.altSvc
			}
			s.lastOfItsConnection(w, r, c)
			of = &c.running
			defer c.frames.answered(r)
		case *quicConn:
			q = c
			c.enter()
			defer c.leave(s.IdleTimeout)
			alikeConnect(r)
		}
		if why := unclear(r); why != "" {
			s.refuse(w, r, why)
			return
		}
		if r.ProtoMajor == 1 {
			h.ServeHTTP(w, r)
			return
		}
		s.serveStream(h, w, r, of, q)
	})
}

// alikeConnect gives an extended CONNECT of HTTP/3 the shape that net/http
// gives one of HTTP/2: quic-go puts its :protocol where the version stands.
func alikeConnect(r *http.Request) {
	if r.Method == http.MethodConnect && r.Proto != "HTTP/3.0" {
		r.Header[connectProtocol] = []string{r.Proto}
		r.Proto = "HTTP/3.0"
	}
}

// serveStream answers an exchange of HTTP/2 or 3, the latter by q.
func (s *Server) serveStream(h http.Handler, w http.ResponseWriter, r *http.Request, of *running, q *quicConn) {
	timed := &timedWriter{ResponseWriter: w, s: s, request: r, of: of}
	if q != nil {
		s.settle(w, r)
	}
	timed.begin()
	defer timed.end()
	if q != nil && !r.TLS.HandshakeComplete {
		h.ServeHTTP(earlyWriter{timed, q.Conn}, r)
	} else {
		h.ServeHTTP(timed, r)
	}
	timed.clean()
}

// lastOfItsConnection lets nothing follow a chunked HTTP/1.1 request, nor
// one of HTTP/1.0. net/http
// drops a Content-Length that comes with a Transfer-Encoding and does not
// tell, so where such a request ends may be seen in two ways (RFC 9112, 6.1).
// In HTTP/1.0 it drops the Transfer-Encoding itself, of which nothing is seen.
func (s *Server) lastOfItsConnection(w http.ResponseWriter, r *http.Request, c *conn) {
	if r.ProtoMajor == 1 && (len(r.TransferEncoding) > 0 || r.ProtoMinor == 0) {
		w.Header().Set("Connection", "close")
		c.closing.Store(true)
	}
}

// recovered counts and logs a panic and passes on one that net/http takes as
// "abort this exchange". It must be deferred.
func (s *Server) recovered(r *http.Request) {
	v := recover()
	if v == nil {
		return
	}
	if v != http.ErrAbortHandler {
		s.Count(Panicked)
		stack := debug.Stack()
		s.words.warn("panic in a handler", "method", clip(r.Method), "host", clip(r.Host), "target", clip(r.RequestURI),
			"panic", clip(fmt.Sprint(v)), "stack", string(stack[:min(len(stack), 8<<10)]))
	}
	panic(http.ErrAbortHandler)
}

// clip bounds what a log line takes from a request.
func clip(s string) string { return s[:min(len(s), 200)] }

// The rate of log lines that clients can cause.
const (
	wordsBurst = 20
	wordsEvery = time.Second
)

// words logs at most wordsBurst lines at once and one each wordsEvery after;
// what it leaves out is told with the next line. It is a slog.Handler for what
// net/http itself says.
type words struct {
	log *slog.Logger

	mu     sync.Mutex
	spent  int       // lines of the burst used; guarded by mu
	last   time.Time // when spent was last brought up to date; guarded by mu
	silent int       // lines left out; guarded by mu
}

// may takes one line of the allowance and returns how many were left out
// before it.
func (q *words) may(now time.Time) (before int, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if back := int(now.Sub(q.last) / wordsEvery); back > 0 {
		q.spent = max(0, q.spent-back)
		q.last = now
	}
	if q.spent >= wordsBurst {
		q.silent++
		return 0, false
	}
	q.spent++
	before, q.silent = q.silent, 0
	return before, true
}

func (q *words) warn(msg string, args ...any) {
	before, ok := q.may(time.Now())
	if !ok {
		return
	}
	if before > 0 {
		args = append(args, "lines_left_out", before)
	}
	q.log.Warn(msg, args...)
}

// Enabled is part of slog.Handler.
func (q *words) Enabled(ctx context.Context, level slog.Level) bool {
	return q.log.Enabled(ctx, level)
}

// Handle is part of slog.Handler.
func (q *words) Handle(_ context.Context, r slog.Record) error {
	q.warn("net/http", "says", clip(r.Message))
	return nil
}

// WithAttrs is part of slog.Handler; net/http sets none.
func (q *words) WithAttrs([]slog.Attr) slog.Handler { return q }

// WithGroup is part of slog.Handler; net/http sets none.
func (q *words) WithGroup(string) slog.Handler { return q }
