package edgetest

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"
)

// cursor is how far an answer has been printed.
type cursor struct {
	at     time.Time // moment of the last line printed
	heads  int       // interim and final heads printed
	pieces int
	bytes  int // of the piece after pieces
}

// print is the exchange's answer as lines.
func (x *exchange) print(s show) []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.answers) == 0 {
		return []string{"no answer after " + patience.String()}
	}
	a := x.answers[0]
	lines := x.printNew(a, s, &cursor{at: x.began})
	if !a.ended {
		lines = append(lines, "no end after "+patience.String())
	}
	return lines
}

// printAll is every answer of a raw exchange, then the connection's state.
func (x *exchange) printAll(s show) []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	var lines []string
	for _, a := range x.answers {
		lines = append(lines, x.printNew(a, s, &cursor{at: x.began})...)
	}
	select {
	case <-x.gone:
		return append(lines, "closed")
	default:
		return append(lines, "open")
	}
}

// fresh is what has come since it was last called, then "open" while the
// answer has not ended.
func (x *exchange) fresh() []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.seen.at.IsZero() {
		x.seen.at = x.began
	}
	if len(x.answers) == 0 {
		return []string{"open"}
	}
	a := x.answers[0]
	lines := x.printNew(a, x.q.show, &x.seen)
	if !a.ended {
		lines = append(lines, "open")
	}
	return lines
}

// printNew prints what lies behind the cursor and moves it. x.mu is held.
func (x *exchange) printNew(a *answer, s show, c *cursor) []string {
	var lines []string
	heads := a.interims
	if a.head != nil {
		heads = append(slices.Clip(heads), *a.head)
	}
	for _, h := range heads[c.heads:] {
		lines = append(lines, fmt.Sprintf("%d after %v", h.status, h.at.Sub(x.began)))
		lines = append(lines, h.print(s.fields)...)
		c.heads, c.at = c.heads+1, h.at
	}
	if a.head != nil && !s.nobody && !a.head.own() {
		lines = append(lines, a.printBody(c, s.decode)...)
	}
	if !a.ended {
		return lines
	}
	for _, f := range a.trailers {
		lines = append(lines, fmt.Sprintf("trailer %s: %s", f.name, f.value))
	}
	if a.broken != "" {
		lines = append(lines, "broken: "+a.broken+a.after())
	}
	if a.surplus > 0 && a.broken == "" {
		lines = append(lines, fmt.Sprintf("surplus: %d bytes", a.surplus))
	}
	return lines
}

// own tells whether the node made the answer as an error: it is the last
// member of Proxy-Status (RFC 9209, 2).
func (h *head) own() bool {
	all := strings.Join(values(h.fields, "Proxy-Status"), ",")
	last := strings.TrimSpace(all[strings.LastIndex(all, ",")+1:])
	return h.status >= 400 && strings.HasPrefix(last, "seawall")
}

// print is the fields of a head that scripts see: all of an interim one's,
// of a final one's Cache-Status, Proxy-Status and what show names.
func (h *head) print(show []string) []string {
	var lines []string
	if h.status < 200 && h.status != 101 {
		for _, f := range h.fields {
			lines = append(lines, f.name+": "+f.value)
		}
		return lines
	}
	for _, name := range append([]string{"Cache-Status", "Proxy-Status"}, show...) {
		all := values(h.fields, name)
		if len(all) == 0 && slices.Contains(show, name) {
			all = []string{"-"}
		}
		for _, v := range all {
			lines = append(lines, name+": "+v)
		}
	}
	return lines
}

// after says how much of the body came before it broke off.
func (a *answer) after() string {
	if a.head == nil {
		return ""
	}
	n := 0
	for _, p := range a.body {
		n += len(p.data)
	}
	return fmt.Sprintf(" after %d bytes", n)
}

// printBody prints body bytes behind the cursor, and moves it.
func (a *answer) printBody(c *cursor, decode bool) []string {
	var lines []string
	body := a.body
	if decode {
		body = decoded(strings.Join(values(a.head.fields, "Content-Encoding"), ","), body)
	}
	for c.pieces < len(body) {
		p := body[c.pieces]
		data := p.data[c.bytes:]
		last := c.pieces == len(body)-1
		if len(data) > 0 {
			if d := p.at.Sub(c.at); d > 0 {
				lines = append(lines, fmt.Sprintf("%v later", d))
			}
			c.at = p.at
			lines = append(lines, printBytes(a.head.readable(data), last && a.ended)...)
		}
		if last {
			c.bytes = len(p.data)
			break
		}
		c.pieces, c.bytes = c.pieces+1, 0
	}
	return lines
}

// readable is body bytes as they are printed: of a multipart body, whose
// boundary is chance, without that boundary and without carriage returns.
func (h *head) readable(data []byte) []byte {
	kind := strings.Join(values(h.fields, "Content-Type"), "")
	_, boundary, ok := strings.Cut(kind, "boundary=")
	if !ok || !strings.HasPrefix(kind, "multipart/") || boundary == "" {
		return data
	}
	return []byte(strings.NewReplacer(boundary, "BOUNDARY", "\r\n", "\n").Replace(string(data)))
}

// shown is the longest body that is printed as text.
const shown = 2048

// printBytes is body bytes as lines. A line feed at the end of bytes that are
// not the last parts the next line from this one and is not printed.
func printBytes(data []byte, last bool) []string {
	if len(data) > shown {
		return []string{describe(data)}
	}
	text := string(data)
	if !last {
		text = strings.TrimSuffix(text, "\n")
	}
	var lines []string
	for line := range strings.SplitSeq(text, "\n") {
		switch {
		case line == "":
			lines = append(lines, "|")
		case strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\uFFFD' }):
			lines = append(lines, "| hex "+hex.EncodeToString([]byte(line)))
		default:
			lines = append(lines, "| "+line)
		}
	}
	return lines
}

// patternWord is how many bytes one position of the pattern takes.
const patternWord = 8

// pattern is n bytes of the body that "size=" makes: each eight bytes say in
// hexadecimal where they stand, so that any part of it tells what it is.
func pattern(n int) []byte {
	b := make([]byte, 0, n+patternWord)
	for at := 0; at < n; at += patternWord {
		b = fmt.Appendf(b, "%07x\n", at)
	}
	return b[:n]
}

// describe says in one line what long bytes are.
func describe(data []byte) string {
	for skip := range patternWord {
		var at int
		if _, err := fmt.Sscanf(string(data[skip:skip+patternWord]), "%07x\n", &at); err != nil || at%patternWord != 0 || at < skip {
			continue
		}
		if start := at - skip; string(pattern(start + len(data))[start:]) == string(data) {
			return fmt.Sprintf("| (%d bytes of the pattern from %d)", len(data), start)
		}
	}
	return fmt.Sprintf("| (%d bytes, not of the pattern)", len(data))
}
