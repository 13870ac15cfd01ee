package edgetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"seawall/edge"
	"seawall/purge"
)

// cache is the node's side that purges and pushes go to.
type cache struct {
	*edge.Handler
	rules *purge.Rules
	sweep *edge.Sweep
}

// apply puts a purge into force, as the log does.
func (c *cache) apply(r purge.Request) (*purge.Prepared, error) {
	p, faults := purge.Prepare(r, c.Normal)
	if len(faults) > 0 {
		return nil, faults[0]
	}
	c.rules.Apply(p, time.Now())
	return p, nil
}

// purgeURL is for the method PURGE.
func (c *cache) purgeURL(_ context.Context, url string, soft bool) error {
	_, err := c.apply(purge.Request{URLs: []string{url}, Soft: soft})
	return err
}

// absolute makes a URL of the script's one host from a path.
func absolute(word string) string {
	if strings.HasPrefix(word, "/") {
		return "http://example.com" + word
	}
	return word
}

// cache makes the node, if need be, and returns its cache.
func (s *stage) cache() (*cache, error) {
	if err := s.ready(); err != nil {
		return nil, err
	}
	if s.node.cache == nil {
		return nil, errors.New("the node has no cache")
	}
	return s.node.cache, nil
}

// request reads what a purge names.
func (s *stage) request(a *args) (purge.Request, error) {
	r := purge.Request{
		Tags: a.list("tag"), Prefixes: a.list("prefix"), Hosts: a.list("host"), Site: a.option("site", "test"),
		Soft: a.flag("soft"), Refresh: a.flag("refresh"), AnyQuery: a.flag("any_query"), Everything: a.flag("everything"),
	}
	for _, w := range a.words {
		r.URLs = append(r.URLs, absolute(w))
	}
	return r, a.done(len(a.words))
}

// purge puts a rule into force. It prints why it is refused.
func (s *stage) purge(a *args, _ []string) ([]string, error) {
	r, err := s.request(a)
	if err != nil {
		return nil, err
	}
	c, err := s.cache()
	if err != nil {
		return nil, err
	}
	p, err := c.apply(r)
	if err != nil {
		return []string{"refused: " + err.Error()}, nil
	}
	if r.Refresh {
		go c.RefreshMatches(context.Background(), p)
	}
	return nil, nil
}

// match prints what a purge would be of.
func (s *stage) match(a *args, _ []string) ([]string, error) {
	r, err := s.request(a)
	if err != nil {
		return nil, err
	}
	c, err := s.cache()
	if err != nil {
		return nil, err
	}
	p, faults := purge.Prepare(r, c.Normal)
	if len(faults) > 0 {
		return []string{"refused: " + faults[0].Error()}, nil
	}
	m, err := c.Match(context.Background(), p)
	if err != nil {
		return nil, err
	}
	return append([]string{fmt.Sprintf("%d objects, %d bytes", m.Objects, m.Bytes)}, m.Sample...), nil
}

// doubt says that purges may have been missed.
func (s *stage) doubt(a *args, _ []string) ([]string, error) {
	c, err := s.cache()
	if err != nil {
		return nil, err
	}
	c.rules.Doubt(time.Now())
	return nil, a.done(0)
}

// pass runs one pass of the sweep, and prints what is left.
func (s *stage) pass(a *args, _ []string) ([]string, error) {
	c, err := s.cache()
	if err != nil {
		return nil, err
	}
	c.sweep.Pass(context.Background())
	return []string{fmt.Sprintf("%d rules, %d objects", c.rules.Len(), c.Store.Usage().Objects)}, a.done(0)
}

// push stores a response, and prints what became of it. With "as=NAME" it goes
// on beside the next commands, and "pushed NAME" waits for it; "slow=" is how
// long its content takes.
func (s *stage) push(a *args, input []string) ([]string, error) {
	p, err := s.pushOf(a, input)
	if err != nil {
		return nil, err
	}
	name := a.option("as", "")
	if err := a.done(1); err != nil {
		return nil, err
	}
	c, err := s.cache()
	if err != nil {
		return nil, err
	}
	done := make(chan []string, 1)
	go func() { done <- pushed(c.Push(context.Background(), p)) }()
	if name == "" {
		return <-done, nil
	}
	s.pushes[name] = done
	return nil, nil
}

func (s *stage) pushOf(a *args, input []string) (p edge.Push, err error) {
	if len(a.words) != 1 {
		return p, errors.New("push takes a path")
	}
	slow, err := a.duration("slow", 0)
	if err != nil {
		return p, err
	}
	p = edge.Push{URL: absolute(a.words[0]), Header: http.Header{}, Ask: http.Header{}}
	if status := a.option("status", ""); status != "" {
		if p.Status, err = strconv.Atoi(status); err != nil {
			return p, err
		}
	}
	for _, line := range a.list("ask") {
		f, err := parseField(line)
		if err != nil {
			return p, err
		}
		p.Ask.Add(f.name, f.value)
	}
	var content []string
	for _, line := range input {
		if text, ok := bodyLine(line); ok {
			content = append(content, text)
			continue
		}
		f, err := parseField(line)
		if err != nil {
			return p, err
		}
		p.Header.Add(f.name, f.value)
	}
	body := strings.Join(content, "\n")
	p.Size = int64(len(body))
	if size := a.option("size", ""); size != "" {
		if p.Size, err = strconv.ParseInt(size, 10, 64); err != nil {
			return p, err
		}
	}
	p.Body = &slowEnd{Reader: strings.NewReader(body), pause: slow}
	return p, nil
}

// slowEnd lets time pass before its end.
type slowEnd struct {
	io.Reader
	pause time.Duration
}

func (r *slowEnd) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err == io.EOF {
		time.Sleep(r.pause) // the bubble's clock jumps
		r.pause = 0
	}
	return n, err
}

// pushed is the end of a push as lines.
func pushed(done edge.Pushed, err error) []string {
	var refused *edge.PushError
	switch {
	case errors.As(err, &refused):
		return []string{fmt.Sprintf("%d %s", refused.Status, refused.Field)}
	case err != nil:
		return []string{err.Error()}
	}
	line := fmt.Sprintf("stored %s status=%d size=%d ttl=%v", done.Key, done.Status, done.Size, done.TTL)
	if done.Variant != "" {
		line += " (" + done.Variant + ")"
	}
	return []string{line}
}

// awaitPush waits for a push that was begun before.
func (s *stage) awaitPush(a *args, _ []string) ([]string, error) {
	if err := a.done(1); err != nil {
		return nil, err
	}
	done := s.pushes[a.words[0]]
	if done == nil {
		return nil, fmt.Errorf("%s was not begun", a.words[0])
	}
	delete(s.pushes, a.words[0])
	return <-done, nil
}

// stored prints what is kept for a URL, without a trace.
func (s *stage) stored(a *args, _ []string) ([]string, error) {
	if err := a.done(1); err != nil {
		return nil, err
	}
	c, err := s.cache()
	if err != nil {
		return nil, err
	}
	all, err := c.Stored(absolute(a.words[0]))
	if err != nil {
		return []string{"refused: " + err.Error()}, nil
	}
	var lines []string
	for _, o := range all {
		line := fmt.Sprintf("%s status=%d size=%d age=%g ttl=%g fresh=%t", o.URL, o.Status, o.Size, o.Age, o.TTL, o.Fresh)
		for _, more := range []struct{ name, value string }{
			{"tags", strings.Join(o.Tags, ",")}, {"etag", o.ETag}, {"purged", o.Purged}, {"variant", o.Variant},
		} {
			if more.value != "" {
				line += " " + more.name + "=" + more.value
			}
		}
		lines = append(lines, line)
	}
	return lines, nil
}

// warm lets the node ask itself.
func (s *stage) warm(a *args, _ []string) ([]string, error) {
	if err := a.done(1); err != nil {
		return nil, err
	}
	c, err := s.cache()
	if err != nil {
		return nil, err
	}
	w, err := c.Warm(context.Background(), absolute(a.words[0]))
	if err != nil {
		return []string{"refused: " + err.Error()}, nil
	}
	line := fmt.Sprintf("%s status=%d bytes=%d stored=%t", w.Outcome, w.Status, w.Bytes, w.Stored)
	if w.Detail != "" {
		line += " detail=" + w.Detail
	}
	return []string{line}, nil
}

// openCache makes a handler whose store is judged by rules of its own.
func openCache(c *config) (*node, error) {
	rules := purge.NewRules(c.rules)
	st, err := edge.NewStore(edge.WithRules(c.store, rules))
	if err != nil {
		return nil, err
	}
	made := &cache{rules: rules, sweep: edge.NewSweep(st, rules, nil)}
	c.edge.Store, c.edge.Purge, c.edge.Sites = st, rules, []edge.Site{c.site}
	c.edge.PurgeURL = made.purgeURL
	if made.Handler, err = edge.New(c.edge); err != nil {
		return nil, errors.Join(err, st.Close())
	}
	return &node{handler: made.Handler, cache: made, close: func() error { made.Close(); return st.Close() }}, nil
}
