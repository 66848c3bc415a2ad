// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"
	"time"
)

func TestTargets(t *testing.T) {
	rows := []ringRow{
		{Scheme: nameRing, Members: 100, Worst: 1.01, Join: 1.2, NsLookup: 5, AllocsLookup: 0.5, Build: 150e6},
		{Scheme: nameRebalance, Members: 100, Worst: 9, Join: 9, NsLookup: 99},
	}
	got := ringTargets(rows, []changeRow{{Diff: 5e6, Rebalance: 1}, {Diff: 6e6, Rebalance: 1}})
	got = append(got, splitTargets([]splitRow{
		{Key: "streamID", NsPoint: map[string]float64{nameSplit: 150}, AllocsPoint: map[string]float64{nameSplit: 0.11}},
		{Key: "service", NsPoint: map[string]float64{nameSplit: 999}},
	})...)
	want := map[string]bool{
		"join and leave at n=100": false, "New at n=100": true, "slots max/mean, worst of all": true,
		"Rebalance, worst of all": true, "Owner, worst of all": true, "Owner allocations": false,
		"Diff of a join, worst of all": false, "split by streamID/ns/point": true, "split by streamID/allocs/point": false,
	}
	if len(got) != len(want) {
		t.Errorf("%d targets, want %d", len(got), len(want))
	}
	for _, r := range got {
		reached, ok := want[r.What]
		if !ok {
			reached, ok = want[r.What+"/"+r.Unit]
		}
		if !ok || r.Reached != reached {
			t.Errorf("%+v: known %v, want reached %v", r, ok, reached)
		}
	}
}

func TestConverterTargets(t *testing.T) {
	figures := func(x float64) map[string]float64 { return map[string]float64{nameOurs: x} }
	got := converterTargets(&report{
		Steady: []steadyRow{
			{Kind: kindSum, Streams: 1000, Ratio: 8, Floor: 9, AllocsPoint: figures(0.001), BytesStream: figures(999)},
			{Kind: kindSum, Streams: 100_000, Ratio: 7.9, Floor: 1.6, AllocsPoint: figures(0), BytesStream: figures(65)},
			{Kind: kindHistogram, Streams: 100_000, Ratio: 6, BytesStream: figures(208)},
			{Kind: kindExponential, Streams: 1_000_000, Ratio: 1, BytesStream: figures(321)},
		},
		New: []freshRow{{Kind: kindSum, Streams: 100_000, Ratio: 4.9}, {Kind: kindHistogram, Streams: 1000, Ratio: 1}},
		Cores: []coresRow{
			{Streams: 1000, Sharing: nameDisjoint, Cores: 2, Speedup: figures(1.8)},
			{Streams: 1000, Sharing: nameDisjoint, Cores: 3, Speedup: figures(1)},
			{Streams: 1000, Sharing: nameAtOnce, Cores: 2, Speedup: figures(0.9)},
		},
		Growth: &growthRow{Streams: 10_000_000, Steadfast: 20 * time.Millisecond, HeapBytes: 701e6},
	})
	want := []struct {
		what, unit string
		reached    bool
	}{
		{"sum, 1k streams", "x contrib", true},
		{"sum, 100k streams", "x contrib", false},
		{"sum, 100k streams", "x hash+map", true},
		{"sum, 100k streams", "bytes/stream", false},
		{"histogram, 100k streams", "x contrib", true},
		{"histogram, 100k streams", "bytes/stream", true},
		{"exponential, 1M streams", "bytes/stream", false},
		{"steady state, worst of all", "allocs/point", true},
		{"sum, all new, 100k", "x contrib", false},
		{"two cores, disjoint, 1k", "x one core", true},
		{"all cores, at once, 1k", "x one core", false},
		{"longest call growing to 10M", "ms", true},
		{"live heap at 10M sums", "MB", false},
	}
	if len(got) != len(want) {
		t.Fatalf("%d targets, want %d: %+v", len(got), len(want), got)
	}
	for i, w := range want {
		if g := got[i]; g.What != w.what || g.Unit != w.unit || g.Reached != w.reached {
			t.Errorf("%+v, want %+v", g, w)
		}
	}
	if got := converterTargets(new(report)); len(got) != 0 {
		t.Errorf("targets of nothing: %+v", got)
	}
}
