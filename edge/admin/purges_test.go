package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"seawall/purge"
)

func TestPurges(t *testing.T) {
	for _, c := range []struct {
		name, body string
		only       []string // sites
		want       purge.Request
	}{
		{"all at once", `{"urls":["http://a.example/1"],"prefixes":["b.example/x"],"tags":["t"],"hosts":["a.example"],"site":"b","soft":true,"any_query":true}`, nil,
			purge.Request{URLs: []string{"http://a.example/1"}, Prefixes: []string{"b.example/x"}, Tags: []string{"t"}, Hosts: []string{"a.example"}, Site: "b", Soft: true, AnyQuery: true}},
		{"everything of a site", `{"everything":true,"site":"a"}`, nil, purge.Request{Everything: true, Site: "a"}},
		{"everything of all", `{"everything":true,"site":"*"}`, nil, purge.Request{Everything: true, Site: "*"}},
		{"the only site", `{"tags":["t"]}`, []string{"a"}, purge.Request{Tags: []string{"t"}, Site: "a"}},
		{"a URL needs no site", `{"urls":["http://a.example/1"],"refresh":true}`, nil, purge.Request{URLs: []string{"http://a.example/1"}, Refresh: true}},
		{"escapes and white space", " {\n\t\"tags\" : [ \"\\u00e9\\\"\" ] , \"site\":\"a\" } \n", nil, purge.Request{Tags: []string{"é\""}, Site: "a"}},
		{"empty lists, and false", `{"urls":[],"tags":["t"],"site":"a","everything":false,"dry_run":false}`, nil, purge.Request{Tags: []string{"t"}, Site: "a"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := &fakeNode{only: c.only}
			w := askBody(n.handler(t, Access{}), "POST", "/v1/purges", c.body, nil)
			if w.Code != 200 || w.Header().Get("Content-Type") != "application/json" ||
				strings.TrimSpace(w.Body.String()) != `{"id":"p1","applied_at":"2001-09-09T01:46:41Z","matched":null}` {
				t.Fatalf("%s: got %d %s", c.body, w.Code, w.Body)
			}
			if len(n.purged) != 1 || !reflect.DeepEqual(n.purged[0], c.want) {
				t.Errorf("%s: purged %+v, want %+v", c.body, n.purged, c.want)
			}
		})
	}
}

// list is a JSON list of n strings, made by one format.
func list(n int, format string) string {
	items := make([]string, n)
	for i := range items {
		items[i] = fmt.Sprintf(`"`+format+`"`, i)
	}
	return "[" + strings.Join(items, ",") + "]"
}

// What is not right is told by field, as a problem document, and nothing is done.
func TestPurgesThatAreNotRight(t *testing.T) {
	for _, c := range []struct {
		name, body string
		status     int
		fields     []string // "field: part of the detail"
	}{
		{"nothing", "", 400, []string{"body: is not a JSON object"}},
		{"not JSON", "urls", 400, []string{"body: is not JSON"}},
		{"half of it", `{"urls":["http://a.example/`, 400, []string{"body: is not JSON at byte"}},
		{"no end", `{"urls":[]`, 400, []string{"body: is not JSON at byte"}},
		{"a comma too much", `{"urls":["http://a.example/"],}`, 400, []string{"body: is not JSON at byte"}},
		{"a list", `[]`, 400, []string{"body: is not a JSON object"}},
		{"null", `null`, 400, []string{"body: is not a JSON object"}},
		{"something behind it", onePurge + `{}`, 400, []string{"body: has something behind its object"}},
		{"not UTF-8", "{\"tags\":[\"\xff\"]}", 400, []string{"body: is not UTF-8"}},
		{"deep", `{"tags":` + strings.Repeat("[", 20000), 400, []string{"body: is not JSON at byte"}},
		{"nothing named", `{}`, 400, []string{"urls: nothing is named"}},
		{"nothing but options", `{"soft":true,"urls":[]}`, 400, []string{"urls: nothing is named"}},
		{"an unknown field", `{"url":["http://a.example/1"],"urls":["http://a.example/1"]}`, 400, []string{"url: is no field of this call; it has urls, prefixes"}},
		{"a field in capitals", `{"URLs":["http://a.example/1"]}`, 400, []string{"URLs: is no field"}},
		{"a field twice", `{"urls":["http://a.example/1"],"urls":[]}`, 400, []string{"urls: is there twice"}},
		{"other types", `{"urls":"http://a.example/","tags":[1,null,["x"]],"soft":1,"site":{},"hosts":null,"everything":"true"}`, 400, []string{
			"urls: is a string where a list of strings is wanted", "tags[0]: is a number where a string is wanted", "tags[1]: is null", "tags[2]: is a list",
			"hosts: is null where a list", "everything: is a string where true or false is wanted", "site: is an object where a string is wanted", "soft: is a number where true or false"}},
		{"a URL that is not absolute", `{"urls":["http://a.example/1","/1"]}`, 400, []string{"urls[1]: is not absolute"}},
		{"a URL of no site", `{"urls":["http://c.example/1"]}`, 400, []string{"urls[0]: has a host of no site"}},
		{"a prefix without host", `{"prefixes":["a.example/x","/x"]}`, 400, []string{"prefixes[1]: has no host"}},
		{"an over-long tag", `{"tags":["` + strings.Repeat("x", 1025) + `"],"site":"a"}`, 400, []string{"tags[0]: 1025 bytes; it may have 1024"}},
		{"an empty tag", `{"tags":[""],"site":"a"}`, 400, []string{"tags[0]: is empty"}},
		{"a host with a path", `{"hosts":["a.example/x"]}`, 400, []string{"hosts[0]: is no host name"}},
		{"tags of no site", `{"tags":["t"]}`, 400, []string{"site: is missing: tags and everything are of one site"}},
		{"everything of no site", `{"everything":true}`, 400, []string{"site: is missing"}},
		{"a site that is none", `{"tags":["t"],"site":"c"}`, 400, []string{`site: is "c", and no site has that name`}},
		{"ten thousand URLs", `{"urls":` + list(10_000, "http://a.example/%d") + `}`, 400, []string{"urls: 10000 URLs, prefixes, tags and hosts; one call may have 1000"}},
		{"one too many of several kinds", `{"urls":` + list(999, "http://a.example/%d") + `,"tags":["x","y"],"site":"a"}`, 400, []string{"tags: 1001 URLs"}},
		{"more than a call takes", `{"tags":["` + strings.Repeat("x", maxBody) + `"]}`, 413, []string{"body: is larger than the 1048576 bytes that a call takes; a purge takes 1000 items"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, dry := range []bool{false, true} {
				body := c.body
				if dry {
					body = strings.Replace(body, "{", `{"dry_run":true,`, 1)
					if c.body == `{}` {
						body = `{"dry_run":true}`
					}
				}
				n := new(fakeNode)
				w := askBody(n.handler(t, Access{}), "POST", "/v1/purges", body, func(r *http.Request) { r.Header.Set("Content-Type", "application/json") })
				checkFields(t, w.Code, w.Body.String(), w.Header().Get("Content-Type"), c.status, c.fields)
				if n.did() != 0 {
					t.Errorf("%.80s: it purged %+v", body, n.purged)
				}
			}
		})
	}
}

// checkFields checks a problem document that names these fields, in order.
func checkFields(t *testing.T, status int, body, kind string, want int, fields []string) {
	t.Helper()
	var p problemBody
	if err := json.Unmarshal([]byte(body), &p); err != nil || status != want || p.Status != want || p.Detail == "" || kind != "application/problem+json" {
		t.Fatalf("got %d %s %s (%v), want a problem document of status %d", status, kind, body, err, want)
	}
	if len(p.Errors) != len(fields) {
		t.Errorf("got %d errors, want %d: %s", len(p.Errors), len(fields), body)
	}
	for i, e := range p.Errors {
		if i < len(fields) && !strings.HasPrefix(e.Error(), fields[i]) {
			t.Errorf("error %d: got %q, want %q", i, e.Error(), fields[i])
		}
	}
}

func TestPurgeHeaders(t *testing.T) {
	key := func(values ...string) func(*http.Request) {
		return func(r *http.Request) { r.Header["Idempotency-Key"] = values }
	}
	for _, c := range []struct {
		name   string
		change func(*http.Request)
		want   int
		fields []string
	}{
		{"a form", func(r *http.Request) { r.Header.Set("Content-Type", "application/x-www-form-urlencoded") }, 400, []string{"Content-Type: is not application/json"}},
		{"text, as a page may send anywhere", func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }, 400, []string{"Content-Type: is not"}},
		{"no type", func(r *http.Request) { r.Header.Del("Content-Type") }, 400, []string{"Content-Type: is not"}},
		{"two types", field("Content-Type", "text/plain"), 400, []string{"Content-Type: is not"}},
		{"a type with a parameter", func(r *http.Request) { r.Header.Set("Content-Type", "application/json; charset=utf-8") }, 200, nil},
		{"a key", key("3b1c"), 200, nil},
		{"an empty key", key(""), 400, []string{"Idempotency-Key: is not one value"}},
		{"two keys", key("a", "b"), 400, []string{"Idempotency-Key: is not one value"}},
		{"a key with a space", key("a b"), 400, []string{"Idempotency-Key: is not one value"}},
		{"a long key", key(strings.Repeat("k", 129)), 400, []string{"Idempotency-Key: is not one value"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := new(fakeNode)
			w := askBody(n.handler(t, Access{}), "POST", "/v1/purges", onePurge, c.change)
			if c.want == 200 && w.Code == 200 {
				return
			}
			checkFields(t, w.Code, w.Body.String(), w.Header().Get("Content-Type"), c.want, c.fields)
			if n.did() != 0 {
				t.Errorf("it purged %+v", n.purged)
			}
		})
	}
}

// A key belongs to the token that used it.
func TestIdempotencyKeys(t *testing.T) {
	n := new(fakeNode)
	h := n.handler(t, testTokens())
	key := field("Idempotency-Key", "k1")
	for _, c := range []struct {
		name, token, body string
		want              int
	}{
		{"the first", "purger", onePurge, 200},
		{"again", "purger", onePurge, 200},
		{"for another purge", "purger", `{"hosts":["a.example"]}`, 409},
		{"of another token", "chief", `{"hosts":["a.example"]}`, 200},
	} {
		if w := askBody(h, "POST", "/v1/purges", c.body, all(as(c.token), key)); w.Code != c.want {
			t.Errorf("%s: got %d %s, want %d", c.name, w.Code, w.Body, c.want)
		}
	}
}

// What the log does not acknowledge is no success.
func TestPurgeLogFails(t *testing.T) {
	n := &fakeNode{err: errors.New("disk full")}
	w := askBody(n.handler(t, Access{}), "POST", "/v1/purges", onePurge, nil)
	checkProblem(t, w, 503)
	if w.Header().Get("Retry-After") == "" || strings.Contains(w.Body.String(), "disk full") || !strings.Contains(n.lines(), "disk full") {
		t.Errorf("got %v %s, and the log %s", w.Header(), w.Body, n.lines())
	}
}

func TestDryRun(t *testing.T) {
	n := new(fakeNode)
	h := n.handler(t, Access{})
	for body, want := range map[string]string{
		`{"tags":["known"],"site":"a","dry_run":true}`: `{"id":null,"applied_at":null,"matched":{"objects":2,"bytes":30,"sample":["http://a.example/1"]}}`,
		`{"tags":["other"],"site":"a","dry_run":true}`: `{"id":null,"applied_at":null,"matched":{"objects":0,"bytes":0,"sample":[]}}`,
	} {
		if w := askBody(h, "POST", "/v1/purges", body, nil); w.Code != 200 || strings.TrimSpace(w.Body.String()) != want {
			t.Errorf("%s: got %d %s, want %s", body, w.Code, w.Body, want)
		}
	}
	if n.did() != 0 {
		t.Errorf("a dry run purged %+v", n.purged)
	}
}

// A purge is found again by its id; a token bound to a site sees its own.
func TestPurgesAreListed(t *testing.T) {
	n := new(fakeNode)
	h := n.handler(t, testTokens())
	for _, body := range []string{onePurge, `{"tags":["t"],"site":"b"}`, `{"everything":true,"site":"a","urls":["http://a.example/"]}`} {
		if w := askBody(h, "POST", "/v1/purges", body, as("purger")); w.Code != 200 {
			t.Fatalf("%s: %d %s", body, w.Code, w.Body)
		}
	}
	for _, c := range []struct {
		name, path, token string
		status            int
		want              []string
		not               string
	}{
		{"all", "/v1/purges", "reader", 200, []string{`"id":"p3","kind":"mixed"`, `"id":"p2","kind":"tag"`, `"id":"p1","kind":"url"`}, ""},
		{"the last", "/v1/purges?limit=1", "reader", 200, []string{`"id":"p3"`}, `"id":"p2"`},
		{"a limit that is none", "/v1/purges?limit=x", "reader", 400, []string{`"field":"limit"`}, ""},
		{"one", "/v1/purges/p2", "reader", 200, []string{`"id":"p2","kind":"tag","request":{"tags":["t"],"site":"b"}`, `"nodes":[{"node":"n1","applied_at":"2001-09-09T01:46:41Z"}]`}, ""},
		{"none", "/v1/purges/p9", "reader", 404, []string{"No purge of this id"}, ""},
		{"its own", "/v1/purges", "bound", 200, []string{`"id":"p3"`, `"id":"p1"`}, `"id":"p2"`},
		{"another's", "/v1/purges/p2", "bound", 404, []string{"No purge of this id"}, ""},
	} {
		w := askBody(h, "GET", c.path, "", as(c.token))
		for _, want := range c.want {
			if w.Code != c.status || !strings.Contains(w.Body.String(), want) || c.not != "" && strings.Contains(w.Body.String(), c.not) {
				t.Errorf("%s: got %d %s, want %d with %s and without %q", c.name, w.Code, w.Body, c.status, want, c.not)
			}
		}
	}
}

// Any bytes are either a purge or a problem document, never both and never a
// panic.
func FuzzPurgeBody(f *testing.F) {
	for _, seed := range []string{onePurge, `{"tags":["a","a"],"site":"*"}`, `{"urls":["http://a.example/"],"urls":1}`, "[[", `{"":{}}`, `{"tags":[{"a":1,"a":2}]} x`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		n := new(fakeNode)
		h := n.handler(t, Access{})
		w := askBody(h, "POST", "/v1/purges", body, func(r *http.Request) { r.Header.Set("Content-Type", "application/json") })
		if done := n.did() == 1 || strings.Contains(w.Body.String(), `"matched":{`); done != (w.Code == 200) {
			t.Fatalf("%q: %d %s, and %d purges", body, w.Code, w.Body, n.did())
		}
		if w.Code != 200 && !json.Valid(w.Body.Bytes()) {
			t.Fatalf("%q: no problem document: %s", body, w.Body)
		}
	})
}

// What is wrong with a call must not cost much more than the call: a few bytes
// of it can each be a fault.
func TestFaultsAreBounded(t *testing.T) {
	h := new(fakeNode).handler(t, Access{})
	names := make([]string, 100_000)
	for i := range names {
		names[i] = fmt.Sprintf(`"%d":1`, i)
	}
	for _, c := range []struct{ name, body, says string }{
		{"a list of faults", `{"urls":[1` + strings.Repeat(",1", maxWarmBody/2-100) + `]}`, "urls[49]: is a number where a string is wanted"},
		{"many names", "{" + strings.Join(names, ",") + "}", "body: has more than 50 fields"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			w := askBody(h, "POST", "/v1/warmups", c.body, nil)
			runtime.ReadMemStats(&after)
			var p problemBody
			if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != 400 || len(p.Errors) == 0 || len(p.Errors) > maxFaults {
				t.Fatalf("got %d with %d errors, %v; want 400 with 1 to %d", w.Code, len(p.Errors), err, maxFaults)
			}
			if last := p.Errors[len(p.Errors)-1].Error(); last != c.says {
				t.Errorf("the last error: got %q, want %q", last, c.says)
			}
			if took, most := after.TotalAlloc-before.TotalAlloc, uint64(12*len(c.body)); took > most {
				t.Errorf("%d bytes of content took %d bytes of memory, want at most %d", len(c.body), took, most)
			}
		})
	}
}
