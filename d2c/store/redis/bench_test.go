// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/d2c/store/log"
	"github.com/deltaring/deltaring/d2c/store/redis/redistest"
	"github.com/deltaring/deltaring/streamid"
)

// BenchmarkSwap is batches of swaps of records as long as those of sums, all known, one batch after the other. server-µs/swap is the
// server's processor time, which depends less on what else the machine does.
func BenchmarkSwap(b *testing.B) {
	single := redistest.Start(b)
	three := redistest.StartCluster(b, 3)
	for _, servers := range []int{1, 3} {
		for _, batch := range []int{10, 100, 1000, 10_000} {
			b.Run(fmt.Sprintf("servers=%d/batch=%d", servers, batch), func(b *testing.B) {
				mode, nodes := "standalone", []*redistest.Server{single}
				if servers > 1 {
					mode, nodes = "cluster", three
				}
				opts := testOptions()
				opts.Name = fmt.Sprint("b", batch)
				te := openTester(b, connect(b, mode, nodes[0].Addr), opts)
				swaps := make([]store.Swap, batch)
				tag := uint64(1)
				for i := range swaps {
					swaps[i] = store.Swap{ID: streamid.ID{Hi: uint64(i) * 0x9e3779b97f4a7c15, Lo: uint64(i)}, Tag: tag, Record: make([]byte, 95)}
				}
				te.must(swaps...)
				before, n := processorTime(b, nodes), 0
				for b.Loop() {
					tag++
					for i := range swaps {
						swaps[i].Base, swaps[i].Tag = tag-1, tag
					}
					te.must(swaps...)
					n += batch
				}
				b.ReportMetric(float64((processorTime(b, nodes)-before).Nanoseconds())/1000/float64(n), "server-µs/swap")
				b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "swaps/s")
			})
		}
	}
}

// BenchmarkRead is BenchmarkSwap for reads.
func BenchmarkRead(b *testing.B) {
	server := redistest.Start(b)
	nodes := []*redistest.Server{server}
	for _, batch := range []int{10, 100, 1000, 10_000} {
		b.Run(fmt.Sprintf("servers=1/batch=%d", batch), func(b *testing.B) {
			opts := testOptions()
			opts.Name = fmt.Sprint("b", batch)
			te := openTester(b, connect(b, "standalone", server.Addr), opts)
			swaps, ids := make([]store.Swap, batch), make([]streamid.ID, batch)
			for i := range swaps {
				ids[i] = streamid.ID{Hi: uint64(i) * 0x9e3779b97f4a7c15, Lo: uint64(i)}
				swaps[i] = store.Swap{ID: ids[i], Tag: 1, Record: make([]byte, 95)}
			}
			te.must(swaps...)
			before, n := processorTime(b, nodes), 0
			for b.Loop() {
				if _, err := te.Read(b.Context(), ids); err != nil {
					b.Fatal(err)
				}
				n += batch
			}
			b.ReportMetric(float64((processorTime(b, nodes)-before).Nanoseconds())/1000/float64(n), "server-µs/read")
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "reads/s")
		})
	}
}

// BenchmarkAppend is commits of 100 KB, as of a thousand sums, to more or fewer logs, which a snapshot ends after 8 MB. server-µs/commit is the
// server's processor time.
func BenchmarkAppend(b *testing.B) {
	single := redistest.Start(b)
	three := redistest.StartCluster(b, 3)
	for _, servers := range []int{1, 3} {
		for _, logs := range []int{1, 8, 16, 21, 64, 256} {
			b.Run(fmt.Sprintf("servers=%d/logs=%d", servers, logs), func(b *testing.B) {
				mode, nodes := "standalone", []*redistest.Server{single}
				if servers > 1 {
					mode, nodes = "cluster", three
				}
				opts := testOptions()
				opts.Name = fmt.Sprint("b", logs)
				l := openLog(b, connect(b, mode, nodes[0].Addr), opts)
				entry := make([]byte, 100_000/logs)
				appends := make([]log.Append, logs)
				for n := range appends {
					tail, err := l.Read(b.Context(), n, log.Position{})
					if err != nil {
						b.Fatal(err)
					}
					appends[n] = log.Append{Log: n, After: tail.End(), Entry: entry}
				}
				before, commits := processorTime(b, nodes), 0
				for b.Loop() {
					commits++
					for n := range appends {
						appends[n].ID = uint64(commits)
					}
					done, err := l.Append(b.Context(), appends)
					if err != nil || slices.Contains(done, false) {
						b.Fatal(done, err)
					}
					for n := range appends {
						appends[n].After = log.Position{Number: appends[n].After.Number + 1, ID: appends[n].ID}
						if commits%80 == n%80 {
							if err := l.Compact(b.Context(), n, appends[n].After, entry); err != nil {
								b.Fatal(err)
							}
						}
					}
				}
				b.ReportMetric(float64((processorTime(b, nodes)-before).Nanoseconds())/1000/float64(commits), "server-µs/commit")
			})
		}
	}
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
