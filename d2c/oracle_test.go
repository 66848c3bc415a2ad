// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
)

// model is the oracle: the package comment of d2c read aloud, one plain map, nothing shared with the real thing.
type model struct {
	cfg     d2c.Config
	began   uint64 // when the process did
	shared  bool   // markers are looked up in the store, too
	gone    uint64 // after what was given out of streams that were forgotten
	ever    uint64 // the same, before the process, too
	streams map[string]*modelStream

	// In the batch being converted: the times of markers of streams that are not known.
	forwarded map[string]uint64
	result    d2c.Result // of the batch being converted
}

// modelStream is the state of one stream. Times are nanoseconds, intervals (start, end].
type modelStream struct {
	kind                 d2c.Kind
	start, last, emitted uint64
	total                amount
	fresh                bool       // never restarted
	closed               bool       // has, or may have, deltas from before its start
	marker               bool       // the latest thing emitted was a "no recorded value" marker
	gaps                 []interval // ascending and disjoint
	horizon              uint64     // end of the latest gap forgotten for want of room
	seen                 int64      // Unix seconds
	print                string     // of the delta that was added last
	memory               map[string]int64

	named bool      // who it is, is known, since this process has counted it
	zero  zeroPlace // where that of the life is, as long as its first sample is the latest

	// In the batch being converted: the point with the latest sample, and whether the latest time was given out in it.
	sample  *modelPoint
	claimed bool
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
const maxGaps = 4

// modelPoint is one delta point of a batch.
type modelPoint struct {
	silent      bool // it gets no sample
	dp          dataPoint
	start, time uint64 // as they came
	key         string
	kind        d2c.Kind
	delta       amount
	outcome     d2c.Outcome // set early if the point is malformed
	repaired    d2c.Repairs
	arrived     bool
	came        uint64 // time, before anything was made of it
	malformed   bool
	metric      pmetric.Metric
	mayFall     bool
	print       string // interval and contents
	zero        *modelZero
}

// dataPoint is what the kinds of points have in common.
type dataPoint interface {
	Attributes() pcommon.Map
	Flags() pmetric.DataPointFlags
	StartTimestamp() pcommon.Timestamp
	SetStartTimestamp(pcommon.Timestamp)
	Timestamp() pcommon.Timestamp
	SetTimestamp(pcommon.Timestamp)
}

func (m *model) newPoint(dp dataPoint, kind d2c.Kind) *modelPoint {
	p := &modelPoint{dp: dp, start: uint64(dp.StartTimestamp()), time: uint64(dp.Timestamp()), kind: kind}
	if p.time == 0 && m.cfg.MissingTime == d2c.MissingTimeArrival {
		p.start, p.time, p.arrived = 0, m.nanos(), true
	}
	marker := dp.Flags().NoRecordedValue()
	switch {
	case p.time == 0 || p.time > latestTime:
		p.outcome = d2c.DroppedTime
	case p.start > p.time && !marker:
		p.start = 0
		if p.repaired |= d2c.RepairStartAfterTime; m.cfg.Repair&d2c.RepairStartAfterTime == 0 {
			p.outcome = d2c.DroppedTime
		}
	}
	return p
}

// text is what makes a delta the same as another.
func (p *modelPoint) text() string {
	start := p.start
	if p.unknownStart() {
		start = 0
	}
	return fmt.Sprint(start, p.time, p.delta)
}

func (p *modelPoint) unknownStart() bool { return p.start == 0 || p.start >= p.time }

func newModel(cfg d2c.Config) *model {
	m := &model{cfg: cfg, streams: map[string]*modelStream{}, forwarded: map[string]uint64{}}
	m.began = m.nanos()
	return m
}

// convert returns what Converter.Convert must make of md, and its result. It leaves md alone.
func (m *model) convert(md pmetric.Metrics) (pmetric.Metrics, d2c.Result) {
	out := pmetric.NewMetrics()
	md.CopyTo(out)
	m.result, m.forwarded = d2c.Result{}, map[string]uint64{}
	for _, s := range m.streams {
		s.sample, s.claimed = nil, false
	}

	points := m.collect(out)
	if m.cfg.Writers == d2c.WritersMany {
		twins := map[string]int{}
		for _, p := range points {
			id := p.key + p.print
			twins[id]++
			p.print += fmt.Sprint(" number ", twins[id])
		}
	}
	inTime := slices.Clone(points)
	slices.SortStableFunc(inTime, func(a, b *modelPoint) int { return cmp.Compare(a.time, b.time) })
	for _, p := range inTime {
		if p.outcome == d2c.Passed {
			p.outcome = m.fold(p)
			if s := m.streams[p.key]; s != nil && !p.outcome.Dropped() {
				s.named = true
			}
			if s := m.streams[p.key]; s != nil && p.outcome.Added() {
				s.print = p.print
				if s.memory == nil {
					s.memory = map[string]int64{}
				}
				if !p.arrived {
					s.memory[p.print] = m.now()
				}
			}
		}
		m.result.Note(p.outcome, 1)
		if !p.outcome.Dropped() {
			m.result.NoteRepairs(p.repaired)
		}
		if p.zero != nil {
			m.result.Zeros++
		}
	}
	putZeros(out, points)
	removeDropped(out, points)
	if m.outOfOrder(points) {
		forEachMetric(out, func(_ pmetric.ResourceMetrics, _ pmetric.ScopeMetrics, metric pmetric.Metric) {
			if slices.ContainsFunc(points, func(p *modelPoint) bool { return p.metric == metric }) {
				inOrder(metric)
			}
		})
	}
	return out, m.result
}

// outOfOrder reports whether the points of some stream did not come in the order of their times.
func (m *model) outOfOrder(points []*modelPoint) bool {
	latest := map[string]uint64{}
	for _, p := range points {
		if p.malformed || !m.shared && m.streams[p.key] == nil { // or nobody's: a marker
			continue
		}
		if p.came < latest[p.key] {
			return true
		}
		latest[p.key] = p.came
	}
	return false
}

// inOrder sorts the points of a metric by time.
func inOrder(metric pmetric.Metric) {
	switch metric.Type() {
	case pmetric.MetricTypeSum:
		metric.Sum().DataPoints().Sort(func(a, b pmetric.NumberDataPoint) bool { return a.Timestamp() < b.Timestamp() })
	case pmetric.MetricTypeHistogram:
		metric.Histogram().DataPoints().Sort(func(a, b pmetric.HistogramDataPoint) bool { return a.Timestamp() < b.Timestamp() })
	case pmetric.MetricTypeSummary:
		metric.Summary().DataPoints().Sort(func(a, b pmetric.SummaryDataPoint) bool { return a.Timestamp() < b.Timestamp() })
	case pmetric.MetricTypeExponentialHistogram:
		metric.ExponentialHistogram().DataPoints().Sort(func(a, b pmetric.ExponentialHistogramDataPoint) bool {
			return a.Timestamp() < b.Timestamp()
		})
	}
}

// collect makes the delta metrics of md cumulative and returns their points in the order of the batch.
func (m *model) collect(md pmetric.Metrics) (points []*modelPoint) {
	for _, rm := range md.ResourceMetrics().All() {
		for _, sm := range rm.ScopeMetrics().All() {
			for _, metric := range sm.Metrics().All() {
				prefix := metricKey(rm.Resource(), sm.Scope(), metric)
				if !m.takes(metric) {
					m.result.Note(d2c.Passed, uint64(pointCount(metric)))
					continue
				}
				for _, p := range m.deltaPoints(metric) {
					p.key = prefix + attributesKey(p.dp.Attributes())
					p.metric, p.came, p.malformed = metric, p.time, p.outcome != d2c.Passed
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

// deltaPoints lists the points of a metric that is looked at for what it says, not for what may be repaired.
func deltaPoints(metric pmetric.Metric) []*modelPoint {
	return newModel(d2c.Config{}).deltaPoints(metric)
}

func (m *model) deltaPoints(metric pmetric.Metric) (points []*modelPoint) {
	switch metric.Type() {
	case pmetric.MetricTypeSum:
		for _, dp := range metric.Sum().DataPoints().All() {
			p := m.newPoint(dp, d2c.KindSum)
			p.mayFall = !metric.Sum().IsMonotonic()
			if p.outcome == d2c.Passed && !dp.Flags().NoRecordedValue() {
				p.delta, p.outcome = readNumber(dp, metric.Sum().IsMonotonic())
				p.print = p.text()
			}
			points = append(points, p)
		}
	case pmetric.MetricTypeHistogram:
		for _, dp := range metric.Histogram().DataPoints().All() {
			p := m.newPoint(dp, d2c.KindHistogram)
			if p.outcome == d2c.Passed && !dp.Flags().NoRecordedValue() {
				p.delta, p.outcome = readHistogram(p, dp, m.cfg.Repair)
				p.print = p.text()
			}
			points = append(points, p)
		}
	case pmetric.MetricTypeSummary:
		for _, dp := range metric.Summary().DataPoints().All() {
			p := m.newPoint(dp, d2c.KindHistogram) // that is how they are kept
			if p.outcome == d2c.Passed && !dp.Flags().NoRecordedValue() {
				p.delta, p.outcome = m.readSummary(p, dp)
				p.print = p.text() + quantiles(dp)
			}
			points = append(points, p)
		}
	case pmetric.MetricTypeExponentialHistogram:
		for _, dp := range metric.ExponentialHistogram().DataPoints().All() {
			p := m.newPoint(dp, d2c.KindExponentialHistogram)
			if p.outcome == d2c.Passed && !dp.Flags().NoRecordedValue() {
				p.delta, p.outcome = readExponential(p, dp, m.cfg.Repair)
				p.print = p.text()
			}
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
				case pmetric.MetricTypeSummary:
					metric.Summary().DataPoints().RemoveIf(func(dp pmetric.SummaryDataPoint) bool { return dropped[dp] })
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
	if s != nil && p.arrived {
		p.time = min(max(p.time, s.last+1), latestTime)
	}
	switch {
	case p.dp.Flags().NoRecordedValue():
		return m.forward(s, p)
	case s == nil:
		return m.first(p)
	case m.cfg.Writers == d2c.WritersMany:
		return m.unordered(s, p)
	case p.time > s.last:
		return m.ahead(s, p)
	case p.print == s.print:
		return m.answer(s, p, d2c.Repeat)
	case p.time == s.last:
		return m.answer(s, p, d2c.Covered)
	default:
		return m.behind(s, p)
	}
}

func (m *model) forward(s *modelStream, p *modelPoint) d2c.Outcome {
	if s == nil {
		m.forwarded[p.key] = p.time
		return d2c.NoRecordedValue
	}
	if p.time <= s.last {
		return d2c.DroppedTooLate
	}
	s.stamp(p)
	s.marker = true
	return d2c.NoRecordedValue
}

func (m *model) first(p *modelPoint) d2c.Outcome {
	if m.cfg.MaxStreams > 0 && len(m.streams) >= m.cfg.MaxStreams {
		return d2c.DroppedLimit
	}
	s := &modelStream{kind: p.kind, start: p.start, fresh: true, seen: m.now()}
	s.last = p.time
	switch {
	case p.unknownStart():
		s.start = p.time
	case m.old(p):
		s.start = p.time
		if m.cfg.Writers == d2c.WritersOne {
			s.close(p.start, m.cfg)
		}
	}
	s.total = p.delta.opening()
	m.streams[p.key] = s
	s.emit(p)
	m.beginWithZero(s, p, m.latestBefore(p), s.start == p.time)
	return d2c.AddedFirst
}

// old reports whether a life of the stream may have been given out that began when p did.
func (m *model) old(p *modelPoint) bool {
	return p.start < m.gone || p.start < m.began && m.began < p.time
}

// close leaves the start where it is. What is missing from before may still come, late.
func (s *modelStream) close(before uint64, cfg d2c.Config) {
	s.fresh, s.closed = false, true
	if from := max(s.oldest(cfg), 1); from < before {
		s.gaps = append([]interval{{from, before}}, s.gaps...)
	}
}

// oldest is last - LateWindow.
func (s *modelStream) oldest(cfg d2c.Config) uint64 {
	if w := uint64(cfg.LateWindow); s.last > w {
		return s.last - w
	}
	return 0
}

// unordered is for many writers.
func (m *model) unordered(s *modelStream, p *modelPoint) d2c.Outcome {
	window := int64((m.cfg.LateWindow + time.Second - 1) / time.Second)
	if at, known := s.memory[p.print]; known && !p.arrived && m.now()-at <= window && m.cfg.Identical == d2c.IdenticalRepeat {
		return m.answer(s, p, d2c.Repeat)
	}
	total, outcome := s.total.plus(p.delta)
	before := s.emitted
	if outcome == d2c.Passed {
		outcome = d2c.AddedUnordered
		p.noteRounding(s.total, p.delta)
	} else {
		total = p.delta.opening()
		s.start = max(s.start+1, s.emitted)
		s.claimed = false
	}
	s.total, s.last, s.seen = total, max(s.last, p.time), m.now()
	s.emit(p)
	if outcome.Restarted() {
		m.beginWithZero(s, p, before, false)
	}
	return outcome
}

// noteRounding notes whether the bounds of a delta were those of the total but for rounding.
func (p *modelPoint) noteRounding(total, delta amount) {
	if h, ok := total.(explicit); ok {
		if same, rounded := h.sameBounds(delta.(explicit)); same && rounded {
			p.repaired |= d2c.RepairRoundedBounds
		}
	}
}

// answer gives out the latest sample once more.
func (m *model) answer(s *modelStream, p *modelPoint, o d2c.Outcome) d2c.Outcome {
	s.seen = m.now()
	switch {
	case s.marker:
		s.claim(0, p)
		s.marker = false
	case s.sample != nil:
		p.silent = true // it is in the batch already
	default:
		s.sample = p
	}
	p.dp.SetStartTimestamp(pcommon.Timestamp(s.start))
	p.dp.SetTimestamp(pcommon.Timestamp(s.emitted))
	s.total.write(p.dp)
	if dp, ok := p.dp.(pmetric.SummaryDataPoint); ok && (o == d2c.Covered || m.cfg.Writers == d2c.WritersMany) {
		// The sample that is given out once more had others.
		dp.QuantileValues().RemoveIf(func(pmetric.SummaryDataPointValueAtQuantile) bool { return true })
	}
	return o
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
	case p.start >= s.start || !s.fresh:
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
	oldest := s.oldest(m.cfg)
	beforeFirst := s.fresh && p.time >= oldest
	if p.unknownStart() {
		if beforeFirst && p.time < s.start && p.time >= m.gone {
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
		return m.answer(s, p, d2c.Covered)
	}
	return d2c.DroppedTooLate
}

func (m *model) addBefore(s *modelStream, p *modelPoint, start uint64, hole *interval) d2c.Outcome {
	if _, problem := s.total.plus(p.delta); problem != d2c.Passed {
		return d2c.DroppedTooLate
	}
	if !p.unknownStart() && m.old(p) {
		s.close(p.start, m.cfg)
	} else {
		s.start = start
	}
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
		if m.result.GapOpened += time.Duration(opened.end - opened.start); m.result.GapOpened < 0 {
			m.result.GapOpened = 1<<63 - 1 // several of centuries
		}
		s.gaps = append(s.gaps, *opened)
		slices.SortFunc(s.gaps, func(a, b interval) int { return cmp.Compare(a.start, b.start) })
	}
	p.noteRounding(s.total, delta)
	s.last = max(s.last, p.time)
	s.total = total
	s.seen = m.now()
	s.emit(p)

	s.gaps = slices.DeleteFunc(s.gaps, func(gap interval) bool {
		w := uint64(m.cfg.LateWindow)
		return s.last >= w && gap.end <= s.last-w
	})
	if len(s.gaps) > 0 {
		s.gaps[0].start = max(s.gaps[0].start, s.oldest(m.cfg))
	}
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
	s.fresh, s.closed = false, false
	s.claimed = false
	s.gaps, s.horizon = nil, 0
	s.seen = m.now()
	before := s.emitted
	s.emit(p)
	m.beginWithZero(s, p, before, false)
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

// stamp gives p the stream's start, and a time.
func (s *modelStream) stamp(p *modelPoint) {
	s.claim(p.time, p)
	p.dp.SetStartTimestamp(pcommon.Timestamp(s.start))
	p.dp.SetTimestamp(pcommon.Timestamp(s.emitted))
}

// claim finds the time for p: its own if that is in a later millisecond than everything emitted so far; else that of the sample
// of this batch whose place it takes, or the next millisecond.
func (s *modelStream) claim(at uint64, p *modelPoint) {
	switch {
	case s.emitted == 0 || at/nudge > s.emitted/nudge:
		s.emitted = at
	case s.claimed:
		s.emitted = max(s.emitted, at)
		if s.sample != nil {
			s.sample.silent = true
		}
	default:
		s.emitted += nudge
	}
	s.claimed, s.sample = true, p
}

func (s *modelStream) emit(p *modelPoint) {
	s.stamp(p)
	s.marker = false
	s.total.write(p.dp)
}

// nanos is the clock.
func (m *model) nanos() uint64 {
	if m.cfg.Now == nil {
		return uint64(time.Now().UnixNano())
	}
	return uint64(m.cfg.Now().UnixNano())
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
			m.gone = max(m.gone, s.emitted, s.start+1)
			m.ever = max(m.ever, m.gone)
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
		case digest:
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
