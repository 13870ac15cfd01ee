package main

import (
	"strings"
	"testing"

	"seawall/wasm/examples/exampletest"
)

const list = `
# Robots that say who they are are believed where their network is theirs.
allow asn=15169 ua=Googlebot
block ua=googlebot
allow net=192.0.2.128/25 ua=our monitor
block net=192.0.2.66
block net=2001:db8::/32
block country=xx path=/api
block asn=64500
block ua=
challenge path=/login ua=curl/
challenge path=/search
`

const blocked = "answer 403\nCache-Control: no-store\nContent-Type: text/plain; charset=utf-8\n| Robots of this kind are not welcome here."
const challenged = "> +X-Bot-Challenge: 1\nkey challenge"

func TestBots(t *testing.T) {
	b := exampletest.NewBench(t, exampletest.Go(t, "bots"), nil)
	const page = "GET https://site.example/p?q=1"
	const browser = "\nUser-Agent: Mozilla/5.0"
	const google = "\nUser-Agent: Mozilla/5.0 (compatible; GoogleBot/2.1)"
	b.Table(t, []exampletest.Case{
		{"a browser", list, page + browser, "", ""},
		{"no rules", "", page, "", ""},
		{"a verified robot", list, page + google + "\n@asn 15169", "", ""},
		{"one that pretends", list, page + google + "\n@asn 15170", "", blocked},
		{"one without a known network", list, page + google, "", blocked},
		{"a verified one where others are challenged", list, "GET https://site.example/search" + google + "\n@asn 15169", "", ""},
		{"a name in capitals", list, page + "\nUser-Agent: GOOGLEBOT", "", blocked},
		{"the monitor", list, page + "\nUser-Agent: Our Monitor 1\n@client 192.0.2.200", "", ""},
		{"an address", list, page + browser + "\n@client 192.0.2.66", "", blocked},
		{"its neighbour", list, page + browser + "\n@client 192.0.2.67", "", ""},
		{"a network of IPv6", list, page + browser + "\n@client 2001:db8:1::1", "", blocked},
		{"another", list, page + browser + "\n@client 2001:db9::1", "", ""},
		{"an address of IPv4 in IPv6", list, page + browser + "\n@client ::ffff:192.0.2.66", "", blocked},
		{"a country elsewhere", list, page + browser + "\n@country XX", "", ""},
		{"a country where it counts", list, "GET https://site.example/api/1" + browser + "\n@country XX", "", blocked},
		{"a network", list, page + browser + "\n@asn 64500", "", blocked},
		{"no User-Agent", list, page, "", blocked},
		{"a challenge", list, "POST https://site.example/login" + "\nUser-Agent: curl/8", "", challenged},
		{"the same elsewhere", list, page + "\nUser-Agent: curl/8", "", ""},
		{"everybody at a path", list, "GET https://site.example/search?q" + browser, "", challenged},
		{"a path in disguise", list, "GET https://site.example/s%65arch?q" + browser, "", challenged},
		{"a path in disguise that is allowed", "allow path=/public\nblock path=/", "GET https://site.example/public/..%2Fadmin" + browser, "", blocked},
		{"a path that is allowed", "allow path=/public\nblock path=/", "GET https://site.example/public/a%20b" + browser, "", ""},
		{"a long path in disguise, and many rules", strings.Repeat("block path=/gggggggggh\n", 1000),
			"GET https://site.example/" + strings.Repeat(`%2f;\`, 160) + browser, "", ""},
		{"a client's own field", list, page + browser + "\nX-Bot-Challenge: 1", "", "> -X-Bot-Challenge: 1"},
		{"an agent without end", list, page + "\nUser-Agent: " + strings.Repeat("g", 60_000) + "googlebot", "", ""},
		{"as many rules as there may be", strings.Repeat("block ua=gggggggggh\n", 1000), page + "\nUser-Agent: " + strings.Repeat("g", 60_000), "", ""},
		{"texts within texts", "block path=/a ua=abcd\nblock path=/b ua=bc\nblock path=/c ua=c\nblock path=/d ua=bce", "GET https://site.example/c\nUser-Agent: xabcx", "", blocked},
		{"a text behind the start of another", "block path=/a ua=abcd\nblock ua=bce", "GET https://site.example/c\nUser-Agent: abcabce", "", blocked},
		{"the last of several", "block ua=abcd\nblock ua=bce", "GET https://site.example/c\nUser-Agent: abcbcabbce", "", blocked},
		{"their letters alone", "block ua=abcd\nblock ua=bce", "GET https://site.example/c\nUser-Agent: abcbcabbc", "", ""},
	})
	b.Refusals(t, map[string]string{
		"deny ua=x":                          "line 1: the action is none of allow, block, challenge: deny ua=x",
		"# no\nblock":                        "line 2: no condition: block",
		"block ip=192.0.2.1":                 "no such condition: ip",
		"block asn=AS1":                      "asn is no number of a network",
		"block asn=0":                        "asn is no number of a network",
		"block net=192.0.2.0/33":             "net is neither an address nor a network",
		"block net=::ffff:1.2.3.4":           "net is neither an address nor a network",
		"block country=France":               "country is no code of two letters",
		"block path=login ua=x":              "path is none",
		"block " + "ua=" + long(513):         "longer than what is looked at, 512 bytes",
		strings.Repeat("block ua=x\n", 1001): "line 1001: more than 1000 rules",
	})
}

func long(n int) string { return strings.Repeat("x", n) }
