package admin

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"
)

// foreign says why r may not use the admin API, or nothing. Without tokens only
// this machine may, and only by its own names: a web page elsewhere can make a
// browser on this machine call loopback, by a name of its own that it points
// here (DNS rebinding) or across sites, and a proxy on this machine can carry
// anyone's call.
func foreign(r *http.Request) string {
	if peer, err := netip.ParseAddrPort(r.RemoteAddr); err != nil || !peer.Addr().Unmap().IsLoopback() {
		return "The admin API answers calls from this machine only."
	}
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Real-Ip"} {
		if len(r.Header[name]) > 0 {
			return "The admin API does not answer forwarded calls: " + name + " is set."
		}
	}
	if !loopback(r.Host) {
		return "The admin API answers to a loopback Host only: localhost, 127.0.0.1 or [::1]."
	}
	for _, from := range r.Header["Origin"] {
		u, err := url.Parse(from)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || !strings.EqualFold(u.Host, r.Host) {
			return "The admin API does not answer calls from another site's page: Origin is not this one."
		}
	}
	for _, site := range r.Header["Sec-Fetch-Site"] {
		if site != "same-origin" && site != "none" {
			return "The admin API does not answer calls from another site's page: Sec-Fetch-Site is neither same-origin nor none."
		}
	}
	return ""
}

// loopback reports whether host, with or without a port, names this machine
// beyond doubt. Names other than localhost are whatever a resolver says.
func loopback(host string) bool {
	if name, port, err := net.SplitHostPort(host); err == nil {
		if strings.Trim(port, "0123456789") != "" {
			return false
		}
		host = name
	} else if bare, ok := strings.CutPrefix(host, "["); ok {
		if bare, ok = strings.CutSuffix(bare, "]"); !ok {
			return false
		}
		host = bare
	} else if strings.Contains(host, ":") {
		return false
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Zone() == "" && addr.Unmap().IsLoopback()
}

// logged lets one line a second through and counts the others.
type logged struct {
	mu     sync.Mutex
	last   time.Time // guarded by mu
	silent int       // guarded by mu
}

func (l *logged) may(now time.Time) (before int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.last) < time.Second {
		l.silent++
		return 0, false
	}
	before, l.silent, l.last = l.silent, 0, now
	return before, true
}
