// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package log_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/d2c/store/log"
	"github.com/deltaring/deltaring/streamid"
)

// recordSize is that of a sum with five gaps, or so.
const recordSize = 88

// meter counts what goes to the driver.
type meter struct{ appended, snapshots, calls atomic.Int64 }

func (*meter) Swapped(context.Context, []store.Swap, []store.Result, time.Duration, int, error) {}
func (*meter) SetAside(context.Context, bool, error)                                            {}

func (m *meter) Called(_ context.Context, c log.Call) {
	switch c.Method {
	case log.MethodAppend:
		m.appended.Add(int64(c.Bytes))
		m.calls.Add(1)
	case log.MethodCompact:
		m.snapshots.Add(int64(c.Bytes))
	}
}

// BenchmarkSwap is what a point costs a worker, where 100 000 streams get one each in commits of a size: in logs, whose driver is in memory,
// and in store.Memory.
func BenchmarkSwap(b *testing.B) {
	const streams = 100_000
	for _, size := range []int{100, 1000, 8192, 50_000} {
		for _, name := range []string{"log", "memory"} {
			b.Run(fmt.Sprintf("%s/commit=%d", name, size), func(b *testing.B) {
				m := new(meter)
				var st store.Shared = new(store.Memory)
				if name == "log" {
					st = open(b, new(log.Memory), log.Options{Observer: m})
				}
				ctx := context.Background()
				lives, err := st.Lives(ctx, store.Life{ID: 1})
				if err != nil {
					b.Fatal(err)
				}
				swaps := make([]store.Swap, streams)
				for i := range swaps {
					id := streamid.ID{Hi: rand.Uint64(), Lo: rand.Uint64()}
					swaps[i] = store.Swap{ID: id, Life: lives[store.Group(id, len(lives))].ID, Record: make([]byte, recordSize)}
				}
				next := 0
				commit := func() {
					if next+size > streams {
						next = 0
					}
					some := swaps[next : next+size]
					next += size
					for i := range some {
						some[i].Base, some[i].Tag = some[i].Tag, some[i].Tag+2
					}
					if results, err := st.Swap(ctx, some); err != nil || results[0].Status != store.Swapped {
						b.Fatal(results[0], err)
					}
				}
				for range streams / size {
					commit()
				}
				m.appended.Store(0)
				m.snapshots.Store(0)
				b.ReportAllocs()
				points := 0
				for b.Loop() {
					commit()
					points += size
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(points), "ns/point")
				if name == "log" {
					b.ReportMetric(float64(m.appended.Load())/float64(points), "B/point")
					b.ReportMetric(float64(m.snapshots.Load())/float64(points), "snapshot-B/point")
				}
			})
		}
	}
}

// BenchmarkTakeover is how long it takes a worker that begins to have the records of all streams, 64 logs of them, from a driver in memory.
func BenchmarkTakeover(b *testing.B) {
	for _, streams := range []int{100_000, 1_000_000} {
		b.Run(fmt.Sprintf("streams=%d", streams), func(b *testing.B) {
			m := new(log.Memory)
			st := open(b, m, log.Options{})
			u := newUser(b, st)
			record := make([]byte, recordSize)
			swaps := make([]store.Swap, 10_000)
			for range streams / len(swaps) {
				for i := range swaps {
					swaps[i] = u.swap(streamid.ID{Hi: rand.Uint64(), Lo: rand.Uint64()}, record)
				}
				if _, err := st.Swap(context.Background(), swaps); err != nil {
					b.Fatal(err)
				}
			}
			if err := st.Compact(context.Background()); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				fresh(b, m, log.Options{}, func(u *user) {
					var swaps []store.Swap
					for g := range u.lives {
						swaps = append(swaps, store.Swap{ID: u.id(g, 0), Life: u.lives[g].ID})
					}
					u.must(swaps)
					if got := u.st.Stats().Streams; got != streams {
						b.Fatalf("%d streams, want %d", got, streams)
					}
				})
			}
		})
	}
}
