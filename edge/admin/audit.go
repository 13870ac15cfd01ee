package admin

import (
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"seawall/edge"
)

// note writes the audit line of a call that changed something, was to, or was
// refused. The token itself never appears, and of the query nothing: what it
// asked for is in what.
func (c *call) note() {
	result, level := "done", slog.LevelInfo
	before := 0
	switch {
	case c.refused != "":
		result, level = "refused", slog.LevelWarn
		c.h.Stats.Fault(edge.FaultAdmin)
		// Who holds a token is bound by its rate; all others share this.
		if c.token == nil {
			var ok bool
			if before, ok = c.h.strangers.may(time.Now()); !ok {
				return
			}
		}
	case c.route == nil || !c.route.changes:
		return
	case c.status >= 400 || c.status == 0: // 0: it broke down before an answer
		result, level = "failed", slog.LevelWarn
	}
	args := []any{"audit", true, "token", c.name(), "client", c.client(), "method", clip(c.r.Method), "path", clip(c.r.URL.Path),
		"what", clip(c.what), "result", result, "status", c.status}
	if c.id != "" {
		args = append(args, "id", c.id)
	}
	if c.refused != "" {
		args = append(args, "reason", c.refused, "host", clip(c.r.Host))
	}
	if before > 0 {
		args = append(args, "lines_left_out", before)
	}
	c.h.Log.Log(c.r.Context(), level, "admin call "+result, args...)
}

// name is who calls, for the audit.
func (c *call) name() string {
	switch {
	case c.token != nil:
		return c.token.Name
	case c.refused != "":
		return ""
	}
	return "(this machine)"
}

// client is the caller's address.
func (c *call) client() string {
	if host, _, err := net.SplitHostPort(c.r.RemoteAddr); err == nil {
		return host
	}
	return clip(c.r.RemoteAddr)
}

// refuse answers that the call is not allowed. It returns false.
func (c *call) refuse(status int, why string) bool {
	c.refused = why
	c.fail(status, why)
	return false
}

// The bounds of the lines that strangers can cause.
const (
	lineBurst = 100
	lineEvery = 100 * time.Millisecond
)

// logged lets a bounded number of lines through and counts the others. The
// zero value is ready.
type logged struct {
	mu     sync.Mutex
	limit  *rate.Limiter // guarded by mu
	silent int           // guarded by mu
}

// may reports whether a line may be written now, and how many were not since
// the last.
func (l *logged) may(now time.Time) (before int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.limit == nil {
		l.limit = rate.NewLimiter(rate.Every(lineEvery), lineBurst)
	}
	if !l.limit.AllowN(now, 1) {
		l.silent++
		return 0, false
	}
	before, l.silent = l.silent, 0
	return before, true
}

// statusText is a status in words, never empty.
func statusText(status int) string {
	if text := http.StatusText(status); text != "" {
		return text
	}
	return "Failed"
}
