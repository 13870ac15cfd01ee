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

// parsePairs reads a serialized map (abi.ReadPairs) of at most maxPairs.
func parsePairs(b []byte) ([]pair, error) {
	bad := fmt.Errorf("%w: the arguments are no serialized map", abi.ErrArgument)
	if len(b) >= 4 {
		if n := binary.LittleEndian.Uint32(b); n > maxPairs {
			return nil, fmt.Errorf("%w: %d arguments; there may be %d", abi.ErrArgument, n, maxPairs)
		}
	}
	var pairs []pair
	long := false
	ok := abi.ReadPairs(b,
		func(n int) { pairs = make([]pair, 0, n) },
		func(name, value string) {
			long = long || len(name) > maxName
			pairs = append(pairs, pair{name, value})
		})
	if !ok || long {
		return nil, bad
	}
	return pairs, nil
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
