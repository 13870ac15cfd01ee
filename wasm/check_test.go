package wasm

import (
	"slices"
	"strings"
	"testing"
)

func TestCheckReports(t *testing.T) {
	g := newGuest()
	g.http("get_uri", "ii", "i")
	g.imp(wasiModule, "path_open", "iiiiiIIii", "i")
	g.imp(wasiModule, "random_get", "ii", "i")
	g.imp("env", "secret", "", "")
	g.fn("handle_request", "", "I", 0, i32c(1), []byte{0x40, 0}, drop, next)
	r := Check(g.bytes())
	var refused []string
	for _, i := range r.Imports {
		if i.Why != "" {
			refused = append(refused, i.Name)
		}
	}
	if r.ABI != "http-wasm" || !slices.Equal(refused, []string{"path_open", "secret"}) || len(r.Refused) != 2 {
		t.Errorf("got ABI %q, refused imports %q and sentences %q, want http-wasm, path_open and secret, and two", r.ABI, refused, r.Refused)
	}
	if r.MemoryMin != page || !r.Grows || !r.Resettable || r.Rewritten <= r.Size-1 || len(r.Callbacks) != 1 {
		t.Errorf("got %+v", r)
	}
	if r := Check([]byte("\x00asm\x0d\x00\x01\x00")); len(r.Refused) != 1 || !strings.Contains(r.Refused[0], "component") {
		t.Errorf("a component: got %+v", r)
	}
	if r := Check(nil); len(r.Refused) != 1 {
		t.Errorf("nothing: got %+v", r)
	}
}

// TestLimitsHaveBounds sees each default, and each maximum exceeded.
func TestLimitsHaveBounds(t *testing.T) {
	l, err := Limits{}.filled()
	if err != nil || l.CPU.Milliseconds() != 2 || l.Memory != 16<<20 || l.Field != 128<<10 || l.LogBytes != 16<<10 || l.Instances != 64<<20 {
		t.Errorf("the defaults: got %+v, %v", l, err)
	}
	for name, l := range map[string]Limits{
		"cpu": {CPU: 51e6}, "start": {Start: 11e9}, "wall": {Wall: 31e9}, "wait": {Wait: 61e9}, "memory": {Memory: 128<<20 + 1}, "table": {Table: 1<<20 + 1},
		"depth": {Depth: 1<<16 + 1}, "field": {Field: 1<<20 + 1}, "body": {Body: 64<<20 + 1}, "host_calls": {HostCalls: 1e6 + 1}, "http_calls": {HTTPCalls: 101},
		"log_bytes": {LogBytes: 1<<20 + 1}, "instances": {Instances: 4<<30 + 1}, "queue": {Queue: 4097}, "queue_wait": {QueueWait: 1e9 + 1},
		"shared_data": {SharedData: 64<<20 + 1}, "metrics": {Metrics: 1025},
	} {
		if _, err := l.filled(); err == nil || !strings.Contains(err.Error(), "limit "+name+":") {
			t.Errorf("%s over its maximum: got error %v", name, err)
		}
	}
	if _, err := (Limits{CPU: -1}).filled(); err == nil {
		t.Error("a negative limit was taken")
	}
}
