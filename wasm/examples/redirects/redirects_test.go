package main

import (
	"strconv"
	"strings"
	"testing"

	"seawall/wasm/examples/exampletest"
)

const list = `
/old                   /new
/a                     /b?x=1
/blog/*                https://blog.example.com/*    308
/blog/about            /about                        302
/blog/de/*             /deutsch/*                    307
/all/*                 /one
//www.site.example/*   https://site.example/*
//OLD.example/x        /y
cache: 60
/go/*                  /*                            302
`

func TestRedirects(t *testing.T) {
	b := exampletest.NewBench(t, exampletest.Go(t, "redirects"), nil)
	const site = "GET https://site.example"
	answer := func(status, location, seconds string) string {
		return "answer " + status + "\nCache-Control: max-age=" + seconds + "\nLocation: " + location
	}
	table := []exampletest.Case{
		{"no rule", list, site + "/", "", ""},
		{"an exact one", list, site + "/old", "", answer("301", "/new", "3600")},
		{"longer than it", list, site + "/older", "", ""},
		{"below it", list, site + "/old/", "", ""},
		{"in capitals", list, site + "/Old", "", ""},
		{"a query", list, "POST https://site.example/old?a=%20&b", "", answer("301", "/new?a=%20&b", "3600")},
		{"two queries", list, site + "/a?y=2", "", answer("301", "/b?x=1&y=2", "3600")},
		{"a prefix", list, site + "/blog/2024/x.html?p=1", "", answer("308", "https://blog.example.com/2024/x.html?p=1", "3600")},
		{"the prefix itself", list, site + "/blog/", "", answer("308", "https://blog.example.com/", "3600")},
		{"without its slash", list, site + "/blog", "", ""},
		{"exact before prefix", list, site + "/blog/about", "", answer("302", "/about", "3600")},
		{"the longer prefix", list, site + "/blog/de/x/y", "", answer("307", "/deutsch/x/y", "3600")},
		{"all to one", list, site + "/all/x/y", "", answer("301", "/one", "3600")},
		{"another host", list, "GET https://WWW.site.example/x/y?z", "", answer("301", "https://site.example/x/y?z", "3600")},
		{"one page of another host", list, "GET https://old.example/x", "", answer("301", "/y", "3600")},
		{"another page of it", list, "GET https://old.example/xx", "", ""},
		{"a time of its own", list, site + "/go/there", "", answer("302", "/there", "60")},
		{"no way to another site", list, site + "/go//evil.example/x", "", answer("302", "/evil.example/x", "60")},
		{"nor by backslashes", list, site + `/go/\/\evil.example`, "", answer("302", "/evil.example", "60")},
		{"a path of slashes", list, site + strings.Repeat("/", 8000), "", ""},
		{"an empty list", "", site + "/old", "", ""},
	}
	table = append(table, thousands(20_000)...)
	b.Table(t, table)
	b.Refusals(t, map[string]string{
		"/a":                                     "line 1: not FROM TO [STATUS]: /a",
		"# one\n/a /b 303":                       "line 2: the status is none of 301, 302, 307, 308: /a /b 303",
		"a /b":                                   "line 1: FROM is no path: a /b",
		"/a?b /b":                                "FROM is no path",
		"/a b":                                   "TO is neither a path nor",
		"/a javascript:1":                        "TO is neither a path nor",
		"/a /\u00e4":                             "TO is neither a path nor",
		"/a /a":                                  "it leads to itself",
		"/a /b\n/a /c":                           "line 2: there is one from here already",
		"/a/* /b\n/a/* /c":                       "line 2: there is one from here already",
		"/a* /b":                                 "a star stands anywhere but behind the last slash",
		"/a/*/* /b":                              "a star stands anywhere but behind the last slash",
		"/a /b/*":                                "TO has a star, FROM has none",
		"cache: forever":                         "line 1: not a number of seconds",
		"/" + strings.Repeat("a", 512) + "/* /b": "FROM is longer than 512 bytes",
	})
}

// thousands are cases for the first, one amid and the last rule of n.
func thousands(n int) (cases []exampletest.Case) {
	var text strings.Builder
	for i := range n {
		s := strconv.Itoa(i)
		text.WriteString("/articles/2019/number-" + s + " /archive/" + s + "\n")
	}
	for _, i := range []int{0, n / 2, n - 1} {
		s := strconv.Itoa(i)
		cases = append(cases, exampletest.Case{s + " of thousands", text.String(), "GET https://site.example/articles/2019/number-" + s, "",
			"answer 301\nCache-Control: max-age=3600\nLocation: /archive/" + s})
	}
	return cases
}
