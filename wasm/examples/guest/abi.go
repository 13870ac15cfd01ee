//go:build wasip1

package guest

import "unsafe"

//go:wasmexport proxy_abi_version_0_2_1
func version() {}

// room is what the node writes its next answer into; it is read before the
// next call. The variable keeps the collector from it.
var room []byte

// at and length are where an answer is and how many bytes it has.
var at, length uint32

// roomKept bounds what is kept between answers.
const roomKept = 16 << 10

//go:wasmexport proxy_on_memory_allocate
func allocate(n uint32) unsafe.Pointer {
	if int(n) > cap(room) || cap(room) > roomKept {
		room = make([]byte, max(n, 512))
	}
	room = room[:max(n, 1)]
	return unsafe.Pointer(&room[0])
}

// taken returns what a call has left, whose status is 0 if it has.
func taken(status uint32) string {
	if status != 0 || length == 0 || int(length) > len(room) {
		return ""
	}
	return string(room[:length])
}

// text is where s begins, and size how long it is. The call that takes both
// keeps it alive.
func text(s string) unsafe.Pointer { return unsafe.Pointer(unsafe.StringData(s)) }

func size(s string) uint32 { return uint32(len(s)) }

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

//go:wasmimport env proxy_remove_header_map_value
func proxyRemoveField(kind uint32, name unsafe.Pointer, nameSize uint32) uint32

//go:wasmimport env proxy_get_property
func proxyGetProperty(path unsafe.Pointer, pathSize uint32, at, size unsafe.Pointer) uint32

//go:wasmimport env proxy_set_property
func proxySetProperty(path unsafe.Pointer, pathSize uint32, value unsafe.Pointer, valueSize uint32) uint32

//go:wasmimport env proxy_send_local_response
func proxyRespond(status uint32, details unsafe.Pointer, detailsSize uint32, body unsafe.Pointer, bodySize uint32,
	fields unsafe.Pointer, fieldsSize, grpc uint32) uint32

//go:wasmimport env proxy_call_foreign_function
func proxyCall(name unsafe.Pointer, nameSize uint32, args unsafe.Pointer, argsSize uint32, at, size unsafe.Pointer) uint32

//go:wasmimport wasi_snapshot_preview1 random_get
func wasiRandom(at unsafe.Pointer, size uint32) uint32
