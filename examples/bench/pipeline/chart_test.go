// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The parts of bars must be as long as the figures, of the first kind and number of series alone.
func TestChart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "chart.png")
	err := writeChart(file, []result{
		{Title: "bare", Kind: kindSum, Series: 1000, CPU: map[role]float64{roleWorker: 1}, Total: 1, Bare: 1},
		{Title: "two tiers", Kind: kindSum, Series: 1000, CPU: map[role]float64{roleWorker: 2, roleGateway: 4, roleServer: 1}, Total: 7, Bare: 1},
		{Title: "bare", Kind: kindHistogram, Series: 1000, CPU: map[role]float64{roleServer: 100}, Total: 100, Bare: 1},
	})
	if err != nil {
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
	bounds, pixels := img.Bounds(), map[color.RGBA]float64{}
	for y := bounds.Dy() / 3; y < bounds.Dy(); y++ { // below the legend
		for x := range bounds.Dx() {
			pixels[color.RGBAModel.Convert(img.At(x, y)).(color.RGBA)]++
		}
	}
	// The lower of the two bars is whole, whatever of the upper one is below the legend.
	workers, gateways, server := pixels[chartParts[0].color], pixels[chartParts[1].color], pixels[chartParts[2].color]
	if server < 500 || gateways < 3.5*server || gateways > 4.5*server || workers < 1.8*server || workers > 3.4*server {
		t.Errorf("%.0f pixels of workers, %.0f of gateways, %.0f of the server; want 2 or 3 : 4 : 1", workers, gateways, server)
	}
	if err := writeChart(file, nil); err == nil {
		t.Error("a chart of nothing is no error")
	}
}

// What a process uses is told with what its children use, running or not.
func TestUsage(t *testing.T) {
	const burn = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; "
	for _, c := range []struct{ name, script string }{
		{"its own", burn + "touch done; sleep 5"},
		{"of a child that has ended", "sh -c '" + burn + "true'; touch done; sleep 5"},
		{"of a child that has not", "sh -c '" + burn + "touch done; sleep 5; true'; true"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			done := filepath.Join(dir, "done")
			ready := func() error { _, err := os.Stat(done); return err }
			p, err := start(t.Context(), "sh", filepath.Join(dir, "log"), nil, ready, "sh", "-c", strings.ReplaceAll(c.script, "touch done", "touch "+done))
			if err != nil {
				t.Fatal(err)
			}
			defer p.kill()
			u, err := p.usage()
			if err != nil {
				t.Fatal(err)
			}
			if u.CPU < 50*time.Millisecond || u.Resident < 100<<10 {
				t.Errorf("used %v and has %d bytes, after counting to 300000", u.CPU, u.Resident)
			}
		})
	}
}
