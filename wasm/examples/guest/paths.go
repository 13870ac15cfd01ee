//go:build wasip1

package guest

import (
	"slices"
	"strings"
)

// Paths are what servers may take a path for. The node resolves dot segments
// and no more: it sends on what the client sent. Origins differ in the rest.
// Some decode percent-encodings twice, take "\" for "/", "//" for "/" or
// ";x" for nothing, or do not tell capitals.
type Paths struct {
	list   []string // the path itself first
	small  []string // the same in small letters
	beyond bool     // there are more than are looked at
}

// Bounds of Readings: a path that needs more is taken for anything.
const (
	mostRead  = 1 << 10 // bytes
	mostTimes = 4       // that percent-encodings are looked at
)

// Readings returns what path may be taken for.
func Readings(path string) Paths {
	p := Paths{list: []string{path}, small: []string{strings.ToLower(path)}}
	if !strings.ContainsAny(path, `%\;`) && !strings.Contains(path, "//") {
		return p
	}
	if p.beyond = len(path) > mostRead; p.beyond {
		return p
	}
	for range mostTimes {
		for _, way := range [...][2]bool{{false, false}, {false, true}, {true, false}, {true, true}} {
			if one := resolved(path, way[0], way[1]); !slices.Contains(p.list, one) {
				p.list, p.small = append(p.list, one), append(p.small, strings.ToLower(one))
			}
		}
		next := decoded(path)
		if next == path {
			return p
		}
		path = next
	}
	p.beyond = true
	return p
}

// Surely reports whether the path begins so, whoever reads it: ask it of
// paths that are let through.
func (p *Paths) Surely(prefix string) bool {
	return prefix == "" || !p.beyond && !slices.ContainsFunc(p.list, func(one string) bool { return !strings.HasPrefix(one, prefix) })
}

// Maybe reports whether the path begins so for anybody: ask it of paths that
// are guarded.
func (p *Paths) Maybe(prefix string) bool {
	prefix = strings.ToLower(prefix)
	return p.beyond || slices.ContainsFunc(p.small, func(one string) bool { return strings.HasPrefix(one, prefix) })
}

// resolved is path without empty segments and those of dots; with backslashes
// as slashes, and segments without what follows a semicolon, if so asked.
func resolved(path string, backslashes, semicolons bool) string {
	if backslashes {
		path = strings.ReplaceAll(path, `\`, "/")
	}
	out := make([]byte, 0, len(path)+1)
	for segment := range strings.SplitSeq(path, "/") {
		if semicolons {
			segment, _, _ = strings.Cut(segment, ";")
		}
		switch segment {
		case "", ".":
		case "..":
			out = out[:max(0, strings.LastIndexByte(string(out), '/'))]
		default:
			out = append(append(out, '/'), segment...)
			continue
		}
	}
	last := path[strings.LastIndexByte(path, '/')+1:]
	if semicolons {
		last, _, _ = strings.Cut(last, ";")
	}
	if last == "" || last == "." || last == ".." {
		out = append(out, '/')
	}
	return string(out)
}

// decoded is text with its percent-encodings decoded once.
func decoded(text string) string {
	if strings.IndexByte(text, '%') < 0 {
		return text
	}
	out := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		if text[i] == '%' && i+2 < len(text) {
			high, low := digit(text[i+1]), digit(text[i+2])
			if high >= 0 && low >= 0 {
				out = append(out, byte(high<<4|low))
				i += 2
				continue
			}
		}
		out = append(out, text[i])
	}
	return string(out)
}

// digit is the value of a hexadecimal digit, -1 of any other byte.
func digit(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}
