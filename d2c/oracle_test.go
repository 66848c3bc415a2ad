// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"math"
	"math/big"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
)

// model is the oracle: the package comment of d2c read aloud, one plain map, nothing shared with the real thing.
type model struct {
	given   map[string]bool // streams of which the batch has a sample
	cfg     d2c.Config
	streams map[string]*modelStream
	result  d2c.Result // of the batch being converted
}

// modelStream is the state of one stream. Times are nanoseconds, intervals (start, end].
type modelStream struct {
	kind                 d2c.Kind
	start, last, emitted uint64
	total                amount
	fresh                bool       // never restarted
	marker               bool       // the latest thing emitted was a "no recorded value" marker
	gaps                 []interval // ascending and disjoint
	horizon              uint64     // end of the latest gap forgotten for want of room
	seen                 int64      // Unix seconds
}

type interval struct{ start, end uint64 }

// cut returns what cover leaves of gap.
func (gap interval) cut(cover interval) (left []interval) {
	if cover.end <= gap.start || gap.end <= cover.start {
		return []interval{gap}
	}
	if gap.start < cover.start {
		left = append(left, interval{gap.start, cover.start})
	}
	if cover.end < gap.end {
		left = append(left, interval{cover.end, gap.end})
	}
	return left
}

// nudge is how long after the latest emitted time a sample goes out that cannot have its own time.
const nudge = uint64(time.Millisecond)

// maxGaps is how many gaps a stream remembers.
const maxGaps = 8

// modelPoint is one delta point of a batch.
type modelPoint struct {
	silent      bool // it gets no sample
	dp          dataPoint
	start, time uint64 // as they came
	key         string
	kind        d2c.Kind
	delta       amount
	outcome     d2c.Outcome // set early if the point is malformed
}

// dataPoint is what the three kinds of points have in common.
type dataPoint interface {
	Attributes() pcommon.Map
	Flags() pmetric.DataPointFlags
	StartTimestamp() pcommon.Timestamp
	SetStartTimestamp(pcommon.Timestamp)
	Timestamp() pcommon.Timestamp
	SetTimestamp(pcommon.Timestamp)
}

func newPoint(dp dataPoint, kind d2c.Kind) *modelPoint {
	return &modelPoint{dp: dp, start: uint64(dp.StartTimestamp()), time: uint64(dp.Timestamp()), kind: kind}
}

func (p *modelPoint) unknownStart() bool { return p.start == 0 || p.start == p.time }

func newModel(cfg d2c.Config) *model {
	return &model{cfg: cfg, streams: map[string]*modelStream{}}
}

// convert returns what Converter.Convert must make of md, and its result. It leaves md alone.
func (m *model) convert(md pmetric.Metrics) (pmetric.Metrics, d2c.Result) {
	out := pmetric.NewMetrics()
	md.CopyTo(out)
	m.result = d2c.Result{}
	m.given = map[string]bool{}

	points := m.collect(out)
	inTime := slices.Clone(points)
	slices.SortStableFunc(inTime, func(a, b *modelPoint) int { return cmp.Compare(a.time, b.time) })
	for _, p := range inTime {
		if p.outcome == d2c.Passed {
			p.outcome = m.fold(p)
			m.given[p.key] = m.given[p.key] || !p.outcome.Dropped()
		}
		m.result.Note(p.outcome, 1)
	}
	removeDropped(out, points)
	return out, m.result
}

// collect makes the delta metrics of md cumulative and returns their points in the order of the batch.
func (m *model) collect(md pmetric.Metrics) (points []*modelPoint) {
	for _, rm := range md.ResourceMetrics().All() {
		for _, sm := range rm.ScopeMetrics().All() {
			for _, metric := range sm.Metrics().All() {
				prefix := metricKey(rm.Resource(), sm.Scope(), metric)
				if !makeCumulative(metric) {
					m.result.Note(d2c.Passed, uint64(pointCount(metric)))
					continue
				}
				for _, p := range deltaPoints(metric) {
					p.key = prefix + attributesKey(p.dp.Attributes())
					points = append(points, p)
				}
			}
		}
	}
	return points
}

// makeCumulative reports whether the metric was delta.
func makeCumulative(metric pmetric.Metric) bool {
	var t interface {
		AggregationTemporality() pmetric.AggregationTemporality
		SetAggregationTemporality(pmetric.AggregationTemporality)
	}
	switch metric.Type() {
	case pmetric.MetricTypeSum:
		t = metric.Sum()
	case pmetric.MetricTypeHistogram:
		t = metric.Histogram()
	case pmetric.MetricTypeExponentialHistogram:
		t = metric.ExponentialHistogram()
	default:
		return false
	}
	if t.AggregationTemporality() != pmetric.AggregationTemporalityDelta {
		return false
	}
	t.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	return true
}

func deltaPoints(metric pmetric.Metric) (points []*modelPoint) {
	switch metric.Type() {
	case pmetric.MetricTypeSum:
		for _, dp := range metric.Sum().DataPoints().All() {
			p := newPoint(dp, d2c.KindSum)
			p.delta, p.outcome = readNumber(dp, metric.Sum().IsMonotonic())
			points = append(points, p)
		}
	case pmetric.MetricTypeHistogram:
		for _, dp := range metric.Histogram().DataPoints().All() {
			p := newPoint(dp, d2c.KindHistogram)
			p.delta, p.outcome = readHistogram(dp)
			points = append(points, p)
		}
	case pmetric.MetricTypeExponentialHistogram:
		for _, dp := range metric.ExponentialHistogram().DataPoints().All() {
			p := newPoint(dp, d2c.KindExponentialHistogram)
			p.delta, p.outcome = readExponential(dp)
			points = append(points, p)
		}
	}
	return points
}

// removeDropped removes the dropped points, and what they leave empty.
func removeDropped(md pmetric.Metrics, points []*modelPoint) {
	dropped := map[any]bool{}
	for _, p := range points {
		if p.outcome.Dropped() || p.silent {
			dropped[p.dp] = true
		}
	}
	md.ResourceMetrics().RemoveIf(func(rm pmetric.ResourceMetrics) bool {
		scopes := rm.ScopeMetrics().Len()
		rm.ScopeMetrics().RemoveIf(func(sm pmetric.ScopeMetrics) bool {
			metrics := sm.Metrics().Len()
			sm.Metrics().RemoveIf(func(metric pmetric.Metric) bool {
				n := pointCount(metric)
				switch metric.Type() {
				case pmetric.MetricTypeSum:
					metric.Sum().DataPoints().RemoveIf(func(dp pmetric.NumberDataPoint) bool { return dropped[dp] })
				case pmetric.MetricTypeHistogram:
					metric.Histogram().DataPoints().RemoveIf(func(dp pmetric.HistogramDataPoint) bool { return dropped[dp] })
				case pmetric.MetricTypeExponentialHistogram:
					metric.ExponentialHistogram().DataPoints().RemoveIf(
						func(dp pmetric.ExponentialHistogramDataPoint) bool { return dropped[dp] })
				}
				return n > 0 && pointCount(metric) == 0
			})
			return metrics > 0 && sm.Metrics().Len() == 0
		})
		return scopes > 0 && rm.ScopeMetrics().Len() == 0
	})
}

func pointCount(metric pmetric.Metric) int {
	switch metric.Type() {
	case pmetric.MetricTypeGauge:
		return metric.Gauge().DataPoints().Len()
	case pmetric.MetricTypeSum:
		return metric.Sum().DataPoints().Len()
	case pmetric.MetricTypeHistogram:
		return metric.Histogram().DataPoints().Len()
	case pmetric.MetricTypeExponentialHistogram:
		return metric.ExponentialHistogram().DataPoints().Len()
	case pmetric.MetricTypeSummary:
		return metric.Summary().DataPoints().Len()
	}
	return 0
}

// fold is the table of the package comment.
func (m *model) fold(p *modelPoint) d2c.Outcome {
	s := m.streams[p.key]
	switch {
	case p.dp.Flags().NoRecordedValue():
		return m.forward(s, p)
	case s == nil:
		return m.first(p)
	case p.time == s.last:
		return m.repeat(s, p)
	case p.time > s.last:
		return m.ahead(s, p)
	default:
		return m.behind(s, p)
	}
}

func (m *model) forward(s *modelStream, p *modelPoint) d2c.Outcome {
	if s == nil {
		return d2c.Forwarded
	}
	if p.time <= s.last {
		return d2c.DroppedTooLate
	}
	s.stamp(p)
	s.marker = true
	return d2c.Forwarded
}

func (m *model) first(p *modelPoint) d2c.Outcome {
	if m.cfg.MaxStreams > 0 && len(m.streams) >= m.cfg.MaxStreams {
		return d2c.DroppedLimit
	}
	s := &modelStream{kind: p.kind, start: p.start, fresh: true, seen: m.now()}
	if p.unknownStart() {
		s.start = p.time
	}
	s.last = p.time
	s.total = p.delta.opening()
	m.streams[p.key] = s
	s.emit(p)
	return d2c.AddedFirst
}

func (m *model) repeat(s *modelStream, p *modelPoint) d2c.Outcome {
	s.seen = m.now()
	p.silent = m.given[p.key] && !s.marker // the latest sample is in the batch already
	if s.marker {
		s.emitted += nudge
		s.marker = false
	}
	p.dp.SetStartTimestamp(pcommon.Timestamp(s.start))
	p.dp.SetTimestamp(pcommon.Timestamp(s.emitted))
	s.total.write(p.dp)
	return d2c.Repeated
}

// ahead is for points that end after the stream.
func (m *model) ahead(s *modelStream, p *modelPoint) d2c.Outcome {
	switch {
	case p.unknownStart():
		return m.add(s, p, p.delta, d2c.AddedNoStart, nil)
	case p.start == s.last:
		return m.add(s, p, p.delta, d2c.AddedAligned, nil)
	case p.start > s.last:
		if m.cfg.Gap == d2c.GapRestart {
			return m.restart(s, p, d2c.RestartedGap)
		}
		return m.add(s, p, p.delta, d2c.AddedGap, &interval{s.last, p.start})
	case p.start >= s.start:
		switch m.cfg.Overlap {
		case d2c.OverlapDrop:
			return d2c.DroppedOverlap
		case d2c.OverlapInterpolate:
			uncovered := p.time - s.last + s.missing(interval{p.start, s.last})
			return m.add(s, p, p.delta.share(uncovered, p.time-p.start), d2c.AddedOverlap, nil)
		}
		return m.add(s, p, p.delta, d2c.AddedOverlap, nil)
	default:
		return d2c.DroppedOlderStart
	}
}

// behind is for points that end before the stream does.
func (m *model) behind(s *modelStream, p *modelPoint) d2c.Outcome {
	oldest := uint64(0) // last - LateWindow
	if w := uint64(m.cfg.LateWindow); s.last > w {
		oldest = s.last - w
	}
	beforeFirst := s.fresh && p.time >= oldest
	if p.unknownStart() {
		if beforeFirst && p.time < s.start {
			return m.addBefore(s, p, p.time, nil)
		}
		return d2c.DroppedTooLate
	}
	iv := interval{p.start, p.time}
	switch {
	case slices.ContainsFunc(s.gaps, func(gap interval) bool { return gap.start <= iv.start && iv.end <= gap.end }):
		return m.add(s, p, p.delta, d2c.AddedLate, nil)
	case beforeFirst && iv.end <= s.start:
		var hole *interval
		if iv.end < s.start {
			hole = &interval{iv.end, s.start}
		}
		return m.addBefore(s, p, iv.start, hole)
	case iv.start >= s.start && iv.start >= oldest && iv.start >= s.horizon && s.missing(iv) == 0:
		return m.repeat(s, p)
	}
	return d2c.DroppedTooLate
}

func (m *model) addBefore(s *modelStream, p *modelPoint, start uint64, hole *interval) d2c.Outcome {
	if _, problem := s.total.plus(p.delta); problem != d2c.Passed {
		return d2c.DroppedTooLate
	}
	s.start = start
	return m.add(s, p, p.delta, d2c.AddedBeforeFirst, hole)
}

// add adds delta, which is p's or a share of it. opened is a gap that p reveals, if any.
func (m *model) add(s *modelStream, p *modelPoint, delta amount, outcome d2c.Outcome, opened *interval) d2c.Outcome {
	total, problem := s.total.plus(delta)
	if problem != d2c.Passed {
		if p.time <= s.last {
			return d2c.DroppedTooLate
		}
		return m.restart(s, p, problem)
	}
	if outcome == d2c.AddedLate || outcome == d2c.AddedOverlap {
		cover := interval{p.start, p.time}
		m.result.GapFilled += time.Duration(s.missing(cover))
		var left []interval
		for _, gap := range s.gaps {
			left = append(left, gap.cut(cover)...)
		}
		s.gaps = left
	}
	if opened != nil {
		m.result.GapOpened += time.Duration(opened.end - opened.start)
		s.gaps = append(s.gaps, *opened)
		slices.SortFunc(s.gaps, func(a, b interval) int { return cmp.Compare(a.start, b.start) })
	}
	s.last = max(s.last, p.time)
	s.total = total
	s.seen = m.now()
	s.emit(p)

	s.gaps = slices.DeleteFunc(s.gaps, func(gap interval) bool {
		w := uint64(m.cfg.LateWindow)
		return s.last >= w && gap.end <= s.last-w
	})
	for len(s.gaps) > maxGaps {
		s.horizon = max(s.horizon, s.gaps[0].end)
		s.gaps = s.gaps[1:]
	}
	return outcome
}

func (m *model) restart(s *modelStream, p *modelPoint, outcome d2c.Outcome) d2c.Outcome {
	s.start = max(s.start+1, s.emitted)
	if !p.unknownStart() {
		s.start = max(s.start, p.start)
	}
	s.last = p.time
	s.total = p.delta.opening()
	s.fresh = false
	s.gaps, s.horizon = nil, 0
	s.seen = m.now()
	s.emit(p)
	return outcome
}

// missing is how much of iv lies in remembered gaps.
func (s *modelStream) missing(iv interval) (d uint64) {
	for _, gap := range s.gaps {
		from, to := max(gap.start, iv.start), min(gap.end, iv.end)
		if from < to {
			d += to - from
		}
	}
	return d
}

// stamp gives p the stream's start, and its own time if that is in a later millisecond than everything emitted so far.
func (s *modelStream) stamp(p *modelPoint) {
	if s.emitted == 0 || p.time/nudge > s.emitted/nudge {
		s.emitted = p.time
	} else {
		s.emitted += nudge
	}
	p.dp.SetStartTimestamp(pcommon.Timestamp(s.start))
	p.dp.SetTimestamp(pcommon.Timestamp(s.emitted))
}

func (s *modelStream) emit(p *modelPoint) {
	s.stamp(p)
	s.marker = false
	s.total.write(p.dp)
}

func (m *model) now() int64 {
	if m.cfg.Now == nil {
		return 0
	}
	return m.cfg.Now().Unix()
}

// expire returns how many streams Converter.Expire must forget.
func (m *model) expire() (n int) {
	if m.cfg.MaxStale == 0 {
		return 0
	}
	limit := int64((m.cfg.MaxStale + time.Second - 1) / time.Second)
	for key, s := range m.streams {
		if m.now()-s.seen > limit {
			delete(m.streams, key)
			n++
		}
	}
	return n
}

// views lists the streams as Converter.Streams must show them, without their identities, sorted.
func (m *model) views() (views []string) {
	for _, s := range m.streams {
		v := d2c.Stream{
			Kind: s.kind, Start: pcommon.Timestamp(s.start),
			Last: pcommon.Timestamp(s.last), Emitted: pcommon.Timestamp(s.emitted),
		}
		switch total := s.total.(type) {
		case number:
			v.IsDouble = total.isDouble
			if total.isDouble {
				v.Double = total.f
			} else {
				v.Int = total.i.Int64()
			}
		case explicit:
			v.Count = total.count
		case exponential:
			v.Count = total.count
		}
		views = append(views, view(v))
	}
	sort.Strings(views)
	return views
}

// converterViews is views of the real thing.
func converterViews(c *d2c.Converter) (views []string) {
	for s := range c.Streams() {
		views = append(views, view(s))
	}
	sort.Strings(views)
	return views
}

// view leaves out a histogram's Sum, which says nothing where the sum was not kept.
func view(s d2c.Stream) string {
	return fmt.Sprintf("kind %d (%d, %d] emitted %d int %d double %v %v count %d",
		s.Kind, s.Start, s.Last, s.Emitted, s.Int, s.Double+0, s.IsDouble, s.Count)
}

// amount is a delta or a total. Amounts are never changed once made.
type amount interface {
	// opening is the total of a stream that this delta opens or restarts.
	opening() amount
	// plus returns the total with delta added, or the reason for a restart; Passed means there is none.
	plus(delta amount) (amount, d2c.Outcome)
	// share is the part/whole of this delta, for interpolation.
	share(part, whole uint64) amount
	write(dp dataPoint)
}

// latestTime leaves room above it for samples that go out later than their own time.
const latestTime = math.MaxInt64 - 1<<53

// badTime checks what all kinds check first. Markers have no other check.
func badTime(dp dataPoint) (o d2c.Outcome, done bool) {
	start, t := uint64(dp.StartTimestamp()), uint64(dp.Timestamp())
	marker := dp.Flags().NoRecordedValue()
	if t == 0 || t > latestTime || (!marker && start > t) {
		return d2c.DroppedTime, true
	}
	return d2c.Passed, marker
}

func notFinite(values ...float64) bool {
	return slices.ContainsFunc(values, func(v float64) bool { return math.IsNaN(v) || math.IsInf(v, 0) })
}

// number is a sum's amount: i, or f if isDouble.
type number struct {
	isDouble bool
	i        *big.Int
	f        float64
}

func readNumber(dp pmetric.NumberDataPoint, monotonic bool) (amount, d2c.Outcome) {
	if o, done := badTime(dp); done {
		return nil, o
	}
	switch dp.ValueType() {
	case pmetric.NumberDataPointValueTypeInt:
		if monotonic && dp.IntValue() < 0 {
			return nil, d2c.DroppedNegative
		}
		return number{i: big.NewInt(dp.IntValue())}, d2c.Passed
	case pmetric.NumberDataPointValueTypeDouble:
		if notFinite(dp.DoubleValue()) {
			return nil, d2c.DroppedNotFinite
		}
		if monotonic && dp.DoubleValue() < 0 {
			return nil, d2c.DroppedNegative
		}
		return number{isDouble: true, f: dp.DoubleValue()}, d2c.Passed
	}
	return nil, d2c.DroppedNoValue
}

func (n number) float() float64 {
	if n.isDouble {
		return n.f
	}
	return float64(n.i.Int64())
}

func (n number) opening() amount { return n }

func (n number) plus(delta amount) (amount, d2c.Outcome) {
	d := delta.(number)
	if n.isDouble || d.isDouble {
		f := n.float() + d.float()
		if math.IsInf(f, 0) {
			return nil, d2c.RestartedOverflow
		}
		return number{isDouble: true, f: f}, d2c.Passed
	}
	i := new(big.Int).Add(n.i, d.i)
	if !i.IsInt64() {
		return nil, d2c.RestartedOverflow
	}
	return number{i: i}, d2c.Passed
}

func (n number) share(part, whole uint64) amount {
	if n.isDouble {
		return number{isDouble: true, f: n.f * (float64(part) / float64(whole))}
	}
	i := new(big.Int).Mul(n.i, new(big.Int).SetUint64(part))
	return number{i: i.Quo(i, new(big.Int).SetUint64(whole))} // Quo truncates towards zero
}

func (n number) write(dp dataPoint) {
	if n.isDouble {
		dp.(pmetric.NumberDataPoint).SetDoubleValue(n.f)
	} else {
		dp.(pmetric.NumberDataPoint).SetIntValue(n.i.Int64())
	}
}

// stats is what both kinds of histograms have beside their buckets.
type stats struct {
	count         uint64
	sum, min, max optional
}

type optional struct {
	v  float64
	ok bool
}

type statsPoint interface {
	Count() uint64
	Sum() float64
	HasSum() bool
	Min() float64
	HasMin() bool
	Max() float64
	HasMax() bool
	SetCount(uint64)
	SetSum(float64)
	RemoveSum()
	SetMin(float64)
	RemoveMin()
	SetMax(float64)
	RemoveMax()
}

func readStats(dp statsPoint) (stats, bool) {
	s := stats{
		count: dp.Count(),
		sum:   optional{dp.Sum(), dp.HasSum()},
		min:   optional{dp.Min(), dp.HasMin()},
		max:   optional{dp.Max(), dp.HasMax()},
	}
	for _, o := range []optional{s.sum, s.min, s.max} {
		if o.ok && notFinite(o.v) {
			return s, false
		}
	}
	return s, true
}

func (s stats) plus(d stats) (stats, bool) {
	switch {
	case d.count == 0:
		return s, true
	case s.count == 0:
		return d, true
	}
	count, ok := addCounts(s.count, d.count)
	sum := both(s.sum, d.sum, func(a, b float64) float64 { return a + b })
	if !ok || math.IsInf(sum.v, 0) {
		return stats{}, false
	}
	return stats{count, sum, both(s.min, d.min, math.Min), both(s.max, d.max, math.Max)}, true
}

func both(a, b optional, combine func(a, b float64) float64) optional {
	if !a.ok || !b.ok {
		return optional{}
	}
	return optional{combine(a.v, b.v), true}
}

func (s stats) write(dp statsPoint) {
	dp.SetCount(s.count)
	for _, f := range []struct {
		optional
		set    func(float64)
		remove func()
	}{{s.sum, dp.SetSum, dp.RemoveSum}, {s.min, dp.SetMin, dp.RemoveMin}, {s.max, dp.SetMax, dp.RemoveMax}} {
		if f.ok {
			f.set(f.v)
		} else {
			f.remove()
		}
	}
}

func addCounts(counts ...uint64) (sum uint64, ok bool) {
	total := new(big.Int)
	for _, c := range counts {
		total.Add(total, new(big.Int).SetUint64(c))
	}
	return total.Uint64(), total.IsUint64()
}

// explicit is a histogram's amount.
type explicit struct {
	stats
	bounds  []float64
	buckets []uint64
}

func readHistogram(dp pmetric.HistogramDataPoint) (amount, d2c.Outcome) {
	if o, done := badTime(dp); done {
		return nil, o
	}
	s, ok := readStats(dp)
	if !ok {
		return nil, d2c.DroppedNotFinite
	}
	h := explicit{s, dp.ExplicitBounds().AsRaw(), dp.BucketCounts().AsRaw()}
	if len(h.buckets) != len(h.bounds)+1 && len(h.buckets)+len(h.bounds) != 0 {
		return nil, d2c.DroppedBuckets
	}
	for i, b := range h.bounds {
		if math.IsNaN(b) || (i > 0 && b <= h.bounds[i-1]) {
			return nil, d2c.DroppedBuckets
		}
	}
	return h, d2c.Passed
}

func (h explicit) opening() amount                 { return h }
func (h explicit) share(part, whole uint64) amount { return h }

func (h explicit) plus(delta amount) (amount, d2c.Outcome) {
	d := delta.(explicit)
	if !slices.Equal(h.bounds, d.bounds) || len(h.buckets) != len(d.buckets) {
		return nil, d2c.RestartedLayout
	}
	s, ok := h.stats.plus(d.stats)
	if !ok {
		return nil, d2c.RestartedOverflow
	}
	buckets := slices.Clone(h.buckets)
	for i := range buckets {
		if buckets[i], ok = addCounts(buckets[i], d.buckets[i]); !ok {
			return nil, d2c.RestartedOverflow
		}
	}
	return explicit{s, h.bounds, buckets}, d2c.Passed
}

func (h explicit) write(point dataPoint) {
	dp := point.(pmetric.HistogramDataPoint)
	h.stats.write(dp)
	dp.ExplicitBounds().FromRaw(h.bounds)
	dp.BucketCounts().FromRaw(h.buckets)
}

// exponential is an exponential histogram's amount: counts by bucket index, populated buckets only.
type exponential struct {
	stats
	scale     int32
	threshold float64
	zeros     uint64
	pos, neg  map[int64]uint64
}

const maxBuckets = 160

func readExponential(dp pmetric.ExponentialHistogramDataPoint) (amount, d2c.Outcome) {
	if o, done := badTime(dp); done {
		return nil, o
	}
	s, ok := readStats(dp)
	if !ok || notFinite(dp.ZeroThreshold()) {
		return nil, d2c.DroppedNotFinite
	}
	e := exponential{
		stats: s, scale: dp.Scale(), threshold: dp.ZeroThreshold(), zeros: dp.ZeroCount(),
		pos: populated(dp.Positive()), neg: populated(dp.Negative()),
	}
	if e.scale < -10 || e.scale > 20 || e.threshold < 0 {
		return nil, d2c.DroppedScale
	}
	for _, buckets := range []map[int64]uint64{e.pos, e.neg} {
		for i := range buckets {
			// Exponents of the bounds; no float64 lies at or below 2^-1075, or above a lower bound of 2^1024.
			lower, upper := math.Ldexp(float64(i), -int(e.scale)), math.Ldexp(float64(i+1), -int(e.scale))
			if upper <= -1075 || lower >= 1024 {
				return nil, d2c.DroppedScale
			}
		}
	}
	counts := []uint64{e.zeros}
	for _, buckets := range []map[int64]uint64{e.pos, e.neg} {
		counts = slices.AppendSeq(counts, maps.Values(buckets))
	}
	if _, ok := addCounts(counts...); !ok {
		return nil, d2c.DroppedBuckets
	}
	return e, d2c.Passed
}

func populated(b pmetric.ExponentialHistogramDataPointBuckets) map[int64]uint64 {
	counts := map[int64]uint64{}
	for i, n := range b.BucketCounts().All() {
		if n > 0 {
			counts[int64(b.Offset())+int64(i)] = n
		}
	}
	return counts
}

// boundary is the lower boundary of bucket i, 2^(i*2^-scale). That of the bucket after the last is the largest float64.
func boundary(i int64, scale int32) float64 {
	exponent := math.Ldexp(float64(i), -int(scale))
	if exponent == math.Trunc(exponent) {
		return min(math.Ldexp(1, int(exponent)), math.MaxFloat64) // exact, and knows subnormals
	}
	return math.Exp2(exponent)
}

// opening is e added to nothing, which normalises it. It cannot overflow: readExponential saw to that.
func (e exponential) opening() amount {
	total, _ := exponential{scale: e.scale}.plus(e)
	normal := total.(exponential)
	normal.stats = e.stats
	return normal
}

func (e exponential) share(part, whole uint64) amount { return e }

func (e exponential) plus(delta amount) (amount, d2c.Outcome) {
	d := delta.(exponential)
	s, ok := e.stats.plus(d.stats)
	if !ok {
		return nil, d2c.RestartedOverflow
	}
	sum := exponential{stats: s, scale: min(e.scale, d.scale), threshold: max(e.threshold, d.threshold)}
	for {
		raised := sum.threshold
		for _, side := range []exponential{e, d} {
			for _, buckets := range []map[int64]uint64{side.pos, side.neg} {
				for i := range buckets {
					i >>= side.scale - sum.scale
					if boundary(i, sum.scale) < sum.threshold && sum.threshold < boundary(i+1, sum.scale) {
						raised = boundary(i+1, sum.scale)
					}
				}
			}
		}
		sum.threshold = raised

		// Recount every bucket of both at the new scale.
		zeros := []uint64{e.zeros, d.zeros}
		recount := func(a, b map[int64]uint64) map[int64][]uint64 {
			counts := map[int64][]uint64{}
			for _, side := range []struct {
				buckets map[int64]uint64
				scale   int32
			}{{a, e.scale}, {b, d.scale}} {
				for i, n := range side.buckets {
					i >>= side.scale - sum.scale
					if sum.threshold > 0 && boundary(i+1, sum.scale) <= sum.threshold {
						zeros = append(zeros, n)
					} else {
						counts[i] = append(counts[i], n)
					}
				}
			}
			return counts
		}
		pos, neg := recount(e.pos, d.pos), recount(e.neg, d.neg)
		if span(pos) > maxBuckets || span(neg) > maxBuckets {
			sum.scale--
			continue
		}
		var okZ, okP, okN bool
		sum.zeros, okZ = addCounts(zeros...)
		sum.pos, okP = addBuckets(pos)
		sum.neg, okN = addBuckets(neg)
		if !okZ || !okP || !okN {
			return nil, d2c.RestartedOverflow
		}
		return sum, d2c.Passed
	}
}

func span[V any](buckets map[int64]V) int64 {
	if len(buckets) == 0 {
		return 0
	}
	lo, hi := int64(math.MaxInt64), int64(math.MinInt64)
	for i := range buckets {
		lo, hi = min(lo, i), max(hi, i)
	}
	return hi - lo + 1
}

func addBuckets(counts map[int64][]uint64) (map[int64]uint64, bool) {
	sums := map[int64]uint64{}
	for i, ns := range counts {
		n, ok := addCounts(ns...)
		if !ok {
			return nil, false
		}
		sums[i] = n
	}
	return sums, true
}

func (e exponential) write(point dataPoint) {
	dp := point.(pmetric.ExponentialHistogramDataPoint)
	e.stats.write(dp)
	dp.SetScale(e.scale)
	dp.SetZeroThreshold(e.threshold)
	dp.SetZeroCount(e.zeros)
	writeBuckets(dp.Positive(), e.pos)
	writeBuckets(dp.Negative(), e.neg)
}

// writeBuckets writes the shortest form: from the first populated bucket to the last.
func writeBuckets(b pmetric.ExponentialHistogramDataPointBuckets, buckets map[int64]uint64) {
	counts := make([]uint64, span(buckets))
	offset := int64(0)
	if len(buckets) > 0 {
		offset = math.MaxInt64
		for i := range buckets {
			offset = min(offset, i)
		}
	}
	for i, n := range buckets {
		counts[i-offset] = n
	}
	b.SetOffset(int32(offset))
	b.BucketCounts().FromRaw(counts)
}

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
		s, _ := readStats(dp)
		return fmt.Sprintf("%v bounds %v buckets %v", s, dp.ExplicitBounds().AsRaw(), dp.BucketCounts().AsRaw())
	case pmetric.ExponentialHistogramDataPoint:
		if dp.Flags().NoRecordedValue() {
			return "marker"
		}
		s, _ := readStats(dp)
		return fmt.Sprintf("%v scale %d zero %d ≤ %v pos %v neg %v", s, dp.Scale(), dp.ZeroCount(), dp.ZeroThreshold(),
			populated(dp.Positive()), populated(dp.Negative()))
	}
	return "?"
}
