// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"
	"time"
)

// at is the end of the n-th interval of a truth that begins at 0.
func at(n int64) int64 { return n * interval.Milliseconds() }

func TestVerdict(t *testing.T) {
	sent := &truth{totals: []int64{10, 20, 30, 40}}
	for _, tc := range []struct {
		name    string
		samples []sample
		want    verdict
	}{
		{"all as it was sent", []sample{{at(1), 10}, {at(2), 20}, {at(3), 30}, {at(4), 40}}, verdict{}},
		{"begins anew, and nothing is lost", []sample{{at(1), 10}, {at(2), 20}, {at(3), 10}, {at(4), 20}},
			verdict{resets: 1, inexact: 2}},
		{"begins anew after a delta was lost", []sample{{at(1), 10}, {at(2), 20}, {at(4), 10}},
			verdict{resets: 1, inexact: 1, lacking: 1, wrong: 1}},
		{"falls to an old total", []sample{{at(1), 10}, {at(2), 20}, {at(3), 15}, {at(4), 25}},
			verdict{drops: 1, inexact: 2, wrong: 1}},
		{"two workers by turns", []sample{{at(1), 10}, {at(2), 10}, {at(3), 20}, {at(4), 20}},
			verdict{inexact: 3, wrong: 1}},
		{"counts twice", []sample{{at(1), 10}, {at(2), 30}, {at(3), 40}, {at(4), 50}}, verdict{inexact: 3, wrong: 1}},
		{"loses a delta", []sample{{at(1), 10}, {at(2), 10}, {at(3), 20}, {at(4), 30}}, verdict{inexact: 3, wrong: 1}},
		{"loses a sample", []sample{{at(1), 10}, {at(2), 20}, {at(4), 40}}, verdict{lacking: 1}},
		{"loses the last sample", []sample{{at(1), 10}, {at(2), 20}, {at(3), 30}}, verdict{lacking: 1, wrong: 1}},
		{"is not there", nil, verdict{lacking: 4, wrong: 1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			key := seriesKey{name: "a"}
			got := verdict{truths: map[seriesKey]*truth{key: sent}, samples: map[seriesKey][]sample{key: tc.samples}}
			got.judge()
			if got.resets != tc.want.resets || got.drops != tc.want.drops || got.wrong != tc.want.wrong ||
				got.inexact != tc.want.inexact || got.lacking != tc.want.lacking {
				t.Errorf("%d resets, %d drops, %d wrong, %d inexact, %d lacking; want %d, %d, %d, %d, %d",
					got.resets, got.drops, got.wrong, got.inexact, got.lacking,
					tc.want.resets, tc.want.drops, tc.want.wrong, tc.want.inexact, tc.want.lacking)
			}
			if got.flawless() != (tc.name == "all as it was sent") {
				t.Errorf("flawless is %v", got.flawless())
			}
		})
	}
	for _, v := range []verdict{{rejected: 1}, {refused: 1}} {
		if v.flawless() {
			t.Errorf("%+v is flawless", v)
		}
	}
}

func TestTruthOfATime(t *testing.T) {
	tr := &truth{begin: 500, totals: []int64{1, 3, 6}}
	for ms, want := range map[int64]int64{0: 0, 500: 0, 1499: 0, 1500: 1, 1501: 1, 2500: 3, 3499: 3, 3500: 6, 9000: 6} {
		if got := tr.at(ms); got != want {
			t.Errorf("at %d ms it is %d, want %d", ms, got, want)
		}
	}
}

func TestTruthIsTheSumOfWhatIsSent(t *testing.T) {
	l := newLoad(8*3, 8*2, &targets{})
	a := l.agents[5]
	a.begin = time.UnixMilli(1_700_000_000_000)
	a.done.Store(4)
	counters, counts, sums, buckets := map[string]int64{}, map[string]int64{}, map[string]int64{}, map[string]int64{}
	for i := range 4 {
		metrics := a.deltas(i).ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics()
		for _, pt := range metrics.At(0).Sum().DataPoints().All() {
			stream, _ := pt.Attributes().Get("stream")
			counters[stream.Str()] += pt.IntValue()
			if got := pt.Timestamp().AsTime(); !got.Equal(a.end(i)) || pt.Timestamp()-pt.StartTimestamp() != 1e9 {
				t.Errorf("interval %d is (%v, %v]", i, pt.StartTimestamp().AsTime(), got)
			}
		}
		for _, pt := range metrics.At(1).Histogram().DataPoints().All() {
			stream, _ := pt.Attributes().Get("stream")
			counts[stream.Str()] += int64(pt.Count())
			sums[stream.Str()] += int64(pt.Sum())
			buckets[stream.Str()] += int64(pt.BucketCounts().At(0) + pt.BucketCounts().At(1)) // up to 2
		}
	}
	truths := l.truths()
	check := func(name, stream, le string, want int64) {
		tr := truths[seriesKey{name, a.name, stream, le}]
		if tr == nil || tr.last() != want || want == 0 {
			t.Errorf("truth of %s{%s,le=%q} is %+v, sent was %d", name, stream, le, tr, want)
		}
	}
	for stream, want := range counters {
		check("shop_orders_total", stream, "", want)
	}
	for stream, want := range counts {
		check("shop_basket_count", stream, "", want)
		check("shop_basket_bucket", stream, "+Inf", want)
		check("shop_basket_sum", stream, "", sums[stream])
		check("shop_basket_bucket", stream, "2", buckets[stream])
	}
	if len(counters) != 3 || len(counts) != 2 {
		t.Errorf("%d counters and %d histograms, want 3 and 2", len(counters), len(counts))
	}
}
