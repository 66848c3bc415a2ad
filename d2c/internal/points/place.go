// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package points

import (
	"iter"
	"slices"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c/internal/fold"
	"github.com/deltaring/deltaring/d2c/internal/table"
	"github.com/deltaring/deltaring/streamid"
)

// Place says where in a batch a metric is.
type Place struct {
	Resource pcommon.Resource
	Scope    pcommon.InstrumentationScope
	Metric   pmetric.Metric
	// First is the position of the metric's first point, N the number of its points.
	First, N int
}

// Point is what a notice says of a point besides its place.
type Point struct {
	Attributes pcommon.Map
	fold.Interval
	// ID is the stream's; zero if the point is malformed.
	ID streamid.ID
}

// Places iterates over the metrics of md that came as deltas. It is for use before Emit: points that were dropped are still there.
func (b *Batch) Places(md pmetric.Metrics) iter.Seq[Place] {
	return func(yield func(Place) bool) {
		metric, position := 0, 0
		if b.places(md, &metric, &position, yield) && b.copied.any {
			b.places(b.extra, &metric, &position, yield)
		}
	}
}

// places is Places for a part of the batch. It continues at a metric and a position.
func (b *Batch) places(md pmetric.Metrics, metric, position *int, yield func(Place) bool) bool {
	rms := md.ResourceMetrics()
	for i := range rms.Len() {
		rm := rms.At(i)
		sms := rm.ScopeMetrics()
		for j := range sms.Len() {
			sm := sms.At(j)
			ms := sm.Metrics()
			for k := range ms.Len() {
				delta := b.deltas[*metric]
				*metric++
				if !delta {
					continue
				}
				m := ms.At(k)
				n := pointsOf(m)
				if !yield(Place{rm.Resource(), sm.Scope(), m, *position, n}) {
					return false
				}
				*position += n
			}
		}
	}
	return true
}

// Find returns the position of the first point with an outcome, of all from some position on, or -1.
func (b *Batch) Find(o fold.Outcome, from int) int {
	for i := from; i < len(b.outcomes); i++ {
		if b.outcomes[i]&^withheld == o {
			return i
		}
	}
	return -1
}

// Point returns what is to be said of a point, as it came, by its item, if it has one.
func (b *Batch) Point(at Place, position int, it *Item) (p Point) {
	i := position - at.First
	var start, end pcommon.Timestamp
	switch at.Metric.Type() {
	case pmetric.MetricTypeSum:
		dp := at.Metric.Sum().DataPoints().At(i)
		p.Attributes, start, end = dp.Attributes(), dp.StartTimestamp(), dp.Timestamp()
	case pmetric.MetricTypeHistogram:
		dp := at.Metric.Histogram().DataPoints().At(i)
		p.Attributes, start, end = dp.Attributes(), dp.StartTimestamp(), dp.Timestamp()
	case pmetric.MetricTypeExponentialHistogram:
		dp := at.Metric.ExponentialHistogram().DataPoints().At(i)
		p.Attributes, start, end = dp.Attributes(), dp.StartTimestamp(), dp.Timestamp()
	case pmetric.MetricTypeSummary:
		dp := at.Metric.Summary().DataPoints().At(i)
		p.Attributes, start, end = dp.Attributes(), dp.StartTimestamp(), dp.Timestamp()
	}
	p.Interval = fold.Interval{Start: int64(start), Time: int64(end)}
	// The times of what is malformed are still those that came; others may be those of a sample by now.
	if it != nil {
		p.ID, p.Interval = it.ID, it.Interval
	}
	return p
}

// Position returns the position of the item's point in the batch.
func (it *Item) Position() int { return int(it.position) }

// ItemAt returns the item of a point, nil if it is malformed. Items have the order of their points.
func (b *Batch) ItemAt(position int) *Item {
	i, found := slices.BinarySearchFunc(b.Items, int32(position), func(it Item, position int32) int { return int(it.position - position) })
	if !found {
		return nil
	}
	return &b.Items[i]
}

// Reaching returns the position of the first sum that overlapped all of its stream's life, and how many did: a producer whose
// start never moves sends such. It is for use before Emit, and reads what the points are to get.
func (b *Batch) Reaching() (position, n int) {
	position = -1
	for i := range b.Items {
		it := &b.Items[i]
		if it.Kind != table.KindSum || b.Writer(it) != nil || b.outcomes[it.position]&^withheld != fold.AddedOverlap || it.Interval.Start > b.startOf(it) {
			continue
		}
		if n++; position < 0 {
			position = int(it.position)
		}
	}
	return position, n
}

// startOf returns the start of the sample that a sum gets.
func (b *Batch) startOf(it *Item) int64 {
	if b.direct {
		return int64(b.numbers[it.point].StartTimestamp())
	}
	return b.staged.samples[it.position].Start
}

// unspecified reports whether a metric has a temporality, and does not say which.
func unspecified(m pmetric.Metric) bool {
	switch m.Type() {
	case pmetric.MetricTypeSum:
		return m.Sum().AggregationTemporality() == pmetric.AggregationTemporalityUnspecified
	case pmetric.MetricTypeHistogram:
		return m.Histogram().AggregationTemporality() == pmetric.AggregationTemporalityUnspecified
	case pmetric.MetricTypeExponentialHistogram:
		return m.ExponentialHistogram().AggregationTemporality() == pmetric.AggregationTemporalityUnspecified
	}
	return false
}

// Unclear iterates over the metrics of md that have points and do not say whether these are deltas. First has no meaning.
func Unclear(md pmetric.Metrics) iter.Seq[Place] {
	return func(yield func(Place) bool) {
		for _, rm := range md.ResourceMetrics().All() {
			for _, sm := range rm.ScopeMetrics().All() {
				for _, m := range sm.Metrics().All() {
					if n := pointsOf(m); n > 0 && unspecified(m) && !yield(Place{rm.Resource(), sm.Scope(), m, 0, n}) {
						return
					}
				}
			}
		}
	}
}
