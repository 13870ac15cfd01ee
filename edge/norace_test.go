//go:build !race

package edge

// raced tells whether the race detector is on, under which pools forget.
const raced = false
