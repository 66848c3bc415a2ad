// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

//go:build purego

package points

import (
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c/internal/fold"
)

// setNumber gives dp the value.
func setNumber(dp pmetric.NumberDataPoint, n fold.Number) {
	if n.Double {
		dp.SetDoubleValue(n.Float())
	} else {
		dp.SetIntValue(n.Int())
	}
}

// countsOf returns the elements of s.
func countsOf(s pcommon.UInt64Slice) []uint64 { return s.AsRaw() }

// boundsOf returns the elements of s.
func boundsOf(s pcommon.Float64Slice) []float64 { return s.AsRaw() }
