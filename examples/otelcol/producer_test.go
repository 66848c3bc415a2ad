// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package otelcol

import (
	"context"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"

	"github.com/deltaring/deltaring/d2c"
)

// producer is one process with delta instruments of every kind. Each of its exports is made once and may be sent
// several times, or late. What it sends as a float is a multiple of 1/64, so that every total is exact.
type producer struct {
	client   pmetricotlp.GRPCClient
	ledger   *ledger
	resource map[string]string
	labels   map[string]string // of every series this producer feeds
	noStart  bool              // points carry no start timestamp
	scale    int32             // of the exponential histogram
	random   *rand.Rand

	totals map[string]float64 // by seriesKey
	size   exponential        // total of the exponential histogram
	ends   map[string]time.Time
}

// export is one OTLP request.
type export struct {
	request    pmetricotlp.ExportRequest
	instrument string // which of the producer's groups of instruments: "sums" or "histograms"
	start, end time.Time
	natives    int                 // exponential histograms among the points
	points     int                 // that share one outcome
	besides    map[d2c.Outcome]int // further points
	// count adds the export to the totals and notes the samples that follow from it.
	count func(at time.Time)
}

var routes = []string{"/cart", "/checkout"}

// The bounds of the explicit histogram, and as Prometheus labels its buckets.
var (
	latencyBounds = []float64{0.0625, 0.125, 0.25, 0.5, 1, 2.5}
	latencyLe     = []string{"0.0625", "0.125", "0.25", "0.5", "1", "2.5", "+Inf"}
)

// newProducer returns a producer whose resource has the given attributes beside service.name.
func newProducer(client pmetricotlp.GRPCClient, l *ledger, seed uint64, resource, labels map[string]string) *producer {
	p := &producer{
		client:   client,
		ledger:   l,
		resource: map[string]string{"service.name": "shop"},
		labels:   map[string]string{"job": "shop", "otel_scope_name": "shop/meter", "otel_scope_version": "1.2"},
		scale:    3,
		random:   rand.New(rand.NewPCG(seed, 0)),
		totals:   map[string]float64{},
		ends:     map[string]time.Time{},
	}
	maps.Copy(p.resource, resource)
	maps.Copy(p.labels, labels)
	return p
}

// send delivers an export and expects the outcome for each of its points; if they are added, the samples that carry
// them have the time emitted.
func (p *producer) send(e export, outcome d2c.Outcome, emitted time.Time) error {
	reply, err := p.client.Export(context.Background(), e.request)
	if err != nil {
		return fmt.Errorf("export of %s until %v: %w", e.instrument, e.end, err)
	}
	if n := reply.PartialSuccess().RejectedDataPoints(); n != 0 {
		return fmt.Errorf("export of %s until %v: %d points rejected: %s", e.instrument, e.end, n, reply.PartialSuccess().ErrorMessage())
	}

	l := p.ledger
	l.mu.Lock()
	l.outcomes[outcome] += uint64(e.points)
	for o, n := range e.besides {
		l.outcomes[o] += uint64(n)
	}
	last, known := p.ends[e.instrument]
	switch outcome {
	case d2c.AddedFirst:
		l.streams += e.points
	case d2c.AddedGap:
		l.gapOpened += time.Duration(e.points) * e.start.Sub(last)
	case d2c.AddedLate:
		l.gapFilled += time.Duration(e.points) * e.end.Sub(e.start)
	case d2c.Repeat, d2c.Covered:
		l.repeatedNative += e.natives
	}
	l.mu.Unlock()
	if !known || e.end.After(last) {
		p.ends[e.instrument] = e.end
	}
	if outcome.Added() || outcome == d2c.Passed {
		e.count(emitted)
	}
	return nil
}

// sums exports counters and up-down counters, integer and double.
func (p *producer) sums(start, end time.Time) export {
	type delta struct {
		series string
		value  float64
	}
	var deltas []delta
	md, metrics := p.newBatch()
	number := func(name, unit string, monotonic bool) pmetric.NumberDataPointSlice {
		sum := newMetric(metrics, name, unit).SetEmptySum()
		sum.SetIsMonotonic(monotonic)
		sum.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
		return sum.DataPoints()
	}
	point := func(points pmetric.NumberDataPointSlice) pmetric.NumberDataPoint {
		pt := points.AppendEmpty()
		p.setTimes(pt, start, end)
		return pt
	}

	orders := number("shop.orders", "{order}", true)
	for _, route := range routes {
		pt, n := point(orders), p.random.Int64N(1000)
		pt.Attributes().PutStr("http.route", route)
		pt.SetIntValue(n)
		deltas = append(deltas, delta{p.key("shop_orders_total", "http_route", route), float64(n)})
	}
	traffic := float64(p.random.IntN(1<<20)) / 64
	point(number("shop.traffic", "By", true)).SetDoubleValue(traffic)
	baskets := p.random.Int64N(200) - 100
	point(number("shop.baskets", "{basket}", false)).SetIntValue(baskets)
	balance := float64(p.random.IntN(1<<16)-1<<15) / 64
	point(number("shop.balance", "", false)).SetDoubleValue(balance)
	deltas = append(deltas,
		delta{p.key("shop_traffic_bytes_total"), traffic},
		delta{p.key("shop_baskets"), float64(baskets)},
		delta{p.key("shop_balance"), balance})

	return p.newExport("sums", md, start, end, func(at time.Time) {
		for _, d := range deltas {
			p.add(d.series, d.value, at)
		}
	})
}

// histograms exports one histogram with explicit bounds and one exponential histogram.
func (p *producer) histograms(start, end time.Time) export {
	md, metrics := p.newBatch()

	latency := newMetric(metrics, "shop.latency", "s").SetEmptyHistogram()
	latency.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	lp := latency.DataPoints().AppendEmpty()
	p.setTimes(lp, start, end)
	lp.ExplicitBounds().FromRaw(latencyBounds)
	counts := make([]uint64, len(latencyBounds)+1)
	var count uint64
	for i := range counts {
		counts[i] = p.random.Uint64N(20)
		count += counts[i]
	}
	lp.BucketCounts().FromRaw(counts)
	lp.SetCount(count)
	sum := float64(p.random.IntN(1<<12)) / 64
	lp.SetSum(sum)

	size := newMetric(metrics, "shop.size", "By").SetEmptyExponentialHistogram()
	size.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	sp := size.DataPoints().AppendEmpty()
	p.setTimes(sp, start, end)
	delta := p.randomExponential()
	delta.write(sp)

	e := p.newExport("histograms", md, start, end, func(at time.Time) {
		p.add(p.key("shop_latency_seconds_sum"), sum, at)
		p.add(p.key("shop_latency_seconds_count"), float64(count), at)
		var below uint64
		for i, le := range latencyLe {
			below += counts[i]
			p.add(p.key("shop_latency_seconds_bucket", "le", le), float64(below), at)
		}
		p.size.add(delta)
		p.ledger.append(p.key("shop_size_bytes"), p.size.sample(at))
	})
	e.natives = 1
	return e
}

// oddities exports a gauge and a cumulative counter, which are none of the processor's business, among points that
// must not be counted.
func (p *producer) oddities(start, end time.Time) export {
	md, metrics := p.newBatch()
	number := func(sum pmetric.Sum, temporality pmetric.AggregationTemporality) pmetric.NumberDataPoint {
		sum.SetIsMonotonic(true)
		sum.SetAggregationTemporality(temporality)
		pt := sum.DataPoints().AppendEmpty()
		p.setTimes(pt, start, end)
		return pt
	}
	temperature := 15 + float64(p.random.IntN(640))/64
	gauge := newMetric(metrics, "shop.temperature", "").SetEmptyGauge().DataPoints().AppendEmpty()
	gauge.SetTimestamp(pcommon.NewTimestampFromTime(end))
	gauge.SetDoubleValue(temperature)
	number(newMetric(metrics, "shop.broken", "").SetEmptySum(), pmetric.AggregationTemporalityDelta).SetDoubleValue(math.NaN())
	number(newMetric(metrics, "shop.falling", "").SetEmptySum(), pmetric.AggregationTemporalityDelta).SetIntValue(-1)
	p.totals["uptime"] += end.Sub(start).Seconds()
	uptime := p.totals["uptime"]
	number(newMetric(metrics, "shop.uptime", "s").SetEmptySum(), pmetric.AggregationTemporalityCumulative).SetDoubleValue(uptime)

	e := p.newExport("oddities", md, start, end, func(at time.Time) {
		p.ledger.append(p.key("shop_temperature"), sample{ms: at.UnixMilli(), value: temperature})
		p.ledger.append(p.key("shop_uptime_seconds_total"), sample{ms: at.UnixMilli(), value: uptime})
	})
	e.points = 2
	e.besides = map[d2c.Outcome]int{d2c.DroppedNotFinite: 1, d2c.DroppedNegative: 1}
	return e
}

// key returns the series of a metric of this producer, with further labels as names and values in turn.
func (p *producer) key(name string, more ...string) string {
	labels := maps.Clone(p.labels)
	for i := 0; i < len(more); i += 2 {
		labels[more[i]] = more[i+1]
	}
	return seriesKey(name, labels)
}

func (p *producer) add(key string, delta float64, at time.Time) {
	p.totals[key] += delta
	p.ledger.append(key, sample{ms: at.UnixMilli(), value: p.totals[key]})
}

func (p *producer) newBatch() (pmetric.Metrics, pmetric.MetricSlice) {
	md := pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	for k, v := range p.resource {
		rm.Resource().Attributes().PutStr(k, v)
	}
	sm := rm.ScopeMetrics().AppendEmpty()
	sm.Scope().SetName("shop/meter")
	sm.Scope().SetVersion("1.2")
	return md, sm.Metrics()
}

func newMetric(metrics pmetric.MetricSlice, name, unit string) pmetric.Metric {
	m := metrics.AppendEmpty()
	m.SetName(name)
	m.SetUnit(unit)
	return m
}

func (p *producer) newExport(instrument string, md pmetric.Metrics, start, end time.Time, count func(time.Time)) export {
	return export{
		request:    pmetricotlp.NewExportRequestFromMetrics(md),
		instrument: instrument,
		start:      start, end: end,
		points: md.DataPointCount(),
		count:  count,
	}
}

func (p *producer) setTimes(point interface {
	SetStartTimestamp(pcommon.Timestamp)
	SetTimestamp(pcommon.Timestamp)
}, start, end time.Time) {
	if !p.noStart {
		point.SetStartTimestamp(pcommon.NewTimestampFromTime(start))
	}
	point.SetTimestamp(pcommon.NewTimestampFromTime(end))
}

// exponential is an exponential histogram that keeps a count per bucket index, in the plainest way.
type exponential struct {
	scale              int32
	positive, negative map[int32]uint64
	zero               uint64
	sum                float64
}

func (p *producer) randomExponential() exponential {
	e := exponential{
		scale:    p.scale,
		positive: map[int32]uint64{},
		negative: map[int32]uint64{},
		zero:     p.random.Uint64N(3),
		sum:      float64(p.random.IntN(1<<12)) / 64,
	}
	// Some way around 1 at every scale, elsewhere each time, with holes.
	shift := p.random.Int32N(20) - 10
	for range 12 {
		e.positive[shift+p.random.Int32N(24)] += 1 + p.random.Uint64N(5)
	}
	for range 3 {
		e.negative[shift+p.random.Int32N(12)]++
	}
	return e
}

func (e *exponential) count() uint64 {
	n := e.zero
	for _, c := range e.positive {
		n += c
	}
	for _, c := range e.negative {
		n += c
	}
	return n
}

// write puts e into an OTLP point.
func (e *exponential) write(pt pmetric.ExponentialHistogramDataPoint) {
	pt.SetScale(e.scale)
	pt.SetZeroCount(e.zero)
	pt.SetCount(e.count())
	pt.SetSum(e.sum)
	dense := func(counts map[int32]uint64, to pmetric.ExponentialHistogramDataPointBuckets) {
		first, last := indexRange(counts)
		to.SetOffset(first)
		for i := first; i <= last; i++ {
			to.BucketCounts().Append(counts[i])
		}
	}
	dense(e.positive, pt.Positive())
	dense(e.negative, pt.Negative())
}

// add merges d into e at the coarser scale of the two; the zero value takes d's scale.
func (e *exponential) add(d exponential) {
	if e.positive == nil {
		*e = exponential{scale: d.scale, positive: map[int32]uint64{}, negative: map[int32]uint64{}}
	}
	scale := min(e.scale, d.scale)
	merge := func(a, b map[int32]uint64) map[int32]uint64 {
		sum := map[int32]uint64{}
		for i, n := range a {
			sum[i>>(e.scale-scale)] += n
		}
		for i, n := range b {
			sum[i>>(d.scale-scale)] += n
		}
		return sum
	}
	e.positive, e.negative = merge(e.positive, d.positive), merge(e.negative, d.negative)
	e.scale = scale
	e.zero += d.zero
	e.sum += d.sum
}

// sample returns e as the native histogram that Prometheus makes of it.
func (e *exponential) sample(at time.Time) sample {
	bound := func(i int32) float64 { return math.Exp2(math.Ldexp(float64(i), -int(e.scale))) }
	var buckets []bucket
	if first, last := indexRange(e.negative); first <= last {
		for i := last; i >= first; i-- {
			buckets = append(buckets, bucket{-bound(i + 1), -bound(i), float64(e.negative[i])})
		}
	}
	const zeroThreshold = 1e-128 // the exporter's, for points that have none
	buckets = append(buckets, bucket{-zeroThreshold, zeroThreshold, float64(e.zero)})
	if first, last := indexRange(e.positive); first <= last {
		for i := first; i <= last; i++ {
			buckets = append(buckets, bucket{bound(i), bound(i + 1), float64(e.positive[i])})
		}
	}
	populated := buckets[:0]
	for _, b := range buckets {
		if b.count > 0 {
			populated = append(populated, b)
		}
	}
	return sample{ms: at.UnixMilli(), value: float64(e.count()), native: &native{sum: e.sum, buckets: populated}}
}

// indexRange returns the lowest and highest index in counts; the lowest is above the highest if there are none.
func indexRange(counts map[int32]uint64) (first, last int32) {
	first, last = math.MaxInt32, math.MinInt32
	for i := range counts {
		first, last = min(first, i), max(last, i)
	}
	return first, last
}
