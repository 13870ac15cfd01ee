//go:build !linux

package main

// besides is for the benchmark that needs the clock of another process.
func besides() bool { return false }
