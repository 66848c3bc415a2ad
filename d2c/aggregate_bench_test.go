// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !race

// The batches are those of tests of allocations, which go without the race detector.

package d2c_test

import (
	"testing"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
)

// BenchmarkAggregate compares a point that is added to a total with one that has a stream of its own: of 100 pods, each with a batch of
// 1000 streams at a time, which make 1000 totals.
func BenchmarkAggregate(b *testing.B) {
	const pods = 100
	for _, k := range []loadKind{loadInt, loadHistogram, loadExponential} {
		for _, mode := range []struct {
			name string
			cfg  d2c.Config
		}{{"plain", d2c.DefaultConfig()}, {"total", dropPod(d2c.DefaultConfig())}} {
			b.Run(k.name+"/"+mode.name, func(b *testing.B) {
				conv := newConverter(b, mode.cfg)
				var batches []pmetric.Metrics
				for pod := range pods {
					md := loadBatch(k)
					md.ResourceMetrics().At(0).Resource().Attributes().PutInt("pod", int64(pod))
					batches = append(batches, md)
				}
				round := func(n int) {
					for pod, md := range batches {
						md.ResourceMetrics().At(0).Resource().Attributes().PutInt("pod", int64(pod))
						m := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0)
						b.StopTimer()
						k.fill(m)
						setLoadTimes(m, pcommon.Timestamp(n+1)*1e10, pcommon.Timestamp(n+2)*1e10)
						b.StartTimer()
						convert(conv, md)
					}
				}
				round(0)
				b.ReportAllocs()
				b.ResetTimer()
				for n := range b.N {
					round(n + 1)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/pods/loadPoints, "ns/point")
			})
		}
	}
}
