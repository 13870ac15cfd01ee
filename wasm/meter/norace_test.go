//go:build !race

package meter

// raced tells whether the race detector is on, under which compiling a large
// module takes minutes.
const raced = false
