//go:build wasip1

// Command headers is an edge function in Go, by hand and without an SDK
// (proxy-wasm 0.2.1): it sets response fields, and lets pages of named origins
// read responses (CORS). Each line of its configuration is
//
//	Name: value                   a field that every response is to have
//	cors: https://a https://b     origins that may read responses; * is every one
//
// Build it with
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o headers.wasm ./wasm/examples/headers
package main

import (
	"strings"
	"unsafe"
)

// rules are the configuration. They are set once, when a machine starts, and
// every request of the machine reads them.
var (
	fields  [][2]string // name and value
	origins []string
)

// main is not run: the node calls what is exported.
func main() {}

//go:wasmexport proxy_abi_version_0_2_1
func version() {}

// configure reads the configuration. It returns false for one that it does not
// understand: the node then refuses the function, and says what was logged.
//
//go:wasmexport proxy_on_configure
func configure(_, size uint32) bool {
	for text := range strings.Lines(pluginConfiguration(size)) {
		text = strings.TrimSpace(text)
		if text == "" {
			continue
		}
		name, value, ok := strings.Cut(text, ":")
		name, value = strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)
		switch {
		case !ok || name == "" || strings.ContainsAny(name, " \t"):
			logError("not Name: value: " + text)
			return false
		case name == "cors":
			origins = append(origins, strings.Fields(value)...)
		default:
			fields = append(fields, [2]string{name, value})
		}
	}
	return true
}

// responseHeaders runs for every response, hits and misses alike.
//
//go:wasmexport proxy_on_response_headers
func responseHeaders(_, _, _ uint32) uint32 {
	for _, f := range fields {
		setResponse(f[0], f[1])
	}
	if len(origins) > 0 {
		allow(requestField("origin"))
	}
	return actionContinue
}

// allow lets a page of this origin read the response, if it may. What is
// answered depends on the origin, so caches must know (Vary).
func allow(origin string) {
	for _, o := range origins {
		if o == "*" {
			setResponse("access-control-allow-origin", "*")
			return
		}
	}
	addResponse("vary", "Origin")
	for _, o := range origins {
		if origin == o {
			setResponse("access-control-allow-origin", origin)
		}
	}
}

// What follows is the ABI: numbers, imports, and the memory that the node
// writes into.

const (
	actionContinue  = 0
	levelError      = 4
	mapRequest      = 0
	mapResponse     = 2
	bufferPluginCfg = 7
)

//go:wasmimport env proxy_log
func proxyLog(level uint32, text unsafe.Pointer, size uint32) uint32

//go:wasmimport env proxy_get_buffer_bytes
func proxyGetBuffer(kind, start, most uint32, at, size unsafe.Pointer) uint32

//go:wasmimport env proxy_get_header_map_value
func proxyGetField(kind uint32, name unsafe.Pointer, nameSize uint32, at, size unsafe.Pointer) uint32

//go:wasmimport env proxy_replace_header_map_value
func proxySetField(kind uint32, name unsafe.Pointer, nameSize uint32, value unsafe.Pointer, valueSize uint32) uint32

//go:wasmimport env proxy_add_header_map_value
func proxyAddField(kind uint32, name unsafe.Pointer, nameSize uint32, value unsafe.Pointer, valueSize uint32) uint32

// room is what the node writes its next answer into. The variable keeps the
// collector from it until the answer was read.
var room []byte

//go:wasmexport proxy_on_memory_allocate
func allocate(size uint32) unsafe.Pointer {
	room = make([]byte, max(size, 1))
	return unsafe.Pointer(&room[0])
}

// answer is the text that a host call has left, which has a status of 0 if it
// has. The node writes where it is, an address of 32 bits, and its size.
func answer(status, size uint32) string {
	if status != 0 || size == 0 {
		return ""
	}
	return string(room[:size])
}

func pluginConfiguration(most uint32) string {
	var at, size uint32
	status := proxyGetBuffer(bufferPluginCfg, 0, most, unsafe.Pointer(&at), unsafe.Pointer(&size))
	return answer(status, size)
}

func requestField(name string) string {
	var at, size uint32
	status := proxyGetField(mapRequest, pointer(name), uint32(len(name)), unsafe.Pointer(&at), unsafe.Pointer(&size))
	return answer(status, size)
}

func setResponse(name, value string) {
	proxySetField(mapResponse, pointer(name), uint32(len(name)), pointer(value), uint32(len(value)))
}

func addResponse(name, value string) {
	proxyAddField(mapResponse, pointer(name), uint32(len(name)), pointer(value), uint32(len(value)))
}

func logError(text string) { proxyLog(levelError, pointer(text), uint32(len(text))) }

// pointer is where a text begins; the call that takes it keeps it alive.
func pointer(s string) unsafe.Pointer { return unsafe.Pointer(unsafe.StringData(s)) }
