package proxywasm

import (
	"encoding/binary"

	"seawall/wasm/abi"
)

// pair is a name and a value.
type pair struct{ name, value string }

// parsePairs reads a serialized map (abi.ReadPairs).
func parsePairs(b []byte) (pairs []pair, ok bool) {
	ok = abi.ReadPairs(b,
		func(n int) { pairs = make([]pair, 0, n) },
		func(name, value string) { pairs = append(pairs, pair{name, value}) })
	if !ok {
		return nil, false
	}
	return pairs, true
}

// pairsSize is how many bytes appendPairs adds.
func pairsSize(pairs []pair) int {
	n := 4
	for _, p := range pairs {
		n += 8 + len(p.name) + 1 + len(p.value) + 1
	}
	return n
}

// appendPairs appends the serialized map. Four zero bytes are its empty form,
// since SDKs read the count without asking for the size.
func appendPairs(b []byte, pairs []pair) []byte {
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
