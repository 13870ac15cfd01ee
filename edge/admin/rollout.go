package admin

import (
	"net/http"
	"slices"

	"seawall/purge"
	"seawall/wasm"
)

// rollCandidate is POST /v1/functions/{name}/rollout.
func rollCandidate(c *call) {
	if !c.hasFunctions() || !c.whole() {
		return
	}
	f := c.readFields(maxBody)
	if f == nil {
		return
	}
	var r Rollout
	var percent float64
	var by string
	var shadow bool
	scalar(f, "percent", "a number", "-0123456789", &percent)
	f.text("by", &by)
	f.flag("shadow", &shadow)
	if bad := f.done(); len(bad) > 0 {
		c.invalid(bad...)
		return
	}
	if _, given := f.raw["percent"]; given {
		r.Percent = &percent
	}
	if _, given := f.raw["by"]; given {
		r.By = &by
	}
	if _, given := f.raw["shadow"]; given {
		r.Shadow = &shadow
	}
	if r == (Rollout{}) {
		c.invalid(&purge.FieldError{Field: "percent", Detail: "is missing; give one of percent, by and shadow at least"})
		return
	}
	c.changed(c.h.Functions.Roll(c.r.Context(), c.args["name"], r))
}

// promoteCandidate is POST /v1/functions/{name}/promote.
func promoteCandidate(c *call) {
	if c.hasFunctions() && c.whole() {
		c.changed(c.h.Functions.Promote(c.r.Context(), c.args["name"]))
	}
}

// rollBack is POST /v1/functions/{name}/rollback.
func rollBack(c *call) {
	if c.hasFunctions() && c.whole() {
		c.changed(c.h.Functions.Rollback(c.r.Context(), c.args["name"]))
	}
}

// changed answers with the function as it is now.
func (c *call) changed(f Function, err error) {
	if err != nil {
		c.functionFailed(err)
		return
	}
	c.what = "sha256=" + f.SHA256
	if f.Candidate != nil {
		c.what += " candidate=" + f.Candidate.SHA256
	}
	c.ok(http.StatusOK, showFunction(&f))
}

// functions sends what each function did. Names are the operator's, stages and
// kinds words of ours.
func (s *sink) functions(h *Handler) {
	if h.Functions.Figures == nil {
		return
	}
	for name, f := range h.Functions.Figures() {
		for i, stage := range f.Stages {
			if stage.Calls == 0 && len(stage.Traps) == 0 {
				continue
			}
			labels := []string{"function", name, "stage", wasm.StageNames()[i]}
			s.counter("function_calls_total", "Callbacks of the function.", uint64(stage.Calls), labels...)
			s.counter("function_fuel_total", "What they cost, about a third of a nanosecond each.", uint64(stage.Fuel), labels...)
			s.summary("function_duration_seconds", "How long they took.", uint64(stage.Calls), stage.Duration.Seconds(), labels...)
			total := int64(0)
			for _, n := range stage.Traps {
				total += n
			}
			s.counter("function_traps_total", "Callbacks that were stopped, and requests that it could not serve.", uint64(total), labels...)
			for kind, n := range stage.Traps {
				s.counter("function_failures_total", "The same by kind.", uint64(n), append(slices.Clone(labels), "kind", kind)...)
			}
		}
		open := 0.0
		if f.Breaker != "closed" {
			open = 1
		}
		s.gauge("function_instances", "Machines of the function.", float64(f.Machines), "function", name)
		s.gauge("function_memory_bytes", "Their linear memories.", float64(f.Memory), "function", name)
		s.gauge("function_breaker_open", "1 while it is not run because it failed too often.", open, "function", name)
		s.counter("function_log_dropped_total", "Log lines of the guest over its limit.", uint64(f.LogDropped), "function", name)
		s.counter("function_responses_passed_total", "Responses that were too large for it to buffer.", uint64(f.Passed), "function", name)
	}
	s.candidates(h)
}

// candidates sends what each candidate did since it was loaded. What those do
// that serve requests is in the figures of their functions too.
func (s *sink) candidates(h *Handler) {
	for _, f := range h.Functions.List() {
		c := f.Candidate
		if c == nil {
			continue
		}
		shadow := 0.0
		if c.Shadow {
			shadow = 1
		}
		s.gauge("function_candidate_percent", "The part of the requests that the function's candidate gets.", c.Percent, "function", f.Name)
		s.gauge("function_candidate_shadow", "1 if it gets copies of them, and nothing that it makes is used.", shadow, "function", f.Name)
		for i, stage := range c.Stats.Stages {
			if stage.Calls == 0 && len(stage.Traps) == 0 {
				continue
			}
			labels := []string{"function", f.Name, "stage", wasm.StageNames()[i]}
			total := int64(0)
			for _, n := range stage.Traps {
				total += n
			}
			s.counter("function_candidate_calls_total", "Callbacks of the candidate.", uint64(stage.Calls), labels...)
			s.counter("function_candidate_fuel_total", "What they cost, about a third of a nanosecond each.", uint64(stage.Fuel), labels...)
			s.summary("function_candidate_duration_seconds", "How long they took.", uint64(stage.Calls), stage.Duration.Seconds(), labels...)
			s.counter("function_candidate_traps_total", "Callbacks that were stopped, and requests that it could not serve.", uint64(total), labels...)
		}
		if !c.Shadow {
			continue
		}
		x := &c.ShadowStats
		s.counter("function_shadow_requests_total", "Requests that the shadow saw.", uint64(x.Runs), "function", f.Name)
		s.counter("function_shadow_different_total", "Those that it made something otherwise of.", uint64(x.Different), "function", f.Name)
		s.counter("function_shadow_dropped_total", "Requests that it had no time for.", uint64(x.Dropped), "function", f.Name)
		s.counter("function_shadow_calls_refused_total", "Calls to upstreams that it was refused.", uint64(x.Refused), "function", f.Name)
		for kind, n := range x.Kinds {
			s.counter("function_shadow_differences_total", "What it made otherwise.", uint64(n), "function", f.Name, "kind", kind)
		}
	}
}
