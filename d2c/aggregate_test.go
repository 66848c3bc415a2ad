// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/streamid"
)

// ofPod is a batch of one pod.
func ofPod(pod string, points ...point) pmetric.Metrics {
	md := batch(points...)
	for _, rm := range md.ResourceMetrics().All() {
		rm.Resource().Attributes().PutStr("service.name", "shop")
		rm.Resource().Attributes().PutStr("pod", pod)
	}
	return md
}

func dropPod(cfg d2c.Config) d2c.Config {
	cfg.Aggregate = []d2c.AggregateRule{{Metrics: []string{"*"}, Resource: streamid.Selection{Drop: []string{"pod"}}}}
	return cfg
}

// text writes what is in md, a line a point.
func text(md pmetric.Metrics) string {
	var lines []string
	for _, rm := range md.ResourceMetrics().All() {
		for _, sm := range rm.ScopeMetrics().All() {
			for _, m := range sm.Metrics().All() {
				add := func(attrs map[string]any, start, time uint64, v any) {
					lines = append(lines, fmt.Sprint(rm.Resource().Attributes().AsRaw(), " ", m.Name(), " ", attrs, " ", float64(start)/1e9, " ", float64(time)/1e9, " ", v))
				}
				switch m.Type() {
				case pmetric.MetricTypeSum:
					for _, dp := range m.Sum().DataPoints().All() {
						if dp.ValueType() == pmetric.NumberDataPointValueTypeInt {
							add(dp.Attributes().AsRaw(), uint64(dp.StartTimestamp()), uint64(dp.Timestamp()), dp.IntValue())
						} else {
							add(dp.Attributes().AsRaw(), uint64(dp.StartTimestamp()), uint64(dp.Timestamp()), dp.DoubleValue())
						}
					}
				case pmetric.MetricTypeHistogram:
					for _, dp := range m.Histogram().DataPoints().All() {
						add(dp.Attributes().AsRaw(), uint64(dp.StartTimestamp()), uint64(dp.Timestamp()), fmt.Sprint(dp.Count(), dp.Sum(), dp.BucketCounts().AsRaw()))
					}
				case pmetric.MetricTypeExponentialHistogram:
					for _, dp := range m.ExponentialHistogram().DataPoints().All() {
						add(dp.Attributes().AsRaw(), uint64(dp.StartTimestamp()), uint64(dp.Timestamp()), fmt.Sprint(dp.Count(), dp.Sum(), dp.Scale(), dp.Positive().Offset(), dp.Positive().BucketCounts().AsRaw()))
					}
				}
			}
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// aggregateModes are where state can be.
var aggregateModes = map[string]func(t *testing.T, cfg d2c.Config) *d2c.Converter{
	"memory": func(t *testing.T, cfg d2c.Config) *d2c.Converter { return newConverter(t, cfg) },
	"durable": func(t *testing.T, cfg d2c.Config) *d2c.Converter {
		conv, _ := openTest(t, cfg, newMemory())
		return conv
	},
	"shared": func(t *testing.T, cfg d2c.Config) *d2c.Converter {
		conv, err := d2c.OpenShared(context.Background(), cfg, d2c.SharedConfig{Store: &store.Memory{}})
		if err != nil {
			t.Fatal(err)
		}
		return conv
	},
}

func TestAggregate(t *testing.T) {
	for mode, open := range aggregateModes {
		t.Run(mode, func(t *testing.T) {
			cfg := d2c.DefaultConfig()
			clock(0)(&cfg)
			conv := open(t, dropPod(cfg))
			s := series("requests")
			step := func(md pmetric.Metrics, want string) {
				t.Helper()
				r, err := conv.Convert(context.Background(), md)
				if err != nil {
					t.Fatal(err)
				}
				if got := text(md); got != want {
					t.Errorf("got\n%s\nwant\n%s\n%s", got, want, describeResult(r))
				}
			}
			step(ofPod("a", s.int(10, 20, 1)), "map[service.name:shop] requests map[] 10 20 1")
			step(ofPod("b", s.int(10, 20, 2)), "map[service.name:shop] requests map[] 10 20.001 3")
			step(ofPod("a", s.int(20, 30, 4)), "map[service.name:shop] requests map[] 10 30 7")
			step(ofPod("a", s.int(20, 30, 4)), "map[service.name:shop] requests map[] 10 30 7") // repeat
			step(ofPod("b", s.int(20, 30, 8)), "map[service.name:shop] requests map[] 10 30.001 15")
			// Two pods in one batch: one sample.
			md := ofPod("a", s.int(30, 40, 16))
			ofPod("b", s.int(30, 40, 32)).ResourceMetrics().MoveAndAppendTo(md.ResourceMetrics())
			step(md, "map[service.name:shop] requests map[] 10 40 63")
			if got := conv.Stats(); got.Streams != 1 || got.Writers != 2 {
				t.Errorf("%+v", got)
			}
		})
	}
}
