//go:build content

package main

import (
	"strings"
	"unsafe"
)

//go:wasmimport env proxy_set_buffer_bytes
func setBuffer(kind, start, size uint32, from unsafe.Pointer, length uint32) uint32

//go:wasmexport proxy_on_response_body
func onResponseBody(_, size, _ uint32) uint32 {
	for _, l := range lines {
		if l[0] != "upper" || size == 0 {
			continue
		}
		var at unsafe.Pointer
		var length uint32
		if getBuffer(1, 0, size, unsafe.Pointer(&at), unsafe.Pointer(&length)) == 0 {
			p, n := bytesOf(strings.ToUpper(taken(at, length)))
			setBuffer(1, 0, size, p, n)
		}
	}
	return 0
}

//go:wasmexport proxy_on_request_body
func onRequestBody(_, size, _ uint32) uint32 {
	for _, l := range lines {
		if l[0] != "deny" || size == 0 {
			continue
		}
		var at unsafe.Pointer
		var length uint32
		if getBuffer(0, 0, size, unsafe.Pointer(&at), unsafe.Pointer(&length)) == 0 && strings.Contains(taken(at, length), l[1]) {
			return say(403, "not this\n")
		}
	}
	return 0
}
