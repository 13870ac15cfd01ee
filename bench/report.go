package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A report is all that a run measured. It is written as JSON, Markdown and SVG.
type report struct {
	Machine  string
	Versions []string
	Tools    map[protocol]string
	Rounds   int
	Seconds  float64 // of a measured piece of load
	Rows     []*row
	Skipped  []string
	notes    []string
}

// A row is what the rounds of one scenario measured of one peer.
type row struct {
	Scenario string
	Group    string
	About    string
	Peer     string
	Figures  map[string]spread
	Beside   map[string]spread `json:",omitempty"` // over Seawall's, by the ratios of rounds that both had
	rounds   []round
}

// A round is what one measured of one peer.
type round struct {
	number int
	sample sample
}

// A spread is the median of rounds, and the bounds they stayed in.
type spread struct {
	Median, Min, Max float64
}

func newReport(ctx context.Context, o options, rivals []*peer) *report {
	r := &report{Machine: machine(), Rounds: o.rounds, Seconds: o.length.Seconds()}
	for _, p := range rivals {
		if line := p.versionLine(ctx); line != "" {
			r.Versions = append(r.Versions, line)
		}
		r.notes = append(r.notes, p.name+": "+p.note)
	}
	for _, tool := range [][]string{{"wrk", "-v"}, {"h2load", "--version"}} {
		if line := versionOf(ctx, tool...); line != "" {
			r.Versions = append(r.Versions, line)
		}
	}
	return r
}

// add counts a round.
func (r *report) add(sc scenario, peer string, number int, m sample) {
	i := slices.IndexFunc(r.Rows, func(w *row) bool { return w.Scenario == sc.name && w.Peer == peer })
	if i < 0 {
		i = len(r.Rows)
		r.Rows = append(r.Rows, &row{Scenario: sc.name, Group: sc.group, About: sc.about, Peer: peer})
	}
	w := r.Rows[i]
	w.rounds = append(w.rounds, round{number, m})
	var samples []sample
	for _, round := range w.rounds {
		samples = append(samples, round.sample)
	}
	w.Figures = spreads(samples)
	for _, w := range r.Rows {
		if own := r.find(sc.name, node); w.Scenario == sc.name && own != nil {
			w.Beside = w.over(own)
		}
	}
}

// over returns w's figures over those of other: of the ratios of the rounds that
// both had, in which they were neighbours in time, the median and the bounds. A
// figure that was 0 has no ratio.
func (w *row) over(other *row) map[string]spread {
	var ratios []sample
	for _, mine := range w.rounds {
		i := slices.IndexFunc(other.rounds, func(theirs round) bool { return theirs.number == mine.number })
		if i < 0 {
			continue
		}
		ratio := make(sample)
		for name, v := range mine.sample {
			if against := other.rounds[i].sample[name]; against > 0 {
				ratio[name] = v / against
			}
		}
		ratios = append(ratios, ratio)
	}
	return spreads(ratios)
}

// skip notes why a peer has no row, once.
func (r *report) skip(group, peer, why string) {
	line := fmt.Sprintf("%s: %s %s", group, peer, why)
	if !slices.Contains(r.Skipped, line) {
		r.Skipped = append(r.Skipped, line)
	}
}

// spreads returns the medians of what the samples have.
func spreads(samples []sample) map[string]spread {
	values := make(map[string][]float64)
	for _, m := range samples {
		for name, v := range m {
			values[name] = append(values[name], v)
		}
	}
	out := make(map[string]spread)
	for name, v := range values {
		slices.Sort(v)
		middle := v[len(v)/2]
		if len(v)%2 == 0 {
			middle = (v[len(v)/2-1] + middle) / 2
		}
		out[name] = spread{middle, v[0], v[len(v)-1]}
	}
	return out
}

// groups returns the rows of each group, in the order of the run.
func (r *report) groups() [][]*row {
	var names []string
	by := make(map[string][]*row)
	for _, w := range r.Rows {
		if by[w.Group] == nil {
			names = append(names, w.Group)
		}
		by[w.Group] = append(by[w.Group], w)
	}
	var out [][]*row
	for _, name := range names {
		out = append(out, by[name])
	}
	return out
}

// has returns the figures that rows have, errors only where there were some.
func has(rows []*row) []figure {
	return slices.DeleteFunc(figures(), func(f figure) bool {
		return !slices.ContainsFunc(rows, func(w *row) bool {
			s, ok := w.Figures[f.name]
			return ok && (f.name != "errors" || s.Max > 0)
		})
	})
}

// markdown returns the tables, with the machine above them.
func (r *report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s. %s, %.3g s a piece: medians (smallest–largest).\n", r.Machine, r.roundsHeld(), r.Seconds)
	if len(r.Versions) > 0 {
		fmt.Fprintf(&b, "Versions: %s.\n", strings.Join(r.Versions, "; "))
	}
	var tools []string
	for _, by := range []protocol{h1, h1s, h2, h3} {
		if r.Tools[by] != "" {
			tools = append(tools, fmt.Sprintf("%s by %s", by, r.Tools[by]))
		}
	}
	if len(tools) > 0 {
		fmt.Fprintf(&b, "Floods: %s; latencies, where there is a flood, by the own open-loop generator.\n", strings.Join(tools, ", "))
	}
	b.WriteString("The columns × are the peer's figure over Seawall's in the same round, where they are neighbours in time: the median of the rounds' ratios. Below 1 for CPU, the peer needs less; above 1 for requests/s, it does more.\n")
	b.WriteString(r.besideBare())
	for _, rows := range r.groups() {
		r.table(&b, rows)
	}
	if len(r.Skipped) > 0 {
		fmt.Fprintf(&b, "\nLeft out: %s.\n", strings.Join(r.Skipped, "; "))
	}
	if len(r.notes) > 0 {
		fmt.Fprintf(&b, "\n- %s\n", strings.Join(r.notes, "\n- "))
	}
	return b.String()
}

// roundsHeld tells how many rounds the scenarios had, and which had more than the
// others.
func (r *report) roundsHeld() string {
	var names []string
	had := make(map[string]int)
	for _, w := range r.Rows {
		if had[w.Scenario] == 0 {
			names = append(names, w.Scenario)
		}
		had[w.Scenario] = max(had[w.Scenario], len(w.rounds))
	}
	least, most := r.Rounds, 0
	for _, n := range had {
		least, most = min(least, n), max(most, n)
	}
	plural := func(n int) string {
		if n == 1 {
			return "1 round"
		}
		return fmt.Sprintf("%d rounds", n)
	}
	switch {
	case most == r.Rounds && least == most:
		return plural(most) + ", interleaved"
	case least >= most:
		return fmt.Sprintf("%s of %d, interleaved: for more there was no time", plural(most), r.Rounds)
	}
	names = slices.DeleteFunc(names, func(name string) bool { return had[name] < most })
	return fmt.Sprintf("%s, interleaved (%d of %s: for more there was no time)", plural(least), most, strings.Join(names, ", "))
}

// besideBare tells what a hit costs of what it costs a bare handler in the same
// round, "" where neither was measured.
func (r *report) besideBare() string {
	var parts []string
	for _, w := range r.Rows {
		floor := r.find(w.Scenario, bare)
		if w.Peer != node || !strings.HasPrefix(w.Scenario, "hits-") || floor == nil {
			continue
		}
		ratio, ok := w.over(floor)["cpu"]
		switch {
		case !ok:
		case ratio.Min == ratio.Max:
			parts = append(parts, fmt.Sprintf("%.2f× in %s", ratio.Median, w.Scenario))
		default:
			parts = append(parts, fmt.Sprintf("%.2f× (%.2f–%.2f) in %s", ratio.Median, ratio.Min, ratio.Max, w.Scenario))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return "CPU of a hit beside the bare handler's: " + strings.Join(parts, ", ") + ".\n"
}

// table writes the table of a group, and who is ahead in it.
func (r *report) table(b *strings.Builder, rows []*row) {
	columns := has(rows)
	fmt.Fprintf(b, "\n### %s\n\n%s\n\n", rows[0].Group, upperFirst(rows[0].About))
	b.WriteString("| scenario | peer |")
	for _, f := range columns {
		fmt.Fprintf(b, " %s |", f.title)
		if ratioed(f) {
			b.WriteString(" × |")
		}
	}
	b.WriteString("\n|---|---|")
	for _, f := range columns {
		b.WriteString("---:|")
		if ratioed(f) {
			b.WriteString("---:|")
		}
	}
	b.WriteString("\n")
	for _, w := range rows {
		fmt.Fprintf(b, "| %s | %s |", w.Scenario, w.Peer)
		for _, f := range columns {
			r.cell(b, w, f)
		}
		b.WriteString("\n")
	}
	if lines := r.ahead(rows, columns); len(lines) > 0 {
		fmt.Fprintf(b, "\nAhead of Seawall: %s.\n", strings.Join(lines, "; "))
	}
}

// ratioed tells whether a column of ratios follows a figure.
func ratioed(f figure) bool { return f.name == "rps" || f.name == "cpu" }

func (r *report) cell(b *strings.Builder, w *row, f figure) {
	s, ok := w.Figures[f.name]
	switch {
	case !ok:
		b.WriteString(" |")
	case s.Min == s.Max:
		fmt.Fprintf(b, " %.*f |", f.digits, s.Median)
	default:
		fmt.Fprintf(b, " %.*f (%.*f–%.*f) |", f.digits, s.Median, f.digits, s.Min, f.digits, s.Max)
	}
	if !ratioed(f) {
		return
	}
	if beside, ok := w.Beside[f.name]; ok {
		fmt.Fprintf(b, " %.2f |", beside.Median)
		return
	}
	b.WriteString(" |")
}

// find returns a row, nil if there is none.
func (r *report) find(scenario, peer string) *row {
	i := slices.IndexFunc(r.Rows, func(w *row) bool { return w.Scenario == scenario && w.Peer == peer })
	if i < 0 {
		return nil
	}
	return r.Rows[i]
}

// ahead returns the peers whose figures are better than Seawall's, by scenario
// and figure, with how much. No victory of a peer is left out.
func (r *report) ahead(rows []*row, columns []figure) []string {
	var lines []string
	for _, w := range rows {
		own := r.find(w.Scenario, node)
		if strings.HasPrefix(w.Peer, node) || own == nil {
			continue
		}
		var in []string
		for _, f := range columns {
			if f.name == "p999" || f.name == "purge99" || f.better == 0 {
				continue // of a few requests each, or no merit
			}
			if how := w.better(own, f); how != "" {
				in = append(in, f.title+" "+how)
			}
		}
		if len(in) > 0 {
			lines = append(lines, fmt.Sprintf("%s in %s (%s)", w.Peer, w.Scenario, strings.Join(in, ", ")))
		}
	}
	return lines
}

// better tells by how much w is better than own in a figure, "" if it is not.
func (w *row) better(own *row, f figure) string {
	theirs, ok := w.Figures[f.name]
	ours, both := own.Figures[f.name]
	if !ok || !both {
		return ""
	}
	beside, ok := w.Beside[f.name]
	switch {
	case !ok && (theirs.Median > ours.Median) == (f.better > 0) && theirs.Median != ours.Median:
		return fmt.Sprintf("%.3g against %.3g", theirs.Median, ours.Median)
	case !ok || (beside.Median > 1) != (f.better > 0) || beside.Median == 1:
		return ""
	}
	how := fmt.Sprintf("%.2f×", beside.Median)
	if more := w.Beside["kept"].Median; more > 1.05 && (f.name == "hit" || f.name == "byteHit" || f.name == "asked") {
		how += fmt.Sprintf(" with %.2f× the bytes kept", more)
	}
	return how
}

func upperFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:] + "."
}

// save writes results.json, results.md and a plot of each group into dir.
func (r *report) save(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	encoded, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	files := map[string]string{"results.json": string(encoded) + "\n", "results.md": r.markdown()}
	for _, rows := range r.groups() {
		for _, f := range has(rows) {
			if f.better != 0 && f.name != "errors" && f.name != "p50" && f.name != "p999" {
				files[rows[0].Group+"-"+f.name+".svg"] = plotBars(rows[0].Group+": "+f.title, barsOf(rows, f), f.digits)
			}
		}
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// barsOf returns a figure of rows as bars.
func barsOf(rows []*row, f figure) []bar {
	var bars []bar
	for _, w := range rows {
		if s, ok := w.Figures[f.name]; ok {
			bars = append(bars, bar{group: w.Scenario, label: w.Peer, value: s.Median, low: s.Min, high: s.Max, own: strings.HasPrefix(w.Peer, node)})
		}
	}
	return bars
}
