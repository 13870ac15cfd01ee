//go:build wasip1

package main

//go:wasmexport proxy_on_configure
func onConfigure(a, b uint32) uint32 { return called(0, "proxy_on_configure", a, b) }

//go:wasmexport proxy_on_context_create
func onContextCreate(a, b uint32) { called(1, "proxy_on_context_create", a, b) }

//go:wasmexport proxy_on_delete
func onDelete(a uint32) { called(2, "proxy_on_delete", a) }

//go:wasmexport proxy_on_done
func onDone(a uint32) uint32 { return called(3, "proxy_on_done", a) }

//go:wasmexport proxy_on_foreign_function
func onForeignFunction(a, b, c uint32) { called(4, "proxy_on_foreign_function", a, b, c) }

//go:wasmexport proxy_on_http_call_response
func onHttpCallResponse(a, b, c, d, e uint32) {
	called(5, "proxy_on_http_call_response", a, b, c, d, e)
}

//go:wasmexport proxy_on_log
func onLog(a uint32) { called(6, "proxy_on_log", a) }

//go:wasmexport proxy_on_request_body
func onRequestBody(a, b, c uint32) uint32 { return called(7, "proxy_on_request_body", a, b, c) }

//go:wasmexport proxy_on_request_headers
func onRequestHeaders(a, b, c uint32) uint32 { return called(8, "proxy_on_request_headers", a, b, c) }

//go:wasmexport proxy_on_request_trailers
func onRequestTrailers(a, b uint32) uint32 { return called(9, "proxy_on_request_trailers", a, b) }

//go:wasmexport proxy_on_response_body
func onResponseBody(a, b, c uint32) uint32 { return called(10, "proxy_on_response_body", a, b, c) }

//go:wasmexport proxy_on_response_headers
func onResponseHeaders(a, b, c uint32) uint32 {
	return called(11, "proxy_on_response_headers", a, b, c)
}

//go:wasmexport proxy_on_response_trailers
func onResponseTrailers(a, b uint32) uint32 { return called(12, "proxy_on_response_trailers", a, b) }

//go:wasmexport proxy_on_tick
func onTick(a uint32) { called(13, "proxy_on_tick", a) }

//go:wasmexport proxy_on_vm_start
func onVmStart(a, b uint32) uint32 { return called(14, "proxy_on_vm_start", a, b) }
