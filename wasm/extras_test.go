package wasm

import (
	"encoding/binary"
	"net/http"
	"testing"

	"seawall/wasm/abi"
	"seawall/wasm/extras"
)

// argumentsOf is the serialized map of names and values.
func argumentsOf(namesAndValues ...string) string {
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(namesAndValues)/2))
	for _, s := range namesAndValues {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(s)))
	}
	for _, s := range namesAndValues {
		b = append(append(b, s...), 0)
	}
	return string(b)
}

// asked is what the guests of TestExtrasInBothABIs ask, where the text begins in
// the result that is shown, and how long it is.
var asked = []struct {
	field, name, args string
	skip, size        int
}{
	{"x-mac", "seawall.hmac_sha256", argumentsOf("key", "links", "data", "/a", "encoding", "hex"), 12 + len("hash") + 1, 64},
	{"x-found", "seawall.kv_get", argumentsOf("map", "redirects", "key", "/old"), 4 + 16 + len("found\x00true\x00value") + 1, len("/new")},
}

// others are calls whose status is counted: a key that is not granted, an
// argument that is none, and a function that is not there.
var others = [][2]string{
	{"seawall.hmac_sha256", argumentsOf("key", "theirs", "data", "/a")},
	{"seawall.hmac_sha256", argumentsOf("kee", "links", "data", "/a")},
	{"seawall.none", ""},
}

// extrasHTTP is an http-wasm guest that asks, and answers 200 and the sum of the
// others' statuses.
func extrasHTTP() []byte {
	g := newGuest()
	get := g.imp(extensionModule, "get_property", "iiii", "I")
	foreign := g.imp(extensionModule, "call", "iiiiii", "I")
	header := g.http("set_header_value", "iiiii", "")
	status := g.http("set_status_code", "i", "")
	at := int32(0)
	text := func(s string) []byte {
		at += int32(len(s)) + 8
		return g.text(at-int32(len(s))-8, s)
	}
	var code []byte
	for _, a := range asked {
		code = append(code, cat(text(a.name), text(a.args), i32c(30000), i32c(1000), foreign, drop,
			i32c(0), text(a.field), i32c(int32(30000+a.skip)), i32c(int32(a.size)), header)...)
	}
	for field, path := range map[string]string{"x-country": "seawall.geo.country", "x-region": "source.client_region"} {
		code = append(code, cat(i32c(0), text(field), i32c(31000), text(path), i32c(31000), i32c(100), get, wrap, header)...)
	}
	code = append(code, i32c(200)...)
	for _, o := range others {
		code = append(code, cat(text(o[0]), text(o[1]), i32c(30000), i32c(1000), foreign, i64c(32), []byte{0x88}, wrap, []byte{0x6a})...)
	}
	g.fn("handle_request", "", "I", 0, code, status, answer)
	return g.bytes()
}

// extrasProxy does the same by proxy-wasm. What the host gives lies at 40000.
func extrasProxy() []byte {
	g := proxy()
	foreign := g.env("proxy_call_foreign_function", "iiiiii")
	get := g.env("proxy_get_property", "iiii")
	set := g.env("proxy_replace_header_map_value", "iiiii")
	local := g.env("proxy_send_local_response", "iiiiiiii")
	at := int32(0)
	text := func(s string) []byte {
		at += int32(len(s)) + 8
		return g.text(at-int32(len(s))-8, s)
	}
	out := cat(i32c(60000), i32c(60004))
	load := func(at int32) []byte { return cat(i32c(at), []byte{0x28, 2, 0}) }
	var code []byte
	for _, a := range asked {
		code = append(code, cat(text(a.name), text(a.args), out, foreign, drop,
			i32c(0), text(a.field), load(60000), i32c(int32(a.skip)), []byte{0x6a}, i32c(int32(a.size)), set, drop)...)
	}
	for field, path := range map[string]string{"x-country": "seawall\x00geo\x00country", "x-region": "source\x00client_region"} {
		code = append(code, cat(text(path), out, get, drop, i32c(0), text(field), load(60000), load(60004), set, drop)...)
	}
	code = append(code, i32c(200)...)
	for _, o := range others {
		code = append(code, cat(text(o[0]), text(o[1]), out, foreign, []byte{0x6a})...)
	}
	g.fn("proxy_on_request_headers", "iii", "i", 0, code, i32c(0), i32c(0), i32c(0), i32c(0), i32c(0), i32c(0), i32c(-1), local, drop, goOn)
	return g.finish()
}

// TestExtrasInBothABIs calls the node's functions, and asks for properties that
// are looked up, by a guest of each ABI.
func TestExtrasInBothABIs(t *testing.T) {
	set, err := extras.New(extras.Options{}).Open(extras.Config{
		Keys: map[string]extras.Key{"links": {Secret: []byte("a secret of sixteen bytes or more")}, "theirs": {Secret: []byte("another one of the same length...")}},
		Maps: map[string]map[string]string{"redirects": {"/old": "/new"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	foreign := set.Grant("f", []string{"links"}, []string{"redirects"}).Functions()
	host := newHost(t, Options{})
	for name, source := range map[string][]byte{"http-wasm": extrasHTTP(), "proxy-wasm": extrasProxy()} {
		c := chainOf(t, load(t, host, Spec{Source: source, Foreign: foreign}))
		looked := 0
		x := &abi.Exchange{
			Request: abi.Message{Method: "GET", Scheme: "https", Authority: "h", Target: "/", Header: http.Header{}},
			Facts: abi.Facts{Client: "192.0.2.7", Locate: func(client string) abi.Geo {
				looked++
				return abi.Geo{Country: client, Region: "BE"}
			}},
			Cache: abi.Cache{TTL: -1},
		}
		r := c.Begin(t.Context(), x)
		if res := r.Request(); res.Verdict != Answered {
			t.Fatalf("%s: got %+v, want an answer", name, res)
		}
		// By: printf /a | openssl dgst -sha256 -hmac 'a secret of sixteen bytes or more'
		const mac = "0a6d425800fc97cab2ef4bc124c09b7e5d0ff26d83e526552c3531c55f258604"
		for field, want := range map[string]string{"X-Mac": mac, "X-Found": "/new", "X-Country": "192.0.2.7", "X-Region": "BE"} {
			if got := x.Request.Header.Get(field); got != want {
				t.Errorf("%s: %s: got %q, want %q", name, field, got, want)
			}
		}
		if want := 200 + 1 + 2 + 1; x.Response.Status != want {
			t.Errorf("%s: the sum of statuses: got %d, want %d (not found, bad argument, not found)", name, x.Response.Status-200, want-200)
		}
		if looked != 1 {
			t.Errorf("%s: the place was looked up %d times, want once", name, looked)
		}
		r.End()
	}
}
