package proxywasm

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"seawall/wasm/abi"

	"golang.org/x/net/http/httpguts"
)

// fields is a header or a trailer as guests see it: names in lower case, and
// in headers the pseudo-fields before them.
//
// The values of a message's header may be shared with stored responses, so
// every change puts a new slice in place of the old one.
type fields struct {
	header *http.Header
	// msg has the pseudo-fields of a header, nil in trailers; response tells
	// which.
	msg      *abi.Message
	response bool
}

func newFields(m *abi.Message, side int) fields {
	return fields{header: &m.Header, msg: m, response: side == 1}
}

// pseudoNames are those of this map, in the order of presentation.
func (v fields) pseudoNames() []string {
	switch {
	case v.msg == nil:
		return nil
	case v.response:
		return []string{":status"}
	default:
		return []string{":method", ":path", ":authority", ":scheme"}
	}
}

// pseudo returns the value of a pseudo-field; "" is none.
func (v fields) pseudo(name string) string {
	switch name {
	case ":method":
		return v.msg.Method
	case ":path":
		return v.msg.Target
	case ":authority":
		return v.msg.Authority
	case ":scheme":
		return v.msg.Scheme
	case ":status":
		if v.msg.Status != 0 {
			return strconv.Itoa(v.msg.Status)
		}
	}
	return ""
}

// maxFields is how many pairs a guest may make of a map. Each change counts
// them all.
const maxFields = 1024

// pairs returns all fields: pseudo-fields, then the others by name.
func (v fields) pairs() []pair {
	pairs := make([]pair, 0, v.count())
	for _, name := range v.pseudoNames() {
		if value := v.pseudo(name); value != "" {
			pairs = append(pairs, pair{name, value})
		}
	}
	keys := make([]string, 0, len(*v.header))
	for key := range *v.header {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		name := strings.ToLower(key)
		for _, value := range (*v.header)[key] {
			pairs = append(pairs, pair{name, value})
		}
	}
	return pairs
}

// sums are how many pairs there are, and how many bytes names and values have.
func (v fields) sums() (n, size int) {
	switch m := v.msg; {
	case m == nil:
	case v.response && m.Status != 0:
		n, size = 1, len(":status200")
	case v.response:
		size = len(":status")
	default:
		size = len(":method:path:authority:scheme")
		for _, value := range [...]string{m.Method, m.Target, m.Authority, m.Scheme} {
			n += min(1, len(value))
			size += len(value)
		}
	}
	for name, values := range *v.header {
		n += len(values)
		size += bytesIn(name, values)
	}
	return n, size
}

// bytesIn is what the lines of a field have.
func bytesIn(name string, lines []string) int {
	n := len(lines) * len(name)
	for _, line := range lines {
		n += len(line)
	}
	return n
}

// count is how many pairs there are.
func (v fields) count() int {
	n, _ := v.sums()
	return n
}

// canonical returns the name as it stands in the map. A request's Host is its
// authority, for HTTP/1 and 2 alike.
func (v fields) canonical(name fieldName) fieldName {
	if name.lower == "host" && v.msg != nil && !v.response {
		return fieldName{lower: ":authority"}
	}
	return name
}

// value returns the values of a field, joined if there are several.
func (v fields) value(name fieldName) (string, bool) {
	name = v.canonical(name)
	if strings.HasPrefix(name.lower, ":") {
		if !slices.Contains(v.pseudoNames(), name.lower) {
			return "", false
		}
		value := v.pseudo(name.lower)
		return value, value != ""
	}
	values := (*v.header)[name.key]
	if len(values) == 0 {
		return "", false
	}
	return strings.Join(values, ", "), true
}

// has reports whether there is such a field.
func (v fields) has(name fieldName) bool {
	name = v.canonical(name)
	if strings.HasPrefix(name.lower, ":") {
		return slices.Contains(v.pseudoNames(), name.lower) && v.pseudo(name.lower) != ""
	}
	return len((*v.header)[name.key]) > 0
}

// change is a way to change a field.
type change uint8

const (
	add change = iota
	replace
	remove
)

// effect is what a change did, and by how much the sums are others for it.
type effect struct {
	changed, pseudo bool
	n, size         int
}

// apply changes one field. It changes nothing and is not ok when name or value
// are not valid, or add more than room bytes.
func (v fields) apply(c change, name fieldName, value string, room int) (effect, bool) {
	if !strings.HasPrefix(v.canonical(name).lower, ":") {
		value = strings.Trim(value, " \t")
		if !httpguts.ValidHeaderFieldValue(value) {
			return effect{}, false
		}
	}
	return v.put(c, name, value, nil, room)
}

// put is apply for a value that no space surrounds and that was checked, unless
// the field is a pseudo-field. lines, unless nil, are that value alone.
func (v fields) put(c change, name fieldName, value string, lines []string, room int) (effect, bool) {
	name = v.canonical(name)
	switch {
	case strings.HasPrefix(name.lower, ":"):
		changed, ok := v.applyPseudo(c, name.lower, value, room)
		return effect{changed: changed, pseudo: true}, ok
	case !name.valid:
		return effect{}, false
	case name.connection:
		// Not the guest's to change, yet nothing that guests of other hosts
		// are told: there HTTP/2 drops such fields.
		return effect{}, true
	}
	key := name.key
	old, had := (*v.header)[key]
	e := effect{changed: true, n: -len(old), size: -bytesIn(key, old)}
	if c == remove {
		delete(*v.header, key)
		e.changed = had
		return e, true
	}
	if c == replace {
		room += joined(old)
	}
	if name.lower == "content-length" && !validLength(value) || len(key)+len(value) > room {
		return effect{}, false
	}
	if *v.header == nil {
		*v.header = make(http.Header)
	}
	if c == replace || name.lower == "content-length" {
		old = nil
	}
	if lines == nil || len(old) > 0 {
		lines = append(slices.Clip(old), value)
	}
	(*v.header)[key] = lines
	e.n += len(lines)
	e.size += bytesIn(key, lines)
	return e, true
}

// joined is how long the lines of a field are as one.
func joined(lines []string) int {
	return max(0, bytesIn(", ", lines)-len(", "))
}

// applyPseudo is apply for a pseudo-field. They cannot be removed, and have
// one value.
func (v fields) applyPseudo(c change, name, value string, room int) (changed, ok bool) {
	if c == remove || !slices.Contains(v.pseudoNames(), name) {
		return false, false
	}
	old := v.pseudo(name)
	if c == replace {
		room += len(old)
	}
	if len(value) > room {
		return false, false
	}
	if c == add && old != "" {
		return false, false
	}
	// What has come from the client may be sent on, whatever it is.
	if value == old {
		return false, true
	}
	if !setPseudo(v.msg, name, value) {
		return false, false
	}
	return true, true
}

// set puts pairs, of at most limit bytes, in place of all fields; or changes
// nothing and is not ok.
// Pseudo-fields that are not among them stay, fields of the connection too.
func (v fields) set(pairs []pair, limit int) bool {
	var msg abi.Message
	next := fields{header: &msg.Header, response: v.response}
	if v.msg != nil {
		next.msg = &msg
	}
	if len(pairs) > maxFields {
		return false
	}
	host, hosts := "", 0
	for _, p := range pairs {
		field := v.canonical(nameOf(p.name))
		name := field.lower
		if name == ":authority" && p.name[0] != ':' {
			host, hosts = p.value, hosts+1
			continue
		}
		// The message's own value is accepted as it is.
		if slices.Contains(v.pseudoNames(), name) && next.pseudo(name) == "" && v.pseudo(name) == p.value {
			continue
		}
		if _, ok := next.apply(add, field, p.value, limit); !ok {
			return false
		}
		limit -= len(p.name) + len(p.value)
	}
	// A Host beside :authority is but an echo of it (RFC 9113, 8.3.1).
	if hosts == 1 && !slices.ContainsFunc(pairs, func(p pair) bool { return p.name == ":authority" }) && host != v.msg.Authority {
		if _, ok := next.apply(add, fieldName{lower: ":authority"}, host, limit); !ok {
			return false
		}
	} else if hosts > 1 {
		return false
	}
	if msg.Header == nil {
		msg.Header = make(http.Header)
	}
	for key, values := range *v.header {
		if ofConnection(strings.ToLower(key)) {
			msg.Header[key] = values
		}
	}
	*v.header = msg.Header
	for _, name := range v.pseudoNames() {
		if value := next.pseudo(name); value != "" {
			setPseudo(v.msg, name, value)
		}
	}
	return true
}

// setPseudo sets a pseudo-field of m; not when the value is invalid.
func setPseudo(m *abi.Message, name, value string) bool {
	switch name {
	case ":method":
		// Fields' names and methods are both tokens (RFC 9110, 9.1). A
		// request cannot become a tunnel.
		if !httpguts.ValidHeaderFieldName(value) || strings.EqualFold(value, http.MethodConnect) {
			return false
		}
		m.Method = value
	case ":path":
		if !validTarget(value) {
			return false
		}
		m.Target = value
	case ":authority":
		if !validAuthority(value) {
			return false
		}
		m.Authority = value
	case ":scheme":
		value = strings.ToLower(value)
		if value != "http" && value != "https" {
			return false
		}
		m.Scheme = value
	case ":status":
		status, ok := parseStatus(value)
		if !ok {
			return false
		}
		m.Status = status
	}
	return true
}

// parseStatus reads a final status code: three digits, 200 to 599.
func parseStatus(s string) (int, bool) {
	n, err := strconv.ParseUint(s, 10, 16)
	return int(n), err == nil && len(s) == 3 && validStatus(n)
}

func validStatus(n uint64) bool { return n >= 200 && n <= 599 }

// validTarget reports whether s is a path with or without a query (RFC 9112,
// 3.2.1), of visible ASCII.
func validTarget(s string) bool {
	if !strings.HasPrefix(s, "/") {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '#' })
}

// validAuthority reports whether s is a host with or without a port, and
// nothing that could end an authority or hold credentials.
func validAuthority(s string) bool {
	return s != "" && s[0] != ':' && httpguts.ValidHostHeader(s) && !strings.ContainsAny(s, "/?#@\\, \t")
}

func validLength(s string) bool {
	_, err := strconv.ParseUint(s, 10, 63)
	return err == nil
}

// ofConnection reports whether a field, in lower case, belongs to the
// connection (RFC 9110, 7.6.1): the node frames its own.
func ofConnection(name string) bool {
	switch name {
	case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "te", "http2-settings":
		return true
	}
	return false
}
