// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math"
	"strings"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// kind is a kind of delta metric. Its word is what -kinds takes and the tables show.
type kind string

const (
	kindSum         kind = "sum"         // monotonic, int64
	kindSumDouble   kind = "sumdouble"   // monotonic, float64
	kindHistogram   kind = "histogram"   // 16 buckets, 15 bounds, sum, min, max
	kindExponential kind = "exponential" // 30 populated positive buckets, sum, min, max
)

var allKinds = []kind{kindSum, kindSumDouble, kindHistogram, kindExponential}

// parseKinds reads a comma-separated list of kinds.
func parseKinds(list string) ([]kind, error) {
	var kinds []kind
next:
	for word := range strings.SplitSeq(list, ",") {
		for _, k := range allKinds {
			if string(k) == word {
				kinds = append(kinds, k)
				continue next
			}
		}
		return nil, fmt.Errorf("kinds: unknown kind %q, want some of %v", word, allKinds)
	}
	return kinds, nil
}

// The delta of one point, the same in every interval. Bucket counts differ so that a bucket added to the wrong place
// shows in the check of the totals.
const (
	deltaInt       = 7
	deltaDouble    = 0.25
	deltaHistSum   = 1234.5
	histBuckets    = 16
	expBuckets     = 30
	expScale       = 3
	expOffset      = -4
	expZeroCount   = 2
	histMin        = 0.5
	histMax        = 9_000
	expMin, expMax = 0.7, 9.0
)

// histBounds are the default bounds of the OpenTelemetry SDKs: 15 bounds, 16 buckets.
var histBounds = []float64{0, 5, 10, 25, 50, 75, 100, 250, 500, 750, 1000, 2500, 5000, 7500, 10000}

var histDelta, expDelta = counts(histBuckets), counts(expBuckets)

func counts(n int) []uint64 {
	c := make([]uint64, n)
	for i := range c {
		c[i] = uint64(i + 1)
	}
	return c
}

func total(c []uint64) uint64 {
	var n uint64
	for _, v := range c {
		n += v
	}
	return n
}

// appendPoint makes an empty point and returns its attributes.
func (k kind) appendPoint(m pmetric.Metric) pcommon.Map {
	switch k {
	case kindHistogram:
		return m.Histogram().DataPoints().AppendEmpty().Attributes()
	case kindExponential:
		return m.ExponentialHistogram().DataPoints().AppendEmpty().Attributes()
	default:
		return m.Sum().DataPoints().AppendEmpty().Attributes()
	}
}

// setEmpty gives m the type of the kind.
func (k kind) setEmpty(m pmetric.Metric) {
	switch k {
	case kindHistogram:
		m.SetEmptyHistogram()
	case kindExponential:
		m.SetEmptyExponentialHistogram()
	default:
		m.SetEmptySum().SetIsMonotonic(true)
	}
}

// reset makes m the delta of the interval (start, end] again, whatever a conversion has left in it.
func (k kind) reset(m pmetric.Metric, start, end pcommon.Timestamp) {
	switch k {
	case kindSum, kindSumDouble:
		m.Sum().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
		for _, p := range m.Sum().DataPoints().All() {
			p.SetStartTimestamp(start)
			p.SetTimestamp(end)
			if k == kindSum {
				p.SetIntValue(deltaInt)
			} else {
				p.SetDoubleValue(deltaDouble)
			}
		}
	case kindHistogram:
		m.Histogram().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
		for _, p := range m.Histogram().DataPoints().All() {
			p.SetStartTimestamp(start)
			p.SetTimestamp(end)
			p.SetCount(total(histDelta))
			p.SetSum(deltaHistSum)
			p.SetMin(histMin)
			p.SetMax(histMax)
			if p.ExplicitBounds().Len() != len(histBounds) {
				p.ExplicitBounds().FromRaw(histBounds)
			}
			setCounts(p.BucketCounts(), histDelta)
		}
	case kindExponential:
		m.ExponentialHistogram().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
		for _, p := range m.ExponentialHistogram().DataPoints().All() {
			p.SetStartTimestamp(start)
			p.SetTimestamp(end)
			p.SetCount(expZeroCount + total(expDelta))
			p.SetZeroCount(expZeroCount)
			p.SetScale(expScale)
			p.SetSum(deltaHistSum)
			p.SetMin(expMin)
			p.SetMax(expMax)
			p.Positive().SetOffset(expOffset)
			setCounts(p.Positive().BucketCounts(), expDelta)
		}
	}
}

// setCounts writes in place where the length allows it, so that a reset neither moves nor allocates buckets.
func setCounts(dst pcommon.UInt64Slice, src []uint64) {
	if dst.Len() != len(src) {
		dst.FromRaw(src)
		return
	}
	for i, v := range src {
		dst.SetAt(i, v)
	}
}

// check reports the first point of m that is not the total of n intervals.
func (k kind) check(m pmetric.Metric, n int) error {
	switch k {
	case kindSum, kindSumDouble:
		if got := m.Sum().AggregationTemporality(); got != pmetric.AggregationTemporalityCumulative {
			return fmt.Errorf("%s: temporality is %v, want cumulative", k, got)
		}
		for i, p := range m.Sum().DataPoints().All() {
			if k == kindSum && p.IntValue() != int64(n)*deltaInt {
				return fmt.Errorf("%s: point %d is %d, want %d", k, i, p.IntValue(), n*deltaInt)
			}
			if k == kindSumDouble && p.DoubleValue() != float64(n)*deltaDouble {
				return fmt.Errorf("%s: point %d is %g, want %g", k, i, p.DoubleValue(), float64(n)*deltaDouble)
			}
		}
	case kindHistogram:
		if got := m.Histogram().AggregationTemporality(); got != pmetric.AggregationTemporalityCumulative {
			return fmt.Errorf("%s: temporality is %v, want cumulative", k, got)
		}
		for i, p := range m.Histogram().DataPoints().All() {
			if err := checkCounts(p.BucketCounts(), histDelta, n); err != nil {
				return fmt.Errorf("%s: point %d: %w", k, i, err)
			}
			if err := checkSummary(p.Count(), total(histDelta), p.Sum(), n); err != nil {
				return fmt.Errorf("%s: point %d: %w", k, i, err)
			}
		}
	case kindExponential:
		if got := m.ExponentialHistogram().AggregationTemporality(); got != pmetric.AggregationTemporalityCumulative {
			return fmt.Errorf("%s: temporality is %v, want cumulative", k, got)
		}
		for i, p := range m.ExponentialHistogram().DataPoints().All() {
			if p.Scale() != expScale || p.Positive().Offset() != expOffset {
				return fmt.Errorf("%s: point %d: scale %d offset %d, want %d and %d", k, i, p.Scale(),
					p.Positive().Offset(), expScale, expOffset)
			}
			if err := checkCounts(p.Positive().BucketCounts(), expDelta, n); err != nil {
				return fmt.Errorf("%s: point %d: %w", k, i, err)
			}
			if err := checkSummary(p.Count(), expZeroCount+total(expDelta), p.Sum(), n); err != nil {
				return fmt.Errorf("%s: point %d: %w", k, i, err)
			}
		}
	}
	return nil
}

func checkCounts(got pcommon.UInt64Slice, delta []uint64, n int) error {
	if got.Len() != len(delta) {
		return fmt.Errorf("%d buckets, want %d", got.Len(), len(delta))
	}
	for i, d := range delta {
		if got.At(i) != d*uint64(n) {
			return fmt.Errorf("bucket %d is %d, want %d", i, got.At(i), d*uint64(n))
		}
	}
	return nil
}

// checkSummary compares sums with a tolerance: both sides add doubles one by one.
func checkSummary(count, delta uint64, sum float64, n int) error {
	if count != delta*uint64(n) {
		return fmt.Errorf("count is %d, want %d", count, delta*uint64(n))
	}
	if want := deltaHistSum * float64(n); math.Abs(sum-want) > 1e-9*want {
		return fmt.Errorf("sum is %g, want %g", sum, want)
	}
	return nil
}
