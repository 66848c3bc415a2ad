// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
)

// Each life begins with a zero: where, is here; that all modes agree with the oracle, in the histories.
func TestZeros(t *testing.T) {
	type sent struct {
		in, out []point
	}
	s := series("s")
	began := time.Unix(1000, 0)
	bounds := hist([]float64{1, 2}, 0, 0, 0)
	soon := s.sum(true, 1020, 1020, func(dp pmetric.NumberDataPoint) {
		dp.SetTimestamp(dp.Timestamp() + 4e5)
		dp.SetIntValue(6)
	})
	for _, c := range []struct {
		name string
		cfg  d2c.Config
		sent []sent

		floor bool
	}{
		{"at the start", d2c.Config{}, []sent{
			{[]point{s.int(1010, 1020, 5)}, []point{s.int(1010, 1010, 0), s.int(1010, 1020, 5)}},
			{[]point{s.int(1020, 1030, 5)}, []point{s.int(1010, 1030, 10)}},
		}, false},
		{"not of a delta that comes again: the sample may have arrived, and nothing is to follow it that is older", d2c.Config{}, []sent{
			{[]point{s.int(1010, 1020, 5)}, []point{s.int(1010, 1010, 0), s.int(1010, 1020, 5)}},
			{[]point{s.int(1010, 1020, 5), s.int(1010, 1020, 5)}, []point{s.int(1010, 1020, 5)}},
			{[]point{s.int(1010, 1020, 6)}, []point{s.int(1010, 1020, 5)}}, // covered
			{[]point{s.int(1010, 1030, 5)}, []point{s.int(1010, 1030, 10)}},
			{[]point{s.int(1010, 1030, 5)}, []point{s.int(1010, 1030, 10)}},
		}, false},
		{"of a double", d2c.Config{}, []sent{
			{[]point{s.double(1010, 1020, 5)}, []point{s.double(1010, 1010, 0), s.double(1010, 1020, 5)}},
		}, false},
		{"not of what may fall", d2c.Config{}, []sent{
			{[]point{s.updown(1010, 1020, 5)}, []point{s.updown(1010, 1020, 5)}},
			{[]point{s.updown(0, 1020, 5)}, []point{s.updown(1010, 1020, 5)}},
		}, false},
		{"of an unknown start", d2c.Config{}, []sent{
			{[]point{s.int(0, 1020, 5)}, []point{s.int(1019.999, 1019.999, 0), s.int(1019.999, 1020, 5)}},
			{[]point{s.int(0, 1020, 5)}, []point{s.int(1019.999, 1020, 5)}},
			{[]point{s.int(1020, 1030, 5)}, []point{s.int(1019.999, 1030, 10)}},
			{[]point{s.int(0, 1020, 5)}, nil},
		}, false},
		{"five minutes before the first sample", d2c.Config{}, []sent{
			{[]point{s.int(1010, 1310, 5)}, []point{s.int(1010, 1010, 0), s.int(1010, 1310, 5)}},
		}, false},
		{"of a start before that: a backend may not take what is so old", d2c.Config{}, []sent{
			{[]point{s.int(1010, 1310.001, 5)}, []point{s.int(1010, 1310, 0), s.int(1010, 1310.001, 5)}},
		}, false},
		{"of a restart by a delta of hours", d2c.Config{Gap: d2c.GapRestart}, []sent{
			{[]point{s.int(1010, 1020, 5)}, []point{s.int(1010, 1010, 0), s.int(1010, 1020, 5)}},
			{[]point{s.int(1025, 9000, 6)}, []point{s.int(1025, 8999.999, 0), s.int(1025, 9000, 6)}},
		}, false},
		{"of a start before the process began", d2c.Config{}, []sent{
			{[]point{s.int(990, 1020, 5)}, []point{s.int(1019.999, 1019.999, 0), s.int(1019.999, 1020, 5)}},
		}, false},
		{"of a start that is the moment at which it began", d2c.Config{}, []sent{
			{[]point{s.int(1000, 1020, 5)}, []point{s.int(1000, 1019.999, 0), s.int(1000, 1020, 5)}},
			{[]point{s.int(1000, 1020, 5)}, []point{s.int(1000, 1020, 5)}},
		}, true},
		{"no room", d2c.Config{}, []sent{
			{[]point{s.int(1000, 1000.001, 5)}, []point{s.int(1000, 1000.001, 5)}},
			{[]point{s.int(1000, 1000.001, 5)}, []point{s.int(1000, 1000.001, 5)}},
		}, true},
		{"after a marker", d2c.Config{}, []sent{
			{[]point{shapes[0].point(1010, 1015, marker), s.int(1010, 1020, 5)},
				[]point{shapes[0].point(1010, 1015, marker), s.int(1010, 1019.999, 0), s.int(1010, 1020, 5)}},
		}, false},
		{"one for the first and what takes its place", d2c.Config{}, []sent{
			{[]point{s.int(1010, 1020, 5), soon}, []point{s.int(1010, 1010, 0), s.sum(true, 1010, 1020, func(dp pmetric.NumberDataPoint) {
				dp.SetTimestamp(dp.Timestamp() + 4e5)
				dp.SetIntValue(11)
			})}},
		}, false},
		{"of a restart", d2c.Config{Gap: d2c.GapRestart}, []sent{
			{[]point{s.int(1010, 1020, 5)}, []point{s.int(1010, 1010, 0), s.int(1010, 1020, 5)}},
			{[]point{s.int(1025, 1030, 6)}, []point{s.int(1025, 1025, 0), s.int(1025, 1030, 6)}},
			{[]point{s.int(1025, 1030, 6)}, []point{s.int(1025, 1030, 6)}},
			{[]point{s.int(1010, 1020, 5)}, nil},
		}, false},
		{"of a histogram, and where its layout changes", d2c.Config{}, []sent{
			{[]point{s.histogram(1010, 1020, hist([]float64{1, 2}, 1, 2, 3))},
				[]point{s.histogram(1010, 1010, bounds), s.histogram(1010, 1020, hist([]float64{1, 2}, 1, 2, 3))}},
			{[]point{s.histogram(1020, 1030, hist([]float64{1}, 1, 2))},
				[]point{s.histogram(1020, 1029.999, hist([]float64{1}, 0, 0)), s.histogram(1020, 1030, hist([]float64{1}, 1, 2))}},
			{[]point{s.histogram(1020, 1030, hist([]float64{1}, 1, 2))}, []point{s.histogram(1020, 1030, hist([]float64{1}, 1, 2))}},
		}, false},
		{"with a sum of zero, and without min and max", d2c.Config{}, []sent{
			{[]point{s.histogram(1010, 1020, all(hist([]float64{1, 2}, 1, 2, 3), func(dp pmetric.HistogramDataPoint) {
				dp.SetSum(7)
				dp.SetMin(1)
				dp.SetMax(3)
			}))}, []point{
				s.histogram(1010, 1010, all(bounds, func(dp pmetric.HistogramDataPoint) { dp.SetSum(0) })),
				s.histogram(1010, 1020, all(hist([]float64{1, 2}, 1, 2, 3), func(dp pmetric.HistogramDataPoint) {
					dp.SetSum(7)
					dp.SetMin(1)
					dp.SetMax(3)
				})),
			}},
		}, false},
		{"of an exponential histogram", d2c.Config{}, []sent{
			{[]point{s.exponential(1010, 1020, expo(3, 0.5, 1, buckets{2, []uint64{4}}, buckets{}))}, []point{
				s.exponential(1010, 1010, expo(3, 0.5, 0, buckets{}, buckets{})),
				s.exponential(1010, 1020, expo(3, 0.5, 1, buckets{2, []uint64{4}}, buckets{})),
			}},
		}, false},
		{"many writers", d2c.Config{Writers: d2c.WritersMany, LateWindow: time.Minute, Overlap: d2c.OverlapAdd}, []sent{
			{[]point{s.int(1010, 1020, 5)}, []point{s.int(1010, 1010, 0), s.int(1010, 1020, 5)}},
			{[]point{s.int(1010, 1020, 5)}, []point{s.int(1010, 1020, 5)}},
			{[]point{s.int(1010, 1020, 6)}, []point{s.int(1010, 1020.001, 11)}},
			{[]point{s.int(1010, 1020, 6)}, []point{s.int(1010, 1020.001, 11)}},
		}, false},
		{"of points without a time", d2c.Config{MissingTime: d2c.MissingTimeArrival}, []sent{
			{[]point{s.int(0, 0, 5)}, []point{s.int(999.999, 999.999, 0), s.int(999.999, 1000, 5)}},
			{[]point{s.int(0, 0, 5)}, []point{s.int(999.999, 1000.001, 10)}},
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.cfg.EmitZero = true
			c.cfg.Now = func() time.Time { return began }
			for mode, conv := range converters(t, c.cfg) {
				if mode == "shared" && c.floor {
					continue // its store is as new: what comes from before now and a second may be of before
				}
				for i, x := range c.sent {
					got, want := batch(x.in...), cumulative(x.out...)
					r, err := conv.Convert(context.Background(), got)
					if err != nil {
						t.Fatal(err)
					}
					if fmt.Sprint(lines(got)) != fmt.Sprint(lines(want)) {
						t.Errorf("%s, batch %d:\n got %v\nwant %v", mode, i, lines(got), lines(want))
					}
					if extra := len(x.out) - len(x.in); extra > 0 && r.Zeros != uint64(extra) {
						t.Errorf("%s, batch %d: %d zeros told of, want %d", mode, i, r.Zeros, extra)
					}
				}
			}
		})
	}
}

// A delta that comes again after a crash brings no zero: the first sample may be at the backend.
func TestZeroAfterCrash(t *testing.T) {
	storage := newMemory()
	cfg := d2c.Config{EmitZero: true, LateWindow: time.Minute}
	s := series("s")
	one, none := hist([]float64{1}, 1, 0), hist([]float64{1}, 0, 0)
	other, noneOther := hist([]float64{2}, 1, 0), hist([]float64{2}, 0, 0)
	for i, x := range []struct {
		in  point
		out []point
	}{
		{s.histogram(10, 20, one), []point{s.histogram(10, 10, none), s.histogram(10, 20, one)}},
		{s.histogram(10, 20, one), []point{s.histogram(10, 20, one)}},
		{s.histogram(20, 30, other), []point{s.histogram(20, 29.999, noneOther), s.histogram(20, 30, other)}},
		{s.histogram(20, 30, other), []point{s.histogram(20, 30, other)}},
	} {
		conv, _ := openTest(t, cfg, storage)
		got := batch(x.in)
		if _, err := conv.Convert(context.Background(), got); err != nil {
			t.Fatal(err)
		}
		if want := cumulative(x.out...); fmt.Sprint(lines(got)) != fmt.Sprint(lines(want)) {
			t.Errorf("process %d:\n got %v\nwant %v", i, lines(got), lines(want))
		}
		closeTest(t, conv)
	}
}

// Of lives that nobody sees, because their samples are left out of a batch that would turn into too much, nobody sees zeros.
func TestZerosAreInProportion(t *testing.T) {
	for name, conv := range converters(t, d2c.Config{EmitZero: true}) {
		ctx := context.Background()
		if _, err := conv.Convert(ctx, wide(10, 11, 4096)); err != nil {
			t.Fatal(err)
		}
		md := pmetric.NewMetrics()
		const small, lives = 100, 8
		for i := range small + lives {
			next := wide(int64(11+i), int64(12+i), 4096-i%2)
			dp := next.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Histogram().DataPoints().At(0)
			if i < small { // counts nothing, and would be answered with all buckets
				dp.ExplicitBounds().FromRaw(nil)
				dp.BucketCounts().FromRaw(nil)
				dp.SetCount(0)
			}
			next.ResourceMetrics().MoveAndAppendTo(md.ResourceMetrics())
		}
		in := size(md)
		r, err := conv.Convert(ctx, md)
		if err != nil || r.Count(d2c.RestartedLayout) < lives-1 {
			t.Fatal(name, err, describeResult(r))
		}
		if r.Zeros != 1 {
			t.Errorf("%s: %d zeros, want that of the last of %d lives", name, r.Zeros, lives)
		}
		if out := size(md); out > 10*in {
			t.Errorf("%s: %d bytes became %d", name, in, out)
		}
	}
}
