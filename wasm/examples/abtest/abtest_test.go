package main

import (
	"math"
	"regexp"
	"strings"
	"testing"

	"seawall/wasm/examples/exampletest"
)

func TestGo(t *testing.T) { function(t, exampletest.Go(t, "abtest")) }
func TestC(t *testing.T)  { function(t, exampletest.C(t, "c/abtest.c")) }

// function is what the function does, in whatever language.
func function(t *testing.T, module []byte) {
	b := exampletest.NewBench(t, module, nil)
	const two = "variant: a 90\nvariant: b 10 /beta"
	const page = "GET https://site.example/p?q=1"
	const own = two + "\ncookie: exp-1\nheader: X-Exp\nmax-age: 60\n\n# the shop alone\npath: /shop/\npath: /cart"
	first := func(cookie string) string {
		return "< +Cache-Control: private\n< +Set-Cookie: " + cookie + "\n< +Vary: Cookie"
	}
	b.Table(t, []exampletest.Case{
		{"the cookie's", two, page + "\nCookie: ab=a", "", "> +X-Ab: a\nkey ab=a\n< +Vary: Cookie"},
		{"the other", two, page + "\nCookie: x=ab; y=1;ab=b ; z", "", "> GET https://site.example/beta/p?q=1\n> +X-Ab: b\nkey ab=b\n< +Vary: Cookie"},
		{"the first cookie counts", two, page + "\nCookie: ab=b; ab=a", "", "> GET https://site.example/beta/p?q=1\n> +X-Ab: b\nkey ab=b\n< +Vary: Cookie"},
		{"a client's own field", two, page + "\nCookie: ab=a\nX-Ab: b", "", "> -X-Ab: b\n> +X-Ab: a\nkey ab=a\n< +Vary: Cookie"},
		{"a new visitor", "variant: only 1", page, "404\nCache-Control: max-age=5",
			"> +X-Ab: only\nkey ab=only\n" + first("ab=only; Path=/; Max-Age=2592000; SameSite=Lax; Secure")},
		{"a cache in between", "variant: only 1", page, "200\nCDN-Cache-Control: max-age=60",
			"> +X-Ab: only\nkey ab=only\n< -Cdn-Cache-Control: max-age=60\n" + first("ab=only; Path=/; Max-Age=2592000; SameSite=Lax; Secure")},
		{"one without TLS", "variant: only 1", "GET http://site.example/", "", "> +X-Ab: only\nkey ab=only\n" + first("ab=only; Path=/; Max-Age=2592000; SameSite=Lax")},
		{"a cookie of no variant", "variant: only 1\nvariant: off 0", page + "\nCookie: ab=c", "200\nSet-Cookie: s=1",
			"> +X-Ab: only\nkey ab=only\n" + first("ab=only; Path=/; Max-Age=2592000; SameSite=Lax; Secure")},
		{"a weight of nothing is still remembered", "variant: only 1\nvariant: off 0", page + "\nCookie: ab=off", "", "> +X-Ab: off\nkey ab=off\n< +Vary: Cookie"},
		{"an empty cookie", "variant: only 1", page + "\nCookie: ab=", "", "> +X-Ab: only\nkey ab=only\n" + first("ab=only; Path=/; Max-Age=2592000; SameSite=Lax; Secure")},
		{"names of its own", own, "GET https://site.example/shop/1\nCookie: exp-1=b; ab=a", "", "> GET https://site.example/beta/shop/1\n> +X-Exp: b\nkey ab=b\n< +Vary: Cookie"},
		{"another of its paths", own, "GET https://site.example/cart\nCookie: exp-1=a", "", "> +X-Exp: a\nkey ab=a\n< +Vary: Cookie"},
		{"a path that is none", own, "GET https://site.example/shop\nCookie: exp-1=b", "", ""},
		{"and a client's own field there", own, "GET https://site.example/\nX-Exp: b", "", "> -X-Exp: b"},
		{"a cookie without end", two, page + "\nCookie: ab=a" + strings.Repeat("; a=b", 10_000), "", "> +X-Ab: a\nkey ab=a\n< +Vary: Cookie"},
	})
	b.Refusals(t, map[string]string{
		"":                             "no variant has a weight",
		"variant: a 0":                 "no variant has a weight",
		"variant: a":                   "line 1: not NAME WEIGHT [/PREFIX]: variant: a",
		"variant: a;b 1":               "line 1: not a name of letters, digits, - and _",
		"variant: a 1\nvariant: a 2":   "line 2: there is one of the name already",
		"variant: a -1":                "the weight is not a number from 0 to 65535",
		"variant: a 65536":             "the weight is not a number from 0 to 65535",
		"variant: a 1 b":               "the prefix is no path, or ends in a slash",
		"variant: a 1 /b/":             "the prefix is no path, or ends in a slash",
		"variant a 1":                  "line 1: not NAME: VALUE",
		"variant: a 1\n\npath: shop":   "line 3: not a path",
		"variant: a 1\ncookie: a b":    "line 2: not a name of letters",
		"variant: a 1\nmax-age: long":  "line 2: not a number of seconds",
		"variant: a 1\nmaxage: 5":      "line 2: no such setting: maxage: 5",
		"variant: a 1\nheader: x\x01y": "line 2: not a name of letters",
	})
	split(t, b.Load(t, "variant: a 50\nvariant: b 30\nvariant: c 20"))
}

// split holds the shares to the bound of chance: at six standard deviations a
// sound generator fails one run in hundreds of millions.
func split(t *testing.T, f *exampletest.Function) {
	const n = 5000
	drawn := regexp.MustCompile(`(?m)^key ab=(\w)$`)
	set := regexp.MustCompile(`(?m)^< \+Set-Cookie: ab=(\w);`)
	got := map[string]int{}
	for range n {
		text := f.Run("GET https://site.example/", "")
		key, cookie := drawn.FindStringSubmatch(text), set.FindStringSubmatch(text)
		if key == nil || cookie == nil || key[1] != cookie[1] {
			t.Fatalf("a new visitor: got\n%s\nwant a key and a cookie of one variant", text)
		}
		got[key[1]]++
	}
	for name, share := range map[string]float64{"a": 0.5, "b": 0.3, "c": 0.2} {
		off := math.Abs(float64(got[name]) - share*n)
		if bound := 6 * math.Sqrt(share*(1-share)*n); off > bound {
			t.Errorf("variant %s: %d of %d visitors, want %g within %g", name, got[name], n, share*n, bound)
		}
	}
}
