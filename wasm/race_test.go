//go:build race

package wasm

// raced tells that the race detector's own work is in all figures.
const raced = true
