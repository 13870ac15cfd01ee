package origin

import (
	"bytes"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// maxFields bounds the lines of a response head: each costs far more memory
// than the four bytes it takes to send one.
const maxFields = 1000

// head is what must be known of a response head before net/http parses it:
// that accepts bare LF and obs-fold, prefers Transfer-Encoding to Content-Length
// in silence, fails on unknown codings, turns Pragma into Cache-Control, and
// forgets which fields Connection names beside "close".
type head struct {
	status int
	minor  int // HTTP/1.minor
	end    int // bytes taken so far; the head's length once it is whole

	searched     int // no LF between end and here
	fields       int
	length       string // Content-Length
	hasLength    bool
	cacheControl bool
	unknown      bool     // the transfer coding is not chunked
	codings      []string // Transfer-Encoding values, a line each
	codingLines  []span
	connection   []string // Connection values, a line each
}

type span struct{ from, to int }

// scan takes the whole lines of in, which holds a response head from its first
// byte, and reports whether the head is whole. Call it again with more bytes
// appended until then. Any departure from RFC 9112's grammar is an *Error.
func (h *head) scan(in []byte) (bool, error) {
	for {
		i := bytes.IndexByte(in[h.searched:], '\n')
		if i < 0 {
			h.searched = len(in)
			return false, nil
		}
		at := span{h.end, h.searched + i + 1}
		h.end, h.searched = at.to, at.to
		line, ok := bytes.CutSuffix(in[at.from:at.to], []byte("\r\n"))
		if !ok {
			return false, malformed("line ends with a bare LF")
		}
		switch {
		case h.status == 0:
			if !h.statusLine(line) {
				return false, malformed("malformed status line")
			}
		case len(line) == 0:
			return true, h.framing()
		default:
			if err := h.field(line, at); err != nil {
				return false, err
			}
		}
	}
}

// statusLine parses "HTTP/1.x NNN" with an optional reason (RFC 9112, 4).
func (h *head) statusLine(line []byte) bool {
	rest, ok := bytes.CutPrefix(line, []byte("HTTP/1."))
	if !ok || len(rest) < 5 || rest[0] != '0' && rest[0] != '1' || rest[1] != ' ' {
		return false
	}
	h.minor = int(rest[0] - '0')
	for _, c := range rest[2:5] {
		if c < '0' || c > '9' {
			return false
		}
		h.status = h.status*10 + int(c-'0')
	}
	reason := rest[5:]
	return h.status >= 100 && (len(reason) == 0 || reason[0] == ' ' && validValue(reason))
}

// field checks one field line and notes those that frame the message.
func (h *head) field(line []byte, at span) error {
	if h.fields++; h.fields > maxFields {
		return &Error{Kind: responseHeadSize, Step: stepHead, Err: malformed("too many fields").Err}
	}
	name, value, ok := bytes.Cut(line, []byte(":"))
	switch {
	case line[0] == ' ' || line[0] == '\t':
		return malformed("folded field line")
	case !ok || !validName(name):
		return malformed("malformed field name")
	case !validValue(value):
		return malformed("control character in a field value")
	}
	is := func(field string) bool { return len(name) == len(field) && strings.EqualFold(string(name), field) }
	switch {
	case is("Content-Length"):
		v := string(bytes.Trim(value, " \t"))
		if v == "" || strings.Trim(v, "0123456789") != "" || h.hasLength && v != h.length {
			return malformed("invalid or differing Content-Length")
		}
		h.length, h.hasLength = v, true
	case is("Transfer-Encoding"):
		h.codings = append(h.codings, string(bytes.Trim(value, " \t")))
		h.codingLines = append(h.codingLines, at)
	case is("Connection"):
		h.connection = append(h.connection, string(bytes.Trim(value, " \t")))
	case is("Cache-Control"):
		h.cacheControl = true
	}
	return nil
}

// framing checks the fields that say where the message ends (RFC 9112, 6).
func (h *head) framing() error {
	coded := len(h.codings) > 0
	switch {
	case h.status < 200 && (coded || h.hasLength && strings.Trim(h.length, "0") != ""):
		return malformed("interim response with a body")
	case coded && h.hasLength:
		return malformed("Content-Length beside Transfer-Encoding")
	case coded && h.minor == 0:
		return malformed("Transfer-Encoding in HTTP/1.0")
	case !coded || len(h.codings) == 1 && strings.EqualFold(h.codings[0], "chunked"):
		return nil
	}
	// Something is applied besides chunked, or instead of it. Chunks can be
	// undone and what they carry cannot: passing either on as the content would
	// be a lie. With an unknown coding alone the bytes are at least what the
	// server chose to send until it closed.
	for name := range strings.SplitSeq(strings.Join(h.codings, ","), ",") {
		name, _, _ = strings.Cut(name, ";")
		if strings.EqualFold(strings.Trim(name, " \t"), "chunked") {
			return &Error{Kind: responseCoding, Step: stepHead, Err: malformed("chunked among other transfer codings").Err}
		}
	}
	h.unknown = true
	return nil
}

// withoutCodings removes the Transfer-Encoding lines from in, which starts with
// the head, in place.
func (h *head) withoutCodings(in []byte) []byte {
	for _, at := range slices.Backward(h.codingLines) {
		in = slices.Delete(in, at.from, at.to)
	}
	return in
}

// validName reports whether b is a token (RFC 9110, 5.6.2).
func validName(b []byte) bool {
	for _, c := range b {
		if !httpguts.IsTokenRune(rune(c)) {
			return false
		}
	}
	return len(b) > 0
}

// validValue reports whether b holds no control but the tab. Bytes above ASCII
// are allowed (RFC 9110, 5.5).
func validValue(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}
