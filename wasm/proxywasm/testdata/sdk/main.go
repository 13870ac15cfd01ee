//go:build wasip1

// Sdk is a guest on the Go SDK of proxy-wasm: it asks an upstream about each
// request, signs responses and rewrites their content.
package main

import (
	"strings"

	"github.com/proxy-wasm/proxy-wasm-go-sdk/proxywasm"
	"github.com/proxy-wasm/proxy-wasm-go-sdk/proxywasm/types"
)

func main() {}

func init() {
	proxywasm.SetPluginContext(func(uint32) types.PluginContext { return &plugin{} })
}

type plugin struct {
	types.DefaultPluginContext
	config string
	seen   proxywasm.MetricCounter
}

func (p *plugin) OnPluginStart(int) types.OnPluginStartStatus {
	config, err := proxywasm.GetPluginConfiguration()
	if err != nil || string(config) == "refuse" {
		return types.OnPluginStartStatusFailed
	}
	p.config = string(config)
	p.seen = proxywasm.DefineCounterMetric("seen")
	return types.OnPluginStartStatusOK
}

func (p *plugin) NewHttpContext(uint32) types.HttpContext { return &request{plugin: p} }

type request struct {
	types.DefaultHttpContext
	plugin *plugin
}

func (r *request) OnHttpRequestHeaders(int, bool) types.Action {
	r.plugin.seen.Increment(1)
	path, err := proxywasm.GetHttpRequestHeader(":path")
	if err != nil {
		panic(err)
	}
	if path == "/open" {
		return types.ActionContinue
	}
	headers := [][2]string{{":method", "GET"}, {":path", path}, {":authority", "auth"}}
	if _, err := proxywasm.DispatchHttpCall("auth", headers, nil, nil, 1000, r.answered); err != nil {
		panic(err)
	}
	return types.ActionPause
}

func (r *request) answered(int, int, int) {
	headers, err := proxywasm.GetHttpCallResponseHeaders()
	if err == nil && len(headers) > 0 && headers[0] == [2]string{":status", "200"} {
		if err := proxywasm.AddHttpRequestHeader("x-user", "known"); err != nil {
			panic(err)
		}
		if err := proxywasm.ResumeHttpRequest(); err != nil {
			panic(err)
		}
		return
	}
	if err := proxywasm.SendHttpResponse(403, [][2]string{{"x-why", "auth"}}, []byte("no"), -1); err != nil {
		panic(err)
	}
}

func (r *request) OnHttpResponseHeaders(int, bool) types.Action {
	if err := proxywasm.RemoveHttpResponseHeader("content-length"); err != nil {
		panic(err)
	}
	if err := proxywasm.ReplaceHttpResponseHeader("x-config", r.plugin.config); err != nil {
		panic(err)
	}
	return types.ActionContinue
}

func (r *request) OnHttpResponseBody(size int, end bool) types.Action {
	if !end {
		return types.ActionPause
	}
	body, err := proxywasm.GetHttpResponseBody(0, size)
	if err != nil {
		panic(err)
	}
	if err := proxywasm.ReplaceHttpResponseBody([]byte(strings.ToUpper(string(body)))); err != nil {
		panic(err)
	}
	return types.ActionContinue
}

func (r *request) OnHttpStreamDone() { proxywasm.LogInfo("done") }
