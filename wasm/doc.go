// Package wasm runs customers' programs at set points of a request, within
// limits.
//
// A Host holds one wazero runtime. Load makes a Function of a module: its ABI
// is recognised (wasm/proxywasm, wasm/httpwasm), its imports are checked one
// by one, its code is rewritten to pay for what it does (wasm/meter), it is
// compiled, started and asked a synthetic request before it serves. A Chain
// is the functions attached at one place of a site; a Run is one exchange's
// way through it.
//
// A machine is one instance of a module with its lock. In shared mode many
// exchanges have contexts in one machine; in reset mode a machine serves one
// exchange at a time and gets its memory and globals back after it.
//
// Locks, in the order in which they are taken: machine.mu, then any one of
// Function.mu, Function.pool.mu, Function.shared.mu, breaker.mu, which are
// never held while guest code runs or another lock is taken.
package wasm
