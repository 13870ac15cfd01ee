// Package wasm runs customers' programs at set points of a request, within
// limits.
//
// It is not built yet.
package wasm
