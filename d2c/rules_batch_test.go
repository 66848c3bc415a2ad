// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
)

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
			wantResult.Note(d2c.Repeat, 1)
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
	want.Unspecified = 3
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
		exchange{in: number(20, 30, 7), want: d2c.Repeat, out: number(10, 30, 12)},
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
		exchange{in: shapes[0].point(10, 20, marker), want: d2c.NoRecordedValue, out: shapes[0].point(10, 20, marker)},
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
	send("a repeat keeps it", exchange{in: s.int(10, 20, 5), want: d2c.Repeat, out: s.int(10, 20, 5)})
	clock = clock.Add(90 * time.Second)
	expire(0)
	send("a dropped point does not", exchange{in: s.int(5, 30, 5), want: d2c.DroppedOlderStart})
	send("nor does a marker", exchange{
		in:   s.sum(true, 0, 30, func(dp pmetric.NumberDataPoint) { dp.SetFlags(noRecordedValue) }),
		want: d2c.NoRecordedValue,
		out:  s.sum(true, 10, 30, func(dp pmetric.NumberDataPoint) { dp.SetFlags(noRecordedValue) }),
	})
	clock = clock.Add(time.Second)
	expire(1)
	if conv.Len() != 0 {
		t.Errorf("%d streams left", conv.Len())
	}
	// Its life before may have begun when this point did: it begins at its end, and nothing from before is added.
	send("first again", exchange{in: s.int(20, 40, 5), want: d2c.AddedFirst, out: s.int(40, 40, 5)})
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
