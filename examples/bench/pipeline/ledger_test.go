// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// sendTo plays rounds of one thousand series to a ledger, as a converter would: what comes out is what change makes of the right answer.
func sendTo(l *ledger, rounds int, change func(round int, md pmetric.Metrics)) faults {
	b := newBatch(l.kind)
	l.begin = 1_000_000_000
	for range rounds {
		round, from, to := l.next(0, 0)
		b.load(0, round, from, to)
		md := pmetric.NewMetrics()
		b.md.CopyTo(md)
		if !l.delta {
			accumulate(l, md, round+1)
		}
		change(round, md)
		l.take(md)
	}
	return l.verdict()
}

// accumulate makes points the totals of so many rounds, of which it adds up what batch sends: on purpose not by the sums of ledger.
func accumulate(l *ledger, md pmetric.Metrics, rounds int) {
	for r := range rounds - 1 {
		b := newBatch(l.kind)
		b.load(0, r, 0, 0)
		for i, rm := range md.ResourceMetrics().All() {
			for j, m := range rm.ScopeMetrics().At(0).Metrics().All() {
				other := b.md.ResourceMetrics().At(i).ScopeMetrics().At(0).Metrics().At(j)
				for n := range perMetric {
					if l.kind == kindSum {
						p, o := m.Sum().DataPoints().At(n), other.Sum().DataPoints().At(n)
						p.SetIntValue(p.IntValue() + o.IntValue())
						continue
					}
					p, o := m.Histogram().DataPoints().At(n), other.Histogram().DataPoints().At(n)
					p.SetCount(p.Count() + o.Count())
					p.SetSum(p.Sum() + o.Sum())
					for k := range p.BucketCounts().Len() {
						p.BucketCounts().SetAt(k, p.BucketCounts().At(k)+o.BucketCounts().At(k))
					}
				}
			}
		}
	}
	for _, rm := range md.ResourceMetrics().All() {
		for _, m := range rm.ScopeMetrics().At(0).Metrics().All() {
			if l.kind == kindSum {
				m.Sum().SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
				for _, p := range m.Sum().DataPoints().All() {
					p.SetStartTimestamp(l.begin)
				}
				continue
			}
			m.Histogram().SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
			for _, p := range m.Histogram().DataPoints().All() {
				p.SetStartTimestamp(l.begin)
			}
		}
	}
}

func firstSum(md pmetric.Metrics) pmetric.NumberDataPoint {
	return md.ResourceMetrics().At(3).ScopeMetrics().At(0).Metrics().At(2).Sum().DataPoints().At(1)
}

func firstHistogram(md pmetric.Metrics) pmetric.HistogramDataPoint {
	return md.ResourceMetrics().At(3).ScopeMetrics().At(0).Metrics().At(2).Histogram().DataPoints().At(1)
}

// A ledger that finds nothing wrong is worth as much as what it finds.
func TestLedger(t *testing.T) {
	last := 6
	in := func(round int, f func(md pmetric.Metrics)) func(int, pmetric.Metrics) {
		return func(r int, md pmetric.Metrics) {
			if r == round {
				f(md)
			}
		}
	}
	withoutPoint := func(md pmetric.Metrics) {
		n := 0
		md.ResourceMetrics().At(3).ScopeMetrics().At(0).Metrics().At(2).Sum().DataPoints().RemoveIf(func(pmetric.NumberDataPoint) bool {
			n++
			return n == 2
		})
	}
	var kept pmetric.Metrics
	for _, c := range []struct {
		name   string
		kind   kind
		delta  bool
		change func(round int, md pmetric.Metrics)
		want   faults
	}{
		{name: "right sums", kind: kindSum, change: func(int, pmetric.Metrics) {}},
		{name: "right histograms", kind: kindHistogram, change: func(int, pmetric.Metrics) {}},
		{name: "right deltas", kind: kindSum, delta: true, change: func(int, pmetric.Metrics) {}},
		{name: "right delta histograms", kind: kindHistogram, delta: true, change: func(int, pmetric.Metrics) {}},
		{name: "a sum is one too many", kind: kindSum, want: faults{Series: 1, Value: 1}, change: in(4, func(md pmetric.Metrics) {
			firstSum(md).SetIntValue(firstSum(md).IntValue() + 1)
		})},
		{name: "a bucket is one too many", kind: kindHistogram, want: faults{Series: 1, Value: 1}, change: in(4, func(md pmetric.Metrics) {
			counts := firstHistogram(md).BucketCounts()
			counts.SetAt(7, counts.At(7)+1)
		})},
		{name: "a sum of a histogram", kind: kindHistogram, want: faults{Series: 1, Value: 1}, change: in(last, func(md pmetric.Metrics) {
			firstHistogram(md).SetSum(firstHistogram(md).Sum() + 0.25)
		})},
		{name: "another start", kind: kindSum, want: faults{Series: 1, Start: 1}, change: in(4, func(md pmetric.Metrics) {
			firstSum(md).SetStartTimestamp(firstSum(md).StartTimestamp() + 1)
		})},
		{name: "a time that was not sent", kind: kindSum, want: faults{Series: 1, Time: 1}, change: in(4, func(md pmetric.Metrics) {
			firstSum(md).SetTimestamp(firstSum(md).Timestamp() + 1)
		})},
		{name: "a time to come", kind: kindSum, want: faults{Series: 1, Time: 1, Missing: 1}, change: in(last, func(md pmetric.Metrics) {
			firstSum(md).SetTimestamp(firstSum(md).Timestamp() + pcommon.Timestamp(time.Hour))
		})},
		{name: "one on the way is missing", kind: kindSum, change: in(4, withoutPoint)},
		{name: "the last is missing", kind: kindSum, want: faults{Series: 1, Missing: 1}, change: in(last, withoutPoint)},
		{name: "a delta is missing", kind: kindSum, delta: true, want: faults{Series: 1, Disorder: 1}, change: in(4, withoutPoint)},
		{name: "still a delta", kind: kindSum, want: faults{Series: 10, Value: 10}, change: in(4, func(md pmetric.Metrics) {
			md.ResourceMetrics().At(3).ScopeMetrics().At(0).Metrics().At(2).Sum().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
		})},
		{name: "an old one again", kind: kindSum, want: faults{Series: 1000, Disorder: 1000, Missing: 1000}, change: func(r int, md pmetric.Metrics) {
			switch r {
			case 2:
				kept = pmetric.NewMetrics()
				md.CopyTo(kept)
			case last:
				kept.CopyTo(md)
			}
		}},
		{name: "a delta again", kind: kindSum, delta: true, want: faults{Series: 1000, Disorder: 1000, Missing: 1000}, change: func(r int, md pmetric.Metrics) {
			switch r {
			case last - 1:
				kept = pmetric.NewMetrics()
				md.CopyTo(kept)
			case last:
				kept.CopyTo(md)
			}
		}},
		{name: "another metric", kind: kindSum, want: faults{Series: 10, Missing: 10, Strangers: 1}, change: in(last, func(md pmetric.Metrics) {
			md.ResourceMetrics().At(3).ScopeMetrics().At(0).Metrics().At(2).SetName("http")
		})},
		{name: "another attribute", kind: kindSum, want: faults{Series: 1, Missing: 1, Strangers: 1}, change: in(last, func(md pmetric.Metrics) {
			firstSum(md).Attributes().PutInt("http.response.status_code", 204)
		})},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := sendTo(newLedger(c.kind, pointsPerBatch, c.delta), last+1, c.change)
			if (got.Series+got.Strangers == 0) != (got.First == "") {
				t.Errorf("says %q of %+v", got.First, got)
			}
			got.First = ""
			if got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestLedgerOfNothing(t *testing.T) {
	if got := newLedger(kindSum, 2*pointsPerBatch, false).verdict(); got.Missing != 2*pointsPerBatch {
		t.Errorf("%d of %d series are missing where nothing was sent", got.Missing, 2*pointsPerBatch)
	}
}
