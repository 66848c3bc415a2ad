// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"context"
	"fmt"
	"math"
	"sync/atomic"
	"testing"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
)

func (s series) summary(start, end float64, set func(pmetric.SummaryDataPoint)) point {
	return func(md pmetric.Metrics) {
		dp := s.metric(md).SetEmptySummary().DataPoints().AppendEmpty()
		dp.SetStartTimestamp(sec(start))
		dp.SetTimestamp(sec(end))
		set(dp)
	}
}

// digestOf sets a summary's count and sum, and quantiles 0, 1 and so on.
func digestOf(count uint64, sum float64, values ...float64) func(pmetric.SummaryDataPoint) {
	return func(dp pmetric.SummaryDataPoint) {
		dp.SetCount(count)
		dp.SetSum(sum)
		for i, v := range values {
			q := dp.QuantileValues().AppendEmpty()
			q.SetQuantile(float64(i))
			q.SetValue(v)
		}
	}
}

var summaryShape = shape{"summary", func(start, end float64, n int) point {
	return series("s").summary(start, end, func(dp pmetric.SummaryDataPoint) {
		if n == marker {
			dp.SetFlags(noRecordedValue)
		} else {
			digestOf(uint64(n), 1.5*float64(n))(dp)
		}
	})
}}

// The table holds for summaries, too.
func TestSummaryRows(t *testing.T) {
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			cfg := d2c.DefaultConfig()
			cfg.Summaries = []string{"s"}
			if row.with != nil {
				row.with(&cfg)
			}
			play(t, cfg, exchanges(summaryShape, row.steps)...)
		})
	}
}

// Quantiles of what is added pass. A sample that is given out once more has those that it had, which are known of a repeat only.
func TestSummaryQuantiles(t *testing.T) {
	cfg := d2c.DefaultConfig()
	cfg.Summaries = []string{"*"}
	const s = series("s")
	play(t, cfg,
		exchange{in: s.summary(10, 20, digestOf(2, 3, 1, 2)), want: d2c.AddedFirst, out: s.summary(10, 20, digestOf(2, 3, 1, 2))},
		exchange{in: s.summary(20, 30, digestOf(1, 5, 5, math.NaN())), want: d2c.AddedAligned, out: s.summary(10, 30, digestOf(3, 8, 5, math.NaN()))},
		exchange{in: s.summary(20, 30, digestOf(1, 5, 5, math.NaN())), want: d2c.Repeat, out: s.summary(10, 30, digestOf(3, 8, 5, math.NaN()))},
		exchange{in: s.summary(20, 30, digestOf(1, 5, 5, 6)), want: d2c.Covered, out: s.summary(10, 30, digestOf(3, 8))},
		exchange{in: s.summary(10, 20, digestOf(2, 3, 1, 2)), want: d2c.Covered, out: s.summary(10, 30, digestOf(3, 8))},
		exchange{in: s.summary(20, 30, digestOf(1, 5, 5, math.NaN())), want: d2c.Repeat, out: s.summary(10, 30, digestOf(3, 8, 5, math.NaN()))},
	)
	cfg.Writers = d2c.WritersMany
	play(t, cfg,
		exchange{in: s.summary(10, 20, digestOf(2, 3, 1, 2)), want: d2c.AddedFirst, out: s.summary(10, 20, digestOf(2, 3, 1, 2))},
		exchange{in: s.summary(10, 20, digestOf(2, 3, 1, 3)), want: d2c.AddedUnordered, out: s.summary(10, 20.001, digestOf(4, 6, 1, 3))},
		exchange{in: s.summary(10, 20, digestOf(2, 3, 1, 2)), want: d2c.Repeat, out: s.summary(10, 20.001, digestOf(4, 6))},
		exchange{in: s.summary(10, 20, digestOf(2, 3, 1, 3)), want: d2c.Repeat, out: s.summary(10, 20.001, digestOf(4, 6))},
	)
}

func TestSummaryBad(t *testing.T) {
	cfg := d2c.DefaultConfig()
	cfg.Summaries = []string{"s"}
	const s = series("s")
	play(t, cfg,
		exchange{in: s.summary(10, 20, digestOf(0, math.NaN(), math.NaN())), want: d2c.AddedFirst, out: s.summary(10, 20, digestOf(0, 0, math.NaN()))},
		exchange{in: s.summary(20, 30, digestOf(2, math.NaN())), want: d2c.DroppedNotFinite},
		exchange{in: s.summary(20, 30, digestOf(2, math.Inf(-1))), want: d2c.DroppedNotFinite},
		exchange{in: s.summary(20, 0, digestOf(2, 1)), want: d2c.DroppedTime},
		exchange{in: s.summary(20, 30, digestOf(2, -3)), want: d2c.AddedAligned, out: s.summary(10, 30, digestOf(2, -3))},
		exchange{in: s.summary(30, 40, digestOf(0, 7)), want: d2c.AddedAligned, out: s.summary(10, 40, digestOf(2, -3))},
		exchange{in: s.summary(40, 50, digestOf(math.MaxUint64-1, 1)), want: d2c.RestartedOverflow, out: s.summary(40, 50, digestOf(math.MaxUint64-1, 1))},
		exchange{in: s.summary(50, 60, digestOf(1, 1)), want: d2c.AddedAligned, out: s.summary(40, 60, digestOf(math.MaxUint64, 2))},
	)
}

// A summary says nowhere that it is a delta: somebody else has to.
func TestSummariesAreNamed(t *testing.T) {
	for _, c := range []struct {
		patterns []string
		name     string
		want     bool
	}{
		{nil, "s", false},
		{[]string{"s"}, "s", true},
		{[]string{"s"}, "ss", false},
		{[]string{"ss"}, "s", false},
		{[]string{"a", "s"}, "s", true},
		{[]string{"*"}, "any.thing/at all", true},
		{[]string{"a.*"}, "a.", true},
		{[]string{"a.*"}, "a", false},
		{[]string{"*.b"}, "a.b.b", true},
		{[]string{"*.b"}, "a.b.c", false},
		{[]string{"a*b*c"}, "a1b2b3c", true},
		{[]string{"a*b*c"}, "a1c2b", false},
		{[]string{"a?c"}, "abc", true},
		{[]string{"a?c"}, "ac", false},
		{[]string{"a**"}, "a", true},
		{[]string{"*a*a*a*a*a*a*a*b"}, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false},
	} {
		cfg := d2c.DefaultConfig()
		cfg.Summaries = c.patterns
		md := batch(series(c.name).summary(10, 20, digestOf(1, 1)))
		want := d2c.Passed
		if c.want {
			want = d2c.AddedFirst
		}
		if r := convert(newConverter(t, cfg), md); r.Count(want) != 1 {
			t.Errorf("%q of %q: %s, want %v", c.name, c.patterns, describeResult(r), want)
		}
	}
	cfg := d2c.DefaultConfig()
	cfg.Summaries = []string{"a", ""}
	if _, err := d2c.New(cfg); err == nil || err.Error() != "d2c: Summaries: no metric has an empty name" {
		t.Errorf("got %v", err)
	}
}

// A summary and a histogram of one name, in one resource, with the same attributes, are two streams; and so in every mode.
func TestSummaryIsNoHistogram(t *testing.T) {
	cfg := d2c.DefaultConfig()
	cfg.Summaries = []string{"s"}
	for mode, open := range keepersOf(t, cfg) {
		t.Run(mode, func(t *testing.T) {
			next := open()
			const s = series("s")
			for i := range uint64(4) {
				from := float64(10 + 10*i)
				md := batch(s.summary(from, from+10, digestOf(2, 3, float64(i))), s.histogram(from, from+10, hist(nil, 5)), s.int(from, from+10, 1))
				result := convert(next(), md)
				if added := result.Count(d2c.AddedFirst) + result.Count(d2c.AddedAligned); added != 3 {
					t.Errorf("%s", describeResult(result))
				}
				want := cumulative(s.summary(10, from+10, digestOf(2*(i+1), 3*float64(i+1), float64(i))), s.histogram(10, from+10, hist(nil, 5*(i+1))), s.int(10, from+10, int64(i+1)))
				if fmt.Sprint(lines(md)) != fmt.Sprint(lines(want)) {
					t.Errorf("got  %v\nwant %v", lines(md), lines(want))
				}
			}
		})
	}
}

// While shared state is away summaries go out from what the worker has, and are brought to the store when it is back.
func TestSummaryInAnOutage(t *testing.T) {
	var clock atomic.Int64
	st := new(outableStore)
	const s = series("summary")
	one := openOutable(t, st, &clock, 10)
	expect := func(conv *d2c.Converter, in, want point) {
		t.Helper()
		md := batch(in)
		convert(conv, md)
		if got, want := fmt.Sprint(lines(md)), fmt.Sprint(lines(batch(want))); got != want {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	expect(one, s.summary(10, 20, digestOf(1, 2, 1)), s.summary(10, 20, digestOf(1, 2, 1)))
	st.out.Store(true)
	expect(one, s.summary(20, 30, digestOf(1, 2, 2)), s.summary(10, 30, digestOf(2, 4, 2)))
	expect(one, s.summary(20, 30, digestOf(1, 2, 2)), s.summary(10, 30, digestOf(2, 4, 2)))
	expect(one, s.summary(20, 30, digestOf(1, 2, 3)), s.summary(10, 30, digestOf(2, 4)))
	st.out.Store(false)
	if err := one.Reconcile(context.Background()); err != nil {
		t.Fatal(err)
	}
	if stats := one.Stats(); stats.Outstanding != 0 || stats.Missed != 0 {
		t.Errorf("outstanding %d, missed %d", stats.Outstanding, stats.Missed)
	}
	two := openOutable(t, st, &clock, 10)
	expect(two, s.summary(20, 30, digestOf(1, 2, 2)), s.summary(10, 30, digestOf(2, 4, 2)))
	expect(two, s.summary(30, 40, digestOf(1, 2, 4)), s.summary(10, 40, digestOf(3, 6, 4)))
}
