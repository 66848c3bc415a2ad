// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !race

// The race detector makes sync.Pool forget at random, and allocates on its own account.

package d2c_test

import (
	"math"
	"testing"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
)

// Who is told loses nothing by it: not even where something is dropped in each batch.
func TestNoticesDoNotAllocate(t *testing.T) {
	cfg := d2c.DefaultConfig()
	n := 0
	cfg.OnNotice = func(notice d2c.Notice) {
		if notice.Metric.Name() == "b" {
			n++
		}
	}
	conv := newConverter(t, cfg)
	convert(conv, batch(series("a").int(10, 20, 0), series("b").int(10, 20, 0)))
	end := 20.0
	next := func(md pmetric.Metrics) {
		end += 10
		for _, m := range md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().All() {
			m.Sum().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
			dp := m.Sum().DataPoints().At(0)
			dp.SetStartTimestamp(sec(end - 10))
			dp.SetTimestamp(sec(end))
		}
		convert(conv, md)
	}
	keep := batch(series("a").int(0, 0, 0))
	if allocs := testing.AllocsPerRun(100, func() { next(keep) }); allocs > 0.5 || n > 0 {
		t.Errorf("%v allocations of a batch without drops, want 0", allocs)
	}
	drops := make([]pmetric.Metrics, 101) // what is dropped is gone
	for i := range drops {
		drops[i] = batch(series("a").int(0, 0, 0), series("b").double(0, 0, math.NaN()))
	}
	i := 0
	if allocs := testing.AllocsPerRun(100, func() { i++; next(drops[i-1]) }); allocs > 0.5 {
		t.Errorf("%v allocations of a batch with a drop, want 0", allocs)
	}
	if n < 100 {
		t.Errorf("told %d times", n)
	}
}

// What it costs to look for duplicates, per stream that is opened.
func BenchmarkOpen(b *testing.B) {
	for _, labels := range []d2c.Duplicates{d2c.DuplicatesNone, d2c.DuplicatesService, d2c.DuplicatesResource} {
		b.Run(labels.String(), func(b *testing.B) {
			cfg := d2c.DefaultConfig()
			cfg.Duplicates, cfg.MaxStreams = labels, 0
			conv := newConverter(b, cfg)
			md := loadBatch(loadInt)
			b.ResetTimer()
			for i := 0; i < b.N; i += loadPoints {
				b.StopTimer()
				reload(md, loadInt, i/loadPoints, 0)
				b.StartTimer()
				if r := convert(conv, md); r.Count(d2c.AddedFirst) != loadPoints || r.Duplicates != 0 {
					b.Fatalf("%s, %d duplicates", describeResult(r), r.Duplicates)
				}
			}
			b.ReportMetric(float64(conv.Stats().MemoryBytes)/float64(conv.Len()), "B/stream")
		})
	}
}
