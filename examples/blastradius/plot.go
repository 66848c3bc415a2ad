// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"image/color"
	"os"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
)

// colors of the schemes; the order of lightness is clear without hue, too.
var colors = []color.Color{
	color.RGBA{0x0b, 0x5f, 0xa5, 0xff},
	color.RGBA{0xe6, 0x8a, 0x1e, 0xff},
	color.RGBA{0xf3, 0xc6, 0x8b, 0xff},
	color.RGBA{0x9a, 0x9a, 0x9a, 0xff},
}

// plotChange draws what moves, and how even the outcome is.
func plotChange(path string, p *population, c *change) error {
	change := fmt.Sprintf("%d to %d members", len(c.From), len(c.To))
	top, err := bars(p, change+": streams moved", "% of streams", 100*c.Least, "least", func(k, s int) float64 {
		return 100 * float64(c.ByKey[k][s].Streams) / float64(p.Streams)
	})
	if err != nil {
		return err
	}
	bottom, err := bars(p, "hottest member after that", "streams, x its share", 1, "even", func(k, s int) float64 {
		return c.ByKey[k][s].HotStreams.Ratio
	})
	if err != nil {
		return err
	}
	return save(path, top, bottom)
}

// plotRoll draws the moves of each phase by the first routing key, and those of the whole update by all.
func plotRoll(path string, p *population, r *roll) error {
	top := plot.New()
	top.Title.Text = fmt.Sprintf("rolling update of %d members: streams moved by %s", r.Bounds.Desired, p.ByKey[0].Key.Name)
	top.X.Label.Text = "phase"
	top.Y.Label.Text = "% of streams"
	top.Y.Min = 0
	top.Legend.Top = true
	top.Add(plotter.NewGrid())
	lines := make([]*plotter.Line, len(schemes))
	for s := len(schemes) - 1; s >= 0; s-- { // ours on top
		course := make(plotter.XYs, len(r.Course))
		for i := range course {
			course[i] = plotter.XY{X: float64(i + 1), Y: 100 * float64(r.ByKey[0][s].Streams[i]) / float64(p.Streams)}
		}
		line, points, err := plotter.NewLinePoints(course)
		if err != nil {
			return err
		}
		line.Color, line.Width = colors[s], vg.Points(2)
		points.Color, points.Shape = colors[s], draw.CircleGlyph{}
		top.Add(line, points)
		lines[s] = line
	}
	for s, line := range lines {
		top.Legend.Add(schemes[s].Name, line)
	}
	phases := len(r.Course)
	top.X.Min, top.X.Max = 1-0.02*float64(phases), 1+1.17*float64(phases-1)+0.5 // room for the legend
	var ticks plot.ConstantTicks
	for i := 1; i <= phases; i += 1 + (phases-1)/12 {
		ticks = append(ticks, plot.Tick{Value: float64(i), Label: strconv.Itoa(i)})
	}
	top.X.Tick.Marker = ticks
	top.Y.Tick.Marker = wholeTicks{}
	least := 0.0
	for _, l := range r.Least {
		least += l
	}
	bottom, err := bars(p, "moves of the whole update", "% of streams, each time counts", 100*least, "least", func(k, s int) float64 {
		return 100 * float64(total(r.ByKey[k][s].Streams)) / float64(p.Streams)
	})
	if err != nil {
		return err
	}
	return save(path, top, bottom)
}

// bars draws a group of bars for each routing key, one for each scheme, and a line for what would be ideal.
func bars(
	p *population, title, unit string, ideal float64, idealName string, value func(key, scheme int) float64,
) (*plot.Plot, error) {
	plt := plot.New()
	plt.Title.Text = title
	plt.Y.Label.Text = unit
	plt.Y.Min = 0
	plt.Legend.Top = true
	grid := plotter.NewGrid()
	grid.Vertical.Color = nil
	plt.Add(grid)
	width := vg.Points(16)
	highest := ideal
	for s := range schemes {
		values := make(plotter.Values, len(p.ByKey))
		for k := range values {
			values[k] = value(k, s)
			highest = max(highest, values[k])
		}
		chart, err := plotter.NewBarChart(values, width)
		if err != nil {
			return nil, err
		}
		chart.Color = colors[s]
		chart.LineStyle.Width = 0
		chart.Offset = width * (vg.Length(s) - vg.Length(len(schemes)-1)/2)
		plt.Add(chart)
		plt.Legend.Add(schemes[s].Name, chart)
	}
	line := plotter.NewFunction(func(float64) float64 { return ideal })
	line.Width = vg.Points(1.5)
	line.Dashes = []vg.Length{vg.Points(5), vg.Points(3)}
	plt.Add(line)
	plt.Legend.Add(idealName, line)
	plt.Y.Max = 1.1 * highest
	plt.Y.Tick.Marker = wholeTicks{}
	names := make([]string, len(p.ByKey))
	for k, g := range p.ByKey {
		names[k] = g.Key.Name
	}
	plt.NominalX(names...)
	plt.X.Min, plt.X.Max = -0.6, float64(len(names))+0.3 // room for the legend
	return plt, nil
}

// wholeTicks are the default ones, without the zeros behind the decimal point that those have.
type wholeTicks struct{}

func (wholeTicks) Ticks(low, high float64) []plot.Tick {
	ticks := plot.DefaultTicks{}.Ticks(low, high)
	for i := range ticks {
		if ticks[i].Label != "" {
			ticks[i].Label = strconv.FormatFloat(ticks[i].Value, 'g', 6, 64)
		}
	}
	return ticks
}

// save draws one plot above the other.
func save(path string, top, bottom *plot.Plot) (err error) {
	canvas := vgimg.NewWith(vgimg.UseWH(9*vg.Inch, 8*vg.Inch), vgimg.UseDPI(120))
	for _, p := range []*plot.Plot{top, bottom} {
		p.Title.TextStyle.Font.Size = vg.Points(15)
		p.Title.Padding = vg.Points(8)
		p.Legend.Padding = vg.Points(2)
		p.Legend.TextStyle.Font.Size = vg.Points(11)
		for _, axis := range []*plot.Axis{&p.X, &p.Y} {
			axis.Label.TextStyle.Font.Size = vg.Points(12)
			axis.Tick.Label.Font.Size = vg.Points(11)
		}
	}
	edge := vg.Points(8)
	tiles := draw.Tiles{Rows: 2, Cols: 1, PadY: 2 * edge, PadTop: edge, PadBottom: edge, PadLeft: edge, PadRight: edge}
	canvases := plot.Align([][]*plot.Plot{{top}, {bottom}}, tiles, draw.New(canvas))
	top.Draw(canvases[0][0])
	bottom.Draw(canvases[1][0])
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := file.Close(); err == nil {
			err = closeErr
		}
	}()
	_, err = vgimg.PngCanvas{Canvas: canvas}.WriteTo(file)
	return err
}
