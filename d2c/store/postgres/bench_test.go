// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/d2c/store/log"
	"github.com/deltaring/deltaring/d2c/store/postgres/postgrestest"
)

// deltas are of 1 for each of some streams.
func deltas(first, points int, from time.Time) pmetric.Metrics {
	md := pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	rm.Resource().Attributes().PutStr("service.name", "bench")
	m := rm.ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	m.SetName("requests")
	sum := m.SetEmptySum()
	sum.SetIsMonotonic(true)
	sum.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	for i := range points {
		dp := sum.DataPoints().AppendEmpty()
		dp.SetStartTimestamp(pcommon.NewTimestampFromTime(from))
		dp.SetTimestamp(pcommon.NewTimestampFromTime(from.Add(time.Second)))
		dp.SetIntValue(1)
		dp.Attributes().PutInt("stream", int64(first+i))
	}
	return md
}

func ourTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func share(b testing.TB, d *Driver) *d2c.Converter {
	b.Helper()
	st, err := log.New(d, log.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = st.Close(context.Background()) })
	conv, err := d2c.OpenShared(context.Background(), d2c.DefaultConfig(), d2c.SharedConfig{Store: st, Owner: "d2c"})
	if err != nil {
		b.Fatal(err)
	}
	return conv
}

// BenchmarkShare is what a worker converts that has all streams: 100 000 sums, so many batches at once. server-µs/point is the
// server's processor time, its writing of snapshots and vacuuming included, worker-µs/point ours, without making the batches.
func BenchmarkShare(b *testing.B) {
	const streams = 100_000
	for _, c := range []struct{ points, atOnce int }{{100, 1}, {1000, 1}, {1000, 8}, {10_000, 1}, {10_000, 8}} {
		b.Run(fmt.Sprintf("batch=%d/at-once=%d", c.points, c.atOnce), func(b *testing.B) {
			s := postgrestest.Start(b, "max_wal_size=4GB", "shared_buffers=256MB")
			conv := share(b, open(b, connect(b, s.Addr), Options{Name: "d2c"}))
			from := time.Unix(1_700_000_000, 0)
			var wall, ours time.Duration
			commits := 0
			second := func() {
				var batches []pmetric.Metrics
				for first := 0; first < streams; first += c.points {
					batches = append(batches, deltas(first, c.points, from))
				}
				from = from.Add(time.Second)
				commits += len(batches)
				next := make(chan pmetric.Metrics, len(batches))
				for _, md := range batches {
					next <- md
				}
				close(next)
				began, cpu := time.Now(), ourTime()
				var wg sync.WaitGroup
				for range c.atOnce {
					wg.Go(func() {
						for md := range next {
							if _, err := conv.Convert(context.Background(), md); err != nil {
								b.Error(err)
							}
						}
					})
				}
				wg.Wait()
				wall += time.Since(began)
				ours += ourTime() - cpu
			}
			second()
			s.Exec("CHECKPOINT")
			wall, ours, commits = 0, 0, 0
			server, wal, n := s.ProcessorTime(), s.Number("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint"), 0
			for b.Loop() {
				second()
				n += streams
			}
			per := func(v float64) float64 { return v / float64(n) }
			b.ReportMetric(per(float64((s.ProcessorTime() - server).Microseconds())), "server-µs/point")
			b.ReportMetric(per(float64(ours.Microseconds())), "worker-µs/point")
			b.ReportMetric(per(float64(s.Number("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint")-wal)), "WAL-B/point")
			b.ReportMetric(float64(n)/wall.Seconds(), "points/s")
			b.ReportMetric(float64(wall.Microseconds())*float64(c.atOnce)/float64(commits), "µs/batch")
			b.ReportMetric(float64(s.Number("SELECT sum(pg_total_relation_size(c)) FROM unnest(ARRAY['d2c.logs', 'd2c.entries']::regclass[]) c"))/streams, "disk-B/stream")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkAppend is the driver alone: one entry for each of 64 logs.
func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{100, 1400, 14_000} {
		b.Run(fmt.Sprintf("bytes=%d", size), func(b *testing.B) {
			s := postgrestest.Start(b, "max_wal_size=4GB", "shared_buffers=256MB")
			d := open(b, connect(b, s.Addr), Options{Name: "d2c"})
			var ends [64]log.Position
			entry := make([]byte, size)
			for i := range entry {
				entry[i] = byte(rand.Uint32())
			}
			appends := make([]log.Append, len(ends))
			commit := func() {
				for i := range appends {
					appends[i] = log.Append{Log: i, After: ends[i], ID: rand.Uint64() | 1, Entry: entry}
					ends[i] = log.Position{Number: ends[i].Number + 1, ID: appends[i].ID}
				}
				if _, err := d.Append(context.Background(), appends); err != nil {
					b.Fatal(err)
				}
			}
			commit()
			server, ours := s.ProcessorTime(), ourTime()
			b.ReportAllocs()
			for b.Loop() {
				commit()
			}
			b.ReportMetric(float64((s.ProcessorTime()-server).Microseconds())/float64(b.N), "server-µs/commit")
			b.ReportMetric(float64((ourTime()-ours).Microseconds())/float64(b.N), "worker-µs/commit")
		})
	}
}

// BenchmarkTakeover is how long a worker takes for its first batch, which has a point of each group of streams, where another has left
// the records of so many streams: it reads all of them.
func BenchmarkTakeover(b *testing.B) {
	const points = 10_000
	for _, streams := range []int{200_000, 1_000_000} {
		b.Run(fmt.Sprintf("streams=%d", streams), func(b *testing.B) {
			s := postgrestest.Start(b, "max_wal_size=4GB", "shared_buffers=256MB")
			pool := connectWith(b, s.Addr, func(cfg *pgxpool.Config) { cfg.MaxConns = 4 })
			first := share(b, open(b, pool, Options{Name: "d2c"}))
			from := time.Unix(1_700_000_000, 0)
			for i := 0; i < streams; i += points {
				if _, err := first.Convert(context.Background(), deltas(i, points, from)); err != nil {
					b.Fatal(err)
				}
			}
			for b.Loop() {
				from = from.Add(time.Second)
				if _, err := share(b, open(b, pool, Options{Name: "d2c"})).Convert(context.Background(), deltas(0, 2000, from)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
