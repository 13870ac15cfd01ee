package rfc9111

import (
	"fmt"
	"net/http"
	"time"
)

// Ask is what judging a response needs to know of its request.
type Ask struct {
	Method        string
	URL           string // scheme://host/path?query, as in the cache key
	NoStore       bool
	Authorization bool
	Cookie        bool
	Content       bool // the request has content
}

// AskOf reads an Ask from a request's fields. Servers that keep the framing
// apart from the fields set Content themselves.
func AskOf(method, url string, h http.Header) Ask {
	length, _ := single(h["Content-Length"])
	return Ask{
		Method:        method,
		URL:           url,
		NoStore:       RequestDirectives(h).NoStore,
		Authorization: len(h["Authorization"]) > 0,
		Cookie:        len(h["Cookie"]) > 0,
		Content:       len(h["Transfer-Encoding"]) > 0 || len(h["Content-Length"]) > 0 && length != "0",
	}
}

// SetCookie says what becomes of responses that carry Set-Cookie. None of the
// choices keeps one without explicit freshness.
type SetCookie uint8

// The choices of the site policy set_cookie.
const (
	CookieShared SetCookie = iota // stored if it speaks to shared caches: public, s-maxage, a targeted field
	CookiePass                    // never stored
	CookieStrip                   // stored without Set-Cookie
	CookieStore                   // stored whole, all that RFC 9111 asks
)

// String returns the word that ParseSetCookie reads.
func (s SetCookie) String() string {
	names := [...]string{"shared", "pass", "strip", "store"}
	if int(s) >= len(names) {
		return fmt.Sprintf("SetCookie(%d)", uint8(s))
	}
	return names[s]
}

// ParseSetCookie reads a value of the site policy set_cookie.
func ParseSetCookie(s string) (SetCookie, error) {
	for c := CookieShared; c <= CookieStore; c++ {
		if c.String() == s {
			return c, nil
		}
	}
	return CookiePass, fmt.Errorf("rfc9111: set_cookie %q (hint: write shared, pass, strip or store)", s)
}

// Options is a site's policy. A nil pointer is the same as the zero value.
type Options struct {
	Targeted  []string // targeted fields by precedence; nil: CDN-Cache-Control, Surrogate-Control
	SetCookie SetCookie

	HeuristicFraction float64       // of Date minus Last-Modified; 0: 0.1; negative: no heuristics
	HeuristicCap      time.Duration // 0: 24h

	// TTL is the operator's lifetime, in place of the response's own, unless
	// that says no-store, private or no-cache. 0 or negative: none. A response
	// that states no lifetime, or 0, takes it only if its status allows
	// heuristics or is a temporary redirection, or with TTLAnyStatus: a rule for
	// a path is not meant to keep a passing 503 or 429.
	TTL          time.Duration
	TTLAnyStatus bool

	Understood func(status int) bool // for must-understand; nil: the statuses of RFC 9110
}

// Reason says why a response was not stored, in a form fit for the detail of
// Cache-Status. It is empty when it was.
type Reason string

// The reasons not to store.
const (
	ReasonNoStore        Reason = "no-store"
	ReasonPrivate        Reason = "private"
	ReasonAuthorization  Reason = "authorization"
	ReasonSetCookie      Reason = "set-cookie"
	ReasonCookie         Reason = "cookie" // the request had one, the response says nothing
	ReasonStatus         Reason = "status"
	ReasonMethod         Reason = "method"
	ReasonContent        Reason = "content" // a GET with content
	ReasonVaryAny        Reason = "vary-any"
	ReasonNoFreshness    Reason = "no-freshness"
	ReasonRequestNoStore Reason = "request-no-store"
	ReasonPartial        Reason = "partial"
	ReasonNotUnderstood  Reason = "not-understood"
)

// Decision is the verdict on one response.
type Decision struct {
	Store          bool
	Why            Reason // empty when Store
	Terms          Terms  // the zero value unless Store
	StripSetCookie bool   // remove Set-Cookie before storing
}

// Judge decides whether a final response may be stored by a shared cache and on
// which terms it may be used (RFC 9111, 3 and 4; RFC 9213; RFC 5861). asked and
// got are when it was requested and when its head arrived. h is the header as
// received, or as EndToEnd left it; it is not changed.
func Judge(a Ask, status int, h http.Header, asked, got time.Time, o *Options) Decision {
	if o == nil {
		o = &Options{}
	}
	c, from := governing(h, o.Targeted)
	j := judgement{ask: a, status: status, header: h, got: got, options: o, control: c, from: from}
	j.date = got
	if s, ok := single(h["Date"]); ok {
		if d, ok := ParseDateAt(s, got); ok {
			j.date = d
		}
	}
	j.chooseLifetime()
	if why := j.refusal(); why != "" {
		return Decision{Why: why}
	}
	return Decision{
		Store:          true,
		Terms:          j.terms(asked),
		StripSetCookie: o.SetCookie == CookieStrip && len(h["Set-Cookie"]) > 0,
	}
}

// judgement is one response being judged.
type judgement struct {
	ask     Ask
	status  int
	header  http.Header
	got     time.Time
	options *Options

	control control
	from    Source // the targeted field that rules, or SourceNone
	date    time.Time

	lifetime time.Duration
	source   Source
	stated   bool // the response itself states its freshness
}

// refusal returns the first reason not to store, the hardest first.
func (j *judgement) refusal() Reason {
	if why := j.requestRefusal(); why != "" {
		return why
	}
	if why := j.statusRefusal(); why != "" {
		return why
	}
	c := &j.control
	switch {
	case c.mustUnderstand && !j.understood():
		return ReasonNotUnderstood
	case c.noStore && !c.overridesNoStore:
		return ReasonNoStore
	case c.private:
		return ReasonPrivate
	case j.ask.Authorization && !j.authorized():
		return ReasonAuthorization
	case variesOnAny(j.header["Vary"]):
		return ReasonVaryAny
	case len(j.header["Set-Cookie"]) > 0 && !j.mayKeepCookie():
		return ReasonSetCookie
	case j.ask.Cookie && !j.explicit():
		return ReasonCookie
	case !j.permitted():
		return ReasonStatus
	case !j.useful():
		return ReasonNoFreshness
	}
	return ""
}

func (j *judgement) requestRefusal() Reason {
	switch {
	case j.ask.NoStore:
		return ReasonRequestNoStore
	case j.ask.Method == http.MethodGet && j.ask.Content:
		return ReasonContent
	case j.ask.Method == http.MethodGet:
		return ""
	case j.ask.Method == http.MethodPost && j.answersLaterGet():
		return ""
	}
	// HEAD too: its response has no body to answer a GET with.
	return ReasonMethod
}

// answersLaterGet tells whether the response to a POST is the representation
// that a GET of the same URL would get (RFC 9110, 9.3.3).
func (j *judgement) answersLaterGet() bool {
	location, ok := single(j.header["Content-Location"])
	if !ok || j.status != http.StatusOK || !j.stated {
		return false
	}
	own, ok := resolve(j.ask.URL, "")
	if !ok {
		return false
	}
	absolute, ok := resolve(j.ask.URL, location)
	return ok && absolute == own
}

// statusRefusal refuses responses that do not stand for the URL alone: interim
// ones, parts, and answers to the request's own conditions or range.
func (j *judgement) statusRefusal() Reason {
	switch s := j.status; {
	case s == http.StatusPartialContent:
		return ReasonPartial
	case s < 200, s > 599, s == http.StatusNotModified,
		s == http.StatusPreconditionFailed, s == http.StatusRequestedRangeNotSatisfiable:
		return ReasonStatus
	}
	return ""
}

func (j *judgement) understood() bool {
	if j.options.Understood != nil {
		return j.options.Understood(j.status)
	}
	switch s := j.status; {
	case s >= 200 && s <= 205, s >= 300 && s <= 303, s == 305, s == 307, s == 308,
		s >= 400 && s <= 417, s == 421, s == 422, s == 426, s >= 500 && s <= 505:
		return true
	}
	return false
}

// authorized: RFC 9111, 3.5. What cannot be read permits nothing, nor does
// proxy-revalidate, which is not among those that do.
func (j *judgement) authorized() bool {
	c := &j.control
	return c.public || c.permitsAuthorized || c.sMaxAge.valid()
}

// mayKeepCookie applies the site's policy to a response with Set-Cookie.
func (j *judgement) mayKeepCookie() bool {
	if !j.explicit() {
		return false
	}
	switch j.options.SetCookie {
	case CookieShared:
		return j.from != SourceNone || j.control.public || j.control.sMaxAge.valid()
	case CookieStrip, CookieStore:
		return true
	}
	return false
}

// explicit tells whether somebody said how long the response may be used: the
// response (no-cache says not at all without validation) or the operator.
func (j *judgement) explicit() bool {
	return j.stated || j.source == SourceTTL || j.control.noCache
}

// permitted is the last condition of RFC 9111, 3: a status without a meaning of
// its own for caches needs to be marked.
func (j *judgement) permitted() bool {
	return j.control.public || j.stated || j.source == SourceTTL || heuristicStatus(j.status)
}

// useful tells whether a stored response could ever answer: fresh, validated, or
// stale inside a window.
func (j *judgement) useful() bool {
	if v := ValidatorsOf(j.header, j.got); v.ETag != "" || !v.LastModified.IsZero() {
		return true
	}
	if j.control.noCache {
		return false
	}
	while, ifError := j.windows()
	return j.lifetime > 0 || while > 0 || ifError > 0
}
