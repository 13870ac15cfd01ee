package admin

import (
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

type described struct {
	Paths map[string]map[string]struct {
		Summary     string
		Scope       string `yaml:"x-scope"`
		RequestBody struct {
			Content map[string]struct{ Schema schema }
		} `yaml:"requestBody"`
		Parameters []struct{ Name, In string }
		Responses  map[string]any
		Security   *[]any
	}
	Methods    map[string]string `yaml:"x-methods"`
	Components struct {
		Schemas map[string]schema
	}
}

type schema struct {
	Properties map[string]any
	Additional *any `yaml:"additionalProperties"`
}

// The description and the routes are the same calls, with the same scopes.
func TestDescriptionHasEveryRoute(t *testing.T) {
	h := new(fakeNode).handler(t, Access{})
	w := askBody(h, "GET", "/openapi.yaml", "", nil)
	var d described
	if err := yaml.Unmarshal(w.Body.Bytes(), &d); err != nil || w.Header().Get("Content-Type") != "application/yaml" {
		t.Fatalf("got %s: %v", w.Header(), err)
	}
	want := map[string]string{"GET /healthz": "", "GET /readyz": ""}
	for _, r := range routes() {
		if strings.HasPrefix(r.path, "/{") {
			if d.Methods[r.method] == "" {
				t.Errorf("x-methods has no %s", r.method)
			}
			delete(d.Methods, r.method)
			continue
		}
		want[r.method+" "+strings.ReplaceAll(r.path, "...}", "}")] = r.scope.String()
	}
	for method := range d.Methods {
		t.Errorf("x-methods has %s, which is no call", method)
	}
	got := map[string]string{}
	for path, methods := range d.Paths {
		for method, m := range methods {
			got[strings.ToUpper(method)+" "+path] = m.Scope
			if m.Summary == "" || len(m.Responses) < 1 {
				t.Errorf("%s %s: no summary or no responses", method, path)
			}
			if open := m.Security != nil && len(*m.Security) == 0; open != (m.Scope == "") {
				t.Errorf("%s %s: open to all %v, with the scope %q", method, path, open, m.Scope)
			}
			if n := len(regexp.MustCompile(`{[^}]*}`).FindAllString(path, -1)); n > len(m.Parameters) {
				t.Errorf("%s %s: %d parameters described of %d in the path", method, path, len(m.Parameters), n)
			}
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("described:\n%v\nanswered:\n%v", got, want)
	}
}

// A field that the description has is taken, and one that it has not is refused.
func TestDescriptionHasEveryField(t *testing.T) {
	var d described
	if err := yaml.Unmarshal(description, &d); err != nil {
		t.Fatal(err)
	}
	h := new(fakeNode).handler(t, Access{})
	for _, c := range []struct {
		path   string
		schema schema
	}{
		{"/v1/purges", d.Components.Schemas["Purge"]},
		{"/v1/warmups", d.Components.Schemas["WarmupRequest"]},
		{"/service/a/purge", d.Paths["/service/{service}/purge"]["post"].RequestBody.Content["application/json"].Schema},
		{"/client/v4/zones/a/purge_cache", d.Paths["/client/v4/zones/{zone}/purge_cache"]["post"].RequestBody.Content["application/json"].Schema},
	} {
		if len(c.schema.Properties) == 0 || c.schema.Additional == nil {
			t.Errorf("%s: no closed list of fields is described", c.path)
		}
		// The refusal of an unknown field lists those known.
		w := askBody(h, "POST", c.path, `{"no_such_field":1}`, nil)
		_, known, ok := strings.Cut(w.Body.String(), "no_such_field: is no field of this call; it has ")
		if !ok {
			_, known, ok = strings.Cut(w.Body.String(), `"no_such_field","detail":"is no field of this call; it has `)
		}
		known, _, _ = strings.Cut(known, `"`)
		names := strings.Split(known, ", ")
		slices.Sort(names)
		if want := slices.Sorted(maps.Keys(c.schema.Properties)); !ok || !slices.Equal(names, want) {
			t.Errorf("%s: it takes %v, and described are %v (%s)", c.path, names, want, w.Body)
		}
	}
}

// Each route answers by itself: no path of one is another's.
func TestRoutes(t *testing.T) {
	c := &call{h: new(fakeNode).handler(t, Access{})}
	for _, want := range c.h.routes {
		path := regexp.MustCompile(`{[^}]*}`).ReplaceAllString(want.path, "x")
		c.route = nil
		r, err := http.NewRequest(want.method, "http://127.0.0.1"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.RequestURI = path
		c.r = r
		if c.find(); c.route == nil || c.route.path != want.path || c.route.method != want.method {
			t.Errorf("%s %s is answered by %+v", want.method, path, c.route)
		}
	}
}
