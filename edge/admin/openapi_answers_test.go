package admin

import (
	"encoding/json"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"seawall/edge"
)

// spec is the description, or a part of it, as it is written.
type spec map[string]any

func readSpec(t *testing.T) spec {
	t.Helper()
	var d spec
	if err := yaml.Unmarshal(description, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// at follows keys, and a $ref wherever it comes to one; nil is nothing there.
func (d spec) at(from any, keys ...string) map[string]any {
	part, _ := from.(map[string]any)
	for {
		if ref, ok := part["$ref"].(string); ok {
			part = d.at(map[string]any(d), strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
			continue
		}
		if len(keys) == 0 {
			return part
		}
		part, _ = part[keys[0]].(map[string]any)
		keys = keys[1:]
	}
}

// types are those that a schema allows; none is any.
func types(schema map[string]any) (all []string) {
	switch named := schema["type"].(type) {
	case string:
		return []string{named}
	case []any:
		for _, one := range named {
			all = append(all, fmt.Sprint(one))
		}
	}
	return all
}

// shape says where values of a type have other fields or types than a schema.
func (d spec) shape(of reflect.Type, schema any, at string, seen ...reflect.Type) (bad []string) {
	for of.Kind() == reflect.Pointer {
		of = of.Elem()
	}
	s := d.at(schema)
	is := func(name string) bool { return slices.Contains(types(s), name) }
	wrong := func() []string {
		return []string{fmt.Sprintf("%s is described as %v, and the answer has %v", at, schema, of)}
	}
	switch {
	case of == reflect.TypeFor[time.Time]():
		if !is("string") {
			return wrong()
		}
	case of.Kind() == reflect.Struct:
		if slices.Contains(seen, of) {
			return nil
		}
		described := slices.Sorted(maps.Keys(d.at(s, "properties")))
		var has, always []string
		for f := range of.Fields() {
			tag, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			if has = append(has, tag); options == "" {
				always = append(always, tag)
			}
			bad = append(bad, d.shape(f.Type, d.at(s, "properties")[tag], at+"."+tag, append(seen, of)...)...)
		}
		slices.Sort(has)
		if !is("object") || !slices.Equal(described, has) {
			bad = append(bad, fmt.Sprintf("%s is described with the fields %v, and the answer has %v", at, described, has))
		}
		slices.Sort(always)
		if required, ok := s["required"].([]any); ok && fmt.Sprint(sorted(required)) != fmt.Sprint(always) {
			bad = append(bad, fmt.Sprintf("%s is described with %v always, and the answer has %v", at, required, always))
		}
	case of.Kind() == reflect.Slice && is("array"):
		return d.shape(of.Elem(), s["items"], at+"[]", seen...)
	case of.Kind() == reflect.Map && is("object"):
		return d.shape(of.Elem(), s["additionalProperties"], at+"{}", seen...)
	case of.Kind() == reflect.String && (is("string") || s["enum"] != nil), of.Kind() == reflect.Bool && is("boolean"),
		of.Kind() == reflect.Float64 && is("number"), strings.Contains(of.Kind().String(), "int") && is("integer"):
	default:
		return wrong()
	}
	return bad
}

func sorted(all []any) (out []string) {
	for _, one := range all {
		out = append(out, fmt.Sprint(one))
	}
	slices.Sort(out)
	return out
}

// The answers have the fields that are described, of the same types, all the
// way down.
func TestDescriptionHasEveryAnswer(t *testing.T) {
	d := readSpec(t)
	schemas := d.at(map[string]any(d), "components", "schemas")
	answer := func(path, method string) any {
		return d.at(map[string]any(d), "paths", path, method, "responses", "200", "content", "application/json", "schema")
	}
	for _, c := range []struct {
		name   string
		schema any
		value  any
	}{
		{"Problem", schemas["Problem"], problemBody{}}, {"Stats", schemas["Stats"], statsBody{}},
		{"Purged", schemas["Purged"], purgeBody{}},
		{"Warmup", schemas["Warmup"], warmupBody{}}, {"Function", schemas["Function"], functionBody{}}, {"Origin", schemas["Origin"], poolBody{}},
		{"Stored", schemas["Stored"], edge.Stored{}}, {"a purge", answer("/v1/purges", "post"), purgeAnswer{}}, {"a push", answer("/v1/objects", "put"), objectAnswer{}},
	} {
		for _, bad := range d.shape(reflect.TypeOf(c.value), c.schema, c.name) {
			t.Error(bad)
		}
	}
}

// fits says where a value is other than a schema has it.
func (d spec) fits(v, schema any, at string) (bad []string) {
	s := d.at(schema)
	fault := func(format string, args ...any) { bad = append(bad, at+": "+fmt.Sprintf(format, args...)) }
	kind := map[reflect.Kind]string{reflect.String: "string", reflect.Bool: "boolean", reflect.Float64: "number", reflect.Slice: "array", reflect.Map: "object"}[reflect.ValueOf(v).Kind()]
	if v == nil {
		kind = "null"
	}
	if n, ok := v.(float64); ok && n == float64(int64(n)) && !slices.Contains(types(s), "number") {
		kind = "integer"
	}
	if want := types(s); len(want) > 0 && !slices.Contains(want, kind) {
		fault("got the %s %v, want %v", kind, v, want)
		return bad
	}
	if enum, ok := s["enum"].([]any); ok && !slices.Contains(sorted(enum), fmt.Sprint(v)) {
		fault("got %v, want one of %v", v, enum)
	}
	if one, ok := s["const"]; ok && fmt.Sprint(one) != fmt.Sprint(v) {
		fault("got %v, want %v", v, one)
	}
	switch v := v.(type) {
	case []any:
		for i := range v {
			bad = append(bad, d.fits(v[i], s["items"], fmt.Sprintf("%s[%d]", at, i))...)
		}
	case map[string]any:
		properties := d.at(s, "properties")
		for _, name := range sorted(toAny(s["required"])) {
			if _, ok := v[name]; !ok {
				fault("%s is missing", name)
			}
		}
		for name, one := range v {
			described, ok := properties[name]
			if !ok {
				described, ok = s["additionalProperties"].(map[string]any)
			}
			if !ok && (len(properties) > 0 || s["additionalProperties"] == false) {
				fault("%s is not described", name)
				continue
			}
			bad = append(bad, d.fits(one, described, at+"."+name)...)
		}
	}
	return bad
}

func toAny(v any) []any {
	all, _ := v.([]any)
	return all
}

// answered says how an answer is other than the description of its call.
func (d spec) answered(r *route, w *httptest.ResponseRecorder) []string {
	responses := d.at(map[string]any(d), "paths", strings.ReplaceAll(r.path, "...}", "}"), strings.ToLower(r.method), "responses")
	response := d.at(responses[fmt.Sprint(w.Code)])
	if response == nil {
		if response = d.at(responses["default"]); response == nil || w.Code < 400 {
			return []string{fmt.Sprintf("the status %d is not described", w.Code)}
		}
	}
	kind, _, _ := mime.ParseMediaType(w.Header().Get("Content-Type"))
	content := d.at(response, "content", kind)
	if content == nil {
		if response["content"] == nil && !strings.HasSuffix(kind, "json") {
			return nil // described in words
		}
		return []string{fmt.Sprintf("content of the type %q is not described for %d", kind, w.Code)}
	}
	if kind == "application/yaml" {
		return nil
	}
	var v any
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		return []string{err.Error()}
	}
	return d.fits(v, content["schema"], "the answer")
}

// wholeNode answers every call.
func wholeNode(t *testing.T) *Handler {
	t.Helper()
	f := &fakeFunctions{other: &Function{Name: "one", SHA256: "def", ABI: "proxy-wasm", Mode: "shared", OnError: "closed", Percent: 5, By: "address", Shadow: true}}
	f.other.Stats.Breaker, f.other.ShadowStats.Kinds = "half-open", map[string]int64{"key": 1}
	c := new(fakeNode).handler(t, Access{}).Config
	told := figures()
	c.Stats, c.Usage, c.Origins, c.Connections, c.Dropped, c.Extras = told.Stats, told.Usage, told.Origins, told.Connections, told.Dropped, told.Extras
	c.Functions = f.handler(t, Access{}).Functions
	o := newFakeOrigins()
	c.Pools = Pools{List: o.list, Drain: o.drain}
	h := newHandler(t, c)
	t.Cleanup(h.Close)
	return h
}

// Good and bad calls of every route are answered as described.
func TestAnswersAreAsDescribed(t *testing.T) {
	d, h := readSpec(t), wholeNode(t)
	done := make(map[string][2]int) // good and bad answers by route
	for _, c := range []struct {
		call, body string
		code       int
		change     func(*http.Request)
	}{
		{"GET /metrics", "", 200, nil}, {"GET /metrics", "", 401, as("nobody")},
		{"GET /v1/stats", "", 200, nil}, {"GET /v1/stats", "", 403, field("Origin", "http://evil.example")},
		{"GET /openapi.yaml", "", 200, nil}, {"GET /openapi.yaml", "", 403, field("Sec-Fetch-Site", "cross-site")},
		{"POST /v1/purges", `{"tags":["known"],"site":"a"}`, 200, nil}, {"POST /v1/purges", `{"tags":["known"],"site":"a","dry_run":true}`, 200, nil},
		{"POST /v1/purges", `{"urls":["http://a.example/x"],"soft":true}`, 200, field("Idempotency-Key", "k")},
		{"POST /v1/purges", `{"urls":["http://a.example/y"]}`, 409, field("Idempotency-Key", "k")},
		{"POST /v1/purges", `{"tag":["x"]}`, 400, nil}, {"POST /v1/purges", `[]`, 400, nil}, {"POST /v1/purges", `{`, 400, nil},
		{"POST /v1/purges", `{}`, 400, func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }},
		{"GET /v1/purges", "", 200, nil}, {"GET /v1/purges?limit=0", "", 400, nil}, {"GET /v1/purges?limits=1", "", 400, nil},
		{"GET /v1/purges/p1", "", 200, nil}, {"GET /v1/purges/p99", "", 404, nil},
		{"PUT /v1/objects?url=http://a.example/x", "hello", 200, nil}, {"PUT /v1/objects", "hello", 400, nil},
		{"PUT /v1/objects?url=http://a.example/x", "hello", 422, field("Cache-Control", "private")},
		{"PUT /v1/objects?url=http://a.example/x", strings.Repeat("a", 1001), 413, nil},
		{"GET /v1/objects?url=http://a.example/x", "", 200, nil}, {"GET /v1/objects?url=/x", "", 400, nil}, {"GET /v1/objects?uri=/x", "", 400, nil},
		{"POST /v1/warmups", `{"urls":["http://a.example/x"]}`, 202, nil}, {"POST /v1/warmups", `{"urls":["/x"]}`, 400, nil},
		{"GET /v1/warmups", "", 200, nil}, {"GET /v1/warmups?limit=1", "", 400, nil},
		{"GET /v1/warmups/{warmup}", "", 200, nil}, {"GET /v1/warmups/none", "", 404, nil},
		{"DELETE /v1/warmups/{warmup}", "", 204, nil}, {"DELETE /v1/warmups/none", "", 404, nil},
		{"GET /v1/functions", "", 200, nil}, {"GET /v1/functions?name=one", "", 400, nil},
		{"GET /v1/functions/one", "", 200, nil}, {"GET /v1/functions/three", "", 404, nil},
		{"PUT /v1/functions/one", "module", 200, nil}, {"PUT /v1/functions/new", "module", 201, nil}, {"PUT /v1/functions/one", "", 400, nil},
		{"DELETE /v1/functions/one", "", 204, nil}, {"DELETE /v1/functions/one?force=true", "", 400, nil},
		{"POST /v1/functions/one/rollout", `{"percent":5}`, 200, nil}, {"POST /v1/functions/one/rollout", `{"percent":"5"}`, 400, nil},
		{"POST /v1/functions/one/promote", "", 200, nil}, {"POST /v1/functions/one/promote?percent=5", "", 400, nil},
		{"POST /v1/functions/one/rollback", "", 200, nil}, {"POST /v1/functions/one/rollback?x", "", 400, nil},
		{"GET /v1/origins", "", 200, nil}, {"GET /v1/origins?pool=a", "", 400, nil},
		{"POST /v1/origins/one:80/drain", "", 200, nil}, {"POST /v1/origins/two:80/drain", "", 409, nil}, {"POST /v1/origins/one:80/drain?poo=a", "", 400, nil},
		{"POST /v1/origins/one:80/resume", "", 200, nil}, {"POST /v1/origins/one:80/resume?pool=a&pool=b", "", 400, nil},
		{"POST /purge/a.example/x", "", 200, nil}, {"POST /purge/c.example/x", "", 400, nil},
		{"POST /service/a/purge/t", "", 200, nil}, {"POST /service/x/purge/t", "", 400, nil},
		{"POST /service/a/purge", `{"surrogate_keys":["t"]}`, 200, nil}, {"POST /service/a/purge", `{"keys":["t"]}`, 400, nil},
		{"POST /service/a/purge_all", "", 200, nil}, {"POST /service/x/purge_all", "", 400, nil},
		{"POST /client/v4/zones/a/purge_cache", `{"tags":["t"]}`, 200, nil}, {"POST /client/v4/zones/a/purge_cache", `{"tag":["t"]}`, 400, nil},
	} {
		method, path, _ := strings.Cut(c.call, " ")
		if strings.Contains(path, "{warmup}") {
			var all struct{ Warmups []warmupBody }
			if err := json.Unmarshal(askBody(h, "GET", "/v1/warmups", "", nil).Body.Bytes(), &all); err != nil || len(all.Warmups) == 0 {
				t.Fatalf("no warm-up: %v", err)
			}
			path = strings.ReplaceAll(path, "{warmup}", all.Warmups[0].ID)
		}
		if c.code == 401 {
			h.Permit(testTokens())
		}
		w := askBody(h, method, path, c.body, c.change)
		h.Permit(Access{})
		if w.Code != c.code {
			t.Errorf("%s %s: got %d %s, want %d", c.call, c.body, w.Code, w.Body, c.code)
		}
		route := h.routeOf(method, path)
		for _, bad := range d.answered(route, w) {
			t.Errorf("%s %s: %s (%s)", c.call, c.body, bad, w.Body)
		}
		n := done[route.method+" "+route.path]
		n[min(w.Code/400, 1)]++
		done[route.method+" "+route.path] = n
	}
	for _, r := range routes() {
		if n := done[r.method+" "+r.path]; !strings.HasPrefix(r.path, "/{") && (n[0] == 0 || n[1] == 0) {
			t.Errorf("%s %s: %d good and %d bad answers were seen, want one of each at least", r.method, r.path, n[0], n[1])
		}
	}
}

// routeOf is the route of a call.
func (h *Handler) routeOf(method, path string) *route {
	path, _, _ = strings.Cut(path, "?")
	i := slices.IndexFunc(h.routes, func(r route) bool {
		pattern := regexp.MustCompile(`{[^}]*\.\.\.}`).ReplaceAllString(r.path, ".*")
		pattern = regexp.MustCompile(`{[^}]*}`).ReplaceAllString(pattern, "[^/]*")
		return r.method == method && regexp.MustCompile("^"+pattern+"$").MatchString(path)
	})
	return &h.routes[i]
}
