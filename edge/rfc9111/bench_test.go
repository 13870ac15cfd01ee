package rfc9111

import (
	"net/http"
	"testing"
	"time"
)

// browser is what a common browser sends with each request.
func browser() http.Header {
	return header("Accept: text/html,*/*;q=0.8", "Accept-Encoding: gzip, deflate, br, zstd", "Accept-Language: en-GB,en;q=0.9,de;q=0.8",
		"User-Agent: Mozilla/5.0 (X11; Linux x86_64)", "Sec-Fetch-Mode: navigate")
}

func BenchmarkJudge(b *testing.B) {
	a := Ask{Method: "GET", URL: "https://a.example/x"}
	for name, h := range map[string]http.Header{
		"plain":    header("Cache-Control: public, max-age=60, stale-while-revalidate=30", "Date: "+dated(0), modified, tagged, "Vary: Accept-Encoding"),
		"targeted": header("CDN-Cache-Control: max-age=60", "Cache-Control: no-store", "Date: "+dated(0), tagged),
		"expires":  header("Expires: "+dated(time.Hour), "Date: "+dated(0), modified),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if d := Judge(a, 200, h, noon, noon, nil); !d.Store {
					b.Fatal(d.Why)
				}
			}
		})
	}
}

func BenchmarkFresh(b *testing.B) {
	terms := judge(200, "Cache-Control: max-age=60").Terms
	b.ReportAllocs()
	for b.Loop() {
		if !terms.Fresh(noon) || terms.Age(noon) != 0 {
			b.Fatal("stale")
		}
	}
}

func BenchmarkMatches(b *testing.B) {
	other := browser()
	other["Accept-Encoding"] = []string{"zstd, br;q=0.9, gzip"}
	other["Accept-Language"] = []string{"de;q=0.8,en;q=0.9,EN-gb"}
	for name, test := range map[string]struct {
		vary string
		req  http.Header
	}{
		"none":       {"", browser()},
		"identical":  {"Accept-Encoding, Accept-Language", browser()},
		"codings":    {"Accept-Encoding", other},
		"normalised": {"Accept-Encoding, Accept-Language", other},
	} {
		v, _ := VariantOf(browser(), header("Vary: "+test.vary))
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !v.Matches(test.req) {
					b.Fatal("no match")
				}
			}
		})
	}
}

func BenchmarkNotModified(b *testing.B) {
	v := ValidatorsOf(header(tagged, modified, "Date: "+dated(0)), noon)
	for name, req := range map[string]http.Header{
		"none": browser(), "tag": header(`If-None-Match: W/"b", "a"`), "date": header("If-Modified-Since: " + dated(0)),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if NotModified("GET", req, v) != (name != "none") {
					b.Fatal("wrong answer")
				}
			}
		})
	}
}

func BenchmarkRequestDirectives(b *testing.B) {
	for name, req := range map[string]http.Header{"none": browser(), "reload": header("Cache-Control: max-age=0")} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if d := RequestDirectives(req); d.NoStore {
					b.Fatal("no-store")
				}
			}
		})
	}
}
