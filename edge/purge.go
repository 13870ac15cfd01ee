package edge

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"time"

	"seawall/edge/rfc9111"
	"seawall/edge/store"
	"seawall/purge"
)

// WithRules returns o for a store whose objects are judged by r: on each
// look-up, before a fill is joined, and before anything is published.
func WithRules(o StoreOptions, r *purge.Rules) StoreOptions {
	o.Epoch = r.Epoch
	o.Judge = func(o *Object, since uint64) (store.Verdict, time.Time) {
		verdict, at := r.Judge(since, &o.Meta.Subject)
		return verdictOf(verdict), at
	}
	o.MayMatch = func(subject any, since uint64) bool {
		s, ok := subject.(*purge.Subject)
		return !ok || r.MayMatch(since, s)
	}
	return o
}

func verdictOf(v purge.Verdict) store.Verdict {
	switch v {
	case purge.Valid:
		return store.Valid
	case purge.Soft:
		return store.Soft
	case purge.Doubtful:
		return store.Doubtful
	}
	return store.Gone
}

// soften makes terms stale since a soft purge: the stale windows count from it.
func soften(t *rfc9111.Terms, since time.Time) {
	t.Lifetime = min(t.Lifetime, since.Sub(t.Born))
}

// softened returns the terms of o as a soft purge changed them, and the verdict.
func (h *Handler) softened(o *Object) (rfc9111.Terms, store.Verdict) {
	t := o.Meta.Terms
	verdict, since := h.Store.Judge(o)
	if verdict == store.Soft {
		soften(&t, since)
	}
	return t, verdict
}

// purged reports whether o must not be used in any way.
func (h *Handler) purged(o *Object) bool {
	verdict, _ := h.Store.Judge(o)
	return verdict == store.Gone
}

// mayServeOnError reports whether o, found with these terms some time ago, may
// still replace what the origin gave. A purge since then counts.
func (h *Handler) mayServeOnError(o *Object, t rfc9111.Terms, a *ask, now time.Time, status int, most time.Duration) bool {
	verdict, since := h.Store.Judge(o)
	found := store.Found[Meta]{Object: o, Soft: verdict == store.Soft, Since: since, Invalid: verdict == store.Doubtful}
	if a.viewer.Host != "" {
		h.judgeViewer(&found, a)
	}
	if verdict == store.Gone || found.Object == nil {
		return false
	}
	if found.Soft {
		soften(&t, found.Since)
	}
	t.Validate = t.Validate || found.Invalid
	return t.MayServeOnError(now, status, most)
}

// judgeViewer judges what was found by the URL that the client asked for, where
// a function made another of it: the object may have been stored for a third.
func (h *Handler) judgeViewer(found *store.Found[Meta], a *ask) {
	switch verdict, since := h.touched(found.Object, &a.viewer, a.zone); verdict {
	case purge.Gone:
		*found = store.Found[Meta]{}
	case purge.Doubtful:
		found.Invalid = true
	case purge.Soft:
		if !found.Soft || since.Before(found.Since) {
			found.Soft, found.Since = true, since
		}
	}
}

// touched returns what purges by URL say of o for a URL that it is not stored
// under. The sweep does not know such URLs: where it may have dropped rules
// that are newer than o, what they said is not known.
func (h *Handler) touched(o *Object, u *purge.URL, site string) (purge.Verdict, time.Time) {
	if h.Purge == nil {
		return purge.Valid, time.Time{}
	}
	verdict, since := h.Purge.Touches(o.Epoch, u, site)
	// After Touches: the floor is raised before rules are dropped.
	if verdict < purge.Doubtful && o.Epoch < h.Store.Floor() {
		return purge.Doubtful, time.Time{}
	}
	return verdict, since
}

// renewedTags returns the tags of o once the answer to a validation, whose
// header is h, has updated it: field by field, as it does any other (RFC 9111,
// 3.2). Those of a field that the answer lacks stay.
func renewedTags(h http.Header, o *Object) []string {
	merged := http.Header{}
	for _, fields := range [][]Field{o.Meta.hidden, o.Meta.Fields} {
		for _, f := range fields {
			merged[f.Name] = f.Values
		}
	}
	for name, lines := range h {
		merged[name] = lines
	}
	return tagsOf(merged)
}

// Normal returns the URLs that a purge of an absolute URL is of: what requests
// for it are keyed by, and what No-Vary-Search made the same of it. The error
// says what is wrong with the URL.
func (h *Handler) Normal(rawURL string) ([]purge.URL, error) {
	u, err := h.locate(rawURL)
	if err != nil {
		return nil, err
	}
	all := []purge.URL{u.URL}
	if other, ok := h.original(u.key); ok {
		all = append(all, cutURL(string(other)))
	}
	return all, nil
}

// located is an absolute URL, as a request for it would be read.
type located struct {
	purge.URL
	site *site
	key  []byte
}

// errUnknownSite means that no site of this node has the host.
var errUnknownSite = errors.New("has a host of no site of this node (hint: the hosts are listed under sites)")

func (h *Handler) locate(rawURL string) (located, error) {
	scheme, rest, ok := strings.Cut(rawURL, "://")
	scheme = strings.ToLower(scheme)
	if !ok || scheme != "http" && scheme != "https" {
		return located{}, errors.New("is not absolute (hint: write http://host/path or https://host/path)")
	}
	if i := strings.IndexFunc(rawURL, func(c rune) bool { return c <= ' ' || c == 0x7f }); i >= 0 {
		return located{}, fmt.Errorf("has a space or control byte at %d (hint: write it percent-encoded)", i)
	}
	host := rest
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		host = rest[:i]
	}
	host = normalHost(scheme, host)
	if hostName(host) == "" || !validHost(host) || strings.Contains(host, "*") {
		return located{}, errors.New("has no host name (hint: write http://host/path or https://host/path, without user and password)")
	}
	path, query, ok := splitTarget(rawURL)
	if !ok {
		return located{}, errors.New("has a fragment (hint: leave out what begins with #)")
	}
	s := h.sites.of(host)
	if s == nil {
		return located{}, errUnknownSite
	}
	u := located{URL: purge.URL{Scheme: scheme, Host: host, Path: normalPath(path), Query: s.query.apply(query)}, site: s}
	u.key = appendKey(nil, u.Scheme, u.Host, u.Path, u.Query)
	return u, nil
}

// cutURL parts a key, whose memory the result shares, into the URL it is of.
func cutURL(key string) purge.URL {
	scheme, rest, _ := strings.Cut(key, "://")
	u := purge.URL{Scheme: scheme, Host: rest}
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		u.Host, u.Path = rest[:i], rest[i:]
	}
	if i := strings.IndexByte(u.Path, '?'); i >= 0 {
		u.Path, u.Query = u.Path[:i], u.Path[i:]
	}
	return u
}

// SiteOf returns the name of the site that answers a host.
func (h *Handler) SiteOf(host string) (name string, ok bool) {
	s := h.sites.of(strings.ToLower(host))
	if s == nil {
		return "", false
	}
	return s.Name, true
}

// Sites returns the names of all sites, sorted.
func (h *Handler) Sites() []string {
	names := make([]string, 0, len(h.Config.Sites))
	for i := range h.Config.Sites {
		names = append(names, h.Config.Sites[i].Name)
	}
	slices.Sort(names)
	return names
}

// Match is what a purge would be of.
type Match struct {
	// Objects counts stored responses, Bytes is the sum of their content.
	Objects int   `json:"objects"`
	Bytes   int64 `json:"bytes"`
	// Sample has at most ten of their URLs, each once.
	Sample []string `json:"sample"`
}

const (
	maxSample = 10
	// scanSlice is how many objects are looked at before others may run.
	scanSlice = 256
)

// Match looks at every stored response, and tells which of them a purge would
// be of. It changes nothing, and ends early with ctx.
func (h *Handler) Match(ctx context.Context, p *purge.Prepared) (Match, error) {
	m := Match{Sample: []string{}}
	err := h.scan(ctx, p, func(o *Object) {
		m.Objects++
		m.Bytes += max(0, o.Body.Size())
		if len(m.Sample) < maxSample && !slices.Contains(m.Sample, o.Key) {
			m.Sample = append(m.Sample, strings.Clone(o.Key))
		}
	})
	slices.Sort(m.Sample)
	return m, err
}

// scan calls f for every stored response that p is of.
func (h *Handler) scan(ctx context.Context, p *purge.Prepared, f func(*Object)) error {
	seen := 0
	h.Store.Each(func(o *Object) bool {
		if seen++; seen%scanSlice == 0 {
			runtime.Gosched()
		}
		if ctx.Err() != nil || h.ctx.Err() != nil {
			return false
		}
		if o.Meta.Status != 0 && p.Matches(&o.Meta.Subject) && !h.purged(o) {
			f(o)
		}
		return true
	})
	if err := ctx.Err(); err != nil {
		return err
	}
	return h.ctx.Err()
}

// methodPurge asks for a purge of its URL. No standard has it; Varnish made it
// common.
const methodPurge = "PURGE"

// maySend are the methods named by the 405 for PURGE.
const maySend = "GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS"

// answerLocal answers what the node answers by itself.
func (x *exchange) answerLocal() {
	if x.method == methodPurge {
		x.purge()
		return
	}
	x.refuse(http.StatusGatewayTimeout, detailOnlyIfCached)
}

// purge answers a PURGE: the URL is purged, soft where a field of the request
// says so, if the client's address is one that the site allows. Under a host
// without a port both schemes are purged: whoever sends PURGE over plain HTTP
// from inside means what clients see over TLS.
func (x *exchange) purge() {
	if x.h.PurgeURL == nil || !x.mayPurge() {
		x.w.Header()["Allow"] = []string{maySend}
		x.refuse(http.StatusMethodNotAllowed, detailPurge)
		return
	}
	soft := x.header.Get("Fastly-Soft-Purge") == "1" || strings.EqualFold(x.header.Get("X-Purge-Method"), "soft")
	schemes := []string{x.scheme}
	if hostName(x.host) == strings.TrimSuffix(x.host, ".") {
		schemes = []string{"http", "https"}
	}
	for _, scheme := range schemes {
		url := scheme + "://" + x.host + x.target()
		if err := x.h.PurgeURL(x.r.Context(), url, soft); err != nil {
			x.h.words.say(levelFault, "purge refused", "site", x.site.Name, "url", clip(url), "err", err)
			x.refuse(http.StatusServiceUnavailable, detailPurge)
			return
		}
	}
	h := x.w.Header()
	h["Content-Type"] = []string{"application/json"}
	h["Cache-Control"] = []string{"no-store"}
	const text = `{"status":"ok"}` + "\n"
	h["Content-Length"] = []string{"16"}
	x.leaveContent()
	x.head(http.StatusOK)
	x.write([]byte(text))
}

func (x *exchange) mayPurge() bool {
	if len(x.site.Purgers) == 0 {
		return false
	}
	ip, err := netip.ParseAddr(x.client())
	if err != nil {
		return false
	}
	ip = ip.Unmap().WithZone("")
	return slices.ContainsFunc(x.site.Purgers, func(p netip.Prefix) bool { return p.Contains(ip) })
}
