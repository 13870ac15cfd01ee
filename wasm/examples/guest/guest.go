//go:build wasip1

// Package guest is what an edge function in Go needs of proxy-wasm 0.2.1. It
// imports nothing but the standard library: copy the folder beside a function
// of your own.
//
// A function exports the callbacks that it wants, and calls what is here
// from them:
//
//	//go:wasmexport proxy_on_configure
//	func configure(_, _ uint32) bool { return guest.Configure(rule) }
//
//	//go:wasmexport proxy_on_request_headers
//	func request(_, _, _ uint32) uint32 { return guest.Continue }
//
//	//go:wasmexport proxy_on_response_headers
//	func response(_, _, _ uint32) uint32 { return guest.Continue }
//
// A callback that is not exported costs nothing. Requests share a machine, and
// its variables: what belongs to a request is no variable. Callbacks never run
// at once.
package guest

import (
	"strconv"
	"strings"
	"time"
	"unsafe"
)

// What a callback returns.
const (
	Continue uint32 = 0 // the message goes on
	Pause    uint32 = 1 // it waits; after Respond, for nothing
)

// Fields is one of the lists of fields that the node shows. Names are
// case-insensitive. A request has ":method", ":path" (with the query),
// ":authority" and ":scheme" too, a response ":status".
type Fields uint32

// The lists, where they can be read. A request's can be changed in its own
// callback, and read in those of its response.
const (
	Request  Fields = 0
	Response Fields = 2
)

// Value returns the field's value, its lines joined by ", "; "" if there is
// none.
func (f Fields) Value(name string) string {
	return taken(proxyGetField(uint32(f), text(name), size(name), unsafe.Pointer(&at), unsafe.Pointer(&length)))
}

// Has reports whether there is such a field.
func (f Fields) Has(name string) bool {
	return proxyGetField(uint32(f), text(name), size(name), unsafe.Pointer(&at), unsafe.Pointer(&length)) == 0
}

// Set makes value the field's only line. It reports false if the node refuses
// it: text that no field may have, or too much.
func (f Fields) Set(name, value string) bool {
	return proxySetField(uint32(f), text(name), size(name), text(value), size(value)) == 0
}

// Add gives the field one more line.
func (f Fields) Add(name, value string) bool {
	return proxyAddField(uint32(f), text(name), size(name), text(value), size(value)) == 0
}

// Remove takes all lines of the field away.
func (f Fields) Remove(name string) { proxyRemoveField(uint32(f), text(name), size(name)) }

// Cookie returns the value of the request's first cookie of this name.
func Cookie(name string) (value string, found bool) {
	for pair := range strings.SplitSeq(Request.Value("cookie"), ";") {
		n, v, _ := strings.Cut(strings.TrimSpace(pair), "=")
		if n == name {
			return v, true
		}
	}
	return "", false
}

// Target returns the request's path and its query, which begins with "?" or is
// empty.
func Target() (path, query string) {
	path = Request.Value(":path")
	if i := strings.IndexByte(path, '?'); i >= 0 {
		return path[:i], path[i:]
	}
	return path, ""
}

// Property returns one of the node's properties, as "seawall.geo.country".
func Property(path string) (value string, found bool) {
	status := proxyGetProperty(text(path), size(path), unsafe.Pointer(&at), unsafe.Pointer(&length))
	return taken(status), status == 0
}

// Number returns a property that is a number.
func Number(path string) (n int64, found bool) {
	b, found := Property(path)
	if !found || len(b) != 8 {
		return 0, false
	}
	for i := 7; i >= 0; i-- {
		n = n<<8 | int64(b[i])
	}
	return n, true
}

// SetProperty changes a property, as "seawall.cache.key". It reports false if
// there is none of the name, or the node refuses the value.
func SetProperty(path, value string) bool {
	return proxySetProperty(text(path), size(path), text(value), size(value)) == 0
}

// Respond answers instead of the node. The fields are names, each with its
// value behind it. A callback returns what Respond returns.
func Respond(status int, body string, fields ...string) uint32 {
	list := Pairs(fields...)
	proxyRespond(uint32(status), nil, 0, text(body), size(body), text(list), size(list), ^uint32(0))
	return Pause
}

// Call has the node do what it does for functions, as "seawall.geo". The
// arguments are what Pairs makes, or whatever else it is said to take. It is
// not ok when the node has nothing of the name, or refuses the arguments.
func Call(name, args string) (result string, ok bool) {
	status := proxyCall(text(name), size(name), text(args), size(args), unsafe.Pointer(&at), unsafe.Pointer(&length))
	return taken(status), status == 0
}

// Configuration is the text that the function was configured with.
func Configuration() string {
	const pluginConfiguration = 7
	return taken(proxyGetBuffer(pluginConfiguration, 0, ^uint32(0)>>1, unsafe.Pointer(&at), unsafe.Pointer(&length)))
}

// Configure gives rule each line of the configuration that is neither empty
// nor a comment (#). An error ends it: it is logged with the number of its
// line, and Configure returns false, which proxy_on_configure returns to have
// the node refuse the function.
func Configure(rule func(line string) error) bool {
	n := 0
	for line := range strings.Lines(Configuration()) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if err := rule(line); err != nil {
			return Refuse("line " + strconv.Itoa(n) + ": " + err.Error() + ": " + line)
		}
	}
	return true
}

// Refuse logs why a configuration is none, and returns false.
func Refuse(why string) bool {
	Log(Error, why)
	return false
}

// Level is how much a line of the log matters.
type Level uint32

// The levels.
const (
	Debug Level = 1
	Info  Level = 2
	Warn  Level = 3
	Error Level = 4
)

// Log writes a line to the node's log.
func Log(level Level, line string) { proxyLog(uint32(level), text(line), size(line)) }

// Now is the time, by the node's clock.
func Now() time.Time { return time.Now() }

// Random returns 64 bits that nobody can foresee. A machine that is reset for
// each request repeats what a generator of its own would give; this does not.
func Random() uint64 {
	var n uint64
	wasiRandom(unsafe.Pointer(&n), 8)
	return n
}
