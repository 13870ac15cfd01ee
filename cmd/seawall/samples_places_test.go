package main

import (
	"encoding/binary"
	"slices"
	"testing"
)

// placesFile writes a database of places in the MaxMind format that parts the
// addresses of IPv4 in four: 0, 64, 128 and 192 are their first numbers.
func placesFile(t testing.TB) string {
	t.Helper()
	places := []struct {
		country string
		asn     uint64
	}{{"AT", 64500}, {"FR", 64500}, {"KP", 64500}, {"DE", 64501}}
	var data []byte
	var at []int
	for _, p := range places {
		at = append(at, len(data))
		data = slices.Concat(data, mapOf(2),
			textOf("country"), mapOf(1), textOf("iso_code"), textOf(p.country),
			textOf("autonomous_system_number"), numberOf(6, p.asn))
	}
	// Three nodes of two records; a record past them is where data begins,
	// behind sixteen zero bytes.
	var tree []byte
	for _, record := range []int{1, 2, 3 + 16 + at[0], 3 + 16 + at[1], 3 + 16 + at[2], 3 + 16 + at[3]} {
		tree = append(tree, byte(record>>16), byte(record>>8), byte(record))
	}
	file := slices.Concat(tree, make([]byte, 16), data, []byte("\xab\xcd\xefMaxMind.com"), mapOf(9),
		textOf("node_count"), numberOf(6, 3), textOf("record_size"), numberOf(5, 24), textOf("ip_version"), numberOf(5, 4),
		textOf("binary_format_major_version"), numberOf(5, 2), textOf("binary_format_minor_version"), numberOf(5, 0),
		textOf("build_epoch"), numberOf(9, 1_700_000_000), textOf("database_type"), textOf("Test"),
		textOf("languages"), []byte{0, 4}, textOf("description"), mapOf(0))
	return written(t, "places.mmdb", file)
}

func mapOf(n int) []byte     { return []byte{byte(7<<5 | n)} }
func textOf(s string) []byte { return append([]byte{byte(2<<5 | len(s))}, s...) }

// numberOf is a number of a type; types above 7 have a byte of their own.
func numberOf(kind int, n uint64) []byte {
	digits := binary.BigEndian.AppendUint64(nil, n)
	for len(digits) > 0 && digits[0] == 0 {
		digits = digits[1:]
	}
	if kind > 7 {
		return append([]byte{byte(len(digits)), byte(kind - 7)}, digits...)
	}
	return append([]byte{byte(kind<<5 | len(digits))}, digits...)
}
