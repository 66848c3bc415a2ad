// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c

import (
	"slices"
	"testing"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

func TestSetNumber(t *testing.T) {
	if !inPlace {
		t.Error("this pdata does not have the layout that setNumber can write to in place; every point allocates")
	}
	defer func(was bool) { inPlace = was }(inPlace)
	for _, inPlace = range []bool{inPlace, false} {
		points := pmetric.NewNumberDataPointSlice()
		for _, old := range []func(pmetric.NumberDataPoint){
			func(pmetric.NumberDataPoint) {},
			func(dp pmetric.NumberDataPoint) { dp.SetIntValue(7) },
			func(dp pmetric.NumberDataPoint) { dp.SetDoubleValue(7.5) },
		} {
			for _, n := range []number{intNumber(-3), doubleNumber(-3.25)} {
				dp, other := points.AppendEmpty(), points.AppendEmpty()
				old(dp)
				dp.CopyTo(other)
				before := other.ValueType()
				setNumber(dp, n)
				if n.double && dp.DoubleValue() != n.float() || !n.double && dp.IntValue() != n.int() {
					t.Errorf("in place %t: set %v, got %v %d %g", inPlace, n, dp.ValueType(), dp.IntValue(), dp.DoubleValue())
				}
				if other.ValueType() != before || other.IntValue() == -3 || other.DoubleValue() == -3.25 {
					t.Errorf("in place %t: setting one point changed its copy", inPlace)
				}
			}
		}
	}
}

func TestCountsOf(t *testing.T) {
	if !countsInPlace {
		t.Error("this pdata does not have the layout that countsOf can read in place; every histogram point allocates")
	}
	defer func(was bool) { countsInPlace = was }(countsInPlace)
	for _, countsInPlace = range []bool{countsInPlace, false} {
		counts := pcommon.NewUInt64Slice()
		for n := range uint64(5) {
			if got := countsOf(counts); !slices.Equal(got, counts.AsRaw()) {
				t.Errorf("in place %t: counts %v, want %v", countsInPlace, got, counts.AsRaw())
			}
			counts.Append(1<<63 + n)
		}
	}
}

// Histograms are the same where counts can only be copied.
func TestHistogramsWithoutCountsInPlace(t *testing.T) {
	convert := func() pmetric.Metrics {
		conv, err := New(DefaultConfig())
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
	defer func(was bool) { countsInPlace = was }(countsInPlace)
	countsInPlace = false
	got := convert()
	marshaler := pmetric.JSONMarshaler{}
	a, errA := marshaler.MarshalMetrics(want)
	b, errB := marshaler.MarshalMetrics(got)
	if errA != nil || errB != nil || string(a) != string(b) {
		t.Fatalf("got %s %v, want %s %v", b, errB, a, errA)
	}
}
