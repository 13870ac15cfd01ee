package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"strings"
)

// The bounds of reading an access log.
const (
	maxLogLine = 64 << 10
	maxCounted = 100_000 // URLs remembered
)

// countURLs counts the GETs of an access log that were answered with content,
// by URL. Lines that are none of ours are passed over. What it remembers is
// bounded: when there are too many URLs, the rarest so far are forgotten.
func countURLs(r io.Reader) (map[string]int, error) {
	counts := make(map[string]int)
	in := bufio.NewReaderSize(r, maxLogLine)
	for {
		line, err := in.ReadSlice('\n')
		if u, ok := requestOf(line); ok && err != bufio.ErrBufferFull {
			if counts[u]++; len(counts) > maxCounted {
				forgetRare(counts)
			}
		}
		for err == bufio.ErrBufferFull { // longer than any line of ours
			_, err = in.ReadSlice('\n')
		}
		if errors.Is(err, io.EOF) {
			return counts, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// forgetRare halves what is remembered, or more.
func forgetRare(counts map[string]int) {
	for least := 1; len(counts) > maxCounted/2; least++ {
		for u, n := range counts {
			if n <= least {
				delete(counts, u)
			}
		}
	}
}

// requestOf returns the URL of a line of the access log, if it tells of a GET
// that was answered with content.
func requestOf(line []byte) (string, bool) {
	var method, raw string
	var status int
	if len(line) > 0 && line[0] == '{' {
		var record struct {
			Method string
			URL    string
			Status int
		}
		if json.Unmarshal(line, &record) != nil {
			return "", false
		}
		method, raw, status = record.Method, record.URL, record.Status
	} else {
		method, raw = textValue(line, "method"), textValue(line, "url")
		status, _ = strconv.Atoi(textValue(line, "status")) // 0 is none of those wanted
	}
	switch {
	case method != "GET" || status < 200 || status >= 400:
		return "", false
	case !strings.HasPrefix(raw, "http://") && !strings.HasPrefix(raw, "https://"):
		return "", false
	case strings.HasSuffix(raw, "...") && len(raw) > 2048: // cut by the log
		return "", false
	}
	return raw, true
}

// textValue returns a field of a line of key=value pairs, "" if it has none.
// Values may be quoted, with escapes.
func textValue(line []byte, name string) string {
	rest := strings.TrimRight(string(line), "\r\n")
	for rest != "" {
		key, after, ok := strings.Cut(rest, "=")
		if !ok {
			return ""
		}
		var value string
		if strings.HasPrefix(after, `"`) {
			quoted, err := strconv.QuotedPrefix(after)
			if err != nil {
				return ""
			}
			value, rest = quoted, after[len(quoted):]
		} else {
			value, rest, _ = strings.Cut(after, " ")
			rest = " " + rest
		}
		if key == name {
			if strings.HasPrefix(value, `"`) {
				value, _ = strconv.Unquote(value) // QuotedPrefix has checked it
			}
			return value
		}
		rest = strings.TrimPrefix(rest, " ")
	}
	return ""
}
