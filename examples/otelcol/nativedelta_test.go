// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package otelcol

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
)

// TestNativeDeltas is what backends.md says of a Prometheus that takes deltas as they are, without us.
func TestNativeDeltas(t *testing.T) {
	t.Parallel()
	prom := startConfiguredPrometheus(t, newestPrometheus, "", "--enable-feature=otlp-native-delta-ingestion")
	line := newTimeline()
	// send has one delta arrive, and returns the status.
	send := func(name string, i int, value float64) int {
		t.Helper()
		md := pmetric.NewMetrics()
		rm := md.ResourceMetrics().AppendEmpty()
		rm.Resource().Attributes().PutStr("service.name", "shop")
		m := rm.ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
		m.SetName(name)
		m.SetEmptySum().SetIsMonotonic(true)
		m.Sum().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
		dp := m.Sum().DataPoints().AppendEmpty()
		dp.SetStartTimestamp(pcommon.NewTimestampFromTime(line.at(i)))
		dp.SetTimestamp(pcommon.NewTimestampFromTime(line.at(i + 1)))
		dp.SetDoubleValue(value)
		body, err := pmetricotlp.NewExportRequestFromMetrics(md).MarshalProto()
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.Post(prom.url+"/api/v1/otlp/v1/metrics", "application/x-protobuf", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode
	}
	seen := func(promql string) float64 {
		t.Helper()
		got, err := prom.query(promql, line.at(intervals).Add(time.Second))
		if err != nil || len(got) != 1 {
			t.Fatalf("%s: %v, %v", promql, got, err)
		}
		for _, samples := range got {
			return samples[0].value
		}
		return 0
	}
	const each, truth = 7.0, 7.0 * intervals
	window := fmt.Sprintf("[%ds]", int(intervals*interval/time.Second)+30)
	sum := func(name string) float64 { return seen("sum_over_time(" + name + "_total" + window + ")") }

	for i := range intervals {
		if status := send("plain", i, each); status != http.StatusOK {
			t.Fatalf("status %d", status)
		}
		send("retried", i, each)
		send("retried", i, each) // whose answer was lost
		switch i {
		case 10: // comes behind the next one
		case 11:
			send("late", i, each)
			send("late", i-1, each)
		default:
			send("late", i, each)
		}
		send("shared", i, each) // two producers with one identity
		send("shared", i, 2*each)
	}
	for _, tc := range []struct {
		name      string
		got, want float64
	}{
		{"deltas that come one after the other", sum("plain"), truth},
		{"a retry", sum("retried"), truth},
		{"one that is late is lost", sum("late"), truth - each},
		{"of two producers with one identity, one is", sum("shared"), truth},
	} {
		t.Logf("%s: %v", tc.name, tc.got)
		if tc.got != tc.want {
			t.Errorf("%s: %v, want %v: backends.md says otherwise", tc.name, tc.got, tc.want)
		}
	}
	// What is counted is the difference of deltas, which are all the same.
	if got := seen("increase(plain_total" + window + ")"); got > each {
		t.Errorf("increase() is %v: backends.md says that it means nothing", got)
	}
	// A window that ends between two deltas has all or nothing of the one that covers its end.
	half := seen("sum_over_time(plain_total[95s] offset 5s)")
	t.Logf("95 s of 10 s deltas of %v: %v, the truth is %v", each, half, each*9.5)
}
