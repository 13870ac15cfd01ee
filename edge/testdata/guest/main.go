// Command guest is an edge function for tests: its configuration says, line by
// line, what it does with a request and its response.
//
//	request NAME VALUE      sets a field (":path" and its like too)
//	drop NAME               takes a field away
//	query MARK FIELD VALUE  sets a field where the path has MARK
//	property PATH VALUE     sets a property, at the request
//	response NAME VALUE     sets a field of the response
//	origin PATH VALUE       sets a property, at the response
//	seconds PATH N          as origin, with an integer of 8 bytes
//	answer STATUS BODY      answers
//	need NAME               answers 401 unless the field is there
//	deny MARK               answers 403 where the content has MARK; as upper
//	upper                   puts the response's content in upper case; only
//	                        when built with the tag "content"
//	trap request|response MARK  breaks down where the path has MARK
package main

import (
	"encoding/binary"
	"strconv"
	"strings"
	"unsafe"
)

//go:wasmimport env proxy_get_buffer_bytes
func getBuffer(kind, start, size uint32, to, length unsafe.Pointer) uint32

//go:wasmimport env proxy_get_header_map_value
func getField(kind uint32, name unsafe.Pointer, nameLength uint32, to, length unsafe.Pointer) uint32

//go:wasmimport env proxy_replace_header_map_value
func setField(kind uint32, name unsafe.Pointer, nameLength uint32, value unsafe.Pointer, valueLength uint32) uint32

//go:wasmimport env proxy_remove_header_map_value
func removeField(kind uint32, name unsafe.Pointer, nameLength uint32) uint32

//go:wasmimport env proxy_set_property
func setProperty(path unsafe.Pointer, pathLength uint32, value unsafe.Pointer, valueLength uint32) uint32

//go:wasmimport env proxy_send_local_response
func answer(status uint32, details unsafe.Pointer, detailsLength uint32, body unsafe.Pointer, bodyLength uint32,
	fields unsafe.Pointer, fieldsLength uint32, grpc uint32) uint32

func main() {}

//go:wasmexport proxy_abi_version_0_2_1
func version() {}

var kept = map[*byte][]byte{}

//go:wasmexport proxy_on_memory_allocate
func allocate(size uint32) unsafe.Pointer {
	room := make([]byte, max(1, size))
	kept[&room[0]] = room
	return unsafe.Pointer(&room[0])
}

// taken returns what the host wrote to memory it had asked for.
func taken(at unsafe.Pointer, length uint32) string {
	if at == nil || length == 0 {
		return ""
	}
	text := string(unsafe.Slice((*byte)(at), length))
	delete(kept, (*byte)(at))
	return text
}

func bytesOf(s string) (unsafe.Pointer, uint32) {
	return unsafe.Pointer(unsafe.StringData(s)), uint32(len(s))
}

func field(kind uint32, name string) (string, bool) {
	var at unsafe.Pointer
	var length uint32
	p, n := bytesOf(name)
	if getField(kind, p, n, unsafe.Pointer(&at), unsafe.Pointer(&length)) != 0 {
		return "", false
	}
	return taken(at, length), true
}

func set(kind uint32, name, value string) {
	p, n := bytesOf(name)
	v, m := bytesOf(value)
	setField(kind, p, n, v, m)
}

func property(path, value string) {
	p, n := bytesOf(strings.ReplaceAll(path, ".", "\x00"))
	v, m := bytesOf(value)
	setProperty(p, n, v, m)
}

func say(status int, body string) uint32 {
	p, n := bytesOf(body)
	answer(uint32(status), nil, 0, p, n, nil, 0, 0)
	return 1
}

var lines [][]string

//go:wasmexport proxy_on_configure
func configure(_, size uint32) uint32 {
	var at unsafe.Pointer
	var length uint32
	lines = nil
	if size > 0 && getBuffer(7, 0, size, unsafe.Pointer(&at), unsafe.Pointer(&length)) == 0 {
		for line := range strings.Lines(taken(at, length)) {
			lines = append(lines, strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 3))
		}
	}
	return 1
}

//go:wasmexport proxy_on_request_headers
func onRequest(_, _, _ uint32) uint32 {
	for _, l := range lines {
		switch l[0] {
		case "request":
			set(0, l[1], l[2])
		case "query":
			path, _ := field(0, ":path")
			if name, value, ok := strings.Cut(l[2], " "); ok && strings.Contains(path, l[1]) {
				set(0, name, value)
			}
		case "drop":
			p, n := bytesOf(l[1])
			removeField(0, p, n)
		case "property":
			property(l[1], l[2])
		case "answer":
			status, _ := strconv.Atoi(l[1])
			return say(status, l[2])
		case "need":
			if _, ok := field(0, l[1]); !ok {
				return say(401, "who are you?\n")
			}
		case "trap":
			if path, _ := field(0, ":path"); l[1] == "request" && strings.Contains(path, l[2]) {
				panic("as configured")
			}
		}
	}
	return 0
}

//go:wasmexport proxy_on_response_headers
func onResponse(_, _, _ uint32) uint32 {
	for _, l := range lines {
		switch l[0] {
		case "response":
			set(2, l[1], l[2])
		case "origin":
			property(l[1], l[2])
		case "seconds":
			n, _ := strconv.Atoi(l[2])
			property(l[1], string(binary.LittleEndian.AppendUint64(nil, uint64(n))))
		case "trap":
			if path, _ := field(0, ":path"); l[1] == "response" && strings.Contains(path, l[2]) {
				panic("as configured")
			}
		}
	}
	return 0
}
