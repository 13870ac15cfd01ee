package abi

import "encoding/binary"

// ReadPairs reads a serialized map as proxy-wasm writes it: a u32 count, for
// each pair the u32 lengths of name and value, then each name and value with a
// NUL after it, all little-endian. Nothing and a single zero byte are the empty
// map. Each pair is given to add as it is read; room is told their number
// before. It is false when b is longer or shorter than it says, or a NUL is
// missing: what was added then counts for nothing.
func ReadPairs(b []byte, room func(n int), add func(name, value string)) bool {
	if len(b) == 0 || len(b) == 1 && b[0] == 0 {
		return true
	}
	if len(b) < 4 {
		return false
	}
	n := uint64(binary.LittleEndian.Uint32(b))
	// A pair takes ten bytes at least: nothing is allocated for a count that
	// cannot be true.
	if n*10 > uint64(len(b)-4) {
		return false
	}
	room(int(n))
	sizes, text := b[4:4+8*n], b[4+8*n:]
	for ; len(sizes) > 0; sizes = sizes[8:] {
		var name, value string
		var ok bool
		if name, text, ok = cutString(text, binary.LittleEndian.Uint32(sizes)); !ok {
			return false
		}
		if value, text, ok = cutString(text, binary.LittleEndian.Uint32(sizes[4:])); !ok {
			return false
		}
		add(name, value)
	}
	return len(text) == 0
}

// cutString takes n bytes and a NUL off the front of b.
func cutString(b []byte, n uint32) (s string, rest []byte, ok bool) {
	if uint64(n) >= uint64(len(b)) || b[n] != 0 {
		return "", nil, false
	}
	return string(b[:n]), b[n+1:], true
}
