package edgetest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// origin is the http.RoundTripper behind the node: it answers as the script
// said and keeps what it was asked.
type origin struct {
	began time.Time

	mu       sync.Mutex
	rules    []*rule        // guarded by mu, and so on to the end
	counts   map[string]int // requests seen, by target
	seen     []*sighting    // since the last asked
	unlooked []string       // requests that no answer was set for
	command  int            // number of the command that runs
}

// rule is the answers set for one kind of request.
type rule struct {
	method, target, host string // "" for any, except the target
	when                 field  // a request field that must have this value; no name for any
	queue                []*reply
}

// sighting is one request as the origin saw it.
type sighting struct {
	at     time.Duration // since the script began
	during int           // number of the command that ran
	method string
	target string
	host   string
	header http.Header
	body   []byte
	left   time.Duration // when it was given up, since the script began; 0 if it was not
}

func newOrigin(began time.Time) *origin {
	return &origin{began: began, counts: map[string]int{}}
}

// set puts r in the place of the answers for its kind of request; with more
// it is queued behind them.
func (o *origin) set(r *rule, more bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	i := slices.IndexFunc(o.rules, func(old *rule) bool {
		return old.method == r.method && old.target == r.target && old.host == r.host && old.when == r.when
	})
	switch {
	case i < 0:
		o.rules = append(o.rules, r)
	case more:
		o.rules[i].queue = append(o.rules[i].queue, r.queue...)
	default:
		o.rules[i] = r
	}
}

// next tells that another command runs now.
func (o *origin) next() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.command++
}

// complaint is an error for requests that came without an answer set.
func (o *origin) complaint() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.unlooked) == 0 {
		return nil
	}
	err := fmt.Errorf("no origin is set for %s", strings.Join(o.unlooked, ", "))
	o.unlooked = nil
	return err
}

// fits tells how closely r describes a request; 0 is not at all.
func (r *rule) fits(q *sighting) int {
	if r.target != q.target {
		return 0
	}
	score := 1
	for _, c := range []struct {
		want, have string
		weight     int
	}{
		{r.method, q.method, 2},
		{r.host, q.host, 4},
	} {
		switch c.want {
		case "":
		case c.have:
			score += c.weight
		default:
			return 0
		}
	}
	if r.when.name != "" {
		if strings.Join(q.header.Values(r.when.name), ", ") != r.when.value {
			return 0
		}
		score += 8
	}
	return score
}

// take records a request and picks its reply; nil when none is set.
func (o *origin) take(q *sighting) (*reply, int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	q.during = o.command
	o.seen = append(o.seen, q)
	o.counts[q.target]++
	var best *rule
	for _, r := range o.rules {
		if f := r.fits(q); f > 0 && (best == nil || f > best.fits(q)) {
			best = r
		}
	}
	if best == nil {
		o.unlooked = append(o.unlooked, q.method+" "+q.target)
		return nil, 0
	}
	reply := best.queue[0]
	if len(best.queue) > 1 {
		best.queue = best.queue[1:]
	}
	return reply, o.counts[q.target]
}

// fault is an error as the origin client's are: it names its RFC 9209 type
// and tells whether no byte of a response came.
type fault struct {
	kind       string
	unanswered bool
}

func (f *fault) Error() string { return "scripted origin: " + strings.ReplaceAll(f.kind, "_", " ") }

// ProxyStatus is the error type of RFC 9209, 2.3.
func (f *fault) ProxyStatus() string { return f.kind }

// Unanswered tells whether no byte of a response came.
func (f *fault) Unanswered() bool { return f.unanswered }

// RoundTrip answers as the script said.
func (o *origin) RoundTrip(r *http.Request) (*http.Response, error) {
	q := &sighting{at: time.Since(o.began), method: r.Method, target: r.RequestURI, host: r.Host, header: r.Header.Clone()}
	if q.target == "" {
		q.target = r.URL.RequestURI()
	}
	if q.host == "" {
		q.host = r.URL.Host
	}
	reply, count := o.take(q)
	if r.Body != nil {
		defer r.Body.Close()
		body, err := io.ReadAll(r.Body)
		o.mu.Lock()
		q.body = body
		o.mu.Unlock()
		if err != nil {
			o.givenUp(q)
			return nil, err
		}
	}
	if reply == nil {
		return nil, errors.New("scripted origin: no answer is set")
	}
	e := &emission{origin: o, reply: reply, request: r, sighting: q, count: count}
	resp, err := e.head()
	if err != nil && r.Context().Err() != nil {
		o.givenUp(q)
	}
	return resp, err
}

// givenUp notes that a request ended before the origin had sent everything.
func (o *origin) givenUp(q *sighting) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if q.left == 0 {
		q.left = time.Since(o.began)
	}
}

// asked is what the origin saw since it was last called: when, method,
// target, and the fields named. Requests of one command and moment are sorted
// by text, as their order is chance.
func (o *origin) asked(show []string) []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	type entry struct {
		*sighting
		lines []string
	}
	var all []entry
	for _, q := range o.seen {
		all = append(all, entry{q, q.print(show)})
	}
	o.seen = nil
	slices.SortStableFunc(all, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.during, b.during), slices.Compare(a.lines, b.lines))
	})
	var lines []string
	for _, e := range all {
		lines = append(lines, e.lines...)
	}
	return lines
}

func (q *sighting) print(show []string) []string {
	lines := []string{fmt.Sprintf("%v %s %s", q.at, q.method, q.target)}
	for _, name := range show {
		all := q.header.Values(name)
		if name == "Host" {
			all = []string{q.host}
		}
		if len(all) == 0 {
			all = []string{"-"}
		}
		for _, v := range all {
			lines = append(lines, name+": "+v)
		}
	}
	if len(q.body) > 0 {
		lines = append(lines, printBytes(q.body, true)...)
	}
	if q.left > 0 {
		lines = append(lines, fmt.Sprintf("given up at %v", q.left))
	}
	return lines
}

// pause waits for d, or until ctx or stop ends.
func pause(ctx context.Context, d time.Duration, stop <-chan struct{}) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-stop:
		return http.ErrBodyReadAfterClose
	}
}
