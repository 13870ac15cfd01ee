package main

import (
	"strings"
	"testing"

	"seawall/wasm/examples/exampletest"
)

const list = `
languages: en de pt-BR
key: country language
block: 451 KP SY
block: 403 XX
redirect: AT,CH https://de.example/*
redirect: FR /fr/*
redirect: IT /ciao
stay: chosen
`

func TestGeo(t *testing.T) {
	b := exampletest.NewBench(t, exampletest.Go(t, "geo"), nil)
	const page = "GET https://site.example/p?q=1"
	told := func(country, language string) string {
		return "> +X-Country: " + country + "\n> +X-Language: " + language + "\nkey country=" + country + " language=" + language
	}
	speaks := func(name, accept, want string) exampletest.Case {
		return exampletest.Case{"language: " + name, list, page + "\n@country US\nAccept-Language: " + accept, "", told("US", want)}
	}
	table := []exampletest.Case{
		{"known", list, page + "\n@country US", "", told("US", "en")},
		{"unknown", list, page, "", "> +X-Language: en\nkey country= language=en"},
		{"a client's own fields", list, page + "\nX-Country: KP\nX-Language: tlh\n@country US", "", "> -X-Country: KP\n> -X-Language: tlh\n" + told("US", "en")},
		{"and where nothing is known", "", page + "\nX-Country: KP\nX-Language: tlh", "", "> -X-Country: KP\n> -X-Language: tlh"},
		{"names of its own", "country-header: CF-IPCountry\nlanguages: fr\nlanguage-header: X-L\nkey: language", page + "\n@country FR", "",
			"> +Cf-Ipcountry: FR\n> +X-L: fr\nkey  language=fr"},
		{"kept out", list, page + "\n@country SY", "", "answer 451\nCache-Control: no-store\nContent-Type: text/plain; charset=utf-8\n| This is not available in your country."},
		{"forbidden", list, page + "\n@country XX", "", "answer 403\nCache-Control: no-store\nContent-Type: text/plain; charset=utf-8\n| This is not available in your country."},
		{"sent to another site", list, page + "\n@country AT", "", "answer 302\nCache-Control: no-store\nLocation: https://de.example/p?q=1"},
		{"and there already", list, "GET https://de.example/p\n@country AT", "", told("AT", "en")},
		{"sent to another path", list, page + "\n@country FR", "", "answer 302\nCache-Control: no-store\nLocation: /fr/p?q=1"},
		{"and there already, too", list, "GET https://site.example/fr/p\n@country FR", "", told("FR", "en")},
		{"a path that begins alike", list, "GET https://site.example/france\n@country FR", "", "answer 302\nCache-Control: no-store\nLocation: /fr/france"},
		{"no way to another site", list, "GET https://site.example//evil.example/\n@country FR", "", "answer 302\nCache-Control: no-store\nLocation: /fr//evil.example/"},
		{"to one page", list, page + "\n@country IT", "", "answer 302\nCache-Control: no-store\nLocation: /ciao"},
		{"on it", list, "GET https://site.example/ciao\n@country IT", "", told("IT", "en")},
		{"one who stays", list, page + "\n@country FR\nCookie: chosen=1", "", told("FR", "en")},
		speaks("the only one", "de", "de"),
		speaks("in capitals, with a region", "DE-at", "de"),
		speaks("by weight", "de;q=0.5, pt-BR;q=0.8, en;q=0.1", "pt-br"),
		speaks("by order", "de, en", "de"),
		speaks("not another region", "pt", "en"),
		speaks("unwanted", "de;q=0, fr", "en"),
		speaks("with odd weights", "de;q=7, en;q=, pt-br;q=0.0001, de ; q=0.3", "de"),
		speaks("without end", strings.Repeat("fr,", 30_000)+"de", "en"),
	}
	b.Table(t, table)
	b.Refusals(t, map[string]string{
		"languages":             "line 1: not NAME: VALUE: languages",
		"key: city":             "line 1: neither country nor language: key: city",
		"key: language":         "key: language needs languages",
		"block: KP":             "line 1: not block: 451 COUNTRY... or 403: block: KP",
		"block: 404 KP":         "not block: 451 COUNTRY... or 403",
		"# \nblock: 451 Korea":  "line 2: a country is a code of two capitals",
		"redirect: FR":          "not redirect: COUNTRY,COUNTRY TARGET",
		"redirect: fr /fr":      "a country is a code of two capitals",
		"redirect: FR ftp://x/": "the target is neither a path nor",
		"redirect: FR /*":       "the target is neither a path nor",
		"redirects: FR /fr":     "no such setting",
	})
}
