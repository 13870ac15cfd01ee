package edgetest

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing/synctest"
	"time"
)

// verbs is the table of commands.
func (s *stage) verbs() map[string]func(*args, []string) ([]string, error) {
	return map[string]func(*args, []string) ([]string, error){
		"site":    s.site,
		"origin":  s.setOrigin,
		"next":    s.setOrigin,
		"get":     s.ask,
		"head":    s.ask,
		"post":    s.ask,
		"request": s.ask,
		"raw":     s.raw,
		"start":   s.start,
		"send":    s.send,
		"read":    s.read,
		"await":   s.await,
		"leave":   s.leave,
		"many":    s.many,
		"sleep":   s.sleep,
		"asked":   s.asked,
		"purge":   s.purge,
		"match":   s.match,
		"doubt":   s.doubt,
		"sweep":   s.pass,
		"push":    s.push,
		"pushed":  s.awaitPush,
		"stored":  s.stored,
		"warm":    s.warm,
	}
}

// site collects the policy until the first request makes the node.
func (s *stage) site(a *args, input []string) ([]string, error) {
	if s.front != nil {
		return nil, errors.New("site must stand before the first request")
	}
	add := func(a *args, rule int) {
		for key, value := range a.options {
			s.settings = append(s.settings, setting{key, value, rule})
			a.used[key] = true
		}
	}
	add(a, 0)
	for _, line := range input {
		r, err := parseArgs(line)
		if err != nil {
			return nil, err
		}
		if r.verb != "rule" || len(r.words) > 0 {
			return nil, fmt.Errorf("%q is no rule", line)
		}
		s.rules++
		add(r, s.rules)
	}
	return nil, a.done(0)
}

func (s *stage) setOrigin(a *args, input []string) ([]string, error) {
	ans, err := parseAnswer(a, input)
	if err != nil {
		return nil, err
	}
	s.origin.set(ans, a.verb == "next")
	return nil, nil
}

// ask sends one request and prints its answer.
func (s *stage) ask(a *args, input []string) ([]string, error) {
	q, err := parseQuestion(a, input)
	if err != nil {
		return nil, err
	}
	if err := s.ready(); err != nil {
		return nil, err
	}
	x := s.front.begin(q, -1)
	defer x.leave()
	return x.wait().print(q.show), nil
}

func (s *stage) start(a *args, input []string) ([]string, error) {
	if len(a.words) < 2 {
		return nil, errors.New("start takes a name and a path")
	}
	name := a.words[0]
	if s.named[name] != nil {
		return nil, fmt.Errorf("%s is started already", name)
	}
	stall, err := strconv.Atoi(a.option("stalled", "-1"))
	if err != nil {
		return nil, fmt.Errorf("option stalled: %w", err)
	}
	a.words = a.words[1:]
	q, err := parseQuestion(a, input)
	if err != nil {
		return nil, err
	}
	if err := s.ready(); err != nil {
		return nil, err
	}
	s.named[name] = s.front.begin(q, stall)
	return nil, nil
}

// exchange is the started one that a command names.
func (s *stage) exchange(a *args) (*exchange, error) {
	if err := a.done(1); err != nil {
		return nil, err
	}
	x := s.named[a.words[0]]
	if x == nil {
		return nil, fmt.Errorf("%s was not started", a.words[0])
	}
	return x, nil
}

func (s *stage) send(a *args, input []string) ([]string, error) {
	x, err := s.exchange(a)
	if err != nil {
		return nil, err
	}
	body, err := joinBody(input)
	if err != nil {
		return nil, err
	}
	return nil, x.write([]byte(body))
}

func (s *stage) read(a *args, _ []string) ([]string, error) {
	x, err := s.exchange(a)
	if err != nil {
		return nil, err
	}
	return x.fresh(), nil
}

func (s *stage) await(a *args, _ []string) ([]string, error) {
	x, err := s.exchange(a)
	if err != nil {
		return nil, err
	}
	delete(s.named, a.words[0])
	defer x.leave()
	return x.wait().print(x.q.show), nil
}

func (s *stage) leave(a *args, _ []string) ([]string, error) {
	x, err := s.exchange(a)
	if err != nil {
		return nil, err
	}
	delete(s.named, a.words[0])
	x.leave()
	return nil, nil
}

// many asks the same N times at once. Who is first is chance, so the answers
// are printed as a set: the most frequent first.
func (s *stage) many(a *args, input []string) ([]string, error) {
	if len(a.words) < 2 {
		return nil, errors.New("many takes a number and a path")
	}
	n, err := strconv.Atoi(a.words[0])
	if err != nil || n < 1 {
		return nil, fmt.Errorf("many: %q is no number", a.words[0])
	}
	a.words = a.words[1:]
	q, err := parseQuestion(a, input)
	if err != nil {
		return nil, err
	}
	if err := s.ready(); err != nil {
		return nil, err
	}
	clients := make([]*exchange, n)
	for i := range clients {
		clients[i] = s.front.begin(q.nth(i), -1)
	}
	counts := map[string]int{}
	for _, x := range clients {
		counts[strings.Join(x.wait().print(q.show), "\n")]++
		x.leave()
	}
	texts := make([]string, 0, len(counts))
	for text := range counts {
		texts = append(texts, text)
	}
	slices.SortFunc(texts, func(x, y string) int {
		return cmp.Or(cmp.Compare(counts[y], counts[x]), cmp.Compare(x, y))
	})
	var out []string
	for _, text := range texts {
		out = append(out, fmt.Sprintf("%d of %d:", counts[text], n))
		out = append(out, strings.Split(text, "\n")...)
	}
	return out, nil
}

// raw writes bytes as they are and prints all that is answered within wait,
// then whether the server left the connection open.
func (s *stage) raw(a *args, input []string) ([]string, error) {
	wait, err := a.duration("wait", time.Second)
	if err != nil {
		return nil, err
	}
	from, head := a.option("from", defaultClient), a.flag("head")
	printed := show{fields: a.list("show"), nobody: a.flag("nobody")}
	if err := a.done(0); err != nil {
		return nil, err
	}
	bytes, err := unescapeBody(input)
	if err != nil {
		return nil, err
	}
	if err := s.ready(); err != nil {
		return nil, err
	}
	x := s.front.beginRaw(bytes, head, from)
	defer x.leave()
	time.Sleep(wait)
	synctest.Wait()
	return x.printAll(printed), nil
}

func (s *stage) sleep(a *args, _ []string) ([]string, error) {
	if err := a.done(1); err != nil {
		return nil, err
	}
	d, err := time.ParseDuration(a.words[0])
	if err != nil {
		return nil, err
	}
	// Not a sleeping test: the bubble's clock jumps (testing/synctest).
	time.Sleep(d)
	return nil, nil
}

func (s *stage) asked(a *args, _ []string) ([]string, error) {
	show := a.list("show")
	if err := a.done(0); err != nil {
		return nil, err
	}
	return s.origin.asked(show), nil
}

// joinBody joins body lines; any other line is an error.
func joinBody(input []string) (string, error) {
	lines := make([]string, 0, len(input))
	for _, line := range input {
		text, ok := bodyLine(line)
		if !ok {
			return "", fmt.Errorf("%q is no body line", line)
		}
		lines = append(lines, text)
	}
	return strings.Join(lines, "\n"), nil
}

// unescapeBody is the bytes that the body lines of raw stand for: the lines
// one after the other, with nothing between them but what escapes say.
func unescapeBody(input []string) ([]byte, error) {
	var out []byte
	for _, line := range input {
		text, ok := bodyLine(line)
		if !ok {
			return nil, fmt.Errorf("%q is no body line", line)
		}
		for text != "" {
			// 0 as the quote: both kinds of quote stand for themselves.
			r, multibyte, rest, err := strconv.UnquoteChar(text, 0)
			if err != nil {
				return nil, fmt.Errorf("%q: %w", text, err)
			}
			if multibyte {
				out = append(out, string(r)...)
			} else {
				out = append(out, byte(r))
			}
			text = rest
		}
	}
	return out, nil
}
