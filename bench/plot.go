package main

import (
	"encoding/xml"
	"fmt"
	"math"
	"strings"
)

// Plots as SVG that stands alone: no script, no font of its own, readable on
// light and dark ground.

// A bar is a value with the bounds of its rounds. Bars of a group stand together.
type bar struct {
	group, label     string
	value, low, high float64
	own              bool // the node's, drawn in another colour
}

const (
	plotWidth = 720
	labelRoom = 190
	valueRoom = 90
	barHeight = 16
)

// svg is a drawing under way.
type svg struct {
	strings.Builder
}

func newSVG(width, height int, title string) *svg {
	s := new(svg)
	fmt.Fprintf(s, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img">`, width, height, width, height)
	fmt.Fprintf(s, "\n<title>%s</title>\n", escape(title))
	s.WriteString("<style>text{font:12px sans-serif;fill:#777}.t{font-size:14px;font-weight:bold}.g{font-weight:bold}.e{text-anchor:end}" +
		".b{fill:#8aa4bf}.o{fill:#d9822b}.w{stroke:#555;stroke-width:1}.a{stroke:#999;stroke-width:1}.l{fill:none;stroke-width:2}</style>\n")
	s.text(8, 20, "t", title)
	return s
}

func (s *svg) text(x, y float64, class, words string) {
	fmt.Fprintf(s, `<text x="%.1f" y="%.1f" class="%s">%s</text>`+"\n", x, y, class, escape(words))
}

func (s *svg) segment(x1, y1, x2, y2 float64, class string) {
	fmt.Fprintf(s, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" class="%s"/>`+"\n", x1, y1, x2, y2, class)
}

func (s *svg) done() string { return s.String() + "</svg>\n" }

func escape(words string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(words)) // writing to memory does not fail
	return b.String()
}

// finite returns v, 0 in place of what no drawing can show.
func finite(v float64) float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return 0
	}
	return v
}

// plotBars returns bars that lie, each with its bounds as a line.
func plotBars(title string, bars []bar, digits int) string {
	top, group, rows := 0.0, "", 0
	for _, b := range bars {
		top = max(top, finite(b.value), finite(b.high))
		if rows++; b.group != group {
			group = b.group
			rows++
		}
	}
	s := newSVG(plotWidth, 40+rows*(barHeight+4), title)
	scale := float64(plotWidth-labelRoom-valueRoom) / max(top, 1e-12)
	y := 32.0
	group = ""
	for _, b := range bars {
		if b.group != group {
			group = b.group
			s.text(8, y+barHeight-4, "g", group)
			y += barHeight + 4
		}
		class := "b"
		if b.own {
			class = "o"
		}
		width := max(finite(b.value), 0) * scale
		s.text(labelRoom-8, y+barHeight-4, "e", b.label)
		fmt.Fprintf(s, `<rect x="%d" y="%.1f" width="%.1f" height="%d" class="%s"/>`+"\n", labelRoom, y, width, barHeight, class)
		low, high := max(finite(b.low), 0)*scale, max(finite(b.high), 0)*scale
		if high > low {
			s.segment(labelRoom+low, y+barHeight/2, labelRoom+high, y+barHeight/2, "w")
		}
		s.text(labelRoom+max(width, high)+6, y+barHeight-4, "", fmt.Sprintf("%.*f", digits, b.value))
		y += barHeight + 4
	}
	return s.done()
}

// A curve is a line of values at equal distances.
type curve struct {
	label  string
	values []float64
}

// plotCurves returns lines over one axis from zero, the first value at the left.
func plotCurves(title, across string, curves []curve) string {
	const height, left, bottom, right = 300, 60, 40, 110
	colours := []string{"#d9822b", "#3b7dd8", "#4a9c5d", "#a05195"}
	top, most := 0.0, 1
	for _, c := range curves {
		most = max(most, len(c.values)-1)
		for _, v := range c.values {
			top = max(top, finite(v))
		}
	}
	top = max(top, 1e-12)
	s := newSVG(plotWidth, height, title)
	x := func(i int) float64 { return left + float64(i)*float64(plotWidth-left-right)/float64(most) }
	y := func(v float64) float64 {
		return float64(height-bottom) - max(finite(v), 0)/top*float64(height-bottom-40)
	}
	s.segment(left, y(0), plotWidth-right, y(0), "a")
	s.segment(left, y(0), left, y(top), "a")
	s.text(left-6, y(0), "e", "0")
	s.text(left-6, y(top)+4, "e", fmt.Sprintf("%.4g", top))
	s.text(left, height-12, "", across)
	for i, c := range curves {
		var points strings.Builder
		for k, v := range c.values {
			fmt.Fprintf(&points, "%.1f,%.1f ", x(k), y(v))
		}
		colour := colours[i%len(colours)]
		fmt.Fprintf(s, `<polyline points="%s" class="l" stroke="%s"/>`+"\n", strings.TrimSpace(points.String()), colour)
		fmt.Fprintf(s, `<text x="%d" y="%d" style="fill:%s">%s</text>`+"\n", plotWidth-right+8, 50+18*i, colour, escape(c.label))
	}
	return s.done()
}
