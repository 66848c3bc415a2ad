// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package points

import (
	"math/rand/v2"
	"slices"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c/internal/fold"
	"github.com/deltaring/deltaring/d2c/internal/table"
	"github.com/deltaring/deltaring/streamid"
)

// Batch is the points of a batch on their way: it identifies them, and gives them what folding makes of them, at once or when
// the batch is emitted.
type Batch struct {
	Result
	Items []Item
	Route Route

	shards     []uint8 // of the items, while they are grouped
	order      []int32 // items by shard, otherwise as they came
	ends       [table.ShardCount]int32
	deltas     []bool           // of every metric as it came, whether it was one of deltas
	metrics    []pmetric.Metric // those that were
	outcomes   []outcome        // of every point of those, malformed ones included
	given      []outcome        // of those that are kept: see Keep
	Dropped    bool             // some point is to be removed
	Unsorted   bool             // some stream's points did not come in the order of their times
	maxBuckets int
	repair     fold.Repairs
	repairing  fold.Repairs   // of the point that is being read
	repairs    []fold.Repairs // by position; empty unless there are some
	prints     []uint64       // by position, where identical points are told apart
	arrival    int64          // the time of points without one, zero to drop them
	owned      []uint64       // bucket counts of points that were repaired
	spare      int            // bucket counts that samples which are not the last of their streams may still have

	twins  []twin // by fingerprint: open addressing, half full at most
	zeros  []Zero
	zeroOf []int32 // that of an item, by position, +1; empty unless there are some
	begun  []int32 // the items that have zeros, where there are any

	// Where the points are from, for who names streams: see Reading.Names.
	sources []table.Source
	from    []int32 // by item, in sources
	names   bool

	again []Again // by item, of a batch without points

	// What follows is for metrics that are aggregated: see aggregate.go.
	aggregates *Aggregates // nil unless there are some
	writers    []Writer    // by position
	rules      []int16     // by place in metrics, or -1
	left       []left      // by rule
	extra      pmetric.Metrics
	copied     copied

	staged stage
	direct bool // what points get is written to them at once

	numbers      []pmetric.NumberDataPoint
	histograms   []histogramPoint
	exponentials []exponentialPoint
	summaries    []pmetric.SummaryDataPoint
}

// Route says by which ring, and to which of its members, a gateway has sent a batch; zero if that is not known.
type Route struct {
	// ID is equal for equal rings and members, and zero for the zero Route only.
	ID    uint64
	Epoch uint64 // of the ring
	// Since is when the gateway began to use the ring, in Unix milliseconds by its clock; zero if that is not known.
	Since int64
	// Previous is the epoch of the ring that it used directly before, since PreviousSince, which is zero if there is none.
	Previous      uint64
	PreviousSince int64
}

// outcome is a fold.Outcome; of a point that gets no sample though it is not dropped, withheld is set.
type outcome = fold.Outcome

const withheld = 0x80

// Result says what became of a batch.
type Result struct {
	// Counts holds the number of points by outcome.
	Counts [fold.NumOutcomes]uint64
	// Repaired holds the number of points by what was repaired in them; a point may count several times.
	Repaired [fold.NumRepairs]uint64
	// Unspecified is the number of points that do not say whether they are deltas. They are among those that passed.
	Unspecified uint64
	// Duplicates is the number of streams that were opened though the backend takes each for one with another.
	Duplicates uint64
	// Gaps is the time that turned out to be covered by no delta, and of such time what was covered after all.
	Gaps fold.Gaps
	// Stored is set if the store has confirmed what the batch came to, Outstanding if the batch goes out before that.
	Stored, Outstanding bool
	// Zeros is the number of samples of value zero besides those of the points.
	Zeros uint64
}

// Item is one well-formed point on its way.
type Item struct {
	ID       streamid.ID
	Interval fold.Interval
	Value    uint64 // of a number, by its bits
	Slot     *table.Slot
	Number   int32 // of Slot, where that is a copy
	point    int32 // in numbers, histograms or exponentials
	position int32 // in outcomes
	Kind     table.Kind
	Double   bool
	Marker   bool // "no recorded value"
	flags    uint8
}

// DeltaPrint is the fingerprint of an item.
func (b *Batch) DeltaPrint(it *Item) uint64 {
	switch it.Kind {
	case table.KindSum:
		return fold.Number{Bits: it.Value, Double: it.Double}.Print(it.Interval)
	case table.KindHistogram:
		return b.HistogramDelta(it).Print(it.Interval)
	default:
		return b.ExponentialDelta(it).Print(it.Interval)
	}
}

// Print is the fingerprint of an item among identical ones, if these are told apart.
func (b *Batch) Print(it *Item) uint64 { return b.prints[it.position] }

// The flags of an item.
const (
	flagMonotonic = 1 << iota // a sum that must not fall
	flagMore                  // of the stream there are later items in the batch
	flagWithheld
	flagAgain   // there is no point: the stream's latest sample is to be given out once more
	flagArrived // its time is that of its arrival
	flagRelaid  // its bounds are not those of the point as it came
	flagRepaired
	flagSummary // a histogram's value in the point of a summary
)

// Monotonic reports whether the point is of a stream that must not fall.
func (it *Item) Monotonic() bool { return it.flags&flagMonotonic != 0 }

// More reports whether there are later points of the stream in the batch, as far as SetMore has said.
func (it *Item) More() bool { return it.flags&flagMore != 0 }

// SetMore says that there are.
func (it *Item) SetMore() { it.flags |= flagMore }

// Reset releases the batch's data.
func (b *Batch) Reset() {
	clear(b.Items)
	clear(b.numbers)
	clear(b.histograms)
	clear(b.exponentials)
	clear(b.summaries)
	b.Items, b.numbers, b.summaries = b.Items[:0], b.numbers[:0], b.summaries[:0]
	b.histograms, b.exponentials = b.histograms[:0], b.exponentials[:0]
	clear(b.metrics)
	b.deltas, b.metrics, b.outcomes = b.deltas[:0], b.metrics[:0], b.outcomes[:0]
	b.Dropped, b.Unsorted, b.direct, b.spare, b.Route = false, false, true, 0, Route{}
	b.Result = Result{}
	b.zeros, b.zeroOf, b.begun = b.zeros[:0], b.zeroOf[:0], b.begun[:0]
	clear(b.sources)
	clear(b.again)
	b.sources, b.from, b.again = b.sources[:0], b.from[:0], b.again[:0]
	if cap(b.owned) > maxScratch {
		b.owned = nil
	}
	b.owned, b.repairs, b.prints = b.owned[:0], b.repairs[:0], b.prints[:0]
	b.staged.reset()
	if b.aggregates != nil {
		b.resetAggregates()
	}
}

// Reading says how points are read.
type Reading struct {
	Seed       streamid.Seed
	MaxBuckets int
	Repair     fold.Repairs
	// Arrival gives a point without a time the time of its arrival.
	Arrival bool
	// Multiset tells identical points of a batch apart.
	Multiset bool
	// Summaries are the patterns of metrics whose summaries carry deltas.
	Summaries []string
	// Names makes batches say where points are from.
	Names bool
	// Aggregates says which metrics are aggregated; nil for none.
	Aggregates *Aggregates
}

// Identify finds the tenant's stream of every delta point and sets malformed points aside. It changes nothing in md. now is the time.
func (b *Batch) Identify(md pmetric.Metrics, tenant streamid.Tenant, r *Reading, now time.Time) {
	b.maxBuckets, b.repair, b.direct, b.spare = r.MaxBuckets, r.Repair, true, spareAtFirst
	b.arrival, b.names = 0, r.Names
	if r.Arrival {
		b.arrival = now.UnixNano()
	}
	b.identifyAll(md, tenant, r, false)
	if b.copied.any {
		b.identifyAll(b.extra, tenant, r, true)
	}
	if r.Multiset {
		b.tellApart()
	}
}

// identifyAll is Identify for one of the parts of a batch; copies says that it is that of metrics to be aggregated that stay as well.
func (b *Batch) identifyAll(md pmetric.Metrics, tenant streamid.Tenant, r *Reading, copies bool) {
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
				points, delta := pointsOf(m), isDelta(m, r)
				who := identity{rule: -1}
				if r.Aggregates != nil && points > 0 {
					if rule := r.Aggregates.rule(m); rule >= 0 {
						b.aggregates = r.Aggregates
						if copies || !r.Aggregates.KeepInput[rule] {
							who.rule, delta = int16(rule), true
						} else {
							b.copy(rm, sm, m, i, j)
						}
					}
				}
				b.deltas = append(b.deltas, delta)
				if !delta {
					b.Counts[fold.Passed] += uint64(points)
					if unspecified(m) {
						b.Unspecified += uint64(points)
					}
					continue
				}
				if points > 0 {
					// Hashed only where a delta needs it: a resource full of gauges costs nothing.
					if !resourceKnown {
						resource, resourceKnown = tenant.Resource(rm.Resource()), true
					}
					if !scopeKnown {
						scope, scopeKnown = resource.Scope(sm.Scope()), true
					}
					if b.names {
						b.sources = append(b.sources, table.Source{Resource: rm, Scope: sm, Metric: m})
					}
					who.metric = scope.Metric(m)
					if who.rule >= 0 {
						b.reduce(&who, tenant, rm, sm, m, [3]int{i, j, part(copies)})
					}
					b.identifyMetric(m, &who)
				}
				b.metrics = append(b.metrics, m)
				if r.Aggregates != nil {
					for len(b.rules) < len(b.metrics)-1 {
						b.rules = append(b.rules, -1)
					}
					b.rules = append(b.rules, who.rule)
				}
			}
		}
	}
}

// tellApart gives points of the batch that are identical, of one stream, fingerprints of their own: the first has the same in
// every batch, so has the second, and so on. So of identical points as many are new as there are more than in a batch before.
func (b *Batch) tellApart() {
	b.prints = slices.Grow(b.prints[:0], len(b.outcomes))[:len(b.outcomes)]
	size := 16
	for size < 2*len(b.Items) {
		size *= 2
	}
	b.twins = slices.Grow(b.twins[:0], size)[:size]
	clear(b.twins)
	for i := range b.Items {
		it := &b.Items[i]
		print := b.DeltaPrint(it)
		b.prints[it.position] = print
		whose := b.whose(it)
		at := fold.MixPrint(print^twinKey, whose.Lo^whose.Hi)
		for ; ; at++ {
			t := &b.twins[at&uint64(size-1)]
			if t.n == 0 {
				t.first, t.print = int32(i), print
			} else if t.print != print || b.whose(&b.Items[t.first]) != whose {
				continue
			}
			if t.n > 0 {
				b.prints[it.position] = fold.MixPrint(print, uint64(t.n))
			}
			t.n++
			break
		}
	}
	if size > maxScratch {
		b.twins = nil
	}
}

// whose returns the identity of whoever has sent the item.
func (b *Batch) whose(it *Item) streamid.ID {
	if w := b.Writer(it); w != nil {
		return w.ID
	}
	return it.ID
}

// twin counts identical points of a stream: the place of the first one in Items, and how many there are.
type twin struct {
	print    uint64
	first, n int32
}

// twinKey is secret, so that nobody can choose points that meet in one place.
var twinKey = rand.Uint64()

// pointsOf returns the number of points of a metric.
func pointsOf(m pmetric.Metric) int {
	switch m.Type() {
	case pmetric.MetricTypeSum:
		return m.Sum().DataPoints().Len()
	case pmetric.MetricTypeHistogram:
		return m.Histogram().DataPoints().Len()
	case pmetric.MetricTypeExponentialHistogram:
		return m.ExponentialHistogram().DataPoints().Len()
	case pmetric.MetricTypeGauge:
		return m.Gauge().DataPoints().Len()
	case pmetric.MetricTypeSummary:
		return m.Summary().DataPoints().Len()
	}
	return 0
}

// isDelta reports whether the points of a metric are deltas.
func isDelta(m pmetric.Metric, r *Reading) bool {
	switch m.Type() {
	case pmetric.MetricTypeSum:
		return m.Sum().AggregationTemporality() == pmetric.AggregationTemporalityDelta
	case pmetric.MetricTypeHistogram:
		return m.Histogram().AggregationTemporality() == pmetric.AggregationTemporalityDelta
	case pmetric.MetricTypeExponentialHistogram:
		return m.ExponentialHistogram().AggregationTemporality() == pmetric.AggregationTemporalityDelta
	case pmetric.MetricTypeSummary:
		return len(r.Summaries) > 0 && streamid.MatchAny(r.Summaries, m.Name())
	}
	return false
}

// Emit writes to md what is still staged, makes what came as deltas cumulative and removes what was dropped.
func (b *Batch) Emit(md pmetric.Metrics) {
	if !b.direct {
		b.unstage()
	}
	for _, m := range b.metrics {
		setCumulative(m)
	}
	if b.aggregates != nil {
		b.strip()
	}
	b.findZeros()
	if b.Dropped || len(b.begun) > 0 {
		r := removal{b: b, metrics: b.deltas}
		r.remove(md)
		if b.copied.any {
			r.remove(b.extra)
		}
	}
	if b.Unsorted {
		for _, m := range b.metrics {
			sortPoints(m)
		}
	}
	if b.aggregates != nil {
		b.regroup(md)
	}
}

// sortPoints sorts the points of a metric by time, because some backends refuse points that are not in order.
func sortPoints(m pmetric.Metric) {
	switch m.Type() {
	case pmetric.MetricTypeSum:
		m.Sum().DataPoints().Sort(func(a, b pmetric.NumberDataPoint) bool { return a.Timestamp() < b.Timestamp() })
	case pmetric.MetricTypeHistogram:
		m.Histogram().DataPoints().Sort(func(a, b pmetric.HistogramDataPoint) bool { return a.Timestamp() < b.Timestamp() })
	case pmetric.MetricTypeExponentialHistogram:
		m.ExponentialHistogram().DataPoints().Sort(func(a, b pmetric.ExponentialHistogramDataPoint) bool {
			return a.Timestamp() < b.Timestamp()
		})
	case pmetric.MetricTypeSummary:
		m.Summary().DataPoints().Sort(func(a, b pmetric.SummaryDataPoint) bool { return a.Timestamp() < b.Timestamp() })
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

func (b *Batch) identifyMetric(m pmetric.Metric, who *identity) {
	switch m.Type() {
	case pmetric.MetricTypeSum:
		monotonic := m.Sum().IsMonotonic()
		dps := m.Sum().DataPoints()
		for i := range dps.Len() {
			dp := dps.At(i)
			it := b.item(table.KindSum, len(b.numbers))
			if monotonic {
				it.flags = flagMonotonic
			}
			if b.timed(it, dp.StartTimestamp(), dp.Timestamp(), dp.Flags()) && (it.Marker || b.valued(it, dp, monotonic)) {
				b.numbers = append(b.numbers, dp)
				b.identified(it, who, dp.Attributes())
			}
		}
	case pmetric.MetricTypeHistogram:
		dps := m.Histogram().DataPoints()
		for i := range dps.Len() {
			dp := dps.At(i)
			it := b.item(table.KindHistogram, len(b.histograms))
			if !b.timed(it, dp.StartTimestamp(), dp.Timestamp(), dp.Flags()) {
				continue
			}
			// Filled in where it is: a copy of what was just written field by field waits for the stores, a tenth of the
			// point's time.
			b.histograms = append(b.histograms, histogramPoint{})
			p := &b.histograms[it.point]
			p.HistogramDataPoint = dp
			if !it.Marker {
				if o, malformed := b.inspectHistogram(p, it); malformed {
					b.histograms = b.histograms[:it.point]
					b.malformed(o)
					continue
				}
				b.spare += sparePerPoint + sparePerBucket*len(p.value.Counts)
			}
			b.identified(it, who, dp.Attributes())
		}
	case pmetric.MetricTypeSummary:
		b.identifySummaries(m, who)
	case pmetric.MetricTypeExponentialHistogram:
		dps := m.ExponentialHistogram().DataPoints()
		for i := range dps.Len() {
			dp := dps.At(i)
			it := b.item(table.KindExponentialHistogram, len(b.exponentials))
			if !b.timed(it, dp.StartTimestamp(), dp.Timestamp(), dp.Flags()) {
				continue
			}
			b.exponentials = append(b.exponentials, exponentialPoint{})
			p := &b.exponentials[it.point]
			p.ExponentialHistogramDataPoint = dp
			if !it.Marker {
				if o, malformed := b.inspectExponential(p); malformed {
					b.exponentials = b.exponentials[:it.point]
					b.malformed(o)
					continue
				}
				b.spare += sparePerPoint + sparePerBucket*p.value.Buckets()
			}
			b.identified(it, who, dp.Attributes())
		}
	}
}

// timed takes a point's interval, or sets the point aside.
func (b *Batch) timed(it *Item, start, end pcommon.Timestamp, flags pmetric.DataPointFlags) bool {
	it.Marker = flags.NoRecordedValue()
	it.Interval = fold.Interval{Start: int64(start), Time: int64(end)}
	if start < end && end <= fold.MaxTime { // nearly all
		return true
	}
	return b.untimed(it, start, end)
}

// untimed is timed for points without a usable start or time.
func (b *Batch) untimed(it *Item, start, end pcommon.Timestamp) bool {
	it.Interval.Start = 0
	switch {
	case end == 0 && b.arrival > 0:
		it.Interval.Time = b.arrival
		it.flags |= flagArrived
	case end == 0 || end > fold.MaxTime:
		b.malformed(fold.DroppedTime)
		return false
	case start > end && !it.Marker:
		if b.repair&fold.RepairStartAfterTime == 0 {
			b.malformed(fold.DroppedTime)
			return false
		}
		b.repairing |= fold.RepairStartAfterTime
	}
	return true
}

// valued takes a number, or sets the point aside.
func (b *Batch) valued(it *Item, dp pmetric.NumberDataPoint, monotonic bool) bool {
	var n fold.Number
	switch dp.ValueType() {
	case pmetric.NumberDataPointValueTypeInt:
		n = fold.IntNumber(dp.IntValue())
		if monotonic && n.Int() < 0 {
			b.malformed(fold.DroppedNegative)
			return false
		}
	case pmetric.NumberDataPointValueTypeDouble:
		n = fold.DoubleNumber(dp.DoubleValue())
		if v := n.Float(); !fold.Finite(v) {
			b.malformed(fold.DroppedNotFinite)
			return false
		} else if monotonic && v < 0 {
			b.malformed(fold.DroppedNegative)
			return false
		}
	default:
		b.malformed(fold.DroppedNoValue)
		return false
	}
	it.Value, it.Double = n.Bits, n.Double
	return true
}

// item begins the item of a point. It ends with identified or malformed.
func (b *Batch) item(kind table.Kind, point int) *Item {
	// Filled in where it is: see identifyMetric.
	b.Items = append(b.Items, Item{})
	it := &b.Items[len(b.Items)-1]
	it.Kind, it.point = kind, int32(point)
	return it
}

func (b *Batch) malformed(o outcome) {
	b.Items = b.Items[:len(b.Items)-1]
	b.outcomes = append(b.outcomes, o)
	b.Counts[o]++
	b.Dropped, b.repairing = true, 0
}

func (b *Batch) identified(it *Item, who *identity, attributes pcommon.Map) {
	it.position = int32(len(b.outcomes))
	if who.rule < 0 {
		it.ID = who.metric.Point(attributes)
	} else {
		b.identifiedWriter(it, who, attributes)
	}
	b.outcomes = append(b.outcomes, 0)
	if b.repairing != 0 {
		b.Repair(it, b.repairing)
		b.repairing = 0
	}
	if b.names {
		b.from = append(b.from, int32(len(b.sources)-1))
	}
}

// Repair notes what was repaired in an item.
func (b *Batch) Repair(it *Item, kinds fold.Repairs) {
	for len(b.repairs) < len(b.outcomes) {
		b.repairs = append(b.repairs, 0)
	}
	b.repairs[it.position] |= kinds
	it.flags |= flagRepaired
}

// GroupBy sorts the items by the shards of t, keeping their order otherwise.
func (b *Batch) GroupBy(t *table.Table) {
	var next [table.ShardCount]int32
	b.shards = slices.Grow(b.shards[:0], len(b.Items))[:len(b.Items)]
	for i := range b.Items {
		shard := uint8(t.ShardOf(b.Items[i].ID))
		b.shards[i] = shard
		next[shard]++
	}
	at := int32(0)
	for i, n := range next {
		next[i] = at
		at += n
		b.ends[i] = at
	}
	b.order = slices.Grow(b.order[:0], len(b.Items))[:len(b.Items)]
	for i, shard := range b.shards {
		b.order[next[shard]] = int32(i)
		next[shard]++
	}
}

// Shard returns the items of a shard, by their places in Items.
func (b *Batch) Shard(shard int) []int32 {
	if shard == 0 {
		return b.order[:b.ends[0]]
	}
	return b.order[b.ends[shard-1]:b.ends[shard]]
}

// Note says what became of an item.
func (b *Batch) Note(it *Item, o fold.Outcome) {
	b.Counts[o]++
	if it.flags&flagRepaired != 0 && !o.Dropped() {
		b.countRepairs(it, 1)
	}
	if it.flags&flagWithheld != 0 {
		o |= withheld
	}
	b.outcomes[it.position] = o
	b.Dropped = b.Dropped || removed(o)
}

// countRepairs adds n to the counts of what was repaired in an item.
func (b *Batch) countRepairs(it *Item, n uint64) {
	for i := range b.Repaired {
		if b.repairs[it.position]&(1<<i) != 0 {
			b.Repaired[i] += n
		}
	}
}

// Relaid reports whether the item has other bounds than the point as it came.
func (it *Item) Relaid() bool { return it.flags&flagRelaid != 0 }

// Arrived reports whether the item's time is that of its arrival.
func (it *Item) Arrived() bool { return it.flags&flagArrived != 0 }

// removed reports whether a point leaves the batch.
func removed(o outcome) bool { return o&withheld != 0 || o.Dropped() || o == fold.Kept }

// Outcome returns what was noted of an item.
func (b *Batch) Outcome(it *Item) fold.Outcome { return b.outcomes[it.position] &^ withheld }

// Withheld reports whether it is without a sample.
func (it *Item) Withheld() bool { return it.flags&flagWithheld != 0 }

// Withhold leaves the item without a sample, and removes its point: another sample of the batch says as much.
func (b *Batch) Withhold(it *Item) { it.flags |= flagWithheld }

// Supersede takes back the sample that an item was given, which was noted already.
func (b *Batch) Supersede(it *Item) {
	it.flags |= flagWithheld
	b.outcomes[it.position] |= withheld
	b.Dropped = true
}

// Afford reports whether a sample with so many bucket counts may be given out though a later one of the stream will be. All such
// samples together are a small multiple of what came in.
func (b *Batch) Afford(buckets int) bool {
	if b.spare < buckets {
		return false
	}
	b.spare -= buckets
	return true
}

// The samples of a batch that could be left out may have this many bucket counts, and these more for each of its points and
// buckets.
const (
	spareAtFirst   = 1 << 16
	sparePerPoint  = 16
	sparePerBucket = 4
)

// HistogramDelta returns the delta of an item.
func (b *Batch) HistogramDelta(it *Item) *fold.Histogram {
	return &b.histograms[it.point].value
}

// ExponentialDelta returns the delta of an item.
func (b *Batch) ExponentialDelta(it *Item) *fold.Exponential {
	return &b.exponentials[it.point].value
}

// Stamp gives the point the stream's start and latest emitted time.
func (b *Batch) Stamp(it *Item, t *fold.Timeline) {
	if b.direct {
		b.setTimes(it, fold.Interval{Start: t.Start, Time: t.Emitted})
		return
	}
	b.staged.samples[it.position] = fold.Interval{Start: t.Start, Time: t.Emitted}
}

// PutNumber gives the point a total.
func (b *Batch) PutNumber(it *Item, n fold.Number) {
	if b.direct {
		setNumber(b.numbers[it.point], n)
		return
	}
	b.staged.numbers[it.point] = n
}

// PutHistogram gives the point a total. others says that the bounds are not the point's, or of a summary that its quantiles are not
// those of the sample.
func (b *Batch) PutHistogram(it *Item, h *fold.Histogram, others bool) {
	if b.direct {
		b.writeHistogram(it, h, others)
		return
	}
	b.staged.histogram(it.point, h, others)
}

// PutExponential gives the point a total.
func (b *Batch) PutExponential(it *Item, e *fold.Exponential) {
	if b.direct {
		b.exponentials[it.point].write(e)
		return
	}
	b.staged.exponential(it.point, e)
}

func (b *Batch) setTimes(it *Item, sample fold.Interval) {
	start, at := pcommon.Timestamp(sample.Start), pcommon.Timestamp(sample.Time)
	switch it.Kind {
	case table.KindSum:
		dp := b.numbers[it.point]
		dp.SetStartTimestamp(start)
		dp.SetTimestamp(at)
	case table.KindHistogram:
		if it.flags&flagSummary != 0 {
			dp := b.summaries[it.Value]
			dp.SetStartTimestamp(start)
			dp.SetTimestamp(at)
			return
		}
		dp := b.histograms[it.point].HistogramDataPoint
		dp.SetStartTimestamp(start)
		dp.SetTimestamp(at)
	case table.KindExponentialHistogram:
		dp := b.exponentials[it.point].ExponentialHistogramDataPoint
		dp.SetStartTimestamp(start)
		dp.SetTimestamp(at)
	}
}

// removal deletes the dropped points and what they leave empty, and puts zeros in. It meets metrics and points in the order identify met them.
type removal struct {
	b        *Batch
	metrics  []bool // whether they were deltas, of those that it has not met
	position int32
}

func (r *removal) dropped() bool {
	o := r.b.outcomes[r.position]
	r.position++
	return removed(o)
}

func (r *removal) remove(md pmetric.Metrics) {
	b, dropped := r.b, r.dropped
	md.ResourceMetrics().RemoveIf(func(rm pmetric.ResourceMetrics) bool {
		sms := rm.ScopeMetrics()
		scopes := sms.Len()
		sms.RemoveIf(func(sm pmetric.ScopeMetrics) bool {
			ms := sm.Metrics()
			before := ms.Len()
			ms.RemoveIf(func(m pmetric.Metric) bool {
				delta := r.metrics[0]
				r.metrics = r.metrics[1:]
				if delta && b.beginning(m, r.position) {
					r.position = b.putZeros(m, r.position)
					return false
				}
				return delta && removePoints(m, dropped)
			})
			return before > 0 && ms.Len() == 0
		})
		return scopes > 0 && sms.Len() == 0
	})
}

// removePoints asks for every point of m whether it goes, and reports whether that left m empty.
func removePoints(m pmetric.Metric, dropped func() bool) bool {
	before := pointsOf(m)
	switch m.Type() {
	case pmetric.MetricTypeSum:
		m.Sum().DataPoints().RemoveIf(func(pmetric.NumberDataPoint) bool { return dropped() })
	case pmetric.MetricTypeHistogram:
		m.Histogram().DataPoints().RemoveIf(func(pmetric.HistogramDataPoint) bool { return dropped() })
	case pmetric.MetricTypeExponentialHistogram:
		m.ExponentialHistogram().DataPoints().RemoveIf(func(pmetric.ExponentialHistogramDataPoint) bool { return dropped() })
	case pmetric.MetricTypeSummary:
		m.Summary().DataPoints().RemoveIf(func(pmetric.SummaryDataPoint) bool { return dropped() })
	}
	return before > 0 && pointsOf(m) == 0
}
