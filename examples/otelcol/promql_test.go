// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package otelcol

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// counters are the metrics of the producers that only ever rise, as Prometheus names them.
var counters = []string{
	"shop_orders_total", "shop_traffic_bytes_total",
	"shop_latency_seconds_bucket", "shop_latency_seconds_count", "shop_latency_seconds_sum",
}

// checkLastValues asks for the current value of everything, as a dashboard does: the sum of all deltas.
func checkLastValues(t *testing.T, prom *prometheus, book *ledger, line timeline) {
	got, err := prom.query(`{job="shop"}`, line.end())
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(book.series) {
		t.Errorf("Prometheus has %d series, want %d", len(got), len(book.series))
	}
	for key := range book.series {
		want := book.last(key)
		want.ms = line.end().UnixMilli()
		if len(got[key]) != 1 || !got[key][0].equal(want) {
			t.Errorf("%s is %v, want %v", key, got[key], want)
		}
	}
}

// checkResets asks how often each counter fell.
func checkResets(t *testing.T, prom *prometheus, book *ledger, line timeline) {
	for _, name := range counters {
		got, err := prom.query("resets("+name+"[1h])", line.end())
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range book.named(name) {
			if r := got[strings.TrimPrefix(key, name)]; len(r) != 1 || r[0].value != 0 {
				t.Errorf("resets of %s are %v, want 0", key, r)
			}
		}
	}
}

// checkIncrease compares increase() over a window with Prometheus' own formula applied to what was sent. The window
// begins after the first samples, where releases of Prometheus extrapolate alike.
func checkIncrease(t *testing.T, prom *prometheus, book *ledger, line timeline) {
	const window = 3 * time.Minute
	check := func(name, promql string, value func(sample) float64) {
		promql = fmt.Sprintf(promql, name, window)
		got, err := prom.query(promql, line.end())
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range book.named(name) {
			want := increase(book.series[key], value, line.end(), window)
			if want == 0 {
				t.Fatalf("nothing was sent for %s", key)
			}
			if r := got[strings.TrimPrefix(key, name)]; len(r) != 1 || !near(r[0].value, want) {
				t.Errorf("%s for %s is %v, want %v", promql, key, r, want)
			}
		}
	}
	for _, name := range counters {
		check(name, "increase(%s[%v])", func(s sample) float64 { return s.value })
	}
	check("shop_size_bytes", "histogram_count(increase(%s[%v]))", func(s sample) float64 { return s.value })
	check("shop_size_bytes", "histogram_sum(increase(%s[%v]))", func(s sample) float64 { return s.native.sum })
}

// increase is extrapolatedRate of Prometheus' promql/functions.go, without the resets that must not happen and without
// the clamping to zero at the start of a counter.
func increase(samples []sample, value func(sample) float64, end time.Time, window time.Duration) float64 {
	from, to := end.Add(-window).UnixMilli(), end.UnixMilli()
	for samples[0].ms < from {
		samples = samples[1:]
	}
	first, last := samples[0], samples[len(samples)-1]
	sampled := float64(last.ms - first.ms)
	average := sampled / float64(len(samples)-1)
	extrapolated := sampled
	for _, edge := range []float64{float64(first.ms - from), float64(to - last.ms)} {
		if edge < average*1.1 {
			extrapolated += edge
		} else {
			extrapolated += average / 2
		}
	}
	return (value(last) - value(first)) * extrapolated / sampled
}

// checkQuantiles compares histogram_quantile with the quantile of the buckets that were sent.
func checkQuantiles(t *testing.T, prom *prometheus, book *ledger, line timeline) {
	for _, q := range []float64{0.05, 0.5, 0.9, 0.99} {
		got, err := prom.query(fmt.Sprintf("histogram_quantile(%v, shop_latency_seconds_bucket)", q), line.end())
		if err != nil {
			t.Fatal(err)
		}
		counts := book.named("shop_latency_seconds_count")
		if len(got) != len(counts) {
			t.Errorf("there are %d quantiles for %d histograms", len(got), len(counts))
		}
		for _, key := range counts {
			labels := strings.TrimPrefix(key, "shop_latency_seconds_count")
			want := quantile(q, book.cumulativeBuckets(labels))
			if r := got[labels]; len(r) != 1 || !near(r[0].value, want) {
				t.Errorf("quantile %v of %s is %v, want %v", q, labels, r, want)
			}
		}
	}
}

// cumulativeBuckets returns the latest counts of the explicit histogram with these labels.
func (l *ledger) cumulativeBuckets(labels string) []float64 {
	var counts []float64
	for _, le := range latencyLe {
		key := strings.Replace("shop_latency_seconds_bucket"+labels, ",otel_scope_name", fmt.Sprintf(",le=%q,otel_scope_name", le), 1)
		counts = append(counts, l.last(key).value)
	}
	return counts
}

// quantile interpolates linearly in the bucket that holds the rank, as histogram_quantile does.
func quantile(q float64, cumulative []float64) float64 {
	rank := q * cumulative[len(cumulative)-1]
	for i, bound := range latencyBounds {
		if cumulative[i] < rank {
			continue
		}
		var lower, below float64
		if i > 0 {
			lower, below = latencyBounds[i-1], cumulative[i-1]
		}
		return lower + (bound-lower)*(rank-below)/(cumulative[i]-below)
	}
	return latencyBounds[len(latencyBounds)-1] // the open bucket has no upper end
}
