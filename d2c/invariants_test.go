// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
)

// timelines checks what is given out against the promises that need no oracle. Per stream: time never falls, one
// millisecond never has two values, a value never falls under one start, and a new start is either earlier (before first)
// or not before anything given out (restart).
type timelines map[string]sample

type sample struct {
	start, time uint64
	value       string
	size        float64 // what must not fall; NaN if it may
	quantiles   string  // of a summary; a sample that is given out once more may have none
}

func newTimelines() timelines { return timelines{} }

func (ts timelines) forget(gone func(key string) bool) {
	for key := range ts {
		if gone(key) {
			delete(ts, key)
		}
	}
}

func (ts timelines) follow(md pmetric.Metrics) error {
	type keyed struct {
		key string
		sample
	}
	var given []keyed
	forEachMetric(md, func(rm pmetric.ResourceMetrics, sm pmetric.ScopeMetrics, m pmetric.Metric) {
		if rm.Resource().Attributes().Len() == 0 {
			return // a bystander
		}
		prefix := metricKey(rm.Resource(), sm.Scope(), m)
		for _, p := range deltaPoints(m) {
			s := sample{start: p.start, time: p.time, value: describe(p.dp), size: math.NaN()}
			switch dp := p.dp.(type) {
			case pmetric.NumberDataPoint:
				if m.Sum().IsMonotonic() && s.value != "marker" {
					s.size = dp.DoubleValue() + float64(dp.IntValue()) // one of which is zero
				}
			case pmetric.HistogramDataPoint:
				s.size = float64(dp.Count())
			case pmetric.ExponentialHistogramDataPoint:
				s.size = float64(dp.Count())
			case pmetric.SummaryDataPoint:
				s.size, s.quantiles = float64(dp.Count()), quantiles(dp)
				s.value = strings.TrimSuffix(s.value, s.quantiles)
			}
			if s.value == "marker" {
				s.size = math.NaN()
			}
			given = append(given, keyed{prefix + attributesKey(p.dp.Attributes()), s})
		}
	})
	// A batch keeps its order of points; a receiver that orders samples by time is who the promises are made to.
	slices.SortStableFunc(given, func(a, b keyed) int { return cmp.Compare(a.time, b.time) })
	for _, g := range given {
		last, ok := ts[g.key]
		switch {
		case !ok:
		case g.time < last.time:
			return fmt.Errorf("%s: time falls from %d to %d", g.key, last.time, g.time)
		case g.time/nudge == last.time/nudge && (g.value != last.value || g.start != last.start):
			return fmt.Errorf("%s: two values within the millisecond of %d: %s since %d, %s since %d",
				g.key, g.time, last.value, last.start, g.value, g.start)
		case g.time/nudge == last.time/nudge && g.quantiles != "" && last.quantiles != "" && g.quantiles != last.quantiles:
			return fmt.Errorf("%s: two sets of quantiles within the millisecond of %d: %s and %s", g.key, g.time, last.quantiles, g.quantiles)
		case g.start > last.start && g.start < last.time:
			return fmt.Errorf("%s: restarts at %d, before the latest time %d", g.key, g.start, last.time)
		case g.start <= last.start && g.size < last.size:
			return fmt.Errorf("%s: falls from %v to %v since %d", g.key, last.size, g.size, g.start)
		}
		if math.IsNaN(g.size) && ok && g.start <= last.start {
			g.size = last.size
		}
		if g.start == 0 || g.value == "marker" && !ok {
			continue // a marker without a stream is passed on as it came
		}
		if g.quantiles == "" && ok && g.time/nudge == last.time/nudge {
			g.quantiles = last.quantiles
		}
		ts[g.key] = g.sample
	}
	return nil
}

// TestValueIsSumOfAccepted is promise P1 without an oracle: one int counter, one point per batch, and the value given
// out is the sum of what was accepted since the start.
func TestValueIsSumOfAccepted(t *testing.T) {
	for _, seed := range seeds(t, 1000) {
		src := newRandomSource(seed, 60)
		cfg := d2c.Config{
			Gap:        pick(src, d2c.GapContinue, d2c.GapRestart),
			Overlap:    pick(src, d2c.OverlapAdd, d2c.OverlapDrop),
			LateWindow: pick(src, 0, 5*time.Second, time.Hour),
		}
		conv := newConverter(t, cfg)
		var sum int64
		for src.more() {
			start := float64(100 + src.n(60))
			end := start + float64(src.n(8))
			v := int64(1) << src.n(60)
			md := batch(series("s").int(start, end, v))
			result := convert(conv, md)
			outcome := onlyOutcome(result)
			switch {
			case outcome == d2c.AddedFirst || outcome.Restarted():
				sum = v
			case outcome.Added():
				sum += v
			case outcome.Dropped():
				continue
			}
			if got := onlyInt(md); got != sum {
				t.Fatalf("seed %d: (%v, %v] was %v: got %d, want %d", seed, start, end, outcome, got, sum)
			}
		}
	}
}

func onlyInt(md pmetric.Metrics) int64 {
	return md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Sum().DataPoints().At(0).IntValue()
}

// TestEachNanosecondCountsOnce is promise P3 without an oracle: if every delta is as large as its interval is long, then
// the total is the time covered, which is all time since the start but the gaps that are still open. Whatever is late,
// repeated, overlapping or interpolated: nothing counts twice, and nothing accepted is lost.
func TestEachNanosecondCountsOnce(t *testing.T) {
	for _, seed := range seeds(t, 1000) {
		src := newRandomSource(seed, 60)
		cfg := d2c.Config{
			Overlap:    pick(src, d2c.OverlapDrop, d2c.OverlapInterpolate),
			LateWindow: pick(src, 0, 5*time.Second, 20*time.Second, time.Hour),
		}
		conv := newConverter(t, cfg)
		var start, last uint64
		var open time.Duration
		for src.more() {
			from := float64(100 + src.n(50) + src.n(50))
			length := float64(1 + src.n(8))
			md := batch(series("s").int(from, from+length, int64(length*1e9)))
			result := convert(conv, md)
			open += result.GapOpened - result.GapFilled
			if result.Dropped() > 0 {
				continue
			}
			start = uint64(lastPoint(md).StartTimestamp())
			last = max(last, uint64(sec(from+length)))
			if got, want := onlyInt(md), int64(last-start)-int64(open); got != want {
				t.Fatalf("seed %d: (%v, %v]: got %d, want (%d, %d] without %v: %d",
					seed, from, from+length, got, start, last, open, want)
			}
		}
	}
}

func lastPoint(md pmetric.Metrics) dataPoint {
	var last dataPoint
	forEachMetric(md, func(_ pmetric.ResourceMetrics, _ pmetric.ScopeMetrics, m pmetric.Metric) {
		for _, p := range deltaPoints(m) {
			last = p.dp
		}
	})
	return last
}

// TestConcurrent: several goroutines add to the same streams. Each delivers its own intervals, and some of the others'
// too, as retries and queues do; every total ends exact and no stream ever shows two values at one time.
func TestConcurrent(t *testing.T) {
	const workers, rounds, streams = 8, 40, 20
	conv := newConverter(t, d2c.DefaultConfig())
	// An interval is one second; worker w of round r delivers second r*workers+w with a value of its own. Within a round
	// the order is anyone's guess: at most workers/2 gaps open at once, and four are remembered.
	value := func(second int) int { return 1 + second%7 }
	deliver := func(second int) pmetric.Metrics {
		md := pmetric.NewMetrics()
		for s := range streams {
			for _, shape := range shapes {
				start := float64(1000 + second)
				shape.point(start, start+1, value(second))(md)
			}
			forEachMetric(md, func(_ pmetric.ResourceMetrics, _ pmetric.ScopeMetrics, m pmetric.Metric) {
				if m.Name() == "s" {
					m.SetName(fmt.Sprint("stream ", s))
				}
			})
		}
		convert(conv, md)
		return md
	}
	given := make([][]pmetric.Metrics, workers)
	for r := range rounds {
		var wg sync.WaitGroup
		for w := range workers {
			wg.Go(func() {
				given[w] = append(given[w], deliver(r*workers+w))
				if w%2 == 0 {
					given[w] = append(given[w], deliver(r*workers+w)) // a retry
				}
				if w%3 == 0 && r > 0 {
					given[w] = append(given[w], deliver((r-1)*workers+(w+1)%workers)) // somebody else's, once more
				}
				if w == 1 {
					conv.Expire()
					for range conv.Streams() {
						break
					}
				}
			})
		}
		wg.Wait()
	}
	if got, want := conv.Len(), streams*len(shapes); got != want {
		t.Errorf("%d streams, want %d", got, want)
	}
	total := 0
	for second := range workers * rounds {
		total += value(second)
	}
	// Once more the newest interval: a repeat shows the total.
	newest := deliver(workers*rounds - 1)
	want := pmetric.NewMetrics()
	for range streams {
		for _, shape := range shapes {
			shape.point(1000, 0, total)(want)
		}
	}
	wants := lines(want)
	for i, l := range lines(newest) {
		if l.value != wants[i].value {
			t.Errorf("%s: got %s, want %s", l.key, l.value, wants[i].value)
		}
	}

	// The value at a time, whoever was given it.
	at := map[string]string{}
	for _, mds := range given {
		for _, md := range mds {
			for _, l := range lines(md) {
				// The start moves back while the first round is sorting itself out, so compare ends.
				_, end, _ := bytes.Cut([]byte(l.interval), []byte(", "))
				id := l.key + string(end)
				if v, ok := at[id]; ok && v != l.value {
					t.Errorf("%s: both %s and %s", id, v, l.value)
				}
				at[id] = l.value
			}
		}
	}
}
