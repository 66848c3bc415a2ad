// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math"
	"testing"
	"time"
)

// all makes samples of the ends of intervals of a truth that begins at 0; those that are negative are not there.
func all(values ...float64) []sample {
	var samples []sample
	for i, v := range values {
		if v >= 0 {
			samples = append(samples, sample{at(int64(i) + 1), v})
		}
	}
	return samples
}

const none = -1

func TestAccount(t *testing.T) {
	counter := expected{truth: &truth{totals: []int64{10, 20, 30, 40}}, lives: true}
	bucket := expected{truth: &truth{totals: []int64{0, 3, 3, 5}}, lives: true, sparse: true}
	gauge := expected{truth: &truth{totals: []int64{7, 3, 3, 9}}}
	visible := rules{lives: true, unseen: unseenFall}
	killed := visible
	killed.excused = func(end int64) bool { return end == at(2) }
	repeated := visible
	repeated.twice = func(end int64) bool { return end == at(2) }
	zeros := visible
	zeros.zeros = true

	for _, tc := range []struct {
		name     string
		expected expected
		samples  []sample
		rules    rules
		want     account
		missed   missed
	}{
		{"all as it was counted", counter, all(10, 20, 30, 40), rules{}, account{}, missed{first: 10}},
		{"loses a sample", counter, all(10, none, 30, 40), rules{}, account{lost: 1}, missed{first: 10}},
		{"loses the last", counter, all(10, 20, 30, none), rules{}, account{lost: 1, totals: 1}, missed{first: 10}},
		{"is not there", counter, nil, rules{}, account{lost: 4, totals: 1}, missed{}},
		{"counts twice", counter, all(10, 30, 40, 50), rules{}, account{wrong: 3}, missed{first: 10}},
		{"has a time of its own", counter, append(all(10, 20, 30, 40), sample{at(4) + 1, 40}), rules{}, account{wrong: 1}, missed{first: 10}},
		{"is half a delta", counter, all(10, 20, 30.5, 40), rules{}, account{wrong: 1}, missed{first: 10}},
		{"has a sample twice", counter, append(all(10), all(10, 20, 30, 40)...), rules{}, account{}, missed{first: 10}},

		{"begins anew where it must not", counter, all(10, 20, 10, 20), rules{}, account{wrong: 2}, missed{first: 10}},
		{"begins anew", counter, all(10, 20, 10, 20), visible, account{restarts: 1}, missed{first: 10}},
		{"begins anew, unseen", counter, all(10, 10, 20, 30), visible, account{restarts: 1}, missed{first: 10, hidden: 10}},
		{"begins anew twice", counter, all(10, 20, 10, 10), visible, account{restarts: 2}, missed{first: 10, hidden: 10}},
		{"begins anew, counting twice", counter, all(10, 20, 20, 30), visible, account{wrong: 2}, missed{first: 10}},
		{"begins anew, and a delta is lost", counter, all(10, none, 10, 20), visible, account{restarts: 1, lost: 1}, missed{first: 10, hidden: 10, excused: 10}},
		{"begins anew, and a delta has died", counter, all(10, none, 10, 20), killed, account{restarts: 1, excused: 1}, missed{first: 10, hidden: 10, excused: 10}},
		{"a sample has died, its delta has not", counter, all(10, none, 30, 40), killed, account{excused: 1}, missed{first: 10}},

		{"begins anew, counting twice what was not answered", counter, all(10, 20, 20, 30), repeated, account{restarts: 1, twice: 1}, missed{first: 10, hidden: 20, excused: -10}},
		{"begins anew, and both samples are there", counter, []sample{{at(1), 10}, {at(2), 20}, {at(2), 10}, {at(3), 20}, {at(4), 30}}, repeated,
			account{restarts: 1, twice: 1}, missed{first: 10, excused: -10}},
		{"counts twice what was not answered, and does not begin anew", counter, all(10, 30, 40, 50), repeated, account{wrong: 3}, missed{first: 10}},

		{"bucket without what is nothing", bucket, all(none, 3, 3, 5), rules{}, account{}, missed{first: 3}},
		{"bucket that is lost", bucket, all(none, 3, none, 5), rules{}, account{lost: 1}, missed{first: 3}},
		{"bucket that begins anew", bucket, all(none, 3, none, 2), visible, account{restarts: 1}, missed{first: 3, hidden: 0}},

		{"bucket that lost a delta and began anew without", expected{truth: &truth{totals: []int64{3, 5, 5, 5}}, lives: true, sparse: true}, all(3, none, none, none),
			visible, account{lost: 1}, missed{first: 3}},

		{"gauge", gauge, all(7, 3, 3, 9), visible, account{}, missed{first: 7}},
		{"gauge that is late", gauge, all(7, 7, 3, 9), visible, account{wrong: 1}, missed{first: 7}},

		{"zero at the start", counter, append([]sample{{0, 0}}, all(10, 20, 30, 40)...), zeros, account{zeros: 1}, missed{first: 10}},
		{"zero that was counted, after it began anew", bucket, all(0, 3, 0, 2), zeros, account{restarts: 1}, missed{}},
		{"zero at a start that is later", counter, []sample{{at(1), 10}, {at(2), 0}, {at(3), 10}, {at(4), 20}}, zeros, account{zeros: 1, restarts: 1, lost: 1}, missed{first: 10, hidden: 10, excused: 10}},
		{"zero of nobody", counter, append([]sample{{0, 0}}, all(10, 20, 30, 40)...), visible, account{wrong: 1}, missed{first: 10}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got account
			m := got.settle(seriesKey{name: "a"}, tc.expected, tc.samples, tc.rules)
			if got.example == "" != (tc.want.wrong+tc.want.lost == 0) {
				t.Errorf("the example is %q", got.example)
			}
			tc.want.samples, got.example = 4, ""
			if got != tc.want || m != tc.missed {
				t.Errorf("%+v, %+v; want %+v, %+v", got, m, tc.want, tc.missed)
			}
		})
	}
}

func TestBalanceOfWhatNobodySent(t *testing.T) {
	var c account
	c.balance(nil, map[seriesKey][]sample{{name: "b"}: all(1, 2)}, rules{})
	if c.wrong != 2 {
		t.Errorf("%d are wrong", c.wrong)
	}
}

func TestUnseen(t *testing.T) {
	for _, tc := range []struct{ from, to, prometheus, victoria int64 }{
		{10, 9, 0, 9},
		{10, 8, 0, 0},
		{10, 10, 10, 10},
		{10, 12, 10, 10},
		{8, 7, 0, 0}, // by an eighth
	} {
		if p, v := unseenFall(tc.from, tc.to), unseenPartly(tc.from, tc.to); p != tc.prometheus || v != tc.victoria {
			t.Errorf("from %d to %d: %d and %d", tc.from, tc.to, p, v)
		}
	}
}

func TestAround(t *testing.T) {
	excused := around(time.UnixMilli(10_000), time.Second)
	for end, want := range map[int64]bool{8_999: false, 9_000: true, 10_000: true, 10_001: false} {
		if got := excused(end); got != want {
			t.Errorf("%d: %v", end, got)
		}
	}
}

// TestSizeIndex: backends write the bounds of buckets rounded, some to four digits.
func TestSizeIndex(t *testing.T) {
	for i := range sizeBuckets {
		upper := math.Exp2(float64(i+1) / (1 << sizeScale))
		for _, rounded := range []float64{upper, upper * (1 + 5e-4), upper * (1 - 5e-4)} {
			if got := sizeIndex(rounded); got != i {
				t.Errorf("%v is the upper bound of bucket %d, want %d", rounded, got, i)
			}
		}
	}
}

func TestExpectationsAreWhatIsSent(t *testing.T) {
	l := newLoad(8, 8, &targets{})
	a := l.agents[3]
	a.more = further
	a.begin = time.UnixMilli(1_700_000_000_000)
	a.done.Store(5)
	got := map[seriesKey][]int64{}
	for i := range 5 {
		for _, m := range a.deltas(i).ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().All() {
			add := func(name, stream, le string, v int64) {
				key := seriesKey{name, a.name, stream, le}
				if n := len(got[key]); n > 0 && name != visitsSeries && name != queueSeries {
					v += got[key][n-1]
				}
				got[key] = append(got[key], v)
			}
			switch m.Name() {
			case sizeMetric:
				for _, pt := range m.ExponentialHistogram().DataPoints().All() {
					stream, _ := pt.Attributes().Get("stream")
					add(sizeSeries+"_count", stream.Str(), "", int64(pt.Count()))
					add(sizeSeries+"_sum", stream.Str(), "", int64(pt.Sum()))
					add(sizeSeries+"_bucket", stream.Str(), zeroBucket, int64(pt.ZeroCount()))
					in := pt.ZeroCount()
					for b, n := range pt.Positive().BucketCounts().All() {
						add(sizeSeries+"_bucket", stream.Str(), bucketName(b), int64(n))
						in += n
					}
					if in != pt.Count() {
						t.Errorf("%d of %d are in buckets", in, pt.Count())
					}
				}
			case visitsMetric:
				for _, pt := range m.Sum().DataPoints().All() {
					stream, _ := pt.Attributes().Get("stream")
					add(visitsSeries, stream.Str(), "", pt.IntValue())
				}
			case queueMetric:
				for _, pt := range m.Gauge().DataPoints().All() {
					stream, _ := pt.Attributes().Get("stream")
					add(queueSeries, stream.Str(), "", pt.IntValue())
				}
			}
		}
	}
	var c account
	expectations := map[seriesKey]expected{}
	for stream := range furtherStreams {
		a.expectFurther(stream, expectations)
	}
	has := map[seriesKey][]sample{}
	for key, totals := range got {
		for i, v := range totals {
			has[key] = append(has[key], sample{a.begin.UnixMilli() + at(int64(i)+1), float64(v)})
		}
	}
	c.balance(expectations, has, rules{})
	if c.wrong+c.lost > 0 || len(has) != len(expectations) || len(has) != furtherStreams*(5+sizeBuckets) {
		t.Errorf("%+v of %d series, %d are expected", c, len(has), len(expectations))
	}
}

func TestComplete(t *testing.T) {
	key := seriesKey{name: "n"}
	for _, tc := range []struct {
		totals  []int64
		sparse  bool
		samples []sample
		want    bool
	}{
		{[]int64{1, 2, 3}, false, all(1, 2, 3), true},
		{[]int64{1, 2, 3}, false, all(1, 2, none), false},
		{[]int64{1, 2, 2}, true, all(1, 2, none), true},
		{[]int64{1, 2, 2}, true, all(1, none, none), false},
		{[]int64{0, 0, 3}, true, nil, false}, // a new series at the very end
		{[]int64{0, 0, 3}, true, all(none, none, 3), true},
		{[]int64{0, 0, 0}, true, nil, true},
		{[]int64{4, 4, 4}, true, nil, false},
		{nil, true, nil, true},
	} {
		e := expected{truth: &truth{totals: tc.totals}, sparse: tc.sparse}
		if got := complete(map[seriesKey]expected{key: e}, map[seriesKey][]sample{key: tc.samples}); got != tc.want {
			t.Errorf("totals %v, sparse %v, samples %v: complete %v, want %v", tc.totals, tc.sparse, tc.samples, got, tc.want)
		}
	}
}
