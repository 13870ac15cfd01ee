// Package proxywasm speaks the proxy-wasm ABI (0.2.1; modules of 0.2.0 and
// 0.1.0 load too), its HTTP subset, with guests that run on wazero.
//
// Every function of the ABI is offered to guests; those outside the subset
// answer UNIMPLEMENTED, since an undefined import would refuse modules that
// never call it. Nothing a guest passes is trusted: pointers are checked
// against its memory, sizes against the limits of its services.
package proxywasm

import (
	"context"
	"fmt"
	"strings"

	"seawall/wasm/abi"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// envModule is the import module that has all functions of the ABI.
const envModule = "env"

// versions are the exports by which modules tell their version, newest first.
func versions() []string {
	return []string{"proxy_abi_version_0_2_1", "proxy_abi_version_0_2_0", "proxy_abi_version_0_1_0"}
}

type proxyABI struct {
	funcs map[string]*hostFunc
}

// New returns the ABI. It keeps no state of guests: one serves all modules.
func New() abi.ABI { return &proxyABI{funcs: hostFuncs()} }

func (p *proxyABI) Name() string { return "proxy-wasm" }

// Detect reports whether one of the known versions is exported.
func (p *proxyABI) Detect(exports map[string]bool) bool {
	for _, v := range versions() {
		if exports[v] {
			return true
		}
	}
	return false
}

// Check returns a sentence for each import of imports that this ABI does not
// offer: an unknown name, a known one of another signature, or another module
// than env. Imports of WASI are not judged, they are the host's to offer.
func (p *proxyABI) Check(imports []abi.Import) []string {
	var refused []string
	for _, im := range imports {
		if im.Module == "wasi_snapshot_preview1" || im.Module == "wasi_unstable" {
			continue
		}
		f := p.funcs[im.Name]
		switch {
		case im.Module != envModule:
			refused = append(refused, fmt.Sprintf("The module imports %s.%s, but proxy-wasm functions are imported from %q.",
				im.Module, im.Name, envModule))
		case f == nil:
			refused = append(refused, fmt.Sprintf("The module imports %s.%s, which is no function of proxy-wasm 0.1.0 to 0.2.1.",
				im.Module, im.Name))
		case !f.fits(im.Params, im.Results):
			refused = append(refused, fmt.Sprintf("The module imports %s.%s as %s, but it is %s.",
				im.Module, im.Name, signature(im.Params, im.Results), f.signature()))
		}
	}
	return refused
}

// Link returns the module env with the functions that are imported from it,
// each with the signature that the importing module declares; nothing for a
// module that imports none.
func (p *proxyABI) Link(ctx context.Context, r wazero.Runtime, imports []abi.Import) (map[string]api.Module, error) {
	var functions []abi.HostFunction
	linked := make(map[string]bool)
	for _, im := range imports {
		// A module may import one function twice; wazero refuses it when the
		// types differ.
		if im.Module != envModule || linked[im.Name] {
			continue
		}
		f := p.funcs[im.Name]
		if f == nil || !f.fits(im.Params, im.Results) {
			return nil, fmt.Errorf("proxywasm: link %s.%s: not offered as %s", im.Module, im.Name, signature(im.Params, im.Results))
		}
		linked[im.Name] = true
		functions = append(functions, abi.HostFunction{
			Name: im.Name, Params: im.Params, Results: im.Results, Call: f.bind(len(im.Results) > 0),
		})
	}
	if len(functions) == 0 {
		return nil, nil
	}
	m, err := abi.HostModule(ctx, r, envModule, functions)
	if err != nil {
		return nil, fmt.Errorf("proxywasm: link: %w", err)
	}
	return map[string]api.Module{envModule: m}, nil
}

// signature prints a function type as "(i32, i64) -> i32".
func signature(params, results []api.ValueType) string {
	var b strings.Builder
	list := func(types []api.ValueType) {
		for i, t := range types {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(api.ValueTypeName(t))
		}
	}
	b.WriteByte('(')
	list(params)
	b.WriteByte(')')
	if len(results) > 0 {
		b.WriteString(" -> ")
		list(results)
	}
	return b.String()
}
