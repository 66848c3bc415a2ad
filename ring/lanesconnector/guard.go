// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package lanesconnector

import (
	"math"
	"math/bits"
	"slices"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/streamid"
)

// guard drops samples that are not later than what was sent of their stream. It belongs to a lane, which has all of a stream, and
// is for one goroutine at a time.
//
// What filter lets pass counts as sent at once, so that what follows in the same request is compared with it; undo takes that back
// if the request fails. What is late only because of that must not be dropped before it is known to be taken; filter holds it.
// Times are compared in milliseconds, as the backends have them that care.
//
// Deltas always pass: each counts something that no other does. So do points without a time, which no order has a place for.
type guard struct {
	seed  streamid.Seed
	sent  sentTable
	limit int // of streams
	log   []sentBefore

	passed map[uint64]struct{} // the streams of the log, as far as they had to be looked for
	looked int                 // how much of the log that is
	place  int                 // of a point among those that filter keeps
	held   []int               // places
}

// verdicts is how many points filter dropped, and how many passed that it could not remember.
type verdicts struct{ late, duplicate, unguarded int }

// sentBefore is what the guard knew of a stream before filter let a point of it pass.
type sentBefore struct {
	key uint64
	was sample // zero if the stream is new
}

// filter removes late points, and what is empty without them. Those that are late only because of what is not taken yet are held:
// heldAs says how they are to be counted if it is.
func (g *guard) filter(of []streamid.TenantKey, md pmetric.Metrics) (v verdicts, held pmetric.Metrics, heldAs verdicts) {
	g.place, g.held = 0, g.held[:0]
	tenant := g.seed.Tenant(of...)
	md.ResourceMetrics().RemoveIf(func(rm pmetric.ResourceMetrics) bool {
		resource := tenant.Resource(rm.Resource())
		rm.ScopeMetrics().RemoveIf(func(sm pmetric.ScopeMetrics) bool {
			scope := resource.Scope(sm.Scope())
			sm.Metrics().RemoveIf(func(m pmetric.Metric) bool { return g.filterMetric(scope, m, &v, &heldAs) })
			return sm.Metrics().Len() == 0
		})
		return rm.ScopeMetrics().Len() == 0
	})
	if len(g.held) == 0 {
		return v, pmetric.NewMetrics(), heldAs
	}
	isHeld := func(place int) bool {
		_, found := slices.BinarySearch(g.held, place)
		return found
	}
	held = copyMetrics(md)
	keepPoints(held, isHeld)
	keepPoints(md, func(place int) bool { return !isHeld(place) })
	return v, held, heldAs
}

// filterMetric removes late points of a metric and returns whether none are left.
func (g *guard) filterMetric(scope streamid.Scope, m pmetric.Metric, v, heldAs *verdicts) bool {
	const delta = pmetric.AggregationTemporalityDelta
	switch m.Type() {
	case pmetric.MetricTypeGauge:
		stream := scope.Metric(m)
		points := m.Gauge().DataPoints()
		points.RemoveIf(func(dp pmetric.NumberDataPoint) bool {
			return g.drop(stream, dp.Attributes(), dp.Timestamp(), numberOf(dp), v, heldAs)
		})
		return points.Len() == 0
	case pmetric.MetricTypeSum:
		points := m.Sum().DataPoints()
		if m.Sum().AggregationTemporality() != delta {
			stream := scope.Metric(m)
			points.RemoveIf(func(dp pmetric.NumberDataPoint) bool {
				return g.drop(stream, dp.Attributes(), dp.Timestamp(), numberOf(dp), v, heldAs)
			})
		} else {
			g.place += points.Len()
		}
		return points.Len() == 0
	case pmetric.MetricTypeHistogram:
		points := m.Histogram().DataPoints()
		if m.Histogram().AggregationTemporality() != delta {
			stream := scope.Metric(m)
			points.RemoveIf(func(dp pmetric.HistogramDataPoint) bool {
				return g.drop(stream, dp.Attributes(), dp.Timestamp(), histogramOf(dp), v, heldAs)
			})
		} else {
			g.place += points.Len()
		}
		return points.Len() == 0
	case pmetric.MetricTypeExponentialHistogram:
		points := m.ExponentialHistogram().DataPoints()
		if m.ExponentialHistogram().AggregationTemporality() != delta {
			stream := scope.Metric(m)
			points.RemoveIf(func(dp pmetric.ExponentialHistogramDataPoint) bool {
				return g.drop(stream, dp.Attributes(), dp.Timestamp(), exponentialOf(dp), v, heldAs)
			})
		} else {
			g.place += points.Len()
		}
		return points.Len() == 0
	case pmetric.MetricTypeSummary:
		stream := scope.Metric(m)
		points := m.Summary().DataPoints()
		points.RemoveIf(func(dp pmetric.SummaryDataPoint) bool {
			return g.drop(stream, dp.Attributes(), dp.Timestamp(), summaryOf(dp), v, heldAs)
		})
		return points.Len() == 0
	}
	return true
}

// drop returns whether a point is late, and counts it if so. A point that is not counts as sent.
func (g *guard) drop(stream streamid.Metric, attributes pcommon.Map, at pcommon.Timestamp, value fingerprint, v, heldAs *verdicts) bool {
	ms := uint64(at) / 1e6
	if ms == 0 {
		g.place++
		return false
	}
	id := stream.Point(attributes)
	key := id.Lo | 1 // zero is no stream; of this half the lane says nothing
	now := newSample(ms, value)
	slot, was := g.sent.find(key)
	if was.time() >= now.time() {
		if g.pending(key) {
			g.held = append(g.held, g.place)
			g.place++
			heldAs.add(was == now)
			return false
		}
		v.add(was == now)
		return true
	}
	g.place++
	switch {
	case was != 0:
		g.sent.set(slot, now)
	case g.sent.streams >= g.limit:
		v.unguarded++
		return false
	default:
		g.sent.insert(slot, key, now)
	}
	g.log = append(g.log, sentBefore{key, was})
	return false
}

func (v *verdicts) add(duplicate bool) {
	if duplicate {
		v.duplicate++
	} else {
		v.late++
	}
}

// pending returns whether the latest sample of a stream is one that passed since done.
func (g *guard) pending(key uint64) bool {
	if g.passed == nil && len(g.log) > 0 {
		g.passed = map[uint64]struct{}{}
	}
	for ; g.looked < len(g.log); g.looked++ {
		g.passed[g.log[g.looked].key] = struct{}{}
	}
	_, ok := g.passed[key]
	return ok
}

// done says that all that passed was taken.
func (g *guard) done() {
	g.log, g.passed, g.looked = g.log[:0], nil, 0
	if cap(g.log) > maxScratch {
		g.log = nil
	}
}

// maxScratch is how many entries of the log are kept for the next request.
const maxScratch = 1 << 16

// undo forgets that anything passed since done.
func (g *guard) undo() {
	for _, before := range slices.Backward(g.log) {
		slot, _ := g.sent.find(before.key)
		if before.was == 0 {
			// Deleting would leave a hole that others are looked for across. The beginning of time does as well: all is later.
			g.sent.set(slot, newSample(0, 0))
			continue
		}
		g.sent.set(slot, before.was)
	}
	g.done()
}

// fingerprint tells values apart. It mixes in 64 bits, of which a sample keeps a few.
type fingerprint uint64

func (f *fingerprint) add(x uint64) {
	const odd = 0x9e3779b97f4a7c15
	hi, lo := bits.Mul64(uint64(*f)^x^odd, odd)
	*f = fingerprint(hi ^ lo + x)
}

func (f *fingerprint) addFloat(x float64) { f.add(math.Float64bits(x)) }

func (f *fingerprint) addCounts(counts pcommon.UInt64Slice) {
	f.add(uint64(counts.Len()))
	for i := range counts.Len() {
		f.add(counts.At(i))
	}
}

func numberOf(dp pmetric.NumberDataPoint) (f fingerprint) {
	f.add(uint64(dp.Flags())<<8 | uint64(dp.ValueType()))
	if dp.ValueType() == pmetric.NumberDataPointValueTypeInt {
		f.add(uint64(dp.IntValue()))
	} else {
		f.addFloat(dp.DoubleValue())
	}
	return f
}

func histogramOf(dp pmetric.HistogramDataPoint) (f fingerprint) {
	f.add(uint64(dp.Flags()))
	f.add(dp.Count())
	f.addFloat(dp.Sum())
	f.addFloat(dp.Min())
	f.addFloat(dp.Max())
	f.addCounts(dp.BucketCounts())
	return f
}

func exponentialOf(dp pmetric.ExponentialHistogramDataPoint) (f fingerprint) {
	f.add(uint64(dp.Flags()))
	f.add(dp.Count())
	f.addFloat(dp.Sum())
	f.addFloat(dp.Min())
	f.addFloat(dp.Max())
	f.add(uint64(uint32(dp.Scale())) | dp.ZeroCount()<<32)
	f.add(uint64(uint32(dp.Positive().Offset())))
	f.addCounts(dp.Positive().BucketCounts())
	f.add(uint64(uint32(dp.Negative().Offset())))
	f.addCounts(dp.Negative().BucketCounts())
	return f
}

func summaryOf(dp pmetric.SummaryDataPoint) (f fingerprint) {
	f.add(uint64(dp.Flags()))
	f.add(dp.Count())
	f.addFloat(dp.Sum())
	for _, q := range dp.QuantileValues().All() {
		f.addFloat(q.Quantile())
		f.addFloat(q.Value())
	}
	return f
}
