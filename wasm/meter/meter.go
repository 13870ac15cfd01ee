// Package meter rewrites a WebAssembly module so that it cannot run, recurse
// or grow without bound.
//
// Each function pays for its straight parts when it is entered and each loop
// for its rounds at its head, from a 64-bit global that the host fills (fuel).
// When it falls below zero the code calls an imported function, yield, in
// which the host adds more, looks at its clock, lets others run, or panics,
// which ends the call. Nothing else bounds wazero's compiled code: it is not
// preemptible, and its own check looks at loops alone.
//
// What is paid is an upper bound of the work, never less than it: the longest
// path through a function or a loop's body, each instruction by a weight that
// is about a third of a nanosecond. Instructions that work by length pay by
// length as well, and those that fill, copy and initialize do it in pieces,
// paying for each: no compiled instruction can be interrupted. Growth of
// memory and tables is one piece. Functions that can recurse count their depth
// in a second global.
//
// A host must know: fuel may be far below zero when yield is called, as growth
// is paid for before it is done. A slice is added, never stored, and a debt
// beyond what is left to the call is a reason to end it at once. Guest code that the host calls from within a host function counts its own depth
// further, but each level of it also takes Go stack: the host bounds those.
package meter

import (
	"errors"
	"fmt"
)

// Names the rewritten module uses. A source that uses them is refused.
const (
	ImportModule = "seawall_meter" // the module of the one import added
	Yield        = "yield"         // func(): called when fuel is below zero

	Reserved    = "__seawall_" // begins the name of each export added
	FuelGlobal  = "__seawall_fuel"
	DepthGlobal = "__seawall_depth" // i64, Module.Depth when no guest code runs; below zero after a trap: recursion was the cause
	StartExport = "__seawall_start" // the source's start function, func()
)

// Version names the rewriter for compile caches. It changes with its output.
const Version = "2"

// Limits are what the rewritten module is held to.
type Limits struct {
	Memory uint32 // pages of 64 KiB the memory may reach, at most 65536; 0: 256, that is 16 MiB
	Table  uint32 // elements each table may reach; 0: 65536
	Depth  uint32 // nested calls within guest code, where a call of a large function counts as several (see weigh); 0: 8192
}

func (l Limits) filled() (Limits, error) {
	if l.Memory == 0 {
		l.Memory = 256
	}
	if l.Table == 0 {
		l.Table = 1 << 16
	}
	if l.Depth == 0 {
		l.Depth = 8192
	}
	if l.Memory > 1<<16 {
		return l, fmt.Errorf("meter: a memory limit of %d pages; a memory has at most 65536", l.Memory)
	}
	if l.Table > 1<<24 {
		return l, fmt.Errorf("meter: a table limit of %d elements; at most %d can be held", l.Table, 1<<24)
	}
	return l, nil
}

// Module is a rewritten module.
type Module struct {
	Wasm     []byte   // the rewritten binary
	Globals  []string // exports added, one for each mutable global of the source in index order, for the host to save and restore
	Mutates  bool     // it can change tables, drop segments, or change globals whose values a host cannot store (v128, references): no reset
	Grows    bool     // memory.grow occurs
	HasStart bool     // the start function is no longer run at instantiation but exported as StartExport
	Depth    int64    // the value of DepthGlobal when no guest code runs
}

// errComponent is told for anything but a core module.
var errComponent = errors.New("meter: header, byte 0x6: a component (wasi:http or the like); Seawall runs core modules with the proxy-wasm or http-wasm ABI")

// Rewrite returns source, metered and clamped to l. The source is not kept.
//
// It refuses what wazero with the features below cannot run, or could not be
// bounded, in a sentence with the section and the byte offset: SIMD, bulk
// memory, reference types, multi-value, tail calls, extended constants and
// atomics on a memory that is not shared are taken; shared and 64-bit
// memories, several memories, exceptions, typed function references, garbage
// collection and relaxed SIMD are not.
// A source that it takes may still be invalid in its types, and so is the
// result then: compiling it says so.
func Rewrite(source []byte, l Limits) (*Module, error) { return rewrite(source, l, standard()) }

func rewrite(source []byte, l Limits, c cut) (*Module, error) {
	l, err := l.filled()
	if err != nil {
		return nil, err
	}
	s, err := parse(source)
	if err != nil {
		return nil, err
	}
	if err := s.admit(l); err != nil {
		return nil, err
	}
	if err := s.scanAll(); err != nil {
		return nil, err
	}
	s.countDepth()
	w := &writer{source: s, limits: l, cut: c}
	wasm := w.module()
	return &Module{Wasm: wasm, Globals: w.saved, Mutates: s.mutates, Grows: s.grows, HasStart: s.start.set, Depth: int64(l.Depth)}, nil
}
