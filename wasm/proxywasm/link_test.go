package proxywasm

import (
	"strings"
	"testing"

	"seawall/wasm/abi"

	"github.com/tetratelabs/wazero/api"
)

func TestDetect(t *testing.T) {
	a := New()
	for _, v := range versions() {
		if !a.Detect(map[string]bool{v: true, "memory": true}) {
			t.Errorf("%s: not detected", v)
		}
	}
	if a.Detect(map[string]bool{"handle_request": true, "proxy_abi_version_0_3_0": true}) {
		t.Error("detected another ABI")
	}
}

func TestEveryFunctionLinks(t *testing.T) {
	h := newHost(t)
	var names []string
	for name := range hostFuncs() {
		names = append(names, name)
	}
	for _, imports := range [][]string{
		names,
		{"proxy_continue_request/none", "proxy_continue_response/none", "proxy_clear_route_cache/none"},
		{"proxy_continue_request", "proxy_continue_response/none", "proxy_clear_route_cache"},
		{"proxy_grpc_call/10", "proxy_grpc_stream/7"},
		{},
	} {
		// Many modules with their own links stand in one runtime.
		h.run(script{imports: imports}, newServices())
	}
}

func TestCheckNamesEachRefusal(t *testing.T) {
	types := func(n int) []api.ValueType { return make32(n) }
	imports := []abi.Import{
		{Module: "env", Name: "proxy_log", Params: types(3), Results: types(1)},
		{Module: "wasi_snapshot_preview1", Name: "fd_write", Params: types(4), Results: types(1)},
		{Module: "env", Name: "proxy_log", Params: types(2), Results: types(1)},
		{Module: "env", Name: "proxy_log", Params: types(3)},
		{Module: "env", Name: "proxy_launch", Params: types(1), Results: types(1)},
		{Module: "fastly_http_req", Name: "new", Params: types(1), Results: types(1)},
		{Module: "env", Name: "proxy_clear_route_cache", Params: types(1)},
		{Module: "env", Name: "proxy_increment_metric", Params: types(2), Results: types(1)},
		{Module: "env", Name: "proxy_grpc_call", Params: types(11), Results: types(1)},
		{Module: "env", Name: "proxy_grpc_call", Params: []api.ValueType{i64, i32, i32, i32, i32, i32, i32, i32, i32, i32}, Results: types(1)},
		{Module: "env", Name: "emscripten_notify_memory_growth", Params: types(1), Results: types(1)},
		{Module: "env", Name: "proxy_done", Results: []api.ValueType{i64}},
		{Module: "env", Name: "proxy_done", Results: types(2)},
	}
	got := New().Check(imports)
	want := []string{"proxy_log", "proxy_log", "env.proxy_launch", "fastly_http_req.new", "with or without", "i64", "grpc_call", "grpc_call", "growth", "proxy_done", "proxy_done"}
	if len(got) != len(want) {
		t.Fatalf("got %d sentences %q, want %d", len(got), got, len(want))
	}
	for i, sentence := range got {
		if !strings.Contains(sentence, want[i]) || !strings.HasSuffix(sentence, ".") {
			t.Errorf("got %q, want a sentence with %q", sentence, want[i])
		}
	}
	if got := New().Check(nil); got != nil {
		t.Errorf("got %q for no imports", got)
	}
}

func make32(n int) []api.ValueType {
	types := make([]api.ValueType, n)
	for i := range types {
		types[i] = api.ValueTypeI32
	}
	return types
}

func TestLinkRefusesWhatCheckDoes(t *testing.T) {
	h := newHost(t)
	_, err := New().Link(t.Context(), h.runtime, []abi.Import{{Module: "env", Name: "proxy_launch"}})
	if err == nil || !strings.Contains(err.Error(), "proxy_launch") {
		t.Errorf("got error %v, want one that names proxy_launch", err)
	}
	links, err := New().Link(t.Context(), h.runtime, []abi.Import{{Module: "other", Name: "x"}})
	if err != nil || links != nil {
		t.Errorf("got %v, %v for a module without imports of the ABI, want nothing", links, err)
	}
}
