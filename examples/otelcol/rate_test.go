// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package otelcol

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
)

// rates has d2c begin lives with zeros and give quiet streams out again, as seen through prometheus.yaml, and keep its state.
const rates = `
extensions:
  file_storage: {directory: %q, create_directory: true}
processors:
  d2c: {emit_zero: true, reemit_interval: 1s, state: {storage: file_storage}}
service:
  extensions: [health_check, file_storage]
`

// TestRates: increase() counts the first sample, rate() of a counter that gets a delta every now and then is defined throughout, and
// nothing is out of order, though the Collector restarts in between. Hours are seconds here: a delta comes each 6 s, and a query looks
// back for 4.
func TestRates(t *testing.T) {
	t.Parallel()
	const (
		every  = 6 * time.Second
		deltas = 4
	)
	prom := startPrometheus(t)
	dir := t.TempDir()
	config := filepath.Join(dir, "rates.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, rates, filepath.Join(dir, "state")), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func() *collector {
		return startCollector(t, "prometheus.yaml", prom.environment(), "--config", config)
	}
	coll := run()
	client := coll.client(t)
	began := time.Now().Add(time.Second) // the process is older than the streams
	time.Sleep(time.Until(began))
	total := 0.0
	for i := range deltas {
		value := float64(1 + i)
		from := began.Add(time.Duration(i) * every)
		time.Sleep(time.Until(from.Add(500 * time.Millisecond)))
		if err := sendSeldom(client, from, time.Now(), value); err != nil {
			t.Fatal(err)
		}
		total += value
		if i == 1 {
			time.Sleep(2 * time.Second) // what is given out again meanwhile is what the next process must not fall behind
			coll.stop(t)
			checkOrder(t, coll)
			coll = run()
			client = coll.client(t)
		}
	}
	time.Sleep(3 * time.Second)
	end := time.Now()
	last := 0.0
	for at := began.Add(3 * time.Second); at.Before(end); at = at.Add(250 * time.Millisecond) {
		restarting := at.After(began.Add(every+2*time.Second)) && at.Before(began.Add(2*every+5*time.Second))
		rate, err := prom.query(`rate(seldom_total[4s])`, at)
		if err != nil {
			t.Fatal(err)
		}
		if len(rate) != 1 && !restarting {
			t.Errorf("%v: %d series with a rate, want 1", at.Sub(began), len(rate))
		}
	}
	for _, name := range []string{"seldom_total", "seldom_seconds_count"} {
		// All samples, as they are: the zero comes first, and what is counted is what was sent.
		raw, err := prom.query(name+"[1m]", end)
		if err != nil {
			t.Fatal(err)
		}
		if len(raw) != 1 {
			t.Fatalf("%s: %d series, want 1", name, len(raw))
		}
		for _, samples := range raw {
			if samples[0].value != 0 {
				t.Errorf("%s: the first sample is %v, want 0", name, samples[0].value)
			}
			for _, s := range samples {
				if s.value < last {
					t.Errorf("%s falls from %v to %v", name, last, s.value)
				}
				last = s.value
			}
			last = 0
			t.Logf("%s: %d samples", name, len(samples))
		}
		// Extrapolation aside, which is no more than one and a half of the mean distance of samples at each end.
		increased, err := prom.query(`sum(increase(`+name+`[1m]))`, end)
		if err != nil {
			t.Fatal(err)
		}
		for _, samples := range increased {
			if got := samples[0].value; got < total || got > 1.15*total || math.IsNaN(got) {
				t.Errorf("increase of %s is %v, want %v and no more than extrapolation adds", name, got, total)
			}
		}
	}
	coll.stop(t)
	checkOrder(t, coll)
	refused, err := scrape(prom.url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"prometheus_tsdb_out_of_order_samples_total", "prometheus_tsdb_out_of_bound_samples_total"} {
		if n := refused.sum(name); n != 0 {
			t.Errorf("%s is %v", name, n)
		}
	}
}

// checkOrder looks for samples that Prometheus has refused.
func checkOrder(t *testing.T, coll *collector) {
	t.Helper()
	for _, sign := range []string{"out of order", "out of bounds", "duplicate sample", "Exporting failed", "could not be given out again"} {
		if strings.Contains(coll.log.String(), sign) {
			t.Errorf("the Collector's log has %q", sign)
		}
	}
}

// sendSeldom sends one delta of a counter and of a histogram.
func sendSeldom(client pmetricotlp.GRPCClient, start, end time.Time, value float64) error {
	md := pmetric.NewMetrics()
	metrics := md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics()
	sum := metrics.AppendEmpty()
	sum.SetName("seldom")
	sum.SetEmptySum().SetIsMonotonic(true)
	sum.Sum().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	n := sum.Sum().DataPoints().AppendEmpty()
	n.SetStartTimestamp(pcommon.NewTimestampFromTime(start))
	n.SetTimestamp(pcommon.NewTimestampFromTime(end))
	n.SetDoubleValue(value)
	histogram := metrics.AppendEmpty()
	histogram.SetName("seldom")
	histogram.SetUnit("s")
	histogram.SetEmptyHistogram().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	h := histogram.Histogram().DataPoints().AppendEmpty()
	h.SetStartTimestamp(pcommon.NewTimestampFromTime(start))
	h.SetTimestamp(pcommon.NewTimestampFromTime(end))
	h.ExplicitBounds().FromRaw([]float64{1})
	h.BucketCounts().FromRaw([]uint64{uint64(value), 0})
	h.SetCount(uint64(value))
	h.SetSum(value / 2)
	_, err := client.Export(context.Background(), pmetricotlp.NewExportRequestFromMetrics(md))
	return err
}
