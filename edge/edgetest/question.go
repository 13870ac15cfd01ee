package edgetest

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// defaultClient is the address a client has unless the script gives one
// ("from="); RFC 5737 keeps it for documentation.
const defaultClient = "192.0.2.1"

// question is one request as a script words it:
//
//	get PATH [proto=1.0] [host=example.com] [from=192.0.2.1] [show=NAME,...] [chunked] [nobody] [decode]
//	Name: value
//	| content
//
// host= (empty) sends no Host. {now+1h} in a value is that moment as a date;
// {each de fr} gives the Nth of "many" clients the word N modulo their number.
// Content gets a Content-Length unless "chunked" stands there. "nobody" leaves
// the answer's body out of what is printed, "decode" prints it decoded.
type question struct {
	method, target, proto, host, from string
	fields                            []field
	body                              string
	hasBody, chunked                  bool
	show                              show
}

// show says which parts of an answer are printed.
type show struct {
	fields []string
	nobody bool
	decode bool
}

func parseQuestion(a *args, input []string) (question, error) {
	q := question{
		method: "GET",
		proto:  "HTTP/" + a.option("proto", "1.1"),
		host:   a.option("host", "example.com"),
		from:   a.option("from", defaultClient),
		show:   show{fields: a.list("show")},
	}
	q.chunked, q.show.nobody, q.show.decode = a.flag("chunked"), a.flag("nobody"), a.flag("decode")
	switch {
	case a.verb == "get" || a.verb == "head" || a.verb == "post":
		q.method = strings.ToUpper(a.verb)
	case len(a.words) == 2:
		q.method, a.words = a.words[0], a.words[1:]
	}
	if err := a.done(1); err != nil {
		return q, err
	}
	q.target = a.words[0]
	var content []string
	for _, line := range input {
		if text, ok := bodyLine(line); ok {
			content = append(content, text)
			continue
		}
		f, err := parseField(line)
		if err != nil {
			return q, err
		}
		q.fields = append(q.fields, f)
	}
	q.body, q.hasBody = strings.Join(content, "\n"), content != nil
	return q, nil
}

// nth is the question as the Nth of many clients asks it.
func (q question) nth(n int) question {
	fields := make([]field, len(q.fields))
	for i, f := range q.fields {
		fields[i] = field{f.name, expand(f.value, func(word string) (string, bool) {
			choices, ok := strings.CutPrefix(word, "each ")
			if !ok {
				return "", false
			}
			words := strings.Fields(choices)
			return words[n%len(words)], true
		})}
	}
	q.fields = fields
	return q
}

// head is the request's head as bytes.
func (q question) head() []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s\r\n", q.method, q.target, q.proto)
	if q.host != "" {
		fmt.Fprintf(&b, "Host: %s\r\n", q.host)
	}
	for _, f := range q.fields {
		fmt.Fprintf(&b, "%s: %s\r\n", f.name, expand(f.value, moment))
	}
	switch {
	case q.hasBody && q.chunked:
		b.WriteString("Transfer-Encoding: chunked\r\n")
	case q.hasBody:
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(q.body))
	}
	b.WriteString("\r\n")
	return []byte(b.String())
}

// content is the request's content as bytes on the wire.
func (q question) content() []byte {
	if !q.chunked {
		return []byte(q.body)
	}
	if q.body == "" {
		return []byte("0\r\n\r\n")
	}
	return []byte(strconv.FormatInt(int64(len(q.body)), 16) + "\r\n" + q.body + "\r\n0\r\n\r\n")
}

// expand replaces each {word} that resolve knows; others stay as they are.
func expand(s string, resolve func(word string) (string, bool)) string {
	var b strings.Builder
	for {
		before, rest, ok := strings.Cut(s, "{")
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		word, after, closed := strings.Cut(rest, "}")
		value, known := "", false
		if closed {
			value, known = resolve(word)
		}
		if known {
			b.WriteString(value)
			s = after
			continue
		}
		b.WriteByte('{')
		s = rest
	}
}

// httpDate is IMF-fixdate (RFC 9110, 5.6.7).
const httpDate = "Mon, 02 Jan 2006 15:04:05 GMT"

// moment resolves "now", "now+90s" and "now-1h" to a date.
func moment(word string) (string, bool) {
	rest, ok := strings.CutPrefix(word, "now")
	if !ok {
		return "", false
	}
	at := time.Now().UTC()
	if rest != "" {
		d, err := time.ParseDuration(rest)
		if err != nil {
			return "", false
		}
		at = at.Add(d)
	}
	return at.Format(httpDate), true
}
