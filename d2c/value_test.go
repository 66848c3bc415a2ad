// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c

import (
	"testing"

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
