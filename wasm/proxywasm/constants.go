package proxywasm

// Status codes of host functions.
const (
	statusOK              = 0
	statusNotFound        = 1
	statusBadArgument     = 2
	statusParseFailure    = 4
	statusInvalidMemory   = 6
	statusCASMismatch     = 8
	statusInternalFailure = 10
	statusUnimplemented   = 12
)

// Buffers.
const (
	bufferRequestBody  = 0
	bufferResponseBody = 1
	bufferDownstream   = 2
	bufferUpstream     = 3
	bufferCallBody     = 4
	bufferGRPC         = 5
	bufferVMConfig     = 6
	bufferPluginConfig = 7
	bufferForeignArgs  = 8
)

// Maps.
const (
	mapRequestHeader   = 0
	mapRequestTrailer  = 1
	mapResponseHeader  = 2
	mapResponseTrailer = 3
	mapGRPCInitial     = 4
	mapGRPCTrailing    = 5
	mapCallHeader      = 6
	mapCallTrailer     = 7
)

// Streams.
const (
	streamRequest    = 0
	streamResponse   = 1
	streamDownstream = 2
	streamUpstream   = 3
)

// What header callbacks of the C++ SDK may return besides CONTINUE and PAUSE,
// and what has to pass on the header too.
const (
	actionContinue       = 0
	actionContinueAndEnd = 2
)

// levelCritical is the highest log level; metricHistogram the last kind.
const (
	levelCritical   = 5
	metricHistogram = 2
)
