// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package otelcol

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
)

// TestTargetInfo: by OTLP Prometheus makes a series target_info of a resource, with the times of what comes of it, and refuses a whole
// request that would set it back. A zero in the past does, and so does a delta of a time at which another stream of the resource was
// given out again. Here is what the README says to do about it, and that it is needed.
func TestTargetInfo(t *testing.T) {
	t.Parallel()
	const (
		otlp, write = "one-node.yaml", "prometheus.yaml"
		window      = "storage: {tsdb: {out_of_order_time_window: 10m}}"
		zeros       = "--enable-feature=created-timestamp-zero-ingestion"
		starts      = "--enable-feature=st-storage,use-start-timestamps"
	)
	write2 := append(slices.Clone(under["remote-write-2.yaml"]), "--config", "remote-write-2.yaml")
	for _, tc := range []struct {
		name, config, d2c string
		more              []string // arguments of the Collector
		prometheus        string
		flags             []string
		refused           bool
	}{
		{name: "remote write", config: write, d2c: "emit_zero: true, reemit_interval: 1s"},
		{name: "remote write 2, zeros of Prometheus", config: write, more: write2, flags: []string{zeros}},
		{name: "remote write 2, start timestamps", config: write, more: write2, flags: []string{starts}},
		{name: "window", config: otlp, d2c: "emit_zero: true, reemit_interval: 1s", prometheus: window},
		{name: "zeros of Prometheus", config: otlp, flags: []string{zeros}},
		{name: "zeros of both", config: otlp, d2c: "emit_zero: true", prometheus: window, flags: []string{zeros}},
		{name: "start timestamps", config: otlp, flags: []string{starts}},
		{name: "no window, zeros", config: otlp, d2c: "emit_zero: true", refused: true},
		{name: "no window, reemission", config: otlp, d2c: "reemit_interval: 1s", refused: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			prom := startConfiguredPrometheus(t, newestPrometheus, tc.prometheus, tc.flags...)
			settings := filepath.Join(t.TempDir(), "settings.yaml")
			if err := os.WriteFile(settings, fmt.Appendf(nil, states["memory"], tc.d2c), 0o600); err != nil {
				t.Fatal(err)
			}
			coll := startCollector(t, tc.config, append(prom.environment(), "OTLP_BACKEND="+prom.url+"/api/v1/otlp"), append(tc.more, "--config", settings)...)
			client := coll.client(t)
			count := func(name string, start, end time.Time, value float64) {
				t.Helper()
				if err := sendOfHost(client, name, start, end, value); err != nil {
					t.Fatal(err)
				}
			}
			// await waits for the latest sample of a series, or for something to be refused if that is what is to be.
			await := func(name string, value float64, after time.Time) (last sample) {
				t.Helper()
				if err := poll(func() error {
					if tc.refused {
						m, err := scrape(prom.url + "/metrics")
						if err != nil || m.sum("prometheus_tsdb_out_of_order_samples_total") > 0 {
							return err
						}
					}
					got, err := prom.query(name+"[1m]", time.Now())
					for _, samples := range got {
						if last = samples[len(samples)-1]; last.value == value && last.ms > after.UnixMilli() {
							return nil
						}
					}
					return fmt.Errorf("%s is %v, %v", name, got, err)
				}); err != nil {
					t.Fatal(err)
				}
				return last
			}

			// The second stream begins before the first, and is counted after it. The third ends before the first has been given out
			// again, and is counted after that.
			began := time.Now()
			time.Sleep(50 * time.Millisecond) // so far apart that there is room for zeros
			count("first", began.Add(20*time.Millisecond), time.Now(), 3)
			await("first_total", 3, began)
			count("second", began, time.Now(), 4)
			await("second_total", 4, began)
			behind := time.Now()
			if strings.Contains(tc.d2c, "reemit_interval") {
				await("first_total", 3, behind)
			}
			count("third", behind.Add(-20*time.Millisecond), behind, 5)
			await("third_total", 5, began)

			if tc.refused {
				m, err := scrape(prom.url + "/metrics")
				if err != nil || m.sum("prometheus_tsdb_out_of_order_samples_total") == 0 {
					t.Errorf("nothing was refused, %v: the README need not warn of it any more", err)
				}
				return
			}
			for name, want := range map[string]float64{"first_total": 3, "second_total": 4, "third_total": 5} {
				last := await(name, want, began)
				// Nothing is extrapolated from a zero to before it, nor from a sample to its own time.
				got, err := prom.query("increase("+name+"[1m])", time.UnixMilli(last.ms))
				if err != nil || len(got) != 1 {
					t.Errorf("increase of %s is %v, %v", name, got, err)
				}
				for _, samples := range got {
					if !near(samples[0].value, want) {
						t.Errorf("increase of %s is %v, want %v", name, samples[0].value, want)
					}
				}
			}
			coll.stop(t)
			checkOrder(t, coll)
			prom.checkNothingRejected(t, newLedger())
		})
	}
}

// sendOfHost sends one delta of a resource of which Prometheus makes a target_info.
func sendOfHost(client pmetricotlp.GRPCClient, name string, start, end time.Time, value float64) error {
	md := pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	rm.Resource().Attributes().PutStr("service.name", "shop")
	rm.Resource().Attributes().PutStr("host.name", "one")
	sum := rm.ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	sum.SetName(name)
	sum.SetEmptySum().SetIsMonotonic(true)
	sum.Sum().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	n := sum.Sum().DataPoints().AppendEmpty()
	n.SetStartTimestamp(pcommon.NewTimestampFromTime(start))
	n.SetTimestamp(pcommon.NewTimestampFromTime(end))
	n.SetDoubleValue(value)
	_, err := client.Export(context.Background(), pmetricotlp.NewExportRequestFromMetrics(md))
	return err
}
