package edgetest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// emission is one reply being sent in answer to one request.
type emission struct {
	origin   *origin
	reply    *reply
	request  *http.Request
	sighting *sighting
	count    int
}

// head waits, sends the hints and gives the response, or the fault.
func (e *emission) head() (*http.Response, error) {
	ctx := e.request.Context()
	if err := e.sendHints(ctx); err != nil {
		return nil, err
	}
	if err := pause(ctx, e.reply.delay, nil); err != nil {
		return nil, err
	}
	if e.reply.failsBeforeHead() {
		if err := pause(ctx, e.reply.stall, nil); err != nil {
			return nil, err
		}
	}
	switch e.reply.fault {
	case "refused":
		return nil, &fault{"connection_refused", true}
	case "reset-before-head":
		return nil, &fault{"connection_terminated", true}
	case "stall-head":
		return nil, &fault{"http_response_timeout", true}
	}
	return e.response(), nil
}

func (e *emission) sendHints(ctx context.Context) error {
	trace := httptrace.ContextClientTrace(ctx)
	for _, h := range e.reply.hints {
		if err := pause(ctx, h.after, nil); err != nil {
			return err
		}
		if trace == nil || trace.Got1xxResponse == nil {
			continue
		}
		header := textproto.MIMEHeader{}
		for _, f := range h.fields {
			header.Add(f.name, e.expand(f.value))
		}
		if err := trace.Got1xxResponse(h.status, header); err != nil {
			return err
		}
	}
	return nil
}

func (e *emission) expand(s string) string {
	return expand(s, func(word string) (string, bool) {
		if name, ok := strings.CutPrefix(word, "request "); ok {
			return strings.Join(e.request.Header.Values(name), ", "), true
		}
		if word == "count" {
			return strconv.Itoa(e.count), true
		}
		return moment(word)
	})
}

// response is the reply as http.ReadResponse would give it.
func (e *emission) response() *http.Response {
	r := e.reply
	resp := &http.Response{
		StatusCode: r.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{}, Request: e.request,
	}
	for _, f := range r.fields {
		resp.Header.Add(f.name, e.expand(f.value))
	}
	chunks := e.chunks()
	if r.gzip {
		chunks = [][]byte{gzipped(bytes.Join(chunks, nil))}
	}
	if r.conditional && notModified(resp.Header, e.request.Header) {
		resp.StatusCode = http.StatusNotModified
		for _, name := range []string{"Content-Type", "Content-Length", "Content-Encoding", "Content-Range"} {
			resp.Header.Del(name)
		}
	} else if r.ranges && resp.StatusCode == http.StatusOK {
		chunks = e.cut(resp, chunks)
	}
	resp.Status = fmt.Sprintf("%d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	e.frame(resp, chunks)
	return resp
}

// chunks are the parts the body is sent in.
func (e *emission) chunks() [][]byte {
	if e.reply.size > 0 {
		all := pattern(e.reply.size)
		if e.reply.chunkDelay == 0 {
			return [][]byte{all}
		}
		return slices.Collect(slices.Chunk(all, 64<<10))
	}
	var parts [][]byte
	for i, line := range e.reply.lines {
		text := e.expand(line)
		if i < len(e.reply.lines)-1 {
			text += "\n"
		}
		parts = append(parts, []byte(text))
	}
	if e.reply.chunkDelay == 0 {
		return [][]byte{bytes.Join(parts, nil)}
	}
	return parts
}

// cut makes the response the range that the request asks for.
func (e *emission) cut(resp *http.Response, chunks [][]byte) [][]byte {
	all := bytes.Join(chunks, nil)
	from, to, ok := slice(e.request.Header.Get("Range"), len(all))
	if tag := e.request.Header.Get("If-Range"); !ok || tag != "" && tag != resp.Header.Get("ETag") {
		return chunks
	}
	if from > to {
		resp.StatusCode = http.StatusRequestedRangeNotSatisfiable
		resp.Header.Set("Content-Range", fmt.Sprintf("bytes */%d", len(all)))
		return nil
	}
	resp.StatusCode = http.StatusPartialContent
	resp.Header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to, len(all)))
	return [][]byte{all[from : to+1]}
}

// frame gives the response its length, its trailers and its body.
func (e *emission) frame(resp *http.Response, chunks [][]byte) {
	r := e.reply
	if resp.StatusCode == http.StatusSwitchingProtocols {
		resp.Body = e.upgraded()
		return
	}
	length := int64(0)
	for _, c := range chunks {
		length += int64(len(c))
	}
	bodiless := e.request.Method == http.MethodHead || resp.StatusCode == http.StatusNoContent || resp.StatusCode == http.StatusNotModified
	switch {
	case r.length == "close":
		resp.ContentLength, resp.Close = -1, true
	case r.length == "none" || r.fault == "abort" || len(r.trailers) > 0:
		resp.ContentLength, resp.TransferEncoding = -1, []string{"chunked"}
	case r.length != "":
		// Given by the script, and wrong on purpose.
		resp.Header.Set("Content-Length", r.length)
	case resp.Header.Get("Content-Length") != "" || bodiless && e.request.Method != http.MethodHead:
	case r.fault == "short" || r.fault == "stall-body":
		resp.Header.Set("Content-Length", strconv.FormatInt(length+5, 10))
	case r.fault == "surplus":
		resp.Header.Set("Content-Length", strconv.FormatInt(max(0, length-5), 10))
	default:
		resp.Header.Set("Content-Length", strconv.FormatInt(length, 10))
	}
	if v := resp.Header.Get("Content-Length"); v != "" {
		resp.ContentLength, _ = strconv.ParseInt(v, 10, 64) // malformed: 0, as the script wants it
	}
	if bodiless {
		resp.Body, resp.TransferEncoding = http.NoBody, nil
		return
	}
	if len(r.trailers) > 0 && !r.unannounced {
		resp.Trailer = http.Header{}
		for _, f := range r.trailers {
			resp.Trailer[http.CanonicalHeaderKey(f.name)] = nil
		}
	}
	b := &body{e: e, resp: resp, chunks: chunks, closed: make(chan struct{})}
	b.whole.Store(length == 0 && r.stall == 0)
	resp.Body = b
}

// upgraded is the stream behind a 101.
func (e *emission) upgraded() io.ReadWriteCloser {
	mine, theirs := net.Pipe()
	go func() {
		defer mine.Close()
		if e.reply.echo {
			_, _ = io.Copy(mine, mine) // ends when the other side closes
		}
	}()
	return theirs
}

// body sends the chunks in their time, then ends as the fault says.
type body struct {
	e      *emission
	resp   *http.Response
	chunks [][]byte // what is left
	sent   int      // chunks begun
	rest   []byte   // of the chunk begun
	err    error
	whole  atomic.Bool // everything that will be sent has been read
	once   sync.Once
	closed chan struct{}
}

func (b *body) Read(p []byte) (int, error) {
	for len(b.rest) == 0 {
		if b.err != nil {
			return 0, b.err
		}
		if len(b.chunks) == 0 {
			b.err = b.end()
			continue
		}
		if b.sent > 0 {
			if err := b.pause(b.e.reply.chunkDelay); err != nil {
				b.err = err
				continue
			}
		}
		b.rest, b.chunks = b.chunks[0], b.chunks[1:]
		b.sent++
	}
	if err := b.pause(0); err != nil {
		return 0, err
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	b.whole.Store(len(b.rest) == 0 && len(b.chunks) == 0 && b.e.reply.stall == 0)
	return n, nil
}

func (b *body) pause(d time.Duration) error {
	err := pause(b.e.request.Context(), d, b.closed)
	if err != nil {
		b.e.origin.givenUp(b.e.sighting)
	}
	return err
}

// end is the error after the last byte: io.EOF for a whole body.
func (b *body) end() error {
	// Once all is read, a client that leaves leaves an answer that was whole.
	if !b.whole.Load() && b.e.reply.stall > 0 {
		if err := b.pause(b.e.reply.stall); err != nil {
			return err
		}
	}
	b.whole.Store(true)
	switch b.e.reply.fault {
	case "short":
		return io.ErrUnexpectedEOF
	case "abort":
		return &fault{"connection_terminated", false}
	case "stall-body":
		return &fault{"connection_read_timeout", false}
	}
	for _, f := range b.e.reply.trailers {
		if b.resp.Trailer == nil {
			b.resp.Trailer = http.Header{}
		}
		b.resp.Trailer.Add(f.name, b.e.expand(f.value))
	}
	return io.EOF
}

// Close ends the body; closed before its end, the request was given up.
func (b *body) Close() error {
	b.once.Do(func() {
		close(b.closed)
		if !b.whole.Load() && b.e.reply.fault != "surplus" {
			b.e.origin.givenUp(b.e.sighting)
		}
	})
	return nil
}
