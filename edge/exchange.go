package edge

import (
	"context"
	"crypto/tls"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"seawall/edge/rfc9111"
	"seawall/edge/store"
	"seawall/purge"
)

// exchange is one request and its answer. Its goroutine owns it; it is used
// again for another request after end.
type exchange struct {
	h *Handler
	w http.ResponseWriter
	r *http.Request
	ask
	site   *site
	policy *policy
	asked  time.Time // when the origin was, by pass

	key  []byte
	hash store.Hash

	authority  string // the Host field that the origin is sent
	partsAdded string // what functions add to the key's parts
	number     uint64 // of the request, once somebody asked; never 0

	renew bool // nobody is waiting: a stale object is fetched anew
	// What lookup found.
	object *Object
	known  bool          // a fill brought another variant of the key
	late   bool          // it joined a fill whose head had come before
	terms  rfc9111.Terms // the object's, as a soft purge changes them

	outcome    Outcome
	status     cacheStatus
	called     *called // by the site's viewer functions; nil without any
	spare      *called // one that is not in use
	ran        bool    // the viewer functions did
	fwdKnown   int     // the origin's status, 0 without one
	sent       int     // the status sent, 0 while none was
	bytes      int64
	firstByte  time.Duration
	held       bool // all of it is net/http's to send when the exchange has ended
	originTime time.Duration
	origin     *server     // that answered, nil when none was asked
	uncached   bool        // the origin was told that nothing but this client gets its answer
	cookie     *string     // of the server that answered; nil: not asked for
	content    *clientBody // what goes to the origin of the client's, if any

	coded  *codedWriter // codes the response on its way; nil where nothing does
	formed bool         // a form of the object is sent
	// exposed is what encode.Exposed says of the request as the client sent it:
	// functions may take away what tells one client from another.
	exposed bool

	socket    bool   // an extended CONNECT for a WebSocket
	socketKey string // what the origin must answer to
}

// ask is what a look-up needs of a request, and what its fill needs after the
// client has left.
type ask struct {
	now        time.Time // when the request was read, or last looked up
	method     string
	scheme     string
	host       string // normalised
	path       string // normalised
	query      string // what counts of it, with its "?"
	header     http.Header
	zone       string    // the site's name
	viewer     purge.URL // what the client asked for, where a function rewrote it
	parts      string    // the policy's key parts
	authorized bool      // it has Authorization, or had, when a function took it away
	cookied    bool      // it had a cookie before functions
	directives rfc9111.Directives

	// language is what the origin is known to answer the request in; "" while
	// that does not count.
	language string

	// What Accepts saw of the objects that it refused.
	sameParts bool // one had the same key parts
	barred    bool // one was refused only because the request has Authorization
}

// Accepts reports whether o is a variant for the request (RFC 9111, 4.1 and
// 3.5).
func (a *ask) Accepts(o *Object) bool {
	m := &o.Meta
	if m.Parts != a.parts || m.Subject.Site != a.zone {
		// A host that another configuration gave to another site: its policy
		// did not store this, and purges by tag count within a site.
		return false
	}
	a.sameParts = true
	if !m.Variant.Matches(a.header) && (a.language == "" || !m.Variant.MatchesIn(a.header, a.language)) {
		return false
	}
	if a.authorized && !m.Terms.Authorized {
		a.barred = true
		return false
	}
	return true
}

// Joins reports whether a fill of o, whose head came before the request, is
// still of use to it: a long one may outlive its response's lifetime.
func (a *ask) Joins(o *Object) bool { return o.Meta.Terms.Fresh(a.now) }

// Selector returns the normal form of the request's fields of these names.
func (a *ask) Selector(names []string) string {
	if len(names) == 0 {
		return selector(a.parts, "")
	}
	return selector(a.parts, string(rfc9111.AppendSelector(nil, names, a.header)))
}

// forJudge is what judging a response needs to know of its request. Credentials
// that a function took away count: what the origin says to one person, as
// functions may tell it who that is, is not everybody's without permission.
func (a *ask) forJudge(method string) rfc9111.Ask {
	r := rfc9111.AskOf(method, a.url(), a.header)
	r.Authorization, r.Cookie = r.Authorization || a.authorized, r.Cookie || a.cookied
	return r
}

// target is what is sent to the origin, byte for byte.
func (a *ask) target() string { return a.path + a.query }

// Subject returns what purges look at while the response is not known.
func (a *ask) Subject() any {
	return &purge.Subject{Site: a.zone, URL: *a.place(), Viewer: a.viewer}
}

// place is the URL that the key is made of.
func (a *ask) place() *purge.URL {
	return &purge.URL{Scheme: a.scheme, Host: a.host, Path: a.path, Query: a.query}
}

func (a *ask) url() string { return a.scheme + "://" + a.host + a.path + a.query }

func (h *Handler) begin(w http.ResponseWriter, r *http.Request) *exchange {
	x := h.pool.Get().(*exchange)
	x.w, x.r, x.now = w, r, time.Now()
	x.method, x.header = r.Method, r.Header
	return x
}

// admit finds the site and makes the key. It answers the requests that the
// node refuses, and returns false.
func (x *exchange) admit() bool {
	r := x.r
	x.scheme = x.clientScheme()
	x.host = normalHost(x.scheme, r.Host)
	if !validHost(x.host) {
		x.fault(FaultMalformed)
		x.refuse(http.StatusBadRequest, "bad-host")
		return false
	}
	x.site = x.h.sites.of(x.host)
	if x.site == nil {
		x.fault(FaultUnknownHost)
		x.refuse(http.StatusMisdirectedRequest, "unknown-host")
		return false
	}
	if len(r.RequestURI) > x.site.maxURL {
		x.fault(FaultLimit)
		x.refuse(http.StatusRequestURITooLong, "url-limit")
		return false
	}
	if r.Method == http.MethodConnect && !x.admitConnect() {
		return false
	}
	path, query, ok := splitTarget(r.RequestURI)
	if !ok && !(r.RequestURI == "*" && r.Method == http.MethodOptions) {
		x.fault(FaultMalformed)
		x.refuse(http.StatusBadRequest, "bad-target")
		return false
	}
	if !ok {
		path = "*"
	}
	if limit := x.site.Limits.Body; limit > 0 && r.ContentLength > limit {
		x.fault(FaultLimit)
		x.refuse(http.StatusRequestEntityTooLarge, "body-limit")
		return false
	}
	if loops(r.Header) {
		x.fault(FaultLoop)
		x.status.detail = "proxy-loop"
		x.fail(http.StatusBadGateway, "proxy_loop_detected")
		return false
	}
	x.header, x.zone = endToEnd(r.Header), x.site.Name
	x.authority = r.Host
	x.path, x.query = normalPath(path), x.site.query.apply(query)
	if x.site.Viewer != nil && !x.callViewer(query) {
		return false
	}
	x.identify()
	return true
}

// identify makes the key, of what the client asked for or functions made of
// it.
func (x *exchange) identify() {
	x.header = x.site.vary.reduce(x.method, x.header)
	x.policy = x.site.policyFor(x.path, x.header, 0)
	x.parts = x.policy.keyParts(x.header)
	if x.partsAdded != "" {
		x.parts += "function " + x.partsAdded + "\n"
	}
	x.authorized = x.authorized || len(x.header["Authorization"]) > 0
	x.directives = rfc9111.RequestDirectives(x.header)
	x.key = appendKey(x.key[:0], x.scheme, x.host, x.path, x.query)
	x.hash = x.h.Store.Hash(x.key)
}

// proven reports whether the request is known not to be a replay. One that came
// in 0-RTT data waits for the handshake, since only a hit changes nothing
// anywhere; where it cannot wait it is answered 425 (RFC 8470, 5.1).
func (x *exchange) proven() bool {
	if x.r.TLS == nil || x.r.TLS.HandshakeComplete {
		return true
	}
	early, ok := x.w.(interface {
		AwaitHandshake(context.Context) error
	})
	if !ok {
		x.refuse(http.StatusTooEarly, "early-data")
		return false
	}
	if early.AwaitHandshake(x.r.Context()) != nil {
		x.gone()
	}
	return true
}

// endToEnd returns the fields that the origin will see of the client's. Only
// they may choose a variant: a field that Connection names does not reach the
// origin, and must not poison the variant of those who really send it.
func endToEnd(h http.Header) http.Header {
	for _, line := range h["Connection"] {
		switch strings.ToLower(line) {
		case "close", "keep-alive", "upgrade", "keep-alive, upgrade":
		default:
			return rfc9111.EndToEnd(h)
		}
	}
	return h
}

// loops reports whether the request has been through a Seawall node before
// (RFC 8586).
func loops(h http.Header) bool {
	lines := h["Cdn-Loop"]
	if len(lines) == 0 {
		return false
	}
	for _, member := range rfc9111.Members(lines) {
		id, _, _ := strings.Cut(member, ";")
		if strings.EqualFold(strings.TrimSpace(id), "seawall") {
			return true
		}
	}
	return false
}

func (x *exchange) fault(kind FaultKind) {
	x.h.Stats.Fault(kind)
	x.h.words.say(levelFault, "request refused", "why", kind.String(), "client", peer(x.r), "host", clip(x.r.Host), "target", clip(x.r.RequestURI))
}

// clip bounds what of a client's bytes goes into a log line.
func clip(s string) string { return s[:min(len(s), 200)] }

// peer returns the address that the request came from, without its port.
func peer(r *http.Request) string {
	if i := strings.LastIndexByte(r.RemoteAddr, ':'); i >= 0 {
		return strings.Trim(r.RemoteAddr[:i], "[]")
	}
	return r.RemoteAddr
}

// trusted reports whether the peer's X-Forwarded-* and Forwarded fields are
// believed.
func (x *exchange) trusted() bool {
	return len(x.h.Trusted) > 0 && x.h.trusts(peer(x.r))
}

func (h *Handler) trusts(address string) bool {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return false
	}
	ip = ip.Unmap().WithZone("")
	for _, p := range h.Trusted {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}

// client returns the address of the client: the last one in X-Forwarded-For
// that no trusted proxy has, if the peer is trusted.
func (x *exchange) client() string {
	at := peer(x.r)
	if !x.trusted() {
		return at
	}
	chain := rfc9111.Members(x.header["X-Forwarded-For"])
	for i := len(chain) - 1; i >= 0 && x.h.trusts(at); i-- {
		if net.ParseIP(chain[i]) == nil {
			break
		}
		at = chain[i]
	}
	return at
}

func (x *exchange) clientScheme() string {
	if x.trusted() {
		switch proto := x.header.Get("X-Forwarded-Proto"); proto {
		case "http", "https":
			return proto
		}
	}
	if x.r.TLS != nil {
		return "https"
	}
	return "http"
}

// protocol returns the protocol of the client's connection.
func protocol(r *http.Request) Proto {
	switch r.ProtoMajor {
	case 2:
		return H2
	case 3:
		return H3
	}
	return H1
}

// end counts and logs the exchange, also one that a panic ends. It gives the
// exchange back.
func (x *exchange) end() {
	x.endCalled()
	x.endCoded()
	took := x.firstByte
	if !x.held {
		took = time.Since(x.now)
	}
	if x.site != nil {
		x.site.stats.Count(x.outcome, protocol(x.r), x.sent, x.bytes, took)
	}
	if x.h.Access != nil {
		x.record(took)
	}
	*x = exchange{h: x.h, key: x.key[:0], spare: x.spare}
	x.h.pool.Put(x)
}

func (x *exchange) record(took time.Duration) {
	rec := Record{
		Time: x.now, number: x.requestNumber(), Client: x.client(), Method: x.r.Method, Scheme: x.scheme,
		Host: x.r.Host, Target: x.r.RequestURI, Proto: x.r.Proto, Status: x.sent, Bytes: x.bytes,
		Duration: took, FirstByte: x.firstByte, Outcome: x.outcome, Detail: x.status.detail,
		Origin: x.origin.address(), OriginTime: x.originTime, Referer: x.header.Get("Referer"), UserAgent: x.header.Get("User-Agent"),
	}
	if x.site != nil {
		rec.Site = x.site.Name
		rec.Functions = x.functionNames()
	}
	if x.r.TLS != nil {
		rec.TLS = versionOf(x.r.TLS)
	}
	x.h.Access.Append(&rec)
}

// versionOf is the version of TLS as the configuration writes it.
func versionOf(state *tls.ConnectionState) string {
	switch state.Version {
	case tls.VersionTLS13:
		return "1.3"
	case tls.VersionTLS12:
		return "1.2"
	}
	return "other"
}

// server is the server that a request to the origin went to last.
type server struct{ addr atomic.Pointer[string] }

// got is an httptrace.ClientTrace.GotConn.
func (s *server) got(info httptrace.GotConnInfo) {
	if addr := info.Conn.RemoteAddr(); addr != nil {
		text := addr.String()
		s.addr.Store(&text)
	}
}

func (s *server) address() string {
	if s == nil {
		return ""
	}
	if addr := s.addr.Load(); addr != nil {
		return *addr
	}
	return ""
}

// requestNumber is one that no other request has, in all likelihood. Functions
// and the access log share it.
func (x *exchange) requestNumber() uint64 {
	for x.number == 0 {
		x.number = rand.Uint64()
	}
	return x.number
}
