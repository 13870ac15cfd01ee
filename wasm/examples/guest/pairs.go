//go:build wasip1

package guest

import "strings"

// A map in proxy-wasm is a count, the lengths of each name and value, then
// each with a zero byte behind it; numbers have four bytes, the lowest first.

// Pairs writes names and values, each value behind its name, as a map.
func Pairs(list ...string) string {
	n := 4
	for _, s := range list {
		n += 4 + len(s) + 1
	}
	b := make([]byte, 0, n)
	b = appendNumber(b, len(list)/2)
	list = list[:len(list)/2*2]
	for _, s := range list {
		b = appendNumber(b, len(s))
	}
	for _, s := range list {
		b = append(append(b, s...), 0)
	}
	return string(b)
}

func appendNumber(b []byte, n int) []byte {
	return append(b, byte(n), byte(n>>8), byte(n>>16), byte(n>>24))
}

// Pick returns the value of a name in a map, "" if it has none.
func Pick(pairs, name string) string {
	for n, v := range Each(pairs) {
		if n == name {
			return v
		}
	}
	return ""
}

// Each goes through a map's names and values; it ends early at what is none.
func Each(pairs string) func(yield func(name, value string) bool) {
	return func(yield func(name, value string) bool) {
		count := number(pairs)
		if len(pairs) < 4 || count < 0 || count > (len(pairs)-4)/8 {
			return
		}
		sizes, rest := pairs[4:4+8*count], pairs[4+8*count:]
		for ; len(sizes) > 0; sizes = sizes[8:] {
			n, v := number(sizes), number(sizes[4:])
			if n < 0 || v < 0 || n >= len(rest) || v >= len(rest)-n-1 {
				return
			}
			if !yield(strings.Clone(rest[:n]), strings.Clone(rest[n+1:n+1+v])) {
				return
			}
			rest = rest[n+1+v+1:]
		}
	}
}

// number reads four bytes, -1 if there are less.
func number(s string) int {
	if len(s) < 4 {
		return -1
	}
	return int(int32(uint32(s[0]) | uint32(s[1])<<8 | uint32(s[2])<<16 | uint32(s[3])<<24))
}
