package main

import "time"

// A plan shares a run's time among its scenarios. A round goes through all of
// them before the next begins, with servers started anew: whenever a run ends,
// each scenario has had as many rounds as any other, or one less. The first round
// has everything; a later one has what ends in time, and none follows one that
// had to leave something out.
type plan struct {
	rounds int
	ends   time.Time
	took   map[string]time.Duration // the longest round of each scenario, and the longest start of each group, by startOf
	short  bool                     // something was left out
}

func newPlan(rounds int, ends time.Time) *plan {
	return &plan{rounds: rounds, ends: ends, took: make(map[string]time.Duration)}
}

// more tells whether a round is to begin.
func (p *plan) more(round int) bool {
	return round < p.rounds && !p.short
}

// startOf names the starting and ending of a group's servers in took.
func startOf(group []scenario) string { return "servers of " + group[0].name }

// measured keeps how long a part of a round took.
func (p *plan) measured(name string, took time.Duration) {
	p.took[name] = max(p.took[name], took)
}

// fits returns those of a group whose servers are not started at now that this
// round has time for, each as long as it was at most before.
func (p *plan) fits(now time.Time, round int, group []scenario) []scenario {
	if round == 0 {
		return group
	}
	var chosen []scenario
	at := now.Add(p.took[startOf(group)])
	for _, sc := range group {
		if by := at.Add(p.took[sc.name]); by.After(p.ends) {
			p.short = true
		} else {
			chosen, at = append(chosen, sc), by
		}
	}
	return chosen
}

// stillFits tells whether a scenario that fits chose has time at now: those
// before it may have been slower than they were.
func (p *plan) stillFits(now time.Time, round int, sc scenario) bool {
	if round > 0 && now.Add(p.took[sc.name]).After(p.ends) {
		p.short = true
		return false
	}
	return true
}

// turn returns which of n servers has the turn with this number. Every other
// round goes backwards: neighbours stay neighbours, whose figures are compared,
// and none is always the first of two.
func turn(round, number, n int) int {
	if round%2 == 1 {
		return n - 1 - number
	}
	return number
}
