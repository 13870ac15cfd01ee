package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

const schemaFile = "../../deploy/config/seawall.schema.json"

// The schema that editors use is the table's.
func TestSchemaIsTheTables(t *testing.T) {
	want, err := schema()
	if err != nil {
		t.Fatal(err)
	}
	code, out, errs := command("check", "--schema")
	if code != exitDone || out != string(want) || errs != "" {
		t.Errorf("check --schema: got %d, %d bytes, %q; want 0 and the %d bytes of the schema", code, len(out), errs, len(want))
	}
	if got, err := os.ReadFile(schemaFile); err != nil || string(got) != string(want) {
		t.Errorf("deploy/config/seawall.schema.json is not what the configuration's table makes (%v); write it anew:\n\n"+
			"\tgo run ./cmd/seawall check --schema > deploy/config/seawall.schema.json\n", err)
	}
	if code, _, errs := command("check"); code != exitUsage || !strings.Contains(errs, "takes a <file>") {
		t.Errorf("check of nothing: got %d %q, want %d", code, errs, exitUsage)
	}
}

// Every example fits the schema, and what check refuses for its form does not.
func TestSchemaFits(t *testing.T) {
	text, err := schema()
	if err != nil {
		t.Fatal(err)
	}
	var root map[string]any
	if err := json.Unmarshal(text, &root); err != nil {
		t.Fatal(err)
	}
	paths, err := filepath.Glob("../../deploy/config/*.yaml")
	if err != nil || len(paths) < 2 {
		t.Fatalf("examples: %v, %v", paths, err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if at := misfits(root, root, yamlValue(t, string(text)), ""); at != "" {
			t.Errorf("%s does not fit the schema: %s", path, at)
		}
	}
	const site = "sites: [{origins: ['http://a'], %s}]"
	for _, c := range []struct{ text, at string }{
		{"", ""},
		{"listen: {https: off, max_connections_per_client: off}", ""},
		{"listen: {http: '${HTTP}', max_connections: '${MOST}'}", ""},
		{"cache: {memory: 100000000}", ""},
		{"functions: {a: {config: [1], mode: shared, limits: {cpu: 1ms}}}", ""},
		{fmt.Sprintf(site, "breaker: off, hedge: {}, balance: key_hash, retry: {on: [429, 503], attempts: auto}"), ""},
		{fmt.Sprintf(site, "health:"), ""},
		{"sights: []", "/: sights"},
		{"sites: {}", "/sites"},
		{"sites: [{hosts: [a.example]}]", "/sites/0: origins is missing"},
		{"sites: [{origins: [{name: a}]}]", "/sites/0/origins/0"},
		{fmt.Sprintf(site, "routes: [{prefix: /a}]"), "/sites/0/routes/0: origins is missing"},
		{fmt.Sprintf(site, "breaker: on"), "/sites/0/breaker"},
		{fmt.Sprintf(site, "balance: random"), "/sites/0/balance"},
		{fmt.Sprintf(site, "retry: {on: [404]}"), "/sites/0/retry/on/0"},
		{fmt.Sprintf(site, "health: {rise: 0}"), "/sites/0/health/rise"},
		{fmt.Sprintf(site, "health: {rise: 1.5}"), "/sites/0/health/rise"},
		{fmt.Sprintf(site, "timeouts: {header: 5}"), "/sites/0/timeouts/header"},
		{fmt.Sprintf(site, "timeouts: {header: 5 s}"), "/sites/0/timeouts/header"},
		{fmt.Sprintf(site, "pool: {hold: 1XB}"), "/sites/0/pool/hold"},
		{"functions: {a: {limits: {cpus: 1}}}", "/functions/a/limits: cpus"},
	} {
		at := misfits(root, root, yamlValue(t, c.text), "")
		if (at == "") != (c.at == "") || !strings.HasPrefix(at, c.at) {
			t.Errorf("%s\ngot  %q\nwant %q", c.text, at, c.at)
		}
		if _, err := parse(c.text); (err == nil) != (c.at == "") && !strings.Contains(c.text, "${") {
			t.Errorf("%s: check says %v, and the schema %q", c.text, err, at)
		}
	}
}

// What the words of each key say is what its parser takes.
func TestSchemaSaysWhatIsTaken(t *testing.T) {
	seen := 0
	var look func(path string, s shape)
	look = func(path string, s shape) {
		if s.items != nil {
			look(path, *s.items)
		}
		if s.or != nil {
			look(path, *s.or)
		}
		if s.rows != nil {
			for _, r := range s.rows() {
				look(path+"."+r.name, r.looks)
				if r.def != "" && r.looks.reads != nil && r.looks.reads(r.def) != nil {
					t.Errorf("%s.%s does not take its default %q", path, r.name, r.def)
				}
			}
		}
		if s.reads == nil {
			return
		}
		taken, refused := bounds(s.kind)
		for _, text := range taken {
			if seen++; s.reads(text) != nil {
				t.Errorf("%s is %s, and %q is refused: %v", path, s.kind, text, s.reads(text))
			}
		}
		for _, text := range refused {
			if s.reads(text) == nil {
				t.Errorf("%s is %s, and %q is taken", path, s.kind, text)
			}
		}
	}
	look("", shape{rows: rowsOf(settingsKeys)})
	if seen < 200 {
		t.Errorf("only %d values tried", seen)
	}
}

// bounds are texts that a kind's words say are taken, and some that are not.
func bounds(kind string) (taken, refused []string) {
	if m := regexp.MustCompile(kindOfNumber).FindStringSubmatch(kind); m != nil {
		taken = append(taken, m[2], m[3])
		most, _ := strconv.ParseFloat(m[3], 64)
		refused = append(refused, strconv.FormatFloat(most+1, 'f', -1, 64), "-1", "much")
		for _, other := range []string{m[1], m[4]} {
			if other != "" {
				taken = append(taken, other)
			}
		}
		return taken, refused
	}
	for _, pattern := range []string{kindOfSpan, kindOfSize} {
		m := regexp.MustCompile(pattern).FindStringSubmatch(kind)
		if m == nil {
			continue
		}
		words := regexp.MustCompile(` from (\S+) to ([^\s,]+)(?:, as ([^\s,]+))?`).FindStringSubmatch(kind)
		for _, word := range append(words[1:], m[1]) {
			if word != "" {
				taken = append(taken, word)
			}
		}
		return taken, []string{"much", "99999999h", "99999999TiB", "-1s"}
	}
	return nil, nil
}

// yamlValue is what a YAML text says.
func yamlValue(t *testing.T, text string) any {
	t.Helper()
	var v any
	if err := yaml.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%s\n%v", text, err)
	}
	if v == nil {
		v = map[string]any{}
	}
	return v
}

// misfits returns where v does not fit s, "" for nowhere. It knows what of JSON
// Schema the table's has.
func misfits(root, s map[string]any, v any, at string) string {
	where := at
	if at == "" {
		where = "/"
	}
	if s["$ref"] == elsewhere {
		s = root["definitions"].(map[string]any)["elsewhere"].(map[string]any)
	}
	if some, ok := s["anyOf"].([]any); ok {
		var all []string
		for _, one := range some {
			why := misfits(root, one.(map[string]any), v, at)
			if why == "" {
				return ""
			}
			all = append(all, why)
		}
		return where + ": none of " + strings.Join(all, "; ")
	}
	if some, ok := s["enum"].([]any); ok && !slices.Contains(some, number(v)) {
		return fmt.Sprintf("%s: %v is none of %v", where, v, some)
	}
	if types, ok := s["type"]; ok && !typed(types, v) {
		return fmt.Sprintf("%s: %v (%T) is not %v", where, v, v, types)
	}
	switch v := number(v).(type) {
	case string:
		if p, ok := s["pattern"].(string); ok && !regexp.MustCompile(p).MatchString(v) {
			return fmt.Sprintf("%s: %q does not match %s", where, v, p)
		}
	case float64:
		if least, ok := s["minimum"].(float64); ok && v < least {
			return fmt.Sprintf("%s: %v is too little", where, v)
		}
		if most, ok := s["maximum"].(float64); ok && v > most {
			return fmt.Sprintf("%s: %v is too much", where, v)
		}
	case []any:
		items, _ := s["items"].(map[string]any)
		for i, one := range v {
			if why := misfits(root, items, one, at+"/"+strconv.Itoa(i)); why != "" {
				return why
			}
		}
	case map[string]any:
		return misfitKeys(root, s, v, at, where)
	}
	return ""
}

func misfitKeys(root, s, v map[string]any, at, where string) string {
	properties, _ := s["properties"].(map[string]any)
	for name, one := range v {
		inner, known := properties[name].(map[string]any)
		if !known {
			if inner, known = s["additionalProperties"].(map[string]any); !known && s["additionalProperties"] == false {
				return where + ": " + name + " is unknown"
			}
		}
		if why := misfits(root, inner, one, at+"/"+name); why != "" {
			return why
		}
	}
	must, _ := s["required"].([]any)
	for _, name := range must {
		if _, ok := v[name.(string)]; !ok {
			return where + ": " + name.(string) + " is missing"
		}
	}
	return ""
}

// number makes every number of YAML one of JSON.
func number(v any) any {
	switch v := v.(type) {
	case uint64:
		return float64(v)
	case int64:
		return float64(v)
	}
	return v
}

// typed reports whether v has a type, or one of several.
func typed(types, v any) bool {
	if all, ok := types.([]any); ok {
		return slices.ContainsFunc(all, func(one any) bool { return typed(one, v) })
	}
	got := ""
	switch v := number(v).(type) {
	case nil:
		got = "null"
	case string:
		got = "string"
	case bool:
		got = "boolean"
	case []any:
		got = "array"
	case map[string]any:
		got = "object"
	case float64:
		if got = "number"; types == "integer" && v == float64(int64(v)) {
			got = "integer"
		}
	}
	return got == types
}
