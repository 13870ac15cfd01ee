//go:build wasip1

// Probe is a proxy-wasm guest that makes the host calls of a script. The test
// host passes the script through test.script, tells through test.note what
// each callback returns, and gets the calls' outcomes through test.result.
//
// A line of the script is a call: callback, function and arguments, parted by
// tabs. An argument is a letter and a value: i and l are integers, s is a
// string in hexadecimal, p an address and a length.
package main

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"unsafe"
)

func main() {}

//go:wasmimport test note
func note(callback, a, b, c, d, e uint32) uint32

//go:wasmimport test script
func script(p unsafe.Pointer, n uint32) uint32

//go:wasmimport test result
func result(p unsafe.Pointer, n uint32)

// given has what the host was given memory for, so that it is not collected.
var given [][]byte

//go:wasmexport proxy_abi_version_0_2_1
func version() {}

//go:wasmexport proxy_on_memory_allocate
func allocate(n uint32) uint32 {
	b := make([]byte, n)
	given = append(given, b)
	return uint32(uintptr(unsafe.Pointer(&b[0])))
}

var lines []string

// called runs the script's calls for a callback and returns what the callback
// shall return.
func called(index uint32, name string, args ...uint32) uint32 {
	if lines == nil {
		b := make([]byte, script(nil, 0)+1)
		n := script(unsafe.Pointer(&b[0]), uint32(len(b)))
		lines = strings.Split(string(b[:n]), "\n")
	}
	var a [5]uint32
	copy(a[:], args)
	r := note(index, a[0], a[1], a[2], a[3], a[4])
	for _, line := range lines {
		if words := strings.Split(line, "\t"); words[0] == name {
			c := arguments{words: words[2:]}
			text := c.make(words[1])
			result(unsafe.Pointer(unsafe.StringData(text)), uint32(len(text)))
		}
	}
	return r
}

// arguments are those of one call. Places of outputs are added to them.
type arguments struct {
	words []string
	keep  [][]byte
	outs  []func() string
}

func (a *arguments) next() string {
	w := a.words[0]
	a.words = a.words[1:]
	return w
}

func (a *arguments) i() uint32 {
	v, _ := strconv.ParseInt(a.next()[1:], 10, 64)
	return uint32(v)
}

func (a *arguments) l() int64 {
	v, _ := strconv.ParseInt(a.next()[1:], 10, 64)
	return v
}

// b is the address and length of a string.
func (a *arguments) b() (p, n uint32) {
	w := a.next()
	if w[0] == 'p' {
		fmt.Sscanf(w, "p%d,%d", &p, &n)
		return p, n
	}
	b, _ := hex.DecodeString(w[1:])
	if len(b) == 0 {
		return 0, 0
	}
	a.keep = append(a.keep, b)
	return uint32(uintptr(unsafe.Pointer(&b[0]))), uint32(len(b))
}

// place gives the address of an output, and whether the script chose it.
func (a *arguments) place(p unsafe.Pointer) (uint32, bool) {
	if len(a.words) > 0 && a.words[0][0] == 'p' {
		q, _ := a.b()
		return q, true
	}
	return uint32(uintptr(p)), false
}

func (a *arguments) o4() uint32 {
	v := new(uint32)
	p, chosen := a.place(unsafe.Pointer(v))
	if !chosen {
		a.outs = append(a.outs, func() string { return fmt.Sprint(*v) })
	}
	return p
}

func (a *arguments) o8() uint32 {
	v := new(uint64)
	p, chosen := a.place(unsafe.Pointer(v))
	if !chosen {
		a.outs = append(a.outs, func() string { return fmt.Sprint(*v) })
	}
	return p
}

func (a *arguments) d() (p, n uint32) {
	v := new([2]uint32)
	a.outs = append(a.outs, func() string {
		if v[1] == 0 {
			return `""`
		}
		return strconv.Quote(string(unsafe.Slice((*byte)(unsafe.Pointer(uintptr(v[0]))), v[1])))
	})
	p, _ = a.place(unsafe.Pointer(&v[0]))
	n, _ = a.place(unsafe.Pointer(&v[1]))
	return p, n
}
