package proxywasm

import (
	"net/http"

	"seawall/wasm/abi"
)

// What host calls are charged for the fields that they work through, in bytes
// copied: BenchmarkWork measures some 30 ns to count one, 300 to present it
// among others in order, 600 to take one in, where a byte stands for a third
// of a nanosecond. Otherwise a storm of calls on a large header would run far
// past the guest's time before anyone looks.
const (
	countWork   = 100
	presentWork = 1000
	takeWork    = 2000
)

// fields returns a map of the effective context, and whether it can be
// changed. It is not ok for maps that are not there, now or ever. create makes
// trailers where there may be some: in the callback of the last content.
func (g *guest) fields(id uint64, create bool) (v fields, writable, ok bool) {
	switch id {
	case mapCallHeader, mapCallTrailer:
		return g.callFields(id)
	case mapRequestHeader, mapRequestTrailer, mapResponseHeader, mapResponseTrailer:
	default:
		// Unknown ones, and those of gRPC: mapGRPCInitial, mapGRPCTrailing.
		return fields{}, false, false
	}
	s := g.effective
	if !s.open() {
		return fields{}, false, false
	}
	side := 0
	if id == mapResponseHeader || id == mapResponseTrailer {
		side = 1
	}
	m := s.message(side)
	if side == 1 && s.phase < responseHeaders {
		return fields{}, false, false
	}
	if id == mapRequestHeader || id == mapResponseHeader {
		return newFields(m, side), s.phase.side() == side && s.phase != beginning && !s.passed[side], true
	}
	last := s.phase == requestBody && side == 0 || s.phase == responseBody && side == 1
	now := last || s.phase == requestTrailers && side == 0 || s.phase == responseTrailers && side == 1
	if m.Trailer == nil && (!create || !last || !m.Ended) {
		return fields{}, false, false
	}
	return fields{header: &m.Trailer}, now, true
}

// callFields returns the reply's header or trailers, while its callback runs.
func (g *guest) callFields(id uint64) (v fields, writable, ok bool) {
	r := g.reply
	if r == nil || r.Status == 0 {
		return fields{}, false, false
	}
	if id == mapCallTrailer {
		return fields{header: &r.Trailer}, false, true
	}
	return newFields(&abi.Message{Status: r.Status, Header: r.Header}, 1), false, true
}

// mapSize gives the bytes that the map has when serialized.
func mapSize(g *guest, f *frame) uint32 {
	v, _, ok := g.fields(f.num[0], false)
	if !ok {
		return statusBadArgument
	}
	pairs := v.pairs()
	g.debt += presentWork * len(pairs)
	return g.put32(f, 0, uint32(pairsSize(pairs)))
}

func mapPairs(g *guest, f *frame) uint32 {
	v, _, ok := g.fields(f.num[0], false)
	if !ok {
		return statusBadArgument
	}
	pairs := v.pairs()
	g.debt += presentWork * len(pairs)
	return give(g, f, 0, appendPairs(make([]byte, 0, pairsSize(pairs)), pairs))
}

func setMapPairs(g *guest, f *frame) uint32 {
	v, writable, ok := g.fields(f.num[0], true)
	if !ok || !writable || len(f.in[0]) > g.services.FieldLimit() {
		return statusBadArgument
	}
	pairs, ok := parsePairs(f.in[0])
	if !ok {
		return statusParseFailure
	}
	g.debt += takeWork * len(pairs)
	if !v.set(pairs, g.services.FieldLimit()) {
		return statusBadArgument
	}
	g.changed(f.num[0])
	return statusOK
}

func mapValue(g *guest, f *frame) uint32 {
	v, _, ok := g.fields(f.num[0], false)
	if !ok {
		if s := g.effective; f.num[0] <= mapCallTrailer && s != nil && s.phase == ending {
			// Loggers ask for what may never have come.
			return statusNotFound
		}
		return statusBadArgument
	}
	if len(f.in[0]) > g.services.FieldLimit() {
		return statusNotFound
	}
	value, ok := v.value(g.name(f.in[0]))
	if !ok {
		return statusNotFound
	}
	return give(g, f, 0, value)
}

func addMapValue(g *guest, f *frame) uint32     { return changeField(g, f, add) }
func replaceMapValue(g *guest, f *frame) uint32 { return changeField(g, f, replace) }
func removeMapValue(g *guest, f *frame) uint32  { return changeField(g, f, remove) }

func changeField(g *guest, f *frame, c change) uint32 {
	v, writable, ok := g.fields(f.num[0], c != remove)
	limit := g.services.FieldLimit()
	if !ok || !writable || len(f.in[0])+len(f.in[1]) > limit {
		return statusBadArgument
	}
	room := limit
	if c != remove {
		has := g.count(v)
		g.debt += countWork * has.n
		if has.n >= maxFields && (c == add || !v.has(g.name(f.in[0]))) {
			return statusBadArgument
		}
		room -= has.size
	}
	changed, ok := g.changing(v, c, f.in[0], f.in[1], room)
	if !ok {
		return statusBadArgument
	}
	if changed {
		g.changed(f.num[0])
	}
	return statusOK
}

// changed marks the message of a map of the effective stream.
func (g *guest) changed(id uint64) {
	side := 0
	if id == mapResponseHeader || id == mapResponseTrailer {
		side = 1
	}
	g.effective.message(side).Changed = true
}

// httpCall sends a request to an upstream that the function's configuration
// names. The reply comes in proxy_on_http_call_response of the root context.
func httpCall(g *guest, f *frame) uint32 {
	limit := g.services.FieldLimit()
	if len(f.in[1]) > limit || len(f.in[3]) > limit || int64(len(f.in[2])) > g.services.BodyLimit() || len(f.in[0]) > limit {
		return statusBadArgument
	}
	header, ok := parsePairs(f.in[1])
	trailer, ok2 := parsePairs(f.in[3])
	if !ok || !ok2 {
		return statusParseFailure
	}
	g.debt += takeWork * (len(header) + len(trailer))
	var request abi.Message
	end := fields{header: &request.Trailer}
	if !newFields(&request, 0).set(header, limit) || !end.set(trailer, limit) ||
		request.Method == "" || request.Target == "" || request.Authority == "" {
		return statusBadArgument
	}
	// The content is framed by its length.
	request.Header.Del("Content-Length")
	return g.send(f, &abi.HTTPCall{
		Upstream: string(f.in[0]),
		Method:   request.Method, Authority: request.Authority, Target: request.Target, Scheme: request.Scheme,
		Header: request.Header, Trailer: request.Trailer,
		Body:    append([]byte(nil), f.in[2]...),
		Timeout: milliseconds(f.num[0]),
	})
}

func (g *guest) send(f *frame, call *abi.HTTPCall) uint32 {
	for {
		g.lastCall++
		if g.lastCall != 0 && !g.calls[g.lastCall] {
			break
		}
	}
	id := g.lastCall
	g.forgetCall()
	g.calls[id] = true
	if err := g.services.HTTPCall(g.machine, call, func(r *abi.HTTPReply) error { return g.deliver(id, r) }); err != nil {
		delete(g.calls, id)
		return statusOf(err)
	}
	return g.put32(f, 0, id)
}

// forgetCall makes room for a call. Services bound how many are under way; the
// oldest of so many has lost its reply, as when the machine was too busy.
func (g *guest) forgetCall() {
	if len(g.calls) < maxCalls {
		return
	}
	var oldest, age uint32
	for id := range g.calls {
		if a := g.lastCall - id; a > age {
			oldest, age = id, a
		}
	}
	delete(g.calls, oldest)
}

// deliver runs the callback for the reply to a call, unless it was forgotten.
func (g *guest) deliver(id uint32, r *abi.HTTPReply) error {
	if !g.calls[id] {
		return nil
	}
	delete(g.calls, id)
	if r == nil {
		r = new(abi.HTTPReply)
	}
	g.reply = r
	defer func() { g.reply = nil }()
	header, body := 0, 0
	if r.Status != 0 {
		header, body = 1+count(r.Header), len(r.Body)
	}
	_, err := g.invoke(nil, g.exports.httpCallResponse, rootID, uint64(id), uint64(header), uint64(body), uint64(count(r.Trailer)))
	return err
}

// callStatus gives status and reason of the reply whose callback runs; 0
// without one.
func callStatus(g *guest, f *frame) uint32 {
	code := 0
	if g.reply != nil {
		code = g.reply.Status
	}
	if s := g.put32(f, 0, uint32(code)); s != statusOK {
		return s
	}
	return give(g, f, 1, http.StatusText(code))
}
