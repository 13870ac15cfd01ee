package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// lift makes rows of S rows of T, which has an S.
func lift[T, S any](rows []key[S], field func(*T) *S) []key[T] {
	out := make([]key[T], len(rows))
	for i, k := range rows {
		out[i] = key[T]{name: k.name, def: k.def, meaning: k.meaning, must: k.must, later: k.later, takes: value[T]{
			kind: k.takes.kind, looks: k.takes.looks,
			set: func(d *decoder, n ast.Node, name string, into *T) { k.takes.set(d, n, name, field(into)) },
		}}
		if k.takes.defaults != nil {
			out[i].takes.defaults = func(d *decoder, into *T) { k.takes.defaults(d, field(into)) }
		}
	}
	return out
}

const originKind = "http://host[:port] or https://host[:port]"

// serverList takes a list of URLs, or of mappings that say more. An entry at
// fault stays empty.
func serverList() value[originSettings] {
	looks := listOf(either(single(originKind, parseServer), shape{rows: rowsOf(serverKeys)}))
	return value[originSettings]{kind: "a list of " + originKind, looks: looks, set: func(d *decoder, n ast.Node, name string, into *originSettings) {
		list, ok := n.(*ast.SequenceNode)
		if !ok {
			d.fail(n, "%s: %s where a list is wanted; write [value, ...] or a line with - for each", name, kindOf(n))
			return
		}
		into.Origins = make([]serverSettings, len(list.Values))
		for i, item := range list.Values {
			s := &into.Origins[i]
			switch item.(type) {
			case *ast.MappingNode, *ast.MappingValueNode:
				mappingInto(d, item, serverKeys(), s)
				if s.Name == "" {
					s.Name = authority(s.URL)
				}
				continue
			}
			if text, ok := d.text(item, originKind); ok {
				var err error
				if *s, err = parseServer(text); err != nil {
					d.misfit(item, name, originKind, err)
				}
			}
		}
	}}
}

// parseServer reads a server that is a URL alone.
func parseServer(s string) (serverSettings, error) {
	url, err := parseOrigin(s)
	if err != nil {
		return serverSettings{}, err
	}
	return serverOf(url), nil
}

func serverOf(url string) serverSettings {
	return serverSettings{URL: url, Name: authority(url), Weight: 1, Protocol: "h1"}
}

// authority is host and port of an origin's URL.
func authority(url string) string {
	_, rest, _ := strings.Cut(url, "://")
	return rest
}

// balanceValue takes an algorithm, or a mapping that says more.
func balanceValue() value[originSettings] {
	inner := section(balanceKeys, func(s *originSettings) *balanceSettings { return &s.Balance })
	looks := either(balanceKeys()[0].takes.looks, inner.looks)
	return value[originSettings]{kind: inner.kind, looks: looks, defaults: inner.defaults, set: func(d *decoder, n ast.Node, name string, into *originSettings) {
		switch n.(type) {
		case *ast.MappingNode, *ast.MappingValueNode:
			inner.set(d, n, name, into)
			return
		}
		applyDefaults(d, balanceKeys(), &into.Balance)
		balanceKeys()[0].takes.set(d, n, name, &into.Balance)
	}}
}

// sectionOrOff takes a mapping of its own, or off; switched is told which, after
// the mapping was read. Without the key it is on or off, as byDefault says.
func sectionOrOff[T, S any](keys func() []key[S], field func(*T) *S, byDefault bool, switched func(s *S, on bool)) value[T] {
	inner := section(keys, field)
	off := func(into *T) {
		*field(into) = *new(S)
		switched(field(into), false)
	}
	return value[T]{kind: "a mapping, or off", looks: either(offWord(), inner.looks),
		set: func(d *decoder, n ast.Node, name string, into *T) {
			if word, ok := n.(*ast.StringNode); ok && word.Value == "off" {
				off(into)
				return
			}
			inner.set(d, n, name, into)
			switched(field(into), true)
		},
		defaults: func(d *decoder, into *T) {
			if !byDefault {
				off(into)
				return
			}
			inner.defaults(d, into)
			switched(field(into), true)
		},
	}
}

// wordOr reads a word that stands for a value, or what read reads.
func wordOr[V any](word string, is V, read func(string) (V, error)) func(string) (V, error) {
	return func(s string) (V, error) {
		if s == word {
			return is, nil
		}
		return read(s)
	}
}

// noneAtZero makes 0 what origin calls none.
func noneAtZero[V int | float64](read func(string) (V, error)) func(string) (V, error) {
	return func(s string) (V, error) {
		v, err := read(s)
		if err == nil && v == 0 {
			v = -1
		}
		return v, err
	}
}

// reals reads a number from least to most.
func reals(least, most float64) func(string) (float64, error) {
	return func(s string) (float64, error) {
		f, err := strconv.ParseFloat(s, 64)
		if err != nil || !(f >= least && f <= most) {
			return 0, fmt.Errorf("%s is not between %v and %v", show(s), least, most)
		}
		return f, nil
	}
}

func parseRetryStatus(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n != http.StatusTooManyRequests && (n < 500 || n > 599) {
		return 0, fmt.Errorf("%s is no status that another attempt may help", show(s))
	}
	return n, nil
}

// parseCheckPath reads what a health check asks for.
func parseCheckPath(s string) (string, error) {
	switch {
	case !strings.HasPrefix(s, "/"):
		return "", fmt.Errorf("%s does not begin with /", show(s))
	case len(s) > 2048, strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == '#' || r == 0x7f }):
		return "", fmt.Errorf("%s cannot be asked for", show(s))
	}
	return s, nil
}

func parseCheckHost(s string) (string, error) {
	if s == "client" || s == "origin" {
		return "", fmt.Errorf("%s is not a host name here", show(s))
	}
	return parseHostHeader(s)
}

func parseCheckBody(s string) (string, error) {
	if s == "" || len(s) > 1024 {
		return "", errors.New("a text of " + strconv.Itoa(len(s)) + " bytes")
	}
	return s, nil
}

// parsePrefixPath reads a route's prefix, as requests' paths have it when they
// are normalised.
func parsePrefixPath(s string) (string, error) {
	bare := strings.TrimSuffix(s, "/")
	switch {
	case !strings.HasPrefix(s, "/"):
		return "", fmt.Errorf("%s does not begin with /", show(s))
	case bare == "":
		return "", errors.New("every path is the site's own; name a part of them")
	case strings.HasSuffix(bare, "/"):
		return "", fmt.Errorf("%s ends in more than one slash; the paths under a prefix are its own without any", show(s))
	case len(s) > 1024, strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == '?' || r == '#' || r == '*' || r == 0x7f }):
		return "", fmt.Errorf("%s is not a plain path", show(s))
	}
	for segment := range strings.SplitSeq(bare, "/") {
		if plain, err := url.PathUnescape(segment); err != nil {
			return "", fmt.Errorf("%s has a %% that begins no encoding", show(s))
		} else if plain == "." || plain == ".." {
			return "", fmt.Errorf("%s has dot segments, which no request has", show(s))
		}
	}
	return bare, nil
}
