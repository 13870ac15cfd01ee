package main

import (
	"fmt"
	"testing"
	"time"
)

// planned plays a plan with pieces of given lengths, which grow by slower in each
// round, and returns how many rounds each scenario had and when the run ended.
func planned(rounds int, within, start time.Duration, pieces [][]time.Duration, slower float64) (counts map[string]int, took time.Duration) {
	begun := time.Unix(0, 0)
	now := begun
	p := newPlan(rounds, begun.Add(within))
	counts = make(map[string]int)
	pace := 1.0
	pass := func(d time.Duration) { now = now.Add(time.Duration(float64(d) * pace)) }
	for round := 0; p.more(round); round++ {
		for g, lengths := range pieces {
			var group []scenario
			length := make(map[string]time.Duration)
			for i, d := range lengths {
				name := fmt.Sprint(g, "-", i)
				group, length[name] = append(group, scenario{name: name}), d
			}
			chosen := p.fits(now, round, group)
			if len(chosen) == 0 {
				continue
			}
			pass(start)
			p.measured(startOf(group), time.Duration(float64(start)*pace))
			for _, sc := range chosen {
				if !p.stillFits(now, round, sc) {
					continue
				}
				from := now
				pass(length[sc.name])
				p.measured(sc.name, now.Sub(from))
				counts[sc.name]++
			}
		}
		pace *= slower
	}
	return counts, now.Sub(begun)
}

func TestRoundsAreSharedEvenly(t *testing.T) {
	const s = time.Second
	mixed := [][]time.Duration{{12 * s, 9 * s, 9 * s, 4 * s}, {40 * s}, {25 * s}, {3 * s, 1 * s}}
	var many [][]time.Duration
	for i := range 4 {
		many = append(many, nil)
		for j := range 10 {
			many[i] = append(many[i], time.Duration(1+(i*7+j*3)%11)*s)
		}
	}
	for _, tt := range []struct {
		name        string
		rounds      int
		within      time.Duration
		pieces      [][]time.Duration
		slower      float64 // each round than the one before
		least, most int     // rounds
	}{
		{"time for all", 3, 400 * s, mixed, 1, 3, 3},
		{"time for two and a part", 3, 280 * s, mixed, 1, 2, 3},
		{"time for one and a part", 3, 150 * s, mixed, 1, 1, 2},
		{"not even for one", 3, 10 * s, mixed, 1, 1, 1},
		{"one asked for", 1, 400 * s, mixed, 1, 1, 1},
		{"many, time for two and a part", 3, 700 * s, many, 1, 2, 3},
		{"a machine that grows busy", 5, 700 * s, many, 1.3, 2, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			counts, took := planned(tt.rounds, tt.within, 4*s, tt.pieces, tt.slower)
			least, most, all := tt.rounds, 0, 0
			for _, n := range counts {
				least, most = min(least, n), max(most, n)
			}
			for _, lengths := range tt.pieces {
				all += len(lengths)
			}
			if len(counts) != all || least != tt.least || most != tt.most {
				t.Errorf("%d scenarios: got %v, %d to %d rounds; want %d to %d of each", all, counts, least, most, tt.least, tt.most)
			}
			if most > 1 && took > tt.within+time.Duration((tt.slower-1)*float64(44*s)) {
				t.Errorf("got a run of %v, want one within %v", took, tt.within)
			}
		})
	}
}

func TestNeighboursStayNeighbours(t *testing.T) {
	const n = 6
	for round := range 3 {
		at := make(map[int]int)
		for number := range n {
			at[turn(round, number, n)] = number
		}
		if len(at) != n {
			t.Fatalf("round %d: got turns of %d servers, want %d", round, len(at), n)
		}
		if got := at[1] - at[0]; got != 1-2*(round%2) {
			t.Errorf("round %d: the second server's turn is %+d from the first's; want next to it, on the other side in every other round", round, got)
		}
	}
}
