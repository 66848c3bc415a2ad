// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strconv"
	"time"
)

// seriesKey tells the series of the load apart, as Prometheus has them.
type seriesKey struct {
	name, instance, stream, le string
}

// truth is what a series has to be: the sums of everything acknowledged, by interval. What was refused is in it as well,
// as the producer has counted it all the same.
type truth struct {
	begin  int64   // Unix ms
	totals []int64 // totals[i] is the total at the end of interval i
}

// at returns the total of all intervals that have ended at a time, in Unix ms.
func (t *truth) at(ms int64) int64 {
	i := (ms-t.begin)/interval.Milliseconds() - 1
	if i < 0 {
		return 0
	}
	return t.totals[min(int(i), len(t.totals)-1)]
}

func (t *truth) last() int64 { return t.totals[len(t.totals)-1] }

// truths adds up all that is settled.
func (l *load) truths() map[seriesKey]*truth {
	all := map[seriesKey]*truth{}
	for _, a := range l.agents {
		a.truths(all)
	}
	return all
}

func (a *agent) truths(all map[seriesKey]*truth) {
	intervals := int(a.done.Load())
	begin := a.begin.UnixMilli()
	of := func(name, stream, le string) *truth {
		t := &truth{begin: begin, totals: make([]int64, intervals)}
		all[seriesKey{name, a.name, stream, le}] = t
		return t
	}
	for stream := range a.counters {
		t := of(counterSeries, streamName(stream), "")
		for i := range intervals {
			t.totals[i] = a.orders(stream, i)
		}
	}
	for stream := range a.histograms {
		count := of(histogramSeries+"_count", streamName(stream), "")
		sum := of(histogramSeries+"_sum", streamName(stream), "")
		buckets := make([]*truth, len(bounds)+1)
		for b := range buckets {
			le := "+Inf"
			if b < len(bounds) {
				le = strconv.FormatFloat(bounds[b], 'g', -1, 64)
			}
			buckets[b] = of(histogramSeries+"_bucket", streamName(stream), le)
		}
		for i := range intervals {
			for _, observation := range a.baskets(stream, i) {
				count.totals[i]++
				sum.totals[i] += int64(observation)
				for b := bucketOf(observation); b < len(buckets); b++ {
					buckets[b].totals[i]++
				}
			}
		}
	}
	for key, t := range all {
		if key.instance != a.name {
			continue
		}
		for i := 1; i < intervals; i++ {
			t.totals[i] += t.totals[i-1]
		}
	}
}

// since converts a time in Unix ms to seconds after another.
func since(ms int64, begin time.Time) float64 { return float64(ms-begin.UnixMilli()) / 1000 }
