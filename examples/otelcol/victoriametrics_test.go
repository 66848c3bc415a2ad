// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package otelcol

import (
	"fmt"
	"testing"
	"time"
)

// TestVictoriaMetrics: by remote write and by OTLP the totals are those of what was sent, and increase() counts the first sample
// without a zero before it.
func TestVictoriaMetrics(t *testing.T) {
	t.Parallel()
	v := startVictoriaMetrics(t)
	for route, config := range map[string]string{"write": "prometheus.yaml", "otlp": "one-node.yaml"} {
		t.Run(route, func(t *testing.T) {
			coll := startCollector(t, config, append(v.environment(), "OTLP_BACKEND="+v.url+"/opentelemetry"))
			client := coll.client(t)
			began := time.Now().Add(-10 * time.Minute)
			const deltas, each = 8, 3
			for i := range deltas {
				start := began.Add(time.Duration(i) * time.Minute)
				if err := sendSeldom(client, route, start, start.Add(time.Minute), each); err != nil {
					t.Fatal(err)
				}
			}
			selectors := []string{`seldom_total{job="write"}`, `seldom_seconds_count{job="write"}`}
			if route == "otlp" { // its own names and labels
				selectors = []string{`seldom{service.name="otlp"}`, `seldom_count{service.name="otlp"}`}
			}
			for _, selector := range selectors {
				for promql, want := range map[string]float64{
					"last_over_time(" + selector + "[20m])": deltas * each,
					"increase(" + selector + "[20m])":       deltas * each,
				} {
					if err := poll(func() error {
						if _, err := get(v.url + "/internal/force_flush"); err != nil { // what has come is seen after some seconds otherwise
							return err
						}
						got, err := v.query(promql, time.Now())
						if err != nil {
							return err
						}
						for _, samples := range got {
							if len(got) == 1 && samples[0].value == want {
								return nil
							}
						}
						return fmt.Errorf("%s is %v, want %v", promql, got, want)
					}); err != nil {
						t.Error(err)
					}
				}
			}
			coll.stop(t)
			checkOrder(t, coll)
		})
	}
}
