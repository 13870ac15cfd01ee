package main

import (
	"context"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"seawall/wasm"
)

func TestFunctionConfigurationErrors(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"names", "functions:\n  Auth: {file: a}\n  a.b: {file: a}\n  -c: {}\n  d: {file: a}\n  d: {file: b}\n", []string{
			`f.yaml:2:3: "Auth" is not a name of 1 to 64 small letters, digits, dashes and underscores that begins with a letter or digit; choose another`,
			`f.yaml:3:3: "a.b" is not a name of 1 to 64 small letters, digits, dashes and underscores that begins with a letter or digit; choose another`,
			`f.yaml:4:3: "-c" is not a name of 1 to 64 small letters, digits, dashes and underscores that begins with a letter or digit; choose another`,
			`f.yaml:6:3: d is already set; leave one of them`}},
		{"no mapping", "functions: [a]\nupstreams: x\n", []string{
			`f.yaml:1:12: a list where a mapping is wanted; write key: value pairs`,
			`f.yaml:2:12: a single value where a mapping is wanted; write key: value pairs`}},
		{"values", "functions:\n  a:\n    file: ''\n    mode: both\n    on_error: ignore\n    fiel: x\n", []string{
			`f.yaml:3:11: file: "" is not a path; write the path of a WebAssembly module`,
			`f.yaml:4:11: mode: "both" is none of the choices; write default, shared or reset`,
			`f.yaml:5:15: on_error: "ignore" is none of the choices; write closed or open`,
			`f.yaml:6:5: unknown key "fiel"; did you mean file?`}},
		{"limits", "functions: {a: {limits: {cpu: 51ms, memory: 1KiB, body: 65MiB, host_calls: 0, log_bytes: 2MiB, tabel: 1, queue: many}}}\n", []string{
			`f.yaml:1:31: cpu: "51ms" is not between 100µs and 50ms; write a duration from 100µs to 50ms`,
			`f.yaml:1:45: memory: "1KiB" is not between 64KiB and 128MiB; write a size from 64KiB to 128MiB`,
			`f.yaml:1:57: body: "65MiB" is not between 1B and 64MiB; write a size from 1B to 64MiB`,
			`f.yaml:1:76: host_calls: 0 is not between 1 and 1000000; write a number from 1 to 1000000`,
			`f.yaml:1:90: log_bytes: "2MiB" is not between 1B and 1MiB; write a size from 1B to 1MiB`,
			`f.yaml:1:96: unknown key "tabel"; did you mean table?`,
			`f.yaml:1:113: queue: "many" is not a whole number; write a number from 1 to 4096`}},
		{"configurations", "functions:\n  a: {config: {k: 1, k: 2}}\n  b: {config: [.inf]}\n  c: {config: [{x: *y}]}\n  d: {config: '${NOT_SET}'}\n  e: {config: {<<: {}}}\n", []string{
			`f.yaml:2:22: "k" is there twice; leave one of them`,
			`f.yaml:3:16: JSON has no such number; write it in quotes`,
			`f.yaml:4:20: an alias (*) is not read here; write a value that JSON has, in quotes if it begins with *`,
			`f.yaml:5:15: the environment has no NOT_SET; set it or write the value`,
			`f.yaml:6:16: merge keys (<<) are not read here; write the keys out`}},
		{"upstreams", "upstreams:\n  a: {}\n  b: {url: 'ftp://x'}\n  c: {url: 'http://u:p@x'}\n  d: {url: 'http://x?y', timeout: 2m, max_in_flight: 0, allow_private: yes}\nfunctions: {f: {upstreams: [a, e]}}\n", []string{
			`f.yaml:2:6: url is missing: where its calls go; a path is put before theirs`,
			`f.yaml:3:12: url: "ftp://x" has a scheme that is neither http nor https; write http://host[:port][/path] or https://host[:port][/path]`,
			`f.yaml:4:12: url: a URL with a user name or password; write http://host[:port][/path] or https://host[:port][/path]`,
			`f.yaml:5:12: url: "http://x?y" has a query or fragment; write http://host[:port][/path] or https://host[:port][/path]`,
			`f.yaml:5:35: timeout: "2m" is not between 1ms and 1m; write a duration from 1ms to 1m, as 5s`,
			`f.yaml:5:54: max_in_flight: 0 is not between 1 and 4096; write a number from 1 to 4096`,
			`f.yaml:5:72: allow_private: "yes" is neither true nor false; write true or false`,
			`f.yaml:6:32: no upstream is named "e"; add it to upstreams, with its url`}},
		{"sites", "functions: {a: {}}\nsites: [{origins: ['http://x'], functions: {viewer: [a, a], origin: a, other: []}}]\n", []string{
			`f.yaml:2:57: a is there twice; a function runs once at a place`,
			`f.yaml:2:69: origin: a single value where a list is wanted; write [value, ...] or a line with - for each`,
			`f.yaml:2:72: unknown key "other"; known here: viewer, origin`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := parse(c.text)
			if err == nil || err.Error() != strings.Join(c.want, "\n") {
				t.Errorf("%s\ngot\n%v\nwant\n%s", c.text, err, strings.Join(c.want, "\n"))
			}
		})
	}
}

func TestFunctionConfigurationValues(t *testing.T) {
	for _, c := range []struct {
		name, text string
		get        func(s *settings) any
		want       any
	}{
		{"text", "functions: {f: {config: 'a: b', vm_config: 12}}", func(s *settings) any { return s.Functions[0].Config + "|" + s.Functions[0].VMConfig }, "a: b|12"},
		{"lines", "functions:\n  f:\n    config: |\n      A: 1\n      B: 2\n", func(s *settings) any { return s.Functions[0].Config }, "A: 1\nB: 2"},
		{"a mapping", "functions:\n  f:\n    config:\n      z: [1, 2.5, true, null, '3', -4]\n      a: {b: \"${ORIGIN}/x\", c: 'file:/secret'}\n      empty: {}\n",
			func(s *settings) any { return s.Functions[0].Config },
			`{"z":[1,2.5,true,null,"3",-4],"a":{"b":"http://from-env/x","c":"http://from-file"},"empty":{}}`},
		{"a list", "functions: {f: {config: [a, {b: c}]}}", func(s *settings) any { return s.Functions[0].Config }, `["a",{"b":"c"}]`},
		{"choices", "functions: {f: {mode: reset, on_error: open, file: x.wasm}}",
			func(s *settings) any {
				f := s.Functions[0]
				return []any{f.Name, f.File, f.Mode, f.OnError}
			}, []any{"f", "x.wasm", wasm.ModeReset, wasm.Open}},
		{"limits", "functions: {f: {limits: {cpu: 5ms, memory: 32MiB, field: 1KiB, queue: 7}}}", func(s *settings) any { return s.Functions[0].Limits },
			wasm.Limits{CPU: 5 * time.Millisecond, Memory: 32 << 20, Field: 1024, Queue: 7}},
		{"without anything", "functions: {f: {}, g: }", func(s *settings) any { return []string{s.Functions[0].Name, s.Functions[1].Name} }, []string{"f", "g"}},
		{"an upstream", "upstreams: {login: {url: 'https://a.example:8443/x', allow_private: true}}", func(s *settings) any { return s.Upstreams },
			[]upstreamSettings{{"login", "https://a.example:8443/x", 5 * time.Second, 64, true}}},
		{"a site's", "functions: {a: {}, b: {}}\nsites: [{origins: ['http://x'], functions: {viewer: [a, b], origin: [b]}}]", func(s *settings) any { return s.Sites[0].Functions },
			attachSettings{[]string{"a", "b"}, []string{"b"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := parse(c.text)
			if err != nil {
				t.Fatalf("%s\n%v", c.text, err)
			}
			if got := c.get(s); !reflect.DeepEqual(got, c.want) {
				t.Errorf("%s\ngot %+v, want %+v", c.text, got, c.want)
			}
		})
	}
}

// A site's function must be in the file, or uploaded.
func TestUnknownFunctions(t *testing.T) {
	s, err := parse("functions: {headers: {}}\nsites: [{origins: ['http://x'], functions: {viewer: [header, headers], origin: [other]}}]\n")
	if err != nil {
		t.Fatal(err)
	}
	want := "f.yaml:2:54: no function is named \"header\"; did you mean headers?\n" +
		"f.yaml:2:81: no function is named \"other\"; add it to functions (without file if PUT /v1/functions/other uploads it later), or upload it first"
	if err := s.resolve(func(string) bool { return false }); err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	if err := s.resolve(func(name string) bool { return name == "header" || name == "other" }); err != nil {
		t.Errorf("with both uploaded: got %v", err)
	}
}

// The bounds of the table are those of package wasm, and complete.yaml shows
// wasm's defaults: its errors tell both.
func TestFunctionLimitsAreThoseOfWasm(t *testing.T) {
	host, err := wasm.NewHost(wasm.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	complete, err := loadSettings("../../deploy/config/complete.yaml")
	if err != nil {
		t.Fatal(err)
	}
	load := func(l wasm.Limits) string {
		_, err := host.Load(context.Background(), wasm.Spec{Name: "f", Limits: l})
		return err.Error() // there is no module
	}
	told := regexp.MustCompile(`limit (\w+): \S+ is not between 0 \(the default, (\S+)\) and (\S+)$`)
	seen := 0
	for _, o := range functionLimits() {
		t.Run(o.name, func(t *testing.T) {
			_, most, _ := strings.Cut(o.kind, " to ")
			var at wasm.Limits
			if err := o.set(most, &at); err != nil {
				t.Fatalf("its own maximum %s: %v", most, err)
			}
			if got := load(at); strings.Contains(got, "limit ") {
				t.Errorf("at the maximum %s: %s", most, got)
			}
			v := reflect.ValueOf(&at).Elem()
			for i := range v.NumField() {
				if v.Field(i).Int() == 0 {
					continue
				}
				seen++
				v.Field(i).SetInt(v.Field(i).Int() + 1)
				words := told.FindStringSubmatch(load(at))
				if words == nil || words[1] != o.name {
					t.Fatalf("over the maximum: got %q, want an error of limit %s", load(at), o.name)
				}
				shown := reflect.ValueOf(complete.Functions[0].Limits).Field(i).Int()
				if d := strconv.FormatInt(shown, 10); d != words[2] && time.Duration(shown).String() != words[2] {
					t.Errorf("complete.yaml shows %d as the default, and it is %s", shown, words[2])
				}
			}
		})
	}
	if want := reflect.TypeOf(wasm.Limits{}).NumField(); seen != want {
		t.Errorf("%d of wasm's %d limits can be set", seen, want)
	}
}

// Whoever reads the description of the API learns every setting of an upload.
func TestDescriptionHasEverySetting(t *testing.T) {
	_, _, admin := administered(t, "", siteOver("http://127.0.0.1:1"))
	_, text := get("http://" + admin + "/openapi.yaml")
	var d struct {
		Paths map[string]map[string]struct{ Parameters []struct{ Name, In string } }
	}
	if err := yaml.Unmarshal([]byte(text), &d); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range d.Paths["/v1/functions/{name}"]["put"].Parameters {
		if p.In == "query" {
			got = append(got, p.Name)
		}
	}
	want := uploadSettings()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("described %v, taken %v", got, want)
	}
}
