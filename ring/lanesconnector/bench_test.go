// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package lanesconnector

import (
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// BenchmarkConsume is what lanes cost a point, with a backend that costs nothing and 16 givers: in time, and of all processors, which
// tells more where others use them too. "without" has no lanes, for what it takes to make the batches.
func BenchmarkConsume(b *testing.B) {
	const givers = 16
	for _, points := range []int{20, 1000} {
		for _, yaml := range []string{"without", "{lanes: 1}", "{lanes: 16}", "{lanes: 16, late: pass}", "{lanes: 16, routing_key: resource}"} {
			b.Run(fmt.Sprintf("%d points/%s", points, yaml), func(b *testing.B) {
				consume := consumertest.NewNop().ConsumeMetrics
				if yaml != "without" {
					cfg, err := load(b, yaml)
					require.NoError(b, err)
					c, err := NewFactory().CreateMetricsToMetrics(b.Context(), nopSettings(), cfg, consumertest.NewNop())
					require.NoError(b, err)
					require.NoError(b, c.Start(b.Context(), hosted{}))
					defer func() { require.NoError(b, c.Shutdown(b.Context())) }()
					consume = c.ConsumeMetrics
				}
				b.ReportAllocs()
				used := processorTime(b)
				b.ResetTimer()
				var wg sync.WaitGroup
				for g := range givers {
					from := batchOf(g, points, 0, 1, one)
					wg.Go(func() {
						for n := range b.N/givers + 1 {
							md := pmetric.NewMetrics()
							from.CopyTo(md)
							for _, dp := range md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Sum().DataPoints().All() {
								dp.SetTimestamp(dp.Timestamp() + pcommon.Timestamp(n)*1e6)
							}
							if err := consume(b.Context(), md); err != nil {
								b.Error(err)
							}
						}
					})
				}
				wg.Wait()
				b.ReportMetric(float64((processorTime(b)-used).Nanoseconds())/float64((b.N/givers+1)*givers*points), "cpu-ns/point")
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64((b.N/givers+1)*givers*points), "ns/point")
			})
		}
	}
}

// processorTime is what the process has used.
func processorTime(b *testing.B) time.Duration {
	var r syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &r))
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
