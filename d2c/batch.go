// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c

import (
	"cmp"
	"slices"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/streamid"
)

// batch is the working memory of one Convert. A batch takes one path: identify all points, group them by shard, fold
// shard by shard, emit. In memory a fold goes to the streams themselves and to the points at once; where state is durable
// it goes to copies of the streams (see group), and what the points get is staged until the copies are committed. Looking
// a whole shard's items up before folding them lets the cache misses of one stream overlap with those of the next.
type batch struct {
	items    []item
	order    []int32 // items by shard, otherwise as they came
	ends     [shardCount]int32
	deltas   []bool           // of every metric as it came, whether it was one of deltas
	metrics  []pmetric.Metric // those that were
	outcomes []Outcome        // of every point of those, malformed ones included
	dropped  bool
	result   Result

	staged *stage // nil in memory
	ticket ticket

	numbers      []pmetric.NumberDataPoint
	histograms   []histogramPoint
	exponentials []exponentialPoint

	// Scratch for the stream at hand.
	lost        interval // after of a stream that is lost; see copied
	timeline    timeline
	sum         sumTotal
	histogram   histogramTotal
	exponential exponentialTotal
}

// item is one well-formed point on its way.
type item struct {
	id       streamid.ID
	interval interval
	value    uint64 // of a number, by its bits
	slot     *slot
	number   int32 // of slot, where that is a group's copy
	point    int32 // in numbers, histograms or exponentials
	position int32 // in outcomes
	kind     Kind
	double   bool
	marker   bool // "no recorded value"
	// monotonic sums must not fall.
	monotonic bool
}

// maxScratch is the number of bucket counts that scratch space may hold on to between batches.
const maxScratch = 1 << 12

// reset lets go of the batch's data.
func (b *batch) reset() {
	clear(b.items)
	clear(b.numbers)
	clear(b.histograms)
	clear(b.exponentials)
	b.items, b.numbers = b.items[:0], b.numbers[:0]
	b.histograms, b.exponentials = b.histograms[:0], b.exponentials[:0]
	clear(b.metrics)
	b.deltas, b.metrics, b.outcomes = b.deltas[:0], b.metrics[:0], b.outcomes[:0]
	b.dropped = false
	b.result = Result{}
	counts := b.histogram.counts
	if cap(counts) > maxScratch {
		counts = nil
	}
	b.histogram = histogramTotal{histogram: histogram{counts: counts}}
	b.exponential.delta, b.exponential.narrow = nil, [2][]uint32{}
	if b.staged != nil {
		b.staged.reset()
	}
}

// identify finds the stream of every delta point and sets malformed points aside. It changes nothing in md.
func (b *batch) identify(md pmetric.Metrics, seed streamid.Seed) {
	rms := md.ResourceMetrics()
	for i := range rms.Len() {
		rm := rms.At(i)
		var resource streamid.Resource
		resourceKnown := false
		sms := rm.ScopeMetrics()
		for j := range sms.Len() {
			sm := sms.At(j)
			var scope streamid.Scope
			scopeKnown := false
			ms := sm.Metrics()
			for k := range ms.Len() {
				m := ms.At(k)
				points, delta := deltaPoints(m)
				b.deltas = append(b.deltas, delta)
				if !delta {
					b.result.Points[Passed] += uint64(points)
					continue
				}
				if points > 0 {
					// Hashed only where a delta needs it: a resource full of gauges costs nothing.
					if !resourceKnown {
						resource, resourceKnown = seed.Resource(rm.Resource()), true
					}
					if !scopeKnown {
						scope, scopeKnown = resource.Scope(sm.Scope()), true
					}
					b.identifyMetric(m, scope.Metric(m))
				}
				b.metrics = append(b.metrics, m)
			}
		}
	}
}

// deltaPoints returns the number of points of a metric and whether they are deltas.
func deltaPoints(m pmetric.Metric) (n int, delta bool) {
	switch m.Type() {
	case pmetric.MetricTypeSum:
		return m.Sum().DataPoints().Len(), m.Sum().AggregationTemporality() == pmetric.AggregationTemporalityDelta
	case pmetric.MetricTypeHistogram:
		return m.Histogram().DataPoints().Len(), m.Histogram().AggregationTemporality() == pmetric.AggregationTemporalityDelta
	case pmetric.MetricTypeExponentialHistogram:
		h := m.ExponentialHistogram()
		return h.DataPoints().Len(), h.AggregationTemporality() == pmetric.AggregationTemporalityDelta
	case pmetric.MetricTypeGauge:
		return m.Gauge().DataPoints().Len(), false
	case pmetric.MetricTypeSummary:
		return m.Summary().DataPoints().Len(), false
	}
	return 0, false
}

// emit writes to md what is still staged, makes what came as deltas cumulative and removes what was dropped.
func (b *batch) emit(md pmetric.Metrics) {
	if b.staged != nil {
		b.unstage()
	}
	for _, m := range b.metrics {
		setCumulative(m)
	}
	if b.dropped {
		b.remove(md)
	}
}

func setCumulative(m pmetric.Metric) {
	switch m.Type() {
	case pmetric.MetricTypeSum:
		m.Sum().SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	case pmetric.MetricTypeHistogram:
		m.Histogram().SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	case pmetric.MetricTypeExponentialHistogram:
		m.ExponentialHistogram().SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	}
}

func (b *batch) identifyMetric(m pmetric.Metric, metric streamid.Metric) {
	switch m.Type() {
	case pmetric.MetricTypeSum:
		monotonic := m.Sum().IsMonotonic()
		dps := m.Sum().DataPoints()
		for i := range dps.Len() {
			dp := dps.At(i)
			it := item{kind: KindSum, point: int32(len(b.numbers)), monotonic: monotonic}
			if b.timed(&it, dp.StartTimestamp(), dp.Timestamp(), dp.Flags()) && (it.marker || b.valued(&it, dp, monotonic)) {
				b.numbers = append(b.numbers, dp)
				b.identified(&it, metric.Point(dp.Attributes()))
			}
		}
	case pmetric.MetricTypeHistogram:
		dps := m.Histogram().DataPoints()
		for i := range dps.Len() {
			dp := dps.At(i)
			it := item{kind: KindHistogram, point: int32(len(b.histograms))}
			if !b.timed(&it, dp.StartTimestamp(), dp.Timestamp(), dp.Flags()) {
				continue
			}
			// Filled in where it is: a copy of what was just written field by field waits for the stores, a tenth of the
			// point's time.
			b.histograms = append(b.histograms, histogramPoint{})
			p := &b.histograms[it.point]
			p.HistogramDataPoint = dp
			if !it.marker {
				if o, malformed := p.inspect(); malformed {
					b.histograms = b.histograms[:it.point]
					b.malformed(o)
					continue
				}
			}
			b.identified(&it, metric.Point(dp.Attributes()))
		}
	case pmetric.MetricTypeExponentialHistogram:
		dps := m.ExponentialHistogram().DataPoints()
		for i := range dps.Len() {
			dp := dps.At(i)
			it := item{kind: KindExponentialHistogram, point: int32(len(b.exponentials))}
			if !b.timed(&it, dp.StartTimestamp(), dp.Timestamp(), dp.Flags()) {
				continue
			}
			b.exponentials = append(b.exponentials, exponentialPoint{})
			p := &b.exponentials[it.point]
			p.ExponentialHistogramDataPoint = dp
			if !it.marker {
				if o, malformed := p.inspect(); malformed {
					b.exponentials = b.exponentials[:it.point]
					b.malformed(o)
					continue
				}
			}
			b.identified(&it, metric.Point(dp.Attributes()))
		}
	}
}

// timed takes a point's interval, or sets the point aside.
func (b *batch) timed(it *item, start, time pcommon.Timestamp, flags pmetric.DataPointFlags) bool {
	it.marker = flags.NoRecordedValue()
	if time == 0 || time > maxTime || start > time && !it.marker {
		b.malformed(DroppedTime)
		return false
	}
	it.interval = interval{int64(start), int64(time)}
	if start >= time {
		it.interval.start = 0
	}
	return true
}

// valued takes a number, or sets the point aside.
func (b *batch) valued(it *item, dp pmetric.NumberDataPoint, monotonic bool) bool {
	var n number
	switch dp.ValueType() {
	case pmetric.NumberDataPointValueTypeInt:
		n = intNumber(dp.IntValue())
		if monotonic && n.int() < 0 {
			b.malformed(DroppedNegative)
			return false
		}
	case pmetric.NumberDataPointValueTypeDouble:
		n = doubleNumber(dp.DoubleValue())
		if v := n.float(); !finite(v) {
			b.malformed(DroppedNotFinite)
			return false
		} else if monotonic && v < 0 {
			b.malformed(DroppedNegative)
			return false
		}
	default:
		b.malformed(DroppedNoValue)
		return false
	}
	it.value, it.double = n.bits, n.double
	return true
}

func (b *batch) malformed(o Outcome) {
	b.outcomes = append(b.outcomes, o)
	b.result.Points[o]++
	b.dropped = true
}

func (b *batch) identified(it *item, id streamid.ID) {
	// Field by field: copied as a whole right after it was written in parts, it waits for the stores to reach the cache. With
	// the same in foldSum, 5 % of a point's time.
	b.items = append(b.items, item{})
	to := &b.items[len(b.items)-1]
	to.id = id
	to.interval.start, to.interval.time = it.interval.start, it.interval.time
	to.value = it.value
	to.point = it.point
	to.position = int32(len(b.outcomes))
	to.kind, to.double, to.marker, to.monotonic = it.kind, it.double, it.marker, it.monotonic
	b.outcomes = append(b.outcomes, 0)
}

// group sorts the items by shard, keeping their order otherwise.
func (b *batch) group() {
	var next [shardCount]int32
	for i := range b.items {
		next[b.items[i].id.Hi>>shardShift]++
	}
	at := int32(0)
	for i, n := range next {
		next[i] = at
		at += n
		b.ends[i] = at
	}
	b.order = slices.Grow(b.order[:0], len(b.items))[:len(b.items)]
	for i := range b.items {
		shard := b.items[i].id.Hi >> shardShift
		b.order[next[shard]] = int32(i)
		next[shard]++
	}
}

func (b *batch) shardItems(shard int) []int32 {
	if shard == 0 {
		return b.order[:b.ends[0]]
	}
	return b.order[b.ends[shard-1]:b.ends[shard]]
}

// fold takes one shard's items into their streams or, if g is not nil, into its copies of them. The shard is locked.
func (b *batch) fold(sh *shard, items []int32, c *Converter, now uint32, g *group) {
	streams := sh
	if g != nil {
		streams = &g.scratch
	}
	b.timeline.floor = sh.floor

	if g != nil {
		// Before any copy is made, lest that comes between the cache misses: a fifth of a fold onto copies of 1 M streams.
		for _, i := range items {
			it := &b.items[i]
			it.slot, it.number = sh.seek(it.id)
		}
	}
	repeated, markers := false, false
	for _, i := range items {
		it := &b.items[i]
		if it.marker {
			markers = true // may follow the point that opens its stream
			continue
		}
		if g != nil {
			g.locate(it, sh, c)
		} else if it.slot = sh.find(it.id); it.slot == nil {
			it.slot = sh.open(it, c)
		}
		repeated = it.touch() || repeated
	}
	if markers {
		for _, i := range items {
			if it := &b.items[i]; it.marker {
				if g != nil {
					g.locate(it, sh, c)
				} else {
					it.slot = sh.find(it.id)
				}
				repeated = it.touch() || repeated
			}
		}
	}
	if repeated {
		// A stream has several points here: take them in the order of their times.
		slices.SortStableFunc(items, func(i, j int32) int {
			return cmp.Compare(b.items[i].interval.time, b.items[j].interval.time)
		})
	}
	b.foldItems(streams, items, c, now, g)
}

// foldItems takes items into their streams, which are found already.
func (b *batch) foldItems(streams *shard, items []int32, c *Converter, now uint32, g *group) {
	shared := g != nil && g.shared
	for _, i := range items {
		it := &b.items[i]
		opened, filled := b.result.GapOpened, b.result.GapFilled
		if shared && g.lost && it.slot != nil && g.swapped[it.number].lost {
			b.lost = g.swapped[it.number].after
		}
		o := b.foldItem(streams, it, c)
		if shared {
			b.staged.gaps[it.position] = [2]time.Duration{b.result.GapOpened - opened, b.result.GapFilled - filled}
			b.lost = interval{}
		}
		if it.slot != nil {
			it.slot.meta &^= flagTouched
			if o.Added() || o == Repeated {
				it.slot.seen = now
			}
		}
		b.outcomes[it.position] = o
		b.result.Points[o]++
		b.dropped = b.dropped || o.Dropped()
	}
}

// undo takes back what folding the item has left in the batch.
func (b *batch) undo(it *item) {
	gaps := &b.staged.gaps[it.position]
	b.result.Points[b.outcomes[it.position]]--
	b.result.GapOpened -= gaps[0]
	b.result.GapFilled -= gaps[1]
	b.staged.samples[it.position] = interval{}
}

// open gives the item's stream a slot, or returns nil if it must not have one.
func (sh *shard) open(it *item, c *Converter) *slot {
	if !c.mayOpen(it, sh, false) {
		return nil
	}
	s := sh.add(it.id, it.kind)
	if s == nil {
		c.live.Add(-1)
	}
	return s
}

// mayOpen reports whether the item may open its stream in sh, and counts the stream if so. A marker opens none, but where
// state is shared another worker may have.
func (c *Converter) mayOpen(it *item, sh *shard, shared bool) bool {
	return (!it.marker || shared) && it.interval.time > sh.floor && c.reserve()
}

// reserve counts one more live stream, within the limit.
func (c *Converter) reserve() bool {
	for {
		n := c.live.Load()
		if c.cfg.MaxStreams > 0 && n >= int64(c.cfg.MaxStreams) {
			return false
		}
		if c.live.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// touch marks the item's slot and reports whether it was marked already.
func (it *item) touch() bool {
	if it.slot == nil {
		return false
	}
	was := it.slot.meta&flagTouched != 0
	it.slot.meta |= flagTouched
	return was
}

func (b *batch) foldItem(sh *shard, it *item, c *Converter) Outcome {
	s, t := it.slot, &b.timeline
	if s == nil && !it.marker {
		if it.interval.time <= t.floor {
			return DroppedTooLate
		}
		return DroppedLimit
	}
	if s != nil && s.kind() != it.kind {
		return DroppedTooLate // the kind is part of the identity; but storage may say anything, to those who forge its checksums
	}
	fresh := s != nil && s.meta&flagFresh != 0
	if fresh && it.interval.time <= b.lost.time {
		return DroppedTooLate
	}
	if it.marker && (s == nil || fresh) {
		if it.interval.time <= t.floor {
			return DroppedTooLate
		}
		return Forwarded // as it is: the stream has not begun, though a later point of this batch may open it
	}
	if !fresh {
		sh.timeline(s, t)
	}
	wasMarked := t.marked
	var o Outcome
	switch {
	case it.marker:
		o = t.mark(it.interval.time)
		if o == Forwarded {
			b.stamp(it, t)
		}
	case it.kind == KindSum:
		o = b.foldSum(s, it, c, fresh)
	case it.kind == KindHistogram:
		o = b.foldHistogram(sh, s, it, c, fresh)
	default:
		o = b.foldExponential(sh, s, it, c, fresh)
	}
	if o.Added() || o == Forwarded || o == Repeated && wasMarked {
		s.meta |= flagChanged
	}
	s.meta &^= flagFresh
	sh.setTimeline(s, t)
	return o
}

// take folds the item into the total at hand, which becomes the delta alone if the stream is fresh.
func (b *batch) take(v total, it *item, c *Converter, fresh bool) Outcome {
	if fresh {
		v.restart()
		if b.lost.time != 0 {
			b.timeline.start, b.timeline.emitted = b.lost.start, b.lost.time
			b.timeline.last = 0
			b.timeline.accept(RestartedLost, it.interval, &c.cfg, &b.result)
			return RestartedLost
		}
		b.timeline.open(it.interval)
		return AddedFirst
	}
	return fold(&b.timeline, v, it.interval, &c.cfg, &b.result)
}

func (b *batch) foldSum(s *slot, it *item, c *Converter, fresh bool) Outcome {
	delta := number{it.value, it.double}
	// One by one, as in identified.
	b.sum.number, b.sum.delta, b.sum.reduced = s.number(), delta, delta
	o := b.take(&b.sum, it, c, fresh)
	if o.Added() {
		s.setNumber(b.sum.number)
	}
	if !o.Dropped() {
		b.stamp(it, &b.timeline)
		if b.staged != nil {
			b.staged.numbers[it.point] = b.sum.number
		} else {
			setNumber(b.numbers[it.point], b.sum.number)
		}
	}
	return o
}

func (b *batch) foldHistogram(sh *shard, s *slot, it *item, c *Converter, fresh bool) Outcome {
	p, h := &b.histograms[it.point], &b.histogram
	h.read(p)
	if !fresh {
		sh.histogram(s, h)
	}
	o := b.take(h, it, c, fresh)
	if o.Added() {
		sh.setHistogram(s, &h.histogram, fresh || o.Restarted())
	}
	if !o.Dropped() {
		b.stamp(it, &b.timeline)
		if b.staged != nil {
			b.staged.histogram(it.point, &h.histogram)
		} else {
			h.write(p, o)
		}
	}
	return o
}

func (b *batch) foldExponential(sh *shard, s *slot, it *item, c *Converter, fresh bool) Outcome {
	p, e := &b.exponentials[it.point], &b.exponential
	e.read(p)
	if !fresh {
		sh.exponential(s, e)
	}
	o := b.take(e, it, c, fresh)
	if o.Added() {
		sh.setExponential(s, &e.exponential)
	}
	if !o.Dropped() {
		b.stamp(it, &b.timeline)
		if b.staged != nil {
			b.staged.exponential(it.point, &e.exponential)
		} else {
			e.write(p)
		}
	}
	return o
}

// stamp gives the point the stream's start and latest emitted time.
func (b *batch) stamp(it *item, t *timeline) {
	if b.staged != nil {
		b.staged.samples[it.position] = interval{t.start, t.emitted}
		return
	}
	b.setTimes(it, interval{t.start, t.emitted})
}

func (b *batch) setTimes(it *item, sample interval) {
	start, at := pcommon.Timestamp(sample.start), pcommon.Timestamp(sample.time)
	switch it.kind {
	case KindSum:
		dp := b.numbers[it.point]
		dp.SetStartTimestamp(start)
		dp.SetTimestamp(at)
	case KindHistogram:
		dp := b.histograms[it.point].HistogramDataPoint
		dp.SetStartTimestamp(start)
		dp.SetTimestamp(at)
	case KindExponentialHistogram:
		dp := b.exponentials[it.point].ExponentialHistogramDataPoint
		dp.SetStartTimestamp(start)
		dp.SetTimestamp(at)
	}
}

// remove deletes the dropped points and what they leave empty. It meets metrics and points in the order identify met them.
func (b *batch) remove(md pmetric.Metrics) {
	metrics, points := b.deltas, b.outcomes
	dropped := func() bool {
		o := points[0]
		points = points[1:]
		return o.Dropped()
	}
	md.ResourceMetrics().RemoveIf(func(rm pmetric.ResourceMetrics) bool {
		sms := rm.ScopeMetrics()
		scopes := sms.Len()
		sms.RemoveIf(func(sm pmetric.ScopeMetrics) bool {
			ms := sm.Metrics()
			before := ms.Len()
			ms.RemoveIf(func(m pmetric.Metric) bool {
				delta := metrics[0]
				metrics = metrics[1:]
				return delta && removePoints(m, dropped)
			})
			return before > 0 && ms.Len() == 0
		})
		return scopes > 0 && sms.Len() == 0
	})
}

// removePoints asks for every point of m whether it goes, and reports whether that left m empty.
func removePoints(m pmetric.Metric, dropped func() bool) bool {
	before, _ := deltaPoints(m)
	switch m.Type() {
	case pmetric.MetricTypeSum:
		m.Sum().DataPoints().RemoveIf(func(pmetric.NumberDataPoint) bool { return dropped() })
	case pmetric.MetricTypeHistogram:
		m.Histogram().DataPoints().RemoveIf(func(pmetric.HistogramDataPoint) bool { return dropped() })
	case pmetric.MetricTypeExponentialHistogram:
		m.ExponentialHistogram().DataPoints().RemoveIf(func(pmetric.ExponentialHistogramDataPoint) bool { return dropped() })
	}
	after, _ := deltaPoints(m)
	return before > 0 && after == 0
}
