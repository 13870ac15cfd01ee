package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"seawall/wasm/examples/exampletest"
	"seawall/wasm/extras"
)

const secret = "a secret of more than 32 bytes, for tests"

func signed(key, link string) string {
	m := hmac.New(sha256.New, []byte(key))
	m.Write([]byte(link)) // a hash takes all
	return link + "&sig=" + hex.EncodeToString(m.Sum(nil))
}

func TestSignedURL(t *testing.T) {
	set, err := extras.New(extras.Options{}).Open(extras.Config{Keys: map[string]extras.Key{"links": {Secret: []byte(secret)}, "others": {Secret: []byte(secret)}}})
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	b := exampletest.NewBench(t, exampletest.Go(t, "signedurl"), set.Grant("signedurl", []string{"links"}, nil).Functions())
	const config = "key: links\npath: /private/\npath: /film"
	refused := func(why string) string {
		return "answer 403\nCache-Control: no-store\nContent-Type: text/plain; charset=utf-8\n| " + why
	}
	unsigned, changed, late := refused("This page needs a signed link."), refused("This link is not as it was signed."), refused("This link has expired.")
	soon, past := time.Now().Add(time.Hour).Unix(), time.Now().Add(-time.Second).Unix()
	link := func(path string, expires int64) string { return fmt.Sprintf("%sexpires=%d", path, expires) }
	good := signed(secret, link("/private/a?", soon))
	row := func(name, target, want string) exampletest.Case {
		return exampletest.Case{name, config, "GET https://site.example" + target, "", want}
	}
	passes := func(target string) string { return "> GET https://site.example" + target }
	b.Table(t, []exampletest.Case{
		row("good", good, passes("/private/a")),
		row("with a query", signed(secret, link("/film?x=1&y=%20&", soon)), passes("/film?x=1&y=%20")),
		row("with an empty query", signed(secret, link("/film?&", soon)), passes("/film?")),
		row("expired", signed(secret, link("/private/a?", past)), late),
		row("for ever", signed(secret, link("/film?", 1<<62-1)), passes("/film")),
		row("no time", "/private/a?sig="+strings.Repeat("0", 64), unsigned),
		row("a time that is none", signed(secret, "/private/a?expires=-1"), unsigned),
		row("a time too long", signed(secret, "/private/a?expires=99999999999999999999"), unsigned),
		row("two times", signed(secret, link(link("/private/a?", soon)+"&", soon)), unsigned),
		row("not signed", "/private/a", unsigned),
		row("half a signature", good[:len(good)-32], unsigned),
		row("a signature in capitals", good[:len(good)-64]+strings.ToUpper(good[len(good)-64:]), unsigned),
		row("something behind it", good+"&x=1", unsigned),
		row("another secret", signed("another secret that is not the node's", link("/private/a?", soon)), changed),
		row("another page", strings.Replace(good, "/private/a", "/private/b", 1), changed),
		row("another time", strings.Replace(good, "expires=", "expires=1", 1), changed),
		row("a query put in", strings.Replace(good, "?", "?user=bob&", 1), changed),
		row("expired and not signed", strings.Replace(signed(secret, link("/private/a?", past)), "/a", "/b", 1), changed),
		row("elsewhere", "/p?expires=1&sig=x", ""),
		row("elsewhere, with encodings", "/p/%20a;b//c%2Fd?x", ""),
		row("a letter encoded", "/%70rivate/a", unsigned),
		row("encoded twice", "/%2570rivate/a", unsigned),
		row("a slash encoded", "/private%2Fa", unsigned),
		row("a slash too many", "//private/a", unsigned),
		row("a backslash", `/x/..\private\a`, unsigned),
		row("by way of another", "/x/..%2Fprivate/a", unsigned),
		row("a parameter", "/private;x=1/a", unsigned),
		row("in capitals", "/PRIVATE/a", unsigned),
		row("a slash too many, and a segment that leads out for some", "//private/..;/a", unsigned),
		row("encoded without end", "/x/%252525252525252e", unsigned),
		row("good, with encodings", signed(secret, link("/private/%C3%A4%20;a?", soon)), passes("/private/%C3%A4%20;a")),
		{"another method", config, "PUT https://site.example" + good, "", refused("This link is not for that.")},
		{"HEAD", config, "HEAD https://site.example" + good, "", "> HEAD https://site.example/private/a"},
		{"a method of its own", "key: links\nmethods: PUT", "PUT https://site.example" + good, "", "> PUT https://site.example/private/a"},
		{"everywhere", "key: links", "GET https://site.example/", "", unsigned},
	})
	b.Refusals(t, map[string]string{
		"path: /a":               "no key",
		"key: ":                  "line 1: not one name",
		"key: a\n\nkey: b":       "line 3: not one name",
		"key: links\npath: a":    "line 2: not a path",
		"key: links\nmethods:":   "line 2: no method",
		"key: links\nexpires: 1": "line 2: no such setting",
		"key: others":            "the node has no secret others for this function",
	})
}
