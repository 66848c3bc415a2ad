// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"image/color"
	"math"
	"os"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
)

// The chart is drawn at twice the pixels of the width that a README has on GitHub.
const (
	chartWidth  = 8.8 * vg.Inch
	chartHeight = 3.4 * vg.Inch
	chartDPI    = 192
	chartMargin = 6 // points
)

// Colours that the colour-blind can tell apart (Okabe and Ito).
var (
	sideColors = map[string]color.Color{
		ours.name:  color.RGBA{0x00, 0x72, 0xb2, 0xff},
		peer.name:  color.RGBA{0xd5, 0x5e, 0x00, 0xff},
		alone.name: color.RGBA{0x00, 0x9e, 0x73, 0xff},
	}
	truthColor = color.Gray{0xa6}
	eventColor = color.Gray{0xec}
)

// writeChart draws one counter as each side's Prometheus has it, through an event.
func writeChart(file string, rows []row) error {
	key := example(rows)
	p := plot.New()
	sans := func(styles ...*text.Style) {
		for _, style := range styles {
			style.Font.Variant = "Sans"
		}
	}
	sans(&p.Title.TextStyle, &p.X.Tick.Label, &p.Y.Tick.Label, &p.X.Label.TextStyle, &p.Y.Label.TextStyle, &p.Legend.TextStyle)
	title := rows[0].event.title
	p.Title.Text = strings.ToUpper(title[:1]) + title[1:] + ": one of the counters in Prometheus"
	p.Title.Padding = vg.Points(6)
	p.X.Label.Text = "seconds since it began"
	p.Y.Min = 0
	p.Legend.Top, p.Legend.Left = true, true
	p.Legend.XOffs, p.Legend.Padding = vg.Points(8), vg.Points(2)

	p.X.Tick.Marker = everyFive{}

	// What was sent is the same on all sides, and goes on for as long as the longest run.
	var sent plotter.XYs
	for _, r := range rows {
		t := r.truths[key]
		if len(t.totals) <= len(sent) {
			continue
		}
		sent = sent[:0]
		for n, total := range t.totals {
			sent = append(sent, plotter.XY{X: since(t.begin+int64(n+1)*interval.Milliseconds(), r.begin), Y: float64(total)})
		}
	}
	p.Y.Max = sent[len(sent)-1].Y * 1.05
	took := rows[0].end.Sub(rows[0].begin).Seconds()
	band, err := plotter.NewPolygon(plotter.XYs{{X: 0, Y: 0}, {X: took, Y: 0}, {X: took, Y: p.Y.Max}, {X: 0, Y: p.Y.Max}})
	if err != nil {
		return fmt.Errorf("chart: %w", err)
	}
	band.Color, band.LineStyle.Color, band.LineStyle.Width = eventColor, eventColor, vg.Points(1) // seen even if it took no time
	p.Add(band)
	line, err := plotter.NewLine(sent)
	if err != nil {
		return fmt.Errorf("chart: %w", err)
	}
	line.Color, line.Width = truthColor, vg.Points(5)
	p.Add(line)
	p.Legend.Add("sent and acknowledged", line)
	var legend []func()
	for _, r := range slices.Backward(rows) { // ours on top
		points := make(plotter.XYs, len(r.samples[key]))
		for n, s := range r.samples[key] {
			points[n] = plotter.XY{X: since(s.ms, r.begin), Y: s.value}
		}
		line, dots, err := plotter.NewLinePoints(points)
		if err != nil {
			return fmt.Errorf("chart: %w", err)
		}
		line.Color, line.Width = sideColors[r.side.name], vg.Points(1.5)
		dots.Color, dots.Shape, dots.Radius = line.Color, draw.CircleGlyph{}, vg.Points(1.8)
		p.Add(line, dots)
		legend = append(legend, func() { p.Legend.Add(r.side.name, line, dots) })
	}
	for _, add := range slices.Backward(legend) {
		add()
	}

	canvas := vgimg.NewWith(vgimg.UseWH(chartWidth, chartHeight), vgimg.UseDPI(chartDPI))
	margin := vg.Points(chartMargin)
	p.Draw(draw.Crop(draw.New(canvas), margin, -margin, margin, -margin))
	f, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("chart: %w", err)
	}
	if _, err := (vgimg.PngCanvas{Canvas: canvas}).WriteTo(f); err != nil {
		f.Close()
		return fmt.Errorf("chart: %w", err)
	}
	return f.Close()
}

// everyFive are ticks every five seconds.
type everyFive struct{}

// Ticks implements plot.Ticker.
func (everyFive) Ticks(least, most float64) []plot.Tick {
	var ticks []plot.Tick
	for v := math.Ceil(least/5) * 5; v <= most; v += 5 {
		ticks = append(ticks, plot.Tick{Value: v, Label: fmt.Sprintf("%.0f", v)})
	}
	return ticks
}

// example returns a counter that shows what happened: one that fell as often as any.
func example(rows []row) seriesKey {
	var best seriesKey
	most := -1
	for key := range rows[0].truths {
		if key.name != counterSeries {
			continue
		}
		n := 0
		for _, r := range rows {
			n += falls(r.samples[key])
		}
		// By name among equals, so that it is the same one every time.
		if n > most || n == most && slices.Compare([]string{key.instance, key.stream}, []string{best.instance, best.stream}) < 0 {
			best, most = key, n
		}
	}
	return best
}
