// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !race

// The race detector makes sync.Pool forget at random, and allocates on its own account.

package d2c_test

import (
	"context"
	"fmt"
	"runtime/debug"
	"testing"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/streamid"
)

// loadPoints is the number of points of a load batch, each of a stream of its own.
const loadPoints = 1000

// loadKind makes a delta of a kind in an empty metric and, given a metric that has been converted, restores its values.
type loadKind struct {
	name  string
	limit float64 // bytes of live heap per stream
	// fill appends loadPoints points without times and attributes, or sets their values if they exist.
	fill func(m pmetric.Metric)
}

var (
	loadInt    = loadKind{"int sum", 64, func(m pmetric.Metric) { fillSum(m, func(p pmetric.NumberDataPoint) { p.SetIntValue(7) }) }}
	loadDouble = loadKind{"double sum", 64, func(m pmetric.Metric) { fillSum(m, func(p pmetric.NumberDataPoint) { p.SetDoubleValue(0.25) }) }}
	// Buckets take 4 bytes each while all of a stream's counts are below 2^32, and 8 from then on. The
	// budgets of 208 and 320 bytes per stream are kept by the narrow form only; 256 and 400 bound the wide one.
	loadHistogram        = loadKind{"histogram", 208, func(m pmetric.Metric) { fillHistogram(m, 1) }}
	loadLargeHistogram   = loadKind{"histogram with counts over 32 bits", 256, func(m pmetric.Metric) { fillHistogram(m, 1<<40) }}
	loadExponential      = loadKind{"exponential histogram", 320, func(m pmetric.Metric) { fillExponential(m, 1) }}
	loadLargeExponential = loadKind{"exponential histogram with counts over 32 bits", 400, func(m pmetric.Metric) { fillExponential(m, 1<<40) }}
)

func fillSum(m pmetric.Metric, set func(pmetric.NumberDataPoint)) {
	if m.Type() == pmetric.MetricTypeEmpty {
		m.SetEmptySum().SetIsMonotonic(true)
		for range loadPoints {
			m.Sum().DataPoints().AppendEmpty()
		}
	}
	m.Sum().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	for _, p := range m.Sum().DataPoints().All() {
		set(p)
	}
}

// fillHistogram makes points with 16 buckets.
func fillHistogram(m pmetric.Metric, unit uint64) {
	if m.Type() == pmetric.MetricTypeEmpty {
		m.SetEmptyHistogram()
		for range loadPoints {
			m.Histogram().DataPoints().AppendEmpty()
		}
	}
	m.Histogram().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	counts, total := loadCounts(16, unit)
	for _, p := range m.Histogram().DataPoints().All() {
		p.ExplicitBounds().FromRaw([]float64{0, 5, 10, 25, 50, 75, 100, 250, 500, 750, 1000, 2500, 5000, 7500, 10000})
		p.BucketCounts().FromRaw(counts)
		p.SetCount(total)
		p.SetSum(1234.5)
		p.SetMin(0.5)
		p.SetMax(9000)
	}
}

// fillExponential makes points with 30 populated buckets.
func fillExponential(m pmetric.Metric, unit uint64) {
	if m.Type() == pmetric.MetricTypeEmpty {
		m.SetEmptyExponentialHistogram()
		for range loadPoints {
			m.ExponentialHistogram().DataPoints().AppendEmpty()
		}
	}
	m.ExponentialHistogram().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	counts, total := loadCounts(30, unit)
	for _, p := range m.ExponentialHistogram().DataPoints().All() {
		p.SetScale(3)
		p.Positive().SetOffset(-4)
		p.Positive().BucketCounts().FromRaw(counts)
		p.SetZeroCount(2)
		p.SetCount(total + 2)
		p.SetSum(1234.5)
		p.SetMin(0.75)
		p.SetMax(9)
	}
}

func loadCounts(n int, unit uint64) (counts []uint64, total uint64) {
	for i := range n {
		counts = append(counts, unit+uint64(i))
		total += unit + uint64(i)
	}
	return counts, total
}

// loadBatch returns a batch of loadPoints streams.
func loadBatch(k loadKind) pmetric.Metrics {
	md := pmetric.NewMetrics()
	m := md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	m.SetName("load")
	k.fill(m)
	i := 0
	for attrs := range loadAttributes(m) {
		attrs.PutStr("http.route", fmt.Sprintf("/api/v1/orders/%d", i))
		i++
	}
	return md
}

// reload makes md the delta of the given interval and of the index-th thousand streams.
func reload(md pmetric.Metrics, k loadKind, index, interval int) {
	rm := md.ResourceMetrics().At(0)
	rm.Resource().Attributes().PutInt("service.instance.id", int64(index))
	m := rm.ScopeMetrics().At(0).Metrics().At(0)
	k.fill(m)
	const step pcommon.Timestamp = 10_000_000_000
	start := 1_760_000_000_000_000_000 + pcommon.Timestamp(interval)*step
	setLoadTimes(m, start, start+step)
}

func loadAttributes(m pmetric.Metric) func(yield func(pcommon.Map) bool) {
	return func(yield func(pcommon.Map) bool) {
		for i := range loadPoints {
			var attrs pcommon.Map
			switch m.Type() {
			case pmetric.MetricTypeSum:
				attrs = m.Sum().DataPoints().At(i).Attributes()
			case pmetric.MetricTypeHistogram:
				attrs = m.Histogram().DataPoints().At(i).Attributes()
			case pmetric.MetricTypeExponentialHistogram:
				attrs = m.ExponentialHistogram().DataPoints().At(i).Attributes()
			}
			if !yield(attrs) {
				return
			}
		}
	}
}

func setLoadTimes(m pmetric.Metric, start, end pcommon.Timestamp) {
	type timed interface {
		SetStartTimestamp(pcommon.Timestamp)
		SetTimestamp(pcommon.Timestamp)
	}
	for i := range loadPoints {
		var p timed
		switch m.Type() {
		case pmetric.MetricTypeSum:
			p = m.Sum().DataPoints().At(i)
		case pmetric.MetricTypeHistogram:
			p = m.Histogram().DataPoints().At(i)
		case pmetric.MetricTypeExponentialHistogram:
			p = m.ExponentialHistogram().DataPoints().At(i)
		}
		p.SetStartTimestamp(start)
		p.SetTimestamp(end)
	}
}

// In steady state a point costs no allocation, whatever its kind.
func TestSteadyStateDoesNotAllocate(t *testing.T) {
	const runs = 20
	for _, k := range []loadKind{loadInt, loadDouble, loadHistogram, loadLargeHistogram, loadExponential, loadLargeExponential} {
		t.Run(k.name, func(t *testing.T) {
			conv := newLoadConverter(t)
			// AllocsPerRun calls once more than it counts; one more opens the streams.
			batches := make([]pmetric.Metrics, runs+2)
			for i := range batches {
				batches[i] = loadBatch(k)
				reload(batches[i], k, 0, i)
			}
			defer debug.SetGCPercent(debug.SetGCPercent(-1)) // a collection empties pools
			if r := convert(conv, batches[0]); r.Count(d2c.AddedFirst) != loadPoints {
				t.Fatalf("outcomes %v, want %d first", describeResult(r), loadPoints)
			}
			var outcomes d2c.Result
			next := 1
			allocs := testing.AllocsPerRun(runs, func() {
				outcomes = convert(conv, batches[next])
				next++
			})
			if outcomes.Count(d2c.AddedAligned) != loadPoints {
				t.Fatalf("outcomes %v, want %d aligned", describeResult(outcomes), loadPoints)
			}
			if allocs != 0 {
				t.Errorf("%v allocations per batch of %d points, want 0", allocs, loadPoints)
			}
		})
	}
}

// A tenant costs a context with what tells it, and nothing per point.
func TestTenantsInSteadyState(t *testing.T) {
	const runs = 20
	conv := newLoadConverter(t)
	batches := make([]pmetric.Metrics, runs+2)
	for i := range batches {
		batches[i] = loadBatch(loadInt)
		reload(batches[i], loadInt, 0, i)
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	values, next := []string{"acme"}, 0
	convert := func() {
		ctx := d2c.WithTenant(context.Background(), streamid.TenantKey{Name: "x-tenant", Values: values})
		if _, err := conv.Convert(ctx, batches[next]); err != nil {
			t.Fatal(err)
		}
		next++
	}
	convert()
	if allocs := testing.AllocsPerRun(runs, convert); allocs > 3 {
		t.Errorf("%v allocations per batch, want 3: the context, the slice in it, and that by itself", allocs)
	}
}

func newLoadConverter(t *testing.T) *d2c.Converter {
	t.Helper()
	conv, err := d2c.New(d2c.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	return conv
}
