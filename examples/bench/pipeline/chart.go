// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"image/color"
	"os"
	"slices"

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
	chartDPI    = 192
	chartMargin = 6  // points
	chartBar    = 16 // points
)

// chartParts are the parts of each bar, in colours that the colour-blind can tell apart (Okabe and Ito).
var chartParts = []struct {
	role   role
	legend string
	color  color.RGBA
}{
	{roleWorker, "workers", color.RGBA{0x00, 0x72, 0xb2, 0xff}},
	{roleGateway, "gateways", color.RGBA{0x56, 0xb4, 0xe9, 0xff}},
	{roleServer, "server", color.RGBA{0xe6, 0x9f, 0x00, 0xff}},
}

// writeChart draws CPU seconds per million points of the first kind and number of series: a bar for each row, and a line at what the
// bare Collector takes.
func writeChart(file string, all []result) error {
	if len(all) == 0 {
		return errors.New("chart: nothing measured")
	}
	var rows []result
	for _, r := range all {
		if r.Kind == all[0].Kind && r.Series == all[0].Series {
			rows = append(rows, r)
		}
	}
	slices.Reverse(rows) // the first at the top
	p := plot.New()
	sans := func(styles ...*text.Style) {
		for _, style := range styles {
			style.Font.Variant = "Sans"
		}
	}
	sans(&p.Title.TextStyle, &p.X.Tick.Label, &p.Y.Tick.Label, &p.X.Label.TextStyle, &p.Legend.TextStyle)
	p.Title.Text = fmt.Sprintf("CPU seconds per million points, whole pipelines (%s, %s series)", rows[0].Kind, size(rows[0].Series))
	p.Title.Padding = vg.Points(6)
	p.X.Min, p.Y.Min, p.Y.Max = 0, -0.6, float64(len(rows))-0.4
	p.Legend.Top, p.Legend.Left = true, false
	p.Legend.XOffs, p.Legend.YOffs, p.Legend.Padding = -vg.Points(8), -vg.Points(4), vg.Points(2)
	titles := make([]string, len(rows))
	labels := plotter.XYLabels{XYs: make(plotter.XYs, len(rows)), Labels: make([]string, len(rows))}
	for i, r := range rows {
		titles[i] = r.Title
		labels.XYs[i] = plotter.XY{X: r.Total, Y: float64(i)}
		labels.Labels[i] = fmt.Sprintf("%.1f  (%.1fx)", r.Total, r.Total/r.Bare)
		p.X.Max = max(p.X.Max, r.Total*1.15) // room for the label
	}
	p.NominalY(titles...)
	p.X.Tick.Marker = wholeTicks{}
	grid := plotter.NewGrid()
	grid.Horizontal.Color, grid.Vertical.Color = nil, color.Gray{0xe0}
	p.Add(grid)
	var below *plotter.BarChart
	for _, part := range chartParts {
		values := make(plotter.Values, len(rows))
		for i, r := range rows {
			values[i] = r.CPU[part.role]
		}
		bars, err := plotter.NewBarChart(values, vg.Points(chartBar))
		if err != nil {
			return fmt.Errorf("chart: %w", err)
		}
		bars.Horizontal, bars.Color, bars.LineStyle.Width = true, part.color, 0
		if below != nil {
			bars.StackOn(below)
		}
		below = bars
		p.Add(bars)
		p.Legend.Add(part.legend, bars)
	}
	numbers, err := plotter.NewLabels(labels)
	if err != nil {
		return fmt.Errorf("chart: %w", err)
	}
	for i := range numbers.TextStyle {
		numbers.TextStyle[i].YAlign = draw.YCenter
		numbers.TextStyle[i].Font.Size = vg.Points(8)
		sans(&numbers.TextStyle[i])
	}
	numbers.Offset = vg.Point{X: vg.Points(4)}
	p.Add(numbers)
	height := vg.Points(float64(len(rows)*(chartBar+9) + 60))
	canvas := vgimg.NewWith(vgimg.UseWH(chartWidth, height), vgimg.UseDPI(chartDPI))
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

// wholeTicks are a handful of round numbers from 0.
type wholeTicks struct{}

// Ticks implements plot.Ticker.
func (wholeTicks) Ticks(_, most float64) []plot.Tick {
	step := 1.0
	for i := 0; most/step > 8; i++ {
		step *= []float64{2, 2.5, 2}[i%3] // 1, 2, 5, 10, 20
	}
	var ticks []plot.Tick
	for v := 0.0; v <= most; v += step {
		ticks = append(ticks, plot.Tick{Value: v, Label: fmt.Sprintf("%.0f", v)})
	}
	return ticks
}
