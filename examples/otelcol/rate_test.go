// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package otelcol

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
)

// states are what d2c keeps its state with, over prometheus.yaml or one-node.yaml. The processor's own keys follow those of state.
var states = map[string]string{
	"memory": `
extensions: {health_check: {endpoint: "${env:HEALTH_ENDPOINT}"}}
processors: {d2c: {%s}}
`,
	"storage": `
extensions:
  file_storage: {directory: "${env:STATE_DIRECTORY}", create_directory: true}
processors: {d2c: {state: {storage: file_storage}, %s}}
service: {extensions: [health_check, file_storage]}
`,
	"shared": `
extensions:
  redis_state:
    endpoint: ${env:REDIS_ENDPOINT}
    password: ${env:REDIS_PASSWORD}
    tls: {ca_file: "${env:REDIS_CA_FILE}"}
    prefix: ${env:REDIS_PREFIX}
processors: {d2c: {state: {shared: redis_state}, %s}}
service: {extensions: [health_check, redis_state]}
`,
}

// cell is a Collector that keeps its state in one way and writes to one Prometheus in one way.
type cell struct {
	name  string
	state string
	prom  *prometheus

	config string
	env    []string
	args   []string
	coll   *collector
	client pmetricotlp.GRPCClient
}

// forEachCell runs a test with a Collector for each release, way to write and state. The tests mostly wait: they run at the same time,
// and begin one after the other.
func forEachCell(t *testing.T, d2c string, test func(*testing.T, *cell)) {
	redis := startRedis(t)
	var running sync.WaitGroup
	defer running.Wait()
	for _, r := range prometheusReleases {
		routes := []string{"write"}
		if r.otlp {
			routes = append(routes, "otlp")
		}
		for _, route := range routes {
			prom := startPrometheus(t, r)
			for _, state := range slices.Sorted(maps.Keys(states)) {
				c := &cell{name: r.name + "-" + route + "-" + state, state: state, prom: prom}
				dir := t.TempDir()
				settings := filepath.Join(dir, "settings.yaml")
				if err := os.WriteFile(settings, fmt.Appendf(nil, states[state], d2c), 0o600); err != nil {
					t.Fatal(err)
				}
				c.args = []string{"--config", settings}
				c.env = slices.Concat(redis.environment(), prom.environment(), []string{
					"OTLP_BACKEND=" + prom.url + "/api/v1/otlp",
					"STATE_DIRECTORY=" + filepath.Join(dir, "state"),
					"REDIS_PREFIX=" + c.name,
				})
				c.config = map[string]string{"write": "prometheus.yaml", "otlp": "one-node.yaml"}[route]
				ready, started := context.WithCancel(context.Background())
				running.Go(func() {
					defer started() // also if -run leaves this one out
					t.Run(c.name, func(t *testing.T) {
						func() {
							defer started()
							c.start(t)
						}()
						test(t, c)
					})
				})
				<-ready.Done()
			}
		}
	}
}

func (c *cell) start(t *testing.T) {
	t.Helper()
	c.coll = startCollector(t, c.config, c.env, c.args...)
	c.client = c.coll.client(t)
}

// selector is of a metric of this cell.
func (c *cell) selector(metric string) string {
	return fmt.Sprintf("%s{job=%q}", metric, c.name)
}

// values are the samples of the one series of a selector of a range, at a time; nil if there is no series.
func (c *cell) values(promql string, at time.Time) ([]sample, error) {
	all, err := c.prom.query(promql, at)
	if err != nil {
		return nil, err
	}
	if len(all) > 1 {
		return nil, fatal{fmt.Errorf("%s has %d series", promql, len(all))}
	}
	for _, samples := range all {
		return samples, nil
	}
	return nil, nil
}

// checkIncrease checks increase(), which may be more than what was counted by the mean distance of samples at each end, or half of it.
func (c *cell) checkIncrease(t *testing.T, name string, total float64, end time.Time) {
	t.Helper()
	promql := "increase(" + c.selector(name) + "[1m])"
	increased, err := c.values(promql, end)
	if err != nil || len(increased) != 1 {
		t.Errorf("%s is %v, %v", promql, increased, err)
		return
	}
	if got := increased[0].value; !(total <= got && got <= 1.25*total) {
		t.Errorf("%s is %v, want %v and no more than extrapolation adds", promql, got, total)
	}
	t.Logf("%s is %v", promql, increased[0].value)
}

// checkAtEnd stops the Collector, and looks for samples that Prometheus has refused.
func (c *cell) checkAtEnd(t *testing.T) {
	t.Helper()
	c.coll.stop(t)
	checkOrder(t, c.coll)
	c.prom.checkNothingRejected(t, newLedger())
}

// TestRates: increase() counts the first sample, rate() of a counter that gets a delta every now and then is defined throughout, and
// nothing is out of order, though the Collector restarts in between. Hours are seconds here: a delta comes each 6 s, and a query looks
// back for 4.
func TestRates(t *testing.T) {
	t.Parallel()
	const (
		every  = 6 * time.Second
		deltas = 4
	)
	forEachCell(t, "emit_zero: true, reemit_interval: 1s", func(t *testing.T, c *cell) {
		began := time.Now().Add(2 * time.Second) // the process is older than the streams, and a new store is a second older
		time.Sleep(time.Until(began))
		total := 0.0
		for i := range deltas {
			value := float64(1 + i)
			from := began.Add(time.Duration(i) * every)
			time.Sleep(time.Until(from.Add(500 * time.Millisecond)))
			if err := sendSeldom(c.client, c.name, from, time.Now(), value); err != nil {
				t.Fatal(err)
			}
			total += value
			if i == 1 {
				time.Sleep(2 * time.Second) // what is given out again meanwhile is what the next process must not fall behind
				c.coll.stop(t)
				checkOrder(t, c.coll)
				c.start(t)
			}
		}
		time.Sleep(3 * time.Second)
		end := time.Now()
		for at := began.Add(3 * time.Second); at.Before(end); at = at.Add(250 * time.Millisecond) {
			restarting := at.After(began.Add(every+2*time.Second)) && at.Before(began.Add(2*every+5*time.Second))
			rate, err := c.values("rate("+c.selector("seldom_total")+"[4s])", at)
			if err != nil {
				t.Fatal(err)
			}
			if len(rate) != 1 && !restarting {
				t.Errorf("%v: %d series with a rate, want 1", at.Sub(began), len(rate))
			}
		}
		for _, name := range seldom {
			// All samples, as they are: the zero comes first, and what is counted is what was sent.
			samples, err := c.values(c.selector(name)+"[1m]", end)
			if err != nil || len(samples) == 0 {
				t.Fatalf("%s: %v, %v", name, samples, err)
			}
			if samples[0].value != 0 {
				t.Errorf("%s: the first sample is %v, want 0", name, samples[0].value)
			}
			last := 0.0
			for _, s := range samples {
				// A life that ended with its process is followed by another, from zero.
				if s.value < last && !(c.state == "memory" && s.value == 0) {
					t.Errorf("%s falls from %v to %v", name, last, s.value)
				}
				last = s.value
			}
			t.Logf("%s: %d samples", name, len(samples))
			c.checkIncrease(t, name, total, end)
		}
		c.checkAtEnd(t)
	})
}

// TestStaleMarkers: a stream that expires ends at Prometheus there and then, not minutes later, and what comes of it after that is
// counted too.
func TestStaleMarkers(t *testing.T) {
	t.Parallel()
	forEachCell(t, "emit_zero: true, reemit_interval: 1s, stale_markers: true, max_stale: 3s", func(t *testing.T, c *cell) {
		time.Sleep(1100 * time.Millisecond) // a new store counts from a second after its first worker has started
		send := func(value float64) {
			t.Helper()
			if err := sendSeldom(c.client, c.name, time.Now().Add(-20*time.Millisecond), time.Now(), value); err != nil {
				t.Fatal(err)
			}
		}
		await := func(series int) {
			t.Helper()
			if err := poll(func() error {
				for _, name := range seldom {
					now, err := c.values(c.selector(name), time.Now())
					if err != nil {
						return err
					}
					if len(now) != series {
						return fmt.Errorf("%s is %v, and %d series were expected", c.selector(name), now, series)
					}
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		}
		send(3)
		await(1)
		await(0)
		send(4)
		await(1)
		await(0)
		for _, name := range seldom {
			c.checkIncrease(t, name, 7, time.Now())
		}
		c.checkAtEnd(t)
	})
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

// seldom are the series of what sendSeldom sends.
var seldom = []string{"seldom_total", "seldom_seconds_count", "seldom_bytes"}

// sendSeldom sends one delta of a counter, of a histogram and of an exponential one.
func sendSeldom(client pmetricotlp.GRPCClient, service string, start, end time.Time, value float64) error {
	md := pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	rm.Resource().Attributes().PutStr("service.name", service)
	metrics := rm.ScopeMetrics().AppendEmpty().Metrics()
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
	exponential := metrics.AppendEmpty()
	exponential.SetName("seldom")
	exponential.SetUnit("By")
	exponential.SetEmptyExponentialHistogram().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	e := exponential.ExponentialHistogram().DataPoints().AppendEmpty()
	e.SetStartTimestamp(pcommon.NewTimestampFromTime(start))
	e.SetTimestamp(pcommon.NewTimestampFromTime(end))
	e.SetScale(2)
	e.Positive().SetOffset(3)
	e.Positive().BucketCounts().FromRaw([]uint64{uint64(value)})
	e.SetCount(uint64(value))
	e.SetSum(value)
	_, err := client.Export(context.Background(), pmetricotlp.NewExportRequestFromMetrics(md))
	return err
}
