package abi

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestProperty(t *testing.T) {
	number := func(n uint64) string { return string(binary.LittleEndian.AppendUint64(nil, n)) }
	x := &Exchange{
		Request: Message{Method: "GET", Scheme: "https", Authority: "h", Target: "/p?q=1", Header: http.Header{"A.b": {"1", "2"}, "User-Agent": {"ua"}}},
		Facts: Facts{ID: "7", Protocol: "HTTP/2", Source: "[::1]:99", TLSVersion: 0x304, ServerName: "sni", MTLS: true, ALPN: "h2", Cipher: 0x1301, Client: "192.0.2.1", Site: "shop",
			Begun: time.Unix(1, 5), Geo: Geo{Country: "NL", ASN: 3}},
		Cache: Cache{TTL: -1, Tags: []string{"a", "b"}}, Function: "f",
	}
	const absent = "absent"
	for path, want := range map[string]string{
		"request.path": "/p?q=1", "request.url_path": "/p", "request.query": "q=1", "request.host": "h", "request.scheme": "https",
		"request.method": "GET", "request.headers.a.b": "1, 2", "request\x00headers\x00a.b": "1, 2", "request\x00headers\x00a.b\x00": "1, 2",
		"request.useragent": "ua", "request.referer": absent, "request.id": "7", "request.protocol": "HTTP/2", "request.time": number(1_000_000_005),
		"request.headers.host": "h", "request": absent, "": absent, "response.code": absent, "response.headers.x": absent,
		"source.address": "[::1]:99", "source.port": number(99), "destination.port": absent,
		"connection.tls_version": "TLSv1.3", "connection.requested_server_name": "sni", "connection.mtls": "\x01", "connection.negotiated_protocol": "h2", "connection.cipher": "TLS_AES_128_GCM_SHA256",
		"seawall.client.address": "192.0.2.1", "seawall.client.x": absent, "seawall.site": "shop", "seawall.site.x": absent, "connection.id": "7",
		"plugin_name": "f", "plugin_name.x": absent, "seawall.geo.country": "NL", "seawall.geo.asn": number(3), "seawall.geo.city": absent,
		"seawall.cache.key": "", "seawall.cache.ttl": absent, "seawall.cache.tags": "a,b", "seawall.cache.status": absent, "seawall.x": absent,
	} {
		got, ok := x.Property(path)
		if s := string(got); !ok && want != absent || ok && s != want {
			t.Errorf("%q: got %q, %v, want %q", path, got, ok, want)
		}
	}
	x.Facts.Context = context.WithValue(t.Context(), http.LocalAddrContextKey, &net.TCPAddr{IP: net.IPv6loopback, Port: 80})
	if got, ok := x.Property("destination.address"); !ok || string(got) != "[::1]:80" {
		t.Errorf("destination.address: got %q, %v, want [::1]:80", got, ok)
	}
	x.Facts.Context = t.Context()
	if got, ok := x.Property("destination.address"); ok {
		t.Errorf("destination.address where nobody knows it: got %q", got)
	}
	x.Facts.ID, x.Facts.Number = "", 0xab
	for _, path := range []string{"request.id", "connection.id"} {
		if got, ok := x.Property(path); !ok || string(got) != "00000000000000ab" {
			t.Errorf("%s of a number: got %q, %v, want 00000000000000ab", path, got, ok)
		}
	}
	x.Response = Message{Status: 404, Header: http.Header{"X": {"y"}}}
	if got, ok := x.Property("response.code"); !ok || string(got) != number(404) {
		t.Errorf("response.code: got %q, %v", got, ok)
	}
}

// TestSetProperty sets each at each stage, with values good and bad.
func TestSetProperty(t *testing.T) {
	seconds := string(binary.LittleEndian.AppendUint64(nil, 60))
	for _, c := range []struct {
		path, value string
		at          string // the stages where it is taken, by number
		bad         error  // what it is elsewhere
	}{
		{"seawall.cache.key", "k", "0", ErrArgument},
		{"seawall\x00cache\x00key", "k", "0", ErrArgument},
		{"seawall.cache.key", strings.Repeat("k", keyLimit+1), "", ErrArgument},
		{"seawall.cache.ttl", seconds, "12", ErrArgument},
		{"seawall.cache.ttl", "60", "", ErrArgument},
		{"seawall.cache.ttl", "\xff\xff\xff\xff\xff\xff\xff\xff", "", ErrArgument},
		{"seawall.cache.tags", "a, b,,", "12", ErrArgument},
		{"seawall.cache.tags", strings.Repeat("a,", tagLimit+1), "", ErrArgument},
		{"seawall.cache.status", "hit", "", ErrArgument},
		{"seawall.cache.other", "", "", ErrNotFound},
		{"request.path", "/", "", ErrArgument},
		{"unknown", "", "", ErrNotFound},
	} {
		for stage := ViewerRequest; stage <= ViewerResponse; stage++ {
			x := &Exchange{Stage: stage, Request: Message{Target: "/"}, Cache: Cache{TTL: -1}}
			err := x.SetProperty(c.path, []byte(c.value))
			if strings.ContainsRune(c.at, rune('0'+stage)) {
				if err != nil {
					t.Errorf("%.40q at stage %d: got error %v", c.path, stage, err)
				}
				if x.Cache.Key == "" && x.Cache.TTL == -1 && !x.Cache.TagsSet {
					t.Errorf("%.40q at stage %d: nothing was set", c.path, stage)
				}
			} else if !errors.Is(err, c.bad) {
				t.Errorf("%.40q at stage %d: got error %v, want %v", c.path, stage, err, c.bad)
			}
		}
	}
}

// The place is looked up when it is asked for, once.
func TestThePlaceIsLookedUpOnce(t *testing.T) {
	asked := ""
	x := &Exchange{Facts: Facts{Client: "192.0.2.1", Locate: func(client string) Geo {
		asked += client + " "
		return Geo{Country: "NL", Region: "ZH"}
	}}}
	if _, ok := x.Property("source.address"); ok || asked != "" {
		t.Errorf("another property: asked for %q, want nothing", asked)
	}
	for path, want := range map[string]string{"seawall.geo.country": "NL", "source.client_region": "ZH", "seawall.geo.city": ""} {
		if got, _ := x.Property(path); string(got) != want {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
	if asked != "192.0.2.1 " {
		t.Errorf("asked for %q, want the client once", asked)
	}
	plain := &Exchange{Facts: Facts{Cipher: 0}}
	if got, ok := plain.Property("connection.cipher"); ok {
		t.Errorf("the cipher of clear text: got %q, want none", got)
	}
}
