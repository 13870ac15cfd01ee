package wasm

import (
	"errors"
	"fmt"

	"seawall/wasm/abi"

	"github.com/tetratelabs/wazero/api"
)

// extensionModule is imported by guests of the http-wasm ABI, which has no
// properties and no foreign functions of its own.
const extensionModule = "seawall"

// Results of set_property and call, as in proxy-wasm.
const (
	extensionOK          = 0
	extensionNotFound    = 1
	extensionBadArgument = 2
	extensionInternal    = 10
)

// extension lists the functions of the module:
//
//	get_property(path, path_len, buf, buf_limit i32) i64  found<<32 | length
//	set_property(path, path_len, value, value_len i32) i32  status
//	call(name, name_len, args, args_len, buf, buf_limit i32) i64  status<<32 | length
//
// As in http-wasm, nothing is written when a result is longer than buf_limit.
func extension() []abi.HostFunction {
	wrap := func(run func(extensionCall)) func(*abi.Context, api.Module, []uint64) {
		return func(c *abi.Context, m api.Module, stack []uint64) {
			run(extensionCall{wasiCall{c, m.Memory(), stack}, c.Machine.(*machine)})
		}
	}
	return []abi.HostFunction{
		{Name: "get_property", Params: signature("iiii"), Results: signature("I"), Call: wrap(extensionCall.property)},
		{Name: "set_property", Params: signature("iiii"), Results: signature("i"), Call: wrap(extensionCall.setProperty)},
		{Name: "call", Params: signature("iiiiii"), Results: signature("I"), Call: wrap(extensionCall.foreign)},
	}
}

type extensionCall struct {
	wasiCall
	machine *machine
}

// bytes reads what the pointer and length in parameters i and i+1 say.
func (c extensionCall) bytes(i int) []byte {
	n := c.i32(i + 1)
	if int64(n) > int64(c.machine.f.limits.Field) {
		panic(&abi.Trap{Kind: "argument", Err: fmt.Errorf("an argument of %d bytes; the limit is %d", n, c.machine.f.limits.Field)})
	}
	c.spend(int(n))
	b, ok := c.memory.Read(c.i32(i), n)
	if !ok {
		panic(&abi.Trap{Kind: "argument", Err: fmt.Errorf("%d bytes at %#x are not in memory", n, c.i32(i))})
	}
	return b
}

func (c extensionCall) put(i int, v []byte) {
	if uint64(len(v)) > uint64(c.i32(i+1)) || len(v) == 0 {
		return
	}
	c.spend(len(v))
	if !c.memory.Write(c.i32(i), v) {
		panic(&abi.Trap{Kind: "argument", Err: fmt.Errorf("%d bytes at %#x are not in memory", len(v), c.i32(i))})
	}
}

// exchange is that of the callback that runs; nil at start.
func (c extensionCall) exchange() *abi.Exchange {
	if e := c.machine.now; e != nil {
		return &e.x
	}
	return nil
}

func (c extensionCall) property() {
	path := string(c.bytes(0))
	x := c.exchange()
	if x == nil {
		c.stack[0] = 0
		return
	}
	v, ok := x.Property(path)
	if !ok {
		c.stack[0] = 0
		return
	}
	c.put(2, v)
	c.stack[0] = 1<<32 | uint64(uint32(len(v)))
}

func (c extensionCall) setProperty() {
	path, v := string(c.bytes(0)), c.bytes(2)
	x := c.exchange()
	if x == nil {
		c.stack[0] = extensionNotFound
		return
	}
	c.stack[0] = status(x.SetProperty(path, v))
}

func (c extensionCall) foreign() {
	name, args := string(c.bytes(0)), append([]byte(nil), c.bytes(2)...)
	v, err := c.Services.Foreign(c.exchange(), name, args)
	if err == nil {
		c.put(4, v)
	}
	c.stack[0] = status(err)<<32 | uint64(uint32(len(v)))
}

func status(err error) uint64 {
	switch {
	case err == nil:
		return extensionOK
	case errors.Is(err, abi.ErrNotFound):
		return extensionNotFound
	case errors.Is(err, abi.ErrArgument):
		return extensionBadArgument
	}
	return extensionInternal
}
