//go:build !race

package encode

// raced tells that the race detector's own work is in all figures.
const raced = false
