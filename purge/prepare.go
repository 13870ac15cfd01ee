package purge

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// Bounds of one call. They keep what one message of the log carries, and what
// one Apply does, small; whoever has more to purge has a tag or a prefix for
// it, or calls again.
const (
	MaxNames     = 1000    // URLs, prefixes, tags and hosts in all
	MaxTagBytes  = 1024    // of one tag
	MaxURLBytes  = 8 << 10 // of one URL or prefix
	MaxCallBytes = 1 << 20 // of all names
	maxSiteBytes = 255
)

// Normal returns the normal forms of an absolute URL: what requests for it are
// keyed by, as far as the rules of a Subject's URLs go. An error says what is
// wrong with the URL, in words for whoever asked.
type Normal func(rawURL string) ([]URL, error)

// Prepared is a Request that was found good, ready to be applied. It does not
// change.
type Prepared struct {
	request Request
	// urls and prefixes are in normal form, the latter without last slash.
	urls, prefixes []URL
	keys           []key
	// own has the rules of this purge alone, for Matches.
	own func() *Rules
}

// Request returns what was asked, with Soft where Refresh implies it.
func (p *Prepared) Request() Request { return p.request }

// Matches reports whether the purge is of s. The first call prepares for many.
func (p *Prepared) Matches(s *Subject) bool {
	v, _ := p.own().Judge(0, s)
	return v != Valid
}

// Prepare validates all of r at once. Either the errors, which name the fields
// as the API has them, or the result is nil.
func Prepare(r Request, normal Normal) (*Prepared, []*FieldError) {
	c := checker{normal: normal}
	if !c.sizes(&r) {
		return nil, c.errs
	}
	p := &Prepared{request: r}
	p.request.Soft = r.Soft || r.Refresh
	p.urls = c.urls(r.URLs)
	p.prefixes = c.prefixes(r.Prefixes)
	tags, hosts := c.tags(r.Tags), c.hosts(r.Hosts)
	if detail := badWord(r.Site, maxSiteBytes); r.Site != "" && detail != "" {
		c.fault("site", detail)
	}
	if c.errs != nil {
		return nil, c.errs
	}
	p.finish(tags, hosts)
	return p, nil
}

// finish makes the keys of the rules, each once.
func (p *Prepared) finish(tags []string, hosts []key) {
	seen := map[key]bool{}
	add := func(k key) {
		if !seen[k] {
			seen[k] = true
			p.keys = append(p.keys, k)
		}
	}
	for _, u := range p.urls {
		if p.request.AnyQuery {
			add(key{kindPath, u.Scheme, u.Host, u.Path, ""})
		} else {
			add(key{kindURL, u.Scheme, u.Host, u.Path, u.Query})
		}
	}
	for _, u := range p.prefixes {
		add(key{kindPrefix, u.Scheme, u.Host, u.Path, ""})
	}
	for _, tag := range tags {
		add(key{kind: kindTag, a: p.request.Site, b: tag})
	}
	for _, k := range hosts {
		add(k)
	}
	if p.request.Everything {
		add(key{kind: kindSite, a: p.request.Site})
	}
	p.own = sync.OnceValue(func() *Rules {
		rules := NewRules(math.MaxInt) // a call is bounded
		rules.Apply(p, time.Time{})
		return rules
	})
}

// checker gathers the errors of one request.
type checker struct {
	normal Normal
	errs   []*FieldError
}

func (c *checker) fault(field, detail string) {
	c.errs = append(c.errs, &FieldError{Field: field, Detail: detail})
}

func at(list string, i int) string { return list + "[" + strconv.Itoa(i) + "]" }

// wordList is one of a request's lists, by the name of its field.
type wordList struct {
	name  string
	words []string
}

func (r *Request) lists() []wordList {
	return []wordList{{"urls", r.URLs}, {"prefixes", r.Prefixes}, {"tags", r.Tags}, {"hosts", r.Hosts}}
}

// sizes checks what all lists have in common, before any is read: whether
// something is named, and how much.
func (c *checker) sizes(r *Request) bool {
	names, bytes, over, heavy := 0, 0, "", ""
	for _, l := range r.lists() {
		names += len(l.words)
		for _, w := range l.words {
			bytes += len(w)
		}
		if names > MaxNames && over == "" {
			over = l.name
		}
		if bytes > MaxCallBytes && heavy == "" {
			heavy = l.name
		}
	}
	switch {
	case names == 0 && !r.Everything:
		c.fault("urls", "nothing is named: give urls, prefixes, tags, hosts or everything")
	case over != "":
		c.fault(over, fmt.Sprintf("%d URLs, prefixes, tags and hosts; one call may have %d", names, MaxNames))
	case heavy != "":
		c.fault(heavy, fmt.Sprintf("%d bytes of names; one call may have %d", bytes, MaxCallBytes))
	default:
		return true
	}
	return false
}

// badWord returns what is wrong with a word that rules are kept by; "" when
// nothing is. The log is JSON, which cannot carry bytes that are not UTF-8.
func badWord(s string, most int) string {
	switch {
	case strings.Trim(s, " ") == "":
		return "is empty"
	case len(s) > most:
		return fmt.Sprintf("%d bytes; it may have %d", len(s), most)
	case !utf8.ValidString(s):
		return "is not UTF-8"
	case strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c == 0x7f }):
		return "has a control byte"
	}
	return ""
}

func (c *checker) urls(raw []string) []URL {
	var all []URL
	for i, s := range raw {
		field := at("urls", i)
		if detail := badWord(s, MaxURLBytes); detail != "" {
			c.fault(field, detail)
		} else if scheme, host, _, ok := splitURL(s); !ok || scheme == "" || host == "" {
			c.fault(field, "is not absolute: write http://host/path or https://host/path")
		} else {
			all = append(all, c.normalOf(field, s)...)
		}
	}
	return all
}

func (c *checker) prefixes(raw []string) []URL {
	var all []URL
	for i, s := range raw {
		field := at("prefixes", i)
		if detail := badWord(s, MaxURLBytes); detail != "" {
			c.fault(field, detail)
			continue
		}
		scheme, host, path, ok := splitURL(s)
		switch {
		case !ok:
			c.fault(field, "has an unknown scheme: write http://host/path, https://host/path or host/path")
		case host == "":
			c.fault(field, "has no host: write http://host/path, or host/path for both schemes")
		case strings.ContainsAny(s, "?#"):
			c.fault(field, "has a query or fragment: a prefix is of whole path segments")
		default:
			all = append(all, c.prefix(field, scheme, host, path)...)
		}
	}
	return all
}

// prefix returns the normal forms of one prefix, under both schemes where it
// names none.
func (c *checker) prefix(field, scheme, host, path string) []URL {
	schemes := []string{scheme}
	if scheme == "" {
		schemes = []string{"http", "https"}
	}
	if path == "" {
		path = "/"
	}
	var all []URL
	for _, scheme := range schemes {
		before := len(c.errs)
		for _, u := range c.normalOf(field, scheme+"://"+host+path) {
			u.Path, u.Query = strings.TrimSuffix(u.Path, "/"), ""
			all = append(all, u)
		}
		if len(c.errs) > before {
			break
		}
	}
	return all
}

func (c *checker) normalOf(field, raw string) []URL {
	all, err := c.normal(raw)
	switch {
	case err != nil:
		c.fault(field, err.Error())
	case len(all) == 0:
		c.fault(field, "is no URL of this node")
	}
	return all
}

func (c *checker) tags(raw []string) []string {
	tags := make([]string, 0, len(raw))
	for i, s := range raw {
		if detail := badWord(s, MaxTagBytes); detail != "" {
			c.fault(at("tags", i), detail)
		}
		// Tags in fields have no space around them.
		tags = append(tags, strings.Trim(s, " "))
	}
	return tags
}

func (c *checker) hosts(raw []string) []key {
	keys := make([]key, 0, len(raw))
	for i, s := range raw {
		name, port, err := parseHost(s)
		if err != nil {
			c.fault(at("hosts", i), err.Error())
		}
		keys = append(keys, key{kind: kindHost, a: name, b: port})
	}
	return keys
}

// splitURL cuts a URL, or a prefix, into scheme, host and the rest. It is
// false for a scheme other than http and https.
func splitURL(s string) (scheme, host, rest string, ok bool) {
	scheme, rest, ok = strings.Cut(s, "://")
	switch {
	case !ok || strings.ContainsAny(scheme, "/?#"):
		scheme, rest = "", s
	case strings.EqualFold(scheme, "http"), strings.EqualFold(scheme, "https"):
		scheme = strings.ToLower(scheme)
	default:
		return "", "", "", false
	}
	host = rest
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		host = rest[:i]
	}
	return scheme, host, rest[len(host):], true
}

var (
	errNoHost  = errors.New("is no host name: write a name, an IPv4 address or an IPv6 address in brackets, with or without port")
	errBadPort = errors.New("has a bad port: it is a number from 1 to 65535")
)

// parseHost returns the name of a host in lower case, and its port, "" without
// one.
func parseHost(s string) (name, port string, err error) {
	name = strings.ToLower(s)
	if i := strings.LastIndexByte(name, ':'); i >= 0 && strings.IndexByte(name[i:], ']') < 0 {
		name, port = name[:i], name[i+1:]
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 || port[0] == '0' || port[0] == '+' {
			return "", "", errBadPort
		}
	}
	if inner, ok := strings.CutPrefix(name, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		if a, err := netip.ParseAddr(inner); !ok || err != nil || !a.Is6() || a.Zone() != "" {
			return "", "", errNoHost
		}
		return name, port, nil
	}
	name = strings.TrimSuffix(name, ".")
	if !validName(name) {
		return "", "", errNoHost
	}
	return name, port, nil
}

// validName accepts what resolvers do, underscores included; names in other
// scripts are written as xn--.
func validName(name string) bool {
	if name == "" || len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for i := 0; i < len(label); i++ {
			c := label[i]
			if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
				return false
			}
		}
	}
	return true
}
