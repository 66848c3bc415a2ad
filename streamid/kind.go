// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package streamid

import "go.opentelemetry.io/collector/pdata/pmetric"

// The numbers in these blocks are part of encoding v1. They are not those of pdata, which may change.
const (
	kindNone                 = 0
	kindGauge                = 1
	kindSum                  = 2
	kindHistogram            = 3
	kindExponentialHistogram = 4
	kindSummary              = 5
)

const (
	temporalityUnspecified = 0
	temporalityDelta       = 1
	temporalityCumulative  = 2
	temporalityUnknown     = 255
)

// kindOf returns the three bytes by which metrics of the same name and unit differ. A metric type without a monotonic flag
// or a temporality has zero in its place.
func kindOf(m pmetric.Metric) (kind, monotonic, temporality byte) {
	switch m.Type() {
	case pmetric.MetricTypeGauge:
		return kindGauge, 0, 0
	case pmetric.MetricTypeSum:
		if m.Sum().IsMonotonic() {
			monotonic = 1
		}
		return kindSum, monotonic, temporalityCode(m.Sum().AggregationTemporality())
	case pmetric.MetricTypeHistogram:
		return kindHistogram, 0, temporalityCode(m.Histogram().AggregationTemporality())
	case pmetric.MetricTypeExponentialHistogram:
		return kindExponentialHistogram, 0, temporalityCode(m.ExponentialHistogram().AggregationTemporality())
	case pmetric.MetricTypeSummary:
		return kindSummary, 0, 0
	}
	return kindNone, 0, 0
}

func temporalityCode(t pmetric.AggregationTemporality) byte {
	switch t {
	case pmetric.AggregationTemporalityUnspecified:
		return temporalityUnspecified
	case pmetric.AggregationTemporalityDelta:
		return temporalityDelta
	case pmetric.AggregationTemporalityCumulative:
		return temporalityCumulative
	}
	// The wire carries any int32.
	return temporalityUnknown
}
