// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/d2c/store"
)

// wide is a histogram with as many buckets as may be.
func wide(start, end int64, n int) pmetric.Metrics {
	md := pmetric.NewMetrics()
	m := md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	m.SetName("wide")
	h := m.SetEmptyHistogram()
	h.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	dp := h.DataPoints().AppendEmpty()
	dp.SetStartTimestamp(pcommon.Timestamp(start * 1e9))
	dp.SetTimestamp(pcommon.Timestamp(end * 1e9))
	bounds, counts := make([]float64, n-1), make([]uint64, n)
	for i := range bounds {
		bounds[i] = float64(i)
	}
	for i := range counts {
		counts[i] = 1
	}
	dp.ExplicitBounds().FromRaw(bounds)
	dp.BucketCounts().FromRaw(counts)
	dp.SetCount(uint64(n))
	return md
}

// converters are one of each mode.
func converters(t *testing.T, cfg d2c.Config) map[string]*d2c.Converter {
	t.Helper()
	inMemory, err := d2c.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	durable, _ := openTest(t, cfg, newMemory())
	t.Cleanup(func() { closeTest(t, durable) })
	shared, err := d2c.OpenShared(context.Background(), cfg, d2c.SharedConfig{Store: new(store.Memory), Owner: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeTest(t, shared) })
	return map[string]*d2c.Converter{"memory": inMemory, "durable": durable, "shared": shared}
}

// A request of 1500 points of 20 bytes, or of 40 000, must not be answered with as many histograms of 32 KB. Points repeat the
// stream's latest, or each has a millisecond of its own and buckets that make the total wider than itself.
func TestOutputIsInProportion(t *testing.T) {
	for name, conv := range converters(t, d2c.DefaultConfig()) {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			if r, err := conv.Convert(ctx, wide(10, 20, 4096)); err != nil || r.Count(d2c.AddedFirst) != 1 {
				t.Fatal(err, describeResult(r))
			}
			for _, points := range []int{1500, 40_000} {
				md := pmetric.NewMetrics()
				m := md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
				m.SetName("wide")
				h := m.SetEmptyHistogram()
				h.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
				for range points {
					h.DataPoints().AppendEmpty().SetTimestamp(20e9)
				}
				in := size(md)
				before := heap()
				r, err := conv.Convert(ctx, md)
				if err != nil || r.Count(d2c.Covered) != uint64(points) {
					t.Fatal(err, describeResult(r))
				}
				grown := heap() - before
				if n := md.DataPointCount(); n != 1 {
					t.Errorf("%d answers to %d repeats, want 1", n, points)
				}
				if out := size(md); out > in+100_000 {
					t.Errorf("%d bytes became %d", in, out)
				}
				if !raceEnabled() && grown > 2<<20+int64(1100*points) { // of working memory, which grows by doubling
					t.Errorf("%d bytes of a request took %d", in, grown)
				}
				runtime.KeepAlive(md)
			}
			// An exponential histogram: its total has 160 buckets per sign, a delta one.
			for round := range 2 {
				md := pmetric.NewMetrics()
				m := md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
				m.SetName("exponential")
				e := m.SetEmptyExponentialHistogram()
				e.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
				const points = 10_000
				for i := range points {
					dp := e.DataPoints().AppendEmpty()
					at := time.Duration(100+round*points+i) * time.Second
					dp.SetStartTimestamp(pcommon.Timestamp(at - time.Second))
					dp.SetTimestamp(pcommon.Timestamp(at))
					dp.SetScale(0)
					dp.SetCount(1)
					b := dp.Positive()
					if i%2 == 1 {
						b = dp.Negative()
					}
					b.SetOffset(int32(i % 160))
					b.BucketCounts().FromRaw([]uint64{1})
				}
				in := size(md)
				if r, err := conv.Convert(ctx, md); err != nil || r.Dropped() != 0 {
					t.Fatal(err, describeResult(r))
				}
				if out := size(md); out > 8*in {
					t.Errorf("%d bytes became %d", in, out)
				}
				dps := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).ExponentialHistogram().DataPoints()
				if last := dps.At(dps.Len() - 1); last.Count() != uint64((round+1)*points) {
					t.Errorf("the last sample counts %d, want %d", last.Count(), (round+1)*points)
				}
			}
		})
	}
}

// Buckets are limited, whatever the configuration leaves out.
func TestBucketsAreLimited(t *testing.T) {
	for _, limit := range []int{0, 10} {
		cfg := d2c.DefaultConfig()
		cfg.MaxBuckets = limit
		allowed := limit
		if limit == 0 {
			allowed = 4096
		}
		for name, conv := range converters(t, cfg) {
			for n, want := range map[int]d2c.Outcome{allowed: d2c.AddedFirst, allowed + 1: d2c.DroppedBuckets} {
				if r, err := conv.Convert(context.Background(), wide(10, 20, n)); err != nil || r.Count(want) != 1 {
					t.Errorf("%s, limit %d: %d buckets: %v %s", name, limit, n, err, describeResult(r))
				}
			}
		}
	}
	cfg := d2c.DefaultConfig()
	cfg.MaxBuckets = -1
	if _, err := d2c.New(cfg); err == nil || fmt.Sprint(err) != "d2c: MaxBuckets: must be 0 to 16777215, got -1" {
		t.Error(err)
	}
}

func size(md pmetric.Metrics) int { return new(pmetric.ProtoMarshaler).MetricsSize(md) }

func heap() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.TotalAlloc)
}
