package edgetest

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// reply is one answer of the origin as a script words it:
//
//	origin [METHOD] PATH [host=NAME] [when="Name: value"] [status=200] [delay=1s]
//	       [length=none|close|N] [chunk-delay=1s] [size=N] [gzip] [fault=KIND] [stall=0s]
//	       [conditional] [ranges] [echo] [unannounced]
//	Name: value
//	hint 103 [1s]
//	  Name: value
//	trailer Name: value
//	| body
//
// In values and body lines {now-1h} is that moment as a date when the answer
// is sent, {request Name} the request's field, {count} how many requests the
// target has had.
//
// length=none sends the body chunked, close until the connection's end, N
// declares that length whatever the body has. chunk-delay sends the body's
// lines one by one, each so long after the one before; size makes a body of so
// many bytes that tell their place, gzip codes it. conditional answers 304 when the request's
// condition says so, ranges 206 or 416 to a Range. echo, with status=101, sends
// back what an upgraded connection brings. Trailers make the length none;
// unannounced leaves out the Trailer field.
//
// Faults: refused, reset-before-head and stall-head give an error after delay
// and stall; short ends before the declared length, surplus runs past it, abort
// breaks off a body of unknown length, stall-body sends the body and breaks off
// by the node's own time limit. Those that break off are silent for stall first.
type reply struct {
	status      int
	delay       time.Duration
	chunkDelay  time.Duration
	stall       time.Duration
	length      string
	fault       string
	conditional bool
	ranges      bool
	echo        bool
	unannounced bool
	gzip        bool
	hints       []hint
	fields      []field
	trailers    []field
	lines       []string // of the body
	size        int
}

// hint is an interim response, sent so long after what came before it.
type hint struct {
	status int
	after  time.Duration
	fields []field
}

var faults = []string{"", "refused", "reset-before-head", "stall-head", "short", "surplus", "abort", "stall-body"}

func parseAnswer(a *args, input []string) (*rule, error) {
	r := &rule{host: a.option("host", "")}
	if w := a.option("when", ""); w != "" {
		f, err := parseField(w)
		if err != nil {
			return nil, err
		}
		r.when = f
	}
	rep := &reply{
		length: a.option("length", ""), fault: a.option("fault", ""),
		conditional: a.flag("conditional"), ranges: a.flag("ranges"), echo: a.flag("echo"), unannounced: a.flag("unannounced"),
		gzip: a.flag("gzip"),
	}
	if !slices.Contains(faults, rep.fault) {
		return nil, fmt.Errorf("there is no fault %s", rep.fault)
	}
	if err := rep.numbers(a); err != nil {
		return nil, err
	}
	if len(a.words) == 2 {
		r.method, a.words = a.words[0], a.words[1:]
	}
	if err := a.done(1); err != nil {
		return nil, err
	}
	r.target, r.queue = a.words[0], []*reply{rep}
	return r, rep.parse(input)
}

// failsBeforeHead tells whether the fault is an error instead of a response.
func (r *reply) failsBeforeHead() bool {
	return r.fault == "refused" || r.fault == "reset-before-head" || r.fault == "stall-head"
}

// numbers reads the options that are numbers and spans of time.
func (r *reply) numbers(a *args) error {
	for _, o := range []struct {
		name  string
		value *time.Duration
		other time.Duration
	}{
		{"delay", &r.delay, 0},
		{"chunk-delay", &r.chunkDelay, 0},
		{"stall", &r.stall, 0},
	} {
		d, err := a.duration(o.name, o.other)
		if err != nil {
			return err
		}
		*o.value = d
	}
	for _, o := range []struct {
		name, other string
		value       *int
	}{
		{"status", "200", &r.status},
		{"size", "0", &r.size},
	} {
		n, err := strconv.Atoi(a.option(o.name, o.other))
		if err != nil {
			return fmt.Errorf("option %s: %w", o.name, err)
		}
		*o.value = n
	}
	return nil
}

// parse reads the fields, hints, trailers and body lines.
func (r *reply) parse(input []string) error {
	for _, line := range input {
		text, isBody := bodyLine(line)
		rest, isTrailer := strings.CutPrefix(line, "trailer ")
		nested, isNested := strings.CutPrefix(line, "  ")
		switch {
		case isBody:
			r.lines = append(r.lines, text)
			continue
		case strings.HasPrefix(line, "hint "):
			h, err := parseHint(strings.Fields(line)[1:])
			if err != nil {
				return err
			}
			r.hints = append(r.hints, h)
			continue
		}
		to := &r.fields
		switch {
		case isTrailer:
			line, to = rest, &r.trailers
		case isNested && len(r.hints) > 0:
			line, to = nested, &r.hints[len(r.hints)-1].fields
		}
		f, err := parseField(line)
		if err != nil {
			return err
		}
		*to = append(*to, f)
	}
	return nil
}

func parseHint(words []string) (hint, error) {
	var h hint
	if len(words) == 0 || len(words) > 2 {
		return h, fmt.Errorf("hint takes a status and a delay, has %q", words)
	}
	var err error
	if h.status, err = strconv.Atoi(words[0]); err != nil {
		return h, err
	}
	if len(words) == 2 {
		h.after, err = time.ParseDuration(words[1])
	}
	return h, err
}

// notModified tells whether a conditional reply with these fields answers the
// request with 304 (RFC 9110, 13.2.2).
func notModified(h, asked http.Header) bool {
	if tags := asked.Values("If-None-Match"); len(tags) > 0 {
		own := strings.TrimPrefix(h.Get("ETag"), "W/")
		for _, tag := range strings.Split(strings.Join(tags, ","), ",") {
			tag = strings.TrimSpace(tag)
			if tag == "*" || own != "" && strings.TrimPrefix(tag, "W/") == own {
				return true
			}
		}
		return false
	}
	since, err := http.ParseTime(asked.Get("If-Modified-Since"))
	if err != nil {
		return false
	}
	modified, err := http.ParseTime(h.Get("Last-Modified"))
	return err == nil && !modified.After(since)
}

// slice is the one range a Range field asks of n bytes; ok is false where the
// field is not one such range, and from > to where none of it is there.
func slice(value string, n int) (from, to int, ok bool) {
	spec, ok := strings.CutPrefix(value, "bytes=")
	first, last, dash := strings.Cut(spec, "-")
	if !ok || !dash || strings.Contains(spec, ",") {
		return 0, 0, false
	}
	a, errA := strconv.Atoi(first)
	b, errB := strconv.Atoi(last)
	switch {
	case first == "" && errB == nil:
		return max(0, n-b), n - 1, true
	case errA == nil && last == "":
		return a, n - 1, true
	case errA == nil && errB == nil:
		return a, min(b, n-1), true
	}
	return 0, 0, false
}
