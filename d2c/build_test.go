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
	repaired       d2c.Repairs
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
	wantResult.NoteRepairs(x.repaired)
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
	return s + fmt.Sprintf("zeros %d, opened %v, filled %v", r.Zeros, r.GapOpened, r.GapFilled)
}
