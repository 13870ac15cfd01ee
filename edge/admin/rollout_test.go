package admin

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"seawall/wasm"
)

// rolled is one call about a candidate.
type rolled struct {
	name, what string
	change     Rollout
}

func (r rolled) String() string {
	out := r.what + " " + r.name
	if p := r.change.Percent; p != nil {
		out += " percent"
	}
	if b := r.change.By; b != nil {
		out += " by " + *b
	}
	if s := r.change.Shadow; s != nil {
		out += " shadow"
	}
	return out
}

func TestRolloutCalls(t *testing.T) {
	refusal := &FunctionError{Status: 409, Detail: "Not now."}
	for _, c := range []struct {
		name, path, body string
		change           func(*http.Request)
		err              error
		code             int
		want, did        string
	}{
		{"a percentage", "one/rollout", `{"percent":12.5}`, as("deployer"), nil, 200, `"percent":100`, "roll one percent"},
		{"all of it", "one/rollout", `{"percent":0,"by":"cookie:id","shadow":false}`, as("chief"), nil, 200, `"sha256":"abc"`, "roll one percent by cookie:id shadow"},
		{"promoted", "one/promote", "", as("deployer"), nil, 200, `"sha256":"abc"`, "promote one"},
		{"rolled back", "one/rollback", "", as("deployer"), nil, 200, `"sha256":"abc"`, "rollback one"},
		{"refused", "one/promote", "", as("deployer"), refusal, 409, "Not now.", "promote one"},
		{"nothing to change", "one/rollout", `{}`, as("deployer"), nil, 400, `"field":"percent"`, ""},
		{"null", "one/rollout", `{"percent":null}`, as("deployer"), nil, 400, "is null where a number is wanted", ""},
		{"a list", "one/rollout", `{"by":[]}`, as("deployer"), nil, 400, "is a list where a string is wanted", ""},
		{"too large a number", "one/rollout", `{"percent":1e999}`, as("deployer"), nil, 400, "is a number where a number is wanted", ""},
		{"no JSON", "one/rollout", `percent=1`, as("deployer"), nil, 400, "is not JSON", ""},
		{"read is not enough", "one/promote", "", as("reader"), nil, 403, "the scope functions", ""},
		{"bound to sites", "one/rollback", "", as("tenant"), nil, 403, "of the whole node", ""},
		{"bound to sites, to roll", "one/rollout", `{"percent":1}`, as("tenant"), nil, 403, "of the whole node", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := &fakeFunctions{err: c.err}
			w := askBody(n.handler(t, functionTokens()), "POST", "/v1/functions/"+c.path, c.body, c.change)
			did := ""
			for _, r := range n.rolled {
				did += r.String()
			}
			if w.Code != c.code || !strings.Contains(w.Body.String(), c.want) || did != c.did {
				t.Errorf("%s %s: got %d %s and %q, want %d, %s and %q", c.path, c.body, w.Code, w.Body, did, c.code, c.want, c.did)
			}
			if !strings.Contains(n.logged.String(), "audit=true") {
				t.Errorf("no audit line: %s", n.logged.String())
			}
		})
	}
}

// A candidate is shown beside its function, to whom sees that, and has figures
// of its own.
func TestCandidateIsShown(t *testing.T) {
	other := &Function{Name: "one", SHA256: "def", Percent: 25, By: "address", Shadow: true}
	other.Stats.Stages[0] = wasm.StageStats{Calls: 3, Traps: map[string]int64{"cpu": 2}}
	other.ShadowStats = wasm.ShadowStats{Runs: 3, Different: 1, Dropped: 9, Refused: 4, Kinds: map[string]int64{"target": 1}}
	h := (&fakeFunctions{other: other}).handler(t, functionTokens())
	w := askBody(h, "GET", "/v1/functions/one", "", as("tenant"))
	for _, want := range []string{
		`"sites":["a"]`, `"sha256":"def"`, `"percent":25,"by":"address","shadow":true`,
		`"shadow_stats":{"requests":3,"different":1,"dropped":9,"calls_refused":4,"differences":{"target":1}}`,
	} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("no %s in %s", want, w.Body)
		}
	}
	if strings.Contains(w.Body.String(), `"b"`) {
		t.Errorf("a bound token sees another's site: %s", w.Body)
	}
	metrics := askBody(h, "GET", "/metrics", "", as("reader")).Body.String()
	for _, want := range []string{
		`seawall_function_candidate_percent{function="one"} 25`,
		`seawall_function_candidate_calls_total{function="one",stage="viewer_request"} 3`,
		`seawall_function_candidate_traps_total{function="one",stage="viewer_request"} 2`,
		`seawall_function_shadow_dropped_total{function="one"} 9`,
		`seawall_function_shadow_calls_refused_total{function="one"} 4`,
		`seawall_function_calls_total{function="one",stage="viewer_request"} 5`,
	} {
		if !strings.Contains(metrics, want+"\n") {
			t.Errorf("no %s", want)
		}
	}
}

// A field that the description has is taken, and one that it has not is refused.
func TestDescriptionHasRollouts(t *testing.T) {
	var d described
	if err := yaml.Unmarshal(description, &d); err != nil {
		t.Fatal(err)
	}
	w := askBody(new(fakeFunctions).handler(t, Access{}), "POST", "/v1/functions/one/rollout", `{"no":1}`, nil)
	_, known, _ := strings.Cut(w.Body.String(), "is no field of this call; it has ")
	known, _, _ = strings.Cut(known, `"`)
	got := strings.Split(known, ", ")
	slices.Sort(got)
	if want := slices.Sorted(maps.Keys(d.Components.Schemas["Rollout"].Properties)); !slices.Equal(got, want) {
		t.Errorf("it takes %v, and described are %v (%s)", got, want, w.Body)
	}
}
