// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/d2c/store"
)

// The oracle of aggregation is what its words say: each writer of deltas is a stream of the oracle that there is, whose total nobody
// looks at; a total is a number to which is added what that accepts. What a total counts is a number whose digits say which
// increments are in it, and how often (see simTemplate): of a history the n-th has a lower digit than those before, so that
// whoever begins anew says less than before.

// aggDeltas is how many increments there may be of a total.
const aggDeltas = simDeltas

// aggWeight is what the n-th increment of a total counts.
func (t *simTemplate) aggWeight(n int) digits { return t.delta(aggDeltas - 1 - n) }

// aggPoint is a point of one writer on its way.
type aggPoint struct {
	total, writer int
	start, time   uint64
	holds         []int // increments
	value         digits
}

func (p aggPoint) String() string {
	return fmt.Sprintf("t%d w%d (%d, %d] %v", p.total, p.writer, int64(p.start-simEpoch)/1e6, int64(p.time-simEpoch)/1e6, p.holds)
}

// aggWriter is what is known of a writer.
type aggWriter struct {
	deltas      *model // of deltas
	start, last uint64 // of a cumulative one
	value       digits
	seen        int64
}

func (w *aggWriter) clone() *aggWriter {
	c := *w
	if w.deltas != nil {
		c.deltas = newModel(w.deltas.cfg)
		for key, s := range w.deltas.streams {
			c.deltas.streams[key] = s.clone()
		}
	}
	return &c
}

// end is the latest time of what was taken.
func (w *aggWriter) end() uint64 {
	if w.deltas != nil {
		return w.deltas.streams[""].last
	}
	return w.last
}

// aggTotal is what is known of a total.
type aggTotal struct {
	open           bool
	start, emitted uint64
	restarted      bool
	value          digits
	seen           int64
	horizon        uint64
	writers        map[int]*aggWriter
}

func (t *aggTotal) clone() *aggTotal {
	c := *t
	c.writers = map[int]*aggWriter{}
	for n, w := range t.writers {
		c.writers[n] = w.clone()
	}
	return &c
}

func (t *aggTotal) String() string {
	if !t.open {
		return "nothing"
	}
	text := fmt.Sprintf("(%d, %d] %o restarted %v horizon %d", int64(t.start-simEpoch)/1e6, int64(t.emitted-simEpoch)/1e6, int64(t.value), t.restarted, int64(t.horizon-simEpoch)/1e6)
	for _, n := range slices.Sorted(maps.Keys(t.writers)) {
		text += fmt.Sprintf(" w%d until %d", n, int64(t.writers[n].end()-simEpoch)/1e6)
	}
	return text
}

// aggSample is what is given out of a total.
type aggSample struct {
	start, time uint64
	value       digits
}

func (s aggSample) String() string {
	return fmt.Sprintf("(%d, %d] %o", int64(s.start-simEpoch)/1e6, int64(s.time-simEpoch)/1e6, int64(s.value))
}

// aggWhere is what folding depends on besides.
type aggWhere struct {
	plan        *aggPlan
	began, gone uint64
	now         int64
	life        store.Life // of a shared store
	stale       uint64     // up to when it may have let what it does not have expire
}

// apply takes the points of a batch into a total. It returns the total after, the sample, if there is one, and the outcomes.
func (t *aggTotal) apply(where *aggWhere, template *simTemplate, points []aggPoint) (after *aggTotal, sample *aggSample, outcomes []d2c.Outcome) {
	t = t.clone()
	denied := make([]d2c.Outcome, len(points))
	admitted := map[int]bool{}
	for i, p := range points {
		known := max(where.floor(p), t.horizon, where.stale)
		if t.writers[p.writer] != nil || admitted[p.writer] {
			continue
		}
		switch limit := where.plan.maxWriters; {
		case p.time <= known, t.before(where, p):
			denied[i] = d2c.DroppedTooLate
		case limit > 0 && len(t.writers)+len(admitted) >= limit:
			denied[i] = d2c.DroppedWriters
		case where.plan.maxStreams > 0 && len(t.writers)+len(admitted)+2 > where.plan.maxStreams:
			denied[i] = d2c.DroppedLimit // the total, the others, and this one
		default:
			admitted[p.writer] = true
		}
	}
	order := make([]int, len(points))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(points[i].time, points[j].time) })
	sampled, twins := false, map[string]int{}
	for _, i := range order {
		p := points[i]
		o := denied[i]
		if o == 0 {
			id := fmt.Sprint(p)
			twins[id]++
			o = t.take(where, template, p, twins[id], &sampled)
		}
		outcomes = append(outcomes, o)
		if w := t.writers[p.writer]; where.plan.mode == aggShared && denied[i] == 0 && t.open {
			if t.seen = where.now; w != nil { // the store was asked
				w.seen = where.now
			}
		}
		if !o.Dropped() && t.open && !where.plan.held {
			sample = &aggSample{t.start, t.emitted, t.value}
		}
	}
	return t, sample, outcomes
}

// floor is up to when what a point may repeat may have been counted in an earlier life.
func (where *aggWhere) floor(p aggPoint) uint64 {
	if int64(p.time) > where.life.From {
		return uint64(max(where.life.Floor, 0))
	}
	return 0
}

// before reports whether a point is from before the total began.
func (t *aggTotal) before(where *aggWhere, p aggPoint) bool {
	return t.open && (p.time <= where.floor(p) || t.restarted && p.time <= t.start)
}

func (t *aggTotal) take(where *aggWhere, template *simTemplate, p aggPoint, twin int, sampled *bool) d2c.Outcome {
	w := t.writers[p.writer]
	known := max(where.floor(p), t.horizon, where.stale)
	if w == nil && p.time <= known {
		return d2c.DroppedTooLate
	}
	var o d2c.Outcome
	delta, begins := p.value, p.start
	if where.plan.cumulative(p.total, p.writer) {
		if where.began < p.time && (where.plan.mode == aggMemory || !t.open || t.start >= where.began) {
			known = max(known, where.began)
		}
		o, delta = w.takeCumulative(p, known)
		if o != d2c.AddedFirst {
			begins = 0
		}
		if w == nil {
			w = &aggWriter{}
		}
		if o.Added() || o == d2c.Baseline {
			if o != d2c.AddedAligned || p.start > w.start {
				w.start = p.start
			}
			w.last, w.value = p.time, p.value
		}
	} else {
		fresh := w == nil
		if fresh {
			cfg := where.plan.config()
			cfg.Aggregate = nil
			w = &aggWriter{deltas: newModel(cfg)}
		} else {
			begins = 0
		}
		m := w.deltas
		m.began, m.gone, m.cfg.Now = where.began, where.gone, nil
		old := t.before(where, p)
		if old {
			m = w.clone().deltas
		}
		var mp modelPoint
		after := simPoint{}
		d := &simDelta{stream: &simStream{template: template}, start: p.start, time: p.time}
		if len(p.holds) == 1 {
			d.n = aggDeltas - 1 - p.holds[0]
		}
		life := store.Life{Floor: int64(known)}
		o = m.foldAbove(&mp, &after, d, twin, false, nil, life)
		if s := m.streams[""]; s != nil && o.Added() {
			s.print = mp.print
			if s.memory == nil {
				s.memory = map[string]int64{}
			}
			s.memory[mp.print] = 0
		}
		if old && o != d2c.Repeat && (o != d2c.Covered || where.plan.many) {
			o = d2c.DroppedTooLate
		}
	}
	switch {
	case o.Dropped():
		return o
	case o.Added() || o == d2c.Baseline:
		t.writers[p.writer] = w
		t.add(where, p, begins, delta, *sampled)
		*sampled = true
	}
	t.seen, w.seen = where.now, where.now
	return o
}

// add adds what is new of a point.
func (t *aggTotal) add(where *aggWhere, p aggPoint, begins uint64, delta digits, sampled bool) {
	if !t.open {
		t.open, t.start, t.emitted, t.value = true, begins, p.time, delta
		if begins == 0 || begins >= p.time || begins < where.gone || begins < where.began && where.began < p.time {
			t.start = p.time
		}
		if floor := where.floor(p); t.start < floor {
			t.start, t.restarted = floor, true
		}
		return
	}
	t.value += delta
	switch {
	case p.time/nudge > t.emitted/nudge:
		t.emitted = p.time
	case sampled:
		t.emitted = max(t.emitted, p.time)
	default:
		t.emitted += nudge
	}
}

// takeCumulative says what becomes of a point of a cumulative producer, and how much of it is new; known is up to when one that is not known may
// have been counted.
func (w *aggWriter) takeCumulative(p aggPoint, known uint64) (o d2c.Outcome, delta digits) {
	switch {
	case w == nil && p.start < known, w == nil && p.start == 0:
		return d2c.Baseline, 0
	case w == nil:
		return d2c.AddedFirst, p.value
	case p.time == w.last && p.value == w.value:
		return d2c.Repeat, 0
	case p.time <= w.last:
		return d2c.Covered, 0
	}
	fell := p.value < w.value
	if len(p.holds) > 0 && p.value != 0 && aggSigned(p) {
		fell = false // it may
	}
	switch {
	case fell && p.start != 0 && p.start < w.start:
		return d2c.DroppedOlderStart, 0
	case fell, p.start != 0 && p.start >= w.last:
		return d2c.AddedReset, p.value
	}
	return d2c.AddedAligned, p.value - w.value
}

func aggSigned(p aggPoint) bool {
	return aggTemplates[p.total].kind == d2c.KindSum && !aggTemplates[p.total].monotonic
}

// expire forgets what has been quiet for longer than some seconds. What is forgotten of a total's writers it remembers the end of.
func (t *aggTotal) expire(now, age int64) *aggTotal {
	if !t.open {
		return t
	}
	t = t.clone()
	for n, w := range t.writers {
		if now-w.seen > age {
			delete(t.writers, n)
			t.horizon = max(t.horizon, (w.end()+1e9-1)/1e9*1e9)
		}
	}
	if now-t.seen > age {
		return newAggTotal()
	}
	return t
}

func newAggTotal() *aggTotal { return &aggTotal{writers: map[int]*aggWriter{}} }

// aggTemplates are the totals there are.
var aggTemplates = []*simTemplate{&simTemplates[0], &simTemplates[2], &simTemplates[3], &simTemplates[4], &simTemplates[5]}

// aggBatch makes a batch of points: of each writer a resource, and in it a gauge that nobody is to touch.
func aggBatch(plan *aggPlan, points []aggPoint) pmetric.Metrics {
	md := pmetric.NewMetrics()
	for _, p := range points {
		t := aggTemplates[p.total]
		rm := md.ResourceMetrics().AppendEmpty()
		rm.Resource().Attributes().PutStr("service", "shop")
		rm.Resource().Attributes().PutInt("pod", int64(p.writer/2))
		sm := rm.ScopeMetrics().AppendEmpty()
		sm.Scope().SetName("scope")
		m := sm.Metrics().AppendEmpty()
		t.newMetric(m)
		var attributes pcommon.Map
		set := func(dp interface {
			Attributes() pcommon.Map
			SetStartTimestamp(pcommon.Timestamp)
			SetTimestamp(pcommon.Timestamp)
		}) {
			attributes = dp.Attributes()
			dp.SetStartTimestamp(pcommon.Timestamp(p.start))
			dp.SetTimestamp(pcommon.Timestamp(p.time))
		}
		buckets := t.aggBuckets(p.holds)
		cumulative := plan.cumulative(p.total, p.writer)
		switch t.kind {
		case d2c.KindSum:
			dp := m.Sum().DataPoints().AppendEmpty()
			set(dp)
			if dp.SetIntValue(int64(p.value)); t.doubles {
				dp.SetDoubleValue(float64(p.value))
			}
			if cumulative {
				m.Sum().SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
			}
		case d2c.KindHistogram:
			dp := m.Histogram().DataPoints().AppendEmpty()
			set(dp)
			dp.ExplicitBounds().FromRaw([]float64{1, 2})
			dp.BucketCounts().FromRaw(buckets[:])
			dp.SetCount(uint64(p.value))
			dp.SetSum(float64(p.value))
			if cumulative {
				m.Histogram().SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
			}
		default:
			dp := m.ExponentialHistogram().DataPoints().AppendEmpty()
			set(dp)
			dp.SetScale(3)
			dp.Positive().SetOffset(7)
			dp.Positive().BucketCounts().FromRaw(buckets[:])
			dp.SetCount(uint64(p.value))
			dp.SetSum(float64(p.value))
			if cumulative {
				m.ExponentialHistogram().SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
			}
		}
		attributes.PutStr("kind", "x")
		attributes.PutInt("part", int64(p.writer%2))
		if plan.gauges && p.writer%2 == 0 {
			g := sm.Metrics().AppendEmpty()
			g.SetName("gauge")
			g.SetEmptyGauge().DataPoints().AppendEmpty().SetIntValue(int64(p.writer))
		}
	}
	return md
}

// aggBuckets says in which of three buckets increments are.
func (t *simTemplate) aggBuckets(holds []int) (buckets [3]uint64) {
	if t.kind != d2c.KindSum {
		for _, n := range holds {
			buckets[n%3] += uint64(t.aggWeight(n))
		}
	}
	return buckets
}

// aggRead reads the samples of totals, and checks all else that a batch says.
func aggRead(plan *aggPlan, md pmetric.Metrics, points []aggPoint) (samples map[int]aggSample, err error) {
	samples = map[int]aggSample{}
	gauges := 0
	for _, rm := range md.ResourceMetrics().All() {
		_, pod := rm.Resource().Attributes().Get("pod")
		if rm.ScopeMetrics().Len() == 0 || rm.Resource().Attributes().Len() != map[bool]int{true: 2, false: 1}[pod] {
			return nil, fmt.Errorf("resource %v with %d scopes", rm.Resource().Attributes().AsRaw(), rm.ScopeMetrics().Len())
		}
		for _, sm := range rm.ScopeMetrics().All() {
			if sm.Metrics().Len() == 0 || sm.Scope().Name() != "scope" {
				return nil, fmt.Errorf("a scope %q with %d metrics", sm.Scope().Name(), sm.Metrics().Len())
			}
			for _, m := range sm.Metrics().All() {
				if m.Name() == "gauge" {
					if gauges++; !pod {
						return nil, fmt.Errorf("a gauge has lost its pod")
					}
					continue
				}
				n := slices.IndexFunc(aggTemplates, func(t *simTemplate) bool { return t.name == m.Name() })
				if pod {
					if !plan.keepInput {
						return nil, fmt.Errorf("metric %s still has a pod", m.Name())
					}
					continue
				}
				if err := aggReadMetric(plan, n, m, samples); err != nil {
					return nil, fmt.Errorf("total %d: %w", n, err)
				}
			}
		}
	}
	if plan.gauges {
		for _, p := range points {
			if p.writer%2 == 0 {
				gauges--
			}
		}
	}
	if gauges != 0 {
		return nil, fmt.Errorf("%d gauges more than there were", gauges)
	}
	return samples, nil
}

// aggZero is where the zero is with which a total begins.
func aggZero(n int) int { return -1 - n }

func aggReadMetric(plan *aggPlan, n int, m pmetric.Metric, samples map[int]aggSample) error {
	t := aggTemplates[n]
	add := func(dp dataPoint, value float64, buckets []uint64) error {
		if got := fmt.Sprint(dp.Attributes().AsRaw()); got != "map[kind:x]" {
			return fmt.Errorf("a sample has the attributes %s", got)
		}
		s := aggSample{uint64(dp.StartTimestamp()), uint64(dp.Timestamp()), digits(value)}
		if first, twice := samples[n]; twice {
			if !plan.zeros || first.value != 0 || first.start != s.start || first.time >= s.time {
				return fmt.Errorf("two samples, %v and %v", first, s)
			}
			samples[aggZero(n)] = first
		}
		samples[n] = s
		if t.kind == d2c.KindSum {
			return nil
		}
		var holds []int
		for i, times := range t.counted(s.value) {
			for range times {
				holds = append(holds, aggDeltas-1-i)
			}
		}
		want := t.aggBuckets(holds)
		got := [3]uint64{}
		copy(got[:], buckets)
		if got != want {
			return fmt.Errorf("%v has buckets %v, want %v", s, got, want)
		}
		return nil
	}
	switch m.Type() {
	case pmetric.MetricTypeSum:
		if m.Sum().AggregationTemporality() != pmetric.AggregationTemporalityCumulative || m.Sum().IsMonotonic() != t.monotonic {
			return fmt.Errorf("a sum that is %v", m.Sum().AggregationTemporality())
		}
		for _, dp := range m.Sum().DataPoints().All() {
			v := float64(dp.IntValue())
			if dp.ValueType() == pmetric.NumberDataPointValueTypeDouble {
				v = dp.DoubleValue()
			}
			if err := add(dp, v, nil); err != nil {
				return err
			}
		}
	case pmetric.MetricTypeHistogram:
		for _, dp := range m.Histogram().DataPoints().All() {
			if float64(dp.Count()) != dp.Sum() || m.Histogram().AggregationTemporality() != pmetric.AggregationTemporalityCumulative {
				return fmt.Errorf("count %d, sum %v", dp.Count(), dp.Sum())
			}
			if err := add(dp, float64(dp.Count()), dp.BucketCounts().AsRaw()); err != nil {
				return err
			}
		}
	case pmetric.MetricTypeExponentialHistogram:
		for _, dp := range m.ExponentialHistogram().DataPoints().All() {
			if float64(dp.Count()) != dp.Sum() || dp.Scale() != 3 || dp.Positive().Offset() < 7 && dp.Positive().BucketCounts().Len() > 0 {
				return fmt.Errorf("count %d, sum %v, scale %d", dp.Count(), dp.Sum(), dp.Scale())
			}
			buckets := make([]uint64, 3)
			for i, v := range dp.Positive().BucketCounts().AsRaw() {
				buckets[int(dp.Positive().Offset())-7+i] += v
			}
			if err := add(dp, float64(dp.Count()), buckets); err != nil {
				return err
			}
		}
	}
	return nil
}
