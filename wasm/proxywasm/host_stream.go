package proxywasm

import (
	"net/http"
	"slices"

	"seawall/wasm/abi"
)

// content returns a message's content, while its callback runs or the stream
// waits in it.
func (g *guest) content(id uint64) (*abi.Message, bool) {
	s := g.effective
	if !s.open() {
		return nil, false
	}
	switch {
	case id == bufferRequestBody && s.phase == requestBody:
		return &s.x.Request, true
	case id == bufferResponseBody && s.phase == responseBody:
		return &s.x.Response, true
	}
	return nil, false
}

// buffer returns what can be read by number, or the status that tells why
// not.
func (g *guest) buffer(id uint64) ([]byte, uint32) {
	switch id {
	case bufferRequestBody, bufferResponseBody:
		if m, ok := g.content(id); ok {
			return m.Body, statusOK
		}
	case bufferDownstream, bufferUpstream, bufferGRPC:
	case bufferCallBody:
		if g.reply != nil && g.reply.Status != 0 {
			return g.reply.Body, statusOK
		}
	case bufferVMConfig:
		return g.services.VMConfig(), statusOK
	case bufferPluginConfig:
		return g.services.Config(), statusOK
	case bufferForeignArgs:
		if g.foreign != nil {
			return g.foreign, statusOK
		}
	default:
		return nil, statusBadArgument
	}
	return nil, statusNotFound
}

// bufferBytes gives as many of the bytes asked for as there are.
func bufferBytes(g *guest, f *frame) uint32 {
	b, status := g.buffer(f.num[0])
	if status != statusOK {
		return status
	}
	start := min(f.num[1], uint64(len(b)))
	end := min(start+f.num[2], uint64(len(b)))
	return give(g, f, 0, b[start:end])
}

func bufferStatus(g *guest, f *frame) uint32 {
	b, status := g.buffer(f.num[0])
	if status != statusOK {
		return status
	}
	if s := g.put32(f, 0, uint32(len(b))); s != statusOK {
		return s
	}
	return g.put32(f, 1, 0)
}

// setBufferBytes puts bytes in place of a range of the content. Ranges are cut
// to what there is, so that one at the front of no length prepends, one past
// the end appends, and one from the front of any greater length replaces all.
func setBufferBytes(g *guest, f *frame) uint32 {
	m, ok := g.content(f.num[0])
	if !ok {
		if _, status := g.buffer(f.num[0]); status == statusNotFound {
			return status
		}
		return statusBadArgument
	}
	have := uint64(len(m.Body))
	start := min(f.num[1], have)
	size := min(f.num[2], have-start)
	after := have - size + uint64(len(f.in[0]))
	// Content that came over a limit may still be made smaller.
	if len(f.in[0]) > g.services.FieldLimit() || after > have && after > uint64(g.services.BodyLimit()) {
		return statusBadArgument
	}
	g.debt += int(have)
	// A new slice: what has come may be shared with a stored response.
	m.Body = slices.Concat(m.Body[:start], f.in[0], m.Body[start+size:])
	m.Replaced = true
	return statusOK
}

// sendLocalResponse answers instead of the node: once, and before a response
// has begun. The gRPC status and the details mean nothing to HTTP.
func sendLocalResponse(g *guest, f *frame) uint32 {
	s, limit := g.effective, g.services.FieldLimit()
	if !s.open() || s.phase == beginning || s.phase == ending || s.answered || s.passed[1] ||
		!validStatus(f.num[0]) || int64(len(f.in[1])) > g.services.BodyLimit() || len(f.in[2]) > limit {
		return statusBadArgument
	}
	pairs, ok := parsePairs(f.in[2])
	if !ok {
		return statusParseFailure
	}
	g.debt += takeWork * len(pairs)
	var answer abi.Message
	if !newFields(&answer, 1).set(pairs, limit) || answer.Status != 0 {
		return statusBadArgument
	}
	// The owner frames the content itself.
	answer.Header.Del("Content-Length")
	answer.Status = int(f.num[0])
	answer.Body = append([]byte(nil), f.in[1]...)
	answer.Ended, answer.Replaced, answer.Changed = true, true, true
	s.x.Response = answer
	s.stopped[s.phase.side()] = true
	s.answer()
	return statusOK
}

// stream returns the stream that the guest may resume or stop now.
func (g *guest) stream(kind uint64) (*stream, uint32) {
	s := g.effective
	switch kind {
	case streamRequest, streamResponse:
	case streamDownstream, streamUpstream:
		return nil, statusUnimplemented
	default:
		return nil, statusBadArgument
	}
	if s == nil {
		return nil, statusBadArgument
	}
	return s, statusOK
}

// continueStream lets a stream go on. It has no effect on one that does not
// wait.
func continueStream(g *guest, f *frame) uint32 { return g.resume(f.num[0]) }

func continueRequest(g *guest, _ *frame) uint32  { return g.resume(streamRequest) }
func continueResponse(g *guest, _ *frame) uint32 { return g.resume(streamResponse) }

func (g *guest) resume(kind uint64) uint32 {
	s, status := g.stream(kind)
	if s != nil && s.open() {
		s.resume(int(kind))
	}
	return status
}

// closeStream ends the exchange. Clients that have nothing yet get a bare 503;
// with part of a response passed on, Answered tells the owner to break off.
func closeStream(g *guest, f *frame) uint32 {
	s, status := g.stream(f.num[0])
	if s == nil || !s.open() || s.phase == beginning || s.phase == ending || s.stopped[s.phase.side()] {
		return status
	}
	if !s.passed[1] {
		s.x.Response = abi.Message{Status: http.StatusServiceUnavailable, Header: http.Header{}, Ended: true, Replaced: true, Changed: true}
	}
	s.stopped = [2]bool{true, true}
	s.answer()
	return statusOK
}

// setEffectiveContext makes the following host calls act for another context,
// until the callback returns.
func setEffectiveContext(g *guest, f *frame) uint32 {
	id := uint32(f.num[0])
	s := g.streams.of(id)
	if s == nil && id != rootID {
		return statusBadArgument
	}
	g.effective = s
	return statusOK
}

// done lets a stream go that proxy_on_done has delayed. Its last callbacks run
// after the one that calls.
func done(g *guest, _ *frame) uint32 {
	s := g.effective
	if s == nil {
		return statusNotFound
	}
	if s.phase == ending && g.running == s && s.x != nil {
		s.doneEarly = true
		return statusOK
	}
	i := slices.Index(g.waiting, s)
	if i < 0 {
		return statusNotFound
	}
	g.waiting = slices.Delete(g.waiting, i, i+1)
	g.finished = append(g.finished, s)
	return statusOK
}
