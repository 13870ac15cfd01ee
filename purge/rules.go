package purge

import (
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Rules are the purges that a node has applied and whose subjects may still be
// stored. All methods may be called at once; those that judge take no lock.
//
// Epochs order purges and responses: a response carries the epoch that stood
// when its request to the origin began, and every rule with a later epoch that
// matches it counts. A caller who keeps a verdict for later must read Epoch
// before it asks, and keep that beside it.
type Rules struct {
	epoch  atomic.Uint64
	table  atomic.Pointer[table]
	hasher hasher
	limit  int

	mu sync.Mutex // guards what follows, and orders writers
	// entries counts all of the table, rules those that are no plain sum;
	// weight is what the latter count for against the limit.
	entries, rules, weight int
	// keep makes epochs durable that no log gives; set once, by the log.
	keep func(epoch uint64, doubt bool)
}

// defaultLimit is some 20 MB of rules with short names, and 60 MB at most.
const defaultLimit = 100_000

// NewRules returns Rules that keep up to limit rules (0 is 100,000) one by one;
// a rule whose name is long counts as several, one for each 256 bytes begun.
// With more, whole hosts and sites become doubtful instead: nothing is
// forgotten.
func NewRules(limit int) *Rules {
	if limit <= 0 {
		limit = defaultLimit
	}
	r := &Rules{limit: limit, hasher: hasher{maphash.MakeSeed()}}
	r.table.Store(newTable(0, 0))
	return r
}

// Epoch returns the epoch of the newest rule applied.
func (r *Rules) Epoch() uint64 { return r.epoch.Load() }

// Len returns how many rules are kept.
func (r *Rules) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rules
}

// Judge returns what the rules with an epoch later than since say of s. Gone
// counts more than Doubtful, that more than Soft. The time goes with Soft: the
// earliest soft purge among those that match, for the response has been stale
// since then. With the latest, each further soft purge would lengthen the
// time that a stale response may be used.
//
// It looks up each tag and each path segment once, allocates nothing, and is
// one atomic load where nothing is newer.
func (r *Rules) Judge(since uint64, s *Subject) (Verdict, time.Time) {
	if r.epoch.Load() <= since {
		return Valid, time.Time{}
	}
	f := finding{since: since, table: r.table.Load(), hasher: r.hasher}
	if f.site(s.Site) || f.tags(s.Site, s.Tags) || f.url(&s.URL) || f.viewer(&s.Viewer) {
		return Gone, time.Time{}
	}
	return f.verdict()
}

// MayMatch reports whether a rule later than since matches s, or may do so once
// its tags are known: it is asked for a fill whose header has not come. Any
// tag rule of the site, or of all, counts, and soft rules as well.
func (r *Rules) MayMatch(since uint64, s *Subject) bool {
	if r.epoch.Load() <= since {
		return false
	}
	f := finding{since: since, table: r.table.Load(), hasher: r.hasher}
	if f.newerTags(s.Site) || f.newerTags("*") {
		return true
	}
	if f.site(s.Site) || f.url(&s.URL) || f.viewer(&s.Viewer) {
		return true
	}
	v, _ := f.verdict()
	return v != Valid
}

// Touches is Judge by URL, prefix and host alone (and whatever holds for the
// whole site): it is asked for the URL of a request that a function rewrote
// to the URL of a response stored for another.
func (r *Rules) Touches(since uint64, viewer *URL, site string) (Verdict, time.Time) {
	if r.epoch.Load() <= since {
		return Valid, time.Time{}
	}
	f := finding{since: since, table: r.table.Load(), hasher: r.hasher}
	if f.site(site) || f.url(viewer) {
		return Gone, time.Time{}
	}
	return f.verdict()
}

// finding gathers what the rules say in one look-up. Its methods are true when
// a hard rule matched: nothing can count more.
type finding struct {
	since  uint64
	table  *table
	hasher hasher
	doubt  bool
	soft   bool
	at     time.Time
}

// add counts one state in.
func (f *finding) add(s *state) bool {
	if s == nil || s.newest <= f.since {
		return false
	}
	if s.hard > f.since {
		return true
	}
	f.doubt = f.doubt || s.doubt > f.since
	for i := len(s.soft) - 1; i >= 0 && s.soft[i].epoch > f.since; i-- {
		if at := s.soft[i].at; !f.soft || at.Before(f.at) {
			f.soft, f.at = true, at
		}
	}
	return false
}

func (f *finding) verdict() (Verdict, time.Time) {
	switch {
	case f.doubt || f.table.doubt > f.since:
		return Doubtful, time.Time{}
	case f.soft:
		return Soft, f.at
	}
	return Valid, time.Time{}
}

// site looks at rules for everything of a site, or of all.
func (f *finding) site(site string) bool {
	return f.add(f.table.find(f.hasher.words(kindSite, "*"), kindSite, "*", "", "", "")) ||
		f.add(f.table.find(f.hasher.words(kindSite, site), kindSite, site, "", "", ""))
}

// newerTags reports whether a site has a newer rule by tag.
func (f *finding) newerTags(site string) bool {
	s := f.table.find(f.hasher.words(kindTagSum, site), kindTagSum, site, "", "", "")
	return s != nil && s.newest > f.since
}

func (f *finding) tags(site string, tags []string) bool {
	return f.tagsWithin(site, tags) || f.tagsWithin("*", tags)
}

func (f *finding) tagsWithin(site string, tags []string) bool {
	if len(tags) == 0 {
		return false
	}
	sum := f.table.find(f.hasher.words(kindTagSum, site), kindTagSum, site, "", "", "")
	if sum == nil || sum.newest <= f.since {
		return false
	}
	f.doubt = f.doubt || sum.doubt > f.since
	start := f.hasher.mix(f.hasher.start(kindTag), site)
	for _, tag := range tags {
		hash := f.hasher.end(f.hasher.mix(start, tag))
		if f.add(f.table.find(hash, kindTag, site, tag, "", "")) {
			return true
		}
	}
	return false
}

func (f *finding) viewer(u *URL) bool { return u.Host != "" && f.url(u) }

// url looks at rules by host, URL and prefix.
func (f *finding) url(u *URL) bool {
	name, port := splitHost(u.Scheme, u.Host)
	start := f.hasher.mix(f.hasher.start(kindHost), name)
	if f.add(f.table.find(f.hasher.end(f.hasher.mix(start, "")), kindHost, name, "", "", "")) ||
		f.add(f.table.find(f.hasher.end(f.hasher.mix(start, port)), kindHost, name, port, "", "")) {
		return true
	}
	sum := f.table.find(f.hasher.words(kindHostSum, u.Host), kindHostSum, u.Host, "", "", "")
	if sum == nil || sum.newest <= f.since {
		return false
	}
	f.doubt = f.doubt || sum.doubt > f.since
	path := f.hasher.mix(f.hasher.mix(f.hasher.mix(f.hasher.start(kindPath), u.Scheme), u.Host), u.Path)
	return f.add(f.table.find(f.hasher.end(path), kindPath, u.Scheme, u.Host, u.Path, "")) ||
		f.add(f.table.find(f.hasher.words(kindURL, u.Scheme, u.Host, u.Path, u.Query), kindURL, u.Scheme, u.Host, u.Path, u.Query)) ||
		f.prefixes(u, sum.depth)
}

// prefixes walks over the segments of a path, as deep as there are rules.
func (f *finding) prefixes(u *URL, depth int) bool {
	if depth < 0 {
		return false
	}
	sum := f.hasher.mix(f.hasher.mix(f.hasher.start(kindPrefix), u.Scheme), u.Host)
	if f.add(f.table.find(f.hasher.end(sum), kindPrefix, u.Scheme, u.Host, "", "")) {
		return true
	}
	for end := 0; depth > 0 && end < len(u.Path) && u.Path[end] == '/'; depth-- {
		begin := end + 1
		if end = strings.IndexByte(u.Path[begin:], '/'); end < 0 {
			end = len(u.Path)
		} else {
			end += begin
		}
		sum = f.hasher.mix(sum, u.Path[begin:end])
		if f.add(f.table.find(f.hasher.end(sum), kindPrefix, u.Scheme, u.Host, u.Path[:end], "")) {
			return true
		}
	}
	return false
}

// splitHost returns the name and the port of a host in normal form; the
// scheme's default port where it has none. A trailing dot of the name counts
// for nothing.
func splitHost(scheme, host string) (name, port string) {
	name = host
	if i := strings.LastIndexByte(host, ':'); i >= 0 && strings.IndexByte(host[i:], ']') < 0 {
		name, port = host[:i], host[i+1:]
	}
	if port == "" && scheme == "https" {
		port = "443"
	} else if port == "" {
		port = "80"
	}
	return strings.TrimSuffix(name, "."), port
}
