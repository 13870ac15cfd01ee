package wasm

import (
	"slices"
	"strings"

	"seawall/wasm/abi"
	"seawall/wasm/meter"
)

// Report is what can be said of a module without running it.
type Report struct {
	// ABI is "proxy-wasm" or "http-wasm"; "" when it speaks neither.
	ABI string
	// Refused says for what the module is not taken, a sentence each; none if
	// it would be, unless it fails when it is started.
	Refused []string
	// Imports are the functions it imports.
	Imports []ImportReport
	// Exports are the functions it exports.
	Exports []string
	// Callbacks says what the exported ones will do, a sentence each.
	Callbacks []string
	// Size and Rewritten are bytes of the module before and after it was
	// metered; Functions are those that have code.
	Size, Rewritten, Functions int
	// MemoryMin and MemoryMax are bytes of linear memory at first and at most,
	// as it declares; MemoryMax 0: as much as the limit allows.
	MemoryMin, MemoryMax uint64
	// Grows tells that it can enlarge its memory, Resettable that mode reset
	// is possible.
	Grows, Resettable bool
}

// ImportReport is an imported function; Why is empty when it is offered.
type ImportReport struct{ Module, Name, Why string }

// Check reports on a module with the default limits.
func Check(source []byte) Report {
	r := Report{Size: len(source)}
	info, guest, err := inspect(source)
	if err != nil {
		r.Refused = []string{err.Error()}
	}
	if info == nil {
		return r
	}
	r.Functions = info.Functions
	r.MemoryMin, r.MemoryMax = info.MemoryMin*page, info.MemoryMax*page
	for _, e := range info.Exports {
		if e.Kind == "function" {
			r.Exports = append(r.Exports, e.Name)
		}
	}
	imports := imported(info)
	for _, i := range imports {
		ir := ImportReport{Module: i.Module, Name: i.Name}
		if own, fault := core(i); own {
			ir.Why = fault
		} else if guest != nil {
			ir.Why = strings.Join(guest.Check([]abi.Import{i}), "; ")
		}
		r.Imports = append(r.Imports, ir)
	}
	if guest == nil {
		return r
	}
	r.ABI = guest.Name()
	r.Refused = append(r.Refused, refusals(guest, info, imports)...)
	r.callbacks()
	l, _ := Limits{}.filled()
	m, err := meter.Rewrite(source, meter.Limits{Memory: pages(l.Memory), Table: uint32(l.Table), Depth: uint32(l.Depth)})
	if err != nil {
		r.Refused = append(r.Refused, err.Error())
		return r
	}
	r.Rewritten, r.Grows, r.Resettable = len(m.Wasm), m.Grows, !m.Mutates
	return r
}

// callbacks says what exports do, in the order of an exchange.
func (r *Report) callbacks() {
	for _, c := range [][2]string{
		{"_initialize", "is run once in each machine, before anything else"},
		{"handle_request", "runs for each request: it may change it, or answer"},
		{"handle_response", "runs for the response of each request that it let pass; the machine is held until then"},
		{"proxy_on_vm_start", "is run once in each machine, with the VM configuration"},
		{"proxy_on_configure", "is run once in each machine, with the function's configuration"},
		{"proxy_on_context_create", "runs for each exchange, before its first callback"},
		{"proxy_on_request_headers", "runs for each request: it may change it, answer, or wait"},
		{"proxy_on_request_body", "sees the request's content, piece by piece"},
		{"proxy_on_request_trailers", "sees the request's trailers"},
		{"proxy_on_response_headers", "runs for each response: it may change or replace it"},
		{"proxy_on_response_body", "sees the response's content, piece by piece"},
		{"proxy_on_response_trailers", "sees the response's trailers"},
		{"proxy_on_http_call_response", "gets the answers to its own calls"},
		{"proxy_on_tick", "runs periodically, if it asks for it"},
		{"proxy_on_done", "runs when an exchange is over"},
		{"proxy_on_log", "runs when an exchange is over, to log it"},
		{"proxy_on_delete", "runs when an exchange is forgotten"},
	} {
		if slices.Contains(r.Exports, c[0]) {
			r.Callbacks = append(r.Callbacks, c[0]+" "+c[1])
		}
	}
}
