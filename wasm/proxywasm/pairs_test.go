package proxywasm

import (
	"slices"
	"strings"
	"testing"
)

func TestParsePairs(t *testing.T) {
	for _, tc := range []struct {
		name, in string
		want     []pair
		ok       bool
	}{
		{"nothing", "", nil, true},
		{"a zero byte", "\x00", nil, true},
		{"count of zero", "\x00\x00\x00\x00", nil, true},
		{"two", serialized("a", "1", "", ""), []pair{{"a", "1"}, {"", ""}}, true},
		{"NUL inside", serialized("a", "1\x002"), []pair{{"a", "1\x002"}}, true},
		{"another byte", "\x01", nil, false},
		{"half a count", "\x00\x00", nil, false},
		{"more than counted", serialized("a", "1") + "\x00", nil, false},
		{"less than counted", serialized("a", "1")[:14], nil, false},
		{"no NUL after the name", strings.Replace(serialized("a", "1"), "a\x00", "ab", 1), nil, false},
		{"no NUL after the value", strings.TrimSuffix(serialized("a", "1"), "\x00") + "x", nil, false},
		{"huge count", "\xff\xff\xff\xff" + strings.Repeat("\x00", 100), nil, false},
		{"huge length", "\x01\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xffa\x001\x00", nil, false},
		{"sizes that overlap the text", "\x02\x00\x00\x00" + strings.Repeat("\x00", 18), nil, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, ok := parsePairs([]byte(tc.in))
			if ok != tc.ok || !slices.Equal(got, tc.want) {
				t.Errorf("parse %q: got %q, %v, want %q, %v", tc.in, got, ok, tc.want, tc.ok)
			}
		})
	}
}

func FuzzParsePairs(f *testing.F) {
	f.Add([]byte(serialized("a", "1", "b", "")))
	f.Add([]byte("\xff\xff\xff\x0f\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		pairs, ok := parsePairs(b)
		if !ok {
			return
		}
		again := appendPairs(nil, pairs)
		if len(again) != pairsSize(pairs) {
			t.Fatalf("%q: serialized to %d bytes, want %d", pairs, len(again), pairsSize(pairs))
		}
		// What is well-formed has one form, but for the short empty ones.
		if len(b) >= 4 && string(again) != string(b) {
			t.Fatalf("%q: serialized to %q", b, again)
		}
	})
}
