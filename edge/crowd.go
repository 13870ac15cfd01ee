package edge

import (
	"cmp"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// crowdsKept is how many URLs with too many variants a site's figures name.
	crowdsKept = 8
	// crowdPause is the least time between two log lines of a site about them.
	crowdPause = time.Minute
)

// Crowd is a URL of which more variants were wanted than are kept.
type Crowd struct {
	URL string // as in the key; of a long one the beginning
	// Vary are the fields by which its responses are told apart, in lower
	// case; none where the site's own key parts do.
	Vary []string
	// Count is how often a variant pushed out another; at most that much too
	// high for a URL that took the place of another here.
	Count uint64
	// Hint says what an operator can do.
	Hint string
}

// crowds counts the variants of a site that pushed out others, and keeps the
// URLs where that happens most (Metwally's Space-Saving).
type crowds struct {
	mu    sync.Mutex
	total uint64
	worst []Crowd
	said  time.Time
}

// count adds one, and reports whether it is worth a line.
func (c *crowds) count(url string, vary []string, now time.Time) (Crowd, bool) {
	url = strings.Clone(clip(url))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total++
	i := slices.IndexFunc(c.worst, func(one Crowd) bool { return one.URL == url })
	switch {
	case i >= 0:
	case len(c.worst) < crowdsKept:
		i = len(c.worst)
		c.worst = append(c.worst, Crowd{URL: url})
	default:
		for j := range c.worst {
			if i < 0 || c.worst[j].Count < c.worst[i].Count {
				i = j
			}
		}
		c.worst[i].URL = url
	}
	one := &c.worst[i]
	one.Count++
	one.Vary, one.Hint = fieldNames(vary), crowdHint(vary)
	loud := now.Sub(c.said) >= crowdPause
	if loud {
		c.said = now
	}
	return *one, loud
}

// all returns the count, and the URLs with the most first.
func (c *crowds) all() (uint64, []Crowd) {
	c.mu.Lock()
	defer c.mu.Unlock()
	worst := slices.Clone(c.worst)
	slices.SortFunc(worst, func(a, b Crowd) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.URL, b.URL))
	})
	return c.total, worst
}

// fieldNames bounds what an origin's Vary can make the node keep and say.
func fieldNames(vary []string) []string {
	out := []string{} // in JSON a list, also when empty
	for _, name := range vary[:min(len(vary), 8)] {
		out = append(out, strings.Clone(name[:min(len(name), 40)]))
	}
	return out
}

// crowdHint names the settings that help.
func crowdHint(vary []string) string {
	var hints []string
	other := false
	for _, name := range vary {
		switch name {
		case "accept-language":
			hints = append(hints, "cache.vary.languages")
		case "accept":
			hints = append(hints, "cache.vary.accept")
		case "cookie":
			hints = append(hints, "cache.key.cookies with an origin that does not name Cookie in Vary")
		case "authorization", "proxy-authorization", "accept-encoding":
		default:
			other = true
		}
	}
	if other {
		hints = append(hints, "cache.vary.ignore")
	}
	if len(vary) == 0 {
		hints = append(hints, "fewer values in cache.key")
	}
	return strings.Join(hints, ", ")
}

// crowded counts and tells that a variant of a URL pushes out another.
func (h *Handler) crowded(s *site, url string, vary []string) {
	if one, loud := s.stats.crowds.count(url, vary, time.Now()); loud {
		h.words.say(slog.LevelWarn, "too many variants of a URL", "site", s.Name, "url", one.URL,
			"vary", strings.Join(one.Vary, ", "), "times", one.Count, "hint", one.Hint)
	}
}
