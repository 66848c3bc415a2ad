// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package points

import (
	"slices"
	"testing"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c/internal/fold"
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
			for _, n := range []fold.Number{fold.IntNumber(-3), fold.DoubleNumber(-3.25)} {
				dp, other := points.AppendEmpty(), points.AppendEmpty()
				old(dp)
				dp.CopyTo(other)
				before := other.ValueType()
				setNumber(dp, n)
				if n.Double && dp.DoubleValue() != n.Float() || !n.Double && dp.IntValue() != n.Int() {
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

func TestBoundsOf(t *testing.T) {
	if !boundsInPlace {
		t.Error("this pdata does not have the layout that boundsOf can read in place; every histogram point allocates")
	}
	defer func(was bool) { boundsInPlace = was }(boundsInPlace)
	for _, boundsInPlace = range []bool{boundsInPlace, false} {
		bounds := pcommon.NewFloat64Slice()
		for n := range 5 {
			if got := boundsOf(bounds); !slices.Equal(got, bounds.AsRaw()) {
				t.Errorf("in place %t: bounds %v, want %v", boundsInPlace, got, bounds.AsRaw())
			}
			bounds.Append(float64(n) + 0.5)
		}
	}
}
