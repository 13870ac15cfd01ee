package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"

	"seawall/wasm/abi"
)

// The bounds of a message's file.
const (
	maxMessage      = 4 << 20 // bytes
	maxMessageHead  = 64 << 10
	maxMessageLines = 200 // fields
)

// readMessage reads an HTTP message of a file.
func readMessage(path string, parse func([]byte) (*abi.Message, []byte, error)) (*abi.Message, []byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("%w (hint: it is to be an HTTP message, as seawall wasm test --help shows)", err)
	}
	defer file.Close()
	text, err := readBounded(file, maxMessage)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	m, body, err := parse(text)
	if err != nil {
		return nil, nil, fmt.Errorf("%s:%w", path, err)
	}
	return m, body, nil
}

// parseRequest reads a request: a start line with a path or an absolute URL,
// fields, an empty line, and the content, which is all that follows. Lines may
// end with LF alone. The error begins with the line.
func parseRequest(text []byte) (*abi.Message, []byte, error) {
	start, header, body, err := parseHead(text)
	if err != nil {
		return nil, nil, err
	}
	words := strings.Split(start, " ")
	if len(words) != 3 || !httpguts.ValidHeaderFieldName(words[0]) || !version(words[2]) {
		return nil, nil, fmt.Errorf("1: %s is no request line; write METHOD /path HTTP/1.1", show(start))
	}
	m := &abi.Message{Method: words[0], Scheme: "http", Target: words[1], Header: header}
	if !strings.HasPrefix(m.Target, "/") {
		u, err := url.Parse(m.Target)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Contains(m.Target, "#") {
			return nil, nil, fmt.Errorf("1: %s is neither a path nor an absolute URL", show(m.Target))
		}
		m.Scheme, m.Authority = u.Scheme, u.Host
		m.Target = m.Target[len(u.Scheme)+len("://")+len(u.Host):]
		if !strings.HasPrefix(m.Target, "/") {
			m.Target = "/" + m.Target
		}
	}
	if strings.ContainsFunc(m.Target, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, nil, fmt.Errorf("1: %s has what a target does not have; percent-encode it", show(m.Target))
	}
	switch hosts := header["Host"]; {
	case len(hosts) > 1 || len(hosts) == 1 && !httpguts.ValidHostHeader(hosts[0]):
		return nil, nil, errors.New("2: Host is not one name")
	case m.Authority == "" && (len(hosts) == 0 || hosts[0] == ""):
		return nil, nil, errors.New("2: there is no Host; add one, or give an absolute URL")
	case m.Authority == "":
		m.Authority = hosts[0]
	}
	delete(header, "Host") // functions see it as :authority
	return m, body, nil
}

// parseResponse reads a response: HTTP/1.1 STATUS REASON, and the rest as
// parseRequest does.
func parseResponse(text []byte) (*abi.Message, []byte, error) {
	start, header, body, err := parseHead(text)
	if err != nil {
		return nil, nil, err
	}
	words := strings.SplitN(start, " ", 3)
	status := 0
	if len(words) > 1 && len(words[1]) == 3 {
		status, _ = strconv.Atoi(words[1])
	}
	if !version(words[0]) || status < 200 || status > 599 {
		return nil, nil, fmt.Errorf("1: %s is no status line; write HTTP/1.1 200 OK", show(start))
	}
	return &abi.Message{Status: status, Header: header}, body, nil
}

func version(s string) bool {
	return s == "HTTP/1.1" || s == "HTTP/1.0" || s == "HTTP/2" || s == "HTTP/3"
}

// parseHead cuts a message.
func parseHead(text []byte) (start string, header http.Header, body []byte, err error) {
	header = make(http.Header)
	for number := 1; ; number++ {
		line, rest, found := bytes.Cut(text, []byte("\n"))
		text = rest
		one := strings.TrimSuffix(string(line), "\r")
		switch {
		case number == 1:
			start = one
		case one == "":
			return start, header, text, framed(header, len(text))
		case number > maxMessageLines || len(one) > maxMessageHead:
			return "", nil, nil, fmt.Errorf("%d: the head is too large; an empty line ends it", number)
		default:
			name, value, ok := strings.Cut(one, ":")
			value = strings.Trim(value, " \t")
			if !ok || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
				return "", nil, nil, fmt.Errorf("%d: %s is not a field; write Name: value, and an empty line behind the last", number, show(one))
			}
			header.Add(name, value)
		}
		if !found { // a head alone needs no empty line
			return start, header, nil, framed(header, 0)
		}
	}
}

// framed sees that the head says of the content what is there.
func framed(h http.Header, size int) error {
	if h["Transfer-Encoding"] != nil {
		return errors.New("1: Transfer-Encoding is not read here; the content is what follows the empty line, as it is")
	}
	for _, v := range h["Content-Length"] {
		if n, err := strconv.ParseUint(v, 10, 63); err != nil || n != uint64(size) {
			return fmt.Errorf("1: Content-Length is %s, and %d bytes follow the empty line; leave it out", show(v), size)
		}
	}
	return nil
}
