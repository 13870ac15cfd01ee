package wasm

import (
	"crypto/rand"
	"encoding/binary"
	"time"

	"seawall/wasm/abi"

	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/sys"
)

// The names WASI is imported by.
const (
	wasiModule = "wasi_snapshot_preview1"
	wasiAlias  = "wasi_unstable"
)

// Error numbers of WASI.
const (
	wasiOK    = 0
	wasiBadF  = 8
	wasiFault = 21
	wasiInval = 28
)

// wasi lists the hand-picked part of WASI that guests' standard libraries
// need to start: clocks, randomness, standard output as log lines. There is
// no environment, no argument, no file.
func wasi() []abi.HostFunction {
	zero := func(c wasiCall) uint32 {
		// counts and sizes of nothing, at two pointers
		if !c.putUint32(c.i32(0), 0) || !c.putUint32(c.i32(1), 0) {
			return wasiFault
		}
		return wasiOK
	}
	done := func(wasiCall) uint32 { return wasiOK }
	none := func(wasiCall) uint32 { return wasiBadF }
	table := []struct {
		name, params string
		run          func(wasiCall) uint32
	}{
		{"args_get", "ii", done},
		{"args_sizes_get", "ii", zero},
		{"environ_get", "ii", done},
		{"environ_sizes_get", "ii", zero},
		{"clock_time_get", "iIi", wasiCall.clock},
		{"random_get", "ii", wasiCall.random},
		{"fd_write", "iiii", wasiCall.write},
		{"fd_close", "i", none},
		{"fd_seek", "iIii", none},
		{"fd_fdstat_get", "ii", wasiCall.stat},
		{"fd_fdstat_set_flags", "ii", done},
		{"fd_prestat_get", "ii", none},
		{"fd_prestat_dir_name", "iii", none},
		{"poll_oneoff", "iiii", wasiCall.poll},
		{"sched_yield", "", done},
	}
	list := make([]abi.HostFunction, 0, len(table)+1)
	for _, f := range table {
		list = append(list, abi.HostFunction{Name: f.name, Params: signature(f.params), Results: signature("i"),
			Call: func(c *abi.Context, m api.Module, stack []uint64) {
				w := wasiCall{c, m.Memory(), stack}
				w.spend(0)
				status := f.run(w)
				stack[0] = uint64(status)
			}})
	}
	return append(list, abi.HostFunction{Name: "proc_exit", Params: signature("i"),
		Call: func(_ *abi.Context, _ api.Module, stack []uint64) {
			panic(&abi.Trap{Kind: "exit", Err: sys.NewExitError(uint32(stack[0]))})
		}})
}

// signature reads "i" as i32 and "I" as i64.
func signature(s string) []api.ValueType {
	list := make([]api.ValueType, len(s))
	for i, c := range s {
		list[i] = api.ValueTypeI32
		if c == 'I' {
			list[i] = api.ValueTypeI64
		}
	}
	return list
}

type wasiCall struct {
	*abi.Context
	memory api.Memory
	stack  []uint64
}

func (c wasiCall) i32(i int) uint32 { return uint32(c.stack[i]) }

func (c wasiCall) spend(n int) {
	if err := c.Machine.Spend(n); err != nil {
		panic(err)
	}
}

func (c wasiCall) putUint32(at, v uint32) bool { return c.memory.WriteUint32Le(at, v) }

// clock gives real and monotonic time; what a process has used, no guest is
// told.
func (c wasiCall) clock() uint32 {
	var now int64
	switch c.i32(0) {
	case 0:
		now = time.Now().UnixNano()
	case 1:
		now = int64(c.Machine.(*machine).f.host.now())
	default:
		return wasiInval
	}
	if !c.memory.WriteUint64Le(c.i32(2), uint64(now)) {
		return wasiFault
	}
	return wasiOK
}

func (c wasiCall) random() uint32 {
	n := c.i32(1)
	c.spend(int(n))
	b, ok := c.memory.Read(c.i32(0), n)
	if !ok {
		return wasiFault
	}
	_, _ = rand.Read(b) // it never fails
	return wasiOK
}

// write makes log lines of standard output and error.
func (c wasiCall) write() uint32 {
	level := abi.Info
	switch c.i32(0) {
	case 1:
	case 2:
		level = abi.Error
	default:
		return wasiBadF
	}
	vectors, count := c.i32(1), c.i32(2)
	if count > 1024 {
		return wasiInval
	}
	list, ok := c.memory.Read(vectors, count*8)
	if !ok {
		return wasiFault
	}
	var line []byte
	total := uint32(0)
	for ; len(list) > 0; list = list[8:] {
		at, n := binary.LittleEndian.Uint32(list), binary.LittleEndian.Uint32(list[4:])
		b, ok := c.memory.Read(at, n)
		if !ok {
			return wasiFault
		}
		total += n
		line = append(line, b[:min(len(b), max(0, logLine-len(line)))]...)
	}
	c.spend(len(line))
	if len(line) > 0 {
		c.Services.Log(level, string(line))
	}
	if !c.putUint32(c.i32(3), total) {
		return wasiFault
	}
	return wasiOK
}

// stat says that 0 to 2 are character devices.
func (c wasiCall) stat() uint32 {
	if c.i32(0) > 2 {
		return wasiBadF
	}
	var stat [24]byte
	stat[0] = 2
	if !c.memory.Write(c.i32(1), stat[:]) {
		return wasiFault
	}
	return wasiOK
}

// poll says at once that each clock has rung, so that nobody sleeps while it
// holds a machine: who waits in a loop pays for it. Descriptors are bad.
func (c wasiCall) poll() uint32 {
	const subscription, event = 48, 32
	in, out, n := c.i32(0), c.i32(1), c.i32(2)
	if n == 0 || n > 64 {
		return wasiInval
	}
	subs, ok := c.memory.Read(in, n*subscription)
	if !ok {
		return wasiFault
	}
	events, ok := c.memory.Read(out, n*event)
	if !ok {
		return wasiFault
	}
	made := make([]byte, len(events)) // the two may overlap
	for i := range int(n) {
		sub, e := subs[i*subscription:], made[i*event:]
		copy(e[:8], sub[:8])
		e[10] = sub[8]
		if sub[8] != 0 {
			e[8] = wasiBadF
		}
	}
	copy(events, made)
	if !c.putUint32(c.i32(3), n) {
		return wasiFault
	}
	return wasiOK
}
