// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"bytes"
	"fmt"
	"math"
	"sort"
	"strconv"
	"strings"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// metricKey and attributesKey together identify a stream.
func metricKey(res pcommon.Resource, scope pcommon.InstrumentationScope, m pmetric.Metric) string {
	monotonic := m.Type() == pmetric.MetricTypeSum && m.Sum().IsMonotonic()
	return fmt.Sprintf("%s %q %q %s %q %q %d %v ", attributesKey(res.Attributes()), scope.Name(), scope.Version(),
		attributesKey(scope.Attributes()), m.Name(), m.Unit(), m.Type(), monotonic)
}

func attributesKey(m pcommon.Map) string {
	var pairs []string
	for k, v := range m.All() {
		pairs = append(pairs, strconv.Quote(k)+"="+valueKey(v))
	}
	sort.Strings(pairs)
	return "{" + strings.Join(pairs, ",") + "}"
}

func valueKey(v pcommon.Value) string {
	switch v.Type() {
	case pcommon.ValueTypeMap:
		return attributesKey(v.Map())
	case pcommon.ValueTypeSlice:
		var items []string
		for _, item := range v.Slice().All() {
			items = append(items, valueKey(item))
		}
		return "[" + strings.Join(items, ",") + "]"
	case pcommon.ValueTypeBytes:
		return fmt.Sprintf("bytes:%x", v.Bytes().AsRaw())
	case pcommon.ValueTypeDouble:
		if math.IsNaN(v.Double()) {
			return "double:nan"
		}
		return fmt.Sprintf("double:%x", math.Float64bits(v.Double()))
	}
	return fmt.Sprintf("%s:%q", v.Type(), v.AsString())
}

// sameMetrics compares by meaning: exponential buckets without leading and trailing zeros, -0 as 0, and zero thresholds
// to within a few units in the last place, because only some boundaries are exact in a float64. Both are normalised.
func sameMetrics(got, want pmetric.Metrics) bool {
	normalise(got)
	normalise(want)
	gots, wants := exponentialPoints(got), exponentialPoints(want)
	for i := range min(len(gots), len(wants)) {
		if a, b := gots[i].ZeroThreshold(), wants[i].ZeroThreshold(); math.Abs(a-b) <= 4e-16*math.Abs(b) {
			gots[i].SetZeroThreshold(b)
		}
	}
	return bytes.Equal(marshal(got), marshal(want))
}

func marshal(md pmetric.Metrics) []byte {
	data, err := (&pmetric.ProtoMarshaler{}).MarshalMetrics(md)
	if err != nil {
		panic(err)
	}
	return data
}

func exponentialPoints(md pmetric.Metrics) (points []pmetric.ExponentialHistogramDataPoint) {
	forEachMetric(md, func(_ pmetric.ResourceMetrics, _ pmetric.ScopeMetrics, m pmetric.Metric) {
		if m.Type() == pmetric.MetricTypeExponentialHistogram {
			for _, dp := range m.ExponentialHistogram().DataPoints().All() {
				points = append(points, dp)
			}
		}
	})
	return points
}

func normalise(md pmetric.Metrics) {
	for _, dp := range exponentialPoints(md) {
		writeBuckets(dp.Positive(), populated(dp.Positive()))
		writeBuckets(dp.Negative(), populated(dp.Negative()))
	}
	forEachMetric(md, func(_ pmetric.ResourceMetrics, _ pmetric.ScopeMetrics, m pmetric.Metric) {
		if m.Type() == pmetric.MetricTypeSum {
			for _, dp := range m.Sum().DataPoints().All() {
				if dp.ValueType() == pmetric.NumberDataPointValueTypeDouble && dp.DoubleValue() == 0 {
					dp.SetDoubleValue(0)
				}
			}
		}
	})
}

func forEachMetric(md pmetric.Metrics, f func(pmetric.ResourceMetrics, pmetric.ScopeMetrics, pmetric.Metric)) {
	for _, rm := range md.ResourceMetrics().All() {
		for _, sm := range rm.ScopeMetrics().All() {
			for _, m := range sm.Metrics().All() {
				f(rm, sm, m)
			}
		}
	}
}

// line is one data point in words, for failure messages and for comparing values.
type line struct{ key, interval, value string }

func (l line) String() string { return l.interval + " " + l.value }

// lines lists the points of the kinds that can be delta.
func lines(md pmetric.Metrics) (out []line) {
	forEachMetric(md, func(rm pmetric.ResourceMetrics, sm pmetric.ScopeMetrics, m pmetric.Metric) {
		for _, p := range deltaPoints(m) {
			out = append(out, line{
				key:      metricKey(rm.Resource(), sm.Scope(), m) + attributesKey(p.dp.Attributes()),
				interval: fmt.Sprintf("(%d, %d]", p.start, p.time),
				value:    describe(p.dp),
			})
		}
	})
	return out
}

func describe(point dataPoint) string {
	switch dp := point.(type) {
	case pmetric.NumberDataPoint:
		switch {
		case dp.Flags().NoRecordedValue():
			return "marker"
		case dp.ValueType() == pmetric.NumberDataPointValueTypeInt:
			return fmt.Sprintf("int %d", dp.IntValue())
		case dp.ValueType() == pmetric.NumberDataPointValueTypeDouble:
			return fmt.Sprintf("double %v", dp.DoubleValue())
		}
		return "no value"
	case pmetric.HistogramDataPoint:
		if dp.Flags().NoRecordedValue() {
			return "marker"
		}
		s := readStats(dp)
		return fmt.Sprintf("%v bounds %v buckets %v", s, dp.ExplicitBounds().AsRaw(), dp.BucketCounts().AsRaw())
	case pmetric.SummaryDataPoint:
		if dp.Flags().NoRecordedValue() {
			return "marker"
		}
		return fmt.Sprintf("summary %d %v%s", dp.Count(), dp.Sum(), quantiles(dp))
	case pmetric.ExponentialHistogramDataPoint:
		if dp.Flags().NoRecordedValue() {
			return "marker"
		}
		s := readStats(dp)
		return fmt.Sprintf("%v scale %d zero %d ≤ %v pos %v neg %v", s, dp.Scale(), dp.ZeroCount(), dp.ZeroThreshold(),
			populated(dp.Positive()), populated(dp.Negative()))
	}
	return "?"
}
