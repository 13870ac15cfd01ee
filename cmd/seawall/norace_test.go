//go:build !race

package main

// raced tells whether the race detector is on, under which compiling a Go
// guest takes most of a minute.
const raced = false
