package purge

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestPrepareNamesEachFieldAtFault(t *testing.T) {
	many := func(n int) []string { return slices.Repeat([]string{"http://a.example/"}, n) }
	tests := []struct {
		name string
		r    Request
		want []string // "field: a part of the detail"
	}{
		{"nothing", Request{}, []string{"urls: nothing is named"}},
		{"a site alone", Request{Site: "s"}, []string{"urls: nothing is named"}},
		{"too many", Request{URLs: many(10_000)}, []string{"urls: one call may have 1000"}},
		{"too many in all", Request{URLs: many(600), Tags: slices.Repeat([]string{"x"}, 401)}, []string{"tags: 1001 URLs"}},
		{"too heavy", Request{Tags: slices.Repeat([]string{strings.Repeat("x", 1100)}, 1000)}, []string{"tags: one call may have 1048576"}},
		{"relative url", Request{URLs: []string{"/x", "http://a.example/", "a.example/x"}}, []string{"urls[0]: not absolute", "urls[2]: not absolute"}},
		{"url without host", Request{URLs: []string{"http:///x"}}, []string{"urls[0]: not absolute"}},
		{"url of another scheme", Request{URLs: []string{"ftp://a.example/x"}}, []string{"urls[0]: not absolute"}},
		{"url of no site", Request{URLs: []string{"http://bad.example/x"}}, []string{"urls[0]: is of no site"}},
		{"empty url", Request{URLs: []string{""}}, []string{"urls[0]: empty"}},
		{"long url", Request{URLs: []string{"http://a.example/" + strings.Repeat("x", MaxURLBytes)}}, []string{"urls[0]: may have 8192"}},
		{"url with a line break", Request{URLs: []string{"http://a.example/\n"}}, []string{"urls[0]: control byte"}},
		{"prefix without host", Request{Prefixes: []string{"/x", "http:///x", "b.example/x"}}, []string{"prefixes[0]: no host", "prefixes[1]: no host"}},
		{"prefix with a query", Request{Prefixes: []string{"a.example/x?q"}}, []string{"prefixes[0]: query"}},
		{"prefix of another scheme", Request{Prefixes: []string{"ftp://a.example/x"}}, []string{"prefixes[0]: unknown scheme"}},
		{"prefix of no site, told once", Request{Prefixes: []string{"bad.example/x"}}, []string{"prefixes[0]: is of no site"}},
		{"tags", Request{Tags: []string{"", "  ", "ok", strings.Repeat("x", 1025), "a\x00b", "\xff", strings.Repeat("x", 1024)}},
			[]string{"tags[0]: empty", "tags[1]: empty", "tags[3]: may have 1024", "tags[4]: control byte", "tags[5]: UTF-8"}},
		{"hosts", Request{Hosts: []string{"", "a b", "http://a.example", "a.example/x", "a.example:0", "a.example:99999", "a..b", "[::1", "[zz]", "a:b:c", "*.a.example", "ä.example", "a.example:+80"}},
			[]string{"hosts[0]: no host name", "hosts[1]: no host name", "hosts[2]: bad port", "hosts[3]: no host name", "hosts[4]: bad port", "hosts[5]: bad port", "hosts[6]: no host name",
				"hosts[7]: port", "hosts[8]: no host name", "hosts[9]: port", "hosts[10]: no host name", "hosts[11]: no host name", "hosts[12]: bad port"}},
		{"site", Request{Everything: true, Site: "a\nb"}, []string{"site: control byte"}},
		{"several lists at once", Request{URLs: []string{"x"}, Tags: []string{""}, Hosts: []string{"-", "a_b.example:8080"}}, []string{"urls[0]: absolute", "tags[0]: empty"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p, errs := Prepare(test.r, plain)
			if p != nil {
				t.Errorf("a request at fault is prepared")
			}
			if len(errs) != len(test.want) {
				t.Fatalf("got %d errors, want %d: %v", len(errs), len(test.want), &InvalidError{errs})
			}
			for i, e := range errs {
				field, part, _ := strings.Cut(test.want[i], ": ")
				if e.Field != field || !strings.Contains(e.Detail, part) {
					t.Errorf("error %d: %q, want %q with %q", i, e.Error(), field, part)
				}
			}
		})
	}
}

func TestPrepareTakesAsManyAsItSays(t *testing.T) {
	r := Request{Tags: slices.Repeat([]string{"x"}, MaxNames), Everything: true, Refresh: true}
	p, errs := Prepare(r, plain)
	if errs != nil {
		t.Fatal(&InvalidError{errs})
	}
	if got := p.Request(); !got.Soft {
		t.Errorf("refresh without soft: %+v", got.Soft)
	}
	if len(p.keys) != 2 {
		t.Errorf("%d rules of one tag and everything, want 2", len(p.keys))
	}
}

func FuzzPrepare(f *testing.F) {
	f.Add("http://a.example/x?q", "a.example/t/", "tag", "a.example:80", "s")
	f.Add("https://[::1]:8443/", "https://[::1]/x", "\x7f", "[::1]:1", "*")
	f.Add("http://a.example", "://", " ", "a.example.", "")
	f.Fuzz(func(t *testing.T, url, prefix, tag, host, site string) {
		r := Request{URLs: []string{url}, Prefixes: []string{prefix}, Tags: []string{tag}, Hosts: []string{host}, Site: site}
		p, errs := Prepare(r, plain)
		if (p == nil) == (errs == nil) {
			t.Fatalf("%+v: %v and %v", r, p, errs)
		}
		for _, e := range errs {
			if e.Field == "" || e.Detail == "" || !utf8.ValidString(e.Field) {
				t.Fatalf("%+v: %+v", r, e)
			}
		}
		if p == nil {
			return
		}
		for i, u := range append(slices.Clone(p.urls), p.prefixes...) {
			if i >= len(p.urls) && u.Path == "" {
				u.Path = "/"
			}
			if !p.Matches(&Subject{Site: "other", URL: u}) {
				t.Fatalf("%+v does not match its own %+v", r, u)
			}
		}
		if s := (&Subject{Site: site, Tags: []string{strings.Trim(tag, " ")}}); !p.Matches(s) {
			t.Fatalf("%+v does not match its own tag", r)
		}
		// What the log carries must come back as it was.
		rec := &record{Version: recordVersion, ID: "x"}
		if p, errs = Prepare(r, rec.remembering(plain)); errs != nil {
			t.Fatalf("%+v: %v", r, errs)
		}
		rec.Request = p.request
		data, err := rec.encode()
		if err != nil {
			t.Fatal(err)
		}
		_, again, err := decode(data, plain)
		if err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		if !slices.Equal(p.keys, again.keys) {
			t.Fatalf("%+v: keys %v, after the log %v", r, p.keys, again.keys)
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"v":1,"id":"x","request":{"tags":["a"]},"forms":{"http://a.example/":[["http","a.example","/",""]]}}`))
	f.Add([]byte(`{"v":2,"id":"x"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		rec, p, err := decode(data, plain)
		if err == nil && (rec == nil || p == nil || len(p.keys) == 0) {
			t.Fatalf("%q: decoded to nothing", data)
		}
	})
}
