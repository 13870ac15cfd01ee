package proxywasm

import "strings"

// hostFuncs returns all functions of the import module env, by name.
func hostFuncs() map[string]*hostFunc {
	funcs := map[string]*hostFunc{
		// Compilers' own: told of grown memory, comparing the one thread.
		"emscripten_notify_memory_growth": {shape: "i", results: returnsNothing, run: succeed},
		"pthread_equal":                   {shape: "ii", run: equal},
	}
	for name, h := range map[string]hostFunc{
		"log":                          {shape: "ib", run: log, counts: true},
		"get_log_level":                {shape: "4", run: logLevel},
		"get_current_time_nanoseconds": {shape: "8", run: currentTime},
		"set_tick_period_milliseconds": {shape: "i", run: setTickPeriod},

		"get_header_map_size":      {shape: "i4", run: mapSize},
		"get_header_map_pairs":     {shape: "id", run: mapPairs},
		"set_header_map_pairs":     {shape: "ib", run: setMapPairs},
		"get_header_map_value":     {shape: "ibd", run: mapValue, counts: true},
		"add_header_map_value":     {shape: "ibb", run: addMapValue, counts: true},
		"replace_header_map_value": {shape: "ibb", run: replaceMapValue, counts: true},
		"remove_header_map_value":  {shape: "ib", run: removeMapValue, counts: true},

		"get_buffer_bytes":  {shape: "iiid", run: bufferBytes},
		"set_buffer_bytes":  {shape: "iiib", run: setBufferBytes},
		"get_buffer_status": {shape: "i44", run: bufferStatus},

		"send_local_response":   {shape: "ibbbi", run: sendLocalResponse},
		"continue_stream":       {shape: "i", run: continueStream},
		"close_stream":          {shape: "i", run: closeStream},
		"set_effective_context": {shape: "i", run: setEffectiveContext},
		"done":                  {shape: "", run: done},

		"get_property":          {shape: "bd", run: property, counts: true},
		"set_property":          {shape: "bb", run: setProperty},
		"call_foreign_function": {shape: "bbd", run: callForeign},

		"http_call":  {shape: "bbbbi4", run: httpCall},
		"get_status": {shape: "4d", run: callStatus},

		"get_shared_data": {shape: "bd4", run: sharedData},
		"set_shared_data": {shape: "bbi", run: setSharedData},

		"define_metric":    {shape: "ib4", run: defineMetric},
		"increment_metric": {shape: "il", run: incrementMetric},
		"record_metric":    {shape: "il", run: recordMetric},
		"get_metric":       {shape: "i8", run: metric},

		// Outside the HTTP subset. The first two had no metadata in 0.1.0.
		"grpc_call":             {shape: args(12), older: []int{10}, run: unimplemented},
		"grpc_stream":           {shape: args(9), older: []int{7}, run: unimplemented},
		"grpc_send":             {shape: args(4), run: unimplemented},
		"grpc_cancel":           {shape: args(1), run: unimplemented},
		"grpc_close":            {shape: args(1), run: unimplemented},
		"register_shared_queue": {shape: args(3), run: unimplemented},
		"resolve_shared_queue":  {shape: args(5), run: unimplemented},
		"enqueue_shared_queue":  {shape: args(3), run: unimplemented},
		"dequeue_shared_queue":  {shape: args(3), run: unimplemented},

		// Of 0.1.0 only.
		"continue_request":  {results: returnsEither, run: continueRequest},
		"continue_response": {results: returnsEither, run: continueResponse},
		"clear_route_cache": {results: returnsEither, run: succeed},
		"get_configuration": {shape: "d", run: configuration},
	} {
		funcs["proxy_"+name] = &h
	}
	return funcs
}

// args is the shape of n parameters that nobody reads.
func args(n int) string { return strings.Repeat(".", n) }

func unimplemented(*guest, *frame) uint32 { return statusUnimplemented }

// succeed is for calls without a meaning here, such as clearing a cache of
// routes when the route is chosen once.
func succeed(*guest, *frame) uint32 { return statusOK }

func equal(_ *guest, f *frame) uint32 {
	if f.num[0] == f.num[1] {
		return 1
	}
	return 0
}
