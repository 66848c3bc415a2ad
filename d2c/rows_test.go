// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"context"
	"fmt"
	"math"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
)

// sec is a timestamp in seconds, exact to the millisecond. All rows are written in seconds.
func sec(s float64) pcommon.Timestamp { return pcommon.Timestamp(math.Round(s*1e3)) * 1e6 }

// point appends one data point, with a metric of its own, to a batch of delta metrics.
type point func(md pmetric.Metrics)

func batch(points ...point) pmetric.Metrics {
	md := pmetric.NewMetrics()
	for _, p := range points {
		p(md)
	}
	return md
}

// cumulative is a batch as Convert leaves it: what the rows expect is written like what they send.
func cumulative(points ...point) pmetric.Metrics {
	md := batch(points...)
	forEachMetric(md, func(_ pmetric.ResourceMetrics, _ pmetric.ScopeMetrics, m pmetric.Metric) { makeCumulative(m) })
	return md
}

// series builds points of the stream with that name.
type series string

func (s series) metric(md pmetric.Metrics) pmetric.Metric {
	if md.ResourceMetrics().Len() == 0 {
		md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty()
	}
	m := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().AppendEmpty()
	m.SetName(string(s))
	return m
}

func (s series) sum(monotonic bool, start, end float64, set func(pmetric.NumberDataPoint)) point {
	return func(md pmetric.Metrics) {
		sum := s.metric(md).SetEmptySum()
		sum.SetIsMonotonic(monotonic)
		sum.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
		dp := sum.DataPoints().AppendEmpty()
		dp.SetStartTimestamp(sec(start))
		dp.SetTimestamp(sec(end))
		set(dp)
	}
}

func (s series) int(start, end float64, v int64) point {
	return s.sum(true, start, end, func(dp pmetric.NumberDataPoint) { dp.SetIntValue(v) })
}

func (s series) double(start, end, v float64) point {
	return s.sum(true, start, end, func(dp pmetric.NumberDataPoint) { dp.SetDoubleValue(v) })
}

// updown is not monotonic.
func (s series) updown(start, end float64, v int64) point {
	return s.sum(false, start, end, func(dp pmetric.NumberDataPoint) { dp.SetIntValue(v) })
}

func (s series) histogram(start, end float64, set func(pmetric.HistogramDataPoint)) point {
	return func(md pmetric.Metrics) {
		h := s.metric(md).SetEmptyHistogram()
		h.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
		dp := h.DataPoints().AppendEmpty()
		dp.SetStartTimestamp(sec(start))
		dp.SetTimestamp(sec(end))
		set(dp)
	}
}

func (s series) exponential(start, end float64, set func(pmetric.ExponentialHistogramDataPoint)) point {
	return func(md pmetric.Metrics) {
		h := s.metric(md).SetEmptyExponentialHistogram()
		h.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
		dp := h.DataPoints().AppendEmpty()
		dp.SetStartTimestamp(sec(start))
		dp.SetTimestamp(sec(end))
		set(dp)
	}
}

// hist sets a histogram's layout and counts; its count is that of its buckets.
func hist(bounds []float64, counts ...uint64) func(pmetric.HistogramDataPoint) {
	return func(dp pmetric.HistogramDataPoint) {
		dp.ExplicitBounds().FromRaw(bounds)
		dp.BucketCounts().FromRaw(counts)
		total := uint64(0)
		for _, n := range counts {
			total += n
		}
		dp.SetCount(total)
	}
}

// buckets are consecutive exponential buckets from offset on.
type buckets struct {
	offset int32
	counts []uint64
}

// expo sets an exponential histogram; its count is that of its buckets.
func expo(scale int32, threshold float64, zeros uint64, pos, neg buckets) func(pmetric.ExponentialHistogramDataPoint) {
	return func(dp pmetric.ExponentialHistogramDataPoint) {
		dp.SetScale(scale)
		dp.SetZeroThreshold(threshold)
		dp.SetZeroCount(zeros)
		total := zeros
		for _, side := range []struct {
			buckets
			out pmetric.ExponentialHistogramDataPointBuckets
		}{{pos, dp.Positive()}, {neg, dp.Negative()}} {
			side.out.SetOffset(side.offset)
			side.out.BucketCounts().FromRaw(side.counts)
			for _, n := range side.counts {
				total += n
			}
		}
		dp.SetCount(total)
	}
}

// all runs several setters on one point.
func all[P any](set ...func(P)) func(P) {
	return func(dp P) {
		for _, f := range set {
			f(dp)
		}
	}
}

// exchange is one point sent alone and what must come back; a nil out means nothing.
type exchange struct {
	in             point
	want           d2c.Outcome
	out            point
	opened, filled float64 // seconds of gap
}

// play sends the points of one history, one by one.
func play(t *testing.T, cfg d2c.Config, history ...exchange) *d2c.Converter {
	t.Helper()
	conv := newConverter(t, cfg)
	for i, x := range history {
		exchangeOne(t, conv, fmt.Sprintf("point %d", i+1), x)
	}
	return conv
}

func exchangeOne(t *testing.T, conv *d2c.Converter, name string, x exchange) {
	t.Helper()
	in, got, want := batch(x.in), batch(x.in), pmetric.NewMetrics()
	if x.out != nil {
		want = cumulative(x.out)
	}
	result := convert(conv, got)
	wantResult := d2c.Result{
		GapOpened: time.Duration(sec(x.opened)),
		GapFilled: time.Duration(sec(x.filled)),
	}
	wantResult.Note(x.want, 1)
	if result.Points() != wantResult {
		t.Errorf("%s %v:\n got %s\nwant %s", name, lines(in), describeResult(result), describeResult(wantResult))
	}
	if !sameMetrics(got, want) {
		t.Errorf("%s %v:\n got %v\nwant %v", name, lines(in), lines(got), lines(want))
	}
}

// convert is Convert of a Converter that keeps its state in memory, which cannot fail.
func convert(conv *d2c.Converter, md pmetric.Metrics) d2c.Result {
	result, err := conv.Convert(context.Background(), md)
	if err != nil {
		panic(err)
	}
	return result
}

func newConverter(t testing.TB, cfg d2c.Config) *d2c.Converter {
	t.Helper()
	conv, err := d2c.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return conv
}

func describeResult(r d2c.Result) (s string) {
	for o, n := range r.Counts() {
		if n > 0 {
			s += fmt.Sprintf("%v %d, ", d2c.Outcome(o), n)
		}
	}
	return s + fmt.Sprintf("opened %v, filled %v", r.GapOpened, r.GapFilled)
}

// shape makes points of one kind that carry the amount n and nothing that does not add up.
type shape struct {
	name  string
	point func(start, end float64, n int) point
}

// marker as an amount stands for a "no recorded value" point.
const marker = -1

var noRecordedValue = pmetric.DefaultDataPointFlags.WithNoRecordedValue(true)

var shapes = []shape{
	{"int sum", func(start, end float64, n int) point {
		return series("s").sum(true, start, end, func(dp pmetric.NumberDataPoint) {
			if n == marker {
				dp.SetFlags(noRecordedValue)
			} else {
				dp.SetIntValue(int64(n))
			}
		})
	}},
	{"double sum that is not monotonic", func(start, end float64, n int) point {
		return series("s").sum(false, start, end, func(dp pmetric.NumberDataPoint) {
			if n == marker {
				dp.SetFlags(noRecordedValue)
			} else {
				dp.SetDoubleValue(float64(n))
			}
		})
	}},
	{"histogram", func(start, end float64, n int) point {
		return series("s").histogram(start, end, func(dp pmetric.HistogramDataPoint) {
			if n == marker {
				dp.SetFlags(noRecordedValue)
			} else {
				hist([]float64{1, 2}, 0, uint64(n), 0)(dp)
				dp.SetSum(1.5 * float64(n))
			}
		})
	}},
	{"exponential histogram", func(start, end float64, n int) point {
		return series("s").exponential(start, end, func(dp pmetric.ExponentialHistogramDataPoint) {
			if n == marker {
				dp.SetFlags(noRecordedValue)
			} else {
				expo(3, 0, 0, buckets{2, []uint64{uint64(n)}}, buckets{-4, []uint64{uint64(n)}})(dp)
				dp.SetSum(1.5 * float64(n))
			}
		})
	}},
}

// step is one point of a row and what must come back, for every shape.
type step struct {
	start, end     float64
	n              int
	want           d2c.Outcome
	from, at       float64
	total          int
	opened, filled float64
}

func in(start, end float64, n int) step { return step{start: start, end: end, n: n} }

// gives expects the total at a time under a start.
func (s step) gives(o d2c.Outcome, from, at float64, total int) step {
	s.want, s.from, s.at, s.total = o, from, at, total
	return s
}

// drops expects nothing.
func (s step) drops(o d2c.Outcome) step {
	s.want = o
	return s
}

// opens expects so many seconds of gap to be reported as opened.
func (s step) opens(seconds float64) step {
	s.opened = seconds
	return s
}

// fills expects so many seconds of gap to be reported as filled.
func (s step) fills(seconds float64) step {
	s.filled = seconds
	return s
}

type row struct {
	name  string
	with  func(*d2c.Config) // changes to the default configuration, if any
	steps []step
}

func gapRestart(c *d2c.Config)         { c.Gap = d2c.GapRestart }
func overlapDrop(c *d2c.Config)        { c.Overlap = d2c.OverlapDrop }
func overlapInterpolate(c *d2c.Config) { c.Overlap = d2c.OverlapInterpolate }
func lateWindow(seconds float64) func(*d2c.Config) {
	return func(c *d2c.Config) { c.LateWindow = time.Duration(sec(seconds)) }
}

// rows are those of the classification table that hold for every kind.
var rows = []row{
	{"first", nil, []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
	}},
	{"first without start", nil, []step{
		in(0, 20, 5).gives(d2c.AddedFirst, 20, 20, 5),
		in(20, 30, 7).gives(d2c.AddedAligned, 20, 30, 12),
	}},
	{"first with start equal to time", nil, []step{
		in(20, 20, 5).gives(d2c.AddedFirst, 20, 20, 5),
		in(20, 30, 7).gives(d2c.AddedAligned, 20, 30, 12),
	}},
	{"aligned", nil, []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(20, 30, 7).gives(d2c.AddedAligned, 10, 30, 12),
		in(30, 31, 1).gives(d2c.AddedAligned, 10, 31, 13),
	}},
	{"no start", nil, []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(0, 30, 7).gives(d2c.AddedNoStart, 10, 30, 12),
		in(40, 40, 1).gives(d2c.AddedNoStart, 10, 40, 13),
		in(40, 50, 1).gives(d2c.AddedAligned, 10, 50, 14),
	}},
	{"no start opens and fills no gap", nil, []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(30, 40, 7).gives(d2c.AddedGap, 10, 40, 12).opens(10),
		in(0, 60, 1).gives(d2c.AddedNoStart, 10, 60, 13),
		in(45, 55, 9).gives(d2c.Repeated, 10, 60, 13),
		in(20, 30, 1).gives(d2c.AddedLate, 10, 60.001, 14).fills(10),
	}},
	{"gap continue", nil, []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(30, 40, 7).gives(d2c.AddedGap, 10, 40, 12).opens(10),
		in(40, 50, 1).gives(d2c.AddedAligned, 10, 50, 13),
	}},
	{"gap restart", gapRestart, []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(30, 40, 7).gives(d2c.RestartedGap, 30, 40, 7),
		in(40, 50, 1).gives(d2c.AddedAligned, 30, 50, 8),
		in(20, 30, 1).drops(d2c.DroppedTooLate),
	}},
	{"gap restart begins no earlier than the latest emitted time", gapRestart, []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(8, 10, 1).gives(d2c.AddedBeforeFirst, 8, 20.001, 6),
		in(6, 8, 1).gives(d2c.AddedBeforeFirst, 6, 20.002, 7),
		in(4, 6, 1).gives(d2c.AddedBeforeFirst, 4, 20.003, 8),
		in(20.001, 20.002, 2).gives(d2c.RestartedGap, 20.003, 20.004, 2),
		in(20.002, 30, 2).gives(d2c.AddedAligned, 20.003, 30, 4),
	}},
	{"overlap add", nil, []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(15, 25, 7).gives(d2c.AddedOverlap, 10, 25, 12),
		in(10, 30, 1).gives(d2c.AddedOverlap, 10, 30, 13),
	}},
	{"overlap add closes the gaps it covers", nil, []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(30, 40, 7).gives(d2c.AddedGap, 10, 40, 12).opens(10),
		in(50, 60, 1).gives(d2c.AddedGap, 10, 60, 13).opens(10),
		in(26, 70, 1).gives(d2c.AddedOverlap, 10, 70, 14).fills(14),
		in(40, 50, 9).gives(d2c.Repeated, 10, 70, 14),
		in(26, 30, 9).gives(d2c.Repeated, 10, 70, 14),
		in(20, 26, 1).gives(d2c.AddedLate, 10, 70.001, 15).fills(6),
	}},
	{"overlap drop", overlapDrop, []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(15, 25, 7).drops(d2c.DroppedOverlap),
		in(20, 25, 1).gives(d2c.AddedAligned, 10, 25, 6),
	}},
	{"older start", nil, []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(9.999, 25, 7).drops(d2c.DroppedOlderStart),
		in(20, 30, 1).gives(d2c.AddedAligned, 10, 30, 6),
	}},
	{"repeat exact", nil, []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(10, 20, 5).gives(d2c.Repeated, 10, 20, 5),
		in(20, 30, 7).gives(d2c.AddedAligned, 10, 30, 12),
		in(20, 30, 7).gives(d2c.Repeated, 10, 30, 12),
	}},
	{"repeat with the same time and any start", nil, []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(15, 20, 9).gives(d2c.Repeated, 10, 20, 5),
		in(5, 20, 9).gives(d2c.Repeated, 10, 20, 5),
		in(0, 20, 9).gives(d2c.Repeated, 10, 20, 5),
		in(20, 20, 9).gives(d2c.Repeated, 10, 20, 5),
	}},
	{"repeat covered", nil, []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(20, 30, 7).gives(d2c.AddedAligned, 10, 30, 12),
		in(10, 20, 5).gives(d2c.Repeated, 10, 30, 12),
		in(12, 28, 9).gives(d2c.Repeated, 10, 30, 12),
	}},
	{"repeat covered only within the late window", lateWindow(15), []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(20, 30, 7).gives(d2c.AddedAligned, 10, 30, 12),
		in(30, 40, 1).gives(d2c.AddedAligned, 10, 40, 13),
		in(25, 30, 9).gives(d2c.Repeated, 10, 40, 13),
		in(24.999, 30, 9).drops(d2c.DroppedTooLate),
	}},
	{"late", nil, []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(30, 40, 7).gives(d2c.AddedGap, 10, 40, 12).opens(10),
		in(20, 30, 1).gives(d2c.AddedLate, 10, 40.001, 13).fills(10),
		in(20, 30, 1).gives(d2c.Repeated, 10, 40.001, 13),
		in(30, 40, 7).gives(d2c.Repeated, 10, 40.001, 13),
		in(40, 50, 1).gives(d2c.AddedAligned, 10, 50, 14),
	}},
	{"late pushes on a point whose time has been used", nil, []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(30, 40, 7).gives(d2c.AddedGap, 10, 40, 12).opens(10),
		in(20, 30, 1).gives(d2c.AddedLate, 10, 40.001, 13).fills(10),
		in(40, 40.001, 1).gives(d2c.AddedAligned, 10, 40.002, 14),
		in(40.001, 40.003, 1).gives(d2c.AddedAligned, 10, 40.003, 15),
	}},
	{"late splits a gap", nil, []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(50, 60, 7).gives(d2c.AddedGap, 10, 60, 12).opens(30),
		in(30, 40, 1).gives(d2c.AddedLate, 10, 60.001, 13).fills(10),
		in(25, 35, 9).drops(d2c.DroppedTooLate),
		in(30, 40, 9).gives(d2c.Repeated, 10, 60.001, 13),
		in(40, 50, 1).gives(d2c.AddedLate, 10, 60.002, 14).fills(10),
		in(20, 30, 1).gives(d2c.AddedLate, 10, 60.003, 15).fills(10),
		in(20, 50, 9).gives(d2c.Repeated, 10, 60.003, 15),
	}},
	{"late only while the gap is remembered", lateWindow(15), []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(30, 40, 7).gives(d2c.AddedGap, 10, 40, 12).opens(10),
		in(40, 44.999, 1).gives(d2c.AddedAligned, 10, 44.999, 13),
		in(20, 21, 1).gives(d2c.AddedLate, 10, 45, 14).fills(1),
		in(44.999, 45, 1).gives(d2c.AddedAligned, 10, 45.001, 15),
		in(29, 30, 1).drops(d2c.DroppedTooLate),
	}},
	{"what late leaves of a gap is forgotten by its own age", lateWindow(5), []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(60, 61, 7).gives(d2c.AddedGap, 10, 61, 12).opens(40),
		in(54, 58, 1).gives(d2c.AddedLate, 10, 61.001, 13).fills(4),
		in(30, 40, 1).drops(d2c.DroppedTooLate),
		in(50, 62, 1).gives(d2c.AddedOverlap, 10, 62, 14).fills(2),
	}},
	{"what late leaves of a gap is forgotten at once", lateWindow(5), []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(60, 61, 7).gives(d2c.AddedGap, 10, 61, 12).opens(40),
		in(54, 58, 1).gives(d2c.AddedLate, 10, 61.001, 13).fills(4),
		in(50, 62, 1).gives(d2c.AddedOverlap, 10, 62, 14).fills(2),
	}},
	{"late window 0", lateWindow(0), []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(30, 40, 7).gives(d2c.AddedGap, 10, 40, 12).opens(10),
		in(20, 30, 1).drops(d2c.DroppedTooLate),
		in(10, 20, 5).drops(d2c.DroppedTooLate),
		in(5, 10, 1).drops(d2c.DroppedTooLate),
		in(30, 40, 7).gives(d2c.Repeated, 10, 40, 12),
		in(40, 50, 1).gives(d2c.AddedAligned, 10, 50, 13),
	}},
	{"before first", nil, []step{
		in(20, 30, 5).gives(d2c.AddedFirst, 20, 30, 5),
		in(10, 20, 1).gives(d2c.AddedBeforeFirst, 10, 30.001, 6),
		in(10, 20, 1).gives(d2c.Repeated, 10, 30.001, 6),
		in(30, 40, 1).gives(d2c.AddedAligned, 10, 40, 7),
		in(5, 10, 1).gives(d2c.AddedBeforeFirst, 5, 40.001, 8),
	}},
	{"before first with hole", nil, []step{
		in(20, 30, 5).gives(d2c.AddedFirst, 20, 30, 5),
		in(5, 10, 1).gives(d2c.AddedBeforeFirst, 5, 30.001, 6).opens(10),
		in(8, 12, 9).drops(d2c.DroppedTooLate),
		in(10, 20, 1).gives(d2c.AddedLate, 5, 30.002, 7).fills(10),
	}},
	{"before first without start", nil, []step{
		in(20, 30, 5).gives(d2c.AddedFirst, 20, 30, 5),
		in(0, 20, 1).drops(d2c.DroppedTooLate),
		in(0, 15, 1).gives(d2c.AddedBeforeFirst, 15, 30.001, 6),
		in(10, 10, 1).gives(d2c.AddedBeforeFirst, 10, 30.002, 7),
		in(12, 14, 9).gives(d2c.Repeated, 10, 30.002, 7),
	}},
	{"before first across the old start is too late", nil, []step{
		in(20, 30, 5).gives(d2c.AddedFirst, 20, 30, 5),
		in(15, 20.001, 1).drops(d2c.DroppedTooLate),
	}},
	{"before first only within the late window", lateWindow(15), []step{
		in(20, 30, 5).gives(d2c.AddedFirst, 20, 30, 5),
		in(10, 14.999, 1).drops(d2c.DroppedTooLate),
		in(10, 15, 1).gives(d2c.AddedBeforeFirst, 10, 30.001, 6).opens(5),
	}},
	{"not before first after restart", gapRestart, []step{
		in(20, 30, 5).gives(d2c.AddedFirst, 20, 30, 5),
		in(10, 20, 1).gives(d2c.AddedBeforeFirst, 10, 30.001, 6),
		in(40, 50, 7).gives(d2c.RestartedGap, 40, 50, 7),
		in(30, 40, 1).drops(d2c.DroppedTooLate),
		in(0, 35, 1).drops(d2c.DroppedTooLate),
	}},
	{"too late", nil, []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(20, 30, 7).gives(d2c.AddedAligned, 10, 30, 12),
		in(0, 25, 1).drops(d2c.DroppedTooLate),
		in(5, 15, 1).drops(d2c.DroppedTooLate),
		in(30, 40, 1).gives(d2c.AddedAligned, 10, 40, 13),
	}},
	{"too late partly in a gap", nil, []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(30, 40, 7).gives(d2c.AddedGap, 10, 40, 12).opens(10),
		in(15, 25, 1).drops(d2c.DroppedTooLate),
		in(25, 35, 1).drops(d2c.DroppedTooLate),
		in(15, 35, 1).drops(d2c.DroppedTooLate),
		in(20, 30, 1).gives(d2c.AddedLate, 10, 40.001, 13).fills(10),
	}},
	{"ninth gap forgets the oldest", nil, []step{
		in(10, 11, 1).gives(d2c.AddedFirst, 10, 11, 1),
		in(12, 13, 1).gives(d2c.AddedGap, 10, 13, 2).opens(1),
		in(14, 15, 1).gives(d2c.AddedGap, 10, 15, 3).opens(1),
		in(16, 17, 1).gives(d2c.AddedGap, 10, 17, 4).opens(1),
		in(18, 19, 1).gives(d2c.AddedGap, 10, 19, 5).opens(1),
		in(20, 21, 1).gives(d2c.AddedGap, 10, 21, 6).opens(1),
		in(22, 23, 1).gives(d2c.AddedGap, 10, 23, 7).opens(1),
		in(24, 25, 1).gives(d2c.AddedGap, 10, 25, 8).opens(1),
		in(26, 27, 1).gives(d2c.AddedGap, 10, 27, 9).opens(1),
		in(10, 11, 1).gives(d2c.Repeated, 10, 27, 9),
		in(28, 29, 1).gives(d2c.AddedGap, 10, 29, 10).opens(1),
		in(11, 12, 1).drops(d2c.DroppedTooLate), // the forgotten gap, no longer known to be missing
		in(10, 11, 1).drops(d2c.DroppedTooLate), // before the horizon, no longer known to be a repeat
		in(12, 13, 1).gives(d2c.Repeated, 10, 29, 10),
		in(13, 14, 1).gives(d2c.AddedLate, 10, 29.001, 11).fills(1),
	}},
	{"splitting the eighth gap forgets the oldest", nil, []step{
		in(10, 11, 1).gives(d2c.AddedFirst, 10, 11, 1),
		in(12, 13, 1).gives(d2c.AddedGap, 10, 13, 2).opens(1),
		in(14, 15, 1).gives(d2c.AddedGap, 10, 15, 3).opens(1),
		in(16, 17, 1).gives(d2c.AddedGap, 10, 17, 4).opens(1),
		in(18, 19, 1).gives(d2c.AddedGap, 10, 19, 5).opens(1),
		in(20, 21, 1).gives(d2c.AddedGap, 10, 21, 6).opens(1),
		in(22, 23, 1).gives(d2c.AddedGap, 10, 23, 7).opens(1),
		in(24, 25, 1).gives(d2c.AddedGap, 10, 25, 8).opens(1),
		in(28, 29, 1).gives(d2c.AddedGap, 10, 29, 9).opens(3),
		in(26, 27, 1).gives(d2c.AddedLate, 10, 29.001, 10).fills(1),
		in(11, 12, 1).drops(d2c.DroppedTooLate),
		in(25, 26, 1).gives(d2c.AddedLate, 10, 29.002, 11).fills(1),
		in(27, 28, 1).gives(d2c.AddedLate, 10, 29.003, 12).fills(1),
	}},
	{"no recorded value with state", nil, []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(20, 30, marker).gives(d2c.Forwarded, 10, 30, marker),
		in(30, 40, 7).gives(d2c.AddedGap, 10, 40, 12).opens(10),
		in(0, 50, marker).gives(d2c.Forwarded, 10, 50, marker),
		in(40, 45, 1).gives(d2c.AddedAligned, 10, 50.001, 13),
	}},
	{"no recorded value without state", nil, []step{
		in(10, 20, marker).gives(d2c.Forwarded, 10, 20, marker),
		in(15, 25, 5).gives(d2c.AddedFirst, 15, 25, 5),
	}},
	{"no recorded value too late", nil, []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(10, 20, marker).drops(d2c.DroppedTooLate),
		in(10, 15, marker).drops(d2c.DroppedTooLate),
	}},
	{"no recorded value after a late point", nil, []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(5, 10, 1).gives(d2c.AddedBeforeFirst, 5, 20.001, 6),
		in(20, 20.001, marker).gives(d2c.Forwarded, 5, 20.002, marker),
	}},
	{"marker then repeat", nil, []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(20, 30, marker).gives(d2c.Forwarded, 10, 30, marker),
		in(10, 20, 5).gives(d2c.Repeated, 10, 30.001, 5),
		in(10, 20, 5).gives(d2c.Repeated, 10, 30.001, 5),
		in(20, 40, 1).gives(d2c.AddedAligned, 10, 40, 6),
	}},
}

func TestRows(t *testing.T) {
	for _, shape := range shapes {
		t.Run(shape.name, func(t *testing.T) {
			for _, row := range rows {
				t.Run(row.name, func(t *testing.T) {
					cfg := d2c.DefaultConfig()
					if row.with != nil {
						row.with(&cfg)
					}
					play(t, cfg, exchanges(shape, row.steps)...)
				})
			}
		})
	}
}

func exchanges(shape shape, steps []step) (history []exchange) {
	for _, s := range steps {
		x := exchange{in: shape.point(s.start, s.end, s.n), want: s.want, opened: s.opened, filled: s.filled}
		if !s.want.Dropped() {
			x.out = shape.point(s.from, s.at, s.total)
		}
		history = append(history, x)
	}
	return history
}

func TestRowOverlapInterpolate(t *testing.T) {
	cfg := d2c.DefaultConfig()
	overlapInterpolate(&cfg)
	const s = series("s")
	t.Run("int", func(t *testing.T) {
		play(t, cfg,
			exchange{in: s.int(10, 20, 5), want: d2c.AddedFirst, out: s.int(10, 20, 5)},
			exchange{in: s.int(15, 25, 7), want: d2c.AddedOverlap, out: s.int(10, 25, 8)}, // 7 * 5/10
		)
	})
	t.Run("negative int rounds towards zero", func(t *testing.T) {
		play(t, cfg,
			exchange{in: s.updown(10, 20, 5), want: d2c.AddedFirst, out: s.updown(10, 20, 5)},
			exchange{in: s.updown(15, 25, -7), want: d2c.AddedOverlap, out: s.updown(10, 25, 2)},
		)
	})
	t.Run("huge int", func(t *testing.T) {
		play(t, cfg,
			exchange{in: s.int(10, 20, 0), want: d2c.AddedFirst, out: s.int(10, 20, 0)},
			// (2^63-1) * 1/3: no intermediate may wrap or round
			exchange{in: s.int(10, 25, math.MaxInt64), want: d2c.AddedOverlap, out: s.int(10, 25, 3074457345618258602)},
		)
	})
	t.Run("double", func(t *testing.T) {
		play(t, cfg,
			exchange{in: s.double(10, 20, 5), want: d2c.AddedFirst, out: s.double(10, 20, 5)},
			exchange{in: s.double(15, 25, 7), want: d2c.AddedOverlap, out: s.double(10, 25, 8.5)},
		)
	})
	t.Run("covered gaps count as uncovered time", func(t *testing.T) {
		play(t, cfg,
			exchange{in: s.int(10, 20, 5), want: d2c.AddedFirst, out: s.int(10, 20, 5)},
			exchange{in: s.int(30, 40, 7), want: d2c.AddedGap, out: s.int(10, 40, 12), opened: 10},
			// (25, 45] has 5 s of the gap and 5 s after 40 of its 20 s
			exchange{in: s.int(25, 45, 8), want: d2c.AddedOverlap, out: s.int(10, 45, 16), filled: 5},
			exchange{in: s.int(20, 25, 1), want: d2c.AddedLate, out: s.int(10, 45.001, 17), filled: 5},
		)
	})
	t.Run("overflow is that of the share", func(t *testing.T) {
		play(t, cfg,
			exchange{in: s.int(10, 20, math.MaxInt64-4), want: d2c.AddedFirst, out: s.int(10, 20, math.MaxInt64-4)},
			exchange{in: s.int(15, 25, 8), want: d2c.AddedOverlap, out: s.int(10, 25, math.MaxInt64)},
			exchange{in: s.int(20, 30, 8), want: d2c.RestartedOverflow, out: s.int(25, 30, 8)},
		)
	})
	for _, shape := range shapes[2:] {
		t.Run(shape.name+" is added whole", func(t *testing.T) {
			play(t, cfg, exchanges(shape, []step{
				in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
				in(30, 40, 7).gives(d2c.AddedGap, 10, 40, 12).opens(10),
				in(25, 45, 8).gives(d2c.AddedOverlap, 10, 45, 20).fills(5),
			})...)
		})
	}
}

func TestRowLayoutChange(t *testing.T) {
	const s = series("s")
	a := func(start, end float64, counts ...uint64) point {
		return s.histogram(start, end, hist([]float64{1, 2}, counts...))
	}
	b := func(start, end float64, counts ...uint64) point {
		return s.histogram(start, end, hist([]float64{1, 3}, counts...))
	}
	t.Run("bounds", func(t *testing.T) {
		play(t, d2c.DefaultConfig(),
			exchange{in: a(10, 20, 1, 2, 3), want: d2c.AddedFirst, out: a(10, 20, 1, 2, 3)},
			exchange{in: b(20, 30, 4, 5, 6), want: d2c.RestartedLayout, out: b(20, 30, 4, 5, 6)},
			exchange{in: b(30, 40, 1, 1, 1), want: d2c.AddedAligned, out: b(20, 40, 5, 6, 7)},
			exchange{in: a(40, 50, 1, 2, 3), want: d2c.RestartedLayout, out: a(40, 50, 1, 2, 3)},
		)
	})
	t.Run("number of bounds", func(t *testing.T) {
		c := s.histogram(20, 30, hist([]float64{1}, 4, 5))
		play(t, d2c.DefaultConfig(),
			exchange{in: a(10, 20, 1, 2, 3), want: d2c.AddedFirst, out: a(10, 20, 1, 2, 3)},
			exchange{in: c, want: d2c.RestartedLayout, out: c},
		)
	})
	t.Run("one bucket is not no buckets", func(t *testing.T) {
		none := func(start, end float64, n uint64) point {
			return s.histogram(start, end, all(hist(nil), func(dp pmetric.HistogramDataPoint) { dp.SetCount(n) }))
		}
		one := func(start, end float64, n uint64) point { return s.histogram(start, end, hist(nil, n)) }
		play(t, d2c.DefaultConfig(),
			exchange{in: none(10, 20, 3), want: d2c.AddedFirst, out: none(10, 20, 3)},
			exchange{in: none(20, 30, 4), want: d2c.AddedAligned, out: none(10, 30, 7)},
			exchange{in: one(30, 40, 4), want: d2c.RestartedLayout, out: one(30, 40, 4)},
			exchange{in: one(40, 50, 1), want: d2c.AddedAligned, out: one(30, 50, 5)},
		)
	})
	t.Run("in a gap", func(t *testing.T) {
		play(t, d2c.DefaultConfig(),
			exchange{in: a(10, 20, 1, 2, 3), want: d2c.AddedFirst, out: a(10, 20, 1, 2, 3)},
			exchange{in: b(30, 40, 4, 5, 6), want: d2c.RestartedLayout, out: b(30, 40, 4, 5, 6)},
			exchange{in: b(20, 30, 4, 5, 6), want: d2c.DroppedTooLate},
		)
	})
	t.Run("without start or overlapping begins at the latest emitted time", func(t *testing.T) {
		play(t, d2c.DefaultConfig(),
			exchange{in: a(10, 20, 1, 2, 3), want: d2c.AddedFirst, out: a(10, 20, 1, 2, 3)},
			exchange{in: b(0, 30, 4, 5, 6), want: d2c.RestartedLayout, out: b(20, 30, 4, 5, 6)},
			exchange{in: a(25, 35, 1, 2, 3), want: d2c.RestartedLayout, out: a(30, 35, 1, 2, 3)},
		)
	})
	t.Run("of late and before-first points is too late", func(t *testing.T) {
		play(t, d2c.DefaultConfig(),
			exchange{in: a(10, 20, 1, 2, 3), want: d2c.AddedFirst, out: a(10, 20, 1, 2, 3)},
			exchange{in: a(30, 40, 1, 1, 1), want: d2c.AddedGap, out: a(10, 40, 2, 3, 4), opened: 10},
			exchange{in: b(20, 30, 1, 1, 1), want: d2c.DroppedTooLate},
			exchange{in: b(5, 10, 1, 1, 1), want: d2c.DroppedTooLate},
			exchange{in: a(20, 30, 1, 1, 1), want: d2c.AddedLate, out: a(10, 40.001, 3, 4, 5), filled: 10},
			exchange{in: a(5, 10, 1, 1, 1), want: d2c.AddedBeforeFirst, out: a(5, 40.002, 4, 5, 6)},
		)
	})
	t.Run("of a repeat shows the stream's layout", func(t *testing.T) {
		play(t, d2c.DefaultConfig(),
			exchange{in: a(10, 20, 1, 2, 3), want: d2c.AddedFirst, out: a(10, 20, 1, 2, 3)},
			exchange{in: b(10, 20, 4, 5, 6), want: d2c.Repeated, out: a(10, 20, 1, 2, 3)},
			exchange{in: s.histogram(12, 18, hist([]float64{1}, 4, 5)), want: d2c.Repeated, out: a(10, 20, 1, 2, 3)},
		)
	})
	t.Run("under the policies that come first", func(t *testing.T) {
		cfg := d2c.DefaultConfig()
		gapRestart(&cfg)
		overlapDrop(&cfg)
		play(t, cfg,
			exchange{in: a(10, 20, 1, 2, 3), want: d2c.AddedFirst, out: a(10, 20, 1, 2, 3)},
			exchange{in: b(15, 25, 4, 5, 6), want: d2c.DroppedOverlap},
			exchange{in: b(5, 25, 4, 5, 6), want: d2c.DroppedOlderStart},
			exchange{in: b(30, 40, 4, 5, 6), want: d2c.RestartedGap, out: b(30, 40, 4, 5, 6)},
		)
	})
}

func TestRowOverflow(t *testing.T) {
	const s = series("s")
	t.Run("int64", func(t *testing.T) {
		play(t, d2c.DefaultConfig(),
			exchange{in: s.int(10, 20, math.MaxInt64-5), want: d2c.AddedFirst, out: s.int(10, 20, math.MaxInt64-5)},
			exchange{in: s.int(20, 30, 5), want: d2c.AddedAligned, out: s.int(10, 30, math.MaxInt64)},
			exchange{in: s.int(30, 40, 1), want: d2c.RestartedOverflow, out: s.int(30, 40, 1)},
			exchange{in: s.int(20, 30, 5), want: d2c.DroppedTooLate},
		)
	})
	t.Run("int64 below", func(t *testing.T) {
		play(t, d2c.DefaultConfig(),
			exchange{in: s.updown(10, 20, math.MinInt64), want: d2c.AddedFirst, out: s.updown(10, 20, math.MinInt64)},
			exchange{in: s.updown(20, 30, -1), want: d2c.RestartedOverflow, out: s.updown(20, 30, -1)},
		)
	})
	t.Run("float64", func(t *testing.T) {
		play(t, d2c.DefaultConfig(),
			exchange{in: s.double(10, 20, 1e308), want: d2c.AddedFirst, out: s.double(10, 20, 1e308)},
			exchange{in: s.double(30, 40, 1e308), want: d2c.RestartedOverflow, out: s.double(30, 40, 1e308)},
		)
	})
	t.Run("uint64 count", func(t *testing.T) {
		h := func(start, end float64, count uint64) point {
			return s.histogram(start, end, all(hist(nil), func(dp pmetric.HistogramDataPoint) { dp.SetCount(count) }))
		}
		play(t, d2c.DefaultConfig(),
			exchange{in: h(10, 20, math.MaxUint64), want: d2c.AddedFirst, out: h(10, 20, math.MaxUint64)},
			exchange{in: h(20, 30, 1), want: d2c.RestartedOverflow, out: h(20, 30, 1)},
		)
	})
	t.Run("uint64 bucket", func(t *testing.T) {
		h := func(start, end float64, counts ...uint64) point {
			return s.histogram(start, end, all(hist([]float64{1}, counts...),
				func(dp pmetric.HistogramDataPoint) { dp.SetCount(7) }))
		}
		play(t, d2c.DefaultConfig(),
			exchange{in: h(10, 20, 3, math.MaxUint64), want: d2c.AddedFirst, out: h(10, 20, 3, math.MaxUint64)},
			exchange{in: h(20, 30, 1, 1), want: d2c.RestartedOverflow, out: h(20, 30, 1, 1)},
		)
	})
	t.Run("histogram sum", func(t *testing.T) {
		h := func(start, end, sum float64) point {
			return s.histogram(start, end, all(hist(nil, 1), func(dp pmetric.HistogramDataPoint) { dp.SetSum(sum) }))
		}
		play(t, d2c.DefaultConfig(),
			exchange{in: h(10, 20, -1e308), want: d2c.AddedFirst, out: h(10, 20, -1e308)},
			exchange{in: h(20, 30, -1e308), want: d2c.RestartedOverflow, out: h(20, 30, -1e308)},
		)
	})
	t.Run("exponential count, bucket, zero count", func(t *testing.T) {
		const most = math.MaxUint64
		count := func(n uint64) func(pmetric.ExponentialHistogramDataPoint) {
			return func(dp pmetric.ExponentialHistogramDataPoint) { dp.SetCount(n) }
		}
		for name, set := range map[string]func(n uint64) func(pmetric.ExponentialHistogramDataPoint){
			"count": func(n uint64) func(pmetric.ExponentialHistogramDataPoint) {
				return all(expo(0, 0, 0, buckets{}, buckets{}), count(n))
			},
			"zero count": func(n uint64) func(pmetric.ExponentialHistogramDataPoint) {
				return all(expo(0, 0, n, buckets{}, buckets{}), count(1))
			},
			"positive bucket": func(n uint64) func(pmetric.ExponentialHistogramDataPoint) {
				return all(expo(0, 0, 0, buckets{3, []uint64{0, n}}, buckets{}), count(1))
			},
			"negative bucket": func(n uint64) func(pmetric.ExponentialHistogramDataPoint) {
				return all(expo(0, 0, 0, buckets{}, buckets{-3, []uint64{0, n}}), count(1))
			},
		} {
			t.Run(name, func(t *testing.T) {
				play(t, d2c.DefaultConfig(),
					exchange{in: s.exponential(10, 20, set(most)), want: d2c.AddedFirst, out: s.exponential(10, 20, set(most))},
					exchange{in: s.exponential(20, 30, set(1)), want: d2c.RestartedOverflow, out: s.exponential(20, 30, set(1))},
				)
			})
		}
	})
	t.Run("of late and before-first points is too late", func(t *testing.T) {
		play(t, d2c.DefaultConfig(),
			exchange{in: s.int(10, 20, 5), want: d2c.AddedFirst, out: s.int(10, 20, 5)},
			exchange{in: s.int(30, 40, 7), want: d2c.AddedGap, out: s.int(10, 40, 12), opened: 10},
			exchange{in: s.int(20, 30, math.MaxInt64), want: d2c.DroppedTooLate},
			exchange{in: s.int(5, 10, math.MaxInt64), want: d2c.DroppedTooLate},
			exchange{in: s.int(20, 30, 1), want: d2c.AddedLate, out: s.int(10, 40.001, 13), filled: 10},
		)
	})
}

func TestRowIntMeetsDouble(t *testing.T) {
	const s = series("s")
	t.Run("int then double", func(t *testing.T) {
		play(t, d2c.DefaultConfig(),
			exchange{in: s.int(10, 20, 5), want: d2c.AddedFirst, out: s.int(10, 20, 5)},
			exchange{in: s.double(20, 30, 0.5), want: d2c.AddedAligned, out: s.double(10, 30, 5.5)},
			exchange{in: s.int(30, 40, 2), want: d2c.AddedAligned, out: s.double(10, 40, 7.5)},
			exchange{in: s.int(30, 40, 2), want: d2c.Repeated, out: s.double(10, 40, 7.5)},
		)
	})
	t.Run("double then int", func(t *testing.T) {
		play(t, d2c.DefaultConfig(),
			exchange{in: s.double(10, 20, 0.5), want: d2c.AddedFirst, out: s.double(10, 20, 0.5)},
			exchange{in: s.int(20, 30, 5), want: d2c.AddedAligned, out: s.double(10, 30, 5.5)},
		)
	})
	t.Run("a dropped double does not count", func(t *testing.T) {
		play(t, d2c.DefaultConfig(),
			exchange{in: s.int(10, 20, 5), want: d2c.AddedFirst, out: s.int(10, 20, 5)},
			exchange{in: s.double(10, 20, 5), want: d2c.Repeated, out: s.int(10, 20, 5)},
			exchange{in: s.double(5, 15, 5), want: d2c.DroppedTooLate},
			exchange{in: s.int(20, 30, 5), want: d2c.AddedAligned, out: s.int(10, 30, 10)},
		)
	})
	t.Run("until it restarts", func(t *testing.T) {
		cfg := d2c.DefaultConfig()
		gapRestart(&cfg)
		play(t, cfg,
			exchange{in: s.double(10, 20, 0.5), want: d2c.AddedFirst, out: s.double(10, 20, 0.5)},
			exchange{in: s.int(30, 40, 5), want: d2c.RestartedGap, out: s.int(30, 40, 5)},
		)
	})
	t.Run("no int64 overflow in a double", func(t *testing.T) {
		play(t, d2c.DefaultConfig(),
			exchange{in: s.int(10, 20, math.MaxInt64), want: d2c.AddedFirst, out: s.int(10, 20, math.MaxInt64)},
			exchange{in: s.double(20, 30, 1), want: d2c.AddedAligned, out: s.double(10, 30, 1<<63)},
			exchange{in: s.int(30, 40, math.MaxInt64), want: d2c.AddedAligned, out: s.double(10, 40, 1<<64)},
		)
	})
}

// TestRowPresence: histogram sum, min and max are kept while every delta that counts anything has them.
func TestRowPresence(t *testing.T) {
	const s = series("s")
	const absent = math.MaxFloat64
	// h is a histogram of n observations, with those of sum, min and max that are not absent.
	explicitly := func(start, end float64, n uint64, sum, lo, hi float64) point {
		return s.histogram(start, end, all(hist([]float64{5}, n, 0), func(dp pmetric.HistogramDataPoint) {
			if sum != absent {
				dp.SetSum(sum)
			}
			if lo != absent {
				dp.SetMin(lo)
			}
			if hi != absent {
				dp.SetMax(hi)
			}
		}))
	}
	exponentially := func(start, end float64, n uint64, sum, lo, hi float64) point {
		return s.exponential(start, end, all(expo(0, 0, n, buckets{}, buckets{}),
			func(dp pmetric.ExponentialHistogramDataPoint) {
				if sum != absent {
					dp.SetSum(sum)
				}
				if lo != absent {
					dp.SetMin(lo)
				}
				if hi != absent {
					dp.SetMax(hi)
				}
			}))
	}
	for name, h := range map[string]func(start, end float64, n uint64, sum, lo, hi float64) point{
		"histogram": explicitly, "exponential histogram": exponentially,
	} {
		t.Run(name, func(t *testing.T) {
			t.Run("kept", func(t *testing.T) {
				play(t, d2c.DefaultConfig(),
					exchange{in: h(10, 20, 2, 5, 1, 4), want: d2c.AddedFirst, out: h(10, 20, 2, 5, 1, 4)},
					exchange{in: h(20, 30, 2, 5, 2, 3), want: d2c.AddedAligned, out: h(10, 30, 4, 10, 1, 4)},
					exchange{in: h(30, 40, 2, -5, -8, 9), want: d2c.AddedAligned, out: h(10, 40, 6, 5, -8, 9)},
				)
			})
			t.Run("lost for good when one delta lacks it", func(t *testing.T) {
				play(t, d2c.DefaultConfig(),
					exchange{in: h(10, 20, 2, 5, 1, 4), want: d2c.AddedFirst, out: h(10, 20, 2, 5, 1, 4)},
					exchange{in: h(20, 30, 2, 5, absent, 6), want: d2c.AddedAligned, out: h(10, 30, 4, 10, absent, 6)},
					exchange{in: h(30, 40, 2, absent, 1, 4), want: d2c.AddedAligned, out: h(10, 40, 6, absent, absent, 6)},
					exchange{in: h(40, 50, 2, 5, 1, absent), want: d2c.AddedAligned, out: h(10, 50, 8, absent, absent, absent)},
					exchange{in: h(50, 60, 2, 5, 1, 4), want: d2c.AddedAligned, out: h(10, 60, 10, absent, absent, absent)},
				)
			})
			t.Run("a delta that counts nothing says nothing", func(t *testing.T) {
				play(t, d2c.DefaultConfig(),
					exchange{in: h(10, 20, 2, 5, 1, 4), want: d2c.AddedFirst, out: h(10, 20, 2, 5, 1, 4)},
					exchange{in: h(20, 30, 0, absent, absent, absent), want: d2c.AddedAligned, out: h(10, 30, 2, 5, 1, 4)},
					exchange{in: h(30, 40, 0, 0, 0, 0), want: d2c.AddedAligned, out: h(10, 40, 2, 5, 1, 4)},
				)
			})
			t.Run("a delta that counts nothing does not bring it back", func(t *testing.T) {
				play(t, d2c.DefaultConfig(),
					exchange{in: h(10, 20, 2, absent, absent, absent), want: d2c.AddedFirst, out: h(10, 20, 2, absent, absent, absent)},
					exchange{in: h(20, 30, 0, 0, 0, 0), want: d2c.AddedAligned, out: h(10, 30, 2, absent, absent, absent)},
				)
			})
			t.Run("the first that counts decides", func(t *testing.T) {
				play(t, d2c.DefaultConfig(),
					exchange{in: h(10, 20, 0, absent, absent, absent), want: d2c.AddedFirst, out: h(10, 20, 0, absent, absent, absent)},
					exchange{in: h(20, 30, 2, 5, 1, 4), want: d2c.AddedAligned, out: h(10, 30, 2, 5, 1, 4)},
				)
				play(t, d2c.DefaultConfig(),
					exchange{in: h(10, 20, 0, 0, 0, 0), want: d2c.AddedFirst, out: h(10, 20, 0, 0, 0, 0)},
					exchange{in: h(20, 30, 0, absent, absent, absent), want: d2c.AddedAligned, out: h(10, 30, 0, 0, 0, 0)},
					exchange{in: h(30, 40, 2, 5, 1, 4), want: d2c.AddedAligned, out: h(10, 40, 2, 5, 1, 4)},
				)
			})
			t.Run("starts over with a restart", func(t *testing.T) {
				cfg := d2c.DefaultConfig()
				gapRestart(&cfg)
				play(t, cfg,
					exchange{in: h(10, 20, 2, absent, absent, absent), want: d2c.AddedFirst, out: h(10, 20, 2, absent, absent, absent)},
					exchange{in: h(30, 40, 2, 5, 1, 4), want: d2c.RestartedGap, out: h(30, 40, 2, 5, 1, 4)},
				)
			})
		})
	}
}

// TestRowExponential: merging scales and zero thresholds, in numbers small enough to check by hand.
func TestRowExponential(t *testing.T) {
	const s = series("s")
	e := func(start, end float64, scale int32, threshold float64, zeros uint64, pos, neg buckets) point {
		return s.exponential(start, end, expo(scale, threshold, zeros, pos, neg))
	}
	none := buckets{}
	run := func(name string, history ...exchange) {
		t.Run(name, func(t *testing.T) { play(t, d2c.DefaultConfig(), history...) })
	}
	first := e(10, 20, 1, 0, 1, buckets{-3, []uint64{1, 2, 3, 4}}, buckets{0, []uint64{5}})
	run("the same scale",
		exchange{in: first, want: d2c.AddedFirst, out: first},
		exchange{in: e(20, 30, 1, 0, 2, buckets{0, []uint64{1, 1}}, buckets{-1, []uint64{1}}), want: d2c.AddedAligned,
			out: e(10, 30, 1, 0, 3, buckets{-3, []uint64{1, 2, 3, 5, 1}}, buckets{-1, []uint64{1, 5}})},
	)
	run("a coarser delta",
		exchange{in: first, want: d2c.AddedFirst, out: first},
		// -3 -> -2; -2, -1 -> -1; 0 -> 0
		exchange{in: e(20, 30, 0, 0, 0, buckets{0, []uint64{1}}, none), want: d2c.AddedAligned,
			out: e(10, 30, 0, 0, 1, buckets{-2, []uint64{1, 5, 5}}, buckets{0, []uint64{5}})},
	)
	run("a finer delta",
		exchange{in: e(10, 20, -1, 0, 0, buckets{-1, []uint64{1, 1}}, none), want: d2c.AddedFirst,
			out: e(10, 20, -1, 0, 0, buckets{-1, []uint64{1, 1}}, none)},
		exchange{in: e(20, 30, 1, 0, 0, buckets{-4, []uint64{1, 0, 0, 1, 2, 0, 0, 4, 8}}, none), want: d2c.AddedAligned,
			out: e(10, 30, -1, 0, 0, buckets{-1, []uint64{3, 7, 8}}, none)},
	)
	run("a threshold swallows the buckets below it",
		exchange{in: e(10, 20, 0, 0, 1, buckets{-3, []uint64{1, 2, 4}}, buckets{-2, []uint64{8, 16}}), want: d2c.AddedFirst,
			out: e(10, 20, 0, 0, 1, buckets{-3, []uint64{1, 2, 4}}, buckets{-2, []uint64{8, 16}})},
		// (1/8, 1/4] and (1/4, 1/2] are within 1/2
		exchange{in: e(20, 30, 0, 0.5, 0, none, none), want: d2c.AddedAligned,
			out: e(10, 30, 0, 0.5, 12, buckets{-1, []uint64{4}}, buckets{-1, []uint64{16}})},
	)
	run("a threshold inside a bucket rises to its end",
		exchange{in: e(10, 20, 0, 0, 1, buckets{-2, []uint64{2, 4}}, none), want: d2c.AddedFirst,
			out: e(10, 20, 0, 0, 1, buckets{-2, []uint64{2, 4}}, none)},
		exchange{in: e(20, 30, 0, 0.3, 0, none, none), want: d2c.AddedAligned,
			out: e(10, 30, 0, 0.5, 3, buckets{-1, []uint64{4}}, none)},
	)
	run("a threshold inside an empty bucket stays",
		exchange{in: e(10, 20, 0, 0, 1, buckets{-3, []uint64{1, 0, 4}}, none), want: d2c.AddedFirst,
			out: e(10, 20, 0, 0, 1, buckets{-3, []uint64{1, 0, 4}}, none)},
		exchange{in: e(20, 30, 0, 0.3, 0, none, none), want: d2c.AddedAligned,
			out: e(10, 30, 0, 0.3, 2, buckets{-1, []uint64{4}}, none)},
	)
	run("the first delta is normalised",
		exchange{in: e(10, 20, 0, 0.3, 1, buckets{-3, []uint64{1, 2, 4}}, none), want: d2c.AddedFirst,
			out: e(10, 20, 0, 0.5, 4, buckets{-1, []uint64{4}}, none)},
	)
	run("160 buckets fit",
		exchange{in: e(10, 20, 5, 0, 0, buckets{1, []uint64{1}}, none), want: d2c.AddedFirst,
			out: e(10, 20, 5, 0, 0, buckets{1, []uint64{1}}, none)},
		exchange{in: e(20, 30, 5, 0, 0, buckets{160, []uint64{1}}, none), want: d2c.AddedAligned,
			out: e(10, 30, 5, 0, 0, buckets{1, append(make([]uint64, 159), 1)}.with(0, 1), none)},
	)
	run("161 buckets do not",
		exchange{in: e(10, 20, 5, 0, 0, buckets{0, []uint64{1}}, none), want: d2c.AddedFirst,
			out: e(10, 20, 5, 0, 0, buckets{0, []uint64{1}}, none)},
		exchange{in: e(20, 30, 5, 0, 0, buckets{160, []uint64{1}}, none), want: d2c.AddedAligned,
			out: e(10, 30, 4, 0, 0, buckets{0, append(make([]uint64, 80), 1)}.with(0, 1), none)},
	)
	run("the negative range counts for itself",
		exchange{in: e(10, 20, 5, 0, 0, buckets{-100, []uint64{1}}, buckets{100, []uint64{1}}), want: d2c.AddedFirst,
			out: e(10, 20, 5, 0, 0, buckets{-100, []uint64{1}}, buckets{100, []uint64{1}})},
		exchange{in: e(20, 30, 5, 0, 0, none, buckets{-61, []uint64{1}}), want: d2c.AddedAligned,
			out: e(10, 30, 4, 0, 0, buckets{-50, []uint64{1}}, buckets{-31, append(make([]uint64, 81), 1)}.with(0, 1))},
	)
	run("swallowed buckets make room",
		exchange{in: e(10, 20, 0, 0, 0, buckets{-200, []uint64{1}}, none), want: d2c.AddedFirst,
			out: e(10, 20, 0, 0, 0, buckets{-200, []uint64{1}}, none)},
		exchange{in: e(20, 30, 0, 0x1p-100, 0, buckets{0, []uint64{1}}, none), want: d2c.AddedAligned,
			out: e(10, 30, 0, 0x1p-100, 1, buckets{0, []uint64{1}}, none)},
	)
	// From the smallest subnormal to the largest finite value there are 2098 powers of two: scale -4 holds them in 132.
	run("the whole range of a float64",
		exchange{in: e(10, 20, 20, 0, 0, buckets{-1075 << 20, []uint64{1}}, none), want: d2c.AddedFirst,
			out: e(10, 20, 20, 0, 0, buckets{-1075 << 20, []uint64{1}}, none)},
		exchange{in: e(20, 30, 20, 0, 0, buckets{1024<<20 - 1, []uint64{1}}, none), want: d2c.AddedAligned,
			out: e(10, 30, -4, 0, 0, buckets{-68, append(make([]uint64, 131), 1)}.with(0, 1), none)},
	)
}

// with returns the buckets with one count changed.
func (b buckets) with(i int, n uint64) buckets {
	b.counts[i] = n
	return b
}

// TestRowBatchOrder: points of one stream within a batch are taken in the order of their times, and stay in their places.
func TestRowBatchOrder(t *testing.T) {
	for _, shape := range shapes {
		t.Run(shape.name, func(t *testing.T) {
			conv := newConverter(t, d2c.DefaultConfig())
			md := batch(shape.point(30, 40, 4), shape.point(10, 20, 2), shape.point(0, 0, 9),
				shape.point(20, 30, 3), shape.point(10, 20, 2))
			result := convert(conv, md)
			want := cumulative(shape.point(10, 40, 9), shape.point(10, 20, 2),
				shape.point(10, 30, 5)) // the repeat is answered by the first one
			if !sameMetrics(md, want) {
				t.Errorf("\n got %v\nwant %v", lines(md), lines(want))
			}
			var wantResult d2c.Result
			wantResult.Note(d2c.AddedFirst, 1)
			wantResult.Note(d2c.AddedAligned, 2)
			wantResult.Note(d2c.Repeated, 1)
			wantResult.Note(d2c.DroppedTime, 1)
			if result.Points() != wantResult {
				t.Errorf("\n got %s\nwant %s", describeResult(result), describeResult(wantResult))
			}
		})
	}
}

// TestRowBatchTies: of points with one time the first in the batch counts, however many there are.
func TestRowBatchTies(t *testing.T) {
	for _, shape := range shapes {
		t.Run(shape.name, func(t *testing.T) {
			var ins, outs []point
			for i := range 100 {
				end := float64(20 + 10*(i%2)) // 20 and 30 in turns
				ins = append(ins, shape.point(end-10, end, 1+i))
				if i < 2 { // which the repeats have for an answer
					outs = append(outs, shape.point(10, end, []int{1, 3}[i]))
				}
			}
			md := batch(ins...)
			convert(newConverter(t, d2c.DefaultConfig()), md)
			if want := cumulative(outs...); !sameMetrics(md, want) {
				t.Errorf("\n got %v\nwant %v", lines(md), lines(want))
			}
		})
	}
}

// TestRowBatchMarker: a marker ahead of the first point of its stream, in one batch, is passed on as it came, whatever
// stream the Converter was at before.
func TestRowBatchMarker(t *testing.T) {
	for _, shape := range shapes {
		for _, before := range shapes {
			t.Run(shape.name+" after "+before.name, func(t *testing.T) {
				conv := newConverter(t, d2c.DefaultConfig())
				other := pmetric.NewMetrics()
				before.point(10, 20, 5)(other)
				forEachMetric(other, func(_ pmetric.ResourceMetrics, _ pmetric.ScopeMetrics, m pmetric.Metric) { m.SetName("other") })
				convert(conv, other)
				md := batch(shape.point(40, 50, 7), shape.point(20, 30, marker), shape.point(50, 60, 1))
				result := convert(conv, md)
				want := cumulative(shape.point(40, 50, 7), shape.point(20, 30, marker), shape.point(40, 60, 8))
				if !sameMetrics(md, want) {
					t.Errorf("\n got %v %s\nwant %v", lines(md), describeResult(result), lines(want))
				}
			})
		}
	}
}

// TestRowSameMillisecond: two values never share a millisecond, even where intervals are shorter than that.
func TestRowSameMillisecond(t *testing.T) {
	at := func(microseconds int) pcommon.Timestamp { return sec(20) + pcommon.Timestamp(1000*microseconds) }
	conv := newConverter(t, d2c.DefaultConfig())
	for i, x := range []struct{ start, end, emitted int }{
		{0, 300, 300},
		{300, 900, 1300},   // the millisecond is taken
		{900, 1200, 2300},  // and so is the next
		{1200, 2999, 3300}, // and the one after that
		{2999, 4001, 4001}, // this one is free, though not a whole millisecond later
		{4001, 6000, 6000},
	} {
		md := batch(series("s").int(0, 0, 1))
		lastPoint(md).SetStartTimestamp(at(x.start))
		lastPoint(md).SetTimestamp(at(x.end))
		convert(conv, md)
		if got := lastPoint(md); onlyInt(md) != int64(i+1) || got.Timestamp() != at(x.emitted) || got.StartTimestamp() != at(0) {
			t.Errorf("(%d µs, %d µs]: got %v, want %d at %d", x.start, x.end, lines(md), i+1, at(x.emitted))
		}
	}
}

// TestRowRestartVisible: a restart has a start of its own even where the stream has given out nothing after its start.
func TestRowRestartVisible(t *testing.T) {
	const s = series("s")
	conv := newConverter(t, d2c.DefaultConfig())
	first := batch(s.int(0, 20, math.MaxInt64))
	convert(conv, first)
	second := batch(s.int(20, 30, 1))
	result := convert(conv, second)
	if result.Count(d2c.RestartedOverflow) != 1 {
		t.Fatalf("got %s, want a restart", describeResult(result))
	}
	before, after := lastPoint(first).StartTimestamp(), lastPoint(second).StartTimestamp()
	if after <= before || after >= sec(30) {
		t.Errorf("the start was %d and is %d after the restart at 30 s", before, after)
	}
}

// TestRowPassed: what is not delta is not touched.
func TestRowPassed(t *testing.T) {
	md := pmetric.NewMetrics()
	series("gauge").metric(md).SetEmptyGauge().DataPoints().AppendEmpty().SetDoubleValue(math.NaN())
	series("summary").metric(md).SetEmptySummary().DataPoints().AppendEmpty().SetCount(3)
	series("nothing").metric(md)
	for _, temporality := range []pmetric.AggregationTemporality{
		pmetric.AggregationTemporalityCumulative, pmetric.AggregationTemporalityUnspecified,
	} {
		sum := series("sum").metric(md).SetEmptySum()
		sum.SetAggregationTemporality(temporality)
		sum.DataPoints().AppendEmpty().SetIntValue(-1)
		h := series("histogram").metric(md).SetEmptyHistogram()
		h.SetAggregationTemporality(temporality)
		h.DataPoints().AppendEmpty().BucketCounts().FromRaw([]uint64{1, 2, 3})
		e := series("exponential").metric(md).SetEmptyExponentialHistogram()
		e.SetAggregationTemporality(temporality)
		e.DataPoints().AppendEmpty().SetScale(99)
	}
	md.ResourceMetrics().AppendEmpty()
	md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty()
	before := marshal(md)
	conv := newConverter(t, d2c.DefaultConfig())
	result := convert(conv, md)
	if string(marshal(md)) != string(before) {
		t.Errorf("changed: %v", lines(md))
	}
	var want d2c.Result
	want.Note(d2c.Passed, 8)
	if result.Points() != want {
		t.Errorf("got %s, want %s", describeResult(result), describeResult(want))
	}
	if n := conv.Len(); n != 0 {
		t.Errorf("%d streams, want none", n)
	}
}

// TestRowRemoval: metrics, scopes and resources that lost all their points go, others stay.
func TestRowRemoval(t *testing.T) {
	md := pmetric.NewMetrics()
	for r := range 3 {
		rm := md.ResourceMetrics().AppendEmpty()
		rm.Resource().Attributes().PutInt("r", int64(r))
		for sc := range 2 {
			sm := rm.ScopeMetrics().AppendEmpty()
			sm.Scope().SetName(fmt.Sprint(sc))
			for name := range 2 {
				sum := sm.Metrics().AppendEmpty()
				sum.SetName(fmt.Sprint(name))
				sum.SetEmptySum().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
				for a := range 2 {
					dp := sum.Sum().DataPoints().AppendEmpty()
					dp.Attributes().PutInt("a", int64(a))
					dp.SetIntValue(1)
					// Resource 0 keeps all but one point, 1 keeps one scope, 2 goes.
					if (r == 0 && sc+name+a > 0) || (r == 1 && sc == 1 && name == 0) {
						dp.SetTimestamp(sec(10))
					}
				}
			}
		}
	}
	result := convert(newConverter(t, d2c.DefaultConfig()), md)
	if got := result.Dropped(); got != 1+6+8 {
		t.Errorf("%d dropped, want 15", got)
	}
	var got string
	for _, rm := range md.ResourceMetrics().All() {
		got += "["
		for _, sm := range rm.ScopeMetrics().All() {
			got += "("
			for _, m := range sm.Metrics().All() {
				got += fmt.Sprint(m.Sum().DataPoints().Len())
			}
			got += ")"
		}
		got += "]"
	}
	if want := "[(12)(22)][(2)]"; got != want {
		t.Errorf("points left by metric: %s, want %s", got, want)
	}
}

// TestRowPassThrough: what a point carries besides its value stays with it.
func TestRowPassThrough(t *testing.T) {
	decorate := func(dp pmetric.NumberDataPoint) {
		dp.Attributes().PutStr("host", "a")
		dp.SetFlags(1 << 5)
		x := dp.Exemplars().AppendEmpty()
		x.SetIntValue(42)
		x.SetTimestamp(sec(17))
		x.FilteredAttributes().PutStr("user", "u")
	}
	number := func(start, end float64, v int64) point {
		return series("s").sum(true, start, end, all(decorate, func(dp pmetric.NumberDataPoint) { dp.SetIntValue(v) }))
	}
	plain := series("s").sum(true, 30, 40, func(dp pmetric.NumberDataPoint) {
		dp.Attributes().PutStr("host", "a")
		dp.SetIntValue(1)
	})
	plainTotal := series("s").sum(true, 10, 40, func(dp pmetric.NumberDataPoint) {
		dp.Attributes().PutStr("host", "a")
		dp.SetIntValue(13)
	})
	play(t, d2c.DefaultConfig(),
		exchange{in: number(10, 20, 5), want: d2c.AddedFirst, out: number(10, 20, 5)},
		exchange{in: number(20, 30, 7), want: d2c.AddedAligned, out: number(10, 30, 12)},
		exchange{in: number(20, 30, 7), want: d2c.Repeated, out: number(10, 30, 12)},
		exchange{in: plain, want: d2c.AddedAligned, out: plainTotal},
	)
}

// TestRowLimit: a full table refuses new streams, whole, and never evicts.
func TestRowLimit(t *testing.T) {
	cfg := d2c.DefaultConfig()
	cfg.MaxStreams = 2
	conv := play(t, cfg,
		exchange{in: series("a").int(10, 20, 1), want: d2c.AddedFirst, out: series("a").int(10, 20, 1)},
		exchange{in: series("b").int(10, 20, 1), want: d2c.AddedFirst, out: series("b").int(10, 20, 1)},
		exchange{in: series("c").int(10, 20, 1), want: d2c.DroppedLimit},
		exchange{in: series("a").int(20, 30, 1), want: d2c.AddedAligned, out: series("a").int(10, 30, 2)},
		exchange{in: series("c").int(20, 30, 1), want: d2c.DroppedLimit},
		exchange{in: series("c").int(20, 30, -1), want: d2c.DroppedNegative},
		exchange{in: shapes[0].point(10, 20, marker), want: d2c.Forwarded, out: shapes[0].point(10, 20, marker)},
		exchange{in: series("b").int(20, 30, 1), want: d2c.AddedAligned, out: series("b").int(10, 30, 2)},
	)
	if n := conv.Len(); n != 2 {
		t.Errorf("%d streams, want 2", n)
	}
	t.Run("many new streams at once", func(t *testing.T) {
		const streams, limit = 100, 30
		cfg.MaxStreams = limit
		conv := newConverter(t, cfg)
		var points []point
		for i := range streams {
			for p := range 3 {
				points = append(points, series(fmt.Sprint(i)).int(float64(10+p), float64(11+p), 1))
			}
		}
		md := batch(points...)
		result := convert(conv, md)
		var want d2c.Result
		want.Note(d2c.AddedFirst, limit)
		want.Note(d2c.AddedAligned, 2*limit)
		want.Note(d2c.DroppedLimit, 3*(streams-limit))
		if result.Points() != want || conv.Len() != limit {
			t.Errorf("got %s, %d streams; want %s, %d streams", describeResult(result), conv.Len(), describeResult(want), limit)
		}
		whole := map[string]int{}
		for _, l := range lines(md) {
			whole[l.key]++
		}
		for key, n := range whole {
			if n != 3 {
				t.Errorf("%s: %d points came through, want all 3 or none", key, n)
			}
		}
	})
}

// TestRowExpire: a stream without an accepted point for longer than MaxStale is forgotten, and then first again.
func TestRowExpire(t *testing.T) {
	clock := time.Unix(1000, 0)
	cfg := d2c.DefaultConfig()
	cfg.MaxStale = 90 * time.Second
	cfg.Now = func() time.Time { return clock }
	conv := newConverter(t, cfg)
	send := func(name string, x exchange) {
		t.Helper()
		exchangeOne(t, conv, name, x)
	}
	expire := func(want int) {
		t.Helper()
		if got := conv.Expire(); got != want {
			t.Errorf("at %d: Expire() = %d, want %d", clock.Unix(), got, want)
		}
	}
	s := series("s")
	send("first", exchange{in: s.int(10, 20, 5), want: d2c.AddedFirst, out: s.int(10, 20, 5)})
	clock = clock.Add(90 * time.Second)
	expire(0)
	send("a repeat keeps it", exchange{in: s.int(10, 20, 5), want: d2c.Repeated, out: s.int(10, 20, 5)})
	clock = clock.Add(90 * time.Second)
	expire(0)
	send("a dropped point does not", exchange{in: s.int(5, 30, 5), want: d2c.DroppedOlderStart})
	send("nor does a marker", exchange{
		in:   s.sum(true, 0, 30, func(dp pmetric.NumberDataPoint) { dp.SetFlags(noRecordedValue) }),
		want: d2c.Forwarded,
		out:  s.sum(true, 10, 30, func(dp pmetric.NumberDataPoint) { dp.SetFlags(noRecordedValue) }),
	})
	clock = clock.Add(time.Second)
	expire(1)
	if conv.Len() != 0 {
		t.Errorf("%d streams left", conv.Len())
	}
	send("first again", exchange{in: s.int(20, 40, 5), want: d2c.AddedFirst, out: s.int(20, 40, 5)})
	clock = clock.Add(-500 * time.Second)
	expire(0) // a clock set back expires nothing

	cfg.MaxStale = 0
	conv = newConverter(t, cfg)
	send("first", exchange{in: s.int(10, 20, 5), want: d2c.AddedFirst, out: s.int(10, 20, 5)})
	clock = clock.Add(1e6 * time.Second)
	expire(0)
}

// onlyOutcome returns the outcome of the only point.
func onlyOutcome(r d2c.Result) d2c.Outcome {
	for o, n := range r.Counts() {
		if n == 1 {
			return o
		}
	}
	return d2c.NumOutcomes
}
