// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math"
	"strconv"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// What agents send to backends besides counters and histograms, of each kind for a few streams: deltas of exponential histograms, and
// a cumulative counter and a gauge, which nobody adds up. Names are those of the metric and of its series.
const (
	sizeMetric, sizeSeries     = "shop.size", "shop_size"
	visitsMetric, visitsSeries = "shop.visits", "shop_visits_total"
	queueMetric, queueSeries   = "shop.queue", "shop_queue"

	furtherStreams = 2
	sizeScale      = 2
)

// further adds these to what an agent sends of an interval.
func further(a *agent, rm pmetric.ResourceMetrics, i int) {
	// Not a label by OTLP into Prometheus, which makes a target_info of it.
	rm.Resource().Attributes().PutStr("host.name", "host-of-"+a.name)
	metrics := rm.ScopeMetrics().At(0).Metrics()
	start, end := pcommon.NewTimestampFromTime(a.end(i-1)), pcommon.NewTimestampFromTime(a.end(i))

	m := metrics.AppendEmpty()
	m.SetName(sizeMetric)
	size := m.SetEmptyExponentialHistogram()
	size.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	m = metrics.AppendEmpty()
	m.SetName(visitsMetric)
	visits := m.SetEmptySum()
	visits.SetIsMonotonic(true)
	visits.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	m = metrics.AppendEmpty()
	m.SetName(queueMetric)
	queue := m.SetEmptyGauge()
	for stream := range furtherStreams {
		e := size.DataPoints().AppendEmpty()
		e.Attributes().PutStr("stream", streamName(stream))
		e.SetStartTimestamp(start)
		e.SetTimestamp(end)
		e.SetScale(sizeScale)
		d := a.sizes(stream, i)
		e.SetZeroCount(uint64(d.zeros))
		e.SetCount(uint64(d.count))
		e.SetSum(float64(d.sum))
		e.Positive().BucketCounts().FromRaw(d.buckets[:])

		v := visits.DataPoints().AppendEmpty()
		v.Attributes().PutStr("stream", streamName(stream))
		v.SetStartTimestamp(pcommon.NewTimestampFromTime(a.begin))
		v.SetTimestamp(end)
		v.SetIntValue(a.visits(stream, i))

		q := queue.DataPoints().AppendEmpty()
		q.Attributes().PutStr("stream", streamName(stream))
		q.SetTimestamp(end)
		q.SetIntValue(a.queue(stream, i))
	}
}

// sizeBuckets is how many buckets the observations of sizes can be in.
const sizeBuckets = 13

// observed is what an exponential histogram has of an interval. Bucket i is that of index i; none is below 1.
type observed struct {
	count, sum, zeros int64
	buckets           [sizeBuckets]uint64
}

// sizes are from 2 to 9, which are all in the middle of their buckets or at their upper bounds.
func (a *agent) sizes(stream, i int) observed {
	r := a.random(2, stream, i)
	var o observed
	for range 1 + r.IntN(5) {
		n := 2 + r.Int64N(8)
		o.buckets[sizeIndex(float64(n))]++
		o.count++
		o.sum += n
	}
	o.zeros = r.Int64N(2)
	o.count += o.zeros
	return o
}

// sizeIndex is the index of the bucket that has an upper bound, or what is below it by less than a bucket.
func sizeIndex(upper float64) int {
	return int(math.Ceil(math.Log2(upper)*(1<<sizeScale)-1e-2)) - 1 // the bounds that backends give are rounded
}

// visits is a total that the agent itself has counted.
func (a *agent) visits(stream, i int) int64 { return int64(i+1) * int64(3+a.number+stream) }

// queue goes up and down.
func (a *agent) queue(stream, i int) int64 { return a.random(3, stream, i).Int64N(1000) }

// expected is what a series has to be.
type expected struct {
	*truth
	lives  bool // is added up by d2c, and begins anew where that has forgotten it
	sparse bool // has no samples where it is nothing
}

// expectations are the truths of all series of a load that sends further.
func (l *load) expectations() map[seriesKey]expected {
	all := map[seriesKey]expected{}
	for key, t := range l.truths() {
		all[key] = expected{truth: t, lives: true}
	}
	for _, a := range l.agents {
		for stream := range furtherStreams {
			a.expectFurther(stream, all)
		}
	}
	return all
}

func (a *agent) expectFurther(stream int, all map[seriesKey]expected) {
	intervals := int(a.done.Load())
	of := func(name, le string, value func(i int) int64, e expected) {
		e.truth = &truth{begin: a.begin.UnixMilli(), totals: make([]int64, intervals)}
		for i := range intervals {
			e.totals[i] = value(i)
			if e.lives && i > 0 {
				e.totals[i] += e.totals[i-1]
			}
		}
		all[seriesKey{name, a.name, streamName(stream), le}] = e
	}
	of(visitsSeries, "", func(i int) int64 { return a.visits(stream, i) }, expected{})
	of(queueSeries, "", func(i int) int64 { return a.queue(stream, i) }, expected{})
	of(sizeSeries+"_count", "", func(i int) int64 { return a.sizes(stream, i).count }, expected{lives: true})
	of(sizeSeries+"_sum", "", func(i int) int64 { return a.sizes(stream, i).sum }, expected{lives: true})
	of(sizeSeries+"_bucket", zeroBucket, func(i int) int64 { return a.sizes(stream, i).zeros }, expected{lives: true, sparse: true})
	for b := range sizeBuckets {
		of(sizeSeries+"_bucket", bucketName(b), func(i int) int64 { return int64(a.sizes(stream, i).buckets[b]) }, expected{lives: true, sparse: true})
	}
}

// Buckets of exponential histograms are series of their own here, told apart by the index.
const zeroBucket = "zero"

func bucketName(index int) string { return strconv.Itoa(index) }
