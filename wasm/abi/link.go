package abi

import (
	"context"
	"fmt"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// HostFunction is a function that guests may import. Its parameters are in
// stack, its results go there. The upper half of an i32 is garbage: mask it.
type HostFunction struct {
	Name            string
	Params, Results []api.ValueType
	Call            func(c *Context, m api.Module, stack []uint64)
}

// HostModule makes a nameless module of the functions, as import resolution
// of package wasm needs it: what api.HostModuleBuilder.Instantiate returns
// would be registered under its name, once for a process, and is refused by
// wazero's resolver. The caller closes it.
//
// Its compiled form is dropped at once: an instance keeps the code alive, and
// nothing else would drop it.
func HostModule(ctx context.Context, r wazero.Runtime, name string, functions []HostFunction) (api.Module, error) {
	b := r.NewHostModuleBuilder(name)
	for _, f := range functions {
		call := f.Call
		b.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(ctx context.Context, m api.Module, stack []uint64) {
			call(ctx.(*Context), m, stack)
		}), f.Params, f.Results).Export(f.Name)
	}
	compiled, err := b.Compile(ctx)
	if err != nil {
		return nil, fmt.Errorf("wasm: host module %s: %w", name, err)
	}
	defer compiled.Close(ctx)
	m, err := r.InstantiateModule(ctx, compiled, wazero.NewModuleConfig().WithName(""))
	if err != nil {
		return nil, fmt.Errorf("wasm: host module %s: %w", name, err)
	}
	return m, nil
}
