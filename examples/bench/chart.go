// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"image/color"
	"os"

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
	chartHeight = 3.9 * vg.Inch
	chartDPI    = 192
	chartMargin = 6 // points
)

// chartBars are the bars of each group, in colours that the colour-blind can tell apart (Okabe and Ito).
var chartBars = []struct {
	side, legend string
	color        color.RGBA
}{
	{nameMap, "floor: hash, and a Go map", color.RGBA{0xa6, 0xa6, 0xa6, 0xff}},
	{nameOurs, "d2c", color.RGBA{0x00, 0x72, 0xb2, 0xff}},
	{nameContrib, "contrib deltatocumulative", color.RGBA{0xd5, 0x5e, 0x00, 0xff}},
}

// writeChart draws ns per point in steady state by kind and number of streams. Sums of doubles, which cost what sums of
// integers do, are left out where there are both.
func writeChart(file string, rows []steadyRow, cpu string) error {
	rows = charted(rows)
	if len(rows) == 0 {
		return fmt.Errorf("chart: nothing measured in steady state")
	}
	p := plot.New()
	sans := func(styles ...*text.Style) {
		for _, style := range styles {
			style.Font.Variant = "Sans"
		}
	}
	sans(&p.Title.TextStyle, &p.X.Tick.Label, &p.Y.Tick.Label, &p.Y.Label.TextStyle, &p.Legend.TextStyle)
	p.Title.Text = "Time per data point, every stream known"
	if cpu != "" {
		p.Title.Text += " (" + cpu + ")"
	}
	p.Y.Label.Text = "ns per point"
	p.Y.Min = 0
	p.Legend.Top, p.Legend.Left = true, true
	p.Legend.XOffs, p.Legend.Padding = vg.Points(8), vg.Points(2)
	p.Y.Tick.Marker = wholeTicks{}
	p.Y.Label.Padding = vg.Points(4)
	p.Title.Padding = vg.Points(6)
	p.Add(horizontals())
	// A group is a bar wider than its bars; the axis and its labels take some 60 points.
	barWidth := (chartWidth - vg.Points(60+2*chartMargin)) / vg.Length(len(rows)*(len(chartBars)+1))
	barWidth = min(barWidth, vg.Points(28))
	groups := make([]string, len(rows))
	for i, r := range rows {
		groups[i] = string(r.Kind) + "\n" + size(r.Streams)
	}
	p.NominalX(groups...)
	for i, bar := range chartBars {
		values := make(plotter.Values, len(rows))
		labels := plotter.XYLabels{XYs: make(plotter.XYs, len(rows)), Labels: make([]string, len(rows))}
		for j, r := range rows {
			values[j] = r.NsPoint[bar.side]
			labels.XYs[j] = plotter.XY{X: float64(j), Y: values[j]}
			labels.Labels[j] = fmt.Sprintf("%.0f", values[j])
			p.Y.Max = max(p.Y.Max, values[j]*1.15) // room for the legend
		}
		bars, err := plotter.NewBarChart(values, barWidth)
		if err != nil {
			return fmt.Errorf("chart: %w", err)
		}
		bars.Color, bars.LineStyle.Width = bar.color, 0
		bars.Offset = barWidth * (vg.Length(i) - vg.Length(len(chartBars)-1)/2)
		numbers, err := plotter.NewLabels(labels)
		if err != nil {
			return fmt.Errorf("chart: %w", err)
		}
		for j := range numbers.TextStyle {
			numbers.TextStyle[j].XAlign = draw.XCenter
			numbers.TextStyle[j].Font.Size = vg.Points(8)
			sans(&numbers.TextStyle[j])
		}
		numbers.Offset = vg.Point{X: bars.Offset, Y: vg.Points(2)}
		p.Add(bars, numbers)
		p.Legend.Add(bar.legend, bars)
	}
	p.X.Min, p.X.Max = -0.5, float64(len(rows))-0.5
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

func charted(rows []steadyRow) []steadyRow {
	var sums, doubles []steadyRow
	for _, r := range rows {
		if r.Kind != kindSumDouble {
			sums = append(sums, r)
		} else {
			doubles = append(doubles, r)
		}
	}
	if len(sums) == 0 {
		return doubles
	}
	return sums
}

// horizontals are faint lines to read values by.
func horizontals() *plotter.Grid {
	g := plotter.NewGrid()
	g.Vertical.Color = nil
	g.Horizontal.Color = color.Gray{0xe0}
	return g
}

// wholeTicks are a handful of round numbers from 0.
type wholeTicks struct{}

// Ticks implements plot.Ticker.
func (wholeTicks) Ticks(_, most float64) []plot.Tick {
	step := 1.0
	for i := 0; most/step > 6; i++ {
		step *= []float64{2, 2.5, 2}[i%3] // 1, 2, 5, 10, 20
	}
	var ticks []plot.Tick
	for v := 0.0; v <= most; v += step {
		ticks = append(ticks, plot.Tick{Value: v, Label: fmt.Sprintf("%.0f", v)})
	}
	return ticks
}
