package origin

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// path returns the cookie's Path attribute: "/" also where Path cannot be
// written as one, or the cookie's name allows no other (RFC 6265bis, 4.1.3.2).
func (s *Sticky) path() string {
	odd := strings.ContainsFunc(s.Path, func(c rune) bool { return c <= ' ' || c >= 0x7f || c == ';' })
	if odd || !strings.HasPrefix(s.Path, "/") || len(s.Cookie) >= 7 && strings.EqualFold(s.Cookie[:7], "__Host-") {
		return "/"
	}
	return s.Path
}

// stick makes the exchange prefer the server that the client's cookie names.
func (x *exchange) stick() {
	name := x.p.cfg.Sticky.Cookie
	if name == "" || !x.hint.Uncached && x.hint.Cookie == nil {
		return
	}
	for _, c := range x.req.CookiesNamed(name) {
		i := slices.IndexFunc(x.p.servers, func(s *server) bool { return s.token == c.Value })
		if i >= 0 {
			x.prefer = x.p.servers[i]
			x.stuck = x.prefer
			return
		}
	}
}

// remember tells the client which server it had, unless it knows: by the
// response, or by x.cookie where the caller is to decide.
func (x *exchange) remember(s *server, resp *http.Response) {
	cfg := &x.p.cfg.Sticky
	if cfg.Cookie == "" || !x.hint.Uncached && x.hint.Cookie == nil || x.stuck == s || resp.StatusCode == http.StatusSwitchingProtocols {
		return
	}
	line := cfg.Cookie + "=" + s.token + "; Path=" + cfg.Path + "; HttpOnly; SameSite=Lax"
	if cfg.MaxAge > 0 {
		line += "; Max-Age=" + strconv.FormatInt(int64(cfg.MaxAge/time.Second), 10)
	}
	if cfg.Secure {
		line += "; Secure"
	}
	if !x.hint.Uncached {
		x.cookie = line
		return
	}
	resp.Header.Add("Set-Cookie", line)
}
