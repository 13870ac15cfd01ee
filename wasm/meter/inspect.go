package meter

import (
	"errors"
	"fmt"
)

// ValueType is a type of a parameter, result or global, as the binary format
// writes it.
type ValueType byte

// The value types of modules that Rewrite takes.
const (
	I32       ValueType = 0x7f
	I64       ValueType = 0x7e
	F32       ValueType = 0x7d
	F64       ValueType = 0x7c
	V128      ValueType = 0x7b
	FuncRef   ValueType = 0x70
	ExternRef ValueType = 0x6f
)

func (t ValueType) known() bool {
	switch t {
	case I32, I64, F32, F64, V128, FuncRef, ExternRef:
		return true
	}
	return false
}

// number tells whether a host can read and store the value through wazero.
func (t ValueType) number() bool { return t >= F64 && t <= I32 }

// String returns the name of the text format.
func (t ValueType) String() string {
	switch t {
	case I32:
		return "i32"
	case I64:
		return "i64"
	case F32:
		return "f32"
	case F64:
		return "f64"
	case V128:
		return "v128"
	case FuncRef:
		return "funcref"
	case ExternRef:
		return "externref"
	}
	return fmt.Sprintf("type %#x", byte(t))
}

// Import is something a module needs from its host. Kind is "function",
// "table", "memory", "global" or "tag"; Params and Results are a function's
// and may be shared between imports.
type Import struct {
	Module, Name, Kind string
	Params, Results    []ValueType
}

// Export is something a module offers its host; see Import.
type Export struct {
	Name, Kind      string
	Params, Results []ValueType
}

// Info is what a module says of itself.
type Info struct {
	Component bool // a component, of which nothing else is known
	Imports   []Import
	Exports   []Export
	Customs   []string // names of custom sections, up to 1000
	Functions int      // that have code
	Memories  int
	MemoryMin uint64 // pages of 64 KiB, of the first memory
	MemoryMax uint64 // what it declares; 0: no maximum
	HasStart  bool
}

// Inspect lists what a module imports and exports. It fails for what is no
// readable module; one that Rewrite refuses may well be listed.
func Inspect(bin []byte) (*Info, error) {
	s, err := parse(bin)
	if errors.Is(err, errComponent) {
		return &Info{Component: true}, nil
	}
	if err != nil {
		return nil, err
	}
	i := &Info{Customs: s.customs, Functions: len(s.bodies), Memories: len(s.memories), HasStart: s.start.set}
	if len(s.memories) > 0 {
		i.MemoryMin, i.MemoryMax = s.memories[0].min, s.memories[0].max
	}
	for _, m := range s.imports {
		im := Import{Module: m.module, Name: m.name, Kind: kindName(m.kind)}
		if m.kind == kindFunc {
			im.Params, im.Results = s.types[m.typ].params, s.types[m.typ].results
		}
		i.Imports = append(i.Imports, im)
	}
	for _, x := range s.exports {
		ex := Export{Name: x.name, Kind: kindName(x.kind)}
		if x.kind == kindFunc {
			t := s.types[s.funcs[x.index]]
			ex.Params, ex.Results = t.params, t.results
		}
		i.Exports = append(i.Exports, ex)
	}
	return i, nil
}
