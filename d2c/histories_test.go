// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
)

// history decides what to send. Times are whole ticks from base, so that intervals often meet exactly.
type history struct {
	src     source
	cfg     d2c.Config
	clock   *time.Time
	base    uint64
	tick    uint64
	latest  pmetric.Metrics // batch
	streams []*streamPlan
}

// streamPlan is one stream of a history: who it is and where it stands.
type streamPlan struct {
	id       int
	kind     d2c.Kind
	summary  bool   // in the place of a histogram
	key      string // the oracle's
	values   int    // for sums: 0 ints, 1 doubles, 2 both; for histograms: how often the layout changes
	position int64  // ticks; where an aligned delta starts
	opened   int64  // ticks; where the first one did
	sent     [][2]int64
}

func newHistory(src source) *history {
	clock := time.Unix(1_700_000_000, 0)
	g := &history{src: src, clock: &clock}
	g.tick = pick(src, uint64(time.Second), uint64(time.Millisecond), uint64(time.Millisecond)/2, 1)
	g.base = pick(src, 1_700_000_000e9, 1_700_000_000e9, 1_700_000_000e9, 1_700_000_000e9, 1_700_000_000e9, 1_700_000_000e9,
		30*g.tick, latestTime-200*g.tick)
	g.cfg = d2c.Config{
		Gap:        pick(src, d2c.GapContinue, d2c.GapContinue, d2c.GapContinue, d2c.GapRestart),
		Overlap:    pick(src, d2c.OverlapAdd, d2c.OverlapAdd, d2c.OverlapDrop, d2c.OverlapInterpolate),
		LateWindow: time.Duration(pick[uint64](src, 1000, 100, 20, 5, 0) * g.tick),
		MaxStreams: pick(src, 0, 0, 0, 3),
		MaxStale:   pick(src, 0, time.Second, 1500*time.Millisecond, 3*time.Second),
		Seed:       uint64(src.n(2)),
		Summaries:  someSummaries,
		Now:        func() time.Time { return clock },

		MissingTime: pick(src, d2c.MissingTimeDrop, d2c.MissingTimeArrival),
		EmitZero:    one(src, 2),

		ReemitInterval: pick(src, 0, time.Second, 2*time.Second),
		Repair:         pick(src, d2c.RepairAll, d2c.RepairAll, 0, d2c.Repairs(src.n(d2c.RepairAll+1))),
	}
	if one(src, 4) {
		g.cfg.Writers, g.cfg.Gap, g.cfg.Overlap = d2c.WritersMany, d2c.GapContinue, d2c.OverlapAdd
		if g.cfg.Identical = pick(src, d2c.IdenticalRepeat, d2c.IdenticalRepeat, d2c.IdenticalAdd); g.cfg.LateWindow == 0 {
			g.cfg.LateWindow = time.Second
		}
	}
	for range 1 + src.n(6) {
		s := &streamPlan{id: src.n(12), values: src.n(3)}
		s.kind = d2c.Kind(s.id % 3)
		s.summary = s.id%6 == 4
		if slices.ContainsFunc(g.streams, func(o *streamPlan) bool { return o.id == s.id }) {
			continue
		}
		s.position = int64(src.n(10))
		s.opened = s.position
		rm := pmetric.NewResourceMetrics()
		m := g.newMetric(rm, s)
		attributes := pcommon.NewMap()
		s.putAttributes(attributes)
		s.key = metricKey(rm.Resource(), rm.ScopeMetrics().At(0).Scope(), m) + attributesKey(attributes)
		g.streams = append(g.streams, s)
	}
	return g
}

// newMetric adds a scope with a metric for s to rm, and gives rm the resource of s.
func (g *history) newMetric(rm pmetric.ResourceMetrics, s *streamPlan) pmetric.Metric {
	rm.Resource().Attributes().PutInt("resource", int64(s.id%2))
	rm.SetSchemaUrl(fmt.Sprint("not part of the identity ", g.src.n(2)))
	sm := rm.ScopeMetrics().AppendEmpty()
	sm.Scope().SetName("scope")
	m := sm.Metrics().AppendEmpty()
	m.SetName("metric")
	m.SetDescription(fmt.Sprint("not part of the identity ", g.src.n(2)))
	switch s.kind {
	case d2c.KindSum:
		m.SetEmptySum().SetIsMonotonic(s.monotonic())
		m.Sum().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	case d2c.KindHistogram:
		if s.summary {
			m.SetEmptySummary()
			break
		}
		m.SetEmptyHistogram().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	case d2c.KindExponentialHistogram:
		m.SetEmptyExponentialHistogram().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	}
	return m
}

func (s *streamPlan) monotonic() bool { return s.id%4 != 3 }

func (s *streamPlan) putAttributes(m pcommon.Map) {
	m.PutStr("a", fmt.Sprint(s.id))
	m.PutInt("b", 1)
}

// batch makes the next batch. m tells which streams are live: beyond MaxStreams the order in which several new streams
// are met within one batch is the Converter's own business, so a batch opens at most one.
func (g *history) batch(m *model) pmetric.Metrics {
	if g.latest != (pmetric.Metrics{}) && g.cfg.MaxStreams == 0 && one(g.src, 6) {
		return g.latest // again: Convert is given a copy
	}
	md := pmetric.NewMetrics()
	defer func() {
		g.latest = pmetric.NewMetrics()
		md.CopyTo(g.latest)
	}()
	metrics := map[*streamPlan]pmetric.Metric{}
	var opens *streamPlan
	for range 1 + g.src.n(6) {
		s := g.streams[g.src.n(len(g.streams))]
		if g.cfg.MaxStreams > 0 && m.streams[s.key] == nil {
			if opens != nil && opens != s {
				continue
			}
			opens = s
		}
		metric, ok := metrics[s]
		if !ok || one(g.src, 4) {
			metric = g.newMetric(md.ResourceMetrics().AppendEmpty(), s)
			metrics[s] = metric
		}
		var dp dataPoint
		switch s.kind {
		case d2c.KindSum:
			p := metric.Sum().DataPoints().AppendEmpty()
			g.times(s, p)
			g.number(s, p)
			dp = p
		case d2c.KindHistogram:
			if s.summary {
				p := metric.Summary().DataPoints().AppendEmpty()
				g.times(s, p)
				g.summary(p)
				dp = p
				break
			}
			p := metric.Histogram().DataPoints().AppendEmpty()
			g.times(s, p)
			g.explicit(s, p)
			dp = p
		case d2c.KindExponentialHistogram:
			p := metric.ExponentialHistogram().DataPoints().AppendEmpty()
			g.times(s, p)
			g.exponential(p)
			dp = p
		}
		s.putAttributes(dp.Attributes())
	}
	if one(g.src, 8) {
		g.bystander(md.ResourceMetrics().AppendEmpty())
	}
	return md
}

// bystander is not the Converter's business.
func (g *history) bystander(rm pmetric.ResourceMetrics) {
	switch g.src.n(5) {
	case 1:
		rm.ScopeMetrics().AppendEmpty()
	case 2:
		rm.ScopeMetrics().AppendEmpty().Metrics().AppendEmpty().SetEmptyGauge().DataPoints().AppendEmpty().SetIntValue(1)
	case 3:
		sum := rm.ScopeMetrics().AppendEmpty().Metrics().AppendEmpty().SetEmptySum()
		sum.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
		sum.DataPoints().AppendEmpty().SetIntValue(1)
	case 4: // delta, but it lost no point
		rm.ScopeMetrics().AppendEmpty().Metrics().AppendEmpty().SetEmptySum().
			SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	}
}

// times chooses the interval of the next point.
func (g *history) times(s *streamPlan, dp dataPoint) {
	n := func(limit int) int64 { return int64(g.src.n(limit)) }
	start, end := s.position, s.position+1+n(3) // aligned
	switch g.src.n(20) {
	case 6: // gap
		start += 1 + n(4)
		end = start + 1 + n(3)
	case 7, 8: // overlap
		start -= 1 + n(6)
	case 9, 10, 11: // again
		if len(s.sent) > 0 {
			again := s.sent[g.src.n(len(s.sent))]
			start, end = again[0], again[1]
		}
	case 12, 13: // anything past, more or less on the grid of what was sent
		end = s.position - n(16)
		start = end - 1 - n(4)
	case 14: // no start
		start = end
	case 15: // no start, past
		end = s.position - n(20)
		start = end
	case 16: // before the first
		end = s.opened - n(4)
		start = end - 1 - n(3)
		s.opened = start
	case 17: // older start
		start = s.opened - 1 - n(3)
	case 18: // far ahead
		start += 10 * n(16)
		end = start + 1 + n(3)
	}
	dp.SetStartTimestamp(g.at(start))
	dp.SetTimestamp(g.at(end))
	if start == end && one(g.src, 2) {
		dp.SetStartTimestamp(0)
	}
	s.sent = append(s.sent, [2]int64{start, end})
	if len(s.sent) > 12 {
		s.sent = s.sent[1:]
	}
	s.position = max(s.position, end)

	switch g.src.n(60) {
	case 1:
		dp.SetTimestamp(0)
	case 2:
		dp.SetTimestamp(pcommon.Timestamp(pick[uint64](g.src, latestTime+1, 1<<63, math.MaxUint64)))
	case 3:
		dp.SetStartTimestamp(dp.Timestamp() + pcommon.Timestamp(1+n(5)))
	case 4: // off the grid
		dp.SetStartTimestamp(dp.StartTimestamp() + 1)
	case 5:
		dp.SetTimestamp(dp.Timestamp() + 1)
	}
}

// at is a tick as a time; those before time began are its first nanosecond.
func (g *history) at(tick int64) pcommon.Timestamp {
	if tick < 0 && uint64(-tick)*g.tick >= g.base {
		return 1
	}
	return pcommon.Timestamp(g.base + uint64(tick)*g.tick)
}

func (g *history) marker() (pmetric.DataPointFlags, bool) { return noRecordedValue, one(g.src, 16) }

func (g *history) number(s *streamPlan, dp pmetric.NumberDataPoint) {
	if flags, ok := g.marker(); ok {
		dp.SetFlags(flags)
		return
	}
	if one(g.src, 5) {
		dp.Exemplars().AppendEmpty().SetIntValue(int64(g.src.n(5)))
	}
	if s.values == 0 || (s.values == 2 && one(g.src, 2)) {
		v := int64(g.src.n(10))
		if one(g.src, 25) {
			v = math.MaxInt64 - int64(g.src.n(4))*(math.MaxInt64/4)
		}
		if !s.monotonic() && one(g.src, 2) {
			v = -v
		}
		dp.SetIntValue(v)
	} else {
		v := pick(g.src, 0.1, 0.125, 1, 3) * float64(g.src.n(50))
		if one(g.src, 25) {
			v = math.MaxFloat64 / float64(1+g.src.n(4))
		}
		if !s.monotonic() && one(g.src, 2) && v != 0 {
			v = -v
		}
		dp.SetDoubleValue(v)
	}
	switch g.src.n(60) {
	case 1:
		dp.SetDoubleValue(notANumber(g.src))
	case 2:
		dp.SetIntValue(-1) // fine if not monotonic
	case 3:
		attributeless := pmetric.NewNumberDataPoint()
		attributeless.SetStartTimestamp(dp.StartTimestamp())
		attributeless.SetTimestamp(dp.Timestamp())
		attributeless.MoveTo(dp) // no value
	}
}

func notANumber(src source) float64 { return pick(src, math.NaN(), math.Inf(1), math.Inf(-1)) }

// stats sets count, and mostly a sum, min and max. A delta that counts nothing sums nothing.
func (g *history) stats(dp statsPoint, count uint64) {
	dp.SetCount(count)
	if !one(g.src, 12) {
		switch {
		case count == 0:
			dp.SetSum(0)
		case one(g.src, 25):
			dp.SetSum(math.MaxFloat64 / float64(1+g.src.n(3)))
		default:
			dp.SetSum(0.1 * float64(g.src.n(200)))
		}
	}
	if !one(g.src, 12) {
		dp.SetMin(float64(g.src.n(50)) - 9.5)
	}
	if !one(g.src, 12) {
		dp.SetMax(float64(g.src.n(50)) + 0.5)
	}
	switch g.src.n(120) {
	case 1:
		dp.SetSum(notANumber(g.src))
	case 2:
		dp.SetMin(notANumber(g.src))
	case 3:
		dp.SetMax(notANumber(g.src))
	}
}

// bucketCount is small, and now and then near the limit.
func (g *history) bucketCount() uint64 {
	if one(g.src, 40) {
		return math.MaxUint64 - uint64(g.src.n(3))
	}
	return uint64(g.src.n(5))
}

func (g *history) explicit(s *streamPlan, dp pmetric.HistogramDataPoint) {
	if flags, ok := g.marker(); ok {
		dp.SetFlags(flags)
		return
	}
	layout := s.id % 4
	if s.values == 2 && one(g.src, 5) {
		layout = g.src.n(6)
	}
	bounds := [][]float64{{1, 2, 3}, {1, 2, 4}, {math.Inf(-1), 0, math.Inf(1)}, {0.1 + 0.2}, {}, {}}[layout]
	counts := make([]uint64, len(bounds)+1)
	if layout == 5 {
		counts = nil
	}
	count := uint64(0)
	for i := range counts {
		counts[i] = g.bucketCount()
		count += counts[i]
	}
	if counts == nil {
		count = g.bucketCount()
	}
	wrong := g.src.n(90)
	switch {
	case wrong >= 14 && wrong < 20 && count < 1000: // nothing
		counts, count = make([]uint64, len(counts)), 0
	case layout == 3 && wrong >= 20 && wrong < 50: // 0.1 + 0.2 is not 0.3
		bounds = []float64{0.3}
	}
	switch wrong {
	case 1:
		counts = append(counts, 1, 2)
	case 6, 7: // the overflow bucket is missing
		counts = counts[:max(len(counts)-1, 0)]
	case 8, 9: // trailing buckets are, or one too many
		for range min(1+g.src.n(3), len(counts)) {
			count -= counts[len(counts)-1]
			counts = counts[:len(counts)-1]
		}
	case 10, 11:
		count = 0
	case 12, 13:
		bounds = append(slices.Clone(bounds), math.Inf(1))
		if one(g.src, 2) {
			counts = append(counts, uint64(g.src.n(2)))
		}
	case 14, 15: // of no layout
		bounds, counts = nil, nil
	case 16:
		bounds = bounds[:0]
	case 2:
		bounds = []float64{1, math.NaN(), 3}
	case 3:
		bounds = []float64{1, 3, 2}
	case 4:
		bounds = []float64{1, 1, 2}
	case 5:
		counts = nil
	}
	dp.ExplicitBounds().FromRaw(bounds)
	dp.BucketCounts().FromRaw(counts)
	g.stats(dp, count)
}

func (g *history) exponential(dp pmetric.ExponentialHistogramDataPoint) {
	if flags, ok := g.marker(); ok {
		dp.SetFlags(flags)
		return
	}
	dp.SetScale(int32(pick(g.src, 3, 3, 3, 4, 2, 0, 20, -10, g.src.n(31)-10)))
	// The buckets lie around 2^exponent, mostly near 1; some deltas are wider than 160 buckets.
	exponent := pick(g.src, 0, 0, 0, 1, -1, 3, -1070, 1020)
	count := g.exponentialBuckets(dp.Positive(), exponent, dp.Scale())
	if one(g.src, 3) {
		count += g.exponentialBuckets(dp.Negative(), exponent, dp.Scale())
	}
	dp.SetZeroCount(uint64(g.src.n(3)))
	if one(g.src, 8) { // nothing, or nothing but zeros
		dp.Positive().BucketCounts().FromRaw(make([]uint64, g.src.n(3)))
		dp.Negative().BucketCounts().FromRaw(nil)
		count = 0
		dp.SetZeroCount(pick[uint64](g.src, 0, 0, 2))
	}
	count += dp.ZeroCount()
	if one(g.src, 20) {
		count = 0
	}
	if one(g.src, 4) {
		dp.SetZeroThreshold(pick(g.src, 0.1, 0.3, 0.7, 1.1, 1e-300))
		if dp.Scale() <= 0 { // where boundaries are exact
			dp.SetZeroThreshold(pick(g.src, math.Ldexp(1, g.src.n(16)-10), 5e-324, math.MaxFloat64))
		}
	}
	switch g.src.n(80) {
	case 1: // near the limit; all else must be empty for the delta to fit by itself
		dp.Positive().BucketCounts().FromRaw([]uint64{math.MaxUint64})
		dp.Negative().BucketCounts().FromRaw(nil)
		dp.SetZeroCount(0)
	case 2:
		dp.Positive().BucketCounts().FromRaw(nil)
		dp.Negative().BucketCounts().FromRaw(nil)
		dp.SetZeroCount(math.MaxUint64 - 1)
	case 3:
		count = math.MaxUint64
	case 4:
		dp.Positive().BucketCounts().FromRaw([]uint64{math.MaxUint64, 1}) // by itself too much
	case 5:
		dp.SetScale(pick[int32](g.src, 21, -11, math.MaxInt32, math.MinInt32))
	case 6:
		dp.SetZeroThreshold(-1)
	case 7:
		dp.SetZeroThreshold(notANumber(g.src))
	case 8:
		dp.Negative().SetOffset(pick[int32](g.src, math.MaxInt32, math.MinInt32))
		dp.Negative().BucketCounts().FromRaw([]uint64{0, 1, 0})
	case 9:
		dp.Negative().SetOffset(pick[int32](g.src, math.MaxInt32, math.MinInt32))
		dp.Negative().BucketCounts().FromRaw([]uint64{0, 0, 0}) // nothing is populated, nothing is wrong
	}
	g.stats(dp, count)
}

func (g *history) exponentialBuckets(b pmetric.ExponentialHistogramDataPointBuckets, exponent int, scale int32) (total uint64) {
	b.SetOffset(int32(math.Floor(math.Ldexp(float64(exponent), int(scale)))) + int32(g.src.n(16)) - 8)
	n := g.src.n(8)
	switch {
	case scale < -6: // two or so buckets are all there is
		b.SetOffset(-1)
		n = g.src.n(3)
	case scale < 0:
		b.SetOffset(b.Offset() / 4)
	case one(g.src, 10):
		n = 100 + g.src.n(150)
	}
	counts := make([]uint64, n)
	for i := range counts {
		if n < 8 || i == 0 || i == n-1 || one(g.src, 20) {
			counts[i] = uint64(g.src.n(4))
			total += counts[i]
		}
	}
	b.BucketCounts().FromRaw(counts)
	return total
}

// explain shows the first stream that differs, with all that was sent to it; if it is only the result that differs, all
// that was sent last.
func (g *history) explain(inputs []pmetric.Metrics, got, want pmetric.Metrics, result, wantResult d2c.Result) error {
	gots, wants := lines(got), lines(want)
	key := ""
	for i := range max(len(gots), len(wants)) {
		if i >= len(gots) || i >= len(wants) || gots[i] != wants[i] {
			if i < len(wants) {
				key = wants[i].key
			} else {
				key = gots[i].key
			}
			break
		}
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "gap %v, overlap %v, window %d, max streams %d\n",
		g.cfg.Gap, g.cfg.Overlap, g.cfg.LateWindow, g.cfg.MaxStreams)
	show := func(name string, ls []line) {
		for _, l := range ls {
			if key == "" || l.key == key {
				fmt.Fprintf(&b, "%s %v", name, l)
				if key == "" {
					fmt.Fprintf(&b, " of %s", l.key)
				}
				fmt.Fprintln(&b)
			}
		}
	}
	for i, in := range inputs {
		if key == "" && i < len(inputs)-1 {
			continue // a result alone differs: the last batch may tell
		}
		show(fmt.Sprintf("batch %d", i), lines(in))
	}
	show("   got", gots)
	show("  want", wants)
	fmt.Fprintf(&b, "   got %s\n  want %s\n", describeResult(result), describeResult(wantResult))
	return errors.New(b.String())
}

// scramble overwrites everything in md that a Converter could wrongly have kept a reference to.
func scramble(md pmetric.Metrics) {
	spoil := func(counts pcommon.UInt64Slice) {
		for i := range counts.Len() {
			counts.SetAt(i, 0xdead)
		}
	}
	forEachMetric(md, func(rm pmetric.ResourceMetrics, _ pmetric.ScopeMetrics, m pmetric.Metric) {
		rm.Resource().Attributes().PutStr("resource", "spoilt")
		m.SetName("spoilt")
		switch m.Type() {
		case pmetric.MetricTypeHistogram:
			for _, dp := range m.Histogram().DataPoints().All() {
				spoil(dp.BucketCounts())
				for i := range dp.ExplicitBounds().Len() {
					dp.ExplicitBounds().SetAt(i, -7)
				}
				dp.Attributes().PutStr("a", "spoilt")
			}
		case pmetric.MetricTypeExponentialHistogram:
			for _, dp := range m.ExponentialHistogram().DataPoints().All() {
				spoil(dp.Positive().BucketCounts())
				spoil(dp.Negative().BucketCounts())
				dp.Attributes().PutStr("a", "spoilt")
			}
		case pmetric.MetricTypeSummary:
			for _, dp := range m.Summary().DataPoints().All() {
				dp.SetCount(0xdead)
				dp.Attributes().PutStr("a", "spoilt")
			}
		case pmetric.MetricTypeSum:
			for _, dp := range m.Sum().DataPoints().All() {
				dp.SetIntValue(0xdead)
				dp.Attributes().PutStr("a", "spoilt")
			}
		}
	})
}
