package wasm

import (
	"fmt"
	"math"
	"time"
)

// Limits are what a function is held to. Zero is the default; more than the
// maximum is an error. A callback is one call of the host into a guest.
type Limits struct {
	CPU        time.Duration // processor time of a callback; 2ms, at most 50ms
	Start      time.Duration // of starting and configuring a machine; 1s, at most 10s
	Wall       time.Duration // of a callback, with its waits for a processor or content; 1s, at most 30s
	Wait       time.Duration // how long a stream may be paused; 5s, at most 60s
	Memory     int64         // bytes of linear memory; 16 MiB, at most 128 MiB
	Table      int           // elements of each table; 65536, at most 1048576
	Depth      int           // nested calls; 8192, at most 65536
	Field      int           // bytes of a field or a body change; 128 KiB, at most 1 MiB
	Body       int64         // bytes of content that is buffered; 1 MiB, at most 64 MiB
	HostCalls  int           // in a callback; 10000, at most 1000000
	HTTPCalls  int           // for a request; 8, at most 100
	LogBytes   int           // for a request; 16 KiB, at most 1 MiB
	Instances  int64         // bytes of all machines of the function; 64 MiB, at most 4 GiB
	Queue      int           // requests that wait for a machine; 128, at most 4096
	QueueWait  time.Duration // how long each does; 50ms, at most 1s
	SharedData int64         // bytes that guests keep; 1 MiB, at most 64 MiB
	Metrics    int           // that guests define; 64, at most 1024
}

// limit is a row of the table: a field with its default and maximum.
type limit struct {
	name         string
	value        *int64
	preset, most int64
	spell        func(int64) string
}

func plain(n int64) string { return fmt.Sprint(n) }
func span(n int64) string  { return time.Duration(n).String() }

// filled returns l with its defaults, or says which field is out of bounds.
func (l Limits) filled() (Limits, error) {
	const (
		ms, s    = int64(time.Millisecond), int64(time.Second)
		kib, mib = int64(1 << 10), int64(1 << 20)
	)
	table, depth, field, calls := int64(l.Table), int64(l.Depth), int64(l.Field), int64(l.HostCalls)
	egress, log, queue, metrics := int64(l.HTTPCalls), int64(l.LogBytes), int64(l.Queue), int64(l.Metrics)
	rows := []limit{
		{"cpu", (*int64)(&l.CPU), 2 * ms, 50 * ms, span},
		{"start", (*int64)(&l.Start), s, 10 * s, span},
		{"wall", (*int64)(&l.Wall), s, 30 * s, span},
		{"wait", (*int64)(&l.Wait), 5 * s, 60 * s, span},
		{"memory", &l.Memory, 16 * mib, 128 * mib, plain},
		{"table", &table, 1 << 16, 1 << 20, plain},
		{"depth", &depth, 8192, 1 << 16, plain},
		{"field", &field, 128 * kib, mib, plain},
		{"body", &l.Body, mib, 64 * mib, plain},
		{"host_calls", &calls, 10_000, 1_000_000, plain},
		{"http_calls", &egress, 8, 100, plain},
		{"log_bytes", &log, 16 * kib, mib, plain},
		{"instances", &l.Instances, 64 * mib, 4096 * mib, plain},
		{"queue", &queue, 128, 4096, plain},
		{"queue_wait", (*int64)(&l.QueueWait), 50 * ms, s, span},
		{"shared_data", &l.SharedData, mib, 64 * mib, plain},
		{"metrics", &metrics, 64, 1024, plain},
	}
	for _, r := range rows {
		if *r.value < 0 || *r.value > r.most {
			return l, fmt.Errorf("wasm: limit %s: %s is not between 0 (the default, %s) and %s", r.name, r.spell(*r.value), r.spell(r.preset), r.spell(r.most))
		}
		if *r.value == 0 {
			*r.value = r.preset
		}
	}
	l.Table, l.Depth, l.Field, l.HostCalls = int(table), int(depth), int(field), int(calls)
	l.HTTPCalls, l.LogBytes, l.Queue, l.Metrics = int(egress), int(log), int(queue), int(metrics)
	if l.Memory < page {
		return l, fmt.Errorf("wasm: limit memory: %d is less than a page of %d", l.Memory, page)
	}
	return l, nil
}

// page is the unit of linear memory, in bytes.
const page = 1 << 16

// pages rounds up.
func pages(bytes int64) uint32 {
	return uint32(min((bytes+page-1)/page, math.MaxUint16+1))
}
