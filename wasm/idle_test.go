package wasm

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"seawall/wasm/abi"
)

// tells is code that logs a property of the exchange, or that there is none.
func (g *guest) tells(get, log []byte, path string) []byte {
	load := []byte{0x28, 2, 0}
	return cat(g.text(0, path), i32c(200), i32c(204), get, []byte{0x04, 0x40},
		i32c(int32(abi.Warn)), g.text(300, "nothing"), log, drop,
		[]byte{0x05}, i32c(int32(abi.Warn)), i32c(200), load, i32c(204), load, log, drop, end)
}

// A guest without request callbacks knows in its others of the request what one
// with them does, also when there was no response.
func TestGuestsThatSeeNoRequestKnowIt(t *testing.T) {
	for _, c := range []struct {
		name    string
		exports func(g *guest, tell []byte)
	}{
		{"log", func(g *guest, tell []byte) { g.fn("proxy_on_log", "i", "", 0, tell) }},
		{"delete", func(g *guest, tell []byte) { g.fn("proxy_on_delete", "i", "", 0, tell) }},
		{"log after response header", func(g *guest, tell []byte) {
			g.fn("proxy_on_response_headers", "iii", "i", 0, goOn)
			g.fn("proxy_on_log", "i", "", 0, tell)
		}},
		{"response content", func(g *guest, tell []byte) { g.fn("proxy_on_response_body", "iii", "i", 0, tell, goOn) }},
		{"response header", func(g *guest, tell []byte) { g.fn("proxy_on_response_headers", "iii", "i", 0, tell, goOn) }},
	} {
		for _, mode := range []Mode{ModeShared, ModeReset} {
			for _, onError := range []OnError{Closed, Open} {
				t.Run(fmt.Sprint(c.name, mode, onError), func(t *testing.T) {
					g := proxy()
					get, log := g.env("proxy_get_property", "iiii"), g.env("proxy_log", "iii")
					c.exports(g, g.tells(get, log, "request.path"))
					lines := &bytes.Buffer{}
					h := newHost(t, Options{Log: slog.New(slog.NewTextHandler(lines, nil))})
					f := load(t, h, Spec{Source: g.finish(), Mode: mode, OnError: onError})
					chain := chainOf(t, f)
					for _, path := range []string{"/first", "/second"} {
						lines.Reset()
						ask(t, chain, func(x *abi.Exchange) { x.Request.Target = path })
						if !strings.Contains(lines.String(), "text="+path) || strings.Contains(lines.String(), "nothing") {
							t.Errorf("%s: got %q, want its path", path, lines)
						}
					}
					if !strings.Contains(c.name, "log") {
						return
					}
					lines.Reset()
					x := &abi.Exchange{Request: abi.Message{Method: "GET", Target: "/alone"}}
					r := chain.Begin(t.Context(), x)
					r.Request()
					r.End()
					if !strings.Contains(lines.String(), "text=/alone") {
						t.Errorf("without a response: got %q, want its path", lines)
					}
				})
			}
		}
	}
}
