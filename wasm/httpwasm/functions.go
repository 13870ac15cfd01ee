package httpwasm

import (
	"fmt"
	"strings"

	"seawall/wasm/abi"

	"github.com/tetratelabs/wazero/api"
)

// kinds of header functions.
const (
	ofRequest = iota
	ofResponse
	ofRequestTrailers
	ofResponseTrailers
)

// call is one host call: its guest, the memory and what came on the stack.
type call struct {
	*guest
	memory api.Memory
	stack  []uint64
}

// functions lists the host functions of the ABI.
func functions() []abi.HostFunction {
	table := []struct {
		name            string
		params, results string
		run             func(call)
	}{
		{"enable_features", "i", "i", call.enableFeatures},
		{"get_config", "ii", "i", func(c call) { c.giveText(0, string(c.services.Config())) }},
		{"log_enabled", "i", "i", call.logEnabled},
		{"log", "iii", "", call.log},
		{"get_method", "ii", "i", func(c call) { c.giveText(0, c.exchange().Request.Method) }},
		{"set_method", "ii", "", call.setMethod},
		{"get_uri", "ii", "i", call.uri},
		{"set_uri", "ii", "", call.setURI},
		{"get_protocol_version", "ii", "i", func(c call) { c.giveText(0, c.exchange().Facts.Protocol) }},
		{"get_source_addr", "ii", "i", func(c call) { c.giveText(0, c.exchange().Facts.Source) }},
		{"get_header_names", "iii", "I", call.headerNames},
		{"get_header_values", "iiiii", "I", call.headerValues},
		{"set_header_value", "iiiii", "", func(c call) { c.changeField(false) }},
		{"add_header_value", "iiiii", "", func(c call) { c.changeField(true) }},
		{"remove_header", "iii", "", call.removeField},
		{"read_body", "iii", "I", call.readBody},
		{"write_body", "iii", "", call.writeBody},
		{"get_status_code", "", "i", call.statusCode},
		{"set_status_code", "i", "", call.setStatusCode},
	}
	list := make([]abi.HostFunction, 0, len(table))
	for _, f := range table {
		list = append(list, abi.HostFunction{Name: f.name, Params: types(f.params), Results: types(f.results),
			Call: func(x *abi.Context, m api.Module, stack []uint64) {
				g, ok := x.Guest.(*guest)
				if !ok {
					fail("%s: called before the module was started", f.name)
				}
				f.run(call{g, m.Memory(), stack})
			}})
	}
	return list
}

// types reads "i" as i32 and "I" as i64.
func types(s string) []api.ValueType {
	list := make([]api.ValueType, len(s))
	for i, c := range s {
		list[i] = api.ValueTypeI32
		if c == 'I' {
			list[i] = api.ValueTypeI64
		}
	}
	return list
}

// fail stops the guest.
func fail(format string, args ...any) {
	panic(&abi.Trap{Kind: "argument", Err: fmt.Errorf(format, args...)})
}

// spend charges the call and n bytes copied.
func (c call) spend(n int) {
	if err := c.machine.Spend(n); err != nil {
		panic(err)
	}
}

// i32 is a parameter; the upper half of its slot is garbage.
func (c call) i32(i int) uint32 { return uint32(c.stack[i]) }

// text reads the string whose pointer and length are parameters i and i+1.
func (c call) text(i int) string { return string(c.bytes(i)) }

// bytes is text without a copy: valid until the guest runs on.
func (c call) bytes(i int) []byte {
	n := c.i32(i + 1)
	if int64(n) > int64(c.services.FieldLimit()) {
		fail("a field of %d bytes; the limit is %d", n, c.services.FieldLimit())
	}
	return c.view(c.i32(i), n)
}

func (c call) view(at, n uint32) []byte {
	c.spend(int(n))
	if n == 0 {
		return nil
	}
	b, ok := c.memory.Read(at, n)
	if !ok {
		fail("%d bytes at %#x are not in memory", n, at)
	}
	return b
}

// giveText writes v to the buffer and limit in parameters i and i+1, if it
// fits, and returns its length.
func (c call) giveText(i int, v string) {
	c.put(i, v)
	c.stack[0] = uint64(uint32(len(v)))
}

func (c call) put(i int, v string) {
	if limit := c.i32(i + 1); uint64(len(v)) > uint64(limit) || len(v) == 0 {
		c.spend(0)
		return
	}
	c.spend(len(v))
	if !c.memory.WriteString(c.i32(i), v) {
		fail("%d bytes at %#x are not in memory", len(v), c.i32(i))
	}
}

// giveList writes NUL-terminated strings likewise, and returns their number
// and length.
func (c call) giveList(i int, list []string) {
	n := 0
	for _, s := range list {
		n += len(s) + 1
	}
	count := uint64(len(list))<<32 | uint64(uint32(n))
	if limit := c.i32(i + 1); n == 0 || uint64(n) > uint64(limit) {
		c.spend(0)
		c.stack[0] = count
		return
	}
	c.spend(n)
	b, ok := c.memory.Read(c.i32(i), uint32(n))
	if !ok {
		fail("%d bytes at %#x are not in memory", n, c.i32(i))
	}
	for _, s := range list {
		b = b[copy(b, s):]
		b[0], b = 0, b[1:]
	}
	c.stack[0] = count
}

// now is the stream whose callback runs.
func (c call) now() *stream {
	if c.current == nil {
		fail("there is no request during start")
	}
	return c.current
}

func (c call) exchange() *abi.Exchange { return c.now().x }

// beforeNext is for changes of the request.
func (c call) beforeNext(what string) *stream {
	s := c.now()
	if s.asked {
		fail("%s cannot be changed after next", what)
	}
	return s
}

// mayAnswer is for changes of the response: before next it is the guest's
// own, after it the feature is needed.
func (c call) mayAnswer(what string) *stream {
	s := c.now()
	if s.asked && s.features&bufferResponse == 0 {
		fail("%s cannot be changed after next without the feature buffer_response", what)
	}
	return s
}

func (c call) enableFeatures() {
	c.spend(0)
	asked := c.i32(0) & allFeatures
	if s := c.current; s != nil {
		s.features |= asked
		c.stack[0] = uint64(s.features)
		return
	}
	c.features |= asked
	c.stack[0] = uint64(c.features)
}

// logLine is how many bytes of a line are passed on.
const logLine = 4 << 10

// level translates a level of the ABI; false: none.
func level(v uint32) (abi.Level, bool) {
	switch int32(v) {
	case -1:
		return abi.Debug, true
	case 0:
		return abi.Info, true
	case 1:
		return abi.Warn, true
	case 2:
		return abi.Error, true
	}
	return 0, false
}

func (c call) logEnabled() {
	c.spend(0)
	l, ok := level(c.i32(0))
	c.stack[0] = 0
	if ok && l >= c.services.LogLevel() {
		c.stack[0] = 1
	}
}

func (c call) log() {
	l, ok := level(c.i32(0))
	if !ok || l < c.services.LogLevel() {
		c.spend(0)
		return
	}
	text := c.view(c.i32(1), c.i32(2))
	c.services.Log(l, string(text[:min(len(text), logLine)]))
}

func (c call) setMethod() {
	s := c.beforeNext("the method")
	method := c.text(0)
	if !token(method) {
		fail("method %.32q is no token", method)
	}
	s.x.Request.Method, s.x.Request.Changed = method, true
}

func (c call) uri() {
	target := c.exchange().Request.Target
	if target == "" {
		target = "/"
	}
	c.giveText(0, target)
}

func (c call) setURI() {
	s := c.beforeNext("the URI")
	uri := c.text(0)
	if uri == "" || uri[0] == '?' {
		uri = "/" + uri
	}
	if !strings.HasPrefix(uri, "/") {
		fail("URI %.64q does not begin with a slash", uri)
	}
	if strings.ContainsFunc(uri, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '#' }) {
		fail("URI %.64q has characters no request target may have", uri)
	}
	s.x.Request.Target, s.x.Request.Changed = uri, true
}

func (c call) statusCode() {
	c.spend(0)
	s := c.now()
	status := s.status
	if s.asked {
		status = s.x.Response.Status
	}
	if status == 0 {
		status = 200
	}
	c.stack[0] = uint64(status)
}

func (c call) setStatusCode() {
	c.spend(0)
	s := c.mayAnswer("the status code")
	code := c.i32(0)
	if code < 200 || code > 599 {
		fail("status code %d of a final response", code)
	}
	if s.asked {
		s.x.Response.Status, s.x.Response.Changed = int(code), true
		return
	}
	s.status = int(code)
}
