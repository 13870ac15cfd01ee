package main

import (
	"testing"

	"seawall/wasm/examples/exampletest"
)

func TestGo(t *testing.T) { function(t, exampletest.Go(t, "headers")) }
func TestC(t *testing.T)  { function(t, exampletest.C(t, "c/headers.c")) }

// function is what the function does, in whatever language.
func function(t *testing.T, module []byte) {
	b := exampletest.NewBench(t, module, nil)
	const cors = "cors: https://a https://b"
	const all = cors + "\ncors-methods: PUT\ncors-headers: X-A, X-B\ncors-expose: ETag\ncors-max-age: 60\ncors-credentials: true"
	const get = "GET https://site.example/"
	const preflight = "OPTIONS https://site.example/a\nAccess-Control-Request-Method: PUT\nOrigin: "
	const vary = "\nVary: Access-Control-Request-Method, Access-Control-Request-Headers\nVary: Origin"
	b.Table(t, []exampletest.Case{
		{"nothing", "", get, "200\nA: 1", ""},
		{"fields", "X-Frame-Options: DENY\n\n# a comment\n  Strict-Transport-Security: max-age=60; includeSubDomains \r\n", get,
			"404\nX-Frame-Options: ALLOW\nX-Frame-Options: ME",
			"< -X-Frame-Options: ALLOW\n< -X-Frame-Options: ME\n< +Strict-Transport-Security: max-age=60; includeSubDomains\n< +X-Frame-Options: DENY"},
		{"removed ones", "-X-Powered-By\n-server", get, "200\nX-Powered-By: a\nServer: b\nC: c", "< -Server: b\n< -X-Powered-By: a"},
		{"an origin that may", cors, get + "\nOrigin: https://b", "200\nVary: Accept", "< +Access-Control-Allow-Origin: https://b\n< +Vary: Origin"},
		{"an origin that may not", cors, get + "\nOrigin: https://evil", "200\nAccess-Control-Allow-Origin: *",
			"< -Access-Control-Allow-Origin: *\n< +Vary: Origin"},
		{"a part of an origin", cors, get + "\nOrigin: https://", "", "< +Vary: Origin"},
		{"no origin", cors, get, "", "< +Vary: Origin"},
		{"every origin", "cors: *", get + "\nOrigin: https://any", "", "< +Access-Control-Allow-Origin: *"},
		{"with cookies", all, get + "\nOrigin: https://a", "",
			"< +Access-Control-Allow-Credentials: true\n< +Access-Control-Allow-Origin: https://a\n< +Access-Control-Expose-Headers: ETag\n< +Vary: Origin"},
		{"a preflight request", cors, preflight + "https://b", "",
			"answer 204\nAccess-Control-Allow-Methods: GET, HEAD, POST\nAccess-Control-Allow-Origin: https://b\nAccess-Control-Max-Age: 600" + vary},
		{"one with everything", all, preflight + "https://b", "",
			"answer 204\nAccess-Control-Allow-Credentials: true\nAccess-Control-Allow-Headers: X-A, X-B\nAccess-Control-Allow-Methods: PUT\n" +
				"Access-Control-Allow-Origin: https://b\nAccess-Control-Expose-Headers: ETag\nAccess-Control-Max-Age: 60" + vary},
		{"one of an origin that may not", cors, preflight + "https://evil", "", "answer 204" + vary},
		{"OPTIONS that is no preflight", cors, "OPTIONS https://site.example/a\nOrigin: https://a", "", "< +Access-Control-Allow-Origin: https://a\n< +Vary: Origin"},
		{"a preflight request without CORS", "A: b", preflight + "https://a", "", "< +A: b"},
	})
	b.Refusals(t, map[string]string{
		"nonsense":                          "line 1: not Name: value: nonsense",
		"A: b\n\nno name: c":                "line 3: not Name: value: no name: c",
		"-":                                 "line 1: not -Name: -",
		"cors-max-age: soon":                "line 1: not a number of seconds: cors-max-age: soon",
		"cors-credentials: yes":             "line 1: neither true nor false: cors-credentials: yes",
		"cors-origin: a":                    "line 1: no such setting: cors-origin: a",
		"cors: *\ncors-credentials: true\n": "name the origins",
	})
}
