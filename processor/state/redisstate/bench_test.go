// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package redisstate

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/d2c/store/redis/redistest"
)

// load is batches of one delta for each of some streams.
type load struct{ md pmetric.Metrics }

// newLoad makes batches of so many sums, or histograms of 16 buckets.
func newLoad(points int, histograms bool) *load {
	l := &load{pmetric.NewMetrics()}
	rm := l.md.ResourceMetrics().AppendEmpty()
	for _, key := range []string{"service.name", "service.namespace", "host.name", "k8s.pod.name", "k8s.namespace.name", "cloud.region"} {
		rm.Resource().Attributes().PutStr(key, "value of "+key)
	}
	m := rm.ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	m.SetName("requests")
	attributes := func(attrs pcommon.Map) {
		attrs.PutStr("method", "GET")
		attrs.PutStr("route", "/a/b/c")
		attrs.PutInt("status", 200)
		attrs.PutInt("stream", 0)
	}
	if histograms {
		bounds := make([]float64, 15)
		for i := range bounds {
			bounds[i] = float64(int(1) << i)
		}
		dps := m.SetEmptyHistogram().DataPoints()
		for range points {
			dp := dps.AppendEmpty()
			dp.ExplicitBounds().FromRaw(bounds)
			attributes(dp.Attributes())
		}
		return l
	}
	dps := m.SetEmptySum().DataPoints()
	m.Sum().SetIsMonotonic(true)
	for range points {
		attributes(dps.AppendEmpty().Attributes())
	}
	return l
}

// next makes the batch one of deltas of 1 of the streams from first on, over the second that begins at from.
func (l *load) next(first int, from time.Time) pmetric.Metrics {
	m := l.md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0)
	start, end := pcommon.NewTimestampFromTime(from), pcommon.NewTimestampFromTime(from.Add(time.Second))
	if m.Type() == pmetric.MetricTypeHistogram {
		m.Histogram().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
		for i, dp := range m.Histogram().DataPoints().All() {
			dp.SetStartTimestamp(start)
			dp.SetTimestamp(end)
			dp.SetCount(16)
			dp.SetSum(100)
			dp.BucketCounts().FromRaw([]uint64{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1})
			dp.Attributes().PutInt("stream", int64(first+i))
		}
		return l.md
	}
	m.Sum().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	for i, dp := range m.Sum().DataPoints().All() {
		dp.SetStartTimestamp(start)
		dp.SetTimestamp(end)
		dp.SetIntValue(1)
		dp.Attributes().PutInt("stream", int64(first+i))
	}
	return l.md
}

// share returns a Converter on the store.
func share(t testing.TB, st store.Shared) *d2c.Converter {
	t.Helper()
	conv, err := d2c.OpenShared(context.Background(), d2c.DefaultConfig(), d2c.SharedConfig{Store: st, Owner: testProcessor.String()})
	if err != nil {
		t.Fatal(err)
	}
	return conv
}

// BenchmarkShare is what a worker converts, batch after batch, all streams known: points/s counts Convert alone, which is
// the round trip to the server, the server's work and ours. server-µs/point and worker-µs/point are the processor times of the server and of
// this process for each point, which depend less on what else the machine does. Memory has no server: what it takes is what any store
// has on top.
func BenchmarkShare(b *testing.B) {
	const streams = 20_000
	single := redistest.Start(b)
	three := redistest.StartCluster(b, 3)
	for _, c := range []struct {
		layout  Layout
		servers int
	}{{"memory", 0}, {LayoutRecords, 1}, {LayoutLog, 1}, {LayoutRecords, 3}, {LayoutLog, 3}} {
		for _, points := range []int{10, 100, 1000, 10_000} {
			b.Run(fmt.Sprintf("%s/servers=%d/batch=%d", c.layout, c.servers, points), func(b *testing.B) {
				cfg, nodes := testConfig(single.Addr), []*redistest.Server{single}
				if c.servers > 1 {
					cfg, nodes = testConfig(three[0].Addr), three
					cfg.Mode = ModeCluster
				}
				cfg.Prefix = "bench" + strconv.Itoa(points)
				var conv *d2c.Converter
				if c.servers == 0 {
					var err error
					if conv, err = d2c.New(d2c.DefaultConfig()); err != nil {
						b.Fatal(err)
					}
				} else {
					cfg.Layout = c.layout
					conv = share(b, sharedStore(b, startExtension(b, cfg), testProcessor))
				}
				l := newLoad(points, false)
				from := time.Unix(1_700_000_000, 0)
				var busy, used time.Duration
				convert := func() {
					for first := 0; first < streams; first += points {
						md := l.next(first, from)
						started, before := time.Now(), ownProcessorTime(b)
						if _, err := conv.Convert(context.Background(), md); err != nil {
							b.Fatal(err)
						}
						busy += time.Since(started)
						used += ownProcessorTime(b) - before
					}
					from = from.Add(time.Second)
				}
				convert()
				n := 0
				busy, used = 0, 0
				before := processorTime(b, nodes)
				for b.Loop() {
					convert()
					n += streams
				}
				b.ReportMetric(float64((processorTime(b, nodes)-before).Nanoseconds())/1000/float64(n), "server-µs/point")
				b.ReportMetric(float64(used.Nanoseconds())/1000/float64(n), "worker-µs/point")
				b.ReportMetric(float64(n)/busy.Seconds(), "points/s")
				b.ReportMetric(float64(busy.Microseconds())/float64(n/points), "µs/batch")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// BenchmarkTurns is three workers on one server by record, whose batches come by turns: what each knows of two streams in three is out of
// date. With reads=false the Converter does not know that the store can be read.
func BenchmarkTurns(b *testing.B) {
	const streams, points, workers = 21_000, 1000, 3 // 21 batches: each worker gets other streams every time
	server := redistest.Start(b)
	nodes := []*redistest.Server{server}
	for _, c := range []struct {
		kind              string
		histograms, reads bool
	}{{"sum", false, false}, {"sum", false, true}, {"histogram", true, false}, {"histogram", true, true}} {
		b.Run(fmt.Sprintf("%s/reads=%t", c.kind, c.reads), func(b *testing.B) {
			var convs []*d2c.Converter
			prefix := fmt.Sprintf("turns%x", rand.Uint64())
			for range workers {
				cfg := testConfig(server.Addr)
				cfg.Prefix = prefix
				st := sharedStore(b, startExtension(b, cfg), testProcessor)
				if !c.reads {
					st = struct{ store.Shared }{st}
				}
				convs = append(convs, share(b, st))
			}
			l := newLoad(points, c.histograms)
			from, turn := time.Unix(1_700_000_000, 0), 0
			var used time.Duration
			convert := func() {
				for first := 0; first < streams; first += points {
					md := l.next(first, from)
					before := ownProcessorTime(b)
					if _, err := convs[turn%workers].Convert(context.Background(), md); err != nil {
						b.Fatal(err)
					}
					used += ownProcessorTime(b) - before
					turn++
				}
				turn++
				from = from.Add(time.Second)
			}
			for range 2 * workers {
				convert()
			}
			n := 0
			used = 0
			before := processorTime(b, nodes)
			for b.Loop() {
				convert()
				n += streams
			}
			b.ReportMetric(float64((processorTime(b, nodes)-before).Nanoseconds())/1000/float64(n), "server-µs/point")
			b.ReportMetric(float64(used.Nanoseconds())/1000/float64(n), "worker-µs/point")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkTakeover is how long a worker by log takes for its first batch, which has a point of each group of streams, where another has left
// the records of so many streams: it reads all of them.
func BenchmarkTakeover(b *testing.B) {
	const points = 10_000
	for _, groups := range []int{16, 64} {
		for _, streams := range []int{100_000, 1_000_000} {
			b.Run(fmt.Sprintf("groups=%d/streams=%d", groups, streams), func(b *testing.B) {
				cfg := testConfig(redistest.Start(b).Addr)
				cfg.Layout, cfg.Groups = LayoutLog, groups
				worker := func() *d2c.Converter {
					return share(b, sharedStore(b, startExtension(b, cfg), testProcessor))
				}
				conv, from := worker(), time.Unix(1_700_000_000, 0)
				many, few := newLoad(points, false), newLoad(1000, false)
				for first := 0; first < streams; first += points {
					if _, err := conv.Convert(context.Background(), many.next(first, from)); err != nil {
						b.Fatal(err)
					}
				}
				for b.Loop() {
					b.StopTimer()
					conv, from = worker(), from.Add(time.Second)
					md := few.next(0, from)
					b.StartTimer()
					if r, err := conv.Convert(context.Background(), md); err != nil || r.Count(d2c.AddedAligned) != 1000 {
						b.Fatal(r, err)
					}
				}
			})
		}
	}
}

// ownProcessorTime is what this process has used so far.
func ownProcessorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// processorTime is what the servers have used so far.
func processorTime(b *testing.B, servers []*redistest.Server) (used time.Duration) {
	for _, s := range servers {
		for _, field := range []string{"used_cpu_user", "used_cpu_sys"} {
			d, err := time.ParseDuration(s.Info("cpu", field) + "s")
			if err != nil {
				b.Fatal(err)
			}
			used += d
		}
	}
	return used
}

// BenchmarkLatency is how long a batch of 1000 takes if so many come each second. A worker by log takes more than 600 a second.
func BenchmarkLatency(b *testing.B) {
	const points, streams = 1000, 20_000
	for _, c := range []struct {
		layout Layout
		rate   int
	}{{LayoutRecords, 100}, {LayoutLog, 100}, {LayoutLog, 300}} {
		b.Run(fmt.Sprintf("%s/batches=%d", c.layout, c.rate), func(b *testing.B) {
			cfg := testConfig(redistest.Start(b).Addr)
			cfg.Layout = c.layout
			conv := share(b, sharedStore(b, startExtension(b, cfg), testProcessor))
			l := newLoad(points, false)
			var took []time.Duration
			tick := time.NewTicker(time.Second / time.Duration(c.rate))
			defer tick.Stop()
			for i := 0; b.Loop(); i++ {
				md := l.next(i*points%streams, time.Unix(int64(1_700_000_000+i*points/streams), 0))
				<-tick.C
				started := time.Now()
				if _, err := conv.Convert(context.Background(), md); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(started))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// What a stream costs in the server, keys, expiry and all, and what it costs there with a histogram.
func TestBytesPerStream(t *testing.T) {
	const streams, points = 100_000, 1000
	for _, c := range []struct {
		name       string
		layout     Layout
		histograms bool
		limit      float64
	}{
		{"sum", LayoutRecords, false, 220},
		{"histogram of 16 buckets", LayoutRecords, true, 400},
		{"sum in a log", LayoutLog, false, 250},
		{"histogram of 16 buckets in a log", LayoutLog, true, 600},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := redistest.Start(t)
			cfg := testConfig(server.Addr)
			cfg.Layout = c.layout
			conv := share(t, sharedStore(t, startExtension(t, cfg), testProcessor))
			memory := func() int {
				n, err := strconv.Atoi(server.Info("memory", "used_memory_dataset"))
				if err != nil {
					t.Fatal(err)
				}
				overhead, err := strconv.Atoi(server.Info("memory", "used_memory_overhead"))
				if err != nil {
					t.Fatal(err)
				}
				buffers, err := strconv.Atoi(server.Info("memory", "mem_clients_normal"))
				if err != nil {
					t.Fatal(err)
				}
				return n + overhead - buffers
			}
			before := memory()
			l := newLoad(points, c.histograms)
			for second := range 2 {
				for first := 0; first < streams; first += points {
					md := l.next(first, time.Unix(int64(1_700_000_000+second), 0))
					if _, err := conv.Convert(context.Background(), md); err != nil {
						t.Fatal(err)
					}
				}
			}
			per := float64(memory()-before) / streams
			t.Logf("%.1f bytes per stream, at most %v", per, c.limit)
			if per > c.limit {
				t.Errorf("%.1f bytes per stream, want at most %v", per, c.limit)
			}
		})
	}
}
