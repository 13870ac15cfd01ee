package extras

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"seawall/wasm/abi"
)

// Bounds of arguments. A caller's own limit is on bytes.
const (
	maxPairs = 256
	maxName  = 256 // bytes of an argument's name
)

// pair is a name and a value.
type pair struct{ name, value string }

// parsePairs reads a serialized map as proxy-wasm writes it: a u32 count, for
// each pair the u32 lengths of name and value, then each name and value with a
// NUL after it, all little-endian. Nothing and one zero byte are the empty map.
func parsePairs(b []byte) ([]pair, error) {
	if len(b) == 0 || len(b) == 1 && b[0] == 0 {
		return nil, nil
	}
	bad := fmt.Errorf("%w: the arguments are no serialized map", abi.ErrArgument)
	if len(b) < 4 {
		return nil, bad
	}
	n := uint64(binary.LittleEndian.Uint32(b))
	if n > maxPairs {
		return nil, fmt.Errorf("%w: %d arguments; there may be %d", abi.ErrArgument, n, maxPairs)
	}
	if 8*n > uint64(len(b)-4) {
		return nil, bad
	}
	sizes, text := b[4:4+8*n], b[4+8*n:]
	pairs := make([]pair, 0, n)
	for ; len(sizes) > 0; sizes = sizes[8:] {
		var p pair
		var ok1, ok2 bool
		p.name, text, ok1 = cutText(text, binary.LittleEndian.Uint32(sizes))
		p.value, text, ok2 = cutText(text, binary.LittleEndian.Uint32(sizes[4:]))
		if !ok1 || !ok2 || len(p.name) > maxName {
			return nil, bad
		}
		pairs = append(pairs, p)
	}
	if len(text) > 0 {
		return nil, bad
	}
	return pairs, nil
}

// cutText takes n bytes and a NUL off the front of b.
func cutText(b []byte, n uint32) (s string, rest []byte, ok bool) {
	if uint64(n) >= uint64(len(b)) || b[n] != 0 {
		return "", nil, false
	}
	return string(b[:n]), b[n+1:], true
}

// serialized is the map of pairs, as parsePairs reads it. The empty one has
// four bytes, since some guests read the count without looking at the size.
func serialized(pairs []pair) []byte {
	size := 4
	for _, p := range pairs {
		size += 8 + len(p.name) + 1 + len(p.value) + 1
	}
	b := make([]byte, 0, size)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(pairs)))
	for _, p := range pairs {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(p.name)))
		b = binary.LittleEndian.AppendUint32(b, uint32(len(p.value)))
	}
	for _, p := range pairs {
		b = append(append(b, p.name...), 0)
		b = append(append(b, p.value...), 0)
	}
	return b
}

// arguments are those of one call.
type arguments []pair

// readArguments reads what a call was given. Names are "data" for one that
// may be there once, "issuer*" for one that may repeat, and "claim.*" for a
// prefix. A name that is not known is refused, never ignored: a misspelt
// audience would let every token pass.
func readArguments(b []byte, names ...string) (arguments, error) {
	pairs, err := parsePairs(b)
	if err != nil {
		return nil, err
	}
	for i, p := range pairs {
		known, repeats := false, false
		for _, name := range names {
			plain, star := strings.CutSuffix(name, "*")
			if p.name == plain || star && strings.HasSuffix(plain, ".") && strings.HasPrefix(p.name, plain) {
				known, repeats = true, star
			}
		}
		if !known {
			return nil, fmt.Errorf("%w: unknown argument %.64q; known are %s", abi.ErrArgument, p.name, strings.Join(names, ", "))
		}
		if !repeats && slices.ContainsFunc(pairs[:i], func(o pair) bool { return o.name == p.name }) {
			return nil, fmt.Errorf("%w: %s is there twice", abi.ErrArgument, p.name)
		}
	}
	return pairs, nil
}

// one is the value of a name.
func (a arguments) one(name string) (string, bool) {
	for _, p := range a {
		if p.name == name {
			return p.value, true
		}
	}
	return "", false
}

// must is the value of a name that has to be there.
func (a arguments) must(name string) (string, error) {
	v, ok := a.one(name)
	if !ok {
		return "", fmt.Errorf("%w: %s is missing", abi.ErrArgument, name)
	}
	return v, nil
}

// all are the values of a name that may repeat.
func (a arguments) all(name string) (values []string) {
	for _, p := range a {
		if p.name == name {
			values = append(values, p.value)
		}
	}
	return values
}

// truth is a boolean as results have it.
func truth(b bool) string {
	if b {
		return "true"
	}
	return "false"
}
