// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math"
	"testing"

	"github.com/deltaring/deltaring/d2c"
)

// The gate for speed: the library beside the floor and contrib, in turns, at a size that takes no time. How fast it is
// here is reported and judged by nobody, as on a busy machine anything happens. What does fail is a wrong outcome, a wrong
// total or a figure that is missing. Allocations and bytes are exact, and tests of package d2c.
func TestSteadyBesideTheFloor(t *testing.T) {
	for _, k := range allKinds {
		row, err := steady(k, 2000, pointsPerBatch, effort{3, 2})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range sides {
			positive(t, string(k)+" ns of "+s.name, row.NsPoint[s.name])
			if s.converts {
				positive(t, string(k)+" bytes of "+s.name, row.BytesStream[s.name])
				if _, ok := row.AllocsPoint[s.name]; !ok {
					t.Errorf("%s: no allocations of %s", k, s.name)
				}
			}
		}
		positive(t, string(k)+" ratios", row.Ratio, row.Floor)
		t.Logf("%s: %.0f ns per point, %.2fx the floor of %.0f ns; contrib %.0f ns, %.1fx", k, row.NsPoint[nameOurs], row.Floor,
			row.NsPoint[nameMap], row.NsPoint[nameContrib], row.Ratio)
	}
}

// In batches of any size every stream must be opened once and go on from then.
func TestSteadyInSmallAndLargeBatches(t *testing.T) {
	t.Parallel()
	const streams, passes = 10_000, 1
	for _, size := range []int{10, 50, 100, 1000, 10_000} {
		var points [d2c.NumOutcomes]uint64
		var conv *d2c.Converter
		r, err := newRunner(counting(&points, func(c *d2c.Converter) { conv = c }), kindSum, size)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range r.group {
			if got := b.md.DataPointCount(); got != size {
				t.Errorf("batches of %d points, want %d", got, size)
			}
		}
		if err := r.start(streams); err != nil {
			t.Fatal(err)
		}
		if points[d2c.AddedFirst] != streams || conv.Len() != streams {
			t.Errorf("batches of %d: %d first points and %d streams, want %d", size, points[d2c.AddedFirst], conv.Len(), streams)
		}
		ns, err := r.turn(streams, effort{1, passes * streams / pointsPerBatch})
		if err != nil {
			t.Fatal(err)
		}
		positive(t, "ns", ns)
		if want := [d2c.NumOutcomes]uint64{d2c.AddedFirst: streams, d2c.AddedAligned: passes * streams}; points != want {
			t.Errorf("batches of %d: outcomes %v, want %v", size, points, want)
		}
		if err := r.check(); err != nil {
			t.Error(err)
		}
	}
	for _, size := range []int{0, 5, 11, 150} {
		if _, err := newSized(kindSum, size); err == nil {
			t.Errorf("a batch of %d points is made", size)
		}
	}
}

// positive fails the test if a figure was not measured.
func positive(t *testing.T, what string, figures ...float64) {
	t.Helper()
	for _, x := range figures {
		if !(x > 0) || math.IsInf(x, 1) {
			t.Errorf("%s: %v, want a figure", what, x)
		}
	}
}
