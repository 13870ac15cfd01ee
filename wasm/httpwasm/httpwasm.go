// Package httpwasm is the http-wasm handler ABI: nineteen functions by which
// a guest reads and changes a request and its response.
//
// A guest's handle_request is called before, its handle_response after the
// next step of the walk. Until "next" a guest may change the request or make
// an answer of its own; after it the response, if it asked for buffering.
package httpwasm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"seawall/wasm/abi"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// Module is the name guests import from.
const Module = "http_handler"

// ABI is the http-wasm handler ABI.
type ABI struct{}

// Name implements abi.ABI.
func (ABI) Name() string { return "http-wasm" }

// Detect implements abi.ABI.
func (ABI) Detect(exports map[string]bool) bool { return exports["handle_request"] }

// Check implements abi.ABI.
func (ABI) Check(imports []abi.Import) []string {
	offered := map[string]abi.HostFunction{}
	for _, f := range functions() {
		offered[f.Name] = f
	}
	var faults []string
	for _, i := range imports {
		f, ok := offered[i.Name]
		switch {
		case i.Module != Module:
			faults = append(faults, fmt.Sprintf("it imports %.64q.%.64q, which http-wasm does not offer; remove what needs it", i.Module, i.Name))
		case !ok:
			faults = append(faults, fmt.Sprintf("it imports %s.%.64q, which is no function of the http-wasm handler ABI; build it against http-wasm's http-handler", Module, i.Name))
		case !slices.Equal(f.Params, i.Params) || !slices.Equal(f.Results, i.Results):
			faults = append(faults, fmt.Sprintf("it imports %s.%s with other types than the ABI gives it; build it against http-wasm's http-handler", Module, i.Name))
		}
	}
	return faults
}

// Link implements abi.ABI.
func (ABI) Link(ctx context.Context, r wazero.Runtime, _ []abi.Import) (map[string]api.Module, error) {
	m, err := abi.HostModule(ctx, r, Module, functions())
	return map[string]api.Module{Module: m}, err
}

// Features a guest may ask for.
const (
	bufferRequest = 1 << iota
	bufferResponse
	trailers
	allFeatures = bufferRequest | bufferResponse | trailers
)

// guest is the ABI's side of one machine.
type guest struct {
	machine  abi.Machine
	services abi.Services
	request  api.Function
	response api.Function // nil when it is not exported
	features uint32       // asked for at start
	current  *stream      // whose callback runs; nil at start
	spare    *stream
	names    map[string]string // canonical forms of field names asked for
	stack    [2]uint64
}

// NewGuest implements abi.ABI. A reactor's _initialize is run, or else a
// command's _start, as TinyGo makes them.
func (ABI) NewGuest(m abi.Machine, s abi.Services) (abi.Guest, error) {
	mod := m.Module()
	g := &guest{machine: m, services: s, names: map[string]string{}, request: mod.ExportedFunction("handle_request"), response: mod.ExportedFunction("handle_response")}
	if h, ok := m.(abi.Holder); ok {
		h.SetGuest(g)
	}
	if err := typed(g.request, nil, []api.ValueType{api.ValueTypeI64}); err != nil {
		return nil, fmt.Errorf("handle_request: %w", err)
	}
	if g.response != nil {
		if err := typed(g.response, []api.ValueType{api.ValueTypeI32, api.ValueTypeI32}, nil); err != nil {
			return nil, fmt.Errorf("handle_response: %w", err)
		}
	}
	for _, name := range []string{"_initialize", "_start"} {
		f := mod.ExportedFunction(name)
		if f == nil {
			continue
		}
		if err := typed(f, nil, nil); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if err := m.Call(f, g.stack[:]); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		break
	}
	return g, nil
}

var errType = errors.New("exported with other types than the ABI gives it")

func typed(f api.Function, params, results []api.ValueType) error {
	if f == nil || !slices.Equal(f.Definition().ParamTypes(), params) || !slices.Equal(f.Definition().ResultTypes(), results) {
		return errType
	}
	return nil
}

// Tick implements abi.Guest; this ABI has no ticks.
func (g *guest) Tick() error { return nil }

// TickPeriod implements abi.Guest.
func (g *guest) TickPeriod() time.Duration { return 0 }

// Begin implements abi.Guest.
func (g *guest) Begin(x *abi.Exchange) (abi.Stream, error) {
	s := g.spare
	if s == nil {
		s = new(stream)
	}
	g.spare = nil
	*s = stream{guest: g, x: x, features: g.features}
	return s, nil
}

// stream is one exchange in a guest.
type stream struct {
	guest    *guest
	x        *abi.Exchange
	features uint32
	context  uint32 // what handle_request returned for handle_response
	asked    bool   // handle_request has returned
	next     bool   // and wants the next step
	status   int    // of an answer of the guest's own
	answer   []byte // its content
	request  content
	response content
}

// content is where a guest reads a message's content from, and whether it
// wrote one of its own.
type content struct {
	held   []byte // what is buffered and not read yet
	begun  bool   // held is set
	writes bool
}

// Wants implements abi.Stream.
func (s *stream) Wants() abi.Wants {
	after := s.guest.response != nil && (!s.asked || s.next)
	return abi.Wants{
		RequestHeaders:  true,
		ResponseHeaders: after,
		BufferRequest:   s.features&bufferRequest != 0,
		BufferResponse:  after && s.features&bufferResponse != 0,
		Silent:          true,
	}
}

// RequestHeaders implements abi.Stream: handle_request.
func (s *stream) RequestHeaders() (abi.Action, error) {
	g := s.guest
	g.current = s
	defer g.leave()
	if err := g.machine.Call(g.request, g.stack[:]); err != nil {
		return abi.Stop, err
	}
	s.asked, s.next, s.context = true, uint32(g.stack[0]) != 0, uint32(g.stack[0]>>32)
	if s.next {
		if s.status != 0 {
			s.x.EarlyStatus = s.status
		}
		s.x.EarlyBody = append(s.x.EarlyBody, s.answer...)
		return abi.Continue, nil
	}
	if s.status == 0 {
		s.status = 200
	}
	r := &s.x.Response
	*r = abi.Message{Status: s.status, Header: s.x.Early, Trailer: r.Trailer, Body: s.answer, Ended: true, Replaced: true, Changed: true}
	s.x.Early, s.x.Answered = nil, true
	return abi.Stop, nil
}

// ResponseHeaders implements abi.Stream: handle_response.
func (s *stream) ResponseHeaders() (abi.Action, error) {
	g := s.guest
	if g.response == nil || !s.next {
		return abi.Continue, nil
	}
	g.current = s
	defer g.leave()
	g.stack[0], g.stack[1] = uint64(s.context), 0
	if s.x.Failed {
		g.stack[1] = 1
	}
	return abi.Continue, g.machine.Call(g.response, g.stack[:])
}

func (g *guest) leave() { g.current = nil }

// RequestBody implements abi.Stream; guests pull content.
func (s *stream) RequestBody() (abi.Action, error) { return abi.Continue, nil }

// RequestTrailers implements abi.Stream.
func (s *stream) RequestTrailers() (abi.Action, error) { return abi.Continue, nil }

// ResponseBody implements abi.Stream.
func (s *stream) ResponseBody() (abi.Action, error) { return abi.Continue, nil }

// ResponseTrailers implements abi.Stream.
func (s *stream) ResponseTrailers() (abi.Action, error) { return abi.Continue, nil }

// Resumed implements abi.Stream; nothing pauses here.
func (s *stream) Resumed(bool) bool { return false }

// End implements abi.Stream.
func (s *stream) End() error {
	g := s.guest
	*s = stream{}
	g.spare = s
	return nil
}
