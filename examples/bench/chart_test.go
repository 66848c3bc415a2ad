// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"testing"
)

// The bars must be as high as the figures: pixels of each colour are in the proportion of the values.
func TestChartDrawsWhatWasMeasured(t *testing.T) {
	t.Parallel()
	rows := []steadyRow{
		{Kind: kindSum, Streams: 1000, NsPoint: map[string]float64{nameMap: 100, nameOurs: 200, nameContrib: 1200}},
		{Kind: kindSumDouble, Streams: 1000, NsPoint: map[string]float64{nameMap: 5000, nameOurs: 5000, nameContrib: 5000}},
		{Kind: kindExponential, Streams: 100_000, NsPoint: map[string]float64{nameMap: 200, nameOurs: 400, nameContrib: 2400}},
	}
	file := filepath.Join(t.TempDir(), "chart.png")
	if err := writeChart(file, rows, "Some Processor"); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	bounds := img.Bounds()
	if bounds.Dx() < 1600 || bounds.Dx() > 1800 {
		t.Errorf("%d pixels wide, want twice a README's width", bounds.Dx())
	}
	pixels := make(map[color.RGBA]float64)
	for y := bounds.Dy() / 3; y < bounds.Dy(); y++ { // below the legend
		for x := range bounds.Dx() {
			pixels[color.RGBAModel.Convert(img.At(x, y)).(color.RGBA)]++
		}
	}
	floor, ours, contrib := pixels[chartBars[0].color], pixels[chartBars[1].color], pixels[chartBars[2].color]
	if floor < 1000 || ours < 1.8*floor || ours > 2.2*floor || contrib < 4*ours {
		t.Errorf("%.0f pixels of the floor, %.0f of d2c, %.0f of contrib; want 1:2:12, but for what the legend hides", floor, ours, contrib)
	}
}

func TestChartOfNothing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "chart.png")
	if err := writeChart(file, nil, ""); err == nil {
		t.Error("no error")
	}
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("file: %v, want none", err)
	}
	if _, err := parse([]string{"-only", "ring", "-chart", file}); err == nil {
		t.Error("a chart without steady state is accepted")
	}
}

func TestWholeTicks(t *testing.T) {
	for most, want := range map[float64]string{2973: "500", 310: "100", 6: "1", 13: "5"} {
		ticks := wholeTicks{}.Ticks(0, most)
		if len(ticks) < 2 || ticks[0].Label != "0" || ticks[1].Label != want {
			t.Errorf("up to %g: %v, want steps of %s", most, ticks, want)
		}
	}
}
