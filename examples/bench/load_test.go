// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"runtime/debug"
	"testing"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
)

// Under load, every stream must have been opened before and go on in every point, and collections must have happened.
func TestUnderLoad(t *testing.T) {
	const streams, cycles = 30_000, 1
	defer debug.SetGCPercent(debug.SetGCPercent(5)) // a collection before all streams have had their turn
	var points [d2c.NumOutcomes]uint64
	var conv *d2c.Converter
	counted := counting(&points, func(c *d2c.Converter) { conv = c })
	row, err := underLoad(counted, streams, cycles)
	if err != nil {
		t.Fatal(err)
	}
	if row.Side != nameOurs || row.Points < streams || row.Cycles < cycles || row.GCShare >= 1 {
		t.Errorf("%+v: want all streams and %d collection", row, cycles)
	}
	positive(t, "figures", row.GCShare, row.GCNsPoint, row.PointsSecond)
	want := [d2c.NumOutcomes]uint64{d2c.AddedFirst: streams, d2c.AddedAligned: uint64(row.Points)}
	if points != want || conv.Len() != streams {
		t.Errorf("outcomes %v of %d streams, want %v", points, conv.Len(), want)
	}
}

// A side that passes deltas through must not be measured.
func TestUnderLoadNoticesDeltas(t *testing.T) {
	idle := side{name: nameOurs, converts: true, open: func() (consume, error) {
		return func(pmetric.Metrics) error { return nil }, nil
	}}
	if _, err := underLoad(idle, 1000, 1); err == nil {
		t.Error("deltas pass for totals")
	}
}
