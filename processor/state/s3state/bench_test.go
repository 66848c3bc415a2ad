// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package s3state

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/d2c/store/s3/s3test"
)

// batch is one delta for each of some streams.
func batch(first, points, second int) pmetric.Metrics {
	md := pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	for _, key := range []string{"service.name", "service.namespace", "host.name", "k8s.pod.name", "k8s.namespace.name", "cloud.region"} {
		rm.Resource().Attributes().PutStr(key, "value of "+key)
	}
	m := rm.ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	m.SetName("requests")
	sum := m.SetEmptySum()
	sum.SetIsMonotonic(true)
	sum.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	sum.DataPoints().EnsureCapacity(points)
	for i := range points {
		dp := sum.DataPoints().AppendEmpty()
		dp.Attributes().PutStr("method", "GET")
		dp.Attributes().PutStr("route", "/a/b/c")
		dp.Attributes().PutInt("stream", int64(first+i))
		dp.SetStartTimestamp(pcommon.NewTimestampFromTime(time.Unix(testEpoch+int64(second), 0)))
		dp.SetTimestamp(pcommon.NewTimestampFromTime(time.Unix(testEpoch+int64(second)+1, 0)))
		dp.SetIntValue(1)
	}
	return md
}

// processorTime is what this process has used, senders and proxy with the worker.
func processorTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkWorker is a worker, whose store takes 50 ms for each request, that gets batches of 1000 points from many senders: 100 000 points
// a second, or as many as it can take. An operation is 1000 points.
func BenchmarkWorker(b *testing.B) {
	const points, senders = 1000, 600
	for _, c := range []struct {
		streams int
		rate    int // points a second, zero for no limit
	}{
		{100_000, 100_000}, {1_000_000, 0},
	} {
		name := fmt.Sprintf("%d_streams/no_limit", c.streams)
		if c.rate > 0 {
			name = fmt.Sprintf("%d_streams/%d_points_a_second", c.streams, c.rate)
		}
		b.Run(name, func(b *testing.B) {
			server := s3test.Start(b)
			proxy := s3test.NewProxy(b, server.URL)
			var requests, bytes atomic.Int64
			proxy.Fail(func(r *http.Request) s3test.Fault {
				if !strings.Contains(r.URL.Path, "/_probe/") {
					requests.Add(1)
					bytes.Add(r.ContentLength)
				}
				return s3test.Fault{Delay: 50 * time.Millisecond}
			})
			cfg := testConfig(proxy.URL)
			cfg.CommitInterval = createDefaultConfig().(*Config).CommitInterval
			conv, err := d2c.OpenShared(context.Background(), d2c.DefaultConfig(), d2c.SharedConfig{
				Store: sharedStore(b, startExtension(b, cfg)), Owner: testProcessor.String(),
			})
			if err != nil {
				b.Fatal(err)
			}
			var next atomic.Int64
			send := func(ops int64, rate int) {
				from := next.Load()
				started := time.Now()
				var wg sync.WaitGroup
				for range senders {
					wg.Go(func() {
						for {
							op := next.Add(1) - 1
							if op >= from+ops {
								return
							}
							if rate > 0 {
								time.Sleep(time.Until(started.Add(time.Duration(op-from) * points * time.Second / time.Duration(rate))))
							}
							first, second := int(op)*points%c.streams, int(op)*points/c.streams
							if _, err := conv.Convert(context.Background(), batch(first, points, second)); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
				next.Store(from + ops)
			}
			send(int64(c.streams/points), 0) // all streams are there
			requests.Store(0)
			bytes.Store(0)
			used := processorTime()
			b.ResetTimer()
			send(int64(b.N), c.rate)
			b.StopTimer()
			seconds := b.Elapsed().Seconds()
			b.ReportMetric(float64(b.N*points)/seconds, "points/s")
			b.ReportMetric(float64(requests.Load())/seconds, "requests/s")
			b.ReportMetric(float64(bytes.Load())/seconds/1e6, "MB/s")
			b.ReportMetric((processorTime()-used).Seconds()/float64(b.N*points)*1e6, "CPU-s/Mpoints")
			b.ReportMetric(0, "ns/op")
		})
	}
}
