// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package points_test

import (
	"testing"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/d2c/internal/points"
)

// Histograms are the same where counts and bounds can only be copied.
func TestHistogramsWithoutSlicesInPlace(t *testing.T) {
	convert := func() pmetric.Metrics {
		conv, err := d2c.New(d2c.DefaultConfig())
		if err != nil {
			t.Fatal(err)
		}
		var md pmetric.Metrics
		for n := range pcommon.Timestamp(3) {
			md = pmetric.NewMetrics()
			ms := md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics()
			h := ms.AppendEmpty().SetEmptyHistogram()
			h.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
			p := h.DataPoints().AppendEmpty()
			p.SetStartTimestamp(1 + n)
			p.SetTimestamp(2 + n)
			p.SetCount(6)
			p.ExplicitBounds().FromRaw([]float64{1, 2})
			p.BucketCounts().FromRaw([]uint64{1, 2, 3 << 31})
			x := ms.AppendEmpty().SetEmptyExponentialHistogram()
			x.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
			q := x.DataPoints().AppendEmpty()
			q.SetStartTimestamp(1 + n)
			q.SetTimestamp(2 + n)
			q.SetCount(6)
			q.Positive().SetOffset(int32(n))
			q.Positive().BucketCounts().FromRaw([]uint64{0, 1, 0, 3 << 31, 0})
			q.Negative().BucketCounts().FromRaw([]uint64{2})
			if r, err := conv.Convert(t.Context(), md); err != nil || r.Dropped() != 0 {
				t.Fatal(r, err)
			}
		}
		return md
	}
	want := convert()
	defer points.CopySlices()()
	got := convert()
	marshaler := pmetric.JSONMarshaler{}
	a, errA := marshaler.MarshalMetrics(want)
	b, errB := marshaler.MarshalMetrics(got)
	if errA != nil || errB != nil || string(a) != string(b) {
		t.Fatalf("got %s %v, want %s %v", b, errB, a, errA)
	}
}
