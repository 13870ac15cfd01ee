package proxywasm

import "encoding/binary"

// pair is a name and a value.
type pair struct{ name, value string }

// parsePairs reads a serialized map: a u32 count, for each pair the u32
// lengths of name and value, then each name and value with a NUL after it,
// all little-endian. Nothing and a single zero byte are the empty map. It is
// not ok when b is longer or shorter than it says, or a NUL is missing.
func parsePairs(b []byte) (pairs []pair, ok bool) {
	if len(b) == 0 || len(b) == 1 && b[0] == 0 {
		return nil, true
	}
	if len(b) < 4 {
		return nil, false
	}
	n := uint64(binary.LittleEndian.Uint32(b))
	// A pair takes ten bytes at least: nothing is allocated for a count that
	// cannot be true.
	if n*10 > uint64(len(b)-4) {
		return nil, false
	}
	sizes, text := b[4:4+8*n], b[4+8*n:]
	pairs = make([]pair, 0, n)
	for ; len(sizes) > 0; sizes = sizes[8:] {
		var p pair
		if p.name, text, ok = cutString(text, binary.LittleEndian.Uint32(sizes)); !ok {
			return nil, false
		}
		if p.value, text, ok = cutString(text, binary.LittleEndian.Uint32(sizes[4:])); !ok {
			return nil, false
		}
		pairs = append(pairs, p)
	}
	if len(text) > 0 {
		return nil, false
	}
	return pairs, true
}

// cutString takes n bytes and a NUL off the front of b.
func cutString(b []byte, n uint32) (s string, rest []byte, ok bool) {
	if uint64(n) >= uint64(len(b)) || b[n] != 0 {
		return "", nil, false
	}
	return string(b[:n]), b[n+1:], true
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
