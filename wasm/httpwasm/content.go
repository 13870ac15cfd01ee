package httpwasm

import (
	"bytes"
	"errors"
	"io"

	"seawall/wasm/abi"
)

func (c call) readBody() {
	kind, at, limit := c.i32(0), c.i32(1), c.i32(2)
	if limit == 0 {
		fail("read_body with no room to read to")
	}
	s := c.now()
	if kind != ofRequest && kind != ofResponse {
		fail("no kind of body: %d", kind)
	}
	c.spend(0)
	room, ok := c.memory.Read(at, limit)
	if !ok {
		fail("%d bytes at %#x are not in memory", limit, at)
	}
	n, err := s.read(kind, room)
	c.spend(n)
	switch {
	case err == nil:
		c.stack[0] = uint64(n)
	case err == io.EOF:
		c.stack[0] = 1<<32 | uint64(n)
	default:
		// Too long, or its sender went away: not the guest's fault.
		panic(&abi.Trap{Kind: "body", Err: err})
	}
}

// read fills b from the content as far as it goes. The error is io.EOF at its
// end, also with the last bytes.
func (s *stream) read(kind uint32, b []byte) (int, error) {
	if kind == ofResponse {
		if s.asked && s.features&bufferResponse == 0 {
			fail("the response's content cannot be read without the feature buffer_response")
		}
		if !s.response.begun {
			s.response.begun = true
			if s.asked {
				s.response.held = s.x.Response.Body
			}
		}
		return s.response.take(b)
	}
	if s.features&bufferRequest == 0 {
		if s.asked {
			fail("the request's content cannot be read after next without the feature buffer_request")
		}
		if s.x.Request.Source == nil {
			return 0, io.EOF
		}
		return fill(s.x.Request.Source, b)
	}
	if err := s.bufferRequest(); err != nil {
		return 0, err
	}
	return s.request.take(b)
}

// bufferRequest holds the whole content, for this guest and for the next
// step. The host has done so already unless the feature was enabled late.
func (s *stream) bufferRequest() error {
	if s.request.begun {
		return nil
	}
	r := &s.x.Request
	if s.asked {
		return errors.New("the content has gone on already")
	}
	s.request.begun = true
	if !r.Ended && r.Source != nil {
		limit := s.guest.services.BodyLimit()
		all, err := io.ReadAll(io.LimitReader(r.Source, limit+1))
		if err != nil {
			return err
		}
		if int64(len(all)) > limit {
			return abi.ErrBody
		}
		r.Body, r.Ended, r.Source = all, true, bytes.NewReader(all)
	}
	s.request.held = r.Body
	return nil
}

func (h *content) take(b []byte) (int, error) {
	n := copy(b, h.held)
	h.held = h.held[n:]
	if len(h.held) == 0 {
		return n, io.EOF
	}
	return n, nil
}

// fill reads until b is full or there is no more.
func fill(r io.Reader, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var more int
		more, err = r.Read(b[n:])
		n += more
	}
	return n, err
}

func (c call) writeBody() {
	kind := c.i32(0)
	add := c.view(c.i32(1), c.i32(2))
	switch kind {
	case ofRequest:
		s := c.beforeNext("the request's content")
		if s.features&bufferRequest != 0 && !s.request.begun {
			// What the guest reads later is what came, not what it wrote.
			s.request.held, s.request.begun = s.x.Request.Body, s.x.Request.Ended
		}
		s.x.Request.Body = c.write(s.x.Request.Body, &s.request, add)
		s.x.Request.Replaced, s.x.Request.Ended = true, true
	case ofResponse:
		s := c.mayAnswer("the response's content")
		if !s.asked {
			s.answer = c.write(s.answer, &s.response, add)
			return
		}
		if !s.response.begun {
			s.response.held, s.response.begun = s.x.Response.Body, true
		}
		s.x.Response.Body = c.write(s.x.Response.Body, &s.response, add)
		s.x.Response.Replaced = true
	default:
		fail("no kind of body: %d", kind)
	}
}

// write appends to what the guest wrote; its first write replaces what was.
func (c call) write(body []byte, of *content, add []byte) []byte {
	if !of.writes {
		of.writes, body = true, nil
	}
	if int64(len(body)+len(add)) > c.services.BodyLimit() {
		panic(&abi.Trap{Kind: "argument", Err: abi.ErrLimit})
	}
	return append(body, add...)
}
