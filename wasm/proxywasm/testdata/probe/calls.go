//go:build wasip1

package main

import (
	"fmt"
	"runtime"
)

//go:wasmimport env emscripten_notify_memory_growth
func callEmscriptenNotifyMemoryGrowth(a uint32)

//go:wasmimport env pthread_equal
func callPthreadEqual(a uint32, b uint32) uint32

//go:wasmimport env proxy_log
func callLog(a uint32, b uint32, c uint32) uint32

//go:wasmimport env proxy_get_log_level
func callGetLogLevel(a uint32) uint32

//go:wasmimport env proxy_get_current_time_nanoseconds
func callGetCurrentTimeNanoseconds(a uint32) uint32

//go:wasmimport env proxy_set_tick_period_milliseconds
func callSetTickPeriodMilliseconds(a uint32) uint32

//go:wasmimport env proxy_get_header_map_size
func callGetHeaderMapSize(a uint32, b uint32) uint32

//go:wasmimport env proxy_get_header_map_pairs
func callGetHeaderMapPairs(a uint32, b uint32, c uint32) uint32

//go:wasmimport env proxy_set_header_map_pairs
func callSetHeaderMapPairs(a uint32, b uint32, c uint32) uint32

//go:wasmimport env proxy_get_header_map_value
func callGetHeaderMapValue(a uint32, b uint32, c uint32, d uint32, e uint32) uint32

//go:wasmimport env proxy_add_header_map_value
func callAddHeaderMapValue(a uint32, b uint32, c uint32, d uint32, e uint32) uint32

//go:wasmimport env proxy_replace_header_map_value
func callReplaceHeaderMapValue(a uint32, b uint32, c uint32, d uint32, e uint32) uint32

//go:wasmimport env proxy_remove_header_map_value
func callRemoveHeaderMapValue(a uint32, b uint32, c uint32) uint32

//go:wasmimport env proxy_get_buffer_bytes
func callGetBufferBytes(a uint32, b uint32, c uint32, d uint32, e uint32) uint32

//go:wasmimport env proxy_set_buffer_bytes
func callSetBufferBytes(a uint32, b uint32, c uint32, d uint32, e uint32) uint32

//go:wasmimport env proxy_get_buffer_status
func callGetBufferStatus(a uint32, b uint32, c uint32) uint32

//go:wasmimport env proxy_send_local_response
func callSendLocalResponse(a uint32, b uint32, c uint32, d uint32, e uint32, f uint32, g uint32, h uint32) uint32

//go:wasmimport env proxy_continue_stream
func callContinueStream(a uint32) uint32

//go:wasmimport env proxy_close_stream
func callCloseStream(a uint32) uint32

//go:wasmimport env proxy_set_effective_context
func callSetEffectiveContext(a uint32) uint32

//go:wasmimport env proxy_done
func callDone() uint32

//go:wasmimport env proxy_get_property
func callGetProperty(a uint32, b uint32, c uint32, d uint32) uint32

//go:wasmimport env proxy_set_property
func callSetProperty(a uint32, b uint32, c uint32, d uint32) uint32

//go:wasmimport env proxy_call_foreign_function
func callCallForeignFunction(a uint32, b uint32, c uint32, d uint32, e uint32, f uint32) uint32

//go:wasmimport env proxy_http_call
func callHttpCall(a uint32, b uint32, c uint32, d uint32, e uint32, f uint32, g uint32, h uint32, i uint32, j uint32) uint32

//go:wasmimport env proxy_get_status
func callGetStatus(a uint32, b uint32, c uint32) uint32

//go:wasmimport env proxy_get_shared_data
func callGetSharedData(a uint32, b uint32, c uint32, d uint32, e uint32) uint32

//go:wasmimport env proxy_set_shared_data
func callSetSharedData(a uint32, b uint32, c uint32, d uint32, e uint32) uint32

//go:wasmimport env proxy_define_metric
func callDefineMetric(a uint32, b uint32, c uint32, d uint32) uint32

//go:wasmimport env proxy_increment_metric
func callIncrementMetric(a uint32, b int64) uint32

//go:wasmimport env proxy_record_metric
func callRecordMetric(a uint32, b int64) uint32

//go:wasmimport env proxy_get_metric
func callGetMetric(a uint32, b uint32) uint32

//go:wasmimport env proxy_grpc_call
func callGrpcCall(a uint32, b uint32, c uint32, d uint32, e uint32, f uint32, g uint32, h uint32, i uint32, j uint32, k uint32, l uint32) uint32

//go:wasmimport env proxy_grpc_stream
func callGrpcStream(a uint32, b uint32, c uint32, d uint32, e uint32, f uint32, g uint32, h uint32, i uint32) uint32

//go:wasmimport env proxy_grpc_send
func callGrpcSend(a uint32, b uint32, c uint32, d uint32) uint32

//go:wasmimport env proxy_grpc_cancel
func callGrpcCancel(a uint32) uint32

//go:wasmimport env proxy_grpc_close
func callGrpcClose(a uint32) uint32

//go:wasmimport env proxy_register_shared_queue
func callRegisterSharedQueue(a uint32, b uint32, c uint32) uint32

//go:wasmimport env proxy_resolve_shared_queue
func callResolveSharedQueue(a uint32, b uint32, c uint32, d uint32, e uint32) uint32

//go:wasmimport env proxy_enqueue_shared_queue
func callEnqueueSharedQueue(a uint32, b uint32, c uint32) uint32

//go:wasmimport env proxy_dequeue_shared_queue
func callDequeueSharedQueue(a uint32, b uint32, c uint32) uint32

//go:wasmimport env proxy_continue_request
func callContinueRequest() uint32

//go:wasmimport env proxy_continue_response
func callContinueResponse() uint32

//go:wasmimport env proxy_clear_route_cache
func callClearRouteCache() uint32

//go:wasmimport env proxy_get_configuration
func callGetConfiguration(a uint32, b uint32) uint32

// make makes a call and tells its status and, when that is OK, its outputs.
func (args *arguments) make(name string) string {
	for _, group := range []func(string) (uint32, bool){args.node, args.content, args.streams, args.unsupported} {
		status, ok := group(name)
		if !ok {
			continue
		}
		text := fmt.Sprint(status)
		if status == 0 {
			for _, out := range args.outs {
				text += " " + out()
			}
		}
		runtime.KeepAlive(args.keep)
		return text
	}
	return "no such call"
}

// node makes the calls about the node: logs, time, properties, shared data, metrics; false when name is none of them.
func (args *arguments) node(name string) (status uint32, ok bool) {
	switch name {
	case "emscripten_notify_memory_growth":
		a := args.i()
		callEmscriptenNotifyMemoryGrowth(a)
	case "pthread_equal":
		a := args.i()
		b := args.i()
		status = callPthreadEqual(a, b)
	case "proxy_log":
		a := args.i()
		bp, bn := args.b()
		status = callLog(a, bp, bn)
	case "proxy_get_log_level":
		a := args.o4()
		status = callGetLogLevel(a)
	case "proxy_get_current_time_nanoseconds":
		a := args.o8()
		status = callGetCurrentTimeNanoseconds(a)
	case "proxy_set_tick_period_milliseconds":
		a := args.i()
		status = callSetTickPeriodMilliseconds(a)
	case "proxy_get_property":
		ap, an := args.b()
		bp, bn := args.d()
		status = callGetProperty(ap, an, bp, bn)
	case "proxy_set_property":
		ap, an := args.b()
		bp, bn := args.b()
		status = callSetProperty(ap, an, bp, bn)
	case "proxy_call_foreign_function":
		ap, an := args.b()
		bp, bn := args.b()
		cp, cn := args.d()
		status = callCallForeignFunction(ap, an, bp, bn, cp, cn)
	case "proxy_get_shared_data":
		ap, an := args.b()
		bp, bn := args.d()
		c := args.o4()
		status = callGetSharedData(ap, an, bp, bn, c)
	case "proxy_set_shared_data":
		ap, an := args.b()
		bp, bn := args.b()
		c := args.i()
		status = callSetSharedData(ap, an, bp, bn, c)
	case "proxy_define_metric":
		a := args.i()
		bp, bn := args.b()
		c := args.o4()
		status = callDefineMetric(a, bp, bn, c)
	case "proxy_increment_metric":
		a := args.i()
		b := args.l()
		status = callIncrementMetric(a, b)
	case "proxy_record_metric":
		a := args.i()
		b := args.l()
		status = callRecordMetric(a, b)
	case "proxy_get_metric":
		a := args.i()
		b := args.o8()
		status = callGetMetric(a, b)
	default:
		return 0, false
	}
	return status, true
}

// unsupported makes the calls that every host may leave out, and those of ABI 0.1.0 alone; false when name is none of them.
func (args *arguments) unsupported(name string) (status uint32, ok bool) {
	switch name {
	case "proxy_grpc_call":
		status = callGrpcCall(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	case "proxy_grpc_stream":
		status = callGrpcStream(0, 0, 0, 0, 0, 0, 0, 0, 0)
	case "proxy_grpc_send":
		status = callGrpcSend(0, 0, 0, 0)
	case "proxy_grpc_cancel":
		status = callGrpcCancel(0)
	case "proxy_grpc_close":
		status = callGrpcClose(0)
	case "proxy_register_shared_queue":
		status = callRegisterSharedQueue(0, 0, 0)
	case "proxy_resolve_shared_queue":
		status = callResolveSharedQueue(0, 0, 0, 0, 0)
	case "proxy_enqueue_shared_queue":
		status = callEnqueueSharedQueue(0, 0, 0)
	case "proxy_dequeue_shared_queue":
		status = callDequeueSharedQueue(0, 0, 0)
	case "proxy_continue_request":
		status = callContinueRequest()
	case "proxy_continue_response":
		status = callContinueResponse()
	case "proxy_clear_route_cache":
		status = callClearRouteCache()
	case "proxy_get_configuration":
		ap, an := args.d()
		status = callGetConfiguration(ap, an)
	default:
		return 0, false
	}
	return status, true
}

// content makes the calls of fields and buffers; false when name is none of them.
func (args *arguments) content(name string) (status uint32, ok bool) {
	switch name {
	case "proxy_get_header_map_size":
		a := args.i()
		b := args.o4()
		status = callGetHeaderMapSize(a, b)
	case "proxy_get_header_map_pairs":
		a := args.i()
		bp, bn := args.d()
		status = callGetHeaderMapPairs(a, bp, bn)
	case "proxy_set_header_map_pairs":
		a := args.i()
		bp, bn := args.b()
		status = callSetHeaderMapPairs(a, bp, bn)
	case "proxy_get_header_map_value":
		a := args.i()
		bp, bn := args.b()
		cp, cn := args.d()
		status = callGetHeaderMapValue(a, bp, bn, cp, cn)
	case "proxy_add_header_map_value":
		a := args.i()
		bp, bn := args.b()
		cp, cn := args.b()
		status = callAddHeaderMapValue(a, bp, bn, cp, cn)
	case "proxy_replace_header_map_value":
		a := args.i()
		bp, bn := args.b()
		cp, cn := args.b()
		status = callReplaceHeaderMapValue(a, bp, bn, cp, cn)
	case "proxy_remove_header_map_value":
		a := args.i()
		bp, bn := args.b()
		status = callRemoveHeaderMapValue(a, bp, bn)
	case "proxy_get_buffer_bytes":
		a := args.i()
		b := args.i()
		c := args.i()
		dp, dn := args.d()
		status = callGetBufferBytes(a, b, c, dp, dn)
	case "proxy_set_buffer_bytes":
		a := args.i()
		b := args.i()
		c := args.i()
		dp, dn := args.b()
		status = callSetBufferBytes(a, b, c, dp, dn)
	case "proxy_get_buffer_status":
		a := args.i()
		b := args.o4()
		c := args.o4()
		status = callGetBufferStatus(a, b, c)
	default:
		return 0, false
	}
	return status, true
}

// streams makes the calls of streams and calls of its own; false when name is none of them.
func (args *arguments) streams(name string) (status uint32, ok bool) {
	switch name {
	case "proxy_send_local_response":
		a := args.i()
		bp, bn := args.b()
		cp, cn := args.b()
		dp, dn := args.b()
		e := args.i()
		status = callSendLocalResponse(a, bp, bn, cp, cn, dp, dn, e)
	case "proxy_continue_stream":
		a := args.i()
		status = callContinueStream(a)
	case "proxy_close_stream":
		a := args.i()
		status = callCloseStream(a)
	case "proxy_set_effective_context":
		a := args.i()
		status = callSetEffectiveContext(a)
	case "proxy_done":
		status = callDone()
	case "proxy_http_call":
		ap, an := args.b()
		bp, bn := args.b()
		cp, cn := args.b()
		dp, dn := args.b()
		e := args.i()
		f := args.o4()
		status = callHttpCall(ap, an, bp, bn, cp, cn, dp, dn, e, f)
	case "proxy_get_status":
		a := args.o4()
		bp, bn := args.d()
		status = callGetStatus(a, bp, bn)
	default:
		return 0, false
	}
	return status, true
}
