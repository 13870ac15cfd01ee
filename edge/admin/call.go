package admin

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"seawall/purge"
)

// call is one call and its answer.
type call struct {
	h     *Handler
	w     http.ResponseWriter
	r     *http.Request
	route *route            // nil for what is no call
	args  map[string]string // of the route's path

	token   *holder // nil without tokens
	ended   bool    // the content was read to its end
	what    string  // asked for, in counts, for the audit
	id      string  // of what was made
	status  int     // answered
	refused string  // why it was, by the guard
}

// style is how a caller expects its answers.
type style uint8

const (
	native     style = iota // problem documents
	varnish                 // text; its clients read the status alone
	fastly                  // problem documents with msg
	cloudflare              // {"success":false,"errors":[...]}
)

// route is one call of the API.
type route struct {
	method string
	// path has {NAME} for one segment, and {NAME...} for all that follow.
	path    string
	scope   Scope // or one of several: who began something may see what becomes of it
	style   style
	changes bool // something, so that it leaves an audit line
	stored  bool // it is about what the node has stored
	// query has the names that the call's query may have, once each; "*" is any,
	// as the call reads it itself or its clients add to it what they like.
	query string
	serve func(*call)
}

// routes is the whole API but /healthz and /readyz. openapi.yaml describes the
// same, and a test compares them.
func routes() []route {
	return []route{
		{"GET", "/metrics", ScopeRead, native, false, false, "*", metrics},
		{"GET", "/v1/stats", ScopeRead, native, false, false, "", stats},
		{"GET", "/openapi.yaml", ScopeRead, native, false, false, "*", describe},

		{"POST", "/v1/purges", ScopePurge, native, true, true, "", postPurge},
		{"GET", "/v1/purges", ScopeRead, native, false, true, "limit", listPurges},
		{"GET", "/v1/purges/{id}", ScopeRead | ScopePurge, native, false, true, "", getPurge},
		{"PUT", "/v1/objects", ScopePush, native, true, true, "*", putObject},
		{"GET", "/v1/objects", ScopeRead, native, false, true, "*", getObjects},
		{"POST", "/v1/warmups", ScopePush, native, true, true, "", postWarmup},
		{"GET", "/v1/warmups", ScopeRead, native, false, true, "", listWarmups},
		{"GET", "/v1/warmups/{id}", ScopeRead | ScopePush, native, false, true, "", getWarmup},
		{"DELETE", "/v1/warmups/{id}", ScopePush, native, true, true, "", deleteWarmup},
		{"GET", "/v1/functions", ScopeRead | ScopeFunctions, native, false, false, "", listFunctions},
		{"GET", "/v1/functions/{name}", ScopeRead | ScopeFunctions, native, false, false, "", getFunction},
		{"PUT", "/v1/functions/{name}", ScopeFunctions, native, true, false, "*", putFunction},
		{"DELETE", "/v1/functions/{name}", ScopeFunctions, native, true, false, "", deleteFunction},
		{"POST", "/v1/functions/{name}/rollout", ScopeFunctions, native, true, false, "", rollCandidate},
		{"POST", "/v1/functions/{name}/promote", ScopeFunctions, native, true, false, "", promoteCandidate},
		{"POST", "/v1/functions/{name}/rollback", ScopeFunctions, native, true, false, "", rollBack},

		{"GET", "/v1/origins", ScopeRead, native, false, false, "", listOrigins},
		{"POST", "/v1/origins/{name}/drain", ScopeAdmin, native, true, false, "pool", drainOrigin},
		{"POST", "/v1/origins/{name}/resume", ScopeAdmin, native, true, false, "pool", resumeOrigin},

		{"PURGE", "/{path...}", ScopePurge, varnish, true, true, "*", varnishPurge},
		{"PURGEKEYS", "/{path...}", ScopePurge, varnish, true, true, "*", varnishKeys},
		{"BAN", "/{path...}", ScopePurge, varnish, true, true, "*", varnishBan},
		{"POST", "/purge/{url...}", ScopePurge, fastly, true, true, "*", fastlyURL},
		{"POST", "/service/{service}/purge/{key}", ScopePurge, fastly, true, true, "*", fastlyKey},
		{"POST", "/service/{service}/purge", ScopePurge, fastly, true, true, "*", fastlyKeys},
		{"POST", "/service/{service}/purge_all", ScopePurge, fastly, true, true, "*", fastlyAll},
		{"POST", "/client/v4/zones/{zone}/purge_cache", ScopePurge, cloudflare, true, true, "*", cloudflarePurge},
	}
}

// find sets the call's route. Without one, it returns the methods that the
// path has.
func (c *call) find() (allowed string) {
	path, _, _ := strings.Cut(target(c.r), "?")
	var methods []string
	for i := range c.h.routes {
		r := &c.h.routes[i]
		args, ok := r.match(path)
		if !ok {
			continue
		}
		if r.method == c.r.Method || r.method == http.MethodGet && c.r.Method == http.MethodHead {
			c.route, c.args = r, args
			return ""
		}
		if strings.HasPrefix(r.path, "/{") { // a method of its own, which every path has
			continue
		}
		methods = append(methods, r.method)
		if r.method == http.MethodGet {
			methods = append(methods, http.MethodHead)
		}
	}
	return strings.Join(methods, ", ")
}

// match returns the parts of path that the route's braces name. Segments are
// percent-decoded; a rest is not.
func (r *route) match(path string) (map[string]string, bool) {
	args := make(map[string]string)
	want, have := r.path, path
	for want != "" {
		if !strings.HasPrefix(have, "/") {
			return nil, false
		}
		want, have = want[1:], have[1:]
		segment, rest := cutSegment(want)
		if name, ok := strings.CutSuffix(segment, "...}"); ok {
			args[name[1:]] = have
			return args, true
		}
		got, behind := cutSegment(have)
		if strings.HasPrefix(segment, "{") {
			value, err := url.PathUnescape(got)
			if err != nil || value == "" {
				return nil, false
			}
			args[strings.Trim(segment, "{}")] = value
		} else if got != segment {
			return nil, false
		}
		want, have = rest, behind
	}
	return args, have == ""
}

// asked sees that the query has nothing that the call does not know: a name
// mistyped would otherwise do more than was meant. If not, the call has been
// answered.
func (c *call) asked() bool {
	if c.route.query == "*" || c.r.URL.RawQuery == "" {
		return true
	}
	query, err := url.ParseQuery(c.r.URL.RawQuery)
	if err != nil {
		c.invalid(&purge.FieldError{Field: "query", Detail: "is not name=value pairs, percent-encoded"})
		return false
	}
	known := strings.Fields(c.route.query)
	var bad []*purge.FieldError
	for _, name := range slices.Sorted(maps.Keys(query)) {
		switch {
		case len(known) == 0:
			bad = append(bad, &purge.FieldError{Field: name, Detail: "is no parameter of this call, which has none"})
		case !slices.Contains(known, name):
			bad = append(bad, &purge.FieldError{Field: name, Detail: "is no parameter of this call; it has " + strings.Join(known, ", ")})
		case len(query[name]) > 1:
			bad = append(bad, &purge.FieldError{Field: name, Detail: "is given more than once"})
		}
	}
	if bad = bad[:min(len(bad), mostFaults)]; len(bad) > 0 {
		c.what = "parameter=" + clip(bad[0].Field)
		c.invalid(bad...)
	}
	return len(bad) == 0
}

// mostFaults bounds how many parameters an answer tells of.
const mostFaults = 16

// cutSegment parts a path at its first slash, which stays with the rest.
func cutSegment(path string) (segment, rest string) {
	if i := strings.IndexByte(path, '/'); i >= 0 {
		return path[:i], path[i:]
	}
	return path, ""
}

// target is path and query as the client wrote them: URL would re-encode.
func target(r *http.Request) string {
	t := r.RequestURI
	if !strings.HasPrefix(t, "/") {
		if _, rest, ok := strings.Cut(t, "://"); ok {
			if i := strings.IndexAny(rest, "/?"); i >= 0 {
				rest = rest[i:]
			} else {
				rest = "/"
			}
			if rest[0] == '?' {
				rest = "/" + rest
			}
			return rest
		}
		return "/"
	}
	return t
}

// problemBody is a problem document (RFC 9457).
type problemBody struct {
	Type   string              `json:"type"`
	Title  string              `json:"title"`
	Status int                 `json:"status"`
	Detail string              `json:"detail"`
	Errors []*purge.FieldError `json:"errors,omitempty"`
	// Message repeats Detail where Fastly's clients look for it.
	Message string `json:"msg,omitempty"`
}

// fail answers with an error, in the caller's style.
func (c *call) fail(status int, detail string, fields ...*purge.FieldError) {
	c.status = status
	c.giveUpBody()
	style := native
	if c.route != nil {
		style = c.route.style
	}
	for _, f := range fields { // what a client sent may be anything
		f.Field, f.Detail = shorten(f.Field), shorten(f.Detail)
	}
	switch style {
	case cloudflare:
		c.write(status, "application/json", cloudflareFailure(status, detail, fields))
	case varnish:
		c.w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		c.w.WriteHeader(status)
		text := statusText(status) + ": " + detail + "\n"
		for _, f := range fields {
			text += f.Error() + "\n"
		}
		c.w.Write([]byte(text)) // a client that has gone needs no answer
	default:
		p := problemBody{"about:blank", statusText(status), status, detail, fields, ""}
		if style == fastly {
			p.Message = detail
		}
		c.write(status, "application/problem+json", p)
	}
}

// invalid answers that what was sent is not right.
func (c *call) invalid(fields ...*purge.FieldError) {
	what := "One field is not right"
	if len(fields) > 1 {
		what = "Some fields are not right"
	}
	c.fail(http.StatusBadRequest, what+"; nothing was done.", fields...)
}

// ok answers with body as JSON.
func (c *call) ok(status int, body any) { c.write(status, "application/json", body) }

func (c *call) write(status int, kind string, body any) {
	c.status = status
	c.w.Header().Set("Content-Type", kind)
	c.w.WriteHeader(status)
	e := json.NewEncoder(c.w)
	e.SetEscapeHTML(false)
	e.Encode(body) // a client that has gone needs no answer
}

const (
	// bodyWait is how long a client may take for the next part of its content.
	bodyWait = 30 * time.Second
	// unreadWait is how long net/http may read on for what nobody wants.
	unreadWait = time.Second
)

// awaitBody bounds how long the rest of the content may take.
func (c *call) awaitBody() { c.bodyWithin(bodyWait) }

// giveUpBody is for content that is not read, or not to its end: net/http reads
// on before it sends the answer, and would wait for ever.
func (c *call) giveUpBody() {
	if !c.ended {
		c.bodyWithin(unreadWait)
	}
}

func (c *call) bodyWithin(d time.Duration) {
	if c.r.ContentLength == 0 {
		return // nothing is awaited, but that the client leaves
	}
	// A writer without deadlines has a client that is not awaited.
	_ = http.NewResponseController(c.w).SetReadDeadline(time.Now().Add(d))
}

// bodyRead takes the bound off again once the content has come to its end:
// net/http goes on reading behind it, to learn that the client has left, and
// would take the bound's end for that.
func (c *call) bodyRead() {
	c.ended = true
	_ = http.NewResponseController(c.w).SetReadDeadline(time.Time{})
}

// shorten bounds a text that may hold what a client sent.
func shorten(s string) string {
	if len(s) > 300 {
		return s[:300] + "..."
	}
	return s
}
