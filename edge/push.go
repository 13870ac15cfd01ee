package edge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"seawall/edge/rfc9111"
	"seawall/edge/store"
)

// Push is a response that is brought to the node instead of fetched.
type Push struct {
	// URL is absolute.
	URL string
	// Ask has the request fields that Vary and the site's key parts look at. A
	// field with an empty value is one that requests do not have.
	Ask http.Header
	// Status is the response's; 0 is 200.
	Status int
	// Header has the response's fields.
	Header http.Header
	// Body is read to its end; the caller closes it. Size is its length, -1 when
	// it is not known.
	Body io.Reader
	Size int64
}

// Pushed tells what was stored.
type Pushed struct {
	// Key is the URL it is stored under, Variant the request fields that select
	// it, "" without any.
	Key     string        `json:"key"`
	Variant string        `json:"variant"`
	Status  int           `json:"status"`
	Size    int64         `json:"size"`
	TTL     time.Duration `json:"ttl"` // negative when it is stale
}

// PushError says why a push was refused; nothing was stored.
type PushError struct {
	// Field is the field at fault: "url", "status", "body", "header" with the
	// request fields asked for, or the name of a response field.
	Field string
	// Detail says what is wrong with it, and what would do.
	Detail string
	// Status is the HTTP status that fits.
	Status int
}

func (e *PushError) Error() string { return "push: " + e.Field + ": " + e.Detail }

func refused(status int, field, format string, args ...any) error {
	return &PushError{Field: field, Detail: fmt.Sprintf(format, args...), Status: status}
}

// Push stores a response as if the origin had answered a GET with it just now:
// by the same rules, and with the same purges in force. A purge or
// invalidation later than its beginning wins over it, one before never does.
// It returns when requests to this node find what was pushed. Errors are a
// *PushError, or ctx's.
func (h *Handler) Push(ctx context.Context, p Push) (Pushed, error) {
	in, err := h.intake(p)
	if err != nil {
		return Pushed{}, err
	}
	key := in.at.key
	claim := h.Store.Claim(h.Store.Hash(key), key) // before anything is read
	defer h.Store.Drop(claim)
	o, err := in.judge(claim)
	if err != nil {
		return Pushed{}, err
	}
	if o.Body, err = h.receive(ctx, p.Body, in.size); err != nil {
		return Pushed{}, err
	}
	// Whoever pushes means it to replace what was fetched while it came.
	h.Store.Renew(claim)
	if !h.Store.Publish(claim, o) || h.purged(o) {
		return Pushed{}, refused(http.StatusConflict, "url", "was purged or changed while the push came (hint: push again)")
	}
	if !h.present(o, &in.ask) {
		return Pushed{}, noRoom()
	}
	for _, f := range o.Meta.Fields {
		if f.Name == "No-Vary-Search" {
			h.learn(key, http.Header{f.Name: f.Values})
		}
	}
	now := time.Now()
	terms, _ := h.softened(o)
	return Pushed{Key: o.Key, Variant: variantText(o), Status: o.Meta.Status, Size: o.Body.Size(), TTL: terms.TTL(now)}, nil
}

// present reports whether requests as a find an object: o, or what came after it.
func (h *Handler) present(o *Object, a *ask) bool {
	key := []byte(o.Key)
	return h.Store.Peek(h.Store.Hash(key), key, a).Object != nil
}

// intake is a push under way.
type intake struct {
	h      *Handler
	at     located
	ask    ask
	status int
	header http.Header
	size   int64
	policy *policy // of the request
}

// intake checks what does not need the body.
func (h *Handler) intake(p Push) (*intake, error) {
	at, err := h.locate(p.URL)
	if errors.Is(err, errUnknownSite) {
		return nil, refused(http.StatusMisdirectedRequest, "url", "%v", err)
	}
	if err != nil {
		return nil, refused(http.StatusUnprocessableEntity, "url", "%v", err)
	}
	in := &intake{h: h, at: at, status: p.Status, size: p.Size}
	if in.status == 0 {
		in.status = http.StatusOK
	}
	if in.size < 0 {
		in.size = -1
	}
	asked, err := canonical(p.Ask, "header")
	if err != nil {
		return nil, err
	}
	if in.header, err = canonical(p.Header, ""); err != nil {
		return nil, err
	}
	if err := in.length(); err != nil {
		return nil, err
	}
	if err := in.varies(asked); err != nil {
		return nil, err
	}
	for name, lines := range asked {
		if strings.Join(lines, "") == "" {
			delete(asked, name)
		}
	}
	asked = at.site.vary.reduce(http.MethodGet, asked)
	in.policy = at.site.policyFor(at.Path, asked, 0)
	in.ask = ask{
		now: time.Now(), method: http.MethodGet, scheme: at.Scheme, host: at.Host, path: at.Path, query: at.Query,
		header: asked, zone: at.site.Name, parts: in.policy.keyParts(asked), authorized: len(asked["Authorization"]) > 0,
	}
	return in, nil
}

// canonical returns h with canonical names; the error is about the first field
// that no message may carry. field is what it is of, "" for the field itself.
func canonical(h http.Header, field string) (http.Header, error) {
	out := make(http.Header, len(h))
	for name, lines := range h {
		of := field
		if of == "" {
			of = name
		}
		if !httpguts.ValidHeaderFieldName(name) {
			return nil, refused(http.StatusUnprocessableEntity, of, "%q is no field name", clip(name))
		}
		for _, line := range lines {
			if !httpguts.ValidHeaderFieldValue(line) {
				return nil, refused(http.StatusUnprocessableEntity, of, "%s has a control byte", clip(name))
			}
		}
		name = http.CanonicalHeaderKey(name)
		out[name] = append(out[name], lines...)
	}
	return out, nil
}

// length holds Content-Length to the size that the caller knows.
func (in *intake) length() error {
	if in.size > in.h.Store.MaxObject() {
		return refused(http.StatusRequestEntityTooLarge, "body", "%d bytes; the cache keeps objects of up to %d (hint: cache.max_object)", in.size, in.h.Store.MaxObject())
	}
	for _, line := range in.header["Content-Length"] {
		n, err := strconv.ParseInt(line, 10, 64)
		if err != nil || n < 0 || in.size >= 0 && n != in.size {
			return refused(http.StatusBadRequest, "Content-Length", "%q does not agree with the body (hint: leave it out)", clip(line))
		}
		in.size = n
	}
	if !bodyAllowed(in.status) && in.size != 0 {
		return refused(http.StatusUnprocessableEntity, "body", "a %d has none", in.status)
	}
	return nil
}

// varies refuses a response whose Vary names fields that the caller did not
// give: nobody knows which requests it is for.
func (in *intake) varies(asked http.Header) error {
	for _, name := range rfc9111.Members(in.header["Vary"]) {
		if name == "*" {
			return refused(http.StatusUnprocessableEntity, "Vary", "with * the response is for no other request")
		}
		coding := strings.EqualFold(name, "Accept-Encoding") && len(in.header["Content-Encoding"]) == 0
		if coding || slices.Contains(in.at.site.vary.ignore, strings.ToLower(name)) {
			continue // an identity response is for requests without a coding, and is said so by leaving the field out; an ignored field is for all
		}
		if _, given := asked[http.CanonicalHeaderKey(name)]; !given {
			return refused(http.StatusUnprocessableEntity, "header",
				"Vary names %s (hint: give &header=%s:value, with an empty value for requests without it)", clip(name), clip(name))
		}
	}
	return nil
}

// judge makes the object, if the response may be stored at all.
func (in *intake) judge(claim *store.Claim[Meta]) (*Object, error) {
	site, now := in.at.site, in.ask.now
	policy := site.policyFor(in.at.Path, in.ask.header, in.status)
	if policy.Bypass || in.policy.Bypass {
		return nil, refused(http.StatusUnprocessableEntity, "url", "the site's policy bypasses the cache here")
	}
	if endless(in.header) {
		return nil, refused(http.StatusUnprocessableEntity, "Content-Type", "%s is a conversation, not a response that others may have", clip(in.header.Get("Content-Type")))
	}
	d := rfc9111.Judge(rfc9111.AskOf(http.MethodGet, in.ask.url(), in.ask.header), in.status, in.header, now, now, &policy.options)
	if !d.Store {
		return nil, in.unstorable(d.Why)
	}
	tags := tagsOf(in.header)
	if len(tags) > maxTags {
		return nil, refused(http.StatusUnprocessableEntity, "Surrogate-Key", "%d tags; a response may have %d", len(tags), maxTags)
	}
	header := clean(in.header, 1, 1, now)
	f := &flight{h: in.h, site: site, policy: in.policy, ask: in.ask}
	v, ok := f.variantOf(header)
	if !ok {
		return nil, in.unstorable(rfc9111.ReasonVaryAny)
	}
	o := newObject(in.status, header, d, v, &in.ask, now)
	o.Meta.describe(o, claim.Key(), &in.ask, hiddenOf(in.header, nil), tags)
	site.face(o, header, in.size)
	return o, nil
}

// unstorable names the field for which a response may not be stored.
func (in *intake) unstorable(why rfc9111.Reason) error {
	field, hint := "Cache-Control", "a shared cache may not keep it"
	switch why {
	case rfc9111.ReasonSetCookie:
		field, hint = "Set-Cookie", "under this site's set_cookie it needs public, s-maxage or a targeted field"
	case rfc9111.ReasonStatus, rfc9111.ReasonPartial, rfc9111.ReasonNotUnderstood:
		field, hint = "status", strconv.Itoa(in.status)+" is not kept"
	case rfc9111.ReasonVaryAny:
		field, hint = "Vary", "with * the response is for no other request"
	case rfc9111.ReasonNoFreshness:
		hint = "say how long it may be used, as in max-age=60, or give an ETag or Last-Modified"
	case rfc9111.ReasonAuthorization, rfc9111.ReasonCookie:
		field, hint = "header", "a response to a request with credentials needs explicit permission, as in public, max-age=60"
	}
	return refused(http.StatusUnprocessableEntity, field, "may not be stored: %s (hint: %s)", why, hint)
}

// receive reads the body into the memory budget.
func (h *Handler) receive(ctx context.Context, body io.Reader, size int64) (*store.Body, error) {
	draft := h.Store.Intake(size)
	if draft == nil {
		return nil, tooLarge(h)
	}
	defer draft.Drop()
	if body == nil {
		body = http.NoBody
	}
	buffer := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buffer)
	var have int64
	for idle := 0; idle < maxIdleReads; idle++ {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		n, err := body.Read(*buffer)
		if have += int64(n); n > 0 {
			idle = 0
		}
		switch {
		case size >= 0 && have > size:
			return nil, refused(http.StatusBadRequest, "body", "is longer than the %d bytes declared", size)
		case have > h.Store.MaxObject():
			return nil, tooLarge(h)
		case n > 0 && !draft.Write((*buffer)[:n]):
			return nil, noRoom()
		case err == io.EOF && size >= 0 && have < size:
			return nil, refused(http.StatusBadRequest, "body", "ended after %d of %d bytes", have, size)
		case err == io.EOF:
			if whole := draft.Body(); whole != nil {
				return whole, nil
			}
			return nil, noRoom()
		case err != nil:
			return nil, refused(http.StatusBadRequest, "body", "broke off after %d bytes", have)
		}
	}
	return nil, io.ErrNoProgress
}

// maxIdleReads is how often in a row a body may bring nothing, without an error.
const maxIdleReads = 100

func noRoom() error {
	return refused(http.StatusServiceUnavailable, "body", "no memory for it now (hint: push again later, or give the node more)")
}

func tooLarge(h *Handler) error {
	return refused(http.StatusRequestEntityTooLarge, "body", "the cache keeps objects of up to %d bytes (hint: cache.max_object)", h.Store.MaxObject())
}

// variantText names what selects an object among those of its key: key parts,
// then the fields of Vary, as "accept-language: en"; "" without any. It is told
// to operators, who are not to have their users' credentials.
func variantText(o *Object) string {
	var all []string
	for part := range strings.SplitSeq(strings.TrimSuffix(o.Meta.Parts, "\n"), "\n") {
		if part != "" {
			all = append(all, part)
		}
	}
	for _, s := range selectors(o) {
		switch {
		case s.absent:
			all = append(all, s.name+" absent")
		case s.name == "cookie" || s.name == "authorization":
			all = append(all, s.name+": (not shown)")
		default:
			all = append(all, s.name+": "+s.value)
		}
	}
	return strings.Join(all, "; ")
}

// selected is one request field by which Vary selected an object.
type selected struct {
	name, value string
	absent      bool
}

// selectors reads the selector of an object's variant (rfc9111.Variant) back
// into request fields that select the same.
func selectors(o *Object) []selected {
	var all []selected
	rest := o.Meta.Variant.Selector()
	for rest != "" {
		name, after, ok := strings.Cut(rest, " ")
		length, form, more := strings.Cut(after, ":")
		n, err := strconv.Atoi(length)
		if !ok || !more || err != nil || n < 1 || n > len(form) {
			return all
		}
		s := selected{name: name}
		switch value := form[1:n]; form[0] {
		case 'l', 't':
			s.value = weighted(value)
		default:
			s.value = value
			s.absent = value == "" && form[0] != '='
		}
		all = append(all, s)
		rest = form[n:]
	}
	return all
}

// weighted writes the normal form of Accept-Language, "de;1000,en;0500", or of
// Accept as a field again.
func weighted(form string) string {
	members := strings.Split(form, ",")
	for i, m := range members {
		at := strings.LastIndexByte(m, ';')
		if at < 0 || len(m)-at != 5 {
			continue
		}
		tag, q := m[:at], m[at+1:]
		if q != "1000" {
			tag += ";q=" + q[:1] + "." + q[1:]
		}
		members[i] = tag
	}
	return strings.Join(slices.Clip(members), ",")
}
