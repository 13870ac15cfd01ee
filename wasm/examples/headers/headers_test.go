package main

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"seawall/wasm"
	"seawall/wasm/abi"
)

// build compiles the function.
func build(t *testing.T) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "headers.wasm")
	cmd := exec.Command("go", "build", "-buildmode=c-shared", "-ldflags=-s -w", "-o", file, ".")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if out, err := cmd.CombinedOutput(); err != nil {
		if _, missing := exec.LookPath("go"); missing != nil {
			t.Skip("it takes the go command to build a function in Go")
		}
		t.Fatalf("%v\n%s", err, out)
	}
	source, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return source
}

func TestHeaders(t *testing.T) {
	source := build(t)
	if r := wasm.Check(source); r.ABI != "proxy-wasm" || len(r.Refused) > 0 {
		t.Fatalf("check: got ABI %q, refused %q; want proxy-wasm and nothing", r.ABI, r.Refused)
	}
	host, err := wasm.NewHost(wasm.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	for _, c := range []struct {
		name, config, origin string
		was, want            http.Header
	}{
		{"nothing", "", "", http.Header{"A": {"1"}}, http.Header{"A": {"1"}}},
		{"fields", "X-Frame-Options: DENY\n\n  Strict-Transport-Security: max-age=60; includeSubDomains \r\n", "https://a",
			http.Header{"X-Frame-Options": {"ALLOW", "ME"}},
			http.Header{"X-Frame-Options": {"DENY"}, "Strict-Transport-Security": {"max-age=60; includeSubDomains"}}},
		{"an origin that may", "cors: https://a https://b", "https://b", http.Header{"Vary": {"Accept"}},
			http.Header{"Vary": {"Accept", "Origin"}, "Access-Control-Allow-Origin": {"https://b"}}},
		{"an origin that may not", "cors: https://a", "https://evil", http.Header{}, http.Header{"Vary": {"Origin"}}},
		{"no origin", "cors: https://a", "", http.Header{}, http.Header{"Vary": {"Origin"}}},
		{"every origin", "cors: *", "https://any", http.Header{}, http.Header{"Access-Control-Allow-Origin": {"*"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := host.Load(context.Background(), wasm.Spec{Name: "headers", Source: source, Config: []byte(c.config)})
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			chain := wasm.NewChain([]*wasm.Function{f})
			defer chain.Close()
			for range 3 { // one machine serves them all
				x := &abi.Exchange{
					Request: abi.Message{Method: "GET", Scheme: "https", Authority: "site.example", Target: "/", Header: http.Header{}},
					Facts:   abi.Facts{Begun: time.Now()}, Cache: abi.Cache{TTL: -1},
				}
				if c.origin != "" {
					x.Request.Header.Set("Origin", c.origin)
				}
				run := chain.Begin(context.Background(), x)
				if result := run.Request(); result.Verdict != wasm.Continue {
					t.Fatalf("request: got %+v, want continue", result)
				}
				x.Response = abi.Message{Status: 200, Header: c.was.Clone(), Source: strings.NewReader("content")}
				if result := run.Response(); result.Verdict != wasm.Continue || x.Response.Status != 200 {
					t.Fatalf("response: got %+v, status %d; want continue and 200", result, x.Response.Status)
				}
				if got := headerText(x.Response.Header); got != headerText(c.want) {
					t.Errorf("%q, Origin %q, was %s\ngot  %s\nwant %s", c.config, c.origin, headerText(c.was), got, headerText(c.want))
				}
				run.End()
			}
		})
	}
	if _, err := host.Load(context.Background(), wasm.Spec{Name: "headers", Source: source, Config: []byte("nonsense")}); err == nil {
		t.Error("a configuration that is none: got no error")
	}
}

func headerText(h http.Header) string {
	var b strings.Builder
	if err := h.Write(&b); err != nil {
		return err.Error()
	}
	return strings.ReplaceAll(b.String(), "\r\n", " | ")
}
