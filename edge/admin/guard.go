package admin

import (
	"crypto/sha256"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// admit reports whether the call may be answered; if not, it has been refused.
func (c *call) admit() bool {
	now := time.Now()
	if why := crossSite(c.r); why != "" {
		return c.refuse(http.StatusForbidden, why)
	}
	holders := *c.h.holders.Load()
	if len(holders) == 0 {
		if why := foreign(c.r); why != "" {
			return c.refuse(http.StatusForbidden, why)
		}
		return true
	}
	if !c.known(holders, now) {
		return false
	}
	if c.token.limit != nil && !c.token.limit.AllowN(now, 1) {
		c.w.Header().Set("Retry-After", "1")
		return c.refuse(http.StatusTooManyRequests, "This token has made all the calls that it may make in a second.")
	}
	// A call that does not exist is told of to whoever may read.
	needs := ScopeRead
	if c.route != nil {
		needs = c.route.scope
	}
	if !c.token.has(needs) {
		return c.refuse(http.StatusForbidden, "This call needs a token with the scope "+strings.ReplaceAll(needs.String(), " ", " or ")+"; "+c.token.Name+" has "+c.token.Scopes.String()+".")
	}
	return true
}

// known finds the holder of the call's token, or refuses.
func (c *call) known(holders []*holder, now time.Time) bool {
	text, one := presented(c.r)
	if text == "" {
		c.w.Header().Set("WWW-Authenticate", `Bearer realm="seawall"`)
		why := "This call needs a token: Authorization: Bearer TOKEN, Fastly-Key or X-Auth-Key."
		if !one {
			why = "This call carries two tokens that differ; leave one of them."
		}
		return c.refuse(http.StatusUnauthorized, why)
	}
	var from netip.Addr // of no peer that can be read: all such are one
	if peer, err := netip.ParseAddrPort(c.r.RemoteAddr); err == nil {
		from = peer.Addr()
	}
	hash := sha256.Sum256([]byte(text))
	if c.h.failures.blocked(from, hash, now) {
		c.w.Header().Set("Retry-After", "1")
		return c.refuse(http.StatusTooManyRequests, "Too many wrong tokens came from this address; wait before the next.")
	}
	if c.token = find(holders, hash); c.token == nil {
		c.h.failures.failed(from, hash, now)
		c.w.Header().Set("WWW-Authenticate", `Bearer realm="seawall", error="invalid_token"`)
		return c.refuse(http.StatusUnauthorized, "This token is not known.")
	}
	return true
}

// foreign says why r may not use the admin API while it has no tokens, or
// nothing. Only this machine may, and only by its own names: a web page
// elsewhere can make a browser on this machine call loopback by a name of its
// own that it points here (DNS rebinding), and a proxy on this machine can carry
// anyone's call.
func foreign(r *http.Request) string {
	const remedy = " Configure admin.tokens to be reached otherwise."
	if peer, err := netip.ParseAddrPort(r.RemoteAddr); err != nil || !peer.Addr().Unmap().IsLoopback() {
		return "Without tokens the admin API answers calls from this machine only." + remedy
	}
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Real-Ip"} {
		if len(r.Header[name]) > 0 {
			return "Without tokens the admin API does not answer forwarded calls: " + name + " is set." + remedy
		}
	}
	if !loopback(r.Host) {
		return "Without tokens the admin API answers to a loopback Host only: localhost, 127.0.0.1 or [::1]." + remedy
	}
	return ""
}

// crossSite says why r comes from another site's page, or nothing. Browsers say
// so themselves, and pages cannot make them say otherwise.
func crossSite(r *http.Request) string {
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
